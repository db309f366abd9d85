//! Assembles the packets of a stream to frames with unwrapped timestamps.
//!
//! Owns: [`FrameAssembler`], [`TimestampUnwrapper`]. Does not know: what frames are used for. Pure: time is an
//! argument. In: packets in order; packets are missing only if the mixer dropped up to a keyframe, or was restarted.
//! Out: [`Frame`]s.

use std::time::Duration;

use bytes::Bytes;

use crate::codec::Depayloader;
use crate::media::{Codec, EncodedPacket, SourcePacket};
use crate::time::Timestamp;

/// Interval at which a keyframe request is repeated.
const KEYFRAME_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// One complete frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Presentation time in ticks of the codec's clock since the room's epoch.
    pub time: u64,
    /// Decoding may begin here.
    pub keyframe: bool,
    /// The frame as [`Depayloader::frame`] returns it.
    pub data: Bytes,
}

/// Extends 32-bit RTP timestamps, which wrap, to 64 bits.
#[derive(Debug, Clone, Copy)]
pub struct TimestampUnwrapper {
    epoch: Timestamp,
    rate: u32,
}

impl TimestampUnwrapper {
    /// For timestamps of `rate` ticks per second since `epoch`.
    pub fn new(epoch: Timestamp, rate: u32) -> Self {
        Self { epoch, rate }
    }

    /// Ticks from the epoch to `now`.
    pub fn ticks(&self, now: Timestamp) -> u64 {
        let elapsed = u128::from(now.as_micros().saturating_sub(self.epoch.as_micros()));
        (elapsed * u128::from(self.rate) / 1_000_000) as u64
    }

    /// The extended timestamp nearest to `now`, in ticks since the epoch.
    pub fn time(&self, timestamp: u32, now: Timestamp) -> u64 {
        let expected = self.ticks(now);
        let ahead = timestamp.wrapping_sub(expected as u32).cast_signed();
        expected.saturating_add_signed(ahead.into())
    }
}

/// Assembles the frames of one stream, from its first keyframe on.
#[derive(Debug)]
pub struct FrameAssembler {
    depayloader: Depayloader,
    unwrapper: TimestampUnwrapper,
    /// Packets of the incomplete frame.
    packets: Vec<SourcePacket>,
    keyframe: bool,
    /// Frames are dropped until the next keyframe.
    needs_keyframe: bool,
    requested_at: Option<Timestamp>,
}

impl FrameAssembler {
    /// For a stream of a room with epoch `epoch`.
    pub fn new(codec: Codec, epoch: Timestamp) -> Self {
        Self {
            depayloader: Depayloader::new(codec),
            unwrapper: TimestampUnwrapper::new(epoch, codec.clock_rate()),
            packets: Vec::new(),
            keyframe: false,
            needs_keyframe: true,
            requested_at: None,
        }
    }

    /// Adds the next packet; returns the frame that it completes.
    pub fn push(&mut self, packet: EncodedPacket, now: Timestamp) -> Option<Frame> {
        let EncodedPacket { timestamp, marker, starts_keyframe, payload } = packet;
        if self.packets.first().is_some_and(|first| first.timestamp != timestamp) {
            // The rest of the frame was dropped together with its dependants, or the mixer was restarted.
            self.packets.clear();
            self.needs_keyframe = true;
        }
        if self.packets.is_empty() {
            self.keyframe = starts_keyframe;
        }
        if self.needs_keyframe && !self.keyframe {
            return None;
        }
        self.packets.push(SourcePacket {
            sequence: self.packets.len() as u16,
            timestamp,
            marker,
            arrival: now,
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload,
        });
        if !marker {
            return None;
        }
        let frame = self.depayloader.frame(&self.packets);
        self.packets.clear();
        match frame {
            Ok(None) => None,
            Ok(Some(data)) => {
                self.needs_keyframe = false;
                self.requested_at = None;
                let time = self.unwrapper.time(timestamp, now);
                Some(Frame { time, keyframe: self.keyframe, data })
            }
            Err(error) => {
                tracing::warn!(%error, "malformed frame from mixer dropped");
                self.needs_keyframe = true;
                None
            }
        }
    }

    /// Whether to request a keyframe now: once when one is needed, and again each [`KEYFRAME_RETRY_INTERVAL`].
    pub fn take_keyframe_request(&mut self, now: Timestamp) -> bool {
        let wants = self.needs_keyframe
            && self.requested_at.is_none_or(|requested_at| now.since(requested_at) >= KEYFRAME_RETRY_INTERVAL);
        if wants {
            self.requested_at = Some(now);
        }
        wants
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{EncodedFrame, Payloader};

    const EPOCH: Timestamp = Timestamp::from_micros(5_000_000);

    fn at(seconds: f64) -> Timestamp {
        EPOCH + Duration::from_secs_f64(seconds)
    }

    /// A VP8 frame of `size` bytes: the lowest bit of the first byte is 0 for keyframes (RFC 6386 §9.1).
    fn vp8(keyframe: bool, size: usize) -> Bytes {
        let mut frame = vec![0x10 | u8::from(!keyframe); size.max(10)];
        frame[3..6].copy_from_slice(&[0x9d, 0x01, 0x2a]);
        frame.into()
    }

    fn packets(frame: &Bytes, keyframe: bool, timestamp: u32) -> Vec<EncodedPacket> {
        let frame = EncodedFrame { data: frame.clone(), keyframe, pts: Duration::ZERO };
        Payloader::new(Codec::Vp8).packets(&frame, timestamp)
    }

    proptest! {
        #[test]
        fn frames_are_assembled_unchanged(
            frames in prop::collection::vec((any::<bool>(), 10..4_000_usize), 1..30),
            start in any::<u32>(),
        ) {
            let seconds = f64::from(start) / 90_000.0;
            let mut reader = FrameAssembler::new(Codec::Vp8, EPOCH);
            let mut begun = false;
            for (n, (keyframe, size)) in frames.into_iter().enumerate() {
                begun |= keyframe;
                let (frame, time) = (vp8(keyframe, size), u64::from(start) + n as u64 * 3_000);
                let mut made = None;
                for packet in packets(&frame, keyframe, time as u32) {
                    prop_assert!(made.is_none());
                    made = reader.push(packet, at(seconds + n as f64 / 30.0 + 0.02));
                }
                prop_assert_eq!(made, begun.then_some(Frame { time, keyframe, data: frame }));
            }
        }

        #[test]
        fn timestamps_are_unwrapped(seconds in 0.0..1_000_000.0_f64, off in -2.0..2.0_f64) {
            let unwrapper = TimestampUnwrapper::new(EPOCH, 90_000);
            let time = ((seconds + off).max(0.0) * 90_000.0) as u64;
            prop_assert_eq!(unwrapper.time(time as u32, at(seconds)), time);
        }
    }

    #[test]
    fn after_an_incomplete_frame_a_keyframe_is_requested_and_awaited() {
        let mut reader = FrameAssembler::new(Codec::Vp8, EPOCH);
        assert!(reader.take_keyframe_request(at(0.0)));
        assert!(!reader.take_keyframe_request(at(0.5)));
        assert!(reader.take_keyframe_request(at(1.0)));
        let push = |reader: &mut FrameAssembler, packets: Vec<EncodedPacket>| {
            packets.into_iter().filter_map(|packet| reader.push(packet, at(1.0))).count()
        };
        assert_eq!(push(&mut reader, packets(&vp8(true, 3_000), true, 90_000)), 1);
        assert!(!reader.take_keyframe_request(at(2.0)));
        let mut incomplete = packets(&vp8(false, 3_000), false, 93_000);
        incomplete.pop();
        assert_eq!(push(&mut reader, incomplete), 0);
        assert_eq!(push(&mut reader, packets(&vp8(false, 100), false, 96_000)), 0);
        assert!(reader.take_keyframe_request(at(2.0)));
        assert_eq!(push(&mut reader, packets(&vp8(true, 100), true, 99_000)), 1);
    }
}
