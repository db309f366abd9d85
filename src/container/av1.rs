//! AV1 in files: the configuration record that a decoder gets first (AV1 Codec ISO Media File FileFormat Binding §2.3), and
//! temporal units without the delimiter that only streams have.

use bytes::{BufMut, Bytes, BytesMut};

const SEQUENCE_HEADER: u8 = 1;

/// An open bitstream unit.
struct Obu<'a> {
    /// With header and size.
    whole: &'a [u8],
    kind: u8,
    payload: &'a [u8],
}

/// The OBU at the beginning of `data`, and what comes after it.
fn split_obu(data: &[u8]) -> Option<(Obu<'_>, &[u8])> {
    let header = *data.first()?;
    let mut at = 1 + usize::from(header & 4 != 0);
    let mut length = 0usize;
    if header & 2 == 0 {
        length = data.len().checked_sub(at)?;
    } else {
        for i in 0..5 {
            let byte = *data.get(at)?;
            at += 1;
            length |= usize::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                break;
            }
            if i == 4 {
                return None;
            }
        }
    }
    let (whole, rest) = data.split_at_checked(at.checked_add(length)?)?;
    Some((Obu { whole, kind: header >> 3 & 15, payload: &whole[at..] }, rest))
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
            out.put_slice(&sequence(obu.payload)?);
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

/// Bits from the most significant on; None past the end.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        self.number(1).map(|bit| bit == 1)
    }

    /// At most 32 bits.
    fn number(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0u32, |number, _| {
            let bit = self.data.get(self.at / 8)? >> (7 - self.at % 8) & 1;
            self.at += 1;
            Some(number << 1 | u32::from(bit))
        })
    }

    /// `uvlc()`.
    fn variable(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros > 31 {
            return None;
        }
        Some((1u32 << zeros) - 1 + self.number(zeros)?)
    }
}

/// The second and third byte of the record, of a sequence header (AV1 bitstream §5.5).
fn sequence(payload: &[u8]) -> Option<[u8; 2]> {
    let mut bits = Bits { data: payload, at: 0 };
    let profile = bits.number(3)?;
    if profile != 0 {
        return None; // browsers send the main profile only
    }
    let _still = bits.flag()?;
    let reduced = bits.flag()?;
    let (level, tier) = if reduced { (bits.number(5)?, false) } else { operating_point(&mut bits)? };
    let (width_bits, height_bits) = (bits.number(4)? + 1, bits.number(4)? + 1);
    let _size = (bits.number(width_bits)?, bits.number(height_bits)?);
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
    let flags = u8::from(tier) << 7 | u8::from(deep) << 6 | u8::from(mono) << 4 | 0b1100 | position as u8;
    Some([level as u8, flags])
}

/// Level and tier of the first operating point, and the reader behind all of them.
fn operating_point(bits: &mut Bits<'_>) -> Option<(u32, bool)> {
    let mut decoder_model = None;
    if bits.flag()? {
        let _ticks = (bits.number(32)?, bits.number(32)?);
        if bits.flag()? {
            let _ticks_per_picture = bits.variable()?;
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
    const UNIT: [u8; 15] = [0x12, 0, 0x0a, 11, 0, 0, 0, 0x04, 0x3e, 0xa7, 0xf6, 0x7f, 0xf9, 0xb5, 0x7c];

    #[test]
    fn the_record_says_what_the_sequence_header_says() {
        let record = configuration(&UNIT).expect("has a sequence header");
        assert_eq!(record[0], 0x81);
        assert_eq!(&record[4..], &UNIT[2..]);
        assert_eq!(without_delimiter(Bytes::from_static(&UNIT)), UNIT[2..]);
        assert_eq!(configuration(&UNIT[..2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = configuration(&bytes);
            let _ = sequence(&bytes);
        }
    }
}
