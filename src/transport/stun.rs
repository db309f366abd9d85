//! The part of STUN (RFC 8489) that demultiplexing, ICE checks and a plain STUN server need.
//!
//! Owns: parsing of class, transaction, USERNAME, MESSAGE-INTEGRITY and the attributes of ICE, and the messages of a
//! plain STUN server and client. Does not know: connections, sockets. Bytes enter, borrowed views leave; parsing does
//! not allocate.

use std::net::{IpAddr, SocketAddr};

use rtc::crypto::{HmacAlgorithm, RTCCryptoProvider};

pub(crate) const HEADER: usize = 20;
pub(crate) const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_INDICATION: u16 = 0x0011;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
pub(crate) const USERNAME: u16 = 0x0006;
pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const ERROR_CODE: u16 = 0x0009;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802A;
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Bytes of an HMAC-SHA1.
pub(crate) const INTEGRITY_SIZE: usize = 20;

/// A STUN transaction id (96 random bits).
pub(crate) type Transaction = [u8; 12];

/// The class of a STUN message (RFC 8489 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// A parsed Binding message, not yet authenticated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) class: Class,
    pub(crate) transaction: Transaction,
    /// The USERNAME attribute, `ours:theirs` in a check sent to us.
    pub(crate) username: Option<&'a [u8]>,
    /// PRIORITY of a check (RFC 8445 section 7.1.1); 0 if absent.
    pub(crate) priority: u32,
    /// USE-CANDIDATE: the check nominates its pair (RFC 8445 section 7.1.2).
    pub(crate) nominates: bool,
    /// The tie-breaker in ICE-CONTROLLING (RFC 8445 section 7.1.3).
    pub(crate) controlling: Option<u64>,
    /// The tie-breaker in ICE-CONTROLLED.
    pub(crate) controlled: Option<u64>,
    /// The code of an error response.
    pub(crate) error: Option<u16>,
    /// The value of XOR-MAPPED-ADDRESS, still masked.
    mapped: Option<&'a [u8]>,
    integrity_at: Option<usize>,
    bytes: &'a [u8],
}

/// Whether a datagram belongs to STUN by its first byte (RFC 7983).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first <= 3)
}

/// Whether a STUN message is a success response of the method Binding.
pub(crate) fn is_success(datagram: &[u8]) -> bool {
    datagram.starts_with(&BINDING_SUCCESS.to_be_bytes())
}

impl<'a> Message<'a> {
    /// Parses a Binding message; None if it is malformed or of another method.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let class = match u16_at(header, 0)? {
            BINDING_REQUEST => Class::Request,
            BINDING_INDICATION => Class::Indication,
            BINDING_SUCCESS => Class::Success,
            BINDING_ERROR => Class::Error,
            _ => return None,
        };
        let length = usize::from(u16_at(header, 2)?);
        if header.get(4..8)? != COOKIE || length % 4 != 0 || bytes.len() != HEADER + length {
            return None;
        }
        let transaction = header.get(8..HEADER)?.try_into().ok()?;
        let mut message = Self {
            class,
            transaction,
            username: None,
            priority: 0,
            nominates: false,
            controlling: None,
            controlled: None,
            error: None,
            mapped: None,
            integrity_at: None,
            bytes,
        };
        let mut at = HEADER;
        while at < bytes.len() {
            let (kind, size) = (u16_at(bytes, at)?, usize::from(u16_at(bytes, at + 2)?));
            let value = bytes.get(at + 4..at + 4 + size)?;
            match kind {
                // What follows MESSAGE-INTEGRITY is not protected by it and is ignored (RFC 8489 section 14.5).
                USERNAME if message.username.is_none() && message.integrity_at.is_none() => {
                    message.username = Some(value)
                }
                PRIORITY if message.integrity_at.is_none() => {
                    message.priority = u32::from_be_bytes(value.try_into().ok()?);
                }
                USE_CANDIDATE if message.integrity_at.is_none() => message.nominates = true,
                ICE_CONTROLLING if message.integrity_at.is_none() => {
                    message.controlling = Some(u64::from_be_bytes(value.try_into().ok()?));
                }
                ICE_CONTROLLED if message.integrity_at.is_none() => {
                    message.controlled = Some(u64::from_be_bytes(value.try_into().ok()?));
                }
                XOR_MAPPED_ADDRESS if message.integrity_at.is_none() => message.mapped = Some(value),
                ERROR_CODE if message.integrity_at.is_none() => {
                    // RFC 8489 section 14.8: the hundreds, and the rest.
                    message.error = Some(u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?));
                }
                MESSAGE_INTEGRITY if message.integrity_at.is_none() => {
                    if size != INTEGRITY_SIZE {
                        return None;
                    }
                    message.integrity_at = Some(at);
                }
                _ => {}
            }
            at += 4 + size.next_multiple_of(4);
        }
        Some(message)
    }

    /// The part of USERNAME before the colon: the user fragment of the addressee.
    pub(crate) fn addressee(&self) -> Option<&'a [u8]> {
        self.username?.split(|byte| *byte == b':').next()
    }

    /// Whether MESSAGE-INTEGRITY is present and was made with this password (short-term credentials).
    pub(crate) fn is_signed_with(&self, password: &str, crypto: &dyn RTCCryptoProvider) -> bool {
        let Some(at) = self.integrity_at else { return false };
        let tag = &self.bytes[at + 4..at + 4 + INTEGRITY_SIZE];
        // The length in the signed header counts up to and including MESSAGE-INTEGRITY, whatever follows it.
        let length = ((at - HEADER + 4 + INTEGRITY_SIZE) as u16).to_be_bytes();
        let signed = [&self.bytes[..2], &length, &self.bytes[4..at]];
        let mac = crypto.crypto().new_hmac(HmacAlgorithm::Sha1, password.as_bytes());
        mac.is_ok_and(|mut mac| mac.verify(&signed, tag).is_ok())
    }
}

/// The response of a plain STUN server, with the source of the request as XOR-MAPPED-ADDRESS.
pub(crate) fn mapped_address(request: &Transaction, from: SocketAddr) -> Vec<u8> {
    let value = xor_address(request, from);
    let mut answer = Vec::with_capacity(HEADER + 4 + value.len());
    answer.extend(BINDING_SUCCESS.to_be_bytes());
    answer.extend((4 + value.len() as u16).to_be_bytes());
    answer.extend(COOKIE);
    answer.extend(request);
    answer.extend(XOR_MAPPED_ADDRESS.to_be_bytes());
    answer.extend((value.len() as u16).to_be_bytes());
    answer.extend(value);
    answer
}

/// A request of a plain STUN client.
pub(crate) fn binding_request(transaction: &Transaction) -> Vec<u8> {
    let mut request = BINDING_REQUEST.to_be_bytes().to_vec();
    request.extend([0, 0]);
    request.extend(COOKIE);
    request.extend(transaction);
    request
}

/// The address in a plain STUN server's response to this request; None if it is no such response.
pub(crate) fn mapped_in(answer: &[u8], request: &Transaction) -> Option<SocketAddr> {
    let message = Message::parse(answer).filter(|message| message.class == Class::Success)?;
    let value = message.mapped.filter(|_| message.transaction == *request)?;
    unmask_address(request, value)
}

/// The address in a value made by [`xor_address`]; None if it is malformed.
pub(crate) fn unmask_address(transaction: &Transaction, value: &[u8]) -> Option<SocketAddr> {
    let [_, family, port0, port1, ip @ ..] = value else { return None };
    let port = u16::from_be_bytes([*port0, *port1]) ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let mut octets = [0; 16];
    let masked = octets.get_mut(..ip.len())?;
    let mask = COOKIE.iter().chain(transaction);
    masked.iter_mut().zip(ip.iter().zip(mask)).for_each(|(octet, (a, b))| *octet = a ^ b);
    let ip: IpAddr = match (family, ip.len()) {
        (1, 4) => <[u8; 4]>::try_from(&octets[..4]).ok()?.into(),
        (2, 16) => octets.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The value of an attribute that holds an address, masked so that no NAT rewrites it (RFC 8489 section 14.2).
pub(crate) fn xor_address(transaction: &Transaction, address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    value.extend((address.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]])).to_be_bytes());
    let mask = COOKIE.iter().chain(transaction);
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
        IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
    }
    value
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A signed binding message, as a browser would send it.
    pub(crate) fn signed(class: Class, transaction: Transaction, username: Option<&str>, password: &str) -> Vec<u8> {
        let kind = match class {
            Class::Request => BINDING_REQUEST,
            Class::Indication => BINDING_INDICATION,
            Class::Success => BINDING_SUCCESS,
            Class::Error => BINDING_ERROR,
        };
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(transaction);
        if let Some(username) = username {
            bytes.extend(USERNAME.to_be_bytes());
            bytes.extend((username.len() as u16).to_be_bytes());
            bytes.extend(username.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = (bytes.len() - HEADER + 4 + INTEGRITY_SIZE) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        let mut tag = [0; INTEGRITY_SIZE];
        let mut mac = crypto.crypto().new_hmac(HmacAlgorithm::Sha1, password.as_bytes()).expect("SHA-1 is there");
        mac.sign(&[&bytes], &mut tag).expect("tag fits");
        bytes.extend(MESSAGE_INTEGRITY.to_be_bytes());
        bytes.extend((INTEGRITY_SIZE as u16).to_be_bytes());
        bytes.extend(tag);
        bytes
    }

    /// RFC 5769 section 2.1: the sample request, username `evtj:h6vY`, password `VOkJxbRl1RmTxUk/WvJxBt`.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
        802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36\
        000600096576746a3a683676592020200008 00149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";

    fn sample() -> Vec<u8> {
        let digits: Vec<u8> = SAMPLE.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
            .collect()
    }

    #[test]
    fn the_sample_of_rfc_5769_is_genuine_and_any_other_password_is_not() {
        let bytes = sample();
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        let message = Message::parse(&bytes).expect("well formed");
        assert_eq!(message.class, Class::Request);
        assert_eq!(message.addressee(), Some(&b"evtj"[..]));
        assert!(message.is_signed_with("VOkJxbRl1RmTxUk/WvJxBt", &*crypto));
        assert!(!message.is_signed_with("VOkJxbRl1RmTxUk/WvJxBT", &*crypto));
    }

    #[test]
    fn any_changed_byte_before_the_tag_breaks_it() {
        let genuine = sample();
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        for at in 0..genuine.len() - 8 {
            let mut bytes = genuine.clone();
            bytes[at] ^= 1;
            let genuine = Message::parse(&bytes).is_some_and(|m| m.is_signed_with("VOkJxbRl1RmTxUk/WvJxBt", &*crypto));
            assert!(!genuine, "byte {at} may be changed unseen");
        }
    }

    #[test]
    fn a_mapped_address_reads_back() {
        for from in ["192.0.2.1:32853", "[2001:db8::5]:9"] {
            let from: SocketAddr = from.parse().expect("address");
            let answer = mapped_address(&[7; 12], from);
            let message = Message::parse(&answer).expect("well formed");
            assert_eq!((message.class, message.transaction), (Class::Success, [7; 12]));
            let mut read = rtc::stun::message::Message::new();
            read.unmarshal_binary(&answer).expect("the crate reads it");
            let mut mapped = rtc::stun::xoraddr::XorMappedAddress::default();
            read.parse(std::slice::from_mut(&mut mapped)).expect("it has the address");
            assert_eq!(SocketAddr::new(mapped.ip, mapped.port), from);
            assert_eq!((mapped_in(&answer, &[7; 12]), mapped_in(&answer, &[8; 12])), (Some(from), None));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
            if header && bytes.len() >= HEADER {
                let length = ((bytes.len() - HEADER) as u16).to_be_bytes();
                bytes[..8].copy_from_slice(&[0, 1, length[0], length[1], COOKIE[0], COOKIE[1], COOKIE[2], COOKIE[3]]);
            }
            let crypto = rtc::crypto::default_provider().expect("ring is built in");
            if let Some(message) = Message::parse(&bytes) {
                prop_assert!(!message.is_signed_with("password", &*crypto));
                let _ = message.addressee();
            }
        }
    }
}
