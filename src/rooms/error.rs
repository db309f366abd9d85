//! Errors of rooms and sessions, with advice for the client.
//!
//! Owns: [`RoomError`]. Does not know: HTTP statuses ([`crate::http::problem`]).

use crate::id::{InputId, OutputId, ParticipantId, RoomName};
use crate::peer::PeerError;
use crate::room::Refusal;
use crate::room::chat::ChatError;
use crate::room::filters::FilterError;
use crate::room::moderation::ModerationError;
use crate::room::overlays::OverlayError;
use crate::room::view_request::ViewError;
use crate::sdp::{FragmentError, OfferError};

/// An error of a room or session.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The offer is not acceptable.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The trickle ICE fragment is malformed.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The endpoint does not take the offer's direction.
    #[error("{0}")]
    WrongEndpoint(&'static str),
    /// The new offer of a viewer sends.
    #[error("a viewer only receives, and this offer sends: make it recvonly, or join again as a participant")]
    ViewerSends,
    /// The room refuses.
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
    /// A view is refused.
    #[error(transparent)]
    View(#[from] ViewError),
    /// No such recording or broadcast.
    #[error("there is no recording or broadcast `{0}` in this room")]
    NoOutput(OutputId),
    /// The request for a recording or broadcast is invalid.
    #[error("{0}")]
    Output(String),
    /// No such input.
    #[error("there is no input `{0}` in this room")]
    NoInput(InputId),
    /// The request for an input is invalid.
    #[error("{0}")]
    Input(String),
    /// An overlay, an image or a caption is refused.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A chat message is refused.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A change or a decision about a participant is refused.
    #[error(transparent)]
    Moderation(#[from] ModerationError),
    /// Filters are refused.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// No such session.
    #[error("there is no such session: it has ended or never existed; join again")]
    NoSession,
    /// A PATCH request has no `If-Match` (RFC 9725 section 4.3).
    #[error("send `If-Match` with the entity tag of the answer, or `*` to restart ICE")]
    NoIfMatch,
    /// The entity tag is that of an earlier ICE session.
    #[error("the entity tag is not that of the current ICE session: use the newest, or restart ICE with `If-Match: *`")]
    StaleTag,
    /// A WHEP player asks for a room without a publisher, and viewers may not wait.
    #[error("nobody sends in the room `{0}` yet: try again in a moment")]
    NoPublisher(RoomName),
    /// No such event stream.
    #[error("there is no such event stream: it has ended or never existed; POST to the session's events for a new one")]
    NoStream,
    /// The session has its maximum of event streams.
    #[error("this session has its maximum of event streams: DELETE one first")]
    TooManyStreams,
    /// The token has its maximum of sessions that send.
    #[error("{0} participants have joined with this token, which is the limit: get another token")]
    TooManyOfToken(usize),
    /// The server has its maximum of rooms.
    #[error("this server has its maximum of rooms ({0}): try again later")]
    TooManyRooms(usize),
    /// The server is shutting down.
    #[error("the server is shutting down: try again in a moment, or on another one")]
    ShuttingDown,
    /// The connection could not be set up.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The room does not answer in time.
    #[error("the room does not answer: try again")]
    Stuck,
}
