//! A peer's task: the one owner of its connection.
//!
//! Owns: the `webrtc` connection, the agreed descriptions ([`agreement`]), the readers and the writer. Does not know: rooms.
//! Requests, notes of the connection's callbacks, feedback and time all come in by one `select!`; each is handled to its end.

mod agreement;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rtc::peer_connection::configuration::interceptor_registry::Registry;
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::rtcp;
use rtc::rtcp::receiver_report::ReceiverReport;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, Sleep, interval, sleep};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{PeerConnection, PeerConnectionBuilder};

use super::arrivals::Arrivals;
use super::associate::{Associator, Wanted};
use super::description::{self, Learned, Receives, TRACK_PREFIX, Taken};
use super::incoming::{Agreed, Incoming};
use super::introductions::{Introducer, Introductions};
use super::notes::{Callbacks, Note};
use super::outgoing::{self, Outputs, Ssrcs};
use super::repairs::{Beginning, Repairs};
use super::reports;
use super::tap::{Seen, Tap};
use super::{Answer, Counters, PeerConfig, PeerError, PeerEvent, Reply, SourceSink, crypto, engine};
use crate::fanout::Subscriber;
use crate::media::{Kind, SourceKind};
use crate::net::udp::{Connection, Fate, Mux};
use crate::sdp::{Facts, Fragment, Offer};
use crate::tier::{Pacer, Reception};
use crate::time::{self, Timestamp};
use crate::transport;

/// A peer that has not connected by then never will.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Keyframe requests are passed on at most this often.
pub(super) const KEYFRAME_INTERVAL: Duration = Duration::from_millis(200);
/// What it may send is told so often, in case that it was lost.
const LIMIT_INTERVAL: Duration = Duration::from_secs(1);
/// From one word on how things arrive to the next; feedback comes more often.
pub(super) const RECEPTION_INTERVAL: Duration = Duration::from_millis(150);
/// A peer that has not told of single packets for so long does not do so (any more): then its reports must do.
const FEEDBACK_SILENCE: Duration = Duration::from_secs(3);
/// Who is connected and has no video after so long needs a keyframe; until then what was sent lately may do.
pub(super) const BEGIN_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the last event may take to be taken.
pub(super) const LAST_EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long our goodbye in RTCP may take to leave, ahead of the one in DTLS.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);
/// Streams seen that the offer did not name, which may wait.
const LEARNED: usize = 8;

/// What a peer is asked.
pub(super) enum Command {
    Candidates(Fragment, Reply<()>),
    Restart(Fragment, Reply<(String, String)>),
    Renegotiate(Box<Offer>, String, Facts, Reply<Answer>),
    Keyframe(String),
    Pause(Duration),
    Close(oneshot::Sender<()>),
}

/// Why a peer's task ends.
enum End {
    /// Somebody asked for it, or nobody holds the peer any more.
    Asked(Option<oneshot::Sender<()>>),
    /// The peer said goodbye.
    Goodbye,
    /// The connection is over, in words.
    Lost(&'static str),
}

pub(super) struct Task {
    pc: Arc<dyn PeerConnection>,
    connection: Connection,
    mux: Arc<Mux>,
    notes: mpsc::Receiver<Note>,
    overflow: Arc<Notify>,
    /// What is looked for, what is found, and what was.
    wanted: Arc<ArcSwap<Wanted>>,
    found: mpsc::Receiver<Learned>,
    learned: Vec<Learned>,
    events: mpsc::Sender<PeerEvent>,
    pub(super) seen: Arc<Seen>,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) counters: Arc<Counters>,
    sink: Arc<dyn SourceSink>,
    agreed: Arc<ArcSwap<Agreed>>,
    outputs: Arc<Mutex<Outputs>>,
    writer: AbortHandle,
    pacer: Arc<Mutex<Pacer>>,
    arrivals: watch::Receiver<Option<Reception>>,
    /// When it last told of single packets.
    fed_back: Option<Timestamp>,
    told: Timestamp,
    /// Until when it may begin with what was sent lately.
    begins: Option<Pin<Box<Sleep>>>,
    incoming: Vec<Incoming>,
    /// The latest offer, as the client sent it, and what was taken of it.
    offer: Offer,
    text: String,
    taken: Taken,
    sources: Vec<(String, SourceKind)>,
    ssrcs: Ssrcs,
    cname: String,
    introductions: Arc<Mutex<Introductions>>,
    sends: bool,
    candidates: usize,
    connected: bool,
}

impl Task {
    /// Sets up the connection that answers this offer.
    pub(super) async fn answer(
        config: &PeerConfig,
        offer: &Offer,
        text: &str,
        facts: &Facts,
        sink: Arc<dyn SourceSink>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<(Self, Answer), PeerError> {
        let taken = description::take(offer, text, receives(facts), &[])?;
        let sends = !facts.sends.is_empty();
        let ssrcs = Ssrcs::apart_from(text);
        let seen = Arc::new(Seen::default());
        let reported = if facts.receives_video.is_some() { ssrcs.video } else { ssrcs.audio };
        let (callbacks, notes, overflow) = Callbacks::new();
        let connection = config.mux.connect();
        connection.set_remote(&taken.ice);
        let media = engine::media_engine(&taken, sends)?;
        let tap = Tap::new(Arc::clone(&seen), ssrcs.video, reported);
        let cname = transport::cname();
        let introductions = Arc::new(Mutex::new(Introductions::new(cname.clone())));
        let introducer = Introducer::new(Arc::clone(&introductions), ssrcs);
        let (estimator, arrivals) = Arrivals::new(Arc::clone(&seen));
        let wanted = Arc::new(ArcSwap::from_pointee(Wanted::new(&taken)));
        let (learned, found) = mpsc::channel(LEARNED);
        let counters = Arc::new(Counters::default());
        let associator = Associator::new(Arc::clone(&wanted), learned, Arc::clone(&counters), ssrcs);
        let pacer = Arc::new(Mutex::new(Pacer::new(time::now())));
        let beginning = Arc::new(Beginning::default());
        let repairs = Repairs::new(Arc::clone(&pacer), Arc::clone(&beginning));
        let interceptors = engine::interceptors((tap, introducer), associator, repairs, estimator, sends);
        let pc = build(&connection, media, interceptors, &taken, callbacks).await?;
        let subscriber = Arc::new(Subscriber::default());
        let outputs = Arc::new(Mutex::new(Outputs::default()));
        let (queue, output, counts) = (Arc::clone(&subscriber), Arc::clone(&outputs), Arc::clone(&counters));
        let writer = outgoing::write(queue, output, counts, Arc::clone(&pacer), beginning, Arc::clone(&introductions));
        let mut task = Self {
            pc,
            connection,
            mux: Arc::clone(&config.mux),
            notes,
            overflow,
            wanted,
            found,
            learned: Vec::new(),
            events,
            seen,
            subscriber,
            counters,
            sink,
            agreed: Arc::new(ArcSwap::from_pointee(Agreed::new(&taken, &facts.sends))),
            outputs,
            writer: tokio::spawn(writer).abort_handle(),
            pacer,
            arrivals,
            fed_back: None,
            told: Timestamp::default(),
            begins: None,
            incoming: Vec::new(),
            offer: offer.clone(),
            text: text.to_owned(),
            taken: taken.clone(),
            sources: facts.sends.clone(),
            ssrcs,
            cname,
            introductions,
            sends,
            candidates: 0,
            connected: false,
        };
        match task.agree(offer.clone(), text, taken, &facts.sends).await {
            Ok((made, ice)) => {
                let sdp = task.answer_text(&made);
                Ok((task, Answer { sdp, etag: ice.ufrag }))
            }
            Err(error) => {
                task.release().await;
                Err(error)
            }
        }
    }

    /// Lives until the connection ends or somebody ends it.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut limits: watch::Receiver<Option<u64>>) {
        let mut fate = self.connection.fate();
        // It may have ended already.
        fate.mark_changed();
        let mut silent = false;
        let mut reception = self.seen.reception.subscribe();
        let mut arrivals = self.arrivals.clone();
        let mut quiet: Option<Pin<Box<Sleep>>> = None;
        let mut again = interval(LIMIT_INTERVAL);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = Some(Box::pin(sleep(CONNECT_TIMEOUT)));
        let (seen, subscriber, overflow) = (self.seen.clone(), self.subscriber.clone(), self.overflow.clone());
        let end = loop {
            let handled = tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Close(reply)) => Err(End::Asked(Some(reply))),
                    Some(command) => { self.command(command).await; Ok(()) }
                    None => Err(End::Asked(None)),
                },
                Some(note) = self.notes.recv() => self.note(note).await,
                Some(learned) = self.found.recv() => { self.learn(learned).await; Ok(()) }
                () = seen.keyframe_wanted.notified(), if quiet.is_none() => {
                    quiet = Some(Box::pin(sleep(KEYFRAME_INTERVAL)));
                    self.tell(PeerEvent::KeyframeWanted)
                }
                () = subscriber.keyframe_wanted(), if quiet.is_none() => {
                    quiet = Some(Box::pin(sleep(KEYFRAME_INTERVAL)));
                    self.tell(PeerEvent::KeyframeWanted)
                }
                Ok(()) = reception.changed() => {
                    let latest = *reception.borrow_and_update();
                    self.reported(&latest)
                }
                Ok(()) = arrivals.changed() => {
                    let latest = *arrivals.borrow_and_update();
                    latest.map_or(Ok(()), |latest| self.fed_back(latest))
                }
                Ok(()) = limits.changed() => { again.reset_immediately(); Ok(()) }
                _ = again.tick(), if limits.borrow().is_some() => {
                    let limit = *limits.borrow();
                    if let Some(limit) = limit { self.limit(limit).await; }
                    Ok(())
                }
                () = subscriber.switched() => self.tell(PeerEvent::Switched),
                () = seen.ended.notified() => { self.ended(); Ok(()) }
                () = elapsed(&mut self.begins) => {
                    self.begins = None;
                    if subscriber.flowing().is_none() { self.tell(PeerEvent::KeyframeWanted) } else { Ok(()) }
                }
                Ok(()) = fate.changed() => {
                    let now = *fate.borrow_and_update();
                    self.fares(now, &mut silent)
                }
                () = overflow.notified() => Err(End::Lost("its notes were not read in time")),
                () = elapsed(&mut quiet) => { quiet = None; Ok(()) }
                () = elapsed(&mut deadline) => Err(End::Lost("it never connected")),
            };
            if self.connected {
                deadline = None;
            }
            if let Err(end) = handled {
                break end;
            }
        };
        // Nothing more can be asked of it.
        drop(commands);
        let events = self.events.clone();
        self.release().await;
        let last = match end {
            End::Asked(reply) => {
                // Whoever asked may not wait for it.
                let _ = reply.map(|reply| reply.send(()));
                return;
            }
            End::Goodbye => PeerEvent::Goodbye,
            End::Lost(why) => {
                tracing::debug!(why, "a peer is gone");
                PeerEvent::Lost
            }
        };
        // The owner may be busy, or gone too.
        let _ = tokio::time::timeout(LAST_EVENT_TIMEOUT, events.send(last)).await;
    }

    /// Ends the connection and everything that belongs to it.
    async fn release(self) {
        self.writer.abort();
        if self.connected {
            // A driver that is gone says nothing more; a busy one is not waited for.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.say_goodbye()).await;
        }
        if let Err(error) = self.pc.close().await {
            tracing::debug!(%error, "a connection did not close cleanly");
        }
    }

    /// Says that our streams end, and waits until that has left (RFC 3550 section 6.3.7).
    async fn say_goodbye(&self) {
        let tracks: Vec<_> = {
            let outputs = self.outputs.lock();
            outputs.audio.iter().chain(&outputs.video).map(|output| (output.ssrc(), output.track())).collect()
        };
        // Who is sent nothing knows us by our reports.
        let streams: Vec<u32> = tracks.iter().map(|(ssrc, _)| *ssrc).collect();
        let streams = if streams.is_empty() { vec![self.ssrcs.audio] } else { streams };
        let goodbye = self.introductions.lock().goodbye(&streams);
        let packets: Vec<Box<dyn rtcp::Packet>> = vec![Box::new(ReceiverReport::default()), Box::new(goodbye)];
        let said = match (tracks.first(), self.incoming.first()) {
            (Some((_, track)), _) => track.write_rtcp(packets).await.is_ok(),
            (None, Some(incoming)) => incoming.say(packets).await,
            (None, None) => false,
        };
        if said {
            self.seen.goodbye_left.notified().await;
        }
    }

    /// Streams of the peer have said goodbye: nobody waits for more of them.
    fn ended(&self) {
        let ended = std::mem::take(&mut *self.seen.over.lock());
        for incoming in
            self.incoming.iter().filter(|incoming| incoming.ssrc().is_some_and(|ssrc| ended.contains(&ssrc)))
        {
            if let Some((_, kind)) = self.sources.iter().find(|(mid, _)| *mid == incoming.mid) {
                self.sink.ended(*kind);
            }
        }
    }

    fn tell(&self, event: PeerEvent) -> Result<(), End> {
        self.events.try_send(event).map_err(|_| End::Lost("its events were not taken in time"))
    }

    /// The peer has told how single packets arrived.
    fn fed_back(&mut self, mut reception: Reception) -> Result<(), End> {
        let now = time::now();
        self.fed_back = Some(now);
        let queue = reception.queue_now.or(reception.queue).unwrap_or_default();
        self.pacer.lock().follow(reception.capacity, queue, now);
        if now.since(self.told) < RECEPTION_INTERVAL {
            return Ok(());
        }
        self.told = now;
        reception.backlog = self.subscriber.backlog(now);
        self.tell(PeerEvent::Reception(reception))
    }

    /// The peer's report (RFC 3550) has come: all there is of those who do not tell of single packets.
    fn reported(&self, seen: &reports::Reception) -> Result<(), End> {
        if self.fed_back.is_some_and(|at| time::now().since(at) < FEEDBACK_SILENCE) {
            return Ok(());
        }
        let told = seen.told();
        self.tell(PeerEvent::Reception(Reception {
            backlog: self.subscriber.backlog(time::now()),
            // Who has told of single packets before means something else by it, or something old.
            estimate: told.estimate.filter(|_| self.fed_back.is_none()),
            ..told
        }))
    }

    /// Tells the peer how much it may send, all its streams together (REMB). One that estimates by transport-wide feedback
    /// takes it for a limit.
    async fn limit(&self, bits_per_second: u64) {
        let is_video = |mid: &str| self.sources.iter().any(|(known, kind)| known == mid && kind.kind() == Kind::Video);
        for incoming in self.incoming.iter().filter(|incoming| is_video(&incoming.mid)) {
            incoming.limit(bits_per_second).await;
        }
    }

    async fn note(&mut self, note: Note) -> Result<(), End> {
        match note {
            Note::State(RTCPeerConnectionState::Connected) => {
                self.connected = true;
                self.begin()
            }
            Note::State(RTCPeerConnectionState::Failed) => Err(End::Lost("the connection failed")),
            // We close only at the end: it was the other side.
            Note::State(RTCPeerConnectionState::Closed) => Err(End::Goodbye),
            Note::State(_) => Ok(()),
            Note::Track(track) => {
                self.start_reader(track).await;
                Ok(())
            }
        }
    }

    /// Media can flow, or can flow again: what was lost on the way before is not repaired, so it begins with a keyframe.
    fn begin(&mut self) -> Result<(), End> {
        self.subscriber.resume();
        self.begins = self.taken.video_out.is_some().then(|| Box::pin(sleep(BEGIN_TIMEOUT)));
        self.tell(PeerEvent::Connected)
    }

    /// The connection's socket has seen how it fares.
    fn fares(&mut self, fate: Fate, silent: &mut bool) -> Result<(), End> {
        let before = std::mem::replace(silent, fate == Fate::Silent);
        match fate {
            Fate::Silent if self.connected => self.tell(PeerEvent::Disconnected),
            Fate::Alive if self.connected && before => self.begin(),
            Fate::Silent | Fate::Alive => Ok(()),
            Fate::Alerted => Err(End::Goodbye),
            Fate::Expired => Err(End::Lost("it fell silent")),
            Fate::Ended => Err(End::Lost("the connection's driver ended")),
        }
    }

    async fn start_reader(&mut self, track: Arc<dyn TrackRemote>) {
        let id = track.track_id().await;
        let Some(mid) = id.strip_prefix(TRACK_PREFIX) else {
            tracing::debug!(id, "a track that no section of the offer announced");
            return;
        };
        self.incoming.retain(|incoming| incoming.mid != mid);
        let (agreed, sink, counters) = (self.agreed.clone(), self.sink.clone(), self.counters.clone());
        self.incoming.push(Incoming::start(mid.to_owned(), track, agreed, sink, counters));
    }

    async fn command(&mut self, command: Command) {
        // Whoever asked may not wait for the answer any more.
        match command {
            Command::Candidates(fragment, reply) => {
                let _ = reply.send(self.add_candidates(&fragment).await);
            }
            Command::Restart(fragment, reply) => {
                let _ = reply.send(self.restart(&fragment).await);
            }
            Command::Renegotiate(offer, text, facts, reply) => {
                let _ = reply.send(self.renegotiate(*offer, &text, &facts).await);
            }
            Command::Keyframe(mid) => {
                if let Some(incoming) = self.incoming.iter_mut().find(|incoming| incoming.mid == mid) {
                    incoming.request_keyframe(time::now()).await;
                }
            }
            Command::Pause(pause) => self.pacer.lock().hold_until(time::now() + pause),
            Command::Close(_) => unreachable!("`run` ends on it"),
        }
    }
}

pub(super) fn receives(facts: &Facts) -> Receives {
    Receives { audio: facts.receives_audio.is_some(), video: facts.receives_video }
}

async fn build(
    connection: &Connection,
    media: MediaEngine,
    interceptors: Registry,
    taken: &Taken,
    callbacks: Callbacks,
) -> Result<Arc<dyn PeerConnection>, PeerError> {
    let pc = PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_interceptor_registry(interceptors)
        .with_setting_engine(engine::settings(taken.dtls_role, crypto::provider()?))
        .with_runtime(connection.runtime())
        .with_handler(Arc::new(callbacks))
        .with_udp_addrs(vec![Connection::BIND])
        .build()
        .await?;
    Ok(Arc::new(pc))
}

/// Waits for the timer, for ever when there is none.
async fn elapsed(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
