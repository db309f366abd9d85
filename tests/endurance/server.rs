//! The server under test, and its bots.
//!
//! Owns: the child processes, which end when their owners are dropped. Does not know: what is tested.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::{Reply, get};
use crate::processes::{Usage, counts, growth, usages};

/// Interval at which conditions are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Limits that a test on one machine reaches, since all its clients have one address.
const LIMITS: [&str; 4] = ["joins_per_second", "joins_burst", "pending_per_address", "pending_total"];

pub(crate) struct Server {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) media: SocketAddr,
    data: tempfile::TempDir,
}

fn commingle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commingle"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COMMINGLE_")) {
        command.env_remove(name);
    }
    command
}

impl Server {
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().expect("the temporary folder can be written");
        let log = File::create(data.path().join("log")).expect("can be written");
        let mut child = commingle()
            .args(["serve", "--http", "127.0.0.1:0", "--media-port", "0", "--no-turn"])
            .args(LIMITS.iter().flat_map(|limit| ["--set".to_owned(), format!("limits.{limit}=100000")]))
            .args(["--set", "rooms.linger_seconds=0", "--data-dir"])
            .arg(data.path())
            .env("COMMINGLE_LOG", "warn,rtc=error,webrtc=error")
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary was built with this test");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.starts_with("ready ")).expect("`ready http=ADDR media=ADDR`");
        thread::spawn(move || lines.for_each(drop));
        let value = |key: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {key} in {ready}"))
        };
        Self { child, http: value("http="), media: value("media="), data }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The last lines of the log.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub(crate) fn usages(&self) -> Vec<Usage> {
        usages(self.child.id())
    }

    /// Asserts that the same process still serves.
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("it is ours");
        assert!(ended.is_none(), "the server has ended: {ended:?}\n{}", self.log());
        assert_eq!(get(&format!("{}/healthz", self.url())).status, 200);
    }

    /// Waits until the server uses no more processes, descriptors and threads than before.
    pub(crate) fn assert_settles(&self, before: &[Usage], within: Duration) {
        let before = counts(before);
        let mut grown = Vec::new();
        let settled = wait_until(within, || {
            grown = growth(&before, &counts(&self.usages()));
            grown.is_empty()
        });
        assert!(settled, "not as before after {within:?}: {grown:#?}\n{}", self.log());
    }

    /// Starts bots in a room. They join at `url`, which is this server or a way to it.
    pub(crate) fn bots(&self, url: &str, room: &str, arguments: &[&str]) -> Bots {
        let child = commingle()
            .args(["bots", "--url", url, "--room", room, "--camera", "320x180@15", "--rate", "50", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was built with this test");
        Bots(Some(child))
    }

    /// Sends SIGTERM and asserts exit code 0.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let mut status = None;
        wait_until(Duration::from_secs(20), || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0), "after SIGTERM: {status:?}\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("log of the server:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bots of one room, which leave when this is dropped.
pub(crate) struct Bots(Option<Child>);

impl Bots {
    /// Waits until the bots have left, and returns their report.
    pub(crate) fn report(mut self) -> Value {
        let output = self.0.take().expect("reported once").wait_with_output().expect("it is ours");
        Self::read(&output)
    }

    /// Ends the call, and returns the report.
    pub(crate) fn leave(self) -> Value {
        if let Some(child) = &self.0 {
            kill_process(Pid::from_child(child), Signal::INT).expect("it runs");
        }
        self.report()
    }

    fn read(output: &Output) -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no report ({error}): {output:?}"))
    }
}

impl Drop for Bots {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a time.
pub(crate) fn wait(duration: Duration) {
    // Nothing is ever sent.
    let (_open, never) = sync_channel::<()>(0);
    let _ = never.recv_timeout(duration);
}

/// Waits until a condition holds; false if it does not within this time.
pub(crate) fn wait_until(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = deadline(within);
    loop {
        if holds() {
            return true;
        }
        if is_over(until) {
            return false;
        }
        wait(CHECK_INTERVAL);
    }
}

/// The time after this duration.
#[expect(clippy::disallowed_methods, reason = "tests of a running server follow the clock")]
pub(crate) fn deadline(within: Duration) -> Instant {
    Instant::now() + within
}

/// Whether a time has come.
pub(crate) fn is_over(deadline: Instant) -> bool {
    deadline <= self::deadline(Duration::ZERO)
}

/// The number of participants of a room.
pub(crate) fn people(server: &Server, room: &str) -> usize {
    let Reply { status, body, .. } = get(&format!("{}/v1/rooms/{room}", server.url()));
    let document: Value = if status == 200 { serde_json::from_str(&body).unwrap_or_default() } else { Value::Null };
    document["participants"].as_array().map_or(0, Vec::len)
}
