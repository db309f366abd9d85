//! The media port: one UDP port for all peers.
//!
//! Owns: the UDP sockets (one per address family, the same port), the demultiplexing of received datagrams, and the
//! candidates that describe the sockets. Does not know: SDP, peers, media. A connection is added by [`Mux::connect`]
//! and given its ICE credentials; it receives by an [`Inbox`], which it may share with others, and sends by a
//! [`Batch`]. Datagrams of TCP connections and of our TURN relays arrive and leave by a [`Tunnel`].
//!
//! A datagram that is not STUN reaches a connection only from an address that the connection has validated (`demux`).
//! The port is also a plain STUN server. A response leaves from the address that received the request (`source`).
//! Checks to hosts that do not answer are limited, here per network, in the ICE agent per session, so that no offer can
//! aim them at a third party.

mod batch;
mod bind;
mod candidates;
mod demux;
mod inbox;
mod public;
mod receive;
mod source;
mod tunnels;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub(crate) use self::batch::Batch;
use self::demux::{Addresses, Owner, Reason, Table, Verdict};
pub(crate) use self::inbox::{Inbox, Received};
pub use self::public::{public_addresses, watch_public_addresses};
pub(crate) use self::receive::{ReceiveThread, Receiver, WakeFd};
use self::source::PortSocket;
pub(crate) use self::tunnels::Tunnel;
use self::tunnels::{Exit, Routes, TunnelId, Via};
use crate::net::rate_limit::RateLimiter;
use crate::time;
use crate::transport::stun::{self, Class, Message};

/// Longest datagram we take, in bytes: an Ethernet frame's worth and some.
pub(crate) const DATAGRAM_MAX: usize = 2048;

/// Plain STUN requests answered per second and source, so that spoofed requests cannot use the port as a reflector.
const STUN_ANSWERS_PER_SECOND: u32 = 20;
/// ICE checks per second to one network that may go unanswered, over all sessions, and as a burst: a candidate may name
/// an address of anybody. A thousand clients that join from one network answer theirs.
const UNANSWERED_CHECKS_PER_SECOND: u32 = 64;
/// See [`UNANSWERED_CHECKS_PER_SECOND`].
const UNANSWERED_CHECKS_BURST: u32 = 1_024;

/// Identifies a connection on the port.
pub(crate) type Key = u64;

/// Counters of the media port since the start.
#[derive(Debug, Default)]
pub struct UdpStats {
    /// Datagrams received.
    pub received: AtomicU64,
    /// Bytes received, without IP and UDP headers.
    pub received_bytes: AtomicU64,
    /// Datagrams sent.
    pub sent: AtomicU64,
    /// Bytes sent, without IP and UDP headers.
    pub sent_bytes: AtomicU64,
    /// Datagrams that the kernel did not accept: its buffer was full, or the address is unreachable.
    pub send_dropped: AtomicU64,
    /// Plain STUN requests answered.
    pub stun_answered: AtomicU64,
    /// Plain STUN requests not answered because of the rate limit.
    pub stun_limited: AtomicU64,
    /// ICE checks not sent, because too many checks to the same network went unanswered.
    pub checks_limited: AtomicU64,
    /// Malformed STUN messages.
    pub dropped_malformed: AtomicU64,
    /// ICE checks for an unknown user fragment.
    pub dropped_unknown_ufrag: AtomicU64,
    /// STUN without a valid MESSAGE-INTEGRITY.
    pub dropped_unauthenticated: AtomicU64,
    /// Datagrams other than STUN from an address that no connection has validated.
    pub dropped_unvalidated: AtomicU64,
    /// Datagrams dropped because their inbox was full or missing.
    pub dropped_inbox: AtomicU64,
    /// Datagrams received through tunnels.
    pub tunnel_received: AtomicU64,
    /// Datagrams sent through tunnels.
    pub tunnel_sent: AtomicU64,
    /// Datagrams that a tunnel did not accept: its far end is too slow, or gone.
    pub tunnel_dropped: AtomicU64,
    /// Tunnels opened.
    pub tunnels_opened: AtomicU64,
    /// Tunnels closed.
    pub tunnels_closed: AtomicU64,
}

/// The media port. Ends with its last `Arc`; connections hold one each.
pub struct Mux {
    v4: Option<PortSocket>,
    v6: Option<PortSocket>,
    public: ArcSwap<Vec<IpAddr>>,
    /// ICE over TCP is served on the same port number.
    tcp: AtomicBool,
    table: Mutex<Table>,
    addresses: Arc<Addresses>,
    stun_limiter: Mutex<RateLimiter>,
    check_limiter: Mutex<RateLimiter>,
    stats: UdpStats,
    tasks: Mutex<Vec<AbortHandle>>,
    receiver: Mutex<Option<Receiver>>,
}

impl Mux {
    /// Binds the port. Datagrams are received by the owner of its [`Receiver`].
    ///
    /// An unspecified address binds both families where the machine has IPv6. `public` are the addresses peers reach us
    /// by, where they differ from the bound ones (NAT 1:1).
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, public: Vec<IpAddr>) -> io::Result<Arc<Self>> {
        let (first, second) = bind::bind_families(address)?;
        let (mut v4, mut v6) = (None, None);
        for socket in [Some(first), second].into_iter().flatten() {
            let port = PortSocket::new(socket)?;
            let family = if port.local.is_ipv4() { &mut v4 } else { &mut v6 };
            *family = Some(port);
        }
        let crypto = rtc::crypto::default_provider().map_err(io::Error::other)?;
        let table = Table::new(crypto);
        let mux = Arc::new(Self {
            v4,
            v6,
            public: ArcSwap::from_pointee(public),
            tcp: AtomicBool::new(false),
            addresses: table.addresses(),
            table: Mutex::new(table),
            check_limiter: Mutex::new(RateLimiter::new(UNANSWERED_CHECKS_PER_SECOND, UNANSWERED_CHECKS_BURST)),
            stun_limiter: Mutex::new(RateLimiter::new(STUN_ANSWERS_PER_SECOND, STUN_ANSWERS_PER_SECOND)),
            stats: UdpStats::default(),
            tasks: Mutex::default(),
            receiver: Mutex::default(),
        });
        let ports = [&mux.v4, &mux.v6].into_iter().flatten().cloned();
        *mux.receiver.lock() = Some(Receiver::new(Arc::downgrade(&mux), ports));
        Ok(mux)
    }

    /// The receiver of the port; `None` after the first call. The port receives while the owner of it calls
    /// [`Receiver::receive`].
    pub(crate) fn take_receiver(&self) -> Option<Receiver> {
        self.receiver.lock().take()
    }

    /// Receives on a thread of its own.
    #[cfg(test)]
    pub(crate) fn receive_in_background(&self) -> ReceiveThread {
        self.take_receiver().expect("it was not taken").spawn().expect("a thread")
    }

    /// The address bound, with its port; the IPv4 one where there are both.
    pub fn local_addr(&self) -> SocketAddr {
        let port = self.v4.as_ref().or(self.v6.as_ref());
        port.expect("bind made at least one socket").local
    }

    /// Counters of the port.
    pub fn stats(&self) -> &UdpStats {
        &self.stats
    }

    /// All addresses bound, with their port.
    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        [&self.v4, &self.v6].into_iter().flatten().map(|port| port.local).collect()
    }

    /// The addresses in candidates: the public addresses if given, else the bound ones.
    pub fn advertised_addresses(&self) -> Vec<SocketAddr> {
        let bound: Vec<IpAddr> = self.local_addrs().iter().map(SocketAddr::ip).collect();
        let port = self.local_addr().port();
        candidates::addresses(&bound, &self.public.load()).into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// Sets the public addresses.
    fn set_public(&self, public: Vec<IpAddr>) {
        self.public.store(Arc::new(public));
    }

    /// The advertised addresses as candidates of SDP, without `a=` (RFC 8839).
    pub fn candidates(&self) -> Vec<String> {
        let advertised: Vec<IpAddr> = self.advertised_addresses().iter().map(SocketAddr::ip).collect();
        candidates::candidates(&advertised, self.local_addr().port(), self.tcp.load(Ordering::Relaxed))
    }

    /// Records that this task serves ICE over TCP on the same number; it ends with the port.
    pub(crate) fn serve_tcp(&self, task: AbortHandle) {
        self.tasks.lock().push(task);
        self.tcp.store(true, Ordering::Relaxed);
    }

    /// Adds a connection; datagrams reach it once its credentials are set.
    pub fn connect(self: &Arc<Self>) -> Connection {
        let (key, routes) = self.table.lock().add();
        Connection { mux: Arc::clone(self), key, routes }
    }

    /// Opens a tunnel. `remote` is its far end as ICE sees it. Datagrams to it are passed to `outbound`, which must not
    /// wait and says whether it took the datagram. Datagrams from there come in by [`Tunnel::received`], under the
    /// rules of those that come by UDP.
    pub(crate) fn open_tunnel(
        self: &Arc<Self>,
        remote: SocketAddr,
        outbound: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Tunnel {
        self.stats.tunnels_opened.fetch_add(1, Ordering::Relaxed);
        let left = Arc::new(Notify::new());
        let id = self.table.lock().open_tunnel(Arc::new(outbound), Arc::clone(&left));
        Tunnel { mux: Arc::downgrade(self), id, remote, left }
    }

    fn close_tunnel(&self, id: TunnelId, remote: SocketAddr) {
        self.stats.tunnels_closed.fetch_add(1, Ordering::Relaxed);
        self.table.lock().close_tunnel(id, remote);
    }

    /// Sends a datagram if plain UDP does not lead to its address; false if it does.
    fn send_by_tunnel(&self, routes: &Routes, to: SocketAddr, datagram: &[u8]) -> bool {
        match routes.send(to, datagram) {
            None => return false,
            Some((Via::Udp, sent)) => self.sent(sent, datagram.len()),
            Some((Via::Tunnel(_), taken)) => {
                let counter = if taken { &self.stats.tunnel_sent } else { &self.stats.tunnel_dropped };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }

    fn port(&self, ipv4: bool) -> Option<&PortSocket> {
        if ipv4 { self.v4.as_ref() } else { self.v6.as_ref() }
    }

    fn sent(&self, sent: bool, length: usize) {
        if sent {
            self.stats.sent.fetch_add(1, Ordering::Relaxed);
            self.stats.sent_bytes.fetch_add(length as u64, Ordering::Relaxed);
        } else {
            self.stats.send_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Handles a datagram that arrived through a tunnel; false when it reached no connection.
    fn receive_from_tunnel(&self, via: Via, from: SocketAddr, datagram: &[u8]) -> bool {
        self.stats.tunnel_received.fetch_add(1, Ordering::Relaxed);
        let receiver = if stun::is_stun(datagram) {
            self.receive_stun(via, from, None, datagram)
        } else {
            self.receiver(from, None, demux::by_address(&self.addresses, via, from))
        };
        let Some((inbox, key)) = receiver else { return false };
        let dropped = inbox.push(&mut vec![Received { key, from, datagram: BytesMut::from(datagram) }]);
        self.stats.dropped_inbox.fetch_add(dropped as u64, Ordering::Relaxed);
        dropped == 0
    }

    /// Handles a STUN message, which arrived at our address `local`, if that is known; returns the connection it is
    /// for.
    fn receive_stun(
        &self,
        via: Via,
        from: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) -> Option<(Arc<Inbox>, Key)> {
        let verdict = self.table.lock().classify_stun(via, from, datagram);
        if matches!(verdict, Verdict::Deliver(..)) && stun::is_success(datagram) {
            self.check_limiter.lock().put_back(from.ip(), time::now());
        }
        self.receiver(from, local, verdict)
    }

    /// The connection that a verdict names; does and counts everything else.
    fn receiver(&self, from: SocketAddr, local: Option<IpAddr>, verdict: Verdict) -> Option<(Arc<Inbox>, Key)> {
        let counter = match verdict {
            Verdict::Deliver(inbox, key) => return Some((inbox, key)),
            Verdict::Check(inbox, key, routes) => {
                self.answer_from(local, from, &routes);
                return Some((inbox, key));
            }
            Verdict::AnswerStun(transaction) => {
                if self.stun_limiter.lock().take(from.ip(), time::now()).is_ok() {
                    self.answer_plainly(local, from, &stun::mapped_address(&transaction, from));
                    &self.stats.stun_answered
                } else {
                    &self.stats.stun_limited
                }
            }
            Verdict::Drop(Reason::NoInbox) => &self.stats.dropped_inbox,
            Verdict::Drop(Reason::Malformed) => &self.stats.dropped_malformed,
            Verdict::Drop(Reason::UnknownUfrag) => &self.stats.dropped_unknown_ufrag,
            Verdict::Drop(Reason::Unauthenticated) => &self.stats.dropped_unauthenticated,
            Verdict::Drop(Reason::Unvalidated) => &self.stats.dropped_unvalidated,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Whether a connection may send this check: not where too many checks to the same network went unanswered.
    fn may_check(&self, key: Key, routes: &Routes, to: SocketAddr) -> bool {
        let via = routes.via(to);
        let answered = |owner: &Owner| owner.key == key && owner.answered;
        let is_known = via != Via::Udp || self.addresses.read().get(&(via, to)).is_some_and(answered);
        let allowed = is_known || self.check_limiter.lock().take(to.ip(), time::now()).is_ok();
        if !allowed {
            self.stats.checks_limited.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    /// Remembers a check that a connection is about to send; false if it may not be sent. Other datagrams are always
    /// allowed.
    fn sent_check(&self, key: Key, routes: &Routes, to: SocketAddr, datagram: &[u8]) -> bool {
        let Some(message) = Message::parse(datagram).filter(|message| message.class == Class::Request) else {
            return true;
        };
        let allowed = self.may_check(key, routes, to);
        if allowed {
            self.table.lock().sent_check(key, to, message.transaction);
        }
        allowed
    }
}

impl Mux {
    /// Datagrams of a connection to this address leave from our address `local` from now on.
    fn answer_from(&self, local: Option<IpAddr>, to: SocketAddr, routes: &Routes) {
        let Some(port) = self.port(to.is_ipv4()) else { return };
        match port.source(local, to) {
            None => routes.clear(to, Via::Udp),
            Some(source) => {
                let port = port.clone();
                let outbound = Arc::new(move |datagram: &[u8]| port.send_from(source, to, datagram));
                routes.set(to, Exit { via: Via::Udp, outbound });
            }
        }
    }

    fn answer_plainly(&self, local: Option<IpAddr>, to: SocketAddr, datagram: &[u8]) {
        let Some(port) = self.port(to.is_ipv4()) else { return };
        // The source is not authenticated, so that no look-up is spent on it.
        let sent = match local.filter(|_| port.local.ip().is_unspecified()) {
            None => port.send(to, datagram),
            Some(source) => port.send_from(source, to, datagram),
        };
        self.sent(sent, datagram.len());
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

/// One peer connection's place on the port. Dropping it ends what reaches the connection.
pub struct Connection {
    mux: Arc<Mux>,
    key: Key,
    routes: Arc<Routes>,
}

impl Connection {
    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    /// Sets the inbox that receives the connection's datagrams.
    pub(crate) fn deliver_to(&self, inbox: &Arc<Inbox>) {
        self.mux.table.lock().set_inbox(self.key, Arc::clone(inbox));
    }

    /// Sends a datagram if plain UDP does not lead to its address; false if it is to be sent by a [`Batch`].
    pub(crate) fn send_by_tunnel(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.mux.send_by_tunnel(&self.routes, to, datagram)
    }

    /// Remembers a check that is about to be sent, so that its response is recognized; false if it may not be sent,
    /// because too many checks to that network went unanswered. Any other datagram is allowed.
    pub(crate) fn sent_check(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.mux.sent_check(self.key, &self.routes, to, datagram)
    }

    /// Sets the user fragment checks are addressed to and the password that signs them; replaces the former ones.
    pub fn set_local_credentials(&self, ufrag: &str, password: &str) {
        self.mux.table.lock().set_local(self.key, ufrag, password);
    }

    /// Sets the other side's ICE password, which signs the answers to our checks.
    pub fn set_remote_password(&self, password: &str) {
        self.mux.table.lock().set_remote(self.key, password);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.mux.table.lock().remove(self.key);
    }
}

#[cfg(test)]
mod tests;
