//! One microphone: packets in, 20 ms of samples out.
//!
//! Owns: its jitter buffer, decoder, gate, gain, fades and filters. Does not know: other sources, listeners. In:
//! packets, the gain of the plan. Out: a tick of samples while its gate is open. Begin, end and gain changes are faded,
//! so that none clicks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::filtered::FilteredVoice;
use super::mix::Tick;
use crate::audio::{Gate, GateState, SILENCE, db_to_factor, fade_in, fade_out, level_dbov, ramp};
use crate::codec::sound::{SoundDecoder, SoundError};
use crate::id::ParticipantId;
use crate::jitter::{AudioJitter, AudioPull};
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Kind, SourcePacket};
use crate::mixer::filter::Stage;
use crate::mixer::lip_sync::LipSync;
use crate::plan::SourceSpec;
use crate::time::Timestamp;

/// Samples of a fade: 5 ms.
pub(super) const FADE: usize = AUDIO_RATE as usize / 200;
/// Samples of one packet, until a packet has been decoded.
const PACKET_SAMPLES: usize = AUDIO_TICK_SAMPLES;
/// Largest gain of a plan, as a factor: 20 dB.
const GAIN_MAX: f32 = 10.0;

/// One microphone.
#[derive(Debug)]
pub(super) struct Voice {
    participant: ParticipantId,
    jitter: AudioJitter,
    lip_sync: Arc<LipSync>,
    decoder: SoundDecoder,
    ring: VecDeque<f32>,
    packet_samples: usize,
    /// The last tick had samples; otherwise the next samples are faded in.
    sounding: bool,
    gate: Gate,
    gain: f32,
    wanted_gain: f32,
    /// It is no longer in the plan: one more tick, which fades out.
    leaving: bool,
    /// Loudest level in -dBov since [`take_level`](Self::take_level).
    loudest: u8,
    broken: u64,
    filters: Option<FilteredVoice>,
}

impl Voice {
    pub(super) fn new(spec: &SourceSpec, lip_sync: Arc<LipSync>) -> Result<Self, SoundError> {
        Ok(Self {
            participant: spec.participant,
            jitter: AudioJitter::new(spec.codec.clock_rate()),
            lip_sync,
            decoder: SoundDecoder::new(spec.codec)?,
            ring: VecDeque::with_capacity(8 * AUDIO_TICK_SAMPLES),
            packet_samples: PACKET_SAMPLES,
            sounding: false,
            gate: Gate::default(),
            gain: 0.0,
            wanted_gain: 0.0,
            leaving: false,
            loudest: SILENCE,
            broken: 0,
            filters: None,
        })
    }

    pub(super) fn insert(&mut self, packet: SourcePacket, now: Timestamp) {
        self.lip_sync.arrived(Kind::Audio, &packet);
        self.jitter.insert(packet, now);
    }

    /// Sets the gain of the plan; the change is spread over the next tick.
    pub(super) fn set_gain(&mut self, gain_db: f32) {
        let gain = db_to_factor(gain_db);
        self.wanted_gain = if gain.is_finite() { gain.min(GAIN_MAX) } else { 1.0 };
        self.leaving = false;
    }

    /// Sets its filters; None for none.
    pub(super) fn set_filters(&mut self, stage: Option<&Arc<Stage>>) {
        let is_same = match (&self.filters, stage) {
            (Some(filters), Some(stage)) => filters.is(stage),
            (known, wanted) => known.is_none() && wanted.is_none(),
        };
        if !is_same {
            self.filters = stage.cloned().map(FilteredVoice::new);
        }
    }

    /// It is no longer in the plan: the next tick fades out and is the last.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The loudest level since the last call, in -dBov; 127 if it was silent.
    pub(super) fn take_level(&mut self) -> u8 {
        std::mem::replace(&mut self.loudest, SILENCE)
    }

    pub(super) fn participant(&self) -> ParticipantId {
        self.participant
    }

    /// Whether it contributes nothing until its next packet: it has neither samples nor packets.
    pub(super) fn is_asleep(&self) -> bool {
        let is_filtering = self.filters.as_ref().is_some_and(FilteredVoice::is_fed);
        !self.leaving && !is_filtering && !self.sounding && self.ring.is_empty() && self.jitter.is_idle()
    }

    /// Packets concealed.
    pub(super) fn concealed(&self) -> u64 {
        self.jitter.stats().concealed
    }

    /// Malformed packets.
    pub(super) fn broken(&self) -> u64 {
        self.broken
    }

    /// The next 20 ms, which begin at `at`.
    pub(super) fn tick(&mut self, at: Timestamp, now: Timestamp) -> Option<Box<Tick>> {
        let tick = self.decode(at, now);
        match &mut self.filters {
            Some(filters) => filters.tick(tick, now),
            None => tick,
        }
    }

    fn decode(&mut self, at: Timestamp, now: Timestamp) -> Option<Box<Tick>> {
        self.fill(at, now);
        let mut tick = [0.0; AUDIO_TICK_SAMPLES];
        let had = self.ring.len().min(AUDIO_TICK_SAMPLES);
        for (to, from) in tick.iter_mut().zip(self.ring.drain(..had)) {
            // A decoder may output any value for a hostile packet.
            *to = if from.is_nan() { 0.0 } else { from.clamp(-1.0, 1.0) };
        }
        let whole = had == AUDIO_TICK_SAMPLES;
        if !whole && !self.sounding && had == 0 {
            return None;
        }
        if !self.sounding {
            fade_in(&mut tick[..FADE]);
        }
        if !whole {
            // The packets end within a wave: the concealment of the decoder fades out.
            let missing = AUDIO_TICK_SAMPLES - had;
            let made_up = self.decoder.conceal(missing, None);
            for (to, from) in tick[had..].iter_mut().zip(made_up) {
                *to = *from;
            }
        }
        if !whole || self.leaving {
            fade_out(&mut tick);
        }
        self.sounding = whole;
        let level = level_dbov(&tick);
        let gate = self.gate.update(level, now);
        match gate {
            GateState::Closed => {
                self.gain = self.wanted_gain;
                return None;
            }
            GateState::Opening => fade_in(&mut tick[..FADE]),
            GateState::Closing => fade_out(&mut tick),
            GateState::Open => {}
        }
        self.loudest = self.loudest.min(level);
        ramp(&mut tick, self.gain, self.wanted_gain);
        self.gain = self.wanted_gain;
        Some(Box::new(tick))
    }

    fn fill(&mut self, at: Timestamp, now: Timestamp) {
        self.jitter.set_extra(self.lip_sync.audio_delay());
        while self.ring.len() < AUDIO_TICK_SAMPLES {
            let sound = match self.jitter.pull(now) {
                AudioPull::Packet(packet) => match self.decoder.decode(&packet.payload) {
                    Ok(samples) => {
                        self.packet_samples = samples.len();
                        let begins = at + duration(self.ring.len());
                        self.lip_sync.heard(packet.arrival, self.jitter.is_settled(), begins);
                        samples
                    }
                    Err(error) => {
                        self.broken += 1;
                        tracing::debug!(participant = %self.participant, %error, "malformed audio packet");
                        self.decoder.conceal(self.packet_samples, None)
                    }
                },
                AudioPull::Lost { next } => {
                    self.decoder.conceal(self.packet_samples, next.as_ref().map(|packet| &packet.payload[..]))
                }
                AudioPull::Idle => return,
            };
            self.ring.extend(sound);
        }
    }
}

/// The duration of so many samples.
fn duration(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(AUDIO_RATE))
}
