//! Whoever is behind something gets in: real Chromium in a network of its own, the server in another, and between them a
//! router that does what routers do. Each time a participant and a viewer join and see moving pictures.

mod net;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use self::net::Net;
use crate::scenario::{list, number, play_in};
use crate::server::{Server, Settings};
use crate::turn;

/// Longest time from POST to the first picture.
const FIRST_FRAME_MS: f64 = 5_000.0;
/// Longest time without a new picture when the client's address changes: until its next check comes from the new one.
const MOVED_GAP_MS: f64 = 6_000.0;

/// Longest time without a picture when the interface in use goes down and another is up: Chromium sends by that after 3.6 s,
/// and after 6 s without pictures asks for one that it can begin with, which we must not wait for.
const LOST_GAP_MS: f64 = 5_500.0;
/// How long a client that changes networks has none.
const WITHOUT_NETWORK: Duration = Duration::from_millis(700);
/// Longest time without a picture when it does.
const SWITCHED_GAP_MS: f64 = 5_500.0;

/// A server in a network, reached at `http`.
fn server(net: &Net, bind: SocketAddr, arguments: &[&str]) -> Server {
    let arguments: Vec<&str> = [&["--insecure"][..], arguments].concat();
    let namespace = Some(net.server.as_str());
    Server::start_with(&Settings { http: Some(bind), namespace, arguments: &arguments, ..Settings::default() })
}

/// Both see the participant's tile move, and got there by this protocol.
fn assert_seen(seen: &Value, protocol: &str) {
    for who in ["participant", "viewer"] {
        let one = &seen[who];
        let [tile] = list(one, "/tiles") else { panic!("{who} has not one tile: {seen}") };
        assert_eq!(tile["seen"], 0, "{who}: {seen}");
        assert!(number(tile, "/bars") >= 4.0, "{who} sees it standing still: {seen}");
        assert_eq!((&one["protocol"], &one["state"]), (&json!(protocol), &json!("connected")), "{who}: {seen}");
    }
}

/// A participant and a viewer join by this network.
fn visit(net: &Net, server: Server, url: &str, protocol: &str) {
    let measured = play_in(&net.client, url, "reach", &[], |what| panic!("nothing is asked for: {what}"));
    assert_eq!(measured["ready"], true, "not both saw pictures within 20 s: {measured}");
    assert_seen(&measured["seen"], protocol);
    for who in ["participant", "viewer"] {
        let first = number(&measured, &format!("/first_frame_ms/{who}"));
        println!("{who}: first picture after {first} ms");
        assert!(first < FIRST_FRAME_MS, "{who} waited {first} ms for a picture");
    }
    server.stop();
}

fn behind(rules: &str, protocol: &str) {
    let _turn = turn();
    let net = Net::ipv4();
    net.rules(rules);
    let server = server(&net, Net::http("203.0.113.2"), &[]);
    let url = server.url();
    visit(&net, server, &url, protocol);
}

/// A NAT that gives one inner port one outer port, whoever is called.
const CONE: &str = "add table ip nat
add chain ip nat post { type nat hook postrouting priority 100; }
add rule ip nat post oifname s0 masquerade";

#[test]
fn a_client_behind_a_cone_nat() {
    behind(CONE, "udp");
}

#[test]
fn a_client_behind_a_symmetric_nat() {
    behind(&CONE.replace("masquerade", "masquerade fully-random"), "udp");
}

/// No UDP goes through.
const BLOCKED: &str = "add table inet filter
add chain inet filter forward { type filter hook forward priority 0; }
add rule inet filter forward meta l4proto udp drop";

#[test]
fn a_client_whose_udp_is_blocked_comes_by_tcp() {
    behind(&format!("{CONE}\n{BLOCKED}"), "tcp");
}

/// By ICE over TCP, and by TURN over TCP.
#[test]
fn firefox_comes_by_tcp_where_udp_is_blocked() {
    let _turn = turn();
    let net = Net::ipv4();
    net.rules(&format!("{CONE}\n{BLOCKED}"));
    let server = Server::start_with(&Settings {
        http: Some(Net::http("203.0.113.2")),
        namespace: Some(net.server.as_str()),
        arguments: &["--insecure"],
        turn: true,
        ..Settings::default()
    });
    let measured =
        play_in(&net.client, &server.url(), "reach_firefox", &[], |what| panic!("nothing is asked for: {what}"));
    assert_eq!(measured["ready"], true, "not both saw pictures within 20 s: {measured}");
    for (who, relayed) in [("found", false), ("relayed", true)] {
        let one = &measured["seen"][who];
        assert_eq!(
            (&one["way"]["protocol"], one["way"]["kind"] == "relay"),
            (&json!("tcp"), relayed),
            "{who}: {measured}"
        );
        let tiles = list(one, "/tiles");
        assert_eq!(tiles.len(), 2, "{who}: {measured}");
        for tile in tiles {
            assert_eq!(tile["seen"], tile["owner"], "{who}: {measured}");
            assert!(number(tile, "/bars") >= 4.0, "{who} sees it standing still: {measured}");
        }
        let first = number(one, "/first_frame_ms");
        println!("{who}: first picture after {first} ms");
        assert!(first < FIRST_FRAME_MS, "{who} waited {first} ms for a picture");
    }
    server.stop();
}

#[test]
fn a_client_that_has_ipv6_only() {
    let _turn = turn();
    let net = Net::ipv6();
    let server = server(&net, Net::http("2001:db8:2::2"), &["--media-bind", "::"]);
    let url = server.url();
    visit(&net, server, &url, "udp");
}

/// 203.0.113.9 is the server's address for everybody else.
const ONE_TO_ONE: &str = "add table ip nat
add chain ip nat pre { type nat hook prerouting priority -100; }
add rule ip nat pre ip daddr 203.0.113.9 dnat to 10.2.0.2
add chain ip nat post { type nat hook postrouting priority 100; }
add rule ip nat post ip saddr 10.2.0.2 snat to 203.0.113.9";

#[test]
fn a_server_behind_a_one_to_one_nat() {
    let _turn = turn();
    let net = Net::server_inside();
    net.rules(ONE_TO_ONE);
    let server = server(&net, Net::http("10.2.0.2"), &["--public-ip", "203.0.113.9"]);
    let url = format!("http://{}", Net::http("203.0.113.9"));
    visit(&net, server, &url, "udp");
}

/// The media port of another server is the STUN server.
#[test]
fn a_server_that_asks_how_it_is_seen() {
    let _turn = turn();
    let net = Net::server_inside();
    net.rules(ONE_TO_ONE);
    let namespace = Some(net.client.as_str());
    let arguments = &["--media-bind", "198.51.100.2"];
    let stun = Server::start_with(&Settings { namespace, arguments, ..Settings::default() });
    let asked = format!("media.stun_server={}", stun.media);
    let server = server(&net, Net::http("10.2.0.2"), &["--set", &asked]);
    let url = format!("http://{}", Net::http("203.0.113.9"));
    visit(&net, server, &url, "udp");
    stun.stop();
}

/// The router gets another address and forgets what it has translated, as when a phone goes from one network to another.
#[test]
fn a_client_whose_address_changes_stays_in_the_call() {
    let _turn = turn();
    let net = Net::ipv4();
    net.rules(CONE);
    let server = server(&net, Net::http("203.0.113.2"), &[]);
    let measured = play_in(&net.client, &server.url(), "move", &["--seconds", "8"], |what| {
        assert_eq!(what, "move");
        net.readdress();
        String::new()
    });
    assert_eq!(measured["ready"], true, "not both saw pictures within 20 s: {measured}");
    let moved = &measured["moved"];
    assert_seen(&moved["seen"], "udp");
    assert_eq!(moved["participants"], 2, "nobody was lost: {measured}");
    assert!(net.came_from_elsewhere() > 0, "nothing came from the new address: {measured}");
    for who in ["participant", "viewer"] {
        let gap = number(moved, &format!("/longest_gap_ms/{who}"));
        println!("{who}: no picture for {gap} ms");
        assert!(gap < MOVED_GAP_MS, "{who}: {measured}");
    }
    server.stop();
}

/// Wi-Fi to cellular: the interface in use goes down while another is up, and then that one before the first is back.
#[test]
fn a_client_that_changes_networks_stays_in_its_session() {
    let _turn = turn();
    let net = Net::two_ways();
    let server = server(&net, Net::http("203.0.113.2"), &[]);
    let measured = play_in(&net.client, &server.url(), "roam", &[], |what| {
        match what {
            "lose" => net.lose_first(),
            "switch" => net.switch_to_first(WITHOUT_NETWORK),
            other => panic!("not asked for: {other}"),
        }
        String::new()
    });
    assert_eq!(measured["ready"], true, "no pictures within 20 s: {measured}");
    for (change, limit) in [("lose", LOST_GAP_MS), ("switch", SWITCHED_GAP_MS)] {
        let seen = &measured[change];
        assert_eq!(
            (&seen["again"], &seen["same_session"], &seen["connections"]),
            (&json!(true), &json!(true), &json!(1))
        );
        assert_eq!(seen["told_again"], true, "events stopped: {measured}");
        for gap in ["picture_gap_ms", "tile_gap_ms"] {
            let ms = number(seen, &format!("/{gap}"));
            println!("{change}: {gap} {ms}");
            assert!(ms < limit, "{change}: {gap}: {measured}");
        }
    }
    server.stop();
}

/// Nothing goes through but TCP to the port of HTTPS, which TURN is on too.
#[test]
fn a_client_that_may_use_https_only() {
    let _turn = turn();
    let net = Net::ipv4();
    let bind = Net::http("203.0.113.2");
    let filter = format!(
        "add table inet filter
add chain inet filter forward {{ type filter hook forward priority 0; policy drop; }}
add rule inet filter forward ct state established,related accept
add rule inet filter forward tcp dport {} accept",
        bind.port()
    );
    net.rules(&format!("{CONE}\n{filter}"));
    let namespace = Some(net.server.as_str());
    let arguments = &["--insecure"];
    let server = Server::start_with(&Settings {
        http: Some(bind),
        namespace,
        arguments,
        turn: true,
        https: true,
        ..Settings::default()
    });
    let measured =
        play_in(&net.client, &server.url(), "relayed_module", &[], |what| panic!("nothing is asked for: {what}"));
    assert_eq!((&measured["moving"], &measured["connections"]), (&json!(true), &json!(1)), "{measured}");
    assert_eq!(
        (&measured["way"]["kind"], &measured["way"]["protocol"]),
        (&json!("relay"), &json!("tls")),
        "{measured}"
    );
    let first = number(&measured, "/first_frame_ms");
    println!("first picture after {first} ms, two seconds of which are for other ways");
    assert!(first < 3_000.0 + FIRST_FRAME_MS, "{measured}");
    server.stop();
}
