//! The events, read by a real WebSocket client.

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;
use crate::peer::PeerEvent;
use crate::room::chat::{ChatMessage, ChatRequest, Sender};
use crate::rooms::RoomError;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) async fn open(address: SocketAddr, path: &str) -> Result<Socket, tungstenite::Error> {
    tokio_tungstenite::connect_async(format!("ws://{address}{path}")).await.map(|(socket, _)| socket)
}

/// The next text message; panics if the WebSocket closes.
pub(super) async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("events are JSON"),
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("no event: {other:?}"),
        }
    }
}

/// The code and reason of the close frame.
async fn end(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

/// A chat message past all limits.
async fn say(api: &Api, room: &RoomName, text: &str) -> Result<ChatMessage, RoomError> {
    api.app.rooms().chat(room, Sender::Program(String::new()), ChatRequest { text: text.into(), to: None }).await
}

pub(super) async fn send(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).await.expect("it is open");
}

#[tokio::test]
async fn events_start_with_the_room_and_have_consecutive_versions() {
    let api = Api::new();
    let address = api.listen().await;
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    let mut socket = open(address, "/v1/rooms/r/events").await.expect("it opens");
    let room = next(&mut socket).await;
    assert_eq!((&room["type"], &room["name"]), (&json!("room"), &json!("r")), "{room}");
    let version = room["version"].as_u64().expect("a number");
    send(&mut socket, &json!({"type": "chat", "text": "hello"})).await;
    let chat = next(&mut socket).await;
    assert_eq!((&chat["type"], &chat["text"]), (&json!("chat"), &json!("hello")), "{chat}");
    assert_eq!(chat["version"], version + 1, "{chat}");
    assert_eq!(api.send_json("PATCH", "/v1/rooms/r", r#"{"locked":true}"#).await.status, 200);
    let changed = next(&mut socket).await;
    assert_eq!((&changed["type"], &changed["locked"]), (&json!("room"), &json!(true)), "{changed}");
    assert_eq!(changed["version"], version + 2, "{changed}");
    assert!(api.app.metrics().text().contains("commingle_event_streams 1"));
    assert_eq!(api.get("/v1/rooms/r").await.json()["participants"], json!([]), "a reader is not a participant");

    assert_eq!(api.send("DELETE", "/v1/rooms/r", &[], "").await.status, 204);
    assert_eq!(next(&mut socket).await["type"], "ended");
    assert_eq!(end(&mut socket).await, (1000, "the room has ended".to_owned()));
}

/// The next event of this type; skips others.
pub(super) async fn next_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let event = next(socket).await;
        if event["type"] == kind {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn left_with_its_reason_reaches_all_readers_and_the_participant_itself() {
    let api = Api::new();
    let address = api.listen().await;
    let mut observer = None;
    for (participant, reason) in [("p1", "removed"), ("p2", "left"), ("p3", "left")] {
        let (client, session) = api.call("r").await;
        let secret = session.rsplit('/').next().expect("a path");
        let mut own = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
        if observer.is_none() {
            observer = Some(open(address, "/v1/rooms/r/events").await.expect("it opens"));
        }
        match participant {
            "p1" => assert_eq!(api.send("DELETE", "/v1/rooms/r/participants/p1", &[], "").await.status, 204),
            "p2" => assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200),
            _ => client.pc.close().await.expect("closes"),
        }
        for socket in [Some(&mut own), observer.as_mut()].into_iter().flatten() {
            let left = next_of(socket, "left").await;
            assert_eq!((&left["participant"], &left["reason"]), (&json!(participant), &json!(reason)), "{left}");
        }
        assert_eq!(end(&mut own).await, (1000, "your session has ended".to_owned()));
    }
}

#[tokio::test]
async fn events_of_a_session_that_never_connected_end_with_it() {
    let api = Api::new();
    let address = api.listen().await;
    let (session, _) = api.join("r").await;
    let secret = session.rsplit('/').next().expect("a path");
    let mut own = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
    assert_eq!(next(&mut own).await["type"], "room");
    assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200);
    assert_eq!(end(&mut own).await, (1000, "your session has ended".to_owned()));
}

#[tokio::test]
async fn invalid_messages_get_errors_and_floods_close_the_events() {
    let api = Api::with(|config| config.limits.message_bytes = 2048);
    let address = api.listen().await;
    let (session, _) = api.join("r").await;
    let secret = session.rsplit('/').next().expect("a path");
    let path = format!("/v1/rooms/r/events?session={secret}");
    let mut socket = open(address, &path).await.expect("it opens");
    assert_eq!(next(&mut socket).await["type"], "room");
    for (message, names) in [
        (json!([]), "object"),
        (json!({"type": "dance"}), "type"),
        (json!({"type": "update", "participant": "x1"}), "x1"),
        (json!({"type": "update", "gain": 3}), "gain"),
        (json!({"type": "update", "participant": "p99", "audio_muted": true}), "p99"),
        (json!({"type": "layout"}), "layout"),
        (json!({"type": "layout", "layout": {"kind": "spiral"}}), "spiral"),
        (json!({"type": "chat", "text": ""}), "text"),
    ] {
        send(&mut socket, &message).await;
        let error = next(&mut socket).await;
        assert_eq!(error["type"], "error", "{message}: {error}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(names)), "{message}: {error}");
    }
    send(&mut socket, &json!({"type": "chat", "text": "x".repeat(3000)})).await;
    assert_eq!(end(&mut socket).await.0, 1009, "too large");

    let mut socket = open(address, &path).await.expect("it opens");
    for _ in 0..100 {
        let _ = socket.send(Message::text("{}")).await;
    }
    assert_eq!(end(&mut socket).await, (1008, "too many messages".to_owned()));
}

#[tokio::test]
async fn events_require_a_role() {
    let api = Api::keyed();
    let address = api.listen().await;
    let refused = async |path: &str| match open(address, path).await {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(refused("/v1/rooms/r/events").await, 401);
    assert_eq!(refused("/v1/rooms/r/events?session=nobody").await, 401);
    let viewer = token(Some("r"), Role::Viewer);
    assert_eq!(refused(&format!("/v1/rooms/another/events?token={viewer}")).await, 403);
    assert_eq!(refused(&format!("/v1/rooms/r/events?token={viewer}")).await, 404, "the room does not exist yet");

    let bearer = format!("Bearer {}", token(None, Role::Operator));
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    assert_eq!(api.send("POST", "/v1/rooms", &headers, r#"{"name":"r"}"#).await.status, 201);
    let mut socket = open(address, &format!("/v1/rooms/r/events?token={viewer}")).await.expect("it opens");
    assert_eq!(next(&mut socket).await["type"], "room");
    for message in [
        json!({"type": "layout", "layout": {"kind": "grid"}}),
        json!({"type": "update", "participant": "p1", "audio_muted": true}),
        json!({"type": "update", "audio_muted": true}),
        json!({"type": "chat", "text": "hello"}),
    ] {
        send(&mut socket, &message).await;
        assert_eq!(next(&mut socket).await["type"], "error", "{message}");
    }
    api.app.close();
    assert_eq!(end(&mut socket).await, (1001, "the server is shutting down".to_owned()));
    let plain = Api::keyed();
    let bearer = format!("Bearer {viewer}");
    plain.send("GET", "/v1/rooms/r/events", &[("authorization", &bearer)], "").await.problem(426);
}

#[tokio::test]
async fn a_slow_reader_is_closed_with_try_again_later() {
    let api = Api::new();
    let address = api.listen().await;
    let room = "r".parse().expect("a name");
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    let mut socket = open(address, "/v1/rooms/r/events").await.expect("it opens");
    assert_eq!(next(&mut socket).await["type"], "room");
    // 24 MB, more than all buffers hold, while the client does not read.
    for _ in 0..3_000 {
        say(&api, &room, &"🙂".repeat(2_000)).await.expect("the room is there");
    }
    assert_eq!(end(&mut socket).await.0, 1013);
    assert!(api.app.metrics().text().contains("commingle_event_streams_too_slow_total 1"));
    let mut again = open(address, "/v1/rooms/r/events").await.expect("it opens");
    assert!(next(&mut again).await["version"].as_u64().is_some_and(|version| version > 2_900), "the current room");
}

#[tokio::test]
async fn ice_restart_goes_only_to_the_disconnected_participant() {
    let api = Api::new();
    let address = api.listen().await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let (session, _) = api.join("r").await;
        let secret = session.rsplit('/').next().expect("a path").to_owned();
        let socket = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
        sockets.push((secret, socket));
    }
    let mut observer = open(address, "/v1/rooms/r/events").await.expect("it opens");
    let room = "r".parse().expect("a name");
    api.app.rooms().peer_says(&sockets[0].0, PeerEvent::Disconnected).await;
    assert_eq!(next_of(&mut sockets[0].1, "ice_restart").await, json!({"type": "ice_restart"}));
    say(&api, &room, "done").await.expect("the room is there");
    for socket in [&mut sockets[1].1, &mut observer] {
        loop {
            let event = next(socket).await;
            assert_ne!(event["type"], "ice_restart", "{event}");
            if event["type"] == "chat" {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_signals_reach_only_the_other_participant() {
    let api = Api::with(|config| config.rooms.direct_for_two = true);
    let address = api.listen().await;
    let mut two = Vec::new();
    for _ in 0..2 {
        let (client, session) = api.call("r").await;
        let secret = session.rsplit('/').next().expect("a path");
        let socket = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
        two.push((client, socket));
    }
    let mut observer = open(address, "/v1/rooms/r/events").await.expect("it opens");
    send(&mut observer, &json!({"type": "direct", "state": "able"})).await;
    assert!(next_of(&mut observer, "error").await["detail"].as_str().is_some_and(|why| why.contains("?session=")));
    for (_, socket) in &mut two {
        send(socket, &json!({"type": "direct", "state": "able"})).await;
    }
    let [(_first, one), (_second, other)] = two.as_mut_slice() else { unreachable!("two") };
    let begin = json!({"type": "direct", "state": "begin", "peer": "p2", "offers": true});
    assert_eq!(next_of(one, "direct").await, begin);
    assert_eq!(next_of(other, "direct").await["offers"], false);
    let signal = json!({"description": {"type": "offer", "sdp": "v=0"}});
    send(one, &json!({"type": "direct", "signal": signal})).await;
    let received = next_of(other, "direct").await;
    assert_eq!(received, json!({"type": "direct", "state": "signal", "from": "p1", "signal": signal}));
    for (message, names) in
        [(json!({"type": "direct"}), "`able`"), (json!({"type": "direct", "signal": "x".repeat(40_000)}), "32768")]
    {
        send(one, &message).await;
        assert!(next_of(one, "error").await["detail"].as_str().is_some_and(|why| why.contains(names)));
    }
    send(other, &json!({"type": "direct", "state": "failed"})).await;
    assert_eq!(next_of(one, "direct").await["reason"], "failed");
    send(&mut observer, &json!({"type": "chat", "text": "done"})).await;
    loop {
        let event = next(&mut observer).await;
        assert_ne!(event["type"], "direct", "other readers must not get addresses: {event}");
        if event["type"] == "chat" {
            break;
        }
    }
}
