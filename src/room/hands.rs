//! Raised hands and reactions.
//!
//! Owns: [`Signals`] of each participant: the hand with its turn in the queue, and the reaction that is shown; how long
//! a reaction is shown. Does not know: the rate of events ([`super::updates`]), how tiles are drawn. In: changes, and
//! the time; out: events, and what tiles show. A reaction is not kept: neither documents nor recordings' sidecars have
//! it.

use std::time::Duration;

use super::Room;
use super::document::Event;
use super::emoji::Emoji;
use crate::id::ParticipantId;
use crate::time::{Timestamp, WallTime};

/// How long a tile shows a reaction.
pub(super) const REACTION_SHOWN: Duration = Duration::from_secs(3);

/// A raised hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hand {
    raised_at: WallTime,
    /// Dates may be equal, or jump.
    turn: u64,
}

/// What a participant shows without speaking.
#[derive(Debug, Default)]
pub(super) struct Signals {
    hand: Option<Hand>,
    /// The turn of the hand that the last event has told.
    told: Option<u64>,
    /// The reaction on the tile, and until when.
    reaction: Option<(Emoji, Timestamp)>,
}

impl Signals {
    /// Since when the hand is raised.
    pub(super) fn hand_raised_at(&self) -> Option<WallTime> {
        self.hand.map(|hand| hand.raised_at)
    }

    /// The emoji on the tile.
    pub(super) fn reaction(&self) -> Option<&Emoji> {
        self.reaction.as_ref().map(|(emoji, _)| emoji)
    }
}

impl Room {
    /// The participants with raised hands, in the order in which these were raised.
    pub(super) fn hands(&self) -> Vec<ParticipantId> {
        let hand = |(id, person): (&ParticipantId, &super::Person)| Some((person.signals.hand?.turn, *id));
        let mut hands: Vec<_> = self.people.iter().filter_map(hand).collect();
        hands.sort_unstable();
        hands.into_iter().map(|(_, id)| id).collect()
    }

    /// Raises or lowers a hand. A hand that is raised keeps its turn.
    pub(super) fn set_hand(&mut self, participant: ParticipantId, raised: bool) {
        let Some(person) = self.people.get_mut(&participant).filter(|person| person.connected) else { return };
        if person.signals.hand.is_some() == raised {
            return;
        }
        self.turns += u64::from(raised);
        person.signals.hand = raised.then_some(Hand { raised_at: self.wall, turn: self.turns });
        person.updates.hand_changed();
        self.send_updates(participant);
    }

    /// Emits the event of a hand, unless the last one has told the same.
    pub(super) fn announce_hand(&mut self, participant: ParticipantId) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        let turn = person.signals.hand.map(|hand| hand.turn);
        if std::mem::replace(&mut person.signals.told, turn) != turn {
            let raised_at = person.signals.hand_raised_at();
            self.emit(|_| Event::Hand { participant, raised_at });
        }
    }

    /// Takes a participant's reaction.
    pub(super) fn react(&mut self, participant: ParticipantId, emoji: Emoji) {
        let Some(person) = self.people.get_mut(&participant).filter(|person| person.connected) else { return };
        person.updates.reacts(emoji);
        self.send_updates(participant);
    }

    /// Shows a reaction, and emits its event.
    pub(super) fn announce_reaction(&mut self, participant: ParticipantId, emoji: Emoji) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        person.signals.reaction = Some((emoji.clone(), self.now + REACTION_SHOWN));
        self.refresh();
        self.emit(|_| Event::Reaction { participant, emoji });
    }

    /// When a reaction is not shown any more.
    pub(super) fn reaction_timeout(&self) -> Option<Timestamp> {
        self.people.values().filter_map(|person| person.signals.reaction.as_ref()).map(|(_, until)| *until).min()
    }

    /// Removes the reactions that were shown for long enough.
    pub(super) fn reactions_lapse(&mut self, now: Timestamp) {
        if self.reaction_timeout().is_none_or(|until| now < until) {
            return;
        }
        for person in self.people.values_mut() {
            person.signals.reaction.take_if(|(_, until)| now >= *until);
        }
        self.refresh();
    }
}
