//! A server under test: `commingle serve` as a child process on free ports. Failing tests print its log.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Time limit from start to the `ready` line.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Time limit from SIGTERM to exit.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Clock ticks per second in proc(5).
const USER_HZ: f64 = 100.0;
/// Log lines that are kept.
const LOG_LINES: usize = 400;

/// The log filter of servers; it includes tier changes with their reasons.
const LOG: &str = "info,rtc=error,webrtc=error,commingle::tier=debug";

/// The binary without the `COMMINGLE_…` variables of the environment.
pub(crate) fn commingle() -> Command {
    cleaned(Command::new(env!("CARGO_BIN_EXE_commingle")))
}

/// The same in a network namespace.
fn commingle_in(namespace: &str) -> Command {
    cleaned(command_in(namespace, env!("CARGO_BIN_EXE_commingle")))
}

/// A program in a network namespace, as a direct child process.
pub(crate) fn command_in(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

fn cleaned(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COMMINGLE_")) {
        command.env_remove(name);
    }
    command.env("COMMINGLE_LOG", LOG);
    command
}

/// Settings of a server, besides free ports on loopback.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    /// The address of HTTP; None for a free port of loopback.
    pub(crate) http: Option<SocketAddr>,
    /// The network namespace of the server; None for the namespace of the test.
    pub(crate) namespace: Option<&'a str>,
    /// Whether TURN runs, on a free port.
    pub(crate) turn: bool,
    /// Whether HTTPS is used, with a self-signed certificate.
    pub(crate) https: bool,
    /// More arguments.
    pub(crate) arguments: &'a [&'a str],
    /// More environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// The data folder; None for a temporary one.
    pub(crate) data: Option<&'a Path>,
}

pub(crate) struct Server {
    child: Child,
    /// The bound address of HTTP.
    pub(crate) http: SocketAddr,
    /// The media port.
    pub(crate) media: SocketAddr,
    https: bool,
    log: Arc<Mutex<VecDeque<String>>>,
    stopped: bool,
    data: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&Settings::default())
    }

    pub(crate) fn start_with(settings: &Settings<'_>) -> Self {
        let data = tempfile::tempdir().expect("the temporary folder can be written");
        let http = settings.http.unwrap_or_else(|| "127.0.0.1:0".parse().expect("an address"));
        let mut child = settings
            .namespace
            .map_or_else(commingle, commingle_in)
            .args(["serve", "--http", &http.to_string(), "--media-port", "0"])
            .args(if settings.turn { &["--turn-port", "0"][..] } else { &["--no-turn"] })
            .args(if settings.https { &["--tls", "self-signed"][..] } else { &[] })
            .arg("--data-dir")
            .arg(settings.data.unwrap_or_else(|| data.path()))
            .args(settings.arguments)
            .envs(settings.environment.iter().copied())
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with this test");
        let log = keep_log(child.stderr.take().expect("piped"));
        let ready = ready_line(child.stdout.take().expect("piped"));
        let Ok((http, media)) = ready.recv_timeout(READY_WITHIN) else {
            let _ = child.kill();
            let status = child.wait();
            panic!("no `ready http=ADDR media=ADDR` within {READY_WITHIN:?} ({status:?}); log:\n{}", text_of(&log));
        };
        Self { child, http, media, https: settings.https, log, stopped: false, data }
    }

    /// Kills this server with SIGKILL and starts another at the same HTTP address.
    pub(crate) fn crash_and_restart(&mut self) {
        self.crash();
        *self = Self::start_with(&Settings { http: Some(self.http), ..Settings::default() });
    }

    /// Kills this server with SIGKILL.
    pub(crate) fn crash(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
        self.stopped = true;
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it runs");
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.http)
    }

    pub(crate) fn log(&self) -> String {
        text_of(&self.log)
    }

    /// The mixer processes of this server.
    pub(crate) fn mixers(&self) -> Vec<Pid> {
        self.processes("mixer")
    }

    /// The child processes of this server with this role.
    pub(crate) fn processes(&self, role: &str) -> Vec<Pid> {
        children_of(self.child.id())
            .into_iter()
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).any(|argument| argument == role.as_bytes())
            })
            .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
            .collect()
    }

    /// Sends a signal to the mixer process; there must be exactly one.
    pub(crate) fn signal_mixer(&self, signal: Signal) {
        let mixers = self.mixers();
        let [mixer] = mixers.as_slice() else { panic!("one room needs one mixer process, there are {mixers:?}") };
        kill_process(*mixer, signal).expect("it is ours and runs");
    }

    /// The open file descriptors of the serving process.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// The number of its child processes and their descendants.
    pub(crate) fn descendants(&self) -> usize {
        children_of(self.child.id()).len()
    }

    /// CPU seconds used so far by the server and its child processes.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        tree_cpu_seconds(self.child.id())
    }

    /// The peak resident memory of the serving process, in MiB.
    pub(crate) fn memory_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5) has it");
        let kib: f64 = peak.trim().trim_end_matches(" kB").trim().parse().expect("a number");
        kib / 1024.0
    }

    /// The CPU cores that the server and its child processes use during `watched`.
    pub(crate) fn cpu_share(&self, watched: Duration) -> f64 {
        let before = self.cpu_seconds();
        // Nothing is ever sent: this waits while the CPU use is measured.
        let (_open, never) = sync_channel::<()>(0);
        let _ = never.recv_timeout(watched);
        (self.cpu_seconds() - before) / watched.as_secs_f64()
    }

    /// Sends SIGTERM and asserts exit code 0.
    pub(crate) fn stop(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it runs");
        self.stopped = true;
        let status = self.wait(STOP_WITHIN);
        assert_eq!(status.and_then(|status| status.code()), Some(0), "after SIGTERM: {status:?}; log:\n{}", self.log());
    }

    /// The exit status; None if it did not exit in time and was killed.
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        // Waits without reaping the process, so that its id stays valid until `wait` below.
        let pid = Pid::from_child(&self.child);
        let (done, ended) = sync_channel(1);
        thread::spawn(move || {
            let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
            let _ = rustix::process::waitid(rustix::process::WaitId::Pid(pid), options);
            let _ = done.send(());
        });
        let in_time = ended.recv_timeout(limit).is_ok();
        if !in_time {
            self.child.kill().expect("it is not reaped yet");
        }
        let status = self.child.wait().expect("it is ours");
        in_time.then_some(status)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("log of the server (data in {}):\n{}", self.data.path().display(), self.log());
        }
    }
}

/// Keeps the latest lines of a stream.
fn keep_log(stream: impl Read + Send + 'static) -> Arc<Mutex<VecDeque<String>>> {
    let log = Arc::new(Mutex::new(VecDeque::new()));
    let kept = Arc::clone(&log);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut lines = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LOG_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    });
    log
}

fn text_of(log: &Mutex<VecDeque<String>>) -> String {
    let lines = log.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

/// Reads standard output to its end and returns the addresses of the `ready` line.
fn ready_line(stream: impl Read + Send + 'static) -> Receiver<(SocketAddr, SocketAddr)> {
    let (send, receive) = sync_channel(1);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(addresses) = addresses_in(&line) {
                let _ = send.try_send(addresses);
            }
        }
    });
    receive
}

/// `ready http=ADDR media=ADDR …`
fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.strip_prefix("ready ")?;
    let value = |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key))?.parse().ok();
    Some((value("http=")?, value("media=")?))
}

/// All descendants of a process.
fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let direct: Vec<u32> = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
        .collect();
    direct.iter().copied().chain(direct.iter().flat_map(|child| children_of(*child))).collect()
}

/// User and system time of a process and its descendants, in seconds.
pub(crate) fn tree_cpu_seconds(pid: u32) -> f64 {
    std::iter::once(pid).chain(children_of(pid)).map(cpu_seconds).sum()
}

/// User and system time of a process, in seconds; zero if it has exited.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15 of proc(5), counted after the name, which may contain spaces.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / USER_HZ
}
