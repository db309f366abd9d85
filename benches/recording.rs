//! CPU of recording a room of nine, compared with a browser-based recorder: a headless Chromium page that plays the
//! same nine videos, composes them on a canvas and records that with audio by `MediaRecorder`.
//!
//! All processes are counted: server, mixer and output on our side, and all processes of Chromium. Nine publishers send
//! the videos (640x360 at 30 frames per second); their packets are also recorded unchanged, and these files are what
//! Chromium plays. Both sides record VP8 and Opus in WebM, 1280x720 at 30 frames per second.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/e2e/http.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod http;
#[path = "../tests/e2e/scenario.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod scenario;
#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use http::{get, request};
use scenario::{list, number, play_with};
use server::{Server, Settings, commingle, tree_cpu_seconds};

const NINE: usize = 9;
/// Measuring interval, and settling time before it.
const WATCHED: Duration = Duration::from_secs(10);
const SETTLES: Duration = Duration::from_secs(3);
/// Duration of the videos that Chromium plays: longer than the measurement, so that none repeats.
const FILMED: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS: usize = 300;
/// Aims relative to Chromium: our total, and what a recording adds to a running call.
const WHOLE: f64 = 0.4;
const ADDED: f64 = 0.15;

fn main() {
    let data = tempfile::tempdir().expect("the temporary folder can be written");
    let server = Server::start_with(&Settings { data: Some(data.path()), ..Settings::default() });
    let room = Room { server: &server, name: "sent" };
    let senders = Bots::send(&room, "--publishers");
    room.record(&json!({"kind": "tracks"}), || pause(FILMED));
    let idle = room.cores();
    let (mut webm, mut mp4) = (0.0, 0.0);
    room.record(&json!({"format": "webm"}), || webm = room.cores());
    room.record(&json!({"format": "mp4"}), || mp4 = room.cores());
    drop(senders);

    // A server of its own: CPU time of a mixer that exits would be missing from the second sum.
    let other = Server::start();
    let call = Room { server: &other, name: "call" };
    let talkers = Bots::send(&call, "--participants");
    let before = call.cores();
    let mut with = 0.0;
    call.record(&json!({"format": "webm"}), || with = call.cores());
    let after = call.cores();
    drop(talkers);
    other.stop();
    let running = f64::midpoint(before, after);
    let added = with - running;

    let films = films(&data.path().join("recordings"));
    assert_eq!(films.len(), NINE, "one file per publisher: {films:?}");
    let chromium = chromium(&server, &films);
    server.stop();

    println!("nine publishers, no receiver: {idle:.2} cores; recorded as WebM {webm:.2}, as MP4 {mp4:.2}");
    println!("the page in Chromium: {chromium:.2} cores");
    println!(
        "ours relative to Chromium, total: {:.2} as WebM, {:.2} as MP4 (aim: {WHOLE})",
        webm / chromium,
        mp4 / chromium
    );
    println!(
        "a call of nine: {running:.2} cores, with a recording {with:.2}: adds {:.2} of Chromium's (aim: {ADDED})",
        added / chromium
    );
}

/// A room of a server.
struct Room<'a> {
    server: &'a Server,
    name: &'a str,
}

impl Room<'_> {
    fn path(&self, rest: &str) -> String {
        format!("{}/v1/rooms/{}{rest}", self.server.url(), self.name)
    }

    /// Records while `then` runs, and waits until the files are finished.
    fn record(&self, wanted: &Value, then: impl FnOnce()) {
        let headers = [("content-type", "application/json")];
        let begun = request("POST", &self.path("/recordings"), &headers, &wanted.to_string());
        assert_eq!(begun.status, 201, "{begun:?}\n{}", self.server.log());
        let path = self.path(&format!("/recordings/{}", begun.json()["id"].as_str().expect("an id")));
        wait(|| get(&path).json()["state"] == "live", "it records");
        then();
        let stopped = request("DELETE", &path, &[], "");
        assert_eq!(stopped.status, 200, "{stopped:?}");
        wait(|| get(&path).json()["state"] == "finished", "the files are finished");
    }

    /// CPU of all processes of the server, in cores.
    fn cores(&self) -> f64 {
        pause(SETTLES);
        self.server.cpu_share(WATCHED)
    }
}

/// Nine bots in a room; they leave on drop.
struct Bots(Child);

impl Bots {
    fn send(room: &Room<'_>, as_what: &str) -> Self {
        let child = commingle()
            .args(["bots", "--url", &room.server.url(), "--room", room.name, as_what, &NINE.to_string()])
            .args(["--camera", "640x360@30", "--seconds", "600"])
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let bots = Self(child);
        let people = || {
            let room = get(&room.path(""));
            if room.status == 404 { 0 } else { list(&room.json(), "/participants").len() }
        };
        wait(|| people() == NINE, "all are in");
        bots
    }
}

impl Drop for Bots {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

/// The recorded packets remuxed to WebM, as Chromium plays them.
fn films(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("recordings are there").flatten().map(|entry| entry.path());
    let tracks = files.filter(|path| path.extension().is_some_and(|ending| ending == "mkv"));
    let as_webm = |path: std::path::PathBuf| {
        let name = format!("film-{}.webm", path.file_stem().expect("it has a name").to_string_lossy());
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-i"]).arg(&path).args(["-map", "0", "-c", "copy", "-y"]).arg(folder.join(&name));
        assert!(ffmpeg.status().expect("`make bench` installs ffmpeg").success(), "{}", path.display());
        name
    };
    tracks.map(as_webm).collect()
}

/// CPU of Chromium while it composes and records the files, in cores.
fn chromium(server: &Server, films: &[String]) -> f64 {
    let urls: Vec<String> = films.iter().map(|name| format!("{}/v1/recordings/{name}", server.url())).collect();
    let mut cores = 0.0;
    let measured = play_with(&server.url(), "recorded_by_page", &[], |what| match what.strip_prefix("watch ") {
        None => json!(urls).to_string(),
        Some(pid) => {
            let pid = pid.parse().expect("a process id");
            let before = tree_cpu_seconds(pid);
            pause(WATCHED);
            cores = (tree_cpu_seconds(pid) - before) / WATCHED.as_secs_f64();
            "done".to_owned()
        }
    });
    assert_eq!(number(&measured, "/playing"), NINE as f64, "Chromium plays all: {measured}");
    assert!(number(&measured, "/fps") > 25.0, "and composes in time: {measured}");
    cores
}

fn pause(time: Duration) {
    // A channel without sender: only the timeout ends the wait.
    let (_open, never) = sync_channel::<()>(0);
    let _ = never.recv_timeout(time);
}

fn wait(done: impl Fn() -> bool, what: &str) {
    for _ in 0..LOOKS {
        if done() {
            return;
        }
        pause(LOOK_EVERY);
    }
    panic!("not in time: {what}");
}
