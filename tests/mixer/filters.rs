//! Filters of a camera, from the packets of a sender to the packets of a stream.

use commingle::filter::{Catalog, FilterSpec, Media, Removal};
use commingle::id::{SourceId, ViewName};
use commingle::link::{FromMixer, ToMixer};
use commingle::media::{Codec, Rotation};

use super::rig::{Camera, Rig, alike, colour, decode, encode, scene, stream, streams};
use super::{CANVAS, COLOURS, SMALL};

/// Runs until the first tile has this colour; the streams begin with a keyframe each time.
fn run_until_shown(rig: &mut Rig, serial: u32, wanted: (u8, u8, u8)) {
    rig.send(streams([stream(serial, Codec::Vp8, CANVAS, 30)]));
    let rect = scene([None; 4]).tiles[0].rect;
    for _ in 0..20 {
        rig.run(15);
        let shown = decode(Codec::Vp8, &rig.frames(serial)).last().map(|picture| colour(picture, rect));
        if shown.is_some_and(|shown| alike(shown, wanted)) {
            return;
        }
    }
    panic!("{wanted:?} was never shown");
}

#[test]
fn a_filter_changes_the_tile_and_one_that_fails_is_removed_with_a_report() {
    let mut rig = Rig::new();
    let source = SourceId(1);
    let mut camera = Camera::new(source, encode(Codec::Vp8, SMALL, COLOURS[0], 30));
    camera.rotation = Some(Rotation::Half);
    rig.add_camera(camera, Codec::Vp8);
    rig.send(ToMixer::Scene(scene([Some(source), None, None, None])));
    let catalog = Catalog::shipped();
    let grey = catalog.defaults().find(|filter| filter.name() == "grayscale").expect("it is shipped").spec(1);
    rig.send(ToMixer::Filters(source, vec![grey.clone()]));
    run_until_shown(&mut rig, 1, (COLOURS[0].0, 128, 128));

    let fails = FilterSpec {
        serial: 2,
        name: "fails".into(),
        media: Media::Video,
        pipeline: "identity error-after=5".into(),
        image: None,
    };
    rig.send(ToMixer::Filters(source, vec![grey, fails]));
    rig.run_until("a report of the failure", |rig| {
        rig.others.iter().any(|message| matches!(message, FromMixer::FilterRemoved(2, Removal::Failed, _)))
    });
    run_until_shown(&mut rig, 2, (COLOURS[0].0, 128, 128));
    rig.run_until("a report of the CPU time", |rig| {
        let is_load = |message: &FromMixer| matches!(message, FromMixer::FilterLoad(1, cpu) if !cpu.is_zero());
        rig.others.iter().any(is_load) && rig.report.filter_frames > 0 && rig.report.filters_removed == 1
    });
    rig.send(ToMixer::Filters(source, Vec::new()));
    run_until_shown(&mut rig, 3, COLOURS[0]);

    // The same for the whole view.
    let grey = catalog.defaults().find(|filter| filter.name() == "grayscale").expect("it is shipped").spec(3);
    rig.send(ToMixer::ViewFilters(ViewName::program(), vec![grey]));
    run_until_shown(&mut rig, 4, (COLOURS[0].0, 128, 128));
    rig.send(ToMixer::ViewFilters(ViewName::program(), Vec::new()));
    run_until_shown(&mut rig, 5, COLOURS[0]);
}
