//! Calls over bad networks: somebody in real Chromium reaches a room of bots only by the tests' own relay.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::relay::{Conditions, Counts, Relay};
use crate::scenario::{list, number, play_with};
use crate::server::{Server, commingle};
use crate::turn;

/// Participants beside the one on the bad network.
const BOTS: usize = 8;

/// Bots in a room; they leave when this is dropped.
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

/// Has a link carry so much from now on, downwards, if that is what is asked: `link KBPS`.
fn thin(relay: &Relay, what: &str) {
    if let Some(kbps) = what.strip_prefix("link ") {
        let kbps = Some(kbps.parse().expect("`link KBPS`"));
        relay.set(Conditions::default(), Conditions { kbps, ..Conditions::default() });
    }
}

fn told(before: Counts, now: Counts) -> Value {
    json!({
        "passed": now.passed - before.passed,
        "kbytes": (now.bytes - before.bytes) / 1_000,
        "lost": now.lost - before.lost,
        "overflowed": now.overflowed - before.overflowed,
    })
}

#[test]
fn the_tier_follows_a_thin_link() {
    let _turn = turn();
    let server = Server::start();
    let crowd = Crowd::send(&server, "thin", BOTS);
    let relay = Relay::start(server.media, Conditions::default(), Conditions::default(), 7);
    let port = relay.port.to_string();
    let people = (BOTS + 1).to_string();
    let mut before = relay.counts().1;
    let arguments = ["--room", "thin", "--relay", &port, "--people", &people, "--seconds", "15"];
    let measured = play_with(&server.url(), "thin_link", &arguments, |what| {
        thin(&relay, what);
        let now = relay.counts().1;
        told(std::mem::replace(&mut before, now), now).to_string()
    });
    for phase in list(&measured, "/phases") {
        println!("{phase}");
    }
    assert_eq!(measured["ready"], true, "not everyone was there");
    let _ = number(&measured, "/phases/0/gap_ms");
    drop(crowd);
    server.stop();
}

#[test]
fn the_page_says_which_quality_one_gets_and_why() {
    let _turn = turn();
    let server = Server::start();
    let crowd = Crowd::send(&server, "quality", 2);
    let relay = Relay::start(server.media, Conditions::default(), Conditions::default(), 7);
    let port = relay.port.to_string();
    let measured = play_with(&server.url(), "page_tells_quality", &["--room", "quality", "--relay", &port], |what| {
        thin(&relay, what);
        String::new()
    });
    for said in list(&measured, "/said") {
        assert_eq!(said["in_time"], true, "{said}");
    }
    assert_eq!(list(&measured, "/faults"), [] as [Value; 0]);
    drop(crowd);
    server.stop();
}

#[test]
fn lost_packets_freeze_nothing() {
    let _turn = turn();
    let server = Server::start();
    let relay = Relay::start(server.media, Conditions::default(), Conditions::default(), 7);
    let port = relay.port.to_string();
    let mut before = relay.counts();
    let measured = play_with(&server.url(), "loss", &["--room", "loss", "--relay", &port, "--seconds", "16"], |what| {
        if let Some(percent) = what.strip_prefix("loss ") {
            let percent: f64 = percent.parse().expect("`loss PERCENT`");
            let lossy = Conditions { loss: percent / 100.0, ..Conditions::default() };
            relay.set(lossy, lossy);
        }
        let now = relay.counts();
        let before = std::mem::replace(&mut before, now);
        json!({"up": told(before.0, now.0), "down": told(before.1, now.1)}).to_string()
    });
    for round in list(&measured, "/rounds") {
        println!("{round}");
    }
    assert_eq!(measured["ready"], true, "not everyone was there");
    server.stop();
}
