//! WebRTC sessions of participants, publishers and viewers.
//!
//! Owns: [`Peer`]: the answer to an offer, the connection behind it, what is received and sent over it, its end. Does
//! not know: rooms, HTTP, what is in a codec's packets. An offer comes in; packets of its sources leave through a
//! [`SourceSink`]; streams come in through the peer's [`Subscriber`]; events leave as [`PeerEvent`]s.
//!
//! All sessions have one stack. A [`session`] lives on one of a few threads ([`shard`]); its [`connection`] is sans-IO
//! and puts the transport's ICE, DTLS and SRTP together with [`sources`] (what the client sends) and [`sender`] (what
//! it is sent); [`negotiation`] and [`description`] are its SDP.

mod capture;
mod connection;
mod crypto;
mod description;
mod extensions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keyframe;
mod keyframe_budget;
mod nack;
mod negotiation;
mod reports;
mod rtx;
mod sdes;
mod sender;
mod session;
mod shard;
mod sources;
mod ssrcs;
mod statistics;
mod twcc;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::connection::Connection;
use self::negotiation::Negotiation;
use self::reports::LinkReport;
use self::session::{Marks, Request, Session};
use self::shard::Shards;
use crate::fanout::Subscriber;
use crate::media::{Codec, Size, SourceKind, SourcePacket};
use crate::net::udp::Mux;
use crate::sdp::{Facts, Fragment, Offer};
use crate::time;

/// Requests that may wait for a session's thread.
const REQUESTS_MAX: usize = 32;
/// Stands for "no round trip measured yet" among microseconds.
const NO_RTT: u64 = u64::MAX;

/// What every peer of a server shares.
#[derive(Clone)]
pub struct PeerConfig {
    /// The media port.
    mux: Arc<Mux>,
    /// The threads.
    shards: Arc<Shards>,
}

impl PeerConfig {
    /// For peers on this port; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no certificate or thread to be had.
    pub fn new(mux: Arc<Mux>) -> io::Result<Self> {
        let shards = Arc::new(Shards::start(&mux)?);
        Ok(Self { mux, shards })
    }
}

/// What happens to a peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PeerEvent {
    /// Media can flow; again after each ICE restart.
    Connected,
    /// Nothing has been heard for some seconds; it may come back.
    Disconnected,
    /// Gone, by its own word. Nothing follows. Not sent when we closed it.
    Goodbye,
    /// Gone: it fell silent, or never connected. Nothing follows.
    Lost,
}

/// Why an offer, a fragment or a peer did not do. Whoever sent it can mend the first two.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Our side of the offer cannot be made.
    #[error("this offer cannot be answered: {0}")]
    Offer(String),
    /// The fragment does not fit the session.
    #[error("this fragment does not fit the session: {0}")]
    Fragment(String),
    /// The connection refused it.
    #[error("the connection could not be set up: {0}; check the offer")]
    Connection(#[from] rtc::shared::error::Error),
    /// The peer is gone.
    #[error("the session is over; join again")]
    Closed,
    /// Too many join at once.
    #[error("the server is busy with others who join; try again in a moment")]
    Busy,
}

/// Takes a peer's sources. Called by session threads: it must return at once.
pub trait SourceSink: Send + Sync {
    /// A packet of the media section `mid`, which carries this kind of source in this codec now. It may wait for
    /// [`SourceSink::flush`].
    fn packet(&self, mid: &str, kind: SourceKind, codec: Codec, packet: SourcePacket);

    /// Passes on the packets that wait. Called after each batch of packets.
    fn flush(&self);

    /// Of a simulcast source the packets of the encoding with this RID follow, from a keyframe on.
    fn encoding(&self, kind: SourceKind, rid: &str);

    /// A packet of a simulcast source was dropped, since another encoding is nearer to the size of the tile.
    fn unselected(&self);

    /// The source of this kind has said goodbye (RFC 3550 section 6.6); what comes of it later begins anew.
    fn ended(&self, kind: SourceKind);
}

/// The answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer's text.
    pub sdp: String,
    /// Names the ICE session (RFC 9725 section 4.3.1), without quotes.
    pub etag: String,
}

/// Counters and latest values of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PeerStats {
    /// RTP packets received.
    pub packets_in: u64,
    /// RTP payload bytes received.
    pub bytes_in: u64,
    /// RTP packets of theirs that never arrived.
    pub lost_in: u64,
    /// Latest interarrival jitter of one of their streams, in ticks of its clock (RFC 3550).
    pub jitter_in: u32,
    /// RTP packets of unknown payload types, of sections that carry no source now, or too many of a stream not known
    /// yet.
    pub unrouted_in: u64,
    /// Keyframe requests of the peer that waited, because it had made too many.
    pub keyframes_deferred: u64,
    /// RTP packets sent.
    pub packets_out: u64,
    /// RTP payload bytes sent.
    pub bytes_out: u64,
    /// Video packets not sent because the peer was too slow.
    pub video_dropped: u64,
    /// Audio packets not sent because the peer was too slow.
    pub audio_dropped: u64,
    /// Share of our packets lost by the peer's latest report, 0 to 1.
    pub fraction_lost: f32,
    /// Round trip, once known.
    pub rtt: Option<Duration>,
}

/// Counters and latest values, written by the session's thread.
#[derive(Debug)]
struct Counters {
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    lost_in: AtomicU64,
    jitter_in: AtomicU32,
    unrouted_in: AtomicU64,
    keyframes_deferred: AtomicU64,
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    /// The bits of an `f32`.
    fraction_lost: AtomicU32,
    /// In microseconds.
    rtt: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            lost_in: AtomicU64::new(0),
            jitter_in: AtomicU32::new(0),
            unrouted_in: AtomicU64::new(0),
            keyframes_deferred: AtomicU64::new(0),
            packets_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            fraction_lost: AtomicU32::new(0),
            rtt: AtomicU64::new(NO_RTT),
        }
    }
}

impl Counters {
    /// The client has reported how packets arrive.
    fn set_report(&self, report: &LinkReport) {
        self.fraction_lost.store(report.fraction_lost.to_bits(), Ordering::Relaxed);
        self.rtt.store(report.rtt.map_or(NO_RTT, |rtt| rtt.as_micros() as u64), Ordering::Relaxed);
    }
}

/// A connected or connecting peer. Its connection ends with this handle.
pub struct Peer {
    requests: mpsc::Sender<Request>,
    /// Dropped after the requests, so that the thread sees their end.
    marks: MarkedWhenDropped,
    subscriber: Arc<Subscriber>,
    counters: Arc<Counters>,
}

/// Wakes the session's thread when the peer is dropped.
struct MarkedWhenDropped(Arc<Marks>);

impl Drop for MarkedWhenDropped {
    fn drop(&mut self) {
        self.0.requested();
    }
}

impl Peer {
    /// Answers an offer and begins to connect. `events` gets what happens; a full queue closes the peer.
    ///
    /// # Errors
    /// [`PeerError::Offer`], [`PeerError::Connection`] or [`PeerError::Busy`]; nothing is left behind.
    pub fn answer(
        config: &PeerConfig,
        offer: &Offer,
        facts: &Facts,
        sink: Arc<dyn SourceSink>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<(Self, Answer), PeerError> {
        let PeerConfig { mux, shards } = config;
        let mut negotiation = Negotiation::begin(Arc::clone(shards.identity()), mux.candidates(), offer, facts)?;
        let on_port = mux.connect();
        let mailbox = shards.assign();
        let marks = Arc::new(Marks::new(on_port.key(), Arc::clone(mailbox)));
        let subscriber = Arc::new(Subscriber::with_bell(marks.clone()));
        let counters = Arc::new(Counters::default());
        let (setup, streams, counts) = (negotiation.setup(), Arc::clone(&subscriber), Arc::clone(&counters));
        let mut connection = Connection::new(setup, streams, sink, counts, time::now())?;
        connection.agree(negotiation.agreement(), negotiation.kinds());
        on_port.deliver_to(mailbox.inbox());
        on_port.set_remote_password(&negotiation.remote().password);
        on_port.set_local_credentials(&negotiation.local().ufrag, &negotiation.local().password);
        let answer = negotiation.answer();
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        mailbox.add(Session::new(connection, negotiation, on_port, receiver, events, marks.clone()))?;
        Ok((Self { requests, marks: MarkedWhenDropped(marks), subscriber, counters }, answer))
    }

    /// Where the streams for this peer go in.
    pub fn subscriber(&self) -> Arc<Subscriber> {
        Arc::clone(&self.subscriber)
    }

    /// Adds the candidates of a fragment (RFC 8840). Those we cannot send to are passed over.
    ///
    /// # Errors
    /// [`PeerError::Fragment`] when it belongs to another ICE session, or there are too many.
    pub async fn add_candidates(&self, fragment: &Fragment) -> Result<(), PeerError> {
        self.ask(|reply| Request::Candidates(fragment.clone(), reply)).await
    }

    /// Restarts ICE with the fragment's credentials; gives our fragment and the new entity tag.
    ///
    /// # Errors
    /// [`PeerError::Fragment`] when it has no new credentials; the old ICE session goes on.
    pub async fn restart_ice(&self, fragment: &Fragment) -> Result<(String, String), PeerError> {
        self.ask(|reply| Request::Restart(fragment.clone(), reply)).await
    }

    /// Takes a new offer of the same peer, which may add or stop a screen; gives the answer.
    ///
    /// # Errors
    /// [`PeerError::Offer`] or [`PeerError::Connection`]; what was agreed before goes on.
    pub async fn renegotiate(&self, offer: Offer, facts: Facts) -> Result<Answer, PeerError> {
        self.ask(|reply| Request::Renegotiate(Box::new((offer, facts)), reply)).await
    }

    /// Asks the peer for a keyframe of the source in this section; not more than twice a second.
    pub async fn request_keyframe(&self, mid: &str) {
        // A peer that is gone sends no more keyframes.
        let _ = self.send(Request::Keyframe(mid.to_owned())).await;
    }

    /// Asks the peer to send no more than so many bits per second from now on, pictures and sound together; None for
    /// what it likes.
    pub fn limit(&self, bits_per_second: Option<u64>) {
        self.marks.0.limit(bits_per_second);
    }

    /// The source of this kind is shown at most at this size, zero while it is not shown: of the encodings of a
    /// simulcast source the nearest one is passed on.
    pub fn want(&self, kind: SourceKind, size: Size) {
        self.marks.0.want(kind, size);
    }

    /// Counters and latest values.
    pub fn stats(&self) -> PeerStats {
        let subscriber = self.subscriber.stats();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rtt = read(&self.counters.rtt);
        PeerStats {
            packets_in: read(&self.counters.packets_in),
            bytes_in: read(&self.counters.bytes_in),
            lost_in: read(&self.counters.lost_in),
            jitter_in: self.counters.jitter_in.load(Ordering::Relaxed),
            unrouted_in: read(&self.counters.unrouted_in),
            keyframes_deferred: read(&self.counters.keyframes_deferred),
            packets_out: read(&self.counters.packets_out),
            bytes_out: read(&self.counters.bytes_out),
            video_dropped: subscriber.video_dropped,
            audio_dropped: subscriber.audio_dropped,
            fraction_lost: f32::from_bits(self.counters.fraction_lost.load(Ordering::Relaxed)),
            rtt: (rtt != NO_RTT).then(|| Duration::from_micros(rtt)),
        }
    }

    /// Says goodbye and ends the connection; returns when it is over. Also when it is over already.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Request::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, PeerError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| PeerError::Closed)?
    }

    async fn send(&self, request: Request) -> Result<(), PeerError> {
        self.requests.send(request).await.map_err(|_| PeerError::Closed)?;
        self.marks.0.requested();
        Ok(())
    }
}

/// Where a request's result goes.
type Reply<T> = oneshot::Sender<Result<T, PeerError>>;

#[cfg(test)]
pub(crate) mod tests;
