//! H.264 depayloader (RFC 6184, packetization modes 0 and 1): RTP payloads become access units for the decoder.
//!
//! Owns: which NAL units reach the decoder, the newest parameter sets, and units that were sent ahead of their picture.
//! Does not know: order and loss of packets, sizes. In: the payloads of one RTP timestamp. Out: access units in Annex B
//! with one picture each.
//!
//! Senders put parameter sets and SEI into packets with a timestamp of their own, or with that of the picture before
//! and after its slices, where they begin the next access unit (ITU-T H.264 section 7.4.1.2.3). Some send parameter
//! sets only once. So units without a picture wait for the next picture, and the newest parameter sets are added to
//! each picture at which decoding may begin, if it was sent without them.
//!
//! "Unit" means NAL unit. A malformed unit is skipped and counted; the other units of its frame are used.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::h264::{self, IDR, Intra, PPS, RECOVERY_POINT, SEI, SLICE, SPS};
use crate::container::avc::has_start_code;
use crate::media::SourcePacket;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Packet type of an aggregation packet (RFC 6184 section 5.7.1).
const STAP_A: u8 = 24;
/// Packet type of a fragmentation unit (RFC 6184 section 5.8).
const FU_A: u8 = 28;
/// The longest parameter set that is kept, in bytes. Those of real encoders have fewer than 100.
const SET_MAX: usize = 512;
/// Most units that wait for the next picture.
const EARLY_MAX: usize = 16;
/// Most bytes of these units together.
const EARLY_BYTES: usize = 16 * 1024;

/// Builds the access units of one stream.
#[derive(Debug, Default)]
pub(super) struct AccessUnits {
    /// The newest SPS of each identifier.
    sps: BTreeMap<u8, Bytes>,
    /// The newest PPS of each identifier.
    pps: BTreeMap<u8, Bytes>,
    /// Parameter sets and SEI for the next picture.
    early: Vec<Bytes>,
    /// The sequence number after that of the last packet. If another one follows, packets were lost, and the early
    /// units are dropped.
    next: Option<u16>,
    /// Units skipped because they are malformed or of a reserved type.
    pub(super) skipped: u64,
}

/// Whether decoding may begin at the frame of this payload, as far as the units that begin in it say: an SPS, an IDR
/// slice or a recovery point. After an SPS the picture may follow in another frame.
pub(super) fn starts_keyframe(payload: &Bytes) -> bool {
    begins(payload, |unit| matches!(h264::kind(unit), Some(SPS | IDR)) || is_recovery(unit))
}

/// As [`starts_keyframe`], but without SPS: whether the picture itself or its recovery point begins in this payload.
pub(super) fn starts_picture(payload: &Bytes) -> bool {
    begins(payload, |unit| h264::kind(unit) == Some(IDR) || is_recovery(unit))
}

/// Whether a unit is an SEI message of a recovery point, or a slice of a picture that has only I slices.
fn is_recovery(unit: &[u8]) -> bool {
    match h264::kind(unit) {
        Some(SEI) => h264::recovery_point(unit).is_some(),
        Some(SLICE) => h264::intra(&unit[1..]) == Intra::Picture,
        _ => false,
    }
}

/// Whether a unit that begins in this payload has the property `is`.
fn begins(payload: &Bytes, is: impl Fn(&[u8]) -> bool) -> bool {
    match h264::kind(payload) {
        Some(STAP_A) => stap_a(payload).any(|unit| unit.is_some_and(|unit| is(&unit))),
        Some(FU_A) => match payload.get(1) {
            // The S bit: the first fragment. Its unit is restored as far as `is` reads: the type, and seven bytes.
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

/// The units of an aggregation packet. An empty unit is None; so is a malformed rest of the packet.
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
    /// Keeps the parameter sets in a packet whose frame is not decoded.
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
        // The units of the picture: the early ones, and its own to the last slice.
        let present = || {
            let own = units.ranges[..=last_slice].iter().map(|unit| &units.bytes[unit.clone()]);
            early.iter().map(|unit| &unit[..]).chain(own)
        };
        present().for_each(|unit| self.keep(unit));
        let completion = self.completion(present());
        if early.is_empty() && completion.is_none() && last_slice + 1 == units.ranges.len() {
            return Some(units.bytes.freeze());
        }
        let Completion { sets, recovery_point } = completion.unwrap_or_default();
        let mut whole = BytesMut::with_capacity(units.bytes.len() + 256);
        let mut put = |unit: &[u8]| {
            whole.put_slice(&START_CODE);
            whole.put_slice(unit);
        };
        sets.iter().for_each(|set| put(set));
        let mut sei = recovery_point.then_some(&RECOVERY_POINT);
        for unit in present().filter(|unit| sets.is_empty() || !is_set(unit)) {
            // The SEI of a picture stands before its first slice.
            if is_slice(unit)
                && let Some(sei) = sei.take()
            {
                put(sei);
            }
            put(unit);
        }
        Some(whole.freeze())
    }

    /// The units that must be added to a picture, so that decoding can begin with it. None if none are missing, or if
    /// decoding cannot begin with this picture.
    fn completion<'a>(&self, units: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Completion> {
        let has = |wanted| units.clone().any(|unit| h264::kind(unit) == Some(wanted));
        let has_recovery_point =
            || units.clone().any(|unit| h264::kind(unit) == Some(SEI) && h264::recovery_point(unit).is_some());
        let mut slices = units.clone().filter(|unit| is_slice(unit));
        let recovery_point = !has(IDR) && !has_recovery_point();
        if recovery_point && slices.any(|slice| h264::intra(&slice[1..]) == Intra::No) {
            return None;
        }
        // The kept sets include those of this picture. So each identifier occurs once, and each SPS before its PPS.
        let is_whole = has(SPS) && has(PPS);
        let sets = if is_whole { Vec::new() } else { self.sps.values().chain(self.pps.values()).cloned().collect() };
        (recovery_point || !is_whole).then_some(Completion { sets, recovery_point })
    }

    /// Keeps a parameter set; it replaces an earlier one with the same identifier.
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

    /// Lets the units of a frame from index `from` on wait for the next picture.
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

/// The units that are missing in a picture at which decoding may begin.
#[derive(Debug, Default)]
struct Completion {
    /// All parameter sets, in place of the picture's own; empty if it has an SPS and a PPS.
    sets: Vec<Bytes>,
    /// The SEI message of a recovery point: all slices are intra coded, but neither IDR nor marked by such a message.
    recovery_point: bool,
}

fn is_set(unit: &[u8]) -> bool {
    matches!(h264::kind(unit), Some(SPS | PPS))
}

fn is_slice(unit: &[u8]) -> bool {
    matches!(h264::kind(unit), Some(SLICE | IDR))
}

/// The units of one frame, in the byte stream format (Annex B).
#[derive(Debug, Default)]
struct Units {
    bytes: BytesMut,
    /// The units in `bytes`, without start codes.
    ranges: Vec<Range<usize>>,
    /// The fragmented unit that has begun and not ended.
    open: Option<Open>,
    /// Fragments are being skipped, because their unit has no first fragment.
    orphaned: bool,
    /// Units that are malformed or of a reserved type.
    skipped: u64,
}

/// A fragmented unit of which the last fragment was not received yet.
#[derive(Debug)]
struct Open {
    /// Index of its first byte in [`Units::bytes`].
    start: usize,
    /// Type of the unit.
    kind: u8,
    /// Fragments so far.
    fragments: u32,
}

impl Units {
    /// Adds the units in a payload.
    fn payload(&mut self, payload: &Bytes) {
        // A packet with padding only.
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
            // A decoder does not need this unit, and `close` removes it. So it does not end an open fragmented unit.
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

    /// Ends the unit that begins at `start`; removes it if it is malformed or if a decoder does not need it.
    fn close(&mut self, start: usize) {
        let unit = &self.bytes[start..];
        match unit[0] & 0x1f {
            SLICE | IDR | SEI | SPS | PPS => {
                // `forbidden_zero_bit`: the sender knows of errors in the unit. No slice is one byte long. A unit that
                // contains a start code would be several units for the decoder.
                if unit[0] & 0x80 == 0 && !(is_slice(unit) && unit.len() < 2) && !has_start_code(unit) {
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

    /// Removes the unit that begins at `start`, and its start code.
    fn remove(&mut self, start: usize) {
        self.bytes.truncate(start - START_CODE.len());
    }

    /// Adds a fragment; `header` is its FU header: the bits S and E, and the type of the unit.
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

    /// Ends the open fragmented unit, because another unit begins or the frame ends. No packet is missing, so a unit of
    /// several fragments is complete even without the E bit. One fragment is never a complete unit (RFC 6184 section
    /// 5.8). Both are counted in `skipped`, because they violate the format.
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
mod tests;
