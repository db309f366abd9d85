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
        captured: None,
        audio_level: None,
        rotation: None,
        colours: None,
        payload: Bytes::copy_from_slice(&index.to_be_bytes()),
    }
}

fn index(packet: &SourcePacket) -> u64 {
    u64::from_be_bytes(packet.payload[..].try_into().expect("eight bytes"))
}

/// A mixer that pulls ticks of 20 ms, and its counters.
#[derive(Debug, Default)]
struct Playout {
    ring: u64,
    played: Vec<(u64, u64)>,
    concealed: u64,
    with_fec: u64,
    idle: u64,
    ticks: u64,
}

impl Playout {
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
) -> (AudioJitter, Playout) {
    let mut jitter = AudioJitter::new(48_000);
    let mut playout = Playout::default();
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
        playout.tick(&mut jitter, now, duration);
        now += TICK;
    }
    (jitter, playout)
}

fn noise(i: u64, below: u64) -> u64 {
    // splitmix64: the same on every run.
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

fn longest_delay(playout: &Playout, sent: impl Fn(u64) -> u64, from: u64) -> u64 {
    playout.played.iter().filter(|(i, _)| *i >= from).map(|(i, now)| now - sent(*i)).max().unwrap_or(0)
}

#[test]
fn without_jitter_the_delay_is_small_and_nothing_is_concealed() {
    let (jitter, playout) = listen(1_000, TICK, 7_000, |i| i * TICK, |i| Some(i * TICK));
    assert_eq!(playout.concealed, 0);
    assert!(longest_delay(&playout, |i| i * TICK, 0) <= 50_000);
    assert_eq!(jitter.stats().lost + jitter.stats().late + jitter.stats().shed, 0);
    assert_eq!(playout.ticks - playout.idle, playout.played.len() as u64);
}

#[test]
fn a_lost_packet_is_returned_with_the_packet_after_it() {
    let (jitter, playout) = listen(500, TICK, 7_000, |i| i * TICK, |i| (i % 50 != 25).then_some(i * TICK));
    assert_eq!((playout.concealed, jitter.stats().lost), (10, 10));
    assert!(playout.with_fec >= 9, "{playout:?}");
    assert_eq!(playout.idle + playout.concealed + playout.played.len() as u64, playout.ticks);
}

#[test]
fn when_the_sender_stops_it_conceals_for_100_ms_and_is_idle() {
    let (mut jitter, _) = listen(50, TICK, 0, |i| i * TICK, |i| Some(i * TICK));
    let mut playout = Playout::default();
    for i in 50..100 {
        playout.tick(&mut jitter, i * TICK, TICK);
    }
    assert_eq!(playout.concealed, 5);
    assert_eq!(jitter.pull(at(101 * TICK)), AudioPull::Idle);
}

#[test]
fn a_pause_with_contiguous_sequence_numbers_is_not_loss() {
    let mut jitter = AudioJitter::new(48_000);
    let mut playout = Playout::default();
    // DTX: one packet each 400 ms.
    for tick in 0..1_000 {
        if tick % 20 == 0 {
            let mut p = packet(tick / 20, 0, at(tick * TICK));
            p.timestamp = tick as u32 * 960;
            jitter.insert(p, at(tick * TICK));
        }
        playout.tick(&mut jitter, tick * TICK, TICK);
    }
    assert_eq!(playout.played.len(), 50);
    assert_eq!(jitter.stats().lost, 0);
    assert!(playout.played.iter().all(|(i, now)| now - i * 20 * TICK <= 60_000));
}

#[test]
fn the_delay_grows_in_a_spike_and_shrinks_after_it() {
    // The network holds everything back for 300 ms once, then goes on as before.
    let arrive = |i: u64| Some(if (500..515).contains(&i) { 515 * TICK } else { i * TICK });
    let (jitter, playout) = listen(3_000, TICK, 3_000, |i| i * TICK, arrive);
    assert!(longest_delay(&playout, |i| i * TICK, 510) >= 100_000);
    assert!(longest_delay(&playout, |i| i * TICK, 2_500) <= 90_000, "{:?}", jitter.stats());
    assert!(jitter.stats().shed > 0);
}

#[test]
fn with_reordered_packets_the_delay_grows_until_they_are_in_time() {
    // 10 ms packets up to 130 ms late: the buffer is never empty, and its delay is too short at first.
    let (jitter, playout) = listen(6_000, 10_000, 0, |i| i * 10_000, |i| Some(i * 10_000 + noise(i, 130_000)));
    let late_half = playout.played.iter().filter(|(i, _)| *i >= 3_000).count();
    assert!(late_half >= 2_850, "{late_half} of 3000 were in time: {:?}", jitter.stats());
}

#[test]
fn a_quiet_packet_is_dropped_first() {
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

/// Plays 20 s of packets with a delay of `extra` from the fifth to the twelfth second; returns the delays of packets in
/// microseconds in the seconds 4, 11 and 19, which are the same within each of them.
fn delays_with(extra: Duration, level: Option<u8>) -> ([u64; 3], AudioStats, Playout) {
    let (mut jitter, mut playout) = (AudioJitter::new(48_000), Playout::default());
    for i in 0..1_000_u64 {
        jitter.set_extra(if (250..600).contains(&i) { extra } else { Duration::ZERO });
        let arrival = at(i * TICK);
        jitter.insert(SourcePacket { audio_level: level, ..packet(i, 960, arrival) }, arrival);
        playout.tick(&mut jitter, i * TICK + 7_000, TICK);
    }
    let second = |second: u64| {
        let of = |(i, now): &(u64, u64)| (now / 1_000_000 == second).then(|| now - i * TICK);
        let delays: Vec<u64> = playout.played.iter().filter_map(of).collect();
        assert!(delays.iter().all(|delay| *delay == delays[0]), "{delays:?}");
        delays[0]
    };
    ([4, 11, 19].map(second), jitter.stats(), playout)
}

#[test]
fn an_added_delay_is_reached_by_concealments_and_left_by_dropped_packets() {
    for level in [None, Some(10), Some(90)] {
        let ([before, with, after], stats, playout) = delays_with(Duration::from_millis(90), level);
        let added = with - before;
        // It is closer than two packets.
        assert!((50_001..=90_000).contains(&added), "{added} µs were added to {before}");
        assert_eq!((stats.inserted * TICK, stats.lost), (added, 0), "{stats:?}");
        assert!(after <= before + TICK, "{after} instead of {before} µs remain");
        assert!(playout.played.is_sorted(), "packets are played in order");
        assert_eq!(playout.concealed, stats.inserted);
    }
}

#[test]
fn without_an_added_delay_nothing_is_inserted() {
    let (delays, stats, _) = delays_with(Duration::ZERO, None);
    assert_eq!((stats.inserted, delays[0]), (0, delays[2]));
}

#[test]
fn playout_continues_after_a_restart_of_the_sender() {
    let (mut jitter, _) = listen(100, TICK, 0, |i| i * TICK, |i| Some(i * TICK));
    let mut playout = Playout::default();
    for i in 100..200 {
        let mut p = packet(i, 960, at(i * TICK));
        p.sequence = p.sequence.wrapping_add(20_000);
        p.timestamp = p.timestamp.wrapping_add(0x5555_5555);
        jitter.insert(p, at(i * TICK));
        playout.tick(&mut jitter, i * TICK, TICK);
    }
    assert!(playout.played.len() >= 90, "{} played", playout.played.len());
    assert!(longest_delay(&playout, |i| i * TICK, 0) <= 100_000);
}

#[test]
fn the_buffer_holds_at_most_one_second() {
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
        let (jitter, playout) = listen(count, TICK, 5_000, sent, |i| Some(sent(i) + noise(i, 12_000)));
        let stats = jitter.stats();
        // 200 ppm of an hour are 720 ms, 36 packets too many or too few.
        assert!(longest_delay(&playout, sent, 0) <= 130_000, "{ppm} ppm: {}", longest_delay(&playout, sent, 0));
        assert!(stats.shed + stats.concealed <= 60, "{ppm} ppm: {stats:?}");
        assert_eq!(stats.late + stats.lost + stats.overflow, 0, "{stats:?}");
        assert!(if ppm > 0 { stats.shed >= 30 } else { stats.concealed >= 30 }, "{ppm} ppm: {stats:?}");
        // Every tick was filled, by one packet or one concealment.
        assert_eq!(playout.played.len() as u64 + playout.concealed + playout.idle, playout.ticks);
        assert!(playout.idle <= 4);
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
        let (buffer, playout) = listen(count, duration, phase, sent, |i| {
            (noise(seed + i, 100) >= loss).then(|| sent(i) + noise(seed + 500_000 + i, jitter_ms * 1_000 + 1))
        });
        let stats = buffer.stats();
        prop_assert!(playout.played.windows(2).all(|w| w[0].0 < w[1].0), "played out of order");
        // The worst jitter, what is not worth leaving out, and a tick or two of rounding.
        let bound = (jitter_ms + 120) * 1_000 + 5 * duration;
        let worst = longest_delay(&playout, sent, 0);
        prop_assert!(worst <= bound, "{worst} of {bound} µs: {stats:?}");
        // After ten seconds the target is learnt: few packets come too late for it.
        let gone = count - playout.played.len() as u64;
        let most = count as f64 * (loss as f64 / 100.0 * 1.5 + 0.08) + 10.0;
        prop_assert!(gone as f64 <= most, "{gone} of {count}: {stats:?}");
        let held = buffer.packets.len() as u64;
        prop_assert_eq!(stats.received, stats.played + stats.late + stats.shed + stats.overflow + held);
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
