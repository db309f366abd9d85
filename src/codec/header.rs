//! Frame headers, parsed before a frame is decoded.
//!
//! Owns: the parts of VP8 (RFC 6386 section 9.1), VP9 (bitstream section 6.2), H.264 (section 7.3.2.1) and AV1 (section
//! 5.5) that contain the frame type, the colours, and the size that a decoder would allocate; and the division of a
//! frame into buffers in which a decoder finds nothing else ([`buffers`]). Does not know: which sizes are allowed. In:
//! one whole frame. Out: [`Header`].

use bytes::Bytes;

use super::{CodecError, h264};
use crate::container::av1;
use crate::container::avc::{self, nal_units};
use crate::container::bits::Bits;
use crate::media::{Codec, Colours, Size};

/// Most pictures of one H.264 access unit: two fields, or two pictures whose sender has a coarse clock.
const H264_PICTURES_MAX: usize = 2;
/// Most frames of one AV1 temporal unit, as in a superframe of VP9: layers and hidden frames.
const AV1_FRAMES_MAX: usize = 8;

/// Type and size of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    /// Decoding may begin here.
    pub(super) keyframe: bool,
    /// Decoding may begin here; pictures are whole after so many frames (H.264 only).
    pub(super) recovery_point: Option<u32>,
    /// The largest size in the header; None if the frame has the size of the frames before it.
    pub(super) size: Option<Size>,
    /// The colours, if the frame signals them.
    pub(super) colours: Option<Colours>,
}

/// The picture size in the header of a frame: of each keyframe, and of other frames that change the size.
pub fn coded_size(codec: Codec, frame: &Bytes) -> Option<Size> {
    read(codec, frame).ok()?.size
}

/// The colours in the header of a frame: of keyframes whose sender signals them. VP8 does not.
pub fn coded_colours(codec: Codec, frame: &[u8]) -> Option<Colours> {
    read(codec, frame).ok()?.colours
}

/// Whether decoding may begin with a frame.
///
/// # Errors
/// [`CodecError::Malformed`]: the frame's header is not this codec's.
pub fn is_keyframe(codec: Codec, frame: &[u8]) -> Result<bool, CodecError> {
    Ok(read(codec, frame)?.keyframe)
}

/// Where decoding may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// At a keyframe: an IDR picture of H.264.
    Keyframe,
    /// At a recovery point of H.264: an intra picture that is no IDR picture, or the first picture of a gradual
    /// refresh.
    RecoveryPoint {
        /// Pictures are whole after so many frames.
        frames: u32,
    },
}

/// Where decoding may begin with a frame, as [`Depayloader::frame`](super::Depayloader::frame) returns it; None if it
/// depends on frames before it or is malformed.
pub fn entry(codec: Codec, frame: &[u8]) -> Option<Entry> {
    match read(codec, frame).ok()? {
        Header { keyframe: true, .. } => Some(Entry::Keyframe),
        Header { recovery_point: Some(frames), .. } => Some(Entry::RecoveryPoint { frames }),
        _ => None,
    }
}

/// Parses the header of a frame.
pub(super) fn read(codec: Codec, frame: &[u8]) -> Result<Header, CodecError> {
    let malformed = |reason| CodecError::Malformed { codec, reason };
    match codec {
        Codec::Vp8 => vp8(frame).ok_or_else(|| malformed("the frame header is not VP8's")),
        Codec::Vp9 => vp9(frame).ok_or_else(|| malformed("the frame header is not VP9's")),
        Codec::H264 => h264_header(frame).ok_or_else(|| malformed("a parameter set or the access unit is broken")),
        Codec::Av1 => av1(frame).ok_or_else(|| malformed("an OBU or the sequence header is broken")),
        Codec::Opus | Codec::Pcmu | Codec::Pcma => Err(CodecError::Unsupported(codec, "a video codec")),
    }
}

/// Divides a frame that [`read`] accepts into the buffers for its decoder. A decoder decodes all that it finds in a
/// buffer, also what follows the frame, so each buffer says where its frames end.
pub(super) fn buffers(codec: Codec, frame: Bytes) -> Vec<Bytes> {
    match codec {
        Codec::Vp9 => vec![with_superframe_index(frame)],
        Codec::H264 => access_units(&frame),
        // VP8 has no frames behind each other. The OBUs of AV1 have sizes, and all of them were read.
        _ => vec![frame],
    }
}

/// The larger width and the larger height of two sizes: a decoder may allocate both.
fn larger(a: Option<Size>, b: Option<Size>) -> Option<Size> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Size::new(a.width.max(b.width), a.height.max(b.height))),
        (a, b) => a.or(b),
    }
}

fn vp8(frame: &[u8]) -> Option<Header> {
    let keyframe = frame.first()? & 1 == 0;
    if !keyframe {
        return (frame.len() >= 3).then_some(Header::default());
    }
    let start_code = frame.get(3..6)?;
    if start_code != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let side = |at: usize| Some(u32::from(u16::from_le_bytes([*frame.get(at)?, *frame.get(at + 1)?]) & 0x3fff));
    Some(Header { keyframe, size: Some(Size::new(side(6)?, side(8)?)), ..Header::default() })
}

fn vp9(frame: &[u8]) -> Option<Header> {
    let mut all = Header::default();
    let mut rest = frame;
    for (i, length) in superframe_index(frame).unwrap_or_else(|| vec![frame.len()]).into_iter().enumerate() {
        let one;
        (one, rest) = rest.split_at_checked(length)?;
        // A superframe may contain empty frames, which encoders use for skipped layers.
        if one.is_empty() {
            continue;
        }
        let header = vp9_frame(one)?;
        all = Header {
            keyframe: if i == 0 { header.keyframe } else { all.keyframe },
            size: larger(all.size, header.size),
            colours: all.colours.or(header.colours),
            ..all
        };
    }
    Some(all)
}

/// The lengths of the frames in a superframe (Annex B); None without an index.
fn superframe_index(frame: &[u8]) -> Option<Vec<usize>> {
    let marker = *frame.last()?;
    if marker & 0xe0 != 0xc0 {
        return None;
    }
    let (bytes, frames) = (usize::from(marker >> 3 & 3) + 1, usize::from(marker & 7) + 1);
    let start = frame.len().checked_sub(2 + bytes * frames).filter(|start| frame[*start] == marker)?;
    let sizes = &frame[start + 1..frame.len() - 1];
    let length = |size: &[u8]| size.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some(sizes.chunks(bytes).map(length).collect())
}

/// Adds the index of a superframe of one frame, if there is none. Without an index libvpx decodes what follows the end
/// of the frame as another one, also after a single byte of `show_existing_frame`; with one, it decodes as many frames
/// as the index has.
fn with_superframe_index(frame: Bytes) -> Bytes {
    if superframe_index(&frame).is_some() {
        return frame;
    }
    let length = u32::try_from(frame.len()).expect("the jitter buffer holds fewer bytes");
    // One frame, whose size has four bytes.
    let marker = 0xc0 | 3 << 3;
    [&frame[..], &[marker], &length.to_le_bytes(), &[marker]].concat().into()
}

fn vp9_frame(frame: &[u8]) -> Option<Header> {
    let mut bits = Bits::new(frame);
    if bits.number(2)? != 2 {
        return None;
    }
    let profile = bits.number(1)? | bits.number(1)? << 1;
    // Only profile 0 is 4:2:0 with 8 bits.
    if profile != 0 {
        return None;
    }
    if bits.flag()? {
        return Some(Header::default()); // show_existing_frame
    }
    let keyframe = !bits.flag()?;
    let shown = bits.flag()?;
    let error_resilient = bits.flag()?;
    let sync_code = |bits: &mut Bits<'_>| (bits.number(24)? == 0x49_83_42).then_some(());
    let size = |bits: &mut Bits<'_>| Some(Size::new(bits.number(16)? + 1, bits.number(16)? + 1));
    if keyframe {
        sync_code(&mut bits)?;
        // Table 7.2.2 in terms of H.273, where 2 is unspecified.
        let matrix = match bits.number(3)? {
            1 | 3 => 6,
            2 => 1,
            4 => 7,
            5 => 9,
            7 => return None, // RGB needs profile 1
            _ => 2,
        };
        let colours = Colours::coded(matrix, bits.flag()?);
        return Some(Header { keyframe, size: Some(size(&mut bits)?), colours, ..Header::default() });
    }
    let intra_only = if shown { false } else { bits.flag()? };
    if !error_resilient {
        let _reset_frame_context = bits.number(2)?;
    }
    if intra_only {
        sync_code(&mut bits)?;
        let _refresh = bits.number(8)?;
        return Some(Header { keyframe, size: Some(size(&mut bits)?), ..Header::default() });
    }
    let _refresh = bits.number(8)?;
    for _ in 0..3 {
        let _reference_and_sign = bits.number(4)?;
    }
    for _ in 0..3 {
        if bits.flag()? {
            return Some(Header::default()); // size of a reference
        }
    }
    Some(Header { keyframe, size: Some(size(&mut bits)?), ..Header::default() })
}

fn h264_header(frame: &[u8]) -> Option<Header> {
    let mut header = Header::default();
    let (mut units, mut pictures) = (0, 0);
    for unit in nal_units(frame) {
        units += 1;
        pictures += usize::from(begins_picture(unit));
        match unit[0] & 0x1f {
            h264::SLICE | h264::PPS | 9..=12 => {}
            h264::IDR => header.keyframe = true,
            h264::SEI => header.recovery_point = header.recovery_point.or_else(|| h264::recovery_point(unit)),
            h264::SPS => {
                let avc::SequenceParameterSet { size, colours } = avc::SequenceParameterSet::read(unit)?;
                header.size = larger(header.size, Some(size));
                header.colours = colours;
            }
            // Units of further layers have sizes of their own (subset SPS), and no sender of one layer has them.
            _ => return None,
        }
    }
    (units > 0 && pictures <= H264_PICTURES_MAX).then_some(header)
}

/// Whether a unit is the first slice of a picture: `first_mb_in_slice` is 0, one bit of Exp-Golomb code.
fn begins_picture(unit: &[u8]) -> bool {
    matches!(h264::kind(unit), Some(h264::SLICE | h264::IDR)) && unit.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// Divides an access unit at each picture after the first. Units before a picture's first slice belong to it.
fn access_units(frame: &Bytes) -> Vec<Bytes> {
    let is_slice = |unit: &[u8]| matches!(h264::kind(unit), Some(h264::SLICE | h264::IDR));
    // The start code before a unit is at least three bytes long.
    let start = |unit: &[u8]| unit.as_ptr().addr() - frame.as_ptr().addr() - 3;
    let (mut cuts, mut has_slice, mut after_slice) = (vec![0], false, None);
    for unit in nal_units(frame) {
        if begins_picture(unit) && has_slice {
            cuts.push(after_slice.unwrap_or_else(|| start(unit)));
        }
        has_slice |= is_slice(unit);
        after_slice = if is_slice(unit) { None } else { after_slice.or_else(|| Some(start(unit))) };
    }
    cuts.push(frame.len());
    cuts.windows(2).map(|cut| frame.slice(cut[0]..cut[1])).collect()
}

fn av1(frame: &[u8]) -> Option<Header> {
    let mut header = Header::default();
    let (mut units, mut frames) = (0, 0);
    let mut sequence = None;
    let mut rest = frame;
    while !rest.is_empty() {
        let obu;
        (obu, rest) = av1::split_obu(rest)?;
        match obu.kind {
            // A second one begins another temporal unit.
            av1::TEMPORAL_DELIMITER if units > 0 => return None,
            av1::SEQUENCE_HEADER => {
                // All of a temporal unit are equal (section 7.5): otherwise one frame would be decoded in many sizes.
                if *sequence.get_or_insert(obu.payload) != obu.payload {
                    return None;
                }
                // Encoders send it with keyframes only.
                let av1::SequenceHeader { size, colours, .. } = av1::SequenceHeader::read(obu.payload)?;
                header = Header { keyframe: true, size: larger(header.size, Some(size)), colours, ..header };
            }
            av1::FRAME_HEADER | av1::FRAME => frames += 1,
            av1::TILE_LIST => return None,
            _ => {}
        }
        units += 1;
    }
    (units > 0 && frames <= AV1_FRAMES_MAX).then_some(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];

    #[test]
    fn vp8_keyframes_say_their_size() {
        let frame = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 0x00];
        let header = read(Codec::Vp8, &frame).expect("whole");
        assert_eq!(header, Header { keyframe: true, size: Some(Size::new(640, 360)), ..Header::default() });
        let mut garbage = frame;
        garbage[4] = 7;
        assert!(read(Codec::Vp8, &garbage).is_err());
        assert_eq!(read(Codec::Vp8, &[0x11, 0, 0]).expect("inter frame"), Header::default());
    }

    #[test]
    fn h264_sizes_count_blocks() {
        // 640x360 by x264: 23 rows of blocks, cropped to 22.5.
        let sps = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01];
        let mut frame = vec![0, 0, 0, 1];
        frame.extend(sps);
        frame.extend([0, 0, 1, 0x65, 0x88]);
        let header = read(Codec::H264, &frame).expect("whole");
        assert_eq!(header, Header { keyframe: true, size: Some(Size::new(640, 368)), ..Header::default() });
    }

    /// A VP9 keyframe of profile 0 as far as its size; the header continues.
    fn vp9_keyframe(width: u16, height: u16) -> Vec<u8> {
        // Frame marker 2, profile 0, keyframe, shown; sync code; colour space 1 (BT.601), limited range.
        let mut bits: Vec<u8> = vec![1, 0, 0, 0, 0, 0, 1, 0];
        let mut put = |value: u32, count: u32| bits.extend((0..count).rev().map(|at| (value >> at & 1) as u8));
        put(0x49_83_42, 24);
        put(1, 3);
        put(0, 1);
        put(u32::from(width - 1), 16);
        put(u32::from(height - 1), 16);
        put(0, 12);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }

    #[test]
    fn a_frame_of_vp9_in_a_buffer_ends_where_its_index_says() {
        let large = vp9_keyframe(8192, 8192);
        assert_eq!(read(Codec::Vp9, &large).expect("whole").size, Some(Size::new(8192, 8192)));
        // One byte of `show_existing_frame`, and a keyframe behind it; a small keyframe; a frame with zeros behind it.
        let hidden = [&[0x88][..], &large].concat();
        for frame in [hidden, vp9_keyframe(64, 48), [&[0x88][..], &[0; 40]].concat(), vec![0x88]] {
            let length = frame.len();
            let buffers = buffers(Codec::Vp9, frame.clone().into());
            assert_eq!(buffers.len(), 1);
            assert!(buffers[0].starts_with(&frame));
            assert_eq!(superframe_index(&buffers[0]), Some(vec![length]), "{frame:x?}");
            assert_eq!(read(Codec::Vp9, &buffers[0]).ok(), read(Codec::Vp9, &frame).ok());
        }
        // A superframe has an index, and all its frames are read: also hidden ones, and those after an empty one.
        let small = vp9_keyframe(64, 48);
        let marker = 0xc0 | 3;
        let lengths = [small.len() as u8, 0, 1, large.len() as u8];
        let superframe = [&small[..], &[0x88], &large, &[marker], &lengths, &[marker]].concat();
        assert_eq!(read(Codec::Vp9, &superframe).expect("whole").size, Some(Size::new(8192, 8192)));
        assert_eq!(buffers(Codec::Vp9, superframe.clone().into()), [Bytes::from(superframe)]);
    }

    /// An H.264 SPS of 640x368 by x264, a PPS, an IDR slice and P slices: of a picture's beginning, and of its rest.
    const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0, 0, 3, 0, 1];
    const PPS: &[u8] = &[0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80];
    const IDR: &[u8] = &[0, 0, 1, 0x65, 0x88, 0x84, 5];
    const P: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 4];
    const REST: &[u8] = &[0, 0, 1, 0x41, 0x42, 7];

    #[test]
    fn an_access_unit_with_two_pictures_becomes_two_buffers() {
        let whole = |parts: &[&[u8]]| Bytes::from(parts.concat());
        // Start codes of four bytes begin with a zero that ends the buffer before.
        let divided = |parts: &[&[u8]]| -> Vec<Vec<Vec<u8>>> {
            let units = |buffer: &Bytes| nal_units(buffer).map(<[u8]>::to_vec).collect();
            buffers(Codec::H264, whole(parts)).iter().map(units).collect()
        };
        let units = |parts: &[&[u8]]| nal_units(&parts.concat()).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let one = [SPS, PPS, IDR, REST, REST];
        assert_eq!(buffers(Codec::H264, whole(&one)), [whole(&one)]);
        assert_eq!(divided(&[SPS, PPS, IDR, REST, P, REST]), [units(&[SPS, PPS, IDR, REST]), units(&[P, REST])]);
        assert_eq!(divided(&[SPS, PPS, IDR, SPS, PPS, IDR]), [units(&[SPS, PPS, IDR]), units(&[SPS, PPS, IDR])]);
        assert_eq!(divided(&[P, IDR]), [units(&[P]), units(&[IDR])]);
        assert!(read(Codec::H264, &[P, P].concat()).is_ok());
        assert!(read(Codec::H264, &[P, P, P].concat()).is_err(), "more than two fields");
        assert!(read(Codec::H264, &[SPS, PPS, IDR].concat().repeat(3)).is_err());
    }

    #[test]
    fn every_parameter_set_of_an_access_unit_counts_and_units_of_further_layers_are_refused() {
        // The same SPS with other numbers of blocks: `pic_width_in_mbs_minus1` of 639.
        let mut sets = vec![SPS.to_vec()];
        sets.push([&[0, 0, 0, 1][..], &large_sps()].concat());
        for order in [[0, 1], [1, 0]] {
            let frame = [&sets[order[0]][..], &sets[order[1]], PPS, IDR].concat();
            assert_eq!(read(Codec::H264, &frame).expect("whole").size, Some(Size::new(10_240, 368)), "{order:?}");
            let between = [&sets[order[0]][..], PPS, IDR, &sets[order[1]], P].concat();
            assert_eq!(read(Codec::H264, &between).expect("whole").size, Some(Size::new(10_240, 368)), "{order:?}");
        }
        for kind in [0x0f, 0x6e, 0x6f, 0x74, 0x15] {
            let frame = [SPS, PPS, &[0, 0, 1, kind, 0x42, 0x80], IDR].concat();
            assert!(read(Codec::H264, &frame).is_err(), "{kind:x}");
        }
    }

    /// A baseline SPS of 10240x368.
    fn large_sps() -> Vec<u8> {
        let mut bits = String::new();
        let golomb = |value: u32| {
            format!("{:0>width$b}", value + 1, width = 2 * (32 - (value + 1).leading_zeros()) as usize - 1)
        };
        // Identifier, `log2_max_frame_num`, order type 2, references.
        for value in [0, 0, 2, 1] {
            bits += &golomb(value);
        }
        bits += "0";
        bits += &golomb(639);
        bits += &golomb(22);
        // Frames only, direct inference, no cropping, no VUI, stop bit.
        bits += "11001";
        let bytes = bits
            .as_bytes()
            .chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | (bit - b'0') << (7 - at)));
        [0x67, 0x42, 0xc0, 0x1e].into_iter().chain(bytes).collect()
    }

    /// A temporal delimiter, and a sequence header of 640x360 by libaom.
    const AV1_BEGIN: &[u8] = &[0x12, 0];
    const AV1_SEQUENCE: &[u8] = &[0x0a, 0x0b, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10];

    #[test]
    fn a_temporal_unit_of_av1_has_one_sequence_header_and_few_frames() {
        let frame: &[u8] = &[0x32, 1, 0x30];
        let read = |parts: &[&[u8]]| read(Codec::Av1, &parts.concat());
        let sequence = read(&[AV1_BEGIN, AV1_SEQUENCE, frame]).expect("whole");
        assert_eq!(read(&[AV1_BEGIN, AV1_SEQUENCE, AV1_SEQUENCE, frame]).expect("equal headers"), sequence);
        let mut other = AV1_SEQUENCE.to_vec();
        // A bit of `max_frame_width_minus_1`.
        other[7] ^= 0x10;
        assert!(read(&[AV1_BEGIN, &other, frame]).is_ok());
        assert!(read(&[AV1_BEGIN, AV1_SEQUENCE, frame, &other, frame]).is_err(), "another size for the second frame");
        assert!(read(&[AV1_BEGIN, AV1_SEQUENCE, frame, AV1_BEGIN, AV1_SEQUENCE, frame]).is_err(), "two units");
        let frames = |count| [AV1_BEGIN, AV1_SEQUENCE, &frame.repeat(count)].concat();
        assert!(read(&[&frames(AV1_FRAMES_MAX)]).is_ok() && read(&[&frames(AV1_FRAMES_MAX + 1)]).is_err());
        assert!(read(&[AV1_BEGIN, AV1_SEQUENCE, &[0x42, 1, 0]]).is_err(), "a tile list");
    }

    proptest! {
        /// Nothing is lost or repeated, and a decoder that splits the buffers again finds one picture in each.
        #[test]
        fn buffers_have_one_picture_each(units in proptest::collection::vec(0_usize..5, 1..12)) {
            let units = units.iter().flat_map(|at| [SPS, PPS, IDR, P, REST][*at]).copied();
            let whole = Bytes::from(units.collect::<Vec<_>>());
            let buffers = buffers(Codec::H264, whole.clone());
            prop_assert_eq!(buffers.concat(), whole);
            for buffer in buffers {
                prop_assert!(nal_units(&buffer).filter(|unit| begins_picture(unit)).count() <= 1);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for codec in ALL {
                if read(codec, &data).is_ok() {
                    let _ = buffers(codec, data.clone().into());
                }
            }
        }
    }
}
