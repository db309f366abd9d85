//! When a participant's packets were made, on the room's own time line.
//!
//! Owns: [`SourceClock`]. Does not know: what the packets hold. The first packet of a source is taken for one that came
//! without delay; if later ones show that it had been delayed, or that the sender's clock runs otherwise, the line is moved.

use std::time::Duration;

use crate::time::Timestamp;

/// How long the least delay is looked for before the line is moved to it.
const WINDOW: Duration = Duration::from_secs(10);
/// A line that is wrong by less is left alone: 40 ms.
const TOLERANCE: i64 = 25;
/// A packet that is so far off begins another numbering: two seconds.
const JUMP: i64 = 2;

/// Turns the RTP timestamps of one source into ticks of its track since the room's epoch.
#[derive(Debug)]
pub(super) struct SourceClock {
    epoch: Timestamp,
    /// Ticks a second of the RTP clock, and of the track's for each of them.
    rate: u32,
    scale: u32,
    line: Option<Line>,
}

#[derive(Debug)]
struct Line {
    /// The newest timestamp, not wrapped.
    newest: i64,
    /// From such a timestamp to ticks since the epoch.
    offset: i64,
    /// The least delay in this window, in ticks, and when the window began.
    least: i64,
    since: Timestamp,
}

impl SourceClock {
    /// For a source whose RTP clock has `rate` ticks a second, each of which is `scale` ticks of its track.
    pub(super) const fn new(epoch: Timestamp, rate: u32, scale: u32) -> Self {
        Self { epoch, rate, scale, line: None }
    }

    /// When a packet with this timestamp begins, in ticks of the track.
    pub(super) fn time(&mut self, timestamp: u32, arrival: Timestamp) -> u64 {
        let rate = i64::from(self.rate);
        let elapsed = arrival.as_micros().saturating_sub(self.epoch.as_micros());
        let arrived = (i128::from(elapsed) * i128::from(rate) / 1_000_000) as i64;
        let extended = self
            .line
            .as_ref()
            .map(|line| line.newest + i64::from(timestamp.wrapping_sub(line.newest as u32).cast_signed()));
        let line = match (&mut self.line, extended) {
            (Some(line), Some(extended)) if (arrived - extended - line.offset).abs() < JUMP * rate => {
                line.newest = line.newest.max(extended);
                line.least = line.least.min(arrived - extended - line.offset);
                if arrival.since(line.since) >= WINDOW {
                    if line.least.abs() > rate / TOLERANCE {
                        line.offset += line.least;
                    }
                    (line.least, line.since) = (i64::MAX, arrival);
                }
                line
            }
            (line, _) => {
                let newest = i64::from(timestamp);
                line.insert(Line { newest, offset: arrived - newest, least: i64::MAX, since: arrival })
            }
        };
        let extended = extended.filter(|extended| *extended <= line.newest).unwrap_or(line.newest);
        (extended + line.offset).max(0) as u64 * u64::from(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Timestamp = Timestamp::from_micros(1_000_000);

    proptest! {
        /// Whatever the delays are, times are as far apart as the packets were made, but for one move of the line.
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
    fn a_first_packet_that_was_late_and_a_restart_are_seen() {
        let mut clock = SourceClock::new(EPOCH, 8_000, 6);
        let at = |ms: u64| EPOCH + Duration::from_millis(ms);
        assert_eq!(clock.time(1_000, at(300)), 300 * 48, "took 200 ms more than the others");
        for n in 1..600 {
            clock.time(1_000 + n * 160, at(100 + u64::from(n) * 20));
        }
        let time = clock.time(1_000 + 600 * 160, at(100 + 600 * 20));
        assert_eq!(time, (100 + 600 * 20) * 48, "the line was moved");
        let restarted = clock.time(77, at(20_000));
        assert_eq!(restarted, 20_000 * 48);
    }
}
