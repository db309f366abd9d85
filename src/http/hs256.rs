//! HS256 signatures (RFC 7518 section 3.2) for the crate `jsonwebtoken`.
//!
//! Owns: signer and verifier. Does not know: claims. They use the HMAC of the crate `rtc`: the alternatives that
//! `jsonwebtoken` offers bring RSA and three elliptic curves, which no token here may use.

use std::sync::Arc;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use rtc::crypto::{CryptoError, HmacAlgorithm, Mac, RTCCryptoProvider, default_provider};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(signer(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(verifier(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Lets `jsonwebtoken` use HS256. Required before the first token; more calls do nothing.
pub(super) fn install() {
    // An error means that this was called before.
    let _ = PROVIDER.install_default();
}

fn signer(algorithm: Algorithm, key: &EncodingKey) -> Result<Hs256> {
    Hs256::new(algorithm, key.as_bytes())
}

fn verifier(algorithm: Algorithm, key: &DecodingKey) -> Result<Hs256> {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(secret) => Hs256::new(algorithm, secret),
        DecodingKeyKind::RsaModulusExponent { .. } => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct Hs256 {
    crypto: Arc<dyn RTCCryptoProvider>,
    key: Vec<u8>,
}

impl Hs256 {
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self> {
        if algorithm != Algorithm::HS256 {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        let crypto = default_provider().expect("the crate `rtc` is built with one");
        Ok(Self { crypto, key: key.to_vec() })
    }

    fn mac(&self) -> std::result::Result<Box<dyn Mac>, CryptoError> {
        self.crypto.crypto().new_hmac(HmacAlgorithm::Sha256, &self.key)
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let mut mac = self.mac().map_err(Error::from_source)?;
        let mut tag = vec![0; mac.output_len()];
        mac.sign(&[message], &mut tag).map_err(Error::from_source)?;
        Ok(tag)
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let mut mac = self.mac().map_err(Error::from_source)?;
        mac.verify(&[message], signature).map_err(Error::from_source)
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    const TAG: [u8; 32] = [
        0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a, 0x00,
        0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43,
    ];

    #[test]
    fn signatures_match_the_test_vector_and_altered_ones_are_refused() {
        let hs256 = Hs256::new(Algorithm::HS256, b"Jefe").expect("is supported");
        let message = b"what do ya want for nothing?";
        assert_eq!(hs256.try_sign(message).expect("signs"), TAG);
        assert!(hs256.verify(message, &TAG.to_vec()).is_ok());
        for altered in [vec![], TAG[..31].to_vec(), [&TAG[..], &[0]].concat(), [&[TAG[0] ^ 1], &TAG[1..]].concat()] {
            assert!(hs256.verify(message, &altered).is_err(), "{altered:?}");
        }
    }

    #[test]
    fn other_algorithms_are_refused() {
        for algorithm in [Algorithm::HS384, Algorithm::HS512, Algorithm::RS256, Algorithm::ES256] {
            assert!(Hs256::new(algorithm, b"key").is_err(), "{algorithm:?}");
        }
    }
}
