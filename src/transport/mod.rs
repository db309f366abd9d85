//! What carries media on a connection, for both of its ends: ICE, DTLS and SRTP. Sans-IO.
//!
//! Owns: the ICE agent in either role ([`ice`]), the handshake and the keys in either role ([`secure`]), what is sent again of
//! it ([`flight`]), reading STUN ([`stun`]) and writing checks ([`check`]), datagrams on a stream ([`framing`]). Does not know: sockets, SDP, what is sent. Datagrams and time go in, datagrams come out. All of the
//! server's connections and the bots that load it stand on this; whoever needs a whole peer connection has the crate `webrtc`
//! behind it.

pub(crate) mod flight;
pub(crate) mod framing;
pub(crate) mod ice;
pub(crate) mod secure;
pub(crate) mod stun;

use crate::time::Timestamp;

/// A name for RTCP (CNAME) that nobody else has and that tells nothing: 96 random bits (RFC 7022 section 4.2).
pub(crate) fn cname() -> String {
    format!("{:024x}", rand::random::<u128>() >> 32)
}

/// NTP's format of seconds: any clock will do, as long as all streams of a sender are on the same (RFC 3550 section 4).
pub(crate) fn ntp(now: Timestamp) -> u64 {
    let (seconds, micros) = (now.as_micros() / 1_000_000, now.as_micros() % 1_000_000);
    (seconds << 32) | ((micros << 32) / 1_000_000)
}
