//! Faults and attacks during a call, which must not disturb the participants.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::{Offer, counted, get, post_offer};
use crate::scenario::{list, number, play_with};
use crate::server::{Server, Settings};
use crate::{contract, turn};

/// Junk datagrams sent to the media port.
const DATAGRAMS: usize = 10_000;
/// Joins that never connect.
const HALF_OPEN: usize = 200;
/// Joins whose client closes its connection.
const ABORTED_JOINS: usize = 500;
/// Longest freeze during attacks, in ms.
const UNHARMED_MS: f64 = 500.0;
/// Limits for a mixer that hangs: time until detection, and time until video and audio return, in ms.
const HUNG_AFTER_MS: f64 = 3_000.0;
const BACK_WITHIN_MS: f64 = 2_000.0;

#[test]
fn a_killed_mixer_is_replaced() {
    mixer_fault("mixer_killed", "kill-mixer", Signal::KILL, BACK_WITHIN_MS);
}

#[test]
fn a_hung_mixer_is_replaced() {
    mixer_fault("mixer_stopped", "stop-mixer", Signal::STOP, HUNG_AFTER_MS + BACK_WITHIN_MS);
}

fn mixer_fault(scenario: &str, request: &str, signal: Signal, within_ms: f64) {
    let _turn = turn();
    let server = Server::start();
    let before = std::cell::RefCell::new(Vec::new());
    let measured = play_with(&server.url(), scenario, &[], |what| {
        assert_eq!(what, request);
        before.replace(server.mixers());
        server.signal_mixer(signal);
        "done".to_owned()
    });
    assert_eq!(measured["ready"], true);
    for person in list(&measured, "/people") {
        assert_unhurt(person, 3);
        let k = &person["k"];
        assert!(number(person, "/freeze_ms") < within_ms, "person {k} saw nothing for {} ms", person["freeze_ms"]);
        assert!(number(person, "/silence_ms") < within_ms, "person {k} heard nothing for {} ms", person["silence_ms"]);
    }
    let told = list(&measured, "/events").iter().any(|event| event["type"] == "mixer" && event["state"] == "restarted");
    assert!(told, "no `mixer` event reports the restart: {}", measured["events"]);
    let left_over: Vec<_> = server.mixers().into_iter().filter(|pid| before.borrow().contains(pid)).collect();
    assert!(left_over.is_empty(), "the old mixer process still exists: {left_over:?}");
    server.stop();
}

/// Asserts that the peer connection never changed and that video and audio are correct.
fn assert_unhurt(person: &Value, people: usize) {
    let k = &person["k"];
    assert_eq!(person["states"], json!(["connecting", "connected"]), "person {k} lost its peer connection");
    assert_eq!(person["ended"], json!([]), "person {k} lost a track");
    assert_eq!(number(person, "/tiles"), people as f64, "person {k}");
    assert_eq!(person["wrong_tiles"], json!([]), "person {k} sees wrong colours");
    assert_eq!(person["still_tiles"], json!([]), "person {k} sees pictures that do not move");
    let margin = number(person, "/sound/weakest_db") - number(person, "/sound/loudest_stranger_db");
    assert!(number(person, "/sound/weakest_db") > -60.0 && margin >= 40.0, "person {k} hears {}", person["sound"]);
}

#[test]
fn junk_and_pending_joins_do_not_disturb_a_call() {
    let _turn = turn();
    let server = Server::start();
    let measured = play_with(&server.url(), "flood", &[], |what| {
        assert_eq!(what, "flood");
        let sent = send_junk(server.media);
        let mut statuses = std::collections::BTreeMap::<String, usize>::new();
        for guest in 0..HALF_OPEN {
            let reply = post_offer(
                &format!("{}/v1/rooms/half-open-{}/participants", server.url(), guest % 8),
                &Offer::default().sdp(),
            );
            *statuses.entry(reply.status.to_string()).or_default() += 1;
            if reply.status != 201 {
                reply.assert_problem("a join too many", &[429, 503]);
            }
        }
        json!({"datagrams": sent, "half_open": statuses}).to_string()
    });
    assert_eq!(measured["ready"], true);
    for person in list(&measured, "/people") {
        assert_unhurt(person, 2);
        assert!(number(person, "/freeze_ms") < UNHARMED_MS, "person {}: {}", person["k"], person["freeze_ms"]);
        assert!(number(person, "/silence_ms") < UNHARMED_MS, "person {}: {}", person["k"], person["silence_ms"]);
    }
    assert_eq!(get(&format!("{}/healthz", server.url())).status, 200);
    server.stop();
}

/// A xorshift with a fixed seed: the same numbers in every run.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Sends random, STUN-like, DTLS-like and RTP-like datagrams; returns their number.
fn send_junk(media: SocketAddr) -> usize {
    let target: SocketAddr =
        if media.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, media.port()).into() } else { media };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let mut random = random();
    let mut sent = 0;
    for number in 0..DATAGRAMS {
        let length = (random() % 1400) as usize;
        let mut datagram: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        let head: &[u8] = match number % 4 {
            0 => &[],
            // A binding request with the magic cookie, RFC 8489.
            1 => &[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
            // A handshake record of DTLS 1.2 with a ClientHello.
            2 => &[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, 64, 1],
            // RTP with payload type 96.
            _ => &[0x80, 96],
        };
        datagram.splice(..head.len().min(datagram.len()), head.iter().copied());
        sent += usize::from(socket.send_to(&datagram, target).is_ok());
    }
    sent
}

/// The file descriptors and child processes of a server.
fn held(server: &Server) -> (usize, usize) {
    (server.descriptors(), server.descendants())
}

/// Writes the request of a join, and closes the connection without reading the answer after a random time of up to the
/// 20 ms in which joins are answered.
fn abort_join(server: &Server, n: usize, dice: &mut impl FnMut() -> u64) {
    let mut stream = TcpStream::connect(server.http).expect("the server accepts connections");
    let offer = Offer::default().sdp();
    let (room, host, length) = (n % 7, server.http, offer.len());
    let request = format!(
        "POST /v1/rooms/aborted-{room}/participants HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/sdp\r\n\
         content-length: {length}\r\n\r\n{offer}"
    );
    // Some requests are incomplete.
    let length = if dice().is_multiple_of(4) { dice() as usize % request.len() } else { request.len() };
    stream.write_all(&request.as_bytes()[..length]).expect("the connection is open");
    std::thread::park_timeout(Duration::from_micros(dice() % 20_000));
}

#[test]
fn aborted_joins_leave_no_room_process_or_descriptor() {
    let _turn = turn();
    let limits = ["joins_per_second", "joins_burst", "pending_per_address", "pending_total"];
    let mut arguments: Vec<String> = limits.iter().map(|limit| format!("limits.{limit}=100000")).collect();
    arguments.push("rooms.linger_seconds=0".to_owned());
    let arguments: Vec<&str> = arguments.iter().flat_map(|setting| ["--set", setting]).collect();
    let server = Server::start_with(&Settings { arguments: &arguments, ..Settings::default() });
    let mut dice = random();
    // The first requests load what the process keeps.
    (0..20).for_each(|n| abort_join(&server, n, &mut dice));
    let counts = || (counted(&server.url(), "rooms"), counted(&server.url(), "sessions"));
    let settled = |before: Option<(usize, usize)>| {
        for _ in 0..400 {
            let (counts, held) = (counts(), held(&server));
            if counts == (0, 0) && before.is_none_or(|before| held.0 <= before.0 && held.1 <= before.1) {
                return held;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("rooms and sessions {:?}, descriptors and processes {:?} of {before:?}", counts(), held(&server));
    };
    let before = settled(None);
    (0..ABORTED_JOINS).for_each(|n| abort_join(&server, n, &mut dice));
    settled(Some(before));
    server.stop();
}

#[test]
fn bad_requests_do_not_disturb_a_call() {
    let _turn = turn();
    let server = Server::start();
    let measured = play_with(&server.url(), "bad_requests", &[], |what| {
        let room = what.strip_prefix("bad-requests ").expect("the room's name follows");
        json!(contract::refuse_bad_offers(&server, room)).to_string()
    });
    assert_eq!(measured["ready"], true);
    for person in list(&measured, "/people") {
        assert_unhurt(person, 2);
        assert!(number(person, "/freeze_ms") < UNHARMED_MS, "person {}: {}", person["k"], person["freeze_ms"]);
    }
    server.stop();
}
