//! Authentication by tokens, and the permissions of roles.
//!
//! Owns: tokens (JWT signed by HS256, RS256 or ES256: RFC 7519, RFC 8725), and [`Caller::may`], the check that every route uses. Does not
//! know: routes and HTTP responses. In: the text of a token and the time; out: a [`Caller`] or an error.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::signatures;
use crate::config::{self, Auth, KeyMaterial};
use crate::id::RoomName;
use crate::room::document::Role;

/// How far the clock of a token's issuer may be ahead, in seconds; for `nbf` only, `exp` is exact.
const SKEW_SECONDS: u64 = 30;

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The room it is valid for; an operator's token is valid for all rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// The role in that room.
    pub role: Role,
    /// The bearer's name, shown in the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Expiry, in seconds since 1970.
    pub exp: f64,
    /// Start of validity, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
}

/// An authenticated client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its role.
    pub role: Role,
    /// The room of its role; None is all rooms.
    pub room: Option<RoomName>,
    /// The name in its token.
    pub name: Option<String>,
    /// The expiry of its token, in seconds since 1970; None without a token.
    pub expires: Option<u64>,
}

/// Why a request is not authorized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A required token is missing.
    #[error("this request needs a token: send `Authorization: Bearer TOKEN`, made by `commingle token`")]
    Missing,
    /// The token is forged or malformed, or not valid yet.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// The token was valid once.
    #[error("the token is not valid: it has expired; get a new one")]
    Expired,
    /// The role of the token is insufficient.
    #[error("this request needs the role {}, but the token has the role {}", role_name(*needed), role_name(*has))]
    Role {
        /// The least sufficient role.
        needed: Role,
        /// The role of the caller.
        has: Role,
    },
    /// The token is for another room.
    #[error("the token is for room `{0}`, not for this one")]
    Room(RoomName),
    /// The token is for one room, but the request concerns all rooms.
    #[error("this request concerns all rooms, but the token is for room `{0}` only")]
    AllRooms(RoomName),
}

/// The role as written in tokens and errors.
const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Participant => "participant",
        Role::Moderator => "moderator",
        Role::Operator => "operator",
    }
}

impl Caller {
    /// Checks that the caller has at least the role `needed` in `room`, or in all rooms if that is None.
    ///
    /// # Errors
    /// [`AuthError::Role`], [`AuthError::Room`] or [`AuthError::AllRooms`].
    pub fn may(&self, needed: Role, room: Option<&RoomName>) -> Result<(), AuthError> {
        if self.role < needed {
            return Err(AuthError::Role { needed, has: self.role });
        }
        match (&self.room, room) {
            (Some(own), Some(asked)) if own != asked => Err(AuthError::Room(own.clone())),
            (Some(own), None) => Err(AuthError::AllRooms(own.clone())),
            _ => Ok(()),
        }
    }
}

/// Authenticates callers: by tokens if there is a key, else by address.
pub enum Authority {
    /// There is no key: callers on this machine are operators; others, which only `--insecure` allows, are moderators.
    Open,
    /// Tokens must be signed with one of the keys.
    Keys {
        /// Verify tokens.
        verify: Vec<Key>,
        /// Signs invitations; None: the keys are those of another issuer.
        sign: Option<Box<EncodingKey>>,
    },
}

/// A key that verifies tokens of one algorithm.
pub struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Authority {
    /// The authority for this configuration.
    pub fn new(config: &Auth) -> Self {
        if !config.has_key() {
            return Self::Open;
        }
        let key = config.key.as_ref().map(|key| key.expose().as_bytes());
        let sign = key.map(|key| Box::new(EncodingKey::from_secret(key)));
        let mut verify: Vec<_> = key.map(|key| Key::new(None, &KeyMaterial::Hs256(key.to_vec()))).into_iter().collect();
        if let Some(jwks) = &config.jwks {
            match config::parse_jwks(jwks.expose()) {
                Ok(keys) => verify.extend(keys.into_iter().map(|key| Key::new(key.kid, &key.material))),
                // A configuration is checked before it is used. Without its keys, their tokens are refused.
                Err(reason) => tracing::error!("auth.jwks {reason}"),
            }
        }
        Self::Keys { verify, sign }
    }

    /// A token with these claims; None if there is no key that signs.
    pub fn sign(&self, claims: &Claims) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Keys { sign, .. } => sign.as_ref().map(|sign| signed(claims, sign)),
        }
    }

    /// The caller that sent `token` from `address`; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`AuthError::Missing`] or [`AuthError::Invalid`].
    pub fn caller(&self, token: Option<&str>, address: IpAddr, now: u64) -> Result<Caller, AuthError> {
        let keys = match self {
            Self::Open if address.to_canonical().is_loopback() => {
                return Ok(Caller { role: Role::Operator, room: None, name: None, expires: None });
            }
            // Operators make the server open URLs and write files, so remote callers are not operators.
            Self::Open => return Ok(Caller { role: Role::Moderator, room: None, name: None, expires: None }),
            Self::Keys { verify, .. } => verify,
        };
        let Claims { room, role, name, exp, nbf } = verify(token.ok_or(AuthError::Missing)?, keys)?;
        if exp <= now as f64 {
            return Err(AuthError::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > (now + SKEW_SECONDS) as f64) {
            return Err(AuthError::Invalid("it is not valid yet (`nbf`)".to_owned()));
        }
        if room.is_none() && role != Role::Operator {
            return Err(AuthError::Invalid(format!("the role {} needs the claim `room`", role_name(role))));
        }
        // An operator's token is valid for all rooms, also if it names one.
        let room = room.filter(|_| role != Role::Operator);
        Ok(Caller { role, room, name, expires: Some(exp as u64) })
    }
}

impl Key {
    fn new(kid: Option<String>, material: &KeyMaterial) -> Self {
        let (algorithm, key) = match material {
            KeyMaterial::Hs256(secret) => (Algorithm::HS256, DecodingKey::from_secret(secret)),
            KeyMaterial::Rs256 { n, e } => (Algorithm::RS256, DecodingKey::from_rsa_raw_components(n, e)),
            KeyMaterial::Es256 { x, y } => (Algorithm::ES256, signatures::es256_key(x, y)),
        };
        Self { kid, algorithm, key }
    }
}

/// Verifies a token with the key that it names (`kid`). If it names none, each key of its algorithm may have signed it;
/// if it names an unknown one, each of them without a name.
fn verify(token: &str, keys: &[Key]) -> Result<Claims, AuthError> {
    signatures::install();
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(error) => AuthError::Invalid(format!("its header is invalid: {error}")),
        kind => invalid(kind),
    })?;
    let is_named = |key: &Key| key.kid.is_some() && key.kid == header.kid;
    let is_known = keys.iter().any(is_named);
    let may_verify = |key: &&Key| match (&header.kid, is_known) {
        (None, _) => true,
        (Some(_), true) => is_named(key),
        (Some(_), false) => key.kid.is_none(),
    };
    let mut failure = None;
    for key in keys.iter().filter(may_verify).filter(|key| key.algorithm == header.alg) {
        let mut validation = Validation::new(key.algorithm);
        // `caller` checks the times, because the library reads the clock itself.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
            Ok(data) => return Ok(data.claims),
            Err(error) if *error.kind() == ErrorKind::InvalidSignature => failure = Some(invalid(error.kind())),
            // The signature is valid, or no key can verify it.
            Err(error) => return Err(invalid(error.kind())),
        }
    }
    Err(failure.unwrap_or_else(|| no_key(keys, &header)))
}

/// Why no key may have signed a token.
fn no_key(keys: &[Key], header: &Header) -> AuthError {
    let name = header.kid.as_ref().filter(|_| keys.iter().any(|key| key.algorithm == header.alg));
    AuthError::Invalid(match name {
        Some(kid) => format!("this server has no key `{kid}` for {:?}", header.alg),
        None => {
            let accepted: BTreeSet<_> = keys.iter().map(|key| format!("{:?}", key.algorithm)).collect();
            let accepted = accepted.into_iter().collect::<Vec<_>>().join(", ");
            format!("it is signed by {:?}, and this server has keys for {accepted}", header.alg)
        }
    })
}

/// Why the library refuses a token.
fn invalid(error: &ErrorKind) -> AuthError {
    AuthError::Invalid(match error {
        ErrorKind::InvalidSignature => "its signature does not match the key of this server".to_owned(),
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            "only the algorithms HS256, RS256 and ES256 are accepted".to_owned()
        }
        ErrorKind::MissingRequiredClaim(claim) => format!("the claim `{claim}` is missing"),
        ErrorKind::Json(error) => format!("its claims are invalid: {error}"),
        _ => "it is not a signed JWT".to_owned(),
    })
}

/// Signs a token with `key`.
pub fn sign(claims: &Claims, key: &str) -> String {
    signed(claims, &EncodingKey::from_secret(key.as_bytes()))
}

fn signed(claims: &Claims, key: &EncodingKey) -> String {
    signatures::install();
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, key)
        .expect("claims are plain data and HS256 accepts any key")
}

/// A token: the text itself, or its claims, signed with the key of the server, if it is a JSON object.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) {
    let key = "0123456789abcdef0123456789abcdef".to_owned();
    let authority = Authority::new(&Auth { key: Some(key.into()), ..Auth::default() });
    let Authority::Keys { sign: Some(sign), .. } = &authority else { unreachable!("there is a key") };
    let claims = serde_json::from_str(text).ok().filter(serde_json::Value::is_object);
    signatures::install();
    let signed = claims.and_then(|claims| jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, sign).ok());
    let now = 1_700_000_000;
    match authority.caller(Some(signed.as_deref().unwrap_or(text)), [192, 0, 2, 1].into(), now) {
        Ok(caller) => {
            assert!(signed.is_some(), "a token without a signature is accepted");
            assert!(caller.expires.is_some_and(|expires| expires >= now));
            assert_eq!(caller.room.is_none(), caller.role == Role::Operator);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests;
