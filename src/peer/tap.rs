//! What passes between a peer and us in RTCP, read where it passes.
//!
//! Owns: [`Tap`], an interceptor next to the wire that passes on what [`Reports`] reads, with which of the peer's streams are
//! over and which packets its feedbacks tell of, and reads from our own reports how theirs arrive. Does not know: rooms, what is
//! done about it. Packets go on unchanged.
//!
//! The crate routes RTCP by the first packet's first SSRC and ends it before the application; here nothing is missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use tokio::sync::{Notify, watch};

use super::arrivals::Covered;
use super::reports::{Reception, Reports};

/// Streams remembered that are over, until somebody looks: a peer has three.
const OVER_MAX: usize = 8;

/// What the tap has seen, shared with the peer's task.
#[derive(Debug)]
pub(super) struct Seen {
    /// The peer wants a keyframe of our video.
    pub(super) keyframe_wanted: Notify,
    /// The latest report about our video (or audio, where there is no video).
    pub(super) reception: watch::Sender<Reception>,
    /// What the latest transport-wide feedbacks tell of.
    pub(super) covered: Mutex<Covered>,
    /// Packets of theirs that never arrived, all streams.
    pub(super) lost: AtomicU64,
    /// Latest interarrival jitter of a stream of theirs, in its clock's ticks.
    pub(super) jitter: AtomicU32,
    /// Streams of theirs that are over, by their own word.
    pub(super) over: Mutex<Vec<u32>>,
    /// There are such.
    pub(super) ended: Notify,
    /// The goodbye of our streams leaves.
    pub(super) goodbye_left: Notify,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            keyframe_wanted: Notify::new(),
            reception: watch::Sender::new(Reception::default()),
            covered: Mutex::default(),
            lost: AtomicU64::new(0),
            jitter: AtomicU32::new(0),
            over: Mutex::default(),
            ended: Notify::new(),
            goodbye_left: Notify::new(),
        }
    }
}

/// The interceptor.
pub(super) struct Tap {
    seen: Arc<Seen>,
    reports: Reports,
    /// Losses by stream, as our own reports count them.
    lost: Vec<(u32, u32)>,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

impl Tap {
    /// `video` is the SSRC of our video; `reported` that of the stream whose reception is told.
    pub(super) fn new(seen: Arc<Seen>, video: u32, reported: u32) -> Self {
        let reports = Reports::new(video, reported);
        Self { seen, reports, lost: Vec::new(), inward: VecDeque::new(), outward: VecDeque::new() }
    }

    fn read(&mut self, packet: &dyn rtc::rtcp::Packet, now: Instant) {
        let told = self.reports.read(packet, now);
        if told.keyframe_wanted {
            self.seen.keyframe_wanted.notify_one();
        }
        if told.reception {
            self.seen.reception.send_replace(self.reports.latest());
        }
        if let Some(feedback) = packet.as_any().downcast_ref::<TransportLayerCc>() {
            self.seen.covered.lock().add(feedback.base_sequence_number, feedback.packet_status_count);
        }
        if let Some(goodbye) = packet.as_any().downcast_ref::<Goodbye>() {
            let mut over = self.seen.over.lock();
            let room = OVER_MAX - over.len();
            over.extend(goodbye.sources.iter().take(room));
            self.seen.ended.notify_one();
        }
    }

    fn wrote(&mut self, packet: &dyn rtc::rtcp::Packet, now: Instant) {
        let any = packet.as_any();
        if let Some(report) = any.downcast_ref::<SenderReport>() {
            self.reports.sent(report, now);
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            for report in &report.reports {
                self.lost.retain(|(ssrc, _)| *ssrc != report.ssrc);
                self.lost.push((report.ssrc, report.total_lost));
                self.seen.jitter.store(report.jitter, Ordering::Relaxed);
            }
            let lost = self.lost.iter().map(|(_, lost)| u64::from(*lost)).sum();
            self.seen.lost.store(lost, Ordering::Relaxed);
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            packets.iter().for_each(|packet| self.read(&**packet, message.now));
        }
        self.inward.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            packets.iter().for_each(|packet| self.wrote(&**packet, message.now));
        }
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        let message = self.outward.pop_front()?;
        if let Packet::Rtcp(packets) = &message.message.packet
            && packets.iter().any(|packet| self.reports.ends(&**packet))
        {
            self.seen.goodbye_left.notify_one();
        }
        Some(message)
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _: &StreamInfo) {}

    fn bind_remote_stream(&mut self, _: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.lost.retain(|(ssrc, _)| *ssrc != info.ssrc);
    }
}
