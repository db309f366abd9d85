//! Changes of SDP text from and to the WebRTC library.
//!
//! Owns: [`replace_candidates`] and [`keep_sha256`]. Does not know: the meaning of other lines.

use super::lines;

/// Replaces all candidates with ours (each `candidate:…`, without `a=`) and end-of-candidates, in the BUNDLE-tagged
/// section. Lines end in CRLF. The answer has only one transport, so no other section may have candidates (RFC 9143
/// §7.3.1).
pub fn replace_candidates(answer: &str, candidates: &[String]) -> String {
    let lines: Vec<&str> = lines(answer).map(|(_, line)| line).filter(|line| !is_candidate(line)).collect();
    let tag = lines.iter().find_map(|line| line.strip_prefix("a=group:BUNDLE ")?.split_whitespace().next());
    let (mut section, mut first, mut tagged) = (None, None, None);
    for (index, line) in lines.iter().enumerate() {
        if line.starts_with("m=") {
            section = Some(index);
            first = first.or(section);
        } else if tag.is_some() && line.strip_prefix("a=mid:") == tag {
            tagged = tagged.or(section);
        }
    }
    let carrier = tagged.or(first);
    let mut out = String::with_capacity(answer.len() + 128 * candidates.len());
    let mut push = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    let mut inside = false;
    for (index, line) in lines.iter().copied().chain(["m="]).enumerate() {
        // The next section, or the end, which the appended `m=` marks.
        if line.starts_with("m=") && inside {
            candidates.iter().for_each(|candidate| push(&format!("a={candidate}")));
            push("a=end-of-candidates");
            inside = false;
        }
        inside |= carrier == Some(index);
        if index < lines.len() {
            push(line);
        }
    }
    out
}

fn is_candidate(line: &str) -> bool {
    line.starts_with("a=candidate:") || line == "a=end-of-candidates"
}

/// Removes the fingerprints of an offer that are not sha-256, because the DTLS library fails at the first other one,
/// and normalizes the case of the rest: RFC 8122 section 5 permits upper and lower case.
pub fn keep_sha256(offer: &str) -> String {
    let mut out = String::with_capacity(offer.len());
    for (_, line) in lines(offer) {
        let Some(fingerprint) = line.strip_prefix("a=fingerprint:") else {
            out.extend([line, "\r\n"]);
            continue;
        };
        let mut words = fingerprint.split_whitespace();
        if let (Some(hash), Some(digits)) = (words.next(), words.next())
            && hash.eq_ignore_ascii_case("sha-256")
        {
            out.extend(["a=fingerprint:sha-256 ", &digits.to_ascii_uppercase(), "\r\n"]);
        }
    }
    out
}
