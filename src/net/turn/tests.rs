//! The TURN server with real sockets on loopback, in front of a real media port.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::credentials::{Credential, REALM};
use super::message::{CHANNEL_HEADER, Frame, Message, channel_data, frame};
use super::*;
use crate::net::tls::tests::{connect, self_signed};
use crate::net::udp::{Inbox, ReceiveThread};
use crate::transport::stun;
use crate::transport::stun::tests::signed;

const PATIENCE: Duration = Duration::from_secs(5);
const UDP: (u16, &[u8]) = (kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
const SRTP: &[u8] = &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9];

struct World {
    mux: Arc<Mux>,
    turn: Turn,
    servers: IceServers,
    _receiving: ReceiveThread,
    /// Ends the session that all credentials are for.
    over: CancellationToken,
}

impl World {
    async fn new(tls: Option<&Tls>) -> Self {
        let mux = Mux::bind((Ipv4Addr::LOCALHOST, 0).into(), Vec::new()).expect("loopback has free ports");
        let mut config = config::Config::default();
        config.media.bind = Ipv4Addr::LOCALHOST.into();
        (config.turn.port, config.turn.tls_port) = (Some(0), Some(0));
        let (servers, turn) = start(&config, &mux, tls, None).expect("loopback has free ports");
        let receiving = mux.receive_in_background();
        Self { mux, _receiving: receiving, turn: turn.expect("it is on"), servers, over: CancellationToken::new() }
    }

    /// A credential as a joiner gets it.
    fn credential(&self) -> Credential {
        let links = self.servers.links(Some("localhost"), time::unix_seconds(), &self.over);
        let of = |name: &str| {
            let (_, rest) = links[1].split_once(&format!("; {name}=\"")).expect("it is there");
            rest.split('"').next().expect("it ends").to_owned()
        };
        Credential { username: of("username"), password: of("credential") }
    }

    async fn udp(&self) -> Client<UdpWire> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        socket.connect((Ipv4Addr::LOCALHOST, self.turn.port)).await.expect("it listens");
        Client::new(UdpWire(socket), self.credential())
    }

    async fn tcp(&self) -> Client<StreamWire<TcpStream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.turn.port)).await.expect("it listens");
        Client::new(StreamWire(stream), self.credential())
    }
}

/// How a client's messages go.
trait Wire {
    async fn send(&mut self, bytes: &[u8]);
    async fn receive(&mut self) -> Vec<u8>;
}

struct UdpWire(UdpSocket);

impl Wire for UdpWire {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.send(bytes).await.expect("it is sent");
    }

    async fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let received = tokio::time::timeout(PATIENCE, self.0.recv(&mut buffer)).await;
        buffer.truncate(received.expect("an answer comes").expect("it is received"));
        buffer
    }
}

struct StreamWire<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for StreamWire<S> {
    async fn send(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.0.write_all(&bytes).await.expect("it is sent");
        self.0.flush().await.expect("it is sent");
    }

    async fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; CHANNEL_HEADER];
        let whole = async {
            self.0.read_exact(&mut buffer).await.expect("it is open");
            let Frame::Whole(size) = frame(&buffer, DATAGRAM_MAX) else { panic!("no message: {buffer:?}") };
            buffer.resize(size, 0);
            self.0.read_exact(&mut buffer[CHANNEL_HEADER..]).await.expect("it is open");
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("an answer comes");
        buffer
    }
}

/// A TURN client.
struct Client<W> {
    wire: W,
    credential: Credential,
    nonce: String,
}

impl<W: Wire> Client<W> {
    fn new(wire: W, credential: Credential) -> Self {
        Self { wire, credential, nonce: String::new() }
    }

    /// Sends a request and gives the answer; it asks for a nonce first where it has none.
    async fn request(&mut self, method: Method, attributes: &[(u16, &[u8])], peer: Option<SocketAddr>) -> Vec<u8> {
        if self.nonce.is_empty() {
            let ask = Writer::new(method, Class::Request, rand::random()).finish();
            self.wire.send(&ask).await;
            let answer = self.wire.receive().await;
            let challenge = Message::parse(&answer).expect("well formed");
            self.nonce = challenge.text(kind::NONCE).expect("a challenge").to_owned();
        }
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        let mut writer = Writer::new(method, Class::Request, rand::random())
            .attribute(kind::USERNAME, self.credential.username.as_bytes())
            .attribute(kind::REALM, REALM.as_bytes())
            .attribute(kind::NONCE, self.nonce.as_bytes());
        for (kind, value) in attributes {
            writer = writer.attribute(*kind, value);
        }
        if let Some(peer) = peer {
            writer = writer.address(kind::XOR_PEER_ADDRESS, peer);
        }
        let key = credentials::key(&self.credential.username, REALM, &self.credential.password);
        self.wire.send(&writer.sign(&key, &*crypto)).await;
        let answer = self.wire.receive().await;
        assert!(Message::parse(&answer).expect("well formed").is_signed_with(&key, &*crypto), "{answer:?}");
        answer
    }

    async fn allocate(&mut self) -> SocketAddr {
        let answer = self.request(Method::ALLOCATE, &[UDP], None).await;
        let relayed = Message::parse(&answer).and_then(|m| m.addresses(kind::XOR_RELAYED_ADDRESS).next().flatten());
        relayed.expect("an allocation")
    }

    async fn permit(&mut self, peer: SocketAddr) {
        let answer = self.request(Method::CREATE_PERMISSION, &[], Some(peer)).await;
        assert_eq!(Message::parse(&answer).expect("well formed").class, Class::Success);
    }

    async fn indicate(&mut self, peer: SocketAddr, data: &[u8]) {
        let bytes = Writer::new(Method::SEND, Class::Indication, rand::random()).address(kind::XOR_PEER_ADDRESS, peer);
        self.wire.send(&bytes.attribute(kind::DATA, data).finish()).await;
    }

    /// What it does: a check, media both ways, first by indications and then by a channel.
    async fn talks(&mut self, mux: &Arc<Mux>) {
        let media = mux.local_addr();
        let connection = mux.connect();
        connection.set_local_credentials("ours", "password");
        let inbox = Arc::new(Inbox::default());
        connection.deliver_to(&inbox);
        let relayed = self.allocate().await;
        self.permit(media).await;

        self.indicate(media, SRTP).await;
        let check = signed(Class::Request, [1; 12], Some("ours:theirs"), "password");
        self.indicate(media, &check).await;
        assert_eq!(next(&inbox).await, (check, relayed), "media before a check reaches nobody");
        self.indicate(media, SRTP).await;
        assert_eq!(next(&inbox).await, (SRTP.to_vec(), relayed));

        assert!(connection.send_by_tunnel(relayed, b"hello"));
        let received = self.wire.receive().await;
        let received = Message::parse(&received).expect("well formed");
        assert_eq!(
            (received.method, received.class, received.get(kind::DATA)),
            (Method::DATA, Class::Indication, Some(&b"hello"[..]))
        );
        assert_eq!(received.addresses(kind::XOR_PEER_ADDRESS).next().flatten(), Some(media));

        let number = (kind::CHANNEL_NUMBER, &[0x40, 0x07, 0, 0][..]);
        let bound = self.request(Method::CHANNEL_BIND, &[number], Some(media)).await;
        assert_eq!(Message::parse(&bound).expect("well formed").class, Class::Success);
        self.wire.send(&write_channel_data(0x4007, SRTP, false)).await;
        assert_eq!(next(&inbox).await, (SRTP.to_vec(), relayed));
        assert!(connection.send_by_tunnel(relayed, b"hello again"));
        assert_eq!(channel_data(&self.wire.receive().await), Some((0x4007, &b"hello again"[..])));

        let ended = self.request(Method::REFRESH, &[(kind::LIFETIME, &[0; 4])], None).await;
        assert_eq!(Message::parse(&ended).expect("well formed").number(kind::LIFETIME), Some(0));
    }
}

async fn next(inbox: &Inbox) -> (Vec<u8>, SocketAddr) {
    let received = tokio::time::timeout(PATIENCE, poll_fn(|cx| inbox.poll(cx))).await;
    let received = received.expect("it comes");
    (received.datagram.to_vec(), received.from)
}

#[tokio::test]
async fn media_goes_both_ways_by_udp() {
    let world = World::new(None).await;
    world.udp().await.talks(&world.mux).await;
    assert_eq!(world.turn.shared.counters.to_clients.get(), 2);
    assert_eq!(world.turn.shared.counters.allocations.get(), 0);
    assert!(world.turn.shared.state.lock().paths.is_empty());
}

#[tokio::test]
async fn media_goes_both_ways_by_tcp() {
    let world = World::new(None).await;
    world.tcp().await.talks(&world.mux).await;
}

#[tokio::test]
async fn media_goes_both_ways_by_tls() {
    let (tls, _folder) = self_signed().await;
    let world = World::new(Some(&tls)).await;
    let port = world.turn.tls_port.expect("there is TLS");
    let (stream, _) = connect((Ipv4Addr::LOCALHOST, port).into(), &[b"stun.turn"]).await.expect("it speaks TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"stun.turn"[..]));
    Client::new(StreamWire(stream), world.credential()).talks(&world.mux).await;
}

#[tokio::test]
async fn it_is_a_plain_stun_server_too() {
    let world = World::new(None).await;
    let mut client = world.udp().await;
    client.wire.send(&stun::binding_request(&[5; 12])).await;
    let answer = client.wire.receive().await;
    let mapped = Message::parse(&answer).expect("well formed").addresses(kind::XOR_MAPPED_ADDRESS).next().flatten();
    assert_eq!(mapped, client.wire.0.local_addr().ok());
}

#[tokio::test]
async fn an_allocation_ends_with_its_connection() {
    let world = World::new(None).await;
    let mut client = world.tcp().await;
    client.allocate().await;
    assert_eq!(world.turn.shared.counters.allocations.get(), 1);
    drop(client);
    let ended = async {
        while world.turn.shared.counters.allocations.get() > 0 || world.turn.shared.counters.streams.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it is noticed");
}

#[tokio::test]
async fn what_a_session_has_ends_soon_after_it() {
    let world = World::new(None).await;
    let (mut udp, mut tcp) = (world.udp().await, world.tcp().await);
    udp.allocate().await;
    tcp.allocate().await;
    udp.permit(world.mux.local_addr()).await;
    udp.indicate(world.mux.local_addr(), SRTP).await;
    let from = time::now();
    world.over.cancel();
    assert!(tokio::time::timeout(2 * PATIENCE, tcp.wire.0.read_u8()).await.expect("it is hung up").is_err());
    let took = time::now().since(from);
    assert!(took >= credentials::GRACE, "{took:?}");
    assert_eq!(world.turn.shared.counters.allocations.get(), 0);
    assert!(world.turn.shared.state.lock().paths.is_empty());
}

#[tokio::test]
async fn who_does_not_speak_turn_is_hung_up_on() {
    let world = World::new(None).await;
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 1, 0xff, 0xfc], &[0x16, 3, 1, 2]] {
        let mut client = world.tcp().await.wire.0;
        client.write_all(junk).await.expect("it is open");
        let ended = tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("it is noticed");
        assert!(ended.is_err(), "{junk:?}");
    }
}

#[tokio::test]
async fn one_address_has_a_bounded_number_of_connections() {
    let world = World::new(None).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS.per_address {
        open.push(world.tcp().await);
    }
    let full = async {
        while world.turn.shared.counters.streams.get() < STREAMS.per_address as i64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.expect("they are accepted");
    let mut more = world.tcp().await.wire.0;
    assert!(tokio::time::timeout(PATIENCE, more.read_u8()).await.expect("it is noticed").is_err());
    assert_eq!(world.turn.shared.counters.streams_refused.get(), 1);
    open[0].allocate().await;
}

#[tokio::test]
async fn a_port_that_was_asked_for_must_be_free_and_the_usual_one_need_not_be() {
    let taken = listen::bind(Ipv4Addr::LOCALHOST.into(), 0, true).expect("loopback has free ports");
    let ip = Ipv4Addr::LOCALHOST.into();
    let error = bind_or_free(ip, Some(taken.port), PORT, true, "--turn-port").expect_err("it is taken");
    assert!(error.contains("--turn-port") && error.contains(&taken.port.to_string()), "{error}");
    let free = bind_or_free(ip, None, taken.port, true, "--turn-port").expect("another is taken");
    assert_ne!(free.port, taken.port);
}
