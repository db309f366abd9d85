//! The audio mixer in virtual time: real Opus packets in, decoded audio of each listener out. What is mixed here;
//! qualities, and mixing under load, in the modules below.

mod load;
mod qualities;
mod room;

use std::f32::consts::TAU;

use self::room::*;
use super::*;
use crate::media::SoundQuality::{Full, Thin};
use crate::media::{AUDIO_RATE, Codec};
use crate::plan::MixInput;

#[test]
fn each_participant_hears_all_others() {
    let tones = [330.0, 530.0, 870.0, 1270.0];
    let mut clients: Vec<Client> = tones.iter().zip(1..).map(|(&hz, id)| Client::new(id, hz, 0.15)).collect();
    clients.push(Client::new(9, 440.0, 0.0));
    let mut room = Room::new(clients);
    room.run(150);
    for client in &room.clients {
        let heard = client.last(50);
        for hz in tones {
            let got = strength(heard, hz);
            if hz == client.hz {
                assert!(db(got / 0.15) < -40.0, "{} hears himself at {} dB", client.participant, db(got / 0.15));
            } else {
                assert!(db(got / 0.15).abs() < 3.0, "{} hears {hz} Hz at {} dB", client.participant, db(got / 0.15));
            }
        }
    }
    let levels: Vec<u8> = room.levels.values().copied().collect();
    assert!(levels[..4].iter().all(|level| (18..=22).contains(level)), "{levels:?}");
    assert_eq!(levels[4], 127);
}

#[test]
fn ticks_list_the_audible_participants_with_their_levels() {
    let mut clients: Vec<Client> = (1..=20).map(|id| Client::new(id, 200.0 + 40.0 * id as f32, 0.0)).collect();
    (clients[2].loud, clients[6].loud) = (0.15, 0.05);
    clients[9].quality = Thin;
    let mut room = Room::new(clients);
    room.run(100);
    for audible in &room.audible {
        let [(first, loud), (second, soft)] = audible[..] else { panic!("{audible:?}") };
        assert_eq!((first, second), (ParticipantId(3), ParticipantId(7)));
        assert!((17..=22).contains(&loud) && (27..=32).contains(&soft), "{audible:?}");
    }
    for client in &mut room.clients {
        client.loud = 0.02 + 0.005 * client.participant.0 as f32;
    }
    room.run(60);
    let crowd: Vec<u32> = room.audible[0].iter().map(|(participant, _)| participant.0).collect();
    assert_eq!(crowd, (5..=20).collect::<Vec<_>>(), "of a crowd the loudest");
    room.clients.iter_mut().for_each(|client| client.loud = 0.0);
    room.run(100);
    assert_eq!(room.audible, [Levels::new(), Levels::new()], "no participant is audible in silence");
}

#[test]
fn a_mix_minus_leaves_out_all_sources_of_its_participant() {
    let mut clients = vec![Client::new(1, 330.0, 0.2), Client::new(2, 530.0, 0.2), Client::new(3, 870.0, 0.2)];
    clients[1].participant = ParticipantId(1);
    let mut room = Room::new(clients);
    room.run(100);
    let heard = room.clients[0].last(40);
    assert!(strength(heard, 870.0) > 0.15);
    for own in [330.0, 530.0] {
        assert!(db(strength(heard, own) / 0.2) < -40.0);
    }
}

#[test]
fn silent_listeners_share_one_encode_and_a_single_talker_needs_none() {
    let mut clients: Vec<Client> = (1..=10).map(|id| Client::new(id, 400.0, 0.0)).collect();
    clients[0].loud = 0.3;
    let mut room = Room::new(clients);
    room.run(100);
    let before = room.encoded();
    room.run(100);
    let encodes = room.encoded() - before;
    assert_eq!(encodes, 100, "one each tick");
    let alone = &room.clients[0];
    assert!(strength(alone.last(40), 400.0) < 1e-3);
    let recent = alone.packets.iter().filter(|(n, _)| *n >= room.n - 100).count();
    assert!(recent <= 5, "{recent} packets of silence were sent");
    assert_eq!(room.clients[5].packets.iter().filter(|(n, _)| *n >= room.n - 100).count(), 100);

    room.clients[0].loud = 0.0;
    room.run(100);
    let before = room.encoded();
    room.run(200);
    assert_eq!(room.encoded(), before, "silence is not encoded");

    room.clients[1].loud = 0.3;
    room.clients[2].loud = 0.3;
    room.run(50);
    let before = room.encoded();
    room.run(100);
    assert_eq!(room.encoded() - before, 300, "the full mix and two mixes-minus");
}

#[test]
fn a_mix_without_listeners_is_not_encoded() {
    let mut room = Room::new(vec![Client::new(1, 330.0, 0.2), Client::new(2, 530.0, 0.2)]);
    room.run(50);
    let before = room.encoded();
    room.run(100);
    assert_eq!(room.encoded() - before, 200, "both talk, so the full mix has no listeners");
}

#[test]
fn joining_leaving_and_talking_cause_no_clicks() {
    let mut clients = vec![Client::new(1, 300.0, 0.2), Client::new(2, 470.0, 0.0), Client::new(3, 610.0, 0.2)];
    clients.push(Client::new(4, 500.0, 0.0));
    clients[2].joined = false;
    let mut room = Room::new(clients);
    room.run(60);
    let begun = room.clients[3].heard.len() - 25 * AUDIO_TICK_SAMPLES;
    for round in 0..6 {
        room.clients[2].joined = round % 2 == 0;
        if !room.clients[2].joined {
            let gone = room.clients[2].source;
            room.mixer.remove_source(gone);
        } else {
            room.mixer.set_source(room.clients[2].spec(), Arc::default());
        }
        room.plan();
        room.run(40);
        // Listener 2 changes from the full mix to a mix-minus and back.
        room.clients[1].loud = if round % 2 == 0 { 0.2 } else { 0.0 };
        room.run(70);
    }
    let slope = |hz: f32, loud: f32| TAU * hz / AUDIO_RATE as f32 * loud;
    let all = slope(300.0, 0.2) + slope(470.0, 0.2) + slope(610.0, 0.2);
    let steep = steepest(&room.clients[3].heard[begun..]);
    assert!(steep < 1.6 * all, "a step of {steep} where tones make {all}");
    let others = slope(300.0, 0.2) + slope(610.0, 0.2);
    let steep = steepest(&room.clients[1].heard[begun..]);
    assert!(steep < 1.6 * others, "a step of {steep} where tones make {others}, for a listener that changes its mix");
}

#[test]
fn lost_packets_are_concealed() {
    // A fixed pattern without period: about 5 %.
    let lost = |client: usize, n: u64| client == 0 && (n ^ (n >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 < 3;
    let run = |loses: fn(usize, u64) -> bool| {
        let mut clients = vec![Client::new(1, 150.0, 0.3), Client::new(2, 500.0, 0.0)];
        clients[0].voice = voice;
        let mut room = Room::new(clients);
        room.loses = loses;
        room.run(500);
        let loudness: Vec<f32> = room.clients[1].last(400).chunks(AUDIO_TICK_SAMPLES).map(rms).collect();
        (loudness, room.mixer.stats().concealed)
    };
    let (whole, none) = run(|_, _| false);
    let (mended, concealed) = run(lost);
    assert_eq!(none, 0, "no packet is lost and no buffer is empty");
    let losses = (10_000..10_500).filter(|&n| lost(0, n)).count() as u64;
    assert!((15..40).contains(&losses) && (losses - 3..=losses).contains(&concealed), "{concealed} of {losses}");
    // No gaps: within 6 dB of the expected level, except for a few unpredictable ticks.
    let off = whole.iter().zip(&mended).map(|(whole, mended)| db(mended.max(0.005) / whole.max(0.005)).abs());
    let off: Vec<f32> = off.collect();
    assert!(off.iter().all(|off| *off < 14.0), "{off:?}");
    assert!(off.iter().filter(|off| **off > 6.0).count() <= 8, "{off:?}");
}

#[test]
fn nine_loud_talkers_are_limited_and_not_clipped() {
    let clients = (1..=9).map(|id| Client::new(id, 200.0 + 130.0 * id as f32, 0.9)).chain([Client::new(10, 50.0, 0.0)]);
    let mut room = Room::new(clients.collect());
    room.run(100);
    let heard = room.clients[9].last(50);
    let peak = heard.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    assert!((0.5..=1.1).contains(&peak), "{peak}");
    let at_the_edge = heard.iter().filter(|s| s.abs() > 0.97 * peak).count();
    assert!(at_the_edge * 20 < heard.len(), "{at_the_edge} of {} samples are at full scale", heard.len());
}

#[test]
fn malformed_packets_are_counted_and_affect_only_their_source() {
    let mut room = Room::new(vec![Client::new(1, 440.0, 0.3), Client::new(2, 700.0, 0.0)]);
    let rogue = SourceId(500);
    room.mixer.set_source(
        SourceSpec { source: rogue, participant: ParticipantId(50), ..room.clients[0].spec() },
        Arc::default(),
    );
    let input = |source| MixInput { source, gain_db: 0.0 };
    room.mixer.set_plan(MixPlan {
        sources: vec![input(SourceId(101)), input(rogue)],
        listeners: vec![listener(1, Full), listener(2, Full)],
        outputs: false,
    });
    for n in 0..200u64 {
        let payload = (0..n % 40).map(|i| (n * 31 + i * 17) as u8 | 3).collect::<Vec<u8>>().into();
        let now = at(room.n);
        room.mixer.insert(rogue, packet(n, 960, now, payload), now);
        room.run(1);
    }
    assert!(room.mixer.stats().broken > 10, "{:?}", room.mixer.stats());
    room.run(40);
    let heard = room.clients[1].last(30);
    assert!(db(strength(heard, 440.0) / 0.3).abs() < 3.0);
    assert!(heard.iter().all(|s| s.is_finite()));
}

#[test]
fn the_mixer_is_idle_without_listeners_or_sources() {
    let mut room = Room::new(vec![Client::new(1, 440.0, 0.3), Client::new(2, 440.0, 0.0)]);
    assert!(!room.mixer.is_idle());
    room.run(10);
    room.mixer.set_plan(MixPlan { sources: vec![], listeners: vec![listener(1, Full)], outputs: false });
    assert!(!room.mixer.is_idle(), "the begin of the pause must be sent");
    room.clients[0].joined = false;
    room.clients[1].joined = false;
    room.run(60);
    assert!(room.mixer.is_idle());
    room.mixer.set_plan(MixPlan {
        sources: vec![MixInput { source: SourceId(101), gain_db: 0.0 }],
        listeners: vec![],
        outputs: false,
    });
    assert!(room.mixer.is_idle());
    let fresh = SoundMixer::new(Sounds::default(), 1);
    assert!(fresh.is_idle());
}

#[test]
fn the_mixer_rests_while_no_source_sends_and_a_packet_ends_the_rest() {
    let (mut mixer, mut client) = (SoundMixer::new(Sounds::default(), 1), Client::new(1, 300.0, 0.3));
    let sources = vec![MixInput { source: client.source, gain_db: 0.0 }];
    let plan = MixPlan { sources, listeners: vec![listener(2, Full)], outputs: false };
    mixer.set_source(client.spec(), Arc::default());
    mixer.set_plan(plan.clone());
    assert!(!mixer.is_resting(), "a new listener gets a first packet");
    let packets = (0..60).filter(|n| mixer.tick(*n, at(*n), at(*n)).0.everyone.is_some()).count();
    assert!(mixer.is_resting() && packets > 0, "{packets} packets");
    for n in 3_000..3_050 {
        mixer.insert(client.source, client.speak(n).expect("a tone"), at(n));
        assert!(!mixer.is_resting(), "tick {n}");
        mixer.tick(n, at(n), at(n));
    }
    let mut rests = |from: u64| {
        (from..from + 200).find(|n| {
            mixer.tick(*n, at(*n), at(*n));
            mixer.is_resting()
        })
    };
    let rested = rests(3_050);
    assert!(rested.is_some_and(|n| (3_100..3_150).contains(&n)), "one second after the gate has closed: {rested:?}");
    mixer.set_plan(MixPlan { outputs: true, ..plan });
    assert!((4_000..4_200).all(|n| {
        mixer.tick(n, at(n), at(n));
        !mixer.is_resting()
    }));
}

#[test]
fn gain_and_g711() {
    let mut room = Room::new(vec![Client::new(1, 440.0, 0.2), Client::new(2, 500.0, 0.0)]);
    room.mixer.set_plan(MixPlan {
        sources: vec![MixInput { source: SourceId(101), gain_db: -6.0 }],
        listeners: vec![listener(2, Full)],
        outputs: false,
    });
    room.run(80);
    let heard = strength(room.clients[1].last(40), 440.0);
    assert!((db(heard / 0.2) + 6.0).abs() < 2.0, "{} dB", db(heard / 0.2));

    let spec = SourceSpec { codec: Codec::Pcmu, ..room.clients[0].spec() };
    room.clients[0].joined = false;
    room.mixer.set_source(spec, Arc::default());
    for n in 0..100u64 {
        // A mu-law square wave of 500 Hz: 8 samples up, 8 down.
        let payload = (0..160).map(|i| if (i / 8) % 2 == 0 { 0x9f } else { 0x1f }).collect::<Vec<u8>>().into();
        let now = at(room.n);
        room.mixer.insert(SourceId(101), packet(n, 160, now, payload), now);
        room.run(1);
    }
    assert!(strength(room.clients[1].last(40), 500.0) > 0.05, "PCMU is audible");
}
