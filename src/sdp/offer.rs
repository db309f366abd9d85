//! Reads an offer into plain data and checks what concerns its transport.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{
    CANDIDATES_MAX, LINES_MAX, OFFER_MAX, OfferError, SECTIONS_MAX, candidate_address, has_forbidden_character,
    is_ice_text, lines,
};
use crate::media::Codec;

/// Who begins the DTLS handshake (RFC 8842 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Either side; also taken where the offer says nothing.
    Actpass,
    /// The offerer: we are the DTLS server.
    Active,
    /// We: the offerer is the DTLS server.
    Passive,
}

/// The direction of media, seen from the offerer (RFC 8866 section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// From the offerer to us.
    SendOnly,
    /// From us to the offerer.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Whether the offerer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the offerer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    fn from_attribute(name: &str) -> Option<Self> {
        Some(match name {
            "sendrecv" => Self::SendRecv,
            "sendonly" => Self::SendOnly,
            "recvonly" => Self::RecvOnly,
            "inactive" => Self::Inactive,
            _ => return None,
        })
    }
}

/// What an m-line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
    /// `m=application`: data channels.
    Application,
    /// Anything else.
    Other,
}

/// A certificate's fingerprint as offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash function, in lower case: `sha-256`.
    pub algorithm: String,
    /// Hexadecimal bytes with colons.
    pub value: String,
}

/// One payload type of an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCodec {
    /// RTP payload type.
    pub payload_type: u8,
    /// Encoding name as offered; also of retransmission and FEC.
    pub name: String,
    /// The codec, if it is one of ours.
    pub codec: Option<Codec>,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Channels; 1 where not given.
    pub channels: u8,
    /// Format parameters as offered; empty for none.
    pub fmtp: String,
}

impl OfferedCodec {
    /// The value of a format parameter, its name compared without case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.fmtp.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One RTP header extension (RFC 8285).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its number in this m-section.
    pub id: u16,
    /// What it is.
    pub uri: String,
}

/// Which MediaStream and track a section belongs to (RFC 8830).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msid {
    /// The MediaStream's id; `-` for none.
    pub stream: String,
    /// The track's id; empty where not given.
    pub track: String,
}

/// RTCP feedback that the offerer takes (RFC 4585 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The payload type it is for; None for all of the section.
    pub payload_type: Option<u8>,
    /// `nack pli`, with single spaces.
    pub value: String,
}

/// One simulcast stream that the offerer can send (RFC 8853 section 5.1); of alternatives only the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulcastStream {
    /// Its RID (RFC 8851).
    pub rid: String,
    /// It begins paused.
    pub paused: bool,
}

/// One m-section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `a=mid`; the section's index as text where the offer gives none.
    pub mid: String,
    /// Whether the offer gives `a=mid`.
    pub has_mid: bool,
    /// The media type of the m-line: `audio`.
    pub media: String,
    /// The protocol of the m-line: `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// The first format of the m-line: a payload type, or `webrtc-datachannel`.
    pub first_format: String,
    /// Audio, video or something else.
    pub kind: SectionKind,
    /// The m-line's port: 0 is rejected, unless `bundle_only`.
    pub port: u16,
    /// RTP that DTLS keys (RFC 5764); RFC 8829 section 5.1.2 wants all its names to be taken.
    pub secure: bool,
    /// The direction of its media.
    pub direction: Direction,
    /// Only there inside the bundle (RFC 9143).
    pub bundle_only: bool,
    /// The payload types in the offer's order of preference.
    pub codecs: Vec<OfferedCodec>,
    /// RTP header extensions.
    pub extensions: Vec<Extension>,
    /// SSRCs announced, in order, each once.
    pub ssrcs: Vec<u32>,
    /// `a=maxptime` in milliseconds (RFC 8866 section 6.4), rounded down.
    pub maxptime: Option<u32>,
    /// `a=content` (RFC 4796).
    pub content: Option<String>,
    /// `a=msid`.
    pub msid: Option<Msid>,
    /// Names a client may have given its track: `a=label` and labels of SSRCs.
    pub labels: Vec<String>,
    /// Restriction identifiers to send (RFC 8851), in order.
    pub rids: Vec<String>,
    /// Simulcast streams to send (RFC 8853), in order.
    pub simulcast: Vec<SimulcastStream>,
    /// RTCP feedback, in order.
    pub feedback: Vec<Feedback>,
    /// SSRCs of a stream and of its retransmissions (`a=ssrc-group:FID`, RFC 5576).
    pub retransmissions: Vec<(u32, u32)>,
    /// RTP and RTCP share one port (RFC 5761).
    pub rtcp_mux: bool,
    /// `a=rtcp-mux-only` (RFC 8858).
    pub rtcp_mux_only: bool,
    /// Reduced-size RTCP is possible (RFC 5506).
    pub rtcp_rsize: bool,
}

impl Section {
    /// Whether media can flow: neither rejected nor inactive.
    pub fn is_active(&self) -> bool {
        !self.is_rejected() && self.direction != Direction::Inactive
    }

    /// Whether the offerer has given this section up: port 0 without bundle-only.
    pub const fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }
}

/// An offer whose transport we can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Who begins the DTLS handshake.
    pub setup: Setup,
    /// The offerer's ICE user name fragment.
    pub ufrag: String,
    /// The offerer's ICE password.
    pub pwd: String,
    /// All fingerprints, each once; at least one is sha-256.
    pub fingerprints: Vec<Fingerprint>,
    /// All m-sections in order, rejected ones too.
    pub sections: Vec<Section>,
    /// The mids of the BUNDLE group (RFC 9143); empty without one.
    pub bundle: Vec<String>,
    /// The offerer is an ICE-lite agent, which sends no checks (RFC 8445 section 2.5).
    pub is_lite: bool,
    /// Header extensions of one byte and of two may be mixed (RFC 8285 section 6).
    pub extmap_allow_mixed: bool,
    /// Addresses of the candidates that can be sent to: UDP, component 1, an IP address.
    pub candidates: Vec<SocketAddr>,
}

/// Attributes that stand at the session or in a section.
#[derive(Debug, Default)]
struct Transport {
    setup: Option<String>,
    ufrag: Option<String>,
    pwd: Option<String>,
    direction: Option<Direction>,
    extensions: Vec<Extension>,
    fingerprints: Vec<Fingerprint>,
}

impl Transport {
    fn has_ice(&self) -> bool {
        self.ufrag.is_some() && self.pwd.is_some()
    }
}

/// A section while its lines are read.
struct Draft {
    section: Section,
    transport: Transport,
    formats: Vec<u8>,
    rtpmaps: BTreeMap<u8, (String, u32, u8)>,
    fmtps: BTreeMap<u8, String>,
}

impl Offer {
    /// Reads an offer and checks everything that does not depend on what we encode.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        if text.len() > OFFER_MAX {
            return Err(OfferError::TooLarge);
        }
        let mut lines = lines(text);
        let Some((_, first)) = lines.next() else { return Err(OfferError::Empty) };
        if first != "v=0" {
            return Err(OfferError::NotSdp);
        }
        let mut session = Transport::default();
        let (mut drafts, mut bundle) = (Vec::<Draft>::new(), Vec::new());
        let (mut candidate_lines, mut candidates) = (0, Vec::new());
        let (mut is_lite, mut extmap_allow_mixed) = (false, false);
        for (number, line) in lines {
            if number > LINES_MAX {
                return Err(OfferError::TooManyLines);
            }
            if has_forbidden_character(line) {
                return Err(OfferError::Character { line: number });
            }
            if let Some(media) = line.strip_prefix("m=") {
                if drafts.len() == SECTIONS_MAX {
                    return Err(OfferError::TooManySections);
                }
                let draft = Draft::begin(media, drafts.len());
                drafts.push(draft.ok_or(OfferError::MediaLine { line: number })?);
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            let value = value.trim();
            match name {
                "candidate" => {
                    candidate_lines += 1;
                    candidates.extend(candidate_address(value).filter(|address| !candidates.contains(address)));
                }
                "ice-lite" => is_lite = true,
                "extmap-allow-mixed" => extmap_allow_mixed = true,
                "group" => {
                    if let Some(mids) = value.strip_prefix("BUNDLE") {
                        bundle.extend(mids.split_whitespace().map(str::to_owned));
                    }
                }
                _ => match drafts.last_mut() {
                    None => session.read(name, value),
                    Some(draft) => draft.read(name, value),
                },
            }
            if candidate_lines > CANDIDATES_MAX {
                return Err(OfferError::TooManyCandidates);
            }
        }
        Ok(Self { is_lite, extmap_allow_mixed, candidates, ..Self::checked(session, drafts, bundle)? })
    }

    fn checked(session: Transport, drafts: Vec<Draft>, bundle: Vec<String>) -> Result<Self, OfferError> {
        if drafts.is_empty() {
            return Err(OfferError::NoMedia);
        }
        let tagged = &tagged(&drafts, &bundle, &session).transport;
        let of = |pick: fn(&Transport) -> &Option<String>| pick(tagged).clone().or_else(|| pick(&session).clone());
        let (Some(ufrag), Some(pwd)) = (of(|t| &t.ufrag), of(|t| &t.pwd)) else { return Err(OfferError::NoIce) };
        if !is_ice_text(&ufrag, 4) {
            return Err(OfferError::IceUfrag);
        }
        if !is_ice_text(&pwd, 22) {
            return Err(OfferError::IcePwd);
        }
        let setup = match of(|t| &t.setup).as_deref() {
            None | Some("actpass") => Setup::Actpass,
            Some("active") => Setup::Active,
            Some("passive") => Setup::Passive,
            Some(other) => return Err(OfferError::Setup(other.chars().take(16).collect())),
        };
        let fingerprints = if tagged.fingerprints.is_empty() { &session.fingerprints } else { &tagged.fingerprints };
        let fingerprints = fingerprints.clone();
        if fingerprints.is_empty() {
            return Err(OfferError::NoFingerprint);
        }
        if !fingerprints.iter().any(|fingerprint| fingerprint.algorithm == "sha-256") {
            return Err(OfferError::NoSha256);
        }
        let sections: Vec<Section> = drafts.into_iter().map(|draft| draft.finish(&session)).collect();
        let alive: Vec<&Section> = sections.iter().filter(|section| !section.is_rejected()).collect();
        for (i, section) in alive.iter().enumerate() {
            if alive[..i].iter().any(|other| other.mid == section.mid) {
                return Err(OfferError::SameMid { mid: section.mid.clone() });
            }
            let media = matches!(section.kind, SectionKind::Audio | SectionKind::Video);
            if media && section.is_active() && !section.secure {
                return Err(OfferError::Insecure { mid: section.mid.clone() });
            }
            if media && section.is_active() && !section.rtcp_mux {
                return Err(OfferError::NoRtcpMux { mid: section.mid.clone() });
            }
        }
        if alive.len() > 1 && alive.iter().any(|section| !bundle.contains(&section.mid)) {
            return Err(OfferError::NoBundle { sections: alive.len() });
        }
        let (is_lite, extmap_allow_mixed, candidates) = Default::default();
        Ok(Self { setup, ufrag, pwd, fingerprints, sections, bundle, is_lite, extmap_allow_mixed, candidates })
    }
}

/// The section whose transport all others use: the first of the BUNDLE group (RFC 9143 section 7.2), without a group
/// the first that is not rejected. Some clients leave transport attributes only in a section that they have rejected
/// since.
fn tagged<'a>(drafts: &'a [Draft], bundle: &[String], session: &Transport) -> &'a Draft {
    let in_use = || drafts.iter().filter(|draft| !draft.section.is_rejected());
    let first = bundle.first().and_then(|mid| in_use().find(|draft| draft.section.mid == *mid));
    let tagged = first.or_else(|| in_use().next()).unwrap_or(&drafts[0]);
    if tagged.transport.has_ice() || session.has_ice() {
        return tagged;
    }
    let rejected = || drafts.iter().filter(|draft| draft.section.is_rejected() && draft.transport.has_ice());
    let in_group = rejected().find(|draft| bundle.contains(&draft.section.mid));
    in_group.or_else(|| rejected().next()).unwrap_or(tagged)
}

impl Transport {
    fn read(&mut self, name: &str, value: &str) {
        let first = |slot: &mut Option<String>| {
            slot.get_or_insert_with(|| value.to_owned());
        };
        match name {
            "setup" => first(&mut self.setup),
            "ice-ufrag" => first(&mut self.ufrag),
            "ice-pwd" => first(&mut self.pwd),
            "extmap" => self.extensions.extend(extension(value)),
            "fingerprint" => {
                if let Some(fingerprint) = fingerprint(value)
                    && !self.fingerprints.contains(&fingerprint)
                {
                    self.fingerprints.push(fingerprint);
                }
            }
            _ => self.direction = Direction::from_attribute(name).or(self.direction),
        }
    }
}

impl Draft {
    /// `audio 9 UDP/TLS/RTP/SAVPF 111 0`
    fn begin(media: &str, index: usize) -> Option<Self> {
        let mut words = media.split_whitespace();
        let media = words.next()?;
        let kind = match media {
            "audio" => SectionKind::Audio,
            "video" => SectionKind::Video,
            "application" => SectionKind::Application,
            _ => SectionKind::Other,
        };
        // The port may be followed by a number of ports: `9/2`.
        let port = words.next()?.split('/').next()?.parse().ok()?;
        let protocol = words.next()?;
        let mut formats = Vec::new();
        let first_format = words.clone().next().unwrap_or("0").to_owned();
        for format in words.filter_map(|word| word.parse().ok()).filter(|format| *format <= 127_u8) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        let section = Section {
            mid: index.to_string(),
            has_mid: false,
            media: media.to_owned(),
            protocol: protocol.to_owned(),
            first_format,
            kind,
            port,
            secure: protocol.ends_with("RTP/SAVPF") || protocol.ends_with("RTP/SAVP"),
            direction: Direction::SendRecv,
            bundle_only: false,
            codecs: Vec::new(),
            extensions: Vec::new(),
            ssrcs: Vec::new(),
            maxptime: None,
            content: None,
            msid: None,
            labels: Vec::new(),
            rids: Vec::new(),
            simulcast: Vec::new(),
            feedback: Vec::new(),
            retransmissions: Vec::new(),
            rtcp_mux: false,
            rtcp_mux_only: false,
            rtcp_rsize: false,
        };
        let (transport, rtpmaps, fmtps) = Default::default();
        Some(Self { section, transport, formats, rtpmaps, fmtps })
    }

    fn read(&mut self, name: &str, value: &str) {
        let section = &mut self.section;
        match name {
            "mid" if !section.has_mid && !value.is_empty() => {
                section.mid = value.to_owned();
                section.has_mid = true;
            }
            "bundle-only" => section.bundle_only = true,
            "rtcp-mux" => section.rtcp_mux = true,
            "rtcp-mux-only" => (section.rtcp_mux, section.rtcp_mux_only) = (true, true),
            "rtcp-rsize" => section.rtcp_rsize = true,
            "rtcp-fb" => section.feedback.extend(feedback(value)),
            "ssrc-group" => section.retransmissions.extend(retransmission(value)),
            "simulcast" if section.simulcast.is_empty() => section.simulcast = simulcast(value),
            "maxptime" => section.maxptime = value.parse::<f32>().ok().map(|ms| ms as u32),
            "content" => section.content = Some(value.to_owned()),
            "label" => section.labels.push(value.to_owned()),
            "msid" => {
                let mut words = value.split_whitespace().map(str::to_owned);
                let (stream, track) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                section.msid.get_or_insert(Msid { stream, track });
            }
            "rid" => {
                let mut words = value.split_whitespace();
                if let (Some(rid), Some("send")) = (words.next(), words.next()) {
                    section.rids.push(rid.to_owned());
                }
            }
            "ssrc" => self.read_ssrc(value),
            "rtpmap" => {
                if let Some((format, map)) = format_value(value)
                    && let Some(map) = rtpmap(map)
                {
                    self.rtpmaps.insert(format, map);
                }
            }
            "fmtp" => {
                if let Some((format, parameters)) = format_value(value) {
                    self.fmtps.insert(format, parameters.to_owned());
                }
            }
            _ => self.transport.read(name, value),
        }
    }

    /// `1234 cname:x`
    fn read_ssrc(&mut self, value: &str) {
        let (ssrc, attribute) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        if let Ok(ssrc) = ssrc.parse()
            && !self.section.ssrcs.contains(&ssrc)
        {
            self.section.ssrcs.push(ssrc);
        }
        if let Some(label) = attribute.strip_prefix("label:") {
            self.section.labels.push(label.to_owned());
        }
    }

    fn finish(mut self, session: &Transport) -> Section {
        self.section.direction = self.transport.direction.or(session.direction).unwrap_or(Direction::SendRecv);
        // Attributes of the session hold for all sections that do not have their own (RFC 8866 section 5.13).
        self.section.extensions = self.transport.extensions;
        let known = |uri: &String| self.section.extensions.iter().any(|extension| extension.uri == *uri);
        let inherited: Vec<Extension> = session.extensions.iter().filter(|e| !known(&e.uri)).cloned().collect();
        self.section.extensions.extend(inherited);
        let (mut rtpmaps, mut fmtps) = (self.rtpmaps, self.fmtps);
        self.section.codecs = self
            .formats
            .iter()
            .filter_map(|format| {
                let (name, clock_rate, channels) = rtpmaps.remove(format).or_else(|| assigned(*format))?;
                let codec = Codec::from_encoding_name(&name).filter(|codec| codec.clock_rate() == clock_rate);
                let fmtp = fmtps.remove(format).unwrap_or_default();
                Some(OfferedCodec { payload_type: *format, name, codec, clock_rate, channels, fmtp })
            })
            .collect();
        self.section
    }
}

/// `4 urn:ietf:params:rtp-hdrext:sdes:mid`, or `4/sendonly …`
fn extension(value: &str) -> Option<Extension> {
    let (id, uri) = value.split_once(char::is_whitespace)?;
    let id = id.split('/').next()?.parse().ok()?;
    Some(Extension { id, uri: uri.split_whitespace().next()?.to_owned() })
}

/// `96 nack pli`, or `* nack pli`
fn feedback(value: &str) -> Option<Feedback> {
    let (format, value) = value.split_once(char::is_whitespace)?;
    let payload_type = if format == "*" { None } else { Some(format.parse().ok()?) };
    Some(Feedback { payload_type, value: value.split_whitespace().collect::<Vec<_>>().join(" ") })
}

/// `FID 1 2`
fn retransmission(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_whitespace();
    (words.next()? == "FID").then_some(())?;
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// `send q;h,x;~f recv y`
fn simulcast(value: &str) -> Vec<SimulcastStream> {
    let mut words = value.split_whitespace().skip_while(|word| *word != "send").skip(1);
    let streams = words.next().unwrap_or_default().split(';').filter_map(|stream| stream.split(',').next());
    streams
        .map(|rid| SimulcastStream { rid: rid.trim_start_matches('~').to_owned(), paused: rid.starts_with('~') })
        .filter(|stream| !stream.rid.is_empty())
        .collect()
}

/// `sha-256 AB:CD:…`
fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (algorithm, value) = value.split_once(char::is_whitespace)?;
    Some(Fingerprint { algorithm: algorithm.to_ascii_lowercase(), value: value.trim().to_owned() })
}

/// `111 …`
fn format_value(value: &str) -> Option<(u8, &str)> {
    let (format, rest) = value.split_once(char::is_whitespace)?;
    Some((format.parse().ok()?, rest.trim()))
}

/// `opus/48000/2`
fn rtpmap(value: &str) -> Option<(String, u32, u8)> {
    let mut parts = value.split('/');
    let name = parts.next()?.to_owned();
    let clock_rate = parts.next()?.trim().parse().ok()?;
    let channels = parts.next().and_then(|channels| channels.trim().parse().ok()).unwrap_or(1);
    Some((name, clock_rate, channels))
}

/// The payload types that need no rtpmap (RFC 3551 §6), as far as they are ours.
fn assigned(format: u8) -> Option<(String, u32, u8)> {
    let codec = match format {
        0 => Codec::Pcmu,
        8 => Codec::Pcma,
        _ => return None,
    };
    Some((codec.encoding_name().to_owned(), codec.clock_rate(), 1))
}
