//! Rewriting of a stream's packets for one subscriber: SSRC, payload type, sequence numbers, timestamps, VP8 picture
//! ids.
//!
//! Owns: the running numbers of one subscriber. Does not know: queues, sockets, participants. Pure: packets go in, RTP
//! comes out. All streams of a room share one epoch, so that timestamps only need a constant offset. Sequence numbers
//! and picture ids are renumbered, so that drops and changes of stream leave no gap (RFC 3550 section 7.1).

use bytes::{Bytes, BytesMut};
use rtc::rtp;

use crate::media::{Codec, EncodedPacket};

/// The header fields of one subscriber's RTP stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Synchronization source.
    pub ssrc: u32,
    /// Negotiated payload type of the codec.
    pub payload_type: u8,
    /// The first sequence number; random (RFC 3550 section 5.1).
    pub sequence: u16,
    /// Added to timestamps; random.
    pub timestamp_offset: u32,
}

/// The running numbers of one RTP stream to one subscriber.
#[derive(Debug)]
pub struct Rewriter {
    header: Header,
    pictures: Option<PictureIds>,
}

impl Rewriter {
    /// A rewriter for a stream of this codec.
    pub fn new(header: Header, codec: Codec) -> Self {
        Self { header, pictures: (codec == Codec::Vp8).then(PictureIds::default) }
    }

    /// The packet for this subscriber. `resumes`: it does not continue the packet before it.
    pub fn rewrite(&mut self, packet: &EncodedPacket, resumes: bool) -> rtp::Packet {
        let payload = match &mut self.pictures {
            Some(pictures) => pictures.rewrite(&packet.payload, resumes),
            None => packet.payload.clone(),
        };
        let header = rtp::Header {
            version: 2,
            marker: packet.marker,
            payload_type: self.header.payload_type,
            sequence_number: self.header.sequence,
            timestamp: packet.timestamp.wrapping_add(self.header.timestamp_offset),
            ssrc: self.header.ssrc,
            ..rtp::Header::default()
        };
        self.header.sequence = self.header.sequence.wrapping_add(1);
        rtp::Packet { header, payload }
    }
}

/// VP8's picture id and TL0PICIDX, continuous across changes of stream (RFC 7741 section 4.2).
#[derive(Debug, Default)]
struct PictureIds {
    /// Added to the picture ids of the present stream.
    offset: u16,
    layer_offset: u8,
    /// The latest id sent.
    last: Option<u16>,
    layer_last: Option<u8>,
}

/// Positions in a VP8 payload descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Descriptor {
    /// Position of the picture id, and whether it has 15 bits instead of 7.
    picture: Option<(usize, bool)>,
    /// Position of TL0PICIDX.
    layer: Option<usize>,
}

impl PictureIds {
    fn rewrite(&mut self, payload: &Bytes, resumes: bool) -> Bytes {
        let descriptor = Descriptor::read(payload);
        let Some((at, wide)) = descriptor.picture else { return payload.clone() };
        let id = if wide { u16::from_be_bytes([payload[at] & 0x7f, payload[at + 1]]) } else { u16::from(payload[at]) };
        if let (true, Some(last)) = (resumes, self.last) {
            self.offset = last.wrapping_add(1).wrapping_sub(id);
        }
        let mask = if wide { 0x7fff } else { 0x7f };
        let sent = id.wrapping_add(self.offset) & mask;
        self.last = Some(sent);
        let mut layer_sent = None;
        if let Some(at) = descriptor.layer {
            if let (true, Some(last)) = (resumes, self.layer_last) {
                self.layer_offset = last.wrapping_add(1).wrapping_sub(payload[at]);
            }
            let sent = payload[at].wrapping_add(self.layer_offset);
            self.layer_last = Some(sent);
            layer_sent = Some((at, sent));
        }
        if sent == id && layer_sent.is_none_or(|(at, sent)| payload[at] == sent) {
            // The first stream keeps its numbers: no copy for most subscribers.
            return payload.clone();
        }
        let mut bytes = BytesMut::from(&payload[..]);
        if wide {
            bytes[at..at + 2].copy_from_slice(&(sent | 0x8000).to_be_bytes());
        } else {
            bytes[at] = sent as u8;
        }
        if let Some((at, sent)) = layer_sent {
            bytes[at] = sent;
        }
        bytes.freeze()
    }
}

impl Descriptor {
    fn read(payload: &[u8]) -> Self {
        let none = Self::default();
        let [first, flags, ..] = *payload else { return none };
        if first & 0x80 == 0 || flags & 0x80 == 0 {
            return none;
        }
        let Some(id) = payload.get(2) else { return none };
        let wide = id & 0x80 != 0;
        let after = if wide { 4 } else { 3 };
        if payload.len() < after {
            return none;
        }
        let layer = (flags & 0x40 != 0 && payload.len() > after).then_some(after);
        Self { picture: Some((2, wide)), layer }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header { ssrc: 7, payload_type: 96, sequence: 65_534, timestamp_offset: 1_000 };

    fn vp8(picture: u16, layer: u8) -> EncodedPacket {
        let id = (picture | 0x8000).to_be_bytes();
        let payload = Bytes::copy_from_slice(&[0x90, 0xc0, id[0], id[1], layer, 0xaa, 0xbb]);
        EncodedPacket { timestamp: u32::MAX, marker: true, starts_keyframe: true, payload }
    }

    fn numbers(packet: &rtp::Packet) -> (u16, u8) {
        (u16::from_be_bytes([packet.payload[2], packet.payload[3]]) & 0x7fff, packet.payload[4])
    }

    #[test]
    fn the_header_has_the_subscribers_fields_and_its_numbers_wrap() {
        let mut rewriter = Rewriter::new(HEADER, Codec::H264);
        let packets: Vec<rtp::Packet> = (0..4).map(|_| rewriter.rewrite(&vp8(1, 1), false)).collect();
        let sequences: Vec<u16> = packets.iter().map(|packet| packet.header.sequence_number).collect();
        assert_eq!(sequences, [65_534, 65_535, 0, 1]);
        let header = &packets[0].header;
        assert_eq!((header.ssrc, header.payload_type, header.timestamp, header.marker), (7, 96, 999, true));
        assert!(!header.extension && header.csrc.is_empty() && !header.padding);
        assert_eq!(packets[0].payload, vp8(1, 1).payload, "only VP8 payloads carry picture ids");
    }

    #[test]
    fn picture_ids_continue_across_a_change_of_stream() {
        let mut rewriter = Rewriter::new(HEADER, Codec::Vp8);
        assert_eq!(numbers(&rewriter.rewrite(&vp8(32_766, 250), true)), (32_766, 250));
        assert_eq!(numbers(&rewriter.rewrite(&vp8(32_766, 250), false)), (32_766, 250));
        assert_eq!(numbers(&rewriter.rewrite(&vp8(32_767, 251), false)), (32_767, 251));
        assert_eq!(numbers(&rewriter.rewrite(&vp8(100, 9), true)), (0, 252));
        assert_eq!(numbers(&rewriter.rewrite(&vp8(100, 9), false)), (0, 252));
        assert_eq!(numbers(&rewriter.rewrite(&vp8(101, 10), false)), (1, 253));
        assert_eq!(rewriter.rewrite(&vp8(102, 11), false).payload[5..], [0xaa, 0xbb]);
    }

    #[test]
    fn short_and_missing_picture_ids_are_accepted() {
        let packet = |payload: &'static [u8]| EncodedPacket { payload: Bytes::from_static(payload), ..vp8(0, 0) };
        let mut rewriter = Rewriter::new(HEADER, Codec::Vp8);
        assert_eq!(rewriter.rewrite(&packet(&[0x80, 0x80, 0x7e, 1]), true).payload[2], 0x7e);
        assert_eq!(rewriter.rewrite(&packet(&[0x80, 0x80, 0x10, 1]), true).payload[2], 0x7f);
        assert_eq!(rewriter.rewrite(&packet(&[0x80, 0x80, 0x11, 1]), false).payload[2], 0x00);
        assert_eq!(rewriter.rewrite(&packet(&[0x10, 1, 2]), true).payload[..], [0x10, 1, 2]);
    }

    proptest! {
        #[test]
        fn any_payload_keeps_its_length_and_never_panics(
            payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12), any::<bool>()), 1..30),
        ) {
            let mut rewriter = Rewriter::new(HEADER, Codec::Vp8);
            for (payload, resumes) in payloads {
                let packet = EncodedPacket { payload: payload.clone().into(), ..vp8(0, 0) };
                prop_assert_eq!(rewriter.rewrite(&packet, resumes).payload.len(), payload.len());
            }
        }

        /// Across streams and drops, each picture id is the previous one plus one.
        #[test]
        fn picture_ids_never_jump(runs in prop::collection::vec((any::<u16>(), any::<u8>(), 1..5_u16), 1..20)) {
            let mut rewriter = Rewriter::new(HEADER, Codec::Vp8);
            let mut last: Option<(u16, u8)> = None;
            for (first, layer, length) in runs {
                for at in 0..length {
                    let packet = vp8((first & 0x7fff).wrapping_add(at) & 0x7fff, layer.wrapping_add(at as u8));
                    let sent = numbers(&rewriter.rewrite(&packet, at == 0));
                    if let Some((picture, layer)) = last {
                        prop_assert_eq!(sent, ((picture + 1) & 0x7fff, layer.wrapping_add(1)));
                    }
                    last = Some(sent);
                }
            }
        }
    }
}
