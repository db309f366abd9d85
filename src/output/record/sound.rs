//! The sound of a recording: everyone's mix without pauses, as Opus or AAC.
//!
//! Owns: [`Track`]. Does not know: files. Times are samples at 48 kHz since the room's epoch.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;

use crate::codec::CodecError;
use crate::codec::aac::{AUDIO_SPECIFIC_CONFIG, DEFAULT_BITRATE, FRAME_SAMPLES, OpusToAac};
use crate::container::TrackSpec;
use crate::media::{AUDIO_TICK_SAMPLES, EncodedPacket};
use crate::output::Failure;
use crate::output::steady::{Sound, Steady};
use crate::time::Timestamp;

/// Packets kept before the beginning is known: the sound of a keyframe comes sooner than the keyframe. Two seconds.
const KEPT: usize = 100;
/// Frames that may wait to be taken from the AAC encoder's thread: what it takes in at once, and more.
const FRAMES: usize = 1_024;
/// How long the AAC encoder may take to give a frame when it has much to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// A packet of sound as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    /// When it begins.
    pub(super) time: u64,
    /// How long it is.
    pub(super) duration: u32,
    /// The packet.
    pub(super) data: Bytes,
}

/// The sound of a recording.
pub(super) struct Track {
    steady: Steady,
    /// What came before the beginning is known.
    early: VecDeque<(EncodedPacket, Timestamp)>,
    encoding: Encoding,
}

enum Encoding {
    Opus,
    Aac { encoder: OpusToAac, frames: Receiver<Packet> },
}

impl Track {
    /// For a room with this epoch.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub(super) fn new(epoch: Timestamp, aac: bool) -> Result<Self, Failure> {
        let encoding = if aac {
            let (sender, frames) = sync_channel(FRAMES);
            let encoder = OpusToAac::new(DEFAULT_BITRATE, move |frame| {
                // When nobody takes them the recording is over.
                let packet = Packet { time: frame.time, duration: FRAME_SAMPLES as u32, data: frame.data };
                let _ = sender.send(packet);
            });
            Encoding::Aac { encoder: encoder.map_err(|error| Failure(error.to_string()))?, frames }
        } else {
            Encoding::Opus
        };
        Ok(Self { steady: Steady::new(epoch), early: VecDeque::new(), encoding })
    }

    /// What a file must know of it.
    pub(super) fn spec(&self) -> TrackSpec {
        match self.encoding {
            Encoding::Opus => TrackSpec::opus(1),
            Encoding::Aac { .. } => TrackSpec::aac(1, Bytes::from_static(&AUDIO_SPECIFIC_CONFIG)),
        }
    }

    /// Whether its beginning is known.
    pub(super) fn has_begun(&self) -> bool {
        self.steady.has_begun()
    }

    /// Packets that came after silence had taken their place.
    pub(super) fn late(&self) -> u64 {
        self.steady.late()
    }

    /// From this time on it is wanted; gives what is there already.
    ///
    /// # Errors
    /// As [`Track::push`].
    pub(super) fn begin(&mut self, time: u64) -> Result<Vec<Packet>, Failure> {
        self.steady.begin(time);
        let mut sounds = Vec::new();
        let from = time / AUDIO_TICK_SAMPLES as u64 * AUDIO_TICK_SAMPLES as u64;
        for (packet, now) in std::mem::take(&mut self.early) {
            // What is older than the beginning is no packet that came too late.
            if packet.timestamp.wrapping_sub(from as u32).cast_signed() >= 0 {
                sounds.extend(self.steady.push(packet, now));
            }
        }
        self.encode(sounds)
    }

    /// Takes in a packet; gives what is to be written.
    ///
    /// # Errors
    /// The encoder is broken or stands still.
    pub(super) fn push(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<Vec<Packet>, Failure> {
        if !self.steady.has_begun() {
            if self.early.len() == KEPT {
                self.early.pop_front();
            }
            self.early.push_back((packet, now));
            return Ok(Vec::new());
        }
        let sounds = self.steady.push(packet, now);
        self.encode(sounds)
    }

    /// Time passes: pauses become silence.
    ///
    /// # Errors
    /// As [`Track::push`].
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<Vec<Packet>, Failure> {
        let sounds = self.steady.tick(now);
        self.encode(sounds)
    }

    /// The end, with silence up to this time if need be; gives all that is left.
    ///
    /// # Errors
    /// As [`Track::push`].
    pub(super) fn finish(mut self, until: u64) -> Result<Vec<Packet>, Failure> {
        let sounds = self.steady.fill(until);
        let mut packets = self.encode(sounds)?;
        if let Encoding::Aac { encoder, frames } = self.encoding {
            // It may hold more than fits the queue: that is emptied while it ends.
            std::thread::scope(|scope| {
                scope.spawn(|| encoder.finish());
                packets.extend(frames.iter());
            });
        }
        Ok(packets)
    }

    fn encode(&mut self, sounds: Vec<Sound>) -> Result<Vec<Packet>, Failure> {
        let Encoding::Aac { encoder, frames } = &mut self.encoding else {
            let duration = AUDIO_TICK_SAMPLES as u32;
            return Ok(sounds.into_iter().map(|Sound { time, data }| Packet { time, duration, data }).collect());
        };
        let mut packets = Vec::new();
        for sound in sounds {
            while encoder.is_behind() {
                let packet = frames.recv_timeout(PATIENCE);
                packets.push(packet.map_err(|_| Failure("the AAC encoder stands still".to_owned()))?);
            }
            match encoder.push(sound.time, &sound.data) {
                // One that is not Opus is silent.
                Ok(()) | Err(CodecError::Malformed { .. }) => {}
                Err(error) => return Err(Failure(error.to_string())),
            }
        }
        packets.extend(frames.try_iter());
        Ok(packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::sound::{OpusEncoder, OpusSettings};

    const EPOCH: Timestamp = Timestamp::from_micros(3_000_000);
    const TICK: u64 = AUDIO_TICK_SAMPLES as u64;

    fn packet(encoder: &mut OpusEncoder, n: u64) -> EncodedPacket {
        let payload = encoder.encode(&[0.1; AUDIO_TICK_SAMPLES]).expect("samples are fine");
        EncodedPacket { timestamp: (n * TICK) as u32, marker: false, starts_keyframe: true, payload }
    }

    fn at(n: u64) -> Timestamp {
        EPOCH + Duration::from_millis(20 * n)
    }

    /// The beginning is told late, packets are missing, and the end is later than the last: there is no gap in either.
    #[test]
    fn it_has_no_gaps() {
        for (aac, length) in [(false, TICK), (true, FRAME_SAMPLES)] {
            let mut opus = OpusEncoder::new(OpusSettings::default());
            let mut track = Track::new(EPOCH, aac).expect("installed");
            let mut out = Vec::new();
            for n in 40..60 {
                out.extend(track.push(packet(&mut opus, n), at(n)).expect("taken"));
            }
            assert!(out.is_empty(), "it has not begun");
            out.extend(track.begin(50 * TICK + 100).expect("begins"));
            for n in (60..100).chain(130..400) {
                out.extend(track.push(packet(&mut opus, n), at(n)).expect("taken"));
                out.extend(track.tick(at(n)).expect("taken"));
            }
            assert_eq!(track.late(), 0);
            out.extend(track.finish(450 * TICK).expect("ends"));
            assert!(out.windows(2).all(|pair| pair[1].time == pair[0].time + length), "aac: {aac}");
            let (first, last) = (&out[0], &out[out.len() - 1]);
            assert!(first.time.abs_diff(50 * TICK) <= 2 * length, "it begins at {}", first.time);
            assert!((last.time + length).abs_diff(450 * TICK) <= 2 * length, "it ends at {}", last.time + length);
        }
    }
}
