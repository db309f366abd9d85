//! The sandbox of the child processes of a server, as the kernel shows it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use serde_json::json;

use crate::http::request;
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// Time limit for a process to be in its sandbox, in steps of [`STEP`].
const STEPS: usize = 200;
const STEP: Duration = Duration::from_millis(50);

/// The fields of the status (proc(5)) of each thread of a process; empty once it has ended.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let fields = |status: String| {
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    };
    statuses.map(fields).collect()
}

/// Whether a thread is in the sandbox: three filters of system calls, no new privileges, no capabilities but, as root
/// with a folder of the operator, the one to open files of all users.
fn is_confined(thread: &BTreeMap<String, String>, has_folder: bool) -> bool {
    let root = rustix::process::geteuid().is_root();
    let capabilities = if root && has_folder { "0000000000000002" } else { "0000000000000000" };
    let user = if root && !has_folder { 65_534 } else { rustix::process::geteuid().as_raw() };
    [
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("Seccomp_filters", "3".to_owned()),
        ("CapEff", capabilities.to_owned()),
        ("CapPrm", capabilities.to_owned()),
        ("CapInh", "0000000000000000".to_owned()),
        ("Uid", format!("{user}\t{user}\t{user}\t{user}")),
    ]
    .into_iter()
    .all(|(name, value)| thread.get(name) == Some(&value))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..STEPS {
        if done() {
            return;
        }
        std::thread::park_timeout(STEP);
    }
    panic!("not in time: {what}");
}

#[test]
fn every_thread_of_mixers_recordings_broadcasts_and_inputs_is_in_the_sandbox() {
    let _turn = turn();
    let rtmp = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let port = rtmp.to_string();
    let arguments = ["--rtmp-port", &port, "--set", "inputs.allow_private=true", "--set", "outputs.allow_private=true"];
    let server = Server::start_with(&Settings { arguments: &arguments, ..Settings::default() });
    let media = server.data().join("media");
    fs::create_dir_all(&media).expect("room for it");
    let ffmpeg = || {
        let mut ffmpeg = Command::new("ffmpeg");
        let picture = ["-f", "lavfi", "-i", "color=c=red:s=320x180:r=10"];
        ffmpeg.args(["-nostdin", "-v", "error", "-re"]).args(picture).args(["-c:v", "libx264", "-g", "10"]);
        ffmpeg.stdin(Stdio::null()).stdout(Stdio::null());
        ffmpeg
    };
    let film = ffmpeg().args(["-t", "1"]).arg(media.join("film.mp4")).status();
    assert!(film.is_ok_and(|status| status.success()), "`make test` installs ffmpeg");
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = silent.local_addr().expect("bound");
    let url = format!("{}/v1/rooms/sandbox", server.url());
    for (what, body) in [
        ("inputs", json!({"url": "file:film.mp4", "loop": true})),
        ("inputs", json!({"url": format!("rtsp://{address}/cam")})),
        ("recordings", json!({})),
        ("broadcasts", json!({"kind": "hls"})),
        ("broadcasts", json!({"url": format!("rtmp://{address}/live/key")})),
    ] {
        let json = [("content-type", "application/json")];
        let reply = request("POST", &format!("{url}/{what}"), &json, &body.to_string());
        assert_eq!(reply.status, 201, "{what}: {body}: {reply:?}");
    }
    let target = format!("rtmp://127.0.0.1:{rtmp}/live/sandbox");
    let mut encoder = ffmpeg().args(["-f", "flv", &target]).spawn().expect("it starts");

    // With a folder of the operator, and without.
    let expected = [("mixer", 0, 1), ("output", 1, 2), ("input", 1, 2)];
    for (role, folders, others) in expected {
        wait_until(&format!("each {role} in its sandbox"), || {
            let counts = [true, false].map(|has_folder| {
                let processes =
                    server.processes(role).into_iter().map(|pid| threads(pid.as_raw_nonzero().get() as u32));
                processes.filter(|all| all.len() > 1 && all.iter().all(|one| is_confined(one, has_folder))).count()
            });
            if rustix::process::geteuid().is_root() {
                counts == [folders, others]
            } else {
                counts[0] == folders + others
            }
        });
    }
    let limits = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    for role in ["mixer", "output", "input"] {
        for pid in server.processes(role) {
            let line = limits(&pid).lines().find(|line| line.starts_with("Max core file size")).map(str::to_owned);
            let words = line.expect("proc(5) has it").split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" ");
            assert_eq!(words, "0 0", "{role}");
        }
    }
    let _ = encoder.kill();
    let _ = encoder.wait();
    assert!(!server.log().contains("sandbox without"), "{}", server.log());
    server.stop();
}

#[test]
fn a_child_process_closes_descriptors_that_it_inherits() {
    let (_link, theirs) = UnixStream::pair().expect("sockets");
    for role in ["mixer", "output", "input"] {
        let program = commingle().get_program().to_owned();
        let script = "exec \"$0\" \"$1\" 7</etc/passwd 8</etc/hostname 9>/dev/full";
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(program)
            .arg(role)
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().expect("a second handle"))))
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        wait_until(role, || {
            threads(child.id()).iter().any(|thread| thread.get("Seccomp").is_some_and(|mode| mode == "2"))
        });
        let open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", child.id()))
            .expect("it runs")
            .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
            .collect();
        let inherited =
            open.iter().filter(|path| ["/etc/passwd", "/etc/hostname", "/dev/full"].contains(&path.as_str()));
        assert_eq!(inherited.count(), 0, "{role}: {open:?}");
        let _ = child.kill();
        let _ = child.wait();
    }
}
