//! Codecs: decoders, encoders, RTP payload formats.
//!
//! Owns: pictures in memory, decoding and encoding, RTP payload formats, frame headers, and the check of which
//! GStreamer elements are installed ([`Feature`]). Does not know: rooms, tiles, networks. In: payloads and pictures.
//! Out: pictures and payloads, by callback from the codec's thread.

pub mod aac;
pub mod colour;
mod decode;
mod depay;
mod encode;
mod filter;
mod h264;
mod header;
pub mod intake;
mod pay;
mod picture;
mod repeat;
pub mod scale;
pub mod sound;
pub mod srt;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::prelude::PluginFeatureExt;

pub use self::decode::{DecodeLimits, Decoded, VideoDecoder};
pub use self::depay::Depayloader;
pub use self::encode::{Effort, EncodeSpec, EncodedFrame, H264Encoder, VideoEncoder};
pub use self::filter::{Background, Filtered, MediaFilter, Raw};
pub use self::header::{Entry, coded_colours, coded_size, entry, is_keyframe};
pub use self::pay::Payloader;
pub use self::picture::{Picture, PictureMut, PicturePool};
pub use self::repeat::repeat_frame;

use crate::media::{Codec, Size};
use crate::pipeline::{AacHoles, PipelineError, Recipe, SendHoles};

/// Why media was not decoded, encoded or packetized.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// GStreamer does not start.
    #[error("GStreamer does not start: {0}")]
    Start(String),
    /// No pipeline for this codec in this direction.
    #[error("{0} cannot be {1} by this server")]
    Unsupported(Codec, &'static str),
    /// A pipeline cannot be made.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A payload or frame violates its format.
    #[error("malformed {codec}: {reason}")]
    Malformed {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        reason: &'static str,
    },
    /// A frame has a size that is not allowed.
    #[error("picture size {size} is outside 16x16 to {max}: send a smaller one")]
    Size {
        /// The frame's size.
        size: Size,
        /// The largest allowed.
        max: Size,
    },
    /// The first frame is not a keyframe.
    #[error("decoding begins with a keyframe: ask for one")]
    KeyframeNeeded,
    /// Frames come faster than they are decoded; this one was dropped.
    #[error("the decoder is {0} frames behind: drop to the next keyframe")]
    Behind(u64),
    /// Too many decoders or encoders wait to be made.
    #[error("too many decoders or encoders wait to be made: try again")]
    BuilderFull,
    /// An intake failed.
    #[error("{0}")]
    Source(String),
    /// The decoder has failed; its owner makes another one.
    #[error("the decoder has failed: make a new one")]
    Failed,
}

impl CodecError {
    /// Whether the same attempt fails again for as long as this process runs: the codec is not supported, or an element
    /// is not installed.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unsupported(..) | Self::Start(_) | Self::Pipeline(PipelineError::Missing { .. }))
    }
}

/// Starts GStreamer, once a process. Elements are checked for each pipeline, see [`missing`].
///
/// # Errors
/// [`CodecError::Start`].
pub fn init() -> Result<(), CodecError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(|| gst::init().map_err(|error| error.to_string())).clone().map_err(CodecError::Start)
}

/// A feature that needs GStreamer elements of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Decoding a video codec.
    Decode(Codec),
    /// Encoding a video codec.
    Encode(Codec, H264Encoder),
    /// Encoding AAC, for MP4 files and for broadcasts.
    Aac,
    /// Sending by SRT.
    SendSrt,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 10] = [
        Self::Decode(Codec::Vp8),
        Self::Decode(Codec::Vp9),
        Self::Decode(Codec::H264),
        Self::Decode(Codec::Av1),
        Self::Encode(Codec::Vp8, H264Encoder::X264),
        Self::Encode(Codec::Vp9, H264Encoder::X264),
        Self::Encode(Codec::H264, H264Encoder::X264),
        Self::Encode(Codec::H264, H264Encoder::OpenH264),
        Self::Aac,
        Self::SendSrt,
    ];

    /// The features of a mixer with this H.264 encoder.
    pub fn of_mixer(h264: H264Encoder) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |feature| match feature {
            Self::Decode(_) => true,
            Self::Encode(codec, encoder) => *codec != Codec::H264 || *encoder == h264,
            Self::Aac | Self::SendSrt => false,
        })
    }

    /// Whether its elements are installed. [`init`] was called before.
    ///
    /// # Errors
    /// [`PipelineError::Missing`] names the element and its Debian package.
    pub fn check(self) -> Result<(), CodecError> {
        let recipe = match self {
            Self::Decode(codec) => decode::recipe(codec)?,
            Self::Encode(codec, h264) => {
                let size = Size::new(320, 180);
                encode::recipe(&EncodeSpec {
                    codec,
                    size,
                    fps: 30,
                    bitrate_kbps: 300,
                    h264,
                    threads: 1,
                    effort: Effort::Fast,
                })?
            }
            Self::Aac => Recipe::EncodeAac(AacHoles { bitrate_bps: 128_000, queue: 1 }),
            Self::SendSrt => Recipe::SendSrt(SendHoles { queue: 1 }),
        };
        Ok(recipe.check()?)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(codec) => write!(f, "decoding {codec}"),
            Self::Encode(Codec::H264, H264Encoder::OpenH264) => f.write_str("encoding H264 with openh264"),
            Self::Encode(codec, _) => write!(f, "encoding {codec}"),
            Self::Aac => f.write_str("encoding AAC"),
            Self::SendSrt => f.write_str("sending by SRT"),
        }
    }
}

/// The features that are not available on this machine, each as a text that names the element and its Debian package.
pub fn missing(features: impl IntoIterator<Item = Feature>) -> Vec<String> {
    if let Err(error) = init() {
        return vec![error.to_string()];
    }
    let checked = features.into_iter().map(|feature| (feature, feature.check()));
    checked.filter_map(|(feature, found)| Some(format!("{feature} is not available: {}", found.err()?))).collect()
}

/// The versions of GStreamer and of the plugins with the codecs: `GStreamer 1.22.0 with app 1.22.0, vpx 1.22.0`.
/// Plugins that are not installed are left out. [`init`] was called before.
pub fn versions() -> String {
    const ELEMENTS: [&str; 7] = ["appsrc", "vp8dec", "openh264dec", "av1dec", "x264enc", "avenc_aac", "srtsink"];
    let mut plugins: Vec<String> = Vec::new();
    for plugin in ELEMENTS.iter().filter_map(|element| gst::ElementFactory::find(element)?.plugin()) {
        let named = format!("{} {}", plugin.plugin_name(), plugin.version());
        if !plugins.contains(&named) {
            plugins.push(named);
        }
    }
    format!("{} with {}", gst::version_string(), plugins.join(", "))
}
