//! Fills the pauses of the audio mix: the mixer sends nothing while nobody speaks, but files and broadcasts need
//! continuous audio.
//!
//! Owns: [`AudioGapFiller`]. Does not know: the use of the audio. Pure: time is an argument. In: packets of 20 ms with
//! gaps. Out: packets of 20 ms without gaps and overlaps on the room's timeline, so that audio and video cannot drift
//! apart.

use bytes::Bytes;

use super::frames::TimestampUnwrapper;
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, EncodedPacket};
use crate::time::Timestamp;

/// An Opus packet of 20 ms of silence, mono, fullband.
const SILENCE: &[u8] = &[31 << 3, 0xff, 0xfe];
/// Samples per packet.
const PACKET_SAMPLES: u64 = AUDIO_TICK_SAMPLES as u64;
/// A missing packet is replaced by silence after this delay: 200 ms in samples.
const MAX_LATENESS: u64 = AUDIO_RATE as u64 / 5;
/// Longest pause that is filled, in samples: ten minutes. A longer one is a clock error.
const MAX_FILL: u64 = 600 * AUDIO_RATE as u64;

/// One Opus packet of 20 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPacket {
    /// Time in samples at 48 kHz since the room's epoch.
    pub time: u64,
    /// The Opus packet.
    pub data: Bytes,
}

/// Fills the pauses of an audio mix.
#[derive(Debug)]
pub struct AudioGapFiller {
    unwrapper: TimestampUnwrapper,
    /// Time of the next packet; None before [`AudioGapFiller::begin`].
    next: Option<u64>,
    /// Packets dropped because they arrived after their silence was inserted.
    late: u64,
}

impl AudioGapFiller {
    /// For the mix of a room with epoch `epoch`. Starts with [`AudioGapFiller::begin`].
    pub fn new(epoch: Timestamp) -> Self {
        Self { unwrapper: TimestampUnwrapper::new(epoch, AUDIO_RATE), next: None, late: 0 }
    }

    /// Starts with the packet that contains `time`, in samples since the epoch.
    pub fn begin(&mut self, time: u64) {
        self.next = Some(time / PACKET_SAMPLES * PACKET_SAMPLES);
    }

    /// Whether [`AudioGapFiller::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Number of packets dropped because they arrived after their silence was inserted.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Adds a packet; returns the silence before it and the packet.
    pub fn push(&mut self, packet: EncodedPacket, now: Timestamp) -> Vec<AudioPacket> {
        let time = self.unwrapper.time(packet.timestamp, now);
        let Some(next) = self.next else { return Vec::new() };
        if time < next {
            self.late += 1;
            return Vec::new();
        }
        let mut packets = self.fill(time);
        self.next = Some(time + PACKET_SAMPLES);
        // An empty Opus packet (DTX) announces a pause; decoders of files would treat it as a loss.
        let data = if packet.payload.len() < 2 { Bytes::from_static(SILENCE) } else { packet.payload };
        packets.push(AudioPacket { time, data });
        packets
    }

    /// Returns silence in place of packets that are overdue.
    pub fn tick(&mut self, now: Timestamp) -> Vec<AudioPacket> {
        self.fill(self.unwrapper.ticks(now).saturating_sub(MAX_LATENESS))
    }

    /// Returns the silence missing up to `until`, in samples since the epoch.
    pub fn fill(&mut self, until: u64) -> Vec<AudioPacket> {
        let Some(next) = self.next else { return Vec::new() };
        let until = until.max(next);
        if until - next > MAX_FILL {
            tracing::warn!(
                seconds = (until - next) / u64::from(AUDIO_RATE),
                "gap in the audio mix too long to be filled"
            );
            self.next = Some(until / PACKET_SAMPLES * PACKET_SAMPLES);
            return Vec::new();
        }
        let silence = (next..until).step_by(PACKET_SAMPLES as usize).take_while(|time| time + PACKET_SAMPLES <= until);
        let packets: Vec<AudioPacket> =
            silence.map(|time| AudioPacket { time, data: Bytes::from_static(SILENCE) }).collect();
        self.next = Some(next + packets.len() as u64 * PACKET_SAMPLES);
        packets
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::sound::SoundDecoder;
    use crate::media::Codec;

    const EPOCH: Timestamp = Timestamp::from_micros(9_000_000);

    fn packet(n: u64) -> EncodedPacket {
        let payload = Bytes::from_static(b"sound");
        EncodedPacket { timestamp: (n * PACKET_SAMPLES) as u32, marker: false, starts_keyframe: true, payload }
    }

    fn at(n: u64) -> Timestamp {
        EPOCH + Duration::from_millis(n * 20)
    }

    proptest! {
        #[test]
        fn packets_are_continuous_whatever_is_missing(
            start in 0..400_000_000_u64,
            coming in prop::collection::vec(prop::bool::weighted(0.5), 1..200),
        ) {
            let mut gap_filler = AudioGapFiller::new(EPOCH);
            gap_filler.begin(start * PACKET_SAMPLES + 17);
            let mut out = Vec::new();
            for (n, comes) in coming.iter().enumerate() {
                let n = start + n as u64;
                if *comes {
                    out.extend(gap_filler.push(packet(n), at(n + 2)));
                }
                out.extend(gap_filler.tick(at(n + 2)));
            }
            for (n, sound) in out.iter().enumerate() {
                prop_assert_eq!(sound.time, (start + n as u64) * PACKET_SAMPLES);
                prop_assert_eq!(&sound.data[..] == b"sound", coming[n]);
            }
            let last = coming.len() - coming.iter().rev().position(|comes| *comes).unwrap_or(coming.len());
            prop_assert!(out.len() >= last, "a received packet is missing");
            prop_assert!(coming.len() - out.len() <= 10, "a pause is filled after 200 ms");
            prop_assert_eq!(gap_filler.late(), 0);
        }
    }

    #[test]
    fn late_packets_are_counted_and_dropped() {
        let mut gap_filler = AudioGapFiller::new(EPOCH);
        assert!(gap_filler.push(packet(3), at(4)).is_empty(), "it has not begun");
        gap_filler.begin(0);
        assert_eq!(gap_filler.tick(at(30)).len(), 20);
        assert!(gap_filler.push(packet(5), at(31)).is_empty());
        assert_eq!(gap_filler.late(), 1);
    }

    #[test]
    fn the_silence_packet_decodes_to_silence() {
        let mut decoder = SoundDecoder::new(Codec::Opus).expect("a decoder");
        for _ in 0..5 {
            let samples = decoder.decode(SILENCE).expect("Opus");
            assert_eq!(samples.len() as u64, PACKET_SAMPLES);
            assert!(samples.iter().all(|sample| sample.abs() < 1.0e-6), "{samples:?}");
        }
    }
}
