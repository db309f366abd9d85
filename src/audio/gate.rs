//! The noise gate: keeps the noise of silent microphones out of the mix.
//!
//! Owns: the noise floor and the state of one source. Does not know: samples. In: levels, once a tick. Out:
//! [`GateState`].

use std::time::Duration;

use super::SILENCE;
use crate::time::Timestamp;

/// Levels above this (fewer -dBov) always open the gate: a steady tone is not noise.
const ALWAYS_OPEN: f32 = 45.0;
/// Levels below this (more -dBov) never open the gate.
const NEVER_OPEN: f32 = 60.0;
/// Threshold above the noise floor, in dB.
const ABOVE_NOISE: f32 = 8.0;
/// Hysteresis: an open gate closes so many dB below the threshold.
const HYSTERESIS: f32 = 3.0;
/// Rise of the noise floor in dB/s. It falls at once.
const RISE: f32 = 1.0;
/// Longest time between two ticks without a pause of the sender between them.
const UPDATED_MAX: Duration = Duration::from_millis(100);
/// Hangover: the time for which it stays open below the threshold, for pauses within a sentence.
const HANGOVER: Duration = Duration::from_millis(300);

/// What to do with the samples of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// Closed: do not mix.
    Closed,
    /// It opens: fade in and mix.
    Opening,
    /// Open: mix.
    Open,
    /// It closes: fade out and mix.
    Closing,
}

impl GateState {
    /// Whether this tick is part of the mix.
    pub const fn contributes(self) -> bool {
        !matches!(self, Self::Closed)
    }
}

/// The gate of one source.
#[derive(Debug, Clone)]
pub struct Gate {
    hangover: Duration,
    /// The noise floor in -dBov: larger is quieter.
    floor: f32,
    updated: Option<Timestamp>,
    /// When the level was last above the threshold; None while closed.
    loud: Option<Timestamp>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(HANGOVER)
    }
}

impl Gate {
    /// A closed gate with this hangover (the default is 300 ms).
    pub fn new(hangover: Duration) -> Self {
        Self { hangover, floor: f32::from(SILENCE), updated: None, loud: None }
    }

    /// Handles the level of a tick in -dBov; returns what to do with its samples.
    pub fn update(&mut self, level: u8, now: Timestamp) -> GateState {
        let level = f32::from(level);
        // A time without samples says nothing about the noise.
        let passed = self.updated.map_or(Duration::ZERO, |before| now.since(before).min(UPDATED_MAX));
        self.updated = Some(now);
        let threshold = (self.floor - ABOVE_NOISE).clamp(ALWAYS_OPEN, NEVER_OPEN);
        self.floor = level.max(self.floor - RISE * passed.as_secs_f32());
        let slack = if self.loud.is_some() { HYSTERESIS } else { 0.0 };
        if level <= threshold + slack {
            return if self.loud.replace(now).is_some() { GateState::Open } else { GateState::Opening };
        }
        match self.loud {
            None => GateState::Closed,
            Some(loud) if now.since(loud) < self.hangover => GateState::Open,
            Some(_) => {
                self.loud = None;
                GateState::Closing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(tick: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + tick * 20_000)
    }

    #[test]
    fn quiet_speech_passes_after_a_pause_without_packets() {
        let mut gate = Gate::default();
        for tick in 0..50 {
            assert_eq!(gate.update(SILENCE, at(tick)), GateState::Closed);
        }
        // A minute later: the noise floor has not risen meanwhile.
        assert_eq!(gate.update(55, at(3_050)), GateState::Opening);
        assert!((3_051..3_150).all(|tick| gate.update(55, at(tick)) == GateState::Open));
    }

    #[test]
    fn it_opens_at_once_and_closes_after_the_hangover() {
        let mut gate = Gate::default();
        assert_eq!(gate.update(SILENCE, at(0)), GateState::Closed);
        assert_eq!(gate.update(30, at(1)), GateState::Opening);
        assert_eq!(gate.update(30, at(2)), GateState::Open);
        for tick in 3..17 {
            assert_eq!(gate.update(SILENCE, at(tick)), GateState::Open, "tick {tick}");
        }
        assert_eq!(gate.update(SILENCE, at(17)), GateState::Closing);
        assert_eq!(gate.update(SILENCE, at(18)), GateState::Closed);
    }

    #[test]
    fn a_steady_tone_keeps_it_open_and_steady_noise_does_not() {
        let (mut tone, mut noise) = (Gate::default(), Gate::default());
        let mut closed = false;
        for tick in 0..180_000 {
            assert!(tone.update(30, at(tick)).contributes(), "tick {tick}");
            closed = !noise.update(52, at(tick)).contributes();
        }
        assert!(closed);
    }

    #[test]
    fn a_low_voice_in_a_quiet_room_opens_it() {
        let mut gate = Gate::default();
        for tick in 0..500 {
            assert!(!gate.update(75, at(tick)).contributes());
        }
        assert_eq!(gate.update(57, at(500)), GateState::Opening);
    }

    proptest! {
        #[test]
        fn it_opens_and_closes_by_turns(levels in prop::collection::vec(0_u8..=127, 1..500)) {
            let mut gate = Gate::default();
            let mut open = false;
            for (tick, level) in levels.into_iter().enumerate() {
                let state = gate.update(level, at(tick as u64));
                match state {
                    GateState::Closed | GateState::Opening => prop_assert!(!open),
                    GateState::Open | GateState::Closing => prop_assert!(open),
                }
                open = matches!(state, GateState::Opening | GateState::Open);
                prop_assert!(f32::from(level) > ALWAYS_OPEN || open, "{level} is loud");
            }
        }
    }
}
