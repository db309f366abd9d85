//! The encoder of one video stream: canvases become packets.
//!
//! Owns: one encoder and payloader per stream. Does not know: subscribers, the contents of the canvas, which ticks are
//! encoded ([`Pace`]). In: the canvas of a tick, and keyframe requests. Out: packets in the [`Outbox`], from the
//! encoder's thread, or from the caller's when the last frame is repeated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::builder::{Builder, Building};
use super::effort::EffortControl;
use super::outbox::Outbox;
use super::pace::{Pace, Turn, rtp_timestamp, tick_time};
use crate::codec::{
    CodecError, Effort, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, VideoEncoder, repeat_frame,
};
use crate::link::FromMixer;
use crate::media::Codec;
use crate::plan::StreamSpec;
use crate::tier::packet_bytes;
use crate::time::{Timestamp, now};

/// Shortest time between two attempts to make an encoder for a stream.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
/// Time without a picture to encode after which an encoder is ended: it holds a dozen pictures in memory.
const RELEASE_AFTER: Duration = Duration::from_secs(20);
/// Largest picture, in pixels, that is encoded by one thread. Threads of libvpx wait for each other in a busy loop: two
/// of them take 14 % more CPU time than one on an idle machine, and far more on a busy one.
const ONE_THREAD_PIXELS: u32 = 1920 * 1088;

/// Most pictures that are noted as being encoded: an encoder that outputs no frame for a picture is not followed.
const PENDING_MAX: usize = 8;
/// Share of the cores that one encoder may take, and at most this share of one core.
const BUDGET_SHARE: f64 = 0.15;
const BUDGET_MAX: f64 = 0.6;
/// Share of the cores that all encoders with the best effort may take together, and at most this share of one core.
const BEST_SHARE: f64 = 0.06;
const BEST_MAX: f64 = 0.25;

/// Options of all encoders of a mixer.
#[derive(Debug, Clone, Copy)]
pub struct EncodeOptions {
    /// The H.264 encoder.
    pub h264: H264Encoder,
    /// Threads of an encoder for pictures of more than [`ONE_THREAD_PIXELS`].
    pub threads: u32,
}

impl EncodeOptions {
    /// The share of a core that one encoder may take.
    fn budget(&self) -> f64 {
        (BUDGET_SHARE * f64::from(self.threads)).min(BUDGET_MAX)
    }

    /// The share of a core that all encoders with the best effort may take.
    fn best_budget(&self) -> f64 {
        (BEST_SHARE * f64::from(self.threads)).min(BEST_MAX)
    }
}

/// The encoder of one stream.
pub struct StreamEncoder {
    spec: StreamSpec,
    options: EncodeOptions,
    outbox: Arc<Outbox>,
    frames: Arc<AtomicU64>,
    /// Bytes encoded that the pace does not know yet.
    made: Arc<AtomicU64>,
    pace: Pace,
    encoder: Encoder,
    effort: EffortControl,
    /// The share of a core that the best effort takes; 0 without it.
    best_load: f64,
    /// Where the encoder's frames become packets.
    packets: Arc<Mutex<Packets>>,
    /// Skipped by encoders that were replaced, and while there was none.
    skipped: u64,
    /// No further encoder is made before this time.
    replace_at: Duration,
}

/// The frames of one encoder on their way to the edge.
struct Packets {
    payloader: Payloader,
    /// When each picture that is being encoded was passed to the encoder.
    pending: VecDeque<Timestamp>,
    /// When the encoder output its last frame.
    last: Timestamp,
    /// How long the encoder took for a frame that the effort control does not know yet.
    took: Option<Duration>,
}

enum Encoder {
    /// The builder makes it.
    Building(Building<VideoEncoder>),
    Ready(VideoEncoder),
    /// It was ended, because the canvas did not change for long: the next picture makes another one.
    Released,
    /// It has failed, or could not be made.
    Broken,
    /// It cannot be made on this machine.
    Unavailable,
}

impl StreamEncoder {
    /// A stream whose encoder `builder` makes; every encoded frame is counted in `frames`. `best_load` is the
    /// [`best_load`](Self::best_load) of the mixer's other streams.
    pub fn new(
        spec: StreamSpec,
        options: EncodeOptions,
        best_load: f64,
        outbox: Arc<Outbox>,
        frames: Arc<AtomicU64>,
        builder: &Builder,
    ) -> Self {
        let (pace, made) = (Pace::new(spec.fps, spec.steady), Arc::default());
        let (encoder, replace_at) = (Encoder::Broken, Duration::ZERO);
        let packets = Arc::new(Mutex::new(Packets::new(&spec)));
        let pixels_per_second = u64::from(spec.size.width * spec.size.height) * u64::from(spec.fps);
        let (codec, h264) = (spec.key.codec, options.h264);
        let effort =
            Effort::within(options.budget(), options.best_budget() - best_load, codec, h264, pixels_per_second);
        let best = Some(effort).filter(|effort| *effort == Effort::Best);
        let best_load = best.and_then(|effort| effort.load(codec, h264, pixels_per_second)).unwrap_or_default();
        let effort = EffortControl::new(effort, spec.fps);
        let mut stream = Self {
            spec,
            options,
            outbox,
            frames,
            made,
            pace,
            encoder,
            effort,
            best_load,
            packets,
            skipped: 0,
            replace_at,
        };
        stream.build(builder, Duration::ZERO);
        stream
    }

    /// The order for this stream.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// The share of a core that the best effort of this stream takes; 0 without it.
    pub fn best_load(&self) -> f64 {
        self.best_load
    }

    /// Applies a changed order. False if that needs another encoder.
    pub fn follow(&mut self, spec: &StreamSpec) -> bool {
        let StreamSpec { bitrate_kbps, steady, .. } = *spec;
        let StreamSpec { bitrate_kbps: bitrate_before, steady: steady_before, .. } = self.spec;
        if self.spec == (StreamSpec { bitrate_kbps: bitrate_before, steady: steady_before, ..spec.clone() }) {
            (self.spec.bitrate_kbps, self.spec.steady) = (bitrate_kbps, steady);
            self.pace.set_steady(steady);
            if let Encoder::Ready(encoder) = &mut self.encoder {
                encoder.set_bitrate(bitrate_kbps);
            }
            return true;
        }
        false
    }

    /// A receiver needs a keyframe.
    pub fn want_keyframe(&mut self) {
        self.pace.want_keyframe();
    }

    /// Whether tick `n` is one of this stream's; none is when its codec cannot be encoded.
    pub fn takes(&self, n: u64, scene_fps: u32) -> bool {
        !matches!(self.encoder, Encoder::Unavailable) && self.pace.takes(n, scene_fps)
    }

    /// The canvas of tick `n` is new, whether the stream takes that tick or not.
    pub fn changed(&mut self, n: u64, scene_fps: u32) {
        self.pace.changed(n, scene_fps);
    }

    /// What to do with tick `n`, which it takes.
    pub fn turn(&mut self, n: u64, scene_fps: u32) -> Turn {
        self.pace.made(self.made.swap(0, Ordering::Relaxed), self.spec.bitrate_kbps, n, scene_fps);
        self.pace.turn(n, scene_fps)
    }

    /// The first tick after `n` with something to do if the canvas does not change; None when its codec cannot be
    /// encoded.
    pub fn next(&self, n: u64, scene_fps: u32) -> Option<u64> {
        match &self.encoder {
            Encoder::Ready(_) | Encoder::Released => Some(self.pace.next(n, scene_fps)),
            Encoder::Building(_) | Encoder::Broken => Some(n + 1),
            Encoder::Unavailable => None,
        }
    }

    /// Shows receivers the last frame once more, in tick `n`. False if the canvas must be encoded instead: only VP8 has
    /// a frame for this, and the encoder must have output all its pictures.
    pub fn repeat(&mut self, n: u64, scene_fps: u32) -> bool {
        let at = tick_time(n, scene_fps);
        let is_ready = match &self.encoder {
            Encoder::Ready(encoder) => !encoder.failed(),
            Encoder::Released => true,
            Encoder::Building(_) | Encoder::Broken | Encoder::Unavailable => false,
        };
        if !is_ready || self.spec.key.codec != Codec::Vp8 {
            return false;
        }
        let mut packets = self.packets.lock();
        if !packets.pending.is_empty() {
            return false;
        }
        let frame = EncodedFrame { data: repeat_frame(self.spec.size), keyframe: false, pts: at };
        packets.send(&frame, self.spec.serial, &self.outbox);
        self.pace.repeated(n, scene_fps);
        drop(packets);
        if self.pace.unchanged_for(n, scene_fps) > RELEASE_AFTER
            && let Encoder::Ready(encoder) = std::mem::replace(&mut self.encoder, Encoder::Released)
        {
            self.skipped += encoder.skipped();
        }
        true
    }

    /// Encodes tick `n`, of the stream's own size. A picture is skipped and counted while the encoder is busy or is
    /// being made. An encoder that has failed is replaced, with a keyframe, at most once a second.
    pub fn encode(&mut self, picture: &Picture, n: u64, scene_fps: u32, keyframe: bool, builder: &Builder) {
        let at = tick_time(n, scene_fps);
        self.follow_encoder(at, builder);
        match &mut self.encoder {
            Encoder::Ready(encoder) => {
                // The encoder may be done before the call returns.
                self.packets.lock().begin(now());
                if encoder.push(picture, at, keyframe) {
                    self.pace.encoded(n, scene_fps, keyframe);
                } else {
                    self.packets.lock().pending.pop_back();
                }
                self.follow_load(at, builder);
            }
            _ => self.skipped += 1,
        }
    }

    /// Pictures skipped because the encoder was busy or was being made.
    pub fn skipped(&self) -> u64 {
        self.skipped + if let Encoder::Ready(encoder) = &self.encoder { encoder.skipped() } else { 0 }
    }

    /// Takes a finished encoder from the builder, detects a failed one, and orders another one when it may.
    fn follow_encoder(&mut self, at: Duration, builder: &Builder) {
        match &mut self.encoder {
            Encoder::Building(building) => match building.take() {
                None => {}
                Some(Ok(mut encoder)) => {
                    encoder.set_bitrate(self.spec.bitrate_kbps);
                    // The first frame of an encoder is a keyframe.
                    self.pace = Pace::new(self.spec.fps, self.spec.steady);
                    self.encoder = Encoder::Ready(encoder);
                }
                Some(Err(error)) => self.fail(&error),
            },
            Encoder::Ready(encoder) if encoder.failed() => {
                self.skipped += encoder.skipped();
                self.encoder = Encoder::Broken;
            }
            Encoder::Ready(_) | Encoder::Released | Encoder::Broken | Encoder::Unavailable => {}
        }
        let is_wanted = matches!(self.encoder, Encoder::Released)
            || matches!(self.encoder, Encoder::Broken) && at >= self.replace_at;
        if is_wanted {
            self.build(builder, at);
        }
    }

    /// Applies another effort if the encoder takes too long, or has time left.
    fn follow_load(&mut self, at: Duration, builder: &Builder) {
        let Some(took) = self.packets.lock().took.take() else { return };
        let Some(effort) = self.effort.encoded(took, at) else { return };
        tracing::info!(stream = %self.spec.key, ?effort, "load of the encoder: effort changed");
        if let Encoder::Ready(encoder) = &mut self.encoder
            && !encoder.set_effort(effort)
        {
            self.skipped += encoder.skipped();
            self.build(builder, at);
        }
    }

    fn fail(&mut self, error: &CodecError) {
        tracing::error!(stream = %self.spec.key, %error, "stream cannot be encoded");
        self.encoder = if error.is_permanent() { Encoder::Unavailable } else { Encoder::Broken };
    }

    fn build(&mut self, builder: &Builder, at: Duration) {
        let (spec, options) = (&self.spec, self.options);
        let encode = EncodeSpec {
            codec: spec.key.codec,
            size: spec.size,
            fps: spec.fps,
            bitrate_kbps: spec.bitrate_kbps,
            h264: options.h264,
            threads: if spec.size.width * spec.size.height > ONE_THREAD_PIXELS { options.threads } else { 1 },
            effort: self.effort.effort(),
        };
        let (serial, outbox) = (spec.serial, self.outbox.clone());
        let (frames, made) = (self.frames.clone(), self.made.clone());
        let packets = Arc::new(Mutex::new(Packets::new(spec)));
        self.packets = packets.clone();
        let sink = move |frame: EncodedFrame| {
            frames.fetch_add(1, Ordering::Relaxed);
            made.fetch_add(frame.data.len() as u64, Ordering::Relaxed);
            let mut packets = packets.lock();
            packets.end(now());
            packets.send(&frame, serial, &outbox);
        };
        self.replace_at = at + REPLACE_INTERVAL;
        match builder.build(move || VideoEncoder::new(encode, sink), || {}) {
            Ok(building) => self.encoder = Encoder::Building(building),
            Err(error) => self.fail(&error),
        }
    }
}

impl Packets {
    fn new(spec: &StreamSpec) -> Self {
        let payloader = Payloader::new(spec.key.codec).with_largest(packet_bytes(spec.bitrate_kbps));
        Self { payloader, pending: VecDeque::new(), last: Timestamp::default(), took: None }
    }

    /// A picture is passed to the encoder.
    fn begin(&mut self, now: Timestamp) {
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(now);
    }

    /// The encoder outputs a frame. It works at one picture at a time.
    fn end(&mut self, now: Timestamp) {
        if let Some(began) = self.pending.pop_front() {
            self.took = Some(now.since(began.max(self.last)));
        }
        self.last = now;
    }

    /// Sends a frame. The caller holds the lock until the outbox has it, so that frames stay in order.
    fn send(&mut self, frame: &EncodedFrame, serial: u32, outbox: &Outbox) {
        let packets = self.payloader.packets(frame, rtp_timestamp(frame.pts));
        outbox.push_all(packets.into_iter().map(|packet| FromMixer::Video { serial, packet }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ViewName;
    use crate::media::{Size, StreamKey, Tier};
    use crate::mixer::builder::tests::{PATIENCE, block};
    use crate::tier::{Ladder, TierSpec};

    #[test]
    fn pictures_are_skipped_while_an_encoder_is_made_and_the_first_frame_is_a_keyframe() {
        let size = Size::new(64, 48);
        let key = StreamKey { view: ViewName::program(), codec: Codec::Vp8, tier: Tier::High };
        let spec = StreamSpec { serial: 5, key, size, fps: 30, bitrate_kbps: 200, steady: false };
        let options = EncodeOptions { h264: H264Encoder::X264, threads: 1 };
        let (outbox, builder) = (Arc::new(Outbox::default()), Builder::new("test"));
        let gate = block(&builder);
        let mut stream = StreamEncoder::new(spec.clone(), options, 0.0, outbox.clone(), Arc::default(), &builder);
        let picture = Picture::filled(size, 90, 128, 128);
        for n in 0..4 {
            assert_eq!(stream.turn(n, 30), Turn::Encode { keyframe: true });
            stream.encode(&picture, n, 30, true, &builder);
        }
        assert_eq!(stream.skipped(), 4, "counted");
        assert!(stream.follow(&StreamSpec { bitrate_kbps: 300, ..spec }), "another bitrate needs no other encoder");
        let (tell, built) = std::sync::mpsc::sync_channel(1);
        let behind = builder.build(|| Ok(()), move || tell.send(()).expect("the test waits")).expect("room");
        drop(gate);
        built.recv_timeout(PATIENCE).expect("built after the encoder");
        drop(behind);
        assert_eq!(stream.turn(4, 30), Turn::Encode { keyframe: true });
        stream.encode(&picture, 4, 30, true, &builder);
        let mut messages = Vec::new();
        assert!(outbox.take(&mut messages));
        let FromMixer::Video { serial, packet } = &messages[0] else { panic!("{messages:?}") };
        assert_eq!((*serial, packet.starts_keyframe, packet.timestamp), (5, true, 4 * 3_000));
        assert_eq!((stream.skipped(), stream.spec().bitrate_kbps), (4, 300));
    }

    #[test]
    fn thin_streams_are_encoded_with_the_best_effort_while_their_budget_lasts() {
        let ladder = Ladder::default();
        let efforts = |codec, h264, threads, tiers: &[Tier]| -> Vec<Effort> {
            let builder = Builder::new("test");
            let mut streams: Vec<StreamEncoder> = Vec::new();
            for (tier, serial) in tiers.iter().zip(0..) {
                let TierSpec { size, fps, bitrate_kbps } = ladder.spec(*tier).expect("a tier with video");
                let key = StreamKey { view: ViewName::program(), codec, tier: *tier };
                let spec = StreamSpec { serial, key, size, fps, bitrate_kbps, steady: false };
                let best_load = streams.iter().map(StreamEncoder::best_load).sum();
                let options = EncodeOptions { h264, threads };
                let (outbox, frames) = (Arc::default(), Arc::default());
                streams.push(StreamEncoder::new(spec, options, best_load, outbox, frames, &builder));
            }
            streams.iter().map(|stream| stream.effort.effort()).collect()
        };
        let (best, good) = (Effort::Best, Effort::Good);
        let tiers = [Tier::High, Tier::Medium, Tier::Low, Tier::Slides];
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
            let all = efforts(codec, H264Encoder::X264, 2, &tiers);
            assert_eq!(all[1..], [good, best, best], "{codec}");
            assert_eq!(efforts(codec, H264Encoder::X264, 1, &tiers[2..]), [good, best], "{codec} on one core");
        }
        let views = [Tier::Low, Tier::Low, Tier::Slides, Tier::Slides, Tier::Slides];
        assert_eq!(efforts(Codec::Vp8, H264Encoder::X264, 2, &views), [best, good, best, best, good], "one budget");
        assert_eq!(efforts(Codec::H264, H264Encoder::OpenH264, 2, &views), [good; 5], "it has no such effort");
    }

    #[test]
    fn a_codec_that_cannot_be_encoded_takes_no_ticks() {
        let key = StreamKey { view: ViewName::program(), codec: Codec::Av1, tier: Tier::High };
        let spec = StreamSpec { serial: 5, key, size: Size::new(64, 48), fps: 30, bitrate_kbps: 200, steady: false };
        let options = EncodeOptions { h264: H264Encoder::X264, threads: 1 };
        let builder = Builder::new("test");
        let mut stream = StreamEncoder::new(spec, options, 0.0, Arc::default(), Arc::default(), &builder);
        let (tell, built) = std::sync::mpsc::sync_channel(1);
        let behind = builder.build(|| Ok(()), move || tell.send(()).expect("the test waits")).expect("room");
        built.recv_timeout(PATIENCE).expect("built after the encoder");
        drop(behind);
        assert!(stream.takes(0, 30), "not known yet");
        stream.encode(&Picture::filled(Size::new(64, 48), 90, 128, 128), 0, 30, true, &builder);
        assert!(!stream.takes(1, 30));
    }
}
