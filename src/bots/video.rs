//! The video that bots send: a loop of encoded frames, synthetic or from an IVF file, and a live camera that shows the
//! time.
//!
//! Owns: the pictures, the loop and each bot's position in it. Does not know: RTP headers, connections. A [`Playback`]
//! gives the frames of a [`VideoLoop`] that are due; a [`ClockCamera`] takes a picture when its owner calls it, and
//! gives encoded frames.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use tokio::sync::mpsc;

use super::barcode::{self, Stamp};
use crate::codec::{
    self, CodecError, Effort, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, PictureMut, PicturePool,
    VideoEncoder,
};
use crate::container::ivf::{Ivf, IvfError};
use crate::media::{Codec, EncodedPacket, Size};
use crate::time::Timestamp;

/// Length of the synthetic loop.
const SYNTHETIC: Duration = Duration::from_secs(2);
/// Length of the synthetic loop without movement: like a browser, it sends no keyframe until one is requested.
const SYNTHETIC_STILL: Duration = Duration::from_secs(60);
/// Time limit for encoding one frame.
const ENCODE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bits per pixel of the synthetic loop and the clock: the quality of a talking head.
const BITS_PER_PIXEL: f64 = 0.09;
/// Frames of the clock that may wait to be sent.
const CLOCK_FRAMES: usize = 8;
/// Largest clip, in bytes: all of it is held in memory.
const CLIP_MAX: u64 = 256 << 20;
/// Interval after the frame of a clip that has only one.
const SINGLE_FRAME: Duration = Duration::from_secs(1);
/// A sender that is later than this does not catch up: it goes on from now.
const LATEST: Duration = Duration::from_millis(500);

/// Why a clip cannot be sent. Each message names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The file cannot be read.
    #[error("{}: {error}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file is too large.
    #[error("{}: larger than {} MiB: cut a shorter clip", .file.display(), CLIP_MAX >> 20)]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// The file is not a usable IVF file.
    #[error("{}: {error}", .file.display())]
    Ivf {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: IvfError,
    },
    /// A frame is not of the codec that the file names.
    #[error("{}: frame {number}: {error}: encode the clip again", .file.display())]
    Frame {
        /// The file.
        file: PathBuf,
        /// The frame, from 1.
        number: usize,
        /// What is wrong with it.
        error: CodecError,
    },
    /// Decoding cannot begin with the first frame.
    #[error("{}: the first frame is no keyframe: cut the clip at a keyframe, or encode it again", .file.display())]
    NoKeyframe {
        /// The file.
        file: PathBuf,
    },
}

/// The pictures of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Camera {
    /// In pixels, both even.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// What the synthetic video shows.
    pub scene: Scene,
}

/// What a synthetic camera films.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scene {
    /// A ball that rolls over stripes.
    #[default]
    Moving,
    /// The same without movement; only the noise of the sensor changes.
    Still,
    /// The same without movement and without noise, as from a virtual camera that shows a picture.
    Picture,
    /// Nothing: the camera is off and sends no packets.
    Off,
}

impl Default for Camera {
    fn default() -> Self {
        Self { size: Size::new(640, 360), fps: 30, scene: Scene::Moving }
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
            effort: Effort::Fast,
        }
    }
}

impl std::str::FromStr for Camera {
    type Err = String;

    /// `640x360@30`, `640x360@30:still`, `640x360@30:picture` or `off`
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self { scene: Scene::Off, ..Self::default() });
        }
        let scenes = [(":still", Scene::Still), (":picture", Scene::Picture)];
        let (rest, scene) = scenes
            .into_iter()
            .find_map(|(suffix, scene)| Some((text.strip_suffix(suffix)?, scene)))
            .unwrap_or((text, Scene::Moving));
        let read = || {
            let (size, fps) = rest.split_once('@')?;
            let (width, height) = size.split_once('x')?;
            let size = Size::new(width.parse().ok()?, height.parse().ok()?);
            let camera = Self { size, fps: fps.parse().ok()?, scene };
            let even = (camera.size.width | camera.size.height).is_multiple_of(2);
            let sane = (64..=1920).contains(&camera.size.width) && (36..=1080).contains(&camera.size.height);
            (even && sane && (1..=60).contains(&camera.fps)).then_some(camera)
        };
        read().ok_or_else(|| {
            format!(
                "`{text}` is no camera: write it as 640x360@30, 640x360@30:still, 640x360@30:picture or off, \
                 even sizes from 64x36 to 1920x1080, at most 60 frames a second"
            )
        })
    }
}

/// A loop of encoded frames; the first is a keyframe.
#[derive(Debug)]
pub(super) struct VideoLoop {
    pub(super) codec: Codec,
    frames: Vec<LoopFrame>,
}

#[derive(Debug)]
struct LoopFrame {
    packets: Vec<EncodedPacket>,
    /// Time until the next frame.
    interval: Duration,
}

impl LoopFrame {
    fn is_keyframe(&self) -> bool {
        self.packets.first().is_some_and(|packet| packet.starts_keyframe)
    }
}

impl VideoLoop {
    /// Encodes the synthetic loop: a moving ball. Takes about a second.
    pub(super) fn synthetic(codec: Codec, camera: Camera) -> Result<Self, CodecError> {
        let length = if matches!(camera.scene, Scene::Still | Scene::Picture) { SYNTHETIC_STILL } else { SYNTHETIC };
        let count = (length.as_secs() as u32 * camera.fps) as usize;
        let interval = Duration::from_secs(1) / camera.fps;
        let (send, encoded) = sync_channel(count);
        let mut encoder = VideoEncoder::new(camera.spec(codec), move |frame| {
            // The channel holds the whole loop.
            let _ = send.try_send(frame);
        })?;
        let mut payloader = Payloader::new(codec);
        let mut frames = Vec::with_capacity(count);
        let mut take = |encoded: &Receiver<EncodedFrame>| -> Result<(), CodecError> {
            let frame = encoded.recv_timeout(ENCODE_TIMEOUT).map_err(|_| CodecError::Failed)?;
            frames.push(LoopFrame { packets: payloader.packets(&frame, 0), interval });
            Ok(())
        };
        let mut taken = 0;
        for i in 0..count {
            let picture = match camera.scene {
                Scene::Moving => scene(camera.size, i as f32 / count as f32),
                Scene::Picture => scene(camera.size, 0.0),
                Scene::Still | Scene::Off => noisy(&scene(camera.size, 0.0), i as u32),
            };
            // A busy encoder takes the next picture after it has given one.
            while !encoder.push(&picture, interval * i as u32, i == 0) {
                take(&encoded)?;
                taken += 1;
            }
        }
        for _ in taken..count {
            take(&encoded)?;
        }
        Ok(Self { codec, frames })
    }

    /// Reads an IVF file. Blocks.
    ///
    /// # Errors
    /// [`ClipError`].
    pub(super) fn clip(file: &Path) -> Result<Self, ClipError> {
        let read = |error| ClipError::Read { file: file.to_owned(), error };
        if std::fs::metadata(file).map_err(read)?.len() > CLIP_MAX {
            return Err(ClipError::TooLarge { file: file.to_owned() });
        }
        let bytes = std::fs::read(file).map_err(read)?;
        let ivf = Ivf::parse(bytes.into()).map_err(|error| ClipError::Ivf { file: file.to_owned(), error })?;
        Self::from_ivf(&ivf, file)
    }

    fn from_ivf(ivf: &Ivf, file: &Path) -> Result<Self, ClipError> {
        let mut payloader = Payloader::new(ivf.codec);
        let (first, last) = (ivf.frames.first().map(|frame| frame.pts), ivf.frames.last().map(|frame| frame.pts));
        let length = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
        // After the last frame: the mean interval.
        let mean = length.checked_div(ivf.frames.len() as u32 - 1).unwrap_or(SINGLE_FRAME);
        let mut frames = Vec::with_capacity(ivf.frames.len());
        for (at, frame) in ivf.frames.iter().enumerate() {
            let error = |error| ClipError::Frame { file: file.to_owned(), number: at + 1, error };
            let keyframe = codec::is_keyframe(ivf.codec, &frame.data).map_err(error)?;
            let encoded = EncodedFrame { data: frame.data.clone(), keyframe, pts: frame.pts };
            let interval = ivf.frames.get(at + 1).map_or(mean, |next| next.pts - frame.pts);
            frames.push(LoopFrame { packets: payloader.packets(&encoded, 0), interval });
        }
        if !frames.first().is_some_and(LoopFrame::is_keyframe) {
            return Err(ClipError::NoKeyframe { file: file.to_owned() });
        }
        Ok(Self { codec: ivf.codec, frames })
    }

    /// The keyframe at or after this frame; after the last frame comes the first.
    fn keyframe_from(&self, at: usize) -> usize {
        (at..self.frames.len()).find(|at| self.frames[*at].is_keyframe()).unwrap_or(0)
    }
}

/// One bot's position in a loop. Times are media time, from the bot's epoch.
#[derive(Debug)]
pub(super) struct Playback {
    video: Arc<VideoLoop>,
    at: usize,
    due: Duration,
}

impl Playback {
    /// Begins at the first keyframe from `part` (0 to 1) of the loop on, so that bots show different parts.
    pub(super) fn new(video: Arc<VideoLoop>, part: f64, now: Duration) -> Self {
        let at = video.keyframe_from((video.frames.len() as f64 * part) as usize);
        Self { video, at, due: now }
    }

    /// Goes on with the next keyframe, at once.
    pub(super) fn request_keyframe(&mut self, now: Duration) {
        (self.at, self.due) = (self.video.keyframe_from(self.at), now);
    }

    /// When the next frame is due.
    pub(super) const fn due(&self) -> Duration {
        self.due
    }

    /// The next frame with its time, if it is due.
    pub(super) fn next(&mut self, now: Duration) -> Option<(&[EncodedPacket], Duration)> {
        if self.due > now {
            return None;
        }
        if now - self.due > LATEST {
            self.due = now;
        }
        let (frame, time) = (&self.video.frames[self.at], self.due);
        self.at = (self.at + 1) % self.video.frames.len();
        self.due += frame.interval;
        Some((&frame.packets, time))
    }
}

/// A ball that rolls over stripes; `at` is the position in the loop (0 to 1), whose end meets its beginning.
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

/// The picture with the noise of a sensor: up to two levels, different in each frame.
fn noisy(picture: &Picture, frame: u32) -> Picture {
    let mut noisy = PictureMut::new(picture.size());
    let (planes, strides) = noisy.planes();
    for (i, (plane, stride)) in planes.into_iter().zip(strides).enumerate() {
        let (from, from_stride) = picture.plane(i);
        for (row, line) in plane.chunks_exact_mut(stride).enumerate() {
            for (column, pixel) in line.iter_mut().enumerate() {
                let random = (row as u32 * 7_919 + column as u32 * 104_729)
                    .wrapping_add(frame.wrapping_mul(1_299_709))
                    .wrapping_mul(0x9e37_79b1);
                let sample = from[row * from_stride + column.min(from_stride - 1)];
                *pixel = sample.saturating_add((random >> 28) as u8 / 4).saturating_sub(2);
            }
        }
    }
    noisy.freeze()
}

/// A camera that shows the time.
pub(super) struct ClockCamera {
    encoder: VideoEncoder,
    payloader: Payloader,
    frames: mpsc::Receiver<EncodedFrame>,
    pool: PicturePool,
    camera: Camera,
    started: Timestamp,
}

impl ClockCamera {
    /// A camera whose frames have times from `started`.
    pub(super) fn new(codec: Codec, camera: Camera, started: Timestamp) -> Result<Self, CodecError> {
        let (send, frames) = mpsc::channel(CLOCK_FRAMES);
        let encoder = VideoEncoder::new(camera.spec(codec), move |frame| {
            // A sender that is too slow loses frames, as with a real camera.
            let _ = send.try_send(frame);
        })?;
        Ok(Self { encoder, payloader: Payloader::new(codec), frames, pool: PicturePool::default(), camera, started })
    }

    /// Takes a picture; [`ClockCamera::frame`] gives it encoded.
    pub(super) fn take_picture(&mut self, now: Timestamp, keyframe: bool) {
        let mut picture = self.pool.take(self.camera.size);
        barcode::draw(&mut picture, Stamp::of(now));
        let picture = self.pool.lend(picture);
        // A busy encoder skips the picture: the next one shows the time as well.
        let _ = self.encoder.push(&picture, now.since(self.started), keyframe);
    }

    /// The next encoded frame, and its time. None when the encoder has failed. Cancel safe.
    pub(super) async fn frame(&mut self) -> Option<(Vec<EncodedPacket>, Duration)> {
        let frame = self.frames.recv().await?;
        Some((self.payloader.packets(&frame, 0), frame.pts))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::{DecodeLimits, Decoded, Depayloader, VideoDecoder};
    use crate::container::ivf::IvfFrame;
    use crate::layout::ObjectFit;
    use crate::media::{Rect, SourcePacket};

    #[test]
    fn cameras_are_read() {
        let camera = "320x180@15".parse::<Camera>().expect("a camera");
        assert_eq!((camera.size, camera.fps), (Size::new(320, 180), 15));
        for (suffix, scene) in [("", Scene::Moving), (":still", Scene::Still), (":picture", Scene::Picture)] {
            let read = format!("320x180@15{suffix}").parse::<Camera>();
            assert_eq!(read.expect("a camera"), Camera { scene, ..camera });
        }
        for bad in ["", "320x180", "321x180@15", "320x180@0", "32x18@15", "320x180@15fps", "320x180@15:blue"] {
            assert!(bad.parse::<Camera>().expect_err("no camera").contains("640x360@30"), "{bad}");
        }
    }

    #[test]
    fn the_synthetic_loop_begins_with_its_only_keyframe() {
        let camera = Camera { size: Size::new(320, 180), fps: 10, ..Camera::default() };
        for codec in [Codec::Vp8, Codec::H264] {
            let video = VideoLoop::synthetic(codec, camera).expect("it is encoded");
            let keyframes: Vec<bool> = video.frames.iter().map(LoopFrame::is_keyframe).collect();
            assert_eq!(keyframes, [&[true][..], &[false; 19]].concat(), "{codec}");
            assert!(
                video.frames.iter().all(|frame| frame.packets.last().is_some_and(|packet| packet.marker)),
                "{codec}"
            );
            assert!(video.frames.iter().all(|frame| frame.interval == Duration::from_millis(100)), "{codec}");
        }
    }

    /// VP8 frames of a few bytes at these milliseconds; those in `keyframes` are keyframes.
    fn clip(millis: &[u64], keyframes: &[usize]) -> Ivf {
        let keyframe = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00, 0x00];
        let frame = |at: usize| if keyframes.contains(&at) { &keyframe[..] } else { &[0x11, 0, 0][..] };
        let frames = millis.iter().enumerate().map(|(at, millis)| IvfFrame {
            pts: Duration::from_millis(*millis),
            data: Bytes::copy_from_slice(frame(at)),
        });
        Ivf { codec: Codec::Vp8, size: Size::new(320, 180), frames: frames.collect() }
    }

    fn played(playback: &mut Playback, until: u64) -> Vec<(u64, bool)> {
        let mut played = Vec::new();
        for now in 0..until {
            if let Some((packets, time)) = playback.next(Duration::from_millis(now)) {
                played.push((time.as_millis() as u64, packets[0].starts_keyframe));
            }
        }
        played
    }

    #[test]
    fn a_clip_is_looped_with_the_intervals_of_the_file() {
        let video =
            VideoLoop::from_ivf(&clip(&[1_000, 1_040, 1_060, 1_120], &[0]), Path::new("c.ivf")).expect("a clip");
        let mut playback = Playback::new(Arc::new(video), 0.9, Duration::from_millis(5));
        // The interval after the last frame is the mean, 40 ms.
        let expected = [(5, true), (45, false), (65, false), (125, false), (165, true), (205, false)];
        assert_eq!(played(&mut playback, 225), expected);
    }

    #[test]
    fn a_keyframe_request_goes_on_with_the_next_keyframe_of_the_clip() {
        let video = VideoLoop::from_ivf(&clip(&[0, 10, 20, 30], &[0, 2]), Path::new("c.ivf")).expect("a clip");
        let mut playback = Playback::new(Arc::new(video), 0.3, Duration::ZERO);
        assert_eq!(played(&mut playback, 1), [(0, true)], "from the third frame on");
        playback.request_keyframe(Duration::from_millis(3));
        assert_eq!(playback.due(), Duration::from_millis(3));
        assert_eq!(played(&mut playback, 14), [(3, true), (13, false)], "the first frame comes after the last");
        playback.request_keyframe(Duration::from_millis(14));
        assert_eq!(played(&mut playback, 30), [(14, true), (24, false)], "the third frame");
    }

    #[test]
    fn a_late_sender_goes_on_from_now() {
        let video = VideoLoop::from_ivf(&clip(&[0, 10], &[0]), Path::new("c.ivf")).expect("a clip");
        let mut playback = Playback::new(Arc::new(video), 0.0, Duration::ZERO);
        let late = Duration::from_millis(2_000);
        assert_eq!(playback.next(late).map(|(_, time)| time), Some(late));
        assert_eq!(playback.next(late), None);
    }

    #[test]
    fn errors_of_clips_name_the_file_and_the_fix() {
        let dir = tempfile::tempdir().expect("the temporary folder can be written");
        let file = dir.path().join("clip.ivf");
        let error = |error: Result<VideoLoop, ClipError>| error.expect_err("no clip").to_string();
        assert!(error(VideoLoop::clip(&file)).contains("clip.ivf"));
        std::fs::write(&file, "RIFF").expect("written");
        let text = error(VideoLoop::clip(&file));
        assert!(text.contains("clip.ivf") && text.contains("ffmpeg"), "{text}");
        std::fs::File::create(&file).and_then(|file| file.set_len(CLIP_MAX + 1)).expect("written");
        assert!(error(VideoLoop::clip(&file)).contains("256 MiB"));
        let text = error(VideoLoop::from_ivf(&clip(&[0, 10], &[1]), &file));
        assert!(text.contains("cut the clip at a keyframe"), "{text}");
        let mut broken = clip(&[0, 10], &[0]);
        broken.frames[1].data = Bytes::new();
        let text = error(VideoLoop::from_ivf(&broken, &file));
        assert!(text.contains("frame 2") && text.contains("encode the clip again"), "{text}");
    }

    #[test]
    fn a_clip_of_one_frame_is_sent_once_a_second() {
        let video = VideoLoop::from_ivf(&clip(&[7], &[0]), Path::new("c.ivf")).expect("a clip");
        let mut playback = Playback::new(Arc::new(video), 1.0, Duration::ZERO);
        assert_eq!(played(&mut playback, 2_001), [(0, true), (1_000, true), (2_000, true)]);
    }

    #[tokio::test]
    async fn the_clock_can_be_read_after_encoding_and_decoding() {
        let camera = Camera { size: Size::new(320, 180), fps: 15, ..Camera::default() };
        let started = Timestamp::from_micros(5_000_000);
        let mut clock = ClockCamera::new(Codec::Vp8, camera, started).expect("VP8 is encoded");
        let (send, pictures) = sync_channel(64);
        let mut decoder = VideoDecoder::new(Codec::Vp8, DecodeLimits::default(), move |decoded| {
            let _ = send.try_send(decoded);
        })
        .expect("VP8 is decoded");
        let whole = Rect { x: 0, y: 0, width: 320, height: 180 };
        let place = barcode::Place { source: camera.size, tile: whole, fit: ObjectFit::Auto, canvas: camera.size };
        for i in 0..20 {
            let now = started + Duration::from_micros(i * 66_667);
            clock.take_picture(now, false);
            let (packets, after) = clock.frame().await.expect("the encoder works");
            assert!((now.since(started).as_millis() as i64 - after.as_millis() as i64).abs() <= 1);
            let packets: Vec<SourcePacket> = packets
                .into_iter()
                .map(|packet| SourcePacket {
                    sequence: 0,
                    timestamp: 0,
                    marker: packet.marker,
                    arrival: now,
                    captured: None,
                    audio_level: None,
                    rotation: None,
                    colours: None,
                    payload: packet.payload,
                })
                .collect();
            let frame = Depayloader::new(Codec::Vp8).frame(&packets).expect("well formed").expect("a frame");
            decoder.push(frame, now).expect("it is taken");
            let decoded = pictures.recv_timeout(Duration::from_secs(5)).expect("a picture for each frame");
            let Decoded::Picture { picture, .. } = decoded else { panic!("{decoded:?}") };
            assert_eq!(barcode::read(&picture, place), Some(Stamp::of(now)), "picture {i}");
        }
    }
}
