//! The child processes of the serving process (mixers, outputs, inputs): start, link, watchdog, end.
//!
//! Owns: the process, the [`link`] to it and the reader of its messages, the [`watchdog`], which part of the
//! [`environment`] is inherited, and the limit of its memory. Does not know: what the messages mean, who is in the
//! room. In: messages for the process, by [`Link::send`], which never waits. Out: messages of the process and its end,
//! once, by the [`Listener`].

mod ceiling;
mod environment;
mod link;
mod watchdog;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub use self::ceiling::Ceiling;
pub use self::link::{Link, Overflow, ToProcess};
use self::watchdog::{Verdict, Watchdog};
use crate::link::frame::Decoder;
use crate::link::input::{FromInput, ToInput};
use crate::link::output::{FromOutput, ToOutput};
use crate::link::sandbox::Access;
use crate::link::{FromMixer, ToMixer};
use crate::time::now;

/// Most bytes of one write to the link, and of one read.
const BATCH_BYTES: usize = 256 * 1024;
/// Socket buffer of the link in each direction, in bytes.
const SOCKET_BUFFER: usize = 1 << 20;

/// How to start a process.
#[derive(Debug, Clone)]
pub struct ProcessCommand {
    /// The program, normally the running executable.
    pub program: PathBuf,
    /// Its arguments, normally one: the role.
    pub arguments: Vec<String>,
    /// The limits of its memory; None for no limit.
    pub ceiling: Option<Ceiling>,
    /// What it may do besides.
    pub access: Access,
}

impl ProcessCommand {
    /// This program, as a `role`: `mixer`, `output` or `input`, with these limits and without access.
    ///
    /// # Errors
    /// The path of the running executable cannot be read.
    pub fn own(role: &str, ceiling: Ceiling) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            arguments: vec![role.to_owned()],
            ceiling: Some(ceiling),
            access: Access::default(),
        })
    }

    /// The same, with this access.
    pub fn with_access(&self, access: Access) -> Self {
        Self { access, ..self.clone() }
    }
}

/// A message from a process.
pub trait FromProcess: DeserializeOwned + Send {
    /// What the process is, for logs.
    const ROLE: &'static str;

    /// How long one of its loops has been busy with one tick, if the message is a report that contains this.
    fn stalled(&self) -> Duration {
        Duration::ZERO
    }

    /// Within which time the next report comes, if the message is a report that contains this.
    fn next_report(&self) -> Option<Duration> {
        None
    }
}

impl FromProcess for FromMixer {
    const ROLE: &'static str = "mixer";

    fn stalled(&self) -> Duration {
        if let Self::Report(report) = self { report.stalled } else { Duration::ZERO }
    }

    fn next_report(&self) -> Option<Duration> {
        if let Self::Report(report) = self { Some(report.next) } else { None }
    }
}

impl FromProcess for FromOutput {
    const ROLE: &'static str = "output";
}

impl FromProcess for FromInput {
    const ROLE: &'static str = "input";
}

/// Receives the messages of a process. Called by the task that reads the link: must not block.
pub trait Listener: Send + 'static {
    /// A message from the process.
    type Message: FromProcess;

    /// A message came.
    fn message(&mut self, message: Self::Message);
    /// The process is gone; no call follows.
    fn lost(&mut self, loss: &Loss);
}

/// How a process was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The reason, for logs.
    pub why: String,
    /// Another process has ended it by SIGKILL or SIGTERM: it is not to blame, nor is what it did.
    pub was_killed: bool,
}

/// The queue towards a mixer.
pub type MixerLink = Link<ToMixer>;
/// A running mixer.
pub type MixerProcess = Process<ToMixer>;
/// The queue towards an output.
pub type OutputLink = Link<ToOutput>;
/// A running output.
pub type OutputProcess = Process<ToOutput>;
/// A running input.
pub type InputProcess = Process<ToInput>;

/// A running process. Dropping it kills the process.
#[derive(Debug)]
pub struct Process<T> {
    /// The queue of messages to it.
    pub link: Arc<Link<T>>,
    /// Its process id.
    pub pid: u32,
    task: AbortOnDrop,
}

impl<T: ToProcess> Process<T> {
    /// Sends a last message and waits until the process ends; kills it after `patience`. The listener is notified of
    /// the end as usual.
    pub async fn finish(mut self, last: T, patience: Duration) {
        self.link.send(last);
        // The listener was notified when the task ends. An error is a panic, which the runtime reports.
        if tokio::time::timeout(patience, &mut self.task.0).await.is_err() {
            tracing::error!(pid = self.pid, "process did not end in time and is killed");
        }
    }
}

/// A task that owns a child, which is killed and reaped when the task ends.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a process with one end of a socket pair as its standard input.
///
/// # Errors
/// The sockets or the process cannot be created.
pub fn start<T: ToProcess>(command: &ProcessCommand, listener: impl Listener) -> io::Result<Process<T>> {
    start_with(command, Stdio::null(), listener)
}

/// Starts a process as [`start`] does, with this standard output.
///
/// # Errors
/// The sockets or the process cannot be created.
pub fn start_with<T: ToProcess>(
    command: &ProcessCommand,
    output: impl Into<Stdio>,
    listener: impl Listener,
) -> io::Result<Process<T>> {
    let (ours, theirs) = StdUnixStream::pair()?;
    for end in [&ours, &theirs] {
        // Smaller buffers only mean more wake-ups.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, SOCKET_BUFFER);
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(end, SOCKET_BUFFER);
    }
    ours.set_nonblocking(true)?;
    let child = Command::new(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(output)
        .env_clear()
        .envs(environment::inherited(std::env::vars_os()))
        .envs(environment::ALLOCATOR)
        .envs([command.access.variable()])
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().unwrap_or_default();
    if let Some(error) = command.ceiling.and_then(|ceiling| ceiling.apply(pid).err()) {
        tracing::warn!(pid, %error, "cannot limit the memory of a process");
    }
    let (read, write) = UnixStream::from_std(ours)?.into_split();
    let link = Arc::new(Link::to(write));
    let task = AbortOnDrop(tokio::spawn(drive(child, read, link.clone(), listener)));
    Ok(Process { link, pid, task })
}

async fn drive<T: ToProcess>(
    mut child: Child,
    mut read: OwnedReadHalf,
    link: Arc<Link<T>>,
    mut listener: impl Listener,
) {
    let _close = link.close_on_drop();
    let pid = child.id().unwrap_or_default();
    let end = tokio::select! {
        // The last messages are read before the end of the process is reported.
        biased;
        end = listen(pid, &mut read, &mut listener) => end,
        error = link.write() => End::Link(format!("cannot write its link: {error}")),
        () = link.stuck() => End::Fault(LINK_FULL.to_owned()),
    };
    let (why, was_killed) = match end {
        End::Link(why) => (why, is_killed(&mut child).await),
        End::Fault(why) => (why, false),
    };
    // A hung process handles no signal but this one.
    let _ = child.kill().await;
    listener.lost(&Loss { why, was_killed });
}

/// Why nothing more is read from a process.
enum End {
    /// Its link is closed or broken: the process has ended.
    Link(String),
    /// It hangs, or sends what is malformed.
    Fault(String),
}

/// Whether a process that has lost its link was ended by another one.
async fn is_killed(child: &mut Child) -> bool {
    let Ok(Ok(status)) = tokio::time::timeout(EXITS_WITHIN, child.wait()).await else { return false };
    let by = [Signal::KILL, Signal::TERM].map(Signal::as_raw);
    status.signal().is_some_and(|signal| by.contains(&signal))
}

/// A process that has lost its link has ended within this time: no core is written.
const EXITS_WITHIN: Duration = Duration::from_millis(200);

/// Why a process that does not read its link is ended.
const LINK_FULL: &str = "link queue full: process does not read its link";

/// Reads messages until the process is gone or hangs; returns the reason.
async fn listen<L: Listener>(pid: u32, read: &mut OwnedReadHalf, listener: &mut L) -> End {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; BATCH_BYTES];
    let mut watchdog = Watchdog::new(now());
    loop {
        let check_at = match watchdog.judge(now(), || watchdog::threads(pid)) {
            Verdict::Alive(check_at) => check_at,
            Verdict::Hung(why) => return End::Fault(why),
        };
        let length = match tokio::time::timeout(check_at.since(now()), read.read(&mut buffer)).await {
            Err(_) => continue,
            Ok(Err(error)) => return End::Link(format!("cannot read its link: {error}")),
            Ok(Ok(0)) => return End::Link("it closed its link".to_owned()),
            Ok(Ok(length)) => length,
        };
        watchdog.message(now());
        decoder.extend(&buffer[..length]);
        loop {
            let message: L::Message = match decoder.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return End::Fault(format!("malformed message from {}: {error}", L::Message::ROLE)),
            };
            if let Some(why) = Watchdog::stalled(message.stalled()) {
                return End::Fault(why);
            }
            if let Some(within) = message.next_report() {
                watchdog.expect_report(within);
            }
            listener.message(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::link::FromMixer;
    use crate::media::EncodedPacket;

    pub(super) struct Recorder(pub(super) mpsc::Sender<Result<FromMixer, String>>);

    impl Listener for Recorder {
        type Message = FromMixer;

        fn message(&mut self, message: FromMixer) {
            self.0.try_send(Ok(message)).expect("room for a few");
        }
        fn lost(&mut self, loss: &Loss) {
            let Loss { why, was_killed } = loss;
            let why = if *was_killed { format!("{why} (killed)") } else { why.clone() };
            self.0.try_send(Err(why)).expect("room for a few");
        }
    }

    /// The loss of a shell that runs this.
    async fn loss_of(script: &str) -> String {
        let (events, mut received) = mpsc::channel(4);
        let command = ProcessCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            ceiling: None,
            access: Access::default(),
        };
        let _process = start::<ToOutput>(&command, Recorder(events)).expect("starts");
        received.recv().await.expect("reported").expect_err("lost")
    }

    #[tokio::test]
    async fn a_process_that_was_killed_is_distinguished_from_one_that_crashed() {
        for signal in ["KILL", "TERM"] {
            assert!(loss_of(&format!("kill -{signal} $$")).await.ends_with(" (killed)"), "{signal}");
        }
        for crash in ["kill -SEGV $$", "kill -ABRT $$", "exit 101", "exit 0"] {
            assert!(!loss_of(crash).await.ends_with(" (killed)"), "{crash}");
        }
    }

    #[tokio::test]
    async fn an_output_that_reads_nothing_is_ended() {
        let (events, mut received) = mpsc::channel(4);
        let command = ProcessCommand {
            program: "/bin/sleep".into(),
            arguments: vec!["60".into()],
            ceiling: None,
            access: Access::default(),
        };
        let output = start::<ToOutput>(&command, Recorder(events)).expect("starts");
        let payload = Bytes::from(vec![0; 1_000]);
        let packet = EncodedPacket { timestamp: 0, marker: true, starts_keyframe: true, payload };
        // Some go into the socket's buffers before the queue is full.
        for _ in 0..2 * link::OUTPUT_MEDIA_MAX {
            output.link.send(ToOutput::Sound(packet.clone()));
        }
        assert_eq!(received.recv().await.expect("reported").expect_err("lost"), LINK_FULL);
    }

    #[tokio::test]
    async fn a_process_that_ignores_its_last_message_is_killed() {
        let (events, mut received) = mpsc::channel(4);
        let command = ProcessCommand {
            program: "/bin/sleep".into(),
            arguments: vec!["60".into()],
            ceiling: None,
            access: Access::default(),
        };
        let output = start::<ToOutput>(&command, Recorder(events.clone())).expect("starts");
        let pid = rustix::process::Pid::from_raw(output.pid as i32).expect("a pid");
        output.finish(ToOutput::Finish, Duration::from_millis(50)).await;
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let command =
            ProcessCommand { program: "/bin/true".into(), arguments: vec![], ceiling: None, access: Access::default() };
        let output = start::<ToOutput>(&command, Recorder(events)).expect("starts");
        output.finish(ToOutput::Finish, Duration::from_secs(60)).await;
        assert!(received.try_recv().expect("reported before it returns").is_err());
    }

    #[tokio::test]
    async fn a_mixer_that_ends_is_reported_lost_once() {
        let (events, mut received) = mpsc::channel(4);
        let command =
            ProcessCommand { program: "/bin/true".into(), arguments: vec![], ceiling: None, access: Access::default() };
        let _mixer = start::<ToMixer>(&command, Recorder(events)).expect("starts");
        assert!(received.recv().await.expect("reported").is_err());
        assert!(received.recv().await.is_none(), "reported twice");
    }

    #[tokio::test]
    async fn a_mixer_that_sends_a_malformed_message_is_ended() {
        let (events, mut received) = mpsc::channel(4);
        let command = ProcessCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "printf '\\377\\377\\377\\377' >&0; sleep 60".into()],
            ceiling: None,
            access: Access::default(),
        };
        let mixer = start::<ToMixer>(&command, Recorder(events)).expect("starts");
        let why = received.recv().await.expect("reported").expect_err("lost");
        assert!(why.contains("malformed message from mixer"), "{why}");
        let pid = rustix::process::Pid::from_raw(mixer.pid as i32).expect("a pid");
        assert!(rustix::process::test_kill_process(pid).is_err(), "it still runs");
    }
}
