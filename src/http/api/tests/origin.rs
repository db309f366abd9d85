//! Web pages of other origins, proxies, and clients that take connections without reading. Real sockets on loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

/// A request with a body of JSON from a page of this origin.
async fn from_page(api: &Api, method: &str, path: &str, origin: &str) -> Reply {
    api.send(method, path, &[("origin", origin), ("content-type", JSON)], "{}").await
}

#[tokio::test]
async fn without_a_key_a_page_of_another_origin_reads_and_changes_nothing() {
    let api = Api::new();
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    for (method, path) in [
        ("GET", "/v1/rooms"),
        ("GET", "/v1/rooms/r"),
        ("PATCH", "/v1/rooms/r"),
        ("DELETE", "/v1/rooms/r"),
        ("POST", "/v1/rooms/r/broadcasts"),
        ("GET", "/v1/rooms/r/events"),
        ("GET", "/metrics"),
        ("OPTIONS", "/v1/rooms/r"),
        ("POST", "/whip/r"),
        ("GET", "/"),
    ] {
        let reply = from_page(&api, method, path, "https://evil.example").await;
        assert!(reply.problem(403).contains("http.origins"), "{method} {path}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{method} {path}");
    }
    let preflight = from_page(&api, "OPTIONS", "/whip/r", "https://evil.example").await;
    assert_eq!((preflight.status / 100, preflight.header("access-control-allow-origin")), (2, "*"), "{preflight:?}");
    assert_eq!(api.get("/v1/rooms/r").await.status, 200, "the room remains");
    let own = from_page(&api, "GET", "/v1/rooms", "http://localhost:8080").await;
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, "http://localhost:8080"));
}

#[tokio::test]
async fn with_a_key_pages_of_all_origins_may_join_with_a_token() {
    let api = Api::keyed();
    let bearer = format!("Bearer {}", token(Some("r"), Role::Participant));
    let headers = [("content-type", SDP), ("authorization", &bearer), ("origin", "https://app.example")];
    for (path, expected) in [("/v1/rooms/r/participants", 201), ("/whip/r", 201), ("/whip/r/", 307), ("/whep/r", 422)] {
        let reply = api.send("POST", path, &headers, offer("sendrecv")).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (expected, "*"), "{path}: {reply:?}");
        assert!(reply.header("access-control-expose-headers").contains("Location"), "{reply:?}");
    }
    let rooms = api.send("GET", "/v1/rooms", &headers[1..], "").await;
    assert_eq!(rooms.header("access-control-allow-origin"), "", "the rest of the API needs http.origins: {rooms:?}");
}

#[tokio::test]
async fn a_listed_origin_may_use_the_api_of_a_server_without_a_key() {
    let api = Api::with(|config| config.http.origins = vec!["https://app.example".into()]);
    let reply = from_page(&api, "GET", "/v1/rooms", "https://app.example").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, "https://app.example"));
    assert_eq!(reply.header("vary"), "origin", "caches keep the answers of origins apart");
}

#[tokio::test]
async fn without_a_key_a_rebound_name_and_an_unknown_proxy_are_refused() {
    let api = Api::new();
    let rebound = Request::builder().uri("/v1/rooms").header("host", "evil.example:8080");
    let mut rebound = rebound.body(axum::body::Body::empty()).expect("a valid request");
    rebound.extensions_mut().insert(axum::extract::ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000))));
    let response = api.router.clone().oneshot(rebound).await.expect("the router never fails");
    assert_eq!(response.status(), 421);
    let forwarded = api.send("GET", "/v1/rooms", &[("x-forwarded-for", "198.51.100.1")], "").await;
    assert!(forwarded.problem(403).contains("http.trusted_proxies"), "{forwarded:?}");
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_have_rate_limits_of_their_own() {
    let api = Api::with(|config| {
        config.auth.key = Some(Secret::from(KEY.to_owned()));
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.limits.joins_per_second = 1;
        config.limits.joins_burst = 2;
    });
    let bearer = format!("Bearer {}", token(Some("r"), Role::Participant));
    let join = async |client: &str| {
        let headers = [("content-type", SDP), ("authorization", &bearer), ("x-forwarded-for", client)];
        api.send("POST", "/v1/rooms/r/participants", &headers, offer("sendrecv")).await.status
    };
    assert_eq!([join("198.51.100.1").await, join("198.51.100.1").await, join("198.51.100.1").await], [201, 201, 429]);
    assert_eq!(join("198.51.100.2").await, 201, "another client of the same proxy");
    assert_eq!(join("2001:db8::1").await, 201);
    assert_eq!([join("2001:db8::2").await, join("2001:db8::3").await], [201, 429], "a /64 is one client");
}

/// Connects with a source address of 127.0.0.0/8.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("descriptors are left");
    socket.bind((Ipv4Addr::from(from), 0).into()).expect("all of 127.0.0.0/8 is local");
    socket.connect(to).await.expect("it listens")
}

/// The status line of a response; empty if the connection was closed.
async fn status(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n") {
        match timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time") {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let api = Api::with(|config| config.limits.connections_per_address = 3);
    let address = api.listen().await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = connect([127, 0, 0, 1], address).await;
        stream.write_all(request).await.expect("open");
        assert!(status(&mut stream).await.contains("200"));
        held.push(stream);
    }
    let mut refused = connect([127, 0, 0, 1], address).await;
    // The server may have closed it already.
    let _ = refused.write_all(request).await;
    assert_eq!(status(&mut refused).await, "");
    let mut other = connect([127, 0, 0, 2], address).await;
    other.write_all(request).await.expect("open");
    assert!(status(&mut other).await.contains("200"), "another address is served");
    drop(held.pop());
    let again = async {
        loop {
            let mut stream = connect([127, 0, 0, 1], address).await;
            let _ = stream.write_all(request).await;
            if status(&mut stream).await.contains("200") {
                break;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("a closed connection is replaced");
}

#[tokio::test]
async fn proxies_and_other_clients_share_the_limit_of_all_connections() {
    let api = Api::with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.limits.connections = 3;
        config.limits.connections_per_address = 1;
    });
    let address = api.listen().await;
    let open = async |from: [u8; 4]| {
        let mut stream = connect(from, address).await;
        // The server may have closed it already.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        (status(&mut stream).await, stream)
    };
    let held = [open([127, 0, 0, 1]).await, open([127, 0, 0, 1]).await, open([127, 0, 0, 2]).await];
    assert!(held.iter().all(|(status, _)| status.contains("200")), "the proxy is exempt per address: {held:?}");
    for from in [[127, 0, 0, 1], [127, 0, 0, 3]] {
        assert_eq!(open(from).await.0, "", "{from:?}: three connections are open");
    }
}

#[tokio::test]
async fn a_client_that_pipelines_requests_and_reads_nothing_is_disconnected() {
    let api = Api::with(|config| config.limits.write_seconds = 1);
    let address = api.listen().await;
    let mut stream = connect([127, 0, 0, 1], address).await;
    let request = b"GET /docs/api.md HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    // Ends with an error when the server closes the connection.
    let floods = async { while stream.write_all(&request).await.is_ok() {} };
    timeout(PATIENCE, floods).await.expect("it is disconnected");
    let text = api.app.metrics().text();
    assert!(text.contains("commingle_http_connections 0"), "{text}");
}

#[tokio::test]
async fn the_event_streams_of_an_address_are_bounded() {
    let api = Api::with(|config| config.limits.event_streams_per_address = 2);
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    let address = api.listen().await;
    let open = async |from: [u8; 4]| {
        let mut stream = connect(from, address).await;
        let request = "GET /v1/rooms/r/events HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("open");
        (status(&mut stream).await, stream)
    };
    let (first, second, third) = (open([127, 0, 0, 1]).await, open([127, 0, 0, 1]).await, open([127, 0, 0, 1]).await);
    assert!(first.0.contains("101") && second.0.contains("101"), "{first:?} {second:?}");
    assert!(third.0.contains("429"), "{third:?}");
    assert!(open([127, 0, 0, 2]).await.0.contains("101"));
    drop(first);
    let again = async { while !open([127, 0, 0, 1]).await.0.contains("101") {} };
    timeout(PATIENCE, again).await.expect("a closed stream is replaced");
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let api = Api::with(|config| {
        config.auth.insecure = true;
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.http.proxy_protocol = true;
    });
    let address = api.listen().await;
    let ask = async |header: &[u8], from| {
        let mut stream = connect(from, address).await;
        let request = [header, b"GET /v1/rooms HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        stream.write_all(&request).await.expect("open");
        status(&mut stream).await
    };
    let proxied = |client: [u8; 4]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend(client.iter().chain(&[127, 0, 0, 1, 0x12, 0x67, 0, 80]));
        header
    };
    assert!(ask(&proxied([127, 0, 0, 9]), [127, 0, 0, 1]).await.contains("200"), "a client on this machine");
    assert!(ask(&proxied([198, 51, 100, 1]), [127, 0, 0, 1]).await.contains("403"), "not an operator");
    assert_eq!(ask(b"", [127, 0, 0, 1]).await, "", "a proxy must send the header");
    assert!(ask(&proxied([127, 0, 0, 9]), [127, 0, 0, 2]).await.contains("400"), "others must not");
}
