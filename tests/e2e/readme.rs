//! The commands of README.md, as they stand there, on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::http::get;
use crate::scenario::{repository, require};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// The block of commands that contains `text`.
fn recipe(text: &str) -> String {
    let readme = fs::read_to_string(repository().join("README.md")).expect("it is there");
    let blocks = readme.split("\n\n").filter(|block| block.lines().all(|line| line.starts_with("    ")));
    let found: Vec<&str> = blocks.filter(|block| block.contains(text)).collect();
    let [block] = found.as_slice() else { panic!("README.md has {} blocks with `{text}`", found.len()) };
    block.lines().map(|line| &line[4..]).collect::<Vec<_>>().join("\n")
}

/// A shell that is ended with its children when dropped.
struct Shell(Child);

impl Shell {
    fn run(script: &str, folder: &Path) -> Self {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(folder).stdin(Stdio::null()).process_group(0);
        Self(command.spawn().expect("bash is installed"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Waits until somebody in the room `demo` sends audio and video.
fn wait_for_publisher(server: &Server, what: &str) {
    let mut seen = Value::Null;
    for _ in 0..200 {
        let reply = get(&format!("{}/v1/rooms/demo", server.url()));
        seen = if reply.status == 200 { reply.json() } else { Value::Null };
        let sends = |person: &Value| {
            let sources = person["sends"].as_array().map_or(&[][..], Vec::as_slice);
            sources.iter().filter(|source| !source["codec"].is_null()).count() == 2
        };
        if seen["participants"].as_array().is_some_and(|people| people.iter().any(sends)) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("{what} does not publish: {seen}\n{}", server.log());
}

fn wait_until_empty(server: &Server) {
    for _ in 0..200 {
        let reply = get(&format!("{}/v1/rooms/demo", server.url()));
        if reply.status == 404 || reply.json()["participants"].as_array().is_none_or(Vec::is_empty) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("the publisher stays: {}", server.log());
}

#[test]
fn the_commands_of_the_readme_publish_record_and_broadcast() {
    let _turn = turn();
    let python = repository().join("tests/peers/.venv/bin/python");
    require(&python);
    let rtmp =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let port = rtmp.to_string();
    let server = Server::start_with(&Settings { arguments: &["--rtmp-port", &port], ..Settings::default() });
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let clip = "ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=440:r=48000 -t 40 \
        -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac clip.mp4";
    let made = Command::new("bash").args(["-c", clip]).current_dir(folder.path()).status();
    assert!(made.is_ok_and(|status| status.success()), "ffmpeg makes the clip");

    let here = |block: &str| {
        // `make test` has installed the package already.
        let lines: Vec<&str> = block.lines().filter(|line| !line.contains("-m venv")).collect();
        lines
            .join("\n")
            .replace("http://127.0.0.1:8080", &server.url())
            .replace("127.0.0.1:1935", &format!("127.0.0.1:{port}"))
            .replace("~/ffmpeg/bin/python", &python.display().to_string())
            .replace("ffmpeg -re", "ffmpeg -nostdin -v error -re")
    };
    assert!(recipe("-f whip").contains("pip install imageio-ffmpeg"));
    for what in ["-f flv", "flvmux"] {
        let publisher = Shell::run(&here(&recipe(what)), folder.path());
        wait_for_publisher(&server, what);
        drop(publisher);
        wait_until_empty(&server);
    }
    let _publisher = Shell::run(&here(&recipe("-f whip")), folder.path());
    wait_for_publisher(&server, "ffmpeg by WHIP");

    let script = format!("curl() {{ command curl -fsS \"$@\"; echo; }}\n{}", here(&recipe("$R/recordings")));
    let output = Command::new("bash").args(["-euc", &script]).current_dir(folder.path()).output().expect("bash");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    let room = get(&format!("{}/v1/rooms/demo", server.url())).json();
    assert_eq!(room["recordings"][0]["id"], "o1", "{room}");
    assert_eq!(room["broadcasts"].as_array().map(Vec::len), Some(2), "{room}");
    assert_eq!(room["broadcasts"][1]["public"], true, "{room}");
    let fetched = |input: &Value| input["url"].as_str().is_some_and(|url| url.starts_with("https://example.org/"));
    assert!(room["inputs"].as_array().is_some_and(|inputs| inputs.iter().any(fetched)), "{room}");
    server.stop();
}

#[test]
fn the_commands_of_the_readme_make_a_key_and_a_token() {
    let block = recipe("commingle token --room daily");
    let lines: Vec<&str> = block.lines().filter(|line| !line.contains("commingle serve")).collect();
    let program: PathBuf = commingle().get_program().into();
    let script = format!("commingle() {{ {} \"$@\"; }}\n{}", program.display(), lines.join("\n"));
    let output = Command::new("bash").args(["-euc", &script]).output().expect("bash is installed");
    let token = String::from_utf8(output.stdout).expect("text");
    assert_eq!(token.trim().split('.').count(), 3, "{token}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn setup_refuses_a_cargo_that_is_too_old() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("it is there");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("it is set");
    let needed = needed.trim_matches('"');
    let run = |version: &str| {
        let cargo = folder.path().join("cargo");
        fs::write(&cargo, format!("#!/bin/sh\necho 'cargo {version} (0000000 2026-01-01)'\n")).expect("just made");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("just made");
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("it is set"));
        let setup = repository().join("scripts/setup.sh");
        Command::new(setup).arg("run").env("PATH", path).output().expect("bash is installed")
    };
    for old in ["1.63.0", "1.9.0"] {
        let output = run(old);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(old) && error.contains(needed) && error.contains("rustup.rs"), "{error}");
    }
    for good in [format!("{needed}.0"), "1.100.0".to_owned()] {
        let output = run(&good);
        assert!(output.status.success(), "{good}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
