//! The parts of a tile besides its picture: name, avatar, round corners, the frame of a talker.
//!
//! Owns: colours, proportions and the drawing of each part. Does not know: frames, canvases. In: a tile. Out: sprites,
//! drawn once per change.

use unicode_segmentation::UnicodeSegmentation;

use super::bitmap::Bitmap;
use super::lettering::Lettering;
use super::raster::{Raster, Rgb, disc, rounded, stroke};
use super::sprite::Sprite;
use crate::layout::{Background, Style, Tile};
use crate::media::{Colour, Size, SourceKind};

/// Background of avatars, and of tiles that a picture does not fill.
pub(super) const TILE: Rgb = [28, 34, 41];
const PLATE: Rgb = [10, 13, 16];
const PLATE_ALPHA: f32 = 0.62;
pub(super) const TEXT: Rgb = [245, 247, 250];
const MUTED: Rgb = [255, 112, 112];
const WARNING: Rgb = [255, 194, 75];
/// Discs of avatars: of equal lightness, with enough contrast to white letters.
const PALETTE: [Rgb; 12] = [
    [79, 110, 196],
    [176, 84, 112],
    [58, 132, 118],
    [160, 106, 56],
    [124, 88, 178],
    [70, 128, 74],
    [188, 86, 74],
    [50, 124, 158],
    [148, 76, 150],
    [122, 122, 58],
    [96, 104, 128],
    [180, 92, 50],
];
/// Narrowest tile with a label, in pixels.
const LABEL_TILE: u32 = 64;

fn even(value: f32) -> u32 {
    (value / 2.0).round() as u32 * 2
}

pub(super) const fn rgb(Colour([r, g, b, _]): Colour) -> Rgb {
    [r, g, b]
}

/// The colour of the canvas; behind an image the usual one.
pub(super) fn ground(background: &Background) -> Rgb {
    match background {
        Background::Colour(colour) => rgb(*colour),
        Background::Image(_) => ground(&Background::USUAL),
    }
}

/// Height of names in pixels: grows more slowly than the tile.
pub(super) fn letter_height(style: &Style, tile: Size) -> f32 {
    let usual = (8.0 + tile.height.min(tile.width) as f32 * 0.023).clamp(10.0, 30.0);
    usual * style.font_size as f32 / 100.0
}

/// Radius of the corners of a tile, even; by default it grows with the tile.
pub(super) fn radius(fixed: Option<u32>, tile: Size) -> u32 {
    let side = tile.height.min(tile.width);
    match fixed {
        Some(radius) => radius.min(side / 2) & !1,
        None => even(side as f32 * 0.035).clamp(4, 16),
    }
}

/// Width of the frame of a talker, even.
pub(super) fn frame_width(tile: Size) -> u32 {
    if tile.height.min(tile.width) >= 170 { 4 } else { 2 }
}

/// Distance of a label from the edges of its tile, even.
pub(super) fn label_margin(style: &Style, tile: Size) -> u32 {
    frame_width(tile) + even(letter_height(style, tile) * 0.3)
}

/// The plate with the name and, before it, the signs of a muted microphone and a poor connection; None if there is
/// nothing to show or no room.
pub(super) fn label(lettering: &mut Lettering, style: &Style, tile: &Tile) -> Option<Sprite> {
    let Tile { label: name, muted, poor_connection, .. } = tile;
    let tile = tile.rect.size();
    let draws = [(*muted, draw_muted as fn(&mut Raster, f32, f32, f32)), (*poor_connection, draw_poor_connection)];
    let mut signs: Vec<_> = draws.into_iter().filter_map(|(shown, draw)| shown.then_some(draw)).collect();
    let letters = letter_height(style, tile);
    let (side, sign, gap) = ((letters * 0.55).round(), letters.round(), (letters * 0.3).round());
    let room = tile.width as f32 - 2.0 * label_margin(style, tile) as f32 - 2.0 * side;
    // Large letters on a narrow tile leave no room for all signs.
    signs.truncate(((room + gap) / (sign + gap)).max(0.0) as usize);
    if tile.width < LABEL_TILE || (name.is_empty() && signs.is_empty()) {
        return None;
    }
    // Each sign with the gap after it, except after the last one of a plate without a name.
    let before = signs.len() as f32 * (sign + gap) - if name.is_empty() { gap } else { 0.0 };
    let room = room - before;
    let text = lettering.line(name, letters, room, rgb(style.label_color));
    let text_width = text.as_ref().map_or(0.0, |text| text.width as f32);
    let height = even(letters * 1.65);
    let width = side * 2.0 + before + text_width;
    let mut plate = Raster::new(width as usize, height as usize);
    let (width, height) = (plate.width as f32, plate.height as f32);
    let (color, alpha) = (rgb(style.label_background), f32::from(style.label_background.0[3]) / 255.0);
    plate.shape(color, alpha, |x, y| rounded(x, y, [0.0, 0.0, width, height], letters * 0.42));
    for (draw, at) in signs.into_iter().zip(0_u8..) {
        draw(&mut plate, side + f32::from(at) * (sign + gap), (height - sign) / 2.0, sign);
    }
    if let Some(text) = text {
        // On the common baseline, unless tall or deep letters would leave the plate.
        let (first, after) = text.ink();
        let edge = (height * 0.12).round();
        let (least, most) = (edge - first as f32, height - edge - after as f32);
        let top = ((height - text.height as f32) / 2.0).round().min(most).max(least);
        plate.stamp(&text, (side + before) as i32, top as i32);
    }
    Some(Sprite::new(&plate))
}

/// The plate in the middle of a tile whose sender is lost; None if there is no room.
pub(super) fn reconnecting(lettering: &mut Lettering, style: &Style, tile: Size) -> Option<Sprite> {
    let letters = letter_height(style, tile) * 1.15;
    let side = (letters * 0.7).round();
    let room = tile.width as f32 - 2.0 * label_margin(style, tile) as f32 - 2.0 * side;
    if tile.width < LABEL_TILE {
        return None;
    }
    let text = lettering.line("Reconnecting…", letters, room, TEXT)?;
    let mut plate = Raster::new(text.width + 2 * side as usize, even(letters * 1.9) as usize);
    let (width, height) = (plate.width as f32, plate.height as f32);
    plate.shape(PLATE, PLATE_ALPHA, |x, y| rounded(x, y, [0.0, 0.0, width, height], height / 2.0));
    plate.stamp(&text, side as i32, ((height - text.height as f32) / 2.0).round() as i32);
    Some(Sprite::new(&plate))
}

/// A crossed-out microphone in a square.
fn draw_muted(on: &mut Raster, left: f32, top: f32, side: f32) {
    let at = |x: f32, y: f32| (left + x * side, top + y * side);
    let line = side * 0.1;
    on.shape(MUTED, 1.0, |x, y| stroke(x, y, at(0.5, 0.2), at(0.5, 0.46), side * 0.3));
    on.shape(MUTED, 1.0, |x, y| {
        let bow = disc(x, y, at(0.5, 0.46), side * 0.31).abs() - line / 2.0;
        bow.max(at(0.5, 0.46).1 - y)
    });
    on.shape(MUTED, 1.0, |x, y| stroke(x, y, at(0.5, 0.8), at(0.5, 0.94), line));
    on.shape(PLATE, 1.0, |x, y| stroke(x, y, at(0.2, 0.08), at(0.92, 0.88), line * 1.2));
    on.shape(MUTED, 1.0, |x, y| stroke(x, y, at(0.1, 0.1), at(0.84, 0.92), line));
}

/// Three bars of which one is full, in a square: a poor connection.
fn draw_poor_connection(on: &mut Raster, left: f32, top: f32, side: f32) {
    let width = side * 0.2;
    for (at, height, full) in [(0.06, 0.34, true), (0.4, 0.58, false), (0.74, 0.82, false)] {
        let (color, alpha) = if full { (WARNING, 1.0) } else { (TEXT, 0.35) };
        let bar = [left + side * at, top + side * (0.91 - height), width, side * height];
        on.shape(color, alpha, |x, y| rounded(x, y, bar, width * 0.3));
    }
}

/// A disc in the colour of the participant: with an image that covers it, else with initials, the figure of a person if
/// there are none, or a monitor for a screen.
pub(super) fn avatar(lettering: &mut Lettering, tile: &Tile, image: Option<&Bitmap>) -> Sprite {
    let diameter = even(tile.rect.height.min(tile.rect.width) as f32 * 0.42).max(8);
    let side = diameter as f32;
    let color = PALETTE[(tile.participant.0 as usize).wrapping_mul(5) % PALETTE.len()];
    let mut raster = Raster::new(diameter as usize, diameter as usize);
    let middle = (side / 2.0, side / 2.0);
    raster.shape(color, 1.0, |x, y| disc(x, y, middle, side / 2.0));
    if tile.kind == SourceKind::Screen {
        draw_monitor(&mut raster, side);
        return Sprite::new(&raster);
    }
    if let Some(image) = image {
        raster.stamp(&image.cropped(Size::new(1, 1)).scaled(raster.width, raster.height), 0, 0);
        raster.mask(|x, y| disc(x, y, middle, side / 2.0));
        return Sprite::new(&raster);
    }
    let letters = if tile.initials.graphemes(true).nth(1).is_some() { 0.38 } else { 0.46 };
    match lettering.line(&tile.initials, side * letters, side, TEXT) {
        Some(text) => {
            let (first, after) = text.ink();
            let left = (side - text.width as f32) / 2.0;
            let top = (side - (first + after) as f32) / 2.0;
            raster.stamp(&text, left.round() as i32, top.round() as i32);
        }
        None => raster.shape(TEXT, 0.9, |x, y| {
            let head = disc(x, y, (middle.0, side * 0.4), side * 0.15);
            let shoulders = disc(x, y, (middle.0, side * 0.86), side * 0.27).max(y - side * 0.78);
            head.min(shoulders)
        }),
    }
    Sprite::new(&raster)
}

/// The outline of a monitor on its foot, in a square.
fn draw_monitor(on: &mut Raster, side: f32) {
    let line = side * 0.045;
    on.shape(TEXT, 0.95, |x, y| {
        let frame = [side * 0.26, side * 0.29, side * 0.48, side * 0.32];
        let screen = rounded(x, y, frame, side * 0.03).abs() - line / 2.0;
        let foot = stroke(x, y, (side * 0.4, side * 0.72), (side * 0.6, side * 0.72), line);
        let neck = stroke(x, y, (side * 0.5, side * 0.61), (side * 0.5, side * 0.72), line);
        screen.min(foot).min(neck)
    });
}

/// The four corners of a tile with background outside the rounding, and the frame of a talker inside. In order: upper
/// left, upper right, lower left, lower right.
pub(super) fn corners(style: &Style, tile: Size, speaking: bool) -> [Sprite; 4] {
    let (side, frame) = (radius(style.radius, tile) as f32, frame_width(tile) as f32);
    rounding(side, |raster, center| {
        if speaking {
            raster.shape(rgb(style.speaker_frame), 1.0, |x, y| (side - frame) - disc(x, y, center, 0.0));
        }
        raster.shape(ground(&style.background), 1.0, |x, y| side - disc(x, y, center, 0.0));
    })
}

/// The four corners of the frame of a talker, without the part outside the rounding.
pub(super) fn frame_corners(style: &Style, tile: Size) -> [Sprite; 4] {
    let (side, frame) = (radius(style.radius, tile) as f32, frame_width(tile) as f32);
    rounding(side, |raster, center| {
        raster.shape(rgb(style.speaker_frame), 1.0, |x, y| (side - frame) - disc(x, y, center, 0.0));
    })
}

/// What is outside the rounding at the four corners: their opacity tells how much is seen of what is below the tile.
pub(super) fn outside(style: &Style, tile: Size) -> [Sprite; 4] {
    let side = radius(style.radius, tile) as f32;
    rounding(side, |raster, center| raster.shape(PLATE, 1.0, |x, y| side - disc(x, y, center, 0.0)))
}

/// Four squares that `draw` fills, knowing the center of the rounding. In order: upper left, upper right, lower left,
/// lower right.
fn rounding(side: f32, draw: impl Fn(&mut Raster, (f32, f32))) -> [Sprite; 4] {
    [(side, side), (0.0, side), (side, 0.0), (0.0, 0.0)].map(|center| {
        let mut raster = Raster::new(side as usize, side as usize);
        draw(&mut raster, center);
        Sprite::new(&raster)
    })
}

/// The number of people without a tile; None if there is no room.
pub(super) fn more(lettering: &mut Lettering, count: u32, tile: Size) -> Option<Sprite> {
    let side = tile.height.min(tile.width) as f32;
    let text = lettering.line(&format!("+{count}"), (side * 0.28).max(10.0), tile.width as f32, TEXT)?;
    Some(Sprite::new(&text)).filter(|text| text.height() <= tile.height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ParticipantId;
    use crate::layout::ObjectFit;
    use crate::media::Rect;

    fn plain(size: Size) -> Tile {
        Tile {
            participant: ParticipantId(u32::MAX),
            kind: SourceKind::Camera,
            source: None,
            rect: Rect { x: 0, y: 0, width: size.width, height: size.height },
            fit: ObjectFit::Auto,
            label: "A B".into(),
            initials: String::new(),
            avatar: None,
            speaking: false,
            muted: false,
            poor_connection: false,
            hand_raised: false,
            reaction: None,
        }
    }

    #[test]
    fn a_fixed_radius_is_even_and_at_most_half_a_tile() {
        let tile = Size::new(60, 40);
        assert_eq!([0, 7, 64].map(|fixed| radius(Some(fixed), tile)), [0, 6, 20]);
        assert_eq!(radius(None, tile), 4);
    }

    #[test]
    fn sprites_are_even_and_fit_their_tiles() {
        let mut lettering = Lettering::new();
        let long = "Pneumonoultramicroscopicsilicovolcanoconiosis ".repeat(9);
        for tile in [Size::new(1280, 720), Size::new(424, 238), Size::new(256, 144), Size::new(80, 300)] {
            for name in ["A", &long, ""] {
                for (muted, poor_connection, font_size) in [(false, false, 100), (true, false, 50), (true, true, 200)] {
                    let style = Style { font_size, ..Style::default() };
                    let tile = Tile { label: name.into(), muted, poor_connection, ..plain(tile) };
                    if let Some(label) = label(&mut lettering, &style, &tile) {
                        let (margin, room) = (label_margin(&style, tile.rect.size()), tile.rect.width);
                        assert!(label.width() + 2 * margin <= room + 2, "{room} {}", label.width());
                        assert_eq!((label.width() % 2, label.height() % 2), (0, 0));
                    }
                }
            }
            let plate = reconnecting(&mut lettering, &Style::default(), tile).expect("all of them have room");
            assert!(plate.width() <= tile.width && plate.height() <= tile.height, "{tile}");
            for (kind, initials) in [(SourceKind::Camera, "AB"), (SourceKind::Camera, ""), (SourceKind::Screen, "A")] {
                let tile = Tile { kind, initials: initials.into(), ..plain(tile) };
                let avatar = avatar(&mut lettering, &tile, None);
                assert!(avatar.width() <= tile.rect.width && avatar.height() <= tile.rect.height);
            }
        }
    }
}
