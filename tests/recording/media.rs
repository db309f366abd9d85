//! Synthetic media: a moving bar and a tone, encoded as the mixer encodes them.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use commingle::codec::aac::{AUDIO_SPECIFIC_CONFIG, AacEncoder, DEFAULT_BITRATE};
use commingle::codec::sound::{OpusEncoder, OpusSettings};
use commingle::codec::{Effort, EncodeSpec, H264Encoder, Picture, PictureMut, VideoEncoder};
use commingle::container::{Sample, TrackSpec};
use commingle::media::{AUDIO_TICK_SAMPLES, Codec, Size};

pub const SIZE: Size = Size::new(320, 180);
pub const FPS: u64 = 30;
/// Duration of a frame in ticks of 90 kHz.
pub const FRAME: u32 = 3_000;
/// Keyframe interval in frames.
pub const KEYFRAMES: u64 = 60;

const WAIT: Duration = Duration::from_secs(10);

/// One tick of a 440 Hz tone.
fn tone(tick: u64) -> [f32; AUDIO_TICK_SAMPLES] {
    std::array::from_fn(|i| {
        let at = tick * AUDIO_TICK_SAMPLES as u64 + i as u64;
        0.3 * (std::f32::consts::TAU * 440.0 * (at % 48_000) as f32 / 48_000.0).sin()
    })
}

/// A picture with a bar that moves with each frame.
fn picture(frame: u64, size: Size) -> Picture {
    let mut picture = PictureMut::new(size);
    let (planes, strides) = picture.planes();
    let [luma, u, v] = planes;
    for (row, line) in luma.chunks_mut(strides[0]).enumerate() {
        let lit = row as u64 / 6 == frame % 30;
        line.fill(if lit { 220 } else { 60 });
    }
    u.fill(120);
    v.fill(140);
    picture.freeze()
}

/// A video track with `frames` frames.
pub fn video(track: usize, codec: Codec, frames: u64) -> (TrackSpec, Vec<Sample>) {
    video_of(track, codec, frames, SIZE)
}

/// A video track of a given size.
pub fn video_of(track: usize, codec: Codec, frames: u64, size: Size) -> (TrackSpec, Vec<Sample>) {
    let (sender, encoded) = sync_channel(4);
    let spec = EncodeSpec {
        codec,
        size,
        fps: FPS as u32,
        bitrate_kbps: 300,
        h264: H264Encoder::X264,
        threads: 1,
        effort: Effort::Fast,
    };
    let mut encoder = VideoEncoder::new(spec, move |frame| {
        let _ = sender.try_send(frame);
    })
    .expect("installed");
    let mut samples = Vec::new();
    for i in 0..frames {
        let pts = Duration::from_micros(i * 1_000_000 / FPS);
        assert!(encoder.push(&picture(i, size), pts, i % KEYFRAMES == 0), "busy with an empty queue");
        let frame = encoded.recv_timeout(WAIT).expect("one in, one out");
        let time = i * u64::from(FRAME);
        samples.push(Sample { track, time, duration: FRAME, keyframe: frame.keyframe, data: frame.data });
    }
    let spec = TrackSpec::video(codec, size, &samples[0].data).expect("begins with a keyframe");
    (spec.named("program"), samples)
}

/// An Opus track with `packets` packets of 20 ms.
pub fn opus(track: usize, packets: u64) -> (TrackSpec, Vec<Sample>) {
    let mut encoder = OpusEncoder::new(OpusSettings::default());
    let samples = (0..packets).map(|i| {
        let data = encoder.encode(&tone(i)).expect("a tone is fine");
        let duration = AUDIO_TICK_SAMPLES as u32;
        Sample { track, time: i * u64::from(duration), duration, keyframe: true, data }
    });
    (TrackSpec::opus(1).named("everyone"), samples.collect())
}

/// An AAC track with `ticks` ticks of 20 ms.
pub fn aac(track: usize, ticks: u64) -> (TrackSpec, Vec<Sample>) {
    let (sender, frames) = sync_channel(ticks as usize * 2);
    let mut encoder = AacEncoder::new(DEFAULT_BITRATE, move |frame| {
        let _ = sender.try_send(frame);
    })
    .expect("installed");
    for i in 0..ticks {
        let time = i * AUDIO_TICK_SAMPLES as u64;
        while let Err(error) = encoder.push(time, &tone(i)) {
            assert!(matches!(error, commingle::codec::CodecError::Behind(_)), "{error}");
            std::thread::yield_now();
        }
    }
    encoder.finish();
    let samples = frames.try_iter().map(|frame| Sample {
        track,
        time: frame.time,
        duration: 1_024,
        keyframe: true,
        data: frame.data,
    });
    (TrackSpec::aac(1, Bytes::from_static(&AUDIO_SPECIFIC_CONFIG)).named("everyone"), samples.collect())
}
