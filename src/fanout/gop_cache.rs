//! What a stream has sent since its last keyframe.
//!
//! Owns: [`GopCache`], bounded. Does not know: who joins. With it a joiner, or whoever changes the stream, sees a picture at
//! once, and a hundred who join together need one keyframe, not a hundred.

use crate::media::{EncodedPacket, VIDEO_CLOCK};

/// Nothing older is worth sending: it has to be decoded before the present can be shown.
const AGE_MAX: u32 = VIDEO_CLOCK;
/// Frames, since each takes its place in time before the present one; see [`GopCache::replay`].
const FRAMES_MAX: u32 = 30;
/// Bytes that a joiner gets in one burst.
const BYTES_MAX: usize = 160_000;
/// From one replayed frame to the next, in ticks of the video clock: all of them stay within a frame's time at 30 a second.
const REPLAY_STEP: u32 = 90;

/// What a stream has sent since its last keyframe; empty when that is too much to send to anybody.
#[derive(Debug, Default)]
pub struct GopCache {
    packets: Vec<EncodedPacket>,
    bytes: usize,
    frames: u32,
}

impl GopCache {
    /// Takes in the stream's next packet.
    pub fn push(&mut self, packet: &EncodedPacket) {
        if packet.starts_keyframe {
            self.clear();
        } else {
            let Some(last) = self.packets.last() else { return };
            let age = packet.timestamp.wrapping_sub(self.packets[0].timestamp);
            let bytes = self.bytes + packet.payload.len();
            if age > AGE_MAX || self.frames == FRAMES_MAX && packet.timestamp != last.timestamp || bytes > BYTES_MAX {
                return self.clear();
            }
        }
        if self.packets.last().is_none_or(|last| last.timestamp != packet.timestamp) {
            self.frames += 1;
        }
        self.bytes += packet.payload.len();
        self.packets.push(packet.clone());
    }

    /// Everything, to be sent at once: the last frame at its own time and those before it just before that, since a
    /// receiver takes late timestamps for a late network.
    pub fn replay(&self) -> impl Iterator<Item = EncodedPacket> {
        let now = self.packets.last().map_or(0, |last| last.timestamp);
        let mut left = self.frames;
        let mut frame = None;
        self.packets.iter().map(move |packet| {
            if frame != Some(packet.timestamp) {
                frame = Some(packet.timestamp);
                left -= 1;
            }
            EncodedPacket { timestamp: now.wrapping_sub(left * REPLAY_STEP), ..packet.clone() }
        })
    }

    /// How many packets [`replay`](Self::replay) gives; 0 when a keyframe must be waited for.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether a keyframe must be waited for.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn clear(&mut self) {
        self.packets.clear();
        (self.bytes, self.frames) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn packet(timestamp: u32, starts_keyframe: bool, size: usize) -> EncodedPacket {
        EncodedPacket { timestamp, marker: true, starts_keyframe, payload: Bytes::from(vec![0; size]) }
    }

    #[test]
    fn a_stream_without_a_keyframe_is_not_remembered() {
        let mut recent = GopCache::default();
        recent.push(&packet(0, false, 10));
        assert!(recent.is_empty());
    }

    #[test]
    fn it_forgets_what_would_take_too_long() {
        let mut recent = GopCache::default();
        for frame in 0..40 {
            recent.push(&packet(frame * 3_000, frame == 0, 1_000));
        }
        assert!(recent.is_empty(), "more than thirty frames");
        recent.push(&packet(0, true, 100_000));
        recent.push(&packet(3_000, false, 100_000));
        assert!(recent.is_empty(), "too many bytes");
    }

    proptest! {
        #[test]
        fn a_replay_ends_in_the_present_and_never_runs_backwards(
            start in any::<u32>(),
            frames in prop::collection::vec((1..4_usize, 1..2_000_usize), 1..30),
        ) {
            let mut recent = GopCache::default();
            let mut pushed = 0;
            for (n, (packets, size)) in frames.iter().enumerate() {
                for part in 0..*packets {
                    recent.push(&packet(start.wrapping_add(n as u32 * 3_000), n == 0 && part == 0, *size));
                    pushed += 1;
                }
            }
            prop_assume!(!recent.is_empty());
            let replayed: Vec<EncodedPacket> = recent.replay().collect();
            prop_assert_eq!(replayed.len(), pushed);
            prop_assert!(replayed[0].starts_keyframe);
            let last = start.wrapping_add((frames.len() as u32 - 1) * 3_000);
            prop_assert_eq!(replayed[pushed - 1].timestamp, last);
            for pair in replayed.windows(2) {
                let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                prop_assert!(step == 0 || step == REPLAY_STEP);
            }
            // Nothing reaches back to where the frame before the present one was.
            prop_assert!(last.wrapping_sub(replayed[0].timestamp) < 3_000);
        }
    }
}
