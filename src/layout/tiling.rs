//! Rectangles: how an area of the canvas is divided. Pure functions of sizes and counts.
//!
//! Owns: equal tiles, tiles that fill an area, strips, and the patterns of a large tile with small ones around it. Does
//! not know: participants, layouts. In: an area with even coordinates, a gap, a count. Out: rectangles that do not
//! overlap, lie inside the area and have even coordinates (I420), row by row.
//!
//! Tiles for cameras have aspect ratios from 4:3 to 16:9, whichever fills the area best: cameras of both shapes cover
//! such a tile (see `fit`), and five tiles leave bands of a few pixels where five of 16:9 leave a third of the canvas.

use crate::media::{Rect, Size};

/// Narrowest tile of a strip, as a part of the square root of the pixels of the canvas: 80 pixels on 1280x720.
const STRIP_TILE_MIN: u32 = 12;

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

/// The largest even size within a size with an aspect ratio from 4:3 to 16:9.
fn shaped(width: u32, height: u32) -> Size {
    Size::new(even(width.min(height * 16 / 9)).max(2), even(height.min(width * 3 / 4)).max(2))
}

/// Columns and rows of equal tiles.
#[derive(Debug, Clone, Copy)]
struct Table {
    columns: u32,
    rows: u32,
    tile: Size,
}

const fn pixels(size: Size) -> u32 {
    size.width * size.height
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

    /// The table with the largest tiles for `count` of them, none larger than `largest`; among equal ones the one with
    /// fewer empty places. None if tiles of two pixels do not fit.
    fn table(self, count: u32, largest: Size) -> Option<Table> {
        let Size { width, height } = self.size();
        let tables = (1..=count).map(|columns| {
            let rows = count.div_ceil(columns);
            let (across, along) = (share(width, columns, self.gap), share(height, rows, self.gap));
            Table { columns, rows, tile: shaped(across.min(largest.width), along.min(largest.height)) }
        });
        let fits = |Table { columns, rows, tile }: &Table| {
            columns * (tile.width + self.gap) <= width + self.gap
                && rows * (tile.height + self.gap) <= height + self.gap
        };
        tables.filter(fits).max_by_key(|table| (pixels(table.tile), std::cmp::Reverse(table.columns * table.rows)))
    }

    /// Equal tiles, as large as possible; the last row is centred. A single tile is the whole area.
    pub(super) fn equal(self, count: u32) -> Vec<Rect> {
        if count <= 1 {
            return vec![self.rect; count as usize];
        }
        let Size { width, height } = self.size();
        let Some(Table { columns, rows, tile }) = self.table(count, self.size()) else { return Vec::new() };
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

    /// A strip of equal tiles, none larger than `largest`: rows from the upper left corner of a centred table on. Tiles
    /// have the size for an even number of them, and at least for one line of tiles of 16:9, so that a further tile
    /// seldom changes the others. The strip has fewer than `count` tiles when they would be too small.
    pub(super) fn strip(self, count: u32, canvas: Size, largest: Size) -> Vec<Rect> {
        let Size { width, height } = self.size();
        let narrowest = (f64::from(pixels(canvas)).sqrt() as u32 / STRIP_TILE_MIN).max(2);
        let across = wide(width.min(largest.width), height.min(largest.height));
        let fitting = |length: u32, part: u32| (length + self.gap) / (part + self.gap);
        let line = if height > width { fitting(height, across.height) } else { fitting(width, across.width) };
        let most = count.next_multiple_of(2).max(line);
        let tables = (1..=most).rev().filter_map(|places| self.table(places, largest));
        let Some(table) = tables.into_iter().find(|table| table.tile.width >= narrowest) else { return Vec::new() };
        // Places for further tiles of this size, so that these do not move the others.
        let (tile, columns, rows) = (table.tile, fitting(width, table.tile.width), fitting(height, table.tile.height));
        let (left, top) = (centred(width, columns, tile.width, self.gap), centred(height, rows, tile.height, self.gap));
        (0..count.min(columns * rows))
            .map(|slot| {
                let (row, column) = (slot / columns, slot % columns);
                let (x, y) = (column * (tile.width + self.gap), row * (tile.height + self.gap));
                self.within(left + x, top + y, tile.width, tile.height)
            })
            .collect()
    }

    /// A large tile and up to `2 * side - 1` small ones: in a division by `side`, the large one takes all but the last
    /// column and the last row. While the column is enough for the small ones, the large one takes the row too.
    pub(super) fn corner(self, side: u32, count: u32) -> Vec<Rect> {
        if count <= 1 {
            return self.equal(count);
        }
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
        let below = (0..last).rev().map(|column| small(column, last));
        let large = if count > side + 1 {
            cell((0, 0), (last, last))
        } else {
            let whole = cell((0, 0), (last, side));
            let tile = shaped(whole.width, whole.height);
            Rect { y: whole.y + centred(whole.height, 1, tile.height, 0), height: tile.height, ..whole }
        };
        std::iter::once(large).chain(right).chain(below).take(count as usize).collect()
    }

    /// A small tile of 16:9 over the lower right corner.
    pub(super) fn inset(self) -> Rect {
        let Size { width, height } = self.size();
        let side = width.min(height);
        let tile = wide(side * 4 / 9, side / 4);
        let margin = even(width.min(height) / 30);
        let place = |length: u32, part: u32| even(length.saturating_sub(part + margin));
        self.within(place(width, tile.width), place(height, tile.height), tile.width, tile.height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fit::{ObjectFit, fit};
    use super::*;
    use crate::media::SourceKind;

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
        assert_eq!(area(1280, 720).equal(2)[1], rect(642, 120, 638, 478));
    }

    #[test]
    fn tiles_of_other_shapes_than_16_9_fill_what_these_would_leave_empty() {
        let bands = |count: u32| {
            let rects = area(1280, 720).equal(count);
            let lowest = rects.iter().map(|rect| rect.y + rect.height).max().expect("tiles");
            rects[0].y + 720 - lowest
        };
        assert_eq!((area(1280, 720).equal(5)[0].size(), bands(5)), (Size::new(424, 318), 80));
        assert!([4, 6, 9, 10, 12, 16, 25, 49].iter().all(|count| bands(*count) <= 80));
        assert_eq!(area(720, 1280).equal(9)[0].size(), Size::new(358, 252), "a phone in portrait has two columns");
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
        let strip = |count: u32| right.strip(count, CANVAS, CANVAS);
        assert_eq!(strip(1)[0], strip(4)[0]);
        assert_eq!((strip(1)[0].x, strip(1)[0].width), (1024, 256));
        for (count, shape_and_size) in [(4, ((4, 1), 256, 176)), (6, ((6, 1), 206, 116)), (8, ((8, 1), 152, 86))] {
            let rects = strip(count);
            assert_eq!((shape(&rects), rects[0].width, rects[0].height), shape_and_size, "{count}");
            assert_eq!(strip(count - 1), rects[..rects.len() - 1], "one more changes no other tile");
        }
        assert_eq!((shape(&strip(14)), strip(14)[0].size()), ((7, 2), Size::new(126, 94)));
        assert_eq!(strip(49).len(), 42, "smaller tiles would not be recognized");
    }

    #[test]
    fn a_corner_of_three_has_one_large_tile_and_five_small_ones() {
        let rects = area(1280, 720).corner(3, 6);
        assert_eq!(rects.len(), 6);
        assert!(rects[1..].iter().all(|small| small.width * 19 / 10 < rects[0].width));
        assert_eq!(area(1280, 720).corner(5, 10).len(), 10);
        let four = area(1280, 720).corner(3, 4);
        assert_eq!(four[1..], rects[1..4], "the small tiles stay where they are");
        assert_eq!(four[0], rect(0, 40, 852, 638));
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
                area.equal(count), area.filled(count), area.corner(side, count.min(2 * side)), vec![area.inset()],
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
                let other = shaped(share(w * 2, columns, area.gap), share(h * 2, rows, area.gap));
                prop_assert!(pixels(other) <= pixels(placed[0].size()));
            }
        }

        #[test]
        fn cameras_of_4_3_and_16_9_cover_the_tiles_of_grids_and_strips(
            (w, h) in (200_u32..1_000, 200_u32..1_000), count in 2_u32..=49,
        ) {
            let canvas = Size::new(w * 2, h * 2);
            let [_, strip] = Area::canvas(canvas, 4).split_at_y(h);
            for tile in [area(w * 2, h * 2).equal(count), strip.strip(count, canvas, canvas)].concat() {
                for camera in [Size::new(640, 360), Size::new(640, 480)] {
                    let fit = fit(camera, tile.size(), SourceKind::Camera, ObjectFit::Auto);
                    prop_assert_eq!(fit.dest.size(), tile.size(), "{} in {:?}", camera, tile);
                }
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
