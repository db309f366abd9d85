//! Tracks in several orders whose times go back, together or alone.

use proptest::prelude::*;

use super::*;

const VIDEO: usize = 1;
const AUDIO: usize = 2;
const MILLI: i64 = SECOND / 1_000;
const HOUR: i64 = 3_600 * SECOND;

const fn unit(time: i64) -> Unit {
    Unit { time, duration: 0, reordered: false }
}

const fn picture(time: i64) -> Unit {
    Unit { time, duration: 0, reordered: true }
}

/// Units of a source: pictures each 40 ms and sounds each 20 ms, in blocks of one track, as fragments have them.
struct Source {
    rebaser: Rebaser,
    /// Times in the media and times written, of video and audio.
    written: [Vec<(i64, i64)>; 2],
}

impl Source {
    fn new() -> Self {
        Self { rebaser: Rebaser::default(), written: [const { Vec::new() }; 2] }
    }

    /// A part with the media from one time to another, in milliseconds. The times of the tracks are moved by `by`.
    fn part(&mut self, from: i64, to: i64, block: i64, by: [i64; 2]) {
        for begin in (from..to).step_by(block as usize) {
            for (track, step) in [(VIDEO, 40), (AUDIO, 20)] {
                for now in (begin..to.min(begin + block)).filter(|now| now % step == 0) {
                    self.unit(track, now * MILLI, by[track - 1]);
                }
            }
        }
    }

    fn unit(&mut self, track: usize, time: i64, by: i64) {
        let offset = self.rebaser.offset(track, unit(time + by));
        self.written[track - 1].push((time, time + by + offset));
    }

    /// Largest deviation of the steps of a track from those of the media.
    fn deviation(&self, track: usize) -> i64 {
        let steps = self.written[track - 1].windows(2).map(|two| two[1].1 - two[0].1 - (two[1].0 - two[0].0));
        steps.map(i64::abs).max().expect("units")
    }

    /// How far the last units of the tracks are from being synchronized.
    fn apart(&self) -> i64 {
        let [video, audio] = [0, 1].map(|track| *self.written[track].last().expect("units"));
        ((video.1 - video.0) - (audio.1 - audio.0)).abs()
    }
}

#[test]
fn steps_back_of_all_tracks_are_removed_and_they_stay_synchronized() {
    for block in [40, 500, 2_000] {
        for back in [HOUR, 80 * SECOND, 2 * SECOND, SECOND / 2] {
            let mut source = Source::new();
            source.part(0, 4_000, block, [2 * HOUR; 2]);
            source.part(4_000, 8_000, block, [2 * HOUR - back; 2]);
            source.part(8_000, 12_000, block, [HOUR / 2; 2]);
            assert_eq!((source.deviation(VIDEO), source.deviation(AUDIO)), (0, 0), "{back} in blocks of {block} ms");
            assert_eq!((source.apart(), source.rebaser.jumps()), (0, 2), "{back} in blocks of {block} ms");
        }
    }
}

#[test]
fn long_steps_forward_of_all_tracks_are_removed_and_they_stay_synchronized() {
    for block in [40, 2_000] {
        let mut source = Source::new();
        source.part(0, 2_000, block, [100 * SECOND; 2]);
        source.part(2_000, 4_000, block, [5_000 * SECOND; 2]);
        source.part(4_000, 6_000, block, [0; 2]);
        assert_eq!((source.deviation(VIDEO), source.deviation(AUDIO)), (0, 0));
        assert_eq!((source.apart(), source.rebaser.jumps()), (0, 2));
    }
}

#[test]
fn pauses_of_one_track_are_kept() {
    let mut source = Source::new();
    source.part(0, 2_000, 40, [0; 2]);
    // The audio continues for half a minute.
    (100..1_600).for_each(|sound| source.unit(AUDIO, sound * 20 * MILLI, 0));
    source.part(32_000, 34_000, 40, [0; 2]);
    // Nothing for seven seconds.
    source.part(41_000, 42_000, 40, [0; 2]);
    assert_eq!((source.deviation(VIDEO), source.deviation(AUDIO), source.rebaser.jumps()), (0, 0, 0));

    // A picture that is shown for 40 s, as its duration says.
    let mut rebaser = Rebaser::default();
    for time in [0, 40, 80] {
        rebaser.offset(VIDEO, Unit { time: time * MILLI, duration: 40 * MILLI, reordered: false });
    }
    rebaser.offset(VIDEO, Unit { time: 120 * MILLI, duration: 40 * SECOND, reordered: false });
    assert_eq!(rebaser.offset(VIDEO, unit(40 * SECOND + 120 * MILLI)), 0);
}

#[test]
fn a_step_back_of_one_track_does_not_move_the_other_and_its_return_restores_the_synchronization() {
    for (alone, other) in [(VIDEO, AUDIO), (AUDIO, VIDEO)] {
        let mut source = Source::new();
        let by = |back: i64| if alone == VIDEO { [2 * HOUR - back, 2 * HOUR] } else { [2 * HOUR, 2 * HOUR - back] };
        source.part(0, 3_000, 500, by(0));
        source.part(3_000, 6_000, 500, by(HOUR));
        source.part(6_000, 9_000, 500, by(0));
        assert_eq!((source.deviation(alone), source.deviation(other)), (0, 0));
        assert_eq!((source.apart(), source.rebaser.jumps()), (0, 1));
        assert!(source.written[other - 1].iter().all(|(time, written)| *written == time + 2 * HOUR));
    }
}

#[test]
fn one_wrong_time_does_not_hold_the_track() {
    for wrong in [HOUR, -HOUR] {
        let mut source = Source::new();
        source.part(0, 2_000, 40, [2 * HOUR; 2]);
        source.unit(VIDEO, 2_000 * MILLI, 2 * HOUR + wrong);
        source.part(2_040, 4_000, 40, [2 * HOUR; 2]);
        assert_eq!(source.deviation(VIDEO), 0, "{wrong}");
        assert_eq!(source.deviation(AUDIO), 0);
    }
}

#[test]
fn a_shorter_track_waits_for_the_longer_one_at_a_jump() {
    for (shorter, lack) in [(AUDIO, 700), (AUDIO, 200), (VIDEO, 1_600)] {
        let mut source = Source::new();
        source.part(0, 4_000 - lack, 40, [HOUR; 2]);
        let longer = if shorter == AUDIO { (VIDEO, 40) } else { (AUDIO, 20) };
        (4_000 - lack..4_000).step_by(longer.1).for_each(|now| source.unit(longer.0, now * MILLI, HOUR));
        // The shorter track begins first.
        source.unit(shorter, 4_000 * MILLI, 0);
        source.part(4_040, 8_000, 40, [0; 2]);
        assert!(source.apart() <= 20 * MILLI, "{lack}: {} ns", source.apart());
        let steps = |track: usize| source.written[track - 1].windows(2).map(|two| two[1].1 - two[0].1);
        assert!(steps(longer.0).all(|step| (0..=80 * MILLI).contains(&step)), "the longer track has a break");
        assert!(steps(shorter).all(|step| (-BACK_MAX..=(lack + 80) * MILLI).contains(&step)));
        assert_eq!(source.rebaser.jumps(), 1);
    }
}

#[test]
fn a_track_that_begins_after_a_jump_is_synchronized_with_the_other() {
    let mut rebaser = Rebaser::default();
    for time in (0..4_000).step_by(40) {
        rebaser.offset(VIDEO, unit(time * MILLI + if time < 2_000 { HOUR } else { 0 }));
    }
    // A track that is read later, from its beginning.
    assert_eq!(rebaser.offset(AUDIO, unit(HOUR)), 0);
    // A track that begins where the other is.
    assert_eq!(rebaser.offset(AUDIO + 1, unit(4_000 * MILLI)), HOUR);
    (0..4).for_each(|track| rebaser.end(track));
    assert_eq!(rebaser.offset(VIDEO, unit(0)), 0, "the other tracks have ended");
}

/// Pictures in decoding order: each group is the last picture, the middle ones, the others.
fn decoding_order(groups: i64) -> impl Iterator<Item = i64> {
    std::iter::once(0).chain((0..groups).flat_map(|group| [4, 2, 1, 3].map(|picture| group * 4 + picture)))
}

#[test]
fn jumps_of_reordered_pictures_are_removed() {
    let mut rebaser = Rebaser::default();
    let mut written = Vec::new();
    for begin in [HOUR, 0, HOUR / 2, 600 * SECOND] {
        for number in decoding_order(20) {
            let time = begin + number * 40 * MILLI;
            written.push(time + rebaser.offset(VIDEO, picture(time)));
        }
    }
    written.sort_unstable();
    assert!(written.windows(2).all(|two| (0..=120 * MILLI).contains(&(two[1] - two[0]))), "{written:?}");
    assert_eq!(rebaser.jumps(), 3);
}

proptest! {
    /// Pictures in decoding order at any rate, also slides with minutes between them, are not moved.
    #[test]
    fn reordered_pictures_are_kept(step in 5..60_000i64, groups in 1..30i64, begin in 0..HOUR) {
        let mut rebaser = Rebaser::default();
        for number in decoding_order(groups) {
            prop_assert_eq!(rebaser.offset(VIDEO, picture(begin + number * step * MILLI)), 0);
        }
    }

    /// Any jumps of all tracks, in blocks of any length: both continue at once, and stay synchronized.
    #[test]
    fn tracks_continue_after_any_jumps(
        parts in prop::collection::vec((1..8i64, any::<bool>(), SECOND / 2..HOUR), 1..8),
        block in 1..60i64,
    ) {
        let (mut source, mut now, mut by) = (Source::new(), 0, 10 * HOUR);
        for (length, forward, jump) in &parts {
            let to = now + length * 500;
            source.part(now, to, block * 40, [by; 2]);
            // Smaller steps forward may be pauses.
            (now, by) = (to, if *forward { by + 11 * SECOND + jump } else { by - jump });
        }
        prop_assert!(source.deviation(VIDEO) <= BACK_MAX && source.deviation(AUDIO) <= BACK_MAX);
        prop_assert!(source.apart() <= BACK_MAX);
    }

    /// No track goes back by more than the limit, whatever is read.
    #[test]
    fn no_track_goes_back(units in prop::collection::vec((0..4usize, -1_000 * HOUR..1_000 * HOUR, 0..4u8), 1..200)) {
        let mut rebaser = Rebaser::default();
        let (mut ends, mut last) = (BTreeMap::new(), 0);
        for (track, time, kind) in units {
            // Large steps, and steps of seconds.
            last = if kind == 0 { time } else { last + time % (3 * SECOND) };
            let written = last + rebaser.offset(track, unit(last));
            let end = *ends.entry(track).or_insert(written);
            prop_assert!(written >= end - BACK_MAX, "{} after {}", written, end);
            ends.insert(track, end.max(written));
        }
    }

    #[test]
    fn arbitrary_times_do_not_panic(units in prop::collection::vec((0..4usize, any::<i64>(), any::<bool>()), 1..50)) {
        let mut rebaser = Rebaser::default();
        for (track, time, reordered) in units {
            rebaser.offset(track, Unit { time, duration: time, reordered });
        }
    }
}
