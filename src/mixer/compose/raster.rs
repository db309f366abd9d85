//! Antialiased drawing of small shapes in RGB: plates, discs, signs, letters.
//!
//! Owns: a small RGBA picture. Does not know: canvases. In: shapes. Out: a [`Sprite`](super::sprite::Sprite) is made of
//! it.

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// A small picture with premultiplied alpha, from 0 to 1.
#[derive(Debug, Clone)]
pub(super) struct Raster {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<[f32; 4]>,
}

impl Raster {
    /// A transparent picture; its sides are rounded up to even numbers, because chroma has half the size.
    pub(super) fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        Self { width, height, pixels: vec![[0.0; 4]; width * height] }
    }

    /// Blends a colour over one pixel; does nothing outside the picture.
    pub(super) fn over(&mut self, x: i32, y: i32, color: Rgb, alpha: f32) {
        let inside = |at: i32, side: usize| usize::try_from(at).ok().filter(|at| *at < side);
        let (Some(x), Some(y)) = (inside(x, self.width), inside(y, self.height)) else { return };
        let pixel = &mut self.pixels[y * self.width + x];
        for (to, from) in pixel.iter_mut().zip(color) {
            *to = *to * (1.0 - alpha) + f32::from(from) / 255.0 * alpha;
        }
        pixel[3] = pixel[3] * (1.0 - alpha) + alpha;
    }

    /// Fills a shape given by its signed distance in pixels (negative inside), with antialiased edges.
    pub(super) fn shape(&mut self, color: Rgb, alpha: f32, distance: impl Fn(f32, f32) -> f32) {
        for y in 0..self.height {
            for x in 0..self.width {
                let cover = (0.5 - distance(x as f32 + 0.5, y as f32 + 0.5)).clamp(0.0, 1.0);
                if cover > 0.0 {
                    self.over(x as i32, y as i32, color, cover * alpha);
                }
            }
        }
    }

    /// Makes everything outside a shape transparent; see [`shape`](Self::shape).
    pub(super) fn mask(&mut self, distance: impl Fn(f32, f32) -> f32) {
        let width = self.width;
        for (at, pixel) in self.pixels.iter_mut().enumerate() {
            let cover = (0.5 - distance((at % width) as f32 + 0.5, (at / width) as f32 + 0.5)).clamp(0.0, 1.0);
            pixel.iter_mut().for_each(|value| *value *= cover);
        }
    }

    /// Makes everything more transparent: 1 keeps it, 0 removes it.
    pub(super) fn fade(&mut self, opacity: f32) {
        self.pixels.iter_mut().flatten().for_each(|value| *value *= opacity);
    }

    /// The first row with visible pixels, and the row after the last.
    pub(super) fn ink(&self) -> (usize, usize) {
        let inked = |row: &[[f32; 4]]| row.iter().any(|pixel| pixel[3] > 0.1);
        let mut rows = self.pixels.chunks(self.width).map(inked);
        let first = rows.position(|inked| inked).unwrap_or(0);
        let after = self.pixels.chunks(self.width).rposition(inked).map_or(self.height, |last| last + 1);
        (first, after)
    }

    /// Blends another picture over this one.
    pub(super) fn stamp(&mut self, other: &Self, left: i32, top: i32) {
        for y in 0..other.height {
            for x in 0..other.width {
                let [r, g, b, alpha] = other.pixels[y * other.width + x];
                if alpha > 0.0 {
                    let straight = |value: f32| (value / alpha * 255.0).round() as u8;
                    self.over(left + x as i32, top + y as i32, [straight(r), straight(g), straight(b)], alpha);
                }
            }
        }
    }
}

/// Distance to a rectangle with round corners.
pub(super) fn rounded(x: f32, y: f32, [left, top, width, height]: [f32; 4], radius: f32) -> f32 {
    let (half_width, half_height) = (width / 2.0, height / 2.0);
    let dx = (x - left - half_width).abs() - half_width + radius;
    let dy = (y - top - half_height).abs() - half_height + radius;
    dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius
}

/// Distance to a disc.
pub(super) fn disc(x: f32, y: f32, center: (f32, f32), radius: f32) -> f32 {
    (x - center.0).hypot(y - center.1) - radius
}

/// Distance to a line with round ends.
pub(super) fn stroke(x: f32, y: f32, from: (f32, f32), to: (f32, f32), width: f32) -> f32 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let along = (((x - from.0) * dx + (y - from.1) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - from.0 - along * dx).hypot(y - from.1 - along * dy) - width / 2.0
}
