//! Fuzz target of a connection: the RTP and RTCP of an authenticated client.
//!
//! Owns: how an input becomes packets. Does not know: the fuzzer, offers. Packets enter behind SRTP, whose tags a fuzzer
//! cannot guess. A piece is an operation and its bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Agreement, Connection, Setup};
use crate::fanout::{Bell, Subscriber};
use crate::media::{Codec, Size, SourceKind, SourcePacket};
use crate::peer::{Counters, SourceSink};
use crate::time::{Moment, Timestamp};

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

/// Decrypted RTP and RTCP of a client with this agreement.
pub(in crate::peer) fn packets(
    setup: Setup,
    agreement: &Agreement,
    kinds: &[(String, SourceKind)],
    pieces: &[(u8, &[u8])],
) {
    let mut moment = Moment { now: Timestamp::from_micros(1_000_000_000), ..Moment::present() };
    let subscriber = Arc::new(Subscriber::with_bell(Arc::new(Silent)));
    let counters = Arc::<Counters>::default();
    let mut connection =
        Connection::new(setup, subscriber, Arc::new(Sink), counters, moment.now).expect("a connection begins");
    connection.agree(agreement, kinds);
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
