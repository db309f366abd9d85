//! What the outside reads and writes of a room: the JSON of the REST bodies and of the events.
//!
//! Owns: the serde types of `docs/api.md`. Does not know: HTTP, WebSockets, who may do what.

use serde::{Deserialize, Serialize};

use crate::id::{InputId, OutputId, ParticipantId, RoomName, ViewName};
use crate::layout::Layout;
use crate::media::{Codec, FileFormat, Rect, Size, SourceKind, Tier};
use crate::tier::Limit;

/// What a person may do; each role may do all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Watches.
    Viewer,
    /// Sends and receives.
    Participant,
    /// Decides about the room and everyone in it.
    Moderator,
    /// Decides about the server: all rooms, recordings, metrics.
    Operator,
}

/// Which quality somebody gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// The server chooses.
    #[default]
    Auto,
    /// Always this one.
    #[serde(untagged)]
    Pinned(Tier),
}

/// A room, whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomDocument {
    /// Its name.
    pub name: RoomName,
    /// Number of the last event; the events after this document have the next ones.
    pub version: u64,
    /// How people are arranged.
    pub layout: Layout,
    /// The picture everyone gets.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// Nobody new may join.
    pub locked: bool,
    /// Who spoke last.
    pub speaker: Option<ParticipantId>,
    /// Who speaks now.
    pub speaking: Vec<ParticipantId>,
    /// Everyone whose connection is up, in the order of joining.
    pub participants: Vec<ParticipantDocument>,
    /// Every view and what it shows.
    pub views: Vec<ViewDocument>,
    /// Every stream that is encoded.
    pub streams: Vec<StreamDocument>,
    /// The recordings that run, and the last ones that ran.
    pub recordings: Vec<RecordingDocument>,
    /// The broadcasts that run, and the last ones that ran.
    pub broadcasts: Vec<BroadcastDocument>,
    /// The inputs that run, and the last ones that ran.
    pub inputs: Vec<InputDocument>,
}

/// What an input is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputState {
    /// Nothing has come of it yet.
    #[default]
    Starting,
    /// It is seen or heard.
    Live,
    /// The source, or the process of ours, is gone or does not answer; it is tried again.
    Reconnecting,
    /// Over: it came to its end, or somebody ended it.
    Finished,
    /// Over, because something went wrong that trying again does not mend.
    Failed,
}

/// A source from elsewhere that takes part in a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InputDocument {
    /// Its id.
    pub id: InputId,
    /// Where it is from, without what is secret of it.
    pub url: String,
    /// Shown on its tile.
    pub name: String,
    /// It begins again at its end.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// What it is doing.
    pub state: InputState,
    /// What was wrong when it last broke off, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who it is in the room; it is gone from there when it is over.
    pub participant: ParticipantId,
    /// Bits per second lately, as it is sent on to the room.
    pub bitrate: u64,
    /// How often it was connected to anew.
    pub reconnects: u32,
    /// Size of its picture as it comes, once it is known.
    pub size: Option<Size>,
}

/// What a recording or broadcast is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputState {
    /// No media has been written or sent yet.
    #[default]
    Starting,
    /// Media is being written or sent.
    Live,
    /// The far end, or the process of ours, is gone or does not answer; it is tried again.
    Reconnecting,
    /// The last of it is being written.
    Finishing,
    /// Over, as somebody wanted.
    Finished,
    /// Over, because something went wrong.
    Failed,
}

impl OutputState {
    /// Whether nothing more comes of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Failed)
    }
}

/// What is written to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingKind {
    /// A view, and everyone's mix.
    #[default]
    View,
    /// What each participant sends, as it is, in a file each.
    Tracks,
}

/// A recording of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordingDocument {
    /// Its id.
    pub id: OutputId,
    /// What is recorded.
    pub kind: RecordingKind,
    /// The file format.
    pub format: FileFormat,
    /// The view recorded.
    pub view: ViewName,
    /// What it is doing.
    pub state: OutputState,
    /// Why it is not live, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The files so far, the last of which may still grow; found at `/v1/recordings/{file}`.
    pub files: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
    /// Seconds written.
    pub duration: f64,
    /// How far its files are on their way to a store; absent where they do not go to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadDocument>,
}

/// How far the files of a recording are on their way to a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadDocument {
    /// What is being done.
    pub state: UploadState,
    /// Why it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is being done about an upload; of several files the first of these that is true of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// Being sent.
    Uploading,
    /// Waits for its turn, or to be tried again.
    Waiting,
    /// There, and verified.
    Done,
}

/// A broadcast of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BroadcastDocument {
    /// Its id.
    pub id: OutputId,
    /// How it is sent, as `rtmp` or `hls`.
    pub kind: String,
    /// Where to, without what is secret of it; for HLS where it is to be had.
    pub url: String,
    /// What it is doing.
    pub state: OutputState,
    /// Why it is not live, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bits per second lately.
    pub bitrate: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Seconds sent.
    pub duration: f64,
    /// How often the far end was connected to anew.
    pub reconnects: u32,
    /// Frames not sent because the far end was too slow.
    pub dropped: u64,
    /// Of bare RTP: the SDP that a player opens it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<String>,
}

/// A person or program in a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParticipantDocument {
    /// Its id.
    pub id: ParticipantId,
    /// Shown on its tile; may be empty.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Not heard.
    pub audio_muted: bool,
    /// Not seen: its avatar stands on its tile.
    pub video_muted: bool,
    /// Made louder or softer in every mix.
    pub gain_db: f32,
    /// Wanted quality.
    pub tier: TierChoice,
    /// The view it gets.
    pub view: ViewName,
    /// What it sends.
    pub sends: Vec<SourceDocument>,
    /// What it gets back.
    pub receives: ReceivesDocument,
}

/// One thing a participant sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceDocument {
    /// Camera, screen or microphone.
    pub kind: SourceKind,
    /// Codec, once its first packet has come.
    pub codec: Option<Codec>,
    /// Picture size, once it is known.
    pub size: Option<Size>,
}

/// What a participant gets back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReceivesDocument {
    /// The mix.
    pub audio: bool,
    /// Codec of the composition, if it gets one.
    pub video: Option<Codec>,
    /// The tier it gets now.
    pub tier: Tier,
    /// Why it gets no better one; absent where the best one is sent, or it asked for this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// What a view shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewDocument {
    /// Which view.
    pub view: ViewName,
    /// The canvas the tiles stand on, in pixels.
    pub canvas: Size,
    /// Everyone's place.
    pub tiles: Vec<TileDocument>,
}

/// One participant's place, in canvas pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TileDocument {
    /// Whose it is.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub source: SourceKind,
    /// Pixels from the left edge.
    pub x: u32,
    /// Pixels from the top edge.
    pub y: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl TileDocument {
    /// The place as a rectangle.
    pub const fn rect(&self) -> Rect {
        Rect { x: self.x, y: self.y, width: self.width, height: self.height }
    }
}

/// How loud somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LevelDocument {
    /// Who.
    pub participant: ParticipantId,
    /// Decibels below the loudest there is: 0 to -126.
    pub dbov: i8,
}

/// One encoded stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamDocument {
    /// View, codec and tier, as `program/VP8/high`.
    pub key: String,
    /// What it really takes now, in bits per second.
    pub bitrate: u64,
    /// How many get it.
    pub subscribers: usize,
}

/// Who is on the two sides of a room's streams: as much as those are told who only watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audience {
    /// Something is sent that can be seen or heard.
    pub publishing: bool,
    /// How many only receive.
    pub viewers: usize,
}

/// Changes to a room; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomPatch {
    /// How people are arranged.
    pub layout: Option<Layout>,
    /// Nobody new may join.
    pub locked: Option<bool>,
}

/// Changes to a participant; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantPatch {
    /// Shown on its tile.
    pub name: Option<String>,
    /// Not heard.
    pub audio_muted: Option<bool>,
    /// Not seen.
    pub video_muted: Option<bool>,
    /// Decibels, -60 to 12.
    pub gain_db: Option<f32>,
    /// Wanted quality.
    pub tier: Option<TierChoice>,
}

/// Something that happened in a room, as it stands on the WebSocket behind its version.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The whole room: first on every WebSocket, and when the room itself was changed.
    Room(Box<RoomDocument>),
    /// Somebody's connection is up.
    Joined {
        /// Who.
        participant: ParticipantDocument,
    },
    /// Somebody is gone.
    Left {
        /// Who.
        participant: ParticipantId,
        /// Why.
        reason: LeaveReason,
    },
    /// Something about a participant changed.
    Updated {
        /// As it is now.
        participant: ParticipantDocument,
    },
    /// Tiles moved.
    Layout(ViewDocument),
    /// Another one speaks, or somebody began or stopped.
    Speaker {
        /// Who spoke last.
        participant: Option<ParticipantId>,
        /// Who speaks now.
        speaking: Vec<ParticipantId>,
    },
    /// A recording began, ended, or does something else now.
    Recording {
        /// As it is now.
        recording: RecordingDocument,
    },
    /// A broadcast began, ended, or does something else now.
    Broadcast {
        /// As it is now.
        broadcast: BroadcastDocument,
    },
    /// An input began, ended, or does something else now.
    Input {
        /// As it is now.
        input: InputDocument,
    },
    /// What the mixer process does.
    Mixer {
        /// Its state.
        state: MixerEvent,
    },
    /// Words from one to all.
    Chat {
        /// From whom; None for somebody who only has the events open.
        participant: Option<ParticipantId>,
        /// The sender's name.
        name: String,
        /// The words.
        text: String,
    },
    /// The room is no more; nothing follows.
    Ended {
        /// Why.
        reason: &'static str,
    },
}

/// Why somebody is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// It said goodbye.
    Left,
    /// Somebody else put it out.
    Removed,
    /// Nothing was heard of it any more.
    Lost,
}

/// News of the mixer process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MixerEvent {
    /// It died or hung; another one was started and has the room's state.
    Restarted,
}
