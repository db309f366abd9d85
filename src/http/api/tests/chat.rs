//! Chat, raised hands and reactions, by WebSockets and by requests.

use serde_json::json;

use super::events::{Socket, next, next_of, open, send};
use super::limits::{join_with, token_of};
use super::*;
use crate::peer::PeerEvent;

/// A participant of the room `r` with its events open.
pub(super) struct Seated {
    pub(super) secret: String,
    pub(super) socket: Socket,
}

/// Joins with a token and no media.
pub(super) async fn seat(api: &Api, address: SocketAddr, name: &str, role: Role) -> Seated {
    let direction = if role == Role::Viewer { "recvonly" } else { "sendrecv" };
    let joined = join_with(api, &token_of(name, role, 600.0), direction).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let secret = joined.header("location").rsplit('/').next().expect("a path").to_owned();
    api.app.rooms().peer_says(&secret, PeerEvent::Connected).await;
    let mut socket = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
    assert_eq!(next(&mut socket).await["type"], "room");
    Seated { secret, socket }
}

/// A request with a token.
async fn with_token(api: &Api, method: &str, path: &str, token: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    api.send(method, path, &headers, if method == "GET" { String::new() } else { body.to_string() }).await
}

fn is_date(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == "2026-12-01T02:40:11.250Z".len() && text.ends_with('Z') && text.starts_with("20")
}

#[tokio::test]
async fn a_private_message_reaches_its_addressees_only_and_leaves_no_gap_for_others() {
    let api = Api::keyed();
    let address = api.listen().await;
    let mut ann = seat(&api, address, "Ann", Role::Participant).await;
    let mut ben = seat(&api, address, "Ben", Role::Participant).await;
    let mut cem = seat(&api, address, "Cem", Role::Moderator).await;
    let by_token = format!("/v1/rooms/r/events?token={}", token_of("Panel", Role::Moderator, 600.0));
    let mut panel = open(address, &by_token).await.expect("it opens");
    send(&mut ann.socket, &json!({"type": "chat", "text": "to Ben", "to": ["p2"]})).await;
    send(&mut ann.socket, &json!({"type": "chat", "text": "help", "to": "moderators"})).await;
    send(&mut ann.socket, &json!({"type": "chat", "text": "to all"})).await;
    let mut versions = Vec::new();
    for (socket, heard) in [
        (&mut ann.socket, vec!["to Ben", "help", "to all"]),
        (&mut ben.socket, vec!["to Ben", "to all"]),
        (&mut cem.socket, vec!["help", "to all"]),
        (&mut panel, vec!["help", "to all"]),
    ] {
        for text in heard {
            let event = next_of(socket, "chat").await;
            assert_eq!(
                (&event["text"], &event["participant"], &event["name"]),
                (&json!(text), &json!("p1"), &json!("Ann"))
            );
            assert_eq!(event["version"].is_null(), text != "to all", "{event}");
            assert!(is_date(&event["at"]), "{event}");
            versions.extend(event["version"].as_u64());
        }
    }
    assert!(versions.len() == 4 && versions.iter().all(|version| *version == versions[0]), "{versions:?}");
    let read = async |session: &str| -> Vec<Value> {
        let list = api.get(&format!("/v1/rooms/r/chat?session={session}")).await.json();
        list.as_array().expect("a list").iter().map(|message| message["id"].clone()).collect()
    };
    assert_eq!(read(&ann.secret).await, [1, 2, 3]);
    assert_eq!(read(&ben.secret).await, [1, 3]);
    assert_eq!(read(&cem.secret).await, [2, 3]);
    let message = &api.get(&format!("/v1/rooms/r/chat?session={}&after=1", cem.secret)).await.json()[0];
    assert_eq!((&message["to"], &message["text"]), (&json!("moderators"), &json!("help")), "{message}");
    for (to, code) in [(json!(["p9"]), "no_participant"), (json!([]), "invalid_value"), (json!("all"), "invalid_value")]
    {
        send(&mut ann.socket, &json!({"type": "chat", "text": "x", "to": to})).await;
        assert_eq!(next_of(&mut ann.socket, "error").await["code"], code, "{to}");
    }
}

#[tokio::test]
async fn programs_write_under_the_name_of_their_token_and_viewers_only_read() {
    let api = Api::keyed();
    let address = api.listen().await;
    let mut ann = seat(&api, address, "Ann", Role::Participant).await;
    let program = token_of("Timer", Role::Participant, 600.0);
    let sent = with_token(&api, "POST", "/v1/rooms/r/chat", &program, &json!({"text": "one\u{7}minute"})).await;
    assert_eq!((sent.status, &sent.json()["name"], &sent.json()["text"]), (201, &json!("Timer"), &json!("oneminute")));
    let event = next_of(&mut ann.socket, "chat").await;
    assert_eq!((&event["participant"], &event["name"], &event["id"]), (&Value::Null, &json!("Timer"), &json!(1)));
    let viewer = token_of("Vera", Role::Viewer, 600.0);
    let refused = with_token(&api, "POST", "/v1/rooms/r/chat", &viewer, &json!({"text": "x"})).await;
    refused.problem(403);
    assert_eq!(with_token(&api, "GET", "/v1/rooms/r/chat", &viewer, &json!({})).await.json()[0]["id"], 1);
    for (body, why) in [
        (json!({}), "text"),
        (json!({"text": " \n"}), "1 to 2000"),
        (json!({"text": "x".repeat(2_001)}), "2000"),
        (json!({"text": "x", "to": 5}), "moderators"),
        (json!({"text": "x", "too": []}), "too"),
    ] {
        let refused = with_token(&api, "POST", "/v1/rooms/r/chat", &program, &body).await;
        assert!(refused.problem(422).contains(why), "{refused:?}");
    }
    with_token(&api, "GET", "/v1/rooms/r/chat?after=x", &viewer, &json!({})).await.problem(400);
    with_token(&api, "GET", "/v1/rooms/nowhere/chat", &token(None, Role::Operator), &json!({})).await.problem(404);
    let mut limited = None;
    for _ in 0..50 {
        let reply = with_token(&api, "POST", "/v1/rooms/r/chat", &program, &json!({"text": "x"})).await;
        limited = Some(reply).filter(|reply| reply.status == 429);
        if limited.is_some() {
            break;
        }
    }
    let limited = limited.expect("one caller has a limit");
    assert!(limited.problem(429).contains("you send"), "{limited:?}");
    send(&mut ann.socket, &json!({"type": "chat", "text": "others have theirs"})).await;
    while next_of(&mut ann.socket, "chat").await["text"] != "others have theirs" {}
}

#[tokio::test]
async fn the_history_is_that_of_the_configuration() {
    for (most, expected) in [(0, vec![]), (2, vec![2, 3])] {
        let api = Api::with(|config| config.rooms.chat_history = most);
        assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
        for _ in 0..3 {
            assert_eq!(api.send_json("POST", "/v1/rooms/r/chat", r#"{"text":"x"}"#).await.status, 201);
        }
        let list = api.get("/v1/rooms/r/chat").await.json();
        let ids: Vec<u64> = list.as_array().expect("a list").iter().filter_map(|chat| chat["id"].as_u64()).collect();
        assert_eq!(ids, expected);
    }
}

#[tokio::test]
async fn hands_are_raised_by_their_participants_and_lowered_by_moderators_too() {
    let api = Api::keyed();
    let address = api.listen().await;
    let mut ann = seat(&api, address, "Ann", Role::Participant).await;
    let mut vera = seat(&api, address, "Vera", Role::Viewer).await;
    let mut cem = seat(&api, address, "Cem", Role::Moderator).await;
    send(&mut vera.socket, &json!({"type": "hand", "raised": true})).await;
    let hand = next_of(&mut ann.socket, "hand").await;
    assert_eq!(
        (&hand["participant"], is_date(&hand["raised_at"])),
        (&json!("p2"), true),
        "a listener asks to speak: {hand}"
    );
    assert!(hand["version"].is_u64(), "{hand}");
    let own = format!("/v1/rooms/r/participants/p1?session={}", ann.secret);
    let raised = api.send_json("PATCH", &own, r#"{"hand_raised":true}"#).await;
    assert!(is_date(&raised.json()["hand_raised_at"]), "{raised:?}");
    let document = api.get(&format!("/v1/rooms/r?session={}", ann.secret)).await.json();
    assert_eq!(document["hands"], json!(["p2", "p1"]), "{document}");
    for (socket, message) in [
        (&mut ann.socket, json!({"type": "hand", "raised": false, "participant": "p2"})),
        (&mut cem.socket, json!({"type": "hand", "raised": true, "participant": "p2"})),
    ] {
        send(socket, &message).await;
        assert_eq!(next_of(socket, "error").await["code"], "wrong_role", "{message}");
    }
    let others = format!("/v1/rooms/r/participants/p1?session={}", cem.secret);
    api.send_json("PATCH", &others, r#"{"hand_raised":true}"#).await.problem(403);
    send(&mut cem.socket, &json!({"type": "hand", "raised": false, "participant": "p2"})).await;
    while next_of(&mut vera.socket, "hand").await["raised_at"] != Value::Null {}
    let document = api.get(&format!("/v1/rooms/r?session={}", ann.secret)).await.json();
    assert_eq!(document["hands"], json!(["p1"]));
    for message in [json!({"type": "hand"}), json!({"type": "hand", "raised": 1}), json!({"type": "hand", "up": true})]
    {
        send(&mut ann.socket, &message).await;
        assert_eq!(next_of(&mut ann.socket, "error").await["code"], "invalid_value", "{message}");
    }
}

#[tokio::test]
async fn a_reaction_is_one_emoji_of_a_participant() {
    let api = Api::keyed();
    let address = api.listen().await;
    let mut ann = seat(&api, address, "Ann", Role::Participant).await;
    let mut ben = seat(&api, address, "Ben", Role::Participant).await;
    send(&mut ann.socket, &json!({"type": "reaction", "emoji": "👏🏽"})).await;
    let event = next_of(&mut ben.socket, "reaction").await;
    assert_eq!((&event["participant"], &event["emoji"]), (&json!("p1"), &json!("👏🏽")), "{event}");
    assert!(event["version"].is_u64(), "{event}");
    for emoji in ["", "ok", "👏👏", "<b>"] {
        send(&mut ann.socket, &json!({"type": "reaction", "emoji": emoji})).await;
        let error = next_of(&mut ann.socket, "error").await;
        assert!(error["detail"].as_str().is_some_and(|why| why.contains("one emoji")), "{error}");
    }
    let by_token = format!("/v1/rooms/r/events?token={}", token_of("Panel", Role::Moderator, 600.0));
    let mut panel = open(address, &by_token).await.expect("it opens");
    for message in [json!({"type": "reaction", "emoji": "👏"}), json!({"type": "hand", "raised": true})] {
        send(&mut panel, &message).await;
        let error = next_of(&mut panel, "error").await;
        assert!(error["detail"].as_str().is_some_and(|why| why.contains("?session=")), "{error}");
    }
}
