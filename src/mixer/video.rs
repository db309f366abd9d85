//! The video loop: composes each view that has streams, and passes its canvas to the encoders of these streams.
//!
//! Owns: the compositors, the stream encoders, the loop that runs their ticks. Does not know: how a canvas is drawn or
//! encoded. In: scenes, the stream set and keyframe requests by the [`VideoInbox`]; frames in [`Slots`]. Out: packets
//! in the [`Outbox`]. A view without streams is not composed; a loop without streams waits for an order. A view whose
//! canvas does not change rests: it runs no ticks until a frame comes, an order, a keyframe request, or the time at
//! which a stream has something to do or a frame becomes stale.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::builder::Builder;
use super::compose::{Bitmap, Compositor, FrameSlot};
use super::encode::{EncodeOptions, StreamEncoder};
use super::filter::Filters;
use super::lip_sync::LipSync;
use super::outbox::Outbox;
use super::pace::{Turn, tick_at, tick_time};
use super::ticks::{Busy, Due, Grid, Watched, due};
use crate::codec::{Picture, PicturePool, scale};
use crate::id::{SourceId, ViewName};
use crate::layout::Scene;
use crate::media::{Size, SourceKind};
use crate::overlay::{ImageName, Overlay};
use crate::plan::StreamSet;
use crate::time::{Timestamp, now, unix_micros};

/// Late ticks that are run one after the other; if more are late, they are skipped.
const CATCH_UP: u64 = 1;

/// Fewest frames a second of a stream in which tiles are seen to move.
const MOVING_FPS: u32 = 10;

/// A view that rests for longer than this, in seconds, gives its spare canvases back.
const RESTED_SECONDS: u64 = 1;

/// Orders for the loop: whole values, the newest replaces the one before.
#[derive(Debug, Default)]
pub(super) struct VideoInbox {
    /// None for a view that is not composed any more.
    scenes: BTreeMap<ViewName, Option<Scene>>,
    overlays: BTreeMap<ViewName, Vec<Overlay>>,
    /// Images of overlays, avatars and backgrounds that are there from now on, or not any more.
    images: BTreeMap<ImageName, Option<Arc<Bitmap>>>,
    streams: Option<StreamSet>,
    keyframes: BTreeSet<u32>,
    /// A frame has come, or a source has gone: the canvas may differ.
    damaged: bool,
    /// The loop runs no ticks and waits for a change.
    resting: bool,
    closed: bool,
}

impl VideoInbox {
    pub(super) fn scene(inbox: &Watched<Self>, scene: Scene) {
        inbox.change(|inbox| drop(inbox.scenes.insert(scene.view.clone(), Some(scene))));
    }

    pub(super) fn scene_gone(inbox: &Watched<Self>, view: ViewName) {
        inbox.change(|inbox| drop(inbox.scenes.insert(view, None)));
    }

    pub(super) fn overlays(inbox: &Watched<Self>, view: ViewName, overlays: Vec<Overlay>) {
        inbox.change(|inbox| drop(inbox.overlays.insert(view, overlays)));
    }

    pub(super) fn image(inbox: &Watched<Self>, name: ImageName, image: Option<Arc<Bitmap>>) {
        inbox.change(|inbox| drop(inbox.images.insert(name, image)));
    }

    pub(super) fn streams(inbox: &Watched<Self>, streams: StreamSet) {
        inbox.change(|inbox| inbox.streams = Some(streams));
    }

    pub(super) fn keyframe(inbox: &Watched<Self>, serial: u32) {
        Self::note(inbox, |inbox| inbox.keyframes.extend([serial]));
    }

    /// The canvas may differ from now on.
    pub(super) fn damage(inbox: &Watched<Self>) {
        Self::note(inbox, |inbox| inbox.damaged = true);
    }

    /// Changes what the next tick reads: the loop is woken only if it rests.
    fn note(inbox: &Watched<Self>, change: impl FnOnce(&mut Self)) {
        let mut state = inbox.lock();
        change(&mut state);
        let was_resting = std::mem::take(&mut state.resting);
        drop(state);
        if was_resting {
            inbox.wake();
        }
    }

    pub(super) fn close(inbox: &Watched<Self>) {
        inbox.change(|inbox| inbox.closed = true);
    }

    fn has_orders(&self) -> bool {
        let draws = !self.scenes.is_empty() || !self.overlays.is_empty() || !self.images.is_empty();
        draws || self.streams.is_some()
    }

    /// Whether views that rest must run a tick.
    fn ends_rest(&self) -> bool {
        self.damaged || !self.keyframes.is_empty() || self.has_orders()
    }
}

/// Counters of the loop since its start.
#[derive(Debug, Default)]
pub(super) struct VideoCounts {
    pub(super) ticks: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) left_out: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) unchanged: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) encoded: Arc<AtomicU64>,
}

/// The frame slots of all video sources.
pub(super) struct Slots {
    slots: Mutex<Arc<HashMap<SourceId, Arc<FrameSlot>>>>,
    inbox: Arc<Watched<VideoInbox>>,
}

impl Slots {
    /// No slots. The loop with this inbox is notified of every frame.
    pub(super) fn new(inbox: Arc<Watched<VideoInbox>>) -> Self {
        Self { slots: Mutex::default(), inbox }
    }

    /// The slot of a source; creates it for a new source. `lip_sync` is that of its participant.
    pub(super) fn slot(&self, source: SourceId, kind: SourceKind, lip_sync: Option<Arc<LipSync>>) -> Arc<FrameSlot> {
        let mut slots = self.slots.lock();
        let new = || {
            let inbox = self.inbox.clone();
            let slot = FrameSlot::with_notification(kind, move || VideoInbox::damage(&inbox));
            Arc::new(match lip_sync {
                Some(lip_sync) => slot.with_lip_sync(lip_sync),
                None => slot,
            })
        };
        Arc::make_mut(&mut slots).entry(source).or_insert_with(new).clone()
    }

    /// Removes the slot of a source that has ended.
    pub(super) fn remove(&self, source: SourceId) {
        Arc::make_mut(&mut self.slots.lock()).remove(&source);
        VideoInbox::damage(&self.inbox);
    }

    fn all(&self) -> Arc<HashMap<SourceId, Arc<FrameSlot>>> {
        self.slots.lock().clone()
    }
}

/// The ticks of a scene with so many frames a second.
struct FrameGrid(u32);

impl Grid for FrameGrid {
    fn index(&self, since: Duration) -> u64 {
        // One microsecond of tolerance: ticks begin at fractions of a microsecond.
        (since.as_micros() as u64 + 1) * u64::from(self.0) / 1_000_000
    }

    fn start(&self, n: u64) -> Duration {
        tick_time(n, self.0)
    }
}

/// The loop and what it shares with the other threads.
pub(super) struct VideoLoop {
    pub(super) epoch: Timestamp,
    pub(super) options: EncodeOptions,
    /// How long tiles take to new places; zero for no transitions.
    pub(super) transitions: Duration,
    /// Threads that share the drawing of large canvases; None on one core.
    pub(super) threads: Option<Arc<rayon::ThreadPool>>,
    pub(super) slots: Arc<Slots>,
    pub(super) filters: Arc<Filters>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) counts: Arc<VideoCounts>,
    pub(super) busy: Arc<Busy>,
    pub(super) builder: Builder,
}

/// One view: its scene, and its compositor while it has streams.
struct View {
    scene: Scene,
    compositor: Option<Compositor>,
    /// Its last canvas went through filters.
    filtered: bool,
    last: Option<u64>,
    rest: Rest,
    /// The tick after which it began to rest.
    rests_since: Option<u64>,
}

/// Whether a view runs ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It does.
    No,
    /// Not before this one.
    Until(u64),
    /// Not before a change.
    UntilChange,
}

/// State of the running loop.
#[derive(Default)]
struct State {
    views: BTreeMap<ViewName, View>,
    /// The overlays of views that have any.
    overlays: BTreeMap<ViewName, Vec<Overlay>>,
    images: BTreeMap<ImageName, Arc<Bitmap>>,
    streams: BTreeMap<u32, StreamEncoder>,
    /// Canvases scaled down for streams smaller than their view.
    pool: PicturePool,
}

impl VideoLoop {
    /// Runs until the inbox is closed.
    pub(super) fn run(self, inbox: &Watched<VideoInbox>) {
        let mut state = State::default();
        loop {
            let next = state.next_tick(self.epoch, now());
            let rests = state.views.values().any(|view| view.rest != Rest::No);
            self.busy.end();
            let Some(orders) = wait(inbox, next.as_ref().map(|(_, due)| due.at), rests) else { return };
            let now = now();
            self.busy.begin(now);
            if orders.ends_rest() {
                state.views.values_mut().for_each(View::end_rest);
            }
            self.follow(&mut state, orders);
            if let Some((view, due)) = next.filter(|(_, due)| due.at <= now) {
                self.tick(&mut state, &view, due);
            }
        }
    }

    fn follow(&self, state: &mut State, orders: VideoInbox) {
        for (name, scene) in orders.scenes {
            let Some(scene) = scene else {
                state.views.remove(&name);
                continue;
            };
            match state.views.get_mut(&name) {
                Some(view) => {
                    if view.scene.fps != scene.fps {
                        (view.last, view.rests_since) = (None, None);
                    }
                    if let Some(compositor) = &mut view.compositor {
                        compositor.set_scene(&scene);
                    }
                    view.scene = scene;
                }
                None => drop(state.views.insert(
                    name,
                    View { scene, compositor: None, filtered: false, last: None, rest: Rest::No, rests_since: None },
                )),
            }
        }
        for (name, overlays) in orders.overlays {
            if let Some(compositor) = state.views.get_mut(&name).and_then(|view| view.compositor.as_mut()) {
                compositor.set_overlays(&overlays);
            }
            if overlays.is_empty() {
                state.overlays.remove(&name);
            } else {
                state.overlays.insert(name, overlays);
            }
        }
        for (name, image) in orders.images {
            for compositor in state.views.values_mut().filter_map(|view| view.compositor.as_mut()) {
                compositor.set_image(name.clone(), image.clone());
            }
            match image {
                Some(image) => drop(state.images.insert(name, image)),
                None => drop(state.images.remove(&name)),
            }
        }
        if let Some(set) = orders.streams {
            self.follow_streams(state, set);
        }
        for serial in orders.keyframes.into_iter().chain(self.outbox.broken()) {
            if let Some(stream) = state.streams.get_mut(&serial) {
                stream.want_keyframe();
            }
        }
    }

    fn follow_streams(&self, state: &mut State, set: StreamSet) {
        let serials: BTreeSet<u32> = set.streams.iter().map(|spec| spec.serial).collect();
        state.streams.retain(|serial, _| serials.contains(serial));
        self.outbox.keep(&serials);
        for spec in set.streams {
            if !state.streams.get_mut(&spec.serial).is_some_and(|stream| stream.follow(&spec)) {
                let (serial, frames) = (spec.serial, self.counts.encoded.clone());
                state.streams.remove(&serial);
                let best_load = state.streams.values().map(StreamEncoder::best_load).sum();
                let (options, outbox) = (self.options, self.outbox.clone());
                let stream = StreamEncoder::new(spec, options, best_load, outbox, frames, &self.builder);
                state.streams.insert(serial, stream);
            }
        }
        let State { views, streams, .. } = state;
        for (name, view) in views {
            if !streams.values().any(|stream| stream.spec().key.view == *name) {
                view.compositor = None;
                (view.last, view.rest, view.rests_since) = (None, Rest::No, None);
            }
        }
    }

    fn tick(&self, state: &mut State, name: &ViewName, due: Due) {
        let State { views, overlays, images, streams, pool } = state;
        let Some(view) = views.get_mut(name) else { return };
        let fps = view.scene.fps;
        view.last = Some(due.n);
        self.counts.ticks.fetch_add(1, Ordering::Relaxed);
        let begun = now();
        if begun.since(due.at) > tick_time(1, fps) / 2 {
            self.counts.late.fetch_add(1, Ordering::Relaxed);
        }
        self.counts.left_out.fetch_add(due.skipped, Ordering::Relaxed);
        let mut streams: Vec<&mut StreamEncoder> =
            streams.values_mut().filter(|s| s.spec().key.view == *name).collect();
        if let Some(since) = view.rests_since.take() {
            let rested = due.n.saturating_sub(since + 1);
            let frames = streams.iter().map(|stream| rested * u64::from(stream.spec().fps.min(fps)) / u64::from(fps));
            self.counts.unchanged.fetch_add(frames.sum(), Ordering::Relaxed);
        }
        if !streams.iter().any(|stream| stream.takes(due.n, fps)) {
            return;
        }
        let scene = &view.scene;
        if view.compositor.is_none() {
            view.filtered = false;
        }
        let compositor = view.compositor.get_or_insert_with(|| {
            let mut compositor = Compositor::new(self.threads.clone());
            compositor.set_scene(scene);
            for (name, image) in images.iter() {
                compositor.set_image(name.clone(), Some(image.clone()));
            }
            compositor.set_overlays(overlays.get(name).map_or(&[], Vec::as_slice));
            compositor
        });
        let moves = streams.iter().any(|stream| stream.spec().fps >= MOVING_FPS);
        compositor.set_transitions(if moves { self.transitions } else { Duration::ZERO });
        if compositor.has_clock() {
            compositor.set_wall(begun, unix_micros());
        }
        let slots = self.slots.all();
        let composed = compositor.compose(begun, &slots);
        for slot in scene.tiles.iter().filter_map(|tile| slots.get(&tile.source?)) {
            slot.show(due.at);
        }
        let filters = self.filters.view(name);
        let was_filtered = std::mem::replace(&mut view.filtered, filters.is_some());
        let (picture, changed) = match filters {
            None => (composed.picture, composed.changed || was_filtered),
            Some(filters) => {
                if !was_filtered {
                    filters.clear();
                }
                if composed.changed || !was_filtered {
                    filters.put(composed.picture, begun);
                }
                // Nothing is encoded before the first picture has come out.
                let Some(filtered) = filters.take() else { return };
                filtered
            }
        };
        let mut sizes: BTreeMap<Size, Picture> = BTreeMap::new();
        let mut acted = changed || composed.changed;
        for stream in &mut streams {
            if changed {
                stream.changed(due.n, fps);
            }
            if !stream.takes(due.n, fps) {
                continue;
            }
            let keyframe = match stream.turn(due.n, fps) {
                Turn::Unchanged => {
                    self.counts.unchanged.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Turn::Repeat if stream.repeat(due.n, fps) => {
                    self.counts.repeated.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Turn::Repeat => false,
                Turn::Encode { keyframe } => keyframe,
            };
            acted = true;
            let size = stream.spec().size;
            let picture = if size == picture.size() {
                &picture
            } else {
                sizes.entry(size).or_insert_with(|| {
                    let mut scaled = pool.take(size);
                    scale::scale(&picture, &mut scaled);
                    pool.lend(scaled)
                })
            };
            let skipped = stream.skipped();
            stream.encode(picture, due.n, fps, keyframe, &self.builder);
            self.counts.skipped.fetch_add(stream.skipped() - skipped, Ordering::Relaxed);
        }
        if acted {
            // More changes may follow.
            return;
        }
        let wakes = streams.iter().filter_map(|stream| stream.next(due.n, fps));
        let changes = compositor.changes_at(begun, &slots).map(|at| tick_at(at.since(self.epoch), fps));
        view.rest = match wakes.chain(changes).min() {
            Some(next) if next <= due.n + 1 => Rest::No,
            Some(next) => Rest::Until(next),
            None => Rest::UntilChange,
        };
        view.rests_since = (view.rest != Rest::No).then_some(due.n);
        if matches!(view.rest, Rest::Until(next) if next > due.n + u64::from(fps) * RESTED_SECONDS) {
            compositor.rest();
            *pool = PicturePool::default();
        }
    }
}

impl View {
    /// Its next tick; None while it waits for a change. The first one stays due until it is run, since the ticks of
    /// several views are due at the same time and are run one after the other.
    fn next_tick(&mut self, epoch: Timestamp, now: Timestamp) -> Option<Due> {
        let grid = FrameGrid(self.scene.fps.max(1));
        match self.rest {
            Rest::No => {
                let due = due(&grid, epoch, self.last, CATCH_UP, now);
                self.last.get_or_insert_with(|| due.n.saturating_sub(1));
                Some(due)
            }
            Rest::Until(n) => Some(due(&grid, epoch, Some(n - 1), CATCH_UP, now)),
            Rest::UntilChange => None,
        }
    }

    fn end_rest(&mut self) {
        if std::mem::replace(&mut self.rest, Rest::No) != Rest::No {
            // The ticks in between are not missing.
            self.last = None;
        }
    }
}

impl State {
    /// The view whose tick is due first, among the views that have streams.
    fn next_tick(&mut self, epoch: Timestamp, now: Timestamp) -> Option<(ViewName, Due)> {
        let watched: BTreeSet<&ViewName> = self.streams.values().map(|stream| &stream.spec().key.view).collect();
        let views = self.views.iter_mut().filter(|(name, _)| watched.contains(name));
        let ticks = views.filter_map(|(name, view)| Some((name, view.next_tick(epoch, now)?)));
        ticks.min_by_key(|(_, due)| due.at).map(|(name, due)| (name.clone(), due))
    }
}

/// Waits until the time of the tick, or for an order if no tick is due; if a view `rests`, also for a change. None when
/// the inbox was closed.
fn wait(inbox: &Watched<VideoInbox>, until: Option<Timestamp>, rests: bool) -> Option<VideoInbox> {
    let mut state = inbox.lock();
    loop {
        if state.closed {
            return None;
        }
        match until {
            _ if rests && state.ends_rest() => break,
            None if state.has_orders() => break,
            Some(at) if now() >= at => break,
            _ => {
                state.resting = rests;
                inbox.wait(&mut state, until);
            }
        }
    }
    state.resting = false;
    Some(std::mem::take(&mut state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Style;

    #[test]
    fn views_whose_ticks_are_due_at_the_same_time_all_run_them() {
        const FPS: u32 = 30;
        let epoch = Timestamp::from_micros(5_000_000);
        let view = |name: &str| View {
            scene: Scene {
                view: name.parse().expect("a name"),
                canvas: Size::new(64, 36),
                fps: FPS,
                tiles: Vec::new(),
                more: None,
                style: Style::default(),
            },
            compositor: None,
            filtered: false,
            last: None,
            rest: Rest::No,
            rests_since: None,
        };
        // As the loop does: the earliest tick is run, and takes some milliseconds.
        let mut views = ["a", "b", "c"].map(view);
        let (mut now, mut ran) = (epoch, [0; 3]);
        for _ in 0..90 {
            let dues = views.each_mut().map(|view| view.next_tick(epoch, now).expect("it does not rest"));
            let next = (0..3).min_by_key(|i| dues[*i].at).expect("three views");
            now = now.max(dues[next].at) + Duration::from_millis(3);
            views[next].last = Some(dues[next].n);
            ran[next] += 1;
            if ran == [10, 10, 10] {
                // A rest that has ended is a new beginning.
                views[2].rest = Rest::UntilChange;
                assert!(views[2].next_tick(epoch, now).is_none());
                views[2].end_rest();
            }
        }
        assert_eq!(ran, [30, 30, 30]);
    }
}
