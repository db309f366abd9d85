//! Signatures of tokens for the crate `jsonwebtoken`: HS256, RS256 and ES256 (RFC 7518 section 3).
//!
//! Owns: the signer of HS256 and the verifiers. Does not know: claims, which keys exist. A key verifies one algorithm
//! only. HS256 uses the HMAC of the crate `rtc`, the public keys use the crate `ring`: both are part of this program
//! anyway, and the alternatives that `jsonwebtoken` offers would add a third implementation.

use std::sync::Arc;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use rtc::crypto::{CryptoError, HmacAlgorithm, Mac, RTCCryptoProvider, default_provider};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(signer(*algorithm, key)?)),
    verifier_factory: |algorithm, key| verifier(*algorithm, key),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Lets `jsonwebtoken` use these algorithms. Required before the first token; more calls do nothing.
pub(super) fn install() {
    // An error means that this was called before.
    let _ = PROVIDER.install_default();
}

fn signer(algorithm: Algorithm, key: &EncodingKey) -> Result<Hs256> {
    Hs256::new(algorithm, key.as_bytes())
}

/// The public key of ES256 for these coordinates, 32 bytes each: an uncompressed point (SEC 1 section 2.3.3).
pub(super) fn es256_key(x: &[u8], y: &[u8]) -> DecodingKey {
    DecodingKey::from_ec_der(&[&[4], x, y].concat())
}

fn verifier(algorithm: Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    Ok(match (algorithm, key.family(), key.kind()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
            Box::new(Hs256::new(algorithm, secret)?)
        }
        (Algorithm::RS256, AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Box::new(Rs256(RsaPublicKeyComponents { n: n.clone(), e: e.clone() }))
        }
        (Algorithm::ES256, AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
            Box::new(Es256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.clone())))
        }
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    })
}

struct Rs256(RsaPublicKeyComponents<Vec<u8>>);

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.0.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

struct Es256(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for Es256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.0.verify(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
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
        let (secret, rsa, ec) = (
            DecodingKey::from_secret(b"key"),
            DecodingKey::from_rsa_raw_components(&[0xab; 256], &[1, 0, 1]),
            es256_key(&[1; 32], &[2; 32]),
        );
        for (key, own) in [(&secret, Algorithm::HS256), (&rsa, Algorithm::RS256), (&ec, Algorithm::ES256)] {
            let all = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::PS256, Algorithm::ES384];
            let accepted: Vec<_> = all.into_iter().filter(|algorithm| verifier(*algorithm, key).is_ok()).collect();
            assert_eq!(accepted, [own]);
        }
    }
}
