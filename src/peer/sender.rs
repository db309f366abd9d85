//! One RTP stream to one client.
//!
//! Owns: its headers, its retransmissions ([`RtxResponder`]), its FEC packets, its sender reports. Does not know: keys,
//! sockets, when something may leave. Packets of the fan-out go in; headers and payloads for the wire come out. Pure:
//! time is an argument.

use std::time::Duration;

use bytes::Bytes;
use rtc::interceptor::FlexFec03Encoder;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp;

use super::description::Format;
use super::extensions::ExtensionIds;
use super::rtx::{Retransmission, RtxResponder};
use super::ssrcs::Ssrcs;
use crate::fanout::{Contributors, Header, Rewriter};
use crate::media::{EncodedPacket, Kind};
use crate::tier::Pacer;
use crate::time::Timestamp;
use crate::transport;

/// FEC packets that nobody requests: one for each group (draft-ietf-payload-flexible-fec-scheme-03).
struct Fec {
    encoder: FlexFec03Encoder,
    /// Packets of a group; None while FEC does not pay.
    group_size: Option<usize>,
    group: Vec<rtp::Packet>,
}

pub(super) struct SendStream {
    format: Format,
    ssrc: u32,
    rewriter: Rewriter,
    rtx: Option<RtxResponder>,
    fec: Option<Fec>,
    extensions: ExtensionIds,
    packets: u32,
    octets: u32,
    /// RTP timestamp of the last packet, and when it left.
    last: Option<(u32, Timestamp)>,
}

impl SendStream {
    /// `fec` is the payload type of FlexFEC, where the client takes it.
    pub(super) fn new(format: &Format, fec: Option<u8>, extensions: ExtensionIds, ssrcs: Ssrcs) -> Self {
        let is_video = format.codec.kind() == Kind::Video;
        let ssrc = if is_video { ssrcs.video } else { ssrcs.audio };
        let header = Header {
            ssrc,
            payload_type: format.payload_type,
            sequence: rand::random(),
            timestamp_offset: rand::random(),
        };
        let fec = fec.filter(|_| is_video).map(|payload_type| Fec {
            encoder: FlexFec03Encoder::new(payload_type, Ssrcs::fec(ssrc)).with_base_sequence_number(rand::random()),
            group_size: None,
            group: Vec::new(),
        });
        let rtx = format.rtx.map(|payload_type| (Ssrcs::rtx(ssrc), payload_type));
        Self {
            format: format.clone(),
            ssrc,
            rewriter: Rewriter::new(header, format.codec),
            rtx: is_video.then(|| RtxResponder::new(rtx)),
            fec,
            extensions,
            packets: 0,
            octets: 0,
            last: None,
        }
    }

    /// Another offer has these ids; the stream goes on.
    pub(super) fn set_extensions(&mut self, extensions: ExtensionIds) {
        self.extensions = extensions;
    }

    pub(super) fn format(&self) -> &Format {
        &self.format
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The next packet. `resumes`: it does not continue the one before. `contributors` are the sources of a mix,
    /// `transport_sequence` its transport-wide sequence number, where that is agreed upon.
    pub(super) fn packet(
        &mut self,
        packet: &EncodedPacket,
        resumes: bool,
        contributors: Option<&Contributors>,
        transport_sequence: u16,
        now: Timestamp,
    ) -> rtp::Packet {
        let mut packet = self.rewriter.rewrite(packet, resumes);
        if let Some(contributors) = contributors {
            contributors.write(&mut packet.header, self.extensions.mixer_to_client_level);
        }
        self.number(&mut packet.header, transport_sequence);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        self.last = Some((packet.header.timestamp, now));
        if let Some(rtx) = &mut self.rtx {
            rtx.sent(&packet.header, &packet.payload, resumes, now);
        }
        if let Some(fec) = self.fec.as_mut().filter(|fec| fec.group_size.is_some()) {
            fec.group.push(packet.clone());
        }
        packet
    }

    /// From now on one FEC packet for so many packets; None for none.
    pub(super) fn protect(&mut self, group_size: Option<usize>) {
        if let Some(fec) = &mut self.fec {
            fec.group_size = group_size;
            if group_size.is_none() {
                fec.group.clear();
            }
        }
    }

    /// The FEC packet of a group that is complete.
    pub(super) fn fec_packet(&mut self, transport_sequence: u16) -> Option<rtp::Packet> {
        let fec = self.fec.as_mut()?;
        fec.group_size.filter(|size| fec.group.len() >= *size)?;
        let packet = fec.encoder.encode(&fec.group, 1).pop();
        fec.group.clear();
        let mut packet = packet?;
        self.number(&mut packet.header, transport_sequence);
        Some(packet)
    }

    /// The client requests packets again; `queue` is how long a packet waits on the path.
    pub(super) fn requested(&mut self, sequences: impl IntoIterator<Item = u16>, queue: Duration, now: Timestamp) {
        if let Some(rtx) = &mut self.rtx {
            rtx.requested(sequences, queue, now);
        }
    }

    /// The next retransmission, as far as the pacer allows.
    pub(super) fn retransmission(
        &mut self,
        pacer: &mut Pacer,
        transport_sequence: u16,
        now: Timestamp,
    ) -> Retransmission {
        let mut next = self.rtx.as_mut().map_or(Retransmission::None, |rtx| rtx.poll(pacer, now));
        if let Retransmission::Packet { header, original: Some(_), .. } = &mut next {
            self.number(header, transport_sequence);
        }
        next
    }

    /// Writes the transport-wide sequence number.
    fn number(&self, header: &mut rtp::Header, transport_sequence: u16) {
        if let Some(id) = self.extensions.transport_cc {
            let bytes = Bytes::copy_from_slice(&transport_sequence.to_be_bytes());
            header.set_extension(id, bytes).expect("two bytes fit into an extension with a header of one byte");
        }
    }

    /// How RTP time and NTP time belong together (RFC 3550 section 6.4.1); None before the first packet.
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

#[cfg(test)]
mod tests {
    use rtc::interceptor::FlexFec03Decoder;

    use super::*;
    use crate::media::Codec;

    fn stream(fec: Option<u8>) -> SendStream {
        let parameters = String::new();
        let format = Format { codec: Codec::Vp8, payload_type: 96, channels: 1, parameters, rtx: Some(97) };
        let extensions = ExtensionIds { transport_cc: Some(3), ..ExtensionIds::default() };
        SendStream::new(&format, fec, extensions, Ssrcs { audio: 10, video: 20 })
    }

    fn packet(timestamp: u32) -> EncodedPacket {
        let payload = Bytes::copy_from_slice(&timestamp.to_be_bytes());
        EncodedPacket { timestamp, marker: true, starts_keyframe: false, payload }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    #[test]
    fn one_lost_packet_of_a_group_is_recovered_without_a_request() {
        for lost in 0..4 {
            let mut stream = stream(Some(49));
            let mut decoder = FlexFec03Decoder::new(22, 20);
            stream.packet(&packet(0), false, None, 0, at(0));
            assert_eq!(stream.fec_packet(1), None, "FEC does not pay yet");
            stream.protect(Some(4));
            let (mut sent, mut recovered) = (Vec::new(), Vec::new());
            for n in 0..4 {
                assert_eq!(stream.fec_packet(9), None, "the group is not complete");
                sent.push(stream.packet(&packet(n as u32 * 3_000), false, None, n + 1, at(n.into())));
                if n != lost {
                    recovered.extend(decoder.decode(sent[usize::from(n)].clone()));
                }
            }
            let fec = stream.fec_packet(5).expect("the group is complete");
            assert_eq!((fec.header.ssrc, fec.header.payload_type), (22, 49));
            assert_eq!(fec.header.get_extension(3).as_deref(), Some(&[0, 5][..]));
            recovered.extend(decoder.decode(fec));
            assert_eq!(recovered, [sent[usize::from(lost)].clone()]);
            assert_eq!(stream.fec_packet(6), None, "once");
        }
    }

    #[test]
    fn packets_and_retransmissions_have_transport_wide_sequence_numbers() {
        let mut stream = stream(None);
        let first = stream.packet(&packet(0), true, None, 7, at(0)).header;
        assert_eq!(first.get_extension(3).as_deref(), Some(&[0, 7][..]));
        stream.requested([first.sequence_number], Duration::ZERO, at(50));
        let again = stream.retransmission(&mut Pacer::new(at(50)), 8, at(50));
        let Retransmission::Packet { header, original, .. } = again else { panic!("{again:?}") };
        assert_eq!((header.ssrc, header.payload_type, original), (21, 97, Some(first.sequence_number.to_be_bytes())));
        assert_eq!(header.get_extension(3).as_deref(), Some(&[0, 8][..]));
    }

    #[test]
    fn without_an_rtx_stream_a_packet_is_repeated_with_the_very_same_bytes() {
        let parameters = String::new();
        let format = Format { codec: Codec::Vp8, payload_type: 96, channels: 1, parameters, rtx: None };
        let extensions = ExtensionIds { transport_cc: Some(3), ..ExtensionIds::default() };
        let mut stream = SendStream::new(&format, None, extensions, Ssrcs { audio: 10, video: 20 });
        let first = stream.packet(&packet(0), true, None, 7, at(0));
        stream.requested([first.header.sequence_number], Duration::ZERO, at(50));
        let again = stream.retransmission(&mut Pacer::new(at(50)), 8, at(50));
        let expected = Retransmission::Packet { header: first.header, original: None, payload: first.payload };
        assert_eq!(again, expected);
    }

    #[test]
    fn a_sender_report_continues_from_the_last_packet() {
        let mut stream = stream(None);
        assert!(stream.report(at(0)).is_none());
        let last = stream.packet(&packet(7), false, None, 0, at(500)).header.timestamp;
        let report = stream.report(at(1_500)).expect("a packet was sent");
        assert_eq!(report.rtp_time.wrapping_sub(last), 90_000);
        assert_eq!((report.ssrc, report.packet_count, report.octet_count), (20, 1, 4));
    }
}
