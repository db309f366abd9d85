//! Pipelines: makes GStreamer pipelines of the files in `pipelines/`.
//!
//! Owns: the files (gst-launch syntax with `#` comments and `{holes}`), the values of holes (numbers only, so that no
//! text from the network reaches the parser), the check of their [`elements`], the wrapper [`Pipeline`], and the thread
//! that ends pipelines. Does not know: media. In: a [`Recipe`]. Out: a playing pipeline with its ends `in` (appsrc) and
//! `out` (appsink); errors of its bus by callback, on the thread that posts them. Pipelines that grow while they play
//! are [`graph`]s; the pipelines of operators are [`filter`]s.

pub mod elements;
pub mod filter;
pub mod graph;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc, AppSrcCallbacks};

use crate::media::Size;

/// Most pipelines that wait for the thread that ends them; further ones are ended by a thread of their own.
const REAPER_QUEUE: usize = 64;

/// Why a pipeline could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The recipe has no value for a `{hole}`.
    #[error("pipelines/{file}: no value for the hole `{{{hole}}}`")]
    Hole {
        /// The name of the file.
        file: Cow<'static, str>,
        /// The name of the hole.
        hole: String,
    },
    /// An element of the file is not installed.
    #[error("GStreamer element `{element}` (pipelines/{file}) is not installed: apt-get install {package}")]
    Missing {
        /// The name of the file.
        file: Cow<'static, str>,
        /// The name of the element.
        element: String,
        /// The Debian package that contains it.
        package: &'static str,
    },
    /// GStreamer cannot parse the description.
    #[error("pipelines/{file}: {reason}")]
    Parse {
        /// The name of the file.
        file: Cow<'static, str>,
        /// The message of GStreamer.
        reason: String,
    },
    /// The description has no element with this name and type.
    #[error("pipelines/{file}: needs an {kind} with `name={end}`")]
    End {
        /// The name of the file.
        file: Cow<'static, str>,
        /// The name of the element.
        end: &'static str,
        /// The type of the element.
        kind: &'static str,
    },
    /// The pipeline does not start.
    #[error("pipelines/{file}: does not start: {reason}")]
    Start {
        /// The name of the file.
        file: Cow<'static, str>,
        /// The message of GStreamer.
        reason: String,
    },
}

/// Values for the holes of the decoder files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeHoles {
    /// Most frames in the queue of the decoder; checked by its owner.
    pub queue: u32,
}

/// Values for the holes of the encoder files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeHoles {
    /// The canvas in pixels.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// Target bitrate in kbit/s.
    pub bitrate_kbps: u32,
    /// Threads of the encoder.
    pub threads: u32,
    /// Speed of the encoder, in its own scale.
    pub speed: i32,
    /// Most frames from one keyframe to the next.
    pub keyframe_distance: u32,
    /// Most pictures in the queue of the encoder; checked by its owner.
    pub queue: u32,
}

/// Values for the holes of the AAC encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AacHoles {
    /// Target bitrate in bit/s.
    pub bitrate_bps: u32,
    /// Most buffers in the queue of the encoder; checked by its owner.
    pub queue: u32,
}

/// Values for the holes of the SRT sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendHoles {
    /// Most buffers that wait for the network; checked by their owner.
    pub queue: u32,
}

/// A file with the values for its holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// `decode_vp8.gst`
    DecodeVp8(DecodeHoles),
    /// `decode_vp9.gst`
    DecodeVp9(DecodeHoles),
    /// `decode_h264.gst`
    DecodeH264(DecodeHoles),
    /// H.264 decoder that can begin at a recovery point.
    DecodeH264Recovery(DecodeHoles),
    /// `decode_av1.gst`
    DecodeAv1(DecodeHoles),
    /// `encode_vp8.gst`
    EncodeVp8(EncodeHoles),
    /// `encode_vp9.gst`
    EncodeVp9(EncodeHoles),
    /// `encode_h264.gst`
    EncodeH264(EncodeHoles),
    /// `encode_h264_openh264.gst`
    EncodeH264OpenH264(EncodeHoles),
    /// `encode_aac.gst`
    EncodeAac(AacHoles),
    /// `send_srt.gst`
    SendSrt(SendHoles),
}

impl Recipe {
    /// The name and the text of the file.
    fn load(self) -> (&'static str, &'static str) {
        macro_rules! file {
            ($name:literal) => {
                ($name, include_str!(concat!("../pipelines/", $name)))
            };
        }
        match self {
            Self::DecodeVp8(_) => file!("decode_vp8.gst"),
            Self::DecodeVp9(_) => file!("decode_vp9.gst"),
            Self::DecodeH264(_) => file!("decode_h264.gst"),
            Self::DecodeH264Recovery(_) => file!("decode_h264_recovery.gst"),
            Self::DecodeAv1(_) => file!("decode_av1.gst"),
            Self::EncodeVp8(_) => file!("encode_vp8.gst"),
            Self::EncodeVp9(_) => file!("encode_vp9.gst"),
            Self::EncodeH264(_) => file!("encode_h264.gst"),
            Self::EncodeH264OpenH264(_) => file!("encode_h264_openh264.gst"),
            Self::EncodeAac(_) => file!("encode_aac.gst"),
            Self::SendSrt(_) => file!("send_srt.gst"),
        }
    }

    /// Whether every element of the file is installed. GStreamer must be initialised.
    ///
    /// # Errors
    /// [`PipelineError::Missing`] names the element and its Debian package.
    pub fn check(self) -> Result<(), PipelineError> {
        let (file, _) = self.load();
        elements::check(file, &fill(self)?.description)
    }

    fn hole(self, hole: &str) -> Option<i64> {
        let number = match self {
            Self::DecodeVp8(holes)
            | Self::DecodeVp9(holes)
            | Self::DecodeH264(holes)
            | Self::DecodeH264Recovery(holes)
            | Self::DecodeAv1(holes) => match hole {
                "queue" => holes.queue,
                _ => return None,
            },
            Self::EncodeVp8(holes)
            | Self::EncodeVp9(holes)
            | Self::EncodeH264(holes)
            | Self::EncodeH264OpenH264(holes) => match hole {
                "width" => holes.size.width,
                "height" => holes.size.height,
                "fps" => holes.fps,
                "bitrate_kbps" => holes.bitrate_kbps,
                "bitrate_bps" => return Some(i64::from(holes.bitrate_kbps) * 1000),
                "threads" => holes.threads,
                "speed" => return Some(i64::from(holes.speed)),
                "keyframe_distance" => holes.keyframe_distance,
                "queue" => holes.queue,
                _ => return None,
            },
            Self::SendSrt(holes) => match hole {
                "queue" => holes.queue,
                _ => return None,
            },
            Self::EncodeAac(holes) => match hole {
                "bitrate_bps" => holes.bitrate_bps,
                "queue" => holes.queue,
                _ => return None,
            },
        };
        Some(i64::from(number))
    }
}

/// A property whose value in the file is a hole: it can be changed while the pipeline plays.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    hole: String,
    element: String,
    property: String,
}

/// A file with its holes filled.
#[derive(Debug)]
struct Filled {
    description: String,
    bindings: Vec<Binding>,
}

fn fill(recipe: Recipe) -> Result<Filled, PipelineError> {
    let (file, text) = recipe.load();
    let mut description = String::with_capacity(text.len());
    let mut bindings = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for segment in lines.join(" ").split('!') {
        let words: Vec<&str> = segment.split_whitespace().collect();
        let element = words.iter().find_map(|word| word.strip_prefix("name="));
        if !description.is_empty() {
            description.push_str("! ");
        }
        for word in &words {
            if let (Some(element), Some((property, value))) = (element, word.split_once('='))
                && let Some(hole) = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
            {
                bindings.push(Binding { hole: hole.into(), element: element.into(), property: property.into() });
            }
            let mut rest = *word;
            while let Some((before, after)) = rest.split_once('{') {
                let (hole, after) = after.split_once('}').unwrap_or((after, ""));
                let value =
                    recipe.hole(hole).ok_or_else(|| PipelineError::Hole { file: file.into(), hole: hole.into() })?;
                write!(description, "{before}{value}").expect("a String takes every write");
                rest = after;
            }
            description.push_str(rest);
            description.push(' ');
        }
    }
    Ok(Filled { description, bindings })
}

/// A pipeline with an appsrc, and an appsink or a network sink. When it is dropped a thread ends it, so that it may be
/// dropped anywhere, also in its callbacks.
#[derive(Debug)]
pub struct Pipeline {
    pipeline: gst::Pipeline,
    source: AppSrc,
    out: gst::Element,
    bindings: Vec<Binding>,
    file: Cow<'static, str>,
    ended: bool,
}

impl Pipeline {
    /// Makes the pipeline of a recipe in state Null.
    ///
    /// # Errors
    /// [`PipelineError`] names the file and the fault. GStreamer must be initialised.
    pub fn new(recipe: Recipe) -> Result<Self, PipelineError> {
        let (file, _) = recipe.load();
        let Filled { description, bindings } = fill(recipe)?;
        Self::parse(file.into(), &description, bindings)
    }

    fn parse(file: Cow<'static, str>, description: &str, bindings: Vec<Binding>) -> Result<Self, PipelineError> {
        elements::check(file.clone(), description)?;
        let parse = |reason: String| PipelineError::Parse { file: file.clone(), reason };
        let pipeline = gst::parse::launch(description)
            .map_err(|error| parse(error.to_string()))?
            .downcast::<gst::Pipeline>()
            .map_err(|_| parse("is a single element, not a pipeline".into()))?;
        let end = |end, kind| PipelineError::End { file: file.clone(), end, kind };
        let source = pipeline.by_name("in").and_then(|element| element.downcast().ok());
        let source = source.ok_or_else(|| end("in", "appsrc"))?;
        let out = pipeline.by_name("out").ok_or_else(|| end("out", "appsink or sink"))?;
        Ok(Self { pipeline, source, out, bindings, file, ended: false })
    }

    /// The appsrc.
    pub fn source(&self) -> &AppSrc {
        &self.source
    }

    /// The appsink.
    ///
    /// # Panics
    /// If the `out` of the file is not an appsink; a test checks all files.
    pub fn sink(&self) -> &AppSink {
        self.out.downcast_ref().expect("only the senders' files end with something else")
    }

    /// The element named `out`, for pipelines with a network sink. Texts from users are set as its properties, because
    /// holes take numbers only.
    pub fn outlet(&self) -> &gst::Element {
        &self.out
    }

    /// Starts the pipeline. `failed` gets the first error on the bus, on the thread that posts it; all other messages
    /// are dropped at once.
    ///
    /// # Errors
    /// [`PipelineError::Start`].
    pub fn play(&self, failed: impl FnOnce(String) + Send + 'static) -> Result<(), PipelineError> {
        start(&self.pipeline, self.file.clone(), failed)
    }

    /// Calls `wanted` on the decoder's thread each time the decoder asks for a keyframe.
    pub fn on_keyframe_request(&self, wanted: impl Fn() + Send + Sync + 'static) {
        let pad = self.source.static_pad("src").expect("every appsrc has a source pad");
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && event.structure().is_some_and(|structure| structure.name() == "GstForceKeyUnit")
            {
                wanted();
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Calls `changed` on the thread of the appsrc when a buffer leaves its queue (true), and when the elements behind
    /// it have handled the buffer and the queue is empty (false).
    pub fn on_busy(&self, changed: impl Fn(bool) + Send + Sync + 'static) {
        let pad = self.source.static_pad("src").expect("every appsrc has a source pad");
        let changed = Arc::new(changed);
        let begins = changed.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            begins(true);
            gst::PadProbeReturn::Ok
        });
        self.source.set_callbacks(AppSrcCallbacks::builder().need_data(move |_, _| changed(false)).build());
    }

    /// Buffers in the queue of the appsrc.
    pub fn waiting(&self) -> u64 {
        self.source.property("current-level-buffers")
    }

    /// Sets each property whose value in the file is `{hole}`; false if there is none.
    pub fn set(&self, hole: &str, value: i64) -> bool {
        let mut found = false;
        for binding in self.bindings.iter().filter(|binding| binding.hole == hole) {
            if let Some(element) = self.pipeline.by_name(&binding.element) {
                element.set_property_from_str(&binding.property, &value.to_string());
                found = true;
            }
        }
        found
    }

    /// Ends the pipeline and waits for it: a process must not exit while a pipeline ends. Must not be called by its own
    /// threads.
    pub fn end(mut self) {
        self.ended = true;
        end(self.pipeline.clone());
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if !self.ended {
            reap(self.pipeline.clone());
        }
    }
}

/// Starts a pipeline; passes its first error to `failed`.
fn start(
    pipeline: &gst::Pipeline,
    file: Cow<'static, str>,
    failed: impl FnOnce(String) + Send + 'static,
) -> Result<(), PipelineError> {
    let failed = parking_lot::Mutex::new(Some(failed));
    let bus = pipeline.bus().expect("every pipeline has a bus");
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view() {
            let first = failed.lock().take();
            if let Some(failed) = first {
                failed(error.error().to_string());
            }
        }
        gst::BusSyncReply::Drop
    });
    pipeline
        .set_state(gst::State::Playing)
        .map(drop)
        .map_err(|error| PipelineError::Start { file, reason: error.to_string() })
}

/// Ends a pipeline on another thread: setting state Null waits for the streaming thread, which may be the caller.
fn reap(pipeline: gst::Pipeline) {
    static REAPER: OnceLock<SyncSender<gst::Pipeline>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<gst::Pipeline>(REAPER_QUEUE);
        thread::Builder::new()
            .name("pipeline-reaper".into())
            .spawn(move || receiver.iter().for_each(end))
            .expect("a process that cannot start a thread cannot go on");
        sender
    });
    if let Err(TrySendError::Full(pipeline) | TrySendError::Disconnected(pipeline)) = reaper.try_send(pipeline) {
        thread::Builder::new()
            .name("pipeline-end".into())
            .spawn(move || end(pipeline))
            .expect("a process that cannot start a thread cannot go on");
    }
}

fn end(pipeline: gst::Pipeline) {
    if let Err(error) = pipeline.set_state(gst::State::Null) {
        tracing::warn!(%error, "pipeline does not change to state Null");
    }
    // The handler keeps the callback of the owner alive until the last reference to the bus is dropped.
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn every_recipe() -> Vec<Recipe> {
        let decode = DecodeHoles { queue: 30 };
        let encode = EncodeHoles {
            size: Size::new(320, 180),
            fps: 15,
            bitrate_kbps: 150,
            threads: 1,
            speed: 1,
            keyframe_distance: 150,
            queue: 2,
        };
        vec![
            Recipe::DecodeVp8(decode),
            Recipe::DecodeVp9(decode),
            Recipe::DecodeH264(decode),
            Recipe::DecodeH264Recovery(decode),
            Recipe::DecodeAv1(decode),
            Recipe::EncodeVp8(encode),
            Recipe::EncodeVp9(encode),
            Recipe::EncodeH264(encode),
            Recipe::EncodeH264OpenH264(encode),
            Recipe::EncodeAac(AacHoles { bitrate_bps: 128_000, queue: 50 }),
            Recipe::SendSrt(SendHoles { queue: 50 }),
        ]
    }

    #[test]
    fn every_file_is_used_has_a_comment_and_parses() {
        gst::init().expect("GStreamer is installed");
        let ends = ["appsrc", "appsink", "srtsink"];
        let codecs = [
            "vp8dec",
            "vp9dec",
            "openh264dec",
            "avdec_h264",
            "av1dec",
            "vp8enc",
            "vp9enc",
            "x264enc",
            "openh264enc",
            "avenc_aac",
        ];
        let mut used = BTreeSet::new();
        for recipe in every_recipe() {
            let (file, text) = recipe.load();
            used.insert(file.to_owned());
            assert!(text.starts_with("# "), "{file} does not say what it is for");
            let pipeline = Pipeline::new(recipe).expect(file);
            assert_eq!(pipeline.out.is::<AppSink>(), !matches!(recipe, Recipe::SendSrt(_)), "{file}");
            for element in pipeline.pipeline.iterate_elements() {
                let name = element.expect("nothing changes it").factory().expect("made by a factory").name();
                assert!(
                    ends.contains(&name.as_str()) || codecs.contains(&name.as_str()),
                    "{file}: {name} is not allowed"
                );
            }
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("plain name"))
            .collect();
        used.extend(graph::tests::PIECES.map(|piece| piece.load().0.to_owned()));
        used.extend(crate::filter::SHIPPED.map(|(name, _)| format!("filter_{name}.gst")));
        assert_eq!(used, there, "files used, and files there");
    }

    #[test]
    fn holes_are_filled_and_comments_are_removed() {
        for recipe in every_recipe() {
            let filled = fill(recipe).expect("every hole is known");
            for element in elements::named(&filled.description) {
                assert!(elements::package(element).is_some(), "{element} is in no package of pipeline/elements.rs");
            }
            assert!(!filled.description.contains(['{', '}', '#']), "{}", filled.description);
        }
    }

    #[test]
    fn the_bitrate_of_an_encoder_can_be_changed() {
        gst::init().expect("GStreamer is installed");
        for recipe in every_recipe() {
            let Recipe::EncodeVp8(_) = recipe else { continue };
            let pipeline = Pipeline::new(recipe).expect("parses");
            let bitrate = || pipeline.pipeline.by_name("enc").expect("named").property::<i32>("target-bitrate");
            assert_eq!(bitrate(), 150_000);
            assert!(pipeline.set("bitrate_bps", 90_000));
            assert_eq!(bitrate(), 90_000);
            assert!(!pipeline.set("bitrate_kbps", 90), "this file has no such hole");
        }
    }

    #[test]
    fn an_unknown_hole_has_no_value() {
        let error = DecodeHoles { queue: 1 };
        assert_eq!(Recipe::DecodeVp8(error).hole("width"), None);
    }
}
