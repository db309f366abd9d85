//! Our ICE agent in front of the one that `webrtc` has.
//!
//! Owns: the [`Agent`] that deals with the network, and what `webrtc`'s own is told in its place: that the other side is at
//! one address ([`INSIDE`]), has always been there and has chosen it. Does not know: sockets. What came goes in by
//! [`Front::heard`], what `webrtc` sends by [`Front::says`], time by [`Front::tick`]; what is to leave stands in the
//! caller's list, what `webrtc` is to get in [`Front::inward`].
//!
//! Why: `webrtc` 0.21.1 stays with the way that was nominated first, so that whoever changes address is lost until ICE is
//! restarted; it takes any datagram for consent, drops media while ICE restarts, and is another ICE than that of viewers.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtc::crypto::RTCCryptoProvider;

use crate::time::Timestamp;
use crate::transport::flight::Flight;
use crate::transport::ice::check::{self, Check};
use crate::transport::ice::{Agent, CONSENT_EXPIRES, Credentials, Role, STALE};
use crate::transport::secure;
use crate::transport::stun::{Class, Message, Transaction, is_stun};

/// Where the other side is for `webrtc`, whatever its real addresses are.
pub(super) const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// The same, as a candidate in SDP without `a=`.
pub(crate) const INSIDE_CANDIDATE: &str = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host";
/// Datagrams kept until `webrtc` can take them: the beginning of a handshake, media around an ICE restart.
const HELD_MAX: usize = 64;
/// From one look at whether the other side is there to the next.
const LOOK: Duration = Duration::from_secs(1);
/// What we tell `webrtc` of the one way there is (RFC 8445 section 5.1.2).
const PRIORITY: u32 = (126 << 24) + (65_535 << 8) + 255;

/// Datagrams to be sent, and where to.
pub(super) type Out = Vec<(SocketAddr, Vec<u8>)>;

/// How the other side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    /// It has not been heard of for some seconds: it may come back, the sooner if it restarts ICE.
    Silent,
    /// Nothing has come for so long that it will not, and nothing may be sent any more.
    Gone,
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// Nothing more is to be done with it.
    Taken,
    /// `webrtc` is to have it, now.
    Inward(&'a [u8]),
    /// There was no room for it.
    Dropped,
}

pub(super) struct Front {
    crypto: Arc<dyn RTCCryptoProvider>,
    /// None until the other side's and our credentials are known.
    agent: Option<Agent>,
    /// As `webrtc` knows them.
    local: Credentials,
    remote: Credentials,
    /// `webrtc` waits for what the other side chooses, rather than choosing itself.
    inside_is_controlled: bool,
    /// What we have told `webrtc` to choose, until it says that it has.
    nominating: Option<Transaction>,
    nominated: bool,
    inward: VecDeque<Vec<u8>>,
    held: VecDeque<Vec<u8>>,
    flight: Flight,
    heard: Timestamp,
    look: Timestamp,
    tie_breaker: u64,
}

impl Front {
    pub(super) fn new(crypto: Arc<dyn RTCCryptoProvider>, now: Timestamp) -> Self {
        let nobody = Credentials { ufrag: String::new(), password: String::new() };
        Self {
            crypto,
            agent: None,
            local: nobody.clone(),
            remote: nobody,
            inside_is_controlled: true,
            nominating: None,
            nominated: false,
            inward: VecDeque::new(),
            held: VecDeque::new(),
            flight: Flight::default(),
            heard: now,
            look: now,
            tie_breaker: rand::random(),
        }
    }

    /// Who the other side is, for `webrtc`, which may ask for it from now on.
    pub(super) fn set_remote(&mut self, remote: Credentials) {
        self.remote = remote;
    }

    /// Begins, or begins anew where the credentials are others (RFC 8445 section 9); else only `candidates` are added.
    /// Media goes on where it goes until another way is found.
    pub(super) fn begin(
        &mut self,
        role: Role,
        local: Credentials,
        remote: Credentials,
        candidates: Vec<SocketAddr>,
        now: Timestamp,
    ) {
        let known = (&self.local, &self.remote) == (&local, &remote) && self.agent.is_some();
        self.inside_is_controlled = role == Role::Controlled;
        (self.local, self.remote) = (local.clone(), remote.clone());
        match &mut self.agent {
            Some(agent) => {
                if !known {
                    agent.restart(local, remote, now);
                }
                candidates.into_iter().for_each(|to| agent.add_candidate(to, now));
            }
            None => {
                self.heard = now;
                self.agent = Some(Agent::new(Arc::clone(&self.crypto), role, local, remote, candidates, now));
            }
        }
        if !known {
            self.nominated = false;
            self.nominate();
        }
    }

    /// Another address of the other side.
    pub(super) fn add_candidate(&mut self, to: SocketAddr, now: Timestamp) {
        if let Some(agent) = &mut self.agent {
            agent.add_candidate(to, now);
        }
    }

    /// The next datagram for `webrtc`.
    pub(super) fn inward(&mut self) -> Option<Vec<u8>> {
        self.inward.pop_front()
    }

    /// Takes a datagram that the port has let through.
    pub(super) fn heard<'a>(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        datagram: &'a [u8],
        out: &mut Out,
    ) -> Heard<'a> {
        self.heard = now;
        if is_stun(datagram) {
            self.checked(now, from, datagram, out);
            return Heard::Taken;
        }
        if let Some(agent) = &mut self.agent {
            agent.arrived(now, from);
        }
        if secure::is_dtls(datagram) && self.flight.heard(datagram) {
            // Whoever repeats itself has not heard our answer, and the crate may have stopped to repeat it; see `Flight`.
            self.repeat(now, out);
        }
        if self.nominated {
            return Heard::Inward(datagram);
        }
        if self.held.len() == HELD_MAX {
            return Heard::Dropped;
        }
        self.held.push_back(datagram.to_vec());
        Heard::Taken
    }

    fn checked(&mut self, now: Timestamp, from: SocketAddr, datagram: &[u8], out: &mut Out) {
        let Some(agent) = &mut self.agent else { return };
        let before = agent.selected();
        out.extend(agent.handle(now, from, datagram).map(|answer| (from, answer)));
        // A check that comes is often answered by one of ours.
        out.extend(agent.poll(now));
        if before.is_none() && agent.selected().is_some() {
            // What `webrtc` has said already went nowhere.
            self.repeat(now, out);
            self.nominate();
        }
    }

    /// Sends the last flight of the handshake again.
    fn repeat(&mut self, now: Timestamp, out: &mut Out) {
        let Some(to) = self.agent.as_ref().and_then(Agent::selected) else { return };
        out.extend(self.flight.again(now, true).iter().map(|again| (to, again.to_vec())));
    }

    /// Takes a datagram of `webrtc`'s; gives the address it is for, if it is for the other side.
    pub(super) fn says(&mut self, now: Timestamp, datagram: &[u8]) -> Option<SocketAddr> {
        if is_stun(datagram) {
            self.answer(datagram);
            return None;
        }
        if secure::is_dtls(datagram) {
            self.flight.sent(datagram);
        }
        let agent = self.agent.as_ref().filter(|agent| !agent.has_expired(now))?;
        agent.selected()
    }

    /// When [`Front::tick`] is needed next.
    pub(super) fn deadline(&self) -> Timestamp {
        self.agent.as_ref().map_or(self.look, |agent| agent.deadline().min(self.look))
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Timestamp, out: &mut Out) {
        self.look = now + LOOK;
        let Some(agent) = &mut self.agent else { return };
        out.extend(agent.poll(now));
    }

    /// How the other side is, once it has been there.
    pub(super) fn presence(&self, now: Timestamp) -> Presence {
        let Some(agent) = self.agent.as_ref().filter(|agent| agent.selected().is_some()) else { return Presence::Here };
        let silent = now.since(self.heard);
        // Some that only send answer no checks once they do: they are sent nothing (RFC 7675), and heard.
        if agent.has_expired(now) && silent > CONSENT_EXPIRES {
            Presence::Gone
        } else if silent > STALE {
            Presence::Silent
        } else {
            Presence::Here
        }
    }

    /// What `webrtc`'s agent says to the other side, and gets to hear.
    fn answer(&mut self, datagram: &[u8]) {
        let Some(message) = Message::parse(datagram) else { return };
        match message.class {
            Class::Request => {
                let answer = check::success(message.transaction, INSIDE, &self.remote.password, &*self.crypto);
                // Whoever asks also takes: more than a few answers wait only for a driver that is gone.
                self.inward.extend(answer.filter(|_| self.inward.len() < HELD_MAX));
                if message.nominates {
                    self.chosen();
                } else if !self.nominated {
                    self.nominate();
                }
            }
            Class::Success if self.nominating == Some(message.transaction) => self.chosen(),
            _ => {}
        }
    }

    /// Tells `webrtc` that the one way is chosen, once there is one in truth.
    fn nominate(&mut self) {
        let has_way = self.agent.as_ref().is_some_and(|agent| agent.selected().is_some());
        if !has_way || !self.inside_is_controlled {
            return;
        }
        let check = Check {
            role: Role::Controlling,
            tie_breaker: self.tie_breaker,
            priority: PRIORITY,
            nominates: true,
            from: &self.remote,
            to: &self.local,
        };
        if let Some((transaction, request)) = check::request(&check, &*self.crypto) {
            self.nominating = Some(transaction);
            self.inward.push_back(request);
        }
    }

    /// `webrtc` has a way, and can take what waits for it.
    fn chosen(&mut self) {
        self.nominating = None;
        if !self.nominated {
            self.nominated = true;
            self.inward.append(&mut self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "198.51.100.7:9";
    const ELSEWHERE: &str = "198.51.100.8:10";
    const SERVER: &str = "192.0.2.1:8189";
    const HELLO: &[u8] = &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 9, 0, 0, 0, 0, 0];
    const SRTP: &[u8] = &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9];

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    fn credentials(name: &str) -> Credentials {
        Credentials { ufrag: name.to_owned(), password: format!("{name}-password-of-24-letters") }
    }

    fn crypto() -> Arc<dyn RTCCryptoProvider> {
        rtc::crypto::default_provider().expect("ring is built in")
    }

    /// A front, a client far away and, inside, an agent like the one of `webrtc`.
    struct Call {
        front: Front,
        client: Agent,
        inside: Agent,
        now: Timestamp,
    }

    impl Call {
        fn new() -> Self {
            let now = Timestamp::default();
            let (ours, theirs) = (credentials("ours"), credentials("theirs"));
            let agent = |role, local: &Credentials, remote: &Credentials, to| {
                Agent::new(crypto(), role, local.clone(), remote.clone(), vec![to], now)
            };
            let client = agent(Role::Controlling, &theirs, &ours, at(SERVER));
            let inside = agent(Role::Controlled, &ours, &theirs, INSIDE);
            let mut front = Front::new(crypto(), now);
            front.set_remote(theirs.clone());
            front.begin(Role::Controlled, ours, theirs, Vec::new(), now);
            Self { front, client, inside, now }
        }

        /// Everything that is to be said now is said; the client is at one address. Gives what `webrtc` gets of media.
        fn talk(&mut self, from: &str) -> Vec<Vec<u8>> {
            let (mut media, from) = (Vec::new(), at(from));
            for _ in 0..6 {
                let mut out = Vec::new();
                for (_, check) in self.client.poll(self.now) {
                    self.front.heard(self.now, from, &check, &mut out);
                }
                self.front.tick(self.now, &mut out);
                for (to, datagram) in out {
                    let answer = (to == from).then(|| self.client.handle(self.now, at(SERVER), &datagram)).flatten();
                    if let Some(answer) = answer {
                        self.front.heard(self.now, from, &answer, &mut Vec::new());
                    }
                }
                for (_, check) in self.inside.poll(self.now) {
                    self.front.says(self.now, &check);
                }
                while let Some(datagram) = self.front.inward() {
                    if is_stun(&datagram) {
                        let answer = self.inside.handle(self.now, INSIDE, &datagram);
                        answer.map(|answer| self.front.says(self.now, &answer));
                    } else {
                        media.push(datagram);
                    }
                }
            }
            media
        }

        fn later(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
        }
    }

    #[test]
    fn what_comes_before_webrtc_can_take_it_waits() {
        let mut call = Call::new();
        assert_eq!(call.front.heard(call.now, at(CLIENT), HELLO, &mut Vec::new()), Heard::Taken);
        assert_eq!(call.inside.selected(), None);
        assert_eq!(call.talk(CLIENT), [HELLO]);
        assert_eq!(call.inside.selected(), Some(INSIDE));
        assert_eq!(call.front.heard(call.now, at(CLIENT), SRTP, &mut Vec::new()), Heard::Inward(SRTP));
        assert_eq!(call.front.says(call.now, SRTP), Some(at(CLIENT)));
    }

    #[test]
    fn nothing_leaves_before_the_other_side_has_answered() {
        let mut call = Call::new();
        assert_eq!(call.front.says(call.now, HELLO), None);
        let mut out = Vec::new();
        let (_, check) = call.client.poll(call.now).remove(0);
        call.front.heard(call.now, at("203.0.113.66:53"), &check, &mut out);
        assert_eq!(call.front.says(call.now, SRTP), None);
        assert!(out.iter().all(|(_, datagram)| is_stun(datagram)), "somebody's check may have a forged address");
    }

    #[test]
    fn whoever_changes_address_is_followed_and_webrtc_does_not_notice() {
        let mut call = Call::new();
        call.talk(CLIENT);
        call.later(5);
        call.talk(ELSEWHERE);
        assert_eq!(call.front.says(call.now, SRTP), Some(at(ELSEWHERE)));
        assert_eq!(call.inside.selected(), Some(INSIDE));
        assert_eq!(call.front.presence(call.now), Presence::Here);
    }

    #[test]
    fn without_consent_nothing_is_sent_after_less_than_thirty_seconds() {
        let mut call = Call::new();
        call.talk(CLIENT);
        call.later(10);
        // Media that goes on coming is no consent to be sent to.
        assert_eq!(call.front.presence(call.now), Presence::Silent);
        call.front.heard(call.now, at(CLIENT), SRTP, &mut Vec::new());
        assert_eq!(call.front.presence(call.now), Presence::Here);
        assert_eq!(call.front.says(call.now, SRTP), Some(at(CLIENT)));
        call.later(22);
        call.front.heard(call.now, at(CLIENT), SRTP, &mut Vec::new());
        assert_eq!(call.front.says(call.now, SRTP), None);
        assert_eq!(call.front.presence(call.now), Presence::Here, "it may go on sending");
        call.later(26);
        assert_eq!(call.front.presence(call.now), Presence::Gone);
    }

    #[test]
    fn media_goes_on_while_ice_begins_anew() {
        let mut call = Call::new();
        call.talk(CLIENT);
        let (ours, theirs) = (credentials("ours2"), credentials("theirs2"));
        call.front.set_remote(theirs.clone());
        call.front.begin(Role::Controlled, ours.clone(), theirs.clone(), Vec::new(), call.now);
        call.inside.restart(ours.clone(), theirs.clone(), call.now);
        call.inside.add_candidate(INSIDE, call.now);
        assert_eq!(call.front.says(call.now, SRTP), Some(at(CLIENT)));
        assert_eq!(call.front.heard(call.now, at(CLIENT), SRTP, &mut Vec::new()), Heard::Taken);
        call.client = Agent::new(crypto(), Role::Controlling, theirs, ours, vec![at(SERVER)], call.now);
        assert_eq!(call.talk(ELSEWHERE), [SRTP], "it waited for webrtc");
        assert!(call.inside.is_established());
        assert_eq!(call.front.says(call.now, SRTP), Some(at(ELSEWHERE)));
    }
}
