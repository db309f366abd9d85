//! The grid: equal tiles of 16:9, as large as possible, with as few moves as possible.
//!
//! Owns: the slots of the cells. Does not know: participants' names, pixels. In: the cells and the canvas. Out:
//! [`Arrangement`].
//!
//! 1. Tiles do not overlap, lie inside the canvas, and have even coordinates.
//! 2. A new cell gets the next free slot; no other cell moves to another slot.
//! 3. When a cell leaves, the last one takes its slot; no other cell moves to another slot.
//! 4. Slots are filled row by row. The last row is centred, so its tiles shift when one is added; tiles in the rows
//!    above keep their places while the number of rows and columns is the same.

use std::collections::BTreeSet;

use crate::id::ParticipantId;
use crate::media::{Rect, Size, SourceKind};

/// Most tiles; further cells are hidden.
pub const TILES_MAX: usize = 49;
/// Pixels between tiles.
const GAP: u32 = 4;

/// A cell: the camera or screen of a participant.
pub type Key = (ParticipantId, SourceKind);

/// The arrangement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrangement {
    /// The visible cells in slot order.
    pub placed: Vec<(Key, Rect)>,
    /// The hidden cells.
    pub hidden: Vec<Key>,
}

/// The slots of all cells.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    slots: Vec<Key>,
}

impl Grid {
    /// Arranges the cells on a canvas with even sides. New cells get slots in the order of `cells`; the others keep
    /// their slots.
    pub fn arrange(&mut self, canvas: Size, cells: &[Key]) -> Arrangement {
        let wanted: BTreeSet<Key> = cells.iter().copied().collect();
        let mut index = 0;
        while index < self.slots.len() {
            if wanted.contains(&self.slots[index]) {
                index += 1;
            } else {
                self.slots.swap_remove(index);
            }
        }
        let mut seated: BTreeSet<Key> = self.slots.iter().copied().collect();
        self.slots.extend(cells.iter().filter(|key| seated.insert(**key)));
        let seen = self.slots.len().min(TILES_MAX);
        let arrangement = Arrangement {
            placed: self.slots[..seen].iter().copied().zip(rects(canvas, seen)).collect(),
            hidden: self.slots[seen..].to_vec(),
        };
        debug_assert_eq!(verify_invariants(canvas, cells, &arrangement), Ok(()));
        arrangement
    }
}

/// The rectangles of `count` tiles, row by row.
fn rects(canvas: Size, count: usize) -> Vec<Rect> {
    if count == 1 {
        return vec![Rect { x: 0, y: 0, width: canvas.width, height: canvas.height }];
    }
    let Some((columns, tile)) = shape(canvas, count as u32) else { return Vec::new() };
    let rows = (count as u32).div_ceil(columns);
    let top = offset(canvas.height, rows, tile.height);
    (0..count as u32)
        .map(|slot| {
            let (row, column) = (slot / columns, slot % columns);
            let in_row = columns.min(count as u32 - row * columns);
            Rect {
                x: offset(canvas.width, in_row, tile.width) + column * (tile.width + GAP),
                y: top + row * (tile.height + GAP),
                width: tile.width,
                height: tile.height,
            }
        })
        .collect()
}

/// The number of columns with the largest tiles, and the tile size; among equal sizes the one with fewer empty places.
fn shape(canvas: Size, count: u32) -> Option<(u32, Size)> {
    let tiles = (1..=count).map(|columns| (columns, tile(canvas, columns, count.div_ceil(columns))));
    tiles.max_by_key(|(columns, tile)| {
        let empty = columns * count.div_ceil(*columns) - count;
        (tile.width * tile.height, std::cmp::Reverse(empty))
    })
}

/// The largest even 16:9 tile for these columns and rows.
fn tile(canvas: Size, columns: u32, rows: u32) -> Size {
    let share = |length: u32, parts: u32| length.saturating_sub(GAP * (parts - 1)) / parts;
    let (width, height) = (share(canvas.width, columns), share(canvas.height, rows));
    let width = width.min(height * 16 / 9);
    let height = height.min(width * 9 / 16);
    // A canvas that is too small for its gaps still gets tiles.
    Size::new((width & !1).max(2), (height & !1).max(2))
}

/// The offset that centres a row or column of tiles.
fn offset(length: u32, parts: u32, part: u32) -> u32 {
    (length.saturating_sub(parts * part + (parts - 1) * GAP) / 2) & !1
}

/// Checks the invariants of an arrangement; the error names the violated one.
pub fn verify_invariants(canvas: Size, cells: &[Key], arrangement: &Arrangement) -> Result<(), String> {
    let placed = arrangement.placed.iter().map(|(key, _)| *key);
    let all: Vec<Key> = placed.chain(arrangement.hidden.iter().copied()).collect();
    let (wanted, given): (BTreeSet<Key>, BTreeSet<Key>) =
        (cells.iter().copied().collect(), all.iter().copied().collect());
    if wanted != given || all.len() != given.len() {
        return Err(format!("cells {wanted:?} were placed or hidden as {all:?}"));
    }
    if arrangement.placed.len() != wanted.len().min(TILES_MAX) {
        return Err(format!("{} of {} are placed", arrangement.placed.len(), wanted.len()));
    }
    for (i, (key, a)) in arrangement.placed.iter().enumerate() {
        if a.width == 0 || a.height == 0 || [a.x, a.y, a.width, a.height].iter().any(|n| n % 2 != 0) {
            return Err(format!("{key:?} is empty or odd: {a:?}"));
        }
        if a.x + a.width > canvas.width || a.y + a.height > canvas.height {
            return Err(format!("{key:?} reaches beyond {canvas}: {a:?}"));
        }
        for (other, b) in &arrangement.placed[i + 1..] {
            if a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height {
                return Err(format!("{key:?} and {other:?} overlap: {a:?} {b:?}"));
            }
            if a.size() != b.size() {
                return Err(format!("{key:?} and {other:?} differ in size: {a:?} {b:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANVAS: Size = Size::new(1280, 720);

    fn camera(id: u32) -> Key {
        (ParticipantId(id), SourceKind::Camera)
    }

    fn cameras(count: u32) -> Vec<Key> {
        (1..=count).map(camera).collect()
    }

    fn shape_of(placed: &[(Key, Rect)]) -> (usize, usize) {
        let count = |of: fn(&Rect) -> u32| placed.iter().map(|(_, r)| of(r)).collect::<BTreeSet<_>>().len();
        let first = placed.first().map_or(0, |(_, r)| r.y);
        (count(|r| r.y), placed.iter().filter(|(_, r)| r.y == first).count())
    }

    #[test]
    fn counts_of_tiles_have_their_expected_rows_and_columns() {
        let shapes = [
            (1, (1, 1)),
            (2, (1, 2)),
            (3, (2, 2)),
            (4, (2, 2)),
            (5, (2, 3)),
            (9, (3, 3)),
            (12, (3, 4)),
            (16, (4, 4)),
            (25, (5, 5)),
            (49, (7, 7)),
        ];
        for (count, shape) in shapes {
            let arrangement = Grid::default().arrange(CANVAS, &cameras(count));
            let (rows, columns) = shape_of(&arrangement.placed);
            assert!(
                (rows, columns) == shape || count == 12 && rows * columns == 16,
                "{count}: {rows} rows of {columns}"
            );
        }
    }

    #[test]
    fn one_tile_fills_the_canvas_and_two_are_side_by_side() {
        let mut grid = Grid::default();
        assert_eq!(grid.arrange(CANVAS, &cameras(1)).placed[0].1, Rect { x: 0, y: 0, width: 1280, height: 720 });
        let two = grid.arrange(CANVAS, &cameras(2)).placed;
        assert_eq!(two[0].1, Rect { x: 0, y: 180, width: 638, height: 358 });
        assert_eq!(two[1].1, Rect { x: 642, y: 180, width: 638, height: 358 });
    }

    #[test]
    fn the_last_row_is_centred() {
        let placed = Grid::default().arrange(CANVAS, &cameras(3)).placed;
        let last = placed[2].1;
        assert_eq!(last.x, ((CANVAS.width - last.width) / 2) & !1);
    }

    #[test]
    fn the_last_cell_takes_the_slot_of_one_that_leaves() {
        let mut grid = Grid::default();
        let before = grid.arrange(CANVAS, &cameras(9)).placed;
        let after = grid.arrange(CANVAS, &cameras(9)[1..]).placed;
        assert_eq!(after[0], (camera(9), before[0].1));
        assert_eq!(after[1..6], before[1..6]);
    }

    #[test]
    fn cells_after_the_49th_are_hidden() {
        let arrangement = Grid::default().arrange(CANVAS, &cameras(60));
        assert_eq!((arrangement.placed.len(), arrangement.hidden.len()), (49, 11));
        assert_eq!(arrangement.hidden[0], camera(50));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Join(u32),
        Leave(prop::sample::Index),
        Share(prop::sample::Index),
        Shuffle(u64),
        Canvas(u32, u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1_u32..200).prop_map(Op::Join),
            3 => any::<prop::sample::Index>().prop_map(Op::Leave),
            1 => any::<prop::sample::Index>().prop_map(Op::Share),
            1 => any::<u64>().prop_map(Op::Shuffle),
            1 => (80_u32..1_000, 80_u32..600).prop_map(|(w, h)| Op::Canvas(w * 2, h * 2)),
        ]
    }

    proptest! {
        #[test]
        fn random_operations_keep_the_invariants(ops in prop::collection::vec(op(), 1..120)) {
            let (mut grid, mut cells, mut canvas) = (Grid::default(), Vec::<Key>::new(), CANVAS);
            let mut before = grid.arrange(canvas, &cells);
            for op in ops {
                match &op {
                    Op::Join(id) if !cells.contains(&camera(*id)) => cells.push(camera(*id)),
                    Op::Leave(index) if !cells.is_empty() => drop(cells.remove(index.index(cells.len()))),
                    Op::Share(index) if !cells.is_empty() => {
                        let screen = (cells[index.index(cells.len())].0, SourceKind::Screen);
                        if !cells.contains(&screen) {
                            cells.push(screen);
                        }
                    }
                    Op::Shuffle(by) if !cells.is_empty() => {
                        let by = *by as usize % cells.len();
                        cells.rotate_left(by);
                    }
                    Op::Canvas(width, height) => canvas = Size::new(*width, *height),
                    _ => {}
                }
                let after = grid.arrange(canvas, &cells);
                prop_assert_eq!(verify_invariants(canvas, &cells, &after), Ok(()));
                // One operation moves at most one of the remaining cells.
                let slot = |a: &Arrangement, key: &Key| a.placed.iter().position(|(k, _)| k == key);
                let has_moved = |key: &Key| slot(&before, key).is_some_and(|s| Some(s) != slot(&after, key));
                let moved = after.placed.iter().filter(|(key, _)| has_moved(key));
                prop_assert!(moved.count() <= 1, "{op:?} moved more than one");
                // While rows and columns are the same, only the last row shifts.
                let ((rows, columns), unmoved) = (shape_of(&after.placed), !matches!(op, Op::Canvas(..)));
                if unmoved && rows > 1 && shape_of(&before.placed) == (rows, columns) {
                    let full = (rows - 1) * columns;
                    prop_assert!(after.placed[..full].iter().zip(&before.placed).all(|(a, b)| a.1 == b.1));
                }
                before = after;
            }
        }

        #[test]
        fn no_other_number_of_columns_has_larger_tiles(count in 2_usize..=49, w in 80_u32..1_000, h in 80_u32..600) {
            let canvas = Size::new(w * 2, h * 2);
            let placed = rects(canvas, count);
            let area = placed[0].width * placed[0].height;
            for columns in 1..=count as u32 {
                let other = tile(canvas, columns, (count as u32).div_ceil(columns));
                prop_assert!(other.width * other.height <= area);
            }
        }
    }
}
