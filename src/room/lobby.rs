//! The lobby: participants who wait until a moderator lets them in.
//!
//! Owns: who waits. Does not know: connections. In: admissions, connections and decisions; out: private events, and
//! [`Effect::Hold`], which lets the packets of a participant through or not. A waiting participant is not `connected`
//! in the sense of the room, so that nothing else of the room counts, shows, mixes or lists it.

use std::collections::BTreeSet;

use super::chat::{Reader, Readers};
use super::document::{Event, ParticipantDocument, Presence, Role, RoomDocument};
use super::{Effect, Person, Room};
use crate::id::ParticipantId;

/// Most participants that wait at a time.
pub const WAITING_MAX: usize = 200;

/// What of a room is decided at its door.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Door {
    /// New participants wait.
    pub lobby: bool,
    /// The participants that wait, also those that have not connected yet.
    pub waiting: BTreeSet<ParticipantId>,
}

impl Room {
    /// What is decided at the door of the room.
    pub fn door(&self) -> Door {
        let waiting = self.people.iter().filter(|(_, person)| person.waits);
        Door { lobby: self.lobby, waiting: waiting.map(|(id, _)| *id).collect() }
    }

    /// Whether a joiner of this role has to wait.
    pub(super) fn has_to_wait(&self, role: Role) -> bool {
        self.lobby && role < Role::Moderator
    }

    /// The participants that wait and are connected.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (ParticipantId, &Person)> {
        let waiting = self.people.iter().filter(|(_, person)| person.waits && person.at_door);
        waiting.map(|(id, person)| (*id, person))
    }

    /// The documents of the participants that wait, for moderators.
    fn waiting_documents(&self) -> Vec<ParticipantDocument> {
        self.waiting().map(|(id, person)| person.document(id)).collect()
    }

    /// The room's document for a reader: moderators also see who waits.
    pub fn document_for(&self, reader: Reader) -> RoomDocument {
        let waiting = if reader.is_moderator { self.waiting_documents() } else { Vec::new() };
        RoomDocument { waiting, ..self.document() }
    }

    /// What a participant in the lobby, connected or not, sees of the room: itself. None for others.
    pub fn lobby_document(&self, id: ParticipantId) -> Option<ParticipantDocument> {
        self.people.get(&id).filter(|person| person.waits).map(|person| person.document(id))
    }

    /// The document of a participant for itself, also while it waits; None before it is connected.
    pub fn own_document(&self, id: ParticipantId) -> Option<ParticipantDocument> {
        let person = self.people.get(&id)?;
        (person.connected || person.waits && person.at_door).then(|| person.document(id))
    }

    /// A waiting participant has connected.
    pub(super) fn arrives_in_lobby(&mut self, participant: ParticipantId) {
        let mut readers = self.moderators();
        let Some(person) = self.people.get_mut(&participant) else { return };
        if std::mem::replace(&mut person.at_door, true) {
            return;
        }
        self.connecting.remove(&participant);
        readers.participants.insert(participant);
        if let Some(document) = self.own_document(participant) {
            self.effects.push_back(Effect::Private(readers, Event::Lobby { participant: document }));
        }
    }

    /// Lets a participant in. One that has not connected yet does not wait any more.
    pub(super) fn let_in(&mut self, participant: ParticipantId) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        if !std::mem::take(&mut person.waits) {
            return;
        }
        self.effects.push_back(Effect::Hold(participant, false));
        if std::mem::take(&mut person.at_door) {
            self.connected(participant);
        }
    }

    /// A participant leaves that waits: only moderators and itself learn it.
    pub(super) fn leaves_lobby(&mut self, participant: ParticipantId, event: Event) {
        let mut readers: Readers = self.moderators();
        readers.participants.insert(participant);
        self.effects.push_back(Effect::Private(readers, event));
    }
}

impl Person {
    /// Where it is.
    pub(super) const fn presence(&self) -> Presence {
        match (self.connected, self.waits) {
            (true, _) => Presence::In,
            (false, true) => Presence::Lobby,
            (false, false) => Presence::Joining,
        }
    }
}
