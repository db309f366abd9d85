//! When a far end that is gone is tried again. Pure: time and chance are arguments.

use std::time::Duration;

/// The rest after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest rest.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lasted as long was a good one: the next failure is a first one.
const GOOD: Duration = Duration::from_secs(10);

/// Counts failures.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Failures in a row.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// A connection failed, or ended after so long. How long to rest: twice as long each time, up to half a minute, and a
    /// quarter more or less, by `chance` from 0 to 1, so that many who lost the same server do not come back at once.
    pub(super) fn failed(&mut self, lived: Duration, chance: f64) -> Duration {
        if lived >= GOOD {
            self.failures = 0;
        }
        let rest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        rest.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rests_double_up_to_half_a_minute_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::default();
        let mut rest = |lived| backoff.failed(lived, 0.5).as_millis();
        let rests: Vec<u128> = (0..9).map(|_| rest(Duration::from_secs(9))).collect();
        assert_eq!(rests, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(rest(Duration::from_secs(10)), 500);
        assert_eq!(backoff.failures(), 1);
    }

    proptest! {
        #[test]
        fn rests_are_bounded(tries in prop::collection::vec((0u64..20, 0.0f64..1.0), 0..200)) {
            let mut backoff = Backoff::default();
            for (lived, chance) in tries {
                let rest = backoff.failed(Duration::from_secs(lived), chance);
                prop_assert!((FIRST.mul_f64(0.75)..=LONGEST.mul_f64(1.25)).contains(&rest));
            }
        }
    }
}
