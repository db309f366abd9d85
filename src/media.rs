//! Media types shared by all layers: codecs, sizes, tiers, streams, packets.
//!
//! Owns: plain data types and their constants. Does not know: decoding, composition, encoding, transport.

mod colour;
mod sound;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::colour::Colour;
pub use self::sound::{AudioEffort, SoundLimits, SoundQuality, SoundSpec, SoundTaken, Sounds};
use crate::id::ViewName;
use crate::time::Timestamp;

/// Sample rate of all decoded audio in Hz, the rate of Opus.
pub const AUDIO_RATE: u32 = 48_000;
/// Samples per channel in one audio tick of 20 ms.
pub const AUDIO_TICK_SAMPLES: usize = 960;
/// RTP clock of every video codec (RFC 7741, 6184, 9628).
pub const VIDEO_CLOCK: u32 = 90_000;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// Kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A camera.
    Camera,
    /// A shared screen or slides.
    Screen,
    /// A microphone.
    Microphone,
}

impl SourceKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Camera, Self::Screen, Self::Microphone];

    /// Audio or video.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Camera | Self::Screen => Kind::Video,
            Self::Microphone => Kind::Audio,
        }
    }
}

/// Codecs that are received or sent by RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// VP8, RFC 6386 and 7741.
    Vp8,
    /// VP9, RFC 9628.
    Vp9,
    /// H.264, RFC 6184.
    H264,
    /// AV1.
    Av1,
    /// Opus, RFC 6716 and 7587.
    Opus,
    /// G.711 mu-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

impl Codec {
    /// Audio or video.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 => Kind::Video,
            Self::Opus | Self::Pcmu | Self::Pcma => Kind::Audio,
        }
    }

    /// RTP clock rate in Hz.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => AUDIO_RATE,
            Self::Pcmu | Self::Pcma => 8_000,
            _ => VIDEO_CLOCK,
        }
    }

    /// Encoding name in `a=rtpmap`, as registered at IANA.
    pub const fn encoding_name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::Av1 => "AV1",
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// The codec of an encoding name, compared case-insensitively.
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        [Self::Vp8, Self::Vp9, Self::H264, Self::Av1, Self::Opus, Self::Pcmu, Self::Pcma]
            .into_iter()
            .find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encoding_name())
    }
}

/// Size of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Size {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Size {
    /// A size of `width` x `height` pixels.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A rectangle on a canvas, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rect {
    /// Distance from the left edge of the canvas.
    pub x: u32,
    /// Distance from the top edge of the canvas.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Rect {
    /// Width and height.
    pub const fn size(self) -> Size {
        Size::new(self.width, self.height)
    }
}

/// Clockwise rotation to apply before display (coordination of video orientation, 3GPP TS 26.114).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Rotation {
    /// Upright.
    #[default]
    None,
    /// 90 degrees clockwise.
    Right,
    /// 180 degrees.
    Half,
    /// 270 degrees clockwise.
    Left,
}

/// Colour space of a picture (ITU-T H.273). All pictures after decoding have the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Colours {
    /// Matrix coefficients between RGB and YCbCr.
    pub matrix: Matrix,
    /// Full range (0 to 255) instead of limited range (luma 16 to 235, chroma 16 to 240).
    pub full_range: bool,
}

impl Colours {
    /// The colours that a bitstream signals by `matrix_coefficients` (ITU-T H.273 table 4) and its range; None for
    /// unspecified ones of limited range, which is no more than the default.
    pub const fn coded(matrix_coefficients: u8, full_range: bool) -> Option<Self> {
        let matrix = match matrix_coefficients {
            // The coefficients of SMPTE 240M and BT.2020 are closer to those of BT.709.
            1 | 7 | 9 | 10 => Matrix::Bt709,
            4..=6 => Matrix::Bt601,
            _ if full_range => Matrix::Bt601,
            _ => return None,
        };
        Some(Self { matrix, full_range })
    }
}

/// Matrix coefficients (ITU-T H.273).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Matrix {
    /// ITU-R BT.601, which WebRTC receivers assume without signalling.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
}

/// Rotation and colour space to apply to a decoded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Look {
    /// Rotation to apply.
    pub rotation: Rotation,
    /// Colour space of the decoded samples.
    pub colours: Colours,
}

/// A quality tier of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Audio only.
    Audio,
    /// Audio and a sharp picture about every second: for links too slow for video.
    Slides,
    /// By default 320x180, 15 frames per second.
    Low,
    /// By default 640x360, 30 frames per second.
    Medium,
    /// Size and frame rate of the canvas.
    High,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Self; 5] = [Self::Audio, Self::Slides, Self::Low, Self::Medium, Self::High];
}

/// Identifies one encoded video stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamKey {
    /// The encoded composition.
    pub view: ViewName,
    /// The codec of the stream.
    pub codec: Codec,
    /// The quality tier.
    pub tier: Tier,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.view, self.codec, format!("{:?}", self.tier).to_lowercase())
    }
}

/// A container format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// ISO base media (ISO/IEC 14496-12, 14496-14): H.264 with AAC or Opus.
    Mp4,
    /// WebM: VP8, VP9 or AV1 with Opus.
    Webm,
    /// Matroska (RFC 9559): any video with Opus.
    Mkv,
    /// Ogg (RFC 3533): Opus alone (RFC 7845).
    Ogg,
}

impl FileFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Mp4, Self::Webm, Self::Mkv, Self::Ogg];

    /// File name extension without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Webm => "webm",
            Self::Mkv => "mkv",
            Self::Ogg => "ogg",
        }
    }

    /// The format of a file name extension.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The media type (`Content-Type`).
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Webm => "video/webm",
            Self::Mkv => "video/matroska",
            Self::Ogg => "audio/ogg",
        }
    }

    /// Supported video codecs, the default first; empty for an audio format.
    pub const fn video(self) -> &'static [Codec] {
        match self {
            Self::Mp4 => &[Codec::H264],
            Self::Webm => &[Codec::Vp8, Codec::Vp9],
            Self::Mkv => &[Codec::Vp8, Codec::H264, Codec::Vp9],
            Self::Ogg => &[],
        }
    }
}

/// One RTP packet of a participant, without the fields of its connection (SSRC, payload type, padding).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePacket {
    /// RTP sequence number as sent.
    pub sequence: u16,
    /// RTP timestamp as sent, in the codec's clock.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// Arrival time at the edge.
    pub arrival: Timestamp,
    /// Capture time in microseconds on the sender's clock, which all its streams share (RFC 3550 section 6.4.1). None
    /// before the first sender report.
    pub captured: Option<Timestamp>,
    /// Audio level (RFC 6464) in -dBov: 0 is loudest, 127 silence.
    pub audio_level: Option<u8>,
    /// Video orientation, if the packet has that header extension.
    pub rotation: Option<Rotation>,
    /// Colour space, if the packet has that header extension.
    pub colours: Option<Colours>,
    /// RTP payload, with the codec's payload descriptor.
    pub payload: Bytes,
}

/// One RTP payload of an encoded stream, shared by all subscribers; each adds its own RTP header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedPacket {
    /// RTP timestamp in the codec's clock, counted from the room's epoch.
    pub timestamp: u32,
    /// Last packet of its frame.
    pub marker: bool,
    /// First packet of a keyframe, at which a subscriber may start. Always true for audio.
    pub starts_keyframe: bool,
    /// RTP payload, with the codec's payload descriptor.
    pub payload: Bytes,
}
