//! One mix: limiter, encoders of both qualities, discontinuous transmission (DTX).
//!
//! Owns: the limiter, the encoders, the last ticks. Does not know: sources, listeners. In: the sum of each tick. Out:
//! packets.
//!
//! A receiver has one decoder and may be switched between mixes or qualities between two packets. To avoid an audible
//! discontinuity a mix keeps its last ticks: a new encoder encodes them first, and its first packet does not depend on
//! packets that the receiver has not got.
//!
//! A packet of `k` ticks ends at a tick with (n + 1) mod k = 0 in all mixes. A receiver that is switched within a
//! packet gets the whole packet from the new mix, without a gap or a repetition.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::audio::Limiter;
use crate::codec::sound::{OpusEncoder, OpusSettings, joined, pause_frame};
use crate::media::{AUDIO_TICK_SAMPLES, EncodedPacket, SoundQuality, SoundSpec, Sounds};

/// Samples of one tick.
pub(super) type Tick = [f32; AUDIO_TICK_SAMPLES];

/// Expected packet loss in percent, which sets the strength of in-band FEC. Above 5 % libopus reduces the audio
/// bandwidth before FEC; at low bitrates that is too much, and audible as a click when a receiver changes its mix.
const LOSS: u8 = 8;
/// The same for thin packets, see [`LOSS`].
const LOSS_THIN: u8 = 5;
/// Most ticks in a packet: 60 ms.
pub(super) const PACKET_TICKS: usize = 3;
/// Ticks that a new encoder encodes first: more than its look-ahead (6.5 ms) and the memory of its predictors.
const PRIME_TICKS: usize = 3;
/// Silent ticks that are encoded at the begin of a pause, until the decoder outputs silence.
const TAIL_TICKS: u32 = 5;
/// Packets without sound that follow; more than one, because packets get lost.
const PAUSE_PACKETS: u32 = 3;
/// Interval of such packets later in the pause, in ticks (400 ms, as libopus in DTX): a new receiver needs a first
/// packet.
const REFRESH_TICKS: u64 = 20;
/// Samples below this are silence: half a step of 24-bit samples, more than the rounding errors of a mix-minus.
const SILENCE: f32 = 6.0e-8;

/// A mix, its limiter and its encoders.
#[derive(Debug)]
pub(super) struct Mix {
    limiter: Limiter,
    /// The last ticks, oldest first.
    last: VecDeque<Tick>,
    /// The first tick since the last gap, and the tick after the last.
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
    /// The last packet was sent. The first packet after a pause has the RTP marker (RFC 7587 section 4.1).
    sending: bool,
    /// A receiver is switched to this encoding with the next packet.
    joined: bool,
}

impl Mix {
    /// A mix without earlier ticks.
    pub(super) fn new(sounds: Sounds) -> Self {
        Self {
            limiter: Limiter::default(),
            last: VecDeque::new(),
            since: 0,
            next: 0,
            silent: 0,
            full: Encoding::new(sounds.full, LOSS),
            thin: Encoding::new(sounds.thin, LOSS_THIN),
        }
    }

    /// A mix for a listener of this one: it begins with the same last ticks.
    pub(super) fn branch(&self) -> Self {
        Self {
            limiter: self.limiter.clone(),
            last: self.last.clone(),
            full: self.full.branch(),
            thin: self.thin.branch(),
            ..*self
        }
    }

    /// Prepares the next packets for a listener of another mix or quality.
    pub(super) fn join(&mut self) {
        self.full.joined = true;
        self.thin.joined = true;
    }

    /// Sets the Opus complexity from the next tick on.
    pub(super) fn set_complexity(&mut self, complexity: u8) {
        self.full.set_complexity(complexity);
        self.thin.set_complexity(complexity);
    }

    /// Limits tick `n` and keeps it. Call once a tick, before [`Self::encode`].
    pub(super) fn limit(&mut self, n: u64, mut tick: Tick) {
        if n != self.next {
            self.since = n;
        }
        self.next = n + 1;
        self.limiter.process(&mut tick);
        let silent = tick.iter().all(|sample| sample.abs() < SILENCE);
        self.silent = if silent { self.silent.saturating_add(1) } else { 0 };
        if self.last.len() == PRIME_TICKS + PACKET_TICKS {
            self.last.pop_front();
        }
        self.last.push_back(tick);
    }

    /// The packet that ends with the last tick. None within a packet, and in a pause.
    pub(super) fn encode(&mut self, quality: SoundQuality, encoded: &mut u64) -> Option<EncodedPacket> {
        let end = self.next;
        let ticks = u64::from(self.encoding(quality).ticks);
        if !end.is_multiple_of(ticks) {
            return None;
        }
        // Skipped ticks are in no packet.
        let first = (end - ticks).max(self.since);
        let before = self.last.len() - (end - first) as usize;
        let last = self.last.make_contiguous();
        let (before, sound) = last.split_at(before);
        let before = &before[before.len().saturating_sub(PRIME_TICKS)..];
        let silent = self.silent;
        let encoding = match quality {
            SoundQuality::Full => &mut self.full,
            SoundQuality::Thin => &mut self.thin,
        };
        encoding.encode(first..end, silent, before, sound, encoded)
    }

    /// This quality has no listeners: drops its encoder. The last ticks are kept.
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

    fn set_complexity(&mut self, complexity: u8) {
        if std::mem::replace(&mut self.settings.complexity, complexity) != complexity
            && let Some(encoder) = &mut self.encoder
        {
            encoder.set_complexity(complexity);
        }
    }

    /// Encodes these ticks. `silent`: silent ticks in a row at their end; `before`: the ticks before them.
    fn encode(
        &mut self,
        ticks: Range<u64>,
        silent: u32,
        before: &[Tick],
        sound: &[Tick],
        encoded: &mut u64,
    ) -> Option<EncodedPacket> {
        // One audible tick is enough to send the packet, so the first tick decides.
        let silent = silent.saturating_sub((ticks.end - ticks.start) as u32 - 1);
        let payload = if silent <= TAIL_TICKS {
            *encoded += 1;
            self.encode_heard(before, sound)
        } else {
            // After a pause a packet need not match what receivers have decoded before.
            self.joined = true;
            let announced = silent > TAIL_TICKS + PAUSE_PACKETS * self.ticks;
            let again = ticks.clone().any(|n| n.is_multiple_of(REFRESH_TICKS));
            (!announced || again).then(pause_frame)
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
