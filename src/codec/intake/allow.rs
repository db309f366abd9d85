//! Which elements there are in a process that takes a source in.
//!
//! Owns: the lists, and [`confine`], which takes everything else out of GStreamer's registry. So whatever a container or
//! playlist names, nothing can be made of it but this: no other way to the network or to files, no demuxer or decoder that
//! nobody needs. The lists hold what cameras, encoders and editors write today.

use std::collections::BTreeSet;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::Way;
use crate::pipeline::elements;

/// What every source needs: plumbing, and what `codec` encodes with afterwards.
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
    "vorbisdec",
    "vp8dec",
    "vp9dec",
    "vp9parse",
    "wavparse",
];

/// What a way of fetching needs besides.
const fn of(way: Way) -> &'static [&'static str] {
    match way {
        Way::File => &["filesrc"],
        Way::Http => &["hlsdemux", "webfetch"],
        Way::Srt => &["srtsrc"],
        Way::Fed => &[],
    }
}

fn is_allowed(way: Way, element: &str) -> bool {
    [COMMON, MEDIA, of(way)].iter().any(|list| list.contains(&element))
}

/// Takes every element out of this process' registry that a source fetched in this way does not need; says which of those
/// it needs are not there. For good, and for every thread: a process takes one source in.
pub(super) fn confine(way: Way) -> Vec<String> {
    let registry = gst::Registry::get();
    let elements = || registry.features(gst::ElementFactory::static_type());
    // A plugin registers all its elements when it is loaded, which brings back what was taken out before: so load first.
    let mut wanted = BTreeSet::new();
    for element in elements() {
        if is_allowed(way, &element.name())
            && let Some(plugin) = element.plugin_name()
        {
            wanted.insert(plugin.to_string());
        }
    }
    for plugin in &wanted {
        if let Err(error) = gst::Plugin::load_by_name(plugin) {
            tracing::warn!(plugin, %error, "a GStreamer plugin cannot be loaded");
        }
    }
    for element in elements() {
        if !is_allowed(way, &element.name()) {
            registry.remove_feature(&element);
        }
    }
    let there: BTreeSet<String> = elements().iter().map(|element| element.name().to_string()).collect();
    let all = COMMON.iter().chain(MEDIA).chain(of(way));
    all.filter(|element| !there.contains(**element))
        .map(|element| {
            let package = elements::package(element).unwrap_or("the package that contains it");
            format!(
                "GStreamer element `{element}` is not installed, so that some inputs fail: apt-get install {package}"
            )
        })
        .collect()
}
