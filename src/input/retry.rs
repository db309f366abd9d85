//! When to try again: after a second, then after twice as long each time, up to half a minute.
//!
//! Owns: [`Retry`], a pure state machine. Does not know: what is tried.

use std::time::Duration;

use crate::time::Timestamp;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// What went well for so long begins with the first wait again.
const WELL: Duration = Duration::from_secs(10);

/// Counts attempts.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    began: Option<Timestamp>,
}

impl Retry {
    /// Media comes.
    pub(super) fn succeeded(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
    }

    /// It broke off, or did not begin; when to try again.
    pub(super) fn failed(&mut self, now: Timestamp) -> Timestamp {
        if self.began.take().is_some_and(|began| now.since(began) >= WELL) {
            self.failures = 0;
        }
        let wait = FIRST * 2_u32.pow(self.failures.min(5));
        self.failures += 1;
        now + wait.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_short_again_after_it_went_well() {
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
        assert_eq!(retry.failed(short).since(short).as_secs(), 30, "three seconds are not well");
        retry.succeeded(short);
        let long = short + WELL;
        assert_eq!(retry.failed(long).since(long).as_secs(), 1);
    }
}
