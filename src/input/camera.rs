//! The video of a source, sent like a participant's camera.
//!
//! Owns: frame selection, size, bitrate, codec and packet numbers. Does not know: where pictures come from, or the
//! time. In: a picture when it is due. Out: packets into the [`Outbox`], from the encoder's thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::outbox::Outbox;
use crate::codec::intake::Shot;
use crate::codec::scale::{Halves, scale, shrink};
use crate::codec::{
    CodecError, Effort, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, PicturePool, VideoEncoder,
};
use crate::link::input::FromInput;
use crate::media::{Codec, Colours, Size, SourceKind, SourcePacket};
use crate::time::{Timestamp, now};

/// Keyframe interval without requests.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);
/// A picture that is later than this is skipped, unless none was sent for as long.
const MAX_LATENESS: Duration = Duration::from_millis(200);
/// Bits per pixel: more than for a mix, because the mixer decodes and encodes it again.
const BITS_PER_PIXEL: f64 = 0.1;
/// Minimum and maximum bitrate in kbit/s.
const BITRATE_KBPS_RANGE: (u32, u32) = (200, 4_000);
/// The last picture is sent again after this time without another one: receivers show a picture for 2 s.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Smallest width and height that the mixer accepts.
const MIN_SIDE: u32 = 16;

/// Encoding options.
#[derive(Debug, Clone, Copy)]
pub(super) struct CameraOptions {
    /// Largest frame size.
    pub(super) max_size: Size,
    /// Maximum frames per second.
    pub(super) fps: u32,
    /// H.264 encoder implementation.
    pub(super) h264: H264Encoder,
    /// Threads of the encoder.
    pub(super) threads: u32,
}

/// Encodes and sends the pictures of a source.
pub(super) struct Camera {
    options: CameraOptions,
    rate: Rate,
    encoder: Option<(Size, VideoEncoder)>,
    pool: PicturePool,
    halves: Halves,
    sender: Arc<Mutex<PacketSender>>,
    /// Zero of the encoder's timestamps.
    epoch: Timestamp,
    keyframe: Option<Timestamp>,
    keyframe_requested: bool,
    last: Option<Timestamp>,
    /// The last picture, to be repeated.
    shown: Option<Shot>,
    /// Frame size of the source.
    size: Option<Size>,
    skipped: u64,
}

/// Shared by successive encoders of one source, so that sequence numbers continue.
struct PacketSender {
    outbox: Arc<Outbox>,
    payloader: Payloader,
    codec: Option<Codec>,
    sequence: u16,
    colours: Colours,
}

impl PacketSender {
    fn send(&mut self, codec: Codec, frame: &EncodedFrame) {
        if self.codec != Some(codec) {
            self.codec = Some(codec);
            self.payloader = Payloader::new(codec);
            self.outbox.push(FromInput::Started { kind: SourceKind::Camera, codec });
        }
        let timestamp = (frame.pts.as_micros() as u64 * 9 / 100) as u32;
        for packet in self.payloader.packets(frame, timestamp) {
            self.sequence = self.sequence.wrapping_add(1);
            let packet = SourcePacket {
                sequence: self.sequence,
                timestamp,
                marker: packet.marker,
                arrival: now(),
                captured: None,
                audio_level: None,
                rotation: None,
                colours: Some(self.colours),
                payload: packet.payload,
            };
            self.outbox.push(FromInput::Packet(SourceKind::Camera, packet));
        }
    }
}

impl Camera {
    pub(super) fn new(options: CameraOptions, outbox: Arc<Outbox>, epoch: Timestamp) -> Self {
        let sender = PacketSender {
            outbox,
            payloader: Payloader::new(Codec::H264),
            codec: None,
            sequence: rand::random(),
            colours: Colours::default(),
        };
        Self {
            options,
            rate: Rate::new(options.fps),
            encoder: None,
            pool: PicturePool::default(),
            halves: Halves::default(),
            sender: Arc::new(Mutex::new(sender)),
            epoch,
            keyframe: None,
            keyframe_requested: false,
            last: None,
            shown: None,
            size: None,
            skipped: 0,
        }
    }

    /// Encodes the next picture as a keyframe.
    pub(super) const fn request_keyframe(&mut self) {
        self.keyframe_requested = true;
    }

    /// Sends a picture that is due at `due`.
    pub(super) fn send(&mut self, shot: &Shot, due: Timestamp, now: Timestamp) {
        self.size = Some(shot.picture.size());
        let stale = now.since(due) > MAX_LATENESS && self.last.is_some_and(|last| now.since(last) < MAX_LATENESS);
        if stale || !self.rate.allow(due) {
            self.skipped += 1;
            return;
        }
        self.shown = Some(shot.clone());
        self.encode(shot, due);
    }

    /// When the last picture is to be sent again.
    pub(super) fn repeat_at(&self) -> Option<Timestamp> {
        self.last.filter(|_| self.shown.is_some()).map(|last| last + REPEAT_INTERVAL)
    }

    /// Sends the last picture again if that is due: the source has slow or no further pictures.
    pub(super) fn repeat(&mut self, now: Timestamp) {
        if self.repeat_at().is_some_and(|at| at <= now)
            && let Some(shot) = self.shown.clone()
        {
            self.encode(&shot, now);
        }
    }

    fn encode(&mut self, shot: &Shot, due: Timestamp) {
        let size = fit(shot.picture.size(), shot.pixel, self.options.max_size);
        let Some(picture) = self.sized(&shot.picture, size) else { return };
        if self.encoder.as_ref().is_none_or(|(made_for, encoder)| *made_for != size || encoder.failed()) {
            self.encoder = None;
            match self.encoder_for(size) {
                Ok(encoder) => self.encoder = Some((size, encoder)),
                Err(error) => {
                    tracing::error!(%error, "no video encoder for the input");
                    return;
                }
            }
            self.keyframe = None;
        }
        let Some((_, encoder)) = &mut self.encoder else { return };
        self.sender.lock().colours = shot.colours;
        // Due times may go back when the playout removes a backlog; the encoder's timestamps must not.
        let due = self.last.map_or(due, |last| due.max(last + Duration::from_millis(1)));
        let key = self.keyframe_requested || self.keyframe.is_none_or(|at| due.since(at) >= KEYFRAME_INTERVAL);
        if encoder.push(&picture, due.since(self.epoch), key) {
            self.last = Some(due);
            if key {
                (self.keyframe, self.keyframe_requested) = (Some(due), false);
            }
        } else {
            self.skipped += 1;
        }
    }

    /// Frame size of the source.
    pub(super) const fn size(&self) -> Option<Size> {
        self.size
    }

    /// Number of skipped pictures.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The picture scaled to `size`; None for an empty picture.
    fn sized(&mut self, picture: &Picture, size: Size) -> Option<Picture> {
        let from = picture.size();
        if from == size {
            return Some(picture.clone());
        }
        if from.width == 0 || from.height == 0 {
            return None;
        }
        let mut drawn = self.pool.take(size);
        if from.width >= size.width && from.height >= size.height {
            shrink(picture, &mut drawn, &mut self.halves);
        } else {
            scale(picture, &mut drawn);
        }
        Some(self.pool.lend(drawn))
    }

    /// An H.264 encoder, which needs the least CPU; VP8 if there is none.
    fn encoder_for(&self, size: Size) -> Result<VideoEncoder, CodecError> {
        let CameraOptions { fps, h264, threads, .. } = self.options;
        let make = |codec: Codec| {
            let sender = self.sender.clone();
            let spec =
                EncodeSpec { codec, size, fps, bitrate_kbps: bitrate(size, fps), h264, threads, effort: Effort::Fast };
            VideoEncoder::new(spec, move |frame| sender.lock().send(codec, &frame))
        };
        make(Codec::H264).or_else(|error| {
            tracing::warn!(%error, "no H.264 encoder: input is sent as VP8");
            make(Codec::Vp8)
        })
    }
}

fn bitrate(size: Size, fps: u32) -> u32 {
    let pixels = f64::from(size.width) * f64::from(size.height) * f64::from(fps);
    ((pixels * BITS_PER_PIXEL / 1000.0) as u32).clamp(BITRATE_KBPS_RANGE.0, BITRATE_KBPS_RANGE.1)
}

/// The size at which a picture is sent: with square pixels, within `most`, enlarged only to correct the aspect ratio,
/// with even width and height.
fn fit(size: Size, pixel: (u32, u32), max_size: Size) -> Size {
    let (wide, high) = (f64::from(pixel.0.max(1)), f64::from(pixel.1.max(1)));
    let ratio = (wide / high).clamp(0.1, 10.0);
    let (width, height) = (f64::from(size.width) * ratio, f64::from(size.height));
    let factor = (f64::from(max_size.width) / width).min(f64::from(max_size.height) / height).min(1.0);
    let even = |side: f64, max_size: u32| {
        (((side * factor / 2.0).round() as u32) * 2).clamp(MIN_SIDE, max_size.max(MIN_SIDE) & !1)
    };
    Size::new(even(width, max_size.width), even(height, max_size.height))
}

/// Limits the frame rate.
#[derive(Debug)]
struct Rate {
    period: Duration,
    next: Timestamp,
}

impl Rate {
    fn new(fps: u32) -> Self {
        Self { period: Duration::from_secs(1) / fps.max(1), next: Timestamp::default() }
    }

    fn allow(&mut self, due: Timestamp) -> bool {
        // A deviation up to a quarter of a period is rounding.
        if due + self.period / 4 < self.next && self.next.since(due) < self.period * 4 {
            return false;
        }
        let steady = due < self.next + self.period && self.next.since(due) < self.period;
        self.next = if steady { self.next } else { due } + self.period;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANVAS: Size = Size::new(1280, 720);

    #[test]
    fn sizes_keep_the_aspect_ratio_and_fit_the_canvas() {
        let fits = [
            ((1920, 1080), (1, 1), (1280, 720)),
            ((640, 360), (1, 1), (640, 360)),
            ((720, 576), (64, 45), (1024, 576)),
            ((1080, 1920), (1, 1), (406, 720)),
            ((1440, 1080), (4, 3), (1280, 720)),
            ((321, 181), (1, 1), (322, 182)),
            ((4000, 10), (1, 1), (1280, 16)),
            ((4, 4), (1, 1), (16, 16)),
            ((640, 480), (0, 1), (640, 480)),
        ];
        for ((width, height), pixel, (fitting_width, fitting_height)) in fits {
            let fitting = Size::new(fitting_width, fitting_height);
            assert_eq!(fit(Size::new(width, height), pixel, CANVAS), fitting, "{width}x{height} of {pixel:?}");
        }
        assert_eq!(bitrate(CANVAS, 30), 2764);
    }

    #[test]
    fn frames_beyond_the_rate_are_skipped_evenly() {
        for (sent, expected) in [(25, 25), (30, 30), (50, 30), (60, 30), (120, 30), (5, 5)] {
            let mut rate = Rate::new(30);
            let due = |i: u64| Timestamp::from_micros(9_000_000 + i * 1_000_000 / sent);
            let taken = (0..sent * 10).filter(|i| rate.allow(due(*i))).count() as u64;
            assert!(taken.abs_diff(expected * 10) <= 3, "{taken} of {sent} a second in ten seconds");
        }
        let mut rate = Rate::new(30);
        assert!(rate.allow(Timestamp::from_micros(50_000_000)));
        assert!(rate.allow(Timestamp::from_micros(10_000_000)), "due times went far back");
    }

    proptest! {
        #[test]
        fn every_size_fits(width in 1..8192_u32, height in 1..8192_u32, wide in 0..200_u32, high in 0..200_u32) {
            let fitting = fit(Size::new(width, height), (wide, high), CANVAS);
            prop_assert!(fitting.width <= CANVAS.width && fitting.height <= CANVAS.height);
            prop_assert!(fitting.width >= MIN_SIDE && fitting.height >= MIN_SIDE);
            prop_assert!(fitting.width.is_multiple_of(2) && fitting.height.is_multiple_of(2));
        }
    }
}
