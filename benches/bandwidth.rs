//! Bandwidth of one participant in calls of 3, 9, 25 and 49 (or of the number given as an argument), compared with a
//! forwarding server (SFU), which would send every other participant's stream.
//!
//! Each participant is a bot with a camera of 320x180 at 15 frames per second and a voice. The server counts received
//! bytes at its media port while all are connected; each bot counts the bytes it receives.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/e2e/http.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod http;
#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use std::process::Stdio;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use commingle::time::now;
use serde_json::Value;

use http::get;
use server::{Server, commingle};

const ROOM: &str = "crowd";
/// Duration of a call, and measuring interval within it.
const STAY: u32 = 12;
const WATCHED: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(100);

fn main() {
    let only: Option<usize> = std::env::args().find_map(|argument| argument.parse().ok());
    println!(
        "people | received by one, kbit/s: median, most | sent by one | a forwarding server would send to one | ratio"
    );
    for people in [3, 9, 25, 49].into_iter().filter(|people| only.is_none_or(|only| only == *people)) {
        call(people);
    }
}

fn call(people: usize) {
    let server = Server::start();
    let (count, seconds) = (people.to_string(), STAY.to_string());
    let bots = commingle()
        .args(["bots", "--url", &server.url(), "--room", ROOM, "--participants", &count, "--camera", "320x180@15"])
        .args(["--seconds", &seconds, "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    while participants(&server) < people {
        pass(TRY_EVERY);
    }
    let (from, before) = (now(), received(&server));
    pass(WATCHED);
    let sent = (received(&server) - before) * 8.0 / 1000.0 / now().since(from).as_secs_f64() / people as f64;
    let output = bots.wait_with_output().expect("it is ours");
    let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    assert_eq!(report["passed"], true, "{}", report["failures"]);
    let number = |bot: &Value, at: &str| bot.pointer(at).and_then(Value::as_f64).expect("a number");
    let mut each: Vec<f64> = report["bots"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|bot| {
            let bytes = number(bot, "/video/bytes") + number(bot, "/audio/bytes");
            bytes * 8.0 / 1000.0 / number(bot, "/seconds")
        })
        .collect();
    each.sort_by(f64::total_cmp);
    let (median, most) = (each[each.len() / 2], each[each.len() - 1]);
    let forwarded = sent * (people - 1) as f64;
    println!("{people:6} | {median:6.0}, {most:6.0} | {sent:5.0} | {forwarded:7.0} | {:.2}", median / forwarded);
    server.stop();
}

/// Number of participants in the room.
fn participants(server: &Server) -> usize {
    let room = get(&format!("{}/v1/rooms/{ROOM}", server.url()));
    if room.status == 404 { 0 } else { room.json()["participants"].as_array().map_or(0, Vec::len) }
}

/// Bytes received at the media port.
fn received(server: &Server) -> f64 {
    let metrics = get(&format!("{}/metrics", server.url())).body;
    let value = metrics.lines().find_map(|line| line.strip_prefix("commingle_udp_received_bytes_total "));
    value.expect("it is counted").parse().expect("a number")
}

/// Waits for a duration.
fn pass(time: Duration) {
    // A channel without sender: only the timeout ends the wait.
    let (_open, never) = sync_channel::<()>(0);
    let _ = never.recv_timeout(time);
}
