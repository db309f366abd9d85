//! H.264 as encoders, cameras and WHIP clients of others send it.

use bytes::Bytes;
use commingle::codec::Picture;
use commingle::media::Size;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

use crate::rig::Part;

/// NAL unit types.
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
/// Longest payload: short, so that most pictures need several fragments.
const PAYLOAD_MAX: usize = 60;

/// One picture as an encoder returns it.
pub struct AccessUnit {
    /// Its place in display order, in frames.
    pub display: u32,
    units: Vec<Vec<u8>>,
}

impl AccessUnit {
    /// Whether it has a unit of this type.
    fn has(&self, kind: u8) -> bool {
        self.units.iter().any(|unit| unit[0] & 0x1f == kind)
    }

    /// Its units of these types, or its other units.
    fn of(&self, kinds: &[u8], wanted: bool) -> impl Iterator<Item = &Vec<u8>> {
        self.units.iter().filter(move |unit| kinds.contains(&(unit[0] & 0x1f)) == wanted)
    }
}

/// Encodes pictures with x264 and these properties of `x264enc`, in decoding order.
pub fn x264(properties: &str, size: Size, frames: u32, picture: impl Fn(u32) -> Picture) -> Vec<AccessUnit> {
    gst::init().expect("GStreamer is installed");
    let description = format!(
        "appsrc name=in format=time caps=video/x-raw,format=I420,width={},height={},framerate=30/1 \
         ! x264enc speed-preset=ultrafast bitrate=400 threads=1 {properties} \
         ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=out sync=false",
        size.width, size.height
    );
    let pipeline = gst::parse::launch(&description).expect("x264enc is installed");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("several elements");
    let source: AppSrc = pipeline.by_name("in").expect("named").downcast().expect("an appsrc");
    let sink: AppSink = pipeline.by_name("out").expect("named").downcast().expect("an appsink");
    pipeline.set_state(gst::State::Playing).expect("starts");
    for n in 0..frames {
        let picture = picture(n);
        let mut data = Vec::new();
        for plane in 0..3 {
            let (samples, stride) = picture.plane(plane);
            let halved = usize::from(plane > 0);
            let (width, height) = (size.width as usize >> halved, size.height as usize >> halved);
            (0..height).for_each(|row| data.extend(&samples[row * stride..][..width]));
        }
        let mut buffer = gst::Buffer::from_slice(data);
        buffer.get_mut().expect("just made").set_pts(gst::ClockTime::from_nseconds(u64::from(n) * 1_000_000_000 / 30));
        source.push_buffer(buffer).expect("taken");
    }
    source.end_of_stream().expect("taken");
    let mut encoded = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().expect("a frame");
        let data = buffer.map_readable().expect("memory").to_vec();
        encoded.push((buffer.pts().expect("a time"), units(&data)));
    }
    pipeline.set_state(gst::State::Null).expect("ends");
    assert_eq!(encoded.len(), frames as usize);
    let first = encoded.iter().map(|(pts, _)| *pts).min().expect("frames");
    let place = |pts: gst::ClockTime| ((pts - first).nseconds() as f64 * 30e-9).round() as u32;
    encoded.into_iter().map(|(pts, units)| AccessUnit { display: place(pts), units }).collect()
}

/// The NAL units of an Annex B byte stream.
fn units(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut starts: Vec<usize> =
        (0..stream.len().saturating_sub(2)).filter(|&i| stream[i..i + 3] == [0, 0, 1]).map(|i| i + 3).collect();
    starts.push(stream.len() + 3);
    let unit = |two: &[usize]| {
        let end = (two[1] - 3).min(stream.len());
        let length = stream[two[0]..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        stream[two[0]..two[0] + length].to_vec()
    };
    starts.windows(2).map(unit).filter(|unit| !unit.is_empty()).collect()
}

/// A payload, its marker, and its RTP time after that of the picture.
fn part(payload: impl Into<Bytes>, marker: bool, offset: i32) -> Part {
    Part { payload: payload.into(), marker, offset }
}

/// A unit as one payload or as fragments (FU-A).
fn fragments(unit: &[u8]) -> Vec<Vec<u8>> {
    if unit.len() <= PAYLOAD_MAX {
        return vec![unit.to_vec()];
    }
    let count = (unit.len() - 1).div_ceil(PAYLOAD_MAX);
    let fragment = |(i, part): (usize, &[u8])| {
        let ends = u8::from(i == 0) << 7 | u8::from(i + 1 == count) << 6;
        [&[unit[0] & 0x60 | 28, ends | unit[0] & 0x1f], part].concat()
    };
    unit[1..].chunks(PAYLOAD_MAX).enumerate().map(fragment).collect()
}

/// Payloads of one picture, the last one marked.
fn picture(payloads: Vec<Vec<u8>>) -> Vec<Part> {
    let last = payloads.len().wrapping_sub(1);
    payloads.into_iter().enumerate().map(|(i, payload)| part(payload, i == last, 0)).collect()
}

fn packed<'a>(units: impl Iterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    units.flat_map(|unit| fragments(unit)).collect()
}

/// As usual: all units of a picture with its timestamp.
pub fn usual(unit: &AccessUnit) -> Vec<Part> {
    picture(packed(unit.units.iter()))
}

/// Parameter sets, SEI and delimiters are frames of their own, each with a marker and a timestamp.
pub fn own_time(unit: &AccessUnit) -> Vec<Part> {
    let ahead = unit.of(&[SPS, PPS, SEI, DELIMITER], true).zip(1..);
    let mut parts: Vec<Part> = ahead.map(|(unit, i)| part(unit.clone(), true, i * 20 - 2_000)).collect();
    parts.extend(picture(packed(unit.of(&[SPS, PPS, SEI, DELIMITER], false))));
    parts
}

/// Parameter sets have the timestamp of the picture before, without a marker.
pub fn time_of_previous(unit: &AccessUnit) -> Vec<Part> {
    let sets = unit.of(&[SPS, PPS], true);
    let mut parts: Vec<Part> = sets.map(|unit| part(unit.clone(), false, -3_000)).collect();
    parts.extend(picture(packed(unit.of(&[SPS, PPS], false))));
    parts
}

/// The last slice has no marker, so that the parameter sets that follow belong to the frame before by their timestamp.
pub fn without_markers(unit: &AccessUnit) -> Vec<Part> {
    let mut parts = time_of_previous(unit);
    parts.iter_mut().for_each(|part| part.marker = false);
    parts
}

/// Parameter sets with the first picture only.
pub fn sets_once(unit: &AccessUnit) -> Vec<Part> {
    if unit.display == 0 { usual(unit) } else { picture(packed(unit.of(&[SPS, PPS, SEI], false))) }
}

/// Filler and units of reserved types among the others, and an empty payload, which is padding.
pub fn reserved_units(unit: &AccessUnit) -> Vec<Part> {
    let mut payloads = packed(unit.units.iter());
    payloads.insert(0, vec![0x1e, 0, 0]);
    payloads.extend([vec![0x0c, 0xff, 0x80], vec![0x1f, 1, 2], vec![0x00, 9], vec![0x78, 0, 50, 1]]);
    let mut parts = picture(payloads);
    // Between two pictures, with the timestamp of the first.
    parts.push(part(Bytes::new(), false, 0));
    parts
}

/// No fragment has an end bit.
pub fn without_end_bits(unit: &AccessUnit) -> Vec<Part> {
    let mut payloads = packed(unit.units.iter());
    for payload in payloads.iter_mut().filter(|payload| payload[0] & 0x1f == 28) {
        payload[1] &= !0x40;
    }
    picture(payloads)
}

/// The first pictures are missing, as for a receiver that comes later.
pub fn without_first(units: Vec<AccessUnit>, missing: usize) -> Vec<AccessUnit> {
    let rest: Vec<AccessUnit> = units.into_iter().skip(missing).collect();
    assert!(rest.iter().all(|unit| !unit.has(IDR)), "the stream has no other IDR picture");
    rest
}

/// The same pictures without SEI.
pub fn without_sei(mut units: Vec<AccessUnit>) -> Vec<AccessUnit> {
    units.iter_mut().for_each(|unit| unit.units.retain(|unit| unit[0] & 0x1f != SEI));
    units
}
