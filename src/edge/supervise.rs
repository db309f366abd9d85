//! Mixer processes: starting one, talking to it, seeing that it is gone.
//!
//! Owns: the process, both directions of its link, the watchdog. Does not know: what the messages mean, who is in the
//! room. Messages for the mixer come in by [`MixerLink::send`], which never waits; what the mixer says leaves through
//! the [`MixerListener`], and its end is told there once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::link::frame::{self, Decoder};
use crate::link::{FromMixer, ToMixer};

/// Packets waiting for the mixer; about half a second of thirty participants. The oldest goes first.
const PACKETS_MAX: usize = 4_096;
/// Most bytes of one write to the link.
const BATCH_BYTES: usize = 256 * 1024;
/// Socket buffer of the link in each direction, in bytes.
const SOCKET_BUFFER: usize = 1 << 20;
/// A mixer speaks four times a second even when idle; silent for this long, it hangs.
pub const HANG: Duration = Duration::from_millis(1_200);
/// Loading codecs may take longer on a cold disk.
const START: Duration = Duration::from_secs(10);

/// How to start a mixer.
#[derive(Debug, Clone)]
pub struct MixerCommand {
    /// The program, normally ourselves.
    pub program: PathBuf,
    /// Its arguments, normally `mixer`.
    pub arguments: Vec<String>,
}

/// Hears what a mixer says. Called from the link's reader: must not wait.
pub trait MixerListener: Send + 'static {
    /// A message.
    fn message(&mut self, message: FromMixer);
    /// The mixer is gone; nothing follows.
    fn lost(&mut self, why: &str);
}

/// The queue towards a mixer.
#[derive(Debug, Default)]
pub struct MixerLink {
    queue: Mutex<Queue>,
    filled: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<ToMixer>,
    packets: usize,
}

impl MixerLink {
    /// Queues a message. Packets are bounded: over the bound the oldest is dropped and counted. The others are whole
    /// values the room sends when something changed; they are few, and never dropped.
    pub fn send(&self, message: ToMixer) {
        let mut queue = self.queue.lock();
        if matches!(message, ToMixer::Packet(..)) {
            if queue.packets >= PACKETS_MAX {
                let oldest = queue.messages.iter().position(|m| matches!(m, ToMixer::Packet(..)));
                oldest.map(|i| queue.messages.remove(i));
                self.dropped.fetch_add(1, Ordering::Relaxed);
            } else {
                queue.packets += 1;
            }
        }
        queue.messages.push_back(message);
        drop(queue);
        self.filled.notify_one();
    }

    /// Packets dropped because the mixer did not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn next_batch(&self, out: &mut Vec<u8>) {
        loop {
            {
                let mut queue = self.queue.lock();
                while out.len() < BATCH_BYTES {
                    let Some(message) = queue.messages.pop_front() else { break };
                    queue.packets -= usize::from(matches!(message, ToMixer::Packet(..)));
                    if let Err(error) = frame::encode_into(&message, out) {
                        tracing::error!(%error, "a message for the mixer does not fit the link");
                    }
                }
            }
            if !out.is_empty() {
                return;
            }
            self.filled.notified().await;
        }
    }
}

/// A running mixer. Dropping it ends the process.
#[derive(Debug)]
pub struct MixerProcess {
    /// Where its messages go.
    pub link: Arc<MixerLink>,
    /// Its process id.
    pub pid: u32,
    task: AbortHandle,
}

impl Drop for MixerProcess {
    fn drop(&mut self) {
        // The task owns the child, which is killed and reaped when it is dropped.
        self.task.abort();
    }
}

/// Starts a mixer process with one end of a socket pair as its standard input.
///
/// # Errors
/// Those of creating sockets and processes.
pub fn start(command: &MixerCommand, listener: impl MixerListener) -> io::Result<MixerProcess> {
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
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().unwrap_or_default();
    let (read, write) = UnixStream::from_std(ours)?.into_split();
    let link = Arc::new(MixerLink::default());
    let task = tokio::spawn(drive(child, read, write, link.clone(), listener)).abort_handle();
    Ok(MixerProcess { link, pid, task })
}

async fn drive(
    mut child: Child,
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    link: Arc<MixerLink>,
    mut listener: impl MixerListener,
) {
    let writer = async {
        let mut out = Vec::new();
        loop {
            out.clear();
            link.next_batch(&mut out).await;
            if let Err(error) = write.write_all(&out).await {
                return format!("its link cannot be written: {error}");
            }
        }
    };
    let why = tokio::select! {
        why = listen(&mut read, &mut listener) => why,
        why = writer => why,
    };
    // A hung process does not read signals; only this one ends it.
    let _ = child.kill().await;
    listener.lost(&why);
}

/// Reads until the mixer is gone or silent for too long; says why.
async fn listen(read: &mut OwnedReadHalf, listener: &mut impl MixerListener) -> String {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; BATCH_BYTES];
    let mut patience = START;
    loop {
        let length = match tokio::time::timeout(patience, read.read(&mut buffer)).await {
            Err(_) => return format!("it said nothing for {patience:?}"),
            Ok(Err(error)) => return format!("its link cannot be read: {error}"),
            Ok(Ok(0)) => return "it closed its link".to_owned(),
            Ok(Ok(length)) => length,
        };
        patience = HANG;
        decoder.extend(&buffer[..length]);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => listener.message(message),
                Ok(None) => break,
                Err(error) => return format!("it spoke nonsense: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::id::SourceId;
    use crate::media::SourcePacket;
    use crate::time::Timestamp;

    struct Recorder(mpsc::Sender<Result<FromMixer, String>>);

    impl MixerListener for Recorder {
        fn message(&mut self, message: FromMixer) {
            self.0.try_send(Ok(message)).expect("room for a few");
        }
        fn lost(&mut self, why: &str) {
            self.0.try_send(Err(why.to_owned())).expect("room for a few");
        }
    }

    fn packet(sequence: u16) -> ToMixer {
        let packet = SourcePacket {
            sequence,
            timestamp: 0,
            marker: false,
            arrival: Timestamp::default(),
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::from_static(b"x"),
        };
        ToMixer::Packet(SourceId(1), packet)
    }

    #[test]
    fn a_slow_mixer_loses_the_oldest_packets_and_no_orders() {
        let link = MixerLink::default();
        link.send(ToMixer::SourceGone(SourceId(9)));
        for sequence in 0..PACKETS_MAX as u16 + 3 {
            link.send(packet(sequence));
        }
        assert_eq!(link.dropped(), 3);
        let queue = link.queue.lock();
        assert_eq!(queue.messages.len(), PACKETS_MAX + 1);
        assert_eq!(queue.messages[0], ToMixer::SourceGone(SourceId(9)));
        assert_eq!(queue.messages[1], packet(3));
    }

    #[tokio::test]
    async fn a_mixer_that_ends_is_reported_lost_once() {
        let (heard, mut told) = mpsc::channel(4);
        let command = MixerCommand { program: "/bin/true".into(), arguments: vec![] };
        let _mixer = start(&command, Recorder(heard)).expect("starts");
        assert!(told.recv().await.expect("told").is_err());
        assert!(told.recv().await.is_none(), "told twice");
    }

    #[tokio::test]
    async fn a_mixer_that_speaks_nonsense_is_ended() {
        let (heard, mut told) = mpsc::channel(4);
        let command = MixerCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "printf '\\377\\377\\377\\377' >&0; sleep 60".into()],
        };
        let mixer = start(&command, Recorder(heard)).expect("starts");
        let why = told.recv().await.expect("told").expect_err("lost");
        assert!(why.contains("nonsense"), "{why}");
        let pid = rustix::process::Pid::from_raw(mixer.pid as i32).expect("a pid");
        assert!(rustix::process::test_kill_process(pid).is_err(), "it still runs");
    }
}
