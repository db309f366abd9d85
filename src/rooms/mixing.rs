//! Messages from mixers.
//!
//! Owns: [`MixerListener`], which dispatches each message of a mixer on the task that reads its link;
//! [`MixerCounters`], the metrics of all mixers. Does not know: what a room does with a message. In: messages of a
//! mixer. Out: media to the fan-out, other messages to the room, counters that continue when a mixer is restarted.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::command::Command;
use super::routes::FanOut;
use crate::link::{FromMixer, MixerReport};
use crate::metrics::{Counter, Registry};
use crate::process::{Listener, Loss};
use crate::time::{self, Timestamp};

/// A metric: its name, its help text, its field of the report.
type Count = (&'static str, &'static str, fn(&MixerReport) -> u64);

const COUNTS: [Count; 21] = [
    ("mixer_video_ticks", "Video ticks run: one composition of each view that has streams", |report| {
        report.video_ticks
    }),
    ("mixer_video_late", "Video ticks that began more than half a frame late", |report| report.video_late),
    ("mixer_video_left_out", "Video ticks skipped because the mixer was late", |report| report.video_left_out),
    ("mixer_frames_encoded", "Video frames encoded, all streams", |report| report.encoded),
    ("mixer_frames_busy", "Video frames not encoded because the encoder was busy or starting", |report| {
        report.encoder_skipped
    }),
    ("mixer_frames_unchanged", "Video frames not encoded because the canvas was unchanged", |report| report.unchanged),
    ("mixer_frames_repeated", "Video frames made without the encoder: the canvas was unchanged", |report| {
        report.repeated
    }),
    (
        "mixer_source_frames_dropped",
        "Video frames dropped before decoding: incomplete, malformed or too large",
        |report| report.source_frames_dropped,
    ),
    ("mixer_source_units_skipped", "H.264 NAL units of senders skipped: malformed, or of a reserved type", |report| {
        report.source_units_skipped
    }),
    ("mixer_sound_ticks", "Audio ticks run: one mix of 20 ms", |report| report.audio_ticks),
    ("mixer_sound_late", "Audio ticks that began more than 10 ms late", |report| report.audio_late),
    (
        "mixer_sound_left_out",
        "Audio ticks skipped because the mixer was late: each receiver lacks these 20 ms",
        |report| report.audio_left_out,
    ),
    (
        "mixer_sound_reduced",
        "Audio ticks with reduced quality (Opus complexity, talkers in the mix) because the cores were busy",
        |report| report.audio_reduced,
    ),
    (
        "mixer_sound_talkers_left_out",
        "Talkers left out of an audio tick because the cores were busy and only the loudest were mixed",
        |report| report.talkers_left_out,
    ),
    ("mixer_sound_encoded", "Audio packets encoded, all mixes", |report| report.audio_encoded),
    ("mixer_sound_concealed", "Audio packets concealed because they were lost or late", |report| report.concealed),
    ("mixer_filter_frames", "Frames that filters have processed", |report| report.filter_frames),
    ("mixer_filter_cpu_microseconds", "CPU time of filters in microseconds", |report| report.filter_cpu_us),
    ("mixer_filters_removed", "Filters removed because they had failed or were slow", |report| report.filters_removed),
    ("mixer_link_dropped", "Mixer link queue full: messages to the edge dropped", |report| report.link_dropped),
    ("mixer_cpu_milliseconds", "CPU time of all mixer processes in milliseconds", |report| report.cpu_ms),
];

/// Counters of all mixers together.
#[derive(Debug, Default, Clone)]
pub struct MixerCounters([Counter; COUNTS.len()]);

impl MixerCounters {
    /// Adds what a mixer has done between two reports; `before` is the default for its first report.
    pub(super) fn add(&self, before: &MixerReport, report: &MixerReport) {
        for (counter, (_, _, of)) in self.0.iter().zip(COUNTS) {
            counter.inc_by(of(report).saturating_sub(of(before)));
        }
    }

    /// Registers the metrics.
    pub(super) fn register(&self, registry: &mut Registry) {
        for (counter, (name, help, _)) in self.0.iter().zip(COUNTS) {
            registry.register(name, help, counter.clone());
        }
    }
}

/// Dispatches the messages of one mixer: media to the fan-out, other messages to the room.
pub(super) struct MixerListener {
    generation: u64,
    room: mpsc::Sender<Command>,
    fan_out: FanOut,
    meter: Meter,
}

impl Listener for MixerListener {
    type Message = FromMixer;

    fn message(&mut self, message: FromMixer) {
        match message {
            FromMixer::Video { serial, packet } => {
                let now = time::now();
                self.fan_out.video(serial, &packet, now);
                self.meter.add(serial, packet.payload.len());
                if let Some(bitrates) = self.meter.read(now) {
                    self.send(Command::Bitrates(bitrates));
                }
            }
            FromMixer::Audio(tick) => self.fan_out.audio(&tick),
            other => self.send(Command::Mixer(self.generation, other)),
        }
    }

    fn lost(&mut self, loss: &Loss) {
        let (room, lost) = (self.room.clone(), Command::MixerLost(self.generation, loss.clone()));
        tokio::spawn(async move {
            // Fails only when the room has ended.
            let _ = room.send(lost).await;
        });
    }
}

impl MixerListener {
    /// The listener of the mixer of this generation.
    pub(super) fn new(generation: u64, room: mpsc::Sender<Command>, fan_out: FanOut) -> Self {
        Self { generation, room, fan_out, meter: Meter::default() }
    }

    /// Sends a command to the room. If its queue is full the command is dropped: levels, sizes and reports are
    /// repeated.
    fn send(&self, command: Command) {
        if self.room.try_send(command).is_err() {
            tracing::warn!("room queue full: mixer message dropped");
        }
    }
}

/// Bytes per stream since the last reading.
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

    /// The bitrate of each stream in bit/s; None if the last reading is less than [`PERIOD`](Self::PERIOD) ago.
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
    fn counters_continue_when_a_mixer_is_restarted() {
        let counters = MixerCounters::default();
        let report = |encoded, concealed| MixerReport { encoded, concealed, ..MixerReport::default() };
        counters.add(&MixerReport::default(), &report(30, 1));
        counters.add(&report(30, 1), &report(60, 1));
        counters.add(&MixerReport::default(), &report(10, 2));
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
