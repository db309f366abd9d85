//! What goes into a room and what comes out of it: plain data.
//!
//! Owns: settings, admissions, [`Input`], [`Effect`]. Does not know: what a room does with them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::direct::{DirectEvent, DirectMessage};
use super::document::{Event, LeaveReason, LevelDocument, ParticipantPatch, Role, RoomPatch, TierChoice};
use super::inputs::InputEvent;
use super::outputs::OutputEvent;
use crate::id::{InputId, OutputId, ParticipantId, RoomName, SourceId, ViewName};
use crate::layout::{Layout, Scene};
use crate::media::{Codec, Size, SoundTaken, SourceKind, StreamKey, Tier};
use crate::plan::{MixPlan, SourceSpec, StreamSet};
use crate::tier::{Ladder, Limit};

/// What a room is made with.
#[derive(Debug, Clone)]
pub struct RoomSettings {
    /// Its name.
    pub name: RoomName,
    /// How people are arranged at first.
    pub layout: Layout,
    /// The picture everyone gets.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// Sizes and bitrates of the tiers.
    pub ladder: Ladder,
    /// How many may be in it who send.
    pub max_participants: usize,
    /// How many may be in it who only receive.
    pub max_viewers: usize,
    /// How many recordings and broadcasts may run.
    pub max_outputs: usize,
    /// How many inputs may run.
    pub max_inputs: usize,
    /// Whether two who are alone may send to each other directly.
    pub direct_for_two: bool,
    /// How long the mixer, and a room made by a join, outlive the last leave.
    pub linger: Duration,
    /// Stays when empty, until it is deleted.
    pub permanent: bool,
}

/// Somebody who wants in, as the offer and the query say.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Shown on the tile.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it will send, in the order of the offer.
    pub sends: Vec<SourceKind>,
    /// Wants the mix, in one of these qualities.
    pub receives_audio: Option<SoundTaken>,
    /// Wants the composition in this codec.
    pub receives_video: Option<Codec>,
    /// Wanted quality.
    pub tier: TierChoice,
}

/// The answer to an [`Admission`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Who it is from now on.
    pub participant: ParticipantId,
    /// Ids for what it sends, in the order of the admission.
    pub sources: Vec<(SourceKind, SourceId)>,
}

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Locked by a moderator.
    #[error("the room is locked: ask a moderator to let you in")]
    Locked,
    /// As many who send as the configuration allows.
    #[error("the room is full ({0} people): try again when somebody has left, or watch without sending")]
    Full(usize),
    /// As many who only receive as the configuration allows.
    #[error("{0} people watch this room already: try again when somebody has left")]
    FullOfViewers(usize),
    /// As many recordings and broadcasts as the configuration allows.
    #[error("{0} recordings and broadcasts of this room run already: stop one first, or raise rooms.max_outputs")]
    FullOfOutputs(usize),
    /// As many inputs as the configuration allows.
    #[error("{0} inputs take part in this room already: end one first, or raise rooms.max_inputs")]
    FullOfInputs(usize),
    /// Being deleted.
    #[error("the room has just ended: join again to begin a new one")]
    Ended,
}

/// What happens to a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A connection is up (again).
    Connected(ParticipantId),
    /// A connection is gone, or never came up, or its owner left.
    Left(ParticipantId, LeaveReason),
    /// A source's first packet, or the first in another codec.
    SourceStarted(SourceId, Codec),
    /// What subscribers need now.
    Demand(StreamDemand),
    /// The mixer cannot decode this source without a keyframe.
    SourceKeyframeWanted(SourceId),
    /// The mixer has seen the size of a source's picture.
    SourceSize(SourceId, Size),
    /// The mixer's levels: -dBov by participant.
    Levels(Vec<(ParticipantId, u8)>),
    /// Bits per second of streams, measured.
    Bitrates(Vec<(u32, u64)>),
    /// The mixer process died or hung.
    MixerLost,
    /// News of a recording or broadcast.
    Output(OutputId, OutputEvent),
    /// News of an input.
    Input(InputId, InputEvent),
    /// What a client says about going direct.
    Direct(ParticipantId, DirectMessage),
    /// Somebody changes a participant.
    Update(ParticipantId, ParticipantPatch),
    /// Somebody changes the room.
    Patch(RoomPatch),
    /// Words for everyone.
    Chat(Option<ParticipantId>, String),
    /// Everyone out.
    Delete,
    /// The time of [`Room::poll_timeout`] has come.
    Timeout,
}

/// What the room asks of the shell around it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start a mixer process; orders follow.
    StartMixer,
    /// Stop it.
    StopMixer,
    /// Tell the mixer.
    Order(Order),
    /// Who gets what from now on.
    Routes(Vec<Route>),
    /// Ask a sender for a keyframe of this source.
    Keyframe(ParticipantId, SourceId),
    /// Ask a participant to send no more than so many bits per second, all it sends together.
    LimitUplink(ParticipantId, u64),
    /// Start the process of a recording or broadcast.
    StartOutput(OutputId),
    /// Let it come to an end in order.
    FinishOutput(OutputId),
    /// Which recordings and broadcasts get what from now on.
    OutputRoutes(Vec<OutputRoute>),
    /// Start the process of an input.
    StartInput(InputId),
    /// End it.
    StopInput(InputId),
    /// Close this connection.
    Close(ParticipantId),
    /// Tell everyone who listens to events.
    Event(u64, Event),
    /// Tell one participant about going direct, and nobody else.
    Tell(ParticipantId, DirectEvent),
    /// Tell them how loud everyone is. It has no version: whoever misses it misses nothing that lasts.
    Levels(Vec<LevelDocument>),
    /// The room is over: forget it.
    Ended,
}

/// What the mixer is told; each replaces what was said of the same thing before.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// A source begins or has another codec.
    Source(SourceSpec),
    /// A source ended.
    SourceGone(SourceId),
    /// What a view shows.
    Scene(Scene),
    /// Who is heard by whom.
    Mix(MixPlan),
    /// Which streams are wanted.
    Streams(StreamSet),
    /// A keyframe in this stream, soon.
    Keyframe(u32),
}

/// What one participant gets; its subscriber selects the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The participant.
    pub participant: ParticipantId,
    /// The view and the codec of its video.
    pub video: Option<(ViewName, Codec)>,
    /// The tier of its video.
    pub tier: TierChoice,
    /// The mix without its own voice.
    pub audio: bool,
}

/// What the subscribers of a room need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamDemand {
    /// Every stream that a subscriber needs, with the number of subscribers that have selected it: 0 for a stream that only
    /// flows until another one can begin.
    pub subscribers: BTreeMap<StreamKey, usize>,
    /// The tiers of participants whose subscriber has selected another, and why each gets no better one.
    pub selections: Vec<(ParticipantId, Tier, Option<Limit>)>,
    /// Serials of streams of which a subscriber needs a keyframe.
    pub keyframes: Vec<u32>,
}

/// What one recording or broadcast gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRoute {
    /// Which.
    pub output: OutputId,
    /// The serials of its streams, in its order.
    pub streams: Vec<u32>,
    /// Everyone's mix.
    pub sound: bool,
    /// What every participant sends, as it is.
    pub sources: bool,
}
