//! Frame slots: the newest picture of one source, ready in every size that is shown.
//!
//! Owns: rotation, cropping, scaling and conversion of colours, once per tile size; the backdrop of a camera that does
//! not fill its tile; whether a picture differs from the one that is shown ([`Stillness`]). Does not know: scenes. In:
//! pictures by the [`FrameWriter`] of one decoder, on its thread. Out: [`FrameSlot::get`] for compositors; a size that
//! was fetched is kept ready from then on; and when frames are shown, for [`LipSync`]. The owner of the slot is notified
//! of each new picture, and of the first packet of a microphone that was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::backdrop::Backdrop;
use super::liveness::LOST;
use super::still::{Stillness, difference};
use crate::codec::{Picture, PicturePool, colour, scale};
use crate::layout::{ObjectFit, fit};
use crate::media::{Colours, Look, Rect, Rotation, Size, SourceKind};
use crate::mixer::lip_sync::LipSync;
use crate::time::Timestamp;

/// Frames after which a size that was not fetched is dropped.
const WANTED_FRAMES: u64 = 15;
/// A frame after such a pause is shown whatever it looks like: the avatar may have taken its place, which happens after
/// 2 s at the earliest.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Most sizes kept ready; others are scaled at each fetch.
const WANTED_SIZES: usize = 24;

/// The newest picture of one source.
pub struct FrameSlot {
    kind: SourceKind,
    state: Mutex<State>,
    /// Time of the newest packet of the participant's microphone.
    heard: AtomicU64,
    /// See [`FrameSlot::is_still`].
    still: AtomicBool,
    /// None for a source without a microphone of its own.
    lip_sync: Option<Arc<LipSync>>,
    /// Called when the canvas may differ.
    notify: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    latest: Option<Latest>,
    wanted: Vec<Wanted>,
    rotated: PicturePool,
    number: u64,
    replaced: u64,
    /// The writer whose frames are taken; any earlier one is void.
    writer: u64,
    /// The arrival of the newest frame that was reported as shown.
    shown: Timestamp,
}

struct Latest {
    /// As it was decoded.
    decoded: Picture,
    look: Look,
    /// Upright.
    picture: Picture,
    /// When the picture, or the newest one that looks like it, arrived.
    arrival: Timestamp,
    number: u64,
    /// The writer that stored it.
    writer: u64,
    fetched: bool,
}

struct Wanted {
    tile: Size,
    fit: ObjectFit,
    /// The number of the newest frame at the last fetch of this size.
    fetched: u64,
    fitted: Option<Fitted>,
    scaler: Scaler,
}

/// Memory for scaled pictures.
#[derive(Default)]
struct Scaler {
    pool: PicturePool,
    halves: scale::Halves,
    backdrop: Backdrop,
}

/// A picture scaled to its tile.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The picture, of the size of `dest`.
    pub picture: Picture,
    /// Its place in the tile.
    pub dest: Rect,
    /// What is beside it, or above and below it, with its places in the tile; empty if the rest of the tile is.
    pub beside: Vec<(Picture, Rect)>,
    /// When its frame arrived.
    pub arrival: Timestamp,
    /// Counts the frames of its source.
    pub number: u64,
}

impl FrameSlot {
    /// An empty slot for a camera or a screen.
    pub fn new(kind: SourceKind) -> Self {
        Self::with_notification(kind, || {})
    }

    /// An empty slot that calls `notify` when the canvas may differ, on the thread of the caller.
    pub fn with_notification(kind: SourceKind, notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            kind,
            state: Mutex::default(),
            heard: AtomicU64::default(),
            still: AtomicBool::default(),
            lip_sync: None,
            notify: Box::new(notify),
        }
    }

    /// The same slot, which reports when its frames are shown.
    pub fn with_lip_sync(self, lip_sync: Arc<LipSync>) -> Self {
        Self { lip_sync: Some(lip_sync), ..self }
    }

    /// The newest frame is shown from `now` on.
    pub fn show(&self, now: Timestamp) {
        let Some(lip_sync) = &self.lip_sync else { return };
        let arrival = {
            let mut state = self.state.lock();
            let Some(arrival) = state.latest.as_ref().map(|latest| latest.arrival) else { return };
            if std::mem::replace(&mut state.shown, arrival) == arrival {
                return;
            }
            arrival
        };
        lip_sync.shown(arrival, now);
    }

    /// The writer of a new decoder. Frames of earlier writers are not taken any more.
    pub fn writer(self: &Arc<Self>) -> FrameWriter {
        let mut state = self.state.lock();
        state.writer += 1;
        self.still.store(false, Ordering::Relaxed);
        let stillness = Mutex::new(Stillness::new(self.kind));
        FrameWriter { slot: self.clone(), id: state.writer, stillness }
    }

    /// The newest frame, scaled to a tile; None before the first.
    pub fn get(&self, tile: Size, fit: ObjectFit) -> Option<Fitted> {
        let mut state = self.state.lock();
        let State { latest, wanted, .. } = &mut *state;
        let latest = latest.as_mut()?;
        latest.fetched = true;
        let at = wanted.iter().position(|wanted| (wanted.tile, wanted.fit) == (tile, fit));
        let Some(wanted) = (match at {
            Some(at) => wanted.get_mut(at),
            None if wanted.len() < WANTED_SIZES => {
                wanted.push(Wanted { tile, fit, fetched: 0, fitted: None, scaler: Scaler::default() });
                wanted.last_mut()
            }
            None => None,
        }) else {
            let scaler = &mut Scaler::default();
            return Some(make(latest, (tile, fit), self.kind, scaler));
        };
        wanted.fetched = latest.number;
        match &wanted.fitted {
            Some(fitted) if fitted.number == latest.number => {}
            _ => {
                wanted.fitted = Some(make(latest, (tile, fit), self.kind, &mut wanted.scaler));
            }
        }
        wanted.fitted.clone()
    }

    /// The newest frame, scaled to a size that is not fetched again; None before the first.
    pub(super) fn get_once(&self, tile: Size, fit: ObjectFit) -> Option<Fitted> {
        let mut state = self.state.lock();
        let latest = state.latest.as_mut()?;
        latest.fetched = true;
        Some(make(latest, (tile, fit), self.kind, &mut Scaler::default()))
    }

    /// Whether [`get`](Self::get) would have to scale for this tile.
    pub(super) fn needs_fitting(&self, tile: Size, fit: ObjectFit) -> bool {
        let state = self.state.lock();
        let Some(latest) = &state.latest else { return false };
        let wanted = state.wanted.iter().find(|wanted| (wanted.tile, wanted.fit) == (tile, fit));
        let fitted = wanted.and_then(|wanted| wanted.fitted.as_ref());
        fitted.is_none_or(|fitted| fitted.number != latest.number)
    }

    /// Forgets the picture and makes all writers void: a camera that was hidden must not be seen, also when a decoder
    /// has yet to store a frame.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.writer += 1;
        self.still.store(false, Ordering::Relaxed);
        state.latest = None;
        state.wanted.clear();
    }

    /// Frames that were replaced before they were fetched.
    pub fn replaced(&self) -> u64 {
        self.state.lock().replaced
    }

    /// The newest picture's size, upright; None before the first.
    pub fn size(&self) -> Option<Size> {
        self.state.lock().latest.as_ref().map(|latest| latest.picture.size())
    }

    /// Whether there is no picture: none has come yet, or it was forgotten.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().latest.is_none()
    }

    /// When the newest frame arrived.
    pub fn arrival(&self) -> Option<Timestamp> {
        self.state.lock().latest.as_ref().map(|latest| latest.arrival)
    }

    /// A packet of the participant's microphone has come: a camera without frames was stopped, not lost.
    pub fn hear(&self, now: Timestamp) {
        let before = Timestamp::from_micros(self.heard.swap(now.as_micros(), Ordering::Relaxed));
        if now.since(before) > LOST {
            (self.notify)();
        }
    }

    /// When the newest packet of the participant's microphone came; zero before the first.
    pub fn heard(&self) -> Timestamp {
        Timestamp::from_micros(self.heard.load(Ordering::Relaxed))
    }

    /// Whether it is a camera whose pictures have differed by noise only for a while.
    pub fn is_still(&self) -> bool {
        self.still.load(Ordering::Relaxed)
    }

    /// Camera or screen.
    pub const fn kind(&self) -> SourceKind {
        self.kind
    }
}

/// What one decoder stores its frames with; void as soon as its slot was cleared or has another writer.
pub struct FrameWriter {
    slot: Arc<FrameSlot>,
    id: u64,
    stillness: Mutex<Stillness>,
}

/// A frame for which a writer has begun to scale.
struct Storing {
    number: u64,
    rotated: PicturePool,
    wanted: Vec<((Size, ObjectFit), Scaler)>,
}

impl FrameWriter {
    /// Stores the newest frame: turns it upright and fits it to every tile in which it is shown. A frame that looks
    /// like the one that is shown only proves that the source lives. Does nothing when the writer is void.
    pub fn put(&self, picture: Picture, look: Look, now: Timestamp) {
        self.store(picture, look, false, now);
    }

    /// The same for a picture that was coded without reference to others: it is coarser than they are.
    pub fn put_keyframe(&self, picture: Picture, look: Look, now: Timestamp) {
        self.store(picture, look, true, now);
    }

    fn store(&self, picture: Picture, look: Look, keyframe: bool, now: Timestamp) {
        if !self.shows(&picture, look, keyframe, now) {
            return;
        }
        let Some(storing) = self.begin() else { return };
        self.finish(storing, picture, look, now);
        (self.slot.notify)();
    }

    /// Whether a frame differs enough from the one that is shown. Compares without the lock.
    fn shows(&self, picture: &Picture, look: Look, keyframe: bool, now: Timestamp) -> bool {
        let shown = {
            let state = self.slot.state.lock();
            let is_comparable =
                |latest: &&Latest| (state.writer, latest.writer) == (self.id, self.id) && latest.look == look;
            let latest = state.latest.as_ref().filter(is_comparable);
            latest
                .filter(|latest| now.since(latest.arrival) < PAUSE)
                .map(|latest| (latest.decoded.clone(), latest.number))
        };
        let Some((shown, number)) = shown else {
            self.stillness.lock().begins(now);
            self.slot.still.store(false, Ordering::Relaxed);
            return true;
        };
        let difference = difference(self.slot.kind, &shown, picture);
        let (shows, is_still) = {
            let mut stillness = self.stillness.lock();
            (stillness.shows(difference, keyframe, now), stillness.is_still(now))
        };
        self.slot.still.store(is_still && self.slot.kind == SourceKind::Camera, Ordering::Relaxed);
        if shows {
            return true;
        }
        let mut state = self.slot.state.lock();
        // The slot may have been cleared meanwhile.
        let Some(latest) = state.latest.as_mut().filter(|latest| latest.number == number) else { return true };
        latest.arrival = now;
        false
    }

    fn begin(&self) -> Option<Storing> {
        let mut state = self.slot.state.lock();
        if state.writer != self.id {
            return None;
        }
        state.number += 1;
        let number = state.number;
        state.wanted.retain(|wanted| wanted.fetched + WANTED_FRAMES >= number);
        let rotated = std::mem::take(&mut state.rotated);
        let wanted = state.wanted.iter_mut();
        let wanted = wanted.map(|wanted| ((wanted.tile, wanted.fit), std::mem::take(&mut wanted.scaler))).collect();
        Some(Storing { number, rotated, wanted })
    }

    /// Scales without the lock, because that takes long: compositors go on with the frame before.
    fn finish(&self, storing: Storing, picture: Picture, look: Look, now: Timestamp) {
        let Storing { number, mut rotated, wanted } = storing;
        let upright = rotate_upright(picture.clone(), look.rotation, &mut rotated);
        let latest =
            Latest { decoded: picture, look, picture: upright, arrival: now, number, writer: self.id, fetched: false };
        let kind = self.slot.kind;
        let fitted: Vec<((Size, ObjectFit), Fitted, Scaler)> = wanted
            .into_iter()
            .map(|(tile, mut scaler)| (tile, make(&latest, tile, kind, &mut scaler), scaler))
            .collect();

        let mut state = self.slot.state.lock();
        state.rotated = rotated;
        // The slot may have been cleared meanwhile.
        if state.writer != self.id || state.latest.as_ref().is_some_and(|latest| latest.number > number) {
            return;
        }
        if state.latest.as_ref().is_some_and(|latest| !latest.fetched) {
            state.replaced += 1;
        }
        state.latest = Some(latest);
        for (tile, made, scaler) in fitted {
            if let Some(wanted) = state.wanted.iter_mut().find(|wanted| (wanted.tile, wanted.fit) == tile) {
                wanted.fitted = Some(made);
                wanted.scaler = scaler;
            }
        }
    }
}

fn rotate_upright(picture: Picture, rotation: Rotation, pool: &mut PicturePool) -> Picture {
    if rotation == Rotation::None {
        return picture;
    }
    let mut rotated = pool.take(scale::rotated_size(picture.size(), rotation));
    scale::rotate(&picture, rotation, &mut rotated);
    pool.lend(rotated)
}

fn make(latest: &Latest, (tile, object_fit): (Size, ObjectFit), kind: SourceKind, scaler: &mut Scaler) -> Fitted {
    let Latest { picture, look: Look { colours, .. }, arrival, number, .. } = latest;
    let fit = fit(picture.size(), tile, kind, object_fit);
    let part = picture.part(fit.crop).unwrap_or_else(|| picture.clone());
    let ours = *colours == Colours::default();
    // A picture of the right size and colours is not copied.
    let picture = if part.size() == fit.dest.size() && ours {
        part
    } else {
        let mut scaled = scaler.pool.take(fit.dest.size());
        scale::shrink(&part, &mut scaled, &mut scaler.halves);
        if !ours {
            colour::to_default(&mut scaled, *colours);
        }
        scaler.pool.lend(scaled)
    };
    let beside = if kind == SourceKind::Camera && fit.dest.size() != tile {
        scaler.backdrop.beside(&picture, fit.dest, tile, *arrival)
    } else {
        Vec::new()
    };
    Fitted { picture, dest: fit.dest, beside, arrival: *arrival, number: *number }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    const TILE: Size = Size::new(320, 180);

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn grey(size: Size, luma: u8) -> Picture {
        Picture::filled(size, luma, 128, 128)
    }

    #[test]
    fn the_newest_frame_replaces_older_ones_and_replaced_frames_are_counted() {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        let writer = slot.writer();
        assert!(slot.get(TILE, ObjectFit::Auto).is_none());
        for (i, luma) in [50, 60, 70].into_iter().enumerate() {
            writer.put(grey(Size::new(640, 360), luma), Look::default(), at(i as u64));
        }
        let fitted = slot.get(TILE, ObjectFit::Auto).expect("three frames came");
        assert_eq!((fitted.picture.size(), fitted.arrival), (TILE, at(2)));
        assert_eq!(fitted.picture.plane(0).0[0], 70);
        assert_eq!(slot.replaced(), 2);
        assert_eq!(slot.get(TILE, ObjectFit::Auto).expect("still there").number, fitted.number);
        slot.clear();
        assert!(slot.get(TILE, ObjectFit::Auto).is_none());
    }

    #[test]
    fn sizes_that_are_fetched_are_kept_ready_and_others_are_dropped() {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        let writer = slot.writer();
        writer.put(grey(Size::new(640, 360), 50), Look::default(), at(0));
        assert!(slot.needs_fitting(TILE, ObjectFit::Auto));
        slot.get(TILE, ObjectFit::Auto);
        writer.put(grey(Size::new(640, 360), 60), Look::default(), at(1));
        assert!(!slot.needs_fitting(TILE, ObjectFit::Auto), "scaled on arrival");
        for i in 0..=WANTED_FRAMES {
            writer.put(grey(Size::new(640, 360), 80 + 20 * (i % 2) as u8), Look::default(), at(2 + i));
        }
        assert!(slot.needs_fitting(TILE, ObjectFit::Auto), "the size is not fetched any more");
    }

    #[test]
    fn a_picture_of_the_right_size_is_not_copied() {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        let writer = slot.writer();
        let picture = grey(TILE, 50);
        writer.put(picture.clone(), Look::default(), at(0));
        assert_eq!(
            slot.get(TILE, ObjectFit::Auto).expect("came").picture.plane(0).0.as_ptr(),
            picture.plane(0).0.as_ptr()
        );
    }

    #[test]
    fn pictures_are_rotated_first() {
        let slot = Arc::new(FrameSlot::new(SourceKind::Screen));
        slot.writer().put(grey(Size::new(180, 320), 50), Look { rotation: Rotation::Right, ..Look::default() }, at(0));
        assert_eq!(slot.size(), Some(TILE));
        assert_eq!(slot.get(TILE, ObjectFit::Auto).expect("came").dest.size(), TILE);
    }

    #[test]
    fn a_frame_that_is_being_stored_does_not_restore_a_hidden_camera() {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        let writer = slot.writer();
        let storing = writer.begin().expect("not void");
        slot.clear();
        writer.finish(storing, grey(TILE, 50), Look::default(), at(0));
        assert!(slot.get(TILE, ObjectFit::Auto).is_none(), "cleared while the frame was being scaled");
        writer.put(grey(TILE, 50), Look::default(), at(1));
        assert!(slot.get(TILE, ObjectFit::Auto).is_none(), "cleared before the decoder had stored it");
        slot.writer().put(grey(TILE, 60), Look::default(), at(2));
        assert_eq!(slot.get(TILE, ObjectFit::Auto).expect("shown again").picture.plane(0).0[0], 60);
    }

    #[test]
    fn a_frame_like_the_one_that_is_shown_only_proves_that_the_source_lives() {
        let notified = Arc::new(AtomicU32::new(0));
        let counter = notified.clone();
        let slot = Arc::new(FrameSlot::with_notification(SourceKind::Camera, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let writer = slot.writer();
        writer.put(grey(TILE, 50), Look::default(), at(0));
        let number = slot.get(TILE, ObjectFit::Auto).expect("came").number;
        writer.put(grey(TILE, 50), Look::default(), at(1_000_000));
        assert_eq!(
            (slot.get(TILE, ObjectFit::Auto).expect("kept").number, slot.arrival()),
            (number, Some(at(1_000_000)))
        );
        assert_eq!(notified.load(Ordering::Relaxed), 1);
        writer.put(grey(TILE, 50), Look { rotation: Rotation::Half, ..Look::default() }, at(1_100_000));
        writer.put(grey(TILE, 60), Look { rotation: Rotation::Half, ..Look::default() }, at(1_200_000));
        assert_eq!(slot.get(TILE, ObjectFit::Auto).expect("changed").number, number + 2);
        assert_eq!(notified.load(Ordering::Relaxed), 3);
        writer.put(grey(TILE, 60), Look { rotation: Rotation::Half, ..Look::default() }, at(3_300_000));
        assert_eq!(
            slot.get(TILE, ObjectFit::Auto).expect("there").number,
            number + 3,
            "the avatar was shown meanwhile"
        );
        slot.clear();
        let writer = slot.writer();
        writer.put(grey(TILE, 60), Look { rotation: Rotation::Half, ..Look::default() }, at(3_400_000));
        assert!(slot.get(TILE, ObjectFit::Auto).is_some(), "shown again after it was hidden");
    }

    #[test]
    fn a_microphone_that_is_heard_again_redraws_a_lost_source() {
        let notified = Arc::new(AtomicU32::new(0));
        let counter = notified.clone();
        let slot = FrameSlot::with_notification(SourceKind::Camera, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        for ms in [10_000, 10_020, 12_020, 14_021, 14_041] {
            slot.hear(at(ms * 1_000));
        }
        assert_eq!(notified.load(Ordering::Relaxed), 2, "the first, and the one after more than 2 s");
        assert_eq!(slot.heard(), at(14_041_000));
    }

    #[test]
    fn a_decoder_that_was_replaced_stores_no_frame() {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        let (old, new) = (slot.writer(), slot.writer());
        new.put(grey(TILE, 60), Look::default(), at(0));
        old.put(grey(TILE, 50), Look::default(), at(1));
        assert_eq!(slot.get(TILE, ObjectFit::Auto).expect("came").picture.plane(0).0[0], 60);
    }
}
