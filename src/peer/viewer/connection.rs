//! A viewer's connection, from the answer to the end: ICE, DTLS, SRTP and RTCP put together. Sans-IO.
//!
//! Owns: what is due when, and what goes on the wire. Does not know: sockets, threads, SDP. Datagrams go in by
//! [`Connection::handle`], time by [`Connection::tick`], the subscriber's packets by [`Connection::pump`]; datagrams leave in
//! the caller's list, and what happens by [`Connection::poll_event`].
//!
//! What is not STUN counts only from an address that has been validated, and media leaves only to one that has answered.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rtc::rtcp;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::rtp;
use rtc::shared::error::Error;

use super::super::description::{DtlsRole, Taken};
use super::super::engine;
use super::super::introductions::Introductions;
use super::super::outgoing::Ssrcs;
use super::super::reports::{Reception, Reports};
use super::super::task::{BEGIN_TIMEOUT, CONNECT_TIMEOUT, KEYFRAME_INTERVAL, RECEPTION_INTERVAL};
use super::super::{Counters, PeerEvent};
use super::stream::Stream;
use crate::fanout::{News, Outgoing, Subscriber};
use crate::media::Kind;
use crate::tier::{self, Pacer, Protection};
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, Credentials, Role, STALE};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::stun;

/// From the beginning to the first report, which tells how sound and pictures belong together, and from one to the next.
const REPORT_FIRST: Duration = Duration::from_millis(300);
/// See [`REPORT_FIRST`].
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How often the handshake looks whether something must be sent again.
const HANDSHAKE_TICK: Duration = Duration::from_millis(100);

/// Datagrams to be sent, and where to.
pub(super) type Out = Vec<(SocketAddr, BytesMut)>;

/// What a connection begins with.
pub(super) struct Setup {
    pub(super) identity: Arc<Identity>,
    pub(super) role: DtlsRole,
    /// The client's certificate has one of these (SHA-256).
    pub(super) fingerprints: Vec<String>,
    pub(super) ice_role: Role,
    pub(super) local: Credentials,
    pub(super) remote: Credentials,
    /// Where the client may be reached.
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) ssrcs: Ssrcs,
    pub(super) cname: String,
}

pub(super) struct Connection {
    pub(super) agent: Agent,
    identity: Arc<Identity>,
    fingerprints: Vec<String>,
    /// None until a client of ours may begin.
    secure: Option<Secure>,
    ssrcs: Ssrcs,
    introductions: Introductions,
    audio: Option<Stream>,
    video: Option<Stream>,
    subscriber: Arc<Subscriber>,
    counters: Arc<Counters>,
    pacer: Pacer,
    /// Video waits for the pacer until then.
    paced: Option<Timestamp>,
    reports: Reports,
    protection: Protection,
    began: Timestamp,
    /// When the handshake next looks whether something must be sent again.
    handshake_due: Timestamp,
    connected: bool,
    /// Its last RTCP.
    reported: Timestamp,
    /// Nothing has been heard of it for some time.
    silent: bool,
    /// ICE has begun anew, and the new session has found no way yet.
    restarting: bool,
    next_report: Timestamp,
    told: Timestamp,
    /// Until when it may begin with what was sent lately.
    begins: Option<Timestamp>,
    keyframe_wanted: bool,
    /// No other keyframe is asked for before.
    quiet: Timestamp,
    events: VecDeque<PeerEvent>,
    over: bool,
    /// The packet at hand, before it is encrypted.
    clear: Vec<u8>,
}

impl Connection {
    pub(super) fn new(
        setup: Setup,
        subscriber: Arc<Subscriber>,
        counters: Arc<Counters>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let Setup { identity, role, fingerprints, ice_role, local, remote, candidates, ssrcs, cname } = setup;
        let secure = match role {
            DtlsRole::Server => Some(Secure::accept(&identity, fingerprints.clone())?),
            DtlsRole::Client => None,
        };
        Ok(Self {
            agent: Agent::new(identity.crypto(), ice_role, local, remote, candidates, now),
            identity,
            fingerprints,
            secure,
            ssrcs,
            introductions: Introductions::new(cname),
            audio: None,
            video: None,
            subscriber,
            counters,
            pacer: Pacer::new(now),
            paced: None,
            reports: Reports::new(ssrcs.video, ssrcs.audio),
            protection: Protection::default(),
            began: now,
            handshake_due: now,
            connected: false,
            reported: now,
            silent: false,
            restarting: false,
            next_report: now,
            told: now,
            begins: None,
            keyframe_wanted: false,
            quiet: now,
            events: VecDeque::new(),
            over: false,
            clear: Vec::new(),
        })
    }

    /// What the viewer gets from now on; a stream that goes on keeps its numbers.
    pub(super) fn set_formats(&mut self, taken: &Taken) {
        let levels = taken.extension(engine::HEARD_LEVELS);
        for (stream, format) in [(&mut self.audio, &taken.audio_out), (&mut self.video, &taken.video_out)] {
            match (stream.as_ref(), format) {
                (Some(known), Some(format)) if known.format() == format => {}
                (_, Some(format)) => *stream = Some(Stream::new(format, taken.flexfec, levels, self.ssrcs)),
                (_, None) => *stream = None,
            }
        }
        let reported = if self.video.is_some() { self.ssrcs.video } else { self.ssrcs.audio };
        self.reports = Reports::new(self.ssrcs.video, reported);
    }

    /// Another address of the viewer.
    pub(super) fn add_candidate(&mut self, address: SocketAddr, now: Timestamp) {
        self.agent.add_candidate(address, now);
    }

    /// ICE begins anew; media goes on where it goes until another way is found.
    pub(super) fn restart_ice(&mut self, local: Credentials, remote: Credentials, now: Timestamp) {
        self.agent.restart(local, remote, now);
        self.restarting = self.connected;
    }

    /// How what we send arrives, by the latest report.
    pub(super) fn reception(&self) -> Reception {
        self.reports.latest()
    }

    /// What has happened.
    pub(super) fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Nothing comes of it any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Sends no video for so long.
    pub(super) fn pause(&mut self, pause: Duration, now: Timestamp) {
        self.pacer.hold_until(now + pause);
    }

    /// The subscriber has news other than packets.
    pub(super) fn heard(&mut self, news: News) {
        match news {
            News::Packets => {}
            News::KeyframeWanted => self.keyframe_wanted = true,
            News::Switched => self.events.push_back(PeerEvent::Switched),
        }
    }

    /// When [`Connection::tick`] is needed next.
    pub(super) fn deadline(&self) -> Timestamp {
        let deadline = self.agent.deadline();
        if !self.connected {
            return deadline.min(self.handshake_due);
        }
        let keyframe = self.keyframe_wanted.then_some(self.quiet);
        let waits = [self.paced, self.begins, keyframe, Some(self.next_report)];
        waits.into_iter().flatten().fold(deadline, Timestamp::min)
    }

    /// Takes a datagram.
    pub(super) fn handle(&mut self, moment: Moment, from: SocketAddr, datagram: &[u8], out: &mut Out) {
        if self.over {
            return;
        }
        if stun::is_stun(datagram) {
            if let Some(answer) = self.agent.handle(moment.now, from, datagram) {
                out.push((from, BytesMut::from(&answer[..])));
            }
            self.agent_moved(moment, out);
            // A check that comes is often answered by one of ours.
            self.check(moment.now, out);
        } else if !self.agent.has_validated(from) {
            self.counters.strange_in.fetch_add(1, Ordering::Relaxed);
        } else if secure::is_dtls(datagram) {
            self.agent.arrived(moment.now, from);
            self.handshake(moment, datagram, out);
        } else if datagram.get(1).is_some_and(|second| (192..224).contains(second)) {
            self.agent.arrived(moment.now, from);
            self.rtcp(moment, datagram, out);
        } else {
            self.counters.strange_in.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, moment: Moment, out: &mut Out) {
        let now = moment.now;
        if self.over {
            return;
        }
        self.check(now, out);
        if !self.connected {
            self.handshake_due = now + HANDSHAKE_TICK;
            if let Some(secure) = &mut self.secure {
                secure.tick(now);
            }
            self.flush_handshake(out);
            if now.since(self.began) > CONNECT_TIMEOUT {
                self.end(PeerEvent::Lost, "it never connected");
            }
            return;
        }
        if self.agent.has_expired(now) {
            return self.end(PeerEvent::Lost, "it fell silent");
        }
        if !self.silent && now.since(self.heard_of()) > STALE {
            self.silent = true;
            self.events.push_back(PeerEvent::Disconnected);
        }
        if self.begins.is_some_and(|begins| begins <= now) {
            self.begins = None;
            self.keyframe_wanted |= self.subscriber.flowing().is_none();
        }
        if self.keyframe_wanted && self.quiet <= now {
            self.keyframe_wanted = false;
            self.quiet = now + KEYFRAME_INTERVAL;
            self.events.push_back(PeerEvent::KeyframeWanted);
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_EVERY;
            self.report(moment, false, out);
        }
        if self.paced.is_some_and(|paced| paced <= now) {
            self.pump(now, out);
        }
    }

    /// Sends what the subscriber has, as fast as it may leave.
    pub(super) fn pump(&mut self, now: Timestamp, out: &mut Out) {
        self.paced = None;
        let Some(to) = self.agent.selected().filter(|_| self.connected && !self.over) else { return };
        loop {
            let wait = self.pacer.wait(now);
            // Sound never waits for video to be allowed.
            let outgoing = if wait.is_none() { self.subscriber.pop() } else { self.subscriber.pop_audio() };
            let Some(outgoing) = outgoing else {
                self.paced = wait.filter(|_| self.subscriber.has_video()).map(|wait| now + wait);
                return;
            };
            let (stream, packet, resumes, heard) = match &outgoing {
                Outgoing::Audio(packet, heard) => (self.audio.as_mut(), packet, false, Some(heard)),
                Outgoing::Video { packet, resumes } => (self.video.as_mut(), packet, *resumes, None),
                Outgoing::Left(csrc) => {
                    if self.introductions.left(*csrc) {
                        self.next_report = now;
                    }
                    continue;
                }
            };
            let Some(stream) = stream else { continue };
            heard.into_iter().for_each(|heard| self.introductions.heard(heard));
            match stream.format().codec.kind() {
                Kind::Audio => self.pacer.sound(packet.payload.len(), now),
                Kind::Video => self.pacer.sent(packet.payload.len()),
            }
            let header = stream.packet(now, packet, resumes, heard, &mut self.clear);
            self.counters.packets_out.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes_out.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
            self.protect(to, &header, out);
            let repair = self.video.as_mut().and_then(|video| video.repair(&mut self.clear));
            if let Some(header) = repair {
                self.pacer.sent(self.clear.len());
                self.protect(to, &header, out);
            }
        }
    }

    /// Says goodbye to the viewer, in RTCP and in DTLS; nothing is told of it.
    pub(super) fn close(&mut self, moment: Moment, out: &mut Out) {
        self.report(moment, true, out);
        if let Some(secure) = &mut self.secure {
            secure.close(moment.instant);
        }
        self.flush_handshake(out);
        self.over = true;
    }

    /// When it last showed that it is there: a way that loses packets may lose checks in a row, but not all reports as well.
    fn heard_of(&self) -> Timestamp {
        self.agent.heard().max(self.reported)
    }

    fn end(&mut self, event: PeerEvent, why: &str) {
        tracing::debug!(why, "a viewer is gone");
        self.over = true;
        self.events.push_back(event);
    }

    fn check(&mut self, now: Timestamp, out: &mut Out) {
        out.extend(self.agent.poll(now).into_iter().map(|(to, check)| (to, BytesMut::from(&check[..]))));
    }

    /// ICE may have found a way, or found it again.
    fn agent_moved(&mut self, moment: Moment, out: &mut Out) {
        if self.agent.selected().is_none() {
            return;
        }
        if self.secure.is_none() {
            match Secure::connect(&self.identity, self.fingerprints.clone(), moment.instant) {
                Ok(secure) => self.secure = Some(secure),
                Err(error) => {
                    return self.end(PeerEvent::Lost, &format!("the DTLS handshake cannot begin: {error}"));
                }
            }
        }
        self.flush_handshake(out);
        let heard_again = self.silent && moment.now.since(self.heard_of()) < STALE;
        if heard_again || self.restarting && self.agent.is_established() {
            (self.silent, self.restarting) = (false, false);
            self.begin(moment.now);
        }
    }

    fn handshake(&mut self, moment: Moment, datagram: &[u8], out: &mut Out) {
        let Some(secure) = &mut self.secure else { return };
        let progress = secure.handshake(moment, datagram);
        self.flush_handshake(out);
        match progress {
            Ok(Progress::Connected) => {
                self.connected = true;
                // Reports to a thousand who came together are not to go out together.
                self.next_report = moment.now + REPORT_FIRST + REPORT_FIRST.mul_f32(rand::random());
                self.begin(moment.now);
            }
            Ok(Progress::Closed) => self.end(PeerEvent::Goodbye, "it said goodbye"),
            Ok(Progress::None) => {}
            // Anybody can send a bad datagram; only a handshake that cannot go on is the end.
            Err(error) if !self.connected => {
                self.end(PeerEvent::Lost, &format!("the DTLS handshake failed: {error}"));
            }
            Err(error) => tracing::debug!(%error, "a bad DTLS datagram"),
        }
    }

    /// Media can flow, or can flow again: what was lost on the way before is not repaired, so it begins with a keyframe.
    fn begin(&mut self, now: Timestamp) {
        self.subscriber.resume();
        self.begins = self.video.is_some().then(|| now + BEGIN_TIMEOUT);
        self.events.push_back(PeerEvent::Connected);
    }

    /// What DTLS has to say waits until it is known that somebody there wants it.
    fn flush_handshake(&mut self, out: &mut Out) {
        let (Some(secure), Some(to)) = (&mut self.secure, self.agent.selected()) else { return };
        while let Some(datagram) = secure.poll() {
            out.push((to, datagram));
        }
    }

    fn rtcp(&mut self, moment: Moment, datagram: &[u8], out: &mut Out) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        let Ok(clear) = keys.inn.decrypt_rtcp(datagram) else { return };
        self.reported = moment.now;
        let Ok(packets) = rtcp::packet::unmarshal(&mut clear.freeze()) else { return };
        for packet in packets {
            if let Some(nack) = packet.as_any().downcast_ref::<TransportLayerNack>() {
                self.repeat(moment.now, nack, out);
                continue;
            }
            let told = self.reports.read(&*packet, moment.instant);
            self.keyframe_wanted |= told.keyframe_wanted;
            if told.reception && moment.now.since(self.told) >= RECEPTION_INTERVAL {
                self.told = moment.now;
                let backlog = self.subscriber.backlog(moment.now);
                // What it estimates was not agreed upon: some tell by it what they get, not what they could.
                let reception = tier::Reception { backlog, estimate: None, ..self.reports.latest().told() };
                self.protection.report(&reception, self.reports.latest().rtt);
                if let Some(video) = &mut self.video {
                    video.protect(self.protection.group());
                }
                self.events.push_back(PeerEvent::Reception(reception));
            }
        }
    }

    fn repeat(&mut self, now: Timestamp, nack: &TransportLayerNack, out: &mut Out) {
        let Some(to) = self.agent.selected() else { return };
        for sequence in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
            let video = self.video.as_mut().filter(|video| video.ssrc() == nack.media_ssrc);
            let Some(header) = video.and_then(|video| video.again(now, sequence, &mut self.clear)) else { continue };
            self.protect(to, &header, out);
        }
    }

    /// Sends reports; `last` says goodbye behind them (RFC 3550 section 6.3.7).
    fn report(&mut self, moment: Moment, last: bool, out: &mut Out) {
        let streams = self.audio.iter().chain(&self.video);
        let reports: Vec<_> = streams.filter_map(|stream| stream.report(moment.now)).collect();
        let Some(to) = self.agent.selected().filter(|_| !reports.is_empty()) else { return };
        let streams: Vec<u32> = reports.iter().map(|report| report.ssrc).collect();
        let mut packets: Vec<Box<dyn rtcp::Packet>> = Vec::new();
        for report in reports {
            self.reports.sent(&report, moment.instant);
            packets.push(Box::new(report));
        }
        packets.extend(self.introductions.behind(&streams, true));
        if last {
            packets.push(Box::new(self.introductions.goodbye(&streams)));
        }
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        if let Ok(encrypted) = rtcp::packet::marshal(&packets).and_then(|plain| keys.out.encrypt_rtcp(&plain)) {
            out.push((to, encrypted));
        }
    }

    /// Encrypts the packet at hand.
    fn protect(&mut self, to: SocketAddr, header: &rtp::Header, out: &mut Out) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        match keys.out.encrypt_rtp_with_header(&self.clear, header) {
            Ok(encrypted) => out.push((to, encrypted)),
            Err(error) => tracing::debug!(%error, "a packet could not be encrypted"),
        }
    }
}
