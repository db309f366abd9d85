//! Depacketization: the RTP payloads of one frame become the frame.
//!
//! Owns: the payload formats VP8 (RFC 7741), VP9 (RFC 9628), H.264 (RFC 6184, modes 0 and 1) and AV1 (AOM) of received
//! packets. Does not know: order and loss. In: all packets of one RTP timestamp, in order. Out: the frame. Only H.264
//! has a state between frames, see [`h264`]. The parsers of `rtc-rtp` are not used: VP8 keeps bits of the packet before
//! and refuses payloads under four bytes, STAP-A of H.264 reads past the end, and FU-A joins fragments of different
//! frames after a loss.

mod h264;

use bytes::{BufMut, Bytes, BytesMut};

use self::h264::AccessUnits;
use super::CodecError;
use crate::container::av1::{TEMPORAL_DELIMITER, TILE_LIST, leb128, put_leb128};
use crate::media::{Codec, Size, SourcePacket};

/// Most layers of one VP9 picture: the size of the index of a superframe.
const VP9_LAYERS: usize = 8;

/// Joins packets to frames.
#[derive(Debug)]
pub struct Depayloader {
    codec: Codec,
    access_units: AccessUnits,
    /// The highest spatial layer of VP9 that is taken.
    highest_layer: u8,
}

impl Depayloader {
    /// A depayloader for a video codec.
    pub fn new(codec: Codec) -> Self {
        Self { codec, access_units: AccessUnits::default(), highest_layer: u8::MAX }
    }

    /// Whether a frame that begins with this payload is a keyframe. For H.264 also parameter sets and recovery points
    /// count: the picture may follow in another frame.
    pub fn starts_keyframe(codec: Codec, payload: &Bytes) -> bool {
        match codec {
            Codec::Vp8 => vp8(payload).is_some_and(|(start, data)| start && data.first().is_some_and(|b| b & 1 == 0)),
            Codec::Vp9 => vp9(payload).is_some_and(|part| part.start && !part.predicted && part.layer == 0),
            Codec::H264 => h264::starts_keyframe(payload),
            Codec::Av1 => payload.first().is_some_and(|header| header & 0x88 == 0x08),
            Codec::Opus | Codec::Pcmu | Codec::Pcma => false,
        }
    }

    /// Whether this payload contains the beginning of a picture at which decoding may begin.
    pub fn starts_key_picture(codec: Codec, payload: &Bytes) -> bool {
        match codec {
            Codec::H264 => h264::starts_picture(payload),
            _ => Self::starts_keyframe(codec, payload),
        }
    }

    /// The sizes of the spatial layers of the VP9 keyframe that begins in this payload, the smallest first; empty if it
    /// has none.
    pub fn spatial_layers(codec: Codec, payload: &Bytes) -> Vec<Size> {
        let part = if codec == Codec::Vp9 { vp9(payload) } else { None };
        part.filter(|part| part.start && !part.predicted && part.layer == 0).map_or_else(Vec::new, |part| part.sizes)
    }

    /// Omits the spatial layers of VP9 above this one from the frames that follow. A lower layer needs no higher one;
    /// a higher layer can be added again at a keyframe.
    pub fn set_highest_layer(&mut self, layer: u8) {
        self.highest_layer = layer;
    }

    /// Keeps what later frames need of a packet that may not be decoded: parameter sets of H.264.
    pub fn observe(&mut self, payload: &Bytes) {
        if self.codec == Codec::H264 {
            self.access_units.observe(payload);
        }
    }

    /// NAL units of H.264 skipped because they are malformed or of a reserved type.
    pub fn skipped(&self) -> u64 {
        self.access_units.skipped
    }

    /// Joins all packets of one frame to a VP8 or VP9 frame, an H.264 access unit in Annex B, or an AV1 temporal unit
    /// whose OBUs have sizes. None if the packets contain no picture: padding, or units for the next picture.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] if the packets are not a whole frame of this codec.
    pub fn frame(&mut self, packets: &[SourcePacket]) -> Result<Option<Bytes>, CodecError> {
        let codec = self.codec;
        let malformed = |reason| CodecError::Malformed { codec, reason };
        // Empty payloads are padding, which senders use to probe a path.
        let mut payloads =
            packets.iter().map(|packet| &packet.payload).filter(|payload| !payload.is_empty()).peekable();
        if payloads.peek().is_none() {
            return Ok(None);
        }
        let frame = match codec {
            Codec::Vp8 => {
                join_vp8(payloads).ok_or_else(|| malformed("payload descriptor, or the first packet is missing"))
            }
            Codec::Vp9 => {
                let joined = join_vp9(payloads, self.highest_layer);
                let joined = joined.ok_or_else(|| malformed("payload descriptor, or a packet is missing"))?;
                // A picture may consist of higher layers only.
                return Ok((!joined.is_empty()).then_some(joined));
            }
            Codec::H264 => return Ok(self.access_units.join(packets)),
            Codec::Av1 => join_av1(payloads).ok_or_else(|| malformed("aggregation, or a fragment is missing")),
            Codec::Opus | Codec::Pcmu | Codec::Pcma => Err(CodecError::Unsupported(codec, "a video codec")),
        }?;
        if frame.is_empty() { Err(malformed("an empty frame")) } else { Ok(Some(frame)) }
    }
}

/// Whether a VP8 frame starts in this payload, and the data after the descriptor.
fn vp8(payload: &Bytes) -> Option<(bool, Bytes)> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let fields = *payload.get(1)?;
        at = 2;
        if fields & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(fields & 0x40 != 0) + usize::from(fields & 0x30 != 0);
    }
    let start = first & 0x10 != 0 && first & 0x07 == 0;
    (at <= payload.len()).then(|| (start, payload.slice(at..)))
}

fn join_vp8<'a>(payloads: impl Iterator<Item = &'a Bytes>) -> Option<Bytes> {
    let mut parts = Vec::new();
    for (i, payload) in payloads.enumerate() {
        let (start, data) = vp8(payload)?;
        if start != (i == 0) {
            return None;
        }
        parts.push(data);
    }
    Some(concat(parts))
}

/// One packet of VP9.
struct Vp9Part {
    start: bool,
    end: bool,
    predicted: bool,
    layer: u8,
    /// Of the spatial layers, in a keyframe's scalability structure.
    sizes: Vec<Size>,
    data: Bytes,
}

fn vp9(payload: &Bytes) -> Option<Vp9Part> {
    let first = *payload.first()?;
    let bit = |mask: u8| first & mask != 0;
    let (flexible, predicted) = (bit(0x10), bit(0x40));
    let mut at = 1;
    if bit(0x80) {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let mut layer = 0;
    if bit(0x20) {
        layer = payload.get(at)? >> 1 & 7;
        at += if flexible { 1 } else { 2 };
    }
    if flexible && predicted {
        let mut references = 1;
        while payload.get(at)? & 1 != 0 {
            at += 1;
            references += 1;
            if references > 3 {
                return None;
            }
        }
        at += 1;
    }
    let mut sizes = Vec::new();
    if bit(0x02) {
        let structure = *payload.get(at)?;
        at += 1;
        if structure & 0x10 != 0 {
            let end = at + 4 * (usize::from(structure >> 5) + 1);
            let side = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
            sizes.extend(payload.get(at..end)?.chunks(4).map(|size| Size::new(side(size), side(&size[2..]))));
            at = end;
        }
        if structure & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(payload.get(at)? >> 2 & 3);
            }
        }
    }
    let data = (at <= payload.len()).then(|| payload.slice(at..))?;
    Some(Vp9Part { start: bit(0x08), end: bit(0x04), predicted, layer, sizes, data })
}

/// Joins the layers up to `highest`; empty if there are only higher ones.
fn join_vp9<'a>(payloads: impl Iterator<Item = &'a Bytes>, highest: u8) -> Option<Bytes> {
    let mut parts = Vec::new();
    let mut layers: Vec<usize> = Vec::new();
    let mut open = false;
    for payload in payloads {
        let part = vp9(payload)?;
        if part.start == open {
            return None;
        }
        open = !part.end;
        if part.layer > highest {
            continue;
        }
        if part.start {
            layers.push(0);
        }
        *layers.last_mut()? += part.data.len();
        parts.push(part.data);
    }
    if open || layers.len() > VP9_LAYERS {
        return None;
    }
    if layers.len() > 1 {
        // The decoder gets the spatial layers of one picture as a superframe (VP9 bitstream Annex B).
        let marker = 0xc0 | 3 << 3 | (layers.len() - 1) as u8;
        let mut index = vec![marker];
        layers.iter().for_each(|length| index.extend((*length as u32).to_le_bytes()));
        index.push(marker);
        parts.push(index.into());
    }
    Some(concat(parts))
}

fn join_av1<'a>(payloads: impl Iterator<Item = &'a Bytes>) -> Option<Bytes> {
    let mut frame = BytesMut::from(&[TEMPORAL_DELIMITER << 3 | 2, 0][..]);
    let mut open = BytesMut::new();
    let mut continues = false;
    for payload in payloads {
        let header = *payload.first()?;
        if (header & 0x80 != 0) != continues {
            return None;
        }
        continues = header & 0x40 != 0;
        let count = usize::from(header >> 4 & 3);
        let mut rest = &payload[1..];
        let mut element = 0;
        while !rest.is_empty() {
            element += 1;
            let length = if count == element {
                rest.len()
            } else {
                let (length, bytes) = leb128(rest)?;
                rest = &rest[bytes..];
                length
            };
            let part;
            (part, rest) = rest.split_at_checked(length)?;
            open.put_slice(part);
            if !(rest.is_empty() && continues) {
                put_obu(&mut frame, &open)?;
                open.clear();
            }
        }
        if count > 0 && element != count {
            return None;
        }
    }
    (!continues && frame.len() > 2).then(|| frame.freeze())
}

/// Appends an OBU with the size field that RTP omits.
fn put_obu(frame: &mut BytesMut, obu: &[u8]) -> Option<()> {
    let Some(header) = obu.first() else { return Some(()) };
    // Not sent by RTP (AV1 RTP payload specification section 5).
    if [TEMPORAL_DELIMITER, TILE_LIST].contains(&(header >> 3 & 15)) {
        return Some(());
    }
    if header & 2 != 0 {
        frame.put_slice(obu);
        return Some(());
    }
    let (head, payload) = obu.split_at_checked(1 + usize::from(header & 4 != 0))?;
    frame.put_u8(header | 2);
    frame.put_slice(&head[1..]);
    put_leb128(frame, payload.len());
    frame.put_slice(payload);
    Some(())
}

/// Joins the parts; a single part is not copied.
fn concat(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.put_slice(part));
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn packets(payloads: &[&[u8]]) -> Vec<SourcePacket> {
        let last = payloads.len().wrapping_sub(1);
        payloads
            .iter()
            .enumerate()
            .map(|(i, payload)| SourcePacket {
                sequence: i as u16,
                timestamp: 0,
                marker: i == last,
                arrival: Timestamp::default(),
                captured: None,
                audio_level: None,
                rotation: None,
                colours: None,
                payload: Bytes::copy_from_slice(payload),
            })
            .collect()
    }

    fn frame(codec: Codec, payloads: &[&[u8]]) -> Option<Bytes> {
        Depayloader::new(codec).frame(&packets(payloads)).ok().flatten()
    }

    #[test]
    fn vp8_descriptors_of_every_length() {
        assert_eq!(frame(Codec::Vp8, &[&[0x10, 1, 2], &[0x00, 3]]).as_deref(), Some(&[1, 2, 3][..]));
        let long = [0x90, 0xf0, 0x81, 0x23, 9, 0x21, 1, 2];
        assert_eq!(frame(Codec::Vp8, &[&long, &[0x80, 0x80, 0x11, 3]]).as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(frame(Codec::Vp8, &[&[0x00, 3]]), None, "the first packet is missing");
        assert!(Depayloader::starts_keyframe(Codec::Vp8, &Bytes::from_static(&[0x10, 0x50])));
        assert!(!Depayloader::starts_keyframe(Codec::Vp8, &Bytes::from_static(&[0x10, 0x51])));
    }

    #[test]
    fn padding_between_frames_is_ignored() {
        for (codec, payload) in [
            (Codec::Vp8, &[0x10, 1, 2][..]),
            (Codec::Vp9, &[0x8c, 5, 7]),
            (Codec::H264, &[0x41, 0x9a, 1]),
            (Codec::Av1, &[0x10, 0x30, 1]),
        ] {
            let alone = frame(codec, &[payload]).expect("a frame");
            assert_eq!(frame(codec, &[&[], payload, &[]]), Some(alone), "{codec}");
            let padding = Depayloader::new(codec).frame(&packets(&[&[], &[]]));
            assert!(matches!(padding, Ok(None)), "{codec}: no error, and no keyframe is requested");
        }
    }

    #[test]
    fn vp9_layers_become_a_superframe() {
        let one = frame(Codec::Vp9, &[&[0x88, 5, 7, 7], &[0x84, 5, 8]]);
        assert_eq!(one.as_deref(), Some(&[7, 7, 8][..]));
        let two = frame(Codec::Vp9, &[&[0xac, 5, 0x00, 1, 7], &[0xac, 5, 0x02, 1, 8, 8]]);
        assert_eq!(two.as_deref(), Some(&[7, 8, 8, 0xd9, 1, 0, 0, 0, 2, 0, 0, 0, 0xd9][..]));
        assert_eq!(frame(Codec::Vp9, &[&[0x88, 5, 7]]), None, "the end is missing");
        // Flexible mode, two references.
        assert_eq!(frame(Codec::Vp9, &[&[0xdc, 5, 0x03, 0x04, 7]]).as_deref(), Some(&[7][..]));
    }

    #[test]
    fn higher_layers_of_vp9_are_omitted_from_frames() {
        let layers: [&[u8]; 3] = [&[0xac, 5, 0x00, 1, 7], &[0xac, 5, 0x02, 1, 8, 8], &[0xac, 5, 0x04, 1, 9]];
        let mut depayloader = Depayloader::new(Codec::Vp9);
        let mut joined = |highest, payloads: &[&[u8]]| {
            depayloader.set_highest_layer(highest);
            depayloader.frame(&packets(payloads))
        };
        let one = joined(0, &layers).expect("well formed");
        assert_eq!(one.as_deref(), Some(&[7][..]));
        let two = joined(1, &layers).expect("well formed");
        assert_eq!(two.as_deref(), Some(&[7, 8, 8, 0xd9, 1, 0, 0, 0, 2, 0, 0, 0, 0xd9][..]));
        assert_eq!(joined(0, &layers[1..]).expect("well formed"), None, "a picture of higher layers only");
        assert!(joined(0, &[layers[0], &[0xa8, 5, 0x02, 1, 8]]).is_err(), "the end of a higher layer is missing");
    }

    #[test]
    fn keyframes_of_vp9_name_the_sizes_of_their_layers() {
        let first = [0xba, 0x81, 0x02, 0x00, 0x50, 1, 64, 0, 180, 2, 128, 1, 104, 5, 0, 2, 208, 0x82, 0x49];
        let of = |payload: &[u8]| Depayloader::spatial_layers(Codec::Vp9, &Bytes::copy_from_slice(payload));
        assert_eq!(of(&first), [Size::new(320, 180), Size::new(640, 360), Size::new(1280, 720)]);
        assert!(of(&first[..10]).is_empty(), "truncated");
        let predicted = [&[first[0] | 0x40][..], &first[1..]].concat();
        assert!(of(&predicted).is_empty() && of(&[0x88, 5, 7]).is_empty());
    }

    #[test]
    fn h264_units_fragments_and_aggregates() {
        let whole = frame(Codec::H264, &[&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68], &[0x7c, 0x85, 1], &[0x7c, 0x45, 2]]);
        let expected = [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 0, 0, 0, 1, 0x65, 1, 2];
        assert_eq!(whole.as_deref(), Some(&expected[..]));
        assert_eq!(frame(Codec::H264, &[&[0x7c, 0x85, 1]]), None, "no end");
        assert_eq!(frame(Codec::H264, &[&[0x7c, 0x45, 1]]), None, "no start");
        assert_eq!(frame(Codec::H264, &[&[0x78, 0, 9, 1]]), None, "unit longer than the packet");
        for (payload, starts) in [(&[0x67, 1][..], true), (&[0x78, 0, 1, 0x67], true), (&[0x7c, 0x85], true)] {
            assert_eq!(Depayloader::starts_keyframe(Codec::H264, &Bytes::copy_from_slice(payload)), starts);
        }
        assert!(!Depayloader::starts_keyframe(Codec::H264, &Bytes::from_static(&[0x7c, 0x45])));
        assert!(!Depayloader::starts_keyframe(Codec::H264, &Bytes::from_static(&[0x61, 1])));
    }

    #[test]
    fn av1_elements_get_their_sizes_back() {
        // Sequence header of one byte with its length, then a frame in two fragments.
        let whole = frame(Codec::Av1, &[&[0x68, 2, 0x08, 9, 0x30, 1], &[0x90, 2, 3]]);
        assert_eq!(whole.as_deref(), Some(&[0x12, 0, 0x0a, 1, 9, 0x32, 3, 1, 2, 3][..]));
        assert_eq!(frame(Codec::Av1, &[&[0x50, 0x30, 1]]), None, "the rest of the fragment is missing");
        assert!(Depayloader::starts_keyframe(Codec::Av1, &Bytes::from_static(&[0x18, 0x08])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_joined_without_panic(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                if let Some(whole) = frame(codec, &slices) {
                    let _ = super::super::coded_size(codec, &whole);
                }
                for payload in &payloads {
                    let _ = Depayloader::starts_keyframe(codec, &Bytes::copy_from_slice(payload));
                }
            }
        }
    }
}
