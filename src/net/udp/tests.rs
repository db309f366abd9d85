//! The port with real sockets on loopback.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::UdpSocket;

use super::*;
use crate::transport::stun::Class;
use crate::transport::stun::tests::signed;

const SRTP: &[u8] = &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9];
const CLIENT_HELLO: &[u8] = &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Sends a datagram of a connection.
fn send(mux: &Arc<Mux>, connection: &Connection, to: SocketAddr, datagram: &[u8]) {
    if !connection.send_by_tunnel(to, datagram) {
        let mut batch = Batch::new(Arc::clone(mux));
        batch.push(to, BytesMut::from(datagram));
        batch.flush();
    }
}

fn inbox(connection: &Connection) -> Arc<Inbox> {
    let inbox = Arc::new(Inbox::default());
    connection.deliver_to(&inbox);
    inbox
}

/// The next datagram, which must come.
async fn next(inbox: &Inbox) -> (Vec<u8>, SocketAddr) {
    let received = tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| inbox.poll(cx)));
    let received = received.await.expect("it comes");
    (received.datagram.to_vec(), received.from)
}

/// Waits until the port has received so many datagrams in all.
async fn received(mux: &Mux, count: u64) {
    let enough = async {
        while mux.stats().received.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), enough).await.expect("loopback loses nothing");
}

#[tokio::test]
async fn two_clients_share_the_port_and_each_receives_only_its_own_datagrams() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let connections = [mux.connect(), mux.connect()];
    let inboxes = [inbox(&connections[0]), inbox(&connections[1])];
    let clients =
        [UdpSocket::bind(loopback()).await.expect("binds"), UdpSocket::bind(loopback()).await.expect("binds")];
    for at in 0..2 {
        connections[at].set_local_credentials(&format!("ufrag{at}"), "password");
        let check = signed(Class::Request, [at as u8; 12], Some(&format!("ufrag{at}:theirs")), "password");
        clients[at].send_to(&check, mux.local_addr()).await.expect("sends");
        let (datagram, from) = next(&inboxes[at]).await;
        assert_eq!((datagram, from), (check, clients[at].local_addr().expect("bound")));
    }
    for at in 0..2 {
        clients[at].send_to(&[SRTP, &[at as u8]].concat(), mux.local_addr()).await.expect("sends");
        let (datagram, from) = next(&inboxes[at]).await;
        assert_eq!((*datagram.last().expect("not empty"), from), (at as u8, clients[at].local_addr().expect("bound")));
        send(&mux, &connections[at], from, b"back");
        let mut buffer = [0; 16];
        let (len, from) = clients[at].recv_from(&mut buffer).await.expect("comes back");
        assert_eq!((&buffer[..len], from), (&b"back"[..], mux.local_addr()));
    }
}

#[tokio::test]
async fn spoofed_datagrams_are_dropped_and_counted() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let connection = mux.connect();
    let inbox = inbox(&connection);
    connection.set_local_credentials("ufrag", "password");
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    let stranger = UdpSocket::bind(loopback()).await.expect("binds");
    let check = signed(Class::Request, [1; 12], Some("ufrag:theirs"), "password");
    client.send_to(&check, mux.local_addr()).await.expect("sends");
    next(&inbox).await;
    let forged = signed(Class::Request, [2; 12], Some("ufrag:theirs"), "guess");
    for datagram in [CLIENT_HELLO, SRTP, &forged, b"\x00junk"] {
        stranger.send_to(datagram, mux.local_addr()).await.expect("sends");
    }
    received(&mux, 5).await;
    client.send_to(SRTP, mux.local_addr()).await.expect("sends");
    let (datagram, from) = next(&inbox).await;
    assert_eq!((&*datagram, from), (SRTP, client.local_addr().expect("bound")), "only the client's came through");
    let stats = mux.stats();
    assert_eq!(stats.dropped_unvalidated.load(Ordering::Relaxed), 2);
    assert_eq!(stats.dropped_unauthenticated.load(Ordering::Relaxed), 1);
    assert_eq!(stats.dropped_malformed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_answered_check_validates_its_address_too() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let connection = mux.connect();
    let inbox = inbox(&connection);
    connection.set_remote_password("theirs");
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    let check = signed(Class::Request, [7; 12], Some("theirs:ufrag"), "theirs");
    connection.sent_check(client.local_addr().expect("bound"), &check);
    client.send_to(&signed(Class::Success, [7; 12], None, "theirs"), mux.local_addr()).await.expect("sends");
    client.send_to(CLIENT_HELLO, mux.local_addr()).await.expect("sends");
    next(&inbox).await;
    assert_eq!(next(&inbox).await.0, CLIENT_HELLO);
}

#[tokio::test]
async fn the_port_is_a_stun_server() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    client.send_to(&stun::binding_request(&[3; 12]), mux.local_addr()).await.expect("sends");
    let mut buffer = [0; 64];
    let (len, _) = client.recv_from(&mut buffer).await.expect("answered");
    assert_eq!(buffer[..len], stun::mapped_address(&[3; 12], client.local_addr().expect("bound")));
}

#[tokio::test]
async fn a_dropped_connection_receives_nothing() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let connection = mux.connect();
    let inbox = inbox(&connection);
    connection.set_local_credentials("ufrag", "password");
    drop(connection);
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    let check = signed(Class::Request, [1; 12], Some("ufrag:theirs"), "password");
    client.send_to(&check, mux.local_addr()).await.expect("sends");
    received(&mux, 1).await;
    assert_eq!(mux.stats().dropped_unknown_ufrag.load(Ordering::Relaxed), 1);
    assert!(inbox.is_empty());
}

#[tokio::test]
async fn candidates_name_the_public_addresses_or_the_bound_one() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let port = mux.local_addr().port();
    assert_eq!(mux.candidates(), [format!("candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host")]);
    let public = vec!["203.0.113.5".parse().expect("ip"), "2001:db8::5".parse().expect("ip")];
    let mux = Mux::bind(loopback(), public).expect("binds");
    let _receiving = mux.receive_in_background();
    let port = mux.local_addr().port();
    let expected = [
        format!("candidate:1 1 udp 2130706431 203.0.113.5 {port} typ host"),
        format!("candidate:2 1 udp 2130706175 2001:db8::5 {port} typ host"),
    ];
    assert_eq!(mux.candidates(), expected);
}

#[tokio::test]
async fn an_unspecified_address_binds_both_families_on_one_port() {
    let mux = Mux::bind(SocketAddr::from(([0, 0, 0, 0], 0)), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    if let (Some(v4), Some(v6)) = (&mux.v4, &mux.v6) {
        assert_eq!(v4.local.port(), v6.local.port());
    }
    assert!(!mux.candidates().is_empty());
    assert!(mux.candidates().iter().all(|line| !line.contains("0.0.0.0") && !line.contains(" :: ")));
}

#[tokio::test]
async fn a_batch_leaves_in_order_and_unsendable_datagrams_are_counted() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    let mut batch = Batch::new(Arc::clone(&mux));
    for number in 0..150 {
        batch.push(client.local_addr().expect("bound"), BytesMut::from(&[number; 20][..]));
    }
    batch.push("[2001:db8::1]:9".parse().expect("an address"), BytesMut::from(&b"no socket for it"[..]));
    batch.flush();
    let mut buffer = [0; 64];
    for number in 0..150 {
        let received = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer));
        let len = received.await.expect("it comes").expect("it is received");
        assert_eq!(buffer[..len], [number; 20]);
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let stats = mux.stats();
    assert_eq!((count(&stats.sent), count(&stats.sent_bytes), count(&stats.send_dropped)), (150, 3_000, 1));
}

#[tokio::test]
async fn frames_cut_into_equal_packets_arrive_as_single_datagrams_in_order() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let clients =
        [UdpSocket::bind(loopback()).await.expect("binds"), UdpSocket::bind(loopback()).await.expect("binds")];
    let addresses = clients.each_ref().map(|client| client.local_addr().expect("bound"));
    let mut batch = Batch::new(Arc::clone(&mux));
    let mut expected = [Vec::new(), Vec::new()];
    for frame in 0..20_u8 {
        for (at, expected) in expected.iter_mut().enumerate() {
            // A voice packet, a frame of several packets, another voice packet.
            for (number, length) in [120, 1_100, 1_100, 1_100, 400, 120].into_iter().enumerate() {
                let datagram = vec![frame * 10 + number as u8; length];
                batch.push(addresses[at], BytesMut::from(&datagram[..]));
                expected.push(datagram);
            }
        }
    }
    batch.flush();
    let mut buffer = [0; DATAGRAM_MAX];
    for (client, expected) in clients.iter().zip(&expected) {
        for datagram in expected {
            let received = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer));
            let length = received.await.expect("it arrives").expect("it is received");
            assert_eq!(buffer[..length], datagram[..]);
        }
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&mux.stats().sent), count(&mux.stats().send_dropped)), (240, 0));
}

/// A machine with several addresses: on loopback each of 127.0.0.0/8 is one.
#[tokio::test]
async fn responses_leave_from_the_address_that_received_the_check() {
    let mux = Mux::bind(SocketAddr::from(([0, 0, 0, 0], 0)), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let port = mux.local_addr().port();
    let connection = mux.connect();
    let inbox = inbox(&connection);
    connection.set_local_credentials("ufrag", "password");
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    let address = client.local_addr().expect("bound");
    let mut buffer = [0; 64];
    for (number, asked) in [(1, [127, 0, 0, 1]), (2, [127, 0, 0, 2]), (3, [127, 0, 0, 1]), (4, [127, 0, 0, 3])] {
        let asked = SocketAddr::from((asked, port));
        client.send_to(&stun::binding_request(&[number; 12]), asked).await.expect("sends");
        assert_eq!(client.recv_from(&mut buffer).await.expect("answered").1, asked);
        let check = signed(Class::Request, [number; 12], Some("ufrag:theirs"), "password");
        client.send_to(&check, asked).await.expect("sends");
        next(&inbox).await;
        send(&mux, &connection, address, b"back");
        assert_eq!(client.recv_from(&mut buffer).await.expect("comes back"), (4, asked));
    }
}

/// The number of 3,000 checks of a connection to an address that may be sent.
fn checks_allowed(connection: &Connection, to: SocketAddr) -> usize {
    let check = signed(Class::Request, [9; 12], Some("theirs:ufrag"), "theirs");
    (0..3_000).filter(|_| connection.sent_check(to, &check)).count()
}

#[tokio::test]
async fn checks_of_all_sessions_to_hosts_that_do_not_answer_are_limited_per_network() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let begun = time::now();
    let victim = |port| SocketAddr::from(([192, 0, 2, 9], port));
    // Many joins, each with candidates at other ports, and ICE restarts of them: their connections stay.
    let connections: Vec<_> = (0..4).map(|_| mux.connect()).collect();
    let to = |at: usize| victim(1_000 + at as u16);
    let allowed: usize = connections.iter().enumerate().map(|(at, one)| checks_allowed(one, to(at))).sum();
    let refilled = time::now().since(begun).as_secs_f64() * f64::from(UNANSWERED_CHECKS_PER_SECOND);
    assert!(allowed as f64 <= f64::from(UNANSWERED_CHECKS_BURST) + refilled + 1.0, "{allowed} of 12,000");
    assert!(mux.stats().checks_limited.load(Ordering::Relaxed) >= 12_000 - allowed as u64);
    let other = checks_allowed(&connections[0], SocketAddr::from(([192, 0, 2, 10], 9)));
    assert!(other >= UNANSWERED_CHECKS_BURST as usize, "another network: {other}");
}

#[tokio::test]
async fn a_request_does_not_exempt_its_address_from_the_limit_of_checks_but_an_answer_does() {
    let mux = Mux::bind(loopback(), Vec::new()).expect("binds");
    let _receiving = mux.receive_in_background();
    let connection = mux.connect();
    let inbox = inbox(&connection);
    connection.set_local_credentials("ufrag", "password");
    connection.set_remote_password("theirs");
    let client = UdpSocket::bind(loopback()).await.expect("binds");
    let address = client.local_addr().expect("bound");
    // Its source address may be forged.
    client
        .send_to(&signed(Class::Request, [1; 12], Some("ufrag:x"), "password"), mux.local_addr())
        .await
        .expect("sends");
    next(&inbox).await;
    assert!(checks_allowed(&connection, address) < 3_000);
    // The limit lets a check pass from time to time.
    let check = signed(Class::Request, [2; 12], Some("theirs:ufrag"), "theirs");
    while !connection.sent_check(address, &check) {
        tokio::task::yield_now().await;
    }
    client.send_to(&signed(Class::Success, [2; 12], None, "theirs"), mux.local_addr()).await.expect("sends");
    next(&inbox).await;
    assert_eq!(checks_allowed(&connection, address), 3_000, "the host has answered");
}
