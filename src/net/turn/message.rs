//! The wire format of TURN (RFC 8489, RFC 8656): STUN messages of any method and attribute, and ChannelData. Pure.
//!
//! Owns: parsing and writing. Does not know: the protocol. Bytes enter, borrowed views leave; parsing does not
//! allocate, and a malformed message is None.

use std::net::SocketAddr;

use rtc::crypto::{HmacAlgorithm, RTCCryptoProvider};

use crate::transport::stun::{
    COOKIE, Class, HEADER, INTEGRITY_SIZE, MESSAGE_INTEGRITY, Transaction, u16_at, unmask_address, xor_address,
};

/// Attribute types (RFC 8489 section 18.3, RFC 8656 section 18).
pub(super) mod kind {
    pub(crate) use crate::transport::stun::{USERNAME, XOR_MAPPED_ADDRESS};
    pub(crate) const ERROR_CODE: u16 = 0x0009;
    pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub(crate) const CHANNEL_NUMBER: u16 = 0x000c;
    pub(crate) const LIFETIME: u16 = 0x000d;
    pub(crate) const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub(crate) const DATA: u16 = 0x0013;
    pub(crate) const REALM: u16 = 0x0014;
    pub(crate) const NONCE: u16 = 0x0015;
    pub(crate) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub(crate) const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub(crate) const EVEN_PORT: u16 = 0x0018;
    pub(crate) const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub(crate) const DONT_FRAGMENT: u16 = 0x001a;
    pub(crate) const RESERVATION_TOKEN: u16 = 0x0022;
}

/// Attribute types below this are comprehension-required (RFC 8489 section 14).
const OPTIONAL_FROM: u16 = 0x8000;
/// The comprehension-required attributes that are implemented.
const UNDERSTOOD: [u16; 14] = [
    kind::USERNAME,
    MESSAGE_INTEGRITY,
    kind::CHANNEL_NUMBER,
    kind::LIFETIME,
    kind::XOR_PEER_ADDRESS,
    kind::DATA,
    kind::REALM,
    kind::NONCE,
    kind::REQUESTED_ADDRESS_FAMILY,
    kind::EVEN_PORT,
    kind::REQUESTED_TRANSPORT,
    kind::DONT_FRAGMENT,
    kind::RESERVATION_TOKEN,
    kind::XOR_MAPPED_ADDRESS,
];
/// Unknown attributes listed in a response, at most.
const UNKNOWN_MAX: usize = 16;
/// The class bits of a message type.
const CLASS_BITS: u16 = 0x0110;
/// Header of ChannelData, in bytes: number and length.
pub(super) const CHANNEL_HEADER: usize = 4;

/// The method of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method(pub(super) u16);

impl Method {
    pub(super) const BINDING: Self = Self(1);
    pub(super) const ALLOCATE: Self = Self(3);
    pub(super) const REFRESH: Self = Self(4);
    pub(super) const SEND: Self = Self(6);
    pub(super) const DATA: Self = Self(7);
    pub(super) const CREATE_PERMISSION: Self = Self(8);
    pub(super) const CHANNEL_BIND: Self = Self(9);
}

/// A parsed message, not yet authenticated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) method: Method,
    pub(super) class: Class,
    pub(super) transaction: Transaction,
    /// The offset of MESSAGE-INTEGRITY.
    integrity_at: Option<usize>,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses a message; None if it is malformed.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.get(..HEADER)?;
        let (kind, length) = (u16_at(head, 0)?, usize::from(u16_at(head, 2)?));
        if kind & 0xc000 != 0 || head[4..8] != COOKIE || length % 4 != 0 || bytes.len() != HEADER + length {
            return None;
        }
        let class = match kind & CLASS_BITS {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        };
        let mut integrity_at = None;
        let mut at = HEADER;
        while at < bytes.len() {
            let (kind, size) = (u16_at(bytes, at)?, usize::from(u16_at(bytes, at + 2)?));
            let end = at + 4 + size.next_multiple_of(4);
            if end > bytes.len() {
                return None;
            }
            if kind == MESSAGE_INTEGRITY && integrity_at.is_none() {
                if size != INTEGRITY_SIZE {
                    return None;
                }
                integrity_at = Some(at);
            }
            at = end;
        }
        let transaction = head[8..].try_into().ok()?;
        Some(Self { method: Method(kind & !CLASS_BITS), class, transaction, integrity_at, bytes })
    }

    /// The attributes in order, without those after MESSAGE-INTEGRITY, which it does not protect (RFC 8489 section
    /// 14.5).
    fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let (bytes, mut at) = (self.bytes, HEADER);
        let end = self.integrity_at.unwrap_or(bytes.len());
        std::iter::from_fn(move || {
            let (kind, size) = (u16_at(&bytes[..end], at)?, usize::from(u16_at(bytes, at + 2)?));
            let value = bytes.get(at + 4..at + 4 + size)?;
            at += 4 + size.next_multiple_of(4);
            Some((kind, value))
        })
    }

    /// The first attribute of this type.
    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The text of an attribute.
    pub(super) fn text(&self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.get(kind)?).ok()
    }

    /// The 32-bit value of an attribute.
    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// All addresses of this type, None for a malformed one; an IPv4-mapped IPv6 address becomes IPv4.
    pub(super) fn addresses(&self, kind: u16) -> impl Iterator<Item = Option<SocketAddr>> {
        let transaction = self.transaction;
        let values = self.attributes().filter(move |(found, _)| *found == kind);
        values.map(move |(_, value)| {
            let address = unmask_address(&transaction, value)?;
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
        })
    }

    /// Comprehension-required attributes that are unknown.
    pub(super) fn unknown(&self) -> Vec<u16> {
        let kinds = self.attributes().map(|(kind, _)| kind);
        kinds.filter(|kind| *kind < OPTIONAL_FROM && !UNDERSTOOD.contains(kind)).take(UNKNOWN_MAX).collect()
    }

    /// Whether MESSAGE-INTEGRITY is present, valid or not.
    pub(super) const fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is present and was made with this key.
    pub(super) fn is_signed_with(&self, key: &[u8], crypto: &dyn RTCCryptoProvider) -> bool {
        let Some(at) = self.integrity_at else { return false };
        let tag = &self.bytes[at + 4..at + 4 + INTEGRITY_SIZE];
        let length = ((at - HEADER + 4 + INTEGRITY_SIZE) as u16).to_be_bytes();
        let signed = [&self.bytes[..2], &length, &self.bytes[4..at]];
        let mac = crypto.crypto().new_hmac(HmacAlgorithm::Sha1, key);
        mac.is_ok_and(|mut mac| mac.verify(&signed, tag).is_ok())
    }
}

/// A message being written.
#[derive(Debug)]
pub(super) struct Writer {
    transaction: Transaction,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(method: Method, class: Class, transaction: Transaction) -> Self {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let mut bytes = Vec::with_capacity(128);
        bytes.extend((method.0 | class).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(transaction);
        Self { transaction, bytes }
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn address(self, kind: u16, address: SocketAddr) -> Self {
        let value = xor_address(&self.transaction, address);
        self.attribute(kind, &value)
    }

    /// Adds ERROR-CODE (RFC 8489 section 14.8); the reason is for readers of a capture.
    pub(super) fn error(self, code: u16, reason: &str) -> Self {
        let value = [&[0, 0, (code / 100) as u8, (code % 100) as u8][..], reason.as_bytes()].concat();
        self.attribute(kind::ERROR_CODE, &value)
    }

    /// The message, without integrity.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = ((self.bytes.len() - HEADER) as u16).to_be_bytes();
        self.bytes[2..4].copy_from_slice(&length);
        self.bytes
    }

    /// The message with MESSAGE-INTEGRITY.
    pub(super) fn sign(mut self, key: &[u8], crypto: &dyn RTCCryptoProvider) -> Vec<u8> {
        let length = ((self.bytes.len() - HEADER + 4 + INTEGRITY_SIZE) as u16).to_be_bytes();
        self.bytes[2..4].copy_from_slice(&length);
        let mut tag = [0; INTEGRITY_SIZE];
        let mac = crypto.crypto().new_hmac(HmacAlgorithm::Sha1, key);
        let mut mac = mac.expect("the provider has HMAC-SHA1: ICE needs it");
        mac.sign(&[&self.bytes], &mut tag).expect("the tag has its size");
        self.attribute(MESSAGE_INTEGRITY, &tag).finish()
    }
}

/// Parses ChannelData (RFC 8656 section 12.4); bytes after the data are padding.
pub(super) fn channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, length) = (u16_at(bytes, 0)?, usize::from(u16_at(bytes, 2)?));
    Some((number, bytes.get(CHANNEL_HEADER..CHANNEL_HEADER + length)?))
}

/// Writes ChannelData; `padded` for a byte stream.
pub(super) fn write_channel_data(number: u16, data: &[u8], padded: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHANNEL_HEADER + data.len() + 3);
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    if padded {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The length of the first message in a byte stream (RFC 8656 section 12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// The header is incomplete.
    Incomplete,
    /// Length in bytes with padding, and the padding.
    Whole(usize),
    /// Neither STUN nor ChannelData, or longer than `max`.
    Wrong,
}

/// Reads the header of the first message in a byte stream; `max` is the longest accepted message.
pub(super) fn frame(bytes: &[u8], max: usize) -> Frame {
    let (Some(kind), Some(length)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else { return Frame::Incomplete };
    let whole = match kind >> 14 {
        0 if length % 4 == 0 => HEADER + usize::from(length),
        1 => CHANNEL_HEADER + usize::from(length).next_multiple_of(4),
        _ => return Frame::Wrong,
    };
    if whole > max { Frame::Wrong } else { Frame::Whole(whole) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn crypto() -> Arc<dyn RTCCryptoProvider> {
        rtc::crypto::default_provider().expect("ring is built in")
    }

    /// RFC 5769 section 2.4: the sample request with long-term credentials, realm `example.org`, password `TheMatrIX`.
    const SAMPLE: &str = "000100602112a44278ad3433c6ad72c029da412e\
        00060012e3839ee38388e383aae38383e382af e382b90000\
        0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700\
        00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

    fn sample() -> Vec<u8> {
        let digits: Vec<u8> = SAMPLE.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_sample_of_rfc_5769_is_read() {
        let bytes = sample();
        let message = Message::parse(&bytes).expect("well formed");
        assert_eq!((message.method, message.class), (Method::BINDING, Class::Request));
        assert_eq!(message.text(kind::REALM), Some("example.org"));
        assert_eq!(message.text(kind::NONCE), Some("f//499k954d6OL34oL9FSTvy64sA"));
        assert_eq!(message.text(kind::USERNAME).map(|name| name.chars().count()), Some(6));
        let key =
            super::super::credentials::key(message.text(kind::USERNAME).expect("is there"), "example.org", "TheMatrIX");
        assert!(message.is_signed_with(&key, &*crypto()));
        assert!(!message.is_signed_with(b"another key", &*crypto()));
    }

    #[test]
    fn what_is_written_reads_back() {
        for address in ["192.0.2.1:5000", "[2001:db8::7]:65535"] {
            let address: SocketAddr = address.parse().expect("an address");
            let bytes = Writer::new(Method::CREATE_PERMISSION, Class::Request, [7; 12])
                .attribute(kind::USERNAME, b"odd")
                .address(kind::XOR_PEER_ADDRESS, address)
                .attribute(0x7fff, &[])
                .sign(b"key", &*crypto());
            let message = Message::parse(&bytes).expect("well formed");
            assert_eq!((message.method, message.class), (Method::CREATE_PERMISSION, Class::Request));
            assert_eq!(message.transaction, [7; 12]);
            assert_eq!(message.get(kind::USERNAME), Some(&b"odd"[..]));
            assert_eq!(message.addresses(kind::XOR_PEER_ADDRESS).collect::<Vec<_>>(), [Some(address)]);
            assert_eq!(message.unknown(), [0x7fff]);
            assert!(message.is_signed_with(b"key", &*crypto()));
        }
    }

    #[test]
    fn a_mapped_address_is_what_it_hides() {
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().expect("an address");
        let bytes =
            Writer::new(Method::SEND, Class::Indication, [1; 12]).address(kind::XOR_PEER_ADDRESS, mapped).finish();
        let message = Message::parse(&bytes).expect("well formed");
        let plain: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        assert_eq!(message.addresses(kind::XOR_PEER_ADDRESS).collect::<Vec<_>>(), [Some(plain)]);
    }

    #[test]
    fn what_follows_the_integrity_does_not_count() {
        let mut bytes = Writer::new(Method::REFRESH, Class::Request, [1; 12]).sign(b"key", &*crypto());
        bytes.extend([0, 0x0d, 0, 4, 0, 0, 0, 0]);
        let length = ((bytes.len() - HEADER) as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
        let message = Message::parse(&bytes).expect("well formed");
        assert!(message.is_signed_with(b"key", &*crypto()));
        assert_eq!(message.get(kind::LIFETIME), None);
    }

    #[test]
    fn channel_data_reads_back() {
        for padded in [false, true] {
            let bytes = write_channel_data(0x4001, b"hello", padded);
            assert_eq!(bytes.len(), if padded { 12 } else { 9 });
            assert_eq!(channel_data(&bytes), Some((0x4001, &b"hello"[..])));
        }
        assert_eq!(frame(&write_channel_data(0x4001, b"hello", true), 100), Frame::Whole(12));
        assert_eq!(channel_data(&[0x40, 1, 0, 5, 1]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
            if header && bytes.len() >= HEADER {
                bytes.truncate(bytes.len() / 4 * 4);
                let length = ((bytes.len() - HEADER) as u16).to_be_bytes();
                bytes[..8].copy_from_slice(&[0, 3, length[0], length[1], COOKIE[0], COOKIE[1], COOKIE[2], COOKIE[3]]);
            }
            let _ = (channel_data(&bytes), frame(&bytes, 100));
            if let Some(message) = Message::parse(&bytes) {
                prop_assert!(!message.is_signed_with(b"key", &*crypto()));
                let _ = (message.unknown(), message.addresses(kind::XOR_PEER_ADDRESS).count());
                let _ = (message.text(kind::NONCE), message.number(kind::LIFETIME));
            }
        }
    }
}
