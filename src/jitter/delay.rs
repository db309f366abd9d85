//! The target delay of an audio source, from the distribution of transit times.
//!
//! Owns: the histogram and the least transit time. Does not know: packets. In: RTP timestamps and arrivals. Out: the
//! delay.

use std::time::Duration;

use crate::time::Timestamp;

/// Least and largest delay, and the delay before the first measurement.
const MIN: Duration = Duration::from_millis(20);
const MAX: Duration = Duration::from_millis(400);
const START: Duration = Duration::from_millis(40);
/// Width of a histogram bin, and bins up to [`MAX`].
const BIN: Duration = Duration::from_millis(5);
const BINS: usize = 81;
/// Share of packets that must be in time.
const IN_TIME: f32 = 0.97;
/// Factor of old measurements per packet: they count half after 7 s of 20 ms packets.
const FORGET: f32 = 0.998;
/// The least transit time is that of the last 5 to 10 s, in which clocks drift by at most 2 ms.
const LEAST_WINDOW: Duration = Duration::from_secs(5);
/// Lateness from which the timestamps of the sender have jumped.
const JUMP: i64 = 1_000_000;

/// A decaying histogram of the lateness of packets against the fastest recent packet.
#[derive(Debug)]
pub(super) struct DelayEstimate {
    clock_rate: u32,
    /// The extended timestamp, and its 32 bits.
    spoken: Option<(i64, u32)>,
    /// Least transit time in microseconds, of this window and of the window before it.
    least: Option<(i64, i64)>,
    window_start: Timestamp,
    bins: [f32; BINS],
}

impl DelayEstimate {
    pub(super) fn new(clock_rate: u32) -> Self {
        let mut bins = [0.0; BINS];
        // The initial histogram: packets are up to 20 ms late.
        bins[(START - MIN).div_duration_f32(BIN) as usize - 1] = 20.0;
        Self { clock_rate, spoken: None, least: None, window_start: Timestamp::default(), bins }
    }

    /// Adds the RTP timestamp and the arrival of a packet.
    pub(super) fn measure(&mut self, timestamp: u32, arrival: Timestamp) {
        let spoken = match self.spoken {
            Some((before, raw)) => before + i64::from(timestamp.wrapping_sub(raw) as i32),
            None => 0,
        };
        self.spoken = Some((spoken, timestamp));
        let transit = arrival.as_micros() as i64 - spoken * 1_000_000 / i64::from(self.clock_rate);
        let (this, last) = match self.least {
            Some((this, last)) if transit - this.min(last) <= JUMP => (this.min(transit), last),
            _ => {
                self.window_start = arrival;
                (transit, transit)
            }
        };
        let late = transit - this.min(last);
        self.least = Some((this, last));
        if arrival.since(self.window_start) >= LEAST_WINDOW {
            self.window_start = arrival;
            self.least = Some((transit, this));
        }
        self.bins.iter_mut().for_each(|bin| *bin *= FORGET);
        let bin = (late / BIN.as_micros() as i64) as usize;
        self.bins[bin.min(BINS - 1)] += 1.0;
    }

    /// The target delay for packets of this duration.
    pub(super) fn target(&self, packet: Duration) -> Duration {
        let wanted = self.bins.iter().sum::<f32>() * IN_TIME;
        let mut sum = 0.0;
        let bin = self.bins.iter().position(|bin| {
            sum += bin;
            sum >= wanted
        });
        let late = BIN * (bin.unwrap_or(BINS - 1) as u32 + 1);
        (packet + late).clamp(MIN, MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Duration = Duration::from_millis(20);

    /// Feeds `n` packets of 20 ms with the given lateness in ms each.
    fn after(n: u32, late: impl Fn(u32) -> u64) -> Duration {
        let mut estimate = DelayEstimate::new(48_000);
        for i in 0..n {
            let arrival = Timestamp::from_micros(10_000_000 + u64::from(i) * 20_000 + late(i) * 1_000);
            estimate.measure(i.wrapping_mul(960).wrapping_sub(5_000), arrival);
        }
        estimate.target(PACKET)
    }

    #[test]
    fn it_starts_at_40_ms_and_follows_the_jitter() {
        assert_eq!(after(0, |_| 0), START);
        assert_eq!(after(1_500, |_| 0), Duration::from_millis(25));
        assert_eq!(after(1_500, |i| u64::from(i % 10) * 10), Duration::from_millis(115));
        assert_eq!(after(1_500, |i| u64::from(i % 2) * 900), MAX);
    }

    #[test]
    fn the_delay_shrinks_after_a_spike() {
        let late = |i| if (1_000..1_060).contains(&i) { u64::from(1_060 - i) * 5 } else { 0 };
        assert!(after(1_060, late) > Duration::from_millis(150));
        assert_eq!(after(3_000, late), Duration::from_millis(25));
    }

    #[test]
    fn a_timestamp_jump_is_not_jitter() {
        let mut estimate = DelayEstimate::new(8_000);
        for i in 0..1_000_u32 {
            let jump = if i >= 500 { 0x4000_0000 } else { 0 };
            estimate.measure((i * 160).wrapping_sub(jump), Timestamp::from_micros(u64::from(i) * 20_000));
        }
        assert_eq!(estimate.target(PACKET), Duration::from_millis(25));
    }
}
