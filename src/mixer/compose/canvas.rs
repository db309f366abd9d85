//! The compositor of one view: redraws the tiles and overlays that have changed.
//!
//! Owns: canvases, each with a record of what was drawn on it. Does not know: decoders, encoders. In: the scene, the
//! overlays, the frame slots and the time of a tick. Out: [`Composed`]. A canvas is reused only when it is not shared
//! any more, so there are several; a tile is redrawn if the record of its canvas differs from the scene.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::bitmap::Bitmap;
use super::lettering::Lettering;
use super::liveness::{Liveness, liveness, next_change};
use super::look;
use super::overlay::{Laid, Overlays};
use super::region::Region;
use super::slot::{Fitted, FrameSlot};
use super::sprite::{Band, Op, Sprite, yuv};
use crate::codec::{Picture, PictureMut};
use crate::id::SourceId;
use crate::layout::{Scene, Tile};
use crate::media::{Rect, Size};
use crate::overlay::{ImageName, Overlay};
use crate::time::Timestamp;

/// Shortest side in pixels of a tile with an avatar and round corners.
const SMALLEST: u32 = 32;
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
    /// Number of scenes with other rectangles than the one before: each redraws everything.
    arrangement: u64,
    looks: u64,
    tiles: Vec<Placed>,
    corners: HashMap<(u32, u32, bool), Arc<[Sprite; 4]>>,
    overlays: Overlays,
    canvases: Vec<Canvas>,
    last: Option<Record>,
}

/// A tile with its sprites.
struct Placed {
    tile: Tile,
    /// Changes with every property of the tile except its picture.
    look: u64,
    label: Option<Arc<Sprite>>,
    /// Drawn at the first use.
    avatar: Option<Arc<Sprite>>,
    /// The plate over the last frame of a lost sender. Drawn at the first use.
    reconnecting: Option<Arc<Sprite>>,
    corners: Option<Arc<[Sprite; 4]>>,
}

/// The contents of a tile: drawn, or to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drawn {
    look: u64,
    frame: Option<(SourceId, u64)>,
    lost: bool,
}

/// A frame to draw, and whether its sender is lost.
struct Shown {
    fitted: Fitted,
    lost: bool,
}

/// The contents of a canvas: drawn, or to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    arrangement: u64,
    tiles: Vec<Drawn>,
    overlays: Vec<Laid>,
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
            arrangement: 0,
            looks: 0,
            tiles: Vec::new(),
            corners: HashMap::new(),
            overlays: Overlays::new(),
            canvases: Vec::new(),
            last: None,
        }
    }

    /// Sets the scene; keeps the sprites that are unchanged.
    pub fn set_scene(&mut self, scene: &Scene) {
        let places = |tiles: &mut dyn Iterator<Item = &Tile>| tiles.map(|tile| tile.rect).collect::<Vec<_>>();
        let before = places(&mut self.tiles.iter().map(|placed| &placed.tile));
        let same_places = self.canvas == scene.canvas && before == places(&mut scene.tiles.iter());
        if !same_places {
            self.arrangement += 1;
            self.canvas = scene.canvas;
        }
        let mut old = std::mem::take(&mut self.tiles);
        self.tiles = scene
            .tiles
            .iter()
            .map(|tile| {
                let same =
                    |placed: &Placed| placed.tile.participant == tile.participant && placed.tile.kind == tile.kind;
                let old = old.iter().position(same).map(|at| old.swap_remove(at));
                self.place(tile, old)
            })
            .collect();
        let used: Vec<_> = self.tiles.iter().filter_map(|placed| placed.corners.clone()).collect();
        self.corners.retain(|_, corners| used.iter().any(|used| Arc::ptr_eq(used, corners)));
        self.overlays.set_canvas(&mut self.lettering, scene.canvas, scene.fps);
    }

    /// Sets the overlays; keeps those that are unchanged.
    pub fn set_overlays(&mut self, overlays: &[Overlay]) {
        self.overlays.set(&mut self.lettering, overlays);
    }

    /// Sets or removes an image of overlays.
    pub fn set_image(&mut self, name: ImageName, image: Option<Arc<Bitmap>>) {
        self.overlays.set_image(&mut self.lettering, name, image);
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

    fn place(&mut self, tile: &Tile, old: Option<Placed>) -> Placed {
        let size = tile.rect.size();
        let alike = old.as_ref().filter(|old| old.tile.rect.size() == size && old.tile.label == tile.label);
        let label = match alike.filter(|old| old.tile.muted == tile.muted) {
            Some(old) => old.label.clone(),
            None => look::label(&mut self.lettering, &tile.label, tile.muted, size).map(Arc::new),
        };
        let avatar = alike.filter(|old| old.tile.initials == tile.initials).and_then(|old| old.avatar.clone());
        let reconnecting = alike.and_then(|old| old.reconnecting.clone());
        // A tile that fills the canvas, and a tiny one, have no round corners.
        let corners = (size.width.min(size.height) >= SMALLEST && (tile.speaking || size != self.canvas)).then(|| {
            let key = (look::radius(size), look::frame_width(size), tile.speaking);
            self.corners.entry(key).or_insert_with(|| Arc::new(look::corners(size, tile.speaking))).clone()
        });
        let look = match &old {
            // Rectangle and source are compared elsewhere.
            Some(old) if Tile { source: tile.source, ..old.tile.clone() } == *tile => old.look,
            _ => {
                self.looks += 1;
                self.looks
            }
        };
        Placed { tile: tile.clone(), look, label, avatar, reconnecting, corners }
    }

    /// Redraws all names: letters were missing.
    fn letter(&mut self) {
        for placed in &mut self.tiles {
            let tile = &placed.tile;
            placed.label = look::label(&mut self.lettering, &tile.label, tile.muted, tile.rect.size()).map(Arc::new);
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
        for (placed, frame) in self.tiles.iter_mut().zip(&frames) {
            if frame.as_ref().is_some_and(|shown| shown.lost) && placed.reconnecting.is_none() {
                let plate = look::reconnecting(&mut self.lettering, placed.tile.rect.size());
                placed.reconnecting = plate.map(Arc::new);
            }
            if frame.is_none() && placed.avatar.is_none() {
                placed.avatar = Some(Arc::new(look::avatar(&mut self.lettering, &placed.tile)));
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
        let wanted = Record { arrangement: self.arrangement, tiles, overlays };
        if self.last.as_ref() == Some(&wanted)
            && let Some(canvas) = self.canvases.last()
        {
            return Composed { picture: canvas.picture.clone(), changed: false };
        }
        let (mut canvas, noted) = self.take_canvas();
        let ops = self.ops(&frames, &wanted, noted.as_ref());
        draw(&mut canvas, &ops, self.threads.as_deref());
        let picture = canvas.freeze();
        self.last = Some(wanted.clone());
        if self.canvases.len() == CANVASES {
            self.canvases.remove(0);
        }
        // The last entry is the shown one.
        self.canvases.push(Canvas { picture: picture.clone(), record: wanted });
        Composed { picture, changed: true }
    }

    /// When the canvas changes although no frame comes and the scene stays: a source is lost or stopped, or letters are
    /// being loaded. None if it does not.
    pub fn changes_at(&self, now: Timestamp, slots: &HashMap<SourceId, Arc<FrameSlot>>) -> Option<Timestamp> {
        if self.lettering.is_waiting() {
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

    /// The drawing operations for a canvas with this record.
    fn ops<'a>(&'a self, frames: &'a [Option<Shown>], wanted: &Record, noted: Option<&Record>) -> Vec<Op<'a>> {
        let mut ops = Vec::new();
        let noted = noted.filter(|noted| noted.arrangement == wanted.arrangement);
        let Size { width, height } = self.canvas;
        let whole = Rect { x: 0, y: 0, width, height };
        if noted.is_none() {
            ops.push(Op::Fill(whole, yuv(look::BACKGROUND)));
        }
        let mut redrawn: Vec<Rect> = Vec::new();
        for (i, (placed, frame)) in self.tiles.iter().zip(frames).enumerate() {
            let rect = placed.tile.rect;
            let fresh = noted.is_some_and(|noted| noted.tiles[i] == wanted.tiles[i]);
            if !fresh || redrawn.iter().any(|other| overlap(*other, rect)) {
                placed.ops(frame.as_ref(), &mut ops);
                redrawn.push(rect);
            }
        }
        let drawn_before = noted.map_or(&[][..], |noted| &noted.overlays);
        if !self.overlays.is_empty() || !drawn_before.is_empty() {
            let mut region = Region::default();
            match noted {
                Some(_) => redrawn.iter().for_each(|rect| drop(region.add(*rect))),
                None => drop(region.add(whole)),
            }
            self.overlay_ops(frames, &wanted.overlays, drawn_before, region, &mut ops);
        }
        ops
    }

    /// The operations that replace the overlays `before` by those `wanted`. The tiles in `region` were drawn without
    /// overlays already.
    fn overlay_ops<'a>(
        &'a self,
        frames: &'a [Option<Shown>],
        wanted: &[Laid],
        before: &[Laid],
        mut region: Region,
        ops: &mut Vec<Op<'a>>,
    ) {
        let visible = |laid: &&Laid| laid.rect.width > 0;
        let gone = before.iter().filter(|laid| !wanted.contains(laid));
        let new = wanted.iter().filter(|laid| !before.contains(laid));
        for laid in gone.chain(new).filter(visible) {
            for part in region.add(laid.rect) {
                self.redraw_part(frames, part, ops);
            }
        }
        for (at, laid) in wanted.iter().enumerate() {
            for part in region.parts().filter_map(|part| intersection(*part, laid.rect)) {
                for (sprite, x, y, window) in self.overlays.sprites(at, laid) {
                    ops.extend(intersection(part, window).map(|part| Op::BlendPart(sprite, x, y, part)));
                }
            }
        }
    }

    /// Draws the tiles in a part of the canvas again.
    fn redraw_part<'a>(&'a self, frames: &'a [Option<Shown>], part: Rect, ops: &mut Vec<Op<'a>>) {
        let covered = self.tiles.iter().any(|placed| intersection(placed.tile.rect, part) == Some(part));
        if !covered {
            ops.push(Op::Fill(part, yuv(look::BACKGROUND)));
        }
        let mut below = Vec::new();
        for (placed, frame) in self.tiles.iter().zip(frames).filter(|(placed, _)| overlap(placed.tile.rect, part)) {
            placed.ops(frame.as_ref(), &mut below);
        }
        ops.extend(below.into_iter().map(|op| Op::Within(part, Box::new(op))));
    }
}

/// The pixels that both have.
fn intersection(a: Rect, b: Rect) -> Option<Rect> {
    if !overlap(a, b) {
        return None;
    }
    let (x, y) = (a.x.max(b.x), a.y.max(b.y));
    let (right, bottom) = ((a.x + a.width).min(b.x + b.width), (a.y + a.height).min(b.y + b.height));
    Some(Rect { x, y, width: right - x, height: bottom - y })
}

const fn overlap(a: Rect, b: Rect) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

impl Placed {
    fn ops<'a>(&'a self, frame: Option<&'a Shown>, ops: &mut Vec<Op<'a>>) {
        let rect @ Rect { x, y, width, height } = self.tile.rect;
        let size = rect.size();
        let middle = |outer: u32, inner: u32| (outer.saturating_sub(inner) / 2) & !1;
        match frame {
            Some(Shown { fitted: Fitted { picture, dest, beside, .. }, lost }) => {
                if dest.size() != size && beside.is_empty() {
                    ops.push(Op::Fill(rect, yuv(look::BACKGROUND)));
                }
                let parts = beside.iter().map(|(picture, place)| (picture, place));
                for (picture, place) in parts.chain(std::iter::once((picture, dest))) {
                    let draw = if *lost { Op::Grey } else { Op::Copy };
                    ops.push(draw(picture, x + place.x, y + place.y));
                }
                if let Some(plate) = self.reconnecting.as_ref().filter(|plate| *lost && plate.height() <= height) {
                    ops.push(Op::Blend(plate, x + middle(width, plate.width()), y + middle(height, plate.height())));
                }
            }
            None => {
                ops.push(Op::Fill(rect, yuv(look::TILE)));
                if let Some(avatar) = self.avatar.as_ref().filter(|_| width.min(height) >= SMALLEST) {
                    ops.push(Op::Blend(avatar, x + middle(width, avatar.width()), y + middle(height, avatar.height())));
                }
            }
        }
        if let Some(corners) = &self.corners {
            let radius = corners[0].width();
            if self.tile.speaking {
                let (frame, color) = (look::frame_width(size), yuv(look::SPEAKING));
                let (inner_width, inner_height) = (width - 2 * radius, height - 2 * radius);
                for y in [y, y + height - frame] {
                    ops.push(Op::Fill(Rect { x: x + radius, y, width: inner_width, height: frame }, color));
                }
                for x in [x, x + width - frame] {
                    ops.push(Op::Fill(Rect { x, y: y + radius, width: frame, height: inner_height }, color));
                }
            }
            let places =
                [(x, y), (x + width - radius, y), (x, y + height - radius), (x + width - radius, y + height - radius)];
            for (corner, (x, y)) in corners.iter().zip(places) {
                ops.push(Op::Blend(corner, x, y));
            }
        }
        if let Some(label) = &self.label {
            let margin = look::label_margin(size);
            ops.push(Op::Blend(label, x + margin, (y + height.saturating_sub(margin + label.height())) & !1));
        }
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
        .map(|(i, ((y, u), v))| Band { rows: y.len() / strides[0], planes: [y, u, v], strides, top: i * each })
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
    use crate::layout::ObjectFit;
    use crate::media::{Look, SourceKind};

    const CANVAS: Size = Size::new(64, 36);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(60_000_000 + ms * 1_000)
    }

    /// The times at which the canvas of a camera with one frame changes, in milliseconds, until it says that it will
    /// not any more. `hears`: the microphone sends until then.
    fn changes(hears: u64) -> Vec<u64> {
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        slot.writer().put(Picture::filled(CANVAS, 90, 128, 128), Look::default(), at(0));
        let slots = HashMap::from([(SourceId(1), slot.clone())]);
        let tile = Tile {
            participant: ParticipantId(1),
            kind: SourceKind::Camera,
            source: Some(SourceId(1)),
            rect: Rect { x: 0, y: 0, width: CANVAS.width, height: CANVAS.height },
            fit: ObjectFit::Auto,
            label: String::new(),
            initials: String::new(),
            speaking: false,
            muted: false,
        };
        let mut compositor = Compositor::new(None);
        compositor.set_scene(&Scene { view: ViewName::program(), canvas: CANVAS, fps: 30, tiles: vec![tile] });
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
