//! Limits of one caller: seats of a token, changes and event streams over all connections, refused tokens.

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;
use crate::peer::PeerEvent;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket; the status of the response if it is refused.
async fn open(address: SocketAddr, path: &str) -> Result<Socket, u16> {
    match tokio_tungstenite::connect_async(format!("ws://{address}{path}")).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// The next message that is no ping.
async fn next(socket: &mut Socket) -> Message {
    let message = async {
        loop {
            match socket.next().await.expect("it does not just end").expect("it does not break off") {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    };
    tokio::time::timeout(PATIENCE, message).await.expect("in time")
}

/// The next event or error with this type.
async fn next_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = next(socket).await;
        let event: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
        if event["type"] == kind {
            return event;
        }
    }
}

pub(in crate::http) fn token_of(name: &str, role: Role, seconds: f64) -> String {
    let exp = time::unix_seconds() as f64 + seconds;
    let claims = Claims { room: Some("r".parse().expect("a name")), role, name: Some(name.into()), exp, nbf: None };
    sign(&claims, KEY)
}

/// The connection of a session is up.
async fn connect(api: &Api, session: &str) {
    let secret = session.rsplit('/').next().expect("a path");
    api.app.rooms().peer_says(secret, PeerEvent::Connected).await;
}

pub(super) async fn join_with(api: &Api, token: &str, direction: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", SDP), ("authorization", &bearer)];
    api.send("POST", "/v1/rooms/r/participants", &headers, offer(direction)).await
}

#[tokio::test]
async fn one_token_takes_a_limited_number_of_seats() {
    let api = Api::with(|config| {
        config.auth.key = Some(Secret::from(KEY.to_owned()));
        config.limits.seats_per_token = 2;
    });
    let (ann, ben) = (token_of("Ann", Role::Participant, 60.0), token_of("Ben", Role::Moderator, 60.0));
    let first = join_with(&api, &ann, "sendrecv").await;
    assert_eq!((first.status, join_with(&api, &ann, "sendonly").await.status), (201, 201));
    let refused = join_with(&api, &ann, "sendrecv").await;
    assert!(refused.problem(429).contains('2'), "{refused:?}");
    assert_eq!((refused.json()["code"].as_str(), refused.header("retry-after")), (Some("too_many_joins"), "10"));
    assert_eq!(join_with(&api, &ann, "recvonly").await.status, 201, "a viewer takes no seat");
    assert_eq!(join_with(&api, &ben, "sendrecv").await.status, 201, "another token");
    assert_eq!(api.send("DELETE", first.header("location"), &[], "").await.status, 200);
    assert_eq!(join_with(&api, &ann, "sendrecv").await.status, 201, "a seat is free again");
    let operator = token(None, Role::Operator);
    for _ in 0..4 {
        assert_eq!(join_with(&api, &operator, "sendonly").await.status, 201, "operators join for others");
    }
    assert!(api.app.metrics().text().contains("commingle_joins_refused_total{status=\"429\"} 1"));
}

#[tokio::test]
async fn changes_of_a_participant_are_limited_over_all_its_connections() {
    let api = Api::with(|config| (config.limits.changes_per_second, config.limits.changes_burst) = (1, 5));
    let address = api.listen().await;
    let (ann, _) = api.join("r").await;
    let (ben, _) = api.join("r").await;
    let patch = |session: &str| {
        let secret = session.rsplit('/').next().expect("a path");
        format!("/v1/rooms/r/participants/p1?session={secret}")
    };
    let path = patch(&ann);
    let mut last = None;
    for _ in 0..50 {
        last = Some(api.send_json("PATCH", &path, r#"{"audio_muted":true}"#).await);
    }
    let last = last.expect("requests were sent");
    assert!(last.problem(429).contains("connections"), "{last:?}");
    assert_eq!(last.json()["code"], "too_many_requests");
    assert!(!last.header("retry-after").is_empty());
    // The same participant by several WebSockets, and by other requests.
    let events = path.replace("participants/p1", "events");
    for _ in 0..3 {
        let mut socket = open(address, &events).await.expect("it opens");
        next_of(&mut socket, "room").await;
        // A few may come through meanwhile.
        loop {
            socket.send(Message::text(json!({"type": "chat", "text": "x"}).to_string())).await.expect("it is open");
            let answer: Value = serde_json::from_str(next(&mut socket).await.to_text().expect("text")).expect("JSON");
            if answer["code"] == "too_many_requests" {
                break;
            }
        }
    }
    let own = ben.rsplit('/').next().expect("a path");
    let of_ben = api.send_json("PATCH", &format!("/v1/rooms/r/participants/p2?session={own}"), "{}").await;
    assert_ne!(of_ben.status, 429, "another participant");
    for _ in 0..20 {
        assert_ne!(api.send_json("PATCH", "/v1/rooms/r", "{}").await.status, 429, "an operator without a session");
    }
    let counted = api.app.metrics().text();
    let counted = counted.lines().find(|line| line.starts_with("commingle_changes_limited_total")).expect("a metric");
    assert!(!counted.ends_with(" 0"), "{counted}");
}

#[tokio::test]
async fn the_chat_of_a_room_is_limited_over_all_its_senders() {
    let api = Api::with(|config| (config.limits.changes_per_second, config.limits.changes_burst) = (1_000, 10_000));
    let address = api.listen().await;
    let events = |session: &str| {
        let secret = session.rsplit('/').next().expect("a path");
        format!("/v1/rooms/r/events?session={secret}")
    };
    let mut sockets = Vec::new();
    for n in 1..=7 {
        let (session, _) = api.join("r").await;
        connect(&api, &session).await;
        let mut socket = open(address, &events(&session)).await.expect("it opens");
        next_of(&mut socket, "room").await;
        sockets.push((json!(format!("p{n}")), socket));
    }
    // An operator without a session is limited as well.
    sockets.push((Value::Null, open(address, "/v1/rooms/r/events").await.expect("it opens")));
    let chat = Message::text(json!({"type": "chat", "text": "x"}).to_string());
    // Every reader gets every message: this reads up to the answer to the own one, the detail of a refusal.
    let write = async |(own, socket): &mut (Value, Socket)| {
        if let Err(error) = socket.send(chat.clone()).await {
            panic!("{error}: closed by {:?}", next(socket).await);
        }
        loop {
            let event: Value = serde_json::from_str(next(socket).await.to_text().expect("text")).expect("JSON");
            if event["code"] == "too_many_requests" {
                return Some(event["detail"].as_str().unwrap_or_default().to_owned());
            }
            if event["type"] == "chat" && event["participant"] == *own {
                return None;
            }
        }
    };
    // One participant alone reaches its own limit.
    let mut alone = sockets.remove(0);
    let mut sent = 0;
    let why = loop {
        match write(&mut alone).await {
            Some(why) => break why,
            None => sent += 1,
        }
        assert!(sent < 40, "the chat of a participant has no limit");
    };
    assert!(sent >= 15 && !why.contains("the room"), "a burst is allowed: {sent}, {why}");
    // All together reach that of the room before their own.
    let mut limited = 0;
    while limited < 4 {
        for socket in &mut sockets {
            match write(socket).await {
                Some(why) => {
                    assert!(why.contains("the room"), "{why}");
                    limited += 1;
                }
                None => sent += 1,
            }
        }
        assert!(sent < 4_000, "the chat of a room has no limit");
    }
    assert!(sent > 50, "a burst is allowed: {sent}");
    let other = api.join("other").await;
    connect(&api, &other.0).await;
    let secret = other.0.rsplit('/').next().expect("a path");
    let mut socket = open(address, &format!("/v1/rooms/other/events?session={secret}")).await.expect("it opens");
    socket.send(chat).await.expect("it is open");
    next_of(&mut socket, "chat").await;
    let metrics = api.app.metrics().text();
    let counted = metrics.lines().find(|line| line.starts_with("commingle_chats_limited_total")).expect("a metric");
    assert!(!counted.ends_with(" 0"), "{counted}");
}

#[tokio::test]
async fn a_session_and_a_token_have_a_limited_number_of_event_streams() {
    let api = Api::with(|config| {
        config.auth.key = Some(Secret::from(KEY.to_owned()));
        (config.limits.event_streams_per_session, config.limits.event_streams_per_token) = (2, 3);
    });
    let address = api.listen().await;
    let ann = token_of("Ann", Role::Participant, 60.0);
    let joined = join_with(&api, &ann, "sendrecv").await;
    let secret = joined.header("location").rsplit('/').next().expect("a path");
    for (path, most) in
        [(format!("/v1/rooms/r/events?session={secret}"), 2), (format!("/v1/rooms/r/events?token={ann}"), 3)]
    {
        let mut sockets = Vec::new();
        for _ in 0..most {
            sockets.push(open(address, &path).await.expect("it opens"));
        }
        assert_eq!(open(address, &path).await.err(), Some(429), "{path}");
        // A closed one makes room; the server notices that at its own pace.
        sockets.pop().expect("one is open").close(None).await.expect("it closes");
        let again = async {
            while open(address, &path).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("in time");
    }
    assert!(!api.app.metrics().text().contains("commingle_event_streams_refused_total 0"));
}

#[tokio::test]
async fn events_that_were_opened_with_a_token_end_when_it_expires() {
    let api = Api::keyed();
    let address = api.listen().await;
    let (short, long) = (token_of("Ann", Role::Moderator, 4.0), token_of("Ben", Role::Participant, 600.0));
    let joined = join_with(&api, &long, "sendrecv").await;
    let secret = joined.header("location").rsplit('/').next().expect("a path");
    let mut by_token = open(address, &format!("/v1/rooms/r/events?token={short}")).await.expect("it opens");
    let mut by_both =
        open(address, &format!("/v1/rooms/r/events?session={secret}&token={short}")).await.expect("it opens");
    next_of(&mut by_token, "room").await;
    next_of(&mut by_both, "room").await;
    let layout = Message::text(json!({"type": "layout", "layout": {"kind": "speaker"}}).to_string());
    by_both.send(layout.clone()).await.expect("it is open");
    assert_eq!(next_of(&mut by_both, "room").await["layout"]["kind"], "speaker", "the token is a moderator's");
    let frame = loop {
        match next(&mut by_token).await {
            Message::Close(frame) => break frame.expect("it has a reason"),
            event => assert!(event.is_text(), "{event:?}"),
        }
    };
    assert_eq!((u16::from(frame.code), frame.reason.contains("expired")), (1008, true), "{frame:?}");
    // The session continues with the rights of its participant.
    let refused = async {
        loop {
            by_both.send(layout.clone()).await.expect("it is open");
            let message = next(&mut by_both).await;
            if message.to_text().expect("text").contains("wrong_role") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the role of the token has expired");
}

#[tokio::test]
async fn refused_tokens_are_counted_and_limited_and_valid_ones_are_not() {
    let api = Api::keyed();
    assert_eq!(api.send("POST", "/v1/rooms", &[], "{}").await.status, 401, "without a token");
    let get =
        async |token: &str| api.send("GET", "/v1/rooms", &[("authorization", &format!("Bearer {token}"))], "").await;
    let expired = sign(&Claims { room: None, role: Role::Operator, name: None, exp: 1.0, nbf: None }, KEY);
    assert_eq!(get(&expired).await.json()["code"], "token_expired");
    assert_eq!(get("nonsense").await.json()["code"], "invalid_token");
    let text = api.app.metrics().text();
    for reason in ["invalid", "expired"] {
        let line = format!("commingle_logins_failed_total{{reason=\"{reason}\"}} 1");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    let mut limited = None;
    for _ in 0..2_000 {
        let reply = get("nonsense").await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
    }
    let limited = limited.expect("it is limited");
    limited.problem(429);
    assert!(!limited.header("retry-after").is_empty());
    assert_eq!(get(&token(None, Role::Operator)).await.status, 200, "a valid token from the same address");
}

#[tokio::test]
async fn bodies_that_are_arrays_are_refused() {
    let api = Api::new();
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    for (method, path) in [
        ("POST", "/v1/rooms/r/recordings"),
        ("POST", "/v1/rooms/r/broadcasts"),
        ("POST", "/v1/rooms/r/inputs"),
        ("POST", "/v1/rooms/r/overlays"),
        ("POST", "/v1/rooms/r/captions"),
        ("PUT", "/v1/rooms/r/views/wide"),
        ("PATCH", "/v1/rooms/r"),
        ("PATCH", "/v1/rooms/r/participants/p1"),
        ("POST", "/v1/rooms"),
    ] {
        for body in ["[]", " [null]", "\n[[\"grid\"]]"] {
            let refused = api.send_json(method, path, body).await;
            assert!(refused.problem(422).contains("object"), "{method} {path} {body}: {refused:?}");
        }
    }
    assert_eq!(api.get("/v1/rooms/r").await.json()["recordings"], json!([]));
}
