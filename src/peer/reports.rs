//! What a receiver reports in RTCP about the streams it is sent.
//!
//! Owns: [`ReportReader`], which reads keyframe requests, REMB and reception reports (RFC 3550, RFC 4585, RFC 5104);
//! the round-trip time, by our sender reports; and the usual interval of reports, which tells an outage of the path.
//! Does not know: how RTCP arrives, what follows from a report. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;

use crate::tier;
use crate::time::Timestamp;

/// Sender reports remembered, to measure the round trip by.
const REPORTS_MAX: usize = 8;
/// Intervals between reports that are remembered: the longest of so many is about as long as they get (RFC 3550 section
/// 6.2: half to one and a half times the mean).
const GAPS_MAX: usize = 8;
/// No report for longer than this, and for longer than [`OUTAGE_GAPS`] usual intervals, is an outage of the path.
const OUTAGE_MIN: Duration = Duration::from_secs(2);
/// See [`OUTAGE_MIN`]; for so many usual intervals the losses of the outage may still be reported.
const OUTAGE_GAPS: u32 = 2;

/// How our packets arrive, by the receiver's latest reports.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct LinkReport {
    /// Share of our packets lost since the report before, 0 to 1.
    pub(super) fraction_lost: f32,
    /// Round-trip time, where the report allows to measure it.
    pub(super) rtt: Option<Duration>,
    /// The shortest round-trip time measured.
    pub(super) shortest_rtt: Option<Duration>,
    /// The receiver's estimated maximum bitrate, in bits per second (REMB).
    pub(super) remb: Option<u64>,
    /// The losses are those of an outage: they say nothing of the path there is now.
    pub(super) after_outage: bool,
}

impl LinkReport {
    /// The same as input of tier selection: a round trip longer than the shortest is a queue.
    pub(super) fn reception(&self) -> tier::Reception {
        let queue = self.rtt.zip(self.shortest_rtt).map(|(rtt, shortest)| rtt.saturating_sub(shortest));
        let lost = if self.after_outage { 0.0 } else { self.fraction_lost };
        tier::Reception { lost, queue, estimate: self.remb, ..tier::Reception::default() }
    }
}

/// Reads what a receiver reports about one video and one audio stream of ours.
pub(super) struct ReportReader {
    /// SSRC of our video.
    video: u32,
    /// The SSRC whose reports count: our video, else our audio.
    reported: u32,
    /// Middle 32 bits of our sender reports' NTP time, and when they left.
    sent: VecDeque<(u32, Timestamp)>,
    latest: LinkReport,
    cadence: Cadence,
}

/// What one RTCP packet contained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Contained {
    /// A keyframe of our video is needed.
    pub(super) keyframe_request: bool,
    /// A reception report about the stream that counts.
    pub(super) report: bool,
}

impl ReportReader {
    /// `video` is the SSRC of our video; `reported` that of the stream whose reports count.
    pub(super) fn new(video: u32, reported: u32) -> Self {
        Self { video, reported, sent: VecDeque::new(), latest: LinkReport::default(), cadence: Cadence::default() }
    }

    /// From now on the reports about this stream of ours count.
    pub(super) fn set_reported(&mut self, ssrc: u32) {
        if self.reported != ssrc {
            *self = Self::new(self.video, ssrc);
        }
    }

    /// The latest report.
    pub(super) fn latest(&self) -> LinkReport {
        self.latest
    }

    pub(super) fn read(&mut self, packet: &dyn rtc::rtcp::Packet, now: Timestamp) -> Contained {
        let any = packet.as_any();
        let mut contained = Contained::default();
        if let Some(request) = any.downcast_ref::<PictureLossIndication>() {
            contained.keyframe_request = request.media_ssrc == self.video;
        } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
            contained.keyframe_request = request.fir.iter().any(|entry| entry.ssrc == self.video);
        } else if let Some(estimate) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
            // Used with the next report: REMB alone says nothing about losses.
            self.latest.remb = Some(estimate.bitrate as u64);
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            contained.report = self.reported(&report.reports, now);
        } else if let Some(report) = any.downcast_ref::<SenderReport>() {
            contained.report = self.reported(&report.reports, now);
        }
        // The path is back: without a keyframe nothing that arrives now can be decoded.
        contained.keyframe_request |= contained.report && self.latest.after_outage && self.latest.fraction_lost > 0.0;
        contained
    }

    fn reported(&mut self, reports: &[ReceptionReport], now: Timestamp) -> bool {
        let Some(report) = reports.iter().find(|report| report.ssrc == self.reported) else { return false };
        let sent = self.sent.iter().find(|(ntp, _)| *ntp == report.last_sender_report);
        let held = Duration::from_secs_f64(f64::from(report.delay) / 65_536.0);
        // RFC 3550 section 6.4.1: what has passed since our report, less what the peer held it.
        let rtt = sent.and_then(|(_, sent)| now.since(*sent).checked_sub(held));
        self.latest.fraction_lost = f32::from(report.fraction_lost) / 256.0;
        self.latest.after_outage = self.cadence.is_after_outage(now, report.fraction_lost > 0);
        self.latest.rtt = rtt;
        self.latest.shortest_rtt = [self.latest.shortest_rtt, rtt].into_iter().flatten().min();
        true
    }

    /// A report of ours has left.
    pub(super) fn sent(&mut self, report: &SenderReport, now: Timestamp) {
        if report.ssrc == self.reported {
            self.sent.truncate(REPORTS_MAX - 1);
            self.sent.push_front(((report.ntp_time >> 16) as u32, now));
        }
    }
}

/// When reports come.
#[derive(Debug, Default)]
struct Cadence {
    latest: Option<Timestamp>,
    gaps: VecDeque<Duration>,
    /// Until when the losses of an outage may still be reported. One report has them: the first after packets arrive
    /// again.
    unreported: Option<Timestamp>,
}

impl Cadence {
    /// Whether a report that comes now, with losses or without, is about an outage.
    fn is_after_outage(&mut self, now: Timestamp, losses: bool) -> bool {
        let gap = self.latest.replace(now).map(|latest| now.since(latest));
        let usual = self.gaps.iter().copied().max();
        if let Some((gap, usual)) = gap.zip(usual)
            && gap > OUTAGE_MIN.max(usual * OUTAGE_GAPS)
        {
            self.unreported = Some(now + OUTAGE_MIN.max(usual * OUTAGE_GAPS));
        } else if let Some(gap) = gap {
            self.gaps.truncate(GAPS_MAX - 1);
            self.gaps.push_front(gap);
        }
        let after_outage = self.unreported.is_some_and(|until| now <= until);
        if losses || !after_outage {
            self.unreported = None;
        }
        after_outage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning() -> Timestamp {
        Timestamp::from_micros(1_000_000)
    }

    /// Reports, each so many milliseconds after the one before and with these losses: which are about an outage.
    fn outages(reports: &[(u64, u8)]) -> Vec<bool> {
        let (mut now, mut read) = (beginning(), ReportReader::new(7, 7));
        reports
            .iter()
            .map(|(gap, lost)| {
                now = now + Duration::from_millis(*gap);
                let report = ReceptionReport { ssrc: 7, fraction_lost: *lost, ..ReceptionReport::default() };
                let packet = ReceiverReport { reports: vec![report], ..ReceiverReport::default() };
                let contained = read.read(&packet, now);
                let latest = read.latest();
                assert_eq!(contained, Contained { report: true, keyframe_request: latest.after_outage && *lost > 0 });
                assert_eq!(latest.fraction_lost, f32::from(*lost) / 256.0, "the document shows the losses");
                assert_eq!(latest.reception().lost, if latest.after_outage { 0.0 } else { latest.fraction_lost });
                latest.after_outage
            })
            .collect()
    }

    #[test]
    fn losses_of_an_outage_are_reported_once() {
        // A report that was delayed comes first; then one with the losses.
        let after = outages(&[(900, 0), (1300, 0), (700, 0), (3700, 0), (11, 250), (16, 20), (1000, 30)]);
        assert_eq!(after, [false, false, false, true, true, false, false]);
        // An outage without losses: later losses are those of the path.
        assert_eq!(outages(&[(0, 0), (1000, 0), (5000, 0), (1000, 0), (1500, 90)]), [false, false, true, true, false]);
    }

    #[test]
    fn losses_count_while_reports_come_at_the_usual_interval() {
        assert_eq!(outages(&[(0, 0), (1000, 0), (1400, 250), (600, 240)]), [false; 4]);
        // Every five seconds on average, as some clients report; the longest interval is three times the shortest.
        assert_eq!(outages(&[(0, 0), (7500, 200), (2500, 9), (7400, 100), (5000, 250)]), [false; 5]);
        // There is no usual interval yet.
        assert_eq!(outages(&[(9000, 200), (9000, 200)]), [false; 2]);
    }

    #[test]
    fn the_round_trip_time_excludes_the_receivers_delay() {
        let (start, mut read) = (beginning(), ReportReader::new(7, 7));
        let ntp_time = 0x0123_4567_89ab_cdef;
        read.sent(&SenderReport { ssrc: 7, ntp_time, ..SenderReport::default() }, start);
        let report =
            ReceptionReport { ssrc: 7, last_sender_report: 0x4567_89ab, delay: 65_536, ..ReceptionReport::default() };
        let packet = ReceiverReport { reports: vec![report], ..ReceiverReport::default() };
        read.read(&packet, start + Duration::from_millis(1080));
        assert_eq!(read.latest().rtt, Some(Duration::from_millis(80)));
        // A longer one is a queue.
        read.read(&packet, start + Duration::from_millis(1200));
        assert_eq!(read.latest().reception().queue, Some(Duration::from_millis(120)));
    }
}
