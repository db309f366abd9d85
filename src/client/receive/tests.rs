use proptest::prelude::*;

use super::*;
use crate::media::VIDEO_CLOCK;

const FRAME: Duration = Duration::from_millis(33);

fn video() -> ReceiveStream {
    ReceiveStream::new(Kind::Video, VIDEO_CLOCK, true)
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + millis * 1000)
}

/// Frames of three packets each, every tenth a keyframe, numbered from `first`.
fn frames(first: u16, count: u32) -> Vec<(Duration, Packet)> {
    let packets = (0..count).flat_map(|frame| (0..3).map(move |part| (frame, part)));
    packets
        .enumerate()
        .map(|(i, (frame, part))| {
            let packet = Packet {
                sequence: first.wrapping_add(i as u16),
                timestamp: frame * 3000,
                marker: part == 2,
                starts_keyframe: part == 0 && frame % 10 == 0,
                size: 100,
                payload: Bytes::from_static(b"x"),
            };
            (FRAME * frame, packet)
        })
        .collect()
}

#[test]
fn a_stream_without_loss_has_all_frames_and_no_freeze() {
    let mut stream = video();
    for (after, packet) in frames(65_500, 60) {
        stream.insert(at(0) + after, packet);
        assert_eq!(stream.poll(at(0) + after), Feedback::default());
    }
    let counts = stream.stats();
    assert_eq!((counts.packets, counts.bytes, counts.lost, counts.frames), (180, 18_000, 0, 60));
    assert_eq!((counts.freezes, counts.longest_gap), (0, FRAME));
    assert_eq!(stream.first_frame(), Some(at(0)));
    assert_eq!(stream.measured_for(at(2_000)), Duration::from_secs(2));
    let kept = std::iter::from_fn(|| stream.frame()).map(|frame| frame.len()).collect::<Vec<_>>();
    assert_eq!(kept, [3; 60]);
}

#[test]
fn a_missing_packet_is_nacked_until_it_arrives_and_later_frames_wait() {
    let mut stream = video();
    let mut all = frames(10, 12);
    let (_, missing) = all.remove(4);
    for (_, packet) in all {
        stream.insert(at(0), packet);
    }
    assert_eq!(stream.stats().frames, 1);
    assert_eq!(stream.poll(at(0)), Feedback { nack: vec![14], keyframe: false });
    assert_eq!(stream.poll(at(50)), Feedback::default());
    assert_eq!(stream.deadline(), Some(at(100)));
    assert_eq!(stream.poll(at(100)).nack, [14]);
    stream.insert(at(150), missing.clone());
    assert_eq!((stream.stats().frames, stream.stats().repaired, stream.stats().lost), (12, 1, 0));
    assert_eq!(stream.stats().longest_gap, Duration::from_millis(150));
    stream.insert(at(151), missing);
    assert_eq!(stream.stats().packets, 36, "a repetition counts once");
    assert_eq!(stream.deadline(), None);
}

#[test]
fn a_lost_packet_is_a_freeze_until_the_next_keyframe() {
    let mut stream = video();
    for (after, packet) in frames(10, 40) {
        // The second packets of frames 2 and 35.
        if packet.sequence != 17 && packet.sequence != 116 {
            stream.insert(at(0) + after, packet);
        }
    }
    assert_eq!(stream.stats().frames, 2);
    // Everything after the first gap is here, a keyframe too: frames 10 to 34 can be shown.
    let due = stream.poll(at(1_320));
    assert_eq!(due, Feedback { nack: vec![116], keyframe: false });
    let counts = stream.stats();
    assert_eq!((counts.lost, counts.frames, counts.freezes), (1, 27, 1));
    assert!(counts.frozen > Duration::from_millis(1_200), "{counts:?}");
    // After the second gap there is none.
    assert_eq!(stream.poll(at(2_400)), Feedback { nack: vec![], keyframe: true });
    assert_eq!((stream.stats().lost, stream.stats().frames), (2, 27));
}

#[test]
fn pli_is_repeated_until_a_keyframe_arrives() {
    let mut stream = video();
    for (after, mut packet) in frames(10, 60) {
        packet.starts_keyframe = false;
        stream.insert(at(0) + after, packet);
    }
    assert_eq!(stream.stats().frames, 0);
    let asked = (0..2_000).filter(|millis| stream.poll(at(*millis)).keyframe).collect::<Vec<_>>();
    assert_eq!(asked, [500, 1_000, 1_500]);
}

#[test]
fn reset_stats_forgets_what_was_before() {
    let mut stream = video();
    let mut all = frames(65_530, 30);
    // Two packets of the second frame are lost for good.
    all.drain(4..6);
    let later = all.split_off(58);
    for (after, packet) in all {
        stream.insert(at(0) + after, packet);
    }
    stream.poll(at(2_000));
    assert_eq!((stream.stats().lost, stream.stats().freezes), (2, 1));
    stream.reset_stats(at(3_000));
    assert_eq!(stream.stats(), StreamStats::default());
    for (after, packet) in later {
        stream.insert(at(2_400) + after, packet);
    }
    assert_eq!((stream.stats().packets, stream.stats().frames, stream.stats().lost), (30, 10, 0));
    assert_eq!(stream.stats().longest_gap, FRAME * 20 - Duration::from_millis(600));
    assert_eq!(stream.first_frame(), Some(at(0)), "the join is still known");
    assert_eq!(stream.report().expect("packets came").total_lost, 2, "reports are about all");
}

#[test]
fn a_gap_at_the_end_counts() {
    let mut stream = ReceiveStream::new(Kind::Audio, 48_000, false);
    for (_, packet) in frames(0, 1) {
        stream.insert(at(0), packet);
    }
    stream.finish(at(700));
    let counts = stream.stats();
    assert_eq!((counts.frames, counts.freezes, counts.longest_gap), (3, 1, Duration::from_millis(700)));
}

#[test]
fn a_missing_audio_packet_is_lost_without_a_nack() {
    let mut stream = ReceiveStream::new(Kind::Audio, 48_000, false);
    for (i, (_, packet)) in frames(0, 4).into_iter().enumerate().filter(|(i, _)| *i != 5) {
        stream.insert(at(20 * i as u64), packet);
    }
    assert_eq!(stream.poll(at(220)), Feedback::default());
    assert_eq!(stream.stats().lost, 0);
    assert_eq!(stream.poll(at(120 + 200)), Feedback::default());
    assert_eq!((stream.stats().lost, stream.stats().frames), (1, 11));
}

#[test]
fn reports_have_the_loss_since_the_last_report() {
    let mut stream = video();
    assert_eq!(stream.report(), None);
    let mut all = frames(65_530, 20);
    let later = all.split_off(30);
    for (i, (after, packet)) in all.into_iter().enumerate() {
        if i != 7 && i != 8 && i != 9 {
            stream.insert(at(0) + after, packet);
        }
    }
    let report = stream.report().expect("packets came");
    assert_eq!((report.fraction_lost, report.total_lost), ((3 * 256 / 30) as u8, 3));
    assert_eq!(report.highest, 0x1_0000 + 65_530 + 29);
    for (after, packet) in later {
        stream.insert(at(0) + after, packet);
    }
    let report = stream.report().expect("packets came");
    assert_eq!((report.fraction_lost, report.total_lost), (0, 3));
}

proptest! {
    /// With lost, late, repeated and reordered packets, received and lost packets add up, and the stream continues.
    #[test]
    fn everything_is_accounted_for(
        first: u16,
        fate in proptest::collection::vec((0u8..10, 0u64..300), 300),
    ) {
        let mut arrivals = Vec::new();
        for ((after, packet), (luck, late)) in frames(first, 100).into_iter().zip(fate) {
            // The first and the last three come in time, so that both ends are known.
            let inner = (3..297).contains(&packet.sequence.wrapping_sub(first));
            if luck > 0 || !inner {
                let delay = if luck < 3 && inner { Duration::from_millis(late) } else { Duration::ZERO };
                arrivals.push((after + delay, packet.clone()));
            }
            if luck == 9 {
                arrivals.push((after + Duration::from_millis(350), packet));
            }
        }
        let came = arrivals.iter().map(|(_, packet)| packet.sequence).collect::<std::collections::HashSet<_>>().len();
        arrivals.sort_by_key(|(after, _)| *after);
        let mut stream = video();
        for (after, packet) in arrivals {
            stream.insert(at(0) + after, packet);
            stream.poll(at(0) + after);
        }
        stream.poll(at(10_000));
        let counts = stream.stats();
        prop_assert_eq!(counts.packets as usize, came);
        prop_assert_eq!(counts.packets + counts.lost, 300);
        prop_assert!(counts.frames >= 1 && counts.frames <= 100);
        prop_assert!(stream.reordered.is_empty() && stream.missing.is_empty());
        let packets = std::iter::from_fn(|| stream.frame()).flatten();
        let kept: Vec<u16> = packets.map(|packet| packet.sequence.wrapping_sub(first)).collect();
        prop_assert!(kept.is_sorted());
    }
}
