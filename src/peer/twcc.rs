//! Transport-wide congestion control feedback in both directions (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Owns: [`SentPackets`], what was sent under which transport-wide sequence number until feedback reports it; and
//! [`FeedbackGenerator`], which reports how the client's packets arrive. Does not know: what is decided by the arrivals
//! ([`crate::tier::Downlink`]), RTCP compounds.

use std::collections::VecDeque;
use std::time::Duration;

use rtc::interceptor::{
    Interceptor, Packet, RTPHeaderExtension, StreamInfo, TaggedPacket, TwccReceiverBuilder, TwccReceiverInterceptor,
    convert_twcc,
};
use rtc::rtcp;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::rtp;
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;

use super::extensions::TRANSPORT_CC;
use crate::tier::Arrival;
use crate::time::{Moment, Timestamp};

/// Bytes on the wire around an RTP packet: IP, UDP and the tag of SRTP.
const OVERHEAD: usize = 28 + 16;
/// Packets that wait for feedback; at 1,000 packets a second feedback is two seconds late then, or never comes.
const SENT_MAX: usize = 2_048;
/// From one feedback packet of ours to the next.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// A packet that was sent, and what feedback says of it.
#[derive(Debug, Clone, Copy)]
struct Sent {
    departure: Timestamp,
    size: usize,
    status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// No feedback has covered it: it, or the feedback, may be lost.
    Unreported,
    /// Feedback reports it lost. A later one may still report it as received.
    Lost,
    /// It was received, at a time by the client's clock where the feedback gives one.
    Received(Option<Duration>),
}

/// The packets sent to one client that no feedback has reported as received yet, or that left before such a one.
#[derive(Debug, Default)]
pub(super) struct SentPackets {
    /// Transport-wide sequence number of the first.
    first: u16,
    packets: VecDeque<Sent>,
}

impl SentPackets {
    /// The transport-wide sequence number of the next packet.
    pub(super) fn next_sequence(&self) -> u16 {
        self.first.wrapping_add(self.packets.len() as u16)
    }

    /// A packet of `size` bytes (RTP header and payload) leaves under the number [`SentPackets::next_sequence`].
    pub(super) fn sent(&mut self, size: usize, departure: Timestamp) {
        if self.packets.len() == SENT_MAX {
            self.packets.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        self.packets.push_back(Sent { departure, size: size + OVERHEAD, status: Status::Unreported });
    }

    /// Takes feedback; gives the packets up to the newest received one, in the order of departure. A loss is given with
    /// the next packet that was received after it.
    pub(super) fn feedback(&mut self, feedback: &TransportLayerCc) -> Vec<Arrival> {
        let mut newest = None;
        for acknowledgement in convert_twcc(feedback) {
            let at = usize::from(acknowledgement.sequence_number.wrapping_sub(self.first));
            let Some(sent) = self.packets.get_mut(at) else { continue };
            if acknowledgement.arrived {
                sent.status = Status::Received(acknowledgement.arrival);
                newest = newest.max(Some(at));
            } else if sent.status == Status::Unreported {
                sent.status = Status::Lost;
            }
        }
        let Some(newest) = newest else { return Vec::new() };
        self.first = self.first.wrapping_add(newest as u16 + 1);
        let reported = self.packets.drain(..=newest);
        // An arrival without a time says nothing, not even that the packet was lost.
        let reported = reported.filter(|sent| sent.status != Status::Received(None));
        reported
            .map(|Sent { departure, size, status }| Arrival {
                departure,
                arrival: if let Status::Received(arrival) = status { arrival } else { None },
                reported: status != Status::Unreported,
                size,
            })
            .collect()
    }
}

/// Reports how the packets of one client arrive.
pub(super) struct FeedbackGenerator {
    recorder: TwccReceiverInterceptor,
    /// When the next feedback is due; None while nothing has arrived since the last one.
    due: Option<Timestamp>,
}

impl FeedbackGenerator {
    /// `id` is that of the transport-wide sequence number's header extension.
    pub(super) fn new(id: u8) -> Self {
        let mut recorder = TwccReceiverBuilder::new().with_interval(FEEDBACK_INTERVAL).build();
        // It takes the id from any stream for all of the transport.
        recorder.bind_remote_stream(&StreamInfo {
            rtp_header_extensions: vec![RTPHeaderExtension { uri: TRANSPORT_CC.to_owned(), id: id.into() }],
            ..StreamInfo::default()
        });
        Self { recorder, due: None }
    }

    /// A packet with this header has arrived.
    pub(super) fn received(&mut self, header: &rtp::Header, moment: Moment) {
        self.due.get_or_insert(moment.now + FEEDBACK_INTERVAL);
        let packet = rtp::Packet { header: header.clone(), payload: bytes::Bytes::new() };
        let (now, transport) = (moment.instant, TransportContext::default());
        let message = TaggedPacket { now, transport, message: Packet::Rtp(packet).into() };
        self.recorder.handle_read(message).expect("recording a packet cannot fail");
        self.recorder.poll_read();
    }

    /// The feedback that is due.
    pub(super) fn poll(&mut self, moment: Moment) -> Vec<Box<dyn rtcp::Packet>> {
        if self.due.is_none_or(|due| due > moment.now) {
            return Vec::new();
        }
        self.due = None;
        self.recorder.handle_timeout(moment.instant).expect("queueing feedback cannot fail");
        let mut feedback = Vec::new();
        while let Some(message) = self.recorder.poll_write() {
            if let Packet::Rtcp(packets) = message.message.packet {
                feedback.extend(packets);
            }
        }
        feedback
    }

    /// When [`FeedbackGenerator::poll`] is to be called next.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// Moments of one clock, by milliseconds.
    fn clock() -> impl Fn(u64) -> Moment {
        let start = tokio::time::Instant::now().into_std();
        move |ms| Moment { now: at(ms), instant: start + Duration::from_millis(ms) }
    }

    fn header(transport_sequence: u16) -> rtp::Header {
        let mut header = rtp::Header { version: 2, ssrc: 7, ..rtp::Header::default() };
        let bytes = bytes::Bytes::copy_from_slice(&transport_sequence.to_be_bytes());
        header.set_extension(5, bytes).expect("two bytes fit");
        header
    }

    /// The feedback on packets of a sender, of which some are lost.
    fn feedback(arrived: &[(u16, u64)]) -> Vec<TransportLayerCc> {
        let (mut generator, clock) = (FeedbackGenerator::new(5), clock());
        let mut last = 0;
        for (sequence, ms) in arrived {
            generator.received(&header(*sequence), clock(*ms));
            last = *ms;
        }
        let packets = generator.poll(clock(last + 100));
        packets.iter().filter_map(|packet| packet.as_any().downcast_ref::<TransportLayerCc>().cloned()).collect()
    }

    fn sent(count: u64) -> SentPackets {
        let mut sent = SentPackets { first: 65_530, ..SentPackets::default() };
        (0..count).for_each(|n| sent.sent(1_000, at(n * 10)));
        sent
    }

    #[test]
    fn losses_between_arrivals_are_reported_with_the_next_arrival() {
        let mut sent = sent(20);
        let arrived: Vec<(u16, u64)> =
            [0, 1, 3, 9].iter().map(|n| (65_530_u16.wrapping_add(*n), u64::from(*n) * 10)).collect();
        let arrivals: Vec<Arrival> = feedback(&arrived).iter().flat_map(|feedback| sent.feedback(feedback)).collect();
        let lost: Vec<usize> =
            arrivals.iter().enumerate().filter(|(_, a)| a.arrival.is_none()).map(|(n, _)| n).collect();
        assert_eq!((arrivals.len(), lost), (10, vec![2, 4, 5, 6, 7, 8]));
        assert!(arrivals.iter().all(|arrival| arrival.reported && arrival.size == 1_000 + OVERHEAD));
        assert_eq!(sent.next_sequence(), 65_530_u16.wrapping_add(20));
    }

    #[test]
    fn packets_of_a_lost_feedback_are_not_reported_as_lost() {
        let mut sent = sent(100);
        let number = |n: u16| 65_530_u16.wrapping_add(n);
        // The receiver has them all but 55 to 64; what it says of 75 to 84 gets lost.
        let first: Vec<(u16, u64)> =
            (0..75).filter(|n| !(55..65).contains(n)).map(|n| (number(n), u64::from(n) * 10)).collect();
        let last: Vec<(u16, u64)> = (85..100).map(|n| (number(n), u64::from(n) * 10)).collect();
        let mut arrivals = Vec::new();
        for arrived in [first, last] {
            arrivals.extend(feedback(&arrived).iter().flat_map(|feedback| sent.feedback(feedback)));
        }
        let lost = arrivals.iter().filter(|arrival| arrival.reported && arrival.arrival.is_none()).count();
        let unreported = arrivals.iter().filter(|arrival| !arrival.reported).count();
        assert_eq!((arrivals.len(), lost, unreported), (100, 10, 10));
    }

    #[test]
    fn packets_without_feedback_are_bounded() {
        let mut sent = SentPackets::default();
        (0..3 * SENT_MAX as u64).for_each(|n| sent.sent(100, at(n)));
        assert_eq!((sent.packets.len(), sent.next_sequence()), (SENT_MAX, 3 * SENT_MAX as u16));
    }

    proptest! {
        /// Every packet up to the newest received one is reported once and in order, with any loss. Feedback survives
        /// serialisation.
        #[test]
        fn each_packet_is_given_once(received in prop::collection::vec(prop::bool::weighted(0.7), 1..300)) {
            let mut sent = sent(received.len() as u64);
            let (mut generator, clock) = (FeedbackGenerator::new(5), clock());
            let mut arrivals = Vec::new();
            for (n, received) in received.iter().enumerate() {
                let moment = clock(n as u64 * 10);
                if *received {
                    generator.received(&header(65_530_u16.wrapping_add(n as u16)), moment);
                }
                for packet in generator.poll(moment) {
                    let feedback = packet.as_any().downcast_ref::<TransportLayerCc>().expect("only feedback");
                    arrivals.extend(sent.feedback(feedback));
                }
            }
            for (n, arrival) in arrivals.iter().enumerate() {
                prop_assert_eq!(arrival.departure, at(n as u64 * 10));
                prop_assert_eq!(arrival.arrival.is_some(), received[n]);
            }
        }
    }
}
