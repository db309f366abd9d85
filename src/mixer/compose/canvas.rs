//! The compositor of one view: redraws the tiles and overlays that have changed.
//!
//! Owns: canvases, each with a record of what was drawn on it. Does not know: decoders, encoders. In: the scene, the
//! overlays, the frame slots and the time of a tick. Out: [`Composed`]. A canvas is reused only when it is not shared
//! any more, so there are several; a tile is redrawn if the record of its canvas differs from the scene.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use super::bitmap::Bitmap;
use super::corners::Corners;
use super::lettering::Lettering;
use super::liveness::{Liveness, liveness, next_change};
use super::look;
use super::overlay::Overlays;
use super::redraw::{Contents, Drawn, Ground, Record};
use super::region::overlap;
use super::signs;
use super::slot::FrameSlot;
use super::sprite::{Band, Op, Sprite, yuv};
use super::tile::{Appearance, Moving, Placed, SMALLEST, Shown};
use super::transition::{Place, Transition};
use crate::codec::{Picture, PictureMut};
use crate::id::SourceId;
use crate::layout::{More, Scene, Style, Tile};
use crate::media::Size;
use crate::overlay::{ImageName, Overlay};
use crate::time::Timestamp;

/// Most canvases in the pool.
const CANVASES: usize = 6;
/// Fewest pixels that are drawn by several threads: waking them takes time.
const PARALLEL_PIXELS: u64 = 1_500_000;

/// One composed canvas.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The canvas.
    pub picture: Picture,
    /// False if it is identical to the last canvas: it need not be encoded.
    pub changed: bool,
}

/// Draws one view.
pub struct Compositor {
    /// Threads that share the drawing; None draws on the calling thread.
    threads: Option<Arc<rayon::ThreadPool>>,
    lettering: Lettering,
    canvas: Size,
    style: Style,
    ground: Ground,
    /// Number of scenes with other rectangles than the one before: each redraws everything.
    arrangement: u64,
    looks: u64,
    tiles: Vec<Placed>,
    more: Option<(More, Option<Sprite>)>,
    corners: Corners,
    overlays: Overlays,
    canvases: Vec<Canvas>,
    last: Option<Record>,
    /// How long tiles take to their new places; zero for not at all.
    moving_takes: Duration,
    transition: Option<Transition>,
    /// Tiles of the scene before that are fading out.
    leaving: Vec<Placed>,
}

struct Canvas {
    picture: Picture,
    record: Record,
}

impl Compositor {
    /// A compositor of an empty view. `threads` share large canvases and the scaling after a change of the scene.
    pub fn new(threads: Option<Arc<rayon::ThreadPool>>) -> Self {
        Self {
            threads,
            lettering: Lettering::new(),
            canvas: Size::new(0, 0),
            style: Style::default(),
            ground: Ground::default(),
            arrangement: 0,
            looks: 0,
            tiles: Vec::new(),
            more: None,
            corners: Corners::default(),
            overlays: Overlays::new(),
            canvases: Vec::new(),
            last: None,
            moving_takes: Duration::ZERO,
            transition: None,
            leaving: Vec::new(),
        }
    }

    /// How long tiles take to their new places after a change of the scene; zero, the default, for not at all.
    pub fn set_transitions(&mut self, takes: Duration) {
        self.moving_takes = takes;
    }

    /// Sets the scene; keeps the sprites that are unchanged.
    pub fn set_scene(&mut self, scene: &Scene) {
        let places = |tiles: &mut dyn Iterator<Item = &Tile>| tiles.map(Place::of).collect::<Vec<_>>();
        let before = places(&mut self.tiles.iter().map(|placed| &placed.tile));
        let after = places(&mut scene.tiles.iter());
        let rects = |places: &[Place]| places.iter().map(|place| place.rect).collect::<Vec<_>>();
        let same_canvas = self.canvas == scene.canvas;
        let same_style = self.style == scene.style;
        let same_more = self.more.as_ref().map(|(more, _)| *more) == scene.more;
        if !same_canvas || !same_style || !same_more || rects(&before) != rects(&after) {
            self.arrangement += 1;
        }
        self.canvas = scene.canvas;
        if !same_style {
            self.style = scene.style.clone();
            self.corners.set_style(self.style.clone());
        }
        if !same_style || !same_canvas {
            self.set_ground();
        }
        if !same_more {
            self.more = scene.more.map(|more| (more, look::more(&mut self.lettering, more.count, more.rect.size())));
        }
        let mut old = std::mem::take(&mut self.tiles);
        if !same_style {
            old.clear();
        }
        for (at, tile) in scene.tiles.iter().enumerate() {
            let same = |placed: &Placed| Place::of(&placed.tile).key == Place::of(tile).key;
            let old = old.iter().position(same).map(|at| old.swap_remove(at));
            let overlaps = scene.tiles[..at].iter().any(|below| overlap(below.rect, tile.rect));
            let over = overlaps || self.style.background.image().is_some();
            let placed = self.place(tile, over, old);
            self.tiles.push(placed);
        }
        if !same_canvas || self.moving_takes.is_zero() || before.is_empty() {
            (self.transition, self.leaving) = (None, Vec::new());
        } else if before != after {
            let begun = self.transition.take();
            self.leaving.retain(|placed| !after.iter().any(|place| place.key == Place::of(&placed.tile).key));
            self.leaving.extend(old);
            self.transition = Transition::between(begun, &before, &after, self.moving_takes);
        }
        self.corners.prune();
        self.overlays.set_canvas(&mut self.lettering, scene.canvas, scene.fps);
    }

    /// Sets the overlays; keeps those that are unchanged.
    pub fn set_overlays(&mut self, overlays: &[Overlay]) {
        self.overlays.set(&mut self.lettering, overlays);
    }

    /// Sets or removes an image of overlays, avatars or the background.
    pub fn set_image(&mut self, name: ImageName, image: Option<Arc<Bitmap>>) {
        self.overlays.set_image(&mut self.lettering, name.clone(), image);
        for placed in self.tiles.iter_mut().filter(|placed| placed.tile.avatar.as_ref() == Some(&name)) {
            placed.avatar = None;
            self.looks += 1;
            placed.look = self.looks;
        }
        if self.style.background.image() == Some(&name) {
            self.set_ground();
            self.arrangement += 1;
        }
    }

    /// Draws the background.
    fn set_ground(&mut self) {
        let color = look::ground(&self.style.background);
        let image = self.style.background.image().and_then(|name| self.overlays.images().get(name));
        let picture = image.map(|image| image.cover(self.canvas, color));
        self.ground = Ground { color: yuv(color), picture };
    }

    /// Whether the time of day is drawn: [`set_wall`](Self::set_wall) is called before each
    /// [`compose`](Self::compose).
    pub fn has_clock(&self) -> bool {
        self.overlays.has_clock()
    }

    /// The time of day: Unix time in microseconds at `now`.
    pub fn set_wall(&mut self, now: Timestamp, unix_micros: u64) {
        self.overlays.set_wall(now, unix_micros);
    }

    fn place(&mut self, tile: &Tile, over: bool, old: Option<Placed>) -> Placed {
        let size = tile.rect.size();
        let alike = old.as_ref().filter(|old| old.tile.rect.size() == size && old.tile.label == tile.label);
        let signs = |tile: &Tile| (tile.muted, tile.poor_connection);
        let label = match alike.filter(|old| signs(&old.tile) == signs(tile)) {
            Some(old) => old.label.clone(),
            None => look::label(&mut self.lettering, &self.style, tile).map(Arc::new),
        };
        let sized = old.as_ref().filter(|old| old.tile.rect.size() == size);
        let hand = match sized.filter(|old| old.tile.hand_raised == tile.hand_raised) {
            Some(old) => old.hand.clone(),
            None => signs::hand(&mut self.lettering, &self.style, tile).map(Arc::new),
        };
        let reaction = match sized.filter(|old| old.tile.reaction == tile.reaction) {
            Some(old) => old.reaction.clone(),
            None => signs::reaction(&mut self.lettering, &self.style, tile).map(Arc::new),
        };
        let disc = |tile: &Tile| (tile.initials.clone(), tile.avatar.clone());
        let avatar = alike.filter(|old| disc(&old.tile) == disc(tile)).and_then(|old| old.avatar.clone());
        let reconnecting = alike.and_then(|old| old.reconnecting.clone());
        // A tile that fills the canvas, and a tiny one, have no round corners.
        let is_round = size.width.min(size.height) >= SMALLEST && (tile.speaking || size != self.canvas);
        let corners = is_round.then(|| self.corners.rounding(size, tile.speaking, over));
        let look = match &old {
            // Rectangle and source are compared elsewhere.
            Some(old) if Tile { source: tile.source, ..old.tile.clone() } == *tile => old.look,
            _ => {
                self.looks += 1;
                self.looks
            }
        };
        let shown = old.and_then(|old| old.shown);
        let (margin, ground) = (look::label_margin(&self.style, size), self.ground.color);
        let tile = tile.clone();
        Placed { tile, look, label, hand, reaction, avatar, reconnecting, corners, over, margin, ground, shown }
    }

    /// Redraws all names and reactions: letters were missing.
    fn letter(&mut self) {
        for placed in &mut self.tiles {
            placed.label = look::label(&mut self.lettering, &self.style, &placed.tile).map(Arc::new);
            placed.reaction = signs::reaction(&mut self.lettering, &self.style, &placed.tile).map(Arc::new);
            placed.avatar = None;
            self.looks += 1;
            placed.look = self.looks;
        }
        self.overlays.redraw(&mut self.lettering);
    }

    /// Composes the scene at `now`. `slots` contains the sources of the scene.
    ///
    /// # Panics
    /// If no scene was set, or a tile is outside the canvas or has odd coordinates.
    pub fn compose(&mut self, now: Timestamp, slots: &HashMap<SourceId, Arc<FrameSlot>>) -> Composed {
        assert!(self.canvas.width > 0 && self.canvas.height > 0, "a scene is set before it is composed");
        if self.lettering.learned() {
            self.letter();
        }
        let frames = self.frames(now, slots);
        let appearance = Appearance { style: &self.style, images: self.overlays.images() };
        for (placed, frame) in self.tiles.iter_mut().zip(&frames) {
            placed.prepare(frame.as_ref(), &mut self.lettering, &appearance);
            if !self.moving_takes.is_zero() {
                placed.shown.clone_from(frame);
            }
        }
        let tiles: Vec<Drawn> = self
            .tiles
            .iter()
            .zip(&frames)
            .map(|(placed, frame)| {
                let lost = frame.as_ref().is_some_and(|shown| shown.lost);
                let frame = frame.as_ref().zip(placed.tile.source).map(|(shown, source)| (source, shown.fitted.number));
                Drawn { look: placed.look, frame, lost }
            })
            .collect();
        let overlays = self.overlays.advance(&mut self.lettering, now);
        let moving = self.advance(now, slots, &frames);
        let wanted = Record { arrangement: self.arrangement, tiles, overlays };
        if self.last.as_ref() == Some(&wanted)
            && let Some(canvas) = self.canvases.last()
        {
            return Composed { picture: canvas.picture.clone(), changed: false };
        }
        let (mut canvas, drawn) = self.take_canvas();
        let contents = Contents {
            canvas: self.canvas,
            ground: &self.ground,
            more: self.more.as_ref(),
            leaving: &self.leaving,
            tiles: &self.tiles,
            frames: &frames,
            moving: &moving,
            overlays: &self.overlays,
        };
        draw(&mut canvas, &contents.ops(&wanted, drawn.as_ref()), self.threads.as_deref());
        let picture = canvas.freeze();
        self.last = Some(wanted.clone());
        if self.canvases.len() == CANVASES {
            self.canvases.remove(0);
        }
        // The last entry is the shown one.
        self.canvases.push(Canvas { picture: picture.clone(), record: wanted });
        Composed { picture, changed: true }
    }

    /// Moves the tiles on, and draws those that are not in their places: first those that leave, then the others.
    fn advance(
        &mut self,
        now: Timestamp,
        slots: &HashMap<SourceId, Arc<FrameSlot>>,
        frames: &[Option<Shown>],
    ) -> Vec<Moving> {
        let Some(transition) = &mut self.transition else { return Vec::new() };
        // All of the canvas is drawn anew, also when the last tile has arrived.
        self.arrangement += 1;
        let Some(moved) = transition.at(now) else {
            (self.transition, self.leaving) = (None, Vec::new());
            return Vec::new();
        };
        let mut moving = Vec::new();
        for moved in moved {
            let is = |placed: &&Placed| Place::of(&placed.tile).key == moved.key;
            let (placed, frame) = match self.tiles.iter().zip(frames).find(|(placed, _)| is(placed)) {
                Some((placed, frame)) => (placed, frame.as_ref()),
                None => {
                    let Some(placed) = self.leaving.iter().find(is) else { continue };
                    // A camera that was hidden is not seen any more; one that has ended fades out with its last frame.
                    let hidden = placed.tile.source.and_then(|source| slots.get(&source)).is_some_and(|s| s.is_empty());
                    (placed, placed.shown.as_ref().filter(|_| !hidden))
                }
            };
            let size = moved.rect.size();
            let is_round = size.width.min(size.height) >= SMALLEST;
            let shown = match (frame, placed.tile.source.and_then(|source| slots.get(&source))) {
                (Some(shown), _) if size == placed.tile.rect.size() => Some(shown.clone()),
                (Some(Shown { lost, .. }), Some(slot)) => {
                    slot.get_once(size, placed.tile.fit).map(|fitted| Shown { fitted, lost: *lost })
                }
                // It has ended on its way.
                (Some(_), None) => continue,
                (None, _) => None,
            };
            moving.push(Moving {
                moved,
                shown,
                rounding: is_round.then(|| self.corners.rounding(size, placed.tile.speaking, true)),
            });
        }
        moving
    }

    /// When the canvas changes although no frame comes and the scene stays: a source is lost or stopped, or letters are
    /// being loaded. None if it does not.
    pub fn changes_at(&self, now: Timestamp, slots: &HashMap<SourceId, Arc<FrameSlot>>) -> Option<Timestamp> {
        if self.lettering.is_waiting() || self.transition.is_some() {
            return Some(now);
        }
        let change = |placed: &Placed| {
            let slot = slots.get(&placed.tile.source?)?;
            next_change(placed.tile.kind, now, slot.arrival()?, slot.heard())
        };
        self.tiles.iter().filter_map(change).chain(self.overlays.changes_at(now)).min()
    }

    /// The canvas will not change for some time: frees all canvases but the last.
    pub fn rest(&mut self) {
        let last = self.canvases.len().saturating_sub(1);
        self.canvases.drain(..last);
        self.canvases.shrink_to_fit();
    }

    /// The frame of each tile; None for an avatar.
    fn frames(&self, now: Timestamp, slots: &HashMap<SourceId, Arc<FrameSlot>>) -> Vec<Option<Shown>> {
        let seen = |tile: &Tile| {
            let slot = slots.get(&tile.source?)?;
            let liveness = liveness(tile.kind, now, slot.arrival()?, slot.heard());
            (liveness != Liveness::Stopped).then_some((slot, liveness == Liveness::Lost))
        };
        let frame = |placed: &Placed| {
            let (slot, lost) = seen(&placed.tile)?;
            let fitted = slot.get(placed.tile.rect.size(), placed.tile.fit)?;
            Some(Shown { fitted, lost })
        };
        if let Some(threads) = &self.threads {
            let unfit = |placed: &&Placed| {
                let Tile { rect, fit, .. } = placed.tile;
                seen(&placed.tile).is_some_and(|(slot, _)| slot.needs_fitting(rect.size(), fit))
            };
            if self.tiles.iter().filter(unfit).count() > 1 {
                return threads.install(|| self.tiles.par_iter().map(frame).collect());
            }
        }
        self.tiles.iter().map(frame).collect()
    }

    /// The most recent canvas that is not shared, with its record: it differs least.
    fn take_canvas(&mut self) -> (PictureMut, Option<Record>) {
        self.canvases.retain(|canvas| canvas.picture.size() == self.canvas);
        for at in (0..self.canvases.len()).rev() {
            let Canvas { picture, record } = self.canvases.remove(at);
            match PictureMut::reclaim(picture) {
                Ok(free) => return (free, Some(record)),
                Err(picture) => self.canvases.insert(at, Canvas { picture, record }),
            }
        }
        (PictureMut::new(self.canvas), None)
    }
}

/// Draws on the canvas; in bands of rows on several threads if there is much to draw.
fn draw(canvas: &mut PictureMut, ops: &[Op<'_>], threads: Option<&rayon::ThreadPool>) {
    let pixels: u64 = ops.iter().map(Op::pixels).sum();
    let height = canvas.size().height as usize;
    let bands = threads.filter(|_| pixels >= PARALLEL_PIXELS).map_or(1, rayon::ThreadPool::current_num_threads);
    let each = height.div_ceil(bands).next_multiple_of(2);
    let ([y, u, v], strides) = canvas.planes();
    let chroma = each / 2;
    let mut bands: Vec<Band<'_>> = y
        .chunks_mut(each * strides[0])
        .zip(u.chunks_mut(chroma * strides[1]))
        .zip(v.chunks_mut(chroma * strides[2]))
        .enumerate()
        .map(|(i, ((y, u), v))| Band {
            rows: y.len() / strides[0],
            planes: [y, u, v],
            strides,
            top: i * each,
            kept: Default::default(),
        })
        .collect();
    match (threads, bands.as_mut_slice()) {
        (_, [band]) => band.draw(ops),
        (Some(threads), bands) => threads.install(|| bands.par_iter_mut().for_each(|band| band.draw(ops))),
        (None, bands) => bands.iter_mut().for_each(|band| band.draw(ops)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ParticipantId, ViewName};
    use crate::layout::{Background, ObjectFit};
    use crate::media::{Look, Rect, SourceKind};
    use crate::mixer::compose::sprite::yuv;

    const CANVAS: Size = Size::new(64, 36);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(60_000_000 + ms * 1_000)
    }

    fn tile(id: u32, rect: Rect, speaking: bool) -> Tile {
        Tile {
            participant: ParticipantId(id),
            kind: SourceKind::Camera,
            source: Some(SourceId(id)),
            rect,
            fit: ObjectFit::Cover,
            label: String::new(),
            initials: String::new(),
            avatar: None,
            speaking,
            muted: false,
            poor_connection: false,
            hand_raised: false,
            reaction: None,
        }
    }

    fn scene(tiles: Vec<Tile>) -> Scene {
        let (canvas, style) = (Size::new(640, 360), Style::default());
        Scene { view: ViewName::program(), canvas, fps: 30, tiles, more: None, style }
    }

    fn put(slots: &HashMap<SourceId, Arc<FrameSlot>>, id: u32, luma: u8, ms: u64) {
        let picture = Picture::filled(Size::new(320, 180), luma, 128, 128);
        slots[&SourceId(id)].writer().put(picture, Look::default(), at(ms));
    }

    fn luma(picture: &Picture, x: usize, y: usize) -> u8 {
        let (plane, stride) = picture.plane(0);
        plane[y * stride + x]
    }

    #[test]
    fn outside_the_round_corners_of_a_tile_over_others_these_are_seen() {
        let rect = |x, y, width, height| Rect { x, y, width, height };
        let below = tile(1, rect(0, 0, 440, 360), false);
        for (over, corners) in [
            (rect(60, 60, 320, 180), [(60, 60, 200), (379, 60, 200), (60, 239, 200), (379, 239, 200)]),
            // Half of it over the background, and over two tiles.
            (rect(300, 60, 320, 180), [(300, 60, 200), (619, 60, 60), (300, 239, 200), (619, 239, 20)]),
        ] {
            for speaking in [false, true] {
                let beside = tile(3, rect(500, 0, 140, 200), false);
                let tiles = vec![below.clone(), beside, tile(2, over, speaking)];
                let slots: HashMap<_, _> =
                    (1..=3).map(|id| (SourceId(id), Arc::new(FrameSlot::new(SourceKind::Camera)))).collect();
                [(1, 200), (2, 120), (3, 60)].into_iter().for_each(|(id, luma)| put(&slots, id, luma, 0));
                let mut compositor = Compositor::new(None);
                compositor.set_scene(&scene(tiles.clone()));
                compositor.compose(at(0), &slots);
                for round in 1..8 {
                    // Only the upper one has new frames.
                    put(&slots, 2, 120 + round as u8 * 10, round * 33);
                    let picture = compositor.compose(at(round * 33), &slots).picture;
                    let mut fresh = Compositor::new(None);
                    fresh.set_scene(&scene(tiles.clone()));
                    let expected = fresh.compose(at(round * 33), &slots).picture;
                    for (x, y, wanted) in corners {
                        let wanted = if wanted == 20 { yuv(look::ground(&Background::USUAL))[0] } else { wanted };
                        assert_eq!(luma(&picture, x, y), wanted, "{over:?} {speaking} at {x}, {y}");
                    }
                    for i in 0..3 {
                        assert!(picture.plane(i) == expected.plane(i), "as drawn from nothing: {over:?} {speaking}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_camera_that_is_hidden_while_its_tile_leaves_is_not_seen() {
        let whole = Rect { x: 0, y: 0, width: 640, height: 360 };
        let slots = HashMap::from([1, 2].map(|id| (SourceId(id), Arc::new(FrameSlot::new(SourceKind::Camera)))));
        put(&slots, 1, 235, 0);
        put(&slots, 2, 20, 0);
        for is_hidden in [false, true] {
            let mut compositor = Compositor::new(None);
            compositor.set_transitions(Duration::from_millis(250));
            compositor.set_scene(&scene(vec![tile(1, whole, false)]));
            compositor.compose(at(1), &slots);
            compositor.set_scene(&scene(vec![tile(2, whole, false)]));
            if is_hidden {
                slots[&SourceId(1)].clear();
            }
            let first = compositor.compose(at(34), &slots).picture;
            assert_eq!(luma(&first, 80, 180) > 200, !is_hidden);
            let last = compositor.compose(at(300), &slots).picture;
            assert_eq!(luma(&last, 80, 180), 20);
        }
    }

    /// The times at which the canvas of a camera with one frame changes, in milliseconds, until it says that it will
    /// not any more. `hears`: the microphone sends until then.
    fn changes(hears: u64) -> Vec<u64> {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        slot.writer().put(Picture::filled(CANVAS, 90, 128, 128), Look::default(), at(0));
        let slots = HashMap::from([(SourceId(1), slot.clone())]);
        let tile = tile(1, Rect { x: 0, y: 0, width: CANVAS.width, height: CANVAS.height }, false);
        let mut compositor = Compositor::new(None);
        compositor.set_scene(&Scene {
            view: ViewName::program(),
            canvas: CANVAS,
            fps: 30,
            tiles: vec![tile],
            more: None,
            style: Style::default(),
        });
        let (mut now, mut changes) = (at(0), Vec::new());
        loop {
            slot.hear(now.min(at(hears)));
            if compositor.compose(now, &slots).changed {
                changes.push(now.since(at(0)).as_millis() as u64);
            }
            match compositor.changes_at(now, &slots) {
                Some(next) if next > now => now = next,
                Some(_) => panic!("letters are loaded only for names"),
                None => return changes,
            }
        }
    }

    #[test]
    fn a_canvas_without_frames_says_when_it_changes() {
        assert_eq!(changes(0), [0, 2_000, 30_000], "lost, and then stopped");
        assert_eq!(changes(60_000), [0, 2_000], "stopped");
        assert_eq!(changes(5_000), [0, 2_000, 7_000, 30_000], "stopped, lost with the sound, stopped");
    }
}
