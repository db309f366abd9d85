//! A clock in a picture: 16 bits of time and a checksum of 16 bits, as 4 by 8 black and white blocks.
//!
//! Owns: drawing and reading. Does not know: codecs, clocks, rooms. The blocks survive scaling, coding, a name drawn
//! over the lower edge, and the crop of two tiles side by side. Damaged blocks give no time, instead of a wrong one.

use std::time::Duration;

use crate::codec::{Picture, PictureMut};
use crate::layout::{Fit, ObjectFit, fit};
use crate::media::{Rect, Size, SourceKind};
use crate::time::Timestamp;

const COLUMNS: u32 = 4;
const ROWS: u32 = 8;
/// Area of the blocks, in hundredths of the picture: left, top, right, bottom. Names are drawn below; the sides are
/// cropped where two tiles fill the canvas.
const AREA: [u32; 4] = [28, 6, 72, 78];
/// Part of a block that is read, in hundredths of its width and height: the edges are blurred.
const CORE: [u32; 2] = [30, 70];
/// Luma of the blocks, limited range.
const BLACK: u8 = 24;
/// See [`BLACK`].
const WHITE: u8 = 228;
/// Minimum difference in luma between the darkest and the brightest block.
const CONTRAST: u32 = 60;
/// Initial value and final XOR of the CRC. With 0, a picture without white blocks would be a valid time.
const SALT: u16 = 0x5a3c;

/// A time in a picture: milliseconds modulo 2^16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u16);

impl Stamp {
    pub(super) fn of(time: Timestamp) -> Self {
        Self((time.as_micros() / 1000) as u16)
    }

    /// The time since it was drawn, modulo 65.5 s.
    pub(super) fn age(self, now: Timestamp) -> Duration {
        Duration::from_millis(Self::of(now).0.wrapping_sub(self.0).into())
    }

    /// The time in the upper 16 bits, its checksum in the lower.
    fn bits(self) -> u32 {
        u32::from(self.0) << 16 | u32::from(check(self.0))
    }
}

/// CRC-16 with the CCITT polynomial, of two bytes.
fn check(value: u16) -> u16 {
    let mut crc = value ^ SALT;
    for _ in 0..16 {
        crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    }
    crc ^ SALT
}

/// `part` hundredths of `length`.
const fn hundredths(length: u32, part: u32) -> u32 {
    length * part / 100
}

/// The block of a bit in a picture of this size, from and to these hundredths of its width and height: 0 to 100 is the
/// whole block, [`CORE`] the part that is read.
fn block(size: Size, bit: u32, [from, to]: [u32; 2]) -> Rect {
    let [left, top, right, bottom] =
        [(size.width, AREA[0]), (size.height, AREA[1]), (size.width, AREA[2]), (size.height, AREA[3])]
            .map(|(length, part)| hundredths(length, part));
    let (column, row) = (bit % COLUMNS, bit / COLUMNS);
    // The position of this part of the block number `at`, of `of` blocks between `start` and `end`.
    let edge =
        |start: u32, end: u32, of: u32, at: u32, part: u32| start + (end - start) * (at * 100 + part) / (of * 100);
    let (x, y) = (edge(left, right, COLUMNS, column, from), edge(top, bottom, ROWS, row, from));
    let (to_x, to_y) = (edge(left, right, COLUMNS, column, to), edge(top, bottom, ROWS, row, to));
    Rect { x, y, width: to_x - x, height: to_y - y }
}

/// Draws a time.
pub(super) fn draw(on: &mut PictureMut, stamp: Stamp) {
    let size = on.size();
    let (planes, strides) = on.planes();
    let [y, u, v] = planes;
    y.fill(BLACK);
    u.fill(128);
    v.fill(128);
    for bit in (0..COLUMNS * ROWS).filter(|bit| stamp.bits() >> bit & 1 == 1) {
        let block = block(size, bit, [0, 100]);
        for row in block.y..block.y + block.height {
            y[row as usize * strides[0] + block.x as usize..][..block.width as usize].fill(WHITE);
        }
    }
}

/// Where a camera is shown in the received picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Size of the camera's picture.
    pub(super) source: Size,
    /// The tile in pixels of `canvas`; the received picture may have another size.
    pub(super) tile: Rect,
    /// How the picture fills the tile.
    pub(super) fit: ObjectFit,
    /// Size of the view's canvas.
    pub(super) canvas: Size,
}

/// Reads the time at a place of a received picture; None if no valid time is there.
pub(super) fn read(picture: &Picture, place: Place) -> Option<Stamp> {
    let Fit { crop, dest } = fit(place.source, place.tile.size(), SourceKind::Camera, place.fit);
    if crop.width == 0 || crop.height == 0 || place.canvas.width == 0 || place.canvas.height == 0 {
        return None;
    }
    let size = picture.size();
    // Maps camera pixels to the tile, to the canvas, and to pixels of the received picture.
    let x = |x: u32| {
        let on_canvas = f64::from(place.tile.x + dest.x)
            + (f64::from(x) - f64::from(crop.x)) * f64::from(dest.width) / f64::from(crop.width);
        on_canvas * f64::from(size.width) / f64::from(place.canvas.width)
    };
    let y = |y: u32| {
        let on_canvas = f64::from(place.tile.y + dest.y)
            + (f64::from(y) - f64::from(crop.y)) * f64::from(dest.height) / f64::from(crop.height);
        on_canvas * f64::from(size.height) / f64::from(place.canvas.height)
    };
    let mut brightness = [0; (COLUMNS * ROWS) as usize];
    for (bit, brightness) in brightness.iter_mut().enumerate() {
        let core = block(place.source, bit as u32, CORE);
        let (left, right) = (x(core.x), x(core.x + core.width));
        let (top, bottom) = (y(core.y), y(core.y + core.height));
        *brightness = mean(picture, [left, top, right, bottom])?;
    }
    let (darkest, brightest) = (*brightness.iter().min()?, *brightness.iter().max()?);
    if brightest - darkest < CONTRAST {
        return None;
    }
    let threshold = (darkest + brightest) / 2;
    let bits = brightness
        .iter()
        .enumerate()
        .fold(0u32, |bits, (bit, brightness)| bits | u32::from(*brightness > threshold) << bit);
    let stamp = Stamp((bits >> 16) as u16);
    (stamp.bits() == bits).then_some(stamp)
}

/// Mean luma of a rectangle of the picture, which has at least one pixel; None if it is not inside the picture.
fn mean(picture: &Picture, [left, top, right, bottom]: [f64; 4]) -> Option<u32> {
    let size = picture.size();
    if left < 0.0 || top < 0.0 {
        return None;
    }
    let (x, y) = (left as u32, top as u32);
    let (to_x, to_y) = ((right as u32).max(x + 1), (bottom as u32).max(y + 1));
    if to_x > size.width || to_y > size.height {
        return None;
    }
    let (pixels, stride) = picture.plane(0);
    let rows = (y..to_y).map(|row| &pixels[row as usize * stride + x as usize..][..(to_x - x) as usize]);
    let sum: u32 = rows.flatten().map(|pixel| u32::from(*pixel)).sum();
    Some(sum / ((to_x - x) * (to_y - y)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::scale::{Halves, shrink};

    const CANVAS: Size = Size::new(1280, 720);

    fn drawn(size: Size, stamp: Stamp) -> Picture {
        let mut picture = PictureMut::new(size);
        draw(&mut picture, stamp);
        picture.freeze()
    }

    fn whole(source: Size) -> Place {
        let tile = Rect { x: 0, y: 0, width: source.width, height: source.height };
        Place { source, tile, fit: ObjectFit::Auto, canvas: source }
    }

    fn scaled(picture: &Picture, size: Size) -> Picture {
        let mut smaller = PictureMut::new(size);
        shrink(picture, &mut smaller, &mut Halves::default());
        smaller.freeze()
    }

    /// The picture on its tile of a canvas, and the canvas at another size.
    fn shown(picture: &Picture, tile: Rect, seen: Size, noise: &[u8]) -> Picture {
        let small = scaled(picture, tile.size());
        let mut canvas = PictureMut::new(CANVAS);
        {
            let (planes, strides) = canvas.planes();
            planes[0].fill(16);
            let (from, from_stride) = small.plane(0);
            for row in 0..tile.height as usize {
                let to = (tile.y as usize + row) * strides[0] + tile.x as usize;
                let line = &from[row * from_stride..][..tile.width as usize];
                for (column, pixel) in line.iter().enumerate() {
                    let noise = i32::from(noise[(row * 31 + column * 7) % noise.len()] % 80) - 40;
                    planes[0][to + column] = (i32::from(*pixel) + noise).clamp(0, 255) as u8;
                }
            }
        }
        scaled(&canvas.freeze(), seen)
    }

    #[test]
    fn ages_go_over_the_wrap() {
        let drawn = Stamp::of(Timestamp::from_micros(65_530_000));
        assert_eq!(drawn, Stamp(65_530));
        assert_eq!(drawn.age(Timestamp::from_micros(65_536_000 + 94_000)), Duration::from_millis(100));
    }

    #[test]
    fn what_is_no_clock_is_not_read_as_one() {
        let size = Size::new(320, 180);
        for brightness in [0, 128, 255] {
            assert_eq!(read(&Picture::filled(size, brightness, 128, 128), whole(size)), None);
        }
        let elsewhere = Place { tile: Rect { x: 100, y: 0, width: 320, height: 180 }, ..whole(size) };
        assert_eq!(read(&drawn(size, Stamp(77)), elsewhere), None, "a place outside the picture");
        let nowhere = Place { canvas: Size::new(0, 0), ..whole(size) };
        assert_eq!(read(&drawn(size, Stamp(77)), nowhere), None);
    }

    #[test]
    fn a_flipped_block_is_noticed() {
        let size = Size::new(320, 180);
        for bit in 0..COLUMNS * ROWS {
            let mut picture = PictureMut::new(size);
            draw(&mut picture, Stamp(4_711));
            let (planes, strides) = picture.planes();
            let block = block(size, bit, [0, 100]);
            for row in block.y..block.y + block.height {
                let line = &mut planes[0][row as usize * strides[0] + block.x as usize..][..block.width as usize];
                line.iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
            }
            assert_eq!(read(&picture.freeze(), whole(size)), None, "bit {bit}");
        }
    }

    #[test]
    fn a_time_is_read_in_one_of_two_tiles_that_fill_the_canvas() {
        let camera = Size::new(640, 360);
        let tile = Rect { x: 642, y: 0, width: 638, height: 720 };
        let place = Place { source: camera, tile, fit: ObjectFit::Cover, canvas: CANVAS };
        let crop = fit(camera, tile.size(), SourceKind::Camera, ObjectFit::Cover).crop;
        let cropped = drawn(camera, Stamp(31_000)).part(crop).expect("not empty");
        let picture = shown(&cropped, tile, Size::new(640, 360), &[40]);
        assert_eq!(read(&picture, place), Some(Stamp(31_000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_time_is_read_off_any_tile(
            time: u16,
            camera in prop_oneof![Just(Size::new(320, 180)), Just(Size::new(640, 360))],
            tile in prop_oneof![
                Just(Rect { x: 0, y: 0, width: 1280, height: 720 }),
                Just(Rect { x: 640, y: 180, width: 640, height: 360 }),
                Just(Rect { x: 428, y: 242, width: 424, height: 238 }),
                Just(Rect { x: 2, y: 4, width: 256, height: 144 }),
            ],
            seen in prop_oneof![Just(CANVAS), Just(Size::new(640, 360)), Just(Size::new(320, 180))],
            noise in proptest::collection::vec(any::<u8>(), 997),
        ) {
            let place = Place { source: camera, tile, fit: ObjectFit::Auto, canvas: CANVAS };
            let picture = shown(&drawn(camera, Stamp(time)), tile, seen, &noise);
            prop_assert_eq!(read(&picture, place), Some(Stamp(time)));
        }
    }
}
