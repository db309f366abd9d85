//! How overlays look: plates with texts, lower thirds, tickers.
//!
//! Owns: proportions and the drawing of each kind. Does not know: the time, canvases. In: an overlay, its text and the
//! size of the canvas. Out: a [`Drawing`].

use super::bitmap::Bitmap;
use super::lettering::{Lettering, Style};
use super::raster::{Raster, Rgb, rounded};
use super::sprite::Sprite;
use crate::media::{Rect, Size};
use crate::overlay::{Colour, Overlay, OverlayKind};

/// The stripe of a lower third and of a ticker.
const ACCENT: Rgb = [94, 160, 255];
/// Opacity of the second line of a lower third.
const SECOND_LINE: f32 = 0.78;
/// Smallest letters, in pixels.
const SMALLEST: f32 = 9.0;
/// Longest text of a ticker, in pixels.
const STRIP_MAX: f32 = 32_768.0;
/// Most lines of a wrapped text.
const LINES_MAX: usize = 12;

/// An overlay as it is drawn.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) rect: Rect,
    /// Fills `rect`.
    pub(super) plate: Option<Sprite>,
    /// The text of a ticker, which moves over the plate.
    pub(super) strip: Option<Sprite>,
    /// The part of the canvas where the text of a ticker is visible.
    pub(super) window: Rect,
}

impl Drawing {
    fn of(rect: Rect, plate: Option<Sprite>) -> Self {
        Self { rect, plate, strip: None, window: rect }
    }
}

/// Draws an overlay with this text.
pub(super) fn text(lettering: &mut Lettering, overlay: &Overlay, text: &str, canvas: Size) -> Drawing {
    if canvas.width < 2 || canvas.height < 2 {
        return Drawing::of(Rect { x: 0, y: 0, width: 0, height: 0 }, None);
    }
    match overlay.kind {
        OverlayKind::LowerThird => lower_third(lettering, overlay, text, canvas),
        OverlayKind::Ticker => ticker(lettering, overlay, text, canvas),
        OverlayKind::Caption => captions(lettering, overlay, text, canvas),
        OverlayKind::Text | OverlayKind::Clock | OverlayKind::Image => plate(lettering, overlay, text, canvas),
    }
}

/// Draws an image as large as its place allows, in the middle; nothing while it is not there.
pub(super) fn image(overlay: &Overlay, image: Option<&Bitmap>, canvas: Size) -> Drawing {
    let Some(image) = image.filter(|_| canvas.width >= 2 && canvas.height >= 2) else {
        return Drawing::of(Rect { x: 0, y: 0, width: 0, height: 0 }, None);
    };
    let height = overlay.rect(canvas, 2).height as f32;
    let rect = overlay.rect(canvas, (height * image.aspect()).round() as u32);
    let (most_width, most_height) = (rect.width as f32, rect.height as f32);
    let width = most_width.min(most_height * image.aspect());
    let (columns, rows) = (width.round().max(1.0), (width / image.aspect()).round().max(1.0));
    let mut raster = background(rect, overlay, canvas);
    let scaled = image.scaled(columns as usize, (rows as usize).min(rect.height as usize));
    let (left, top) = ((most_width - columns) / 2.0, (most_height - rows) / 2.0);
    raster.stamp(&scaled, left as i32, top as i32);
    Drawing::of(rect, Some(Sprite::new(&raster)))
}

const fn rgb(Colour([r, g, b, _]): Colour) -> Rgb {
    [r, g, b]
}

fn opacity(Colour([.., alpha]): Colour) -> f32 {
    f32::from(alpha) / 255.0
}

/// The width that an overlay may have: its own, or as far as the canvas reaches with the same margin on both sides.
fn room(overlay: &Overlay, canvas: Size) -> f32 {
    let place = overlay.rect(canvas, canvas.width);
    match overlay.width {
        Some(_) => place.width as f32,
        None => place.width.saturating_sub(place.x).max(place.width / 2) as f32,
    }
}

/// A text in letters as large as its place allows: the line height is at most the part `fill` of the height.
fn fitted(
    lettering: &mut Lettering,
    text: &str,
    [width, height]: [f32; 2],
    style: Style,
    color: Colour,
) -> Option<Raster> {
    let given: Vec<&str> = text.lines().map(str::trim).collect();
    // Words are not divided: the longest one limits the size. A clock is one line.
    let whole = |line: &'_ str| if style.tabular { vec![line.to_owned()] } else { words(line) };
    let widest =
        given.iter().flat_map(|line| whole(line)).map(|word| lettering.width(&word, style)).fold(1.0, f32::max);
    let largest = style.pixels * (width * 0.995 / widest).min(1.0);
    let (mut count, mut pixels) = (given.len().max(1), 0.0);
    while count <= LINES_MAX {
        // So that the rounded line height is not more than the part of a line.
        pixels = (((height / count as f32).floor() - 0.01) / 1.3).min(largest);
        if pixels < SMALLEST {
            break;
        }
        let needed: usize = given.iter().map(|line| lettering.lines(line, pixels, width).max(1)).sum();
        if needed <= count {
            break;
        }
        count += 1;
    }
    // Whatever does not fit at the smallest size is truncated.
    let pixels = pixels.max(SMALLEST);
    let most = ((height / (pixels * 1.3).ceil()).floor() as usize).max(1);
    let mut blocks = Vec::new();
    let mut left = most;
    for line in given {
        if left == 0 {
            break;
        }
        let needed = lettering.lines(line, pixels, width).max(1);
        // Only a text that is truncated has a limit: others would have a space before their last line.
        let (lines, limit) = if needed > left { (left, left) } else { (needed, usize::MAX) };
        left -= lines;
        let style = Style { pixels, width, lines: limit, ..style };
        blocks.push((lettering.paragraph(line, style, rgb(color)), lines));
    }
    let line_height = (pixels * 1.3).ceil() as usize;
    let widest = blocks.iter().filter_map(|(block, _)| Some(block.as_ref()?.width)).max()?;
    let lines: usize = blocks.iter().map(|(_, lines)| lines).sum();
    let mut raster = Raster::new(widest, lines * line_height);
    let mut top = 0;
    for (block, lines) in &blocks {
        if let Some(block) = block {
            let left = if style.centred { (widest - block.width) / 2 } else { 0 };
            raster.stamp(block, left as i32, top as i32);
        }
        top += lines * line_height;
    }
    raster.fade(opacity(color));
    Some(raster)
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The radius of the corners of a plate; 0 at an edge of the canvas.
fn radius(rect: Rect, canvas: Size) -> f32 {
    let at_edge =
        rect.x == 0 || rect.y == 0 || rect.x + rect.width >= canvas.width || rect.y + rect.height >= canvas.height;
    if at_edge {
        0.0
    } else {
        (canvas.height.min(canvas.width) as f32 * 0.011).clamp(3.0, 14.0).min(rect.height as f32 / 4.0)
    }
}

/// A raster of the size of `rect` with its background.
fn background(rect: Rect, overlay: &Overlay, canvas: Size) -> Raster {
    let mut raster = Raster::new(rect.width as usize, rect.height as usize);
    let (whole, radius) = ([0.0, 0.0, rect.width as f32, rect.height as f32], radius(rect, canvas));
    let alpha = opacity(overlay.background);
    if alpha > 0.0 {
        raster.shape(rgb(overlay.background), alpha, |x, y| rounded(x, y, whole, radius));
    }
    raster
}

/// Where a text of one or more lines begins so that its letters, not their line boxes, are in the middle.
fn middle(text: &Raster, height: f32) -> f32 {
    let (first, after) = text.ink();
    // Capitals and small letters without descenders look centred when the line box is.
    let box_top = (height - text.height as f32) / 2.0;
    let (least, most) = (1.0 - first as f32, height - 1.0 - after as f32);
    box_top.round().min(most).max(least)
}

/// Centred text on a plate.
fn plate(lettering: &mut Lettering, overlay: &Overlay, text: &str, canvas: Size) -> Drawing {
    let (room, full) = (room(overlay, canvas), overlay.rect(canvas, canvas.width));
    let height = full.height as f32;
    let lines = text.lines().count().max(1) as f32;
    let side = (height / lines * 0.36).clamp(4.0, canvas.height as f32 * 0.05).round();
    let tabular = overlay.kind == OverlayKind::Clock;
    let style = Style { centred: true, tabular, ..Style::line(height * 0.62, room) };
    let inner = [(room - 2.0 * side).max(8.0), (height - side * 0.5).max(8.0)];
    let Some(letters) = fitted(lettering, text, inner, style, overlay.color) else {
        // Nothing but the plate, if it has a width of its own.
        let plate = overlay.width.map(|_| Sprite::new(&background(full, overlay, canvas)));
        return Drawing::of(full, plate);
    };
    let rect = overlay.rect(canvas, letters.width as u32 + 2 * side as u32);
    let raster = on_background(rect, &letters, overlay, canvas);
    Drawing::of(rect, Some(Sprite::new(&raster)))
}

/// A text in the middle of its background.
fn on_background(rect: Rect, text: &Raster, overlay: &Overlay, canvas: Size) -> Raster {
    let mut raster = background(rect, overlay, canvas);
    let left = raster.width.saturating_sub(text.width) / 2;
    let top = middle(text, raster.height as f32);
    raster.stamp(text, left as i32, top as i32);
    raster
}

/// The end of a text, in letters of one size whatever their number is, on a plate at the lower edge of the place.
fn captions(lettering: &mut Lettering, overlay: &Overlay, text: &str, canvas: Size) -> Drawing {
    let full = overlay.rect(canvas, canvas.width);
    let pixels = (canvas.height.min(canvas.width) as f32 * 0.046).max(SMALLEST);
    let side = (pixels * 0.7).round();
    let line_height = (pixels * 1.3).ceil();
    let width = (full.width as f32 - 2.0 * side).max(8.0);
    let most = (((full.height as f32 - side * 0.4) / line_height).floor() as usize).max(1);
    let mut count = |text: &str| text.lines().map(|line| lettering.lines(line, pixels, width).max(1)).sum::<usize>();
    let mut shown = text;
    while let Some((_, later)) = shown.split_once('\n').filter(|_| count(shown) > most) {
        shown = later;
    }
    // Of a caption that is too long, the latest words are shown.
    let starts: Vec<usize> = shown.match_indices(' ').map(|(at, _)| at + 1).collect();
    let from = if count(shown) > most {
        let too_long = starts.partition_point(|start| count(&format!("… {}", &shown[*start..])) > most);
        starts.get(too_long).copied()
    } else {
        None
    };
    let shown = from.map_or_else(|| shown.to_owned(), |start| format!("… {}", &shown[start..]));
    let style = Style { centred: true, ..Style::line(pixels, width) };
    let height = (most as f32 * line_height).min(full.height as f32);
    let Some(letters) = fitted(lettering, &shown, [width, height], style, overlay.color) else {
        return Drawing::of(full, None);
    };
    let rect = hug(full, &letters, side);
    let raster = on_background(rect, &letters, overlay, canvas);
    Drawing::of(rect, Some(Sprite::new(&raster)))
}

/// The part of a place that a text covers, at its lower edge and in the middle.
fn hug(place: Rect, text: &Raster, side: f32) -> Rect {
    let even = |pixels: f32| (pixels / 2.0).round() as u32 * 2;
    let width = (text.width as u32 + even(side * 2.0)).min(place.width);
    let height = (text.height as u32 + even(side * 0.4)).min(place.height);
    Rect {
        x: place.x + (((place.width - width) / 2) & !1),
        y: place.y + ((place.height - height) & !1),
        width: width.max(2) & !1,
        height: height.max(2) & !1,
    }
}

/// A name, a second line in smaller letters, and a stripe to the left.
fn lower_third(lettering: &mut Lettering, overlay: &Overlay, text: &str, canvas: Size) -> Drawing {
    let (room, full) = (room(overlay, canvas), overlay.rect(canvas, canvas.width));
    let height = full.height as f32;
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    let rest = rest.replace('\n', " · ");
    let stripe = (height * 0.055).clamp(3.0, 12.0).round();
    let side = (height * 0.24).round();
    let width = (room - stripe - 2.0 * side).max(8.0);
    let (large, small) = if rest.is_empty() { (height * 0.46, 0.0) } else { (height * 0.36, height * 0.235) };
    let mut first = lettering.line(name.trim(), large.max(SMALLEST), width, rgb(overlay.color));
    let mut second = match rest.trim() {
        "" => None,
        rest => lettering.line(rest, small.max(SMALLEST), width, rgb(overlay.color)),
    };
    first.iter_mut().for_each(|first| first.fade(opacity(overlay.color)));
    second.iter_mut().for_each(|second| second.fade(opacity(overlay.color) * SECOND_LINE));
    let widest = [&first, &second].into_iter().flatten().map(|line| line.width).max().unwrap_or(0);
    let rect = overlay.rect(canvas, widest as u32 + (stripe + 2.0 * side) as u32);
    let mut raster = background(rect, overlay, canvas);
    let (whole, radius) = ([0.0, 0.0, rect.width as f32, height], radius(rect, canvas));
    raster.shape(ACCENT, 1.0, |x, y| rounded(x, y, whole, radius).max(x - stripe));
    let heights = [&first, &second].map(|line| line.as_ref().map_or(0.0, |line| line.height as f32));
    // The lines are set a little closer than their boxes.
    let overlap = if second.is_some() { large * 0.12 } else { 0.0 };
    let mut top = (height - heights[0] - heights[1] + overlap) / 2.0;
    for (line, height) in [first, second].into_iter().zip(heights) {
        if let Some(line) = line {
            raster.stamp(&line, (stripe + side) as i32, top.round() as i32);
        }
        top += height - overlap;
    }
    Drawing::of(rect, Some(Sprite::new(&raster)))
}

/// A bar, and a strip of text that is as long as the text.
fn ticker(lettering: &mut Lettering, overlay: &Overlay, text: &str, canvas: Size) -> Drawing {
    let rect = overlay.rect(canvas, canvas.width);
    let height = rect.height as f32;
    let mut raster = background(rect, overlay, canvas);
    let line = (height * 0.05).clamp(2.0, 6.0).round();
    if radius(rect, canvas) == 0.0 {
        raster.shape(ACCENT, 1.0, |_, y| y - line);
    }
    let text = text.lines().map(str::trim).collect::<Vec<_>>().join("   •   ");
    let mut letters = lettering.line(&text, (height * 0.5).max(SMALLEST), STRIP_MAX, rgb(overlay.color));
    letters.iter_mut().for_each(|letters| letters.fade(opacity(overlay.color)));
    let strip = letters.map(|letters| Sprite::new(&letters));
    Drawing { strip, ..Drawing::of(rect, Some(Sprite::new(&raster))) }
}
