//! The packets of a stream since its last keyframe.
//!
//! Owns: [`GopCache`], which is bounded. Does not know: subscribers. A new subscriber of the stream starts with the
//! cached packets: it gets a picture at once, and a hundred simultaneous joins need one keyframe.

use crate::media::{EncodedPacket, VIDEO_CLOCK};

/// Greatest age of the keyframe in ticks of the RTP clock: all frames since then must be decoded before the latest is
/// shown.
const AGE_MAX: u32 = VIDEO_CLOCK;
/// Most frames, since each needs a timestamp before the latest one; see [`GopCache::replay`].
const FRAMES_MAX: u32 = 30;
/// Most bytes, since they are sent in one burst.
const BYTES_MAX: usize = 160_000;
/// From one replayed frame to the next, in ticks of the RTP clock: all of them fit into one frame's time at 30 per
/// second.
const REPLAY_STEP: u32 = 90;

/// The packets since the last keyframe; empty if there are too many to replay.
#[derive(Debug, Default)]
pub struct GopCache {
    packets: Vec<EncodedPacket>,
    bytes: usize,
    frames: u32,
}

impl GopCache {
    /// Adds the stream's next packet.
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

    /// All packets, to be sent at once. The last frame keeps its timestamp and the frames before it get timestamps just
    /// before that, since a receiver would interpret old timestamps as network delay.
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

    /// The number of packets of [`replay`](Self::replay); 0 if a new subscriber needs a keyframe.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether a new subscriber needs a keyframe.
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
    fn packets_before_the_first_keyframe_are_not_cached() {
        let mut recent = GopCache::default();
        recent.push(&packet(0, false, 10));
        assert!(recent.is_empty());
    }

    #[test]
    fn the_cache_is_cleared_when_it_exceeds_a_limit() {
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
        fn a_replay_ends_at_the_latest_timestamp_and_never_runs_backwards(
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
            // All timestamps are after that of the frame before the latest one.
            prop_assert!(last.wrapping_sub(replayed[0].timestamp) < 3_000);
        }
    }
}
