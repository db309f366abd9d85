//! The HTTPS port, which also receives plain HTTP and TURN. Real sockets on loopback.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::net::tls::tests::{connect, self_signed};
use crate::net::turn;
use crate::net::udp::Mux;
use crate::transport::stun;

/// An API served by HTTPS, with TURN.
struct Https {
    api: Api,
    address: SocketAddr,
    _certificate: TempDir,
}

impl Https {
    async fn new() -> Self {
        let api = Api::with(|config| config.limits.header_seconds = 1);
        let (tls, certificate) = self_signed().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("bound");
        let mut config = Config::default();
        config.media.bind = Ipv4Addr::LOCALHOST.into();
        (config.turn.port, config.turn.tls_port) = (Some(0), Some(0));
        let mux = Mux::bind((Ipv4Addr::LOCALHOST, 0).into(), Vec::new()).expect("loopback has free ports");
        let (_, turn) = turn::start(&config, &mux, Some(&tls), Some(address.port())).expect("loopback has free ports");
        tokio::spawn(serve(listener, api.app.clone(), Some(tls), turn));
        Self { api, address, _certificate: certificate }
    }

    /// Sends `request` without TLS; returns all bytes received until the connection is closed.
    async fn exchange_plain(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(request).await.expect("it is open");
        let mut received = Vec::new();
        // A reset connection counts as closed.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("it is closed");
        received
    }
}

#[tokio::test]
async fn plain_http_on_the_https_port_is_redirected_or_refused() {
    let https = Https::new().await;
    let text = async |request: String| String::from_utf8(https.exchange_plain(request.as_bytes()).await).expect("text");
    let page = text(format!("GET /?room=demo HTTP/1.1\r\nHost: {}\r\n\r\n", https.address)).await;
    assert!(page.starts_with("HTTP/1.1 307 "), "{page}");
    assert!(page.contains(&format!("\r\nlocation: https://{}/?room=demo\r\n", https.address)), "{page}");
    let post = text("POST /whip/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nv=0".to_owned()).await;
    assert!(post.starts_with("HTTP/1.1 400 ") && post.contains("use https://"), "{post}");
    assert!(post.contains("application/problem+json") && post.contains("\r\nconnection: close\r\n"), "{post}");
    let two =
        text("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()).await;
    assert_eq!(two.matches("HTTP/1.1").count(), 1, "{two}");
    let endless = text(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(20_000))).await;
    assert!(!endless.contains("307"), "{endless}");
    assert!(https.api.app.rooms().list().await.is_empty(), "the requests must not be executed");
}

#[tokio::test]
async fn an_idle_or_slow_connection_is_closed_in_time() {
    let https = Https::new().await;
    let from = time::now();
    let (idle, slow) = tokio::join!(https.exchange_plain(b""), https.exchange_plain(b"GET / HT"));
    assert!(idle.is_empty() && !slow.starts_with(b"HTTP/1.1 307"), "{slow:?}");
    // The time limit of a TLS handshake is ten seconds.
    assert!(time::now().since(from) < Duration::from_secs(8));
}

#[tokio::test]
async fn turn_on_the_https_port_requires_tls() {
    let https = Https::new().await;
    // A Binding request does not start like a TLS record.
    let request = stun::binding_request(&[7; 12]);
    let answer = https.exchange_plain(&request).await;
    assert!(!stun::is_stun(&answer), "{answer:?}");
    for alpn in [&[][..], &[&b"stun.turn"[..]]] {
        let (mut stream, _) = connect(https.address, alpn).await.expect("it speaks TLS");
        stream.write_all(&request).await.expect("it is open");
        let mut answer = [0; 20];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        assert_eq!((answer[..2].to_vec(), &answer[8..]), (vec![1, 1], &[7; 12][..]), "{alpn:?}");
    }
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let (mut stream, _) = connect(https.address, alpn).await.expect("it speaks TLS");
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .expect("it is open");
        let mut received = String::new();
        let _ = timeout(PATIENCE, stream.read_to_string(&mut received)).await.expect("in time");
        assert!(received.starts_with("HTTP/1.1 200 "), "{alpn:?}: {received}");
    }
}
