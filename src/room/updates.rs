//! The rate of the events that requests about participants cause, of one participant and of all of a room.
//!
//! Owns: the times of the latest events, and when a further one is due. Does not know: what has changed. In: changes
//! and the time. Out: whether an event is sent now. Changes beyond the rate are one event, with the last state: a
//! client that switches something in every request would otherwise fill the queues of all readers.

use std::collections::VecDeque;
use std::time::Duration;

use super::Room;
use crate::id::ParticipantId;
use crate::time::Timestamp;

/// Most events of one participant within [`WINDOW`].
const EVENTS_MAX: usize = 10;
/// Most events of all participants of a room within [`WINDOW`].
const ROOM_EVENTS_MAX: usize = 100;
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

/// The events of one participant.
#[derive(Debug, Default)]
pub(super) struct Updates {
    latest: Latest,
    /// A change waits for its event until then.
    due: Option<Timestamp>,
}

impl Updates {
    /// Whether an event is sent now. Otherwise one is [due](Self::due) later. `room` has the events of all
    /// participants.
    fn send(&mut self, room: &mut Latest, now: Timestamp) -> bool {
        self.due = self.latest.next(EVENTS_MAX, now).max(room.next(ROOM_EVENTS_MAX, now));
        if self.due.is_none() {
            self.latest.0.push_back(now);
            room.0.push_back(now);
        }
        self.due.is_none()
    }
}

impl Room {
    /// A request has changed a participant.
    pub(super) fn announce_change(&mut self, participant: ParticipantId) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        if person.updates.send(&mut self.latest_updates, self.now) {
            self.announce(participant);
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
            self.announce_change(participant);
        }
        self.find_due_update();
    }

    /// Sets when a timeout is due for an event.
    fn find_due_update(&mut self) {
        self.updates_due = self.people.values().filter_map(|person| person.updates.due).min();
    }
}
