//! Everyone's mix without its pauses: the mixer sends nothing while nobody is to be heard, files and broadcasts go on.
//!
//! Owns: [`Steady`]. Does not know: what becomes of the sound. Pure: time is an argument.
//! Packets of 20 ms follow each other without a gap and without overlap on the room's own time line, so that sound and
//! pictures cannot drift apart; what is missing is silence.

use bytes::Bytes;

use super::frames::Unwrap;
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, EncodedPacket};
use crate::time::Timestamp;

/// Opus of 20 ms of silence, mono, at its full bandwidth; a decoder that begins with it is at rest.
const SILENCE: &[u8] = &[31 << 3, 0xff, 0xfe];
/// Samples of a packet.
const PACKET: u64 = AUDIO_TICK_SAMPLES as u64;
/// So much later than its time a packet that has not come is taken for a pause: 200 ms in samples.
const PATIENCE: u64 = AUDIO_RATE as u64 / 5;
/// The longest pause that is filled packet by packet, in samples: ten minutes. Longer ones are a clock's fault.
const FILL_MAX: u64 = 600 * AUDIO_RATE as u64;

/// One packet of 20 ms of Opus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// Its time in samples at 48 kHz since the room's epoch.
    pub time: u64,
    /// The packet.
    pub data: Bytes,
}

/// Fills the pauses of a mix.
#[derive(Debug)]
pub struct Steady {
    unwrap: Unwrap,
    /// When the next packet is due; None before the beginning.
    next: Option<u64>,
    /// Packets that came too late.
    late: u64,
}

impl Steady {
    /// For the mix of a room with this epoch. It begins with [`Steady::begin`].
    pub fn new(epoch: Timestamp) -> Self {
        Self { unwrap: Unwrap::new(epoch, AUDIO_RATE), next: None, late: 0 }
    }

    /// Sound is wanted from this time on, in samples since the epoch; the packet that holds it is the first.
    pub fn begin(&mut self, time: u64) {
        self.next = Some(time / PACKET * PACKET);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Packets that came after silence had been put in their place.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Takes in a packet; gives the silence before it, and it.
    pub fn push(&mut self, packet: EncodedPacket, now: Timestamp) -> Vec<Sound> {
        let time = self.unwrap.time(packet.timestamp, now);
        let Some(next) = self.next else { return Vec::new() };
        if time < next {
            self.late += 1;
            return Vec::new();
        }
        let mut sounds = self.fill(time);
        self.next = Some(time + PACKET);
        // A table of contents without content says that a pause begins; a decoder of a file would take it for a loss.
        let data = if packet.payload.len() < 2 { Bytes::from_static(SILENCE) } else { packet.payload };
        sounds.push(Sound { time, data });
        sounds
    }

    /// Time passes: gives the silence that takes the place of packets that have not come.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Sound> {
        self.fill(self.unwrap.ticks(now).saturating_sub(PATIENCE))
    }

    /// The end: gives what is missing up to this time, in samples since the epoch.
    pub fn fill(&mut self, until: u64) -> Vec<Sound> {
        let Some(next) = self.next else { return Vec::new() };
        let until = until.max(next);
        if until - next > FILL_MAX {
            tracing::warn!(seconds = (until - next) / u64::from(AUDIO_RATE), "a pause in the sound is not filled");
            self.next = Some(until / PACKET * PACKET);
            return Vec::new();
        }
        let silence = (next..until).step_by(PACKET as usize).take_while(|time| time + PACKET <= until);
        let sounds: Vec<Sound> = silence.map(|time| Sound { time, data: Bytes::from_static(SILENCE) }).collect();
        self.next = Some(next + sounds.len() as u64 * PACKET);
        sounds
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
        EncodedPacket { timestamp: (n * PACKET) as u32, marker: false, starts_keyframe: true, payload }
    }

    fn at(n: u64) -> Timestamp {
        EPOCH + Duration::from_millis(n * 20)
    }

    proptest! {
        #[test]
        fn packets_follow_each_other_whatever_is_missing(
            start in 0..400_000_000_u64,
            coming in prop::collection::vec(prop::bool::weighted(0.5), 1..200),
        ) {
            let mut steady = Steady::new(EPOCH);
            steady.begin(start * PACKET + 17);
            let mut out = Vec::new();
            for (n, comes) in coming.iter().enumerate() {
                let n = start + n as u64;
                if *comes {
                    out.extend(steady.push(packet(n), at(n + 2)));
                }
                out.extend(steady.tick(at(n + 2)));
            }
            for (n, sound) in out.iter().enumerate() {
                prop_assert_eq!(sound.time, (start + n as u64) * PACKET);
                prop_assert_eq!(&sound.data[..] == b"sound", coming[n]);
            }
            let last = coming.len() - coming.iter().rev().position(|comes| *comes).unwrap_or(coming.len());
            prop_assert!(out.len() >= last, "what came is there");
            prop_assert!(coming.len() - out.len() <= 10, "a pause is filled after 200 ms");
            prop_assert_eq!(steady.late(), 0);
        }
    }

    #[test]
    fn what_comes_after_its_silence_is_counted_and_left_out() {
        let mut steady = Steady::new(EPOCH);
        assert!(steady.push(packet(3), at(4)).is_empty(), "it has not begun");
        steady.begin(0);
        assert_eq!(steady.tick(at(30)).len(), 20);
        assert!(steady.push(packet(5), at(31)).is_empty());
        assert_eq!(steady.late(), 1);
    }

    #[test]
    fn silence_is_silence() {
        let mut decoder = SoundDecoder::new(Codec::Opus).expect("a decoder");
        for _ in 0..5 {
            let samples = decoder.decode(SILENCE).expect("Opus");
            assert_eq!(samples.len() as u64, PACKET);
            assert!(samples.iter().all(|sample| sample.abs() < 1.0e-6), "{samples:?}");
        }
    }
}
