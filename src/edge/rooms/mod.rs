//! The rooms of this node and the sessions in them: what the HTTP API and the events call.
//!
//! Owns: which rooms run, which secret is whose session, how a join is put together from offer, room and peer.
//! Does not know: HTTP, roles and tokens (callers have checked them), what happens inside a room ([`crate::room`]).
//! Every method sends one command to a room's task ([`task`]) or talks to a session's peer; none holds a lock meanwhile.

mod routes;
mod task;
mod uplink;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::edge::peer::{Answer, Peer, PeerConfig, PeerError};
use crate::edge::supervise::MixerCommand;
use crate::id::{ParticipantId, RoomName};
use crate::layout::Layout;
use crate::link::MixerSettings;
use crate::media::{Codec, Size, SourceKind};
use crate::room::document::{ParticipantDocument, ParticipantPatch, Role, RoomDocument, RoomPatch, TierChoice};
use crate::room::{Admission, Admitted, Input, Refusal, RoomSettings};
use crate::sdp::{Direction, Facts, Fragment, FragmentError, Offer, OfferError};
use crate::tier::Ladder;
use crate::time::Timestamp;

use task::{Command, RoomTask};
use uplink::Uplink;

/// A peer's news waiting for its room.
const PEER_EVENTS: usize = 64;
/// A room's task answers in microseconds; one that takes this long is stuck.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the goodbye to everyone may take when the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// What all rooms of a node are made with.
#[derive(Debug)]
pub struct ServerSettings {
    /// How to start a mixer.
    pub mixer: MixerCommand,
    /// The picture everyone gets.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// Sizes and bitrates of the tiers.
    pub ladder: Ladder,
    /// Video codecs that may be sent to people, best first when the offer does not care.
    pub encodable: Vec<Codec>,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Largest picture taken from a sender.
    pub max_source: Size,
    /// Threads of a mixer for composing and for each encoder.
    pub mixer_threads: u32,
    /// Rooms are made by the first join.
    pub auto_create: bool,
    /// How many may be in one room.
    pub max_participants: usize,
    /// How many rooms may run.
    pub max_rooms: usize,
    /// How long an empty room's mixer stays.
    pub linger: Duration,
    /// Counted here, read by the metrics.
    pub counters: RoomCounters,
}

/// What happened in all rooms.
#[derive(Debug, Default, Clone)]
pub struct RoomCounters {
    /// People let in.
    pub joins: Counter,
    /// Mixers that died or hung.
    pub mixer_restarts: Counter,
    /// Rooms that run.
    pub rooms: Gauge,
    /// Sessions that are open.
    pub sessions: Gauge,
}

impl RoomCounters {
    /// Puts them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("joins", "People let into rooms", self.joins.clone());
        registry.register("mixer_restarts", "Mixers that died or hung and were replaced", self.mixer_restarts.clone());
        registry.register("rooms", "Rooms that run", self.rooms.clone());
        registry.register("sessions", "Sessions that are open", self.sessions.clone());
    }
}

impl ServerSettings {
    fn mixer_settings(&self, room: &RoomName, epoch: Timestamp) -> MixerSettings {
        MixerSettings {
            room: room.clone(),
            epoch,
            max_source: self.max_source,
            openh264: self.openh264,
            threads: self.mixer_threads,
        }
    }

    fn room_settings(&self, name: RoomName, permanent: bool) -> RoomSettings {
        RoomSettings {
            name,
            layout: Layout::default(),
            canvas: self.canvas,
            fps: self.fps,
            ladder: self.ladder,
            max_participants: self.max_participants,
            linger: self.linger,
            permanent,
        }
    }
}

/// What a joiner says besides its offer.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Shown on the tile.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Wanted quality.
    pub tier: TierChoice,
    /// The directions the door takes: WHIP only publishers, WHEP only viewers.
    pub door: Door,
}

/// By which URL somebody comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
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

/// A room's events.
#[derive(Debug)]
pub struct EventStream {
    /// The whole room, to be sent first.
    pub first: Arc<str>,
    /// The events after it.
    pub rest: broadcast::Receiver<Arc<str>>,
}

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
    Door(&'static str),
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
    /// No such session.
    #[error("there is no such session: it ended, or never was; join again")]
    NoSession,
    /// PATCH without `If-Match` (RFC 9725 section 4.3).
    #[error("send `If-Match` with the entity tag of the answer, or `*` to restart ICE")]
    NoIfMatch,
    /// The entity tag is of an older ICE session.
    #[error("the entity tag is not that of the current ICE session: use the newest, or restart ICE with `If-Match: *`")]
    StaleTag,
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

/// A participant's connection as its room holds it. Dropping it ends the session.
pub(crate) struct JoinedPeer {
    peer: Arc<Peer>,
    /// Which media section carries which kind.
    mids: Vec<(String, SourceKind)>,
    _session: SessionGuard,
}

/// An offer, read, as it came, and judged.
struct Asked<'a> {
    offer: Offer,
    text: &'a str,
    facts: Facts,
}

/// Takes a session's secret out of the table when its peer goes.
struct SessionGuard {
    secret: String,
    rooms: Rooms,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if self.rooms.inner.sessions.lock().remove(&self.secret).is_some() {
            self.rooms.inner.settings.counters.sessions.dec();
        }
    }
}

#[derive(Clone)]
struct Session {
    room: RoomName,
    commands: mpsc::Sender<Command>,
    participant: ParticipantId,
    peer: Arc<Peer>,
    etag: Arc<Mutex<String>>,
    /// One PATCH at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The rooms of this node; clones are the same rooms.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<ServerSettings>,
    peers: PeerConfig,
    rooms: Mutex<HashMap<RoomName, mpsc::Sender<Command>>>,
    sessions: Mutex<HashMap<String, Session>>,
    stopping: AtomicBool,
}

impl Rooms {
    /// No rooms yet.
    pub fn new(settings: ServerSettings, peers: PeerConfig) -> Self {
        let inner = Inner {
            settings: Arc::new(settings),
            peers,
            rooms: Mutex::default(),
            sessions: Mutex::default(),
            stopping: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes an offer and lets its sender in.
    ///
    /// # Errors
    /// Any of [`RoomError`] that a join can meet; nobody else in the room notices.
    pub async fn join(&self, name: &RoomName, offer_text: &str, options: JoinOptions) -> Result<Joined, RoomError> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(RoomError::ShuttingDown);
        }
        let offer = Offer::parse(offer_text)?;
        let facts = offer.facts(&self.inner.settings.encodable)?;
        check_door(options.door, facts.direction)?;
        let role = match (facts.direction, options.role) {
            (Direction::RecvOnly, Role::Participant) => Role::Viewer,
            (_, role) => role,
        };
        let who = Admission {
            name: options.name,
            role,
            sends: facts.sends.iter().map(|(_, kind)| *kind).collect(),
            receives_audio: facts.receives_audio,
            receives_video: facts.receives_video,
            tier: options.tier,
        };
        let (room, (admitted, uplink)) = self.admit(name, who).await?;
        let participant = admitted.participant;
        let answered = self.connect(&room, name, participant, &Asked { offer, text: offer_text, facts }, uplink).await;
        match answered {
            Ok((secret, Answer { sdp, etag })) => {
                self.inner.settings.counters.joins.inc();
                Ok(Joined { secret, participant, answer: sdp, etag })
            }
            Err(error) => {
                // Fails only when the room is over, and the participant with it.
                let _ = room.send(Command::Input(Input::Left(participant))).await;
                Err(error)
            }
        }
    }

    /// Finds or makes the room. One that is ending this very moment is followed by a new one.
    async fn admit(
        &self,
        name: &RoomName,
        who: Admission,
    ) -> Result<(mpsc::Sender<Command>, (Admitted, Arc<Uplink>)), RoomError> {
        let room = self.room_for_join(name)?;
        let first = ask(&room, |reply| Command::Admit(who.clone(), reply)).await;
        match first.and_then(|answer| answer.map_err(RoomError::from)) {
            Err(RoomError::Refused(Refusal::Ended)) if self.inner.settings.auto_create => {
                room.closed().await;
                let room = self.room_for_join(name)?;
                let answer = ask(&room, |reply| Command::Admit(who, reply)).await??;
                Ok((room, answer))
            }
            answer => Ok((room, answer?)),
        }
    }

    async fn connect(
        &self,
        room: &mpsc::Sender<Command>,
        name: &RoomName,
        participant: ParticipantId,
        asked: &Asked<'_>,
        uplink: Arc<Uplink>,
    ) -> Result<(String, Answer), RoomError> {
        let (events, news) = mpsc::channel(PEER_EVENTS);
        let Asked { offer, text, facts } = asked;
        let (peer, answer) = Peer::answer(&self.inner.peers, offer, text, facts, uplink, events).await?;
        let peer = Arc::new(peer);
        let secret = new_secret();
        let session = Session {
            room: name.clone(),
            commands: room.clone(),
            participant,
            peer: peer.clone(),
            etag: Arc::new(Mutex::new(answer.etag.clone())),
            turn: Arc::default(),
        };
        self.inner.sessions.lock().insert(secret.clone(), session);
        self.inner.settings.counters.sessions.inc();
        let guard = SessionGuard { secret: secret.clone(), rooms: self.clone() };
        let joined = JoinedPeer { peer, mids: facts.sends.clone(), _session: guard };
        if let Err(unsent) = room.send(Command::Attach(participant, joined)).await {
            if let Command::Attach(_, joined) = unsent.0 {
                joined.peer.close().await;
            }
            return Err(Refusal::Ended.into());
        }
        task::relay(participant, news, room.clone());
        Ok((secret, answer))
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
        let _turn = session.turn.lock().await;
        let fragment = Fragment::parse(fragment)?;
        match if_match.ok_or(RoomError::NoIfMatch)? {
            IfMatch::Any => {
                let (fragment, etag) = session.peer.restart_ice(&fragment).await?;
                session.etag.lock().clone_from(&etag);
                Ok(Trickled::Restarted { fragment, etag })
            }
            IfMatch::Tag(tag) if *tag == *session.etag.lock() => {
                session.peer.add_candidates(&fragment).await?;
                Ok(Trickled::Accepted)
            }
            IfMatch::Tag(_) => Err(RoomError::StaleTag),
        }
    }

    /// Takes a new offer of a session, which may add or stop a screen; gives the answer.
    ///
    /// # Errors
    /// Of the session, the offer or the connection.
    pub async fn renegotiate(&self, secret: &str, offer_text: &str) -> Result<String, RoomError> {
        let session = self.session_of(secret)?;
        let _turn = session.turn.lock().await;
        let offer = Offer::parse(offer_text)?;
        let facts = offer.facts(&self.inner.settings.encodable)?;
        let answer = session.peer.renegotiate(&offer, offer_text, &facts).await?;
        let mids = facts.sends;
        if ask(&session.commands, |reply| Command::Resend(session.participant, mids, reply)).await? {
            Ok(answer)
        } else {
            Err(RoomError::NoSession)
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`RoomError::NoSession`].
    pub async fn leave(&self, secret: &str) -> Result<(), RoomError> {
        let session = self.session_of(secret)?;
        self.inner.sessions.lock().remove(secret).map(|_| self.inner.settings.counters.sessions.dec());
        session.commands.send(Command::Input(Input::Left(session.participant))).await.map_err(|_| RoomError::NoSession)
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

    /// Which room a session is in, and as whom.
    pub fn session_identity(&self, secret: &str) -> Option<(RoomName, ParticipantId)> {
        self.session_of(secret).ok().map(|session| (session.room, session.participant))
    }

    /// Every room.
    pub async fn list(&self) -> Vec<RoomDocument> {
        let rooms: Vec<_> = self.inner.rooms.lock().values().cloned().collect();
        let mut documents = Vec::with_capacity(rooms.len());
        for room in rooms {
            // A room that ended meanwhile is no error.
            documents.extend(ask(&room, Command::Document).await.ok());
        }
        documents.sort_by(|a, b| a.name.cmp(&b.name));
        documents
    }

    /// A room.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn room(&self, name: &RoomName) -> Result<RoomDocument, RoomError> {
        ask(&self.find(name)?, Command::Document).await
    }

    /// Makes a room that stays until it is deleted.
    ///
    /// # Errors
    /// When it exists, or there are too many.
    pub async fn create(&self, name: &RoomName, patch: RoomPatch) -> Result<RoomDocument, RoomError> {
        let room = {
            let mut rooms = self.inner.rooms.lock();
            if rooms.contains_key(name) {
                return Err(RoomError::RoomExists(name.clone()));
            }
            self.spawn(&mut rooms, name, true)?
        };
        tell(&room, Input::Patch(patch)).await?;
        ask(&room, Command::Document).await
    }

    /// Changes a room.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn patch(&self, name: &RoomName, patch: RoomPatch) -> Result<RoomDocument, RoomError> {
        let room = self.find(name)?;
        tell(&room, Input::Patch(patch)).await?;
        ask(&room, Command::Document).await
    }

    /// Ends a room for everyone in it.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn delete(&self, name: &RoomName) -> Result<(), RoomError> {
        tell(&self.find(name)?, Input::Delete).await
    }

    /// One participant.
    ///
    /// # Errors
    /// When room or participant is not there.
    pub async fn participant(&self, name: &RoomName, id: ParticipantId) -> Result<ParticipantDocument, RoomError> {
        let found = ask(&self.find(name)?, |reply| Command::Participant(id, reply)).await?;
        found.ok_or(RoomError::NoParticipant(id))
    }

    /// Changes a participant.
    ///
    /// # Errors
    /// When room or participant is not there.
    pub async fn update(
        &self,
        name: &RoomName,
        id: ParticipantId,
        patch: ParticipantPatch,
    ) -> Result<ParticipantDocument, RoomError> {
        let room = self.find(name)?;
        tell(&room, Input::Update(id, patch)).await?;
        self.participant(name, id).await
    }

    /// Puts a participant out.
    ///
    /// # Errors
    /// When room or participant is not there.
    pub async fn remove(&self, name: &RoomName, id: ParticipantId) -> Result<(), RoomError> {
        self.participant(name, id).await?;
        tell(&self.find(name)?, Input::Left(id)).await
    }

    /// Words from one to all.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn chat(&self, name: &RoomName, from: Option<ParticipantId>, text: String) -> Result<(), RoomError> {
        tell(&self.find(name)?, Input::Chat(from, text)).await
    }

    /// A room's events, beginning with the whole room.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn events(&self, name: &RoomName) -> Result<EventStream, RoomError> {
        ask(&self.find(name)?, Command::Events).await
    }

    /// Takes no more joins, says goodbye to everyone, ends every room.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let rooms: Vec<_> = self.inner.rooms.lock().values().cloned().collect();
        let peers: Vec<_> = self.inner.sessions.lock().values().map(|session| session.peer.clone()).collect();
        for room in rooms {
            // A room that is over needs no goodbye.
            let _ = tell(&room, Input::Delete).await;
        }
        let goodbyes = futures::future::join_all(peers.iter().map(|peer| peer.close()));
        if tokio::time::timeout(GOODBYE, goodbyes).await.is_err() {
            tracing::warn!("some peers did not take the goodbye in time");
        }
    }

    fn find(&self, name: &RoomName) -> Result<mpsc::Sender<Command>, RoomError> {
        self.inner.rooms.lock().get(name).cloned().ok_or_else(|| RoomError::NoRoom(name.clone()))
    }

    fn session_of(&self, secret: &str) -> Result<Session, RoomError> {
        self.inner.sessions.lock().get(secret).cloned().ok_or(RoomError::NoSession)
    }

    fn room_for_join(&self, name: &RoomName) -> Result<mpsc::Sender<Command>, RoomError> {
        let mut rooms = self.inner.rooms.lock();
        match rooms.get(name) {
            Some(room) if !room.is_closed() => Ok(room.clone()),
            _ if !self.inner.settings.auto_create => Err(RoomError::NoRoom(name.clone())),
            _ => self.spawn(&mut rooms, name, false),
        }
    }

    fn spawn(
        &self,
        rooms: &mut HashMap<RoomName, mpsc::Sender<Command>>,
        name: &RoomName,
        permanent: bool,
    ) -> Result<mpsc::Sender<Command>, RoomError> {
        let settings = &self.inner.settings;
        if rooms.len() >= settings.max_rooms {
            return Err(RoomError::TooManyRooms(settings.max_rooms));
        }
        let (this, ended) = (self.clone(), name.clone());
        let done = move || this.forget(&ended);
        let room = RoomTask::spawn(settings.room_settings(name.clone(), permanent), settings.clone(), done);
        rooms.insert(name.clone(), room.clone());
        settings.counters.rooms.set(rooms.len() as i64);
        Ok(room)
    }

    /// A room is over; another of its name may have begun meanwhile.
    fn forget(&self, name: &RoomName) {
        let mut rooms = self.inner.rooms.lock();
        if rooms.get(name).is_some_and(mpsc::Sender::is_closed) {
            rooms.remove(name);
        }
        self.inner.settings.counters.rooms.set(rooms.len() as i64);
    }
}

/// Where the mixer's program stands: this one.
///
/// # Errors
/// When the system does not say where our program is.
pub fn own_mixer() -> std::io::Result<MixerCommand> {
    let program: PathBuf = std::env::current_exe()?;
    Ok(MixerCommand { program, arguments: vec!["mixer".to_owned()] })
}

fn check_door(door: Door, direction: Direction) -> Result<(), RoomError> {
    match (door, direction) {
        (Door::Whip, Direction::RecvOnly) => Err(RoomError::Door(
            "a WHIP offer sends, this one only receives: make it sendonly, or watch at /whep/{room}",
        )),
        (Door::Whep, Direction::SendOnly | Direction::SendRecv) => Err(RoomError::Door(
            "a WHEP offer only receives, this one sends: make it recvonly, or publish at /whip/{room}",
        )),
        _ => Ok(()),
    }
}

/// 128 random bits in hexadecimal.
fn new_secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn ask<T>(
    room: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, RoomError> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        room.send(command(reply)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Refusal::Ended.into()),
        Err(_) => Err(RoomError::Stuck),
    }
}

async fn tell(room: &mpsc::Sender<Command>, input: Input) -> Result<(), RoomError> {
    room.send(Command::Input(input)).await.map_err(|_| Refusal::Ended.into())
}
