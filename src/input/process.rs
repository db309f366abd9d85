//! An input as a process of its own, at one end of a socket pair.
//!
//! Owns: the link's two threads. Does not know: media. The process lives as long as the link or its source.

use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use super::outbox::Outbox;
use super::run::Input;
use crate::link::child::{self, ChildError, Hears};
use crate::link::input::ToInput;

/// Runs an input until the link or its source ends.
///
/// # Errors
/// The link is broken or speaks another version.
pub fn run_process(link: UnixStream) -> Result<(), ChildError> {
    child::confine();
    let outbox = Arc::new(Outbox::default());
    let writer = thread::Builder::new().name("link-writer".into()).spawn({
        let (outbox, mut link) = (outbox.clone(), link.try_clone()?);
        move || {
            child::write(&mut link, |messages| outbox.take(messages));
            // The source is over, and the edge has heard why. The reader waits for orders that do not come any more.
            // Fails when the link is gone already.
            let _ = link.shutdown(Shutdown::Both);
        }
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
