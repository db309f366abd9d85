//! The commands of a room's task, in one bounded queue.
//!
//! Owns: [`Command`], and the relay of a peer's events. Does not know: what a room does with them ([`super::task`]).

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::inputs::{self, PlannedInput};
use super::outputs::{self, Planned};
use super::overlays::OverlayCommand;
use super::sessions::{Admittance, JoinedPeer};
use super::{EventStream, RoomError};
use crate::id::{InputId, OutputId, ParticipantId, ViewName};
use crate::link::FromMixer;
use crate::media::SourceKind;
use crate::peer::PeerEvent;
use crate::process::Loss;
use crate::room::chat::{ChatError, ChatMessage, ChatRequest, Reader, Sender};
use crate::room::document::{Audience, ParticipantDocument, ParticipantPatch, RoomDocument, ViewSettingsDocument};
use crate::room::lobby::Door;
use crate::room::moderation::{Changer, Decision, Identity, ModerationError, Moderator};
use crate::room::view_request::{ViewError, ViewRequest};
use crate::room::{Admission, Input, Refusal};

/// Capacity of a room's command queue.
pub(super) const COMMANDS: usize = 1_024;

/// A command to a room's task, from the API or from the room's own peers and processes.
pub(super) enum Command {
    /// An input of the state machine.
    Input(Input),
    /// Admit a participant.
    Admit(Admission, oneshot::Sender<Result<Admittance, Refusal>>),
    /// The connection of an admitted participant is set up.
    Attach(ParticipantId, JoinedPeer),
    /// A participant's new offer sends these; the reply is whether the participant exists.
    Resend(ParticipantId, Vec<(String, SourceKind)>, oneshot::Sender<bool>),
    /// An event of a participant's peer.
    Peer(ParticipantId, PeerEvent),
    /// A message of the mixer of this generation.
    Mixer(u64, FromMixer),
    /// The mixer of this generation is lost.
    MixerLost(u64, Loss),
    /// Add a recording or broadcast.
    AddOutput(Box<Planned>, oneshot::Sender<Result<OutputId, Refusal>>),
    /// An event of the output process of this generation.
    OutputProcess(OutputId, u32, outputs::ProcessEvent),
    /// Add an input.
    AddInput(PlannedInput, oneshot::Sender<Result<InputId, Refusal>>),
    /// An event of the input process of this generation.
    InputProcess(InputId, u32, inputs::ProcessEvent),
    /// Measured bitrates in bits per second, by stream serial.
    Bitrates(Vec<(u32, u64)>),
    /// Change a participant; the reply is its document, if it is there.
    Update(
        Changer,
        ParticipantId,
        Box<ParticipantPatch>,
        oneshot::Sender<Result<Option<ParticipantDocument>, RoomError>>,
    ),
    /// Those who are kept out, with the time that is left.
    KeptOut(oneshot::Sender<Vec<(Identity, Duration)>>),
    /// Keep these out for so long, after a restart.
    KeepOut(Vec<(Identity, Duration)>),
    /// Carry out a moderator's decision.
    Decide(Moderator, Decision, oneshot::Sender<Result<(), ModerationError>>),
    /// The document of a view.
    View(ViewName, oneshot::Sender<Result<ViewSettingsDocument, ViewError>>),
    /// Create or replace a view; the reply is whether it is new.
    PutView(ViewName, Box<ViewRequest>, oneshot::Sender<Result<bool, ViewError>>),
    /// Delete a view.
    DeleteView(ViewName, oneshot::Sender<Result<(), ViewError>>),
    /// The room's document; for a moderator, with those who wait.
    Document(Reader, oneshot::Sender<RoomDocument>),
    /// A participant's document.
    Participant(ParticipantId, oneshot::Sender<Option<ParticipantDocument>>),
    /// A participant's document for itself, also while it waits.
    OwnDocument(ParticipantId, oneshot::Sender<Option<ParticipantDocument>>),
    /// What is decided at the door.
    Door(oneshot::Sender<Door>),
    /// The events for a reader, after what it sees now.
    Events(Reader, oneshot::Sender<EventStream>),
    /// About overlays, images and captions.
    Overlay(OverlayCommand),
    /// Send a chat message.
    Chat(Sender, ChatRequest, oneshot::Sender<Result<ChatMessage, ChatError>>),
    /// The chat messages after one, for a reader.
    ChatAfter(u64, Reader, oneshot::Sender<Vec<ChatMessage>>),
    /// The room's audience and its changes.
    Audience(oneshot::Sender<watch::Receiver<Audience>>),
}

/// Passes a peer's events on to its room, with the participant's id.
pub(super) fn relay(participant: ParticipantId, mut events: mpsc::Receiver<PeerEvent>, room: mpsc::Sender<Command>) {
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if room.send(Command::Peer(participant, event)).await.is_err() {
                break;
            }
        }
    });
}
