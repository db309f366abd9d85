//! Decoders: whole frames in, pictures out.
//!
//! Owns: one decoder pipeline each, and the gate before it: what does not begin with a keyframe of an agreed size never
//! reaches the C code. Does not know: RTP, loss, who sends. Pictures leave by callback on the decoder's thread.

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

/// Frames that may wait before a decoder: half a second at 30 a second. More waiting helps nobody.
const QUEUE: u32 = 15;
/// Smallest picture in either direction.
const MIN_SIDE: u32 = 16;

/// What a decoder accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest picture, upright or lying.
    pub max: Size,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max: Size::new(1920, 1080) }
    }
}

impl DecodeLimits {
    /// Whether a picture may be decoded. Encoders round up to whole blocks, hence the 16 pixels.
    pub fn allow(&self, size: Size) -> bool {
        let (long, short) = (size.width.max(size.height), size.width.min(size.height));
        let (max_long, max_short) = (self.max.width.max(self.max.height), self.max.width.min(self.max.height));
        let block = |side: u32| side.next_multiple_of(16);
        let area = u64::from(block(max_long)) * u64::from(block(max_short));
        short >= MIN_SIDE && long <= block(max_long) && u64::from(long) * u64::from(short) <= area
    }
}

/// What a decoder tells its owner.
#[derive(Debug)]
pub enum Decoded {
    /// A picture.
    Picture {
        /// The picture.
        picture: Picture,
        /// The time its frame was pushed with.
        pts: Timestamp,
    },
    /// The stream is broken. The owner drops this decoder, makes a new one and asks for a keyframe.
    Failed(String),
}

type Sink = Mutex<Box<dyn FnMut(Decoded) + Send>>;

/// One decoder.
pub struct VideoDecoder {
    codec: Codec,
    limits: DecodeLimits,
    pipeline: Pipeline,
    /// No callback after this.
    over: Arc<AtomicBool>,
    keyed: bool,
}

impl VideoDecoder {
    /// Starts a decoder. `sink` is called on the decoder's thread; it may drop the decoder.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`] for audio codecs; what is missing on this machine.
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

    /// Decodes one whole frame; see [`Depayloader::frame`](super::Depayloader::frame) for what whole means.
    ///
    /// # Errors
    /// The frame was not taken: it is malformed, of a forbidden size, no keyframe where one is needed, or the decoder is
    /// behind. After any error decoding goes on with the next keyframe, so the owner asks for one; only after
    /// [`CodecError::Failed`] it also needs a new decoder.
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

/// The file for a codec.
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
