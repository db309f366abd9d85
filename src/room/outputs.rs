//! The recordings and broadcasts of a room.
//!
//! Owns: [`Outputs`], with the streams, the state and the restarts of each. Does not know: files, networks, processes;
//! a destination is only a text here. In: [`OutputEvent`]; out: effects that start and finish processes, and routes. A
//! lost process is replaced after a back-off, unless several die early in succession.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::{BroadcastDocument, Event, OutputState, RecordingDocument, RecordingKind, UploadDocument};
use super::{Effect, Order, OutputRoute, Refusal, Room};
use crate::id::{OutputId, SourceId, ViewName};
use crate::media::{Codec, FileFormat, StreamKey, Tier};
use crate::plan::StreamSpec;
use crate::time::Timestamp;

/// A process that has run for less than this has died early.
const SETTLED: Duration = Duration::from_secs(5);
/// Back-off after the first early death; it doubles with each further one.
const REST: Duration = Duration::from_millis(250);
/// Early deaths in succession after which the output fails.
const EARLY_DEATHS_MAX: u32 = 6;
/// Shortest interval between events that differ only in numbers.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Ended outputs that remain in the document.
const OVER_MAX: usize = 32;

/// A request for an output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputWish {
    /// The kind of output.
    pub kind: OutputKind,
    /// The view that it takes.
    pub view: ViewName,
    /// The video streams of its view that it receives, in its order.
    pub streams: Vec<(Codec, Tier)>,
    /// Whether it receives the mix of all sources.
    pub sound: bool,
}

/// A recording or a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// A recording to files.
    Recording {
        /// What is recorded.
        kind: RecordingKind,
        /// The file format.
        format: FileFormat,
    },
    /// A broadcast to a server, or by HLS.
    Broadcast {
        /// The protocol, as `rtmp`.
        kind: String,
        /// The destination without secrets.
        url: String,
        /// Everyone may watch it without a token.
        public: bool,
    },
}

/// An event of an output.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputEvent {
    /// A report of its process.
    Report(OutputReport),
    /// It has started this file.
    File(String),
    /// The state of the upload of one of its files.
    Upload(String, UploadDocument),
    /// It needs a keyframe of this of its streams.
    KeyframeWanted(u8),
    /// It records tracks and needs a keyframe of this source.
    SourceKeyframeWanted(SourceId),
    /// The output has ended; with a reason if it has failed.
    Ended(Option<String>),
    /// Its process is lost, for this reason.
    Lost(String),
    /// A request to finish it.
    Stop,
}

/// The state of an output, as its process reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputReport {
    /// Its state.
    pub state: OutputState,
    /// Why it is not live, without secrets.
    pub reason: Option<String>,
    /// Bytes written or sent.
    pub bytes: u64,
    /// Bitrate in bits per second.
    pub bitrate: u64,
    /// Duration of the media written or sent.
    pub duration: Duration,
    /// Number of reconnections.
    pub reconnects: u32,
    /// Frames and packets not written or sent.
    pub dropped: u64,
    /// The SDP (RFC 8866) with which a player opens the broadcast, if it needs one.
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
    /// The latest report of the running process.
    report: OutputReport,
    /// Sums of earlier processes.
    before: OutputReport,
    files: Vec<String>,
    uploads: BTreeMap<String, UploadDocument>,
    reported: Timestamp,
}

/// The life cycle of an output.
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
        streams.map(|&(codec, tier)| StreamKey { view: self.wish.view.clone(), codec, tier })
    }

    fn is_recording(&self) -> bool {
        matches!(self.wish.kind, OutputKind::Recording { .. })
    }

    fn takes_sources(&self) -> bool {
        matches!(self.wish.kind, OutputKind::Recording { kind: RecordingKind::Tracks, .. })
    }

    fn set(&mut self, state: OutputState, reason: Option<String>) {
        self.report.state = state;
        self.report.reason = reason;
        self.report.bitrate = 0;
    }

    /// The sum of all its processes.
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
            OutputKind::Broadcast { kind, url, public } => {
                Event::Broadcast { broadcast: self.broadcast(id, kind, url, *public) }
            }
        }
    }

    fn recording(&self, id: OutputId, kind: RecordingKind, format: FileFormat) -> RecordingDocument {
        let OutputReport { state, reason, bytes, duration, .. } = self.total();
        let (view, files, duration) = (self.wish.view.clone(), self.files.clone(), duration.as_secs_f64());
        let upload = self.uploads.values().min_by_key(|upload| (upload.state, upload.error.is_none())).cloned();
        RecordingDocument { id, kind, format, view, state, reason, files, bytes, duration, upload }
    }

    fn broadcast(&self, id: OutputId, kind: &str, url: &str, public: bool) -> BroadcastDocument {
        let OutputReport { state, reason, bytes, bitrate, duration, reconnects, dropped, sdp } = self.total();
        let (kind, url, duration) = (kind.to_owned(), url.to_owned(), duration.as_secs_f64());
        let view = self.wish.view.clone();
        BroadcastDocument {
            id,
            kind,
            url,
            view,
            public,
            state,
            reason,
            bitrate,
            bytes,
            duration,
            reconnects,
            dropped,
            sdp,
        }
    }
}

impl Outputs {
    /// Whether an output runs.
    pub(super) fn are_running(&self) -> bool {
        self.all.values().any(Output::takes_media)
    }

    /// Whether a recording runs.
    pub(super) fn is_recording(&self) -> bool {
        self.all.values().any(|output| output.takes_media() && output.is_recording())
    }

    /// Whether an output receives the mix of all sources.
    pub(super) fn want_sound(&self) -> bool {
        self.all.values().any(|output| output.wish.sound && output.takes_media())
    }

    /// The streams that outputs receive.
    pub(super) fn keys(&self) -> impl Iterator<Item = StreamKey> {
        self.all.values().flat_map(Output::keys)
    }

    /// The routes to outputs.
    pub(super) fn routes(&self) -> &[OutputRoute] {
        &self.routes
    }

    /// When a lost process is to be restarted.
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
            OutputKind::Broadcast { kind, url, public } => Some(output.broadcast(*id, kind, url, *public)),
            OutputKind::Recording { .. } => None,
        };
        self.all.iter().filter_map(broadcast).collect()
    }

    /// Removes the oldest ended outputs.
    fn forget(&mut self) {
        let over: VecDeque<OutputId> =
            self.all.iter().filter(|(_, output)| output.life == Life::Over).map(|(id, _)| *id).collect();
        for id in over.iter().take(over.len().saturating_sub(OVER_MAX)) {
            self.all.remove(id);
        }
    }
}

impl Room {
    /// Adds a recording or broadcast.
    ///
    /// # Errors
    /// [`Refusal::Ended`], [`Refusal::FullOfOutputs`], [`Refusal::View`].
    pub fn add_output(&mut self, now: Timestamp, wish: OutputWish) -> Result<OutputId, Refusal> {
        self.now = now;
        if self.ended {
            return Err(Refusal::Ended);
        }
        self.require_view(&wish.view)?;
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
            reported: now,
        };
        self.outputs.all.insert(id, output);
        self.outputs.forget();
        self.restart_linger();
        self.need_mixer(now);
        self.refresh();
        self.effects.push_back(Effect::StartOutput(id));
        self.tell_output(id);
        Ok(id)
    }

    /// The specifications of an output's streams, in its order.
    pub fn output_streams(&self, id: OutputId) -> Vec<StreamSpec> {
        let keys = self.outputs.all.get(&id).into_iter().flat_map(Output::keys);
        keys.filter_map(|key| self.streams.streams.iter().find(|spec| spec.key == key).cloned()).collect()
    }

    pub(super) fn output_event(&mut self, now: Timestamp, id: OutputId, event: OutputEvent) {
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        // Files are uploaded after the output has ended.
        if output.life == Life::Over && !matches!(event, OutputEvent::Upload(..)) {
            return;
        }
        match event {
            OutputEvent::Upload(file, upload) => {
                // The recording may belong to an earlier room of this name.
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
                if changed || now.since(output.reported) >= REPORT_INTERVAL {
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
                self.output_over(id, state, failure);
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
                Life::Resting { .. } => self.output_over(id, OutputState::Finished, None),
                Life::Finishing | Life::Over => {}
            },
        }
    }

    fn output_lost(&mut self, now: Timestamp, id: OutputId, why: &str) {
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        let Life::Running { since } = output.life else {
            // The process died while it finished its files, which are complete except for their end.
            let reason = Some(format!("its process was lost while it ended: {why}"));
            return self.output_over(id, OutputState::Finished, reason);
        };
        output.early_deaths = if now.since(since) < SETTLED { output.early_deaths + 1 } else { 0 };
        if output.early_deaths >= EARLY_DEATHS_MAX {
            let reason = Some(format!("its process was lost again and again: {why}"));
            return self.output_over(id, OutputState::Failed, reason);
        }
        output.before = output.total();
        output.report = OutputReport::default();
        output.set(OutputState::Reconnecting, Some(format!("its process was lost and is started again: {why}")));
        let rest = REST * 2u32.pow(output.early_deaths.saturating_sub(1));
        output.life = Life::Resting { until: now + if output.early_deaths == 0 { Duration::ZERO } else { rest } };
        self.tell_output(id);
        self.output_timeout(now);
    }

    fn output_over(&mut self, id: OutputId, state: OutputState, reason: Option<String>) {
        let Some(output) = self.outputs.all.get_mut(&id) else { return };
        output.life = Life::Over;
        output.set(state, reason);
        self.refresh();
        self.tell_output(id);
    }

    /// Restarts processes whose back-off has ended.
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

    /// The room ends: finishes all outputs.
    pub(super) fn finish_outputs(&mut self) {
        self.finish(Output::takes_media);
    }

    /// The room is empty: finishes all recordings.
    pub(super) fn finish_recordings(&mut self) {
        self.finish(|output| output.takes_media() && output.is_recording());
    }

    fn finish(&mut self, which: impl Fn(&Output) -> bool) {
        let running: Vec<OutputId> =
            self.outputs.all.iter().filter(|(_, output)| which(output)).map(|(id, _)| *id).collect();
        for id in running {
            self.output_event(self.now, id, OutputEvent::Stop);
        }
    }

    /// Derives the routes to outputs anew and emits them if they differ.
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
        output.reported = now;
        let event = output.event(id);
        self.emit(|_| event);
    }
}
