//! ICE as a client of one server needs it (RFC 8445, controlling, one component): find an address of the server that
//! answers, keep its consent, answer its checks.
//!
//! Owns: credentials, checks on their way, which address was chosen and when it last answered. Does not know: sockets,
//! SDP. Time is an argument: [`Agent::poll`] says what to send, [`Agent::handle`] takes what came.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, ATTR_XORMAPPED_ADDRESS,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::xoraddr::XorMappedAddress;

use crate::time::Timestamp;

/// From one check to the next while no address has answered (RFC 8445 section 14.2).
const SEARCH_EVERY: Duration = Duration::from_millis(50);
/// From one proof of consent to the next (RFC 7675 section 5.1 says 5 s; the server pings as well).
const CONSENT_EVERY: Duration = Duration::from_secs(4);
/// Without an answer for so long, the connection is gone (RFC 7675 section 5.1).
const CONSENT_EXPIRES: Duration = Duration::from_secs(15);
/// Checks remembered: more than are on their way at once.
const CHECKS_MAX: usize = 16;
/// RFC 8445 section 5.1.2: a peer-reflexive candidate, first component.
const PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;
/// Letters of a made-up user fragment and password, from those that ICE allows.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What signs checks to one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) password: String,
}

impl Credentials {
    /// New ones, not to be guessed.
    pub(super) fn random() -> Self {
        let text = |length: usize| (0..length).map(|_| char::from(LETTERS[rand::random_range(0..64)])).collect();
        Self { ufrag: text(8), password: text(24) }
    }
}

/// Whether this is STUN, by its first byte (RFC 7983).
pub(super) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first <= 3)
}

pub(super) struct Agent {
    crypto: Arc<dyn RTCCryptoProvider>,
    local: Credentials,
    remote: Credentials,
    candidates: Vec<SocketAddr>,
    selected: Option<SocketAddr>,
    checks: VecDeque<(TransactionId, SocketAddr)>,
    next: Timestamp,
    /// The last answer, at first the beginning.
    heard: Timestamp,
    tie_breaker: u64,
}

impl Agent {
    /// An agent that begins to check the server's `candidates` at once.
    pub(super) fn new(
        crypto: Arc<dyn RTCCryptoProvider>,
        local: Credentials,
        remote: Credentials,
        candidates: Vec<SocketAddr>,
        now: Timestamp,
    ) -> Self {
        Self {
            crypto,
            local,
            remote,
            candidates,
            selected: None,
            checks: VecDeque::new(),
            next: now,
            heard: now,
            tie_breaker: rand::random(),
        }
    }

    /// The server's address, once one has answered.
    pub(super) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// When [`Agent::poll`] next has something to send.
    pub(super) fn deadline(&self) -> Timestamp {
        self.next
    }

    /// Whether the server has not answered for so long that it is gone.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        now.since(self.heard) > CONSENT_EXPIRES
    }

    /// The checks that are due.
    pub(super) fn poll(&mut self, now: Timestamp) -> Vec<(SocketAddr, Vec<u8>)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + if self.selected.is_some() { CONSENT_EVERY } else { SEARCH_EVERY };
        let to = self.selected.map_or_else(|| self.candidates.clone(), |selected| vec![selected]);
        to.into_iter().filter_map(|to| Some((to, self.check(to)?))).collect()
    }

    /// Takes a datagram from the server; what it says is to be sent back, if anything.
    pub(super) fn handle(&mut self, now: Timestamp, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut message = Message::new();
        message.unmarshal_binary(datagram).ok()?;
        let crypto = Arc::clone(&self.crypto);
        let password = if message.typ == BINDING_REQUEST { &self.local.password } else { &self.remote.password };
        MessageIntegrity::check(&mut message, password.as_bytes(), crypto.crypto()).ok()?;
        if message.typ == BINDING_REQUEST {
            return self.answer(&message, from);
        }
        let asked = self.checks.iter().position(|check| *check == (message.transaction_id, from))?;
        self.checks.remove(asked);
        if message.typ == BINDING_SUCCESS {
            self.heard = now;
            if self.selected.is_none() {
                self.selected = Some(from);
                self.next = now + CONSENT_EVERY;
            }
        }
        None
    }

    fn check(&mut self, to: SocketAddr) -> Option<Vec<u8>> {
        let mut message = Message::new();
        message.set_type(BINDING_REQUEST);
        message.write_header();
        message.new_transaction_id().ok()?;
        message.add(ATTR_USERNAME, format!("{}:{}", self.remote.ufrag, self.local.ufrag).as_bytes());
        message.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
        message.add(ATTR_ICE_CONTROLLING, &self.tie_breaker.to_be_bytes());
        // Whichever address answers first is good enough: the server has one port.
        message.add(ATTR_USE_CANDIDATE, &[]);
        self.sign(&mut message, &self.remote.password)?;
        if self.checks.len() == CHECKS_MAX {
            self.checks.pop_front();
        }
        self.checks.push_back((message.transaction_id, to));
        Some(message.raw)
    }

    fn answer(&self, request: &Message, from: SocketAddr) -> Option<Vec<u8>> {
        let mut message = Message::new();
        message.set_type(BINDING_SUCCESS);
        message.transaction_id = request.transaction_id;
        message.write_header();
        XorMappedAddress { ip: from.ip(), port: from.port() }.add_to_as(&mut message, ATTR_XORMAPPED_ADDRESS).ok()?;
        self.sign(&mut message, &self.local.password)?;
        Some(message.raw)
    }

    fn sign(&self, message: &mut Message, password: &str) -> Option<()> {
        let crypto = self.crypto.crypto();
        MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), crypto).add_to(message).ok()?;
        FINGERPRINT.add_to(message).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "192.0.2.1:8189";

    fn credentials(name: &str) -> Credentials {
        Credentials { ufrag: name.to_owned(), password: format!("{name}-password-of-24-letters") }
    }

    fn agent(local: &str, remote: &str, candidates: &[&str]) -> Agent {
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        let candidates = candidates.iter().map(|address| address.parse().expect("an address")).collect();
        Agent::new(crypto, credentials(local), credentials(remote), candidates, Timestamp::default())
    }

    #[test]
    fn the_first_address_that_answers_is_taken_and_asked_for_consent() {
        let mut bot = agent("bot", "server", &["192.0.2.9:1", SERVER]);
        let mut server = agent("server", "bot", &[]);
        let now = Timestamp::default();
        let checks = bot.poll(now);
        assert_eq!(checks.len(), 2);
        let (to, check) = &checks[1];
        let answer = server.handle(now, "198.51.100.7:9".parse().expect("an address"), check).expect("a signed check");
        assert_eq!(bot.handle(now, *to, &answer), None);
        assert_eq!(bot.selected(), Some(*to));
        assert!(bot.poll(now + Duration::from_secs(1)).is_empty());
        assert_eq!(bot.poll(now + CONSENT_EVERY).len(), 1);
        assert!(!bot.has_expired(now + CONSENT_EXPIRES) && bot.has_expired(now + CONSENT_EXPIRES + SEARCH_EVERY));
    }

    #[test]
    fn what_is_not_signed_or_not_asked_for_is_nothing() {
        let mut bot = agent("bot", "server", &[SERVER]);
        let mut stranger = agent("stranger", "bot", &[]);
        stranger.local.password = "another-password-entirely".to_owned();
        let now = Timestamp::default();
        let (to, check) = bot.poll(now).remove(0);
        let mut server = agent("server", "bot", &[]);
        let answer = server.handle(now, to, &check).expect("a signed check");
        assert_eq!(stranger.handle(now, to, &check), None, "signed for somebody else");
        bot.handle(now, "203.0.113.1:1".parse().expect("an address"), &answer);
        assert_eq!(bot.selected(), None, "an answer from elsewhere");
        bot.handle(now, to, &answer[..answer.len() - 1]);
        assert_eq!(bot.selected(), None, "half an answer");
        bot.handle(now, to, &answer);
        assert_eq!(bot.selected(), Some(to));
    }
}
