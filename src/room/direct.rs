//! Direct calls: the only two participants of a room send media to each other without the mixer.
//!
//! Owns: when a direct call is possible, its state, the timeout of an attempt. Does not know: how clients connect;
//! their signalling is passed on unchanged. In: [`DirectMessage`]; out: [`DirectEvent`]. Media goes through the mixer
//! until both clients report that the other's media arrives, and again as soon as a third participant joins, an output
//! starts, one gets a filter or is muted by a moderator, or the path fails.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{Effect, Room};
use crate::id::ParticipantId;
use crate::media::SourceKind;
use crate::time::Timestamp;

/// Longest time to establish a direct path.
const TRY: Duration = Duration::from_secs(10);

type Pair = [ParticipantId; 2];

/// A client's message about a direct call.
#[derive(Debug, Clone, PartialEq)]
pub enum DirectMessage {
    /// The client supports direct calls.
    Able,
    /// Signalling for the other client.
    Signal(Value),
    /// The other client's media arrives.
    Connected,
    /// The direct path cannot be established or has failed.
    Failed,
}

/// An event of a direct call for one client.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DirectEvent {
    /// Connect to the other client; media still goes through the mixer.
    Begin {
        /// The other participant.
        peer: ParticipantId,
        /// Whether this client makes the offer.
        offers: bool,
    },
    /// Signalling from the other client.
    Signal {
        /// The other participant.
        from: ParticipantId,
        /// The signalling, unchanged.
        signal: Value,
    },
    /// Both clients are connected: stop sending to the mixer.
    On,
    /// The direct call has ended: send to the mixer again.
    End {
        /// The reason.
        reason: DirectEnd,
    },
}

/// Why a direct call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectEnd {
    /// A third participant has joined, one of the two has left, or an output runs.
    Company,
    /// The direct path cannot be established or has failed.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The clients are connecting; `arrived`: which of them receives media.
    Trying { pair: Pair, until: Timestamp, arrived: [bool; 2] },
    /// Both clients receive the other's media.
    Established { pair: Pair },
}

impl Path {
    const fn pair(self) -> Pair {
        match self {
            Self::Trying { pair, .. } | Self::Established { pair } => pair,
        }
    }
}

/// The state of direct calls in a room.
#[derive(Debug, Default)]
pub(super) struct Direct {
    able: BTreeSet<ParticipantId>,
    path: Option<Path>,
    /// The pair whose attempt has failed: it does not try again.
    failed: Option<Pair>,
}

impl Direct {
    /// When the attempt times out.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        match self.path? {
            Path::Trying { until, .. } => Some(until),
            Path::Established { .. } => None,
        }
    }

    /// Whether this participant's media goes directly to the other one.
    pub(super) fn has(&self, participant: ParticipantId) -> bool {
        matches!(self.path, Some(Path::Established { pair }) if pair.contains(&participant))
    }

    /// Whether there is a direct call or an attempt.
    pub(super) fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    /// Forgets a participant that has left.
    pub(super) fn forget(&mut self, participant: ParticipantId) {
        self.able.remove(&participant);
    }
}

impl Room {
    /// Takes a client's message about a direct call.
    pub(super) fn direct_message(&mut self, participant: ParticipantId, message: DirectMessage) {
        let path = self.direct.path.filter(|path| path.pair().contains(&participant));
        match (message, path) {
            (DirectMessage::Able, _) => {
                if self.people.contains_key(&participant) {
                    self.direct.able.insert(participant);
                }
            }
            (DirectMessage::Signal(signal), Some(path)) => {
                let event = DirectEvent::Signal { from: participant, signal };
                self.effects.push_back(Effect::Tell(other(path.pair(), participant), event));
            }
            (DirectMessage::Connected, Some(Path::Trying { pair, until, mut arrived })) => {
                arrived[usize::from(pair[1] == participant)] = true;
                self.direct.path = Some(Path::Trying { pair, until, arrived });
                if arrived == [true, true] {
                    self.direct.path = Some(Path::Established { pair });
                    self.effects.extend(pair.map(|one| Effect::Tell(one, DirectEvent::On)));
                }
            }
            (DirectMessage::Failed, Some(path)) => {
                self.direct.failed = Some(path.pair());
                self.end_direct(DirectEnd::Failed);
            }
            // Late messages about a call that has ended.
            (DirectMessage::Signal(_) | DirectMessage::Connected | DirectMessage::Failed, _) => {}
        }
        self.refresh();
    }

    /// Ends an attempt that has timed out.
    pub(super) fn direct_timeout(&mut self, now: Timestamp) {
        if let Some(Path::Trying { pair, until, .. }) = self.direct.path
            && now >= until
        {
            self.direct.failed = Some(pair);
            self.end_direct(DirectEnd::Failed);
            self.refresh();
        }
    }

    /// Starts or ends a direct call according to the room's state.
    pub(super) fn follow_direct(&mut self) {
        let pair = self.pair();
        if self.direct.path.is_some_and(|path| Some(path.pair()) != pair) {
            self.end_direct(DirectEnd::Company);
        }
        if self.direct.failed != pair {
            self.direct.failed = None;
        }
        if let Some([first, second]) = pair.filter(|_| self.direct.path.is_none() && self.direct.failed.is_none()) {
            let until = self.now + TRY;
            self.direct.path = Some(Path::Trying { pair: [first, second], until, arrived: [false; 2] });
            let begin = |peer, offers| DirectEvent::Begin { peer, offers };
            self.effects.push_back(Effect::Tell(first, begin(second, true)));
            self.effects.push_back(Effect::Tell(second, begin(first, false)));
        }
        for (participant, person) in &mut self.people {
            person.direct = self.direct.has(*participant);
        }
    }

    fn end_direct(&mut self, reason: DirectEnd) {
        let Some(path) = self.direct.path.take() else { return };
        let here = path.pair().into_iter().filter(|one| self.people.contains_key(one));
        self.effects.extend(here.map(|one| Effect::Tell(one, DirectEvent::End { reason })));
    }

    /// The pair for a direct call: there are no others, not even connecting, and no output runs.
    fn pair(&self) -> Option<Pair> {
        let mut people = self.people.iter();
        let (Some((first, one)), Some((second, two)), None) = (people.next(), people.next(), people.next()) else {
            return None;
        };
        let talks = |person: &super::Person| {
            let kinds = || person.sources.iter().map(|source| source.kind);
            person.connected
                // Filters run in the mixer, and the mixer enforces what moderators decide.
                && person.filters.is_empty()
                && !person.is_restricted()
                && kinds().count() > 0
                && kinds().all(|kind| kind != SourceKind::Screen)
                && (person.receives_audio.is_some() || person.receives_video.is_some())
        };
        let able = [*first, *second].iter().all(|one| self.direct.able.contains(one));
        let free = self.settings.direct_for_two && !self.outputs.are_running();
        (free && able && talks(one) && talks(two)).then_some([*first, *second])
    }
}

fn other(pair: Pair, one: ParticipantId) -> ParticipantId {
    if pair[0] == one { pair[1] } else { pair[0] }
}
