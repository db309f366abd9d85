//! A sent RTP stream: RTP headers for payloads, and a history for retransmissions.
//!
//! Owns: sequence numbers, timestamps, header extensions and counts of one stream. Does not know: SRTP, sockets,
//! codecs. Payloads go in, unencrypted RTP packets come out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp::packet::Packet;
use rtc::rtp::{Header, header};
use rtc::shared::error::Error;
use rtc::shared::marshal::Marshal;

use super::description::{AUDIO_LEVEL, TRANSPORT_SEQUENCE};
use crate::time::Timestamp;
use crate::transport;

/// Packets in the history: two seconds of video at 2.5 Mbit/s.
const HISTORY: usize = 512;

/// Which header extensions the server accepts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extensions {
    /// The audio level (RFC 6464).
    pub(crate) audio_level: bool,
    /// The transport-wide sequence number (TWCC).
    pub(crate) transport_sequence: bool,
}

/// One sent stream.
#[derive(Debug)]
pub(crate) struct SendStream {
    payload_type: u8,
    ssrc: u32,
    clock_rate: u32,
    extensions: Extensions,
    /// Sequence number of the next packet.
    sequence: u16,
    /// RTP timestamp of `epoch`; random (RFC 3550 section 5.1).
    offset: u32,
    /// The time from which media times count.
    epoch: Timestamp,
    /// Packets sent, without retransmissions.
    packets: u32,
    /// Payload bytes of these packets.
    octets: u32,
    /// The last sent packets, without transport-wide sequence numbers.
    history: VecDeque<Packet>,
}

impl SendStream {
    pub(crate) fn new(payload_type: u8, ssrc: u32, clock_rate: u32, extensions: Extensions, epoch: Timestamp) -> Self {
        Self {
            payload_type,
            ssrc,
            clock_rate,
            extensions,
            sequence: rand::random(),
            offset: rand::random(),
            epoch,
            packets: 0,
            octets: 0,
            history: VecDeque::new(),
        }
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets sent, without retransmissions.
    pub(crate) fn packets(&self) -> u64 {
        self.packets.into()
    }

    /// The RTP timestamp of a media time.
    fn rtp_time(&self, media_time: Duration) -> u32 {
        self.offset.wrapping_add((media_time.as_micros() * u128::from(self.clock_rate) / 1_000_000) as u32)
    }

    /// The next packet. `media_time` counts from the epoch. `level` is the audio level in -dBov, if it is known.
    /// `transport_sequence` is the next transport-wide sequence number; the packet takes it if the extension is in use.
    pub(crate) fn packet(
        &mut self,
        payload: Bytes,
        media_time: Duration,
        marker: bool,
        level: Option<u8>,
        transport_sequence: &mut u16,
    ) -> Result<BytesMut, Error> {
        let header = Header {
            version: 2,
            marker,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.rtp_time(media_time),
            ssrc: self.ssrc,
            extension_profile: header::EXTENSION_PROFILE_ONE_BYTE,
            ..Header::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        let mut packet = Packet { header, payload };
        if let Some(level) = level.filter(|_| self.extensions.audio_level) {
            // The highest bit is the flag V (voice activity), which is always set.
            packet.header.set_extension(AUDIO_LEVEL, Bytes::copy_from_slice(&[0x80 | level]))?;
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(packet.clone());
        self.finish(packet, transport_sequence)
    }

    /// A packet of the history again, with its original SSRC and sequence number instead of RTX (RFC 4588), but with a
    /// new transport-wide sequence number. None if it is no longer in the history.
    pub(crate) fn retransmission(&self, sequence: u16, transport_sequence: &mut u16) -> Option<BytesMut> {
        let sent = self.history.iter().find(|packet| packet.header.sequence_number == sequence)?;
        self.finish(sent.clone(), transport_sequence).ok()
    }

    /// Adds the transport-wide sequence number, and serializes the packet.
    fn finish(&self, mut packet: Packet, transport_sequence: &mut u16) -> Result<BytesMut, Error> {
        if self.extensions.transport_sequence {
            packet
                .header
                .set_extension(TRANSPORT_SEQUENCE, Bytes::copy_from_slice(&transport_sequence.to_be_bytes()))?;
            *transport_sequence = transport_sequence.wrapping_add(1);
        }
        packet.marshal()
    }

    /// The RTCP sender report: maps the RTP timestamp of now to NTP time, and counts packets and payload bytes.
    pub(crate) fn report(&self, now: Timestamp) -> SenderReport {
        SenderReport {
            ssrc: self.ssrc,
            ntp_time: transport::ntp(now),
            rtp_time: self.rtp_time(now.since(self.epoch)),
            packet_count: self.packets,
            octet_count: self.octets,
            ..SenderReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::shared::marshal::Unmarshal;

    use super::*;

    fn stream(extensions: Extensions) -> SendStream {
        SendStream::new(96, 7, 90_000, extensions, Timestamp::from_micros(0))
    }

    fn read(mut bytes: BytesMut) -> Packet {
        Packet::unmarshal(&mut bytes).expect("a packet")
    }

    #[test]
    fn sequence_numbers_and_timestamps_follow_the_packets() {
        let mut stream = stream(Extensions { audio_level: true, transport_sequence: true });
        stream.sequence = 65_535;
        let mut number = 3;
        let mut next = |after, level| {
            let payload = Bytes::from_static(b"hello");
            read(stream.packet(payload, Duration::from_millis(after), true, level, &mut number).expect("valid"))
        };
        let (first, second) = (next(0, Some(20)), next(1_000, None));
        assert_eq!((first.header.sequence_number, second.header.sequence_number), (65_535, 0));
        assert_eq!(second.header.timestamp.wrapping_sub(first.header.timestamp), 90_000);
        assert_eq!(first.header.get_extension(AUDIO_LEVEL).as_deref(), Some(&[0x80 | 20][..]));
        assert_eq!(second.header.get_extension(TRANSPORT_SEQUENCE).as_deref(), Some(&[0, 4][..]));
        assert_eq!(second.payload, "hello");
    }

    #[test]
    fn a_retransmission_has_the_original_sequence_number() {
        let mut stream = stream(Extensions { audio_level: false, transport_sequence: true });
        let mut number = 0;
        for i in 0..HISTORY + 10 {
            let payload = Bytes::from(vec![i as u8]);
            stream.packet(payload, Duration::ZERO, false, None, &mut number).expect("valid");
        }
        let last = stream.sequence.wrapping_sub(1);
        let repeated = read(stream.retransmission(last, &mut number).expect("history"));
        assert_eq!((repeated.header.sequence_number, repeated.payload[0]), (last, (HISTORY + 9) as u8));
        assert_eq!(
            repeated.header.get_extension(TRANSPORT_SEQUENCE).expect("numbered")[..],
            ((HISTORY + 10) as u16).to_be_bytes()
        );
        assert!(stream.retransmission(last.wrapping_sub(HISTORY as u16), &mut number).is_none());
    }

    #[test]
    fn sender_reports_map_rtp_time_to_ntp_time() {
        let stream = stream(Extensions::default());
        let report = stream.report(Timestamp::from_micros(2_500_000));
        assert_eq!(report.ntp_time, (2 << 32) | (1 << 31));
        assert_eq!(report.rtp_time.wrapping_sub(stream.offset), 225_000);
    }
}
