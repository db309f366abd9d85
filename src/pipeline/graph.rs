//! Graphs: pipelines that grow while they play, for sources of any container and codec.
//!
//! Owns: the files named `input_*`, and [`Graph`]. Does not know: the use of the media. In: a first [`Piece`], and
//! pieces for the pads that appear. Out: the elements named `out`. The files have no holes; texts are set as
//! properties, so that no text from the network reaches the parser.

use std::borrow::Cow;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::{PipelineError, elements, reap, start};

/// A file of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// `input_file.gst`
    File,
    /// `input_http.gst`
    Http,
    /// `input_srt.gst`
    Srt,
    /// `input_feed.gst`
    Feed,
    /// `input_pictures.gst`
    Pictures,
    /// `input_sound.gst`
    Sound,
    /// `input_rest.gst`
    Rest,
}

impl Piece {
    /// The name and the text of the file.
    pub(crate) fn load(self) -> (&'static str, &'static str) {
        macro_rules! file {
            ($name:literal) => {
                ($name, include_str!(concat!("../../pipelines/", $name)))
            };
        }
        match self {
            Self::File => file!("input_file.gst"),
            Self::Http => file!("input_http.gst"),
            Self::Srt => file!("input_srt.gst"),
            Self::Feed => file!("input_feed.gst"),
            Self::Pictures => file!("input_pictures.gst"),
            Self::Sound => file!("input_sound.gst"),
            Self::Rest => file!("input_rest.gst"),
        }
    }

    /// The file's name, and its text without comments.
    pub(crate) fn description(self) -> (&'static str, String) {
        let (file, text) = self.load();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        (file, lines.join(" "))
    }

    /// Links a pad to the sink pad of this piece, whose stream has ended.
    ///
    /// # Errors
    /// [`PipelineError::Start`] if they cannot be linked.
    pub fn relink(self, pad: &gst::Pad, sink: &gst::Pad) -> Result<(), PipelineError> {
        let (file, _) = self.load();
        pad.link(sink).map(drop).map_err(|error| PipelineError::Start { file: file.into(), reason: error.to_string() })
    }
}

/// A pipeline that grows. When it is dropped a thread ends it, so that it may be dropped anywhere.
#[derive(Debug)]
pub struct Graph {
    pipeline: gst::Pipeline,
    file: Cow<'static, str>,
}

impl Graph {
    /// A graph with this first piece, in state Null.
    ///
    /// # Errors
    /// [`PipelineError`] names the file and the fault. GStreamer must be initialised.
    pub fn new(piece: Piece) -> Result<Self, PipelineError> {
        let (file, description) = piece.description();
        elements::check(file, &description)?;
        let parse = |reason: String| PipelineError::Parse { file: file.into(), reason };
        let pipeline = gst::parse::launch(&description)
            .map_err(|error| parse(error.to_string()))?
            .downcast()
            .map_err(|_| parse("is a single element, not a pipeline".into()))?;
        Ok(Self { pipeline, file: file.into() })
    }

    /// The element of this name.
    ///
    /// # Errors
    /// [`PipelineError::End`] if there is none.
    pub fn element(&self, name: &'static str) -> Result<gst::Element, PipelineError> {
        self.pipeline.by_name(name).ok_or_else(|| PipelineError::End {
            file: self.file.clone(),
            end: name,
            kind: "element",
        })
    }

    /// A weak handle for attaching pieces while the graph plays, also from its own threads.
    pub fn branches(&self) -> Branches {
        Branches(self.pipeline.downgrade())
    }

    /// Starts the graph. `failed` gets the first error on the bus, on the thread that posts it.
    ///
    /// # Errors
    /// [`PipelineError::Start`].
    pub fn play(&self, failed: impl FnOnce(String) + Send + 'static) -> Result<(), PipelineError> {
        start(&self.pipeline, self.file.clone(), failed)
    }

    /// The duration of the source; None if it is endless or not known.
    pub fn duration(&self) -> Option<gst::ClockTime> {
        self.pipeline.query_duration()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        reap(self.pipeline.clone());
    }
}

/// A weak handle of a [`Graph`] for attaching pieces.
#[derive(Debug, Clone)]
pub struct Branches(gst::glib::WeakRef<gst::Pipeline>);

impl Branches {
    /// Attaches a piece to a pad; returns the element named `out` in the piece.
    ///
    /// # Errors
    /// [`PipelineError`] if the piece cannot be parsed, linked to the pad, or started.
    pub fn attach(&self, pad: &gst::Pad, piece: Piece) -> Result<gst::Element, PipelineError> {
        let (file, description) = piece.description();
        elements::check(file, &description)?;
        let failed = |reason: String| PipelineError::Start { file: file.into(), reason };
        let pipeline = self.0.upgrade().ok_or_else(|| failed("its pipeline has ended".into()))?;
        let bin = gst::parse::bin_from_description(&description, true)
            .map_err(|error| PipelineError::Parse { file: file.into(), reason: error.to_string() })?;
        let out =
            bin.by_name("out").ok_or_else(|| PipelineError::End { file: file.into(), end: "out", kind: "element" })?;
        pipeline.add(&bin).map_err(|error| failed(error.to_string()))?;
        let sink =
            bin.static_pad("sink").ok_or_else(|| PipelineError::End { file: file.into(), end: "sink", kind: "pad" })?;
        bin.sync_state_with_parent().map_err(|error| failed(error.to_string()))?;
        pad.link(&sink).map_err(|error| failed(error.to_string()))?;
        Ok(out)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const PIECES: [Piece; 7] =
        [Piece::File, Piece::Http, Piece::Srt, Piece::Feed, Piece::Pictures, Piece::Sound, Piece::Rest];

    #[test]
    fn every_element_of_a_piece_is_in_the_table_of_packages() {
        for piece in PIECES {
            let (file, description) = piece.description();
            for element in elements::named(&description).filter(|element| *element != "webfetch") {
                assert!(elements::package(element).is_some(), "{file}: {element} is in no package of elements.rs");
            }
        }
    }
}
