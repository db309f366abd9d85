//! Pacing of video, so that its bursts do not delay audio behind them.
//!
//! Owns: a token bucket, which audio and retransmissions use as well although audio is never held; the effect of a
//! queue on the path. Does not know: packets, timers. Time is an argument.

use std::time::Duration;

use crate::time::Timestamp;

/// Rate while the capacity is not known, in bits per second: a keyframe of the best tier within a tenth of a second.
const RATE: u64 = 10_000_000;
/// Lowest rate in bits per second, audio included: a path of less capacity shows by its queue, and a wrong measurement
/// must be correctable.
const RATE_MIN: u64 = 80_000;
/// Used part of the measured capacity. (A queue holds video in addition, see [`QUEUE`].)
const USED: f64 = 0.98;
/// Longest transmission time of a burst, which is the longest delay of audio behind it.
const BURST: Duration = Duration::from_millis(30);
/// Largest burst in bytes: a pair of packets, whose spacing shows the capacity, and a frame of a small stream.
const BURST_BYTES: f64 = 3_000.0;
/// Queueing delay on the path at which the pacer holds video, where audio overtakes it, unless one packet explains it
/// (see [`PACKET`]); and the longest hold for one report.
const QUEUE: Duration = Duration::from_millis(50);
/// See [`QUEUE`].
const HOLD_MAX: Duration = Duration::from_millis(400);
/// Bits of a large packet. On a path of low capacity it takes longer than [`QUEUE`], and the next packet finds a queue
/// which has drained before it is reported. Holding video for that left the path unused for a fifth of the time.
const PACKET: f64 = 1_250.0 * 8.0;
/// Retransmissions may exceed the budget by the rate over this time.
const REPAIRS: Duration = Duration::from_millis(100);
/// Bytes added to a packet's payload: IP, UDP, RTP with its extensions, SRTP.
const AROUND: f64 = 64.0;

/// Paces one subscriber's video.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: f64,
    /// Bytes that may be sent at once; negative after a burst.
    budget: f64,
    filled: Timestamp,
    /// A burst has begun and the budget is not used up.
    open: bool,
    held: Timestamp,
    queue: Duration,
}

impl Pacer {
    /// A pacer for a path of unknown capacity.
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

    /// Adapts to the capacity of the path in bits per second, where it is known, and to its queueing delay.
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

    /// Sends no video before this time.
    pub fn hold_until(&mut self, until: Timestamp) {
        self.held = self.held.max(until);
    }

    /// How long to wait before the next video packet; None to send it now.
    pub fn wait(&mut self, now: Timestamp) -> Option<Duration> {
        if self.held > now {
            return Some(self.held.since(now));
        }
        self.fill(now);
        // Waits for the budget of a whole burst, so that its packets leave together.
        let missing = self.burst() - self.budget;
        self.open |= missing <= 0.0;
        (!self.open).then(|| Duration::from_secs_f64(missing / self.bytes_per_second).max(Duration::from_micros(1)))
    }

    /// How long to wait before a retransmission; None to send it now. Retransmissions precede new video within a limit.
    pub fn wait_for_repair(&mut self, now: Timestamp) -> Option<Duration> {
        if self.held > now {
            return Some(self.held.since(now));
        }
        self.fill(now);
        let missing = -self.budget - self.bytes_per_second * REPAIRS.as_secs_f64();
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / self.bytes_per_second).max(Duration::from_micros(1)))
    }

    /// The latest queueing delay on the path.
    pub fn queue(&self) -> Duration {
        self.queue
    }

    /// A video packet with this many bytes of payload is sent.
    pub fn sent(&mut self, payload: usize) {
        self.budget -= payload as f64 + AROUND;
        self.open &= self.budget >= 0.0;
    }

    /// An audio packet is sent. If video is due soon it may follow at once: the pair shows the capacity.
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
        fn the_average_rate_is_kept(
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
            // The last burst, packet and audio are paid for afterwards.
            let slack = (BURST_BYTES + 1_400.0 + 20.0 * 200.0) / rate + 0.001 * sizes.len() as f64 / 10.0;
            prop_assert!((took - bytes / rate).abs() <= slack, "{} s for {} s", took, bytes / rate);
        }
    }

    #[test]
    fn a_burst_on_a_slow_path_is_one_packet() {
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
    fn retransmissions_precede_video_within_a_limit() {
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
    fn video_that_is_due_soon_follows_audio() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(100_000), Duration::ZERO, now);
        assert_eq!(pacer.wait(now), None);
        pacer.sent(1_136);
        // 1200 bytes minus a budget of 367 are refilled at 12250 per second after 68 ms; a burst more after 98 ms.
        let soon = now + Duration::from_millis(80);
        assert!(pacer.wait(soon).is_some());
        pacer.sound(60, soon);
        assert_eq!(pacer.wait(soon), None);
    }

    #[test]
    fn the_transmission_time_of_one_packet_is_no_queue() {
        let now = Timestamp::from_micros(0);
        let mut pacer = Pacer::new(now);
        pacer.follow(Some(80_000), Duration::from_millis(120), now);
        assert_eq!(pacer.wait(now), None);
        pacer.follow(Some(80_000), Duration::from_millis(130), now);
        assert_eq!(pacer.wait(now), Some(Duration::from_millis(130)));
    }

    #[test]
    fn a_queue_on_the_path_holds_video() {
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
