//! The principles of the arranger as properties of random sequences of operations.

use proptest::prelude::*;

use super::*;

const CANVAS: Size = Size::new(1280, 720);

const KINDS: [LayoutKind; 13] = [
    LayoutKind::Auto,
    LayoutKind::Grid,
    LayoutKind::GridFill,
    LayoutKind::Speaker,
    LayoutKind::Spotlight,
    LayoutKind::Presentation,
    LayoutKind::PictureInPicture,
    LayoutKind::SideBySide,
    LayoutKind::Stage,
    LayoutKind::OnePlus5,
    LayoutKind::OnePlus7,
    LayoutKind::OnePlus9,
    LayoutKind::Active,
];

fn camera(id: u32) -> Key {
    (ParticipantId(id), SourceKind::Camera)
}

fn screen(id: u32) -> Key {
    (ParticipantId(id), SourceKind::Screen)
}

fn cameras(count: u32) -> Vec<Key> {
    (1..=count).map(camera).collect()
}

fn arrange(kind: LayoutKind, cells: &[Key], speaker: Option<u32>) -> Arrangement {
    let attendance = Attendance { cells, speaker: speaker.map(ParticipantId) };
    Arranger::default().arrange(&kind.into(), CANVAS, &attendance)
}

fn largest(arrangement: &Arrangement) -> Key {
    arrangement.placed.iter().max_by_key(|placed| placed.rect.width * placed.rect.height).expect("a tile").key
}

fn keys(arrangement: &Arrangement) -> Vec<Key> {
    arrangement.placed.iter().map(|placed| placed.key).collect()
}

#[test]
fn auto_is_chosen_by_who_is_present() {
    let one = arrange(LayoutKind::Auto, &cameras(1), None);
    assert_eq!(one.placed[0].rect, Rect { x: 0, y: 0, width: 1280, height: 720 });
    let two = arrange(LayoutKind::Auto, &cameras(2), None);
    assert_eq!((two.kind, two.placed[0].fit), (LayoutKind::SideBySide, ObjectFit::Cover));
    assert_eq!(two.placed[1].rect, Rect { x: 642, y: 0, width: 638, height: 720 });
    assert_eq!(arrange(LayoutKind::Auto, &cameras(3), None).kind, LayoutKind::Grid);
    for people in [1, 2, 9] {
        let shared = arrange(LayoutKind::Auto, &[cameras(people), vec![screen(1)]].concat(), Some(people));
        assert_eq!((shared.kind, largest(&shared)), (LayoutKind::Presentation, screen(1)), "{people}");
        assert_eq!(shared.placed.len() as u32, people + 1, "all are visible");
    }
}

#[test]
fn a_share_moves_one_cell_and_its_end_moves_it_back() {
    let mut arranger = Arranger::default();
    let mut seats =
        |cells: &[Key]| keys(&arranger.arrange(&Layout::default(), CANVAS, &Attendance { cells, speaker: None }));
    let before = seats(&cameras(4));
    let shared = seats(&[cameras(4), vec![screen(3)]].concat());
    assert_eq!(shared, [screen(3), camera(2), camera(3), camera(4), camera(1)]);
    assert_eq!(seats(&cameras(4)), before);
}

#[test]
fn the_speaker_is_large_where_the_kind_has_a_large_tile() {
    use LayoutKind::{OnePlus5, OnePlus7, OnePlus9, PictureInPicture, Presentation, Speaker, Spotlight};
    for kind in [Speaker, OnePlus5, OnePlus7, OnePlus9, PictureInPicture, Presentation, Spotlight, LayoutKind::Active] {
        assert_eq!(largest(&arrange(kind, &cameras(9), Some(7))), camera(7), "{kind:?}");
        let pinned = Layout { pinned: vec!["p3".parse().expect("a cell")], ..kind.into() };
        let attendance = Attendance { cells: &cameras(9), speaker: Some(ParticipantId(7)) };
        assert_eq!(largest(&Arranger::default().arrange(&pinned, CANVAS, &attendance)), camera(3), "{kind:?}");
    }
}

#[test]
fn a_spotlight_shows_only_the_pinned_cells() {
    let cells = [cameras(5), vec![screen(1)]].concat();
    let attendance = Attendance { cells: &cells, speaker: Some(ParticipantId(5)) };
    let pins = ["p3".parse().expect("a cell"), "p4".parse().expect("a cell")];
    for (pinned, expected) in [(&pins[..], vec![camera(3), camera(4)]), (&pins[..0], vec![screen(1)])] {
        let spotlight = Layout { pinned: pinned.to_vec(), ..LayoutKind::Spotlight.into() };
        assert_eq!(keys(&Arranger::default().arrange(&spotlight, CANVAS, &attendance)), expected);
    }
}

#[test]
fn kinds_have_their_numbers_of_tiles() {
    use LayoutKind::{Active, GridFill, OnePlus5, OnePlus7, OnePlus9, PictureInPicture, SideBySide, Spotlight, Stage};
    let kinds = [
        (OnePlus5, 6),
        (OnePlus7, 8),
        (OnePlus9, 10),
        (PictureInPicture, 2),
        (SideBySide, 2),
        (Spotlight, 1),
        (Active, 1),
        (GridFill, 20),
        (Stage, 20),
    ];
    for (kind, count) in kinds {
        let arrangement = arrange(kind, &cameras(20), Some(20));
        assert_eq!((arrangement.placed.len(), arrangement.hidden.len()), (count, 20 - count), "{kind:?}");
        assert!(keys(&arrangement).contains(&camera(20)), "the speaker is visible in {kind:?}");
    }
}

#[test]
fn cells_after_the_49th_are_hidden_until_they_speak() {
    let cells = cameras(60);
    let mut arranger = Arranger::default();
    let mut at = |speaker| {
        let attendance = Attendance { cells: &cells, speaker };
        arranger.arrange(&LayoutKind::Grid.into(), CANVAS, &attendance)
    };
    let before = at(None);
    assert_eq!((before.placed.len(), before.hidden.len(), before.hidden[0]), (49, 11, camera(50)));
    let after = at(Some(ParticipantId(55)));
    let moved: Vec<_> = keys(&before).into_iter().zip(keys(&after)).filter(|(a, b)| a != b).collect();
    assert_eq!(moved, [(camera(49), camera(55))], "the speaker takes the tile of one, and no other moves");
}

#[test]
fn the_number_of_hidden_cells_has_a_place_after_the_tiles() {
    use LayoutKind::{Grid, GridFill, Presentation, SideBySide, Speaker, Stage};
    for kind in [Grid, GridFill, Speaker, Presentation, Stage] {
        let few = Layout { max_tiles: 5, ..kind.into() };
        let at = |count| {
            let cells = cameras(count);
            Arranger::default().arrange(&few, CANVAS, &Attendance { cells: &cells, speaker: None })
        };
        assert_eq!((at(5).placed.len(), at(5).more), (5, None), "{kind:?}");
        let more = at(20).more.map(|more| more.count);
        assert_eq!((at(20).placed.len(), at(20).hidden.len(), more), (5, 15, Some(15)), "{kind:?}");
    }
    let strip = arrange(Presentation, &[cameras(60), vec![screen(1)]].concat(), None);
    let more = strip.more.expect("the strip has no room for all");
    assert_eq!(more.count as usize, strip.hidden.len());
    assert_eq!(more.rect.size(), strip.placed[1].rect.size(), "it takes a place of the strip");
    assert_eq!(arrange(SideBySide, &cameras(5), None).more, None, "shows two by its kind");
}

#[test]
fn six_cameras_beside_a_screen_fill_the_height() {
    let shared = arrange(LayoutKind::Presentation, &[cameras(6), vec![screen(1)]].concat(), None);
    let strip: Vec<Rect> = shared.placed[1..].iter().map(|placed| placed.rect).collect();
    assert!(strip.iter().all(|rect| rect.x == strip[0].x && rect.width > 200), "one column: {strip:?}");
    assert!(strip[5].y + strip[5].height - strip[0].y > 700);
}

#[test]
fn large_and_small_tiles_are_above_each_other_on_a_canvas_that_is_not_wide() {
    use LayoutKind::{OnePlus5, OnePlus7, OnePlus9, Presentation};
    for canvas in [Size::new(720, 1280), Size::new(720, 720)] {
        for kind in [OnePlus5, OnePlus7, OnePlus9, Presentation] {
            let cells = [cameras(9), vec![screen(1)]].concat();
            let arrangement =
                Arranger::default().arrange(&kind.into(), canvas, &Attendance { cells: &cells, speaker: None });
            let (large, small) = arrangement.placed.split_first().expect("tiles");
            assert_eq!(large.rect.width, canvas.width, "{kind:?}");
            for Placed { rect, .. } in small {
                assert!(rect.y >= large.rect.height, "{kind:?} {rect:?}");
                assert!(rect.width * 3 >= rect.height * 4 - 8, "no tile is narrower than 4:3: {kind:?} {rect:?}");
            }
        }
    }
}

#[test]
fn a_custom_layout_selects_by_id_role_and_rank() {
    let layout: Layout = serde_json::from_value(serde_json::json!({"kind": "custom", "tiles": [
        {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0, "source": "screen"},
        {"x": 0.7, "y": 0.7, "width": 0.25, "height": 0.25, "z": 2, "source": "speaker", "fit": "cover"},
        {"x": 0.0, "y": 0.7, "width": 0.25, "height": 0.25, "z": 1, "source": "rank:2"},
        {"x": 0.4, "y": 0.7, "width": 0.25, "height": 0.25, "z": 1, "source": "p9"},
        {"x": 0.4, "y": 0.0, "width": 0.25, "height": 0.25, "z": 1, "source": "p4"},
    ]}))
    .expect("a layout");
    let cells = [cameras(5), vec![screen(2)]].concat();
    let arrangement =
        Arranger::default().arrange(&layout, CANVAS, &Attendance { cells: &cells, speaker: Some(ParticipantId(1)) });
    // Ranks count 2, 3 and 5: 1 speaks, and 4 has its own tile. 9 is absent.
    assert_eq!(keys(&arrangement), [screen(2), camera(3), camera(4), camera(1)]);
    assert_eq!(arrangement.placed[3].rect, Rect { x: 896, y: 504, width: 320, height: 180 });
    assert_eq!(arrangement.placed[3].fit, ObjectFit::Cover);
    assert_eq!(arrangement.hidden.len(), 2);
}

#[derive(Debug, Clone)]
enum Op {
    Join(u32),
    Leave(prop::sample::Index),
    Share(prop::sample::Index),
    Speak(prop::sample::Index),
    Pin(prop::sample::Index),
    Unpin,
    Kind(LayoutKind),
    MaxTiles(u32),
    Canvas(u32, u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u32..80).prop_map(Op::Join),
        3 => any::<prop::sample::Index>().prop_map(Op::Leave),
        1 => any::<prop::sample::Index>().prop_map(Op::Share),
        4 => any::<prop::sample::Index>().prop_map(Op::Speak),
        1 => any::<prop::sample::Index>().prop_map(Op::Pin),
        1 => Just(Op::Unpin),
        2 => prop::sample::select(KINDS.to_vec()).prop_map(Op::Kind),
        1 => (1_u32..=49).prop_map(Op::MaxTiles),
        1 => (80_u32..1_000, 80_u32..1_000).prop_map(|(w, h)| Op::Canvas(w * 2, h * 2)),
    ]
}

proptest! {
    #[test]
    fn random_operations_keep_the_principles(ops in prop::collection::vec(op(), 1..100)) {
        let (mut arranger, mut cells, mut speaker) = (Arranger::default(), Vec::<Key>::new(), None);
        let (mut layout, mut canvas) = (Layout::default(), CANVAS);
        let mut before = Arrangement::default();
        for op in ops {
            match &op {
                Op::Join(id) if !cells.contains(&camera(*id)) => cells.push(camera(*id)),
                Op::Leave(index) if !cells.is_empty() => {
                    let (gone, kind) = cells.remove(index.index(cells.len()));
                    if kind == SourceKind::Camera {
                        cells.retain(|(id, _)| *id != gone);
                        speaker = speaker.filter(|id| *id != gone);
                    }
                }
                Op::Share(index) if !cells.is_empty() => {
                    let screen = screen(cells[index.index(cells.len())].0.0);
                    if !cells.contains(&screen) {
                        cells.push(screen);
                    }
                }
                Op::Speak(index) if !cells.is_empty() => speaker = Some(cells[index.index(cells.len())].0),
                Op::Pin(index) if !cells.is_empty() => {
                    let (participant, kind) = cells[index.index(cells.len())];
                    layout.pinned.push(CellName { participant, kind });
                }
                Op::Unpin => layout.pinned.clear(),
                Op::Kind(kind) => layout.kind = *kind,
                Op::MaxTiles(count) => layout.max_tiles = *count,
                Op::Canvas(width, height) => canvas = Size::new(*width, *height),
                _ => {}
            }
            let after = arranger.arrange(&layout, canvas, &Attendance { cells: &cells, speaker });
            prop_assert_eq!(verify_invariants(canvas, &cells, &after), Ok(()));
            let again = arranger.arrange(&layout, canvas, &Attendance { cells: &cells, speaker });
            prop_assert_eq!(&again, &after, "nothing moves without need");
            prop_assert!(after.placed.len() <= layout.max_tiles as usize);
            prop_assert!(cells.is_empty() || !after.placed.is_empty());

            let seat = |a: &Arrangement, key: &Key| a.placed.iter().position(|placed| placed.key == *key);
            let shape = |a: &Arrangement| a.placed.iter().map(|placed| placed.rect).collect::<Vec<_>>();
            let moved = cells.iter().filter(|key| {
                let (from, to) = (seat(&before, key), seat(&after, key));
                from.is_some() && to.is_some() && from != to
            }).count();
            let same_kind = before.kind == after.kind;
            match &op {
                // Two exchange their seats when one becomes large; a third may become visible.
                Op::Speak(_) if same_kind => {
                    prop_assert!(moved <= 2, "{} moved when one spoke", moved);
                    prop_assert_eq!(shape(&before), shape(&after), "a speaker change moves no tile");
                    if matches!(after.kind, LayoutKind::Grid | LayoutKind::GridFill) {
                        prop_assert_eq!(moved, 0);
                    }
                }
                Op::Join(_) if same_kind => prop_assert!(moved <= 1, "{} moved when one joined", moved),
                // The last one takes the free seat.
                Op::Leave(_) if same_kind && matches!(after.kind, LayoutKind::Grid | LayoutKind::GridFill) => {
                    let gone = before.placed.len() + before.hidden.len() - after.placed.len() - after.hidden.len();
                    prop_assert!(moved <= gone, "{} moved when {} left", moved, gone);
                }
                _ => {}
            }

            let area = |placed: &&Placed| placed.rect.width * placed.rect.height;
            let screens = || after.placed.iter().filter(|placed| placed.key.1 == SourceKind::Screen);
            let faces = || after.placed.iter().filter(|placed| placed.key.1 == SourceKind::Camera);
            let pinned = |key: &Key| layout.pinned.iter().any(|pin| (pin.participant, pin.kind) == *key);
            let first = cells.iter().filter(|key| key.1 == SourceKind::Screen || pinned(key)).count();
            let comes_back = |id: &u32| layout.pinned.iter().any(|pin| pin.participant == ParticipantId(*id));
            if same_kind && matches!(&op, Op::Speak(_)) || matches!(&op, Op::Join(id) if same_kind && !comes_back(id)) {
                for pin in before.placed.iter().filter(|placed| pinned(&placed.key)) {
                    prop_assert_eq!(seat(&before, &pin.key), seat(&after, &pin.key), "a pinned tile stays");
                }
            }
            match after.more {
                Some(more) => prop_assert_eq!(more.count as usize, after.hidden.len()),
                // There may be room for the large tiles only.
                None => prop_assert!(
                    after.hidden.is_empty() || !shows_all(after.kind) || after.placed.len() <= STAGE.max(first)
                ),
            }
            if after.kind == LayoutKind::Presentation {
                let smallest = screens().map(|placed| area(&placed)).min().unwrap_or(u32::MAX);
                let largest = faces().filter(|placed| !pinned(&placed.key)).map(|placed| area(&placed)).max();
                prop_assert!(largest.unwrap_or(0) <= smallest, "a face is larger than a screen");
            }
            if after.kind != LayoutKind::Active {
                let shows_unpinned_face = faces().any(|placed| !pinned(&placed.key));
                for hidden in &after.hidden {
                    let ranks = hidden.1 == SourceKind::Screen || pinned(hidden);
                    prop_assert!(!(ranks && shows_unpinned_face), "{:?} is hidden behind a face", hidden);
                    let speaks = Some(hidden.0) == speaker && hidden.1 == SourceKind::Camera;
                    prop_assert!(!(speaks && shows_unpinned_face), "the speaker is hidden");
                }
            }
            before = after;
        }
    }
}
