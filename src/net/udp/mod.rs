//! One port for all peers.
//!
//! Owns: the UDP sockets (one per address family, the same port), the demultiplexing of what they receive, and the
//! candidates that name them. Does not know: SDP, peers, media. A connection is added by [`Mux::connect`] and given its ICE
//! credentials; it receives by an [`Inbox`], which it may share with others, and sends by a [`Batch`].
//!
//! What comes by something else than UDP, a TCP connection or a relay of ours, comes by a [`Way`].
//!
//! A datagram that is not STUN reaches a connection only from an address that connection has validated (`demux`). The
//! port is also a plain STUN server. A batch waits for the kernel to take it.
//! On a machine with several addresses an answer leaves from the one that was asked (`source`).

mod batch;
mod bind;
mod candidates;
mod demux;
mod inbox;
mod public;
mod source;
mod ways;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub(crate) use self::batch::Batch;
use self::demux::{Reason, Table, Verdict};
pub(crate) use self::inbox::{Inbox, Received};
pub use self::public::{public_addresses, watch_public_addresses};
use self::source::PortSocket;
pub(crate) use self::ways::Way;
use self::ways::{Exit, Routes, Via, WayId};
use crate::net::rate_limit::RateLimiter;
use crate::time;
use crate::transport::stun;

/// Longest datagram we take, in bytes: an Ethernet frame's worth and some.
pub(crate) const DATAGRAM_MAX: usize = 2048;

/// Plain STUN requests answered per second and source, so that spoofed requests cannot use the port as a reflector.
const STUN_ANSWERS_PER_SECOND: u32 = 20;

/// Names a connection on the port.
pub(crate) type Key = u64;

/// What the media port has seen. Counters since the start.
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
    /// Datagrams the kernel did not take: its buffer was full, or the address cannot be reached.
    pub send_dropped: AtomicU64,
    /// Plain STUN requests answered.
    pub stun_answered: AtomicU64,
    /// Plain STUN requests not answered because their address asked too often.
    pub stun_limited: AtomicU64,
    /// STUN that cannot be read.
    pub dropped_malformed: AtomicU64,
    /// ICE checks for a user fragment nobody has (any more).
    pub dropped_unknown_ufrag: AtomicU64,
    /// STUN without a valid MESSAGE-INTEGRITY.
    pub dropped_unauthenticated: AtomicU64,
    /// DTLS, SRTP or junk from an address no connection has validated.
    pub dropped_unvalidated: AtomicU64,
    /// Datagrams for a connection that did not read fast enough, or whose driver has ended.
    pub dropped_inbox: AtomicU64,
    /// Datagrams received by ways other than UDP.
    pub way_received: AtomicU64,
    /// Datagrams sent by ways other than UDP.
    pub way_sent: AtomicU64,
    /// Datagrams that such a way did not take: its far end is too slow, or gone.
    pub way_dropped: AtomicU64,
    /// Such ways opened.
    pub ways_opened: AtomicU64,
    /// Such ways closed.
    pub ways_closed: AtomicU64,
}

/// The media port. Ends with its last `Arc`; connections hold one each.
pub struct Mux {
    v4: Option<PortSocket>,
    v6: Option<PortSocket>,
    public: ArcSwap<Vec<IpAddr>>,
    /// The same number is served by TCP.
    tcp: AtomicBool,
    table: Mutex<Table>,
    stun_limiter: Mutex<RateLimiter>,
    stats: UdpStats,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Mux {
    /// Binds the port and begins to receive; must be called within a tokio runtime.
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
        let mux = Arc::new(Self {
            v4,
            v6,
            public: ArcSwap::from_pointee(public),
            tcp: AtomicBool::new(false),
            table: Mutex::new(Table::new(crypto)),
            stun_limiter: Mutex::new(RateLimiter::new(STUN_ANSWERS_PER_SECOND, STUN_ANSWERS_PER_SECOND)),
            stats: UdpStats::default(),
            tasks: Mutex::default(),
        });
        for port in [&mux.v4, &mux.v6].into_iter().flatten() {
            let reader = Reader { mux: Arc::downgrade(&mux), port: port.clone() };
            mux.tasks.lock().push(tokio::spawn(reader.run()).abort_handle());
        }
        Ok(mux)
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

    /// Where clients find the port: the public addresses if given, else those bound.
    pub fn told_addresses(&self) -> Vec<SocketAddr> {
        let bound: Vec<IpAddr> = self.local_addrs().iter().map(SocketAddr::ip).collect();
        let port = self.local_addr().port();
        candidates::addresses(&bound, &self.public.load()).into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// Peers reach us by these addresses from now on.
    fn set_public(&self, public: Vec<IpAddr>) {
        self.public.store(Arc::new(public));
    }

    /// The same as candidates, as SDP writes them, without `a=` (RFC 8839).
    pub fn candidates(&self) -> Vec<String> {
        let told: Vec<IpAddr> = self.told_addresses().iter().map(SocketAddr::ip).collect();
        candidates::candidates(&told, self.local_addr().port(), self.tcp.load(Ordering::Relaxed))
    }

    /// The port is served by TCP too, by this task, which ends with the port.
    pub(crate) fn serve_tcp(&self, task: AbortHandle) {
        self.tasks.lock().push(task);
        self.tcp.store(true, Ordering::Relaxed);
    }

    /// Adds a connection; datagrams reach it once its credentials are set.
    pub fn connect(self: &Arc<Self>) -> Connection {
        let (key, routes) = self.table.lock().add();
        Connection { mux: Arc::clone(self), key, routes }
    }

    /// Opens a way other than UDP. `remote` is its far end as ICE is to see it; what is sent there leaves by `outbound`, which
    /// must not wait and says whether it took the datagram. Datagrams from there come in by [`Way::received`], under the
    /// rules of those that come by UDP.
    pub(crate) fn open_way(
        self: &Arc<Self>,
        remote: SocketAddr,
        outbound: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Way {
        self.stats.ways_opened.fetch_add(1, Ordering::Relaxed);
        let left = Arc::new(Notify::new());
        let id = self.table.lock().open_way(Arc::new(outbound), Arc::clone(&left));
        Way { mux: Arc::downgrade(self), id, remote, left }
    }

    fn close_way(&self, id: WayId, remote: SocketAddr) {
        self.stats.ways_closed.fetch_add(1, Ordering::Relaxed);
        self.table.lock().close_way(id, remote);
    }

    /// Sends a datagram if a way leads there; false when none does.
    fn send_by_way(&self, routes: &Routes, to: SocketAddr, datagram: &[u8]) -> bool {
        match routes.send(to, datagram) {
            None => return false,
            Some((Via::Udp, sent)) => self.sent(sent, datagram.len()),
            Some((Via::Way(_), taken)) => {
                let counter = if taken { &self.stats.way_sent } else { &self.stats.way_dropped };
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

    /// Takes a datagram, which came to the address `local` of ours, if that is known; false when it reached no connection.
    fn receive(&self, via: Via, from: SocketAddr, local: Option<IpAddr>, datagram: &[u8]) -> bool {
        if via == Via::Udp {
            self.stats.received.fetch_add(1, Ordering::Relaxed);
            self.stats.received_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        } else {
            self.stats.way_received.fetch_add(1, Ordering::Relaxed);
        }
        let mut verdict = self.table.lock().classify(via, from, datagram);
        if let Verdict::Check(inbox, key, routes) = verdict {
            self.answer_from(local, from, &routes);
            verdict = Verdict::Deliver(inbox, key);
        }
        let dropped = match verdict {
            Verdict::Deliver(inbox, key) if inbox.push(key, from, datagram) => return true,
            Verdict::Deliver(..) | Verdict::Check(..) | Verdict::Drop(Reason::NoInbox) => &self.stats.dropped_inbox,
            Verdict::AnswerStun(transaction) => {
                if self.stun_limiter.lock().take(from.ip(), time::now()).is_ok() {
                    self.answer_plainly(local, from, &stun::mapped_address(&transaction, from));
                    &self.stats.stun_answered
                } else {
                    &self.stats.stun_limited
                }
            }
            Verdict::Drop(Reason::Malformed) => &self.stats.dropped_malformed,
            Verdict::Drop(Reason::UnknownUfrag) => &self.stats.dropped_unknown_ufrag,
            Verdict::Drop(Reason::Unauthenticated) => &self.stats.dropped_unauthenticated,
            Verdict::Drop(Reason::Unvalidated) => &self.stats.dropped_unvalidated,
        };
        dropped.fetch_add(1, Ordering::Relaxed);
        false
    }
}

impl Mux {
    /// What goes to this address leaves from `local` from now on.
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
        // Whoever asks is a stranger: the kernel is not asked first which address it would take.
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
    /// Its name.
    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    /// What comes for this connection goes there.
    pub(crate) fn deliver_to(&self, inbox: &Arc<Inbox>) {
        self.mux.table.lock().set_inbox(self.key, Arc::clone(inbox));
    }

    /// Sends a datagram if a way other than UDP leads there; false when it is to leave by a [`Batch`].
    pub(crate) fn send_by_way(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.mux.send_by_way(&self.routes, to, datagram)
    }

    /// Remembers a check of ours that leaves, so that its answer is known.
    pub(crate) fn sent_check(&self, to: SocketAddr, datagram: &[u8]) {
        self.mux.table.lock().sent_check(self.key, to, datagram);
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

/// Receives on one socket, many datagrams per system call.
struct Reader {
    mux: std::sync::Weak<Mux>,
    port: PortSocket,
}

impl Reader {
    async fn run(self) {
        let PortSocket { socket, state, .. } = &self.port;
        // With receive offload one buffer holds several datagrams of one sender.
        let size = DATAGRAM_MAX * state.gro_segments().max(1);
        let mut buffers = vec![vec![0; size]; BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            let received = {
                let mut slices: Vec<IoSliceMut<'_>> =
                    buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
                let receive = || state.recv(UdpSockRef::from(&**socket), &mut slices, &mut metas);
                socket.async_io(Interest::READABLE, receive).await
            };
            let Some(mux) = self.mux.upgrade() else { return };
            // An error of the socket is one peer's ICMP answer to something we sent; the port lives on.
            for (meta, buffer) in metas.iter().zip(&buffers).take(received.unwrap_or(0)) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    mux.receive(Via::Udp, meta.addr, meta.dst_ip, datagram);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
