//! What a target tells the edge, from whatever thread of it.
//!
//! Owns: the newest report, and the bounded queue of messages on their way. Does not know: the link.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;

use crate::link::output::{FileReport, FromOutput};
use crate::room::outputs::OutputReport;

/// Messages waiting for the link: they are few, and the edge reads at once.
const WAITING: usize = 256;

/// The way of a target's news to the edge; clones are the same.
#[derive(Debug, Clone)]
pub struct Desk {
    report: Arc<Mutex<OutputReport>>,
    messages: SyncSender<FromOutput>,
}

impl Desk {
    /// A desk, and what is put on it.
    pub fn new() -> (Self, Receiver<FromOutput>) {
        let (messages, taken) = sync_channel(WAITING);
        (Self { report: Arc::default(), messages }, taken)
    }

    /// Changes the report; the edge hears of it within a quarter of a second.
    pub fn report(&self, change: impl FnOnce(&mut OutputReport)) {
        change(&mut self.report.lock());
    }

    /// The report as it is.
    pub fn current(&self) -> OutputReport {
        self.report.lock().clone()
    }

    /// Asks for a keyframe in this stream.
    pub fn want_keyframe(&self, stream: u8) {
        self.say(FromOutput::KeyframeWanted { stream });
    }

    /// Tells of a file.
    pub fn file(&self, file: FileReport) {
        self.say(FromOutput::File(file));
    }

    /// Sends a message. Waits while too many wait; once the link is gone it goes nowhere.
    pub fn say(&self, message: FromOutput) {
        let _ = self.messages.send(message);
    }
}
