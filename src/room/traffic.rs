//! Inputs and effects of a room: plain data.
//!
//! Owns: [`RoomSettings`], [`Admission`], [`Input`], [`Effect`]. Does not know: what a room does with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::chat::Readers;
use super::direct::{DirectEvent, DirectMessage};
use super::document::{Event, LeaveReason, LevelDocument, ParticipantPatch, Role, RoomPatch, TierChoice};
use super::emoji::Emoji;
use super::inputs::InputEvent;
use super::moderation::{Changer, Identity, Withheld};
use super::outputs::OutputEvent;
use super::quarantine::QuarantineReason;
use super::view_request::{ViewError, ViewPatch};
use crate::filter::{Catalog, FilterSpec, Removal};
use crate::id::{InputId, OutputId, ParticipantId, RoomName, SourceId, ViewName};
use crate::layout::{Layout, Scene};
use crate::media::{AudioEffort, Codec, Size, SoundTaken, SourceKind, StreamKey, Tier};
use crate::overlay::{Image, ImageName, Overlay};
use crate::plan::{MixPlan, SourceSpec, StreamSet};
use crate::tier::{Ladder, Limit};

/// The settings of a room.
#[derive(Debug, Clone)]
pub struct RoomSettings {
    /// The room's name.
    pub name: RoomName,
    /// The initial layout.
    pub layout: Layout,
    /// The canvas of views that have no other one.
    pub canvas: Size,
    /// Frames per second of views that have no other.
    pub fps: u32,
    /// Sizes and bitrates of the tiers.
    pub ladder: Ladder,
    /// Most participants that send.
    pub max_participants: usize,
    /// Most viewers.
    pub max_viewers: usize,
    /// Most recordings and broadcasts at a time.
    pub max_outputs: usize,
    /// Most inputs at a time.
    pub max_inputs: usize,
    /// Whether the only two participants may send to each other directly.
    pub direct_for_two: bool,
    /// The filters that moderators may apply.
    pub filters: Arc<Catalog>,
    /// How long a room remains after the last person has left, see [`super::presence`].
    pub linger: Duration,
    /// The room exists until it is deleted, even if empty.
    pub permanent: bool,
    /// Most chat messages that are kept for those who come.
    pub chat_history: usize,
}

/// A request for admission, from the offer and the query of a join.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The name on the tile.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The kinds of its sources, in the order of the offer.
    pub sends: Vec<SourceKind>,
    /// Receives the mix in one of these qualities.
    pub receives_audio: Option<SoundTaken>,
    /// Receives the composed video in this codec.
    pub receives_video: Option<Codec>,
    /// The tier that it asks for.
    pub tier: TierChoice,
    /// The view that it asks for.
    pub view: ViewPatch,
    /// It is a program, which alone does not keep a room alive.
    pub bot: bool,
    /// Recognizes the same person; None for an input.
    pub identity: Option<Identity>,
}

/// An admitted participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its id.
    pub participant: ParticipantId,
    /// The ids of its sources, in the order of the admission.
    pub sources: Vec<(SourceKind, SourceId)>,
    /// It waits in the lobby: its packets are held until [`Effect::Hold`].
    pub waits: bool,
}

/// Why the room refuses a participant, an output or an input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A moderator has removed the same person.
    #[error("a moderator has removed you from this room: you may join again after Retry-After")]
    KeptOut(Duration),
    /// The room is not open yet.
    #[error("this room is not open yet: join after Retry-After")]
    NotOpenYet(Duration),
    /// The time of the room has ended.
    #[error("this room is over: ask its moderators for a new time")]
    Over,
    /// The lobby is full.
    #[error("{0} participants wait to be let in already: try again when some have been")]
    FullOfWaiting(usize),
    /// A moderator has locked the room.
    #[error("the room is locked: ask a moderator to let you in")]
    Locked,
    /// The room has its maximum of participants that send.
    #[error("the room is full ({0} participants): try again when one has left, or join as a viewer")]
    Full(usize),
    /// The room has its maximum of viewers.
    #[error("the room has its maximum of {0} viewers: try again when one has left")]
    FullOfViewers(usize),
    /// The room has its maximum of recordings and broadcasts.
    #[error("{0} recordings and broadcasts of this room run already: stop one first, or raise rooms.max_outputs")]
    FullOfOutputs(usize),
    /// The room has its maximum of inputs.
    #[error("{0} inputs of this room run already: end one first, or raise rooms.max_inputs")]
    FullOfInputs(usize),
    /// The view that is asked for.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The room has ended.
    #[error("the room has just ended: join again to begin a new one")]
    Ended,
}

/// An input of a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A participant's connection is up, or up again.
    Connected(ParticipantId),
    /// A participant has left, or its connection is lost or never came up.
    Left(ParticipantId, LeaveReason),
    /// A source has started, or changed its codec.
    SourceStarted(SourceId, Codec),
    /// The demand of the subscribers has changed.
    Demand(StreamDemand),
    /// The mixer needs a keyframe of this source.
    SourceKeyframeWanted(SourceId),
    /// The mixer reports the picture size of a source.
    SourceSize(SourceId, Size),
    /// Of a simulcast source the encoding with this RID is received from now on.
    SourceEncoding(SourceId, String),
    /// The mixer reports audio levels in -dBov.
    Levels(Vec<(ParticipantId, u8)>),
    /// Measured bitrates in bits per second, by stream serial.
    Bitrates(Vec<(u32, u64)>),
    /// The mixer that is lost next was decoding these sources when it died or hung.
    DiedDecoding(BTreeSet<SourceId>),
    /// A decoder of this source has failed.
    DecoderFailed(SourceId),
    /// The mixer process died or hung.
    MixerLost,
    /// The mixer reports ticks of its video loop since its last report.
    VideoLoad {
        /// Ticks run or skipped.
        ticks: u64,
        /// Those that began late or were skipped.
        late: u64,
    },
    /// The mixer reports the CPU time that the filter with this serial takes for a frame.
    FilterLoad(u32, Duration),
    /// The mixer has removed the filter with this serial, and says why.
    FilterRemoved(u32, Removal, String),
    /// The mixer cannot draw an image, and says why.
    ImageFailed(ImageName, String),
    /// The mixer reports its audio effort.
    AudioEffort(AudioEffort),
    /// An event of a recording or broadcast.
    Output(OutputId, OutputEvent),
    /// An event of an input.
    Input(InputId, InputEvent),
    /// A client's message about a direct call.
    Direct(ParticipantId, DirectMessage),
    /// Change a participant.
    Update(Changer, ParticipantId, ParticipantPatch),
    /// Change the room.
    Patch(RoomPatch),
    /// A participant reacts.
    React(ParticipantId, Emoji),
    /// Delete the room.
    Delete,
    /// The time of [`Room::poll_timeout`] is reached.
    Timeout,
}

/// What the room's task is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start a mixer process; its orders follow.
    StartMixer,
    /// Stop the mixer process.
    StopMixer,
    /// Send an order to the mixer.
    Order(Order),
    /// The routes to participants.
    Routes(Vec<Route>),
    /// Request a keyframe of this source from its participant.
    Keyframe(ParticipantId, SourceId),
    /// Limit the bitrate of all that a participant sends, in bits per second.
    LimitUplink(ParticipantId, u64),
    /// A participant's source of this kind is shown at most at this size from now on; zero while it is not shown.
    Want(ParticipantId, SourceKind, Size),
    /// Start an output process.
    StartOutput(OutputId),
    /// Finish an output.
    FinishOutput(OutputId),
    /// The routes to outputs.
    OutputRoutes(Vec<OutputRoute>),
    /// Start an input process.
    StartInput(InputId),
    /// Stop an input.
    StopInput(InputId),
    /// Hold the packets of a participant, or let them through.
    Hold(ParticipantId, bool),
    /// Keep these kinds of a participant's sources from recordings of tracks.
    Withhold(ParticipantId, Withheld),
    /// Close the connection of a participant.
    Close(ParticipantId),
    /// A participant's source of this kind is isolated: to be logged and counted.
    Quarantined(ParticipantId, SourceKind, QuarantineReason),
    /// Send an event with its version to all readers of the room's events.
    Event(u64, Event),
    /// Send an event without a version to some readers only.
    Private(Readers, Event),
    /// Send an event of a direct call to one participant only.
    Tell(ParticipantId, DirectEvent),
    /// Send audio levels to the readers of the room's events. They have no version, since they are no lasting state.
    Levels(Vec<LevelDocument>),
    /// The room has ended.
    Ended,
}

/// An order to the mixer, which replaces the previous one about the same object.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// A source starts or changes its codec.
    Source(SourceSpec),
    /// A source has ended.
    SourceGone(SourceId),
    /// The filters of a source.
    Filters(SourceId, Vec<FilterSpec>),
    /// The filters of a view.
    ViewFilters(ViewName, Vec<FilterSpec>),
    /// The scene of a view.
    Scene(Scene),
    /// A view is not composed any more.
    SceneGone(ViewName),
    /// The mix plan.
    Mix(MixPlan),
    /// The streams to encode.
    Streams(StreamSet),
    /// The overlays of a view.
    Overlays(ViewName, Vec<Overlay>),
    /// An image that overlays, filters, avatars or backgrounds show.
    Image(ImageName, Image),
    /// No overlay and no filter shows this image any more.
    ImageGone(ImageName),
    /// Encode a keyframe in this stream soon.
    Keyframe(u32),
}

/// The route to a participant, whose subscriber selects the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The participant.
    pub participant: ParticipantId,
    /// View and codec of its video.
    pub video: Option<(ViewName, Codec)>,
    /// The tier of its video: pinned, or `auto`.
    pub tier: TierChoice,
    /// It receives a mix-minus.
    pub audio: bool,
}

/// The streams and keyframes that a room's subscribers need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamDemand {
    /// Every stream that a subscriber needs, with the number of subscribers that have selected it: 0 for a stream that
    /// only flows until another one can begin.
    pub subscribers: BTreeMap<StreamKey, usize>,
    /// The tiers of participants whose subscriber has selected another, and why each gets no better one.
    pub selections: Vec<(ParticipantId, Tier, Option<Limit>)>,
    /// Serials of streams of which a subscriber needs a keyframe.
    pub keyframes: Vec<u32>,
}

/// The route to a recording or broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRoute {
    /// Its id.
    pub output: OutputId,
    /// The serials of its streams, in the order of its request.
    pub streams: Vec<u32>,
    /// It receives the mix of all sources.
    pub sound: bool,
    /// It receives the packets of participants as they are.
    pub sources: bool,
}
