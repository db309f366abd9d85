//! Fuzz targets of a session: offers and fragments, and the RTP and RTCP of an authenticated client.
//!
//! Owns: how an input becomes offers and packets. Does not know: the fuzzer. Packets enter behind SRTP, whose tags a
//! fuzzer cannot guess. A piece is an operation and its bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Connection;
use crate::fanout::{Bell, Subscriber};
use crate::media::{Codec, Size, Sounds, SourceKind, SourcePacket};
use crate::peer::negotiation::Negotiation;
use crate::peer::{Counters, SourceSink};
use crate::sdp::{Fragment, Offer};
use crate::time::{Moment, Timestamp};
use crate::transport::fuzz::identities;

const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];
const OFFER: &str = include_str!("../description/chromium.sdp");
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

#[derive(Debug)]
struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

struct Sink;

impl SourceSink for Sink {
    fn packet(&self, _: &str, kind: SourceKind, codec: Codec, _: SourcePacket) {
        assert_eq!(kind.kind(), codec.kind());
    }

    fn flush(&self) {}

    fn encoding(&self, _: SourceKind, _: &str) {}

    fn unselected(&self) {}

    fn ended(&self, _: SourceKind) {}
}

/// Decrypted RTP and RTCP of a client that sends a camera, with or without simulcast, and a microphone.
pub(crate) fn packets(pieces: &[(u8, &[u8])]) {
    let simulcast = if pieces.len().is_multiple_of(2) { SIMULCAST } else { "" };
    let Some(negotiation) = begin(&format!("{OFFER}{simulcast}")) else { panic!("the offer is refused") };
    let mut moment = Moment { now: Timestamp::from_micros(1_000_000_000), ..Moment::present() };
    let subscriber = Arc::new(Subscriber::with_bell(Arc::new(Silent)));
    let counters = Arc::<Counters>::default();
    let setup = negotiation.setup();
    let mut connection =
        Connection::new(setup, subscriber, Arc::new(Sink), counters, moment.now).expect("a connection begins");
    connection.agree(negotiation.agreement(), negotiation.kinds());
    connection.connected = true;
    let mut out = Vec::new();
    for (op, bytes) in pieces {
        let passed = Duration::from_millis([0, 20, 300, 5_000][usize::from(op >> 6)]);
        moment.now = moment.now + passed;
        moment.instant += passed;
        match op & 7 {
            0..=3 => drop(connection.take_decrypted_rtp(moment, Bytes::copy_from_slice(bytes))),
            4 | 5 => {
                (0..op & 0x38).for_each(|_| connection.sent.sent(1_000, moment.now));
                connection.take_decrypted_rtcp(moment, Bytes::copy_from_slice(bytes), &mut out);
            }
            6 => {
                connection.want(SourceKind::Camera, Size::new(u32::from(*op) * 8, 360), moment.now);
                connection.limit_uplink(Some(u64::from(*op) * 10_000), moment.now);
                connection.request_keyframe("1", moment, &mut out);
            }
            // From an address that ICE has not validated.
            _ => connection.handle(moment, ([192, 0, 2, 9], 9).into(), BytesMut::from(*bytes), &mut out),
        }
        connection.send_feedback(moment, &mut out);
        if connection.next_report <= moment.now {
            connection.report(moment, false, &mut out);
        }
        connection.flush_media();
        connection.deadline();
        while connection.poll_event().is_some() {}
        assert!(out.is_empty(), "sent to an address that has not been checked");
        assert!(connection.sources.sources.len() <= 8);
    }
}
