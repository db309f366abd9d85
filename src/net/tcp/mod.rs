//! ICE over TCP on the number of the media port, for clients that UDP does not reach (RFC 6544, passive).
//!
//! Owns: the listeners, the connection limits and the framing (RFC 4571). Does not know: ICE, peers. Each TCP
//! connection is a [`Tunnel`] of the [`Mux`]. Its first datagram must be a signed check for a session. A connection is
//! closed when no datagram for a session arrives for a while, and when its session has ended. A slow connection drops
//! its own packets (`outbox`).

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
use super::connection_limits::{ConnectionLimiter, Limits, Permit};
use super::listener::{self, listen};
use super::udp::{DATAGRAM_MAX, Mux, Tunnel};
use crate::metrics::{Counter, Gauge, Registry};
use crate::time;
use crate::transport::framing;

/// Attempts to find a port number that is free for UDP and for TCP.
const PORT_TRIES: usize = 16;
/// Time until the first check must have arrived.
const FIRST: Duration = Duration::from_secs(5);
/// A connection is closed after this time without a datagram for a session; consent checks are more frequent.
const IDLE: Duration = Duration::from_secs(30);
/// Time from the end of the session to the end of its connection, so that datagrams in flight (BYE, close_notify)
/// arrive.
const GRACE: Duration = Duration::from_secs(1);
/// Connection limits. One address may be the NAT of a company.
const LIMITS: Limits = Limits { per_address: 256, pending: 512, total: 4_096 };
/// Bytes written at a time.
const CHUNK: usize = 16 * 1024;
/// Bytes that the kernel keeps unsent; they can neither be overtaken nor dropped.
pub(crate) const KERNEL_UNSENT: u32 = 16 * 1024;

/// Counters of ICE over TCP.
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
        registry.register("tcp_connections", "ICE-over-TCP connections that are open", self.open.clone());
        registry.register("tcp_accepted", "ICE-over-TCP connections accepted", self.accepted.clone());
        registry.register(
            "tcp_refused",
            "ICE-over-TCP connections refused because of the connection limits",
            self.refused.clone(),
        );
        let help = "ICE-over-TCP connections closed because of a bad first check or malformed framing";
        registry.register("tcp_strange", help, self.strange.clone());
        registry.register("tcp_silent", "ICE-over-TCP connections closed because of inactivity", self.silent.clone());
    }
}

/// Binds the media port, for UDP and, on the same number, for TCP; must be called within a tokio runtime. See
/// [`Mux::bind`].
///
/// # Errors
/// When the address cannot be bound for both.
pub fn bind(address: SocketAddr, public: Vec<IpAddr>, counters: &TcpCounters) -> io::Result<Arc<Mux>> {
    for _ in 0..PORT_TRIES {
        let mux = Mux::bind(address, public.clone())?;
        let listeners: io::Result<Vec<_>> = mux.local_addrs().into_iter().map(listen).collect();
        match listeners {
            // The number is in use for TCP: if any number will do, another is tried.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {}
            Err(error) => {
                let text = format!("for TCP: {error}; set media.tcp = false to disable ICE over TCP");
                return Err(io::Error::new(error.kind(), text));
            }
            Ok(listeners) => {
                serve(&mux, listeners, counters);
                return Ok(mux);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port number is free for both UDP and TCP"))
}

fn serve(mux: &Arc<Mux>, listeners: Vec<TcpListener>, counters: &TcpCounters) {
    let limiter = ConnectionLimiter::new(LIMITS, counters.open.clone(), counters.refused.clone());
    for listener in listeners {
        let accepting = accept(Arc::downgrade(mux), listener, Arc::clone(&limiter), counters.clone());
        mux.serve_tcp(tokio::spawn(accepting).abort_handle());
    }
}

/// Accepts connections until the media port is dropped. The connections end with this task.
async fn accept(mux: Weak<Mux>, listener: TcpListener, limiter: Arc<ConnectionLimiter>, counters: TcpCounters) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, remote) = listener::accept(&listener).await;
        while connections.try_join_next().is_some() {}
        let Some(mux) = mux.upgrade() else { return };
        if let Some(permit) = limiter.take(remote.ip()) {
            counters.accepted.inc();
            connections.spawn(connection(mux, stream, remote, permit, counters.clone()));
        }
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Closed by the remote side, or broken.
    Closed,
    /// The first datagram was no signed check for a session, or the framing is malformed.
    Strange,
    /// Inactivity.
    Silent,
    /// The session has ended.
    Over,
}

async fn connection(mux: Arc<Mux>, stream: TcpStream, remote: SocketAddr, mut permit: Permit, counters: TcpCounters) {
    // Optional: they only reduce latency.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(KERNEL_UNSENT);
    let outbox = Arc::new(Outbox::default());
    let queue = Arc::clone(&outbox);
    let tunnel = mux.open_tunnel(remote, move |datagram| queue.push(time::now(), datagram, || framed(datagram)));
    drop(mux);
    let (read, write) = stream.into_split();
    let end = tokio::select! {
        end = receive(read, &tunnel, &mut permit) => end,
        end = send(write, &outbox) => end,
        () = over(&tunnel) => End::Over,
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

/// Waits until the session of the tunnel has ended and no other session uses the tunnel.
async fn over(tunnel: &Tunnel) {
    loop {
        tunnel.left().await;
        sleep(GRACE).await;
        if !tunnel.leads() {
            return;
        }
    }
}

async fn receive(mut read: OwnedReadHalf, tunnel: &Tunnel, permit: &mut Permit) -> End {
    let mut stream = BytesMut::new();
    let (mut since, mut limit) = (time::now(), FIRST);
    loop {
        match framing::take(&mut stream, DATAGRAM_MAX) {
            Ok(Some(datagram)) => {
                if tunnel.received(&datagram) {
                    permit.settle();
                    (since, limit) = (time::now(), IDLE);
                } else if permit.is_pending() {
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

/// A datagram as a frame.
fn framed(datagram: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    framing::put(datagram, &mut frame);
    frame
}
