//! One client's connection, from the answer to the end: ICE, DTLS, SRTP, RTP and RTCP put together. Sans-IO.
//!
//! Owns: what is due when, and what goes on the wire; [`media`] has RTP in both directions, [`control`] has RTCP. Does
//! not know: sockets, threads, SDP text, rooms. Datagrams go in by [`Connection::handle`], time by
//! [`Connection::tick`], the subscriber's packets by [`Connection::pump`]; datagrams leave in the caller's list,
//! packets of sources by the [`SourceSink`], and events by [`Connection::poll_event`].
//!
//! A datagram that is not STUN counts only from an address that ICE has validated, and media leaves only to an address
//! that has answered a check and consents (RFC 7675).

mod control;
#[cfg(any(test, fuzzing))]
pub(in crate::peer) mod fuzz;
mod media;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rtc::shared::error::Error;

use super::description::{Agreement, DtlsRole};
use super::keyframe_budget::KeyframeBudget;
use super::reports::ReportReader;
use super::sdes::SourceDescriptions;
use super::sender::SendStream;
use super::sources::Sources;
use super::ssrcs::Ssrcs;
use super::twcc::{FeedbackGenerator, SentPackets};
use super::{Counters, PeerEvent, SourceSink};
use crate::fanout::Subscriber;
use crate::media::{Kind, SourceKind, Tier};
use crate::simulcast::Spliced;
use crate::tier::{Downlink, Pacer, Protection};
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, CONSENT_EXPIRES, Credentials, Role, STALE};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::stun;

/// A client that has not connected by then never will.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The client's keyframe requests are passed on at most this often.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(200);
/// A client that is connected and has no video after so long needs a keyframe; until then what was sent lately may do.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the handshake looks whether something must be sent again.
const HANDSHAKE_TICK: Duration = Duration::from_millis(100);

/// Datagrams to be sent, and where to.
pub(super) type Out = Vec<(SocketAddr, BytesMut)>;

/// What a connection begins with.
pub(super) struct Setup {
    pub(super) identity: Arc<Identity>,
    pub(super) role: DtlsRole,
    /// The client's certificate has one of these fingerprints (SHA-256).
    pub(super) fingerprints: Vec<String>,
    pub(super) ice_role: Role,
    pub(super) local: Credentials,
    pub(super) remote: Credentials,
    /// Addresses of the client's candidates.
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) ssrcs: Ssrcs,
    pub(super) cname: String,
}

pub(super) struct Connection {
    agent: Agent,
    identity: Arc<Identity>,
    fingerprints: Vec<String>,
    /// None until we may send the ClientHello.
    secure: Option<Secure>,
    began: Timestamp,
    /// When the handshake next looks whether something must be sent again.
    handshake_due: Timestamp,
    connected: bool,
    /// When something authentic last arrived.
    received: Timestamp,
    /// Nothing has arrived for some time.
    silent: bool,
    /// ICE has restarted, and the new session has no selected pair yet.
    restarting: bool,
    over: bool,
    events: VecDeque<PeerEvent>,
    counters: Arc<Counters>,

    sources: Sources,
    sink: Arc<dyn SourceSink>,
    has_unflushed_media: bool,
    /// Memory for the packets of one stream that simulcast makes; empty between packets.
    spliced: Vec<Spliced>,
    /// Feedback to the client; None where it is not agreed upon.
    feedback: Option<FeedbackGenerator>,
    /// The client's limit for what it sends, in bits per second.
    uplink_limit: Option<u64>,
    /// When the limit is repeated.
    limit_due: Timestamp,
    /// A lower limit, and from when on it is valid.
    next_limit: Option<(Option<u64>, Timestamp)>,

    ssrcs: Ssrcs,
    audio: Option<SendStream>,
    video: Option<SendStream>,
    descriptions: SourceDescriptions,
    subscriber: Arc<Subscriber>,
    pacer: Pacer,
    /// Video, or a retransmission, waits for the pacer until then.
    paced: Option<Timestamp>,
    /// The client has transport-wide feedback; then every packet has a number.
    numbers_packets: bool,
    sent: SentPackets,
    downlink: Downlink,
    /// When transport-wide feedback last came.
    feedback_received: Option<Timestamp>,
    /// The client's REMB is agreed upon.
    takes_remb: bool,
    reports: ReportReader,
    protection: Protection,
    /// When the room was last notified how packets arrive.
    reception_reported: Timestamp,
    next_report: Timestamp,
    /// Until when the client may begin with what was sent lately.
    begins: Option<Timestamp>,
    keyframe_wanted: bool,
    /// No other keyframe is asked for before.
    keyframe_due: Timestamp,
    keyframe_budget: KeyframeBudget,
}

impl Connection {
    pub(super) fn new(
        setup: Setup,
        subscriber: Arc<Subscriber>,
        sink: Arc<dyn SourceSink>,
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
            began: now,
            handshake_due: now,
            connected: false,
            received: now,
            silent: false,
            restarting: false,
            over: false,
            events: VecDeque::new(),
            counters,
            sources: Sources::default(),
            sink,
            has_unflushed_media: false,
            spliced: Vec::new(),
            feedback: None,
            uplink_limit: None,
            limit_due: now,
            next_limit: None,
            ssrcs,
            audio: None,
            video: None,
            descriptions: SourceDescriptions::new(cname),
            subscriber,
            pacer: Pacer::new(now),
            paced: None,
            numbers_packets: false,
            sent: SentPackets::default(),
            downlink: Downlink::default(),
            feedback_received: None,
            takes_remb: false,
            reports: ReportReader::new(ssrcs.video, ssrcs.audio),
            protection: Protection::default(),
            reception_reported: now,
            next_report: now,
            begins: None,
            keyframe_wanted: false,
            keyframe_due: now,
            keyframe_budget: KeyframeBudget::new(now),
        })
    }

    /// What is sent and received from now on. `kinds` says what each section of the client carries. Streams that go on
    /// keep their numbers.
    pub(super) fn agree(&mut self, agreement: &Agreement, kinds: &[(String, SourceKind)]) {
        self.sources.agree(agreement, kinds);
        for (kind, stream) in [(Kind::Audio, &mut self.audio), (Kind::Video, &mut self.video)] {
            match (stream.as_mut(), agreement.sends(kind)) {
                (Some(known), Some((format, _))) if known.format() == format => {
                    known.set_extensions(agreement.extensions);
                }
                (_, Some((format, fec))) => {
                    *stream = Some(SendStream::new(format, fec, agreement.extensions, self.ssrcs));
                }
                (_, None) => *stream = None,
            }
        }
        let reported = if self.video.is_some() { self.ssrcs.video } else { self.ssrcs.audio };
        self.reports.set_reported(reported);
        self.numbers_packets = agreement.extensions.transport_cc.is_some();
        let receives = agreement.accepted().any(|(_, section)| section.stream.is_some());
        match agreement.extensions.transport_cc.filter(|_| receives) {
            None => self.feedback = None,
            Some(id) => {
                self.feedback.get_or_insert_with(|| FeedbackGenerator::new(id));
            }
        }
        let sent = || agreement.accepted().filter(|(_, section)| section.sends.is_some());
        self.takes_remb = sent().any(|(_, section)| section.takes("goog-remb"));
    }

    /// Another address of the client.
    pub(super) fn add_candidate(&mut self, address: SocketAddr, now: Timestamp) {
        self.agent.add_candidate(address, now);
    }

    /// ICE restarts; media goes on by the selected pair until another one is found.
    pub(super) fn restart_ice(&mut self, local: Credentials, remote: Credentials, now: Timestamp) {
        self.agent.restart(local, remote, now);
        self.restarting = self.connected;
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Whether the connection has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// When [`Connection::tick`] is needed next.
    pub(super) fn deadline(&self) -> Timestamp {
        let deadline = self.agent.deadline();
        if !self.connected {
            return deadline.min(self.handshake_due);
        }
        let keyframe = self.keyframe_wanted.then_some(self.keyframe_due);
        let limit = self.uplink_limit.map(|_| self.limit_due);
        let next_limit = self.next_limit.map(|(_, due)| due);
        let feedback = self.feedback.as_ref().and_then(FeedbackGenerator::deadline);
        let waits = [self.paced, self.begins, keyframe, limit, next_limit, feedback, Some(self.next_report)];
        waits.into_iter().flatten().chain(self.sources.feedback_deadline()).fold(deadline, Timestamp::min)
    }

    /// Takes a datagram.
    pub(super) fn handle(&mut self, moment: Moment, from: SocketAddr, datagram: BytesMut, out: &mut Out) {
        if self.over {
            return;
        }
        if stun::is_stun(&datagram) {
            if let Some(answer) = self.agent.handle(moment.now, from, &datagram) {
                out.push((from, BytesMut::from(&answer[..])));
            }
            if self.agent.has_validated(from) {
                self.received = moment.now;
            }
            self.follow_ice(moment, out);
            // A check that arrives often has one of ours as its consequence.
            self.check(moment.now, out);
        } else if !self.agent.has_validated(from) {
            self.counters.unrouted_in.fetch_add(1, Ordering::Relaxed);
        } else {
            self.agent.arrived(moment.now, from);
            // RFC 7983 and RFC 5761 section 4.
            match datagram.get(1) {
                _ if secure::is_dtls(&datagram) => self.handshake(moment, &datagram, out),
                Some(192..=223) => self.rtcp(moment, datagram, out),
                Some(_) => self.rtp(moment, datagram),
                None => {
                    self.counters.unrouted_in.fetch_add(1, Ordering::Relaxed);
                }
            }
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
        // Some clients that only send stop answering checks: they are sent nothing (RFC 7675), and received.
        if self.agent.has_expired(now) && now.since(self.received) > CONSENT_EXPIRES {
            return self.end(PeerEvent::Lost, "nothing has arrived for too long");
        }
        if !self.silent && now.since(self.alive()) > STALE {
            self.silent = true;
            self.events.push_back(PeerEvent::Disconnected);
        }
        self.come_back(now);
        if self.begins.is_some_and(|begins| begins <= now) {
            self.begins = None;
            self.keyframe_wanted |= self.subscriber.flowing().is_none();
        }
        if self.keyframe_wanted && self.keyframe_due <= now {
            let tier = self.subscriber.selected().map_or(Tier::Low, |stream| stream.tier);
            match self.keyframe_budget.spend(tier, now) {
                Ok(()) => {
                    self.keyframe_wanted = false;
                    self.keyframe_due = now + KEYFRAME_INTERVAL;
                    self.subscriber.request_keyframe();
                }
                Err(wait) => {
                    self.keyframe_due = now + wait;
                    self.counters.keyframes_deferred.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        self.send_feedback(moment, out);
        if self.next_report <= now {
            self.report(moment, false, out);
        }
        if self.paced.is_some_and(|paced| paced <= now) {
            self.pump(now, out);
        }
    }

    /// Sends BYE and the close alert of DTLS; no event follows.
    pub(super) fn close(&mut self, moment: Moment, out: &mut Out) {
        if self.connected && !self.over {
            self.report(moment, true, out);
        }
        if let Some(secure) = &mut self.secure {
            secure.close(moment.instant);
        }
        self.flush_handshake(out);
        self.over = true;
    }

    /// When the client last gave a sign of life: a path that loses packets may lose some checks in a row, but not all
    /// media as well.
    fn alive(&self) -> Timestamp {
        self.agent.heard().max(self.received)
    }

    /// Where media may be sent to.
    fn destination(&self, now: Timestamp) -> Option<SocketAddr> {
        self.agent.selected().filter(|_| !self.agent.has_expired(now))
    }

    fn end(&mut self, event: PeerEvent, reason: &str) {
        tracing::debug!(reason, "a connection has ended");
        self.over = true;
        self.events.push_back(event);
    }

    fn check(&mut self, now: Timestamp, out: &mut Out) {
        out.extend(self.agent.poll(now).into_iter().map(|(to, check)| (to, BytesMut::from(&check[..]))));
    }

    /// ICE may have selected a pair, or found one again.
    fn follow_ice(&mut self, moment: Moment, out: &mut Out) {
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
        self.come_back(moment.now);
        if self.restarting && self.agent.is_established() {
            self.restarting = false;
            self.begin(moment.now);
        }
    }

    /// A client that was silent may have been received again.
    fn come_back(&mut self, now: Timestamp) {
        if self.silent && now.since(self.alive()) < STALE {
            (self.silent, self.restarting) = (false, false);
            self.begin(now);
        }
    }

    fn handshake(&mut self, moment: Moment, datagram: &[u8], out: &mut Out) {
        let Some(secure) = &mut self.secure else { return };
        let progress = secure.handshake(moment, datagram);
        self.flush_handshake(out);
        match progress {
            Ok(Progress::Connected) => {
                self.connected = true;
                self.schedule_first_report(moment.now);
                self.begin(moment.now);
            }
            Ok(Progress::Closed) => self.end(PeerEvent::Goodbye, "the client has closed DTLS"),
            Ok(Progress::None) => {}
            // Anyone can send a bad datagram; only a handshake that cannot go on is the end.
            Err(error) if !self.connected => {
                self.end(PeerEvent::Lost, &format!("the DTLS handshake failed: {error}"));
            }
            Err(error) => tracing::debug!(%error, "malformed DTLS datagram"),
        }
    }

    /// Media can flow, or can flow again: losses of before are not repaired, so video begins with a keyframe.
    fn begin(&mut self, now: Timestamp) {
        self.subscriber.resume();
        self.begins = self.video.is_some().then(|| now + BEGIN_TIMEOUT);
        self.events.push_back(PeerEvent::Connected);
    }

    /// Sends what DTLS has, once ICE knows an address that wants it.
    fn flush_handshake(&mut self, out: &mut Out) {
        let (Some(secure), Some(to)) = (&mut self.secure, self.agent.selected()) else { return };
        while let Some(datagram) = secure.poll() {
            out.push((to, datagram));
        }
    }
}
