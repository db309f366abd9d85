//! Contributing sources of audio packets and their audio levels.
//!
//! Owns: the CSRC of each participant, the CNAMEs, and the header fields (RFC 3550 section 5.1, RFC 6465). Does not
//! know: receivers, RTCP packets. Pure.

use std::sync::Arc;

use bytes::Bytes;
use rtc::rtp;

use crate::id::ParticipantId;
use crate::transport;

/// Most CSRCs of an RTP header.
const CONTRIBUTORS_MAX: usize = 15;
/// Largest id of an extension with a one-byte header (RFC 8285 section 4.2).
const ID_MAX: u8 = 14;

/// A contributing source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contributor {
    /// The number of the participant's id: 3 for `p3`.
    pub csrc: u32,
    /// Audio level in -dBov: 0 is the loudest, 127 silence.
    pub level: u8,
}

/// The CNAMEs (RFC 7022) of one room's contributing sources: random, different for each source, the same for all
/// receivers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(Arc<str>);

impl Names {
    /// The names of a new room.
    pub fn random() -> Self {
        Self(transport::cname().into())
    }

    /// The CNAME of a contributing source.
    pub fn of(&self, csrc: u32) -> String {
        format!("{}-{csrc}", self.0)
    }
}

/// The contributing sources of a packet; clones share the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contributors {
    heard: Arc<[Contributor]>,
    names: Names,
}

impl Contributors {
    /// The participants in `heard` except the listener, with their levels in -dBov.
    pub fn of(heard: &[(ParticipantId, u8)], listener: Option<ParticipantId>, names: &Names) -> Self {
        let others = heard.iter().filter(|(talker, _)| Some(*talker) != listener).take(CONTRIBUTORS_MAX);
        let heard = others.map(|(talker, level)| Contributor { csrc: talker.0, level: (*level).min(127) }).collect();
        Self { heard, names: names.clone() }
    }

    /// An empty list.
    pub fn none() -> Self {
        Self::of(&[], None, &Names::default())
    }

    /// The CSRCs.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> {
        self.heard.iter().map(|contributor| contributor.csrc)
    }

    /// The CNAMEs.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Writes the list into a header; `levels` is the negotiated id of the extension for mixer-to-client audio levels.
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
    fn the_list_omits_the_listener() {
        let header = sent(&Contributors::of(&heard(3), Some(ParticipantId(2)), &Names::default()), Some(4));
        assert_eq!(header.csrc, [1, 3]);
        assert_eq!(header.get_extension(4).as_deref(), Some(&[10, 30][..]), "in the order of the list");
    }

    #[test]
    fn levels_are_written_only_if_negotiated_and_the_list_is_not_empty() {
        assert!(!sent(&Contributors::of(&heard(3), None, &Names::default()), None).extension);
        assert!(!sent(&Contributors::of(&heard(3), None, &Names::default()), Some(15)).extension, "no id of one byte");
        let silence = sent(&Contributors::none(), Some(4));
        assert!(silence.csrc.is_empty() && !silence.extension);
    }

    #[test]
    fn a_long_list_is_cut_to_fifteen_sources() {
        let mut crowd = heard(12);
        crowd.extend((13..40).map(|number| (ParticipantId(number), 255)));
        let header = sent(&Contributors::of(&crowd, None, &Names::default()), Some(1));
        assert_eq!(header.csrc.len(), 15);
        assert_eq!(header.get_extension(1).expect("levels")[12..], [127; 3], "the highest bit is reserved");
    }
}
