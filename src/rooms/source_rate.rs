//! The rate of the packets of one source. Pure: time is an argument.
//!
//! Owns: how many packets and bytes of a source the mixer and recordings get. Does not know: what is in a packet. In:
//! the size of each packet and the time. Out: whether it is within the rate.
//!
//! Senders are asked for less by congestion control. The rate only bounds what one that ignores it costs the link, the
//! mixer and the disk. A second's worth more may come at once, as after a pause of the network.

use std::time::Duration;

use crate::media::Kind;
use crate::time::Timestamp;

/// What a source may send per second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    packets: f64,
    bytes: f64,
}

impl Rate {
    /// Video: 20 Mbit/s, of which a screen of 1920x1080 needs half at most. Audio: packets of 2.5 ms, and 1 Mbit/s.
    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Video => Self { packets: 2_500.0, bytes: 2_500_000.0 },
            Kind::Audio => Self { packets: 500.0, bytes: 125_000.0 },
        }
    }
}

/// The longest time whose packets may come at once.
const BURST: Duration = Duration::from_secs(2);

/// What is left to one source.
#[derive(Debug)]
pub(super) struct SourceRate {
    rate: Rate,
    packets: f64,
    bytes: f64,
    updated: Timestamp,
}

impl SourceRate {
    /// Of a source that begins.
    pub(super) fn new(kind: Kind, now: Timestamp) -> Self {
        let rate = Rate::of(kind);
        let burst = BURST.as_secs_f64();
        Self { rate, packets: rate.packets * burst, bytes: rate.bytes * burst, updated: now }
    }

    /// Whether a packet with so many bytes of payload is within the rate; counts it if so.
    pub(super) fn allow(&mut self, bytes: usize, now: Timestamp) -> bool {
        let (seconds, burst) = (now.since(self.updated).as_secs_f64(), BURST.as_secs_f64());
        self.updated = self.updated.max(now);
        self.packets = (self.packets + seconds * self.rate.packets).min(self.rate.packets * burst);
        self.bytes = (self.bytes + seconds * self.rate.bytes).min(self.rate.bytes * burst);
        let bytes = bytes as f64;
        let allowed = self.packets >= 1.0 && self.bytes >= bytes;
        if allowed {
            self.packets -= 1.0;
            self.bytes -= bytes;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + us)
    }

    #[test]
    fn a_source_gets_no_more_packets_and_bytes_than_its_rate() {
        let passed = |kind, bytes, interval_us, seconds: u64| {
            let mut rate = SourceRate::new(kind, at(0));
            (0..seconds * 1_000_000 / interval_us).filter(|n| rate.allow(bytes, at(n * interval_us))).count()
        };
        // Ten seconds, of which two more are the burst.
        let near = |count: usize, expected: usize| count.abs_diff(expected) <= expected / 100;
        assert!(near(passed(Kind::Video, 10, 20, 10), 12 * 2_500), "many small packets");
        assert!(near(passed(Kind::Video, 1_200, 200, 10), 12 * 2_500_000 / 1_200), "many bytes");
        assert!(near(passed(Kind::Audio, 10, 100, 10), 12 * 500));
        // As senders do: 8 Mbit/s in packets of 1200 bytes, and Opus in packets of 2.5 ms.
        assert_eq!(passed(Kind::Video, 1_200, 1_200, 60), 50_000);
        assert_eq!(passed(Kind::Audio, 80, 2_500, 60), 24_000);
    }

    #[test]
    fn packets_that_come_at_once_after_a_pause_are_taken() {
        let mut rate = SourceRate::new(Kind::Video, at(0));
        for second in 0..20 {
            // A second of 15 Mbit/s arrives in one millisecond.
            let arrived = (0..1_500).filter(|n| rate.allow(1_200, at(second * 1_000_000 + n))).count();
            assert_eq!(arrived, 1_500, "in second {second}");
        }
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_the_burst(
            packets in prop::collection::vec((0..2_000_u64, 0..1_500_usize), 1..3_000),
        ) {
            let (mut rate, mut now, mut taken) = (SourceRate::new(Kind::Audio, at(0)), 0, Vec::new());
            for (later, bytes) in packets {
                now += later;
                if rate.allow(bytes, at(now)) {
                    taken.push((now, bytes));
                }
            }
            for (i, (from, _)) in taken.iter().enumerate().step_by(50) {
                let second: Vec<_> = taken[i..].iter().take_while(|(time, _)| time - from < 1_000_000).collect();
                prop_assert!(second.len() <= 1_501, "{} packets", second.len());
                let bytes: usize = second.iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(bytes <= 376_500, "{} bytes", bytes);
            }
        }
    }
}
