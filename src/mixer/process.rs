//! The mixer as a process of its own, at one end of a socket pair.
//!
//! Owns: the link's two threads, and what the process denies itself. Does not know: media. The process lives as long as
//! the link: when the edge dies or wants no mixer any more the socket ends, and so does the process; a thread that panics
//! ends it too, because the edge starts another one faster than anybody could mend this one.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::outbox::Outbox;
use super::run::Mixer;
use crate::link::frame::{Decoder, FrameError, encode_into};
use crate::link::{FromMixer, ToMixer};

/// Bytes read at once.
const READ: usize = 256 << 10;
/// Open files: decoders and encoders need a few each.
const FILES_MAX: u64 = 4096;

/// Why a mixer process ended other than by the end of its link.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
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
pub fn link_on_stdin() -> Result<UnixStream, ProcessError> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
    Ok(UnixStream::from(stdin))
}

/// Runs a mixer until the link ends.
///
/// # Errors
/// The link is broken or speaks another version.
pub fn run_process(link: UnixStream) -> Result<(), ProcessError> {
    deny();
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, thread = thread::current().name(), "a mixer's thread has panicked");
        process::abort();
    }));
    let outbox = Arc::new(Outbox::default());
    let writer = thread::Builder::new().name("link-writer".into()).spawn({
        let (outbox, link) = (outbox.clone(), link.try_clone()?);
        move || write(&outbox, link)
    })?;
    let reader = thread::Builder::new().name("link-reader".into()).spawn({
        let outbox = outbox.clone();
        move || read(Mixer::new(outbox), link)
    })?;
    let ended = reader.join().expect("a panic ends the process");
    outbox.close();
    let _ended = writer.join();
    ended
}

/// What a process full of decoders that strangers feed has no need of.
fn deny() {
    let core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let most = getrlimit(Resource::Nofile).maximum.map_or(FILES_MAX, |most| most.min(FILES_MAX));
    let files = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    // The end of the link ends this process; the kernel's parent-death signal would come when the *thread* that started
    // it ends, which in the edge means nothing.
    let privileges = rustix::thread::set_no_new_privs(true);
    for error in [core, files, privileges].into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "a limit of the mixer process cannot be set");
    }
}

fn read(mut mixer: Mixer, mut link: UnixStream) -> Result<(), ProcessError> {
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
        while let Some(message) = decoder.next_message::<ToMixer>()? {
            mixer.handle(message);
        }
        mixer.rest();
    }
}

fn write(outbox: &Outbox, mut link: UnixStream) {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while outbox.take(&mut messages) {
        for message in messages.drain(..) {
            if let Err(error) = encode_into::<FromMixer>(&message, &mut bytes) {
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
