//! The rate of the events that requests about participants and the room cause.
//!
//! Owns: the times of the latest events, what waits for its event, and when that is due. Does not know: the state that
//! events tell. In: changes and the time. Out: what is told now. Changes beyond the rate are one event, with the last
//! state: a client that switches something in every request would otherwise fill the queues of all readers. Of
//! reactions the last one is told.

use std::collections::VecDeque;
use std::time::Duration;

use super::Room;
use super::document::Event;
use super::emoji::Emoji;
use crate::id::ParticipantId;
use crate::time::Timestamp;

/// Most events of one participant within [`WINDOW`].
const EVENTS_MAX: usize = 10;
/// Most events of all participants of a room within [`WINDOW`].
const ROOM_EVENTS_MAX: usize = 100;
/// Most reactions of one participant within [`WINDOW`]: each is drawn.
const REACTIONS_MAX: usize = 3;
/// Most events of the room itself within [`WINDOW`]: each has the whole document.
const ROOM_CHANGES_MAX: usize = 4;
/// See [`EVENTS_MAX`].
const WINDOW: Duration = Duration::from_secs(1);

/// The times of the latest events: those within [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Latest(VecDeque<Timestamp>);

impl Latest {
    /// When a further event may be sent, if `most` were sent within [`WINDOW`]; None for now.
    fn next(&mut self, most: usize, now: Timestamp) -> Option<Timestamp> {
        while self.0.front().is_some_and(|first| now.since(*first) >= WINDOW) {
            self.0.pop_front();
        }
        self.0.front().filter(|_| self.0.len() >= most).map(|first| *first + WINDOW)
    }
}

/// The events of the room itself.
#[derive(Debug, Default)]
pub(super) struct RoomUpdates {
    latest: Latest,
    due: Option<Timestamp>,
}

/// The events of one participant.
#[derive(Debug, Default)]
pub(super) struct Updates {
    latest: Latest,
    reactions: Latest,
    /// What waits for its event.
    waiting: Waiting,
    /// Until when it waits.
    due: Option<Timestamp>,
}

/// What has changed and was not told yet.
#[derive(Debug, Default)]
struct Waiting {
    document: bool,
    hand: bool,
    reaction: Option<Emoji>,
}

impl Updates {
    /// The hand was raised or lowered.
    pub(super) const fn hand_changed(&mut self) {
        self.waiting.hand = true;
    }

    /// The participant reacts. An earlier reaction that still waits is not told.
    pub(super) fn reacts(&mut self, emoji: Emoji) {
        self.waiting.reaction = Some(emoji);
    }

    /// What is told now; the rest is [due](Self::due) later. `room` has the events of all participants.
    fn poll(&mut self, room: &mut Latest, now: Timestamp) -> Waiting {
        let Waiting { document, hand, reaction } = &mut self.waiting;
        let may_react = reaction.as_ref().and_then(|_| self.reactions.next(REACTIONS_MAX, now));
        let reacts = reaction.is_some() && may_react.is_none();
        self.due = may_react;
        if !(*document || *hand || reacts) {
            return Waiting::default();
        }
        let next = self.latest.next(EVENTS_MAX, now).max(room.next(ROOM_EVENTS_MAX, now));
        if next.is_some() {
            self.due = next;
            return Waiting::default();
        }
        self.latest.0.push_back(now);
        room.0.push_back(now);
        if reacts {
            self.reactions.0.push_back(now);
        }
        Waiting {
            document: std::mem::take(document),
            hand: std::mem::take(hand),
            reaction: reaction.take_if(|_| reacts),
        }
    }
}

impl Room {
    /// A request has changed a participant.
    pub(super) fn announce_change(&mut self, participant: ParticipantId) {
        if let Some(person) = self.people.get_mut(&participant) {
            person.updates.waiting.document = true;
            self.send_updates(participant);
        }
    }

    /// Tells what has changed about a participant, as far as the rate allows.
    pub(super) fn send_updates(&mut self, participant: ParticipantId) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        let Waiting { document, hand, reaction } = person.updates.poll(&mut self.latest_updates, self.now);
        if document {
            self.announce(participant);
        }
        if hand {
            self.announce_hand(participant);
        }
        if let Some(emoji) = reaction {
            self.announce_reaction(participant, emoji);
        }
        self.find_due_update();
    }

    /// A request has changed the room.
    pub(super) fn announce_room(&mut self) {
        self.room_updates.due = self.room_updates.latest.next(ROOM_CHANGES_MAX, self.now);
        if self.room_updates.due.is_none() {
            self.room_updates.latest.0.push_back(self.now);
            self.emit(|room| Event::Room(Box::new(room.document())));
        }
        self.find_due_update();
    }

    /// Sends the events that are due.
    pub(super) fn update_timeout(&mut self, now: Timestamp) {
        if self.updates_due.is_none_or(|due| now < due) {
            return;
        }
        let is_due = |due: Option<Timestamp>| due.is_some_and(|due| now >= due);
        let due = self.people.iter().filter(|(_, person)| is_due(person.updates.due));
        let mut due: Vec<_> = due.map(|(id, person)| (person.updates.latest.0.back().copied(), *id)).collect();
        // Participants that change often leave room for the others.
        due.sort_unstable();
        for (_, participant) in due {
            self.send_updates(participant);
        }
        if is_due(self.room_updates.due) {
            self.announce_room();
        }
        self.find_due_update();
    }

    /// Sets when a timeout is due for an event.
    fn find_due_update(&mut self) {
        let of_people = self.people.values().filter_map(|person| person.updates.due);
        self.updates_due = of_people.chain(self.room_updates.due).min();
    }
}
