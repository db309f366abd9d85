//! Codecs: decoders, encoders, payload formats.
//!
//! Owns: pictures in memory, how frames become pictures and pictures frames, how frames travel in RTP payloads, and what a
//! frame's own header says. Does not know: rooms, tiles, networks. In: payloads and pictures. Out: pictures and payloads,
//! by callback from the codec's own thread.

pub mod aac;
pub mod colour;
mod decode;
mod depay;
mod encode;
mod header;
pub mod intake;
mod pay;
mod picture;
pub mod scale;
pub mod sound;
pub mod srt;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::prelude::PluginFeatureExt;

pub use self::decode::{DecodeLimits, Decoded, VideoDecoder};
pub use self::depay::Depayloader;
pub use self::encode::{EncodeSpec, EncodedFrame, H264Encoder, VideoEncoder};
pub use self::header::coded_size;
pub use self::pay::Payloader;
pub use self::picture::{Picture, PictureMut, PicturePool};

use crate::media::{Codec, Size};
use crate::pipeline::PipelineError;

/// Elements the pipelines need, and the Debian package that brings each.
const NEEDED: [(&str, &str); 12] = [
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("appsink", "gstreamer1.0-plugins-base"),
    ("vp8dec", "gstreamer1.0-plugins-good"),
    ("vp9dec", "gstreamer1.0-plugins-good"),
    ("openh264dec", "gstreamer1.0-plugins-bad"),
    ("av1dec", "gstreamer1.0-plugins-bad"),
    ("vp8enc", "gstreamer1.0-plugins-good"),
    ("vp9enc", "gstreamer1.0-plugins-good"),
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("openh264enc", "gstreamer1.0-plugins-bad"),
    ("avenc_aac", "gstreamer1.0-libav"),
    ("srtsink", "gstreamer1.0-plugins-bad"),
];

/// Why media could not be decoded, encoded or packed.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// GStreamer does not start.
    #[error("GStreamer does not start: {0}")]
    Start(String),
    /// An element is not installed.
    #[error("GStreamer's element `{element}` is missing: apt-get install {package}")]
    Missing {
        /// The element.
        element: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// No pipeline for this codec in this direction.
    #[error("{0} is not {1} here")]
    Unsupported(Codec, &'static str),
    /// A pipeline file is wrong.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A payload or frame that is not what its codec says.
    #[error("bad {codec}: {reason}")]
    Malformed {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        reason: &'static str,
    },
    /// A frame of a size nobody agreed to.
    #[error("a picture of {size} is outside 16x16 to {max}: send a smaller one")]
    Size {
        /// The frame's size.
        size: Size,
        /// The largest allowed.
        max: Size,
    },
    /// The first frame is no keyframe.
    #[error("decoding begins with a keyframe: ask for one")]
    KeyframeNeeded,
    /// Frames come faster than they are decoded; this one was not taken.
    #[error("the decoder is {0} frames behind: drop to the next keyframe")]
    Behind(u64),
    /// A source cannot be taken in.
    #[error("{0}")]
    Source(String),
    /// The decoder has failed and takes nothing any more.
    #[error("the decoder has failed: make a new one")]
    Failed,
}

/// Starts GStreamer, once a process, and looks, once, whether every element is there.
///
/// # Errors
/// [`CodecError::Missing`] names the package to install.
pub fn init() -> Result<(), CodecError> {
    static STARTED: OnceLock<Result<Option<(&str, &str)>, String>> = OnceLock::new();
    let start = || match gst::init() {
        Ok(()) => Ok(NEEDED.into_iter().find(|(element, _)| gst::ElementFactory::find(element).is_none())),
        Err(error) => Err(error.to_string()),
    };
    match STARTED.get_or_init(start).clone() {
        Ok(None) => Ok(()),
        Ok(Some((element, package))) => Err(CodecError::Missing { element, package }),
        Err(reason) => Err(CodecError::Start(reason)),
    }
}

/// The versions of GStreamer and of the plugins that bring what is needed: `GStreamer 1.22.0 with app 1.22.0, vpx 1.22.0`.
/// Those of elements that are missing are left out. [`init`] was called before.
pub fn versions() -> String {
    let mut plugins: Vec<String> = Vec::new();
    for plugin in NEEDED.iter().filter_map(|(element, _)| gst::ElementFactory::find(element)?.plugin()) {
        let named = format!("{} {}", plugin.plugin_name(), plugin.version());
        if !plugins.contains(&named) {
            plugins.push(named);
        }
    }
    format!("{} with {}", gst::version_string(), plugins.join(", "))
}
