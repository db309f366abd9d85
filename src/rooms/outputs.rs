//! The output processes of a room: recordings and broadcasts.
//!
//! Owns: [`RecordingRequest`], [`BroadcastRequest`] and their validation; [`Outputs`], with each output's target
//! including its secrets, and its process. Does not know: when an output starts, restarts or ends
//! ([`crate::room::outputs`] decides), what its process does. A process may outlive its room until it has finished its
//! files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::command::Command;
use super::hls::HlsFeed;
use super::{ServerSettings, post};
use crate::destination::{Destination, Host};
use crate::id::{OutputId, RoomName, ViewName};
use crate::link::output::{
    Caption, FileReport, FileTarget, FromOutput, HlsTarget, Note, OutputSettings, SendTarget, Target, ToOutput,
};
use crate::media::{Codec, FileFormat, Tier};
use crate::plan::StreamSpec;
use crate::process::{self, Listener, Loss, OutputLink, OutputProcess};
use crate::recordings::{self, FileName, Library, RecordingFile};
use crate::room::chat::ChatMessage;
use crate::room::document::{Event, RecordingKind, RoomDocument, UploadDocument, UploadState, ViewDocument};
use crate::room::outputs::{OutputEvent, OutputKind, OutputWish};
use crate::room::{Input, OutputRoute};
use crate::secret::Secret;
use crate::time::{Timestamp, unix_seconds};

/// Longest time for a process to finish its files: the index of a recording of hours is a few megabytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shortest duration and smallest size at which a recording is split.
const CUT_SECONDS_MIN: u32 = 2;
/// See [`CUT_SECONDS_MIN`].
const CUT_MB_MIN: u32 = 1;

/// The body of `POST /v1/rooms/{room}/recordings`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordingRequest {
    /// What is recorded.
    pub kind: RecordingKind,
    /// The file format; absent for MP4, or Matroska for tracks.
    pub format: Option<FileFormat>,
    /// The view, of which the kind `tracks` takes none.
    pub view: Option<ViewName>,
    /// The video codec, where the format has a choice.
    pub video: Option<Codec>,
    /// The tier of the video.
    pub tier: Option<Tier>,
    /// Opus instead of AAC in MP4.
    pub opus: bool,
    /// Start another file after this many seconds.
    pub cut_seconds: Option<u32>,
    /// Start another file after this many megabytes.
    pub cut_mb: Option<u32>,
}

/// The body of `POST /v1/rooms/{room}/broadcasts`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BroadcastRequest {
    /// The URL of the server; absent for HLS, which this server provides itself.
    pub url: Option<Secret>,
    /// `hls`; absent where the URL names the protocol.
    pub kind: Option<BroadcastKind>,
    /// The bearer token for a WHIP server.
    pub token: Option<Secret>,
    /// The view.
    pub view: Option<ViewName>,
    /// The tier of the video; the best rendition of HLS.
    pub tier: Option<Tier>,
    /// HLS without a token for everyone who knows the room's name.
    pub public: bool,
}

/// Kinds of broadcasts without a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BroadcastKind {
    /// Low-latency HLS at `/hls/{room}/index.m3u8`.
    Hls,
}

impl BroadcastRequest {
    /// Validates the request.
    ///
    /// # Errors
    /// A message that says what to change, without secrets.
    pub(super) fn plan(&self, room: &RoomName, server: &ServerSettings) -> Result<Planned, String> {
        let tier = self.tier.unwrap_or(Tier::High);
        let view = self.view.clone().unwrap_or_else(ViewName::program);
        if [Tier::Audio, Tier::Slides].contains(&tier) {
            return Err("a broadcast is of the tier `high`, `medium` or `low`".to_owned());
        }
        if self.public && self.kind != Some(BroadcastKind::Hls) {
            return Err("`public` is for `\"kind\":\"hls\"`: other servers decide who may watch".to_owned());
        }
        match (&self.url, self.kind) {
            (Some(_), Some(_)) => Err("give either a `url`, or `\"kind\":\"hls\"` without one".to_owned()),
            (None, None) => Err("say where to: `{\"url\":\"rtmp://…\"}`, or `{\"kind\":\"hls\"}`".to_owned()),
            (None, Some(BroadcastKind::Hls)) => {
                if self.token.is_some() {
                    return Err("HLS takes no `token`: viewers show theirs as `?token=`".to_owned());
                }
                let tiers = [Tier::High, Tier::Medium, Tier::Low].into_iter().filter(|rung| *rung <= tier);
                Ok(Planned {
                    wish: OutputWish {
                        kind: OutputKind::Broadcast {
                            kind: "hls".to_owned(),
                            url: format!("/hls/{}/index.m3u8", room.in_url()),
                            public: self.public,
                        },
                        view,
                        streams: tiers.map(|tier| (Codec::H264, tier)).collect(),
                        sound: true,
                    },
                    target: Target::Hls(HlsTarget { segment: SEGMENT, part: PART, public: self.public }),
                })
            }
            (Some(url), None) => {
                let mut destination = Destination::output(url.expose()).map_err(|error| error.to_string())?;
                if let Some(token) = &self.token {
                    destination = destination.with_token(token.clone()).map_err(|error| error.to_string())?;
                }
                if let Some(Host::Address(address)) = destination.endpoint().map(|endpoint| &endpoint.host) {
                    // Host names are resolved, and their addresses checked, by the output process.
                    let why = |error| format!("{destination}: {error}");
                    server.broadcasts.check(*address).map_err(why)?;
                }
                Ok(Planned {
                    wish: OutputWish {
                        kind: OutputKind::Broadcast {
                            kind: destination.kind().to_owned(),
                            url: destination.redacted(),
                            public: false,
                        },
                        view,
                        streams: vec![(Codec::H264, tier)],
                        sound: true,
                    },
                    target: Target::Send(SendTarget {
                        destination: destination.secret_form(),
                        guard: server.broadcasts.clone(),
                    }),
                })
            }
        }
    }
}

/// Duration of an HLS segment: the keyframe interval that streaming services expect.
const SEGMENT: Duration = Duration::from_secs(2);
/// Duration of a part of a segment: a player's delay is at least three of them.
const PART: Duration = Duration::from_millis(500);

/// A validated request for an output.
pub(super) struct Planned {
    /// The request to the room.
    pub(super) wish: OutputWish,
    /// The target for the process.
    pub(super) target: Target,
}

impl RecordingRequest {
    /// Validates the request.
    ///
    /// # Errors
    /// A message that says what to change.
    pub(super) fn plan(&self, room: &RoomName, server: &ServerSettings) -> Result<Planned, String> {
        let tracks = self.kind == RecordingKind::Tracks;
        let format = self.format.unwrap_or(if tracks { FileFormat::Mkv } else { FileFormat::Mp4 });
        if tracks && format != FileFormat::Mkv {
            return Err(
                "tracks are recorded as `mkv` only, which supports every codec that participants send".to_owned()
            );
        }
        let codec = match (self.video, format.video()) {
            (Some(codec), held) if !held.contains(&codec) => {
                let held: Vec<_> = held.iter().map(|codec| codec.to_string().to_lowercase()).collect();
                let held = if held.is_empty() { "no video".to_owned() } else { held.join(", ") };
                return Err(format!("a recording as `{}` holds {held}", format.extension()));
            }
            (Some(codec), _) => Some(codec),
            (None, held) => held.first().copied(),
        };
        let tier = self.tier.unwrap_or(Tier::High);
        if tier == Tier::Audio {
            return Err("the tier `audio` has no picture: record as `ogg` for sound alone".to_owned());
        }
        if tracks && (self.cut_seconds.is_some() || self.cut_mb.is_some()) {
            return Err("tracks are not cut: leave out `cut_seconds` and `cut_mb`".to_owned());
        }
        if self.cut_seconds.is_some_and(|seconds| seconds < CUT_SECONDS_MIN) {
            return Err(format!("`cut_seconds` must be at least {CUT_SECONDS_MIN}"));
        }
        if self.cut_mb.is_some_and(|megabytes| megabytes < CUT_MB_MIN) {
            return Err(format!("`cut_mb` must be at least {CUT_MB_MIN}"));
        }
        let streams = codec.filter(|_| !tracks).map(|codec| (codec, tier)).into_iter().collect();
        let view = self.view.clone().unwrap_or_else(ViewName::program);
        let kind = OutputKind::Recording { kind: self.kind, format };
        let wish = OutputWish { kind, view, streams, sound: !tracks };
        let file = FileTarget {
            folder: server.recordings.folder.clone(),
            stem: format!("{}-{}", room.in_file_names(), stamp(unix_seconds())),
            part: 0,
            format,
            opus: self.opus,
            cut_after: self.cut_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            cut_bytes: self.cut_mb.map(|megabytes| u64::from(megabytes) * 1_000_000),
            floor_bytes: server.recordings.floor_bytes,
        };
        Ok(Planned { wish, target: if tracks { Target::Tracks(file) } else { Target::File(file) } })
    }
}

/// A time as in file names: `20261125-184231`, UTC.
fn stamp(unix_seconds: u64) -> String {
    let moment = i64::try_from(unix_seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let format = format_description!("[year][month][day]-[hour][minute][second]");
    moment.format(&format).expect("a date has all of its parts")
}

/// The outputs of one room.
pub(super) struct Outputs {
    all: BTreeMap<OutputId, OutputEntry>,
    endings: TaskTracker,
}

struct OutputEntry {
    target: Target,
    /// Counts its processes; late messages of an earlier process are ignored.
    generation: u32,
    process: Option<OutputProcess>,
    /// The store of its segments, for HLS.
    hls: Option<Arc<HlsFeed>>,
}

/// The configuration of a new process.
pub(super) struct Beginning {
    pub(super) room: RoomName,
    pub(super) epoch: Timestamp,
    pub(super) streams: Vec<StreamSpec>,
    pub(super) notes: Vec<Note>,
    pub(super) now: Timestamp,
}

impl Outputs {
    pub(super) fn new(endings: TaskTracker) -> Self {
        Self { all: BTreeMap::new(), endings }
    }

    /// Adds an output without starting it.
    pub(super) fn add(&mut self, id: OutputId, mut target: Target) {
        match &mut target {
            Target::File(file) | Target::Tracks(file) => file.stem = format!("{}-{id}", file.stem),
            Target::Send(_) | Target::Hls(_) => {}
        }
        self.all.insert(id, OutputEntry { target, generation: 0, process: None, hls: None });
    }

    /// Starts an output's process.
    ///
    /// # Errors
    /// A message for the output's document: the system cannot start the process.
    pub(super) fn start(
        &mut self,
        id: OutputId,
        server: &ServerSettings,
        beginning: Beginning,
        commands: mpsc::Sender<Command>,
    ) -> Result<(), String> {
        let Some(entry) = self.all.get_mut(&id) else { return Ok(()) };
        entry.generation += 1;
        let Beginning { room, epoch, streams, notes, now } = beginning;
        if let Target::Hls(target) = &entry.target {
            match &entry.hls {
                Some(broadcast) => broadcast.begin_generation(),
                None => entry.hls = Some(server.hls.begin(&room, &streams, *target, epoch)),
            }
        }
        let hls = entry.hls.clone();
        let (generation, library) = (entry.generation, server.library.clone());
        let listener =
            OutputListener { id, generation, commands, ended: false, hls, library, growing: BTreeSet::new() };
        let process: OutputProcess = process::start(&server.output.with_access(entry.target.access()), listener)
            .map_err(|error| format!("cannot start {:?}: {error}", server.output))?;
        tracing::info!(output = %id, pid = process.pid, "output started");
        let settings = OutputSettings { room, output: id, epoch, streams, target: entry.target.clone() };
        process.link.send(ToOutput::Configure(Box::new(settings)));
        notes.into_iter().for_each(|note| process.link.send(ToOutput::Note(now, note)));
        entry.process = Some(process);
        Ok(())
    }

    /// Finishes an output; its process completes its files in the background.
    pub(super) fn finish(&mut self, id: OutputId) {
        if let Some(process) = self.all.get_mut(&id).and_then(|entry| entry.process.take()) {
            self.endings.spawn(process.finish(ToOutput::Finish, PATIENCE));
        }
    }

    /// Finishes all outputs.
    pub(super) fn finish_all(&mut self) {
        let ids: Vec<OutputId> = self.all.keys().copied().collect();
        ids.into_iter().for_each(|id| self.finish(id));
    }

    /// Translates an event of a process; None for a process of an earlier generation.
    pub(super) fn process_event(&mut self, id: OutputId, generation: u32, event: ProcessEvent) -> Option<OutputEvent> {
        let entry = self.all.get_mut(&id).filter(|entry| entry.generation == generation)?;
        Some(match event {
            ProcessEvent::Message(FromOutput::KeyframeWanted { stream }) => OutputEvent::KeyframeWanted(stream),
            ProcessEvent::Message(FromOutput::SourceKeyframeWanted(source)) => {
                OutputEvent::SourceKeyframeWanted(source)
            }
            ProcessEvent::Message(FromOutput::Report(report)) => OutputEvent::Report(report),
            ProcessEvent::Message(FromOutput::File(file)) => {
                if let Target::File(target) | Target::Tracks(target) = &mut entry.target {
                    target.part = target.part.max(file.part + 1);
                }
                OutputEvent::File(file.name)
            }
            // The listener has stored it.
            ProcessEvent::Message(FromOutput::Hls { .. }) => return None,
            ProcessEvent::Message(FromOutput::Ended { failure }) => {
                entry.hls = None;
                if let Some(reason) = &failure {
                    tracing::error!(output = %id, reason, "output failed");
                }
                OutputEvent::Ended(failure)
            }
            ProcessEvent::Lost(why) => {
                tracing::error!(output = %id, why, "output process lost");
                entry.process = None;
                OutputEvent::Lost(why)
            }
        })
    }

    /// The link of a running output.
    pub(super) fn link(&self, id: OutputId) -> Option<&Arc<OutputLink>> {
        self.all.get(&id)?.process.as_ref().map(|process| &process.link)
    }

    /// The links of outputs that record participants' tracks.
    pub(super) fn taps(&self, routes: &[OutputRoute]) -> Vec<Arc<OutputLink>> {
        routes.iter().filter(|route| route.sources).filter_map(|route| self.link(route.output).cloned()).collect()
    }

    /// Sends a note to all running outputs.
    pub(super) fn note(&self, now: Timestamp, note: &Note) {
        for process in self.all.values().filter_map(|entry| entry.process.as_ref()) {
            process.link.send(ToOutput::Note(now, note.clone()));
        }
    }
}

/// An event of an output's process.
pub(super) enum ProcessEvent {
    Message(FromOutput),
    Lost(String),
}

/// The listener of one process, on its link's reader.
struct OutputListener {
    id: OutputId,
    generation: u32,
    commands: mpsc::Sender<Command>,
    ended: bool,
    hls: Option<Arc<HlsFeed>>,
    library: Library,
    /// The files that the process has started and not completed.
    growing: BTreeSet<FileName>,
}

impl OutputListener {
    /// Keeps track of the process's files: the library takes over each file that is no longer written, even after the
    /// room has ended.
    fn file(&mut self, report: &FileReport) {
        let Ok(name) = report.name.parse::<FileName>() else {
            tracing::error!(output = %self.id, name = report.name, "invalid file name from output");
            return;
        };
        if report.complete {
            self.growing.remove(&name);
            self.library.finished(name);
        } else {
            self.growing.insert(name);
        }
    }

    /// The process has ended: the library takes over the files that it has left.
    fn over(&mut self) {
        std::mem::take(&mut self.growing).into_iter().for_each(|name| self.library.finished(name));
    }

    fn command(&self, event: ProcessEvent) -> Command {
        Command::OutputProcess(self.id, self.generation, event)
    }
}

impl Listener for OutputListener {
    type Message = FromOutput;

    fn message(&mut self, message: FromOutput) {
        if let FromOutput::Hls { rendition, piece } = message {
            return self.hls.iter().for_each(|broadcast| broadcast.push(rendition, piece.clone()));
        }
        if matches!(message, FromOutput::Ended { .. }) {
            self.ended = true;
            self.hls = None;
        }
        if let FromOutput::File(report) = &message {
            self.file(report);
        }
        // Reports and keyframe requests are sent again; the few other messages must not be dropped.
        let comes_again = matches!(
            message,
            FromOutput::Report(_) | FromOutput::KeyframeWanted { .. } | FromOutput::SourceKeyframeWanted(_)
        );
        let command = self.command(ProcessEvent::Message(message));
        if comes_again {
            let _ = self.commands.try_send(command);
        } else {
            post(&self.commands, command);
        }
    }

    fn lost(&mut self, loss: &Loss) {
        self.over();
        if !self.ended {
            post(&self.commands, self.command(ProcessEvent::Lost(loss.why.clone())));
        }
    }
}

/// The input of a room for a change of the library; None for a change that concerns no room.
pub(super) fn uploaded(change: RecordingFile) -> Option<(RoomName, Input)> {
    let upload = match change.upload? {
        recordings::UploadState::Waiting { error, .. } => UploadDocument { state: UploadState::Waiting, error },
        recordings::UploadState::Uploading { .. } => UploadDocument { state: UploadState::Uploading, error: None },
        recordings::UploadState::Done { .. } => UploadDocument { state: UploadState::Done, error: None },
    };
    let event = OutputEvent::Upload(change.file.as_str().to_owned(), upload);
    Some((change.room?, Input::Output(change.recording?, event)))
}

/// The note of an event for recordings; None for events that they do not keep.
pub(super) fn note(event: &Event) -> Option<Note> {
    Some(match event {
        Event::Joined { participant } | Event::Updated { participant } => {
            Note::Here { participant: participant.id, name: participant.display_name.clone() }
        }
        Event::Left { participant, .. } => Note::Gone(*participant),
        Event::Speaker { participant, .. } => Note::Speaker(*participant),
        Event::Layout(view) if view.view == ViewName::program() => layout(view),
        Event::Chat(ChatMessage { participant, name, text, to: None, .. }) => {
            Note::Chat { participant: *participant, name: name.clone(), text: text.clone() }
        }
        Event::Caption { participant, name, text, is_final: true, language } => {
            let (name, text, language) = (name.clone(), text.clone(), language.clone());
            Note::Caption(Caption { participant: *participant, name, text, language })
        }
        _ => return None,
    })
}

/// Notes of the room's present state, for a recording that starts.
pub(super) fn notes(room: &RoomDocument) -> Vec<Note> {
    let people = room.participants.iter();
    let mut notes: Vec<Note> =
        people.map(|person| Note::Here { participant: person.id, name: person.display_name.clone() }).collect();
    notes.extend(room.views.iter().filter(|view| view.view == ViewName::program()).map(layout));
    notes.push(Note::Speaker(room.speaker));
    notes
}

fn layout(view: &ViewDocument) -> Note {
    let tiles = view.tiles.iter().map(|tile| (tile.participant, tile.source, tile.rect()));
    Note::Layout { canvas: view.canvas, tiles: tiles.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_date_in_utc() {
        assert_eq!(stamp(0), "19700101-000000");
        assert_eq!(stamp(1_795_632_151), "20261125-184231");
    }
}
