//! Ticks: which tick is due, waiting for it, and how long it takes.
//!
//! Owns: the arithmetic of ticks, [`Watched`] (a mutex with a condition variable), [`Busy`]. Does not know: what a tick
//! does. A tick is a number counted from the epoch of the room. A loop that is late runs a few late ticks and skips the
//! others: receivers discard media that is too late. The timestamps of skipped ticks are missing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::time::{Timestamp, now};

/// Converts between times and tick numbers.
pub(super) trait Grid {
    /// The tick that contains the time `since` the epoch.
    fn index(&self, since: Duration) -> u64;
    /// When tick `n` begins, since the epoch.
    fn start(&self, n: u64) -> Duration;
}

/// The next tick to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// Its number.
    pub(super) n: u64,
    /// When it begins.
    pub(super) at: Timestamp,
    /// Ticks skipped before it.
    pub(super) skipped: u64,
}

/// The tick after `last`, or the current one if more than `catch_up` ticks are late.
pub(super) fn due(grid: &impl Grid, epoch: Timestamp, last: Option<u64>, catch_up: u64, now: Timestamp) -> Due {
    let current = grid.index(now.since(epoch));
    let next = last.map_or(current + 1, |last| last + 1);
    let n = if current > next + catch_up { current } else { next };
    Due { n, at: epoch + grid.start(n), skipped: n - next }
}

/// Since when a loop has been busy with one tick: reported to the watchdog of the serving process.
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

/// A value shared by threads, with a condition variable for its changes.
#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock()
    }

    /// Changes the value and wakes the threads in [`wait`](Self::wait).
    pub(super) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock());
        self.changed.notify_all();
    }

    /// Wakes the threads in [`wait`](Self::wait) after a change under [`lock`](Self::lock).
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Waits for a change, at most until the deadline if there is one.
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
    fn the_first_tick_is_the_next_on_the_grid() {
        assert_eq!(due(&Every20, EPOCH, None, 3, at(30)), Due { n: 2, at: at(40), skipped: 0 });
        assert_eq!(due(&Every20, EPOCH, Some(2), 3, at(45)), Due { n: 3, at: at(60), skipped: 0 });
    }

    #[test]
    fn a_loop_runs_three_late_ticks_and_skips_more() {
        assert_eq!(due(&Every20, EPOCH, Some(2), 3, at(120)), Due { n: 3, at: at(60), skipped: 0 });
        assert_eq!(due(&Every20, EPOCH, Some(2), 3, at(145)), Due { n: 7, at: at(140), skipped: 4 });
    }
}
