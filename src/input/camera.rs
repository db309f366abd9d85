//! The picture of a source, as a participant's camera would send it.
//!
//! Owns: which pictures are sent, at which size and bitrate, in which codec; the packets' numbers. Does not know: where
//! pictures come from, what time it is. In: a picture when it is due. Out: packets into the [`Outbox`], from the encoder's
//! thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::outbox::Outbox;
use crate::codec::intake::Shot;
use crate::codec::scale::{Halves, scale, shrink};
use crate::codec::{CodecError, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, PicturePool, VideoEncoder};
use crate::link::input::FromInput;
use crate::media::{Codec, Colours, Size, SourceKind, SourcePacket};
use crate::time::{Timestamp, now};

/// From one keyframe to the next when nobody asks for one.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);
/// What is too late by this is left out, unless nothing else was sent for as long.
const STALE: Duration = Duration::from_millis(200);
/// Bits a pixel: more than a mix gets, since this is decoded and encoded once more.
const BITS_PER_PIXEL: f64 = 0.1;
/// Least and most kbit/s.
const KBPS: (u32, u32) = (200, 4_000);
/// Smallest side of a picture that a mixer takes.
const SIDE_MIN: u32 = 16;

/// What pictures are made into.
#[derive(Debug, Clone, Copy)]
pub(super) struct CameraOptions {
    /// The largest picture.
    pub(super) most: Size,
    /// Most pictures a second.
    pub(super) fps: u32,
    /// Which encoder makes H.264.
    pub(super) h264: H264Encoder,
    /// Threads it may use.
    pub(super) threads: u32,
}

/// Sends a source's pictures.
pub(super) struct Camera {
    options: CameraOptions,
    rate: Rate,
    encoder: Option<(Size, VideoEncoder)>,
    pool: PicturePool,
    halves: Halves,
    wire: Arc<Mutex<Wire>>,
    /// Encoder times count from here.
    epoch: Timestamp,
    keyframe: Option<Timestamp>,
    keyframe_wanted: bool,
    last: Option<Timestamp>,
    /// Size as it came.
    size: Option<Size>,
    skipped: u64,
}

/// What encoders of one source share, so that packets go on where another encoder stopped.
struct Wire {
    outbox: Arc<Outbox>,
    payloader: Payloader,
    codec: Option<Codec>,
    sequence: u16,
    colours: Colours,
}

impl Wire {
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
        let wire = Wire {
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
            wire: Arc::new(Mutex::new(wire)),
            epoch,
            keyframe: None,
            keyframe_wanted: false,
            last: None,
            size: None,
            skipped: 0,
        }
    }

    /// The next picture becomes a keyframe.
    pub(super) const fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Sends a picture that is due at `due`.
    pub(super) fn show(&mut self, shot: &Shot, due: Timestamp, now: Timestamp) {
        self.size = Some(shot.picture.size());
        let stale = now.since(due) > STALE && self.last.is_some_and(|last| now.since(last) < STALE);
        if stale || !self.rate.allow(due) {
            self.skipped += 1;
            return;
        }
        let size = fit(shot.picture.size(), shot.pixel, self.options.most);
        let Some(picture) = self.sized(&shot.picture, size) else { return };
        if self.encoder.as_ref().is_none_or(|(made_for, encoder)| *made_for != size || encoder.failed()) {
            self.encoder = None;
            match self.encoder_for(size) {
                Ok(encoder) => self.encoder = Some((size, encoder)),
                Err(error) => {
                    tracing::error!(%error, "the picture of a source cannot be encoded");
                    return;
                }
            }
            self.keyframe = None;
        }
        let Some((_, encoder)) = &mut self.encoder else { return };
        self.wire.lock().colours = shot.colours;
        // The line of times moves back where a source was caught up with; an encoder's never does.
        let due = self.last.map_or(due, |last| due.max(last + Duration::from_millis(1)));
        let key = self.keyframe_wanted || self.keyframe.is_none_or(|at| due.since(at) >= KEYFRAME_INTERVAL);
        if encoder.push(&picture, due.since(self.epoch), key) {
            self.last = Some(due);
            if key {
                (self.keyframe, self.keyframe_wanted) = (Some(due), false);
            }
        } else {
            self.skipped += 1;
        }
    }

    /// Size of the picture as it came.
    pub(super) const fn size(&self) -> Option<Size> {
        self.size
    }

    /// Pictures left out.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The picture at this size; None when it has no pixels.
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

    /// H.264, which costs the least; VP8 where there is none.
    fn encoder_for(&self, size: Size) -> Result<VideoEncoder, CodecError> {
        let CameraOptions { fps, h264, threads, .. } = self.options;
        let make = |codec: Codec| {
            let wire = self.wire.clone();
            let spec = EncodeSpec { codec, size, fps, bitrate_kbps: bitrate(size, fps), h264, threads };
            VideoEncoder::new(spec, move |frame| wire.lock().send(codec, &frame))
        };
        make(Codec::H264).or_else(|error| {
            tracing::warn!(%error, "there is no H.264 encoder: a source is sent as VP8");
            make(Codec::Vp8)
        })
    }
}

fn bitrate(size: Size, fps: u32) -> u32 {
    let pixels = f64::from(size.width) * f64::from(size.height) * f64::from(fps);
    ((pixels * BITS_PER_PIXEL / 1000.0) as u32).clamp(KBPS.0, KBPS.1)
}

/// The size at which a picture is sent: its shape with square pixels, within `most`, never enlarged but for the shape,
/// even on both sides.
fn fit(size: Size, pixel: (u32, u32), most: Size) -> Size {
    let (wide, high) = (f64::from(pixel.0.max(1)), f64::from(pixel.1.max(1)));
    let ratio = (wide / high).clamp(0.1, 10.0);
    let (width, height) = (f64::from(size.width) * ratio, f64::from(size.height));
    let factor = (f64::from(most.width) / width).min(f64::from(most.height) / height).min(1.0);
    let even =
        |side: f64, most: u32| (((side * factor / 2.0).round() as u32) * 2).clamp(SIDE_MIN, most.max(SIDE_MIN) & !1);
    Size::new(even(width, most.width), even(height, most.height))
}

/// Leaves out what is more than so many a second.
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
        // A quarter of a period is rounding, not another rate.
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
    fn pictures_keep_their_shape_and_fit_the_canvas() {
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
    fn frames_beyond_the_rate_are_left_out_evenly() {
        for (sent, expected) in [(25, 25), (30, 30), (50, 30), (60, 30), (120, 30), (5, 5)] {
            let mut rate = Rate::new(30);
            let due = |i: u64| Timestamp::from_micros(9_000_000 + i * 1_000_000 / sent);
            let taken = (0..sent * 10).filter(|i| rate.allow(due(*i))).count() as u64;
            assert!(taken.abs_diff(expected * 10) <= 3, "{taken} of {sent} a second in ten seconds");
        }
        let mut rate = Rate::new(30);
        assert!(rate.allow(Timestamp::from_micros(50_000_000)));
        assert!(rate.allow(Timestamp::from_micros(10_000_000)), "the line has moved far back");
    }

    proptest! {
        #[test]
        fn any_size_fits(width in 1..8192_u32, height in 1..8192_u32, wide in 0..200_u32, high in 0..200_u32) {
            let fitting = fit(Size::new(width, height), (wide, high), CANVAS);
            prop_assert!(fitting.width <= CANVAS.width && fitting.height <= CANVAS.height);
            prop_assert!(fitting.width >= SIDE_MIN && fitting.height >= SIDE_MIN);
            prop_assert!(fitting.width.is_multiple_of(2) && fitting.height.is_multiple_of(2));
        }
    }
}
