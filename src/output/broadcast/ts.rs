//! MPEG-TS (ISO/IEC 13818-1) of one H.264 and one AAC stream.
//!
//! Owns: PSI tables, PES and TS packets, continuity counters. Does not know: transport. Pure. In: frames with
//! timestamps. Out: complete TS packets of 188 bytes.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::aac::AUDIO_SPECIFIC_CONFIG;
use crate::container::avc::nal_units;

const PACKET: usize = 188;
const PAT: u16 = 0;
const PMT: u16 = 0x1000;
const VIDEO: u16 = 0x100;
const AUDIO: u16 = 0x101;
/// Frames between PAT and PMT, which also precede each keyframe.
const TABLE_INTERVAL: u32 = 15;
/// Presentation time minus clock reference: tolerates audio and video that are not interleaved exactly.
const PTS_LEAD: Duration = Duration::from_millis(150);
/// Clock rate of PTS in Hz (section 2.4.3.7).
const CLOCK: u64 = 90_000;
/// An access unit delimiter that permits all slice types: TS requires one before each access unit (section 2.14.1).
const ACCESS_UNIT_DELIMITER: [u8; 6] = [0, 0, 0, 1, 9, 0xf0];

/// Muxes frames into TS packets.
#[derive(Debug, Default)]
pub(super) struct Muxer {
    /// Continuity counters of PAT, PMT, video and audio.
    counts: [u8; 4],
    frames: u32,
}

impl Muxer {
    /// The packets of an access unit in Annex B.
    pub(super) fn video(&mut self, access_unit: &[u8], keyframe: bool, due: Duration) -> Bytes {
        let mut out = BytesMut::new();
        if keyframe || self.frames >= TABLE_INTERVAL {
            self.frames = 0;
            self.tables(&mut out);
        }
        self.frames += 1;
        let delimited = nal_units(access_unit).next().is_some_and(|unit| unit[0] & 0x1f == 9);
        let mut pes = BytesMut::with_capacity(access_unit.len() + 32);
        // Length 0 (unbounded): a frame may exceed 16 bits.
        pes_header(&mut pes, 0xe0, 0, due);
        if !delimited {
            pes.put_slice(&ACCESS_UNIT_DELIMITER);
        }
        pes.put_slice(access_unit);
        self.packets(&mut out, VIDEO, &pes, Some((due, keyframe)));
        out.freeze()
    }

    /// The packets of a raw AAC frame.
    pub(super) fn audio(&mut self, frame: &[u8], due: Duration) -> Bytes {
        let mut out = BytesMut::new();
        let header = adts(frame.len());
        let mut pes = BytesMut::with_capacity(frame.len() + 32);
        pes_header(&mut pes, 0xc0, header.len() + frame.len(), due);
        pes.put_slice(&header);
        pes.put_slice(frame);
        self.packets(&mut out, AUDIO, &pes, None);
        out.freeze()
    }

    /// Writes PAT and PMT (sections 2.4.4.3 and 2.4.4.8).
    fn tables(&mut self, out: &mut BytesMut) {
        let programs = [&1u16.to_be_bytes()[..], &(0xe000 | PMT).to_be_bytes()].concat();
        self.table(out, PAT, 0, &programs);
        let mut streams = Vec::new();
        streams.put_u16(0xe000 | VIDEO);
        streams.put_u16(0xf000);
        for (kind, pid) in [(0x1b, VIDEO), (0x0f, AUDIO)] {
            streams.put_u8(kind);
            streams.put_u16(0xe000 | pid);
            streams.put_u16(0xf000);
        }
        self.table(out, PMT, 2, &streams);
    }

    fn table(&mut self, out: &mut BytesMut, pid: u16, id: u8, body: &[u8]) {
        let mut section = Vec::new();
        section.put_u8(id);
        // The length counts five header bytes, the body and the CRC.
        section.put_u16(0xb000 | (body.len() + 9) as u16);
        section.put_u16(1);
        section.put_slice(&[0xc1, 0, 0]);
        section.put_slice(body);
        let checksum = crc32(&section);
        section.put_u32(checksum);
        out.put_u8(0x47);
        out.put_u16(0x4000 | pid);
        let count = self.count(pid);
        out.put_u8(0x10 | count);
        // Pointer field 0; stuffing after the section.
        out.put_u8(0);
        out.put_slice(&section);
        out.put_bytes(0xff, PACKET - 5 - section.len());
    }

    fn count(&mut self, pid: u16) -> u8 {
        let count = &mut self.counts[match pid {
            PAT => 0,
            PMT => 1,
            VIDEO => 2,
            _ => 3,
        }];
        let payload = *count & 0x0f;
        *count = count.wrapping_add(1);
        payload
    }

    /// Splits a PES packet into TS packets. `clock` adds a PCR and the random access indicator to the first one.
    fn packets(&mut self, out: &mut BytesMut, pid: u16, pes: &[u8], clock: Option<(Duration, bool)>) {
        let mut rest = pes;
        let mut first = true;
        while !rest.is_empty() {
            let mut adaptation = Vec::new();
            if let Some((due, keyframe)) = clock.filter(|_| first) {
                adaptation.put_u8(0x10 | if keyframe { 0x40 } else { 0 });
                let base = ticks(due) & 0x1_ffff_ffff;
                // PCR: 33 bits base, 6 reserved, 9 extension.
                adaptation.put_u32((base >> 1) as u32);
                adaptation.put_u16((base as u16 & 1) << 15 | 0x7e00);
            }
            let capacity = PACKET - 4 - if adaptation.is_empty() { 0 } else { adaptation.len() + 1 };
            let (payload, remaining) = rest.split_at(rest.len().min(capacity));
            let missing = capacity - payload.len();
            out.put_u8(0x47);
            out.put_u16(if first { 0x4000 } else { 0 } | pid);
            let count = self.count(pid);
            if adaptation.is_empty() && missing == 0 {
                out.put_u8(0x10 | count);
            } else {
                out.put_u8(0x30 | count);
                fill(&mut adaptation, missing);
                out.put_u8(adaptation.len() as u8);
                out.put_slice(&adaptation);
            }
            out.put_slice(payload);
            (rest, first) = (remaining, false);
        }
    }
}

/// Stuffs an adaptation field with `missing` bytes; an absent field needs length and flags first.
fn fill(adaptation: &mut Vec<u8>, missing: usize) {
    if !adaptation.is_empty() {
        adaptation.put_bytes(0xff, missing);
    } else if missing > 1 {
        adaptation.put_u8(0);
        adaptation.put_bytes(0xff, missing - 2);
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_nanos() * u128::from(CLOCK) / 1_000_000_000) as u64
}

/// Writes a PES header (section 2.4.3.6); length 0 means unbounded.
fn pes_header(out: &mut BytesMut, stream: u8, length: usize, due: Duration) {
    out.put_slice(&[0, 0, 1, stream]);
    out.put_u16(if length == 0 { 0 } else { (length + 8) as u16 });
    // Data alignment indicator; PTS only, in five bytes.
    out.put_slice(&[0x84, 0x80, 5]);
    let pts = ticks(due + PTS_LEAD);
    out.put_u8(0x21 | ((pts >> 29) as u8 & 0x0e));
    out.put_u16((pts >> 14) as u16 | 1);
    out.put_u16((pts << 1) as u16 | 1);
}

/// The ADTS header of an AAC frame (ISO/IEC 13818-7 section 6.2) of our encoder.
fn adts(length: usize) -> [u8; 7] {
    let config = u16::from_be_bytes(AUDIO_SPECIFIC_CONFIG);
    let (profile, rate, channels) = ((config >> 11) as u8 - 1, (config >> 7) as u8 & 0x0f, (config >> 3) as u8 & 0x0f);
    let length = (length + 7) as u32;
    [
        0xff,
        0xf1,
        profile << 6 | rate << 2 | channels >> 2,
        (channels & 3) << 6 | (length >> 11) as u8,
        (length >> 3) as u8,
        (length << 5) as u8 | 0x1f,
        0xfc,
    ]
}

/// The CRC of sections (annex A).
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x04c1_1db7 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Extracts the PES packets of a PID.
    fn demux(packets: &[u8], wanted: u16, counts: &mut Vec<u8>) -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        for packet in packets.chunks(PACKET) {
            assert_eq!((packet.len(), packet[0]), (PACKET, 0x47));
            let pid = u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff;
            if pid != wanted {
                continue;
            }
            counts.push(packet[3] & 0x0f);
            let begin = if packet[3] & 0x20 == 0 { 4 } else { 5 + usize::from(packet[4]) };
            if packet[1] & 0x40 != 0 {
                found.push(Vec::new());
            }
            found.last_mut().expect("begun").extend(&packet[begin..]);
        }
        found
    }

    fn pts(pes: &[u8]) -> u64 {
        let part = |at: usize| u64::from(u16::from_be_bytes([pes[at], pes[at + 1]]) >> 1);
        u64::from(pes[9] >> 1 & 7) << 30 | part(10) << 15 | part(12)
    }

    #[test]
    fn tables_have_a_valid_crc() {
        // The PAT of one program with its PMT at 0x1000, as ffmpeg writes it.
        let section = [0x00, 0xb0, 0x0d, 0x00, 0x01, 0xc1, 0x00, 0x00, 0x00, 0x01, 0xf0, 0x00];
        assert_eq!(crc32(&section), 0x2ab1_04b2);
        let packets = Muxer::default().video(&[0, 0, 0, 1, 0x65, 1], true, Duration::ZERO);
        assert_eq!(&packets[5..17], section);
        assert_eq!(&packets[17..21], 0x2ab1_04b2u32.to_be_bytes());
        assert_eq!(crc32(&packets[PACKET + 5..PACKET + 5 + 3 + 0x17]), 0, "the CRC over the whole section is 0");
    }

    #[test]
    fn audio_has_an_adts_header_of_the_configuration() {
        let packets = Muxer::default().audio(&[7; 300], Duration::from_secs(1));
        let pes = demux(&packets, AUDIO, &mut Vec::new()).remove(0);
        assert_eq!(pes[..4], [0, 0, 1, 0xc0]);
        assert_eq!(usize::from(u16::from_be_bytes([pes[4], pes[5]])), pes.len() - 6);
        assert_eq!(pts(&pes), 90_000 + 13_500);
        // AAC-LC, 48 kHz, one channel, 307 bytes.
        assert_eq!(pes[14..21], [0xff, 0xf1, 0x4c, 0x40, 0x26, 0x7f, 0xfc]);
        assert_eq!(&pes[21..], [7; 300]);
    }

    proptest! {
        /// Frames of any length are muxed unchanged, with continuous counters.
        #[test]
        fn frames_are_muxed_unchanged(sizes in prop::collection::vec((1usize..5_000, any::<bool>()), 1..60)) {
            let mut muxer = Muxer::default();
            let (mut video, mut audio) = (Vec::new(), Vec::new());
            for (n, (size, keyframe)) in sizes.iter().enumerate() {
                let frame = [&[0, 0, 0, 1, 0x41][..], &vec![n as u8 | 1; *size]].concat();
                let due = Duration::from_millis(95_443_700 + 33 * n as u64);
                let packets = muxer.video(&frame, *keyframe, due);
                let mut counts = Vec::new();
                let pes = demux(&packets, VIDEO, &mut counts).remove(0);
                prop_assert_eq!(&pes[14..20], &ACCESS_UNIT_DELIMITER);
                prop_assert_eq!(&pes[20..], &frame[..]);
                prop_assert_eq!(pts(&pes), ticks(due + PTS_LEAD) & 0x1_ffff_ffff);
                let has_tables = demux(&packets, PMT, &mut Vec::new()).len() == 1;
                prop_assert_eq!(has_tables, *keyframe || packets[1..3] == [0x40, 0]);
                video.append(&mut counts);
                let small = vec![3; size % 700 + 1];
                let packets = muxer.audio(&small, due);
                prop_assert_eq!(&demux(&packets, AUDIO, &mut audio)[0][21..], &small[..]);
            }
            for counts in [video, audio] {
                prop_assert!(counts.iter().enumerate().all(|(n, count)| *count == n as u8 & 0x0f));
            }
        }
    }
}
