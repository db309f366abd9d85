//! AV1 in files: the configuration record that a decoder gets first (AV1 Codec ISO Media File FileFormat Binding §2.3), and
//! temporal units without the delimiter that only streams have; and what a sequence header says.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use crate::media::Size;

/// OBU types (bitstream §6.2.2).
pub const SEQUENCE_HEADER: u8 = 1;
/// See [`SEQUENCE_HEADER`].
pub const TEMPORAL_DELIMITER: u8 = 2;

/// An open bitstream unit.
#[derive(Debug)]
pub struct Obu<'a> {
    /// With header and size.
    pub whole: &'a [u8],
    /// Its type.
    pub kind: u8,
    /// What is in it.
    pub payload: &'a [u8],
}

/// The first OBU of a stream, and what comes after it; one without a size takes the rest. None when it is broken.
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

/// A number in AV1's `leb128()` and the bytes it takes; None when broken or above 32 bits.
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

/// The unit as files hold it.
pub(super) fn without_delimiter(unit: Bytes) -> Bytes {
    if unit.starts_with(&[0x12, 0]) { unit.slice(2..) } else { unit }
}

/// The AV1CodecConfigurationRecord of a stream that begins with this temporal unit.
pub(super) fn configuration(unit: &[u8]) -> Option<Bytes> {
    let mut rest = unit;
    loop {
        let (obu, after) = split_obu(rest)?;
        if obu.kind == SEQUENCE_HEADER {
            let mut out = BytesMut::new();
            out.put_u8(0x81);
            out.put_slice(&Sequence::read(obu.payload)?.bytes());
            out.put_u8(0);
            out.put_slice(obu.whole);
            return Some(out.freeze());
        }
        rest = after;
    }
}

/// The codec's name with profile, level, tier and depth, of a configuration record.
pub(super) fn codec_string(configuration: &[u8]) -> String {
    let Some([_, first, second]) = configuration.first_chunk().copied() else { return "av01".into() };
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    let depth = if second & 0x40 == 0 { 8 } else { 10 };
    format!("av01.{}.{:02}{tier}.{depth:02}", first >> 5, first & 0x1f)
}

/// What a sequence header says (bitstream §5.5), of the main profile: no other decodes to 4:2:0 with browsers' decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// The largest picture.
    pub size: Size,
    /// Of the first operating point.
    level: u8,
    /// The high tier.
    tier: bool,
    /// 10 bits a sample.
    deep: bool,
    mono: bool,
    /// Where chroma samples lie.
    position: u8,
}

impl Sequence {
    /// Reads the payload of a sequence header.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(payload);
        let profile = bits.number(3)?;
        if profile != 0 {
            return None;
        }
        let _still = bits.flag()?;
        let reduced = bits.flag()?;
        let (level, tier) = if reduced { (bits.number(5)?, false) } else { operating_point(&mut bits)? };
        let (width_bits, height_bits) = (bits.number(4)? + 1, bits.number(4)? + 1);
        let size = Size::new(bits.number(width_bits)? + 1, bits.number(height_bits)? + 1);
        if !reduced && bits.flag()? {
            let _frame_id_lengths = bits.number(7)?;
        }
        let _superblock_and_intra = bits.number(3)?;
        if !reduced {
            tools(&mut bits)?;
        }
        let _superres_cdef_restoration = bits.number(3)?;
        let deep = bits.flag()?;
        let mono = bits.flag()?;
        if bits.flag()? {
            let _primaries_transfer_matrix = bits.number(24)?;
        }
        let _range = bits.flag()?;
        let position = if mono { 0 } else { bits.number(2)? };
        Some(Self { size, level: level as u8, tier, deep, mono, position: position as u8 })
    }

    /// The second and third byte of a configuration record.
    fn bytes(&self) -> [u8; 2] {
        let flags = [(self.tier, 7), (self.deep, 6), (self.mono, 4)].map(|(set, bit)| u8::from(set) << bit);
        [self.level, flags.iter().sum::<u8>() | 0b1100 | self.position]
    }
}

/// Level and tier of the first operating point, and the reader behind all of them.
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

/// Steps over the coding tools that a whole sequence header lists between the frame's size and its colours.
fn tools(bits: &mut Bits<'_>) -> Option<()> {
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

    /// As libaom writes it for 640x360 with 8 bits.
    const UNIT: [u8; 15] = [0x12, 0, 0x0a, 0x0b, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10];

    #[test]
    fn the_record_says_what_the_sequence_header_says() {
        let record = configuration(&UNIT).expect("has a sequence header");
        let sequence = Sequence::read(&UNIT[4..]).expect("it is whole");
        assert_eq!((record[0], sequence.size), (0x81, Size::new(640, 360)));
        assert_eq!(&record[4..], &UNIT[2..]);
        assert_eq!(without_delimiter(Bytes::from_static(&UNIT)), UNIT[2..]);
        assert_eq!(configuration(&UNIT[..2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = configuration(&bytes);
            let _ = Sequence::read(&bytes);
        }
    }
}
