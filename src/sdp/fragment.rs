//! Trickle ICE fragments: `application/trickle-ice-sdpfrag` (RFC 8840).

use super::is_ice;

/// Longest fragment in bytes.
const FRAGMENT_MAX: usize = 8 * 1024;
/// Candidates taken of one fragment.
const CANDIDATES_MAX: usize = 32;

/// Why a text is not a fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// No bytes.
    #[error("the fragment is empty: send a=ice-ufrag, a=ice-pwd and a=candidate lines (RFC 8840)")]
    Empty,
    /// Over the limit.
    #[error("the fragment has more {0} than one needs (at most {1}): send candidates in several")]
    TooLarge(&'static str, usize),
    /// Not lines of SDP.
    #[error("line {0} of the fragment is not SDP: lines look like `a=candidate:…` or `m=audio 9 …`")]
    NotSdp(usize),
    /// Half of the credentials.
    #[error("the fragment has only one of a=ice-ufrag and a=ice-pwd: send both or none")]
    HalfIce,
    /// Credentials outside RFC 8445's limits.
    #[error("a=ice-ufrag must have 4 to 256 and a=ice-pwd 22 to 256 characters of A-Z, a-z, 0-9, + and /")]
    BadIce,
    /// Neither credentials nor candidates nor their end.
    #[error("the fragment has no a=ice-ufrag, a=candidate or a=end-of-candidates: there is nothing to do")]
    Nothing,
    /// A candidate that cannot be read.
    #[error("`{0}` is not a candidate: it looks like `candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host`")]
    BadCandidate(String),
}

/// One candidate of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The attribute's text without `a=`.
    pub line: String,
    /// The section it stands in, where one is named.
    pub mid: Option<String>,
}

/// A fragment, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// New or repeated user name fragment and password.
    pub credentials: Option<(String, String)>,
    /// Candidates over UDP with an address; others are of no use to this server and left out.
    pub candidates: Vec<Candidate>,
    /// How many were left out: TCP, mDNS names, other components.
    pub skipped: usize,
    /// No more will come.
    pub end_of_candidates: bool,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// When it is none, or over the limits.
    pub fn parse(text: &str) -> Result<Self, FragmentError> {
        if text.trim().is_empty() {
            return Err(FragmentError::Empty);
        }
        if text.len() > FRAGMENT_MAX {
            return Err(FragmentError::TooLarge("bytes", FRAGMENT_MAX));
        }
        let (mut ufrag, mut pwd, mut mid) = (None, None, None);
        let mut fragment = Self::default();
        for (index, line) in text.lines().map(str::trim_end).enumerate().filter(|(_, line)| !line.is_empty()) {
            if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
                ufrag.get_or_insert_with(|| value.to_owned());
            } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
                pwd.get_or_insert_with(|| value.to_owned());
            } else if let Some(value) = line.strip_prefix("a=mid:") {
                mid = Some(value.to_owned());
            } else if line == "a=end-of-candidates" {
                fragment.end_of_candidates = true;
            } else if line.starts_with("a=candidate:") {
                fragment.take(&line[2..], mid.clone())?;
            } else if line.as_bytes().get(1) != Some(&b'=') {
                return Err(FragmentError::NotSdp(index + 1));
            }
        }
        fragment.credentials = match (ufrag, pwd) {
            (Some(ufrag), Some(pwd)) if is_ice(&ufrag, 4) && is_ice(&pwd, 22) => Some((ufrag, pwd)),
            (Some(_), Some(_)) => return Err(FragmentError::BadIce),
            (None, None) => None,
            _ => return Err(FragmentError::HalfIce),
        };
        let nothing = fragment.candidates.is_empty() && fragment.skipped == 0 && !fragment.end_of_candidates;
        if nothing && fragment.credentials.is_none() {
            return Err(FragmentError::Nothing);
        }
        Ok(fragment)
    }

    fn take(&mut self, line: &str, mid: Option<String>) -> Result<(), FragmentError> {
        if self.candidates.len() + self.skipped >= CANDIDATES_MAX {
            return Err(FragmentError::TooLarge("candidates", CANDIDATES_MAX));
        }
        let bad = || FragmentError::BadCandidate(line.chars().take(100).collect());
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, component, transport, priority, address, port, "typ", _, ..] = words[..] else { return Err(bad()) };
        let numbers =
            component.parse::<u16>().is_ok() && priority.parse::<u32>().is_ok() && port.parse::<u16>().is_ok();
        if !numbers {
            return Err(bad());
        }
        let usable =
            component == "1" && transport.eq_ignore_ascii_case("udp") && address.parse::<std::net::IpAddr>().is_ok();
        if usable {
            self.candidates.push(Candidate { line: line.to_owned(), mid });
        } else {
            self.skipped += 1;
        }
        Ok(())
    }
}
