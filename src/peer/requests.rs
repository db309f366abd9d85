//! What we have lost of a peer's video, asked for again (RFC 4585 section 6.2.1, RFC 4588).
//!
//! Owns: [`Requests`], an interceptor with the gaps in the numbers of what a peer sends. A gap is asked for at once, and
//! again as soon as an answer should have come, which it measures; repairs are known by the stream that carries them, where
//! there is one. Does not know: frames, how long somebody waits for them. What is lost in masses is not asked for: a
//! keyframe has to come.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rtc::interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp;
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;

/// Packets may overtake each other by so much.
const REORDERED: Duration = Duration::from_millis(8);
/// An answer takes so long, until one has been seen.
const ANSWER: Duration = Duration::from_millis(60);
/// From one request for a packet to the next, at least, and by how much more than an answer takes.
const AGAIN_MIN: Duration = Duration::from_millis(25);
/// See [`AGAIN_MIN`].
const AGAIN: f64 = 1.25;
/// Nobody waits longer for a packet.
const AGE_MAX: Duration = Duration::from_millis(400);
/// Packets missed at a time at most.
const MISSING_MAX: usize = 128;

/// The interceptor.
pub(super) struct Requests {
    sender_ssrc: u32,
    streams: Vec<Stream>,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

struct Stream {
    ssrc: u32,
    /// SSRC of the stream that carries repairs, where the peer names one, and its payload type.
    rtx: (Option<u32>, Option<u8>),
    /// The number after the newest one, counted on over wraps.
    next: Option<i64>,
    missing: BTreeMap<i64, Missing>,
    answer: Duration,
}

struct Missing {
    since: Instant,
    asked: Option<Instant>,
    times: u32,
}

impl Stream {
    fn arrived(&mut self, sequence: u16, now: Instant) {
        let Some(next) = self.next else {
            self.next = Some(i64::from(sequence) + 1);
            return;
        };
        let number = next + i64::from(sequence.wrapping_sub(next as u16) as i16);
        if number < next {
            return self.found(number, now);
        }
        if (number - next) as usize > MISSING_MAX {
            self.missing.clear();
        } else {
            self.missing.extend((next..number).map(|lost| (lost, Missing { since: now, asked: None, times: 0 })));
            while self.missing.len() > MISSING_MAX {
                self.missing.pop_first();
            }
        }
        self.next = Some(number + 1);
    }

    /// A repair has brought this number.
    fn repaired(&mut self, sequence: u16, now: Instant) {
        if let Some(next) = self.next {
            self.found(next + i64::from(sequence.wrapping_sub(next as u16) as i16), now);
        }
    }

    fn found(&mut self, number: i64, now: Instant) {
        if let Some(Missing { asked: Some(asked), times: 1, .. }) = self.missing.remove(&number) {
            // Only what was asked for once tells how long an answer takes (Karn's rule).
            self.answer = (self.answer * 3 + now.saturating_duration_since(asked)) / 4;
        }
    }

    fn again(&self) -> Duration {
        self.answer.mul_f64(AGAIN).max(AGAIN_MIN)
    }

    /// What is to be asked for now.
    fn due(&mut self, now: Instant) -> Vec<u16> {
        let again = self.again();
        self.missing.retain(|_, missing| now.saturating_duration_since(missing.since) < AGE_MAX);
        let due = self.missing.iter_mut().filter(|(_, missing)| missing.asks(again) <= now);
        due.map(|(number, missing)| {
            missing.asked = Some(now);
            missing.times += 1;
            *number as u16
        })
        .collect()
    }

    fn wakes(&self) -> Option<Instant> {
        let again = self.again();
        self.missing.values().map(|missing| missing.asks(again)).min()
    }
}

impl Missing {
    /// When it is asked for next.
    fn asks(&self, again: Duration) -> Instant {
        self.asked.map_or(self.since + REORDERED, |asked| asked + again)
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { sender_ssrc: rand::random(), streams: Vec::new(), inward: VecDeque::new(), outward: VecDeque::new() }
    }

    fn arrived(&mut self, packet: &rtp::Packet, now: Instant) {
        let header = &packet.header;
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == header.ssrc) {
            return stream.arrived(header.sequence_number, now);
        }
        let &[high, low, ..] = &packet.payload[..] else { return };
        for stream in &mut self.streams {
            // Who names no SSRC for repairs has one payload type for those of all its streams; only one will miss them.
            let carries = match stream.rtx {
                (Some(ssrc), _) => ssrc == header.ssrc,
                (None, payload_type) => payload_type == Some(header.payload_type),
            };
            if carries {
                stream.repaired(u16::from_be_bytes([high, low]), now);
            }
        }
    }

    fn ask(&mut self, now: Instant) {
        for stream in &mut self.streams {
            let due = stream.due(now);
            if due.is_empty() {
                continue;
            }
            let nacks = nack_pairs_from_sequence_numbers(&due);
            let request = TransportLayerNack { sender_ssrc: self.sender_ssrc, media_ssrc: stream.ssrc, nacks };
            let message = AttributedPacket::new(Packet::Rtcp(vec![Box::new(request)]));
            self.outward.push_back(TaggedPacket { now, transport: TransportContext::default(), message });
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Requests {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(packet) = &message.message.packet {
            self.arrived(packet, message.now);
        }
        self.inward.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outward.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.ask(now);
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.streams.iter().filter_map(Stream::wakes).min()
    }
}

impl Interceptor for Requests {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _: &StreamInfo) {}

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        let repairs = info.rtcp_feedback.iter().any(|feedback| feedback.typ == "nack" && feedback.parameter.is_empty());
        if repairs && !self.streams.iter().any(|stream| stream.ssrc == info.ssrc) {
            let rtx = (info.ssrc_rtx, info.payload_type_rtx);
            self.streams.push(Stream { ssrc: info.ssrc, rtx, next: None, missing: BTreeMap::new(), answer: ANSWER });
        }
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.streams.retain(|stream| stream.ssrc != info.ssrc);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const SSRC: u32 = 7;
    const RTX: u32 = 8;

    struct Link {
        requests: Requests,
        zero: Instant,
    }

    impl Link {
        fn new(rtx: Option<u32>) -> Self {
            let mut requests = Requests::new();
            let nack = rtc::interceptor::RTCPFeedback { typ: "nack".into(), parameter: String::new() };
            requests.bind_remote_stream(&StreamInfo {
                ssrc: SSRC,
                ssrc_rtx: rtx,
                payload_type_rtx: Some(97),
                rtcp_feedback: vec![nack],
                ..StreamInfo::default()
            });
            Self { requests, zero: tokio::time::Instant::now().into_std() }
        }

        fn receive(&mut self, ms: u64, ssrc: u32, payload_type: u8, sequence_number: u16, payload: &[u8]) {
            let header = rtp::Header { version: 2, ssrc, payload_type, sequence_number, ..rtp::Header::default() };
            let packet = Packet::Rtp(rtp::Packet { header, payload: Bytes::copy_from_slice(payload) });
            let (now, transport) = (self.zero + Duration::from_millis(ms), TransportContext::default());
            self.requests.handle_read(TaggedPacket { now, transport, message: packet.into() }).expect("cannot fail");
            assert!(self.requests.poll_read().is_some(), "packets go on");
        }

        fn media(&mut self, ms: u64, sequence: u16) {
            self.receive(ms, SSRC, 96, sequence, &[1, 2, 3]);
        }

        /// What is asked for at this time.
        fn asked(&mut self, ms: u64) -> Vec<u16> {
            self.requests.handle_timeout(self.zero + Duration::from_millis(ms)).expect("cannot fail");
            let mut asked = Vec::new();
            while let Some(message) = self.requests.poll_write() {
                let Packet::Rtcp(packets) = &message.message.packet else { panic!("only requests") };
                let request = packets[0].as_any().downcast_ref::<TransportLayerNack>().expect("only requests");
                assert_eq!(request.media_ssrc, SSRC);
                asked.extend(request.nacks.iter().flat_map(|pair| pair.packet_list()));
            }
            asked
        }

        fn wakes(&mut self) -> Option<u64> {
            self.requests.poll_timeout().map(|at| at.duration_since(self.zero).as_millis() as u64)
        }
    }

    #[test]
    fn a_gap_is_asked_for_soon_and_again_until_it_is_filled_or_too_old() {
        let mut link = Link::new(Some(RTX));
        link.media(0, 65_534);
        link.media(10, 1);
        assert_eq!(link.wakes(), Some(18));
        assert_eq!(link.asked(17), [0_u16; 0]);
        assert_eq!(link.asked(18), [65_535, 0]);
        assert_eq!(link.asked(50), [0_u16; 0]);
        link.receive(60, RTX, 97, 1, &[0xff, 0xff, 9]);
        assert_eq!(link.asked(93), [0], "an answer takes 42 to 60 ms");
        assert_eq!(link.asked(200), [0]);
        assert_eq!(link.asked(410), [0_u16; 0], "nobody waits for it any more");
        assert_eq!(link.wakes(), None);
    }

    #[test]
    fn what_was_only_overtaken_is_not_asked_for() {
        let mut link = Link::new(None);
        link.media(0, 1);
        link.media(10, 3);
        link.media(12, 2);
        assert_eq!((link.asked(500), link.wakes()), (vec![], None));
    }

    #[test]
    fn repairs_without_a_named_stream_are_known_by_their_payload_type() {
        let mut link = Link::new(None);
        link.media(0, 1);
        link.media(10, 3);
        link.receive(11, 99, 98, 1, &[0, 2, 9]);
        link.receive(11, 99, 97, 1, &[0]);
        assert_eq!(link.asked(20), [2]);
        link.receive(30, 99, 97, 1, &[0, 2, 9]);
        assert_eq!(link.asked(200), [0_u16; 0]);
    }

    #[test]
    fn what_is_lost_in_masses_is_not_asked_for() {
        let mut link = Link::new(Some(RTX));
        link.media(0, 1);
        link.media(10, 1_000);
        assert_eq!(link.asked(100), [0_u16; 0]);
    }

    proptest! {
        /// Whatever arrives: only what is missing is asked for, seldom, and what is missing is bounded.
        #[test]
        fn only_what_is_missing_is_asked_for(
            start in any::<u16>(),
            lost in prop::collection::vec(prop::bool::weighted(0.2), 50..400),
        ) {
            let mut link = Link::new(Some(RTX));
            let mut times: BTreeMap<u16, u32> = BTreeMap::new();
            for (n, lost) in lost.iter().enumerate() {
                let sequence = start.wrapping_add(n as u16);
                if !lost {
                    link.media(n as u64 * 5, sequence);
                }
                for asked in link.asked(n as u64 * 5 + 1) {
                    let number = usize::from(asked.wrapping_sub(start));
                    *times.entry(asked).or_default() += 1;
                    prop_assert!(number < n);
                }
                prop_assert!(link.requests.streams[0].missing.len() <= MISSING_MAX);
            }
            for (sequence, times) in times {
                prop_assert!(lost[usize::from(sequence.wrapping_sub(start))], "{} was here", sequence);
                prop_assert!(times <= 16);
            }
        }
    }
}
