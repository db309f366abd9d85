use std::net::SocketAddr;
use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::destination::{Destination, Target};
use crate::transport::ice::Role;
use crate::transport::ice::check::{self, Check};
use crate::transport::stun::{Class, Message};

fn crypto() -> Arc<dyn RTCCryptoProvider> {
    rtc::crypto::default_provider().expect("ring is built in")
}

/// Answers one POST with a candidate at `media`; gives the credentials of the offer.
async fn serve(listener: TcpListener, ours: &Credentials, media: SocketAddr) -> Credentials {
    let (mut stream, _) = listener.accept().await.expect("connected");
    let mut request = String::new();
    let whole = |request: &str| {
        let (head, body) = request.split_once("\r\n\r\n")?;
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(length.parse() == Ok(body.len()))
    };
    while whole(&request) != Some(true) {
        let mut bytes = [0; 8_192];
        let length = stream.read(&mut bytes).await.expect("open");
        assert!(length > 0, "a whole request: {request}");
        request.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    let Credentials { ufrag, password } = ours;
    let answer = format!(
        "v=0\r\na=setup:passive\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=fingerprint:sha-256 AB\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=candidate:1 1 udp 1 {} {} typ host\r\n",
        media.ip(),
        media.port()
    );
    let length = answer.len();
    let head = format!("HTTP/1.1 201 Created\r\nlocation: /s\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all((head + &answer).as_bytes()).await.expect("open");
    let value = |prefix: &str| {
        let found = request.lines().find_map(|line| line.strip_prefix(prefix));
        found.expect("the offer has it").to_owned()
    };
    Credentials { ufrag: value("a=ice-ufrag:"), password: value("a=ice-pwd:") }
}

/// A signed check of the server to the client.
fn check(from: &Credentials, to: &Credentials) -> Vec<u8> {
    let check = Check { role: Role::Controlled, tie_breaker: 1, priority: 1, nominates: false, from, to };
    check::request(&check, &*crypto()).expect("can be signed").1
}

#[tokio::test]
async fn a_signed_check_from_a_refused_address_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("whip+http://{}/whip", listener.local_addr().expect("bound"));
    let destination = Destination::output(&url).expect("a URL");
    let Target::Whip(web) = destination.target() else { panic!("{url}") };
    let guard = Guard { allow: vec!["127.0.0.1/32".parse().expect("a network")], ..Guard::default() };
    let config = SessionConfig {
        server: web,
        token: None,
        guard: &guard,
        direction: Direction::SendOnly,
        codec: Codec::Vp8,
        collect: Collect::default(),
    };
    let media = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let refused = std::net::UdpSocket::bind("127.0.0.2:0").expect("a port");
    refused.set_nonblocking(true).expect("can be set");
    let ours = Credentials::random();
    let served = serve(listener, &ours, media.local_addr().expect("bound"));
    let (session, theirs) = tokio::join!(Session::open(config), served);
    let mut session = session.expect("opens");
    let to = session.socket.local_addr().expect("bound");
    // Both wait in one socket, so the refused one is handled first.
    refused.send_to(&check(&ours, &theirs), to).expect("sent");
    media.send_to(&check(&ours, &theirs), to).await.expect("sent");
    let mut datagram = [0; DATAGRAM_MAX];
    loop {
        session.drive().await.expect("goes on");
        session.wait().await;
        session.flush().await;
        let Ok(length) = media.try_recv(&mut datagram) else { continue };
        if Message::parse(&datagram[..length]).is_some_and(|message| message.class == Class::Success) {
            break;
        }
    }
    session.drive().await.expect("goes on");
    let received = refused.recv(&mut datagram).map_err(|error| error.kind());
    assert_eq!(received, Err(std::io::ErrorKind::WouldBlock), "neither a response nor a check is sent there");
}
