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
    /// Blends the part of a sprite that is within the rectangle; its left edge may be outside the canvas.
    BlendPart(&'a Sprite, i32, u32, Rect),
    /// Draws only the part within the rectangle.
    Within(Rect, Box<Self>),
    /// Keeps what is drawn in a rectangle, for the [`Reveal`](Self::Reveal) that belongs to it; they nest. Both are
    /// within the same rectangles, if any.
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
            Self::Fill(rect, _)
            | Self::BlendPart(.., rect)
            | Self::Within(rect, _)
            | Self::Keep(rect)
            | Self::Reveal(rect, _) => rect.size(),
            Self::Copy(picture, ..) | Self::Grey(picture, ..) => picture.size(),
            Self::Blend(sprite, ..) => Size::new(sprite.width(), sprite.height()),
        };
        u64::from(size.width) * u64::from(size.height)
    }
}

/// Where operations may draw: a rectangle of one plane.
#[derive(Debug, Clone, Copy)]
struct Clip {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Clip {
    const NONE: Self = Self { left: 0, top: 0, right: usize::MAX, bottom: usize::MAX };

    /// The part that is also within `rect` of the canvas; `half` is 1 for chroma.
    fn within(self, rect: Rect, half: usize) -> Self {
        let at = |pixels: u32| pixels as usize >> half;
        Self {
            left: self.left.max(at(rect.x)),
            top: self.top.max(at(rect.y)),
            right: self.right.min(at(rect.x + rect.width)),
            bottom: self.bottom.min(at(rect.y + rect.height)),
        }
    }

    /// The columns of an object of this width at `x`: the first one in the plane and in the object, and their number.
    fn columns(self, x: isize, width: usize) -> (usize, usize, usize) {
        let from = x.max(self.left as isize);
        let to = (x + width as isize).min(isize::try_from(self.right).unwrap_or(isize::MAX));
        if to <= from {
            return (0, 0, 0);
        }
        (from as usize, (from - x) as usize, (to - from) as usize)
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
                self.draw_plane(op, i, Clip::NONE);
            }
        }
    }

    fn draw_plane(&mut self, op: &Op<'_>, i: usize, clip: Clip) {
        let half = usize::from(i > 0);
        let stride = self.strides[i];
        let (band_top, band_end) = (self.top >> half, (self.top + self.rows) >> half);
        let plane = &mut *self.planes[i];
        // Rows of an object of `height` rows at `y` within this band: (row of the object, offset in the band).
        let rows = |clip: Clip, y: usize, height: usize| {
            let (from, to) = (y.max(band_top).max(clip.top), (y + height).min(band_end).min(clip.bottom));
            (from..to.max(from)).map(move |row| (row - y, (row - band_top) * stride))
        };
        match op {
            Op::Fill(rect, color) => {
                let (x, _, width) = clip.columns(rect.x as isize >> half, rect.width as usize >> half);
                for (_, at) in rows(clip, rect.y as usize >> half, rect.height as usize >> half) {
                    plane[at + x..][..width].fill(color[i]);
                }
            }
            Op::Copy(picture, x, y) => {
                let size = picture.size();
                let (x, skipped, width) = clip.columns(*x as isize >> half, size.width as usize >> half);
                let (from, from_stride) = picture.plane(i);
                for (row, at) in rows(clip, *y as usize >> half, size.height as usize >> half) {
                    plane[at + x..][..width].copy_from_slice(&from[row * from_stride + skipped..][..width]);
                }
            }
            Op::Grey(picture, x, y) => {
                let size = picture.size();
                let (x, skipped, width) = clip.columns(*x as isize >> half, size.width as usize >> half);
                let (from, from_stride) = picture.plane(i);
                for (row, at) in rows(clip, *y as usize >> half, size.height as usize >> half) {
                    let (to, from) = (&mut plane[at + x..][..width], &from[row * from_stride + skipped..][..width]);
                    match i {
                        0 => to.iter_mut().zip(from).for_each(|(to, luma)| *to = greyed(*luma)),
                        _ => to.fill(128),
                    }
                }
            }
            Op::Blend(sprite, x, y) => {
                let layer = &sprite.layers[i];
                let (x, skipped, width) = clip.columns(*x as isize >> half, layer.width);
                for (row, at) in rows(clip, *y as usize >> half, layer.height) {
                    layer.blend_row(row, skipped, &mut plane[at + x..][..width]);
                }
            }
            Op::BlendPart(sprite, x, y, part) => {
                let clip = clip.within(*part, half);
                let layer = &sprite.layers[i];
                let (x, skipped, width) = clip.columns(*x as isize >> half, layer.width);
                for (row, at) in rows(clip, *y as usize >> half, layer.height) {
                    layer.blend_row(row, skipped, &mut plane[at + x..][..width]);
                }
            }
            Op::Keep(rect) => {
                let (x, _, width) = clip.columns(rect.x as isize >> half, rect.width as usize >> half);
                let rows = rows(clip, rect.y as usize >> half, rect.height as usize >> half);
                self.kept[i].push(rows.flat_map(|(_, at)| &plane[at + x..][..width]).copied().collect());
            }
            Op::Reveal(rect, cover) => {
                let kept = self.kept[i].pop().expect("kept before it is revealed");
                let (x, skipped, width) = clip.columns(rect.x as isize >> half, rect.width as usize >> half);
                let rows = rows(clip, rect.y as usize >> half, rect.height as usize >> half);
                // Nothing was kept if it has no columns within the clip.
                for ((row, at), kept) in rows.zip(kept.chunks(width.max(1))) {
                    let to = &mut plane[at + x..][..width];
                    match cover {
                        Cover::Sprite(sprite) => {
                            let layer = &sprite.layers[i];
                            let from = row * layer.width + skipped;
                            blend(to, kept, layer.cover[from..][..width].iter().copied());
                        }
                        Cover::Even(cover) => blend(to, kept, std::iter::repeat_n(*cover, width)),
                    }
                }
            }
            Op::Within(rect, op) => self.draw_plane(op, i, clip.within(*rect, half)),
        }
    }
}

impl Layer {
    /// Blends a part of a row, from the column `from` on.
    fn blend_row(&self, row: usize, from: usize, to: &mut [u8]) {
        let at = row * self.width + from;
        blend(to, &self.values[at..][..to.len()], self.cover[at..][..to.len()].iter().copied());
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

    /// A canvas of 32x16 pixels after these operations, drawn in one band and in bands of six rows.
    fn drawn(ops: &[Op<'_>]) -> [Vec<u8>; 3] {
        let [whole, parts] = [16, 6].map(|each: usize| {
            let mut planes = [vec![9; 32 * 16], vec![9; 16 * 8], vec![9; 16 * 8]];
            for top in (0..16).step_by(each) {
                let rows = each.min(16 - top);
                let [y, u, v] = &mut planes;
                let planes = [
                    &mut y[top * 32..][..rows * 32],
                    &mut u[top / 2 * 16..][..rows / 2 * 16],
                    &mut v[top / 2 * 16..][..rows / 2 * 16],
                ];
                let mut band = Band { planes, strides: [32, 16, 16], top, rows, kept: Default::default() };
                band.draw(ops);
                assert!(band.kept.iter().all(Vec::is_empty), "everything that was kept is revealed");
            }
            planes
        });
        assert_eq!(whole, parts);
        whole
    }

    #[test]
    fn a_clipped_operation_draws_the_same_pixels_within_and_none_outside() {
        let mut raster = Raster::new(12, 8);
        raster.shape([250, 40, 90], 0.5, |x, y| (x - 6.0).hypot(y - 4.0) - 5.0);
        let sprite = Sprite::new(&raster);
        let picture = Picture::filled(Size::new(12, 8), 200, 60, 70);
        let place = Rect { x: 8, y: 4, width: 12, height: 8 };
        for clip in [
            Rect { x: 0, y: 0, width: 32, height: 16 },
            Rect { x: 10, y: 6, width: 4, height: 4 },
            Rect { x: 0, y: 0, width: 12, height: 8 },
            Rect { x: 14, y: 8, width: 18, height: 8 },
            Rect { x: 24, y: 0, width: 8, height: 16 },
        ] {
            let upper = Rect { height: 4, ..place };
            let fill = || Op::Fill(place, [100, 110, 120]);
            let ops = |n: u32| match n {
                0 => vec![fill()],
                1 => vec![Op::Copy(&picture, place.x, place.y)],
                2 => vec![Op::Grey(&picture, place.x, place.y)],
                3 => vec![Op::Blend(&sprite, place.x, place.y)],
                4 => vec![Op::BlendPart(&sprite, place.x as i32, place.y, place)],
                5 => vec![Op::Keep(place), fill(), Op::Reveal(place, Cover::Sprite(&sprite))],
                _ => vec![
                    Op::Keep(place),
                    Op::Copy(&picture, place.x, place.y),
                    Op::Keep(upper),
                    fill(),
                    Op::Reveal(upper, Cover::Even(90)),
                    Op::Reveal(place, Cover::Sprite(&sprite)),
                ],
            };
            let within = |n: u32| ops(n).into_iter().map(|op| Op::Within(clip, Box::new(op))).collect::<Vec<_>>();
            let part = Op::BlendPart(&sprite, place.x as i32, place.y, clip);
            assert_eq!(drawn(&[part]), drawn(&within(3)), "{clip:?}");
            for n in 0..7 {
                let (whole, part) = (drawn(&ops(n)), drawn(&within(n)));
                for (i, (whole, part)) in whole.iter().zip(&part).enumerate() {
                    let (half, width) = (usize::from(i > 0), if i > 0 { 16 } else { 32 });
                    let inside = |at: usize| {
                        let (x, y) = ((at % width) << half, (at / width) << half);
                        let within =
                            |at: usize, from: u32, length: u32| at >= from as usize && at < (from + length) as usize;
                        within(x, clip.x, clip.width) && within(y, clip.y, clip.height)
                    };
                    for (at, (whole, part)) in whole.iter().zip(part).enumerate() {
                        assert_eq!(*part, if inside(at) { *whole } else { 9 }, "{n} {clip:?} plane {i} at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_sprite_may_begin_left_of_the_canvas_and_end_right_of_it() {
        let mut raster = Raster::new(64, 4);
        raster.shape([255; 3], 1.0, |x, _| 20.0 - x);
        let sprite = Sprite::new(&raster);
        let window = Rect { x: 4, y: 0, width: 24, height: 16 };
        let [luma, ..] = drawn(&[Op::BlendPart(&sprite, -10, 2, window)]);
        let row = &luma[2 * 32..3 * 32];
        assert_eq!((row[3], row[4], row[9], row[12], row[27], row[28]), (9, 9, 9, 235, 235, 9));
        assert_eq!(drawn(&[Op::BlendPart(&sprite, -64, 2, window)]), drawn(&[]));
        assert_eq!(drawn(&[Op::BlendPart(&sprite, 40, 2, window)]), drawn(&[]));
    }

    #[test]
    fn colours_are_bt601_limited() {
        assert_eq!(yuv([0, 0, 0]), [16, 128, 128]);
        assert_eq!(yuv([255, 255, 255]), [235, 128, 128]);
        assert_eq!(yuv([255, 0, 0]), [82, 90, 240]);
    }
}
