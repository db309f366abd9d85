//! One WebRTC connection of a client, from the answer to its end: ICE, DTLS, SRTP and RTCP put together. Sans-IO.
//!
//! Owns: timers, the streams of both directions, RTCP, the order of events. Does not know: sockets, HTTP, what is sent
//! or shown. Datagrams go in by [`Connection::handle`], time by [`Connection::tick`], media to send by
//! [`Connection::send_audio`] and [`Connection::send_video`]; datagrams to send leave by [`Connection::poll`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp;
use rtc::shared::marshal::{MarshalSize, Unmarshal};

use super::description::{Answer, LocalDescription, OPUS, RTX, VIDEO};
use super::receive::{Feedback, Packet, ReceiveStream};
use super::send::{Extensions, SendStream};
use crate::codec::Depayloader;
use crate::media::{AUDIO_RATE, EncodedPacket, Kind, VIDEO_CLOCK};
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, Credentials, Role};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::{srtp, stun};

/// Interval of RTCP reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Interval in which lost handshake flights are looked for.
const HANDSHAKE_TICK: Duration = Duration::from_millis(100);
/// Longest time from the answer to the end of the DTLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Which received media is kept for [`ReceiveStream::frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Collect {
    pub(crate) video: bool,
    pub(crate) audio: bool,
}

/// A received stream with what reports about it need.
struct Received {
    stream: ReceiveStream,
    ssrc: Option<u32>,
    /// The middle 32 bits of the last sender report's NTP time, and when it arrived.
    sender_report: Option<(u32, Timestamp)>,
}

impl Received {
    fn new(kind: Kind, collect: bool) -> Self {
        let clock_rate = if kind == Kind::Video { VIDEO_CLOCK } else { AUDIO_RATE };
        Self { stream: ReceiveStream::new(kind, clock_rate, collect), ssrc: None, sender_report: None }
    }

    /// The report block (RFC 3550 section 6.4.1); None before the first packet.
    fn report(&mut self, now: Timestamp) -> Option<ReceptionReport> {
        let (ssrc, reception) = (self.ssrc?, self.stream.report()?);
        let (last_sender_report, delay) = self
            .sender_report
            .map_or((0, 0), |(middle, at)| (middle, (now.since(at).as_micros() * 65_536 / 1_000_000) as u32));
        Some(ReceptionReport {
            ssrc,
            fraction_lost: reception.fraction_lost,
            total_lost: reception.total_lost,
            last_sequence_number: reception.highest,
            jitter: reception.jitter,
            last_sender_report,
            delay,
        })
    }
}

pub(crate) struct Connection {
    identity: Identity,
    local: LocalDescription,
    fingerprint: String,
    agent: Agent,
    secure: Option<Secure>,
    created: Timestamp,
    connected: Option<Timestamp>,
    close_reason: Option<String>,
    audio: Received,
    video: Received,
    audio_out: SendStream,
    video_out: SendStream,
    /// The next transport-wide sequence number, of both sent streams.
    transport_sequence: u16,
    next_report: Timestamp,
    keyframe_requested: bool,
    out: VecDeque<(SocketAddr, BytesMut)>,
}

impl Connection {
    /// A connection that begins its ICE checks at once.
    pub(crate) fn new(
        identity: &Identity,
        local: LocalDescription,
        answer: Answer,
        collect: Collect,
        now: Timestamp,
    ) -> Self {
        let Answer { ice, fingerprint, candidates, audio_level, transport_sequence, .. } = answer;
        let extensions = Extensions { audio_level, transport_sequence };
        let video_payload_type = local.sent_payload_type();
        Self {
            identity: identity.clone(),
            fingerprint,
            agent: Agent::new(identity.crypto(), Role::Controlling, local.ice.clone(), ice, candidates, now),
            secure: None,
            created: now,
            connected: None,
            close_reason: None,
            audio: Received::new(Kind::Audio, collect.audio),
            video: Received::new(Kind::Video, collect.video),
            audio_out: SendStream::new(OPUS, local.audio_ssrc, AUDIO_RATE, extensions, now),
            video_out: SendStream::new(video_payload_type, local.video_ssrc, VIDEO_CLOCK, extensions, now),
            local,
            transport_sequence: 0,
            next_report: now,
            keyframe_requested: false,
            out: VecDeque::new(),
        }
    }

    /// When the DTLS handshake ended; None before.
    pub(crate) fn connected(&self) -> Option<Timestamp> {
        self.connected
    }

    /// Why the connection is over; None while it is not.
    pub(crate) fn close_reason(&self) -> Option<&str> {
        self.close_reason.as_deref()
    }

    pub(crate) fn audio(&mut self) -> &mut ReceiveStream {
        &mut self.audio.stream
    }

    pub(crate) fn video(&mut self) -> &mut ReceiveStream {
        &mut self.video.stream
    }

    /// Packets sent without retransmissions: audio, video.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.audio_out.packets(), self.video_out.packets())
    }

    /// The remote address of the selected candidate pair.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.agent.selected()
    }

    /// Whether a PLI or FIR has arrived since the last call.
    pub(crate) fn take_keyframe_request(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_requested)
    }

    /// The next datagram to send, and its destination.
    pub(crate) fn poll(&mut self) -> Option<(SocketAddr, BytesMut)> {
        self.out.pop_front()
    }

    /// When [`Connection::tick`] is due next.
    pub(crate) fn deadline(&self, now: Timestamp) -> Timestamp {
        let mut deadline = self.agent.deadline();
        if self.connected.is_none() {
            return deadline.min(now + HANDSHAKE_TICK);
        }
        deadline = deadline.min(self.next_report);
        let waits = self.video.stream.deadline().into_iter().chain(self.audio.stream.deadline());
        waits.fold(deadline, Timestamp::min)
    }

    /// Handles a received datagram.
    pub(crate) fn handle(&mut self, moment: Moment, from: SocketAddr, datagram: &[u8]) {
        if stun::is_stun(datagram) {
            if let Some(answer) = self.agent.handle(moment.now, from, datagram) {
                self.out.push_back((from, BytesMut::from(&answer[..])));
            }
            // Not before the pair is nominated: a server that waits for the end of ICE would drop the ClientHello.
            if self.secure.is_none() && self.agent.is_established() {
                self.begin_handshake(moment);
            }
        } else if secure::is_dtls(datagram) {
            self.handshake(moment, datagram);
        } else if datagram.get(1).is_some_and(|second| (192..224).contains(second)) {
            self.rtcp(moment.now, datagram);
        } else {
            self.rtp(moment.now, datagram);
        }
    }

    /// Runs the timers.
    pub(crate) fn tick(&mut self, moment: Moment) {
        let now = moment.now;
        for (to, check) in self.agent.poll(now) {
            self.out.push_back((to, BytesMut::from(&check[..])));
        }
        if self.connected.is_none() {
            if let Some(secure) = &mut self.secure {
                secure.tick(now);
            }
            self.flush_handshake();
            if now.since(self.created) > CONNECT_TIMEOUT {
                let what = if self.secure.is_some() {
                    "the DTLS handshake did not end"
                } else {
                    "no address of the server answered"
                };
                self.close_reason = Some(format!("{what} within {} s", CONNECT_TIMEOUT.as_secs()));
            }
            return;
        }
        if self.agent.has_expired(now) {
            self.close_reason = Some("the server no longer answers".to_owned());
        }
        let Feedback { nack, keyframe } = self.video.stream.poll(now);
        // Of audio only losses are counted: it is not retransmitted.
        self.audio.stream.poll(now);
        self.send_feedback(&nack, keyframe);
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.report(now);
        }
    }

    /// Sends a PLI: a decoder cannot go on.
    pub(crate) fn request_keyframe(&mut self) {
        self.send_feedback(&[], true);
    }

    /// Sends one Opus packet. `after` is its media time since the connection was made; `level` its audio level in -dBov
    /// (RFC 6464), where known; `marker` says that it begins a talk spurt (RFC 3551 section 4.1).
    pub(crate) fn send_audio(&mut self, payload: Bytes, after: Duration, level: Option<u8>, marker: bool) {
        let packet = self.audio_out.packet(payload, after, marker, level, &mut self.transport_sequence);
        if let Ok(packet) = packet {
            self.encrypt(&packet);
        }
    }

    /// Sends a frame. `after` is its media time since the connection was made.
    pub(crate) fn send_video(&mut self, packets: &[EncodedPacket], after: Duration) {
        for EncodedPacket { payload, marker, .. } in packets {
            let packet = self.video_out.packet(payload.clone(), after, *marker, None, &mut self.transport_sequence);
            if let Ok(packet) = packet {
                self.encrypt(&packet);
            }
        }
    }

    /// Restarts ICE. Media goes on over the selected pair until another one is selected.
    pub(crate) fn restart_ice(
        &mut self,
        local: Credentials,
        remote: Credentials,
        candidates: Vec<SocketAddr>,
        now: Timestamp,
    ) {
        self.agent.restart(local, remote, now);
        candidates.into_iter().for_each(|to| self.agent.add_candidate(to, now));
    }

    /// Sends BYE and close_notify.
    pub(crate) fn close(&mut self, moment: Moment) {
        if self.local.direction.sends() {
            let mut packets = self.reports(moment.now);
            let sources = vec![self.audio_out.ssrc(), self.video_out.ssrc()];
            packets.push(Box::new(Goodbye { sources, ..Goodbye::default() }));
            self.send_rtcp(&packets);
        }
        if let Some(secure) = &mut self.secure {
            secure.close(moment.instant);
        }
        self.flush_handshake();
    }

    fn begin_handshake(&mut self, moment: Moment) {
        match Secure::connect(&self.identity, vec![self.fingerprint.clone()], moment.instant) {
            Ok(secure) => self.secure = Some(secure),
            Err(error) => self.close_reason = Some(format!("the DTLS handshake cannot begin: {error}")),
        }
        self.flush_handshake();
    }

    fn handshake(&mut self, moment: Moment, datagram: &[u8]) {
        let Some(secure) = &mut self.secure else { return };
        match secure.handshake(moment, datagram) {
            Ok(Progress::Connected) => {
                self.connected = Some(moment.now);
                // At a random time, so that the reports of many clients that joined at once do not coincide.
                self.next_report = moment.now + REPORT_INTERVAL.mul_f32(rand::random());
            }
            Ok(Progress::Closed) => self.close_reason = Some("the server closed the connection".to_owned()),
            Ok(Progress::None) => {}
            // After the handshake a bad datagram ends nothing: its source address may be forged.
            Err(error) if self.connected.is_none() => {
                self.close_reason = Some(format!("the DTLS handshake failed: {error}"))
            }
            Err(error) => tracing::debug!(%error, "malformed DTLS datagram dropped"),
        }
        self.flush_handshake();
    }

    fn flush_handshake(&mut self) {
        let (Some(secure), Some(server)) = (&mut self.secure, self.agent.selected()) else { return };
        while let Some(datagram) = secure.poll() {
            self.out.push_back((server, datagram));
        }
    }

    fn rtp(&mut self, now: Timestamp, datagram: &[u8]) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        let mut clear = BytesMut::from(datagram);
        if keys.decrypt_rtp(&mut clear).is_err() {
            return;
        }
        let mut payload = clear.freeze();
        let Ok(header) = rtp::Header::unmarshal(&mut &payload[..]) else { return };
        let from = header.marshal_size();
        let padding = if header.padding { usize::from(*payload.last().unwrap_or(&0)) } else { 0 };
        let Some(to) = payload.len().checked_sub(padding).filter(|to| *to > from) else { return };
        payload = payload.slice(from..to);
        let mut packet = Packet {
            sequence: header.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            starts_keyframe: false,
            size: datagram.len(),
            payload,
        };
        match header.payload_type {
            OPUS => {
                self.audio.ssrc = Some(header.ssrc);
                self.audio.stream.insert(now, packet);
            }
            VIDEO | RTX => {
                if header.payload_type == RTX {
                    // RFC 4588 section 4: the original sequence number comes first.
                    let [high, low, ..] = *packet.payload else { return };
                    packet.sequence = u16::from_be_bytes([high, low]);
                    packet.payload = packet.payload.slice(2..);
                } else {
                    self.video.ssrc = Some(header.ssrc);
                }
                packet.starts_keyframe = Depayloader::starts_keyframe(self.local.codec, &packet.payload);
                self.video.stream.insert(now, packet);
            }
            _ => {}
        }
    }

    fn rtcp(&mut self, now: Timestamp, datagram: &[u8]) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        let mut clear = BytesMut::from(datagram);
        if keys.decrypt_rtcp(&mut clear).is_err() {
            return;
        }
        let Ok(packets) = rtcp::packet::unmarshal(&mut clear.freeze()) else { return };
        for packet in packets {
            let any = packet.as_any();
            if let Some(report) = any.downcast_ref::<SenderReport>() {
                for received in [&mut self.audio, &mut self.video] {
                    if received.ssrc == Some(report.ssrc) {
                        received.sender_report = Some(((report.ntp_time >> 16) as u32, now));
                    }
                }
            } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
                if nack.media_ssrc == self.video_out.ssrc() {
                    let lost = nack.nacks.iter().flat_map(|pair| pair.packet_list());
                    for sequence in lost.collect::<Vec<_>>() {
                        if let Some(packet) = self.video_out.retransmission(sequence, &mut self.transport_sequence) {
                            self.encrypt(&packet);
                        }
                    }
                }
            } else if any.is::<PictureLossIndication>() || any.is::<FullIntraRequest>() {
                self.keyframe_requested = true;
            }
        }
    }

    fn report(&mut self, now: Timestamp) {
        let packets = self.reports(now);
        self.send_rtcp(&packets);
    }

    /// A compound packet (RFC 3550 section 6.1): SR or RR, and SDES. Empty where nothing was received or sent.
    fn reports(&mut self, now: Timestamp) -> Vec<Box<dyn rtcp::Packet>> {
        let reports: Vec<_> = [self.audio.report(now), self.video.report(now)].into_iter().flatten().collect();
        let (audio, video) = (self.audio_out.ssrc(), self.video_out.ssrc());
        let (mut packets, sources): (Vec<Box<dyn rtcp::Packet>>, _) = if self.local.direction.sends() {
            let audio_report = SenderReport { reports, ..self.audio_out.report(now) };
            (vec![Box::new(audio_report), Box::new(self.video_out.report(now))], vec![audio, video])
        } else if reports.is_empty() {
            return Vec::new();
        } else {
            (vec![Box::new(ReceiverReport { ssrc: video, reports, ..ReceiverReport::default() })], vec![video])
        };
        let item = SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: self.local.cname.clone().into() };
        let chunk = |source| SourceDescriptionChunk { source, items: vec![item.clone()] };
        packets.push(Box::new(SourceDescription { chunks: sources.into_iter().map(chunk).collect() }));
        packets
    }

    /// Sends a NACK of these sequence numbers and a PLI, as far as there is something to request.
    fn send_feedback(&mut self, nack: &[u16], keyframe: bool) {
        let Some(media_ssrc) = self.video.ssrc else { return };
        let sender_ssrc = self.video_out.ssrc();
        let mut packets: Vec<Box<dyn rtcp::Packet>> = Vec::new();
        if !nack.is_empty() {
            let nacks = nack_pairs_from_sequence_numbers(nack);
            packets.push(Box::new(TransportLayerNack { sender_ssrc, media_ssrc, nacks }));
        }
        if keyframe {
            packets.push(Box::new(PictureLossIndication { sender_ssrc, media_ssrc }));
        }
        self.send_rtcp(&packets);
    }

    fn send_rtcp(&mut self, packets: &[Box<dyn rtcp::Packet>]) {
        if packets.is_empty() {
            return;
        }
        let Some((keys, server)) = self.secure.as_mut().and_then(Secure::keys).zip(self.agent.selected()) else {
            return;
        };
        let Ok(clear) = rtcp::packet::marshal(packets) else { return };
        let mut packet = srtp::copied(&clear);
        if keys.encrypt_rtcp(&mut packet).is_ok() {
            self.out.push_back((server, packet));
        }
    }

    fn encrypt(&mut self, packet: &[u8]) {
        let Some((keys, server)) = self.secure.as_mut().and_then(Secure::keys).zip(self.agent.selected()) else {
            return;
        };
        let mut packet = srtp::copied(packet);
        if keys.encrypt_rtp(&mut packet).is_ok() {
            self.out.push_back((server, packet));
        }
    }
}
