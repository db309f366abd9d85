//! The mixer by its link messages, with real codecs and in real time.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod aborts;
mod colours;
mod filters;
mod foreign;
mod process;
mod rig;
mod senders;
mod views;

use commingle::codec::{Picture, PictureMut};
use commingle::id::{ParticipantId, SourceId};
use commingle::link::{FromMixer, ToMixer};
use commingle::media::{Codec, Rect, Rotation, Size, SoundQuality, SourcePacket};
use commingle::plan::{Listener, MixInput, MixPlan, StreamSet};
use commingle::time::now;

use rig::{Camera, Colour, Rig, alike, colour, decode, encode, encode_pictures, scene, stream, streams};

const COLOURS: [Colour; 4] = [(80, 90, 220), (150, 50, 40), (50, 220, 110), (190, 128, 128)];
const SMALL: Size = Size::new(320, 180);
const CANVAS: Size = Size::new(640, 360);

fn sources() -> [Option<SourceId>; 4] {
    [1, 2, 3, 4].map(|i| Some(SourceId(i)))
}

/// Four cameras, the last of them H.264 and the others VP8.
fn four(rig: &mut Rig) {
    for (i, colour) in COLOURS.into_iter().enumerate() {
        let codec = if i == 3 { Codec::H264 } else { Codec::Vp8 };
        let camera = Camera::new(SourceId(i as u32 + 1), encode(codec, SMALL, colour, 30));
        rig.add_camera(camera, codec);
    }
}

#[test]
fn four_cameras_become_one_picture_in_every_codec_and_tier() {
    let mut rig = Rig::new();
    four(&mut rig);
    rig.send(ToMixer::Scene(scene(sources())));
    rig.send(streams([
        stream(1, Codec::Vp8, CANVAS, 30),
        stream(2, Codec::H264, CANVAS, 30),
        stream(3, Codec::Vp8, SMALL, 15),
    ]));
    rig.run_until("all sizes", |rig| rig.sizes.len() == 4);
    rig.run(90);
    let before = rig.report.video_ticks;
    rig.run_until("a later report", |rig| rig.report.video_ticks > before + 20);
    let ticks = rig.report.video_ticks;

    for (serial, codec, step) in [(1, Codec::Vp8, 3000), (2, Codec::H264, 3000), (3, Codec::Vp8, 6000)] {
        let frames = rig.frames(serial);
        assert!(frames[0].keyframe, "stream {serial} begins with a keyframe");
        assert!(frames.iter().all(|frame| frame.timestamp % step == 0), "stream {serial} leaves the grid");
        assert!(frames.windows(2).all(|two| two[0].timestamp < two[1].timestamp), "stream {serial} goes back");
        let expected = ticks * 3000 / u64::from(step);
        assert!(frames.len() as u64 * 10 > expected * 8, "{} frames of stream {serial} in {ticks} ticks", frames.len());
        let pictures = decode(codec, &frames);
        let last = pictures.last().expect("frames came");
        let size = if serial == 3 { SMALL } else { CANVAS };
        assert_eq!(last.size(), size);
        for (tile, wanted) in scene(sources()).tiles.iter().zip(COLOURS) {
            let mut rect = tile.rect;
            if serial == 3 {
                (rect.x, rect.y, rect.width, rect.height) = (rect.x / 2, rect.y / 2, rect.width / 2, rect.height / 2);
            }
            let got = colour(last, rect);
            assert!(alike(got, wanted), "stream {serial}: {got:?} at {rect:?}, not {wanted:?}");
        }
    }
    assert_eq!(
        rig.keyframes_wanted.values().sum::<u32>(),
        0,
        "no keyframe is requested from a camera that begins with one"
    );
    assert!(rig.sizes.values().all(|sizes| *sizes == [SMALL]));
    let epoch_ticks = now().since(rig.epoch).as_millis() as u64 * 30 / 1000;
    let last = u64::from(rig.frames(1).last().expect("frames came").timestamp) / 3000;
    assert!(last <= epoch_ticks && last + 45 > epoch_ticks, "timestamps count from the epoch");
}

/// A picture of two halves: side by side, or one above the other.
fn halves(first: Colour, second: Colour, beside: bool, breath: u8) -> Picture {
    let mut picture = PictureMut::new(SMALL);
    let (planes, strides) = picture.planes();
    for (i, (plane, stride)) in planes.into_iter().zip(strides).enumerate() {
        let pick = |(y, u, v): Colour| [y + breath, u, v][i];
        let shrunk = usize::from(i > 0);
        let (width, height) = (SMALL.width as usize >> shrunk, SMALL.height as usize >> shrunk);
        for (row, line) in plane.chunks_mut(stride).take(height).enumerate() {
            for (column, sample) in line.iter_mut().take(width).enumerate() {
                let is_second = if beside { column >= width / 2 } else { row >= height / 2 };
                *sample = pick(if is_second { second } else { first });
            }
        }
    }
    picture.freeze()
}

/// Coordination of video orientation (3GPP TS 26.114): pictures are rotated before they are composed.
#[test]
fn rotated_cameras_are_composed_upright() {
    let mut rig = Rig::new();
    let (above, below) = (COLOURS[0], COLOURS[2]);
    let held = [
        (None, above, below, false),
        (Some(Rotation::Right), above, below, true),
        (Some(Rotation::Half), below, above, false),
        (Some(Rotation::Left), below, above, true),
    ];
    for (i, (rotation, first, second, beside)) in (1..).zip(held) {
        let picture = |n: u32| halves(first, second, beside, (n % 2) as u8);
        let mut camera = Camera::new(SourceId(i), encode_pictures(Codec::Vp8, SMALL, picture, 30));
        camera.rotation = rotation;
        rig.add_camera(camera, Codec::Vp8);
    }
    rig.send(ToMixer::Scene(scene(sources())));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.run_until("all sizes", |rig| rig.sizes.len() == 4);
    rig.run(30);
    let pictures = decode(Codec::Vp8, &rig.frames(1));
    let last = pictures.last().expect("frames came");
    for (tile, (rotation, ..)) in scene(sources()).tiles.iter().zip(held) {
        let half = Rect { height: tile.rect.height / 2, ..tile.rect };
        let got = [half, Rect { y: half.y + half.height, ..half }].map(|half| colour(last, half));
        assert!(alike(got[0], above) && alike(got[1], below), "{rotation:?}: {got:?}, not {above:?} above {below:?}");
        // A picture in portrait does not reach the edges of its tile.
        let edge = colour(last, Rect { width: 40, ..half });
        let is_turned = matches!(rotation, Some(Rotation::Right | Rotation::Left));
        assert_eq!(!alike(edge, above), is_turned, "{rotation:?}: {edge:?} at the edge");
    }
}

#[test]
fn one_keyframe_answers_many_requests() {
    let mut rig = Rig::new();
    four(&mut rig);
    rig.send(ToMixer::Scene(scene(sources())));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30), stream(2, Codec::H264, CANVAS, 30)]));
    rig.run_until("a second of frames", |rig| rig.frames(1).len() > 30 && rig.frames(2).len() > 30);
    for serial in [1, 2] {
        let other = 3 - serial;
        let (before, others) = (rig.frames(serial).len(), keyframes(&rig, other));
        let keys = keyframes(&rig, serial);
        for _ in 0..10 {
            rig.send(ToMixer::Keyframe { serial });
        }
        rig.run_until("the keyframe", |rig| keyframes(rig, serial) > keys);
        let at = rig.frames(serial).iter().skip(before).position(|frame| frame.keyframe).expect("it came");
        assert!(at <= 6, "the keyframe came {at} frames late");
        rig.run(8);
        assert_eq!(keyframes(&rig, serial), keys + 1, "ten requests, one keyframe");
        assert_eq!(keyframes(&rig, other), others, "no keyframe of stream {other} was requested");
    }
}

fn keyframes(rig: &Rig, serial: u32) -> usize {
    rig.frames(serial).iter().filter(|frame| frame.keyframe).count()
}

#[test]
fn nothing_is_decoded_or_encoded_without_streams() {
    let mut rig = Rig::new();
    four(&mut rig);
    rig.send(ToMixer::Scene(scene(sources())));
    rig.run(20);
    assert!(rig.video.is_empty() && rig.sizes.is_empty(), "without a stream nothing is decoded or encoded");
    assert_eq!(rig.report.video_ticks, 0);

    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.run_until("keyframe requests", |rig| rig.keyframes_wanted.len() == 4);
    rig.run_until("sizes", |rig| rig.sizes.len() == 4);
    rig.send(ToMixer::Streams(StreamSet::default()));
    rig.run(10);
    let (ticks, frames) = (rig.report.video_ticks, rig.frames(1).len());
    rig.run(20);
    assert!(rig.report.video_ticks <= ticks + 10 && rig.frames(1).len() == frames, "the streams were removed");
}

/// A source ends (RTCP BYE) and begins again.
#[test]
fn a_source_that_ends_is_hidden_at_once_and_may_begin_again() {
    let mut rig = Rig::new();
    let frames = encode(Codec::Vp8, SMALL, COLOURS[1], 30);
    rig.add_camera(Camera::new(SourceId(1), frames.clone()), Codec::Vp8);
    let tile = scene([None; 4]).tiles[0].rect;
    let shown =
        |rig: &Rig| decode(Codec::Vp8, &rig.frames(1)).last().is_some_and(|last| alike(colour(last, tile), COLOURS[1]));
    rig.send(ToMixer::Scene(scene([Some(SourceId(1)), None, None, None])));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.run_until("a size", |rig| rig.sizes.len() == 1);
    rig.run(10);
    assert!(shown(&rig));
    rig.cameras.clear();
    rig.send(ToMixer::SourceGone(SourceId(1)));
    rig.run(8);
    assert!(!shown(&rig), "its last picture has gone within a quarter of a second");
    rig.add_camera(Camera::new(SourceId(1), frames), Codec::Vp8);
    rig.run(20);
    assert!(shown(&rig), "it has begun again");
}

#[test]
fn few_frames_of_an_unchanged_canvas_are_encoded() {
    let mut rig = Rig::new();
    rig.send(ToMixer::Scene(scene([None; 4])));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.run_until("a repeated frame", |rig| rig.report.repeated > 0);
    let frames = rig.frames(1);
    let ticks = rig.report.video_ticks;
    assert!(frames.len() < 30 && ticks < 60, "{} frames of four avatars in {ticks} ticks", frames.len());
    assert!(rig.report.unchanged > 60);
    let at = frames.len();
    rig.send(ToMixer::Keyframe { serial: 1 });
    rig.run_until("a keyframe", |rig| rig.frames(1).iter().skip(at).any(|frame| frame.keyframe));
}

#[test]
fn malformed_packets_affect_only_their_source() {
    let mut rig = Rig::new();
    four(&mut rig);
    let mut shown = scene(sources());
    let rogues = [(10, Codec::Vp8), (11, Codec::H264), (12, Codec::Vp9), (13, Codec::Av1), (14, Codec::Opus)];
    for (id, codec) in rogues {
        rig.declare(SourceId(id), codec);
        let mut tile = shown.tiles[0].clone();
        (tile.participant, tile.source) = (ParticipantId(id), Some(SourceId(id)));
        // Drawn first, below the good ones.
        shown.tiles.insert(0, tile);
    }
    rig.send(ToMixer::Scene(shown));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.send(ToMixer::Mix(MixPlan {
        sources: vec![MixInput { source: SourceId(14), gain_db: 0.0 }],
        listeners: vec![Listener { participant: ParticipantId(1), quality: SoundQuality::Full }],
        outputs: false,
    }));
    let huge = huge_vp8_keyframe();
    let good = encode(Codec::Vp8, SMALL, COLOURS[0], 2);
    let good_h264 = encode(Codec::H264, SMALL, COLOURS[0], 2);
    let mut seed = 7u32;
    let mut random = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect()
    };
    for n in 0..90u16 {
        for (id, codec) in rogues {
            let payload = match (n % 4, codec) {
                (0, Codec::Vp8) => huge.clone(),
                (1, Codec::Vp8) => good[0][0].payload[..good[0][0].payload.len() / 2].to_vec(),
                (1, Codec::H264) => good_h264[0][0].payload[..good_h264[0][0].payload.len() / 2].to_vec(),
                (2, Codec::Vp8) => [&good[0][0].payload[..14], &random(300)[..]].concat(),
                (3, _) => random(usize::from(n) % 7),
                _ => random(200),
            };
            let packet = SourcePacket {
                sequence: n,
                timestamp: u32::from(n) * 3000,
                marker: true,
                arrival: now(),
                captured: None,
                audio_level: None,
                rotation: (n % 5 == 0).then_some(Rotation::Left),
                colours: None,
                payload: payload.into(),
            };
            rig.send(ToMixer::Packet(SourceId(id), packet));
        }
        // A source that was not announced.
        let stray = rig.cameras[0].next().remove(0);
        rig.send(ToMixer::Packet(SourceId(999), stray));
        rig.run(1);
    }
    rig.run_until("frames", |rig| rig.frames(1).len() > 60);
    rig.run(10);
    assert!(rig.report.source_frames_dropped > 30, "{:?}", rig.report);
    let asked = rig.keyframes_wanted.get(&SourceId(10)).copied().unwrap_or_default();
    assert!((1..=8).contains(&asked), "{asked} keyframes asked for in three seconds");
    let pictures = decode(Codec::Vp8, &rig.frames(1));
    let last = pictures.last().expect("frames came");
    for (tile, wanted) in scene(sources()).tiles.iter().zip(COLOURS).skip(1) {
        let got = colour(last, tile.rect);
        assert!(alike(got, wanted), "{got:?} at {:?}, not {wanted:?}", tile.rect);
    }
    assert!(!rig.sizes.get(&SourceId(10)).is_some_and(|sizes| sizes.contains(&Size::new(4096, 4096))));
    let is_expected = |message: &FromMixer| match message {
        FromMixer::Audio(_) | FromMixer::Levels(_) => true,
        FromMixer::DecoderFailed(source) => rogues.iter().any(|(id, _)| SourceId(*id) == *source),
        _ => false,
    };
    assert!(rig.others.iter().all(is_expected), "{:?}", rig.others);
}

/// A VP8 keyframe header with the size 4096x4096, after a payload descriptor.
fn huge_vp8_keyframe() -> Vec<u8> {
    let mut frame = vec![0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x10, 0x00, 0x10];
    frame.resize(400, 0x55);
    frame
}

#[test]
fn a_camera_with_packet_loss_continues_with_a_keyframe() {
    let mut rig = Rig::new();
    let frames = encode(Codec::Vp8, SMALL, COLOURS[1], 30);
    rig.add_camera(Camera::new(SourceId(1), frames), Codec::Vp8);
    rig.send(ToMixer::Scene(scene([Some(SourceId(1)), None, None, None])));
    rig.send(streams([stream(1, Codec::Vp8, CANVAS, 30)]));
    rig.run_until("a size", |rig| rig.sizes.len() == 1);
    rig.run(5);
    // One frame is lost.
    let _lost = rig.cameras[0].next();
    rig.run_until("a keyframe request", |rig| rig.keyframes_wanted.contains_key(&SourceId(1)));
    // The next round of its frames begins with a keyframe.
    rig.run(45);
    let pictures = decode(Codec::Vp8, &rig.frames(1));
    let rect = scene([None; 4]).tiles[0].rect;
    assert!(alike(colour(pictures.last().expect("frames came"), rect), COLOURS[1]));
    assert!(rig.report.source_frames_dropped > 0);
}
