//! Thin and full quality in one room, and changes between them.

use proptest::prelude::*;

use super::super::mix::timestamp;
use super::room::*;
use super::*;
use crate::media::SoundQuality::{Full, Thin};

/// Four talkers and three silent listeners, every other one with thin quality.
fn mixed_room() -> Room {
    let tones = [330.0, 530.0, 870.0, 1270.0];
    let mut clients: Vec<Client> = tones.iter().zip(1..).map(|(&hz, id)| Client::new(id, hz, 0.15)).collect();
    clients.extend([9, 10, 11].map(|id| Client::new(id, 440.0, 0.0)));
    for client in clients.iter_mut().step_by(2) {
        client.quality = Thin;
    }
    Room::new(clients)
}

#[test]
fn each_participant_hears_all_others_in_thin_quality_too() {
    let mut room = mixed_room();
    room.run(150);
    for client in &room.clients {
        let heard = client.last(50);
        for other in room.clients.iter().filter(|other| other.loud > 0.0) {
            let got = db(strength(heard, other.hz) / other.loud);
            let (who, hz) = (client.participant, other.hz);
            if other.participant == who {
                // A low bitrate causes some noise at any frequency.
                let below = if client.quality == Thin { -34.0 } else { -40.0 };
                assert!(got < below, "{who} hears itself at {got} dB");
            } else {
                let near = if client.quality == Thin { 6.0 } else { 3.0 };
                assert!(got.abs() < near, "{who} hears {hz} Hz at {got} dB");
            }
        }
        let recent: Vec<_> = client.packets.iter().filter(|(n, _)| *n >= room.n - 90).collect();
        let bytes: usize = recent.iter().map(|(_, packet)| packet.payload.len()).sum();
        let kbps = bytes as f64 * 8.0 / 1.8 / 1_000.0;
        let (packets, rate) = if client.quality == Thin { (30, 15.0..24.0) } else { (90, 30.0..60.0) };
        assert_eq!(recent.len(), packets, "{:?}", client.participant);
        assert!(rate.contains(&kbps), "{} gets {kbps} kbit/s", client.participant);
    }
}

#[test]
fn thin_audio_needs_one_encode_per_packet_and_none_without_listeners() {
    let cost = |room: &mut Room| {
        let before = room.encoded();
        room.run(90);
        room.encoded() - before
    };
    let mut room = mixed_room();
    room.run(30);
    // Two thin and two full talkers, and the full mix in both qualities.
    assert_eq!(cost(&mut room), 2 * 30 + 2 * 90 + 30 + 90);
    for client in &mut room.clients {
        client.quality = Full;
    }
    room.plan();
    room.run(3);
    assert_eq!(cost(&mut room), 4 * 90 + 90);
    for client in &mut room.clients {
        client.loud = 0.0;
        client.quality = Thin;
    }
    room.plan();
    room.run(90);
    assert_eq!(cost(&mut room), 0, "silence is not encoded");
    room.clients[0].loud = 0.2;
    room.run(30);
    assert_eq!(cost(&mut room), 30, "one encode for all silent listeners");
}

#[test]
fn a_change_of_quality_causes_no_click_and_no_gap() {
    let mut clients = vec![Client::new(1, 300.0, 0.2), Client::new(2, 470.0, 0.2), Client::new(3, 500.0, 0.0)];
    clients.extend([Client::new(4, 500.0, 0.0), Client::new(5, 500.0, 0.0)]);
    clients[4].quality = Thin;
    let mut room = Room::new(clients);
    room.run(60);
    let begun: Vec<u64> = room.clients.iter().map(|client| client.concealed).collect();
    // A talker and a listener change their quality, at every position within a packet; the others keep theirs.
    for round in 0..24 {
        for who in [1, 2] {
            room.clients[who].quality = if round % 2 == 0 { Thin } else { Full };
        }
        room.plan();
        room.run(20 + round % 5);
    }
    // A low bitrate causes noise: steps and levels are compared with those of a client with constant thin quality.
    let heard = |k: usize| &room.clients[k].heard[40 * AUDIO_TICK_SAMPLES..];
    let softest = |k: usize| heard(k).chunks(AUDIO_TICK_SAMPLES).map(rms).fold(1.0, f32::min);
    let (steep_limit, soft_limit) = (1.3 * steepest(heard(4)), 0.7 * softest(4));
    for k in [1, 2, 3] {
        let client = &room.clients[k];
        assert_eq!(client.concealed, begun[k], "{} misses ticks", client.participant);
        let (steep, soft) = (steepest(heard(k)), softest(k));
        assert!(steep < steep_limit, "a step of {steep}, against {steep_limit}, for {}", client.participant);
        assert!(soft > soft_limit, "a gap of {soft}, against {soft_limit}, for {}", client.participant);
    }
}

#[test]
fn skipped_ticks_are_missing_for_thin_listeners_and_no_others() {
    let mut clients = vec![Client::new(1, 300.0, 0.2), Client::new(2, 470.0, 0.0)];
    clients[1].quality = Thin;
    let mut room = Room::new(clients);
    room.run(32);
    assert_eq!(room.n % 3, 0);
    room.n += 1;
    room.run(2);
    let (n, packet) = room.clients[1].packets.last().expect("a packet was sent");
    assert_eq!((*n, packet.timestamp, opus_samples(&packet.payload)), (room.n - 1, timestamp(room.n - 2), 1_920));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For any sequence of changes: no tick is sent twice to a client (see `hear`), timestamps are those of ticks, and
    /// a listener of a talker misses no more than one thin packet.
    #[test]
    fn qualities_and_talk_change_at_any_time(
        thin_ms in prop::sample::select(vec![20_u32, 40, 60]),
        steps in prop::collection::vec((0..4_usize, any::<bool>(), any::<bool>(), 1..9_u64), 10..30),
    ) {
        let clients = (1..=4).map(|id| Client::new(id, 200.0 * id as f32, 0.0)).chain([Client::new(5, 150.0, 0.2)]);
        let mut room = Room::new(clients.collect());
        room.mixer = SoundMixer::new(Sounds::new(48, 20, thin_ms), 1);
        room.clients.iter().for_each(|client| room.mixer.set_source(client.spec(), Arc::default()));
        room.plan();
        room.run(30);
        for (who, thin, talks, ticks) in steps {
            room.clients[who].quality = if thin { Thin } else { Full };
            room.clients[who].loud = if talks { 0.2 } else { 0.0 };
            room.plan();
            let concealed: Vec<u64> = room.clients.iter().map(|client| client.concealed).collect();
            room.run(ticks);
            for (client, before) in room.clients[..4].iter().zip(concealed) {
                prop_assert_eq!(client.concealed, before, "{} misses ticks", client.participant);
            }
        }
        for (_, packet) in room.clients.iter().flat_map(|client| &client.packets) {
            prop_assert_eq!(packet.timestamp % 960, 0);
        }
    }
}
