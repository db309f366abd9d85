//! Sending by SRT: GStreamer's `srtsink`, which uses libsrt.
//!
//! Owns: one connection as a caller, or one port as a listener. Does not know: the contents, when to reconnect: its
//! owner makes another one after a failure. In: MPEG-TS. Out: datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::{CodecError, init};
use crate::destination::{Srt, SrtMode};
use crate::pipeline::{Pipeline, Recipe, SendHoles};

/// Most buffers that wait for the network: 1 s of video and audio. The queue before them has a policy for drops.
const QUEUE: u32 = 80;

/// An SRT sender.
pub struct SrtSender {
    pipeline: Pipeline,
    /// It is a listener.
    listens: bool,
    callers: Arc<AtomicUsize>,
    failure: Arc<Mutex<Option<String>>>,
}

impl SrtSender {
    /// Begins to connect to `address`, or to listen there, as `srt` says.
    ///
    /// # Errors
    /// The element is not installed, or the port is in use.
    pub fn new(srt: &Srt, address: SocketAddr) -> Result<Self, CodecError> {
        init()?;
        let pipeline = Pipeline::new(Recipe::SendSrt(SendHoles { queue: QUEUE }))?;
        let listens = matches!(srt.mode, SrtMode::Listener(_));
        let sink = pipeline.outlet();
        let mode = if listens { "listener" } else { "caller" };
        sink.set_property("uri", format!("srt://{address}?mode={mode}"));
        sink.set_property("latency", srt.latency.as_millis() as i32);
        if let Some(passphrase) = &srt.passphrase {
            sink.set_property("passphrase", passphrase.expose());
            sink.set_property_from_str("pbkeylen", &srt.key_length.to_string());
        }
        if let Some(stream_id) = srt.stream_id.as_ref().filter(|_| !listens) {
            sink.set_property("streamid", stream_id.expose());
        }
        let callers = Arc::new(AtomicUsize::new(0));
        for (signal, change) in [("caller-added", 1), ("caller-removed", -1)] {
            let count = callers.clone();
            sink.connect(signal, false, move |_| {
                // A signal without its counterpart must not wrap the count.
                let _ =
                    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_add_signed(change));
                None
            });
        }
        let failure = Arc::new(Mutex::new(None));
        let failed = failure.clone();
        pipeline.play(move |reason| *failed.lock() = Some(reason))?;
        Ok(Self { pipeline, listens, callers, failure })
    }

    /// Whether a receiver is connected.
    pub fn is_connected(&self) -> bool {
        if self.listens { self.callers.load(Ordering::Acquire) > 0 } else { self.bytes_sent() > 0 }
    }

    fn bytes_sent(&self) -> u64 {
        let statistics: gst::Structure = self.pipeline.outlet().property("stats");
        statistics.get("bytes-sent-total").or_else(|_| statistics.get("bytes-sent")).unwrap_or(0)
    }

    /// Whether the queue has room for another buffer.
    pub fn has_room(&self) -> bool {
        self.pipeline.waiting() < u64::from(QUEUE)
    }

    /// Sends a buffer.
    pub fn push(&self, data: Bytes) {
        // Fails only after an error, which `failure` returns.
        if self.pipeline.source().push_buffer(gst::Buffer::from_slice(data)).is_err() {
            tracing::debug!("SRT connection has ended");
        }
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.pipeline.waiting() == 0
    }

    /// Ends the connection, and waits for it.
    pub fn end(self) {
        self.pipeline.end();
    }

    /// Why the connection ended, if it has.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}
