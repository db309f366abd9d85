//! Sending many datagrams at once.
//!
//! Owns: what is about to leave, in order. Does not know: whose it is. One system call takes a whole batch; what the kernel
//! does not take at once is waited for, since a burst to a thousand receivers must not be lost in a socket's buffer. For
//! threads that may wait, not for tasks.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use super::Mux;

/// Datagrams of one system call.
const BATCH: usize = 64;
/// How long the kernel may take to have room again; then the network is stuck, and what is late is of no use.
const PATIENCE: Duration = Duration::from_millis(100);

/// Datagrams that leave together.
pub(crate) struct Batch {
    mux: Arc<Mux>,
    v4: Vec<(SocketAddrAny, BytesMut)>,
    v6: Vec<(SocketAddrAny, BytesMut)>,
}

impl Batch {
    pub(crate) fn new(mux: Arc<Mux>) -> Self {
        Self { mux, v4: Vec::with_capacity(BATCH), v6: Vec::new() }
    }

    /// Adds a datagram; sends what has gathered when that is enough.
    pub(crate) fn push(&mut self, to: SocketAddr, datagram: BytesMut) {
        let gathered = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        gathered.push((to.as_any(), datagram));
        if gathered.len() == BATCH {
            self.flush();
        }
    }

    /// Sends everything that has gathered.
    pub(crate) fn flush(&mut self) {
        for (gathered, port) in [(&mut self.v4, &self.mux.v4), (&mut self.v6, &self.mux.v6)] {
            if gathered.is_empty() {
                continue;
            }
            let (sent, bytes) = port.as_ref().map_or((0, 0), |port| send(&port.socket, gathered));
            let stats = &self.mux.stats;
            stats.sent.fetch_add(sent as u64, Ordering::Relaxed);
            stats.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            stats.send_dropped.fetch_add((gathered.len() - sent) as u64, Ordering::Relaxed);
            gathered.clear();
        }
    }
}

/// Sends all of them; gives how many the kernel took, and their bytes.
fn send(socket: &impl AsFd, datagrams: &[(SocketAddrAny, BytesMut)]) -> (usize, usize) {
    let slices: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|(_, datagram)| [IoSlice::new(datagram)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = datagrams
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|(((to, _), slices), control)| MMsgHdr::new_with_addr(to, slices, control))
        .collect();
    let (mut taken, mut bytes, mut at) = (0, 0, 0);
    while at < messages.len() {
        match sendmmsg(socket, &mut messages[at..], SendFlags::DONTWAIT) {
            Ok(sent) => {
                bytes += messages[at..at + sent].iter().map(MMsgHdr::bytes_sent).sum::<usize>();
                (taken, at) = (taken + sent, at + sent);
            }
            Err(error) if error == rustix::io::Errno::INTR => {}
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
                if !has_room_soon(socket) {
                    break;
                }
            }
            // This one cannot be sent: its address is out of reach.
            Err(_) => at += 1,
        }
    }
    (taken, bytes)
}

/// Waits until the kernel takes datagrams again; false when that takes too long.
fn has_room_soon(socket: &impl AsFd) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: PATIENCE.as_nanos() as _ };
    let mut wanted = [PollFd::new(socket, PollFlags::OUT)];
    match poll(&mut wanted, Some(&limit)) {
        Ok(ready) => ready > 0,
        Err(error) => error == rustix::io::Errno::INTR,
    }
}
