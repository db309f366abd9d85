//! One mix on its way to its listeners: limited, encoded, and not even encoded while nothing is to be heard.
//!
//! A receiver has one decoder, and may be switched from one mix to another between two ticks. So that it hears no seam,
//! a mix remembers the last ticks its listeners heard; an encoder that begins is fed with them first, and its first
//! frame does not build upon frames the receiver never got.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::audio::Limiter;
use crate::codec::sound::{OpusEncoder, OpusSettings, pause_frame};
use crate::media::{AUDIO_TICK_SAMPLES, EncodedPacket};

/// Samples of one tick.
pub(super) type Tick = [f32; AUDIO_TICK_SAMPLES];

/// Ticks a new encoder is fed with: past its look-ahead (6.5 ms) and the memory of its predictors.
const PRIME_TICKS: usize = 3;
/// Silent ticks that are still encoded, until a receiver's decoder has come to rest.
const TAIL_TICKS: u32 = 5;
/// After those the pause is told, and so often again in case that a packet is lost.
const PAUSE_TICKS: u32 = 3;
/// Later in the pause every so many ticks it is told again (400 ms, as often as libopus would): a receiver that came
/// meanwhile has something to begin with.
const REFRESH_TICKS: u64 = 20;
/// Below this a sample is silence: half a step of 24-bit sound, above what subtracting one's own voice leaves behind.
const SILENCE: f32 = 6.0e-8;

/// A mix, its limiter and its encoder.
#[derive(Debug)]
pub(super) struct Mix {
    settings: OpusSettings,
    limiter: Limiter,
    encoder: Option<OpusEncoder>,
    /// What its listeners heard last, oldest first.
    heard: VecDeque<Tick>,
    /// Ticks of silence in a row.
    silent: u32,
    /// The last tick sent a frame; the next one after a pause carries the RTP marker (RFC 7587 section 4.1).
    sending: bool,
    /// A receiver is switched over to this mix with the next frame.
    joined: bool,
}

impl Mix {
    /// A mix whose listeners have heard nothing yet.
    pub(super) fn new(settings: OpusSettings) -> Self {
        Self {
            settings,
            limiter: Limiter::default(),
            encoder: None,
            heard: VecDeque::new(),
            silent: 0,
            sending: false,
            joined: false,
        }
    }

    /// A mix for somebody who has heard this one until now.
    pub(super) fn branch(&self) -> Self {
        Self {
            settings: self.settings,
            limiter: self.limiter.clone(),
            encoder: None,
            heard: self.heard.clone(),
            silent: self.silent,
            sending: self.sending,
            joined: false,
        }
    }

    /// Makes the next frame fit for a listener who comes from another mix.
    pub(super) fn join(&mut self) {
        self.joined = true;
    }

    /// Limits one tick and remembers it as heard. Call once a tick, before [`Self::encode`].
    pub(super) fn limit(&mut self, mut tick: Tick) {
        self.limiter.process(&mut tick);
        let silent = tick.iter().all(|sample| sample.abs() < SILENCE);
        self.silent = if silent { self.silent.saturating_add(1) } else { 0 };
        if self.heard.len() > PRIME_TICKS {
            self.heard.pop_front();
        }
        self.heard.push_back(tick);
    }

    /// Encodes the tick that was limited last. None where nothing need be sent.
    pub(super) fn encode(&mut self, n: u64, encoded: &mut u64) -> Option<EncodedPacket> {
        let payload = if self.silent <= TAIL_TICKS {
            *encoded += 1;
            self.encode_heard()
        } else {
            // What the receivers have decoded so far matters no more after a pause.
            self.joined = true;
            let told = self.silent > TAIL_TICKS + PAUSE_TICKS && !n.is_multiple_of(REFRESH_TICKS);
            (!told).then(pause_frame)
        };
        let marker = !std::mem::replace(&mut self.sending, payload.is_some());
        let payload = payload?;
        Some(EncodedPacket { timestamp: timestamp(n), marker, starts_keyframe: true, payload })
    }

    fn encode_heard(&mut self) -> Option<Bytes> {
        let (tick, before) = self.heard.make_contiguous().split_last().expect("limit was called before");
        let begins = self.encoder.is_none();
        let encoder = self.encoder.get_or_insert_with(|| {
            let mut encoder = OpusEncoder::new(self.settings);
            encoder.prime(before);
            encoder
        });
        encoder.set_independent(begins || std::mem::take(&mut self.joined));
        encoder.encode(tick)
    }

    /// Nobody hears this mix at present: the encoder goes. What would have been heard is still remembered.
    pub(super) fn rest(&mut self) {
        self.encoder = None;
        self.sending = false;
    }
}

/// The RTP timestamp of a tick.
pub(super) const fn timestamp(n: u64) -> u32 {
    n.wrapping_mul(AUDIO_TICK_SAMPLES as u64) as u32
}
