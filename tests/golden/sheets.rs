//! Contact sheets: each layout with 1 to 49 people on three canvases, reduced to a picture for each of both.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use commingle::codec::{Picture, PictureMut, scale};
use commingle::id::{ParticipantId, SourceId, ViewName};
use commingle::layout::{Arranger, Attendance, Layout, LayoutKind, Scene, Style, Tile};
use commingle::media::{Look, Rotation, Size, SourceKind};
use commingle::mixer::compose::{Compositor, FrameSlot};

use crate::{NOW, Slots, check_rgb, people, png_file};

const PEOPLE: [u32; 8] = [1, 2, 3, 5, 9, 16, 25, 49];
/// Pictures in a row of a sheet, and the pixels between them.
const COLUMNS: u32 = 4;
const MARGIN: u32 = 6;
/// The source of the shared screen.
const SCREEN: SourceId = SourceId(1000);

/// The pictures of 49 people and of a screen.
static SLOTS: LazyLock<Slots> = LazyLock::new(|| {
    let slot = |kind, picture| {
        let slot = Arc::new(FrameSlot::new(kind));
        slot.writer().put(picture, Look { rotation: Rotation::None, ..Look::default() }, NOW);
        slot
    };
    let people = (1..=49).map(|id| (SourceId(id), slot(SourceKind::Camera, people::flat(id))));
    let mut slots: HashMap<_, _> = people.collect();
    slots.insert(SCREEN, slot(SourceKind::Screen, people::slides()));
    slots
});

/// The second person speaks; the first one shares its screen, if one is shared.
fn compose(layout: &Layout, canvas: Size, people: u32, shares: bool) -> Picture {
    let cells: Vec<_> = (1..=people)
        .map(|id| (ParticipantId(id), SourceKind::Camera))
        .chain(shares.then_some((ParticipantId(1), SourceKind::Screen)))
        .collect();
    let speaker = ParticipantId(people.min(2));
    let arrangement =
        Arranger::default().arrange(layout, canvas, &Attendance { cells: &cells, speaker: Some(speaker) });
    let tiles = arrangement.placed.iter().map(|placed| {
        let (participant, kind) = placed.key;
        let is_screen = kind == SourceKind::Screen;
        let name = people::NAMES[(participant.0 as usize - 1) % people::NAMES.len()];
        Tile {
            participant,
            kind,
            // Every eleventh camera is off.
            source: if is_screen { Some(SCREEN) } else { Some(SourceId(participant.0)).filter(|id| id.0 % 11 != 0) },
            rect: placed.rect,
            fit: placed.fit,
            label: if is_screen { format!("{name}’s screen") } else { name.to_owned() },
            initials: name.chars().take(1).collect(),
            avatar: None,
            speaking: !is_screen && participant == speaker,
            muted: !is_screen && participant.0 % 4 == 3,
            poor_connection: false,
            hand_raised: false,
            reaction: None,
        }
    });
    let (view, tiles, more) = (ViewName::program(), tiles.collect(), arrangement.more);
    let scene = Scene { view, canvas, fps: 30, tiles, more, style: Style::default() };
    let mut compositor = Compositor::new(None);
    compositor.set_scene(&scene);
    compositor.compose(NOW, &SLOTS).picture
}

fn sheet(name: &str, layout: &Layout, shares: bool) {
    for (canvas, cell, shape) in [
        (Size::new(1280, 720), Size::new(320, 180), "wide"),
        (Size::new(720, 1280), Size::new(180, 320), "portrait"),
        (Size::new(720, 720), Size::new(240, 240), "square"),
    ] {
        let rows = PEOPLE.len() as u32 / COLUMNS;
        let side = |parts: u32, part: u32| parts * (part + MARGIN) + MARGIN;
        let size = Size::new(side(COLUMNS, cell.width), side(rows, cell.height));
        let mut sheet = vec![255; (size.width * size.height * 3) as usize];
        for (people, at) in PEOPLE.into_iter().zip(0..) {
            let mut reduced = PictureMut::new(cell);
            scale::scale(&compose(layout, canvas, people, shares), &mut reduced);
            let (left, top) = (side(at % COLUMNS, cell.width), side(at / COLUMNS, cell.height));
            // Fewer colours compress better; the difference is smaller than the bound.
            let rgb: Vec<u8> = png_file::rgb(&reduced.freeze()).iter().map(|value| value & !3 | 1).collect();
            for (row, line) in rgb.chunks_exact(cell.width as usize * 3).enumerate() {
                let start = (((top as usize + row) * size.width as usize) + left as usize) * 3;
                sheet[start..][..line.len()].copy_from_slice(line);
            }
        }
        check_rgb(&format!("layouts/{name}_{shape}"), size, &sheet);
    }
}

#[test]
fn grids_match_their_sheets() {
    sheet("auto", &LayoutKind::Auto.into(), false);
    sheet("grid", &LayoutKind::Grid.into(), false);
    sheet("grid_fill", &LayoutKind::GridFill.into(), false);
    sheet("side_by_side", &LayoutKind::SideBySide.into(), false);
}

#[test]
fn layouts_with_a_strip_match_their_sheets() {
    sheet("speaker", &LayoutKind::Speaker.into(), false);
    sheet("presentation", &LayoutKind::Presentation.into(), true);
    sheet("stage", &LayoutKind::Stage.into(), false);
    let few = Layout { max_tiles: 12, ..LayoutKind::Speaker.into() };
    sheet("speaker_of_12", &few, false);
}

#[test]
fn layouts_of_one_large_tile_match_their_sheets() {
    sheet("one_plus_5", &LayoutKind::OnePlus5.into(), false);
    sheet("one_plus_7", &LayoutKind::OnePlus7.into(), false);
    sheet("one_plus_9", &LayoutKind::OnePlus9.into(), false);
}

#[test]
fn layouts_of_few_tiles_match_their_sheets() {
    sheet("picture_in_picture", &LayoutKind::PictureInPicture.into(), false);
    sheet("active", &LayoutKind::Active.into(), false);
    let pinned = ["p1".parse().expect("a cell"), "p3".parse().expect("a cell")].to_vec();
    sheet("spotlight", &Layout { pinned, ..LayoutKind::Spotlight.into() }, false);
    let custom = serde_json::json!({"kind": "custom", "tiles": [
        {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0, "source": "speaker", "fit": "cover"},
        {"x": 0.05, "y": 0.55, "width": 0.4, "height": 0.4, "z": 1, "source": "rank:1"},
        {"x": 0.3, "y": 0.4, "width": 0.3, "height": 0.4, "z": 2, "source": "rank:2", "fit": "cover"},
    ]});
    sheet("custom", &serde_json::from_value(custom).expect("a layout"), false);
}
