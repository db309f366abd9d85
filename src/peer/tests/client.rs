//! A WebRTC client for tests: what a browser does, with every packet known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, Slot, register_default_interceptors};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::{RTCIceGatheringState, RTCPeerConnectionState};
use rtc::rtcp;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler};

use crate::peer::extensions;
use crate::transport::secure::PROFILES;

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// SSRC of the client's camera.
pub(crate) const VIDEO: u32 = 1111;
/// SSRC of the client's microphone.
pub(crate) const AUDIO: u32 = 2222;
/// A payload that begins a VP8 keyframe.
pub(crate) const PAYLOAD: &[u8] = &[0x10, 0x00, 0x9d, 0x01, 0x2a];

/// What the client's callbacks saw.
pub(crate) enum Seen {
    State(RTCPeerConnectionState),
    Gathered,
    Rtp(rtp::Packet),
}

struct Callbacks(mpsc::Sender<Seen>, Arc<Mutex<Vec<Arc<dyn TrackRemote>>>>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Callbacks {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let _ = self.0.try_send(Seen::State(state));
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.0.try_send(Seen::Gathered);
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.1.lock().push(track.clone());
        let seen = self.0.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let _ = seen.try_send(Seen::Rtp(packet));
                }
            }
        });
    }
}

/// Packets of RTCP, in the order they came.
pub(in crate::peer) type ReceivedRtcp = Arc<Mutex<Vec<Box<dyn rtcp::Packet>>>>;

/// Keeps all RTCP that comes, and passes it on.
struct RtcpTap {
    rtcp: ReceivedRtcp,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for RtcpTap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            self.rtcp.lock().extend(packets.iter().map(|packet| packet.cloned()));
        }
        self.inward.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outward.pop_front()
    }
}

impl Interceptor for RtcpTap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _: &StreamInfo) {}

    fn bind_remote_stream(&mut self, _: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

pub(crate) struct Client {
    pub(crate) pc: Arc<dyn PeerConnection>,
    pub(crate) seen: mpsc::Receiver<Seen>,
    video: Arc<TrackLocalStaticRTP>,
    audio: Arc<TrackLocalStaticRTP>,
    pub(crate) remote: Arc<Mutex<Vec<Arc<dyn TrackRemote>>>>,
    pub(in crate::peer) rtcp: ReceivedRtcp,
    /// How its camera is held, as the extension of 3GPP TS 26.114 says it.
    pub(in crate::peer) orientation: u8,
    sequence: u16,
}

/// A track of ours to send on.
pub(crate) fn track(kind: RtpCodecKind, ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let codec = if kind == RtpCodecKind::Audio {
        RTCRtpCodec {
            mime_type: "audio/opus".into(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".into(),
            rtcp_feedback: Vec::new(),
        }
    } else {
        RTCRtpCodec { mime_type: "video/VP8".into(), clock_rate: 90_000, ..RTCRtpCodec::default() }
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..RTCRtpCodingParameters::default() },
        active: true,
        codec,
        ..RTCRtpEncodingParameters::default()
    };
    let name = format!("track-{ssrc}");
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new("mine".into(), name.clone(), name, kind, vec![encoding])))
}

impl Client {
    /// A client that sends and receives audio and video, or only receives.
    pub(crate) async fn new(direction: RTCRtpTransceiverDirection) -> Self {
        Self::with_profiles(direction, &PROFILES).await
    }

    /// The same, with these SRTP protection profiles (RFC 5764 section 4.1.2).
    pub(in crate::peer) async fn with_profiles(
        direction: RTCRtpTransceiverDirection,
        profiles: &[SrtpProtectionProfile],
    ) -> Self {
        let (sender, seen) = mpsc::channel(4096);
        let remote = Arc::new(Mutex::new(Vec::new()));
        let mut engine = MediaEngine::default();
        engine.register_default_codecs().expect("codecs");
        let level = RTCRtpHeaderExtensionCapability { uri: extensions::AUDIO_LEVEL.into() };
        engine.register_header_extension(level, RtpCodecKind::Audio, None).expect("extension");
        let orientation = RTCRtpHeaderExtensionCapability { uri: extensions::ORIENTATION.into() };
        engine.register_header_extension(orientation, RtpCodecKind::Video, None).expect("extension");
        let registry = register_default_interceptors(Registry::new(), &mut engine).expect("interceptors");
        let rtcp = ReceivedRtcp::default();
        let ear = RtcpTap { rtcp: Arc::clone(&rtcp), inward: VecDeque::new(), outward: VecDeque::new() };
        let registry = registry.with(Slot::from(90), ear);
        let settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_srtp_protection_profiles(profiles.to_vec())
            .build();
        let pc = PeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .with_setting_engine(settings)
            .with_handler(Arc::new(Callbacks(sender, Arc::clone(&remote))))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .expect("builds");
        let (video, audio) = (track(RtpCodecKind::Video, VIDEO), track(RtpCodecKind::Audio, AUDIO));
        let init = || Some(RTCRtpTransceiverInit { direction, streams: Vec::new(), send_encodings: Vec::new() });
        if direction == RTCRtpTransceiverDirection::Recvonly {
            for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
                pc.add_transceiver_from_kind(kind, init()).await.expect("adds");
            }
        } else {
            for track in [&audio, &video] {
                pc.add_track(Arc::clone(track) as Arc<dyn TrackLocal>).await.expect("adds");
            }
        }
        Self { pc: Arc::new(pc), seen, video, audio, remote, rtcp, orientation: 0, sequence: 0 }
    }

    /// The offer with the client's candidates in it.
    pub(crate) async fn offer(&mut self, options: Option<RTCOfferOptions>) -> String {
        let offer = self.pc.create_offer(options).await.expect("offers");
        self.pc.set_local_description(offer).await.expect("sets");
        self.wait(|seen| matches!(seen, Seen::Gathered).then_some(())).await;
        self.pc.local_description().await.expect("has one").sdp
    }

    pub(crate) async fn answered(&self, answer: &str) {
        let answer = RTCSessionDescription::answer(answer.to_owned()).expect("is SDP");
        self.pc.set_remote_description(answer).await.expect("is an answer");
    }

    /// Waits for something seen.
    async fn wait<T>(&mut self, mut wanted: impl FnMut(Seen) -> Option<T>) -> T {
        let search = async {
            loop {
                let seen = self.seen.recv().await.expect("the client lives");
                if let Some(found) = wanted(seen) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("it comes")
    }

    /// Waits until RTCP has come of which this is true.
    pub(in crate::peer) async fn receives(&self, what: &str, is_it: impl Fn(&dyn rtcp::Packet) -> bool) {
        let comes = async {
            while !self.rtcp.lock().iter().any(|packet| is_it(&**packet)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, comes).await.unwrap_or_else(|_| panic!("{what}"));
    }

    pub(crate) async fn connected(&mut self) {
        self.wait(|seen| matches!(seen, Seen::State(RTCPeerConnectionState::Connected)).then_some(())).await;
    }

    pub(crate) async fn send(
        &mut self,
        ssrc: u32,
        track: &Arc<TrackLocalStaticRTP>,
        payload_type: u8,
        payload: &'static [u8],
    ) {
        self.sequence += 1;
        let mut header = rtp::Header {
            version: 2,
            marker: true,
            payload_type,
            sequence_number: self.sequence,
            timestamp: 90 * u32::from(self.sequence),
            ssrc,
            ..rtp::Header::default()
        };
        let said = match ssrc {
            AUDIO => Some((extensions::AUDIO_LEVEL, 0x80 | 42)),
            VIDEO => Some((extensions::ORIENTATION, self.orientation)),
            _ => None,
        };
        for sender in self.pc.get_senders().await {
            // A stopped one has none.
            let (Some((uri, byte)), Ok(parameters)) = (said, sender.get_parameters().await) else { continue };
            let parameters = parameters.rtp_parameters;
            if let Some(extension) = parameters.header_extensions.iter().find(|extension| extension.uri == uri) {
                header.set_extension(extension.id as u8, Bytes::copy_from_slice(&[byte])).expect("fits");
            }
        }
        track.write_rtp(rtp::Packet { header, payload: Bytes::from_static(payload) }).await.expect("writes");
    }

    pub(crate) async fn send_both(&mut self) {
        let (video, audio) = (self.video.clone(), self.audio.clone());
        self.send(VIDEO, &video, 96, PAYLOAD).await;
        self.send(AUDIO, &audio, 111, b"opus").await;
    }
}
