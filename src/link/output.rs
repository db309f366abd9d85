//! What the edge and an output process (a recording, a broadcast) say to each other.
//!
//! Owns: the messages. Does not know: files, networks, who asked for the output.
//! An output is a subscriber: it gets the packets of the streams it was started for, as they leave the mixer. It waits for
//! a keyframe itself, and asks for one.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
        /// Which of [`OutputSettings::streams`].
        stream: u8,
        /// The packet.
        packet: EncodedPacket,
    },
    /// One packet of everyone's mix; none comes while nobody is to be heard.
    Sound(EncodedPacket),
    /// A participant's source begins, or has another codec; only for separate tracks.
    Source(SourceSpec),
    /// A source ended.
    SourceGone(SourceId),
    /// One packet of a source, as its participant sent it.
    Packet(SourceId, SourcePacket),
    /// How much longer than pictures sound waits in the mixer now: pictures are to be shown so much later.
    SoundLag(Duration),
    /// Something worth remembering happened in the room at this time.
    Note(Timestamp, Note),
    /// Come to an end in order; [`FromOutput::Ended`] follows.
    Finish,
}

impl ToOutput {
    /// Whether it is media, of which there is much, rather than an order.
    pub fn is_media(&self) -> bool {
        matches!(self, Self::Video { .. } | Self::Sound(_) | Self::Packet(..))
    }
}

/// What an output must know before anything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSettings {
    /// For logs, the sidecar and titles.
    pub room: RoomName,
    /// Which output of the room.
    pub output: OutputId,
    /// The room's epoch: RTP timestamps count from here.
    pub epoch: Timestamp,
    /// The video streams it gets, in the order in which packets name them.
    pub streams: Vec<StreamSpec>,
    /// What becomes of them.
    pub target: Target,
}

/// What becomes of what an output gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// A file of the composition and everyone's mix.
    File(FileTarget),
    /// A file for each participant, of what it sent.
    Tracks(FileTarget),
    /// The composition and everyone's mix, sent to somebody else's server.
    Send(SendTarget),
    /// Parts and segments for HLS, which the edge serves: what every stream shows, and everyone's mix.
    Hls(HlsTarget),
}

/// Where a broadcast goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendTarget {
    /// The far end, with its secrets.
    pub destination: SecretForm,
    /// Which addresses it may have.
    pub guard: Guard,
}

/// How HLS is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HlsTarget {
    /// A segment begins at the first keyframe after so much.
    pub segment: Duration,
    /// Parts of a segment are as long, but for the last.
    pub part: Duration,
}

/// A piece of HLS. Renditions are the streams, in their order, and behind them the sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HlsPiece {
    /// A rendition begins: what its players need first.
    Init {
        /// The codec as in playlists (RFC 6381).
        codec: String,
        /// `ftyp` and `moov`.
        data: Bytes,
    },
    /// A part of the segment that grows.
    Part {
        /// How long it is.
        duration: Duration,
        /// A player may begin with it.
        independent: bool,
        /// `moof` and `mdat`.
        data: Bytes,
    },
    /// The segment that grew is whole; the next part begins another, at this time since the epoch.
    Cut {
        /// When.
        at: Duration,
    },
}

/// Where and how a recording is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTarget {
    /// The folder.
    pub folder: PathBuf,
    /// Every file's name begins with this: letters, digits, `_` and `-`.
    pub stem: String,
    /// The number of the first file: a recording whose process died goes on in another file.
    pub part: u32,
    /// The file format.
    pub format: FileFormat,
    /// Sound is kept as it is (Opus) where the format allows AAC as well.
    pub opus: bool,
    /// Begin another file after so much time.
    pub cut_after: Option<Duration>,
    /// Begin another file after so many bytes.
    pub cut_bytes: Option<u64>,
    /// Stop when less than so many bytes are free on the disk.
    pub floor_bytes: u64,
}

/// Something worth remembering with a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Note {
    /// Somebody is here, by this name.
    Here {
        /// Who.
        participant: ParticipantId,
        /// Its name; may be empty.
        name: String,
    },
    /// Somebody has left.
    Gone(ParticipantId),
    /// Somebody else is the one who speaks.
    Speaker(Option<ParticipantId>),
    /// Tiles moved.
    Layout {
        /// The canvas in pixels.
        canvas: Size,
        /// Who stands where.
        tiles: Vec<(ParticipantId, SourceKind, Rect)>,
    },
    /// Words from one to all.
    Chat {
        /// From whom.
        participant: Option<ParticipantId>,
        /// The sender's name.
        name: String,
        /// The words.
        text: String,
    },
}

/// From an output to the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromOutput {
    /// This stream cannot go on without a keyframe.
    KeyframeWanted {
        /// Which of [`OutputSettings::streams`].
        stream: u8,
    },
    /// A participant's source cannot go on, or begin, without a keyframe; only for separate tracks.
    SourceKeyframeWanted(SourceId),
    /// Sent four times a second, also when idle: the edge takes an output without any message for hung.
    Report(OutputReport),
    /// A file was begun, or is complete.
    File(FileReport),
    /// A piece of HLS.
    Hls {
        /// Which rendition.
        rendition: u8,
        /// The piece.
        piece: HlsPiece,
    },
    /// It has come to an end; the link ends next. With a reason where nobody asked for the end.
    Ended {
        /// What went wrong, and what to do.
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
    /// It is complete and will not change any more.
    pub complete: bool,
}
