//! Inputs in a call: they are visible and audible like participants, and a crash of one does not affect the others.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::http::request;
use crate::rooms::assert_hears;
use crate::scenario::{list, play_with};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// The colours and tones of `people.js`.
const COLOURS: [&str; 5] = ["", "0x1EA032", "0x283CD2", "0xDCC828", "0xBE28BE"];
const TONES: [u32; 5] = [363, 451, 591, 788, 1067];
const ENCODED: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25 -pix_fmt yuv420p -c:a aac";

/// ffmpeg as participant `k` of the browser tests: a colour, a moving bar, a tone.
fn person(k: usize, live: bool, seconds: &str) -> Command {
    let bar = if k == 3 { "black" } else { "white" };
    let picture = format!(
        "color=c={}:s=640x360:r=25[b];color=c={bar}:s=64x360:r=25[k];[b][k]overlay=x='mod(t,2.4)/2.4*0.9*W'",
        COLOURS[k]
    );
    let sound = format!("aevalsrc=0.06*sin(2*PI*{}*t):s=48000", TONES[k]);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    for input in [picture, sound] {
        command.args(live.then_some("-re")).args(["-f", "lavfi", "-i", &input]);
    }
    command.args(seconds.split_whitespace()).args(ENCODED.split(' ')).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A child process that is killed when dropped.
struct Running(Child);

impl Running {
    fn new(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn make(command: &mut Command, name: &str, folder: &Path) {
    assert!(command.arg(name).current_dir(folder).status().is_ok_and(|status| status.success()), "no {name}");
}

/// Serves the files of a folder by HTTP until the test ends; returns the port.
fn serve(folder: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let folder = folder.to_owned();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            use std::io::{BufRead, BufReader, Write};
            let mut lines = BufReader::new(connection.try_clone().expect("descriptors are left")).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = match fs::read(folder.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // An error means that the client has closed the connection.
            let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&body));
        }
    });
    port
}

fn tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn add(server: &Server, room: &str, body: &Value) -> Value {
    let url = format!("{}/v1/rooms/{room}/inputs", server.url());
    let reply = request("POST", &url, &[("content-type", "application/json")], &body.to_string());
    assert_eq!(reply.status, 201, "{body}: {reply:?}");
    reply.json()
}

#[test]
fn file_hls_srt_and_rtmp_inputs_are_visible_and_audible_in_a_call() {
    let _turn = turn();
    let (rtmp, srt) = (tcp_port(), UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port").port());
    let port = rtmp.to_string();
    let server = Server::start_with(&Settings {
        arguments: &["--rtmp-port", &port, "--set", "inputs.allow_private=true"],
        ..Settings::default()
    });
    let media = server.data().join("media");
    fs::create_dir_all(&media).expect("room for it");
    make(&mut person(1, false, "-t 4.8"), "film.mp4", &media);
    // The files are encoded before the call to save CPU during it.
    let folder = tempfile::tempdir().expect("a folder");
    let hls = ["-f", "hls", "-hls_time", "2", "-hls_list_size", "0"];
    make(person(2, false, "-t 90").args(hls), "list.m3u8", folder.path());
    make(&mut person(3, false, "-t 90"), "srt.mp4", folder.path());
    make(&mut person(4, false, "-t 90"), "rtmp.mp4", folder.path());
    let web = serve(folder.path());
    let send = |name: &str, format: &str, url: &str| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-re", "-i", name, "-c", "copy", "-f", format, url]);
        Running::new(command.current_dir(folder.path()).stdin(Stdio::null()))
    };
    let _sender = send("srt.mp4", "mpegts", &format!("srt://127.0.0.1:{srt}?mode=listener"));
    let mut encoder = None;

    let measured = play_with(&server.url(), "inputs", &[], |what| match what.split_once(' ').expect("with the room") {
        ("begin", room) => {
            add(&server, room, &json!({"url": "file:film.mp4", "name": "Film 1", "loop": true}));
            add(&server, room, &json!({"url": format!("http://127.0.0.1:{web}/list.m3u8"), "name": "HLS 2"}));
            add(&server, room, &json!({"url": format!("srt://127.0.0.1:{srt}"), "name": "SRT 3"}));
            let url = format!("rtmp://127.0.0.1:{rtmp}/live/{room}?name=RTMP%204");
            encoder = Some(send("rtmp.mp4", "flv", &url));
            "begun".to_owned()
        }
        ("kill", _) => {
            let inputs = server.processes("input");
            assert_eq!(inputs.len(), 4, "one process per input");
            // The first process plays the file; killing an encoder's process would remove its participant.
            let first = inputs.into_iter().min_by_key(|pid| pid.as_raw_nonzero()).expect("there are four");
            kill_process(first, Signal::KILL).expect("it is ours and runs");
            "killed".to_owned()
        }
        (other, _) => panic!("asked for {other}"),
    });
    for (when, seen) in [("before", &measured["before"]), ("after", &measured["after"])] {
        assert_eq!(seen["ready"], true, "{when}: not all came within 20 s: {seen}");
        assert_eq!(list(seen, "/tiles").len(), 5, "{when}");
        assert_eq!(seen["wrong_tiles"], json!([]), "{when}: wrong colours");
        assert_eq!(seen["still_tiles"], json!([]), "{when}: pictures that do not move");
        assert_hears(&seen["sound"], when, 40.0);
    }
    assert_eq!(
        measured["before"]["participants"], measured["after"]["participants"],
        "the participants did not change"
    );
    let restarted = list(&measured, "/inputs").iter().filter(|input| input["reconnects"] == 1).count();
    assert_eq!(restarted, 1, "{}", measured["inputs"]);
    drop(encoder);
    server.stop();
}

/// Waits until `look` succeeds; panics with its latest error.
pub(crate) fn until<T>(what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let mut seen = String::new();
    for _ in 0..200 {
        match look() {
            Ok(found) => return found,
            Err(instead) => seen = instead,
        }
        thread::park_timeout(Duration::from_millis(100));
    }
    panic!("{what}: {seen}");
}

#[test]
fn a_whep_input_shows_the_stream_of_another_server() {
    let _turn = turn();
    let allowed = ["--set", "inputs.allow_private=true"];
    // Inputs alone keep a room only if it is permanent.
    let create = |server: &Server, room: &str| {
        let body = json!({"name": room}).to_string();
        let url = format!("{}/v1/rooms", server.url());
        assert_eq!(request("POST", &url, &[("content-type", "application/json")], &body).status, 201);
    };
    let there = Server::start();
    let here = Server::start_with(&Settings { arguments: &allowed, ..Settings::default() });
    let media = there.data().join("media");
    fs::create_dir_all(&media).expect("room for it");
    make(&mut person(1, false, "-t 4.8"), "film.mp4", &media);
    create(&there, "a");
    create(&here, "b");
    add(&there, "a", &json!({"url": "file:film.mp4", "loop": true}));
    let input = add(&here, "b", &json!({"url": format!("whep+{}/whep/a", there.url()), "name": "Elsewhere"}));
    assert_eq!(input["url"].as_str().map(|url| url.starts_with("whep+http://")), Some(true), "{input}");
    let room = format!("{}/v1/rooms/b", here.url());
    until("the picture does not come", || {
        let room = request("GET", &room, &[], "").json();
        let (state, sends) = (&room["inputs"][0]["state"], &room["participants"][0]["sends"]);
        let kinds =
            sends.as_array().map_or(0, |sends| sends.iter().filter(|source| !source["codec"].is_null()).count());
        if state == "live" && kinds == 2 { Ok(()) } else { Err(room.to_string()) }
    });
    let recordings = format!("{room}/recordings");
    let begun = request("POST", &recordings, &[("content-type", "application/json")], "{}").json();
    let recording = format!("{recordings}/{}", begun["id"].as_str().expect("an id"));
    let lasts = |seconds: f64| {
        let recording = request("GET", &recording, &[], "").json();
        if recording["duration"].as_f64() >= Some(seconds) { Ok(recording) } else { Err(recording.to_string()) }
    };
    until("it is not recorded", || lasts(4.0));
    request("DELETE", &recording, &[], "");
    let finished = until("the recording does not end", || {
        let recording = request("GET", &recording, &[], "").json();
        if recording["state"] == "finished" { Ok(recording) } else { Err(recording.to_string()) }
    });
    let file = here.data().join("recordings").join(finished["files"][0].as_str().expect("a file"));
    let read = |arguments: &[&str]| {
        let mut command = Command::new("ffmpeg");
        let output =
            command.args(["-nostdin", "-ss", "2", "-i"]).arg(&file).args(arguments).output().expect("installed");
        (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (pixel, _) = read(&["-frames:v", "1", "-vf", "scale=1:1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    let [red, green, blue] = pixel[..] else { panic!("no picture: {pixel:?}") };
    assert!(green > red.saturating_add(50) && green > blue.saturating_add(50), "not its colour: {pixel:?}");
    let (_, loudness) = read(&["-af", "bandpass=f=451:width_type=h:w=40,volumedetect", "-f", "null", "-"]);
    let mean = loudness.split("mean_volume: ").nth(1).and_then(|rest| rest.split(' ').next());
    let mean: f64 = mean.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no sound: {loudness}"));
    assert!(mean > -40.0, "the tone has only {mean} dB");
    here.stop();
    there.stop();
}

#[test]
fn with_a_key_an_rtmp_encoder_needs_a_token() {
    let key = "0123456789abcdef0123456789abcdef";
    let port = tcp_port();
    let rtmp = port.to_string();
    let server = Server::start_with(&Settings {
        arguments: &["--rtmp-port", &rtmp],
        environment: &[("COMMINGLE_AUTH_KEY", key)],
        ..Settings::default()
    });
    let token = |role: &str| {
        let made = commingle().args(["token", "--room", "r", "--role", role]).env("COMMINGLE_AUTH_KEY", key).output();
        String::from_utf8(made.expect("it was built").stdout).expect("text").trim().to_owned()
    };
    let moderator = format!("Bearer {}", token("moderator"));
    let inputs = || {
        let url = format!("{}/v1/rooms/r/inputs", server.url());
        let reply = request("GET", &url, &[("authorization", &moderator)], "");
        if reply.status == 404 { Vec::new() } else { reply.json().as_array().expect("a list").clone() }
    };
    let push = |stream: &str, seconds: &str| {
        let url = format!("rtmp://127.0.0.1:{port}/{stream}");
        let mut command = person(1, true, seconds);
        command.args(["-f", "flv", &url]).stderr(Stdio::null()).status().expect("ffmpeg is installed").success()
    };
    let (viewer, good) = (token("viewer"), token("participant"));
    for refused in
        ["live/r", "live/r?token=nonsense", &format!("live/r?token={viewer}"), &format!("film/r?token={good}")]
    {
        assert!(!push(refused, "-t 3"), "{refused} was accepted");
        assert!(inputs().is_empty(), "{refused} was accepted");
    }
    assert!(push(&format!("live/r?token={good}&name=Stage"), "-t 3"), "an encoder with a token is accepted");
    let mut last = inputs();
    for _ in 0..40 {
        if last.first().is_some_and(|input| input["state"] == "finished") {
            break;
        }
        thread::park_timeout(Duration::from_millis(100));
        last = inputs();
    }
    assert_eq!(
        (last.len(), last[0]["name"].as_str(), last[0]["state"].as_str()),
        (1, Some("Stage"), Some("finished")),
        "{last:?}"
    );
    server.stop();
}
