//! A room in virtual time: clients that send real Opus packets to the mixer, and decode those for them.

use std::collections::{BTreeMap, VecDeque};
use std::f32::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::mix::timestamp;
use super::super::{Levels, SoundMixer};
use crate::codec::sound::{OpusEncoder, OpusSettings, SoundDecoder};
use crate::id::{ParticipantId, SourceId};
use crate::link::AudioTick;
use crate::media::SoundQuality::Full;
use crate::media::{
    AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec, EncodedPacket, SoundQuality, Sounds, SourceKind, SourcePacket,
};
use crate::plan::{Listener, MixInput, MixPlan, SourceSpec};
use crate::time::Timestamp;

pub(super) const EPOCH: Timestamp = Timestamp::from_micros(7_000_000);
/// Playout delay of a client in ticks: the first tick of a thin packet comes so late.
pub(super) const PLAYOUT: u64 = 2;

pub(super) fn at(tick: u64) -> Timestamp {
    EPOCH + Duration::from_millis(20 * tick)
}

/// Amplitude of a tone of this frequency (Goertzel with a Hann window against leakage).
pub(super) fn strength(samples: &[f32], hz: f32) -> f32 {
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

pub(super) fn db(ratio: f32) -> f32 {
    20.0 * ratio.max(1e-9).log10()
}

/// The largest step from one sample to the next.
pub(super) fn steepest(samples: &[f32]) -> f32 {
    samples.windows(2).fold(0.0, |steepest, pair| steepest.max((pair[1] - pair[0]).abs()))
}

pub(super) fn packet(n: u64, ticks: u64, arrival: Timestamp, payload: Bytes) -> SourcePacket {
    SourcePacket {
        sequence: n as u16,
        timestamp: (n * ticks) as u32,
        marker: false,
        arrival,
        captured: None,
        audio_level: None,
        rotation: None,
        colours: None,
        payload,
    }
}

pub(super) fn tone(hz: f32, t: f64) -> f32 {
    (TAU * (f64::from(hz) * t).fract() as f32).sin()
}

/// A signal like speech: harmonics with three syllables a second.
pub(super) fn voice(hz: f32, t: f64) -> f32 {
    let syllable = 0.55 - 0.45 * tone(3.0, t);
    syllable * (1..12).map(|k| tone(hz * k as f32, t) / k as f32).sum::<f32>() * 0.6
}

pub(super) fn rms(samples: &[f32]) -> f32 {
    (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
}

/// A client that sends a tone or silence, and decodes the packets for it.
pub(super) struct Client {
    pub(super) participant: ParticipantId,
    pub(super) source: SourceId,
    pub(super) hz: f32,
    pub(super) loud: f32,
    pub(super) voice: fn(f32, f64) -> f32,
    pub(super) quality: SoundQuality,
    encoder: OpusEncoder,
    sent: u16,
    decoder: SoundDecoder,
    /// Packets that were not played yet, and samples of the last one that was.
    waiting: VecDeque<EncodedPacket>,
    playing: VecDeque<f32>,
    /// RTP time at which the next packet may begin.
    next: Option<u32>,
    /// Ticks that were concealed because no packet was there.
    pub(super) concealed: u64,
    pub(super) heard: Vec<f32>,
    pub(super) packets: Vec<(u64, EncodedPacket)>,
    pub(super) joined: bool,
}

impl Client {
    pub(super) fn new(id: u32, hz: f32, loud: f32) -> Self {
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

    pub(super) fn spec(&self) -> SourceSpec {
        SourceSpec {
            source: self.source,
            participant: self.participant,
            kind: SourceKind::Microphone,
            codec: Codec::Opus,
        }
    }

    pub(super) fn speak(&mut self, n: u64) -> Option<SourcePacket> {
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

    pub(super) fn last(&self, ticks: usize) -> &[f32] {
        &self.heard[self.heard.len() - ticks * AUDIO_TICK_SAMPLES..]
    }
}

/// Samples in an Opus packet, by its table of contents (RFC 6716 section 3.1).
pub(super) fn opus_samples(payload: &[u8]) -> u32 {
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

pub(super) fn listener(id: u32, quality: SoundQuality) -> Listener {
    Listener { participant: ParticipantId(id), quality }
}

pub(super) struct Room {
    pub(super) mixer: SoundMixer,
    pub(super) clients: Vec<Client>,
    pub(super) n: u64,
    pub(super) levels: BTreeMap<ParticipantId, u8>,
    /// The audible participants of the last full and the last thin packet.
    pub(super) audible: [Levels; 2],
    /// Whether the packet of (client, tick) is lost.
    pub(super) loses: fn(usize, u64) -> bool,
}

impl Room {
    pub(super) fn new(clients: Vec<Client>) -> Self {
        let mut room = Self {
            mixer: SoundMixer::new(Sounds::default(), 1),
            clients,
            n: 10_000,
            levels: BTreeMap::new(),
            audible: [Levels::new(), Levels::new()],
            loses: |_, _| false,
        };
        for client in &room.clients {
            room.mixer.set_source(client.spec(), Arc::default());
        }
        room.plan();
        room
    }

    pub(super) fn plan(&mut self) {
        let joined = || self.clients.iter().filter(|client| client.joined);
        self.mixer.set_plan(MixPlan {
            sources: joined().map(|client| MixInput { source: client.source, gain_db: 0.0 }).collect(),
            listeners: joined().map(|client| listener(client.participant.0, client.quality)).collect(),
            outputs: false,
        });
    }

    pub(super) fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let n = self.n;
            for (i, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| client.joined) {
                if let Some(packet) = client.speak(n)
                    && !(self.loses)(i, n)
                {
                    self.mixer.insert(client.source, packet, at(n));
                }
            }
            let (sound, levels) = self.mixer.tick(n, at(n), at(n) + Duration::from_millis(3));
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

    pub(super) fn encoded(&self) -> u64 {
        self.mixer.stats().encoded
    }
}
