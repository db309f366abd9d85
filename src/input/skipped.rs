//! Counts of media that an input has skipped because it cannot be used.
//!
//! Owns: [`Skipped`], shared by the tasks of one source. Does not know: protocols. In: reasons. Out: counts for
//! reports.

use std::collections::BTreeMap;
use std::fmt::Display;

use parking_lot::Mutex;

use super::index;
use crate::media::Kind;
use crate::room::document::SkipReason;

/// Units without one usable one after which a source has failed: some seconds of a wrong codec.
const ONLY_UNSUPPORTED: u64 = 200;

/// The skipped units of a source.
#[derive(Debug, Default)]
pub(super) struct Skipped(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<SkipReason, u64>,
    /// A unit was usable.
    usable: bool,
    /// Why the last units of video and audio are not supported.
    unsupported: [Option<String>; 2],
}

impl Skipped {
    /// Counts a unit of a track that is skipped.
    pub(super) fn add(&self, kind: Kind, reason: SkipReason, what: impl Display) {
        let mut state = self.0.lock();
        let count = state.counts.entry(reason).or_default();
        *count += 1;
        if count.is_power_of_two() {
            tracing::info!(reason = reason.name(), count, %what, "input skipped media");
        }
        if reason == SkipReason::Unsupported {
            state.unsupported[index(kind)] = Some(what.to_string());
        }
    }

    /// A unit of a track was usable.
    pub(super) fn usable(&self, kind: Kind) {
        let mut state = self.0.lock();
        state.usable = true;
        state.unsupported[index(kind)] = None;
    }

    /// Why no media can be expected, if only unsupported media has arrived.
    pub(super) fn hopeless(&self) -> Option<String> {
        let state = self.0.lock();
        let many = state.counts.get(&SkipReason::Unsupported).is_some_and(|count| *count >= ONLY_UNSUPPORTED);
        state.unsupported.iter().flatten().next().cloned().filter(|_| many && !state.usable)
    }

    /// Why a track has no media, if its codec is not supported.
    pub(super) fn unsupported(&self) -> Option<String> {
        self.0.lock().unsupported.iter().flatten().next().cloned()
    }

    /// The counts so far.
    pub(super) fn counts(&self) -> BTreeMap<SkipReason, u64> {
        self.0.lock().counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_source_without_any_usable_media_is_hopeless() {
        let skipped = Skipped::default();
        (1..ONLY_UNSUPPORTED).for_each(|_| skipped.add(Kind::Video, SkipReason::Unsupported, "HEVC"));
        skipped.add(Kind::Audio, SkipReason::Empty, "no contents");
        assert_eq!(skipped.hopeless(), None);
        skipped.add(Kind::Video, SkipReason::Unsupported, "VP6");
        assert_eq!(skipped.hopeless().as_deref(), Some("VP6"));
        skipped.usable(Kind::Audio);
        assert_eq!((skipped.hopeless(), skipped.unsupported().as_deref()), (None, Some("VP6")));
        skipped.usable(Kind::Video);
        assert_eq!(skipped.unsupported(), None, "one unit of another codec is no change");
        let counts = [(SkipReason::Empty, 1), (SkipReason::Unsupported, ONLY_UNSUPPORTED)];
        assert_eq!(skipped.counts(), BTreeMap::from(counts));
    }
}
