//! The rate of the events that requests about one participant cause.
//!
//! Owns: the times of the latest events, and when a further one is due. Does not know: what has changed. In: changes
//! and the time. Out: whether an event is sent now. Changes beyond the rate are one event, with the last state: a
//! client that switches something in every request would otherwise fill the queues of all readers.

use std::collections::VecDeque;
use std::time::Duration;

use super::Room;
use crate::id::ParticipantId;
use crate::time::Timestamp;

/// Most events within [`WINDOW`].
const EVENTS_MAX: usize = 10;
/// See [`EVENTS_MAX`].
const WINDOW: Duration = Duration::from_secs(1);

/// The events of one participant.
#[derive(Debug, Default)]
pub(super) struct Updates {
    times: VecDeque<Timestamp>,
    /// A change waits for its event until then.
    due: Option<Timestamp>,
}

impl Updates {
    /// Whether an event is sent now. Otherwise one is [due](Self::due) later.
    fn send(&mut self, now: Timestamp) -> bool {
        while self.times.front().is_some_and(|first| now.since(*first) >= WINDOW) {
            self.times.pop_front();
        }
        self.due = self.times.front().filter(|_| self.times.len() >= EVENTS_MAX).map(|first| *first + WINDOW);
        if self.due.is_none() {
            self.times.push_back(now);
        }
        self.due.is_none()
    }
}

impl Room {
    /// A request has changed a participant.
    pub(super) fn announce_change(&mut self, participant: ParticipantId) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        if person.updates.send(self.now) {
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
        let due = self.people.iter().filter(|(_, person)| is_due(person.updates.due)).map(|(id, _)| *id);
        for participant in due.collect::<Vec<_>>() {
            self.announce_change(participant);
        }
        self.find_due_update();
    }

    /// Sets when a timeout is due for an event.
    fn find_due_update(&mut self) {
        self.updates_due = self.people.values().filter_map(|person| person.updates.due).min();
    }
}
