//! How fast video leaves: bursts of it must not make the voice behind them wait.
//!
//! Owns: a token bucket. Does not know: packets, timers. Time is an argument.

use std::time::Duration;

use crate::time::Timestamp;

/// What leaves at once after a rest: a pair of packets, whose spacing at the other end tells what the way carries, and a
/// frame of a small stream.
const BURST_BYTES: f64 = 3_000.0;

/// Paces one subscriber's video.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: f64,
    /// Bytes that may leave at once; negative after a burst.
    budget: f64,
    filled: Timestamp,
    paused: Timestamp,
}

impl Pacer {
    /// A pacer for so many bits per second.
    pub fn new(bits_per_second: u64, now: Timestamp) -> Self {
        Self { bytes_per_second: bits_per_second as f64 / 8.0, budget: BURST_BYTES, filled: now, paused: now }
    }

    /// Changes the rate.
    pub fn set_rate(&mut self, bits_per_second: u64, now: Timestamp) {
        self.fill(now);
        self.bytes_per_second = bits_per_second.max(1) as f64 / 8.0;
    }

    /// No video before this time.
    pub fn pause_until(&mut self, until: Timestamp) {
        self.paused = until;
    }

    /// How long to wait before the next packet may leave; None for not at all.
    pub fn wait(&mut self, now: Timestamp) -> Option<Duration> {
        if self.paused > now {
            return Some(self.paused.since(now));
        }
        self.fill(now);
        // A whole burst at a time, so that its packets leave together.
        (self.budget < 0.0).then(|| Duration::from_secs_f64((BURST_BYTES - self.budget) / self.bytes_per_second))
    }

    /// A packet of this size leaves.
    pub fn sent(&mut self, bytes: usize) {
        self.budget -= bytes as f64;
    }

    fn fill(&mut self, now: Timestamp) {
        let since = now.since(self.filled).as_secs_f64();
        self.filled = now;
        self.budget = (self.budget + since * self.bytes_per_second).min(BURST_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn over_a_while_it_keeps_its_rate(kbps in 30_u64..20_000, sizes in prop::collection::vec(50..1_300_usize, 100..400)) {
            let mut now = Timestamp::from_micros(1);
            let mut pacer = Pacer::new(kbps * 1_000, now);
            for size in &sizes {
                while let Some(wait) = pacer.wait(now) {
                    prop_assert!(wait > Duration::ZERO);
                    now = now + wait + Duration::from_micros(1);
                }
                pacer.sent(*size);
            }
            let bits = sizes.iter().sum::<usize>() as f64 * 8.0;
            let at_rate = bits / (kbps as f64 * 1_000.0);
            let took = now.as_micros() as f64 / 1e6;
            let burst = (BURST_BYTES + 1_300.0) * 8.0 / (kbps as f64 * 1_000.0);
            prop_assert!(took >= at_rate - 2.0 * burst && took <= at_rate + 2.0 * burst, "{} s for {} s", took, at_rate);
        }
    }

    #[test]
    fn a_pause_holds_what_has_budget() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(1_000_000, now);
        assert_eq!(pacer.wait(now), None);
        pacer.pause_until(now + Duration::from_millis(300));
        assert_eq!(pacer.wait(now), Some(Duration::from_millis(300)));
        assert_eq!(pacer.wait(now + Duration::from_millis(300)), None);
    }
}
