//! Who may use which route, as a table that is independent of the one that the router is built from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::super::routes::table;
use super::chat::seat;
use super::contract::path_of;
use super::events::{next_of, open, send};
use super::limits::token_of;
use super::*;

/// A line for each route, which begins with a sign for each caller: without token, viewer, participant, moderator,
/// operator of all rooms, moderator of another room. `+`: may pass, `-`: is refused, `?`: the handler decides.
const EXPECTED: &str = "
-++++- POST /v1/rooms/{room}/participants
--+++- POST /whip/{room}
++++++ GET /whip/{room}
-++++- POST /whep/{room}
++++++ GET /whep/{room}
++++++ GET /v1/sessions/{secret}
++++++ PATCH /v1/sessions/{secret}
++++++ DELETE /v1/sessions/{secret}
++++++ POST /v1/sessions/{secret}/events
++++++ GET /v1/sessions/{secret}/events/{stream}
++++++ DELETE /v1/sessions/{secret}/events/{stream}
----+- GET /v1/rooms
----+- POST /v1/rooms
-++++- GET /v1/rooms/{room}
---++- PATCH /v1/rooms/{room}
---++- DELETE /v1/rooms/{room}
-++++- GET /v1/rooms/{room}/participants
-++++- GET /v1/rooms/{room}/participants/{id}
-??++- PATCH /v1/rooms/{room}/participants/{id}
-??++- DELETE /v1/rooms/{room}/participants/{id}
---++- POST /v1/rooms/{room}/participants/admit
---++- POST /v1/rooms/{room}/participants/mute
---++- POST /v1/rooms/{room}/participants/{id}/admit
---++- POST /v1/rooms/{room}/participants/{id}/ask_unmute
-++++- GET /v1/rooms/{room}/views/{view}
---++- PUT /v1/rooms/{room}/views/{view}
---++- DELETE /v1/rooms/{room}/views/{view}
-++++- GET /v1/rooms/{room}/recordings
---++- POST /v1/rooms/{room}/recordings
-++++- GET /v1/rooms/{room}/recordings/{id}
---++- DELETE /v1/rooms/{room}/recordings/{id}
-++++- GET /v1/rooms/{room}/broadcasts
---++- POST /v1/rooms/{room}/broadcasts
-++++- GET /v1/rooms/{room}/broadcasts/{id}
---++- DELETE /v1/rooms/{room}/broadcasts/{id}
-++++- GET /v1/rooms/{room}/inputs
---++- POST /v1/rooms/{room}/inputs
-++++- GET /v1/rooms/{room}/inputs/{id}
---++- DELETE /v1/rooms/{room}/inputs/{id}
-++++- GET /v1/rooms/{room}/overlays
---++- POST /v1/rooms/{room}/overlays
-++++- GET /v1/rooms/{room}/overlays/{id}
---++- PATCH /v1/rooms/{room}/overlays/{id}
---++- DELETE /v1/rooms/{room}/overlays/{id}
-++++- GET /v1/rooms/{room}/images
---++- PUT /v1/rooms/{room}/images/{name}
-++++- GET /v1/rooms/{room}/images/{name}
---++- DELETE /v1/rooms/{room}/images/{name}
-??++- POST /v1/rooms/{room}/captions
-++++- GET /v1/rooms/{room}/chat
-??++- POST /v1/rooms/{room}/chat
---++- POST /v1/rooms/{room}/invitations
-++++- GET /v1/rooms/{room}/events
-++++- GET /hls/{room}/index.m3u8
-++++- GET /hls/{room}/{rendition}/{file}
++++++ GET /live/{room}
---++? GET /v1/recordings
---++? GET /v1/recordings/{file}
---++? DELETE /v1/recordings/{file}
----+- GET /metrics
++++++ GET /healthz
++++++ GET /readyz
++++++ GET /openapi.json
++++++ GET /docs/api.md
++++++ GET /docs
++++++ GET /
";

#[tokio::test]
async fn every_route_is_open_to_exactly_the_callers_of_the_table() {
    let api = Api::keyed();
    let mut expected: BTreeMap<_, _> =
        EXPECTED.trim().lines().filter_map(|line| line.split_once(' ')).map(|(signs, route)| (route, signs)).collect();
    let callers = [
        None,
        Some(token(Some("r"), Role::Viewer)),
        Some(token(Some("r"), Role::Participant)),
        Some(token(Some("r"), Role::Moderator)),
        Some(token(None, Role::Operator)),
        Some(token(Some("another"), Role::Moderator)),
    ];
    for route in table() {
        let what = format!("{} {}", route.method, route.path);
        let signs = expected.remove(what.as_str()).unwrap_or_else(|| panic!("{what} is not in the table of this test"));
        assert_eq!(signs.len(), callers.len(), "{what}");
        for (sign, caller) in signs.chars().zip(&callers) {
            let bearer = caller.as_ref().map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            let reply = api.send(route.method.as_str(), &path_of(&route), &headers, "").await;
            match sign {
                '+' => assert!(![401, 403].contains(&reply.status), "{what} {signs} {bearer:?}: {reply:?}"),
                '-' => assert_eq!(reply.status, if bearer.is_some() { 403 } else { 401 }, "{what} {signs}: {reply:?}"),
                '?' => assert_ne!(reply.status, 401, "{what} {signs} {bearer:?}: {reply:?}"),
                _ => panic!("unknown sign {sign}"),
            }
        }
    }
    assert!(expected.is_empty(), "these routes do not exist: {expected:?}");
}

/// A line for each message of a client, which begins with a sign for each sender: viewer, participant, moderator, and
/// a moderator's token without a session. `+`: is carried out, `-`: is refused, `?`: not tested.
const MESSAGES: &str = r#"
?++- {"type":"update", "audio_muted":true}
--++ {"type":"update", "participant":"TARGET", "audio_muted":true}
--++ {"type":"update", "participant":"TARGET", "role":"viewer"}
--++ {"type":"layout", "layout":{"kind":"grid"}}
-+++ {"type":"chat", "text":"hello"}
?++- {"type":"hand", "raised":true}
--++ {"type":"hand", "raised":false, "participant":"TARGET"}
?++- {"type":"reaction", "emoji":"👏"}
?++- {"type":"direct", "state":"able"}
"#;

#[tokio::test]
async fn every_message_is_open_to_exactly_the_senders_of_the_table() {
    let api = Api::keyed();
    let address = api.listen().await;
    let _target = seat(&api, address, "Target", Role::Participant).await;
    let moderator = token_of("Op", Role::Moderator, 600.0);
    let bearer = format!("Bearer {moderator}");
    let people = api.send("GET", "/v1/rooms/r/participants", &[("authorization", &bearer)], "").await.json();
    let target = people[0]["id"].as_str().expect("the only one").to_owned();
    let mut senders = Vec::new();
    for (name, role) in [("Vera", Role::Viewer), ("Paul", Role::Participant), ("Mia", Role::Moderator)] {
        senders.push(seat(&api, address, name, role).await.socket);
    }
    senders.push(open(address, &format!("/v1/rooms/r/events?token={moderator}")).await.expect("it opens"));
    let mut known = BTreeSet::new();
    for line in MESSAGES.trim().lines() {
        let (signs, message) = line.split_once(' ').expect("signs and a message");
        let message: Value = serde_json::from_str(&message.replace("TARGET", &target)).expect("JSON");
        known.insert(message["type"].as_str().expect("a type").to_owned());
        assert_eq!(signs.len(), senders.len(), "{line}");
        for (sign, socket) in signs.chars().zip(&mut senders) {
            send(socket, &message).await;
            // An unknown type is always an error, so the first error shows whether the message before was one.
            send(socket, &json!({"type": "unknown"})).await;
            let first = next_of(socket, "error").await;
            let is_refused = !first["detail"].as_str().expect("a text").starts_with("`type` must be");
            if is_refused {
                next_of(socket, "error").await;
            }
            match sign {
                '?' => {}
                sign => assert_eq!(is_refused, sign == '-', "{line}: {first}"),
            }
        }
    }
    let socket = senders.first_mut().expect("a sender");
    send(socket, &json!({"type": "unknown"})).await;
    let error = next_of(socket, "error").await;
    let listed = error["detail"].as_str().expect("a text").split('`').skip(3).step_by(2).map(str::to_owned);
    assert_eq!(known, listed.collect(), "the types of the table and those of the error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_room_keeps_its_settings_over_a_restart() {
    let first = Api::new();
    first.app.rooms().restore(first.data.path());
    let created = first.send_json("POST", "/v1/rooms", r#"{"name":"kept","locked":true,"title":"Weekly"}"#).await;
    assert_eq!(created.status, 201, "{created:?}");
    let deleted = first.send_json("POST", "/v1/rooms", r#"{"name":"deleted"}"#).await;
    assert_eq!(deleted.status, 201, "{deleted:?}");
    let changed = first.send_json("PATCH", "/v1/rooms/kept", r#"{"title":null,"lobby":true}"#).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    first.send("DELETE", "/v1/rooms/deleted", &[], "").await;
    let second = Api::new();
    second.app.rooms().restore(first.data.path());
    let kept = second.get("/v1/rooms/kept").await.json();
    assert_eq!((&kept["locked"], &kept["lobby"], &kept["title"]), (&json!(true), &json!(true), &Value::Null));
    second.get("/v1/rooms/deleted").await.problem(404);
}
