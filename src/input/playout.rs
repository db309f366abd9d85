//! Playout timing: maps the positions of a source ([`super::timeline`]) to our clock.
//!
//! Owns: [`Playout`], a pure state machine. Does not know: media, and jumps of timestamps. In: positions and arrival
//! times. Out: due times. Audio and video share one offset, so they stay synchronized as their positions say.
//!
//! A live source is delayed a little, because it arrives with jitter. Media that arrives after its due time increases
//! the offset once, so that what follows is in time again. If all media of a live source arrives much too early, after
//! a burst or because its clock is faster than ours, the offset decreases.

use std::time::Duration;

use crate::time::Timestamp;

/// Initial delay of a live source.
const LIVE_DELAY: Duration = Duration::from_millis(120);
/// Initial delay of other sources, while decoders fill up.
const FILE_DELAY: Duration = Duration::from_millis(80);
/// Media that is later by at most this is sent at once; the mixer's jitter buffer absorbs it.
const MAX_LATENESS: Duration = Duration::from_millis(40);
/// Added to the delay when media was late.
const DELAY_MARGIN: Duration = Duration::from_millis(20);
/// A lead that exceeds the initial delay by more than this during [`BURST_WINDOW`] is the backlog of a burst, and
/// removed.
const BURST_EXCESS: Duration = Duration::from_millis(300);
/// Window over which a burst is measured.
const BURST_WINDOW: Duration = Duration::from_secs(1);
/// Window in which all media must have been early before the offset decreases by [`DRIFT_STEP`].
const DRIFT_WINDOW: Duration = Duration::from_secs(10);
/// Step of the offset: small enough to be absorbed as jitter, and more than clocks drift in [`DRIFT_WINDOW`].
const DRIFT_STEP: Duration = Duration::from_millis(20);

/// Maps the timestamps of a source to our clock.
#[derive(Debug)]
pub(super) struct Playout {
    live: bool,
    /// Due time minus timestamp, in microseconds. None before the start.
    offset: Option<i64>,
    burst: WindowMin,
    drift: WindowMin,
    late: u64,
}

/// The smallest lead (due time minus arrival) within a window.
#[derive(Debug, Default)]
struct WindowMin {
    since: Option<Timestamp>,
    lead: Duration,
}

impl WindowMin {
    /// Adds a lead; returns the minimum when the window is complete, and starts another.
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
    /// A playout for a live source, or for one that can be read at any speed.
    pub(super) fn new(live: bool) -> Self {
        Self { live, offset: None, burst: WindowMin::default(), drift: WindowMin::default(), late: 0 }
    }

    /// Starts with the timestamp `first`. `previous_end` is the end of the source played before, for a repetition
    /// without a gap.
    pub(super) fn begin(&mut self, first: Duration, previous_end: Option<Timestamp>, now: Timestamp) {
        let delay = if self.live { LIVE_DELAY } else { FILE_DELAY };
        let at = previous_end.map_or(now + delay, |previous_end| previous_end.max(now));
        self.offset = Some(at.as_micros() as i64 - first.as_micros() as i64);
        (self.burst, self.drift) = (WindowMin::default(), WindowMin::default());
    }

    /// Whether [`Playout::begin`] was called.
    pub(super) const fn has_begun(&self) -> bool {
        self.offset.is_some()
    }

    /// Due time of a timestamp.
    pub(super) fn due(&self, pts: Duration) -> Timestamp {
        let at = self.offset.unwrap_or_default() + pts.as_micros() as i64;
        Timestamp::from_micros(at.max(0) as u64)
    }

    /// Adjusts the offset after the arrival of media with this timestamp.
    pub(super) fn arrived(&mut self, pts: Duration, arrival: Timestamp) {
        let due = self.due(pts);
        let lateness = arrival.since(due);
        if lateness > MAX_LATENESS {
            self.late += 1;
            self.shift((lateness + DELAY_MARGIN).as_micros() as i64);
            return;
        }
        if !self.live {
            return;
        }
        let lead = due.since(arrival);
        let burst = self.burst.take(lead, BURST_WINDOW, arrival);
        if let Some(early) = burst.filter(|least| *least > LIVE_DELAY + BURST_EXCESS) {
            self.shift(-((early - LIVE_DELAY).as_micros() as i64));
            return;
        }
        let drift = self.drift.take(lead, DRIFT_WINDOW, arrival);
        if drift.is_some_and(|least| least > LIVE_DELAY + DRIFT_STEP * 2) {
            self.shift(-(DRIFT_STEP.as_micros() as i64));
        }
    }

    /// The position that is due at this time; None before the start.
    pub(super) fn playing(&self, at: Timestamp) -> Option<Duration> {
        let micros = at.as_micros() as i64 - self.offset?;
        Some(Duration::from_micros(micros.max(0) as u64))
    }

    /// How often the offset grew because media was late.
    pub(super) const fn late(&self) -> u64 {
        self.late
    }

    fn shift(&mut self, micros: i64) {
        self.offset = self.offset.map(|offset| offset + micros);
        (self.burst, self.drift) = (WindowMin::default(), WindowMin::default());
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
    fn a_steady_live_source_has_the_initial_delay() {
        let mut playout = live();
        for i in 0..1_000 {
            let pts = Duration::from_secs(7) + FRAME * i;
            playout.arrived(pts, at(40 * u64::from(i)));
            assert_eq!(playout.due(pts), at(40 * u64::from(i)) + LIVE_DELAY);
        }
        assert_eq!(playout.late(), 0);
    }

    #[test]
    fn late_media_increases_the_delay_once() {
        let mut playout = live();
        let stall = |i: u32| if i >= 100 { 300 } else { 0 };
        for i in 0..400 {
            let (pts, arrival) = (Duration::from_secs(7) + FRAME * i, at(40 * u64::from(i) + stall(i)));
            playout.arrived(pts, arrival);
            assert!(playout.due(pts) + MAX_LATENESS >= arrival, "due before it arrived");
        }
        assert_eq!(playout.late(), 1);
    }

    #[test]
    fn a_backlog_is_removed_and_a_fast_clock_is_followed() {
        let mut playout = live();
        // A stall of two seconds, then a burst, then steady.
        let arrival = |i: u32| at(if (50..100).contains(&i) { 4_000 } else { 40 * u64::from(i) });
        for i in 0..300 {
            playout.arrived(Duration::from_secs(7) + FRAME * i, arrival(i));
        }
        let pts = Duration::from_secs(7) + FRAME * 300;
        assert!(
            playout.due(pts).since(at(12_000)) < LIVE_DELAY + BURST_EXCESS,
            "{:?}",
            playout.due(pts).since(at(12_000))
        );

        // A clock that is 0.1 % fast.
        let mut playout = live();
        let mut least = Duration::MAX;
        for i in 0..60_000_u32 {
            let (pts, arrival) = (Duration::from_secs(7) + FRAME * i, at(u64::from(i) * 3_996 / 100));
            playout.arrived(pts, arrival);
            least = least.min(playout.due(pts).since(arrival));
        }
        let lead = playout.due(Duration::from_secs(7) + FRAME * 60_000).since(at(60_000 * 3_996 / 100));
        assert!(lead < LIVE_DELAY + BURST_EXCESS && least + MAX_LATENESS > LIVE_DELAY, "{lead:?}, at least {least:?}");
    }

    #[test]
    fn a_file_plays_at_its_own_rate_and_repeats_without_a_gap() {
        let mut playout = Playout::new(false);
        playout.begin(Duration::ZERO, None, at(0));
        for i in 0..500 {
            // Everything is available at once.
            playout.arrived(FRAME * i, at(1));
        }
        let end = playout.due(FRAME * 500);
        assert_eq!(end, at(20_000) + FILE_DELAY);
        let mut again = Playout::new(false);
        again.begin(Duration::from_millis(5), Some(end), at(19_500));
        assert_eq!(again.due(Duration::from_millis(5)), end);
        again.begin(Duration::from_millis(5), Some(end), at(25_000));
        assert_eq!(again.due(Duration::from_millis(5)), at(25_000), "the end has passed");
    }

    #[test]
    fn the_playing_position_is_the_one_that_is_due() {
        let playout = live();
        assert_eq!(playout.playing(at(500) + LIVE_DELAY), Some(Duration::from_millis(7_500)));
        assert_eq!(playout.due(Duration::from_millis(7_500)), at(500) + LIVE_DELAY);
        assert_eq!(Playout::new(true).playing(at(0)), None);
    }

    proptest! {
        #[test]
        fn audio_and_video_stay_synchronized(
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
                prop_assert!(playout.due(pts) + MAX_LATENESS >= now, "late, but the offset did not grow");
                let apart = playout.due(pts + FRAME).since(playout.due(pts));
                prop_assert!(apart <= FRAME);
            }
        }
    }
}
