//! ICE over TCP with real sockets on loopback.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use tokio::net::UdpSocket;

use super::*;
use crate::net::udp::{Connection, Inbox};
use crate::transport::stun::Class;
use crate::transport::stun::tests::signed;

const SRTP: &[u8] = &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9];
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    mux: Arc<Mux>,
    counters: TcpCounters,
    connection: Connection,
    inbox: Arc<Inbox>,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn check(number: u8) -> Vec<u8> {
    signed(Class::Request, [number; 12], Some("ours:theirs"), "password")
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it comes");
}

impl Server {
    fn start() -> Self {
        let counters = TcpCounters::default();
        let mux = bind(loopback(), Vec::new(), &counters).expect("binds");
        let connection = mux.connect();
        let inbox = Arc::new(Inbox::default());
        connection.deliver_to(&inbox);
        connection.set_local_credentials("ours", "password");
        Self { mux, counters, connection, inbox }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.mux.local_addr()).await.expect("it listens")
    }

    /// The next datagram that has reached the connection.
    async fn next(&self) -> (Vec<u8>, SocketAddr) {
        let mut got = None;
        until(|| {
            let cx = std::task::Context::from_waker(Waker::noop());
            if let Poll::Ready(received) = self.inbox.poll(&cx) {
                got = Some((received.datagram.to_vec(), received.from));
            }
            got.is_some()
        })
        .await;
        got.expect("it has come")
    }
}

async fn say(client: &mut TcpStream, datagram: &[u8]) {
    let mut stream = BytesMut::new();
    framing::put(datagram, &mut stream);
    client.write_all(&stream).await.expect("it is open");
}

async fn hear(client: &mut TcpStream) -> Vec<u8> {
    let hearing = async {
        let mut stream = BytesMut::new();
        loop {
            if let Some(datagram) = framing::take(&mut stream, DATAGRAM_MAX).expect("frames are short") {
                return datagram.to_vec();
            }
            assert_ne!(client.read_buf(&mut stream).await.expect("it is open"), 0, "it was closed");
        }
    };
    timeout(PATIENCE, hearing).await.expect("it comes")
}

async fn is_closed(client: &mut TcpStream) {
    let closed = timeout(PATIENCE, client.read(&mut [0; 16])).await.expect("it is closed in time");
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn datagrams_use_the_connection_that_the_check_arrived_by() {
    let server = Server::start();
    let mut client = server.client().await;
    let address = client.local_addr().expect("bound");
    say(&mut client, &check(1)).await;
    assert_eq!(server.next().await, (check(1), address));
    say(&mut client, SRTP).await;
    assert_eq!(server.next().await, (SRTP.to_vec(), address));
    assert!(server.connection.send_by_tunnel(address, b"back"));
    assert_eq!(hear(&mut client).await, b"back");
    let stats = server.mux.stats();
    assert_eq!((count(&stats.tunnel_received), count(&stats.tunnel_sent)), (2, 1));
    drop(client);
    until(|| count(&stats.tunnels_closed) == 1).await;
    assert!(!server.connection.send_by_tunnel(address, b"back"), "nothing leads there any more");
    assert_eq!((server.counters.open.get(), server.counters.accepted.get()), (0, 1));
}

#[tokio::test]
async fn the_same_address_by_udp_and_by_tcp_are_two_addresses() {
    let server = Server::start();
    let _receiving = server.mux.receive_in_background();
    let mut client = server.client().await;
    let address = client.local_addr().expect("bound");
    say(&mut client, &check(1)).await;
    server.next().await;
    let udp = UdpSocket::bind(address).await.expect("the number is free for UDP");
    udp.send_to(SRTP, server.mux.local_addr()).await.expect("sends");
    until(|| count(&server.mux.stats().dropped_unvalidated) == 1).await;
    assert!(server.inbox.is_empty());
}

#[tokio::test]
async fn a_connection_without_a_signed_check_for_a_session_is_closed() {
    let server = Server::start();
    let forged = signed(Class::Request, [1; 12], Some("ours:theirs"), "guess");
    for first in [SRTP, &forged, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = server.client().await;
        say(&mut client, first).await;
        is_closed(&mut client).await;
    }
    let mut client = server.client().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is open");
    is_closed(&mut client).await;
    let mut silent = server.client().await;
    silent.write_all(&[0, 100, 1]).await.expect("it is open");
    is_closed(&mut silent).await;
    assert_eq!((server.counters.strange.get(), server.counters.silent.get()), (4, 1));
    assert!(server.inbox.is_empty());
}

#[tokio::test]
async fn a_slow_reader_loses_packets_and_delays_no_other() {
    let server = Server::start();
    let (mut slow, mut quick) = (server.client().await, server.client().await);
    let addresses = [slow.local_addr().expect("bound"), quick.local_addr().expect("bound")];
    say(&mut slow, &check(1)).await;
    say(&mut quick, &check(2)).await;
    server.next().await;
    server.next().await;
    let mut packet = SRTP.to_vec();
    packet.resize(1_200, 7);
    let stats = server.mux.stats();
    let began = time::now();
    for timestamp in 0..20_000_u32 {
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        assert!(server.connection.send_by_tunnel(addresses[0], &packet));
        if count(&stats.tunnel_dropped) > 100 {
            break;
        }
        if timestamp % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(count(&stats.tunnel_dropped) > 100, "what nobody reads has a bound");
    assert!(time::now().since(began) < Duration::from_secs(5));
    assert!(server.connection.send_by_tunnel(addresses[1], b"to the other"));
    assert_eq!(hear(&mut quick).await, b"to the other");
}

#[tokio::test]
async fn a_connection_is_closed_soon_after_its_session() {
    let server = Server::start();
    let (mut one, mut other) = (server.client().await, server.client().await);
    say(&mut one, &check(1)).await;
    server.next().await;
    // Another session goes on.
    let goes_on = server.mux.connect();
    let inbox = Arc::new(Inbox::default());
    goes_on.deliver_to(&inbox);
    goes_on.set_local_credentials("mine", "password");
    say(&mut other, &signed(Class::Request, [2; 12], Some("mine:theirs"), "password")).await;
    until(|| !inbox.is_empty()).await;
    let address = one.local_addr().expect("bound");
    assert!(server.connection.send_by_tunnel(address, b"goodbye"));
    let Server { mux, connection, .. } = server;
    let from = time::now();
    drop(connection);
    assert_eq!(hear(&mut one).await, b"goodbye");
    is_closed(&mut one).await;
    let took = time::now().since(from);
    assert!(took >= GRACE, "{took:?}");
    assert!(goes_on.send_by_tunnel(other.local_addr().expect("bound"), b"on"));
    assert_eq!(hear(&mut other).await, b"on");
    drop(mux);
}

#[tokio::test]
async fn a_connection_that_serves_another_session_by_then_stays() {
    let server = Server::start();
    let mut client = server.client().await;
    say(&mut client, &check(1)).await;
    server.next().await;
    let next = server.mux.connect();
    let inbox = Arc::new(Inbox::default());
    next.deliver_to(&inbox);
    next.set_local_credentials("next", "password");
    let Server { mux, connection, .. } = server;
    drop(connection);
    say(&mut client, &signed(Class::Request, [2; 12], Some("next:theirs"), "password")).await;
    until(|| !inbox.is_empty()).await;
    sleep(GRACE * 2).await;
    assert!(next.send_by_tunnel(client.local_addr().expect("bound"), b"on"));
    assert_eq!(hear(&mut client).await, b"on");
    drop(next);
    is_closed(&mut client).await;
    drop(mux);
}

#[tokio::test]
async fn one_number_serves_udp_and_tcp_on_both_families() {
    let mux = bind(SocketAddr::from(([0, 0, 0, 0], 0)), Vec::new(), &TcpCounters::default()).expect("binds");
    for address in mux.local_addrs() {
        assert_eq!(address.port(), mux.local_addr().port());
        let local: IpAddr =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        TcpStream::connect((local, address.port())).await.expect("it listens");
    }
    let lines = mux.candidates();
    let with = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(with(" udp "), with(" tcp "), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains(" tcp ") || line.ends_with("tcptype passive")), "{lines:?}");
    let taken = bind(mux.local_addr(), Vec::new(), &TcpCounters::default());
    assert!(taken.is_err(), "somebody has it");
}
