//! A part of a canvas as rectangles that do not overlap: what is blended there is blended once.
//!
//! Owns: the division and intersection of rectangles. Does not know: what is drawn.

use crate::media::Rect;

/// Rectangles that do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Region(Vec<Rect>);

impl Region {
    /// One rectangle.
    pub(super) fn of(rect: Rect) -> Self {
        Self(vec![rect])
    }

    /// Adds a rectangle; returns the parts of it that are new.
    pub(super) fn add(&mut self, rect: Rect) -> Vec<Rect> {
        let mut new = vec![rect];
        for known in &self.0 {
            new = new.into_iter().flat_map(|rect| without(rect, *known)).collect();
        }
        self.0.extend(&new);
        new
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Rect> {
        self.0.iter()
    }
}

/// What is left of a rectangle without the pixels of another: at most four rectangles.
fn without(rect: Rect, other: Rect) -> Vec<Rect> {
    let Rect { x, y, width, height } = rect;
    let (right, bottom) = (x + width, y + height);
    let (left, top) = (other.x.clamp(x, right), other.y.clamp(y, bottom));
    let (end, low) = ((other.x + other.width).clamp(x, right), (other.y + other.height).clamp(y, bottom));
    if left >= end || top >= low {
        return vec![rect];
    }
    let parts = [
        Rect { x, y, width, height: top - y },
        Rect { x, y: top, width: left - x, height: low - top },
        Rect { x: end, y: top, width: right - end, height: low - top },
        Rect { x, y: low, width, height: bottom - low },
    ];
    parts.into_iter().filter(|part| part.width > 0 && part.height > 0).collect()
}

/// The pixels that both have.
pub(super) fn intersection(a: Rect, b: Rect) -> Option<Rect> {
    if !overlap(a, b) {
        return None;
    }
    let (x, y) = (a.x.max(b.x), a.y.max(b.y));
    let (right, bottom) = ((a.x + a.width).min(b.x + b.width), (a.y + a.height).min(b.y + b.height));
    Some(Rect { x, y, width: right - x, height: bottom - y })
}

/// Whether both have a pixel in common.
pub(super) const fn overlap(a: Rect, b: Rect) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(rect: &Rect, x: u32, y: u32) -> bool {
        (rect.x..rect.x + rect.width).contains(&x) && (rect.y..rect.y + rect.height).contains(&y)
    }

    proptest! {
        #[test]
        fn every_pixel_of_the_rectangles_is_in_exactly_one_part(
            rects in proptest::collection::vec((0u32..20, 0u32..20, 1u32..12, 1u32..12), 0..8),
        ) {
            let rects: Vec<Rect> =
                rects.into_iter().map(|(x, y, width, height)| Rect { x, y, width, height }).collect();
            let mut region = Region::default();
            for (i, rect) in rects.iter().enumerate() {
                let new = region.add(*rect);
                for (x, y) in (0..32).flat_map(|y| (0..32).map(move |x| (x, y))) {
                    let is_new = contains(rect, x, y) && !rects[..i].iter().any(|rect| contains(rect, x, y));
                    prop_assert_eq!(new.iter().filter(|part| contains(part, x, y)).count(), usize::from(is_new));
                }
            }
            for (x, y) in (0..32).flat_map(|y| (0..32).map(move |x| (x, y))) {
                let inside = rects.iter().any(|rect| contains(rect, x, y));
                prop_assert_eq!(region.parts().filter(|part| contains(part, x, y)).count(), usize::from(inside));
            }
        }
    }
}
