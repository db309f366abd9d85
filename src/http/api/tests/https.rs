//! HTTPS and what else comes to its port: plain HTTP, TURN, the authority that asks for a certificate. Real sockets on loopback.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::net::tls::tests::{connect, self_signed};
use crate::net::turn;
use crate::net::udp::Mux;
use crate::transport::stun;

/// An API that is served by HTTPS, with TURN.
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

    /// What comes back until the connection is closed, after so much is said.
    async fn plainly(&self, say: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(say).await.expect("it is open");
        let mut heard = Vec::new();
        // A connection that is cut off is as good as one that is closed.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it is closed");
        heard
    }
}

#[tokio::test]
async fn plain_http_at_the_port_of_https_is_told_where_to_go() {
    let https = Https::new().await;
    let text = async |say: String| String::from_utf8(https.plainly(say.as_bytes()).await).expect("text");
    let page = text(format!("GET /?room=demo HTTP/1.1\r\nHost: {}\r\n\r\n", https.address)).await;
    assert!(page.starts_with("HTTP/1.1 307 "), "{page}");
    assert!(page.contains(&format!("\r\nlocation: https://{}/?room=demo\r\n", https.address)), "{page}");
    let post = text("POST /whip/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nv=0".to_owned()).await;
    assert!(post.starts_with("HTTP/1.1 400 ") && post.contains("write https://"), "{post}");
    assert!(post.contains("application/problem+json") && post.contains("\r\nconnection: close\r\n"), "{post}");
    let two = text("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()).await;
    assert_eq!(two.matches("HTTP/1.1").count(), 1, "{two}");
    let endless = text(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(20_000))).await;
    assert!(!endless.contains("307"), "{endless}");
    assert!(https.api.app.rooms().list().await.is_empty(), "nothing came of it");
}

#[tokio::test]
async fn who_says_nothing_or_little_is_closed_in_time() {
    let https = Https::new().await;
    let from = time::now();
    let (nothing, little) = tokio::join!(https.plainly(b""), https.plainly(b"GET / HT"));
    assert!(nothing.is_empty() && !little.starts_with(b"HTTP/1.1 308"), "{little:?}");
    // A handshake of TLS would be waited for ten seconds.
    assert!(time::now().since(from) < Duration::from_secs(8));
}

#[tokio::test]
async fn turn_is_spoken_inside_tls_and_not_beside_it() {
    let https = Https::new().await;
    // The head of a Binding request: nothing that a TLS record begins with.
    let request = stun::binding_request(&[7; 12]);
    let beside = https.plainly(&request).await;
    assert!(!stun::is_stun(&beside), "{beside:?}");
    for alpn in [&[][..], &[&b"stun.turn"[..]]] {
        let (mut stream, _) = connect(https.address, alpn).await.expect("it speaks TLS");
        stream.write_all(&request).await.expect("it is open");
        let mut answer = [0; 20];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        assert_eq!((answer[..2].to_vec(), &answer[8..]), (vec![1, 1], &[7; 12][..]), "{alpn:?}");
    }
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let (mut stream, _) = connect(https.address, alpn).await.expect("it speaks TLS");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it is open");
        let mut heard = String::new();
        let _ = timeout(PATIENCE, stream.read_to_string(&mut heard)).await.expect("in time");
        assert!(heard.starts_with("HTTP/1.1 200 "), "{alpn:?}: {heard}");
    }
}
