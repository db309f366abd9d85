//! The sound of a source, as a participant's microphone would send it: Opus, 20 ms a packet.
//!
//! Owns: the encoder and the packets' numbers. Does not know: where sound comes from, what time it is.

use std::sync::Arc;
use std::time::Duration;

use super::outbox::Outbox;
use super::ticks::{TICK, Tick};
use crate::audio::level_dbov;
use crate::codec::sound::{OpusEncoder, OpusSettings, Purpose};
use crate::link::input::FromInput;
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec, SourceKind, SourcePacket};
use crate::time::{Timestamp, now};

/// What is too late by this is left out.
const STALE: Duration = Duration::from_millis(200);
/// A tick that begins no further than this from where the last one ended follows it.
const FOLLOWS: Duration = Duration::from_millis(10);
/// Nothing is lost on the way to the mixer, and it is encoded once more there.
const SETTINGS: OpusSettings =
    OpusSettings { purpose: Purpose::Music, bitrate: 96_000, complexity: 5, expected_loss: 0 };

/// Sends a source's sound.
pub(super) struct Microphone {
    outbox: Arc<Outbox>,
    encoder: OpusEncoder,
    announced: bool,
    sequence: u16,
    /// RTP timestamp of the last tick, and when that was due.
    last: Option<(u32, Timestamp)>,
}

impl Microphone {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        let (encoder, sequence) = (OpusEncoder::new(SETTINGS), rand::random());
        Self { outbox, encoder, announced: false, sequence, last: None }
    }

    /// Sends a tick.
    pub(super) fn say(&mut self, tick: &Tick, at: Timestamp) {
        if at.since(tick.due) > STALE {
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
            audio_level: Some(level_dbov(&tick.samples)),
            rotation: None,
            colours: None,
            payload,
        };
        self.outbox.push(FromInput::Packet(SourceKind::Microphone, packet));
    }
}

/// How far the RTP timestamp goes from one tick to the next: one tick where they follow each other, so that sound has no
/// seams; never less, since no receiver takes sound twice.
fn advance(last: Timestamp, due: Timestamp) -> u32 {
    let expected = last + TICK;
    if due <= expected + FOLLOWS {
        return AUDIO_TICK_SAMPLES as u32;
    }
    (due.since(last).as_micros() as u64 * u64::from(AUDIO_RATE) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_each_other_and_jump_over_gaps() {
        let at = |millis: u64| Timestamp::from_micros(millis * 1000);
        assert_eq!(advance(at(100), at(120)), 960);
        assert_eq!(advance(at(100), at(129)), 960, "rounding");
        assert_eq!(advance(at(100), at(90)), 960, "the line moved back");
        assert_eq!(advance(at(100), at(1_100)), 48_000);
    }

    #[test]
    fn a_tick_becomes_a_packet_and_a_stale_one_none() {
        let outbox = Arc::new(Outbox::default());
        let mut microphone = Microphone::new(outbox.clone());
        let tick = |due| Tick { due, samples: [0.1; AUDIO_TICK_SAMPLES] };
        let start = Timestamp::from_micros(7_000_000);
        microphone.say(&tick(start), start);
        microphone.say(&tick(start + TICK), start + TICK * 20);
        microphone.say(&tick(start + TICK * 2), start + TICK * 2);
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
