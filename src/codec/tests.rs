//! Encoders, payloaders, depayloaders and decoders in sequence: pictures arrive unchanged.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::*;
use crate::media::{EncodedPacket, SourcePacket};
use crate::pipeline::graph::tests::PIECES;
use crate::pipeline::graph::{Graph, Piece};
use crate::time::Timestamp;

const WAIT: Duration = Duration::from_secs(10);
const SIZE: Size = Size::new(320, 180);

fn spec(codec: Codec, h264: H264Encoder) -> EncodeSpec {
    EncodeSpec { codec, size: SIZE, fps: 30, bitrate_kbps: 500, h264, threads: 1, effort: Effort::Good }
}

fn encoder(spec: EncodeSpec) -> (VideoEncoder, Receiver<EncodedFrame>) {
    let (sender, frames) = sync_channel(64);
    let encoder = VideoEncoder::new(spec, move |frame| {
        let _ = sender.try_send(frame);
    });
    (encoder.expect("installed"), frames)
}

fn decoder(codec: Codec) -> (VideoDecoder, Receiver<Decoded>) {
    let (sender, pictures) = sync_channel(64);
    let decoder = VideoDecoder::new(codec, DecodeLimits::default(), move |decoded| {
        let _ = sender.try_send(decoded);
    });
    (decoder.expect("installed"), pictures)
}

fn through_rtp(codec: Codec, packets: Vec<EncodedPacket>) -> Bytes {
    let packets: Vec<SourcePacket> = packets
        .into_iter()
        .enumerate()
        .map(|(i, packet)| SourcePacket {
            sequence: i as u16,
            timestamp: packet.timestamp,
            marker: packet.marker,
            arrival: Timestamp::default(),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: packet.payload,
        })
        .collect();
    Depayloader::new(codec).frame(&packets).expect("well formed").expect("a frame")
}

/// Each picture is returned before the next is pushed, with its time and its contents.
fn one_in_one_out(codec: Codec, h264: H264Encoder) {
    for effort in [Effort::Good, Effort::Best] {
        one_in_one_out_with(EncodeSpec { effort, ..spec(codec, h264) });
    }
}

fn one_in_one_out_with(spec: EncodeSpec) {
    let codec = spec.codec;
    let (mut encoder, frames) = encoder(spec);
    let (mut decoder, pictures) = decoder(codec);
    let mut payloader = Payloader::new(codec);
    for i in 0..12u32 {
        let luma = 40 + 15 * i as u8;
        let pts = Duration::from_millis(1_000_000 + 33 * u64::from(i));
        assert!(encoder.push(&Picture::filled(SIZE, luma, 90, 160), pts, i == 7), "busy with an empty queue");
        let frame = frames.recv_timeout(WAIT).expect("no delay");
        assert_eq!(frame.pts, pts, "picture {i}");
        assert_eq!(frame.keyframe, i == 0 || i == 7, "a keyframe comes first and when asked, not at {i}");
        assert_eq!(coded_size(codec, &frame.data).is_some(), frame.keyframe);
        let packets = payloader.packets(&frame, i * 3000);
        assert_eq!(Depayloader::starts_keyframe(codec, &packets[0].payload), frame.keyframe);
        assert_eq!(packets[0].starts_keyframe, frame.keyframe);
        let arrival = Timestamp::from_micros(5_000_000 + u64::from(i));
        decoder.push(through_rtp(codec, packets), arrival).expect("taken");
        let Decoded::Picture { picture, pts } = pictures.recv_timeout(WAIT).expect("no delay") else {
            panic!("{codec} fails at picture {i}");
        };
        assert_eq!((picture.size(), pts), (SIZE, arrival));
        let (y, stride) = picture.plane(0);
        let seen = y[90 * stride + 160];
        assert!(seen.abs_diff(luma) < 12, "picture {i}: {seen} is not {luma}");
        assert!(picture.plane(1).0[0].abs_diff(90) < 8 && picture.plane(2).0[0].abs_diff(160) < 8);
    }
}

#[test]
fn vp8_one_in_one_out() {
    one_in_one_out(Codec::Vp8, H264Encoder::X264);
}

#[test]
fn vp9_one_in_one_out() {
    one_in_one_out(Codec::Vp9, H264Encoder::X264);
}

#[test]
fn x264_one_in_one_out() {
    one_in_one_out(Codec::H264, H264Encoder::X264);
}

#[test]
fn openh264_one_in_one_out() {
    one_in_one_out(Codec::H264, H264Encoder::OpenH264);
}

#[test]
fn the_effort_may_change_at_every_picture() {
    for codec in [Codec::Vp8, Codec::Vp9] {
        let (mut encoder, frames) = encoder(spec(codec, H264Encoder::X264));
        let (mut decoder, pictures) = decoder(codec);
        for i in 0..18u64 {
            assert!(encoder.set_effort([Effort::Best, Effort::Fast, Effort::Good][(i / 2) as usize % 3]), "{codec}");
            let picture = Picture::filled(SIZE, 40 + 10 * i as u8, 90, 160);
            assert!(encoder.push(&picture, Duration::from_millis(33 * i), i == 8), "{codec}: busy at picture {i}");
            let frame = frames.recv_timeout(WAIT).expect("no delay");
            assert_eq!(frame.keyframe, i == 0 || i == 8, "{codec}: picture {i}");
            decoder.push(frame.data, Timestamp::from_micros(i)).expect("taken");
            let decoded = pictures.recv_timeout(WAIT).expect("no delay");
            assert!(matches!(decoded, Decoded::Picture { .. }), "{codec} fails at picture {i}");
        }
    }
    let (mut x264, _frames) = encoder(spec(Codec::H264, H264Encoder::X264));
    assert!(!x264.set_effort(Effort::Best), "its preset is fixed: another encoder is made");
}

fn keyframe(codec: Codec, size: Size) -> Bytes {
    let (mut encoder, frames) = encoder(EncodeSpec { size, ..spec(codec, H264Encoder::X264) });
    assert!(encoder.push(&Picture::filled(size, 100, 128, 128), Duration::from_secs(1), true));
    frames.recv_timeout(WAIT).expect("one in, one out").data
}

#[test]
fn the_size_may_change_at_a_keyframe() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let (mut decoder, pictures) = decoder(codec);
        for (i, size) in [SIZE, Size::new(640, 360), Size::new(160, 90), Size::new(180, 320)].into_iter().enumerate() {
            decoder.push(keyframe(codec, size), Timestamp::from_micros(i as u64)).expect("taken");
            match pictures.recv_timeout(WAIT).expect("no delay") {
                Decoded::Picture { picture, .. } => assert_eq!(picture.size(), size, "{codec}"),
                other => panic!("{codec}: {other:?}"),
            }
        }
    }
}

#[test]
fn oversized_and_malformed_frames_do_not_reach_the_decoder() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let (mut decoder, _pictures) = decoder(codec);
        let big = keyframe(codec, Size::new(2560, 1440));
        assert!(matches!(decoder.push(big, Timestamp::default()), Err(CodecError::Size { .. })), "{codec}");
        let portrait = DecodeLimits::default().allow(Size::new(1080, 1920));
        assert!(portrait, "1080p is allowed in portrait too");
        assert!(!DecodeLimits::default().allow(Size::new(1920, 1200)));
        let garbage = Bytes::from_static(&[0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(decoder.push(garbage, Timestamp::default()).is_err(), "{codec}");
        let truncated = keyframe(codec, SIZE).slice(..3);
        assert!(decoder.push(truncated, Timestamp::default()).is_err(), "{codec}");
    }
    let (mut decoder, _pictures) = decoder(Codec::Vp8);
    let inter = Bytes::from_static(&[0x11, 0, 0, 0, 0]);
    assert!(matches!(decoder.push(inter, Timestamp::default()), Err(CodecError::KeyframeNeeded)));
}

#[test]
fn a_frame_behind_another_in_a_buffer_is_not_decoded() {
    let (mut decoder, pictures) = decoder(Codec::Vp9);
    let (small, large) = (keyframe(Codec::Vp9, SIZE), keyframe(Codec::Vp9, Size::new(2560, 1440)));
    // A keyframe; the large one behind `show_existing_frame`, behind another keyframe, and behind both.
    let both = [&small[..], &[0x88]].concat();
    let hidden = [
        small.to_vec(),
        [&[0x88], &large[..]].concat(),
        [&small[..], &large].concat(),
        [both, large.to_vec()].concat(),
    ];
    for (i, buffer) in hidden.into_iter().enumerate() {
        decoder.push(buffer.into(), Timestamp::from_micros(i as u64)).expect("taken");
        match pictures.recv_timeout(WAIT).expect("no delay") {
            Decoded::Picture { picture, .. } => assert_eq!(picture.size(), SIZE, "buffer {i}"),
            other => panic!("buffer {i}: {other:?}"),
        }
    }
}

#[test]
fn two_h264_pictures_of_one_time_are_decoded_as_two() {
    let (mut decoder, pictures) = decoder(Codec::H264);
    let other = Size::new(640, 360);
    let both = [keyframe(Codec::H264, SIZE), keyframe(Codec::H264, other)].concat();
    decoder.push(both.into(), Timestamp::default()).expect("taken");
    for size in [SIZE, other] {
        match pictures.recv_timeout(WAIT).expect("no delay") {
            Decoded::Picture { picture, .. } => assert_eq!(picture.size(), size),
            other => panic!("{other:?}"),
        }
    }
    let large = [keyframe(Codec::H264, SIZE), keyframe(Codec::H264, Size::new(2560, 1440))].concat();
    let refused = decoder.push(large.into(), Timestamp::from_micros(1));
    assert!(matches!(refused, Err(CodecError::Size { .. })), "{refused:?}");
}

#[test]
fn a_malformed_frame_is_reported_once_and_ends_the_decoder() {
    let (mut broken, pictures) = decoder(Codec::Vp8);
    let mut data = keyframe(Codec::Vp8, SIZE).to_vec();
    // A first partition longer than the frame: the header is valid, the frame is not.
    data.truncate(12);
    broken.push(data.into(), Timestamp::default()).expect("its header is fine");
    assert!(matches!(pictures.recv_timeout(WAIT), Ok(Decoded::Failed(_))));
    let again = broken.push(keyframe(Codec::Vp8, SIZE), Timestamp::default());
    assert!(matches!(again, Err(CodecError::Failed)));
}

#[test]
fn a_decoder_may_be_dropped_by_its_own_callback() {
    let slot = std::sync::Arc::new(parking_lot::Mutex::new(None::<VideoDecoder>));
    let (sender, dropped) = sync_channel(4);
    let mine = slot.clone();
    let mut decoder = VideoDecoder::new(Codec::Vp8, DecodeLimits::default(), move |_| {
        drop(mine.lock().take());
        let _ = sender.try_send(());
    })
    .expect("installed");
    let frame = keyframe(Codec::Vp8, SIZE);
    let mut held = slot.lock();
    decoder.push(frame, Timestamp::default()).expect("taken");
    *held = Some(decoder);
    drop(held);
    dropped.recv_timeout(WAIT).expect("no deadlock");
}

#[test]
fn a_busy_encoder_skips_pictures_and_keeps_the_keyframe_request() {
    let (gate_sender, gate) = sync_channel::<()>(64);
    let (sender, frames) = sync_channel(64);
    let mut encoder = VideoEncoder::new(spec(Codec::Vp8, H264Encoder::X264), move |frame| {
        let _ = gate.recv();
        let _ = sender.try_send(frame);
    })
    .expect("installed");
    let picture = Picture::filled(SIZE, 100, 128, 128);
    let mut taken = 0u64;
    // Its callback blocks: one picture is in the encoder, some wait, then it is busy.
    while encoder.push(&picture, Duration::from_millis(33 * taken), false) {
        taken += 1;
        assert!(taken < 20, "never busy");
    }
    assert!(!encoder.push(&picture, Duration::from_secs(5), true), "still busy");
    assert_eq!(encoder.skipped(), 2);
    for _ in 0..taken + 1 {
        gate_sender.try_send(()).expect("room");
    }
    for _ in 0..taken {
        frames.recv_timeout(WAIT).expect("each taken picture comes out");
    }
    assert!(encoder.push(&picture, Duration::from_secs(6), false));
    assert!(frames.recv_timeout(WAIT).expect("comes out").keyframe, "the request was kept");
}

#[test]
fn every_piece_of_a_graph_parses_has_its_names_and_no_holes() {
    intake::prepare().expect("GStreamer is installed");
    for piece in PIECES {
        let (file, text) = piece.load();
        assert!(text.starts_with("# ") && !text.contains('{'), "{file}");
        let (_, description) = piece.description();
        match piece {
            Piece::Pictures | Piece::Sound | Piece::Rest => {
                let bin = gst::parse::bin_from_description(&description, true).expect(file);
                assert!(bin.by_name("out").is_some() && bin.static_pad("sink").is_some(), "{file}");
            }
            _ => {
                let graph = Graph::new(piece).expect(file);
                graph.element("source").expect(file);
                graph.element("decode").expect(file);
                assert!(graph.element("nothing").is_err());
            }
        }
    }
}
