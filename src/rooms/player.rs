//! Server-sent events of WHEP players (draft-ietf-wish-whep section 4.9.1).
//!
//! Owns: the kinds of events, the event streams of each session, and when an event is due. Does not know: HTTP, rooms.
//! In: the changes of a room's [`Audience`]; out: [`PlayerUpdate`].

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::room::document::Audience;

/// Most event streams of one session: a player needs one, and a second while it reconnects.
const STREAMS_MAX: usize = 4;

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlayerEvent {
    /// The room has a publisher.
    Active,
    /// The room has no publisher any more.
    Inactive,
    /// The server is shutting down: connect to another one.
    Reconnect,
    /// The number of viewers has changed.
    ViewerCount,
}

impl PlayerEvent {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Reconnect, Self::ViewerCount];

    /// The name in the draft.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Reconnect => "reconnect",
            Self::ViewerCount => "viewercount",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// An event with its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayerUpdate {
    /// The room has a publisher.
    Active,
    /// The room has no publisher any more.
    Inactive,
    /// Connect to another server.
    Reconnect,
    /// The number of viewers.
    ViewerCount(usize),
}

impl PlayerUpdate {
    /// The kind of the event.
    pub const fn kind(self) -> PlayerEvent {
        match self {
            Self::Active => PlayerEvent::Active,
            Self::Inactive => PlayerEvent::Inactive,
            Self::Reconnect => PlayerEvent::Reconnect,
            Self::ViewerCount(_) => PlayerEvent::ViewerCount,
        }
    }
}

/// An event stream of a player.
#[derive(Debug, Clone)]
pub struct PlayerEventStream {
    wanted: BTreeSet<PlayerEvent>,
    /// The audience at the last update; None before the first.
    reported: Option<Audience>,
    /// Cancelled when the player closes the stream or its session ends.
    pub ended: CancellationToken,
    /// The audience of the room.
    pub audience: watch::Receiver<Audience>,
}

impl PlayerEventStream {
    /// The updates that are due. The first call reports the present state, except for inactivity.
    pub fn updates(&mut self) -> Vec<PlayerUpdate> {
        let now = *self.audience.borrow_and_update();
        let before = self.reported.replace(now);
        let publishing = match (before.is_some_and(|before| before.publishing), now.publishing) {
            (false, true) => Some(PlayerUpdate::Active),
            (true, false) => Some(PlayerUpdate::Inactive),
            _ => None,
        };
        let viewers = (before.map(|before| before.viewers) != Some(now.viewers))
            .then_some(PlayerUpdate::ViewerCount(now.viewers));
        [publishing, viewers].into_iter().flatten().filter(|update| self.wants(update.kind())).collect()
    }

    /// Whether the player has subscribed to events of this kind.
    pub fn wants(&self, kind: PlayerEvent) -> bool {
        self.wanted.contains(&kind)
    }
}

/// The open event streams of one session.
#[derive(Debug, Default)]
pub(super) struct PlayerEventStreams {
    /// Cancelled when the session ends.
    session: CancellationToken,
    open: Mutex<(u32, BTreeMap<u32, Opened>)>,
}

#[derive(Debug, Clone)]
struct Opened {
    wanted: BTreeSet<PlayerEvent>,
    ended: CancellationToken,
}

impl PlayerEventStreams {
    /// Opens a stream and returns its number; None when [`STREAMS_MAX`] are open.
    pub(super) fn open(&self, wanted: BTreeSet<PlayerEvent>) -> Option<u32> {
        let (next, open) = &mut *self.open.lock();
        if open.len() >= STREAMS_MAX {
            return None;
        }
        *next += 1;
        open.insert(*next, Opened { wanted, ended: self.session.child_token() });
        Some(*next)
    }

    /// The stream with this number, for a room with this audience.
    pub(super) fn find(&self, number: u32, audience: watch::Receiver<Audience>) -> Option<PlayerEventStream> {
        let Opened { wanted, ended } = self.open.lock().1.get(&number)?.clone();
        Some(PlayerEventStream { wanted, reported: None, ended, audience })
    }

    /// Closes the stream with this number; false if it does not exist.
    pub(super) fn close(&self, number: u32) -> bool {
        let closed = self.open.lock().1.remove(&number);
        closed.inspect(|opened| opened.ended.cancel()).is_some()
    }

    /// The session has ended: closes all streams.
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
    fn each_event_kind_is_found_by_its_name() {
        for event in PlayerEvent::ALL {
            assert_eq!(PlayerEvent::from_name(event.name()), Some(event));
        }
        assert_eq!(PlayerEvent::from_name("layers"), None);
    }

    #[test]
    fn changes_are_reported_and_the_first_update_does_not_report_inactivity() {
        let (room, mut stream) = stream(everything());
        assert_eq!(stream.updates(), [PlayerUpdate::ViewerCount(0)]);
        assert_eq!(stream.updates(), []);
        room.send_replace(Audience { publishing: true, viewers: 1 });
        assert_eq!(stream.updates(), [PlayerUpdate::Active, PlayerUpdate::ViewerCount(1)]);
        room.send_replace(Audience { publishing: true, viewers: 1 });
        assert_eq!(stream.updates(), []);
        room.send_replace(Audience { publishing: false, viewers: 1 });
        assert_eq!(stream.updates(), [PlayerUpdate::Inactive]);
    }

    #[test]
    fn only_subscribed_events_are_reported() {
        let (room, mut stream) = stream([PlayerEvent::Inactive].into());
        room.send_replace(Audience { publishing: true, viewers: 3 });
        assert_eq!(stream.updates(), []);
        room.send_replace(Audience { publishing: false, viewers: 9 });
        assert_eq!(stream.updates(), [PlayerUpdate::Inactive]);
        assert!(!stream.wants(PlayerEvent::Reconnect));
    }

    #[test]
    fn the_number_of_streams_is_bounded_and_they_end_with_their_session() {
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
