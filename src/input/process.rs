//! An input as a process of its own, at one end of a socket pair.
//!
//! Owns: the link's two threads. Does not know: media. The process lives as long as the link or its source.

use std::io::Write;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use super::outbox::Outbox;
use super::run::Input;
use crate::link::child::{self, ChildError, Hears};
use crate::link::frame::encode_into;
use crate::link::input::{FromInput, ToInput};

/// Runs an input until the link or its source ends.
///
/// # Errors
/// The link is broken or speaks another version.
pub fn run_process(link: UnixStream) -> Result<(), ChildError> {
    child::confine();
    let outbox = Arc::new(Outbox::default());
    let writer = thread::Builder::new().name("link-writer".into()).spawn({
        let (outbox, link) = (outbox.clone(), link.try_clone()?);
        move || write(&outbox, link)
    })?;
    let ended = child::read(link, &mut Reader(Input::new(outbox.clone())));
    outbox.close();
    writer.join().expect("a panic ends the process");
    ended
}

struct Reader(Input);

impl Hears<ToInput> for Reader {
    fn message(&mut self, message: ToInput) -> ControlFlow<()> {
        self.0.handle(message);
        ControlFlow::Continue(())
    }
}

/// Writes until the source is over, and then ends the link: the edge has heard why.
fn write(outbox: &Outbox, mut link: UnixStream) {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while outbox.take(&mut messages) {
        for message in messages.drain(..) {
            if let Err(error) = encode_into::<FromInput>(&message, &mut bytes) {
                tracing::error!(%error, "a message to the edge is left out");
            }
        }
        if let Err(error) = link.write_all(&bytes) {
            tracing::debug!(%error, "the edge takes no more");
            break;
        }
        bytes.clear();
    }
    // The reader waits for orders that do not come any more. Fails when the link is gone already.
    let _ = link.shutdown(Shutdown::Both);
}
