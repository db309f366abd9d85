//! Which tier a link carries: receptions in, choices out.
//!
//! Owns: [`Chooser`], one per subscriber whose tier is `auto`. Does not know: where receptions come from, how a stream is
//! switched. It begins at the top, since its first keyframe measures the link at once; it goes down as soon as packets are
//! lost or queue up, straight to what fits; it goes up when bursts arrive fast enough for more, or, where nobody tells when packets
//! arrive, by trying. What was tried in vain is tried again later and later.

use std::time::Duration;

use serde::Serialize;

use crate::media::Tier;
use crate::time::Timestamp;

/// Losses that may be congestion, and those that must be.
const LOST_MILD: f32 = 0.10;
/// See [`LOST_MILD`].
const LOST_SEVERE: f32 = 0.25;
/// Queues on the way that are congestion when they stay, and those that must be dealt with at once.
const QUEUE_MILD: Duration = Duration::from_millis(150);
/// See [`QUEUE_MILD`].
const QUEUE_SEVERE: Duration = Duration::from_millis(350);
/// Video that has waited here so long, before it left, is more than the way carries if that is known to carry less; in any
/// case when it has waited for longer. A slide may take longer than the time to the next one.
const BACKLOG_MILD: Duration = Duration::from_millis(250);
/// See [`BACKLOG_MILD`].
const BACKLOG_SEVERE: Duration = Duration::from_millis(1_500);
/// See [`BACKLOG_MILD`].
const BACKLOG_SLIDES: Duration = Duration::from_secs(4);
/// Mild congestion that lasts so long counts.
const PATIENCE: Duration = Duration::from_millis(700);
/// So long where the way is known to carry less than the tier costs.
const PATIENCE_SHORT: Duration = Duration::from_millis(250);
/// After a change, what was on its way before is still reported.
const SETTLE: Duration = Duration::from_millis(1_200);
/// Capacity that a better tier needs, relative to its cost.
const HEADROOM: f64 = 1.2;
/// A receiver that estimates less than this part of what it is sent cannot take it.
const ESTIMATE_LOW: f64 = 0.7;
/// The shortest and longest time without congestion before a better tier.
const WAIT_MIN: Duration = Duration::from_secs(3);
/// See [`WAIT_MIN`].
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A link that carries so much more than when a try failed is another link: no need to wait.
const IMPROVED: f64 = 1.5;
/// A better tier that lasted so long was no mistake.
const PROVEN: Duration = Duration::from_secs(10);

/// How a receiver gets what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reception {
    /// Share of packets lost, 0 to 1.
    pub lost: f32,
    /// How much longer than at best packets take, where that is known.
    pub queue: Option<Duration>,
    /// The same for those packets alone that were told of last; it may be chance.
    pub queue_now: Option<Duration>,
    /// How long video waits here before it leaves, since the way would carry no more.
    pub backlog: Duration,
    /// Bits per second that arrive, where that is known.
    pub delivered: Option<u64>,
    /// Bits per second that the way carries, where that is known.
    pub capacity: Option<u64>,
    /// What the receiver thinks that it can receive, in bits per second, where it says so. It knows no more than what it
    /// gets, so it says when there is too much, not when there could be more.
    pub estimate: Option<u64>,
}

/// Bits per second on the wire that each tier costs, its sound included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Sound alone.
    pub audio: u64,
    /// Sound and slides.
    pub slides: u64,
    /// And so on.
    pub low: u64,
    /// And so on.
    pub medium: u64,
    /// And so on.
    pub high: u64,
}

impl Costs {
    /// What this tier costs.
    pub const fn of(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Audio => self.audio,
            Tier::Slides => self.slides,
            Tier::Low => self.low,
            Tier::Medium => self.medium,
            Tier::High => self.high,
        }
    }

    /// The best tier that fits, `audio` if none does.
    fn fitting(&self, bits_per_second: u64) -> Tier {
        Tier::ALL.into_iter().rev().find(|tier| self.of(*tier) <= bits_per_second).unwrap_or(Tier::Audio)
    }
}

/// Why a link gets no better tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Packets were lost.
    Loss,
    /// Packets queued up on the way, or left slower than they came.
    Delay,
    /// The receiver said that it cannot take more.
    Receiver,
}

/// A new tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The tier.
    pub tier: Tier,
    /// How long to send no pictures, so that what waits on the way can drain: nobody would speak through it in time.
    pub pause: Duration,
}

/// Chooses the tier of one subscriber.
#[derive(Debug, Clone)]
pub struct Chooser {
    costs: Costs,
    tier: Tier,
    /// Until when reports still tell of the tier before.
    settles: Timestamp,
    /// When the present congestion began.
    congested: Option<Timestamp>,
    /// Until when nothing better is tried.
    rests: Timestamp,
    wait: Duration,
    /// When it last stepped up, while that is not proven.
    tried: Option<Timestamp>,
    /// The capacity with which the last try began that failed.
    failed: Option<u64>,
    /// The capacity with which the last try began.
    try_capacity: Option<u64>,
    limit: Option<Limit>,
}

impl Chooser {
    /// Begins at the best tier.
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

    /// The present tier.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Why the tier is not the best one; None where it is.
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Takes in how things arrive; gives a new tier, if that is better.
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

    /// Whether the link lacks nothing for the present tier: then packets are lost for other reasons than their number.
    fn has_room(&self, reception: &Reception) -> bool {
        let room = |capacity: u64| capacity as f64 >= self.costs.of(self.tier) as f64 * HEADROOM;
        reception.capacity.is_some_and(room) && reception.queue.is_some_and(|queue| queue < QUEUE_MILD)
    }

    /// Whether the link is much better than when a better tier was tried in vain.
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

    /// Whether video waits here because the way carries less than the tier costs.
    fn is_too_much(&self, reception: &Reception) -> bool {
        let too_little = |capacity: u64| capacity < self.costs.of(self.tier);
        reception.backlog >= BACKLOG_MILD && reception.capacity.is_some_and(too_little)
    }

    fn step_down(&mut self, now: Timestamp, reception: &Reception) -> Option<Choice> {
        let below = Tier::ALL.into_iter().rev().find(|tier| *tier < self.tier)?;
        let guess = (self.costs.of(self.tier) as f64 * f64::from(1.0 - reception.lost)) as u64;
        // Where video waits here, what is delivered is less than the way carries. A way that carries enough and loses
        // packets all the same has somebody on it who throws away what is above some rate.
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
        self.limit = Some(if queue >= QUEUE_MILD || reception.backlog >= BACKLOG_MILD {
            Limit::Delay
        } else if reception.lost >= LOST_MILD {
            Limit::Loss
        } else {
            Limit::Receiver
        });
        // Sound goes on meanwhile and takes its share of the link.
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
