//! The ICE agent of a connection with one component (RFC 8445), in either role: finds a remote address that answers,
//! keeps its consent (RFC 7675) and answers checks.
//!
//! Owns: credentials, the candidate pairs and their state, which pair is selected and when it last answered. Does not
//! know: sockets, SDP. Time is an argument: [`Agent::poll`] returns the checks to send, [`Agent::handle`] takes
//! received STUN.
//!
//! Media is sent only to an address that answered a check of ours: a signed request alone may have a forged address,
//! and the server would send media to a third party. For the same reason the number of unanswered checks is bounded.

pub(crate) mod check;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtc::crypto::RTCCryptoProvider;

use self::check::Check;
use super::stun::{self, Class, Transaction};
use crate::time::Timestamp;

/// Time from the first check of a pair to the second; it doubles from check to check (RFC 8445 section 14.3) up to
/// [`SEARCH_LAST`].
const SEARCH_FIRST: Duration = Duration::from_millis(50);
/// See [`SEARCH_FIRST`].
const SEARCH_LAST: Duration = Duration::from_millis(1_600);
/// Checks of a pair that does not answer: for about ten seconds.
const SEARCH_TRIES: u32 = 11;
/// Time from one consent check to the next (RFC 7675 section 5.1 says 5 s; most remote agents send checks as well).
const CONSENT_EVERY: Duration = Duration::from_secs(4);
/// Time to the next consent check if one was not answered, so that consent survives on a path with loss.
const CONSENT_AGAIN: Duration = Duration::from_secs(1);
/// Consent expires after this time without an answer; RFC 7675 section 5.1 allows 30 s.
pub(crate) const CONSENT_EXPIRES: Duration = Duration::from_secs(25);
/// After this time without an answer the selected pair may be broken: another pair that the remote agent checks is
/// selected, nominated or not. Some agents nominate once and do not notice that a NAT has changed their address.
pub(crate) const STALE: Duration = Duration::from_secs(6);
/// When media arrives by another pair, and none by the selected pair for this time, the remote agent has moved: some
/// nominate a pair seconds after they began to use it. A check asks for consent first.
const FOLLOWED: Duration = Duration::from_millis(250);
/// Candidate pairs known at a time; a browser has few addresses.
const PAIRS_MAX: usize = 16;
/// Checks remembered: more than are in flight at once.
const CHECKS_MAX: usize = 2 * PAIRS_MAX;
/// Pairs nominated within this time count as nominated together: some agents nominate all their pairs.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Priority of a peer-reflexive candidate, first component (RFC 8445 section 5.1.2).
const PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;
/// Error code of a role conflict (RFC 8445 section 7.3.1.1).
const ROLE_CONFLICT: u16 = 487;
/// Checks of one session that may go unanswered at once. A candidate may name an address of anybody, and an offer or an
/// ICE restart costs its sender little: without a bound the server would send more than it gets to a host that never
/// asked.
const UNANSWERED_MAX: u32 = 16;
/// From one further unanswered check to the next.
const UNANSWERED_INTERVAL: Duration = Duration::from_secs(2);
/// Characters of a generated user fragment and password (RFC 8839 section 5.4, ice-char).
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The user fragment and password of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

impl Credentials {
    /// New random credentials: 48 bits of user fragment, 144 bits of password.
    pub(crate) fn random() -> Self {
        let text = |length: usize| (0..length).map(|_| char::from(LETTERS[rand::random_range(0..64)])).collect();
        Self { ufrag: text(8), password: text(24) }
    }
}

/// The role of an agent, which decides who nominates (RFC 8445 section 6.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// This agent nominates: the first pair that answers, by another check with USE-CANDIDATE (RFC 8445 section 8.1.1).
    Controlling,
    /// The remote agent nominates.
    Controlled,
}

/// A candidate pair. There is one local candidate, so that the remote address identifies it.
#[derive(Debug)]
struct CandidatePair {
    to: SocketAddr,
    /// Checks sent since the search for this pair began.
    tries: u32,
    /// When the next check is due.
    next: Timestamp,
    /// A signed request arrived from there, and no check was sent since (RFC 8445 section 7.3.1.4).
    triggered: bool,
    /// A signed message arrived from there.
    validated: bool,
    /// It answered a check of ours: datagrams arrive there, and the host consents.
    answered: bool,
    /// When the controlling agent last nominated it, and the priority in that check.
    nominated: Option<(Timestamp, u32)>,
    /// Media arrives from there, and none by the selected pair: it is selected when it answers the next check.
    followed: bool,
}

/// How many checks may still go unanswered. A signed request and a signed response each allow one more.
#[derive(Debug)]
struct CheckBudget {
    left: u32,
    /// When the last one was added by time.
    refilled: Timestamp,
}

impl CheckBudget {
    fn refill(&mut self, now: Timestamp) {
        let intervals = now.since(self.refilled).as_millis() / UNANSWERED_INTERVAL.as_millis();
        let added = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.refilled = if self.left.saturating_add(added) >= UNANSWERED_MAX {
            now
        } else {
            self.refilled + UNANSWERED_INTERVAL * added
        };
        self.left = self.left.saturating_add(added).min(UNANSWERED_MAX);
    }

    fn earn(&mut self) {
        self.left = (self.left + 1).min(UNANSWERED_MAX);
    }

    /// Whether a check may be sent.
    fn take(&mut self) -> bool {
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }

    /// The time before which no check may be sent.
    fn next(&self) -> Timestamp {
        if self.left > 0 { Timestamp::default() } else { self.refilled + UNANSWERED_INTERVAL }
    }
}

pub(crate) struct Agent {
    crypto: Arc<dyn RTCCryptoProvider>,
    role: Role,
    local: Credentials,
    remote: Credentials,
    pairs: Vec<CandidatePair>,
    selected: Option<SocketAddr>,
    /// Checks in flight, and whether they nominate.
    checks: VecDeque<(Transaction, SocketAddr, bool)>,
    consent: Timestamp,
    /// When the selected pair last answered; the start before that.
    heard: Timestamp,
    /// When media last arrived by the selected pair.
    arrived: Timestamp,
    /// The selected pair has not answered for [`STALE`].
    stale: bool,
    tie_breaker: u64,
    /// Kept over restarts.
    budget: CheckBudget,
}

impl Agent {
    /// An agent that checks the remote `candidates` at once.
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
            pairs: Vec::new(),
            selected: None,
            checks: VecDeque::new(),
            consent: now,
            heard: now,
            arrived: now,
            stale: false,
            tie_breaker: rand::random(),
            budget: CheckBudget { left: UNANSWERED_MAX, refilled: now },
        };
        candidates.into_iter().for_each(|to| agent.add_candidate(to, now));
        agent
    }

    /// Adds a remote candidate.
    pub(crate) fn add_candidate(&mut self, to: SocketAddr, now: Timestamp) {
        self.pair(to, now);
    }

    /// Restarts ICE with new credentials (RFC 8445 section 9). The selected pair stays selected until another is.
    pub(crate) fn restart(&mut self, local: Credentials, remote: Credentials, now: Timestamp) {
        (self.local, self.remote) = (local, remote);
        self.pairs.retain(|pair| Some(pair.to) == self.selected);
        for pair in &mut self.pairs {
            (pair.tries, pair.next, pair.answered, pair.nominated, pair.followed) = (0, now, false, None, false);
        }
        self.checks.clear();
    }

    /// The remote address of the selected pair.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Whether the selected pair has answered since the last restart.
    pub(crate) fn is_established(&self) -> bool {
        self.pairs.iter().any(|pair| Some(pair.to) == self.selected && pair.answered)
    }

    /// Whether a signed message arrived from there. Only then are other datagrams from there accepted.
    pub(crate) fn has_validated(&self, from: SocketAddr) -> bool {
        self.selected == Some(from) || self.pairs.iter().any(|pair| pair.to == from && pair.validated)
    }

    /// A datagram other than STUN arrived from there.
    pub(crate) fn arrived(&mut self, now: Timestamp, from: SocketAddr) {
        if self.selected == Some(from) {
            self.arrived = now;
        } else if self.role == Role::Controlled
            && self.selected.is_some()
            && self.is_silent(now)
            && let Some(pair) = self.pairs.iter_mut().find(|pair| pair.to == from && pair.validated && !pair.followed)
        {
            // An old answer is no proof: the source address of media can be forged.
            (pair.followed, pair.answered, pair.tries, pair.next) = (true, false, 0, now);
        }
    }

    /// Whether no media arrives by the selected pair.
    fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.arrived) > FOLLOWED
    }

    /// When [`Agent::poll`] must be called next.
    pub(crate) fn deadline(&self) -> Timestamp {
        let allowed = self.budget.next();
        let searched = self.pairs.iter().filter(|pair| self.is_searched(pair)).map(|pair| pair.next.max(allowed));
        searched.fold(self.consent, Timestamp::min)
    }

    /// When the selected pair last answered a check; the start before that.
    pub(crate) fn heard(&self) -> Timestamp {
        self.heard
    }

    /// Whether consent has expired.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        now.since(self.heard) > CONSENT_EXPIRES
    }

    /// The checks that are due.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Vec<(SocketAddr, Vec<u8>)> {
        self.stale = self.selected.is_some() && now.since(self.heard) > STALE;
        self.budget.refill(now);
        let mut due = Vec::new();
        let is_due = |pair: &CandidatePair| pair.next <= now && self.is_searched(pair);
        let mut searched: Vec<usize> = (0..self.pairs.len()).filter(|at| is_due(&self.pairs[*at])).collect();
        // First the addresses from which a signed request came: their hosts most likely answer.
        searched.sort_by_key(|at| (!self.pairs[*at].triggered, !self.pairs[*at].validated));
        for at in searched {
            if !self.budget.take() {
                break;
            }
            let pair = &mut self.pairs[at];
            pair.next = now + (SEARCH_FIRST * (1 << pair.tries)).min(SEARCH_LAST);
            pair.tries += 1;
            pair.triggered = false;
            due.push(pair.to);
        }
        if now >= self.consent {
            self.consent = now + CONSENT_AGAIN;
            due.extend(self.selected.filter(|selected| !due.contains(selected)));
        }
        due.into_iter().filter_map(|to| Some((to, self.check(to)?))).collect()
    }

    /// Handles a received STUN message; returns the response to send, if any.
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
        self.budget.earn();
        if message.class == Class::Error {
            if message.error == Some(ROLE_CONFLICT) {
                self.switch_role(now);
            }
            return None;
        }
        let first = self.role == Role::Controlling && self.pairs.iter().all(|pair| pair.nominated.is_none());
        let silent = self.is_silent(now);
        let mut heir = false;
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.to == from) {
            pair.validated = true;
            pair.answered = self.role == Role::Controlled || nominates;
            heir = std::mem::take(&mut pair.followed) && silent;
            if first {
                // A nomination is one more check, at once.
                (pair.nominated, pair.tries, pair.next) = (Some((now, PRIORITY)), 0, now);
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

    /// Answers a signed request and triggers a check to its source (RFC 8445 section 7.3.1.4).
    fn asked(&mut self, now: Timestamp, from: SocketAddr, request: &stun::Message<'_>) -> Option<Vec<u8>> {
        // Of two agents in the same role, one switches (RFC 8445 section 7.3.1.1).
        let conflict = match self.role {
            Role::Controlling => request.controlling.map(|theirs| self.tie_breaker >= theirs),
            Role::Controlled => request.controlled.map(|theirs| self.tie_breaker < theirs),
        };
        match conflict {
            Some(true) => return check::role_conflict(request.transaction, &self.local.password, &*self.crypto),
            Some(false) => self.switch_role(now),
            None => {}
        }
        self.budget.earn();
        let controlled = self.role == Role::Controlled;
        let lost = self.stale && self.selected != Some(from);
        let pair = self.pair(from, now)?;
        pair.validated = true;
        pair.answered &= !lost;
        if !pair.answered {
            // A pair whose checks were used up gets one more, because its host is alive.
            pair.tries = pair.tries.min(SEARCH_TRIES - 1);
            pair.next = pair.next.min(now);
            pair.triggered = true;
        }
        if controlled && request.nominates {
            pair.nominated = Some((now, request.priority));
        }
        self.select(now);
        check::success(request.transaction, from, &self.local.password, &*self.crypto)
    }

    /// Switches the role; nominations made in the former role are void.
    fn switch_role(&mut self, now: Timestamp) {
        self.role = match self.role {
            Role::Controlling => Role::Controlled,
            Role::Controlled => Role::Controlling,
        };
        for pair in &mut self.pairs {
            (pair.tries, pair.next, pair.answered, pair.nominated, pair.followed) = (0, now, false, None, false);
        }
        self.checks.clear();
    }

    /// The pair with this remote address. At the bound a new pair replaces the oldest that is not selected.
    fn pair(&mut self, to: SocketAddr, now: Timestamp) -> Option<&mut CandidatePair> {
        if let Some(at) = self.pairs.iter().position(|pair| pair.to == to) {
            return self.pairs.get_mut(at);
        }
        if self.pairs.len() == PAIRS_MAX {
            let at = self.pairs.iter().position(|pair| Some(pair.to) != self.selected)?;
            self.pairs.remove(at);
        }
        self.pairs.push(CandidatePair {
            to,
            tries: 0,
            next: now,
            triggered: false,
            validated: false,
            answered: false,
            nominated: None,
            followed: false,
        });
        self.pairs.last_mut()
    }

    /// Whether checks for a pair are still sent: until a pair is established, and then only if this one is to replace
    /// it.
    fn is_searched(&self, pair: &CandidatePair) -> bool {
        let wanted = !self.is_established() || pair.nominated.is_some() || pair.followed || self.stale;
        !pair.answered && pair.tries < SEARCH_TRIES && wanted
    }

    /// Selects the pair that was nominated last, and of pairs nominated together the one with the highest priority.
    fn select(&mut self, now: Timestamp) {
        // The controlling agent does not wait for the answer to its nomination.
        let usable = self.pairs.iter().filter(|pair| pair.answered || self.role == Role::Controlling);
        let Some(last) = usable.clone().filter_map(|pair| pair.nominated).map(|(at, _)| at).max() else { return };
        let at_once = usable.filter_map(|pair| Some((pair.nominated?, pair.to)));
        let best =
            at_once.filter(|((at, _), _)| last.since(*at) < AT_ONCE).max_by_key(|((at, priority), _)| (*priority, *at));
        if let Some((_, to)) = best.filter(|(_, to)| self.selected != Some(*to)) {
            self.take(to, now);
        }
    }

    /// Selects a pair.
    fn take(&mut self, to: SocketAddr, now: Timestamp) {
        self.selected = Some(to);
        (self.heard, self.arrived, self.consent, self.stale) = (now, now, now + CONSENT_EVERY, false);
    }

    /// Selects a pair that was not nominated, and voids the nomination of the former one.
    fn take_alone(&mut self, to: SocketAddr, now: Timestamp) {
        self.pairs.iter_mut().filter(|pair| pair.to != to).for_each(|pair| pair.nominated = None);
        self.take(to, now);
    }

    fn check(&mut self, to: SocketAddr) -> Option<Vec<u8>> {
        let nominates =
            self.role == Role::Controlling && self.pairs.iter().any(|pair| pair.to == to && pair.nominated.is_some());
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
