//! The packets of a source that is not decoded, since its last keyframe.
//!
//! Owns: the packets, within bounds. Does not know: codecs, decoders. In: every packet of a source that is hidden or
//! ignores keyframe requests. Out: all of them, when the source is shown: it can be decoded at once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::SourcePacket;

/// Longest time from the keyframe to the newest packet. The default of OBS is a keyframe every 250 frames, which is
/// 10 s at 25 frames a second.
const MAX_TIME: Duration = Duration::from_secs(15);
/// Most bytes: 12 s at 8 Mbit/s.
const MAX_BYTES: usize = 12 << 20;
/// Memory of a packet beside its payload, in bytes.
const OVERHEAD: usize = 128;

/// The packets of one source.
#[derive(Debug, Default)]
pub(super) struct History {
    packets: VecDeque<SourcePacket>,
    bytes: usize,
    /// RTP timestamp of the keyframe; None while there is none to begin with.
    keyframe: Option<u32>,
}

impl History {
    /// Keeps a packet. `starts`: a picture begins in it at which decoding may begin. Beyond its bounds the history is
    /// dropped until the next such picture.
    pub(super) fn insert(&mut self, packet: SourcePacket, starts: bool) {
        if starts && self.keyframe != Some(packet.timestamp) {
            // Packets of this frame, and later ones, may have overtaken its first packet.
            let stays = |other: &SourcePacket| {
                other.timestamp == packet.timestamp || (other.sequence.wrapping_sub(packet.sequence) as i16) > 0
            };
            self.packets.retain(stays);
            self.bytes = self.packets.iter().map(cost).sum();
            self.keyframe = Some(packet.timestamp);
        }
        if self.keyframe.is_none() {
            return;
        }
        self.bytes += cost(&packet);
        let begun = self.packets.front().map_or(packet.arrival, |first| first.arrival);
        if self.bytes > MAX_BYTES || packet.arrival.since(begun) > MAX_TIME {
            return self.clear();
        }
        self.packets.push_back(packet);
    }

    /// All packets in the order of their arrival.
    pub(super) fn packets(&self) -> Vec<SourcePacket> {
        self.packets.iter().cloned().collect()
    }

    /// Whether it has a keyframe to begin with.
    pub(super) const fn has_keyframe(&self) -> bool {
        self.keyframe.is_some()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The memory that it uses, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(packet: &SourcePacket) -> usize {
    packet.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn packet(sequence: u16, frame: u32, ms: u64, size: usize) -> SourcePacket {
        SourcePacket {
            sequence,
            timestamp: frame * 3_000,
            marker: false,
            arrival: Timestamp::from_micros(1_000_000 + ms * 1_000),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::from(vec![0; size]),
        }
    }

    fn sequences(history: &History) -> Vec<u16> {
        history.packets().iter().map(|packet| packet.sequence).collect()
    }

    #[test]
    fn packets_since_the_newest_keyframe_are_kept() {
        let mut history = History::default();
        history.insert(packet(1, 0, 0, 10), false);
        for (sequence, frame, starts) in [(2, 1, true), (3, 1, false), (4, 2, false), (5, 3, true), (6, 4, false)] {
            history.insert(packet(sequence, frame, 33 * u64::from(frame), 10), starts);
        }
        assert_eq!(sequences(&history), [5, 6]);
        history.clear();
        assert_eq!((history.bytes(), history.has_keyframe()), (0, false));
        history.insert(packet(7, 5, 200, 10), false);
        assert!(sequences(&history).is_empty(), "nothing can be decoded before the next keyframe");
    }

    #[test]
    fn a_keyframe_of_several_slices_is_kept_whole() {
        let mut history = History::default();
        for sequence in [u16::MAX, 0, 1] {
            history.insert(packet(sequence, 1, 0, 10), true);
        }
        assert_eq!(sequences(&history), [u16::MAX, 0, 1]);
    }

    #[test]
    fn packets_that_overtake_the_keyframe_are_kept() {
        let mut history = History::default();
        history.insert(packet(9, 0, 0, 10), true);
        // Parameter sets of the keyframe, its second packet and the next frame come before its first packet.
        for (sequence, frame) in [(10, 1), (12, 1), (13, 2)] {
            history.insert(packet(sequence, frame, 33, 10), false);
        }
        history.insert(packet(11, 1, 34, 10), true);
        assert_eq!(sequences(&history), [10, 12, 13, 11]);
    }

    #[test]
    fn a_history_beyond_its_bounds_is_dropped_until_the_next_keyframe() {
        let mut history = History::default();
        history.insert(packet(1, 0, 0, 10), true);
        history.insert(packet(2, 450, 15_001, 10), false);
        assert_eq!(history.bytes(), 0, "too long");
        history.insert(packet(3, 451, 15_034, 10), false);
        assert_eq!(history.bytes(), 0, "without a keyframe nothing can be decoded");
        history.insert(packet(4, 452, 15_067, 10), true);
        assert_eq!(sequences(&history), [4]);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_counted(
            packets in prop::collection::vec((any::<u16>(), 0_u32..50, 0_u64..2_000, 0_usize..2_000_000, any::<bool>()), 0..60),
        ) {
            let (mut history, mut now) = (History::default(), 0);
            for (sequence, frame, step, size, starts) in packets {
                now += step;
                history.insert(packet(sequence, frame, now, size), starts);
                prop_assert!(history.bytes() <= MAX_BYTES);
                prop_assert_eq!(history.bytes(), history.packets.iter().map(cost).sum::<usize>());
            }
        }
    }
}
