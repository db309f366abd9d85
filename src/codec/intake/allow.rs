//! The allow-list of GStreamer elements in an input process.
//!
//! Owns: the lists, and [`confine`], which removes all other elements from the registry. Does not know: the source. In:
//! the protocol of the source. Out: the allowed elements that are not installed. A container or playlist can therefore
//! cause no other network access, file access, demuxer or decoder. The lists contain the formats of today's cameras,
//! encoders and editors.

use std::collections::BTreeSet;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::Protocol;
use crate::pipeline::elements;

/// Elements for every source, and the encoders.
const COMMON: &[&str] = &[
    "appsink",
    "appsrc",
    "audioconvert",
    "audioresample",
    "bin",
    "capsfilter",
    "decodebin",
    "deinterlace",
    "fakesink",
    "multiqueue",
    "openh264enc",
    "pipeline",
    "queue",
    "queue2",
    "typefind",
    "videoconvert",
    "videoflip",
    "vp8enc",
    "vp9enc",
    "x264enc",
];

/// Containers, parsers and decoders.
const MEDIA: &[&str] = &[
    "aacparse",
    "ac3parse",
    "alawdec",
    "av1dec",
    "av1parse",
    "avdec_aac",
    "avdec_ac3",
    "avdec_eac3",
    "avdec_h264",
    "avdec_h265",
    "avdec_mp3",
    "avdec_mpeg2video",
    "avdec_mpeg4",
    "flacdec",
    "flacparse",
    "flvdemux",
    "h264parse",
    "h265parse",
    "id3demux",
    "jpegdec",
    "matroskademux",
    "mpeg4videoparse",
    "mpegaudioparse",
    "mpegpsdemux",
    "mpegvideoparse",
    "mulawdec",
    "oggdemux",
    "opusdec",
    "opusparse",
    "qtdemux",
    "tsdemux",
    "tsretime",
    "vorbisdec",
    "vp8dec",
    "vp9dec",
    "vp9parse",
    "wavparse",
];

/// Further elements of a protocol.
const fn of(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::File => &["filesrc"],
        Protocol::Http => &["hlsdemux", "webfetch"],
        Protocol::Srt => &["srtsrc"],
        Protocol::Pushed => &[],
    }
}

fn is_allowed(protocol: Protocol, element: &str) -> bool {
    [COMMON, MEDIA, of(protocol)].iter().any(|list| list.contains(&element))
}

/// Removes all other elements from the registry of this process, for good and for all threads. Returns a text for each
/// allowed element that is not installed.
pub(super) fn confine(protocol: Protocol) -> Vec<String> {
    let registry = gst::Registry::get();
    let elements = || registry.features(gst::ElementFactory::static_type());
    // A plugin registers all its elements when it is loaded, also removed ones: so the plugins are loaded first.
    let mut wanted = BTreeSet::new();
    for element in elements() {
        if is_allowed(protocol, &element.name())
            && let Some(plugin) = element.plugin_name()
        {
            wanted.insert(plugin.to_string());
        }
    }
    for plugin in &wanted {
        if let Err(error) = gst::Plugin::load_by_name(plugin) {
            tracing::warn!(plugin, %error, "cannot load GStreamer plugin");
        }
    }
    for element in elements() {
        if !is_allowed(protocol, &element.name()) {
            registry.remove_feature(&element);
        }
    }
    let there: BTreeSet<String> = elements().iter().map(|element| element.name().to_string()).collect();
    let all = COMMON.iter().chain(MEDIA).chain(of(protocol));
    all.filter(|element| !there.contains(**element))
        .map(|element| {
            let package = elements::package(element).unwrap_or("the package that contains it");
            format!(
                "GStreamer element `{element}` is not installed, so that some inputs fail: apt-get install {package}"
            )
        })
        .collect()
}
