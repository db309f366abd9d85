//! The rooms of this node, as the HTTP API uses them.
//!
//! Owns: the tasks of rooms ([`task`]) and the table of sessions ([`sessions`]). Does not know: HTTP, roles and tokens
//! (callers check them), what happens inside a room ([`crate::room`]). Each method sends one command to a room's task
//! or one request to a session's peer, and holds no lock while it waits.

mod command;
mod error;
mod hls;
mod inputs;
mod mixing;
mod outputs;
mod overlays;
mod player;
mod routes;
mod sessions;
mod settings;
mod silence;
mod source_rate;
mod store;
mod task;
mod texts;
mod uplink;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::command::Command;
pub use self::error::RoomError;
pub use self::hls::{HlsBroadcast, HlsBroadcasts};
pub use self::inputs::{InputRequest, Publishing, Pushed};
use self::outputs::Planned;
pub use self::outputs::{BroadcastRequest, RecordingRequest};
pub use self::player::{PlayerEvent, PlayerEventStream, PlayerUpdate};
use self::sessions::Session;
pub use self::sessions::{IfMatch, JoinEndpoint, JoinOptions, Joined, Seat, SessionDocument, Trickled};
pub use self::settings::{InputServerSettings, RecordingSettings, RoomCounters, ServerSettings};
use self::store::{Restored, Store};
use self::task::RoomTask;
use crate::id::{InputId, OutputId, ParticipantId, RoomName, ViewName};
use crate::peer::PeerConfig;
use crate::process::ProcessCommand;
use crate::recordings::RecordingFile;
use crate::room::chat::{ChatMessage, ChatRequest, Reader, Readers, Sender};
use crate::room::direct::DirectMessage;
use crate::room::document::{
    Audience, BroadcastDocument, InputDocument, LeaveReason, ParticipantDocument, ParticipantPatch, RecordingDocument,
    RoomDocument, RoomPatch, ViewSettingsDocument,
};
use crate::room::emoji::Emoji;
use crate::room::inputs::InputEvent;
use crate::room::lobby::Door;
use crate::room::moderation::{Changer, Decision, Moderator};
use crate::room::outputs::OutputEvent;
use crate::room::view_request::ViewRequest;
use crate::room::{Input, Refusal};
use crate::time;

/// Longest time for a room's task to take or answer a command. It usually takes microseconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest time to close all connections at shutdown.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest time for recordings to finish their files at shutdown.
const LAST_WRITES: Duration = Duration::from_secs(8);

/// The events of a room for one reader.
#[derive(Debug)]
pub struct EventStream {
    /// The room's document, to be sent first.
    pub first: Arc<str>,
    /// Everything after it.
    pub rest: broadcast::Receiver<Notification>,
    /// The reader is in the lobby: until it is let in, it gets only what is for it alone.
    pub waits: bool,
}

/// A message to the readers of a room's events.
#[derive(Debug, Clone)]
pub enum Notification {
    /// An event, as JSON.
    Event(Arc<str>),
    /// An event for these readers only, as JSON.
    Private(Arc<Readers>, Arc<str>),
    /// Messages for one participant each, as JSON.
    Each(Arc<BTreeMap<ParticipantId, Vec<Arc<str>>>>),
    /// This participant was let in: it opens the events anew.
    Admitted(ParticipantId),
    /// The session of this participant has ended; its last event came before.
    Gone(ParticipantId),
}

/// The rooms of this node; clones are the same rooms.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    /// The settings of new rooms.
    settings: ArcSwap<ServerSettings>,
    peers: PeerConfig,
    rooms: Mutex<HashMap<RoomName, mpsc::Sender<Command>>>,
    sessions: Mutex<HashMap<String, Session>>,
    stopping: AtomicBool,
    /// The settings of rooms that outlive the server; None: nothing is kept.
    store: Mutex<Option<Store>>,
}

impl Rooms {
    /// No rooms yet.
    pub fn new(settings: ServerSettings, peers: PeerConfig) -> Self {
        let inner = Inner {
            settings: ArcSwap::from_pointee(settings),
            peers,
            rooms: Mutex::default(),
            sessions: Mutex::default(),
            stopping: AtomicBool::new(false),
            store: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Creates the rooms that are kept in this folder, and keeps those that are created from now on.
    pub fn restore(&self, folder: &Path) {
        let (store, kept) = Store::open(folder, time::wall());
        *self.inner.store.lock() = Some(store);
        let mut rooms = self.inner.rooms.lock();
        for Restored { name, patch, kept_out } in kept {
            match self.spawn(&mut rooms, &name, true) {
                Ok(room) => {
                    post(&room, Command::Input(Input::Patch(patch)));
                    post(&room, Command::KeepOut(kept_out));
                }
                Err(error) => tracing::error!(%name, %error, "a room is not restored"),
            }
        }
    }

    /// Keeps the settings of a room over a restart, if it exists until it is deleted. Returns its document.
    async fn keep(
        &self,
        name: &RoomName,
        room: &mpsc::Sender<Command>,
        is_new: bool,
    ) -> Result<RoomDocument, RoomError> {
        let document = document(room).await?;
        self.write_store(name, "the settings of the room are not kept over a restart", |store| {
            if is_new || store.contains(name) { store.keep(&document) } else { Ok(()) }
        });
        Ok(document)
    }

    /// Changes the store if there is one. Blocks until the change is on the disk; a failure is only logged.
    fn write_store(&self, name: &RoomName, failure: &str, write: impl FnOnce(&mut Store) -> io::Result<()>) {
        if self.inner.store.lock().is_none() {
            return;
        }
        let written = tokio::task::block_in_place(|| self.inner.store.lock().as_mut().map_or(Ok(()), write));
        if let Err(error) = written {
            tracing::error!(%name, %error, "{failure}");
        }
    }

    /// Changes the settings of rooms that begin from now on. Counters, broadcasts, recordings and endings stay.
    pub fn reconfigure(&self, settings: ServerSettings) {
        self.inner.settings.rcu(|old| ServerSettings {
            counters: old.counters.clone(),
            hls: old.hls.clone(),
            library: old.library.clone(),
            endings: old.endings.clone(),
            ..settings.clone()
        });
    }

    /// The settings of new rooms.
    fn settings(&self) -> Arc<ServerSettings> {
        self.inner.settings.load_full()
    }

    /// Every room.
    pub async fn list(&self) -> Vec<RoomDocument> {
        let rooms: Vec<_> = self.inner.rooms.lock().values().cloned().collect();
        let mut documents = Vec::with_capacity(rooms.len());
        for room in rooms {
            // A room may end meanwhile.
            documents.extend(document(&room).await.ok());
        }
        documents.sort_by(|a, b| a.name.cmp(&b.name));
        documents
    }

    /// The document of a room.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn room(&self, name: &RoomName) -> Result<RoomDocument, RoomError> {
        document(&self.find(name)?).await
    }

    /// The document of a room for a reader: moderators also see the lobby.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn room_for(&self, name: &RoomName, reader: Reader) -> Result<RoomDocument, RoomError> {
        ask(&self.find(name)?, |reply| Command::Document(reader, reply)).await
    }

    /// What is decided at the door of a room; None without the room.
    pub async fn door(&self, name: &RoomName) -> Option<Door> {
        ask(&self.find(name).ok()?, Command::Door).await.ok()
    }

    /// Carries out a moderator's decision.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Moderation`].
    pub async fn decide(&self, name: &RoomName, by: Moderator, decision: Decision) -> Result<(), RoomError> {
        let room = self.find(name)?;
        ask(&room, |reply| Command::Decide(by, decision, reply)).await??;
        if matches!(decision, Decision::Remove(_, keep_out) if !keep_out.is_zero()) {
            let kept_out = ask(&room, Command::KeptOut).await?;
            self.write_store(name, "the removed person may join again after a restart", |store| {
                store.keep_out(name, &kept_out, time::wall())
            });
        }
        Ok(())
    }

    /// Creates a room that exists until it is deleted.
    ///
    /// # Errors
    /// [`RoomError::RoomExists`], [`RoomError::TooManyRooms`].
    pub async fn create(&self, name: &RoomName, patch: RoomPatch) -> Result<RoomDocument, RoomError> {
        let room = {
            let mut rooms = self.inner.rooms.lock();
            if rooms.contains_key(name) {
                return Err(RoomError::RoomExists(name.clone()));
            }
            let room = self.spawn(&mut rooms, name, true)?;
            // The first command of the room. Nothing is awaited before it: a client that closes its connection must not
            // leave a room without the settings it asked for.
            post(&room, Command::Input(Input::Patch(patch)));
            room
        };
        self.keep(name, &room, true).await
    }

    /// Changes a room.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn patch(&self, name: &RoomName, patch: RoomPatch) -> Result<RoomDocument, RoomError> {
        let room = self.find(name)?;
        tell(&room, Input::Patch(patch)).await?;
        self.keep(name, &room, false).await
    }

    /// Deletes a room and closes all connections in it.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn delete(&self, name: &RoomName) -> Result<(), RoomError> {
        let room = self.find(name)?;
        // First, so that no later change of the room that ends keeps it.
        self.write_store(name, "the room comes back after a restart", |store| store.forget(name));
        tell(&room, Input::Delete).await
    }

    /// The document of a participant.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoParticipant`].
    pub async fn participant(&self, name: &RoomName, id: ParticipantId) -> Result<ParticipantDocument, RoomError> {
        let found = ask(&self.find(name)?, |reply| Command::Participant(id, reply)).await?;
        found.ok_or(RoomError::NoParticipant(id))
    }

    /// Changes a participant.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoParticipant`], [`RoomError::Moderation`], [`RoomError::View`],
    /// [`RoomError::Overlay`].
    pub async fn update(
        &self,
        name: &RoomName,
        by: Changer,
        id: ParticipantId,
        patch: ParticipantPatch,
    ) -> Result<ParticipantDocument, RoomError> {
        let answer = ask(&self.find(name)?, |reply| Command::Update(by, id, Box::new(patch), reply)).await?;
        answer?.ok_or(RoomError::NoParticipant(id))
    }

    /// A named view with its settings and tiles.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::View`].
    pub async fn view(&self, name: &RoomName, view: &ViewName) -> Result<ViewSettingsDocument, RoomError> {
        Ok(ask(&self.find(name)?, |reply| Command::View(view.clone(), reply)).await??)
    }

    /// Creates or replaces a view. Returns whether it is new, and its document.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::View`].
    pub async fn put_view(
        &self,
        name: &RoomName,
        view: &ViewName,
        request: ViewRequest,
    ) -> Result<(bool, ViewSettingsDocument), RoomError> {
        let room = self.find(name)?;
        let is_new = ask(&room, |reply| Command::PutView(view.clone(), Box::new(request), reply)).await??;
        Ok((is_new, ask(&room, |reply| Command::View(view.clone(), reply)).await??))
    }

    /// Deletes a view; its receivers get `program`.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::View`].
    pub async fn delete_view(&self, name: &RoomName, view: &ViewName) -> Result<(), RoomError> {
        Ok(ask(&self.find(name)?, |reply| Command::DeleteView(view.clone(), reply)).await??)
    }

    /// Removes a participant; the event `left` gives the reason.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoParticipant`].
    pub async fn remove(&self, name: &RoomName, id: ParticipantId, reason: LeaveReason) -> Result<(), RoomError> {
        self.participant(name, id).await?;
        tell(&self.find(name)?, Input::Left(id, reason)).await
    }

    /// Starts a recording.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`Refusal::FullOfOutputs`], [`RoomError::Output`] for an invalid request.
    pub async fn record(&self, name: &RoomName, request: &RecordingRequest) -> Result<RecordingDocument, RoomError> {
        let room = self.find(name)?;
        let planned = request.plan(name, &self.settings()).map_err(RoomError::Output)?;
        let id = self.add_output(&room, planned).await?;
        self.recording(name, id).await
    }

    /// The document of a recording.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoOutput`].
    pub async fn recording(&self, name: &RoomName, id: OutputId) -> Result<RecordingDocument, RoomError> {
        let room = self.room(name).await?;
        room.recordings.into_iter().find(|known| known.id == id).ok_or(RoomError::NoOutput(id))
    }

    /// Finishes a recording; returns its document as it is then.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoOutput`].
    pub async fn stop_recording(&self, name: &RoomName, id: OutputId) -> Result<RecordingDocument, RoomError> {
        self.recording(name, id).await?;
        tell(&self.find(name)?, Input::Output(id, OutputEvent::Stop)).await?;
        self.recording(name, id).await
    }

    /// Starts a broadcast.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`Refusal::FullOfOutputs`], [`RoomError::Output`] for an invalid request.
    pub async fn broadcast(&self, name: &RoomName, request: &BroadcastRequest) -> Result<BroadcastDocument, RoomError> {
        let room = self.find(name)?;
        let planned = request.plan(name, &self.settings()).map_err(RoomError::Output)?;
        let id = self.add_output(&room, planned).await?;
        self.broadcast_of(name, id).await
    }

    /// The document of a broadcast.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoOutput`].
    pub async fn broadcast_of(&self, name: &RoomName, id: OutputId) -> Result<BroadcastDocument, RoomError> {
        let room = self.room(name).await?;
        room.broadcasts.into_iter().find(|known| known.id == id).ok_or(RoomError::NoOutput(id))
    }

    /// Finishes a broadcast; returns its document as it is then.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoOutput`].
    pub async fn stop_broadcast(&self, name: &RoomName, id: OutputId) -> Result<BroadcastDocument, RoomError> {
        self.broadcast_of(name, id).await?;
        tell(&self.find(name)?, Input::Output(id, OutputEvent::Stop)).await?;
        self.broadcast_of(name, id).await
    }

    /// Adds an input, which becomes a participant; creates the room if necessary, as a join does.
    ///
    /// # Errors
    /// When the room cannot be created, has its maximum of inputs or participants, or the request is invalid.
    pub async fn add_input(&self, name: &RoomName, request: &InputRequest) -> Result<InputDocument, RoomError> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(RoomError::ShuttingDown);
        }
        let planned = request.plan(&self.settings()).map_err(RoomError::Input)?;
        let room = self.room_for_join(name)?;
        let id = ask(&room, |reply| Command::AddInput(planned, reply)).await??;
        self.input(name, id).await
    }

    /// Adds an input that an encoder pushes; creates the room if necessary, as a join does.
    ///
    /// # Errors
    /// When the room cannot be created, or has its maximum of inputs or participants; the encoder's connection is
    /// closed then.
    pub async fn publish(&self, name: &RoomName, shown: String, pushed: Pushed) -> Result<InputId, RoomError> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(RoomError::ShuttingDown);
        }
        let room = self.room_for_join(name)?;
        let planned = pushed.plan(name, shown);
        Ok(ask(&room, |reply| Command::AddInput(planned, reply)).await??)
    }

    /// The command that starts an input process.
    pub(crate) fn input_command(&self) -> ProcessCommand {
        self.settings().inputs.command.clone()
    }

    /// The document of an input.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoInput`].
    pub async fn input(&self, name: &RoomName, id: InputId) -> Result<InputDocument, RoomError> {
        let room = self.room(name).await?;
        room.inputs.into_iter().find(|known| known.id == id).ok_or(RoomError::NoInput(id))
    }

    /// Ends an input; returns its document as it is then.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::NoInput`].
    pub async fn stop_input(&self, name: &RoomName, id: InputId) -> Result<InputDocument, RoomError> {
        self.input(name, id).await?;
        tell(&self.find(name)?, Input::Input(id, InputEvent::Stop)).await?;
        self.input(name, id).await
    }

    async fn add_output(&self, room: &mpsc::Sender<Command>, planned: Planned) -> Result<OutputId, RoomError> {
        Ok(ask(room, |reply| Command::AddOutput(Box::new(planned), reply)).await??)
    }

    /// Sends a chat message; returns it.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Chat`].
    pub async fn chat(&self, name: &RoomName, from: Sender, request: ChatRequest) -> Result<ChatMessage, RoomError> {
        Ok(ask(&self.find(name)?, |reply| Command::Chat(from, request, reply)).await??)
    }

    /// The chat messages that are kept, after the one with this id, as a reader may read them.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn chat_after(&self, name: &RoomName, id: u64, reader: Reader) -> Result<Vec<ChatMessage>, RoomError> {
        ask(&self.find(name)?, |reply| Command::ChatAfter(id, reader, reply)).await
    }

    /// Shows a participant's reaction.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn react(&self, name: &RoomName, from: ParticipantId, emoji: Emoji) -> Result<(), RoomError> {
        tell(&self.find(name)?, Input::React(from, emoji)).await
    }

    /// Passes on a client's message about a direct call of two.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn direct(&self, name: &RoomName, from: ParticipantId, message: DirectMessage) -> Result<(), RoomError> {
        tell(&self.find(name)?, Input::Direct(from, message)).await
    }

    /// Opens the events of a room for a reader. They begin with the room's document, in the lobby with the reader's.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn events(&self, name: &RoomName, reader: Reader) -> Result<EventStream, RoomError> {
        ask(&self.find(name)?, |reply| Command::Events(reader, reply)).await
    }

    /// The audience of a room, and its changes.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`].
    pub async fn audience(&self, name: &RoomName) -> Result<watch::Receiver<Audience>, RoomError> {
        ask(&self.find(name)?, Command::Audience).await
    }

    /// Counters of all rooms.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> RoomCounters {
        self.settings().counters.clone()
    }

    /// The HLS broadcasts of all rooms.
    pub fn hls(&self) -> HlsBroadcasts {
        self.settings().hls.clone()
    }

    /// Refuses new joins, ends every room and closes every connection.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let rooms: Vec<_> = self.inner.rooms.lock().values().cloned().collect();
        let peers: Vec<_> = self.inner.sessions.lock().values().map(|session| session.peer.clone()).collect();
        // A stuck room delays neither the others nor the shutdown.
        let deletions = rooms.iter().map(|room| tell(room, Input::Delete));
        let stuck = futures::future::join_all(deletions).await.into_iter();
        let stuck = stuck.filter(|deleted| matches!(deleted, Err(RoomError::Stuck))).count();
        if stuck > 0 {
            tracing::error!(stuck, "rooms do not answer: shutdown goes on without them");
        }
        let goodbyes = futures::future::join_all(peers.iter().map(|peer| peer.close()));
        if tokio::time::timeout(GOODBYE, goodbyes).await.is_err() {
            tracing::warn!("some connections were not closed in time");
        }
        // Each room has ordered its outputs to finish; they do so in the background.
        let endings = self.settings().endings.clone();
        endings.close();
        if tokio::time::timeout(LAST_WRITES, endings.wait()).await.is_err() {
            tracing::warn!("some recordings did not finish in time; they are repaired at the next start");
        }
    }

    /// Reports the state of uploads to the rooms of the recordings, until the library is closed.
    pub async fn follow(self, mut changes: broadcast::Receiver<RecordingFile>) {
        loop {
            match changes.recv().await {
                Ok(change) => {
                    // The room may have ended.
                    if let Some((room, input)) = outputs::uploaded(change)
                        && let Ok(room) = self.find(&room)
                    {
                        let _ = tell(&room, input).await;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn find(&self, name: &RoomName) -> Result<mpsc::Sender<Command>, RoomError> {
        self.inner.rooms.lock().get(name).cloned().ok_or_else(|| RoomError::NoRoom(name.clone()))
    }

    fn room_for_join(&self, name: &RoomName) -> Result<mpsc::Sender<Command>, RoomError> {
        let mut rooms = self.inner.rooms.lock();
        match rooms.get(name) {
            Some(room) if !room.is_closed() => Ok(room.clone()),
            _ if !self.settings().auto_create => Err(RoomError::NoRoom(name.clone())),
            _ => self.spawn(&mut rooms, name, false),
        }
    }

    fn spawn(
        &self,
        rooms: &mut HashMap<RoomName, mpsc::Sender<Command>>,
        name: &RoomName,
        permanent: bool,
    ) -> Result<mpsc::Sender<Command>, RoomError> {
        let settings = self.settings();
        if rooms.len() >= settings.max_rooms {
            return Err(RoomError::TooManyRooms(settings.max_rooms));
        }
        let (this, ended) = (self.clone(), name.clone());
        let done = move || this.forget(&ended);
        let room = RoomTask::spawn(settings.room_settings(name.clone(), permanent), settings.clone(), done);
        rooms.insert(name.clone(), room.clone());
        settings.counters.rooms.set(rooms.len() as i64);
        Ok(room)
    }

    /// Removes a room that has ended, unless another room of the same name exists by now.
    fn forget(&self, name: &RoomName) {
        let mut rooms = self.inner.rooms.lock();
        if rooms.get(name).is_some_and(mpsc::Sender::is_closed) {
            rooms.remove(name);
        }
        self.settings().counters.rooms.set(rooms.len() as i64);
    }
}

/// The document of a room for everyone.
async fn document(room: &mpsc::Sender<Command>) -> Result<RoomDocument, RoomError> {
    ask(room, |reply| Command::Document(Reader::default(), reply)).await
}

async fn ask<T>(
    room: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, RoomError> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        room.send(command(reply)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Refusal::Ended.into()),
        Err(_) => Err(RoomError::Stuck),
    }
}

/// Sends an input to a room. Cancelling it sends nothing.
async fn tell(room: &mpsc::Sender<Command>, input: Input) -> Result<(), RoomError> {
    deliver(room, Command::Input(input)).await
}

/// Sends a command to a room; a stuck room is not waited for.
async fn deliver(room: &mpsc::Sender<Command>, command: Command) -> Result<(), RoomError> {
    match tokio::time::timeout(ANSWER, room.send(command)).await {
        Ok(sent) => sent.map_err(|_| Refusal::Ended.into()),
        Err(_) => Err(RoomError::Stuck),
    }
}

/// Sends a command to a room without waiting; while the room's queue is full, a task waits in the caller's place.
fn post(room: &mpsc::Sender<Command>, command: Command) {
    if let Err(TrySendError::Full(command)) = room.try_send(command)
        && let Ok(runtime) = Handle::try_current()
    {
        let room = room.clone();
        runtime.spawn(async move {
            if matches!(deliver(&room, command).await, Err(RoomError::Stuck)) {
                tracing::error!("room queue full: command dropped");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_room_that_reads_no_command_is_reported_as_stuck() {
        let (room, mut inbox) = mpsc::channel(1);
        tell(&room, Input::Timeout).await.expect("room in the queue");
        assert!(matches!(tell(&room, Input::Delete).await, Err(RoomError::Stuck)));
        assert!(matches!(document(&room).await, Err(RoomError::Stuck)));
        inbox.recv().await.expect("the first command");
        tell(&room, Input::Delete).await.expect("room in the queue again");
        drop(inbox);
        assert!(matches!(tell(&room, Input::Delete).await, Err(RoomError::Refused(Refusal::Ended))));
    }

    #[tokio::test(start_paused = true)]
    async fn many_stuck_rooms_delay_each_other_by_nothing() {
        let rooms: Vec<_> = (0..100).map(|_| mpsc::channel(1)).collect();
        for (room, _) in &rooms {
            tell(room, Input::Timeout).await.expect("room in the queue");
        }
        let begun = tokio::time::Instant::now();
        let sent = futures::future::join_all(rooms.iter().map(|(room, _)| tell(room, Input::Delete))).await;
        assert!(sent.iter().all(|sent| matches!(sent, Err(RoomError::Stuck))));
        assert!(begun.elapsed() < ANSWER * 2);
    }
}
