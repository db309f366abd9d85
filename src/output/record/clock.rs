//! Maps RTP timestamps of a participant's source to the room's timeline.
//!
//! Owns: [`SourceClock`], pure. Does not know: media. In: timestamps and arrival times. Out: ticks since the epoch. The
//! first packet is assumed to have arrived without delay. If later packets show that it was delayed, or that the
//! sender's clock drifts, the mapping is corrected.

use std::time::Duration;

use crate::time::Timestamp;

/// Window of the minimum delay, after which the mapping is corrected.
const WINDOW: Duration = Duration::from_secs(10);
/// An error of less than a second divided by this (40 ms) is not corrected.
const TOLERANCE_DIVISOR: i64 = 25;
/// A larger deviation in seconds is a restart of the sender's timestamps.
const MAX_JUMP_SECONDS: i64 = 2;

/// Maps the RTP timestamps of one source to ticks of its track since the room's epoch.
#[derive(Debug)]
pub(super) struct SourceClock {
    epoch: Timestamp,
    /// RTP clock rate in Hz.
    rate: u32,
    /// Ticks of the track per RTP tick.
    scale: u32,
    mapping: Option<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    /// Newest extended timestamp.
    newest: i64,
    /// RTP ticks since the epoch minus extended timestamp.
    offset: i64,
    /// Minimum delay in this window, in ticks, and start of the window.
    min_delay: i64,
    since: Timestamp,
}

impl SourceClock {
    /// For a source with an RTP clock of `rate` Hz, each tick of which is `scale` ticks of its track.
    pub(super) const fn new(epoch: Timestamp, rate: u32, scale: u32) -> Self {
        Self { epoch, rate, scale, mapping: None }
    }

    /// Time of a packet in ticks of the track since the epoch.
    pub(super) fn time(&mut self, timestamp: u32, arrival: Timestamp) -> u64 {
        let rate = i64::from(self.rate);
        let elapsed = arrival.as_micros().saturating_sub(self.epoch.as_micros());
        let arrived = (i128::from(elapsed) * i128::from(rate) / 1_000_000) as i64;
        let extended = self
            .mapping
            .as_ref()
            .map(|mapping| mapping.newest + i64::from(timestamp.wrapping_sub(mapping.newest as u32).cast_signed()));
        let mapping = match (&mut self.mapping, extended) {
            (Some(mapping), Some(extended))
                if (arrived - extended - mapping.offset).abs() < MAX_JUMP_SECONDS * rate =>
            {
                mapping.newest = mapping.newest.max(extended);
                mapping.min_delay = mapping.min_delay.min(arrived - extended - mapping.offset);
                if arrival.since(mapping.since) >= WINDOW {
                    if mapping.min_delay.abs() > rate / TOLERANCE_DIVISOR {
                        mapping.offset += mapping.min_delay;
                    }
                    (mapping.min_delay, mapping.since) = (i64::MAX, arrival);
                }
                mapping
            }
            (mapping, _) => {
                let newest = i64::from(timestamp);
                mapping.insert(Mapping { newest, offset: arrived - newest, min_delay: i64::MAX, since: arrival })
            }
        };
        let extended = extended.filter(|extended| *extended <= mapping.newest).unwrap_or(mapping.newest);
        (extended + mapping.offset).max(0) as u64 * u64::from(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Timestamp = Timestamp::from_micros(1_000_000);

    proptest! {
        /// With any jitter, times differ exactly as the timestamps do.
        #[test]
        fn times_follow_timestamps(first in any::<u32>(), delays in prop::collection::vec(0..30u64, 2..400)) {
            let mut clock = SourceClock::new(EPOCH, 48_000, 1);
            let mut before = None;
            for (n, delay) in delays.into_iter().enumerate() {
                let made = n as u64 * 20;
                let arrival = EPOCH + Duration::from_millis(500 + made + delay);
                let time = clock.time(first.wrapping_add(n as u32 * 960), arrival);
                if let Some(before) = before {
                    prop_assert_eq!(time - before, 960);
                }
                before = Some(time);
                prop_assert!(time.abs_diff((500 + made) * 48) <= 30 * 48);
            }
        }
    }

    #[test]
    fn a_late_first_packet_and_a_restart_are_corrected() {
        let mut clock = SourceClock::new(EPOCH, 8_000, 6);
        let at = |ms: u64| EPOCH + Duration::from_millis(ms);
        assert_eq!(clock.time(1_000, at(300)), 300 * 48, "200 ms later than the others");
        for n in 1..600 {
            clock.time(1_000 + n * 160, at(100 + u64::from(n) * 20));
        }
        let time = clock.time(1_000 + 600 * 160, at(100 + 600 * 20));
        assert_eq!(time, (100 + 600 * 20) * 48, "the mapping was corrected");
        let restarted = clock.time(77, at(20_000));
        assert_eq!(restarted, 20_000 * 48);
    }
}
