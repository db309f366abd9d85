//! Who is heard in a packet of sound: RTP's list of contributing sources, and how loud each is.
//!
//! Owns: which number stands for whom, what each is called in RTCP, and how list and levels stand in a header (RFC 3550
//! section 5.1, RFC 6465). Does not know: who gets what, RTCP. Pure.

use std::sync::Arc;

use bytes::Bytes;
use rtc::rtp;

use crate::id::ParticipantId;
use crate::transport;

/// As many as a header can name.
const CONTRIBUTORS_MAX: usize = 15;
/// Largest id of an extension with a header of one byte (RFC 8285 section 4.2).
const ID_MAX: u8 = 14;

/// One who is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contributor {
    /// The number of its id: 3 stands for the participant `p3`.
    pub csrc: u32,
    /// -dBov: 0 the loudest, 127 silence.
    pub level: u8,
}

/// What the contributors of one room are called in RTCP (CNAME, RFC 7022): each by a name of its own, the same to all who
/// hear it, which tells nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(Arc<str>);

impl Names {
    /// Those of a new room.
    pub fn random() -> Self {
        Self(transport::cname().into())
    }

    /// The name of a contributor.
    pub fn of(&self, csrc: u32) -> String {
        format!("{}-{csrc}", self.0)
    }
}

/// All who are heard in a packet; clones are the same list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contributors {
    heard: Arc<[Contributor]>,
    names: Names,
}

impl Contributors {
    /// Those of `heard`, but for the listener itself.
    pub fn of(heard: &[(ParticipantId, u8)], listener: Option<ParticipantId>, names: &Names) -> Self {
        let others = heard.iter().filter(|(talker, _)| Some(*talker) != listener).take(CONTRIBUTORS_MAX);
        let heard = others.map(|(talker, level)| Contributor { csrc: talker.0, level: (*level).min(127) }).collect();
        Self { heard, names: names.clone() }
    }

    /// Nobody.
    pub fn none() -> Self {
        Self::of(&[], None, &Names::default())
    }

    /// Their numbers.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> {
        self.heard.iter().map(|contributor| contributor.csrc)
    }

    /// What they are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Writes them into a header; `levels` is the id of the extension that tells how loud each is, where it was agreed upon.
    pub fn write(&self, header: &mut rtp::Header, levels: Option<u8>) {
        header.csrc = self.csrcs().collect();
        let Some(id) = levels.filter(|id| (1..=ID_MAX).contains(id) && !self.heard.is_empty()) else { return };
        let levels: Bytes = self.heard.iter().map(|contributor| contributor.level).collect();
        header.set_extension(id, levels).expect("fifteen bytes fit into an extension with a header of one byte");
    }
}

#[cfg(test)]
mod tests {
    use rtc::shared::marshal::{Marshal, Unmarshal};

    use super::*;

    fn heard(count: u32) -> Vec<(ParticipantId, u8)> {
        (1..=count).map(|number| (ParticipantId(number), number as u8 * 10)).collect()
    }

    fn sent(contributors: &Contributors, levels: Option<u8>) -> rtp::Header {
        let mut header = rtp::Header { version: 2, ssrc: 7, ..rtp::Header::default() };
        contributors.write(&mut header, levels);
        let bytes = header.marshal().expect("a header");
        rtp::Header::unmarshal(&mut bytes.freeze()).expect("is one")
    }

    #[test]
    fn everybody_is_named_but_oneself() {
        let header = sent(&Contributors::of(&heard(3), Some(ParticipantId(2)), &Names::default()), Some(4));
        assert_eq!(header.csrc, [1, 3]);
        assert_eq!(header.get_extension(4).as_deref(), Some(&[10, 30][..]), "in the order of the list");
    }

    #[test]
    fn levels_come_only_where_they_were_agreed_upon_and_somebody_is_heard() {
        assert!(!sent(&Contributors::of(&heard(3), None, &Names::default()), None).extension);
        assert!(!sent(&Contributors::of(&heard(3), None, &Names::default()), Some(15)).extension, "no id of one byte");
        let silence = sent(&Contributors::none(), Some(4));
        assert!(silence.csrc.is_empty() && !silence.extension);
    }

    #[test]
    fn a_crowd_is_cut_to_what_a_header_can_name() {
        let mut crowd = heard(12);
        crowd.extend((13..40).map(|number| (ParticipantId(number), 255)));
        let header = sent(&Contributors::of(&crowd, None, &Names::default()), Some(1));
        assert_eq!(header.csrc.len(), 15);
        assert_eq!(header.get_extension(1).expect("levels")[12..], [127; 3], "the highest bit is reserved");
    }
}
