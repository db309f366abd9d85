//! The recordings and broadcasts of a room: which run, what they get, how they do, and when one that died is started again.
//!
//! Owns: [`Outputs`]. Does not know: files, networks, processes; where a broadcast goes is text for people here.
//! An output that died goes on in another process after a rest, unless it dies young again and again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::{BroadcastDocument, Event, OutputState, RecordingDocument, RecordingKind, UploadDocument};
use super::{Effect, Order, OutputRoute, Refusal, Room};
use crate::id::{OutputId, SourceId, ViewName};
use crate::media::{Codec, FileFormat, StreamKey, Tier};
use crate::plan::StreamSpec;
use crate::time::Timestamp;

/// An output that lived for less has died young.
const SETTLED: Duration = Duration::from_secs(5);
/// The rest after the first early death; it doubles with each one that follows.
const REST: Duration = Duration::from_millis(250);
/// So many early deaths in a row, and it is given up.
const EARLY_DEATHS_MAX: u32 = 6;
/// A change in numbers alone is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Outputs that are over and still listed.
const OVER_MAX: usize = 32;

/// What somebody wants recorded or broadcast.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputWish {
    /// Of which kind it is.
    pub kind: OutputKind,
    /// The video streams it takes of its view, in its order.
    pub streams: Vec<(Codec, Tier)>,
    /// Whether it takes everyone's mix.
    pub sound: bool,
}

/// A recording or a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// Written to files.
    Recording {
        /// What of.
        kind: RecordingKind,
        /// In which format.
        format: FileFormat,
    },
    /// Sent to somewhere.
    Broadcast {
        /// How, as `rtmp`.
        kind: String,
        /// Where to, for people to read: without secrets.
        url: String,
    },
}

/// What happens to an output.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputEvent {
    /// How it does.
    Report(OutputReport),
    /// It writes this file now.
    File(String),
    /// This file of it is on its way to a store.
    Upload(String, UploadDocument),
    /// This stream of it cannot go on without a keyframe.
    KeyframeWanted(u8),
    /// It takes what participants send as it is, and this source cannot go on without a keyframe.
    SourceKeyframeWanted(SourceId),
    /// It came to an end; with what went wrong where nobody asked for that.
    Ended(Option<String>),
    /// Its process is gone, though nothing had ended.
    Lost(String),
    /// Somebody wants it to end.
    Stop,
}

/// How an output does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputReport {
    /// What it is doing.
    pub state: OutputState,
    /// Why it is not live, for people to read; without secrets.
    pub reason: Option<String>,
    /// Bytes written or sent so far.
    pub bytes: u64,
    /// Bits per second lately.
    pub bitrate: u64,
    /// Media written or sent so far.
    pub duration: Duration,
    /// How often the far end was connected to anew.
    pub reconnects: u32,
    /// Frames and packets not written or sent.
    pub dropped: u64,
    /// What a player opens what is sent with, where it needs to be told (RFC 8866).
    pub sdp: Option<String>,
}

/// The recordings and broadcasts of a room.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    all: BTreeMap<OutputId, Output>,
    last: u32,
    routes: Vec<OutputRoute>,
}

#[derive(Debug)]
struct Output {
    wish: OutputWish,
    life: Life,
    early_deaths: u32,
    /// The newest of the process that runs.
    report: OutputReport,
    /// Sums of the processes before it.
    before: OutputReport,
    files: Vec<String>,
    uploads: BTreeMap<String, UploadDocument>,
    told: Timestamp,
}

/// Where an output is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running { since: Timestamp },
    Resting { until: Timestamp },
    Finishing,
    Over,
}

impl Output {
    fn takes_media(&self) -> bool {
        matches!(self.life, Life::Running { .. } | Life::Resting { .. })
    }

    fn keys(&self) -> impl Iterator<Item = StreamKey> {
        let streams = self.wish.streams.iter().filter(|_| self.takes_media());
        streams.map(|&(codec, tier)| StreamKey { view: ViewName::program(), codec, tier })
    }

    fn takes_sources(&self) -> bool {
        matches!(self.wish.kind, OutputKind::Recording { kind: RecordingKind::Tracks, .. })
    }

    fn set(&mut self, state: OutputState, reason: Option<String>) {
        self.report.state = state;
        self.report.reason = reason;
        self.report.bitrate = 0;
    }

    /// All its processes together.
    fn total(&self) -> OutputReport {
        let (now, before) = (&self.report, &self.before);
        OutputReport {
            bytes: before.bytes + now.bytes,
            duration: before.duration + now.duration,
            reconnects: before.reconnects + now.reconnects,
            dropped: before.dropped + now.dropped,
            ..now.clone()
        }
    }

    fn event(&self, id: OutputId) -> Event {
        match &self.wish.kind {
            OutputKind::Recording { kind, format } => {
                Event::Recording { recording: self.recording(id, *kind, *format) }
            }
            OutputKind::Broadcast { kind, url } => Event::Broadcast { broadcast: self.broadcast(id, kind, url) },
        }
    }

    fn recording(&self, id: OutputId, kind: RecordingKind, format: FileFormat) -> RecordingDocument {
        let OutputReport { state, reason, bytes, duration, .. } = self.total();
        let (view, files, duration) = (ViewName::program(), self.files.clone(), duration.as_secs_f64());
        let upload = self.uploads.values().min_by_key(|upload| (upload.state, upload.error.is_none())).cloned();
        RecordingDocument { id, kind, format, view, state, reason, files, bytes, duration, upload }
    }

    fn broadcast(&self, id: OutputId, kind: &str, url: &str) -> BroadcastDocument {
        let OutputReport { state, reason, bytes, bitrate, duration, reconnects, dropped, sdp } = self.total();
        let (kind, url, duration) = (kind.to_owned(), url.to_owned(), duration.as_secs_f64());
        BroadcastDocument { id, kind, url, state, reason, bitrate, bytes, duration, reconnects, dropped, sdp }
    }
}

impl Outputs {
    /// Whether any takes media.
    pub(super) fn are_running(&self) -> bool {
        self.all.values().any(Output::takes_media)
    }

    /// Whether any takes everyone's mix.
    pub(super) fn want_sound(&self) -> bool {
        self.all.values().any(|output| output.wish.sound && output.takes_media())
    }

    /// The streams they take.
    pub(super) fn keys(&self) -> impl Iterator<Item = StreamKey> {
        self.all.values().flat_map(Output::keys)
    }

    /// Who gets what.
    pub(super) fn routes(&self) -> &[OutputRoute] {
        &self.routes
    }

    /// When one that rests is to be started again.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        let rests = |output: &Output| if let Life::Resting { until } = output.life { Some(until) } else { None };
        self.all.values().filter_map(rests).min()
    }

    pub(super) fn recordings(&self) -> Vec<RecordingDocument> {
        let recording = |(id, output): (&OutputId, &Output)| match output.wish.kind {
            OutputKind::Recording { kind, format } => Some(output.recording(*id, kind, format)),
            OutputKind::Broadcast { .. } => None,
        };
        self.all.iter().filter_map(recording).collect()
    }

    pub(super) fn broadcasts(&self) -> Vec<BroadcastDocument> {
        let broadcast = |(id, output): (&OutputId, &Output)| match &output.wish.kind {
            OutputKind::Broadcast { kind, url } => Some(output.broadcast(*id, kind, url)),
            OutputKind::Recording { .. } => None,
        };
        self.all.iter().filter_map(broadcast).collect()
    }

    /// Forgets the oldest of those that are over.
    fn forget(&mut self) {
        let over: VecDeque<OutputId> =
            self.all.iter().filter(|(_, output)| output.life == Life::Over).map(|(id, _)| *id).collect();
        for id in over.iter().take(over.len().saturating_sub(OVER_MAX)) {
            self.all.remove(id);
        }
    }
}

impl Room {
    /// Begins a recording or broadcast.
    ///
    /// # Errors
    /// [`Refusal::Ended`], [`Refusal::FullOfOutputs`].
    pub fn add_output(&mut self, now: Timestamp, wish: OutputWish) -> Result<OutputId, Refusal> {
        self.now = now;
        if self.ended {
            return Err(Refusal::Ended);
        }
        let most = self.settings.max_outputs;
        if self.outputs.all.values().filter(|output| output.life != Life::Over).count() >= most {
            return Err(Refusal::FullOfOutputs(most));
        }
        self.outputs.last += 1;
        let id = OutputId(self.outputs.last);
        let output = Output {
            wish,
            life: Life::Running { since: now },
            early_deaths: 0,
            report: OutputReport::default(),
            before: OutputReport::default(),
            files: Vec::new(),
            uploads: BTreeMap::new(),
            told: now,
        };
        self.outputs.all.insert(id, output);
        self.outputs.forget();
        self.need_mixer(now);
        self.refresh();
        self.effects.push_back(Effect::StartOutput(id));
        self.tell_output(id);
        Ok(id)
    }

    /// The streams of an output, in its order, as they are encoded.
    pub fn output_streams(&self, id: OutputId) -> Vec<StreamSpec> {
        let keys = self.outputs.all.get(&id).into_iter().flat_map(Output::keys);
        keys.filter_map(|key| self.streams.streams.iter().find(|spec| spec.key == key).cloned()).collect()
    }

    pub(super) fn output_news(&mut self, now: Timestamp, id: OutputId, news: OutputEvent) {
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        // Files are uploaded when all else is over.
        if output.life == Life::Over && !matches!(news, OutputEvent::Upload(..)) {
            return;
        }
        match news {
            OutputEvent::Upload(file, upload) => {
                // Another room of that name may have had a recording of that id.
                if output.files.contains(&file) && output.uploads.get(&file) != Some(&upload) {
                    output.uploads.insert(file, upload);
                    self.tell_output(id);
                }
            }
            OutputEvent::Report(mut report) => {
                if output.life == Life::Finishing {
                    report.state = OutputState::Finishing;
                }
                let changed = (report.state, &report.reason) != (output.report.state, &output.report.reason);
                output.report = report;
                if changed || now.since(output.told) >= TOLD_EVERY {
                    self.tell_output(id);
                }
            }
            OutputEvent::File(name) => {
                if !output.files.contains(&name) {
                    output.files.push(name);
                    self.tell_output(id);
                }
            }
            OutputEvent::KeyframeWanted(stream) => {
                let route = self.outputs.routes.iter().find(|route| route.output == id);
                if let Some(serial) = route.and_then(|route| route.streams.get(usize::from(stream))) {
                    self.effects.push_back(Effect::Order(Order::Keyframe(*serial)));
                }
            }
            OutputEvent::SourceKeyframeWanted(source) => {
                if let Some((participant, _)) = self.source(source) {
                    self.effects.push_back(Effect::Keyframe(participant, source));
                }
            }
            OutputEvent::Ended(failure) => {
                let state = if failure.is_some() { OutputState::Failed } else { OutputState::Finished };
                self.output_over(now, id, state, failure);
            }
            OutputEvent::Lost(why) => self.output_lost(now, id, &why),
            OutputEvent::Stop => match output.life {
                Life::Running { .. } => {
                    output.life = Life::Finishing;
                    output.set(OutputState::Finishing, None);
                    self.effects.push_back(Effect::FinishOutput(id));
                    self.refresh();
                    self.tell_output(id);
                }
                Life::Resting { .. } => self.output_over(now, id, OutputState::Finished, None),
                Life::Finishing | Life::Over => {}
            },
        }
    }

    fn output_lost(&mut self, now: Timestamp, id: OutputId, why: &str) {
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        let Life::Running { since } = output.life else {
            // Its last words did not come; what it wrote is whole but for its end.
            let reason = Some(format!("its process was lost while it ended: {why}"));
            return self.output_over(now, id, OutputState::Finished, reason);
        };
        output.early_deaths = if now.since(since) < SETTLED { output.early_deaths + 1 } else { 0 };
        if output.early_deaths >= EARLY_DEATHS_MAX {
            let reason = Some(format!("its process was lost again and again: {why}"));
            return self.output_over(now, id, OutputState::Failed, reason);
        }
        output.before = output.total();
        output.report = OutputReport::default();
        output.set(OutputState::Reconnecting, Some(format!("its process was lost and is started again: {why}")));
        let rest = REST * 2u32.pow(output.early_deaths.saturating_sub(1));
        output.life = Life::Resting { until: now + if output.early_deaths == 0 { Duration::ZERO } else { rest } };
        self.tell_output(id);
        self.output_timeout(now);
    }

    fn output_over(&mut self, now: Timestamp, id: OutputId, state: OutputState, reason: Option<String>) {
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        output.life = Life::Over;
        output.set(state, reason);
        if self.people.is_empty() {
            self.empty_since = Some(now);
        }
        self.refresh();
        self.tell_output(id);
    }

    /// Starts those whose rest is over.
    pub(super) fn output_timeout(&mut self, now: Timestamp) {
        for (id, output) in &mut self.outputs.all {
            if let Life::Resting { until } = output.life
                && now >= until
            {
                output.life = Life::Running { since: now };
                self.effects.push_back(Effect::StartOutput(*id));
            }
        }
    }

    /// The room is over: what is written is finished.
    pub(super) fn finish_outputs(&mut self) {
        let running: Vec<OutputId> =
            self.outputs.all.iter().filter(|(_, output)| output.takes_media()).map(|(id, _)| *id).collect();
        for id in running {
            self.output_news(self.now, id, OutputEvent::Stop);
        }
    }

    /// Derives who gets what anew and tells it if it differs.
    pub(super) fn refresh_output_routes(&mut self) {
        let routes: Vec<OutputRoute> = self
            .outputs
            .all
            .iter()
            .filter(|(_, output)| output.takes_media())
            .map(|(id, output)| OutputRoute {
                output: *id,
                streams: output.keys().filter_map(|key| self.serials.get(&key).copied()).collect(),
                sound: output.wish.sound,
                sources: output.takes_sources(),
            })
            .collect();
        if routes != self.outputs.routes {
            self.outputs.routes.clone_from(&routes);
            self.effects.push_back(Effect::OutputRoutes(routes));
        }
    }

    fn tell_output(&mut self, id: OutputId) {
        let now = self.now;
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        output.told = now;
        let event = output.event(id);
        self.emit(|_| event);
    }
}
