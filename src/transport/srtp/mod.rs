//! SRTP and SRTCP of one connection (RFC 3711, RFC 7714): protects what leaves, authenticates and decrypts what
//! arrives.
//!
//! Owns: the session keys of both directions, and per SSRC the roll-over counter, the SRTCP index and the replay
//! window. Does not know: DTLS, which exports the master keys; sockets; the content of packets. Packets enter and leave
//! in place, in the [`BytesMut`] that holds them: the tag is cut off on the way in and appended on the way out, and
//! nothing is copied.
//!
//! Why this is not `rtc-srtp` 0.21.1: that creates state for an SSRC before it authenticates a packet and never frees
//! it, accepts SRTCP without the E flag unauthenticated (AES-CM), keeps its replay window by 16-bit sequence number,
//! and copies each packet.

mod cipher;
mod sources;

use bytes::BytesMut;
use rtc::crypto::RTCCrypto;
use rtc::srtp::protection_profile::ProtectionProfile;

use self::cipher::Cipher;
use self::sources::{Inbound, Outbound};

/// Bytes that protection appends at most: the tag of AES-GCM and the SRTCP index.
pub(crate) const OVERHEAD_MAX: usize = cipher::GCM_TAG + cipher::SRTCP_INDEX;
/// RTP's fixed header (RFC 3550 section 5.1), in bytes.
const RTP_HEADER: usize = 12;
/// The part of RTCP that SRTCP does not encrypt (RFC 3711 section 3.4), in bytes.
const RTCP_HEADER: usize = 8;
/// The bit of the SRTCP index word that says that the packet is encrypted.
const E_FLAG: u32 = 1 << 31;

/// Why a packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No RTP or RTCP of version 2 with room for a tag.
    #[error("malformed or truncated packet")]
    Malformed,
    /// The tag does not match, or SRTCP is not encrypted.
    #[error("packet failed authentication")]
    Unauthenticated,
    /// It was received before, or is older than the replay window.
    #[error("replayed packet")]
    Replayed,
    /// All indexes of this SSRC are used; new keys are needed (RFC 3711 section 9.2).
    #[error("packet indexes of the SSRC are exhausted")]
    Exhausted,
    /// We send by more SSRCs than a session may have.
    #[error("too many SSRCs in one session")]
    TooManySources,
    /// The cryptographic provider failed.
    #[error("cryptographic provider failed")]
    Provider,
}

/// A master key and salt of one direction, as DTLS exports them (RFC 5764 section 4.2).
#[derive(Clone, Copy)]
pub(crate) struct Master<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) salt: &'a [u8],
}

/// The keys of both directions of a connection.
pub(crate) struct Keys {
    send: Cipher,
    receive: Cipher,
    sent_rtp: Outbound,
    sent_rtcp: Outbound,
    received_rtp: Inbound,
    received_rtcp: Inbound,
}

impl Keys {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`Error::Provider`] where the provider lacks the profile, or a key or salt has another length than the
    /// profile's.
    pub(crate) fn new(
        profile: ProtectionProfile,
        local: Master<'_>,
        remote: Master<'_>,
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, Error> {
        Ok(Self {
            send: Cipher::new(profile, local, crypto)?,
            receive: Cipher::new(profile, remote, crypto)?,
            sent_rtp: Outbound::default(),
            sent_rtcp: Outbound::default(),
            received_rtp: Inbound::default(),
            received_rtcp: Inbound::default(),
        })
    }

    /// Protects an RTP packet in place. A sequence number may be sent again only with the very same bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] where this is no RTP; [`Error::Exhausted`], [`Error::TooManySources`].
    pub(crate) fn encrypt_rtp(&mut self, packet: &mut BytesMut) -> Result<(), Error> {
        let header = rtp_header(packet)?;
        let (ssrc, sequence) = (u32_at(packet, 8), u16_at(packet, 2));
        let index = self.sent_rtp.rtp_index(ssrc, sequence)?;
        self.sent_rtp.sent(ssrc, index)?;
        self.send.seal_rtp(packet, header, ssrc, index)
    }

    /// Protects a compound RTCP packet in place.
    ///
    /// # Errors
    /// [`Error::Malformed`] where this is no RTCP; [`Error::Exhausted`], [`Error::TooManySources`].
    pub(crate) fn encrypt_rtcp(&mut self, packet: &mut BytesMut) -> Result<(), Error> {
        rtcp_header(packet)?;
        let ssrc = u32_at(packet, 4);
        let index = self.sent_rtcp.next_rtcp_index(ssrc)?;
        self.sent_rtcp.sent(ssrc, index)?;
        self.send.seal_rtcp(packet, ssrc, index as u32)
    }

    /// Authenticates and decrypts an SRTP packet in place. After an error the bytes are of no use.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Replayed`], [`Error::Unauthenticated`]; none of them leaves any state.
    pub(crate) fn decrypt_rtp(&mut self, packet: &mut BytesMut) -> Result<(), Error> {
        let header = rtp_header(packet)?;
        let (ssrc, sequence) = (u32_at(packet, 8), u16_at(packet, 2));
        let index = self.received_rtp.rtp_index(ssrc, sequence);
        if !self.received_rtp.is_fresh(ssrc, index) {
            return Err(Error::Replayed);
        }
        self.receive.open_rtp(packet, header, ssrc, index)?;
        self.received_rtp.accept(ssrc, index);
        Ok(())
    }

    /// Authenticates and decrypts an SRTCP packet in place. After an error the bytes are of no use.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Replayed`], [`Error::Unauthenticated`]; none of them leaves any state.
    pub(crate) fn decrypt_rtcp(&mut self, packet: &mut BytesMut) -> Result<(), Error> {
        rtcp_header(packet)?;
        let word = self.receive.srtcp_word(packet).ok_or(Error::Malformed)?;
        if word & E_FLAG == 0 {
            return Err(Error::Unauthenticated);
        }
        let (ssrc, index) = (u32_at(packet, 4), word & !E_FLAG);
        if !self.received_rtcp.is_fresh(ssrc, index.into()) {
            return Err(Error::Replayed);
        }
        self.receive.open_rtcp(packet, ssrc, index)?;
        self.received_rtcp.accept(ssrc, index.into());
        Ok(())
    }
}

/// A copy of a packet with room for what protection appends.
pub(crate) fn copied(clear: &[u8]) -> BytesMut {
    let mut packet = BytesMut::with_capacity(clear.len() + OVERHEAD_MAX);
    packet.extend_from_slice(clear);
    packet
}

/// The length of an RTP header with its CSRCs and extension, in bytes.
fn rtp_header(packet: &[u8]) -> Result<usize, Error> {
    let first = *packet.first().filter(|first| *first >> 6 == 2).ok_or(Error::Malformed)?;
    let mut length = RTP_HEADER + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(length + 2..length + 4).ok_or(Error::Malformed)?;
        length += 4 + 4 * usize::from(u16_at(words, 0));
    }
    if packet.len() < length { Err(Error::Malformed) } else { Ok(length) }
}

fn rtcp_header(packet: &[u8]) -> Result<(), Error> {
    let version = packet.first().map(|first| first >> 6);
    if version == Some(2) && packet.len() >= RTCP_HEADER { Ok(()) } else { Err(Error::Malformed) }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
