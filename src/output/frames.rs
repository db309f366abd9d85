//! From the packets of a stream to whole frames, each with its time.
//!
//! Owns: [`Frames`], [`Unwrap`]. Does not know: what becomes of frames. Pure: time is an argument.
//! Packets come in order and without holes but where the mixer dropped up to a keyframe, or was replaced.

use std::time::Duration;

use bytes::Bytes;

use crate::codec::Depayloader;
use crate::media::{Codec, EncodedPacket, SourcePacket};
use crate::time::Timestamp;

/// A keyframe that did not come is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Pictures are not shown later than so much, however long sound waits.
const LAG_MAX: Duration = Duration::from_millis(400);
/// From one frame to the next that changes by at most a second divided by this: 2 ms.
const LAG_STEP: u64 = 500;

/// One whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its time in ticks of the codec's clock since the room's epoch.
    pub time: u64,
    /// Decoding may begin here.
    pub keyframe: bool,
    /// The frame as [`Depayloader::frame`] gives it.
    pub data: Bytes,
}

/// Takes 32-bit RTP timestamps, which wrap, for times that do not.
#[derive(Debug, Clone, Copy)]
pub struct Unwrap {
    epoch: Timestamp,
    rate: u32,
}

impl Unwrap {
    /// For timestamps that count `rate` ticks a second from `epoch`.
    pub fn new(epoch: Timestamp, rate: u32) -> Self {
        Self { epoch, rate }
    }

    /// Ticks from the epoch to `now`.
    pub fn ticks(&self, now: Timestamp) -> u64 {
        let elapsed = u128::from(now.as_micros().saturating_sub(self.epoch.as_micros()));
        (elapsed * u128::from(self.rate) / 1_000_000) as u64
    }

    /// The time with this timestamp that is nearest to `now`, in ticks since the epoch.
    pub fn time(&self, timestamp: u32, now: Timestamp) -> u64 {
        let expected = self.ticks(now);
        let ahead = timestamp.wrapping_sub(expected as u32).cast_signed();
        expected.saturating_add_signed(ahead.into())
    }
}

/// Makes frames of one stream's packets, from its first keyframe on.
#[derive(Debug)]
pub struct Frames {
    depayloader: Depayloader,
    unwrap: Unwrap,
    /// How much later than their tick pictures are shown, in ticks of the clock; None before the first was.
    lag: Option<u64>,
    /// The same as it is to become.
    wanted_lag: u64,
    /// The packets of the frame that is coming.
    packets: Vec<SourcePacket>,
    keyframe: bool,
    /// Nothing can be decoded until a keyframe comes.
    broken: bool,
    asked: Option<Timestamp>,
}

impl Frames {
    /// For a stream of a room with this epoch.
    pub fn new(codec: Codec, epoch: Timestamp) -> Self {
        Self {
            depayloader: Depayloader::new(codec),
            unwrap: Unwrap::new(epoch, codec.clock_rate()),
            lag: None,
            wanted_lag: 0,
            packets: Vec::new(),
            keyframe: false,
            broken: true,
            asked: None,
        }
    }

    /// Takes in the next packet; gives the frame that it completes.
    pub fn push(&mut self, packet: EncodedPacket, now: Timestamp) -> Option<Frame> {
        let EncodedPacket { timestamp, marker, starts_keyframe, payload } = packet;
        if self.packets.first().is_some_and(|first| first.timestamp != timestamp) {
            // The rest of a frame was dropped with all that needs it, or its mixer died.
            self.packets.clear();
            self.broken = true;
        }
        if self.packets.is_empty() {
            self.keyframe = starts_keyframe;
        }
        if self.broken && !self.keyframe {
            return None;
        }
        self.packets.push(SourcePacket {
            sequence: self.packets.len() as u16,
            timestamp,
            marker,
            arrival: now,
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
            Ok(data) => {
                self.broken = false;
                self.asked = None;
                let time = self.unwrap.time(timestamp, now) + self.next_lag();
                Some(Frame { time, keyframe: self.keyframe, data })
            }
            Err(error) => {
                tracing::warn!(%error, "a frame of a stream of ours is broken");
                self.broken = true;
                None
            }
        }
    }

    /// Sound waits so much longer than pictures: they are shown as much later, which changes little by little.
    pub fn set_sound_lag(&mut self, lag: Duration) {
        self.wanted_lag = (lag.min(LAG_MAX).as_micros() * u128::from(self.unwrap.rate) / 1_000_000) as u64;
    }

    fn next_lag(&mut self) -> u64 {
        let step = u64::from(self.unwrap.rate) / LAG_STEP;
        let lag = self.lag.map_or(self.wanted_lag, |lag| self.wanted_lag.clamp(lag.saturating_sub(step), lag + step));
        self.lag = Some(lag);
        lag
    }

    /// From now on a keyframe is needed: whatever took the frames begins anew.
    pub fn restart(&mut self) {
        self.packets.clear();
        self.broken = true;
        self.asked = None;
    }

    /// Whether a keyframe is to be asked for now: at once when one is needed, and again when it does not come.
    pub fn wants_keyframe(&mut self, now: Timestamp) -> bool {
        let wants = self.broken && self.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        if wants {
            self.asked = Some(now);
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

    /// A VP8 frame of this many bytes: the lowest bit of the first says that it is not a keyframe (RFC 6386 §9.1).
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
        fn frames_come_out_as_they_went_in(
            frames in prop::collection::vec((any::<bool>(), 10..4_000_usize), 1..30),
            start in any::<u32>(),
        ) {
            let seconds = f64::from(start) / 90_000.0;
            let mut reader = Frames::new(Codec::Vp8, EPOCH);
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
        fn times_do_not_wrap(seconds in 0.0..1_000_000.0_f64, off in -2.0..2.0_f64) {
            let unwrap = Unwrap::new(EPOCH, 90_000);
            let time = ((seconds + off).max(0.0) * 90_000.0) as u64;
            prop_assert_eq!(unwrap.time(time as u32, at(seconds)), time);
        }
    }

    #[test]
    fn after_a_torn_frame_it_waits_for_a_keyframe_and_asks_for_it() {
        let mut reader = Frames::new(Codec::Vp8, EPOCH);
        assert!(reader.wants_keyframe(at(0.0)));
        assert!(!reader.wants_keyframe(at(0.5)));
        assert!(reader.wants_keyframe(at(1.0)));
        let push = |reader: &mut Frames, packets: Vec<EncodedPacket>| {
            packets.into_iter().filter_map(|packet| reader.push(packet, at(1.0))).count()
        };
        assert_eq!(push(&mut reader, packets(&vp8(true, 3_000), true, 90_000)), 1);
        assert!(!reader.wants_keyframe(at(2.0)));
        let mut torn = packets(&vp8(false, 3_000), false, 93_000);
        torn.pop();
        assert_eq!(push(&mut reader, torn), 0);
        assert_eq!(push(&mut reader, packets(&vp8(false, 100), false, 96_000)), 0);
        assert!(reader.wants_keyframe(at(2.0)));
        assert_eq!(push(&mut reader, packets(&vp8(true, 100), true, 99_000)), 1);
    }

    #[test]
    fn pictures_follow_the_lag_of_the_sound_little_by_little() {
        let mut reader = Frames::new(Codec::Vp8, EPOCH);
        reader.set_sound_lag(Duration::from_millis(40));
        let mut times = Vec::new();
        for n in 1..60_u32 {
            if n == 10 {
                reader.set_sound_lag(Duration::from_secs(9));
            }
            let made = packets(&vp8(n == 1, 100), n == 1, n * 3_000);
            times.extend(made.into_iter().filter_map(|packet| reader.push(packet, at(0.0))).map(|frame| frame.time));
        }
        let later: Vec<u64> = (1..).zip(&times).map(|(n, time)| time - n * 3_000).collect();
        assert_eq!(later[..10], [[3_600; 9].as_slice(), &[3_780]].concat(), "2 ms are 180 ticks");
        assert_eq!(later.last(), Some(&(3_600 + 50 * 180)), "40 ms, and then 2 more with each frame");
    }
}
