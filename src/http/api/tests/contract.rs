//! Rules for all routes: scopes, the OpenAPI description, the documentation, errors, and the HTTP server.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::routes::{Route, Scope, table};
use super::super::{common, service};
use super::*;

pub(super) fn path_of(route: &Route) -> String {
    route
        .path
        .replace("{room}", "r")
        .replace("{id}", "p1")
        .replace("{secret}", "nobody")
        .replace("{file}", "r-x.mp4")
        .replace("{name}", "logo.png")
        .replace("{rendition}", "high")
        .replace("{stream}", "1")
}

#[tokio::test]
async fn every_route_enforces_its_scope() {
    let api = Api::keyed();
    let roles = [Role::Viewer, Role::Participant, Role::Moderator, Role::Operator];
    for route in table() {
        let (method, path) = (route.method.as_str(), path_of(&route));
        let what = format!("{method} {path}");
        let status = async |token: Option<String>| {
            let bearer = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            api.send(method, &path, &headers, "").await
        };
        let (needed, all_rooms) = match route.scope {
            Scope::Public | Scope::Secret => {
                let reply = status(None).await;
                assert!(![401, 403].contains(&reply.status), "{what} needs no token: {reply:?}");
                continue;
            }
            Scope::Room(role) | Scope::AnyRoom(role) => (role, false),
            // No broadcast runs.
            Scope::Hls => (Role::Viewer, false),
            Scope::Server(role) => (role, true),
        };
        let bare = status(None).await;
        bare.problem(401);
        assert!(bare.header("www-authenticate").starts_with("Bearer"), "{what}: {bare:?}");
        status(Some("nonsense".into())).await.problem(401);
        for role in roles {
            let reply = status(Some(token(Some("r"), role))).await;
            if role < needed || all_rooms && role != Role::Operator {
                reply.problem(403);
            } else if role >= Role::Moderator && !all_rooms {
                assert!(![401, 403].contains(&reply.status), "{what} as {role:?}: {reply:?}");
            }
        }
        if matches!(route.scope, Scope::Room(_) | Scope::Hls) {
            status(Some(token(Some("another"), Role::Moderator))).await.problem(403);
        }
        let reply = status(Some(token(None, Role::Operator))).await;
        assert!(![401, 403].contains(&reply.status), "{what} as operator: {reply:?}");
    }
}

#[tokio::test]
async fn only_the_participant_itself_or_a_moderator_changes_it() {
    let api = Api::keyed();
    let bearer = format!("Bearer {}", token(Some("r"), Role::Participant));
    let headers = [("authorization", bearer.as_str()), ("content-type", SDP)];
    let joined = api.send("POST", "/v1/rooms/r/participants", &headers, offer("sendrecv")).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let secret = joined.header("location").rsplit('/').next().expect("a path").to_owned();
    let id = joined.header("commingle-participant").to_owned();
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    let mute = r#"{"audio_muted":true}"#;
    let path = format!("/v1/rooms/r/participants/{id}");
    assert!(api.send("PATCH", &path, &headers, mute).await.problem(403).contains("session="));
    // Authorized, but the participant is not connected yet.
    api.send("PATCH", &format!("{path}?session={secret}"), &headers, mute).await.problem(404);
    let blur = r#"{"filters":[{"name":"blur"}]}"#;
    let refused = api.send("PATCH", &format!("{path}?session={secret}"), &headers, blur).await;
    assert!(refused.problem(403).contains("moderator"), "filters are for moderators");
    let other = format!("/v1/rooms/r/participants/p99?session={secret}");
    api.send("PATCH", &other, &headers, mute).await.problem(403);
    // Without a token, a session gives read access to its own room only.
    assert_eq!(api.get(&format!("/v1/rooms/r?session={secret}")).await.status, 200);
    api.get(&format!("/v1/rooms/another?session={secret}")).await.problem(403);
    api.get("/v1/rooms/r?session=nobody").await.problem(401);
    assert_eq!(api.get(&format!("/v1/rooms/r?token={}", token(Some("r"), Role::Viewer))).await.status, 200);
}

#[tokio::test]
async fn openapi_lists_exactly_the_routes() {
    let described: Value = serde_json::from_str(service::OPENAPI).expect("openapi.json is JSON");
    let methods = ["get", "put", "post", "patch", "delete"];
    let mut listed = BTreeSet::new();
    for (path, item) in described["paths"].as_object().expect("paths") {
        for method in
            item.as_object().expect("a path is an object").keys().filter(|key| methods.contains(&key.as_str()))
        {
            listed.insert((path.clone(), method.clone()));
        }
    }
    let routes = table().into_iter().map(|route| (route.path.to_owned(), route.method.as_str().to_lowercase()));
    assert_eq!(listed, routes.collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn every_openapi_reference_resolves() {
    let described: Value = serde_json::from_str(service::OPENAPI).expect("openapi.json is JSON");
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&described, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("references stay in the file");
        assert!(described.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_docs_explain_every_kind_of_problem() {
    for kind in crate::http::problem::KINDS {
        assert!(service::DOCS.contains(&format!("\n### {kind}\n")), "docs/api.md has no heading `{kind}`");
    }
}

#[test]
fn the_docs_and_openapi_list_every_code() {
    use crate::http::problem::{CODES, KINDS, STATUS_CODES};
    let kinds = KINDS.iter().filter(|kind| !["unauthorized", "forbidden"].contains(kind));
    let codes: BTreeSet<String> = kinds
        .map(|kind| kind.replace('-', "_"))
        .chain(CODES.map(str::to_owned))
        .chain(STATUS_CODES.map(|(_, code)| code.to_owned()))
        .chain(["forbidden".to_owned()])
        .collect();
    for code in &codes {
        assert!(service::DOCS.contains(&format!("\n| `{code}` |")), "docs/api.md has no row for `{code}`");
    }
    let described: Value = serde_json::from_str(service::OPENAPI).expect("openapi.json is JSON");
    let listed = described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array();
    let listed = listed.expect("a list").iter().map(|code| code.as_str().expect("text").to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), codes);
}

#[tokio::test]
async fn refusals_of_people_have_codes_of_their_own() {
    let api = Api::keyed();
    let code = async |token: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
        api.send(method, path, headers, "").await.json()["code"].as_str().unwrap_or_default().to_owned()
    };
    let viewer = token(Some("r"), Role::Viewer);
    let claims =
        Claims { room: Some("r".parse().expect("a name")), role: Role::Viewer, name: None, exp: 5.0, nbf: None };
    let old = sign(&claims, KEY);
    assert_eq!(code("", "GET", "/v1/rooms/r").await, "needs_token");
    assert_eq!(code("nonsense", "GET", "/v1/rooms/r").await, "invalid_token");
    assert_eq!(code(&old, "GET", "/v1/rooms/r").await, "token_expired");
    assert_eq!(code(&viewer, "DELETE", "/v1/rooms/r").await, "wrong_role");
    assert_eq!(code(&viewer, "GET", "/v1/rooms/another").await, "wrong_room");
    assert_eq!(code(&viewer, "GET", "/v1/rooms/r").await, "no_room");
    assert_eq!(code(&viewer, "GET", "/v1/rooms/a%20b").await, "bad_room_name");
    assert_eq!(code(&viewer, "GET", "/nothing.html").await, "not_found");
    let bearer = format!("Bearer {viewer}");
    let headers = [("authorization", bearer.as_str()), ("content-type", SDP)];
    let sends = api.send("POST", "/v1/rooms/r/participants", &headers, offer("sendrecv")).await;
    sends.problem(403);
    assert_eq!(sends.json()["code"], "viewer_may_not_send");
}

#[tokio::test]
async fn rooms_are_created_changed_and_deleted() {
    let api = Api::new();
    api.get("/v1/rooms/r").await.problem(404);
    assert_eq!(api.get("/v1/rooms").await.json(), json!([]));
    let made = api.send_json("POST", "/v1/rooms", r#"{"name":"r","locked":true}"#).await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/rooms/r"), "{made:?}");
    assert_eq!(made.json()["locked"], true);
    api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.problem(409);
    // Without tokens no participant may enter a locked room.
    api.post_offer("/v1/rooms/r/participants", &offer("sendrecv")).await.problem(403);
    let open = api.send_json("PATCH", "/v1/rooms/r", r#"{"locked":false}"#).await;
    assert_eq!((open.status, &open.json()["locked"]), (200, &json!(false)), "{open:?}");
    assert_eq!(api.get("/v1/rooms").await.json()[0]["name"], "r");
    assert_eq!(api.get("/v1/rooms/r/participants").await.json(), json!([]));
    api.get("/v1/rooms/r/participants/p99").await.problem(404);
    api.get("/v1/rooms/r/participants/s1").await.problem(400);

    for (body, status, names) in [
        (r#"{"name":"e\u0301"}"#, 422, "NFC"),
        (r#"{"name":7}"#, 422, "text"),
        ("{", 400, "line 1"),
        ("", 400, "JSON"),
        (r#"{"name":"a b"}"#, 422, "a b"),
        (r#"{"locked":true}"#, 422, "name"),
        (r#"{"name":"x","lokced":true}"#, 422, "lokced"),
        (r#"{"name":"x","locked":"yes"}"#, 422, "boolean"),
        ("[1]", 422, "send an object"),
    ] {
        let detail = api.send_json("POST", "/v1/rooms", body).await.problem(status);
        assert!(detail.contains(names), "{body}: {detail}");
    }
    api.send("PATCH", "/v1/rooms/r", &[("content-type", SDP)], "{}").await.problem(415);
    api.send_json("PATCH", "/v1/rooms/r", &" ".repeat(9000)).await.problem(413);
    assert_eq!(api.send("DELETE", "/v1/rooms/r", &[], "").await.status, 204);
    api.send("PATCH", "/v1/rooms/nowhere", &[("content-type", JSON)], "{}").await.problem(404);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let api = Api::new();
    for path in [
        "/no/where",
        "/nowhere.js",
        "/v1",
        "/v1/rooms/r/recordings",
        "/whip",
        "/hls/",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
    ] {
        api.get(path).await.problem(404);
    }
    api.send("POST", "/nowhere", &[], "").await.problem(404);
    let reply = api.send("PUT", "/v1/rooms", &[], "").await;
    reply.problem(405);
    assert_eq!(reply.header("allow"), "GET, POST, HEAD, OPTIONS");
    api.send("BREW", "/healthz", &[], "").await.problem(405);
    let text = api.app.metrics().text();
    assert!(text.contains("method=\"other\",route=\"/healthz\",status=\"405\""), "{text}");
    assert!(!text.contains("Cargo"), "request paths must not become labels: {text}");
}

#[tokio::test]
async fn cors_preflights_are_answered() {
    let api = Api::keyed();
    for (path, accept) in
        [("/whip/r", "accept-post"), ("/v1/rooms/r/participants", "accept-post"), ("/v1/sessions/x", "accept-patch")]
    {
        let asked = [
            ("origin", "https://example.org"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let reply = api.send("OPTIONS", path, &asked, "").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, "*"), "{path}: {reply:?}");
        assert!(reply.header("access-control-allow-headers").contains("Authorization"), "{reply:?}");
        assert!(!reply.header(accept).is_empty(), "{path}: {reply:?}");
        assert_eq!(reply.header("link"), "", "a preflight gets no TURN credentials");
    }
    let exposed = api.get("/whip/r").await.header("access-control-expose-headers").to_owned();
    for header in ["Location", "ETag", "Link", "Accept-Patch", "Commingle-Participant"] {
        assert!(exposed.contains(header), "{exposed}");
    }
}

#[tokio::test]
async fn the_page_has_an_entity_tag_and_a_content_security_policy() {
    let api = Api::keyed();
    let page = api.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("script-src 'self';"), "{page:?}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    let known = api.send("GET", "/", &[("if-none-match", page.header("etag"))], "").await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    let module = api.get("/commingle.js").await;
    assert_eq!((module.status, module.header("content-type")), (200, "text/javascript; charset=utf-8"));
    assert_eq!(module.header("access-control-allow-origin"), "*", "pages of other origins may import it");
    assert_eq!(api.get("/docs/api.md").await.status, 200);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_problem() {
    // Without a key, a request without the address of a connection is refused.
    let api = Api::keyed();
    let router = Router::new()
        .route("/bug", axum::routing::get(|| async { if true { panic!("a bug") } else { StatusCode::OK } }))
        .layer(middleware::from_fn_with_state(api.app.clone(), common));
    let response = router
        .oneshot(Request::get("/bug").body(axum::body::Body::empty()).expect("valid"))
        .await
        .expect("never fails");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_slow_request_head_is_closed_and_a_slow_body_gets_408() {
    let api = Api::with(|config| (config.limits.header_seconds, config.limits.request_seconds) = (1, 1));
    let address = api.listen().await;
    let exchange = async |text: &str| {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it ends the connection");
        answer
    };
    let head = exchange("POST /whip/r HTTP/1.1\r\nhost: localhost\r\n").await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    let body = exchange(
        "POST /whip/r HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/sdp\r\ncontent-length: 100\r\n\r\nv=0",
    )
    .await;
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("application/problem+json"), "{body}");
}

#[tokio::test]
async fn http_connections_are_bounded() {
    let api = Api::with(|config| config.limits.connections = 1);
    let address = api.listen().await;
    let mut first = TcpStream::connect(address).await.expect("it listens");
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it reads");
    let mut some = [0; 15];
    first.read_exact(&mut some).await.expect("it answers");
    assert_eq!(&some, b"HTTP/1.1 200 OK");
    let mut second = TcpStream::connect(address).await.expect("the kernel accepts");
    let read = second.read(&mut some).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed at once: {read:?}");
    assert!(api.app.metrics().text().contains("commingle_http_connections_refused_total 1"));
}
