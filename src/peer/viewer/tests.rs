//! A client put together from the same protocols, over a network of our own, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::SourceDescription;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp;
use rtc::shared::marshal::Unmarshal;

use super::super::{Counters, PeerEvent};
use super::connection::{Connection, Out};
use super::negotiation::Negotiation;
use crate::fanout::{Bell, Contributors, Names, News, Recent, Subscriber};
use crate::id::ParticipantId;
use crate::media::{Codec, EncodedPacket, Sounds};
use crate::sdp::{Fragment, Offer};
use crate::time::{Moment, Timestamp};
use crate::transport::ice::{Agent, Credentials, Role};
use crate::transport::secure::{self, Identity, Progress, Secure};
use crate::transport::stun;

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

/// Who is told does not matter: the world looks after every step.
#[derive(Debug)]
struct Silent;

impl Bell for Silent {
    fn ring(&self, _: News) {}
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
            self.media(datagram);
        }
    }

    fn media(&mut self, datagram: &[u8]) {
        let Some(keys) = self.secure.as_mut().and_then(Secure::keys) else { return };
        if (192..224).contains(&datagram[1]) {
            let clear = keys.inn.decrypt_rtcp(datagram).expect("ours");
            for packet in rtcp::packet::unmarshal(&mut clear.freeze()).expect("RTCP") {
                self.described |= packet.as_any().is::<SourceDescription>();
                self.over.extend(packet.as_any().downcast_ref::<Goodbye>().into_iter().flat_map(|bye| &bye.sources));
                self.reports.extend(packet.as_any().downcast_ref::<SenderReport>().cloned());
            }
            return;
        }
        let mut packet =
            rtp::Packet::unmarshal(&mut keys.inn.decrypt_rtp(datagram).expect("ours").freeze()).expect("RTP");
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
        out.push((to, keys.out.encrypt_rtcp(&plain).expect("encrypts")));
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
    client: Client,
    /// When it arrives, whether at the server, whence, what.
    wire: Vec<(Timestamp, bool, SocketAddr, BytesMut)>,
    loss: f64,
    dice: StdRng,
    events: Vec<PeerEvent>,
    /// When the server is to be ticked.
    due: Timestamp,
    recent: Recent,
    frame: u32,
    tick: u32,
    /// The client is there.
    there: bool,
    sent: usize,
}

/// What a world differs in.
#[derive(Clone, Copy)]
struct Circumstances {
    setup: &'static str,
    client_shows_another: bool,
    server_shows_another: bool,
    seed: u64,
}

const USUAL: Circumstances =
    Circumstances { setup: "actpass", client_shows_another: false, server_shows_another: false, seed: 1 };

impl World {
    fn new(circumstances: Circumstances) -> Self {
        let Circumstances { setup, client_shows_another, server_shows_another, seed } = circumstances;
        let (theirs, ours) = (identity(), identity());
        let local = Credentials::random();
        let offer: String = include_str!("../description/chromium.sdp")
            .lines()
            .map(str::trim_end)
            .filter(|line| !["a=ssrc", "a=msid", "a=candidate"].iter().any(|prefix| line.starts_with(prefix)))
            .map(|line| match line.split(':').next().unwrap_or_default() {
                "a=sendrecv" => "a=recvonly".to_owned(),
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
        let mut negotiation = Negotiation::begin(ours, candidates, &read, &offer, &facts).expect("can be answered");
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
        };
        let subscriber = Arc::new(Subscriber::with_bell(Arc::new(Silent)));
        subscriber.want(Some(1));
        let mut server =
            Connection::new(negotiation.setup(), Arc::clone(&subscriber), Arc::new(Counters::default()), now)
                .expect("begins");
        server.set_formats(&negotiation.taken);
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
            client,
            wire: Vec::new(),
            loss: 0.0,
            dice: StdRng::seed_from_u64(seed),
            events: Vec::new(),
            due: now,
            recent: Recent::default(),
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
                    self.server.handle(moment, from, &datagram, &mut from_server);
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
fn a_viewer_joins_in_either_role_and_gets_everything() {
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
    /// Whatever is lost on the way, handshake included, comes again; and no more than that.
    #[test]
    fn what_is_lost_comes_again(seed in any::<u64>(), loss in 0.005..0.08_f64) {
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
    let answer = world.negotiation.restart(&fragment).expect("new credentials");
    world.server.restart_ice(world.negotiation.local().clone(), world.negotiation.taken.ice.clone(), world.now);
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
    assert!(matches!(world.negotiation.restart(&fragment), Err(super::super::PeerError::Fragment(_))));
}

#[test]
fn goodbyes_are_heard_both_ways() {
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
fn who_vanishes_is_sent_nothing_after_half_a_minute() {
    let mut world = World::new(USUAL);
    world.run(5 * SECOND);
    world.there = false;
    world.run(8 * SECOND);
    assert_eq!(world.count(PeerEvent::Disconnected), 1, "soon enough to ask for another way");
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
fn who_never_comes_is_given_up() {
    let mut world = World::new(USUAL);
    world.there = false;
    world.run(14 * SECOND);
    assert_eq!((world.events.len(), world.sent), (0, 0), "nobody is known to be anywhere");
    world.run(2 * SECOND);
    assert_eq!(world.events, [PeerEvent::Lost]);
}

#[test]
fn a_certificate_of_somebody_else_is_not_taken() {
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
fn a_stranger_changes_nothing() {
    let mut world = World::new(USUAL);
    let stranger = at("203.0.113.66:666");
    let mut hello = Secure::connect(&identity(), Vec::new(), world.base).expect("begins");
    let hello = hello.poll().expect("it opens");
    for _ in 0..40 {
        let (moment, mut out) = (world.moment(), Out::new());
        world.server.handle(moment, stranger, &hello, &mut out);
        world.server.handle(moment, stranger, &[0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9], &mut out);
        // An alert that closes, as nobody has encrypted it.
        world.server.handle(moment, stranger, &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0], &mut out);
        assert!(out.is_empty(), "it got an answer");
        world.run(SECOND / 20);
    }
    assert_eq!(world.events, [PeerEvent::Connected]);
    assert!(world.client.connected && world.client.missing().is_empty() && world.client.video.len() > 60);
}

#[test]
fn what_the_viewer_tells_reaches_its_room() {
    let mut world = World::new(USUAL);
    world.run(SECOND);
    let media_ssrc = world.client.video[0].header.ssrc;
    world.events.clear();
    for n in 0..10 {
        // Each alone, without a report before it: reduced-size RTCP (RFC 5506).
        if n % 2 == 0 {
            world.say(&[Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc })]);
        } else {
            let entry = FirEntry { ssrc: media_ssrc, sequence_number: n };
            world.say(&[Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![entry] })]);
        }
        world.run(SECOND / 10);
    }
    let asked = world.count(PeerEvent::KeyframeWanted);
    assert!((3..=6).contains(&asked), "ten requests in a second are {asked}");
    world.run(SECOND);
    world.events.clear();
    let report = ReceptionReport { ssrc: media_ssrc, fraction_lost: 64, ..ReceptionReport::default() };
    world.say(&[Box::new(ReceiverReport { ssrc: 1, reports: vec![report], ..ReceiverReport::default() })]);
    world.run(SECOND / 10);
    let [PeerEvent::Reception(reception)] = world.events.as_slice() else { panic!("{:?}", world.events) };
    assert!((reception.lost - 0.25).abs() < 0.01);
}
