//! Backdrops: a blurred, darker copy of a camera behind it, where it does not fill its tile.
//!
//! Owns: the copy of one camera in one tile. Does not know: scenes. In: the picture as it is shown. Out: the parts of
//! the copy beside it.
//!
//! The copy is computed from a few hundred pixels ([`LONGER_SIDE`]) and enlarged. It is compared with the camera at
//! most five times a second, follows it slowly, and stays as it is while the camera shows the same: a backdrop that
//! moves attracts the eye, and costs bits.

use std::time::Duration;

use crate::codec::{Picture, PictureMut, scale};
use crate::layout::{ObjectFit, fit};
use crate::media::{Rect, Size, SourceKind};
use crate::time::Timestamp;

/// Longer side of the small copy, in pixels.
const LONGER_SIDE: u32 = 32;
/// Shortest time between two comparisons with the camera.
const INTERVAL: Duration = Duration::from_millis(200);
/// Part of the difference to the camera that a change makes up, as 1/n.
const FOLLOW: i32 = 2;
/// Difference of a value of the small copy up to which the backdrop stays as it is.
const SAME: i32 = 4;
/// Brightness of the backdrop, as a part of the camera's.
const BRIGHTNESS: f32 = 0.55;
/// Steps of enlargement: each smooths the edges of the one before.
const ENLARGED: u32 = 2;

/// The backdrop of one camera in one tile.
#[derive(Default)]
pub(super) struct Backdrop(Option<Drawn>);

struct Drawn {
    tile: Size,
    dest: Rect,
    /// The planes of the small copy.
    small: [Vec<u8>; 3],
    beside: Vec<(Picture, Rect)>,
    /// When the small copy was compared with the camera.
    compared: Timestamp,
}

impl Backdrop {
    /// What is beside a picture that is shown at `dest` in a tile, with its places.
    pub(super) fn beside(&mut self, picture: &Picture, dest: Rect, tile: Size, now: Timestamp) -> Vec<(Picture, Rect)> {
        let before = self.0.take().filter(|drawn| (drawn.tile, drawn.dest) == (tile, dest));
        if let Some(drawn) = &before
            && now.since(drawn.compared) < INTERVAL
        {
            return self.keep(before);
        }
        let mut small = planes(&shrunk(picture, tile));
        if let Some(drawn) = &before {
            let mut largest = 0;
            for (new, old) in small.iter_mut().flatten().zip(drawn.small.iter().flatten()) {
                let difference = i32::from(*new) - i32::from(*old);
                largest = largest.max(difference.abs());
                *new = (i32::from(*old) + difference / FOLLOW) as u8;
            }
            if largest <= SAME {
                return self.keep(before.map(|drawn| Drawn { compared: now, ..drawn }));
            }
        }
        let whole = enlarged(&small, tile);
        let beside = places(dest, tile).into_iter().filter_map(|place| Some((whole.part(place)?, place))).collect();
        self.keep(Some(Drawn { tile, dest, small, beside, compared: now }))
    }

    fn keep(&mut self, drawn: Option<Drawn>) -> Vec<(Picture, Rect)> {
        self.0 = drawn;
        self.0.as_ref().map(|drawn| drawn.beside.clone()).unwrap_or_default()
    }
}

/// The places of a tile that `dest` leaves free: at the left and right, or above and below.
fn places(dest: Rect, tile: Size) -> Vec<Rect> {
    let (right, below) = (dest.x + dest.width, dest.y + dest.height);
    [
        Rect { x: 0, y: 0, width: tile.width, height: dest.y },
        Rect { x: 0, y: below, width: tile.width, height: tile.height - below },
        Rect { x: 0, y: dest.y, width: dest.x, height: dest.height },
        Rect { x: right, y: dest.y, width: tile.width - right, height: dest.height },
    ]
    .into_iter()
    .filter(|place| place.width > 0 && place.height > 0)
    .collect()
}

/// The size of the small copy of a tile.
fn small_size(tile: Size) -> Size {
    let longer = tile.width.max(tile.height);
    let side = |length: u32| (length * LONGER_SIDE / longer).max(2).next_multiple_of(2);
    Size::new(side(tile.width), side(tile.height))
}

/// The middle of a picture in the shape of the tile, with few pixels.
fn shrunk(picture: &Picture, tile: Size) -> Picture {
    let crop = fit(picture.size(), tile, SourceKind::Camera, ObjectFit::Cover).crop;
    let part = picture.part(crop).unwrap_or_else(|| picture.clone());
    let mut small = PictureMut::new(small_size(tile));
    scale::shrink(&part, &mut small, &mut scale::Halves::default());
    small.freeze()
}

/// The planes of a picture without the padding of their rows.
fn planes(picture: &Picture) -> [Vec<u8>; 3] {
    let size = picture.size();
    std::array::from_fn(|i| {
        let half = u32::from(i > 0);
        let (width, height) = ((size.width >> half) as usize, (size.height >> half) as usize);
        let (plane, stride) = picture.plane(i);
        plane.chunks(stride).take(height).flat_map(|row| &row[..width]).copied().collect()
    })
}

/// The picture with these planes, whose rows have no padding.
fn picture(planes: &[Vec<u8>; 3], size: Size) -> Picture {
    let mut picture = PictureMut::new(size);
    let (to, strides) = picture.planes();
    for (i, plane) in to.into_iter().enumerate() {
        let width = size.width as usize >> usize::from(i > 0);
        plane
            .chunks_mut(strides[i])
            .zip(planes[i].chunks(width))
            .for_each(|(to, row)| to[..width].copy_from_slice(row));
    }
    picture.freeze()
}

/// Smooths the planes of a picture of this size.
fn blurred(planes: &[Vec<u8>; 3], size: Size) -> [Vec<u8>; 3] {
    std::array::from_fn(|i| smooth(&planes[i], size.width as usize >> usize::from(i > 0)))
}

/// Blurs, darkens and enlarges the small copy.
fn enlarged(small: &[Vec<u8>; 3], tile: Size) -> Picture {
    let size = small_size(tile);
    let mut dark = blurred(&blurred(small, size), size);
    // Black is 16.
    dark[0].iter_mut().for_each(|luma| *luma = (16.0 + (f32::from(*luma) - 16.0) * BRIGHTNESS).max(0.0) as u8);
    let larger = Size::new(size.width * ENLARGED, size.height * ENLARGED);
    let mut middle = PictureMut::new(larger);
    scale::scale(&picture(&dark, size), &mut middle);
    let mut whole = PictureMut::new(tile);
    scale::scale(&picture(&blurred(&planes(&middle.freeze()), larger), larger), &mut whole);
    whole.freeze()
}

/// Each value averaged with its eight neighbours, weighted 1-2-1 in both directions; edges are repeated.
fn smooth(values: &[u8], width: usize) -> Vec<u8> {
    let height = values.len() / width;
    let at = |x: usize, y: usize| u16::from(values[y * width + x]);
    let across: Vec<u16> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| at(x.saturating_sub(1), y) + 2 * at(x, y) + at((x + 1).min(width - 1), y))
        .collect();
    let sum = |x: usize, y: usize| across[y * width + x];
    (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| ((sum(x, y.saturating_sub(1)) + 2 * sum(x, y) + sum(x, (y + 1).min(height - 1)) + 8) / 16) as u8)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TILE: Size = Size::new(424, 238);
    const UPRIGHT: Size = Size::new(134, 238);
    const DEST: Rect = Rect { x: 144, y: 0, width: 134, height: 238 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    fn grey(luma: u8) -> Picture {
        Picture::filled(UPRIGHT, luma, 100, 150)
    }

    /// The luma of the first pixel, which scaling may round down.
    fn luma(beside: &[(Picture, Rect)]) -> u8 {
        beside[0].0.plane(0).0[0]
    }

    #[test]
    fn a_backdrop_is_a_darker_copy_at_both_sides() {
        let beside = Backdrop::default().beside(&grey(176), DEST, TILE, at(0));
        let places: Vec<Rect> = beside.iter().map(|(_, place)| *place).collect();
        let side = |x: u32, width: u32| Rect { x, y: 0, width, height: 238 };
        assert_eq!(places, [side(0, 144), side(278, 146)]);
        assert!((100..=104).contains(&luma(&beside)), "16 + 160 * 0.55, not {}", luma(&beside));
        let chroma = [1, 2].map(|i| beside[1].0.plane(i).0[0]);
        assert!(chroma[0].abs_diff(100) <= 4 && chroma[1].abs_diff(150) <= 4, "{chroma:?}");
    }

    #[test]
    fn a_backdrop_follows_slowly_and_keeps_its_picture_while_nothing_changes() {
        let mut backdrop = Backdrop::default();
        let mut luma_at = |shown, dest, ms| luma(&backdrop.beside(&grey(shown), dest, TILE, at(ms)));
        let first = luma_at(176, DEST, 0);
        assert_eq!(luma_at(16, DEST, 100), first, "too early");
        let followed = luma_at(16, DEST, 200);
        assert!((56..=62).contains(&followed), "half of the way: {followed}");
        assert_eq!(luma_at(97, DEST, 400), followed, "noise");
        assert!(luma_at(16, Rect { x: 146, ..DEST }, 401) <= 16, "another place begins anew");
    }

    #[test]
    fn a_backdrop_of_one_colour_has_it_up_to_its_edges() {
        // Small copies of other widths than multiples of four have padded rows.
        for tile in [Size::new(180, 320), Size::new(202, 360), Size::new(406, 720), Size::new(640, 100)] {
            let dest = fit(Size::new(320, 180), tile, SourceKind::Camera, ObjectFit::Contain).dest;
            let shown = Picture::filled(dest.size(), 176, 100, 150);
            for (picture, _) in Backdrop::default().beside(&shown, dest, tile, at(0)) {
                for (plane, expected) in planes(&picture).iter().zip([102_u8, 100, 150]) {
                    let worst = plane.iter().map(|value| value.abs_diff(expected)).max();
                    assert!(worst <= Some(4), "{tile}: {worst:?} from {expected}");
                }
            }
        }
    }

    #[test]
    fn smoothing_keeps_the_mean_and_removes_stripes() {
        let stripes: Vec<u8> = (0..64).map(|i| if i % 2 == 0 { 100 } else { 140 }).collect();
        let smoothed = smooth(&stripes, 8);
        assert_eq!(smoothed[9], 120);
        assert_eq!(smooth(&[77; 24], 6), [77; 24]);
    }

    proptest! {
        #[test]
        fn picture_and_backdrop_cover_the_tile_without_overlap(
            (w, h) in (2_u32..1_500, 2_u32..1_500), (tw, th) in (8_u32..500, 8_u32..500),
        ) {
            let tile = Size::new(tw * 2, th * 2);
            let dest = fit(Size::new(w, h), tile, SourceKind::Camera, ObjectFit::Contain).dest;
            let shown = Picture::filled(dest.size(), 100, 128, 128);
            let beside = Backdrop::default().beside(&shown, dest, tile, at(0));
            let area = |rect: Rect| u64::from(rect.width) * u64::from(rect.height);
            let sum: u64 = beside.iter().map(|(_, place)| area(*place)).sum();
            prop_assert_eq!(sum + area(dest), u64::from(tile.width) * u64::from(tile.height));
            for (picture, place) in beside {
                prop_assert_eq!(picture.size(), place.size());
                prop_assert!(place.x + place.width <= tile.width && place.y + place.height <= tile.height);
                prop_assert!([place.x, place.y, place.width, place.height].iter().all(|n| n % 2 == 0));
            }
        }
    }
}
