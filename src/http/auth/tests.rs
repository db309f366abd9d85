//! Tests of tokens and of the keys that verify them.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

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

fn reason(token: &str) -> String {
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
    assert!(reason(&sign(&claims(None, Role::Moderator), KEY)).contains("room"));
}

#[test]
fn with_a_key_local_callers_need_a_token_too() {
    assert_eq!(keyed().caller(None, LOCAL, NOW), Err(AuthError::Missing));
}

#[test]
fn invalid_tokens_are_refused() {
    assert!(reason(&sign(&claims(Some("r"), Role::Viewer), "ffffffffffffffffffffffffffffffff")).contains("signature"));
    assert!(reason("nonsense").contains("JWT"));
    assert!(reason("").contains("JWT"));
    let late = Claims { exp: NOW as f64, ..claims(Some("r"), Role::Viewer) };
    assert_eq!(keyed().caller(Some(&sign(&late, KEY)), LOCAL, NOW), Err(AuthError::Expired));
    assert!(AuthError::Expired.to_string().contains("expired"));
    let early = Claims { nbf: Some((NOW + 31) as f64), ..claims(Some("r"), Role::Viewer) };
    assert!(reason(&sign(&early, KEY)).contains("nbf"));

    let sign_value = |claims: &serde_json::Value| {
        let header = Header::new(Algorithm::HS256);
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(KEY.as_bytes())).expect("signs")
    };
    let good = serde_json::json!({"room": "r", "role": "viewer", "exp": NOW + 60});
    // The same claims, signed by HS512 with the same key.
    let hs512 = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.eyJleHAiOjE3MDAwMDAwNjAsInJvbGUiOiJ2aWV3ZXIiLCJyb29tIjoiciJ9.\
        E9vSV0H0eNloTbUzsWmPQSMAgW2uEmPBAfFnFTTrbaWEhQZ_p1F5Z8Df_bMM7O48TuJf8ZydRZKzlQYZWHGYjQ";
    assert!(reason(hs512).contains("HS256"));
    assert!(keyed().caller(Some(&sign_value(&good)), LOCAL, NOW).is_ok());
    for (bad, names) in [
        (serde_json::json!({"room": "r", "role": "viewer"}), "exp"),
        (serde_json::json!({"room": "r", "exp": NOW + 60}), "role"),
        (serde_json::json!({"room": "r", "role": "king", "exp": NOW + 60}), "king"),
        (serde_json::json!({"room": "../r", "role": "viewer", "exp": NOW + 60}), "../r"),
    ] {
        let why = reason(&sign_value(&bad));
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

/// Public keys of RS256 (`rsa`) and ES256 (`ec`); the tokens below were signed with their private keys by the Python
/// package cryptography.
const JWKS: &str = "\
    {\"keys\":[{\"kty\":\"RSA\",\"use\":\"sig\",\"alg\":\"RS256\",\"kid\":\"rsa\",\"n\":\"ok1Ppn9gTLIFS2\
    3z1COPU-O_CV5pjlyhcniYCcLoJ9aw3CqYk6ndt81ilS9SwP7gz52AWOaaokVC9g5pn_r3IpCHCMn2rAEe8u27wnp0Bl7GHxHLTu\
    KQKZbuLxy2SfOlS79DxjjrA_v4RD_nKo3sXLCxQ2Fup1f5ZaaB8UcHzolRt21mYYQgtLl0qquE2OlIX5TgaD-Hf7shP9cFDYTNJ8\
    xlgwAo-z10ewjbtY_QhtDqi6kbiZlXMt15jJtUq6M-72COYxFB5TL5Vt8qYp_npV55MpQvbezWmBmFCRDpoOind5LNd9ZITO_GCM\
    jibVZYvwPpEwd-q5gZexNFPPFadQ\",\"e\":\"AQAB\"},{\"kty\":\"EC\",\"crv\":\"P-256\",\"alg\":\"ES256\",\
    \"kid\":\"ec\",\"x\":\"UrXmAL6n1nuJr9dhPuRdPup210Mj-eKb0Q-C7IVoZAw\",\"y\":\"uRwPNIStQaEhkA1NK0TqdhH\
    7x7-QQNrmmaybptW9W90\"}]}";
/// RS256, with the `kid`.
const RS256: &str = "\
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InJzYSJ9.eyJyb29tIjoiciIsInJvbGUiOiJtb2RlcmF0b3IiLCJleHA\
    iOjE3MDAwMDAwNjB9.cHGkxD8kuCyJnD8GVujwCXvtEB_uF9E4jfybw3Ud_L-odXaFmIH1fR0e0HRkA6aJvLq56TtEgeyNWkjZbU\
    vN8SpHRLq0BnieB3bd1rDgUaAY-2iubZsL-Gh_tJ9HtHJUvXUxmWMM1yVHVziZLM7JANpRN6iezafw5BoSi9g3IsRFhWBj5FBxmH\
    I4w45keMOVmA2vwKKHWkhbP54UMs9vPWUCu0w46z-60UvJOPL6aD0rjUg24MzYzA2MG3SCMHYW3Sm7TWb-88BCInHqy-2AxVs9m3\
    9m1vZ2_a6KLeONRILL6qY3gY1Zm1O61u1WxWDpMz8gO2O-sjXTorPQiWYSAQ";
/// RS256, without a `kid`.
const RS256_WITHOUT_KID: &str = "\
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb29tIjoiciIsInJvbGUiOiJtb2RlcmF0b3IiLCJleHAiOjE3MDAwMDAwNjB\
    9.QO-aFRvuDM3t7qxq3oOJ6iTkELLMEjPwA_sDImLfHlA0HZTr9BBZLgmL_Ez_6cVaedxVlDgsPXSIo2vxQ76tcrGdApOv91tRXC\
    i2JLGio4sal4ma3dW1-tMP4lzHBadmvGMtp5o8XkOQYcEXH78SG_j4XeITNNHCjdu7NkFtY45yIiT6WCTE3hTzjFC6HSNt6XzR3X\
    35wwkSAVU9iCzMLZBj4oTv_KRGmbL4Dyt7nOb-kswWj34moE_JTvCwLiLVK7DSa0bh3dXZGy97rBoWSmkd3JU0fi_AZOrGuAgSf6\
    xgek6GR4GK88omr8dg0VtYXrde3hXCh5UzPMUXgV0zyQ";
/// ES256, with the `kid`.
const ES256: &str = "\
    eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImVjIn0.eyJyb29tIjoiciIsInJvbGUiOiJtb2RlcmF0b3IiLCJleHAi\
    OjE3MDAwMDAwNjB9.TWdfxj-AGCjzPbroJ8THFmYhlp7RHJqqYZS4GQZ792Fv-Ff2v3VFVJd6TC42n_49X4tyl5Fp0JaUQs_FtKe\
    PoA";
/// ES256, but with the `kid` of the key of RS256.
const ES256_AS_RSA: &str = "\
    eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InJzYSJ9.eyJyb29tIjoiciIsInJvbGUiOiJtb2RlcmF0b3IiLCJleHA\
    iOjE3MDAwMDAwNjB9.z2C-k_dbNdqpLS0lB40aKdzTPyNK1R5jry0z_3KXYhpeRzZ389sLW4u23F0Zds1PStUvoCGUZFfLtdyKEV\
    bQLg";

/// An authority with a set of keys, and with a key of its own if `key`.
fn with_set(set: &str, key: bool) -> Authority {
    let key = key.then(|| Secret::from(KEY.to_owned()));
    Authority::new(&Auth { key, jwks: Some(Secret::from(set.to_owned())), ..Auth::default() })
}

#[test]
fn public_keys_verify_tokens_of_another_issuer() {
    let authority = with_set(JWKS, false);
    for token in [RS256, RS256_WITHOUT_KID, ES256] {
        let caller = authority.caller(Some(token), REMOTE, NOW).expect(token);
        assert_eq!((caller.role, caller.expires), (Role::Moderator, Some(NOW + 60)));
        assert_eq!(authority.caller(Some(token), REMOTE, NOW + 60), Err(AuthError::Expired));
        // A changed byte of the signature, and of the claims.
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{first}{}", &signature[1..]);
        assert!(matches!(authority.caller(Some(&forged), REMOTE, NOW), Err(AuthError::Invalid(_))));
        let (header, claims) = signed.split_once('.').expect("three parts");
        let forged = format!("{header}.{}.{signature}", claims.replacen("ciI", "dyI", 1));
        assert!(matches!(authority.caller(Some(&forged), REMOTE, NOW), Err(AuthError::Invalid(_))));
    }
    assert!(authority.sign(&claims(Some("r"), Role::Viewer)).is_none(), "nothing signs");
    assert_eq!(authority.caller(None, LOCAL, NOW), Err(AuthError::Missing));
}

#[test]
fn a_key_verifies_its_own_algorithm_only() {
    let why = |authority: &Authority, token: &str| match authority.caller(Some(token), REMOTE, NOW) {
        Err(AuthError::Invalid(why)) => why,
        other => panic!("{token} gave {other:?}"),
    };
    assert!(why(&with_set(JWKS, true), ES256_AS_RSA).contains("`rsa`"));
    // HS256 with the text of the public key as the secret, with and without its name.
    for kid in [Some("rsa".to_owned()), None] {
        let header = Header { kid, ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(
            &header,
            &claims(Some("r"), Role::Operator),
            &EncodingKey::from_secret(JWKS.as_bytes()),
        );
        let token = token.expect("signs");
        assert!(!why(&with_set(JWKS, false), &token).is_empty());
        assert!(!why(&with_set(JWKS, true), &token).is_empty());
    }
    for key in [true, false] {
        let token = sign(&claims(Some("r"), Role::Operator), KEY);
        assert_eq!(with_set(JWKS, key).caller(Some(&token), REMOTE, NOW).is_ok(), key, "the own key stays valid");
    }
}

#[test]
fn secrets_are_rotated_by_their_names() {
    let old = "ffffffffffffffffffffffffffffffff";
    let set = serde_json::json!({"keys": [
        {"kty": "oct", "kid": "old", "k": BASE64_URL_SAFE_NO_PAD.encode(old)},
        {"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee")},
    ]});
    let authority = with_set(&set.to_string(), true);
    let token = |kid: Option<&str>, key: &str| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        let claims = claims(Some("r"), Role::Participant);
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(key.as_bytes())).expect("signs")
    };
    for (kid, key, is_valid) in [
        (Some("old"), old, true),
        (Some("old"), KEY, false),
        (Some("unknown"), KEY, true),
        (Some("unknown"), old, false),
        (None, KEY, true),
        (None, old, true),
        (None, "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", true),
        (None, "dddddddddddddddddddddddddddddddd", false),
    ] {
        let caller = authority.caller(Some(&token(kid, key)), REMOTE, NOW);
        assert_eq!(caller.is_ok(), is_valid, "{kid:?} {key}: {caller:?}");
    }
}
