//! Colours of senders: the same colour in each matrix and range is the same on the canvas.

use commingle::id::SourceId;
use commingle::link::ToMixer;
use commingle::media::{Codec, Colours, Matrix, Size};

use crate::rig::{Camera, Colour, Rig, colour, decode, encode, scene, stream, streams};

const SMALL: Size = Size::new(320, 180);
const CANVAS: Size = Size::new(640, 360);
/// Red 40, green 120, blue 220 as samples of BT.601 and BT.709, each in limited and in full range.
const BLUE: [Colour; 4] = [(108, 184, 86), (107, 191, 80), (111, 180, 89), (110, 187, 83)];
const WAYS: [(Matrix, bool); 4] =
    [(Matrix::Bt601, false), (Matrix::Bt601, true), (Matrix::Bt709, false), (Matrix::Bt709, true)];

/// Shows cameras of the four ways and compares them with the first, which needs no conversion.
fn are_alike(codec: Codec, camera: impl Fn(SourceId, Colour, Colours) -> Camera) {
    let mut rig = Rig::new();
    rig.send(ToMixer::Scene(scene([1, 2, 3, 4].map(|id| Some(SourceId(id))))));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    for ((samples, (matrix, full_range)), id) in BLUE.into_iter().zip(WAYS).zip(1..) {
        rig.add_camera(camera(SourceId(id), samples, Colours { matrix, full_range }), codec);
    }
    rig.run_until("all sizes", |rig| rig.sizes.len() == 4);
    rig.run(20);
    let pictures = decode(Codec::Vp8, &rig.frames(1));
    let last = pictures.last().expect("frames came");
    let [first, others @ ..] = [0, 1, 2, 3].map(|tile| colour(last, scene([None; 4]).tiles[tile].rect));
    for (got, way) in others.into_iter().zip(&WAYS[1..]) {
        let near = |a: u8, b: u8| a.abs_diff(b) <= 3;
        let is_near = near(got.0, first.0) && near(got.1, first.1) && near(got.2, first.2);
        assert!(is_near, "{codec}, {way:?}: {got:?}, not {first:?}");
    }
    assert!(first.0.abs_diff(BLUE[0].0) <= 3 && first.1.abs_diff(BLUE[0].1) <= 3, "{first:?}");
}

#[test]
fn the_colours_that_vp9_signals_are_converted() {
    are_alike(Codec::Vp9, |source, samples, colours| {
        let mut frames = encode(Codec::Vp9, SMALL, samples, 30);
        // color_space and color_range follow the sync code of a keyframe (VP9 bitstream section 6.2).
        for packet in frames.iter_mut().flatten() {
            let mut payload = packet.payload.to_vec();
            if let Some(at) = payload.windows(3).take(40).position(|three| three == [0x49, 0x83, 0x42]) {
                let space = if colours.matrix == Matrix::Bt709 { 2 } else { 1 };
                payload[at + 3] = payload[at + 3] & 0x0f | space << 5 | u8::from(colours.full_range) << 4;
            }
            packet.payload = payload.into();
        }
        Camera::new(source, frames)
    });
}

#[test]
fn the_colours_of_a_header_extension_are_converted() {
    are_alike(Codec::Vp8, |source, samples, colours| {
        let mut camera = Camera::new(source, encode(Codec::Vp8, SMALL, samples, 30));
        camera.colours = Some(colours);
        camera
    });
}
