//! What a peer connection of `webrtc` believes to be its own socket: a virtual one on the shared port.
//!
//! Owns: [`MuxRuntime`], the runtime of one connection, and [`Inside`], what lies between its virtual socket and the
//! [`Mux`]. Does not know: SDP, peers. The connection's driver asks for a socket on loopback; that socket is closed at once
//! (its address goes on naming the local candidate) and the driver gets one that sends and receives on the shared port.
//! ICE is dealt with on the way ([`Front`]).

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Sleep;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, TokioRuntime,
    Transmit,
};

use super::front::{Front, Heard, INSIDE, Out, Presence};
use super::inbox::{Inbox, Received};
use super::ways::Routes;
use super::{Fate, Key, Mux};
use crate::time::{self, Timestamp};
use crate::transport::ice::{Credentials, Role};
use crate::transport::stun;

/// First byte of a DTLS alert record (RFC 6347 section 4.1).
const DTLS_ALERT: u8 = 21;

/// Where a connection of `webrtc` meets the port.
pub(super) struct Inside {
    pub(super) mux: Arc<Mux>,
    pub(super) key: Key,
    pub(super) routes: Arc<Routes>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) front: Mutex<Front>,
    pub(super) fate: watch::Sender<Fate>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inside({})", self.key)
    }
}

impl Inside {
    /// See [`Front::begin`].
    pub(super) fn begin(&self, role: Role, local: Credentials, remote: Credentials, candidates: Vec<SocketAddr>) {
        self.front.lock().begin(role, local, remote, candidates, time::now());
        self.inbox.wake();
    }

    /// See [`Front::add_candidate`].
    pub(super) fn add_candidate(&self, to: SocketAddr) {
        self.front.lock().add_candidate(to, time::now());
        self.inbox.wake();
    }

    /// Sends what the front has to say.
    fn send(&self, out: Out) {
        for (to, datagram) in out {
            if stun::is_stun(&datagram) {
                self.mux.table.lock().sent_check(self.key, to, &datagram);
            }
            self.mux.send(&self.routes, to, &datagram);
        }
    }

    /// Does what is due, and says how the other side is.
    fn tick(&self, now: Timestamp) {
        let mut out = Out::new();
        let presence = {
            let mut front = self.front.lock();
            front.tick(now, &mut out);
            front.presence(now)
        };
        self.send(out);
        self.fate.send_if_modified(|fate| {
            let next = match presence {
                Presence::Here => Fate::Alive,
                Presence::Silent => Fate::Silent,
                Presence::Gone => Fate::Expired,
            };
            // What has ended stays so.
            let changes = *fate <= Fate::Silent && *fate != next;
            if changes {
                *fate = next;
            }
            changes
        });
    }

    fn ends(&self, fate: Fate) {
        self.fate.send_if_modified(|known| std::mem::replace(known, (*known).max(fate)) != *known);
    }
}

/// The runtime of one connection.
pub(super) struct MuxRuntime(pub(super) Arc<Inside>);

impl std::fmt::Debug for MuxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MuxRuntime({})", self.0.key)
    }
}

/// Tells that the driver ended, also when it is aborted or panics.
struct Ended(Arc<Inside>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ends(Fate::Ended);
    }
}

impl Runtime for MuxRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        // The driver is the only task a connection without TCP candidates spawns.
        let ended = Ended(Arc::clone(&self.0));
        TokioRuntime.spawn(Box::pin(async move {
            let _ended = ended;
            future.await;
        }))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let timer = Mutex::new(Box::pin(tokio::time::sleep(Duration::ZERO)));
        Ok(Arc::new(VirtualSocket { inside: Arc::clone(&self.0), local: socket.local_addr()?, timer }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        _address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        // A passive TCP candidate in an offer would make us connect wherever it says.
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }

    fn resolve_host<'a>(
        &'a self,
        _host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        // Nothing we configure has a name, and names from an offer are not looked up.
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn name(&self) -> &'static str {
        "mux"
    }
}

struct VirtualSocket {
    inside: Arc<Inside>,
    local: SocketAddr,
    /// Until ICE next has something to do.
    timer: Mutex<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for VirtualSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtualSocket({}, {})", self.inside.key, self.local)
    }
}

impl VirtualSocket {
    /// Takes everything that has come until there is a datagram for `webrtc`, which is written into `buf`.
    fn next(&self, cx: &Context<'_>, buf: &mut [u8]) -> Option<usize> {
        let inside = &*self.inside;
        let mut write = |datagram: &[u8]| {
            let length = datagram.len().min(buf.len());
            buf[..length].copy_from_slice(&datagram[..length]);
            length
        };
        loop {
            if let Some(datagram) = inside.front.lock().inward() {
                return Some(write(&datagram));
            }
            let Poll::Ready(Received { from, datagram, .. }) = inside.inbox.poll(cx) else {
                // Whatever comes from now on wakes us; what came just now has not.
                return inside.front.lock().inward().map(|datagram| write(&datagram));
            };
            let mut out = Out::new();
            let heard = inside.front.lock().heard(time::now(), from, &datagram, &mut out);
            inside.send(out);
            match heard {
                Heard::Taken => {}
                Heard::Inward(datagram) => return Some(write(datagram)),
                Heard::Dropped => {
                    inside.mux.stats.dropped_inbox.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// Never waits and never fails: what the shared socket does not take now is lost, as on any network, and counted.
    fn poll_send(&self, _cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let inside = &*self.inside;
        if transmit.contents.first() == Some(&DTLS_ALERT) {
            inside.ends(Fate::Alerted);
        }
        let to = inside.front.lock().says(time::now(), transmit.contents);
        if let Some(to) = to {
            inside.mux.send(&inside.routes, to, transmit.contents);
        } else if stun::is_stun(transmit.contents) {
            // The answer waits already.
            inside.inbox.wake();
        }
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        loop {
            if let Some(length) = self.next(cx, buf) {
                *meta = RecvMeta::default();
                (meta.addr, meta.len, meta.stride) = (INSIDE, length, length.max(1));
                return Poll::Ready(Ok(1));
            }
            let mut timer = self.timer.lock();
            let due = self.inside.front.lock().deadline();
            let now = time::now();
            if due > now {
                let wait = due.since(now);
                timer.as_mut().reset(tokio::time::Instant::now() + wait);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            drop(timer);
            self.inside.tick(time::now());
        }
    }
}
