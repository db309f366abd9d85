//! Moderation by requests and WebSockets: the lobby, removal, roles, mutes.

use serde_json::json;

use super::chat::{Seated, seat};
use super::events::{next, next_of, open, send};
use super::limits::{join_with, token_of};
use super::*;
use crate::peer::PeerEvent;

/// A request with a token and a JSON body.
async fn request(api: &Api, method: &str, path: &str, token: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    api.send(method, path, &headers, body).await
}

fn code(reply: &Reply) -> String {
    reply.json()["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn who_waits_in_the_lobby_reads_and_writes_nothing_of_the_room() {
    let api = Api::keyed();
    let address = api.listen().await;
    let moderator = token_of("Cem", Role::Moderator, 600.0);
    let guest = token_of("Guest", Role::Participant, 600.0);
    let Seated { mut socket, .. } = seat(&api, address, "Cem", Role::Moderator).await;
    let opened = request(&api, "PATCH", "/v1/rooms/r", &moderator, &json!({"lobby": true})).await;
    assert_eq!((opened.status, &opened.json()["lobby"]), (200, &json!(true)), "{opened:?}");

    let joined = join_with(&api, &guest, "sendrecv").await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let id = joined.header("commingle-participant").to_owned();
    let secret = joined.header("location").rsplit('/').next().expect("a path").to_owned();
    let mut waiting = open(address, &format!("/v1/rooms/r/events?session={secret}")).await.expect("it opens");
    let first = next(&mut waiting).await;
    assert_eq!((&first["type"], &first["participant"]["state"]), (&json!("lobby"), &json!("lobby")), "{first}");
    api.app.rooms().peer_says(&secret, PeerEvent::Connected).await;
    let told = next_of(&mut socket, "lobby").await;
    assert_eq!((&told["participant"]["id"], told.get("version")), (&json!(id), None), "{told}");
    assert_eq!(next(&mut waiting).await["type"], "lobby", "it has connected");
    let session = api.get(&format!("/v1/sessions/{secret}")).await.json();
    assert_eq!((&session["state"], &session["id"]), (&json!("lobby"), &json!(id)));

    // Neither the session nor the token opens the room.
    let own = format!("/v1/rooms/r/participants/{id}");
    for (method, path, body) in [
        ("GET", "/v1/rooms/r".to_owned(), Value::Null),
        ("GET", "/v1/rooms/r/participants".to_owned(), Value::Null),
        ("GET", "/v1/rooms/r/chat".to_owned(), Value::Null),
        ("GET", "/v1/rooms/r/views/program".to_owned(), Value::Null),
        ("POST", "/v1/rooms/r/chat".to_owned(), json!({"text": "let me in"})),
        ("PATCH", own, json!({"name": "Boss"})),
    ] {
        let by_session = api.send_json(method, &format!("{path}?session={secret}"), &body.to_string()).await;
        let by_token = request(&api, method, &path, &guest, &body).await;
        assert_eq!([code(&by_session), code(&by_token)], ["in_lobby", "in_lobby"], "{method} {path}");
    }
    assert!(open(address, &format!("/v1/rooms/r/events?token={guest}")).await.is_err(), "nor the events");
    send(&mut waiting, &json!({"type": "chat", "text": "hello"})).await;
    assert_eq!(next(&mut waiting).await["type"], "error");
    // What happens in the room does not reach it.
    let said = request(&api, "POST", "/v1/rooms/r/chat", &moderator, &json!({"text": "secret"})).await;
    assert_eq!(said.status, 201, "{said:?}");
    let seen = request(&api, "GET", "/v1/rooms/r", &moderator, &Value::Null).await.json();
    assert_eq!(seen["waiting"][0]["id"], json!(id));

    let admit = format!("/v1/rooms/r/participants/{id}/admit");
    assert_eq!(code(&request(&api, "POST", &admit, &guest, &Value::Null).await), "wrong_role");
    assert_eq!(request(&api, "POST", &admit, &moderator, &Value::Null).await.status, 204);
    let room = next(&mut waiting).await;
    assert_eq!(room["type"], "room", "the next message is the room, not the chat of before: {room}");
    assert!(
        room["participants"].as_array().is_some_and(|list| list.iter().any(|one| one["id"] == json!(id))),
        "{room}"
    );
    assert_eq!(next_of(&mut socket, "joined").await["participant"]["id"], json!(id));
    assert_eq!(api.get(&format!("/v1/rooms/r?session={secret}")).await.status, 200);
    assert_eq!(request(&api, "POST", &admit, &moderator, &Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_removed_person_is_kept_out_by_its_token() {
    let api = Api::keyed();
    let address = api.listen().await;
    let moderator = token_of("Cem", Role::Moderator, 600.0);
    let _cem = seat(&api, address, "Cem", Role::Moderator).await;
    let guest = token_of("Guest", Role::Participant, 600.0);
    let joined = join_with(&api, &guest, "sendrecv").await;
    let secret = joined.header("location").rsplit('/').next().expect("a path").to_owned();
    api.app.rooms().peer_says(&secret, PeerEvent::Connected).await;
    let path = format!("/v1/rooms/r/participants/{}", joined.header("commingle-participant"));
    let too_long = request(&api, "DELETE", &format!("{path}?keep_out=2592001"), &moderator, &Value::Null).await;
    assert!(too_long.problem(422).contains("30 days"));
    request(&api, "DELETE", &format!("{path}?keep_out=soon"), &moderator, &Value::Null).await.problem(400);
    assert_eq!(request(&api, "DELETE", &format!("{path}?keep_out=600"), &moderator, &Value::Null).await.status, 204);
    let again = join_with(&api, &guest, "sendrecv").await;
    assert_eq!((again.status, code(&again).as_str()), (403, "kept_out"), "{again:?}");
    let wait: u64 = again.header("retry-after").parse().expect("seconds");
    assert!((1..=600).contains(&wait), "{wait}");
    let other = join_with(&api, &token_of("Other", Role::Participant, 600.0), "sendrecv").await;
    assert_eq!(other.status, 201, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_person_is_kept_out_of_a_created_room_over_a_restart() {
    let first = Api::keyed();
    first.app.rooms().restore(first.data.path());
    let operator = token_of("Op", Role::Operator, 600.0);
    let created = request(&first, "POST", "/v1/rooms", &operator, &json!({"name": "r", "title": "Weekly"})).await;
    assert_eq!(created.status, 201, "{created:?}");
    let guest = token_of("Guest", Role::Participant, 600.0);
    let joined = join_with(&first, &guest, "sendrecv").await;
    let secret = joined.header("location").rsplit('/').next().expect("a path").to_owned();
    first.app.rooms().peer_says(&secret, PeerEvent::Connected).await;
    let path = format!("/v1/rooms/r/participants/{}?keep_out=600", joined.header("commingle-participant"));
    assert_eq!(request(&first, "DELETE", &path, &operator, &Value::Null).await.status, 204);
    let second = Api::keyed();
    second.app.rooms().restore(first.data.path());
    let again = join_with(&second, &guest, "sendrecv").await;
    assert_eq!((again.status, code(&again).as_str()), (403, "kept_out"), "{again:?}");
    let other = join_with(&second, &token_of("Other", Role::Participant, 600.0), "sendrecv").await;
    assert_eq!(other.status, 201, "{other:?}");
}

#[tokio::test]
async fn roles_and_mutes_of_others_are_for_moderators() {
    let api = Api::keyed();
    let address = api.listen().await;
    let mut ann = seat(&api, address, "Ann", Role::Participant).await;
    let _cem = seat(&api, address, "Cem", Role::Moderator).await;
    let moderator = token_of("Cem", Role::Moderator, 600.0);
    let own = format!("/v1/rooms/r/participants/p1?session={}", ann.secret);
    for patch in [json!({"role": "moderator"}), json!({"speaker_allowed": true})] {
        assert_eq!(code(&api.send_json("PATCH", &own, &patch.to_string()).await), "wrong_role", "{patch}");
        let mut message = patch.clone();
        message["type"] = json!("update");
        send(&mut ann.socket, &message).await;
        assert_eq!(next_of(&mut ann.socket, "error").await["code"], "wrong_role", "{patch}");
    }
    let patch = async |body: Value| request(&api, "PATCH", "/v1/rooms/r/participants/p1", &moderator, &body).await;
    assert_eq!(code(&patch(json!({"role": "operator"})).await), "wrong_role");
    let muted = patch(json!({"audio_muted": true})).await.json();
    assert_eq!((&muted["audio_muted"], &muted["muted_by"]), (&json!(false), &json!("moderator")));
    let event = next_of(&mut ann.socket, "muted").await;
    assert_eq!((&event["participant"], &event["audio"], &event["video"]), (&json!("p1"), &json!(true), &json!(false)));
    let unmute = api.send_json("PATCH", &own, r#"{"audio_muted":false}"#).await;
    assert_eq!((unmute.status, code(&unmute).as_str()), (403, "muted_by_moderator"));
    let ask = request(&api, "POST", "/v1/rooms/r/participants/p1/ask_unmute", &moderator, &Value::Null).await;
    assert_eq!(ask.status, 204);
    let asked = next_of(&mut ann.socket, "asked_to_unmute").await;
    assert_eq!((&asked["participant"], asked.get("version")), (&json!("p1"), None));
    assert_eq!(api.send_json("PATCH", &own, r#"{"audio_muted":false}"#).await.status, 200);
    // A promoted participant acts as a moderator, by its session alone.
    assert_eq!(patch(json!({"role": "moderator"})).await.json()["role"], "moderator");
    let lock = api.send_json("PATCH", &format!("/v1/rooms/r?session={}", ann.secret), r#"{"locked":true}"#).await;
    assert_eq!((lock.status, &lock.json()["locked"]), (200, &json!(true)), "{lock:?}");
    let invalid = request(&api, "PATCH", "/v1/rooms/r", &moderator, &json!({"title": "x".repeat(201)})).await;
    assert!(invalid.problem(422).contains("200"));
}
