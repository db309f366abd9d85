//! The receive task of one socket: many datagrams per system call, handed on in batches.
//!
//! Owns: the receive buffers, and the memory that datagrams are copied to. Does not know: what datagrams mean. Of a
//! batch, all datagrams for one inbox are pushed together; datagrams that are not STUN are routed by address alone, one
//! look-up for all that came from one sender in one buffer.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};
use tokio::io::Interest;

use super::demux::{self, Reason, Verdict};
use super::inbox::{Inbox, Received};
use super::source::PortSocket;
use super::tunnels::Via;
use super::{DATAGRAM_MAX, Key, Mux};
use crate::transport::{secure, stun};

/// Bytes allocated at a time for received datagrams. A datagram that is kept keeps its chunk.
const CHUNK: usize = 32 * 1024;

/// Receives on one socket.
pub(super) struct Reader {
    pub(super) mux: Weak<Mux>,
    pub(super) port: PortSocket,
}

impl Reader {
    pub(super) async fn run(self) {
        let PortSocket { socket, state, .. } = &self.port;
        // With receive offload one buffer holds several datagrams of one sender.
        let size = DATAGRAM_MAX * state.gro_segments().max(1);
        let mut buffers = vec![vec![0; size]; BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut batch = Incoming::default();
        loop {
            let received = {
                let mut slices: Vec<IoSliceMut<'_>> =
                    buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
                let receive = || state.recv(UdpSockRef::from(&**socket), &mut slices, &mut metas);
                socket.async_io(Interest::READABLE, receive).await
            };
            let Some(mux) = self.mux.upgrade() else { return };
            // An error of the socket is the ICMP response to one datagram that was sent; the port goes on.
            for (meta, buffer) in metas.iter().zip(&buffers).take(received.unwrap_or(0)) {
                batch.add(&mux, meta.addr, meta.dst_ip, &buffer[..meta.len], meta.stride.max(1));
            }
            batch.flush(&mux);
        }
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
