//! AAC-LC, for formats and protocols without Opus: MP4 players, HLS, RTMP, MPEG-TS.
//!
//! Owns: one encoder pipeline each, and the timeline: frames follow each other without a gap for any input. Does not
//! know: sources, container formats. In: samples or Opus packets with their times. Out: frames with their times, by
//! callback on the encoder's thread. Times are in samples at 48 kHz since the epoch of the owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app::AppSinkCallbacks;
use parking_lot::Mutex;

use super::sound::SoundDecoder;
use super::{CodecError, Feature, init};
use crate::media::{AUDIO_RATE, Codec};
use crate::pipeline::{AacHoles, Pipeline, Recipe};

/// Samples per frame.
pub const FRAME_SAMPLES: u64 = 1024;
/// The AudioSpecificConfig of every stream (ISO/IEC 14496-3 section 1.6.2.1): AAC-LC, 48 kHz, one channel.
pub const AUDIO_SPECIFIC_CONFIG: [u8; 2] = [0x11, 0x88];
/// The default bitrate in bit/s, for speech and music.
pub const DEFAULT_BITRATE: u32 = 128_000;

/// Delay of the encoder in samples: one frame, because neighbouring frames overlap.
const ENCODER_DELAY: u64 = FRAME_SAMPLES;
/// Delay of libopus in samples at 48 kHz: 6.5 ms (the pre-skip of RFC 7845).
const OPUS_DELAY: u64 = 312;
/// Most buffers in the queue of the encoder: 4 s of ticks.
const QUEUE: u32 = 200;
/// Longest gap that is filled with silence. After a longer one another encoder begins.
const GAP_MAX: u64 = 10 * AUDIO_RATE as u64;
/// Longest gap between packets that the Opus decoder conceals; a longer one becomes silence.
const CONCEAL_MAX: u64 = AUDIO_RATE as u64 * 120 / 1000;
/// Longest wait for the last frames.
const FINISH: Duration = Duration::from_secs(2);

/// One AAC frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AacFrame {
    /// The frame without an ADTS header.
    pub data: Bytes,
    /// The time of its first sample. The decoder output for this frame covers [`FRAME_SAMPLES`] from here.
    pub time: u64,
}

type Sink = Arc<Mutex<Box<dyn FnMut(AacFrame) + Send>>>;

/// Encodes samples as AAC frames.
///
/// The first frame begins [`FRAME_SAMPLES`] before the first sample and is silent; a decoder needs it to decode the
/// second one completely. It is omitted if it would begin before the epoch.
pub struct AacEncoder {
    bitrate: u32,
    sink: Sink,
    running: Option<Running>,
    /// The time of the next sample.
    next: u64,
}

/// The pipeline of an encoder, from its first sample on.
struct Running {
    pipeline: Pipeline,
    /// Samples pushed.
    taken: u64,
    failed: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl AacEncoder {
    /// An encoder with this bitrate in bit/s. `sink` is called on the encoder's thread.
    ///
    /// # Errors
    /// GStreamer does not start, or the encoder is not installed.
    pub fn new(bitrate: u32, sink: impl FnMut(AacFrame) + Send + 'static) -> Result<Self, CodecError> {
        init()?;
        Feature::Aac.check()?;
        Ok(Self { bitrate, sink: Arc::new(Mutex::new(Box::new(sink))), running: None, next: 0 })
    }

    /// Encodes mono samples at 48 kHz that begin at `time`. A gap before them of up to 10 s is filled with silence, and
    /// a longer one is skipped; samples before the end of the earlier ones are dropped.
    ///
    /// # Errors
    /// [`CodecError::Behind`]: nothing was taken; push the samples again later. [`CodecError::Failed`]: the encoder has
    /// failed.
    pub fn push(&mut self, time: u64, samples: &[f32]) -> Result<(), CodecError> {
        let running = match self.running.take() {
            Some(running) if time <= self.next + GAP_MAX => self.running.insert(running),
            previous => {
                if let Some(running) = previous {
                    running.finish();
                }
                self.next = time;
                self.running.insert(Running::start(self.bitrate, time, self.sink.clone())?)
            }
        };
        let fresh = samples.get(self.next.saturating_sub(time) as usize..).unwrap_or_default();
        if fresh.is_empty() {
            return Ok(());
        }
        let silence = time.saturating_sub(self.next);
        running.push(silence, fresh)?;
        self.next += silence + fresh.len() as u64;
        Ok(())
    }

    /// Whether the queue is so full that [`AacEncoder::push`] may fail.
    pub fn is_behind(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.pipeline.waiting() >= u64::from(QUEUE / 2))
    }

    /// Ends the stream: pads the last frame with silence, and waits until all frames are encoded.
    pub fn finish(mut self) {
        if let Some(running) = self.running.take() {
            running.finish();
        }
    }
}

impl Running {
    fn start(bitrate: u32, first: u64, sink: Sink) -> Result<Self, CodecError> {
        let pipeline = Pipeline::new(Recipe::EncodeAac(AacHoles { bitrate_bps: bitrate, queue: QUEUE }))?;
        let failed = Arc::new(AtomicBool::new(false));
        let (ending, ended) = sync_channel(1);
        let mut end = first;
        pipeline.sink().set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let data = take(&sample).ok_or(gst::FlowError::Error)?;
                    // Counted, because the timestamps of GStreamer do not include the delay of the encoder.
                    if let Some(time) = end.checked_sub(ENCODER_DELAY) {
                        (sink.lock())(AacFrame { data, time });
                    }
                    end += FRAME_SAMPLES;
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| {
                    let _ = ending.try_send(());
                })
                .build(),
        );
        let fault = failed.clone();
        pipeline.play(move |reason| {
            tracing::error!(reason, "AAC encoder failed");
            fault.store(true, Ordering::Release);
        })?;
        Ok(Self { pipeline, taken: 0, failed, ended })
    }

    fn push(&mut self, silence: u64, samples: &[f32]) -> Result<(), CodecError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(CodecError::Failed);
        }
        let waiting = self.pipeline.waiting();
        if waiting >= u64::from(QUEUE) {
            return Err(CodecError::Behind(waiting));
        }
        let silence = std::iter::repeat_n(0.0f32, silence as usize);
        let bytes: Vec<u8> = silence.chain(samples.iter().copied()).flat_map(f32::to_le_bytes).collect();
        let count = (bytes.len() / size_of::<f32>()) as u64;
        let mut buffer = gst::Buffer::from_slice(bytes);
        let fields = buffer.get_mut().expect("just made");
        fields.set_pts(at(self.taken));
        fields.set_duration(at(self.taken + count) - at(self.taken));
        self.pipeline.source().push_buffer(buffer).map_err(|_| CodecError::Failed)?;
        self.taken += count;
        Ok(())
    }

    fn finish(self) {
        if self.pipeline.source().end_of_stream().is_ok() && self.ended.recv_timeout(FINISH).is_err() {
            tracing::warn!("AAC encoder did not return its last frames in time");
        }
        self.pipeline.end();
    }
}

/// The time of a sample as a GStreamer time.
fn at(samples: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds((u128::from(samples) * 1_000_000_000 / u128::from(AUDIO_RATE)) as u64)
}

fn take(sample: &gst::Sample) -> Option<Bytes> {
    Some(Bytes::from_owner(sample.buffer_owned()?.into_mapped_buffer_readable().ok()?))
}

/// Transcodes Opus packets to AAC frames.
pub struct OpusToAac {
    decoder: SoundDecoder,
    encoder: AacEncoder,
    /// The time of the next packet; None before the first.
    next: Option<u64>,
}

impl OpusToAac {
    /// Like [`AacEncoder::new`].
    ///
    /// # Errors
    /// GStreamer does not start, or the encoder is not installed.
    pub fn new(bitrate: u32, sink: impl FnMut(AacFrame) + Send + 'static) -> Result<Self, CodecError> {
        let decoder = SoundDecoder::new(Codec::Opus).map_err(|error| CodecError::Start(error.to_string()))?;
        Ok(Self { decoder, encoder: AacEncoder::new(bitrate, sink)?, next: None })
    }

    /// Transcodes the Opus packet whose samples were pushed to its encoder at `time`. Lost packets before it are
    /// concealed; a gap of more than 120 ms becomes silence.
    ///
    /// # Errors
    /// [`CodecError::Malformed`]: not an Opus packet. [`CodecError::Behind`]: the packet is dropped, and the stream
    /// continues with the next one. [`CodecError::Failed`]: the encoder has failed.
    pub fn push(&mut self, time: u64, packet: &[u8]) -> Result<(), CodecError> {
        if let Some(lost) = self.next.and_then(|next| time.checked_sub(next)).filter(|lost| *lost > 0)
            && lost <= CONCEAL_MAX
        {
            let concealed = self.decoder.conceal(lost as usize, Some(packet));
            push_decoded(&mut self.encoder, time - lost, concealed)?;
        }
        let samples = self.decoder.decode(packet).map_err(|error| {
            tracing::debug!(%error, "audio packet dropped");
            CodecError::Malformed { codec: Codec::Opus, reason: "not a packet of sound" }
        })?;
        self.next = Some(time + samples.len() as u64);
        push_decoded(&mut self.encoder, time, samples)
    }

    /// Like [`AacEncoder::is_behind`].
    pub fn is_behind(&self) -> bool {
        self.encoder.is_behind()
    }

    /// Like [`AacEncoder::finish`].
    pub fn finish(self) {
        self.encoder.finish();
    }
}

/// Encodes the decoded samples of a packet, which are older than its time by the delay of libopus. Samples before the
/// epoch are dropped.
fn push_decoded(encoder: &mut AacEncoder, time: u64, samples: &[f32]) -> Result<(), CodecError> {
    let early = OPUS_DELAY.saturating_sub(time) as usize;
    encoder.push(time.saturating_sub(OPUS_DELAY), samples.get(early..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use gstreamer::prelude::*;
    use gstreamer_app::{AppSink, AppSrc};
    use proptest::prelude::*;

    use super::*;
    use crate::codec::sound::{OpusEncoder, OpusSettings, Purpose};
    use crate::media::AUDIO_TICK_SAMPLES;

    const TICK: u64 = AUDIO_TICK_SAMPLES as u64;

    /// A sink that keeps frames, and the frames.
    fn keeper() -> (impl FnMut(AacFrame) + Send + 'static, Arc<Mutex<Vec<AacFrame>>>) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeping = kept.clone();
        (move |frame| keeping.lock().push(frame), kept)
    }

    /// The output of a decoder: [`FRAME_SAMPLES`] samples per frame.
    fn decoded(frames: &[AacFrame]) -> Vec<Vec<f32>> {
        let [a, b] = AUDIO_SPECIFIC_CONFIG;
        let text = format!(
            "appsrc name=in format=time \
             caps=audio/mpeg,mpegversion=4,stream-format=raw,framed=true,rate=48000,channels=1,codec_data=(buffer){a:02x}{b:02x} ! avdec_aac max-errors=0 ! appsink name=out sync=false"
        );
        let pipeline = gst::parse::launch(&text).expect("installed").downcast::<gst::Pipeline>().expect("a pipeline");
        let source: AppSrc = pipeline.by_name("in").expect("named").downcast().expect("appsrc");
        let sink: AppSink = pipeline.by_name("out").expect("named").downcast().expect("appsink");
        pipeline.set_state(gst::State::Playing).expect("plays");
        for (n, frame) in frames.iter().enumerate() {
            let mut buffer = gst::Buffer::from_slice(frame.data.clone());
            buffer.get_mut().expect("just made").set_pts(at(n as u64 * FRAME_SAMPLES));
            source.push_buffer(buffer).expect("taken");
        }
        source.end_of_stream().expect("taken");
        let mut pieces = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            let map = sample.buffer().expect("sound").map_readable().expect("in memory");
            pieces.push(map.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
        }
        pipeline.set_state(gst::State::Null).expect("ends");
        pieces
    }

    /// The time of the loudest sample.
    fn click_at(frames: &[AacFrame]) -> u64 {
        let pieces = decoded(frames);
        assert_eq!(pieces.len(), frames.len(), "one piece a frame");
        let samples = frames.iter().zip(&pieces).flat_map(|(frame, piece)| {
            assert_eq!(piece.len() as u64, FRAME_SAMPLES);
            piece.iter().enumerate().map(|(i, sample)| (frame.time + i as u64, sample.abs()))
        });
        samples.max_by(|a, b| a.1.total_cmp(&b.1)).expect("something is heard").0
    }

    fn is_continuous(frames: &[AacFrame]) -> bool {
        frames.windows(2).all(|pair| pair[1].time == pair[0].time + FRAME_SAMPLES)
    }

    /// One tick, with a click of 1 ms at `at` if that is within the tick.
    fn tick_with_click(time: u64, at: u64) -> [f32; AUDIO_TICK_SAMPLES] {
        std::array::from_fn(|i| {
            let distance = (time + i as u64) as f32 - at as f32;
            0.9 * (-(distance / 12.0).powi(2)).exp() * (TAU * distance / 24.0).cos()
        })
    }

    #[test]
    fn a_click_stays_where_it_is() {
        for (epoch, click) in [(0, 25_000), (1_000_000, 1_030_123)] {
            let (sink, kept) = keeper();
            let mut encoder = AacEncoder::new(DEFAULT_BITRATE, sink).expect("installed");
            for n in 0..50 {
                let time = epoch + n * TICK;
                encoder.push(time, &tick_with_click(time, click)).expect("taken");
            }
            encoder.finish();
            let frames = kept.lock().clone();
            assert!(is_continuous(&frames));
            assert_eq!(
                frames[0].time,
                epoch.saturating_sub(FRAME_SAMPLES),
                "the silent frame, where there is time for it"
            );
            let end = frames.last().expect("frames").time + FRAME_SAMPLES;
            assert!((epoch + 50 * TICK..epoch + 50 * TICK + 2 * FRAME_SAMPLES).contains(&end), "{end}");
            let heard = click_at(&frames);
            assert!(heard.abs_diff(click) <= 4, "a click at {click} is heard at {heard}");
        }
    }

    #[test]
    fn a_click_in_opus_stays_where_it_is() {
        for purpose in [Purpose::Voice, Purpose::Music] {
            let (sink, kept) = keeper();
            let settings = OpusSettings { purpose, bitrate: 96_000, ..OpusSettings::default() };
            let (mut opus, mut aac) =
                (OpusEncoder::new(settings), OpusToAac::new(DEFAULT_BITRATE, sink).expect("installed"));
            for n in 0..50 {
                let packet = opus.encode(&tick_with_click(n * TICK, 25_000)).expect("samples are fine");
                // One packet is lost, long before the click.
                if n != 5 {
                    aac.push(n * TICK, &packet).expect("taken");
                }
            }
            aac.finish();
            let frames = kept.lock().clone();
            assert!(is_continuous(&frames));
            let heard = click_at(&frames);
            assert!(heard.abs_diff(25_000) <= 24, "a click at 25000 is heard at {heard}");
        }
    }

    #[test]
    fn the_configuration_is_what_the_encoder_says_and_the_bitrate_is_kept() {
        let (sink, kept) = keeper();
        let mut encoder = AacEncoder::new(64_000, sink).expect("installed");
        let mut seed = 1u32;
        for n in 0..250 {
            let noise: [f32; AUDIO_TICK_SAMPLES] = std::array::from_fn(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 9) as f32 / 8_388_608.0 - 0.5
            });
            while let Err(CodecError::Behind(_)) = encoder.push(n * TICK, &noise) {
                std::thread::yield_now();
            }
        }
        let caps = encoder.running.as_ref().expect("started").pipeline.sink().static_pad("sink").expect("its pad");
        let caps = caps.current_caps().expect("frames came");
        let config: gst::Buffer = caps.structure(0).expect("one").get("codec_data").expect("an AAC encoder says it");
        assert_eq!(config.map_readable().expect("in memory")[..2], AUDIO_SPECIFIC_CONFIG);
        encoder.finish();
        let bits: usize = kept.lock().iter().map(|frame| frame.data.len() * 8).sum();
        assert!((48_000..=80_000).contains(&(bits / 5)), "{} bit/s", bits / 5);
    }

    #[test]
    fn a_long_gap_is_skipped_and_what_is_no_sound_is_an_error() {
        let (sink, kept) = keeper();
        let mut aac = OpusToAac::new(DEFAULT_BITRATE, sink).expect("installed");
        let packet = OpusEncoder::new(OpusSettings::default()).encode(&[0.1; AUDIO_TICK_SAMPLES]).expect("fine");
        let far = 3600 * u64::from(AUDIO_RATE);
        aac.push(0, &packet).expect("taken");
        assert!(matches!(aac.push(TICK, &[]), Err(CodecError::Malformed { .. })));
        aac.push(far, &packet).expect("taken");
        aac.finish();
        let times: Vec<u64> = kept.lock().iter().map(|frame| frame.time).collect();
        let begins = far - OPUS_DELAY - FRAME_SAMPLES;
        assert_eq!(times, [0, begins, begins + FRAME_SAMPLES]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Gaps, overlaps and buffers of any length give one timeline without gaps, as long as the input.
        #[test]
        fn the_time_line_has_no_seam(steps in prop::collection::vec((-2_000i64..4_000, 1usize..3_000), 1..20)) {
            let (sink, kept) = keeper();
            let mut encoder = AacEncoder::new(DEFAULT_BITRATE, sink).expect("installed");
            let (mut time, mut end) = (5_000i64, 0);
            for (gap, length) in steps {
                time = (time + gap).max(5_000);
                encoder.push(time as u64, &vec![0.1; length]).expect("taken");
                time += length as i64;
                end = end.max(time as u64);
            }
            encoder.finish();
            let frames = kept.lock().clone();
            prop_assert!(is_continuous(&frames));
            let last = frames.last().expect("frames").time + FRAME_SAMPLES;
            prop_assert!((end..end + 2 * FRAME_SAMPLES).contains(&last), "ends at {last}, pushed until {end}");
        }
    }
}
