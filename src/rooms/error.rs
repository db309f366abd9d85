//! Why a call on rooms or sessions failed, in words that say what to do.
//!
//! Owns: [`RoomError`]. Does not know: HTTP statuses ([`crate::http::problem`]).

use crate::id::{InputId, OutputId, ParticipantId, RoomName};
use crate::peer::PeerError;
use crate::room::Refusal;
use crate::sdp::{FragmentError, OfferError};

/// Why a call on rooms or sessions failed.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The offer is not one this server takes.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The fragment is not one.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The URL takes other directions.
    #[error("{0}")]
    WrongEndpoint(&'static str),
    /// Somebody who joined to watch wants to send.
    #[error("a viewer only receives, and this offer sends: make it recvonly, or join again as a participant")]
    ViewerSends,
    /// The room does not let in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No such room.
    #[error("there is no room `{0}`: create it with POST /v1/rooms")]
    NoRoom(RoomName),
    /// A room of this name exists already.
    #[error("there is a room `{0}` already")]
    RoomExists(RoomName),
    /// No such participant.
    #[error("there is no participant `{0}` in this room")]
    NoParticipant(ParticipantId),
    /// No such recording or broadcast.
    #[error("there is no recording or broadcast `{0}` in this room")]
    NoOutput(OutputId),
    /// What is to be recorded or broadcast makes no sense.
    #[error("{0}")]
    Output(String),
    /// No such input.
    #[error("there is no input `{0}` in this room")]
    NoInput(InputId),
    /// What is to be taken in makes no sense.
    #[error("{0}")]
    Input(String),
    /// No such session.
    #[error("there is no such session: it ended, or never was; join again")]
    NoSession,
    /// PATCH without `If-Match` (RFC 9725 section 4.3).
    #[error("send `If-Match` with the entity tag of the answer, or `*` to restart ICE")]
    NoIfMatch,
    /// The entity tag is of an older ICE session.
    #[error("the entity tag is not that of the current ICE session: use the newest, or restart ICE with `If-Match: *`")]
    StaleTag,
    /// A player that is not to wait in a room where nobody sends.
    #[error("nobody sends in the room `{0}` yet: try again in a moment")]
    NoPublisher(RoomName),
    /// No such event stream.
    #[error("there is no such event stream: it ended, or never was; POST to the session's events for a new one")]
    NoStream,
    /// As many event streams as a session may have.
    #[error("this session has as many event streams as it may: DELETE one first")]
    TooManyStreams,
    /// As many rooms as the configuration allows.
    #[error("this server has as many rooms as it may ({0}): try again later")]
    TooManyRooms(usize),
    /// The server stops.
    #[error("the server is shutting down: try again in a moment, or on another one")]
    ShuttingDown,
    /// The connection could not be set up.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A room does not answer.
    #[error("the room does not answer: try again")]
    Stuck,
}
