//! What passes between a peer and us in RTCP, read where it passes.
//!
//! Owns: [`Reports`], which reads what a receiver tells: keyframe requests, and how our packets arrive; and [`Tap`], an
//! interceptor next to the wire that passes it on, with which of its streams are over, and reads from our own reports how
//! theirs arrive. Does not know: rooms, what is done about it. Packets go on unchanged.
//!
//! The crate routes RTCP by the first packet's first SSRC and ends it before the application; here nothing is missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use tokio::sync::{Notify, watch};

use crate::tier;

/// Sender reports remembered to measure the round trip by.
const REPORTS_MAX: usize = 8;
/// Streams remembered that are over, until somebody looks: a peer has three.
const OVER_MAX: usize = 8;

/// How what we send arrives, by the peer's latest report.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Reception {
    /// Share of our packets lost since the report before, 0 to 1.
    pub(super) fraction_lost: f32,
    /// Round trip, where the report allows to tell.
    pub(super) rtt: Option<Duration>,
    /// The shortest round trip seen.
    pub(super) shortest: Option<Duration>,
    /// What the peer thinks that it can receive, in bits per second, where it says so (REMB).
    pub(super) estimate: Option<u64>,
}

impl Reception {
    /// The same for whoever chooses tiers: a round trip longer than the shortest is a queue.
    pub(super) fn told(&self) -> tier::Reception {
        let queue = self.rtt.zip(self.shortest).map(|(rtt, shortest)| rtt.saturating_sub(shortest));
        tier::Reception { lost: self.fraction_lost, queue, estimate: self.estimate, ..tier::Reception::default() }
    }
}

/// What the tap has seen, shared with the peer's task.
#[derive(Debug)]
pub(super) struct Seen {
    /// The peer wants a keyframe of our video.
    pub(super) keyframe_wanted: Notify,
    /// The latest report about our video (or audio, where there is no video).
    pub(super) reception: watch::Sender<Reception>,
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
            lost: AtomicU64::new(0),
            jitter: AtomicU32::new(0),
            over: Mutex::default(),
            ended: Notify::new(),
            goodbye_left: Notify::new(),
        }
    }
}

/// What a receiver tells of one video and one audio stream of ours.
pub(super) struct Reports {
    /// SSRC of our video.
    video: u32,
    /// The SSRC whose reports count: our video, else our audio.
    reported: u32,
    /// Middle 32 bits of our sender reports' NTP time, and when they left.
    sent: VecDeque<(u32, Instant)>,
    latest: Reception,
}

/// What one packet of RTCP said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// A keyframe of our video is wanted.
    pub(super) keyframe_wanted: bool,
    /// There is a new report.
    pub(super) reception: bool,
}

impl Reports {
    /// `video` is the SSRC of our video; `reported` that of the stream whose reception is told.
    pub(super) fn new(video: u32, reported: u32) -> Self {
        Self { video, reported, sent: VecDeque::new(), latest: Reception::default() }
    }

    /// How things arrive, by the latest report.
    pub(super) fn latest(&self) -> Reception {
        self.latest
    }

    pub(super) fn read(&mut self, packet: &dyn rtc::rtcp::Packet, now: Instant) -> Told {
        let any = packet.as_any();
        let mut told = Told::default();
        if let Some(request) = any.downcast_ref::<PictureLossIndication>() {
            told.keyframe_wanted = request.media_ssrc == self.video;
        } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
            told.keyframe_wanted = request.fir.iter().any(|entry| entry.ssrc == self.video);
        } else if let Some(estimate) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
            // Told with the next report: one alone says nothing of losses.
            self.latest.estimate = Some(estimate.bitrate as u64);
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            told.reception = self.reported(&report.reports, now);
        } else if let Some(report) = any.downcast_ref::<SenderReport>() {
            told.reception = self.reported(&report.reports, now);
        }
        told
    }

    fn reported(&mut self, reports: &[ReceptionReport], now: Instant) -> bool {
        let Some(report) = reports.iter().find(|report| report.ssrc == self.reported) else { return false };
        let sent = self.sent.iter().find(|(ntp, _)| *ntp == report.last_sender_report);
        let held = Duration::from_secs_f64(f64::from(report.delay) / 65_536.0);
        // RFC 3550 section 6.4.1: what has passed since our report, less what the peer held it.
        let rtt = sent.and_then(|(_, sent)| now.saturating_duration_since(*sent).checked_sub(held));
        self.latest.fraction_lost = f32::from(report.fraction_lost) / 256.0;
        self.latest.rtt = rtt;
        self.latest.shortest = [self.latest.shortest, rtt].into_iter().flatten().min();
        true
    }

    /// Whether a packet of ours says goodbye for our streams.
    fn ends(&self, packet: &dyn rtc::rtcp::Packet) -> bool {
        packet.as_any().downcast_ref::<Goodbye>().is_some_and(|goodbye| goodbye.sources.contains(&self.reported))
    }

    /// A report of ours has left.
    pub(super) fn sent(&mut self, report: &SenderReport, now: Instant) {
        if report.ssrc == self.reported {
            self.sent.truncate(REPORTS_MAX - 1);
            self.sent.push_front(((report.ntp_time >> 16) as u32, now));
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
