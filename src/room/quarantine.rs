//! Sources that break decoders or the mixer.
//!
//! Owns: which sources are isolated, and what counts against a source. Does not know: decoders, processes. In: failures
//! of decoders, and the sources that were being decoded when the mixer died. Out: sources that are isolated: they are
//! neither shown nor mixed until they end, and the event `quarantined` says so.
//!
//! One death says little: several sources are decoded at a time. A source that is being decoded at two of them is the
//! one, or very unlucky; without it, the room could not go on.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::document::Event;
use super::{Effect, Room};
use crate::id::SourceId;
use crate::time::Timestamp;

/// Deaths of the mixer within [`DEATHS_WITHIN`] while a source is decoded, after which it is isolated.
const DEATHS_MAX: usize = 2;
/// See [`DEATHS_MAX`].
const DEATHS_WITHIN: Duration = Duration::from_secs(600);
/// Failures of its decoder within [`FAILURES_WITHIN`] after which a source is isolated. A sender whose packets are lost
/// causes none, because only whole frames are decoded.
const FAILURES_MAX: usize = 10;
/// See [`FAILURES_MAX`].
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

/// Why a source is isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineReason {
    /// The mixer died while it was decoded.
    MixerDied,
    /// Its frames broke decoders.
    DecoderFailed,
}

/// What has happened to a source, and whether it is isolated.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    deaths: VecDeque<Timestamp>,
    failures: VecDeque<Timestamp>,
    isolated: Option<QuarantineReason>,
}

impl Quarantine {
    /// The mixer died while it decoded this source. Whether this isolates the source.
    fn mixer_died(&mut self, now: Timestamp) -> bool {
        let over = count(&mut self.deaths, DEATHS_WITHIN, now) >= DEATHS_MAX;
        self.isolate(over, QuarantineReason::MixerDied)
    }

    /// A decoder of this source has failed. Whether this isolates the source.
    fn decoder_failed(&mut self, now: Timestamp) -> bool {
        let over = count(&mut self.failures, FAILURES_WITHIN, now) >= FAILURES_MAX;
        self.isolate(over, QuarantineReason::DecoderFailed)
    }

    fn isolate(&mut self, over: bool, reason: QuarantineReason) -> bool {
        let isolates = over && self.isolated.is_none();
        if isolates {
            self.isolated = Some(reason);
        }
        isolates
    }

    /// Why the source is isolated; None if it is not.
    pub(super) const fn reason(&self) -> Option<QuarantineReason> {
        self.isolated
    }
}

/// Adds `now`; returns how many of these times are within `within`.
fn count(times: &mut VecDeque<Timestamp>, within: Duration, now: Timestamp) -> usize {
    times.push_back(now);
    while times.front().is_some_and(|first| now.since(*first) >= within) {
        times.pop_front();
    }
    // No more are needed than reach a limit.
    while times.len() > DEATHS_MAX.max(FAILURES_MAX) {
        times.pop_front();
    }
    times.len()
}

impl Room {
    /// The mixer died while it decoded these sources.
    pub(super) fn died_decoding(&mut self, sources: impl IntoIterator<Item = SourceId>) {
        for source in sources {
            self.blame(source, Quarantine::mixer_died);
        }
    }

    /// A decoder of this source has failed.
    pub(super) fn decoder_failed(&mut self, source: SourceId) {
        self.blame(source, Quarantine::decoder_failed);
    }

    fn blame(&mut self, source: SourceId, isolates: impl Fn(&mut Quarantine, Timestamp) -> bool) {
        let now = self.now;
        let Some((participant, found)) = self.source(source) else { return };
        if !isolates(&mut found.quarantine, now) {
            return;
        }
        let (source, Some(reason)) = (found.kind, found.quarantine.reason()) else { return };
        self.effects.push_back(Effect::Quarantined(participant, source, reason));
        self.emit(|_| Event::Quarantined { participant, source, reason });
        self.announce(participant);
        self.refresh();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    #[test]
    fn a_source_is_isolated_when_the_mixer_dies_twice_while_it_is_decoded() {
        let mut quarantine = Quarantine::default();
        assert!(!quarantine.mixer_died(at(0)));
        assert_eq!(quarantine.reason(), None);
        assert!(quarantine.mixer_died(at(1_000)));
        assert_eq!(quarantine.reason(), Some(QuarantineReason::MixerDied));
        assert!(!quarantine.mixer_died(at(2_000)), "it is isolated once");
    }

    #[test]
    fn deaths_that_are_far_apart_isolate_nothing() {
        let mut quarantine = Quarantine::default();
        assert!((0..10).all(|hour| !quarantine.mixer_died(at(hour * 3_600_000))));
    }

    #[test]
    fn a_source_whose_decoders_fail_ten_times_in_a_minute_is_isolated() {
        let mut quarantine = Quarantine::default();
        let isolates: Vec<bool> = (0..12).map(|n| quarantine.decoder_failed(at(n * 3_000))).collect();
        assert_eq!(isolates.iter().position(|isolates| *isolates), Some(9));
        assert_eq!(quarantine.reason(), Some(QuarantineReason::DecoderFailed));
        let mut quarantine = Quarantine::default();
        assert!((0..100).all(|n| !quarantine.decoder_failed(at(n * 7_000))), "fewer than ten in a minute");
    }

    proptest! {
        /// A source is isolated once, and only if enough counts against it in time.
        #[test]
        fn a_source_is_isolated_exactly_when_a_limit_is_reached(
            happenings in prop::collection::vec((any::<bool>(), 0..400_000_u64), 1..100),
        ) {
            let (mut quarantine, mut now) = (Quarantine::default(), 0);
            let mut times: [Vec<u64>; 2] = Default::default();
            let mut isolated = false;
            for (died, later) in happenings {
                now += later;
                times[usize::from(died)].push(now);
                let within = |died: bool, ms: u64| {
                    times[usize::from(died)].iter().filter(|time| now - **time < ms).count()
                };
                let over = if died { within(true, 600_000) >= 2 } else { within(false, 60_000) >= 10 };
                let isolates =
                    if died { quarantine.mixer_died(at(now)) } else { quarantine.decoder_failed(at(now)) };
                prop_assert_eq!(isolates, over && !isolated);
                isolated |= isolates;
                prop_assert_eq!(quarantine.reason().is_some(), isolated);
                prop_assert!(quarantine.deaths.len() <= FAILURES_MAX && quarantine.failures.len() <= FAILURES_MAX);
            }
        }
    }
}
