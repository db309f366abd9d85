//! When a room is open.
//!
//! Owns: [`Schedule`]: the times at which a room opens and ends, and the warnings before. Does not know: joins and
//! participants. In: the time on the wall clock, which may jump; out: whether the room is open, and what is due.

use std::time::Duration;

use crate::time::{Timestamp, WallTime};

/// How long before the end people are warned, in seconds.
const WARNINGS: [u64; 3] = [600, 300, 60];
/// The wall clock is read again after at most this time, since it may jump.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Whether a room is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It opens after this time.
    Later(Duration),
    /// It is open.
    Open,
    /// It is over.
    Over,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Warn everyone: this many seconds are left.
    Warning(u64),
    /// The room is over.
    End,
}

/// The times of a room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Schedule {
    pub(super) opens_at: Option<WallTime>,
    pub(super) ends_at: Option<WallTime>,
    /// The last warning, in seconds before the end.
    warned: Option<u64>,
    /// The end was told.
    over: bool,
    due: Option<Timestamp>,
}

impl Schedule {
    /// Sets the end; warnings begin anew.
    pub(super) fn set_end(&mut self, ends_at: Option<WallTime>, now: Timestamp) {
        if self.ends_at != ends_at {
            (self.ends_at, self.warned, self.over) = (ends_at, None, false);
        }
        self.due = ends_at.map(|_| now);
    }

    /// Whether the room is open.
    pub(super) fn opening(&self, wall: WallTime) -> Opening {
        if self.ends_at.is_some_and(|end| end <= wall) {
            return Opening::Over;
        }
        match self.opens_at.and_then(|start| start.since(wall)) {
            Some(wait) if !wait.is_zero() => Opening::Later(wait),
            _ => Opening::Open,
        }
    }

    /// When [`poll`](Self::poll) is due.
    pub(super) const fn timeout(&self) -> Option<Timestamp> {
        self.due
    }

    /// What is due at this time.
    pub(super) fn poll(&mut self, now: Timestamp, wall: WallTime) -> Option<Due> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        let end = self.ends_at?;
        let left = end.since(wall).unwrap_or_default();
        if left.is_zero() {
            return (!std::mem::replace(&mut self.over, true)).then_some(Due::End);
        }
        let passed = |warning: u64| left <= Duration::from_secs(warning);
        // The latest warning whose time has come; earlier ones that were missed are not told any more.
        let current = WARNINGS.into_iter().filter(|warning| passed(*warning)).min();
        let next = WARNINGS.into_iter().filter(|warning| !passed(*warning)).max().unwrap_or(0);
        let wait = left.saturating_sub(Duration::from_secs(next)).min(LOOK_AGAIN);
        self.due = Some(now + wait.max(Duration::from_millis(10)));
        let is_new = |warning: &u64| self.warned.is_none_or(|told| *warning < told);
        let warning = current.filter(is_new)?;
        self.warned = Some(warning);
        // Rounded to seconds: a room that ends soon after the change is told what is left.
        Some(Due::Warning(left.as_millis().div_ceil(1_000).min(u128::from(warning)) as u64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wall(millis: u64) -> WallTime {
        WallTime::from_unix_micros(millis * 1_000)
    }

    /// Runs a schedule that ends at `end`, from `start`, in milliseconds; returns what was due, and when.
    fn run(start: u64, end: u64) -> Vec<(u64, Due)> {
        let mut schedule = Schedule::default();
        let at = |millis| Timestamp::default() + Duration::from_millis(millis);
        schedule.set_end(Some(wall(end)), at(start));
        let (mut now, mut found) = (start, Vec::new());
        while let Some(due) = schedule.timeout() {
            now = now.max(due.since(Timestamp::default()).as_millis() as u64);
            found.extend(schedule.poll(at(now), wall(now)).map(|due| (now, due)));
            if found.last().is_some_and(|(_, due)| *due == Due::End) {
                break;
            }
        }
        found
    }

    #[test]
    fn warnings_come_ten_five_and_one_minute_before_the_end() {
        let minute = 60_000;
        let expected = [
            (minute * 10, Due::Warning(600)),
            (minute * 15, Due::Warning(300)),
            (minute * 19, Due::Warning(60)),
            (minute * 20, Due::End),
        ];
        assert_eq!(run(0, 20 * minute), expected);
        assert_eq!(run(0, 30_000), [(0, Due::Warning(30)), (30_000, Due::End)], "what is left");
        assert_eq!(run(5_000, 4_000), [(5_000, Due::End)]);
    }

    #[test]
    fn a_room_is_open_between_its_times() {
        let schedule = Schedule { opens_at: Some(wall(1_000)), ends_at: Some(wall(2_000)), ..Schedule::default() };
        assert_eq!(schedule.opening(wall(400)), Opening::Later(Duration::from_millis(600)));
        assert_eq!(schedule.opening(wall(1_000)), Opening::Open);
        assert_eq!(schedule.opening(wall(2_000)), Opening::Over);
        assert_eq!(Schedule::default().opening(wall(0)), Opening::Open);
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_no_warning() {
        let mut schedule = Schedule::default();
        let now = Timestamp::default();
        schedule.set_end(Some(wall(100_000)), now);
        assert_eq!(schedule.poll(now, wall(50_000)), Some(Due::Warning(50)));
        let later = now + LOOK_AGAIN;
        assert_eq!(schedule.poll(later, wall(45_000)), None);
        assert_eq!(schedule.poll(later + LOOK_AGAIN, wall(100_000)), Some(Due::End));
        assert_eq!(schedule.timeout(), None);
    }

    proptest! {
        #[test]
        fn each_end_is_told_once_and_in_time(start in 0_u64..2_000_000, lasts in 0_u64..2_000_000) {
            let found = run(start, start + lasts);
            let (at, last) = found.last().copied().expect("the end");
            prop_assert_eq!(last, Due::End);
            prop_assert!(at >= start + lasts && at <= start + lasts + 10);
            prop_assert!(found.len() <= 4);
        }
    }
}
