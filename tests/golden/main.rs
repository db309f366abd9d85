//! Golden pictures: the output of the compositor, compared with PNG files in this folder.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes them; review them before a commit. A failing test writes
//! `NAME.actual.png` to the temporary folder of the target and prints the difference. Names use only letters of the
//! shipped font, so that the pictures do not depend on the machine.

mod overlays;
mod people;
mod png_file;
mod sheets;
mod themes;
mod transitions;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use commingle::codec::Picture;
use commingle::id::{ParticipantId, SourceId, ViewName};
use commingle::layout::{Arranger, Attendance, LayoutKind, ObjectFit, Scene, Style, Tile};
use commingle::media::{Look, Rect, Rotation, Size, SourceKind};
use commingle::mixer::compose::{Compositor, FrameSlot};
use commingle::time::Timestamp;

/// Largest mean squared difference of RGB values: rounding differs between processors.
const BOUND: f64 = 4.0;
const CANVAS: Size = Size::new(640, 360);
const NOW: Timestamp = Timestamp::from_micros(60_000_000);

type Slots = HashMap<SourceId, Arc<FrameSlot>>;

/// A builder of a scene.
struct Stage {
    scene: Scene,
    slots: Slots,
}

impl Stage {
    fn new() -> Self {
        let (view, style) = (ViewName::program(), Style::default());
        let scene = Scene { view, canvas: CANVAS, fps: 30, tiles: Vec::new(), more: None, style };
        Self { scene, slots: HashMap::new() }
    }

    /// Adds a participant in a cell of a grid, with a picture if it is live.
    fn add(&mut self, label: &str, [column, row, columns, rows]: [u32; 4], picture: Option<Picture>) -> &mut Tile {
        let gap = 8;
        let side = |all: u32, parts: u32| ((all - gap * (parts + 1)) / parts) & !1;
        let (width, height) = (side(CANVAS.width, columns), side(CANVAS.height, rows));
        let rect = Rect { x: gap + column * (width + gap), y: gap + row * (height + gap), width, height };
        self.add_at(label, rect, SourceKind::Camera, picture, Rotation::None)
    }

    fn add_at(
        &mut self,
        label: &str,
        rect: Rect,
        kind: SourceKind,
        picture: Option<Picture>,
        rotation: Rotation,
    ) -> &mut Tile {
        let number = self.scene.tiles.len() as u32 + 1;
        let source = picture.map(|picture| {
            let slot = Arc::new(FrameSlot::new(kind));
            slot.writer().put(picture, Look { rotation, ..Look::default() }, NOW);
            self.slots.insert(SourceId(number), slot);
            SourceId(number)
        });
        let participant = ParticipantId(number);
        let label = label.to_owned();
        let firsts = label.split(' ').filter_map(|word| word.chars().next());
        let initials = firsts.clone().next().into_iter().chain(firsts.skip(1).last()).collect();
        self.scene.tiles.push(Tile {
            participant,
            kind,
            source,
            rect,
            fit: ObjectFit::Auto,
            label,
            initials,
            avatar: None,
            speaking: false,
            muted: false,
            poor_connection: false,
            hand_raised: false,
            reaction: None,
        });
        self.scene.tiles.last_mut().expect("just pushed")
    }

    fn compose(&self) -> Picture {
        let mut compositor = Compositor::new(None);
        compositor.set_scene(&self.scene);
        compositor.compose(NOW, &self.slots).picture
    }
}

fn check(name: &str, picture: &Picture) {
    check_rgb(name, picture.size(), &png_file::rgb(picture));
}

fn check_rgb(name: &str, size: Size, actual: &[u8]) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.png"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        png_file::write(&golden, size, actual);
        return;
    }
    let (golden_size, expected) = png_file::read(&golden);
    assert_eq!(golden_size, size, "{name}: the size");
    let sum: f64 = expected.iter().zip(actual).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    let error = sum / expected.len() as f64;
    if error > BOUND {
        let wrong = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.actual.png", name.replace('/', "_")));
        png_file::write(&wrong, size, actual);
        panic!("{name}: mean squared difference {error:.1}; expected {}, got {}", golden.display(), wrong.display());
    }
}

#[test]
fn alone() {
    let mut stage = Stage::new();
    let whole = Rect { x: 0, y: 0, width: CANVAS.width, height: CANVAS.height };
    stage.add_at("Ada Lovelace", whole, SourceKind::Camera, Some(people::person(0)), Rotation::None);
    check("alone", &stage.compose());
}

#[test]
fn two_participants_one_speaking_one_muted() {
    let mut stage = Stage::new();
    stage.add("Zoë Ångström", [0, 0, 2, 1], Some(people::person(1))).speaking = true;
    stage.add("Пётр Ильич", [1, 0, 2, 1], Some(people::person(2))).muted = true;
    check("two", &stage.compose());
}

#[test]
fn avatars() {
    let mut stage = Stage::new();
    stage.add("Grace Hopper", [0, 0, 2, 2], None);
    stage.add("Σωκράτης", [1, 0, 2, 2], None).speaking = true;
    stage.add("", [0, 1, 2, 2], None).muted = true;
    let long = "Wolfeschlegelsteinhausenbergerdorff the Elder of Somewhere Quite Far Away";
    stage.add(long, [1, 1, 2, 2], None).muted = true;
    check("avatars", &stage.compose());
}

#[test]
fn nine() {
    let mut stage = Stage::new();
    for i in 0..9 {
        let picture = (i != 4).then(|| people::person(i));
        let tile = stage.add(people::NAMES[i as usize], [i % 3, i / 3, 3, 3], picture);
        tile.speaking = i == 2;
        tile.muted = i % 4 == 0;
    }
    check("nine", &stage.compose());
}

#[test]
fn a_screen_is_contained_and_a_phone_is_upright() {
    let mut stage = Stage::new();
    let left = Rect { x: 8, y: 8, width: 408, height: 344 };
    let right = Rect { x: 424, y: 8, width: 208, height: 344 };
    stage.add_at("Slides", left, SourceKind::Screen, Some(people::slides()), Rotation::None);
    stage.add_at("Ada", right, SourceKind::Camera, Some(people::person(3)), Rotation::Right);
    check("screen", &stage.compose());
}

/// Participants as the layout of this kind arranges them; the second speaks, and the first may share a screen.
fn arranged(kind: LayoutKind, people: u32, screen: bool) -> Stage {
    let mut stage = Stage::new();
    let cells: Vec<_> = (1..=people)
        .map(|id| (ParticipantId(id), SourceKind::Camera))
        .chain(screen.then_some((ParticipantId(1), SourceKind::Screen)))
        .collect();
    let attendance = Attendance { cells: &cells, speaker: Some(ParticipantId(2)) };
    for placed in Arranger::default().arrange(&kind.into(), CANVAS, &attendance).placed {
        let ((id, kind), name) = (placed.key, people::NAMES[(placed.key.0.0 as usize - 1) % 9]);
        let label = if kind == SourceKind::Screen { format!("{name}’s screen") } else { name.to_owned() };
        let picture = if kind == SourceKind::Screen { people::slides() } else { people::person(id.0) };
        let tile = stage.add_at(&label, placed.rect, kind, Some(picture), Rotation::None);
        tile.participant = id;
        tile.fit = placed.fit;
        tile.speaking = kind == SourceKind::Camera && id.0 == 2;
    }
    stage
}

#[test]
fn two_participants_fill_the_canvas() {
    check("auto_2", &arranged(LayoutKind::Auto, 2, false).compose());
}

#[test]
fn a_shared_screen_is_the_largest_tile() {
    check("auto_4_screen", &arranged(LayoutKind::Auto, 4, true).compose());
}

#[test]
fn portrait_cameras_stand_on_a_backdrop() {
    let mut stage = Stage::new();
    let left = Rect { x: 8, y: 8, width: 408, height: 230 };
    let right = Rect { x: 424, y: 8, width: 208, height: 230 };
    let wide = Rect { x: 8, y: 246, width: 624, height: 106 };
    stage.add_at("Ada", left, SourceKind::Camera, Some(people::person(3)), Rotation::Right).speaking = true;
    stage.add_at("Jo", right, SourceKind::Camera, Some(people::person(4)), Rotation::None);
    stage.add_at("Zoë", wide, SourceKind::Camera, Some(people::person(7)), Rotation::Left);
    check("portrait", &stage.compose());
}

#[test]
fn a_lost_sender_is_grey_and_a_camera_that_is_off_is_an_avatar() {
    let mut stage = Stage::new();
    for i in 0..4 {
        stage.add(people::NAMES[i as usize], [i % 2, i / 2, 2, 2], (i != 1).then(|| people::person(i)));
    }
    let at = |seconds: u64| Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000);
    let mut compositor = Compositor::new(None);
    compositor.set_scene(&stage.scene);
    let mut compose = |now| compositor.compose(now, &stage.slots).picture;
    // The first is live, the second off, the third lost; the fourth has stopped its camera, but is heard.
    compose(at(0));
    stage.slots[&SourceId(1)].writer().put(people::person(0), Look::default(), at(3));
    stage.slots[&SourceId(4)].hear(at(3));
    check("lost", &compose(at(3)));
    let third = |picture: &Picture| {
        let (luma, stride) = picture.plane(0);
        luma[190 * stride + 20]
    };
    let (live, lost) = (third(&compose(at(0))), third(&compose(at(29))));
    let stopped = third(&compose(at(31)));
    assert!(live != lost && lost != stopped && live != stopped, "{live} {lost} {stopped}");
}

#[test]
fn emoji_are_drawn_in_names_and_as_initials() {
    let mut stage = Stage::new();
    stage.add("Ann 🎈 Lee", [0, 0, 2, 2], Some(people::person(1)));
    stage.add("👩‍🚀", [1, 0, 2, 2], None).initials = "👩‍🚀".into();
    stage.add("🇫🇷 👍🏽 ❤️ 1️⃣", [0, 1, 2, 2], Some(people::person(2))).muted = true;
    stage.add("👨‍👩‍👧‍👦 ".repeat(20).trim(), [1, 1, 2, 2], Some(people::person(4)));
    check("emoji", &stage.compose());
}

#[test]
fn hands_and_reactions() {
    let mut stage = Stage::new();
    stage.add("Ada Lovelace", [0, 0, 2, 2], Some(people::person(0))).hand_raised = true;
    let zoe = stage.add("Zoë Ångström", [1, 0, 2, 2], Some(people::person(1)));
    (zoe.hand_raised, zoe.reaction, zoe.speaking) = (true, Some("👏🏽".into()), true);
    stage.add("Σωκράτης", [0, 1, 2, 2], None).reaction = Some("❤️".into());
    let small = ["🎉", "👍", "👨‍👩‍👧‍👦"].into_iter().zip([[2, 2], [3, 2], [2, 3]]);
    for (emoji, [x, y]) in small {
        let tile = stage.add("Ann", [x, y, 4, 4], Some(people::person(x + y)));
        (tile.hand_raised, tile.muted, tile.reaction) = (x == 2, y == 3, Some(emoji.into()));
    }
    check("hands", &stage.compose());

    // Signs come and go without a trace, and cause no pictures while they stay.
    let mut compositor = Compositor::new(None);
    let with = stage.scene.clone();
    stage.scene.tiles.iter_mut().for_each(|tile| (tile.hand_raised, tile.reaction) = (false, None));
    for scene in [&stage.scene, &with, &stage.scene, &with] {
        compositor.set_scene(scene);
        let shown = compositor.compose(NOW, &stage.slots);
        let mut fresh = Compositor::new(None);
        fresh.set_scene(scene);
        let expected = fresh.compose(NOW, &stage.slots).picture;
        assert!(shown.changed && (0..3).all(|i| shown.picture.plane(i) == expected.plane(i)));
        compositor.set_scene(scene);
        assert!(!compositor.compose(NOW, &stage.slots).changed, "nothing has changed");
        assert_ne!(compositor.changes_at(NOW, &stage.slots), Some(NOW), "no frames are composed meanwhile");
    }
}

#[test]
fn a_changed_scene_removes_everything_of_the_scene_before() {
    let mut full = Stage::new();
    for i in 0..4 {
        full.add(people::NAMES[i as usize], [i % 2, i / 2, 2, 2], Some(people::person(i))).speaking = i == 0;
    }
    let mut then = Stage::new();
    then.add("Zoë Ångström", [0, 0, 2, 1], None);
    then.slots = full.slots.clone();

    let mut compositor = Compositor::new(None);
    for _ in 0..4 {
        compositor.set_scene(&full.scene);
        let held = compositor.compose(NOW, &full.slots);
        assert!(held.changed);
        compositor.set_scene(&then.scene);
        let after = compositor.compose(NOW, &then.slots);
        assert_eq!(png_file::rgb(&after.picture), png_file::rgb(&then.compose()), "as if drawn from nothing");
        drop(held);
    }
}

#[test]
fn an_identical_canvas_is_reported_as_unchanged() {
    let mut stage = Stage::new();
    stage.add("Ada", [0, 0, 2, 1], Some(people::person(0)));
    stage.add("Grace", [1, 0, 2, 1], Some(people::person(1)));
    let mut compositor = Compositor::new(None);
    compositor.set_scene(&stage.scene);
    let at = |seconds: u64| Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000);
    let first = compositor.compose(NOW, &stage.slots);
    assert!(first.changed);
    assert!(!compositor.compose(at(1), &stage.slots).changed);
    compositor.set_scene(&stage.scene);
    assert!(!compositor.compose(at(1), &stage.slots).changed, "the same scene again");

    stage.slots[&SourceId(2)].writer().put(people::person(5), Look::default(), at(2));
    let second = compositor.compose(at(2), &stage.slots);
    assert!(second.changed);
    stage.slots[&SourceId(2)].writer().put(people::person(6), Look::default(), at(3));
    let third = compositor.compose(at(4), &stage.slots);
    assert!(third.changed, "one has a new frame, the other's sender is lost");

    // The same with canvases that were in use.
    let mut fresh = Compositor::new(None);
    fresh.set_scene(&stage.scene);
    let expected = png_file::rgb(&fresh.compose(at(4), &stage.slots).picture);
    assert_eq!(png_file::rgb(&third.picture), expected);
    assert_ne!(png_file::rgb(&second.picture), expected);
    stage.scene.tiles[0].speaking = true;
    compositor.set_scene(&stage.scene);
    assert!(compositor.compose(at(4), &stage.slots).changed, "a participant speaks");
}

#[test]
fn threads_draw_the_same_picture() {
    let mut stage = Stage::new();
    stage.scene.canvas = Size::new(1920, 1080);
    for i in 0..6 {
        let rect = Rect { x: 20 + 630 * (i % 3), y: 30 + 520 * (i / 3), width: 620, height: 500 };
        stage.add_at(people::NAMES[i as usize], rect, SourceKind::Camera, Some(people::person(i)), Rotation::None);
    }
    let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads start");
    let mut compositor = Compositor::new(Some(Arc::new(threads)));
    compositor.set_scene(&stage.scene);
    let picture = compositor.compose(NOW, &stage.slots).picture;
    assert!(png_file::rgb(&picture) == png_file::rgb(&stage.compose()));
}
