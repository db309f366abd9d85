//! Recordings and broadcasts of a call, read by third-party programs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use commingle::time;
use serde_json::{Value, json};

use crate::http::{counted, get, request};
use crate::scenario::{list, number, pictures, play_with};
use crate::server::{Server, Settings};
use crate::with_retries;

/// Largest offset of flash and beep, in seconds (below the detectability of ITU-R BT.1359).
const APART: f64 = 0.045;
/// The middle of the flashing tile, as an ffmpeg crop filter.
const TILE: &str = "crop=200:100:220:130";
/// Frames per second of the canvas.
const FPS: f64 = 30.0;

/// ffmpeg, which writes a broadcast to a file.
struct Taker {
    child: Child,
    file: PathBuf,
}

impl Taker {
    fn start(file: PathBuf, input: &[&str]) -> Self {
        let child = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin"])
            .args(input)
            .args(["-map", "0:v:0", "-map", "0:a:0", "-c", "copy", "-y"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test` installs ffmpeg");
        Self { child, file }
    }

    /// Waits until ffmpeg has reached the end of the broadcast.
    fn finish(mut self) -> PathBuf {
        for _ in 0..100 {
            if self.child.try_wait().expect("it is ours").is_some() {
                return self.file.clone();
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("{} has not reached its end", self.file.display());
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    socket.local_addr().expect("it is bound").port()
}

/// Runs ffmpeg or ffprobe; any message on standard error fails the test.
fn run(program: &str, arguments: &[&str], file: &Path) -> Vec<u8> {
    let output = Command::new(program).args(["-v", "error"]).args(arguments).output().expect("installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{program} on {}: {complaints}", file.display());
    output.stdout
}

/// The content of a file.
struct Seen {
    duration: f64,
    /// Duration of the video, in seconds.
    shown: f64,
    frames: usize,
    /// Gaps in the video: the end and the length of each, in seconds.
    gaps: Vec<(f64, f64)>,
    /// Times of the flashes, in seconds.
    flashes: Vec<f64>,
    /// Times of the beeps, in seconds.
    beeps: Vec<f64>,
}

impl Seen {
    fn of(file: &Path) -> Self {
        let path = file.to_str().expect("plain names");
        let shown = run("ffprobe", &["-show_entries", "format=duration", "-of", "json", path], file);
        let shown: Value = serde_json::from_slice(&shown).expect("JSON");
        let duration = shown["format"]["duration"].as_str().and_then(|text| text.parse().ok()).expect("a duration");
        let filter = format!("{TILE},signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-");
        let arguments = [
            "-i",
            path,
            "-map",
            "0:v:0",
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1:90000",
            "-vf",
            &filter,
            "-f",
            "null",
            "-",
        ];
        let luma = String::from_utf8(run("ffmpeg", &arguments, file)).expect("text");
        let (mut frames, mut first, mut time, mut bright, mut flashes) = (0, None, 0.0, true, Vec::new());
        let mut gaps = Vec::new();
        for line in luma.lines() {
            if let Some((_, at)) = line.split_once("pts_time:") {
                let last = std::mem::replace(&mut time, at.trim().parse().expect("seconds"));
                if first.is_some() && time - last > 1.5 / FPS {
                    gaps.push((time, time - last));
                }
                first.get_or_insert(time);
                frames += 1;
            } else if let Some((_, value)) = line.split_once("YAVG=") {
                let now = value.trim().parse::<f64>().expect("a level") > 120.0;
                if now && !bright {
                    flashes.push(time);
                }
                bright = now;
            }
        }
        let shown = first.map_or(0.0, |first| time - first + 1.0 / FPS);
        Self { duration, shown, frames, gaps, flashes, beeps: beeps(file) }
    }

    /// The flashes, each with the delay of its beep in seconds.
    fn claps(&self) -> Vec<(f64, f64)> {
        let beep = |flash: f64| {
            let apart = self.beeps.iter().map(|beep| beep - flash);
            apart.min_by(|a, b| a.abs().total_cmp(&b.abs()))
        };
        self.flashes.iter().filter_map(|flash| Some((*flash, beep(*flash)?))).collect()
    }
}

/// The median.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The times at which the beep's tone starts.
fn beeps(file: &Path) -> Vec<f64> {
    const RATE: usize = 48_000;
    const BLOCK: usize = RATE / 500;
    let path = file.to_str().expect("plain names");
    let filter = "aresample=async=1:first_pts=0,bandpass=f=2000:width_type=h:w=400";
    let arguments = ["-i", path, "-map", "0:a:0", "-af", filter, "-ar", "48000", "-ac", "1", "-f", "f32le", "-"];
    let bytes = run("ffmpeg", &arguments, file);
    let samples: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|sample| f32::from_le_bytes(*sample)).collect();
    let (mut begins, mut quiet) = (Vec::new(), 0);
    for (n, block) in samples.chunks(BLOCK).enumerate() {
        let loud = block.iter().any(|sample| sample.abs() > 0.08);
        // A beep ends after a tenth of a second of silence.
        if loud && quiet > 50 {
            begins.push((n * BLOCK) as f64 / RATE as f64);
        }
        quiet = if loud { 0 } else { quiet + 1 };
    }
    begins
}

fn begin(server: &Server, what: &str, body: &Value) -> String {
    let url = format!("{}/v1/rooms/clap/{what}", server.url());
    let reply = request("POST", &url, &[("content-type", "application/json")], &body.to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()["id"].as_str().expect("an id").to_owned()
}

fn wait_for(server: &Server, what: &str, done: impl Fn(&Value) -> bool) {
    let mut room = Value::Null;
    for _ in 0..150 {
        room = get(&format!("{}/v1/rooms/clap", server.url())).json();
        if done(&room) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("{what}: {room}\n{}", server.log());
}

#[test]
fn audio_and_video_are_synchronised_in_all_recordings_and_broadcasts() {
    with_retries(clap);
}

fn clap() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let server = Server::start_with(&Settings {
        arguments: &["--set", "outputs.allow_private=true"],
        data: Some(folder.path()),
        ..Settings::default()
    });
    let seconds = std::env::var("E2E_SECONDS").unwrap_or_else(|_| "12".to_owned());
    let rtmp = format!("rtmp://127.0.0.1:{}/live/key", free_port());
    let srt = format!("srt://127.0.0.1:{}", free_port());
    let hls = format!("{}/hls/clap/index.m3u8", server.url());
    let (mut takers, mut recordings, mut broadcasts) = (Vec::new(), Vec::new(), Vec::new());
    // From the last response to POST to the first DELETE.
    let (mut begun, mut recorded) = (time::now(), Duration::ZERO);
    let measured = play_with(&server.url(), "clap", &["--room", "clap", "--seconds", &seconds], |what| {
        if what == "begin" {
            takers.push(Taker::start(folder.path().join("rtmp.mkv"), &["-listen", "1", "-i", &rtmp]));
            takers.push(Taker::start(folder.path().join("srt.mkv"), &["-i", &format!("{srt}?mode=listener")]));
            for format in ["mp4", "webm", "mkv"] {
                recordings.push(begin(&server, "recordings", &json!({"format": format})));
            }
            begun = time::now();
            for body in [json!({"kind": "hls"}), json!({"url": rtmp}), json!({"url": srt})] {
                broadcasts.push(begin(&server, "broadcasts", &body));
            }
            let live =
                |outputs: &Value| outputs.as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "live"));
            wait_for(&server, "not all are live", |room| live(&room["recordings"]) && live(&room["broadcasts"]));
            takers.push(Taker::start(folder.path().join("hls.mkv"), &["-i", &hls]));
        } else {
            recorded = time::now().since(begun);
            let recordings = recordings.iter().map(|id| format!("recordings/{id}"));
            for output in recordings.chain(broadcasts.iter().map(|id| format!("broadcasts/{id}"))) {
                let url = format!("{}/v1/rooms/clap/{output}", server.url());
                assert_eq!(request("DELETE", &url, &[], "").status, 200, "{output}");
            }
            let over = |outputs: &Value| {
                outputs.as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "finished"))
            };
            wait_for(&server, "not all are finished", |room| over(&room["recordings"]) && over(&room["broadcasts"]));
        }
        String::new()
    });
    assert_eq!(measured["ready"], true, "{measured}");
    for freezes in list(&measured, "/freezes") {
        assert!(number(freezes, "/max_gap_ms") < 500.0, "the call itself froze: {measured}");
    }

    let listed = get(&format!("{}/v1/recordings", server.url())).json();
    let mut files: Vec<(PathBuf, Option<f64>)> = Vec::new();
    for file in listed.as_array().expect("a list") {
        let name = file["file"].as_str().expect("a name");
        let told = file["duration"].as_f64().expect("a duration");
        assert_eq!(file["state"], "finished", "{file}");
        files.push((folder.path().join("recordings").join(name), Some(told)));
    }
    assert_eq!(files.len(), 3, "{listed}");
    files.extend(takers.into_iter().map(|taker| (taker.finish(), None)));
    // Frames that a busy mixer skipped, or that were unchanged.
    let left_out = ["video_left_out", "frames_busy", "frames_unchanged"];
    let left_out: u64 = left_out.iter().map(|what| counted(&server.url(), &format!("mixer_{what}_total"))).sum();
    let left_out = left_out as f64;
    println!("{left_out} pictures were left out");
    let least = seconds.parse::<f64>().expect("a number") / 2.0 - 2.0;
    for (file, told) in &files {
        let seen = Seen::of(file);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let claps = seen.claps();
        println!("{name}: {:.2} s, {} frames, gaps {:.3?}, claps {claps:.3?}", seen.duration, seen.frames, seen.gaps);
        assert!(
            claps.len() as f64 >= least && seen.beeps.len().abs_diff(seen.flashes.len()) <= 1,
            "{name}: {:?}",
            seen.beeps
        );
        // Cameras of a busy browser are late now and then, equally in all outputs, so the median of each half counts.
        let half = claps.len().div_ceil(2);
        for some in [&claps[..half], &claps[claps.len() - half..]] {
            let (apart, at) = (median(some.iter().map(|clap| clap.1)), some[0].0);
            assert!(
                apart.abs() <= APART,
                "{name}: from {at:.2} s on claps are heard {apart:.3} s later than seen: {claps:?}"
            );
        }
        // At least 99 % of the mixer's frames are in the file.
        let missing = |of: f64| ((of * FPS - seen.frames as f64).abs() - left_out).max(0.0) / (of * FPS);
        if let Some(told) = told {
            assert!((told - seen.duration).abs() < 0.3, "{name} has a stated duration of {told} s");
            assert!(
                missing(seen.duration) < 0.01,
                "{name} has {} frames in {} s, {left_out} were left out",
                seen.frames,
                seen.duration
            );
            let recorded = recorded.as_secs_f64();
            assert!((seen.duration - recorded).abs() < 3.0, "{name}: {} s of {recorded} s", seen.duration);
        } else {
            assert!(
                missing(seen.shown) < 0.01,
                "{name} has {} frames in {} s, {left_out} were left out",
                seen.frames,
                seen.shown
            );
            // A receiver of a running stream may get audio a moment before the first keyframe.
            assert!(seen.duration - seen.shown < 1.0, "{name}: video for {} of {} s", seen.shown, seen.duration);
        }
        std::fs::create_dir_all(pictures()).expect("Cargo's target folder can be written");
        let picture = pictures().join(format!("clap-{name}.png"));
        let (path, picture) = (file.to_str().expect("plain"), picture.to_str().expect("plain"));
        run("ffmpeg", &["-ss", "4", "-i", path, "-frames:v", "1", "-y", picture], file);
    }
    server.stop();
}

#[test]
fn hls_plays_with_low_delay_and_continues_after_its_process_was_killed() {
    with_retries(hls);
}

fn hls() {
    let server = Server::start();
    let measured = play_with(&server.url(), "hls", &["--room", "clap", "--seconds", "8"], |what| {
        match what {
            "begin" => drop(begin(&server, "broadcasts", &json!({"kind": "hls"}))),
            "kill" => {
                for output in server.processes("output") {
                    rustix::process::kill_process(output, rustix::process::Signal::KILL).expect("it is ours and runs");
                }
            }
            _ => {
                let url = format!("{}/v1/rooms/clap/broadcasts/o1", server.url());
                assert_eq!(request("DELETE", &url, &[], "").status, 200);
                wait_for(&server, "it does not end", |room| room["broadcasts"][0]["state"] == "finished");
            }
        }
        String::new()
    });
    let steady = &measured["steady"];
    assert!(list(steady, "/faults").iter().all(|fault| fault["fatal"] == false), "{measured}");
    assert!(number(steady, "/first_ms") < 8_000.0, "{measured}");
    assert!(number(steady, "/frames") > 8.0 * FPS * 0.8, "{measured}");
    assert!(number(steady, "/longest_gap_ms") < 1_000.0, "{measured}");
    assert!(number(steady, "/behind_s") < 5.0, "the delay to the call is too long: {measured}");
    assert!(number(steady, "/sound") > 10_000.0, "there is no audio: {measured}");
    let heights: Vec<_> = list(steady, "/levels").iter().map(|level| level["height"].as_u64()).collect();
    assert!([720, 360, 180].iter().all(|height| heights.contains(&Some(*height))), "{measured}");
    let again = &measured["again"];
    assert!(
        number(again, "/frames") > 4.0 * FPS * 0.8,
        "playback does not continue after the process was killed: {measured}"
    );
    assert!(list(again, "/faults").iter().all(|fault| fault["fatal"] == false), "{measured}");
    assert_eq!(measured["ended"]["ended"], true, "the player does not reach the end: {measured}");
    let playlist = get(&format!("{}/hls/clap/high/index.m3u8", server.url())).body;
    assert!(playlist.trim_end().ends_with("#EXT-X-ENDLIST"), "the playlist has no end tag: {playlist}");
    server.stop();
}
