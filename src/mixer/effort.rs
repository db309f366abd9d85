//! The effort of one stream's encoder, by the time that its pictures take.
//!
//! Owns: [`EffortControl`]. Does not know: encoders, threads. In: how long each picture took, and when. Out: the
//! effort, when it is to change. Pure: time is an argument.
//!
//! Rules
//! 1. An encoder that needs more than [`LOWER_LOAD`] of the time between two pictures, for [`LOWER_AFTER`], becomes
//!    fast. The time includes the waits for the processor, so this also happens on a busy machine.
//! 2. A fast encoder that needs less than [`RAISE_LOAD`], for some time, gets the effort again that it began with. Each
//!    return to fast doubles that time.

use std::time::Duration;

use crate::codec::Effort;

/// Share of the time between two pictures that is too much.
const LOWER_LOAD: f64 = 0.6;
/// How long it must be too much.
const LOWER_AFTER: Duration = Duration::from_secs(1);
/// Share that leaves room for the good effort, which takes up to half as much again. The best effort takes up to eight
/// times as much, but only streams whose pictures are due rarely have it.
const RAISE_LOAD: f64 = 0.3;
/// How long it must leave room, at first and at most.
const RAISE_AFTER: Duration = Duration::from_secs(20);
const RAISE_AFTER_MAX: Duration = Duration::from_secs(640);
/// Weight of one picture in the average.
const WEIGHT: f64 = 1.0 / 16.0;

/// Controls the effort of one encoder.
#[derive(Debug, Clone)]
pub struct EffortControl {
    effort: Effort,
    best: Effort,
    interval: Duration,
    /// Average share of the time between two pictures.
    load: f64,
    /// Since when the load has been beyond the limit of the present effort.
    since: Option<Duration>,
    raise_after: Duration,
}

impl EffortControl {
    /// An encoder of `fps` pictures a second that begins with this effort, and never takes more.
    pub fn new(effort: Effort, fps: u32) -> Self {
        let interval = Duration::from_secs(1) / fps.max(1);
        Self { effort, best: effort, interval, load: 0.0, since: None, raise_after: RAISE_AFTER }
    }

    /// The present effort.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// A picture took so long; `at` is the time of the next. Returns the effort if it changes.
    pub fn encoded(&mut self, took: Duration, at: Duration) -> Option<Effort> {
        self.load += (took.as_secs_f64() / self.interval.as_secs_f64() - self.load) * WEIGHT;
        let (is_beyond, patience) = match self.effort {
            Effort::Best | Effort::Good => (self.load > LOWER_LOAD, LOWER_AFTER),
            Effort::Fast => (self.load < RAISE_LOAD && self.best != Effort::Fast, self.raise_after),
        };
        if !is_beyond {
            self.since = None;
            return None;
        }
        if at.saturating_sub(*self.since.get_or_insert(at)) < patience {
            return None;
        }
        self.since = None;
        self.effort = match self.effort {
            Effort::Best | Effort::Good => {
                self.raise_after = (self.raise_after * 2).min(RAISE_AFTER_MAX);
                Effort::Fast
            }
            Effort::Fast => self.best,
        };
        Some(self.effort)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(frame: u64) -> Duration {
        Duration::from_millis(frame * 40)
    }

    /// The frames at which the effort changes, if a frame takes so many milliseconds of 40.
    fn changes(best: Effort, frames: u64, takes: impl Fn(u64, Effort) -> u64) -> Vec<(u64, Effort)> {
        let mut control = EffortControl::new(best, 25);
        (0..frames)
            .filter_map(|n| {
                let took = Duration::from_millis(takes(n, control.effort()));
                control.encoded(took, at(n)).map(|effort| (n, effort))
            })
            .collect()
    }

    #[test]
    fn an_overloaded_encoder_becomes_fast_within_two_seconds_and_good_again_later() {
        let changes = changes(Effort::Good, 3_000, |n, _| if (100..400).contains(&n) { 38 } else { 8 });
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert!(changes[0].1 == Effort::Fast && (125..150).contains(&changes[0].0), "{changes:?}");
        assert!(changes[1].1 == Effort::Good && (1_400..1_450).contains(&changes[1].0), "40 s later: {changes:?}");
    }

    #[test]
    fn an_overloaded_encoder_gets_the_effort_again_that_it_began_with() {
        let changes = changes(Effort::Best, 3_000, |n, _| if (100..400).contains(&n) { 38 } else { 8 });
        assert_eq!(changes.iter().map(|(_, effort)| *effort).collect::<Vec<_>>(), [Effort::Fast, Effort::Best]);
    }

    #[test]
    fn one_slow_picture_changes_nothing_and_a_fast_stream_stays_fast() {
        assert!(changes(Effort::Good, 3_000, |n, _| if n % 25 == 0 { 80 } else { 10 }).is_empty());
        assert!(changes(Effort::Fast, 3_000, |_, _| 1).is_empty());
    }

    proptest! {
        /// On a machine on which the good effort is always too much, attempts become rare.
        #[test]
        fn attempts_become_rare(good in 26..80_u64, fast in 1..11_u64) {
            let changes = changes(Effort::Good, 90_000, |_, effort| if effort == Effort::Good { good } else { fast });
            let good = changes.iter().filter(|(_, effort)| *effort == Effort::Good).count();
            prop_assert!((1..=9).contains(&good), "{} attempts in an hour", good);
        }
    }
}
