//! Calls over bad networks: real Chromium reaches a room only through an emulated network.

use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::relay::{Conditions, Counts, Relay};
use crate::scenario::{list, number, play, play_with};
use crate::server::{Server, commingle};
use crate::{turn, with_retries};

/// Participants besides the one behind the emulated network.
const BOTS: usize = 8;
/// Time limit from a drop of the bandwidth to the matching tier.
const DOWN_MS: f64 = 5_000.0;
/// The same for a rise of the bandwidth.
const UP_MS: f64 = 15_000.0;
/// Longest audio gap.
const GAP_MS: f64 = 100.0;
/// Limit of concealed audio after a drop of the bandwidth: the network's queue fills before feedback can report it,
/// and the receiver stretches late audio.
const CONCEALED_MS: f64 = 1_000.0;
/// Limit of concealed audio as a share, once the tier matches the bandwidth.
const CONCEALED: f64 = 0.03;
/// Longest freeze at 5 % loss.
const FREEZE_MS: f64 = 300.0;

/// Bots in a room, which leave when this is dropped.
struct Crowd(Child);

impl Crowd {
    fn send(server: &Server, room: &str, bots: usize) -> Self {
        let child = commingle()
            .args(["bots", "--url", &server.url(), "--room", room, "--participants", &bots.to_string()])
            .args(["--camera", "320x180@15", "--seconds", "600"])
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        Self(child)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

/// A relay to the server without loss and delay.
fn relay(server: &Server) -> Relay {
    Relay::start(server.media, Conditions::default(), Conditions::default(), 7)
}

/// The difference of a relay's counters.
fn told(before: Counts, now: Counts) -> Value {
    json!({
        "passed": now.passed - before.passed,
        "kbytes": (now.bytes - before.bytes) / 1_000,
        "lost": now.lost - before.lost,
        "overflowed": now.overflowed - before.overflowed,
    })
}

#[test]
fn the_tier_follows_the_bandwidth() {
    with_retries(thin_link);
}

fn thin_link() {
    let server = Server::start();
    let crowd = Crowd::send(&server, "thin", BOTS);
    let relay = relay(&server);
    let (port, people) = (relay.port.to_string(), (BOTS + 1).to_string());
    let mut before = relay.counts().1;
    let arguments = ["--room", "thin", "--relay", &port, "--people", &people, "--seconds", "15"];
    let measured = play_with(&server.url(), "thin_link", &arguments, |what| {
        relay.thin(what);
        let now = relay.counts().1;
        told(std::mem::replace(&mut before, now), now).to_string()
    });
    drop(crowd);
    assert_eq!(measured["ready"], true, "not everyone was there within 30 s");
    let phases = list(&measured, "/phases");
    phases.iter().for_each(|phase| println!("{phase}"));
    let expected = [
        ("high", 25.0, 1_280.0),
        ("medium", 25.0, 640.0),
        ("low", 12.0, 320.0),
        ("slides", 0.4, 640.0),
        ("high", 20.0, 1_280.0),
    ];
    for (phase, (tier, fps, width)) in phases.iter().zip(expected) {
        assert_eq!(phase["last"], tier, "{phase}");
        let changes = list(phase, "/tiers");
        let up = phase["at_first"] == "slides";
        if let Some(change) = changes.last() {
            let took = number(change, "/after_ms");
            assert!(took < if up { UP_MS } else { DOWN_MS }, "{phase}");
        }
        assert!(changes.len() <= if up { 3 } else { 2 }, "it flaps: {phase}");
        assert!(changes.iter().all(|change| change["limit"] == "delay" || change["tier"] == "high"), "{phase}");
        assert!(number(phase, "/gap_ms") < GAP_MS, "{phase}");
        assert!(number(phase, "/concealed_ms") < CONCEALED_MS, "{phase}");
        let settled = &phase["settled"];
        assert!(number(settled, "/concealed") < CONCEALED, "{phase}");
        assert!(number(settled, "/fps") > fps, "{phase}");
        assert_eq!(number(settled, "/width"), width, "{phase}");
    }
    server.stop();
}

#[test]
fn the_page_shows_the_tier_and_its_limit() {
    let _turn = turn();
    let server = Server::start();
    let crowd = Crowd::send(&server, "quality", 2);
    let relay = relay(&server);
    let port = relay.port.to_string();
    let measured = play_with(&server.url(), "page_tells_quality", &["--room", "quality", "--relay", &port], |what| {
        relay.thin(what);
        String::new()
    });
    drop(crowd);
    for said in list(&measured, "/said") {
        assert_eq!(said["in_time"], true, "{said}");
    }
    assert_eq!(list(&measured, "/faults"), [] as [Value; 0]);
    server.stop();
}

/// A client may not notice that its path is broken: the server asks it to restart ICE.
#[test]
fn a_disconnected_client_restarts_ice_on_request() {
    with_retries(way_breaks);
}

fn way_breaks() {
    let server = Server::start();
    let relay = relay(&server);
    let port = relay.port.to_string();
    let measured = play_with(&server.url(), "way_breaks", &["--room", "breaks", "--relay", &port], |what| {
        relay.lose(what);
        String::new()
    });
    println!("{measured}");
    assert_eq!((&measured["ready"], &measured["told"]), (&json!(true), &json!(true)), "{measured}");
    let (asked, restarted) = (number(&measured, "/asked_ms"), number(&measured, "/restarted_ms"));
    assert!((5_000.0..8_000.0).contains(&asked) && restarted < asked + 1_000.0, "{measured}");
    assert!(measured["again"] == true && number(&measured, "/back_ms") < 3_000.0, "{measured}");
    assert_eq!(measured["stays"], true, "the session stays");
    server.stop();
}

/// With a long round-trip time NACK takes too long, so FlexFEC is used.
#[test]
fn a_distant_viewer_with_loss_gets_flexfec() {
    let _turn = turn();
    let server = Server::start();
    let crowd = Crowd::send(&server, "far", 2);
    let far = Conditions { delay: Duration::from_millis(80), ..Conditions::default() };
    let relay = Relay::start(server.media, far, Conditions { loss: 0.05, ..far }, 7);
    let port = relay.port.to_string();
    let measured = play(&server.url(), "far_viewer", &["--room", "far", "--relay", &port, "--seconds", "8"]);
    drop(crowd);
    assert_eq!((&measured["ready"], &measured["protected"]), (&json!(true), &json!(true)), "{measured}");
    let share = number(&measured, "/repairs_unasked") / number(&measured, "/packets");
    assert!((0.05..0.5).contains(&share), "{share} repair packets per media packet: {measured}");
    assert!(number(&measured, "/decoded") > 8.0 * 10.0, "{measured}");
    server.stop();
}

#[test]
fn packet_loss_causes_no_freeze_and_speech_stays_intelligible() {
    with_retries(lossy);
}

/// Each loss rate lasts more than twice as long as the speech sample, so that the recording contains it completely.
fn lossy() {
    let server = Server::start();
    let relay = relay(&server);
    let port = relay.port.to_string();
    let mut before = relay.counts();
    let arguments = ["--room", "loss", "--relay", &port, "--seconds", "12", "--losses", "0,5,10,20"];
    let measured = play_with(&server.url(), "loss", &arguments, |what| {
        relay.lose(what);
        let now = relay.counts();
        let before = std::mem::replace(&mut before, now);
        json!({"up": told(before.0, now.0), "down": told(before.1, now.1)}).to_string()
    });
    assert_eq!(measured["ready"], true, "not everyone was there within 20 s");
    let rounds = list(&measured, "/rounds");
    rounds.iter().for_each(|round| println!("{round}"));
    // At 10 % the limits only exclude a broken call, because consecutive losses are random.
    for (round, freeze_ms, pesq, stoi) in [(&rounds[1], FREEZE_MS, 2.5, 0.9), (&rounds[2], 1_000.0, 1.8, 0.85)] {
        assert!(number(round, "/relay/down/lost") > 70.0 && number(round, "/relay/up/lost") > 70.0, "{round}");
        for freeze in ["/lossy/max_gap_ms", "/clean/tile_still_ms"] {
            assert!(number(round, freeze) < freeze_ms, "{freeze}: {round}");
        }
        for who in ["lossy", "clean"] {
            let score = |what: &str| number(round, &format!("/{who}_hears/{what}"));
            assert!(score("pesq") > pesq && score("stoi") > stoi, "{round}");
        }
    }
    // At 20 % loss, also of feedback, there is still video.
    let seen = &rounds[3]["lossy"];
    assert!(number(seen, "/frames") > 70.0 && number(seen, "/max_gap_ms") < 2_000.0, "{}", rounds[3]);
    server.stop();
}
