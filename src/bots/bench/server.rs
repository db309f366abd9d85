//! A server for the benchmark: started from this program on free loopback ports, measured, and stopped.
//!
//! Owns: the process and its CPU figures. Does not know: what it serves. It is a process of its own, so that its CPU is
//! not counted with the bots'; its `ready` line has its address.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::ServerCpu;

/// Longest time from the start to the `ready` line.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Longest time from SIGTERM to the end.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Clock ticks per second in proc(5).
const USER_HZ: f64 = 100.0;
/// Limits above the defaults: all bots join from one address.
const SETTINGS: [&str; 4] = [
    "limits.joins_per_second=1000",
    "limits.joins_burst=2000",
    "limits.pending_per_address=2000",
    "rooms.max_participants=2000",
];

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The process could not be spawned.
    #[error("the server cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// It ended, or did not become ready.
    #[error("the server did not say that it was ready: `commingle doctor` may know why")]
    NotReady,
}

pub(super) struct Server {
    child: Child,
    pid: Pid,
    http: String,
    /// Kept open: a server that cannot write to it would end.
    _output: BufReader<ChildStdout>,
    /// The data folder, removed when dropped.
    data: std::path::PathBuf,
}

impl Server {
    pub(super) async fn start(program: &Path) -> Result<Self, ServerError> {
        let data = std::env::temp_dir().join(format!("commingle-bench-{:08x}", rand::random::<u32>()));
        let mut command = Command::new(program);
        command.args(["serve", "--http", "127.0.0.1:0", "--media-port", "0", "--media-bind", "127.0.0.1", "--no-turn"]);
        command.arg("--data-dir").arg(&data);
        for setting in SETTINGS {
            command.args(["--set", setting]);
        }
        // Bots have no token, and loopback needs none: a key of the operator's is for another server.
        let own = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COMMINGLE_"));
        for (name, _) in own {
            command.env_remove(name);
        }
        command
            .env("COMMINGLE_LOG", "warn,rtc=error,webrtc=error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or(ServerError::NotReady)?;
        let mut output = BufReader::new(child.stdout.take().ok_or(ServerError::NotReady)?);
        let mut line = String::new();
        let ready = timeout(READY_WITHIN, output.read_line(&mut line)).await;
        let http = ready.is_ok().then(|| http_in(&line)).flatten().ok_or(ServerError::NotReady)?;
        Ok(Self { child, pid, http, _output: output, data })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// CPU used so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.pid.as_raw_nonzero().get(), &processes())
    }

    /// Stops it by SIGTERM; kills it if it hangs.
    pub(super) async fn stop(mut self) {
        let _ = kill_process(self.pid, Signal::TERM);
        if timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            tracing::warn!("the server does not end: it is killed");
            let _ = self.child.kill().await;
        }
        // It is there only if something was recorded.
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// CPU seconds of the server's processes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Usage {
    edge: f64,
    /// By process: mixers of ended rooms exit at any time.
    mixers: BTreeMap<i32, f64>,
}

impl Usage {
    fn of(edge: i32, processes: &BTreeMap<i32, Process>) -> Self {
        // The edge's only children are mixers.
        let mixers = processes.iter().filter(|(_, process)| process.parent == edge);
        Self {
            edge: processes.get(&edge).map_or(0.0, |process| process.seconds),
            mixers: mixers.map(|(pid, process)| (*pid, process.seconds)).collect(),
        }
    }

    /// CPU used since an earlier usage, in cores.
    pub(super) fn since(&self, before: &Self, passed: Duration) -> ServerCpu {
        let used = self.mixers.iter().map(|(pid, now)| now - before.mixers.get(pid).copied().unwrap_or_default());
        let seconds = passed.as_secs_f64().max(f64::MIN_POSITIVE);
        ServerCpu { edge: (self.edge - before.edge) / seconds, mixer: used.sum::<f64>() / seconds }
    }
}

/// `ready http=127.0.0.1:8080 media=…`
fn http_in(line: &str) -> Option<String> {
    let rest = line.strip_prefix("ready ")?;
    rest.split_whitespace().find_map(|word| word.strip_prefix("http=")).map(str::to_owned)
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Process {
    parent: i32,
    seconds: f64,
}

/// All visible processes of the machine.
fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, process(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// Fields 4, 14 and 15 of proc_pid_stat(5), counted after the name, which may contain spaces.
fn process(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Process { parent: fields.get(1)?.parse().ok()?, seconds: (ticks(11)? + ticks(12)?) / USER_HZ })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read() {
        assert_eq!(http_in("ready http=127.0.0.1:4711 media=0.0.0.0:9 open=x\n").as_deref(), Some("127.0.0.1:4711"));
        assert_eq!(http_in("http=127.0.0.1:4711"), None);
        assert_eq!(http_in(""), None);
    }

    #[test]
    fn mixers_that_end_and_begin_are_reckoned_by_themselves() {
        let at = |processes: &[(i32, i32, f64)]| {
            let processes = processes.iter().map(|&(pid, parent, seconds)| (pid, Process { parent, seconds }));
            Usage::of(10, &processes.collect())
        };
        let before = at(&[(1, 0, 99.0), (10, 1, 5.0), (11, 10, 30.0), (12, 10, 1.0)]);
        let after = at(&[(1, 0, 100.0), (10, 1, 6.0), (12, 10, 2.0), (13, 10, 0.5), (14, 12, 7.0)]);
        assert_eq!(after.since(&before, Duration::from_secs(2)), ServerCpu { edge: 0.5, mixer: 0.75 });
    }

    #[test]
    fn processes_are_read_whatever_their_names() {
        let stat = "42 (a ) b) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(process(stat), Some(Process { parent: 7, seconds: 2.0 }));
        assert_eq!(process("42 (short) S"), None);
        assert!(processes().contains_key(&std::process::id().cast_signed()));
    }
}
