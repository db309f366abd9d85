//! HLS: parts and segments of every stream and of the mix, for the edge to serve.
//!
//! Owns: [`Hls`], the target: one [`cutter`] a rendition, and the AAC encoder. Does not know: playlists, who watches.
//! All streams begin at the same multiple of a segment's length since the epoch, and are cut at such multiples, so that
//! their segments have the same numbers and other broadcasts' keyframes, asked for at the same moments, are the same. The
//! sound begins and is cut where the first stream is: players put renditions together by where their segments begin.

mod cutter;

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use self::cutter::Cutter;
use super::frames::{Frame, Frames};
use super::steady::{Sound, Steady};
use super::{Desk, Failure, Target};
use crate::codec::aac::{AUDIO_SPECIFIC_CONFIG, AacFrame, DEFAULT_BITRATE, FRAME_SAMPLES, OpusToAac};
use crate::container::{ContainerError, TrackSpec};
use crate::link::output::{FromOutput, HlsPiece, HlsTarget, OutputSettings};
use crate::media::{AUDIO_RATE, EncodedPacket, VIDEO_CLOCK};
use crate::plan::StreamSpec;
use crate::room::document::OutputState;
use crate::time::Timestamp;

/// AAC frames on their way from the encoder's thread: five seconds.
const FRAMES: usize = 256;
/// The bitrate is measured over so long.
const WINDOW: Duration = Duration::from_secs(2);

/// The target.
pub(super) struct Hls {
    desk: Desk,
    epoch: Timestamp,
    segment: Duration,
    part: Duration,
    pictures: Vec<Picture>,
    steady: Steady,
    encoder: Option<OpusToAac>,
    encoded: Receiver<AacFrame>,
    sound: Cutter,
    /// When all streams begin, since the epoch.
    start: Duration,
    /// When the first of them did, in samples of sound since the epoch: so does the sound.
    sound_start: Option<u64>,
    /// The next moment at which keyframes are asked for, since the epoch.
    next_keyframe: Duration,
    /// Begin and bytes of the present measurement.
    window: (Timestamp, u64),
}

/// One stream of pictures.
struct Picture {
    spec: StreamSpec,
    frames: Frames,
    /// None until the first keyframe tells what its track is.
    cutter: Option<Cutter>,
}

impl Hls {
    pub(super) fn open(
        settings: &OutputSettings,
        target: HlsTarget,
        now: Timestamp,
        desk: &Desk,
    ) -> Result<Self, Failure> {
        let HlsTarget { segment, part } = target;
        let (frames, encoded) = sync_channel(FRAMES);
        let full = desk.clone();
        let keep = move |frame| {
            if frames.try_send(frame).is_err() {
                full.report(|report| report.dropped += 1);
            }
        };
        let encoder = OpusToAac::new(DEFAULT_BITRATE, keep).map_err(|error| Failure(error.to_string()))?;
        let epoch = settings.epoch;
        // One whole segment's time to have all streams flowing.
        let start = multiple_after(now.since(epoch) + segment / 2, segment);
        let picture = |spec: &StreamSpec| Picture {
            frames: Frames::new(spec.key.codec, epoch),
            spec: spec.clone(),
            cutter: None,
        };
        let track = TrackSpec::aac(1, AUDIO_SPECIFIC_CONFIG.to_vec().into());
        Ok(Self {
            desk: desk.clone(),
            epoch,
            segment,
            part,
            pictures: settings.streams.iter().map(picture).collect(),
            steady: Steady::new(epoch),
            encoder: Some(encoder),
            encoded,
            sound: Cutter::as_told(track, part),
            start,
            sound_start: None,
            next_keyframe: start,
            window: (now, 0),
        })
    }

    fn hear(&mut self, sounds: Vec<Sound>) -> Result<(), Failure> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        for sound in sounds {
            if let Err(error) = encoder.push(sound.time, &sound.data) {
                tracing::warn!(%error, "sound is left out");
                self.desk.report(|report| report.dropped += 1);
            }
        }
        self.take_encoded()
    }

    fn take_encoded(&mut self) -> Result<(), Failure> {
        let rendition = self.pictures.len();
        while let Ok(frame) = self.encoded.try_recv() {
            // The encoder's first frame lies before the beginning.
            if self.sound_start.is_some_and(|start| frame.time + FRAME_SAMPLES > start) {
                let pieces = self.sound.push(frame.time, true, frame.data).map_err(failure)?;
                self.say(rendition, pieces);
            }
        }
        Ok(())
    }

    fn show(&mut self, stream: usize, frame: Frame) -> Result<(), Failure> {
        let picture = &mut self.pictures[stream];
        if frame.time < ticks(self.start, VIDEO_CLOCK) {
            return Ok(());
        }
        if picture.cutter.is_none() && frame.keyframe {
            let track = TrackSpec::video(picture.spec.key.codec, picture.spec.size, &frame.data).map_err(failure)?;
            picture.cutter = Some(Cutter::at_keyframes(track, self.segment, self.part));
        }
        let Some(cutter) = &mut picture.cutter else { return Ok(()) };
        let pieces = cutter.push(frame.time, frame.keyframe, frame.data).map_err(failure)?;
        self.say(stream, pieces);
        Ok(())
    }

    fn say(&mut self, rendition: usize, pieces: Vec<HlsPiece>) {
        for piece in pieces {
            if let HlsPiece::Cut { at } = &piece
                && rendition == 0
            {
                if self.sound_start.is_none() {
                    let start = ticks(*at, AUDIO_RATE);
                    self.sound_start = Some(start);
                    self.steady.begin(start);
                }
                self.sound.cut_at(*at);
            }
            if let HlsPiece::Part { duration, data, .. } = &piece {
                self.window.1 += data.len() as u64;
                self.desk.report(|report| {
                    report.state = OutputState::Live;
                    report.bytes += data.len() as u64;
                    if rendition == 0 {
                        report.duration += *duration;
                    }
                });
            }
            self.desk.say(FromOutput::Hls { rendition: rendition as u8, piece });
        }
    }

    /// Asks for keyframes where a segment is to begin, and where one is needed.
    fn ask(&mut self, now: Timestamp) {
        let at = now.since(self.epoch);
        let due = at >= self.next_keyframe;
        if due {
            self.next_keyframe = multiple_after(at, self.segment);
        }
        for (stream, picture) in self.pictures.iter_mut().enumerate() {
            if picture.frames.wants_keyframe(now) || due {
                self.desk.want_keyframe(stream as u8);
            }
        }
    }
}

impl Target for Hls {
    fn video(&mut self, stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let stream = usize::from(stream);
        let Some(picture) = self.pictures.get_mut(stream) else { return Ok(()) };
        let frame = picture.frames.push(packet, now);
        self.ask(now);
        frame.map_or(Ok(()), |frame| self.show(stream, frame))
    }

    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let sounds = self.steady.push(packet, now);
        self.hear(sounds)
    }

    fn sound_lag(&mut self, lag: Duration) {
        self.pictures.iter_mut().for_each(|picture| picture.frames.set_sound_lag(lag));
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        self.ask(now);
        let (began, bytes) = self.window;
        let elapsed = now.since(began);
        if elapsed >= WINDOW {
            self.window = (now, 0);
            self.desk.report(|report| report.bitrate = bytes * 8_000 / elapsed.as_millis().max(1) as u64);
        }
        let sounds = self.steady.tick(now);
        self.hear(sounds)
    }

    fn finish(&mut self, _now: Timestamp) -> Result<(), Failure> {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish();
        }
        self.take_encoded()?;
        for stream in 0..self.pictures.len() {
            let pieces = self.pictures[stream].cutter.as_mut().map(Cutter::end).transpose().map_err(failure)?;
            self.say(stream, pieces.unwrap_or_default());
        }
        let pieces = self.sound.end().map_err(failure)?;
        self.say(self.pictures.len(), pieces);
        Ok(())
    }
}

fn failure(error: ContainerError) -> Failure {
    Failure(format!("a stream of ours cannot be put into parts: {error}"))
}

/// The next multiple of `step` after `at`.
fn multiple_after(at: Duration, step: Duration) -> Duration {
    let steps = at.as_micros() / step.as_micros().max(1) + 1;
    Duration::from_micros((steps * step.as_micros()) as u64)
}

fn ticks(at: Duration, clock: u32) -> u64 {
    (at.as_micros() * u128::from(clock) / 1_000_000) as u64
}
