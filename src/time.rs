//! Time: the only module that reads a clock.
//!
//! Owns: [`Timestamp`], a point on this machine's monotonic clock. The kernel's clock is the same in every process of
//! the machine, so a timestamp taken in the edge can be compared in the mixer. Everything else is told the time.

use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A point in time: microseconds on `CLOCK_MONOTONIC`, comparable between the processes of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A timestamp of so many microseconds; for tests and for arithmetic on epochs.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's own zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies in the future.
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

/// A point in time on both of the clocks that are in use: the crate `rtc` counts in the second.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Ours.
    pub now: Timestamp,
    /// The standard library's.
    pub instant: Instant,
}

impl Moment {
    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
    pub fn present() -> Self {
        Self { now: now(), instant: Instant::now() }
    }
}

/// Reads the clock.
pub fn now() -> Timestamp {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Timestamp(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000)
}

/// CPU time this process has used, all threads.
pub fn process_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// CPU time this thread has used.
pub fn thread_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Seconds since 1970 on the wall clock; for token lifetimes and file names only, never for media.
pub fn unix_seconds() -> u64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec as u64
}

/// Microseconds since 1970 on the wall clock; for dates that others read only, never for media.
pub fn unix_micros() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000
}
