//! One participant's, publisher's or viewer's connection.
//!
//! Owns: [`Peer`]: the answer to an offer, the connection behind it, what is received and sent over it, its end. Does not
//! know: rooms, HTTP, codecs' insides. An offer comes in, packets of its sources leave through a [`SourceSink`]; streams
//! come in through the peer's [`Subscriber`]; what happens is told by [`PeerEvent`]s.
//!
//! Those who only receive are served many at a time (`viewer`); of the others one task per peer owns the state (`task`). Callbacks of `webrtc` run on the connection's driver and only put a note
//! into that task's bounded queue. A reader per received track does nothing but pass packets on, since the queue it reads
//! drops silently; one writer takes packets out of the subscriber, since sending waits for the driver.

mod arrivals;
mod associate;
mod crypto;
mod description;
mod engine;
mod incoming;
mod introductions;
mod notes;
mod outgoing;
mod repairs;
mod reports;
mod requests;
mod tap;
mod task;
mod viewer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::task::{Command, Task};
use self::viewer::{Rung, Viewers};
use crate::fanout::Subscriber;
use crate::media::{Codec, SourceKind, SourcePacket};
use crate::net::udp::Mux;
use crate::sdp::{Direction, Facts, Fragment, Offer};
use crate::tier::Reception;

/// Requests waiting for a peer's task.
const COMMANDS: usize = 32;

/// What every peer of a server shares.
#[derive(Clone)]
pub struct PeerConfig {
    /// The media port.
    mux: Arc<Mux>,
    /// Who serves those who only receive.
    viewers: Arc<Viewers>,
}

impl PeerConfig {
    /// For peers on this port; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no certificate or thread to be had.
    pub fn new(mux: Arc<Mux>) -> io::Result<Self> {
        let viewers = Arc::new(Viewers::start(&mux)?);
        Ok(Self { mux, viewers })
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
    /// It cannot decode our video without a keyframe; several requests are one.
    KeyframeWanted,
    /// How what we send arrives; a few times a second.
    Reception(Reception),
    /// The video stream that was wanted of its subscriber flows now.
    Switched,
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

/// Takes a peer's sources. Called by track readers for every packet: it must return at once.
pub trait SourceSink: Send + Sync {
    /// A packet of the media section `mid`, which carries this kind of source in this codec now.
    fn packet(&self, mid: &str, kind: SourceKind, codec: Codec, packet: SourcePacket);

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
    /// RTP packets of unknown payload types, of sections that carry no source now, or too many of a stream not known yet.
    pub strange_in: u64,
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

#[derive(Debug, Default)]
struct Counters {
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    strange_in: AtomicU64,
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
}

/// A connected or connecting peer. Its connection ends with this handle.
pub struct Peer {
    commands: mpsc::Sender<Command>,
    /// Who serves many is told of commands, and of their end; dropped after them.
    rung: Option<Rung>,
    subscriber: Arc<Subscriber>,
    counters: Arc<Counters>,
    seen: Arc<tap::Seen>,
    limit: watch::Sender<Option<u64>>,
}

impl Peer {
    /// Answers an offer, `text` as the client sent it, and begins to connect. `events` gets what happens; a full queue closes the peer.
    ///
    /// # Errors
    /// [`PeerError::Offer`] or [`PeerError::Connection`]; nothing is left behind.
    pub async fn answer(
        config: &PeerConfig,
        offer: &Offer,
        text: &str,
        facts: &Facts,
        sink: Arc<dyn SourceSink>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<(Self, Answer), PeerError> {
        if facts.direction == Direction::RecvOnly {
            return config.viewers.answer(&config.mux, offer, text, facts, events);
        }
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (task, answer) = Task::answer(config, offer, text, facts, sink, events).await?;
        let (limit, limits) = watch::channel(None);
        let peer = Self {
            commands,
            rung: None,
            subscriber: Arc::clone(&task.subscriber),
            counters: Arc::clone(&task.counters),
            seen: Arc::clone(&task.seen),
            limit,
        };
        tokio::spawn(task.run(inbox, limits));
        Ok((peer, answer))
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
        self.ask(|reply| Command::Candidates(fragment.clone(), reply)).await
    }

    /// Restarts ICE with the fragment's credentials; gives our fragment and the new entity tag.
    ///
    /// # Errors
    /// [`PeerError::Fragment`] when it has no new credentials; the old ICE session goes on.
    pub async fn restart_ice(&self, fragment: &Fragment) -> Result<(String, String), PeerError> {
        self.ask(|reply| Command::Restart(fragment.clone(), reply)).await
    }

    /// Takes a new offer of the same peer, which may add or stop a screen; gives the answer.
    ///
    /// # Errors
    /// [`PeerError::Offer`] or [`PeerError::Connection`]; what was agreed before goes on.
    pub async fn renegotiate(&self, offer: &Offer, text: &str, facts: &Facts) -> Result<Answer, PeerError> {
        self.ask(|reply| Command::Renegotiate(Box::new(offer.clone()), text.to_owned(), facts.clone(), reply)).await
    }

    /// Asks the peer for a keyframe of the source in this section; not more than twice a second.
    pub async fn request_keyframe(&self, mid: &str) {
        // A peer that is gone sends no more keyframes.
        let _ = self.send(Command::Keyframe(mid.to_owned())).await;
    }

    /// Asks the peer to send no more than so many bits per second from now on, pictures and sound together; None for what it
    /// likes.
    pub fn limit(&self, bits_per_second: Option<u64>) {
        // A peer that is gone sends nothing anyway.
        self.limit.send_if_modified(|limit| std::mem::replace(limit, bits_per_second) != bits_per_second);
    }

    /// Sends no video for so long, so that what waits on the way can drain.
    pub async fn pause(&self, pause: Duration) {
        // A peer that is gone sends nothing anyway.
        let _ = self.send(Command::Pause(pause)).await;
    }

    /// Counters and latest values.
    pub fn stats(&self) -> PeerStats {
        let subscriber = self.subscriber.stats();
        let reception = *self.seen.reception.borrow();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStats {
            packets_in: read(&self.counters.packets_in),
            bytes_in: read(&self.counters.bytes_in),
            lost_in: read(&self.seen.lost),
            jitter_in: self.seen.jitter.load(Ordering::Relaxed),
            strange_in: read(&self.counters.strange_in),
            packets_out: read(&self.counters.packets_out),
            bytes_out: read(&self.counters.bytes_out),
            video_dropped: subscriber.video_dropped,
            audio_dropped: subscriber.audio_dropped,
            fraction_lost: reception.fraction_lost,
            rtt: reception.rtt,
        }
    }

    /// Says goodbye and ends the connection; returns when it is over. Also when it is over already.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, PeerError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| PeerError::Closed)?
    }

    async fn send(&self, command: Command) -> Result<(), PeerError> {
        self.commands.send(command).await.map_err(|_| PeerError::Closed)?;
        self.rung.iter().for_each(Rung::ring);
        Ok(())
    }
}

/// Where a request's result goes.
type Reply<T> = oneshot::Sender<Result<T, PeerError>>;

#[cfg(test)]
pub(crate) mod tests;
