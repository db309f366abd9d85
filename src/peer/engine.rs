//! How `webrtc` is set up for one peer.
//!
//! Owns: the codecs and header extensions it knows (those taken of the offer), its chain of interceptors.
//! Does not know: sockets, rooms. Two chains: who sends to us also gets arrival feedback and retransmission requests;
//! who only receives does with retransmissions, sender reports and our tap.

use std::sync::Arc;
use std::time::Duration;

use rtc::crypto::RTCCryptoProvider;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{
    CongestionControlBuilder, ReceiverReportBuilder, SenderReportBuilder, TwccReceiverBuilder, TwccSenderBuilder,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, Slot};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::{SettingEngine, SettingEngineBuilder};
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters, RtpCodecKind,
};

use super::arrivals::Arrivals;
use super::associate::Associator;
use super::description::{DtlsRole, Format, STREAM_ID, Taken};
use super::introductions::Introducer;
use super::outgoing::Ssrcs;
use super::repairs::{Repairs, WithRepairs};
use super::requests::Requests;
use super::tap::Tap;
use crate::media::{Codec, Kind};
use crate::transport::secure::PROFILES;

pub(super) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(super) const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
pub(super) const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
pub(super) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// How loud those are who are heard in a mix (RFC 6465).
pub(super) const HEARD_LEVELS: &str = "urn:ietf:params:rtp-hdrext:csrc-audio-level";
pub(super) const ORIENTATION: &str = "urn:3gpp:video-orientation";
/// See libwebrtc's docs/native-code/rtp-hdrext/color-space.
pub(super) const COLOUR_SPACE: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";
pub(super) const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
pub(super) const SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

/// The tap stands nearest to the wire, ahead of everything the crate has; reports are introduced before they come there; the
/// associator keeps from the crate what is too early.
const TAP_SLOT: usize = 100;
const INTRODUCER_SLOT: usize = 150;
const ASSOCIATOR_SLOT: usize = 200;

fn kind_of(kind: Kind) -> RtpCodecKind {
    match kind {
        Kind::Audio => RtpCodecKind::Audio,
        Kind::Video => RtpCodecKind::Video,
    }
}

fn codec_of(format: &Format, sends: bool) -> RTCRtpCodec {
    let feedback: &[(&str, &str)] = match (format.codec.kind(), sends) {
        (Kind::Video, true) => {
            &[("goog-remb", ""), ("transport-cc", ""), ("ccm", "fir"), ("nack", ""), ("nack", "pli")]
        }
        (Kind::Video, false) => &[("ccm", "fir"), ("nack", ""), ("nack", "pli")],
        (Kind::Audio, true) => &[("transport-cc", "")],
        (Kind::Audio, false) => &[],
    };
    let prefix = if format.codec.kind() == Kind::Audio { "audio" } else { "video" };
    RTCRtpCodec {
        mime_type: format!("{prefix}/{}", format.codec.encoding_name()),
        clock_rate: format.codec.clock_rate(),
        channels: format.channels,
        sdp_fmtp_line: format.parameters.clone(),
        rtcp_feedback: feedback
            .iter()
            .map(|(typ, parameter)| RTCPFeedback { typ: (*typ).to_owned(), parameter: (*parameter).to_owned() })
            .collect(),
    }
}

/// Codecs for a kind that the first offer has not, but a later one may have.
fn usual_formats(kind: Kind) -> Vec<Format> {
    let format = |codec, payload_type, channels, parameters: &str, rtx| Format {
        codec,
        payload_type,
        channels,
        parameters: parameters.to_owned(),
        rtx,
    };
    let h264 = |payload_type, mode, profile| {
        let parameters = format!("level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}");
        format(Codec::H264, payload_type, 0, &parameters, Some(payload_type + 1))
    };
    match kind {
        Kind::Audio => vec![
            format(Codec::Opus, 111, 2, "minptime=10;useinbandfec=1", None),
            format(Codec::Pcmu, 0, 0, "", None),
            format(Codec::Pcma, 8, 0, "", None),
        ],
        Kind::Video => vec![
            format(Codec::Vp8, 96, 0, "", Some(97)),
            format(Codec::Vp9, 98, 0, "profile-id=0", Some(99)),
            h264(102, 1, "42e01f"),
            h264(104, 1, "42001f"),
            h264(106, 1, "4d001f"),
            h264(112, 0, "42e01f"),
            h264(114, 0, "42001f"),
            h264(116, 0, "4d001f"),
            format(Codec::Av1, 45, 0, "", Some(46)),
        ],
    }
}

/// What the connection may negotiate. `sends`: the peer sends to us (now or after a later offer).
pub(super) fn media_engine(taken: &Taken, sends: bool) -> Result<MediaEngine, rtc::shared::error::Error> {
    let mut engine = MediaEngine::default();
    for kind in [Kind::Audio, Kind::Video] {
        let mut formats: Vec<Format> = taken.formats.iter().filter(|f| f.codec.kind() == kind).cloned().collect();
        if formats.is_empty() {
            formats = usual_formats(kind);
        }
        for format in formats {
            let rtp_codec = codec_of(&format, sends);
            let payload_type = format.payload_type;
            engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind_of(kind))?;
            if let Some(rtx) = format.rtx {
                let rtp_codec = RTCRtpCodec {
                    mime_type: "video/rtx".to_owned(),
                    clock_rate: format.codec.clock_rate(),
                    channels: 0,
                    sdp_fmtp_line: format!("apt={payload_type}"),
                    rtcp_feedback: Vec::new(),
                };
                engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type: rtx }, kind_of(kind))?;
            }
        }
    }
    let extensions: &[(&str, &[Kind])] = if sends {
        &[
            (MID, &[Kind::Audio, Kind::Video]),
            (RID, &[Kind::Video]),
            (REPAIRED_RID, &[Kind::Video]),
            (AUDIO_LEVEL, &[Kind::Audio]),
            (HEARD_LEVELS, &[Kind::Audio]),
            (ORIENTATION, &[Kind::Video]),
            (COLOUR_SPACE, &[Kind::Video]),
            (TRANSPORT_CC, &[Kind::Audio, Kind::Video]),
            (SEND_TIME, &[Kind::Audio, Kind::Video]),
        ]
    } else {
        &[(MID, &[Kind::Audio, Kind::Video])]
    };
    for (uri, kinds) in extensions {
        for kind in *kinds {
            let extension = RTCRtpHeaderExtensionCapability { uri: (*uri).to_owned() };
            engine.register_header_extension(extension, kind_of(*kind), None)?;
        }
    }
    Ok(engine)
}

/// The interceptors of a peer that sends to us, or only receives. Who sends also tells when each of our packets arrives.
pub(super) fn interceptors(
    (tap, introducer): (Tap, Introducer),
    associator: Associator,
    repairs: Repairs,
    arrivals: Arrivals,
    sends: bool,
) -> Registry {
    let registry = Registry::new()
        .with(Slot::from(TAP_SLOT), tap)
        .with(Slot::from(INTRODUCER_SLOT), introducer)
        .with(Slot::from(ASSOCIATOR_SLOT), associator)
        .with(Slot::NackResponder, repairs)
        .with(Slot::SenderReport, SenderReportBuilder::new().build());
    if !sends {
        return registry;
    }
    registry
        .with(Slot::CongestionControl, WithRepairs(CongestionControlBuilder::new(arrivals).build()))
        .with(Slot::TwccSender, WithRepairs(TwccSenderBuilder::new().build()))
        .with(Slot::NackGenerator, Requests::new())
        .with(Slot::TwccReceiver, TwccReceiverBuilder::new().build())
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
}

/// Roles and ciphers.
pub(super) fn settings(role: DtlsRole, provider: Arc<dyn RTCCryptoProvider>) -> SettingEngine {
    let role = match role {
        DtlsRole::Server => RTCDtlsRole::Server,
        DtlsRole::Client => RTCDtlsRole::Client,
    };
    SettingEngineBuilder::new()
        .with_crypto_provider(provider)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_answering_dtls_role(role)
        // ICE is dealt with ahead of it (`net::udp`): what it sees of the other side is always there.
        .with_ice_timeouts(Some(Duration::ZERO), Some(Duration::ZERO), Some(Duration::ZERO))
        .with_srtp_protection_profiles(PROFILES.to_vec())
        .build()
}

/// The track we send in this format.
pub(super) fn track_out(format: &Format, ssrc: u32, sends: bool) -> MediaStreamTrack {
    let kind = format.codec.kind();
    let label = if kind == Kind::Audio { "out-audio" } else { "out-video" };
    // Retransmissions go by a stream of their own where the client takes them so; its number only has to differ.
    let rtx = format.rtx.map(|_| RTCRtpRtxParameters { ssrc: Ssrcs::repair(ssrc) });
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { rid: String::new(), ssrc: Some(ssrc), rtx, fec: None },
        active: true,
        codec: codec_of(format, sends),
        ..RTCRtpEncodingParameters::default()
    };
    MediaStreamTrack::new(STREAM_ID.to_owned(), label.to_owned(), label.to_owned(), kind_of(kind), vec![encoding])
}
