//! A client of the same crate in the same process, over loopback.

pub(crate) mod client;
mod connection;
mod dtls;
mod moving;
mod restart;
mod rtcp;
mod simulcast;
mod world;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use webrtc::media_stream::track_local::TrackLocal;

use self::client::{Client, PATIENCE, PAYLOAD, Seen, track};
use super::*;
use crate::fanout::{Contributors, Demand, GopCache, Names};
use crate::id::ParticipantId;
use crate::media::{EncodedPacket, Rotation, Sounds};
use crate::tier::Ladder;
use crate::time::{now, unix_micros};

const SCREEN: u32 = 3333;

type Taken = (String, SourceKind, Codec, SourcePacket);

/// Passes the packets of a peer's sources on when it is flushed, as the link to a mixer does.
struct Sink {
    waiting: Mutex<Vec<Taken>>,
    flushed: mpsc::Sender<Taken>,
    ended: Arc<Mutex<Vec<SourceKind>>>,
}

impl Sink {
    fn new(flushed: mpsc::Sender<Taken>, ended: Arc<Mutex<Vec<SourceKind>>>) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), flushed, ended })
    }
}

impl SourceSink for Sink {
    fn packet(&self, mid: &str, kind: SourceKind, codec: Codec, packet: SourcePacket) {
        self.waiting.lock().push((mid.to_owned(), kind, codec, packet));
    }

    fn flush(&self) {
        for packet in self.waiting.lock().drain(..) {
            let _ = self.flushed.try_send(packet);
        }
    }

    fn encoding(&self, _: SourceKind, _: &str) {}

    fn unselected(&self) {}

    fn ended(&self, kind: SourceKind) {
        self.ended.lock().push(kind);
    }
}

struct Server {
    config: PeerConfig,
    peer: Peer,
    events: mpsc::Receiver<PeerEvent>,
    packets: mpsc::Receiver<Taken>,
    /// Sources that have said goodbye.
    ended: Arc<Mutex<Vec<SourceKind>>>,
    etag: String,
    demand: Arc<Demand>,
}

fn parse(text: &str) -> (Offer, Facts) {
    let offer = Offer::parse(text).expect("an offer");
    let facts = offer.facts(&[Codec::Vp8, Codec::H264], &Sounds::default()).expect("can be answered");
    (offer, facts)
}

impl Server {
    async fn answer(text: &str) -> (Self, String) {
        let mux = Mux::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Vec::new()).expect("binds");
        let config = PeerConfig::new(mux).expect("starts");
        let (events_in, events) = mpsc::channel(64);
        let (packets_in, packets) = mpsc::channel(4096);
        let (offer, facts) = parse(text);
        let ended = Arc::default();
        let sink = Sink::new(packets_in, Arc::clone(&ended));
        let (peer, answer) = Peer::answer(&config, &offer, &facts, sink, events_in).expect("can be answered");
        let demand = Arc::new(Demand::default());
        peer.subscriber().attach(ParticipantId(1), demand.clone(), Ladder::default().costs(), now());
        peer.subscriber().want(1);
        (Self { config, peer, events, packets, ended, etag: answer.etag, demand }, answer.sdp)
    }

    /// Waits until the peer has requested a keyframe of its stream.
    async fn keyframe_requested(&self) {
        let search = async {
            while !self.demand.take().keyframes.contains(&1) {
                self.demand.changed().await;
            }
        };
        timeout(PATIENCE, search).await.expect("it comes");
    }

    async fn wait(&mut self, wanted: impl Fn(&PeerEvent) -> bool) {
        let search = async { while !wanted(&self.events.recv().await.expect("the peer lives")) {} };
        timeout(PATIENCE, search).await.expect("it comes");
    }

    /// Sends from the client until a packet of this kind arrives.
    async fn packet_of(&mut self, client: &mut Client, kind: SourceKind) -> Taken {
        let arrives = async {
            loop {
                client.send_both().await;
                while let Ok(taken) = timeout(Duration::from_millis(20), self.packets.recv()).await {
                    let taken = taken.expect("the peer lives");
                    if taken.1 == kind {
                        return taken;
                    }
                }
            }
        };
        timeout(PATIENCE, arrives).await.expect("it arrives")
    }

    /// Pushes a keyframe and a tick of sound until the client has one of each.
    async fn reaches(&self, client: &mut Client) -> (rtp::Packet, rtp::Packet) {
        let (mut video, mut audio) = (None, None);
        let mut time = 0;
        let reaches = async {
            while video.is_none() || audio.is_none() {
                time += 3_000;
                let mut recent = GopCache::default();
                recent.push(&frame(time));
                self.peer.subscriber().want(1);
                self.peer.subscriber().push_video(1, &frame(time), &recent, now());
                let mix = EncodedPacket { payload: Bytes::from_static(b"mix"), ..frame(time) };
                let both = [(ParticipantId(1), 40), (ParticipantId(7), 20)];
                let heard = Contributors::of(&both, Some(ParticipantId(1)), &Names::default());
                self.peer.subscriber().push_audio(&mix, &heard);
                while let Ok(Some(seen)) = timeout(Duration::from_millis(20), client.seen.recv()).await {
                    match seen {
                        Seen::Rtp(packet) if packet.payload[..] == *b"mix" => audio = Some(packet),
                        Seen::Rtp(packet) => video = Some(packet),
                        _ => {}
                    }
                }
            }
        };
        timeout(PATIENCE, reaches).await.expect("both arrive");
        (video.expect("loop ended"), audio.expect("loop ended"))
    }
}

fn frame(timestamp: u32) -> EncodedPacket {
    EncodedPacket { timestamp, marker: true, starts_keyframe: true, payload: Bytes::from_static(PAYLOAD) }
}

/// A participant in a call of one.
async fn call() -> (Client, Server) {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = client.offer(None).await;
    let (mut server, answer) = Server::answer(&offer).await;
    client.answered(&answer).await;
    client.connected().await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    (client, server)
}

/// Seconds from the epoch of NTP (1900) to that of Unix (RFC 868).
const NTP_TO_UNIX: i64 = 2_208_988_800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_have_capture_times_after_a_sender_report() {
    let (mut client, mut server) = call().await;
    for kind in [SourceKind::Camera, SourceKind::Microphone] {
        let (_, _, _, first) = server.packet_of(&mut client, kind).await;
        let dated = async {
            loop {
                let (_, _, _, packet) = server.packet_of(&mut client, kind).await;
                if let Some(captured) = packet.captured {
                    return captured;
                }
            }
        };
        let captured = timeout(PATIENCE, dated).await.expect("the client sends reports");
        let ntp = unix_micros() as i64 + NTP_TO_UNIX * 1_000_000;
        // The test's client invents RTP timestamps, so they are not exactly those of the present.
        let age = ntp - captured.as_micros() as i64;
        assert!(age.abs() < 3_600_000_000, "{kind:?} was captured {age} µs ago; first: {first:?}");
    }
    server.peer.close().await;
    client.pc.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_flows_both_ways() {
    let (mut client, mut server) = call().await;
    server.keyframe_requested().await;
    let (mid, _, codec, packet) = server.packet_of(&mut client, SourceKind::Camera).await;
    assert_eq!((&*mid, codec, &packet.payload[..]), ("1", Codec::Vp8, PAYLOAD));
    assert!(packet.marker && packet.audio_level.is_none());
    let (mid, _, codec, packet) = server.packet_of(&mut client, SourceKind::Microphone).await;
    assert_eq!((&*mid, codec, packet.audio_level, &packet.payload[..]), ("0", Codec::Opus, Some(42), &b"opus"[..]));

    let (video, audio) = server.reaches(&mut client).await;
    assert_eq!((video.header.payload_type, audio.header.payload_type), (96, 111));
    assert_eq!(&video.payload[..], PAYLOAD);
    assert_ne!(video.header.ssrc, audio.header.ssrc);
    assert_eq!((audio.header.csrc, video.header.csrc), (vec![7], vec![]), "who is heard is named, but for oneself");
    let stats = server.peer.stats();
    assert!(stats.packets_in >= 2 && stats.packets_out >= 2 && stats.unrouted_in == 0, "{stats:?}");
    server.peer.close().await;
    client.pc.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_orientation_extension_reaches_the_sink() {
    let (mut client, mut server) = call().await;
    for (byte, wanted) in [(1, Rotation::Right), (2, Rotation::Half), (3, Rotation::Left), (0, Rotation::None)] {
        // The upper bits tell which camera it is and whether it is mirrored.
        client.orientation = 0x0c | byte;
        let said =
            async { while server.packet_of(&mut client, SourceKind::Camera).await.3.rotation != Some(wanted) {} };
        timeout(PATIENCE, said).await.expect("it is passed on");
    }
}

fn without_ssrcs(offer: &str) -> String {
    offer.lines().filter(|line| !line.starts_with("a=ssrc")).map(|line| format!("{line}\r\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_announced_ssrcs_arrive_from_their_first_packet_on() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = without_ssrcs(&client.offer(None).await);
    let (mut server, answer) = Server::answer(&offer).await;
    client.answered(&answer).await;
    client.connected().await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    let mut first = std::collections::BTreeMap::new();
    let both = async {
        while first.len() < 2 {
            client.send_both().await;
            while let Ok(Some((mid, _, codec, packet))) =
                timeout(Duration::from_millis(20), server.packets.recv()).await
            {
                first.entry(mid).or_insert((codec, packet.sequence));
            }
        }
    };
    timeout(PATIENCE, both).await.expect("both arrive");
    let expected = [("0".to_owned(), (Codec::Opus, 2)), ("1".to_owned(), (Codec::Vp8, 1))];
    assert!(first.into_iter().eq(expected), "each from its first packet on");
    server.peer.request_keyframe("1").await;
    client.receives("a keyframe request", |packet| packet.as_any().is::<PictureLossIndication>()).await;
    server.reaches(&mut client).await;

    // They stay known when the client offers anew, and when it restarts ICE.
    let again = client.offer(Some(RTCOfferOptions { ice_restart: true })).await;
    let (read, facts) = parse(&without_ssrcs(&again));
    let answer = server.peer.renegotiate(read, facts).await.expect("can be answered");
    client.answered(&answer.sdp).await;
    while server.packets.try_recv().is_ok() {}
    for kind in [SourceKind::Camera, SourceKind::Microphone] {
        server.packet_of(&mut client, kind).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_section_needs_no_announced_ssrc() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = without_ssrcs(&client.offer(None).await);
    let video = offer.find("m=video").expect("has one");
    let alone = offer[..video].replace("BUNDLE 0 1", "BUNDLE 0");
    let (mut server, answer) = Server::answer(&alone).await;
    let refused = "m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=inactive\r\n\
        a=rtpmap:96 VP8/90000\r\n";
    client.answered(&format!("{answer}{refused}")).await;
    client.connected().await;
    assert_eq!(server.packet_of(&mut client, SourceKind::Microphone).await.0, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyframes_are_requested_in_both_directions() {
    let (mut client, mut server) = call().await;
    server.keyframe_requested().await;
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.peer.request_keyframe("1").await;
    client.receives("a keyframe request", |packet| packet.as_any().is::<PictureLossIndication>()).await;

    let (video, _) = server.reaches(&mut client).await;
    server.demand.take();
    let tracks = client.remote.lock().clone();
    for track in tracks {
        if track.kind().await == RtpCodecKind::Video {
            let request = PictureLossIndication { sender_ssrc: 1, media_ssrc: video.header.ssrc };
            track.write_rtcp(vec![Box::new(request)]).await.expect("asks");
        }
    }
    server.keyframe_requested().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uplink_limit_is_sent_as_remb() {
    let (mut client, mut server) = call().await;
    server.peer.limit(Some(559_000));
    server.packet_of(&mut client, SourceKind::Camera).await;
    let limited = |to: f32| {
        move |packet: &dyn rtc::rtcp::Packet| {
            let remb = packet.as_any().downcast_ref::<ReceiverEstimatedMaximumBitrate>();
            remb.is_some_and(|remb| (remb.bitrate - to).abs() < 1_000.0 && remb.ssrcs == [client::VIDEO])
        }
    };
    client.receives("REMB", limited(559_000.0)).await;
    server.peer.limit(Some(320_000));
    client.receives("REMB with the new limit", limited(320_000.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_receives_and_sends_no_media() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Recvonly).await;
    let offer = client.offer(None).await;
    let (mut server, answer) = Server::answer(&offer).await;
    assert!(answer.contains("a=sendonly") && !answer.contains("a=sendrecv"));
    client.answered(&answer).await;
    client.connected().await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    server.reaches(&mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_offers_setup_passive_connects() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = client.offer(None).await.replace("a=setup:actpass", "a=setup:passive");
    let (mut server, answer) = Server::answer(&offer).await;
    assert!(answer.contains("a=setup:active"));
    client.answered(&answer).await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    server.packet_of(&mut client, SourceKind::Camera).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoofed_datagrams_change_nothing() {
    let (mut client, mut server) = call().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let media = server.config.mux.local_addr();
    let hello = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 1][..], &[0; 63]].concat();
    let goodbye = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0];
    let srtp = [&[0x80, 96, 0, 1][..], &[7; 60]].concat();
    for _ in 0..20 {
        for datagram in [&hello[..], &goodbye, &srtp] {
            stranger.send_to(datagram, media).await.expect("sends");
        }
    }
    let counted = async {
        while server.config.mux.stats().dropped_unvalidated.load(Ordering::Relaxed) < 60 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.expect("all are dropped");
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.reaches(&mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ice_restarts_by_a_fragment_and_media_goes_on() {
    let (mut client, mut server) = call().await;
    let offer = client.offer(Some(RTCOfferOptions { ice_restart: true })).await;
    let value = |name: &str| {
        let prefix = format!("a={name}:");
        offer.lines().find_map(|line| line.strip_prefix(&prefix)).expect("has it").trim().to_owned()
    };
    let candidates: Vec<&str> = offer.lines().filter(|line| line.starts_with("a=candidate:")).collect();
    let fragment = format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{}\r\n",
        value("ice-ufrag"),
        value("ice-pwd"),
        candidates.join("\r\n"),
    );
    let (text, etag) =
        server.peer.restart_ice(&Fragment::parse(&fragment).expect("a fragment")).await.expect("restarts");
    assert_ne!(etag, server.etag, "a new ICE session has a new entity tag");
    let ours = |name: &str| {
        let prefix = format!("a={name}:");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).expect("has it").to_owned()
    };
    assert_eq!(ours("ice-ufrag"), etag);
    // What a WHIP client does with the fragment: the last answer with the new credentials.
    let answer = client.pc.remote_description().await.expect("has one").sdp;
    let answer: String = answer
        .lines()
        .map(|line| match line.split_once(':').map(|(name, _)| name) {
            Some("a=ice-ufrag") => format!("a=ice-ufrag:{}\r\n", ours("ice-ufrag")),
            Some("a=ice-pwd") => format!("a=ice-pwd:{}\r\n", ours("ice-pwd")),
            _ => format!("{line}\r\n"),
        })
        .collect();
    client.answered(&answer).await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    server.keyframe_requested().await;
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.reaches(&mut client).await;

    let again = server.peer.restart_ice(&Fragment::parse(&fragment).expect("a fragment")).await;
    assert!(matches!(again, Err(PeerError::Fragment(_))), "the same credentials are no restart");
    server.packet_of(&mut client, SourceKind::Camera).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candidates_may_come_later_but_not_of_another_session() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = client.offer(None).await;
    let bare: String =
        offer.lines().filter(|line| !line.starts_with("a=candidate")).map(|line| format!("{line}\r\n")).collect();
    let (mut server, answer) = Server::answer(&bare).await;
    // The client cannot find us by itself: its answer has no candidates of ours.
    let deaf: String =
        answer.lines().filter(|line| !line.starts_with("a=candidate")).map(|line| format!("{line}\r\n")).collect();
    client.answered(&deaf).await;
    let (read, _) = parse(&offer);
    let candidate = offer.lines().find(|line| line.starts_with("a=candidate")).expect("has one");
    let fragment = |ufrag: &str| {
        let text =
            format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{}\r\nm=audio 9 X 0\r\na=mid:0\r\n{candidate}\r\n", read.pwd);
        Fragment::parse(&text).expect("a fragment")
    };
    assert!(matches!(server.peer.add_candidates(&fragment("other")).await, Err(PeerError::Fragment(_))));
    server.peer.add_candidates(&fragment(&read.ufrag)).await.expect("fits");
    server.wait(|event| *event == PeerEvent::Connected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_is_added_by_a_new_offer_and_stopped_again() {
    let (mut client, mut server) = call().await;
    let screen = track(RtpCodecKind::Video, SCREEN);
    let init = RTCRtpTransceiverInit {
        direction: RTCRtpTransceiverDirection::Sendonly,
        streams: Vec::new(),
        send_encodings: Vec::new(),
    };
    let transceiver =
        client.pc.add_transceiver_from_track(screen.clone() as Arc<dyn TrackLocal>, Some(init)).await.expect("adds");
    let renegotiate = async |client: &mut Client, server: &Server| {
        let offer = client.pc.create_offer(None).await.expect("offers");
        client.pc.set_local_description(offer).await.expect("sets");
        let text = client.pc.local_description().await.expect("has one").sdp;
        let (offer, facts) = parse(&text);
        let answer = server.peer.renegotiate(offer, facts).await.expect("can be answered");
        assert_eq!(answer.etag, server.etag, "the same ICE session");
        client.answered(&answer.sdp).await;
        answer.sdp
    };
    let answer = renegotiate(&mut client, &server).await;
    assert!(answer.contains("a=mid:2"), "{answer}");
    let arrives = async {
        loop {
            client.send(SCREEN, &screen, 96, PAYLOAD).await;
            if let Ok(Some((mid, SourceKind::Screen, codec, _))) =
                timeout(Duration::from_millis(20), server.packets.recv()).await
            {
                return (mid, codec);
            }
        }
    };
    assert_eq!(timeout(PATIENCE, arrives).await.expect("it arrives"), ("2".to_owned(), Codec::Vp8));
    server.packet_of(&mut client, SourceKind::Camera).await;

    transceiver.set_direction(RTCRtpTransceiverDirection::Inactive).await.expect("stops");
    renegotiate(&mut client, &server).await;
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.reaches(&mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dtls_close_ends_the_session_at_once() {
    let (client, mut server) = call().await;
    client.pc.close().await.expect("closes");
    let closed = server.wait(|event| *event == PeerEvent::Goodbye);
    timeout(Duration::from_secs(4), closed).await.expect("within four seconds");
    assert!(server.events.recv().await.is_none(), "nothing follows");
    server.peer.close().await;
    let (_, facts) = parse(include_str!("../description/chromium.sdp"));
    let offer = Offer::parse(include_str!("../description/chromium.sdp")).expect("an offer");
    let late = server.peer.renegotiate(offer, facts).await;
    assert!(matches!(late, Err(PeerError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_is_idempotent_and_removes_the_connection() {
    let (client, mut server) = call().await;
    server.peer.close().await;
    server.peer.close().await;
    while let Some(event) = server.events.recv().await {
        assert!(!matches!(event, PeerEvent::Goodbye | PeerEvent::Lost), "it was us");
    }
    assert!(server.config.mux.stats().received.load(Ordering::Relaxed) > 0);
    let ended = async {
        // Its checks reach nobody any more.
        while server.config.mux.stats().dropped_unknown_ufrag.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the connection is forgotten");
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_peer_ends_its_session() {
    let (_client, server) = call().await;
    let Server { peer, mut events, .. } = server;
    drop(peer);
    let ended = async { while events.recv().await.is_some() {} };
    timeout(PATIENCE, ended).await.expect("its task ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_events_are_not_received_ends() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let text = client.offer(None).await;
    let mux = Mux::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Vec::new()).expect("binds");
    let (offer, facts) = parse(&text);
    let (packets_in, _packets) = mpsc::channel(16);
    // The second Connected, after an ICE restart, is one too many.
    let (events_in, mut events) = mpsc::channel(1);
    let config = PeerConfig::new(mux).expect("starts");
    let sink = Sink::new(packets_in, Arc::default());
    let (peer, answer) = Peer::answer(&config, &offer, &facts, sink, events_in).expect("answers");
    client.answered(&answer.sdp).await;
    client.connected().await;
    let (offer, facts) = parse(&client.offer(Some(RTCOfferOptions { ice_restart: true })).await);
    let answer = peer.renegotiate(offer, facts).await.expect("can be answered");
    client.answered(&answer.sdp).await;
    timeout(PATIENCE, peer.requests.closed()).await.expect("the session ends");
    assert_eq!(events.recv().await, Some(PeerEvent::Connected));
}
