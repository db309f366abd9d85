//! Decoders: whole frames in, pictures out.
//!
//! Owns: one decoder pipeline each, and the check before it: the C code gets no frame of a forbidden size, and a
//! keyframe first. Does not know: RTP, loss, senders. In: whole frames. Out: pictures, by callback on the decoder's
//! thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app::AppSinkCallbacks;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::header::{self, Header};
use super::picture::Picture;
use super::{CodecError, init};
use crate::media::{Codec, Size};
use crate::pipeline::{DecodeHoles, Pipeline, Recipe};
use crate::time::Timestamp;

/// Most frames that wait for a decoder: 0.5 s at 30 frames a second.
const QUEUE: u32 = 15;
/// Smallest width and height in pixels.
const MIN_SIDE: u32 = 16;

/// Limits of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest picture, in landscape or portrait.
    pub max: Size,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max: Size::new(1920, 1080) }
    }
}

impl DecodeLimits {
    /// Whether a picture of this size is decoded. Sides are rounded up to 16 pixels, because encoders code whole
    /// blocks.
    pub fn allow(&self, size: Size) -> bool {
        let (long, short) = (size.width.max(size.height), size.width.min(size.height));
        let (max_long, max_short) = (self.max.width.max(self.max.height), self.max.width.min(self.max.height));
        let block = |side: u32| side.next_multiple_of(16);
        let area = u64::from(block(max_long)) * u64::from(block(max_short));
        short >= MIN_SIDE && long <= block(max_long) && u64::from(long) * u64::from(short) <= area
    }
}

/// Output of a decoder.
#[derive(Debug)]
pub enum Decoded {
    /// A picture.
    Picture {
        /// The picture.
        picture: Picture,
        /// The time that was passed with its frame.
        pts: Timestamp,
    },
    /// The decoder has failed. Its owner makes another one and requests a keyframe.
    Failed(String),
}

type Sink = Mutex<Box<dyn FnMut(Decoded) + Send>>;

/// One decoder.
pub struct VideoDecoder {
    codec: Codec,
    limits: DecodeLimits,
    pipeline: Pipeline,
    /// Set when no callback may follow.
    over: Arc<AtomicBool>,
    keyed: bool,
}

impl VideoDecoder {
    /// Starts a decoder. `sink` is called on the decoder's thread; it may drop the decoder.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`] for audio codecs; [`CodecError::Pipeline`] if an element is not installed.
    pub fn new(
        codec: Codec,
        limits: DecodeLimits,
        sink: impl FnMut(Decoded) + Send + 'static,
    ) -> Result<Self, CodecError> {
        init()?;
        let pipeline = Pipeline::new(recipe(codec)?)?;
        let over = Arc::new(AtomicBool::new(false));
        let sink: Arc<Sink> = Arc::new(Mutex::new(Box::new(sink)));

        let (to, ended) = (sink.clone(), over.clone());
        pipeline.sink().set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if ended.load(Ordering::Acquire) {
                        return Err(gst::FlowError::Eos);
                    }
                    let decoded = take(&sample).ok_or(gst::FlowError::Error)?;
                    (to.lock())(decoded);
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let ended = over.clone();
        pipeline.play(move |reason| {
            if !ended.swap(true, Ordering::AcqRel) {
                (sink.lock())(Decoded::Failed(reason));
            }
        })?;
        Ok(Self { codec, limits, pipeline, over, keyed: false })
    }

    /// Decodes one whole frame, as [`Depayloader::frame`](super::Depayloader::frame) returns it.
    ///
    /// # Errors
    /// The frame was dropped: it is malformed or of a forbidden size, a keyframe is needed first, or too many frames
    /// wait. After any error decoding continues with the next keyframe, which the owner requests; after
    /// [`CodecError::Failed`] it also needs another decoder.
    pub fn push(&mut self, frame: Bytes, pts: Timestamp) -> Result<(), CodecError> {
        if self.over.load(Ordering::Acquire) {
            return Err(CodecError::Failed);
        }
        let taken = self.gate(frame, pts);
        self.keyed = taken.is_ok();
        taken
    }

    fn gate(&self, frame: Bytes, pts: Timestamp) -> Result<(), CodecError> {
        let Header { keyframe, size } = header::read(self.codec, &frame)?;
        if let Some(size) = size.filter(|size| !self.limits.allow(*size)) {
            return Err(CodecError::Size { size, max: self.limits.max });
        }
        if !self.keyed && (!keyframe || size.is_none()) {
            return Err(CodecError::KeyframeNeeded);
        }
        let waiting = self.pipeline.waiting();
        if waiting >= u64::from(QUEUE) {
            return Err(CodecError::Behind(waiting));
        }
        let mut buffer = gst::Buffer::from_slice(frame);
        let fields = buffer.get_mut().expect("just made");
        fields.set_pts(gst::ClockTime::from_useconds(pts.as_micros()));
        if !keyframe {
            fields.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        self.pipeline.source().push_buffer(buffer).map(drop).map_err(|_| CodecError::Failed)
    }
}

impl Drop for VideoDecoder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// The pipeline of a codec.
///
/// # Errors
/// [`CodecError::Unsupported`] for audio codecs.
pub(super) fn recipe(codec: Codec) -> Result<Recipe, CodecError> {
    let holes = DecodeHoles { queue: QUEUE };
    match codec {
        Codec::Vp8 => Ok(Recipe::DecodeVp8(holes)),
        Codec::Vp9 => Ok(Recipe::DecodeVp9(holes)),
        Codec::H264 => Ok(Recipe::DecodeH264(holes)),
        Codec::Av1 => Ok(Recipe::DecodeAv1(holes)),
        Codec::Opus | Codec::Pcmu | Codec::Pcma => Err(CodecError::Unsupported(codec, "decoded to pictures")),
    }
}

fn take(sample: &gst::Sample) -> Option<Decoded> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let buffer = sample.buffer_owned()?;
    let pts = Timestamp::from_micros(buffer.pts()?.useconds());
    Some(Decoded::Picture { picture: Picture::mapped(buffer, &info)?, pts })
}
