//! Reconnect delays with exponential backoff. Pure: time and jitter are arguments.
//!
//! Owns: [`Backoff`]. Does not know: connections. In: the duration of the last connection. Out: the delay to the next
//! attempt.

use std::time::Duration;

/// Delay after the first failure.
const MIN_DELAY: Duration = Duration::from_millis(500);
/// Longest delay.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A connection that lasted at least this long resets the delays.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// Counts failures.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Consecutive failures.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// The delay after a connection that failed, or was lost after `lived`: doubles each time up to [`MAX_DELAY`], and
    /// varies by a quarter with `jitter` (0 to 1), so that many broadcasts do not reconnect to the same server at once.
    pub(super) fn failed(&mut self, lived: Duration, jitter: f64) -> Duration {
        if lived >= RESET_AFTER {
            self.failures = 0;
        }
        let delay = MIN_DELAY.saturating_mul(1 << self.failures.min(16)).min(MAX_DELAY);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_are_reset_by_a_lasting_connection() {
        let mut backoff = Backoff::default();
        let mut delay = |lived| backoff.failed(lived, 0.5).as_millis();
        let delays: Vec<u128> = (0..9).map(|_| delay(Duration::from_secs(9))).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(delay(Duration::from_secs(10)), 500);
        assert_eq!(backoff.failures(), 1);
    }

    proptest! {
        #[test]
        fn delays_are_bounded(tries in prop::collection::vec((0u64..20, 0.0f64..1.0), 0..200)) {
            let mut backoff = Backoff::default();
            for (lived, jitter) in tries {
                let delay = backoff.failed(Duration::from_secs(lived), jitter);
                prop_assert!((MIN_DELAY.mul_f64(0.75)..=MAX_DELAY.mul_f64(1.25)).contains(&delay));
            }
        }
    }
}
