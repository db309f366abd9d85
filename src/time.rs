//! Time: the only module that reads clocks.
//!
//! Owns: [`Timestamp`], a point on this machine's monotonic clock, which is the same in all processes, so that the
//! mixer can compare timestamps of the edge; [`WallTime`], a published date. Out: [`now`], [`wall`] and CPU times. All
//! other code takes the time as an argument.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// A date on the wall clock, which may jump: for documents and events only. As text it is in UTC with milliseconds
/// (RFC 3339).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// A date from microseconds since 1970.
    pub const fn from_unix_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The date this much later.
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_micros() as u64))
    }

    /// From an earlier date to this one; None if the other one is later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_micros)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000);
        // A clock that is set to a year beyond 9999 is wrong anyway.
        let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let ((year, month, day), (hour, minute, second, millisecond)) =
            ((date.year(), u8::from(date.month()), date.day()), date.to_hms_milli());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let date = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| {
            D::Error::custom(format!("`{text}` is no date: write it like 2026-12-01T09:30:00Z (RFC 3339)"))
        })?;
        let micros = u64::try_from(date.unix_timestamp_nanos() / 1_000);
        micros.map(Self).map_err(|_| D::Error::custom(format!("`{text}` is before 1970")))
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

/// The date on the wall clock.
pub fn wall() -> WallTime {
    WallTime(unix_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc_with_milliseconds() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_796_092_811_250_999, "2026-12-01T02:40:11.250Z"),
            (1_709_164_800_000_000, "2024-02-29T00:00:00.000Z"),
            (u64::MAX, "1970-01-01T00:00:00.000Z"),
        ] {
            let date = WallTime::from_unix_micros(micros);
            assert_eq!((date.to_string().as_str(), serde_json::json!(date)), (text, serde_json::json!(text)));
        }
    }

    #[test]
    fn dates_are_read_with_any_offset() {
        let read = |text: &str| serde_json::from_value::<WallTime>(serde_json::json!(text));
        let expected = WallTime::from_unix_micros(1_796_092_811_250_000);
        for text in ["2026-12-01T02:40:11.250Z", "2026-12-01T11:40:11.25+09:00"] {
            assert_eq!(read(text).expect(text), expected);
        }
        for text in ["", "2026-12-01", "tomorrow", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains("date") || error.contains("1970"), "{error}");
        }
        assert_eq!(expected.since(WallTime::default()), Some(Duration::from_micros(1_796_092_811_250_000)));
        assert_eq!(WallTime::default().since(expected), None);
    }
}
