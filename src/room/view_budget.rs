//! How many views of participants the CPU time of the mixer allows.
//!
//! Owns: [`ViewBudget`]. Does not know: what a view costs, who receives it ([`super::views`]). In: how many ticks of
//! the video loop were late. Out: the number of views. Time is an argument.
//!
//! While many ticks are late, the number is halved every [`WINDOW`]; after a calm time it doubles again. The calm time
//! doubles with each overload that follows soon, so that the number does not oscillate.

use std::time::Duration;

use crate::time::Timestamp;

/// Most views of single participants in a room at a time; each costs a composition and an encode.
pub(super) const OWN_VIEWS_MAX: usize = 32;
/// Time over which late ticks are counted.
const WINDOW: Duration = Duration::from_secs(2);
/// Fewest ticks by which a window is judged.
const TICKS_MIN: u64 = 20;
/// One late tick of so many is too many.
const LATE_ONE_IN: u64 = 3;
/// Shortest calm time before the number rises.
const CALM_MIN: Duration = Duration::from_secs(15);
/// Longest calm time.
const CALM_MAX: Duration = Duration::from_secs(240);

/// The number of views of participants.
#[derive(Debug)]
pub(super) struct ViewBudget {
    allowed: usize,
    /// The window: its begin, ticks and late ticks.
    window: Option<(Timestamp, u64, u64)>,
    /// Since when the number may have risen.
    calm_since: Timestamp,
    calm: Duration,
}

impl Default for ViewBudget {
    fn default() -> Self {
        Self { allowed: OWN_VIEWS_MAX, window: None, calm_since: Timestamp::default(), calm: CALM_MIN }
    }
}

impl ViewBudget {
    /// The number of views.
    pub(super) const fn allowed(&self) -> usize {
        self.allowed
    }

    /// Of `ticks` ticks since the last report, `late` were late or skipped, with `used` views of participants. Returns
    /// whether the number has changed.
    pub(super) fn report(&mut self, now: Timestamp, ticks: u64, late: u64, used: usize) -> bool {
        let (begin, ticks_before, late_before) = self.window.unwrap_or((now, 0, 0));
        let (ticks, late) = (ticks_before + ticks, late_before + late);
        if now.since(begin) < WINDOW {
            self.window = Some((begin, ticks, late));
            return false;
        }
        self.window = Some((now, 0, 0));
        let before = self.allowed;
        if ticks >= TICKS_MIN && late * LATE_ONE_IN >= ticks {
            if used > 0 {
                self.allowed = self.allowed.min(used) / 2;
                self.calm =
                    if now.since(self.calm_since) < CALM_MAX { (self.calm * 2).min(CALM_MAX) } else { CALM_MIN };
            }
            self.calm_since = now;
        } else if self.allowed < OWN_VIEWS_MAX && now.since(self.calm_since) >= self.calm {
            self.allowed = (self.allowed * 2).clamp(1, OWN_VIEWS_MAX);
            self.calm_since = now;
        }
        self.allowed != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros((10_000 + seconds) * 1_000_000)
    }

    /// Reports of 30 ticks a second, of which `late` are late.
    fn pass(budget: &mut ViewBudget, seconds: std::ops::Range<u64>, late: u64) {
        for second in seconds {
            budget.report(at(second), 30, late, budget.allowed.min(8));
        }
    }

    #[test]
    fn late_ticks_halve_the_number_and_a_calm_time_doubles_it() {
        let mut budget = ViewBudget::default();
        pass(&mut budget, 0..60, 9);
        assert_eq!(budget.allowed(), OWN_VIEWS_MAX, "less than a third of the ticks is late");
        pass(&mut budget, 60..64, 10);
        assert!((2..=4).contains(&budget.allowed()), "half of those in use: {}", budget.allowed());
        pass(&mut budget, 64..75, 30);
        assert_eq!(budget.allowed(), 0);
        pass(&mut budget, 75..76, 0);
        let (mut second, mut rises) = (76, Vec::new());
        while budget.allowed() < OWN_VIEWS_MAX {
            let before = budget.allowed();
            pass(&mut budget, second..second + 1, 0);
            if budget.allowed() != before {
                rises.push((second, budget.allowed()));
            }
            second += 1;
        }
        assert_eq!(rises.iter().map(|(_, allowed)| *allowed).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32]);
        assert!(rises.windows(2).all(|rises| rises[1].0 - rises[0].0 >= CALM_MIN.as_secs()), "{rises:?}");
    }

    #[test]
    fn late_ticks_of_program_alone_change_nothing() {
        let mut budget = ViewBudget::default();
        (0..60).for_each(|second| assert!(!budget.report(at(second), 30, 30, 0)));
        assert_eq!(budget.allowed(), OWN_VIEWS_MAX);
    }

    proptest! {
        /// In ten minutes the number rises at most as often as calm times fit.
        #[test]
        fn the_number_does_not_oscillate(late in prop::collection::vec(0_u64..=30, 600)) {
            let (mut budget, mut rises) = (ViewBudget::default(), 0);
            for (second, late) in late.into_iter().enumerate() {
                let before = budget.allowed();
                budget.report(at(second as u64), 30, late, before.min(8));
                prop_assert!(budget.allowed() <= OWN_VIEWS_MAX);
                rises += usize::from(budget.allowed() > before);
            }
            prop_assert!(rises <= 600 / CALM_MIN.as_secs() as usize, "{} rises", rises);
        }
    }
}
