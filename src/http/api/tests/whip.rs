//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-04), line by line; `docs/whip-whep.md` names these tests.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// Both endpoints, and the direction of offers to them.
const ENDPOINTS: [(&str, &str); 2] = [("/whip/r", "sendonly"), ("/whep/r", "recvonly")];

fn fragment(ufrag: &str, candidates: &str) -> String {
    format!(
        "a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:aaaabbbbccccddddeeeeffff\r\n{candidates}"
    )
}

/// Joins at an endpoint; returns the path of the session and the response.
async fn join(api: &Api, (path, direction): (&str, &str)) -> (String, Reply) {
    let reply = api.post_offer(path, &offer(direction)).await;
    assert_eq!(reply.status, 201, "{direction} at {path}: {reply:?}");
    (reply.header("location").to_owned(), reply)
}

async fn patch(api: &Api, session: &str, if_match: Option<&str>, body: &str) -> Reply {
    let headers: Vec<_> =
        [("content-type", FRAGMENT)].into_iter().chain(if_match.map(|tag| ("if-match", tag))).collect();
    api.send("PATCH", session, &headers, body.to_owned()).await
}

fn attributes<'a>(sdp: &'a str, prefix: &'a str) -> Vec<&'a str> {
    sdp.lines().filter_map(|line| line.strip_prefix(prefix)).collect()
}

#[tokio::test]
async fn a_whip_answer_only_receives_and_a_whep_answer_only_sends() {
    let api = Api::new();
    for (endpoint, expected) in ENDPOINTS.into_iter().zip(["recvonly", "sendonly"]) {
        let (_, reply) = join(&api, endpoint).await;
        assert_eq!(reply.header("content-type"), SDP);
        assert_eq!(reply.body.matches(&format!("a={expected}\r\n")).count(), 2, "{}", reply.body);
        assert!(!reply.body.contains("a=sendrecv") && !reply.body.contains("a=inactive"), "{}", reply.body);
        for refused in ["inactive", if expected == "recvonly" { "recvonly" } else { "sendonly" }] {
            api.post_offer(endpoint.0, &offer(refused)).await.problem(422);
        }
    }
}

#[tokio::test]
async fn a_whep_answer_is_one_stream_with_one_track_of_each_kind() {
    let api = Api::new();
    let (_, reply) = join(&api, ENDPOINTS[1]).await;
    let streams: Vec<&str> =
        attributes(&reply.body, "a=msid:").iter().filter_map(|msid| msid.split(' ').next()).collect();
    assert_eq!(streams, ["commingle", "commingle"], "{}", reply.body);
    let video = offer("recvonly");
    let video = &video[video.find("m=video").expect("has one")..];
    let two = offer("recvonly").replace("BUNDLE 0 1", "BUNDLE 0 1 2") + &video.replace("a=mid:1", "a=mid:2");
    assert!(api.post_offer("/whep/r", &two).await.problem(422).contains("to receive"));
}

#[tokio::test]
async fn an_offer_is_accepted_or_refused_as_a_whole() {
    let api = Api::new();
    let publishes = offer("sendonly");
    let (head, video) = publishes.split_at(publishes.find("m=video").expect("has one"));
    let audio = &head[head.find("m=audio").expect("has one")..];
    let with = |more: &str| format!("{}{more}", publishes.replace("BUNDLE 0 1", "BUNDLE 0 1 2 3"));
    let two_microphones = with(&audio.replace("a=mid:0", "a=mid:2"));
    let three_cameras = with(&[video.replace("a=mid:1", "a=mid:2"), video.replace("a=mid:1", "a=mid:3")].concat());
    let unknown_video = publishes.replace("VP8/90000", "H263/90000");
    for refused in [two_microphones, three_cameras, unknown_video] {
        let detail = api.post_offer("/whip/r", &refused).await.problem(422);
        assert!(detail.contains("remove") || detail.contains("use "), "the detail gives advice: {detail}");
    }
    api.get("/v1/rooms/r/participants/p1").await.problem(404);
}

#[tokio::test]
async fn offers_without_bundle_or_rtcp_mux_are_refused() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let strict = offer(endpoint.1).replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n");
        let answer = api.post_offer(endpoint.0, &strict).await.body;
        assert_eq!(answer.matches("a=rtcp-mux-only\r\n").count(), 2, "{answer}");
        assert_eq!(answer.matches("a=rtcp-mux\r\n").count(), 2, "{answer}");
        assert_eq!(attributes(&answer, "a=group:"), ["BUNDLE 0 1"], "{answer}");
        let plain = join(&api, endpoint).await.1.body;
        assert!(!plain.contains("rtcp-mux-only"), "rtcp-mux-only was not offered: {plain}");
        assert!(
            api.post_offer(endpoint.0, &offer(endpoint.1).replace("a=rtcp-mux\r\n", ""))
                .await
                .problem(422)
                .contains("rtcp-mux")
        );
        let apart = offer(endpoint.1).replace("a=group:BUNDLE 0 1\r\n", "");
        assert!(api.post_offer(endpoint.0, &apart).await.problem(422).contains("max-bundle"));
    }
}

#[tokio::test]
async fn every_valid_dtls_setup_is_answered() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        for (offered, answered) in [("actpass", "passive"), ("active", "passive"), ("passive", "active")] {
            let offer = offer(endpoint.1).replace("actpass", offered);
            let reply = api.post_offer(endpoint.0, &offer).await;
            assert_eq!(reply.status, 201, "{reply:?}");
            assert_eq!(attributes(&reply.body, "a=setup:"), [answered; 2], "{offered} at {}", endpoint.0);
        }
        api.post_offer(endpoint.0, &offer(endpoint.1).replace("actpass", "holdconn")).await.problem(422);
    }
}

#[tokio::test]
async fn the_answer_has_all_candidates_and_end_of_candidates() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let (_, reply) = join(&api, endpoint).await;
        // `Link` names the media port, which is also a STUN server.
        let stun = reply.header("link").split(['<', '>']).nth(1).expect("a link").rsplit(':').next().expect("a port");
        let port = format!(" {stun} typ host");
        assert!(attributes(&reply.body, "a=candidate:").iter().any(|line| line.contains(&port)), "{}", reply.body);
        assert_eq!(reply.body.matches("a=end-of-candidates").count(), 1, "{}", reply.body);
        assert!(reply.body.contains("a=ice-options:trickle\r\n"), "{}", reply.body);
        for part in ["a=ice-ufrag:", "a=ice-pwd:"] {
            let credential = attributes(&reply.body, part)[0];
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
            assert!(credential.chars().all(allowed), "only what RFC 8839 allows: {credential}");
        }
    }
}

#[tokio::test]
async fn get_and_head_of_endpoints_and_sessions_are_answered() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        for method in ["GET", "HEAD"] {
            let reply = api.send(method, endpoint.0, &[], "").await;
            assert_eq!((reply.status, reply.body.as_str(), reply.header("content-type")), (200, "", SDP), "{reply:?}");
            assert_eq!(reply.header("accept-post"), SDP, "{reply:?}");
        }
        let (session, joined) = join(&api, endpoint).await;
        let head = api.send("HEAD", &session, &[], "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
        assert_eq!(head.header("etag"), joined.header("etag"));
    }
    let wrong = api.send("POST", "/whip/r", &[("content-type", JSON)], "{}").await;
    wrong.problem(415);
    assert_eq!(wrong.header("accept-post"), SDP, "the answer lists the accepted type");
    for method in ["PUT", "PATCH", "DELETE"] {
        let refused = api.send(method, "/whip/r", &[], "").await;
        refused.problem(405);
        assert_eq!(refused.header("allow"), "POST, GET, HEAD, OPTIONS");
    }
}

#[tokio::test]
async fn candidates_are_trickled_by_whip_and_whep() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let (session, reply) = join(&api, endpoint).await;
        let tag = Some(reply.header("etag"));
        let candidate = "a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host generation 0 ufrag Rst4 network-id 1\r\n";
        let taken = patch(&api, &session, tag, &fragment("Rst4", candidate)).await;
        assert_eq!((taken.status, taken.body.as_str(), taken.header("etag")), (204, "", ""), "{taken:?}");
        let end = patch(&api, &session, tag, &fragment("Rst4", "a=end-of-candidates\r\n")).await;
        assert_eq!(end.status, 204, "{end:?}");
        patch(&api, &session, None, &fragment("Rst4", candidate)).await.problem(428);
        patch(&api, &session, Some("\"other\""), &fragment("Rst4", candidate)).await.problem(412);
        patch(&api, &session, tag, "hello").await.problem(400);
        let wrong = api.send("PATCH", &session, &[("content-type", JSON)], "{}").await;
        wrong.problem(415);
    }
}

#[tokio::test]
async fn unusable_candidates_are_ignored() {
    let api = Api::new();
    let useless = "a=candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:2 1 udp 2122260223 0b1c8f5e-1234.local 5000 typ host\r\n\
        a=candidate:3 1 sctp 2122260223 192.0.2.1 5000 typ host\r\n\
        a=candidate:4 2 udp 2122260223 192.0.2.1 5001 typ host\r\n\
        a=candidate:5 1 udp 2122260223 192.0.2.1 5002 typ quantum\r\n";
    for endpoint in ENDPOINTS {
        let (session, reply) = join(&api, endpoint).await;
        let taken = patch(&api, &session, Some(reply.header("etag")), &fragment("Rst4", useless)).await;
        assert_eq!(taken.status, 204, "{taken:?}");
        let broken = fragment("Rst4", "a=candidate:1 1 udp 1 192.0.2.1 70000 typ host\r\n");
        patch(&api, &session, Some(reply.header("etag")), &broken).await.problem(400);
    }
}

#[tokio::test]
async fn ice_is_restarted_by_whip_and_whep() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let (session, joined) = join(&api, endpoint).await;
        let restarted = patch(&api, &session, Some("*"), &fragment("New5", "")).await;
        assert_eq!((restarted.status, restarted.header("content-type")), (200, FRAGMENT), "{restarted:?}");
        let tag = restarted.header("etag");
        assert!(tag.starts_with('"') && tag != joined.header("etag"), "{restarted:?}");
        let text = &restarted.body;
        assert_ne!(attributes(text, "a=ice-ufrag:")[0], attributes(&joined.body, "a=ice-ufrag:")[0]);
        assert!(!attributes(text, "a=candidate:").is_empty() && text.contains("a=end-of-candidates"), "{text}");
        // RFC 9725 section 4.3.3: the same options as in the answer.
        assert_eq!(attributes(text, "a=ice-options:"), attributes(&joined.body, "a=ice-options:"));
        assert_eq!(text.contains("a=ice-lite"), joined.body.contains("a=ice-lite"));
        let stale = patch(&api, &session, Some(joined.header("etag")), &fragment("New5", "")).await;
        stale.problem(412);
        assert_eq!(patch(&api, &session, Some(tag), &fragment("New5", "")).await.status, 204);
    }
}

#[tokio::test]
async fn a_failed_ice_restart_leaves_the_session_unchanged() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let (session, joined) = join(&api, endpoint).await;
        for body in [fragment("Rst4", ""), fragment("?", ""), "a=mid:0\r\n".to_owned(), String::new()] {
            patch(&api, &session, Some("*"), &body).await.problem(400);
        }
        assert_eq!(api.get(&session).await.header("etag"), joined.header("etag"));
        assert_eq!(patch(&api, &session, Some(joined.header("etag")), &fragment("Rst4", "")).await.status, 204);
    }
}

#[tokio::test]
async fn delete_ends_the_session_whatever_the_entity_tag() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let (session, _) = join(&api, endpoint).await;
        let left = api.send("DELETE", &session, &[("if-match", "\"any\"")], "").await;
        assert_eq!((left.status, left.body.as_str()), (200, ""), "{left:?}");
        for method in ["DELETE", "GET"] {
            api.send(method, &session, &[], "").await.problem(404);
        }
        patch(&api, &session, Some("*"), &fragment("New5", "")).await.problem(404);
    }
}

#[tokio::test]
async fn a_trailing_slash_is_redirected_with_307() {
    let api = Api::new();
    for (path, to) in [
        ("/whip/r/", "/whip/r"),
        ("/whep/r/?tier=low", "/whep/r?tier=low"),
        ("/v1/rooms/r/participants//", "/v1/rooms/r/participants"),
    ] {
        let reply = api.post_offer(path, &offer("sendrecv")).await;
        assert_eq!((reply.status, reply.header("location")), (307, to), "{reply:?}");
    }
    for path in ["//whip/r/", "//example.org/whip/", "/whip/", "/nowhere/", "/index.html/"] {
        api.post_offer(path, &offer("sendrecv")).await.problem(404);
    }
}

#[tokio::test]
async fn tokens_are_accepted_on_all_requests_of_a_session() {
    let api = Api::keyed();
    let bearer = format!("Bearer {}", token(Some("r"), Role::Participant));
    let with = |kind| [("authorization", bearer.as_str()), ("content-type", kind)];
    let refused = api.post_offer("/whip/r", &offer("sendonly")).await;
    refused.problem(401);
    assert!(refused.header("www-authenticate").starts_with("Bearer "), "{refused:?}");
    let preflight = api.send("OPTIONS", "/whip/r", &[("origin", "https://example.org")], "").await;
    assert_eq!(preflight.status, 200, "a preflight has no token");
    let joined = api.send("POST", "/whip/r", &with(SDP), offer("sendonly")).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let session = joined.header("location");
    let headers = [with(FRAGMENT).as_slice(), &[("if-match", joined.header("etag"))]].concat();
    assert_eq!(api.send("PATCH", session, &headers, fragment("Rst4", "")).await.status, 204);
    assert_eq!(api.send("DELETE", session, &with(SDP), "").await.status, 200);
}

#[tokio::test]
async fn session_urls_cannot_be_guessed() {
    let api = Api::with(|config| config.limits.pending_per_address = 100);
    let mut seen = HashSet::new();
    let mut bits = [0_u32; 128];
    for _ in 0..40 {
        let (session, _) = api.join("r").await;
        let secret = session.strip_prefix("/v1/sessions/").expect("a session").to_owned();
        let number = u128::from_str_radix(&secret, 16).expect("128 bits in hexadecimal");
        bits.iter_mut().enumerate().for_each(|(at, ones)| *ones += u32::from(number >> at & 1 == 1));
        assert!(seen.insert(secret));
    }
    // The probability that some random bit never changes is 10^-10.
    assert!(bits.iter().all(|ones| (1..40).contains(ones)), "{bits:?}");
}

#[tokio::test]
async fn ice_servers_are_listed_in_the_answer_but_not_in_a_preflight() {
    let api = Api::new();
    for endpoint in ENDPOINTS {
        let (_, reply) = join(&api, endpoint).await;
        let links: Vec<_> = reply.headers.get_all("link").iter().filter_map(|link| link.to_str().ok()).collect();
        assert!(links.iter().any(|link| link.ends_with("; rel=\"ice-server\"")), "{links:?}");
        assert_eq!(api.send("OPTIONS", endpoint.0, &[], "").await.header("link"), "");
    }
}

#[tokio::test]
async fn extensions_are_announced_by_link() {
    let api = Api::new();
    let extensions = |reply: &Reply| -> Vec<String> {
        let links = reply.headers.get_all("link").iter().filter_map(|link| link.to_str().ok());
        links.filter(|link| link.contains(":ext:")).map(str::to_owned).collect()
    };
    let (session, watches) = join(&api, ENDPOINTS[1]).await;
    assert_eq!(
        extensions(&watches),
        [format!(
            "<{session}/events>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; \
             events=\"active,inactive,reconnect,viewercount\""
        )]
    );
    assert_eq!(extensions(&join(&api, ENDPOINTS[0]).await.1), [] as [&str; 0], "WHIP has no extension");
}

#[tokio::test]
async fn whep_answers_and_never_sends_a_counter_offer() {
    let api = Api::new();
    for accept in ["application/sdp", "text/html", "*/*;q=0.1"] {
        let headers = [("content-type", SDP), ("accept", accept)];
        let reply = api.send("POST", "/whep/r", &headers, offer("recvonly")).await;
        assert_eq!(reply.status, 201, "406 would be a counter-offer: {reply:?}");
    }
    api.post_offer("/whep/r", "").await.problem(400);
}

#[tokio::test]
async fn without_watch_empty_a_player_gets_409_in_an_empty_room() {
    let api = Api::with(|config| config.rooms.watch_empty = false);
    let watch = async || api.post_offer("/whep/r", &offer("recvonly")).await;
    let refused = watch().await;
    refused.problem(409);
    assert_eq!(refused.json()["type"], "/docs/api.md#no-publisher");
    assert_eq!(refused.header("retry-after"), "2");
    api.get("/v1/rooms/r").await.problem(404);
    let participants = api.post_offer("/v1/rooms/r/participants", &offer("recvonly")).await;
    assert_eq!(participants.status, 201, "`watch_empty` concerns /whep only");
    watch().await.problem(409);
    let (mut client, session) = api.call("r").await;
    let joins = async {
        while watch().await.status != 201 {
            client.send_both().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joins).await.expect("media is published now");
    assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200);
    let gone = async { while watch().await.status != 409 {} };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing is published any more");
    assert_eq!(join(&Api::new(), ENDPOINTS[1]).await.1.status, 201, "by default a player may wait in the room");
}

/// Collects all Rust sources below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("can be read").path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "node_modules" && name != ".venv") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_list_of_requirements_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let all: String = files.iter().map(|file| fs::read_to_string(file).expect("is text")).collect();
    let list = fs::read_to_string(root.join("docs/whip-whep.md")).expect("the list exists");
    let (_, list) = list.split_once("\n- ").expect("the list has an entry");
    let (mut entries, mut missing) = (0, Vec::new());
    for entry in list.split("\n- ") {
        let tests: Vec<&str> = entry.lines().filter_map(|line| line.strip_prefix("  - Test: ")).collect();
        assert!(!tests.is_empty(), "a requirement names no test: {entry}");
        missing.extend(tests.into_iter().filter(|test| !all.contains(&format!("fn {}(", test.trim_matches('`')))));
        entries += 1;
    }
    assert!(entries > 40, "the list has only {entries} entries");
    assert!(missing.is_empty(), "docs/whip-whep.md names tests that do not exist: {missing:?}");
}
