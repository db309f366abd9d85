//! The mixer with reduced effort, and with several threads.

use proptest::prelude::*;

use super::room::*;
use super::*;
use crate::media::SoundQuality::Thin;

fn most(talkers_max: u16) -> AudioEffort {
    AudioEffort { opus_complexity: 1, talkers_max: Some(talkers_max) }
}

/// Talkers whose tones are louder the higher their number is, and a silent listener of each quality.
fn crowd(talkers: u32) -> Room {
    let talker = |id: u32| Client::new(id, 230.0 + 170.0 * id as f32, 0.01 * 1.5_f32.powi(id as i32));
    let mut clients: Vec<Client> = (1..=talkers).map(talker).collect();
    clients.extend([Client::new(50, 0.0, 0.0), Client::new(51, 0.0, 0.0)]);
    clients.last_mut().expect("of two").quality = Thin;
    Room::new(clients)
}

#[test]
fn with_reduced_effort_the_loudest_talkers_are_mixed() {
    let mut room = crowd(6);
    room.run(60);
    room.mixer.set_effort(most(3));
    room.run(100);
    for client in &room.clients {
        let heard = client.last(50);
        for id in 1..=6 {
            let other = &room.clients[id - 1];
            let got = db(strength(heard, other.hz) / other.loud);
            let (who, what) = (client.participant, other.participant);
            if id > 3 && who != what {
                assert!(got.abs() < 6.0, "{who} hears {what} at {got} dB");
            } else {
                assert!(got < -20.0, "{who} hears {what} at {got} dB");
            }
        }
    }
    let named: Vec<u32> = room.audible[0].iter().map(|(participant, _)| participant.0).collect();
    assert_eq!(named, [4, 5, 6], "the contributing sources are the talkers in the mix");
    assert!(room.levels[&ParticipantId(1)] < 127, "levels are reported for all talkers");
}

#[test]
fn talkers_outside_the_mix_share_the_common_encode() {
    let mut room = crowd(6);
    room.run(60);
    let cost = |room: &mut Room| {
        let before = room.encoded();
        room.run(90);
        room.encoded() - before
    };
    assert_eq!(cost(&mut room), 6 * 90 + 90 + 30, "six mixes-minus, and the full mix in both qualities");
    room.mixer.set_effort(most(2));
    room.run(6);
    assert_eq!(cost(&mut room), 2 * 90 + 90 + 30);
    assert_eq!(room.mixer.stats().left_out, 4 * 95, "from the tick after the one that fades out");
    room.mixer.set_effort(AudioEffort::FULL);
    room.run(6);
    assert_eq!(cost(&mut room), 6 * 90 + 90 + 30);
}

#[test]
fn changes_of_the_effort_cause_no_gap_and_no_click() {
    let mut room = crowd(5);
    room.clients[0].quality = Thin;
    room.plan();
    room.run(60);
    let missed: Vec<u64> = room.clients.iter().map(|client| client.concealed).collect();
    for round in 0..12 {
        room.mixer.set_effort([most(2), most(4), AudioEffort::FULL][round % 3]);
        room.run(17 + round as u64 % 4);
    }
    let slope = |client: &Client| TAU * client.hz / 48_000.0 * client.loud;
    let all: f32 = room.clients.iter().map(slope).sum();
    for (client, missed) in room.clients.iter().zip(missed) {
        assert_eq!(client.concealed, missed, "{} misses ticks", client.participant);
        let steep = steepest(client.last(200));
        assert!(steep < 1.6 * all, "a step of {steep} where tones make {all}, for {}", client.participant);
    }
}

#[test]
fn a_talker_that_leaves_the_mix_does_not_hear_itself() {
    for quality in [Full, Thin] {
        let mut room = crowd(3);
        room.clients[0].quality = quality;
        room.clients[0].loud = 0.3;
        room.plan();
        room.run(60);
        // Two others become louder.
        (room.clients[0].loud, room.clients[1].loud, room.clients[2].loud) = (0.1, 0.4, 0.4);
        room.mixer.set_effort(most(2));
        for _ in 0..20 {
            room.run(3);
            let client = &room.clients[0];
            let own = strength(client.last(3), client.hz);
            assert!(own < 0.03, "{quality:?}: {own}");
        }
    }
}

#[test]
fn opus_complexity_follows_the_effort() {
    let mut room = crowd(1);
    let bytes = |room: &mut Room| {
        room.run(50);
        room.clients[1].packets.iter().rev().take(40).map(|(_, packet)| packet.payload.clone()).collect::<Vec<_>>()
    };
    let full = bytes(&mut room);
    let mut reduced = crowd(1);
    reduced.mixer.set_effort(AudioEffort { talkers_max: None, ..most(1) });
    assert_ne!(full, bytes(&mut reduced), "another complexity is another bitstream");
}

#[test]
fn several_threads_mix_the_same_as_one() {
    let run = |threads: u32| {
        let clients = (1..=24).map(|id| Client::new(id, 200.0 + 90.0 * id as f32, 0.03));
        let mut room = Room::new(clients.chain([Client::new(60, 0.0, 0.0)]).collect());
        room.mixer = SoundMixer::new(Sounds::default(), threads);
        room.clients.iter().for_each(|client| room.mixer.set_source(client.spec(), Arc::default()));
        room.plan();
        room.run(40);
        room.clients.into_iter().map(|client| client.packets).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// For any sequence of efforts and talkers each listener gets every tick, once (see `hear`).
    #[test]
    fn no_packet_is_missing_at_any_effort(
        steps in prop::collection::vec((0..6_usize, any::<bool>(), 0..4_u16, 1..9_u64), 5..20),
    ) {
        let mut room = crowd(6);
        // It talks all the time, so that no tick is silence.
        let mut loud = Client::new(9, 150.0, 0.5);
        loud.quality = Thin;
        room.clients.push(loud);
        room.mixer.set_source(room.clients[8].spec(), Arc::default());
        room.plan();
        room.run(30);
        for (who, talks, talkers, ticks) in steps {
            room.clients[who].loud = if talks { 0.2 } else { 0.0 };
            room.mixer.set_effort(if talkers == 0 { AudioEffort::FULL } else { most(talkers) });
            let concealed: Vec<u64> = room.clients.iter().map(|client| client.concealed).collect();
            room.run(ticks);
            for (client, before) in room.clients[..8].iter().zip(concealed) {
                prop_assert_eq!(client.concealed, before, "{} misses ticks", client.participant);
            }
        }
    }
}
