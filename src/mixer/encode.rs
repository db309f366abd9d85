//! The encoder of one video stream: canvases become packets.
//!
//! Owns: one encoder and payloader per stream; the choice of the ticks that are encoded, and of those that become
//! keyframes. Does not know: subscribers, the contents of the canvas. In: the canvas of a tick, and keyframe requests.
//! Out: packets in the [`Outbox`], from the encoder's thread.
//!
//! A slide stream on a narrow path skips ticks while its earlier frames, which may exceed the bitrate, are being sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::builder::{Builder, Building};
use super::outbox::Outbox;
use crate::codec::{CodecError, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, VideoEncoder};
use crate::link::FromMixer;
use crate::media::VIDEO_CLOCK;
use crate::plan::StreamSpec;
use crate::tier::packet_bytes;

/// Shortest time between two keyframes. The number of requests does not change it.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);
/// Interval of repeated frames soon after a change of the canvas: each makes the picture sharper.
const REFINE_INTERVAL: Duration = Duration::from_millis(200);
/// Time after a change in which [`REFINE_INTERVAL`] applies.
const REFINE_FOR: Duration = Duration::from_secs(2);
/// Interval of repeated frames later: receivers take a stream without frames for broken.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A stream with so few frames a second or fewer is a slide stream: at the coarsest quantizer a frame may still exceed
/// the bits of one second, and a frame may be skipped. In other streams no frame is skipped.
const SLIDES_FPS: u32 = 2;
/// No slide is encoded while the earlier ones take longer than this to send at the target bitrate.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// Shortest time between two attempts to make an encoder for a stream.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
/// Largest picture, in pixels, that is encoded by one thread. Threads of libvpx wait for each other in a busy loop: two
/// of them take 14 % more CPU time than one on an idle machine, and far more on a busy one.
const ONE_THREAD_PIXELS: u32 = 1920 * 1088;

/// What a stream does with a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Skip: the canvas is unchanged, or earlier slides are still being sent.
    Unchanged,
    /// Encode the canvas.
    Encode {
        /// As a keyframe.
        keyframe: bool,
    },
}

/// Decides which ticks are encoded. Times are since the epoch of the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    fps: u32,
    /// The canvas has changed since the last frame.
    changed: bool,
    changed_at: Duration,
    encoded_at: Option<Duration>,
    keyframe_at: Option<Duration>,
    keyframe_wanted: bool,
    /// When all frames so far are sent, at the target bitrate.
    sent_at: Duration,
}

impl Pace {
    /// The pace of a stream with `fps` frames a second; its first frame is a keyframe.
    pub fn new(fps: u32) -> Self {
        Self {
            fps: fps.max(1),
            changed: true,
            changed_at: Duration::ZERO,
            encoded_at: None,
            keyframe_at: None,
            keyframe_wanted: true,
            sent_at: Duration::ZERO,
        }
    }

    /// The encoder has output `bytes` until tick `n`, with a target bitrate of `kbps` kbit/s.
    pub fn made(&mut self, bytes: u64, kbps: u32, n: u64, scene_fps: u32) {
        let takes = Duration::from_micros(bytes * 8 * 1_000 / u64::from(kbps.max(1)));
        self.sent_at = self.sent_at.max(tick_time(n, scene_fps)) + takes;
    }

    /// A receiver needs a keyframe.
    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Whether tick `n` of a scene with `scene_fps` frames a second belongs to this stream, which may have fewer.
    pub fn takes(&self, n: u64, scene_fps: u32) -> bool {
        let (fps, scene_fps) = (u64::from(self.fps), u64::from(scene_fps.max(1)));
        // The ticks at which the frame number of the stream increases.
        fps >= scene_fps || n * fps % scene_fps < fps
    }

    /// The canvas of tick `n` is new, whether the stream takes that tick or not.
    pub fn changed(&mut self, n: u64, scene_fps: u32) {
        self.changed = true;
        self.changed_at = tick_time(n, scene_fps);
    }

    /// What to do with tick `n`, which it takes.
    pub fn turn(&self, n: u64, scene_fps: u32) -> Turn {
        let at = tick_time(n, scene_fps);
        let since = |then: Option<Duration>| then.map(|then| at.saturating_sub(then));
        let keyframe = self.keyframe_wanted && since(self.keyframe_at).is_none_or(|past| past >= KEYFRAME_INTERVAL);
        let settled = at.saturating_sub(self.changed_at) > REFINE_FOR;
        let repeat = if settled { REPEAT_INTERVAL } else { REFINE_INTERVAL };
        let due = self.changed || since(self.encoded_at).is_none_or(|past| past >= repeat);
        // A requested keyframe is never skipped: its receiver shows nothing.
        let ahead = self.fps <= SLIDES_FPS && self.sent_at.saturating_sub(at) > AHEAD_MAX;
        if keyframe || due && !ahead { Turn::Encode { keyframe } } else { Turn::Unchanged }
    }

    /// The encoder has taken tick `n`.
    pub fn encoded(&mut self, n: u64, scene_fps: u32, keyframe: bool) {
        let at = tick_time(n, scene_fps);
        self.changed = false;
        self.encoded_at = Some(at);
        if keyframe {
            self.keyframe_wanted = false;
            self.keyframe_at = Some(at);
        }
    }
}

/// The time of tick `n` at `fps` ticks a second, since the epoch of the room.
pub fn tick_time(n: u64, fps: u32) -> Duration {
    let fps = u64::from(fps.max(1));
    Duration::from_secs(n / fps) + Duration::from_nanos(n % fps * 1_000_000_000 / fps)
}

/// The RTP timestamp of a time since the epoch of the room.
pub fn rtp_timestamp(at: Duration) -> u32 {
    let fraction = (u64::from(at.subsec_nanos()) * u64::from(VIDEO_CLOCK) + 500_000_000) / 1_000_000_000;
    at.as_secs().wrapping_mul(u64::from(VIDEO_CLOCK)).wrapping_add(fraction) as u32
}

/// Options of all encoders of a mixer.
#[derive(Debug, Clone, Copy)]
pub struct EncodeOptions {
    /// The H.264 encoder.
    pub h264: H264Encoder,
    /// Threads of an encoder for pictures of more than [`ONE_THREAD_PIXELS`].
    pub threads: u32,
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
    /// Skipped by encoders that were replaced, and while there was none.
    skipped: u64,
    /// No further encoder is made before this time.
    replace_at: Duration,
}

enum Encoder {
    /// The builder makes it.
    Building(Building<VideoEncoder>),
    Ready(VideoEncoder),
    /// It has failed, or could not be made.
    Broken,
    /// It cannot be made on this machine.
    Unavailable,
}

impl StreamEncoder {
    /// A stream whose encoder `builder` makes; every encoded frame is counted in `frames`.
    pub fn new(
        spec: StreamSpec,
        options: EncodeOptions,
        outbox: Arc<Outbox>,
        frames: Arc<AtomicU64>,
        builder: &Builder,
    ) -> Self {
        let (pace, made) = (Pace::new(spec.fps), Arc::default());
        let (encoder, replace_at) = (Encoder::Broken, Duration::ZERO);
        let mut stream = Self { spec, options, outbox, frames, made, pace, encoder, skipped: 0, replace_at };
        stream.build(builder, Duration::ZERO);
        stream
    }

    /// The order for this stream.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// Applies a changed order. False if that needs another encoder.
    pub fn follow(&mut self, spec: &StreamSpec) -> bool {
        let bitrate_kbps = spec.bitrate_kbps;
        if self.spec == (StreamSpec { bitrate_kbps: self.spec.bitrate_kbps, ..spec.clone() }) {
            self.spec.bitrate_kbps = bitrate_kbps;
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

    /// Encodes tick `n`, of the stream's own size. A picture is skipped and counted while the encoder is busy or is
    /// being made. An encoder that has failed is replaced, with a keyframe, at most once a second.
    pub fn encode(&mut self, picture: &Picture, n: u64, scene_fps: u32, keyframe: bool, builder: &Builder) {
        let at = tick_time(n, scene_fps);
        self.follow_encoder(at, builder);
        match &mut self.encoder {
            Encoder::Ready(encoder) => {
                if encoder.push(picture, at, keyframe) {
                    self.pace.encoded(n, scene_fps, keyframe);
                }
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
                    self.pace = Pace::new(self.spec.fps);
                    self.encoder = Encoder::Ready(encoder);
                }
                Some(Err(error)) => self.fail(&error),
            },
            Encoder::Ready(encoder) if encoder.failed() => {
                self.skipped += encoder.skipped();
                self.encoder = Encoder::Broken;
            }
            Encoder::Ready(_) | Encoder::Broken | Encoder::Unavailable => {}
        }
        if matches!(self.encoder, Encoder::Broken) && at >= self.replace_at {
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
        };
        let (serial, outbox) = (spec.serial, self.outbox.clone());
        let (frames, made) = (self.frames.clone(), self.made.clone());
        let mut payloader = Payloader::new(spec.key.codec).with_largest(packet_bytes(spec.bitrate_kbps));
        let sink = move |frame: EncodedFrame| {
            frames.fetch_add(1, Ordering::Relaxed);
            made.fetch_add(frame.data.len() as u64, Ordering::Relaxed);
            let packets = payloader.packets(&frame, rtp_timestamp(frame.pts));
            outbox.push_all(packets.into_iter().map(|packet| FromMixer::Video { serial, packet }));
        };
        self.replace_at = at + REPLACE_INTERVAL;
        match builder.build(move || VideoEncoder::new(encode, sink), || {}) {
            Ok(building) => self.encoder = Encoder::Building(building),
            Err(error) => self.fail(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ViewName;
    use crate::media::{Codec, Size, StreamKey, Tier};
    use crate::mixer::builder::tests::{PATIENCE, block};

    /// Runs a pace; returns the ticks that were encoded, each with whether it is a keyframe.
    fn run(pace: &mut Pace, ticks: std::ops::Range<u64>, fps: u32, changed: impl Fn(u64) -> bool) -> Vec<(u64, bool)> {
        let mut encoded = Vec::new();
        for n in ticks {
            if changed(n) {
                pace.changed(n, fps);
            }
            if pace.takes(n, fps)
                && let Turn::Encode { keyframe } = pace.turn(n, fps)
            {
                pace.encoded(n, fps, keyframe);
                encoded.push((n, keyframe));
            }
        }
        encoded
    }

    #[test]
    fn a_changing_canvas_is_encoded_every_tick_and_begins_with_one_keyframe() {
        let encoded = run(&mut Pace::new(30), 100..160, 30, |_| true);
        assert_eq!(encoded.len(), 60);
        assert_eq!(encoded.iter().filter(|(_, key)| *key).map(|(n, _)| *n).collect::<Vec<_>>(), [100]);
    }

    #[test]
    fn a_slower_stream_takes_every_other_tick_on_the_same_grid() {
        let ticks: Vec<u64> = run(&mut Pace::new(15), 0..12, 30, |_| true).into_iter().map(|(n, _)| n).collect();
        assert_eq!(ticks, [0, 2, 4, 6, 8, 10]);
        let ticks = run(&mut Pace::new(20), 0..3000, 30, |_| true).len();
        assert_eq!(ticks, 2000);
    }

    #[test]
    fn an_unchanged_canvas_is_repeated_every_200_ms_and_later_every_500_ms() {
        let mut pace = Pace::new(30);
        let encoded = run(&mut pace, 0..331, 30, |n| n == 0);
        let refined = encoded.iter().filter(|(n, _)| *n <= 60).count();
        let repeated = encoded.iter().filter(|(n, _)| *n > 60).count();
        assert_eq!((refined, repeated), (11, 18));
        assert_eq!(pace.turn(331, 30), Turn::Unchanged);
        pace.changed(331, 30);
        assert_eq!(pace.turn(331, 30), Turn::Encode { keyframe: false }, "a change is encoded at once");
    }

    #[test]
    fn a_keyframe_is_served_at_once_but_not_twice_in_300_ms() {
        let mut pace = Pace::new(30);
        run(&mut pace, 0..300, 30, |n| n == 0);
        pace.want_keyframe();
        assert_eq!(run(&mut pace, 300..301, 30, |_| false), [(300, true)]);
        pace.want_keyframe();
        pace.want_keyframe();
        let keyframes = run(&mut pace, 301..330, 30, |_| true).into_iter().filter(|(_, key)| *key).collect::<Vec<_>>();
        assert_eq!(keyframes, [(309, true)]);
    }

    #[test]
    fn a_keyframe_request_and_a_change_are_kept_until_a_frame_is_encoded() {
        let pace = Pace::new(30);
        assert_eq!(pace.turn(0, 30), Turn::Encode { keyframe: true });
        assert_eq!(pace.turn(1, 30), Turn::Encode { keyframe: true });
    }

    #[test]
    fn slides_larger_than_the_bitrate_are_skipped_and_requested_keyframes_are_not() {
        let mut pace = Pace::new(1);
        let mut encoded = Vec::new();
        for n in 0..60 * 30 {
            pace.changed(n, 30);
            if n == 45 * 30 {
                pace.want_keyframe();
            }
            if pace.takes(n, 30)
                && let Turn::Encode { keyframe } = pace.turn(n, 30)
            {
                pace.encoded(n, 30, keyframe);
                // A frame takes 1.5 s to send, a keyframe 8 s.
                pace.made(if keyframe { 32_000 } else { 6_000 }, 32, n, 30);
                encoded.push((n / 30, keyframe));
            }
        }
        assert_eq!(encoded[..4], [(0, true), (7, false), (9, false), (10, false)]);
        let between = encoded.iter().filter(|(at, _)| (15..45).contains(at)).count();
        assert_eq!(between, 20, "two in three seconds");
        assert_eq!(encoded.iter().filter(|(_, keyframe)| *keyframe).map(|(at, _)| *at).collect::<Vec<_>>(), [0, 45]);
    }

    #[test]
    fn pictures_are_skipped_while_an_encoder_is_made_and_the_first_frame_is_a_keyframe() {
        let size = Size::new(64, 48);
        let key = StreamKey { view: ViewName::program(), codec: Codec::Vp8, tier: Tier::High };
        let spec = StreamSpec { serial: 5, key, size, fps: 30, bitrate_kbps: 200 };
        let options = EncodeOptions { h264: H264Encoder::X264, threads: 1 };
        let (outbox, builder) = (Arc::new(Outbox::default()), Builder::new("test"));
        let gate = block(&builder);
        let mut stream = StreamEncoder::new(spec.clone(), options, outbox.clone(), Arc::default(), &builder);
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
    fn a_codec_that_cannot_be_encoded_takes_no_ticks() {
        let key = StreamKey { view: ViewName::program(), codec: Codec::Av1, tier: Tier::High };
        let spec = StreamSpec { serial: 5, key, size: Size::new(64, 48), fps: 30, bitrate_kbps: 200 };
        let options = EncodeOptions { h264: H264Encoder::X264, threads: 1 };
        let builder = Builder::new("test");
        let mut stream = StreamEncoder::new(spec, options, Arc::default(), Arc::default(), &builder);
        let (tell, built) = std::sync::mpsc::sync_channel(1);
        let behind = builder.build(|| Ok(()), move || tell.send(()).expect("the test waits")).expect("room");
        built.recv_timeout(PATIENCE).expect("built after the encoder");
        drop(behind);
        assert!(stream.takes(0, 30), "not known yet");
        stream.encode(&Picture::filled(Size::new(64, 48), 90, 128, 128), 0, 30, true, &builder);
        assert!(!stream.takes(1, 30));
    }

    proptest! {
        /// Slides of any size exceed the bits that can be sent by at most one second and one slide; and an encoder that
        /// keeps its bitrate has no tick skipped.
        #[test]
        fn slides_do_not_exceed_the_bitrate(kbps in 20..2_000_u32, sizes in prop::collection::vec(0.1..3.0_f64, 300)) {
            let (mut pace, mut bytes) = (Pace::new(1), 0);
            pace.keyframe_wanted = false;
            let share = u64::from(kbps) * 1_000 / 8;
            let mut kept = Pace { ..pace.clone() };
            let frames = sizes.len();
            let mut taken = 0;
            for (n, size) in (0..).zip(sizes) {
                pace.changed(n, 1);
                kept.changed(n, 1);
                if pace.turn(n, 1) != Turn::Unchanged {
                    let size = (share as f64 * size) as u64;
                    pace.encoded(n, 1, false);
                    pace.made(size, kbps, n, 1);
                    bytes += size;
                }
                if kept.turn(n, 1) != Turn::Unchanged {
                    kept.encoded(n, 1, false);
                    kept.made(share, kbps, n, 1);
                    taken += 1;
                }
            }
            prop_assert_eq!(taken, frames);
            let seconds = frames as f64 + AHEAD_MAX.as_secs_f64() + 3.0;
            prop_assert!((bytes * 8) as f64 <= f64::from(kbps) * 1_000.0 * seconds + 1.0, "{bytes} in {seconds} s");
        }

        /// One keyframe answers all requests since the last keyframe, at most 300 ms after the first of them.
        #[test]
        fn a_storm_of_requests_costs_three_keyframes_a_second(asked in prop::collection::vec(0..8_u8, 300)) {
            let mut pace = Pace::new(30);
            run(&mut pace, 0..10, 30, |_| true);
            let (mut keyframes, mut waiting) = (vec![0], None);
            for (n, asked) in (10..).zip(asked) {
                for _ in 0..asked.saturating_sub(4) {
                    pace.want_keyframe();
                    waiting.get_or_insert(n);
                }
                if run(&mut pace, n..n + 1, 30, |_| true) == [(n, true)] {
                    prop_assert!(n - keyframes[keyframes.len() - 1] >= 9, "{:?}, {}", keyframes, n);
                    keyframes.push(n);
                    prop_assert!(waiting.take().is_some(), "the keyframe at {} was not requested", n);
                }
                let in_time = waiting.is_none_or(|since: u64| n - since < 9);
                prop_assert!(in_time, "asked at {:?}, nothing at {}", waiting, n);
            }
        }

        #[test]
        fn timestamps_lie_on_the_grid(
            n in 0u64..1 << 40,
            fps in prop::sample::select(vec![5u32, 10, 15, 25, 30, 50, 60]),
        ) {
            let expected = n.wrapping_mul(u64::from(90_000 / fps)) as u32;
            prop_assert_eq!(rtp_timestamp(tick_time(n, fps)), expected);
        }
    }
}
