//! What we ask of an offer (RFC 8866, 8829, 9725), and trickle ICE fragments (RFC 8840). Pure: text in, facts out.
//!
//! Owns: whether an offer can be answered at all, and what its sender wants: what it sends, what it gets back. Each
//! error names what is wrong and what to do. Does not know: how the answer is made (the edge's peers do that).
//! [`Offer::parse`] reads one, [`Offer::facts`] judges it; [`Fragment::parse`] reads a fragment.

mod fragment;
#[cfg(test)]
mod tests;

pub use fragment::{Candidate, Fragment, FragmentError};

use crate::media::{Codec, Kind, SourceKind};

/// Longest offer in bytes.
pub const OFFER_MAX: usize = 64 * 1024;
const LINES_MAX: usize = 2_000;
const SECTIONS_MAX: usize = 16;
const CANDIDATES_MAX: usize = 64;

/// Why an offer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// No bytes.
    #[error("the offer is empty: send the SDP of createOffer() as the body")]
    Empty,
    /// Over one of the limits.
    #[error("the offer has more {0} than an offer needs (at most {1})")]
    TooLarge(&'static str, usize),
    /// Something else.
    #[error("the body is not SDP: it must begin with `v=0` and have lines like `a=…`, but line {0} does not")]
    NotSdp(usize),
    /// Nothing to talk about.
    #[error("the offer has no audio or video section: add a transceiver before createOffer()")]
    NoMedia,
    /// Nothing sent, nothing received.
    #[error("every section of the offer is inactive or stopped: send or receive something")]
    Inactive,
    /// No ICE credentials.
    #[error("the offer has no ICE credentials (a=ice-ufrag and a=ice-pwd): send the SDP of setLocalDescription()")]
    NoIce,
    /// Credentials outside RFC 8445's limits.
    #[error(
        "a=ice-ufrag must have 4 to 256 and a=ice-pwd 22 to 256 characters of A-Z, a-z, 0-9, + and / (RFC 8445 section 5.3)"
    )]
    BadIce,
    /// No DTLS fingerprint.
    #[error("the offer has no DTLS fingerprint (a=fingerprint): media is encrypted by DTLS-SRTP only")]
    NoFingerprint,
    /// Only other hashes.
    #[error("the offer has no sha-256 fingerprint: add `a=fingerprint:sha-256 …`")]
    NoSha256,
    /// Not bundled.
    #[error(
        "the sections of the offer are not bundled: use `bundlePolicy: 'max-bundle'` (a=group:BUNDLE with every mid)"
    )]
    NoBundle,
    /// RTCP on its own port.
    #[error("the offer lacks a=rtcp-mux in section `{0}`: RTP and RTCP share one port here")]
    NoRtcpMux(String),
    /// Too many of a kind.
    #[error("the offer {0} {1}; at most {2}: remove one")]
    TooMany(&'static str, usize, &'static str),
    /// Nothing we can decode or encode.
    #[error("the offer has no {what} codec in common with this server: it has {offered}, the server takes {taken}")]
    NoCodec {
        /// Audio or video, to send or receive.
        what: &'static str,
        /// What the offer lists.
        offered: String,
        /// What would do.
        taken: String,
    },
}

/// Which way media goes, as the offerer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways: a participant.
    SendRecv,
    /// From the offerer: a publisher.
    SendOnly,
    /// To the offerer: a viewer.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    const fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    fn parse(attribute: &str) -> Option<Self> {
        Some(match attribute {
            "sendrecv" => Self::SendRecv,
            "sendonly" => Self::SendOnly,
            "recvonly" => Self::RecvOnly,
            "inactive" => Self::Inactive,
            _ => return None,
        })
    }
}

/// An offer, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// ICE user name fragment of the offerer.
    pub ice_ufrag: String,
    /// ICE password of the offerer.
    pub ice_pwd: String,
    /// The media sections in order.
    pub sections: Vec<Section>,
    bundled: Vec<String>,
    hashes: Vec<String>,
}

/// One media section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `a=mid`, or its index where it has none.
    pub mid: String,
    /// None for anything but audio and video.
    pub kind: Option<Kind>,
    /// Which way, as the offerer says; inactive for a stopped one (port 0 without bundle-only).
    pub direction: Direction,
    /// Codecs in the order of preference; None for those we do not know.
    pub codecs: Vec<OfferedCodec>,
    /// Says of itself that it is a screen or slides.
    pub screen: bool,
    rtcp_mux: bool,
}

/// One payload type of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCodec {
    /// RTP payload type.
    pub payload_type: u8,
    /// The encoding name as offered.
    pub name: String,
    /// Format parameters as offered.
    pub fmtp: String,
}

/// What an acceptable offer wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Participant, publisher or viewer.
    pub direction: Direction,
    /// What it sends, by mid.
    pub sends: Vec<(String, SourceKind)>,
    /// Wants the mix.
    pub receives_audio: bool,
    /// Wants the composition, in this codec.
    pub receives_video: Option<Codec>,
}

impl Offer {
    /// Reads an offer. Line ends may be CRLF or LF; unknown attributes are passed over.
    ///
    /// # Errors
    /// When it is no SDP, too large, or lacks what every connection needs: ICE credentials and a fingerprint.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        let lines = lines(text)?;
        let starts = |line: &&str| line.starts_with("m=");
        let head = lines.iter().position(starts).unwrap_or(lines.len());
        let session = &lines[..head];
        let bodies: Vec<&[&str]> = lines[head..].chunk_by(|_, next| !starts(next)).collect();
        if bodies.len() > SECTIONS_MAX {
            return Err(OfferError::TooLarge("media sections", SECTIONS_MAX));
        }
        if lines.iter().filter(|line| line.starts_with("a=candidate:")).count() > CANDIDATES_MAX {
            return Err(OfferError::TooLarge("candidates", CANDIDATES_MAX));
        }
        let inherited = session.iter().find_map(|line| Direction::parse(line.strip_prefix("a=")?));
        let sections: Vec<_> =
            bodies.iter().enumerate().map(|(index, body)| Section::parse(index, body, inherited)).collect();
        if !sections.iter().any(|section| section.kind.is_some()) {
            return Err(OfferError::NoMedia);
        }
        let (ufrag, pwd) = (first(&lines, "a=ice-ufrag:"), first(&lines, "a=ice-pwd:"));
        let (Some(ice_ufrag), Some(ice_pwd)) = (ufrag, pwd) else { return Err(OfferError::NoIce) };
        if !is_ice(&ice_ufrag, 4) || !is_ice(&ice_pwd, 22) {
            return Err(OfferError::BadIce);
        }
        let hash = |line: &&str| Some(line.strip_prefix("a=fingerprint:")?.split(' ').next()?.to_ascii_lowercase());
        let bundled = first(session, "a=group:BUNDLE").unwrap_or_default();
        Ok(Self {
            ice_ufrag,
            ice_pwd,
            sections,
            bundled: bundled.split_whitespace().map(str::to_owned).collect(),
            hashes: lines.iter().filter_map(hash).collect(),
        })
    }

    /// Judges the offer: what it sends and gets back. `encodable` are the video codecs we may send, best first.
    ///
    /// # Errors
    /// When it cannot be answered as it is.
    pub fn facts(&self, encodable: &[Codec]) -> Result<Facts, OfferError> {
        if self.hashes.is_empty() {
            return Err(OfferError::NoFingerprint);
        }
        if !self.hashes.iter().any(|hash| hash == "sha-256") {
            return Err(OfferError::NoSha256);
        }
        let live: Vec<&Section> = self.sections.iter().filter(|section| section.is_live()).collect();
        if live.is_empty() {
            return Err(OfferError::Inactive);
        }
        if live.len() > 1 && live.iter().any(|section| !self.bundled.contains(&section.mid)) {
            return Err(OfferError::NoBundle);
        }
        if let Some(section) = live.iter().find(|section| !section.rtcp_mux) {
            return Err(OfferError::NoRtcpMux(section.mid.clone()));
        }
        let sends = self.sends(&live)?;
        let receiving =
            |kind| live.iter().filter(move |section| section.kind == Some(kind) && section.direction.receives());
        for (kind, what) in [(Kind::Audio, "receives audio in"), (Kind::Video, "receives video in")] {
            let count = receiving(kind).count();
            if count > 1 {
                let limit = "one mixed stream is sent, so one section receives each kind (make the others sendonly)";
                return Err(OfferError::TooMany(what, count, limit));
            }
        }
        let receives_audio = match receiving(Kind::Audio).next() {
            Some(section) => {
                section.first_of(&[Codec::Opus], "audio", "to receive the mix")?;
                true
            }
            None => false,
        };
        let receives_video = match receiving(Kind::Video).next() {
            Some(section) => Some(section.first_of(encodable, "video", "to receive the picture")?),
            None => None,
        };
        let receives = receives_audio || receives_video.is_some();
        Ok(Facts { direction: Direction::of(!sends.is_empty(), receives), sends, receives_audio, receives_video })
    }

    fn sends(&self, live: &[&Section]) -> Result<Vec<(String, SourceKind)>, OfferError> {
        let sending = |kind| live.iter().filter(move |section| section.kind == Some(kind) && section.direction.sends());
        let (audio, video) = (sending(Kind::Audio).count(), sending(Kind::Video).count());
        if audio > 1 {
            return Err(OfferError::TooMany("sends audio in", audio, "one microphone is taken"));
        }
        if video > 2 {
            return Err(OfferError::TooMany("sends video in", video, "a camera and a screen are taken"));
        }
        let mut sends = Vec::new();
        for section in sending(Kind::Audio) {
            section.first_of(&[Codec::Opus, Codec::Pcmu, Codec::Pcma], "audio", "to send")?;
            sends.push((section.mid.clone(), SourceKind::Microphone));
        }
        // The second is the screen, unless the first says that it is one.
        let screen_first = sending(Kind::Video).next().is_some_and(|section| section.screen);
        for (index, section) in sending(Kind::Video).enumerate() {
            section.first_of(&[Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1], "video", "to send")?;
            let screen = if index == 0 { screen_first } else { !screen_first };
            sends.push((section.mid.clone(), if screen { SourceKind::Screen } else { SourceKind::Camera }));
        }
        Ok(sends)
    }
}

impl Section {
    fn parse(index: usize, lines: &[&str], inherited: Option<Direction>) -> Self {
        let mut words = lines[0].trim_start_matches("m=").split_whitespace();
        let kind = match words.next() {
            Some("audio") => Some(Kind::Audio),
            Some("video") => Some(Kind::Video),
            _ => None,
        };
        let stopped = words.next() == Some("0") && !lines.contains(&"a=bundle-only");
        let direction = lines.iter().find_map(|line| Direction::parse(line.strip_prefix("a=")?));
        let direction = direction.or(inherited).unwrap_or(Direction::SendRecv);
        let codecs = words.skip(1).filter_map(|word| OfferedCodec::find(word.parse().ok()?, lines)).collect();
        let labelled = |line: &&str| {
            line.starts_with("a=msid:") && line.split([':', ' ']).any(|word| word == "screen")
                || *line == "a=label:screen"
        };
        Self {
            mid: first(lines, "a=mid:").unwrap_or_else(|| index.to_string()),
            kind,
            direction: if stopped { Direction::Inactive } else { direction },
            codecs,
            screen: lines.contains(&"a=content:slides") || lines.iter().any(labelled),
            rtcp_mux: lines.iter().any(|line| *line == "a=rtcp-mux" || *line == "a=rtcp-mux-only"),
        }
    }

    fn is_live(&self) -> bool {
        self.kind.is_some() && self.direction != Direction::Inactive
    }

    /// The first codec in the offer's order that is one of `taken`.
    fn first_of(&self, taken: &[Codec], what: &'static str, why: &str) -> Result<Codec, OfferError> {
        let known = self.codecs.iter().filter(|offered| offered.is_usable());
        known
            .filter_map(|offered| Codec::from_encoding_name(&offered.name))
            .find(|codec| taken.contains(codec))
            .ok_or_else(|| {
                let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let mut offered: Vec<&str> = self.codecs.iter().map(|codec| codec.name.as_str()).collect();
                offered.dedup();
                let taken = list(taken.iter().map(|codec| codec.encoding_name()).collect());
                OfferError::NoCodec { what, offered: list(offered), taken: format!("{taken} {why}") }
            })
    }
}

impl OfferedCodec {
    fn find(payload_type: u8, lines: &[&str]) -> Option<Self> {
        let attribute = |name: &str| first(lines, &format!("a={name}:{payload_type} "));
        let name = match attribute("rtpmap") {
            Some(map) => map.split('/').next()?.to_owned(),
            // The static payload types of RFC 3551 need no rtpmap.
            None if payload_type == 0 => Codec::Pcmu.encoding_name().to_owned(),
            None if payload_type == 8 => Codec::Pcma.encoding_name().to_owned(),
            None => return None,
        };
        Some(Self { payload_type, name, fmtp: attribute("fmtp").unwrap_or_default() })
    }

    /// H.264 beyond the main profile and VP9 beyond 8-bit 4:2:0 are not decoded everywhere; they are passed over.
    fn is_usable(&self) -> bool {
        let parameter =
            |name: &str| self.fmtp.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
        match Codec::from_encoding_name(&self.name) {
            Some(Codec::H264) => parameter("profile-level-id").is_none_or(|id| {
                // 42 is baseline, 4d is main (RFC 6184 section 8.1).
                let profile = id.get(..2).unwrap_or_default().to_ascii_lowercase();
                profile == "42" || profile == "4d"
            }),
            Some(Codec::Vp9) => parameter("profile-id").is_none_or(|id| id == "0"),
            _ => true,
        }
    }
}

/// The lines of a description, checked for size and shape.
fn lines(text: &str) -> Result<Vec<&str>, OfferError> {
    if text.trim().is_empty() {
        return Err(OfferError::Empty);
    }
    if text.len() > OFFER_MAX {
        return Err(OfferError::TooLarge("bytes", OFFER_MAX));
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.len() > LINES_MAX {
        return Err(OfferError::TooLarge("lines", LINES_MAX));
    }
    let shaped = |line: &&str| {
        line.as_bytes().first().is_some_and(u8::is_ascii_lowercase) && line.as_bytes().get(1) == Some(&b'=')
    };
    if let Some(odd) = lines.iter().position(|line| !shaped(line)) {
        return Err(OfferError::NotSdp(odd + 1));
    }
    if lines[0] != "v=0" {
        return Err(OfferError::NotSdp(1));
    }
    Ok(lines)
}

fn first(lines: &[&str], prefix: &str) -> Option<String> {
    lines.iter().find_map(|line| line.strip_prefix(prefix)).map(|value| value.trim().to_owned())
}

/// Whether a text is made of ice-chars (RFC 8839 section 5.4) in the allowed length.
fn is_ice(text: &str, shortest: usize) -> bool {
    (shortest..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '/')
}
