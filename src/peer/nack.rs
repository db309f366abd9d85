//! Which lost packets of a received stream are asked for, and when (RFC 4585 section 6.2.1, RFC 4588).
//!
//! Owns: [`NackGenerator`], the gaps in the sequence numbers of one stream. A gap is requested soon, and again as soon
//! as the retransmission should have arrived, which the generator measures. Does not know: RTCP, frames, how long a
//! jitter buffer waits. A large gap is not requested: a keyframe has to come. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

/// Packets may be reordered by so much.
const REORDERED: Duration = Duration::from_millis(8);
/// Assumed time from a request to the retransmission, until one has been measured.
const RESPONSE: Duration = Duration::from_millis(60);
/// Least time from one request for a packet to the next.
const REPEAT_MIN: Duration = Duration::from_millis(25);
/// The same as a multiple of the measured response time.
const REPEAT: f64 = 1.25;
/// A packet that has been missing for so long is given up: no jitter buffer waits longer.
const AGE_MAX: Duration = Duration::from_millis(400);
/// Missing packets remembered at a time.
const MISSING_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct NackGenerator {
    /// The number after the newest received one, unwrapped.
    next: Option<i64>,
    missing: BTreeMap<i64, Missing>,
    response: Duration,
    /// Packets that were requested and given up, since [`NackGenerator::take_unrepaired`].
    unrepaired: u32,
}

#[derive(Debug)]
struct Missing {
    since: Timestamp,
    requested: Option<Timestamp>,
    requests: u32,
}

impl Default for NackGenerator {
    fn default() -> Self {
        Self { next: None, missing: BTreeMap::new(), response: RESPONSE, unrepaired: 0 }
    }
}

impl NackGenerator {
    /// A packet of the stream has arrived.
    pub(super) fn received(&mut self, sequence: u16, now: Timestamp) {
        let Some(next) = self.next else {
            self.next = Some(i64::from(sequence) + 1);
            return;
        };
        let number = next + i64::from(sequence.wrapping_sub(next as u16) as i16);
        if number < next {
            return self.found(number, now);
        }
        if (number - next) as usize > MISSING_MAX {
            self.missing.clear();
        } else {
            self.missing
                .extend((next..number).map(|lost| (lost, Missing { since: now, requested: None, requests: 0 })));
            while self.missing.len() > MISSING_MAX {
                self.missing.pop_first();
            }
        }
        self.next = Some(number + 1);
    }

    /// A retransmission has brought this packet.
    pub(super) fn recovered(&mut self, sequence: u16, now: Timestamp) {
        if let Some(next) = self.next {
            self.found(next + i64::from(sequence.wrapping_sub(next as u16) as i16), now);
        }
    }

    fn found(&mut self, number: i64, now: Timestamp) {
        if let Some(Missing { requested: Some(requested), requests: 1, .. }) = self.missing.remove(&number) {
            // Only a packet that was requested once tells how long a response takes (Karn's algorithm).
            self.response = (self.response * 3 + now.since(requested)) / 4;
        }
    }

    fn repeat(&self) -> Duration {
        self.response.mul_f64(REPEAT).max(REPEAT_MIN)
    }

    /// The packets to request now.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<u16> {
        let repeat = self.repeat();
        let unrepaired = &mut self.unrepaired;
        self.missing.retain(|_, missing| {
            let is_current = now.since(missing.since) < AGE_MAX;
            *unrepaired += u32::from(!is_current && missing.requests > 0);
            is_current
        });
        let due = self.missing.iter_mut().filter(|(_, missing)| missing.due(repeat) <= now);
        due.map(|(number, missing)| {
            missing.requested = Some(now);
            missing.requests += 1;
            *number as u16
        })
        .collect()
    }

    /// The number of packets that were requested and given up since the last call.
    pub(super) fn take_unrepaired(&mut self) -> u32 {
        std::mem::take(&mut self.unrepaired)
    }

    /// When [`NackGenerator::due`] next has something; None while nothing is missing.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        if self.missing.is_empty() {
            return None;
        }
        let repeat = self.repeat();
        self.missing.values().map(|missing| missing.due(repeat)).min()
    }
}

impl Missing {
    fn due(&self, repeat: Duration) -> Timestamp {
        self.requested.map_or(self.since + REORDERED, |requested| requested + repeat)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    fn after(packets: &[(u64, u16)]) -> NackGenerator {
        let mut generator = NackGenerator::default();
        packets.iter().for_each(|(ms, sequence)| generator.received(*sequence, at(*ms)));
        generator
    }

    #[test]
    fn a_gap_is_requested_soon_and_again_until_it_is_filled_or_too_old() {
        let mut generator = after(&[(0, 65_534), (10, 1)]);
        assert_eq!(generator.deadline(), Some(at(18)));
        assert_eq!(generator.due(at(17)), [0_u16; 0]);
        assert_eq!(generator.due(at(18)), [65_535, 0]);
        assert_eq!(generator.due(at(50)), [0_u16; 0]);
        generator.recovered(65_535, at(60));
        assert_eq!(generator.due(at(93)), [0], "a response takes 42 to 60 ms");
        assert_eq!(generator.due(at(200)), [0]);
        assert_eq!(generator.due(at(410)), [0_u16; 0], "given up");
        assert_eq!(generator.deadline(), None);
        assert_eq!((generator.take_unrepaired(), generator.take_unrepaired()), (1, 0));
    }

    #[test]
    fn a_reordered_packet_is_not_requested() {
        let mut generator = after(&[(0, 1), (10, 3), (12, 2)]);
        assert_eq!((generator.due(at(500)), generator.deadline()), (vec![], None));
    }

    #[test]
    fn a_large_gap_is_not_requested() {
        assert_eq!(after(&[(0, 1), (10, 1_000)]).due(at(100)), [0_u16; 0]);
    }

    proptest! {
        /// For any packets, only missing packets are requested, a bounded number of times, and few are remembered.
        #[test]
        fn only_missing_packets_are_requested(
            start in any::<u16>(),
            lost in prop::collection::vec(prop::bool::weighted(0.2), 50..400),
        ) {
            let mut generator = NackGenerator::default();
            let mut requests: BTreeMap<u16, u32> = BTreeMap::new();
            for (n, lost) in lost.iter().enumerate() {
                let sequence = start.wrapping_add(n as u16);
                if !lost {
                    generator.received(sequence, at(n as u64 * 5));
                }
                for requested in generator.due(at(n as u64 * 5 + 1)) {
                    let number = usize::from(requested.wrapping_sub(start));
                    *requests.entry(requested).or_default() += 1;
                    prop_assert!(number < n);
                }
                prop_assert!(generator.missing.len() <= MISSING_MAX);
            }
            for (sequence, requests) in requests {
                prop_assert!(lost[usize::from(sequence.wrapping_sub(start))], "{} was received", sequence);
                prop_assert!(requests <= 16);
            }
        }
    }
}
