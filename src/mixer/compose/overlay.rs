//! The overlays of one view: what each shows, where, and when that changes.
//!
//! Owns: sprites and places of overlays, the position of tickers, the seconds of clocks. Does not know: tiles,
//! canvases, who asked for an overlay. In: [`Overlay`]s of the room, images, and the time of a tick. Out: [`Laid`], by
//! which a canvas knows what it shows, and sprites with their places. Texts are drawn once per change; a clock is drawn
//! once a second, and a ticker is the same strip at another place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bitmap::Bitmap;
use super::lettering::Lettering;
use super::placard::{self, Drawing};
use super::sprite::Sprite;
use crate::media::{Rect, Size};
use crate::overlay::{ImageName, Overlay, OverlayKind};
use crate::time::Timestamp;

const SECOND: u64 = 1_000_000;
/// Canvas widths that the text of a ticker moves in a second.
const TICKER_SPEED: f64 = 0.1;

/// An overlay on a canvas: drawn, or to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Laid {
    /// Changes with everything that is drawn, except the position of a ticker.
    version: u64,
    /// How far the text of a ticker has moved, in pixels.
    moved: u32,
    pub(super) rect: Rect,
}

/// The overlays of a view.
pub(super) struct Overlays {
    canvas: Size,
    fps: u32,
    /// Unix time minus [`Timestamp`], in microseconds.
    wall: i64,
    versions: u64,
    images: BTreeMap<ImageName, Arc<Bitmap>>,
    items: Vec<Item>,
}

struct Item {
    overlay: Overlay,
    version: u64,
    /// The second that a clock shows, counted from 1970 in its time zone.
    second: Option<i64>,
    /// When a ticker began to move.
    begun: Option<Timestamp>,
    drawing: Drawing,
}

impl Overlays {
    /// No overlays on no canvas.
    pub(super) const fn new() -> Self {
        let canvas = Size::new(0, 0);
        Self { canvas, fps: 0, wall: 0, versions: 0, images: BTreeMap::new(), items: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The images that were set, also those that no overlay shows.
    pub(super) const fn images(&self) -> &BTreeMap<ImageName, Arc<Bitmap>> {
        &self.images
    }

    /// Whether an overlay shows the time of day.
    pub(super) fn has_clock(&self) -> bool {
        self.items.iter().any(|item| item.overlay.kind == OverlayKind::Clock)
    }

    /// The time of day: Unix time in microseconds at `now`.
    pub(super) fn set_wall(&mut self, now: Timestamp, unix_micros: u64) {
        self.wall = unix_micros as i64 - now.as_micros() as i64;
    }

    /// Sets the overlays; keeps the drawings that are unchanged.
    pub(super) fn set(&mut self, lettering: &mut Lettering, overlays: &[Overlay]) {
        let mut old = std::mem::take(&mut self.items);
        for overlay in overlays {
            let item = match old.iter().position(|item| item.overlay == *overlay) {
                Some(at) => old.swap_remove(at),
                None => self.item(lettering, overlay.clone()),
            };
            self.items.push(item);
        }
    }

    /// Sets or removes an image, and draws the overlays that show it.
    pub(super) fn set_image(&mut self, lettering: &mut Lettering, name: ImageName, image: Option<Arc<Bitmap>>) {
        match image {
            Some(image) => drop(self.images.insert(name.clone(), image)),
            None => drop(self.images.remove(&name)),
        }
        self.redraw_where(lettering, |overlay| overlay.image.as_ref() == Some(&name));
    }

    /// Draws all overlays again if the canvas has another size.
    pub(super) fn set_canvas(&mut self, lettering: &mut Lettering, canvas: Size, fps: u32) {
        self.fps = fps;
        if std::mem::replace(&mut self.canvas, canvas) != canvas {
            self.redraw(lettering);
        }
    }

    /// Draws all overlays again: the canvas has another size, or letters were missing.
    pub(super) fn redraw(&mut self, lettering: &mut Lettering) {
        self.redraw_where(lettering, |_| true);
    }

    fn redraw_where(&mut self, lettering: &mut Lettering, concerns: impl Fn(&Overlay) -> bool) {
        for item in std::mem::take(&mut self.items) {
            let item = match item {
                Item { begun, overlay, .. } if concerns(&overlay) => Item { begun, ..self.item(lettering, overlay) },
                item => item,
            };
            self.items.push(item);
        }
    }

    fn item(&mut self, lettering: &mut Lettering, overlay: Overlay) -> Item {
        self.versions += 1;
        let image = overlay.image.as_ref().and_then(|name| self.images.get(name));
        let drawing = match overlay.kind {
            OverlayKind::Image => placard::image(&overlay, image.map(AsRef::as_ref), self.canvas),
            _ => placard::text(lettering, &overlay, &overlay.text, self.canvas),
        };
        Item { overlay, version: self.versions, second: None, begun: None, drawing }
    }

    /// Brings clocks up to `now`, and says what is to be seen then.
    pub(super) fn advance(&mut self, lettering: &mut Lettering, now: Timestamp) -> Vec<Laid> {
        let Self { canvas, fps, wall, ref mut versions, ref mut items, .. } = *self;
        let advance = |item: &mut Item| {
            if item.overlay.kind == OverlayKind::Clock {
                let second = (now.as_micros() as i64 + wall).div_euclid(SECOND as i64)
                    + i64::from(item.overlay.utc_offset_minutes) * 60;
                if item.second.replace(second) != Some(second) {
                    *versions += 1;
                    item.version = *versions;
                    let text = clock_text(&item.overlay.text, second);
                    item.drawing = placard::text(lettering, &item.overlay, &text, canvas);
                }
            }
            let moved = match &item.drawing.strip {
                Some(strip) => {
                    let begun = *item.begun.get_or_insert(now);
                    // Ticks come a little early or late: the nearest frame counts.
                    let frames = (now.since(begun).as_micros() as u64 * u64::from(fps) + SECOND / 2) / SECOND;
                    let way = u64::from(item.drawing.rect.width + strip.width());
                    (frames * u64::from(ticker_step(canvas, fps)) % way) as u32
                }
                None => 0,
            };
            Laid { version: item.version, moved, rect: item.drawing.rect }
        };
        items.iter_mut().map(advance).collect()
    }

    /// When the next overlay changes by itself.
    pub(super) fn changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let change = |item: &Item| {
            if item.drawing.strip.is_some() {
                return Some(now + Duration::from_micros(SECOND / u64::from(self.fps.max(1))));
            }
            let into = (now.as_micros() as i64 + self.wall).rem_euclid(SECOND as i64) as u64;
            (item.overlay.kind == OverlayKind::Clock).then(|| now + Duration::from_micros(SECOND - into))
        };
        self.items.iter().filter_map(change).min()
    }

    /// The sprites of the overlay at this index of the list of [`advance`](Self::advance), from the lowest to the
    /// highest: each with the left edge, which may be outside the canvas, the upper edge, and the part of the canvas
    /// that it may cover.
    pub(super) fn sprites(&self, at: usize, laid: &Laid) -> impl Iterator<Item = (&Sprite, i32, u32, Rect)> {
        let Drawing { rect, plate, strip, window } = &self.items[at].drawing;
        let plate = plate.as_ref().map(|plate| (plate, rect.x as i32, rect.y, *rect));
        let strip = strip.as_ref().map(|strip| {
            let left = (rect.x + rect.width) as i32 - laid.moved as i32;
            (strip, left, rect.y + ((rect.height.saturating_sub(strip.height()) / 2) & !1), *window)
        });
        plate.into_iter().chain(strip)
    }
}

/// Pixels that the text of a ticker moves from frame to frame: always the same, so that it moves evenly; even, because
/// chroma has half the resolution.
fn ticker_step(canvas: Size, fps: u32) -> u32 {
    let step = f64::from(canvas.width) * TICKER_SPEED / f64::from(fps.max(1));
    ((step / 2.0).round() as u32).max(1) * 2
}

/// The time of day after the text of the overlay. `second` counts from 1970 in the time zone of the clock.
fn clock_text(label: &str, second: i64) -> String {
    let of_day = second.rem_euclid(86_400);
    let time = format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    if label.is_empty() { time } else { format!("{label}  {time}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::OverlayRequest;

    const CANVAS: Size = Size::new(320, 180);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(60_000_000 + ms * 1_000)
    }

    fn overlays(lettering: &mut Lettering, json: &str) -> Overlays {
        let request: OverlayRequest = serde_json::from_str(json).expect("a request");
        let text = request.text.clone().unwrap_or_default();
        let mut overlays = Overlays::new();
        overlays.set_canvas(lettering, CANVAS, 30);
        overlays.set(lettering, &[request.overlay(crate::id::OverlayId(1), text)]);
        overlays
    }

    #[test]
    fn a_text_never_changes_by_itself() {
        let mut lettering = Lettering::new();
        let mut overlays = overlays(&mut lettering, r#"{"kind":"text","text":"Welcome"}"#);
        let laid = overlays.advance(&mut lettering, at(0));
        assert_eq!(laid, overlays.advance(&mut lettering, at(9_000)));
        assert_eq!(overlays.changes_at(at(0)), None);
    }

    #[test]
    fn a_clock_changes_at_each_second_of_its_time_zone() {
        assert_eq!(clock_text("", 86_400 + 3 * 3600 + 62), "03:01:02");
        assert_eq!(clock_text("UTC", -1), "UTC  23:59:59");
        let mut lettering = Lettering::new();
        let mut overlays = overlays(&mut lettering, r#"{"kind":"clock"}"#);
        // The second begins 300 ms after the timestamp's.
        overlays.set_wall(at(0), 1_700_000_000_700_000);
        assert_eq!(overlays.changes_at(at(0)), Some(at(300)));
        assert_eq!(overlays.changes_at(at(300)), Some(at(1_300)));
        let laid = overlays.advance(&mut lettering, at(0));
        assert_eq!(laid, overlays.advance(&mut lettering, at(299)));
        let next = overlays.advance(&mut lettering, at(300));
        assert_ne!(laid, next);
        assert_eq!(laid[0].rect, next[0].rect, "digits have one width");
        assert_eq!(next, overlays.advance(&mut lettering, at(1_299)));
    }

    #[test]
    fn a_ticker_moves_by_the_same_even_step_in_every_frame_although_ticks_jitter() {
        let mut lettering = Lettering::new();
        let mut overlays = overlays(&mut lettering, r#"{"kind":"ticker","text":"News"}"#);
        let step = ticker_step(CANVAS, 30);
        assert_eq!(step % 2, 0);
        let way = CANVAS.width + overlays.items[0].drawing.strip.as_ref().expect("a strip").width();
        for frame in 0..400u64 {
            let jitter = [0, 9, 3, 12][frame as usize % 4];
            let laid = overlays.advance(&mut lettering, at(frame * 1_000 / 30 + jitter));
            assert_eq!(u64::from(laid[0].moved), frame * u64::from(step) % u64::from(way), "frame {frame}");
            assert!(overlays.changes_at(at(0)).is_some_and(|next| next <= at(34)));
        }
    }
}
