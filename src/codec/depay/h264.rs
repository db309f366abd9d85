//! H.264 payloads (RFC 6184, modes 0 and 1) become access units that a decoder can begin with.
//!
//! Owns: which NAL units reach the decoder, the newest parameter sets, and units that were sent ahead of their picture.
//! Does not know: order and loss of packets, sizes. In: the payloads of one RTP timestamp. Out: access units in Annex B
//! with one picture each.
//!
//! Senders put parameter sets and SEI into packets with a timestamp of their own, or with that of the picture before
//! and after its slices, where they begin the next access unit (ITU-T H.264 section 7.4.1.2.3). Some send parameter
//! sets only once. So units without a picture wait for the next picture, and the newest parameter sets are added to
//! each picture at which decoding may begin and that comes without them.
//!
//! A unit that violates its format is skipped and counted; the others of its frame are used.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::h264::{self, IDR, Intra, PPS, RECOVERY_POINT, SEI, SLICE, SPS};
use crate::media::SourcePacket;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Aggregation packet (RFC 6184 section 5.7.1).
const STAP_A: u8 = 24;
/// Fragmentation unit (RFC 6184 section 5.8).
const FU_A: u8 = 28;
/// The longest parameter set that is kept, in bytes. Those of real encoders have less than 100.
const SET_MAX: usize = 512;
/// Most units that wait for the next picture, and their bytes.
const EARLY_MAX: usize = 16;
/// See [`EARLY_MAX`].
const EARLY_BYTES: usize = 16 * 1024;

/// The access units of one stream.
#[derive(Debug, Default)]
pub(super) struct AccessUnits {
    sps: BTreeMap<u8, Bytes>,
    pps: BTreeMap<u8, Bytes>,
    /// Parameter sets and SEI for the next picture.
    early: Vec<Bytes>,
    /// The sequence number after the last packet: early units do not wait across a loss.
    next: Option<u16>,
    /// Units skipped because they are malformed or of a reserved type.
    pub(super) skipped: u64,
}

/// Whether a frame may begin decoding, and whether it begins a stream, as far as this payload says.
pub(super) fn starts_keyframe(payload: &Bytes) -> bool {
    begins(payload, |unit| matches!(h264::kind(unit), Some(SPS | IDR)) || is_recovery(unit))
}

/// Whether the picture of this payload may begin decoding: an IDR picture or a recovery point.
pub(super) fn starts_picture(payload: &Bytes) -> bool {
    begins(payload, |unit| h264::kind(unit) == Some(IDR) || is_recovery(unit))
}

fn is_recovery(unit: &[u8]) -> bool {
    match h264::kind(unit) {
        Some(SEI) => h264::recovery_point(unit).is_some(),
        Some(SLICE) => h264::intra(&unit[1..]) == Intra::Picture,
        _ => false,
    }
}

/// Whether a unit that begins in this payload has this property.
fn begins(payload: &Bytes, is: impl Fn(&[u8]) -> bool) -> bool {
    match h264::kind(payload) {
        Some(STAP_A) => stap_a(payload).any(|unit| unit.is_some_and(|unit| is(&unit))),
        Some(FU_A) => match payload.get(1) {
            // The fragment with the header of its unit.
            Some(fragment) if fragment & 0x80 != 0 => {
                let mut head = [0; 8];
                head[0] = fragment & 0x1f;
                let rest = &payload[2..payload.len().min(2 + 7)];
                head[1..=rest.len()].copy_from_slice(rest);
                is(&head[..=rest.len()])
            }
            _ => false,
        },
        Some(_) => is(payload),
        None => false,
    }
}

/// The units of an aggregation packet, None for an empty one. A malformed rest is one more None.
fn stap_a(payload: &Bytes) -> impl Iterator<Item = Option<Bytes>> {
    let mut rest = payload.slice(1..);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
        let Some(end) = length.map(|length| 2 + length).filter(|end| *end <= rest.len()) else {
            rest = Bytes::new();
            return Some(None);
        };
        let unit = rest.slice(2..end);
        rest = rest.slice(end..);
        Some(Some(unit).filter(|unit| !unit.is_empty()))
    })
}

impl AccessUnits {
    /// Keeps the parameter sets of a packet that is not decoded.
    pub(super) fn observe(&mut self, payload: &Bytes) {
        match h264::kind(payload) {
            Some(STAP_A) => stap_a(payload).flatten().for_each(|unit| self.keep(&unit)),
            Some(SPS | PPS) => self.keep(payload),
            _ => {}
        }
    }

    /// The access unit of these packets; None if they contain no picture.
    pub(super) fn join(&mut self, packets: &[SourcePacket]) -> Option<Bytes> {
        let (first, last) = (packets.first()?, packets.last()?);
        if self.next != Some(first.sequence) {
            self.early.clear();
        }
        self.next = Some(last.sequence.wrapping_add(1));

        let mut units = Units::default();
        packets.iter().for_each(|packet| units.payload(&packet.payload));
        units.end_fragments();
        self.skipped += units.skipped;

        let Some(last_slice) = units.ranges.iter().rposition(|unit| is_slice(&units.bytes[unit.clone()])) else {
            self.wait(&units, 0);
            return None;
        };
        let early = std::mem::take(&mut self.early);
        self.wait(&units, last_slice + 1);
        let present = || {
            let own = units.ranges[..=last_slice].iter().map(|unit| &units.bytes[unit.clone()]);
            early.iter().map(|unit| &unit[..]).chain(own)
        };
        present().for_each(|unit| self.keep(unit));
        let completion = self.completion(present());
        if early.is_empty() && completion.is_none() && last_slice + 1 == units.ranges.len() {
            return Some(units.bytes.freeze());
        }
        let Completion { sets, mark } = completion.unwrap_or_default();
        let mut whole = BytesMut::with_capacity(units.bytes.len() + 256);
        let mut put = |unit: &[u8]| {
            whole.put_slice(&START_CODE);
            whole.put_slice(unit);
        };
        sets.iter().for_each(|set| put(set));
        let mut mark = mark.then_some(&RECOVERY_POINT);
        for unit in present().filter(|unit| sets.is_empty() || !is_set(unit)) {
            // The SEI of a picture stands before its first slice.
            if is_slice(unit)
                && let Some(mark) = mark.take()
            {
                put(mark);
            }
            put(unit);
        }
        Some(whole.freeze())
    }

    /// What is added to a picture; None if it can be decoded as it is, or if decoding cannot begin with it.
    fn completion<'a>(&self, units: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Completion> {
        let has = |wanted| units.clone().any(|unit| h264::kind(unit) == Some(wanted));
        let is_marked =
            || units.clone().any(|unit| h264::kind(unit) == Some(SEI) && h264::recovery_point(unit).is_some());
        let mut slices = units.clone().filter(|unit| is_slice(unit));
        let mark = !has(IDR) && !is_marked();
        if mark && slices.any(|slice| h264::intra(&slice[1..]) == Intra::No) {
            return None;
        }
        // The sets of this picture were kept before, so that each identifier occurs once, and each SPS before its PPS.
        let is_whole = has(SPS) && has(PPS);
        let sets = if is_whole { Vec::new() } else { self.sps.values().chain(self.pps.values()).cloned().collect() };
        (mark || !is_whole).then_some(Completion { sets, mark })
    }

    /// Keeps a parameter set, in place of the one with its identifier.
    fn keep(&mut self, unit: &[u8]) {
        let (sets, id) = match h264::kind(unit) {
            Some(SPS) => (&mut self.sps, h264::sps_id(unit)),
            Some(PPS) => (&mut self.pps, h264::pps_id(unit)),
            _ => return,
        };
        let Some(id) = id.filter(|_| unit.len() <= SET_MAX) else { return };
        if sets.get(&id).is_none_or(|known| known != unit) {
            sets.insert(id, Bytes::copy_from_slice(unit));
        }
    }

    /// The units from this one on wait for the next picture.
    fn wait(&mut self, units: &Units, from: usize) {
        for unit in &units.ranges[from..] {
            let unit = &units.bytes[unit.clone()];
            self.keep(unit);
            let waiting: usize = self.early.iter().map(Bytes::len).sum();
            if self.early.len() < EARLY_MAX && waiting + unit.len() <= EARLY_BYTES {
                self.early.push(Bytes::copy_from_slice(unit));
            }
        }
    }
}

/// What a picture at which decoding may begin was sent without.
#[derive(Debug, Default)]
struct Completion {
    /// In place of its own parameter sets, if there are any.
    sets: Vec<Bytes>,
    /// The mark of a recovery point: its slices are intra coded.
    mark: bool,
}

fn is_set(unit: &[u8]) -> bool {
    matches!(h264::kind(unit), Some(SPS | PPS))
}

fn is_slice(unit: &[u8]) -> bool {
    matches!(h264::kind(unit), Some(SLICE | IDR))
}

/// The units of one frame, in Annex B.
#[derive(Debug, Default)]
struct Units {
    bytes: BytesMut,
    /// The units in `bytes`, without start codes.
    ranges: Vec<Range<usize>>,
    /// The fragmented unit that has begun.
    open: Option<Open>,
    /// Fragments without a beginning are being skipped.
    orphaned: bool,
    skipped: u64,
}

/// A fragmented unit whose end has not come.
#[derive(Debug)]
struct Open {
    start: usize,
    kind: u8,
    fragments: u32,
}

impl Units {
    fn payload(&mut self, payload: &Bytes) {
        // Padding only.
        let Some(&first) = payload.first() else { return };
        match first & 0x1f {
            FU_A => self.fragment(payload),
            STAP_A => {
                self.end_fragments();
                stap_a(payload).for_each(|unit| match unit {
                    Some(unit) => self.unit(&unit),
                    None => self.skipped += 1,
                });
            }
            SLICE | IDR | SEI | SPS | PPS => {
                self.end_fragments();
                self.unit(payload);
            }
            // Not for the decoder, so not the next unit either: fragments may follow.
            _ => self.unit(payload),
        }
    }

    /// Adds a whole unit, if a decoder needs it.
    fn unit(&mut self, unit: &[u8]) {
        self.bytes.put_slice(&START_CODE);
        let start = self.bytes.len();
        self.bytes.put_slice(unit);
        self.close(start);
    }

    /// The unit from here on is whole; removes it if a decoder does not need it.
    fn close(&mut self, start: usize) {
        let unit = &self.bytes[start..];
        match unit[0] & 0x1f {
            SLICE | IDR | SEI | SPS | PPS => {
                // `forbidden_zero_bit`: the sender knows of errors in the unit. No slice is one byte long.
                if unit[0] & 0x80 == 0 && !(is_slice(unit) && unit.len() < 2) {
                    return self.ranges.push(start..self.bytes.len());
                }
                self.skipped += 1;
            }
            // Valid, but not for a decoder of one layer: data partitions, delimiters, ends of sequence and stream,
            // filler, extensions, auxiliary pictures, further layers and views.
            2..=4 | 9..=15 | 19..=21 => {}
            // Reserved or unspecified, and the other kinds of packets.
            _ => self.skipped += 1,
        }
        self.remove(start);
    }

    fn remove(&mut self, start: usize) {
        self.bytes.truncate(start - START_CODE.len());
    }

    fn fragment(&mut self, payload: &Bytes) {
        let (first, Some(&header)) = (payload[0], payload.get(1)) else {
            self.skipped += 1;
            return;
        };
        let (begins, ends, kind) = (header & 0x80 != 0, header & 0x40 != 0, header & 0x1f);
        if begins || self.open.as_ref().is_some_and(|open| open.kind != kind) {
            self.end_fragments();
        }
        if begins {
            self.bytes.put_slice(&START_CODE);
            self.open = Some(Open { start: self.bytes.len(), kind, fragments: 0 });
            self.bytes.put_u8(first & 0xe0 | kind);
        }
        let Some(open) = &mut self.open else {
            // The rest of a unit whose beginning was not sent counts once.
            self.skipped += u64::from(!std::mem::replace(&mut self.orphaned, !ends));
            return;
        };
        open.fragments += 1;
        let start = open.start;
        self.bytes.put_slice(&payload[2..]);
        if ends {
            self.open = None;
            self.close(start);
        }
    }

    /// Another unit begins, or the frame ends. Packets are contiguous, so a unit of several fragments is whole even if
    /// its last fragment is not marked. The first fragment alone is never a whole unit (RFC 6184 section 5.8).
    fn end_fragments(&mut self) {
        self.orphaned = false;
        let Some(open) = self.open.take() else { return };
        self.skipped += 1;
        if open.fragments > 1 {
            self.close(open.start);
        } else {
            self.remove(open.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    const SPS_UNIT: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0];
    const PPS_UNIT: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
    const IDR_UNIT: &[u8] = &[0x65, 0x88, 0x84, 1, 2, 3];
    /// A P slice: `first_mb_in_slice` 0, `slice_type` 5.
    const P_UNIT: &[u8] = &[0x41, 0x9a, 4, 5, 6];
    /// An I slice of a picture with I slices only: `slice_type` 7.
    const I_UNIT: &[u8] = &[0x41, 0x88, 4, 5, 6];
    const USER_DATA: &[u8] = &[0x06, 5, 2, 0x11, 0x22, 0x80];

    /// A receiver of contiguous packets.
    #[derive(Default)]
    struct Receiver {
        access_units: AccessUnits,
        sequence: u16,
    }

    impl Receiver {
        fn frame(&mut self, payloads: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
            let packets: Vec<SourcePacket> = payloads.iter().map(|payload| self.packet(payload)).collect();
            let whole = self.access_units.join(&packets)?;
            Some(crate::container::avc::nal_units(&whole).map(<[u8]>::to_vec).collect())
        }

        fn packet(&mut self, payload: &[u8]) -> SourcePacket {
            self.sequence = self.sequence.wrapping_add(1);
            SourcePacket {
                sequence: self.sequence,
                timestamp: 0,
                marker: false,
                arrival: Timestamp::default(),
                audio_level: None,
                rotation: None,
                colours: None,
                payload: Bytes::copy_from_slice(payload),
            }
        }
    }

    fn fragments(unit: &[u8], size: usize) -> Vec<Vec<u8>> {
        let count = (unit.len() - 1).div_ceil(size);
        let fragment = |(i, part): (usize, &[u8])| {
            let ends = u8::from(i == 0) << 7 | u8::from(i + 1 == count) << 6;
            [&[unit[0] & 0x60 | FU_A, ends | unit[0] & 0x1f], part].concat()
        };
        unit[1..].chunks(size).enumerate().map(fragment).collect()
    }

    fn slices(payloads: &[Vec<u8>]) -> Vec<&[u8]> {
        payloads.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn parameter_sets_sent_ahead_of_their_picture_are_joined_with_it() {
        let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
        let aggregate = [&[0x78, 0, 7][..], SPS_UNIT, &[0, 4], PPS_UNIT].concat();
        // Frames of one RTP timestamp each: a timestamp of their own for both sets, for each, and that of the picture
        // before.
        let sent: [&[&[&[u8]]]; 5] = [
            &[&[SPS_UNIT, PPS_UNIT], &[IDR_UNIT]],
            &[&[SPS_UNIT], &[PPS_UNIT], &[IDR_UNIT]],
            &[&[&aggregate], &[IDR_UNIT]],
            &[&[P_UNIT, SPS_UNIT, PPS_UNIT], &[IDR_UNIT]],
            &[&[P_UNIT, SPS_UNIT], &[PPS_UNIT, IDR_UNIT]],
        ];
        for frames in sent {
            let mut receiver = Receiver::default();
            let (last, before) = frames.split_last().expect("several frames");
            for frame in before {
                let wanted = frame.contains(&P_UNIT).then(|| vec![P_UNIT.to_vec()]);
                assert_eq!(receiver.frame(frame), wanted, "{frames:x?}");
            }
            assert_eq!(receiver.frame(last).expect("a picture"), whole, "{frames:x?}");
            assert_eq!(receiver.access_units.skipped, 0);
        }
    }

    #[test]
    fn an_idr_picture_without_parameter_sets_gets_the_newest_ones() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.frame(&[IDR_UNIT]).expect("a picture"), [IDR_UNIT], "there are none yet");
        receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]);
        assert_eq!(receiver.frame(&[P_UNIT]).expect("a picture"), [P_UNIT], "only where decoding begins");
        assert_eq!(receiver.frame(&[IDR_UNIT]).expect("a picture"), [SPS_UNIT, PPS_UNIT, IDR_UNIT]);
        // Another PPS with the same identifier, and one with another.
        let (changed, second) = ([0x68, 0xce, 0x01, 0x80], [0x68, 0x4e, 0x3c, 0x80]);
        receiver.frame(&[&changed, &second]);
        receiver.sequence += 10;
        let got = receiver.frame(&[SPS_UNIT, IDR_UNIT]).expect("a picture");
        assert_eq!(got, [SPS_UNIT, &changed, &second, IDR_UNIT], "also after a loss");
        // A packet of a time at which nothing was decoded.
        receiver.access_units.observe(&Bytes::from_static(PPS_UNIT));
        let got = receiver.frame(&[IDR_UNIT]).expect("a picture");
        assert_eq!(got, [SPS_UNIT, PPS_UNIT, &second, IDR_UNIT]);
    }

    #[test]
    fn sei_in_packets_of_its_own_belongs_to_the_next_picture() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.frame(&[USER_DATA]), None);
        let whole = [USER_DATA, SPS_UNIT, PPS_UNIT, IDR_UNIT];
        assert_eq!(receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]).expect("a picture"), whole);
        receiver.frame(&[USER_DATA]);
        receiver.sequence += 1;
        assert_eq!(receiver.frame(&[P_UNIT]).expect("a picture"), [P_UNIT], "its picture was lost");
    }

    #[test]
    fn units_that_wait_for_a_picture_are_bounded() {
        let mut receiver = Receiver::default();
        for _ in 0..1_000 {
            assert_eq!(receiver.frame(&[&[&[0x06, 5, 255][..], &[1; 1_200]].concat()]), None);
        }
        let early = &receiver.access_units.early;
        assert!(early.len() <= EARLY_MAX && early.iter().map(Bytes::len).sum::<usize>() <= EARLY_BYTES);
    }

    #[test]
    fn reserved_and_malformed_units_are_skipped_and_counted() {
        let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
        // Reserved types, single-time aggregation and fragmentation of other modes, bit errors that the sender knows
        // of, a slice without contents, an aggregate that is cut, an empty unit in an aggregate, a fragment without its
        // header.
        let bad: [&[u8]; 16] = [
            &[0x00, 1],
            &[0x10, 1],
            &[0x12, 1],
            &[0x16, 1],
            &[0x17, 1],
            &[0x19, 0, 0, 0, 1, 9],
            &[0x1a, 1, 2, 3],
            &[0x1b, 1, 2, 3],
            &[0x1d, 0x85, 0, 0, 1],
            &[0x1e, 0, 0],
            &[0x1f, 1],
            &[0xe5, 0x88, 1],
            &[0x65],
            &[0x78, 0, 9, 1],
            &[0x78, 0, 0],
            &[0x7c],
        ];
        for bad in bad {
            for at in 0..=3 {
                let mut payloads = whole.to_vec();
                payloads.insert(at, bad);
                let mut receiver = Receiver::default();
                assert_eq!(receiver.frame(&payloads).expect("a picture"), whole, "{bad:x?} at {at}");
                assert_eq!(receiver.access_units.skipped, 1, "{bad:x?}");
            }
        }
    }

    #[test]
    fn fragments_continue_after_a_unit_that_is_skipped() {
        let unit = [&[0x41, 0x9a][..], &[7; 20]].concat();
        let whole = fragments(&unit, 8);
        let mut receiver = Receiver::default();
        for other in [&[0x1e, 0, 0][..], &[0x0c, 0xff], &[0x1d, 0x85, 0, 0, 1], &[]] {
            let payloads = [&whole[0], other, &whole[1], other, &whole[2]];
            assert_eq!(receiver.frame(&payloads).expect("a picture"), [&unit[..]], "{other:x?}");
        }
        assert_eq!(receiver.access_units.skipped, 4);
    }

    #[test]
    fn valid_units_that_a_decoder_does_not_need_are_left_out_and_not_counted() {
        let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
        // Delimiter, filler, end of sequence, prefix, subset SPS, further layer, padding.
        let unused: [&[u8]; 7] =
            [&[0x09, 0xf0], &[0x0c, 0xff, 0xff, 0x80], &[0x0a], &[0x6e, 1, 2], &[0x6f, 1, 2], &[0x74, 1, 2], &[]];
        for unused in unused {
            let mut receiver = Receiver::default();
            let got = receiver.frame(&[unused, SPS_UNIT, unused, PPS_UNIT, IDR_UNIT, unused]);
            assert_eq!(got.expect("a picture"), whole, "{unused:x?}");
            assert_eq!(receiver.access_units.skipped, 0);
            assert_eq!(receiver.frame(&[unused]), None, "{unused:x?} alone");
        }
    }

    #[test]
    fn a_fragmented_unit_without_an_end_bit_is_whole_at_the_next_unit_or_frame() {
        let unit = [&[0x65, 0x88][..], &[7; 20]].concat();
        let mut unmarked = fragments(&unit, 8);
        unmarked[2][1] &= !0x40;
        let mut receiver = Receiver::default();
        receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]);
        let payloads = slices(&unmarked);
        assert_eq!(receiver.frame(&payloads).expect("a picture"), [SPS_UNIT, PPS_UNIT, &unit]);
        assert_eq!(receiver.frame(&[&payloads[..], &[P_UNIT]].concat()).expect("a picture")[2..], [&unit[..], P_UNIT]);
        let twice = receiver.frame(&[&payloads[..], &payloads].concat()).expect("a picture");
        assert_eq!(twice[2..], [&unit[..], &unit], "the next fragmented unit");
        assert_eq!(receiver.access_units.skipped, 4, "each is counted");
    }

    #[test]
    fn fragments_without_a_beginning_are_skipped_and_a_beginning_alone_too() {
        let unit = [&[0x41, 0x9a][..], &[7; 20]].concat();
        let whole = fragments(&unit, 8);
        let payloads = slices(&whole);
        let mut receiver = Receiver::default();
        assert_eq!(receiver.frame(&[&payloads[1..], &[P_UNIT]].concat()).expect("a picture"), [P_UNIT]);
        assert_eq!(receiver.access_units.skipped, 1, "one unit");
        assert_eq!(receiver.frame(&[payloads[0], P_UNIT]).expect("a picture"), [P_UNIT]);
        assert_eq!(receiver.access_units.skipped, 2);
        // Fragments of a unit of another type.
        let other = fragments(&[&[0x65, 0x88][..], &[7; 20]].concat(), 8);
        let mixed = [payloads[0], &other[1], &other[2], P_UNIT];
        assert_eq!(receiver.frame(&mixed).expect("a picture"), [P_UNIT]);
        assert_eq!(receiver.frame(&payloads[1..]), None, "no picture is left");
    }

    #[test]
    fn pictures_of_i_slices_are_marked_as_recovery_points() {
        let mut receiver = Receiver::default();
        receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]);
        let got = receiver.frame(&[USER_DATA, I_UNIT, I_UNIT]).expect("a picture");
        assert_eq!(got, [SPS_UNIT, PPS_UNIT, USER_DATA, &RECOVERY_POINT, I_UNIT, I_UNIT]);
        assert_eq!(receiver.frame(&[I_UNIT, P_UNIT]).expect("a picture"), [I_UNIT, P_UNIT], "one slice is not enough");
        let got = receiver.frame(&[&RECOVERY_POINT, P_UNIT]).expect("a picture");
        assert_eq!(got, [SPS_UNIT, PPS_UNIT, &RECOVERY_POINT, P_UNIT], "a gradual refresh begins");
    }

    #[test]
    fn the_beginning_of_a_keyframe_is_seen_in_every_packetization() {
        let starts = |payload: &[u8]| starts_keyframe(&Bytes::copy_from_slice(payload));
        let begins = |payload: &[u8]| starts_picture(&Bytes::copy_from_slice(payload));
        let aggregate = |unit: &[u8]| [&[0x78, 0, unit.len() as u8][..], unit].concat();
        for unit in [IDR_UNIT, I_UNIT, &RECOVERY_POINT] {
            for payload in [unit.to_vec(), aggregate(unit), fragments(unit, 3)[0].clone()] {
                assert!(starts(&payload) && begins(&payload), "{payload:x?}");
            }
            assert!(!starts(&fragments(unit, 2)[1]), "not the first fragment");
        }
        for payload in [SPS_UNIT.to_vec(), aggregate(SPS_UNIT), fragments(SPS_UNIT, 3)[0].clone()] {
            assert!(starts(&payload) && !begins(&payload), "{payload:x?}");
        }
        for unit in [P_UNIT, USER_DATA, PPS_UNIT, &[0x7c], &[]] {
            assert!(!starts(unit) && !begins(unit), "{unit:x?}");
        }
    }

    proptest! {
        /// The units of a stream arrive whatever their packets and timestamps are, as long as the order is kept.
        #[test]
        fn any_distribution_to_packets_and_frames_has_the_same_units(
            sizes in proptest::collection::vec(1_usize..9, 6),
            cuts in proptest::collection::vec(any::<bool>(), 5),
        ) {
            let units = [SPS_UNIT, PPS_UNIT, USER_DATA, IDR_UNIT, USER_DATA, P_UNIT];
            let (mut receiver, mut got, mut frame) = (Receiver::default(), Vec::new(), Vec::new());
            for (i, (unit, size)) in units.iter().zip(sizes).enumerate() {
                let parts = if unit.len() - 1 > size { fragments(unit, size) } else { vec![unit.to_vec()] };
                frame.extend(parts);
                // A picture ends its access unit, any other unit may end the timestamp.
                if i == 3 || i == 5 || cuts[i] {
                    got.extend(receiver.frame(&slices(&frame)).into_iter().flatten());
                    frame.clear();
                }
            }
            prop_assert_eq!(got, units);
            prop_assert_eq!(receiver.access_units.skipped, 0);
        }

        #[test]
        fn memory_stays_bounded_for_any_payloads(
            frames in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..5), 0..40,
            ),
        ) {
            let mut receiver = Receiver::default();
            for frame in frames {
                receiver.frame(&slices(&frame));
                let units = &receiver.access_units;
                prop_assert!(units.early.len() <= EARLY_MAX && units.sps.len() <= 32 && units.pps.len() <= 256);
            }
        }
    }
}
