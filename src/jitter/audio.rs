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
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 20_000;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + micros)
    }

    fn packet(index: u64, ticks: u32, arrival: Timestamp) -> SourcePacket {
        SourcePacket {
            sequence: (index as u16).wrapping_add(65_500),
            timestamp: (index as u32).wrapping_mul(ticks).wrapping_sub(5_000),
            marker: false,
            arrival,
            audio_level: None,
            rotation: None,
            payload: Bytes::copy_from_slice(&index.to_be_bytes()),
        }
    }

    fn index(packet: &SourcePacket) -> u64 {
        u64::from_be_bytes(packet.payload[..].try_into().expect("eight bytes"))
    }

    /// What a mixer with a ring sees: pulls ticks of 20 ms and counts.
    #[derive(Debug, Default)]
    struct Ear {
        ring: u64,
        played: Vec<(u64, u64)>,
        concealed: u64,
        with_fec: u64,
        idle: u64,
        ticks: u64,
    }

    impl Ear {
        /// One tick at `now`, with packets of `duration` microseconds.
        fn tick(&mut self, jitter: &mut AudioJitter, now: u64, duration: u64) {
            self.ticks += 1;
            while self.ring < TICK {
                match jitter.pull(at(now)) {
                    AudioPull::Packet(packet) => {
                        self.played.push((index(&packet), now));
                        self.ring += duration;
                    }
                    AudioPull::Lost { next } => {
                        self.concealed += 1;
                        self.with_fec += u64::from(next.is_some());
                        self.ring += duration;
                    }
                    AudioPull::Idle => {
                        self.idle += 1;
                        self.ring = TICK;
                    }
                }
            }
            self.ring -= TICK;
        }
    }

    /// Sends packet i of `duration` µs at `sent(i)`, arriving at `arrive(i)` (None: lost), and listens until the end.
    fn listen(
        count: u64,
        duration: u64,
        phase: u64,
        sent: impl Fn(u64) -> u64,
        arrive: impl Fn(u64) -> Option<u64>,
    ) -> (AudioJitter, Ear) {
        let mut jitter = AudioJitter::new(48_000);
        let mut ear = Ear::default();
        let mut flight = std::collections::BinaryHeap::new();
        let (mut next, mut now) = (0, phase);
        let end = sent(count);
        while now < end {
            while next < count && sent(next) <= now {
                if let Some(arrival) = arrive(next) {
                    flight.push(std::cmp::Reverse((arrival.max(sent(next)), next)));
                }
                next += 1;
            }
            while let Some(&std::cmp::Reverse((arrival, i))) = flight.peek()
                && arrival <= now
            {
                flight.pop();
                jitter.insert(packet(i, (duration * 48 / 1_000) as u32, at(arrival)), at(arrival));
            }
            ear.tick(&mut jitter, now, duration);
            now += TICK;
        }
        (jitter, ear)
    }

    fn noise(i: u64, below: u64) -> u64 {
        // splitmix64: the same on every run.
        let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn longest_delay(ear: &Ear, sent: impl Fn(u64) -> u64, from: u64) -> u64 {
        ear.played.iter().filter(|(i, _)| *i >= from).map(|(i, now)| now - sent(*i)).max().unwrap_or(0)
    }

    #[test]
    fn a_perfect_network_costs_little_and_conceals_nothing() {
        let (jitter, ear) = listen(1_000, TICK, 7_000, |i| i * TICK, |i| Some(i * TICK));
        assert_eq!(ear.concealed, 0);
        assert!(longest_delay(&ear, |i| i * TICK, 0) <= 50_000);
        assert_eq!(jitter.stats().lost + jitter.stats().late + jitter.stats().shed, 0);
        assert_eq!(ear.ticks - ear.idle, ear.played.len() as u64);
    }

    #[test]
    fn one_lost_packet_is_concealed_with_the_next_one_at_hand() {
        let (jitter, ear) = listen(500, TICK, 7_000, |i| i * TICK, |i| (i % 50 != 25).then_some(i * TICK));
        assert_eq!((ear.concealed, jitter.stats().lost), (10, 10));
        assert!(ear.with_fec >= 9, "{ear:?}");
        assert_eq!(ear.idle + ear.concealed + ear.played.len() as u64, ear.ticks);
    }

    #[test]
    fn when_the_sender_stops_it_conceals_for_100_ms_and_is_idle() {
        let (mut jitter, _) = listen(50, TICK, 0, |i| i * TICK, |i| Some(i * TICK));
        let mut ear = Ear::default();
        for i in 50..100 {
            ear.tick(&mut jitter, i * TICK, TICK);
        }
        assert_eq!(ear.concealed, 5);
        assert_eq!(jitter.pull(at(101 * TICK)), AudioPull::Idle);
    }

    #[test]
    fn a_pause_with_contiguous_numbers_is_not_loss() {
        let mut jitter = AudioJitter::new(48_000);
        let mut ear = Ear::default();
        // DTX: one packet each 400 ms.
        for tick in 0..1_000 {
            if tick % 20 == 0 {
                let mut p = packet(tick / 20, 0, at(tick * TICK));
                p.timestamp = tick as u32 * 960;
                jitter.insert(p, at(tick * TICK));
            }
            ear.tick(&mut jitter, tick * TICK, TICK);
        }
        assert_eq!(ear.played.len(), 50);
        assert_eq!(jitter.stats().lost, 0);
        assert!(ear.played.iter().all(|(i, now)| now - i * 20 * TICK <= 60_000));
    }

    #[test]
    fn a_spike_makes_the_delay_grow_and_shrink_again() {
        // The network holds everything back for 300 ms once, then goes on as before.
        let arrive = |i: u64| Some(if (500..515).contains(&i) { 515 * TICK } else { i * TICK });
        let (jitter, ear) = listen(3_000, TICK, 3_000, |i| i * TICK, arrive);
        assert!(longest_delay(&ear, |i| i * TICK, 510) >= 100_000);
        assert!(longest_delay(&ear, |i| i * TICK, 2_500) <= 90_000, "{:?}", jitter.stats());
        assert!(jitter.stats().shed > 0);
    }

    #[test]
    fn a_quiet_packet_is_left_out_first() {
        let mut jitter = AudioJitter::new(48_000);
        let mut out = Vec::new();
        for i in 0..200 {
            // Ten at once in the beginning: too much is held.
            let arrival = i.max(9) * TICK;
            let mut p = packet(i, 960, at(arrival));
            p.audio_level = Some(if i % 30 == 20 { 80 } else { 20 });
            jitter.insert(p, at(arrival));
            if i >= 9
                && let AudioPull::Packet(p) = jitter.pull(at(arrival))
            {
                out.push(index(&p));
            }
        }
        assert!(jitter.stats().shed > 0);
        assert!(!out.contains(&20), "the first quiet one is left out");
    }

    #[test]
    fn a_restarted_sender_is_followed() {
        let (mut jitter, _) = listen(100, TICK, 0, |i| i * TICK, |i| Some(i * TICK));
        let mut ear = Ear::default();
        for i in 100..200 {
            let mut p = packet(i, 960, at(i * TICK));
            p.sequence = p.sequence.wrapping_add(20_000);
            p.timestamp = p.timestamp.wrapping_add(0x5555_5555);
            jitter.insert(p, at(i * TICK));
            ear.tick(&mut jitter, i * TICK, TICK);
        }
        assert!(ear.played.len() >= 90, "{} played", ear.played.len());
        assert!(longest_delay(&ear, |i| i * TICK, 0) <= 100_000);
    }

    #[test]
    fn at_most_a_second_is_held() {
        let mut jitter = AudioJitter::new(8_000);
        for i in 0..1_000 {
            jitter.insert(packet(i, 160, at(0)), at(0));
            assert!(jitter.held() <= HELD_MAX);
        }
        assert_eq!(jitter.stats().overflow, 950);
        let AudioPull::Packet(first) = jitter.pull(at(0)) else { panic!("a second is held") };
        assert_eq!(index(&first), 950);
    }

    #[test]
    fn an_hour_of_drift_costs_one_packet_per_20_ms_of_drift() {
        let count = 180_000;
        for ppm in [-200_i64, 200] {
            let sent = move |i: u64| (i as i64 * TICK as i64 * (1_000_000 - ppm) / 1_000_000) as u64;
            let (jitter, ear) = listen(count, TICK, 5_000, sent, |i| Some(sent(i) + noise(i, 12_000)));
            let stats = jitter.stats();
            // 200 ppm of an hour are 720 ms, 36 packets too many or too few.
            assert!(longest_delay(&ear, sent, 0) <= 130_000, "{ppm} ppm: {}", longest_delay(&ear, sent, 0));
            assert!(stats.shed + stats.concealed <= 60, "{ppm} ppm: {stats:?}");
            assert_eq!(stats.late + stats.lost + stats.overflow, 0, "{stats:?}");
            assert!(if ppm > 0 { stats.shed >= 30 } else { stats.concealed >= 30 }, "{ppm} ppm: {stats:?}");
            // Every tick was filled, by one packet or one concealment.
            assert_eq!(ear.played.len() as u64 + ear.concealed + ear.idle, ear.ticks);
            assert!(ear.idle <= 4);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_network_is_played_in_order_with_bounded_delay(
            jitter_ms in 0_u64..150, loss in 0_u64..20, seed in any::<u32>(), phase in 0..TICK,
            duration in prop::sample::select(vec![10_000_u64, 20_000, 40_000, 60_000]), ppm in -200_i64..=200,
        ) {
            let seed = u64::from(seed) << 20;
            let sent = move |i: u64| (i as i64 * duration as i64 * (1_000_000 - ppm) / 1_000_000) as u64;
            let count = 60_000_000 / duration;
            let (buffer, ear) = listen(count, duration, phase, sent, |i| {
                (noise(seed + i, 100) >= loss).then(|| sent(i) + noise(seed + 500_000 + i, jitter_ms * 1_000 + 1))
            });
            let stats = buffer.stats();
            prop_assert!(ear.played.windows(2).all(|w| w[0].0 < w[1].0), "played out of order");
            // The worst jitter, what is not worth leaving out, and a tick or two of rounding.
            let bound = (jitter_ms + 120) * 1_000 + 5 * duration;
            let worst = longest_delay(&ear, sent, 0);
            prop_assert!(worst <= bound, "{worst} of {bound} µs: {stats:?}");
            // After ten seconds the target is learnt: few packets come too late for it.
            let gone = count - ear.played.len() as u64;
            prop_assert!(gone as f64 <= count as f64 * (loss as f64 / 100.0 * 1.5 + 0.08) + 10.0, "{gone} of {count}: {stats:?}");
            prop_assert_eq!(stats.received, stats.played + stats.late + stats.shed + stats.overflow + buffer.packets.len() as u64);
        }

        #[test]
        fn nothing_a_stranger_sends_makes_it_panic_or_grow(
            packets in prop::collection::vec((any::<u16>(), any::<u32>(), 0_u64..100_000), 1..300),
        ) {
            let mut jitter = AudioJitter::new(8_000);
            let mut now = 0;
            for (sequence, timestamp, step) in packets {
                now += step;
                let sequence = if step % 3 == 0 { sequence } else { sequence % 200 };
                jitter.insert(SourcePacket { sequence, timestamp, ..packet(0, 0, at(now)) }, at(now));
                jitter.pull(at(now));
                prop_assert!(jitter.held() <= HELD_MAX);
            }
        }
    }
}
