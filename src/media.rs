//! What media is made of: codecs, sizes, tiers, streams, packets. Plain data shared by every layer.
//!
//! Owns: the words. Does not know: how anything is decoded, drawn, encoded or sent.

mod sound;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::sound::{SoundLimits, SoundQuality, SoundSpec, SoundTaken, Sounds};
use crate::id::ViewName;
use crate::time::Timestamp;

/// Samples per second of all audio inside: Opus' own rate.
pub const AUDIO_RATE: u32 = 48_000;
/// Samples per channel in one audio tick of 20 ms.
pub const AUDIO_TICK_SAMPLES: usize = 960;
/// RTP clock of every video codec (RFC 7741, 6184, 9628).
pub const VIDEO_CLOCK: u32 = 90_000;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// What a source shows or says.
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
    /// Audio or video.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Camera | Self::Screen => Kind::Video,
            Self::Microphone => Kind::Audio,
        }
    }
}

/// The codecs that come in or go out.
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

    /// The encoding name of SDP's `a=rtpmap`, as the registry writes it.
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

    /// The codec of an encoding name, compared without case.
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

/// A picture's size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Size {
    /// A size.
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
    /// Pixels from the left edge.
    pub x: u32,
    /// Pixels from the top edge.
    pub y: u32,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Rect {
    /// The rectangle's size.
    pub const fn size(self) -> Size {
        Size::new(self.width, self.height)
    }
}

/// How far a picture must be turned clockwise before it is shown (3GPP TS 26.114 coordination of video orientation).
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

/// What a picture's samples mean: luma and chroma weights and their range (ITU-T H.273). Everything inside is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Colours {
    /// Which weights made luma and chroma of red, green and blue.
    pub matrix: Matrix,
    /// Samples use all of 0 to 255, instead of 16 to 235 (luma) and 240 (chroma).
    pub full_range: bool,
}

/// Matrix coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Matrix {
    /// ITU-R BT.601: what receivers of WebRTC take pictures for that say nothing.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
}

/// What must be done to a decoded picture before it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Look {
    /// Turn it.
    pub rotation: Rotation,
    /// Take its samples for these.
    pub colours: Colours,
}

/// A rung of the quality ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Sound only.
    Audio,
    /// Sound, and a sharp picture every second or so: for links too thin for a moving one.
    Slides,
    /// 320x180, 15 frames a second.
    Low,
    /// 640x360, 30 frames a second.
    Medium,
    /// The whole canvas.
    High,
}

impl Tier {
    /// Every rung, the least first.
    pub const ALL: [Self; 5] = [Self::Audio, Self::Slides, Self::Low, Self::Medium, Self::High];
}

/// Names one encoded video output: which view, in which codec, how good.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamKey {
    /// The composition shown.
    pub view: ViewName,
    /// The codec it is encoded with.
    pub codec: Codec,
    /// The rung of the ladder.
    pub tier: Tier,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.view, self.codec, format!("{:?}", self.tier).to_lowercase())
    }
}

/// A format of files.
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

    /// What a file's name ends with, behind the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Webm => "webm",
            Self::Mkv => "mkv",
            Self::Ogg => "ogg",
        }
    }

    /// The format of files whose names end so.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The media type of such a file.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Webm => "video/webm",
            Self::Mkv => "video/matroska",
            Self::Ogg => "audio/ogg",
        }
    }

    /// The video codecs it holds, the usual one first; none for a format of sound alone.
    pub const fn video(self) -> &'static [Codec] {
        match self {
            Self::Mp4 => &[Codec::H264],
            Self::Webm => &[Codec::Vp8, Codec::Vp9],
            Self::Mkv => &[Codec::Vp8, Codec::H264, Codec::Vp9],
            Self::Ogg => &[],
        }
    }
}

/// One RTP packet as a participant sent it, stripped of what belongs to its connection (SSRC, payload type, padding).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePacket {
    /// RTP sequence number as sent.
    pub sequence: u16,
    /// RTP timestamp as sent, in the codec's clock.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// When the edge received it.
    pub arrival: Timestamp,
    /// Client-measured level (RFC 6464): 0 is loudest, 127 silence, in -dBov.
    pub audio_level: Option<u8>,
    /// Orientation, where the packet carried one.
    pub rotation: Option<Rotation>,
    /// Meaning of the samples, where the packet carried one.
    pub colours: Option<Colours>,
    /// RTP payload, with the codec's payload descriptor.
    pub payload: Bytes,
}

/// One RTP payload of an encoded stream, ready for every subscriber: only the RTP header is theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedPacket {
    /// RTP timestamp in the codec's clock, counted from the room's epoch.
    pub timestamp: u32,
    /// Last packet of its frame.
    pub marker: bool,
    /// First packet of a keyframe: a subscriber may begin here. Always true for audio.
    pub starts_keyframe: bool,
    /// RTP payload, with the codec's payload descriptor.
    pub payload: Bytes,
}
