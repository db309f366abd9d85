//! One stream to one viewer: its numbers, and what was sent lately, so that it can be sent again.
//!
//! Owns: the RTP packets' headers, the bounded history, how much may be repeated, what protects it. Does not know: keys, sockets, losses. Packets of the
//! fan-out go in; RTP in the clear comes out, in the caller's buffer. Time is an argument.

use std::time::Duration;

use bytes::Bytes;
use rtc::interceptor::FlexFec03Encoder;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp;
use rtc::shared::marshal::{Marshal, MarshalSize};

use super::super::description::Format;
use super::super::outgoing::Ssrcs;
use crate::fanout::{Contributors, Header, Rewriter};
use crate::media::{EncodedPacket, Kind};
use crate::time::Timestamp;
use crate::transport;

/// Packets kept to be sent again, which are only references to what all viewers share; a power of two. Over a second of the
/// best tier.
const KEPT: usize = 256;
/// The same packet is sent again at most this often: those who ask meanwhile have not heard of the last time.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Packets that may be sent again for each that is sent: what loses more than that is not helped by more packets.
const CREDIT: f32 = 0.25;
/// Most of them at once.
const CREDIT_MAX: f32 = 64.0;

/// A packet as it was sent.
#[derive(Debug, Clone)]
struct Kept {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Bytes,
    /// When it was last sent again.
    repeated: Option<Timestamp>,
}

/// What repairs a stream of video (RFC 4588).
#[derive(Debug)]
struct Repair {
    /// By sequence number modulo their count.
    kept: Vec<Option<Kept>>,
    credit: f32,
    /// Payload type and next sequence number of a stream for repairs, where there is one.
    separate: Option<(u8, u16)>,
}

/// Repair packets that nobody asks for: one for each group of so many (draft-ietf-payload-flexible-fec-scheme-03).
#[derive(Debug)]
struct Protected {
    encoder: FlexFec03Encoder,
    /// None while it does not pay.
    size: Option<usize>,
    group: Vec<rtp::Packet>,
}

#[derive(Debug)]
pub(super) struct Stream {
    format: Format,
    ssrc: u32,
    rewriter: Rewriter,
    repair: Option<Repair>,
    protected: Option<Protected>,
    /// Id of the extension that tells how loud those are who are heard.
    levels: Option<u8>,
    packets: u32,
    octets: u32,
    /// RTP time of the last packet, and when it left.
    last: Option<(u32, Timestamp)>,
}

impl Stream {
    /// `flexfec` is the payload type of repair packets that nobody asks for, where the viewer takes them.
    /// `levels` is the id of the extension that tells how loud those are who are heard.
    pub(super) fn new(format: &Format, flexfec: Option<u8>, levels: Option<u8>, ssrcs: Ssrcs) -> Self {
        let is_video = format.codec.kind() == Kind::Video;
        let ssrc = if is_video { ssrcs.video } else { ssrcs.audio };
        let header = Header {
            ssrc,
            payload_type: format.payload_type,
            sequence: rand::random(),
            timestamp_offset: rand::random(),
        };
        let protected = flexfec.filter(|_| is_video).map(|payload_type| Protected {
            encoder: FlexFec03Encoder::new(payload_type, Ssrcs::protection(ssrc))
                .with_base_sequence_number(rand::random()),
            size: None,
            group: Vec::new(),
        });
        let separate = format.rtx.map(|payload_type| (payload_type, rand::random()));
        Self {
            format: format.clone(),
            ssrc,
            rewriter: Rewriter::new(header, format.codec),
            repair: is_video.then(|| Repair { kept: vec![None; KEPT], credit: CREDIT_MAX, separate }),
            protected,
            levels,
            packets: 0,
            octets: 0,
            last: None,
        }
    }

    pub(super) fn format(&self) -> &Format {
        &self.format
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The next packet, written into the buffer. `resumes`: it does not continue the one before. `heard` are in it.
    pub(super) fn packet(
        &mut self,
        now: Timestamp,
        packet: &EncodedPacket,
        resumes: bool,
        heard: Option<&Contributors>,
        clear: &mut Vec<u8>,
    ) -> rtp::Header {
        let rtp::Packet { mut header, payload } = self.rewriter.rewrite(packet, resumes);
        if let Some(heard) = heard {
            heard.write(&mut header, self.levels);
        }
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        self.last = Some((header.timestamp, now));
        write(&header, &[&payload], clear);
        if let Some(protected) = self.protected.as_mut().filter(|protected| protected.size.is_some()) {
            protected.group.push(rtp::Packet { header: header.clone(), payload: payload.clone() });
        }
        if let Some(repair) = &mut self.repair {
            repair.credit = (repair.credit + CREDIT).min(CREDIT_MAX);
            repair.kept[usize::from(header.sequence_number) % KEPT] = Some(Kept {
                sequence: header.sequence_number,
                timestamp: header.timestamp,
                marker: header.marker,
                payload,
                repeated: None,
            });
        }
        header
    }

    /// From now on one repair packet for so many; None for none.
    pub(super) fn protect(&mut self, size: Option<usize>) {
        if let Some(protected) = &mut self.protected {
            protected.size = size;
            if size.is_none() {
                protected.group.clear();
            }
        }
    }

    /// The repair packet of a group that is complete, written into the buffer.
    pub(super) fn repair(&mut self, clear: &mut Vec<u8>) -> Option<rtp::Header> {
        let protected = self.protected.as_mut()?;
        protected.size.filter(|size| protected.group.len() >= *size)?;
        let repair = protected.encoder.encode(&protected.group, 1).pop();
        protected.group.clear();
        let rtp::Packet { header, payload } = repair?;
        write(&header, &[&payload], clear);
        Some(header)
    }

    /// A packet that was sent before, written into the buffer; None when it is not there any more, or was sent just now, or
    /// too much is asked for again.
    pub(super) fn again(&mut self, now: Timestamp, sequence: u16, clear: &mut Vec<u8>) -> Option<rtp::Header> {
        let repair = self.repair.as_mut()?;
        let kept = repair.kept[usize::from(sequence) % KEPT].as_mut().filter(|kept| kept.sequence == sequence)?;
        if repair.credit < 1.0 || kept.repeated.is_some_and(|repeated| now.since(repeated) < AGAIN_AFTER) {
            return None;
        }
        repair.credit -= 1.0;
        kept.repeated = Some(now);
        let mut header = rtp::Header {
            version: 2,
            marker: kept.marker,
            payload_type: self.format.payload_type,
            sequence_number: sequence,
            timestamp: kept.timestamp,
            ssrc: self.ssrc,
            ..rtp::Header::default()
        };
        match &mut repair.separate {
            Some((payload_type, next)) => {
                (header.payload_type, header.sequence_number) = (*payload_type, *next);
                header.ssrc = Ssrcs::repair(self.ssrc);
                *next = next.wrapping_add(1);
                write(&header, &[&sequence.to_be_bytes(), &kept.payload], clear);
            }
            None => write(&header, &[&kept.payload], clear),
        }
        Some(header)
    }

    /// Says how RTP time and our clock belong together; None before the first packet.
    pub(super) fn report(&self, now: Timestamp) -> Option<SenderReport> {
        let (timestamp, sent) = self.last?;
        let passed = now.since(sent).as_micros() * u128::from(self.format.codec.clock_rate()) / 1_000_000;
        Some(SenderReport {
            ssrc: self.ssrc,
            ntp_time: transport::ntp(now),
            rtp_time: timestamp.wrapping_add(passed as u32),
            packet_count: self.packets,
            octet_count: self.octets,
            ..SenderReport::default()
        })
    }
}

/// Puts a packet together in the buffer, in place of what was there.
fn write(header: &rtp::Header, payload: &[&[u8]], clear: &mut Vec<u8>) {
    clear.clear();
    clear.resize(header.marshal_size(), 0);
    header.marshal_to(clear).expect("the buffer has its size");
    payload.iter().for_each(|part| clear.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use rtc::interceptor::FlexFec03Decoder;
    use rtc::shared::marshal::Unmarshal;

    use super::*;
    use crate::media::Codec;

    fn stream(rtx: Option<u8>) -> Stream {
        let format = Format { codec: Codec::Vp8, payload_type: 96, channels: 0, parameters: String::new(), rtx };
        Stream::new(&format, Some(49), None, Ssrcs { audio: 10, video: 20 })
    }

    fn packet(timestamp: u32) -> EncodedPacket {
        let payload = Bytes::copy_from_slice(&timestamp.to_be_bytes());
        EncodedPacket { timestamp, marker: true, starts_keyframe: false, payload }
    }

    fn read(clear: &[u8]) -> rtp::Packet {
        rtp::Packet::unmarshal(&mut Bytes::copy_from_slice(clear)).expect("RTP")
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    #[test]
    fn a_packet_is_repeated_with_the_number_it_had() {
        for rtx in [Some(97), None] {
            let (mut stream, mut clear) = (stream(rtx), Vec::new());
            let sent: Vec<rtp::Packet> = (0..10)
                .map(|n| {
                    stream.packet(at(n), &packet(n as u32), false, None, &mut clear);
                    read(&clear)
                })
                .collect();
            let lost = &sent[4];
            let header = stream.again(at(100), lost.header.sequence_number, &mut clear).expect("it is kept");
            let again = read(&clear);
            assert_eq!(again.header, header);
            assert_eq!((again.header.timestamp, again.header.marker), (lost.header.timestamp, true));
            if rtx.is_some() {
                assert_eq!((again.header.ssrc, again.header.payload_type), (21, 97));
                assert_eq!(again.payload[..2], lost.header.sequence_number.to_be_bytes());
                assert_eq!(again.payload[2..], lost.payload);
            } else {
                assert_eq!(again, *lost);
            }
        }
    }

    #[test]
    fn one_lost_packet_of_a_group_comes_back_without_asking() {
        for lost in 0..4 {
            let (mut stream, mut clear) = (stream(None), Vec::new());
            let mut decoder = FlexFec03Decoder::new(22, 20);
            stream.packet(at(0), &packet(0), false, None, &mut clear);
            assert_eq!(stream.repair(&mut clear), None, "not wanted yet");
            stream.protect(Some(4));
            let mut sent = Vec::new();
            let mut back = Vec::new();
            for n in 0..4 {
                assert_eq!(stream.repair(&mut clear), None, "the group is not complete");
                stream.packet(at(n), &packet(n as u32 * 3_000), false, None, &mut clear);
                sent.push(read(&clear));
                if n != lost {
                    back.extend(decoder.decode(read(&clear)));
                }
            }
            let header = stream.repair(&mut clear).expect("the group is complete");
            assert_eq!((header.ssrc, header.payload_type), (22, 49));
            back.extend(decoder.decode(read(&clear)));
            assert_eq!(back, [sent[lost as usize].clone()]);
            assert_eq!(stream.repair(&mut clear), None, "once");
        }
    }

    #[test]
    fn repeats_are_bounded() {
        let (mut stream, mut clear) = (stream(Some(97)), Vec::new());
        let first = stream.packet(at(0), &packet(0), false, None, &mut clear).sequence_number;
        assert!(stream.again(at(1), first, &mut clear).is_some());
        assert!(stream.again(at(2), first, &mut clear).is_none(), "it is still on its way");
        assert!(stream.again(at(100), first.wrapping_add(1), &mut clear).is_none(), "never sent");
        for n in 1..=KEPT as u32 {
            stream.packet(at(100), &packet(n), false, None, &mut clear);
        }
        assert!(stream.again(at(200), first, &mut clear).is_none(), "too long ago");
        // The one before has been earned again.
        let all = (1..=KEPT as u16).filter(|n| stream.again(at(200), first.wrapping_add(*n), &mut clear).is_some());
        assert_eq!(all.count(), CREDIT_MAX as usize);
        assert_eq!(stream.report(at(1_100)).expect("begun").packet_count, KEPT as u32 + 1);
    }

    #[test]
    fn a_report_goes_on_from_the_last_packet() {
        let (mut stream, mut clear) = (stream(None), Vec::new());
        assert!(stream.report(at(0)).is_none());
        let last = stream.packet(at(500), &packet(7), false, None, &mut clear).timestamp;
        let report = stream.report(at(1_500)).expect("begun");
        assert_eq!(report.rtp_time.wrapping_sub(last), 90_000);
        assert_eq!((report.ssrc, report.packet_count, report.octet_count), (20, 1, 4));
    }
}
