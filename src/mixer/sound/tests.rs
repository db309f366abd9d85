//! A room's sound in virtual time: real Opus packets in, what each listener's decoder makes of it out.

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
/// Ticks by which people play later than they are sent: the first tick of a thin packet comes so late.
const PLAYOUT: u64 = 2;

fn at(tick: u64) -> Timestamp {
    EPOCH + Duration::from_millis(20 * tick)
}

/// Strength of one frequency, as a tone's amplitude (Goertzel with a Hann window, so that neighbours do not leak in).
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

/// Something like a voice: harmonics that come and go three times a second.
fn voice(hz: f32, t: f64) -> f32 {
    let syllable = 0.55 - 0.45 * tone(3.0, t);
    syllable * (1..12).map(|k| tone(hz * k as f32, t) / k as f32).sum::<f32>() * 0.6
}

fn rms(samples: &[f32]) -> f32 {
    (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
}

/// A browser that sends a tone, or silence, and hears what it is sent.
struct Person {
    participant: ParticipantId,
    source: SourceId,
    hz: f32,
    loud: f32,
    voice: fn(f32, f64) -> f32,
    quality: SoundQuality,
    encoder: OpusEncoder,
    sent: u16,
    decoder: SoundDecoder,
    /// Packets not played yet, and sound of the last one that was.
    waiting: VecDeque<EncodedPacket>,
    playing: VecDeque<f32>,
    /// RTP time at which the next packet may begin.
    next: Option<u32>,
    /// Ticks that were made up, since no packet was there.
    made_up: u64,
    heard: Vec<f32>,
    packets: Vec<(u64, EncodedPacket)>,
    joined: bool,
}

impl Person {
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
            decoder: SoundDecoder::new(Codec::Opus).expect("opus is sound"),
            waiting: VecDeque::new(),
            playing: VecDeque::new(),
            next: None,
            made_up: 0,
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

    /// Takes what tick `n` brings, and plays the tick that is [`PLAYOUT`] before.
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
                    self.playing.extend(self.decoder.decode(&packet.payload).expect("what we send is opus"));
                }
                None => {
                    self.made_up += 1;
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
    people: Vec<Person>,
    n: u64,
    levels: BTreeMap<ParticipantId, u8>,
    /// Who was named as heard with the last full and the last thin packet.
    named: [Levels; 2],
    /// Takes (person, tick) and says whether the packet is lost.
    loses: fn(usize, u64) -> bool,
}

impl Room {
    fn new(people: Vec<Person>) -> Self {
        let mut room = Self {
            mixer: SoundMixer::new(Sounds::default()),
            people,
            n: 10_000,
            levels: BTreeMap::new(),
            named: [Levels::new(), Levels::new()],
            loses: |_, _| false,
        };
        for person in &room.people {
            room.mixer.set_source(person.spec());
        }
        room.plan();
        room
    }

    fn plan(&mut self) {
        let joined = || self.people.iter().filter(|person| person.joined);
        self.mixer.set_plan(MixPlan {
            sources: joined().map(|person| MixInput { source: person.source, gain_db: 0.0 }).collect(),
            listeners: joined().map(|person| listener(person.participant.0, person.quality)).collect(),
            outputs: false,
        });
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let n = self.n;
            for (i, person) in self.people.iter_mut().enumerate().filter(|(_, person)| person.joined) {
                if let Some(packet) = person.speak(n)
                    && !(self.loses)(i, n)
                {
                    self.mixer.insert(person.source, packet, at(n));
                }
            }
            let (sound, levels) = self.mixer.tick(n, at(n) + Duration::from_millis(3));
            if let Some(packet) = &sound.everyone {
                assert_eq!(packet.timestamp, timestamp(n));
            }
            for person in self.people.iter_mut().filter(|person| person.joined) {
                person.hear(n, &sound);
            }
            self.levels.extend(levels.unwrap_or_default());
            if (n + 1).is_multiple_of(3) {
                self.named[1].clone_from(&sound.heard_thin);
            }
            self.named[0] = sound.heard;
            self.n += 1;
        }
    }

    fn encoded(&self) -> u64 {
        self.mixer.stats().encoded
    }
}

#[test]
fn everyone_hears_all_but_himself() {
    let tones = [330.0, 530.0, 870.0, 1270.0];
    let mut people: Vec<Person> = tones.iter().zip(1..).map(|(&hz, id)| Person::new(id, hz, 0.15)).collect();
    people.push(Person::new(9, 440.0, 0.0));
    let mut room = Room::new(people);
    room.run(150);
    for person in &room.people {
        let heard = person.last(50);
        for hz in tones {
            let got = strength(heard, hz);
            if hz == person.hz {
                assert!(db(got / 0.15) < -40.0, "{} hears himself at {} dB", person.participant, db(got / 0.15));
            } else {
                assert!(db(got / 0.15).abs() < 3.0, "{} hears {hz} Hz at {} dB", person.participant, db(got / 0.15));
            }
        }
    }
    let levels: Vec<u8> = room.levels.values().copied().collect();
    assert!(levels[..4].iter().all(|level| (18..=22).contains(level)), "{levels:?}");
    assert_eq!(levels[4], 127);
}

#[test]
fn packets_name_who_is_heard_in_them_and_how_loud() {
    let mut people: Vec<Person> = (1..=20).map(|id| Person::new(id, 200.0 + 40.0 * id as f32, 0.0)).collect();
    (people[2].loud, people[6].loud) = (0.15, 0.05);
    people[9].quality = Thin;
    let mut room = Room::new(people);
    room.run(100);
    for named in &room.named {
        let [(first, loud), (second, soft)] = named[..] else { panic!("{named:?}") };
        assert_eq!((first, second), (ParticipantId(3), ParticipantId(7)));
        assert!((17..=22).contains(&loud) && (27..=32).contains(&soft), "{named:?}");
    }
    for person in &mut room.people {
        person.loud = 0.02 + 0.005 * person.participant.0 as f32;
    }
    room.run(60);
    let crowd: Vec<u32> = room.named[0].iter().map(|(participant, _)| participant.0).collect();
    assert_eq!(crowd, (5..=20).collect::<Vec<_>>(), "of a crowd the loudest");
    room.people.iter_mut().for_each(|person| person.loud = 0.0);
    room.run(100);
    assert_eq!(room.named, [Levels::new(), Levels::new()], "nobody is heard in silence");
}

#[test]
fn a_second_microphone_of_ones_own_is_left_out_too() {
    let mut people = vec![Person::new(1, 330.0, 0.2), Person::new(2, 530.0, 0.2), Person::new(3, 870.0, 0.2)];
    people[1].participant = ParticipantId(1);
    let mut room = Room::new(people);
    room.run(100);
    let heard = room.people[0].last(40);
    assert!(strength(heard, 870.0) > 0.15);
    for own in [330.0, 530.0] {
        assert!(db(strength(heard, own) / 0.2) < -40.0);
    }
}

#[test]
fn the_silent_share_one_encode_and_who_speaks_alone_costs_none() {
    let mut people: Vec<Person> = (1..=10).map(|id| Person::new(id, 400.0, 0.0)).collect();
    people[0].loud = 0.3;
    let mut room = Room::new(people);
    room.run(100);
    let before = room.encoded();
    room.run(100);
    let encodes = room.encoded() - before;
    assert_eq!(encodes, 100, "one each tick");
    let alone = &room.people[0];
    assert!(strength(alone.last(40), 400.0) < 1e-3);
    let recent = alone.packets.iter().filter(|(n, _)| *n >= room.n - 100).count();
    assert!(recent <= 5, "he was sent {recent} packets of silence");
    assert_eq!(room.people[5].packets.iter().filter(|(n, _)| *n >= room.n - 100).count(), 100);

    room.people[0].loud = 0.0;
    room.run(100);
    let before = room.encoded();
    room.run(200);
    assert_eq!(room.encoded(), before, "silence is not encoded");

    room.people[1].loud = 0.3;
    room.people[2].loud = 0.3;
    room.run(50);
    let before = room.encoded();
    room.run(100);
    assert_eq!(room.encoded() - before, 300, "the shared mix and two of their own");
}

#[test]
fn a_mix_that_nobody_hears_is_not_encoded() {
    let mut room = Room::new(vec![Person::new(1, 330.0, 0.2), Person::new(2, 530.0, 0.2)]);
    room.run(50);
    let before = room.encoded();
    room.run(100);
    assert_eq!(room.encoded() - before, 200, "both speak, so nobody is left for the shared mix");
}

#[test]
fn coming_going_and_speaking_make_no_clicks() {
    let mut people = vec![Person::new(1, 300.0, 0.2), Person::new(2, 470.0, 0.0), Person::new(3, 610.0, 0.2)];
    people.push(Person::new(4, 500.0, 0.0));
    people[2].joined = false;
    let mut room = Room::new(people);
    room.run(60);
    let begun = room.people[3].heard.len() - 25 * AUDIO_TICK_SAMPLES;
    for round in 0..6 {
        room.people[2].joined = round % 2 == 0;
        if !room.people[2].joined {
            let gone = room.people[2].source;
            room.mixer.remove_source(gone);
        } else {
            room.mixer.set_source(room.people[2].spec());
        }
        room.plan();
        room.run(40);
        // Listener 2 goes from the shared mix to his own and back.
        room.people[1].loud = if round % 2 == 0 { 0.2 } else { 0.0 };
        room.run(70);
    }
    let slope = |hz: f32, loud: f32| TAU * hz / AUDIO_RATE as f32 * loud;
    let all = slope(300.0, 0.2) + slope(470.0, 0.2) + slope(610.0, 0.2);
    let steep = steepest(&room.people[3].heard[begun..]);
    assert!(steep < 1.6 * all, "a step of {steep} where tones make {all}");
    let others = slope(300.0, 0.2) + slope(610.0, 0.2);
    let steep = steepest(&room.people[1].heard[begun..]);
    assert!(steep < 1.6 * others, "a step of {steep} where tones make {others}, for one who changes his mix");
}

#[test]
fn lost_packets_are_concealed() {
    // A fixed pattern without period: about 5 %.
    let lost = |person: usize, n: u64| person == 0 && (n ^ (n >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 < 3;
    let run = |loses: fn(usize, u64) -> bool| {
        let mut people = vec![Person::new(1, 150.0, 0.3), Person::new(2, 500.0, 0.0)];
        people[0].voice = voice;
        let mut room = Room::new(people);
        room.loses = loses;
        room.run(500);
        let loudness: Vec<f32> = room.people[1].last(400).chunks(AUDIO_TICK_SAMPLES).map(rms).collect();
        (loudness, room.mixer.stats().concealed)
    };
    let (whole, none) = run(|_, _| false);
    let (mended, concealed) = run(lost);
    assert_eq!(none, 0, "nothing was lost, nothing ran dry");
    let losses = (10_000..10_500).filter(|&n| lost(0, n)).count() as u64;
    assert!((15..40).contains(&losses) && (losses - 3..=losses).contains(&concealed), "{concealed} of {losses}");
    // Nowhere a hole: within 6 dB of what it should be, but for a few that none could guess.
    let off = whole.iter().zip(&mended).map(|(whole, mended)| db(mended.max(0.005) / whole.max(0.005)).abs());
    let off: Vec<f32> = off.collect();
    assert!(off.iter().all(|off| *off < 14.0), "{off:?}");
    assert!(off.iter().filter(|off| **off > 6.0).count() <= 8, "{off:?}");
}

#[test]
fn nine_loud_talkers_are_limited_not_clipped() {
    let people = (1..=9).map(|id| Person::new(id, 200.0 + 130.0 * id as f32, 0.9)).chain([Person::new(10, 50.0, 0.0)]);
    let mut room = Room::new(people.collect());
    room.run(100);
    let heard = room.people[9].last(50);
    let peak = heard.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    assert!((0.5..=1.1).contains(&peak), "{peak}");
    let at_the_edge = heard.iter().filter(|s| s.abs() > 0.97 * peak).count();
    assert!(at_the_edge * 20 < heard.len(), "{at_the_edge} of {} samples stand at the edge", heard.len());
}

#[test]
fn nonsense_is_counted_and_harms_nobody() {
    let mut room = Room::new(vec![Person::new(1, 440.0, 0.3), Person::new(2, 700.0, 0.0)]);
    let rogue = SourceId(500);
    room.mixer.set_source(SourceSpec { source: rogue, participant: ParticipantId(50), ..room.people[0].spec() });
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
    let heard = room.people[1].last(30);
    assert!(db(strength(heard, 440.0) / 0.3).abs() < 3.0);
    assert!(heard.iter().all(|s| s.is_finite()));
}

#[test]
fn nothing_runs_without_listeners_or_sources() {
    let mut room = Room::new(vec![Person::new(1, 440.0, 0.3), Person::new(2, 440.0, 0.0)]);
    assert!(!room.mixer.is_idle());
    room.run(10);
    room.mixer.set_plan(MixPlan { sources: vec![], listeners: vec![listener(1, Full)], outputs: false });
    assert!(!room.mixer.is_idle(), "the pause must be told");
    room.people[0].joined = false;
    room.people[1].joined = false;
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
    let mut room = Room::new(vec![Person::new(1, 440.0, 0.2), Person::new(2, 500.0, 0.0)]);
    room.mixer.set_plan(MixPlan {
        sources: vec![MixInput { source: SourceId(101), gain_db: -6.0 }],
        listeners: vec![listener(2, Full)],
        outputs: false,
    });
    room.run(80);
    let heard = strength(room.people[1].last(40), 440.0);
    assert!((db(heard / 0.2) + 6.0).abs() < 2.0, "{} dB", db(heard / 0.2));

    let spec = SourceSpec { codec: Codec::Pcmu, ..room.people[0].spec() };
    room.people[0].joined = false;
    room.mixer.set_source(spec);
    for n in 0..100u64 {
        // A mu-law square wave of 500 Hz: 8 samples up, 8 down.
        let payload = (0..160).map(|i| if (i / 8) % 2 == 0 { 0x9f } else { 0x1f }).collect::<Vec<u8>>().into();
        let now = at(room.n);
        room.mixer.insert(SourceId(101), packet(n, 160, now, payload), now);
        room.run(1);
    }
    assert!(strength(room.people[1].last(40), 500.0) > 0.05, "PCMU is heard");
}

/// Four who talk and three who do not, every other one on a thin link.
fn mixed_room() -> Room {
    let tones = [330.0, 530.0, 870.0, 1270.0];
    let mut people: Vec<Person> = tones.iter().zip(1..).map(|(&hz, id)| Person::new(id, hz, 0.15)).collect();
    people.extend([9, 10, 11].map(|id| Person::new(id, 440.0, 0.0)));
    for person in people.iter_mut().step_by(2) {
        person.quality = Thin;
    }
    Room::new(people)
}

#[test]
fn everyone_hears_all_but_himself_thin_too() {
    let mut room = mixed_room();
    room.run(150);
    for person in &room.people {
        let heard = person.last(50);
        for other in room.people.iter().filter(|other| other.loud > 0.0) {
            let got = db(strength(heard, other.hz) / other.loud);
            let (who, hz) = (person.participant, other.hz);
            if other.participant == who {
                // Few bits make some noise at any frequency.
                let below = if person.quality == Thin { -34.0 } else { -40.0 };
                assert!(got < below, "{who} hears himself at {got} dB");
            } else {
                let near = if person.quality == Thin { 6.0 } else { 3.0 };
                assert!(got.abs() < near, "{who} hears {hz} Hz at {got} dB");
            }
        }
        let recent: Vec<_> = person.packets.iter().filter(|(n, _)| *n >= room.n - 90).collect();
        let bytes: usize = recent.iter().map(|(_, packet)| packet.payload.len()).sum();
        let kbps = bytes as f64 * 8.0 / 1.8 / 1_000.0;
        let (packets, rate) = if person.quality == Thin { (30, 15.0..24.0) } else { (90, 30.0..60.0) };
        assert_eq!(recent.len(), packets, "{:?}", person.participant);
        assert!(rate.contains(&kbps), "{} gets {kbps} kbit/s", person.participant);
    }
}

#[test]
fn thin_sound_costs_an_encode_a_packet_and_only_while_somebody_has_it() {
    let cost = |room: &mut Room| {
        let before = room.encoded();
        room.run(90);
        room.encoded() - before
    };
    let mut room = mixed_room();
    room.run(30);
    // Two thin and two full talkers, and the shared mix in both qualities.
    assert_eq!(cost(&mut room), 2 * 30 + 2 * 90 + 30 + 90);
    for person in &mut room.people {
        person.quality = Full;
    }
    room.plan();
    room.run(3);
    assert_eq!(cost(&mut room), 4 * 90 + 90);
    for person in &mut room.people {
        person.loud = 0.0;
        person.quality = Thin;
    }
    room.plan();
    room.run(90);
    assert_eq!(cost(&mut room), 0, "silence costs nothing");
    room.people[0].loud = 0.2;
    room.run(30);
    assert_eq!(cost(&mut room), 30, "one encode for all who do not talk");
}

#[test]
fn a_change_of_quality_makes_no_click_and_no_gap() {
    let mut people = vec![Person::new(1, 300.0, 0.2), Person::new(2, 470.0, 0.2), Person::new(3, 500.0, 0.0)];
    people.extend([Person::new(4, 500.0, 0.0), Person::new(5, 500.0, 0.0)]);
    people[4].quality = Thin;
    let mut room = Room::new(people);
    room.run(60);
    let begun: Vec<u64> = room.people.iter().map(|person| person.made_up).collect();
    // A talker and a listener go to and fro, at every place within a packet; others stay what they are.
    for round in 0..24 {
        for who in [1, 2] {
            room.people[who].quality = if round % 2 == 0 { Thin } else { Full };
        }
        room.plan();
        room.run(20 + round % 5);
    }
    // Few bits make noise of their own: what is no steeper and no softer than with one who is thin all the time is no
    // seam.
    let heard = |k: usize| &room.people[k].heard[40 * AUDIO_TICK_SAMPLES..];
    let softest = |k: usize| heard(k).chunks(AUDIO_TICK_SAMPLES).map(rms).fold(1.0, f32::min);
    let (steep_limit, soft_limit) = (1.3 * steepest(heard(4)), 0.7 * softest(4));
    for k in [1, 2, 3] {
        let person = &room.people[k];
        assert_eq!(person.made_up, begun[k], "{} missed something", person.participant);
        let (steep, soft) = (steepest(heard(k)), softest(k));
        assert!(steep < steep_limit, "a step of {steep}, against {steep_limit}, for {}", person.participant);
        assert!(soft > soft_limit, "a hole of {soft}, against {soft_limit}, for {}", person.participant);
    }
}

#[test]
fn ticks_left_out_cost_thin_listeners_no_more_than_them() {
    let mut people = vec![Person::new(1, 300.0, 0.2), Person::new(2, 470.0, 0.0)];
    people[1].quality = Thin;
    let mut room = Room::new(people);
    room.run(32);
    assert_eq!(room.n % 3, 0);
    room.n += 1;
    room.run(2);
    let (n, packet) = room.people[1].packets.last().expect("he hears");
    assert_eq!((*n, packet.timestamp, opus_samples(&packet.payload)), (room.n - 1, timestamp(room.n - 2), 1_920));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever people do: nobody is sent a sound twice (see `hear`), timestamps are ticks', and whoever listens to
    /// others that talk misses nothing for longer than a thin packet.
    #[test]
    fn qualities_and_talk_change_at_any_time(
        thin_ms in prop::sample::select(vec![20_u32, 40, 60]),
        steps in prop::collection::vec((0..4_usize, any::<bool>(), any::<bool>(), 1..9_u64), 10..30),
    ) {
        let people = (1..=4).map(|id| Person::new(id, 200.0 * id as f32, 0.0)).chain([Person::new(5, 150.0, 0.2)]);
        let mut room = Room::new(people.collect());
        room.mixer = SoundMixer::new(Sounds::new(48, 20, thin_ms));
        room.people.iter().for_each(|person| room.mixer.set_source(person.spec()));
        room.plan();
        room.run(30);
        for (who, thin, talks, ticks) in steps {
            room.people[who].quality = if thin { Thin } else { Full };
            room.people[who].loud = if talks { 0.2 } else { 0.0 };
            room.plan();
            let made_up: Vec<u64> = room.people.iter().map(|person| person.made_up).collect();
            room.run(ticks);
            for (person, before) in room.people[..4].iter().zip(made_up) {
                prop_assert_eq!(person.made_up, before, "{} missed something", person.participant);
            }
        }
        for (_, packet) in room.people.iter().flat_map(|person| &person.packets) {
            prop_assert_eq!(packet.timestamp % 960, 0);
        }
    }
}
