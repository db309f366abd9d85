//! Selection of the tier that a link carries.
//!
//! Owns: [`Chooser`], one for each subscriber whose tier is `auto`. Does not know: where receptions come from, how
//! streams are switched. In: [`Reception`]; out: [`Choice`]. It begins with the best tier, whose first keyframe
//! measures the link. When packets are lost or queue up it steps down to the tier that fits. It steps up when bursts
//! arrive fast enough for a better tier or, where arrival times are not known, by trying. After each failed try it
//! waits longer.

use std::time::Duration;

use serde::Serialize;

use crate::media::Tier;
use crate::time::Timestamp;

/// Share of lost packets that is congestion if it persists, and that is congestion at once.
const LOST_MILD: f32 = 0.10;
/// See [`LOST_MILD`].
const LOST_SEVERE: f32 = 0.25;
/// Queueing delay that is congestion if it persists, and that is congestion at once.
const QUEUE_MILD: Duration = Duration::from_millis(150);
/// See [`QUEUE_MILD`].
const QUEUE_SEVERE: Duration = Duration::from_millis(350);
/// Age of queued video that is congestion if the link's capacity is known to be below the tier's bitrate, and that is
/// congestion in any case. A slide may take longer to send than the time to the next one.
const BACKLOG_MILD: Duration = Duration::from_millis(250);
/// See [`BACKLOG_MILD`].
const BACKLOG_SEVERE: Duration = Duration::from_millis(1_500);
/// See [`BACKLOG_MILD`].
const BACKLOG_SLIDES: Duration = Duration::from_secs(4);
/// Duration after which mild congestion counts.
const PATIENCE: Duration = Duration::from_millis(700);
/// The same where the link's capacity is known to be below the tier's bitrate.
const PATIENCE_SHORT: Duration = Duration::from_millis(250);
/// Time after a change in which reports may still be about packets of the previous tier.
const SETTLE: Duration = Duration::from_millis(1_200);
/// Capacity that a better tier needs, relative to its bitrate.
const HEADROOM: f64 = 1.2;
/// A receiver whose estimate is below this part of the tier's bitrate is congested.
const ESTIMATE_LOW: f64 = 0.7;
/// Shortest and longest time without congestion before a better tier.
const WAIT_MIN: Duration = Duration::from_secs(3);
/// See [`WAIT_MIN`].
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A capacity that has grown by this factor since a failed try permits another one at once.
const IMPROVED: f64 = 1.5;
/// A better tier that has lasted this long was no failed try.
const PROVEN: Duration = Duration::from_secs(10);

/// How packets arrive at a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reception {
    /// Share of packets lost, 0 to 1.
    pub lost: f32,
    /// Queueing delay on the path, where it is known.
    pub queue: Option<Duration>,
    /// Queueing delay of the latest packets alone, which may be jitter.
    pub queue_now: Option<Duration>,
    /// Age of the oldest video packet that the pacer holds.
    pub backlog: Duration,
    /// Received bitrate in bits per second, where it is known.
    pub delivered: Option<u64>,
    /// Capacity of the path in bits per second, where it is known.
    pub capacity: Option<u64>,
    /// The receiver's own estimate (REMB) in bits per second, where there is one. It indicates congestion, but not
    /// whether the path could carry more than the receiver gets.
    pub estimate: Option<u64>,
}

/// The bitrate of each tier on the wire in bits per second, audio included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// The tier `audio`.
    pub audio: u64,
    /// The tier `slides`.
    pub slides: u64,
    /// The tier `low`.
    pub low: u64,
    /// The tier `medium`.
    pub medium: u64,
    /// The tier `high`.
    pub high: u64,
}

impl Costs {
    /// The bitrate of a tier.
    pub const fn of(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Audio => self.audio,
            Tier::Slides => self.slides,
            Tier::Low => self.low,
            Tier::Medium => self.medium,
            Tier::High => self.high,
        }
    }

    /// The best tier that fits; `audio` if none does.
    fn fitting(&self, bits_per_second: u64) -> Tier {
        Tier::ALL.into_iter().rev().find(|tier| self.of(*tier) <= bits_per_second).unwrap_or(Tier::Audio)
    }
}

/// Why a subscriber gets no better tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Packets were lost.
    Loss,
    /// Packets queued up on the path or in the pacer.
    Delay,
    /// The receiver's estimate is below the tier's bitrate.
    Receiver,
}

/// A change of tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The new tier.
    pub tier: Tier,
    /// How long to send no video, so that the queue on the path can drain and does not delay audio.
    pub pause: Duration,
}

/// Selects the tier of one subscriber.
#[derive(Debug, Clone)]
pub struct Chooser {
    costs: Costs,
    tier: Tier,
    /// Until then reports may be about the previous tier.
    settles: Timestamp,
    /// Beginning of the present congestion.
    congested: Option<Timestamp>,
    /// Until then no better tier is tried.
    rests: Timestamp,
    wait: Duration,
    /// Time of the latest step up, until it is proven.
    tried: Option<Timestamp>,
    /// Capacity at the beginning of the latest failed try.
    failed: Option<u64>,
    /// Capacity at the beginning of the latest try.
    try_capacity: Option<u64>,
    limit: Option<Limit>,
}

impl Chooser {
    /// Begins with the best tier.
    pub const fn new(costs: Costs, now: Timestamp) -> Self {
        Self {
            costs,
            tier: Tier::High,
            settles: now,
            congested: None,
            rests: now,
            wait: WAIT_MIN,
            tried: None,
            failed: None,
            try_capacity: None,
            limit: None,
        }
    }

    /// The selected tier.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Why the tier is not the best one; None if it is.
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Takes in a reception; returns a change of tier, if there is one.
    pub fn report(&mut self, now: Timestamp, reception: &Reception) -> Option<Choice> {
        if self.tried.is_some_and(|tried| now.since(tried) > PROVEN) {
            self.tried = None;
            self.failed = None;
            self.wait = WAIT_MIN;
        }
        let severe = self.is_severe(reception);
        if severe || self.is_mild(reception) {
            let since = *self.congested.get_or_insert(now);
            let patience = if self.is_too_much(reception) { PATIENCE_SHORT } else { PATIENCE };
            if now >= self.settles && (severe || now.since(since) >= patience) {
                return self.step_down(now, reception);
            }
            return None;
        }
        if self.congested.take().is_some() {
            self.rests = self.rests.max(now + self.wait);
        }
        (now >= self.rests || self.is_improved(now, reception)).then(|| self.step_up(now, reception))?
    }

    /// Whether the capacity is sufficient for the present tier: then losses have other causes than congestion.
    fn has_room(&self, reception: &Reception) -> bool {
        let room = |capacity: u64| capacity as f64 >= self.costs.of(self.tier) as f64 * HEADROOM;
        reception.capacity.is_some_and(room) && reception.queue.is_some_and(|queue| queue < QUEUE_MILD)
    }

    /// Whether the capacity is much higher than at the latest failed try.
    fn is_improved(&self, now: Timestamp, reception: &Reception) -> bool {
        let improved = |(now, then): (u64, u64)| now as f64 > then as f64 * IMPROVED;
        now >= self.settles + SETTLE && reception.capacity.zip(self.failed).is_some_and(improved)
    }

    fn is_severe(&self, reception: &Reception) -> bool {
        let lost = if self.has_room(reception) { 0.5 } else { LOST_SEVERE };
        reception.lost >= lost
            || reception.queue.is_some_and(|queue| queue >= QUEUE_SEVERE)
            || reception.backlog >= if self.tier == Tier::Slides { BACKLOG_SLIDES } else { BACKLOG_SEVERE }
    }

    fn is_mild(&self, reception: &Reception) -> bool {
        let lost = if self.has_room(reception) { LOST_SEVERE } else { LOST_MILD };
        let too_much = |estimate: u64| (estimate as f64) < self.costs.of(self.tier) as f64 * ESTIMATE_LOW;
        reception.lost >= lost
            || reception.queue.is_some_and(|queue| queue >= QUEUE_MILD)
            || self.is_too_much(reception)
            || reception.estimate.is_some_and(too_much)
    }

    /// Whether video is queued because the capacity is below the tier's bitrate.
    fn is_too_much(&self, reception: &Reception) -> bool {
        let too_little = |capacity: u64| capacity < self.costs.of(self.tier);
        reception.backlog >= BACKLOG_MILD && reception.capacity.is_some_and(too_little)
    }

    fn step_down(&mut self, now: Timestamp, reception: &Reception) -> Option<Choice> {
        let below = Tier::ALL.into_iter().rev().find(|tier| *tier < self.tier)?;
        let guess = (self.costs.of(self.tier) as f64 * f64::from(1.0 - reception.lost)) as u64;
        // While video is queued in the pacer, the received bitrate is below the capacity. A path with sufficient
        // capacity that loses packets all the same has a policer, which drops what exceeds some rate.
        let known = reception.capacity.filter(|capacity| *capacity < self.costs.of(self.tier));
        let carried = [known.or(reception.delivered).or(reception.capacity), reception.estimate];
        let carried = carried.into_iter().flatten().min().unwrap_or(guess);
        let tier = self.costs.fitting(carried).min(below);
        if self.tried.take().is_some() {
            self.wait = (self.wait * 2).min(WAIT_MAX);
            self.failed = self.try_capacity;
        }
        self.congested = None;
        self.change(now, tier);
        let queue = reception.queue.unwrap_or_default();
        // A long queue is also what loses packets.
        let longest = queue.max(reception.queue_now.unwrap_or_default());
        self.limit = Some(if longest >= QUEUE_MILD || reception.backlog >= BACKLOG_MILD {
            Limit::Delay
        } else if reception.lost >= LOST_MILD {
            Limit::Loss
        } else {
            Limit::Receiver
        });
        // Audio continues meanwhile and takes its share of the link.
        let share = self.costs.audio as f64 / (carried.max(self.costs.audio * 2) as f64);
        Some(Choice { tier, pause: queue.mul_f64(1.0 / (1.0 - share)).min(Duration::from_secs(2)) })
    }

    fn step_up(&mut self, now: Timestamp, reception: &Reception) -> Option<Choice> {
        let above = Tier::ALL.into_iter().find(|tier| *tier > self.tier)?;
        let tier = match reception.capacity {
            Some(capacity) => self.costs.fitting((capacity as f64 / HEADROOM) as u64),
            None => above,
        };
        if tier <= self.tier {
            return None;
        }
        self.tried = Some(now);
        self.try_capacity = reception.capacity;
        self.change(now, tier);
        if tier == Tier::High {
            self.limit = None;
        }
        Some(Choice { tier, pause: Duration::ZERO })
    }

    fn change(&mut self, now: Timestamp, tier: Tier) {
        self.tier = tier;
        self.settles = now + SETTLE;
        self.rests = now + self.wait;
    }
}
