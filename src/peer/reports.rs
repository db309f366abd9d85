//! What a receiver tells in RTCP of what it is sent.
//!
//! Owns: [`Reports`], which reads it: keyframe requests, and how our packets arrive; the round trip, by our sender reports; and
//! when reports usually come, which tells whether the way was gone. Does not know: how RTCP comes, what is done about it. Time
//! is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;

use crate::tier;

/// Sender reports remembered to measure the round trip by.
const REPORTS_MAX: usize = 8;
/// Times between reports that are remembered: one in so many is as long as they become (RFC 3550 section 6.2: half to one and
/// a half of the mean).
const GAPS_MAX: usize = 8;
/// Where nothing is told for longer than this, and than so many times as long as usual, the way was gone.
const GONE_MIN: Duration = Duration::from_secs(2);
/// See [`GONE_MIN`]; and for so many times as long as usual the losses may still be told.
const GONE_GAPS: u32 = 2;

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
    /// The losses are those of a way that was gone for a while: they say nothing of the one there is now.
    pub(super) afresh: bool,
}

impl Reception {
    /// The same for whoever chooses tiers: a round trip longer than the shortest is a queue.
    pub(super) fn told(&self) -> tier::Reception {
        let queue = self.rtt.zip(self.shortest).map(|(rtt, shortest)| rtt.saturating_sub(shortest));
        let lost = if self.afresh { 0.0 } else { self.fraction_lost };
        tier::Reception { lost, queue, estimate: self.estimate, ..tier::Reception::default() }
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
    cadence: Cadence,
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
        Self { video, reported, sent: VecDeque::new(), latest: Reception::default(), cadence: Cadence::default() }
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
        // The way is back, and nothing leads to the pictures that come by it.
        told.keyframe_wanted |= told.reception && self.latest.afresh && self.latest.fraction_lost > 0.0;
        told
    }

    fn reported(&mut self, reports: &[ReceptionReport], now: Instant) -> bool {
        let Some(report) = reports.iter().find(|report| report.ssrc == self.reported) else { return false };
        let sent = self.sent.iter().find(|(ntp, _)| *ntp == report.last_sender_report);
        let held = Duration::from_secs_f64(f64::from(report.delay) / 65_536.0);
        // RFC 3550 section 6.4.1: what has passed since our report, less what the peer held it.
        let rtt = sent.and_then(|(_, sent)| now.saturating_duration_since(*sent).checked_sub(held));
        self.latest.fraction_lost = f32::from(report.fraction_lost) / 256.0;
        self.latest.afresh = self.cadence.is_afresh(now, report.fraction_lost > 0);
        self.latest.rtt = rtt;
        self.latest.shortest = [self.latest.shortest, rtt].into_iter().flatten().min();
        true
    }

    /// Whether a packet of ours says goodbye for our streams.
    pub(super) fn ends(&self, packet: &dyn rtc::rtcp::Packet) -> bool {
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

/// When reports come.
#[derive(Debug, Default)]
struct Cadence {
    latest: Option<Instant>,
    gaps: VecDeque<Duration>,
    /// Until when the losses of a way that was gone may still be told. They are told once: by the first report after something
    /// has come by the new one.
    untold: Option<Instant>,
}

impl Cadence {
    /// Whether a report that comes now, with losses or without, tells of a way that was gone.
    fn is_afresh(&mut self, now: Instant, losses: bool) -> bool {
        let gap = self.latest.replace(now).map(|latest| now.saturating_duration_since(latest));
        let usual = self.gaps.iter().copied().max();
        if let Some((gap, usual)) = gap.zip(usual)
            && gap > GONE_MIN.max(usual * GONE_GAPS)
        {
            self.untold = Some(now + GONE_MIN.max(usual * GONE_GAPS));
        } else if let Some(gap) = gap {
            self.gaps.truncate(GAPS_MAX - 1);
            self.gaps.push_front(gap);
        }
        let afresh = self.untold.is_some_and(|until| now <= until);
        if losses || !afresh {
            self.untold = None;
        }
        afresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any will do: there is no other way to have one")]
    fn beginning() -> Instant {
        Instant::now()
    }

    /// One report in so many milliseconds after the one before, with these losses; and whether it was of a gone way.
    fn told(reports: &[(u64, u8)]) -> Vec<bool> {
        let (mut now, mut read) = (beginning(), Reports::new(7, 7));
        reports
            .iter()
            .map(|(gap, lost)| {
                now += Duration::from_millis(*gap);
                let report = ReceptionReport { ssrc: 7, fraction_lost: *lost, ..ReceptionReport::default() };
                let packet = ReceiverReport { reports: vec![report], ..ReceiverReport::default() };
                let told = read.read(&packet, now);
                let latest = read.latest();
                assert_eq!(told, Told { reception: true, keyframe_wanted: latest.afresh && *lost > 0 });
                assert_eq!(latest.fraction_lost, f32::from(*lost) / 256.0, "people see what was lost");
                assert_eq!(latest.told().lost, if latest.afresh { 0.0 } else { latest.fraction_lost });
                latest.afresh
            })
            .collect()
    }

    #[test]
    fn what_was_lost_while_the_way_was_gone_is_told_once() {
        // What was to be told meanwhile comes first; then one with the losses.
        let after = told(&[(900, 0), (1300, 0), (700, 0), (3700, 0), (11, 250), (16, 20), (1000, 30)]);
        assert_eq!(after, [false, false, false, true, true, false, false]);
        // Where nothing was lost after all, what is lost later is lost now.
        assert_eq!(told(&[(0, 0), (1000, 0), (5000, 0), (1000, 0), (1500, 90)]), [false, false, true, true, false]);
    }

    #[test]
    fn losses_while_reports_come_as_usual_count() {
        assert_eq!(told(&[(0, 0), (1000, 0), (1400, 250), (600, 240)]), [false; 4]);
        // Once in five seconds, as others do, and now and then by chance three times as long as the shortest.
        assert_eq!(told(&[(0, 0), (7500, 200), (2500, 9), (7400, 100), (5000, 250)]), [false; 5]);
        // Nothing is usual yet.
        assert_eq!(told(&[(9000, 200), (9000, 200)]), [false; 2]);
    }

    #[test]
    fn the_round_trip_is_what_the_receiver_did_not_hold() {
        let (start, mut read) = (beginning(), Reports::new(7, 7));
        let ntp_time = 0x0123_4567_89ab_cdef;
        read.sent(&SenderReport { ssrc: 7, ntp_time, ..SenderReport::default() }, start);
        let report =
            ReceptionReport { ssrc: 7, last_sender_report: 0x4567_89ab, delay: 65_536, ..ReceptionReport::default() };
        let packet = ReceiverReport { reports: vec![report], ..ReceiverReport::default() };
        read.read(&packet, start + Duration::from_millis(1080));
        assert_eq!(read.latest().rtt, Some(Duration::from_millis(80)));
        // A longer one is a queue.
        read.read(&packet, start + Duration::from_millis(1200));
        assert_eq!(read.latest().told().queue, Some(Duration::from_millis(120)));
    }
}
