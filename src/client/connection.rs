//! One connection to the server, from the answer to the end: ICE, DTLS, SRTP and RTCP put together. Sans-IO.
//!
//! Owns: what is due when, and what goes on the wire. Does not know: sockets, HTTP, what is sent or shown. Datagrams go
//! in by [`Connection::handle`], time by [`Connection::tick`], media to be sent by [`Connection::send_sound`] and
//! [`Connection::send_frame`]; datagrams to be sent leave by [`Connection::poll`].

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

use super::description::{Answer, OPUS, REPAIR, VIDEO};
use super::incoming::{Due, Incoming, Packet};
use super::outgoing::{Extensions, Outgoing};
use crate::codec::Depayloader;
use crate::media::{AUDIO_RATE, Codec, EncodedPacket, Kind, VIDEO_CLOCK};
use crate::sdp::Direction;
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, Credentials, Role};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::{srtp, stun};

/// From one report to the next.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often the handshake looks whether something must be sent again.
const HANDSHAKE_TICK: Duration = Duration::from_millis(100);
/// Longest time from the answer to a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// What a connection begins with.
pub(crate) struct Setup<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) ice: Credentials,
    pub(crate) answer: Answer,
    pub(crate) direction: Direction,
    pub(crate) codec: Codec,
    pub(crate) audio_ssrc: u32,
    pub(crate) video_ssrc: u32,
    /// What we are called in RTCP.
    pub(crate) cname: String,
    /// Frames are collected for a decoder.
    pub(crate) keeps_frames: bool,
    /// Packets of sound are collected likewise.
    pub(crate) keeps_sound: bool,
}

/// A received stream with what reports about it need.
struct Heard {
    stream: Incoming,
    ssrc: Option<u32>,
    /// The middle of the last sender report's time, and when it came.
    reported: Option<(u32, Timestamp)>,
}

impl Heard {
    fn report(&mut self, now: Timestamp) -> Option<ReceptionReport> {
        let (ssrc, reception) = (self.ssrc?, self.stream.report()?);
        let (last_sender_report, delay) = self
            .reported
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
    fingerprint: String,
    agent: Agent,
    secure: Option<Secure>,
    direction: Direction,
    codec: Codec,
    cname: String,
    begun: Timestamp,
    connected: Option<Timestamp>,
    over: Option<String>,
    audio: Heard,
    video: Heard,
    sound: Outgoing,
    picture: Outgoing,
    /// Counts the packets of both streams, for feedback about their arrival.
    number: u16,
    next_report: Timestamp,
    keyframe_wanted: bool,
    out: VecDeque<(SocketAddr, BytesMut)>,
}

impl Connection {
    pub(crate) fn new(setup: Setup<'_>, now: Timestamp) -> Self {
        let Setup { identity, ice, answer, direction, codec, audio_ssrc, video_ssrc, cname, keeps_frames, keeps_sound } =
            setup;
        let extensions = Extensions { levels: answer.takes_levels, numbers: answer.takes_numbers };
        let heard = |stream| Heard { stream, ssrc: None, reported: None };
        Self {
            identity: identity.clone(),
            fingerprint: answer.fingerprint,
            agent: Agent::new(identity.crypto(), Role::Controlling, ice, answer.ice, answer.candidates, now),
            secure: None,
            direction,
            codec,
            cname,
            begun: now,
            connected: None,
            over: None,
            audio: heard(Incoming::new(Kind::Audio, AUDIO_RATE, keeps_sound)),
            video: heard(Incoming::new(Kind::Video, VIDEO_CLOCK, keeps_frames)),
            sound: Outgoing::new(OPUS, audio_ssrc, AUDIO_RATE, extensions, now),
            picture: Outgoing::new(VIDEO, video_ssrc, VIDEO_CLOCK, extensions, now),
            number: 0,
            next_report: now,
            keyframe_wanted: false,
            out: VecDeque::new(),
        }
    }

    /// When the connection was up.
    pub(crate) fn connected(&self) -> Option<Timestamp> {
        self.connected
    }

    /// Why it is over, if it is.
    pub(crate) fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    pub(crate) fn audio(&mut self) -> &mut Incoming {
        &mut self.audio.stream
    }

    pub(crate) fn video(&mut self) -> &mut Incoming {
        &mut self.video.stream
    }

    /// Packets sent: sound, pictures.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.sound.packets(), self.picture.packets())
    }

    /// The server's address, once one has answered.
    pub(crate) fn server(&self) -> Option<SocketAddr> {
        self.agent.selected()
    }

    /// Whether the server has asked for a keyframe since this was last asked.
    pub(crate) fn take_keyframe_wanted(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_wanted)
    }

    /// The next datagram to send, and where to.
    pub(crate) fn poll(&mut self) -> Option<(SocketAddr, BytesMut)> {
        self.out.pop_front()
    }

    /// When [`Connection::tick`] is needed next.
    pub(crate) fn deadline(&self, now: Timestamp) -> Timestamp {
        let mut deadline = self.agent.deadline();
        if self.connected.is_none() {
            return deadline.min(now + HANDSHAKE_TICK);
        }
        deadline = deadline.min(self.next_report);
        let waits = self.video.stream.deadline().into_iter().chain(self.audio.stream.deadline());
        waits.fold(deadline, Timestamp::min)
    }

    /// Takes a datagram.
    pub(crate) fn handle(&mut self, moment: Moment, from: SocketAddr, datagram: &[u8]) {
        if stun::is_stun(datagram) {
            if let Some(answer) = self.agent.handle(moment.now, from, datagram) {
                self.out.push_back((from, BytesMut::from(&answer[..])));
            }
            // Not before the server has agreed: one that waits for ICE to end would not hear it.
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

    /// Does what is due.
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
            if now.since(self.begun) > CONNECT_WITHIN {
                let what = if self.secure.is_some() {
                    "the DTLS handshake did not end"
                } else {
                    "no address of the server answered"
                };
                self.over = Some(format!("{what} within {} s", CONNECT_WITHIN.as_secs()));
            }
            return;
        }
        if self.agent.has_expired(now) {
            self.over = Some("the server no longer answers".to_owned());
        }
        let Due { missing, keyframe } = self.video.stream.poll(now);
        // Of sound only the losses are counted: nobody asks for it again.
        self.audio.stream.poll(now);
        if !missing.is_empty() || keyframe {
            self.ask(&missing, keyframe);
        }
        if now >= self.next_report {
            self.next_report = now + REPORT_EVERY;
            self.report(now);
        }
    }

    /// Asks for a keyframe, whatever the packets say: a decoder cannot go on.
    pub(crate) fn ask_for_keyframe(&mut self) {
        self.ask(&[], true);
    }

    /// Sends 20 ms of sound; `level` is how loud it is, where that is known.
    pub(crate) fn send_sound(&mut self, payload: Bytes, after: Duration, level: Option<u8>) {
        let packet = self.sound.packet(payload, after, false, level, &mut self.number);
        if let Ok(packet) = packet {
            self.encrypt(&packet);
        }
    }

    /// Sends a frame.
    pub(crate) fn send_frame(&mut self, packets: &[EncodedPacket], after: Duration) {
        for packet in packets {
            let packet = self.picture.packet(packet.payload.clone(), after, packet.marker, None, &mut self.number);
            if let Ok(packet) = packet {
                self.encrypt(&packet);
            }
        }
    }

    /// ICE begins anew with these credentials, and the server at these addresses; media goes on where it goes until another
    /// way is found.
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

    /// Says goodbye to the server, in RTCP and in DTLS.
    pub(crate) fn close(&mut self, moment: Moment) {
        if self.direction.sends() {
            let mut packets = self.reports(moment.now);
            let sources = vec![self.sound.ssrc(), self.picture.ssrc()];
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
            Err(error) => self.over = Some(format!("the DTLS handshake cannot begin: {error}")),
        }
        self.flush_handshake();
    }

    fn handshake(&mut self, moment: Moment, datagram: &[u8]) {
        let Some(secure) = &mut self.secure else { return };
        match secure.handshake(moment, datagram) {
            Ok(Progress::Connected) => {
                self.connected = Some(moment.now);
                // Reports of a thousand clients that came together are not to go out together.
                self.next_report = moment.now + REPORT_EVERY.mul_f32(rand::random());
            }
            Ok(Progress::Closed) => self.over = Some("the server closed the connection".to_owned()),
            Ok(Progress::None) => {}
            // Anybody can send a bad datagram; only a handshake that cannot go on is the end.
            Err(error) if self.connected.is_none() => self.over = Some(format!("the DTLS handshake failed: {error}")),
            Err(error) => tracing::debug!(%error, "a bad DTLS datagram"),
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
            VIDEO | REPAIR => {
                if header.payload_type == REPAIR {
                    // RFC 4588 section 4: the number the packet had before stands first.
                    let [high, low, ..] = *packet.payload else { return };
                    packet.sequence = u16::from_be_bytes([high, low]);
                    packet.payload = packet.payload.slice(2..);
                } else {
                    self.video.ssrc = Some(header.ssrc);
                }
                packet.starts_keyframe = Depayloader::starts_keyframe(self.codec, &packet.payload);
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
                for heard in [&mut self.audio, &mut self.video] {
                    if heard.ssrc == Some(report.ssrc) {
                        heard.reported = Some(((report.ntp_time >> 16) as u32, now));
                    }
                }
            } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
                if nack.media_ssrc == self.picture.ssrc() {
                    let lost = nack.nacks.iter().flat_map(|pair| pair.packet_list());
                    for sequence in lost.collect::<Vec<_>>() {
                        if let Some(packet) = self.picture.again(sequence, &mut self.number) {
                            self.encrypt(&packet);
                        }
                    }
                }
            } else if any.is::<PictureLossIndication>() || any.is::<FullIntraRequest>() {
                self.keyframe_wanted = true;
            }
        }
    }

    fn report(&mut self, now: Timestamp) {
        let packets = self.reports(now);
        self.send_rtcp(&packets);
    }

    /// What there is to report, and who does (RFC 3550 section 6.1).
    fn reports(&mut self, now: Timestamp) -> Vec<Box<dyn rtcp::Packet>> {
        let reports: Vec<_> = [self.audio.report(now), self.video.report(now)].into_iter().flatten().collect();
        let (sound, picture) = (self.sound.ssrc(), self.picture.ssrc());
        let (mut packets, sources): (Vec<Box<dyn rtcp::Packet>>, _) = if self.direction.sends() {
            let sound_report = SenderReport { reports, ..self.sound.report(now) };
            (vec![Box::new(sound_report), Box::new(self.picture.report(now))], vec![sound, picture])
        } else if reports.is_empty() {
            return Vec::new();
        } else {
            (vec![Box::new(ReceiverReport { ssrc: picture, reports, ..ReceiverReport::default() })], vec![picture])
        };
        let item = SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: self.cname.clone().into() };
        let chunk = |source| SourceDescriptionChunk { source, items: vec![item.clone()] };
        packets.push(Box::new(SourceDescription { chunks: sources.into_iter().map(chunk).collect() }));
        packets
    }

    fn ask(&mut self, missing: &[u16], keyframe: bool) {
        let Some(media_ssrc) = self.video.ssrc else { return };
        let sender_ssrc = self.picture.ssrc();
        let mut packets: Vec<Box<dyn rtcp::Packet>> = Vec::new();
        if !missing.is_empty() {
            let nacks = nack_pairs_from_sequence_numbers(missing);
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
