//! TURN credentials without a list of users: the name contains the expiry, the password is an HMAC of the name.
//!
//! Owns: names and passwords from a shared secret ("TURN REST API", compatible with other TURN servers), their
//! sessions, the keys that sign messages, and stateless nonces. Does not know: allocations. Names and time enter, keys
//! and verdicts leave.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use rtc::crypto::{HashAlgorithm, HmacAlgorithm, RTCCryptoProvider};
use tokio_util::sync::CancellationToken;

use crate::config::Secret;
use crate::time::Timestamp;

/// The realm of our users (RFC 8489 section 14.9).
pub(super) const REALM: &str = "commingle";
/// Lifetime of a nonce, in seconds (RFC 8656 section 5 recommends at least an hour).
const NONCE_SECONDS: u64 = 3600;
/// Longest accepted name, in bytes.
const NAME_MAX: usize = 128;
/// Bytes of the authentication tag of a nonce.
const NONCE_TAG: usize = 8;

/// Prefix of the names of sessions, after the expiry.
const SESSION: &str = "session-";
/// Time from the end of a session to the end of its relay, so that datagrams in flight (BYE, close_notify) arrive.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// The key that signs messages of long-term credentials (RFC 8489 section 9.2.2).
pub(super) type Key = [u8; 16];

/// A name and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credential {
    /// `expiry:name`, the expiry in seconds since 1970.
    pub(super) username: String,
    /// The base64 of the HMAC-SHA1 of the name.
    pub(super) password: String,
}

/// Makes and verifies credentials.
pub(super) struct Credentials {
    crypto: Arc<dyn RTCCryptoProvider>,
    secret: Secret,
    nonce_key: [u8; 32],
    seconds: u64,
    sessions: Mutex<HashMap<String, Session>>,
}

/// The session of a name.
struct Session {
    /// Cancelled when the session ends.
    over: CancellationToken,
    /// When the end was noticed.
    since: Option<Timestamp>,
}

/// What a name is authorized to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// All requests.
    Welcome,
    /// To end existing allocations, which relay for [`GRACE`] longer: the session has ended.
    Leaving,
    /// Nothing: expired or unknown.
    Gone,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials of this secret with a lifetime of `seconds`.
    pub(super) fn new(secret: Secret, seconds: u64) -> Self {
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        Self { crypto, secret, nonce_key: rand::random(), seconds, sessions: Mutex::default() }
    }

    pub(super) fn crypto(&self) -> &dyn RTCCryptoProvider {
        &*self.crypto
    }

    /// A new credential for one session; `now` in seconds since 1970. Another server with the same secret accepts it
    /// until it expires; this one after the session was [registered](Self::belongs_to).
    pub(super) fn make(&self, now: u64) -> Credential {
        let username = format!("{}:{SESSION}{:016x}", now + self.seconds, rand::random::<u64>());
        let password = self.password(&username);
        Credential { username, password }
    }

    pub(super) fn password(&self, username: &str) -> String {
        BASE64_STANDARD.encode(self.hmac(HmacAlgorithm::Sha1, self.secret.expose().as_bytes(), &[username.as_bytes()]))
    }

    /// Registers the session of a name: the name is valid until `over` is cancelled, and no longer.
    pub(super) fn belongs_to(&self, username: String, over: CancellationToken) {
        self.sessions.lock().insert(username, Session { over, since: None });
    }

    /// What this name is authorized to do; `now` in seconds since 1970. Names that others made with the secret are
    /// valid until they expire.
    pub(super) fn standing(&self, username: &str, now: u64) -> Standing {
        let Some((expiry, name)) = parse(username) else { return Standing::Gone };
        if name.starts_with(SESSION) {
            return match self.sessions.lock().get(username) {
                Some(session) if session.over.is_cancelled() => Standing::Leaving,
                Some(_) => Standing::Welcome,
                None => Standing::Gone,
            };
        }
        if expiry >= now { Standing::Welcome } else { Standing::Gone }
    }

    /// Removes and returns the names whose sessions ended more than [`GRACE`] ago.
    pub(super) fn sweep(&self, at: Timestamp) -> Vec<String> {
        let mut sessions = self.sessions.lock();
        let over = sessions.extract_if(|_, session| {
            session.over.is_cancelled() && at.since(*session.since.get_or_insert(at)) >= GRACE
        });
        over.map(|(username, _)| username).collect()
    }

    /// The key of this name.
    pub(super) fn key(&self, username: &str) -> Key {
        key(username, REALM, &self.password(username))
    }

    /// A nonce for requests from this address.
    pub(super) fn nonce(&self, address: IpAddr, now: u64) -> String {
        format!("{now:x}-{}", self.nonce_tag(address, now))
    }

    /// Whether this is a nonce of ours for this address that has not expired.
    pub(super) fn is_fresh(&self, nonce: &str, address: IpAddr, now: u64) -> bool {
        let Some((then, tag)) = nonce.split_once('-') else { return false };
        let Ok(then) = u64::from_str_radix(then, 16) else { return false };
        let same = rtc::crypto::constant_time_eq(tag.as_bytes(), self.nonce_tag(address, then).as_bytes());
        same && then <= now && now - then <= NONCE_SECONDS
    }

    fn nonce_tag(&self, address: IpAddr, then: u64) -> String {
        let address = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let tag = self.hmac(HmacAlgorithm::Sha256, &self.nonce_key, &[&then.to_be_bytes(), &address]);
        tag[..NONCE_TAG].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn hmac(&self, algorithm: HmacAlgorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut tag = vec![0; algorithm.output_len()];
        let mut mac = self.crypto.crypto().new_hmac(algorithm, key).expect("the provider has SHA-1 and SHA-256");
        mac.sign(parts, &mut tag).expect("the tag has its size");
        tag
    }
}

/// The expiry of a name in seconds since 1970, and the rest of the name; None if it has no expiry.
fn parse(username: &str) -> Option<(u64, &str)> {
    if username.len() > NAME_MAX {
        return None;
    }
    let (expiry, name) = username.split_once(':').unwrap_or((username, ""));
    Some((expiry.parse().ok()?, name))
}

/// The key of long-term credentials.
pub(super) fn key(username: &str, realm: &str, password: &str) -> Key {
    let crypto = rtc::crypto::default_provider().expect("ring is built in");
    let hash = crypto.crypto().hash(HashAlgorithm::Md5, format!("{username}:{realm}:{password}").as_bytes());
    hash.expect("the provider has MD5 for STUN").try_into().expect("MD5 has 16 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn credentials() -> Credentials {
        Credentials::new("north".to_owned().into(), 600)
    }

    #[test]
    fn passwords_equal_those_of_other_turn_servers() {
        // printf 1700000000:ann | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(credentials().password("1700000000:ann"), "jeamH6dA5l2I9g3jmieza7CzEDo=");
        // printf user:realm:pass | md5sum: RFC 5389 section 15.4
        assert_eq!(key("user", "realm", "pass")[..4], [0x84, 0x93, 0xfb, 0xc5]);
    }

    #[test]
    fn a_name_contains_its_expiry_and_is_unique() {
        let (one, two) = (credentials().make(1000), credentials().make(1000));
        for name in [&one.username, &two.username] {
            assert!(name.starts_with("1600:session-"), "{name}");
        }
        assert_ne!(one.username, two.username);
        assert_eq!((parse("12345"), parse("12345:a:b")), (Some((12345, "")), Some((12345, "a:b"))));
        for wrong in ["", "ann", ":5", "-5:ann", &format!("5:{}", "x".repeat(200))] {
            assert_eq!(parse(wrong), None, "{wrong}");
            assert_eq!(credentials().standing(wrong, 0), Standing::Gone, "{wrong}");
        }
    }

    #[test]
    fn a_name_made_by_another_server_is_valid_until_it_expires() {
        let credentials = credentials();
        assert_eq!(credentials.standing("5000:ann", 5000), Standing::Welcome);
        assert_eq!(credentials.standing("5000:ann", 5001), Standing::Gone);
        assert_eq!(credentials.standing("5000", 5000), Standing::Welcome);
    }

    #[test]
    fn the_name_of_a_session_is_valid_as_long_as_the_session() {
        let (credentials, over) = (credentials(), CancellationToken::new());
        let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
        let name = credentials.make(1000).username;
        assert_eq!(credentials.standing(&name, 1000), Standing::Gone, "its session is not registered");
        credentials.belongs_to(name.clone(), over.clone());
        assert_eq!(credentials.standing(&name, 1000), Standing::Welcome);
        assert_eq!(credentials.standing(&name, 1_000_000), Standing::Welcome, "a long call");
        assert!(credentials.sweep(at(500)).is_empty());
        over.cancel();
        assert_eq!(credentials.standing(&name, 1000), Standing::Leaving);
        assert!(credentials.sweep(at(1000)).is_empty());
        assert!(credentials.sweep(at(1002)).is_empty());
        assert_eq!(credentials.sweep(at(1003)), std::slice::from_ref(&name));
        assert_eq!(credentials.standing(&name, 1000), Standing::Gone);
        assert!(credentials.sessions.lock().is_empty());
    }

    #[test]
    fn a_nonce_is_valid_for_one_address_and_one_hour() {
        let credentials = credentials();
        let nonce = credentials.nonce(HERE, 5000);
        assert!(credentials.is_fresh(&nonce, HERE, 5000));
        assert!(credentials.is_fresh(&nonce, HERE, 5000 + NONCE_SECONDS));
        assert!(!credentials.is_fresh(&nonce, HERE, 5001 + NONCE_SECONDS));
        assert!(!credentials.is_fresh(&nonce, HERE, 4999));
        assert!(!credentials.is_fresh(&nonce, [127, 0, 0, 2].into(), 5000));
        assert!(!Credentials::new("north".to_owned().into(), 600).is_fresh(&nonce, HERE, 5000), "another server's");
        for wrong in ["", "-", "1388-", "zz-00", &nonce.replacen("1388", "1389", 1), &format!("{nonce}0")] {
            assert!(!credentials.is_fresh(wrong, HERE, 5001), "{wrong}");
        }
    }
}
