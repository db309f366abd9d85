//! The inputs of a room in the edge: what is asked for, and the processes that fetch it.
//!
//! Owns: [`InputRequest`], and [`Inputs`]: each input's source with what is secret of it, and its process. Does not know:
//! when an input begins, ends or begins again ([`crate::room::inputs`] does), what its process does.
//! A process' packets go the way of a participant's, from its link's reader through an [`Uplink`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::ServerSettings;
use super::command::Command;
use super::uplink::Uplink;
use crate::destination::{Destination, Host, SecretForm, Target};
use crate::id::{InputId, RoomName};
use crate::link::input::{FromInput, InputSettings, ToInput};
use crate::media::{Codec, SourceKind};
use crate::peer::SourceSink;
use crate::process::{self, InputProcess, Listener, ProcessCommand};
use crate::room::inputs::{InputEvent, InputWish};
use crate::secret::Secret;

/// How long a process may take to say goodbye to its source.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the body of `POST /v1/rooms/{room}/inputs` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRequest {
    /// Where from.
    pub url: Secret,
    /// Shown on the tile; the host or the file's name where it is absent.
    pub name: Option<String>,
    /// Begin again at its end.
    #[serde(default, rename = "loop")]
    pub repeat: bool,
    /// What a WHEP server wants as bearer token.
    pub token: Option<Secret>,
}

/// An input that is about to be asked of a room.
pub(super) struct PlannedInput {
    /// What the room is asked.
    pub(super) wish: InputWish,
    /// Where it is from.
    pub(super) source: Source,
}

/// Where an input is from.
pub(super) enum Source {
    /// It is fetched from there; with its secrets.
    Fetched(SecretForm),
    /// This process has it already, from an encoder; None once it was begun.
    Pushed(Option<Pushed>),
}

/// A process that has heard what an encoder wants to push. Dropping it ends the process.
pub struct Pushed {
    process: InputProcess,
    attached: Arc<OnceLock<Attached>>,
}

impl InputRequest {
    /// What it means.
    ///
    /// # Errors
    /// Words that say what to change.
    pub(super) fn plan(&self, server: &ServerSettings) -> Result<PlannedInput, String> {
        let mut source = Destination::input(self.url.expose()).map_err(|error| error.to_string())?;
        if let Some(token) = &self.token {
            source = source.with_token(token.clone()).map_err(|error| error.to_string())?;
        }
        // Names are resolved, and judged, where they are connected to.
        if let Some(Host::Address(address)) = source.endpoint().map(|endpoint| &endpoint.host) {
            server.inputs.guard.check(*address).map_err(|refused| refused.to_string())?;
        }
        let name = self.name.clone().unwrap_or_else(|| usual_name(&source));
        let wish = InputWish { url: source.redacted(), name, repeat: self.repeat, pushed: false };
        Ok(PlannedInput { wish, source: Source::Fetched(source.secret_form()) })
    }
}

/// What is written on a tile where nobody event it.
fn usual_name(source: &Destination) -> String {
    match (source.target(), source.endpoint()) {
        (Target::File(name), _) => name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned(),
        (_, Some(endpoint)) => endpoint.host.to_string(),
        (_, None) => "input".to_owned(),
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
    /// Counts its processes: what an older one says late is not heard.
    generation: u32,
    process: Option<InputProcess>,
}

impl Inputs {
    pub(super) fn new(endings: TaskTracker) -> Self {
        Self { all: BTreeMap::new(), endings }
    }

    /// Remembers what an input's processes are to be told, and where their packets go.
    pub(super) fn add(&mut self, id: InputId, planned: PlannedInput, uplink: Arc<Uplink>) {
        let PlannedInput { wish, source } = planned;
        self.all.insert(id, InputEntry { source, repeat: wish.repeat, uplink, generation: 0, process: None });
    }

    /// Starts an input's process.
    ///
    /// # Errors
    /// Words for people: the system does not let it.
    pub(super) fn start(
        &mut self,
        id: InputId,
        room: &RoomName,
        server: &ServerSettings,
        commands: mpsc::Sender<Command>,
    ) -> Result<(), String> {
        let Some(entry) = self.all.get_mut(&id) else { return Ok(()) };
        entry.generation += 1;
        let attached = Attached { id, generation: entry.generation, commands, uplink: entry.uplink.clone() };
        let (source, process) = match &mut entry.source {
            Source::Fetched(source) => {
                let listener =
                    InputListener { attached: Arc::new(OnceLock::from(attached)), ..InputListener::default() };
                let process: InputProcess = process::start(&server.inputs.command, listener)
                    .map_err(|error| format!("cannot start {:?}: {error}", server.inputs.command))?;
                (Some(source.clone()), process)
            }
            Source::Pushed(pushed) => {
                let pushed = pushed.take().ok_or("its encoder is gone")?;
                if pushed.attached.set(attached).is_err() {
                    return Err("its encoder is in another room".to_owned());
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

    /// Ends an input; its process says goodbye in the background.
    pub(super) fn stop(&mut self, id: InputId) {
        if let Some(process) = self.all.remove(&id).and_then(|entry| entry.process) {
            self.endings.spawn(process.finish(ToInput::Stop, PATIENCE));
        }
    }

    /// Asks for a keyframe of what this source of a participant shows, if it is one of an input.
    pub(super) fn ask_keyframe(&self, uplink: &Arc<Uplink>) {
        let entry = self.all.values().find(|entry| Arc::ptr_eq(&entry.uplink, uplink));
        if let Some(process) = entry.and_then(|entry| entry.process.as_ref()) {
            process.link.send(ToInput::Keyframe);
        }
    }

    /// What a process of this generation says about its input; None when there is a newer one.
    pub(super) fn news(&mut self, id: InputId, generation: u32, event: ProcessEvent) -> Option<InputEvent> {
        let entry = self.all.get_mut(&id).filter(|entry| entry.generation == generation)?;
        Some(match event {
            ProcessEvent::Input(news) => {
                if let InputEvent::Ended(reason) = &news {
                    tracing::info!(input = %id, reason, "an input is over");
                    self.all.remove(&id);
                }
                news
            }
            ProcessEvent::Lost(why) => {
                tracing::error!(input = %id, why, "an input was lost");
                entry.process = None;
                InputEvent::Lost(why)
            }
        })
    }
}

/// What is heard of a process.
pub(super) enum ProcessEvent {
    Input(InputEvent),
    Lost(String),
}

/// What a process' messages are for.
struct Attached {
    id: InputId,
    generation: u32,
    commands: mpsc::Sender<Command>,
    uplink: Arc<Uplink>,
}

impl Attached {
    fn command(&self, event: ProcessEvent) -> Command {
        Command::InputProcess(self.id, self.generation, event)
    }
}

/// Hears one process on its link's reader: media goes on at once, the rest to the room.
#[derive(Default)]
struct InputListener {
    /// Unset until the encoder of a pushed input was let in.
    attached: Arc<OnceLock<Attached>>,
    /// Who waits for what an encoder wants.
    publishing: Option<oneshot::Sender<Publishing>>,
    codecs: Vec<(SourceKind, Codec)>,
    ended: bool,
}

/// What an encoder wants.
pub struct Publishing {
    /// The application.
    pub app: String,
    /// The stream key, with its query.
    pub key: Secret,
}

impl Pushed {
    /// Starts a process that reads what an encoder sends; gives what that wants, once it has event so.
    ///
    /// # Errors
    /// Those of creating sockets and processes.
    pub fn receive(command: &ProcessCommand, connection: OwnedFd) -> io::Result<(Self, oneshot::Receiver<Publishing>)> {
        let (publishing, wish) = oneshot::channel();
        let listener = InputListener { publishing: Some(publishing), ..InputListener::default() };
        let attached = listener.attached.clone();
        let process: InputProcess = process::start_with(command, connection, listener)?;
        process.link.send(ToInput::Receive);
        Ok((Self { process, attached }, wish))
    }

    /// Tells the encoder why it may not, and ends.
    pub async fn refuse(self, why: String) {
        self.process.finish(ToInput::Refuse { why }, PATIENCE).await;
    }

    /// What it is in a room.
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
                    // Nobody waits any more for one that took too long.
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
                }
            }
            // It comes again: a room too busy to hear it misses nothing that lasts.
            FromInput::Report(report) => {
                if let Some(attached) = self.attached.get() {
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

    fn lost(&mut self, why: &str) {
        self.publishing = None;
        if !self.ended {
            self.tell(ProcessEvent::Lost(why.to_owned()));
        }
    }
}

impl InputListener {
    /// Tells what must be heard, without waiting for it; fails only when the room itself is over.
    fn tell(&self, event: ProcessEvent) {
        let Some(attached) = self.attached.get() else { return };
        let command = attached.command(event);
        if let Err(mpsc::error::TrySendError::Full(command)) = attached.commands.try_send(command) {
            let commands = attached.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }
}
