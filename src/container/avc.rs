//! H.264 in files (ISO/IEC 14496-15): length-prefixed NAL units and the AVCDecoderConfigurationRecord.
//!
//! Owns: conversion from Annex B; picture size and colours in a sequence parameter set. Does not know: containers. In:
//! access units. Out: stored samples and records.
//!
//! The parameter sets also stay in the samples, before each keyframe: after a mixer restart they may differ, the same
//! file is continued, and decoders use the newer ones.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use crate::media::{Colours, Size};

const ACCESS_UNIT_DELIMITER: u8 = 9;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// The non-empty NAL units of an Annex B byte stream (ITU-T H.264 annex B), without start codes.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = start_code(stream).map(|(_, after)| &stream[after..]);
    std::iter::from_fn(move || {
        let unit = rest?;
        let (end, next) = match start_code(unit) {
            Some((before, after)) => (before, Some(&unit[after..])),
            None => (unit.len(), None),
        };
        rest = next;
        // Trailing zeros are `trailing_zero_8bits` of the byte stream, not part of the NAL unit.
        let length = unit[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Some(&unit[..length])
    })
    .filter(|unit| !unit.is_empty())
}

/// Start and end offset of the next `00 00 01`.
fn start_code(stream: &[u8]) -> Option<(usize, usize)> {
    let mut at = 2;
    while let Some(byte) = stream.get(at) {
        match byte {
            1 if stream[at - 1] == 0 && stream[at - 2] == 0 => return Some((at - 2, at + 1)),
            0 => at += 1,
            // Neither 0 nor the end of a start code: none can end at the next two bytes either.
            _ => at += 3,
        }
    }
    None
}

/// Whether a NAL unit contains the start code of another one, which emulation prevention (section 7.4.1) excludes.
pub fn has_start_code(unit: &[u8]) -> bool {
    start_code(unit).is_some()
}

const fn kind(unit: &[u8]) -> u8 {
    unit[0] & 0x1f
}

/// The size in a sequence parameter set, see [`SequenceParameterSet::size`].
pub fn coded_size(sps: &[u8]) -> Option<Size> {
    Some(SequenceParameterSet::read(sps)?.size)
}

/// What a sequence parameter set (ITU-T H.264 section 7.3.2.1) says of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceParameterSet {
    /// The size before cropping: the size that a decoder allocates.
    pub size: Size,
    /// The colours, if they are signalled.
    pub colours: Option<Colours>,
}

impl SequenceParameterSet {
    /// Parses the NAL unit. None for a malformed one, and for pictures that are not 4:2:0 with 8 bits.
    pub fn read(unit: &[u8]) -> Option<Self> {
        let raw = without_emulation_prevention(unit.get(1..)?);
        let mut bits = Bits::new(&raw);
        let size = size(&mut bits)?;
        // A decoder allocates the size even if the VUI after it is malformed.
        Some(Self { size, colours: colours(&mut bits) })
    }
}

/// The payload of a NAL unit without the 3 of each 00 00 03, which is not data (section 7.4.1).
fn without_emulation_prevention(coded: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(coded.len());
    let mut zeros = 0;
    for byte in coded {
        // The 3 ends the run of zeros.
        let prevention = *byte == 3 && zeros >= 2;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        if !prevention {
            raw.push(*byte);
        }
    }
    raw
}

/// Parses a sequence parameter set from its beginning to `direct_8x8_inference_flag`, which is not read.
fn size(bits: &mut Bits<'_>) -> Option<Size> {
    let profile = bits.number(8)?;
    let _constraints_and_level = bits.number(16)?;
    let _id = bits.golomb()?;
    let high = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135].contains(&profile);
    if high {
        let chroma_format = bits.golomb()?;
        if chroma_format != 1 {
            return None; // only 4:2:0 decodes to I420
        }
        let (luma_depth, chroma_depth) = (bits.golomb()?, bits.golomb()?);
        if (luma_depth, chroma_depth) != (0, 0) {
            return None;
        }
        let _bypass = bits.flag()?;
        if bits.flag()? {
            for list in 0..8 {
                if bits.flag()? {
                    scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    let _max_frame_num = bits.golomb()?;
    match bits.golomb()? {
        0 => {
            let _max_order = bits.golomb()?;
        }
        1 => {
            let _always_zero = bits.flag()?;
            let _offsets = (bits.signed_golomb()?, bits.signed_golomb()?);
            let cycle = bits.golomb()?;
            if cycle > 255 {
                return None;
            }
            for _ in 0..cycle {
                let _offset = bits.signed_golomb()?;
            }
        }
        2 => {}
        _ => return None,
    }
    let references = bits.golomb()?;
    if references > 16 {
        return None;
    }
    let _gaps = bits.flag()?;
    let (width, height) = (bits.golomb()?, bits.golomb()?);
    let frames_only = bits.flag()?;
    let blocks = |minus_one: u32| minus_one.checked_add(1)?.checked_mul(16);
    let (width, height) = (blocks(width)?, blocks(height)?);
    if !frames_only {
        let _adaptive = bits.flag()?;
    }
    Some(Size::new(width, if frames_only { height } else { height.checked_mul(2)? }))
}

/// The colours in the VUI (section E.1.1) of a sequence parameter set. `bits` begin with `direct_8x8_inference_flag`.
fn colours(bits: &mut Bits<'_>) -> Option<Colours> {
    const EXTENDED_SAR: u32 = 255;
    let _direct_inference = bits.flag()?;
    if bits.flag()? {
        for _ in 0..4 {
            let _crop = bits.golomb()?;
        }
    }
    let has_vui = bits.flag()?;
    if !has_vui {
        return None;
    }
    if bits.flag()? && bits.number(8)? == EXTENDED_SAR {
        let _width_and_height = (bits.number(16)?, bits.number(16)?);
    }
    if bits.flag()? {
        let _overscan = bits.flag()?;
    }
    let has_signal_type = bits.flag()?;
    if !has_signal_type {
        return None;
    }
    let _format = bits.number(3)?;
    let full_range = bits.flag()?;
    // Matrix 2 is unspecified.
    let matrix = if bits.flag()? { (bits.number(16)?, bits.number(8)?).1 } else { 2 };
    Colours::coded(matrix as u8, full_range)
}

fn scaling_list(bits: &mut Bits<'_>, entries: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..entries {
        if next != 0 {
            next = (last + bits.signed_golomb()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// The access unit as files store it: each NAL unit prefixed with its 32-bit length, without access unit delimiters.
pub(super) fn length_prefixed(access_unit: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(access_unit.len() + 16);
    for unit in nal_units(access_unit).filter(|unit| kind(unit) != ACCESS_UNIT_DELIMITER) {
        out.put_u32(u32::try_from(unit.len()).ok()?);
        out.put_slice(unit);
    }
    (!out.is_empty()).then(|| out.freeze())
}

/// The AVCDecoderConfigurationRecord (§5.3.3.1) of a stream whose first access unit is `access_unit`. None without SPS
/// and PPS.
pub(super) fn configuration(access_unit: &[u8]) -> Option<Bytes> {
    let of = |wanted| nal_units(access_unit).filter(move |unit| kind(unit) == wanted);
    let first = of(SPS).next().filter(|sps| sps.len() >= 4)?;
    of(PPS).next()?;
    let mut out = BytesMut::new();
    out.put_u8(1);
    out.put_slice(&first[1..4]);
    // lengthSizeMinusOne: 3.
    out.put_u8(0xff);
    for (wanted, mask, most) in [(SPS, 0xe0u8, 31), (PPS, 0, 255)] {
        let count = of(wanted).take(most).count();
        out.put_u8(mask | count as u8);
        for set in of(wanted).take(most) {
            out.put_u16(u16::try_from(set.len()).ok()?);
            out.put_slice(set);
        }
    }
    if matches!(first[1], 100 | 110 | 122 | 144) {
        // 4:2:0 with 8 bits, the only format that browsers and our encoders produce; no SPS extensions.
        out.put_slice(&[0xfc | 1, 0xf8, 0xf8, 0]);
    }
    Some(out.freeze())
}

/// The RFC 6381 codec string (profile, constraint flags, level) of a configuration record.
pub(super) fn codec_string(configuration: &[u8]) -> String {
    match configuration.get(1..4) {
        Some([profile, constraints, level]) => format!("avc1.{profile:02X}{constraints:02X}{level:02X}"),
        _ => "avc1".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::Matrix;

    #[test]
    fn annex_b_is_converted_to_length_prefixes() {
        let stream =
            [0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0xaa, 0, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 7, 0];
        let stored = length_prefixed(&stream).expect("three units");
        let expected =
            [&[0, 0, 0, 5, 0x67, 0x42, 0xe0, 0x1f, 0xaa][..], &[0, 0, 0, 2, 0x68, 1], &[0, 0, 0, 2, 0x65, 7]];
        assert_eq!(stored, expected.concat());
        let record = configuration(&stream).expect("has both sets");
        let expected =
            [&[1, 0x42, 0xe0, 0x1f, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xe0, 0x1f, 0xaa][..], &[1, 0, 2, 0x68, 1]];
        assert_eq!(record, expected.concat());
        assert_eq!(codec_string(&record), "avc1.42E01F");
        assert_eq!(configuration(&[0, 0, 1, 0x65, 7]), None, "no parameter sets");
        assert_eq!(length_prefixed(&[1, 2, 3]), None, "no start code");
    }

    #[test]
    fn nal_units_are_split_at_every_start_code() {
        let stream = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 0, 3, 0];
        let units: Vec<&[u8]> = nal_units(&stream).collect();
        assert_eq!(units, [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3]]);
        assert_eq!(nal_units(&[1, 2, 3]).count(), 0);
    }

    /// A sequence parameter set of 640x368 pixels, cropped to 640x360. `vui` are the bits after the flag of the VUI.
    fn sps(frames_only: bool, vui: &str) -> Vec<u8> {
        let golomb = |value: u32| {
            let bits = format!("{:b}", value + 1);
            "0".repeat(bits.len() - 1) + &bits
        };
        let rows = if frames_only { golomb(22) + "1" } else { golomb(10) + "00" };
        let bits = [
            "010000101100000000011110".into(),
            [0, 0, 2, 1].map(golomb).concat() + "0",
            golomb(39) + &rows,
            "11".to_owned() + &[0, 0, 0, 4].map(golomb).concat(),
            if vui.is_empty() { "0".into() } else { "1".to_owned() + vui },
            // Timing and the stop bit.
            "0001".into(),
        ];
        let bits = bits.concat();
        let mut unit = vec![0x67];
        for byte in bits.as_bytes().chunks(8) {
            let byte = byte.iter().enumerate().fold(0, |byte, (at, bit)| byte | (bit - b'0') << (7 - at));
            if byte <= 3 && unit.ends_with(&[0, 0]) {
                unit.push(3);
            }
            unit.push(byte);
        }
        unit
    }

    #[test]
    fn size_and_colours_of_a_sequence_parameter_set_are_read() {
        let (bt601, bt709) = (Matrix::Bt601, Matrix::Bt709);
        let colours = |matrix, full_range| Some(Colours { matrix, full_range });
        // video_signal_type_present_flag, video_format and the range.
        let (limited, full) = ("11010", "11011");
        let description = |matrix: u8| format!("1{:08b}{:08b}{matrix:08b}", 1, 1);
        for (vui, expected) in [
            (String::new(), None),
            ("000".into(), None),
            // Limited range, unspecified matrix: the default.
            (format!("00{limited}0"), None),
            (format!("00{full}0"), colours(bt601, true)),
            (format!("00{limited}{}", description(1)), colours(bt709, false)),
            (format!("00{full}{}", description(6)), colours(bt601, true)),
            // With an aspect ratio of the table, with one of its own, and with overscan.
            (format!("1{:08b}0{limited}{}", 1, description(1)), colours(bt709, false)),
            (format!("1{:08b}{:016b}{:016b}11{full}{}", 255, 0, 1, description(1)), colours(bt709, true)),
        ] {
            for frames_only in [true, false] {
                let size = Size::new(640, if frames_only { 368 } else { 352 });
                let unit = sps(frames_only, &vui);
                let read = SequenceParameterSet::read(&unit).expect("whole");
                assert_eq!(read, SequenceParameterSet { size, colours: expected }, "{vui} {unit:x?}");
                assert_eq!(coded_size(&unit), Some(size));
            }
        }
        let whole = sps(true, &format!("00{full}{}", description(1)));
        let read = SequenceParameterSet::read(&whole[..12]).expect("the size is there");
        assert_eq!((read.size, read.colours), (Size::new(640, 368), None), "the VUI is cut off");
    }

    proptest! {
        #[test]
        fn every_nal_unit_but_delimiters_is_stored(
            units in proptest::collection::vec(proptest::collection::vec(1u8..=255, 1..20), 1..6),
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (i, unit) in units.iter().enumerate() {
                stream.extend(if i % 2 == 0 { &[0, 0, 0, 1][..] } else { &[0, 0, 1][..] });
                stream.extend(unit);
                if kind(unit) != ACCESS_UNIT_DELIMITER {
                    expected.extend((unit.len() as u32).to_be_bytes());
                    expected.extend(unit);
                }
            }
            prop_assert_eq!(length_prefixed(&stream).unwrap_or_default(), expected);
        }

        #[test]
        fn start_code_search_equals_a_naive_search(data in proptest::collection::vec(0u8..3, 0..60)) {
            let naive = data.windows(3).position(|window| window == [0, 0, 1]).map(|at| (at, at + 3));
            prop_assert_eq!(start_code(&data), naive);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..60),
        ) {
            let _ = length_prefixed(&bytes);
            let _ = configuration(&bytes);
            let _ = SequenceParameterSet::read(&bytes);
        }
    }
}
