//! The API by its router, with the real rooms and a media port of their own on loopback, but no mixer and no browsers.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use axum::body::to_bytes;
use axum::http::StatusCode;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tower::ServiceExt;

use super::routes::{Route, Scope, table};
use super::*;
use crate::config::Secret;
use crate::edge::auth::{Claims, sign};
use crate::edge::peer::PeerConfig;
use crate::edge::rooms::{RoomCounters, ServerSettings};
use crate::edge::supervise::MixerCommand;
use crate::edge::udp::Mux;
use crate::room::document::Role;
use crate::time;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const JSON: &str = "application/json";

/// An app and its router.
struct Api {
    app: App,
    router: Router,
}

/// What a request was answered with.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless this is a whole problem with this status; returns its detail.
    #[track_caller]
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem["detail"].as_str().expect("checked").to_owned()
    }
}

impl Api {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn keyed() -> Self {
        Self::with(|config| config.auth.key = Some(Secret::from(KEY.to_owned())))
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mux = Mux::bind((Ipv4Addr::LOCALHOST, 0).into(), Vec::new()).expect("loopback has free ports");
        let port = mux.local_addr().port();
        // It reads nothing and says nothing: these tests end before anybody misses it.
        let mixer = MixerCommand { program: "sleep".into(), arguments: vec!["60".into()] };
        let settings = ServerSettings {
            mixer,
            canvas: config.video.canvas,
            fps: config.video.fps,
            ladder: config.ladder(),
            encodable: config.video.codecs.clone(),
            openh264: false,
            max_source: config.video.max_source,
            mixer_threads: 1,
            auto_create: config.rooms.auto_create,
            max_participants: config.rooms.max_participants as usize,
            max_rooms: config.rooms.max_rooms as usize,
            linger: config.rooms.linger(),
            counters: RoomCounters::default(),
        };
        let rooms = Rooms::new(settings, PeerConfig { mux });
        let app = App::new(&config, rooms, Arc::new(Metrics::default()), port);
        Self { router: router(&app), app }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<axum::body::Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).expect("a valid request");
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        request.extensions_mut().insert(axum::extract::ConnectInfo(here));
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("bodies are whole");
        let body = String::from_utf8(body.to_vec()).expect("everything we answer is text");
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    async fn post_offer(&self, path: &str, offer: &str) -> Reply {
        self.send("POST", path, &[("content-type", SDP)], offer.to_owned()).await
    }

    async fn send_json(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send(method, path, &[("content-type", JSON)], body.to_owned()).await
    }

    /// Joins, and returns the session's path with the answer.
    async fn join(&self, room: &str) -> (String, Reply) {
        let reply = self.post_offer(&format!("/v1/rooms/{room}/participants"), &offer("sendrecv")).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        (reply.header("location").to_owned(), reply)
    }

    /// Serves on a port of its own.
    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(serve(listener, self.app.clone()));
        address
    }
}

fn token(room: Option<&str>, role: Role) -> String {
    let room = room.map(|room| room.parse().expect("a name"));
    let exp = time::unix_seconds() as f64 + 60.0;
    sign(&Claims { room, role, name: Some("Ann".into()), exp, nbf: None }, KEY)
}

fn offer(direction: &str) -> String {
    let fingerprint = (0..32).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let mut sdp =
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n".to_owned();
    for (kind, mid, payload, codec) in [("audio", 0, 111, "opus/48000/2"), ("video", 1, 96, "VP8/90000")] {
        sdp += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {payload}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:Rst4\r\n\
             a=ice-pwd:aaaabbbbccccddddeeeeffff\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {fingerprint}\r\n\
             a=setup:actpass\r\na=mid:{mid}\r\na={direction}\r\na=msid:stream {kind}\r\na=rtcp-mux\r\n\
             a=rtpmap:{payload} {codec}\r\n"
        );
        if direction.starts_with("send") {
            sdp += &format!("a=ssrc:{} cname:tester\r\n", 1000 + mid);
        }
    }
    sdp
}

fn fragment(ufrag: &str, password: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
    )
}

fn path_of(route: &Route) -> String {
    route.path.replace("{room}", "r").replace("{id}", "p1").replace("{secret}", "nobody")
}

#[tokio::test]
async fn every_route_demands_its_scope() {
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
        let (needed, everywhere) = match route.scope {
            Scope::Public | Scope::Secret => {
                let reply = status(None).await;
                assert!(![401, 403].contains(&reply.status), "{what} needs no token: {reply:?}");
                continue;
            }
            Scope::Room(role) => (role, false),
            Scope::Server(role) => (role, true),
        };
        let bare = status(None).await;
        bare.problem(401);
        assert!(bare.header("www-authenticate").starts_with("Bearer"), "{what}: {bare:?}");
        status(Some("nonsense".into())).await.problem(401);
        for role in roles {
            let reply = status(Some(token(Some("r"), role))).await;
            if role < needed || everywhere && role != Role::Operator {
                reply.problem(403);
            } else if role >= Role::Moderator && !everywhere {
                assert!(![401, 403].contains(&reply.status), "{what} as {role:?}: {reply:?}");
            }
        }
        if everywhere {
            status(Some(token(Some("r"), Role::Operator))).await.problem(403);
        } else {
            status(Some(token(Some("another"), Role::Moderator))).await.problem(403);
        }
        let reply = status(Some(token(None, Role::Operator))).await;
        assert!(![401, 403].contains(&reply.status), "{what} as operator: {reply:?}");
    }
}

#[tokio::test]
async fn only_oneself_or_a_moderator_changes_a_participant() {
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
    // It is let through, and is not connected yet.
    api.send("PATCH", &format!("{path}?session={secret}"), &headers, mute).await.problem(404);
    let other = format!("/v1/rooms/r/participants/p99?session={secret}");
    api.send("PATCH", &other, &headers, mute).await.problem(403);
    // Without a token the session is enough to read its own room, and no other.
    assert_eq!(api.get(&format!("/v1/rooms/r?session={secret}")).await.status, 200);
    api.get(&format!("/v1/rooms/another?session={secret}")).await.problem(403);
    api.get("/v1/rooms/r?session=nobody").await.problem(401);
    assert_eq!(api.get(&format!("/v1/rooms/r?token={}", token(Some("r"), Role::Viewer))).await.status, 200);
}

#[tokio::test]
async fn the_description_lists_exactly_the_routes() {
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
async fn every_reference_of_the_description_resolves() {
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
    for kind in crate::edge::problem::KINDS {
        assert!(service::DOCS.contains(&format!("\n### {kind}\n")), "docs/api.md has no heading `{kind}`");
    }
}

#[tokio::test]
async fn a_join_is_answered_with_all_that_whip_wants() {
    let api = Api::new();
    let (session, reply) = api.join("r").await;
    assert_eq!(reply.header("content-type"), SDP);
    assert!(reply.body.starts_with("v=0"), "{reply:?}");
    assert!(reply.header("etag").starts_with('"') && reply.header("etag").ends_with('"'), "{reply:?}");
    assert_eq!(reply.header("commingle-participant"), "p1");
    assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag, application/sdp");
    let link = format!("<stun:localhost:{}>; rel=\"ice-server\"", api.app.0.media.port);
    assert_eq!(reply.header("link"), link);
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    let secret = session.strip_prefix("/v1/sessions/").expect("a session");
    assert!(secret.len() >= 32, "128 bits in hexadecimal: {secret}");

    let state = api.get(&session).await;
    assert_eq!((state.status, state.header("etag")), (200, reply.header("etag")), "{state:?}");
    assert_eq!(state.json()["room"], "r");

    assert_eq!(api.send("DELETE", &session, &[("if-match", "\"any\"")], "").await.status, 200);
    api.send("DELETE", &session, &[], "").await.problem(404);
    api.get(&session).await.problem(404);
}

#[tokio::test]
async fn whip_publishes_and_whep_watches() {
    let api = Api::new();
    for (path, direction) in [("/whip/r", "recvonly"), ("/whep/r", "sendonly"), ("/whep/r", "sendrecv")] {
        api.post_offer(path, &offer(direction)).await.problem(422);
    }
    for (path, direction) in [("/whip/r", "sendonly"), ("/whip/r", "sendrecv"), ("/whep/r", "recvonly")] {
        assert_eq!(api.post_offer(path, &offer(direction)).await.status, 201, "{direction} at {path}");
    }
    for path in ["/whip/r", "/whep/r"] {
        let head = api.send("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.header("content-type")), (200, SDP));
        assert_eq!(api.get(path).await.body, "");
    }
}

#[tokio::test]
async fn wrong_joins_are_refused_with_advice() {
    let api = Api::new();
    let path = "/v1/rooms/r/participants";
    for kind in ["text/plain", "application/json", ""] {
        let reply = api.send("POST", path, &[("content-type", kind)], offer("sendrecv")).await;
        assert!(reply.problem(415).contains(SDP));
    }
    let charset = [("content-type", "Application/SDP; charset=utf-8")];
    assert_eq!(api.send("POST", path, &charset, offer("sendrecv")).await.status, 201);
    api.post_offer(path, "").await.problem(400);
    api.post_offer(path, "hello").await.problem(400);
    api.send("POST", path, &[("content-type", SDP)], vec![0xff, 0xfe]).await.problem(400);
    let huge = format!("v=0\r\n{}", "a=x\r\n".repeat(1024 * 1024 / 5));
    assert!(api.post_offer(path, &huge).await.problem(413).contains("65536"));
    api.post_offer(path, &offer("inactive")).await.problem(422);
    api.post_offer(path, &offer("sendrecv").replace("VP8", "H263")).await.problem(422);
    for (query, names) in [("tier=best", "tier"), ("name=a&name=b", "name")] {
        let detail = api.post_offer(&format!("{path}?{query}"), &offer("sendrecv")).await.problem(400);
        assert!(detail.contains(names), "{detail}");
    }
    let long = "x".repeat(65);
    api.post_offer(&format!("{path}?name={long}"), &offer("sendrecv")).await.problem(400);
    for room in ["a%20b", "%2e%2e%2fetc", "%C3%A4", "%FF", &long] {
        api.post_offer(&format!("/v1/rooms/{room}/participants"), &offer("sendrecv")).await.problem(400);
    }
    let text = api.app.metrics().text();
    assert!(text.contains("commingle_joins_refused_total{status=\"415\"} 3"), "{text}");
}

#[tokio::test]
async fn a_viewer_only_receives() {
    let api = Api::keyed();
    let bearer = format!("Bearer {}", token(Some("r"), Role::Viewer));
    let headers = [("authorization", bearer.as_str()), ("content-type", SDP)];
    let path = "/v1/rooms/r/participants";
    assert!(api.send("POST", path, &headers, offer("sendrecv")).await.problem(403).contains("viewer"));
    api.send("POST", "/whip/r", &headers, offer("sendonly")).await.problem(403);
    assert_eq!(api.send("POST", path, &headers, offer("recvonly")).await.status, 201);
    assert_eq!(api.send("POST", "/whep/r", &headers, offer("recvonly")).await.status, 201);
}

#[tokio::test]
async fn fragments_need_the_entity_tag() {
    let api = Api::new();
    let (session, reply) = api.join("r").await;
    let tag = reply.header("etag").to_owned();
    let patch = async |headers: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [("content-type", FRAGMENT)].iter().chain(headers).copied().collect();
        api.send("PATCH", &session, &headers, body.to_owned()).await
    };
    let candidate = fragment("Rst4", "aaaabbbbccccddddeeeeffff");
    let taken = patch(&[("if-match", &tag)], &candidate).await;
    assert_eq!((taken.status, taken.body.as_str(), taken.header("etag")), (204, "", ""), "{taken:?}");
    patch(&[], &candidate).await.problem(428);
    patch(&[("if-match", "\"other\"")], &candidate).await.problem(412);
    patch(&[("if-match", &format!("W/{tag}"))], &candidate).await.problem(412);
    patch(&[("if-match", &tag)], "").await.problem(400);
    patch(&[("if-match", &tag)], "hello").await.problem(400);
    patch(&[("if-match", &tag)], &"a=x\r\n".repeat(20_000)).await.problem(413);
    let wrong = api.send("PATCH", &session, &[("content-type", "text/plain")], candidate.clone()).await;
    wrong.problem(415);
    assert!(wrong.header("accept-patch").contains(FRAGMENT), "{wrong:?}");

    let restarted = patch(&[("if-match", "*")], &fragment("New5", "ccccddddccccddddeeeeffff")).await;
    assert_eq!((restarted.status, restarted.header("content-type")), (200, FRAGMENT), "{restarted:?}");
    assert!(restarted.body.contains("a=ice-ufrag:"), "{restarted:?}");
    let new = restarted.header("etag");
    assert!(new.starts_with('"') && new != tag, "{restarted:?}");
    patch(&[("if-match", &tag)], &candidate).await.problem(412);

    let headers = [("content-type", FRAGMENT), ("if-match", tag.as_str())];
    api.send("PATCH", "/v1/sessions/nobody", &headers, candidate).await.problem(404);
}

#[tokio::test]
async fn half_open_joins_from_one_address_are_bounded() {
    let api = Api::with(|config| config.limits.pending_per_address = 3);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(api.join("r").await.0);
    }
    let path = "/v1/rooms/r/participants";
    for _ in 0..20 {
        let refused = api.post_offer(path, &offer("sendrecv")).await;
        refused.problem(429);
        assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{refused:?}");
    }
    assert_eq!(api.get(&sessions[0]).await.status, 200, "those who are in are not harmed");
    assert_eq!(api.send("DELETE", &sessions[0], &[], "").await.status, 200);
    assert_eq!(api.post_offer(path, &offer("sendrecv")).await.status, 201, "there is a place again");
}

#[tokio::test]
async fn a_refused_join_takes_no_place() {
    let api = Api::with(|config| config.limits.pending_per_address = 1);
    for _ in 0..5 {
        api.post_offer("/v1/rooms/r/participants", "v=0\r\nhello").await.problem(400);
    }
    api.join("r").await;
}

#[tokio::test]
async fn too_many_joins_in_a_short_time_wait() {
    let api = Api::with(|config| (config.limits.joins_burst, config.limits.joins_per_second) = (2, 1));
    for _ in 0..2 {
        api.post_offer("/whip/r", "hello").await.problem(400);
    }
    let refused = api.post_offer("/whip/r", &offer("sendonly")).await;
    refused.problem(429);
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn draining_takes_no_joins() {
    let api = Api::new();
    let (session, _) = api.join("r").await;
    assert_eq!(api.get("/readyz").await.status, 200);
    api.app.drain();
    let refused = api.post_offer("/v1/rooms/r/participants", &offer("sendrecv")).await;
    refused.problem(503);
    assert!(!refused.header("retry-after").is_empty());
    api.send_json("POST", "/v1/rooms", r#"{"name":"new"}"#).await.problem(503);
    api.get("/readyz").await.problem(503);
    assert_eq!(api.get("/healthz").await.status, 200);
    assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200, "leaving is still possible");
}

#[tokio::test]
async fn rooms_live_as_documents() {
    let api = Api::new();
    api.get("/v1/rooms/r").await.problem(404);
    assert_eq!(api.get("/v1/rooms").await.json(), json!([]));
    let made = api.send_json("POST", "/v1/rooms", r#"{"name":"r","locked":true}"#).await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/rooms/r"), "{made:?}");
    assert_eq!(made.json()["locked"], true);
    api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.problem(409);
    // Without tokens nobody stands above the lock.
    api.post_offer("/v1/rooms/r/participants", &offer("sendrecv")).await.problem(403);
    let open = api.send_json("PATCH", "/v1/rooms/r", r#"{"locked":false}"#).await;
    assert_eq!((open.status, &open.json()["locked"]), (200, &json!(false)), "{open:?}");
    assert_eq!(api.get("/v1/rooms").await.json()[0]["name"], "r");
    assert_eq!(api.get("/v1/rooms/r/participants").await.json(), json!([]));
    api.get("/v1/rooms/r/participants/p99").await.problem(404);
    api.get("/v1/rooms/r/participants/s1").await.problem(400);

    for (body, status, names) in [
        ("{", 400, "line 1"),
        ("", 400, "JSON"),
        (r#"{"name":"a b"}"#, 422, "a b"),
        (r#"{"locked":true}"#, 422, "name"),
        (r#"{"name":"x","lokced":true}"#, 422, "lokced"),
        (r#"{"name":"x","locked":"yes"}"#, 422, "boolean"),
        ("[1]", 422, "map"),
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
async fn a_room_is_not_made_by_a_join_when_so_configured() {
    let api = Api::with(|config| config.rooms.auto_create = false);
    api.post_offer("/whip/r", &offer("sendonly")).await.problem(404);
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    assert_eq!(api.post_offer("/whip/r", &offer("sendonly")).await.status, 201);
}

#[tokio::test]
async fn full_rooms_and_full_servers_say_when_to_come_back() {
    let api = Api::with(|config| (config.rooms.max_participants, config.rooms.max_rooms) = (1, 1));
    api.join("r").await;
    for room in ["r", "another"] {
        let refused = api.post_offer(&format!("/whip/{room}"), &offer("sendonly")).await;
        refused.problem(503);
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let api = Api::new();
    for path in ["/nowhere", "/v1", "/v1/rooms/r/recordings", "/whip", "/../Cargo.toml", "/%2e%2e/Cargo.toml"] {
        api.get(path).await.problem(404);
    }
    api.send("POST", "/nowhere", &[], "").await.problem(404);
    let reply = api.send("PUT", "/v1/rooms", &[], "").await;
    reply.problem(405);
    assert_eq!(reply.header("allow"), "GET, POST, HEAD, OPTIONS");
    api.send("BREW", "/healthz", &[], "").await.problem(405);
    let text = api.app.metrics().text();
    assert!(text.contains("method=\"other\",route=\"/healthz\",status=\"405\""), "{text}");
    assert!(!text.contains("Cargo"), "paths of callers are no labels: {text}");
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
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
        assert_eq!(reply.header("link"), "", "a preflight gets no credentials");
    }
    let exposed = api.get("/v1/rooms/r").await.header("access-control-expose-headers").to_owned();
    for header in ["Location", "ETag", "Link", "Accept-Patch", "Commingle-Participant"] {
        assert!(exposed.contains(header), "{exposed}");
    }
}

#[tokio::test]
async fn the_page_is_cached_by_its_entity_tag_and_runs_only_our_files() {
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
    assert_eq!(module.header("access-control-allow-origin"), "*", "other pages may import it");
    assert_eq!(api.get("/docs/api.md").await.status, 200);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_problem() {
    let api = Api::new();
    let router = Router::new()
        .route("/bug", axum::routing::get(|| async { if true { panic!("a bug") } else { StatusCode::OK } }))
        .layer(middleware::from_fn_with_state(api.app.clone(), around));
    let response = router
        .oneshot(Request::get("/bug").body(axum::body::Body::empty()).expect("valid"))
        .await
        .expect("never fails");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_a_slow_body_told() {
    let api = Api::with(|config| (config.limits.header_seconds, config.limits.request_seconds) = (1, 1));
    let address = api.listen().await;
    let talk = async |text: &str| {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it ends the connection");
        answer
    };
    let head = talk("POST /whip/r HTTP/1.1\r\nhost: x\r\n").await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    let body =
        talk("POST /whip/r HTTP/1.1\r\nhost: x\r\ncontent-type: application/sdp\r\ncontent-length: 100\r\n\r\nv=0")
            .await;
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("application/problem+json"), "{body}");
}

#[tokio::test]
async fn connections_are_bounded() {
    let api = Api::with(|config| config.limits.connections = 1);
    let address = api.listen().await;
    let mut first = TcpStream::connect(address).await.expect("it listens");
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it reads");
    let mut some = [0; 15];
    first.read_exact(&mut some).await.expect("it answers");
    assert_eq!(&some, b"HTTP/1.1 200 OK");
    let mut second = TcpStream::connect(address).await.expect("the kernel accepts");
    let read = second.read(&mut some).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed at once: {read:?}");
    assert!(api.app.metrics().text().contains("commingle_http_connections_refused_total 1"));
}

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
