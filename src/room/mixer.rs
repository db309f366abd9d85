//! The life of the room's mixer: started when somebody comes, again when it dies, stopped when the room ends.
//!
//! Owns: whether it runs, and since when. Does not know: the process, what it mixes ([`super::orders`]). In: needs, losses and
//! time; out: [`Effect::StartMixer`] and [`Effect::StopMixer`].

use std::time::Duration;

use super::document::{Event, MixerEvent};
use super::{Effect, Room};
use crate::time::Timestamp;

/// A mixer that lived shorter than this is started again only after as long: one that dies at birth must not spin.
const MIXER_SETTLED: Duration = Duration::from_millis(500);

/// The mixer, as far as the room knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixer {
    /// Nobody needs it.
    Off,
    /// Runs.
    On { since: Timestamp },
    /// Died too young; started again at this time.
    Resting { until: Timestamp },
}

impl Mixer {
    /// When it is to be started again.
    pub(super) fn timeout(self) -> Option<Timestamp> {
        if let Self::Resting { until } = self { Some(until) } else { None }
    }
}

impl Room {
    pub(super) fn need_mixer(&mut self, now: Timestamp) {
        if self.mixer == Mixer::Off {
            self.start_mixer(now);
        }
    }

    fn start_mixer(&mut self, now: Timestamp) {
        self.mixer = Mixer::On { since: now };
        self.effects.push_back(Effect::StartMixer);
        self.replay();
    }

    pub(super) fn mixer_lost(&mut self, now: Timestamp) {
        let Mixer::On { since } = self.mixer else { return };
        if now.since(since) < MIXER_SETTLED {
            self.mixer = Mixer::Resting { until: now + MIXER_SETTLED };
            return;
        }
        self.start_mixer(now);
        self.emit(|_| Event::Mixer { state: MixerEvent::Restarted });
    }

    pub(super) fn stop_mixer(&mut self) {
        if self.mixer != Mixer::Off {
            self.mixer = Mixer::Off;
            self.effects.push_back(Effect::StopMixer);
        }
    }

    pub(super) fn mixer_timeout(&mut self, now: Timestamp) {
        if self.mixer.timeout().is_some_and(|until| now >= until) {
            self.start_mixer(now);
            self.emit(|_| Event::Mixer { state: MixerEvent::Restarted });
        }
    }
}
