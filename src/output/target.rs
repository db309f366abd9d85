//! What an output feeds: the seam between the process and each kind of recording or broadcast.
//!
//! Owns: [`Target`]. Does not know: the link, nor who implements it.

use std::time::Duration;

use crate::id::SourceId;
use crate::link::output::Note;
use crate::media::{EncodedPacket, SourcePacket};
use crate::plan::SourceSpec;
use crate::time::Timestamp;

/// Why an output cannot go on, in words that say what to do. It ends with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Takes what an output gets. Every method is called by the worker alone and may take its time.
pub trait Target: Send {
    /// A packet of a video stream.
    ///
    /// # Errors
    /// [`Failure`]: the output is over; [`Target::finish`] is called next.
    fn video(&mut self, stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure>;

    /// A packet of everyone's mix.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure>;

    /// A participant's source begins, or has another codec.
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

    /// Pictures are to be shown so much later than they say, to be in step with the sound.
    fn sound_lag(&mut self, lag: Duration);

    /// Something worth remembering happened at this time.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn note(&mut self, _at: Timestamp, _note: Note) -> Result<(), Failure> {
        Ok(())
    }

    /// Called some ten times a second.
    ///
    /// # Errors
    /// As [`Target::video`].
    fn tick(&mut self, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    /// Comes to an end: nothing follows.
    ///
    /// # Errors
    /// What could not be brought to an end.
    fn finish(&mut self, now: Timestamp) -> Result<(), Failure>;
}
