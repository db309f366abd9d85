//! The audio of a source, sent like a participant's microphone: Opus packets of 20 ms.
//!
//! Owns: the encoder and packet numbers. Does not know: where audio comes from, or the time. In: ticks. Out: packets
//! into the [`Outbox`].

use std::sync::Arc;
use std::time::Duration;

use super::outbox::Outbox;
use super::ticks::{TICK, Tick};
use crate::audio::level_dbov;
use crate::codec::sound::{OpusEncoder, OpusSettings, Purpose};
use crate::link::input::FromInput;
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec, SourceKind, SourcePacket};
use crate::time::{Timestamp, now};

/// A tick that is later than this is skipped.
const MAX_LATENESS: Duration = Duration::from_millis(200);
/// A tick that is due at most this long after the end of the previous one follows it without a gap.
const TOLERANCE: Duration = Duration::from_millis(10);
/// No loss between here and the mixer, which decodes and encodes it again.
const SETTINGS: OpusSettings =
    OpusSettings { purpose: Purpose::Music, bitrate: 96_000, complexity: 5, expected_loss: 0 };

/// Encodes and sends the audio of a source.
pub(super) struct Microphone {
    outbox: Arc<Outbox>,
    encoder: OpusEncoder,
    announced: bool,
    sequence: u16,
    /// RTP timestamp and due time of the last tick.
    last: Option<(u32, Timestamp)>,
}

impl Microphone {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        let (encoder, sequence) = (OpusEncoder::new(SETTINGS), rand::random());
        Self { outbox, encoder, announced: false, sequence, last: None }
    }

    /// Encodes and sends a tick.
    pub(super) fn send(&mut self, tick: &Tick, at: Timestamp) {
        if at.since(tick.due) > MAX_LATENESS {
            return;
        }
        let timestamp = match self.last {
            None => (tick.due.as_micros() * 48 / 1000) as u32,
            Some((timestamp, due)) => timestamp.wrapping_add(advance(due, tick.due)),
        };
        self.last = Some((timestamp, tick.due));
        let Some(payload) = self.encoder.encode(&tick.samples) else { return };
        if !std::mem::replace(&mut self.announced, true) {
            self.outbox.push(FromInput::Started { kind: SourceKind::Microphone, codec: Codec::Opus });
        }
        self.sequence = self.sequence.wrapping_add(1);
        let packet = SourcePacket {
            sequence: self.sequence,
            timestamp,
            marker: false,
            arrival: now(),
            captured: None,
            audio_level: Some(level_dbov(&tick.samples)),
            rotation: None,
            colours: None,
            payload,
        };
        self.outbox.push(FromInput::Packet(SourceKind::Microphone, packet));
    }
}

/// RTP timestamp increment between two ticks: one tick if they follow each other, so that audio is continuous; never
/// less, because receivers discard timestamps that were already played.
fn advance(last: Timestamp, due: Timestamp) -> u32 {
    let expected = last + TICK;
    if due <= expected + TOLERANCE {
        return AUDIO_TICK_SAMPLES as u32;
    }
    (due.since(last).as_micros() as u64 * u64::from(AUDIO_RATE) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_continuous_and_skip_gaps() {
        let at = |millis: u64| Timestamp::from_micros(millis * 1000);
        assert_eq!(advance(at(100), at(120)), 960);
        assert_eq!(advance(at(100), at(129)), 960, "rounding");
        assert_eq!(advance(at(100), at(90)), 960, "due times went back");
        assert_eq!(advance(at(100), at(1_100)), 48_000);
    }

    #[test]
    fn a_tick_becomes_a_packet_and_a_late_one_is_skipped() {
        let outbox = Arc::new(Outbox::default());
        let mut microphone = Microphone::new(outbox.clone());
        let tick = |due| Tick { due, samples: [0.1; AUDIO_TICK_SAMPLES] };
        let start = Timestamp::from_micros(7_000_000);
        microphone.send(&tick(start), start);
        microphone.send(&tick(start + TICK), start + TICK * 20);
        microphone.send(&tick(start + TICK * 2), start + TICK * 2);
        let mut all = Vec::new();
        outbox.take(&mut all);
        let [FromInput::Started { .. }, FromInput::Packet(_, first), FromInput::Packet(_, second)] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 1920);
        assert_eq!(second.sequence, first.sequence.wrapping_add(1));
        assert_eq!(first.audio_level, Some(20));
    }
}
