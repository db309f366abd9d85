//! What a peer has lost of our video, sent again (RFC 4585 section 6.2.1, RFC 4588).
//!
//! Owns: [`Repairs`], an interceptor with the packets sent of late. It answers requests, once in the time an answer takes,
//! and draws on the pacer: a full link that loses packets is not filled with the lost ones again, and the voice does not
//! wait. What was sent before the stream last began anew is not sent again: a keyframe has come since. Does not know: what
//! is in a packet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rtc::interceptor::{Attribute, AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::rtp;
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;

use crate::tier::Pacer;
use crate::time;

/// Packets kept: about two seconds of the best tier.
const KEPT: usize = 512;
/// A packet that left so long ago is not worth sending any more.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Nobody can miss a repair sooner than this after it was sent, the queue on the way not counted.
const AGAIN: Duration = Duration::from_millis(30);
/// Repairs that wait to leave; more are too late anyway.
const DUE_MAX: usize = 128;

/// Where a stream last began anew, as its first sequence number; written by the peer's writer.
#[derive(Debug)]
pub(super) struct Beginning(AtomicU32);

impl Default for Beginning {
    fn default() -> Self {
        Self(AtomicU32::new(Self::NONE))
    }
}

impl Beginning {
    /// Stands for "nothing has begun yet" beside 16-bit numbers.
    const NONE: u32 = u32::MAX;

    /// The stream begins anew with this number.
    pub(super) fn set(&self, sequence: u16) {
        self.0.store(sequence.into(), Ordering::Relaxed);
    }

    fn is_after(&self, sequence: u16) -> bool {
        let begins = self.0.load(Ordering::Relaxed);
        begins != Self::NONE && (sequence.wrapping_sub(begins as u16)) as i16 <= -1
    }
}

/// The interceptor, for the one stream of a peer that can be repaired.
pub(super) struct Repairs {
    pacer: Arc<Mutex<Pacer>>,
    beginning: Arc<Beginning>,
    stream: Option<Stream>,
    /// The next number in the stream that carries repairs; it goes on when the stream is agreed upon again.
    sequence: u16,
    /// Sequence numbers that are to be sent again.
    due: VecDeque<u16>,
    wakes: Option<Instant>,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

struct Stream {
    ssrc: u32,
    /// SSRC and payload type of the stream that carries repairs, where the peer takes one.
    rtx: Option<(u32, u8)>,
    sent: VecDeque<Sent>,
}

struct Sent {
    packet: rtp::Packet,
    first: Instant,
    last: Instant,
}

impl Stream {
    fn find(&mut self, sequence: u16) -> Option<&mut Sent> {
        let at = self.sent.binary_search_by_key(&0, |sent| {
            i32::from(sent.packet.header.sequence_number.wrapping_sub(sequence) as i16)
        });
        self.sent.get_mut(at.ok()?)
    }

    fn keep(&mut self, packet: &rtp::Packet, now: Instant) {
        let step = |last: &Sent| packet.header.sequence_number.wrapping_sub(last.packet.header.sequence_number);
        if self.sent.back().is_some_and(|last| step(last) != 1) {
            // Not what the writer does; nothing is found by number any more.
            self.sent.clear();
        }
        if self.sent.len() == KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { packet: packet.clone(), first: now, last: now });
    }
}

impl Repairs {
    pub(super) fn new(pacer: Arc<Mutex<Pacer>>, beginning: Arc<Beginning>) -> Self {
        Self {
            pacer,
            beginning,
            stream: None,
            sequence: rand::random(),
            due: VecDeque::new(),
            wakes: None,
            inward: VecDeque::new(),
            outward: VecDeque::new(),
        }
    }

    fn requested(&mut self, request: &TransportLayerNack, now: Instant) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.ssrc == request.media_ssrc) else { return };
        let again = AGAIN + self.pacer.lock().queue();
        for sequence in request.nacks.iter().flat_map(|pair| pair.packet_list()) {
            let Some(sent) = stream.find(sequence) else { continue };
            let early = sent.last > sent.first && now.saturating_duration_since(sent.last) < again;
            let old = now.saturating_duration_since(sent.first) > AGE_MAX || self.beginning.is_after(sequence);
            if !early && !old && !self.due.contains(&sequence) && self.due.len() < DUE_MAX {
                self.due.push_back(sequence);
            }
        }
    }

    /// Sends what is due, as far as the pacer allows.
    fn repair(&mut self, now: Instant) {
        self.wakes = None;
        let Some(stream) = &mut self.stream else { return };
        while let Some(sequence) = self.due.front().copied() {
            let mut pacer = self.pacer.lock();
            if let Some(wait) = pacer.wait_for_repair(time::now()) {
                self.wakes = Some(now + wait);
                return;
            }
            self.due.pop_front();
            let old = |sent: &Sent| now.saturating_duration_since(sent.first) > AGE_MAX;
            let Some(sent) = stream.find(sequence).filter(|sent| !old(sent)) else { continue };
            if self.beginning.is_after(sequence) {
                continue;
            }
            // The first repair leaves later than the packet did, however soon.
            sent.last = now.max(sent.first + Duration::from_nanos(1));
            let packet = sent.packet.clone();
            pacer.sent(packet.payload.len());
            let packet = match stream.rtx {
                Some(rtx) => repaired(packet, rtx, &mut self.sequence),
                None => packet,
            };
            let message = AttributedPacket::new(Packet::Rtp(packet)).with(Attribute::Retransmission);
            self.outward.push_back(TaggedPacket { now, transport: TransportContext::default(), message });
        }
    }
}

/// The packet in the stream for repairs: its own number goes ahead of the payload (RFC 4588 section 4).
fn repaired(packet: rtp::Packet, (ssrc, payload_type): (u32, u8), sequence: &mut u16) -> rtp::Packet {
    let mut payload = Vec::with_capacity(2 + packet.payload.len());
    payload.extend_from_slice(&packet.header.sequence_number.to_be_bytes());
    payload.extend_from_slice(&packet.payload);
    let header = rtp::Header {
        version: 2,
        marker: packet.header.marker,
        payload_type,
        sequence_number: *sequence,
        timestamp: packet.header.timestamp,
        ssrc,
        ..rtp::Header::default()
    };
    *sequence = sequence.wrapping_add(1);
    rtp::Packet { header, payload: payload.into() }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Repairs {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            for packet in packets {
                if let Some(request) = packet.as_any().downcast_ref::<TransportLayerNack>() {
                    self.requested(request, message.now);
                    self.repair(message.now);
                }
            }
        }
        self.inward.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(packet) = &message.message.packet
            && let Some(stream) = self.stream.as_mut().filter(|stream| stream.ssrc == packet.header.ssrc)
        {
            stream.keep(packet, message.now);
        }
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outward.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.wakes.is_some_and(|wakes| wakes <= now) {
            self.repair(now);
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.wakes
    }
}

impl Interceptor for Repairs {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        if info.rtcp_feedback.iter().any(|feedback| feedback.typ == "nack" && feedback.parameter.is_empty()) {
            let rtx = info.ssrc_rtx.zip(info.payload_type_rtx);
            self.stream = Some(Stream { ssrc: info.ssrc, rtx, sent: VecDeque::new() });
        }
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.stream = self.stream.take().filter(|stream| stream.ssrc != info.ssrc);
    }

    fn bind_remote_stream(&mut self, _: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

/// An interceptor that takes the stream which carries a stream's repairs for one of its own: they take their part of the
/// way, and are lost on it like everything else.
pub(super) struct WithRepairs<I>(pub(super) I);

impl<I: Interceptor> Protocol<TaggedPacket, TaggedPacket, ()> for WithRepairs<I> {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.0.handle_read(message)
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.0.poll_read()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.0.handle_write(message)
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.0.poll_write()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.0.handle_timeout(now)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}

impl<I: Interceptor> Interceptor for WithRepairs<I> {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        self.0.bind_local_stream(info);
        if let Some(ssrc) = info.ssrc_rtx {
            self.0.bind_local_stream(&StreamInfo { ssrc, ssrc_rtx: None, ..info.clone() });
        }
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.0.unbind_local_stream(info);
        if let Some(ssrc) = info.ssrc_rtx {
            self.0.unbind_local_stream(&StreamInfo { ssrc, ssrc_rtx: None, ..info.clone() });
        }
    }

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        self.0.bind_remote_stream(info);
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.0.unbind_remote_stream(info);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::nack_pairs_from_sequence_numbers;

    use super::*;

    const SSRC: u32 = 7;

    /// Repairs of a stream of packets ending with number 9, and the moment all of them left.
    fn sent(rtx: bool) -> (Repairs, Arc<Mutex<Pacer>>, Arc<Beginning>, Instant) {
        let (pacer, beginning) = (Arc::new(Mutex::new(Pacer::new(time::now()))), Arc::new(Beginning::default()));
        let mut repairs = Repairs::new(Arc::clone(&pacer), Arc::clone(&beginning));
        let nack = rtc::interceptor::RTCPFeedback { typ: "nack".into(), parameter: String::new() };
        repairs.bind_local_stream(&StreamInfo {
            ssrc: SSRC,
            ssrc_rtx: rtx.then_some(8),
            payload_type_rtx: rtx.then_some(97),
            rtcp_feedback: vec![nack],
            ..StreamInfo::default()
        });
        let now = tokio::time::Instant::now().into_std();
        for number in 0..20_u16 {
            let header = rtp::Header {
                version: 2,
                ssrc: SSRC,
                payload_type: 96,
                sequence_number: number.wrapping_sub(10),
                ..rtp::Header::default()
            };
            let packet = Packet::Rtp(rtp::Packet { header, payload: Bytes::from(vec![number as u8; 100]) });
            let transport = TransportContext::default();
            repairs.handle_write(TaggedPacket { now, transport, message: packet.into() }).expect("cannot fail");
            repairs.poll_write();
        }
        (repairs, pacer, beginning, now)
    }

    fn ask(repairs: &mut Repairs, sequences: &[u16], now: Instant) -> Vec<rtp::Packet> {
        let nacks = nack_pairs_from_sequence_numbers(sequences);
        let request = TransportLayerNack { sender_ssrc: 1, media_ssrc: SSRC, nacks };
        let message = AttributedPacket::new(Packet::Rtcp(vec![Box::new(request)]));
        let transport = TransportContext::default();
        repairs.handle_read(TaggedPacket { now, transport, message }).expect("cannot fail");
        answers(repairs)
    }

    fn answers(repairs: &mut Repairs) -> Vec<rtp::Packet> {
        std::iter::from_fn(|| repairs.poll_write())
            .map(|message| match message.message.packet {
                Packet::Rtp(packet) => packet,
                _ => panic!("nothing but repairs"),
            })
            .collect()
    }

    #[test]
    fn a_repair_goes_by_a_stream_of_its_own_over_the_wrap_of_numbers() {
        let (mut repairs, .., now) = sent(true);
        let answers = ask(&mut repairs, &[65_530, 3], now + Duration::from_millis(40));
        let told: Vec<_> = answers.iter().map(|p| (p.header.ssrc, p.header.payload_type, &p.payload[..3])).collect();
        assert_eq!(told, [(8, 97, &[0xff, 0xfa, 4][..]), (8, 97, &[0, 3, 13][..])]);
        assert_eq!(answers[1].header.sequence_number, answers[0].header.sequence_number.wrapping_add(1));
        assert_eq!(answers[0].header.version, 2);
        let (mut repairs, .., now) = sent(false);
        let answers = ask(&mut repairs, &[3], now);
        assert_eq!((answers[0].header.ssrc, answers[0].header.sequence_number), (SSRC, 3));
    }

    #[test]
    fn what_is_asked_for_again_too_soon_was_not_missed() {
        let (mut repairs, .., now) = sent(true);
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(ask(&mut repairs, &[3], at(5)).len(), 1, "the first request may come at once");
        assert_eq!(ask(&mut repairs, &[3, 4], at(25)).len(), 1);
        assert_eq!(ask(&mut repairs, &[3, 4], at(40)).len(), 1);
        assert_eq!(ask(&mut repairs, &[5], at(1_001)).len(), 0, "too old");
        assert_eq!(ask(&mut repairs, &[10, 30_000], at(50)).len(), 0, "never sent");
    }

    #[test]
    fn nothing_from_before_a_new_beginning_is_repaired() {
        let (mut repairs, _, beginning, now) = sent(true);
        beginning.set(3);
        assert_eq!(ask(&mut repairs, &[65_535, 2, 3, 4], now).len(), 2);
    }

    #[test]
    fn a_queue_on_the_way_holds_repairs_too_and_they_leave_afterwards() {
        let (mut repairs, pacer, _, now) = sent(true);
        pacer.lock().follow(Some(1_000_000), Duration::from_millis(200), time::now());
        assert_eq!(ask(&mut repairs, &[3, 4], now).len(), 0);
        assert_eq!(ask(&mut repairs, &[3, 4], now).len(), 0, "waiting already");
        assert!(repairs.poll_timeout().is_some_and(|wakes| wakes > now));
        *pacer.lock() = Pacer::new(time::now());
        repairs.handle_timeout(now + Duration::from_millis(300)).expect("cannot fail");
        assert_eq!(answers(&mut repairs).len(), 2);
        assert_eq!(repairs.poll_timeout(), None);
    }
}
