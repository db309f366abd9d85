//! HLS packager: parts and segments of every video stream, of the audio mix and of captions, which the edge serves.
//!
//! Owns: [`Hls`], the target: one segmenter per rendition, and the AAC encoder. Does not know: playlists, players. In:
//! packets and captions. Out: [`HlsPiece`]s.
//!
//! All streams start at the same multiple of the segment duration since the epoch, and segments end at such multiples.
//! So segments of all renditions have the same numbers, and keyframes that several broadcasts request at these moments
//! coincide. Audio starts and ends segments where the first video stream does, because players synchronize renditions
//! by segment start.

mod captions;
mod segmenter;

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use self::captions::Captions;
use self::segmenter::Segmenter;
use super::frames::{Frame, FrameAssembler};
use super::gap_filler::{AudioGapFiller, AudioPacket};
use super::{Failure, Notifier, Target};
use crate::codec::aac::{AUDIO_SPECIFIC_CONFIG, AacFrame, DEFAULT_BITRATE, FRAME_SAMPLES, OpusToAac};
use crate::container::{ContainerError, TrackSpec};
use crate::link::output::{FromOutput, HlsPiece, HlsTarget, Note, OutputSettings};
use crate::media::{AUDIO_RATE, EncodedPacket, VIDEO_CLOCK};
use crate::plan::StreamSpec;
use crate::room::document::OutputState;
use crate::time::Timestamp;

/// Capacity of the queue of AAC frames from the encoder's thread: five seconds.
const AAC_QUEUE_CAPACITY: usize = 256;
/// Window of the bitrate measurement.
const BITRATE_WINDOW: Duration = Duration::from_secs(2);

/// The HLS target.
pub(super) struct Hls {
    notifier: Notifier,
    epoch: Timestamp,
    segment: Duration,
    part: Duration,
    videos: Vec<VideoRendition>,
    gap_filler: AudioGapFiller,
    encoder: Option<OpusToAac>,
    encoded: Receiver<AacFrame>,
    sound: Segmenter,
    captions: Captions,
    /// Earliest start of all streams, since the epoch.
    start: Duration,
    /// Start of the first video stream, and so of the audio, in audio samples since the epoch.
    audio_start: Option<u64>,
    /// Time of the next regular keyframe requests, since the epoch.
    next_keyframe: Duration,
    /// Start and bytes of the current bitrate window.
    window: (Timestamp, u64),
}

/// One video rendition.
struct VideoRendition {
    spec: StreamSpec,
    frames: FrameAssembler,
    /// None until the first keyframe, which describes the track.
    segmenter: Option<Segmenter>,
}

impl Hls {
    pub(super) fn open(
        settings: &OutputSettings,
        target: HlsTarget,
        now: Timestamp,
        notifier: &Notifier,
    ) -> Result<Self, Failure> {
        let HlsTarget { segment, part, public: _ } = target;
        let (frames, encoded) = sync_channel(AAC_QUEUE_CAPACITY);
        let on_full = notifier.clone();
        let enqueue = move |frame| {
            if frames.try_send(frame).is_err() {
                on_full.report(|report| report.dropped += 1);
            }
        };
        let encoder = OpusToAac::new(DEFAULT_BITRATE, enqueue).map_err(|error| Failure(error.to_string()))?;
        let epoch = settings.epoch;
        // Half a segment to one and a half, so that all streams have started.
        let start = multiple_after(now.since(epoch) + segment / 2, segment);
        let video = |spec: &StreamSpec| VideoRendition {
            frames: FrameAssembler::new(spec.key.codec, epoch),
            spec: spec.clone(),
            segmenter: None,
        };
        let track = TrackSpec::aac(1, AUDIO_SPECIFIC_CONFIG.to_vec().into());
        Ok(Self {
            notifier: notifier.clone(),
            epoch,
            segment,
            part,
            videos: settings.streams.iter().map(video).collect(),
            gap_filler: AudioGapFiller::new(epoch),
            encoder: Some(encoder),
            encoded,
            sound: Segmenter::with_external_cuts(track, part),
            captions: Captions::default(),
            start,
            audio_start: None,
            next_keyframe: start,
            window: (now, 0),
        })
    }

    fn push_audio(&mut self, packets: Vec<AudioPacket>) -> Result<(), Failure> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        for packet in packets {
            if let Err(error) = encoder.push(packet.time, &packet.data) {
                tracing::warn!(%error, "audio packet dropped by HLS output");
                self.notifier.report(|report| report.dropped += 1);
            }
        }
        self.take_encoded()
    }

    fn take_encoded(&mut self) -> Result<(), Failure> {
        let rendition = self.videos.len();
        while let Ok(frame) = self.encoded.try_recv() {
            // The encoder's first frame precedes the start.
            if self.audio_start.is_some_and(|start| frame.time + FRAME_SAMPLES > start) {
                let pieces = self.sound.push(frame.time, true, frame.data).map_err(failure)?;
                self.send_pieces(rendition, pieces);
            }
        }
        Ok(())
    }

    fn push_frame(&mut self, stream: usize, frame: Frame) -> Result<(), Failure> {
        let video = &mut self.videos[stream];
        if frame.time < ticks(self.start, VIDEO_CLOCK) {
            return Ok(());
        }
        if video.segmenter.is_none() && frame.keyframe {
            let track = TrackSpec::video(video.spec.key.codec, video.spec.size, &frame.data).map_err(failure)?;
            video.segmenter = Some(Segmenter::at_keyframes(track, self.segment, self.part));
        }
        let Some(segmenter) = &mut video.segmenter else { return Ok(()) };
        let pieces = segmenter.push(frame.time, frame.keyframe, frame.data).map_err(failure)?;
        self.send_pieces(stream, pieces);
        Ok(())
    }

    fn send_pieces(&mut self, rendition: usize, pieces: Vec<HlsPiece>) {
        for piece in pieces {
            if let HlsPiece::Cut { at } = &piece
                && rendition == 0
            {
                if self.audio_start.is_none() {
                    let start = ticks(*at, AUDIO_RATE);
                    self.audio_start = Some(start);
                    self.gap_filler.begin(start);
                }
                self.sound.cut_at(*at);
                let pieces = self.captions.cut_at(*at);
                self.send_captions(pieces);
            }
            if let HlsPiece::Part { duration, data, .. } = &piece {
                self.window.1 += data.len() as u64;
                self.notifier.report(|report| {
                    report.state = OutputState::Live;
                    report.bytes += data.len() as u64;
                    if rendition == 0 {
                        report.duration += *duration;
                    }
                });
                if rendition == 0 {
                    self.captions.extend(*duration);
                }
            }
            self.notifier.send(FromOutput::Hls { rendition: rendition as u8, piece });
        }
    }

    /// The captions follow the audio.
    fn send_captions(&mut self, pieces: impl IntoIterator<Item = HlsPiece>) {
        let rendition = self.videos.len() as u8 + 1;
        pieces.into_iter().for_each(|piece| self.notifier.send(FromOutput::Hls { rendition, piece }));
        let dropped = self.captions.take_dropped();
        if dropped > 0 {
            self.notifier.report(|report| report.dropped += dropped);
        }
    }

    /// Requests keyframes at segment boundaries, and when a stream needs one.
    fn request_keyframes(&mut self, now: Timestamp) {
        let at = now.since(self.epoch);
        let due = at >= self.next_keyframe;
        if due {
            self.next_keyframe = multiple_after(at, self.segment);
        }
        for (stream, video) in self.videos.iter_mut().enumerate() {
            if video.frames.take_keyframe_request(now) || due {
                self.notifier.request_keyframe(stream as u8);
            }
        }
    }
}

impl Target for Hls {
    fn video(&mut self, stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let stream = usize::from(stream);
        let Some(video) = self.videos.get_mut(stream) else { return Ok(()) };
        let frame = video.frames.push(packet, now);
        self.request_keyframes(now);
        frame.map_or(Ok(()), |frame| self.push_frame(stream, frame))
    }

    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let packets = self.gap_filler.push(packet, now);
        self.push_audio(packets)
    }

    fn note(&mut self, at: Timestamp, note: Note) -> Result<(), Failure> {
        if let Note::Caption(caption) = note {
            let language = self.captions.add(at.since(self.epoch), caption);
            self.send_captions(language);
        }
        Ok(())
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        self.request_keyframes(now);
        let (began, bytes) = self.window;
        let elapsed = now.since(began);
        if elapsed >= BITRATE_WINDOW {
            self.window = (now, 0);
            self.notifier.report(|report| report.bitrate = bytes * 8_000 / elapsed.as_millis().max(1) as u64);
        }
        let packets = self.gap_filler.tick(now);
        self.push_audio(packets)
    }

    fn finish(&mut self, _now: Timestamp) -> Result<(), Failure> {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish();
        }
        self.take_encoded()?;
        for stream in 0..self.videos.len() {
            let pieces = self.videos[stream].segmenter.as_mut().map(Segmenter::end).transpose().map_err(failure)?;
            self.send_pieces(stream, pieces.unwrap_or_default());
        }
        let pieces = self.sound.end().map_err(failure)?;
        self.send_pieces(self.videos.len(), pieces);
        let last = self.captions.end();
        self.send_captions(last);
        Ok(())
    }
}

fn failure(error: ContainerError) -> Failure {
    Failure(format!("the stream cannot be packaged for HLS: {error}"))
}

/// The next multiple of `step` after `at`.
fn multiple_after(at: Duration, step: Duration) -> Duration {
    let steps = at.as_micros() / step.as_micros().max(1) + 1;
    Duration::from_micros((steps * step.as_micros()) as u64)
}

fn ticks(at: Duration, clock: u32) -> u64 {
    (at.as_micros() * u128::from(clock) / 1_000_000) as u64
}
