//! SDP offers and trickle ICE fragments, and two changes of SDP text. Pure.
//!
//! Owns: which offers can join, and errors that name the fix. Does not know: peer connections, rooms, permissions. In:
//! text, through [`Offer::parse`] and [`Fragment::parse`]. Out: plain data, and [`Offer::facts`], the media that a
//! joiner sends and receives. The parser accepts CRLF and LF, ignores unknown lines, and limits everything it stores.

mod facts;
mod fragment;
mod offer;
mod rewrite;

#[cfg(test)]
mod tests;

pub use facts::Facts;
pub use fragment::{Fragment, FragmentError, TrickledCandidate};
pub use offer::{
    Direction, Extension, Feedback, Fingerprint, Msid, Offer, OfferedCodec, Section, SectionKind, Setup,
    SimulcastStream,
};
pub use rewrite::{keep_sha256, replace_candidates};

use std::net::{IpAddr, SocketAddr};

use crate::media::{SoundLimits, Sounds};

/// Maximum size of an offer in bytes.
pub const OFFER_MAX: usize = 64 * 1024;
/// Most lines of an offer.
const LINES_MAX: usize = 2_000;
/// Most m-lines of an offer.
const SECTIONS_MAX: usize = 16;
/// Most candidates in an offer or fragment.
const CANDIDATES_MAX: usize = 64;

/// Why an offer cannot join. Each message names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OfferError {
    #[error("the offer is empty: send the SDP of your peer connection's local description as the request body")]
    Empty,
    #[error("the offer has more than {OFFER_MAX} bytes: remove unused codecs and m-lines")]
    TooLarge,
    #[error("the offer has more than {LINES_MAX} lines: remove unused codecs and m-lines")]
    TooManyLines,
    #[error("the offer has more than {SECTIONS_MAX} m-lines: stop unused transceivers or make a new peer connection")]
    TooManySections,
    #[error("the offer has more than {CANDIDATES_MAX} candidates: send fewer, or trickle them by PATCH")]
    TooManyCandidates,
    #[error("the body is not SDP: it must begin with the line `v=0` (send the SDP itself, not JSON)")]
    NotSdp,
    #[error("line {line} has NUL or a carriage return inside: end each line with CR LF")]
    Character { line: usize },
    #[error("line {line} is not an m-line: it looks like `m=audio 9 UDP/TLS/RTP/SAVPF 111`")]
    MediaLine { line: usize },
    #[error("the offer has no media: add an audio or video transceiver before creating it")]
    NoMedia,
    #[error(
        "the offer has no a=ice-ufrag and a=ice-pwd: gather ICE before posting it (post the local description after \
         setLocalDescription)"
    )]
    NoIce,
    #[error("a=ice-ufrag is not 4 to 256 letters, digits, `+` or `/`: let your ICE agent choose it")]
    IceUfrag,
    #[error("a=ice-pwd is not 22 to 256 letters, digits, `+` or `/`: let your ICE agent choose it")]
    IcePwd,
    #[error("the offer has no a=fingerprint: media is taken over DTLS-SRTP only, so switch DTLS on")]
    NoFingerprint,
    #[error("the offer has no sha-256 fingerprint: add `a=fingerprint:sha-256 …` of your DTLS certificate")]
    NoSha256,
    #[error("a=setup:{0} is not possible in an offer: use actpass, active or passive")]
    Setup(String),
    #[error("the offer has {sections} m-lines and no a=group:BUNDLE of all of them: set bundlePolicy to `max-bundle`")]
    NoBundle { sections: usize },
    #[error("m-section `{mid}` is not encrypted: media is taken over DTLS-SRTP only, as UDP/TLS/RTP/SAVPF")]
    Insecure { mid: String },
    #[error("m-section `{mid}` has no a=rtcp-mux: set rtcpMuxPolicy to `require`")]
    NoRtcpMux { mid: String },
    #[error("two m-sections have the mid `{mid}`: each a=mid must be given once")]
    SameMid { mid: String },
    #[error("the offer neither sends nor receives: make a transceiver sendrecv, sendonly or recvonly")]
    Nothing,
    #[error("the offer has {count} audio sections to send; at most one (the microphone) is taken: remove {}", .count - 1)]
    AudioSent { count: usize },
    #[error(
        "the offer has {count} video sections to send; at most two (camera and screen) are taken: remove {}",
        .count - 2
    )]
    VideoSent { count: usize },
    #[error("both video sections to send are marked as screen: send one camera and one screen, or one of them")]
    TwoScreens,
    #[error("the offer has {count} {kind} sections to receive, but one mix is sent: make all but one sendonly")]
    Received { kind: &'static str, count: usize },
    #[error(
        "m-section `{mid}` accepts audio of at most {} bit/s in packets of at most {} ms, but the server sends {}, or {}: \
         raise maxaveragebitrate or a=maxptime",
        .limits.bits_per_second, .limits.packet_ms, .sounds.full, .sounds.thin
    )]
    Sound { mid: String, limits: SoundLimits, sounds: Sounds },
    #[error("m-section `{mid}` has no codec that can be {verb}: it offers {offered}; use {taken}")]
    NoCodec { mid: String, verb: &'static str, offered: String, taken: String },
}

/// Lines with their numbers from 1, without line ends; empty ones are skipped.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.split('\n').map(|line| line.trim_end_matches('\r').trim());
    lines.enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.is_empty())
}

/// Whether a line has a character that no value has (RFC 8866 section 9, `byte-string`). Values are repeated in answers,
/// where a receiver may take it for the end of a line.
fn has_forbidden_character(line: &str) -> bool {
    line.contains(['\0', '\r'])
}

/// Whether a text is so many characters that ICE takes in ufrag and pwd (RFC 8839 §5.4).
fn is_ice_text(text: &str, at_least: usize) -> bool {
    (at_least..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// The address of a candidate (RFC 8839 section 5.1, without `candidate:`) that can be sent to: UDP, component 1, an IP
/// address that is neither unspecified nor multicast, a port. None for others, which are to be ignored.
pub fn candidate_address(candidate: &str) -> Option<SocketAddr> {
    let mut words = candidate.split_whitespace().skip(1);
    let (component, transport, priority) = (words.next()?, words.next()?, words.next()?);
    let (ip, port): (IpAddr, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let typed = words.next()? == "typ" && words.next().is_some();
    let usable = component == "1" && transport.eq_ignore_ascii_case("udp") && priority.parse::<u32>().is_ok() && typed;
    (usable && port > 0 && !ip.is_unspecified() && !ip.is_multicast()).then_some(SocketAddr::new(ip, port))
}
