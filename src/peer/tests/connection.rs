//! A client put together from the same protocols, over a network of our own, in virtual time.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
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
use crate::sdp::{Fragment, Offer};
use crate::tier::{Ladder, Limit};
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, Credentials, Role};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::{srtp, stun};

const SERVER: &str = "192.0.2.1:8189";
const CLIENT: &str = "198.51.100.7:5000";
const LATENCY: Duration = Duration::from_millis(15);
const STEP: Duration = Duration::from_millis(5);

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

fn identity() -> Arc<Identity> {
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
struct Sink {
    packets: Mutex<Vec<(SourceKind, Codec, SourcePacket)>>,
    ended: Mutex<Vec<SourceKind>>,
}

impl SourceSink for Sink {
    fn packet(&self, _: &str, kind: SourceKind, codec: Codec, packet: SourcePacket) {
        self.packets.lock().push((kind, codec, packet));
    }

    fn flush(&self) {}

    fn ended(&self, kind: SourceKind) {
        self.ended.lock().push(kind);
    }
}

struct Client {
    identity: Arc<Identity>,
    opens: bool,
    agent: Agent,
    local: Credentials,
    address: SocketAddr,
    secure: Option<Secure>,
    expected: String,
    connected: bool,
    failed: bool,
    closed: bool,
    video: Vec<rtp::Packet>,
    audio: Vec<rtp::Packet>,
    repaired: usize,
    reports: Vec<SenderReport>,
    described: bool,
    /// Streams that are over, as RTCP says.
    over: Vec<u32>,
    asked: Timestamp,
    /// What it sends.
    upstream: Option<Upstream>,
}

/// Header extension ids of the offer.
const TRANSPORT_CC: u8 = 3;
const MID: u8 = 4;
/// SSRCs of the client's camera, its retransmissions, and its microphone.
const CAMERA: u32 = 5_000;
const CAMERA_RTX: u32 = 5_001;
const MICROPHONE: u32 = 6_000;

/// The streams that a participant sends, and what it has received of feedback.
#[derive(Default)]
struct Upstream {
    /// Added to the SSRCs above.
    generation: u32,
    /// When it begins to send.
    began: Option<Timestamp>,
    camera: u16,
    microphone: u16,
    rtx: u16,
    transport: u16,
    /// By sequence number.
    sent: HashMap<u16, Bytes>,
    frames: u32,
    ticks: u32,
    repeated: usize,
    feedback: usize,
    reports: Vec<ReceptionReport>,
    keyframe_requests: Vec<u32>,
    limits: Vec<f32>,
    compounds: Vec<Vec<Box<dyn rtcp::Packet>>>,
}

impl Upstream {
    fn packet(&mut self, ssrc: u32, payload_type: u8, sequence_number: u16, payload: Bytes) -> rtp::Packet {
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
    fn due(&mut self, micros: u64) -> Vec<rtp::Packet> {
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
    fn rtcp(&mut self, packets: Vec<Box<dyn rtcp::Packet>>) -> Vec<rtp::Packet> {
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
    fn handle(&mut self, moment: Moment, from: SocketAddr, datagram: &[u8], out: &mut Out) {
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
    fn send(&mut self, packets: Vec<rtp::Packet>, out: &mut Out) {
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

    fn media(&mut self, datagram: &[u8], out: &mut Out) {
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

    fn tick(&mut self, moment: Moment, out: &mut Out) {
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

    fn flush(&mut self, out: &mut Out) {
        let (Some(secure), Some(to)) = (&mut self.secure, self.agent.selected()) else { return };
        while let Some(datagram) = secure.poll() {
            out.push((to, datagram));
        }
    }

    fn say(&mut self, packets: &[Box<dyn rtcp::Packet>], out: &mut Out) {
        let (Some(keys), Some(to)) = (self.secure.as_mut().and_then(Secure::keys), self.agent.selected()) else {
            return;
        };
        let plain = rtcp::packet::marshal(packets).expect("RTCP");
        let mut packet = srtp::copied(&plain);
        keys.encrypt_rtcp(&mut packet).expect("encrypts");
        out.push((to, packet));
    }

    /// Sequence numbers between the first and the last that came which did not.
    fn missing(&self) -> Vec<u16> {
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

struct World {
    now: Timestamp,
    base: Instant,
    server: Connection,
    negotiation: Negotiation,
    subscriber: Arc<Subscriber>,
    sink: Arc<Sink>,
    counters: Arc<Counters>,
    demand: Arc<Demand>,
    client: Client,
    /// When it arrives, whether at the server, whence, what.
    wire: Vec<(Timestamp, bool, SocketAddr, BytesMut)>,
    loss: f64,
    dice: StdRng,
    events: Vec<PeerEvent>,
    /// When the server is to be ticked.
    due: Timestamp,
    recent: GopCache,
    frame: u32,
    tick: u32,
    /// The client is there.
    there: bool,
    sent: usize,
}

/// What a world differs in.
#[derive(Clone, Copy)]
struct Circumstances {
    /// Of the client's sections.
    direction: &'static str,
    setup: &'static str,
    client_shows_another: bool,
    server_shows_another: bool,
    seed: u64,
}

/// A viewer.
const USUAL: Circumstances = Circumstances {
    direction: "recvonly",
    setup: "actpass",
    client_shows_another: false,
    server_shows_another: false,
    seed: 1,
};
/// A client that sends a camera and a microphone too.
const PARTICIPANT: Circumstances = Circumstances { direction: "sendrecv", ..USUAL };

impl World {
    fn new(circumstances: Circumstances) -> Self {
        let Circumstances { direction, setup, client_shows_another, server_shows_another, seed } = circumstances;
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
            there: true,
            sent: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, instant: self.base + Duration::from_micros(self.now.as_micros()) }
    }

    fn post(&mut self, to_server: bool, from: SocketAddr, out: Out) {
        for (to, datagram) in out {
            if !to_server {
                self.sent += 1;
            }
            let lost = self.dice.random_bool(self.loss);
            let reaches = if to_server { to == at(SERVER) } else { to == self.client.address && self.there };
            if reaches && !lost {
                self.wire.push((self.now + LATENCY, to_server, from, datagram));
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, duration: Duration) {
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
            if self.there {
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
    fn feed(&mut self) {
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

    fn count(&self, event: PeerEvent) -> usize {
        self.events.iter().filter(|known| **known == event).count()
    }

    fn say(&mut self, packets: &[Box<dyn rtcp::Packet>]) {
        let mut out = Out::new();
        self.client.say(packets, &mut out);
        let address = self.client.address;
        self.post(true, address, out);
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_viewer_joins_in_either_dtls_role_and_receives_everything() {
    for setup in ["actpass", "active", "passive"] {
        let mut world = World::new(Circumstances { setup, ..USUAL });
        world.run(4 * SECOND);
        assert!(world.client.connected && !world.client.failed, "a=setup:{setup}");
        assert_eq!(world.count(PeerEvent::Connected), 1);
        let client = &world.client;
        assert!(client.video.len() > 100 && client.audio.len() > 130, "{} {}", client.video.len(), client.audio.len());
        assert_eq!((client.missing(), client.repaired), (Vec::new(), 0));
        assert!(client.video.iter().all(|packet| packet.payload.len() == 500));
        let [audio, video, ..] = client.reports.as_slice() else { panic!("{:?}", client.reports) };
        assert_eq!((audio.ssrc, video.ssrc), (client.audio[0].header.ssrc, client.video[0].header.ssrc));
        assert_eq!(audio.ntp_time, video.ntp_time);
        assert!(client.audio.iter().all(|packet| packet.header.csrc == [3]), "who is heard is named");
        assert!(client.described, "a report without the name that ties sound and pictures together");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Lost packets, those of the handshake included, are sent again, and no others.
    #[test]
    fn lost_packets_are_retransmitted(seed in any::<u64>(), loss in 0.005..0.08_f64) {
        let mut world = World::new(Circumstances { seed, ..USUAL });
        world.loss = loss;
        world.run(12 * SECOND);
        prop_assert!(world.client.connected);
        world.loss = 0.0;
        world.run(SECOND);
        prop_assert_eq!(world.client.missing(), Vec::<u16>::new());
        let packets = world.client.video.len();
        let bound = (packets as f64 * (3.0 * loss + 0.02)) as usize + 5;
        prop_assert!(world.client.repaired <= bound, "{} of {packets} were repeated at {loss}", world.client.repaired);
        prop_assert_eq!(world.count(PeerEvent::Connected), 1);
    }
}

#[test]
fn an_ice_restart_moves_the_media() {
    let mut world = World::new(USUAL);
    world.run(2 * SECOND);
    let local = Credentials::random();
    let text = format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
        local.ufrag, local.password
    );
    let fragment = Fragment::parse(&text).expect("a fragment");
    let (answer, _) = world.negotiation.restart(&fragment).expect("new credentials");
    let (local_ice, remote_ice) = (world.negotiation.local().clone(), world.negotiation.remote().clone());
    world.server.restart_ice(local_ice, remote_ice, world.now);
    world.run(SECOND);
    let before = world.client.video.len();
    assert!(before > 150, "media goes on while ICE begins anew: {before}");
    assert_eq!(world.count(PeerEvent::Connected), 1);
    let said = |prefix: &str| answer.lines().find_map(|line| line.strip_prefix(prefix)).expect("it says").to_owned();
    let remote = Credentials { ufrag: said("a=ice-ufrag:"), password: said("a=ice-pwd:") };
    world.client.agent.restart(local.clone(), remote, world.now);
    world.client.agent.add_candidate(at(SERVER), world.now);
    (world.client.local, world.client.address) = (local, at("203.0.113.9:7000"));
    world.run(SECOND);
    assert_eq!(world.count(PeerEvent::Connected), 2);
    assert!(world.client.video.len() > before + 40, "{} then {}", before, world.client.video.len());
    assert!(matches!(world.negotiation.restart(&fragment), Err(crate::peer::PeerError::Fragment(_))));
}

#[test]
fn closing_works_in_both_directions() {
    let mut world = World::new(USUAL);
    world.run(SECOND);
    let moment = world.moment();
    world.client.secure.as_mut().expect("connected").close(moment.instant);
    world.run(SECOND / 5);
    assert_eq!((world.events.last(), world.server.is_over()), (Some(&PeerEvent::Goodbye), true));

    let mut world = World::new(USUAL);
    world.run(SECOND);
    let (moment, mut out) = (world.moment(), Out::new());
    world.server.close(moment, &mut out);
    world.post(false, at(SERVER), out);
    world.run(SECOND / 5);
    assert!(world.client.closed && world.server.is_over());
    let client = &world.client;
    assert_eq!(client.over, [client.audio[0].header.ssrc, client.video[0].header.ssrc, 3], "RTCP says so too");
    assert_eq!(world.count(PeerEvent::Goodbye) + world.count(PeerEvent::Lost), 0, "it was us");
}

#[test]
fn a_silent_client_is_sent_nothing_after_consent_expires() {
    let mut world = World::new(USUAL);
    world.run(5 * SECOND);
    world.there = false;
    world.run(8 * SECOND);
    assert_eq!(world.count(PeerEvent::Disconnected), 1, "soon enough to ask for an ICE restart");
    world.run(5 * SECOND);
    assert_eq!(world.count(PeerEvent::Disconnected), 1);
    world.there = true;
    world.run(5 * SECOND);
    assert_eq!(world.count(PeerEvent::Connected), 2, "it has come back");
    world.there = false;
    world.run(30 * SECOND);
    assert_eq!((world.events.last(), world.server.is_over()), (Some(&PeerEvent::Lost), true));
    let sent = world.sent;
    world.run(5 * SECOND);
    assert_eq!(world.sent, sent);
}

#[test]
fn a_client_that_never_connects_is_given_up() {
    for circumstances in [USUAL, PARTICIPANT] {
        let mut world = World::new(circumstances);
        world.there = false;
        world.run(14 * SECOND);
        assert_eq!((world.events.len(), world.sent), (0, 0), "no address is known");
        world.run(2 * SECOND);
        assert_eq!(world.events, [PeerEvent::Lost]);
    }
}

#[test]
fn a_wrong_certificate_is_refused_in_either_role() {
    for setup in ["actpass", "passive"] {
        let mut world = World::new(Circumstances { setup, client_shows_another: true, ..USUAL });
        world.run(3 * SECOND);
        assert_eq!(world.events, [PeerEvent::Lost], "a=setup:{setup}");
        assert!(world.client.video.is_empty());
        let mut world = World::new(Circumstances { setup, server_shows_another: true, ..USUAL });
        world.run(16 * SECOND);
        assert!(world.client.failed && world.client.video.is_empty(), "a=setup:{setup}");
    }
}

#[test]
fn datagrams_from_other_addresses_change_nothing() {
    let mut world = World::new(USUAL);
    let stranger = at("203.0.113.66:666");
    let mut hello = Secure::connect(&identity(), Vec::new(), world.base).expect("begins");
    let hello = hello.poll().expect("it opens");
    for _ in 0..40 {
        let (moment, mut out) = (world.moment(), Out::new());
        let srtp = BytesMut::from(&[0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9][..]);
        let alert = BytesMut::from(&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0][..]);
        world.server.handle(moment, stranger, hello.clone(), &mut out);
        world.server.handle(moment, stranger, srtp, &mut out);
        // An alert that closes, as nobody has encrypted it.
        world.server.handle(moment, stranger, alert, &mut out);
        assert!(out.is_empty(), "it got an answer");
        world.run(SECOND / 20);
    }
    assert_eq!(world.events, [PeerEvent::Connected]);
    assert!(world.client.connected && world.client.missing().is_empty() && world.client.video.len() > 60);
}

#[test]
fn feedback_of_a_viewer_reaches_the_room() {
    let mut world = World::new(USUAL);
    world.run(SECOND);
    let media_ssrc = world.client.video[0].header.ssrc;
    world.demand.take();
    let mut asked = 0;
    for n in 0..10 {
        // Each alone, without a report before it: reduced-size RTCP (RFC 5506).
        if n % 2 == 0 {
            world.say(&[Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc })]);
        } else {
            let entry = FirEntry { ssrc: media_ssrc, sequence_number: n };
            world.say(&[Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![entry] })]);
        }
        world.run(SECOND / 10);
        asked += world.demand.take().keyframes.len();
    }
    assert!((3..=6).contains(&asked), "ten requests in a second are {asked}");
    world.run(SECOND);
    let report = ReceptionReport { ssrc: media_ssrc, fraction_lost: 64, ..ReceptionReport::default() };
    world.say(&[Box::new(ReceiverReport { ssrc: 1, reports: vec![report], ..ReceiverReport::default() })]);
    world.run(SECOND / 10);
    let selection = world.subscriber.selection().expect("it is attached");
    assert_eq!(selection.limit, Some(Limit::Loss), "{selection:?}");
    assert_eq!(world.demand.take().selections, BTreeSet::from([ParticipantId(1)]));
    let lost = f32::from_bits(world.counters.fraction_lost.load(Ordering::Relaxed));
    assert!((lost - 0.25).abs() < 0.01);
}

impl Sink {
    /// Sequence numbers that arrived of this kind, each once and in order.
    fn sequences(&self, wanted: SourceKind) -> BTreeSet<u16> {
        let packets = self.packets.lock();
        packets.iter().filter(|(kind, ..)| *kind == wanted).map(|(.., packet)| packet.sequence).collect()
    }
}

#[test]
fn a_participant_sends_and_receives() {
    for setup in ["actpass", "passive"] {
        let mut world = World::new(Circumstances { setup, ..PARTICIPANT });
        world.run(4 * SECOND);
        assert!(world.client.connected && world.client.missing().is_empty(), "a=setup:{setup}");
        let upstream = world.client.upstream.as_ref().expect("it sends");
        // What is on its way is not there yet.
        let camera = world.sink.sequences(SourceKind::Camera);
        let missing: Vec<u16> = (0..upstream.camera.saturating_sub(4)).filter(|n| !camera.contains(n)).collect();
        assert!(missing.is_empty(), "a=setup:{setup}: {missing:?} of {}", upstream.camera);
        assert!(world.sink.sequences(SourceKind::Microphone).len() + 4 >= usize::from(upstream.microphone));
        let packets = world.sink.packets.lock();
        let codec = |wanted: SourceKind| packets.iter().find(|(kind, ..)| *kind == wanted).map(|(_, codec, _)| *codec);
        assert_eq!((codec(SourceKind::Camera), codec(SourceKind::Microphone)), (Some(Codec::Vp8), Some(Codec::Opus)));
        assert_eq!(upstream.repeated, 0);
        assert!((30..=45).contains(&upstream.feedback), "ten a second: {}", upstream.feedback);
        for ssrc in [CAMERA, MICROPHONE] {
            let last = upstream.reports.iter().rfind(|report| report.ssrc == ssrc).expect("it is reported on");
            assert_eq!((last.total_lost, last.fraction_lost), (0, 0));
        }
        assert!(world.demand.take().selections.len() <= 1, "no report changes the tier");
        assert_eq!(world.subscriber.selection().and_then(|selection| selection.limit), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Lost packets of a participant are requested and recovered, and only those.
    #[test]
    fn lost_packets_of_a_camera_are_recovered(seed in any::<u64>(), loss in 0.005..0.08_f64) {
        let mut world = World::new(Circumstances { seed, ..PARTICIPANT });
        world.run(SECOND);
        world.loss = loss;
        world.run(10 * SECOND);
        world.loss = 0.0;
        world.run(SECOND);
        let camera = world.sink.sequences(SourceKind::Camera);
        let (first, last) = (*camera.first().expect("some"), *camera.last().expect("some"));
        let missing = usize::from(last - first) + 1 - camera.len();
        // A gap of which every request or response is lost for 400 ms is given up.
        prop_assert!(missing <= 3, "{missing} of {} are missing at {loss}", camera.len());
        let upstream = world.client.upstream.as_ref().expect("it sends");
        let bound = (camera.len() as f64 * (3.0 * loss + 0.02)) as usize + 5;
        prop_assert!(upstream.repeated <= bound, "{} of {} were repeated at {loss}", upstream.repeated, camera.len());
        let reported = upstream.reports.iter().rfind(|report| report.ssrc == CAMERA).expect("it is reported on");
        let expected = camera.len() as f64 * loss;
        let counted = f64::from(reported.total_lost);
        prop_assert!(counted > expected * 0.4 - 3.0 && counted < expected * 1.8 + 6.0, "{counted} of {expected} are reported");
    }
}

#[test]
fn audio_and_video_continue_when_their_ssrcs_change() {
    let mut world = World::new(PARTICIPANT);
    world.run(2 * SECOND);
    for generation in [10, 20] {
        world.client.upstream.as_mut().expect("it sends").generation = generation;
        world.sink.packets.lock().clear();
        world.run(SECOND);
        assert!(world.sink.sequences(SourceKind::Camera).len() > 50, "generation {generation}");
        assert!(world.sink.sequences(SourceKind::Microphone).len() > 40, "generation {generation}");
    }
    let upstream = world.client.upstream.as_ref().expect("it sends");
    assert!(upstream.reports.iter().any(|report| report.ssrc == CAMERA + 20 && report.total_lost == 0));
}

#[test]
fn a_source_is_asked_for_keyframes_and_limited_and_may_end() {
    let mut world = World::new(PARTICIPANT);
    let ask = |world: &mut World| {
        let (moment, mut out) = (world.moment(), Out::new());
        world.server.request_keyframe("1", moment, &mut out);
        world.post(false, at(SERVER), out);
    };
    ask(&mut world);
    world.run(SECOND);
    for _ in 0..10 {
        ask(&mut world);
        world.run(SECOND / 10);
    }
    let upstream = world.client.upstream.as_mut().expect("it sends");
    assert_eq!(upstream.keyframe_requests, [CAMERA; 2], "ten requests in a second are two");
    world.server.limit_uplink(Some(500_000), world.now);
    world.run(3 * SECOND);
    world.server.limit_uplink(None, world.now);
    world.run(2 * SECOND);
    let limits = &world.client.upstream.as_ref().expect("it sends").limits;
    assert!(limits.len() == 3 && limits.iter().all(|limit| (limit - 500_000.0).abs() < 1_000.0), "{limits:?}");
    let empty = Box::new(ReceiverReport { ssrc: CAMERA, ..ReceiverReport::default() });
    world.say(&[empty, Box::new(Goodbye { sources: vec![CAMERA, 77], ..Goodbye::default() })]);
    world.run(SECOND / 10);
    assert_eq!(*world.sink.ended.lock(), [SourceKind::Camera]);
}

#[test]
fn packets_that_are_not_authentic_are_counted_and_change_nothing() {
    let mut world = World::new(PARTICIPANT);
    world.run(SECOND);
    let before = world.sink.packets.lock().len();
    for n in 0..1_000_u32 {
        let junk = [&[0x80, 96, 0, 1, 0, 0, 0, 0][..], &n.to_be_bytes(), &[7; 40]].concat();
        let (moment, mut out) = (world.moment(), Out::new());
        world.server.handle(moment, at(CLIENT), BytesMut::from(&junk[..]), &mut out);
        assert!(out.is_empty());
    }
    assert_eq!(world.sink.packets.lock().len(), before);
    assert!(world.counters.unrouted_in.load(Ordering::Relaxed) >= 1_000);
    world.run(SECOND);
    assert!(world.sink.packets.lock().len() > before + 90);
}

#[test]
fn packets_with_our_ssrcs_are_not_received() {
    let mut world = World::new(PARTICIPANT);
    world.run(SECOND);
    let ours = [world.client.audio[0].header.ssrc, world.client.video[0].header.ssrc];
    let before = world.counters.unrouted_in.load(Ordering::Relaxed);
    for (ssrc, payload_type) in [(ours[0], 111), (ours[1], 96), (ours[1] + 1, 97)] {
        let (mut out, upstream) = (Out::new(), world.client.upstream.as_mut().expect("it sends"));
        let mirrored = upstream.packet(ssrc, payload_type, 60_000, Bytes::from_static(b"mirrored"));
        world.client.send(vec![mirrored], &mut out);
        world.post(true, at(CLIENT), out);
    }
    world.run(SECOND / 10);
    assert_eq!(world.counters.unrouted_in.load(Ordering::Relaxed), before + 3);
    assert!(!world.sink.packets.lock().iter().any(|(.., packet)| packet.payload[..] == *b"mirrored"));
}

#[test]
fn reports_carry_cname_and_come_from_the_ssrcs_we_send_by() {
    let mut world = World::new(PARTICIPANT);
    world.loss = 0.02;
    world.run(4 * SECOND);
    let ours = [world.client.audio[0].header.ssrc, world.client.video[0].header.ssrc];
    let compounds = &world.client.upstream.as_ref().expect("it sends").compounds;
    let (mut reports, mut feedback) = (0, 0);
    for compound in compounds {
        let first = compound[0].as_any();
        let sender = first.downcast_ref::<SenderReport>().map(|report| report.ssrc);
        let sender = sender.or_else(|| first.downcast_ref::<ReceiverReport>().map(|report| report.ssrc));
        let Some(sender) = sender else {
            feedback += 1;
            continue;
        };
        assert!(ours.contains(&sender));
        let description = compound.iter().find_map(|packet| packet.as_any().downcast_ref::<SourceDescription>());
        let named = description.expect("a report comes with SDES").chunks.iter().any(|chunk| chunk.source == sender);
        assert!(named, "the CNAME of the sender of the report");
        reports += 1;
    }
    assert!(reports >= 3 && feedback > 20, "{reports} {feedback}");
}
