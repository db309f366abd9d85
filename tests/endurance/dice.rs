//! Seeded random numbers.
//!
//! Owns: the seed. Does not know: what is decided by it. The seed is printed, so that a run can be repeated as far as
//! the machine permits.

use std::env;

/// A xorshift generator.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice with the seed of the variable `ENDURANCE_SEED`, or another one in each run.
    pub(crate) fn from_environment() -> Self {
        let seed = env::var("ENDURANCE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 0x9E37_79B9);
        println!("seed {seed}: repeat with SEED={seed}");
        Self::new(seed)
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 11) as usize % end.max(1)
    }

    /// True with this probability in percent.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        (self.roll() >> 11) % 100 < percent
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }
}
