//! The pace of one video stream: which ticks are encoded, which are keyframes, and when the last frame is repeated.
//!
//! Owns: the choice, the arithmetic of ticks and RTP timestamps. Does not know: encoders, pictures, threads. In:
//! changes of the canvas, keyframe requests, the bytes of encoded frames, tick numbers. Out: [`Turn`].
//!
//! Rules
//! 1. A change of the canvas is encoded at the next tick of the stream.
//! 2. An unchanged canvas is encoded again, at growing intervals, for [`REFINE_FOR`]: each frame is sharper. Then
//!    nothing is encoded. The last frame is repeated now and then, so that receivers do not take the stream for broken.
//! 3. A requested keyframe is encoded at any time, but only one in 300 ms.
//! 4. A slide stream on a narrow path skips ticks while its earlier frames, which may exceed the bitrate, are being
//!    sent.

use std::time::Duration;

use crate::media::VIDEO_CLOCK;

/// Shortest time between two keyframes. The number of requests does not change it.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);
/// Interval from the last change of the canvas to the first repeated frame.
const REPEAT_FIRST: Duration = Duration::from_micros(166_000);
/// Intervals that are equal to the first, and factor from one of the later ones to the next. Chromium reports a freeze
/// for a frame that comes 150 ms later than the average interval of the last 30 frames, and later than three times the
/// average: intervals that grow slowly are no freeze.
const REPEAT_EQUAL: u32 = 10;
const REPEAT_GROWTH: f64 = 1.08;
/// Longest interval of repeated frames. Chromium requests a keyframe after three seconds without a frame.
const REPEAT_MAX: Duration = Duration::from_millis(2_500);
/// The same for a stream with an output: services expect a steady frame rate.
const REPEAT_STEADY_MAX: Duration = Duration::from_millis(500);
/// Time after a change in which repeated frames are encoded, because each makes the picture sharper.
const REFINE_FOR: Duration = Duration::from_secs(4);

/// A stream with so few frames a second or fewer is a slide stream: at the coarsest quantizer a frame may still exceed
/// the bits of one second, and a frame may be skipped. In other streams no frame is skipped.
const SLIDES_FPS: u32 = 2;
/// No slide is encoded while the earlier ones take longer than this to send at the target bitrate.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// What a stream does with a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Skip: the canvas is unchanged, or earlier slides are still being sent.
    Unchanged,
    /// Show receivers the last frame once more: the canvas is unchanged and as sharp as it gets.
    Repeat,
    /// Encode the canvas.
    Encode {
        /// As a keyframe.
        keyframe: bool,
    },
}

/// Decides which ticks are encoded. Times are since the epoch of the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    fps: u32,
    /// Repeated frames are encoded, at a steady rate.
    steady: bool,
    /// Frames since the canvas last changed.
    repeats: u32,
    /// The canvas has changed since the last frame.
    changed: bool,
    changed_at: Duration,
    encoded_at: Option<Duration>,
    keyframe_at: Option<Duration>,
    keyframe_wanted: bool,
    /// When all frames so far are sent, at the target bitrate.
    sent_at: Duration,
}

impl Pace {
    /// The pace of a stream with `fps` frames a second; its first frame is a keyframe. `steady`: an unchanged canvas is
    /// encoded too, twice a second.
    pub fn new(fps: u32, steady: bool) -> Self {
        Self {
            fps: fps.max(1),
            steady,
            repeats: 0,
            changed: true,
            changed_at: Duration::ZERO,
            encoded_at: None,
            keyframe_at: None,
            keyframe_wanted: true,
            sent_at: Duration::ZERO,
        }
    }

    /// Whether an unchanged canvas is encoded at a steady rate.
    pub fn set_steady(&mut self, steady: bool) {
        self.steady = steady;
    }

    /// The encoder has output `bytes` until tick `n`, with a target bitrate of `kbps` kbit/s.
    pub fn made(&mut self, bytes: u64, kbps: u32, n: u64, scene_fps: u32) {
        let takes = Duration::from_micros(bytes * 8 * 1_000 / u64::from(kbps.max(1)));
        self.sent_at = self.sent_at.max(tick_time(n, scene_fps)) + takes;
    }

    /// A receiver needs a keyframe.
    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Whether tick `n` of a scene with `scene_fps` frames a second belongs to this stream, which may have fewer.
    pub fn takes(&self, n: u64, scene_fps: u32) -> bool {
        let (fps, scene_fps) = (u64::from(self.fps), u64::from(scene_fps.max(1)));
        // The ticks at which the frame number of the stream increases.
        fps >= scene_fps || n * fps % scene_fps < fps
    }

    /// The canvas of tick `n` is new, whether the stream takes that tick or not.
    pub fn changed(&mut self, n: u64, scene_fps: u32) {
        self.changed = true;
        self.changed_at = tick_time(n, scene_fps);
    }

    /// What to do with tick `n`, which it takes.
    pub fn turn(&self, n: u64, scene_fps: u32) -> Turn {
        let at = tick_time(n, scene_fps);
        let keyframe = self.keyframe_wanted && self.keyframe_due() <= at;
        let due = self.changed || self.repeat_due() <= at;
        // A requested keyframe is never skipped: its receiver shows nothing.
        if !keyframe && (!due || self.is_ahead(at)) {
            return Turn::Unchanged;
        }
        let is_sharp = at.saturating_sub(self.changed_at) > REFINE_FOR;
        if keyframe || self.changed || self.steady || !is_sharp { Turn::Encode { keyframe } } else { Turn::Repeat }
    }

    /// The first tick after `n` with something to do if the canvas does not change.
    pub fn next(&self, n: u64, scene_fps: u32) -> u64 {
        let mut due = if self.changed { Duration::ZERO } else { self.repeat_due() };
        if self.fps <= SLIDES_FPS {
            due = due.max(self.sent_at.saturating_sub(AHEAD_MAX));
        }
        if self.keyframe_wanted {
            due = due.min(self.keyframe_due());
        }
        let mut next = (n + 1).max(tick_at(due, scene_fps));
        while !self.takes(next, scene_fps) {
            next += 1;
        }
        next
    }

    /// How long the canvas has not been encoded at tick `n`, because it was unchanged. Zero if something is to be
    /// encoded.
    pub fn unchanged_for(&self, n: u64, scene_fps: u32) -> Duration {
        let wanted = self.changed || self.keyframe_wanted || self.steady;
        if wanted { Duration::ZERO } else { tick_time(n, scene_fps).saturating_sub(self.changed_at + REFINE_FOR) }
    }

    fn keyframe_due(&self) -> Duration {
        self.keyframe_at.map_or(Duration::ZERO, |at| at + KEYFRAME_INTERVAL)
    }

    fn repeat_due(&self) -> Duration {
        let most = if self.steady { REPEAT_STEADY_MAX } else { REPEAT_MAX };
        let interval =
            REPEAT_FIRST.as_secs_f64() * REPEAT_GROWTH.powi(self.repeats.saturating_sub(REPEAT_EQUAL).min(100) as i32);
        self.encoded_at.map_or(Duration::ZERO, |at| at + most.min(Duration::from_secs_f64(interval)))
    }

    fn is_ahead(&self, at: Duration) -> bool {
        self.fps <= SLIDES_FPS && self.sent_at.saturating_sub(at) > AHEAD_MAX
    }

    /// The encoder has taken tick `n`.
    pub fn encoded(&mut self, n: u64, scene_fps: u32, keyframe: bool) {
        let at = tick_time(n, scene_fps);
        if keyframe {
            // A keyframe is less sharp than the frames before it.
            self.changed_at = at;
            self.keyframe_wanted = false;
            self.keyframe_at = Some(at);
        }
        self.repeats = if self.changed || keyframe { 0 } else { self.repeats + 1 };
        self.changed = false;
        self.encoded_at = Some(at);
    }

    /// The last frame was repeated at tick `n`.
    pub fn repeated(&mut self, n: u64, scene_fps: u32) {
        self.repeats += 1;
        self.encoded_at = Some(tick_time(n, scene_fps));
    }
}

/// The first tick at or after a time since the epoch of the room.
pub fn tick_at(time: Duration, fps: u32) -> u64 {
    let n =
        time.as_secs() * u64::from(fps.max(1)) + u64::from(time.subsec_nanos()) * u64::from(fps.max(1)) / 1_000_000_000;
    if tick_time(n, fps) < time { n + 1 } else { n }
}

/// The time of tick `n` at `fps` ticks a second, since the epoch of the room.
pub fn tick_time(n: u64, fps: u32) -> Duration {
    let fps = u64::from(fps.max(1));
    Duration::from_secs(n / fps) + Duration::from_nanos(n % fps * 1_000_000_000 / fps)
}

/// The RTP timestamp of a time since the epoch of the room.
pub fn rtp_timestamp(at: Duration) -> u32 {
    let fraction = (u64::from(at.subsec_nanos()) * u64::from(VIDEO_CLOCK) + 500_000_000) / 1_000_000_000;
    at.as_secs().wrapping_mul(u64::from(VIDEO_CLOCK)).wrapping_add(fraction) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a pace; returns what it did with each tick, except those in which it did nothing.
    fn turns(
        pace: &mut Pace,
        ticks: std::ops::Range<u64>,
        fps: u32,
        changed: impl Fn(u64) -> bool,
    ) -> Vec<(u64, Turn)> {
        let mut turns = Vec::new();
        for n in ticks {
            if changed(n) {
                pace.changed(n, fps);
            }
            if !pace.takes(n, fps) {
                continue;
            }
            let turn = pace.turn(n, fps);
            match turn {
                Turn::Unchanged => continue,
                Turn::Repeat => pace.repeated(n, fps),
                Turn::Encode { keyframe } => pace.encoded(n, fps, keyframe),
            }
            turns.push((n, turn));
        }
        turns
    }

    /// The same; returns the ticks that were encoded, each with whether it is a keyframe.
    fn run(pace: &mut Pace, ticks: std::ops::Range<u64>, fps: u32, changed: impl Fn(u64) -> bool) -> Vec<(u64, bool)> {
        let encoded = |(n, turn)| if let Turn::Encode { keyframe } = turn { Some((n, keyframe)) } else { None };
        turns(pace, ticks, fps, changed).into_iter().filter_map(encoded).collect()
    }

    #[test]
    fn a_changing_canvas_is_encoded_every_tick_and_begins_with_one_keyframe() {
        let encoded = run(&mut Pace::new(30, false), 100..160, 30, |_| true);
        assert_eq!(encoded.len(), 60);
        assert_eq!(encoded.iter().filter(|(_, key)| *key).map(|(n, _)| *n).collect::<Vec<_>>(), [100]);
    }

    #[test]
    fn a_slower_stream_takes_every_other_tick_on_the_same_grid() {
        let ticks: Vec<u64> = run(&mut Pace::new(15, false), 0..12, 30, |_| true).into_iter().map(|(n, _)| n).collect();
        assert_eq!(ticks, [0, 2, 4, 6, 8, 10]);
        let ticks = run(&mut Pace::new(20, false), 0..3000, 30, |_| true).len();
        assert_eq!(ticks, 2000);
    }

    #[test]
    fn an_unchanged_canvas_is_encoded_for_four_seconds_and_then_repeated_at_most_every_2500_ms() {
        let mut pace = Pace::new(30, false);
        let turns = turns(&mut pace, 0..30 * 600, 30, |n| n == 0);
        let last = turns.iter().rposition(|(_, turn)| matches!(turn, Turn::Encode { .. })).expect("encoded");
        assert!((16..22).contains(&last) && (100..=120).contains(&turns[last].0), "{:?}", turns[last]);
        assert!(turns[last + 1..].iter().all(|(_, turn)| *turn == Turn::Repeat));
        let intervals: Vec<u64> = turns.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert_eq!((intervals[0], intervals.iter().max()), (5, Some(&75)));
        assert!(intervals.windows(2).all(|pair| pair[0] <= pair[1]), "{intervals:?}");
        assert_eq!(pace.turn(30 * 600, 30), Turn::Unchanged);
        pace.changed(30 * 600, 30);
        assert_eq!(pace.turn(30 * 600, 30), Turn::Encode { keyframe: false }, "a change is encoded at once");
    }

    #[test]
    fn a_steady_stream_encodes_an_unchanged_canvas_twice_a_second() {
        let mut pace = Pace::new(30, false);
        pace.set_steady(true);
        let turns = turns(&mut pace, 0..30 * 60, 30, |n| n == 0);
        assert!(turns.iter().all(|(_, turn)| matches!(turn, Turn::Encode { .. })));
        assert!(turns.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 15), "{turns:?}");
    }

    /// Chromium's criterion (video_quality_observer2.cc): the interval of a frame is at least three times, and 150 ms
    /// more than, the average of the last 30, itself included.
    fn freezes(frames: &[u64], fps: u64) -> usize {
        let intervals: Vec<u64> = frames.windows(2).map(|pair| (pair[1] - pair[0]) * 1_000 / fps).collect();
        let is_freeze = |at: &usize| {
            let window = &intervals[at.saturating_sub(29)..=*at];
            let average = window.iter().sum::<u64>() / window.len() as u64;
            window.len() >= 5 && intervals[*at] >= (3 * average).max(average + 150)
        };
        (0..intervals.len()).filter(is_freeze).count()
    }

    #[test]
    fn a_canvas_that_stops_and_moves_again_is_no_freeze() {
        let mut pace = Pace::new(30, false);
        let moves = |n: u64| n < 300 || (3_000..3_300).contains(&n) || n > 9_000;
        let frames: Vec<u64> = turns(&mut pace, 0..10_000, 30, moves).into_iter().map(|(n, _)| n).collect();
        assert_eq!(freezes(&frames, 30), 0);
        assert!(freezes(&[0, 1, 2, 3, 4, 5, 6, 7, 20, 21], 30) > 0, "a real one");
    }

    #[test]
    fn a_keyframe_of_an_unchanged_canvas_is_refined() {
        let mut pace = Pace::new(30, false);
        run(&mut pace, 0..3_000, 30, |n| n == 0);
        pace.want_keyframe();
        let encoded = run(&mut pace, 3_000..6_000, 30, |_| false);
        assert_eq!(encoded[0], (3_000, true));
        assert!((16..22).contains(&encoded.len()) && encoded[1..].iter().all(|(_, keyframe)| !keyframe));
    }

    #[test]
    fn a_keyframe_is_served_at_once_but_not_twice_in_300_ms() {
        let mut pace = Pace::new(30, false);
        run(&mut pace, 0..300, 30, |n| n == 0);
        pace.want_keyframe();
        assert_eq!(run(&mut pace, 300..301, 30, |_| false), [(300, true)]);
        pace.want_keyframe();
        pace.want_keyframe();
        let keyframes = run(&mut pace, 301..330, 30, |_| true).into_iter().filter(|(_, key)| *key).collect::<Vec<_>>();
        assert_eq!(keyframes, [(309, true)]);
    }

    #[test]
    fn a_keyframe_request_and_a_change_are_kept_until_a_frame_is_encoded() {
        let pace = Pace::new(30, false);
        assert_eq!(pace.turn(0, 30), Turn::Encode { keyframe: true });
        assert_eq!(pace.turn(1, 30), Turn::Encode { keyframe: true });
    }

    #[test]
    fn slides_larger_than_the_bitrate_are_skipped_and_requested_keyframes_are_not() {
        let mut pace = Pace::new(1, false);
        let mut encoded = Vec::new();
        for n in 0..60 * 30 {
            pace.changed(n, 30);
            if n == 45 * 30 {
                pace.want_keyframe();
            }
            if pace.takes(n, 30)
                && let Turn::Encode { keyframe } = pace.turn(n, 30)
            {
                pace.encoded(n, 30, keyframe);
                // A frame takes 1.5 s to send, a keyframe 8 s.
                pace.made(if keyframe { 32_000 } else { 6_000 }, 32, n, 30);
                encoded.push((n / 30, keyframe));
            }
        }
        assert_eq!(encoded[..4], [(0, true), (7, false), (9, false), (10, false)]);
        let between = encoded.iter().filter(|(at, _)| (15..45).contains(at)).count();
        assert_eq!(between, 20, "two in three seconds");
        assert_eq!(encoded.iter().filter(|(_, keyframe)| *keyframe).map(|(at, _)| *at).collect::<Vec<_>>(), [0, 45]);
    }

    proptest! {
        /// Slides of any size exceed the bits that can be sent by at most one second and one slide; and an encoder that
        /// keeps its bitrate has no tick skipped.
        #[test]
        fn slides_do_not_exceed_the_bitrate(kbps in 20..2_000_u32, sizes in prop::collection::vec(0.1..3.0_f64, 300)) {
            let (mut pace, mut bytes) = (Pace::new(1, false), 0);
            pace.keyframe_wanted = false;
            let share = u64::from(kbps) * 1_000 / 8;
            let mut kept = Pace { ..pace.clone() };
            let frames = sizes.len();
            let mut taken = 0;
            for (n, size) in (0..).zip(sizes) {
                pace.changed(n, 1);
                kept.changed(n, 1);
                if pace.turn(n, 1) != Turn::Unchanged {
                    let size = (share as f64 * size) as u64;
                    pace.encoded(n, 1, false);
                    pace.made(size, kbps, n, 1);
                    bytes += size;
                }
                if kept.turn(n, 1) != Turn::Unchanged {
                    kept.encoded(n, 1, false);
                    kept.made(share, kbps, n, 1);
                    taken += 1;
                }
            }
            prop_assert_eq!(taken, frames);
            let seconds = frames as f64 + AHEAD_MAX.as_secs_f64() + 3.0;
            prop_assert!((bytes * 8) as f64 <= f64::from(kbps) * 1_000.0 * seconds + 1.0, "{bytes} in {seconds} s");
        }

        /// A loop that sleeps until [`Pace::next`] misses nothing.
        #[test]
        fn the_next_tick_is_the_first_with_something_to_do(
            fps in prop::sample::select(vec![1_u32, 2, 5, 15, 20, 30]),
            steady in any::<bool>(),
            changes in prop::collection::btree_set(0..900_u64, 0..5),
            requests in prop::collection::btree_set(0..900_u64, 0..4),
            bytes in 0..20_000_u64,
        ) {
            let mut pace = Pace::new(fps, steady);
            let mut expected = None;
            for n in 0..900 {
                let disturbed = changes.contains(&n) || requests.contains(&n);
                if changes.contains(&n) {
                    pace.changed(n, 30);
                }
                if requests.contains(&n) {
                    pace.want_keyframe();
                }
                let turn = if pace.takes(n, 30) { pace.turn(n, 30) } else { Turn::Unchanged };
                if let Some(next) = expected.filter(|_| !disturbed) {
                    prop_assert_eq!(turn == Turn::Unchanged, n < next, "tick {} of {}", n, next);
                }
                match turn {
                    Turn::Unchanged => {}
                    Turn::Repeat => pace.repeated(n, 30),
                    Turn::Encode { keyframe } => {
                        pace.encoded(n, 30, keyframe);
                        pace.made(bytes, 100, n, 30);
                    }
                }
                expected = Some(pace.next(n, 30));
            }
        }

        /// One keyframe answers all requests since the last keyframe, at most 300 ms after the first of them.
        #[test]
        fn a_storm_of_requests_costs_three_keyframes_a_second(asked in prop::collection::vec(0..8_u8, 300)) {
            let mut pace = Pace::new(30, false);
            run(&mut pace, 0..10, 30, |_| true);
            let (mut keyframes, mut waiting) = (vec![0], None);
            for (n, asked) in (10..).zip(asked) {
                for _ in 0..asked.saturating_sub(4) {
                    pace.want_keyframe();
                    waiting.get_or_insert(n);
                }
                if run(&mut pace, n..n + 1, 30, |_| true) == [(n, true)] {
                    prop_assert!(n - keyframes[keyframes.len() - 1] >= 9, "{:?}, {}", keyframes, n);
                    keyframes.push(n);
                    prop_assert!(waiting.take().is_some(), "the keyframe at {} was not requested", n);
                }
                let in_time = waiting.is_none_or(|since: u64| n - since < 9);
                prop_assert!(in_time, "asked at {:?}, nothing at {}", waiting, n);
            }
        }

        #[test]
        fn timestamps_lie_on_the_grid(
            n in 0u64..1 << 40,
            fps in prop::sample::select(vec![5u32, 10, 15, 25, 30, 50, 60]),
        ) {
            let expected = n.wrapping_mul(u64::from(90_000 / fps)) as u32;
            prop_assert_eq!(rtp_timestamp(tick_time(n, fps)), expected);
        }
    }
}
