//! Keyframe requests of one source, and the rates that are allowed to it.
//!
//! Owns: when a keyframe may be requested. Does not know: why it is needed. In: needs and times. Out: whether to
//! request one now.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// Shortest time from one keyframe request to the next, per source.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// The same for a source whose frames are refused: more requests would not change what it sends.
const ASK_REFUSED_INTERVAL: Duration = Duration::from_secs(3);

/// A keyframe that comes later is no answer to a request: a round trip, and the time that an encoder needs.
const ANSWER_TIME: Duration = Duration::from_millis(1_500);

/// Whether a source needs a keyframe.
#[derive(Debug, Default)]
pub(super) struct KeyframeNeed {
    /// It needs one.
    pub(super) needed: bool,
    /// Its frames are refused.
    pub(super) refused: bool,
    asked: Option<Timestamp>,
    /// The first request since the last keyframe.
    unanswered: Option<Timestamp>,
    answers: Option<bool>,
}

impl KeyframeNeed {
    /// Whether to request a keyframe now; counts as a request.
    pub(super) fn asks(&mut self, now: Timestamp) -> bool {
        if !self.needed {
            return false;
        }
        let interval = if self.refused { ASK_REFUSED_INTERVAL } else { ASK_INTERVAL };
        if self.asked.is_some_and(|asked| now.since(asked) < interval) {
            return false;
        }
        self.asked = Some(now);
        self.unanswered.get_or_insert(now);
        true
    }

    /// A keyframe has come.
    pub(super) fn came(&mut self, now: Timestamp) {
        self.needed = false;
        if let Some(asked) = self.unanswered.take() {
            self.answers = Some(now.since(asked) < ANSWER_TIME);
        }
    }

    /// Whether the sender answers requests; None if that is not known.
    pub(super) const fn answers(&self) -> Option<bool> {
        self.answers
    }
}

/// Limits how often something happens: the times of the events within the limit's window.
#[derive(Debug, Default)]
pub(super) struct RateLimit(VecDeque<Timestamp>);

impl RateLimit {
    /// Whether another event is within `max` events in the last `within`; if so it is counted.
    pub(super) fn allow(&mut self, max: usize, within: Duration, now: Timestamp) -> bool {
        while self.0.front().is_some_and(|&at| now.since(at) > within) {
            self.0.pop_front();
        }
        let allowed = self.0.len() < max;
        if allowed {
            self.0.push_back(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    #[test]
    fn requests_are_repeated_every_500_ms_until_a_keyframe_comes() {
        let mut need = KeyframeNeed { needed: true, ..KeyframeNeed::default() };
        let asked: Vec<u64> = (0..1_200).filter(|&ms| need.asks(at(ms))).collect();
        assert_eq!(asked, [0, 500, 1_000]);
        need.came(at(1_200));
        assert!(!need.asks(at(2_000)));
    }

    #[test]
    fn a_sender_answers_requests_if_a_keyframe_follows_the_first_one_soon() {
        let mut need = KeyframeNeed::default();
        need.came(at(0));
        assert_eq!(need.answers(), None, "nothing was requested");
        for (asked, came, answers) in [(0, 200, true), (10_000, 18_000, false), (20_000, 20_300, true)] {
            need.needed = true;
            assert!((asked..came).any(|ms| need.asks(at(ms))));
            need.came(at(came));
            assert_eq!(need.answers(), Some(answers), "requested at {asked} ms, keyframe at {came} ms");
        }
    }
}
