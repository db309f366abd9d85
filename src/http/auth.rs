//! Authentication by tokens, and the permissions of roles.
//!
//! Owns: tokens (JWT, HS256 only: RFC 7519, RFC 8725), and [`Caller::may`], the check that every route uses. Does not
//! know: routes and HTTP responses. In: the text of a token and the time; out: a [`Caller`] or an error.

use std::net::IpAddr;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::hs256;
use crate::config::Auth;
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
    /// Tokens must be signed with this key.
    Key {
        /// Verifies tokens.
        verify: Box<DecodingKey>,
        /// Signs invitations.
        sign: Box<EncodingKey>,
    },
}

impl Authority {
    /// The authority for this configuration.
    pub fn new(config: &Auth) -> Self {
        match &config.key {
            Some(key) => {
                let key = key.expose().as_bytes();
                Self::Key {
                    verify: Box::new(DecodingKey::from_secret(key)),
                    sign: Box::new(EncodingKey::from_secret(key)),
                }
            }
            None => Self::Open,
        }
    }

    /// A token with these claims; None if there is no key.
    pub fn sign(&self, claims: &Claims) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Key { sign, .. } => Some(signed(claims, sign)),
        }
    }

    /// The caller that sent `token` from `address`; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`AuthError::Missing`] or [`AuthError::Invalid`].
    pub fn caller(&self, token: Option<&str>, address: IpAddr, now: u64) -> Result<Caller, AuthError> {
        let key = match self {
            Self::Open if address.to_canonical().is_loopback() => {
                return Ok(Caller { role: Role::Operator, room: None, name: None, expires: None });
            }
            // Operators make the server open URLs and write files, so remote callers are not operators.
            Self::Open => return Ok(Caller { role: Role::Moderator, room: None, name: None, expires: None }),
            Self::Key { verify, .. } => verify,
        };
        let Claims { room, role, name, exp, nbf } = verify(token.ok_or(AuthError::Missing)?, key)?;
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

fn verify(token: &str, key: &DecodingKey) -> Result<Claims, AuthError> {
    hs256::install();
    let mut validation = Validation::new(Algorithm::HS256);
    // `caller` checks the times, because the library reads the clock itself.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    jsonwebtoken::decode::<Claims>(token, key, &validation).map(|data| data.claims).map_err(|error| {
        AuthError::Invalid(match error.kind() {
            ErrorKind::InvalidSignature => "its signature does not match the key of this server".to_owned(),
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
                "only the algorithm HS256 is accepted".to_owned()
            }
            ErrorKind::MissingRequiredClaim(claim) => format!("the claim `{claim}` is missing"),
            ErrorKind::Json(error) => format!("its claims are invalid: {error}"),
            _ => "it is not a signed JWT".to_owned(),
        })
    })
}

/// Signs a token with `key`.
pub fn sign(claims: &Claims, key: &str) -> String {
    signed(claims, &EncodingKey::from_secret(key.as_bytes()))
}

fn signed(claims: &Claims, key: &EncodingKey) -> String {
    hs256::install();
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, key)
        .expect("claims are plain data and HS256 accepts any key")
}

/// A token: the text itself, or its claims, signed with the key of the server, if it is a JSON object.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) {
    let key = "0123456789abcdef0123456789abcdef".to_owned();
    let authority = Authority::new(&Auth { key: Some(key.into()), ..Auth::default() });
    let Authority::Key { sign, .. } = &authority else { unreachable!("there is a key") };
    let claims = serde_json::from_str(text).ok().filter(serde_json::Value::is_object);
    hs256::install();
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
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Secret;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_700_000_000;
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn keyed() -> Authority {
        Authority::new(&Auth { key: Some(Secret::from(KEY.to_owned())), ..Auth::default() })
    }

    fn claims(room: Option<&str>, role: Role) -> Claims {
        let room = room.map(|room| room.parse().expect("a name"));
        Claims { room, role, name: Some("Ann".into()), exp: NOW as f64 + 60.0, nbf: None }
    }

    fn invalid(token: &str) -> String {
        match keyed().caller(Some(token), LOCAL, NOW) {
            Err(AuthError::Invalid(why)) => why,
            other => panic!("{token} gave {other:?}"),
        }
    }

    #[test]
    fn a_token_gives_a_role_a_room_and_a_name() {
        let token = sign(&claims(Some("r1"), Role::Participant), KEY);
        let caller = keyed().caller(Some(&token), REMOTE, NOW).expect("valid");
        assert_eq!((caller.role, caller.name.as_deref()), (Role::Participant, Some("Ann")));
        let (here, other) = ("r1".parse().expect("a name"), "r2".parse().expect("a name"));
        assert!(caller.may(Role::Viewer, Some(&here)).is_ok());
        assert!(caller.may(Role::Participant, Some(&here)).is_ok());
        assert!(matches!(caller.may(Role::Moderator, Some(&here)), Err(AuthError::Role { .. })));
        assert!(matches!(caller.may(Role::Viewer, Some(&other)), Err(AuthError::Room(_))));
        assert!(matches!(caller.may(Role::Viewer, None), Err(AuthError::AllRooms(_))));
    }

    #[test]
    fn each_role_includes_the_lower_ones() {
        assert!(
            Role::Viewer < Role::Participant && Role::Participant < Role::Moderator && Role::Moderator < Role::Operator
        );
    }

    #[test]
    fn an_operator_token_is_valid_for_all_rooms() {
        let token = sign(&claims(None, Role::Operator), KEY);
        let caller = keyed().caller(Some(&token), REMOTE, NOW).expect("valid");
        assert!(caller.may(Role::Operator, None).is_ok());
        let token = sign(&claims(Some("r"), Role::Operator), KEY);
        assert_eq!(
            keyed().caller(Some(&token), REMOTE, NOW).expect("valid").room,
            None,
            "the room of an operator's token is ignored"
        );
        assert!(invalid(&sign(&claims(None, Role::Moderator), KEY)).contains("room"));
    }

    #[test]
    fn with_a_key_local_callers_need_a_token_too() {
        assert_eq!(keyed().caller(None, LOCAL, NOW), Err(AuthError::Missing));
    }

    #[test]
    fn invalid_tokens_are_refused() {
        assert!(
            invalid(&sign(&claims(Some("r"), Role::Viewer), "ffffffffffffffffffffffffffffffff")).contains("signature")
        );
        assert!(invalid("nonsense").contains("JWT"));
        assert!(invalid("").contains("JWT"));
        let late = Claims { exp: NOW as f64, ..claims(Some("r"), Role::Viewer) };
        assert_eq!(keyed().caller(Some(&sign(&late, KEY)), LOCAL, NOW), Err(AuthError::Expired));
        assert!(AuthError::Expired.to_string().contains("expired"));
        let early = Claims { nbf: Some((NOW + 31) as f64), ..claims(Some("r"), Role::Viewer) };
        assert!(invalid(&sign(&early, KEY)).contains("nbf"));

        let sign_value = |claims: &serde_json::Value| {
            let header = Header::new(Algorithm::HS256);
            jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(KEY.as_bytes())).expect("signs")
        };
        let good = serde_json::json!({"room": "r", "role": "viewer", "exp": NOW + 60});
        // The same claims, signed by HS512 with the same key.
        let hs512 = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.eyJleHAiOjE3MDAwMDAwNjAsInJvbGUiOiJ2aWV3ZXIiLCJyb29tIjoiciJ9.\
            E9vSV0H0eNloTbUzsWmPQSMAgW2uEmPBAfFnFTTrbaWEhQZ_p1F5Z8Df_bMM7O48TuJf8ZydRZKzlQYZWHGYjQ";
        assert!(invalid(hs512).contains("HS256"));
        assert!(keyed().caller(Some(&sign_value(&good)), LOCAL, NOW).is_ok());
        for (bad, names) in [
            (serde_json::json!({"room": "r", "role": "viewer"}), "exp"),
            (serde_json::json!({"room": "r", "exp": NOW + 60}), "role"),
            (serde_json::json!({"room": "r", "role": "king", "exp": NOW + 60}), "king"),
            (serde_json::json!({"room": "../r", "role": "viewer", "exp": NOW + 60}), "../r"),
        ] {
            let why = invalid(&sign_value(&bad));
            assert!(why.contains(names), "{bad}: {why}");
        }
    }

    #[test]
    fn a_token_without_a_signature_is_refused() {
        let token = sign(&claims(Some("r"), Role::Operator), KEY);
        let payload = token.split('.').nth(1).expect("three parts");
        // {"alg":"none","typ":"JWT"}
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        assert!(keyed().caller(Some(&none), LOCAL, NOW).is_err());
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        assert!(keyed().caller(Some(&format!("{signed}.")), LOCAL, NOW).is_err());
    }

    #[test]
    fn without_a_key_only_local_callers_are_operators() {
        let open = Authority::new(&Auth::default());
        assert_eq!(open.caller(None, LOCAL, NOW).expect("open").role, Role::Operator);
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
        assert_eq!(open.caller(None, mapped, NOW).expect("open").role, Role::Operator);
        assert_eq!(open.caller(None, REMOTE, NOW).expect("open").role, Role::Moderator);
    }
}
