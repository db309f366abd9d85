//! Video decoders: encoded frames in, pictures out.
//!
//! Owns: [`VideoDecoder`], which has one GStreamer pipeline, and the checks around it: the C code gets no frame of a
//! forbidden size, no buffer with more than one frame, and its first frame is a keyframe or recovery point; a picture
//! of a forbidden size ends the decoder. Does not know: RTP, loss, senders. In: whole frames. Out: pictures, by
//! callback on the decoder's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app::AppSinkCallbacks;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::header::{self, Entry, Header};
use super::picture::Picture;
use super::{CodecError, init};
use crate::media::{Codec, Size};
use crate::pipeline::{DecodeHoles, Pipeline, Recipe};
use crate::time::Timestamp;

/// Most frames that wait for a decoder: 0.5 s at 30 frames a second.
const QUEUE: u32 = 15;
/// Smallest width and height in pixels: one macroblock of VP8 and H.264.
const MIN_SIDE: u32 = 16;

/// Limits of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest picture; its sides may be exchanged.
    pub max: Size,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max: Size::new(1920, 1080) }
    }
}

impl DecodeLimits {
    /// Whether a picture of this size may be decoded. The sides of the limit are rounded up to multiples of 16 pixels,
    /// because encoders code whole macroblocks: 1080 lines become 1088.
    pub fn allow(&self, size: Size) -> bool {
        let (long, short) = (size.width.max(size.height), size.width.min(size.height));
        let (max_long, max_short) = (self.max.width.max(self.max.height), self.max.width.min(self.max.height));
        let block = |side: u32| side.next_multiple_of(16);
        let area = u64::from(block(max_long)) * u64::from(block(max_short));
        short >= MIN_SIDE && long <= block(max_long) && u64::from(long) * u64::from(short) <= area
    }

    /// Whether a decoded picture has such a size. Cropping may have made it smaller than a coded one.
    fn allow_decoded(&self, size: Size) -> bool {
        self.allow(Size::new(size.width.max(MIN_SIDE), size.height.max(MIN_SIDE)))
    }
}

/// Output of a decoder.
#[derive(Debug)]
pub enum Decoded {
    /// A picture.
    Picture {
        /// The picture.
        picture: Picture,
        /// The time that was passed with its frame to [`VideoDecoder::push`].
        pts: Timestamp,
    },
    /// The decoder waits for a keyframe: a frame refers to a picture that was not received or not decoded. Repeated for
    /// each such frame. The owner of the decoder requests a keyframe from the sender.
    KeyframeWanted,
    /// The decoder has failed, for this reason. Its owner makes another one and requests a keyframe.
    Failed(String),
}

/// The callback of a decoder.
type Sink = Mutex<Box<dyn FnMut(Decoded) + Send>>;

/// One decoder.
pub struct VideoDecoder {
    codec: Codec,
    limits: DecodeLimits,
    /// Decoding may begin at a recovery point.
    recovers: bool,
    pipeline: Pipeline,
    /// Set when the decoder has failed or is dropped: no callback follows.
    over: Arc<AtomicBool>,
    /// The last frame went to the pipeline, so the next one may refer to it. Otherwise a keyframe is needed.
    keyed: bool,
}

impl VideoDecoder {
    /// Starts a decoder that begins with a keyframe. `sink` is called on the decoder's thread; it may drop the decoder.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`] for audio codecs; [`CodecError::Pipeline`] if an element is not installed.
    pub fn new(
        codec: Codec,
        limits: DecodeLimits,
        sink: impl FnMut(Decoded) + Send + 'static,
    ) -> Result<Self, CodecError> {
        Self::starting_at(Entry::Keyframe, codec, limits, sink)
    }

    /// Starts a decoder that begins with a keyframe or, for [`Entry::RecoveryPoint`], also at a recovery point: then
    /// the pictures before the refresh is complete are damaged.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn starting_at(
        entry: Entry,
        codec: Codec,
        limits: DecodeLimits,
        sink: impl FnMut(Decoded) + Send + 'static,
    ) -> Result<Self, CodecError> {
        init()?;
        let recovers = matches!(entry, Entry::RecoveryPoint { .. });
        let pipeline = Pipeline::new(if recovers { recovery_recipe(codec)? } else { recipe(codec)? })?;
        let over = Arc::new(AtomicBool::new(false));
        let sink: Arc<Sink> = Arc::new(Mutex::new(Box::new(sink)));

        let (to, ended) = (sink.clone(), over.clone());
        pipeline.on_keyframe_request(move || {
            if !ended.load(Ordering::Acquire) {
                (to.lock())(Decoded::KeyframeWanted);
            }
        });
        let (to, ended) = (sink.clone(), over.clone());
        pipeline.sink().set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if ended.load(Ordering::Acquire) {
                        return Err(gst::FlowError::Eos);
                    }
                    let (picture, pts) = picture_of(&sample).ok_or(gst::FlowError::Error)?;
                    // The header said another size. The error ends the pipeline.
                    if !limits.allow_decoded(picture.size()) {
                        return Err(gst::FlowError::NotNegotiated);
                    }
                    (to.lock())(Decoded::Picture { picture, pts });
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
        Ok(Self { codec, limits, recovers, pipeline, over, keyed: false })
    }

    /// Calls `changed` on the decoder's thread when the decoder begins a frame (true), and when it waits for the next
    /// one (false). Called before the first frame.
    pub fn on_busy(&self, changed: impl Fn(bool) + Send + Sync + 'static) {
        self.pipeline.on_busy(changed);
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
        let taken = self.check_and_push(frame, pts);
        self.keyed = taken.is_ok();
        taken
    }

    /// Whether [`push`](Self::push) would take another frame.
    pub fn has_room(&self) -> bool {
        self.pipeline.waiting() < u64::from(QUEUE)
    }

    /// Checks a frame, and passes it to the pipeline.
    fn check_and_push(&self, frame: Bytes, pts: Timestamp) -> Result<(), CodecError> {
        let Header { keyframe, recovery_point, size, .. } = header::read(self.codec, &frame)?;
        let is_entry = keyframe || recovery_point.is_some() && self.recovers;
        if let Some(size) = size.filter(|size| !self.limits.allow(*size)) {
            return Err(CodecError::Size { size, max: self.limits.max });
        }
        // The first frame must contain its size (H.264: an SPS), because the decoder allocates memory for it.
        if !self.keyed && (!is_entry || size.is_none()) {
            return Err(CodecError::KeyframeNeeded);
        }
        let waiting = self.pipeline.waiting();
        if waiting >= u64::from(QUEUE) {
            return Err(CodecError::Behind(waiting));
        }
        for data in header::buffers(self.codec, frame) {
            let mut buffer = gst::Buffer::from_slice(data);
            let fields = buffer.get_mut().expect("just made");
            fields.set_pts(gst::ClockTime::from_useconds(pts.as_micros()));
            if !keyframe {
                fields.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            self.pipeline.source().push_buffer(buffer).map_err(|_| CodecError::Failed)?;
        }
        Ok(())
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

/// The pipeline that can begin at a recovery point.
///
/// # Errors
/// [`CodecError::Unsupported`] for other codecs than H.264.
pub(super) fn recovery_recipe(codec: Codec) -> Result<Recipe, CodecError> {
    match codec {
        Codec::H264 => Ok(Recipe::DecodeH264Recovery(DecodeHoles { queue: QUEUE })),
        _ => Err(CodecError::Unsupported(codec, "decoded from a recovery point on")),
    }
}

/// The picture in a sample and its time; None if its format is not the expected one.
fn picture_of(sample: &gst::Sample) -> Option<(Picture, Timestamp)> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let buffer = sample.buffer_owned()?;
    let pts = Timestamp::from_micros(buffer.pts()?.useconds());
    Some((Picture::mapped(buffer, &info)?, pts))
}
