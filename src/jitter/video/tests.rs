use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const FRAME: u32 = 3_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + ms * 1_000)
}

fn packet(sequence: u16, timestamp: u32, marker: bool) -> SourcePacket {
    SourcePacket {
        sequence,
        timestamp,
        marker,
        arrival: at(0),
        captured: None,
        audio_level: None,
        rotation: None,
        colours: None,
        payload: Bytes::copy_from_slice(&sequence.to_be_bytes()),
    }
}

fn sequences(poll: &VideoPoll) -> Vec<u16> {
    let VideoPoll::Frame(frame) = poll else { panic!("{poll:?} is no frame") };
    frame.packets.iter().map(|p| p.sequence).collect()
}

/// A buffer that has returned a keyframe of one packet, number 10 at timestamp 0.
fn flowing() -> VideoJitter {
    let mut jitter = VideoJitter::default();
    jitter.insert(packet(10, 0, true), true, at(0));
    assert_eq!(sequences(&jitter.poll(at(0))), [10]);
    jitter
}

#[test]
fn a_whole_frame_is_returned_at_once_also_when_numbers_wrap() {
    let mut jitter = VideoJitter::default();
    let start = u32::MAX - FRAME / 2;
    jitter.insert(packet(65_534, start, false), true, at(0));
    assert_eq!(jitter.poll(at(0)), VideoPoll::Empty);
    jitter.insert(packet(65_535, start, true), false, at(1));
    assert_eq!(sequences(&jitter.poll(at(1))), [65_534, 65_535]);
    jitter.insert(packet(0, start.wrapping_add(FRAME), true), false, at(34));
    assert_eq!(sequences(&jitter.poll(at(34))), [0]);
    assert_eq!(jitter.poll(at(34)), VideoPoll::Empty);
    assert_eq!(jitter.stats(), VideoStats { received: 3, frames: 2, ..VideoStats::default() });
}

#[test]
fn an_added_delay_counts_from_the_arrival_of_the_last_packet() {
    let mut jitter = flowing();
    jitter.set_delay(Duration::from_millis(60));
    jitter.insert(packet(11, FRAME, false), false, at(30));
    assert_eq!(jitter.poll(at(33)), VideoPoll::Empty);
    jitter.insert(SourcePacket { arrival: at(33), ..packet(12, FRAME, true) }, false, at(33));
    assert_eq!(jitter.poll(at(33)), VideoPoll::Wait(at(93)));
    jitter.insert(SourcePacket { arrival: at(66), ..packet(13, 2 * FRAME, true) }, false, at(66));
    assert_eq!(jitter.poll(at(92)), VideoPoll::Wait(at(93)));
    assert_eq!(sequences(&jitter.poll(at(93))), [11, 12]);
    assert_eq!(jitter.poll(at(93)), VideoPoll::Wait(at(126)));
    jitter.set_delay(Duration::ZERO);
    assert_eq!(sequences(&jitter.poll(at(94))), [13]);
    jitter.set_delay(Duration::from_secs(60));
    jitter.insert(SourcePacket { arrival: at(99), ..packet(14, 3 * FRAME, true) }, false, at(99));
    assert_eq!(jitter.poll(at(99)), VideoPoll::Wait(at(499)), "the delay is bounded");
}

#[test]
fn a_frame_without_a_marker_ends_at_the_next_timestamp() {
    let mut jitter = flowing();
    jitter.insert(packet(11, FRAME, false), false, at(1));
    assert_eq!(jitter.poll(at(1)), VideoPoll::Empty);
    jitter.insert(packet(12, 2 * FRAME, false), false, at(2));
    assert_eq!(sequences(&jitter.poll(at(2))), [11]);
}

#[test]
fn a_keyframe_is_requested_every_500_ms_and_nothing_is_returned_before_it() {
    let mut jitter = VideoJitter::default();
    assert_eq!(jitter.poll(at(0)), VideoPoll::Empty);
    let mut asked = Vec::new();
    for i in 0..40_u16 {
        let now = at(u64::from(i) * 33);
        jitter.insert(packet(i, u32::from(i) * FRAME, true), false, now);
        match jitter.poll(now) {
            VideoPoll::KeyframeWanted => asked.push(i),
            VideoPoll::Wait(until) => assert!(until > now),
            other => panic!("{other:?} without a keyframe"),
        }
    }
    assert_eq!(asked, [0, 16, 32]);
    assert_eq!(jitter.poll(at(5_000)), VideoPoll::KeyframeWanted);
    assert_eq!(jitter.poll(at(10_000)), VideoPoll::Empty, "no packets, no requests");
    jitter.insert(packet(40, 40 * FRAME, true), true, at(10_000));
    let VideoPoll::Frame(frame) = jitter.poll(at(10_000)) else { panic!("a keyframe is here") };
    assert!(frame.starts_keyframe && !frame.after_gap);
    assert_eq!(jitter.stats().dropped_frames, 40);
}

#[test]
fn the_first_packet_of_the_first_keyframe_may_be_reordered() {
    let mut jitter = VideoJitter::default();
    jitter.insert(packet(8, 0, true), false, at(0));
    assert_eq!(jitter.poll(at(0)), VideoPoll::KeyframeWanted);
    jitter.insert(packet(7, 0, false), true, at(5));
    assert_eq!(sequences(&jitter.poll(at(5))), [7, 8]);
}

#[test]
fn a_retransmission_in_time_loses_no_frame() {
    let mut jitter = flowing();
    jitter.insert(packet(12, 2 * FRAME, true), false, at(66));
    assert_eq!(jitter.poll(at(66)), VideoPoll::Wait(at(306)));
    jitter.insert(packet(11, FRAME, true), false, at(305));
    assert_eq!(sequences(&jitter.poll(at(305))), [11]);
    assert_eq!(sequences(&jitter.poll(at(305))), [12]);
    assert_eq!(jitter.stats().lost, 0);
}

#[test]
fn after_the_wait_the_buffer_continues_with_the_next_keyframe() {
    let mut jitter = flowing();
    jitter.insert(packet(12, 2 * FRAME, true), false, at(66));
    assert_eq!(jitter.poll(at(306)), VideoPoll::KeyframeWanted);
    jitter.insert(packet(11, FRAME, true), false, at(307));
    jitter.insert(packet(13, 3 * FRAME, true), true, at(340));
    let VideoPoll::Frame(frame) = jitter.poll(at(340)) else { panic!("a keyframe is here") };
    assert!(frame.starts_keyframe && frame.after_gap);
    jitter.insert(packet(14, 4 * FRAME, true), false, at(373));
    let VideoPoll::Frame(frame) = jitter.poll(at(373)) else { panic!("a frame is here") };
    assert!(!frame.after_gap);
    let stats = jitter.stats();
    assert_eq!((stats.lost, stats.late, stats.dropped_frames, stats.frames), (1, 1, 1, 3));
}

#[test]
fn a_keyframe_in_the_buffer_is_not_requested() {
    let mut jitter = flowing();
    jitter.insert(packet(12, 2 * FRAME, true), true, at(66));
    assert_eq!(jitter.poll(at(100)), VideoPoll::Wait(at(306)));
    assert_eq!(sequences(&jitter.poll(at(306))), [12]);
}

#[test]
fn a_missing_packet_of_a_rare_screen_frame_is_waited_for() {
    let mut jitter = flowing();
    jitter.insert(packet(11, FRAME, false), false, at(33));
    jitter.insert(packet(13, FRAME + 5 * VIDEO_CLOCK, true), false, at(5_033));
    assert_eq!(jitter.poll(at(5_033)), VideoPoll::Wait(at(5_273)));
    jitter.insert(packet(12, FRAME, true), false, at(5_080));
    assert_eq!(sequences(&jitter.poll(at(5_080))), [11, 12]);
    assert_eq!(jitter.stats().overflow, 0);
}

#[test]
fn the_buffer_is_bounded() {
    let mut jitter = flowing();
    for i in 12..6_000_u16 {
        jitter.insert(packet(i, FRAME, false), false, at(1));
        assert!(jitter.packets.len() <= MAX_PACKETS);
    }
    assert!(jitter.stats().overflow > 0);
    // A second of frames behind a hole, unpolled: on with the newest keyframe.
    let mut jitter = flowing();
    for i in 0..40_u16 {
        jitter.insert(packet(12 + i, u32::from(i + 2) * FRAME, true), i == 20, at(1));
    }
    assert_eq!(sequences(&jitter.poll(at(1))), [32]);
    assert_eq!(jitter.stats().overflow, 20);
}

#[test]
fn the_buffer_continues_after_a_restart_of_the_sender() {
    let mut jitter = flowing();
    for i in 0..10_u16 {
        jitter.insert(packet(30_000 + i, 77 + u32::from(i) * FRAME, true), i == 5, at(50));
    }
    assert_eq!(sequences(&jitter.poll(at(50))), [30_005]);
    assert_eq!(jitter.stats().late, 2, "the strays before it was clear");
}

#[derive(Debug, Clone)]
struct Net {
    lost: Vec<bool>,
    delay: Vec<u64>,
    twice: Vec<bool>,
    sizes: Vec<u8>,
    first: u16,
}

fn net() -> impl Strategy<Value = Net> {
    (30_usize..120).prop_flat_map(|n| {
        (
            prop::collection::vec(prop::bool::weighted(0.03), 600),
            prop::collection::vec(0_u64..60, 600),
            prop::collection::vec(prop::bool::weighted(0.03), 600),
            prop::collection::vec(1_u8..5, n),
            any::<u16>(),
        )
            .prop_map(|(lost, delay, twice, sizes, first)| Net { lost, delay, twice, sizes, first })
    })
}

/// Sends frames of the given sizes every 33 ms, a keyframe each tenth, and returns what came out.
fn run(net: &Net, lossless: bool) -> (VideoJitter, Vec<VideoFrame>) {
    let mut flight = Vec::new();
    let mut index = 0_usize;
    for (f, &size) in net.sizes.iter().enumerate() {
        for part in 0..size {
            let sequence = net.first.wrapping_add(index as u16);
            let packet = packet(sequence, (f as u32).wrapping_mul(FRAME).wrapping_sub(50_000), part + 1 == size);
            let sent = f as u64 * 33 + net.delay[index];
            if lossless || !net.lost[index] {
                flight.push((sent, packet.clone(), part == 0 && f % 10 == 0));
                if net.twice[index] {
                    flight.push((sent + 7, packet, part == 0 && f % 10 == 0));
                }
            }
            index += 1;
        }
    }
    flight.sort_by_key(|(sent, ..)| *sent);
    let mut jitter = VideoJitter::default();
    let mut out = Vec::new();
    for (sent, packet, key) in flight {
        jitter.insert(packet, key, at(sent));
        while let poll @ (VideoPoll::Frame(_) | VideoPoll::KeyframeWanted) = jitter.poll(at(sent)) {
            if let VideoPoll::Frame(frame) = poll {
                out.push(frame);
            }
        }
    }
    (jitter, out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_are_whole_in_order_and_decodable(net in net()) {
        let (jitter, out) = run(&net, false);
        let mut expected: Option<u16> = None;
        for frame in &out {
            let first = frame.packets[0].sequence;
            prop_assert!(frame.packets.windows(2).all(|p| p[1].sequence == p[0].sequence.wrapping_add(1)));
            prop_assert!(frame.packets.iter().all(|p| p.timestamp == frame.packets[0].timestamp));
            prop_assert!(frame.packets.last().expect("not empty").marker);
            match expected {
                None => prop_assert!(frame.starts_keyframe && !frame.after_gap),
                Some(e) if e == first => prop_assert!(!frame.after_gap),
                Some(e) => {
                    prop_assert!((first.wrapping_sub(e) as i16) > 0, "frames went backwards");
                    prop_assert!(frame.after_gap && frame.starts_keyframe, "a gap not before a keyframe");
                }
            }
            expected = Some(first.wrapping_add(frame.packets.len() as u16));
        }
        let stats = jitter.stats();
        let given: usize = out.iter().map(|f| f.packets.len()).sum();
        prop_assert_eq!(stats.frames, out.len() as u64);
        prop_assert!(stats.received >= given as u64 + stats.duplicate + stats.late);
    }

    #[test]
    fn reordering_and_duplicates_alone_lose_nothing(net in net()) {
        let (jitter, out) = run(&net, true);
        // Delays differ by at most 60 ms and the hold is 240: only a first keyframe overtaken too far may be missed.
        prop_assert_eq!(jitter.stats().overflow, 0);
        let given: usize = out.iter().map(|f| f.packets.len()).sum();
        let sent: usize = net.sizes.iter().map(|&s| usize::from(s)).sum();
        prop_assert!(given == sent, "{given} of {sent}: {:?}", jitter.stats());
    }

    #[test]
    fn nothing_a_stranger_sends_makes_it_panic_or_grow(
        packets in prop::collection::vec((any::<u16>(), any::<u32>(), 0_u64..200, any::<u8>()), 1..400),
    ) {
        let mut jitter = VideoJitter::default();
        let mut now = 0;
        for (sequence, timestamp, step, bits) in packets {
            now += step;
            let sequence = if bits % 5 == 0 { sequence } else { sequence % 300 };
            let timestamp = if bits % 7 == 0 { timestamp } else { u32::from(sequence / 3) * FRAME };
            jitter.insert(packet(sequence, timestamp, bits & 8 != 0), bits & 48 == 0, at(now));
            while let VideoPoll::Frame(frame) = jitter.poll(at(now)) {
                prop_assert!(!frame.packets.is_empty());
            }
            prop_assert!(jitter.packets.len() <= MAX_PACKETS);
        }
    }
}
