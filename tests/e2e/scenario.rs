//! Runs a scenario of `scenario.mjs` against a server and returns its measurements.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::server::command_in;

/// Time limit between two lines of output.
const LINE_WITHIN: Duration = Duration::from_secs(180);

/// The folder of the repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of screenshots: `e2e` in Cargo's target folder.
pub(crate) fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("e2e")
}

/// Asserts that a file exists; the message names the command that installs it.
pub(crate) fn require(path: &Path) {
    assert!(path.exists(), "{} is missing: run `make test`, or `scripts/setup.sh test` once", path.display());
}

/// Runs a scenario that sends no requests to the test.
pub(crate) fn play(url: &str, name: &str, arguments: &[&str]) -> Value {
    play_with(url, name, arguments, |what| panic!("scenario {name} sent the unexpected request `{what}`"))
}

/// Runs a scenario; `answer` executes its requests and returns one line each.
pub(crate) fn play_with(url: &str, name: &str, arguments: &[&str], answer: impl FnMut(&str) -> String) -> Value {
    play_by(Command::new("node"), url, name, arguments, answer)
}

/// Runs a scenario in a network namespace.
pub(crate) fn play_in(
    namespace: &str,
    url: &str,
    name: &str,
    arguments: &[&str],
    answer: impl FnMut(&str) -> String,
) -> Value {
    play_by(command_in(namespace, "node"), url, name, arguments, answer)
}

fn play_by(
    mut command: Command,
    url: &str,
    name: &str,
    arguments: &[&str],
    answer: impl FnMut(&str) -> String,
) -> Value {
    require(&repository().join("tests/e2e/node_modules/.installed"));
    command
        .arg(repository().join("tests/e2e/scenario.mjs"))
        .args([name, "--url", url, "--out"])
        .arg(pictures())
        .args(arguments);
    let measured = converse(command, name, answer);
    println!("{name} {}: {measured}", arguments.join(" "));
    measured
}

/// Runs a program that prints lines: `> WHAT` is a request, answered on its standard input; any other line is JSON. The
/// last line is the result.
pub(crate) fn converse(mut command: Command, name: &str, mut answer: impl FnMut(&str) -> String) -> Value {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs what the tests need"));
    let complaints = read_all(child.stderr.take().expect("piped"));
    let (send, lines) = sync_channel(16);
    let output = BufReader::new(child.stdout.take().expect("piped"));
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let running = Running(child);
    let mut input = running.input();

    let mut last = None;
    loop {
        match lines.recv_timeout(LINE_WITHIN) {
            Ok(line) => match line.strip_prefix("> ") {
                Some(what) => writeln!(input, "{}", answer(what)).expect("the scenario waits for it"),
                None => last = Some(line),
            },
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{name} printed nothing for {LINE_WITHIN:?}"),
        }
    }
    drop(input);
    let succeeded = running.finish();
    let complaints = complaints.join().expect("only reads");
    assert!(succeeded, "{name} failed:\n{complaints}");
    let last = last.unwrap_or_else(|| panic!("{name} printed no measurements:\n{complaints}"));
    serde_json::from_str(&last).unwrap_or_else(|error| panic!("{name} printed `{last}`: {error}\n{complaints}"))
}

/// A child process that is terminated with its browsers when the test fails.
struct Running(Child);

impl Running {
    fn input(&self) -> impl Write + use<> {
        let input = self.0.stdin.as_ref().expect("piped");
        std::fs::File::from(std::os::fd::AsFd::as_fd(input).try_clone_to_owned().expect("descriptors are left"))
    }

    fn finish(mut self) -> bool {
        self.0.wait().expect("it is ours").success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A number of the measurements; a missing one fails the test with its name.
pub(crate) fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} was not measured: {value}"))
}

/// A list of the measurements.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("{pointer} was not measured: {value}"))
}
