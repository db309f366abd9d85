//! H.264 of senders that are not browsers: unusual packets, rare keyframes, B-frames, gradual refresh.

use commingle::codec::Picture;
use commingle::id::SourceId;
use commingle::link::ToMixer;
use commingle::media::{Codec, Rect, Size};

use crate::foreign::{self, AccessUnit};
use crate::rig::{Camera, Colour, Part, Rig, alike, colour, decode, scene, stream, streams};

const SMALL: Size = Size::new(320, 180);
const CANVAS: Size = Size::new(640, 360);
const COLOURS: [Colour; 4] = [(80, 90, 220), (150, 50, 40), (50, 220, 110), (190, 128, 128)];
/// Browsers' kind of encoder settings: no delay, one reference.
const NO_DELAY: &str = "tune=zerolatency";

/// How a sender makes packets of a picture.
type Pack = fn(&AccessUnit) -> Vec<Part>;

fn rect(tile: usize) -> Rect {
    scene([None; 4]).tiles[tile].rect
}

/// A picture that differs from the one before.
fn alternating((y, u, v): Colour) -> impl Fn(u32) -> Picture {
    move |n| Picture::filled(SMALL, y + (n % 2) as u8, u, v)
}

fn shown(sources: usize) -> ToMixer {
    ToMixer::Scene(scene([0, 1, 2, 3].map(|i| (i < sources).then_some(SourceId(i as u32 + 1)))))
}

/// Adds a camera to each tile.
fn add(rig: &mut Rig, cameras: Vec<Vec<Vec<Part>>>) {
    for (frames, id) in cameras.into_iter().zip(1..) {
        rig.add_camera(Camera::of_parts(SourceId(id), frames), Codec::H264);
    }
}

/// Checks that senders that pack their H.264 in these ways, with a keyframe every 30 frames, are all visible, and that
/// few frames are dropped.
fn are_seen(packs: [Pack; 4]) -> Rig {
    let mut rig = Rig::new();
    rig.send(shown(4));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    let properties = format!("{NO_DELAY} key-int-max=30");
    let cameras = packs
        .iter()
        .zip(COLOURS)
        .map(|(pack, colour)| foreign::x264(&properties, SMALL, 60, alternating(colour)).iter().map(pack).collect());
    add(&mut rig, cameras.collect());
    rig.run_until("all sizes", |rig| rig.sizes.len() == 4);
    rig.run(40);
    let pictures = decode(Codec::Vp8, &rig.frames(1));
    let last = pictures.last().expect("frames came");
    for (i, wanted) in COLOURS.into_iter().enumerate() {
        let got = colour(last, rect(i));
        assert!(alike(got, wanted), "camera {i}: {got:?}, not {wanted:?}");
    }
    assert!(rig.report.source_frames_dropped <= 4, "{:?}", rig.report);
    rig
}

#[test]
fn parameter_sets_are_found_in_separate_packets_with_other_timestamps() {
    let rig = are_seen([foreign::own_time, foreign::time_of_previous, foreign::without_markers, foreign::sets_once]);
    assert_eq!(rig.report.source_units_skipped, 0);
}

#[test]
fn malformed_and_reserved_units_are_skipped_and_counted() {
    let rig = are_seen([foreign::usual, foreign::reserved_units, foreign::without_end_bits, foreign::own_time]);
    assert!(rig.report.source_units_skipped > 100, "{:?}", rig.report);
}

/// OBS ignores keyframe requests and sends a keyframe every eight seconds.
#[test]
fn a_tile_begins_with_the_keyframe_that_came_before_it_existed() {
    let mut rig = Rig::new();
    let properties = format!("{NO_DELAY} key-int-max=240");
    let packs: [Pack; 3] = [foreign::usual, foreign::own_time, foreign::sets_once];
    let cameras = packs
        .iter()
        .zip(COLOURS)
        .map(|(pack, colour)| foreign::x264(&properties, SMALL, 240, alternating(colour)).iter().map(pack).collect());
    add(&mut rig, cameras.collect());
    rig.run(45);
    rig.send(shown(3));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    // Hidden again, and shown again, long before the next keyframe.
    for round in 0..2 {
        // Three decoders are made meanwhile, which takes long on a busy machine.
        let mut seen = Vec::new();
        for _ in 0..2 {
            rig.run(30);
            let pictures = decode(Codec::Vp8, &rig.frames(1));
            let last = pictures.last().expect("frames came");
            seen = (0..3).map(|i| colour(last, rect(i))).collect();
            if seen.iter().zip(COLOURS).all(|(got, wanted)| alike(*got, wanted)) {
                break;
            }
        }
        for (i, (got, wanted)) in seen.into_iter().zip(COLOURS).enumerate() {
            assert!(alike(got, wanted), "camera {i}, round {round}: {got:?}, not {wanted:?}");
        }
        rig.send(shown(0));
        rig.run(8);
        rig.send(shown(3));
    }
    assert!(rig.cameras[0].count < 240, "no second keyframe was sent");
    assert_eq!(rig.report.source_frames_dropped, 0);
}

/// The luma of a tile in each picture of the mix that shows [`rising`] there.
fn lumas(rig: &Rig, tile: usize) -> Vec<u8> {
    let pictures = decode(Codec::Vp8, &rig.frames(1));
    let colours = pictures.iter().map(|picture| colour(picture, rect(tile)));
    colours.filter(|(y, u, v)| alike((*y, *u, *v), (*y, RISING.0, RISING.1))).map(|(y, ..)| y).collect()
}

/// The chroma of [`rising`].
const RISING: (u8, u8) = (60, 200);

/// The luma rises with each picture: pictures in decoding order would go back and forth.
fn rising(n: u32) -> Picture {
    Picture::filled(SMALL, 40 + n as u8, RISING.0, RISING.1)
}

#[test]
fn b_frames_are_shown_in_display_order() {
    let variants = [
        "bframes=2 b-adapt=false key-int-max=60",
        "bframes=3 b-adapt=false b-pyramid=true key-int-max=150",
        "bframes=1 b-adapt=false key-int-max=30",
    ];
    let mut rig = Rig::new();
    rig.send(shown(3));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    let cameras = variants.map(|properties| {
        let units = foreign::x264(properties, SMALL, 150, rising);
        assert!(units.windows(2).any(|two| two[1].display < two[0].display), "{properties}: it has B-frames");
        // RTP timestamps are those of the display.
        let frames = units.iter().zip(0..).map(|(unit, sent)| {
            let mut parts = foreign::usual(unit);
            parts.iter_mut().for_each(|part| part.offset += (unit.display as i32 - sent) * 3_000);
            parts
        });
        frames.collect()
    });
    add(&mut rig, cameras.into());
    rig.run(140);
    for (tile, properties) in variants.into_iter().enumerate() {
        let seen = lumas(&rig, tile);
        // The codec of the mix changes the luma by a step or two.
        let back = seen.windows(2).find(|two| two[1] + 2 < two[0]);
        assert!(back.is_none(), "{properties}: back from {back:?}");
        assert!(seen.last().is_some_and(|last| *last > 40 + 115), "{properties}: {:?}", seen.last());
        let steps = seen.windows(2).filter(|two| two[1] != two[0]).count();
        assert!(steps > 80, "{properties}: {steps} different pictures of 140");
    }
}

#[test]
fn a_stream_without_idr_pictures_begins_at_a_recovery_point() {
    let mut rig = Rig::new();
    rig.send(shown(3));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    let refresh = format!("{NO_DELAY} intra-refresh=true key-int-max=20");
    let open = "bframes=2 b-adapt=false key-int-max=20 option-string=\"open-gop=1\"";
    let late = |properties: &str| foreign::without_first(foreign::x264(properties, SMALL, 150, rising), 7);
    let cameras = [late(&refresh), late(open), foreign::without_sei(late(open))];
    add(&mut rig, cameras.map(|units| units.iter().map(foreign::usual).collect()).into());
    rig.run(130);
    for tile in 0..3 {
        let lumas = lumas(&rig, tile);
        assert!(lumas.len() > 60, "camera {tile}: {} pictures of 130", lumas.len());
        assert!(lumas.last().is_some_and(|last| *last > 40 + 110), "camera {tile}: {:?}", lumas.last());
    }
    assert_eq!(rig.sizes.len(), 3);
}
