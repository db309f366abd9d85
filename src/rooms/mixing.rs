//! What is heard of mixers.
//!
//! Owns: [`MixerEar`], where each message of a mixer goes, on the thread that reads its link; [`MixerCounters`], what all mixers
//! did, for the metrics. Does not know: what a room does with it. In: a mixer's messages, and its reports, which count from its
//! own start; out: media to the fan-out, the rest to the room, counts that go on over all mixers.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::command::Command;
use super::routes::FanOut;
use crate::link::{FromMixer, MixerReport};
use crate::metrics::{Counter, Registry};
use crate::process::Listener;
use crate::time::{self, Timestamp};

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

/// Hears the mixer on the link's reader: media goes out at once, the rest to the room.
pub(super) struct MixerEar {
    generation: u64,
    room: mpsc::Sender<Command>,
    fan_out: FanOut,
    meter: Meter,
}

impl Listener for MixerEar {
    type Message = FromMixer;

    fn message(&mut self, message: FromMixer) {
        match message {
            FromMixer::Video { serial, packet } => {
                let now = time::now();
                self.fan_out.video(serial, &packet, now);
                self.meter.add(serial, packet.payload.len());
                if let Some(bitrates) = self.meter.read(now) {
                    self.tell(Command::Bitrates(bitrates));
                }
            }
            FromMixer::Audio(tick) => self.fan_out.audio(&tick),
            other => self.tell(Command::Mixer(self.generation, other)),
        }
    }

    fn lost(&mut self, why: &str) {
        let (room, lost) = (self.room.clone(), Command::MixerLost(self.generation, why.to_owned()));
        tokio::spawn(async move {
            // Fails only when the room itself is over.
            let _ = room.send(lost).await;
        });
    }
}

impl MixerEar {
    /// Hears the mixer of this generation.
    pub(super) fn new(generation: u64, room: mpsc::Sender<Command>, fan_out: FanOut) -> Self {
        Self { generation, room, fan_out, meter: Meter::default() }
    }

    /// A room that cannot keep up misses levels and sizes; both come again.
    fn tell(&self, command: Command) {
        if self.room.try_send(command).is_err() {
            tracing::warn!("a room is too busy to hear its mixer");
        }
    }
}

/// Bytes by stream since the last reading.
#[derive(Default)]
struct Meter {
    since: Timestamp,
    bytes: BTreeMap<u32, u64>,
}

impl Meter {
    const PERIOD: Duration = Duration::from_secs(1);

    fn add(&mut self, serial: u32, bytes: usize) {
        *self.bytes.entry(serial).or_default() += bytes as u64;
    }

    /// Bits per second of each stream, once a second.
    fn read(&mut self, now: Timestamp) -> Option<Vec<(u32, u64)>> {
        let elapsed = now.since(self.since);
        if elapsed < Self::PERIOD {
            return None;
        }
        self.since = now;
        let rate = |bytes: u64| bytes * 8_000 / elapsed.as_millis() as u64;
        Some(std::mem::take(&mut self.bytes).into_iter().map(|(serial, bytes)| (serial, rate(bytes))).collect())
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
