//! The SSRCs of what a session sends.
//!
//! Owns: their choice. Does not know: packets.

use crate::sdp::Offer;

/// SSRCs of what a client is sent: each stream's, the next one for its retransmissions, the one after that for its FEC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ssrcs {
    pub(super) audio: u32,
    pub(super) video: u32,
}

impl Ssrcs {
    pub(super) fn random() -> Self {
        // Four apart at least, and never 0, which some clients take for "none".
        let audio = rand::random::<u32>() | 1;
        Self { audio, video: audio ^ 0x8000_0004 }
    }

    /// SSRCs that the offer does not use (RFC 3550 section 8.1).
    pub(super) fn apart_from(offer: &Offer) -> Self {
        let offered = || offer.sections.iter().flat_map(|section| &section.ssrcs);
        loop {
            let ssrcs = Self::random();
            if !offered().any(|ssrc| ssrcs.has(*ssrc)) {
                return ssrcs;
            }
        }
    }

    /// Whether this is one of ours.
    pub(super) fn has(self, ssrc: u32) -> bool {
        [self.audio, self.video].iter().any(|ours| ssrc.wrapping_sub(*ours) <= 2)
    }

    /// The SSRC of a stream's retransmissions (RFC 4588).
    pub(super) const fn rtx(ssrc: u32) -> u32 {
        ssrc.wrapping_add(1)
    }

    /// The SSRC of a stream's FEC packets.
    pub(super) const fn fec(ssrc: u32) -> u32 {
        ssrc.wrapping_add(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssrcs_of_the_offer_are_not_used() {
        let offer = Offer::parse(include_str!("description/chromium.sdp")).expect("an offer");
        let theirs = &offer.sections[0].ssrcs;
        assert!(!theirs.is_empty());
        for _ in 0..100 {
            let ssrcs = Ssrcs::apart_from(&offer);
            assert!(!theirs.iter().any(|ssrc| ssrcs.has(*ssrc)));
            assert!(ssrcs.has(Ssrcs::rtx(ssrcs.video)) && ssrcs.has(Ssrcs::fec(ssrcs.audio)));
        }
    }
}
