//! The JSON documents and events of a room, for REST and WebSocket.
//!
//! Owns: the serde types of `docs/api.md`. Does not know: HTTP, WebSockets, authorization.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chat::ChatMessage;
use super::emoji::Emoji;
use super::moderation::{Moderator, WhoMay, WhoMayPatch};
use super::view_request::{
    Change, Hidden, SelfView, ViewPatch, changed, changed_canvas, changed_layout, checked_layout, checked_theme,
};
use crate::filter::{FilterRequest, Removal};
use crate::id::{ImageName, InputId, OutputId, ParticipantId, RoomName, ViewName};
use crate::layout::{CellName, Layout, LayoutKind, More, ObjectFit, Theme};
use crate::media::{AudioEffort, Codec, FileFormat, Rect, Size, SourceKind, Tier};
use crate::room::filters::FilterDocument;
use crate::room::images::ImageDocument;
use crate::room::overlays::OverlayDocument;
use crate::room::quarantine::QuarantineReason;
use crate::tier::Limit;
use crate::time::WallTime;

/// The role of a token; each role includes the permissions of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Receives.
    Viewer,
    /// Sends and receives.
    Participant,
    /// Changes the room and its participants.
    Moderator,
    /// Administers the server: all rooms, recordings, metrics.
    Operator,
}

/// Where a participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is connecting.
    Joining,
    /// It waits until a moderator lets it in.
    Lobby,
    /// It is in the room.
    In,
}

/// The tier that a participant asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// The best tier that the link carries.
    #[default]
    Auto,
    /// This tier.
    #[serde(untagged)]
    Pinned(Tier),
}

/// A room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomDocument {
    /// The room's name.
    pub name: RoomName,
    /// The version of the latest event; events after this document have the following versions.
    pub version: u64,
    /// The layout of the view `program`.
    pub layout: Layout,
    /// The canvas of the view `program`.
    pub canvas: Size,
    /// Frames per second of the view `program`.
    pub fps: u32,
    /// The look of all views; absent for the usual one.
    #[serde(skip_serializing_if = "Theme::is_usual")]
    pub theme: Theme,
    /// What the room is about; absent if it was not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Only moderators may join.
    pub locked: bool,
    /// Participants wait until a moderator lets them in.
    pub lobby: bool,
    /// Who may do what.
    pub who_may: WhoMay,
    /// Most participants that send; absent if only the configuration limits them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_participants: Option<usize>,
    /// From when on participants may join; absent if at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<WallTime>,
    /// When the room ends for all; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<WallTime>,
    /// The participants in the lobby; only for moderators, absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<ParticipantDocument>,
    /// The reduced quality of the audio while the cores are busy; absent at full quality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_reduced: Option<AudioEffort>,
    /// The current speaker, or the latest one.
    pub speaker: Option<ParticipantId>,
    /// All participants that speak now.
    pub speaking: Vec<ParticipantId>,
    /// The connected participants in the order of joining.
    pub participants: Vec<ParticipantDocument>,
    /// The participants with raised hands, in the order in which these were raised.
    pub hands: Vec<ParticipantId>,
    /// The views with their tiles.
    pub views: Vec<ViewDocument>,
    /// The streams that are encoded.
    pub streams: Vec<StreamDocument>,
    /// The running recordings, and the latest ended ones.
    pub recordings: Vec<RecordingDocument>,
    /// The running broadcasts, and the latest ended ones.
    pub broadcasts: Vec<BroadcastDocument>,
    /// The running inputs, and the latest ended ones.
    pub inputs: Vec<InputDocument>,
    /// The overlays, in the order in which they are drawn.
    pub overlays: Vec<OverlayDocument>,
    /// The uploaded images.
    pub images: Vec<ImageDocument>,
}

/// The state of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputState {
    /// No media has arrived yet.
    #[default]
    Starting,
    /// Media arrives.
    Live,
    /// The source is connected, and has delivered nothing new for 3 s.
    Stalled,
    /// The source or the process is lost and is retried.
    Reconnecting,
    /// It has come to its end, or was ended by a request.
    Finished,
    /// It has ended by an error that a retry does not solve.
    Failed,
}

/// Why a unit of media of a source was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A message or frame without contents.
    Empty,
    /// It cannot be parsed or decoded.
    Malformed,
    /// A frame before the parameter sets or the configuration of its codec.
    NoConfig,
    /// A codec that inputs of this protocol do not support.
    Unsupported,
}

impl SkipReason {
    /// The name in metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Malformed => "malformed",
            Self::NoConfig => "no_config",
            Self::Unsupported => "unsupported",
        }
    }
}

/// An input of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InputDocument {
    /// The input's id.
    pub id: InputId,
    /// The URL of the source without secrets.
    pub url: String,
    /// The name on its tile.
    pub name: String,
    /// It plays again after its end.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// The mixer's state.
    pub state: InputState,
    /// Why it was last interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its participant, which leaves when the input ends.
    pub participant: ParticipantId,
    /// Bitrate to the room in bits per second.
    pub bitrate: u64,
    /// Number of reconnections.
    pub reconnects: u32,
    /// Picture size of the source, once known.
    pub size: Option<Size>,
    /// Units of media that were skipped because they cannot be used.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<SkipReason, u64>,
    /// How often timestamps jumped and playback continued at once.
    pub timestamp_jumps: u64,
}

/// The state of a recording or broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputState {
    /// No media has been written or sent yet.
    #[default]
    Starting,
    /// Media is being written or sent.
    Live,
    /// The destination or the process is lost and is retried.
    Reconnecting,
    /// Its files are being completed.
    Finishing,
    /// It was ended by a request.
    Finished,
    /// It has ended by an error.
    Failed,
}

impl OutputState {
    /// Whether it has ended.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Failed)
    }
}

/// The contents of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingKind {
    /// A view and the mix of all sources.
    #[default]
    View,
    /// The packets of each participant, in one file each.
    Tracks,
}

/// A recording of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordingDocument {
    /// The recording's id.
    pub id: OutputId,
    /// The contents.
    pub kind: RecordingKind,
    /// The file format.
    pub format: FileFormat,
    /// The recorded view.
    pub view: ViewName,
    /// Its state.
    pub state: OutputState,
    /// Why it is not live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its files, of which the last may still grow; available at `/v1/recordings/{file}`.
    pub files: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
    /// Seconds written.
    pub duration: f64,
    /// The state of the upload of its files; absent without an upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadDocument>,
}

/// The state of the upload of a recording's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadDocument {
    /// The state.
    pub state: UploadState,
    /// Why it is retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of an upload; of several files the first of these that applies to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// A file is being uploaded.
    Uploading,
    /// A file waits for its turn or for a retry.
    Waiting,
    /// All files are stored and verified.
    Done,
}

/// A broadcast of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BroadcastDocument {
    /// The broadcast's id.
    pub id: OutputId,
    /// The protocol, as `rtmp` or `hls`.
    pub kind: String,
    /// The destination without secrets; the URL of the playlist for HLS.
    pub url: String,
    /// The broadcast view.
    pub view: ViewName,
    /// Everyone may watch it without a token; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    /// Its state.
    pub state: OutputState,
    /// Why it is not live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bitrate in bits per second.
    pub bitrate: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Seconds sent.
    pub duration: f64,
    /// Number of reconnections.
    pub reconnects: u32,
    /// Frames dropped because the destination was too slow.
    pub dropped: u64,
    /// The SDP with which a player opens a broadcast by RTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<String>,
}

/// A participant, publisher or viewer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParticipantDocument {
    /// The participant's id.
    pub id: ParticipantId,
    /// The name that it has given; may be empty.
    pub name: String,
    /// The name that is shown, also in the picture: `name`, or `Guest` with the number of its id.
    pub display_name: String,
    /// The initials on its avatar, also in the picture: at most two letters.
    pub initials: String,
    /// The image on its tile instead of the initials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar: Option<ImageName>,
    /// Its role.
    pub role: Role,
    /// Where it is.
    pub state: Presence,
    /// It is a program, which alone does not keep a room alive; absent for people.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bot: bool,
    /// It has muted itself: its audio is not mixed.
    pub audio_muted: bool,
    /// It has stopped its camera: its tile shows the avatar.
    pub video_muted: bool,
    /// The moderator who has muted it; absent if none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_by: Option<Moderator>,
    /// The moderator who has stopped its camera; absent if none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_stopped_by: Option<Moderator>,
    /// It may speak although only moderators may.
    pub speaker_allowed: bool,
    /// It is neither heard nor seen, because only moderators may speak; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub listens: bool,
    /// Since when its hand is raised; absent if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_raised_at: Option<WallTime>,
    /// Gain in every mix, in decibels.
    pub gain_db: f32,
    /// The tier that it asks for.
    pub tier: TierChoice,
    /// The view that it asks for; for a view of its own, the one that it receives.
    pub view: ViewName,
    /// The filters of its sources, in the order in which they are applied; absent without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterDocument>,
    /// Its sources.
    pub sends: Vec<SourceDocument>,
    /// What it receives.
    pub receives: ReceivesDocument,
}

/// A source of a participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceDocument {
    /// Camera, screen or microphone.
    pub kind: SourceKind,
    /// Its codec; None before the first packet.
    pub codec: Option<Codec>,
    /// Picture size, once known.
    pub size: Option<Size>,
    /// RID of the simulcast encoding that is decoded; absent without simulcast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The size at which its picture is shown at most, zero while it is not shown; absent for audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Size>,
    /// Why it is neither shown nor mixed; absent for a source that is not isolated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<QuarantineReason>,
}

/// What a participant receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceivesDocument {
    /// Whether it receives the mix.
    pub audio: bool,
    /// The codec of its video, if it receives any.
    pub video: Option<Codec>,
    /// The view that is composed for it: its tiles are in the room's `views`.
    pub view: ViewName,
    /// It receives `program` instead of its own view, because of the maximum of those or the CPU load; absent
    /// otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub view_fallback: bool,
    /// The tier that it receives now.
    pub tier: Tier,
    /// Why it gets no better tier; absent for the best tier and for a pinned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// A view with its tiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewDocument {
    /// The view's name.
    pub view: ViewName,
    /// The kind of its layout; for `auto`, what it has chosen.
    pub kind: LayoutKind,
    /// Size of the canvas in pixels.
    pub canvas: Size,
    /// The tiles.
    pub tiles: Vec<TileDocument>,
    /// The place that shows the number of people without a tile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<MoreDocument>,
}

/// The place with the number of people without a tile, in pixels of the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MoreDocument {
    /// Their number.
    pub count: u32,
    /// Pixels from the left edge.
    pub x: u32,
    /// Pixels from the top edge.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl From<More> for MoreDocument {
    fn from(More { count, rect: Rect { x, y, width, height } }: More) -> Self {
        Self { count, x, y, width, height }
    }
}

/// A named view with its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ViewSettingsDocument {
    /// Its tiles.
    #[serde(flatten)]
    pub view: ViewDocument,
    /// The layout.
    pub layout: Layout,
    /// Frames per second.
    pub fps: u32,
    /// The only cells that are shown; None for all.
    pub show: Option<Vec<CellName>>,
    /// What is not shown.
    pub hide: Vec<Hidden>,
    /// The filters of the composed picture, in the order in which they are applied; absent without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterDocument>,
}

/// A tile, in pixels of the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TileDocument {
    /// The participant.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub source: SourceKind,
    /// Pixels from the left edge.
    pub x: u32,
    /// Pixels from the top edge.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How the picture fills the tile.
    pub fit: ObjectFit,
}

impl TileDocument {
    /// The tile as a rectangle.
    pub const fn rect(&self) -> Rect {
        Rect { x: self.x, y: self.y, width: self.width, height: self.height }
    }
}

/// The audio level of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LevelDocument {
    /// The participant.
    pub participant: ParticipantId,
    /// The level in dBov: 0 (the loudest) to -126.
    pub dbov: i8,
}

/// An encoded stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamDocument {
    /// View, codec and tier, as `program/VP8/high`.
    pub key: String,
    /// Measured bitrate in bits per second.
    pub bitrate: u64,
    /// Number of subscribers.
    pub subscribers: usize,
}

/// The publishers and viewers of a room, as WHEP players get to know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audience {
    /// A connected participant sends.
    pub publishing: bool,
    /// Number of connected viewers.
    pub viewers: usize,
}

/// Changes of a room; absent fields remain as they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomPatch {
    /// The layout.
    #[serde(default, deserialize_with = "checked_layout")]
    pub layout: Option<Layout>,
    /// The look of all views; replaces the one before.
    #[serde(default, deserialize_with = "checked_theme")]
    pub theme: Option<Theme>,
    /// What the room is about, at most [`TITLE_MAX`] characters.
    #[serde(default, deserialize_with = "changed")]
    pub title: Change<String>,
    /// Only moderators may join.
    pub locked: Option<bool>,
    /// Participants wait until a moderator lets them in. Those who wait are let in when this ends.
    pub lobby: Option<bool>,
    /// Who may do what.
    pub who_may: Option<WhoMayPatch>,
    /// Most participants that send, at least 1.
    #[serde(default, deserialize_with = "changed")]
    pub max_participants: Change<usize>,
    /// From when on participants may join.
    #[serde(default, deserialize_with = "changed")]
    pub opens_at: Change<WallTime>,
    /// When the room ends for all.
    #[serde(default, deserialize_with = "changed")]
    pub ends_at: Change<WallTime>,
}

/// Longest title of a room, in characters.
pub const TITLE_MAX: usize = 200;

impl RoomPatch {
    /// # Errors
    /// What is invalid, in words for the client.
    pub fn check(&self) -> Result<(), String> {
        if self.title.iter().flatten().any(|title| title.chars().count() > TITLE_MAX) {
            return Err(format!("`title` has more than {TITLE_MAX} characters"));
        }
        if self.max_participants == Some(Some(0)) {
            return Err("`max_participants` must be at least 1; `null` removes the limit".to_owned());
        }
        if let (Some(Some(opens_at)), Some(Some(ends_at))) = (self.opens_at, self.ends_at)
            && opens_at >= ends_at
        {
            return Err("`opens_at` must be before `ends_at`".to_owned());
        }
        Ok(())
    }
}

/// Changes of a participant; absent fields remain as they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantPatch {
    /// The name on its tile.
    pub name: Option<String>,
    /// Its role, by moderators only.
    pub role: Option<Role>,
    /// It may speak although only moderators may; by moderators only.
    pub speaker_allowed: Option<bool>,
    /// Its audio is not mixed.
    pub audio_muted: Option<bool>,
    /// Its tile shows the avatar instead of its camera.
    pub video_muted: Option<bool>,
    /// Its hand is raised.
    pub hand_raised: Option<bool>,
    /// Gain in decibels, -60 to 12.
    pub gain_db: Option<f32>,
    /// The tier that it asks for.
    pub tier: Option<TierChoice>,
    /// The uploaded image on its tile instead of the initials.
    #[serde(default, deserialize_with = "changed")]
    pub avatar: Change<ImageName>,
    /// The name of a view, or `own`.
    pub view: Option<ViewName>,
    /// The layout of its own view.
    #[serde(default, deserialize_with = "changed_layout")]
    pub layout: Change<Layout>,
    /// The canvas of its own view.
    #[serde(default, deserialize_with = "changed_canvas")]
    pub canvas: Change<Size>,
    /// Whether it sees itself.
    pub self_view: Option<SelfView>,
    /// The filters of its sources, in the order in which they are applied.
    pub filters: Option<Vec<FilterRequest>>,
}

impl ParticipantPatch {
    /// The changes of what it receives.
    pub fn view_patch(&self) -> ViewPatch {
        let Self { view, layout, canvas, self_view, .. } = self.clone();
        ViewPatch { view, layout, canvas, self_view }
    }
}

/// An event of a room, as sent on the WebSocket behind its version.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The room's document: first on every WebSocket, and after each change of the room itself.
    Room(Box<RoomDocument>),
    /// A participant has connected.
    Joined {
        /// The participant.
        participant: ParticipantDocument,
    },
    /// A participant has left.
    Left {
        /// The participant.
        participant: ParticipantId,
        /// The reason.
        reason: LeaveReason,
    },
    /// A participant has changed.
    Updated {
        /// The participant.
        participant: ParticipantDocument,
    },
    /// A participant waits in the lobby; for moderators and itself.
    Lobby {
        /// The participant.
        participant: ParticipantDocument,
    },
    /// A moderator has muted a participant or stopped its camera, or has ended that.
    Muted {
        /// The participant.
        participant: ParticipantId,
        /// Whether it is muted by a moderator now.
        audio: bool,
        /// Whether its camera is stopped by a moderator now.
        video: bool,
        /// The moderator.
        by: Moderator,
    },
    /// A moderator asks a participant to unmute; for that participant.
    AskedToUnmute {
        /// The participant.
        participant: ParticipantId,
        /// The moderator.
        by: Moderator,
    },
    /// The room ends soon.
    Warning {
        /// What is left, in seconds.
        seconds_left: u64,
        /// The end.
        ends_at: WallTime,
    },
    /// Tiles have moved.
    Layout(ViewDocument),
    /// The speaker has changed, or a participant has started or stopped speaking.
    Speaker {
        /// The current speaker, or the latest one.
        participant: Option<ParticipantId>,
        /// All participants that speak now.
        speaking: Vec<ParticipantId>,
    },
    /// The state of a recording has changed.
    Recording {
        /// The recording.
        recording: RecordingDocument,
    },
    /// The state of a broadcast has changed.
    Broadcast {
        /// The broadcast.
        broadcast: BroadcastDocument,
    },
    /// The state of an input has changed.
    Input {
        /// The input.
        input: InputDocument,
    },
    /// An overlay was added or changed, or has ended.
    Overlay {
        /// The overlay.
        overlay: OverlayDocument,
    },
    /// A filter was removed because it had failed or was slow.
    FilterRemoved {
        /// The participant; absent for a filter of a view.
        #[serde(skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        /// The view; absent for a filter of a participant.
        #[serde(skip_serializing_if = "Option::is_none")]
        view: Option<ViewName>,
        /// The name of the filter.
        name: String,
        /// The source that it filtered; absent for a filter of a view.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<SourceKind>,
        /// The reason.
        reason: Removal,
        /// The reason in words.
        detail: String,
    },
    /// A source is isolated because it breaks decoders: it is neither shown nor mixed until it ends.
    Quarantined {
        /// The participant.
        participant: ParticipantId,
        /// Camera, screen or microphone.
        source: SourceKind,
        /// The reason.
        reason: QuarantineReason,
    },
    /// A caption.
    Caption {
        /// The speaker.
        participant: ParticipantId,
        /// The speaker's name.
        name: String,
        /// What was said.
        text: String,
        /// The text does not change any more.
        #[serde(rename = "final")]
        is_final: bool,
        /// The language (RFC 5646).
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    },
    /// The state of the mixer has changed.
    Mixer {
        /// Its state.
        state: MixerEvent,
        /// The reduced quality of the audio; absent at full quality.
        #[serde(skip_serializing_if = "Option::is_none")]
        audio_reduced: Option<AudioEffort>,
    },
    /// A chat message.
    Chat(ChatMessage),
    /// A hand was raised or lowered.
    Hand {
        /// The participant.
        participant: ParticipantId,
        /// Since when it is raised; None if it is not.
        raised_at: Option<WallTime>,
    },
    /// A participant reacts.
    Reaction {
        /// The participant.
        participant: ParticipantId,
        /// What is shown on its tile for some seconds.
        emoji: Emoji,
    },
    /// The room has ended; nothing follows.
    Ended {
        /// The reason.
        reason: &'static str,
    },
}

/// Why a participant has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// It has left by itself.
    Left,
    /// It was removed by a request.
    Removed,
    /// Its connection was lost.
    Lost,
    /// The room is over: its time has ended.
    Over,
}

/// The state of the mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MixerEvent {
    /// The mixer died or hung and was replaced by another one with the room's state.
    Restarted,
    /// The cores are busy: the audio has less quality than before, or less than full quality.
    AudioReduced,
    /// The audio has full quality again.
    AudioFull,
}
