//! Estimation of a link's state from the arrival times of packets: [`Arrival`] in, [`Reception`] out.
//!
//! Owns: the window of arrivals, from which it derives losses, queueing delay, received bitrate and capacity. Does not
//! know: how arrivals are reported (transport-wide congestion control feedback), what is decided by them
//! ([`super::Chooser`]).
//!
//! The capacity is estimated although the link is not full: packets of one burst leave back to back, and their spacing
//! at the receiver shows the rate of the bottleneck (packet pairs, Keshav 1991). While a queue grows the link is full,
//! and the received bitrate is the capacity.

use std::collections::VecDeque;
use std::time::Duration;

use super::chooser::Reception;
use crate::time::Timestamp;

/// Window of losses and rates.
const WINDOW: Duration = Duration::from_secs(1);
/// The standing queue is the minimum delay in this window: jitter does not delay every packet, a queue does.
const STANDING: Duration = Duration::from_millis(250);
/// The delay without a queue is the minimum in this window; routes change, and clocks drift apart by some 3 ms.
const BASE: Duration = Duration::from_secs(30);
/// Queueing delay above which the link is full.
const BUSY: Duration = Duration::from_millis(40);
/// Duration for which the link must have been full, and packets that must have arrived meanwhile, to estimate its
/// capacity.
const FULL: Duration = Duration::from_millis(100);
/// See [`FULL`].
const FULL_PACKETS: usize = 6;
/// Microseconds by which the queue must have grown meanwhile: more than jitter.
const GROWN: i64 = 20_000;
/// Window of arrivals for the capacity of a full link.
const FULL_MAX: Duration = Duration::from_millis(500);
/// The capacity by bursts is more accurate but later; that of a full link counts where it is below this part of it.
const SLOWER: f64 = 0.6;
/// A queue that does not shrink by this much in twice [`STANDING`], although little is sent, is none: the path has
/// become longer.
const DRAINED: i64 = 5_000;
/// "Little" is below this part of the capacity.
const LITTLE: f64 = 0.5;
/// Age after which a burst's measurement expires.
const MEMORY: Duration = Duration::from_secs(20);
/// Packets that leave within this time after the packet before belong to one burst.
const TOGETHER: Duration = Duration::from_millis(1);
/// Most bursts kept for the capacity.
const BURSTS: usize = 15;
/// Bursts required for a median.
const BURSTS_MIN: usize = 4;
/// Bits that must follow the first packet of a burst: the spacing of a single small packet is mostly jitter.
const BURST_BITS: u64 = 3_200;
/// A time without any arrival after which the path was interrupted; later packets use another one.
const GONE: Duration = Duration::from_millis(800);
/// Losses of packets that left up to this long after an interruption do not count: they were still sent by the old
/// path. The same applies to the beginning, when a receiver is not ready for video yet.
const SETTLES: Duration = Duration::from_millis(500);
/// Packets required for a share of losses.
const PACKETS_MIN: usize = 8;
/// Smallest measurable spacing; feedback has a resolution of a quarter of a millisecond.
const SPACING_MIN: Duration = Duration::from_micros(250);

/// A packet in feedback, in the order of departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Time of departure.
    pub departure: Timestamp,
    /// Time of arrival by the receiver's clock, which has an arbitrary origin; None if it was lost or is not reported.
    pub arrival: Option<Duration>,
    /// Whether the feedback covers it: a packet that is not covered may have arrived.
    pub reported: bool,
    /// Bytes on the wire.
    pub size: usize,
}

/// The state of the link to one receiver.
#[derive(Debug, Default)]
pub struct Downlink {
    window: VecDeque<Arrival>,
    /// Minimum delays by second of departure, newest last: microseconds between two unrelated clocks.
    base: VecDeque<(u64, i64)>,
    burst: Option<Burst>,
    /// Departure of the latest packet that arrived.
    reached: Option<Timestamp>,
    /// Packets that left since then and are not reported to have arrived.
    missing: usize,
    /// Losses of packets that left before do not count.
    settles: Option<Timestamp>,
    /// Minimum delay in the latest feedback.
    latest: Option<i64>,
    /// Bits per second of the latest bursts, with their departures.
    rates: VecDeque<(Timestamp, u64)>,
}

/// The packets of one burst that have arrived.
#[derive(Debug, Clone, Copy)]
struct Burst {
    last_departure: Timestamp,
    first_arrival: Duration,
    last_arrival: Duration,
    /// Bits that arrived after the first packet.
    bits: u64,
}

impl Downlink {
    /// Takes in the packets of one feedback. Returns true if the path works again after an interruption: what was sent
    /// meanwhile is lost, so that a keyframe is needed.
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
                // A receiver that is not ready yet loses packets; that is no property of the path.
                let begun = self.reached.is_some() && self.settles.is_none_or(|settles| arrival.departure >= settles);
                if !arrival.reported || !begun {
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
        while self.rates.front().is_some_and(|(reported, _)| newest.since(*reported) > MEMORY) {
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

    /// The present state; None before the first arrival.
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

    /// Capacity of the bottleneck in bits per second, by the spacing of bursts.
    pub fn capacity(&self) -> Option<u64> {
        if self.rates.len() < BURSTS_MIN {
            return None;
        }
        let mut rates: Vec<u64> = self.rates.iter().map(|(_, rate)| *rate).collect();
        rates.sort_unstable();
        Some(rates[rates.len() / 2])
    }

    /// Whether an interruption has just ended: nothing that left in a long time before, or ever, has arrived.
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

    /// The standing queue.
    fn queue(&self) -> Option<Duration> {
        let newest = self.window.back()?.departure;
        let standing = self.least_delay(newest, STANDING)?;
        self.above_base(standing)
    }

    fn above_base(&self, delay: i64) -> Option<Duration> {
        Some(Duration::from_micros(u64::try_from(delay - self.base()?).unwrap_or_default()))
    }

    /// The delay without a queue.
    fn base(&self) -> Option<i64> {
        self.base.iter().map(|(_, delay)| *delay).min()
    }

    /// The minimum delay of packets that left in this window before `until`.
    fn least_delay(&self, until: Timestamp, time: Duration) -> Option<i64> {
        let left =
            self.window.iter().filter(|packet| packet.departure <= until && until.since(packet.departure) <= time);
        left.filter_map(delay).min()
    }

    /// Capacity in bits per second if the link is full: its queue has grown.
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

    /// Detects a longer path: an apparent queue that does not drain.
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

    /// Received bits per second in the window, by the receiver's clock; None at the beginning.
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

/// Arrival minus departure in microseconds; only differences between packets are meaningful.
fn delay(packet: &Arrival) -> Option<i64> {
    Some(packet.arrival?.as_micros() as i64 - packet.departure.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1200 bytes over a link of this many bits per second; they leave from `from` on, `every` microseconds.
    fn carried(bits_per_second: u64, from: u64, every: u64, count: u64) -> Vec<Arrival> {
        let takes = 1_200 * 8 * 1_000_000 / bits_per_second;
        let mut free = 0;
        (0..count)
            .map(|n| {
                let departs = from + n * every;
                free = departs.max(free) + takes;
                let arrival = Some(Duration::from_micros(free + 5_000_000));
                Arrival { departure: Timestamp::from_micros(departs), arrival, reported: true, size: 1_200 }
            })
            .collect()
    }

    #[test]
    fn bursts_show_the_capacity_of_a_link_that_is_not_full() {
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
    fn a_full_link_shows_its_capacity_and_its_queue_at_once() {
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
    fn losses_during_an_interruption_do_not_count_for_the_next_path() {
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
                assert!(!downlink.report(&late), "reported once");
            }
            let reception = downlink.reception().expect("ten packets");
            assert!((reception.lost - lost).abs() < 0.05, "{gone} lost: {reception:?}");
            assert_eq!(reception.capacity.is_none(), lost == 0.0, "{reception:?}");
        }
    }

    #[test]
    fn losses_before_the_receiver_is_ready_do_not_count() {
        let lost = |from, count| carried(2_000_000, from, 3_000, count).into_iter();
        let lost =
            |from, count| lost(from, count).map(|packet| Arrival { arrival: None, ..packet }).collect::<Vec<_>>();
        let mut downlink = Downlink::default();
        assert!(!downlink.report(&lost(1_000_000, 14)), "the way is not there yet");
        assert_eq!(downlink.reception(), None);
        assert!(downlink.report(&carried(2_000_000, 1_050_000, 20_000, 4)), "the first keyframe was lost");
        assert!(!downlink.report(&lost(1_200_000, 14)), "reported once");
        assert!(!downlink.report(&carried(2_000_000, 1_250_000, 20_000, 8)));
        assert_eq!(downlink.reception().map(|reception| reception.lost), Some(0.0), "its pictures come later");
        downlink.report(&lost(1_600_000, 14));
        downlink.report(&carried(2_000_000, 1_650_000, 20_000, 4));
        let lost = downlink.reception().expect("packets have arrived").lost;
        assert!(lost > 0.4, "but that is no beginning any more: {lost}");
    }

    #[test]
    fn packets_that_feedback_does_not_cover_are_not_lost() {
        let mut downlink = Downlink::default();
        downlink.report(&carried(2_000_000, 1_000_000, 20_000, 50));
        for (reported, lost) in [(false, 0.0), (true, 10.0 / 51.0)] {
            let untold = carried(2_000_000, 2_000_000, 20_000, 10).into_iter();
            downlink.report(&untold.map(|packet| Arrival { arrival: None, reported, ..packet }).collect::<Vec<_>>());
            downlink.report(&carried(2_000_000, 2_200_000, 20_000, 1));
            let reception = downlink.reception().expect("packets have arrived");
            assert!((reception.lost - lost).abs() < 0.02, "{reception:?}");
        }
    }

    #[test]
    fn the_first_packets_show_no_received_bitrate() {
        let mut downlink = Downlink::default();
        downlink.report(&carried(2_000_000, 1_000_000, 20_000, 20));
        assert_eq!(downlink.reception().and_then(|reception| reception.delivered), None);
        downlink.report(&carried(2_000_000, 1_400_000, 20_000, 40));
        let delivered = downlink.reception().and_then(|reception| reception.delivered).expect("a second");
        assert!((470_000..=500_000).contains(&delivered), "480 kbit/s: {delivered}");
    }

    #[test]
    fn a_receiver_whose_first_packets_arrive_needs_no_keyframe() {
        assert!(!Downlink::default().report(&carried(2_000_000, 1_000_000, 3_000, 14)));
    }

    #[test]
    fn measurements_of_bursts_expire() {
        let mut downlink = Downlink::default();
        for second in 1..9 {
            downlink.report(&carried(2_000_000, second * 1_000_000, 100, 2));
        }
        downlink.report(&carried(2_000_000, 30_000_000, 100, 1));
        assert_eq!(downlink.capacity(), None);
    }
}
