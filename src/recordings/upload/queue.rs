//! The order of uploads, and the retry delay after failures. Pure: time and jitter are arguments.
//!
//! Owns: [`Queue`]. Does not know: how an upload works. In: names and results. Out: [`Next`]. Its length is bounded by
//! the number of files on disk. An upload is never given up: a store that was unreachable for a day gets all files
//! afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::recordings::FileName;
use crate::time::Timestamp;

/// Delay after the first failure, and the longest delay.
const MIN_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);

/// Recordings to upload.
#[derive(Debug, Default)]
pub(super) struct Queue {
    queued: BTreeMap<FileName, QueuedUpload>,
}

/// A recording in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueuedUpload {
    /// Order of arrival.
    order: u64,
    /// Failed attempts so far.
    pub(super) failures: u32,
    /// Error of the last attempt.
    pub(super) error: Option<String>,
    not_before: Timestamp,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Upload this recording.
    Upload(FileName),
    /// Wait until then, or until a recording is added.
    Wait(Timestamp),
    /// Wait until a recording is added.
    Idle,
}

impl Queue {
    /// Adds a recording; a queued one keeps its position.
    pub(super) fn add(&mut self, name: FileName, now: Timestamp) {
        let order = self.queued.values().map(|queued| queued.order + 1).max().unwrap_or(0);
        self.queued.entry(name).or_insert(QueuedUpload { order, failures: 0, error: None, not_before: now });
    }

    /// The next recording: of those due, the one with the fewest failures, then the one added first.
    pub(super) fn next(&self, now: Timestamp) -> Next {
        let due = self.queued.iter().filter(|(_, queued)| queued.not_before <= now);
        if let Some((name, _)) = due.min_by_key(|(_, queued)| (queued.failures, queued.order)) {
            return Next::Upload(name.clone());
        }
        self.queued.values().map(|queued| queued.not_before).min().map_or(Next::Idle, Next::Wait)
    }

    /// Schedules the retry of a failed upload. `jitter` is 0 to 1, so that retries do not coincide.
    pub(super) fn failed(&mut self, name: &FileName, error: String, now: Timestamp, jitter: f64) {
        if let Some(queued) = self.queued.get_mut(name) {
            queued.failures = queued.failures.saturating_add(1);
            queued.error = Some(error);
            queued.not_before = now + delay(queued.failures, jitter);
        }
    }

    /// Removes a recording that is uploaded or deleted.
    pub(super) fn done(&mut self, name: &FileName) {
        self.queued.remove(name);
    }

    pub(super) fn get(&self, name: &FileName) -> Option<&QueuedUpload> {
        self.queued.get(name)
    }
}

/// Delay after a number of failures: doubles each time, and `jitter` selects between half and all of it.
fn delay(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = MIN_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
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
    fn a_failed_upload_does_not_block_the_others() {
        let mut queue = Queue::default();
        assert_eq!(queue.next(at(0)), Next::Idle);
        for text in ["z.mp4", "a.mp4"] {
            queue.add(name(text), at(0));
        }
        assert_eq!(queue.next(at(0)), Next::Upload(name("z.mp4")), "the one added first");
        queue.failed(&name("z.mp4"), "away".into(), at(0), 1.0);
        assert_eq!(queue.next(at(0)), Next::Upload(name("a.mp4")));
        queue.done(&name("a.mp4"));
        assert_eq!(queue.next(at(0)), Next::Wait(at(2)));
        queue.add(name("z.mp4"), at(1));
        assert_eq!(queue.next(at(1)), Next::Wait(at(2)), "added again, it keeps its position");
        assert_eq!(queue.next(at(2)), Next::Upload(name("z.mp4")));
        queue.failed(&name("z.mp4"), "away".into(), at(2), 1.0);
        assert_eq!(queue.next(at(2)), Next::Wait(at(6)));
        assert_eq!(queue.get(&name("z.mp4")).map(|queued| queued.failures), Some(2));
        queue.done(&name("z.mp4"));
        queue.failed(&name("z.mp4"), "late".into(), at(2), 1.0);
        assert_eq!(queue.next(at(9)), Next::Idle, "a removed recording does not return");
    }

    proptest! {
        #[test]
        fn delays_grow_within_bounds(failures in 1u32..100, jitter in 0.0f64..1.0) {
            let wait = delay(failures, jitter);
            prop_assert!(wait >= MIN_DELAY / 2 && wait <= MAX_DELAY);
            prop_assert!(delay(failures + 1, jitter) >= wait);
            prop_assert!(delay(failures, 1.0) <= delay(failures, 0.0) * 2);
        }

        #[test]
        fn every_recording_is_uploaded_or_retried(
            steps in proptest::collection::vec((0usize..4, any::<bool>()), 1..60),
        ) {
            let names = ["a.mp4", "b.webm", "c.mkv", "d.ogg"].map(name);
            let mut queue = Queue::default();
            names.iter().for_each(|name| queue.add(name.clone(), at(0)));
            let (mut now, mut left) = (at(0), 4);
            for (_, succeeds) in steps {
                match queue.next(now) {
                    Next::Upload(name) if succeeds => {
                        queue.done(&name);
                        left -= 1;
                    }
                    Next::Upload(name) => queue.failed(&name, "away".into(), now, 0.5),
                    Next::Wait(until) => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    Next::Idle => prop_assert_eq!(left, 0),
                }
                prop_assert_eq!(queue.queued.len(), left);
            }
        }
    }
}
