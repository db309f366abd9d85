//! Overlays over a call, in two sizes.

use std::fmt::Write as _;
use std::time::Duration;

use commingle::id::OverlayId;
use commingle::layout::More;
use commingle::mixer::compose::Bitmap;
use commingle::overlay::{Image, Overlay, OverlayRequest};

use super::*;

const WIDE: Size = Size::new(1280, 720);
/// 14:03:27 of a day.
const WALL: u64 = (20_000 * 86_400 + 14 * 3_600 + 3 * 60 + 27) * 1_000_000;
const LOGO: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 90">
  <rect x="4" y="4" width="112" height="82" rx="18" fill="#5ea0ff"/>
  <circle cx="46" cy="45" r="22" fill="#fff"/><circle cx="74" cy="45" r="22" fill="#0a0d10" fill-opacity="0.55"/>
</svg>"##;

fn overlays(json: &[&str]) -> Vec<Overlay> {
    let overlay = |(id, json): (usize, &&str)| {
        let request: OverlayRequest = serde_json::from_str(json).expect(json);
        request.check().expect(json);
        let text = request.text.clone().unwrap_or_default();
        request.overlay(OverlayId(id as u32), text)
    };
    json.iter().enumerate().map(overlay).collect()
}

/// Four people on a canvas of this size.
fn four(canvas: Size) -> Stage {
    let mut stage = Stage::new();
    stage.scene.canvas = canvas;
    let gap = 4;
    let (width, height) = ((canvas.width - gap) / 4 * 2, (canvas.height - gap) / 4 * 2);
    for i in 0..4 {
        let rect = Rect { x: (i % 2) * (width + gap), y: (i / 2) * (height + gap), width, height };
        let name = people::NAMES[i as usize];
        stage.add_at(name, rect, SourceKind::Camera, Some(people::person(i)), Rotation::None).speaking = i == 1;
    }
    stage
}

fn compositor(stage: &Stage, overlays: &[Overlay]) -> Compositor {
    let mut compositor = Compositor::new(None);
    compositor.set_scene(&stage.scene);
    let logo = Image::check(LOGO.as_bytes().to_vec().into()).expect("an SVG");
    let logo = Bitmap::decode(&logo).expect("decoded");
    compositor.set_image("logo.svg".parse().expect("a name"), Some(Arc::new(logo)));
    compositor.set_overlays(overlays);
    compositor.set_wall(NOW, WALL);
    compositor
}

/// Compares the overlays on two canvases with golden pictures.
fn check_both(name: &str, json: &[&str], after_ms: u64) {
    for canvas in [WIDE, CANVAS] {
        let stage = four(canvas);
        let mut compositor = compositor(&stage, &overlays(json));
        compositor.compose(NOW, &stage.slots);
        let later = Timestamp::from_micros(NOW.as_micros() + after_ms * 1_000);
        for (source, slot) in &stage.slots {
            slot.writer().put(people::person(source.0 - 1), Look::default(), later);
        }
        let mut file = String::from("overlay_");
        write!(file, "{name}_{}", canvas.height).expect("memory");
        check(&file, &compositor.compose(later, &stage.slots).picture);
    }
}

#[test]
fn a_text_and_a_clock_stand_on_plates_as_wide_as_they_are() {
    let room = r#"{"kind":"text","text":"Quarterly review"}"#;
    check_both("text", &[room, r#"{"kind":"clock","x":0.86,"width":0.11,"utc_offset_minutes":60}"#], 0);
}

#[test]
fn a_text_of_several_lines_is_wrapped_and_centred_in_its_place() {
    let text = "Пауза до 15:00\nThe second part begins with questions from the audience, then Zoë shows the numbers";
    let json = format!(
        r##"{{"kind":"text","text":{text:?},"x":0.25,"y":0.3,"width":0.5,"height":0.3,"background":"#1e3a8ae6"}}"##
    );
    check_both("text_lines", &[&json], 0);
}

#[test]
fn a_lower_third_has_a_name_and_a_second_line() {
    check_both("lower_third", &[r#"{"kind":"lower_third","text":"Zoë Ångström\nHead of Research, Uppsala"}"#], 0);
}

#[test]
fn a_lower_third_without_a_second_line_has_one_large_line() {
    let json = r##"{"kind":"lower_third","text":"Ada Lovelace","y":0.8,"height":0.11,
        "background":"#ffffffee","color":"#111418"}"##;
    check_both("lower_third_one_line", &[json], 0);
}

#[test]
fn a_ticker_moves_over_a_bar_at_the_lower_edge() {
    let text = "Doors close at 18:00 — lunch is served in hall 2\nTalks are recorded and available from Monday on";
    check_both("ticker", &[&format!(r#"{{"kind":"ticker","text":{text:?}}}"#)], 6_000);
}

#[test]
fn an_image_keeps_its_aspect_ratio_and_transparency() {
    check_both("image", &[r#"{"kind":"image","image":"logo.svg"}"#], 0);
}

#[test]
fn captions_are_two_lines_at_the_lower_edge() {
    let mut captions = overlays(&[r#"{"kind":"caption"}"#]);
    captions[0].text = "Ada Lovelace: And that is how the engine weaves algebraic patterns, just as the loom weaves \
                        flowers and leaves.\nJo: Could you show the second card again?"
        .into();
    for canvas in [WIDE, CANVAS] {
        let stage = four(canvas);
        check(
            &format!("overlay_caption_{}", canvas.height),
            &compositor(&stage, &captions).compose(NOW, &stage.slots).picture,
        );
    }
}

/// The smallest rectangle that contains all differences: left, top, right, bottom.
fn difference(a: &Picture, b: &Picture) -> Option<[usize; 4]> {
    let width = a.size().width as usize;
    let (a, b) = (png_file::rgb(a), png_file::rgb(b));
    let pixels = a.chunks(3).zip(b.chunks(3)).enumerate();
    let places = pixels.filter(|(_, (a, b))| a != b).map(|(at, _)| (at % width, at / width));
    places.fold(None, |found: Option<[usize; 4]>, (x, y)| match found {
        None => Some([x, y, x, y]),
        Some([left, top, right, bottom]) => Some([left.min(x), top.min(y), right.max(x), bottom.max(y)]),
    })
}

/// Both pictures have the same pixels.
fn check_equal(actual: &Picture, expected: &Picture, what: &str) {
    let Some(place) = difference(actual, expected) else { return };
    for (name, picture) in [("expected", expected), ("actual", actual)] {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("overlays.{name}.png"));
        png_file::write(&file, picture.size(), &png_file::rgb(picture));
    }
    panic!("{what}: differs in {place:?}; see overlays.expected.png and overlays.actual.png");
}

/// Pictures and overlays change in turns: whatever was drawn before, a canvas shows what a new compositor draws.
#[test]
fn changes_leave_nothing_behind() {
    let all = [
        r##"{"kind":"text","text":"Welcome","x":0.3,"y":0.4,"height":0.2,"background":"#ff000080"}"##,
        r#"{"kind":"ticker","text":"News of the day"}"#,
        r#"{"kind":"lower_third","text":"Zoë\nUppsala","x":0.4,"y":0.5}"#,
        r#"{"kind":"clock","x":0.6,"y":0.45}"#,
        r#"{"kind":"image","image":"logo.svg","x":0.35,"y":0.3,"width":0.4,"height":0.4}"#,
    ];
    let all = overlays(&all);
    let mut stage = four(CANVAS);
    // A tile over the corners of two others.
    let rect = Rect { x: 200, y: 100, width: 200, height: 112 };
    stage.add_at("Jo", rect, SourceKind::Camera, Some(people::person(5)), Rotation::None);
    let mut compositor = compositor(&stage, &[]);
    let mut held = Vec::new();
    for step in 0..40u32 {
        // Fewer pixels change than in a random sequence, so that canvases of several steps ago are reused.
        let shown: Vec<Overlay> =
            all.iter().enumerate().filter(|(i, _)| step & (1 << i) != 0).map(|(_, overlay)| overlay.clone()).collect();
        compositor.set_overlays(&shown);
        let now = Timestamp::from_micros(NOW.as_micros() + u64::from(step) * 400_000);
        if step % 3 == 0 {
            let slot = &stage.slots[&SourceId(step % 5 + 1)];
            slot.writer().put(people::person(step % 9), Look::default(), now);
        }
        stage.slots.values().for_each(|slot| slot.hear(now));
        let composed = compositor.compose(now, &stage.slots);
        // Tickers begin to move when they are first drawn.
        let begun: Vec<Overlay> =
            shown.iter().filter(|o| o.kind != commingle::overlay::OverlayKind::Ticker).cloned().collect();
        if begun.len() == shown.len() {
            let mut fresh = self::compositor(&stage, &shown);
            fresh.set_wall(NOW, WALL);
            let expected = fresh.compose(now, &stage.slots).picture;
            check_equal(&composed.picture, &expected, &format!("step {step}"));
        }
        held.push(composed.picture);
        if step % 4 == 3 {
            held.clear();
        }
    }
}

/// Tiles move, appear and leave below overlays that come and go, two of them over others, and all over the number of
/// hidden participants: a canvas shows what a compositor without used canvases draws.
#[test]
fn tiles_that_move_below_overlays_leave_nothing_behind() {
    let all = overlays(&[
        // It begins in the upper left corner of a tile over others.
        r#"{"kind":"lower_third","text":"Zoë\nUppsala","x":0.5,"y":0.5,"width":0.2}"#,
        r##"{"kind":"text","text":"Welcome","x":0.05,"y":0.6,"height":0.3,"background":"#ff000080"}"##,
        r#"{"kind":"image","image":"logo.svg","x":0.35,"y":0.3,"width":0.4,"height":0.4}"#,
    ]);
    let over = |x, y, width, height| Rect { x, y, width, height };
    let mut before = four(CANVAS);
    let jo = over(40, 20, 200, 112);
    before.add_at("Jo", jo, SourceKind::Camera, Some(people::person(5)), Rotation::None).speaking = true;
    let mut after = Stage { scene: before.scene.clone(), slots: before.slots.clone() };
    let ann = over(440, 20, 120, 68);
    after.add_at("Ann", ann, SourceKind::Camera, Some(people::person(6)), Rotation::None);
    let tiles = &mut after.scene.tiles;
    (tiles[0].rect, tiles[1].rect) = (tiles[1].rect, tiles[0].rect);
    tiles[4].rect = over(320, 180, 200, 112);
    let gone = tiles.remove(2);
    after.scene.more = Some(More { count: 3, rect: gone.rect });

    let at = |ms: u64| Timestamp::from_micros(NOW.as_micros() + ms * 1_000);
    let takes = Duration::from_millis(250);
    let mut compositor = compositor(&before, &all);
    compositor.set_transitions(takes);
    compositor.compose(at(0), &before.slots);
    compositor.set_scene(&after.scene);
    let mut held = Vec::new();
    for step in 0..48u32 {
        let ms = u64::from(step + 1) * 33;
        let shown: Vec<Overlay> =
            all.iter().enumerate().filter(|(i, _)| step & (1 << i) == 0).map(|(_, overlay)| overlay.clone()).collect();
        compositor.set_overlays(&shown);
        // The source of the tile that leaves has ended.
        let live = [1, 2, 4, 5, 6][step as usize % 5];
        if step % 3 != 1 {
            after.slots[&SourceId(live)].writer().put(people::person(step % 9), Look::default(), at(ms));
        }
        after.slots.values().for_each(|slot| slot.hear(at(ms)));
        let actual = compositor.compose(at(ms), &after.slots).picture;
        let mut fresh = self::compositor(&before, &[]);
        fresh.set_transitions(takes);
        let first = fresh.compose(at(0), &after.slots);
        fresh.set_scene(&after.scene);
        let second = fresh.compose(at(33), &after.slots);
        fresh.set_overlays(&shown);
        check_equal(&actual, &fresh.compose(at(ms), &after.slots).picture, &format!("after {ms} ms"));
        drop((first, second));
        held.push(actual);
        if step % 4 == 3 {
            held.clear();
        }
    }
}

#[test]
fn overlays_that_do_not_change_leave_the_canvas_unchanged() {
    let stage = four(CANVAS);
    let shown = overlays(&[r#"{"kind":"text","text":"Welcome"}"#, r#"{"kind":"clock","y":0.3}"#]);
    let mut compositor = compositor(&stage, &shown);
    let at = |ms: u64| Timestamp::from_micros(NOW.as_micros() + ms * 1_000);
    let mut changed = |ms: u64| {
        let composed = compositor.compose(at(ms), &stage.slots).changed;
        (composed, compositor.changes_at(at(ms), &stage.slots))
    };
    assert_eq!(changed(0), (true, Some(at(1_000))));
    assert_eq!(changed(999), (false, Some(at(1_000))));
    assert_eq!(changed(1_000), (true, Some(at(2_000))));
}
