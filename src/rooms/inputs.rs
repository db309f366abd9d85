//! The input processes of a room.
//!
//! Owns: [`InputRequest`] and its validation; [`Inputs`], with each input's source including its secrets, and its
//! process. Does not know: when an input starts, restarts or ends ([`crate::room::inputs`] decides), what its process
//! does. Packets of a process go from its link's reader through an [`Uplink`], like those of a participant.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::command::Command;
use super::uplink::Uplink;
use super::{ServerSettings, post};
use crate::destination::{Destination, Host, SecretForm, Target};
use crate::id::{InputId, RoomName};
use crate::link::input::{FromInput, InputSettings, ToInput};
use crate::link::sandbox::Access;
use crate::media::{Codec, SourceKind};
use crate::metrics::{Counter, Family, Registry};
use crate::peer::SourceSink;
use crate::process::{self, InputProcess, Listener, Loss, ProcessCommand};
use crate::room::inputs::{InputEvent, InputReport, InputWish};
use crate::secret::Secret;

/// Longest time for a process to close its connection to the source.
const PATIENCE: Duration = Duration::from_secs(3);

/// The body of `POST /v1/rooms/{room}/inputs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRequest {
    /// The URL of the source.
    pub url: Secret,
    /// The name on the tile; absent for the host or the name of the file.
    pub name: Option<String>,
    /// Play again after the end.
    #[serde(default, rename = "loop")]
    pub repeat: bool,
    /// The bearer token for a WHEP server.
    pub token: Option<Secret>,
}

/// A validated request for an input.
pub(super) struct PlannedInput {
    /// The request to the room.
    pub(super) wish: InputWish,
    /// The source.
    pub(super) source: Source,
}

/// The source of an input.
pub(super) enum Source {
    /// A file or URL, with its secrets, and what its process needs.
    Fetched(SecretForm, Access),
    /// The process of an encoder's connection; None after its start.
    Pushed(Option<Pushed>),
}

/// A process whose encoder has sent its application and stream key. Dropping it ends the process.
pub struct Pushed {
    process: InputProcess,
    attached: Arc<OnceLock<Attached>>,
}

impl InputRequest {
    /// Validates the request.
    ///
    /// # Errors
    /// A message that says what to change.
    pub(super) fn plan(&self, server: &ServerSettings) -> Result<PlannedInput, String> {
        let mut source = Destination::input(self.url.expose()).map_err(|error| error.to_string())?;
        if let Some(token) = &self.token {
            source = source.with_token(token.clone()).map_err(|error| error.to_string())?;
        }
        // Host names are resolved, and their addresses checked, when the process connects.
        if let Some(Host::Address(address)) = source.endpoint().map(|endpoint| &endpoint.host) {
            server.inputs.guard.check(*address).map_err(|refused| refused.to_string())?;
        }
        let name = self.name.clone().unwrap_or_else(|| usual_name(&source));
        let wish = InputWish { url: source.redacted(), name, repeat: self.repeat, pushed: false };
        let access = match source.target() {
            Target::File(_) => Access::reading(server.inputs.media_dir.clone()),
            _ => Access::network(),
        };
        Ok(PlannedInput { wish, source: Source::Fetched(source.secret_form(), access) })
    }
}

/// The name on the tile where the request has none.
fn usual_name(source: &Destination) -> String {
    match (source.target(), source.endpoint()) {
        (Target::File(name), _) => name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned(),
        (_, Some(endpoint)) => endpoint.host.to_string(),
        (_, None) => "input".to_owned(),
    }
}

/// Counters of all inputs together.
#[derive(Debug, Default, Clone)]
pub struct InputCounters {
    skipped: Family<SkipLabels, Counter>,
    jumps: Counter,
}

/// Labels of skipped media.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SkipLabels {
    /// Why it was skipped.
    reason: &'static str,
}

impl InputCounters {
    /// Adds what a process has counted between two reports; `before` is the default for its first report.
    fn add(&self, before: &InputReport, report: &InputReport) {
        for (reason, count) in &report.skipped {
            let new = count.saturating_sub(before.skipped.get(reason).copied().unwrap_or_default());
            self.skipped.get_or_create(&SkipLabels { reason: reason.name() }).inc_by(new);
        }
        self.jumps.inc_by(report.timestamp_jumps.saturating_sub(before.timestamp_jumps));
    }

    /// Registers the metrics.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "input_units_skipped",
            "Messages and frames of inputs skipped because they cannot be used, by reason",
            self.skipped.clone(),
        );
        registry.register(
            "input_timestamp_jumps",
            "Jumps of the timestamps of inputs, after which playback continued at once",
            self.jumps.clone(),
        );
    }
}

/// The inputs of one room.
pub(super) struct Inputs {
    all: BTreeMap<InputId, InputEntry>,
    endings: TaskTracker,
}

struct InputEntry {
    source: Source,
    repeat: bool,
    uplink: Arc<Uplink>,
    /// Counts its processes; late messages of an earlier process are ignored.
    generation: u32,
    process: Option<InputProcess>,
}

impl Inputs {
    pub(super) fn new(endings: TaskTracker) -> Self {
        Self { all: BTreeMap::new(), endings }
    }

    /// Adds an input without starting it; its packets go to `uplink`.
    pub(super) fn add(&mut self, id: InputId, planned: PlannedInput, uplink: Arc<Uplink>) {
        let PlannedInput { wish, source } = planned;
        self.all.insert(id, InputEntry { source, repeat: wish.repeat, uplink, generation: 0, process: None });
    }

    /// Starts an input's process.
    ///
    /// # Errors
    /// A message for the input's document: the system cannot start the process, or the encoder is gone.
    pub(super) fn start(
        &mut self,
        id: InputId,
        room: &RoomName,
        server: &ServerSettings,
        commands: mpsc::Sender<Command>,
    ) -> Result<(), String> {
        let Some(entry) = self.all.get_mut(&id) else { return Ok(()) };
        entry.generation += 1;
        let attached = Attached {
            id,
            generation: entry.generation,
            commands,
            uplink: entry.uplink.clone(),
            counters: server.counters.inputs.clone(),
        };
        let (source, process) = match &mut entry.source {
            Source::Fetched(source, access) => {
                let listener =
                    InputListener { attached: Arc::new(OnceLock::from(attached)), ..InputListener::default() };
                let process: InputProcess =
                    process::start(&server.inputs.command.with_access(access.clone()), listener)
                        .map_err(|error| format!("cannot start {:?}: {error}", server.inputs.command))?;
                (Some(source.clone()), process)
            }
            Source::Pushed(pushed) => {
                let pushed = pushed.take().ok_or("the encoder has disconnected")?;
                if pushed.attached.set(attached).is_err() {
                    return Err("the encoder is already in another room".to_owned());
                }
                (None, pushed.process)
            }
        };
        tracing::info!(input = %id, pid = process.pid, "input started");
        process.link.send(ToInput::Configure(InputSettings {
            room: room.clone(),
            source,
            repeat: entry.repeat,
            media_dir: server.inputs.media_dir.clone(),
            guard: server.inputs.guard.clone(),
            picture: server.canvas,
            fps: server.fps,
            openh264: server.openh264,
            threads: server.mixer_threads,
        }));
        entry.process = Some(process);
        Ok(())
    }

    /// Ends an input; its process closes its connection in the background.
    pub(super) fn stop(&mut self, id: InputId) {
        if let Some(process) = self.all.remove(&id).and_then(|entry| entry.process) {
            self.endings.spawn(process.finish(ToInput::Stop, PATIENCE));
        }
    }

    /// Requests a keyframe from the input with this uplink, if there is one.
    pub(super) fn ask_keyframe(&self, uplink: &Arc<Uplink>) {
        let entry = self.all.values().find(|entry| Arc::ptr_eq(&entry.uplink, uplink));
        if let Some(process) = entry.and_then(|entry| entry.process.as_ref()) {
            process.link.send(ToInput::Keyframe);
        }
    }

    /// Translates an event of a process; None for a process of an earlier generation.
    pub(super) fn process_event(&mut self, id: InputId, generation: u32, event: ProcessEvent) -> Option<InputEvent> {
        let entry = self.all.get_mut(&id).filter(|entry| entry.generation == generation)?;
        Some(match event {
            ProcessEvent::Input(event) => {
                if let InputEvent::Ended(reason) = &event {
                    tracing::info!(input = %id, reason, "input ended");
                    self.all.remove(&id);
                }
                event
            }
            ProcessEvent::Lost(why) => {
                tracing::error!(input = %id, why, "input process lost");
                entry.process = None;
                InputEvent::Lost(why)
            }
        })
    }
}

/// An event of an input's process.
pub(super) enum ProcessEvent {
    Input(InputEvent),
    Lost(String),
}

/// The input that a process belongs to.
struct Attached {
    id: InputId,
    generation: u32,
    commands: mpsc::Sender<Command>,
    uplink: Arc<Uplink>,
    counters: InputCounters,
}

impl Attached {
    fn command(&self, event: ProcessEvent) -> Command {
        Command::InputProcess(self.id, self.generation, event)
    }
}

/// The listener of one process, on its link's reader: media goes to the uplink at once, everything else to the room.
#[derive(Default)]
struct InputListener {
    /// Unset until the encoder of a pushed input is admitted.
    attached: Arc<OnceLock<Attached>>,
    /// Notified of the encoder's application and stream key.
    publishing: Option<oneshot::Sender<Publishing>>,
    codecs: Vec<(SourceKind, Codec)>,
    /// The last report.
    reported: InputReport,
    ended: bool,
}

/// An encoder's request to publish.
pub struct Publishing {
    /// The application.
    pub app: String,
    /// The stream key, with its query.
    pub key: Secret,
}

impl Pushed {
    /// Starts a process for the connection of an encoder that may publish, with what the encoder has sent so far; the
    /// receiver gets the encoder's request to publish when the process is ready.
    ///
    /// # Errors
    /// Of creating sockets and processes.
    pub fn receive(
        command: &ProcessCommand,
        connection: OwnedFd,
        received: Vec<u8>,
    ) -> io::Result<(Self, oneshot::Receiver<Publishing>)> {
        let (publishing, wish) = oneshot::channel();
        let listener = InputListener { publishing: Some(publishing), ..InputListener::default() };
        let attached = listener.attached.clone();
        let process: InputProcess = process::start_with(command, connection, listener)?;
        process.link.send(ToInput::Receive { received });
        Ok((Self { process, attached }, wish))
    }

    /// Refuses the encoder with a reason and ends the process.
    pub async fn refuse(self, why: String) {
        self.process.finish(ToInput::Refuse { why }, PATIENCE).await;
    }

    /// The request to a room.
    pub(super) fn plan(self, room: &RoomName, name: String) -> PlannedInput {
        let wish = InputWish { url: format!("rtmp://…/live/{room}"), name, repeat: false, pushed: true };
        PlannedInput { wish, source: Source::Pushed(Some(self)) }
    }
}

impl Listener for InputListener {
    type Message = FromInput;

    fn message(&mut self, message: FromInput) {
        match message {
            FromInput::Ready { missing } => {
                for missing in missing {
                    tracing::warn!(missing, "codec not available in input");
                }
            }
            FromInput::Publishing { app, key } => {
                if let Some(publishing) = self.publishing.take() {
                    // The receiver may have given up waiting.
                    drop(publishing.send(Publishing { app, key: Secret::from(key.0) }));
                }
            }
            FromInput::Started { kind, codec } => {
                self.codecs.retain(|(known, _)| *known != kind);
                self.codecs.push((kind, codec));
            }
            FromInput::Packet(kind, packet) => {
                let codec = self.codecs.iter().find(|(known, _)| *known == kind);
                if let (Some((_, codec)), Some(attached)) = (codec, self.attached.get()) {
                    attached.uplink.packet("", kind, *codec, packet);
                    attached.uplink.flush();
                }
            }
            // Reports are sent again, so that one which finds the room's queue full can be dropped.
            FromInput::Report(report) => {
                if let Some(attached) = self.attached.get() {
                    attached.counters.add(&self.reported, &report);
                    self.reported = report.clone();
                    let _ =
                        attached.commands.try_send(attached.command(ProcessEvent::Input(InputEvent::Report(report))));
                }
            }
            FromInput::Ended { reason } => {
                self.ended = true;
                self.publishing = None;
                self.tell(ProcessEvent::Input(InputEvent::Ended(reason)));
            }
        }
    }

    fn lost(&mut self, loss: &Loss) {
        self.publishing = None;
        if !self.ended {
            self.tell(ProcessEvent::Lost(loss.why.clone()));
        }
    }
}

impl InputListener {
    /// Sends an event that must not be dropped, without waiting.
    fn tell(&self, event: ProcessEvent) {
        let Some(attached) = self.attached.get() else { return };
        post(&attached.commands, attached.command(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::room::document::SkipReason;

    #[test]
    fn skipped_media_of_all_processes_is_counted_by_reason() {
        let (metrics, counters) = (Metrics::default(), InputCounters::default());
        metrics.register(|registry| counters.register(registry));
        let report = |empty, jumps| InputReport {
            skipped: [(SkipReason::Empty, empty), (SkipReason::NoConfig, 1)].into(),
            timestamp_jumps: jumps,
            ..InputReport::default()
        };
        counters.add(&InputReport::default(), &report(2, 1));
        counters.add(&report(2, 1), &report(5, 1));
        counters.add(&InputReport::default(), &report(1, 2));
        let text = metrics.text();
        for line in [
            "commingle_input_units_skipped_total{reason=\"empty\"} 6",
            "commingle_input_units_skipped_total{reason=\"no_config\"} 2",
            "commingle_input_timestamp_jumps_total 3",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
