//! When what a source sent is due: its own times, laid onto our clock.
//!
//! Owns: [`Playout`], a pure state machine. Does not know: what is shown or heard. Picture and sound share one line, so they
//! stay together as the source's times say.
//!
//! A live source is held for a little while, because what it sends comes unevenly. What comes after it was due moves the
//! line: everything is later from then on, once, instead of too late again and again. A live source of which everything
//! comes far too early, as after a burst or where its clock is faster than ours, is caught up with.

use std::time::Duration;

use crate::time::Timestamp;

/// How long a live source is held at first.
const HELD: Duration = Duration::from_millis(120);
/// From opening to the first picture of what is not live: decoders fill up meanwhile.
const PREPARED: Duration = Duration::from_millis(80);
/// What is no later than this is not late: it is sent at once, and the mixer evens it out.
const TOLERATED: Duration = Duration::from_millis(40);
/// Added to a delay when it proved too short.
const SPARE: Duration = Duration::from_millis(20);
/// More than this too early, for as long as [`BURST_WINDOW`]: what is left of a burst is skipped.
const BURST: Duration = Duration::from_millis(300);
/// See [`BURST`].
const BURST_WINDOW: Duration = Duration::from_secs(1);
/// For so long everything must have been early before the line moves back by [`STEP`].
const DRIFT_WINDOW: Duration = Duration::from_secs(10);
/// A step that a mixer takes for jitter; much more in ten seconds than clocks drift.
const STEP: Duration = Duration::from_millis(20);
/// A jump of all times by more than this is none of the source's pauses.
const JUMP: Duration = Duration::from_secs(10);

/// Lays a source's times onto our clock.
#[derive(Debug)]
pub(super) struct Playout {
    live: bool,
    /// What is to be added to a time of the source, in microseconds. None before the first.
    line: Option<i64>,
    /// How much too early what came least early was, of two windows.
    burst: Least,
    drift: Least,
    late: u64,
}

/// The least lead within a window.
#[derive(Debug, Default)]
struct Least {
    since: Option<Timestamp>,
    lead: Duration,
}

impl Least {
    /// Takes a lead in; gives the least of a window that is over.
    fn take(&mut self, lead: Duration, window: Duration, now: Timestamp) -> Option<Duration> {
        match self.since {
            None => (self.since, self.lead) = (Some(now), lead),
            Some(since) => {
                self.lead = self.lead.min(lead);
                if now.since(since) >= window {
                    let least = self.lead;
                    *self = Self::default();
                    return Some(least);
                }
            }
        }
        None
    }
}

impl Playout {
    /// A line for a source that is live, or that can be read as fast as we like.
    pub(super) fn new(live: bool) -> Self {
        Self { live, line: None, burst: Least::default(), drift: Least::default(), late: 0 }
    }

    /// Begins with what has this time and is the first to be shown. `after` is where the line of what was before ended,
    /// for a source that follows without a gap.
    pub(super) fn begin(&mut self, first: Duration, after: Option<Timestamp>, now: Timestamp) {
        let delay = if self.live { HELD } else { PREPARED };
        let at = after.map_or(now + delay, |after| after.max(now));
        self.line = Some(at.as_micros() as i64 - first.as_micros() as i64);
        (self.burst, self.drift) = (Least::default(), Least::default());
    }

    /// Whether it has begun.
    pub(super) const fn has_begun(&self) -> bool {
        self.line.is_some()
    }

    /// When a time of the source is due.
    pub(super) fn due(&self, pts: Duration) -> Timestamp {
        let at = self.line.unwrap_or_default() + pts.as_micros() as i64;
        Timestamp::from_micros(at.max(0) as u64)
    }

    /// Something with this time came at `arrival`. Moves the line where that is needed.
    pub(super) fn arrived(&mut self, pts: Duration, arrival: Timestamp) {
        let due = self.due(pts);
        let lateness = arrival.since(due);
        if lateness > TOLERATED {
            self.late += 1;
            self.shift((lateness + SPARE).as_micros() as i64);
            return;
        }
        if !self.live {
            return;
        }
        let lead = due.since(arrival);
        let burst = self.burst.take(lead, BURST_WINDOW, arrival);
        if let Some(early) = burst.filter(|least| *least > HELD + BURST) {
            self.shift(-((early - HELD).as_micros() as i64));
            return;
        }
        let drift = self.drift.take(lead, DRIFT_WINDOW, arrival);
        if drift.is_some_and(|least| least > HELD + STEP * 2) {
            self.shift(-(STEP.as_micros() as i64));
        }
    }

    /// All that waits is due far in the future, the first of it with this time: the source's times have jumped.
    pub(super) fn jumped(&mut self, pts: Duration, now: Timestamp) -> bool {
        let jumped = self.has_begun() && self.due(pts).since(now) > JUMP;
        if jumped {
            self.begin(pts, None, now);
        }
        jumped
    }

    /// How often the line moved because something was late.
    pub(super) const fn late(&self) -> u64 {
        self.late
    }

    fn shift(&mut self, micros: i64) {
        self.line = self.line.map(|line| line + micros);
        (self.burst, self.drift) = (Least::default(), Least::default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: Duration = Duration::from_millis(40);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + millis * 1_000)
    }

    fn live() -> Playout {
        let mut playout = Playout::new(true);
        playout.begin(Duration::from_secs(7), None, at(0));
        playout
    }

    #[test]
    fn a_steady_source_is_due_a_little_after_it_came() {
        let mut playout = live();
        for i in 0..1_000 {
            let pts = Duration::from_secs(7) + FRAME * i;
            playout.arrived(pts, at(40 * u64::from(i)));
            assert_eq!(playout.due(pts), at(40 * u64::from(i)) + HELD);
        }
        assert_eq!(playout.late(), 0);
    }

    #[test]
    fn what_comes_late_delays_the_rest_once() {
        let mut playout = live();
        let stall = |i: u32| if i >= 100 { 300 } else { 0 };
        for i in 0..400 {
            let (pts, arrival) = (Duration::from_secs(7) + FRAME * i, at(40 * u64::from(i) + stall(i)));
            playout.arrived(pts, arrival);
            assert!(playout.due(pts) + TOLERATED >= arrival, "due before it was there");
        }
        assert_eq!(playout.late(), 1);
    }

    #[test]
    fn a_backlog_is_caught_up_with_and_a_fast_clock_is_followed() {
        let mut playout = live();
        // Two seconds of silence, then everything at once, then as before.
        let arrival = |i: u32| at(if (50..100).contains(&i) { 4_000 } else { 40 * u64::from(i) });
        for i in 0..300 {
            playout.arrived(Duration::from_secs(7) + FRAME * i, arrival(i));
        }
        let pts = Duration::from_secs(7) + FRAME * 300;
        assert!(playout.due(pts).since(at(12_000)) < HELD + BURST, "{:?}", playout.due(pts).since(at(12_000)));

        // One frame in a thousand too much.
        let mut playout = live();
        let mut least = Duration::MAX;
        for i in 0..60_000_u32 {
            let (pts, arrival) = (Duration::from_secs(7) + FRAME * i, at(u64::from(i) * 3_996 / 100));
            playout.arrived(pts, arrival);
            least = least.min(playout.due(pts).since(arrival));
        }
        let lead = playout.due(Duration::from_secs(7) + FRAME * 60_000).since(at(60_000 * 3_996 / 100));
        assert!(lead < HELD + BURST && least + TOLERATED > HELD, "{lead:?}, at least {least:?}");
    }

    #[test]
    fn a_file_is_never_hurried_and_its_repetition_follows_at_once() {
        let mut playout = Playout::new(false);
        playout.begin(Duration::ZERO, None, at(0));
        for i in 0..500 {
            // All that is read lies ready at once.
            playout.arrived(FRAME * i, at(1));
        }
        let end = playout.due(FRAME * 500);
        assert_eq!(end, at(20_000) + PREPARED);
        let mut again = Playout::new(false);
        again.begin(Duration::from_millis(5), Some(end), at(19_500));
        assert_eq!(again.due(Duration::from_millis(5)), end);
        again.begin(Duration::from_millis(5), Some(end), at(25_000));
        assert_eq!(again.due(Duration::from_millis(5)), at(25_000), "the end is long past");
    }

    #[test]
    fn a_jump_of_the_sources_times_begins_anew() {
        let mut playout = live();
        assert!(!playout.jumped(Duration::from_secs(16), at(0)), "a pause of nine seconds");
        assert!(playout.jumped(Duration::from_secs(3_607), at(0)));
        assert_eq!(playout.due(Duration::from_secs(3_607)), at(0) + HELD);
        let mut fresh = Playout::new(true);
        assert!(!fresh.jumped(Duration::from_secs(3_600), at(0)), "it has not begun");
    }

    proptest! {
        #[test]
        fn whatever_comes_picture_and_sound_stay_together(
            steps in proptest::collection::vec((0..10_000_000_u64, 0..100_000_u64), 1..300),
            is_live: bool,
        ) {
            let mut playout = Playout::new(is_live);
            let mut now = at(0);
            playout.begin(Duration::from_secs(5), None, now);
            for (pts, passed) in steps {
                now = now + Duration::from_micros(passed);
                let pts = Duration::from_micros(pts);
                playout.arrived(pts, now);
                prop_assert!(playout.due(pts) + TOLERATED >= now, "late, and nothing was done");
                let apart = playout.due(pts + FRAME).since(playout.due(pts));
                prop_assert!(apart <= FRAME);
            }
        }
    }
}
