//! Session descriptions as lines: what `webrtc` is given of an offer, and what a client is given of the answer.
//!
//! Owns: which codecs, extensions, candidates and simulcast layers of an offer are taken, in which order, and how our
//! candidates get into the answer. Does not know: connections, whether the offer is acceptable at all (`crate::sdp`).
//! Pure: text and facts go in, text and choices come out.
//!
//! `webrtc` answers what it is offered, with the offer's payload types and in the offer's order, so the choices are made
//! here, before it sees the offer: codecs we do not take are not in it, and the one we send stands first. Each section's
//! `a=msid` becomes its mid, so that a track is known by its section however clients name theirs. Of a simulcast offer it
//! sees one plain stream.

mod answer;
mod streams;
mod watched;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub(super) use self::answer::{answer, fragment, local_ice, with_credentials};
pub(super) use self::streams::{Learned, Unannounced};
pub(super) use self::watched::{Own, watched};
use super::PeerError;
use crate::media::{Codec, Kind};
use crate::sdp::{Offer, Setup, keep_sha256};
use crate::transport::ice::Credentials;

/// Remote candidates taken of one offer or session; a browser has few.
pub(super) const CANDIDATES_MAX: usize = 32;
/// Stream id of what we send: audio and video belong together.
pub(super) const STREAM_ID: &str = "commingle";
/// Prefix of the track ids that received tracks get; the mid follows.
pub(super) const TRACK_PREFIX: &str = "in-";

/// RTCP shares RTP's port, and has none of its own (RFC 8858).
const MUX_ONLY: &str = "a=rtcp-mux-only";

const EXTENSIONS: [&str; 9] = [
    super::engine::MID,
    super::engine::RID,
    super::engine::REPAIRED_RID,
    super::engine::AUDIO_LEVEL,
    super::engine::HEARD_LEVELS,
    super::engine::ORIENTATION,
    super::engine::COLOUR_SPACE,
    super::engine::TRANSPORT_CC,
    super::engine::SEND_TIME,
];
const VIDEO_FEEDBACK: [&str; 5] = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];
/// FlexFEC's encoding name.
const FLEXFEC: &str = "flexfec-03";
const AUDIO_FEEDBACK: [&str; 1] = ["transport-cc"];

/// A codec as the offer numbers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    pub(super) channels: u16,
    pub(super) parameters: String,
    /// Payload type of its retransmissions (RFC 4588).
    pub(super) rtx: Option<u8>,
}

/// Who opens the DTLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DtlsRole {
    /// The client does: it offered `actpass` or `active`.
    Server,
    /// We do: it offered `passive`.
    Client,
}

/// What is taken of an offer.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// The offer for `webrtc`.
    pub(super) text: String,
    pub(super) dtls_role: DtlsRole,
    /// The client's ICE credentials.
    pub(super) ice: Credentials,
    /// Codecs of every section, each payload type once.
    pub(super) formats: Vec<Format>,
    /// What we send.
    pub(super) audio_out: Option<Format>,
    pub(super) video_out: Option<Format>,
    /// Payload type of FlexFEC for that video, where the client takes it.
    pub(super) flexfec: Option<u8>,
    /// Extension ids by URI.
    extensions: BTreeMap<&'static str, u8>,
    /// Streams that the client will send without having named their SSRCs.
    pub(super) unannounced: Vec<Unannounced>,
    /// The simulcast layers taken, by mid.
    layers: BTreeMap<String, String>,
    /// The offer has no bundle: there is only one section to take.
    alone: bool,
    /// Sections that `webrtc` does not see and the answer refuses, by position.
    refused: BTreeMap<usize, Section>,
}

impl Taken {
    /// Where the client may be reached, as far as the offer says.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.text.lines().filter_map(|line| address(line.strip_prefix("a=candidate:")?)).collect()
    }

    /// Whether the client has only half an ICE agent and sends no checks of its own (RFC 8445 section 2.5).
    pub(super) fn is_lite(&self) -> bool {
        self.text.lines().any(|line| line == "a=ice-lite")
    }

    /// Id of a header extension, if offered.
    pub(super) fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.get(uri).copied()
    }
}

/// What the client is to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receives {
    pub(super) audio: bool,
    pub(super) video: Option<Codec>,
}

/// One media section, or the session part: its lines without line ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Section {
    lines: Vec<String>,
}

impl Section {
    fn value(&self, prefix: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(prefix))
    }

    fn values<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| line.strip_prefix(prefix))
    }

    fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|known| known == line)
    }

    /// Whether it has this header extension.
    fn offers(&self, uri: &str) -> bool {
        self.values("a=extmap:").any(|map| map.split(' ').nth(1) == Some(uri))
    }

    fn kind(&self) -> Option<Kind> {
        match self.lines.first()?.strip_prefix("m=")?.split(' ').next()? {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        }
    }

    fn port(&self) -> &str {
        self.lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
    }

    /// A section that shall only exist in a bundle is offered with port 0 (RFC 9143 section 6), as Firefox and GStreamer
    /// do with `max-bundle`; everywhere else port 0 means that a section was stopped.
    fn take_shared_transport(&mut self) {
        if self.port() == "0" && self.has("a=bundle-only") {
            self.lines[0] = self.lines[0].replacen(" 0 ", " 9 ", 1);
        }
    }

    fn mid(&self) -> &str {
        self.value("a=mid:").unwrap_or_default()
    }

    /// Whether we send in it: the client receives.
    fn receives(&self) -> bool {
        !self.has("a=sendonly") && !self.has("a=inactive") && self.port() != "0"
    }

    fn sends(&self) -> bool {
        !self.has("a=recvonly") && !self.has("a=inactive") && self.port() != "0"
    }

    /// The formats we take, in the offer's order.
    fn formats(&self) -> Vec<Format> {
        let Some(kind) = self.kind() else { return Vec::new() };
        let listed: Vec<u8> = self.listed().collect();
        let parameters = |number: u8| self.value(&format!("a=fmtp:{number} ")).unwrap_or_default();
        let retransmits = |number: u8| {
            let apt = parameters(number).split(';').find_map(|pair| pair.trim().strip_prefix("apt="));
            self.encoding(number).0.eq_ignore_ascii_case("rtx").then_some(apt?.parse::<u8>().ok()?)
        };
        let mut formats: Vec<Format> = Vec::new();
        for number in listed.iter().copied() {
            let (name, channels) = self.encoding(number);
            let codec = Codec::from_encoding_name(&name).filter(|codec| codec.kind() == kind);
            let Some(codec) = codec.filter(|codec| decodable(*codec, parameters(number))) else { continue };
            let rtx = listed.iter().copied().find(|other| retransmits(*other) == Some(number));
            let parameters = parameters(number).to_owned();
            formats.push(Format { codec, payload_type: number, channels, parameters, rtx });
        }
        formats
    }

    /// Payload types, in the offer's order.
    fn listed(&self) -> impl Iterator<Item = u8> + use<'_> {
        let listed = self.lines.first().into_iter().flat_map(|line| line.split(' ').skip(3));
        listed.filter_map(|text| text.parse().ok()).filter(|number| *number < 128)
    }

    /// Payload type of repair packets as browsers take them (draft-ietf-payload-flexible-fec-scheme-03).
    fn flexfec(&self) -> Option<u8> {
        self.listed().find(|number| self.encoding(*number).0.eq_ignore_ascii_case(FLEXFEC))
    }

    /// Encoding name and channels; the static types of RFC 3551 need no `a=rtpmap`.
    fn encoding(&self, number: u8) -> (String, u16) {
        let Some(map) = self.value(&format!("a=rtpmap:{number} ")) else {
            return match number {
                0 => ("PCMU".to_owned(), 0),
                8 => ("PCMA".to_owned(), 0),
                _ => (String::new(), 0),
            };
        };
        let mut parts = map.split('/');
        let name = parts.next().unwrap_or_default().to_owned();
        (name, parts.nth(1).and_then(|channels| channels.trim().parse().ok()).unwrap_or(0))
    }
}

/// Whether our decoders take this profile.
fn decodable(codec: Codec, parameters: &str) -> bool {
    let parameter = |name: &str| {
        parameters.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('=').map(str::trim))
    };
    match codec {
        Codec::Vp9 => parameter("profile-id").is_none_or(|profile| profile == "0"),
        Codec::Av1 => parameter("profile").is_none_or(|profile| profile == "0"),
        // Baseline, main and high; without one it is baseline (RFC 6184 section 8.1).
        Codec::H264 => {
            parameter("profile-level-id").is_none_or(|id| ["42", "4d", "4D", "64"].iter().any(|p| id.starts_with(p)))
        }
        _ => true,
    }
}

/// How well a format suits what our encoders make, the smaller the better; None when it cannot carry it.
fn fitness(format: &Format) -> Option<u8> {
    if format.codec != Codec::H264 {
        return Some(0);
    }
    // Our packets use fragmentation units, which packetization mode 0 has not (RFC 6184 section 6.3).
    let mode_1 = format.parameters.split(';').any(|pair| pair.trim() == "packetization-mode=1");
    let constrained = format.parameters.to_ascii_lowercase().contains("profile-level-id=42e0");
    let baseline = format.parameters.to_ascii_lowercase().contains("profile-level-id=42");
    mode_1.then_some(if constrained {
        0
    } else if baseline {
        1
    } else {
        2
    })
}

fn parse(text: &str) -> (Section, Vec<Section>) {
    let mut session = Section::default();
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if line.starts_with("m=") {
            sections.push(Section::default());
        }
        sections.last_mut().unwrap_or(&mut session).lines.push(plain(line));
    }
    sections.iter_mut().for_each(Section::take_shared_transport);
    (session, sections)
}

/// An m-line or attribute with single spaces, and none behind the attribute's name, where some put them.
fn plain(line: &str) -> String {
    if !line.starts_with("m=") && !line.starts_with("a=") {
        return line.to_owned();
    }
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.split_once(':') {
        Some((name, value)) if !name.contains(' ') => format!("{name}:{}", value.trim_start()),
        _ => line,
    }
}

/// Gives sections what they leave to the session part (RFC 8866 section 5.13), and the name that they leave out: it is their
/// place, as in [`Offer`].
fn complete(session: &Section, sections: &mut [Section]) {
    const DIRECTIONS: [&str; 4] = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
    let direction = session.lines.iter().rev().find(|line| DIRECTIONS.contains(&line.as_str()));
    for (place, section) in sections.iter_mut().enumerate() {
        if section.mid().is_empty() {
            section.lines.retain(|line| line != "a=mid:");
            section.lines.push(format!("a=mid:{place}"));
        }
        if !DIRECTIONS.iter().any(|known| section.has(known)) {
            section.lines.extend(direction.cloned());
        }
        let inherited: Vec<String> = session.values("a=extmap:").map(|map| format!("a=extmap:{map}")).collect();
        section.lines.extend(inherited);
    }
}

fn write(session: &Section, sections: &[Section]) -> String {
    let mut text = String::new();
    for line in sections.iter().fold(session.lines.iter().collect::<Vec<_>>(), |mut all, section| {
        all.extend(&section.lines);
        all
    }) {
        text += line;
        text += "\r\n";
    }
    text
}

/// Takes of an offer what we can. `learned` are the streams that were known by their packets since it came.
///
/// # Errors
/// [`PeerError::Offer`], when something is missing that the rest cannot do without.
pub(super) fn take(offer: &Offer, text: &str, receives: Receives, learned: &[Learned]) -> Result<Taken, PeerError> {
    let (session, mut offered) = parse(&keep_sha256(text));
    complete(&session, &mut offered);
    let mut taken = Taken {
        text: String::new(),
        dtls_role: if offer.setup == Setup::Passive { DtlsRole::Client } else { DtlsRole::Server },
        ice: Credentials { ufrag: offer.ufrag.clone(), password: offer.pwd.clone() },
        formats: Vec::new(),
        audio_out: None,
        video_out: None,
        flexfec: None,
        extensions: BTreeMap::new(),
        unannounced: Vec::new(),
        layers: BTreeMap::new(),
        alone: session.value("a=group:BUNDLE").is_none(),
        refused: BTreeMap::new(),
    };
    let mut candidates = 0;
    let mut sections = Vec::new();
    for (at, section) in offered.iter().enumerate() {
        let mut formats = section.formats();
        if section.kind().is_none() || (formats.is_empty() && section.port() != "0") {
            taken.refused.insert(at, section.clone());
            continue;
        }
        if section.sends() && !streams::names_repair(section) {
            formats.iter_mut().for_each(|format| format.rtx = None);
        }
        let wanted = match section.kind() {
            Some(Kind::Video) => receives.video.filter(|_| taken.video_out.is_none()),
            _ => (receives.audio && taken.audio_out.is_none()).then_some(Codec::Opus),
        };
        if let Some(wanted) = wanted.filter(|_| section.receives()) {
            let best = formats.iter().enumerate().filter(|(_, format)| format.codec == wanted);
            let best = best.filter_map(|(at, format)| Some((fitness(format)?, at))).min();
            if let Some((_, at)) = best {
                let chosen = formats.remove(at);
                formats.insert(0, chosen.clone());
                if wanted.kind() == Kind::Video {
                    taken.flexfec = section.flexfec();
                }
                *(if wanted.kind() == Kind::Video { &mut taken.video_out } else { &mut taken.audio_out }) =
                    Some(chosen);
            }
        }
        let mut seen = taken_section(section, &formats, &mut taken.extensions, &mut candidates);
        if section.sends() {
            taken.unannounced.extend(streams::write(section, at, &formats, learned, &mut seen.lines)?);
            taken.layers.extend(streams::layer(section).map(|rid| (section.mid().to_owned(), rid)));
        }
        sections.push(seen);
        for format in formats {
            if taken.formats.iter().all(|known| known.payload_type != format.payload_type) {
                taken.formats.push(format);
            }
        }
    }
    streams::check(&taken.unannounced, &offered)?;
    if receives.video.is_some() && taken.video_out.is_none() {
        return Err(PeerError::Offer(
            "no video section can take the codec we send; offer VP8, or H264 with packetization-mode=1".into(),
        ));
    }
    if receives.audio && taken.audio_out.is_none() {
        return Err(PeerError::Offer("no audio section can take Opus; offer opus/48000/2".into()));
    }
    let mids: Vec<&str> = sections.iter().map(Section::mid).collect();
    let mut session = taken_session(&session, &mids);
    if taken.alone {
        // What is in no bundle `webrtc` refuses.
        let one = sections.iter().find(|section| section.port() != "0").map(Section::mid);
        session.lines.extend(one.map(|mid| format!("a=group:BUNDLE {mid}")));
    }
    taken.text = write(&session, &sections);
    Ok(taken)
}

fn taken_session(session: &Section, mids: &[&str]) -> Section {
    let mut lines = Vec::new();
    for line in &session.lines {
        if let Some(bundle) = line.strip_prefix("a=group:BUNDLE") {
            let kept: Vec<&str> = bundle.split(' ').filter(|mid| mids.contains(mid)).collect();
            lines.push(format!("a=group:BUNDLE {}", kept.join(" ")));
        } else if is_common(line) {
            lines.push(line.clone());
        }
    }
    Section { lines }
}

/// Lines that mean the same in a session and in a section, and are taken as they are.
fn is_common(line: &str) -> bool {
    let taken = [
        "fingerprint:",
        "ice-ufrag:",
        "ice-pwd:",
        "ice-options:",
        "setup:",
        "extmap-allow-mixed",
        "rtcp-mux",
        "rtcp-rsize",
        "ice-lite",
    ];
    match line.strip_prefix("a=") {
        Some(attribute) => taken.iter().any(|name| attribute.starts_with(name)),
        None => ["v=", "o=", "s=", "t=", "c="].iter().any(|kind| line.starts_with(kind)),
    }
}

fn taken_section(
    section: &Section,
    formats: &[Format],
    extensions: &mut BTreeMap<&'static str, u8>,
    candidates: &mut usize,
) -> Section {
    let mut lines = Vec::new();
    let media_line = section.lines.first().map(String::as_str).unwrap_or_default();
    let head: Vec<&str> = media_line.splitn(4, ' ').take(3).collect();
    let numbers = formats.iter().flat_map(|format| [Some(format.payload_type), format.rtx]).flatten();
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let numbers = if numbers.is_empty() { "0".to_owned() } else { numbers.join(" ") };
    lines.push(format!("{} {numbers}", head.join(" ")));
    lines.extend(section.lines.iter().skip(1).filter(|line| is_common(line)).cloned());
    for direction in ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"] {
        if section.has(direction) {
            lines.push(direction.to_owned());
        }
    }
    if !lines.iter().any(|line| ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"].contains(&line.as_str())) {
        lines.push("a=sendrecv".to_owned());
    }
    let mid = section.mid();
    lines.push(format!("a=mid:{mid}"));
    for format in formats {
        write_format(section, format, &mut lines);
    }
    for map in section.values("a=extmap:") {
        let Some((id, uri)) = map.split_once(' ') else { continue };
        let number = id.split('/').next().and_then(|id| id.parse::<u8>().ok());
        let known = EXTENSIONS.iter().find(|known| **known == uri.split(' ').next().unwrap_or_default());
        if let (Some(number), Some(known)) = (number, known) {
            extensions.insert(known, number);
            lines.push(format!("a=extmap:{id} {known}"));
        }
    }
    for line in section.values("a=candidate:").filter(|line| is_reachable(line)) {
        *candidates += 1;
        if *candidates <= CANDIDATES_MAX {
            lines.push(format!("a=candidate:{line}"));
        }
    }
    Section { lines }
}

fn write_format(section: &Section, format: &Format, lines: &mut Vec<String>) {
    let number = format.payload_type;
    let (name, rate) = (format.codec.encoding_name(), format.codec.clock_rate());
    let channels = if format.channels > 0 { format!("/{}", format.channels) } else { String::new() };
    lines.push(format!("a=rtpmap:{number} {name}/{rate}{channels}"));
    if !format.parameters.is_empty() {
        lines.push(format!("a=fmtp:{number} {}", format.parameters));
    }
    let known: &[&str] = if format.codec.kind() == Kind::Video { &VIDEO_FEEDBACK } else { &AUDIO_FEEDBACK };
    let (own, any) = (format!("a=rtcp-fb:{number} "), "a=rtcp-fb:* ");
    for feedback in known.iter().filter(|known| section.values(&own).chain(section.values(any)).any(|f| f == **known)) {
        lines.push(format!("a=rtcp-fb:{number} {feedback}"));
    }
    if let Some(rtx) = format.rtx {
        lines.push(format!("a=rtpmap:{rtx} rtx/{rate}"));
        lines.push(format!("a=fmtp:{rtx} apt={number}"));
    }
}

/// Whether a candidate line (without `a=candidate:`) names an address that we can send to: UDP, and no mDNS name.
pub(super) fn is_reachable(candidate: &str) -> bool {
    let fields: Vec<&str> = candidate.split(' ').collect();
    let [_, component, transport, priority, address, port, "typ", ..] = *fields.as_slice() else { return false };
    component == "1"
        && transport.eq_ignore_ascii_case("udp")
        && priority.parse::<u32>().is_ok()
        && address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified() && !ip.is_multicast())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && fields.len() > 7
}

/// The address in a candidate line that is reachable.
pub(super) fn address(candidate: &str) -> Option<SocketAddr> {
    let mut fields = candidate.split(' ').skip(4);
    let (ip, port) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    is_reachable(candidate).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests;
