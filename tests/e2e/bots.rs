//! `commingle bots` against a server: its measurements and its end.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::{counted, get, request};
use crate::scenario::{list, number};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// Time that all bots stay.
const SECONDS: f64 = 5.0;
/// Limit of the median delay from camera to decoder: two frames, two codecs, and a busy machine.
const DELAY_MS: f64 = 400.0;
/// Number and interval of checks whether the bots have joined or left.
const TRIES: usize = 200;
const TRY_EVERY: Duration = Duration::from_millis(100);

fn bots(server: &Server, arguments: &[&str]) -> Output {
    let url = server.url();
    commingle().args(["bots", "--url", &url, "--room", "crowd"]).args(arguments).output().expect("it starts")
}

fn people(server: &Server) -> usize {
    let room = get(&format!("{}/v1/rooms/crowd", server.url()));
    if room.status == 404 { 0 } else { list(&room.json(), "/participants").len() }
}

/// The cameras in the room whose pictures have arrived.
fn cameras(server: &Server) -> usize {
    let room = get(&format!("{}/v1/rooms/crowd", server.url()));
    if room.status == 404 {
        return 0;
    }
    let room = room.json();
    let sources = list(&room, "/participants").iter().flat_map(|participant| list(participant, "/sends"));
    sources.filter(|source| source["size"].is_object()).count()
}

fn wait_until(server: &Server, what: &str, mut is_done: impl FnMut() -> bool) {
    // Nothing is ever sent: this waits until the next check.
    let (_open, never) = sync_channel::<()>(0);
    for _ in 0..TRIES {
        if is_done() {
            return;
        }
        let _ = never.recv_timeout(TRY_EVERY);
    }
    panic!("{what} did not come: {} participants; {}", people(server), server.log());
}

/// Waits until the room has this many participants.
fn wait_for_people(server: &Server, count: usize) {
    wait_until(server, &format!("{count} participants"), || people(server) == count);
}

#[test]
fn bots_measure_a_call() {
    let _turn = turn();
    let server = Server::start();
    let plan = ["--participants", "3", "--clock", "1", "--decode", "1", "--viewers", "20", "--rate", "20"];
    let seconds = SECONDS.to_string();
    let output = bots(&server, &[&plan[..], &["--camera", "320x180@15", "--seconds", &seconds, "--json"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}\n{}", server.log());
    let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    println!("{}", json!({ "groups": report["groups"], "delay": report["delay"], "load": report["load"] }));

    assert_eq!(report["passed"], true);
    let [participants, viewers] = list(&report, "/groups") else { panic!("two groups: {report}") };
    for (group, count) in [(participants, 3), (viewers, 20)] {
        assert_eq!((&group["bots"], &group["stayed"]), (&json!(count), &json!(count)), "{group}");
        assert!(number(group, "/loss_percent") < 0.5, "{group}");
    }
    for bot in list(&report, "/bots") {
        // The canvas changes only with its cameras and is not encoded in between.
        assert!(number(bot, "/video/frames") > SECONDS * 15.0 * 0.8, "at least 15 frames per second: {bot}");
        assert!(number(bot, "/audio/frames") > SECONDS * 50.0 * 0.8, "50 audio packets per second: {bot}");
        assert!(number(bot, "/first_picture_ms") >= number(bot, "/connect_ms"), "{bot}");
    }
    assert!(number(&report, "/delay/read") > SECONDS * 6.0, "the clock was read too rarely: {}", report["delay"]);
    let delay = number(&report, "/delay/median_ms");
    assert!(delay > 1.0 && delay < DELAY_MS, "{}", report["delay"]);
    wait_for_people(&server, 0);
    server.stop();
}

#[test]
fn bots_recover_lost_packets_by_nack() {
    let _turn = turn();
    let server = Server::start();
    let output = bots(&server, &["--participants", "2", "--viewers", "2", "--loss", "3", "--seconds", "5", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    for bot in list(&report, "/bots") {
        let video = &bot["video"];
        println!("{}: {video}", bot["name"]);
        assert!(number(video, "/repaired") > 5.0, "3 % were discarded, and some of it was retransmitted: {bot}");
        assert!(number(video, "/lost") < 0.1 * number(video, "/repaired"), "nearly all of it was recovered: {bot}");
        assert!(number(bot, "/audio/lost") > 0.0, "lost audio is not retransmitted: {bot}");
    }
    server.stop();
}

#[test]
fn bots_connect_by_ice_over_tcp() {
    let _turn = turn();
    let server = Server::start();
    let output = bots(&server, &["--participants", "2", "--viewers", "3", "--tcp", "--seconds", "4", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
    let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    println!("{}", report["groups"]);
    for bot in list(&report, "/bots") {
        assert!(number(bot, "/video/frames") > 4.0 * 15.0 && number(bot, "/video/lost") == 0.0, "{bot}");
    }
    assert_eq!((counted(&server.url(), "udp_received_total"), counted(&server.url(), "tcp_accepted_total")), (0, 5));
    assert!(counted(&server.url(), "tunnel_received_total") > 1_000);
    assert_eq!(counted(&server.url(), "tunnel_dropped_total"), 0);
    server.stop();
}

/// A clip of two seconds, made by ffmpeg.
fn clip(dir: &Path, encoder: &str) -> String {
    let file = dir.join(format!("{encoder}.ivf")).display().to_string();
    let picture = ["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=15", "-t", "2", "-an"];
    let codec = ["-c:v", encoder, "-auto-alt-ref", "0", "-g", "15", "-b:v", "300k", "-cpu-used", "8"];
    let status = Command::new("ffmpeg").args(picture).args(codec).arg(&file).status().expect("ffmpeg is installed");
    assert!(status.success(), "{encoder}");
    file
}

#[test]
fn bots_send_clips_of_all_codecs_and_speech() {
    let _turn = turn();
    let server = Server::start();
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    for encoder in ["libvpx", "libvpx-vp9", "libaom-av1"] {
        let file = clip(dir.path(), encoder);
        let plan = ["--participants", "2", "--viewers", "1", "--speech", "--seconds", "5", "--json", "--clip", &file];
        let output = bots(&server, &plan);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{encoder}: {told}\n{}", server.log());
        let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        println!("{encoder}: {}", report["groups"]);
        for bot in list(&report, "/bots") {
            // A canvas is encoded as often as it changes: the clip is decoded, and moves.
            assert!(number(bot, "/video/frames") > 5.0 * 15.0 * 0.8, "{encoder}: {bot}");
            // In a pause of all other talkers DTX leaves one packet in 400 ms.
            assert!(number(bot, "/audio/frames") > 5.0 / 0.4 * 0.8, "{encoder}: {bot}");
        }
        wait_for_people(&server, 0);
    }
    server.stop();
}

#[test]
fn a_clip_that_cannot_be_sent_is_a_usage_error_that_names_the_fix() {
    let _turn = turn();
    let server = Server::start();
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let file = dir.path().join("clip.ivf");
    fs::write(&file, "RIFF").expect("it can be written");
    let output = bots(&server, &["--participants", "1", "--clip", &file.display().to_string()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("clip.ivf: this is no IVF file") && told.contains("ffmpeg"), "{told}");
    server.stop();
}

#[test]
fn bots_that_cannot_join_report_the_reason() {
    let _turn = turn();
    let server = Server::start();
    let json = [("content-type", "application/json")];
    request("POST", &format!("{}/v1/rooms", server.url()), &json, "{\"name\":\"crowd\"}");
    request("PATCH", &format!("{}/v1/rooms/crowd", server.url()), &json, "{\"locked\":true}");
    let output = bots(&server, &["--viewers", "2", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("FAILED 2: 4") && table.contains("locked"), "{table}");
    assert!(table.contains("0 of 2"), "{table}");
    server.stop();
}

#[test]
fn bots_that_lose_their_session_end_early() {
    let _turn = turn();
    let server = Server::start();
    let bots = commingle()
        .args(["bots", "--url", &server.url(), "--room", "crowd", "--participants", "2", "--seconds", "600"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    // A session that is not connected yet is not closed by a message.
    wait_until(&server, "two cameras", || cameras(&server) == 2);
    server.stop();
    let output = bots.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("FAILED 2: the server closed the connection"), "{table}");
}

#[test]
fn interrupted_bots_end_their_sessions() {
    let _turn = turn();
    let server = Server::start();
    let mut child = commingle()
        .args(["bots", "--url", &server.url(), "--room", "crowd", "--viewers", "3", "--seconds", "600"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for_people(&server, 3);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("it is ours").code(), Some(0), "all bots had joined before the interrupt");
    assert_eq!(people(&server), 0, "the sessions end before the program exits");
    server.stop();
}

/// Joins per second, and for how many seconds.
const STORM: (usize, usize) = (50, 8);
/// Shortest interval of keyframes in seconds: new viewers start from packets that were sent before.
const KEYFRAME_EVERY: f64 = 0.5;
/// Longest video gap of a participant while viewers join: two freezes' worth.
const STORM_GAP_MS: f64 = 400.0;

#[test]
fn hundreds_of_joining_viewers_do_not_disturb_the_participants() {
    let _turn = turn();
    let settings = [
        "limits.joins_per_second=1000",
        "limits.joins_burst=2000",
        "limits.pending_per_address=2000",
        "rooms.max_participants=1000",
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let server = Server::start_with(&Settings { arguments: &arguments, ..Settings::default() });
    let common = ["--tier", "low", "--camera", "320x180@15", "--json"];
    let talk = ["--participants", "3", "--clock", "1", "--decode", "1", "--seconds", "600"];
    let talking = commingle()
        .args(["bots", "--url", &server.url(), "--room", "crowd"])
        .args(talk.iter().chain(&common))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    wait_for_people(&server, 3);
    let (rate, seconds) = STORM;
    let (viewers, rate) = ((rate * seconds).to_string(), rate.to_string());
    let output = bots(&server, &[&["--viewers", &viewers, "--rate", &rate, "--seconds", "3"][..], &common].concat());
    kill_process(Pid::from_child(&talking), Signal::INT).expect("it runs");
    let talked = talking.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(0), "{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
    let crowd: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    let talked: Value = serde_json::from_slice(&talked.stdout).expect("--json prints JSON");
    println!("{}", json!({ "crowd": crowd["groups"], "talked": talked["groups"], "delay": talked["delay"] }));

    let [watching] = list(&crowd, "/groups") else { panic!("one group: {crowd}") };
    assert_eq!(watching["stayed"].to_string(), viewers, "all viewers join and stay: {watching}");
    assert!(number(watching, "/first_picture_ms/p95") < 3_000.0, "{watching}");
    let [talking] = list(&talked, "/groups") else { panic!("one group: {talked}") };
    assert!(number(talking, "/video_gap_ms") < STORM_GAP_MS, "the video of a participant froze: {talking}");
    assert!(number(talking, "/loss_percent") < 0.1, "{talking}");
    let one = &list(&talked, "/bots")[0];
    let most = number(one, "/seconds") / KEYFRAME_EVERY + 2.0;
    assert!(number(one, "/video/keyframes") <= most, "more than {most} keyframes: {one}");
    server.stop();
}
