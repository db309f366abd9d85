//! Mixed load for a long time: memory, descriptors, threads and processes stay as they are.
//!
//! One room stays, with participants, viewers, a recording and an input. Meanwhile other rooms come and go.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Offer, Reply, get, post_offer, request};
use crate::processes::{Usage, counts};
use crate::seconds;
use crate::server::{Server, deadline, is_over, people, wait, wait_until};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
/// Interval of samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// The largest growth of a process, in MiB per minute.
const SLOPE_MAX: f64 = 1.0;
/// People of the room that stays: bots and the input.
const PARTICIPANTS: usize = 3;
const VIEWERS: usize = 2;
/// Joins of one round that never connect.
const JOINS: usize = 20;
/// Time in which everything of the rooms that come and go is over.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn memory_and_counts_stay_flat_under_mixed_load() {
    let duration = seconds(3_600);
    let mut server = Server::start();
    let clip = server.data().join("media");
    std::fs::create_dir_all(&clip).expect("the data folder can be written");
    write_clip(&clip.join("clip.webm"));
    let stays = (duration + Duration::from_secs(600)).as_secs().to_string();
    let (participants, viewers) = (PARTICIPANTS.to_string(), VIEWERS.to_string());
    let arguments = ["--participants", &participants, "--viewers", &viewers, "--seconds", &stays];
    // Bots and an input alone do not keep a room that nobody has created.
    let created = request("POST", &format!("{}/v1/rooms", server.url()), JSON, r#"{"name":"steady"}"#);
    assert_eq!(created.status, 201, "{created:?}");
    let bots = server.bots(&server.url(), "steady", &arguments);
    post(&server, "steady/inputs", &json!({"url": "file:clip.webm", "loop": true, "name": "clip"}));
    let all = PARTICIPANTS + VIEWERS + 1;
    let joined = wait_until(Duration::from_secs(60), || people(&server, "steady") == all);
    let room = || get(&format!("{}/v1/rooms/steady", server.url())).body;
    assert!(joined, "not {all} people: {}\n{}", room(), server.log());
    post(&server, "steady/recordings", &json!({"format": "webm"}));

    // Each kind of load once before the counts: the first one loads what the process keeps.
    let mut load = Load::default();
    (0..3).for_each(|_| load.round(&server));
    wait(SETTLES_WITHIN.min(duration / 5));
    let before = server.usages();
    let steady: Vec<Usage> = before.clone();
    println!("at the beginning: {:?}", counts(&before));
    let mut samples = BTreeMap::<u32, Vec<f64>>::new();
    let end = deadline(duration);
    let mut sample_due = deadline(Duration::ZERO);
    while !is_over(end) {
        if is_over(sample_due) {
            sample_due += SAMPLE_INTERVAL;
            let now = server.usages();
            println!("{:?} {:?}", counts(&now), memory(&now, &steady));
            for usage in &now {
                samples.entry(usage.pid).or_default().push(usage.rss_kib as f64 / 1024.0);
            }
        }
        load.round(&server);
    }
    println!("{load:?}");
    server.assert_alive();
    server.assert_settles(&before, SETTLES_WITHIN);

    let mut failures = Vec::new();
    let rounds = samples.values().map(Vec::len).max().unwrap_or_default();
    for Usage { pid, role, .. } in &steady {
        let samples = &samples[pid];
        assert_eq!(samples.len(), rounds, "the process of type {role} that stays has been replaced\n{}", server.log());
        let per_minute = slope(samples) * 60.0 / SAMPLE_INTERVAL.as_secs_f64();
        println!("{role}: {:.1} to {:.1} MiB, {per_minute:.2} MiB/min", samples[0], samples[rounds - 1]);
        if per_minute > SLOPE_MAX {
            failures.push(format!("{role} grows by {per_minute:.2} MiB/min: {samples:.1?}"));
        }
    }
    let report = bots.leave();
    println!("{}", report["groups"]);
    assert!(failures.is_empty(), "{failures:#?}");
    server.stop();
}

/// Two seconds of a test picture and a tone.
fn write_clip(path: &std::path::Path) {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=15", "-f", "lavfi", "-i", "sine"])
        .args(["-t", "2", "-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"])
        .arg(path)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ffmpeg cannot write {}", path.display());
}

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let url = format!("{}/v1/rooms/{path}", server.url());
    let reply = request("POST", &url, JSON, &body.to_string());
    assert_eq!(reply.status, 201, "{path}: {reply:?}");
    reply.json()
}

/// The load that comes and goes.
#[derive(Debug, Default)]
struct Load {
    rounds: usize,
    joins: usize,
    calls: usize,
    failed_calls: usize,
    recordings: usize,
}

impl Load {
    fn round(&mut self, server: &Server) {
        let room = format!("round-{}", self.rounds);
        match self.rounds % 3 {
            0 => {
                for _ in 0..JOINS {
                    let url = format!("{}/v1/rooms/{room}/participants", server.url());
                    let reply = post_offer(&url, &Offer::default().sdp());
                    assert_eq!(reply.status, 201, "{reply:?}");
                    let session = format!("{}{}", server.url(), reply.header("location"));
                    let Reply { status, .. } = request("DELETE", &session, &[], "");
                    assert_eq!(status, 200);
                    self.joins += 1;
                }
            }
            1 => {
                let bots = ["--participants", "2", "--viewers", "1", "--seconds", "2"];
                let report = server.bots(&server.url(), &room, &bots).report();
                self.calls += 1;
                self.failed_calls += usize::from(report["passed"] != true);
                self.joins += 3;
            }
            _ => {
                let recording = post(server, "steady/recordings", &json!({"format": "mkv"}));
                wait(Duration::from_secs(2));
                let id = recording["id"].as_str().unwrap_or_default();
                let url = format!("{}/v1/rooms/steady/recordings/{id}", server.url());
                assert_eq!(request("DELETE", &url, &[], "").status, 200);
                self.recordings += 1;
            }
        }
        self.rounds += 1;
    }
}

/// Resident memory of the processes that stay, in MiB, by process type.
fn memory(now: &[Usage], steady: &[Usage]) -> BTreeMap<String, u64> {
    let stays = |usage: &&Usage| steady.iter().any(|other| other.pid == usage.pid);
    now.iter().filter(stays).map(|usage| (usage.role.clone(), usage.rss_kib / 1024)).collect()
}

/// The slope of a line through the samples, by least squares, per sample.
fn slope(samples: &[f64]) -> f64 {
    let count = samples.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = samples.iter().sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let x = at as f64 - middle;
        above += x * (sample - mean);
        below += x * x;
    }
    if below > 0.0 { above / below } else { 0.0 }
}
