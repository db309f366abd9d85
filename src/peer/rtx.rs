//! Packets of a sent stream that may be sent again (RFC 4585 section 6.2.1, RFC 4588).
//!
//! Owns: [`RtxResponder`], the latest packets, and those that were requested and wait for the pacer: a full path that
//! loses packets is not filled with the lost ones again, and audio does not wait. A packet from before a keyframe that
//! began the stream anew is not sent again. Does not know: keys, sockets, what is in a packet. Pure: time is an
//! argument.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rtc::rtp;

use crate::tier::Pacer;
use crate::time::Timestamp;

/// Packets kept, which refer to payloads that all receivers share: about two seconds of the best tier.
const KEPT: usize = 512;
/// A packet is not sent again so long after its receiver could see that it was lost: no receiver waits for it.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Packets that left so long after another one belong to another frame, and show that the other one was lost. While the
/// picture is unchanged, that takes seconds.
const LATER: Duration = Duration::from_millis(100);
/// A repeated request that comes sooner after the retransmission crossed it on the path; the queue on the path is
/// added.
const REPEAT_MIN: Duration = Duration::from_millis(30);
/// Requested packets that wait; a later one would be too late.
const WAITING_MAX: usize = 128;

#[derive(Debug)]
struct Sent {
    /// As it was sent: without an RTX stream a packet is repeated with the very same bytes.
    header: rtp::Header,
    payload: Bytes,
    first: Timestamp,
    /// When it was last sent again.
    repeated: Option<Timestamp>,
}

/// What to send next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retransmission {
    /// Nothing waits.
    None,
    /// Nothing may leave before this time.
    Wait(Timestamp),
    /// This packet; where it goes by an RTX stream, the original sequence number stands before the payload.
    Packet { header: rtp::Header, original: Option<[u8; 2]>, payload: Bytes },
}

#[derive(Debug)]
pub(super) struct RtxResponder {
    /// SSRC, payload type and next sequence number of the RTX stream, where the client takes one.
    rtx: Option<(u32, u8, u16)>,
    /// With consecutive sequence numbers.
    sent: VecDeque<Sent>,
    waiting: VecDeque<u16>,
    /// The stream last began anew with this sequence number.
    begins: Option<u16>,
}

impl RtxResponder {
    /// `rtx` are the SSRC and the payload type of the RTX stream.
    pub(super) fn new(rtx: Option<(u32, u8)>) -> Self {
        Self {
            rtx: rtx.map(|(ssrc, payload_type)| (ssrc, payload_type, rand::random())),
            sent: VecDeque::with_capacity(KEPT),
            waiting: VecDeque::new(),
            begins: None,
        }
    }

    /// A packet leaves for the first time. `resumes`: it does not continue the one before, a keyframe begins.
    pub(super) fn sent(&mut self, header: &rtp::Header, payload: &Bytes, resumes: bool, now: Timestamp) {
        if resumes {
            self.begins = Some(header.sequence_number);
        }
        if self.sent.len() == KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { header: header.clone(), payload: payload.clone(), first: now, repeated: None });
    }

    /// The client requests these packets. `queue` is how long a packet waits on the path.
    pub(super) fn requested(&mut self, sequences: impl IntoIterator<Item = u16>, queue: Duration, now: Timestamp) {
        for sequence in sequences {
            let is_old = self.is_from_before(sequence);
            let Some(sent) = self.find_wanted(sequence, now) else { continue };
            let crossed = sent.repeated.is_some_and(|repeated| now.since(repeated) < REPEAT_MIN + queue);
            if !crossed && !is_old && !self.waiting.contains(&sequence) && self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(sequence);
            }
        }
    }

    /// The next packet to send again, as far as the pacer allows.
    pub(super) fn poll(&mut self, pacer: &mut Pacer, now: Timestamp) -> Retransmission {
        while let Some(sequence) = self.waiting.front().copied() {
            if let Some(wait) = pacer.wait_for_repair(now) {
                return Retransmission::Wait(now + wait);
            }
            self.waiting.pop_front();
            if self.is_from_before(sequence) {
                continue;
            }
            let Some(sent) = self.find_wanted(sequence, now) else { continue };
            sent.repeated = Some(now);
            let (header, payload) = (sent.header.clone(), sent.payload.clone());
            pacer.sent(payload.len());
            let Some((ssrc, payload_type, next)) = &mut self.rtx else {
                return Retransmission::Packet { header, original: None, payload };
            };
            let header = rtp::Header {
                version: 2,
                marker: header.marker,
                payload_type: *payload_type,
                sequence_number: *next,
                timestamp: header.timestamp,
                ssrc: *ssrc,
                ..rtp::Header::default()
            };
            *next = next.wrapping_add(1);
            return Retransmission::Packet { header, original: Some(sequence.to_be_bytes()), payload };
        }
        Retransmission::None
    }

    /// A packet that is kept and not too old.
    fn find_wanted(&mut self, sequence: u16, now: Timestamp) -> Option<&mut Sent> {
        let first = self.sent.front()?.header.sequence_number;
        let at = usize::from(sequence.wrapping_sub(first));
        let left = self.sent.get(at)?.first;
        let shown = self.sent.range(at..).map(|later| later.first).find(|later| later.since(left) > LATER);
        self.sent.get_mut(at).filter(|_| now.since(shown.unwrap_or(left)) <= AGE_MAX)
    }

    fn is_from_before(&self, sequence: u16) -> bool {
        self.begins.is_some_and(|begins| (sequence.wrapping_sub(begins) as i16) < 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: u32 = 7;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// A stream of twenty packets that ends with number 9, all of which left at 0 ms.
    fn sent(rtx: bool) -> (RtxResponder, Pacer) {
        let mut responder = RtxResponder::new(rtx.then_some((8, 97)));
        for number in 0..20_u16 {
            let sequence_number = number.wrapping_sub(10);
            let marker = number % 2 == 1;
            let header =
                rtp::Header { ssrc: SSRC, payload_type: 96, sequence_number, marker, ..rtp::Header::default() };
            responder.sent(&header, &Bytes::from(vec![number as u8; 100]), false, at(0));
        }
        (responder, Pacer::new(at(0)))
    }

    fn request(responder: &mut RtxResponder, pacer: &mut Pacer, sequences: &[u16], now: Timestamp) -> Vec<rtp::Packet> {
        let queue = pacer.queue();
        responder.requested(sequences.iter().copied(), queue, now);
        polled(responder, pacer, now)
    }

    fn polled(responder: &mut RtxResponder, pacer: &mut Pacer, now: Timestamp) -> Vec<rtp::Packet> {
        let mut packets = Vec::new();
        while let Retransmission::Packet { header, original, payload } = responder.poll(pacer, now) {
            let original = original.as_ref().map_or(&[][..], |original| &original[..]);
            packets.push(rtp::Packet { header, payload: [original, &payload[..]].concat().into() });
        }
        packets
    }

    #[test]
    fn a_retransmission_goes_by_the_rtx_stream_over_the_wrap_of_numbers() {
        let (mut responder, mut pacer) = sent(true);
        let packets = request(&mut responder, &mut pacer, &[65_530, 3], at(40));
        let seen: Vec<_> = packets.iter().map(|p| (p.header.ssrc, p.header.payload_type, &p.payload[..3])).collect();
        assert_eq!(seen, [(8, 97, &[0xff, 0xfa, 4][..]), (8, 97, &[0, 3, 13][..])]);
        assert_eq!(packets[1].header.sequence_number, packets[0].header.sequence_number.wrapping_add(1));
        assert_eq!((packets[0].header.version, packets[1].header.marker), (2, true));
        let (mut responder, mut pacer) = sent(false);
        let packets = request(&mut responder, &mut pacer, &[3], at(0));
        let header = &packets[0].header;
        assert_eq!((header.ssrc, header.payload_type, header.sequence_number), (SSRC, 96, 3));
    }

    #[test]
    fn a_request_that_crossed_the_retransmission_is_ignored() {
        let (mut responder, mut pacer) = sent(true);
        let mut count = |sequences: &[u16], ms| request(&mut responder, &mut pacer, sequences, at(ms)).len();
        assert_eq!(count(&[3], 5), 1, "the first request may come at once");
        assert_eq!(count(&[3, 4], 25), 1);
        assert_eq!(count(&[3, 4], 40), 1);
        assert_eq!(count(&[10, 30_000], 50), 0, "never sent");
        assert_eq!(count(&[5], 1_001), 0, "too old");
    }

    #[test]
    fn a_loss_that_shows_late_is_repaired() {
        let (mut responder, mut pacer) = sent(true);
        let header = rtp::Header { sequence_number: 10, ..rtp::Header::default() };
        responder.sent(&header, &Bytes::new(), false, at(2_500));
        assert_eq!(request(&mut responder, &mut pacer, &[8, 9], at(2_540)).len(), 2);
        assert_eq!(request(&mut responder, &mut pacer, &[7], at(3_501)).len(), 0, "too old");
    }

    #[test]
    fn packets_from_before_a_new_beginning_are_not_sent_again() {
        let (mut responder, mut pacer) = sent(true);
        responder.begins = Some(3);
        assert_eq!(request(&mut responder, &mut pacer, &[65_535, 2, 3, 4], at(0)).len(), 2);
        let header = rtp::Header { sequence_number: 10, ..rtp::Header::default() };
        responder.sent(&header, &Bytes::new(), true, at(10));
        assert_eq!(request(&mut responder, &mut pacer, &[5, 10], at(20)).len(), 1);
    }

    #[test]
    fn a_queue_on_the_path_delays_retransmissions() {
        let (mut responder, mut pacer) = sent(true);
        pacer.follow(Some(1_000_000), Duration::from_millis(200), at(0));
        assert_eq!(request(&mut responder, &mut pacer, &[3, 4], at(0)).len(), 0);
        assert_eq!(request(&mut responder, &mut pacer, &[3, 4], at(0)).len(), 0, "waiting already");
        assert!(matches!(responder.poll(&mut pacer, at(0)), Retransmission::Wait(until) if until > at(0)));
        assert_eq!(polled(&mut responder, &mut pacer, at(300)).len(), 2);
        assert_eq!(responder.poll(&mut pacer, at(300)), Retransmission::None);
    }

    #[test]
    fn packets_kept_and_waiting_are_bounded() {
        let (mut responder, mut pacer) = sent(true);
        for number in 10..2_000_u16 {
            let header = rtp::Header { sequence_number: number, ..rtp::Header::default() };
            responder.sent(&header, &Bytes::new(), false, at(500));
        }
        assert_eq!(responder.sent.len(), KEPT);
        pacer.hold_until(at(900));
        assert_eq!(request(&mut responder, &mut pacer, &(0..2_000).collect::<Vec<_>>(), at(500)).len(), 0);
        assert_eq!(responder.waiting.len(), WAITING_MAX);
    }
}
