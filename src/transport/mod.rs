//! The transport of a WebRTC connection, for both of its ends: ICE, DTLS and SRTP. Sans-IO.
//!
//! Owns: the ICE agent in either role ([`ice`]), the handshake in either role ([`secure`]), retransmission of its last
//! flight ([`flight`]), SRTP and SRTCP ([`srtp`]), reading STUN ([`stun`]) and writing checks ([`check`]), datagrams on
//! a stream ([`framing`]). Does not know: sockets, SDP, what is sent. Datagrams and time go in, datagrams come out. All
//! of the server's connections and the bots that load it use this module.

pub(crate) mod flight;
pub(crate) mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod ice;
pub(crate) mod secure;
pub(crate) mod srtp;
pub(crate) mod stun;

use crate::time::Timestamp;

/// A random RTCP CNAME of 96 bits (RFC 7022 section 4.2).
pub(crate) fn cname() -> String {
    format!("{:024x}", rand::random::<u128>() >> 32)
}

/// A time in NTP's format. All streams of a sender use the same clock, which need not be the wall clock (RFC 3550
/// section 4).
pub(crate) fn ntp(now: Timestamp) -> u64 {
    let (seconds, micros) = (now.as_micros() / 1_000_000, now.as_micros() % 1_000_000);
    (seconds << 32) | ((micros << 32) / 1_000_000)
}
