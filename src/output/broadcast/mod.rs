//! Broadcasts: what a room shows and says, sent to somebody else's server.
//!
//! Owns: [`Broadcast`], the target that makes of packets what the far end wants; the queue to the thread that sends; when a
//! far end that is gone is tried again. Does not know: rooms, who asked for it. In: packets by [`Target`]. Out: a
//! connection; how it does goes to the desk. Each broadcast is a process of its own, so a dead far end harms nobody.
//!
//! The thread `sender` has the connection. It lets media into the queue when the far end takes it, and takes it out as
//! fast as that does. Times go on over reconnections: they count from the first frame that was ever sent.

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

use self::queue::{Body, Feed, Piece};
use super::Desk;
use super::frames::Frames;
use super::steady::Steady;
use super::target::{Failure, Target};
use super::thread::spawn;
use crate::codec::CodecError;
use crate::codec::aac::{AacFrame, DEFAULT_BITRATE, OpusToAac};
use crate::destination::{self, Destination};
use crate::link::output::SendTarget;
use crate::media::{AUDIO_RATE, EncodedPacket, VIDEO_CLOCK};
use crate::plan::StreamSpec;
use crate::time::Timestamp;

/// Bitrates are measured over so long.
const WINDOW: Duration = Duration::from_secs(4);
/// Servers for broadcasts cut what they get at keyframes, and want one as often.
const GROUP: Duration = Duration::from_secs(2);
/// A keyframe that did not come is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A broadcast to a far end.
pub(super) struct Broadcast {
    desk: Desk,
    feed: Feed,
    frames: Frames,
    steady: Steady,
    sound: Sound,
    /// The packets of the frame that is coming, where the far end takes packets.
    packets: Option<Vec<EncodedPacket>>,
    /// When a keyframe was asked for that has not come.
    asked: Option<Timestamp>,
    /// Nobody at the far end asks for keyframes, so they come by themselves.
    in_groups: bool,
    /// When the last keyframe came.
    keyed: Timestamp,
    sender: Option<JoinHandle<()>>,
    /// Why the sender gave up.
    failure: Arc<Mutex<Option<String>>>,
    /// Bytes sent, lately.
    samples: VecDeque<(Timestamp, u64)>,
}

/// What is made of the mix.
enum Sound {
    /// AAC, by its encoder's own thread.
    Aac(OpusToAac),
    /// It goes as it is.
    Opus,
}

impl Broadcast {
    /// Begins one. `stream` is the only stream it gets.
    ///
    /// # Errors
    /// [`Failure`]: what is missing on this machine.
    pub(super) fn open(
        target: &SendTarget,
        streams: &[StreamSpec],
        epoch: Timestamp,
        desk: &Desk,
    ) -> Result<Self, Failure> {
        let destination = target.destination.open().map_err(|error| Failure(error.to_string()))?;
        let [stream] = streams else {
            return Err(Failure("a broadcast needs one video stream".to_owned()));
        };
        let feed = Feed::default();
        let whole = takes_whole_frames(&destination);
        let in_groups = !matches!(destination.target(), destination::Target::Whip(_));
        let sound = if whole {
            let to = feed.clone();
            let sink = move |frame: AacFrame| {
                to.with(|queue| queue.push(Piece::Sound { time: frame.time, data: frame.data }));
            };
            Sound::Aac(OpusToAac::new(DEFAULT_BITRATE, sink).map_err(|error| Failure(error.to_string()))?)
        } else {
            Sound::Opus
        };
        let failure = Arc::new(Mutex::new(None));
        let sender = sender::Sender {
            destination,
            guard: target.guard.clone(),
            stream: stream.clone(),
            epoch,
            feed: feed.clone(),
            desk: desk.clone(),
        };
        let gave_up = failure.clone();
        let run = move || {
            let why = sender.run();
            *gave_up.lock() = why;
        };
        Ok(Self {
            desk: desk.clone(),
            frames: Frames::new(stream.key.codec, epoch),
            steady: Steady::new(epoch),
            sound,
            packets: (!whole).then(Vec::new),
            asked: None,
            in_groups,
            keyed: epoch,
            sender: Some(spawn("sender", run).map_err(|error| Failure(error.to_string()))?),
            feed,
            failure,
            samples: VecDeque::new(),
        })
    }

    fn sounds(&mut self, sounds: Vec<super::steady::Sound>) -> Result<(), Failure> {
        for sound in sounds {
            match &mut self.sound {
                Sound::Opus => {
                    self.feed.with(|queue| queue.push(Piece::Sound { time: sound.time, data: sound.data }));
                }
                Sound::Aac(aac) => match aac.push(sound.time, &sound.data) {
                    Ok(()) => {}
                    Err(CodecError::Failed) => return Err(Failure("the AAC encoder failed".to_owned())),
                    Err(error) => tracing::debug!(%error, "a packet of sound is left out"),
                },
            }
        }
        Ok(())
    }

    /// Asks for a keyframe where nothing can go on without one, at once and again each second.
    fn ask(&mut self, now: Timestamp) {
        let (open, needed) = self.feed.with(|queue| (queue.is_open(), queue.needs_keyframe()));
        let due = self.in_groups && now.since(self.keyed) >= GROUP;
        if !open || !(needed || due) {
            self.asked = None;
        } else if self.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN) {
            self.asked = Some(now);
            self.desk.want_keyframe(0);
        }
        // A hole in the stream itself.
        if open && !needed && self.frames.wants_keyframe(now) {
            self.desk.want_keyframe(0);
        }
    }

    /// The packets of the frame so far, with this one.
    fn collect(&mut self, packet: &EncodedPacket) {
        let Some(packets) = &mut self.packets else { return };
        if packets.first().is_some_and(|first| first.timestamp != packet.timestamp) {
            packets.clear();
        }
        packets.push(packet.clone());
    }
}

/// Whether a far end takes frames and AAC, rather than RTP payloads and Opus.
fn takes_whole_frames(destination: &Destination) -> bool {
    matches!(destination.target(), destination::Target::Rtmp(_) | destination::Target::Srt(_))
}

impl Target for Broadcast {
    fn video(&mut self, _stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        self.ask(now);
        self.collect(&packet);
        let ends = packet.marker;
        let frame = self.frames.push(packet, now);
        let packets = self.packets.as_mut().filter(|_| ends).map(std::mem::take);
        let Some(frame) = frame else { return Ok(()) };
        if !self.steady.has_begun() {
            self.steady.begin(frame.time * u64::from(AUDIO_RATE) / u64::from(VIDEO_CLOCK));
        }
        if frame.keyframe {
            self.keyed = now;
        }
        let body = packets.map_or(Body::Whole(frame.data), Body::Packets);
        self.feed.with(|queue| queue.push(Piece::Video { time: frame.time, keyframe: frame.keyframe, body }));
        Ok(())
    }

    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let sounds = self.steady.push(packet, now);
        self.sounds(sounds)
    }

    fn sound_lag(&mut self, lag: Duration) {
        self.frames.set_sound_lag(lag);
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        if self.sender.as_ref().is_some_and(JoinHandle::is_finished) {
            let why = self.failure.lock().take();
            return Err(Failure(why.unwrap_or_else(|| "its sender is gone".to_owned())));
        }
        self.ask(now);
        let sounds = self.steady.tick(now);
        self.sounds(sounds)?;
        let dropped = self.feed.with(|queue| queue.dropped()) + self.steady.late();
        let bytes = self.desk.current().bytes;
        self.samples.push_back((now, bytes));
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        let bitrate = self.samples.front().map_or(0, |(at, before)| bitrate(bytes - before, now.since(*at)));
        self.desk.report(|report| (report.dropped, report.bitrate) = (dropped, bitrate));
        Ok(())
    }

    fn finish(&mut self, _now: Timestamp) -> Result<(), Failure> {
        self.feed.finish();
        if let Some(sender) = self.sender.take() {
            sender.join().expect("a panic ends the process");
        }
        if let Sound::Aac(aac) = std::mem::replace(&mut self.sound, Sound::Opus) {
            aac.finish();
        }
        Ok(())
    }
}

/// Bits per second of so many bytes in so long.
fn bitrate(bytes: u64, elapsed: Duration) -> u64 {
    bytes.saturating_mul(8_000_000).checked_div(elapsed.as_micros() as u64).unwrap_or(0)
}
