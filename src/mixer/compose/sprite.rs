//! Sprites: small pictures with transparency in the format of the canvas, and the operations that draw on a canvas.
//!
//! Owns: the operations on canvas pixels (fill, copy, grey, blend, keep and reveal), each on a band of rows, so that
//! threads can draw bands in parallel. Does not know: the contents. In: operations. Out: pixels.

use super::raster::{Raster, Rgb};
use crate::codec::Picture;
use crate::media::{Rect, Size};

/// A colour as Y, U, V (BT.601, limited range, as browsers send cameras).
pub(super) fn yuv([r, g, b]: Rgb) -> [u8; 3] {
    let (r, g, b) = (f32::from(r), f32::from(g), f32::from(b));
    let y = 16.0 + 0.257 * r + 0.504 * g + 0.098 * b;
    let u = 128.0 - 0.148 * r - 0.291 * g + 0.439 * b;
    let v = 128.0 + 0.439 * r - 0.368 * g - 0.071 * b;
    [y, u, v].map(|value| value.round() as u8)
}

/// One plane of a sprite: values and their opacity, 0 to 255.
#[derive(Debug)]
struct Layer {
    width: usize,
    height: usize,
    values: Vec<u8>,
    cover: Vec<u8>,
}

/// A small I420 picture with transparency and even sides.
#[derive(Debug)]
pub(super) struct Sprite {
    layers: [Layer; 3],
}

impl Sprite {
    pub(super) fn new(raster: &Raster) -> Self {
        let (width, height) = (raster.width, raster.height);
        let layer = |i: usize, by: usize| {
            let (width, height) = (width / by, height / by);
            let (mut values, mut cover) = (Vec::with_capacity(width * height), Vec::with_capacity(width * height));
            for y in 0..height {
                for x in 0..width {
                    let mut sum = [0.0; 4];
                    for (dx, dy) in (0..by * by).map(|at| (at % by, at / by)) {
                        let pixel = raster.pixels[(y * by + dy) * raster.width + x * by + dx];
                        sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
                    }
                    let alpha = sum[3];
                    let straight = |value: f32| if alpha > 0.0 { (value / alpha * 255.0).round() as u8 } else { 0 };
                    values.push(yuv([straight(sum[0]), straight(sum[1]), straight(sum[2])])[i]);
                    cover.push((alpha / (by * by) as f32 * 255.0).round() as u8);
                }
            }
            Layer { width, height, values, cover }
        };
        Self { layers: [layer(0, 1), layer(1, 2), layer(2, 2)] }
    }

    pub(super) fn width(&self) -> u32 {
        self.layers[0].width as u32
    }

    pub(super) fn height(&self) -> u32 {
        self.layers[0].height as u32
    }
}

/// One drawing operation; all coordinates are even.
pub(super) enum Op<'a> {
    /// Fills a rectangle with a colour.
    Fill(Rect, [u8; 3]),
    /// Copies a picture to a place.
    Copy(&'a Picture, u32, u32),
    /// The same without colours and with less contrast.
    Grey(&'a Picture, u32, u32),
    /// Blends a sprite over the canvas.
    Blend(&'a Sprite, u32, u32),
    /// Keeps what is drawn in a rectangle, for the [`Reveal`](Self::Reveal) that belongs to it; they nest.
    Keep(Rect),
    /// Blends what was kept over a rectangle.
    Reveal(Rect, Cover<'a>),
}

/// How much of the kept pixels covers the canvas.
#[derive(Clone, Copy)]
pub(super) enum Cover<'a> {
    /// The opacity of a sprite of the size of the rectangle.
    Sprite(&'a Sprite),
    /// The same everywhere, 0 to 255.
    Even(u8),
}

impl Op<'_> {
    /// Number of pixels that it draws.
    pub(super) fn pixels(&self) -> u64 {
        let size = match self {
            Self::Fill(rect, _) | Self::Keep(rect) | Self::Reveal(rect, _) => rect.size(),
            Self::Copy(picture, ..) | Self::Grey(picture, ..) => picture.size(),
            Self::Blend(sprite, ..) => Size::new(sprite.width(), sprite.height()),
        };
        u64::from(size.width) * u64::from(size.height)
    }
}

/// A band: rows of a canvas from an even row on, in full width.
pub(super) struct Band<'a> {
    pub(super) planes: [&'a mut [u8]; 3],
    pub(super) strides: [usize; 3],
    /// Its first row on the canvas.
    pub(super) top: usize,
    pub(super) rows: usize,
    /// What was kept in each plane and not revealed yet.
    pub(super) kept: [Vec<Vec<u8>>; 3],
}

impl Band<'_> {
    /// Draws the parts of the operations within this band, in order.
    pub(super) fn draw(&mut self, ops: &[Op<'_>]) {
        for op in ops {
            for i in 0..3 {
                self.draw_plane(op, i);
            }
        }
    }

    fn draw_plane(&mut self, op: &Op<'_>, i: usize) {
        let half = usize::from(i > 0);
        let stride = self.strides[i];
        let (band_top, band_end) = (self.top >> half, (self.top + self.rows) >> half);
        let plane = &mut *self.planes[i];
        // Rows of an object of `height` rows at `y` within this band: (row of the object, offset in the band).
        let rows = |y: usize, height: usize| {
            let (from, to) = (y.max(band_top), (y + height).min(band_end));
            (from..to.max(from)).map(move |row| (row - y, (row - band_top) * stride))
        };
        match op {
            Op::Fill(rect, color) => {
                let (x, width) = (rect.x as usize >> half, rect.width as usize >> half);
                for (_, at) in rows(rect.y as usize >> half, rect.height as usize >> half) {
                    plane[at + x..][..width].fill(color[i]);
                }
            }
            Op::Copy(picture, x, y) => {
                let size = picture.size();
                let (x, width) = (*x as usize >> half, size.width as usize >> half);
                let (from, from_stride) = picture.plane(i);
                for (row, at) in rows(*y as usize >> half, size.height as usize >> half) {
                    plane[at + x..][..width].copy_from_slice(&from[row * from_stride..][..width]);
                }
            }
            Op::Grey(picture, x, y) => {
                let size = picture.size();
                let (x, width) = (*x as usize >> half, size.width as usize >> half);
                let (from, from_stride) = picture.plane(i);
                for (row, at) in rows(*y as usize >> half, size.height as usize >> half) {
                    let (to, from) = (&mut plane[at + x..][..width], &from[row * from_stride..][..width]);
                    match i {
                        0 => to.iter_mut().zip(from).for_each(|(to, luma)| *to = greyed(*luma)),
                        _ => to.fill(128),
                    }
                }
            }
            Op::Blend(sprite, x, y) => {
                let layer = &sprite.layers[i];
                let x = *x as usize >> half;
                for (row, at) in rows(*y as usize >> half, layer.height) {
                    let from = row * layer.width..(row + 1) * layer.width;
                    let to = &mut plane[at + x..][..layer.width];
                    blend(to, &layer.values[from.clone()], layer.cover[from].iter().copied());
                }
            }
            Op::Keep(rect) => {
                let (x, width) = (rect.x as usize >> half, rect.width as usize >> half);
                let rows = rows(rect.y as usize >> half, rect.height as usize >> half);
                self.kept[i].push(rows.flat_map(|(_, at)| &plane[at + x..][..width]).copied().collect());
            }
            Op::Reveal(rect, cover) => {
                let kept = self.kept[i].pop().expect("kept before it is revealed");
                let (x, width) = (rect.x as usize >> half, rect.width as usize >> half);
                let rows = rows(rect.y as usize >> half, rect.height as usize >> half);
                for ((row, at), kept) in rows.zip(kept.chunks(width)) {
                    let to = &mut plane[at + x..][..width];
                    match cover {
                        Cover::Sprite(sprite) => {
                            let layer = &sprite.layers[i];
                            blend(to, kept, layer.cover[row * layer.width..][..width].iter().copied());
                        }
                        Cover::Even(cover) => blend(to, kept, std::iter::repeat_n(*cover, width)),
                    }
                }
            }
        }
    }
}

/// Luma with less contrast, around a dark grey.
fn greyed(luma: u8) -> u8 {
    ((u16::from(luma) * 5 + 60 * 3) / 8) as u8
}

fn blend(to: &mut [u8], values: &[u8], cover: impl Iterator<Item = u8>) {
    for ((to, value), cover) in to.iter_mut().zip(values).zip(cover) {
        let (cover, rest) = (u16::from(cover), 255 - u16::from(cover));
        let sum = u16::from(*value) * cover + u16::from(*to) * rest + 128;
        // Division by 255, rounded, without dividing.
        *to = ((sum + (sum >> 8)) >> 8) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_is_exact_at_both_ends() {
        for old in 0..=255u8 {
            for new in 0..=255u8 {
                let mut to = [old, old];
                blend(&mut to, &[new, new], [0, 255].into_iter());
                assert_eq!(to, [old, new]);
            }
        }
    }

    #[test]
    fn colours_are_bt601_limited() {
        assert_eq!(yuv([0, 0, 0]), [16, 128, 128]);
        assert_eq!(yuv([255, 255, 255]), [235, 128, 128]);
        assert_eq!(yuv([255, 0, 0]), [82, 90, 240]);
    }
}
