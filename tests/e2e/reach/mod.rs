//! Whoever is behind something gets in: real Chromium in a network of its own, the server in another, and between them a
//! router that does what routers do. Each time a participant and a viewer join and see moving pictures.

mod net;

use std::net::SocketAddr;

use serde_json::{Value, json};

use self::net::Net;
use crate::scenario::{list, number, play_in};
use crate::server::{Server, Settings};
use crate::turn;

/// Longest time from POST to the first picture.
const FIRST_FRAME_MS: f64 = 5_000.0;
/// Longest time without a new picture when the client's address changes: until its next check comes from the new one.
const MOVED_GAP_MS: f64 = 6_000.0;

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

#[test]
fn a_client_whose_udp_is_blocked_comes_by_tcp() {
    let blocked = "add table inet filter
add chain inet filter forward { type filter hook forward priority 0; }
add rule inet filter forward meta l4proto udp drop";
    behind(&format!("{CONE}\n{blocked}"), "tcp");
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
