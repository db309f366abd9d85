//! The messages between the edge and an output process (a recording or a broadcast).
//!
//! Owns: the messages. Does not know: files, networks, who requested the output. Framed as the mixer's
//! ([`super::frame`]). An output is a subscriber: it gets the packets of its streams as they leave the mixer, and
//! requests keyframes.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sandbox::Access;
use crate::destination::{Guard, SecretForm};
use crate::id::{OutputId, ParticipantId, RoomName, SourceId};
use crate::media::{EncodedPacket, FileFormat, Rect, Size, SourceKind, SourcePacket};
use crate::plan::{SourceSpec, StreamSpec};
use crate::room::outputs::OutputReport;
use crate::time::Timestamp;

/// From the edge to an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToOutput {
    /// The first message.
    Configure(Box<OutputSettings>),
    /// One packet of a video stream.
    Video {
        /// Index in [`OutputSettings::streams`].
        stream: u8,
        /// The packet.
        packet: EncodedPacket,
    },
    /// One packet of the full mix; none in silence.
    Sound(EncodedPacket),
    /// A participant's source begins, or has another codec; only for separate tracks.
    Source(SourceSpec),
    /// A source has ended.
    SourceGone(SourceId),
    /// One packet of a source, unchanged.
    Packet(SourceId, SourcePacket),
    /// An event of the room for the sidecar or the captions, with its time.
    Note(Timestamp, Note),
    /// Finish files and connections; [`FromOutput::Ended`] follows.
    Finish,
}

impl ToOutput {
    /// Whether it is media, rather than an order.
    pub fn is_media(&self) -> bool {
        matches!(self, Self::Video { .. } | Self::Sound(_) | Self::Packet(..))
    }
}

/// The settings of an output; its first message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSettings {
    /// The name of the room, for logs, the sidecar and titles.
    pub room: RoomName,
    /// The id of the output.
    pub output: OutputId,
    /// The epoch of the room, from which RTP timestamps count.
    pub epoch: Timestamp,
    /// Its video streams; packets refer to them by index.
    pub streams: Vec<StreamSpec>,
    /// Where the media goes.
    pub target: Target,
}

/// Where the media of an output goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// A file of the composition and the full mix.
    File(FileTarget),
    /// One file per participant, of the packets that it sent.
    Tracks(FileTarget),
    /// The composition and the full mix, sent to another server.
    Send(SendTarget),
    /// Parts and segments of HLS, served by the edge: every stream, and the full mix.
    Hls(HlsTarget),
}

impl Target {
    /// What its process needs: a folder, or the network.
    pub fn access(&self) -> Access {
        match self {
            Self::File(file) | Self::Tracks(file) => Access::writing(file.folder.clone()),
            Self::Send(_) => Access::network(),
            Self::Hls(_) => Access::default(),
        }
    }
}

/// The destination of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendTarget {
    /// The destination, with its secrets.
    pub destination: SecretForm,
    /// The addresses that are allowed.
    pub guard: Guard,
}

/// Durations of HLS segments and parts, and who may load them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HlsTarget {
    /// Target duration of a segment; the next one begins at the first keyframe after it.
    pub segment: Duration,
    /// Duration of a part; the last part of a segment may be shorter.
    pub part: Duration,
    /// The edge serves them without a token.
    pub public: bool,
}

/// A piece of an HLS rendition. Renditions are the streams in their order, then the audio, and then the captions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HlsPiece {
    /// The media initialization section of a rendition (RFC 8216 section 3).
    Init {
        /// The codec as in playlists (RFC 6381).
        codec: String,
        /// `ftyp` and `moov`.
        data: Bytes,
    },
    /// A part of the current segment.
    Part {
        /// Its duration.
        duration: Duration,
        /// It begins with a keyframe.
        independent: bool,
        /// `moof` and `mdat`, or WebVTT.
        data: Bytes,
    },
    /// The language of the rendition (RFC 5646), for captions.
    Language(String),
    /// The current segment is complete; the next one begins at this time since the epoch.
    Cut {
        /// Since the epoch of the room.
        at: Duration,
    },
}

/// Where and how a recording is written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTarget {
    /// The folder.
    pub folder: PathBuf,
    /// The beginning of every file name: characters of room names.
    pub stem: String,
    /// The number of the first file: a recording continues in another file after its process died.
    pub part: u32,
    /// The file format.
    pub format: FileFormat,
    /// Keep Opus where the format allows AAC as well.
    pub opus: bool,
    /// Duration after which another file begins.
    pub cut_after: Option<Duration>,
    /// Size in bytes after which another file begins.
    pub cut_bytes: Option<u64>,
    /// Stop when fewer bytes than this are free on the disk.
    pub floor_bytes: u64,
}

/// An event of the room that a recording keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Note {
    /// A participant is present.
    Here {
        /// The participant.
        participant: ParticipantId,
        /// Its name; may be empty.
        name: String,
    },
    /// A participant has left.
    Gone(ParticipantId),
    /// Another participant is the main speaker, or none is.
    Speaker(Option<ParticipantId>),
    /// The layout has changed.
    Layout {
        /// The canvas in pixels.
        canvas: Size,
        /// The tiles: participant, source, rectangle on the canvas.
        tiles: Vec<(ParticipantId, SourceKind, Rect)>,
    },
    /// A chat message.
    Chat {
        /// The sender; None for the API.
        participant: Option<ParticipantId>,
        /// The sender's name.
        name: String,
        /// The text.
        text: String,
    },
    /// A final caption.
    Caption(Caption),
}

/// What a participant has said, as text that does not change any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caption {
    /// The speaker.
    pub participant: ParticipantId,
    /// The speaker's name.
    pub name: String,
    /// The text.
    pub text: String,
    /// The language (RFC 5646), if known.
    pub language: Option<String>,
}

/// From an output to the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromOutput {
    /// A stream cannot continue without a keyframe.
    KeyframeWanted {
        /// Index in [`OutputSettings::streams`].
        stream: u8,
    },
    /// A source cannot begin or continue without a keyframe; only for separate tracks.
    SourceKeyframeWanted(SourceId),
    /// Sent four times a second, also when idle: an output without messages is killed as hung.
    Report(OutputReport),
    /// A file was begun, or is complete.
    File(FileReport),
    /// A piece of HLS.
    Hls {
        /// Index of the rendition.
        rendition: u8,
        /// The piece.
        piece: HlsPiece,
    },
    /// The output has ended; the link ends next.
    Ended {
        /// The reason and its remedy, if the end was not requested.
        failure: Option<String>,
    },
}

/// One file of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Its name, without the folder.
    pub name: String,
    /// Its number within the recording, from 0.
    pub part: u32,
    /// It is complete and does not change any more.
    pub complete: bool,
}
