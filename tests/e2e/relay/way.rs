//! One direction of a bad network: packets go in, and come out later, or never.
//!
//! Owns: what waits for the link, what is on its way, what was dropped and why. Does not know: sockets, what packets hold.
//! Pure: time is an argument, chance is seeded, so that a run repeats. A link sends one packet after the other at its rate;
//! what would wait too long is dropped at the tail; on the way packets take a while, more or less, but do not overtake.

use std::collections::VecDeque;
use std::time::Duration;

use commingle::time::Timestamp;

/// Bytes of IP and UDP around a datagram: they take their part of the link.
const OVERHEAD: usize = 28;
/// Packets held at most, whatever the conditions.
const PACKETS_MAX: usize = 10_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Conditions {
    /// What the link carries; None for no bound.
    pub(crate) kbps: Option<u32>,
    /// The longest wait for the link.
    pub(crate) queue: Duration,
    /// How long the way takes at least.
    pub(crate) delay: Duration,
    /// And how much longer at most.
    pub(crate) jitter: Duration,
    /// Share of packets lost by chance, 0 to 1.
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

/// What became of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Came out.
    pub(crate) passed: u64,
    /// And their bytes, with IP and UDP.
    pub(crate) bytes: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Dropped because the queue was full.
    pub(crate) overflowed: u64,
}

/// One direction, carrying `T`.
#[derive(Debug)]
pub(crate) struct Way<T> {
    conditions: Conditions,
    seed: u64,
    /// Packets and their sizes; the first one is on the link.
    waiting: VecDeque<(usize, T)>,
    /// When the first one has left.
    leaves: Timestamp,
    travelling: VecDeque<(Timestamp, usize, T)>,
    counts: Counts,
}

impl<T> Way<T> {
    pub(crate) fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            seed,
            waiting: VecDeque::new(),
            leaves: Timestamp::default(),
            travelling: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// From now on it is like this; what has left travels on as before.
    pub(crate) fn set(&mut self, now: Timestamp, conditions: Conditions) {
        self.advance(now);
        let before = std::mem::replace(&mut self.conditions, conditions);
        if let Some((size, _)) = self.waiting.front() {
            let (whole, then) = (before.time(*size), conditions.time(*size));
            let left = self.leaves.since(now);
            self.leaves =
                now + if whole.is_zero() { then } else { then.mul_f64(left.div_duration_f64(whole).min(1.0)) };
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// A datagram of this size goes in; it may be dropped.
    pub(crate) fn push(&mut self, now: Timestamp, size: usize, packet: T) {
        self.advance(now);
        if self.chance() < self.conditions.loss {
            self.counts.lost += 1;
            return;
        }
        let size = size + OVERHEAD;
        let behind = self.waiting.iter().skip(1).map(|(size, _)| self.conditions.time(*size)).sum::<Duration>();
        let on_the_link = if self.waiting.is_empty() { Duration::ZERO } else { self.leaves.since(now) };
        let full = on_the_link + behind > self.conditions.queue;
        if full || self.waiting.len() + self.travelling.len() >= PACKETS_MAX {
            self.counts.overflowed += 1;
            return;
        }
        if self.waiting.is_empty() {
            self.leaves = now + self.conditions.time(size);
        }
        self.waiting.push_back((size, packet));
        self.advance(now);
    }

    /// The next packet that has arrived by now.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<T> {
        self.advance(now);
        if self.travelling.front().is_none_or(|(arrives, ..)| *arrives > now) {
            return None;
        }
        let (_, size, packet) = self.travelling.pop_front()?;
        self.counts.passed += 1;
        self.counts.bytes += size as u64;
        Some(packet)
    }

    /// When to [`pop`](Self::pop) again at the latest; None when nothing is in it.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let leaves = self.waiting.front().map(|_| self.leaves);
        let arrives = self.travelling.front().map(|(arrives, ..)| *arrives);
        [leaves, arrives].into_iter().flatten().min()
    }

    /// Lets packets leave that had their time on the link.
    fn advance(&mut self, now: Timestamp) {
        while !self.waiting.is_empty() && self.leaves <= now {
            let left = self.leaves;
            let (size, packet) = self.waiting.pop_front().expect("just seen");
            let jitter = self.conditions.jitter.mul_f64(self.chance());
            let overtaken = self.travelling.back().map_or(left, |(arrives, ..)| *arrives);
            self.travelling.push_back(((left + self.conditions.delay + jitter).max(overtaken), size, packet));
            if let Some((size, _)) = self.waiting.front() {
                self.leaves = left + self.conditions.time(*size);
            }
        }
    }

    /// A number from 0 up to 1.
    fn chance(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Conditions {
    /// How long so many bytes take on the link.
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

    /// Takes everything out at the times it says; gives the packets with their microseconds.
    fn drain(way: &mut Way<usize>) -> Vec<(u64, usize)> {
        let mut out = Vec::new();
        while let Some(next) = way.next() {
            while let Some(packet) = way.pop(next) {
                out.push((next.since(at(0)).as_micros() as u64, packet));
            }
        }
        out
    }

    #[test]
    fn a_link_sends_one_after_the_other_and_then_they_travel() {
        let conditions = Conditions { kbps: Some(1_000), delay: ms(50), ..Conditions::default() };
        let mut way = Way::new(conditions, 1);
        for packet in 0..3 {
            way.push(at(0), 1_222, packet);
        }
        assert_eq!(drain(&mut way), [(60_000, 0), (70_000, 1), (80_000, 2)]);
        assert_eq!(way.counts(), Counts { passed: 3, bytes: 3_750, ..Counts::default() });
    }

    #[test]
    fn what_would_wait_too_long_is_dropped_at_the_tail() {
        let conditions = Conditions { kbps: Some(1_000), queue: ms(25), delay: ms(0), ..Conditions::default() };
        let mut way = Way::new(conditions, 1);
        for packet in 0..9 {
            way.push(at(0), 1_222, packet);
        }
        assert_eq!(drain(&mut way), [(10_000, 0), (20_000, 1), (30_000, 2)]);
        assert_eq!(way.counts().overflowed, 6);
    }

    #[test]
    fn a_changed_rate_holds_for_what_waits() {
        let conditions = Conditions { kbps: Some(1_000), delay: ms(0), ..Conditions::default() };
        let mut way = Way::new(conditions, 1);
        way.push(at(0), 1_222, 0);
        way.push(at(0), 1_222, 1);
        way.set(at(5_000), Conditions { kbps: Some(100), ..conditions });
        assert_eq!(drain(&mut way), [(55_000, 0), (155_000, 1)], "half of the first, ten times slower");
    }

    proptest! {
        /// Whatever goes in: what comes out is in order, no faster than the link, no later than queue and way allow, and
        /// every packet is counted once.
        #[test]
        fn nothing_is_faster_than_the_link_or_forgotten(
            kbps in 50_u32..5_000,
            delay in 0_u64..200,
            jitter in 0_u64..30,
            loss in 0.0..0.3,
            seed in any::<u64>(),
            packets in prop::collection::vec((0_u64..30_000, 20_usize..1_300), 1..300),
        ) {
            let conditions =
                Conditions { kbps: Some(kbps), queue: ms(200), delay: ms(delay), jitter: ms(jitter), loss };
            let mut way = Way::new(conditions, seed);
            let (mut now, mut out, mut sent) = (0, Vec::new(), Vec::new());
            for (n, (wait, size)) in packets.iter().enumerate() {
                now += wait;
                while let Some(next) = way.next().filter(|next| *next <= at(now)) {
                    out.extend(std::iter::from_fn(|| way.pop(next)).map(|packet| (next.since(at(0)), packet)));
                }
                way.push(at(now), *size, n);
                sent.push(now);
            }
            out.extend(drain(&mut way).into_iter().map(|(micros, packet)| (Duration::from_micros(micros), packet)));
            let counts = way.counts();
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
        fn as_many_are_lost_as_was_said(loss in 0.0..0.5, seed in any::<u64>()) {
            let mut way = Way::new(Conditions { loss, ..Conditions::default() }, seed);
            for packet in 0..4_000 {
                way.push(at(packet as u64 * 1_000), 100, packet);
                while way.pop(at(packet as u64 * 1_000)).is_some() {}
            }
            let lost = way.counts().lost as f64 / 4_000.0;
            prop_assert!((lost - loss).abs() < 0.05, "{} of {}", lost, loss);
        }

        #[test]
        fn the_same_seed_loses_the_same(seed in any::<u64>()) {
            let run = || {
                let mut way = Way::new(Conditions { loss: 0.1, jitter: ms(20), ..Conditions::default() }, seed);
                (0..200).for_each(|packet| way.push(at(packet as u64 * 1_000), 100, packet));
                drain(&mut way)
            };
            prop_assert_eq!(run(), run());
        }
    }
}
