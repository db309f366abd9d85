//! One UDP port for all peers.
//!
//! Owns: the media sockets (one per address family, the same port), the demultiplexing of what they receive, and the
//! candidates that name them. Does not know: SDP, peers, media. A connection is added by [`Mux::connect`], told its ICE
//! credentials, and given to `webrtc` as a `Runtime`; datagrams flow between its virtual socket and the port.
//!
//! A connection of our own has an [`Inbox`] it may share with others instead, and sends by a [`Batch`].
//!
//! A datagram that is not STUN reaches a connection only from an address that connection has validated (`demux`). The
//! port is also a plain STUN server. Virtual sockets never wait to send: what the kernel does not take at once is lost and
//! counted; a batch waits for it.
//! On a machine with several addresses the kernel picks the source of what we send; bind one of them where that matters.

mod batch;
mod demux;
mod inbox;
mod socket;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use webrtc::runtime::Runtime;

pub(in crate::edge) use self::batch::Batch;
use self::demux::{Reason, Table, Verdict};
pub(in crate::edge) use self::inbox::{Inbox, Received};
use self::socket::MuxRuntime;
use crate::time;
use crate::transport::stun;

/// Socket buffers asked of the kernel, in bytes; it may give less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 8 << 20;
/// Longest datagram we take, in bytes: an Ethernet frame's worth and some.
const DATAGRAM_MAX: usize = 2048;
/// Plain STUN answers per second and address bucket.
const STUN_ANSWERS_PER_SECOND: u32 = 20;
/// Buckets of the plain STUN limit; addresses share them by hash.
const STUN_BUCKETS: usize = 512;
/// How often a free port is looked for that both address families can have.
const PORT_TRIES: usize = 16;

/// Names a connection on the port.
pub(in crate::edge) type Key = u64;

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
}

/// The media port. Ends with its last `Arc`; connections hold one each.
pub struct Mux {
    v4: Option<PortSocket>,
    v6: Option<PortSocket>,
    public: Vec<IpAddr>,
    table: Mutex<Table>,
    stun_limit: StunLimit,
    stats: UdpStats,
    readers: Mutex<Vec<AbortHandle>>,
}

struct PortSocket {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
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
        let (first, second) = bind_families(address)?;
        let (mut v4, mut v6) = (None, None);
        for socket in [Some(first), second].into_iter().flatten() {
            let local = socket.local_addr()?;
            let socket = PortSocket { socket: Arc::new(UdpSocket::from_std(socket)?), local };
            *(if local.is_ipv4() { &mut v4 } else { &mut v6 }) = Some(socket);
        }
        let crypto = rtc::crypto::default_provider().map_err(io::Error::other)?;
        let mux = Arc::new(Self {
            v4,
            v6,
            public,
            table: Mutex::new(Table::new(crypto)),
            stun_limit: StunLimit::default(),
            stats: UdpStats::default(),
            readers: Mutex::default(),
        });
        for port in [&mux.v4, &mux.v6].into_iter().flatten() {
            let state = UdpSocketState::new(UdpSockRef::from(&*port.socket))?;
            let reader = Reader { mux: Arc::downgrade(&mux), socket: Arc::clone(&port.socket), state };
            mux.readers.lock().push(tokio::spawn(reader.run()).abort_handle());
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

    /// Our candidates as SDP writes them, without `a=` (RFC 8839): the public addresses if given, else those bound.
    pub fn candidates(&self) -> Vec<String> {
        let port = self.local_addr().port();
        let mut addresses = self.public.clone();
        if addresses.is_empty() {
            let bound: Vec<IpAddr> = [&self.v4, &self.v6].into_iter().flatten().map(|port| port.local.ip()).collect();
            addresses = if bound.iter().any(IpAddr::is_unspecified) { interface_addresses(&bound) } else { bound };
        }
        let line = |(at, ip): (usize, IpAddr)| {
            // RFC 8445 section 5.1.2.1: type preference 126 for host candidates, then ours in order, then component 1.
            let priority = (126 << 24) + ((65_535 - at as u32) << 8) + 255;
            format!("candidate:{} 1 udp {priority} {ip} {port} typ host", at + 1)
        };
        addresses.into_iter().enumerate().map(line).collect()
    }

    /// Adds a connection; datagrams reach it once its credentials are set.
    pub fn connect(self: &Arc<Self>) -> Connection {
        let key = self.table.lock().add();
        Connection { mux: Arc::clone(self), key, fate: watch::Sender::new(Fate::Alive) }
    }

    /// Sends one datagram now or never.
    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let port = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let sent = port.as_ref().is_some_and(|port| port.socket.try_send_to(datagram, to).is_ok());
        if sent {
            self.stats.sent.fetch_add(1, Ordering::Relaxed);
            self.stats.sent_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        } else {
            self.stats.send_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn receive(&self, from: SocketAddr, datagram: &[u8]) {
        self.stats.received.fetch_add(1, Ordering::Relaxed);
        self.stats.received_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        let verdict = self.table.lock().classify(from, datagram);
        let dropped = match verdict {
            Verdict::Deliver(inbox, key) if inbox.push(key, from, datagram) => return,
            Verdict::Deliver(..) | Verdict::Drop(Reason::NoSocket) => &self.stats.dropped_inbox,
            Verdict::AnswerStun(transaction) => {
                if self.stun_limit.allows(from.ip(), time::unix_seconds()) {
                    self.send(from, &stun::mapped_address(&transaction, from));
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
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        for reader in self.readers.get_mut() {
            reader.abort();
        }
    }
}

/// How a connection fares, as far as its sockets show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing bad has been seen.
    Alive,
    /// A DTLS alert left: the other side has said goodbye and got its reply, or failed our checks. `webrtc` itself tells
    /// of it only seconds later, when ICE falls silent.
    Alerted,
    /// The driver has ended, by itself, by an error or by a panic.
    Ended,
}

/// One peer connection's place on the port. Dropping it ends what reaches the connection.
pub struct Connection {
    mux: Arc<Mux>,
    key: Key,
    fate: watch::Sender<Fate>,
}

impl Connection {
    /// The runtime to build the peer connection with.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(MuxRuntime { mux: Arc::clone(&self.mux), key: self.key, fate: self.fate.clone() })
    }

    /// The loopback addresses the connection's driver is to bind, one for each address family of the port.
    pub fn bind_addresses(&self) -> Vec<&'static str> {
        let families = [(&self.mux.v4, "127.0.0.1:0"), (&self.mux.v6, "[::1]:0")];
        families.into_iter().filter(|(port, _)| port.is_some()).map(|(_, address)| address).collect()
    }

    /// Its name.
    pub(in crate::edge) const fn key(&self) -> Key {
        self.key
    }

    /// What comes for this connection goes there; it has no virtual socket then.
    pub(in crate::edge) fn deliver_to(&self, inbox: &Arc<Inbox>) {
        let mut table = self.mux.table.lock();
        for ipv4 in [true, false] {
            table.set_inbox(self.key, ipv4, Some(Arc::clone(inbox)));
        }
    }

    /// Remembers a check of ours that leaves by a [`Batch`], so that its answer is known.
    pub(in crate::edge) fn sent_check(&self, to: SocketAddr, datagram: &[u8]) {
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

    /// How the connection fares.
    pub fn fate(&self) -> watch::Receiver<Fate> {
        self.fate.subscribe()
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
    socket: Arc<UdpSocket>,
    state: UdpSocketState,
}

impl Reader {
    async fn run(self) {
        // With receive offload one buffer holds several datagrams of one sender.
        let size = DATAGRAM_MAX * self.state.gro_segments().max(1);
        let mut buffers = vec![vec![0; size]; BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            let received = {
                let mut slices: Vec<IoSliceMut<'_>> =
                    buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
                let receive = || self.state.recv(UdpSockRef::from(&*self.socket), &mut slices, &mut metas);
                self.socket.async_io(Interest::READABLE, receive).await
            };
            let Some(mux) = self.mux.upgrade() else { return };
            // An error of the socket is one peer's ICMP answer to something we sent; the port lives on.
            for (meta, buffer) in metas.iter().zip(&buffers).take(received.unwrap_or(0)) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    mux.receive(meta.addr, datagram);
                }
            }
        }
    }
}

/// Counts plain STUN answers per second and address bucket, without locks; wrong by a few under a race, which is fine.
struct StunLimit(Vec<AtomicU64>);

impl Default for StunLimit {
    fn default() -> Self {
        Self((0..STUN_BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl StunLimit {
    /// Whether this address may be answered in this second.
    fn allows(&self, ip: IpAddr, second: u64) -> bool {
        // An IPv6 host has a whole /64 to ask from.
        let host = match ip {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let bucket = &self.0[(host.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize % STUN_BUCKETS];
        // The second stands in the upper half, the count in the lower.
        let (then, count) = {
            let value = bucket.load(Ordering::Relaxed);
            (value >> 32, value as u32)
        };
        let count = if then == second & 0xffff_ffff { count } else { 0 };
        bucket.store((second << 32) | u64::from(count.saturating_add(1)), Ordering::Relaxed);
        count < STUN_ANSWERS_PER_SECOND
    }
}

/// The socket for the address, and where it is unspecified one of the other family on the same port.
fn bind_families(address: SocketAddr) -> io::Result<(std::net::UdpSocket, Option<std::net::UdpSocket>)> {
    if !address.ip().is_unspecified() {
        return Ok((bind_socket(address)?, None));
    }
    let mut first = bind_socket(SocketAddr::from(([0, 0, 0, 0], address.port())))?;
    for _ in 0..PORT_TRIES {
        let port = first.local_addr()?.port();
        match bind_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(second) => return Ok((first, Some(second))),
            // Somebody has this port on IPv6: with a free choice, choose another.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {
                first = bind_socket(SocketAddr::from(([0, 0, 0, 0], 0)))?;
            }
            Err(error) => {
                tracing::info!(%error, port, "no IPv6 on the media port");
                break;
            }
        }
    }
    Ok((first, None))
}

fn bind_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // So that an IPv4 peer has one address only, not also ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // The kernel caps these silently; a smaller buffer works, it only drops sooner.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Addresses of this machine's interfaces, of the families bound; loopback only when there is nothing else.
fn interface_addresses(bound: &[IpAddr]) -> Vec<IpAddr> {
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = interfaces.iter().filter_map(|interface| Some(interface.addr?.ip())).collect();
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    addresses.retain(|ip| bound.iter().any(|b| b.is_ipv4() == ip.is_ipv4()) && !link_local(ip) && !ip.is_unspecified());
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    addresses.dedup();
    if addresses.iter().any(|ip| !ip.is_loopback()) {
        addresses.retain(|ip| !ip.is_loopback());
    }
    addresses
}

#[cfg(test)]
mod tests;
