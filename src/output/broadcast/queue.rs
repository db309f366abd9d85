//! What waits for a far end.
//!
//! Owns: [`Queue`], pure, and [`Feed`], which the worker and the sender share. Does not know: what is sent how.
//! A far end that is too slow makes no delay grow: what waits is dropped as a whole, and it goes on with a keyframe.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::media::EncodedPacket;

/// Most bytes that wait: four seconds of 16 Mbit/s.
const BYTES_MAX: usize = 8 << 20;
/// Most pieces that wait: some four seconds of 30 frames and 50 packets of sound.
const PIECES_MAX: usize = 320;

/// A piece of media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A frame.
    Video {
        /// Its time in ticks of 90 kHz since the room's epoch.
        time: u64,
        /// Decoding may begin here.
        keyframe: bool,
        /// The frame.
        body: Body,
    },
    /// Sound.
    Sound {
        /// Its time in samples at 48 kHz since the room's epoch.
        time: u64,
        /// An AAC frame or an Opus packet, as the far end wants it.
        data: Bytes,
    },
}

/// A frame in the form that the far end wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// An access unit in Annex B.
    Whole(Bytes),
    /// RTP payloads.
    Packets(Vec<EncodedPacket>),
}

impl Piece {
    /// Its size in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Video { body: Body::Whole(data), .. } | Self::Sound { data, .. } => data.len(),
            Self::Video { body: Body::Packets(packets), .. } => packets.iter().map(|packet| packet.payload.len()).sum(),
        }
    }

    const fn is_keyframe(&self) -> bool {
        matches!(self, Self::Video { keyframe: true, .. })
    }
}

/// Pieces on their way to the sender.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// The far end takes media.
    open: bool,
    /// A keyframe has been taken since it was opened or something was dropped.
    begun: bool,
    dropped: u64,
}

impl Queue {
    /// Whether media is of use now.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether nothing can go on without a keyframe.
    pub(super) const fn needs_keyframe(&self) -> bool {
        self.open && !self.begun
    }

    /// Pieces dropped because the far end was too slow.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The far end takes media from the next keyframe on, or none any more.
    pub(super) fn set_open(&mut self, open: bool) {
        self.pieces.clear();
        (self.bytes, self.open, self.begun) = (0, open, false);
    }

    /// Puts a piece in, if it is of use.
    pub(super) fn push(&mut self, piece: Piece) {
        if !self.open || (!self.begun && !piece.is_keyframe()) {
            return;
        }
        if self.pieces.len() >= PIECES_MAX || self.bytes + piece.size() > BYTES_MAX {
            self.dropped += self.pieces.len() as u64;
            self.set_open(true);
            if !piece.is_keyframe() {
                self.dropped += 1;
                return;
            }
        }
        self.begun = true;
        self.bytes += piece.size();
        self.pieces.push_back(piece);
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.size();
        Some(piece)
    }
}

/// The queue between the worker, the encoder of sound and the sender; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Feed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    finished: Mutex<bool>,
    changed: Notify,
}

impl Feed {
    /// Looks at the queue, or changes it.
    pub(super) fn with<T>(&self, use_queue: impl FnOnce(&mut Queue) -> T) -> T {
        let result = use_queue(&mut self.0.queue.lock());
        self.0.changed.notify_one();
        result
    }

    /// Nothing follows.
    pub(super) fn finish(&self) {
        *self.0.finished.lock() = true;
        self.0.changed.notify_one();
    }

    /// Whether nothing follows.
    pub(super) fn is_finished(&self) -> bool {
        *self.0.finished.lock()
    }

    /// The next piece; None when nothing follows. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.0.queue.lock().pop() {
                return Some(piece);
            }
            if self.is_finished() {
                return None;
            }
            self.0.changed.notified().await;
        }
    }

    /// Waits until nothing follows.
    pub(super) async fn finished(&self) {
        while !self.is_finished() {
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn video(time: u64, keyframe: bool, size: usize) -> Piece {
        Piece::Video { time, keyframe, body: Body::Whole(vec![0; size].into()) }
    }

    #[test]
    fn a_slow_far_end_goes_on_with_a_keyframe() {
        let mut queue = Queue::default();
        queue.push(video(0, true, 10));
        assert_eq!(queue.pop(), None, "nobody takes it yet");
        queue.set_open(true);
        assert!(queue.needs_keyframe());
        queue.push(video(1, false, 10));
        queue.push(Piece::Sound { time: 1, data: Bytes::from_static(b"x") });
        assert_eq!((queue.pop(), queue.dropped()), (None, 0), "it has not begun");
        queue.push(video(2, true, 10));
        queue.push(Piece::Sound { time: 2, data: Bytes::from_static(b"x") });
        assert!(!queue.needs_keyframe());
        while queue.dropped() == 0 {
            queue.push(video(3, false, 10));
        }
        assert_eq!(queue.dropped(), PIECES_MAX as u64 + 1);
        assert!(queue.needs_keyframe() && queue.pop().is_none());
        queue.push(video(4, true, 10));
        assert_eq!(queue.pop(), Some(video(4, true, 10)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever comes and goes: the queue is bounded, and what leaves after a drop or an opening begins with a keyframe.
        #[test]
        fn bounded_and_decodable(steps in prop::collection::vec((0u8..8, any::<bool>(), 0usize..3_000_000), 1..400)) {
            let mut queue = Queue::default();
            queue.set_open(true);
            let mut fresh = true;
            let mut dropped = 0;
            for (n, (step, keyframe, size)) in steps.into_iter().enumerate() {
                match step {
                    0 => { queue.set_open(true); fresh = true; }
                    1 => if let Some(piece) = queue.pop() {
                        prop_assert!(!fresh || piece.is_keyframe());
                        fresh = false;
                    },
                    2 => queue.push(Piece::Sound { time: n as u64, data: vec![0; size / 10_000].into() }),
                    _ => queue.push(video(n as u64, keyframe, size)),
                }
                fresh |= queue.dropped() > dropped;
                dropped = queue.dropped();
                prop_assert!(queue.pieces.len() <= PIECES_MAX && queue.bytes <= BYTES_MAX);
                prop_assert_eq!(queue.bytes, queue.pieces.iter().map(Piece::size).sum::<usize>());
            }
        }
    }
}
