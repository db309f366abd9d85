//! One session on its thread: its connection, its negotiation, and the requests of its [`Peer`](super::Peer).
//!
//! Owns: [`Session`], and [`Marks`], by which the fan-out and the peer tell the thread what there is to do. Does not
//! know: other sessions, the thread's order of work. Requests and marks come in, answers and events leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Connection, Out};
use super::negotiation::Negotiation;
use super::shard::Mailbox;
use super::{Answer, PeerError, PeerEvent, Reply};
use crate::fanout::Bell;
use crate::media::{Size, SourceKind};
use crate::net::udp::{self, Key};
use crate::sdp::{Facts, Fragment, Offer};
use crate::time::{Moment, Timestamp};
use crate::transport::stun;

/// How long the last event may wait for its receiver.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Stands for "no limit" among bits per second.
const NO_LIMIT: u64 = u64::MAX;

const PACKETS: u8 = 1;
const REQUESTS: u8 = 2;
const LIMIT: u8 = 4;
const WANTED: u8 = 8;

/// What a session is asked by its peer.
pub(super) enum Request {
    Candidates(Fragment, Reply<()>),
    Restart(Fragment, Reply<(String, String)>),
    Renegotiate(Box<(Offer, Facts)>, Reply<Answer>),
    /// A keyframe of the source in this section.
    Keyframe(String),
    Close(oneshot::Sender<()>),
}

/// What there is to do for a session; set by others, looked at by its thread.
#[derive(Debug)]
pub(super) struct Marks {
    key: Key,
    marks: AtomicU8,
    /// The latest limit for what the client sends, in bits per second.
    limit: AtomicU64,
    /// The latest sizes at which sources are shown.
    wanted: Mutex<Vec<(SourceKind, Size)>>,
    mailbox: Arc<Mailbox>,
}

impl Marks {
    pub(super) fn new(key: Key, mailbox: Arc<Mailbox>) -> Self {
        Self { key, marks: AtomicU8::new(0), limit: AtomicU64::new(NO_LIMIT), wanted: Mutex::default(), mailbox }
    }

    fn mark(&self, mark: u8) {
        if self.marks.fetch_or(mark, Ordering::SeqCst) == 0 {
            self.mailbox.mark(self.key);
        }
    }

    /// There is a request, or the peer is gone.
    pub(super) fn requested(&self) {
        self.mark(REQUESTS);
    }

    /// The client may send no more than this, in bits per second; None lifts the limit.
    pub(super) fn limit(&self, bits_per_second: Option<u64>) {
        let limit = bits_per_second.unwrap_or(NO_LIMIT);
        if self.limit.swap(limit, Ordering::SeqCst) != limit {
            self.mark(LIMIT);
        }
    }

    /// The source of this kind is shown at this size.
    pub(super) fn want(&self, kind: SourceKind, size: Size) {
        let mut wanted = self.wanted.lock();
        wanted.retain(|(known, _)| *known != kind);
        wanted.push((kind, size));
        drop(wanted);
        self.mark(WANTED);
    }
}

impl Bell for Marks {
    fn ring(&self) {
        self.mark(PACKETS);
    }
}

pub(super) struct Session {
    connection: Connection,
    negotiation: Negotiation,
    on_port: udp::Connection,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<PeerEvent>,
    marks: Arc<Marks>,
    /// The request to close, to be answered when the last datagrams have been sent: after that the process may end.
    pub(super) closed: Option<oneshot::Sender<()>>,
    /// When it is due, as its thread knows.
    pub(super) due: Timestamp,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.marks.key)
    }
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        negotiation: Negotiation,
        on_port: udp::Connection,
        requests: mpsc::Receiver<Request>,
        events: mpsc::Sender<PeerEvent>,
        marks: Arc<Marks>,
    ) -> Self {
        Self { connection, negotiation, on_port, requests, events, marks, closed: None, due: Timestamp::default() }
    }

    pub(super) fn key(&self) -> Key {
        self.marks.key
    }

    /// When [`Session::tick`] is needed next.
    pub(super) fn deadline(&self) -> Timestamp {
        self.connection.deadline()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, moment: Moment, out: &mut Out) {
        self.connection.tick(moment, out);
    }

    /// Takes a datagram.
    pub(super) fn datagram(&mut self, moment: Moment, from: SocketAddr, datagram: BytesMut, out: &mut Out) {
        self.connection.handle(moment, from, datagram, out);
    }

    /// Whether [`Session::flush_media`] is needed.
    pub(super) fn has_unflushed_media(&self) -> bool {
        self.connection.has_unflushed_media()
    }

    /// Passes on the received media that waits.
    pub(super) fn flush_media(&mut self) {
        self.connection.flush_media();
    }

    /// Does what it is marked for.
    pub(super) fn work(&mut self, moment: Moment, out: &mut Out) {
        let marks = self.marks.marks.swap(0, Ordering::SeqCst);
        if marks & LIMIT != 0 {
            let limit = self.marks.limit.load(Ordering::SeqCst);
            self.connection.limit_uplink(Some(limit).filter(|limit| *limit != NO_LIMIT), moment.now);
        }
        if marks & WANTED != 0 {
            let wanted = std::mem::take(&mut *self.marks.wanted.lock());
            wanted.into_iter().for_each(|(kind, size)| self.connection.want(kind, size, moment.now));
        }
        if marks & REQUESTS != 0 {
            self.serve_requests(moment, out);
        }
        if marks & PACKETS != 0 {
            self.connection.pump(moment.now, out);
        }
    }

    fn serve_requests(&mut self, moment: Moment, out: &mut Out) {
        loop {
            // A requester may have stopped waiting for the reply.
            match self.requests.try_recv() {
                Ok(Request::Candidates(fragment, reply)) => {
                    let _ = reply.send(self.add_candidates(moment.now, &fragment));
                }
                Ok(Request::Restart(fragment, reply)) => {
                    let _ = reply.send(self.restart(moment.now, &fragment));
                }
                Ok(Request::Renegotiate(offer, reply)) => {
                    let (offer, facts) = *offer;
                    let _ = reply.send(self.renegotiate(moment.now, &offer, &facts));
                }
                Ok(Request::Keyframe(mid)) => self.connection.request_keyframe(&mid, moment, out),
                Ok(Request::Close(reply)) => {
                    self.connection.close(moment, out);
                    self.closed = Some(reply);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.connection.close(moment, out),
            }
        }
    }

    fn add_candidates(&mut self, now: Timestamp, fragment: &Fragment) -> Result<(), PeerError> {
        for address in self.negotiation.candidates(fragment)? {
            self.connection.add_candidate(address, now);
        }
        Ok(())
    }

    fn restart(&mut self, now: Timestamp, fragment: &Fragment) -> Result<(String, String), PeerError> {
        let (text, addresses) = self.negotiation.restart(fragment)?;
        self.restart_ice(now);
        addresses.into_iter().for_each(|address| self.connection.add_candidate(address, now));
        Ok((text, self.negotiation.local().ufrag.clone()))
    }

    fn renegotiate(&mut self, now: Timestamp, offer: &Offer, facts: &Facts) -> Result<Answer, PeerError> {
        let restarts = self.negotiation.renegotiate(offer, facts)?;
        self.connection.agree(self.negotiation.agreement(), self.negotiation.kinds());
        if restarts {
            self.restart_ice(now);
        }
        let addresses = self.negotiation.agreement().addresses.clone();
        addresses.into_iter().for_each(|address| self.connection.add_candidate(address, now));
        Ok(self.negotiation.answer())
    }

    fn restart_ice(&mut self, now: Timestamp) {
        let (local, remote) = (self.negotiation.local().clone(), self.negotiation.remote().clone());
        self.on_port.set_remote_password(&remote.password);
        self.on_port.set_local_credentials(&local.ufrag, &local.password);
        self.connection.restart_ice(local, remote, now);
    }

    /// Records a datagram that is about to be sent; false for a check that may not be sent.
    pub(super) fn sends(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        !stun::is_stun(datagram) || self.on_port.sent_check(to, datagram)
    }

    /// Sends a datagram where its address is reached by TCP or a relay; false when it is to leave by UDP.
    pub(super) fn send_by_tunnel(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.on_port.send_by_tunnel(to, datagram)
    }

    /// Sends the connection's events; true while the session goes on.
    pub(super) fn send_events(&mut self, runtime: &Handle) -> bool {
        while let Some(event) = self.connection.poll_event() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    tracing::debug!("event queue of a session full: the session is closed");
                    let last = if self.connection.is_over() { event } else { PeerEvent::Lost };
                    self.send_last(last, runtime);
                    return false;
                }
                // Nobody receives events: the session is closed when its handle is dropped.
                Err(TrySendError::Closed(_)) => {}
            }
        }
        !self.connection.is_over()
    }

    /// Sends the last event; its receiver may be busy, or gone too.
    pub(super) fn send_last(&self, last: PeerEvent, runtime: &Handle) {
        let events = self.events.clone();
        runtime.spawn(async move {
            let _ = timeout(LAST_EVENT_TIMEOUT, events.send(last)).await;
        });
    }
}
