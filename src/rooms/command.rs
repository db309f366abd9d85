//! What a room is asked, by whomever, in one bounded queue.
//!
//! Owns: [`Command`], and how a peer's news become one. Does not know: what a room does with it ([`super::task`]).

use tokio::sync::{mpsc, oneshot, watch};

use super::EventStream;
use super::inputs::{self, PlannedInput};
use super::outputs::{self, Planned};
use super::sessions::{Admittance, JoinedPeer};
use crate::id::{InputId, OutputId, ParticipantId};
use crate::link::FromMixer;
use crate::media::SourceKind;
use crate::peer::PeerEvent;
use crate::room::document::{Audience, ParticipantDocument, RoomDocument};
use crate::room::{Admission, Input, Refusal};

/// Commands waiting for a room.
pub(super) const COMMANDS: usize = 1_024;

/// What a room is asked, from outside and by its own peers and mixer.
pub(super) enum Command {
    /// Something happened.
    Input(Input),
    /// Admit a participant.
    Admit(Admission, oneshot::Sender<Result<Admittance, Refusal>>),
    /// Its connection has been set up.
    Attach(ParticipantId, JoinedPeer),
    /// Its new offer sends these.
    Resend(ParticipantId, Vec<(String, SourceKind)>, oneshot::Sender<bool>),
    /// A peer's news.
    Peer(ParticipantId, PeerEvent),
    /// The mixer of this generation says something.
    Mixer(u64, FromMixer),
    /// The mixer of this generation is gone.
    MixerLost(u64, String),
    /// A recording or broadcast is wanted.
    AddOutput(Box<Planned>, oneshot::Sender<Result<OutputId, Refusal>>),
    /// The process of this generation of an output says something.
    OutputProcess(OutputId, u32, outputs::ProcessEvent),
    /// An input is wanted.
    AddInput(PlannedInput, oneshot::Sender<Result<InputId, Refusal>>),
    /// The process of this generation of an input says something.
    InputProcess(InputId, u32, inputs::ProcessEvent),
    /// Measured bits per second by stream serial.
    Bitrates(Vec<(u32, u64)>),
    /// The room's document.
    Document(oneshot::Sender<RoomDocument>),
    /// A participant's document.
    Participant(ParticipantId, oneshot::Sender<Option<ParticipantDocument>>),
    /// The room and what follows.
    Events(oneshot::Sender<EventStream>),
    /// Who sends and who watches, now and from now on.
    Audience(oneshot::Sender<watch::Receiver<Audience>>),
}

/// Passes a peer's news on to its room, named.
pub(super) fn relay(participant: ParticipantId, mut news: mpsc::Receiver<PeerEvent>, room: mpsc::Sender<Command>) {
    tokio::spawn(async move {
        while let Some(event) = news.recv().await {
            if room.send(Command::Peer(participant, event)).await.is_err() {
                break;
            }
        }
    });
}
