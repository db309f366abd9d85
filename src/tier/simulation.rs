//! Simulated links: the chooser's stream passes the pacer and a queue of given rate, delay and loss, and its arrivals
//! are reported back. Times are in microseconds; random numbers are seeded.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::{Arrival, Chooser, Downlink, Ladder, Pacer, TierSpec, packet_bytes};
use crate::media::{SoundTaken, Tier};
use crate::time::Timestamp;

/// Interval of feedback.
const FEEDBACK: u64 = 100_000;
/// Bytes added to a packet's payload.
const OVERHEAD: usize = 64;
/// Offset of the receiver's clock, with a path of 20 ms.
const ANOTHER_CLOCK: Duration = Duration::from_micros(7_020_000);
/// Size of a keyframe relative to other frames.
const KEYFRAME: f64 = 6.0;

struct Link {
    /// Present rate in bits per second.
    rate: u64,
    /// Longest queue in microseconds; packets that would wait longer are lost.
    queue: u64,
    loss: f64,
    /// Greatest jitter in microseconds.
    jitter: u64,
    /// Time in microseconds at which the path becomes longer, and by how many microseconds.
    longer: (u64, u64),
    /// Interval and duration of stalls in microseconds: a radio scans, or a receiver's process is not scheduled.
    stalls: Option<(u64, u64)>,
    /// Time at which the link is free again.
    free: u64,
    seed: u64,
}

impl Link {
    fn chance(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn send(&mut self, at: u64, size: usize) -> Arrival {
        let mut starts = self.free.max(at);
        if let Some((every, long)) = self.stalls
            && starts % every >= every - long
        {
            starts = starts.next_multiple_of(every);
        }
        let lost = self.chance() < self.loss || starts - at > self.queue;
        let mut arrival = None;
        if !lost {
            self.free = starts + size as u64 * 8 * 1_000_000 / self.rate;
            let jitter = (self.chance() * self.jitter as f64) as u64;
            let longer = if at >= self.longer.0 { self.longer.1 } else { 0 };
            arrival = Some(Duration::from_micros(self.free + longer + jitter) + ANOTHER_CLOCK);
        }
        Arrival { departure: Timestamp::from_micros(at), arrival, reported: true, size }
    }
}

/// Changes of tier by time in seconds.
struct Run {
    changes: Vec<(f64, Tier)>,
    /// Departures of audio packets, and their queueing delay; None if lost.
    sounds: Vec<(f64, Option<Duration>)>,
}

impl Run {
    fn tier_at(&self, seconds: f64) -> Tier {
        self.changes.iter().rev().find(|(at, _)| *at <= seconds).map_or(Tier::High, |(_, tier)| *tier)
    }

    /// Greatest queueing delay of audio between these seconds.
    fn sound_waits(&self, from: f64, to: f64) -> Duration {
        let inside = self.sounds.iter().filter(|(at, _)| (from..to).contains(at));
        inside.filter_map(|(_, waited)| *waited).max().unwrap_or_default()
    }

    fn changes_between(&self, from: f64, to: f64) -> usize {
        self.changes.iter().filter(|(at, _)| (from..to).contains(at)).count()
    }
}

/// An encoder with its queued packets. Keyframes are several times as large as other frames, which are smaller for a
/// while in return.
struct Camera {
    spec: Option<TierSpec>,
    keyframe: bool,
    /// Bytes by which it has exceeded its bitrate.
    debt: f64,
    next: u64,
    waiting: VecDeque<(u64, usize)>,
}

impl Camera {
    fn film(&mut self, now: u64) {
        if now < self.next {
            return;
        }
        let Some(spec) = self.spec else { return };
        self.next = now + 1_000_000 / u64::from(spec.fps);
        let due = f64::from(spec.payload_kbps(spec.fps)) * 125.0 / f64::from(spec.fps);
        let bytes =
            if std::mem::take(&mut self.keyframe) { due * KEYFRAME } else { (due - self.debt / 8.0).max(due / 2.0) };
        self.debt = (self.debt + bytes - due).max(0.0);
        let packets = (bytes as usize).div_ceil(packet_bytes(spec.bitrate_kbps)).max(1);
        self.waiting.extend(std::iter::repeat_n((now, bytes as usize / packets), packets));
    }

    /// Switches to another stream, which begins with a keyframe.
    fn change(&mut self, spec: Option<TierSpec>) {
        self.waiting.clear();
        (self.spec, self.keyframe, self.debt) = (spec, spec.is_none_or(|spec| spec.fps > 1), 0.0);
    }

    fn backlog(&self, now: u64) -> Duration {
        self.waiting.front().map_or(Duration::ZERO, |(since, _)| Duration::from_micros(now - since))
    }
}

/// Sends what the chooser selects; `rates` are times in seconds with the rate in bits per second from then on.
fn run(mut link: Link, rates: &[(u64, u64)], seconds: u64, measured: bool) -> Run {
    let ladder = Ladder::default();
    let mut chooser = Chooser::new(ladder.costs(), Timestamp::from_micros(0));
    let mut pacer = Pacer::new(Timestamp::from_micros(0));
    let mut downlink = Downlink::default();
    let mut on_the_way: VecDeque<Arrival> = VecDeque::new();
    let mut camera =
        Camera { spec: ladder.spec(Tier::High), keyframe: true, debt: 0.0, next: 0, waiting: VecDeque::new() };
    let (mut changes, mut sounds) = (Vec::new(), Vec::new());
    let mut next_sound = 0_u64;
    for now in (0..seconds * 1_000_000).step_by(1_000) {
        if let Some((_, rate)) = rates.iter().rev().find(|(from, _)| from * 1_000_000 <= now) {
            link.rate = *rate;
        }
        let at = Timestamp::from_micros(now);
        if now >= next_sound {
            let sound = ladder.sounds.spec(SoundTaken::Any.with(chooser.tier()));
            next_sound += u64::from(sound.packet_ms) * 1_000;
            let payload = (sound.bitrate_kbps * sound.packet_ms / 8) as usize;
            pacer.sound(payload, at);
            let sent = link.send(now, payload + OVERHEAD);
            let waited = sent.arrival.map(|at| at - ANOTHER_CLOCK - Duration::from_micros(now));
            sounds.push((now as f64 / 1e6, waited));
            on_the_way.push_back(sent);
        }
        camera.film(now);
        while !camera.waiting.is_empty() && pacer.wait(at).is_none() {
            let (_, payload) = camera.waiting.pop_front().expect("just seen");
            pacer.sent(payload);
            on_the_way.push_back(link.send(now, payload + OVERHEAD));
        }
        if now % FEEDBACK == 0 {
            let due = on_the_way.iter().take_while(|packet| {
                packet.departure.as_micros() + 600_000 < now
                    || packet.arrival.is_some_and(|at| at.as_micros() as u64 <= now + 7_000_000)
            });
            let due = due.count();
            let arrivals: Vec<Arrival> = on_the_way.drain(..due).collect();
            downlink.report(&arrivals);
            let Some(mut reception) = downlink.reception() else { continue };
            reception.backlog = camera.backlog(now);
            if measured {
                pacer.follow(reception.capacity, reception.queue_now.unwrap_or_default(), at);
            } else {
                if now % 1_000_000 != 0 {
                    continue;
                }
                (reception.capacity, reception.delivered) = (None, None);
            }
            if let Some(choice) = chooser.report(at, &reception) {
                changes.push((now as f64 / 1e6, choice.tier));
                camera.change(ladder.spec(choice.tier));
                pacer.hold_until(at + choice.pause);
            }
        }
    }
    Run { changes, sounds }
}

fn link(seed: u64) -> Link {
    Link { rate: 0, queue: 400_000, loss: 0.0, jitter: 3_000, longer: (u64::MAX, 0), stalls: None, free: 0, seed }
}

#[test]
fn the_tier_follows_the_link_down_and_up() {
    let rates = [(0, 2_000_000), (20, 600_000), (40, 200_000), (60, 80_000), (80, 2_000_000)];
    for seed in 0..20 {
        let run = run(link(seed), &rates, 110, true);
        for (from, tier) in [(20.0, Tier::Medium), (40.0, Tier::Low), (60.0, Tier::Slides)] {
            assert_eq!(run.tier_at(from + 5.0), tier, "seed {seed}, five seconds after {from}: {:?}", run.changes);
            assert_eq!(run.tier_at(from + 19.9), tier, "seed {seed}, and at the end: {:?}", run.changes);
            assert!(run.changes_between(from, from + 20.0) <= 3, "seed {seed} flaps: {:?}", run.changes);
            // Audio waits for one video packet at least, and for two where a burst has begun.
            let waits = run.sound_waits(from + 5.0, from + 20.0);
            assert!(waits < Duration::from_millis(160), "seed {seed}: the voice waits for {waits:?} from {from} on");
        }
        let waits = run.sound_waits(2.0, 20.0);
        assert!(waits < Duration::from_millis(40), "seed {seed}: the voice waits for {waits:?} on the best tier");
        assert_eq!(run.tier_at(19.9), Tier::High, "seed {seed}: {:?}", run.changes);
        assert_eq!(run.tier_at(95.0), Tier::High, "seed {seed}, fifteen seconds up: {:?}", run.changes);
        assert_eq!(run.tier_at(109.9), Tier::High, "seed {seed}: {:?}", run.changes);
    }
}

#[test]
fn a_longer_path_is_no_queue() {
    for seed in 0..20 {
        for rate in [2_000_000, 20_000_000] {
            let run = run(Link { longer: (15_000_000, 140_000), ..link(seed) }, &[(0, rate)], 40, true);
            assert_eq!(run.changes, [], "seed {seed}, {rate} bit/s");
        }
    }
}

#[test]
fn a_path_that_stalls_briefly_keeps_its_tier() {
    for seed in 0..20 {
        for (rate, long) in [(3_000_000, 150_000), (5_000_000, 250_000), (20_000_000, 350_000), (50_000_000, 380_000)] {
            for every in [730_000, 2_050_000, 3_110_000] {
                let run = run(Link { stalls: Some((every, long)), ..link(seed) }, &[(0, rate)], 40, true);
                assert_eq!(run.changes, [], "seed {seed}, {rate} bit/s, nothing for {long} of {every}");
            }
        }
    }
}

#[test]
fn losses_without_congestion_do_not_change_the_tier() {
    for seed in 0..20 {
        let run = run(Link { loss: 0.05, ..link(seed) }, &[(0, 5_000_000)], 30, true);
        assert_eq!(run.changes, [], "seed {seed}");
    }
}

#[test]
fn without_arrival_times_better_tiers_are_tried_less_and_less_often() {
    for seed in 0..20 {
        let run = run(link(seed), &[(0, 700_000)], 120, false);
        assert_eq!(run.tier_at(8.0).min(Tier::Medium), run.tier_at(8.0), "seed {seed}: {:?}", run.changes);
        // Tries of the best tier become rare.
        let tries = run.changes.iter().filter(|(_, tier)| *tier == Tier::High).count();
        assert!((1..=5).contains(&tries), "seed {seed}: {:?}", run.changes);
    }
    let run = run(link(1), &[(0, 300_000), (20, 5_000_000)], 60, false);
    assert_eq!(run.tier_at(59.0), Tier::High, "{:?}", run.changes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// On a link of any rate the tier fits in the end, and is not below the best one that fits with a margin.
    #[test]
    fn any_link_finds_its_tier(rate in 80_000_u64..4_000_000, seed in any::<u64>(), jitter in 0_u64..8_000) {
        let run = run(Link { jitter, ..link(seed) }, &[(0, rate)], 40, true);
        let costs = Ladder::default().costs();
        let sure = Tier::ALL.into_iter().rev().find(|tier| costs.of(*tier) * 3 / 2 <= rate).unwrap_or(Tier::Audio);
        let tenths = (150..400).map(|tenth| run.tier_at(f64::from(tenth) / 10.0));
        let over = tenths.clone().filter(|tier| costs.of(*tier) > rate.max(costs.audio) * 11 / 10).count();
        let under = tenths.filter(|tier| *tier < sure).count();
        // Occasional tries exceed the link.
        prop_assert!(over <= 80, "{} tenths of a second too much on {}: {:?}", over, rate, run.changes);
        prop_assert!(under <= 50, "{} tenths of a second too little on {}: {:?}", under, rate, run.changes);
        prop_assert!(run.changes_between(15.0, 40.0) <= 6, "flaps on {}: {:?}", rate, run.changes);
    }
}
