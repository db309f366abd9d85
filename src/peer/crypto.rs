//! Cryptography for DTLS: what the crate has, and signatures on the curve P-224.
//!
//! Owns: [`provider`]. Does not know: DTLS. FFmpeg's WHIP muxer, where it is built with GnuTLS (as PyAV's is), makes
//! its certificate on P-224, which `ring` does not know; without this such publishers cannot join.

use std::sync::Arc;

use p224::ecdsa::signature::hazmat::PrehashVerifier;
use p224::ecdsa::{DerSignature, VerifyingKey};
use rtc::crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher, CryptoAlgorithm,
    CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac, PublicKey, PublicKeyEncoding, RTCCrypto,
    RTCCryptoProvider, RTCRandom, SignatureScheme, SigningKey, StreamCipher, StreamCipherAlgorithm, default_provider,
};

/// Bytes of an uncompressed point on P-224: a tag and two coordinates of 28. No other curve has points of this size.
const P224_POINT: usize = 57;

/// The provider every connection uses.
///
/// # Errors
/// When the crate was built without one.
pub(super) fn provider() -> Result<Arc<dyn RTCCryptoProvider>, rtc::shared::error::Error> {
    let usual = default_provider().map_err(|error| rtc::shared::error::Error::Crypto(error.to_string()))?;
    Ok(Arc::new(Provider(WithP224(usual))))
}

struct Provider(WithP224);

impl RTCCryptoProvider for Provider {
    fn name(&self) -> &'static str {
        self.0.0.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        &self.0
    }

    fn random(&self) -> &dyn RTCRandom {
        self.0.0.random()
    }
}

/// Passes everything on but P-224.
struct WithP224(Arc<dyn RTCCryptoProvider>);

impl WithP224 {
    fn usual(&self) -> &dyn RTCCrypto {
        self.0.crypto()
    }

    fn verify_p224(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let digest = self.usual().hash(HashAlgorithm::Sha256, message)?;
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| CryptoError::InvalidSignature)?;
        let signature = DerSignature::try_from(signature).map_err(|_| CryptoError::InvalidSignature)?;
        key.verify_prehash(&digest, &signature).map_err(|_| CryptoError::InvalidSignature)
    }
}

impl RTCCrypto for WithP224 {
    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let is_p224 =
            public_key.encoding == PublicKeyEncoding::EcUncompressedPoint && public_key.bytes.len() == P224_POINT;
        // The crate takes the curve from the scheme's name; in TLS 1.2 the scheme names only the hash.
        match scheme {
            SignatureScheme::EcdsaP256Sha256 if is_p224 => self.verify_p224(public_key.bytes, message, signature),
            _ => self.usual().verify_signature(scheme, public_key, message, signature),
        }
    }

    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        self.usual().supports(algorithm)
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.usual().hash(algorithm, data)
    }

    fn block_encrypt(&self, algorithm: BlockCipherAlgorithm, key: &[u8], block: &mut [u8]) -> Result<(), CryptoError> {
        self.usual().block_encrypt(algorithm, key, block)
    }

    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>, CryptoError> {
        self.usual().new_hmac(algorithm, key)
    }

    fn new_stream_cipher(
        &self,
        algorithm: StreamCipherAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn StreamCipher>, CryptoError> {
        self.usual().new_stream_cipher(algorithm, key)
    }

    fn new_aead(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<Box<dyn AeadCipher>, CryptoError> {
        self.usual().new_aead(algorithm, key)
    }

    fn new_cbc(&self, algorithm: CbcAlgorithm, key: &[u8]) -> Result<Box<dyn CbcCipher>, CryptoError> {
        self.usual().new_cbc(algorithm, key)
    }

    fn start_key_exchange(&self, algorithm: KeyExchangeAlgorithm) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        self.usual().start_key_exchange(algorithm)
    }

    fn generate_signing_key(&self, scheme: SignatureScheme) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.usual().generate_signing_key(scheme)
    }

    fn import_signing_key(
        &self,
        scheme: SignatureScheme,
        pkcs8_der: &[u8],
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.usual().import_signing_key(scheme, pkcs8_der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"server key exchange";

    fn verify(key: &str, message: &[u8], signature: &str) -> Result<(), CryptoError> {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")).collect()
        };
        let (key, signature) = (bytes(key), bytes(signature));
        let key = PublicKey { encoding: PublicKeyEncoding::EcUncompressedPoint, bytes: &key };
        let provider = provider().expect("ring is built in");
        provider.crypto().verify_signature(SignatureScheme::EcdsaP256Sha256, key, message, &signature)
    }

    // Made with OpenSSL: `openssl dgst -sha256 -sign` over MESSAGE with a key of each curve.
    const P224: (&str, &str) = (
        "04c5bad460f7229221bb964002cb74fad2c58ebcdf80444545b473d24439d272d832b1db1aef1423a137fdfc22fd19ffa522d7e22bdf969e40",
        "303d021c2cccb995a06a746f9458ec515dbf287669e6a43b0c4befe5baffe25a021d00b90629128334c5c1dbe1981b7481a95d935bc752b6860a085c193d52",
    );
    const P256: (&str, &str) = (
        "04dec2c8f58828635713a4e26295a31a26ed9f3381d7af27a73f7f5bec378604071f5d12e87421c71c32ce13474ca0581fed99a78277cf33a965d5236df8e99052",
        "3045022072b1555c4a6ba234a92247a95e790c5d9b935b1c55701b8b2a0e7c1d3fa4c26e022100b6287f318ffdc042e71a0c4a89bdbb0202b782ef7d5696e024b27a9e8e89e3ed",
    );

    #[test]
    fn signatures_on_both_curves_are_checked() {
        for (key, signature) in [P224, P256] {
            assert!(verify(key, MESSAGE, signature).is_ok());
            assert!(verify(key, b"another message", signature).is_err());
        }
        assert!(verify(P224.0, MESSAGE, P256.1).is_err());
        assert!(verify(P224.0, MESSAGE, "").is_err());
        assert!(verify(&P224.0.replace("04", "05"), MESSAGE, P224.1).is_err());
    }
}
