//! Where keyframes begin in the packets of a simulcast encoding, and their picture size.
//!
//! Owns: the beginning of a keyframe in the payload formats VP8 (RFC 7741), VP9 (RFC 9628), H.264 (RFC 6184) and AV1
//! (AOM). Does not know: encodings, whole frames, whether a frame is well formed: the mixer checks it. In: the payload
//! of one packet. Out: the size; bytes that say nothing else have none.

use crate::container::av1::{self, SequenceHeader};
use crate::container::avc;
use crate::media::{Codec, Size};

/// NAL unit types of H.264: a sequence parameter set, and an aggregation packet (RFC 6184 section 5.7.1).
const SPS: u8 = 7;
const STAP_A: u8 = 24;

/// The picture size of the keyframe that begins in this payload; None if none does. A keyframe of H.264 begins with its
/// sequence parameter set: without it another encoding cannot be decoded.
pub(super) fn keyframe_size(codec: Codec, payload: &[u8]) -> Option<Size> {
    match codec {
        Codec::Vp8 => vp8(payload),
        Codec::Vp9 => vp9(payload),
        Codec::H264 => h264(payload),
        Codec::Av1 => av1(payload),
        Codec::Opus | Codec::Pcmu | Codec::Pcma => None,
    }
}

/// The bytes of a picture id: one or two.
fn picture_id(payload: &[u8], at: usize) -> Option<usize> {
    Some(if payload.get(at)? & 0x80 != 0 { 2 } else { 1 })
}

fn vp8(payload: &[u8]) -> Option<Size> {
    let first = *payload.first()?;
    if first & 0x10 == 0 || first & 0x07 != 0 {
        return None;
    }
    let mut at = 1;
    if first & 0x80 != 0 {
        let fields = *payload.get(1)?;
        at = 2;
        if fields & 0x80 != 0 {
            at += picture_id(payload, at)?;
        }
        at += usize::from(fields & 0x40 != 0) + usize::from(fields & 0x30 != 0);
    }
    // RFC 6386 section 9.1.
    let frame: &[u8; 10] = payload.get(at..)?.first_chunk()?;
    let is_keyframe = frame[0] & 1 == 0 && frame[3..6] == [0x9d, 0x01, 0x2a];
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    is_keyframe.then(|| Size::new(side(frame[6], frame[7]), side(frame[8], frame[9])))
}

/// A keyframe of VP9 has a scalability structure with the sizes of its spatial layers, of which the last is the
/// largest.
fn vp9(payload: &[u8]) -> Option<Size> {
    let first = *payload.first()?;
    let bit = |mask: u8| first & mask != 0;
    let (predicted, starts, has_structure) = (bit(0x40), bit(0x08), bit(0x02));
    if predicted || !starts || !has_structure {
        return None;
    }
    let mut at = 1;
    if bit(0x80) {
        at += picture_id(payload, at)?;
    }
    if bit(0x20) {
        at += if bit(0x10) { 1 } else { 2 };
    }
    let structure = *payload.get(at)?;
    if structure & 0x10 == 0 {
        return None;
    }
    let last = at + 1 + 4 * usize::from(structure >> 5);
    let size: &[u8; 4] = payload.get(last..)?.first_chunk()?;
    let side = |high: u8, low: u8| u32::from(u16::from_be_bytes([high, low]));
    Some(Size::new(side(size[0], size[1]), side(size[2], size[3])))
}

fn h264(payload: &[u8]) -> Option<Size> {
    match payload.first()? & 0x1f {
        SPS => avc::coded_size(payload),
        STAP_A => {
            let mut rest = &payload[1..];
            loop {
                let (length, units) = rest.split_first_chunk()?;
                let unit;
                (unit, rest) = units.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                if unit.first()? & 0x1f == SPS {
                    return avc::coded_size(unit);
                }
            }
        }
        _ => None,
    }
}

/// A coded video sequence of AV1 begins with its sequence header, in a packet that says so (N).
fn av1(payload: &[u8]) -> Option<Size> {
    let (header, mut rest) = payload.split_first()?;
    if header & 0x88 != 0x08 {
        return None;
    }
    let count = header >> 4 & 3;
    let mut element = 0;
    loop {
        element += 1;
        let length = if element == count {
            rest.len()
        } else {
            let (length, bytes) = av1::leb128(rest)?;
            rest = rest.get(bytes..)?;
            length
        };
        let obu;
        (obu, rest) = rest.split_at_checked(length)?;
        let (obu, _) = av1::split_obu(obu)?;
        if obu.kind == av1::SEQUENCE_HEADER {
            return Some(SequenceHeader::read(obu.payload)?.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyframes_of_vp8_have_their_size_in_the_first_packet() {
        let frame = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
        let expected = Some(Size::new(640, 360));
        for descriptor in [&[0x10][..], &[0x90, 0x80, 0x05], &[0x90, 0xe0, 0x81, 0x05, 0x00, 0x20]] {
            assert_eq!(keyframe_size(Codec::Vp8, &[descriptor, &frame].concat()), expected, "{descriptor:x?}");
        }
        assert_eq!(keyframe_size(Codec::Vp8, &[&[0x00][..], &frame].concat()), None, "not the first packet");
        assert_eq!(keyframe_size(Codec::Vp8, &[&[0x10, 0x11][..], &frame[1..]].concat()), None, "no keyframe");
        assert_eq!(keyframe_size(Codec::Vp8, &[0x10, 0x10]), None);
    }

    #[test]
    fn keyframes_of_vp9_have_the_size_of_their_largest_layer_in_the_scalability_structure() {
        // Flexible mode with 15 bits of picture id, layer 0, three spatial layers with sizes.
        let first = [0xba, 0x81, 0x02, 0x00, 0x50, 1, 64, 0, 180, 2, 128, 1, 104, 5, 0, 2, 208, 0x82, 0x49];
        assert_eq!(keyframe_size(Codec::Vp9, &first), Some(Size::new(1280, 720)));
        let one = [0x8a, 0x05, 0x10, 1, 64, 0, 180];
        assert_eq!(keyframe_size(Codec::Vp9, &one), Some(Size::new(320, 180)));
        assert_eq!(keyframe_size(Codec::Vp9, &[0xca, 0x05, 0x10, 1, 64, 0, 180]), None, "predicted");
        assert_eq!(keyframe_size(Codec::Vp9, &[0x88, 0x05, 0x82, 0x49]), None, "without a structure");
    }

    #[test]
    fn keyframes_of_h264_begin_with_their_sequence_parameter_set() {
        let sps = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01];
        let expected = Some(Size::new(640, 368));
        assert_eq!(keyframe_size(Codec::H264, &sps), expected);
        let aggregate = [&[0x78, 0, 2, 0x09, 0x10, 0, 16][..], &sps, &[0, 2, 0x68, 0xce]].concat();
        assert_eq!(keyframe_size(Codec::H264, &aggregate), expected);
        assert_eq!(keyframe_size(Codec::H264, &[0x65, 0x88, 0x84]), None, "a slice alone");
        assert_eq!(keyframe_size(Codec::H264, &aggregate[..9]), None, "truncated");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(data in proptest::collection::vec(any::<u8>(), 0..120)) {
            for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus] {
                let _ = keyframe_size(codec, &data);
            }
        }
    }
}
