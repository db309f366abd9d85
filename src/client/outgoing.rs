//! What a client sends: RTP headers around payloads, and packets kept to be sent again.
//!
//! Owns: sequence numbers, timestamps and header extensions of one stream. Does not know: SRTP, sockets, codecs. Payloads
//! go in, plain RTP packets come out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp::packet::Packet;
use rtc::rtp::{Header, header};
use rtc::shared::error::Error;
use rtc::shared::marshal::Marshal;

use super::description::{AUDIO_LEVEL, TRANSPORT_NUMBER};
use crate::time::Timestamp;
use crate::transport;

/// Packets kept to be sent again: two seconds of a camera.
const KEPT: usize = 512;

/// Which header extensions the server takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extensions {
    pub(crate) levels: bool,
    pub(crate) numbers: bool,
}

/// One sent stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    payload_type: u8,
    ssrc: u32,
    clock_rate: u32,
    extensions: Extensions,
    sequence: u16,
    /// RTP time of `epoch`.
    offset: u32,
    epoch: Timestamp,
    packets: u32,
    octets: u32,
    kept: VecDeque<Packet>,
}

impl Outgoing {
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
            kept: VecDeque::new(),
        }
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets sent, without repetitions.
    pub(crate) fn packets(&self) -> u64 {
        self.packets.into()
    }

    fn rtp_time(&self, after: Duration) -> u32 {
        self.offset.wrapping_add((after.as_micros() * u128::from(self.clock_rate) / 1_000_000) as u32)
    }

    /// The next packet. `after` is its time since the epoch; `level` how loud it is, where it is sound; `number` counts
    /// the packets of the whole connection.
    pub(crate) fn packet(
        &mut self,
        payload: Bytes,
        after: Duration,
        marker: bool,
        level: Option<u8>,
        number: &mut u16,
    ) -> Result<BytesMut, Error> {
        let header = Header {
            version: 2,
            marker,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.rtp_time(after),
            ssrc: self.ssrc,
            extension_profile: header::EXTENSION_PROFILE_ONE_BYTE,
            ..Header::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        let mut packet = Packet { header, payload };
        if let Some(level) = level.filter(|_| self.extensions.levels) {
            packet.header.set_extension(AUDIO_LEVEL, Bytes::copy_from_slice(&[0x80 | level]))?;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(packet.clone());
        self.finish(packet, number)
    }

    /// A packet that was sent before.
    pub(crate) fn again(&self, sequence: u16, number: &mut u16) -> Option<BytesMut> {
        let kept = self.kept.iter().find(|packet| packet.header.sequence_number == sequence)?;
        self.finish(kept.clone(), number).ok()
    }

    fn finish(&self, mut packet: Packet, number: &mut u16) -> Result<BytesMut, Error> {
        if self.extensions.numbers {
            packet.header.set_extension(TRANSPORT_NUMBER, Bytes::copy_from_slice(&number.to_be_bytes()))?;
            *number = number.wrapping_add(1);
        }
        packet.marshal()
    }

    /// Says how RTP time and our clock belong together.
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

    fn stream(extensions: Extensions) -> Outgoing {
        Outgoing::new(96, 7, 90_000, extensions, Timestamp::from_micros(0))
    }

    fn read(mut bytes: BytesMut) -> Packet {
        Packet::unmarshal(&mut bytes).expect("a packet")
    }

    #[test]
    fn packets_count_up_and_keep_time() {
        let mut stream = stream(Extensions { levels: true, numbers: true });
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
        assert_eq!(second.header.get_extension(TRANSPORT_NUMBER).as_deref(), Some(&[0, 4][..]));
        assert_eq!(second.payload, "hello");
    }

    #[test]
    fn a_packet_is_sent_again_under_its_number() {
        let mut stream = stream(Extensions { levels: false, numbers: true });
        let mut number = 0;
        for i in 0..KEPT + 10 {
            let payload = Bytes::from(vec![i as u8]);
            stream.packet(payload, Duration::ZERO, false, None, &mut number).expect("valid");
        }
        let last = stream.sequence.wrapping_sub(1);
        let again = read(stream.again(last, &mut number).expect("kept"));
        assert_eq!((again.header.sequence_number, again.payload[0]), (last, (KEPT + 9) as u8));
        assert_eq!(
            again.header.get_extension(TRANSPORT_NUMBER).expect("numbered")[..],
            ((KEPT + 10) as u16).to_be_bytes()
        );
        assert!(stream.again(last.wrapping_sub(KEPT as u16), &mut number).is_none());
    }

    #[test]
    fn reports_tie_rtp_to_the_clock() {
        let stream = stream(Extensions::default());
        let report = stream.report(Timestamp::from_micros(2_500_000));
        assert_eq!(report.ntp_time, (2 << 32) | (1 << 31));
        assert_eq!(report.rtp_time.wrapping_sub(stream.offset), 225_000);
    }
}
