//! Audio: adaptive playout of one source. The mixer pulls whenever the source's sample ring lacks a tick.
//!
//! The buffer begins to play when it holds the target delay. A packet that is missing while later ones are here is lost:
//! its time is concealed. If less than the target is held it may come yet: then the time is concealed and it is still
//! played. An empty buffer is concealed for 100 ms at most, and what comes then is still played, later;
//! so the delay grows by itself. It shrinks by leaving out a packet, a quiet one if there is one soon. Audio is never
//! waited for: browsers do not repeat it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::delay::DelayEstimate;
use super::{Number, Numbers};
use crate::media::SourcePacket;
use crate::time::Timestamp;

/// Duration of a packet before two packets have told it.
const PACKET: Duration = Duration::from_millis(20);
/// Shortest and longest Opus packet (RFC 6716 §2.1.4 and §3.2.5).
const PACKET_MIN: Duration = Duration::from_micros(2_500);
const PACKET_MAX: Duration = Duration::from_millis(120);
/// Most that is concealed in a row: after that a decoder only hums.
const CONCEAL_MAX: Duration = Duration::from_millis(100);
/// Most audio held.
const HELD_MAX: Duration = Duration::from_secs(1);
/// Too much must have been held for so long before a packet is left out; twice as long before one that is not quiet is.
const SHED_AFTER: Duration = Duration::from_secs(1);
/// The same when far too much is held.
const SHED_FAST: Duration = Duration::from_millis(200);
/// How much is far too much, above the target.
const FAR: Duration = Duration::from_millis(120);
/// A packet whose RFC 6464 level is at or below this, in -dBov, may be left out unheard.
const QUIET: u8 = 50;

/// What [`AudioJitter::pull`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioPull {
    /// Decode this.
    Packet(SourcePacket),
    /// One packet is missing: conceal one packet's duration.
    Lost {
        /// The packet after the missing one, if it is here: its in-band FEC may hold the missing one. It comes again
        /// with the next pull.
        next: Option<SourcePacket>,
    },
    /// The sender is silent or not there, or its first packets are being collected: nothing to conceal.
    Idle,
}

/// What an [`AudioJitter`] has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AudioStats {
    /// Packets inserted, good or not.
    pub received: u64,
    /// Packets that were there already.
    pub duplicate: u64,
    /// Packets that came after their time was concealed, and strays from another numbering.
    pub late: u64,
    /// Packets that never came in time.
    pub lost: u64,
    /// Packets given out.
    pub played: u64,
    /// Packet durations concealed, for loss or because nothing was there.
    pub concealed: u64,
    /// Packets left out to make the delay shorter.
    pub shed: u64,
    /// Packets dropped because a second of audio was held.
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
    /// Duration of one packet, and the candidate for it: a difference of timestamps seen once.
    packet: Duration,
    packet_candidate: Duration,
    newest: Option<(i64, u32)>,
    /// The number to play next. None before the first packet was played.
    next: Option<i64>,
    /// The RTP timestamp where playout stands, concealed time included.
    head: u32,
    playing: bool,
    concealed: Duration,
    /// Since when too much has been held at every pull.
    above_since: Option<Timestamp>,
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
            packet: PACKET,
            packet_candidate: PACKET,
            newest: None,
            next: None,
            head: 0,
            playing: false,
            concealed: Duration::ZERO,
            above_since: None,
            stats: AudioStats::default(),
        }
    }

    /// What has been counted so far.
    pub fn stats(&self) -> AudioStats {
        self.stats
    }

    /// How much audio is to be held, 20 to 400 ms.
    pub fn target(&self) -> Duration {
        self.estimate.target(self.packet)
    }

    /// How much audio is held now; at most one second.
    pub fn held(&self) -> Duration {
        self.packet * self.packets.len() as u32
    }

    /// Takes a packet; `now` is when it came out of the link. Jitter is measured by `packet.arrival`.
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
            // It still tells how late packets come: the target grows.
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
            // The time of what was dropped is not concealed.
            self.playing = false;
        }
    }

    /// What to play next; called until the source's ring holds a tick or the answer is Idle.
    pub fn pull(&mut self, now: Timestamp) -> AudioPull {
        if !self.playing && !self.begin(now) {
            return AudioPull::Idle;
        }
        self.shed(now);
        let next = self.next.expect("set when playing began");
        let Some((&first, held)) = self.packets.first_key_value() else {
            if self.concealed >= CONCEAL_MAX {
                self.playing = false;
                return AudioPull::Idle;
            }
            // Perhaps it is only late, so the number stays: it is played when it comes.
            return self.conceal(None);
        };
        let ahead = held.packet.timestamp.wrapping_sub(self.head) as i32;
        let half = self.ticks(self.packet / 2) as i32;
        if first > next && ahead >= half && self.concealed < CONCEAL_MAX {
            if self.span() + self.packet / 2 < self.target() {
                // It is rather late than lost: packets come later than playout began for. The delay grows.
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

    /// Begins to play when the target is held, or when the first packet has waited for as long (one alone, in DTX).
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
        self.above_since = None;
        true
    }

    /// How much time lies between what is played next and the end of the newest packet, holes included.
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

    /// Leaves out one packet when more than the target has been held for a while: a drifting clock, or a spike gone.
    fn shed(&mut self, now: Timestamp) {
        let excess = self.held().saturating_sub(self.target());
        // More than a packet, or leaving one out would make a hole soon.
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

    /// A packet lasts as long as two pairs of neighbours are apart, or one pair that is closer than before: after a
    /// pause (DTX) neighbours are further apart than a packet is long.
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
