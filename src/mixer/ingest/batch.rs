//! Batches: which frames of a still camera wait for the frames after them, to be decoded one after the other.
//!
//! Owns: the rule. Does not know: frames, decoders. In: the size and the time of each frame, and whether its camera is
//! still. Out: whether the frame waits, and until when at most.
//!
//! Only VP8 and VP9 are batched, because their decoders never reorder pictures.
//!
//! The encoder of a still camera goes on to send frames, which have to be decoded because later ones refer to them. A
//! decoder whose pictures have left the processor's cache takes 1.3 times as long per frame as one that decodes four
//! frames at once. Only the last picture of a batch is looked at. A movement costs bits: the frame that is larger than
//! its predecessors ends the batch, so that a movement is seen at once, or [`WAIT`] later if it is as small as noise.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// Most frames of a batch.
const FRAMES: usize = 4;
/// Longest time that a frame waits. Frames that come at half this interval or later never wait.
const WAIT: Duration = Duration::from_millis(120);
/// A frame that is larger than so many before it does not wait.
const COMPARED: usize = 16;

/// The frames of one source that wait.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Bytes of the last frames.
    sizes: VecDeque<usize>,
    last: Timestamp,
    frames: usize,
    /// The time of the first frame of the batch.
    since: Option<Timestamp>,
}

impl Batch {
    /// Whether a frame of so many bytes waits. If not, the batch ends with it.
    pub(super) fn waits(&mut self, bytes: usize, is_still: bool, at: Timestamp) -> bool {
        let is_usual = self.sizes.len() == COMPARED && self.sizes.iter().any(|size| bytes <= *size);
        if self.sizes.len() == COMPARED {
            self.sizes.pop_front();
        }
        self.sizes.push_back(bytes);
        let interval = at.since(std::mem::replace(&mut self.last, at));
        let has_room = self.frames + 1 < FRAMES && self.since.is_none_or(|since| at.since(since) < WAIT);
        let waits = is_still && is_usual && has_room && interval < WAIT / 2;
        if waits {
            self.frames += 1;
            self.since.get_or_insert(at);
        } else {
            self.end();
        }
        waits
    }

    /// When its frames are decoded at the latest; None if none waits.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.since.map(|since| since + WAIT)
    }

    /// No frame waits any more.
    pub(super) const fn end(&mut self) {
        (self.frames, self.since) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// A batch after sixteen frames of 1,000 bytes, the last at 0 ms.
    fn usual() -> Batch {
        let mut batch = Batch { last: Timestamp::from_micros(1), ..Batch::default() };
        for n in 0..16 {
            assert!(!batch.waits(1_000, false, Timestamp::from_micros(1_000_000 - (15 - n) * 33_000)));
        }
        batch
    }

    #[test]
    fn four_frames_of_a_still_camera_are_a_batch() {
        let mut batch = usual();
        let waits: Vec<bool> = (1..9).map(|n| batch.waits(1_000, true, at(33 * n))).collect();
        assert_eq!(waits, [true, true, true, false, true, true, true, false]);
        assert_eq!(batch.due(), None);
        let mut batch = usual();
        assert!(batch.waits(900, true, at(40)) && batch.waits(900, true, at(80)));
        assert_eq!(batch.due(), Some(at(160)), "the first frame does not wait longer");
        batch.end();
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn a_larger_frame_or_a_movement_ends_the_batch() {
        let mut batch = usual();
        assert!(batch.waits(1_000, true, at(33)));
        assert!(!batch.waits(1_001, true, at(66)), "larger than sixteen before it");
        assert!(batch.waits(1_001, true, at(99)));
        assert!(!batch.waits(1_000, false, at(132)), "the camera moves");
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn frames_of_a_new_or_slow_camera_do_not_wait() {
        let mut batch = Batch::default();
        let waits: Vec<bool> = (0..17).map(|n| batch.waits(1_000, true, at(33 * n))).collect();
        assert_eq!(waits.iter().position(|waits| *waits), Some(16), "the sizes of sixteen frames are not known");
        let mut batch = usual();
        assert!((1..20).all(|n| !batch.waits(1_000, true, at(60 * n))));
    }

    proptest! {
        #[test]
        fn batches_are_bounded(frames in prop::collection::vec((900..1_100_usize, any::<bool>(), 0..70_u64), 1..200)) {
            let (mut batch, mut now, mut waiting) = (usual(), 0, Vec::new());
            for (bytes, is_still, interval) in frames {
                now += interval;
                // Its owner decodes what is due.
                if batch.due().is_some_and(|due| due <= at(now)) {
                    batch.end();
                    waiting.clear();
                }
                if batch.waits(bytes, is_still, at(now)) {
                    waiting.push(now);
                } else {
                    waiting.clear();
                }
                prop_assert!(waiting.len() < FRAMES);
                prop_assert_eq!(batch.due(), waiting.first().map(|first| at(*first) + WAIT));
            }
        }
    }
}
