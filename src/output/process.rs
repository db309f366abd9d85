//! The output process: the threads between the link and a target.
//!
//! Owns: the link, the worker's queue and the order of shutdown. Does not know: what a target does. In and out:
//! messages on a socket pair.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::Notifier;
use super::broadcast::Broadcast;
use super::hls::Hls;
use super::record::{Recording, Tracks};
use super::target::{Failure, Target};
use super::thread::spawn;
use crate::link::child::{self, ChildError, MessageHandler};
use crate::link::frame::encode_into;
use crate::link::output::{self, FromOutput, OutputSettings, ToOutput};
use crate::link::sandbox::Access;
use crate::room::document::OutputState;
use crate::{codec, dial, time};

/// Capacity of the worker's queue: about two seconds of audio and video.
const QUEUE_CAPACITY: usize = 512;
/// Interval of [`Target::tick`].
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of reports to the edge.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// Runs an output until it finishes on request, its link is closed, or it fails.
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
    let (notifier, messages) = Notifier::new();
    let writer = spawn("link-writer", {
        let link = link.try_clone()?;
        move || write(&messages, link)
    })?;
    let (_over, over) = sync_channel::<()>(0);
    spawn("timer", {
        let notifier = notifier.clone();
        move || {
            while over.recv_timeout(REPORT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                notifier.send(FromOutput::Report(notifier.current()));
            }
        }
    })?;
    let (inbox, queue) = sync_channel(QUEUE_CAPACITY);
    let reader = spawn("link-reader", {
        let link = link.try_clone()?;
        move || child::read(link, &mut Reader(inbox))
    })?;
    let failure = work(&queue, &notifier).err().map(|Failure(reason)| reason);
    notifier.report(|report| {
        report.state = if failure.is_some() { OutputState::Failed } else { OutputState::Finished };
        report.reason.clone_from(&failure);
    });
    // The final report, after everything was written.
    notifier.send(FromOutput::Report(notifier.current()));
    notifier.send(FromOutput::Ended { failure });
    writer.join().expect("a panic ends the process");
    // The reader may block on the link for ever, so its result is used only if it has already ended.
    if reader.is_finished() { reader.join().expect("a panic ends the process") } else { Ok(()) }
}

struct Reader(SyncSender<ToOutput>);

impl MessageHandler<ToOutput> for Reader {
    fn message(&mut self, message: ToOutput) -> ControlFlow<()> {
        // The worker has ended, and with it the output.
        self.0.send(message).map_or(ControlFlow::Break(()), ControlFlow::Continue)
    }
}

/// Feeds the target until the end of the output.
fn work(inbox: &Receiver<ToOutput>, notifier: &Notifier) -> Result<(), Failure> {
    let Ok(ToOutput::Configure(settings)) = inbox.recv() else { return Ok(()) };
    let mut target = open(*settings, notifier)?;
    let fed = feed(target.as_mut(), inbox);
    notifier.report(|report| report.state = OutputState::Finishing);
    let finished = target.finish(time::now());
    // The first error is the cause.
    fed.and(finished)
}

/// Creates the target that the settings select.
///
/// # Errors
/// [`Failure`] when it cannot start.
fn open(settings: OutputSettings, notifier: &Notifier) -> Result<Box<dyn Target>, Failure> {
    match settings.target.clone() {
        output::Target::File(target) => Ok(Box::new(Recording::open(settings, target, notifier)?)),
        output::Target::Tracks(target) => Ok(Box::new(Tracks::open(settings, target, notifier)?)),
        output::Target::Send(target) => {
            Ok(Box::new(Broadcast::open(&target, &settings.streams, settings.epoch, notifier)?))
        }
        output::Target::Hls(target) => Ok(Box::new(Hls::open(&settings, target, time::now(), notifier)?)),
    }
}

fn feed(target: &mut dyn Target, inbox: &Receiver<ToOutput>) -> Result<(), Failure> {
    let mut ticked = time::now();
    loop {
        let message = inbox.recv_timeout(TICK_INTERVAL);
        let now = time::now();
        match message {
            Ok(ToOutput::Video { stream, packet }) => target.video(stream, packet, now)?,
            Ok(ToOutput::Sound(packet)) => target.sound(packet, now)?,
            Ok(ToOutput::Source(source)) => target.source(source, now)?,
            Ok(ToOutput::SourceGone(source)) => target.source_gone(source, now)?,
            Ok(ToOutput::Packet(source, packet)) => target.packet(source, packet, now)?,
            Ok(ToOutput::Note(at, note)) => target.note(at, note)?,
            // The edge has exited or closed the link.
            Ok(ToOutput::Finish) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            // Settings do not change.
            Ok(ToOutput::Configure(_)) | Err(RecvTimeoutError::Timeout) => {}
        }
        if now.since(ticked) >= TICK_INTERVAL {
            ticked = now;
            target.tick(now)?;
        }
    }
}

/// Sends messages until [`FromOutput::Ended`], or until the link is closed.
fn write(messages: &Receiver<FromOutput>, mut link: UnixStream) {
    let mut bytes = Vec::new();
    while let Ok(message) = messages.recv() {
        if let Err(error) = encode_into(&message, &mut bytes) {
            tracing::error!(%error, "message to the edge cannot be encoded: dropped");
        }
        if let Err(error) = link.write_all(&bytes) {
            tracing::debug!(%error, "link to the edge closed");
            return;
        }
        if matches!(message, FromOutput::Ended { .. }) {
            return;
        }
        bytes.clear();
    }
}
