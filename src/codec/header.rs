//! Frame headers, parsed before a frame is decoded.
//!
//! Owns: the parts of VP8 (RFC 6386 section 9.1), VP9 (bitstream section 6.2), H.264 (section 7.3.2.1) and AV1 (section
//! 5.5) that contain the frame type, the colours, and the size that a decoder would allocate. Does not know: which
//! sizes are allowed. In: one whole frame. Out: [`Header`].

use bytes::Bytes;

use super::{CodecError, h264};
use crate::container::av1;
use crate::container::avc::{self, nal_units};
use crate::container::bits::Bits;
use crate::media::{Codec, Colours, Size};

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
    for (i, length) in vp9_superframe(frame)?.into_iter().enumerate() {
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

/// The lengths of the frames in a superframe (Annex B), or of the one frame.
fn vp9_superframe(frame: &[u8]) -> Option<Vec<usize>> {
    let marker = *frame.last()?;
    if marker & 0xe0 == 0xc0 {
        let (bytes, frames) = (usize::from(marker >> 3 & 3) + 1, usize::from(marker & 7) + 1);
        let index = 2 + bytes * frames;
        if frame.len() >= index && frame[frame.len() - index] == marker {
            let sizes = &frame[frame.len() - index + 1..frame.len() - 1];
            let length = |size: &[u8]| size.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
            return Some(sizes.chunks(bytes).map(length).collect());
        }
    }
    Some(vec![frame.len()])
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
    let mut units = 0;
    for unit in nal_units(frame) {
        units += 1;
        match unit[0] & 0x1f {
            h264::IDR => header.keyframe = true,
            h264::SEI => header.recovery_point = header.recovery_point.or_else(|| h264::recovery_point(unit)),
            h264::SPS => {
                let avc::SequenceParameterSet { size, colours } = avc::SequenceParameterSet::read(unit)?;
                header.size = larger(header.size, Some(size));
                header.colours = colours;
            }
            _ => {}
        }
    }
    (units > 0).then_some(header)
}

fn av1(frame: &[u8]) -> Option<Header> {
    let mut header = Header::default();
    let mut units = 0;
    let mut rest = frame;
    while !rest.is_empty() {
        let obu;
        (obu, rest) = av1::split_obu(rest)?;
        units += 1;
        if obu.kind == av1::SEQUENCE_HEADER {
            // Encoders send it with keyframes only.
            let av1::SequenceHeader { size, colours, .. } = av1::SequenceHeader::read(obu.payload)?;
            header = Header { keyframe: true, size: larger(header.size, Some(size)), colours, ..header };
        }
    }
    (units > 0).then_some(header)
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

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for codec in ALL {
                let _ = read(codec, &data);
            }
        }
    }
}
