//! An output as a process of its own, at one end of a socket pair.
//!
//! Owns: the threads between link and target. Does not know: what a target does.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::Desk;
use super::broadcast::Broadcast;
use super::hls::Hls;
use super::record::{Recording, Tracks};
use super::target::{Failure, Target};
use super::thread::spawn;
use crate::link::child::{self, ChildError, MessageHandler};
use crate::link::frame::encode_into;
use crate::link::output::{self, FromOutput, OutputSettings, ToOutput};
use crate::room::document::OutputState;
use crate::time;

/// Messages waiting for the worker: some two seconds of a stream with sound.
const WAITING: usize = 512;
/// How often the target hears that time passes.
const TICK: Duration = Duration::from_millis(100);
/// How often the edge is told how the output does.
const REPORT: Duration = Duration::from_millis(250);

/// Runs an output until it has come to an end: because it was told to, its link is gone, or it failed.
///
/// # Errors
/// The link is broken or speaks another version.
pub fn run_process(link: UnixStream) -> Result<(), ChildError> {
    child::confine();
    let (desk, messages) = Desk::new();
    let writer = spawn("link-writer", {
        let link = link.try_clone()?;
        move || write(&messages, link)
    })?;
    let (_over, over) = sync_channel::<()>(0);
    spawn("timer", {
        let desk = desk.clone();
        move || {
            while over.recv_timeout(REPORT) == Err(RecvTimeoutError::Timeout) {
                desk.say(FromOutput::Report(desk.current()));
            }
        }
    })?;
    let (orders, taken) = sync_channel(WAITING);
    let reader = spawn("link-reader", {
        let link = link.try_clone()?;
        move || child::read(link, &mut Reader(orders))
    })?;
    let failure = work(&taken, &desk).err().map(|Failure(reason)| reason);
    desk.report(|report| {
        report.state = if failure.is_some() { OutputState::Failed } else { OutputState::Finished };
        report.reason.clone_from(&failure);
    });
    // What the end has added is told as well.
    desk.say(FromOutput::Report(desk.current()));
    desk.say(FromOutput::Ended { failure });
    writer.join().expect("a panic ends the process");
    // The reader may wait for the edge for ever; that it found the link broken matters only when it is done by now.
    if reader.is_finished() { reader.join().expect("a panic ends the process") } else { Ok(()) }
}

struct Reader(SyncSender<ToOutput>);

impl MessageHandler<ToOutput> for Reader {
    fn message(&mut self, message: ToOutput) -> ControlFlow<()> {
        // The worker is gone: so is the output.
        self.0.send(message).map_or(ControlFlow::Break(()), ControlFlow::Continue)
    }
}

/// Feeds the target until the end of the output.
fn work(orders: &Receiver<ToOutput>, desk: &Desk) -> Result<(), Failure> {
    let Ok(ToOutput::Configure(settings)) = orders.recv() else { return Ok(()) };
    let mut target = open(*settings, desk)?;
    let fed = feed(target.as_mut(), orders);
    desk.report(|report| report.state = OutputState::Finishing);
    let finished = target.finish(time::now());
    // What went wrong first is what counts.
    fed.and(finished)
}

/// Makes the target that the settings mean.
///
/// # Errors
/// [`Failure`]: it cannot even begin.
fn open(settings: OutputSettings, desk: &Desk) -> Result<Box<dyn Target>, Failure> {
    match settings.target.clone() {
        output::Target::File(target) => Ok(Box::new(Recording::open(settings, target, desk)?)),
        output::Target::Tracks(target) => Ok(Box::new(Tracks::open(settings, target, desk)?)),
        output::Target::Send(target) => {
            Ok(Box::new(Broadcast::open(&target, &settings.streams, settings.epoch, desk)?))
        }
        output::Target::Hls(target) => Ok(Box::new(Hls::open(&settings, target, time::now(), desk)?)),
    }
}

fn feed(target: &mut dyn Target, orders: &Receiver<ToOutput>) -> Result<(), Failure> {
    let mut ticked = time::now();
    loop {
        let message = orders.recv_timeout(TICK);
        let now = time::now();
        match message {
            Ok(ToOutput::Video { stream, packet }) => target.video(stream, packet, now)?,
            Ok(ToOutput::Sound(packet)) => target.sound(packet, now)?,
            Ok(ToOutput::Source(source)) => target.source(source, now)?,
            Ok(ToOutput::SourceGone(source)) => target.source_gone(source, now)?,
            Ok(ToOutput::Packet(source, packet)) => target.packet(source, packet, now)?,
            Ok(ToOutput::SoundLag(lag)) => target.sound_lag(lag),
            Ok(ToOutput::Note(at, note)) => target.note(at, note)?,
            // Without an edge nobody wants it any more.
            Ok(ToOutput::Finish) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            // Settings do not change.
            Ok(ToOutput::Configure(_)) | Err(RecvTimeoutError::Timeout) => {}
        }
        if now.since(ticked) >= TICK {
            ticked = now;
            target.tick(now)?;
        }
    }
}

/// Sends until the last word, or until nobody hears.
fn write(messages: &Receiver<FromOutput>, mut link: UnixStream) {
    let mut bytes = Vec::new();
    while let Ok(message) = messages.recv() {
        if let Err(error) = encode_into(&message, &mut bytes) {
            tracing::error!(%error, "a message to the edge is left out");
        }
        if let Err(error) = link.write_all(&bytes) {
            tracing::debug!(%error, "the edge takes no more");
            return;
        }
        if matches!(message, FromOutput::Ended { .. }) {
            return;
        }
        bytes.clear();
    }
}
