//! The arranger: which cell gets which tile, with as few moves as possible.
//!
//! Owns: the seats of the cells and the order in which people spoke. Does not know: names, pixels. In: the layout, the
//! canvas, and the cells with the speaker. Out: [`Arrangement`].
//!
//! 1. Tiles lie inside the canvas, have even coordinates and do not overlap, except with the kinds `picture_in_picture`
//!    and `custom`.
//! 2. A new cell takes the next free seat; when a cell leaves, the last one takes its seat; no other cell moves. A cell
//!    that becomes large exchanges its seat with the one it replaces.
//! 3. A speaker change moves nothing where all tiles are equal and visible.
//! 4. When there are more cells than tiles, those without a tile are, in this order: cameras, longest silence first;
//!    the speaker's camera; screens; pinned cells. The kind `active` shows no screen while there is a camera. A cell
//!    that becomes visible takes the tile of the one that is hidden.
//! 5. Kinds that show all cells if there is room show the number of hidden ones in a further tile, the last.
//! 6. While the kind `auto` or `presentation` shows a screen, no camera has a larger tile.

use std::collections::{BTreeMap, BTreeSet};

use super::custom::{CellName, TileSource};
use super::tiling::Area;
use super::{GAP, Layout, LayoutKind, More, ObjectFit};
use crate::id::ParticipantId;
use crate::media::{Rect, Size, SourceKind};

/// Large tiles of the kind `stage` without pinned cells and screens.
const STAGE: usize = 4;

/// A cell: the camera or screen of a participant.
pub type Key = (ParticipantId, SourceKind);

/// A cell with its tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The cell.
    pub key: Key,
    /// Its rectangle on the canvas.
    pub rect: Rect,
    /// How its picture fills the rectangle.
    pub fit: ObjectFit,
}

/// The arrangement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrangement {
    /// What the kind `auto` has chosen, or the kind that was asked for.
    pub kind: LayoutKind,
    /// The visible cells, in the order in which they are drawn.
    pub placed: Vec<Placed>,
    /// The hidden cells.
    pub hidden: Vec<Key>,
    /// The number of hidden cells, of kinds that show all cells if there is room.
    pub more: Option<More>,
}

/// The cells to arrange, and the speaker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attendance<'a> {
    /// The cells; new ones get seats in this order.
    pub cells: &'a [Key],
    /// The speaker, or the latest one.
    pub speaker: Option<ParticipantId>,
}

/// The seats of all cells.
#[derive(Debug, Clone, Default)]
pub struct Arranger {
    /// Large tiles first.
    seats: Vec<Key>,
    /// When each participant became the speaker, as a count.
    spoke: BTreeMap<ParticipantId, u64>,
    speaker: Option<ParticipantId>,
}

/// The tiles of a kind: the first `large` of them are for cells that the kind makes large.
struct Pattern {
    large: usize,
    rects: Vec<Rect>,
    fit: ObjectFit,
}

impl Arranger {
    /// Arranges the cells on a canvas with even sides.
    pub fn arrange(&mut self, layout: &Layout, canvas: Size, attendance: &Attendance<'_>) -> Arrangement {
        self.seat(attendance.cells);
        self.hear(attendance.speaker);
        let kind = self.chosen(layout.kind);
        let arrangement = if kind == LayoutKind::Custom {
            self.custom(layout, canvas)
        } else {
            self.by_pattern(kind, layout, canvas)
        };
        debug_assert_eq!(verify_invariants(canvas, attendance.cells, &arrangement), Ok(()));
        arrangement
    }

    /// Seats new cells, and fills the seats of those that have left.
    fn seat(&mut self, cells: &[Key]) {
        let wanted: BTreeSet<Key> = cells.iter().copied().collect();
        let mut index = 0;
        while index < self.seats.len() {
            if wanted.contains(&self.seats[index]) {
                index += 1;
            } else {
                self.seats.swap_remove(index);
            }
        }
        let mut seated: BTreeSet<Key> = self.seats.iter().copied().collect();
        self.seats.extend(cells.iter().filter(|key| seated.insert(**key)));
        self.spoke.retain(|id, _| wanted.iter().any(|(participant, _)| participant == id));
    }

    fn hear(&mut self, speaker: Option<ParticipantId>) {
        self.speaker = speaker;
        if let Some(speaker) = speaker {
            let newest = self.spoke.values().max().copied().unwrap_or(0);
            let spoke = self.spoke.entry(speaker).or_default();
            if *spoke == 0 || *spoke < newest {
                *spoke = newest + 1;
            }
        }
    }

    fn is_screen(key: Key) -> bool {
        key.1 == SourceKind::Screen
    }

    fn chosen(&self, kind: LayoutKind) -> LayoutKind {
        match (kind, self.seats.len()) {
            (LayoutKind::Auto, _) if self.seats.iter().any(|key| Self::is_screen(*key)) => LayoutKind::Presentation,
            (LayoutKind::Auto, 2) => LayoutKind::SideBySide,
            (LayoutKind::Auto, _) => LayoutKind::Grid,
            _ => kind,
        }
    }

    /// The rank of a cell: pinned ones before screens, screens before the speaker, the speaker before others; then the
    /// latest speaker. Smaller is better.
    fn rank(&self, key: Key, pinned: &[CellName]) -> (usize, bool, bool, u64) {
        let pin = pinned.iter().position(|pin| (pin.participant, pin.kind) == key).unwrap_or(usize::MAX);
        let spoke = self.spoke.get(&key.0).copied().unwrap_or(0);
        let screen = Self::is_screen(key);
        (pin, !screen, Some(key.0) != self.speaker, u64::MAX - spoke)
    }

    /// The cells in the order of their ranks; equal ones in the order of their seats.
    fn ranked(&self, pinned: &[CellName]) -> Vec<Key> {
        let mut ranked = self.seats.clone();
        ranked.sort_by_key(|key| self.rank(*key, pinned));
        ranked
    }

    fn by_pattern(&mut self, kind: LayoutKind, layout: &Layout, canvas: Size) -> Arrangement {
        let ranked = self.ranked(&layout.pinned);
        let pinned = |key: &Key| layout.pinned.iter().any(|pin| (pin.participant, pin.kind) == *key);
        // The cells that rank before all others: pinned ones and screens; with `spotlight`, screens only without pins.
        let only_pinned = kind == LayoutKind::Spotlight && ranked.iter().any(pinned);
        let first = ranked.iter().filter(|key| pinned(key) || !only_pinned && Self::is_screen(**key)).count();
        let most = layout.max_tiles as usize;
        let places = if shows_all(kind) { most + 1 } else { most };
        let pattern = pattern(kind, Area::canvas(canvas, layout.gap.unwrap_or(GAP)), first, ranked.len().min(places));
        let mut large: Vec<Key> = ranked.iter().copied().take(pattern.large.min(most)).collect();
        if kind == LayoutKind::Active
            && let Some(face) = ranked.iter().find(|key| !Self::is_screen(**key))
        {
            large = vec![*face];
        }
        self.seat_first(&large);
        let fitting = pattern.rects.len().min(most).min(self.seats.len());
        let counts = shows_all(kind) && fitting < self.seats.len() && pattern.rects.len() > large.len().max(1);
        let seen = if counts { fitting.min(pattern.rects.len() - 1) } else { fitting };
        self.show(seen, large.len(), &ranked);
        let placed = self.seats[..seen].iter().zip(&pattern.rects).map(|(key, rect)| Placed {
            key: *key,
            rect: *rect,
            fit: if Self::is_screen(*key) { ObjectFit::Auto } else { layout.fit.unwrap_or(pattern.fit) },
        });
        let count = (self.seats.len() - seen) as u32;
        let more = pattern.rects.get(seen).filter(|_| counts).map(|rect| More { count, rect: *rect });
        Arrangement { kind, placed: placed.collect(), hidden: self.seats[seen..].to_vec(), more }
    }

    /// Gives these cells the first seats. Those that have one keep it; the others exchange seats with the cells there.
    fn seat_first(&mut self, large: &[Key]) {
        for key in large {
            let Some(at) = self.seats.iter().position(|seat| seat == key) else { continue };
            if at >= large.len()
                && let Some(free) = self.seats[..large.len()].iter().position(|seat| !large.contains(seat))
            {
                self.seats.swap(at, free);
            }
        }
    }

    /// Makes the best ranked cells visible: each that has no tile takes the one of a visible cell that ranks lower.
    fn show(&mut self, seen: usize, large: usize, ranked: &[Key]) {
        let best: BTreeSet<Key> = ranked.iter().copied().take(seen).collect();
        // The cells in large tiles are among the best, except with the kind `active`.
        for hidden in seen..self.seats.len() {
            if best.contains(&self.seats[hidden])
                && let Some(shown) = (large..seen).rev().find(|shown| !best.contains(&self.seats[*shown]))
            {
                self.seats.swap(hidden, shown);
            }
        }
    }

    fn custom(&self, layout: &Layout, canvas: Size) -> Arrangement {
        let mut tiles = layout.tiles.clone();
        tiles.sort_by_key(|tile| tile.z);
        tiles.truncate(layout.max_tiles as usize);
        let mut free: Vec<Key> = self.seats.clone();
        let mut take = |wanted: &dyn Fn(&Key) -> bool| {
            let at = free.iter().position(wanted)?;
            Some(free.remove(at))
        };
        // Named cells, then the screen and the speaker; ranks count what is left.
        let mut shown: Vec<Option<Key>> = vec![None; tiles.len()];
        for pass in 0..3 {
            for (tile, shown) in tiles.iter().zip(&mut shown) {
                *shown = match (pass, tile.source) {
                    (0, TileSource::Cell(CellName { participant, kind })) => take(&|key| *key == (participant, kind)),
                    (1, TileSource::Screen) => take(&|key| Self::is_screen(*key)),
                    (2, TileSource::Speaker) => take(&|key| Some(key.0) == self.speaker && !Self::is_screen(*key)),
                    _ => continue,
                };
            }
        }
        let mut faces: Vec<Key> = free.iter().copied().filter(|key| !Self::is_screen(*key)).collect();
        faces.sort();
        for (tile, shown) in tiles.iter().zip(&mut shown) {
            if let TileSource::Rank(rank) = tile.source
                && let Some(face) = faces.get(rank as usize - 1)
                && let Some(at) = free.iter().position(|key| key == face)
            {
                *shown = Some(free.remove(at));
            }
        }
        let placed = tiles.iter().zip(shown).filter_map(|(tile, key)| {
            Some(Placed { key: key?, rect: tile.rect(canvas), fit: tile.fit.or(layout.fit).unwrap_or_default() })
        });
        Arrangement { kind: LayoutKind::Custom, placed: placed.collect(), hidden: free, more: None }
    }
}

/// Whether a kind shows all cells if there is room.
const fn shows_all(kind: LayoutKind) -> bool {
    use LayoutKind::{Auto, Grid, GridFill, Presentation, Speaker, Stage};
    matches!(kind, Auto | Grid | GridFill | Speaker | Presentation | Stage)
}

/// The tiles of a kind for `count` cells, of which `first` are pinned or screens.
fn pattern(kind: LayoutKind, area: Area, first: usize, count: usize) -> Pattern {
    use ObjectFit::{Auto, Cover};
    let tiles = |large: usize, rects: Vec<Rect>, fit: ObjectFit| Pattern { large: large.min(count), rects, fit };
    let one = |rects: Vec<Rect>| tiles(1, rects, Auto);
    let all = count as u32;
    match kind {
        LayoutKind::Auto | LayoutKind::Grid | LayoutKind::Custom => tiles(0, area.equal(all), Auto),
        LayoutKind::Active => one(area.equal(1)),
        LayoutKind::GridFill => tiles(0, area.filled(all), Cover),
        LayoutKind::SideBySide => tiles(0, area.filled(all.min(2)), Cover),
        LayoutKind::Spotlight => {
            let large = first.clamp(1, count.max(1));
            tiles(large, area.equal(large as u32), Auto)
        }
        LayoutKind::Speaker => one(with_strip(area, 1, count, false)),
        LayoutKind::Presentation => {
            let large = first.max(1);
            tiles(large, with_strip(area, large, count, true), Auto)
        }
        LayoutKind::Stage => {
            let large = if first == 0 { STAGE } else { first };
            tiles(large, with_strip(area, large, count, false), Auto)
        }
        LayoutKind::PictureInPicture => one([area.equal(1), vec![area.inset()]].concat()),
        LayoutKind::OnePlus5 => one(one_plus(area, 3, count)),
        LayoutKind::OnePlus7 => one(one_plus(area, 4, count)),
        LayoutKind::OnePlus9 => one(one_plus(area, 5, count)),
    }
}

/// Whether large and small tiles are above each other, because the canvas is not wide.
const fn is_stacked(canvas: Size) -> bool {
    3 * canvas.width < 4 * canvas.height
}

/// A large tile and up to `2 * side - 1` small ones.
fn one_plus(area: Area, side: u32, count: usize) -> Vec<Rect> {
    let (canvas, count) = (area.rect.size(), count.min(2 * side as usize));
    if !is_stacked(canvas) {
        return area.corner(side, count as u32);
    }
    if count <= 2 {
        return with_strip(area, 1, count, true);
    }
    let [large, below] = area.split_at_y(stacked_height(canvas));
    [large.equal(1), below.equal(count as u32 - 1)].concat()
}

/// The height of the large tiles above the small ones: enough for a picture of 16:9 in full width.
fn stacked_height(canvas: Size) -> u32 {
    (canvas.height * 2 / 5).max(canvas.width * 9 / 16)
}

/// Large tiles, and a strip of the others: beside them or below them; always below on a canvas that is not wide.
fn with_strip(area: Area, large: usize, count: usize, beside: bool) -> Vec<Rect> {
    let canvas = area.rect.size();
    let Some(small) = count.checked_sub(large).filter(|small| *small > 0) else { return area.equal(count as u32) };
    let [main, strip] = if canvas.height > canvas.width || beside && is_stacked(canvas) {
        area.split_at_y(stacked_height(canvas))
    } else if beside {
        area.split_at_x(canvas.width * 4 / 5 - area.gap)
    } else {
        area.split_at_y(canvas.height * 4 / 5 - area.gap)
    };
    let main = main.equal(large as u32);
    let strip = strip.strip(small as u32, canvas, main[0].size());
    [main, strip].concat()
}

/// Checks the invariants of an arrangement; the error names the violated one.
pub fn verify_invariants(canvas: Size, cells: &[Key], arrangement: &Arrangement) -> Result<(), String> {
    let placed = arrangement.placed.iter().map(|placed| placed.key);
    let all: Vec<Key> = placed.chain(arrangement.hidden.iter().copied()).collect();
    let (wanted, given): (BTreeSet<Key>, BTreeSet<Key>) =
        (cells.iter().copied().collect(), all.iter().copied().collect());
    if wanted != given || all.len() != given.len() {
        return Err(format!("cells {wanted:?} were placed or hidden as {all:?}"));
    }
    let may_overlap = matches!(arrangement.kind, LayoutKind::PictureInPicture | LayoutKind::Custom);
    let more = arrangement.more.map(|more| ("the number of hidden cells".to_owned(), more.rect));
    let rects: Vec<(String, Rect)> =
        arrangement.placed.iter().map(|placed| (format!("{:?}", placed.key), placed.rect)).chain(more).collect();
    for (i, (key, a)) in rects.iter().enumerate() {
        if a.width == 0 || a.height == 0 || [a.x, a.y, a.width, a.height].iter().any(|n| n % 2 != 0) {
            return Err(format!("{key} is empty or odd: {a:?}"));
        }
        if a.x + a.width > canvas.width || a.y + a.height > canvas.height {
            return Err(format!("{key} reaches beyond {canvas}: {a:?}"));
        }
        for (other, b) in &rects[i + 1..] {
            if !may_overlap
                && a.x < b.x + b.width
                && b.x < a.x + a.width
                && a.y < b.y + b.height
                && b.y < a.y + a.height
            {
                return Err(format!("{key} and {other} overlap: {a:?} {b:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
