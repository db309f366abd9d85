//! Broadcasts: the video and audio of a room, sent to another server.
//!
//! Owns: [`Broadcast`], the target that converts packets to the form the protocol needs; the queue to the sender
//! thread; the policy of reconnects. Does not know: rooms, permissions. In: packets, as a [`Target`]. Out: a
//! connection, and reports through the [`Notifier`]. Each broadcast is a process of its own, so a hanging server
//! affects no other.
//!
//! The thread `sender` owns the connection. It opens the queue when the server accepts media, and drains it as fast as
//! the server does. Timestamps continue over reconnects: they count from the first frame that was ever sent.

mod backoff;
mod progress;
mod queue;
mod rtmp;
mod rtp;
mod sender;
mod srt;
mod ts;
mod whip;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use self::queue::{Body, Piece, SendQueue};
use super::Notifier;
use super::frames::FrameAssembler;
use super::gap_filler::AudioGapFiller;
use super::target::{Failure, Target};
use super::thread::spawn;
use crate::codec::CodecError;
use crate::codec::aac::{AacFrame, DEFAULT_BITRATE, OpusToAac};
use crate::destination::{self, Destination};
use crate::link::output::SendTarget;
use crate::media::{AUDIO_RATE, EncodedPacket, VIDEO_CLOCK};
use crate::plan::StreamSpec;
use crate::time::Timestamp;

/// Window of the bitrate measurement.
const BITRATE_WINDOW: Duration = Duration::from_secs(4);
/// Keyframe interval: servers segment the stream at keyframes and expect them regularly.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);
/// Interval at which a keyframe request is repeated.
const KEYFRAME_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A broadcast to another server.
pub(super) struct Broadcast {
    notifier: Notifier,
    send_queue: SendQueue,
    frames: FrameAssembler,
    gap_filler: AudioGapFiller,
    sound: AudioEncoding,
    /// Packets of the incomplete frame, for protocols that send packets.
    packets: Option<Vec<EncodedPacket>>,
    /// Time of the pending keyframe request.
    requested_at: Option<Timestamp>,
    /// The server cannot request keyframes, so they are requested regularly.
    regular_keyframes: bool,
    /// Time of the last keyframe.
    last_keyframe: Timestamp,
    sender: Option<JoinHandle<()>>,
    /// Why the sender thread gave up.
    failure: Arc<Mutex<Option<String>>>,
    /// Sent bytes at recent ticks, for the bitrate.
    samples: VecDeque<(Timestamp, u64)>,
}

/// Encoding of the audio mix.
enum AudioEncoding {
    /// Transcoded to AAC, on the encoder's own thread.
    Aac(OpusToAac),
    /// Sent unchanged.
    Opus,
}

impl Broadcast {
    /// Starts a broadcast of the only stream in `streams`.
    ///
    /// # Errors
    /// [`Failure`]: the destination is invalid, or an encoder is missing on this machine.
    pub(super) fn open(
        target: &SendTarget,
        streams: &[StreamSpec],
        epoch: Timestamp,
        notifier: &Notifier,
    ) -> Result<Self, Failure> {
        let destination = target.destination.open().map_err(|error| Failure(error.to_string()))?;
        let [stream] = streams else {
            return Err(Failure("a broadcast needs one video stream".to_owned()));
        };
        let send_queue = SendQueue::default();
        let takes_frames = takes_frames_and_aac(&destination);
        let regular_keyframes = !matches!(destination.target(), destination::Target::Whip(_));
        let sound = if takes_frames {
            let to = send_queue.clone();
            let sink = move |frame: AacFrame| {
                to.with(|queue| queue.push(Piece::Audio { time: frame.time, data: frame.data }));
            };
            AudioEncoding::Aac(OpusToAac::new(DEFAULT_BITRATE, sink).map_err(|error| Failure(error.to_string()))?)
        } else {
            AudioEncoding::Opus
        };
        let failure = Arc::new(Mutex::new(None));
        let sender = sender::Sender {
            destination,
            guard: target.guard.clone(),
            stream: stream.clone(),
            epoch,
            send_queue: send_queue.clone(),
            notifier: notifier.clone(),
        };
        let gave_up = failure.clone();
        let run = move || {
            let why = sender.run();
            *gave_up.lock() = why;
        };
        Ok(Self {
            notifier: notifier.clone(),
            frames: FrameAssembler::new(stream.key.codec, epoch),
            gap_filler: AudioGapFiller::new(epoch),
            sound,
            packets: (!takes_frames).then(Vec::new),
            requested_at: None,
            regular_keyframes,
            last_keyframe: epoch,
            sender: Some(spawn("sender", run).map_err(|error| Failure(error.to_string()))?),
            send_queue,
            failure,
            samples: VecDeque::new(),
        })
    }

    fn push_audio(&mut self, packets: Vec<super::gap_filler::AudioPacket>) -> Result<(), Failure> {
        for packet in packets {
            match &mut self.sound {
                AudioEncoding::Opus => {
                    self.send_queue.with(|queue| queue.push(Piece::Audio { time: packet.time, data: packet.data }));
                }
                AudioEncoding::Aac(aac) => match aac.push(packet.time, &packet.data) {
                    Ok(()) => {}
                    Err(CodecError::Failed) => return Err(Failure("the AAC encoder failed".to_owned())),
                    Err(error) => tracing::debug!(%error, "malformed audio packet dropped"),
                },
            }
        }
        Ok(())
    }

    /// Requests a keyframe when one is needed or due, and repeats the request each second.
    fn request_keyframes(&mut self, now: Timestamp) {
        let (open, needed) = self.send_queue.with(|queue| (queue.is_open(), queue.needs_keyframe()));
        let due = self.regular_keyframes && now.since(self.last_keyframe) >= KEYFRAME_INTERVAL;
        if !open || !(needed || due) {
            self.requested_at = None;
        } else if self.requested_at.is_none_or(|requested_at| now.since(requested_at) >= KEYFRAME_RETRY_INTERVAL) {
            self.requested_at = Some(now);
            self.notifier.request_keyframe(0);
        }
        // Packets of the stream are missing.
        if open && !needed && self.frames.take_keyframe_request(now) {
            self.notifier.request_keyframe(0);
        }
    }

    /// Collects the packets of the current frame.
    fn collect(&mut self, packet: &EncodedPacket) {
        let Some(packets) = &mut self.packets else { return };
        if packets.first().is_some_and(|first| first.timestamp != packet.timestamp) {
            packets.clear();
        }
        packets.push(packet.clone());
    }
}

/// Whether the protocol carries frames and AAC, not RTP payloads and Opus.
fn takes_frames_and_aac(destination: &Destination) -> bool {
    matches!(destination.target(), destination::Target::Rtmp(_) | destination::Target::Srt(_))
}

impl Target for Broadcast {
    fn video(&mut self, _stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        self.request_keyframes(now);
        self.collect(&packet);
        let ends = packet.marker;
        let frame = self.frames.push(packet, now);
        let packets = self.packets.as_mut().filter(|_| ends).map(std::mem::take);
        let Some(frame) = frame else { return Ok(()) };
        if !self.gap_filler.has_begun() {
            self.gap_filler.begin(frame.time * u64::from(AUDIO_RATE) / u64::from(VIDEO_CLOCK));
        }
        if frame.keyframe {
            self.last_keyframe = now;
        }
        let body = packets.map_or(Body::AccessUnit(frame.data), Body::Packets);
        self.send_queue.with(|queue| queue.push(Piece::Video { time: frame.time, keyframe: frame.keyframe, body }));
        Ok(())
    }

    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let packets = self.gap_filler.push(packet, now);
        self.push_audio(packets)
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        if self.sender.as_ref().is_some_and(JoinHandle::is_finished) {
            let why = self.failure.lock().take();
            return Err(Failure(why.unwrap_or_else(|| "the sender thread ended unexpectedly".to_owned())));
        }
        self.request_keyframes(now);
        let packets = self.gap_filler.tick(now);
        self.push_audio(packets)?;
        let dropped = self.send_queue.with(|queue| queue.dropped()) + self.gap_filler.late();
        let bytes = self.notifier.current().bytes;
        self.samples.push_back((now, bytes));
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > BITRATE_WINDOW) {
            self.samples.pop_front();
        }
        let bitrate = self.samples.front().map_or(0, |(at, before)| bitrate(bytes - before, now.since(*at)));
        self.notifier.report(|report| (report.dropped, report.bitrate) = (dropped, bitrate));
        Ok(())
    }

    fn finish(&mut self, _now: Timestamp) -> Result<(), Failure> {
        self.send_queue.finish();
        if let Some(sender) = self.sender.take() {
            sender.join().expect("a panic ends the process");
        }
        if let AudioEncoding::Aac(aac) = std::mem::replace(&mut self.sound, AudioEncoding::Opus) {
            aac.finish();
        }
        Ok(())
    }
}

/// Bits per second.
fn bitrate(bytes: u64, elapsed: Duration) -> u64 {
    bytes.saturating_mul(8_000_000).checked_div(elapsed.as_micros() as u64).unwrap_or(0)
}
