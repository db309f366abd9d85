//! Sources in virtual time whose timestamps jump, in one track or both.

use proptest::prelude::*;

use super::*;

const FRAME: u64 = 40_000;
const SOUND: u64 = 20_000;
const HOUR: i64 = 3_600_000_000;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(9_000_000 + micros)
}

/// A live source: pictures and sounds in real time, with timestamps that a function changes.
fn live(seconds: u64, change: impl Fn(Kind, u64) -> i64) -> (Vec<(Kind, u64, i64)>, u64) {
    let mut timeline = Timeline::new(true);
    let mut placed = Vec::new();
    for now in (0..seconds * 1_000_000).step_by(SOUND as usize) {
        let kinds = [(now % FRAME == 0).then_some(Kind::Video), Some(Kind::Audio)];
        for kind in kinds.into_iter().flatten() {
            let position = timeline.place(kind, now as i64 + change(kind, now), at(now), None);
            placed.push((kind, now, micros(position) - START));
        }
    }
    (placed, timeline.jumps())
}

/// Largest deviation of positions from real time, in microseconds.
fn deviation(placed: &[(Kind, u64, i64)]) -> i64 {
    placed.iter().map(|(_, now, position)| (position - *now as i64).abs()).max().expect("units")
}

#[test]
fn steady_timestamps_are_kept() {
    let (placed, jumps) = live(60, |_, _| 77_000_000);
    assert_eq!((deviation(&placed), jumps), (0, 0));
    // A pause of ten seconds, in the timestamps and in the arrivals.
    let mut timeline = Timeline::new(true);
    let first = timeline.place(Kind::Audio, 0, at(0), None);
    let next = timeline.place(Kind::Audio, 10_000_000, at(10_000_000), None);
    assert_eq!((next - first, timeline.jumps()), (Duration::from_secs(10), 0));
}

#[test]
fn a_jump_of_both_tracks_moves_both_by_the_same_time() {
    for jump in [HOUR, -HOUR, 0x9000_0000 * 1_000, 2_500_000, -500_000, i64::MAX / 4, i64::MIN / 4] {
        let (placed, jumps) = live(20, |_, now| if now >= 5_000_000 { jump } else { 0 });
        assert!(deviation(&placed) <= micros(ALIGNMENT), "{jump}: {} us off", deviation(&placed));
        assert_eq!(jumps, 1, "{jump}");
        let offset = |kind| {
            let last = placed.iter().rfind(|(of, ..)| *of == kind).expect("units");
            last.2 - last.1 as i64
        };
        assert_eq!(offset(Kind::Video), offset(Kind::Audio), "{jump}: audio and video are apart");
    }
}

#[test]
fn a_jump_of_one_track_does_not_stop_the_other() {
    for jump in [HOUR, -HOUR, 3_000_000, -3_000_000] {
        for jumping in [Kind::Video, Kind::Audio] {
            let change = |kind, now| if kind == jumping && now >= 5_000_000 { jump } else { 0 };
            let (placed, jumps) = live(20, change);
            assert!(deviation(&placed) <= FRAME as i64, "{jump} of {jumping:?}: {} us off", deviation(&placed));
            assert_eq!(jumps, 1);
        }
    }
}

#[test]
fn one_wrong_timestamp_leaves_the_tracks_as_they_were() {
    for spike in [HOUR, -HOUR] {
        let (placed, _) = live(20, |kind, now| if kind == Kind::Video && now == 5_000_000 { spike } else { 0 });
        assert!(deviation(&placed) <= FRAME as i64);
        assert!(placed.iter().filter(|(_, now, _)| *now > 6_000_000).all(|(_, now, at)| *at == *now as i64));
    }
}

#[test]
fn a_track_that_begins_far_from_the_other_begins_with_what_is_due() {
    for begin in [HOUR, -HOUR, 0] {
        let mut timeline = Timeline::new(true);
        timeline.place(Kind::Video, 0, at(0), None);
        let position = timeline.place(Kind::Audio, begin + 500_000, at(500_000), None);
        assert_eq!(micros(position) - START, 500_000, "{begin}");
    }
}

#[test]
fn a_live_source_that_stopped_continues_at_once_in_both_tracks() {
    // The encoder was suspended for a minute: its timestamps continue where they stopped.
    let mut timeline = Timeline::new(true);
    for now in (0..2_000_000).step_by(SOUND as usize) {
        timeline.place(Kind::Video, now as i64, at(now), None);
        timeline.place(Kind::Audio, now as i64, at(now), None);
    }
    let resumed = [Kind::Video, Kind::Audio].map(|kind| timeline.place(kind, 2_000_000, at(62_000_000), None));
    assert_eq!(resumed.map(|position| micros(position) - START), [61_980_000 + 20_000; 2]);
}

#[test]
fn pictures_in_decoding_order_are_no_jump() {
    let mut timeline = Timeline::new(true);
    for (n, picture) in [0_i64, 3, 1, 2, 6, 4, 5, 9, 7, 8].into_iter().enumerate() {
        let position = timeline.place(Kind::Video, picture * 40_000, at(n as u64 * 40_000), None);
        assert_eq!(micros(position) - START, picture * 40_000);
    }
    assert_eq!(timeline.jumps(), 0);
}

#[test]
fn a_file_whose_times_go_back_continues_with_the_next_picture() {
    let mut timeline = Timeline::new(false);
    let place = |timeline: &mut Timeline, kind, time: i64, playing: i64| {
        let playing = Some(Duration::from_micros((START + playing) as u64));
        micros(timeline.place(kind, time, at(0), playing)) - START
    };
    for time in (0..2_000_000).step_by(40_000) {
        assert_eq!(place(&mut timeline, Kind::Video, time, time), time);
        assert_eq!(place(&mut timeline, Kind::Audio, time, time), time);
    }
    assert_eq!(place(&mut timeline, Kind::Video, 100_000, 2_000_000), 2_000_000);
    assert_eq!(place(&mut timeline, Kind::Audio, 80_000, 1_990_000), 1_980_000, "synchronized with the picture");
    assert_eq!(timeline.jumps(), 1);
    // A pause of the picture while audio continues.
    assert_eq!(place(&mut timeline, Kind::Video, 8_100_000, 2_100_000), 10_000_000);
    assert_eq!(place(&mut timeline, Kind::Audio, 180_000, 2_100_000), 2_080_000);
    assert_eq!(timeline.jumps(), 1);
}

#[test]
fn the_usual_step_is_the_one_before_a_jump_of_a_few_seconds() {
    let mut timeline = Timeline::new(false);
    timeline.place(Kind::Video, 0, at(0), None);
    timeline.place(Kind::Video, 5_000_000, at(0), None);
    assert_eq!(timeline.usual_step(Kind::Video), Duration::from_secs(5), "slides: nothing else is known");
    for time in [5_040_000, 5_080_000, 8_080_000] {
        timeline.place(Kind::Video, time, at(0), None);
    }
    assert_eq!(timeline.usual_step(Kind::Video), Duration::from_millis(40));
    assert_eq!(timeline.usual_step(Kind::Audio), Duration::from_millis(20), "it has not begun");
}

#[test]
fn a_picture_that_is_decoded_after_the_audio_went_on_does_not_delay_the_audio() {
    let mut timeline = Timeline::new(false);
    for time in (0..30_000_000).step_by(20_000) {
        timeline.place(Kind::Audio, time, at(0), None);
    }
    let playing = Duration::from_micros(30_000_000 + START as u64);
    assert_eq!(timeline.place(Kind::Video, 0, at(0), Some(playing)), playing);
    assert_eq!(
        timeline.place(Kind::Video, 1_000, at(0), Some(playing + MAX_DEVIATION * 2)),
        playing + MAX_DEVIATION * 2
    );
}

#[test]
fn wrapped_timestamps_continue() {
    let mut wrapped = Wrapped::default();
    let video = wrapped.unwrap(Kind::Video, u32::MAX - 10);
    assert_eq!(wrapped.unwrap(Kind::Video, 29) - video, 40);
    assert_eq!(wrapped.unwrap(Kind::Audio, 9) - video, 20, "audio and video share a clock");
    assert_eq!(wrapped.unwrap(Kind::Audio, 9 + 0x9000_0000) - video, 20 - 0x7000_0000);
}

const fn held(millis: u64) -> Next {
    Next::Held { due: Timestamp::from_micros(9_000_000 + millis * 1_000), usual: Duration::from_millis(40) }
}

#[test]
fn a_gap_of_all_tracks_is_closed_and_a_pause_of_one_track_is_not() {
    let closed = |video, audio| gap([video, audio], at(0)).map(|gap| (gap.moves, gap.by.as_millis()));
    let awaited = |millis: u64| Next::Awaited(at(0) - Duration::from_millis(millis));
    assert_eq!(closed(held(1_900), Next::None), None);
    assert_eq!(closed(held(2_500), Next::None), Some(([true; 2], 2_500)));
    assert_eq!(closed(held(5_000), held(4_000)), Some(([true; 2], 4_000)));
    assert_eq!(closed(held(5_000), held(10)), None, "the picture stands while audio plays");
    assert_eq!(closed(held(11_000), held(10)), Some(([true, false], 11_000)));
    assert_eq!(closed(held(10), held(3_600_000)), Some(([false, true], 3_600_000)));
    assert_eq!(closed(held(5_000), awaited(100)), None);
    assert_eq!(closed(held(5_000), awaited(400)), Some(([true; 2], 5_000)));
    assert_eq!(closed(Next::None, Next::None), None);
    assert_eq!(closed(awaited(400), Next::None), None);
    let slide = Next::Held { due: at(5_000_000), usual: Duration::from_secs(5) };
    assert_eq!(closed(slide, Next::None), None, "one picture each five seconds");
}

proptest! {
    /// Any jumps of a live source, in one track or both, with jitter of the arrivals: playback continues within
    /// 300 ms, and tracks that jumped together stay together.
    #[test]
    fn playback_continues_after_any_jumps(
        jumps in prop::collection::vec((1_000_000u64..19_000_000, -HOUR..HOUR, 0..3u8), 0..6),
        jitter in prop::collection::vec(0..30_000u64, 50),
    ) {
        let mut timeline = Timeline::new(true);
        let mut offsets = [0i64; 2];
        for (n, now) in (0..20_000_000u64).step_by(SOUND as usize).enumerate() {
            for (when, by, tracks) in &jumps {
                // Smaller steps are pauses, or jitter.
                if (now..now + SOUND).contains(when) && !(-300_000..=2_100_000).contains(by) {
                    (0..2).filter(|track| *tracks == 2 || *tracks == *track).for_each(|track| offsets[track as usize] += by);
                }
            }
            let arrival = now + jitter[n % jitter.len()];
            for kind in [Kind::Video, Kind::Audio] {
                let position = timeline.place(kind, now as i64 + offsets[index(kind)], at(arrival), None);
                let off = micros(position) - START - now as i64;
                // Each jump adds at most the jitter.
                prop_assert!(off.abs() <= micros(ALIGNMENT) + 30_000, "{} us off at {}", off, now);
            }
            if jumps.iter().all(|jump| jump.2 == 2) {
                let [video, audio] = timeline.lines.map(|line| line.expect("both have begun").offset);
                prop_assert_eq!(video, audio);
            }
        }
    }

    /// Arbitrary timestamps and times do not panic. A live source is never more than the limit ahead of real time.
    #[test]
    fn arbitrary_timestamps_have_positions(
        is_live: bool,
        units in prop::collection::vec((any::<bool>(), any::<i64>(), 0..5_000_000u64), 1..100),
    ) {
        let mut timeline = Timeline::new(is_live);
        let mut now = 0;
        for (video, timestamp, passed) in units {
            now += passed;
            let kind = if video { Kind::Video } else { Kind::Audio };
            let position = timeline.place(kind, timestamp, at(now), None);
            if is_live {
                let most = START + now as i64 + 100 * micros(ALIGNMENT);
                prop_assert!(micros(position) <= most + micros(MAX_DEVIATION), "{position:?} after {now} us");
            }
        }
    }

    /// Closing a gap leaves no gap.
    #[test]
    fn a_closed_gap_is_no_gap(video in 0..10_000_000u64, audio in prop::option::of(0..10_000_000u64)) {
        let next = [held(video), audio.map_or(Next::None, held)];
        if let Some(closed) = gap(next, at(0)) {
            let moved = |track: usize, millis: u64| {
                held(millis - if closed.moves[track] { closed.by.as_millis() as u64 } else { 0 })
            };
            let next = [moved(0, video), audio.map_or(Next::None, |audio| moved(1, audio))];
            let again = gap(next, at(0));
            // One track may be left far ahead of the other.
            prop_assert!(again.is_none_or(|again| again.moves != [true; 2] && closed.moves == [true; 2]));
        }
    }
}
