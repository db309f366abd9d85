//! Encoders: pictures in, frames out.
//!
//! Owns: one encoder pipeline each, and the policy to skip a picture rather than to queue it. Does not know: the
//! contents of pictures, subscribers. In: pictures with their times. Out: frames, by callback on the encoder's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSinkCallbacks;
use gstreamer_video as gst_video;

use super::picture::Picture;
use super::{CodecError, init};
use crate::media::{Codec, Size};
use crate::pipeline::{EncodeHoles, Pipeline, Recipe};

/// Most pictures in the queue of an encoder: a short stall costs no frame, and a long one adds no delay.
const QUEUE: u32 = 2;
/// Longest time between keyframes without requests, in seconds.
const KEYFRAME_SECONDS: u32 = 10;

/// The H.264 encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum H264Encoder {
    /// x264 (GPL), the faster encoder.
    #[default]
    X264,
    /// Cisco's OpenH264 (BSD).
    OpenH264,
}

/// How much CPU time an encoder spends on quality. The figures are in docs/encoding.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// As little as is sensible.
    Fast,
    /// As much as still pays for large pictures.
    Good,
    /// As much as still pays for thin links: ten times the CPU time for each pixel, and few pixels.
    Best,
}

impl Effort {
    /// The setting of the encoder: VP8 and VP9 `cpu-used`, x264 `speed-preset` (1 is ultrafast, 2 superfast, 7 slow).
    /// OpenH264 has none.
    const fn speed(self, codec: Codec) -> i32 {
        match (codec, self) {
            (Codec::Vp9, Self::Best) => 4,
            (Codec::Vp9, Self::Good) => 7,
            (Codec::Vp9, Self::Fast) => 9,
            (Codec::H264, Self::Best) => 7,
            (Codec::H264, Self::Good) => 2,
            (Codec::H264, Self::Fast) => 1,
            (_, Self::Best) => -1,
            (_, Self::Good) => -6,
            (_, Self::Fast) => -12,
        }
    }

    /// The share of a core that this many pixels a second take with [`Good`](Self::Good) or [`Best`](Self::Best); None
    /// for an effort that the encoder does not have, and for [`Fast`](Self::Fast).
    pub fn load(self, codec: Codec, h264: H264Encoder, pixels_per_second: u64) -> Option<f64> {
        // CPU time for a megapixel, in seconds.
        let cost = match (self, codec, h264) {
            (Self::Fast, ..) | (Self::Best, Codec::H264, H264Encoder::OpenH264) => return None,
            (Self::Good, Codec::Vp9, _) => 0.0189,
            (Self::Good, Codec::H264, H264Encoder::X264) => 0.0064,
            (Self::Good, Codec::H264, H264Encoder::OpenH264) => 0.0049,
            (Self::Good, ..) => 0.0087,
            (Self::Best, Codec::Vp9, _) => 0.105,
            (Self::Best, Codec::H264, _) => 0.095,
            (Self::Best, ..) => 0.09,
        };
        Some(pixels_per_second as f64 / 1e6 * cost)
    }

    /// The effort that a stream begins with, of so many pixels a second, if [`Good`](Self::Good) and
    /// [`Best`](Self::Best) may take these shares of a core.
    pub fn within(good: f64, best: f64, codec: Codec, h264: H264Encoder, pixels_per_second: u64) -> Self {
        [(Self::Best, best), (Self::Good, good)]
            .into_iter()
            .find(|(effort, budget)| effort.load(codec, h264, pixels_per_second).is_some_and(|load| load <= *budget))
            .map_or(Self::Fast, |(effort, _)| effort)
    }
}

/// Parameters of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeSpec {
    /// VP8, VP9 or H.264.
    pub codec: Codec,
    /// Size of the pictures, with even sides.
    pub size: Size,
    /// Frames a second, for rate control; pictures may come slower.
    pub fps: u32,
    /// Target bitrate in kbit/s.
    pub bitrate_kbps: u32,
    /// The encoder for H.264.
    pub h264: H264Encoder,
    /// Threads of the encoder.
    pub threads: u32,
    /// How much CPU time it spends on quality.
    pub effort: Effort,
}

/// One encoded frame: a VP8 or VP9 frame, or an H.264 access unit in Annex B.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// The encoder's memory, not copied.
    pub data: Bytes,
    /// It is a keyframe.
    pub keyframe: bool,
    /// The time that was passed with its picture.
    pub pts: Duration,
}

/// One encoder.
pub struct VideoEncoder {
    spec: EncodeSpec,
    pipeline: Pipeline,
    over: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    keyframe_wanted: bool,
    skipped: u64,
}

impl VideoEncoder {
    /// Starts an encoder. `sink` is called on the encoder's thread; it may drop the encoder.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`] for codecs that are not encoded; [`CodecError::Pipeline`] if an element is not
    /// installed.
    pub fn new(spec: EncodeSpec, sink: impl FnMut(EncodedFrame) + Send + 'static) -> Result<Self, CodecError> {
        init()?;
        let pipeline = Pipeline::new(recipe(&spec)?)?;
        let over = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicBool::new(false));
        let (ended, mut sink) = (over.clone(), sink);
        pipeline.sink().set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if ended.load(Ordering::Acquire) {
                        return Err(gst::FlowError::Eos);
                    }
                    sink(take(&sample).ok_or(gst::FlowError::Error)?);
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let (fault, codec) = (failed.clone(), spec.codec);
        pipeline.play(move |reason| {
            tracing::error!(%codec, reason, "video encoder failed");
            fault.store(true, Ordering::Release);
        })?;
        Ok(Self { spec, pipeline, over, failed, keyframe_wanted: false, skipped: 0 })
    }

    /// Encodes one picture, `pts` after the epoch of the room. False if the encoder is busy: the picture is skipped and
    /// counted, and a requested keyframe is made of the next picture.
    ///
    /// # Panics
    /// If the picture has another size than the encoder.
    pub fn push(&mut self, picture: &Picture, pts: Duration, keyframe: bool) -> bool {
        assert_eq!(picture.size(), self.spec.size, "size of the canvas");
        self.keyframe_wanted |= keyframe;
        if self.pipeline.waiting() >= u64::from(QUEUE) || self.failed() {
            self.skipped += 1;
            return false;
        }
        let source = self.pipeline.source();
        if self.keyframe_wanted {
            // A serialized event: it stays directly before the picture in the queue.
            let event = gst_video::DownstreamForceKeyUnitEvent::builder().all_headers(true).build();
            source.send_event(event);
        }
        let mut buffer = picture.to_buffer();
        let fields = buffer.get_mut().expect("just made");
        fields.set_pts(gst::ClockTime::from_nseconds(pts.as_nanos() as u64));
        fields.set_duration(gst::ClockTime::SECOND / u64::from(self.spec.fps.max(1)));
        let taken = source.push_buffer(buffer).is_ok();
        if taken {
            self.keyframe_wanted = false;
        } else {
            self.skipped += 1;
        }
        taken
    }

    /// Changes the target bitrate from the next picture on.
    pub fn set_bitrate(&mut self, kbps: u32) {
        if kbps != self.spec.bitrate_kbps {
            self.spec.bitrate_kbps = kbps;
            self.pipeline.set("bitrate_kbps", i64::from(kbps));
            self.pipeline.set("bitrate_bps", i64::from(kbps) * 1000);
        }
    }

    /// Changes the effort from the next picture on. False if the encoder cannot: its owner makes another one.
    pub fn set_effort(&mut self, effort: Effort) -> bool {
        if self.spec.codec == Codec::H264 {
            return self.spec.effort == effort;
        }
        self.spec.effort = effort;
        self.pipeline.set("speed", i64::from(effort.speed(self.spec.codec)))
    }

    /// Pictures skipped because the encoder was busy.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether the encoder has failed; its owner makes another one.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

impl Drop for VideoEncoder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// The pipeline of a codec.
///
/// # Errors
/// [`CodecError::Unsupported`] for codecs that are not encoded.
pub(super) fn recipe(spec: &EncodeSpec) -> Result<Recipe, CodecError> {
    let holes = EncodeHoles {
        size: spec.size,
        fps: spec.fps,
        bitrate_kbps: spec.bitrate_kbps,
        threads: spec.threads,
        speed: spec.effort.speed(spec.codec),
        keyframe_distance: spec.fps * KEYFRAME_SECONDS,
        queue: QUEUE,
    };
    match (spec.codec, spec.h264) {
        (Codec::Vp8, _) => Ok(Recipe::EncodeVp8(holes)),
        (Codec::Vp9, _) => Ok(Recipe::EncodeVp9(holes)),
        (Codec::H264, H264Encoder::X264) => Ok(Recipe::EncodeH264(holes)),
        (Codec::H264, H264Encoder::OpenH264) => Ok(Recipe::EncodeH264OpenH264(holes)),
        // libaom 3.6 (Debian 12) aborts the process by an assertion in its rate control at constant bitrate; what AV1
        // would save is in docs/encoding.md.
        (codec, _) => Err(CodecError::Unsupported(codec, "encoded")),
    }
}

fn take(sample: &gst::Sample) -> Option<EncodedFrame> {
    let buffer = sample.buffer_owned()?;
    // x264enc shifts its timestamps; the segment contains the offset.
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let pts = segment.to_running_time(buffer.pts()?)?;
    let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    let data = Bytes::from_owner(buffer.into_mapped_buffer_readable().ok()?);
    Some(EncodedFrame { data, keyframe, pts: Duration::from_nanos(pts.nseconds()) })
}
