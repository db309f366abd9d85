//! The life of the room's mixer: started when the room needs it, started again when it is lost, stopped when the room
//! ends.
//!
//! Owns: whether it runs, since when, how long it rests before it is started again, and what it says about the quality
//! of its audio. Does not know: the process, what it mixes ([`super::orders`]). In: needs, losses, reports and time.
//! Out: [`Effect::StartMixer`] and [`Effect::StopMixer`], and events.

use std::time::Duration;

use super::document::{Event, MixerEvent};
use super::{Effect, Room};
use crate::media::AudioEffort;
use crate::time::Timestamp;

/// The shortest rest of a mixer that is lost again and again.
const REST_MIN: Duration = Duration::from_millis(500);
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(30);
/// A mixer that ran for so long is started again at once when it is lost. Longer than the time after which a process
/// that never sends a message is killed, so that such a process is not started in a loop either.
const SETTLED: Duration = Duration::from_secs(30);

/// How long a mixer rests before it is started again. The first loss costs no rest, unless the mixer ran for less than
/// [`REST_MIN`]; then the rest doubles with each loss, up to [`REST_MAX`]. A mixer that ran for [`SETTLED`] counts as
/// the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backoff {
    /// The rest after the last loss; zero after none, and after the first.
    rest: Duration,
    has_lost: bool,
}

impl Backoff {
    /// A mixer that ran for so long is lost: the rest before the next one.
    fn lost(&mut self, ran: Duration) -> Duration {
        if ran >= SETTLED {
            *self = Self::default();
        }
        if self.has_lost || ran < REST_MIN {
            self.rest = (self.rest * 2).clamp(REST_MIN, REST_MAX);
        }
        self.has_lost = true;
        self.rest
    }
}

/// The mixer, as far as the room knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixer {
    /// Nobody needs it.
    Off,
    /// Runs.
    On { since: Timestamp },
    /// It was lost; started again at this time.
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
        let rest = self.mixer_backoff.lost(now.since(since));
        self.mixer = Mixer::Resting { until: now + rest };
        self.set_audio_effort(AudioEffort::FULL);
        self.mixer_timeout(now);
    }

    pub(super) fn stop_mixer(&mut self) {
        if self.mixer != Mixer::Off {
            self.mixer = Mixer::Off;
            self.set_audio_effort(AudioEffort::FULL);
            self.effects.push_back(Effect::StopMixer);
        }
    }

    /// The reduced audio effort of the mixer; None at full effort.
    pub(super) fn audio_reduced(&self) -> Option<AudioEffort> {
        Some(self.audio_effort).filter(|effort| *effort != AudioEffort::FULL)
    }

    pub(super) fn set_audio_effort(&mut self, effort: AudioEffort) {
        if std::mem::replace(&mut self.audio_effort, effort) == effort {
            return;
        }
        let audio_reduced = self.audio_reduced();
        let state = if audio_reduced.is_some() { MixerEvent::AudioReduced } else { MixerEvent::AudioFull };
        self.emit(|_| Event::Mixer { state, audio_reduced });
    }

    pub(super) fn mixer_timeout(&mut self, now: Timestamp) {
        if self.mixer.timeout().is_some_and(|until| now >= until) {
            self.start_mixer(now);
            self.emit(|_| Event::Mixer { state: MixerEvent::Restarted, audio_reduced: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_rest_doubles_with_each_loss_up_to_30_seconds() {
        let mut backoff = Backoff::default();
        let rests: Vec<u64> = (0..10).map(|_| backoff.lost(ms(1_200)).as_millis() as u64).collect();
        assert_eq!(rests, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.lost(SETTLED), Duration::ZERO, "it ran well meanwhile");
        assert_eq!(backoff.lost(ms(10_000)), REST_MIN);
    }

    #[test]
    fn a_mixer_that_ends_at_its_start_rests_at_once() {
        assert_eq!(Backoff::default().lost(ms(499)), REST_MIN);
        assert_eq!(Backoff::default().lost(ms(500)), Duration::ZERO);
    }

    proptest! {
        /// In any ten minutes at most 30 mixers are started that run for less than half a minute each.
        #[test]
        fn starts_are_bounded(ran in prop::collection::vec(0..29_999_u64, 100)) {
            let (mut backoff, mut time, mut starts, mut last) = (Backoff::default(), Duration::ZERO, 0, Duration::ZERO);
            for ran in ran {
                let rest = backoff.lost(ms(ran));
                prop_assert!(rest >= last && rest <= REST_MAX);
                last = rest;
                time += ms(ran) + rest;
                starts += u32::from(time <= ms(600_000));
            }
            prop_assert!(starts <= 30, "{} starts", starts);
        }
    }
}
