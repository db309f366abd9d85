//! AV1 in files (AV1 Codec ISO Media File Format Binding): the AV1CodecConfigurationRecord (§2.3) and samples without
//! temporal delimiters (§2.4).
//!
//! Owns: OBU framing and the parser of sequence headers. Does not know: containers. In: temporal units. Out: stored
//! samples, configuration records, picture sizes.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use crate::media::{Colours, Size};

/// OBU type of a sequence header (AV1 bitstream §6.2.2).
pub const SEQUENCE_HEADER: u8 = 1;
/// OBU type of a temporal delimiter.
pub const TEMPORAL_DELIMITER: u8 = 2;

/// OBU type of a frame header.
pub const FRAME_HEADER: u8 = 3;
/// OBU type of a frame with its header.
pub const FRAME: u8 = 6;
/// OBU type of a tile list, which is for large scale tile decoding only.
pub const TILE_LIST: u8 = 8;

/// An open bitstream unit (OBU).
#[derive(Debug)]
pub struct Obu<'a> {
    /// The OBU with its header and size field.
    pub whole: &'a [u8],
    /// `obu_type`.
    pub kind: u8,
    /// The bytes after header and size field.
    pub payload: &'a [u8],
}

/// Splits the first OBU off a stream; an OBU without a size field extends to the end. None when it is malformed.
pub fn split_obu(stream: &[u8]) -> Option<(Obu<'_>, &[u8])> {
    let header = *stream.first()?;
    if header & 0x80 != 0 {
        return None; // forbidden bit
    }
    let mut at = 1 + usize::from(header & 4 != 0);
    let length = if header & 2 != 0 {
        let (length, bytes) = leb128(stream.get(at..)?)?;
        at += bytes;
        length
    } else {
        stream.len().checked_sub(at)?
    };
    let (whole, rest) = stream.split_at_checked(at.checked_add(length)?)?;
    Some((Obu { whole, kind: header >> 3 & 15, payload: &whole[at..] }, rest))
}

/// Decodes a `leb128()` value (AV1 bitstream §4.10.5) and its length in bytes. None when truncated or above 32 bits.
pub fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0u64;
    for (i, byte) in data.iter().take(8).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(number).ok()?).ok()?, i + 1));
        }
    }
    None
}

/// Encodes a `leb128()` value in as few bytes as possible.
pub fn put_leb128(out: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// The temporal unit without a leading temporal delimiter, as files store it.
pub(super) fn without_temporal_delimiter(unit: Bytes) -> Bytes {
    if unit.starts_with(&[0x12, 0]) { unit.slice(2..) } else { unit }
}

/// The AV1CodecConfigurationRecord of a stream whose first temporal unit is `unit`. None without a sequence header.
pub(super) fn configuration(unit: &[u8]) -> Option<Bytes> {
    let mut rest = unit;
    loop {
        let (obu, after) = split_obu(rest)?;
        if obu.kind == SEQUENCE_HEADER {
            let mut out = BytesMut::new();
            out.put_u8(0x81);
            out.put_slice(&SequenceHeader::read(obu.payload)?.bytes());
            out.put_u8(0);
            out.put_slice(obu.whole);
            return Some(out.freeze());
        }
        rest = after;
    }
}

/// The RFC 6381 codec string (profile, level, tier, bit depth) of a configuration record.
pub(super) fn codec_string(configuration: &[u8]) -> String {
    let Some([_, first, second]) = configuration.first_chunk().copied() else { return "av01".into() };
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    let depth = if second & 0x40 == 0 { 8 } else { 10 };
    format!("av01.{}.{:02}{tier}.{depth:02}", first >> 5, first & 0x1f)
}

/// A sequence header (AV1 bitstream §5.5) of the main profile; browsers decode no other profile to 4:2:0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceHeader {
    /// Maximum frame size.
    pub size: Size,
    /// `seq_level_idx` of the first operating point.
    level: u8,
    /// `seq_tier` of the first operating point.
    high_tier: bool,
    /// 10 bits per sample instead of 8.
    high_bit_depth: bool,
    monochrome: bool,
    /// `chroma_sample_position`.
    chroma_position: u8,
    /// The colours, if they are signalled.
    pub colours: Option<Colours>,
}

impl SequenceHeader {
    /// Parses the payload of a sequence header OBU. None when it is truncated or not of the main profile.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(payload);
        let profile = bits.number(3)?;
        if profile != 0 {
            return None;
        }
        let _still = bits.flag()?;
        let reduced = bits.flag()?;
        let (level, high_tier) = if reduced { (bits.number(5)?, false) } else { operating_point(&mut bits)? };
        let (width_bits, height_bits) = (bits.number(4)? + 1, bits.number(4)? + 1);
        let size = Size::new(bits.number(width_bits)? + 1, bits.number(height_bits)? + 1);
        if !reduced && bits.flag()? {
            let _frame_id_lengths = bits.number(7)?;
        }
        let _superblock_and_intra = bits.number(3)?;
        if !reduced {
            skip_coding_tools(&mut bits)?;
        }
        let _superres_cdef_restoration = bits.number(3)?;
        let high_bit_depth = bits.flag()?;
        let monochrome = bits.flag()?;
        // Matrix 2 is unspecified.
        let matrix = if bits.flag()? { bits.number(24)? as u8 } else { 2 };
        let colours = Colours::coded(matrix, bits.flag()?);
        let chroma_position = if monochrome { 0 } else { bits.number(2)? };
        Some(Self {
            size,
            level: level as u8,
            high_tier,
            high_bit_depth,
            monochrome,
            chroma_position: chroma_position as u8,
            colours,
        })
    }

    /// Bytes 1 and 2 of a configuration record.
    fn bytes(&self) -> [u8; 2] {
        let flags = [(self.high_tier, 7), (self.high_bit_depth, 6), (self.monochrome, 4)]
            .map(|(set, bit)| u8::from(set) << bit);
        [self.level, flags.iter().sum::<u8>() | 0b1100 | self.chroma_position]
    }
}

/// Reads all operating points; returns level and tier of the first.
fn operating_point(bits: &mut Bits<'_>) -> Option<(u32, bool)> {
    let mut decoder_model = None;
    if bits.flag()? {
        let _ticks = (bits.number(32)?, bits.number(32)?);
        if bits.flag()? {
            let _ticks_per_picture = bits.golomb()?;
        }
        if bits.flag()? {
            decoder_model = Some(bits.number(5)? + 1);
            let _rest = (bits.number(32)?, bits.number(10)?);
        }
    }
    let initial_delay = bits.flag()?;
    let mut first = None;
    for _ in 0..=bits.number(5)? {
        let _idc = bits.number(12)?;
        let level = bits.number(5)?;
        let tier = level > 7 && bits.flag()?;
        if let Some(length) = decoder_model
            && bits.flag()?
        {
            let _delays = (bits.number(length)?, bits.number(length)?, bits.flag()?);
        }
        if initial_delay && bits.flag()? {
            let _delay = bits.number(4)?;
        }
        first = first.or(Some((level, tier)));
    }
    first
}

/// Skips the coding tool flags between frame size and colour configuration.
fn skip_coding_tools(bits: &mut Bits<'_>) -> Option<()> {
    let _interintra_masked_warped_dual = bits.number(4)?;
    let order_hint = bits.flag()?;
    if order_hint {
        let _joint_and_motion = bits.number(2)?;
    }
    let choose_screen_content = bits.flag()?;
    let screen_content = choose_screen_content || bits.flag()?;
    if screen_content && !bits.flag()? {
        let _integer_motion = bits.flag()?;
    }
    if order_hint {
        let _order_hint_bits = bits.number(3)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by libaom for 640x360, 8 bits per sample.
    const UNIT: [u8; 15] = [0x12, 0, 0x0a, 0x0b, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10];

    #[test]
    fn configuration_record_repeats_the_sequence_header() {
        let record = configuration(&UNIT).expect("has a sequence header");
        let sequence = SequenceHeader::read(&UNIT[4..]).expect("it is complete");
        assert_eq!((record[0], sequence.size), (0x81, Size::new(640, 360)));
        assert_eq!(&record[4..], &UNIT[2..]);
        assert_eq!(without_temporal_delimiter(Bytes::from_static(&UNIT)), UNIT[2..]);
        assert_eq!(configuration(&UNIT[..2]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = configuration(&bytes);
            let _ = SequenceHeader::read(&bytes);
        }
    }
}
