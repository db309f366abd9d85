//! Rectangles: how an area of the canvas is divided. Pure functions of sizes and counts.
//!
//! Owns: equal tiles, tiles that fill an area, strips, and the patterns of a large tile with small ones around it. Does
//! not know: participants, layouts. In: an area with even coordinates, a gap, a count. Out: rectangles that do not
//! overlap, lie inside the area and have even coordinates (I420), row by row.

use crate::media::{Rect, Size};

/// Narrowest tile of a strip, as a part of the width of the canvas.
const STRIP_TILE_MIN: u32 = 16;

/// An area of the canvas and the gap between its tiles, both even.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) rect: Rect,
    pub(super) gap: u32,
}

const fn even(pixels: u32) -> u32 {
    pixels & !1
}

/// The even length of one of `parts` parts, of at least two pixels.
fn share(length: u32, parts: u32, gap: u32) -> u32 {
    even(length.saturating_sub(gap * (parts - 1)) / parts).max(2)
}

/// The offset that centres a row or column of parts.
fn centred(length: u32, parts: u32, part: u32, gap: u32) -> u32 {
    even(length.saturating_sub(parts * part + (parts - 1) * gap) / 2)
}

/// The largest even 16:9 size within a size.
fn wide(width: u32, height: u32) -> Size {
    let width = width.min(height * 16 / 9);
    let height = height.min(width * 9 / 16);
    Size::new(even(width).max(2), even(height).max(2))
}

/// The part of a picture of aspect ratio 16:9 that is visible when it covers this size, from 0 to 1.
fn visible(size: Size) -> f64 {
    let (a, b) = (f64::from(size.width) * 9.0, f64::from(size.height) * 16.0);
    a.min(b) / a.max(b)
}

impl Area {
    /// The whole canvas. A gap that is too large for the canvas is reduced.
    pub(super) fn canvas(canvas: Size, gap: u32) -> Self {
        let gap = even(gap.min(canvas.width.min(canvas.height) / 16));
        Self { rect: Rect { x: 0, y: 0, width: canvas.width, height: canvas.height }, gap }
    }

    fn size(self) -> Size {
        self.rect.size()
    }

    fn within(self, x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x: self.rect.x + x, y: self.rect.y + y, width, height }
    }

    /// Divides the area at an even distance from its left edge.
    pub(super) fn split_at_x(self, x: u32) -> [Self; 2] {
        let (x, after) = (even(x), even(x) + self.gap);
        let Rect { width, height, .. } = self.rect;
        let part = |from: u32, width: u32| Self { rect: self.within(from, 0, width, height), ..self };
        [part(0, x), part(after, width.saturating_sub(after))]
    }

    /// Divides the area at an even distance from its upper edge.
    pub(super) fn split_at_y(self, y: u32) -> [Self; 2] {
        let (y, after) = (even(y), even(y) + self.gap);
        let Rect { width, height, .. } = self.rect;
        let part = |from: u32, height: u32| Self { rect: self.within(0, from, width, height), ..self };
        [part(0, y), part(after, height.saturating_sub(after))]
    }

    /// Equal tiles of 16:9, as large as possible; the last row is centred. A single tile is the whole area.
    pub(super) fn equal(self, count: u32) -> Vec<Rect> {
        if count <= 1 {
            return vec![self.rect; count as usize];
        }
        let Size { width, height } = self.size();
        let tile =
            |columns: u32| wide(share(width, columns, self.gap), share(height, count.div_ceil(columns), self.gap));
        // Among equal sizes the one with fewer empty places.
        let empty = |columns: u32| columns * count.div_ceil(columns) - count;
        let best = (1..=count).max_by_key(|columns| {
            let tile = tile(*columns);
            (tile.width * tile.height, std::cmp::Reverse(empty(*columns)))
        });
        let columns = best.unwrap_or(1);
        let (rows, tile) = (count.div_ceil(columns), tile(columns));
        let top = centred(height, rows, tile.height, self.gap);
        (0..count)
            .map(|slot| {
                let (row, column) = (slot / columns, slot % columns);
                let in_row = columns.min(count - row * columns);
                let x = centred(width, in_row, tile.width, self.gap) + column * (tile.width + self.gap);
                self.within(x, top + row * (tile.height + self.gap), tile.width, tile.height)
            })
            .collect()
    }

    /// Tiles that fill the area, in rows of almost equal counts: those in which most of a 16:9 picture is visible.
    pub(super) fn filled(self, count: u32) -> Vec<Rect> {
        let Size { width, height } = self.size();
        let worst = |rows: u32| {
            let row = share(height, rows, self.gap);
            let tile = |columns: u32| Size::new(share(width, columns, self.gap), row);
            visible(tile(count / rows)).min(visible(tile(count.div_ceil(rows))))
        };
        // Fewer rows unless more show a tenth more: two are side by side on a canvas of 16:9.
        let rows = (1..=count).reduce(|best, rows| if worst(rows) > worst(best) * 1.1 { rows } else { best });
        let Some(rows) = rows else { return Vec::new() };
        let tall = share(height, rows, self.gap);
        (0..rows)
            .flat_map(|row| {
                let columns = count / rows + u32::from(row < count % rows);
                let wide = share(width, columns, self.gap);
                let last = |at: u32, parts: u32, part: u32, all: u32| {
                    // The last part takes what rounding left over.
                    if at + 1 == parts { all.saturating_sub(at * (part + self.gap)).max(2) } else { part }
                };
                (0..columns).map(move |column| {
                    let (x, y) = (column * (wide + self.gap), row * (tall + self.gap));
                    self.within(x, y, last(column, columns, wide, width), last(row, rows, tall, height))
                })
            })
            .collect()
    }

    /// A strip of equal tiles of 16:9 from the upper left corner on, in as few columns (of a tall strip) or rows (of a
    /// wide one) as possible, so that a further tile seldom changes the others. No tile is larger than `largest`. It
    /// has fewer than `count` tiles when they would be too small.
    pub(super) fn strip(self, count: u32, canvas: Size, largest: Size) -> Vec<Rect> {
        let Size { width, height } = self.size();
        let narrowest = (canvas.width / STRIP_TILE_MIN).max(2);
        let tall = height > width;
        let shapes = (1..=count.max(1)).map_while(|lines| {
            let (across, along) =
                if tall { (share(width, lines, self.gap), height) } else { (width, share(height, lines, self.gap)) };
            let tile = wide(across.min(largest.width), along.min(largest.height));
            let fitting = |length: u32, part: u32| (length + self.gap) / (part + self.gap);
            let places = Size::new(fitting(width, tile.width), fitting(height, tile.height));
            (tile.width >= narrowest && places.width > 0 && places.height > 0).then_some((tile, places))
        });
        let mut best = None;
        for (tile, places) in shapes {
            best = Some((tile, places));
            if places.width * places.height >= count {
                break;
            }
        }
        let Some((tile, places)) = best else { return Vec::new() };
        (0..count.min(places.width * places.height))
            .map(|slot| {
                let (row, column) = (slot / places.width, slot % places.width);
                self.within(column * (tile.width + self.gap), row * (tile.height + self.gap), tile.width, tile.height)
            })
            .collect()
    }

    /// A large tile and `2 * side - 1` small ones: in a division by `side`, the large one takes all but the last column
    /// and the last row.
    pub(super) fn corner(self, side: u32) -> Vec<Rect> {
        let Size { width, height } = self.size();
        let edge = |length: u32, at: u32| even((u64::from(length + self.gap) * u64::from(at) / u64::from(side)) as u32);
        let cell = |from: (u32, u32), to: (u32, u32)| {
            let (left, top) = (edge(width, from.0), edge(height, from.1));
            let span = |length: u32, at: u32, start: u32| edge(length, at).saturating_sub(start + self.gap).max(2);
            self.within(left, top, span(width, to.0, left), span(height, to.1, top))
        };
        let small = |column: u32, row: u32| cell((column, row), (column + 1, row + 1));
        let last = side - 1;
        let right = (0..side).map(|row| small(last, row));
        let below = (0..last).map(|column| small(column, last));
        std::iter::once(cell((0, 0), (last, last))).chain(right).chain(below).collect()
    }

    /// A small tile of 16:9 over the lower right corner.
    pub(super) fn inset(self) -> Rect {
        let Size { width, height } = self.size();
        let tile = wide(width / 4, height / 4);
        let margin = even(width.min(height) / 30);
        let place = |length: u32, part: u32| even(length.saturating_sub(part + margin));
        self.within(place(width, tile.width), place(height, tile.height), tile.width, tile.height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANVAS: Size = Size::new(1280, 720);

    fn area(width: u32, height: u32) -> Area {
        Area::canvas(Size::new(width, height), 4)
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    fn shape(rects: &[Rect]) -> (usize, usize) {
        let rows = rects.iter().map(|rect| rect.y).collect::<std::collections::BTreeSet<_>>().len();
        (rows, rects.iter().filter(|rect| rect.y == rects[0].y).count())
    }

    #[test]
    fn counts_of_equal_tiles_have_their_expected_rows_and_columns() {
        let shapes = [
            (1, (1, 1)),
            (2, (1, 2)),
            (3, (2, 2)),
            (4, (2, 2)),
            (5, (2, 3)),
            (9, (3, 3)),
            (16, (4, 4)),
            (25, (5, 5)),
            (49, (7, 7)),
        ];
        for (count, expected) in shapes {
            assert_eq!(shape(&area(1280, 720).equal(count)), expected, "{count}");
        }
        let three = area(1280, 720).equal(3);
        assert_eq!(three[2].x, ((1280 - three[2].width) / 2) & !1, "the last row is centred");
        assert_eq!(area(1280, 720).equal(2)[1], rect(642, 180, 638, 358));
    }

    #[test]
    fn two_tiles_fill_the_area_side_by_side_or_one_above_the_other() {
        assert_eq!(area(1280, 720).filled(2), [rect(0, 0, 638, 720), rect(642, 0, 638, 720)]);
        assert_eq!(area(720, 1280).filled(2), [rect(0, 0, 720, 638), rect(0, 642, 720, 638)]);
        assert_eq!(shape(&area(720, 720).filled(2)), (2, 1));
        assert_eq!(shape(&area(1280, 720).filled(4)), (2, 2));
        assert_eq!(shape(&area(720, 1280).filled(9)).0, 5, "a phone in portrait has two columns");
    }

    #[test]
    fn strips_keep_their_tiles_until_a_line_is_full() {
        let [_, right] = area(1280, 720).split_at_x(1020);
        let one = right.strip(1, CANVAS, CANVAS);
        let four = right.strip(4, CANVAS, CANVAS);
        assert_eq!(one[0], four[0]);
        assert_eq!((one[0].x, one[0].width), (1024, 256));
        assert_eq!(shape(&right.strip(6, CANVAS, CANVAS)), (3, 2));
        assert_eq!(right.strip(49, CANVAS, CANVAS).len(), 42, "smaller tiles would not be recognized");
    }

    #[test]
    fn a_corner_of_three_has_one_large_tile_and_five_small_ones() {
        let rects = area(1280, 720).corner(3);
        assert_eq!(rects.len(), 6);
        assert!(rects[1..].iter().all(|small| small.width * 19 / 10 < rects[0].width));
        assert_eq!(area(1280, 720).corner(5).len(), 10);
    }

    fn disjoint(rects: &[Rect]) -> bool {
        rects.iter().enumerate().all(|(i, a)| {
            rects[i + 1..]
                .iter()
                .all(|b| a.x >= b.x + b.width || b.x >= a.x + a.width || a.y >= b.y + b.height || b.y >= a.y + a.height)
        })
    }

    proptest! {
        #[test]
        fn all_tiles_are_inside_even_and_disjoint(
            (w, h) in (80_u32..1_000, 80_u32..1_000), count in 1_u32..=49, gap in 0_u32..40, side in 2_u32..=5,
        ) {
            let canvas = Size::new(w * 2, h * 2);
            let area = Area::canvas(canvas, gap);
            let [left, right] = area.split_at_x(canvas.width * 4 / 5);
            let [above, below] = area.split_at_y(canvas.height * 4 / 5);
            let all = [
                area.equal(count), area.filled(count), area.corner(side), vec![area.inset()],
                [left.equal(count.min(4)), right.strip(count, canvas, canvas)].concat(),
                [above.equal(count.min(4)), below.strip(count, canvas, canvas)].concat(),
            ];
            for rects in all {
                prop_assert!(disjoint(&rects), "{:?}", rects);
                for rect in &rects {
                    prop_assert!(rect.width >= 2 && rect.height >= 2, "{:?}", rect);
                    prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|n| n % 2 == 0), "{:?}", rect);
                    let inside = rect.x + rect.width <= canvas.width && rect.y + rect.height <= canvas.height;
                    prop_assert!(inside, "{:?} on {}", rect, canvas);
                }
            }
        }

        #[test]
        fn no_other_number_of_columns_has_larger_tiles((w, h) in (80_u32..1_000, 80_u32..600), count in 2_u32..=49) {
            let area = area(w * 2, h * 2);
            let placed = area.equal(count);
            for columns in 1..=count {
                let rows = count.div_ceil(columns);
                let other = wide(share(w * 2, columns, area.gap), share(h * 2, rows, area.gap));
                prop_assert!(other.width * other.height <= placed[0].width * placed[0].height);
            }
        }

        #[test]
        fn filled_tiles_leave_only_gaps((w, h) in (200_u32..1_000, 200_u32..1_000), count in 1_u32..=25) {
            let area = area(w * 2, h * 2);
            let rects = area.filled(count);
            let covered: u32 = rects.iter().map(|rect| rect.width * rect.height).sum();
            let rows = shape(&rects).0 as u32;
            // Gaps, and two pixels of rounding in each part of a row or column.
            let gaps = (rows * w * 2 + (count + rows) * h * 2) * 6;
            prop_assert!(covered + gaps >= w * h * 4, "{} of {}", covered, w * h * 4);
            prop_assert_eq!(rects.len() as u32, count);
        }
    }
}
