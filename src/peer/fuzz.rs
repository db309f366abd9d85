//! Fuzz targets of a session: offers and fragments, and the RTP and RTCP of an authenticated client.
//!
//! Owns: how an input becomes offers. Does not know: the fuzzer, packets.

use std::sync::Arc;

use super::connection;
use super::negotiation::Negotiation;
use crate::media::Codec;
use crate::media::Sounds;
use crate::sdp::{Fragment, Offer};
use crate::transport::fuzz::identities;

const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];
const OFFER: &str = include_str!("description/chromium.sdp");
const SIMULCAST: &str = "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n";
const CANDIDATE: &str = "candidate:1 1 udp 1 192.0.2.1 8189 typ host";

/// An offer is refused, or gets an answer with its sections in its order, to which fragments and the next offer apply.
/// The offers and fragments are separated by lines of `---`.
pub(crate) fn sdp(text: &str) {
    let mut texts = text.split("---\n");
    let Some(mut negotiation) = texts.next().and_then(begin) else { return };
    for text in texts.take(8) {
        if let Ok(fragment) = Fragment::parse(text) {
            // An error is the answer to a fragment that is refused.
            let _ = negotiation.candidates(&fragment);
            let _ = negotiation.restart(&fragment);
        } else if let Ok(offer) = Offer::parse(text)
            && let Ok(facts) = offer.facts(&VIDEO, &Sounds::default())
            && negotiation.renegotiate(&offer, &facts).is_ok()
        {
            check_answer(&negotiation.answer().sdp, &offer);
        }
    }
}

fn begin(text: &str) -> Option<Negotiation> {
    let offer = Offer::parse(text).ok()?;
    let facts = offer.facts(&VIDEO, &Sounds::default()).ok()?;
    let identity = Arc::new(identities()[0].clone());
    let mut negotiation = Negotiation::begin(identity, vec![CANDIDATE.to_owned()], &offer, &facts).ok()?;
    check_answer(&negotiation.answer().sdp, &offer);
    Some(negotiation)
}

fn check_answer(answer: &str, offer: &Offer) {
    let kinds = |text: &str| text.lines().filter(|line| line.starts_with("m=")).count();
    assert_eq!(kinds(answer), offer.sections.len(), "{answer}");
    assert!(answer.split_terminator("\r\n").all(|line| line.as_bytes().get(1) == Some(&b'=')), "{answer}");
    assert!(!answer.replace("\r\n", "").contains(['\r', '\n']), "a line of the offer is split");
}

/// Decrypted RTP and RTCP of a client that sends a camera, with or without simulcast, and a microphone.
pub(crate) fn packets(pieces: &[(u8, &[u8])]) {
    let simulcast = if pieces.len().is_multiple_of(2) { SIMULCAST } else { "" };
    let Some(negotiation) = begin(&format!("{OFFER}{simulcast}")) else { panic!("the offer is refused") };
    connection::fuzz::packets(negotiation.setup(), negotiation.agreement(), negotiation.kinds(), pieces);
}
