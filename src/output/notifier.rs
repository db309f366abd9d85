//! Reports and messages from a target to the edge, from any of its threads.
//!
//! Owns: the current report, and the bounded queue of messages to the edge. Does not know: the link. In: [`Notifier`].
//! Out: the receiver of the queue.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;

use crate::link::output::{FileReport, FromOutput};
use crate::room::outputs::OutputReport;

/// Capacity of the message queue; messages are rare and the edge reads them at once.
const QUEUE_CAPACITY: usize = 256;

/// Handle for reports and messages to the edge; clones share it.
#[derive(Debug, Clone)]
pub struct Notifier {
    report: Arc<Mutex<OutputReport>>,
    messages: SyncSender<FromOutput>,
}

impl Notifier {
    /// A notifier and the receiver of its messages.
    pub fn new() -> (Self, Receiver<FromOutput>) {
        let (messages, receiver) = sync_channel(QUEUE_CAPACITY);
        (Self { report: Arc::default(), messages }, receiver)
    }

    /// Changes the report, which is sent four times a second.
    pub fn report(&self, change: impl FnOnce(&mut OutputReport)) {
        change(&mut self.report.lock());
    }

    /// A copy of the current report.
    pub fn current(&self) -> OutputReport {
        self.report.lock().clone()
    }

    /// Requests a keyframe of a video stream.
    pub fn request_keyframe(&self, stream: u8) {
        self.send(FromOutput::KeyframeWanted { stream });
    }

    /// Reports a file that was created or completed.
    pub fn report_file(&self, file: FileReport) {
        self.send(FromOutput::File(file));
    }

    /// Sends a message. Blocks while the queue is full; does nothing after the link is closed.
    pub fn send(&self, message: FromOutput) {
        let _ = self.messages.send(message);
    }
}
