//! The keyframes that one receiver may request. Pure: time is an argument.
//!
//! Owns: the cost of a keyframe, and how much a receiver has left. Does not know: why it requests one. In: the tier of
//! its stream and the time. Out: whether a request is passed on, or when it will be.
//!
//! A keyframe goes to all receivers of a stream, and takes bits from their next frames. One receiver that requests
//! keyframes without end must not lower the quality of the others, the less so the larger the picture is.

use std::time::Duration;

use crate::media::Tier;
use crate::time::Timestamp;

/// What a receiver may spend at once: ten keyframes of the tier `high`.
const MOST: f64 = 40.0;
/// What it gets back per second: two keyframes of the tier `high`, four of `medium`.
const PER_SECOND: f64 = 8.0;

/// What a keyframe costs, in the proportion of the bitrates of the tiers.
const fn cost(tier: Tier) -> f64 {
    match tier {
        Tier::High => 4.0,
        Tier::Medium => 2.0,
        Tier::Low | Tier::Slides | Tier::Audio => 1.0,
    }
}

/// What a receiver has left.
#[derive(Debug)]
pub(super) struct KeyframeBudget {
    left: f64,
    updated: Timestamp,
}

impl KeyframeBudget {
    /// Of a new receiver.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { left: MOST, updated: now }
    }

    /// Counts a keyframe of this tier.
    ///
    /// # Errors
    /// The time until it may be requested.
    pub(super) fn spend(&mut self, tier: Tier, now: Timestamp) -> Result<(), Duration> {
        self.left = (self.left + now.since(self.updated).as_secs_f64() * PER_SECOND).min(MOST);
        self.updated = self.updated.max(now);
        let cost = cost(tier);
        if self.left < cost {
            return Err(Duration::from_secs_f64((cost - self.left) / PER_SECOND).max(Duration::from_millis(1)));
        }
        self.left -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// Keyframes in one minute of a receiver that asks in every millisecond.
    fn granted(tier: Tier) -> usize {
        let mut budget = KeyframeBudget::new(at(0));
        (0..60_000).filter(|ms| budget.spend(tier, at(*ms)).is_ok()).count()
    }

    #[test]
    fn keyframe_requests_of_one_receiver_are_limited_by_what_a_keyframe_costs() {
        for (tier, expected) in [(Tier::High, 10 + 120), (Tier::Medium, 20 + 240), (Tier::Low, 40 + 480)] {
            assert!(granted(tier).abs_diff(expected) <= 2, "{tier:?}: {}", granted(tier));
        }
    }

    #[test]
    fn a_receiver_that_loses_a_frame_now_and_then_never_waits() {
        let mut budget = KeyframeBudget::new(at(0));
        assert!((0..1_000).all(|n| budget.spend(Tier::High, at(n * 600)).is_ok()));
        assert!((0..10).all(|_| budget.spend(Tier::High, at(1_000_000)).is_ok()), "ten at once");
        let wait = budget.spend(Tier::High, at(1_000_000)).expect_err("no more");
        assert_eq!(wait, Duration::from_millis(500));
        assert!(budget.spend(Tier::High, at(1_000_000) + wait).is_ok());
    }
}
