//! The audio of a recording: the mix without pauses, as Opus or AAC.
//!
//! Owns: [`AudioTrack`]. Does not know: files. In: packets with gaps. Out: continuous packets; times are samples at 48
//! kHz since the room's epoch.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;

use crate::codec::CodecError;
use crate::codec::aac::{AUDIO_SPECIFIC_CONFIG, DEFAULT_BITRATE, FRAME_SAMPLES, OpusToAac};
use crate::container::TrackSpec;
use crate::media::{AUDIO_TICK_SAMPLES, EncodedPacket};
use crate::output::Failure;
use crate::output::gap_filler::{AudioGapFiller, AudioPacket};
use crate::time::Timestamp;

/// Packets stored before the start is known, two seconds: audio arrives before the keyframe of the same time.
const MAX_EARLY: usize = 100;
/// Capacity of the queue of AAC frames; larger than the encoder's input queue.
const QUEUE_CAPACITY: usize = 1_024;
/// Timeout of the AAC encoder under load.
const ENCODER_TIMEOUT: Duration = Duration::from_secs(5);

/// An audio packet to be written; times are in samples at 48 kHz.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) time: u64,
    pub(super) duration: u32,
    pub(super) data: Bytes,
}

/// The audio of a recording.
pub(super) struct AudioTrack {
    gap_filler: AudioGapFiller,
    /// Packets received before the start is known.
    early: VecDeque<(EncodedPacket, Timestamp)>,
    encoding: Encoding,
}

enum Encoding {
    Opus,
    Aac { encoder: Box<OpusToAac>, frames: Receiver<Packet> },
}

impl AudioTrack {
    /// For a room with epoch `epoch`.
    ///
    /// # Errors
    /// The AAC encoder is missing on this machine.
    pub(super) fn new(epoch: Timestamp, aac: bool) -> Result<Self, Failure> {
        let encoding = if aac {
            let (sender, frames) = sync_channel(QUEUE_CAPACITY);
            let encoder = OpusToAac::new(DEFAULT_BITRATE, move |frame| {
                // Fails when the recording has ended.
                let packet = Packet { time: frame.time, duration: FRAME_SAMPLES as u32, data: frame.data };
                let _ = sender.send(packet);
            });
            Encoding::Aac { encoder: Box::new(encoder.map_err(|error| Failure(error.to_string()))?), frames }
        } else {
            Encoding::Opus
        };
        Ok(Self { gap_filler: AudioGapFiller::new(epoch), early: VecDeque::new(), encoding })
    }

    /// The track description for files.
    pub(super) fn spec(&self) -> TrackSpec {
        match self.encoding {
            Encoding::Opus => TrackSpec::opus(1),
            Encoding::Aac { .. } => TrackSpec::aac(1, Bytes::from_static(&AUDIO_SPECIFIC_CONFIG)),
        }
    }

    /// Whether [`AudioTrack::begin`] was called.
    pub(super) fn has_begun(&self) -> bool {
        self.gap_filler.has_begun()
    }

    /// Number of packets dropped because they arrived after their silence was inserted.
    pub(super) fn late(&self) -> u64 {
        self.gap_filler.late()
    }

    /// Starts at this time; returns the packets received so far.
    ///
    /// # Errors
    /// As [`AudioTrack::push`].
    pub(super) fn begin(&mut self, time: u64) -> Result<Vec<Packet>, Failure> {
        self.gap_filler.begin(time);
        let mut packets_in = Vec::new();
        let from = time / AUDIO_TICK_SAMPLES as u64 * AUDIO_TICK_SAMPLES as u64;
        for (packet, now) in std::mem::take(&mut self.early) {
            // Packets before the start do not count as late.
            if packet.timestamp.wrapping_sub(from as u32).cast_signed() >= 0 {
                packets_in.extend(self.gap_filler.push(packet, now));
            }
        }
        self.encode(packets_in)
    }

    /// Adds a packet; returns the packets to be written.
    ///
    /// # Errors
    /// The encoder failed or hangs.
    pub(super) fn push(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<Vec<Packet>, Failure> {
        if !self.gap_filler.has_begun() {
            if self.early.len() == MAX_EARLY {
                self.early.pop_front();
            }
            self.early.push_back((packet, now));
            return Ok(Vec::new());
        }
        let packets_in = self.gap_filler.push(packet, now);
        self.encode(packets_in)
    }

    /// Fills overdue pauses with silence.
    ///
    /// # Errors
    /// As [`AudioTrack::push`].
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<Vec<Packet>, Failure> {
        let packets_in = self.gap_filler.tick(now);
        self.encode(packets_in)
    }

    /// Ends the track, with silence up to `until` if necessary; returns the remaining packets.
    ///
    /// # Errors
    /// As [`AudioTrack::push`].
    pub(super) fn finish(mut self, until: u64) -> Result<Vec<Packet>, Failure> {
        let packets_in = self.gap_filler.fill(until);
        let mut packets = self.encode(packets_in)?;
        if let Encoding::Aac { encoder, frames } = self.encoding {
            // The encoder may hold more than the queue's capacity, so the queue is drained while it finishes.
            std::thread::scope(|scope| {
                scope.spawn(|| encoder.finish());
                packets.extend(frames.iter());
            });
        }
        Ok(packets)
    }

    fn encode(&mut self, packets_in: Vec<AudioPacket>) -> Result<Vec<Packet>, Failure> {
        let Encoding::Aac { encoder, frames } = &mut self.encoding else {
            let duration = AUDIO_TICK_SAMPLES as u32;
            return Ok(packets_in
                .into_iter()
                .map(|AudioPacket { time, data }| Packet { time, duration, data })
                .collect());
        };
        let mut packets = Vec::new();
        for sound in packets_in {
            while encoder.is_behind() {
                let packet = frames.recv_timeout(ENCODER_TIMEOUT);
                packets.push(packet.map_err(|_| Failure("the AAC encoder hangs".to_owned()))?);
            }
            match encoder.push(sound.time, &sound.data) {
                // A malformed packet becomes silence.
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

    /// Late start, missing packets, and an end after the last packet.
    #[test]
    fn the_track_has_no_gaps() {
        for (aac, length) in [(false, TICK), (true, FRAME_SAMPLES)] {
            let mut opus = OpusEncoder::new(OpusSettings::default());
            let mut track = AudioTrack::new(EPOCH, aac).expect("installed");
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
