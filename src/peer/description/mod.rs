//! The part of an SDP offer that the server accepts: codecs, header extensions, streams, transport.
//!
//! Owns: [`Agreement`], and the rules by which an offer's codecs and simulcast streams are chosen. Does not know:
//! connections, whether the offer is valid at all ([`crate::sdp`]), the text of the answer ([`answer`]). Pure: an
//! [`Offer`] goes in, plain data comes out. A "section" is a media section (`m=`) of SDP.

mod answer;

use std::net::SocketAddr;

pub(super) use self::answer::{Local, answer, fragment};
use super::PeerError;
use super::extensions::{self, ExtensionIds};
use crate::media::{Codec, Kind};
use crate::sdp::{Feedback, Offer, OfferedCodec, Section, SectionKind, Setup};
use crate::transport::ice::Credentials;

/// Most remote candidates of one ICE session; a browser has fewer.
pub(super) const CANDIDATES_MAX: usize = 32;

/// Simulcast encodings taken of one section; browsers send at most three.
const ENCODINGS_MAX: usize = 4;

/// FlexFEC's encoding name in browsers (draft-ietf-payload-flexible-fec-scheme-03).
const FLEXFEC: &str = "flexfec-03";
/// Values of `a=rtcp-fb` that the server supports for video.
const VIDEO_FEEDBACK: [&str; 5] = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];
/// Values of `a=rtcp-fb` that the server supports for audio.
const AUDIO_FEEDBACK: [&str; 1] = ["transport-cc"];

/// A codec with the payload types that the offer gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    /// Channels as `a=rtpmap` writes them; 1 is not written.
    pub(super) channels: u8,
    /// `a=fmtp`; empty for none.
    pub(super) parameters: String,
    /// Payload type of its retransmissions (RFC 4588).
    pub(super) rtx: Option<u8>,
}

/// The role of this server in the DTLS handshake, from `a=setup` of the offer (RFC 5763).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DtlsRole {
    /// The offer has `actpass` or `active`: the client sends the ClientHello.
    Server,
    /// The offer has `passive`: this server sends the ClientHello.
    Client,
}

/// A stream that the client sends in a section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OfferedStream {
    /// Its SSRC, if the offer has it (`a=ssrc`).
    pub(super) ssrc: Option<u32>,
    /// The SSRC of its retransmissions (RTX), if the offer has it.
    pub(super) rtx_ssrc: Option<u32>,
    /// The RIDs of its simulcast encodings, in the offer's order; empty without simulcast.
    pub(super) rids: Vec<String>,
}

/// A section that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) kind: Kind,
    /// The accepted formats; the one that the server sends is the first.
    pub(super) formats: Vec<Format>,
    /// The stream that the client sends; None if it only receives.
    pub(super) stream: Option<OfferedStream>,
    /// The format that the server sends; None if it only receives.
    pub(super) sends: Option<Format>,
    /// Payload type of FlexFEC for the video that the server sends.
    pub(super) flexfec: Option<u8>,
    /// RTCP feedback that both sides support, by payload type.
    feedback: Vec<(u8, &'static str)>,
    /// Header extensions of the section: id, and URI.
    extensions: Vec<(u16, String)>,
    /// The client supports reduced-size RTCP (RFC 5506).
    rtcp_rsize: bool,
    /// The client supports RTCP only on the port of RTP (RFC 8858).
    rtcp_mux_only: bool,
}

impl Accepted {
    /// Whether both sides support this RTCP feedback, a value of `a=rtcp-fb`.
    pub(super) fn takes(&self, feedback: &str) -> bool {
        self.feedback.iter().any(|(_, known)| *known == feedback)
    }
}

/// One section of the offer, and whether it is accepted. The private fields are repeated in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AgreedSection {
    pub(super) mid: String,
    has_mid: bool,
    media: String,
    protocol: String,
    first_format: String,
    /// None for a section that is refused.
    pub(super) accepted: Option<Accepted>,
}

/// The part of an offer that the server accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) dtls_role: DtlsRole,
    /// The client's ICE credentials.
    pub(super) ice: Credentials,
    /// The client is an ICE-lite agent.
    pub(super) is_lite: bool,
    /// Addresses of the client's candidates.
    pub(super) addresses: Vec<SocketAddr>,
    /// The client's certificate has one of these fingerprints (SHA-256).
    pub(super) fingerprints: Vec<String>,
    /// All sections, in the offer's order.
    pub(super) sections: Vec<AgreedSection>,
    pub(super) extensions: ExtensionIds,
    has_bundle: bool,
    extmap_allow_mixed: bool,
}

impl Agreement {
    /// The accepted sections with their mids.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (&str, &Accepted)> {
        self.sections.iter().filter_map(|section| Some((section.mid.as_str(), section.accepted.as_ref()?)))
    }

    /// The format that the server sends for this kind of media, and the payload type of its FEC.
    pub(super) fn sends(&self, kind: Kind) -> Option<(&Format, Option<u8>)> {
        let mut sections = self.accepted().filter(|(_, section)| section.kind == kind);
        sections.find_map(|(_, section)| Some((section.sends.as_ref()?, section.flexfec)))
    }
}

/// The media that the client is to receive: audio as Opus, and video in this codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receives {
    pub(super) audio: bool,
    pub(super) video: Option<Codec>,
}

/// Selects the sections and formats of an offer that the server supports.
///
/// # Errors
/// [`PeerError::Offer`] when there is no section for media that the client is to receive, or two streams cannot be
/// distinguished.
pub(super) fn take(offer: &Offer, receives: Receives) -> Result<Agreement, PeerError> {
    let mut extensions = ExtensionIds::default();
    let (mut audio, mut video) = (receives.audio.then_some(Codec::Opus), receives.video);
    let sections: Vec<AgreedSection> = offer
        .sections
        .iter()
        .map(|section| {
            let wanted = if section.kind == SectionKind::Video { &mut video } else { &mut audio };
            let accepted = accept(section, wanted);
            if accepted.is_some() {
                extensions.add(&section.extensions);
            }
            AgreedSection {
                mid: section.mid.clone(),
                has_mid: section.has_mid,
                media: section.media.clone(),
                protocol: section.protocol.clone(),
                first_format: section.first_format.clone(),
                accepted,
            }
        })
        .collect();
    if video.is_some() {
        return Err(PeerError::Offer(
            "no video section can take the codec we send; offer VP8, or H264 with packetization-mode=1".into(),
        ));
    }
    if audio.is_some() {
        return Err(PeerError::Offer("no audio section can take Opus; offer opus/48000/2".into()));
    }
    if sections.iter().all(|section| section.accepted.is_none()) {
        return Err(PeerError::Offer("none of its sections can be used".into()));
    }
    check_distinguishable(offer, &sections)?;
    let sha256 = offer.fingerprints.iter().filter(|fingerprint| fingerprint.algorithm == "sha-256");
    Ok(Agreement {
        dtls_role: if offer.setup == Setup::Passive { DtlsRole::Client } else { DtlsRole::Server },
        ice: Credentials { ufrag: offer.ufrag.clone(), password: offer.pwd.clone() },
        is_lite: offer.is_lite,
        addresses: offer.candidates.iter().take(CANDIDATES_MAX).copied().collect(),
        fingerprints: sha256.map(|fingerprint| fingerprint.value.clone()).collect(),
        sections,
        extensions,
        has_bundle: !offer.bundle.is_empty(),
        extmap_allow_mixed: offer.extmap_allow_mixed,
    })
}

/// Accepts a section, if it has a codec that the server supports. `wanted` is the codec that the server is to send and
/// that no earlier section carries; a section that can carry it sets it to None.
fn accept(section: &Section, wanted: &mut Option<Codec>) -> Option<Accepted> {
    let kind = match section.kind {
        SectionKind::Audio => Kind::Audio,
        SectionKind::Video => Kind::Video,
        SectionKind::Application | SectionKind::Other => return None,
    };
    let mut formats = formats(section, kind);
    if formats.is_empty() || section.is_rejected() {
        return None;
    }
    let mut sends = None;
    if let Some(codec) = wanted.filter(|_| section.direction.receives()) {
        let best = formats.iter().enumerate().filter(|(_, format)| format.codec == codec);
        if let Some((_, at)) = best.filter_map(|(at, format)| Some((fitness(format)?, at))).min() {
            let chosen = formats.remove(at);
            formats.insert(0, chosen.clone());
            (sends, *wanted) = (Some(chosen), None);
        }
    }
    let stream = section.direction.sends().then(|| stream(section));
    if stream.is_none() {
        // The client sends nothing, so the other formats are of no use and are left out of the answer.
        formats.truncate(1);
    }
    let flexfec = section.codecs.iter().find(|offered| offered.name.eq_ignore_ascii_case(FLEXFEC));
    Some(Accepted {
        kind,
        feedback: feedback(section, kind, &formats),
        flexfec: flexfec.map(|offered| offered.payload_type).filter(|_| kind == Kind::Video && sends.is_some()),
        extensions: section.extensions.iter().map(|extension| (extension.id, extension.uri.clone())).collect(),
        rtcp_rsize: section.rtcp_rsize,
        rtcp_mux_only: section.rtcp_mux_only,
        formats,
        stream,
        sends,
    })
}

/// The formats that the server can decode, in the offer's order.
fn formats(section: &Section, kind: Kind) -> Vec<Format> {
    let rtx = |payload_type: u8| {
        let is_rtx = |offered: &&OfferedCodec| {
            offered.name.eq_ignore_ascii_case("rtx")
                && offered.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(payload_type)
        };
        section.codecs.iter().find(is_rtx).map(|offered| offered.payload_type)
    };
    let known = section.codecs.iter().filter_map(|offered| {
        let codec = offered.codec.filter(|codec| codec.kind() == kind && is_decodable(*codec, offered))?;
        Some(Format {
            codec,
            payload_type: offered.payload_type,
            channels: offered.channels,
            parameters: offered.fmtp.clone(),
            rtx: rtx(offered.payload_type),
        })
    });
    known.collect()
}

/// Whether the server's decoders support the profile of an offered format.
fn is_decodable(codec: Codec, offered: &OfferedCodec) -> bool {
    match codec {
        Codec::Vp9 => offered.parameter("profile-id").is_none_or(|profile| profile == "0"),
        Codec::Av1 => offered.parameter("profile").is_none_or(|profile| profile == "0"),
        // Baseline, main and high. The default is baseline (RFC 6184 section 8.1).
        Codec::H264 => offered
            .parameter("profile-level-id")
            .is_none_or(|id| ["42", "4d", "4D", "64"].iter().any(|profile| id.starts_with(profile))),
        _ => true,
    }
}

/// How well a format suits the server's encoders: 0 is best. None if it cannot carry their streams.
fn fitness(format: &Format) -> Option<u8> {
    if format.codec != Codec::H264 {
        return Some(0);
    }
    // The server sends fragmentation units, which packetization mode 0 does not have (RFC 6184 section 6.2). Its
    // encoders make constrained baseline (42e0), which decoders of the other profiles can decode too.
    let parameters = format.parameters.to_ascii_lowercase();
    let is_mode_1 = parameters.split(';').any(|pair| pair.trim() == "packetization-mode=1");
    let fitness = match () {
        () if parameters.contains("profile-level-id=42e0") => 0,
        () if parameters.contains("profile-level-id=42") => 1,
        () => 2,
    };
    is_mode_1.then_some(fitness)
}

/// The stream that the client sends in a section.
fn stream(section: &Section) -> OfferedStream {
    let rids = simulcast_rids(section);
    if !rids.is_empty() {
        return OfferedStream { rids, ..OfferedStream::default() };
    }
    let ssrc = section.ssrcs.first().copied();
    let rtx = section.retransmissions.iter().find(|(media, _)| Some(*media) == ssrc);
    OfferedStream { ssrc, rtx_ssrc: rtx.map(|(_, rtx)| *rtx), rids }
}

/// The simulcast encodings that are accepted (RFC 8853): the last ones, by convention the largest. None where packets do
/// not carry the RID.
fn simulcast_rids(section: &Section) -> Vec<String> {
    let has = |uri: &str| section.extensions.iter().any(|extension| extension.uri == uri);
    if !has(extensions::MID) || !has(extensions::RID) {
        return Vec::new();
    }
    let is_plain = |rid: &str| rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let mut rids: Vec<String> = Vec::new();
    for stream in &section.simulcast {
        let rid = &stream.rid;
        if section.rids.contains(rid) && is_plain(rid) && !rids.contains(rid) {
            rids.push(rid.clone());
        }
    }
    rids.split_off(rids.len().saturating_sub(ENCODINGS_MAX))
}

/// The RTCP feedback that both sides support, by payload type. An offer may give it for all payload types (`*`).
fn feedback(section: &Section, kind: Kind, formats: &[Format]) -> Vec<(u8, &'static str)> {
    let known: &[&str] = if kind == Kind::Video { &VIDEO_FEEDBACK } else { &AUDIO_FEEDBACK };
    let offers = |payload_type: u8, value: &str| {
        let holds = |offered: &&Feedback| offered.payload_type.is_none_or(|of| of == payload_type);
        section.feedback.iter().filter(holds).any(|offered| offered.value == value)
    };
    let both = formats.iter().flat_map(|format| known.iter().map(|value| (format.payload_type, *value)));
    both.filter(|(payload_type, value)| offers(*payload_type, value)).collect()
}

/// Checks that the packets of all streams can be distinguished by MID, SSRC or payload type (RFC 9143 section 9.2).
///
/// # Errors
/// Two sections without SSRC share a payload type, and not both have the header extension of the MID.
fn check_distinguishable(offer: &Offer, sections: &[AgreedSection]) -> Result<(), PeerError> {
    let has_mid = |at: usize| offer.sections[at].extensions.iter().any(|extension| extension.uri == extensions::MID);
    let unnamed: Vec<(usize, &AgreedSection, &Accepted)> = sections
        .iter()
        .enumerate()
        .filter_map(|(at, section)| Some((at, section, section.accepted.as_ref()?)))
        .filter(|(.., accepted)| accepted.stream.as_ref().is_some_and(|stream| stream.ssrc.is_none()))
        .collect();
    for (i, (at, section, accepted)) in unnamed.iter().enumerate() {
        for (other_at, other, other_accepted) in &unnamed[..i] {
            let of = |payload_type: u8| other_accepted.formats.iter().any(|format| format.payload_type == payload_type);
            let shares = accepted.formats.iter().any(|format| of(format.payload_type));
            if shares && !(has_mid(*at) && has_mid(*other_at)) {
                return Err(PeerError::Offer(format!(
                    "the packets of sections `{}` and `{}` cannot be distinguished; announce a=ssrc in each, or give \
                     each its own payload types, or offer the header extension {}",
                    other.mid,
                    section.mid,
                    extensions::MID
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
