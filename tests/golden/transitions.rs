//! Transitions at three moments: at the beginning, at half of the time, and at the end.

use std::time::Duration;

use commingle::layout::LayoutKind;
use commingle::mixer::compose::Compositor;
use commingle::time::Timestamp;

use crate::{NOW, Stage, arranged, check, png_file};

const TAKES: Duration = Duration::from_millis(250);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(NOW.as_micros() + ms * 1_000)
}

/// Checks three moments of the way from one scene to the other; at the end the canvas is the one of the second scene.
fn check_moments(name: &str, before: &Stage, after: &Stage) {
    let mut compositor = Compositor::new(None);
    compositor.set_transitions(TAKES);
    compositor.set_scene(&before.scene);
    let first = png_file::rgb(&compositor.compose(at(0), &before.slots).picture);
    assert!(first == png_file::rgb(&before.compose()), "the first scene appears at once");
    compositor.set_scene(&after.scene);
    for (ms, moment) in [(33, "begins"), (100, "moves"), (216, "arrives")] {
        let composed = compositor.compose(at(ms), &after.slots);
        assert!(composed.changed);
        check(&format!("transitions/{name}_{moment}"), &composed.picture);
        assert_eq!(compositor.changes_at(at(ms), &after.slots), Some(at(ms)), "the next picture differs");
    }
    let last = compositor.compose(at(283), &after.slots);
    assert!(png_file::rgb(&last.picture) == png_file::rgb(&after.compose()));
    assert!(!compositor.compose(at(300), &after.slots).changed, "nothing moves any more");
}

#[test]
fn a_person_joins_a_grid() {
    check_moments("join", &arranged(LayoutKind::Grid, 4, false), &arranged(LayoutKind::Grid, 5, false));
}

#[test]
fn a_person_leaves_a_grid() {
    let before = arranged(LayoutKind::Grid, 5, false);
    let mut after = arranged(LayoutKind::Grid, 4, false);
    // The source of the one who leaves has ended.
    after.slots = before.slots.clone();
    let gone = before.scene.tiles[4].source.expect("live");
    after.slots.remove(&gone);
    check_moments("leave", &before, &after);
}

#[test]
fn a_screen_is_shared() {
    check_moments("share", &arranged(LayoutKind::Auto, 4, false), &arranged(LayoutKind::Auto, 4, true));
}
