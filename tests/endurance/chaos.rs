//! A room on a hostile network whose processes are stopped and killed, under floods: another room's call goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::http::{Offer, post_offer, request};
use crate::processes::{Usage, counts};
use crate::seconds;
use crate::server::{Bots, Server, deadline, is_over, people, wait, wait_until};
use crate::storm::{Junk, Storm};

/// Participants of the calm room and of the room on the hostile network.
const CALM: usize = 2;
const STORMY: usize = 3;
/// Interval at which the mixer of the stormy room is killed.
const KILL_INTERVAL: Duration = Duration::from_secs(10);
/// The longest gap in the video and the audio of the calm room, in ms.
const GAP_MAX_MS: f64 = 3_000.0;
/// Time in which the bots of a room join, and time in which everything of the storm is over.
const JOINS_WITHIN: Duration = Duration::from_secs(60);
const SETTLES_WITHIN: Duration = Duration::from_secs(90);

#[test]
fn another_room_goes_on_in_a_storm_of_faults_and_floods() {
    let duration = seconds(120);
    let mut dice = Dice::from_environment();
    let mut server = Server::start();
    let long = (duration + Duration::from_secs(900)).as_secs().to_string();
    let bots = |server: &Server, url: &str, room: &str, count: usize| {
        server.bots(url, room, &["--participants", &count.to_string(), "--seconds", &long])
    };
    // A first call and a first recording load what the process keeps.
    warm_up(&server);
    let calm = bots(&server, &server.url(), "calm", CALM);
    assert!(wait_until(JOINS_WITHIN, || people(&server, "calm") == CALM), "{}", server.log());
    wait(Duration::from_secs(5));
    let before = server.usages();
    println!("before: {:?}", counts(&before));

    let storm = Storm::start(server.http, server.media, &mut dice);
    let stormy = bots(&server, &storm.url, "stormy", STORMY);
    wait_until(JOINS_WITHIN, || people(&server, "stormy") > 0);
    let url = format!("{}/v1/rooms/stormy/recordings", server.url());
    request("POST", &url, &[("content-type", "application/json")], &json!({"format": "mkv"}).to_string());
    let junk = Junk::start(server.media, &mut dice);
    let mut done = BTreeMap::<&str, u64>::new();
    let end = deadline(duration);
    let mut kill_due = deadline(KILL_INTERVAL);
    while !is_over(end) {
        let others = others(&server, &before);
        if is_over(kill_due) {
            kill_due += KILL_INTERVAL;
            for mixer in others.iter().filter(|usage| usage.role == "mixer") {
                signal(mixer, Signal::KILL);
                *done.entry("mixers killed").or_default() += 1;
            }
        }
        let (fault, count) = match dice.below(4) {
            0 => ("processes stopped", stop(&others, &mut dice)),
            1 => ("packets of the flood", storm.flood(Duration::from_millis(500))),
            2 => ("half-open sessions", half_open(&server, &mut dice)),
            _ => {
                wait(Duration::from_millis(500));
                ("pauses", 1)
            }
        };
        *done.entry(fault).or_default() += count;
        server.assert_alive();
    }
    println!("{done:?}, {} junk datagrams, {} people in the stormy room", junk.sent(), people(&server, "stormy"));
    assert!(
        done.get("packets of the flood").is_some_and(|sent| *sent > 10_000),
        "no media came by the relay: {done:?}"
    );
    drop((stormy, storm, junk));

    server.assert_settles(&before, SETTLES_WITHIN);
    let report = calm.leave();
    println!("{}", report["groups"]);
    let healthy = server.bots(&server.url(), "afterwards", &["--participants", "2", "--seconds", "4"]).report();
    assert_eq!(healthy["passed"], true, "a call after the storm: {healthy}\n{}", server.log());
    for bot in report["bots"].as_array().expect("a list") {
        assert_eq!(bot["failed"], Value::Null, "{bot}");
        for media in ["video", "audio"] {
            let gap = bot[media]["longest_gap_ms"].as_f64().expect("a number");
            println!("{} {media}: {gap} ms", bot["name"]);
            assert!(gap < GAP_MAX_MS, "no {media} for {gap} ms: {bot}");
        }
    }
    server.stop();
}

fn warm_up(server: &Server) {
    let bots: Bots = server.bots(&server.url(), "first", &["--participants", "2", "--seconds", "600"]);
    assert!(wait_until(JOINS_WITHIN, || people(server, "first") == 2), "{}", server.log());
    let url = format!("{}/v1/rooms/first/recordings", server.url());
    let reply = request("POST", &url, &[("content-type", "application/json")], &json!({"format": "mkv"}).to_string());
    assert_eq!(reply.status, 201, "{reply:?}");
    half_open(server, &mut Dice::new(1));
    wait(Duration::from_secs(3));
    drop(bots);
    assert!(wait_until(SETTLES_WITHIN, || server.usages().len() == 1), "{:?}", server.usages());
}

/// The processes that are neither the server nor of the calm room.
fn others(server: &Server, calm: &[Usage]) -> Vec<Usage> {
    server.usages().into_iter().filter(|usage| !calm.iter().any(|other| other.pid == usage.pid)).collect()
}

fn signal(process: &Usage, signal: Signal) {
    if let Some(pid) = Pid::from_raw(process.pid.cast_signed()) {
        // An error means that it has ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// Stops one process for up to four seconds. The server kills a process that hangs for longer than it allows.
fn stop(processes: &[Usage], dice: &mut Dice) -> u64 {
    if processes.is_empty() {
        return 0;
    }
    let process = &processes[dice.below(processes.len())];
    signal(process, Signal::STOP);
    wait(Duration::from_millis(dice.roll() % 4_000));
    signal(process, Signal::CONT);
    1
}

/// Joins whose clients never connect.
fn half_open(server: &Server, dice: &mut Dice) -> u64 {
    let joins = 20;
    for _ in 0..joins {
        let url = format!("{}/v1/rooms/half-open-{}/participants", server.url(), dice.below(4));
        let reply = post_offer(&url, &Offer::default().sdp());
        assert!([201, 429, 503].contains(&reply.status), "{reply:?}");
    }
    joins
}
