//! Feeds: input of frames from a protocol that is implemented in Rust.
//!
//! Owns: the caps of a stream, and the begin of a new stream. Does not know: the protocol. In: frames with their times.
//! Out: a graph of the intake.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use parking_lot::Mutex;

use super::{Shared, begin};
use crate::codec::CodecError;
use crate::pipeline::PipelineError;
use crate::pipeline::graph::{Graph, Piece};

/// The format of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedFormat {
    /// H.264 access units in Annex B, parameter sets included.
    H264,
    /// H.265 access units in Annex B, parameter sets included.
    H265,
    /// AAC frames without headers; the AudioSpecificConfig (ISO/IEC 14496-3).
    Aac(Vec<u8>),
    /// AAC frames with a header each (ADTS).
    Adts,
    /// Opus packets as RTP carries them, one or two channels.
    Opus,
    /// G.711 mu-law or A-law, 8 kHz mono.
    G711 {
        /// A-law instead of mu-law.
        a_law: bool,
    },
}

impl FeedFormat {
    fn caps(&self) -> gst::Caps {
        match self {
            Self::H264 => annex_b("video/x-h264"),
            Self::H265 => annex_b("video/x-h265"),
            Self::Aac(config) => gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("framed", true)
                .field("codec_data", gst::Buffer::from_slice(config.clone()))
                .build(),
            Self::Adts => gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "adts")
                .field("framed", true)
                .build(),
            Self::Opus => gst::Caps::builder("audio/x-opus")
                .field("channel-mapping-family", 0)
                .field("channels", 2)
                .field("rate", 48_000)
                .build(),
            Self::G711 { a_law } => gst::Caps::builder(if *a_law { "audio/x-alaw" } else { "audio/x-mulaw" })
                .field("rate", 8_000)
                .field("channels", 1)
                .build(),
        }
    }
}

fn annex_b(name: &str) -> gst::Caps {
    gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build()
}

/// One stream of an intake. Dropping it ends the stream.
#[derive(Debug)]
pub struct Feed(AppSrc);

impl Feed {
    pub(super) fn new(graph: &Graph, format: &FeedFormat) -> Result<Self, CodecError> {
        let source = graph.element("source")?.downcast::<AppSrc>();
        let source =
            source.map_err(|_| PipelineError::End { file: "input_feed.gst".into(), end: "source", kind: "appsrc" })?;
        source.set_caps(Some(&format.caps()));
        source.set_format(gst::Format::Time);
        Ok(Self(source))
    }

    /// Changes the format of the frames that follow; of the same codec.
    pub fn reformat(&self, format: &FeedFormat) {
        self.0.set_caps(Some(&format.caps()));
    }

    /// Pushes a frame with its presentation time. Waits while the queue is full; false if the intake has ended.
    pub fn push(&self, data: Bytes, pts: Duration) -> bool {
        let mut buffer = gst::Buffer::from_slice(data);
        let fields = buffer.get_mut().expect("just made");
        fields.set_pts(gst::ClockTime::from_nseconds(pts.as_nanos() as u64));
        self.0.push_buffer(buffer).is_ok()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Fails if the graph has ended.
        let _ = self.0.end_of_stream();
    }
}

/// Opens feeds of an intake. Dropping it means that no further feed will be opened.
pub struct Feeder {
    shared: Arc<Shared>,
    graphs: Arc<Mutex<Vec<Graph>>>,
}

impl Feeder {
    pub(super) fn new(shared: Arc<Shared>, graphs: Arc<Mutex<Vec<Graph>>>) -> Self {
        Self { shared, graphs }
    }

    /// Sets how many jumps of timestamps have been removed from the frames so far.
    pub fn set_jumps(&self, jumps: u64) {
        self.shared.jumps.store(jumps, Ordering::Relaxed);
    }

    /// Begins a stream of this format.
    ///
    /// # Errors
    /// An element is not installed, or the intake has ended.
    pub fn open(&self, format: &FeedFormat) -> Result<Feed, CodecError> {
        self.shared.change(|state| state.unsettled += 1);
        let graph = Graph::new(Piece::Feed)?;
        let feed = Feed::new(&graph, format)?;
        begin(&self.shared, &self.graphs, graph)?;
        Ok(feed)
    }

    /// Reports that the source has failed.
    pub fn fail(&self, reason: String) {
        self.shared.fail(reason);
    }

    /// Whether the intake has ended.
    pub fn is_over(&self) -> bool {
        self.shared.state.lock().closed
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.shared.change(|state| state.unsettled -= 1);
    }
}
