//! The interface between the output process and each kind of recording or broadcast.
//!
//! Owns: [`Target`]. Does not know: the link, and the implementations.

use crate::id::SourceId;
use crate::link::output::Note;
use crate::media::{EncodedPacket, SourcePacket};
use crate::plan::SourceSpec;
use crate::time::Timestamp;

/// Why an output ends early: a text that names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Receives the media and events of an output. The worker thread calls all methods; they may block.
pub trait Target: Send {
    /// A packet of a video stream.
    ///
    /// # Errors
    /// [`Failure`] ends the output; [`Target::finish`] is called next.
    fn video(&mut self, stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure>;

    /// A packet of the audio mix.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure>;

    /// A participant's source started, or changed its codec.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn source(&mut self, _source: SourceSpec, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    /// A participant's source ended.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn source_gone(&mut self, _source: SourceId, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    /// A packet as a participant sent it.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn packet(&mut self, _source: SourceId, _packet: SourcePacket, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    /// An event in the room at this time, for the sidecar or the captions.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn note(&mut self, _at: Timestamp, _note: Note) -> Result<(), Failure> {
        Ok(())
    }

    /// Called about ten times a second.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn tick(&mut self, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    /// Completes the output; no call follows.
    ///
    /// # Errors
    /// What could not be completed.
    fn finish(&mut self, now: Timestamp) -> Result<(), Failure>;
}
