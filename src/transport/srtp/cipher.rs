//! The ciphers of SRTP for one direction: AES in counter mode with HMAC-SHA1 (RFC 3711) and AES-GCM (RFC 7714).
//!
//! Owns: session keys and salts, derived from a master key (RFC 3711 section 4.3), and how nonces, authenticated data
//! and tags are laid out. Does not know: SSRC state; the packet index is an argument. Packets are changed in place.

use bytes::{BufMut, BytesMut};
use rtc::crypto::{
    AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, HmacAlgorithm, Mac, RTCCrypto, SecretVec, StreamCipher,
    StreamCipherAlgorithm, constant_time_eq,
};
use rtc::srtp::protection_profile::ProtectionProfile;

use super::{E_FLAG, Error, Master, RTCP_HEADER};

/// Bytes of a tag of AES-GCM.
pub(super) const GCM_TAG: usize = 16;
/// Bytes of the E flag and the SRTCP index.
pub(super) const SRTCP_INDEX: usize = 4;
/// Bytes of HMAC-SHA1 that are sent: 80 bits.
const HMAC_TAG: usize = 10;
/// Bytes of a whole HMAC-SHA1.
const HMAC: usize = 20;
const BLOCK: usize = 16;
const GCM_SALT: usize = 12;
const COUNTER_SALT: usize = 14;

/// Labels of the key derivation (RFC 3711 section 4.3.2).
const RTP_ENCRYPTION: u8 = 0;
const RTP_AUTHENTICATION: u8 = 1;
const RTP_SALT: u8 = 2;
const RTCP_ENCRYPTION: u8 = 3;
const RTCP_AUTHENTICATION: u8 = 4;
const RTCP_SALT: u8 = 5;

/// Session keys of one direction.
pub(super) enum Cipher {
    Gcm { rtp: Gcm, rtcp: Gcm },
    Counter { rtp: Counter, rtcp: Counter },
}

/// AES-GCM for RTP or for RTCP.
pub(super) struct Gcm {
    cipher: Box<dyn AeadCipher>,
    salt: [u8; GCM_SALT],
}

/// AES in counter mode with HMAC-SHA1, for RTP or for RTCP.
pub(super) struct Counter {
    cipher: Box<dyn StreamCipher>,
    mac: Box<dyn Mac>,
    salt: [u8; COUNTER_SALT],
}

impl Cipher {
    pub(super) fn new(profile: ProtectionProfile, master: Master<'_>, crypto: &dyn RTCCrypto) -> Result<Self, Error> {
        if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
            return Err(Error::Provider);
        }
        Ok(match profile {
            ProtectionProfile::AeadAes128Gcm | ProtectionProfile::AeadAes256Gcm => Self::Gcm {
                rtp: Gcm::new(master, RTP_ENCRYPTION, RTP_SALT, crypto)?,
                rtcp: Gcm::new(master, RTCP_ENCRYPTION, RTCP_SALT, crypto)?,
            },
            ProtectionProfile::Aes128CmHmacSha1_80 => Self::Counter {
                rtp: Counter::new(master, [RTP_ENCRYPTION, RTP_AUTHENTICATION, RTP_SALT], crypto)?,
                rtcp: Counter::new(master, [RTCP_ENCRYPTION, RTCP_AUTHENTICATION, RTCP_SALT], crypto)?,
            },
            _ => return Err(Error::Provider),
        })
    }

    /// Protects an RTP packet whose header has this many bytes.
    pub(super) fn seal_rtp(
        &mut self,
        packet: &mut BytesMut,
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Error> {
        match self {
            Self::Gcm { rtp, .. } => {
                let nonce = rtp.rtp_nonce(ssrc, index);
                let (head, payload) = packet.split_at_mut(header);
                let mut tag = [0; GCM_TAG];
                rtp.cipher.seal_in_place(&nonce, head, payload, &mut tag).map_err(|_| Error::Provider)?;
                packet.put_slice(&tag);
            }
            Self::Counter { rtp, .. } => {
                rtp.apply(ssrc, index, &mut packet[header..])?;
                let tag = rtp.tag(&[packet, &roll_over_counter(index)])?;
                packet.put_slice(&tag);
            }
        }
        Ok(())
    }

    /// Authenticates and decrypts an RTP packet whose header has this many bytes.
    pub(super) fn open_rtp(
        &mut self,
        packet: &mut BytesMut,
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Error> {
        match self {
            Self::Gcm { rtp, .. } => {
                let end = packet.len().checked_sub(GCM_TAG).filter(|end| *end >= header).ok_or(Error::Malformed)?;
                let nonce = rtp.rtp_nonce(ssrc, index);
                let (body, tag) = packet.split_at_mut(end);
                let (head, payload) = body.split_at_mut(header);
                rtp.cipher.open_in_place(&nonce, head, payload, tag).map_err(|_| Error::Unauthenticated)?;
                packet.truncate(end);
            }
            Self::Counter { rtp, .. } => {
                let end = packet.len().checked_sub(HMAC_TAG).filter(|end| *end >= header).ok_or(Error::Malformed)?;
                let expected = rtp.tag(&[&packet[..end], &roll_over_counter(index)])?;
                if !constant_time_eq(&packet[end..], &expected) {
                    return Err(Error::Unauthenticated);
                }
                packet.truncate(end);
                rtp.apply(ssrc, index, &mut packet[header..])?;
            }
        }
        Ok(())
    }

    /// Protects an RTCP packet.
    pub(super) fn seal_rtcp(&mut self, packet: &mut BytesMut, ssrc: u32, index: u32) -> Result<(), Error> {
        let word = E_FLAG | index;
        match self {
            Self::Gcm { rtcp, .. } => {
                let nonce = rtcp.rtcp_nonce(ssrc, index);
                let known = rtcp_authenticated(packet, word);
                let mut tag = [0; GCM_TAG];
                let sealed = rtcp.cipher.seal_in_place(&nonce, &known, &mut packet[RTCP_HEADER..], &mut tag);
                sealed.map_err(|_| Error::Provider)?;
                packet.put_slice(&tag);
                packet.put_u32(word);
            }
            Self::Counter { rtcp, .. } => {
                rtcp.apply(ssrc, index.into(), &mut packet[RTCP_HEADER..])?;
                packet.put_u32(word);
                let tag = rtcp.tag(&[packet])?;
                packet.put_slice(&tag);
            }
        }
        Ok(())
    }

    /// The E flag and the index of an SRTCP packet; None when it is too short to have them.
    pub(super) fn srtcp_word(&self, packet: &[u8]) -> Option<u32> {
        let (at, least) = match self {
            Self::Gcm { .. } => (packet.len().checked_sub(SRTCP_INDEX)?, RTCP_HEADER + GCM_TAG),
            Self::Counter { .. } => (packet.len().checked_sub(SRTCP_INDEX + HMAC_TAG)?, RTCP_HEADER),
        };
        (at >= least).then(|| super::u32_at(packet, at))
    }

    /// Authenticates and decrypts an SRTCP packet that has an index word.
    pub(super) fn open_rtcp(&mut self, packet: &mut BytesMut, ssrc: u32, index: u32) -> Result<(), Error> {
        match self {
            Self::Gcm { rtcp, .. } => {
                let nonce = rtcp.rtcp_nonce(ssrc, index);
                let known = rtcp_authenticated(packet, E_FLAG | index);
                let end = packet.len() - SRTCP_INDEX - GCM_TAG;
                let (body, tag) = packet.split_at_mut(end);
                let opened = rtcp.cipher.open_in_place(&nonce, &known, &mut body[RTCP_HEADER..], &tag[..GCM_TAG]);
                opened.map_err(|_| Error::Unauthenticated)?;
                packet.truncate(end);
            }
            Self::Counter { rtcp, .. } => {
                let end = packet.len() - HMAC_TAG;
                let expected = rtcp.tag(&[&packet[..end]])?;
                if !constant_time_eq(&packet[end..], &expected) {
                    return Err(Error::Unauthenticated);
                }
                packet.truncate(end - SRTCP_INDEX);
                rtcp.apply(ssrc, index.into(), &mut packet[RTCP_HEADER..])?;
            }
        }
        Ok(())
    }
}

impl Gcm {
    fn new(master: Master<'_>, encryption: u8, salt: u8, crypto: &dyn RTCCrypto) -> Result<Self, Error> {
        let algorithm = if master.key.len() == 16 { AeadAlgorithm::Aes128Gcm } else { AeadAlgorithm::Aes256Gcm };
        let key = derive(master, encryption, master.key.len(), crypto)?;
        Ok(Self {
            cipher: crypto.new_aead(algorithm, key.as_ref()).map_err(|_| Error::Provider)?,
            salt: derive_salt(master, salt, crypto)?,
        })
    }

    /// RFC 7714 section 8.1: two zero bytes, the SSRC, the roll-over counter, the sequence number, masked by the salt.
    fn rtp_nonce(&self, ssrc: u32, index: u64) -> [u8; GCM_SALT] {
        self.nonce(ssrc, index)
    }

    /// RFC 7714 section 9.1: the same with two zero bytes and the SRTCP index.
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> [u8; GCM_SALT] {
        self.nonce(ssrc, index.into())
    }

    fn nonce(&self, ssrc: u32, index: u64) -> [u8; GCM_SALT] {
        let value = (u128::from(ssrc) << 48) | u128::from(index);
        let mut nonce = self.salt;
        nonce.iter_mut().zip(&value.to_be_bytes()[BLOCK - GCM_SALT..]).for_each(|(salt, byte)| *salt ^= byte);
        nonce
    }
}

impl Counter {
    fn new(
        master: Master<'_>,
        [encryption, authentication, salt]: [u8; 3],
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, Error> {
        let key = derive(master, encryption, master.key.len(), crypto)?;
        let mac = derive(master, authentication, HMAC, crypto)?;
        let cipher = crypto.new_stream_cipher(StreamCipherAlgorithm::Aes128Ctr, key.as_ref());
        Ok(Self {
            cipher: cipher.map_err(|_| Error::Provider)?,
            mac: crypto.new_hmac(HmacAlgorithm::Sha1, mac.as_ref()).map_err(|_| Error::Provider)?,
            salt: derive_salt(master, salt, crypto)?,
        })
    }

    /// Encrypts or decrypts (RFC 3711 section 4.1.1).
    fn apply(&mut self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        block[..COUNTER_SALT].copy_from_slice(&self.salt);
        let value = (u128::from(ssrc) << 64) | (u128::from(index) << 16);
        block.iter_mut().zip(value.to_be_bytes()).for_each(|(byte, mask)| *byte ^= mask);
        self.cipher.apply_keystream(&block, data).map_err(|_| Error::Provider)
    }

    fn tag(&mut self, parts: &[&[u8]]) -> Result<[u8; HMAC_TAG], Error> {
        let mut whole = [0; HMAC];
        self.mac.sign(parts, &mut whole).map_err(|_| Error::Provider)?;
        let mut tag = [0; HMAC_TAG];
        tag.copy_from_slice(&whole[..HMAC_TAG]);
        Ok(tag)
    }
}

/// What RTP's tag covers besides the packet (RFC 3711 section 4.2).
const fn roll_over_counter(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// What the tag of SRTCP by AES-GCM covers besides the encrypted part (RFC 7714 section 9.2): header and index word.
fn rtcp_authenticated(packet: &[u8], word: u32) -> [u8; RTCP_HEADER + SRTCP_INDEX] {
    let mut known = [0; RTCP_HEADER + SRTCP_INDEX];
    known[..RTCP_HEADER].copy_from_slice(&packet[..RTCP_HEADER]);
    known[RTCP_HEADER..].copy_from_slice(&word.to_be_bytes());
    known
}

/// RFC 3711 section 4.3.3, RFC 6188 for keys of 256 bits; the key derivation rate is 0.
fn derive(master: Master<'_>, label: u8, length: usize, crypto: &dyn RTCCrypto) -> Result<SecretVec, Error> {
    let algorithm = if master.key.len() == 16 { BlockCipherAlgorithm::Aes128 } else { BlockCipherAlgorithm::Aes256 };
    let mut input = [0; BLOCK];
    // RFC 7714 section 11: a salt of 12 bytes is followed by two zero bytes.
    input[..master.salt.len()].copy_from_slice(master.salt);
    input[7] ^= label;
    let mut key = Vec::with_capacity(length.next_multiple_of(BLOCK));
    for number in 0_u8.. {
        if key.len() >= length {
            break;
        }
        input[BLOCK - 1] = number;
        let mut block = input;
        crypto.block_encrypt(algorithm, master.key, &mut block).map_err(|_| Error::Provider)?;
        key.extend_from_slice(&block);
    }
    key.truncate(length);
    Ok(SecretVec::new(key))
}

fn derive_salt<const N: usize>(master: Master<'_>, label: u8, crypto: &dyn RTCCrypto) -> Result<[u8; N], Error> {
    derive(master, label, N, crypto)?.as_ref().try_into().map_err(|_| Error::Provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn session_keys_are_those_of_rfc_3711_appendix_b_3() {
        let (key, salt) = (hex("E1F97A0D3E018BE0D64FA32C06DE4139"), hex("0EC675AD498AFEEBB6960B3AABE6"));
        let provider = rtc::crypto::default_provider().expect("ring is built in");
        let derived = |label, length| {
            derive(Master { key: &key, salt: &salt }, label, length, provider.crypto())
                .expect("derives")
                .as_ref()
                .to_vec()
        };
        assert_eq!(derived(RTP_ENCRYPTION, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derived(RTP_SALT, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(derived(RTP_AUTHENTICATION, 20), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn session_keys_of_256_bits_are_those_of_rfc_6188_section_7_4() {
        let key = hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
        let salt = hex("3b04803de51ee7c96423ab5b78d2");
        let provider = rtc::crypto::default_provider().expect("ring is built in");
        let derived =
            derive(Master { key: &key, salt: &salt }, RTP_ENCRYPTION, 32, provider.crypto()).expect("derives");
        let expected = hex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4");
        assert_eq!(derived.as_ref(), expected);
    }

    #[test]
    fn keys_of_another_length_than_the_profile_has_are_refused() {
        let provider = rtc::crypto::default_provider().expect("ring is built in");
        for (key, salt) in [(16, 14), (32, 12), (0, 0), (16, 11)] {
            let (key, salt) = (vec![0; key], vec![0; salt]);
            let master = Master { key: &key, salt: &salt };
            assert!(Cipher::new(ProtectionProfile::AeadAes128Gcm, master, provider.crypto()).is_err());
        }
    }
}
