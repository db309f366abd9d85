//! What an output feeds: the seam between the process and each kind of recording or broadcast.
//!
//! Owns: [`Target`], and which one the settings mean. Does not know: the link.

use std::time::Duration;

use super::Desk;
use super::broadcast::Broadcast;
use super::hls::Hls;
use super::record::{Recording, Tracks};
use crate::id::SourceId;
use crate::link::output::{self, Note, OutputSettings};
use crate::media::{EncodedPacket, SourcePacket};
use crate::plan::SourceSpec;
use crate::time::{self, Timestamp};

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

/// Makes the target that the settings mean.
///
/// # Errors
/// [`Failure`]: it cannot even begin.
pub(super) fn open(settings: OutputSettings, desk: &Desk) -> Result<Box<dyn Target>, Failure> {
    match settings.target.clone() {
        output::Target::File(target) => Ok(Box::new(Recording::open(settings, target, desk)?)),
        output::Target::Tracks(target) => Ok(Box::new(Tracks::open(settings, target, desk)?)),
        output::Target::Send(target) => {
            Ok(Box::new(Broadcast::open(&target, &settings.streams, settings.epoch, desk)?))
        }
        output::Target::Hls(target) => Ok(Box::new(Hls::open(&settings, target, time::now(), desk)?)),
    }
}
