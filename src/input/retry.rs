//! Delays between reconnects: 1 s, doubling up to 30 s.
//!
//! Owns: [`Retry`], a pure state machine. Does not know: what is retried.

use std::time::Duration;

use crate::time::Timestamp;

/// Delay after the first failure.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// Longest delay.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// After success for this time the delays start with [`MIN_DELAY`] again.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    began: Option<Timestamp>,
}

impl Retry {
    /// Media is flowing.
    pub(super) fn succeeded(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
    }

    /// An attempt failed or the source was lost; returns the time of the next attempt.
    pub(super) fn failed(&mut self, now: Timestamp) -> Timestamp {
        if self.began.take().is_some_and(|began| now.since(began) >= RESET_AFTER) {
            self.failures = 0;
        }
        let wait = MIN_DELAY * 2_u32.pow(self.failures.min(5));
        self.failures += 1;
        now + wait.min(MAX_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_reset_after_success() {
        let mut retry = Retry::default();
        let mut now = Timestamp::from_micros(1);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let again = retry.failed(now);
            waits.push(again.since(now).as_secs());
            now = again;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        retry.succeeded(now);
        let short = now + Duration::from_secs(3);
        assert_eq!(retry.failed(short).since(short).as_secs(), 30, "three seconds are too short for a reset");
        retry.succeeded(short);
        let long = short + RESET_AFTER;
        assert_eq!(retry.failed(long).since(long).as_secs(), 1);
    }
}
