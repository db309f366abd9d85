//! Joins and sessions by WHIP and WHEP, and refused joins.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::transport::framing;
use crate::transport::stun::Class;
use crate::transport::stun::tests::signed;

const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

fn fragment(ufrag: &str, password: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
    )
}

#[tokio::test]
async fn the_answer_to_a_join_has_all_headers_that_whip_requires() {
    let api = Api::new();
    let (session, reply) = api.join("r").await;
    assert_eq!(reply.header("content-type"), SDP);
    assert!(reply.body.starts_with("v=0"), "{reply:?}");
    assert!(reply.header("etag").starts_with('"') && reply.header("etag").ends_with('"'), "{reply:?}");
    assert_eq!(reply.header("commingle-participant"), "p1");
    assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag, application/sdp");
    let link = format!("<stun:localhost:{}>; rel=\"ice-server\"", api.media_port);
    assert_eq!(reply.header("link"), link);
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
async fn an_ice_tcp_connection_ends_soon_after_its_session() {
    let api = Api::new();
    for direction in ["sendrecv", "recvonly"] {
        let joined = api.post_offer("/v1/rooms/r/participants", &offer(direction)).await;
        let field = |name: &str| joined.body.lines().find_map(|line| line.strip_prefix(name)).expect("in the answer");
        let name = format!("{}:Rst4", field("a=ice-ufrag:"));
        let mut frame = BytesMut::new();
        framing::put(&signed(Class::Request, [1; 12], Some(&name), field("a=ice-pwd:")), &mut frame);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, api.media_port)).await.expect("it listens");
        stream.write_all(&frame).await.expect("it is open");
        let answered = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("in time");
        assert!(answered.expect("it is open") > 0, "the session answers the check");
        assert_eq!(api.send("DELETE", joined.header("location"), &[], "").await.status, 200);
        // An idle connection would be closed only after half a minute.
        let ended =
            timeout(Duration::from_secs(10), async { while matches!(stream.read(&mut [0; 512]).await, Ok(1..)) {} });
        ended.await.unwrap_or_else(|_| panic!("{direction}: the connection is still open"));
    }
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
async fn invalid_joins_are_refused_with_advice() {
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
    let queries =
        [("tier=best", "tier"), ("name=a&name=b", "name"), ("view=a%20b", "view"), ("self_view=no", "self_view")];
    for (query, names) in queries {
        let detail = api.post_offer(&format!("{path}?{query}"), &offer("sendrecv")).await.problem(400);
        assert!(detail.contains(names), "{detail}");
    }
    let long = "x".repeat(65);
    api.post_offer(&format!("{path}?name={long}"), &offer("sendrecv")).await.problem(400);
    for room in ["a%20b", "%2e%2e%2fetc", "a%CC%88", "%F0%9F%8E%89", "%FF", &long] {
        api.post_offer(&format!("/v1/rooms/{room}/participants"), &offer("sendrecv")).await.problem(400);
    }
    let text = api.app.metrics().text();
    assert!(text.contains("commingle_joins_refused_total{status=\"415\"} 3"), "{text}");
}

#[tokio::test]
async fn a_join_may_ask_for_a_view() {
    let api = Api::new();
    let ask = async |query: &str| api.post_offer(&format!("/whep/r?{query}"), &offer("recvonly")).await;
    for query in [
        "view=program&self_view=shown",
        "self_view=hidden",
        "view=own&self_view=hidden&canvas=720x1280",
        "view=own&layout=speaker",
        "view=own&layout=%7B%22kind%22:%22grid%22,%22gap%22:8%7D",
    ] {
        assert_eq!(ask(query).await.status, 201, "{query}");
    }
    let unknown = ask("view=backstage").await;
    assert!(unknown.problem(404).contains("`program`, and `own`"));
    assert_eq!(unknown.json()["type"], "/docs/api.md#no-view");
    for (query, part) in [
        ("view=own&layout=circle", "`one_plus_5`"),
        ("view=own&layout=%7B%22kind%22:%22grid%22,%22gab%22:8%7D", "`gap`"),
        ("view=own&canvas=720", "720x1280"),
        ("view=own&canvas=8x8", "90"),
        ("view=own&canvas=1920x1080", "1280x720"),
        ("view=program&canvas=720x1280", "`own`"),
    ] {
        let detail = ask(query).await.problem(422);
        assert!(detail.contains(part), "{query}: {detail}");
    }
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
async fn a_viewer_cannot_start_to_send_with_a_new_offer() {
    let api = Api::new();
    for path in ["/whep/r", "/v1/rooms/r/participants"] {
        let joined = api.post_offer(path, &offer("recvonly")).await;
        assert_eq!(joined.status, 201, "{joined:?}");
        let session = joined.header("location").to_owned();
        let patch = async |direction| api.send("PATCH", &session, &[("content-type", SDP)], offer(direction)).await;
        // The participant is not connected, so the room does not know its role yet.
        assert!(patch("sendrecv").await.problem(403).contains("recvonly"));
        patch("sendonly").await.problem(403);
        assert_eq!(patch("recvonly").await.status, 200, "it may offer the same again");
    }
    for (path, direction) in [("/whip/r", "sendonly"), ("/v1/rooms/r/participants", "sendrecv")] {
        let joined = api.post_offer(path, &offer(direction)).await;
        let patched = api.send("PATCH", joined.header("location"), &[("content-type", SDP)], offer(direction)).await;
        assert_eq!(patched.status, 200, "{direction} at {path}: {patched:?}");
    }
}

#[tokio::test]
async fn a_new_offer_with_new_credentials_has_a_new_entity_tag() {
    let api = Api::new();
    let (session, joined) = api.join("r").await;
    let patch = async |offer: String| api.send("PATCH", &session, &[("content-type", SDP)], offer).await;
    let same = patch(offer("sendrecv")).await;
    assert_eq!((same.status, same.header("etag")), (200, joined.header("etag")), "{same:?}");
    let restarted = patch(offer("sendrecv").replace("a=ice-ufrag:Rst4", "a=ice-ufrag:New5")).await;
    let tag = restarted.header("etag");
    assert!(restarted.status == 200 && tag.starts_with('"') && tag != joined.header("etag"), "{restarted:?}");
    assert!(restarted.body.contains(&format!("a=ice-ufrag:{}\r\n", tag.trim_matches('"'))), "{restarted:?}");
    assert_eq!(api.get(&session).await.header("etag"), tag);
    let headers = |tag| [("content-type", FRAGMENT), ("if-match", tag)];
    let candidate = fragment("New5", "aaaabbbbccccddddeeeeffff");
    api.send("PATCH", &session, &headers(joined.header("etag")), candidate.clone()).await.problem(412);
    assert_eq!(api.send("PATCH", &session, &headers(tag), candidate).await.status, 204);
}

#[tokio::test]
async fn fragments_require_the_entity_tag() {
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
async fn pending_joins_of_one_address_are_limited() {
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
    assert_eq!(api.get(&sessions[0]).await.status, 200, "existing sessions are not affected");
    assert_eq!(api.send("DELETE", &sessions[0], &[], "").await.status, 200);
    assert_eq!(api.post_offer(path, &offer("sendrecv")).await.status, 201, "the limit is not reached any more");
}

#[tokio::test]
async fn a_refused_join_is_not_pending() {
    let api = Api::with(|config| config.limits.pending_per_address = 1);
    for _ in 0..5 {
        api.post_offer("/v1/rooms/r/participants", "v=0\r\nhello").await.problem(422);
    }
    api.join("r").await;
}

#[tokio::test]
async fn the_rate_of_joins_is_limited() {
    let api = Api::with(|config| (config.limits.joins_burst, config.limits.joins_per_second) = (2, 1));
    for _ in 0..2 {
        api.post_offer("/whip/r", "hello").await.problem(400);
    }
    let refused = api.post_offer("/whip/r", &offer("sendonly")).await;
    refused.problem(429);
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn the_rate_of_session_requests_is_limited() {
    let api = Api::with(|config| {
        (config.limits.session_requests_burst, config.limits.session_requests_per_second) = (3, 1);
    });
    let (session, reply) = api.join("r").await;
    let headers = [("content-type", FRAGMENT), ("if-match", reply.header("etag"))];
    let candidate = fragment("Rst4", "aaaabbbbccccddddeeeeffff");
    for _ in 0..2 {
        assert_eq!(api.send("PATCH", &session, &headers, candidate.clone()).await.status, 204);
    }
    // Requests with a wrong secret count as well.
    api.send("DELETE", "/v1/sessions/nobody", &[], "").await.problem(404);
    for method in ["PATCH", "DELETE"] {
        let refused = api.send(method, &session, &headers, candidate.clone()).await;
        refused.problem(429);
        assert_eq!(refused.header("retry-after"), "1", "{refused:?}");
    }
    assert_eq!(api.get(&session).await.status, 200, "the session is not affected");
}

#[tokio::test]
async fn a_draining_server_refuses_joins() {
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
async fn without_auto_create_a_join_creates_no_room() {
    let api = Api::with(|config| config.rooms.auto_create = false);
    api.post_offer("/whip/r", &offer("sendonly")).await.problem(404);
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    assert_eq!(api.post_offer("/whip/r", &offer("sendonly")).await.status, 201);
}

#[tokio::test]
async fn full_rooms_and_servers_send_retry_after() {
    let api = Api::with(|config| {
        let rooms = &mut config.rooms;
        (rooms.max_participants, rooms.max_viewers, rooms.max_rooms) = (1, 1, 1);
    });
    api.join("r").await;
    assert_eq!(api.post_offer("/whep/r", &offer("recvonly")).await.status, 201, "the limit of viewers is separate");
    for (endpoint, direction) in [("whip/r", "sendonly"), ("whep/r", "recvonly"), ("whip/another", "sendonly")] {
        let refused = api.post_offer(&format!("/{endpoint}"), &offer(direction)).await;
        refused.problem(503);
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    }
}
