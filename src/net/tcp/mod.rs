//! ICE over TCP: the number of the media port, for those whom UDP does not reach (RFC 6544, passive).
//!
//! Owns: the listeners, how many connections there may be, and the frames on them (RFC 4571). Does not know: ICE, peers.
//! Each connection is a [`Way`] of the [`Mux`]: whose it is, its first datagram says, which must be a check that a connection
//! recognises. One that brings nothing to a connection for a while is closed, and so is one whose session is over; a slow one
//! drops its own packets (`outbox`).

mod outbox;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub(crate) use self::outbox::Outbox;
use super::connection_limits::{Limits, Place, Places};
use super::listener::{self, listen};
use super::udp::{DATAGRAM_MAX, Mux, Way};
use crate::metrics::{Counter, Gauge, Registry};
use crate::time;
use crate::transport::framing;

/// How often a number is looked for that is free for UDP and for TCP.
const PORT_TRIES: usize = 16;
/// A connection whose first check has not come by then is closed.
const FIRST: Duration = Duration::from_secs(5);
/// A connection that brings nothing to anybody for so long is closed; ICE asks for consent more often.
const IDLE: Duration = Duration::from_secs(30);
/// How long a connection may stay whose session is over: what is on its way, a goodbye, still arrives.
const GRACE: Duration = Duration::from_secs(1);
/// The most connections, in all and until somebody is recognised on them. One address may be a company's.
const LIMITS: Limits = Limits { per_address: 256, pending: 512, total: 4_096 };
/// Bytes written at a time.
const CHUNK: usize = 16 * 1024;
/// Bytes that the kernel keeps unsent: what it has, nothing can overtake or take back.
pub(crate) const KERNEL_UNSENT: u32 = 16 * 1024;

/// What has become of TCP connections.
#[derive(Debug, Clone, Default)]
pub struct TcpCounters {
    open: Gauge,
    accepted: Counter,
    refused: Counter,
    strange: Counter,
    silent: Counter,
}

impl TcpCounters {
    /// Adds the counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tcp_connections", "Connections of ICE over TCP that are open", self.open.clone());
        registry.register("tcp_accepted", "Connections of ICE over TCP accepted", self.accepted.clone());
        registry.register("tcp_refused", "Connections of ICE over TCP closed at once: too many", self.refused.clone());
        let help = "Connections of ICE over TCP closed because they did not begin with a check of somebody here, or broke the framing";
        registry.register("tcp_strange", help, self.strange.clone());
        registry.register("tcp_silent", "Connections of ICE over TCP closed because nothing came", self.silent.clone());
    }
}

/// Binds the media port, for UDP and, on the same number, for TCP; must be called within a tokio runtime. See [`Mux::bind`].
///
/// # Errors
/// When the address cannot be bound for both.
pub fn bind(address: SocketAddr, public: Vec<IpAddr>, counters: &TcpCounters) -> io::Result<Arc<Mux>> {
    for _ in 0..PORT_TRIES {
        let mux = Mux::bind(address, public.clone())?;
        let listeners: io::Result<Vec<_>> = mux.local_addrs().into_iter().map(listen).collect();
        match listeners {
            // Somebody has this number for TCP: with a free choice, choose another.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {}
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("for TCP: {error} (media.tcp = false does without)")));
            }
            Ok(listeners) => {
                serve(&mux, listeners, counters);
                return Ok(mux);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no number is free for UDP and TCP"))
}

fn serve(mux: &Arc<Mux>, listeners: Vec<TcpListener>, counters: &TcpCounters) {
    let places = Places::new(LIMITS, counters.open.clone(), counters.refused.clone());
    for listener in listeners {
        let accepting = accept(Arc::downgrade(mux), listener, Arc::clone(&places), counters.clone());
        mux.serve_tcp(tokio::spawn(accepting).abort_handle());
    }
}

/// Accepts until the port is gone. The connections end with this task.
async fn accept(mux: Weak<Mux>, listener: TcpListener, places: Arc<Places>, counters: TcpCounters) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, remote) = listener::accept(&listener).await;
        while connections.try_join_next().is_some() {}
        let Some(mux) = mux.upgrade() else { return };
        if let Some(place) = places.take(remote.ip()) {
            counters.accepted.inc();
            connections.spawn(connection(mux, stream, remote, place, counters.clone()));
        }
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The other side has closed it, or it broke.
    Closed,
    /// It is none of anybody's here.
    Strange,
    /// Nothing came.
    Silent,
    /// Whose it was is gone.
    Over,
}

async fn connection(mux: Arc<Mux>, stream: TcpStream, remote: SocketAddr, mut place: Place, counters: TcpCounters) {
    // Without them it works as well, only later.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(KERNEL_UNSENT);
    let outbox = Arc::new(Outbox::default());
    let queue = Arc::clone(&outbox);
    let way = mux.open_way(remote, move |datagram| queue.push(time::now(), datagram, || framed(datagram)));
    drop(mux);
    let (read, write) = stream.into_split();
    let end = tokio::select! {
        end = receive(read, &way, &mut place) => end,
        end = send(write, &outbox) => end,
        () = over(&way) => End::Over,
    };
    match end {
        End::Closed | End::Over => {}
        End::Strange => {
            counters.strange.inc();
        }
        End::Silent => {
            counters.silent.inc();
        }
    }
}

/// Waits until the session is over that the way led to, and no other has begun by it.
async fn over(way: &Way) {
    loop {
        way.left().await;
        sleep(GRACE).await;
        if !way.leads() {
            return;
        }
    }
}

async fn receive(mut read: OwnedReadHalf, way: &Way, place: &mut Place) -> End {
    let mut stream = BytesMut::new();
    let (mut since, mut limit) = (time::now(), FIRST);
    loop {
        match framing::take(&mut stream, DATAGRAM_MAX) {
            Ok(Some(datagram)) => {
                if way.received(&datagram) {
                    place.settle();
                    (since, limit) = (time::now(), IDLE);
                } else if place.is_pending() {
                    return End::Strange;
                }
                continue;
            }
            Ok(None) => {}
            Err(framing::TooLong) => return End::Strange,
        }
        let left = limit.saturating_sub(time::now().since(since));
        stream.reserve(DATAGRAM_MAX);
        match timeout(left, read.read_buf(&mut stream)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return End::Closed,
            Err(_) => return End::Silent,
        }
    }
}

async fn send(mut write: OwnedWriteHalf, outbox: &Outbox) -> End {
    let mut stream = BytesMut::new();
    loop {
        outbox.fill(&mut stream, CHUNK);
        if stream.is_empty() {
            outbox.filled().await;
        } else if write.write_all_buf(&mut stream).await.is_err() {
            return End::Closed;
        }
    }
}

/// A datagram as it stands in the stream.
fn framed(datagram: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    framing::put(datagram, &mut frame);
    frame
}
