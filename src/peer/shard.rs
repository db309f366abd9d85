//! The threads that serve all sessions.
//!
//! Owns: [`Shards`], the threads and the certificate that all sessions show; per thread its sessions, when each is due,
//! the order of work. Does not know: how a connection works, rooms. Work wakes the thread by its [`Mailbox`]: a session
//! with work is marked once, however much there is, and the thread is woken at most once. A single thread also receives
//! the datagrams of the media port itself, which saves two wake-ups per datagram; several threads leave that to another
//! one. In a pass media goes first; of handshakes, each of which costs as much as hundreds of packets, a few are taken.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::connection::Out;
use super::session::Session;
use super::{PeerError, PeerEvent, crypto};
use crate::net::udp::{Batch, Inbox, Key, Mux, ReceiveThread, Received, Receiver, WakeFd};
use crate::time::{self, Moment, Timestamp};
use crate::transport::secure::{self, Identity};
use crate::transport::stun;

/// Shortest time between two passes, so that a busy thread, and the mixers behind it, are woken once for many packets.
/// Work that is due by the clock does not wait for it.
const PASS_INTERVAL: Duration = Duration::from_millis(2);
/// Datagrams of all sessions of a thread that may wait to be read: a tenth of a second of 250 cameras.
const INBOX_MAX: usize = 16_384;
/// New sessions that may wait for their thread.
const NEW_MAX: usize = 1_024;
/// Datagrams read before other work is done again.
const READ_MAX: usize = 128;
/// Datagrams of handshakes handled before media is served again.
const HANDSHAKES_MAX: usize = 2;
/// Datagrams of handshakes that may wait for that; the newest are dropped, and DTLS sends them again.
const HANDSHAKES_WAITING: usize = 4_096;

/// All threads. They end with it.
pub(super) struct Shards {
    identity: Arc<Identity>,
    mailboxes: Vec<Arc<Mailbox>>,
    next: AtomicUsize,
    /// The thread that receives, if that is none of these.
    _receiving: Option<ReceiveThread>,
}

impl Shards {
    /// Starts the threads, one for every two cores; must be called within a tokio runtime. They receive on the media
    /// port unless its receiver has been taken.
    pub(super) fn start(mux: &Arc<Mux>) -> io::Result<Self> {
        let crypto = crypto::provider().map_err(io::Error::other)?;
        let identity = Arc::new(Identity::new(crypto).map_err(io::Error::other)?);
        let count = thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
        let mut mailboxes = Vec::with_capacity(count);
        let mut receiver = mux.take_receiver();
        let receiving = if count > 1 { receiver.take().map(Receiver::spawn).transpose()? } else { None };
        for number in 0..count {
            let mailbox = Arc::new(Mailbox::new()?);
            let shard = Shard::new(Arc::clone(mux), Arc::clone(&mailbox), receiver.take(), Handle::current());
            thread::Builder::new().name(format!("sessions-{number}")).spawn(move || shard.run())?;
            mailboxes.push(mailbox);
        }
        Ok(Self { identity, mailboxes, next: AtomicUsize::new(0), _receiving: receiving })
    }

    /// The certificate of all sessions.
    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The thread for a new session.
    pub(super) fn assign(&self) -> &Arc<Mailbox> {
        &self.mailboxes[self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len()]
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.stop());
    }
}

/// What waits for a thread, and how it is woken.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Arc<Inbox>,
    marked: Mutex<Vec<Key>>,
    new: Mutex<VecDeque<Session>>,
    /// The thread looks at everything before it sleeps again.
    awake: AtomicBool,
    stopped: AtomicBool,
    wake: WakeFd,
}

impl Mailbox {
    fn new() -> io::Result<Self> {
        Ok(Self {
            inbox: Arc::new(Inbox::new(INBOX_MAX)),
            marked: Mutex::default(),
            new: Mutex::default(),
            awake: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            wake: WakeFd::new()?,
        })
    }

    /// Where the thread's datagrams come in.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Hands a session over to the thread.
    pub(super) fn add(&self, session: Session) -> Result<(), PeerError> {
        let mut new = self.new.lock();
        if new.len() == NEW_MAX {
            return Err(PeerError::Busy);
        }
        new.push_back(session);
        drop(new);
        self.notify();
        Ok(())
    }

    /// A session has work; to be called once until the thread has looked.
    pub(super) fn mark(&self, key: Key) {
        self.marked.lock().push(key);
        self.notify();
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.notify();
    }

    fn notify(&self) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            self.wake.wake();
        }
    }

    fn has_work(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
            || !self.inbox.is_empty()
            || !self.marked.lock().is_empty()
            || !self.new.lock().is_empty()
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.notify();
    }
}

/// One thread.
struct Shard {
    mux: Arc<Mux>,
    mailbox: Arc<Mailbox>,
    /// Without sockets if another thread receives.
    receiver: Receiver,
    runtime: Handle,
    sessions: HashMap<Key, Session>,
    due: BTreeSet<(Timestamp, Key)>,
    /// Datagrams of DTLS that wait.
    handshakes: VecDeque<Received>,
    /// Datagrams at hand.
    taken: VecDeque<Received>,
    /// Sessions with received media that waits to be flushed.
    unflushed: Vec<Key>,
    /// Requests to close that are done, except that their datagrams are in the batch.
    closed: Vec<oneshot::Sender<()>>,
    marked: Vec<Key>,
    out: Out,
    batch: Batch,
}

impl Shard {
    fn new(mux: Arc<Mux>, mailbox: Arc<Mailbox>, receiver: Option<Receiver>, runtime: Handle) -> Self {
        Self {
            mux: Arc::clone(&mux),
            mailbox,
            receiver: receiver.unwrap_or_default(),
            runtime,
            sessions: HashMap::new(),
            due: BTreeSet::new(),
            handshakes: VecDeque::new(),
            taken: VecDeque::new(),
            unflushed: Vec::new(),
            closed: Vec::new(),
            marked: Vec::new(),
            out: Vec::new(),
            batch: Batch::new(mux),
        }
    }

    /// Serves until the mailbox is stopped.
    fn run(mut self) {
        let waker = Waker::from(Arc::clone(&self.mailbox));
        loop {
            // Read before the pass, which does the work that was marked before the stop.
            let is_stopped = self.mailbox.stopped.load(Ordering::SeqCst);
            self.mailbox.awake.store(true, Ordering::SeqCst);
            let begun = time::now();
            let is_done = self.pass(&waker);
            if is_stopped {
                break;
            }
            if !is_done {
                self.receiver.expect_more();
                continue;
            }
            self.mailbox.awake.store(false, Ordering::SeqCst);
            if self.mailbox.has_work() {
                self.receiver.expect_more();
            } else {
                self.receiver.wait(&self.mailbox.wake, self.until_due());
            }
            // The next pass comes by itself: other threads need not wake this one.
            self.mailbox.awake.store(true, Ordering::SeqCst);
            let rest = (begun + PASS_INTERVAL).since(time::now());
            let rest = self.until_due().map_or(rest, |due| due.min(rest));
            if !rest.is_zero() {
                thread::park_timeout(rest);
                self.receiver.expect_more();
            }
        }
        // New sessions refer to the mailbox, and it to them.
        self.mailbox.new.lock().clear();
    }

    fn until_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| due.since(time::now()))
    }

    /// Does all kinds of work once; false when there is more.
    fn pass(&mut self, waker: &Waker) -> bool {
        let moment = Moment::present();
        std::mem::swap(&mut self.marked, &mut *self.mailbox.marked.lock());
        let new = std::mem::take(&mut *self.mailbox.new.lock());
        for session in new {
            let key = session.key();
            self.sessions.insert(key, session);
            self.with(key, |session, out| session.tick(moment, out));
        }
        let mut marked = std::mem::take(&mut self.marked);
        for key in marked.drain(..) {
            self.with(key, |session, out| session.work(moment, out));
        }
        self.marked = marked;
        // Each once: what is due again at once waits for the next pass.
        let later = self.due.split_off(&(moment.now + Duration::from_micros(1), 0));
        for (_, key) in std::mem::replace(&mut self.due, later) {
            self.with(key, |session, out| {
                session.due = Timestamp::default();
                session.tick(moment, out);
            });
        }
        self.batch.flush();
        let is_read = self.read(waker);
        for received in self.next_handshakes() {
            let moment = Moment::present();
            let Received { key, from, datagram } = received;
            self.with(key, |session, out| session.datagram(moment, from, datagram, out));
        }
        let mut unflushed = std::mem::take(&mut self.unflushed);
        for key in unflushed.drain(..) {
            self.with(key, |session, _| session.flush_media());
        }
        self.unflushed = unflushed;
        self.batch.flush();
        for reply in self.closed.drain(..) {
            // The requester may have stopped waiting.
            let _ = reply.send(());
        }
        is_read && self.handshakes.is_empty()
    }

    /// Handles datagrams; false when there may be more.
    fn read(&mut self, waker: &Waker) -> bool {
        let has_more = self.receiver.receive();
        let moment = Moment::present();
        let mut taken = std::mem::take(&mut self.taken);
        self.mailbox.inbox.take(&Context::from_waker(waker), READ_MAX, &mut taken);
        let is_drained = !has_more && taken.len() < READ_MAX;
        for received in taken.drain(..) {
            if !stun::is_stun(&received.datagram) && secure::is_dtls(&received.datagram) {
                if self.handshakes.len() < HANDSHAKES_WAITING {
                    self.handshakes.push_back(received);
                } else {
                    self.mux.stats().dropped_inbox.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            let Received { key, from, datagram } = received;
            self.with(key, |session, out| session.datagram(moment, from, datagram, out));
        }
        self.taken = taken;
        is_drained
    }

    fn next_handshakes(&mut self) -> Vec<Received> {
        let count = self.handshakes.len().min(HANDSHAKES_MAX);
        self.handshakes.drain(..count).collect()
    }

    /// Does something with a session, and what follows from it. A panic ends this session only.
    fn with(&mut self, key: Key, act: impl FnOnce(&mut Session, &mut Out)) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let out = &mut self.out;
        let had_media = session.has_unflushed_media();
        let lives = catch_unwind(AssertUnwindSafe(|| {
            act(session, out);
            (session.send_events(&self.runtime), session.deadline())
        }));
        for (to, datagram) in self.out.drain(..) {
            if session.sends(to, &datagram) && !session.send_by_tunnel(to, &datagram) {
                self.batch.push(to, datagram);
            }
        }
        if !had_media && session.has_unflushed_media() {
            self.unflushed.push(key);
        }
        self.closed.extend(session.closed.take());
        match lives {
            Ok((true, due)) if due == session.due => {}
            Ok((true, due)) => {
                self.due.remove(&(session.due, key));
                session.due = due;
                self.due.insert((due, key));
            }
            ended => {
                if ended.is_err() {
                    tracing::error!("a session has ended by a panic");
                    session.send_last(PeerEvent::Lost, &self.runtime);
                }
                self.due.remove(&(session.due, key));
                self.sessions.remove(&key);
            }
        }
    }
}
