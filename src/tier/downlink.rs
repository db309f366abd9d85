//! What a link does to the packets sent over it: arrivals in, [`Reception`] out.
//!
//! Owns: the window over which arrivals are judged: losses, the queue that builds up on the way, how much arrives, and how
//! far apart packets arrive that left together, which tells what the link could carry. Does not know: how arrivals are
//! reported (transport-wide feedback), what is decided by them ([`super::Chooser`]).
//!
//! The estimate does not need the link to be full: packets of one burst leave back to back and arrive as the narrowest part of
//! the way lets them through, so their spacing shows its rate (packet pairs, Keshav 1991). Where a queue grows, the link is
//! full, and what arrives is what it carries: that counts at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::chooser::Reception;
use crate::time::Timestamp;

/// Over how much of the past losses and rates are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// The standing queue is the least delay of the packets of this long: jitter leaves some packets alone, a queue none.
const STANDING: Duration = Duration::from_millis(250);
/// The way without a queue is the least delay of this long; routes change, and clocks drift apart by some 3 ms.
const BASE: Duration = Duration::from_secs(30);
/// A longer delay than this on the way is a queue: then the link is full.
const BUSY: Duration = Duration::from_millis(40);
/// So long it must have been full, and so many packets must have arrived meanwhile, to tell what it carries.
const FULL: Duration = Duration::from_millis(100);
/// See [`FULL`].
const FULL_PACKETS: usize = 6;
/// By so many microseconds the queue must have grown meanwhile: more than jitter, which a longer way has too.
const GROWN: i64 = 20_000;
/// Only what arrived in the latest time as long as this counts then.
const FULL_MAX: Duration = Duration::from_millis(500);
/// The spacing of bursts tells better what the way carries, but later; a full link is believed where it carries less than
/// this part of that.
const SLOWER: f64 = 0.6;
/// A queue that does not become shorter by so much in twice [`STANDING`], though little is sent, is none: the way is longer.
const DRAINED: i64 = 5_000;
/// Little is less than this part of what the way carries.
const LITTLE: f64 = 0.5;
/// What bursts told so long ago may not be so any more.
const MEMORY: Duration = Duration::from_secs(20);
/// Packets that left within this time of the one before them left together.
const TOGETHER: Duration = Duration::from_millis(1);
/// Bursts remembered for the capacity.
const BURSTS: usize = 15;
/// Bursts that must have been seen before their median says anything.
const BURSTS_MIN: usize = 4;
/// A burst measures a link only if what follows its first packet takes this many bits: a single small packet's spacing is
/// mostly jitter.
const BURST_BITS: u64 = 3_200;
/// Where nothing arrives for so long, and then something, the way was gone: what comes then has come by another.
const GONE: Duration = Duration::from_millis(800);
/// What left so shortly after that, or before, and was lost, was still sent by the old way: it says nothing of the new one. Nor
/// does what a receiver lost that was busy with the beginning: it can take sound earlier than pictures.
const SETTLES: Duration = Duration::from_millis(500);
/// Fewer packets than this say nothing about losses.
const PACKETS_MIN: usize = 8;
/// Spacing below this cannot be told from none (feedback counts in quarters of a millisecond).
const SPACING_MIN: Duration = Duration::from_micros(250);

/// One packet, as the feedback tells of it; in the order of departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it left.
    pub departure: Timestamp,
    /// When it arrived, by the receiver's clock (which has any zero); None when it was lost, or nothing is told of it.
    pub arrival: Option<Duration>,
    /// Whether the receiver tells of it: what it tells nothing of may have arrived.
    pub told: bool,
    /// Bytes on the wire.
    pub size: usize,
}

/// The state of one link, downwards.
#[derive(Debug, Default)]
pub struct Downlink {
    window: VecDeque<Arrival>,
    /// Least delays by second, newest last: departure's second and the delay in microseconds of two unrelated clocks.
    base: VecDeque<(u64, i64)>,
    burst: Option<Burst>,
    /// When the latest packet left that arrived.
    reached: Option<Timestamp>,
    /// How many left after it, or at all, of which no arrival is told.
    missing: usize,
    /// What left before and was lost does not count.
    settles: Option<Timestamp>,
    /// The least delay of the packets told of last.
    latest: Option<i64>,
    /// Bits per second of the latest bursts, and when they left.
    rates: VecDeque<(Timestamp, u64)>,
}

/// Packets that left together, as far as they have arrived.
#[derive(Debug, Clone, Copy)]
struct Burst {
    last_departure: Timestamp,
    first_arrival: Duration,
    last_arrival: Duration,
    /// What arrived after the first packet.
    bits: u64,
}

impl Downlink {
    /// Takes in what one feedback tells; whether the way is there now, after it was gone for so long that what was sent meanwhile
    /// is of no use any more.
    pub fn report(&mut self, arrivals: &[Arrival]) -> bool {
        let mut is_back = false;
        let latest = arrivals.iter().filter_map(delay).min();
        for arrival in arrivals {
            if arrival.arrival.is_some() {
                if self.begins(arrival.departure) {
                    is_back |= self.missing > 0;
                    *self = Self { settles: Some(arrival.departure + SETTLES), ..Self::default() };
                }
                self.reached = Some(arrival.departure);
                self.missing = 0;
            } else {
                self.missing += 1;
                // A receiver that is not ready yet loses what it gets; that is no link which carries nothing.
                let begun = self.reached.is_some() && self.settles.is_none_or(|settles| arrival.departure >= settles);
                if !arrival.told || !begun {
                    continue;
                }
            }
            self.window.push_back(*arrival);
            if let Some(delay) = delay(arrival) {
                self.note_delay(arrival.departure, delay);
            }
            self.note_burst(arrival);
        }
        self.latest = latest.or(self.latest);
        let Some(newest) = self.window.back().map(|arrival| arrival.departure) else { return is_back };
        while self.window.front().is_some_and(|oldest| newest.since(oldest.departure) > WINDOW) {
            self.window.pop_front();
        }
        while self.rates.front().is_some_and(|(told, _)| newest.since(*told) > MEMORY) {
            self.rates.pop_front();
        }
        self.forget_longer_way(newest);
        let slower = |rate: &u64| self.capacity().is_none_or(|known| *rate < (known as f64 * SLOWER) as u64);
        if let Some(rate) = self.full().filter(slower) {
            self.rates.clear();
            self.rates.extend(std::iter::repeat_n((newest, rate), BURSTS_MIN));
        }
        is_back
    }

    /// What can be said now.
    pub fn reception(&self) -> Option<Reception> {
        if self.window.is_empty() {
            return None;
        }
        let lost = self.window.iter().filter(|packet| packet.arrival.is_none()).count();
        let few = self.window.len() < PACKETS_MIN;
        Some(Reception {
            lost: if few { 0.0 } else { lost as f32 / self.window.len() as f32 },
            queue: self.queue(),
            queue_now: self.latest.and_then(|delay| self.above_base(delay)),
            delivered: self.delivered(),
            capacity: self.capacity(),
            ..Reception::default()
        })
    }

    /// What the narrowest part of the way carries, in bits per second, by the spacing of bursts.
    pub fn capacity(&self) -> Option<u64> {
        if self.rates.len() < BURSTS_MIN {
            return None;
        }
        let mut rates: Vec<u64> = self.rates.iter().map(|(_, rate)| *rate).collect();
        rates.sort_unstable();
        Some(rates[rates.len() / 2])
    }

    /// Whether nothing arrived of what left in a long time before now, or ever. Receivers tell of the latest of what was lost only.
    fn begins(&self, now: Timestamp) -> bool {
        self.reached.is_none_or(|reached| self.missing >= PACKETS_MIN && now.since(reached) > GONE)
    }

    fn note_delay(&mut self, departure: Timestamp, delay: i64) {
        let second = departure.as_micros() / 1_000_000;
        match self.base.back_mut() {
            Some((known, least)) if *known == second => *least = (*least).min(delay),
            _ => self.base.push_back((second, delay)),
        }
        while self.base.front().is_some_and(|(known, _)| second - known > BASE.as_secs()) {
            self.base.pop_front();
        }
    }

    fn note_burst(&mut self, packet: &Arrival) {
        let together = self.burst.is_some_and(|burst| packet.departure.since(burst.last_departure) <= TOGETHER);
        match (&mut self.burst, packet.arrival) {
            (Some(burst), Some(arrival)) if together && arrival >= burst.last_arrival => {
                burst.last_departure = packet.departure;
                burst.last_arrival = arrival;
                burst.bits += packet.size as u64 * 8;
            }
            _ => {
                self.end_burst();
                self.burst = packet.arrival.map(|arrival| Burst {
                    last_departure: packet.departure,
                    first_arrival: arrival,
                    last_arrival: arrival,
                    bits: 0,
                });
            }
        }
    }

    fn end_burst(&mut self) {
        let Some(burst) = self.burst.take().filter(|burst| burst.bits >= BURST_BITS) else { return };
        let spacing = (burst.last_arrival - burst.first_arrival).max(SPACING_MIN);
        self.rates.push_back((burst.last_departure, (burst.bits as f64 / spacing.as_secs_f64()) as u64));
        if self.rates.len() > BURSTS {
            self.rates.pop_front();
        }
    }

    /// How much longer than at best even the quickest packets take of late.
    fn queue(&self) -> Option<Duration> {
        let newest = self.window.back()?.departure;
        let standing = self.least_delay(newest, STANDING)?;
        self.above_base(standing)
    }

    fn above_base(&self, delay: i64) -> Option<Duration> {
        Some(Duration::from_micros(u64::try_from(delay - self.base()?).unwrap_or_default()))
    }

    /// The delay of the way without a queue.
    fn base(&self) -> Option<i64> {
        self.base.iter().map(|(_, delay)| *delay).min()
    }

    /// The least delay of the packets that left in so long a time up to `until`.
    fn least_delay(&self, until: Timestamp, time: Duration) -> Option<i64> {
        let left =
            self.window.iter().filter(|packet| packet.departure <= until && until.since(packet.departure) <= time);
        left.filter_map(delay).min()
    }

    /// Bits per second that the link carries, if it is full: its queue has become longer.
    fn full(&self) -> Option<u64> {
        let busy = self.base()? + BUSY.as_micros() as i64;
        let waited = |packet: &&Arrival| delay(packet).is_none_or(|delay| delay >= busy);
        let packets = || self.window.iter().rev().take_while(waited).filter(|packet| packet.arrival.is_some());
        let last = packets().next()?;
        let recent = || {
            packets()
                .take_while(|packet| last.arrival.zip(packet.arrival).is_some_and(|(last, at)| last <= at + FULL_MAX))
        };
        let first = recent().last()?;
        let span = last.arrival?.checked_sub(first.arrival?)?;
        if span < FULL || recent().count() < FULL_PACKETS || delay(last)? - delay(first)? < GROWN {
            return None;
        }
        let bits: u64 = recent().map(|packet| packet.size as u64 * 8).sum::<u64>() - first.size as u64 * 8;
        Some((bits as f64 / span.as_secs_f64()) as u64)
    }

    /// Another route may be longer: what looks like a queue then does not drain.
    fn forget_longer_way(&mut self, newest: Timestamp) {
        let Some(capacity) = self.capacity() else { return };
        let (late, early) = (self.least_delay(newest, STANDING), self.least_delay(newest - STANDING, STANDING));
        let (Some(late), Some(early), Some(base)) = (late, early, self.base()) else { return };
        let sent = self.window.iter().rev().take_while(|packet| newest.since(packet.departure) <= STANDING * 2);
        let bits: u64 = sent.map(|packet| packet.size as u64 * 8).sum();
        let little = bits as f64 <= capacity as f64 * LITTLE * (STANDING * 2).as_secs_f64();
        if little && early - base >= BUSY.as_micros() as i64 && early - late < DRAINED {
            self.base.clear();
            self.note_delay(newest, late);
        }
    }

    /// Bits per second that arrived in the window, by the receiver's clock; None at the beginning, when little has been sent.
    fn delivered(&self) -> Option<u64> {
        let sent = self.window.back()?.departure.since(self.window.front()?.departure);
        if sent < WINDOW / 2 {
            return None;
        }
        let arrived = || self.window.iter().filter_map(|packet| Some((packet.arrival?, packet.size)));
        let (first, last) = (arrived().map(|(at, _)| at).min()?, arrived().map(|(at, _)| at).max()?);
        let span = (last - first).max(WINDOW / 4);
        let bits: u64 = arrived().map(|(_, size)| size as u64 * 8).sum();
        Some((bits as f64 / span.as_secs_f64()) as u64)
    }
}

/// Arrival less departure in microseconds; only differences between packets mean something.
fn delay(packet: &Arrival) -> Option<i64> {
    Some(packet.arrival?.as_micros() as i64 - packet.departure.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a link of so many bits per second does to packets of 1200 bytes, which leave every so many microseconds, one
    /// after the other, from a time on.
    fn carried(bits_per_second: u64, from: u64, every: u64, count: u64) -> Vec<Arrival> {
        let takes = 1_200 * 8 * 1_000_000 / bits_per_second;
        let mut free = 0;
        (0..count)
            .map(|n| {
                let departs = from + n * every;
                free = departs.max(free) + takes;
                let arrival = Some(Duration::from_micros(free + 5_000_000));
                Arrival { departure: Timestamp::from_micros(departs), arrival, told: true, size: 1_200 }
            })
            .collect()
    }

    #[test]
    fn bursts_tell_what_a_link_carries_that_is_not_full() {
        let mut downlink = Downlink::default();
        for second in 1..9 {
            downlink.report(&carried(2_000_000, second * 1_000_000, 100, 2));
        }
        let capacity = downlink.capacity().expect("eight bursts");
        assert!((1_950_000..=2_050_000).contains(&capacity), "{capacity}");
        downlink.report(&[Arrival { arrival: None, ..carried(2_000_000, 9_000_000, 100, 1)[0] }]);
        let reception = downlink.reception().expect("something was sent");
        assert_eq!(reception.lost, 0.0, "two packets a second say nothing of losses");
    }

    #[test]
    fn a_full_link_tells_at_once_what_it_carries_and_its_queue() {
        let mut downlink = Downlink::default();
        for second in 1..9 {
            downlink.report(&carried(2_000_000, second * 1_000_000, 100, 2));
        }
        // 960 kbit/s, no two packets together, over 300 kbit/s.
        downlink.report(&carried(300_000, 9_000_000, 10_000, 15));
        let reception = downlink.reception().expect("fifteen packets");
        let capacity = reception.capacity.expect("it is full");
        assert!((285_000..=315_000).contains(&capacity), "{capacity}");
        assert!(reception.queue_now.is_some_and(|queue| queue < Duration::from_millis(40)), "the first had none");
        assert_eq!(reception.lost, 0.0);
    }

    #[test]
    fn what_was_lost_while_there_was_no_way_says_nothing_of_the_next_one() {
        // Two seconds, and little more than half a one.
        for (gone, lost) in [(100, 0.0), (30, 0.6)] {
            let mut downlink = Downlink::default();
            for second in 1..9 {
                downlink.report(&carried(2_000_000, second * 1_000_000, 100, 2));
            }
            downlink.report(&carried(2_000_000, 9_000_000, 20_000, 30));
            let nothing = carried(2_000_000, 9_600_000, 20_000, gone).into_iter();
            let nothing: Vec<Arrival> = nothing.map(|packet| Arrival { arrival: None, ..packet }).collect();
            let then = carried(2_000_000, 9_600_000 + 20_000 * gone, 20_000, 10);
            assert_eq!(downlink.report(&[nothing, then].concat()), lost == 0.0, "{gone} lost");
            let late = carried(2_000_000, 9_800_000 + 20_000 * gone, 1_000, 30).into_iter();
            let late: Vec<Arrival> = late.map(|packet| Arrival { arrival: None, ..packet }).collect();
            if lost == 0.0 {
                assert!(!downlink.report(&late), "told once");
            }
            let reception = downlink.reception().expect("ten packets");
            assert!((reception.lost - lost).abs() < 0.05, "{gone} lost: {reception:?}");
            assert_eq!(reception.capacity.is_none(), lost == 0.0, "{reception:?}");
        }
    }

    #[test]
    fn what_a_receiver_lost_before_it_was_ready_says_nothing_of_the_way() {
        let lost = |from, count| carried(2_000_000, from, 3_000, count).into_iter();
        let lost =
            |from, count| lost(from, count).map(|packet| Arrival { arrival: None, ..packet }).collect::<Vec<_>>();
        let mut downlink = Downlink::default();
        assert!(!downlink.report(&lost(1_000_000, 14)), "the way is not there yet");
        assert_eq!(downlink.reception(), None);
        assert!(downlink.report(&carried(2_000_000, 1_050_000, 20_000, 4)), "the first keyframe was lost");
        assert!(!downlink.report(&lost(1_200_000, 14)), "told once");
        assert!(!downlink.report(&carried(2_000_000, 1_250_000, 20_000, 8)));
        assert_eq!(downlink.reception().map(|reception| reception.lost), Some(0.0), "its pictures come later");
        downlink.report(&lost(1_600_000, 14));
        downlink.report(&carried(2_000_000, 1_650_000, 20_000, 4));
        let lost = downlink.reception().expect("packets have arrived").lost;
        assert!(lost > 0.4, "but that is no beginning any more: {lost}");
    }

    #[test]
    fn what_nobody_tells_of_is_not_lost() {
        let mut downlink = Downlink::default();
        downlink.report(&carried(2_000_000, 1_000_000, 20_000, 50));
        for (told, lost) in [(false, 0.0), (true, 10.0 / 51.0)] {
            let untold = carried(2_000_000, 2_000_000, 20_000, 10).into_iter();
            downlink.report(&untold.map(|packet| Arrival { arrival: None, told, ..packet }).collect::<Vec<_>>());
            downlink.report(&carried(2_000_000, 2_200_000, 20_000, 1));
            let reception = downlink.reception().expect("packets have arrived");
            assert!((reception.lost - lost).abs() < 0.02, "{reception:?}");
        }
    }

    #[test]
    fn the_first_packets_do_not_tell_how_much_arrives() {
        let mut downlink = Downlink::default();
        downlink.report(&carried(2_000_000, 1_000_000, 20_000, 20));
        assert_eq!(downlink.reception().and_then(|reception| reception.delivered), None);
        downlink.report(&carried(2_000_000, 1_400_000, 20_000, 40));
        let delivered = downlink.reception().and_then(|reception| reception.delivered).expect("a second");
        assert!((470_000..=500_000).contains(&delivered), "480 kbit/s: {delivered}");
    }

    #[test]
    fn whose_first_packets_arrive_needs_nothing_anew() {
        assert!(!Downlink::default().report(&carried(2_000_000, 1_000_000, 3_000, 14)));
    }

    #[test]
    fn what_bursts_told_long_ago_is_forgotten() {
        let mut downlink = Downlink::default();
        for second in 1..9 {
            downlink.report(&carried(2_000_000, second * 1_000_000, 100, 2));
        }
        downlink.report(&carried(2_000_000, 30_000_000, 100, 1));
        assert_eq!(downlink.capacity(), None);
    }
}
