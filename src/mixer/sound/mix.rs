//! One mix on its way to its listeners: limited, encoded, and not even encoded while nothing is to be heard.
//!
//! A receiver has one decoder, and may be switched from one mix to another between two ticks. So that it hears no seam,
//! a mix remembers the last ticks its listeners heard; an encoder that begins is fed with them first, and its first
//! frame does not build upon frames the receiver never got.

use std::collections::VecDeque;

use crate::audio::Limiter;
use crate::codec::sound::{OpusEncoder, OpusSettings};
use crate::media::{AUDIO_TICK_SAMPLES, EncodedPacket};

/// Samples of one tick.
pub(super) type Tick = [f32; AUDIO_TICK_SAMPLES];

/// Ticks a new encoder is fed with: past its look-ahead (6.5 ms) and the memory of its predictors.
const PRIME_TICKS: usize = 3;
/// In silence every so many ticks one frame goes out all the same (400 ms, as libopus itself does): a receiver that came
/// meanwhile, or lost what told it of the pause, has something to begin with.
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
    /// Its listeners know that there is a pause.
    pausing: bool,
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
            pausing: false,
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
            pausing: self.pausing,
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
        if self.heard.len() > PRIME_TICKS {
            self.heard.pop_front();
        }
        self.heard.push_back(tick);
    }

    /// Encodes the tick that was limited last. None where nothing need be sent.
    pub(super) fn encode(&mut self, n: u64, encoded: &mut u64) -> Option<EncodedPacket> {
        let (tick, before) = self.heard.make_contiguous().split_last().expect("limit was called before");
        let silent = tick.iter().all(|sample| sample.abs() < SILENCE);
        if silent && self.pausing && !n.is_multiple_of(REFRESH_TICKS) {
            self.sending = false;
            return None;
        }
        let begins = self.encoder.is_none();
        let encoder = self.encoder.get_or_insert_with(|| {
            let mut encoder = OpusEncoder::new(self.settings);
            encoder.prime(before);
            encoder
        });
        *encoded += 1;
        let payload = if silent && self.pausing {
            encoder.encode_pause()
        } else {
            let independent = begins || self.joined || !self.sending;
            encoder.set_independent(independent);
            let payload = encoder.encode(tick);
            self.pausing = silent && encoder.is_pausing();
            payload
        };
        self.joined = false;
        let Some(payload) = payload else {
            self.sending = false;
            return None;
        };
        let marker = !std::mem::replace(&mut self.sending, true);
        Some(EncodedPacket { timestamp: timestamp(n), marker, starts_keyframe: true, payload })
    }

    /// Nobody hears this mix at present: the encoder goes. What would have been heard is still remembered.
    pub(super) fn rest(&mut self) {
        self.encoder = None;
        self.pausing = false;
        self.sending = false;
    }
}

/// The RTP timestamp of a tick.
pub(super) const fn timestamp(n: u64) -> u32 {
    n.wrapping_mul(AUDIO_TICK_SAMPLES as u64) as u32
}
