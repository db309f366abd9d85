//! A tile on a canvas: what it shows, and the operations that draw it.
//!
//! Owns: [`Placed`], a tile with the sprites that it keeps from scene to scene; [`Moving`], one that is not in its
//! place. Does not know: other tiles, overlays, what is drawn already. In: a tile, its frame and its rectangle. Out:
//! [`Op`]s that draw all of its rectangle and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bitmap::Bitmap;
use super::corners::Rounding;
use super::lettering::Lettering;
use super::look;
use super::slot::Fitted;
use super::sprite::{Cover, Op, Sprite, yuv};
use super::transition::Moved;
use crate::id::ImageName;
use crate::layout::{More, Style, Tile};
use crate::media::Rect;

/// Shortest side in pixels of a tile with an avatar and round corners.
pub(super) const SMALLEST: u32 = 32;

/// A tile with its sprites.
pub(super) struct Placed {
    pub(super) tile: Tile,
    /// Changes with every property of the tile except its picture.
    pub(super) look: u64,
    pub(super) label: Option<Arc<Sprite>>,
    /// A raised hand, in the upper left corner.
    pub(super) hand: Option<Arc<Sprite>>,
    /// A reaction, in the upper right corner.
    pub(super) reaction: Option<Arc<Sprite>>,
    /// Drawn at the first use.
    pub(super) avatar: Option<Arc<Sprite>>,
    /// The plate over the last frame of a lost sender. Drawn at the first use.
    pub(super) reconnecting: Option<Arc<Sprite>>,
    pub(super) corners: Option<Rounding>,
    /// It overlaps tiles that are drawn before it, or an image.
    pub(super) over: bool,
    /// Distance of the label from the edges.
    pub(super) margin: u32,
    /// Beside a picture that does not fill the tile.
    pub(super) ground: [u8; 3],
    /// The last frame that was drawn, for a tile that leaves with its source.
    pub(super) shown: Option<Shown>,
}

/// What the sprites of a tile are drawn with.
pub(super) struct Appearance<'a> {
    pub(super) style: &'a Style,
    pub(super) images: &'a BTreeMap<ImageName, Arc<Bitmap>>,
}

/// A frame to draw, and whether its sender is lost.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) fitted: Fitted,
    pub(super) lost: bool,
}

/// A tile that is not in its place.
pub(super) struct Moving {
    pub(super) moved: Moved,
    pub(super) shown: Option<Shown>,
    /// None for a tile that is too small.
    pub(super) rounding: Option<Rounding>,
}

impl Placed {
    /// Draws the sprites that this frame needs.
    pub(super) fn prepare(&mut self, frame: Option<&Shown>, lettering: &mut Lettering, with: &Appearance<'_>) {
        if frame.is_some_and(|shown| shown.lost) && self.reconnecting.is_none() {
            self.reconnecting = look::reconnecting(lettering, with.style, self.tile.rect.size()).map(Arc::new);
        }
        if frame.is_none() && self.avatar.is_none() {
            let image = self.tile.avatar.as_ref().and_then(|name| with.images.get(name));
            self.avatar = Some(Arc::new(look::avatar(lettering, &self.tile, image.map(AsRef::as_ref))));
        }
    }

    /// All of the tile, in a rectangle that may have another size than its own.
    pub(super) fn ops<'a>(
        &'a self,
        rect: Rect,
        frame: Option<&'a Shown>,
        rounding: Option<&'a Rounding>,
        ops: &mut Vec<Op<'a>>,
    ) {
        if let Some(rounding) = rounding {
            rounding.begin(rect, ops);
        }
        self.content_ops(rect, frame, ops);
        if let Some(rounding) = rounding {
            if self.tile.speaking {
                rounding.frame_ops(rect, ops);
            }
            rounding.end(rect, ops);
        }
        let margin = self.margin;
        if let Some(label) = self.label.as_ref().filter(|label| label.width() + 2 * margin <= rect.width + 2) {
            let (x, y) = (rect.x + margin, rect.y + rect.height.saturating_sub(margin + label.height()));
            ops.push(Op::Blend(label, x, y & !1));
        }
        let fits =
            |sign: &&Arc<Sprite>| sign.width() + 2 * margin <= rect.width && sign.height() + 2 * margin <= rect.height;
        if let Some(hand) = self.hand.as_ref().filter(fits) {
            ops.push(Op::Blend(hand, rect.x + margin, rect.y + margin));
        }
        if let Some(reaction) = self.reaction.as_ref().filter(fits) {
            ops.push(Op::Blend(reaction, rect.x + rect.width - margin - reaction.width(), rect.y + margin));
        }
    }

    /// The picture with what is beside it, or the avatar.
    fn content_ops<'a>(&'a self, rect: Rect, frame: Option<&'a Shown>, ops: &mut Vec<Op<'a>>) {
        let Rect { x, y, width, height } = rect;
        let middle = |outer: u32, inner: u32| (outer.saturating_sub(inner) / 2) & !1;
        match frame {
            Some(Shown { fitted: Fitted { picture, dest, beside, .. }, lost }) => {
                if dest.size() != rect.size() && beside.is_empty() {
                    ops.push(Op::Fill(rect, self.ground));
                }
                let parts = beside.iter().map(|(picture, place)| (picture, place));
                for (picture, place) in parts.chain(std::iter::once((picture, dest))) {
                    let draw = if *lost { Op::Grey } else { Op::Copy };
                    ops.push(draw(picture, x + place.x, y + place.y));
                }
                if let Some(plate) = self
                    .reconnecting
                    .as_ref()
                    .filter(|plate| *lost && plate.height() <= height && plate.width() <= width)
                {
                    ops.push(Op::Blend(plate, x + middle(width, plate.width()), y + middle(height, plate.height())));
                }
            }
            None => {
                ops.push(Op::Fill(rect, yuv(look::TILE)));
                if let Some(avatar) =
                    self.avatar.as_ref().filter(|avatar| width.min(height) >= SMALLEST.max(avatar.width()))
                {
                    ops.push(Op::Blend(avatar, x + middle(width, avatar.width()), y + middle(height, avatar.height())));
                }
            }
        }
    }
}

impl Moving {
    pub(super) fn ops<'a>(&'a self, placed: &'a Placed, ops: &mut Vec<Op<'a>>) {
        let Moved { rect, opacity, .. } = self.moved;
        if opacity < u8::MAX {
            ops.push(Op::Keep(rect));
        }
        placed.ops(rect, self.shown.as_ref(), self.rounding.as_ref(), ops);
        if opacity < u8::MAX {
            ops.push(Op::Reveal(rect, Cover::Even(u8::MAX - opacity)));
        }
    }
}

/// The number of people without a tile.
pub(super) fn more_ops<'a>(More { rect, .. }: More, letters: Option<&'a Sprite>, ops: &mut Vec<Op<'a>>) {
    ops.push(Op::Fill(rect, yuv(look::TILE)));
    if let Some(letters) = letters {
        let middle = |outer: u32, inner: u32| (outer.saturating_sub(inner) / 2) & !1;
        let (x, y) = (middle(rect.width, letters.width()), middle(rect.height, letters.height()));
        ops.push(Op::Blend(letters, rect.x + x, rect.y + y));
    }
}
