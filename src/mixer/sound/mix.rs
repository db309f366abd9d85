//! One mix on its way to its listeners: limited, encoded, and not even encoded while nothing is to be heard.
//!
//! A receiver has one decoder, and may be switched from one mix to another, or to another quality of the same, between
//! two packets. So that it hears no seam, a mix remembers the last ticks its listeners heard; an encoder that begins is
//! fed with them first, and its first frame does not build upon frames the receiver never got.
//!
//! A packet of several ticks ends at ticks that are one less than a multiple of their number, in all mixes alike: so
//! whoever comes from another mix within such a packet gets the whole of it from the new one, and nothing twice.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::audio::Limiter;
use crate::codec::sound::{OpusEncoder, OpusSettings, joined, pause_frame};
use crate::media::{AUDIO_TICK_SAMPLES, EncodedPacket, SoundQuality, SoundSpec, Sounds};

/// Samples of one tick.
pub(super) type Tick = [f32; AUDIO_TICK_SAMPLES];

/// Loss that is protected against, in percent. Above 5, libopus gives up the upper octaves before it gives up FEC: too
/// much where bits are few, and heard as a click by whoever comes from a mix that has them.
const LOSS: u8 = 8;
/// See [`LOSS`].
const LOSS_THIN: u8 = 5;
/// Most ticks in a packet: 60 ms.
const PACKET_TICKS: usize = 3;
/// Ticks a new encoder is fed with: past its look-ahead (6.5 ms) and the memory of its predictors.
const PRIME_TICKS: usize = 3;
/// Silent ticks that are still encoded, until a receiver's decoder has come to rest.
const TAIL_TICKS: u32 = 5;
/// After those the pause is told, and so often again in case that a packet is lost.
const PAUSE_PACKETS: u32 = 3;
/// Later in the pause every so many ticks it is told again (400 ms, as often as libopus would): a receiver that came
/// meanwhile has something to begin with.
const REFRESH_TICKS: u64 = 20;
/// Below this a sample is silence: half a step of 24-bit sound, above what subtracting one's own voice leaves behind.
const SILENCE: f32 = 6.0e-8;

/// A mix, its limiter and its encoders.
#[derive(Debug)]
pub(super) struct Mix {
    limiter: Limiter,
    /// What its listeners heard last, oldest first.
    heard: VecDeque<Tick>,
    /// The ticks that were limited without a gap between them: the first, and the one after the last.
    since: u64,
    next: u64,
    /// Ticks of silence in a row.
    silent: u32,
    full: Encoding,
    thin: Encoding,
}

/// One quality of a mix.
#[derive(Debug)]
struct Encoding {
    settings: OpusSettings,
    /// Ticks in a packet.
    ticks: u32,
    encoder: Option<OpusEncoder>,
    /// The last packet was sent; the next one after a pause carries the RTP marker (RFC 7587 section 4.1).
    sending: bool,
    /// A receiver is switched over to this encoding with the next packet.
    joined: bool,
}

impl Mix {
    /// A mix whose listeners have heard nothing yet.
    pub(super) fn new(sounds: Sounds) -> Self {
        Self {
            limiter: Limiter::default(),
            heard: VecDeque::new(),
            since: 0,
            next: 0,
            silent: 0,
            full: Encoding::new(sounds.full, LOSS),
            thin: Encoding::new(sounds.thin, LOSS_THIN),
        }
    }

    /// A mix for somebody who has heard this one until now.
    pub(super) fn branch(&self) -> Self {
        Self {
            limiter: self.limiter.clone(),
            heard: self.heard.clone(),
            full: self.full.branch(),
            thin: self.thin.branch(),
            ..*self
        }
    }

    /// Makes the next packets fit for a listener who comes from another mix, or quality.
    pub(super) fn join(&mut self) {
        self.full.joined = true;
        self.thin.joined = true;
    }

    /// Limits tick `n` and remembers it as heard. Call once a tick, before [`Self::encode`].
    pub(super) fn limit(&mut self, n: u64, mut tick: Tick) {
        if n != self.next {
            self.since = n;
        }
        self.next = n + 1;
        self.limiter.process(&mut tick);
        let silent = tick.iter().all(|sample| sample.abs() < SILENCE);
        self.silent = if silent { self.silent.saturating_add(1) } else { 0 };
        if self.heard.len() == PRIME_TICKS + PACKET_TICKS {
            self.heard.pop_front();
        }
        self.heard.push_back(tick);
    }

    /// The packet that ends with the tick that was limited last. None within a packet, and where nothing need be sent.
    pub(super) fn encode(&mut self, quality: SoundQuality, encoded: &mut u64) -> Option<EncodedPacket> {
        let end = self.next;
        let ticks = u64::from(self.encoding(quality).ticks);
        if !end.is_multiple_of(ticks) {
            return None;
        }
        // Ticks that were left out for their lateness are in no packet.
        let first = (end - ticks).max(self.since);
        let before = self.heard.len() - (end - first) as usize;
        let heard = self.heard.make_contiguous();
        let (before, sound) = heard.split_at(before);
        let before = &before[before.len().saturating_sub(PRIME_TICKS)..];
        let silent = self.silent;
        let encoding = match quality {
            SoundQuality::Full => &mut self.full,
            SoundQuality::Thin => &mut self.thin,
        };
        encoding.encode(first..end, silent, before, sound, encoded)
    }

    /// Nobody hears this quality at present: its encoder goes. What would have been heard is still remembered.
    pub(super) fn rest(&mut self, quality: SoundQuality) {
        let encoding = self.encoding(quality);
        encoding.encoder = None;
        encoding.sending = false;
    }

    fn encoding(&mut self, quality: SoundQuality) -> &mut Encoding {
        match quality {
            SoundQuality::Full => &mut self.full,
            SoundQuality::Thin => &mut self.thin,
        }
    }
}

impl Encoding {
    fn new(spec: SoundSpec, expected_loss: u8) -> Self {
        let settings = OpusSettings { bitrate: spec.bitrate_kbps * 1_000, expected_loss, ..OpusSettings::default() };
        Self { settings, ticks: spec.ticks(), encoder: None, sending: false, joined: false }
    }

    fn branch(&self) -> Self {
        Self { encoder: None, joined: false, ..*self }
    }

    /// Encodes the sound of these ticks. `silent`: ticks of silence in a row at their end; `before`: what was heard
    /// before them.
    fn encode(
        &mut self,
        ticks: Range<u64>,
        silent: u32,
        before: &[Tick],
        sound: &[Tick],
        encoded: &mut u64,
    ) -> Option<EncodedPacket> {
        // What counts is the first of its ticks: one that is heard is reason enough.
        let silent = silent.saturating_sub((ticks.end - ticks.start) as u32 - 1);
        let payload = if silent <= TAIL_TICKS {
            *encoded += 1;
            self.encode_heard(before, sound)
        } else {
            // What the receivers have decoded so far matters no more after a pause.
            self.joined = true;
            let told = silent > TAIL_TICKS + PAUSE_PACKETS * self.ticks;
            let again = ticks.clone().any(|n| n.is_multiple_of(REFRESH_TICKS));
            (!told || again).then(pause_frame)
        };
        let marker = !std::mem::replace(&mut self.sending, payload.is_some());
        let payload = payload?;
        Some(EncodedPacket { timestamp: timestamp(ticks.start), marker, starts_keyframe: true, payload })
    }

    fn encode_heard(&mut self, before: &[Tick], sound: &[Tick]) -> Option<Bytes> {
        let begins = self.encoder.is_none();
        let encoder = self.encoder.get_or_insert_with(|| {
            let mut encoder = OpusEncoder::new(self.settings);
            encoder.prime(before);
            encoder
        });
        let mut independent = begins || std::mem::take(&mut self.joined);
        let frames = sound.iter().map(|tick| {
            encoder.set_independent(std::mem::take(&mut independent));
            encoder.encode(tick)
        });
        joined(&frames.collect::<Option<Vec<_>>>()?)
    }
}

/// The RTP timestamp of a tick.
pub(super) const fn timestamp(n: u64) -> u32 {
    n.wrapping_mul(AUDIO_TICK_SAMPLES as u64) as u32
}
