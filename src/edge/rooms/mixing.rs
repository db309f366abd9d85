//! What all mixers did, for the metrics.
//!
//! Owns: the counters of [`MixerCounters`]. Does not know: rooms, processes. In: each mixer's reports, which count from its own
//! start; out: counts that go on over all mixers.

use crate::link::MixerReport;
use crate::metrics::{Counter, Registry};

/// A count of a report: its metric's name, its help, where it stands.
type Count = (&'static str, &'static str, fn(&MixerReport) -> u64);

const COUNTS: [Count; 11] = [
    ("mixer_video_ticks", "Pictures that were due and composed where anybody watches", |report| report.video_ticks),
    ("mixer_video_late", "Of them, begun more than half a frame late", |report| report.video_late),
    ("mixer_video_left_out", "Pictures that were due and left out because the mixer was late", |report| {
        report.video_left_out
    }),
    ("mixer_frames_encoded", "Video frames encoded, all streams", |report| report.encoded),
    ("mixer_frames_busy", "Video frames left out because their encoder was busy", |report| report.encoder_skipped),
    ("mixer_frames_unchanged", "Video frames left out because nothing had changed", |report| report.unchanged),
    ("mixer_source_frames_dropped", "Video frames dropped before decoding: gaps, garbage, too large", |report| {
        report.source_frames_dropped
    }),
    ("mixer_sound_encoded", "Audio packets encoded, all mixes", |report| report.audio_encoded),
    ("mixer_sound_concealed", "Audio packets made up because none came in time", |report| report.concealed),
    ("mixer_link_dropped", "Messages dropped because the link to the edge was full", |report| report.link_dropped),
    ("mixer_cpu_milliseconds", "CPU time of mixers", |report| report.cpu_ms),
];

/// Counts of all mixers together.
#[derive(Debug, Default, Clone)]
pub struct MixerCounters([Counter; COUNTS.len()]);

impl MixerCounters {
    /// A mixer that had said `before` now says `report`; one that has said nothing had done nothing.
    pub(super) fn add(&self, before: &MixerReport, report: &MixerReport) {
        for (counter, (_, _, of)) in self.0.iter().zip(COUNTS) {
            counter.inc_by(of(report).saturating_sub(of(before)));
        }
    }

    /// Puts them into a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        for (counter, (name, help, _)) in self.0.iter().zip(COUNTS) {
            registry.register(name, help, counter.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_over_mixers_that_begin_anew() {
        let counters = MixerCounters::default();
        let said = |encoded, concealed| MixerReport { encoded, concealed, ..MixerReport::default() };
        counters.add(&MixerReport::default(), &said(30, 1));
        counters.add(&said(30, 1), &said(60, 1));
        counters.add(&MixerReport::default(), &said(10, 2));
        let text = {
            let metrics = crate::metrics::Metrics::default();
            metrics.register(|registry| counters.register(registry));
            metrics.text()
        };
        for line in ["commingle_mixer_frames_encoded_total 70", "commingle_mixer_sound_concealed_total 3"] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
