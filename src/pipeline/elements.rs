//! The GStreamer elements that the files name, and the Debian packages that contain them.
//!
//! Owns: the table of packages, and the check before a pipeline is made. Does not know: what a pipeline is for. In: the
//! description of a pipeline. Out: [`PipelineError::Missing`] for the first element that is not installed.
//!
//! The check is made for each pipeline, so that a missing element disables only the pipelines that contain it.

use std::borrow::Cow;

use gstreamer as gst;

use super::PipelineError;

const CORE: &str = "libgstreamer1.0-0";
const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const LIBAV: &str = "gstreamer1.0-libav";

/// Packages and their elements, as in Debian 12.
const PACKAGES: [(&str, &[&str]); 6] = [
    (
        CORE,
        &[
            "bin",
            "capsfilter",
            "fakesink",
            "filesrc",
            "identity",
            "multiqueue",
            "pipeline",
            "queue",
            "queue2",
            "typefind",
        ],
    ),
    (
        BASE,
        &[
            "appsink",
            "appsrc",
            "audioconvert",
            "audioresample",
            "decodebin",
            "oggdemux",
            "opusdec",
            "videoconvert",
            "videoscale",
            "volume",
            "vorbisdec",
        ],
    ),
    (
        GOOD,
        &[
            "aacparse",
            "ac3parse",
            "alawdec",
            "alpha",
            "audiocheblimit",
            "audiodynamic",
            "audioecho",
            "deinterlace",
            "equalizer-3bands",
            "flacdec",
            "flacparse",
            "flvdemux",
            "id3demux",
            "jpegdec",
            "matroskademux",
            "mpegaudioparse",
            "mulawdec",
            "qtdemux",
            "videobalance",
            "videoflip",
            "vp8dec",
            "vp8enc",
            "vp9dec",
            "vp9enc",
            "wavparse",
        ],
    ),
    (
        BAD,
        &[
            "av1dec",
            "av1parse",
            "gaussianblur",
            "h264parse",
            "h265parse",
            "hlsdemux",
            "mpeg4videoparse",
            "mpegpsdemux",
            "mpegvideoparse",
            "openh264dec",
            "openh264enc",
            "opusparse",
            "srtsink",
            "srtsrc",
            "tsdemux",
            "vp9parse",
        ],
    ),
    (UGLY, &["x264enc"]),
    (
        LIBAV,
        &[
            "avdec_aac",
            "avdec_ac3",
            "avdec_eac3",
            "avdec_h264",
            "avdec_h265",
            "avdec_mp3",
            "avdec_mpeg2video",
            "avdec_mpeg4",
            "avenc_aac",
        ],
    ),
];

/// The Debian package that contains an element; None for an element that no file and no allow-list names.
pub fn package(element: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(_, elements)| elements.contains(&element)).map(|(package, _)| *package)
}

/// The elements that a description in gst-launch syntax names.
pub(super) fn named(description: &str) -> impl Iterator<Item = &str> {
    let first_words = description.split('!').filter_map(|segment| segment.split_whitespace().next());
    // A segment of caps has a media type (`video/x-raw`) instead of an element.
    // `tee.` is a reference to an element that is named elsewhere.
    first_words.filter(|word| !word.contains('/') && !word.ends_with('.'))
}

/// Whether every element of a description is installed. GStreamer must be initialised.
///
/// # Errors
/// [`PipelineError::Missing`] names the element and its package.
pub(super) fn check(file: impl Into<Cow<'static, str>>, description: &str) -> Result<(), PipelineError> {
    match named(description).find(|element| gst::ElementFactory::find(element).is_none()) {
        None => Ok(()),
        Some(element) => {
            let package = package(element).unwrap_or("the package that contains it");
            Err(PipelineError::Missing { file: file.into(), element: element.to_owned(), package })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_first_words_of_segments_without_caps() {
        let description =
            "filesrc name=source ! video/x-raw,format=I420 ! appsink  name=out caps=audio/mpeg,mpegversion=4";
        assert_eq!(named(description).collect::<Vec<_>>(), ["filesrc", "appsink"]);
    }

    #[test]
    fn a_missing_element_is_reported_with_its_package() {
        gst::init().expect("GStreamer is installed");
        assert!(check("x.gst", "appsrc ! appsink").is_ok());
        let error = check("x.gst", "appsrc ! nosuchelement ! appsink").expect_err("not installed");
        assert!(error.to_string().contains("`nosuchelement`"), "{error}");
        assert_eq!(package("srtsink"), Some(BAD));
        assert_eq!(package("x264enc"), Some(UGLY));
    }
}
