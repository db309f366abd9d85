//! The HTTP contract: errors, WHIP (RFC 9725) and WHEP, tokens and roles.

use serde_json::json;

use crate::http::{FRAGMENT, Offer, Reply, SDP, get, post_offer, request};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// Invalid offers, each with its name and the accepted error statuses.
fn bad_offers() -> Vec<(&'static str, String, &'static [u16])> {
    let sdp = |offer: Offer| offer.sdp();
    vec![
        ("an empty body", String::new(), &[400]),
        ("not SDP", "{\"type\":\"offer\"}".into(), &[400]),
        ("binary", "\u{0}\u{1}\u{2}v=0\r\n".into(), &[400]),
        ("SDP without media", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".into(), &[400, 422]),
        ("one mebibyte", format!("v=0\r\n{}", "a=x\r\n".repeat(1024 * 1024 / 5)), &[413]),
        ("an offer without ICE", sdp(Offer { ice: false, ..Offer::default() }), &[400, 422]),
        ("no common video codec", sdp(Offer { video_codec: "H263-1998/90000", ..Offer::default() }), &[400, 406, 422]),
        ("no common audio codec", sdp(Offer { audio_codec: "iLBC/8000", ..Offer::default() }), &[400, 406, 422]),
        ("three videos", sdp(Offer { videos: 3, ..Offer::default() }), &[400, 422]),
        ("an inactive offer", sdp(Offer { direction: "inactive", ..Offer::default() }), &[400, 422]),
    ]
}

/// Sends all invalid requests to one room; returns their names.
pub(crate) fn refuse_bad_offers(server: &Server, room: &str) -> Vec<&'static str> {
    let url = format!("{}/v1/rooms/{room}/participants", server.url());
    let mut sent = Vec::new();
    for (what, offer, statuses) in bad_offers() {
        post_offer(&url, &offer).assert_problem(what, statuses);
        sent.push(what);
    }
    for kind in ["text/plain", "application/json", ""] {
        let reply = request("POST", &url, &[("content-type", kind)], &Offer::default().sdp());
        reply.assert_problem("a wrong content type", &[415]);
    }
    sent.push("wrong content types");
    sent
}

#[test]
fn bad_offers_are_refused_with_advice() {
    let _turn = turn();
    let server = Server::start();
    refuse_bad_offers(&server, "contract");
    for name in ["a%20b", "%2e%2e%2fetc", "%F0%9F%98%80", &"x".repeat(65)] {
        let url = format!("{}/v1/rooms/{name}/participants", server.url());
        post_offer(&url, &Offer::default().sdp()).assert_problem(name, &[400, 404]);
    }
    let rooms = get(&format!("{}/v1/rooms", server.url())).json();
    assert!(!rooms.to_string().contains("\"contract\""), "a refused join created the room: {rooms}");
    assert_eq!(server.mixers(), [], "a refused join started a mixer");
    server.stop();
}

/// Joins; returns the response and the absolute URL of the session.
fn join(server: &Server, room: &str) -> (Reply, String) {
    let reply = post_offer(&format!("{}/v1/rooms/{room}/participants?name=Ann", server.url()), &Offer::default().sdp());
    assert_eq!(reply.status, 201, "{reply:?}");
    let location = reply.header("location").to_owned();
    let session = if location.starts_with('/') { format!("{}{location}", server.url()) } else { location };
    (reply, session)
}

#[test]
fn joining_is_one_post() {
    let _turn = turn();
    let server = Server::start();
    let (reply, session) = join(&server, "contract");
    assert_eq!(reply.header("content-type"), SDP);
    assert!(reply.header("etag").starts_with('"'), "a strong ETag: {reply:?}");
    assert!(reply.header("commingle-participant").starts_with('p'), "{reply:?}");
    let secret = session.rsplit('/').next().expect("a path");
    assert!(session.contains("/v1/sessions/") && secret.len() >= 20, "the session's URL can be guessed: {session}");

    let answer = &reply.body;
    let lines = |prefix: &str| answer.lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!((lines("m=audio"), lines("m=video")), (1, 1), "{answer}");
    assert_eq!(lines("a=sendrecv"), 2, "{answer}");
    assert!(answer.contains("a=setup:passive"), "the browser starts DTLS: {answer}");
    let port = format!(" {} typ host", server.media.port());
    assert!(answer.contains(&port), "candidates name the one media port {}: {answer}", server.media.port());
    assert!(answer.lines().any(|line| line.starts_with("a=group:BUNDLE 0 1")), "{answer}");

    let state = get(&session);
    assert_eq!(state.status, 200, "{state:?}");
    assert_eq!(state.json()["room"], "contract", "{state:?}");
    assert_eq!(state.header("etag"), reply.header("etag"), "{state:?}");

    assert_eq!(request("DELETE", &session, &[], "").status, 200);
    request("DELETE", &session, &[], "").assert_problem("a second DELETE", &[404]);
    get(&session).assert_problem("the state of a session that ended", &[404]);
    server.stop();
}

#[test]
fn the_dtls_setup_of_the_offer_decides_the_answer() {
    let _turn = turn();
    let server = Server::start();
    let url = format!("{}/v1/rooms/contract/participants", server.url());
    for (offered, answered) in [("passive", "active"), ("active", "passive"), ("actpass", "passive")] {
        let offer = Offer::default().sdp().replace("a=setup:actpass", &format!("a=setup:{offered}"));
        let reply = post_offer(&url, &offer);
        assert_eq!(reply.status, 201, "{reply:?}");
        assert!(reply.body.contains(&format!("a=setup:{answered}")), "to setup:{offered}: {}", reply.body);
    }
    server.stop();
}

#[test]
fn trickled_candidates_and_restarts() {
    let _turn = turn();
    let server = Server::start();
    let (reply, session) = join(&server, "contract");
    let tag = reply.header("etag").to_owned();
    let patch = |headers: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [("content-type", FRAGMENT)].into_iter().chain(headers.iter().copied()).collect();
        request("PATCH", &session, &headers, body)
    };
    let candidate = "a=ice-ufrag:Rst4\r\na=ice-pwd:aaaabbbbccccddddeeeeffff\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
                     a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n";
    let taken = patch(&[("if-match", &tag)], candidate);
    assert_eq!((taken.status, taken.body.as_str(), taken.header("etag")), (204, "", ""), "{taken:?}");
    patch(&[("if-match", "\"another\"")], candidate).assert_problem("a wrong If-Match", &[412]);
    for (what, fragment) in [("an empty fragment", ""), ("no fragment", "hello"), ("binary", "\u{0}\u{1}")] {
        patch(&[("if-match", &tag)], fragment).assert_problem(what, &[400, 422]);
    }
    patch(&[("if-match", &tag)], &"a=x\r\n".repeat(20_000)).assert_problem("a huge fragment", &[413]);
    let unknown = patch(&[("if-match", &tag)], &candidate.replace("127.0.0.1", "somebody.local"));
    assert_eq!(unknown.status, 204, "a candidate that cannot be resolved is ignored: {unknown:?}");
    request("PATCH", &session, &[("content-type", "text/plain"), ("if-match", &tag)], candidate)
        .assert_problem("a wrong content type", &[415]);

    let restart = candidate.replace("Rst4", "New5").replace("aaaabbbb", "ccccdddd");
    let restarted = patch(&[("if-match", "*")], &restart);
    assert_eq!(restarted.status, 200, "{restarted:?}");
    assert_eq!(restarted.header("content-type"), FRAGMENT);
    let new_tag = restarted.header("etag");
    assert!(new_tag.starts_with('"') && new_tag != tag, "a restart has a new ETag: {restarted:?}");
    for line in ["a=ice-ufrag:", "a=ice-pwd:", "a=candidate:"] {
        assert!(restarted.body.contains(line), "{line} is not in {}", restarted.body);
    }
    patch(&[("if-match", &tag)], &restart).assert_problem("the ETag from before the restart", &[412]);

    let nobody = format!("{}/v1/sessions/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", server.url());
    for method in ["PATCH", "DELETE", "GET"] {
        let body = if method == "PATCH" { candidate } else { "" };
        request(method, &nobody, &[("content-type", FRAGMENT), ("if-match", &tag)], body)
            .assert_problem("an unknown session", &[404]);
    }
    server.stop();
}

#[test]
fn whip_and_whep_endpoints_join_a_room() {
    let _turn = turn();
    let arguments = ["--set", "http.origins=https://example.org"];
    let server = Server::start_with(&Settings { arguments: &arguments, ..Settings::default() });
    let (whip, whep) = (format!("{}/whip/contract", server.url()), format!("{}/whep/contract", server.url()));
    let offer = |direction| Offer { direction, ..Offer::default() }.sdp();
    for (url, wrong) in [(&whip, "recvonly"), (&whep, "sendonly")] {
        post_offer(url, &offer(wrong)).assert_problem(&format!("{wrong} at {url}"), &[400, 422]);
    }
    for (url, direction, answered) in [(&whip, "sendonly", "a=recvonly"), (&whep, "recvonly", "a=sendonly")] {
        let reply = post_offer(url, &offer(direction));
        assert_eq!(reply.status, 201, "{direction} at {url}: {reply:?}");
        assert!(reply.body.contains(answered), "{direction} at {url}: {}", reply.body);
        assert!(!reply.header("location").is_empty() && !reply.header("etag").is_empty(), "{reply:?}");
    }
    for url in [&whip, &whep, &format!("{}/v1/rooms/contract/participants", server.url())] {
        let reply = request("OPTIONS", url, &[("origin", "https://example.org")], "");
        assert!(matches!(reply.status, 200 | 204), "{url}: {reply:?}");
        assert_eq!(reply.header("accept-post"), SDP, "{url}: {reply:?}");
        assert_eq!(request("HEAD", url, &[], "").status / 100, 2, "HEAD {url}");

        let asked = [
            ("origin", "https://example.org"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,authorization"),
        ];
        let preflight = request("OPTIONS", url, &asked, "");
        assert_eq!(preflight.status / 100, 2, "{url}: {preflight:?}");
        assert!(!preflight.header("access-control-allow-origin").is_empty(), "{url}: {preflight:?}");
        assert!(!preflight.header("access-control-allow-methods").is_empty(), "{url}: {preflight:?}");
    }
    let reply = request("POST", &whep, &[("content-type", SDP), ("origin", "https://example.org")], &offer("recvonly"));
    let exposed = reply.header("access-control-expose-headers").to_ascii_lowercase();
    for header in ["location", "etag", "link"] {
        assert!(exposed.contains(header), "pages of other origins cannot read `{header}`: {reply:?}");
    }
    server.stop();
}

#[test]
fn rooms_and_participants_have_json_documents() {
    let _turn = turn();
    let server = Server::start();
    let url = |path: &str| format!("{}{path}", server.url());
    get(&url("/v1/rooms/nowhere")).assert_problem("an unknown room", &[404]);
    get(&url("/v1/no/such/path")).assert_problem("an unknown path", &[404]);
    request("DELETE", &url("/v1/rooms"), &[], "").assert_problem("an unsupported method", &[405]);

    let made = request("POST", &url("/v1/rooms"), &[("content-type", "application/json")], "{\"name\":\"contract\"}");
    assert_eq!(made.status, 201, "{made:?}");
    let room = get(&url("/v1/rooms/contract")).json();
    assert_eq!(room["name"], "contract");
    assert_eq!(room["layout"], json!({"kind": "auto"}));
    assert_eq!(room["canvas"], json!({"width": 1280, "height": 720}));
    assert_eq!((&room["participants"], &room["locked"]), (&json!([]), &json!(false)), "{room}");
    let patch =
        |body: &str| request("PATCH", &url("/v1/rooms/contract"), &[("content-type", "application/json")], body);
    let locked = patch("{\"locked\":true}");
    assert_eq!((locked.status, &locked.json()["locked"]), (200, &json!(true)), "{locked:?}");
    post_offer(&url("/v1/rooms/contract/participants"), &Offer::default().sdp())
        .assert_problem("a locked room", &[403, 423]);
    patch("{\"lokced\":true}").assert_problem("an unknown field", &[400, 422]);
    patch("{").assert_problem("not JSON", &[400]);
    get(&url("/v1/rooms/contract/participants/p99")).assert_problem("an unknown participant", &[404]);
    assert!(matches!(request("DELETE", &url("/v1/rooms/contract"), &[], "").status, 200 | 204));
    get(&url("/v1/rooms/contract")).assert_problem("a room that was deleted", &[404]);

    for (path, kind) in [("/openapi.json", "application/json"), ("/", "text/html"), ("/metrics", "")] {
        let reply = get(&url(path));
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-type").starts_with(kind), "{path}: {reply:?}");
    }
    server.stop();
}

const KEY: &str = "an end-to-end test's key of 32 bytes or more";

/// A token for one room, or for all rooms for operators.
fn token(room: Option<&str>, role: &str) -> String {
    let output = commingle()
        .args(["token", "--role", role, "--name", "Ann", "--ttl", "5m"])
        .args(room.iter().flat_map(|room| ["--room", room]))
        .env("COMMINGLE_AUTH_KEY", KEY)
        .output()
        .expect("the binary was built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a token is ASCII").trim().to_owned()
}

#[test]
fn with_a_key_every_route_requires_a_token() {
    let _turn = turn();
    let server = Server::start_with(&Settings { environment: &[("COMMINGLE_AUTH_KEY", KEY)], ..Settings::default() });
    let url = |path: &str| format!("{}{path}", server.url());
    let send = |method: &str, path: &str, bearer: &str, body: &str| {
        let kind = if body.starts_with('{') { "application/json" } else { SDP };
        let bearer = format!("Bearer {bearer}");
        let mut headers = vec![("content-type", kind)];
        if bearer.len() > "Bearer ".len() {
            headers.push(("authorization", &bearer));
        }
        request(method, &url(path), &headers, body)
    };
    let offer = Offer::default().sdp();
    let watching = Offer { direction: "recvonly", ..Offer::default() }.sdp();

    for (method, path, body) in [
        ("POST", "/v1/rooms/locked/participants", offer.as_str()),
        ("POST", "/whip/locked", offer.as_str()),
        ("POST", "/whep/locked", watching.as_str()),
        ("GET", "/v1/rooms", ""),
        ("POST", "/v1/rooms", "{\"name\":\"locked\"}"),
        ("GET", "/v1/rooms/locked", ""),
        ("PATCH", "/v1/rooms/locked", "{\"locked\":true}"),
        ("DELETE", "/v1/rooms/locked", ""),
        ("PATCH", "/v1/rooms/locked/participants/p1", "{\"audio_muted\":true}"),
        ("DELETE", "/v1/rooms/locked/participants/p1", ""),
        ("GET", "/v1/rooms/locked/events", ""),
        ("GET", "/metrics", ""),
    ] {
        let reply = send(method, path, "", body);
        reply.assert_problem(&format!("{method} {path} without a token"), &[401]);
        assert!(reply.header("www-authenticate").starts_with("Bearer"), "{method} {path}: {reply:?}");
        let forged = format!("{}x", token(Some("locked"), "operator"));
        send(method, path, &forged, body).assert_problem(&format!("{method} {path} with a forged token"), &[401]);
    }
    for path in ["/healthz", "/readyz", "/", "/openapi.json"] {
        assert_eq!(send("GET", path, "", "").status, 200, "{path} is public");
    }

    let (viewer, participant) = (token(Some("locked"), "viewer"), token(Some("locked"), "participant"));
    let moderator = token(Some("locked"), "moderator");
    let people = "/v1/rooms/locked/participants";
    send("POST", people, &viewer, &offer).assert_problem("a viewer who sends", &[403]);
    send("POST", "/v1/rooms/other/participants", &participant, &offer).assert_problem("another room", &[403]);
    send("PATCH", "/v1/rooms/locked", &participant, "{\"locked\":true}").assert_problem("not a moderator", &[403]);
    send("GET", "/v1/rooms", &moderator, "").assert_problem("all rooms require an operator", &[403]);
    send("GET", "/metrics", &moderator, "").assert_problem("metrics require an operator", &[403]);
    assert_eq!(send("POST", people, &viewer, &watching).status, 201);
    let joined = send("POST", people, &participant, &offer);
    assert_eq!(joined.status, 201, "{joined:?}");
    assert_eq!(send("PATCH", "/v1/rooms/locked", &moderator, "{\"locked\":true}").status, 200);
    assert_eq!(send("GET", "/v1/rooms", &token(None, "operator"), "").status, 200);
    server.stop();
}
