//! Probes on the source pads of demuxers: the times that a demuxer passes on go to decoders without jumps.
//!
//! Owns: the probes. Does not know: which step is a jump ([`super::rebase`]). In: buffers of any demuxer. Out: the same
//! buffers with times that continue.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::rebase::{Rebaser, Unit};

/// Video whose presentation order is its decoding order.
const IN_ORDER: &[&str] = &["video/x-vp8", "video/x-vp9", "video/x-av1", "image/jpeg"];

/// Follows the source pads of an element, if it is a demuxer of media. All demuxers of a source share the rebaser.
pub(super) fn follow(element: &gst::Element, rebaser: &Arc<Mutex<Rebaser>>) {
    let demuxes = element.factory().is_some_and(|factory| {
        // The output of an adaptive demuxer is no media yet, and the times of MPEG-TS were corrected before.
        factory.has_type(gst::ElementFactoryType::DEMUXER)
            && !factory.klass().contains("Adaptive")
            && factory.name().as_str() != "tsdemux"
    });
    if !demuxes {
        return;
    }
    let adds = rebaser.clone();
    element.connect_pad_added(move |_, pad| {
        let rebaser = adds.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let Some(buffer) = info.buffer_mut() {
                correct(pad, buffer, &rebaser);
            }
            gst::PadProbeReturn::Ok
        });
    });
    let removes = rebaser.clone();
    element.connect_pad_removed(move |_, pad| removes.lock().end(track(pad)));
}

/// The number of a track: unique while the pad exists.
fn track(pad: &gst::Pad) -> usize {
    pad.as_ptr().addr()
}

fn correct(pad: &gst::Pad, buffer: &mut gst::Buffer, rebaser: &Mutex<Rebaser>) {
    let Some(event) = pad.sticky_event::<gst::event::Segment>(0) else { return };
    let Some(segment) = event.segment().downcast_ref::<gst::ClockTime>() else { return };
    let Some(time) = buffer.dts_or_pts().and_then(|time| segment.to_running_time_full(time)) else { return };
    let nanoseconds = |time: gst::ClockTime| time.nseconds().min(i64::MAX as u64) as i64;
    let time = match time {
        gst::Signed::Positive(time) => nanoseconds(time),
        gst::Signed::Negative(time) => -nanoseconds(time),
    };
    let reordered = buffer.dts().is_none() && may_be_reordered(pad);
    let duration = buffer.duration().map(nanoseconds).unwrap_or_default();
    let offset = rebaser.lock().offset(track(pad), Unit { time, duration, reordered });
    if offset == 0 {
        return;
    }
    let moved = |time: gst::ClockTime| time.nseconds().saturating_add_signed(offset).min(i64::MAX as u64);
    let moved = |time: Option<gst::ClockTime>| time.map(|time| gst::ClockTime::from_nseconds(moved(time)));
    let (pts, dts) = (moved(buffer.pts()), moved(buffer.dts()));
    let fields = buffer.make_mut();
    fields.set_pts(pts);
    fields.set_dts(dts);
    // Decoders drop what is after the end of the segment.
    if segment.stop().is_some() {
        let mut open = segment.clone();
        open.set_stop(gst::ClockTime::NONE);
        let open = gst::event::Segment::builder(&open).seqnum(event.seqnum()).build();
        // Fails if the pipeline ends.
        let _pushed = pad.push_event(open);
    }
}

fn may_be_reordered(pad: &gst::Pad) -> bool {
    let caps = pad.current_caps();
    let name = caps.as_ref().and_then(|caps| caps.structure(0)).map(|structure| structure.name());
    name.is_some_and(|name| name.starts_with("video/") && !IN_ORDER.contains(&name.as_str()))
}
