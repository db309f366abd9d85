//! The input process: the link's two threads around an [`Input`].
//!
//! Owns: the link. Does not know: media. In and out: messages on a socket pair. The process ends with the link or the
//! source.

use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use super::outbox::Outbox;
use super::run::Input;
use crate::link::child::{self, ChildError, MessageHandler};
use crate::link::input::ToInput;
use crate::link::sandbox::Access;
use crate::{codec, dial};

/// Runs an input until the link or its source ends.
///
/// # Errors
/// The link failed, or its protocol version differs.
pub fn run_process(link: UnixStream) -> Result<(), ChildError> {
    let access = Access::inherited();
    // An error is reported by what needs GStreamer.
    let _ = codec::init();
    if access.network {
        // Read now, because the files may be readable for the operator only.
        dial::certificates();
    }
    child::confine(&access);
    let outbox = Arc::new(Outbox::default());
    let writer = thread::Builder::new().name("link-writer".into()).spawn({
        let (outbox, mut link) = (outbox.clone(), link.try_clone()?);
        move || {
            child::write(&mut link, |messages| outbox.take(messages));
            // The input has ended and its last message is sent. The shutdown ends the reader, which waits for messages;
            // it fails if the link is already closed.
            let _ = link.shutdown(Shutdown::Both);
        }
    })?;
    let ended = child::read(link, &mut Reader(Input::new(outbox.clone())));
    outbox.close();
    writer.join().expect("a panic ends the process");
    ended
}

struct Reader(Input);

impl MessageHandler<ToInput> for Reader {
    fn message(&mut self, message: ToInput) -> ControlFlow<()> {
        self.0.handle(message);
        ControlFlow::Continue(())
    }
}
