//! The child's end of a link: one end of a socket pair, inherited as standard input.
//!
//! Owns: reading and writing of messages until the link ends, and the limits that a child process sets for itself. Does
//! not know: what the messages mean. In and out: the socket; messages go to a [`MessageHandler`]. The process lives as
//! long as the link: the socket ends when the edge closes it or dies. The panic of a thread ends the process too; the
//! edge then starts another one.

use std::fs;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::{process, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Decoder, FrameError, encode_into};
use super::sandbox::{self, Access};

/// Bytes read at once.
const READ: usize = 256 << 10;
/// Most open files: each decoder and encoder needs a few.
const FILES_MAX: u64 = 4096;

/// Why a process ends, other than the end of its link.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The socket fails.
    #[error("link to the edge: {0}")]
    Link(#[from] io::Error),
    /// A message is malformed.
    #[error("malformed message from the edge: {0}; run both processes in the same version")]
    Frame(#[from] FrameError),
}

/// The link: a socket that the process inherited as standard input.
///
/// # Errors
/// Standard input cannot be duplicated.
pub fn link_on_stdin() -> Result<UnixStream, ChildError> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
    Ok(UnixStream::from(stdin))
}

/// Closes what this process has inherited beside its standard input, output and error: descriptors that the server's
/// own parent has left open for all its children.
///
/// # Errors
/// The list of descriptors cannot be read.
#[allow(unsafe_code)]
pub fn close_inherited() -> io::Result<()> {
    let names = fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let descriptors: Vec<i32> = names.filter_map(|name| name.parse().ok()).collect();
    for descriptor in descriptors.into_iter().filter(|descriptor| *descriptor > 2) {
        // SAFETY: nothing in this process owns a descriptor yet: it is called first in `main`. That of the list itself
        // is closed already, which is an error that is ignored.
        let _ = unsafe { libc::close(descriptor) };
    }
    Ok(())
}

/// Restricts this process, because it handles media from the network: no core dumps, few files, no new privileges, and
/// nothing but `access`. Ends it when a thread panics. Called before threads are started.
pub fn confine(access: &Access) {
    let core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let most = getrlimit(Resource::Nofile).maximum.map_or(FILES_MAX, |most| most.min(FILES_MAX));
    let files = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    // The end of the link ends this process. The parent-death signal of the kernel is sent when the *thread* that
    // started the process ends, and the edge has such threads.
    let privileges = rustix::thread::set_no_new_privs(true);
    for error in [core, files, privileges].into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "cannot set a limit of this process");
    }
    sandbox::enter(access);
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, thread = thread::current().name(), "thread panicked");
        process::abort();
    }));
}

/// Handles the messages from the edge.
pub trait MessageHandler<M> {
    /// Handles a message; breaks to end the process.
    fn message(&mut self, message: M) -> ControlFlow<()>;
    /// All messages of one read were handled.
    fn batch_handled(&mut self) {}
}

/// Reads messages until the link ends or the handler breaks.
///
/// # Errors
/// The link cannot be read, or a message is malformed.
pub fn read<M: DeserializeOwned>(mut link: UnixStream, to: &mut impl MessageHandler<M>) -> Result<(), ChildError> {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; READ];
    loop {
        let length = match link.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The edge died: the same as an end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        decoder.extend(&bytes[..length]);
        while let Some(message) = decoder.next_message()? {
            if to.message(message).is_break() {
                return Ok(());
            }
        }
        to.batch_handled();
    }
}

/// Writes messages until the link ends. `take` waits for messages and moves them into its argument; it returns false
/// when none will come.
pub fn write<M: Serialize>(link: &mut UnixStream, mut take: impl FnMut(&mut Vec<M>) -> bool) {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while take(&mut messages) {
        for message in messages.drain(..) {
            if let Err(error) = encode_into::<M>(&message, &mut bytes) {
                tracing::error!(%error, "message to the edge not sent");
            }
        }
        if let Err(error) = link.write_all(&bytes) {
            // The reader detects the end of the link as well and ends the process.
            tracing::debug!(%error, "cannot write the link to the edge");
            return;
        }
        bytes.clear();
    }
}
