//! Sessions: joins, trickle ICE, renegotiation and leaving.
//!
//! Owns: the table of sessions by secret, the entity tag of each ICE session, the order of PATCH requests. Does not
//! know: HTTP, roles and tokens (callers check them), what the room does with a participant. Changes run in tasks of
//! their own, since the future of an HTTP handler is dropped when its client closes the connection.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command::{self, Command};
use super::player::{PlayerEvent, PlayerEventStream, PlayerEventStreams};
use super::uplink::Uplink;
use super::{ANSWER, RoomError, Rooms, ask, deliver, post};
use crate::id::{ParticipantId, RoomName, ViewName};
use crate::media::SourceKind;
#[cfg(test)]
use crate::peer::PeerEvent;
use crate::peer::{Answer, Peer};
use crate::room::document::{LeaveReason, ParticipantDocument, Role, TierChoice};
use crate::room::moderation::Identity;
use crate::room::view_request::{ViewError, ViewPatch};
use crate::room::{Admission, Input, Refusal};
use crate::sdp::{Direction, Facts, Fragment, Offer, OfferError};

/// Capacity of the queue from a peer to its room.
const PEER_EVENTS: usize = 64;

/// The options of a join besides its offer.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Shown on the tile.
    pub name: String,
    /// The role of its token.
    pub role: Role,
    /// The tier it asks for.
    pub tier: TierChoice,
    /// The view it asks for.
    pub view: ViewPatch,
    /// It is a program, which alone does not keep a room alive.
    pub bot: bool,
    /// The endpoint, which restricts the directions of the offer.
    pub endpoint: JoinEndpoint,
    /// Recognizes the same person.
    pub identity: Option<Identity>,
    /// The seat of its token, if the sessions of one token are limited.
    pub seat: Option<Seat>,
}

/// A seat of a token: one token has a limited number of sessions that send.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// Identifies the token.
    pub token: u64,
    /// Most sessions of the token that send, at a time.
    pub of: usize,
}

impl Seat {
    /// # Errors
    /// [`RoomError::TooManyOfToken`] if the token has no seat left.
    fn check(self, sessions: &HashMap<String, Session>) -> Result<(), RoomError> {
        let taken = sessions.values().filter(|session| session.token == Some(self.token)).count();
        if taken >= self.of { Err(RoomError::TooManyOfToken(self.of)) } else { Ok(()) }
    }
}

/// The endpoint of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinEndpoint {
    /// `/v1/rooms/{room}/participants`: any direction.
    Participants,
    /// WHIP (RFC 9725): the offer must send.
    Whip,
    /// WHEP (draft-ietf-wish-whep): the offer must only receive.
    Whep,
}

/// The result of a join.
#[derive(Debug, Clone)]
pub struct Joined {
    /// 128 random bits in hexadecimal, which name the session in URLs.
    pub secret: String,
    /// Its id in the room.
    pub participant: ParticipantId,
    /// The SDP answer.
    pub answer: String,
    /// The ICE session's entity tag, unquoted.
    pub etag: String,
    /// Cancelled when the session has ended.
    pub over: CancellationToken,
}

/// The result of a trickle ICE fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trickled {
    /// The candidates were added.
    Accepted,
    /// ICE was restarted: the server's fragment and the new entity tag.
    Restarted {
        /// `application/trickle-ice-sdpfrag`.
        fragment: String,
        /// The entity tag, unquoted.
        etag: String,
    },
}

/// The header field `If-Match` of a PATCH request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`.
    Any,
    /// One entity tag, unquoted.
    Tag(String),
}

/// A session as its client sees it.
#[derive(Debug, Clone, Serialize)]
pub struct SessionDocument {
    /// The room it is in.
    pub room: RoomName,
    /// Its ICE session's entity tag.
    pub etag: String,
    /// Its participant; absent until the connection is up.
    #[serde(flatten)]
    pub participant: Option<ParticipantDocument>,
}

/// The connection of a participant, held by its room. Dropping it ends the session.
pub(super) struct JoinedPeer {
    pub(super) peer: Arc<Peer>,
    /// The media identification of each source.
    pub(super) mids: Vec<(String, SourceKind)>,
    _session: SessionGuard,
}

/// A participant that its room has admitted and whose client has no answer yet. Dropping it removes the participant:
/// the client has closed its connection, the offer cannot be answered, or the task of the join panicked.
pub(super) struct Admittance {
    participant: ParticipantId,
    uplink: Arc<Uplink>,
    room: mpsc::Sender<Command>,
    answered: bool,
}

impl Admittance {
    pub(super) fn new(participant: ParticipantId, uplink: Arc<Uplink>, room: mpsc::Sender<Command>) -> Self {
        Self { participant, uplink, room, answered: false }
    }

    /// The client gets its answer; from now on the state of its connection decides.
    fn keep(mut self) {
        self.answered = true;
    }
}

impl Drop for Admittance {
    fn drop(&mut self) {
        if !self.answered {
            post(&self.room, Command::Input(Input::Left(self.participant, LeaveReason::Lost)));
        }
    }
}

/// An offer, and the facts derived from it.
struct ParsedOffer {
    offer: Offer,
    facts: Facts,
}

/// Removes a session from the table when its peer is dropped.
struct SessionGuard {
    secret: String,
    rooms: Rooms,
    streams: Arc<PlayerEventStreams>,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.streams.end();
        if self.rooms.inner.sessions.lock().remove(&self.secret).is_some() {
            self.rooms.settings().counters.sessions.dec();
        }
    }
}

#[derive(Clone)]
pub(super) struct Session {
    room: RoomName,
    commands: mpsc::Sender<Command>,
    participant: ParticipantId,
    /// The role it joined with.
    role: Role,
    /// The token it joined with, if it has a seat of that token.
    token: Option<u64>,
    pub(super) peer: Arc<Peer>,
    etag: Arc<Mutex<String>>,
    /// Held during a PATCH request.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The event streams of its WHEP player.
    streams: Arc<PlayerEventStreams>,
    /// Cancels [`Joined::over`] when the last clone is dropped.
    _over: Arc<DropGuard>,
}

impl Rooms {
    /// Answers an offer and admits its sender.
    ///
    /// # Errors
    /// Any [`RoomError`] of a join; the room's other participants are not affected.
    pub async fn join(&self, name: &RoomName, offer_text: &str, options: JoinOptions) -> Result<Joined, RoomError> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(RoomError::ShuttingDown);
        }
        let offer = Offer::parse(offer_text)?;
        let facts = self.facts(&offer)?;
        check_endpoint(options.endpoint, facts.direction)?;
        let role = match (facts.direction, options.role) {
            (Direction::RecvOnly, Role::Participant) => Role::Viewer,
            (_, role) => role,
        };
        let seat = options.seat.filter(|_| facts.direction.sends());
        // Also checked when the session is added; a refused join costs nothing here.
        if let Some(seat) = seat {
            seat.check(&self.inner.sessions.lock())?;
        }
        let admission = Admission {
            name: options.name,
            role,
            sends: facts.sends.iter().map(|(_, kind)| *kind).collect(),
            receives_audio: facts.receives_audio,
            receives_video: facts.receives_video,
            tier: options.tier,
            view: options.view,
            bot: options.bot,
            identity: options.identity,
        };
        let offer = ParsedOffer { offer, facts };
        let (rooms, name) = (self.clone(), name.clone());
        let joining = run_to_end(async move {
            let (room, admittance) = rooms.admit(&name, admission).await?;
            let joined = rooms.connect(&room, name, (role, seat), &offer, &admittance).await?;
            Ok((joined, admittance))
        });
        let (joined, admittance) = joining.await?;
        admittance.keep();
        self.settings().counters.joins.inc();
        Ok(joined)
    }

    fn facts(&self, offer: &Offer) -> Result<Facts, OfferError> {
        offer.facts(&self.settings().encodable, &self.settings().ladder.sounds)
    }

    /// Finds or creates the room and asks it for admission. A room that is ending is followed by a new one.
    async fn admit(
        &self,
        name: &RoomName,
        admission: Admission,
    ) -> Result<(mpsc::Sender<Command>, Admittance), RoomError> {
        // A join that is refused creates no room.
        if let Some(view) = admission.view.named().filter(|view| **view != ViewName::program())
            && self.find(name).is_err()
        {
            return Err(ViewError::in_new_room(view).into());
        }
        let room = self.room_for_join(name)?;
        let first = ask(&room, |reply| Command::Admit(admission.clone(), reply)).await;
        match first.and_then(|answer| answer.map_err(RoomError::from)) {
            Err(RoomError::Refused(Refusal::Ended)) if self.settings().auto_create => {
                room.closed().await;
                let room = self.room_for_join(name)?;
                let answer = ask(&room, |reply| Command::Admit(admission, reply)).await??;
                Ok((room, answer))
            }
            answer => Ok((room, answer?)),
        }
    }

    async fn connect(
        &self,
        room: &mpsc::Sender<Command>,
        name: RoomName,
        (role, seat): (Role, Option<Seat>),
        offer: &ParsedOffer,
        admittance: &Admittance,
    ) -> Result<Joined, RoomError> {
        let (events, peer_events) = mpsc::channel(PEER_EVENTS);
        let ParsedOffer { offer, facts } = offer;
        let (participant, uplink) = (admittance.participant, admittance.uplink.clone());
        let (peer, answer) = Peer::answer(&self.inner.peers, offer, facts, uplink, events)?;
        let peer = Arc::new(peer);
        let (secret, over) = (new_secret(), CancellationToken::new());
        let session = Session {
            room: name,
            commands: room.clone(),
            participant,
            role,
            token: seat.map(|seat| seat.token),
            peer: peer.clone(),
            etag: Arc::new(Mutex::new(answer.etag.clone())),
            turn: Arc::default(),
            streams: Arc::default(),
            _over: Arc::new(over.clone().drop_guard()),
        };
        let streams = session.streams.clone();
        {
            let mut sessions = self.inner.sessions.lock();
            if let Some(seat) = seat {
                seat.check(&sessions)?;
            }
            sessions.insert(secret.clone(), session);
        }
        self.settings().counters.sessions.inc();
        let guard = SessionGuard { secret: secret.clone(), rooms: self.clone(), streams };
        let joined = JoinedPeer { peer, mids: facts.sends.clone(), _session: guard };
        deliver(room, Command::Attach(participant, joined)).await?;
        command::relay(participant, peer_events, room.clone());
        Ok(Joined { secret, participant, answer: answer.sdp, etag: answer.etag, over })
    }

    /// Applies a trickle ICE fragment (RFC 8840): candidates, or new credentials that restart ICE.
    ///
    /// # Errors
    /// [`RoomError::NoSession`], [`RoomError::NoIfMatch`], [`RoomError::StaleTag`], and those of the fragment and the
    /// peer; the ICE session remains as it was.
    pub async fn trickle(
        &self,
        secret: &str,
        if_match: Option<&IfMatch>,
        fragment: &str,
    ) -> Result<Trickled, RoomError> {
        let session = self.session_of(secret)?;
        let fragment = Fragment::parse(fragment)?;
        let if_match = if_match.cloned().ok_or(RoomError::NoIfMatch)?;
        run_to_end(async move {
            let _turn = session.turn().await?;
            match if_match {
                IfMatch::Any => {
                    let (fragment, etag) = session.peer.restart_ice(&fragment).await?;
                    session.etag.lock().clone_from(&etag);
                    Ok(Trickled::Restarted { fragment, etag })
                }
                IfMatch::Tag(tag) if tag == *session.etag.lock() => {
                    session.peer.add_candidates(&fragment).await?;
                    Ok(Trickled::Accepted)
                }
                IfMatch::Tag(_) => Err(RoomError::StaleTag),
            }
        })
        .await
    }

    /// Answers a new offer of a session, which may add or stop a screen. The answer has the entity tag of the ICE
    /// session, a new one if the offer has new credentials.
    ///
    /// # Errors
    /// [`RoomError::NoSession`], [`RoomError::ViewerSends`], and those of the offer and the peer.
    pub async fn renegotiate(&self, secret: &str, offer_text: &str) -> Result<Answer, RoomError> {
        let session = self.session_of(secret)?;
        let offer = Offer::parse(offer_text)?;
        let facts = self.facts(&offer)?;
        if session.role == Role::Viewer && facts.direction.sends() {
            return Err(RoomError::ViewerSends);
        }
        run_to_end(async move {
            let _turn = session.turn().await?;
            let answer = session.peer.renegotiate(offer, facts.clone()).await?;
            session.etag.lock().clone_from(&answer.etag);
            let mids = facts.sends;
            if ask(&session.commands, |reply| Command::Resend(session.participant, mids, reply)).await? {
                Ok(answer)
            } else {
                Err(RoomError::NoSession)
            }
        })
        .await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`RoomError::NoSession`].
    pub fn leave(&self, secret: &str) -> Result<(), RoomError> {
        let session = self.inner.sessions.lock().remove(secret).ok_or(RoomError::NoSession)?;
        self.settings().counters.sessions.dec();
        post(&session.commands, Command::Input(Input::Left(session.participant, LeaveReason::Left)));
        Ok(())
    }

    /// The document of a session.
    ///
    /// # Errors
    /// [`RoomError::NoSession`].
    pub async fn session(&self, secret: &str) -> Result<SessionDocument, RoomError> {
        let session = self.session_of(secret)?;
        let participant = ask(&session.commands, |reply| Command::OwnDocument(session.participant, reply)).await?;
        let etag = session.etag.lock().clone();
        Ok(SessionDocument { room: session.room, etag, participant })
    }

    /// Opens an event stream with these events for a session's player; returns its number.
    ///
    /// # Errors
    /// [`RoomError::NoSession`] and [`RoomError::TooManyStreams`].
    pub fn open_player_stream(&self, secret: &str, wanted: BTreeSet<PlayerEvent>) -> Result<u32, RoomError> {
        self.session_of(secret)?.streams.open(wanted).ok_or(RoomError::TooManyStreams)
    }

    /// An event stream of a session's player.
    ///
    /// # Errors
    /// [`RoomError::NoSession`] and [`RoomError::NoStream`].
    pub async fn player_stream(&self, secret: &str, number: u32) -> Result<PlayerEventStream, RoomError> {
        let session = self.session_of(secret)?;
        let audience = ask(&session.commands, Command::Audience).await?;
        session.streams.find(number, audience).ok_or(RoomError::NoStream)
    }

    /// Closes an event stream of a session's player.
    ///
    /// # Errors
    /// [`RoomError::NoSession`] and [`RoomError::NoStream`].
    pub fn close_player_stream(&self, secret: &str, number: u32) -> Result<(), RoomError> {
        if self.session_of(secret)?.streams.close(number) { Ok(()) } else { Err(RoomError::NoStream) }
    }

    /// The room and the participant of a session.
    pub fn session_identity(&self, secret: &str) -> Option<(RoomName, ParticipantId)> {
        self.session_of(secret).ok().map(|session| (session.room, session.participant))
    }

    /// Injects an event as if the peer of a session had sent it.
    #[cfg(test)]
    pub(crate) async fn peer_says(&self, secret: &str, event: PeerEvent) {
        let session = self.session_of(secret).expect("it is there");
        session.commands.send(Command::Peer(session.participant, event)).await.expect("its room is there");
    }

    fn session_of(&self, secret: &str) -> Result<Session, RoomError> {
        self.inner.sessions.lock().get(secret).cloned().ok_or(RoomError::NoSession)
    }
}

impl Session {
    /// Waits until no other PATCH request of the session is being processed.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, RoomError> {
        timeout(ANSWER, self.turn.lock()).await.map_err(|_| RoomError::Stuck)
    }
}

/// Runs a change of a session to its end. The future of an HTTP handler is dropped when its client closes the
/// connection; a change that stopped half-way would leave the peer and its room with different states.
async fn run_to_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, RoomError>> + Send + 'static,
) -> Result<T, RoomError> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            // A panic ends this request, as it would without the task.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RoomError::ShuttingDown),
        },
    }
}

fn check_endpoint(endpoint: JoinEndpoint, direction: Direction) -> Result<(), RoomError> {
    match (endpoint, direction) {
        (JoinEndpoint::Whip, Direction::RecvOnly) => Err(RoomError::WrongEndpoint(
            "a WHIP offer sends, this one only receives: make it sendonly, or watch at /whep/{room}",
        )),
        (JoinEndpoint::Whep, Direction::SendOnly | Direction::SendRecv) => Err(RoomError::WrongEndpoint(
            "a WHEP offer only receives, this one sends: make it recvonly, or publish at /whip/{room}",
        )),
        _ => Ok(()),
    }
}

/// 128 random bits in hexadecimal.
fn new_secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}
