//! Sending many datagrams with few system calls.
//!
//! Owns: the datagrams that are about to be sent, in order. Does not know: connections. One system call (`sendmmsg`)
//! takes a whole batch. Datagrams of equal size in a row to one address, as a video frame is cut, leave as segments of
//! one message (UDP GSO), which passes the kernel's network stack once. If the kernel's buffer is full, the batch waits
//! for room, because a burst to a thousand receivers must not be lost in a socket's buffer: for threads that may block,
//! not for tasks.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use quinn_udp::{Transmit, UdpSockRef};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use super::Mux;
use super::source::PortSocket;

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Segments from which one message is cheaper than datagrams of their own (docs/performance-log.md).
const SEGMENTS_MIN: usize = 2;
/// Bytes of all segments of a message: the kernel's limit is a UDP datagram's.
const SEGMENTED_MAX: usize = 60_000;
/// Time to wait for room in the kernel's buffer. After that the network is stuck and the datagrams are too late to be
/// useful.
const ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// A datagram and its destination.
type Outgoing = (SocketAddr, BytesMut);

/// Datagrams that are sent together.
pub(crate) struct Batch {
    mux: Arc<Mux>,
    v4: Vec<Outgoing>,
    v6: Vec<Outgoing>,
    /// The segments of one message, one after the other.
    segments: Vec<u8>,
}

impl Batch {
    pub(crate) fn new(mux: Arc<Mux>) -> Self {
        Self { mux, v4: Vec::with_capacity(BATCH), v6: Vec::new(), segments: Vec::new() }
    }

    /// Adds a datagram; sends the batch when it is full.
    pub(crate) fn push(&mut self, to: SocketAddr, datagram: BytesMut) {
        let gathered = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        gathered.push((to, datagram));
        if gathered.len() == BATCH {
            self.flush();
        }
    }

    /// Sends all datagrams that were added.
    pub(crate) fn flush(&mut self) {
        for (gathered, port) in [(&mut self.v4, &self.mux.v4), (&mut self.v6, &self.mux.v6)] {
            if gathered.is_empty() {
                continue;
            }
            let sent = port.as_ref().map_or_else(Sent::default, |port| send(port, gathered, &mut self.segments));
            let stats = &self.mux.stats;
            stats.sent.fetch_add(sent.datagrams as u64, Ordering::Relaxed);
            stats.sent_bytes.fetch_add(sent.bytes as u64, Ordering::Relaxed);
            stats.send_dropped.fetch_add((gathered.len() - sent.datagrams) as u64, Ordering::Relaxed);
            gathered.clear();
        }
    }
}

/// What the kernel has accepted.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    datagrams: usize,
    bytes: usize,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
    }
}

/// Sends all datagrams, in order.
fn send(port: &PortSocket, datagrams: &[Outgoing], segments: &mut Vec<u8>) -> Sent {
    let (mut sent, mut at, mut pending) = (Sent::default(), 0, 0);
    while at < datagrams.len() {
        let run = run_length(&datagrams[at..], port.state.max_gso_segments());
        if run < SEGMENTS_MIN {
            at += 1;
            continue;
        }
        sent.add(send_each(&port.socket, &datagrams[pending..at]));
        sent.add(send_segments(port, &datagrams[at..at + run], segments));
        at += run;
        pending = at;
    }
    sent.add(send_each(&port.socket, &datagrams[pending..]));
    sent
}

/// How many datagrams from the first on can be segments of one message: all to one address, all of the first one's size
/// but the last, which may be smaller.
fn run_length(datagrams: &[Outgoing], segments_max: usize) -> usize {
    let Some((to, first)) = datagrams.first() else { return 0 };
    let max = segments_max.min(SEGMENTED_MAX / first.len().max(1));
    let mut run = 1;
    for (other, datagram) in datagrams.iter().take(max).skip(1) {
        if other != to || datagram.is_empty() || datagram.len() > first.len() {
            break;
        }
        run += 1;
        if datagram.len() < first.len() {
            break;
        }
    }
    run
}

/// Sends a run of datagrams as segments of one message.
fn send_segments(port: &PortSocket, run: &[Outgoing], segments: &mut Vec<u8>) -> Sent {
    segments.clear();
    run.iter().for_each(|(_, datagram)| segments.extend_from_slice(datagram));
    let transmit = Transmit {
        destination: run[0].0,
        ecn: None,
        contents: segments,
        segment_size: Some(run[0].1.len()),
        src_ip: None,
    };
    loop {
        match port.state.try_send(UdpSockRef::from(&*port.socket), &transmit) {
            Ok(()) => return Sent { datagrams: run.len(), bytes: segments.len() },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !has_room_soon(&port.socket) {
                    return Sent::default();
                }
            }
            // The route does not support segmentation, or the address is out of reach.
            Err(_) => return send_each(&port.socket, run),
        }
    }
}

/// Sends each datagram by itself, with as few system calls as possible.
fn send_each(socket: &impl AsFd, datagrams: &[Outgoing]) -> Sent {
    let mut sent = Sent::default();
    if datagrams.is_empty() {
        return sent;
    }
    let addresses: Vec<SocketAddrAny> = datagrams.iter().map(|(to, _)| to.as_any()).collect();
    let slices: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|(_, datagram)| [IoSlice::new(datagram)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = addresses
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((to, slices), control)| MMsgHdr::new_with_addr(to, slices, control))
        .collect();
    let mut at = 0;
    while at < messages.len() {
        match sendmmsg(socket, &mut messages[at..], SendFlags::DONTWAIT) {
            Ok(count) => {
                sent.bytes += messages[at..at + count].iter().map(MMsgHdr::bytes_sent).sum::<usize>();
                (sent.datagrams, at) = (sent.datagrams + count, at + count);
            }
            Err(error) if error == rustix::io::Errno::INTR => {}
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
                if !has_room_soon(socket) {
                    break;
                }
            }
            // This datagram cannot be sent: its address is out of reach.
            Err(_) => at += 1,
        }
    }
    sent
}

/// Waits until the kernel accepts datagrams again; false after [`ROOM_TIMEOUT`].
fn has_room_soon(socket: &impl AsFd) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: ROOM_TIMEOUT.as_nanos() as _ };
    let mut wanted = [PollFd::new(socket, PollFlags::OUT)];
    match poll(&mut wanted, Some(&limit)) {
        Ok(ready) => ready > 0,
        Err(error) => error == rustix::io::Errno::INTR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(list: &[(u16, usize)]) -> Vec<Outgoing> {
        let datagram =
            |(port, length): &(u16, usize)| (SocketAddr::from(([127, 0, 0, 1], *port)), BytesMut::zeroed(*length));
        list.iter().map(datagram).collect()
    }

    #[test]
    fn a_run_has_one_destination_and_one_size_but_for_a_smaller_last() {
        for (list, expected) in [
            (&[(1, 9), (1, 9), (1, 9), (1, 5), (1, 5)][..], 4),
            (&[(1, 9), (1, 9), (2, 9)], 2),
            (&[(1, 9), (1, 10), (1, 9)], 1),
            (&[(1, 9), (1, 0), (1, 9)], 1),
            (&[(1, 9)], 1),
            (&[], 0),
        ] {
            assert_eq!(run_length(&datagrams(list), 64), expected, "{list:?}");
        }
        assert_eq!(run_length(&datagrams(&[(1, 9); 10]), 4), 4, "the kernel's limit");
        assert_eq!(run_length(&datagrams(&[(1, 9); 10]), 1), 1, "no segmentation");
        assert_eq!(run_length(&datagrams(&[(1, 20_000); 10]), 64), 3, "the bytes of a datagram");
    }
}
