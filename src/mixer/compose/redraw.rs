//! What is drawn anew on a canvas.
//!
//! Owns: [`Record`], what is drawn on a canvas, and the choice of the operations that turn one record into another.
//! Does not know: frames before the shown ones, threads. In: [`Contents`], the record of a canvas and the one that is
//! wanted. Out: operations, in their order.
//!
//! 1. The canvas has layers, from the lowest to the highest: the background with the number of hidden participants,
//!    tiles that leave, the other tiles, overlays.
//! 2. In another arrangement everything is drawn; while tiles move, each picture is another arrangement.
//! 3. Otherwise the tiles that differ are drawn, with all tiles that they overlap. Where an overlay comes, goes or
//!    changes, all layers below are drawn again in its rectangle only.
//! 4. Overlays are blended last, once per pixel, and only where the layers below them have been drawn.

use super::overlay::{Laid, Overlays};
use super::region::{Region, intersection, overlap};
use super::sprite::{Op, Sprite};
use super::tile::{Moving, Placed, Shown, more_ops};
use super::transition::Place;
use crate::codec::Picture;
use crate::id::SourceId;
use crate::layout::More;
use crate::media::{Rect, Size};

/// The contents of a tile: drawn, or to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) look: u64,
    pub(super) frame: Option<(SourceId, u64)>,
    pub(super) lost: bool,
}

/// The contents of a canvas: drawn, or to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) arrangement: u64,
    pub(super) tiles: Vec<Drawn>,
    pub(super) overlays: Vec<Laid>,
}

/// The background of a canvas.
#[derive(Default)]
pub(super) struct Ground {
    /// Without a picture, and beside pictures that do not fill their tiles.
    pub(super) color: [u8; 3],
    /// A picture of the size of the canvas.
    pub(super) picture: Option<Picture>,
}

/// What a canvas is to show.
pub(super) struct Contents<'a> {
    pub(super) canvas: Size,
    pub(super) ground: &'a Ground,
    /// The place with the number of hidden participants, and the number if there is room.
    pub(super) more: Option<&'a (More, Option<Sprite>)>,
    /// Tiles of the scene before.
    pub(super) leaving: &'a [Placed],
    pub(super) tiles: &'a [Placed],
    /// The frame of each of `tiles`.
    pub(super) frames: &'a [Option<Shown>],
    /// Those of `leaving` and `tiles` that are not in their places. Without any, `leaving` is not drawn.
    pub(super) moving: &'a [Moving],
    pub(super) overlays: &'a Overlays,
}

impl<'a> Contents<'a> {
    /// The operations that draw `wanted` on a canvas that shows `drawn`; None for a canvas with other pixels.
    pub(super) fn ops(&self, wanted: &Record, drawn: Option<&Record>) -> Vec<Op<'a>> {
        let mut ops = Vec::new();
        let drawn = drawn.filter(|drawn| drawn.arrangement == wanted.arrangement);
        let region = match drawn {
            Some(drawn) => self.changed_ops(|i| drawn.tiles[i] != wanted.tiles[i], &mut ops),
            None => self.all_ops(&mut ops),
        };
        let before = drawn.map_or(&[][..], |drawn| &drawn.overlays);
        if !self.overlays.is_empty() || !before.is_empty() {
            self.overlay_ops(&wanted.overlays, before, region, &mut ops);
        }
        ops
    }

    /// Draws the whole canvas but its overlays. Returns where it has drawn.
    fn all_ops(&self, ops: &mut Vec<Op<'a>>) -> Region {
        let Size { width, height } = self.canvas;
        let whole = Rect { x: 0, y: 0, width, height };
        self.ground_ops(whole, ops);
        let moving = |placed: &Placed| self.moving.iter().find(|part| part.moved.key == Place::of(&placed.tile).key);
        for (placed, part) in self.leaving.iter().filter_map(|placed| Some((placed, moving(placed)?))) {
            part.ops(placed, ops);
        }
        for (placed, frame) in self.tiles.iter().zip(self.frames) {
            match moving(placed) {
                Some(part) => part.ops(placed, ops),
                None => placed.ops(placed.tile.rect, frame.as_ref(), placed.corners.as_ref(), ops),
            }
        }
        Region::of(whole)
    }

    /// Draws the tiles that differ, in whole, and those that they overlap: the ones above them, and the ones that are
    /// seen at their corners. No tile moves. Returns where it has drawn.
    fn changed_ops(&self, differs: impl Fn(usize) -> bool, ops: &mut Vec<Op<'a>>) -> Region {
        let redrawn = self.redrawn(differs);
        let tiles = || self.tiles.iter().zip(self.frames).zip(&redrawn).filter(|(_, redrawn)| **redrawn);
        // What is below their corners, where it is not drawn anew.
        tiles()
            .filter(|((placed, _), _)| placed.over)
            .for_each(|((placed, _), _)| self.ground_ops(placed.tile.rect, ops));
        let mut region = Region::default();
        for ((placed, frame), _) in tiles() {
            placed.ops(placed.tile.rect, frame.as_ref(), placed.corners.as_ref(), ops);
            region.add(placed.tile.rect);
        }
        region
    }

    /// Which tiles are drawn anew: those that differ, and all that overlap one that is drawn.
    fn redrawn(&self, differs: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut redrawn: Vec<bool> = (0..self.tiles.len()).map(differs).collect();
        if !self.tiles.iter().any(|placed| placed.over) {
            return redrawn;
        }
        let meets = |i: usize, j: usize| i != j && overlap(self.tiles[i].tile.rect, self.tiles[j].tile.rect);
        while let Some(next) =
            (0..redrawn.len()).find(|i| !redrawn[*i] && (0..redrawn.len()).any(|j| redrawn[j] && meets(*i, j)))
        {
            redrawn[next] = true;
        }
        redrawn
    }

    /// Replaces the overlays `before` by those `wanted`. In `region` the layers below have been drawn already.
    fn overlay_ops(&self, wanted: &[Laid], before: &[Laid], mut region: Region, ops: &mut Vec<Op<'a>>) {
        let visible = |laid: &&Laid| laid.rect.width > 0;
        let gone = before.iter().filter(|laid| !wanted.contains(laid));
        let new = wanted.iter().filter(|laid| !before.contains(laid));
        for laid in gone.chain(new).filter(visible) {
            for part in region.add(laid.rect) {
                self.redraw_part(part, ops);
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

    /// Draws the layers below the overlays in a part of the canvas. No tile moves.
    fn redraw_part(&self, part: Rect, ops: &mut Vec<Op<'a>>) {
        // A tile over others keeps what is drawn outside its round corners.
        let covers = |placed: &Placed| !placed.over && intersection(placed.tile.rect, part) == Some(part);
        if !self.tiles.iter().any(covers) {
            self.ground_ops(part, ops);
        }
        let mut below = Vec::new();
        for (placed, frame) in self.tiles.iter().zip(self.frames) {
            if overlap(placed.tile.rect, part) {
                placed.ops(placed.tile.rect, frame.as_ref(), placed.corners.as_ref(), &mut below);
            }
        }
        ops.extend(below.into_iter().map(|op| Op::Within(part, Box::new(op))));
    }

    /// Draws the lowest layer in a part of the canvas.
    fn ground_ops(&self, part: Rect, ops: &mut Vec<Op<'a>>) {
        ops.push(match &self.ground.picture {
            Some(picture) => Op::Within(part, Box::new(Op::Copy(picture, 0, 0))),
            None => Op::Fill(part, self.ground.color),
        });
        if let Some((more, letters)) = self.more.filter(|(more, _)| overlap(more.rect, part)) {
            let mut place = Vec::new();
            more_ops(*more, letters.as_ref(), &mut place);
            ops.extend(place.into_iter().map(|op| Op::Within(part, Box::new(op))));
        }
    }
}
