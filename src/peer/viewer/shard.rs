//! A thread that serves many viewers.
//!
//! Owns: their connections, when each is due, the order of work. Does not know: how a connection works, rooms. Everything that
//! is to be done rings the [`Doorbell`]: a viewer with news is marked once, however many they are, and the thread is woken
//! at most once. In a pass media goes first; of handshakes, which cost as much as hundreds of packets, a few are taken.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::time::timeout;

use super::super::tap::Seen;
use super::super::task::{Command, LAST_EVENT_TIMEOUT};
use super::super::{PeerError, PeerEvent};
use super::connection::{Connection, Out};
use super::negotiation::Negotiation;
use crate::fanout::{Bell, News};
use crate::net::udp::{self, Batch, Inbox, Key, Mux, Received};
use crate::sdp::{Facts, Fragment, Offer};
use crate::time::{Moment, Timestamp};
use crate::transport::{secure, stun};

/// Datagrams of all viewers of a thread that may wait to be read; they send a few a second each.
const INBOX_MAX: usize = 16_384;
/// Viewers that have joined and are not taken over yet.
const ARRIVALS_MAX: usize = 1_024;
/// Datagrams read before media is looked after again.
const READ_MAX: usize = 128;
/// Handshakes moved on before media is looked after again.
const HANDSHAKES_MAX: usize = 2;
/// Datagrams of handshakes that may wait for that; the newest are dropped, and sent again by those who need them.
const HANDSHAKES_WAITING: usize = 4_096;

/// Marks on a viewer's place.
const PACKETS: u8 = 1;
const KEYFRAME: u8 = 2;
const SWITCHED: u8 = 4;
const COMMANDED: u8 = 8;

/// How a thread is called.
#[derive(Debug)]
pub(super) struct Doorbell {
    inbox: Arc<Inbox>,
    ready: Mutex<Vec<Key>>,
    arrivals: Mutex<VecDeque<Viewer>>,
    /// It looks around before it sleeps again.
    awake: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self {
            inbox: Arc::new(Inbox::new(INBOX_MAX)),
            ready: Mutex::default(),
            arrivals: Mutex::default(),
            awake: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }
}

impl Doorbell {
    /// Where the thread's datagrams come in.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// A viewer for the thread.
    pub(super) fn arrive(&self, viewer: Viewer) -> Result<(), PeerError> {
        let mut arrivals = self.arrivals.lock();
        if arrivals.len() == ARRIVALS_MAX {
            return Err(PeerError::Busy);
        }
        arrivals.push_back(viewer);
        drop(arrivals);
        self.ring();
        Ok(())
    }

    /// The thread is to end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        if !self.awake.swap(true, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn has_work(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
            || !self.inbox.is_empty()
            || !self.ready.lock().is_empty()
            || !self.arrivals.lock().is_empty()
    }
}

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// One viewer's marks.
#[derive(Debug)]
pub(super) struct Place {
    key: Key,
    marks: AtomicU8,
    doorbell: Arc<Doorbell>,
}

impl Place {
    pub(super) fn new(key: Key, doorbell: Arc<Doorbell>) -> Self {
        Self { key, marks: AtomicU8::new(0), doorbell }
    }

    fn mark(&self, mark: u8) {
        if self.marks.fetch_or(mark, Ordering::SeqCst) == 0 {
            self.doorbell.ready.lock().push(self.key);
            self.doorbell.ring();
        }
    }
}

impl Bell for Place {
    fn ring(&self, news: News) {
        self.mark(match news {
            News::Packets => PACKETS,
            News::KeyframeWanted => KEYFRAME,
            News::Switched => SWITCHED,
        });
    }
}

/// Tells a viewer's thread that there is a command, or that there will be none any more.
pub(in crate::peer) struct Rung(Arc<Place>);

impl Rung {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self(place)
    }

    pub(in crate::peer) fn ring(&self) {
        self.0.mark(COMMANDED);
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        self.ring();
    }
}

/// A viewer as its thread has it.
pub(super) struct Viewer {
    connection: Connection,
    negotiation: Negotiation,
    on_port: udp::Connection,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<PeerEvent>,
    seen: Arc<Seen>,
    place: Arc<Place>,
    /// When it is due.
    due: Timestamp,
}

impl std::fmt::Debug for Viewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Viewer({})", self.place.key)
    }
}

impl Viewer {
    pub(super) fn new(
        connection: Connection,
        negotiation: Negotiation,
        on_port: udp::Connection,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<PeerEvent>,
        seen: Arc<Seen>,
        place: Arc<Place>,
    ) -> Self {
        Self { connection, negotiation, on_port, commands, events, seen, place, due: Timestamp::default() }
    }

    /// Looks at its marks.
    fn look(&mut self, moment: Moment, out: &mut Out) {
        let marks = self.place.marks.swap(0, Ordering::SeqCst);
        for (mark, news) in [(KEYFRAME, News::KeyframeWanted), (SWITCHED, News::Switched)] {
            if marks & mark != 0 {
                self.connection.heard(news);
            }
        }
        if marks & COMMANDED != 0 {
            self.obey(moment, out);
        }
        if marks & PACKETS != 0 {
            self.connection.pump(moment.now, out);
        }
    }

    fn obey(&mut self, moment: Moment, out: &mut Out) {
        loop {
            // Whoever asked may not wait for the answer any more.
            match self.commands.try_recv() {
                Ok(Command::Candidates(fragment, reply)) => {
                    let _ = reply.send(self.add_candidates(moment.now, &fragment));
                }
                Ok(Command::Restart(fragment, reply)) => {
                    let _ = reply.send(self.restart(moment.now, &fragment));
                }
                Ok(Command::Renegotiate(offer, text, facts, reply)) => {
                    let renegotiated = self.renegotiate(moment.now, &offer, &text, &facts);
                    let _ = reply.send(renegotiated.map(|()| self.negotiation.answer()));
                }
                // It sends nothing.
                Ok(Command::Keyframe(_)) => {}
                Ok(Command::Pause(pause)) => self.connection.pause(pause, moment.now),
                Ok(Command::Close(reply)) => {
                    self.connection.close(moment, out);
                    let _ = reply.send(());
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
        let text = self.negotiation.restart(fragment)?;
        self.restart_ice(now);
        self.add_candidates(now, fragment)?;
        Ok((text, self.negotiation.local().ufrag.clone()))
    }

    fn renegotiate(&mut self, now: Timestamp, offer: &Offer, text: &str, facts: &Facts) -> Result<(), PeerError> {
        let restarts = self.negotiation.renegotiate(offer, text, facts)?;
        self.connection.set_formats(&self.negotiation.taken);
        if restarts {
            self.restart_ice(now);
            let addresses = self.negotiation.taken.addresses();
            addresses.into_iter().for_each(|address| self.connection.add_candidate(address, now));
        }
        Ok(())
    }

    fn restart_ice(&mut self, now: Timestamp) {
        let (local, remote) = (self.negotiation.local().clone(), self.negotiation.taken.ice.clone());
        self.on_port.set_remote_password(&remote.password);
        self.on_port.set_local_credentials(&local.ufrag, &local.password);
        self.connection.restart_ice(local, remote, now);
    }

    /// Tells what has happened; true while it goes on.
    fn tell(&mut self, runtime: &Handle) -> bool {
        while let Some(event) = self.connection.poll_event() {
            if matches!(event, PeerEvent::Reception(_)) {
                self.seen.reception.send_replace(self.connection.reception());
            }
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    let last = if self.connection.is_over() { event } else { PeerEvent::Lost };
                    self.tell_last(last, runtime);
                    return false;
                }
                // Nobody wants to know: it is closed when its handle goes.
                Err(TrySendError::Closed(_)) => {}
            }
        }
        !self.connection.is_over()
    }

    /// The owner may be busy, or gone too.
    fn tell_last(&self, last: PeerEvent, runtime: &Handle) {
        let events = self.events.clone();
        runtime.spawn(async move {
            let _ = timeout(LAST_EVENT_TIMEOUT, events.send(last)).await;
        });
    }
}

pub(super) struct Shard {
    mux: Arc<Mux>,
    doorbell: Arc<Doorbell>,
    runtime: Handle,
    viewers: HashMap<Key, Viewer>,
    due: BTreeSet<(Timestamp, Key)>,
    /// Of DTLS; they wait for their turn.
    handshakes: VecDeque<Received>,
    ready: Vec<Key>,
    out: Out,
    batch: Batch,
}

impl Shard {
    pub(super) fn new(mux: Arc<Mux>, doorbell: Arc<Doorbell>, runtime: Handle) -> Self {
        Self {
            mux: Arc::clone(&mux),
            doorbell,
            runtime,
            viewers: HashMap::new(),
            due: BTreeSet::new(),
            handshakes: VecDeque::new(),
            ready: Vec::new(),
            out: Vec::new(),
            batch: Batch::new(mux),
        }
    }

    /// Serves until the doorbell says that it is over.
    pub(super) fn run(mut self) {
        // Nobody else can have been the thread.
        let _ = self.doorbell.thread.set(thread::current());
        let waker = Waker::from(Arc::clone(&self.doorbell));
        while !self.doorbell.stopped.load(Ordering::SeqCst) {
            self.doorbell.awake.store(true, Ordering::SeqCst);
            let drained = self.pass(&waker);
            self.doorbell.awake.store(false, Ordering::SeqCst);
            if !drained || self.doorbell.has_work() {
                continue;
            }
            match self.due.first() {
                Some((due, _)) => thread::park_timeout(due.since(Moment::present().now)),
                None => thread::park(),
            }
        }
        // They know the doorbell, and it them.
        self.doorbell.arrivals.lock().clear();
    }

    /// Looks after everything once; false when there is more to do.
    fn pass(&mut self, waker: &Waker) -> bool {
        let moment = Moment::present();
        std::mem::swap(&mut self.ready, &mut *self.doorbell.ready.lock());
        let arrivals = std::mem::take(&mut *self.doorbell.arrivals.lock());
        for viewer in arrivals {
            let key = viewer.place.key;
            self.viewers.insert(key, viewer);
            self.with(key, |viewer, out| viewer.connection.tick(moment, out));
        }
        let mut ready = std::mem::take(&mut self.ready);
        for key in ready.drain(..) {
            self.with(key, |viewer, out| viewer.look(moment, out));
        }
        self.ready = ready;
        // Each once: what is due again at once waits for the next pass.
        let later = self.due.split_off(&(moment.now + Duration::from_micros(1), 0));
        for (_, key) in std::mem::replace(&mut self.due, later) {
            self.with(key, |viewer, out| {
                viewer.due = Timestamp::default();
                viewer.connection.tick(moment, out);
            });
        }
        self.batch.flush();
        let drained = self.read(waker, moment);
        for Received { key, from, datagram } in self.handshakes_now() {
            let moment = Moment::present();
            self.with(key, |viewer, out| viewer.connection.handle(moment, from, &datagram, out));
        }
        self.batch.flush();
        drained && self.handshakes.is_empty()
    }

    /// Takes datagrams; false when there may be more.
    fn read(&mut self, waker: &Waker, moment: Moment) -> bool {
        let cx = Context::from_waker(waker);
        for _ in 0..READ_MAX {
            let Poll::Ready(received) = Arc::clone(&self.doorbell.inbox).poll(&cx) else { return true };
            if !stun::is_stun(&received.datagram) && secure::is_dtls(&received.datagram) {
                if self.handshakes.len() < HANDSHAKES_WAITING {
                    self.handshakes.push_back(received);
                } else {
                    self.mux.stats().dropped_inbox.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            let Received { key, from, datagram } = received;
            self.with(key, |viewer, out| viewer.connection.handle(moment, from, &datagram, out));
        }
        false
    }

    fn handshakes_now(&mut self) -> Vec<Received> {
        let count = self.handshakes.len().min(HANDSHAKES_MAX);
        self.handshakes.drain(..count).collect()
    }

    /// Does something with a viewer, and what follows from it. A bug ends this viewer only.
    fn with(&mut self, key: Key, act: impl FnOnce(&mut Viewer, &mut Out)) {
        let Some(viewer) = self.viewers.get_mut(&key) else { return };
        let out = &mut self.out;
        let lives = catch_unwind(AssertUnwindSafe(|| {
            act(viewer, out);
            let lives = viewer.tell(&self.runtime);
            (lives, viewer.connection.deadline())
        }));
        for (to, datagram) in self.out.drain(..) {
            if stun::is_stun(&datagram) {
                viewer.on_port.sent_check(to, &datagram);
            }
            if !viewer.on_port.send_by_way(to, &datagram) {
                self.batch.push(to, datagram);
            }
        }
        match lives {
            Ok((true, due)) if due == viewer.due => {}
            Ok((true, due)) => {
                self.due.remove(&(viewer.due, key));
                viewer.due = due;
                self.due.insert((due, key));
            }
            ended => {
                if ended.is_err() {
                    tracing::error!("a viewer ended by a bug");
                    viewer.tell_last(PeerEvent::Lost, &self.runtime);
                }
                self.due.remove(&(viewer.due, key));
                self.viewers.remove(&key);
            }
        }
    }
}
