use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::decoding::PENDING_MAX;
use super::*;
use crate::codec::{
    CodecError, Effort, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, VideoEncoder, repeat_frame,
};
use crate::id::ParticipantId;
use crate::media::{Codec, Size, SourceKind};
use crate::mixer::builder::tests::{PATIENCE, block};
use crate::simulcast::Simulcast;

const SOURCE: SourceId = SourceId(1);
const SIZE: Size = Size::new(64, 48);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + ms * 1_000)
}

/// VP8 frames of one encoder; those with an even number show `luma`, the others one more. Frame 0 is a keyframe,
/// and every eighth.
fn frames(count: u32, luma: u8) -> Vec<Vec<SourcePacket>> {
    encoded(Codec::Vp8, count, luma, 8)
}

/// Frames of one encoder with a keyframe first and after each `distance` frames.
fn encoded(codec: Codec, count: u32, luma: u8, distance: u32) -> Vec<Vec<SourcePacket>> {
    encoded_in(SIZE, codec, count, luma, distance)
}

/// The same in another size.
fn encoded_in(size: Size, codec: Codec, count: u32, luma: u8, distance: u32) -> Vec<Vec<SourcePacket>> {
    let spec = EncodeSpec {
        codec,
        size,
        fps: 30,
        bitrate_kbps: 200,
        h264: H264Encoder::X264,
        threads: 1,
        effort: Effort::Fast,
    };
    let (to, encoded) = sync_channel::<EncodedFrame>(4);
    let mut encoder = VideoEncoder::new(spec, move |frame| to.send(frame).expect("taken")).expect("installed");
    let (mut payloader, mut sequence) = (Payloader::new(codec), 0);
    (0..count)
        .map(|n| {
            let picture = Picture::filled(size, luma + (n % 2) as u8, 128, 128);
            assert!(encoder.push(&picture, Duration::from_millis(33 * u64::from(n)), n.is_multiple_of(distance)));
            let frame = encoded.recv_timeout(PATIENCE).expect("one in, one out");
            let packets = payloader.packets(&frame, n * 3_000).into_iter().map(|packet| {
                sequence += 1;
                SourcePacket {
                    sequence,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    arrival: at(33 * u64::from(n)),
                    captured: None,
                    audio_level: None,
                    rotation: None,
                    colours: None,
                    payload: packet.payload,
                }
            });
            packets.collect()
        })
        .collect()
}

/// A source without filters.
fn unfiltered(outbox: &Arc<Outbox>) -> Arc<crate::mixer::filter::Stage> {
    crate::mixer::filter::Filters::new(outbox.clone(), Duration::MAX).stage(SOURCE)
}

/// An ingest that shows one camera, and whose builder is busy until the first of these is dropped; the second tells
/// when a decoder was built.
struct Stage {
    ingest: Ingest,
    slot: Arc<FrameSlot>,
    outbox: Arc<Outbox>,
    built: Receiver<()>,
}

impl Stage {
    fn new(codec: Codec) -> (Self, std::sync::mpsc::SyncSender<()>) {
        let (tell, built) = sync_channel(64);
        let (outbox, builder) = (Arc::new(Outbox::default()), Builder::new("test"));
        let gate = block(&builder);
        let done = move || tell.send(()).expect("the test lives");
        let mut ingest = Ingest::new(DecodeLimits::default(), outbox.clone(), builder, done);
        let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
        let spec = SourceSpec { source: SOURCE, participant: ParticipantId(1), kind: SourceKind::Camera, codec };
        ingest.set_source(spec, slot.clone(), unfiltered(&outbox), None);
        ingest.set_shown([SOURCE].into(), at(0));
        (Self { ingest, slot, outbox, built }, gate)
    }

    fn insert(&mut self, frame: &[SourcePacket]) {
        for packet in frame {
            self.ingest.insert(SOURCE, packet.clone(), packet.arrival);
        }
    }

    /// The messages so far; at least one must have come.
    fn messages(&self) -> Vec<FromMixer> {
        let mut messages = Vec::new();
        assert!(self.outbox.take(&mut messages));
        messages
    }

    /// Calls `poll` at this time until a frame is stored.
    fn poll_until_frame(&mut self, now: Timestamp) {
        for _ in 0..20_000 {
            if self.slot.arrival().is_some() {
                return;
            }
            self.ingest.poll(now);
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("no frame");
    }

    /// Waits until the newest picture has this size.
    fn wait_for_size(&self, size: Size) {
        for _ in 0..20_000 {
            if self.slot.size() == Some(size) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("no picture of {size}: {:?}", self.slot.size());
    }

    /// Until when the ingest waits after the arrival of frame `n`.
    fn waits_until(&mut self, n: u32) -> Option<Timestamp> {
        self.ingest.poll(at(33 * u64::from(n)))
    }

    /// Waits until the pictures are still, or not.
    fn wait_for_still(&self, still: bool) {
        for _ in 0..20_000 {
            if self.slot.is_still() == still {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("still: {}", self.slot.is_still());
    }

    /// Waits until the decoder has stored the frame that arrived at this time.
    fn wait_for_frame(&self, arrival: Timestamp) {
        for _ in 0..20_000 {
            if self.slot.arrival().is_some_and(|stored| stored >= arrival) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("no frame of {arrival:?}: {:?}", self.slot.arrival());
    }
}

#[test]
fn frames_wait_for_a_decoder_that_is_being_built_and_none_is_lost() {
    let (mut stage, gate) = Stage::new(Codec::Vp8);
    let frames = frames(6, 80);
    for frame in &frames {
        stage.insert(frame);
    }
    assert!(stage.slot.arrival().is_none(), "nothing is decoded while the builder is busy");
    assert_eq!(stage.ingest.dropped(), 0);
    drop(gate);
    stage.built.recv_timeout(PATIENCE).expect("built");
    stage.ingest.poll(at(200));
    stage.wait_for_frame(at(33 * 5));
    assert_eq!(stage.ingest.dropped(), 0);
    assert_eq!(stage.messages(), [FromMixer::SourceSize(SOURCE, SIZE)], "no keyframe is requested");
}

#[test]
fn the_newest_keyframe_is_kept_while_a_decoder_is_built_slowly() {
    let (mut stage, gate) = Stage::new(Codec::Vp8);
    let frames = frames(8 + 3, 80);
    // Eight frames with a keyframe first, and later many frames without one: those after the fifteenth are dropped.
    for frame in &frames[..8] {
        stage.insert(frame);
    }
    let (mut sequence, mut timestamp) = (frames[7].last().expect("packets").sequence, 7 * 3_000);
    for _ in 0..20 {
        (sequence, timestamp) = (sequence + 1, timestamp + 3_000);
        let delta = frames[7].last().expect("packets").clone();
        stage.insert(&[SourcePacket { sequence, timestamp, marker: true, ..delta }]);
    }
    assert_eq!(stage.ingest.dropped(), 8 + 20 - PENDING_MAX as u64, "the rest waits");
    assert_eq!(stage.messages(), [FromMixer::KeyframeWanted(SOURCE)]);
    // The keyframe takes the place of everything before it.
    for (frame, n) in frames[8..].iter().zip(1_u32..) {
        let mut frame = frame.clone();
        for packet in &mut frame {
            sequence += 1;
            (packet.sequence, packet.timestamp) = (sequence, timestamp + n * 3_000);
        }
        stage.insert(&frame);
    }
    assert_eq!(stage.ingest.dropped(), 8 + 20);
    drop(gate);
    stage.built.recv_timeout(PATIENCE).expect("built");
    stage.ingest.poll(at(2_000));
    stage.wait_for_frame(at(33 * 10));
}

/// A camera that has shown the same picture for two seconds, and frames that go on doing so.
fn still_camera() -> (Stage, impl Fn(u32) -> Vec<SourcePacket>) {
    let (mut stage, gate) = Stage::new(Codec::Vp8);
    drop(gate);
    let first = frames(1, 80).remove(0);
    stage.insert(&first);
    stage.built.recv_timeout(PATIENCE).expect("built");
    stage.poll_until_frame(at(0));
    let last = first.last().expect("packets").clone();
    let frame = move |n: u32| {
        let repeated = EncodedFrame { data: repeat_frame(SIZE), keyframe: false, pts: Duration::ZERO };
        let packet = Payloader::new(Codec::Vp8).packets(&repeated, 0).remove(0);
        let (sequence, timestamp) = (last.sequence + n as u16, last.timestamp + n * 3_000);
        let arrival = at(33 * u64::from(n));
        vec![SourcePacket { sequence, timestamp, arrival, marker: true, payload: packet.payload, ..last.clone() }]
    };
    for n in 1..=60 {
        stage.insert(&frame(n));
        // The last of a batch, or a frame that does not wait.
        if stage.waits_until(n).is_none() {
            stage.wait_for_frame(at(33 * u64::from(n)));
        }
    }
    while stage.waits_until(60).is_some() {
        stage.ingest.poll(at(3_000));
    }
    stage.wait_for_frame(at(33 * 60));
    (stage, frame)
}

#[test]
fn frames_of_a_still_camera_are_decoded_in_batches() {
    let (mut stage, frame) = still_camera();
    for n in 61..64 {
        stage.insert(&frame(n));
        assert_eq!(stage.waits_until(n), Some(at(33 * 61 + 120)));
    }
    stage.insert(&frame(64));
    assert_eq!(stage.waits_until(64), None, "the fourth ends the batch");
    stage.wait_for_frame(at(33 * 64));
    // The camera pauses.
    stage.insert(&frame(65));
    assert_eq!(stage.waits_until(65), Some(at(33 * 65 + 120)));
    assert_eq!(stage.ingest.poll(at(33 * 65 + 120)), None, "decoded");
    stage.wait_for_frame(at(33 * 65));
    assert_eq!((stage.ingest.dropped(), stage.slot.replaced()), (0, 0));
}

#[test]
fn a_keyframe_of_a_still_camera_ends_the_batch_and_the_frames_before_it_are_not_dropped() {
    let (mut stage, frame) = still_camera();
    stage.insert(&frame(61));
    let mut keyframe = frames(1, 200).remove(0);
    for packet in &mut keyframe {
        let [next] = &frame(62)[..] else { panic!("one packet") };
        packet.arrival = next.arrival;
        (packet.sequence, packet.timestamp) = (next.sequence + packet.sequence - 1, next.timestamp);
    }
    stage.insert(&keyframe);
    assert_eq!(stage.waits_until(62), None);
    // A keyframe of a still camera may be coarse: the picture after it shows the movement, without waiting for others.
    stage.wait_for_still(false);
    let [mut next] = <[SourcePacket; 1]>::try_from(frame(63)).expect("one packet");
    next.sequence = keyframe.last().expect("packets").sequence + 1;
    stage.insert(&[next]);
    assert_eq!(stage.waits_until(63), None);
    stage.wait_for_frame(at(33 * 63));
    assert_eq!(stage.slot.get(SIZE, crate::layout::ObjectFit::Auto).expect("a picture").picture.plane(0).0[0], 200);
    assert_eq!(stage.ingest.dropped(), 0);
}

#[test]
fn a_camera_that_is_hidden_while_its_decoder_is_built_stays_hidden() {
    let (mut stage, gate) = Stage::new(Codec::Vp8);
    let frames = frames(9, 80);
    stage.insert(&frames[0]);
    stage.ingest.set_shown(BTreeSet::new(), at(40));
    stage.ingest.set_shown([SOURCE].into(), at(50));
    assert_eq!(stage.messages(), [FromMixer::KeyframeWanted(SOURCE)]);
    drop(gate);
    // The first decoder is no longer wanted; the next keyframe makes another one.
    stage.insert(&frames[8]);
    stage.built.recv_timeout(PATIENCE).expect("built");
    stage.ingest.poll(at(400));
    stage.wait_for_frame(at(33 * 8));
    assert!(stage.built.try_recv().is_err(), "one decoder was built");
}

#[test]
fn a_source_that_cannot_be_decoded_is_not_asked_for_keyframes() {
    let (mut stage, gate) = Stage::new(Codec::Vp8);
    drop(gate);
    let frames = frames(9, 80);
    stage.insert(&frames[0]);
    let source = stage.ingest.sources.get_mut(&SOURCE).expect("known");
    source.fail(&CodecError::Unsupported(Codec::Vp8, "decoded here"), at(1));
    for frame in &frames[1..] {
        stage.insert(frame);
    }
    stage.ingest.poll(at(5_000));
    stage.ingest.set_shown(BTreeSet::new(), at(5_000));
    stage.ingest.set_shown([SOURCE].into(), at(6_000));
    stage.outbox.push(FromMixer::KeyframeWanted(SourceId(2)));
    assert_eq!(stage.messages(), [FromMixer::KeyframeWanted(SourceId(2))], "nothing of source 1");
}

/// A camera that is hidden while it sends these frames, and is then shown.
fn shown_after(codec: Codec, hidden: &[Vec<SourcePacket>]) -> Stage {
    let (mut stage, gate) = Stage::new(codec);
    drop(gate);
    stage.ingest.set_shown(BTreeSet::new(), at(0));
    for frame in hidden {
        stage.insert(frame);
    }
    stage.ingest.set_shown([SOURCE].into(), at(2_000));
    stage
}

#[test]
fn a_hidden_camera_is_decoded_from_its_last_keyframe_on_when_it_is_shown() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let frames = encoded(codec, 50, 80, 1_000);
        let mut stage = shown_after(codec, &frames[..40]);
        stage.built.recv_timeout(PATIENCE).expect("built");
        // The first live frames come while those of the past wait for the decoder.
        frames[40..44].iter().for_each(|frame| stage.insert(frame));
        let mut now = 2_000;
        while stage.ingest.poll(at(now)).is_some() {
            now += 10;
            assert!(now < 200_000, "{codec}: the frames still wait for the decoder");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        for (n, frame) in (44..).zip(&frames[44..]) {
            // A decoder that is behind by many frames drops live ones.
            stage.wait_for_frame(at(33 * (n - 1)));
            stage.insert(frame);
        }
        stage.wait_for_frame(at(33 * 49));
        assert_eq!(stage.ingest.dropped(), 0, "{codec}");
        // Of the 40 frames of the past, the last eight are shown.
        assert!(stage.slot.replaced() <= 8 + 10, "{codec}: {} pictures", stage.slot.replaced());
        assert!(stage.messages().contains(&FromMixer::KeyframeWanted(SOURCE)), "a keyframe is still requested");
    }
}

#[test]
fn a_keyframe_replaces_the_packets_that_were_kept() {
    let frames = frames(24, 80);
    let (mut stage, gate) = Stage::new(Codec::Vp8);
    stage.ingest.set_shown(BTreeSet::new(), at(0));
    frames[..16].iter().for_each(|frame| stage.insert(frame));
    stage.ingest.set_shown([SOURCE].into(), at(600));
    frames[16..].iter().for_each(|frame| stage.insert(frame));
    assert_eq!(stage.ingest.dropped(), 8, "the frames from the keyframe before");
    drop(gate);
    stage.built.recv_timeout(PATIENCE).expect("built");
    stage.ingest.poll(at(900));
    stage.wait_for_frame(at(33 * 23));
}

#[test]
fn parameter_sets_from_before_a_camera_was_shown_are_used() {
    let mut frames = encoded(Codec::H264, 6, 80, 3);
    let is_set = |packet: &SourcePacket| matches!(packet.payload[0] & 0x1f, 7 | 8 | 24);
    // The encoder sends the sets as packets of their own, or as one aggregate; the second keyframe has none.
    assert!(frames[0].iter().any(is_set), "{:x?}", frames[0][0].payload);
    frames[3].retain(|packet| !is_set(packet));
    let mut sequence = 0;
    for packet in frames.iter_mut().flatten() {
        sequence += 1;
        packet.sequence = sequence;
    }
    // It is shown between the packets of the first keyframe, and after them.
    for hidden in 1..=frames[0].len() {
        let mut stage = shown_after(Codec::H264, &[frames[0][..hidden].to_vec()]);
        stage.insert(&frames[0][hidden..]);
        stage.built.recv_timeout(PATIENCE).expect("built");
        stage.ingest.poll(at(2_000));
        stage.wait_for_frame(at(0));
    }
    let mut stage = shown_after(Codec::H264, &frames[..1]);
    stage.ingest.set_shown(BTreeSet::new(), at(2_000));
    frames[3..].iter().for_each(|frame| stage.insert(frame));
    stage.ingest.set_shown([SOURCE].into(), at(2_100));
    stage.built.recv_timeout(PATIENCE).expect("built");
    stage.poll_until_frame(at(2_200));
}

#[test]
fn a_sender_that_ignores_keyframe_requests_is_decoded_each_time_it_is_shown() {
    let frames = encoded(Codec::Vp8, 200, 80, 120);
    let mut stage = shown_after(Codec::Vp8, &frames[..10]);
    // Its next keyframe comes two seconds after the request.
    frames[10..130].iter().for_each(|frame| stage.insert(frame));
    let kept = stage.ingest.sources[&SOURCE].kept_bytes();
    assert!(kept > 0, "also while it is shown");
    stage.ingest.set_shown(BTreeSet::new(), at(4_300));
    stage.ingest.set_shown([SOURCE].into(), at(4_310));
    // How many decoders are reported depends on the builder: it may have begun the first before that was dropped.
    stage.poll_until_frame(at(4_400));
    stage.wait_for_frame(at(33 * 129));
    // A sender that answers needs no history while it is shown.
    let (mut other, _gate) = Stage::new(Codec::Vp8);
    other.ingest.set_shown(BTreeSet::new(), at(0));
    frames[..10].iter().for_each(|frame| other.insert(frame));
    other.ingest.set_shown([SOURCE].into(), at(33 * 119));
    assert!(other.ingest.sources[&SOURCE].kept_bytes() > 0, "before its answer");
    for (i, frame) in frames[120..].iter().enumerate() {
        let mut frame = frame.clone();
        for packet in &mut frame {
            packet.sequence = frames[9].last().expect("packets").sequence + 1 + i as u16;
        }
        other.insert(&frame);
    }
    assert_eq!(other.ingest.sources[&SOURCE].kept_bytes(), 0);
}

#[test]
fn the_packets_that_a_room_keeps_are_bounded() {
    let (mut stage, _gate) = Stage::new(Codec::Vp8);
    stage.ingest.set_shown(BTreeSet::new(), at(0));
    for id in 2..8 {
        let spec = SourceSpec {
            source: SourceId(id),
            participant: ParticipantId(id),
            kind: SourceKind::Camera,
            codec: Codec::Vp8,
        };
        let filters = unfiltered(&stage.outbox);
        stage.ingest.set_source(spec, Arc::new(FrameSlot::new(SourceKind::Camera)), filters, None);
    }
    let keyframe = frames(1, 80)[0][0].clone();
    for n in 0..8_000_u32 {
        for id in 1..8 {
            let payload = if n == 0 { keyframe.payload.clone() } else { bytes::Bytes::from(vec![0; 1_200]) };
            let packet = SourcePacket {
                sequence: n as u16,
                timestamp: n * 90,
                arrival: at(u64::from(n)),
                payload,
                ..keyframe.clone()
            };
            stage.ingest.insert(SourceId(id), packet, at(u64::from(n)));
        }
        let kept = || stage.ingest.sources.values().map(VideoSource::kept_bytes);
        assert!(kept().sum::<usize>() <= HISTORY_BYTES);
    }
    let left = stage.ingest.sources.values().filter(|source| source.kept_bytes() > 0).count();
    assert!((1..7).contains(&left), "{left} of seven");
}

#[test]
fn a_stream_that_continues_with_another_simulcast_encoding_keeps_its_decoder() {
    let large = Size::new(128, 96);
    for codec in [Codec::Vp8, Codec::H264] {
        let (mut stage, gate) = Stage::new(codec);
        drop(gate);
        let mut simulcast = Simulcast::new(2, Some(SIZE));
        let encodings = [encoded(codec, 20, 80, 1_000), encoded_in(large, codec, 20, 80, 10)];
        let mut out = Vec::new();
        let [small_frames, large_frames] = &encodings;
        for (n, frames) in small_frames.iter().zip(large_frames).enumerate() {
            if n == 5 {
                simulcast.want(large, at(33 * 5));
            }
            for (encoding, (size, frame)) in [(SIZE, frames.0), (large, frames.1)].into_iter().enumerate() {
                for (part, packet) in frame.iter().enumerate() {
                    let keyframe = part == 0 && (n == 0 || encoding == 1 && n == 10);
                    let keyframe = keyframe.then_some(size);
                    simulcast.take(encoding, codec, packet.clone(), keyframe, packet.arrival, &mut out);
                }
            }
            for (_, packet) in out.drain(..) {
                let arrival = packet.arrival;
                stage.ingest.insert(SOURCE, packet, arrival);
            }
            if n == 0 {
                stage.built.recv_timeout(PATIENCE).expect("built");
            }
            stage.ingest.poll(at(33 * n as u64));
            stage.wait_for_frame(at(33 * n as u64));
            stage.wait_for_size(if n < 10 { SIZE } else { large });
        }
        assert_eq!(stage.ingest.dropped(), 0, "{codec}");
        assert!(stage.built.try_recv().is_err(), "{codec}: one decoder was built");
    }
}
