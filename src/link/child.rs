//! The child's end of a link: a process that was started with one end of a socket pair as its standard input.
//!
//! Owns: reading and writing messages until the link ends, and what such a process denies itself. Does not know: what the
//! messages mean.
//! The process lives as long as the link: when the edge dies or wants it no more the socket ends. A thread that panics
//! ends it too, because the edge starts another one faster than anybody could mend this one.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::{process, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Decoder, FrameError, encode_into};

/// Bytes read at once.
const READ: usize = 256 << 10;
/// Open files: decoders and encoders need a few each.
const FILES_MAX: u64 = 4096;

/// Why a process ended other than by the end of its link.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The socket fails.
    #[error("the link to the edge: {0}")]
    Link(#[from] io::Error),
    /// The edge sends something else than messages.
    #[error("the link to the edge: {0}; are both of the same version?")]
    Frame(#[from] FrameError),
}

/// The link of a process that was started with one end of a socket pair as its standard input.
///
/// # Errors
/// Standard input is not to be had.
pub fn link_on_stdin() -> Result<UnixStream, ChildError> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
    Ok(UnixStream::from(stdin))
}

/// Denies this process what one has no need of that handles what strangers send, and ends it when a thread panics.
pub fn confine() {
    let core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let most = getrlimit(Resource::Nofile).maximum.map_or(FILES_MAX, |most| most.min(FILES_MAX));
    let files = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    // The end of the link ends this process; the kernel's parent-death signal would come when the *thread* that started
    // it ends, which in the edge means nothing.
    let privileges = rustix::thread::set_no_new_privs(true);
    for error in [core, files, privileges].into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "a limit of this process cannot be set");
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, thread = thread::current().name(), "a thread has panicked");
        process::abort();
    }));
}

/// Hears what the edge says.
pub trait Hears<M> {
    /// A message; breaks to end the process.
    fn message(&mut self, message: M) -> ControlFlow<()>;
    /// All that came at once was told.
    fn rest(&mut self) {}
}

/// Reads messages until the link ends or whoever hears them breaks.
///
/// # Errors
/// The link is broken or speaks another version.
pub fn read<M: DeserializeOwned>(mut link: UnixStream, to: &mut impl Hears<M>) -> Result<(), ChildError> {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; READ];
    loop {
        let length = match link.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The edge is gone without a word: the same as an end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        decoder.extend(&bytes[..length]);
        while let Some(message) = decoder.next_message()? {
            if to.message(message).is_break() {
                return Ok(());
            }
        }
        to.rest();
    }
}

/// Writes what `take` moves into its argument, which waits for messages and says false when there are none to come; until
/// then or until the link ends.
pub fn write<M: Serialize>(link: &mut UnixStream, mut take: impl FnMut(&mut Vec<M>) -> bool) {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while take(&mut messages) {
        for message in messages.drain(..) {
            if let Err(error) = encode_into::<M>(&message, &mut bytes) {
                tracing::error!(%error, "a message to the edge is left out");
            }
        }
        if let Err(error) = link.write_all(&bytes) {
            // The reader sees the end of the link as well and ends the process.
            tracing::debug!(%error, "the edge takes no more");
            return;
        }
        bytes.clear();
    }
}
