use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::judge::WINDOW;
use super::*;
use crate::codec::{PictureMut, Raw};
use crate::filter::{Media, Removal};
use crate::layout::ObjectFit;
use crate::link::FromMixer;
use crate::media::{Colours, Rotation, SourceKind};
use crate::mixer::compose::{FrameSlot, FrameWriter};
use crate::overlay::{Image, ImageType};
use crate::time::{Timestamp, now};

const SOURCE: SourceId = SourceId(1);
const SIZE: Size = Size::new(320, 180);
const PATIENCE: Duration = Duration::from_secs(20);
/// Red, as Y, Cb and Cr.
const RED: [u8; 3] = [81, 90, 240];
const GREEN: [u8; 3] = [145, 54, 34];

fn spec(serial: u32, pipeline: &str) -> FilterSpec {
    FilterSpec { serial, name: format!("f{serial}"), media: Media::Video, pipeline: pipeline.into(), image: None }
}

/// A source with filters, and what its slot and the mixer tell.
struct Camera {
    filters: Filters,
    outbox: Arc<Outbox>,
    slot: Arc<FrameSlot>,
    writer: Arc<FrameWriter>,
    stored: Receiver<()>,
    time: u64,
}

impl Camera {
    fn new(budget: Duration) -> Self {
        let outbox = Arc::new(Outbox::default());
        let (to, stored) = sync_channel(1);
        let slot = Arc::new(FrameSlot::with_notification(SourceKind::Screen, move || {
            // One notification is enough.
            let _ = to.try_send(());
        }));
        let writer = Arc::new(slot.writer());
        Self { filters: Filters::new(outbox.clone(), budget), outbox, slot, writer, stored, time: 0 }
    }

    fn set(&self, specs: &[FilterSpec]) {
        self.filters.set(SOURCE, specs.to_vec());
    }

    fn put(&mut self, [y, u, v]: [u8; 3]) {
        self.time += 33_333;
        let arrival = Timestamp::from_micros(self.time);
        let to = Target::Slot { rotation: Rotation::None, is_keyframe: true, writer: self.writer.clone() };
        let raw = Raw::Picture(Picture::filled(SIZE, y, u, v), Colours::default());
        self.filters.stage(SOURCE).put(Frame { raw, arrival, to });
    }

    /// The colour in the middle of the picture that is shown.
    fn shown(&self) -> Option<[u8; 3]> {
        let picture = self.slot.get(SIZE, ObjectFit::Auto)?.picture;
        Some([0, 1, 2].map(|i| {
            let ((plane, stride), by) = (picture.plane(i), if i == 0 { 1 } else { 2 });
            plane[90 / by * stride + 160 / by]
        }))
    }

    /// Waits for a stored frame, but no longer than this.
    fn wait(&self, millis: u64) {
        // None may come.
        let _ = self.stored.recv_timeout(Duration::from_millis(millis));
    }

    /// Puts frames until one is shown that is like this one.
    fn run_until(&mut self, put: [u8; 3], wanted: [u8; 3]) {
        let begun = now();
        while !self.shown().is_some_and(|shown| near(shown, wanted)) {
            assert!(now().since(begun) < PATIENCE, "{:?} is shown, not {wanted:?}", self.shown());
            self.put(put);
            // So long that a busy machine does not make the filter look slow.
            self.wait(100);
        }
    }

    /// Puts frames until the mixer removes a filter.
    fn run_until_removed(&mut self) -> (u32, Removal, String) {
        let begun = now();
        loop {
            self.put(RED);
            self.wait(100);
            // The outbox is never empty: `take` would wait.
            self.outbox.push(FromMixer::Ready { missing: Vec::new() });
            let mut messages = Vec::new();
            assert!(self.outbox.take(&mut messages));
            let removed = messages.into_iter().find_map(|message| match message {
                FromMixer::FilterRemoved(serial, why, detail) => Some((serial, why, detail)),
                _ => None,
            });
            if let Some(removed) = removed {
                return removed;
            }
            assert!(now().since(begun) < PATIENCE, "no filter was removed");
        }
    }
}

fn near(a: [u8; 3], b: [u8; 3]) -> bool {
    a.into_iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 4)
}

#[test]
fn filters_are_applied_in_their_order_and_changed_while_frames_come() {
    let mut camera = Camera::new(Duration::MAX);
    camera.put(RED);
    assert_eq!(camera.shown(), Some(RED), "stored at once without filters");
    let grey = spec(1, "videobalance saturation=0");
    // A hue of 180 degrees turns red into a kind of cyan.
    let turned = spec(2, "videobalance hue=1");
    camera.set(std::slice::from_ref(&grey));
    camera.run_until(RED, [RED[0], 128, 128]);
    camera.set(std::slice::from_ref(&turned));
    camera.run_until(RED, [RED[0], 166, 16]);
    camera.set(&[turned, grey]);
    camera.run_until(RED, [RED[0], 128, 128]);
    camera.set(&[]);
    camera.put(RED);
    assert_eq!(camera.shown(), Some(RED));
}

#[test]
fn a_source_that_begins_with_filters_is_never_seen_without_them() {
    let mut camera = Camera::new(Duration::MAX);
    camera.set(&[spec(1, "videobalance saturation=0")]);
    camera.put(RED);
    while camera.shown().is_none() {
        camera.stored.recv_timeout(PATIENCE).expect("the frame is filtered when the filter is there");
    }
    assert_eq!(camera.shown().map(|shown| near(shown, [RED[0], 128, 128])), Some(true), "{:?}", camera.shown());
    // The same after it was hidden.
    camera.slot.clear();
    camera.filters.stage(SOURCE).clear();
    camera.writer = Arc::new(camera.slot.writer());
    camera.run_until(GREEN, [GREEN[0], 128, 128]);
}

#[test]
fn the_last_frame_is_filtered_again_after_a_change() {
    let mut camera = Camera::new(Duration::MAX);
    camera.put(RED);
    while camera.stored.try_recv().is_ok() {}
    camera.set(&[spec(1, "videobalance saturation=0")]);
    camera.stored.recv_timeout(PATIENCE).expect("no other frame comes");
    assert!(camera.shown().is_some_and(|shown| near(shown, [RED[0], 128, 128])));
    camera.set(&[]);
    assert_eq!(camera.shown(), Some(RED));
}

#[test]
fn a_filter_that_fails_is_removed_and_the_others_go_on() {
    let mut camera = Camera::new(Duration::MAX);
    let grey = spec(1, "videobalance saturation=0");
    for (serial, pipeline) in [(2, "identity error-after=3"), (3, "identity eos-after=3")] {
        camera.set(&[grey.clone(), spec(serial, pipeline)]);
        let (removed, why, detail) = camera.run_until_removed();
        assert_eq!((removed, why), (serial, Removal::Failed), "{detail}");
        camera.run_until(RED, [RED[0], 128, 128]);
    }
    camera.set(&[spec(4, "identity error-after=1")]);
    assert_eq!(camera.run_until_removed().0, 4);
    camera.run_until(GREEN, GREEN);
    assert_eq!(camera.filters.counts().removals(), 3);
}

#[test]
fn a_filter_that_cannot_be_made_is_removed() {
    let mut camera = Camera::new(Duration::MAX);
    camera.set(&[spec(1, "nosuchelement"), spec(2, "videobalance saturation=0")]);
    let (serial, why, detail) = camera.run_until_removed();
    assert_eq!((serial, why), (1, Removal::Unavailable));
    assert!(detail.contains("nosuchelement"), "{detail}");
    camera.run_until(RED, [RED[0], 128, 128]);
    camera.set(&[spec(3, "identity nosuchproperty=1")]);
    let (serial, why, _) = camera.run_until_removed();
    assert_eq!((serial, why), (3, Removal::Failed));
    camera.run_until(RED, RED);
}

#[test]
fn a_slow_filter_is_removed() {
    // Frames come every 10 ms, and one leaves every 300 ms.
    let mut camera = Camera::new(Duration::MAX);
    camera.set(&[spec(1, "identity sleep-time=300000")]);
    let (serial, why, detail) = camera.run_until_removed();
    assert_eq!(serial, 1, "{detail}");
    assert!(matches!(why, Removal::Slow | Removal::Stalled), "{why:?}: {detail}");
    camera.run_until(RED, RED);
    // No CPU time is allowed.
    let mut camera = Camera::new(Duration::ZERO);
    camera.set(&[spec(1, "videoconvert ! video/x-raw,format=RGB ! videoconvert")]);
    let (_, why, _) = camera.run_until_removed();
    assert_eq!(why, Removal::Slow);
}

#[test]
fn a_filter_that_returns_nothing_is_removed() {
    let mut camera = Camera::new(Duration::MAX);
    camera.set(&[spec(1, "identity drop-probability=1")]);
    let (_, why, detail) = camera.run_until_removed();
    assert_eq!((why, detail), (Removal::Stalled, format!("none of {WINDOW} frames came out of it")));
    camera.run_until(RED, RED);
}

#[test]
fn chroma_key_shows_the_image_of_the_room_as_soon_as_it_is_there() {
    let mut camera = Camera::new(Duration::MAX);
    let key = FilterSpec { image: Some("beach".into()), ..spec(1, "alpha method=green") };
    camera.set(&[key]);
    camera.run_until(GREEN, [16, 128, 128]);
    let svg = r##"<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">
        <rect width="64" height="64" fill="#ff0000"/></svg>"##;
    let image = Image { kind: ImageType::Svg, bytes: svg.as_bytes().into() };
    let bitmap = Arc::new(Bitmap::decode(&image).expect("an image"));
    let name: ImageName = "beach".parse().expect("a name");
    while camera.stored.try_recv().is_ok() {}
    camera.filters.image(&name, Some(bitmap));
    camera.stored.recv_timeout(PATIENCE).expect("the last frame is filtered again");
    assert!(camera.shown().is_some_and(|shown| near(shown, RED)), "{:?}", camera.shown());
    camera.filters.image(&name, None);
    camera.run_until(GREEN, [16, 128, 128]);
    // What is not green is kept.
    camera.run_until(RED, RED);
}

#[test]
fn an_image_covers_a_picture_without_being_distorted() {
    // A red square in the middle of blue, twice as wide as high.
    let svg = r##"<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100">
        <rect width="200" height="100" fill="#0000ff"/>
        <rect x="75" y="25" width="50" height="50" fill="#ff0000"/></svg>"##;
    let image = Image { kind: ImageType::Svg, bytes: svg.as_bytes().into() };
    let bitmap = Bitmap::decode(&image).expect("an image");
    for size in [Size::new(320, 180), Size::new(181, 321), Size::new(64, 64)] {
        let picture = bitmap.cover(size, [0; 3]);
        assert_eq!(picture.size(), size);
        let (plane, stride) = picture.plane(0);
        let luma = |x: u32, y: u32| plane[y as usize * stride + x as usize];
        let (center_x, center_y) = (size.width / 2, size.height / 2);
        // The height of the image becomes that of the picture, unless the picture is wider than the image.
        let side = f64::from(size.height.max(size.width / 2)) / 2.0;
        let inside = (side * 0.45) as u32;
        let outside = (side * 0.55) as u32;
        for (dx, dy) in [(1, 0), (0, 1)] {
            assert!(luma(center_x + dx * inside, center_y + dy * inside).abs_diff(81) <= 6, "{size}");
            let (x, y) = (center_x + dx * outside, center_y + dy * outside);
            if x < size.width && y < size.height {
                assert!(luma(x, y).abs_diff(41) <= 6, "{size}: {} at {x},{y}", luma(x, y));
            }
        }
    }
    let _writable = PictureMut::reclaim(bitmap.cover(Size::new(2, 2), [0; 3])).expect("it is not shared");
}
