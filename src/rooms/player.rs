//! What a player is told beside the media: the server-sent events of WHEP (draft-ietf-wish-whep section 4.9.1).
//!
//! Owns: which events there are, which event streams a session has open, and when which event is due. Does not know: HTTP,
//! rooms; it is told a room's [`Audience`].

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::room::document::Audience;

/// Most event streams of one session: a player needs one, and another while it reconnects.
const STREAMS_MAX: usize = 4;

/// A kind of event that a player may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlayerEvent {
    /// Somebody sends.
    Active,
    /// Nobody sends any more.
    Inactive,
    /// The server will be gone soon: play from elsewhere.
    Reconnect,
    /// How many watch.
    ViewerCount,
}

impl PlayerEvent {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Reconnect, Self::ViewerCount];

    /// Its name in the draft.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Reconnect => "reconnect",
            Self::ViewerCount => "viewercount",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// An event with what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayerUpdate {
    /// Somebody sends.
    Active,
    /// Nobody sends any more.
    Inactive,
    /// Play from elsewhere.
    Reconnect,
    /// So many watch.
    ViewerCount(usize),
}

impl PlayerUpdate {
    /// Which kind of event it is.
    pub const fn kind(self) -> PlayerEvent {
        match self {
            Self::Active => PlayerEvent::Active,
            Self::Inactive => PlayerEvent::Inactive,
            Self::Reconnect => PlayerEvent::Reconnect,
            Self::ViewerCount(_) => PlayerEvent::ViewerCount,
        }
    }
}

/// One event stream that a player opened.
#[derive(Debug, Clone)]
pub struct PlayerEventStream {
    wanted: BTreeSet<PlayerEvent>,
    /// What it was told last; None before the first time.
    told: Option<Audience>,
    /// Cancelled when the player or its session ends it.
    pub ended: CancellationToken,
    /// The room it is about.
    pub audience: watch::Receiver<Audience>,
}

impl PlayerEventStream {
    /// What is to be told now; at first how things are, where that is worth an event.
    pub fn news(&mut self) -> Vec<PlayerUpdate> {
        let now = *self.audience.borrow_and_update();
        let before = self.told.replace(now);
        let publishing = match (before.is_some_and(|before| before.publishing), now.publishing) {
            (false, true) => Some(PlayerUpdate::Active),
            (true, false) => Some(PlayerUpdate::Inactive),
            _ => None,
        };
        let viewers = (before.map(|before| before.viewers) != Some(now.viewers))
            .then_some(PlayerUpdate::ViewerCount(now.viewers));
        [publishing, viewers].into_iter().flatten().filter(|news| self.wants(news.kind())).collect()
    }

    /// Whether the player asked for events of this kind.
    pub fn wants(&self, kind: PlayerEvent) -> bool {
        self.wanted.contains(&kind)
    }
}

/// The event streams that one session has open.
#[derive(Debug, Default)]
pub(super) struct PlayerEventStreams {
    /// Cancelled with the session.
    session: CancellationToken,
    open: Mutex<(u32, BTreeMap<u32, Opened>)>,
}

#[derive(Debug, Clone)]
struct Opened {
    wanted: BTreeSet<PlayerEvent>,
    ended: CancellationToken,
}

impl PlayerEventStreams {
    /// Opens one, and gives its number; None when too many are open.
    pub(super) fn open(&self, wanted: BTreeSet<PlayerEvent>) -> Option<u32> {
        let (next, open) = &mut *self.open.lock();
        if open.len() >= STREAMS_MAX {
            return None;
        }
        *next += 1;
        open.insert(*next, Opened { wanted, ended: self.session.child_token() });
        Some(*next)
    }

    /// The one of this number, about this room; None where there is none.
    pub(super) fn find(&self, number: u32, audience: watch::Receiver<Audience>) -> Option<PlayerEventStream> {
        let Opened { wanted, ended } = self.open.lock().1.get(&number)?.clone();
        Some(PlayerEventStream { wanted, told: None, ended, audience })
    }

    /// Ends the one of this number; false where there is none.
    pub(super) fn close(&self, number: u32) -> bool {
        let closed = self.open.lock().1.remove(&number);
        closed.inspect(|opened| opened.ended.cancel()).is_some()
    }

    /// The session is over.
    pub(super) fn end(&self) {
        self.session.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> BTreeSet<PlayerEvent> {
        PlayerEvent::ALL.into()
    }

    fn stream(wanted: BTreeSet<PlayerEvent>) -> (watch::Sender<Audience>, PlayerEventStream) {
        let (room, audience) = watch::channel(Audience::default());
        let streams = PlayerEventStreams::default();
        let number = streams.open(wanted).expect("it is the first");
        (room, streams.find(number, audience).expect("it is open"))
    }

    #[test]
    fn an_event_has_the_name_of_the_draft_and_back() {
        for event in PlayerEvent::ALL {
            assert_eq!(PlayerEvent::from_name(event.name()), Some(event));
        }
        assert_eq!(PlayerEvent::from_name("layers"), None);
    }

    #[test]
    fn what_changes_is_told_and_an_empty_room_is_not_called_inactive() {
        let (room, mut stream) = stream(everything());
        assert_eq!(stream.news(), [PlayerUpdate::ViewerCount(0)]);
        assert_eq!(stream.news(), []);
        room.send_replace(Audience { publishing: true, viewers: 1 });
        assert_eq!(stream.news(), [PlayerUpdate::Active, PlayerUpdate::ViewerCount(1)]);
        room.send_replace(Audience { publishing: true, viewers: 1 });
        assert_eq!(stream.news(), []);
        room.send_replace(Audience { publishing: false, viewers: 1 });
        assert_eq!(stream.news(), [PlayerUpdate::Inactive]);
    }

    #[test]
    fn only_what_was_asked_for_is_told() {
        let (room, mut stream) = stream([PlayerEvent::Inactive].into());
        room.send_replace(Audience { publishing: true, viewers: 3 });
        assert_eq!(stream.news(), []);
        room.send_replace(Audience { publishing: false, viewers: 9 });
        assert_eq!(stream.news(), [PlayerUpdate::Inactive]);
        assert!(!stream.wants(PlayerEvent::Reconnect));
    }

    #[test]
    fn streams_are_bounded_and_end_with_their_session() {
        let streams = PlayerEventStreams::default();
        let numbers: Vec<u32> = (0..STREAMS_MAX).filter_map(|_| streams.open(everything())).collect();
        assert_eq!((numbers.len(), streams.open(everything())), (STREAMS_MAX, None));
        let audience = || watch::Sender::<Audience>::default().subscribe();
        let (first, last) = (streams.find(numbers[0], audience()), streams.find(numbers[3], audience()));
        assert!(streams.close(numbers[0]) && !streams.close(numbers[0]));
        assert!(first.expect("it was open").ended.is_cancelled());
        assert!(streams.find(numbers[0], audience()).is_none());
        let last = last.expect("it is open");
        assert!(!last.ended.is_cancelled());
        streams.end();
        assert!(last.ended.is_cancelled());
        assert!(streams.open(everything()).is_some_and(|number| number > numbers[3]), "numbers are not used again");
    }
}
