//! What a peer connection believes to be its own sockets: virtual ones on the shared port.
//!
//! Owns: [`MuxRuntime`], the runtime of one connection, whose UDP sockets are views of the [`Mux`]. Does not know: SDP,
//! peers. The connection's driver asks it for a socket on loopback; that socket is closed at once (its address goes on
//! naming the local candidate inside ICE) and the driver gets one that sends and receives on the shared port.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, TokioRuntime,
    Transmit,
};

use super::inbox::{Inbox, Received};
use super::{Fate, Key, Mux};
use crate::time;
use crate::transport::flight::Flight;
use crate::transport::{secure, stun};

/// First byte of a DTLS alert record (RFC 6347 section 4.1).
const DTLS_ALERT: u8 = 21;

/// The runtime of one connection.
pub(super) struct MuxRuntime {
    pub(super) mux: Arc<Mux>,
    pub(super) key: Key,
    pub(super) fate: watch::Sender<Fate>,
}

impl std::fmt::Debug for MuxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MuxRuntime({})", self.key)
    }
}

/// Tells that the driver ended, also when it is aborted or panics.
struct Ended(watch::Sender<Fate>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_replace(Fate::Ended);
    }
}

impl Runtime for MuxRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        // The driver is the only task a connection without TCP candidates spawns.
        let ended = Ended(self.fate.clone());
        TokioRuntime.spawn(Box::pin(async move {
            let _ended = ended;
            future.await;
        }))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let local = socket.local_addr()?;
        let inbox = Arc::new(Inbox::default());
        self.mux.table.lock().set_inbox(self.key, local.is_ipv4(), Some(Arc::clone(&inbox)));
        let fate = self.fate.clone();
        let flight = Mutex::default();
        Ok(Arc::new(VirtualSocket { mux: Arc::clone(&self.mux), key: self.key, local, inbox, fate, flight }))
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
    mux: Arc<Mux>,
    key: Key,
    local: SocketAddr,
    inbox: Arc<Inbox>,
    fate: watch::Sender<Fate>,
    flight: Mutex<Flight>,
}

impl std::fmt::Debug for VirtualSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtualSocket({}, {})", self.key, self.local)
    }
}

impl VirtualSocket {
    /// Whoever repeats itself has not heard our answer, and the crate may have stopped to repeat it; see [`Flight`].
    fn heard(&self, from: SocketAddr, datagram: &[u8]) {
        let mut flight = self.flight.lock();
        if flight.heard(datagram) {
            flight.again(time::now(), true).iter().for_each(|again| self.mux.send(from, again));
        }
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// Never waits and never fails: what the shared socket does not take now is lost, as on any network, and counted.
    fn poll_send(&self, _cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if stun::is_stun(transmit.contents) {
            self.mux.table.lock().sent_check(self.key, transmit.destination, transmit.contents);
        } else if transmit.contents.first() == Some(&DTLS_ALERT) {
            self.fate.send_if_modified(|fate| std::mem::replace(fate, (*fate).max(Fate::Alerted)) != *fate);
        } else if secure::is_dtls(transmit.contents) {
            self.flight.lock().sent(transmit.contents);
        }
        self.mux.send(transmit.destination, transmit.contents);
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        self.inbox.poll(cx).map(|Received { from, datagram, .. }| {
            if secure::is_dtls(&datagram) {
                self.heard(from, &datagram);
            }
            let len = datagram.len().min(buf.len());
            buf[..len].copy_from_slice(&datagram[..len]);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (from, len, len.max(1));
            Ok(1)
        })
    }
}
