//! Keys that verify tokens, from a JSON Web Key Set (RFC 7517).
//!
//! Owns: what a set must contain, and which keys of it are usable. Does not know: tokens and signatures. In: the text of
//! a set; out: [`VerificationKey`]s, each of which has exactly one algorithm (RFC 8725 section 3.1).

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::KEY_MIN_BYTES;

/// Most keys of a set: with a `kid` each token is checked with one of them, without one with each.
const KEYS_MAX: usize = 32;
/// Least size of an RSA modulus, in bits (RFC 7518 section 3.3).
const RSA_MIN_BITS: usize = 2_048;
/// Largest size of an RSA modulus, in bits.
const RSA_MAX_BITS: usize = 8_192;
/// Bytes of a coordinate on the curve P-256.
const P256_BYTES: usize = 32;

/// A key that verifies tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationKey {
    /// The name by which tokens select it.
    pub kid: Option<String>,
    /// The key, for its only algorithm.
    pub material: KeyMaterial,
}

/// A key for one algorithm.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// HS256: a secret of at least [`KEY_MIN_BYTES`] bytes.
    Hs256(Vec<u8>),
    /// RS256: a public key of 2048 to 8192 bits.
    Rs256 {
        /// The modulus, big-endian.
        n: Vec<u8>,
        /// The exponent, big-endian.
        e: Vec<u8>,
    },
    /// ES256: a public key on the curve P-256.
    Es256 {
        /// The coordinate x, big-endian, 32 bytes.
        x: Vec<u8>,
        /// The coordinate y, big-endian, 32 bytes.
        y: Vec<u8>,
    },
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// Members of a key; others are ignored (RFC 7517 section 4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// Reads a set. Keys for other purposes and algorithms are ignored (RFC 7517 section 5).
///
/// # Errors
/// What is wrong, in words for the operator: the text is no set, a key is malformed, weak or private, two keys have the
/// same `kid`, or no key is usable.
pub fn parse(text: &str) -> Result<Vec<VerificationKey>, String> {
    let set: Set =
        serde_json::from_str(text).map_err(|error| format!("is not a JSON Web Key Set (RFC 7517): {error}"))?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("has {} keys; at most {KEYS_MAX} are supported", set.keys.len()));
    }
    let mut keys = Vec::new();
    let mut kids = BTreeSet::new();
    for (at, jwk) in set.keys.into_iter().enumerate() {
        let name = jwk.kid.as_ref().map_or_else(|| format!("key {}", at + 1), |kid| format!("the key `{kid}`"));
        let kid = jwk.kid.clone();
        let Some(material) = jwk.material().map_err(|reason| format!("{name} {reason}"))? else { continue };
        if kid.as_ref().is_some_and(|kid| !kids.insert(kid.clone())) {
            return Err(format!("{name} exists twice: give each key its own `kid`"));
        }
        keys.push(VerificationKey { kid, material });
    }
    if keys.is_empty() {
        return Err("has no key for HS256 (kty oct), RS256 (kty RSA) or ES256 (kty EC, crv P-256)".to_owned());
    }
    Ok(keys)
}

impl Jwk {
    /// None for a key for another purpose or algorithm.
    fn material(self) -> Result<Option<KeyMaterial>, String> {
        if self.usage.as_ref().is_some_and(|usage| usage != "sig") {
            return Ok(None);
        }
        let is_for = |algorithm: &str| self.alg.as_ref().is_none_or(|alg| alg == algorithm);
        let material = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) if is_for("HS256") => KeyMaterial::Hs256(bytes("k", self.k.as_deref())?),
            ("RSA", _) if is_for("RS256") => {
                KeyMaterial::Rs256 { n: number("n", self.n.as_deref())?, e: number("e", self.e.as_deref())? }
            }
            ("EC", Some("P-256")) if is_for("ES256") => {
                KeyMaterial::Es256 { x: bytes("x", self.x.as_deref())?, y: bytes("y", self.y.as_deref())? }
            }
            _ => return Ok(None),
        };
        if self.d.is_some() {
            return Err(
                "contains a private key (`d`): keep that to the issuer of tokens, and put only the public key \
                        here"
                    .to_owned(),
            );
        }
        material.check()?;
        Ok(Some(material))
    }
}

impl KeyMaterial {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Hs256(k) if k.len() < KEY_MIN_BYTES => Err(format!(
                "has {} bytes and needs at least {KEY_MIN_BYTES}: make one with `openssl rand -base64 32`",
                k.len()
            )),
            Self::Rs256 { n, .. } => match bits(n) {
                RSA_MIN_BITS..=RSA_MAX_BITS => Ok(()),
                bits => Err(format!("has {bits} bits; an RSA key needs {RSA_MIN_BITS} to {RSA_MAX_BITS}")),
            },
            Self::Es256 { x, y } if x.len() != P256_BYTES || y.len() != P256_BYTES => {
                Err(format!("needs `x` and `y` of {P256_BYTES} bytes each (RFC 7518 section 6.2.1)"))
            }
            _ => Ok(()),
        }
    }
}

/// The size of a big-endian number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// A big-endian number. Some issuers write leading zeros, although RFC 7518 section 6.3.1.1 forbids them.
fn number(member: &str, value: Option<&str>) -> Result<Vec<u8>, String> {
    let mut number = bytes(member, value)?;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    Ok(number)
}

fn bytes(member: &str, value: Option<&str>) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("has no member `{member}`"))?;
    // Some issuers pad, although RFC 7515 section 2 forbids it.
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(value.trim_end_matches('='));
    decoded.map_err(|_| format!("has a member `{member}` that is not base64url"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(keys: &Value) -> Result<Vec<VerificationKey>, String> {
        parse(&json!({ "keys": keys }).to_string())
    }

    fn encoded(bytes: usize) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(vec![0xab; bytes])
    }

    #[test]
    fn each_key_has_one_algorithm_and_others_are_ignored() {
        let keys = of(&json!([
            {"kty": "oct", "kid": "a", "k": encoded(32)},
            {"kty": "RSA", "kid": "b", "use": "sig", "alg": "RS256", "n": encoded(256), "e": "AAEAAQ"},
            {"kty": "EC", "crv": "P-256", "x": encoded(32), "y": encoded(32) + "=", "key_ops": ["verify"]},
            {"kty": "RSA", "kid": "c", "use": "enc", "n": encoded(256), "e": "AQAB"},
            {"kty": "RSA", "kid": "d", "alg": "RS512", "n": encoded(256), "e": "AQAB"},
            {"kty": "EC", "crv": "P-384", "x": encoded(48), "y": encoded(48)},
            {"kty": "OKP", "crv": "Ed25519", "x": encoded(32)},
        ]));
        let kinds: Vec<_> = keys.expect("a set").into_iter().map(|key| (key.kid, key.material)).collect();
        assert!(matches!(
            &kinds[..],
            [
                (Some(a), KeyMaterial::Hs256(_)),
                (Some(b), KeyMaterial::Rs256 { e, .. }),
                (None, KeyMaterial::Es256 { .. }),
            ] if a == "a" && b == "b" && e == &[1, 0, 1]
        ));
    }

    #[test]
    fn errors_name_the_key_and_the_fix() {
        let rsa = |bytes| json!({"kty": "RSA", "kid": "weak", "n": encoded(bytes), "e": "AQAB"});
        let long = json!({"kty": "oct", "kid": "twice", "k": encoded(32)});
        for (keys, words) in [
            (json!([]), ["no key", "HS256"]),
            (json!([{"kty": "OKP", "crv": "Ed25519", "x": encoded(32)}]), ["no key", "ES256"]),
            (json!([rsa(128)]), ["`weak`", "1024 bits"]),
            (json!([rsa(1_025)]), ["`weak`", "8200 bits"]),
            (json!([{"kty": "oct", "k": encoded(31)}]), ["key 1", "openssl"]),
            (json!([{"kty": "oct", "k": "?"}]), ["key 1", "base64url"]),
            (json!([{"kty": "RSA", "e": "AQAB"}]), ["key 1", "`n`"]),
            (json!([{"kty": "EC", "crv": "P-256", "x": encoded(31), "y": encoded(32)}]), ["32 bytes", "`x`"]),
            (json!([{"kty": "RSA", "n": encoded(256), "e": "AQAB", "d": "AQAB"}]), ["private", "issuer"]),
            (json!([long, long]), ["`twice`", "twice"]),
            (json!(vec![long; 33]), ["33", "32"]),
        ] {
            let reason = of(&keys).err().unwrap_or_else(|| panic!("{keys} is accepted"));
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        }
        for text in ["", "[]", "{}", "secret", r#"{"keys":[{}]}"#] {
            assert!(parse(text).is_err_and(|reason| reason.contains("RFC 7517")), "{text}");
        }
    }
}
