//! WHEP's server-sent events, over a real connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Joins as a viewer; returns the path at which event streams are opened.
async fn join_viewer(api: &Api, room: &str) -> String {
    let joined = api.post_offer(&format!("/whep/{room}"), &offer("recvonly")).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    format!("{}/events", joined.header("location"))
}

/// An open event stream.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn open(server: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(server).await.expect("it listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut events = Self { stream, text: String::new() };
        events.until("\r\n\r\n").await;
        let head = events.text.to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
        events
    }

    /// Reads until this text has arrived.
    async fn until(&mut self, text: &str) {
        let arrives = async {
            while !self.text.contains(text) {
                assert!(self.more().await, "the stream ended without `{text}`: {}", self.text);
            }
        };
        tokio::time::timeout(PATIENCE, arrives)
            .await
            .unwrap_or_else(|_| panic!("`{text}` does not arrive: {}", self.text));
    }

    /// Reads to the end.
    async fn rest(&mut self) -> &str {
        let ends = async { while self.more().await {} };
        tokio::time::timeout(PATIENCE, ends).await.expect("it ends");
        &self.text
    }

    async fn more(&mut self) -> bool {
        let mut some = [0; 1024];
        let read = self.stream.read(&mut some).await.unwrap_or(0);
        self.text += &String::from_utf8_lossy(&some[..read]);
        read > 0
    }
}

#[tokio::test]
async fn a_player_receives_active_inactive_and_viewercount() {
    let api = Api::new();
    let server = api.listen().await;
    let opened = api.send("POST", &join_viewer(&api, "r").await, &[], "").await;
    assert_eq!((opened.status, opened.body.as_str()), (201, ""), "{opened:?}");
    let mut events = Events::open(server, opened.header("location")).await;
    events.until("event: viewercount\ndata: {\"viewercount\":0}\n\n").await;
    assert!(!events.text.contains("active"), "no media has started or stopped: {}", events.text);
    let (mut client, session) = api.call("r").await;
    let active = async {
        while !events.text.contains("event: active\ndata: {}\n\n") {
            client.send_both().await;
            let _ = tokio::time::timeout(Duration::from_millis(50), events.more()).await;
        }
    };
    tokio::time::timeout(PATIENCE, active).await.expect("the event arrives");
    assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200);
    events.until("event: inactive\ndata: {}\n\n").await;
}

#[tokio::test]
async fn a_player_receives_only_the_events_it_subscribed_to() {
    let api = Api::new();
    let server = api.listen().await;
    let path = join_viewer(&api, "r").await;
    let some = api.send_json("POST", &path, r#"["reconnect","layers"]"#).await;
    assert_eq!(some.status, 201, "unknown events are ignored: {some:?}");
    let mut events = Events::open(server, some.header("location")).await;
    api.app.drain();
    let received = events.rest().await;
    assert!(received.contains("event: reconnect\ndata: {}\n\n") && !received.contains("viewercount"), "{received}");
    api.send_json("POST", &path, r#"["layers"]"#).await.problem(422);
    api.send_json("POST", &path, r#"{"active":true}"#).await.problem(422);
    api.send("POST", &path, &[("content-type", SDP)], "v=0").await.problem(415);
}

#[tokio::test]
async fn an_event_stream_ends_when_it_is_deleted_and_with_its_session() {
    let api = Api::new();
    let server = api.listen().await;
    let path = join_viewer(&api, "r").await;
    let opened = api.send("POST", &path, &[], "").await.header("location").to_owned();
    let mut events = Events::open(server, &opened).await;
    assert_eq!(api.send("DELETE", &opened, &[], "").await.status, 200);
    events.rest().await;
    for method in ["GET", "DELETE"] {
        api.send(method, &opened, &[], "").await.problem(404);
    }
    let opened = api.send("POST", &path, &[], "").await.header("location").to_owned();
    let mut events = Events::open(server, &opened).await;
    let session = path.strip_suffix("/events").expect("it is one");
    assert_eq!(api.send("DELETE", session, &[], "").await.status, 200);
    events.rest().await;
    api.get(&opened).await.problem(404);
    api.send("POST", &path, &[], "").await.problem(404);
    api.get("/v1/sessions/nobody/events/one").await.problem(404);
}

#[tokio::test]
async fn the_event_streams_of_a_session_are_limited() {
    let api = Api::new();
    let path = join_viewer(&api, "r").await;
    for _ in 0..4 {
        assert_eq!(api.send("POST", &path, &[], "").await.status, 201);
    }
    assert!(api.send("POST", &path, &[], "").await.problem(409).contains("DELETE"));
}
