//! ICE of a connection with one component (RFC 8445), as either side: find an address of the other that answers, keep its
//! consent (RFC 7675), answer its checks.
//!
//! Owns: credentials, the ways to the other side and what is known of each, which one was chosen and when it last answered.
//! Does not know: sockets, SDP. Time is an argument: [`Agent::poll`] says what to send, [`Agent::handle`] takes what came.
//!
//! Media goes only where one of our own checks was answered: a signed request alone may have a forged address, and would
//! turn us on somebody else.

pub(crate) mod check;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtc::crypto::RTCCryptoProvider;

use self::check::Check;
use super::stun::{self, Class, Transaction};
use crate::time::Timestamp;

/// From the first check of a way to the second; each later one takes twice as long (RFC 8445 section 14.3), up to the other.
const SEARCH_FIRST: Duration = Duration::from_millis(50);
/// See [`SEARCH_FIRST`].
const SEARCH_LAST: Duration = Duration::from_millis(1_600);
/// Checks of a way that does not answer: about ten seconds' worth.
const SEARCH_TRIES: u32 = 11;
/// From one proof of consent to the next (RFC 7675 section 5.1 says 5 s; most others ping as well).
const CONSENT_EVERY: Duration = Duration::from_secs(4);
/// And to the next try, where that was not answered: on a way that loses packets one answer in a while must come through.
const CONSENT_AGAIN: Duration = Duration::from_secs(1);
/// Without an answer for so long, the connection is gone; RFC 7675 section 5.1 allows 30 s.
pub(crate) const CONSENT_EXPIRES: Duration = Duration::from_secs(25);
/// Without an answer for so long, the selected way may be lost: then another that the other side tries is taken, chosen or not.
/// Some choose once, and do not notice that a NAT has given them another address.
pub(crate) const STALE: Duration = Duration::from_secs(6);
/// Where media comes by another way, and nothing by the selected one for so long, the other side has changed its mind: some
/// nominate a way seconds after they have begun to use it. Whether it is wanted there is asked first.
const FOLLOWED: Duration = Duration::from_millis(250);
/// Ways known at a time; a browser has few addresses.
const WAYS_MAX: usize = 16;
/// Checks remembered: more than are on their way at once.
const CHECKS_MAX: usize = 2 * WAYS_MAX;
/// Two ways nominated within so long are nominated at once: some nominate all they have.
const AT_ONCE: Duration = Duration::from_secs(1);
/// RFC 8445 section 5.1.2: a peer-reflexive candidate, first component.
const PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;
/// RFC 8445 section 7.3.1.1.
const ROLE_CONFLICT: u16 = 487;
/// Letters of a made-up user fragment and password, from those that ICE allows.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What signs checks to one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

impl Credentials {
    /// New ones, not to be guessed.
    pub(crate) fn random() -> Self {
        let text = |length: usize| (0..length).map(|_| char::from(LETTERS[rand::random_range(0..64)])).collect();
        Self { ufrag: text(8), password: text(24) }
    }
}

/// Who decides which way is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// We do: the first that answers is good enough, and the other side is told so by another check (RFC 8445 section 8.1.1).
    Controlling,
    /// The other side does.
    Controlled,
}

/// An address of the other side.
#[derive(Debug)]
struct Way {
    to: SocketAddr,
    /// Checks sent in search of it.
    tries: u32,
    /// When the next one is due.
    next: Timestamp,
    /// Something signed has come from there.
    validated: bool,
    /// It has answered a check of ours: what we send arrives, and is wanted.
    answered: bool,
    /// When the controlling side last chose it, and how much it thinks of it.
    nominated: Option<(Timestamp, u32)>,
    /// Media comes from there, and none by the selected way: it is that one's heir when it answers now.
    followed: bool,
}

pub(crate) struct Agent {
    crypto: Arc<dyn RTCCryptoProvider>,
    role: Role,
    local: Credentials,
    remote: Credentials,
    ways: Vec<Way>,
    selected: Option<SocketAddr>,
    /// Checks on their way, and whether they nominate.
    checks: VecDeque<(Transaction, SocketAddr, bool)>,
    consent: Timestamp,
    /// The selected way's last answer, at first the beginning.
    heard: Timestamp,
    /// The selected way's last media.
    arrived: Timestamp,
    /// That is too long ago.
    stale: bool,
    tie_breaker: u64,
}

impl Agent {
    /// An agent that begins to check the other side's `candidates` at once.
    pub(crate) fn new(
        crypto: Arc<dyn RTCCryptoProvider>,
        role: Role,
        local: Credentials,
        remote: Credentials,
        candidates: Vec<SocketAddr>,
        now: Timestamp,
    ) -> Self {
        let mut agent = Self {
            crypto,
            role,
            local,
            remote,
            ways: Vec::new(),
            selected: None,
            checks: VecDeque::new(),
            consent: now,
            heard: now,
            arrived: now,
            stale: false,
            tie_breaker: rand::random(),
        };
        candidates.into_iter().for_each(|to| agent.add_candidate(to, now));
        agent
    }

    /// Another address of the other side.
    pub(crate) fn add_candidate(&mut self, to: SocketAddr, now: Timestamp) {
        self.way(to, now);
    }

    /// Begins anew with other credentials (RFC 8445 section 9). What was selected stays so until something else is.
    pub(crate) fn restart(&mut self, local: Credentials, remote: Credentials, now: Timestamp) {
        (self.local, self.remote) = (local, remote);
        self.ways.retain(|way| Some(way.to) == self.selected);
        for way in &mut self.ways {
            (way.tries, way.next, way.answered, way.nominated, way.followed) = (0, now, false, None, false);
        }
        self.checks.clear();
    }

    /// The other side's address, once it has answered and is chosen.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Whether the selected way belongs to the present session: it has answered since the last restart.
    pub(crate) fn is_established(&self) -> bool {
        self.ways.iter().any(|way| Some(way.to) == self.selected && way.answered)
    }

    /// Whether something signed has come from there: then what else comes from there may be its owner's.
    pub(crate) fn has_validated(&self, from: SocketAddr) -> bool {
        self.selected == Some(from) || self.ways.iter().any(|way| way.to == from && way.validated)
    }

    /// Something that is no check has come from there.
    pub(crate) fn arrived(&mut self, now: Timestamp, from: SocketAddr) {
        if self.selected == Some(from) {
            self.arrived = now;
        } else if self.role == Role::Controlled
            && self.selected.is_some()
            && self.is_silent(now)
            && let Some(way) = self.ways.iter_mut().find(|way| way.to == from && way.validated && !way.followed)
        {
            // What it answered long ago tells nothing: addresses can be forged.
            (way.followed, way.answered, way.tries, way.next) = (true, false, 0, now);
        }
    }

    /// Whether the selected way brings no media any more.
    fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.arrived) > FOLLOWED
    }

    /// When [`Agent::poll`] next has something to send.
    pub(crate) fn deadline(&self) -> Timestamp {
        let searched = self.ways.iter().filter(|way| self.is_searched(way)).map(|way| way.next);
        searched.fold(self.consent, Timestamp::min)
    }

    /// When the other side was last heard of by an answer; at first the beginning.
    pub(crate) fn heard(&self) -> Timestamp {
        self.heard
    }

    /// Whether the other side has not answered for so long that it is gone.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        now.since(self.heard) > CONSENT_EXPIRES
    }

    /// The checks that are due.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Vec<(SocketAddr, Vec<u8>)> {
        self.stale = self.selected.is_some() && now.since(self.heard) > STALE;
        let mut due = Vec::new();
        for at in 0..self.ways.len() {
            if self.ways[at].next <= now && self.is_searched(&self.ways[at]) {
                let way = &mut self.ways[at];
                way.next = now + (SEARCH_FIRST * (1 << way.tries)).min(SEARCH_LAST);
                way.tries += 1;
                due.push(way.to);
            }
        }
        if now >= self.consent {
            self.consent = now + CONSENT_AGAIN;
            due.extend(self.selected.filter(|selected| !due.contains(selected)));
        }
        due.into_iter().filter_map(|to| Some((to, self.check(to)?))).collect()
    }

    /// Takes a datagram of STUN; what it says is to be sent back, if anything.
    pub(crate) fn handle(&mut self, now: Timestamp, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let message = stun::Message::parse(datagram)?;
        if message.class == Class::Request {
            let ours = message.addressee() == Some(self.local.ufrag.as_bytes());
            if !ours || !message.is_signed_with(&self.local.password, &*self.crypto) {
                return None;
            }
            return self.asked(now, from, &message);
        }
        if message.class == Class::Indication || !message.is_signed_with(&self.remote.password, &*self.crypto) {
            return None;
        }
        let at = self.checks.iter().position(|check| (check.0, check.1) == (message.transaction, from))?;
        let (.., nominates) = self.checks.remove(at)?;
        if message.class == Class::Error {
            if message.error == Some(ROLE_CONFLICT) {
                self.switch_role(now);
            }
            return None;
        }
        let first = self.role == Role::Controlling && self.ways.iter().all(|way| way.nominated.is_none());
        let silent = self.is_silent(now);
        let mut heir = false;
        if let Some(way) = self.ways.iter_mut().find(|way| way.to == from) {
            way.validated = true;
            way.answered = self.role == Role::Controlled || nominates;
            heir = std::mem::take(&mut way.followed) && silent;
            if first {
                // What is nominated is checked once more, at once.
                (way.nominated, way.tries, way.next) = (Some((now, PRIORITY)), 0, now);
            }
        }
        self.select(now);
        if (self.stale || heir) && self.role == Role::Controlled && self.selected != Some(from) {
            self.take_alone(from, now);
        } else if self.selected.is_none_or(|selected| selected == from) {
            (self.heard, self.consent) = (now, now + CONSENT_EVERY);
        }
        None
    }

    /// A signed request: answered, and followed by one of ours where it came from (RFC 8445 section 7.3.1.4).
    fn asked(&mut self, now: Timestamp, from: SocketAddr, request: &stun::Message<'_>) -> Option<Vec<u8>> {
        // RFC 8445 section 7.3.1.1: of two in the same role one takes the other.
        let conflict = match self.role {
            Role::Controlling => request.controlling.map(|theirs| self.tie_breaker >= theirs),
            Role::Controlled => request.controlled.map(|theirs| self.tie_breaker < theirs),
        };
        match conflict {
            Some(true) => return check::role_conflict(request.transaction, &self.local.password, &*self.crypto),
            Some(false) => self.switch_role(now),
            None => {}
        }
        let controlled = self.role == Role::Controlled;
        let lost = self.stale && self.selected != Some(from);
        let way = self.way(from, now)?;
        way.validated = true;
        way.answered &= !lost;
        if !way.answered {
            // One that is searched in vain is worth another look, since somebody is there.
            way.tries = way.tries.min(SEARCH_TRIES - 1);
            way.next = way.next.min(now);
        }
        if controlled && request.nominates {
            way.nominated = Some((now, request.priority));
        }
        self.select(now);
        check::success(request.transaction, from, &self.local.password, &*self.crypto)
    }

    /// Takes the other role; whatever was nominated in the old one was not meant.
    fn switch_role(&mut self, now: Timestamp) {
        self.role = match self.role {
            Role::Controlling => Role::Controlled,
            Role::Controlled => Role::Controlling,
        };
        for way in &mut self.ways {
            (way.tries, way.next, way.answered, way.nominated, way.followed) = (0, now, false, None, false);
        }
        self.checks.clear();
    }

    /// The way to this address; a new one takes the place of the oldest that is of no use when there are too many.
    fn way(&mut self, to: SocketAddr, now: Timestamp) -> Option<&mut Way> {
        if let Some(at) = self.ways.iter().position(|way| way.to == to) {
            return self.ways.get_mut(at);
        }
        if self.ways.len() == WAYS_MAX {
            let at = self.ways.iter().position(|way| Some(way.to) != self.selected)?;
            self.ways.remove(at);
        }
        self.ways.push(Way {
            to,
            tries: 0,
            next: now,
            validated: false,
            answered: false,
            nominated: None,
            followed: false,
        });
        self.ways.last_mut()
    }

    /// Whether a way is still looked for: until one is found, and then only if it is to take that one's place.
    fn is_searched(&self, way: &Way) -> bool {
        let wanted = !self.is_established() || way.nominated.is_some() || way.followed || self.stale;
        !way.answered && way.tries < SEARCH_TRIES && wanted
    }

    /// Takes the way that was nominated last, and of those nominated at once the best.
    fn select(&mut self, now: Timestamp) {
        // Who nominates does not wait to hear that this was heard.
        let usable = self.ways.iter().filter(|way| way.answered || self.role == Role::Controlling);
        let Some(last) = usable.clone().filter_map(|way| way.nominated).map(|(at, _)| at).max() else { return };
        let at_once = usable.filter_map(|way| Some((way.nominated?, way.to)));
        let best =
            at_once.filter(|((at, _), _)| last.since(*at) < AT_ONCE).max_by_key(|((at, priority), _)| (*priority, *at));
        if let Some((_, to)) = best.filter(|(_, to)| self.selected != Some(*to)) {
            self.take(to, now);
        }
    }

    /// Media goes there from now on.
    fn take(&mut self, to: SocketAddr, now: Timestamp) {
        self.selected = Some(to);
        (self.heard, self.arrived, self.consent, self.stale) = (now, now, now + CONSENT_EVERY, false);
    }

    /// The same where it was not nominated: the old one was chosen for good, and is not to be.
    fn take_alone(&mut self, to: SocketAddr, now: Timestamp) {
        self.ways.iter_mut().filter(|way| way.to != to).for_each(|way| way.nominated = None);
        self.take(to, now);
    }

    fn check(&mut self, to: SocketAddr) -> Option<Vec<u8>> {
        let nominates =
            self.role == Role::Controlling && self.ways.iter().any(|way| way.to == to && way.nominated.is_some());
        let check = Check {
            role: self.role,
            tie_breaker: self.tie_breaker,
            priority: PRIORITY,
            nominates,
            from: &self.local,
            to: &self.remote,
        };
        let (transaction, bytes) = check::request(&check, &*self.crypto)?;
        if self.checks.len() == CHECKS_MAX {
            self.checks.pop_front();
        }
        self.checks.push_back((transaction, to, nominates));
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
