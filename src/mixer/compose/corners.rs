//! The round corners of tiles.
//!
//! Owns: the sprites of corners, drawn once per radius, and the operations that round a tile. Does not know: what is in
//! a tile. In: a tile's rectangle, and whether it lies over other tiles. Out: operations before and after the contents.
//!
//! A tile over the background has corners of the colour of the background. Around the corners of a tile that lies over
//! others or over an image, what is below is kept before the tile is drawn, and revealed afterwards.

use std::collections::HashMap;
use std::sync::Arc;

use super::look;
use super::raster::Rgb;
use super::sprite::{Cover, Op, Sprite, yuv};
use crate::layout::Style;
use crate::media::{Rect, Size};

/// Four corners: upper left, upper right, lower left, lower right.
type Four = Arc<[Sprite; 4]>;

/// Corners by radius, width of the frame of a talker, and kind; of one style.
#[derive(Default)]
pub(super) struct Corners {
    style: Style,
    drawn: HashMap<(u32, u32, Kind), Four>,
}

/// What a corner is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Background outside the rounding, and inside, for a talker, the frame.
    Whole { speaking: bool },
    /// The frame of a talker only.
    Frame,
    /// The opacity of what is below the tile.
    Outside,
}

/// How a tile is rounded.
pub(super) struct Rounding {
    /// The radius, unless it grows with the tile.
    radius: Option<u32>,
    /// The colour of the frame of a talker.
    frame: Rgb,
    seen: Seen,
}

/// What is seen outside the rounding.
enum Seen {
    /// The background.
    Ground(Four),
    /// Other tiles or an image; with the frame of a talker.
    Below { outside: Four, frame: Option<Four> },
}

impl Corners {
    /// Draws with another style from now on.
    pub(super) fn set_style(&mut self, style: Style) {
        *self = Self { style, drawn: HashMap::new() };
    }

    /// The rounding of a tile.
    pub(super) fn rounding(&mut self, tile: Size, speaking: bool, over: bool) -> Rounding {
        let seen = if over {
            let frame = speaking.then(|| self.four(tile, Kind::Frame));
            Seen::Below { outside: self.four(tile, Kind::Outside), frame }
        } else {
            Seen::Ground(self.four(tile, Kind::Whole { speaking }))
        };
        Rounding { radius: self.style.radius, frame: look::rgb(self.style.speaker_frame), seen }
    }

    fn four(&mut self, tile: Size, kind: Kind) -> Four {
        let Self { style, drawn } = self;
        let draw = || match kind {
            Kind::Whole { speaking } => look::corners(style, tile, speaking),
            Kind::Frame => look::frame_corners(style, tile),
            Kind::Outside => look::outside(style, tile),
        };
        let key = (look::radius(style.radius, tile), look::frame_width(tile), kind);
        drawn.entry(key).or_insert_with(|| Arc::new(draw())).clone()
    }

    /// Forgets the corners that no tile has.
    pub(super) fn prune(&mut self) {
        self.drawn.retain(|_, four| Arc::strong_count(four) > 1);
    }
}

impl Rounding {
    /// Before the contents of the tile.
    pub(super) fn begin(&self, tile: Rect, ops: &mut Vec<Op<'_>>) {
        if let Seen::Below { .. } = self.seen {
            ops.extend(self.places(tile).map(Op::Keep));
        }
    }

    /// After the contents of the tile, and the straight parts of the frame of a talker.
    pub(super) fn end<'a>(&'a self, tile: Rect, ops: &mut Vec<Op<'a>>) {
        let blend = |(place, corner): (Rect, &'a Sprite)| Op::Blend(corner, place.x, place.y);
        match &self.seen {
            Seen::Ground(corners) => ops.extend(self.places(tile).into_iter().zip(corners.iter()).map(blend)),
            Seen::Below { outside, frame } => {
                let frame = frame.iter().flat_map(|frame| self.places(tile).into_iter().zip(frame.iter()));
                ops.extend(frame.map(blend));
                // The last one that was kept is revealed first.
                let kept = self.places(tile).into_iter().zip(outside.iter()).rev();
                ops.extend(kept.map(|(place, cover)| Op::Reveal(place, Cover::Sprite(cover))));
            }
        }
    }

    /// The straight parts of the frame of a talker.
    pub(super) fn frame_ops(&self, tile: Rect, ops: &mut Vec<Op<'_>>) {
        let Rect { x, y, width, height } = tile;
        let (radius, frame, color) = (self.radius(tile), look::frame_width(tile.size()), yuv(self.frame));
        for y in [y, y + height - frame] {
            ops.push(Op::Fill(Rect { x: x + radius, y, width: width - 2 * radius, height: frame }, color));
        }
        for x in [x, x + width - frame] {
            ops.push(Op::Fill(Rect { x, y: y + radius, width: frame, height: height - 2 * radius }, color));
        }
    }

    fn radius(&self, tile: Rect) -> u32 {
        look::radius(self.radius, tile.size())
    }

    /// The places of the four corners of a tile.
    fn places(&self, tile: Rect) -> [Rect; 4] {
        let Rect { x, y, width, height } = tile;
        let radius = self.radius(tile);
        let (right, lower) = (x + width - radius, y + height - radius);
        [(x, y), (right, y), (x, lower), (right, lower)].map(|(x, y)| Rect { x, y, width: radius, height: radius })
    }
}
