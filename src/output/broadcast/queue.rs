//! The queue of media to be sent.
//!
//! Owns: [`Queue`], which is pure, and [`SendQueue`], which worker and sender share. Does not know: protocols. In:
//! frames and audio packets. Out: the same, in order. When the server is too slow, the whole queue is dropped and
//! sending continues with a keyframe, so that the delay does not grow.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::media::EncodedPacket;

/// Capacity in bytes: four seconds of 16 Mbit/s.
const MAX_BYTES: usize = 8 << 20;
/// Capacity in pieces: about four seconds of 30 frames and 50 audio packets per second.
const MAX_PIECES: usize = 320;

/// A frame or audio packet to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A video frame.
    Video {
        /// Time in ticks of 90 kHz since the room's epoch.
        time: u64,
        /// Decoding may begin here.
        keyframe: bool,
        body: Body,
    },
    /// An audio packet.
    Audio {
        /// Time in samples at 48 kHz since the room's epoch.
        time: u64,
        /// An AAC frame or an Opus packet, depending on the protocol.
        data: Bytes,
    },
}

/// A frame in the form that the protocol needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// An access unit in Annex B.
    AccessUnit(Bytes),
    /// RTP payloads.
    Packets(Vec<EncodedPacket>),
}

impl Piece {
    /// Size of the payload in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Video { body: Body::AccessUnit(data), .. } | Self::Audio { data, .. } => data.len(),
            Self::Video { body: Body::Packets(packets), .. } => packets.iter().map(|packet| packet.payload.len()).sum(),
        }
    }

    const fn is_keyframe(&self) -> bool {
        matches!(self, Self::Video { keyframe: true, .. })
    }
}

/// Pieces to be sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// The server accepts media.
    open: bool,
    /// A keyframe was added since the queue was opened or dropped.
    has_keyframe: bool,
    dropped: u64,
}

impl Queue {
    /// Whether the server accepts media.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether pieces are dropped until the next keyframe.
    pub(super) const fn needs_keyframe(&self) -> bool {
        self.open && !self.has_keyframe
    }

    /// Pieces dropped because the server was too slow.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Opens the queue, starting with the next keyframe, or closes it. Empties it in both cases.
    pub(super) fn set_open(&mut self, open: bool) {
        self.pieces.clear();
        (self.bytes, self.open, self.has_keyframe) = (0, open, false);
    }

    /// Adds a piece, unless the queue is closed or waits for a keyframe.
    pub(super) fn push(&mut self, piece: Piece) {
        if !self.open || (!self.has_keyframe && !piece.is_keyframe()) {
            return;
        }
        if self.pieces.len() >= MAX_PIECES || self.bytes + piece.size() > MAX_BYTES {
            self.dropped += self.pieces.len() as u64;
            self.set_open(true);
            if !piece.is_keyframe() {
                self.dropped += 1;
                return;
            }
        }
        self.has_keyframe = true;
        self.bytes += piece.size();
        self.pieces.push_back(piece);
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.size();
        Some(piece)
    }
}

/// The queue shared by the worker, the audio encoder and the sender; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct SendQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    finished: Mutex<bool>,
    changed: Notify,
}

impl SendQueue {
    /// Reads or changes the queue.
    pub(super) fn with<T>(&self, use_queue: impl FnOnce(&mut Queue) -> T) -> T {
        let result = use_queue(&mut self.0.queue.lock());
        self.0.changed.notify_one();
        result
    }

    /// Marks the end of the media.
    pub(super) fn finish(&self) {
        *self.0.finished.lock() = true;
        self.0.changed.notify_one();
    }

    /// Whether [`SendQueue::finish`] was called.
    pub(super) fn is_finished(&self) -> bool {
        *self.0.finished.lock()
    }

    /// The next piece; None after the last one. Cancellation-safe.
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

    /// Waits for [`SendQueue::finish`].
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
        Piece::Video { time, keyframe, body: Body::AccessUnit(vec![0; size].into()) }
    }

    #[test]
    fn a_full_queue_is_dropped_and_continues_with_a_keyframe() {
        let mut queue = Queue::default();
        queue.push(video(0, true, 10));
        assert_eq!(queue.pop(), None, "the queue is closed");
        queue.set_open(true);
        assert!(queue.needs_keyframe());
        queue.push(video(1, false, 10));
        queue.push(Piece::Audio { time: 1, data: Bytes::from_static(b"x") });
        assert_eq!((queue.pop(), queue.dropped()), (None, 0), "no keyframe yet");
        queue.push(video(2, true, 10));
        queue.push(Piece::Audio { time: 2, data: Bytes::from_static(b"x") });
        assert!(!queue.needs_keyframe());
        while queue.dropped() == 0 {
            queue.push(video(3, false, 10));
        }
        assert_eq!(queue.dropped(), MAX_PIECES as u64 + 1);
        assert!(queue.needs_keyframe() && queue.pop().is_none());
        queue.push(video(4, true, 10));
        assert_eq!(queue.pop(), Some(video(4, true, 10)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The queue is bounded, and its output after a drop or an opening begins with a keyframe.
        #[test]
        fn the_queue_is_bounded_and_its_output_decodable(
            steps in prop::collection::vec((0u8..8, any::<bool>(), 0usize..3_000_000), 1..400),
        ) {
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
                    2 => queue.push(Piece::Audio { time: n as u64, data: vec![0; size / 10_000].into() }),
                    _ => queue.push(video(n as u64, keyframe, size)),
                }
                fresh |= queue.dropped() > dropped;
                dropped = queue.dropped();
                prop_assert!(queue.pieces.len() <= MAX_PIECES && queue.bytes <= MAX_BYTES);
                prop_assert_eq!(queue.bytes, queue.pieces.iter().map(Piece::size).sum::<usize>());
            }
        }
    }
}
