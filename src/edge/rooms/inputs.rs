//! The inputs of a room in the edge: what is asked for, and the processes that fetch it.
//!
//! Owns: [`InputRequest`], and [`Inputs`]: each input's source with what is secret of it, and its process. Does not know:
//! when an input begins, ends or begins again ([`crate::room::inputs`] does), what its process does.
//! A process' packets go the way of a participant's, from its link's reader through an [`Uplink`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::ServerSettings;
use super::task::Command;
use super::uplink::Uplink;
use crate::destination::{Destination, Host, SecretForm, Target};
use crate::edge::peer::SourceSink;
use crate::edge::supervise::{self, InputProcess, Listener};
use crate::id::{InputId, RoomName};
use crate::link::input::{FromInput, InputSettings, ToInput};
use crate::media::{Codec, SourceKind};
use crate::room::inputs::{InputNews, InputWish};
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
    /// Where it is from, with its secrets.
    pub(super) source: SecretForm,
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
        let wish = InputWish { url: source.redacted(), name, repeat: self.repeat };
        Ok(PlannedInput { wish, source: source.secret_form() })
    }
}

/// What is written on a tile where nobody said it.
fn usual_name(source: &Destination) -> String {
    match (source.target(), source.endpoint()) {
        (Target::File(name), _) => name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned(),
        (_, Some(endpoint)) => endpoint.host.to_string(),
        (_, None) => "input".to_owned(),
    }
}

/// The inputs of one room.
pub(super) struct Inputs {
    all: BTreeMap<InputId, Seat>,
    endings: TaskTracker,
}

struct Seat {
    source: SecretForm,
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
        self.all.insert(id, Seat { source, repeat: wish.repeat, uplink, generation: 0, process: None });
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
        let Some(seat) = self.all.get_mut(&id) else { return Ok(()) };
        seat.generation += 1;
        let listener = Ear {
            id,
            generation: seat.generation,
            commands,
            uplink: seat.uplink.clone(),
            codecs: Vec::new(),
            ended: false,
        };
        let process: InputProcess = supervise::start(&server.inputs.command, listener)
            .map_err(|error| format!("cannot start {:?}: {error}", server.inputs.command))?;
        tracing::info!(input = %id, pid = process.pid, "input started");
        process.link.send(ToInput::Configure(InputSettings {
            room: room.clone(),
            source: seat.source.clone(),
            repeat: seat.repeat,
            media_dir: server.inputs.media_dir.clone(),
            guard: server.inputs.guard.clone(),
            picture: server.canvas,
            fps: server.fps,
            openh264: server.openh264,
            threads: server.mixer_threads,
        }));
        seat.process = Some(process);
        Ok(())
    }

    /// Ends an input; its process says goodbye in the background.
    pub(super) fn stop(&mut self, id: InputId) {
        if let Some(process) = self.all.remove(&id).and_then(|seat| seat.process) {
            self.endings.spawn(process.finish(ToInput::Stop, PATIENCE));
        }
    }

    /// Asks for a keyframe of what this source of a participant shows, if it is one of an input.
    pub(super) fn ask_keyframe(&self, uplink: &Arc<Uplink>) {
        let seat = self.all.values().find(|seat| Arc::ptr_eq(&seat.uplink, uplink));
        if let Some(process) = seat.and_then(|seat| seat.process.as_ref()) {
            process.link.send(ToInput::Keyframe);
        }
    }

    /// What a process of this generation says about its input; None when there is a newer one.
    pub(super) fn news(&mut self, id: InputId, generation: u32, said: Said) -> Option<InputNews> {
        let seat = self.all.get_mut(&id).filter(|seat| seat.generation == generation)?;
        Some(match said {
            Said::News(news) => {
                if let InputNews::Ended(reason) = &news {
                    tracing::info!(input = %id, reason, "an input is over");
                    self.all.remove(&id);
                }
                news
            }
            Said::Lost(why) => {
                tracing::error!(input = %id, why, "an input was lost");
                seat.process = None;
                InputNews::Lost(why)
            }
        })
    }
}

/// What is heard of a process.
pub(super) enum Said {
    News(InputNews),
    Lost(String),
}

/// Hears one process on its link's reader: media goes on at once, the rest to the room.
struct Ear {
    id: InputId,
    generation: u32,
    commands: mpsc::Sender<Command>,
    uplink: Arc<Uplink>,
    codecs: Vec<(SourceKind, Codec)>,
    ended: bool,
}

impl Listener for Ear {
    type Message = FromInput;

    fn message(&mut self, message: FromInput) {
        match message {
            FromInput::Ready { missing } => {
                for what in missing {
                    tracing::warn!(what, "an input lacks something");
                }
            }
            FromInput::Started { kind, codec } => {
                self.codecs.retain(|(known, _)| *known != kind);
                self.codecs.push((kind, codec));
            }
            FromInput::Packet(kind, packet) => {
                if let Some((_, codec)) = self.codecs.iter().find(|(known, _)| *known == kind) {
                    self.uplink.packet("", kind, *codec, packet);
                }
            }
            // It comes again: a room too busy to hear it misses nothing that lasts.
            FromInput::Report(report) => {
                let _ = self.commands.try_send(self.command(Said::News(InputNews::Report(report))));
            }
            FromInput::Ended { reason } => {
                self.ended = true;
                send(self.commands.clone(), self.command(Said::News(InputNews::Ended(reason))));
            }
        }
    }

    fn lost(&mut self, why: &str) {
        if !self.ended {
            send(self.commands.clone(), self.command(Said::Lost(why.to_owned())));
        }
    }
}

impl Ear {
    fn command(&self, said: Said) -> Command {
        Command::Injected(self.id, self.generation, said)
    }
}

/// Sends without waiting for it; fails only when the room itself is over.
fn send(commands: mpsc::Sender<Command>, command: Command) {
    if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(command) {
        tokio::spawn(async move { commands.send(command).await });
    }
}
