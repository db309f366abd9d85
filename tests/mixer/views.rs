//! Several views of one room in a mixer.

use commingle::codec::Picture;
use commingle::id::{SourceId, ViewName};
use commingle::layout::Scene;
use commingle::link::ToMixer;
use commingle::media::{Codec, Rect, Size};
use commingle::plan::StreamSpec;

use crate::rig::{Colour, Rig, alike, colour, decode, scene, stream, streams};
use crate::{CANVAS, COLOURS, four, sources};

const PORTRAIT: Size = Size::new(360, 640);

fn phone() -> ViewName {
    "phone".parse().expect("a name")
}

/// A view in portrait with the second camera alone, with 15 frames per second.
fn portrait() -> Scene {
    let mut scene = Scene { view: phone(), canvas: PORTRAIT, fps: 15, ..scene(sources()) };
    scene.tiles = vec![scene.tiles.swap_remove(1)];
    scene.tiles[0].rect = Rect { x: 20, y: 230, width: 320, height: 180 };
    scene
}

fn of_phone(serial: u32) -> StreamSpec {
    let mut spec = stream(serial, Codec::Vp8, PORTRAIT, 15);
    spec.key.view = phone();
    spec
}

fn last(rig: &Rig, serial: u32) -> Picture {
    decode(Codec::Vp8, &rig.frames(serial)).pop().expect("frames came")
}

#[test]
fn a_view_that_begins_beside_others_of_the_same_frame_rate_has_frames() {
    let mut rig = Rig::new();
    four(&mut rig);
    let names: [ViewName; 3] = ["a", "b", "c"].map(|name| name.parse().expect("a name"));
    for name in &names {
        rig.send(ToMixer::Scene(Scene { view: name.clone(), ..scene(sources()) }));
    }
    let of = |serial: u32| {
        let mut spec = stream(serial, Codec::Vp8, CANVAS, 30);
        spec.key.view = names[serial as usize - 1].clone();
        spec
    };
    rig.send(streams([of(1)]));
    rig.run_until("the first view", |rig| rig.frames(1).len() > 10);
    rig.send(streams([of(1), of(2), of(3)]));
    rig.run_until("all views", |rig| (1..=3).all(|serial| rig.frames(serial).len() > 20));
}

#[test]
fn each_view_has_its_own_canvas_and_sources_are_decoded_once() {
    let mut rig = Rig::new();
    four(&mut rig);
    rig.send(ToMixer::Scene(scene(sources())));
    rig.send(ToMixer::Scene(portrait()));
    rig.send(streams([of_phone(2)]));
    rig.run_until("the second camera", |rig| rig.sizes.contains_key(&SourceId(2)));
    rig.run(20);
    assert_eq!(rig.sizes.len(), 1, "the others are in no view with a stream: {:?}", rig.sizes);
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30), of_phone(2)]));
    rig.run_until("all cameras", |rig| rig.sizes.len() == 4);
    rig.run(45);
    assert!(rig.sizes.values().all(|sizes| sizes.len() == 1), "each has one decoder: {:?}", rig.sizes);

    let picture = last(&rig, 1);
    assert_eq!(picture.size(), CANVAS);
    let shows = |picture: &Picture, rect: Rect, wanted: Colour| alike(colour(picture, rect), wanted);
    for (tile, wanted) in scene(sources()).tiles.iter().zip(COLOURS) {
        assert!(shows(&picture, tile.rect, wanted), "{:?}", tile.rect);
    }
    let picture = last(&rig, 2);
    assert_eq!(picture.size(), PORTRAIT);
    assert!(shows(&picture, portrait().tiles[0].rect, COLOURS[1]));
    let frames = rig.frames(2);
    assert!(frames.iter().all(|frame| frame.timestamp % 6000 == 0), "15 frames per second");
    assert!(frames.iter().skip(1).all(|frame| !frame.keyframe), "the other view does not disturb it");

    // A view that is gone ends with its streams, and may come again.
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.send(ToMixer::SceneGone(phone()));
    rig.run(15);
    let (gone, others) = (rig.frames(2).len(), rig.frames(1).len());
    rig.run(30);
    assert_eq!(rig.frames(2).len(), gone);
    assert!(rig.frames(1).len() > others + 15);
    rig.send(ToMixer::Scene(portrait()));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30), of_phone(3)]));
    rig.run_until("frames of the new stream", |rig| rig.frames(3).len() > 5);
    assert!(shows(&last(&rig, 3), portrait().tiles[0].rect, COLOURS[1]));
}
