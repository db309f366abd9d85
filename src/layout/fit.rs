//! Fits a picture into its tile. The web client has the same rules in CSS.
//!
//! Owns: the rules. Does not know: pixels. In: the sizes of a picture and its tile, and how it is to fill the tile
//! ([`ObjectFit`]). Out: [`Fit`]. By the rule `auto`:
//!
//! 1. A screen is *contained* (`object-fit: contain`): all of it is visible, with bars if the aspect ratios differ.
//! 2. A camera *covers* its tile (`object-fit: cover`, centred) if at most 30 % of its area is cropped: the larger
//!    aspect ratio (width / height) is at most 1/0.7 of the smaller one. Thus 4:3 and 3:2 cover a 16:9 tile.
//! 3. Any other camera is contained, for example a phone in portrait.
//!
//! Sizes and offsets are rounded down to even numbers (I420). A covering picture whose size is within 3 % of one, two
//! or four times its tile is cropped to that multiple: it needs no scaling, or the fastest one.

use serde::{Deserialize, Serialize};

use crate::media::{Rect, Size, SourceKind};

/// Largest part of the area of a camera that is cropped.
const MOST_LOST: f64 = 0.3;
/// Largest additional crop of a side for an integer factor.
const SNAP: f64 = 1.03;

/// How a picture fills its tile, as `object-fit` in CSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectFit {
    /// The rules of this module.
    #[default]
    Auto,
    /// All of it is visible.
    Contain,
    /// The tile is filled; the picture is cropped.
    Cover,
}

/// The visible part of a source, and its place in the tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The visible part, in pixels of the source.
    pub crop: Rect,
    /// Its place, relative to the upper left corner of the tile.
    pub dest: Rect,
}

/// Fits an upright source into a tile. All numbers are even, except for a source with a single row or column. The crop
/// lies within the source, and `dest` within the tile.
pub fn fit(source: Size, tile: Size, kind: SourceKind, object_fit: ObjectFit) -> Fit {
    let whole = Size::new(even(source.width), even(source.height));
    if whole.width == 0 || whole.height == 0 || tile.width == 0 || tile.height == 0 {
        return Fit { crop: centred(source, source), dest: centred(tile, tile) };
    }
    // Aspect ratios with a common denominator: the source is wider than the tile if `wide` > `tall`.
    let wide = u64::from(whole.width) * u64::from(tile.height);
    let tall = u64::from(whole.height) * u64::from(tile.width);
    let lost = 1.0 - wide.min(tall) as f64 / wide.max(tall) as f64;
    let covers = match object_fit {
        ObjectFit::Auto => kind != SourceKind::Screen && lost <= MOST_LOST,
        ObjectFit::Contain => false,
        ObjectFit::Cover => true,
    };
    if !covers {
        let dest = if wide >= tall {
            Size::new(tile.width, scaled(tile.width, whole.height, whole.width))
        } else {
            Size::new(scaled(tile.height, whole.width, whole.height), tile.height)
        };
        return Fit { crop: centred(whole, source), dest: centred(dest, tile) };
    }
    let covering = if wide >= tall {
        Size::new(scaled(whole.height, tile.width, tile.height), whole.height)
    } else {
        Size::new(whole.width, scaled(whole.width, tile.height, tile.width))
    };
    Fit { crop: centred(snapped(covering, tile), source), dest: centred(tile, tile) }
}

/// The multiple of the tile that is close to this size, or the size itself.
fn snapped(size: Size, tile: Size) -> Size {
    let near = |size: u32, exact: u32| size >= exact && f64::from(size) <= f64::from(exact) * SNAP;
    [1, 2, 4]
        .map(|n| Size::new(tile.width.saturating_mul(n), tile.height.saturating_mul(n)))
        .into_iter()
        .find(|exact| near(size.width, exact.width) && near(size.height, exact.height))
        .unwrap_or(size)
}

/// `length * numerator / denominator`, even and at least two.
fn scaled(length: u32, numerator: u32, denominator: u32) -> u32 {
    let exact = u64::from(length) * u64::from(numerator) / u64::from(denominator);
    even(exact as u32).max(2)
}

fn centred(inner: Size, outer: Size) -> Rect {
    Rect {
        x: even((outer.width - inner.width) / 2),
        y: even((outer.height - inner.height) / 2),
        width: inner.width,
        height: inner.height,
    }
}

const fn even(number: u32) -> u32 {
    number & !1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    fn check(source: (u32, u32), tile: (u32, u32), kind: SourceKind, crop: Rect, dest: Rect) {
        let got = fit(Size::new(source.0, source.1), Size::new(tile.0, tile.1), kind, ObjectFit::Auto);
        assert_eq!(got, Fit { crop, dest }, "{source:?} in {tile:?}");
    }

    #[test]
    fn cameras_cover_unless_too_much_is_cropped() {
        let camera = SourceKind::Camera;
        check((1280, 720), (320, 180), camera, rect(0, 0, 1280, 720), rect(0, 0, 320, 180));
        check((640, 480), (320, 180), camera, rect(0, 60, 640, 360), rect(0, 0, 320, 180));
        check((720, 480), (320, 180), camera, rect(0, 38, 720, 404), rect(0, 0, 320, 180));
        check((480, 480), (320, 180), camera, rect(0, 0, 480, 480), rect(70, 0, 180, 180));
        check((360, 640), (640, 360), camera, rect(0, 0, 360, 640), rect(218, 0, 202, 360));
    }

    #[test]
    fn the_caller_can_ask_for_cover_and_contain() {
        let with = |source, tile, object_fit| fit(source, tile, SourceKind::Camera, object_fit);
        let (hd, half) = (Size::new(1280, 720), Size::new(638, 720));
        let covering = Fit { crop: rect(320, 0, 638, 720), dest: rect(0, 0, 638, 720) };
        assert_eq!(with(hd, half, ObjectFit::Cover), covering);
        assert_eq!(with(hd, half, ObjectFit::Auto).dest, rect(0, 180, 638, 358));
        let contained = Fit { crop: rect(0, 0, 640, 480), dest: rect(40, 0, 240, 180) };
        assert_eq!(with(Size::new(640, 480), Size::new(320, 180), ObjectFit::Contain), contained);
    }

    #[test]
    fn screens_are_contained() {
        check((1920, 1200), (640, 360), SourceKind::Screen, rect(0, 0, 1920, 1200), rect(32, 0, 576, 360));
        check((2560, 1080), (640, 360), SourceKind::Screen, rect(0, 0, 2560, 1080), rect(0, 44, 640, 270));
    }

    #[test]
    fn a_factor_close_to_an_integer_is_made_exact() {
        let camera = SourceKind::Camera;
        check((640, 360), (638, 358), camera, rect(0, 0, 638, 358), rect(0, 0, 638, 358));
        check((640, 360), (316, 178), camera, rect(4, 2, 632, 356), rect(0, 0, 316, 178));
        check((1280, 720), (316, 178), camera, rect(8, 4, 1264, 712), rect(0, 0, 316, 178));
    }

    #[test]
    fn a_picture_of_one_pixel_is_not_cropped() {
        check((1, 1), (320, 180), SourceKind::Camera, rect(0, 0, 1, 1), rect(0, 0, 320, 180));
    }

    proptest! {
        #[test]
        fn all_fits_are_inside_even_and_of_the_right_shape(
            sw in 2_u32..5_000, sh in 2_u32..5_000, tw in 16_u32..1_000, th in 16_u32..1_000, screen in any::<bool>(),
            object_fit in prop::sample::select(vec![ObjectFit::Auto, ObjectFit::Contain, ObjectFit::Cover]),
        ) {
            let (source, tile) = (Size::new(sw, sh), Size::new(tw * 2, th * 2));
            let kind = if screen { SourceKind::Screen } else { SourceKind::Camera };
            let Fit { crop, dest } = fit(source, tile, kind, object_fit);
            for (rect, outer) in [(crop, source), (dest, tile)] {
                prop_assert!(rect.width >= 2 && rect.height >= 2);
                let is_inside = rect.x + rect.width <= outer.width && rect.y + rect.height <= outer.height;
                prop_assert!(is_inside, "{rect:?} in {outer}");
                prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|n| n % 2 == 0), "{rect:?} is odd");
            }
            let covers = dest.size() == tile;
            let all_seen = crop.width + 1 >= sw && crop.height + 1 >= sh;
            prop_assert!(covers || all_seen, "cropped and with bars");
            match object_fit {
                ObjectFit::Cover => prop_assert!(covers),
                ObjectFit::Contain => prop_assert!(all_seen),
                ObjectFit::Auto => prop_assert!(!screen || all_seen),
            }
            // Circles stay round, to the two pixels of rounding (and the 3 % of a snap) at either end.
            let x = f64::from(dest.width) / f64::from(crop.width);
            let y = f64::from(dest.height) / f64::from(crop.height);
            let rounding = |rect: Rect| 1.0 + 2.0 / f64::from(rect.width.min(rect.height).max(3) - 2);
            let slack = rounding(crop) * rounding(dest) * SNAP;
            let extreme = dest.width <= 2 || dest.height <= 2 || crop.width <= 2 || crop.height <= 2;
            prop_assert!(extreme || (x / y).max(y / x) <= slack, "{x} by {y}");
        }
    }
}
