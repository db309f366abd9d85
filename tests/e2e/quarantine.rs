//! A participant whose stream crashes decoders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::get;
use crate::scenario::{list, number};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// The plugins that the room needs; AV1 is decoded by a plugin of this test.
const PLUGINS: [&str; 5] = ["app", "coreelements", "vpx", "x264", "openh264"];
/// Longest gap of the others' video: the mixer is started again after a rest of half a second, and needs another
/// second until every sender has sent a keyframe and every receiver has a picture.
const GAP_MS: f64 = 2_500.0;
/// Number and interval of checks.
const TRIES: usize = 300;
const TRY_EVERY: Duration = Duration::from_millis(100);

/// The output of a program that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder of plugins, in which AV1 is decoded by one that aborts.
fn plugins(folder: &Path) -> PathBuf {
    let plugins = folder.join("plugins");
    fs::create_dir(&plugins).expect("made");
    let system = run(Command::new("pkg-config").args(["--variable=pluginsdir", "gstreamer-1.0"]));
    for name in PLUGINS {
        let file = format!("libgst{name}.so");
        symlink(Path::new(system.trim()).join(&file), plugins.join(&file)).expect("linked");
    }
    let flags = run(Command::new("pkg-config").args(["--cflags", "--libs", "gstreamer-1.0"]));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/decoder_that_aborts.c");
    let library = plugins.join("libgstaborts.so");
    run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).args(flags.split_whitespace()));
    plugins
}

fn wait_until(what: &str, server: &Server, mut done: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if done() {
            return;
        }
        std::thread::park_timeout(TRY_EVERY);
    }
    panic!("not in time: {what}; {}", server.log());
}

fn participants(server: &Server) -> Vec<Value> {
    let room = get(&format!("{}/v1/rooms/crowd", server.url()));
    if room.status == 404 { Vec::new() } else { list(&room.json(), "/participants").to_vec() }
}

#[test]
fn a_participant_whose_stream_crashes_decoders_is_isolated_and_the_others_go_on() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let clip = folder.path().join("evil.ivf");
    run(Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=160x90:r=10:d=2"])
        .args(["-pix_fmt", "yuv420p", "-c:v", "libaom-av1", "-cpu-used", "8", "-g", "5", "-lag-in-frames", "0"])
        .arg(&clip));
    let plugins = plugins(folder.path());
    let registry = folder.path().join("registry.bin");
    let environment = [
        ("GST_PLUGIN_SYSTEM_PATH_1_0", plugins.to_str().expect("UTF-8")),
        ("GST_REGISTRY_1_0", registry.to_str().expect("UTF-8")),
    ];
    // Looks for the plugins once, so that no mixer has to.
    let _advice = commingle().args(["doctor", "--set", "http.bind=127.0.0.1:0"]).envs(environment).output();
    let server = Server::start_with(&Settings { environment: &environment, ..Settings::default() });
    let bots = |arguments: &[&str]| {
        let mut command = commingle();
        command.args(["bots", "--url", &server.url(), "--room", "crowd", "--json", "--camera", "320x180@15"]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let others = bots(&["--participants", "3", "--seconds", "600"]);
    wait_until("three participants", &server, || participants(&server).len() == 3);
    std::thread::park_timeout(Duration::from_secs(3));
    let mixers = server.mixers();
    let evil = bots(&["--publishers", "1", "--clip", clip.to_str().expect("UTF-8"), "--seconds", "600"]);
    let is_quarantined = || {
        let all = participants(&server);
        let sources = all.iter().flat_map(|participant| list(participant, "/sends"));
        sources.filter(|source| source["quarantined"] == json!("mixer_died")).count()
    };
    wait_until("the quarantine", &server, || is_quarantined() > 0);
    // The mixer that is started now remains.
    wait_until("a mixer", &server, || server.mixers().len() == 1);
    let last = server.mixers();
    std::thread::park_timeout(Duration::from_secs(5));
    assert_eq!(server.mixers(), last, "the mixer lives on");
    assert_ne!(last, mixers);
    assert_eq!(is_quarantined(), 1, "no other source is isolated");
    assert_eq!(participants(&server).len(), 4, "nobody is removed");
    let metrics = get(&format!("{}/metrics", server.url())).body;
    for line in ["commingle_sources_quarantined_total 1", "commingle_mixer_restarts_total 2"] {
        assert!(metrics.lines().any(|other| other == line), "no {line} in\n{metrics}");
    }
    for bots in [&others, &evil] {
        kill_process(Pid::from_child(bots), Signal::INT).expect("it runs");
    }
    let output = others.wait_with_output().expect("it is ours");
    let _ended = evil.wait_with_output();
    let measured: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    println!("{}", json!({ "groups": measured["groups"] }));
    let [group] = list(&measured, "/groups") else { panic!("one group: {measured}") };
    assert_eq!(group["stayed"], 3, "{group}");
    assert!(number(group, "/video_gap_ms") < GAP_MS, "the video of a participant froze: {group}");
    server.stop();
}
