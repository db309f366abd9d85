//! IVF, the frame container of the libvpx and libaom tools: a header of 32 bytes, then frames with a size and a
//! timestamp.
//!
//! Owns: reading. Does not know: frames of a codec. In: a whole file. Out: [`Ivf`].

use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::media::{Codec, Size};

/// First bytes of a file.
const SIGNATURE: &[u8] = b"DKIF";
/// Shortest header, in bytes.
const HEADER: usize = 32;
/// Bytes before each frame: size (32 bits) and timestamp (64 bits), little endian.
const FRAME_HEADER: usize = 12;

/// Why a file cannot be read. Each message names the fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IvfError {
    /// The signature or the header is missing.
    #[error("this is no IVF file: make one with `ffmpeg -i INPUT -an -c:v libvpx clip.ivf`")]
    Signature,
    /// Another codec.
    #[error("codec `{0}` is not supported: use VP8 (VP80), VP9 (VP90) or AV1 (AV01)")]
    Codec(FourCc),
    /// The header's time base has a zero.
    #[error("the header has a time base of 0, so frames have no time: write the file again with a frame rate")]
    TimeBase,
    /// No frame follows the header.
    #[error("there is no frame in the file: write it again")]
    Empty,
    /// The file ends within a frame.
    #[error("the file ends within frame {0}: it was not copied or written to its end")]
    Truncated(usize),
    /// A timestamp is not above the one before.
    #[error(
        "frame {0} is not later than the frame before: write the file again without hidden frames \
         (libvpx: -auto-alt-ref 0)"
    )]
    Order(usize),
}

/// A codec's four characters; others than letters and digits are shown as `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourCc([u8; 4]);

impl std::fmt::Display for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '?' });
        shown.iter().try_for_each(|letter| write!(f, "{letter}"))
    }
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ivf {
    /// VP8, VP9 or AV1.
    pub codec: Codec,
    /// The picture size of the header.
    pub size: Size,
    /// At least one; timestamps increase.
    pub frames: Vec<IvfFrame>,
}

/// One frame, or temporal unit of AV1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IvfFrame {
    /// Presentation time.
    pub pts: Duration,
    /// The frame, not copied.
    pub data: Bytes,
}

impl Ivf {
    /// Parses a file.
    ///
    /// # Errors
    /// [`IvfError`].
    pub fn parse(mut file: Bytes) -> Result<Self, IvfError> {
        let header: [u8; HEADER] =
            file.get(..HEADER).and_then(|header| header.try_into().ok()).ok_or(IvfError::Signature)?;
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if !header.starts_with(SIGNATURE) || !(HEADER..=file.len()).contains(&length) {
            return Err(IvfError::Signature);
        }
        let codec = match &header[8..12] {
            b"VP80" => Codec::Vp8,
            b"VP90" => Codec::Vp9,
            b"AV01" => Codec::Av1,
            &[a, b, c, d] => return Err(IvfError::Codec(FourCc([a, b, c, d]))),
            _ => return Err(IvfError::Signature),
        };
        let side = |at: usize| u32::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (size, denominator, numerator) = (Size::new(side(12), side(14)), number(16), number(20));
        if denominator == 0 || numerator == 0 {
            return Err(IvfError::TimeBase);
        }
        file.advance(length);
        let mut frames: Vec<IvfFrame> = Vec::new();
        while !file.is_empty() {
            let number = frames.len() + 1;
            if file.len() < FRAME_HEADER {
                return Err(IvfError::Truncated(number));
            }
            let (length, ticks) = (file.get_u32_le() as usize, file.get_u64_le());
            if file.len() < length {
                return Err(IvfError::Truncated(number));
            }
            let nanos = u128::from(ticks) * u128::from(numerator) * 1_000_000_000 / u128::from(denominator);
            let pts = Duration::from_nanos(u64::try_from(nanos).map_err(|_| IvfError::Order(number))?);
            if frames.last().is_some_and(|before| pts <= before.pts) {
                return Err(IvfError::Order(number));
            }
            frames.push(IvfFrame { pts, data: file.split_to(length) });
        }
        if frames.is_empty() { Err(IvfError::Empty) } else { Ok(Self { codec, size, frames }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(codec: &[u8; 4], base: (u32, u32), frames: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = [SIGNATURE, &[0, 0, 32, 0], codec, &[64, 1, 180, 0]].concat();
        file.extend(base.0.to_le_bytes());
        file.extend(base.1.to_le_bytes());
        file.extend((frames.len() as u32).to_le_bytes());
        file.extend([0; 4]);
        for (pts, data) in frames {
            file.extend((data.len() as u32).to_le_bytes());
            file.extend(pts.to_le_bytes());
            file.extend(*data);
        }
        file
    }

    fn parse(file: Vec<u8>) -> Result<Ivf, IvfError> {
        Ivf::parse(file.into())
    }

    #[test]
    fn frames_have_the_times_of_the_time_base() {
        let ivf = parse(file(b"VP90", (30_000, 1_001), &[(0, b"one"), (1, b""), (5, b"two")])).expect("a file");
        assert_eq!((ivf.codec, ivf.size), (Codec::Vp9, Size::new(320, 180)));
        let frames: Vec<_> = ivf.frames.iter().map(|frame| (frame.pts.as_micros(), &frame.data[..])).collect();
        assert_eq!(frames, [(0, &b"one"[..]), (33_366, b""), (166_833, b"two")]);
    }

    #[test]
    fn each_error_names_the_fix() {
        let good = || file(b"VP80", (30, 1), &[(0, b"frame")]);
        let with = |at: usize, byte: u8| {
            let mut file = good();
            file[at] = byte;
            file
        };
        let cut = |length: usize| good()[..length].to_vec();
        for (file, error, fix) in [
            (b"RIFF".to_vec(), IvfError::Signature, "ffmpeg"),
            (with(0, b'X'), IvfError::Signature, "ffmpeg"),
            (with(6, 31), IvfError::Signature, "ffmpeg"),
            (with(7, 255), IvfError::Signature, "ffmpeg"),
            (
                file(b"H264", (30, 1), &[(0, b"x")]),
                IvfError::Codec(FourCc(*b"H264")),
                "`H264` is not supported: use VP8",
            ),
            (file(b"a\0\n\xff", (30, 1), &[]), IvfError::Codec(FourCc(*b"a\0\n\xff")), "`a???`"),
            (file(b"AV01", (0, 1), &[(0, b"x")]), IvfError::TimeBase, "frame rate"),
            (file(b"AV01", (30, 0), &[(0, b"x")]), IvfError::TimeBase, "frame rate"),
            (cut(32), IvfError::Empty, "write it again"),
            (cut(40), IvfError::Truncated(1), "frame 1"),
            (cut(48), IvfError::Truncated(1), "frame 1"),
            (file(b"VP80", (30, 1), &[(3, b"a"), (3, b"b")]), IvfError::Order(2), "auto-alt-ref 0"),
            (file(b"VP80", (30, 1), &[(u64::MAX, b"a")]), IvfError::Order(1), "frame 1"),
        ] {
            let found = parse(file).expect_err("no file");
            assert!(found == error && found.to_string().contains(fix), "{found}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_file_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), head: bool) {
            let mut data = if head { file(b"VP80", (30, 1), &[]) } else { Vec::new() };
            data.extend(bytes);
            if let Ok(ivf) = parse(data) {
                prop_assert!(ivf.frames.windows(2).all(|pair| pair[0].pts < pair[1].pts));
            }
        }
    }
}
