//! RTMP: what encoders, platforms and servers speak since Flash (Adobe's specification 1.0).
//!
//! Owns: both sides of a connection as state machines without sockets ([`Client`] publishes or plays, [`Server`] takes
//! what an encoder publishes), and the FLV tags in it ([`flv`]). Does not know: sockets, rooms, who may publish. In:
//! bytes that came. Out: bytes to send, and events. The only importer of `rml_rtmp`.
//!
//! What reading the crate (0.8.0) showed, and why a gate of ours stands before its sessions:
//! - One message at a time: chunks of another message in between, which the standard allows, make a length negative: a
//!   panic, here or in the allocation that follows. The gate puts messages together, any number at a time.
//! - A command with less than three values is a panic, an object nested deep enough the end of the stack, and so of the
//!   process. The gate counts values and depth, and lets only what the crate can read go on.
//! - A message may have 16 MiB, and a command of that size makes values of a GiB. The gate limits both kinds.
//! - It acknowledges the bytes since the last time instead of all of them, so the gate does it.
//! - Each `createStream` and unanswered request is kept for good: [`Server`] counts them.
//! - Whatever is left: a panic inside ends that connection only ([`RtmpError::Bug`]).
//! - Its client lacks `FCPublish` and `releaseStream`; servers of today do without.

mod client;
pub mod flv;
mod gate;
mod server;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rml_rtmp::handshake::HandshakeError;
use rml_rtmp::sessions::{ClientSessionError, ServerSessionError};

pub use self::client::{Client, ClientEvent, Purpose};
pub use self::server::{Server, ServerEvent};
use crate::media::Size;

/// Sound or a picture on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// A picture.
    Video {
        /// Milliseconds, from an epoch that the sender chose; they wrap after 49 days.
        time_ms: u32,
        /// An FLV tag.
        tag: Bytes,
    },
    /// Sound.
    Audio {
        /// Like that of a picture.
        time_ms: u32,
        /// An FLV tag.
        tag: Bytes,
    },
}

/// What a stream is, for `onMetaData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Its pictures, if any.
    pub video: Option<VideoMetadata>,
    /// Bitrate of its sound, if any, in kbit/s.
    pub audio_kbps: Option<u32>,
}

/// What a stream's pictures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoMetadata {
    /// Pixels.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// Bitrate in kbit/s.
    pub kbps: u32,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum RtmpError {
    /// No RTMP.
    #[error("the other side does not speak RTMP: {0}")]
    Handshake(#[from] HandshakeError),
    /// Broken chunks.
    #[error("the other side sends broken RTMP: {0}")]
    Chunk(&'static str),
    /// A message, or all unfinished ones, in bytes.
    #[error("the other side sends a message of {0} bytes")]
    TooLarge(usize),
    /// More commands than anybody needs.
    #[error("the other side sends commands without end")]
    Commands,
    /// Nothing to accept or refuse.
    #[error("the other side did not ask to publish")]
    NotAsked,
    /// Broken or senseless messages to a client.
    #[error("the server sends what cannot be understood: {0}")]
    Client(#[from] ClientSessionError),
    /// Broken or senseless messages to a server.
    #[error("the encoder sends what cannot be understood: {0}")]
    Server(#[from] ServerSessionError),
    /// A panic.
    #[error("a bug in the RTMP library")]
    Bug,
}

/// Runs what calls the crate: a panic is an error, after which the connection is not used any more.
fn guarded<T>(run: impl FnOnce() -> Result<T, RtmpError>) -> Result<T, RtmpError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(RtmpError::Bug))
}
