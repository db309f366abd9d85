//! Packetization: encoded frames become RTP payloads, once per stream.
//!
//! Owns: the payload formats VP8 (RFC 7741), VP9 (RFC 9628), H.264 (RFC 6184, mode 1) and AV1 (AOM's specification) of
//! sent packets. Does not know: RTP headers, which differ by subscriber. In: encoded frames. Out: payloads. The
//! packetizers of `rtc-rtp` are not used: every VP9 picture is marked as not inter-picture predicted, which browsers
//! take for a keyframe, and the VP8 picture id overflows between one and two bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::encode::EncodedFrame;
use crate::container::av1;
use crate::container::avc::nal_units;
use crate::media::{Codec, EncodedPacket, Size};

/// Largest payload in bytes: with RTP, SRTP, UDP and IPv6 headers a packet is not fragmented.
const MTU: usize = 1200;

/// Splits frames into packets.
#[derive(Debug)]
pub struct Payloader {
    codec: Codec,
    /// Largest payload in bytes.
    largest: usize,
    /// Picture id of 15 bits, increased by one per frame: receivers detect losses by it.
    picture_id: u16,
}

impl Payloader {
    /// A payloader for a video codec.
    pub const fn new(codec: Codec) -> Self {
        Self { codec, largest: MTU, picture_id: 0 }
    }

    /// The same with payloads of at most so many bytes, and never more than 1200: on a narrow path a large packet
    /// delays the audio packet after it.
    pub fn with_largest(self, bytes: usize) -> Self {
        Self { largest: bytes.clamp(100, MTU), ..self }
    }

    /// The packets of one frame, of at most 1200 bytes each.
    pub fn packets(&mut self, frame: &EncodedFrame, timestamp: u32) -> Vec<EncodedPacket> {
        let payloads = match self.codec {
            Codec::Vp8 => self.vp8(frame),
            Codec::Vp9 => self.vp9(frame),
            Codec::H264 => h264(&frame.data, self.largest),
            Codec::Av1 => av1(frame, self.largest),
            // No video codecs.
            Codec::Opus | Codec::Pcmu | Codec::Pcma => Vec::new(),
        };
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        let last = payloads.len().wrapping_sub(1);
        payloads
            .into_iter()
            .enumerate()
            .map(|(i, payload)| EncodedPacket {
                timestamp,
                marker: i == last,
                starts_keyframe: frame.keyframe && i == 0,
                payload,
            })
            .collect()
    }

    fn vp8(&self, frame: &EncodedFrame) -> Vec<Bytes> {
        let [high, low] = self.picture_id.to_be_bytes();
        split(&frame.data, self.largest - 4, |first, _| {
            Descriptor::of(&[0x80 | u8::from(first) << 4, 0x80, 0x80 | high, low])
        })
    }

    /// Flexible mode: each picture except a keyframe references the one before it.
    fn vp9(&self, frame: &EncodedFrame) -> Vec<Bytes> {
        let [high, low] = self.picture_id.to_be_bytes();
        let size = super::coded_size(Codec::Vp9, &frame.data).filter(|_| frame.keyframe);
        split(&frame.data, self.largest - 9, |first, last| {
            let structure = size.filter(|_| first);
            let mut flags = 0x90 | u8::from(first) << 3 | u8::from(last) << 2 | u8::from(structure.is_some()) << 1;
            if !frame.keyframe {
                flags |= 0x40;
            }
            let mut descriptor = Descriptor::of(&[flags, 0x80 | high, low]);
            if !frame.keyframe {
                descriptor.put(&[1 << 1]);
            }
            if let Some(Size { width, height }) = structure {
                let ([w1, w0], [h1, h0]) = ((width as u16).to_be_bytes(), (height as u16).to_be_bytes());
                descriptor.put(&[0x10, w1, w0, h1, h0]);
            }
            descriptor
        })
    }
}

/// The OBUs without sizes and temporal delimiters, each behind its length (W = 0), cut wherever a payload is full.
fn av1(frame: &EncodedFrame, largest: usize) -> Vec<Bytes> {
    let mut payloads: Vec<BytesMut> = Vec::new();
    let mut rest = &frame.data[..];
    while let Some((obu, after)) = av1::split_obu(rest) {
        rest = after;
        if obu.kind == av1::TEMPORAL_DELIMITER {
            continue;
        }
        let mut element = BytesMut::with_capacity(obu.payload.len() + 2);
        element.put_u8(obu.whole[0] & !AV1_HAS_SIZE);
        if obu.whole[0] & AV1_HAS_EXTENSION != 0 {
            element.put_u8(obu.whole[1]);
        }
        element.put_slice(obu.payload);
        let (mut element, mut continues) = (element.freeze(), false);
        while !element.is_empty() {
            // A length of one or two bytes, and at least one byte behind it.
            let full = payloads.last().is_none_or(|payload| payload.len() + 3 > largest);
            if continues || full {
                let flags = if continues { AV1_CONTINUES } else { 0 };
                payloads.push(BytesMut::from(&[flags][..]));
            }
            let Some(payload) = payloads.last_mut() else { break };
            let room = largest - payload.len();
            let length = element.len().min(if room > 128 { room - 2 } else { room - 1 }.min(AV1_PART_MAX));
            av1::put_leb128(payload, length);
            payload.put_slice(&element.split_to(length));
            continues = !element.is_empty();
            if continues {
                payload[0] |= AV1_IS_CONTINUED;
            }
        }
    }
    if let Some(first) = payloads.first_mut().filter(|_| frame.keyframe) {
        first[0] |= AV1_NEW_SEQUENCE;
    }
    payloads.into_iter().map(BytesMut::freeze).collect()
}

/// Bits of an OBU header.
const AV1_HAS_EXTENSION: u8 = 4;
const AV1_HAS_SIZE: u8 = 2;
/// Bits of AV1's aggregation header (Z, Y, N).
const AV1_CONTINUES: u8 = 0x80;
const AV1_IS_CONTINUED: u8 = 0x40;
const AV1_NEW_SEQUENCE: u8 = 0x08;
/// Largest length in two bytes of `leb128()`.
const AV1_PART_MAX: usize = (1 << 14) - 1;

/// A payload descriptor of a few bytes.
struct Descriptor {
    bytes: [u8; 9],
    length: usize,
}

impl Descriptor {
    fn of(bytes: &[u8]) -> Self {
        let mut descriptor = Self { bytes: [0; 9], length: 0 };
        descriptor.put(bytes);
        descriptor
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

/// Splits a frame into parts of nearly equal size, each after a descriptor that depends on (first, last).
fn split(data: &[u8], most: usize, descriptor: impl Fn(bool, bool) -> Descriptor) -> Vec<Bytes> {
    let parts = data.len().div_ceil(most).max(1);
    let each = data.len().div_ceil(parts).max(1);
    let chunks = data.chunks(each);
    let count = chunks.len();
    chunks
        .enumerate()
        .map(|(i, part)| {
            let descriptor = descriptor(i == 0, i + 1 == count);
            let mut payload = BytesMut::with_capacity(descriptor.length + part.len());
            payload.put_slice(&descriptor.bytes[..descriptor.length]);
            payload.put_slice(part);
            payload.freeze()
        })
        .collect()
}

/// Parameter sets are aggregated before their IDR; large units are fragmented.
fn h264(access_unit: &Bytes, largest: usize) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    let mut sets: Vec<&[u8]> = Vec::new();
    for unit in nal_units(access_unit) {
        match unit[0] & 0x1f {
            // Access unit delimiters and filler data are not sent by RTP.
            9 | 12 => {}
            7 | 8 => sets.push(unit),
            _ => {
                h264_sets(&mut sets, &mut payloads);
                h264_unit(access_unit, unit, largest, &mut payloads);
            }
        }
    }
    h264_sets(&mut sets, &mut payloads);
    payloads
}

fn h264_sets(sets: &mut Vec<&[u8]>, payloads: &mut Vec<Bytes>) {
    let length: usize = 1 + sets.iter().map(|set| 2 + set.len()).sum::<usize>();
    match sets.as_slice() {
        [] => {}
        [_, _, ..] if length <= MTU => {
            let mut aggregate = BytesMut::with_capacity(length);
            aggregate.put_u8(0x78);
            for set in sets.iter() {
                aggregate.put_u16(set.len() as u16);
                aggregate.put_slice(set);
            }
            payloads.push(aggregate.freeze());
        }
        sets => payloads.extend(sets.iter().map(|set| Bytes::copy_from_slice(set))),
    }
    sets.clear();
}

fn h264_unit(access_unit: &Bytes, unit: &[u8], largest: usize, payloads: &mut Vec<Bytes>) {
    if unit.len() <= largest {
        payloads.push(access_unit.slice_ref(unit));
        return;
    }
    let (indicator, kind) = (unit[0] & 0xe0 | 28, unit[0] & 0x1f);
    payloads.extend(split(&unit[1..], largest - 2, |first, last| {
        Descriptor::of(&[indicator, u8::from(first) << 7 | u8::from(last) << 6 | kind])
    }));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::Depayloader;
    use crate::media::SourcePacket;
    use crate::time::Timestamp;

    fn back(codec: Codec, packets: &[EncodedPacket]) -> Bytes {
        let packets: Vec<SourcePacket> = packets
            .iter()
            .map(|packet| SourcePacket {
                sequence: 0,
                timestamp: packet.timestamp,
                marker: packet.marker,
                arrival: Timestamp::default(),
                captured: None,
                audio_level: None,
                rotation: None,
                colours: None,
                payload: packet.payload.clone(),
            })
            .collect();
        Depayloader::new(codec).frame(&packets).expect("what goes out comes in").expect("a frame")
    }

    fn frame(data: Vec<u8>, keyframe: bool) -> EncodedFrame {
        EncodedFrame { data: data.into(), keyframe, pts: Duration::ZERO }
    }

    #[test]
    fn vp8_picture_ids_have_15_bits_and_wrap() {
        let mut payloader = Payloader { picture_id: 0x7fff, ..Payloader::new(Codec::Vp8) };
        for id in [[0xff, 0xff], [0x80, 0x00], [0x80, 0x01]] {
            let packets = payloader.packets(&frame(vec![1; 3000], true), 7);
            assert_eq!(packets.len(), 3);
            assert_eq!(packets[0].payload[..4], [0x90, 0x80, id[0], id[1]]);
            assert_eq!(packets[1].payload[..4], [0x80, 0x80, id[0], id[1]]);
            assert!(packets[0].starts_keyframe && !packets[1].starts_keyframe && packets[2].marker);
        }
    }

    #[test]
    fn h264_sets_travel_together_and_before_the_idr() {
        let mut unit = vec![0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65];
        unit.extend([5; 2500]);
        let packets = Payloader::new(Codec::H264).packets(&frame(unit, true), 0);
        assert_eq!(packets[0].payload[..], [0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3]);
        assert_eq!(packets.len(), 4);
        assert_eq!(packets[1].payload[..2], [0x7c, 0x85]);
        assert_eq!(packets[3].payload[..2], [0x7c, 0x45]);
        assert_eq!(back(Codec::H264, &packets).len(), 3 * 4 + 3 + 2 + 2501);
    }

    fn put_size(unit: &mut Vec<u8>, size: usize) {
        let mut bytes = BytesMut::new();
        av1::put_leb128(&mut bytes, size);
        unit.extend(&bytes);
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_in(
            data in proptest::collection::vec(1u8..=255, 1..5000),
            keyframe: bool,
            largest in 100..1_500_usize,
        ) {
            for codec in [Codec::Vp8, Codec::Vp9] {
                let packets = Payloader::new(codec).with_largest(largest).packets(&frame(data.clone(), keyframe), 9);
                prop_assert!(packets.iter().all(|packet| packet.payload.len() <= largest.min(MTU)));
                prop_assert_eq!(&back(codec, &packets)[..], &data[..]);
            }
            // A sequence header and a frame, as an IVF file has them, and as the depayloader makes them.
            let mut unit = vec![0x12, 0, 0x0a, 3, 1, 2, 3, 0x32];
            put_size(&mut unit, data.len());
            unit.extend(&data);
            let packets = Payloader::new(Codec::Av1).with_largest(largest).packets(&frame(unit.clone(), keyframe), 9);
            prop_assert!(packets.iter().all(|packet| packet.payload.len() <= largest.min(MTU)));
            prop_assert_eq!(Depayloader::starts_keyframe(Codec::Av1, &packets[0].payload), keyframe);
            prop_assert_eq!(&back(Codec::Av1, &packets)[..], &unit[..]);
            // A P slice: the depayloader marks pictures of I slices as recovery points.
            let mut unit = vec![0, 0, 0, 1, 0x61, 0x9a];
            unit.extend(&data);
            let packets = Payloader::new(Codec::H264).with_largest(largest).packets(&frame(unit.clone(), false), 9);
            prop_assert!(packets.iter().all(|packet| packet.payload.len() <= largest.min(MTU)));
            prop_assert_eq!(&back(Codec::H264, &packets)[..], &unit[..]);
        }
    }
}
