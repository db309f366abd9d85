//! Transitions: where tiles are between two scenes.
//!
//! Owns: the motion of each tile that moves, appears or leaves, and its easing. Does not know: pictures. In: the places
//! of two scenes, and the time. Out: [`Moved`] for each such tile, until all have arrived. A scene that comes during a
//! transition begins another one, from where the tiles are.

use std::time::Duration;

use crate::id::ParticipantId;
use crate::layout::Tile;
use crate::media::{Rect, SourceKind};
use crate::time::Timestamp;

/// Size of a tile that begins to appear, as a part of its full size.
const SMALL: f64 = 0.8;

/// The camera or screen of a participant.
type Key = (ParticipantId, SourceKind);

/// A tile and its rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) rect: Rect,
}

impl Place {
    pub(super) const fn of(tile: &Tile) -> Self {
        Self { key: (tile.participant, tile.kind), rect: tile.rect }
    }
}

/// A tile that is not in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) key: Key,
    /// Where it is, with even coordinates and sizes.
    pub(super) rect: Rect,
    /// 0 to 255.
    pub(super) opacity: u8,
}

/// The motion of one tile.
#[derive(Debug, Clone, Copy)]
struct Motion {
    key: Key,
    from: Rect,
    to: Rect,
    /// At the beginning and at the end, from 0 to 1.
    opacity: (f64, f64),
}

/// The motions between two scenes.
#[derive(Debug, Clone)]
pub(super) struct Transition {
    motions: Vec<Motion>,
    takes: Duration,
    /// The time of the first picture after the change.
    begun: Option<Timestamp>,
    /// The time of the latest picture.
    seen: Option<Timestamp>,
}

impl Transition {
    /// The transition between the places of two scenes. `running` is the one to the first of them, if it has not
    /// ended. None if no tile moves, appears or leaves.
    pub(super) fn between(running: Option<Self>, before: &[Place], after: &[Place], takes: Duration) -> Option<Self> {
        let running = running.as_ref();
        let (now, progress) = running.map_or((Vec::new(), 1.0), |running| (running.current(), running.progress()));
        let current = |key: Key| now.iter().find(|(at, ..)| *at == key).map(|(_, rect, opacity)| (*rect, *opacity));
        let mut motions = Vec::new();
        for Place { key, rect } in before.iter().filter(|place| !after.iter().any(|other| other.key == place.key)) {
            let (from, opacity) = current(*key).unwrap_or((*rect, 1.0));
            motions.push(Motion { key: *key, from, to: from, opacity: (opacity, 0.0) });
        }
        // Tiles that were leaving already go on.
        let leaving = running.into_iter().flat_map(|running| &running.motions).filter(|motion| motion.opacity.1 == 0.0);
        for motion in leaving.filter(|motion| progress < 1.0 && !after.iter().any(|place| place.key == motion.key)) {
            let (from, opacity) = current(motion.key).unwrap_or((motion.to, 0.0));
            motions.push(Motion { from, to: from, opacity: (opacity, 0.0), ..*motion });
        }
        for Place { key, rect } in after {
            let known = before.iter().find(|place| place.key == *key).map(|place| (place.rect, 1.0));
            let (from, opacity) = current(*key).or(known).unwrap_or_else(|| (scaled(*rect, SMALL), 0.0));
            if (from, opacity) != (*rect, 1.0) {
                motions.push(Motion { key: *key, from, to: *rect, opacity: (opacity, 1.0) });
            }
        }
        (!motions.is_empty()).then_some(Self { motions, takes, begun: None, seen: None })
    }

    /// The tiles that are not in their places in a picture at `now`; None when all have arrived.
    pub(super) fn at(&mut self, now: Timestamp) -> Option<Vec<Moved>> {
        self.begun.get_or_insert(now);
        self.seen = Some(now);
        if self.progress() >= 1.0 {
            return None;
        }
        let moved = |(key, rect, opacity): (Key, Rect, f64)| {
            let opacity = (opacity * f64::from(u8::MAX)).round() as u8;
            Moved { key, rect, opacity }
        };
        Some(self.current().into_iter().map(moved).collect())
    }

    /// The part of the time that has passed until the latest picture, 0 to 1.
    fn progress(&self) -> f64 {
        let (Some(begun), Some(seen)) = (self.begun, self.seen) else { return 0.0 };
        (seen.since(begun).as_secs_f64() / self.takes.as_secs_f64()).min(1.0)
    }

    /// Each tile with its rectangle and opacity in the latest picture.
    fn current(&self) -> Vec<(Key, Rect, f64)> {
        let progress = eased(self.progress());
        let at = |motion: &Motion| {
            let (from, to) = motion.opacity;
            (motion.key, between(motion.from, motion.to, progress), from + (to - from) * progress)
        };
        self.motions.iter().map(at).collect()
    }
}

/// Fast at the beginning, slow at the end (cubic).
fn eased(progress: f64) -> f64 {
    1.0 - (1.0 - progress).powi(3)
}

/// The rectangle at this part of the way, with even edges.
fn between(from: Rect, to: Rect, part: f64) -> Rect {
    let edge = |from: u32, to: u32| {
        let exact = f64::from(from) + (f64::from(to) - f64::from(from)) * part;
        (exact / 2.0).round() as u32 * 2
    };
    let span = |start: (u32, u32), length: (u32, u32)| {
        let first = edge(start.0, start.1);
        (first, edge(start.0 + length.0, start.1 + length.1).saturating_sub(first).max(2))
    };
    let (x, width) = span((from.x, to.x), (from.width, to.width));
    let (y, height) = span((from.y, to.y), (from.height, to.height));
    Rect { x, y, width, height }
}

/// A rectangle with the same centre and sides scaled by `by`.
fn scaled(rect: Rect, by: f64) -> Rect {
    let middle = |start: u32, length: u32| start + (length / 4) * 2;
    let point = Rect { x: middle(rect.x, rect.width) - 1, y: middle(rect.y, rect.height) - 1, width: 2, height: 2 };
    between(point, rect, by)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAKES: Duration = Duration::from_millis(250);

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    const fn place(id: u32, rect: [u32; 4]) -> Place {
        let [x, y, width, height] = rect;
        Place { key: (ParticipantId(id), SourceKind::Camera), rect: Rect { x, y, width, height } }
    }

    fn rect_of(moved: &[Moved], id: u32) -> Moved {
        *moved.iter().find(|moved| moved.key.0 == ParticipantId(id)).expect("it moves")
    }

    #[test]
    fn tiles_move_appear_and_leave_within_the_time_of_a_transition() {
        let before = [place(1, [0, 0, 640, 360]), place(2, [640, 0, 640, 360]), place(3, [0, 360, 640, 360])];
        let after = [place(1, [0, 0, 640, 360]), place(2, [0, 360, 640, 360]), place(4, [640, 0, 640, 360])];
        let mut transition = Transition::between(None, &before, &after, TAKES).expect("tiles move");
        let first = transition.at(at(0)).expect("begins");
        assert_eq!(first.len(), 3, "the first tile stays in its place");
        assert_eq!((rect_of(&first, 2).rect, rect_of(&first, 2).opacity), (before[1].rect, 255));
        assert_eq!((rect_of(&first, 3).rect, rect_of(&first, 3).opacity), (before[2].rect, 255));
        assert_eq!((rect_of(&first, 4).rect.width, rect_of(&first, 4).opacity), (512, 0));
        let half = transition.at(at(125)).expect("under way");
        assert!(rect_of(&half, 2).rect.x < 320, "more than half of the way, because it is fast at the beginning");
        assert!(rect_of(&half, 3).opacity < 128 && rect_of(&half, 4).opacity > 128);
        assert_eq!(transition.at(at(250)), None);
    }

    #[test]
    fn scenes_with_the_same_places_have_no_transition() {
        let places = [place(1, [0, 0, 640, 360]), place(2, [640, 0, 640, 360])];
        assert!(Transition::between(None, &places, &places, TAKES).is_none());
        let reversed = [places[1], places[0]];
        assert!(Transition::between(None, &places, &reversed, TAKES).is_none(), "the order of drawing differs");
    }

    proptest! {
        #[test]
        fn a_scene_during_a_transition_begins_where_the_tiles_are(
            rects in prop::collection::vec([0_u32..300, 0_u32..300, 8_u32..200, 8_u32..200], 3),
            here in prop::collection::vec(prop::bool::ANY, 9), shown in 0_u64..250,
        ) {
            let scene = |n: usize| -> Vec<Place> {
                let ids = (0..3).filter(|id| here[n * 3 + id]);
                let rect = |id: usize| rects[(id + n) % 3].map(|side| side * 2);
                ids.map(|id| place(id as u32, rect(id))).collect()
            };
            let (first, second, third) = (scene(0), scene(1), scene(2));
            let Some(mut running) = Transition::between(None, &first, &second, TAKES) else { return Ok(()) };
            running.at(at(0));
            let before = running.at(at(shown)).expect("not ended");
            let next = Transition::between(Some(running), &second, &third, TAKES);
            let moved = next.and_then(|mut next| next.at(at(shown + 33))).unwrap_or_default();
            for Moved { key, rect, opacity } in before {
                match moved.iter().find(|moved| moved.key == key) {
                    Some(next) => prop_assert_eq!((next.rect, next.opacity), (rect, opacity)),
                    // It has arrived where it stays.
                    None => prop_assert!(third.iter().any(|place| (place.key, place.rect) == (key, rect))),
                }
            }
        }

        #[test]
        fn tiles_on_the_way_are_even_and_between_both_places(
            from in [0_u32..300, 0_u32..300, 1_u32..200, 1_u32..200],
            to in [0_u32..300, 0_u32..300, 1_u32..200, 1_u32..200], ms in 0_u64..250,
        ) {
            let (before, after) = (place(1, from.map(|side| side * 2)), place(1, to.map(|side| side * 2)));
            let Some(mut transition) = Transition::between(None, &[before], &[after], TAKES) else { return Ok(()) };
            transition.at(at(0));
            let rect = transition.at(at(ms)).expect("not ended")[0].rect;
            prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|side| side % 2 == 0 ), "{:?}", rect);
            prop_assert!(rect.width >= 2 && rect.height >= 2);
            let (a, b) = (before.rect, after.rect);
            prop_assert!(rect.x >= a.x.min(b.x) && rect.y >= a.y.min(b.y));
            prop_assert!(rect.x + rect.width <= (a.x + a.width).max(b.x + b.width));
            prop_assert!(rect.y + rect.height <= (a.y + a.height).max(b.y + b.height));
        }
    }
}
