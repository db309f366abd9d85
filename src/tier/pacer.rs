//! How fast video leaves: bursts of it must not make the voice behind them wait.
//!
//! Owns: a token bucket that sound and repairs draw from too, though sound is never held; and what a queue on the way
//! means for it. Does not know: packets, timers. Time is an argument.

use std::time::Duration;

use crate::time::Timestamp;

/// How fast video leaves while nobody knows better, in bits per second: a keyframe of the best tier within a tenth of a
/// second.
const RATE: u64 = 10_000_000;
/// What leaves is never paced slower, sound included, in bits per second: a thinner way is known by its queue, and a wrong
/// measurement must be able to be corrected.
const RATE_MIN: u64 = 80_000;
/// The part of what the way carries that is used: measurements err by so much. (A queue is waited for, see [`QUEUE`].)
const USED: f64 = 0.98;
/// What may leave at once takes the way so long: the voice behind it waits no longer.
const BURST: Duration = Duration::from_millis(30);
/// And no more than that: a pair of packets, whose spacing at the other end tells what the way carries, and a frame of a
/// small stream.
const BURST_BYTES: f64 = 3_000.0;
/// A queue on the way that video waits for, here, where sound overtakes it, unless it is that of one packet (see [`PACKET`]); and
/// how long it waits at most until it is told again.
const QUEUE: Duration = Duration::from_millis(50);
/// See [`QUEUE`].
const HOLD_MAX: Duration = Duration::from_millis(400);
/// Bits of a large packet. On a thin way it takes longer than [`QUEUE`], and whatever is behind it finds a queue: one that has
/// gone before it is told of. Who waited for that left the way empty a fifth of the time.
const PACKET: f64 = 1_250.0 * 8.0;
/// Repairs may take what new video would get in so long a time.
const REPAIRS: Duration = Duration::from_millis(100);
/// Bytes around a packet's payload: IP, UDP, RTP with its extensions, SRTP.
const AROUND: f64 = 64.0;

/// Paces one subscriber's video.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: f64,
    /// Bytes that may leave at once; negative after a burst.
    budget: f64,
    filled: Timestamp,
    /// A burst has begun that the budget allowed.
    open: bool,
    held: Timestamp,
    queue: Duration,
}

impl Pacer {
    /// A pacer for a way of which nothing is known yet.
    pub fn new(now: Timestamp) -> Self {
        Self {
            bytes_per_second: RATE as f64 / 8.0,
            budget: BURST_BYTES,
            filled: now,
            open: true,
            held: now,
            queue: Duration::ZERO,
        }
    }

    /// Follows what the way carries, in bits per second where that is known, and the queue on it.
    pub fn follow(&mut self, capacity: Option<u64>, queue: Duration, now: Timestamp) {
        self.fill(now);
        let rate = capacity.map_or(RATE as f64, |capacity| (capacity as f64 * USED).max(RATE_MIN as f64));
        self.bytes_per_second = rate / 8.0;
        self.queue = queue;
        let packet =
            capacity.map_or(Duration::ZERO, |capacity| Duration::from_secs_f64(PACKET / capacity.max(RATE_MIN) as f64));
        if queue >= QUEUE.max(packet) {
            self.hold_until(now + queue.min(HOLD_MAX));
        }
    }

    /// No video before this time.
    pub fn hold_until(&mut self, until: Timestamp) {
        self.held = self.held.max(until);
    }

    /// How long to wait before the next packet of video may leave; None for not at all.
    pub fn wait(&mut self, now: Timestamp) -> Option<Duration> {
        if self.held > now {
            return Some(self.held.since(now));
        }
        self.fill(now);
        // A whole burst at a time, so that its packets leave together.
        let missing = self.burst() - self.budget;
        self.open |= missing <= 0.0;
        (!self.open).then(|| Duration::from_secs_f64(missing / self.bytes_per_second).max(Duration::from_micros(1)))
    }

    /// How long to wait before a packet may be sent again: repairs go ahead of new video, but only so far.
    pub fn wait_for_repair(&mut self, now: Timestamp) -> Option<Duration> {
        if self.held > now {
            return Some(self.held.since(now));
        }
        self.fill(now);
        let missing = -self.budget - self.bytes_per_second * REPAIRS.as_secs_f64();
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / self.bytes_per_second).max(Duration::from_micros(1)))
    }

    /// The queue on the way, as it was last told.
    pub fn queue(&self) -> Duration {
        self.queue
    }

    /// A packet of video with so many bytes of payload leaves.
    pub fn sent(&mut self, payload: usize) {
        self.budget -= payload as f64 + AROUND;
        self.open &= self.budget >= 0.0;
    }

    /// A packet of sound leaves. Video that is to leave soon leaves right behind it: the two tell what the way carries.
    pub fn sound(&mut self, payload: usize, now: Timestamp) {
        self.fill(now);
        let soon = self.budget >= 0.0;
        self.sent(payload);
        self.open |= soon;
    }

    fn burst(&self) -> f64 {
        (self.bytes_per_second * BURST.as_secs_f64()).min(BURST_BYTES)
    }

    fn fill(&mut self, now: Timestamp) {
        let since = now.since(self.filled).as_secs_f64();
        self.filled = now;
        self.budget = (self.budget + since * self.bytes_per_second).min(self.burst());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn over_a_while_it_keeps_its_rate(
            kbps in 90_u64..8_000,
            sizes in prop::collection::vec((50..1_300_usize, any::<bool>()), 100..400),
        ) {
            let mut now = Timestamp::from_micros(1);
            let mut pacer = Pacer::new(now);
            pacer.follow(Some(kbps * 1_000), Duration::ZERO, now);
            for (size, sound) in &sizes {
                if *sound {
                    pacer.sound(*size / 10, now);
                    continue;
                }
                while let Some(wait) = pacer.wait(now) {
                    prop_assert!(wait > Duration::ZERO);
                    now = now + wait;
                }
                pacer.sent(*size);
            }
            let rate = kbps as f64 * 1_000.0 * USED / 8.0;
            let bytes: f64 = sizes.iter().map(|(size, sound)| (if *sound { size / 10 } else { *size }) as f64 + AROUND).sum();
            let took = now.as_micros() as f64 / 1e6;
            // What leaves at the end is paid for afterwards: a burst, a packet, and the sound behind them.
            let slack = (BURST_BYTES + 1_400.0 + 20.0 * 200.0) / rate + 0.001 * sizes.len() as f64 / 10.0;
            prop_assert!((took - bytes / rate).abs() <= slack, "{} s for {} s", took, bytes / rate);
        }
    }

    #[test]
    fn a_burst_takes_a_thin_way_no_longer_than_one_packet_does() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(100_000), Duration::ZERO, now);
        assert_eq!(pacer.wait(now), None);
        pacer.sent(1_100);
        assert!(pacer.wait(now).is_some());
        pacer.follow(Some(2_000_000), Duration::ZERO, now);
        let later = now + Duration::from_secs(1);
        assert_eq!(pacer.wait(later), None);
        pacer.sent(1_100);
        assert_eq!(pacer.wait(later), None, "a pair");
    }

    #[test]
    fn repairs_go_ahead_but_only_so_far() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(1_000_000), Duration::ZERO, now);
        let mut repairs = 0;
        while pacer.wait_for_repair(now).is_none() {
            pacer.sent(1_136);
            repairs += 1;
        }
        // A burst of 3000 bytes and a tenth of a second, 12250 bytes.
        assert_eq!(repairs, 13);
        assert!(pacer.wait(now).is_some());
        assert_eq!(pacer.wait_for_repair(now + Duration::from_millis(60)), None);
    }

    #[test]
    fn video_leaves_behind_sound() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(100_000), Duration::ZERO, now);
        assert_eq!(pacer.wait(now), None);
        pacer.sent(1_136);
        // 1200 bytes less what there was, 367: they are there again, at 12250 a second, after 68 ms; a burst more after 98.
        let soon = now + Duration::from_millis(80);
        assert!(pacer.wait(soon).is_some());
        pacer.sound(60, soon);
        assert_eq!(pacer.wait(soon), None);
    }

    #[test]
    fn what_one_packet_takes_on_a_thin_way_is_no_queue() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(80_000), Duration::from_millis(120), now);
        assert_eq!(pacer.wait(now), None);
        pacer.follow(Some(80_000), Duration::from_millis(130), now);
        assert_eq!(pacer.wait(now), Some(Duration::from_millis(130)));
    }

    #[test]
    fn a_queue_on_the_way_holds_video_and_nothing_else_does() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(1_000_000), Duration::from_millis(40), now);
        assert_eq!(pacer.wait(now), None);
        pacer.follow(Some(1_000_000), Duration::from_millis(120), now);
        assert_eq!(pacer.wait(now), Some(Duration::from_millis(120)));
        pacer.hold_until(now + Duration::from_millis(60));
        assert_eq!(pacer.wait(now), Some(Duration::from_millis(120)), "the longer one counts");
        assert_eq!(pacer.wait(now + Duration::from_millis(120)), None);
        pacer.follow(Some(1_000_000), Duration::from_secs(9), now);
        assert_eq!(pacer.wait(now), Some(HOLD_MAX));
    }
}
