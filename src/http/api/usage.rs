//! What one caller may use at a time and per second, over all its connections. Pure: time is an argument.
//!
//! Owns: what counts as one caller ([`Actor`]); the rate of changes, of refused tokens and of a room's chat; the open
//! event streams of each. Does not know: requests, rooms. In: an actor and the time; out: permission, or the time to wait.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Limits;
use crate::id::{ParticipantId, RoomName};
use crate::net::rate_limit::{Buckets, RateLimiter, source_network};
use crate::time::Timestamp;

/// Refused tokens of one address that are logged and answered with 401, per second. Further ones get 429.
const REFUSED_TOKENS_PER_SECOND: u32 = 5;
/// The same as a burst: a page that reloads with an old token sends a few requests.
const REFUSED_TOKENS_BURST: u32 = 200;

/// Chat messages of a room per second, of all its senders: each goes to every reader of the room's events.
const CHATS_PER_SECOND: u32 = 20;
/// The same as a burst; fewer than the events that a reader may lag behind.
const CHATS_BURST: u32 = 100;
/// Chat messages of one caller per second, over all its connections. People write less, and nobody takes the share of
/// all others.
const OWN_CHATS_PER_SECOND: u32 = 2;
/// The same as a burst.
const OWN_CHATS_BURST: u32 = 20;

/// Identifies a token without its text. Its holder cannot change it: it is derived from what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenId(u64);

impl TokenId {
    /// Of a token whose signature was verified.
    pub(super) fn of(token: &str) -> Self {
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hasher = DefaultHasher::new();
        signed.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// As a number, for the table of sessions and for who is kept out. It is the same after a restart; a release of
    /// Rust with another hash would end what was decided before.
    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

/// What counts as one caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Actor {
    /// A participant, by any number of connections.
    Participant(RoomName, ParticipantId),
    /// All users of a token without a session.
    Token(TokenId),
    /// All of one network, without token and session.
    Network(IpAddr),
}

impl Actor {
    /// All of one network.
    pub(super) fn network(address: IpAddr) -> Self {
        Self::Network(source_network(address))
    }

    /// A number for this caller under a name.
    pub(super) fn number(&self, name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self, name).hash(&mut hasher);
        hasher.finish()
    }
}

/// Whose limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// That of the caller.
    Caller,
    /// That of all callers in the room.
    Room,
}

/// The rates of all callers.
#[derive(Debug)]
pub(super) struct Rates {
    changes: Buckets<Actor>,
    chats: Buckets<RoomName>,
    own_chats: Buckets<Actor>,
    refused_tokens: RateLimiter,
}

impl Rates {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            changes: Buckets::new(limits.changes_per_second, limits.changes_burst),
            chats: Buckets::new(CHATS_PER_SECOND, CHATS_BURST),
            own_chats: Buckets::new(OWN_CHATS_PER_SECOND, OWN_CHATS_BURST),
            refused_tokens: RateLimiter::new(REFUSED_TOKENS_PER_SECOND, REFUSED_TOKENS_BURST),
        }
    }

    /// Counts one change of a room or participant.
    ///
    /// # Errors
    /// The time to wait.
    pub(super) fn change(&mut self, actor: Actor, now: Timestamp) -> Result<(), Duration> {
        self.changes.take(actor, now)
    }

    /// Counts one chat message of a room, and of a caller unless None. A message that is refused to the caller does not
    /// count for the room.
    ///
    /// # Errors
    /// Whose limit is reached, and the time to wait.
    pub(super) fn chat(
        &mut self,
        actor: Option<Actor>,
        room: RoomName,
        now: Timestamp,
    ) -> Result<(), (Whose, Duration)> {
        if let Some(actor) = actor {
            self.own_chats.take(actor, now).map_err(|wait| (Whose::Caller, wait))?;
        }
        self.chats.take(room, now).map_err(|wait| (Whose::Room, wait))
    }

    /// Counts one request with a token that is not valid.
    ///
    /// # Errors
    /// The time to wait.
    pub(super) fn refused_token(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        self.refused_tokens.take(address, now)
    }
}

/// The open event streams of each caller.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<Actor, usize>>);

impl Streams {
    /// A place for another stream of this caller; None if it has `most` streams.
    pub(super) fn take(self: &Arc<Self>, actor: Actor, most: usize) -> Option<StreamPlace> {
        let mut open = self.0.lock();
        let count = open.get(&actor).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        open.insert(actor.clone(), count + 1);
        Some(StreamPlace { streams: self.clone(), actor })
    }
}

/// The place of one stream, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct StreamPlace {
    streams: Arc<Streams>,
    actor: Actor,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.actor) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.actor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ann(id: u32) -> Actor {
        Actor::Participant("r".parse().expect("a name"), ParticipantId(id))
    }

    #[test]
    fn a_token_is_identified_by_what_is_signed() {
        assert_eq!(TokenId::of("head.claims.signature"), TokenId::of("head.claims.other"));
        assert_ne!(TokenId::of("head.claims.signature"), TokenId::of("head.others.signature"));
    }

    #[test]
    fn changes_are_limited_per_participant_token_and_network() {
        let limits = Limits { changes_per_second: 2, changes_burst: 3, ..Limits::default() };
        let mut rates = Rates::new(&limits);
        let now = Timestamp::from_micros(1_000_000);
        let network = |last| Actor::network(Ipv4Addr::new(192, 0, 2, last).into());
        for actor in [ann(1), ann(2), Actor::Token(TokenId(7)), network(1), network(2)] {
            let taken = (0..10).filter(|_| rates.change(actor.clone(), now).is_ok()).count();
            assert_eq!(taken, 3, "{actor:?}");
        }
        assert!(rates.change(ann(1), now + Duration::from_millis(500)).is_ok(), "the rate goes on");
    }

    #[test]
    fn the_chat_of_one_caller_leaves_room_for_others() {
        let mut rates = Rates::new(&Limits::default());
        let now = Timestamp::from_micros(1_000_000);
        let mut chat = |actor| rates.chat(actor, "r".parse().expect("a name"), now).map_err(|(whose, _)| whose);
        let results: Vec<_> = (0..1_000).map(|_| chat(Some(ann(1)))).collect();
        assert_eq!(results.iter().filter(|sent| sent.is_ok()).count(), 20);
        assert_eq!(results.last(), Some(&Err(Whose::Caller)));
        assert_eq!(chat(Some(ann(2))), Ok(()));
        let others = (0..1_000).filter(|_| chat(None).is_ok()).count();
        assert_eq!((others, chat(Some(ann(3)))), (79, Err(Whose::Room)));
    }

    #[test]
    fn the_streams_of_a_caller_are_counted_while_they_are_open() {
        let streams = Arc::new(Streams::default());
        let mut open: Vec<_> = (0..5).filter_map(|_| streams.take(ann(1), 2)).collect();
        assert_eq!(open.len(), 2);
        assert!(streams.take(ann(2), 2).is_some());
        open.pop();
        open.extend(streams.take(ann(1), 2));
        assert_eq!(open.len(), 2);
        drop(open);
        assert!(streams.0.lock().is_empty());
    }
}
