//! Trickle ICE fragments: `application/trickle-ice-sdpfrag` (RFC 8840 §9).
//!
//! Owns: their syntax and limits. Does not know: ICE agents. In: text. Out: a [`Fragment`], or an error that names the
//! fix.

use std::net::IpAddr;

use super::{CANDIDATES_MAX, has_forbidden_character, is_ice_text, lines};

/// Largest fragment in bytes.
const FRAGMENT_MAX: usize = 8 * 1024;

/// Why a fragment is refused. Each message names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FragmentError {
    #[error("the fragment is empty: send a=ice-ufrag, a=ice-pwd, the m-line, a=mid and the candidates")]
    Empty,
    #[error("the fragment has more than {FRAGMENT_MAX} bytes: send candidates in several requests")]
    TooLarge,
    #[error("the fragment has more than {CANDIDATES_MAX} candidates: send them in several requests")]
    TooManyCandidates,
    #[error("line {line} is not SDP: each line is a letter, `=` and a value (send the fragment itself, not JSON)")]
    Line { line: usize },
    #[error("line {line} has NUL or a carriage return inside: end each line with CR LF")]
    Character { line: usize },
    #[error("the fragment has no a=ice-ufrag and a=ice-pwd: copy both from the local description")]
    NoIce,
    #[error("a=ice-ufrag is not 4 to 256 letters, digits, `+` or `/`: copy it from the local description")]
    IceUfrag,
    #[error("a=ice-pwd is not 22 to 256 letters, digits, `+` or `/`: copy it from the local description")]
    IcePwd,
    #[error("line {line} is not a candidate: it looks like `a=candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host`")]
    Candidate { line: usize },
}

/// One candidate of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrickledCandidate {
    /// Mid of its section, if given.
    pub mid: Option<String>,
    /// Index of its m-line within the fragment, if given.
    pub m_line: Option<usize>,
    /// The attribute, beginning with `candidate:`.
    pub candidate: String,
}

/// A fragment: candidates that follow an offer, or credentials of an ICE restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// ICE user name fragment; a new one restarts ICE.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// UDP candidates with IP addresses.
    pub candidates: Vec<TrickledCandidate>,
    /// No more candidates follow.
    pub end_of_candidates: bool,
    /// Number of ignored candidates: TCP, other transports and components, host names (including mDNS).
    pub skipped: usize,
}

impl Fragment {
    /// Parses a fragment.
    ///
    /// # Errors
    /// The fragment is malformed or exceeds a limit.
    pub fn parse(text: &str) -> Result<Self, FragmentError> {
        if text.len() > FRAGMENT_MAX {
            return Err(FragmentError::TooLarge);
        }
        let (mut ufrag, mut pwd) = (None, None);
        let (mut m_line, mut mid) = (None, None);
        let (mut candidates, mut skipped, mut end_of_candidates, mut empty) = (Vec::new(), 0, false, true);
        for (number, line) in lines(text) {
            empty = false;
            if line.as_bytes().get(1) != Some(&b'=') {
                return Err(FragmentError::Line { line: number });
            }
            if has_forbidden_character(line) {
                return Err(FragmentError::Character { line: number });
            }
            if line.starts_with("m=") {
                m_line = Some(m_line.map_or(0, |index| index + 1));
                mid = None;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-ufrag" => ufrag = ufrag.or_else(|| Some(value.trim().to_owned())),
                "ice-pwd" => pwd = pwd.or_else(|| Some(value.trim().to_owned())),
                "mid" => mid = Some(value.trim().to_owned()),
                "end-of-candidates" => end_of_candidates = true,
                // Some clients mark the end with an empty candidate.
                "candidate" if value.trim().is_empty() => end_of_candidates = true,
                "candidate" => match usable(value) {
                    None => return Err(FragmentError::Candidate { line: number }),
                    Some(false) => skipped += 1,
                    Some(true) => {
                        let (mid, candidate) = (mid.clone(), attribute.to_owned());
                        candidates.push(TrickledCandidate { mid, m_line, candidate });
                    }
                },
                _ => {}
            }
            if candidates.len() + skipped > CANDIDATES_MAX {
                return Err(FragmentError::TooManyCandidates);
            }
        }
        if empty {
            return Err(FragmentError::Empty);
        }
        let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else { return Err(FragmentError::NoIce) };
        if !is_ice_text(&ufrag, 4) {
            return Err(FragmentError::IceUfrag);
        }
        if !is_ice_text(&pwd, 22) {
            return Err(FragmentError::IcePwd);
        }
        Ok(Self { ufrag, pwd, candidates, end_of_candidates, skipped })
    }
}

/// Whether a candidate (RFC 8839 §5.1) can be used; None if it is malformed.
fn usable(value: &str) -> Option<bool> {
    let mut words = value.split_whitespace();
    let foundation = words.next()?;
    let component: u16 = words.next()?.parse().ok()?;
    let transport = words.next()?;
    words.next()?.parse::<u32>().ok()?;
    let address = words.next()?;
    words.next()?.parse::<u16>().ok()?;
    let typ = (words.next()? == "typ").then(|| words.next())??;
    if !is_ice_text(foundation, 1) || foundation.len() > 32 || !(1..=256).contains(&component) {
        return None;
    }
    let known = ["host", "srflx", "prflx", "relay"].contains(&typ);
    Some(known && component == 1 && transport.eq_ignore_ascii_case("udp") && address.parse::<IpAddr>().is_ok())
}
