//! The stream of a section that the client sends, which an offer names by its SSRC or not.
//!
//! Owns: which simulcast layer is taken, what `webrtc` is told of a section's stream. Does not know: packets; whoever sees
//! them says by [`Learned`] which SSRC a stream has that no offer named.
//!
//! `webrtc` finds a stream's section only by an SSRC of the description. A stream that has none there yet gets one that
//! nobody sends, and the offer is described again when the real one is known.

use super::super::engine;
use super::{Format, PeerError, Section, TRACK_PREFIX};

/// What stands for an SSRC not known yet; each section counts on from here.
const PLACEHOLDER: u32 = 0xC011_1E00;

/// A stream that is to come, and that the offer does not name by its SSRC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::peer) struct Unannounced {
    pub(in crate::peer) mid: String,
    /// The one simulcast layer that is taken.
    pub(in crate::peer) rid: Option<String>,
    pub(in crate::peer) payload_types: Vec<u8>,
}

/// The SSRC that such a stream turned out to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::peer) struct Learned {
    pub(in crate::peer) mid: String,
    pub(in crate::peer) rid: Option<String>,
    pub(in crate::peer) ssrc: u32,
}

/// Writes what `webrtc` is told of the stream of the section at this place; gives the stream if its SSRC is not known.
pub(super) fn write(
    section: &Section,
    place: usize,
    formats: &[Format],
    learned: &[Learned],
    lines: &mut Vec<String>,
) -> Result<Option<Unannounced>, PeerError> {
    let mid = section.mid();
    lines.push(format!("a=msid:in {TRACK_PREFIX}{mid}"));
    let rid = layer(section);
    if let Some(first) = announced(section).filter(|_| rid.is_none()) {
        first.parse::<u32>().map_err(|_| PeerError::Offer(format!("`a=ssrc:{first}` is not a number")))?;
        let repair = repair(section);
        lines.extend(repair.map(|repair| format!("a=ssrc-group:FID {first} {repair}")));
        lines.extend([Some(first), repair].into_iter().flatten().map(|ssrc| format!("a=ssrc:{ssrc} cname:in")));
        return Ok(None);
    }
    let known = learned.iter().find(|known| known.mid == mid && known.rid == rid);
    let ssrc = known.map_or(PLACEHOLDER + place as u32, |known| known.ssrc);
    lines.push(format!("a=ssrc:{ssrc} cname:in"));
    let payload_types = formats.iter().map(|format| format.payload_type).collect();
    Ok(known.is_none().then(|| Unannounced { mid: mid.to_owned(), rid, payload_types }))
}

/// The layer taken of a simulcast offer (RFC 8853): the last one, by custom the largest. None where packets do not say which
/// layer they are of.
pub(super) fn layer(section: &Section) -> Option<String> {
    if !section.offers(engine::MID) || !section.offers(engine::RID) {
        return None;
    }
    let mut words = section.value("a=simulcast:")?.split(' ');
    words.find(|word| *word == "send")?;
    let alternatives = words.next()?.split(';').filter_map(|layer| layer.split(',').next());
    // A layer with `~` is paused at first.
    let (paused, running): (Vec<&str>, Vec<&str>) = alternatives.partition(|rid| rid.starts_with('~'));
    let rid = running.last().or_else(|| paused.last())?.trim_start_matches('~');
    let sent = section.values("a=rid:").any(|line| line.split(' ').take(2).eq([rid, "send"]));
    let named = !rid.is_empty() && rid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    (sent && named).then(|| rid.to_owned())
}

/// Whether retransmissions of the section's stream are named too: those of other streams could not be told apart.
pub(super) fn names_repair(section: &Section) -> bool {
    layer(section).is_none() && repair(section).is_some()
}

fn announced(section: &Section) -> Option<&str> {
    section.values("a=ssrc:").find_map(|line| line.split(' ').next())
}

fn repair(section: &Section) -> Option<&str> {
    let first = announced(section)?;
    let pair = section.values("a=ssrc-group:FID ").find(|pair| pair.split(' ').next() == Some(first))?;
    pair.split(' ').nth(1).filter(|repair| repair.parse::<u32>().is_ok())
}

/// Fails when two unannounced streams could not be told apart by any of the ways of RFC 9143 section 9.2.
pub(super) fn check(streams: &[Unannounced], sections: &[Section]) -> Result<(), PeerError> {
    let says_mid = |mid: &str| sections.iter().any(|section| section.mid() == mid && section.offers(engine::MID));
    for (i, one) in streams.iter().enumerate() {
        for other in &streams[..i] {
            let shared = one.payload_types.iter().any(|number| other.payload_types.contains(number));
            if shared && !(says_mid(&one.mid) && says_mid(&other.mid)) {
                return Err(PeerError::Offer(format!(
                    "the packets of sections `{}` and `{}` could not be told apart; announce a=ssrc in each, or give each \
                     its own payload types, or offer the header extension {}",
                    other.mid,
                    one.mid,
                    engine::MID
                )));
            }
        }
    }
    Ok(())
}
