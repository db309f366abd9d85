//! Time: the only module that reads clocks.
//!
//! Owns: [`Timestamp`], a point on this machine's monotonic clock, which is the same in all processes, so that the
//! mixer can compare timestamps of the edge. Out: [`now`] and CPU times. All other code takes the time as an argument.

use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A point in time: microseconds on `CLOCK_MONOTONIC`, comparable between the processes of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A timestamp from microseconds of `CLOCK_MONOTONIC`; for tests and for arithmetic on epochs.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds of `CLOCK_MONOTONIC`.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The duration since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_micros() as u64))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_micros() as u64))
    }
}

/// A point in time as [`Timestamp`] and as [`Instant`]. The `rtc` crates require an [`Instant`], which cannot be made
/// from a [`Timestamp`].
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time on the clock of [`Timestamp`].
    pub now: Timestamp,
    /// The same time for the `rtc` crates.
    pub instant: Instant,
}

impl Moment {
    /// The current time, by both types.
    #[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
    pub fn present() -> Self {
        Self { now: now(), instant: Instant::now() }
    }
}

/// Reads `CLOCK_MONOTONIC`.
pub fn now() -> Timestamp {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Timestamp(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000)
}

/// CPU time used by all threads of this process.
pub fn process_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// CPU time used by this thread.
pub fn thread_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Wall clock in seconds since 1970; for token lifetimes and file names only, never for media.
pub fn unix_seconds() -> u64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec as u64
}

/// Wall clock in microseconds since 1970; for published and drawn dates only, never for the time of media.
pub fn unix_micros() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000
}
