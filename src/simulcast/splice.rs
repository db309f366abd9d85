//! One RTP stream made of the encodings of a source.
//!
//! Owns: sequence numbers and timestamps of the one stream, and the packets of an encoding that is to follow. Does not
//! know: which encoding is to follow, what is in a packet. An encoding follows as soon as a keyframe of it is complete,
//! and the frame before it ends, so that receivers never wait: until then the encoding before is passed on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::media::{Codec, SourcePacket};
use crate::time::Timestamp;

/// Packets of the encoding before that were lost are passed on for so long after a switch.
const PREVIOUS: Duration = Duration::from_millis(400);
/// An unfinished frame of the encoding before delays a switch for so long.
const UNFINISHED: Duration = Duration::from_millis(60);
/// Most packets that wait for the end of their keyframe.
const WAITING_MAX: usize = 1_000;
/// A sequence number that is lower by more than this is no late packet: the sender has begun anew.
const JUMP: i16 = 3_000;
/// Ticks of the 90 kHz clock in a millisecond.
const TICKS_PER_MS: u64 = 90;

/// A packet of the one stream, and its codec.
pub type Spliced = (Codec, SourcePacket);

/// How packets of one encoding are numbered in the one stream.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    encoding: usize,
    /// Added to sequence numbers.
    sequence: u16,
    /// Added to timestamps.
    timestamp: u32,
    /// Sequence number of its first packet, as received.
    first: u16,
    begun: Timestamp,
}

/// The newest packet of the one stream.
#[derive(Debug, Clone, Copy)]
struct Newest {
    sequence: u16,
    timestamp: u32,
    arrival: Timestamp,
    /// It ends its frame.
    ends: bool,
}

/// Packets of an encoding that is to follow, since its newest keyframe.
#[derive(Debug, Default)]
struct Waiting {
    packets: BTreeMap<u64, Spliced>,
    /// Number of the first packet of the keyframe.
    keyframe: Option<u64>,
    /// The newest number: sequence numbers without their wrap-around.
    newest: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Splicer {
    current: Option<Mapping>,
    /// The encoding before, and the last number of it that was passed on.
    previous: Option<(Mapping, u16)>,
    newest: Option<Newest>,
    /// When the newest packet of any encoding came.
    now: Timestamp,
    waiting: Vec<Waiting>,
}

impl Waiting {
    fn insert(&mut self, codec: Codec, packet: SourcePacket, keyframe: bool) {
        // Numbers begin high enough for packets that were reordered.
        let newest = self.newest.unwrap_or_else(|| (1 << 32) | u64::from(packet.sequence));
        let number = newest.wrapping_add_signed(i64::from(packet.sequence.wrapping_sub(newest as u16) as i16));
        self.newest = Some(newest.max(number));
        let timestamp = packet.timestamp;
        let is_known = |known: u64| {
            // Several packets of a keyframe may look like its first one.
            known >= number || self.packets.get(&known).is_some_and(|(_, first)| first.timestamp == timestamp)
        };
        if keyframe && !self.keyframe.is_some_and(is_known) {
            self.keyframe = Some(number);
        }
        self.packets.insert(number, (codec, packet));
        match self.keyframe {
            Some(first) => self.packets = self.packets.split_off(&first),
            // The keyframe may begin with a packet that comes later.
            None => self.packets.retain(|_, (_, other)| other.timestamp == timestamp),
        }
        if self.packets.len() > WAITING_MAX {
            *self = Self::default();
        }
    }

    /// Whether the keyframe is complete.
    fn is_complete(&self) -> bool {
        let Some(first) = self.keyframe else { return false };
        let mut frame = self.packets.range(first..).zip(first..).take_while(|((number, _), next)| *number == next);
        let Some(((_, (_, start)), _)) = frame.next() else { return false };
        start.marker || frame.any(|((_, (_, packet)), _)| packet.marker && packet.timestamp == start.timestamp)
    }
}

impl Splicer {
    pub(super) fn new(encodings: usize) -> Self {
        let waiting = (0..encodings).map(|_| Waiting::default()).collect();
        Self { current: None, previous: None, newest: None, now: Timestamp::default(), waiting }
    }

    /// Takes a packet; `target` is the encoding that is to follow. Returns whether the encoding of this packet follows.
    #[expect(clippy::too_many_arguments, reason = "one packet and what is known of it")]
    pub(super) fn take(
        &mut self,
        encoding: usize,
        codec: Codec,
        packet: SourcePacket,
        keyframe: bool,
        target: Option<usize>,
        now: Timestamp,
        out: &mut Vec<Spliced>,
    ) -> bool {
        self.now = now;
        if let Some(current) = self.current.filter(|current| current.encoding == encoding) {
            out.extend(self.pass(current, codec, packet, now));
            return false;
        }
        if self.previous() == Some(encoding)
            && let Some((previous, last)) = self.previous
            && (packet.sequence.wrapping_sub(last) as i16) <= 0
        {
            out.push((codec, previous.map(packet)));
            return false;
        }
        if self.current.is_some() && target != Some(encoding) {
            if self.waiting[encoding].newest.is_some() {
                self.waiting[encoding] = Waiting::default();
            }
            return false;
        }
        self.waiting[encoding].insert(codec, packet, keyframe);
        if !self.waiting[encoding].is_complete() || self.is_within_frame(now) {
            return false;
        }
        self.switch(encoding, now, out);
        true
    }

    /// The encoding before, while packets of it that were lost are of use.
    pub(super) fn previous(&self) -> Option<usize> {
        let begun = self.current?.begun;
        self.previous.filter(|_| self.now.since(begun) < PREVIOUS).map(|(mapping, _)| mapping.encoding)
    }

    pub(super) fn restarted(&mut self, encoding: usize) {
        self.waiting[encoding] = Waiting::default();
        self.current = self.current.filter(|current| current.encoding != encoding);
        self.previous = self.previous.filter(|(previous, _)| previous.encoding != encoding);
    }

    /// A frame has begun whose last packet may still come.
    fn is_within_frame(&self, now: Timestamp) -> bool {
        self.current.is_some()
            && self.newest.is_some_and(|newest| !newest.ends && now.since(newest.arrival) < UNFINISHED)
    }

    fn switch(&mut self, encoding: usize, now: Timestamp, out: &mut Vec<Spliced>) {
        let packets = std::mem::take(&mut self.waiting[encoding]).packets;
        self.waiting.iter_mut().for_each(|waiting| *waiting = Waiting::default());
        let (_, first) = packets.values().next().expect("a complete keyframe");
        let mapping = match self.newest {
            None => Mapping { encoding, sequence: 0, timestamp: 0, first: first.sequence, begun: now },
            Some(newest) => {
                let passed = now.since(newest.arrival).as_millis() as u64;
                let timestamp = newest.timestamp.wrapping_add((passed.max(1) * TICKS_PER_MS) as u32);
                Mapping {
                    encoding,
                    sequence: newest.sequence.wrapping_add(1).wrapping_sub(first.sequence),
                    timestamp: timestamp.wrapping_sub(first.timestamp),
                    first: first.sequence,
                    begun: now,
                }
            }
        };
        self.previous = self
            .current
            .take()
            .zip(self.newest)
            .map(|(before, newest)| (before, newest.sequence.wrapping_sub(before.sequence)));
        self.current = Some(mapping);
        for (codec, packet) in packets.into_values() {
            out.extend(self.pass(mapping, codec, packet, now));
        }
    }

    /// A packet of the current encoding; None for one that belongs before its first keyframe.
    fn pass(&mut self, mapping: Mapping, codec: Codec, packet: SourcePacket, now: Timestamp) -> Option<Spliced> {
        let is_earlier = (packet.sequence.wrapping_sub(mapping.first) as i16) < 0;
        if is_earlier && now.since(mapping.begun) < PREVIOUS {
            return None;
        }
        let packet = mapping.map(packet);
        let is_newer = |newest: Newest| {
            let ahead = packet.sequence.wrapping_sub(newest.sequence) as i16;
            !(-JUMP..=0).contains(&ahead)
        };
        if self.newest.is_none_or(is_newer) {
            let SourcePacket { sequence, timestamp, marker: ends, .. } = packet;
            self.newest = Some(Newest { sequence, timestamp, arrival: now, ends });
        }
        Some((codec, packet))
    }
}

impl Mapping {
    fn map(&self, packet: SourcePacket) -> SourcePacket {
        SourcePacket {
            sequence: packet.sequence.wrapping_add(self.sequence),
            timestamp: packet.timestamp.wrapping_add(self.timestamp),
            ..packet
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// Frames of three packets. The payload is the encoding, the frame, the part, and whether the frame is a keyframe.
    #[derive(Clone)]
    struct Stream {
        encoding: u8,
        sequence: u16,
        timestamp: u32,
        frame: u8,
    }

    impl Stream {
        fn frame(&mut self, keyframe: bool, ms: u64) -> Vec<SourcePacket> {
            self.frame = self.frame.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(3_000);
            let packets = (0..3_u8).map(|part| {
                self.sequence = self.sequence.wrapping_add(1);
                SourcePacket {
                    sequence: self.sequence,
                    timestamp: self.timestamp,
                    marker: part == 2,
                    arrival: at(ms),
                    captured: None,
                    audio_level: None,
                    rotation: None,
                    colours: None,
                    payload: Bytes::from(vec![self.encoding, self.frame, part, u8::from(keyframe)]),
                }
            });
            packets.collect()
        }
    }

    fn streams() -> [Stream; 2] {
        [(0, 65_500, u32::MAX - 5_000), (1, 30, 77)].map(|(encoding, sequence, timestamp)| Stream {
            encoding,
            sequence,
            timestamp,
            frame: 0,
        })
    }

    struct Receiver {
        splicer: Splicer,
        out: Vec<SourcePacket>,
        switches: usize,
    }

    impl Receiver {
        fn new() -> Self {
            Self { splicer: Splicer::new(2), out: Vec::new(), switches: 0 }
        }

        fn take(&mut self, packet: &SourcePacket, target: Option<usize>, ms: u64) {
            let (encoding, keyframe) = (usize::from(packet.payload[0]), packet.payload[2..] == [0, 1]);
            let mut out = Vec::new();
            let packet = packet.clone();
            let switched = self.splicer.take(encoding, Codec::Vp8, packet, keyframe, target, at(ms), &mut out);
            self.switches += usize::from(switched);
            self.out.extend(out.into_iter().map(|(_, packet)| packet));
        }

        fn all(&mut self, packets: &[SourcePacket], target: Option<usize>, ms: u64) {
            packets.iter().for_each(|packet| self.take(packet, target, ms));
        }

        /// Encoding and frame of each packet in the order of sequence numbers, which must be without gap.
        fn contiguous(&self) -> Vec<(u8, u8)> {
            let first = self.out.iter().map(|packet| packet.sequence).next().expect("packets");
            let mut packets: Vec<_> = self.out.iter().map(|p| (p.sequence.wrapping_sub(first), p)).collect();
            packets.sort_by_key(|(number, _)| *number);
            assert!(packets.iter().zip(0..).all(|((number, _), n)| *number == n), "gaps or duplicates");
            packets.iter().map(|(_, packet)| (packet.payload[0], packet.payload[1])).collect()
        }
    }

    #[test]
    fn an_encoding_follows_when_its_keyframe_is_complete_and_the_frame_before_has_ended() {
        let [mut small, mut large] = streams();
        let mut receiver = Receiver::new();
        receiver.all(&small.frame(true, 0), None, 0);
        receiver.all(&large.frame(true, 0), None, 0);
        receiver.all(&small.frame(false, 33), Some(1), 33);
        receiver.all(&large.frame(false, 33), Some(1), 33);
        let (before, keyframe) = (small.frame(false, 66), large.frame(true, 66));
        receiver.all(&before[..2], Some(1), 66);
        receiver.all(&keyframe, Some(1), 67);
        assert_eq!(receiver.switches, 1, "the first encoding; the frame before has not ended");
        receiver.take(&before[2], Some(1), 68);
        receiver.take(&large.frame(false, 99)[0], Some(1), 99);
        receiver.all(&small.frame(false, 99), None, 99);
        let three = |encoding, frame| [(encoding, frame); 3];
        let expected = [three(0, 1), three(0, 2), three(0, 3), three(1, 3)].concat();
        assert_eq!(receiver.contiguous(), [&expected[..], &[(1, 4)]].concat());
        let times: Vec<u32> = receiver.out.iter().map(|packet| packet.timestamp).collect();
        let steps: Vec<u32> = times.windows(2).map(|two| two[1].wrapping_sub(two[0])).collect();
        assert!(steps.iter().all(|step| *step < 6_000), "{steps:?}");
        assert!(steps[8] > 0, "another frame: {steps:?}");
    }

    #[test]
    fn an_unfinished_frame_does_not_delay_a_switch_for_long() {
        let [mut small, mut large] = streams();
        let mut receiver = Receiver::new();
        receiver.all(&small.frame(true, 0), None, 0);
        receiver.all(&small.frame(false, 33)[..1], Some(1), 33);
        receiver.all(&large.frame(true, 40), Some(1), 40);
        receiver.all(&large.frame(false, 73), Some(1), 73);
        assert_eq!(receiver.switches, 1);
        receiver.all(&large.frame(false, 106), Some(1), 106);
        assert_eq!(receiver.switches, 2);
    }

    #[test]
    fn packets_of_a_keyframe_may_be_reordered_and_repaired() {
        let [mut small, mut large] = streams();
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
            let mut receiver = Receiver::new();
            receiver.all(&small.frame(true, 0), None, 0);
            let (keyframe, next) = (large.frame(true, 33), large.frame(false, 66));
            receiver.take(&keyframe[order[0]], Some(1), 33);
            receiver.take(&keyframe[order[1]], Some(1), 33);
            assert_eq!(receiver.switches, 1, "{order:?}");
            receiver.take(&keyframe[order[2]], Some(1), 70);
            assert_eq!(receiver.switches, 2, "{order:?}");
            receiver.all(&next, Some(1), 72);
            assert_eq!(receiver.contiguous().len(), 9);
        }
    }

    #[test]
    fn a_packet_of_before_the_switch_is_passed_on_if_it_comes_soon() {
        let [mut small, mut large] = streams();
        let mut receiver = Receiver::new();
        receiver.all(&small.frame(true, 0), None, 0);
        let before = small.frame(false, 33);
        receiver.all(&[before[0].clone(), before[2].clone()], Some(1), 33);
        receiver.all(&large.frame(true, 40), Some(1), 40);
        assert_eq!(receiver.splicer.previous(), Some(0));
        receiver.take(&before[1], None, 100);
        receiver.take(&small.frame(false, 100)[0], None, 100);
        assert_eq!(receiver.contiguous().len(), 9, "the repaired packet, and nothing else of it");
        receiver.all(&large.frame(false, 500), None, 500);
        assert_eq!(receiver.splicer.previous(), None);
    }

    #[test]
    fn a_stream_that_begins_anew_is_passed_on_from_its_keyframe_on() {
        let [mut small, _] = streams();
        let mut receiver = Receiver::new();
        receiver.all(&small.frame(true, 0), None, 0);
        receiver.splicer.restarted(0);
        (small.sequence, small.timestamp) = (20_000, 5);
        receiver.all(&small.frame(false, 33), None, 33);
        receiver.all(&small.frame(true, 66), None, 66);
        assert_eq!(receiver.contiguous(), [[(0, 1); 3], [(0, 3); 3]].concat());
    }

    #[test]
    fn the_packets_that_wait_are_bounded() {
        let [mut small, mut large] = streams();
        let mut receiver = Receiver::new();
        receiver.all(&small.frame(true, 0), None, 0);
        receiver.all(&large.frame(true, 0)[..2], Some(1), 0);
        for n in 0..2_000 {
            receiver.all(&large.frame(false, n), Some(1), n);
            assert!(receiver.splicer.waiting[1].packets.len() <= WAITING_MAX);
        }
        assert_eq!(receiver.out.len(), 3);
    }

    proptest! {
        /// Random targets, losses and reordering: the one stream changes its encoding only at whole keyframes, has no
        /// number twice, and its frames keep their packets together.
        #[test]
        fn the_one_stream_changes_at_whole_keyframes(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(0_u8..20, 6)), 1..120),
        ) {
            let [mut small, mut large] = streams();
            let mut receiver = Receiver::new();
            for (n, (keyframe, to_large, dice)) in steps.into_iter().enumerate() {
                let ms = n as u64 * 33;
                let mut packets = [small.frame(keyframe, ms), large.frame(keyframe, ms)].concat();
                let mut lost = dice.iter();
                packets.retain(|_| lost.next() != Some(&0));
                if dice[0] == 1 && packets.len() > 1 {
                    packets.swap(0, 1);
                }
                receiver.all(&packets, Some(usize::from(to_large)), ms);
            }
            let mut by_number = BTreeMap::new();
            let Some(first) = receiver.out.first().map(|packet| packet.sequence) else { return Ok(()) };
            for packet in &receiver.out {
                let number = packet.sequence.wrapping_sub(first);
                prop_assert!(by_number.insert(number, packet).is_none(), "{} twice", number);
            }
            let packets: Vec<_> = by_number.values().collect();
            for two in packets.windows(2) {
                let same_frame = two[0].payload[..2] == two[1].payload[..2];
                prop_assert_eq!(same_frame, two[0].timestamp == two[1].timestamp);
                if two[0].payload[0] != two[1].payload[0] {
                    prop_assert_eq!(&two[1].payload[2..], &[0, 1], "another encoding begins with its keyframe");
                }
            }
        }
    }
}
