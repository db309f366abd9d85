//! Probes around the decoders of an intake: no picture above [`LARGEST`] is decoded, also in the middle of a source.
//!
//! Owns: the probes; the sizes in caps, in frames (VP8, VP9, AV1, H.264, JPEG) and in the configuration of H.264. Does
//! not know: containers, queues. In: caps and buffers at the pads of decoders. Out: the same, until one is too large;
//! then its size, once, and nothing more reaches the decoder.
//!
//! Caps are not enough: parsers prefer the size that the container says to that of the stream. A frame whose header is
//! not read here (other codecs and profiles) is bounded by the caps behind the decoder and by the process's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::codec::header;
use crate::container::avc;
use crate::media::{Codec, Size};

/// The largest picture that is decoded, in landscape or portrait.
pub(super) const LARGEST: Size = Size::new(4096, 2304);

/// Calls `refuse` with the first size at the pads of `element` that is too large, if it is a decoder.
pub(super) fn watch(element: &gst::Element, refuse: impl Fn(Size) + Send + Sync + 'static) {
    if !element.factory().is_some_and(|factory| factory.has_type(gst::ElementFactoryType::DECODER)) {
        return;
    }
    let (over, refuse) = (Arc::new(AtomicBool::new(false)), Arc::new(refuse));
    for pad in ["sink", "src"].iter().filter_map(|name| element.static_pad(name)) {
        let (over, refuse) = (over.clone(), refuse.clone());
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER, move |pad, info| {
            if !over.load(Ordering::Acquire)
                && let Some(size) = found(pad, info).filter(|size| is_too_large(*size))
                && !over.swap(true, Ordering::AcqRel)
            {
                refuse(size);
            }
            let is_media =
                info.buffer().is_some() || info.event().is_some_and(|event| event.type_() == gst::EventType::Caps);
            if is_media && over.load(Ordering::Acquire) {
                // Ends the stream. Not `Drop`: the binding would let GStreamer release the object a second time.
                info.flow_res = Err(gst::FlowError::Error);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// The size in caps, if it is too large.
pub(super) fn too_large(caps: &gst::Caps) -> Option<Size> {
    of_caps(caps).filter(|size| is_too_large(*size))
}

fn is_too_large(size: Size) -> bool {
    let (long, short) = (size.width.max(size.height), size.width.min(size.height));
    // The limit has whole blocks, so that sizes that are rounded up to blocks do not exceed it.
    long > LARGEST.width || short > LARGEST.height
}

/// The size that an event or a buffer at this pad has, and the largest if it has several. A frame of VP9 gets an index,
/// so that its decoder finds no other one behind it.
fn found(pad: &gst::Pad, info: &mut gst::PadProbeInfo<'_>) -> Option<Size> {
    if let Some(event) = info.event() {
        let gst::EventView::Caps(event) = event.view() else { return None };
        let caps = event.caps_owned();
        return larger(of_caps(&caps), of_configuration(&caps));
    }
    if pad.direction() == gst::PadDirection::Src {
        return None;
    }
    let caps = pad.current_caps()?;
    let structure = caps.structure(0)?;
    let name = structure.name().as_str();
    let buffer = info.buffer_mut()?;
    if name == "video/x-vp9" {
        index(buffer);
    }
    let data = buffer.map_readable().ok()?;
    let codec = match name {
        "video/x-vp8" => Codec::Vp8,
        "video/x-vp9" => Codec::Vp9,
        "video/x-av1" => Codec::Av1,
        "video/x-h264" if structure.get::<&str>("stream-format") == Ok("byte-stream") => Codec::H264,
        "video/x-h264" => return length_prefixed(&data).filter_map(of_set).reduce(larger_of),
        "image/jpeg" => return jpeg(&data),
        _ => return None,
    };
    header::read(codec, &data).ok()?.size
}

/// Replaces a buffer by one that ends with its frames.
fn index(buffer: &mut gst::Buffer) {
    let Ok(data) = buffer.map_readable() else { return };
    let frames = header::buffers(Codec::Vp9, bytes::Bytes::copy_from_slice(&data));
    let [frame] = &frames[..] else { return };
    if frame.len() == data.len() {
        return;
    }
    drop(data);
    let mut indexed = gst::Buffer::from_slice(frame.clone());
    let flags = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
    if buffer.copy_into(indexed.get_mut().expect("just made"), flags, ..).is_ok() {
        *buffer = indexed;
    }
}

fn larger(a: Option<Size>, b: Option<Size>) -> Option<Size> {
    a.into_iter().chain(b).reduce(larger_of)
}

fn larger_of(a: Size, b: Size) -> Size {
    Size::new(a.width.max(b.width), a.height.max(b.height))
}

fn of_caps(caps: &gst::Caps) -> Option<Size> {
    let structure = caps.structure(0)?;
    let side = |name| structure.get::<i32>(name).ok().map(|side| side.max(0) as u32);
    Some(Size::new(side("width")?, side("height")?))
}

/// The size in the AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1) of caps.
fn of_configuration(caps: &gst::Caps) -> Option<Size> {
    let structure = caps.structure(0).filter(|structure| structure.name().as_str() == "video/x-h264")?;
    let record = structure.get::<gst::Buffer>("codec_data").ok()?;
    let record = record.map_readable().ok()?;
    let mut rest = record.get(6..)?;
    let sets = (0..record[5] & 0x1f).map_while(|_| {
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let set;
        (set, rest) = rest[2..].split_at_checked(length)?;
        Some(set)
    });
    sets.filter_map(of_set).reduce(larger_of)
}

/// The size in an H.264 NAL unit, if it is an SPS.
fn of_set(unit: &[u8]) -> Option<Size> {
    if unit.first()? & 0x1f == 7 { avc::coded_size(unit) } else { None }
}

/// The NAL units of an H.264 access unit, each after its length of four bytes.
fn length_prefixed(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let unit;
        (unit, rest) = rest[4..].split_at_checked(length)?;
        Some(unit)
    })
}

/// The size in the frame header (ITU-T T.81 section B.2.2) of a JPEG image.
fn jpeg(image: &[u8]) -> Option<Size> {
    let mut rest = image.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let [0xff, marker, high, low, ..] = *rest else { return None };
        // Not DHT, JPG and DAC, which have numbers between those of frame headers.
        if matches!(marker, 0xc0..=0xcf) && ![0xc4, 0xc8, 0xcc].contains(&marker) {
            let side = |at: usize| Some(u32::from(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?])));
            return Some(Size::new(side(7)?, side(5)?));
        }
        rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limit_is_for_landscape_and_portrait() {
        for (width, height, large) in
            [(4096, 2304, false), (2304, 4096, false), (4097, 16, true), (2305, 2305, true), (12_000, 12_000, true)]
        {
            assert_eq!(is_too_large(Size::new(width, height)), large, "{width}x{height}");
        }
    }

    #[test]
    fn sizes_of_jpeg_images_are_read() {
        let image = [
            &[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2][..],
            &[0xff, 0xc4, 0, 3, 9],
            &[0xff, 0xc2, 0, 11, 8, 0x2e, 0xe0, 0x27, 0x10],
        ];
        assert_eq!(jpeg(&image.concat()), Some(Size::new(10_000, 12_000)));
        assert_eq!(jpeg(&image[..2].concat()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(data in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (jpeg(&data), length_prefixed(&data).filter_map(of_set).count());
        }
    }
}
