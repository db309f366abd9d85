//! RTCP in both directions.
//!
//! Owns: what follows from the client's RTCP, and when ours is sent: reports with their SDES, NACK, transport-wide
//! feedback, keyframe requests, REMB, BYE. Does not know: RTP, ICE.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

use super::{Connection, Out};
use crate::media::{Kind, Size, SourceKind};
use crate::simulcast::Simulcast;
use crate::tier::Reception;
use crate::tier::uplink::deserved;
use crate::time::{Moment, Timestamp};
use crate::transport::secure::Secure;
use crate::transport::srtp;

/// From the beginning to the first report, which tells how audio and video belong together.
const REPORT_FIRST: Duration = Duration::from_millis(300);
/// From one report to the next, to a client that sends to us: its congestion control reads them.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The same to a client that only receives.
const VIEWER_REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// From one event on how packets arrive to the next; feedback comes more often.
const RECEPTION_INTERVAL: Duration = Duration::from_millis(150);
/// After so long without transport-wide feedback reception reports count again.
const FEEDBACK_SILENCE: Duration = Duration::from_secs(3);
/// A source is asked for a keyframe at most this often.
const SOURCE_KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// REMB is repeated this often, since it may be lost.
const LIMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Frames per second of simulcast encodings that are sent beside the one that is shown.
const ENCODING_FPS: u32 = 30;
/// A lower limit of a client with simulcast waits for so long: a smaller encoding is selected meanwhile.
const SIMULCAST_GRACE: Duration = Duration::from_secs(4);
/// Reception reports in one packet (RFC 3550 section 6.4.1).
const REPORTS_MAX: usize = 31;

impl Connection {
    /// Limits what the client sends, all its streams together, in bits per second; None lifts the limit.
    pub(in crate::peer) fn limit_uplink(&mut self, limit: Option<u64>, now: Timestamp) {
        // A lower limit turns larger encodings off at once, but the smaller one is selected only after a while.
        let is_lower = self.uplink_limit.is_some_and(|before| limit.is_some_and(|limit| limit < before));
        if is_lower && self.sources.sources.iter().any(|source| source.simulcast.is_some()) {
            self.next_limit = Some((limit, now + SIMULCAST_GRACE));
            return;
        }
        self.set_limit(limit, now);
    }

    fn set_limit(&mut self, limit: Option<u64>, now: Timestamp) {
        (self.uplink_limit, self.limit_due, self.next_limit) = (limit, now, None);
    }

    /// The source of this kind is shown at most at this size: of a simulcast source the nearest encoding is received.
    pub(in crate::peer) fn want(&mut self, kind: SourceKind, size: Size, now: Timestamp) {
        self.sources.want(kind, size, now);
    }

    /// Asks the client for a keyframe of the source in this section, unless that was done just now or nothing of it has
    /// arrived yet: then a keyframe comes first anyway.
    pub(in crate::peer) fn request_keyframe(&mut self, mid: &str, moment: Moment, out: &mut Out) {
        let sender_ssrc = self.ssrcs.audio;
        let Some(source) = self.sources.sources.iter_mut().find(|source| source.mid == mid) else { return };
        let ssrcs: Vec<u32> = source.received().collect();
        let just_now = source.keyframe_requested.is_some_and(|at| moment.now.since(at) < SOURCE_KEYFRAME_INTERVAL);
        if just_now || ssrcs.is_empty() {
            return;
        }
        source.keyframe_requested = Some(moment.now);
        let requests: Vec<_> = ssrcs.into_iter().map(|ssrc| picture_loss(sender_ssrc, ssrc)).collect();
        self.send_rtcp(&requests, moment.now, out);
    }

    /// Takes an SRTCP packet.
    pub(super) fn rtcp(&mut self, moment: Moment, mut datagram: BytesMut, out: &mut Out) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        if keys.decrypt_rtcp(&mut datagram).is_ok() {
            self.take_decrypted_rtcp(moment, datagram.freeze(), out);
        }
    }

    pub(super) fn take_decrypted_rtcp(&mut self, moment: Moment, mut compound: Bytes, out: &mut Out) {
        let now = moment.now;
        self.received = now;
        let Ok(packets) = rtcp::packet::unmarshal(&mut compound) else { return };
        for packet in packets {
            let any = packet.as_any();
            if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
                self.nack(nack, now, out);
            } else if let Some(feedback) = any.downcast_ref::<TransportLayerCc>() {
                self.transport_feedback(feedback, now);
            } else if let Some(bye) = any.downcast_ref::<Goodbye>() {
                self.bye(bye, now);
            } else {
                if let Some(report) = any.downcast_ref::<SenderReport>()
                    && let Some(encoding) = self.sources.encodings().find(|encoding| encoding.ssrc == Some(report.ssrc))
                {
                    encoding.statistics.sender_report(report, now);
                    encoding.capture.sender_report(report, now);
                }
                let contained = self.reports.read(&*packet, now);
                self.keyframe_wanted |= contained.keyframe_request;
                if contained.report {
                    self.reception_report(now);
                }
            }
        }
    }

    fn nack(&mut self, nack: &TransportLayerNack, now: Timestamp, out: &mut Out) {
        let queue = self.pacer.queue();
        let Some(video) = self.video.as_mut().filter(|video| video.ssrc() == nack.media_ssrc) else { return };
        video.requested(nack.nacks.iter().flat_map(|pair| pair.packet_list()), queue, now);
        if let Some(to) = self.destination(now) {
            self.retransmit(now, to, out);
        }
    }

    /// Streams of the client have ended (RFC 3550 section 6.6).
    fn bye(&mut self, bye: &Goodbye, now: Timestamp) {
        for source in &mut self.sources.sources {
            if source.ends(&bye.sources, now) {
                self.sink.ended(source.kind);
            }
        }
    }

    /// The client has reported how single packets arrived.
    fn transport_feedback(&mut self, feedback: &TransportLayerCc, now: Timestamp) {
        let arrivals = self.sent.feedback(feedback);
        if arrivals.is_empty() {
            return;
        }
        // After an outage nothing that arrives can be decoded, and some clients ask for a keyframe only seconds later.
        self.keyframe_wanted |= self.downlink.report(&arrivals);
        let Some(reception) = self.downlink.reception() else { return };
        self.feedback_received = Some(now);
        let queue = reception.queue_now.or(reception.queue).unwrap_or_default();
        self.pacer.follow(reception.capacity, queue, now);
        if now.since(self.reception_reported) >= RECEPTION_INTERVAL {
            self.report_reception(reception, now);
        }
    }

    /// The client has reported by RFC 3550: all there is where it has no transport-wide feedback.
    fn reception_report(&mut self, now: Timestamp) {
        let report = self.reports.latest();
        self.counters.set_report(&report);
        let remb = report.remb.filter(|_| self.takes_remb && self.feedback_received.is_none());
        let reception = Reception { estimate: remb, ..report.reception() };
        self.protection.report(&reception, report.rtt);
        if let Some(video) = &mut self.video {
            video.protect(self.protection.group());
        }
        let has_feedback = self.feedback_received.is_some_and(|at| now.since(at) < FEEDBACK_SILENCE);
        if !has_feedback && now.since(self.reception_reported) >= RECEPTION_INTERVAL {
            self.report_reception(reception, now);
        }
    }

    fn report_reception(&mut self, reception: Reception, now: Timestamp) {
        self.reception_reported = now;
        let backlog = self.subscriber.backlog(now);
        if let Some(pause) = self.subscriber.report(&Reception { backlog, ..reception }, now) {
            self.pacer.hold_until(now + pause);
        }
    }

    /// Sends NACK, keyframe requests of simulcast, transport-wide feedback and REMB, as far as they are due.
    pub(super) fn send_feedback(&mut self, moment: Moment, out: &mut Out) {
        let now = moment.now;
        let sender_ssrc = self.ssrcs.audio;
        let mut packets: Vec<Box<dyn rtcp::Packet>> = Vec::new();
        for source in &mut self.sources.sources {
            packets.extend(source.nacks(now).into_iter().map(|(media_ssrc, due)| {
                let nacks = nack_pairs_from_sequence_numbers(&due);
                Box::new(TransportLayerNack { sender_ssrc, media_ssrc, nacks }) as Box<dyn rtcp::Packet>
            }));
            packets.extend(source.keyframe_requests(now).into_iter().map(|ssrc| picture_loss(sender_ssrc, ssrc)));
        }
        if let Some(feedback) = &mut self.feedback {
            packets.extend(feedback.poll(moment));
        }
        if let Some((limit, _)) = self.next_limit.filter(|(_, due)| *due <= now) {
            self.set_limit(limit, now);
        }
        if let Some(limit) = self.uplink_limit.filter(|_| self.limit_due <= now) {
            self.limit_due = now + LIMIT_INTERVAL;
            let video = self.sources.sources.iter().filter(|source| source.kind.kind() == Kind::Video);
            let ssrcs: Vec<u32> = video.flat_map(|source| &source.encodings).filter_map(|one| one.ssrc).collect();
            if !ssrcs.is_empty() {
                // Of simulcast encodings browsers send the smaller ones first.
                let sources = self.sources.sources.iter().filter_map(|source| source.simulcast.as_ref());
                let smaller = sources.flat_map(Simulcast::smaller).map(|size| deserved(size, ENCODING_FPS));
                let limit = limit + smaller.sum::<u64>();
                // A client with transport-wide feedback takes it as a limit beside its own estimate.
                packets.push(Box::new(ReceiverEstimatedMaximumBitrate { sender_ssrc, bitrate: limit as f32, ssrcs }));
            }
        }
        if !packets.is_empty() {
            self.send_rtcp(&packets, now, out);
        }
    }

    /// Reports to clients that connected together are not to be sent together.
    pub(super) fn schedule_first_report(&mut self, now: Timestamp) {
        self.next_report = now + REPORT_FIRST + REPORT_FIRST.mul_f32(rand::random());
    }

    /// Sends reports; `last` adds BYE (RFC 3550 section 6.3.7).
    pub(super) fn report(&mut self, moment: Moment, last: bool, out: &mut Out) {
        let now = moment.now;
        let sends = !self.sources.sources.is_empty();
        self.next_report = now + if sends { REPORT_INTERVAL } else { VIEWER_REPORT_INTERVAL };
        let receptions = self.reception_reports(now);
        let streams = self.audio.iter().chain(&self.video);
        let mut reports: Vec<SenderReport> = streams.filter_map(|stream| stream.report(now)).collect();
        if reports.is_empty() && receptions.is_empty() && !last {
            return;
        }
        for report in &reports {
            self.reports.sent(report, now);
        }
        let mut packets: Vec<Box<dyn rtcp::Packet>> = Vec::new();
        let ssrcs: Vec<u32> = if reports.is_empty() {
            packets.push(Box::new(ReceiverReport {
                ssrc: self.ssrcs.audio,
                reports: receptions,
                ..ReceiverReport::default()
            }));
            vec![self.ssrcs.audio]
        } else {
            reports[0].reports = receptions;
            reports.iter().map(|report| report.ssrc).collect()
        };
        packets.extend(reports.into_iter().map(|report| Box::new(report) as Box<dyn rtcp::Packet>));
        packets.extend(self.descriptions.behind(&ssrcs, true));
        if last {
            packets.push(Box::new(self.descriptions.bye(&ssrcs)));
        }
        self.send_rtcp(&packets, now, out);
    }

    fn reception_reports(&mut self, now: Timestamp) -> Vec<ReceptionReport> {
        let mut reports = Vec::new();
        let mut lost = 0;
        for encoding in self.sources.encodings().take(REPORTS_MAX) {
            let Some(report) = encoding.ssrc.and_then(|ssrc| encoding.statistics.report(ssrc, now)) else { continue };
            lost += encoding.statistics.lost();
            self.counters.jitter_in.store(report.jitter, std::sync::atomic::Ordering::Relaxed);
            reports.push(report);
        }
        self.counters.lost_in.store(lost, std::sync::atomic::Ordering::Relaxed);
        reports
    }

    /// Encrypts and sends RTCP. Feedback leaves without a report before it (RFC 5506) to all clients, also those that
    /// do not offer `a=rtcp-rsize`: every client known reads it so, and some fail to parse SDES in a compound (aiortc).
    fn send_rtcp(&mut self, packets: &[Box<dyn rtcp::Packet>], now: Timestamp, out: &mut Out) {
        let Some(to) = self.destination(now) else { return };
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        let Ok(clear) = rtcp::packet::marshal(packets) else { return };
        let mut packet = srtp::copied(&clear);
        match keys.encrypt_rtcp(&mut packet) {
            Ok(()) => out.push((to, packet)),
            Err(error) => tracing::debug!(%error, "RTCP could not be encrypted"),
        }
    }
}

/// A keyframe request (RFC 4585 section 6.3.1).
fn picture_loss(sender_ssrc: u32, media_ssrc: u32) -> Box<dyn rtcp::Packet> {
    Box::new(PictureLossIndication { sender_ssrc, media_ssrc })
}
