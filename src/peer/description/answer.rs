//! What the client gets back: the answer with our candidates, and our side of an ICE restart.
//!
//! Owns: the words of answers and fragments. Does not know: how `webrtc` came to its own answer. Text in, text out.

use std::fmt::{Display, Write as _};

use super::super::engine::HEARD_LEVELS;
use super::{MUX_ONLY, STREAM_ID, Section, Taken, parse, write};
use crate::sdp::replace_candidates;
use crate::transport::ice::Credentials;

/// Reads our credentials from the answer that `webrtc` made.
pub(in crate::peer) fn local_ice(answer: &str) -> Option<Credentials> {
    let find = |prefix: &str| answer.lines().find_map(|line| line.trim_end().strip_prefix(prefix)).map(str::to_owned);
    Some(Credentials { ufrag: find("a=ice-ufrag:")?, password: find("a=ice-pwd:")? })
}

/// The answer for the client: with our candidates, the simulcast layers we take, and the refused sections in their places.
pub(in crate::peer) fn answer(made: &str, taken: &Taken, candidates: &[String], cname: &str) -> String {
    let (mut session, made) = parse(made);
    let at = session.lines.iter().position(|line| line.starts_with("a=")).unwrap_or(session.lines.len());
    session.lines.insert(at, "a=ice-options:trickle".to_owned());
    if taken.alone {
        session.lines.retain(|line| !line.starts_with("a=group:BUNDLE"));
    }
    let (_, offered) = parse(&taken.text);
    let mut made = made.into_iter();
    let mut sections = Vec::new();
    loop {
        if let Some(refused) = taken.refused.get(&sections.len()) {
            sections.push(refusal(refused));
        } else if let Some(mut section) = made.next() {
            for line in &mut section.lines {
                *line = line.replace(&format!(" cname:{STREAM_ID}"), &format!(" cname:{cname}"));
            }
            // RFC 9725 section 4.4.1 wants it of both sides.
            if offered.iter().any(|offered| offered.mid() == section.mid() && offered.has(MUX_ONLY)) {
                section.lines.push(MUX_ONLY.to_owned());
            }
            towards_the_client(&mut section);
            if let Some(rid) = taken.layers.get(section.mid()) {
                // RFC 8853 section 5.3: the layers that are not in the answer are not sent.
                section.lines.extend([format!("a=rid:{rid} recv"), format!("a=simulcast:recv {rid}")]);
            }
            sections.push(section);
        } else {
            break;
        }
    }
    replace_candidates(&write(&session, &sections), candidates)
}

/// Only mixes have this extension, and only clients get mixes: where we send none it is not agreed upon.
fn towards_the_client(section: &mut Section) {
    let sends = section.has("a=sendrecv") || section.has("a=sendonly");
    section.lines.retain_mut(|line| {
        let id =
            line.strip_prefix("a=extmap:").and_then(|map| map.strip_suffix(HEARD_LEVELS)?.split(['/', ' ']).next());
        let Some(agreed) = id.map(levels_towards_the_client) else { return true };
        *line = agreed;
        sends
    });
}

/// The extension of RFC 6465 in one direction, as RFC 8285 section 5 writes it.
pub(super) fn levels_towards_the_client(id: impl Display) -> String {
    format!("a=extmap:{id}/sendonly {HEARD_LEVELS}")
}

pub(super) fn refusal(offered: &Section) -> Section {
    let line = offered.lines.first().map(String::as_str).unwrap_or_default();
    let fields: Vec<&str> = line.split(' ').collect();
    let line = match *fields.as_slice() {
        [media, _, protocol, format, ..] => format!("{media} 0 {protocol} {format}"),
        _ => line.to_owned(),
    };
    let mut lines = vec![line, "c=IN IP4 0.0.0.0".to_owned()];
    if !offered.mid().is_empty() {
        lines.push(format!("a=mid:{}", offered.mid()));
    }
    lines.push("a=inactive".to_owned());
    Section { lines }
}

/// The same offer with other ICE credentials: what a client means that restarts ICE by a fragment (RFC 9725 section 4.3.3).
pub(in crate::peer) fn with_credentials(offer: &str, ufrag: &str, password: &str) -> String {
    let (mut session, mut sections) = parse(offer);
    for section in sections.iter_mut().chain([&mut session]) {
        section.lines.retain(|line| !line.starts_with("a=candidate:"));
        for line in &mut section.lines {
            if line.starts_with("a=ice-ufrag:") {
                *line = format!("a=ice-ufrag:{ufrag}");
            } else if line.starts_with("a=ice-pwd:") {
                *line = format!("a=ice-pwd:{password}");
            }
        }
    }
    write(&session, &sections)
}

/// Our side of an ICE restart, as a fragment (RFC 8840 section 9).
pub(in crate::peer) fn fragment(made: &str, ice: &Credentials, candidates: &[String]) -> String {
    let (session, sections) = parse(made);
    let mut text = "a=ice-options:trickle\r\n".to_owned();
    if let Some(bundle) = session.value("a=group:") {
        let _ = write!(text, "a=group:{bundle}\r\n");
    }
    if let Some(first) = sections.iter().find(|section| section.port() != "0") {
        let line = first.lines.first().map(String::as_str).unwrap_or_default();
        let _ = write!(text, "{line}\r\na=mid:{}\r\n", first.mid());
    }
    let _ = write!(text, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ice.ufrag, ice.password);
    for candidate in candidates {
        let _ = write!(text, "a={candidate}\r\n");
    }
    text + "a=end-of-candidates\r\n"
}
