//! What the subscribers of one room report to its task: changed selections and requested keyframes.
//!
//! Owns: [`Demand`], which coalesces reports: one entry for each participant and each stream, so that its size is
//! bounded by the room. Does not know: what a subscriber selects, what the room does about it. Subscribers add entries
//! from any thread; the room's task waits with [`Demand::changed`] and takes all entries at once with [`Demand::take`].

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::id::ParticipantId;

/// The entries that a room's task has not taken yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demanded {
    /// Participants whose subscriber selects another stream, or whose previous stream has stopped flowing.
    pub selections: BTreeSet<ParticipantId>,
    /// Serials of streams of which a subscriber needs a keyframe.
    pub keyframes: BTreeSet<u32>,
}

/// Reports of a room's subscribers.
#[derive(Debug, Default)]
pub struct Demand {
    entries: Mutex<Demanded>,
    changed: Notify,
}

impl Demand {
    /// Adds a participant whose selection has changed.
    pub(super) fn select(&self, participant: ParticipantId) {
        self.entries.lock().selections.insert(participant);
        self.changed.notify_one();
    }

    /// Adds a stream of which a subscriber needs a keyframe.
    pub(super) fn keyframe(&self, serial: u32) {
        self.entries.lock().keyframes.insert(serial);
        self.changed.notify_one();
    }

    /// Takes all entries.
    pub fn take(&self) -> Demanded {
        std::mem::take(&mut *self.entries.lock())
    }

    /// Waits until an entry is added. For one task; cancelling it loses no entries.
    pub async fn changed(&self) {
        while *self.entries.lock() == Demanded::default() {
            self.changed.notified().await;
        }
    }
}
