//! Signs in the corners of a tile: a raised hand, a reaction.
//!
//! Owns: their proportions and drawing. Does not know: when they are shown, frames. In: a tile. Out: sprites, drawn once
//! per change. Both are emoji of the shipped font.

use super::lettering::Lettering;
use super::look::{TEXT, letter_height, rgb};
use super::raster::{Raster, rounded};
use super::sprite::Sprite;
use crate::layout::{Style, Tile};

/// Narrowest tile with signs, in pixels.
const SIGN_TILE: u32 = 48;
const HAND: &str = "✋";

fn even(value: f32) -> usize {
    (value / 2.0).round() as usize * 2
}

/// A raised hand on a plate; None if it is not raised, or there is no room.
pub(super) fn hand(lettering: &mut Lettering, style: &Style, tile: &Tile) -> Option<Sprite> {
    let size = tile.rect.size();
    if !tile.hand_raised || size.width < SIGN_TILE {
        return None;
    }
    let letters = letter_height(style, size);
    let sign = emoji(lettering, HAND, letters * 1.25)?;
    let side = even(letters * 1.9);
    let mut plate = Raster::new(side, side);
    let side = side as f32;
    let (color, alpha) = (rgb(style.label_background), f32::from(style.label_background.0[3]) / 255.0);
    plate.shape(color, alpha, |x, y| rounded(x, y, [0.0, 0.0, side, side], letters * 0.42));
    stamp_in_middle(&mut plate, &sign);
    Some(Sprite::new(&plate))
}

/// The emoji of a reaction; None without one, or if there is no room.
pub(super) fn reaction(lettering: &mut Lettering, style: &Style, tile: &Tile) -> Option<Sprite> {
    let size = tile.rect.size();
    let text = tile.reaction.as_ref().filter(|_| size.width >= SIGN_TILE)?;
    let pixels = (letter_height(style, size) * 2.4).min(size.height.min(size.width) as f32 * 0.36);
    let sign = emoji(lettering, text, pixels)?;
    let side = even(pixels * 1.3);
    let mut square = Raster::new(side, side);
    stamp_in_middle(&mut square, &sign);
    Some(Sprite::new(&square))
}

/// An emoji in one line.
fn emoji(lettering: &mut Lettering, text: &str, pixels: f32) -> Option<Raster> {
    lettering.line(text, pixels, pixels * 2.0, TEXT)
}

/// Draws what is visible of a sign in the middle of a square.
fn stamp_in_middle(square: &mut Raster, sign: &Raster) {
    let (first, after) = sign.ink();
    let left = (square.width as f32 - sign.width as f32) / 2.0;
    let top = (square.height as f32 - (first + after) as f32) / 2.0;
    square.stamp(sign, left.round() as i32, top.round() as i32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ParticipantId;
    use crate::layout::ObjectFit;
    use crate::media::{Rect, Size, SourceKind};

    fn tile(size: Size) -> Tile {
        Tile {
            participant: ParticipantId(1),
            kind: SourceKind::Camera,
            source: None,
            rect: Rect { x: 0, y: 0, width: size.width, height: size.height },
            fit: ObjectFit::Auto,
            label: String::new(),
            initials: String::new(),
            avatar: None,
            speaking: false,
            muted: false,
            poor_connection: false,
            hand_raised: true,
            reaction: None,
        }
    }

    #[test]
    fn signs_are_even_and_fit_beside_each_other() {
        let mut lettering = Lettering::new();
        for size in [Size::new(1280, 720), Size::new(424, 238), Size::new(256, 144), Size::new(80, 300)] {
            for (font_size, text) in [(50, "👏"), (100, "👨‍👩‍👧‍👦"), (200, "🇫🇷")] {
                let style = Style { font_size, ..Style::default() };
                let tile = Tile { reaction: Some(text.into()), ..tile(size) };
                let signs = [hand(&mut lettering, &style, &tile), reaction(&mut lettering, &style, &tile)];
                for sign in signs.map(|sign| sign.expect("all of them have room")) {
                    assert_eq!((sign.width() % 2, sign.height() % 2), (0, 0));
                    assert!(sign.width() * 2 <= size.width && sign.height() <= size.height, "{size} {font_size}");
                }
            }
        }
        let small = Tile { reaction: Some("👏".into()), ..tile(Size::new(40, 300)) };
        let style = Style::default();
        assert!(hand(&mut lettering, &style, &small).is_none() && reaction(&mut lettering, &style, &small).is_none());
    }
}
