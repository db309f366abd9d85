//! Which recording is uploaded next, and when one that failed is tried again. Pure: time and chance are arguments.
//!
//! Owns: [`Queue`]. Does not know: how an upload is done. As long as the list of files on disk: nothing is ever given up, a
//! store that is away for a day gets everything afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::recordings::FileName;
use crate::time::Timestamp;

/// The wait after the first failure, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LAST: Duration = Duration::from_secs(15 * 60);

/// Recordings that wait for their upload.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<FileName, Waiting>,
}

/// One that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// When it was added, as a number that grows.
    order: u64,
    /// How often it failed.
    pub(super) failures: u32,
    /// Why it failed last.
    pub(super) error: Option<String>,
    not_before: Timestamp,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Upload this one.
    Go(FileName),
    /// Nothing until then, unless one is added.
    Wait(Timestamp),
    /// Nothing until one is added.
    Idle,
}

impl Queue {
    /// Adds one; one that waits already keeps its place.
    pub(super) fn add(&mut self, name: FileName, now: Timestamp) {
        let order = self.waiting.values().map(|waiting| waiting.order + 1).max().unwrap_or(0);
        self.waiting.entry(name).or_insert(Waiting { order, failures: 0, error: None, not_before: now });
    }

    /// The one to upload now: of those that are due the one that failed least, then the one that came first.
    pub(super) fn next(&self, now: Timestamp) -> Next {
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.not_before <= now);
        if let Some((name, _)) = due.min_by_key(|(_, waiting)| (waiting.failures, waiting.order)) {
            return Next::Go(name.clone());
        }
        self.waiting.values().map(|waiting| waiting.not_before).min().map_or(Next::Idle, Next::Wait)
    }

    /// It failed, and is tried again later; `chance` is 0 to 1, so that not all are tried at the same time.
    pub(super) fn failed(&mut self, name: &FileName, error: String, now: Timestamp, chance: f64) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.failures = waiting.failures.saturating_add(1);
            waiting.error = Some(error);
            waiting.not_before = now + delay(waiting.failures, chance);
        }
    }

    /// It is uploaded, or there is nothing to upload any more.
    pub(super) fn done(&mut self, name: &FileName) {
        self.waiting.remove(name);
    }

    pub(super) fn get(&self, name: &FileName) -> Option<&Waiting> {
        self.waiting.get(name)
    }
}

/// How long to wait after so many failures: twice as long each time, between a half and the whole of it.
fn delay(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST.saturating_mul(1 << doublings).min(LAST);
    whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> FileName {
        text.parse().expect("a name")
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn one_that_fails_stands_in_nobodys_way() {
        let mut queue = Queue::default();
        assert_eq!(queue.next(at(0)), Next::Idle);
        for text in ["z.mp4", "a.mp4"] {
            queue.add(name(text), at(0));
        }
        assert_eq!(queue.next(at(0)), Next::Go(name("z.mp4")), "the first that came");
        queue.failed(&name("z.mp4"), "away".into(), at(0), 1.0);
        assert_eq!(queue.next(at(0)), Next::Go(name("a.mp4")));
        queue.done(&name("a.mp4"));
        assert_eq!(queue.next(at(0)), Next::Wait(at(2)));
        queue.add(name("z.mp4"), at(1));
        assert_eq!(queue.next(at(1)), Next::Wait(at(2)), "added again it keeps its place");
        assert_eq!(queue.next(at(2)), Next::Go(name("z.mp4")));
        queue.failed(&name("z.mp4"), "away".into(), at(2), 1.0);
        assert_eq!(queue.next(at(2)), Next::Wait(at(6)));
        assert_eq!(queue.get(&name("z.mp4")).map(|waiting| waiting.failures), Some(2));
        queue.done(&name("z.mp4"));
        queue.failed(&name("z.mp4"), "late".into(), at(2), 1.0);
        assert_eq!(queue.next(at(9)), Next::Idle, "what was removed does not come back");
    }

    proptest! {
        #[test]
        fn waits_grow_within_bounds(failures in 1u32..100, chance in 0.0f64..1.0) {
            let wait = delay(failures, chance);
            prop_assert!(wait >= FIRST / 2 && wait <= LAST);
            prop_assert!(delay(failures + 1, chance) >= wait);
            prop_assert!(delay(failures, 1.0) <= delay(failures, 0.0) * 2);
        }

        #[test]
        fn nothing_is_lost_and_all_are_tried(steps in proptest::collection::vec((0usize..4, any::<bool>()), 1..60)) {
            let names = ["a.mp4", "b.webm", "c.mkv", "d.ogg"].map(name);
            let mut queue = Queue::default();
            names.iter().for_each(|name| queue.add(name.clone(), at(0)));
            let (mut now, mut left) = (at(0), 4);
            for (_, succeeds) in steps {
                match queue.next(now) {
                    Next::Go(name) if succeeds => {
                        queue.done(&name);
                        left -= 1;
                    }
                    Next::Go(name) => queue.failed(&name, "away".into(), now, 0.5),
                    Next::Wait(until) => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    Next::Idle => prop_assert_eq!(left, 0),
                }
                prop_assert_eq!(queue.waiting.len(), left);
            }
        }
    }
}
