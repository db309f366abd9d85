//! The audio mixer in virtual time: real Opus packets in, decoded audio of each listener out.

use std::collections::{BTreeMap, VecDeque};
use std::f32::consts::TAU;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::mix::timestamp;
use super::*;
use crate::codec::sound::{OpusEncoder, OpusSettings, SoundDecoder};
use crate::media::SoundQuality::{Full, Thin};
use crate::media::{AUDIO_RATE, Codec, EncodedPacket, SourceKind};
use crate::plan::{Listener, MixInput};

const EPOCH: Timestamp = Timestamp::from_micros(7_000_000);
/// Playout delay of a client in ticks: the first tick of a thin packet comes so late.
const PLAYOUT: u64 = 2;

fn at(tick: u64) -> Timestamp {
    EPOCH + Duration::from_millis(20 * tick)
}

/// Amplitude of a tone of this frequency (Goertzel with a Hann window against leakage).
fn strength(samples: &[f32], hz: f32) -> f32 {
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (i, sample) in samples.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * i as f32 / samples.len() as f32).cos();
        let angle = TAU * (hz * i as f32 / AUDIO_RATE as f32).fract();
        re += window * sample * angle.cos();
        im += window * sample * angle.sin();
        weight += window;
    }
    2.0 * (re * re + im * im).sqrt() / weight
}

fn db(ratio: f32) -> f32 {
    20.0 * ratio.max(1e-9).log10()
}

/// The largest step from one sample to the next.
fn steepest(samples: &[f32]) -> f32 {
    samples.windows(2).fold(0.0, |steepest, pair| steepest.max((pair[1] - pair[0]).abs()))
}

fn packet(n: u64, ticks: u64, arrival: Timestamp, payload: Bytes) -> SourcePacket {
    SourcePacket {
        sequence: n as u16,
        timestamp: (n * ticks) as u32,
        marker: false,
        arrival,
        audio_level: None,
        rotation: None,
        colours: None,
        payload,
    }
}

fn tone(hz: f32, t: f64) -> f32 {
    (TAU * (f64::from(hz) * t).fract() as f32).sin()
}

/// A signal like speech: harmonics with three syllables a second.
fn voice(hz: f32, t: f64) -> f32 {
    let syllable = 0.55 - 0.45 * tone(3.0, t);
    syllable * (1..12).map(|k| tone(hz * k as f32, t) / k as f32).sum::<f32>() * 0.6
}

fn rms(samples: &[f32]) -> f32 {
    (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
}

/// A client that sends a tone or silence, and decodes the packets for it.
struct Client {
    participant: ParticipantId,
    source: SourceId,
    hz: f32,
    loud: f32,
    voice: fn(f32, f64) -> f32,
    quality: SoundQuality,
    encoder: OpusEncoder,
    sent: u16,
    decoder: SoundDecoder,
    /// Packets that were not played yet, and samples of the last one that was.
    waiting: VecDeque<EncodedPacket>,
    playing: VecDeque<f32>,
    /// RTP time at which the next packet may begin.
    next: Option<u32>,
    /// Ticks that were concealed because no packet was there.
    concealed: u64,
    heard: Vec<f32>,
    packets: Vec<(u64, EncodedPacket)>,
    joined: bool,
}

impl Client {
    fn new(id: u32, hz: f32, loud: f32) -> Self {
        Self {
            participant: ParticipantId(id),
            source: SourceId(100 + id),
            hz,
            loud,
            voice: tone,
            quality: Full,
            encoder: OpusEncoder::new(OpusSettings { bitrate: 48_000, ..OpusSettings::default() }),
            sent: 0,
            decoder: SoundDecoder::new(Codec::Opus).expect("an audio codec"),
            waiting: VecDeque::new(),
            playing: VecDeque::new(),
            next: None,
            concealed: 0,
            heard: Vec::new(),
            packets: Vec::new(),
            joined: true,
        }
    }

    fn spec(&self) -> SourceSpec {
        SourceSpec {
            source: self.source,
            participant: self.participant,
            kind: SourceKind::Microphone,
            codec: Codec::Opus,
        }
    }

    fn speak(&mut self, n: u64) -> Option<SourcePacket> {
        let samples = std::array::from_fn(|i| {
            let t = (n * AUDIO_TICK_SAMPLES as u64 + i as u64) as f64 / f64::from(AUDIO_RATE);
            self.loud * (self.voice)(self.hz, t)
        });
        let payload = self.encoder.encode(&samples);
        self.sent = self.sent.wrapping_add(1);
        payload.map(|payload| SourcePacket { sequence: self.sent, ..packet(n, 960, at(n), payload) })
    }

    /// Receives the packet of tick `n`, and plays the tick that is [`PLAYOUT`] earlier.
    fn hear(&mut self, n: u64, sound: &AudioTick) {
        if let Some(packet) = sound.packet_for(self.participant) {
            let late = self.next.map_or(0, |next| next.wrapping_sub(packet.timestamp) as i32);
            assert!(late <= 0, "{} is sent {late} samples twice at tick {n}", self.participant);
            assert!(timestamp(n).wrapping_sub(packet.timestamp) <= timestamp(PLAYOUT), "it came too late to be played");
            self.packets.push((n, packet.clone()));
            self.next = Some(packet.timestamp.wrapping_add(opus_samples(&packet.payload)));
            self.waiting.push_back(packet.clone());
        }
        let due = self.waiting.front().is_some_and(|packet| packet.timestamp == timestamp(n - PLAYOUT));
        if self.playing.is_empty() {
            match if due { self.waiting.pop_front() } else { None } {
                Some(packet) => {
                    self.playing.extend(self.decoder.decode(&packet.payload).expect("the mixer sends Opus"));
                }
                None => {
                    self.concealed += 1;
                    self.playing.extend(self.decoder.conceal(AUDIO_TICK_SAMPLES, None));
                }
            }
        } else {
            assert!(!due, "two sounds for one tick");
        }
        self.heard.extend(self.playing.drain(..AUDIO_TICK_SAMPLES));
    }

    fn last(&self, ticks: usize) -> &[f32] {
        &self.heard[self.heard.len() - ticks * AUDIO_TICK_SAMPLES..]
    }
}

/// Samples in an Opus packet, by its table of contents (RFC 6716 section 3.1).
fn opus_samples(payload: &[u8]) -> u32 {
    let toc = payload[0];
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1_920, 2_880][usize::from(config % 4)],
        config @ 12..=15 => [480, 960][usize::from(config % 2)],
        config => 120 << (config % 4),
    };
    frame
        * match toc & 3 {
            0 => 1,
            1 | 2 => 2,
            _ => u32::from(payload[1] & 0x3f),
        }
}

fn listener(id: u32, quality: SoundQuality) -> Listener {
    Listener { participant: ParticipantId(id), quality }
}

struct Room {
    mixer: SoundMixer,
    clients: Vec<Client>,
    n: u64,
    levels: BTreeMap<ParticipantId, u8>,
    /// The audible participants of the last full and the last thin packet.
    audible: [Levels; 2],
    /// Whether the packet of (client, tick) is lost.
    loses: fn(usize, u64) -> bool,
}

impl Room {
    fn new(clients: Vec<Client>) -> Self {
        let mut room = Self {
            mixer: SoundMixer::new(Sounds::default()),
            clients,
            n: 10_000,
            levels: BTreeMap::new(),
            audible: [Levels::new(), Levels::new()],
            loses: |_, _| false,
        };
        for client in &room.clients {
            room.mixer.set_source(client.spec());
        }
        room.plan();
        room
    }

    fn plan(&mut self) {
        let joined = || self.clients.iter().filter(|client| client.joined);
        self.mixer.set_plan(MixPlan {
            sources: joined().map(|client| MixInput { source: client.source, gain_db: 0.0 }).collect(),
            listeners: joined().map(|client| listener(client.participant.0, client.quality)).collect(),
            outputs: false,
        });
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let n = self.n;
            for (i, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| client.joined) {
                if let Some(packet) = client.speak(n)
                    && !(self.loses)(i, n)
                {
                    self.mixer.insert(client.source, packet, at(n));
                }
            }
            let (sound, levels) = self.mixer.tick(n, at(n) + Duration::from_millis(3));
            if let Some(packet) = &sound.everyone {
                assert_eq!(packet.timestamp, timestamp(n));
            }
            for client in self.clients.iter_mut().filter(|client| client.joined) {
                client.hear(n, &sound);
            }
            self.levels.extend(levels.unwrap_or_default());
            if (n + 1).is_multiple_of(3) {
                self.audible[1].clone_from(&sound.heard_thin);
            }
            self.audible[0] = sound.heard;
            self.n += 1;
        }
    }

    fn encoded(&self) -> u64 {
        self.mixer.stats().encoded
    }
}

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
            room.mixer.set_source(room.clients[2].spec());
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
    room.mixer.set_source(SourceSpec { source: rogue, participant: ParticipantId(50), ..room.clients[0].spec() });
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
    let fresh = SoundMixer::new(Sounds::default());
    assert!(fresh.is_idle());
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
    room.mixer.set_source(spec);
    for n in 0..100u64 {
        // A mu-law square wave of 500 Hz: 8 samples up, 8 down.
        let payload = (0..160).map(|i| if (i / 8) % 2 == 0 { 0x9f } else { 0x1f }).collect::<Vec<u8>>().into();
        let now = at(room.n);
        room.mixer.insert(SourceId(101), packet(n, 160, now, payload), now);
        room.run(1);
    }
    assert!(strength(room.clients[1].last(40), 500.0) > 0.05, "PCMU is audible");
}

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

    /// For any sequence of changes: no tick is sent twice to a client (see `hear`), timestamps are those of ticks, and a
    /// listener of a talker misses no more than one thin packet.
    #[test]
    fn qualities_and_talk_change_at_any_time(
        thin_ms in prop::sample::select(vec![20_u32, 40, 60]),
        steps in prop::collection::vec((0..4_usize, any::<bool>(), any::<bool>(), 1..9_u64), 10..30),
    ) {
        let clients = (1..=4).map(|id| Client::new(id, 200.0 * id as f32, 0.0)).chain([Client::new(5, 150.0, 0.2)]);
        let mut room = Room::new(clients.collect());
        room.mixer = SoundMixer::new(Sounds::new(48, 20, thin_ms));
        room.clients.iter().for_each(|client| room.mixer.set_source(client.spec()));
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
