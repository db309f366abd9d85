//! One direction of an emulated network. Packets go in and come out later, or are lost.
//!
//! Owns: the queue, the packets in transit, the counters. Does not know: sockets, the content of packets. Pure: time
//! is an argument and randomness is seeded, so a run can be repeated. A link sends one packet after the other at its
//! rate. A packet that would wait too long is dropped. In transit, packets have a delay with jitter and keep their
//! order.

use std::collections::VecDeque;
use std::time::Duration;

use commingle::time::Timestamp;

/// Bytes of the IP and UDP headers, which count towards the rate.
const OVERHEAD: usize = 28;
/// Most packets in the link.
const PACKETS_MAX: usize = 10_000;

/// The properties of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Conditions {
    /// Bandwidth in kbit/s; None is unlimited.
    pub(crate) kbps: Option<u32>,
    /// The longest queued time in the queue.
    pub(crate) queue: Duration,
    /// The shortest delay in transit.
    pub(crate) delay: Duration,
    /// The largest additional delay.
    pub(crate) jitter: Duration,
    /// The share of packets lost at random, 0 to 1.
    pub(crate) loss: f64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            kbps: None,
            queue: Duration::from_millis(300),
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
        }
    }
}

/// Packet counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Packets delivered.
    pub(crate) passed: u64,
    /// Bytes delivered, with IP and UDP headers.
    pub(crate) bytes: u64,
    /// Packets lost at random.
    pub(crate) lost: u64,
    /// Packets dropped because the queue was full.
    pub(crate) overflowed: u64,
}

/// One direction of a network for packets `T`.
#[derive(Debug)]
pub(crate) struct Link<T> {
    conditions: Conditions,
    seed: u64,
    /// Queued packets with their sizes; the first one is being sent.
    queued: VecDeque<(usize, T)>,
    /// When the first queued packet has been sent.
    sent_at: Timestamp,
    in_transit: VecDeque<(Timestamp, usize, T)>,
    counts: Counts,
}

impl<T> Link<T> {
    pub(crate) fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            seed,
            queued: VecDeque::new(),
            sent_at: Timestamp::default(),
            in_transit: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Changes the conditions; packets in transit keep their delay.
    pub(crate) fn set(&mut self, now: Timestamp, conditions: Conditions) {
        self.advance(now);
        let before = std::mem::replace(&mut self.conditions, conditions);
        if let Some((size, _)) = self.queued.front() {
            let (whole, then) = (before.time(*size), conditions.time(*size));
            let left = self.sent_at.since(now);
            self.sent_at =
                now + if whole.is_zero() { then } else { then.mul_f64(left.div_duration_f64(whole).min(1.0)) };
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Sends a datagram of this size, which may be dropped.
    pub(crate) fn push(&mut self, now: Timestamp, size: usize, packet: T) {
        self.advance(now);
        if self.chance() < self.conditions.loss {
            self.counts.lost += 1;
            return;
        }
        let size = size + OVERHEAD;
        let queued_time = self.queued.iter().skip(1).map(|(size, _)| self.conditions.time(*size)).sum::<Duration>();
        let sending = if self.queued.is_empty() { Duration::ZERO } else { self.sent_at.since(now) };
        let full = sending + queued_time > self.conditions.queue;
        if full || self.queued.len() + self.in_transit.len() >= PACKETS_MAX {
            self.counts.overflowed += 1;
            return;
        }
        if self.queued.is_empty() {
            self.sent_at = now + self.conditions.time(size);
        }
        self.queued.push_back((size, packet));
        self.advance(now);
    }

    /// The next packet that has arrived.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<T> {
        self.advance(now);
        if self.in_transit.front().is_none_or(|(arrives, ..)| *arrives > now) {
            return None;
        }
        let (_, size, packet) = self.in_transit.pop_front()?;
        self.counts.passed += 1;
        self.counts.bytes += size as u64;
        Some(packet)
    }

    /// When to call [`pop`](Self::pop) again; None if the link is empty.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let sent = self.queued.front().map(|_| self.sent_at);
        let arrives = self.in_transit.front().map(|(arrives, ..)| *arrives);
        [sent, arrives].into_iter().flatten().min()
    }

    /// Moves packets that have been sent into transit.
    fn advance(&mut self, now: Timestamp) {
        while !self.queued.is_empty() && self.sent_at <= now {
            let left = self.sent_at;
            let (size, packet) = self.queued.pop_front().expect("just seen");
            let jitter = self.conditions.jitter.mul_f64(self.chance());
            let previous = self.in_transit.back().map_or(left, |(arrives, ..)| *arrives);
            self.in_transit.push_back(((left + self.conditions.delay + jitter).max(previous), size, packet));
            if let Some((size, _)) = self.queued.front() {
                self.sent_at = left + self.conditions.time(*size);
            }
        }
    }

    /// A random number from 0 to 1.
    fn chance(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Conditions {
    /// The time to send this many bytes.
    fn time(&self, bytes: usize) -> Duration {
        self.kbps.map_or(Duration::ZERO, |kbps| Duration::from_micros(bytes as u64 * 8_000 / u64::from(kbps.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + micros)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Receives all packets when they are due; returns them with their times in microseconds.
    fn drain(link: &mut Link<usize>) -> Vec<(u64, usize)> {
        let mut out = Vec::new();
        while let Some(next) = link.next() {
            while let Some(packet) = link.pop(next) {
                out.push((next.since(at(0)).as_micros() as u64, packet));
            }
        }
        out
    }

    #[test]
    fn packets_leave_the_link_one_by_one_and_arrive_after_the_delay() {
        let conditions = Conditions { kbps: Some(1_000), delay: ms(50), ..Conditions::default() };
        let mut link = Link::new(conditions, 1);
        for packet in 0..3 {
            link.push(at(0), 1_222, packet);
        }
        assert_eq!(drain(&mut link), [(60_000, 0), (70_000, 1), (80_000, 2)]);
        assert_eq!(link.counts(), Counts { passed: 3, bytes: 3_750, ..Counts::default() });
    }

    #[test]
    fn a_full_queue_drops_the_newest_packet() {
        let conditions = Conditions { kbps: Some(1_000), queue: ms(25), delay: ms(0), ..Conditions::default() };
        let mut link = Link::new(conditions, 1);
        for packet in 0..9 {
            link.push(at(0), 1_222, packet);
        }
        assert_eq!(drain(&mut link), [(10_000, 0), (20_000, 1), (30_000, 2)]);
        assert_eq!(link.counts().overflowed, 6);
    }

    #[test]
    fn a_changed_rate_applies_to_queued_packets() {
        let conditions = Conditions { kbps: Some(1_000), delay: ms(0), ..Conditions::default() };
        let mut link = Link::new(conditions, 1);
        link.push(at(0), 1_222, 0);
        link.push(at(0), 1_222, 1);
        link.set(at(5_000), Conditions { kbps: Some(100), ..conditions });
        assert_eq!(drain(&mut link), [(55_000, 0), (155_000, 1)], "half of the first, ten times slower");
    }

    proptest! {
        /// Packets come out in order, not faster than the rate, not later than queue and delay allow, and each is
        /// counted once.
        #[test]
        fn all_packets_respect_the_rate_and_are_counted_once(
            kbps in 50_u32..5_000,
            delay in 0_u64..200,
            jitter in 0_u64..30,
            loss in 0.0..0.3,
            seed in any::<u64>(),
            packets in prop::collection::vec((0_u64..30_000, 20_usize..1_300), 1..300),
        ) {
            let conditions =
                Conditions { kbps: Some(kbps), queue: ms(200), delay: ms(delay), jitter: ms(jitter), loss };
            let mut link = Link::new(conditions, seed);
            let (mut now, mut out, mut sent) = (0, Vec::new(), Vec::new());
            for (n, (wait, size)) in packets.iter().enumerate() {
                now += wait;
                while let Some(next) = link.next().filter(|next| *next <= at(now)) {
                    out.extend(std::iter::from_fn(|| link.pop(next)).map(|packet| (next.since(at(0)), packet)));
                }
                link.push(at(now), *size, n);
                sent.push(now);
            }
            out.extend(drain(&mut link).into_iter().map(|(micros, packet)| (Duration::from_micros(micros), packet)));
            let counts = link.counts();
            prop_assert_eq!(counts.passed as usize, out.len());
            prop_assert_eq!((counts.passed + counts.lost + counts.overflowed) as usize, packets.len());
            for pair in out.windows(2) {
                prop_assert!(pair[0].1 < pair[1].1, "in order");
            }
            for (arrived, packet) in &out {
                let took = *arrived - Duration::from_micros(sent[*packet]);
                let link = conditions.time(packets[*packet].1 + OVERHEAD);
                prop_assert!(took + ms(1) >= ms(delay) + link);
                prop_assert!(took <= ms(200 + delay + jitter) + link + ms(1), "took {:?}", took);
            }
            if let (Some(first), Some(last)) = (out.first(), out.last()) {
                let bits = 8 * (counts.bytes - (packets[first.1].1 + OVERHEAD) as u64);
                let span = last.0.saturating_sub(first.0) + ms(jitter + 1);
                prop_assert!(bits as f64 <= f64::from(kbps) * 1_000.0 * span.as_secs_f64() + 1.0);
            }
        }

        #[test]
        fn the_loss_rate_is_as_configured(loss in 0.0..0.5, seed in any::<u64>()) {
            let mut link = Link::new(Conditions { loss, ..Conditions::default() }, seed);
            for packet in 0..4_000 {
                link.push(at(packet as u64 * 1_000), 100, packet);
                while link.pop(at(packet as u64 * 1_000)).is_some() {}
            }
            let lost = link.counts().lost as f64 / 4_000.0;
            prop_assert!((lost - loss).abs() < 0.05, "{} of {}", lost, loss);
        }

        #[test]
        fn the_same_seed_loses_the_same_packets(seed in any::<u64>()) {
            let run = || {
                let mut link = Link::new(Conditions { loss: 0.1, jitter: ms(20), ..Conditions::default() }, seed);
                (0..200).for_each(|packet| link.push(at(packet as u64 * 1_000), 100, packet));
                drain(&mut link)
            };
            prop_assert_eq!(run(), run());
        }
    }
}
