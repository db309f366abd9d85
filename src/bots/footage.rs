//! What bots send: a film and a tone, encoded once and shared by all of them, and a live camera that shows the time.
//!
//! Owns: what is on the pictures. Does not know: RTP headers, connections. A [`Film`] gives the payloads of any frame,
//! a [`Clock`] is told when to shoot and gives its frames as they are encoded.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::barcode::{self, Stamp};
use crate::codec::sound::{OpusEncoder, OpusSettings, Purpose};
use crate::codec::{
    CodecError, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, PictureMut, PicturePool, VideoEncoder,
};
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec, EncodedPacket, Size};
use crate::time::Timestamp;

/// How long the film is before it begins again.
const FILM: Duration = Duration::from_secs(2);
/// Longest time in which one frame is encoded.
const ENCODED_WITHIN: Duration = Duration::from_secs(5);
/// Bits for a pixel of the film and the clock: a talking head's quality.
const BITS_PER_PIXEL: f64 = 0.09;
/// Frames of the clock that may wait to be sent.
const CLOCK_FRAMES: usize = 8;
/// The tone's frequency: whole periods in a second, so that the loop has no click.
const TONE_HZ: f32 = 440.0;
/// Its amplitude; a voice is about as loud.
const TONE_AMPLITUDE: f32 = 0.15;

/// Which pictures a camera makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Camera {
    /// In pixels, both even.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
}

impl Default for Camera {
    fn default() -> Self {
        Self { size: Size::new(640, 360), fps: 30 }
    }
}

impl Camera {
    fn spec(self, codec: Codec) -> EncodeSpec {
        let bits = f64::from(self.size.width * self.size.height * self.fps) * BITS_PER_PIXEL;
        EncodeSpec {
            codec,
            size: self.size,
            fps: self.fps,
            bitrate_kbps: (bits / 1000.0) as u32,
            h264: H264Encoder::default(),
            threads: 1,
        }
    }
}

impl std::str::FromStr for Camera {
    type Err = String;

    /// `640x360@30`
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (size, fps) = text.split_once('@')?;
            let (width, height) = size.split_once('x')?;
            let camera = Self { size: Size::new(width.parse().ok()?, height.parse().ok()?), fps: fps.parse().ok()? };
            let even = (camera.size.width | camera.size.height).is_multiple_of(2);
            let sane = (64..=1920).contains(&camera.size.width) && (36..=1080).contains(&camera.size.height);
            (even && sane && (1..=60).contains(&camera.fps)).then_some(camera)
        };
        read().ok_or_else(|| {
            format!("`{text}` is no camera: write it as 640x360@30, even sizes from 64x36 to 1920x1080, at most 60 frames a second")
        })
    }
}

/// A loop of encoded frames; the first is a keyframe.
pub(super) struct Film {
    frames: Vec<Vec<EncodedPacket>>,
}

impl Film {
    /// Encodes the film, which takes a moment.
    pub(super) fn shoot(codec: Codec, camera: Camera) -> Result<Self, CodecError> {
        let count = (FILM.as_secs() as u32 * camera.fps) as usize;
        let (send, encoded) = sync_channel(count);
        let mut encoder = VideoEncoder::new(camera.spec(codec), move |frame| {
            // It holds the whole film.
            let _ = send.try_send(frame);
        })?;
        let mut payloader = Payloader::new(codec);
        let mut frames = Vec::with_capacity(count);
        let mut take = |encoded: &Receiver<EncodedFrame>| -> Result<(), CodecError> {
            let frame = encoded.recv_timeout(ENCODED_WITHIN).map_err(|_| CodecError::Failed)?;
            frames.push(payloader.packets(&frame, 0));
            Ok(())
        };
        let mut taken = 0;
        for i in 0..count {
            let picture = scene(camera.size, i as f32 / count as f32);
            // A busy encoder takes the next picture after it has given one.
            while !encoder.push(&picture, Duration::from_secs(1) / camera.fps * i as u32, i == 0) {
                take(&encoded)?;
                taken += 1;
            }
        }
        for _ in taken..count {
            take(&encoded)?;
        }
        Ok(Self { frames })
    }

    /// The packets of a frame; after the last comes the first.
    pub(super) fn frame(&self, at: usize) -> &[EncodedPacket] {
        &self.frames[at % self.frames.len()]
    }
}

/// A ball that rolls over stripes; `at` is the part of the film that has passed, and its end meets its beginning.
fn scene(size: Size, at: f32) -> Picture {
    let mut picture = PictureMut::new(size);
    let (planes, strides) = picture.planes();
    let [y, u, v] = planes;
    let (width, height) = (size.width as f32, size.height as f32);
    let turn = at * std::f32::consts::TAU;
    let (ball_x, ball_y) = (width * (0.5 + 0.35 * turn.cos()), height * (0.5 + 0.3 * turn.sin()));
    let radius = height * 0.16;
    for (row, line) in y.chunks_exact_mut(strides[0]).enumerate() {
        for (column, pixel) in line.iter_mut().enumerate() {
            let (x, y) = (column as f32, row as f32);
            let stripes = ((x / width * 4.0 + y / height + at) * std::f32::consts::TAU).sin();
            let in_ball = (x - ball_x).hypot(y - ball_y) < radius;
            *pixel = if in_ball { 210 } else { (100.0 + 40.0 * stripes) as u8 };
        }
    }
    for (plane, stride, base) in [(u, strides[1], 112.0), (v, strides[2], 140.0)] {
        for line in plane.chunks_exact_mut(stride) {
            for (column, pixel) in line.iter_mut().enumerate() {
                *pixel = (base + 24.0 * (column as f32 / width * std::f32::consts::TAU).sin()) as u8;
            }
        }
    }
    picture.freeze()
}

/// A second of a tone, in Opus packets of 20 ms.
pub(super) struct Tone(Vec<Bytes>);

impl Tone {
    /// The tone, or silence.
    pub(super) fn new(heard: bool) -> Self {
        let settings = OpusSettings { purpose: Purpose::Voice, bitrate: 32_000, complexity: 5, expected_loss: 0 };
        let mut encoder = OpusEncoder::new(settings);
        let amplitude = if heard { TONE_AMPLITUDE } else { 0.0 };
        let packets = (0..AUDIO_RATE as usize / AUDIO_TICK_SAMPLES).filter_map(|tick| {
            let sample = |i: usize| {
                let time = (tick * AUDIO_TICK_SAMPLES + i) as f32 / AUDIO_RATE as f32;
                amplitude * (time * TONE_HZ * std::f32::consts::TAU).sin()
            };
            encoder.encode(&std::array::from_fn(sample))
        });
        Self(packets.collect())
    }

    /// A packet; after the last comes the first.
    pub(super) fn packet(&self, at: usize) -> Bytes {
        self.0[at % self.0.len()].clone()
    }
}

/// A camera that films the time.
pub(super) struct Clock {
    encoder: VideoEncoder,
    payloader: Payloader,
    frames: mpsc::Receiver<EncodedFrame>,
    pool: PicturePool,
    camera: Camera,
    started: Timestamp,
}

impl Clock {
    /// A camera whose pictures are counted from `started`.
    pub(super) fn new(codec: Codec, camera: Camera, started: Timestamp) -> Result<Self, CodecError> {
        let (send, frames) = mpsc::channel(CLOCK_FRAMES);
        let encoder = VideoEncoder::new(camera.spec(codec), move |frame| {
            // Who does not send fast enough loses frames, as a real camera would.
            let _ = send.try_send(frame);
        })?;
        Ok(Self { encoder, payloader: Payloader::new(codec), frames, pool: PicturePool::default(), camera, started })
    }

    /// Takes a picture of the time; it comes out of [`Clock::frame`].
    pub(super) fn shoot(&mut self, now: Timestamp, keyframe: bool) {
        let mut picture = self.pool.take(self.camera.size);
        barcode::draw(&mut picture, Stamp::of(now));
        let picture = self.pool.lend(picture);
        // A busy encoder skips a picture: the next one shows the time just as well.
        let _ = self.encoder.push(&picture, now.since(self.started), keyframe);
    }

    /// The next encoded frame, and its time since the start. None when the encoder is broken.
    pub(super) async fn frame(&mut self) -> Option<(Vec<EncodedPacket>, Duration)> {
        let frame = self.frames.recv().await?;
        Some((self.payloader.packets(&frame, 0), frame.pts))
    }
}

/// What all bots of a crowd share.
#[derive(Clone)]
pub(super) struct Footage {
    pub(super) film: Arc<Film>,
    pub(super) tone: Arc<Tone>,
    pub(super) silence: Arc<Tone>,
}

impl Footage {
    pub(super) fn new(codec: Codec, camera: Camera) -> Result<Self, CodecError> {
        Ok(Self {
            film: Arc::new(Film::shoot(codec, camera)?),
            tone: Arc::new(Tone::new(true)),
            silence: Arc::new(Tone::new(false)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DecodeLimits, Decoded, Depayloader, VideoDecoder};
    use crate::media::{Rect, SourcePacket};

    #[test]
    fn cameras_are_read() {
        let camera = "320x180@15".parse::<Camera>().expect("a camera");
        assert_eq!((camera.size, camera.fps), (Size::new(320, 180), 15));
        for bad in ["", "320x180", "321x180@15", "320x180@0", "32x18@15", "320x180@15fps"] {
            assert!(bad.parse::<Camera>().expect_err("no camera").contains("640x360@30"), "{bad}");
        }
    }

    #[test]
    fn a_film_begins_with_a_keyframe_and_goes_round() {
        let camera = Camera { size: Size::new(320, 180), fps: 10 };
        for codec in [Codec::Vp8, Codec::H264] {
            let film = Film::shoot(codec, camera).expect("it is encoded");
            assert_eq!(film.frames.len(), 20, "{codec}");
            assert!(film.frame(0)[0].starts_keyframe && film.frame(20)[0].starts_keyframe, "{codec}");
            assert!(film.frames.iter().all(|frame| frame.last().is_some_and(|packet| packet.marker)), "{codec}");
            assert!(!film.frame(1)[0].starts_keyframe, "{codec}");
        }
    }

    #[test]
    fn tones_are_packets_of_20_ms() {
        let (tone, silence) = (Tone::new(true), Tone::new(false));
        assert_eq!((tone.0.len(), silence.0.len()), (50, 50));
        assert_eq!(tone.packet(50), tone.packet(0));
        assert!(tone.packet(25).len() > silence.packet(25).len());
    }

    #[tokio::test]
    async fn the_clock_can_be_read_after_encoding_and_decoding() {
        let camera = Camera { size: Size::new(320, 180), fps: 15 };
        let started = Timestamp::from_micros(5_000_000);
        let mut clock = Clock::new(Codec::Vp8, camera, started).expect("VP8 is encoded");
        let (send, pictures) = sync_channel(64);
        let mut decoder = VideoDecoder::new(Codec::Vp8, DecodeLimits::default(), move |decoded| {
            let _ = send.try_send(decoded);
        })
        .expect("VP8 is decoded");
        let whole = Rect { x: 0, y: 0, width: 320, height: 180 };
        let place = barcode::Place { source: camera.size, tile: whole, canvas: camera.size };
        for i in 0..20 {
            let now = started + Duration::from_micros(i * 66_667);
            clock.shoot(now, false);
            let (packets, after) = clock.frame().await.expect("the encoder works");
            assert!((now.since(started).as_millis() as i64 - after.as_millis() as i64).abs() <= 1);
            let packets: Vec<SourcePacket> = packets
                .into_iter()
                .map(|packet| SourcePacket {
                    sequence: 0,
                    timestamp: 0,
                    marker: packet.marker,
                    arrival: now,
                    audio_level: None,
                    rotation: None,
                    colours: None,
                    payload: packet.payload,
                })
                .collect();
            let frame = Depayloader::new(Codec::Vp8).frame(&packets).expect("a frame");
            decoder.push(frame, now).expect("it is taken");
            let decoded = pictures.recv_timeout(Duration::from_secs(5)).expect("a picture for each frame");
            let Decoded::Picture { picture, .. } = decoded else { panic!("{decoded:?}") };
            assert_eq!(barcode::read(&picture, place), Some(Stamp::of(now)), "picture {i}");
        }
    }
}
