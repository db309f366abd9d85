//! Sessions: how a join is put together from offer, room and peer, and what their owners do with them.
//!
//! Owns: which secret is whose session, the entity tag of its ICE session, one PATCH at a time. Does not know: HTTP, roles
//! and tokens (callers have checked them), what the room does about it.

use std::collections::BTreeSet;
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
use crate::id::{ParticipantId, RoomName};
use crate::media::SourceKind;
#[cfg(test)]
use crate::peer::PeerEvent;
use crate::peer::{Answer, Peer};
use crate::room::document::{LeaveReason, ParticipantDocument, Role, TierChoice};
use crate::room::{Admission, Input, Refusal};
use crate::sdp::{Direction, Facts, Fragment, Offer, OfferError};

/// A peer's news waiting for its room.
const PEER_EVENTS: usize = 64;

/// What a joiner says besides its offer.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Shown on the tile.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Wanted quality.
    pub tier: TierChoice,
    /// The directions the endpoint takes: WHIP only publishers, WHEP only viewers.
    pub endpoint: JoinEndpoint,
}

/// By which URL somebody comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinEndpoint {
    /// Any direction.
    Participants,
    /// RFC 9725: the offer must send.
    Whip,
    /// draft-ietf-wish-whep: the offer must only receive.
    Whep,
}

/// Somebody is in.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Unguessable; names the session in URLs.
    pub secret: String,
    /// Who it is in the room.
    pub participant: ParticipantId,
    /// The SDP answer.
    pub answer: String,
    /// The ICE session's entity tag, unquoted.
    pub etag: String,
    /// Done when the session is over.
    pub over: CancellationToken,
}

/// What became of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trickled {
    /// The candidates were taken.
    Accepted,
    /// ICE was restarted: the server's fragment and the new entity tag.
    Restarted {
        /// `application/trickle-ice-sdpfrag`.
        fragment: String,
        /// Unquoted.
        etag: String,
    },
}

/// What `If-Match` of a PATCH said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`.
    Any,
    /// One entity tag, unquoted.
    Tag(String),
}

/// A session as its owner sees it.
#[derive(Debug, Clone, Serialize)]
pub struct SessionDocument {
    /// The room it is in.
    pub room: RoomName,
    /// Its ICE session's entity tag.
    pub etag: String,
    /// Who it is; absent until its connection is up.
    #[serde(flatten)]
    pub participant: Option<ParticipantDocument>,
}

/// A participant's connection as its room holds it. Dropping it ends the session.
pub(super) struct JoinedPeer {
    pub(super) peer: Arc<Peer>,
    /// Which media section carries which kind.
    pub(super) mids: Vec<(String, SourceKind)>,
    _session: SessionGuard,
}

/// A participant that a room has admitted and whose client has no answer yet. Dropping it makes the participant leave: when
/// the client has closed its connection, the offer cannot be answered, or something panics on the way.
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

    /// The client gets its answer: from now on the connection tells whether it is there.
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

/// An offer, and what it asks for.
struct ParsedOffer {
    offer: Offer,
    facts: Facts,
}

/// Takes a session's secret out of the table when its peer goes.
struct SessionGuard {
    secret: String,
    rooms: Rooms,
    streams: Arc<PlayerEventStreams>,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.streams.end();
        if self.rooms.inner.sessions.lock().remove(&self.secret).is_some() {
            self.rooms.inner.settings.counters.sessions.dec();
        }
    }
}

#[derive(Clone)]
pub(super) struct Session {
    room: RoomName,
    commands: mpsc::Sender<Command>,
    participant: ParticipantId,
    /// What it joined as.
    role: Role,
    pub(super) peer: Arc<Peer>,
    etag: Arc<Mutex<String>>,
    /// Held for the time of a PATCH.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The event streams of its player.
    streams: Arc<PlayerEventStreams>,
    /// What is for this session alone ends with it.
    _over: Arc<DropGuard>,
}

impl Rooms {
    /// Takes an offer and lets its sender in.
    ///
    /// # Errors
    /// Any of [`RoomError`] that a join can meet; nobody else in the room notices.
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
        let admission = Admission {
            name: options.name,
            role,
            sends: facts.sends.iter().map(|(_, kind)| *kind).collect(),
            receives_audio: facts.receives_audio,
            receives_video: facts.receives_video,
            tier: options.tier,
        };
        let offer = ParsedOffer { offer, facts };
        let (rooms, name) = (self.clone(), name.clone());
        let joining = run_to_end(async move {
            let (room, admittance) = rooms.admit(&name, admission).await?;
            let joined = rooms.connect(&room, name, role, &offer, &admittance).await?;
            Ok((joined, admittance))
        });
        let (joined, admittance) = joining.await?;
        admittance.keep();
        self.inner.settings.counters.joins.inc();
        Ok(joined)
    }

    fn facts(&self, offer: &Offer) -> Result<Facts, OfferError> {
        offer.facts(&self.inner.settings.encodable, &self.inner.settings.ladder.sounds)
    }

    /// Finds or makes the room. One that is ending this very moment is followed by a new one.
    async fn admit(
        &self,
        name: &RoomName,
        admission: Admission,
    ) -> Result<(mpsc::Sender<Command>, Admittance), RoomError> {
        let room = self.room_for_join(name)?;
        let first = ask(&room, |reply| Command::Admit(admission.clone(), reply)).await;
        match first.and_then(|answer| answer.map_err(RoomError::from)) {
            Err(RoomError::Refused(Refusal::Ended)) if self.inner.settings.auto_create => {
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
        role: Role,
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
            peer: peer.clone(),
            etag: Arc::new(Mutex::new(answer.etag.clone())),
            turn: Arc::default(),
            streams: Arc::default(),
            _over: Arc::new(over.clone().drop_guard()),
        };
        let streams = session.streams.clone();
        self.inner.sessions.lock().insert(secret.clone(), session);
        self.inner.settings.counters.sessions.inc();
        let guard = SessionGuard { secret: secret.clone(), rooms: self.clone(), streams };
        let joined = JoinedPeer { peer, mids: facts.sends.clone(), _session: guard };
        deliver(room, Command::Attach(participant, joined)).await?;
        command::relay(participant, peer_events, room.clone());
        Ok(Joined { secret, participant, answer: answer.sdp, etag: answer.etag, over })
    }

    /// Takes a trickle ICE fragment (RFC 8840): candidates, or new credentials that restart ICE.
    ///
    /// # Errors
    /// Of the session, the entity tag, the fragment or the connection; the old ICE session goes on.
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

    /// Takes a new offer of a session, which may add or stop a screen; gives the answer, and the entity tag of the ICE
    /// session, which is a new one if the offer has new credentials.
    ///
    /// # Errors
    /// Of the session, the offer or the connection; [`RoomError::ViewerSends`].
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
        self.inner.settings.counters.sessions.dec();
        post(&session.commands, Command::Input(Input::Left(session.participant, LeaveReason::Left)));
        Ok(())
    }

    /// A session as its owner sees it.
    ///
    /// # Errors
    /// [`RoomError::NoSession`].
    pub async fn session(&self, secret: &str) -> Result<SessionDocument, RoomError> {
        let session = self.session_of(secret)?;
        let participant = ask(&session.commands, |reply| Command::Participant(session.participant, reply)).await?;
        let etag = session.etag.lock().clone();
        Ok(SessionDocument { room: session.room, etag, participant })
    }

    /// Opens an event stream of these events to a session's player; gives its number.
    ///
    /// # Errors
    /// [`RoomError::NoSession`] and [`RoomError::TooManyStreams`].
    pub fn open_player_stream(&self, secret: &str, wanted: BTreeSet<PlayerEvent>) -> Result<u32, RoomError> {
        self.session_of(secret)?.streams.open(wanted).ok_or(RoomError::TooManyStreams)
    }

    /// An event stream that a session's player opened.
    ///
    /// # Errors
    /// [`RoomError::NoSession`] and [`RoomError::NoStream`].
    pub async fn player_stream(&self, secret: &str, number: u32) -> Result<PlayerEventStream, RoomError> {
        let session = self.session_of(secret)?;
        let audience = ask(&session.commands, Command::Audience).await?;
        session.streams.find(number, audience).ok_or(RoomError::NoStream)
    }

    /// Ends an event stream.
    ///
    /// # Errors
    /// [`RoomError::NoSession`] and [`RoomError::NoStream`].
    pub fn close_player_stream(&self, secret: &str, number: u32) -> Result<(), RoomError> {
        if self.session_of(secret)?.streams.close(number) { Ok(()) } else { Err(RoomError::NoStream) }
    }

    /// Which room a session is in, and as whom.
    pub fn session_identity(&self, secret: &str) -> Option<(RoomName, ParticipantId)> {
        self.session_of(secret).ok().map(|session| (session.room, session.participant))
    }

    /// As if the peer of a session had this to tell.
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
    /// Waits until no other PATCH of the session is at work.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, RoomError> {
        timeout(ANSWER, self.turn.lock()).await.map_err(|_| RoomError::Stuck)
    }
}

/// Runs a change of a session to its end. The future of an HTTP handler is dropped when its client closes the connection;
/// a change that stopped half-way would leave the peer and its room with different states.
async fn run_to_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, RoomError>> + Send + 'static,
) -> Result<T, RoomError> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            // A bug ends this request, as it would without the task.
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
