//! The outgoing client restarts ICE when its server becomes unreachable (RFC 9725 section 4.3.3), and media continues.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::*;
use crate::client::connection::Collect;
use crate::client::session::{Session, SessionConfig};
use crate::destination::{Destination, Guard, Target};
use crate::sdp::{Direction, replace_candidates};

/// From the end of a path to media on another one.
const BACK_WITHIN: Duration = Duration::from_secs(8);

/// Passes datagrams on between a server and the last who sent one; ends with its handle.
async fn relay(server: SocketAddr) -> (SocketAddr, AbortHandle) {
    let (near, far) = (bound().await, bound().await);
    let address = near.local_addr().expect("bound");
    let passes = async move {
        let (mut up, mut down, mut client) = ([0; 2_048], [0; 2_048], None);
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut up) => {
                    client = Some(from);
                    let _ = far.send_to(&up[..length], server).await;
                }
                Ok((length, _)) = far.recv_from(&mut down) => {
                    if let Some(client) = client {
                        let _ = near.send_to(&down[..length], client).await;
                    }
                }
            }
        }
    };
    (address, tokio::spawn(passes).abort_handle())
}

async fn bound() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds")
}

/// A whole request: its first line, its head and its body.
async fn request(stream: &mut TcpStream) -> (String, String, String) {
    let mut text = String::new();
    let mut buffer = [0; 16_384];
    loop {
        let length = stream.read(&mut buffer).await.expect("open");
        assert!(length > 0, "a whole request: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let wanted = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if wanted.map_or(0, |wanted| wanted.parse().expect("a number")) <= body.len() {
            let line = text.lines().next().expect("it has one").to_owned();
            return (line, head, body.to_owned());
        }
    }
}

async fn reply(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nlocation: /session\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("open");
}

/// Drives a call, which says something every 20 ms, until something is so.
async fn until(session: &mut Session, what: &str, mut is_so: impl FnMut(&Session) -> bool) -> Duration {
    let begun = now();
    let mut said = begun;
    while !is_so(session) {
        assert!(now().since(begun) < PATIENCE, "{what}");
        session.drive().await.unwrap_or_else(|why| panic!("{what}: {why}"));
        if session.is_connected() && now().since(said) > Duration::from_millis(20) {
            said = now();
            session.connection.send_audio(Bytes::from_static(b"opus"), said.since(begun), None, false);
            session.flush().await;
        }
        let _ = timeout(Duration::from_millis(20), session.wait()).await;
    }
    now().since(begun)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_restarts_ice_when_its_server_is_unreachable() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let url = format!("whip+http://{}/whip/room", listener.local_addr().expect("bound"));
    let destination = Destination::output(&url).expect("a URL");
    let Target::Whip(web) = destination.target() else { panic!("{url}") };
    let guard = Guard { allow_private: true, ..Guard::default() };
    let config = SessionConfig {
        server: web,
        token: None,
        guard: &guard,
        direction: Direction::SendOnly,
        codec: Codec::Vp8,
        collect: Collect::default(),
    };
    let served = async {
        let (mut stream, _) = listener.accept().await.expect("connected");
        let (line, _, offer) = request(&mut stream).await;
        assert!(line.starts_with("POST "), "{line}");
        // The server must not know another path to the client either.
        let (server, answer) = Server::answer(&replace_candidates(&offer, &[])).await;
        let (by, path) = relay(server.config.mux.local_addr()).await;
        let candidate = format!("candidate:1 1 udp 1 {} {} typ host", by.ip(), by.port());
        reply(&mut stream, "201 Created", &replace_candidates(&answer, &[candidate])).await;
        (server, path)
    };
    let (session, (mut server, path)) = tokio::join!(Session::open(config), served);
    let mut session = session.expect("begins");
    until(&mut session, "media goes over the relay", |_| server.packets.try_recv().is_ok()).await;

    path.abort();
    let restarted = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("connected");
        let (line, head, fragment) = request(&mut stream).await;
        assert!(line.starts_with("PATCH /session") && head.contains("if-match: *"), "{line}\n{head}");
        let fragment = Fragment::parse(&fragment).expect("a fragment");
        let (ours, _) = server.peer.restart_ice(&fragment).await.expect("restarts");
        reply(&mut stream, "200 OK", &ours).await;
        while server.packets.try_recv().is_ok() {}
        server
    });
    let took = until(&mut session, "the server is asked", |_| restarted.is_finished()).await;
    let mut server = restarted.await.expect("it restarts");
    let took = took + until(&mut session, "media goes on", |_| server.packets.try_recv().is_ok()).await;
    assert!(took < BACK_WITHIN, "{took:?}");
    assert!(session.is_connected());
    server.wait(|event| *event == PeerEvent::Connected).await;
}
