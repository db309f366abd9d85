//! Load control: less audio quality while the cores are busy, never fewer packets.
//!
//! Owns: the steps of effort, their estimated cost, and when another step is taken. Does not know: sources, encoders,
//! clocks. In: how long each tick took, and the number of talkers. Out: the [`AudioEffort`] of the next tick.
//!
//! Rules
//! 1. The load is the median of the last five ticks, as a part of the time of a tick: two stalled ticks change nothing.
//! 2. Above [`HIGH`] the effort is reduced at once, to the first step whose expected load is below [`TARGET`]. Opus
//!    complexity is reduced first, then the number of talkers in the mix.
//! 3. The effort is raised when the expected load has been below [`TARGET`] for a while. This wait doubles when a raise
//!    was followed by a reduction, and is short again after [`SETTLED`].

use std::time::Duration;

use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, AudioEffort};
use crate::time::Timestamp;

/// Efforts from the best. Opus complexity 2 to 5 are absent: 5 and 4 cost as much as 6, and 3 and 2 sound like 1 (PESQ
/// 3.5, 3.4 and 3.4) at almost the cost of 6.
const STEPS: [AudioEffort; 5] = [
    AudioEffort::FULL,
    AudioEffort { opus_complexity: REDUCED_COMPLEXITY, talkers_max: None },
    AudioEffort { opus_complexity: REDUCED_COMPLEXITY, talkers_max: Some(24) },
    AudioEffort { opus_complexity: REDUCED_COMPLEXITY, talkers_max: Some(12) },
    AudioEffort { opus_complexity: REDUCED_COMPLEXITY, talkers_max: Some(6) },
];
const REDUCED_COMPLEXITY: u8 = 1;

/// Time to decode one frame of speech in microseconds, as a part of the costs below.
const DECODE: f32 = 33.0;
/// Time to encode one frame at full and at reduced complexity.
const ENCODE: f32 = 180.0;
const ENCODE_REDUCED: f32 = 80.0;

/// Load above which the effort is reduced: ticks would soon be late.
const HIGH: f32 = 0.75;
/// Largest expected load of a step that is taken.
const TARGET: f32 = 0.5;
/// Ticks of which the median counts.
const WINDOW: usize = 5;
/// Shortest and longest wait before the effort is raised.
const WAIT_MIN: Duration = Duration::from_secs(3);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A raise that lasted for so long was right.
const SETTLED: Duration = Duration::from_secs(30);
/// Duration of a tick.
const TICK: f32 = AUDIO_TICK_SAMPLES as f32 / AUDIO_RATE as f32;

/// The load control of one audio mixer.
#[derive(Debug)]
pub(super) struct LoadControl {
    /// Index into [`STEPS`].
    step: usize,
    /// Loads of the last ticks; expected loads in place of those before the last change.
    recent: [f32; WINDOW],
    ticks: usize,
    /// Since when a better step is expected to fit.
    fits_since: Option<Timestamp>,
    raised: Option<Timestamp>,
    wait: Duration,
}

impl Default for LoadControl {
    fn default() -> Self {
        Self { step: 0, recent: [0.0; WINDOW], ticks: 0, fits_since: None, raised: None, wait: WAIT_MIN }
    }
}

impl LoadControl {
    /// Takes the duration of a tick with this number of talkers; returns the effort of the next one.
    pub(super) fn update(&mut self, took: Duration, talkers: usize, now: Timestamp) -> AudioEffort {
        self.recent[self.ticks % WINDOW] = took.as_secs_f32() / TICK;
        self.ticks += 1;
        let load = self.load();
        let expected = |step: usize| load * cost(step, talkers) / cost(self.step, talkers);
        if load > HIGH {
            self.fits_since = None;
            // A step that does not make the mix cheaper would only sound worse.
            let cheaper = (self.step + 1..STEPS.len()).filter(|step| expected(*step) < 0.99 * load);
            let fits = cheaper.clone().find(|step| expected(*step) <= TARGET);
            let cheapest = || cheaper.min_by(|one, other| expected(*one).total_cmp(&expected(*other)));
            if let Some(step) = fits.or_else(cheapest) {
                let hasty = self.raised.take().is_some_and(|raised| now.since(raised) < SETTLED);
                self.wait = if hasty { (self.wait * 2).min(WAIT_MAX) } else { WAIT_MIN };
                self.set(step, expected(step));
            }
        } else if let Some(step) = (0..self.step).find(|step| expected(*step) <= TARGET) {
            let since = *self.fits_since.get_or_insert(now);
            if now.since(since) >= self.wait {
                self.raised = Some(now);
                self.set(step, expected(step));
            }
        } else {
            self.fits_since = None;
        }
        self.effort()
    }

    fn effort(&self) -> AudioEffort {
        STEPS[self.step]
    }

    /// The median of the last ticks.
    fn load(&self) -> f32 {
        let mut recent = self.recent;
        recent.sort_by(f32::total_cmp);
        recent[WINDOW / 2]
    }

    fn set(&mut self, step: usize, expected: f32) {
        self.step = step;
        self.recent = [expected; WINDOW];
        self.fits_since = None;
    }
}

/// The estimated cost of a tick: every talker is decoded, and each talker in the mix has an encode, beside the common
/// one.
fn cost(step: usize, talkers: usize) -> f32 {
    let AudioEffort { opus_complexity, talkers_max } = STEPS[step];
    let encode = if opus_complexity == REDUCED_COMPLEXITY { ENCODE_REDUCED } else { ENCODE };
    let mixed = talkers_max.map_or(talkers, |most| talkers.min(usize::from(most)));
    DECODE * talkers as f32 + encode * (mixed + 1) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(tick: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + 20_000 * tick)
    }

    /// A machine on which a tick at full effort takes so much of its time.
    struct Machine {
        control: LoadControl,
        tick: u64,
        /// Ticks at which the step changed, and the steps.
        changes: Vec<(u64, usize)>,
    }

    impl Machine {
        fn new() -> Self {
            Self { control: LoadControl::default(), tick: 0, changes: Vec::new() }
        }

        /// The load of the last tick.
        fn run(&mut self, ticks: u64, talkers: usize, full: f32, mut noise: impl FnMut(u64) -> f32) -> f32 {
            let mut load = 0.0;
            for _ in 0..ticks {
                let step = self.control.step;
                load = full * cost(step, talkers) / cost(0, talkers);
                let took = Duration::from_secs_f32(TICK * load * noise(self.tick));
                self.control.update(took, talkers, at(self.tick));
                if self.control.step != step {
                    self.changes.push((self.tick, self.control.step));
                }
                self.tick += 1;
            }
            load
        }
    }

    #[test]
    fn the_effort_is_full_until_a_tick_takes_three_quarters_of_its_time() {
        let mut machine = Machine::new();
        machine.run(5_000, 100, 0.74, |_| 1.0);
        assert_eq!(machine.control.effort(), AudioEffort::FULL);
        machine.run(3, 100, 0.76, |_| 1.0);
        assert_eq!(machine.control.effort(), STEPS[1], "complexity is reduced first");
    }

    #[test]
    fn a_sudden_overload_is_answered_within_three_ticks() {
        let mut machine = Machine::new();
        machine.run(500, 200, 0.1, |_| 1.0);
        let load = machine.run(4, 200, 2.5, |_| 1.0);
        assert_eq!(machine.changes, [(502, 3)]);
        assert!(load < TARGET, "{load}");
    }

    #[test]
    fn two_stalled_ticks_change_nothing() {
        let mut machine = Machine::new();
        machine.run(1_000, 3, 0.1, |tick| if tick % 50 < 2 { 80.0 } else { 1.0 });
        assert_eq!(machine.changes, []);
    }

    #[test]
    fn talkers_are_not_limited_where_that_saves_nothing() {
        let mut machine = Machine::new();
        machine.run(1_000, 5, 9.0, |_| 1.0);
        assert_eq!(machine.control.effort(), STEPS[1]);
    }

    #[test]
    fn the_effort_is_full_again_three_seconds_after_an_overload() {
        let mut machine = Machine::new();
        machine.run(100, 100, 4.0, |_| 1.0);
        assert_ne!(machine.control.step, 0);
        machine.run(140, 100, 0.1, |_| 1.0);
        assert_ne!(machine.control.step, 0);
        machine.run(20, 100, 0.1, |_| 1.0);
        assert_eq!(machine.control.step, 0);
    }

    proptest! {
        /// The least load that a step can reach is reached in a second, and then the effort is constant.
        #[test]
        fn a_constant_overload_is_answered_once(talkers in 1..300_usize, full in 0.0..20.0_f32) {
            let mut machine = Machine::new();
            machine.run(50, talkers, full, |_| 1.0);
            let (step, changes) = (machine.control.step, machine.changes.len());
            let load = machine.run(30_000, talkers, full, |_| 1.0);
            prop_assert!(load <= HIGH || cost(step, talkers) <= 1.02 * cost(STEPS.len() - 1, talkers), "load {}", load);
            prop_assert_eq!(machine.changes.len(), changes, "{:?}", machine.changes);
        }

        /// Under any load the effort is raised after three seconds at the earliest, and a load around the limit causes
        /// at most six changes a minute in the long run.
        #[test]
        fn changes_are_rare(talkers in 1..300_usize, full in 0.3..4.0_f32, seed: u64) {
            let mut machine = Machine::new();
            let noise = |tick: u64| {
                let random = (tick ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                0.5 + random as f32 / (1 << 24) as f32
            };
            machine.run(60 * 50, talkers, full, noise);
            let early = machine.changes.len();
            machine.run(600 * 50, talkers, full, noise);
            for pair in machine.changes.windows(2) {
                let [(before, from), (now, to)] = pair else { unreachable!() };
                prop_assert!(to > from || now - before >= 150, "{:?}", machine.changes);
            }
            prop_assert!(machine.changes.len() - early <= 60, "{:?} in ten minutes", &machine.changes[early..]);
        }

        /// After any history the effort is full within two minutes without load.
        #[test]
        fn it_recovers(loads in prop::collection::vec((0.0..5.0_f32, 1..500_u64, 1..300_usize), 1..20)) {
            let mut machine = Machine::new();
            for (full, ticks, talkers) in loads {
                machine.run(ticks, talkers, full, |_| 1.0);
            }
            machine.run(120 * 50, 3, 0.05, |_| 1.0);
            prop_assert_eq!(machine.control.effort(), AudioEffort::FULL);
        }
    }
}
