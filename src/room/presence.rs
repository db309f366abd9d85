//! Whether a room is empty, and what follows.
//!
//! Owns: the time since which the room is empty. Does not know: why participants leave. In: the participants of the
//! room, and the time; out: the end of the room, of its recordings or of its mixer.
//!
//! A person is a participant, publisher or viewer, also an encoder that pushes by WHIP or RTMP. Bots (joined with
//! `bot=true`) and inputs that the server fetches are members, but not persons. Outputs are neither.
//!
//! - A room that a join or an input has created is empty without a person. It ends after [`RoomSettings::linger`], with
//!   its bots, inputs and outputs.
//! - A permanent room is empty without a member. After the same time its recordings are finished. Its broadcasts go on;
//!   without them the mixer stops. The room itself stays.
//!
//! [`RoomSettings::linger`]: super::RoomSettings::linger

use super::Room;
use super::mixer::Mixer;
use crate::time::Timestamp;

impl Room {
    /// Notes whether the room is empty now.
    pub(super) fn refresh_presence(&mut self) {
        let is_empty = if self.settings.permanent {
            self.people.is_empty()
        } else {
            self.people.values().all(|person| person.bot)
        };
        self.empty_since = is_empty.then(|| self.empty_since.unwrap_or(self.now));
    }

    /// A recording of an empty permanent room lasts as long as if the room had become empty now.
    pub(super) fn restart_linger(&mut self) {
        if self.settings.permanent && self.empty_since.is_some() {
            self.empty_since = Some(self.now);
        }
    }

    /// When [`Room::presence_lapses`] does something.
    pub(super) fn presence_timeout(&self) -> Option<Timestamp> {
        let due = self.empty_since? + self.settings.linger;
        let runs = self.mixer != Mixer::Off && !self.outputs.are_running();
        (!self.settings.permanent || self.outputs.is_recording() || runs).then_some(due)
    }

    /// Ends what an empty room does not keep.
    pub(super) fn presence_lapses(&mut self, now: Timestamp) {
        if self.presence_timeout().is_none_or(|due| now < due) {
            return;
        }
        if !self.settings.permanent {
            return self.end("empty");
        }
        self.finish_recordings();
        if !self.outputs.are_running() {
            self.stop_mixer();
        }
    }
}
