//! H.264 NAL units (ITU-T H.264 section 7.3), as far as the start of decoding depends on them.
//!
//! Owns: unit types, the identifiers of parameter sets, slice types, recovery points. Does not know: RTP, decoders. In:
//! NAL units without start codes. Out: their properties; a malformed unit has none.

use crate::container::bits::Bits;

/// Coded slice of a non-IDR picture.
pub(super) const SLICE: u8 = 1;
/// Coded slice of an IDR picture.
pub(super) const IDR: u8 = 5;
/// Supplemental enhancement information.
pub(super) const SEI: u8 = 6;
/// Sequence parameter set.
pub(super) const SPS: u8 = 7;
/// Picture parameter set.
pub(super) const PPS: u8 = 8;

/// An SEI unit that marks its picture as a recovery point of zero frames (section D.1.8): for pictures that consist of
/// I slices and have no such unit.
pub(super) const RECOVERY_POINT: [u8; 5] = [SEI, PAYLOAD_RECOVERY_POINT, 1, 0xc4, 0x80];
/// SEI payload type of a recovery point (section D.1).
const PAYLOAD_RECOVERY_POINT: u8 = 6;
/// Slice types of which every slice of the picture is, plus five (table 7-6).
const ALL_I: u32 = 7;
/// An I slice.
const I: u32 = 2;

/// The type of a unit; None for an empty one.
pub(super) fn kind(unit: &[u8]) -> Option<u8> {
    Some(unit.first()? & 0x1f)
}

/// A slice begins decoding, as far as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intra {
    /// It refers to other pictures.
    No,
    /// It is an I slice; other slices of the picture may refer to other pictures.
    Slice,
    /// It is an I slice, and so are all slices of the picture.
    Picture,
}

/// Whether the slice with this header is intra coded. `header` begins after the first byte of the unit. Emulation
/// prevention (section 7.4.1) does not occur in the two fields that are read.
pub(super) fn intra(header: &[u8]) -> Intra {
    let mut bits = Bits::new(header);
    let kind = bits.golomb().and_then(|_first_macroblock| bits.golomb());
    match kind {
        Some(ALL_I) => Intra::Picture,
        Some(I) => Intra::Slice,
        _ => Intra::No,
    }
}

/// The recovery point in an SEI unit (section 7.3.2.3): after how many frames the pictures are whole
/// (`recovery_frame_cnt`).
pub(super) fn recovery_point(sei: &[u8]) -> Option<u32> {
    let mut rest = sei.get(1..)?;
    loop {
        let (kind, length) = (sei_number(&mut rest)?, sei_number(&mut rest)?);
        if kind == usize::from(PAYLOAD_RECOVERY_POINT) {
            return Bits::new(rest).golomb();
        }
        rest = rest.get(length..).filter(|next| next.len() >= 2)?;
    }
}

/// A number coded as bytes of 255 and a last byte, which are summed.
fn sei_number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    loop {
        let (byte, next) = rest.split_first()?;
        *rest = next;
        number += usize::from(*byte);
        if *byte < 255 {
            return Some(number);
        }
    }
}

/// `seq_parameter_set_id` of an SPS, 0 to 31.
pub(super) fn sps_id(sps: &[u8]) -> Option<u8> {
    let id = Bits::new(sps.get(4..)?).golomb()?;
    u8::try_from(id).ok().filter(|id| *id < 32)
}

/// `pic_parameter_set_id` of a PPS.
pub(super) fn pps_id(pps: &[u8]) -> Option<u8> {
    u8::try_from(Bits::new(pps.get(1..)?).golomb()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recovery_points_are_found_among_other_sei_messages() {
        assert_eq!(recovery_point(&RECOVERY_POINT), Some(0));
        assert_eq!(recovery_point(&[6, 6, 2, 0x09, 0xc4, 0x80]), Some(18), "of x264");
        assert_eq!(recovery_point(&[6, 1, 2, 0, 0, 6, 1, 0xc4, 0x80]), Some(0), "after a picture timing");
        let mut long = vec![6, 5, 255, 3];
        long.extend([0x55; 258]);
        assert_eq!(recovery_point(&long), None, "user data");
        long.extend([6, 1, 0xc4, 0x80]);
        assert_eq!(recovery_point(&long), Some(0), "after user data of 258 bytes");
        assert_eq!(recovery_point(&[6, 5, 200, 6, 1, 0xc4]), None, "a length beyond the end");
        assert_eq!(recovery_point(&[6]), None);
    }

    #[test]
    fn slice_types_and_set_identifiers_are_read() {
        // ue(0) ue(7): 1 0001000; ue(0) ue(2): 1 011; ue(0) ue(5): 1 00110.
        assert_eq!(intra(&[0b1000_1000]), Intra::Picture);
        assert_eq!(intra(&[0b1011_0000]), Intra::Slice);
        assert_eq!(intra(&[0b1001_1000]), Intra::No);
        assert_eq!(intra(&[]), Intra::No);
        assert_eq!(sps_id(&[0x67, 0x42, 0xc0, 0x1e, 0b1000_0000]), Some(0));
        assert_eq!(sps_id(&[0x67, 0x42, 0xc0, 0x1e, 0b0111_0000]), Some(2));
        assert_eq!(pps_id(&[0x68, 0b0100_0000]), Some(1));
        assert_eq!(sps_id(&[0x67, 0x42]), None);
        assert_eq!(pps_id(&[0x68]), None);
    }

    proptest! {
        #[test]
        fn any_unit_is_read_without_panic(unit in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (kind(&unit), intra(&unit), recovery_point(&unit), sps_id(&unit), pps_id(&unit));
        }
    }
}
