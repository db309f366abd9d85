//! The mixer as a process: a mixer connected to a link.
//!
//! Owns: the two threads of the link. Does not know: media, limits of the process ([`child`]). In and out: messages on
//! the socket that the process inherited.

use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use super::outbox::Outbox;
use super::run::Mixer;
use crate::codec;
use crate::link::ToMixer;
use crate::link::child::{self, ChildError, MessageHandler};
use crate::link::journal::Journal;
use crate::link::sandbox::Access;

/// Runs a mixer until the link ends.
///
/// # Errors
/// The link cannot be read, or a message is malformed.
pub fn run_process(link: UnixStream) -> Result<(), ChildError> {
    // An error is reported by `Ready`.
    let _ = codec::init();
    child::confine(&Access::inherited());
    let outbox = Arc::new(Outbox::new(Journal::on_stdout()?));
    let writer = thread::Builder::new().name("link-writer".into()).spawn({
        let (outbox, mut link) = (outbox.clone(), link.try_clone()?);
        move || child::write(&mut link, |messages| outbox.take(messages))
    })?;
    let reader = thread::Builder::new().name("link-reader".into()).spawn({
        let outbox = outbox.clone();
        move || child::read(link, &mut Mixer::new(outbox))
    })?;
    let ended = reader.join().expect("a panic ends the process");
    outbox.close();
    let _ended = writer.join();
    ended
}

impl MessageHandler<ToMixer> for Mixer {
    fn message(&mut self, message: ToMixer) -> ControlFlow<()> {
        self.handle(message);
        ControlFlow::Continue(())
    }

    fn batch_handled(&mut self) {
        Self::batch_handled(self);
    }
}
