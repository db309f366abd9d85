//! Plain RTP (RFC 3550): video to one port, audio to the port two above, RTCP sender reports to the odd ports.
//!
//! Owns: packets, reports and the SDP for players ([`session_description`]). Does not know: receivers: nobody responds,
//! so the broadcast counts as live as soon as it sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::net::UdpSocket;

use super::progress::Progress;
use super::queue::{Body, Piece};
use super::sender::{Outcome, Sender};
use crate::destination::{Endpoint, Host};
use crate::dial;
use crate::media::{AUDIO_RATE, VIDEO_CLOCK};
use crate::time::{self, Timestamp};

/// Payload type of H.264.
const VIDEO_PAYLOAD_TYPE: u8 = 96;
/// Payload type of Opus.
const AUDIO_PAYLOAD_TYPE: u8 = 97;
/// Interval of sender reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// One RTP stream.
#[derive(Debug)]
struct RtpStream {
    payload_type: u8,
    clock: u32,
    ssrc: u32,
    sequence: u16,
    /// RTP timestamp of the room's epoch.
    offset: u32,
    packets: u32,
    octets: u32,
}

impl RtpStream {
    fn new(payload_type: u8, clock: u32) -> Self {
        let (ssrc, sequence, offset) = (rand::random(), rand::random(), rand::random());
        Self { payload_type, clock, ssrc, sequence, offset, packets: 0, octets: 0 }
    }

    /// The next packet; `time` is in ticks since the room's epoch.
    fn packet(&mut self, time: u64, marker: bool, payload: &[u8]) -> BytesMut {
        let mut packet = BytesMut::with_capacity(12 + payload.len());
        packet.put_u8(0x80);
        packet.put_u8(u8::from(marker) << 7 | self.payload_type);
        packet.put_u16(self.sequence);
        packet.put_u32(self.offset.wrapping_add(time as u32));
        packet.put_u32(self.ssrc);
        packet.put_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        packet
    }

    /// A sender report and SDES with CNAME (sections 6.4.1 and 6.5), by which receivers synchronize audio and video.
    fn report(&self, epoch: Timestamp, now: Timestamp) -> BytesMut {
        const NAME: &[u8] = b"commingle";
        let ticks = now.since(epoch).as_micros() * u128::from(self.clock) / 1_000_000;
        let mut report = BytesMut::new();
        report.put_slice(&[0x80, 200, 0, 6]);
        report.put_u32(self.ssrc);
        report.put_u64(crate::transport::ntp(now));
        report.put_u32(self.offset.wrapping_add(ticks as u32));
        report.put_u32(self.packets);
        report.put_u32(self.octets);
        // One chunk: SSRC, CNAME, end marker, padding to 32 bits.
        let length = (4 + 2 + NAME.len() + 1).next_multiple_of(4);
        report.put_slice(&[0x81, 202, 0, (length / 4) as u8]);
        report.put_u32(self.ssrc);
        report.put_slice(&[1, NAME.len() as u8]);
        report.put_slice(NAME);
        report.put_bytes(0, length - 4 - 2 - NAME.len());
        report
    }
}

/// The SDP with which a player receives the streams sent to `endpoint`.
pub(super) fn session_description(endpoint: &Endpoint) -> String {
    let family = if matches!(endpoint.host, Host::Address(IpAddr::V6(_))) { "IP6" } else { "IP4" };
    let host = endpoint.host.to_string();
    let host = host.trim_matches(['[', ']']);
    let (video, audio) = (endpoint.port, endpoint.port + 2);
    let lines = [
        "v=0".to_owned(),
        format!("o=- 1 1 IN {family} {host}"),
        "s=commingle".to_owned(),
        format!("c=IN {family} {host}"),
        "t=0 0".to_owned(),
        format!("m=video {video} RTP/AVP {VIDEO_PAYLOAD_TYPE}"),
        format!("a=rtpmap:{VIDEO_PAYLOAD_TYPE} H264/{VIDEO_CLOCK}"),
        format!("a=fmtp:{VIDEO_PAYLOAD_TYPE} packetization-mode=1"),
        format!("m=audio {audio} RTP/AVP {AUDIO_PAYLOAD_TYPE}"),
        format!("a=rtpmap:{AUDIO_PAYLOAD_TYPE} opus/{AUDIO_RATE}/2"),
    ];
    lines.iter().fold(String::new(), |text, line| text + line + "\r\n")
}

/// Sends until the media ends.
pub(super) async fn send(endpoint: &Endpoint, sender: &Sender, progress: &mut Progress) -> Outcome {
    match stream(endpoint, sender, progress).await {
        Ok(()) => Outcome::Finished,
        Err(ended) => ended,
    }
}

async fn stream(endpoint: &Endpoint, sender: &Sender, progress: &mut Progress) -> Result<(), Outcome> {
    let send_queue = &sender.send_queue;
    let remote = dial::resolve(endpoint, &sender.guard).await?;
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket =
        UdpSocket::bind((any, 0)).await.map_err(|error| Outcome::Disconnected(format!("no socket: {error}")))?;
    let port = |above: u16| SocketAddr::new(remote.ip(), remote.port() + above);
    let (mut video, mut audio) =
        (RtpStream::new(VIDEO_PAYLOAD_TYPE, VIDEO_CLOCK), RtpStream::new(AUDIO_PAYLOAD_TYPE, AUDIO_RATE));
    let sdp = session_description(endpoint);
    sender.notifier.report(|report| report.sdp = Some(sdp));
    send_queue.with(|queue| queue.set_open(true));
    let mut reports = tokio::time::interval(REPORT_INTERVAL);
    loop {
        tokio::select! {
            piece = send_queue.next() => {
                let Some(piece) = piece else { return Ok(()) };
                let mut bytes = 0;
                match &piece {
                    Piece::Video { time, body: Body::Packets(packets), .. } => {
                        for packet in packets {
                            let datagram = video.packet(*time, packet.marker, &packet.payload);
                            bytes += send_datagram(&socket, &datagram, port(0)).await;
                        }
                    }
                    Piece::Audio { time, data } => {
                        let datagram = audio.packet(*time, false, data);
                        bytes += send_datagram(&socket, &datagram, port(2)).await;
                    }
                    Piece::Video { body: Body::AccessUnit(_), .. } => continue,
                }
                progress.sent(&piece, bytes);
            }
            _ = reports.tick() => {
                let now = time::now();
                send_datagram(&socket, &video.report(sender.epoch, now), port(1)).await;
                send_datagram(&socket, &audio.report(sender.epoch, now), port(3)).await;
            }
        }
    }
}

/// Sends a datagram; returns the number of bytes sent. An error is ignored: it usually is an ICMP "port unreachable"
/// caused by an earlier datagram.
async fn send_datagram(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> usize {
    match socket.send_to(datagram, to).await {
        Ok(sent) => sent,
        Err(error) => {
            tracing::trace!(%error, "RTP datagram not sent");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::{Destination, Target};

    #[test]
    fn packets_and_sender_reports_share_ssrc_and_clock() {
        let epoch = Timestamp::from_micros(7_000_000);
        let mut stream =
            RtpStream { sequence: 65_535, offset: u32::MAX, ..RtpStream::new(VIDEO_PAYLOAD_TYPE, VIDEO_CLOCK) };
        let first = stream.packet(90_001, true, b"ab");
        assert_eq!(first[..4], [0x80, 0x80 | VIDEO_PAYLOAD_TYPE, 0xff, 0xff]);
        assert_eq!(first[4..8], 90_000u32.to_be_bytes(), "the offset wraps");
        assert_eq!(first[8..12], stream.ssrc.to_be_bytes());
        assert_eq!(stream.packet(90_002, false, b"c")[..4], [0x80, VIDEO_PAYLOAD_TYPE, 0, 0]);
        let report = stream.report(epoch, epoch + Duration::from_secs(2));
        assert_eq!((report[1], report.len() % 4, report[28 + 1]), (200, 0, 202));
        assert_eq!(usize::from(report[28 + 3]) * 4 + 4, report.len() - 28);
        assert_eq!(report[8..16], (9u64 << 32).to_be_bytes());
        assert_eq!(report[16..20], 179_999u32.to_be_bytes());
        assert_eq!(report[20..28], [0, 0, 0, 2, 0, 0, 0, 3]);
    }

    #[test]
    fn the_session_description_contains_both_ports() {
        let destination = Destination::output("rtp://[2001:db8::1]:5004").expect("a URL");
        let Target::Rtp(endpoint) = destination.target() else { panic!("RTP") };
        let sdp = session_description(endpoint);
        for line in ["c=IN IP6 2001:db8::1\r\n", "m=video 5004 RTP/AVP 96\r\n", "m=audio 5006 RTP/AVP 97\r\n"] {
            assert!(sdp.contains(line), "{sdp}");
        }
    }
}
