//! The TURN server, for clients whose network blocks UDP, or blocks it to the media port.
//!
//! Owns: the sockets of TURN (UDP and TCP on one port, TLS on another), and the transfer of relayed datagrams. The
//! protocol is in [`server`], which has no sockets. Does not know: rooms, peers; to the media port a path is a
//! [tunnel](super::udp::Tunnel) like a TCP connection.
//!
//! It relays to our own media port only and has no relay sockets: datagrams of clients are passed to [`Mux`] and back.
//! Other peers cannot be reached. The allocations of a session end with it.

mod credentials;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod links;
mod listen;
mod message;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::credentials::Credentials;
pub use self::links::IceServers;
use self::listen::Sockets;
use self::message::{Method, Writer, kind, write_channel_data};
use self::server::{Client, Effect, Flow, Limits, Now, Outcome, Path, Server};
use super::connection_limits::{self, ConnectionLimiter, Permit};
use super::listener;
use super::tcp::{KERNEL_UNSENT, Outbox};
use super::tls::Tls;
use super::udp::{Mux, Tunnel};
use crate::config;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::time;
use crate::transport::stun::Class;

/// The default ports (RFC 8656 section 5).
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
/// Longest accepted datagram, in bytes.
const DATAGRAM_MAX: usize = 2048;
/// Limits of TCP and TLS connections; pending are those without an allocation. One address may be the NAT of a company.
const STREAMS: connection_limits::Limits = connection_limits::Limits { per_address: 256, pending: 512, total: 2048 };
/// Interval at which expired state is removed.
const SWEEP: Duration = Duration::from_secs(1);
/// Interval, in sweeps, at which our media addresses are read again: interfaces change.
const SWEEPS_PER_LOOK: u32 = 10;

/// A running TURN server; it ends with its last clone.
#[derive(Clone)]
pub struct Turn {
    shared: Arc<Shared>,
    /// The port of UDP and TCP.
    port: u16,
    /// The port of TLS, if TLS is on.
    tls_port: Option<u16>,
    _tasks: Arc<JoinSet<()>>,
}

/// State shared by the tasks.
struct Shared {
    mux: Arc<Mux>,
    state: Mutex<State>,
    counters: Counters,
    limiter: Arc<ConnectionLimiter>,
}

struct State {
    server: Server,
    paths: HashMap<Path, Open>,
    /// TCP and TLS connections, and the tokens that end them.
    streams: HashMap<u64, CancellationToken>,
    next_stream: u64,
}

/// An open path.
struct Open {
    tunnel: Arc<Tunnel>,
    outlet: Arc<Outlet>,
}

#[derive(Debug, Clone, Default)]
struct Counters {
    allocations: Gauge,
    streams: Gauge,
    streams_refused: Counter,
    to_media: Counter,
    to_media_bytes: Counter,
    to_clients: Counter,
    to_clients_bytes: Counter,
    dropped_received: Counter,
    dropped_sent: Counter,
}

/// One UDP socket.
#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Port {
    fn send(&self, from: Option<IpAddr>, destination: SocketAddr, contents: &[u8]) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: from };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.socket), &transmit))
    }
}

/// Where responses to a client are sent.
#[derive(Debug, Clone)]
enum Sink {
    /// UDP, from the address that the client sent to, because it accepts datagrams from there only.
    Udp(Arc<Port>, Option<IpAddr>),
    Stream(Arc<Outbox>),
}

impl Sink {
    /// Sends a datagram in its wrapping, now or never; what is late in a stream is judged by what the datagram is.
    fn send(&self, to: SocketAddr, datagram: &[u8], wrapped: impl FnOnce() -> Vec<u8>) -> bool {
        match self {
            Self::Udp(port, from) => port.send(*from, to, &wrapped()).is_ok(),
            Self::Stream(outbox) => outbox.push(time::now(), datagram, || BytesMut::from(&wrapped()[..])),
        }
    }
}

/// The client's end of a path: wraps what the media port sends.
struct Outlet {
    client: Client,
    peer: SocketAddr,
    /// The channel that the client has bound; 0 for none.
    channel: AtomicU16,
    sink: Sink,
    counters: Counters,
}

impl Outlet {
    fn send(&self, datagram: &[u8]) -> bool {
        let wrapped = || match self.channel.load(Ordering::Relaxed) {
            0 => Writer::new(Method::DATA, Class::Indication, rand::random())
                .address(kind::XOR_PEER_ADDRESS, self.peer)
                .attribute(kind::DATA, datagram)
                .finish(),
            number => write_channel_data(number, datagram, matches!(self.sink, Sink::Stream(_))),
        };
        let sent = self.sink.send(self.client.address, datagram, wrapped);
        if sent {
            self.counters.to_clients.inc();
            self.counters.to_clients_bytes.inc_by(datagram.len() as u64);
        } else {
            self.counters.dropped_sent.inc();
        }
        sent
    }
}

/// The ICE servers to tell joiners of, and our TURN server if one is wanted, listening at `ip`. `https_port` is where
/// TURN is spoken besides HTTPS.
///
/// # Errors
/// When a port that was asked for cannot be bound, with what to do.
pub fn start(
    config: &config::Config,
    mux: &Arc<Mux>,
    tls: Option<&Tls>,
    https_port: Option<u16>,
) -> Result<(IceServers, Option<Turn>), String> {
    let settings = &config.turn;
    let servers = IceServers::stun(config.media.public_ips.first().copied(), mux.local_addr().port());
    if !settings.enabled && settings.external.is_empty() {
        return Ok((servers, None));
    }
    let secret = settings.secret.clone().unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()).into());
    let credentials = Arc::new(Credentials::new(secret, settings.credential_seconds.into()));
    let servers = servers.with_turn(settings, Arc::clone(&credentials));
    if !settings.enabled {
        return Ok((servers, None));
    }
    let turn = Turn::bind(config.media.bind, settings, credentials, mux, tls)?;
    let tls_ports = https_port.or(turn.tls_port).into_iter().collect();
    Ok((servers.with_ports(turn.port, tls_ports), Some(turn)))
}

impl Turn {
    fn bind(
        ip: IpAddr,
        settings: &config::Turn,
        credentials: Arc<Credentials>,
        mux: &Arc<Mux>,
        tls: Option<&Tls>,
    ) -> Result<Self, String> {
        let plain = bind_or_free(ip, settings.port, PORT, true, "--turn-port (or --no-turn)")?;
        let secure = tls.map(|_| bind_or_free(ip, settings.tls_port, TLS_PORT, false, "turn.tls_port")).transpose()?;
        let limits = Limits {
            allocations: settings.max_allocations as usize,
            per_user: settings.max_per_credential as usize,
            per_address: settings.max_per_address as usize,
        };
        let counters = Counters::default();
        let shared = Arc::new(Shared {
            mux: Arc::clone(mux),
            state: Mutex::new(State {
                server: Server::new(credentials, limits, mux.advertised_addresses()),
                paths: HashMap::new(),
                streams: HashMap::new(),
                next_stream: 0,
            }),
            limiter: ConnectionLimiter::new(STREAMS, counters.streams.clone(), counters.streams_refused.clone()),
            counters,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(sweep(Arc::clone(&shared)));
        let (port, tls_port) = (plain.port, secure.as_ref().map(|sockets| sockets.port));
        for socket in plain.udp {
            let state = UdpSocketState::new(UdpSockRef::from(&socket));
            let state = state.map_err(|error| format!("TURN cannot use its UDP socket: {error}"))?;
            tasks.spawn(receive(Arc::clone(&shared), Arc::new(Port { socket, state })));
        }
        for listener in plain.tcp {
            tasks.spawn(accept(Arc::clone(&shared), listener, None));
        }
        for listener in secure.into_iter().flat_map(|sockets| sockets.tcp) {
            tasks.spawn(accept(Arc::clone(&shared), listener, tls.cloned()));
        }
        tracing::info!(port, tls_port, "TURN listens");
        Ok(Self { shared, port, tls_port, _tasks: Arc::new(tasks) })
    }

    /// Serves an accepted connection until it ends.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send>(&self, stream: S, peer: SocketAddr) {
        if let Some(permit) = self.shared.limiter.take(peer.ip()) {
            stream::serve(&self.shared, stream, peer, permit).await;
        }
    }

    /// Registers the metrics.
    pub fn register(&self, metrics: &Metrics) {
        let counters = self.shared.counters.clone();
        metrics.register(|registry| {
            registry.register("turn_allocations", "TURN allocations", counters.allocations);
            registry.register("turn_streams", "TURN connections over TCP and TLS", counters.streams);
            registry.register(
                "turn_streams_refused",
                "TURN connections refused because of the connection limits",
                counters.streams_refused,
            );
            registry.register("turn_to_media", "Datagrams relayed to the media port", counters.to_media);
            registry.register("turn_to_media_bytes", "Bytes of them", counters.to_media_bytes);
            registry.register("turn_to_clients", "Datagrams relayed to TURN clients", counters.to_clients);
            registry.register("turn_to_clients_bytes", "Bytes of them", counters.to_clients_bytes);
            registry.register(
                "turn_dropped_received",
                "TURN client messages dropped: malformed, not permitted or rate-limited",
                counters.dropped_received,
            );
            registry.register(
                "turn_dropped_sent",
                "Datagrams dropped because a TURN client reads too slowly",
                counters.dropped_sent,
            );
        });
        macro_rules! read {
            ($name:literal, $help:literal, $field:ident) => {
                let shared = Arc::clone(&self.shared);
                metrics.register_count($name, $help, move || shared.state.lock().server.counts().$field);
            };
        }
        read!("turn_allocated", "TURN allocations made", allocated);
        read!("turn_unauthorized", "TURN requests with an invalid or expired credential", unauthorized);
        read!("turn_forbidden", "TURN requests for a peer other than the media port", forbidden);
        read!("turn_over_quota", "TURN allocations refused because of a quota", over_quota);
    }
}

/// The configured port; without one the default, or a free port if that is in use: the port is sent to clients anyway.
fn bind_or_free(ip: IpAddr, asked: Option<u16>, usual: u16, udp: bool, flag: &str) -> Result<Sockets, String> {
    let wanted = asked.unwrap_or(usual);
    let failed = |port: u16, error: io::Error| {
        format!(
            "cannot bind {} for TURN: {error}; choose another port by {flag}, 0 for a free one",
            SocketAddr::new(ip, port)
        )
    };
    match listen::bind(ip, wanted, udp) {
        Err(error) if asked.is_none() => {
            tracing::warn!(port = wanted, %error, "the default TURN port is unavailable; using a free port");
            listen::bind(ip, 0, udp).map_err(|error| failed(0, error))
        }
        bound => bound.map_err(|error| failed(wanted, error)),
    }
}

impl Shared {
    /// Handles one message of a client; responses go to `sink`.
    fn received(&self, client: Client, sink: &Sink, bytes: &[u8]) {
        let now = Now { at: time::now(), unix: time::unix_seconds() };
        let (outcome, tunnel) = {
            let mut state = self.state.lock();
            let outcome = state.server.received(now, client, bytes);
            self.settle(&mut state, Some(sink));
            let tunnel = match outcome {
                Outcome::Relay(path, _) => state.paths.get(&path).map(|open| Arc::clone(&open.tunnel)),
                _ => None,
            };
            (outcome, tunnel)
        };
        match outcome {
            Outcome::Answer(answer) => {
                if !sink.send(client.address, &answer, || answer.clone()) {
                    self.counters.dropped_sent.inc();
                }
            }
            Outcome::Relay(_, data) => {
                self.counters.to_media.inc();
                self.counters.to_media_bytes.inc_by(data.len() as u64);
                // The media port counts datagrams that reach no connection.
                let _ = tunnel.is_some_and(|tunnel| tunnel.received(data));
            }
            Outcome::Drop(_) => {
                self.counters.dropped_received.inc();
            }
        }
    }

    /// Executes the effects of the protocol. Only a message opens a path; its client receives by `sink`.
    fn settle(&self, state: &mut State, sink: Option<&Sink>) {
        while let Some(effect) = state.server.poll_effect() {
            match effect {
                Effect::Opened { path, client, relayed, peer } => {
                    let Some(sink) = sink.cloned() else { continue };
                    let outlet = Arc::new(Outlet {
                        client,
                        peer,
                        channel: AtomicU16::new(0),
                        sink,
                        counters: self.counters.clone(),
                    });
                    let sender = Arc::clone(&outlet);
                    let tunnel = Arc::new(self.mux.open_tunnel(relayed, move |datagram| sender.send(datagram)));
                    state.paths.insert(path, Open { tunnel, outlet });
                }
                Effect::Channel { path, number } => {
                    if let Some(open) = state.paths.get(&path) {
                        open.outlet.channel.store(number.unwrap_or(0), Ordering::Relaxed);
                    }
                }
                Effect::Closed { path } => {
                    state.paths.remove(&path);
                }
                Effect::Over { client } => {
                    if let Flow::Stream(number) = client.flow
                        && let Some(end) = state.streams.get(&number)
                    {
                        end.cancel();
                    }
                }
            }
        }
        self.counters.allocations.set(state.server.allocations() as i64);
    }

    fn sweep(&self) {
        let mut state = self.state.lock();
        state.server.sweep(time::now());
        self.settle(&mut state, None);
    }

    fn has_allocation(&self, client: &Client) -> bool {
        self.state.lock().server.has_allocation(client)
    }

    /// A number for a new connection, and the token that ends it.
    fn stream_opened(&self) -> (u64, CancellationToken) {
        let mut state = self.state.lock();
        state.next_stream += 1;
        let (number, end) = (state.next_stream, CancellationToken::new());
        state.streams.insert(number, end.clone());
        (number, end)
    }

    fn stream_closed(&self, client: &Client, number: u64) {
        let mut state = self.state.lock();
        state.streams.remove(&number);
        state.server.closed(client);
        self.settle(&mut state, None);
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        for _ in 0..SWEEPS_PER_LOOK {
            ticks.tick().await;
            shared.sweep();
        }
        let media = shared.mux.advertised_addresses();
        shared.state.lock().server.set_media(media);
    }
}

/// Receives on one UDP socket, many datagrams per system call.
async fn receive(shared: Arc<Shared>, port: Arc<Port>) {
    // With receive offload one buffer holds several datagrams of one sender.
    let size = DATAGRAM_MAX * port.state.gro_segments().max(1);
    let mut buffers = vec![vec![0; size]; BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let received = {
            let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let receive = || port.state.recv(UdpSockRef::from(&port.socket), &mut slices, &mut metas);
            port.socket.async_io(Interest::READABLE, receive).await
        };
        // An error of the socket is the ICMP response to one datagram that was sent; the port goes on.
        for (meta, buffer) in metas.iter().zip(&buffers).take(received.unwrap_or(0)) {
            let sink = Sink::Udp(Arc::clone(&port), meta.dst_ip);
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                shared.received(Client { flow: Flow::Udp, address: meta.addr }, &sink, datagram);
            }
        }
    }
}

/// Accepts connections on one listener.
async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<Tls>) {
    loop {
        let (stream, peer) = listener::accept(&listener).await;
        let Some(permit) = shared.limiter.take(peer.ip()) else { continue };
        // No datagram waits for the next one.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(KERNEL_UNSENT);
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            match &tls {
                None => stream::serve(&shared, stream, peer, permit).await,
                // A failed handshake is not an error of the server.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        stream::serve(&shared, stream, peer, permit).await;
                    }
                }
            }
        });
    }
}
