//! Receiving on the media port: many datagrams per system call, handed on in batches.
//!
//! Owns: the receive buffers, the memory that datagrams are copied to, waiting for datagrams. Does not know: what
//! datagrams mean. Of a batch, all datagrams for one inbox are pushed together; datagrams that are not STUN are routed
//! by address alone, one look-up for all that came from one sender in one buffer.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::demux::{self, Reason, Verdict};
use super::inbox::{Inbox, Received};
use super::source::PortSocket;
use super::tunnels::Via;
use super::{DATAGRAM_MAX, Key, Mux};
use crate::transport::{secure, stun};

/// Bytes allocated at a time for received datagrams. A datagram that is kept keeps its chunk.
const CHUNK: usize = 32 * 1024;

/// Receives on the sockets of a media port: on the thread that serves the connections, or on a thread of its own. The
/// default has no sockets.
#[derive(Default)]
pub(crate) struct Receiver {
    mux: Weak<Mux>,
    sockets: Vec<ReceivingSocket>,
    batch: Incoming,
}

struct ReceivingSocket {
    port: PortSocket,
    buffers: Vec<Vec<u8>>,
    /// The kernel may have datagrams.
    is_readable: bool,
}

/// Wakes a thread that waits in [`Receiver::wait`].
#[derive(Debug)]
pub(crate) struct WakeFd(OwnedFd);

impl WakeFd {
    /// # Errors
    /// No file descriptors are left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// The next or the current wait ends.
    pub(crate) fn wake(&self) {
        // It fails only when 2^64 - 2 wake-ups are pending.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Receiver {
    pub(super) fn new(mux: Weak<Mux>, ports: impl Iterator<Item = PortSocket>) -> Self {
        let socket = |port: PortSocket| {
            // With receive offload one buffer holds several datagrams of one sender.
            let size = DATAGRAM_MAX * port.state.gro_segments().max(1);
            ReceivingSocket { port, buffers: vec![vec![0; size]; BATCH_SIZE], is_readable: true }
        };
        Self { mux, sockets: ports.map(socket).collect(), batch: Incoming::default() }
    }

    /// Passes the datagrams that the kernel has to their inboxes, with at most one system call per socket. False when
    /// the kernel has no more of them.
    pub(crate) fn receive(&mut self) -> bool {
        let Some(mux) = self.mux.upgrade() else { return false };
        for ReceivingSocket { port, buffers, is_readable } in &mut self.sockets {
            if !*is_readable {
                continue;
            }
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            match port.state.recv(UdpSockRef::from(&*port.socket), &mut slices, &mut metas) {
                Ok(count) => {
                    *is_readable = count == BATCH_SIZE;
                    for (meta, buffer) in metas.iter().zip(buffers.iter()).take(count) {
                        self.batch.add(&mux, meta.addr, meta.dst_ip, &buffer[..meta.len], meta.stride.max(1));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *is_readable = false,
                // The ICMP response to one datagram that was sent; the port goes on.
                Err(_) => {}
            }
        }
        self.batch.flush(&mux);
        self.sockets.iter().any(|socket| socket.is_readable)
    }

    /// The caller has not waited: the kernel may have new datagrams.
    pub(crate) fn expect_more(&mut self) {
        self.sockets.iter_mut().for_each(|socket| socket.is_readable = true);
    }

    /// Waits for datagrams or for `wake`, at most as long as `limit`.
    pub(crate) fn wait(&mut self, wake: &WakeFd, limit: Option<Duration>) {
        let sockets = self.sockets.iter().map(|socket| PollFd::new(&*socket.port.socket, PollFlags::IN));
        let mut waited: Vec<PollFd<'_>> = sockets.chain([PollFd::new(&wake.0, PollFlags::IN)]).collect();
        let limit = limit.map(|limit| Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos().into() });
        if poll(&mut waited, limit.as_ref()).is_err() {
            // A signal: the caller looks at everything and waits again.
            return self.expect_more();
        }
        let ready: Vec<bool> = waited.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (socket, ready) in self.sockets.iter_mut().zip(&ready) {
            socket.is_readable = *ready;
        }
        if ready.last() == Some(&true) {
            wake.clear();
        }
    }

    /// Receives on a thread of its own, which ends with the result.
    ///
    /// # Errors
    /// The thread cannot be started, or no file descriptors are left.
    pub(crate) fn spawn(mut self) -> io::Result<ReceiveThread> {
        let stop = Arc::new((AtomicBool::new(false), WakeFd::new()?));
        let thread = ReceiveThread(Arc::clone(&stop));
        let run = move || {
            while !stop.0.load(Ordering::SeqCst) {
                if !self.receive() {
                    self.wait(&stop.1, None);
                }
            }
        };
        thread::Builder::new().name("media-port".into()).spawn(run)?;
        Ok(thread)
    }
}

/// A thread that receives. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct ReceiveThread(Arc<(AtomicBool, WakeFd)>);

impl Drop for ReceiveThread {
    fn drop(&mut self) {
        let (stopped, wake) = &*self.0;
        stopped.store(true, Ordering::SeqCst);
        wake.wake();
    }
}

/// Received datagrams on their way to the inboxes.
#[derive(Default)]
pub(super) struct Incoming {
    chunk: BytesMut,
    /// The datagrams of each inbox.
    groups: Vec<(Arc<Inbox>, Vec<Received>)>,
    /// Empty groups, which keep their memory.
    spare: Vec<Vec<Received>>,
    received: u64,
    bytes: u64,
    unvalidated: u64,
    dropped: u64,
}

impl Incoming {
    /// Adds the datagrams of one sender, each of `stride` bytes but the last, which arrived at our address `local`.
    pub(super) fn add(&mut self, mux: &Mux, from: SocketAddr, local: Option<IpAddr>, buffer: &[u8], stride: usize) {
        let mut verdict = None;
        for datagram in buffer.chunks(stride) {
            self.received += 1;
            self.bytes += datagram.len() as u64;
            if stun::is_stun(datagram) {
                // It may change the owner of the address.
                verdict = None;
                if let Some((inbox, key)) = mux.receive_stun(Via::Udp, from, local, datagram) {
                    self.deliver(&inbox, key, from, datagram);
                }
                continue;
            }
            match verdict.get_or_insert_with(|| demux::by_address(&mux.addresses, Via::Udp, from)) {
                Verdict::Deliver(inbox, key) => self.deliver(inbox, *key, from, datagram),
                Verdict::Drop(Reason::NoInbox) => self.dropped += 1,
                _ => self.unvalidated += 1,
            }
        }
    }

    fn deliver(&mut self, inbox: &Arc<Inbox>, key: Key, from: SocketAddr, datagram: &[u8]) {
        let datagram = if secure::is_dtls(datagram) {
            // It may wait for long, until its handshake continues.
            BytesMut::from(datagram)
        } else {
            if self.chunk.capacity() < datagram.len() {
                // Reuses the old chunk if no datagram of it is left.
                self.chunk.reserve(CHUNK);
            }
            self.chunk.extend_from_slice(datagram);
            self.chunk.split()
        };
        let received = Received { key, from, datagram };
        match self.groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, inbox)) {
            Some((_, group)) => group.push(received),
            None => {
                let mut group = self.spare.pop().unwrap_or_default();
                group.push(received);
                self.groups.push((Arc::clone(inbox), group));
            }
        }
    }

    /// Pushes what was added to the inboxes, and counts it.
    pub(super) fn flush(&mut self, mux: &Mux) {
        for (inbox, mut group) in self.groups.drain(..) {
            self.dropped += inbox.push(&mut group) as u64;
            self.spare.push(group);
        }
        let count = |counter: &AtomicU64, value: &mut u64| {
            if *value > 0 {
                counter.fetch_add(std::mem::take(value), Ordering::Relaxed);
            }
        };
        count(&mux.stats.received, &mut self.received);
        count(&mux.stats.received_bytes, &mut self.bytes);
        count(&mux.stats.dropped_unvalidated, &mut self.unvalidated);
        count(&mux.stats.dropped_inbox, &mut self.dropped);
    }
}
