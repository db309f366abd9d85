//! The jitter buffer for audio: adaptive playout of one source.
//!
//! Owns: the packets, the target delay, the playout position. Does not know: samples. In: packets. Out: [`AudioPull`],
//! pulled by the mixer whenever the source has less than a tick of samples.
//!
//! Rules
//! 1. Playout begins when the buffer holds the target delay.
//! 2. A packet that is missing while later ones are held is lost and concealed. If the buffer holds less than the
//!    target, the packet is concealed too, but played if it comes.
//! 3. An empty buffer is concealed for at most 100 ms. Packets that come then are played later, so that the delay
//!    grows.
//! 4. The delay shrinks by dropping a packet, preferably a quiet one.
//! 5. A delay that is added for lip synchronization grows by concealing a packet, preferably a quiet one, that is
//!    played afterwards.
//! 6. Playout never waits for a lost packet: browsers do not retransmit audio.

use std::collections::BTreeMap;
use std::time::Duration;

use super::delay::DelayEstimate;
use super::{Number, Numbers};
use crate::media::SourcePacket;
use crate::time::Timestamp;

/// Duration of a packet until it was measured.
const PACKET: Duration = Duration::from_millis(20);
/// Shortest and longest Opus packet (RFC 6716 sections 2.1.4 and 3.2.5).
const PACKET_MIN: Duration = Duration::from_micros(2_500);
const PACKET_MAX: Duration = Duration::from_millis(120);
/// Longest concealment in a row.
const CONCEAL_MAX: Duration = Duration::from_millis(100);
/// Most audio in the buffer.
const HELD_MAX: Duration = Duration::from_secs(1);
/// Largest delay that is added to the target.
const EXTRA_MAX: Duration = Duration::from_millis(400);
/// Time below the target with an added delay after which a concealment is inserted: before a quiet packet, before any.
const GROW_QUIET_AFTER: Duration = Duration::from_millis(200);
/// See [`GROW_QUIET_AFTER`].
const GROW_AFTER: Duration = Duration::from_secs(1);
/// Time above the target after which a quiet packet is dropped; after twice as long any packet is.
const SHED_AFTER: Duration = Duration::from_secs(1);
/// The same if the buffer holds [`FAR`] more than the target.
const SHED_FAST: Duration = Duration::from_millis(200);
/// See [`SHED_FAST`].
const FAR: Duration = Duration::from_millis(120);
/// A packet with a level (RFC 6464) of this many -dBov or more is quiet.
const QUIET: u8 = 50;

/// The result of [`AudioJitter::pull`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioPull {
    /// Decode this packet.
    Packet(SourcePacket),
    /// One packet is missing: conceal one packet's duration.
    Lost {
        /// The packet after the missing one, if it is held: it may contain FEC for the missing one. The next pull
        /// returns it.
        next: Option<SourcePacket>,
    },
    /// The sender is silent or absent, or the buffer is being filled: nothing is to be concealed.
    Idle,
}

/// Counters of an [`AudioJitter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AudioStats {
    /// Packets inserted.
    pub received: u64,
    /// Duplicate packets.
    pub duplicate: u64,
    /// Packets that came after they were concealed, and stray packets.
    pub late: u64,
    /// Packets that did not come in time.
    pub lost: u64,
    /// Packets played.
    pub played: u64,
    /// Packets concealed, lost or late.
    pub concealed: u64,
    /// Packets dropped to shorten the delay.
    pub shed: u64,
    /// Concealments inserted to lengthen the delay.
    pub inserted: u64,
    /// Packets dropped because the buffer was full.
    pub overflow: u64,
}

#[derive(Debug)]
struct Held {
    packet: SourcePacket,
    inserted: Timestamp,
}

/// The jitter buffer of one audio source.
#[derive(Debug)]
pub struct AudioJitter {
    clock_rate: u32,
    numbers: Numbers,
    packets: BTreeMap<i64, Held>,
    estimate: DelayEstimate,
    /// See [`AudioJitter::set_extra`].
    extra: Duration,
    /// Duration of one packet; the candidate is a difference of timestamps that was seen once.
    packet: Duration,
    packet_candidate: Duration,
    newest: Option<(i64, u32)>,
    /// The number of the next packet. None before the first.
    next: Option<i64>,
    /// The RTP timestamp of the playout position, including concealed time.
    head: u32,
    playing: bool,
    concealed: Duration,
    /// Since when the buffer held more than the target at every pull.
    above_since: Option<Timestamp>,
    /// Since when it held at least a packet less than the target with an added delay.
    below_since: Option<Timestamp>,
    stats: AudioStats,
}

impl AudioJitter {
    /// An empty buffer for a codec with this RTP clock rate in Hz: 48000 for Opus, 8000 for G.711.
    pub fn new(clock_rate: u32) -> Self {
        assert!(clock_rate > 0, "an RTP clock runs");
        Self {
            clock_rate,
            numbers: Numbers::default(),
            packets: BTreeMap::new(),
            estimate: DelayEstimate::new(clock_rate),
            extra: Duration::ZERO,
            packet: PACKET,
            packet_candidate: PACKET,
            newest: None,
            next: None,
            head: 0,
            playing: false,
            concealed: Duration::ZERO,
            above_since: None,
            below_since: None,
            stats: AudioStats::default(),
        }
    }

    /// The counters.
    pub fn stats(&self) -> AudioStats {
        self.stats
    }

    /// The target delay: 20 to 400 ms, and what was added.
    pub fn target(&self) -> Duration {
        self.estimate.target(self.packet) + self.extra
    }

    /// Adds a delay, at most 400 ms, to the target.
    pub fn set_extra(&mut self, extra: Duration) {
        self.extra = extra.min(EXTRA_MAX);
    }

    /// Whether the delay follows the target closely enough that neither a packet is about to be dropped nor a
    /// concealment to be inserted.
    pub fn is_settled(&self) -> bool {
        self.above_since.is_none() && self.below_since.is_none()
    }

    /// The present delay, at most 1 s.
    pub fn held(&self) -> Duration {
        self.packet * self.packets.len() as u32
    }

    /// Whether it returns [`AudioPull::Idle`] until the next packet.
    pub fn is_idle(&self) -> bool {
        !self.playing && self.packets.is_empty()
    }

    /// Inserts a packet that was read from the link at `now`. Jitter is measured by `packet.arrival`.
    pub fn insert(&mut self, packet: SourcePacket, now: Timestamp) {
        self.stats.received += 1;
        let number = match self.numbers.take(packet.sequence) {
            Number::Known(number) => number,
            Number::Stray => {
                self.stats.late += 1;
                return;
            }
            Number::Restart(number) => {
                self.restart();
                number
            }
        };
        if self.next.is_some_and(|next| number < next) {
            self.stats.late += 1;
            // A late packet still counts as a measurement: the target grows.
            self.estimate.measure(packet.timestamp, packet.arrival);
            return;
        }
        if self.packets.contains_key(&number) {
            self.stats.duplicate += 1;
            return;
        }
        self.estimate.measure(packet.timestamp, packet.arrival);
        self.learn_duration(number, packet.timestamp);
        self.packets.insert(number, Held { packet, inserted: now });
        while self.held() > HELD_MAX {
            self.packets.pop_first();
            self.stats.overflow += 1;
            // Dropped packets are not concealed.
            self.playing = false;
        }
    }

    /// The next packet or concealment; call until the source has a tick of samples or the result is `Idle`.
    pub fn pull(&mut self, now: Timestamp) -> AudioPull {
        if !self.playing && !self.begin(now) {
            return AudioPull::Idle;
        }
        self.shed(now);
        if self.grows(now) {
            self.stats.inserted += 1;
            self.stats.concealed += 1;
            return AudioPull::Lost { next: None };
        }
        let next = self.next.expect("set when playing began");
        let Some((&first, held)) = self.packets.first_key_value() else {
            if self.concealed >= CONCEAL_MAX {
                self.playing = false;
                return AudioPull::Idle;
            }
            // It may be late rather than lost: it is played if it comes.
            return self.conceal(None);
        };
        let ahead = held.packet.timestamp.wrapping_sub(self.head) as i32;
        let half = self.ticks(self.packet / 2) as i32;
        if first > next && ahead >= half && self.concealed < CONCEAL_MAX {
            if self.span() + self.packet / 2 < self.target() {
                // Packets come later than the delay allows: the delay grows.
                self.stats.concealed += 1;
                self.concealed += self.packet;
                return AudioPull::Lost { next: None };
            }
            let following = (first == next + 1).then(|| held.packet.clone());
            self.next = Some(next + 1);
            self.stats.lost += 1;
            return self.conceal(following);
        }
        let (number, held) = self.packets.pop_first().expect("seen above");
        self.stats.lost += (number - next) as u64;
        self.stats.played += 1;
        self.next = Some(number + 1);
        self.head = held.packet.timestamp.wrapping_add(self.ticks(self.packet));
        self.concealed = Duration::ZERO;
        AudioPull::Packet(held.packet)
    }

    /// Begins playout when the buffer holds the target, or the first packet has waited for as long (a single packet in
    /// DTX).
    fn begin(&mut self, now: Timestamp) -> bool {
        let Some((&number, first)) = self.packets.first_key_value() else { return false };
        let target = self.target();
        if self.held() < target && now.since(first.inserted) < target {
            return false;
        }
        if let Some(next) = self.next {
            self.stats.lost += (number - next) as u64;
        }
        self.next = Some(number);
        self.head = first.packet.timestamp;
        self.playing = true;
        self.concealed = Duration::ZERO;
        (self.above_since, self.below_since) = (None, None);
        true
    }

    /// The time from the playout position to the end of the newest packet, including gaps.
    fn span(&self) -> Duration {
        let newest = self.packets.last_key_value().map_or(0, |(_, held)| held.packet.timestamp.wrapping_sub(self.head));
        self.packet + Duration::from_micros(u64::from(newest) * 1_000_000 / u64::from(self.clock_rate))
    }

    fn conceal(&mut self, next: Option<SourcePacket>) -> AudioPull {
        self.concealed += self.packet;
        self.head = self.head.wrapping_add(self.ticks(self.packet));
        self.stats.concealed += 1;
        AudioPull::Lost { next }
    }

    /// Drops one packet if the buffer has held more than the target for a while: after a delay spike, or by clock
    /// drift.
    fn shed(&mut self, now: Timestamp) {
        let excess = self.held().saturating_sub(self.target());
        // More than a packet above the target: otherwise a gap would follow soon.
        if excess <= self.packet * 3 / 2 {
            self.above_since = None;
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        let Some((_, first)) = self.packets.first_key_value() else { return };
        let quiet = first.packet.audio_level.is_some_and(|level| level >= QUIET);
        let patience = if excess > FAR { SHED_FAST } else { SHED_AFTER };
        if now.since(since) < if quiet { patience } else { patience * 2 } {
            return;
        }
        let (number, held) = self.packets.pop_first().expect("seen above");
        let next = self.next.replace(number + 1).expect("set when playing began");
        self.stats.lost += (number - next) as u64;
        self.stats.shed += 1;
        self.head = held.packet.timestamp.wrapping_add(self.ticks(self.packet));
        self.above_since = None;
    }

    /// Whether to insert a concealment, because the buffer has held less than the target with an added delay for a
    /// while.
    fn grows(&mut self, now: Timestamp) -> bool {
        let is_below = !self.extra.is_zero() && self.held() + self.packet <= self.target();
        let Some((_, first)) = self.packets.first_key_value().filter(|_| is_below) else {
            self.below_since = None;
            return false;
        };
        let since = *self.below_since.get_or_insert(now);
        let quiet = first.packet.audio_level.is_some_and(|level| level >= QUIET);
        if now.since(since) < if quiet { GROW_QUIET_AFTER } else { GROW_AFTER } {
            return false;
        }
        self.below_since = None;
        true
    }

    /// Measures the duration of a packet: the same difference of two pairs of neighbours, or a smaller difference of
    /// one pair. After a pause (DTX) the difference is larger than a packet.
    fn learn_duration(&mut self, number: i64, timestamp: u32) {
        if let Some((newest, before)) = self.newest
            && number == newest + 1
        {
            let apart = Duration::from_micros(
                u64::from(timestamp.wrapping_sub(before)) * 1_000_000 / u64::from(self.clock_rate),
            );
            if (PACKET_MIN..=PACKET_MAX).contains(&apart) {
                if apart < self.packet || apart == self.packet_candidate {
                    self.packet = apart;
                }
                self.packet_candidate = apart;
            }
        }
        if self.newest.is_none_or(|(newest, _)| number > newest) {
            self.newest = Some((number, timestamp));
        }
    }

    fn ticks(&self, duration: Duration) -> u32 {
        (duration.as_micros() as u64 * u64::from(self.clock_rate) / 1_000_000) as u32
    }

    fn restart(&mut self) {
        self.stats.overflow += self.packets.len() as u64;
        self.packets.clear();
        self.newest = None;
        self.next = None;
        self.playing = false;
    }
}

#[cfg(test)]
mod tests;
