//! RTMP (Adobe's specification 1.0), the ingest protocol of encoders, streaming platforms and media servers.
//!
//! Owns: both sides of a connection as state machines without sockets ([`Client`] publishes or plays, [`Server`]
//! accepts a stream that an encoder publishes), and the FLV tags inside ([`flv`]). Does not know: sockets, rooms,
//! permissions. In: received bytes. Out: bytes to send, and events. The only importer of `rml_rtmp`.
//!
//! `rml_rtmp` 0.8.0 has faults that a peer can trigger, so the module `filter` stands in front of its sessions:
//! - It supports one message at a time. Interleaved chunks of several messages, which the standard permits, make a
//!   length negative and cause a panic. The filter reassembles any number of messages.
//! - A command with less than three values panics, and a deeply nested object overflows the stack and ends the
//!   process. The filter counts values and depth, and forwards only messages that the crate can parse.
//! - A message may have 16 MiB, and a command of that size allocates a GiB. The filter limits both.
//! - It acknowledges the bytes since the last acknowledgement instead of the total, so the filter sends these.
//! - It never frees a `createStream` or an unanswered request: [`Server`] counts them.
//! - Any other panic ends that connection only ([`RtmpError::Bug`]).
//! - Its client lacks `FCPublish` and `releaseStream`, which current servers do not need.

mod amf;
mod client;
mod filter;
pub mod flv;
mod reception;
mod server;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rml_rtmp::handshake::HandshakeError;
use rml_rtmp::sessions::{ClientSessionError, ServerSessionError};

pub use self::client::{Client, ClientEvent, Purpose};
pub use self::reception::{Reception, take_over};
pub use self::server::{Server, ServerEvent};
use crate::media::Size;

/// An audio or video message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// A video message.
    Video {
        /// Timestamp in milliseconds from an epoch of the sender; wraps after 49 days.
        time_ms: u32,
        /// The FLV tag body.
        tag: Bytes,
    },
    /// An audio message.
    Audio {
        /// Timestamp like that of a video message.
        time_ms: u32,
        /// The FLV tag body.
        tag: Bytes,
    },
}

/// Properties of a stream, sent as `onMetaData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Video properties; None without video.
    pub video: Option<VideoMetadata>,
    /// Audio bitrate in kbit/s; None without audio.
    pub audio_kbps: Option<u32>,
}

/// Video properties of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoMetadata {
    /// Frame size in pixels.
    pub size: Size,
    /// Frames per second.
    pub fps: u32,
    /// Bitrate in kbit/s.
    pub kbps: u32,
}

/// Why a connection must be closed.
#[derive(Debug, thiserror::Error)]
pub enum RtmpError {
    /// The handshake failed.
    #[error("RTMP handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// Malformed chunks.
    #[error("malformed RTMP from the peer: {0}")]
    Chunk(&'static str),
    /// A message, or all incomplete messages together, exceed the limit; in bytes.
    #[error("RTMP message of {0} bytes exceeds the limit")]
    TooLarge(usize),
    /// The peer exceeded the limit of commands.
    #[error("too many RTMP commands from the peer")]
    Commands,
    /// There is no publish request to accept or refuse.
    #[error("the peer did not request to publish")]
    NoRequest,
    /// Malformed or unexpected messages from a server.
    #[error("malformed or unexpected RTMP message from the server: {0}")]
    Client(#[from] ClientSessionError),
    /// Malformed or unexpected messages from an encoder.
    #[error("malformed or unexpected RTMP message from the encoder: {0}")]
    Server(#[from] ServerSessionError),
    /// A panic in `rml_rtmp`.
    #[error("internal error of the RTMP library")]
    Bug,
}

/// Runs calls of `rml_rtmp`, and turns a panic into an error. The session must not be used after that.
fn catch_panics<T>(run: impl FnOnce() -> Result<T, RtmpError>) -> Result<T, RtmpError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(RtmpError::Bug))
}
