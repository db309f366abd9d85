//! The events, by a real WebSocket client.

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;
use crate::peer::PeerEvent;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(address: SocketAddr, path: &str) -> Result<Socket, tungstenite::Error> {
    tokio_tungstenite::connect_async(format!("ws://{address}{path}")).await.map(|(socket, _)| socket)
}

/// The next text message; panics on the end.
async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("events are JSON"),
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("no event: {other:?}"),
        }
    }
}

/// The code and reason of the end.
async fn end(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("no goodbye: {other:?}"),
        }
    }
}

async fn say(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).await.expect("it is open");
}

#[tokio::test]
async fn events_begin_with_the_room_and_count_on() {
    let api = Api::new();
    let address = api.listen().await;
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    let mut socket = open(address, "/v1/rooms/r/events").await.expect("it opens");
    let room = next(&mut socket).await;
    assert_eq!((&room["type"], &room["name"]), (&json!("room"), &json!("r")), "{room}");
    let version = room["version"].as_u64().expect("a number");
    say(&mut socket, &json!({"type": "chat", "text": "hello"})).await;
    let chat = next(&mut socket).await;
    assert_eq!((&chat["type"], &chat["text"]), (&json!("chat"), &json!("hello")), "{chat}");
    assert_eq!(chat["version"], version + 1, "{chat}");
    assert_eq!(api.send_json("PATCH", "/v1/rooms/r", r#"{"locked":true}"#).await.status, 200);
    let changed = next(&mut socket).await;
    assert_eq!((&changed["type"], &changed["locked"]), (&json!("room"), &json!(true)), "{changed}");
    assert_eq!(changed["version"], version + 2, "{changed}");
    assert!(api.app.metrics().text().contains("commingle_event_streams 1"));
    assert_eq!(api.get("/v1/rooms/r").await.json()["participants"], json!([]), "who only listens is nobody");

    assert_eq!(api.send("DELETE", "/v1/rooms/r", &[], "").await.status, 204);
    assert_eq!(next(&mut socket).await["type"], "ended");
    assert_eq!(end(&mut socket).await, (1000, "the room has ended".to_owned()));
}

/// The next event of this type, whatever comes before it.
async fn next_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let event = next(socket).await;
        if event["type"] == kind {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_gone_and_why_is_told_to_all_and_to_itself() {
    let api = Api::new();
    let address = api.listen().await;
    let mut everybody = None;
    for (participant, reason) in [("p1", "removed"), ("p2", "left"), ("p3", "left")] {
        let (client, session) = api.call("r").await;
        let secret = session.rsplit('/').next().expect("a path");
        let mut own = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
        if everybody.is_none() {
            everybody = Some(open(address, "/v1/rooms/r/events").await.expect("it opens"));
        }
        match participant {
            "p1" => assert_eq!(api.send("DELETE", "/v1/rooms/r/participants/p1", &[], "").await.status, 204),
            "p2" => assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200),
            _ => client.pc.close().await.expect("closes"),
        }
        for socket in [Some(&mut own), everybody.as_mut()].into_iter().flatten() {
            let left = next_of(socket, "left").await;
            assert_eq!((&left["participant"], &left["reason"]), (&json!(participant), &json!(reason)), "{left}");
        }
        assert_eq!(end(&mut own).await, (1000, "your session has ended".to_owned()));
    }
}

#[tokio::test]
async fn a_session_that_never_connected_ends_its_events_too() {
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
async fn wrong_messages_are_answered_and_floods_end() {
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
        say(&mut socket, &message).await;
        let error = next(&mut socket).await;
        assert_eq!(error["type"], "error", "{message}: {error}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(names)), "{message}: {error}");
    }
    say(&mut socket, &json!({"type": "chat", "text": "x".repeat(3000)})).await;
    assert_eq!(end(&mut socket).await.0, 1009, "too large");

    let mut socket = open(address, &path).await.expect("it opens");
    for _ in 0..100 {
        let _ = socket.send(Message::text("{}")).await;
    }
    assert_eq!(end(&mut socket).await, (1008, "too many messages".to_owned()));
}

#[tokio::test]
async fn events_are_for_those_who_may() {
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
    assert_eq!(refused(&format!("/v1/rooms/r/events?token={viewer}")).await, 404, "there is no such room yet");

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
        say(&mut socket, &message).await;
        assert_eq!(next(&mut socket).await["type"], "error", "{message}");
    }
    api.app.close();
    assert_eq!(end(&mut socket).await, (1001, "the server is shutting down".to_owned()));
    let plain = Api::keyed();
    let bearer = format!("Bearer {viewer}");
    plain.send("GET", "/v1/rooms/r/events", &[("authorization", &bearer)], "").await.problem(426);
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_come_back() {
    let api = Api::new();
    let address = api.listen().await;
    let room = "r".parse().expect("a name");
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    let mut socket = open(address, "/v1/rooms/r/events").await.expect("it opens");
    assert_eq!(next(&mut socket).await["type"], "room");
    // More than all buffers on the way hold, while nobody reads.
    for _ in 0..12_000 {
        api.app.rooms().chat(&room, None, "x".repeat(2_000)).await.expect("the room is there");
    }
    assert_eq!(end(&mut socket).await.0, 1013);
    assert!(api.app.metrics().text().contains("commingle_event_streams_too_slow_total 1"));
    let mut again = open(address, "/v1/rooms/r/events").await.expect("it opens");
    assert!(
        next(&mut again).await["version"].as_u64().is_some_and(|version| version > 10_000),
        "the room as it is now"
    );
}

#[tokio::test]
async fn who_has_fallen_silent_is_asked_to_restart_ice_and_nobody_else_is() {
    let api = Api::new();
    let address = api.listen().await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let (session, _) = api.join("r").await;
        let secret = session.rsplit('/').next().expect("a path").to_owned();
        let socket = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
        sockets.push((secret, socket));
    }
    let mut stranger = open(address, "/v1/rooms/r/events").await.expect("it opens");
    let room = "r".parse().expect("a name");
    api.app.rooms().peer_says(&sockets[0].0, PeerEvent::Disconnected).await;
    assert_eq!(next_of(&mut sockets[0].1, "ice_restart").await, json!({"type": "ice_restart"}));
    api.app.rooms().chat(&room, None, "done".to_owned()).await.expect("the room is there");
    for socket in [&mut sockets[1].1, &mut stranger] {
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
async fn what_two_say_to_each_other_is_for_them_alone() {
    let api = Api::with(|config| config.rooms.direct_for_two = true);
    let address = api.listen().await;
    let mut two = Vec::new();
    for _ in 0..2 {
        let (client, session) = api.call("r").await;
        let secret = session.rsplit('/').next().expect("a path");
        let socket = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
        two.push((client, socket));
    }
    let mut stranger = open(address, "/v1/rooms/r/events").await.expect("it opens");
    say(&mut stranger, &json!({"type": "direct", "state": "able"})).await;
    assert!(next_of(&mut stranger, "error").await["detail"].as_str().is_some_and(|why| why.contains("?session=")));
    for (_, socket) in &mut two {
        say(socket, &json!({"type": "direct", "state": "able"})).await;
    }
    let [(_first, one), (_second, other)] = two.as_mut_slice() else { unreachable!("two") };
    let begins = json!({"type": "direct", "state": "begin", "peer": "p2", "offers": true});
    assert_eq!(next_of(one, "direct").await, begins);
    assert_eq!(next_of(other, "direct").await["offers"], false);
    let signal = json!({"description": {"type": "offer", "sdp": "v=0"}});
    say(one, &json!({"type": "direct", "signal": signal})).await;
    let heard = next_of(other, "direct").await;
    assert_eq!(heard, json!({"type": "direct", "state": "signal", "from": "p1", "signal": signal}));
    for (message, names) in
        [(json!({"type": "direct"}), "`able`"), (json!({"type": "direct", "signal": "x".repeat(40_000)}), "32768")]
    {
        say(one, &message).await;
        assert!(next_of(one, "error").await["detail"].as_str().is_some_and(|why| why.contains(names)));
    }
    say(other, &json!({"type": "direct", "state": "failed"})).await;
    assert_eq!(next_of(one, "direct").await["reason"], "failed");
    say(&mut stranger, &json!({"type": "chat", "text": "done"})).await;
    loop {
        let event = next(&mut stranger).await;
        assert_ne!(event["type"], "direct", "nobody else gets addresses: {event}");
        if event["type"] == "chat" {
            break;
        }
    }
}
