//! A client, a network and the server's connection in virtual time, for tests of [`Connection`].
//!
//! Owns: [`World`] with its [`Client`], made of the same protocols as the server. Does not know: what is tested.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::SourceDescription;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp;
use rtc::shared::marshal::{Marshal, Unmarshal};

use crate::fanout::{Bell, Contributors, Demand, GopCache, Names, Subscriber};
use crate::id::{ParticipantId, ViewName};
use crate::media::{Codec, EncodedPacket, Sounds, SourceKind, SourcePacket};
use crate::peer::connection::{Connection, Out};
use crate::peer::negotiation::Negotiation;
use crate::peer::{Counters, PeerEvent, SourceSink};
use crate::sdp::Offer;
use crate::tier::Ladder;
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, Credentials, Role};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::{srtp, stun};

pub(super) const SERVER: &str = "192.0.2.1:8189";
pub(super) const CLIENT: &str = "198.51.100.7:5000";
const LATENCY: Duration = Duration::from_millis(15);
const STEP: Duration = Duration::from_millis(5);

pub(super) fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

pub(super) fn identity() -> Arc<Identity> {
    Arc::new(Identity::new(rtc::crypto::default_provider().expect("ring is built in")).expect("a certificate"))
}

/// A bell without effect: the world polls after every step.
#[derive(Debug)]
struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// Keeps what arrives of the client's sources.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) packets: Mutex<Vec<(SourceKind, Codec, SourcePacket)>>,
    pub(super) ended: Mutex<Vec<SourceKind>>,
    /// RIDs of the encodings that were received one after the other.
    pub(super) encodings: Mutex<Vec<String>>,
    pub(super) unselected: Mutex<usize>,
}

impl SourceSink for Sink {
    fn packet(&self, _: &str, kind: SourceKind, codec: Codec, packet: SourcePacket) {
        self.packets.lock().push((kind, codec, packet));
    }

    fn flush(&self) {}

    fn encoding(&self, _: SourceKind, rid: &str) {
        self.encodings.lock().push(rid.to_owned());
    }

    fn unselected(&self) {
        *self.unselected.lock() += 1;
    }

    fn ended(&self, kind: SourceKind) {
        self.ended.lock().push(kind);
    }
}

pub(super) struct Client {
    pub(super) identity: Arc<Identity>,
    pub(super) opens: bool,
    pub(super) agent: Agent,
    pub(super) local: Credentials,
    pub(super) address: SocketAddr,
    pub(super) secure: Option<Secure>,
    pub(super) expected: String,
    pub(super) connected: bool,
    pub(super) failed: bool,
    pub(super) closed: bool,
    pub(super) video: Vec<rtp::Packet>,
    pub(super) audio: Vec<rtp::Packet>,
    pub(super) repaired: usize,
    pub(super) reports: Vec<SenderReport>,
    pub(super) described: bool,
    /// Streams that are over, as RTCP says.
    pub(super) over: Vec<u32>,
    pub(super) asked: Timestamp,
    /// What it sends.
    pub(super) upstream: Option<Upstream>,
}

/// Header extension ids of the offer.
pub(super) const TRANSPORT_CC: u8 = 3;
pub(super) const MID: u8 = 4;
/// SSRCs of the client's camera, its retransmissions, and its microphone.
pub(super) const CAMERA: u32 = 5_000;
pub(super) const CAMERA_RTX: u32 = 5_001;
pub(super) const MICROPHONE: u32 = 6_000;

/// The streams that a participant sends, and what it has received of feedback.
#[derive(Default)]
pub(super) struct Upstream {
    /// Added to the SSRCs above.
    pub(super) generation: u32,
    /// When it begins to send.
    pub(super) began: Option<Timestamp>,
    pub(super) camera: u16,
    pub(super) microphone: u16,
    pub(super) rtx: u16,
    pub(super) transport: u16,
    /// By sequence number.
    pub(super) sent: HashMap<u16, Bytes>,
    pub(super) frames: u32,
    pub(super) ticks: u32,
    pub(super) repeated: usize,
    pub(super) feedback: usize,
    pub(super) reports: Vec<ReceptionReport>,
    pub(super) keyframe_requests: Vec<u32>,
    pub(super) limits: Vec<f32>,
    pub(super) compounds: Vec<Vec<Box<dyn rtcp::Packet>>>,
}

impl Upstream {
    pub(super) fn packet(&mut self, ssrc: u32, payload_type: u8, sequence_number: u16, payload: Bytes) -> rtp::Packet {
        let mut header =
            rtp::Header { version: 2, marker: true, ssrc, payload_type, sequence_number, ..rtp::Header::default() };
        header.timestamp = if payload_type == 111 { self.ticks * 960 } else { self.frames * 3_000 };
        let mid = if payload_type == 111 { "0" } else { "1" };
        header.set_extension(MID, Bytes::from_static(mid.as_bytes())).expect("fits");
        let transport = Bytes::copy_from_slice(&self.transport.to_be_bytes());
        header.set_extension(TRANSPORT_CC, transport).expect("fits");
        self.transport = self.transport.wrapping_add(1);
        rtp::Packet { header, payload }
    }

    /// What is due: frames of two packets at 30 a second, audio at 50.
    pub(super) fn due(&mut self, micros: u64) -> Vec<rtp::Packet> {
        let mut packets = Vec::new();
        while u64::from(self.frames) * 33_333 < micros {
            for _ in 0..2 {
                let payload = Bytes::copy_from_slice(&self.camera.to_be_bytes());
                self.sent.insert(self.camera, payload.clone());
                packets.push(self.packet(CAMERA + self.generation, 96, self.camera, payload));
                self.camera = self.camera.wrapping_add(1);
            }
            self.frames += 1;
        }
        while u64::from(self.ticks) * 20_000 < micros {
            packets.push(self.packet(MICROPHONE + self.generation, 111, self.microphone, Bytes::from_static(b"opus")));
            self.microphone = self.microphone.wrapping_add(1);
            self.ticks += 1;
        }
        packets
    }

    /// Takes RTCP of the server; gives what is sent again.
    pub(super) fn rtcp(&mut self, packets: Vec<Box<dyn rtcp::Packet>>) -> Vec<rtp::Packet> {
        let mut again = Vec::new();
        for packet in &packets {
            let any = packet.as_any();
            if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
                assert_eq!(nack.media_ssrc, CAMERA + self.generation);
                for sequence in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
                    let Some(payload) = self.sent.get(&sequence) else { panic!("{sequence} was never sent") };
                    let payload = [&sequence.to_be_bytes()[..], payload].concat().into();
                    again.push(self.packet(CAMERA_RTX, 97, self.rtx, payload));
                    self.rtx = self.rtx.wrapping_add(1);
                    self.repeated += 1;
                }
            }
            self.feedback += usize::from(any.is::<TransportLayerCc>());
            let reports = any.downcast_ref::<SenderReport>().map(|report| &report.reports);
            let reports = reports.or_else(|| any.downcast_ref::<ReceiverReport>().map(|report| &report.reports));
            self.reports.extend(reports.into_iter().flatten().cloned());
            let request = any.downcast_ref::<PictureLossIndication>();
            self.keyframe_requests.extend(request.map(|request| request.media_ssrc));
            let remb = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>();
            self.limits.extend(remb.map(|remb| remb.bitrate));
        }
        self.compounds.push(packets);
        again
    }
}

impl Client {
    pub(super) fn handle(&mut self, moment: Moment, from: SocketAddr, datagram: &[u8], out: &mut Out) {
        if stun::is_stun(datagram) {
            out.extend(self.agent.handle(moment.now, from, datagram).map(|answer| (from, BytesMut::from(&answer[..]))));
        } else if secure::is_dtls(datagram) {
            match self.secure.as_mut().map(|secure| secure.handshake(moment, datagram)) {
                Some(Ok(Progress::Connected)) => self.connected = true,
                Some(Ok(Progress::Closed)) => self.closed = true,
                Some(Err(_)) => self.failed = true,
                _ => {}
            }
        } else {
            self.media(datagram, out);
        }
    }

    /// Sends RTP.
    pub(super) fn send(&mut self, packets: Vec<rtp::Packet>, out: &mut Out) {
        let (Some(keys), Some(to)) = (self.secure.as_mut().and_then(Secure::keys), self.agent.selected()) else {
            return;
        };
        for packet in packets {
            let plain = packet.marshal().expect("RTP");
            let mut packet = srtp::copied(&plain);
            keys.encrypt_rtp(&mut packet).expect("encrypts");
            out.push((to, packet));
        }
    }

    pub(super) fn media(&mut self, datagram: &[u8], out: &mut Out) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        if (192..224).contains(&datagram[1]) {
            let mut clear = BytesMut::from(datagram);
            keys.decrypt_rtcp(&mut clear).expect("ours");
            let packets = rtcp::packet::unmarshal(&mut clear.freeze()).expect("RTCP");
            for packet in &packets {
                self.described |= packet.as_any().is::<SourceDescription>();
                self.over.extend(packet.as_any().downcast_ref::<Goodbye>().into_iter().flat_map(|bye| &bye.sources));
                self.reports.extend(packet.as_any().downcast_ref::<SenderReport>().cloned());
                if let Some(feedback) = packet.as_any().downcast_ref::<TransportLayerNack>() {
                    assert!(self.upstream.is_some(), "{feedback:?} to a client that sends nothing");
                }
            }
            let again = self.upstream.as_mut().map(|upstream| upstream.rtcp(packets)).unwrap_or_default();
            self.send(again, out);
            return;
        }
        let mut clear = BytesMut::from(datagram);
        keys.decrypt_rtp(&mut clear).expect("ours");
        let mut packet = rtp::Packet::unmarshal(&mut clear.freeze()).expect("RTP");
        match packet.header.payload_type {
            111 => self.audio.push(packet),
            96 => self.video.push(packet),
            97 => {
                self.repaired += 1;
                packet.header.sequence_number = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
                packet.header.ssrc -= 1;
                packet.payload = packet.payload.slice(2..);
                self.video.push(packet);
            }
            other => panic!("nobody offered {other}"),
        }
    }

    pub(super) fn tick(&mut self, moment: Moment, out: &mut Out) {
        out.extend(self.agent.poll(moment.now).into_iter().map(|(to, check)| (to, BytesMut::from(&check[..]))));
        if self.secure.is_none() && self.agent.is_established() {
            let expected = vec![self.expected.clone()];
            self.secure = Some(if self.opens {
                Secure::connect(&self.identity, expected, moment.instant).expect("begins")
            } else {
                Secure::accept(&self.identity, expected).expect("begins")
            });
        }
        if let Some(secure) = &mut self.secure {
            secure.tick(moment.now);
        }
        if self.connected && moment.now.since(self.asked) > Duration::from_millis(60) {
            self.asked = moment.now;
            let missing = self.missing();
            if let (false, Some(first)) = (missing.is_empty(), self.video.first()) {
                let nacks = nack_pairs_from_sequence_numbers(&missing);
                let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: first.header.ssrc, nacks };
                self.say(&[Box::new(nack)], out);
            }
        }
        if self.connected
            && let Some(upstream) = &mut self.upstream
        {
            // A DTLS server may have the keys before its client: what it sends at once would be lost.
            let began = *upstream.began.get_or_insert(moment.now + Duration::from_millis(50));
            let due = upstream.due(moment.now.since(began).as_micros() as u64);
            self.send(due, out);
        }
        self.flush(out);
    }

    pub(super) fn flush(&mut self, out: &mut Out) {
        let (Some(secure), Some(to)) = (&mut self.secure, self.agent.selected()) else { return };
        while let Some(datagram) = secure.poll() {
            out.push((to, datagram));
        }
    }

    pub(super) fn say(&mut self, packets: &[Box<dyn rtcp::Packet>], out: &mut Out) {
        let (Some(keys), Some(to)) = (self.secure.as_mut().and_then(Secure::keys), self.agent.selected()) else {
            return;
        };
        let plain = rtcp::packet::marshal(packets).expect("RTCP");
        let mut packet = srtp::copied(&plain);
        keys.encrypt_rtcp(&mut packet).expect("encrypts");
        out.push((to, packet));
    }

    /// Sequence numbers between the first and the last that came which did not.
    pub(super) fn missing(&self) -> Vec<u16> {
        let Some(first) = self.video.first().map(|packet| packet.header.sequence_number) else { return Vec::new() };
        let mut seen: Vec<u16> =
            self.video.iter().map(|packet| packet.header.sequence_number.wrapping_sub(first)).collect();
        seen.sort_unstable();
        let last = seen.last().copied().unwrap_or_default();
        (0..last)
            .filter(|number| seen.binary_search(number).is_err())
            .map(|number| number.wrapping_add(first))
            .collect()
    }
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) base: Instant,
    pub(super) server: Connection,
    pub(super) negotiation: Negotiation,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) sink: Arc<Sink>,
    pub(super) counters: Arc<Counters>,
    pub(super) demand: Arc<Demand>,
    pub(super) client: Client,
    /// Datagrams on the way: arrival time, whether the server receives it, source address, contents.
    pub(super) wire: Vec<(Timestamp, bool, SocketAddr, BytesMut)>,
    pub(super) loss: f64,
    pub(super) dice: StdRng,
    pub(super) events: Vec<PeerEvent>,
    /// When the server is to be ticked.
    pub(super) due: Timestamp,
    pub(super) recent: GopCache,
    pub(super) frame: u32,
    pub(super) tick: u32,
    /// The client runs.
    pub(super) client_runs: bool,
    pub(super) sent: usize,
}

/// The offer of the client, and faults of both ends.
#[derive(Clone, Copy)]
pub(super) struct Scenario {
    /// Of the client's sections.
    pub(super) direction: &'static str,
    pub(super) setup: &'static str,
    pub(super) client_shows_another: bool,
    pub(super) server_shows_another: bool,
    /// It offers the simulcast encodings `q`, `h` and `f`.
    pub(super) simulcast: bool,
    pub(super) seed: u64,
}

/// A viewer.
pub(super) const VIEWER: Scenario = Scenario {
    direction: "recvonly",
    setup: "actpass",
    client_shows_another: false,
    server_shows_another: false,
    simulcast: false,
    seed: 1,
};
/// A client that sends a camera and a microphone too.
pub(super) const PARTICIPANT: Scenario = Scenario { direction: "sendrecv", ..VIEWER };

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let Scenario { direction, setup, client_shows_another, server_shows_another, simulcast, seed } = scenario;
        let (theirs, ours) = (identity(), identity());
        let local = Credentials::random();
        let offer: String = include_str!("../description/chromium.sdp")
            .lines()
            .map(str::trim_end)
            .filter(|line| !["a=ssrc", "a=msid", "a=candidate"].iter().any(|prefix| line.starts_with(prefix)))
            .map(|line| match line.split(':').next().unwrap_or_default() {
                "a=sendrecv" => format!("a={direction}"),
                "a=ice-ufrag" => format!("a=ice-ufrag:{}", local.ufrag),
                "a=ice-pwd" => format!("a=ice-pwd:{}", local.password),
                "a=setup" => format!("a=setup:{setup}"),
                "a=fingerprint" => format!("a=fingerprint:sha-256 {}", theirs.fingerprint),
                _ => line.to_owned(),
            })
            .fold(String::new(), |text, line| text + &line + "\r\n");
        let encodings = "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n";
        let offer = if simulcast { offer + encodings } else { offer };
        let read = Offer::parse(&offer).expect("an offer");
        let facts = read.facts(&[Codec::Vp8], &Sounds::default()).expect("can be answered");
        let candidates = vec![format!("candidate:1 1 udp 1 192.0.2.1 8189 typ host")];
        let mut negotiation = Negotiation::begin(ours, candidates, &read, &facts).expect("can be answered");
        let answer = negotiation.answer().sdp;
        let said =
            |prefix: &str| answer.lines().find_map(|line| line.strip_prefix(prefix)).expect("it says").to_owned();
        let remote = Credentials { ufrag: said("a=ice-ufrag:"), password: said("a=ice-pwd:") };
        let expected = if server_shows_another { "AB:".repeat(31) + "AB" } else { said("a=fingerprint:sha-256 ") };
        let now = Timestamp::from_micros(1_000_000);
        let theirs = if client_shows_another { identity() } else { theirs };
        let crypto = theirs.crypto();
        let client = Client {
            agent: Agent::new(crypto, Role::Controlling, local.clone(), remote, vec![at(SERVER)], now),
            identity: theirs,
            opens: said("a=setup:") == "passive",
            local,
            address: at(CLIENT),
            secure: None,
            expected,
            connected: false,
            failed: false,
            closed: false,
            video: Vec::new(),
            audio: Vec::new(),
            repaired: 0,
            reports: Vec::new(),
            described: false,
            over: Vec::new(),
            asked: now,
            upstream: (direction == "sendrecv").then(Upstream::default),
        };
        let (subscriber, sink) = (Arc::new(Subscriber::with_bell(Arc::new(Silent))), Arc::<Sink>::default());
        let counters = Arc::<Counters>::default();
        let demand = Arc::new(Demand::default());
        subscriber.attach(ParticipantId(1), Arc::clone(&demand), Ladder::default().costs(), now);
        subscriber.assign(Some((ViewName::program(), Codec::Vp8)), None, now);
        subscriber.want(1);
        let mut server = Connection::new(
            negotiation.setup(),
            Arc::clone(&subscriber),
            Arc::clone(&sink) as Arc<dyn SourceSink>,
            Arc::clone(&counters),
            now,
        )
        .expect("begins");
        server.agree(negotiation.agreement(), negotiation.kinds());
        #[expect(
            clippy::disallowed_methods,
            reason = "an `Instant` cannot be had otherwise; it only counts from there"
        )]
        let base = Instant::now();
        Self {
            now,
            base,
            server,
            negotiation,
            subscriber,
            sink,
            counters,
            demand,
            client,
            wire: Vec::new(),
            loss: 0.0,
            dice: StdRng::seed_from_u64(seed),
            events: Vec::new(),
            due: now,
            recent: GopCache::default(),
            frame: 30,
            tick: 50,
            client_runs: true,
            sent: 0,
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.now, instant: self.base + Duration::from_micros(self.now.as_micros()) }
    }

    pub(super) fn post(&mut self, to_server: bool, from: SocketAddr, out: Out) {
        for (to, datagram) in out {
            if !to_server {
                self.sent += 1;
            }
            let lost = self.dice.random_bool(self.loss);
            let reaches = if to_server { to == at(SERVER) } else { to == self.client.address && self.client_runs };
            if reaches && !lost {
                self.wire.push((self.now + LATENCY, to_server, from, datagram));
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + STEP;
            self.feed();
            let moment = self.moment();
            let (mut from_server, mut from_client) = (Out::new(), Out::new());
            let (due, later) = std::mem::take(&mut self.wire).into_iter().partition(|(when, ..)| *when <= self.now);
            self.wire = later;
            for (_, to_server, from, datagram) in due {
                if to_server {
                    self.server.handle(moment, from, datagram, &mut from_server);
                } else {
                    self.client.handle(moment, from, &datagram, &mut from_client);
                }
            }
            if self.due <= self.now {
                self.server.tick(moment, &mut from_server);
            }
            self.server.pump(self.now, &mut from_server);
            self.due = self.server.deadline();
            if self.client_runs {
                self.client.tick(moment, &mut from_client);
            }
            self.post(false, at(SERVER), from_server);
            let address = self.client.address;
            self.post(true, address, from_client);
            while let Some(event) = self.server.poll_event() {
                self.events.push(event);
            }
        }
    }

    /// Frames of two packets at 30 a second, one in thirty a keyframe; sound at 50.
    pub(super) fn feed(&mut self) {
        let micros = self.now.as_micros();
        while u64::from(self.frame) * 33_333 < micros {
            for part in 0..2 {
                let packet = EncodedPacket {
                    timestamp: self.frame * 3_000,
                    marker: part == 1,
                    starts_keyframe: part == 0 && self.frame.is_multiple_of(30),
                    payload: Bytes::from(vec![0x10; 500]),
                };
                self.recent.push(&packet);
                self.subscriber.push_video(1, &packet, &self.recent, self.now);
            }
            self.frame += 1;
        }
        while u64::from(self.tick) * 20_000 < micros {
            let payload = Bytes::from_static(b"a mix of everyone");
            let packet = EncodedPacket { timestamp: self.tick * 960, marker: false, starts_keyframe: true, payload };
            self.subscriber.push_audio(&packet, &Contributors::of(&[(ParticipantId(3), 30)], None, &Names::default()));
            self.tick += 1;
        }
    }

    pub(super) fn count(&self, event: PeerEvent) -> usize {
        self.events.iter().filter(|known| **known == event).count()
    }

    pub(super) fn say(&mut self, packets: &[Box<dyn rtcp::Packet>]) {
        let mut out = Out::new();
        self.client.say(packets, &mut out);
        let address = self.client.address;
        self.post(true, address, out);
    }
}

impl Sink {
    /// Sequence numbers that arrived of this kind, each once and in order.
    pub(super) fn sequences(&self, wanted: SourceKind) -> BTreeSet<u16> {
        let packets = self.packets.lock();
        packets.iter().filter(|(kind, ..)| *kind == wanted).map(|(.., packet)| packet.sequence).collect()
    }
}
