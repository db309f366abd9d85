//! Filters: pictures or sound in, filtered pictures or sound out.
//!
//! Owns: [`MediaFilter`], which has one GStreamer pipeline; the CPU time of its threads; the blending of transparent
//! pictures over a background; the scaling of pictures that a filter has returned in another size. Does not know:
//! participants, whether a filter is fast enough. In: pictures or samples. Out: pictures of the same size, or samples,
//! by callback on the filter's thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSinkCallbacks;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use parking_lot::Mutex;

use super::picture::{Picture, PictureMut};
use super::{CodecError, colour, init, scale};
use crate::filter::{FilterSpec, Media};
use crate::media::{Colours, Matrix, Size};
use crate::pipeline::{Pipeline, filter};
use crate::time::{Timestamp, thread_cpu};

/// Most frames in a filter. One more is dropped.
const QUEUE: usize = 3;

/// A frame of pictures or of sound.
#[derive(Debug, Clone)]
pub enum Raw {
    /// A picture and its colours.
    Picture(Picture, Colours),
    /// Samples of one channel, 48,000 a second.
    Sound(Arc<[f32]>),
}

/// Output of a filter. `T` is what was passed with the frame.
#[derive(Debug)]
pub enum Filtered<T> {
    /// A filtered frame. A picture has the size of the original.
    Frame(Raw, T),
    /// The filter has failed, for this reason. No frame follows.
    Failed(String),
}

/// What a transparent picture is blended over: makes a picture of a size, in default colours.
pub type Background = Box<dyn FnMut(Size) -> Picture + Send>;

/// One filter.
pub struct MediaFilter<T> {
    pipeline: Pipeline,
    /// Set when the filter has failed or is dropped: no callback follows.
    over: Arc<AtomicBool>,
    inside: Arc<Mutex<VecDeque<Inside<T>>>>,
    cpu: Arc<Cpu>,
    /// Size of the last picture.
    size: Option<Size>,
}

/// A frame that is being filtered.
struct Inside<T> {
    pts: gst::ClockTime,
    /// Size of a picture.
    size: Option<Size>,
    with: T,
}

/// CPU time of the threads that run a pipeline.
#[derive(Debug, Default)]
struct Cpu {
    micros: AtomicU64,
    /// The CPU time of each thread until which it is counted.
    counted: Mutex<Vec<(ThreadId, Duration)>>,
}

impl Cpu {
    /// What this thread has done since the last call belongs to the filter, or does not.
    fn mark(&self, is_filter: bool) {
        let (thread, now) = (thread::current().id(), thread_cpu());
        let mut counted = self.counted.lock();
        match counted.iter_mut().find(|(known, _)| *known == thread) {
            Some((_, until)) => {
                let used = now.saturating_sub(std::mem::replace(until, now));
                if is_filter {
                    self.micros.fetch_add(used.as_micros() as u64, Ordering::Relaxed);
                }
            }
            None => counted.push((thread, now)),
        }
    }
}

/// What the appsink's thread has.
struct Outlet<T, F> {
    media: Media,
    inside: Arc<Mutex<VecDeque<Inside<T>>>>,
    background: Background,
    sink: Arc<Mutex<F>>,
}

impl<T: Send + 'static> MediaFilter<T> {
    /// Starts a filter. `sink` is called on the filter's threads; it may drop the filter.
    ///
    /// # Errors
    /// [`CodecError::Pipeline`] if the pipeline cannot be made.
    pub fn new(
        spec: &FilterSpec,
        background: Background,
        sink: impl FnMut(Filtered<T>) + Send + 'static,
    ) -> Result<Self, CodecError> {
        init()?;
        let pipeline = filter::pipeline(spec)?;
        let over = Arc::new(AtomicBool::new(false));
        let inside: Arc<Mutex<VecDeque<Inside<T>>>> = Arc::default();
        let cpu: Arc<Cpu> = Arc::default();

        let source = pipeline.source().static_pad("src").expect("every appsrc has a source pad");
        let measure = cpu.clone();
        source.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            measure.mark(true);
            gst::PadProbeReturn::Ok
        });
        let sink = Arc::new(Mutex::new(sink));
        let mut outlet = Outlet { media: spec.media, inside: inside.clone(), background, sink: sink.clone() };
        let (ended, measure) = (over.clone(), cpu.clone());
        let (over_by_eos, eos_sink) = (over.clone(), sink.clone());
        pipeline.sink().set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if ended.load(Ordering::Acquire) {
                        return Err(gst::FlowError::Eos);
                    }
                    let filtered = outlet.take(&sample);
                    measure.mark(true);
                    if let Some(filtered) = filtered {
                        (outlet.sink.lock())(filtered);
                    }
                    measure.mark(false);
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| {
                    if !over_by_eos.swap(true, Ordering::AcqRel) {
                        (eos_sink.lock())(Filtered::Failed("it has ended the stream".into()));
                    }
                })
                .build(),
        );
        let ended = over.clone();
        pipeline.play(move |reason| {
            if !ended.swap(true, Ordering::AcqRel) {
                (sink.lock())(Filtered::Failed(reason));
            }
        })?;
        Ok(Self { pipeline, over, inside, cpu, size: None })
    }

    /// Filters a frame; false if it was dropped because too many are in the filter. The times of frames increase.
    ///
    /// # Errors
    /// [`CodecError::Failed`]: the filter has failed.
    pub fn push(&mut self, frame: &Raw, pts: Timestamp, with: T) -> Result<bool, CodecError> {
        if self.over.load(Ordering::Acquire) {
            return Err(CodecError::Failed);
        }
        let pts = gst::ClockTime::from_useconds(pts.as_micros());
        let size = if let Raw::Picture(picture, _) = frame { Some(picture.size()) } else { None };
        {
            let mut inside = self.inside.lock();
            if inside.len() >= QUEUE {
                return Ok(false);
            }
            inside.push_back(Inside { pts, size, with });
        }
        let mut buffer = match frame {
            Raw::Picture(picture, colours) => {
                let size = picture.size();
                if self.size.replace(size) != Some(size) {
                    self.pipeline.source().set_caps(Some(&caps(size)));
                }
                // Elements know little about colours: `alpha` neither passes them on nor respects their range.
                let mut copy = picture.copied();
                colour::to_default(&mut copy, *colours);
                copy.into_buffer()
            }
            Raw::Sound(samples) => {
                let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                gst::Buffer::from_mut_slice(bytes)
            }
        };
        buffer.get_mut().expect("just made").set_pts(pts);
        self.pipeline.source().push_buffer(buffer).map(|_| true).map_err(|_| CodecError::Failed)
    }

    /// CPU time of the threads of the filter since its start. Threads between two queues of the filter are not counted.
    pub fn cpu(&self) -> Duration {
        Duration::from_micros(self.cpu.micros.load(Ordering::Relaxed))
    }
}

impl<T> Drop for MediaFilter<T> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

impl<T, F> Outlet<T, F> {
    /// The frame in a sample; None if it belongs to no frame that was pushed.
    fn take(&mut self, sample: &gst::Sample) -> Option<Filtered<T>> {
        let pts = sample.buffer()?.pts();
        let Inside { size, with, .. } = {
            let mut inside = self.inside.lock();
            // A filter may drop frames, and return some without a time.
            while inside.len() > 1 && pts.is_some_and(|pts| inside[1].pts <= pts) {
                inside.pop_front();
            }
            inside.pop_front()?
        };
        let frame = match self.media {
            Media::Video => self.picture_of(sample, size?).map(|(picture, colours)| Raw::Picture(picture, colours)),
            Media::Audio => samples_of(sample).map(Raw::Sound),
        };
        Some(match frame {
            Some(frame) => Filtered::Frame(frame, with),
            None => Filtered::Failed("it returns frames of an unknown format".into()),
        })
    }

    fn picture_of(&mut self, sample: &gst::Sample, size: Size) -> Option<(Picture, Colours)> {
        let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
        let colours = colours_of(&info);
        let buffer = sample.buffer_owned()?;
        let (picture, colours) = if info.format() == gst_video::VideoFormat::Ayuv {
            let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &info).ok()?;
            let (mut picture, cover) = split(&frame);
            colour::to_default(&mut picture, colours);
            if cover.iter().any(|cover| *cover < 255) {
                let background = (self.background)(picture.size());
                blend_below(&mut picture, &cover, &background);
            }
            (picture.freeze(), Colours::default())
        } else {
            (Picture::mapped(buffer, &info)?, colours)
        };
        if picture.size() == size {
            return Some((picture, colours));
        }
        let mut scaled = PictureMut::new(size);
        scale::scale(&picture, &mut scaled);
        Some((scaled.freeze(), colours))
    }
}

fn samples_of(sample: &gst::Sample) -> Option<Arc<[f32]>> {
    let map = sample.buffer()?.map_readable().ok()?;
    let samples = map.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")));
    Some(samples.collect())
}

fn caps(size: Size) -> gst::Caps {
    let colorimetry: gst_video::VideoColorimetry = "bt601".parse().expect("a known name");
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
        .colorimetry(&colorimetry)
        .par(gst::Fraction::new(1, 1));
    info.build().and_then(|info| info.to_caps()).expect("every size of a picture has caps")
}

fn colours_of(info: &gst_video::VideoInfo) -> Colours {
    let colorimetry = info.colorimetry();
    let matrix = if colorimetry.matrix() == gst_video::VideoColorMatrix::Bt709 { Matrix::Bt709 } else { Matrix::Bt601 };
    Colours { matrix, full_range: colorimetry.range() == gst_video::VideoColorRange::Range0_255 }
}

/// The picture in a frame of AYUV, and the opacity of each pixel from 0 to 255, row by row.
fn split(frame: &gst_video::VideoFrame<gst_video::video_frame::Readable>) -> (PictureMut, Vec<u8>) {
    let size = Size::new(frame.width(), frame.height());
    let (width, height) = (size.width as usize, size.height as usize);
    let data = frame.plane_data(0).expect("AYUV has one plane");
    let stride = frame.plane_stride()[0] as usize;
    let row = |y: usize| &data[y.min(height - 1) * stride..][..width * 4];
    let mut picture = PictureMut::new(size);
    let mut cover = Vec::with_capacity(width * height);
    let ([luma, blue, red], strides) = picture.planes();
    for y in 0..height {
        let to = &mut luma[y * strides[0]..][..width];
        for (to, pixel) in to.iter_mut().zip(row(y).chunks_exact(4)) {
            cover.push(pixel[0]);
            *to = pixel[1];
        }
    }
    for y in 0..height.div_ceil(2) {
        let rows = [row(y * 2), row(y * 2 + 1)];
        let blue = &mut blue[y * strides[1]..][..width.div_ceil(2)];
        let red = &mut red[y * strides[2]..][..width.div_ceil(2)];
        for (x, (blue, red)) in blue.iter_mut().zip(red).enumerate() {
            let [left, right] = [x * 2, (x * 2 + 1).min(width - 1)];
            let mean = |i: usize| {
                let sum: u32 =
                    rows.iter().map(|row| u32::from(row[left * 4 + i]) + u32::from(row[right * 4 + i])).sum();
                ((sum + 2) / 4) as u8
            };
            (*blue, *red) = (mean(2), mean(3));
        }
    }
    (picture, cover)
}

/// Shows `background` where the picture is not covered: 255 keeps the picture, 0 shows the background.
fn blend_below(picture: &mut PictureMut, cover: &[u8], background: &Picture) {
    let size = picture.size();
    assert_eq!(size, background.size(), "a background has the size of its picture");
    let (width, height) = (size.width as usize, size.height as usize);
    let (planes, strides) = picture.planes();
    for (i, (plane, stride)) in planes.into_iter().zip(strides).enumerate() {
        let (below, below_stride) = background.plane(i);
        let by = if i == 0 { 1 } else { 2 };
        let (columns, rows) = (width.div_ceil(by), height.div_ceil(by));
        for y in 0..rows {
            let covers = [y * by, (y * by + by - 1).min(height - 1)].map(|y| &cover[y * width..][..width]);
            let to = &mut plane[y * stride..][..columns];
            for (x, (to, below)) in to.iter_mut().zip(&below[y * below_stride..]).enumerate() {
                let (left, right) = (x * by, (x * by + by - 1).min(width - 1));
                let four = covers.map(|row| u32::from(row[left]) + u32::from(row[right]));
                let cover = (four[0] + four[1]) / 4;
                *to = ((u32::from(*to) * cover + u32::from(*below) * (255 - cover) + 127) / 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SIZE: Size = Size::new(320, 180);
    /// The colours of the bars: white, green and grey, in BT.601 of limited range.
    const WHITE: [u8; 3] = [235, 128, 128];
    const GREEN: [u8; 3] = [145, 54, 34];
    const GREY: [u8; 3] = [126, 128, 128];

    fn spec(pipeline: &str, media: Media) -> FilterSpec {
        FilterSpec { serial: 1, name: "test".into(), media, pipeline: pipeline.into(), image: None }
    }

    fn start(pipeline: &str) -> (MediaFilter<u32>, Receiver<Filtered<u32>>) {
        let spec = spec(pipeline, Media::Video);
        let (to, from) = sync_channel(64);
        let background: Background = Box::new(|size| Picture::filled(size, 90, 200, 60));
        let sink = move |filtered| to.try_send(filtered).expect("room for it");
        (MediaFilter::new(&spec, background, sink).expect("starts"), from)
    }

    fn shipped(name: &str, values: serde_json::Value) -> String {
        let mut request = serde_json::json!({"name": name});
        request.as_object_mut().expect("an object").extend(values.as_object().expect("an object").clone());
        let request = serde_json::from_value(request).expect("a request");
        crate::filter::Catalog::shipped().check(&request).expect("valid").spec(1).pipeline
    }

    /// Three vertical bars.
    fn bars(size: Size) -> Picture {
        let mut picture = PictureMut::new(size);
        let (planes, strides) = picture.planes();
        for (i, (plane, stride)) in planes.into_iter().zip(strides).enumerate() {
            let by = if i == 0 { 1 } else { 2 };
            let width = (size.width as usize).div_ceil(by);
            for row in plane.chunks_mut(stride) {
                for (x, sample) in row[..width].iter_mut().enumerate() {
                    *sample = [WHITE, GREEN, GREY][x * 3 / width][i];
                }
            }
        }
        picture.freeze()
    }

    fn filtered(pipeline: &str, picture: &Picture, colours: Colours) -> (Picture, Colours) {
        let (mut filter, from) = start(pipeline);
        let frame = Raw::Picture(picture.clone(), colours);
        assert!(filter.push(&frame, Timestamp::from_micros(5), 7).expect("runs"));
        match from.recv_timeout(PATIENCE).expect("one in, one out") {
            Filtered::Frame(Raw::Picture(picture, colours), 7) => (picture, colours),
            other => panic!("{other:?}"),
        }
    }

    /// The sample at fractions of the size.
    fn at(picture: &Picture, x: f32, y: f32) -> [u8; 3] {
        let Size { width, height } = picture.size();
        let (x, y) = ((width as f32 * x) as usize, (height as f32 * y) as usize);
        let sample = |i: usize| {
            let (plane, stride) = picture.plane(i);
            let by = if i == 0 { 1 } else { 2 };
            plane[y / by * stride + x / by]
        };
        [sample(0), sample(1), sample(2)]
    }

    fn near(a: [u8; 3], b: [u8; 3]) -> bool {
        a.into_iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 5)
    }

    #[test]
    fn grayscale_removes_colours_and_keeps_luma() {
        for size in [SIZE, Size::new(321, 183)] {
            let (picture, colours) =
                filtered(&shipped("grayscale", serde_json::json!({})), &bars(size), Colours::default());
            assert_eq!((picture.size(), colours), (size, Colours::default()));
            for (x, luma) in [(0.1, WHITE[0]), (0.5, GREEN[0]), (0.9, GREY[0])] {
                assert!(near(at(&picture, x, 0.5), [luma, 128, 128]), "{size} {x}: {:?}", at(&picture, x, 0.5));
            }
        }
    }

    #[test]
    fn blur_keeps_the_size_and_blurs_edges() {
        let pipeline = shipped("blur", serde_json::json!({"strength": 4}));
        for size in [Size::new(640, 360), Size::new(361, 641)] {
            let original = bars(size);
            let (picture, _) = filtered(&pipeline, &original, Colours::default());
            assert_eq!(picture.size(), size);
            // Near the edge between white and green each colour is mixed with the other.
            let mixed = at(&picture, 0.32, 0.5)[0];
            assert!((150..232).contains(&mixed), "{size}: {mixed}");
            assert_eq!(at(&original, 0.32, 0.5)[0], WHITE[0]);
            assert!(near(at(&picture, 0.03, 0.5), WHITE), "{size}: {:?}", at(&picture, 0.03, 0.5));
        }
    }

    #[test]
    fn chroma_key_shows_the_background_in_place_of_the_key_colour() {
        let green = shipped("chroma_key", serde_json::json!({}));
        for size in [SIZE, Size::new(321, 183)] {
            let (picture, _) = filtered(&green, &bars(size), Colours::default());
            assert_eq!(picture.size(), size);
            assert!(near(at(&picture, 0.1, 0.5), WHITE), "{size}: {:?}", at(&picture, 0.1, 0.5));
            assert!(near(at(&picture, 0.5, 0.5), [90, 200, 60]), "{size}: {:?}", at(&picture, 0.5, 0.5));
            assert!(near(at(&picture, 0.9, 0.5), GREY), "{size}: {:?}", at(&picture, 0.9, 0.5));
        }
        let blue = shipped("chroma_key", serde_json::json!({"color": "blue"}));
        let (picture, _) = filtered(&blue, &bars(SIZE), Colours::default());
        assert!(near(at(&picture, 0.5, 0.5), GREEN), "green is kept: {:?}", at(&picture, 0.5, 0.5));
    }

    #[test]
    fn colours_are_converted_and_those_that_come_out_are_described() {
        for colours in [
            Colours { matrix: Matrix::Bt709, full_range: true },
            Colours { matrix: Matrix::Bt709, full_range: false },
            Colours { matrix: Matrix::Bt601, full_range: true },
        ] {
            let mut expected = bars(SIZE).copied();
            colour::to_default(&mut expected, colours);
            let expected = expected.freeze();
            for (pipeline, x) in [("identity".to_owned(), 0.5), (shipped("chroma_key", serde_json::json!({})), 0.9)] {
                let (picture, described) = filtered(&pipeline, &bars(SIZE), colours);
                assert_eq!(described, Colours::default());
                assert!(near(at(&picture, x, 0.5), at(&expected, x, 0.5)), "{colours:?}: {:?}", at(&picture, x, 0.5));
            }
        }
        // Elements choose the colours of HD for large pictures if they do not pass them on.
        let large = Size::new(1280, 720);
        for pipeline in ["videoconvert ! video/x-raw,format=RGB ! videoconvert", "alpha alpha=1"] {
            let (picture, colours) = filtered(pipeline, &bars(large), Colours::default());
            let mut seen = picture.copied();
            colour::to_default(&mut seen, colours);
            let seen = at(&seen.freeze(), 0.5, 0.5);
            assert!(near(seen, GREEN), "{pipeline}: {seen:?} with {colours:?}");
        }
    }

    fn push(filter: &mut MediaFilter<u32>, size: Size, n: u32) -> Result<bool, CodecError> {
        filter.push(&Raw::Picture(bars(size), Colours::default()), Timestamp::from_micros(n.into()), n)
    }

    #[test]
    fn sound_is_filtered() {
        let (to, from) = sync_channel(64);
        let background: Background = Box::new(|size| Picture::filled(size, 0, 0, 0));
        let sink = move |filtered| to.try_send(filtered).expect("room for it");
        let mut filter = MediaFilter::new(&spec("volume volume=0.5", Media::Audio), background, sink).expect("starts");
        let sound = |n: u64| (0..960).map(|i| ((n * 960 + i) as f32 / 10.0).sin()).collect::<Arc<[f32]>>();
        for n in 0..5 {
            let pushed = filter.push(&Raw::Sound(sound(n)), Timestamp::from_micros(n * 20_000), n);
            assert!(pushed.expect("runs"));
            match from.recv_timeout(PATIENCE) {
                Ok(Filtered::Frame(Raw::Sound(samples), with)) => {
                    assert_eq!((samples.len(), with), (960, n));
                    assert!(samples.iter().zip(&*sound(n)).all(|(half, whole)| (half * 2.0 - whole).abs() < 1e-6));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_change_of_size_is_followed_and_cpu_time_is_counted() {
        let (mut filter, from) = start("videobalance saturation=0");
        for (n, size) in [SIZE, Size::new(640, 360), Size::new(180, 320)].into_iter().enumerate() {
            assert!(push(&mut filter, size, n as u32).expect("runs"));
            match from.recv_timeout(PATIENCE) {
                Ok(Filtered::Frame(Raw::Picture(picture, _), with)) => {
                    assert_eq!((picture.size(), with), (size, n as u32));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(filter.cpu() > Duration::ZERO);
    }

    #[test]
    fn an_error_is_reported_once_and_further_pictures_are_refused() {
        let (mut filter, from) = start("identity error-after=2");
        assert!(push(&mut filter, SIZE, 1).expect("runs"));
        assert!(matches!(from.recv_timeout(PATIENCE), Ok(Filtered::Frame(_, 1))));
        // The second picture may be refused already.
        let _second = push(&mut filter, SIZE, 2);
        assert!(matches!(from.recv_timeout(PATIENCE), Ok(Filtered::Failed(_))));
        assert!(matches!(push(&mut filter, SIZE, 3), Err(CodecError::Failed)));
    }

    #[test]
    fn a_filter_that_returns_nothing_takes_a_bounded_number_of_pictures() {
        let (mut filter, from) = start("identity drop-probability=1");
        let taken = (0..20).filter(|n| push(&mut filter, SIZE, *n).expect("runs")).count();
        assert_eq!(taken, QUEUE);
        drop(filter);
        assert!(from.recv_timeout(PATIENCE).is_err(), "no picture and no failure");
    }

    proptest! {
        #[test]
        fn a_blend_is_between_the_picture_and_the_background(
            width in 1..9_u32, height in 1..9_u32, above in any::<u8>(), below in any::<u8>(), cover in any::<u8>(),
        ) {
            let size = Size::new(width, height);
            let mut picture = PictureMut::reclaim(Picture::filled(size, above, above, above)).expect("not shared");
            let background = Picture::filled(size, below, below, below);
            blend_below(&mut picture, &vec![cover; (width * height) as usize], &background);
            let expected = (f64::from(above) * f64::from(cover) + f64::from(below) * f64::from(255 - cover)) / 255.0;
            let picture = picture.freeze();
            for i in 0..3 {
                prop_assert!((f64::from(picture.plane(i).0[0]) - expected).abs() <= 0.51);
            }
        }
    }
}
