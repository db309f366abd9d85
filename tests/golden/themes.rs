//! Signs, avatars by image, backgrounds and themes.

use commingle::layout::{Layout, Theme};
use commingle::mixer::compose::Bitmap;
use commingle::overlay::Image;

use super::*;

const FACE: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 200">
  <rect width="300" height="200" fill="#f2c14e"/><circle cx="150" cy="85" r="45" fill="#5b2a86"/>
  <path d="M70 200a80 70 0 0 1 160 0z" fill="#5b2a86"/><rect width="40" height="200" fill="#d00000"/>
</svg>"##;
const WALL: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240">
  <rect width="320" height="240" fill="#274060"/><path d="M0 240L120 90L210 240z" fill="#3f7cac"/>
  <path d="M130 240L240 60L320 200V240z" fill="#95afba"/><circle cx="70" cy="60" r="26" fill="#f2c14e"/>
</svg>"##;

fn image(svg: &str) -> Option<Arc<Bitmap>> {
    let image = Image::check(svg.as_bytes().to_vec().into()).expect("an SVG");
    Some(Arc::new(Bitmap::decode(&image).expect("decoded")))
}

fn compositor(scene: &Scene) -> Compositor {
    let mut compositor = Compositor::new(None);
    compositor.set_scene(scene);
    compositor.set_image("face.svg".parse().expect("a name"), image(FACE));
    compositor.set_image("wall.svg".parse().expect("a name"), image(WALL));
    compositor
}

fn styled(stage: &mut Stage, theme: &str) {
    let theme: Theme = serde_json::from_str(theme).expect(theme);
    theme.check().expect("valid");
    stage.scene.style = Style::of(&Layout::default(), &theme);
}

/// Four people, of whom the second is an avatar that speaks.
fn four() -> Stage {
    let mut stage = Stage::new();
    for i in 0..4 {
        let picture = (i != 1).then(|| people::person(i));
        stage.add(people::NAMES[i as usize], [i % 2, i / 2, 2, 2], picture).speaking = i == 1;
    }
    stage
}

#[test]
fn signs_show_a_muted_microphone_and_a_poor_connection() {
    let mut stage = four();
    for (tile, (muted, poor_connection)) in
        stage.scene.tiles.iter_mut().zip([(true, false), (false, true), (true, true), (false, true)])
    {
        (tile.muted, tile.poor_connection) = (muted, poor_connection);
    }
    stage.scene.tiles[3].label.clear();
    check("signs", &stage.compose());
}

#[test]
fn an_image_on_the_avatar_is_cropped_to_the_circle() {
    let mut stage = four();
    for (tile, source) in stage.scene.tiles.iter_mut().zip([None, None, Some(SourceId(3)), None]) {
        (tile.source, tile.avatar) = (source, Some("face.svg".parse().expect("a name")));
    }
    stage.scene.tiles[3].avatar = Some("missing.png".parse().expect("a name"));
    let mut compositor = compositor(&stage.scene);
    check("avatar_image", &compositor.compose(NOW, &stage.slots).picture);
    let drawn = |compositor: &mut Compositor| compositor.compose(NOW, &stage.slots);
    assert!(!drawn(&mut compositor).changed);
    compositor.set_image("face.svg".parse().expect("a name"), None);
    let without = drawn(&mut compositor);
    assert!(without.changed, "the initials are drawn when the image is gone");
    compositor.set_image("face.svg".parse().expect("a name"), image(FACE));
    assert_ne!(png_file::rgb(&drawn(&mut compositor).picture), png_file::rgb(&without.picture));
}

#[test]
fn a_theme_sets_colours_corners_and_letters() {
    let mut stage = four();
    let theme = r##"{"background":"#f4ead5","label_color":"#1a1a1a","label_background":"#ffffffd0",
        "speaker_frame":"#d7263d","radius":28,"font_size":140}"##;
    styled(&mut stage, theme);
    stage.scene.tiles[0].muted = true;
    check("theme", &stage.compose());
    styled(&mut stage, r##"{"radius":0,"background":"#ffffff"}"##);
    check("theme_square", &stage.compose());
}

#[test]
fn an_image_behind_the_tiles_covers_the_canvas_and_is_seen_at_their_corners() {
    let mut stage = four();
    styled(&mut stage, r#"{"background":"wall.svg","radius":24}"#);
    let mut behind = compositor(&stage.scene);
    check("background_image", &behind.compose(NOW, &stage.slots).picture);
    // Only some tiles change: the picture is as if drawn from nothing.
    for round in 1..4 {
        let now = Timestamp::from_micros(NOW.as_micros() + round * 33_000);
        let slot = &stage.slots[&SourceId(1 + round as u32 % 2 * 2)];
        slot.writer().put(people::person(round as u32 + 4), Look::default(), now);
        stage.scene.tiles[1].speaking = round % 2 == 0;
        behind.set_scene(&stage.scene);
        let picture = behind.compose(now, &stage.slots).picture;
        let fresh = compositor(&stage.scene).compose(now, &stage.slots).picture;
        assert!(png_file::rgb(&picture) == png_file::rgb(&fresh), "round {round}");
    }
    // Another style, and back.
    let styles = [Style::default(), stage.scene.style.clone()];
    for style in styles {
        stage.scene.style = style;
        behind.set_scene(&stage.scene);
        let now = Timestamp::from_micros(NOW.as_micros() + 200_000);
        let picture = behind.compose(now, &stage.slots).picture;
        let fresh = compositor(&stage.scene).compose(now, &stage.slots).picture;
        assert!(png_file::rgb(&picture) == png_file::rgb(&fresh));
    }
}
