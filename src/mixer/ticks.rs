//! Ticks: which one is due, and waiting for it.
//!
//! A tick is a number on the grid of the room's epoch. A late loop catches up a little and then leaves ticks out, because
//! a burst of old ticks helps nobody; their timestamps are simply missing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::time::{Timestamp, now};

/// The tick that is running at `at`, and when tick `n` begins.
pub(super) trait Grid {
    /// The number of the tick in which `since` the epoch lies.
    fn index(&self, since: Duration) -> u64;
    /// When tick `n` begins, from the epoch.
    fn start(&self, n: u64) -> Duration;
}

/// What to do next on a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// The tick to run.
    pub(super) n: u64,
    /// When.
    pub(super) at: Timestamp,
    /// Ticks left out before it.
    pub(super) skipped: u64,
}

/// The tick after `last`, or a later one when more than `catch_up` ticks lie in the past.
pub(super) fn due(grid: &impl Grid, epoch: Timestamp, last: Option<u64>, catch_up: u64, now: Timestamp) -> Due {
    let current = grid.index(now.since(epoch));
    let next = last.map_or(current + 1, |last| last + 1);
    let n = if current > next + catch_up { current } else { next };
    Due { n, at: epoch + grid.start(n), skipped: n - next }
}

/// Since when a loop has been busy with one tick; what the watchdog of the serving process judges by.
#[derive(Debug, Default)]
pub(super) struct Busy(AtomicU64);

impl Busy {
    /// A tick begins.
    pub(super) fn begin(&self, now: Timestamp) {
        self.0.store(now.as_micros(), Ordering::Relaxed);
    }

    /// The tick is over; the loop waits.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How long the tick has taken so far; zero between ticks.
    pub(super) fn for_how_long(&self, now: Timestamp) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            begun => now.since(Timestamp::from_micros(begun)),
        }
    }
}

/// A value that threads share, and a bell that rings when it changes.
#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock()
    }

    /// Changes the value and wakes who waits for it.
    pub(super) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock());
        self.changed.notify_all();
    }

    /// Waits for a change; until a deadline where there is one.
    pub(super) fn wait(&self, guard: &mut MutexGuard<'_, T>, until: Option<Timestamp>) {
        match until {
            None => self.changed.wait(guard),
            Some(until) => {
                let _timed_out = self.changed.wait_for(guard, until.since(now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Every20;

    impl Grid for Every20 {
        fn index(&self, since: Duration) -> u64 {
            since.as_millis() as u64 / 20
        }

        fn start(&self, n: u64) -> Duration {
            Duration::from_millis(n * 20)
        }
    }

    const EPOCH: Timestamp = Timestamp::from_micros(5_000_000);

    fn at(ms: u64) -> Timestamp {
        EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn a_loop_is_busy_from_the_beginning_of_a_tick_to_its_end() {
        let busy = Busy::default();
        assert_eq!(busy.for_how_long(at(50)), Duration::ZERO);
        busy.begin(at(100));
        assert_eq!(busy.for_how_long(at(5_100)), Duration::from_secs(5));
        busy.end();
        assert_eq!(busy.for_how_long(at(9_000)), Duration::ZERO);
    }

    #[test]
    fn ticks_stand_on_the_grid_and_begin_with_the_next() {
        assert_eq!(due(&Every20, EPOCH, None, 3, at(30)), Due { n: 2, at: at(40), skipped: 0 });
        assert_eq!(due(&Every20, EPOCH, Some(2), 3, at(45)), Due { n: 3, at: at(60), skipped: 0 });
    }

    #[test]
    fn a_late_loop_catches_up_a_little_and_skips_the_rest() {
        assert_eq!(due(&Every20, EPOCH, Some(2), 3, at(120)), Due { n: 3, at: at(60), skipped: 0 });
        assert_eq!(due(&Every20, EPOCH, Some(2), 3, at(145)), Due { n: 7, at: at(140), skipped: 4 });
    }
}
