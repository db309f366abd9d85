//! Who may use which route, as a table that is independent of the one that the router is built from.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::routes::table;
use super::contract::path_of;
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
