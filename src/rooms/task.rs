//! One room's task: the shell around the sans-IO [`Room`].
//!
//! Owns: the room's state, its mixer process, the handles of its peers, its routes and events. Does not know: HTTP,
//! SDP, codecs. Commands come from one bounded queue, the subscribers' demand from [`Router`]; [`RoomTask::perform`]
//! carries out the room's effects. Media never passes through the task: the link's reader walks the route table,
//! sessions write to the link.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::command::{COMMANDS, Command};
use super::inputs::{Inputs, PlannedInput};
use super::mixing::MixerListener;
use super::outputs::{self, Beginning, Outputs, Planned};
use super::overlays::image_parts;
use super::routes::{FanOut, Router};
use super::sessions::{Admittance, JoinedPeer};
use super::texts::{ICE_RESTART, direct_text, event_text, levels_text, private_text, wanted_text};
use super::uplink::{CurrentLink, Taps, Uplink};
use super::{EventStream, Notification, RoomError, ServerSettings};
use crate::fanout::Names;
use crate::id::{InputId, OutputId, ParticipantId, SourceId};
use crate::link::output::ToOutput;
use crate::link::{FromMixer, MixerReport, ToMixer, journal};
use crate::media::{Kind, Size, SourceKind};
use crate::peer::PeerEvent;
use crate::process::{self, Link, Loss, MixerProcess};
use crate::room::document::{Audience, Event, LeaveReason, ParticipantPatch};
use crate::room::inputs::InputEvent;
use crate::room::moderation::Changer;
use crate::room::outputs::OutputEvent;
use crate::room::{Admitted, Effect, Input, Order, Refusal, Room, RoomSettings};
use crate::time::{self, Timestamp};

/// Events that a reader may lag behind before it is closed.
const EVENTS: usize = 256;
/// Shortest time between two batches of the subscribers' demand: a thousand simultaneous reports are one input of the
/// room.
const DEMAND_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct RoomTask {
    room: Room,
    server: Arc<ServerSettings>,
    epoch: Timestamp,
    commands: mpsc::Sender<Command>,
    mixer: Option<MixerProcess>,
    /// The journal of the running mixer.
    journal: Option<File>,
    generation: u64,
    /// The last report of the running mixer.
    mixed: MixerReport,
    link: CurrentLink,
    taps: Taps,
    outputs: Outputs,
    inputs: Inputs,
    router: Router,
    names: Names,
    peers: BTreeMap<ParticipantId, Member>,
    events: broadcast::Sender<Notification>,
    /// Messages for one participant each that wait for the next notification.
    each: BTreeMap<ParticipantId, Vec<Arc<str>>>,
    audience: watch::Sender<Audience>,
    ended: bool,
}

struct Member {
    uplink: Arc<Uplink>,
    sources: Vec<(SourceKind, SourceId)>,
    /// None until [`Command::Attach`].
    peer: Option<JoinedPeer>,
    /// The limit of its uplink in bits per second.
    uplink_limit: Option<u64>,
    /// The sizes at which its sources are shown at most.
    wanted: BTreeMap<SourceKind, Size>,
}

impl RoomTask {
    /// Starts a room; `done` is called when it has ended.
    pub(super) fn spawn(
        settings: RoomSettings,
        server: Arc<ServerSettings>,
        done: impl FnOnce() + Send + 'static,
    ) -> mpsc::Sender<Command> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let now = time::now();
        let name = settings.name.clone();
        let router = Router::new(settings.ladder.costs());
        let task = Self {
            room: Room::new(settings, now),
            outputs: Outputs::new(server.endings.clone()),
            inputs: Inputs::new(server.endings.clone()),
            server,
            epoch: now,
            commands: commands.clone(),
            mixer: None,
            journal: None,
            generation: 0,
            mixed: MixerReport::default(),
            link: CurrentLink::default(),
            taps: Taps::default(),
            router,
            names: Names::random(),
            peers: BTreeMap::new(),
            events: broadcast::channel(EVENTS).0,
            each: BTreeMap::new(),
            audience: watch::Sender::default(),
            ended: false,
        };
        tokio::spawn(async move {
            // A panic ends this room only: its peers close when their handles drop.
            if let Err(error) = tokio::spawn(task.drive(inbox)).await {
                tracing::error!(room = %name, %error, "room task panicked");
            }
            done();
        });
        commands
    }

    async fn drive(mut self, mut inbox: mpsc::Receiver<Command>) {
        let demand = self.router.demand();
        let mut demand_due = time::now();
        while !self.ended {
            let timeout = sleep_until(self.room.poll_timeout());
            let demanded = async {
                sleep_until(Some(demand_due)).await;
                demand.changed().await;
            };
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => {
                        self.room.set_wall(time::wall());
                        self.command(command);
                    }
                    None => break,
                },
                () = timeout => {
                    self.room.set_wall(time::wall());
                    self.room.handle(time::now(), Input::Timeout);
                }
                () = demanded => demand_due = time::now() + DEMAND_INTERVAL,
            }
            self.settle();
        }
    }

    /// Carries out all effects of an input, and of the demand that follows from them.
    fn settle(&mut self) {
        loop {
            while let Some(effect) = self.room.poll_effect() {
                self.perform(effect);
            }
            match self.router.poll_demand() {
                Some(demand) => self.room.handle(time::now(), Input::Demand(demand)),
                None => break,
            }
        }
        self.publish_each();
        if self.router.publish(|output| self.outputs.link(output).cloned()) {
            self.announce_to_taps();
        }
    }

    fn command(&mut self, command: Command) {
        let now = time::now();
        match command {
            Command::Input(input) => self.room.handle(now, input),
            Command::Admit(who, reply) => {
                let answer = self.room.admit(now, who).map(|admitted| {
                    let participant = admitted.participant;
                    Admittance::new(participant, self.admitted(admitted), self.commands.clone())
                });
                // An admittance that is not delivered is dropped, which makes the participant leave.
                let _ = reply.send(answer);
            }
            Command::Attach(participant, peer) => match self.peers.get_mut(&participant) {
                Some(member) => {
                    peer.peer.limit(member.uplink_limit);
                    member.wanted.iter().for_each(|(kind, size)| peer.peer.want(*kind, *size));
                    self.router.attach(participant, peer.peer.subscriber(), now);
                    member.peer = Some(peer);
                }
                None => close(peer),
            },
            Command::Resend(participant, mids, reply) => {
                let kinds: Vec<_> = mids.iter().map(|(_, kind)| *kind).collect();
                let sources = self.room.resend(participant, &kinds);
                if let (Some(sources), Some(member)) = (&sources, self.peers.get_mut(&participant)) {
                    member.sources.clone_from(sources);
                    member.uplink.set_sources(sources.clone());
                    if let Some(joined) = &mut member.peer {
                        joined.mids = mids;
                    }
                }
                // The caller may not wait any more.
                let _ = reply.send(sources.is_some());
            }
            Command::Peer(participant, event) => self.peer_event(now, participant, event),
            Command::Mixer(generation, message) if generation == self.generation => self.mixer_says(now, message),
            Command::MixerLost(generation, Loss { why, was_killed }) if generation == self.generation => {
                tracing::error!(room = %self.room.name(), why, was_killed, "mixer lost");
                self.server.counters.mixer_restarts.inc();
                self.mixer = None;
                self.link.store(None);
                let journal = self.journal.take().filter(|_| !was_killed);
                journal.into_iter().for_each(|journal| self.read_journal(journal, now));
                self.room.handle(now, Input::MixerLost);
            }
            Command::Mixer(..) | Command::MixerLost(..) => {}
            Command::AddOutput(planned, reply) => {
                let Planned { wish, target } = *planned;
                let added = self.room.add_output(now, wish);
                if let Ok(id) = &added {
                    self.outputs.add(*id, target);
                }
                if let Err(Ok(id)) = reply.send(added) {
                    // The caller does not wait any more and never learns the id.
                    self.room.handle(now, Input::Output(id, OutputEvent::Stop));
                }
            }
            Command::OutputProcess(id, generation, event) => {
                if let Some(event) = self.outputs.process_event(id, generation, event) {
                    self.room.handle(now, Input::Output(id, event));
                }
            }
            Command::AddInput(planned, reply) => self.add_input(now, planned, reply),
            Command::InputProcess(id, generation, event) => {
                if let Some(event) = self.inputs.process_event(id, generation, event) {
                    self.room.handle(now, Input::Input(id, event));
                }
            }
            Command::Bitrates(bitrates) => self.room.handle(now, Input::Bitrates(bitrates)),
            Command::Update(by, id, patch, reply) => {
                let checked = self.check_patch(by, id, &patch);
                if checked.is_ok() {
                    self.room.handle(now, Input::Update(by, id, *patch));
                }
                // The caller may not wait any more.
                let _ = reply.send(checked.map(|()| self.room.participant(id)));
            }
            // The callers may not wait any more.
            Command::View(view, reply) => drop(reply.send(self.room.view(&view))),
            Command::PutView(view, request, reply) => drop(reply.send(self.room.put_view(now, &view, *request))),
            Command::DeleteView(view, reply) => drop(reply.send(self.room.delete_view(now, &view))),
            Command::Decide(by, decision, reply) => drop(reply.send(self.room.decide(now, by, decision))),
            Command::KeptOut(reply) => drop(reply.send(self.room.kept_out(now))),
            Command::KeepOut(those) => self.room.keep_out(now, &those),
            Command::Door(reply) => drop(reply.send(self.room.door())),
            Command::Document(reader, reply) => drop(reply.send(self.room.document_for(reader))),
            Command::OwnDocument(id, reply) => drop(reply.send(self.room.own_document(id))),
            Command::Participant(id, reply) => drop(reply.send(self.room.participant(id))),
            Command::Events(reader, reply) => {
                let waiting = reader.participant.and_then(|id| self.room.lobby_document(id));
                let waits = waiting.is_some();
                let first = match waiting {
                    Some(participant) => private_text(&Event::Lobby { participant }),
                    None => {
                        let document = self.room.document_for(reader);
                        event_text(document.version, &Event::Room(Box::new(document)))
                    }
                };
                drop(reply.send(EventStream { first, rest: self.events.subscribe(), waits }));
            }
            Command::Audience(reply) => drop(reply.send(self.audience.subscribe())),
            Command::Chat(from, request, reply) => drop(reply.send(self.room.chat(now, from, request))),
            Command::ChatAfter(id, reader, reply) => drop(reply.send(self.room.chat_after(id, reader))),
            Command::Overlay(command) => command.execute(&mut self.room, now),
        }
    }

    fn check_patch(&self, by: Changer, id: ParticipantId, patch: &ParticipantPatch) -> Result<(), RoomError> {
        self.room.check_change(by, id, patch)?;
        self.room.check_view(&patch.view_patch())?;
        self.room.check_avatar(patch)?;
        Ok(self.room.check_filters(patch.filters.as_deref().unwrap_or_default())?)
    }

    fn add_input(&mut self, now: Timestamp, planned: PlannedInput, reply: oneshot::Sender<Result<InputId, Refusal>>) {
        let added = self.room.add_input(now, planned.wish.clone()).map(|(id, admitted)| {
            let uplink = self.admitted(admitted);
            self.inputs.add(id, planned, uplink);
            id
        });
        if let Err(Ok(id)) = reply.send(added) {
            // The caller does not wait any more and never learns the id.
            self.room.handle(now, Input::Input(id, InputEvent::Stop));
        }
    }

    fn admitted(&mut self, admitted: Admitted) -> Arc<Uplink> {
        let uplink = Arc::new(Uplink::new(
            admitted.participant,
            admitted.sources.clone(),
            self.link.clone(),
            self.taps.clone(),
            self.commands.clone(),
            self.server.counters.uplinks.clone(),
        ));
        uplink.hold(admitted.waits);
        let member = Member {
            uplink: uplink.clone(),
            sources: admitted.sources,
            peer: None,
            uplink_limit: None,
            wanted: BTreeMap::new(),
        };
        self.peers.insert(admitted.participant, member);
        uplink
    }

    fn peer_event(&mut self, now: Timestamp, participant: ParticipantId, event: PeerEvent) {
        match event {
            PeerEvent::Connected => self.room.handle(now, Input::Connected(participant)),
            PeerEvent::Goodbye => self.room.handle(now, Input::Left(participant, LeaveReason::Left)),
            PeerEvent::Lost => self.room.handle(now, Input::Left(participant, LeaveReason::Lost)),
            // The connection may recover, and does so sooner after an ICE restart. Until then its tile shows that it is
            // stale.
            PeerEvent::Disconnected => self.tell(participant, Arc::from(ICE_RESTART)),
        }
    }

    fn mixer_says(&mut self, now: Timestamp, message: FromMixer) {
        match message {
            FromMixer::Ready { missing } => {
                for missing in missing {
                    tracing::warn!(room = %self.room.name(), missing, "codec not available in mixer");
                }
            }
            FromMixer::KeyframeWanted(source) => self.room.handle(now, Input::SourceKeyframeWanted(source)),
            FromMixer::DecoderFailed(source) => self.room.handle(now, Input::DecoderFailed(source)),
            FromMixer::SourceSize(source, size) => self.room.handle(now, Input::SourceSize(source, size)),
            FromMixer::FilterLoad(serial, cpu) => self.room.handle(now, Input::FilterLoad(serial, cpu)),
            FromMixer::FilterRemoved(serial, reason, detail) => {
                self.room.handle(now, Input::FilterRemoved(serial, reason, detail));
            }
            FromMixer::ImageFailed(name, why) => self.room.handle(now, Input::ImageFailed(name, why)),
            FromMixer::Levels(levels) => self.room.handle(now, Input::Levels(levels)),
            FromMixer::Report(report) => self.report(now, &report),
            FromMixer::Video { .. } | FromMixer::Audio(_) => unreachable!("the link's reader fans media out itself"),
        }
    }

    fn report(&mut self, now: Timestamp, report: &MixerReport) {
        self.room.handle(now, Input::AudioEffort(report.audio_effort));
        let run = report.video_ticks.saturating_sub(self.mixed.video_ticks);
        let late = report.video_late.saturating_sub(self.mixed.video_late);
        let skipped = report.video_left_out.saturating_sub(self.mixed.video_left_out);
        self.room.handle(now, Input::VideoLoad { ticks: run + skipped, late: late + skipped });
        self.server.counters.mixers.add(&self.mixed, report);
        self.mixed = *report;
        let dropped = self.mixer.as_ref().map_or(0, |mixer| mixer.link.dropped());
        tracing::debug!(?report, dropped, "mixer");
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StartMixer => self.start_mixer(),
            Effect::StopMixer => {
                self.mixer = None;
                self.journal = None;
                self.link.store(None);
            }
            Effect::Order(order) => {
                if let Order::Streams(set) = &order {
                    self.router.set_streams(set);
                }
                if let Order::Mix(plan) = &order {
                    let mixed = |source| plan.sources.iter().any(|input| input.source == source);
                    self.peers.values().for_each(|member| member.uplink.set_mixed(mixed));
                }
                if let Order::SourceGone(source) = order {
                    self.taps.load().iter().for_each(|tap| tap.send(ToOutput::SourceGone(source)));
                }
                if let Some(mixer) = &self.mixer {
                    order_mixer(&mixer.link, order);
                }
            }
            Effect::Routes(routes) => self.router.set_routes(routes, time::now()),
            Effect::Keyframe(participant, source) => self.ask_keyframe(participant, source),
            Effect::LimitUplink(participant, bits_per_second) => {
                if let Some(member) = self.peers.get_mut(&participant) {
                    member.uplink_limit = Some(bits_per_second);
                    if let Some(joined) = &member.peer {
                        joined.peer.limit(member.uplink_limit);
                    }
                }
            }
            Effect::Want(participant, kind, size) => {
                if let Some(member) = self.peers.get_mut(&participant) {
                    member.wanted.insert(kind, size);
                    if let Some(joined) = &member.peer {
                        joined.peer.want(kind, size);
                    }
                    self.tell(participant, wanted_text(participant, kind, size));
                }
            }
            Effect::StartOutput(id) => self.start_output(id),
            Effect::FinishOutput(id) => self.outputs.finish(id),
            Effect::OutputRoutes(routes) => self.router.set_output_routes(routes),
            Effect::StartInput(id) => {
                let started = self.inputs.start(id, self.room.name(), &self.server, self.commands.clone());
                if let Err(why) = started {
                    self.room.handle(time::now(), Input::Input(id, InputEvent::Lost(why)));
                }
            }
            Effect::StopInput(id) => self.inputs.stop(id),
            Effect::Hold(participant, held) => {
                if let Some(member) = self.peers.get(&participant) {
                    member.uplink.hold(held);
                }
                if !held {
                    self.publish(Notification::Admitted(participant));
                }
            }
            Effect::Withhold(participant, withheld) => {
                if let Some(member) = self.peers.get(&participant) {
                    member.uplink.withhold(withheld);
                }
            }
            Effect::Close(participant) => {
                self.router.detach(participant);
                if let Some(member) = self.peers.remove(&participant) {
                    if member.sources.iter().any(|(kind, _)| kind.kind() == Kind::Audio) {
                        let others = self.peers.values().filter_map(|member| member.peer.as_ref());
                        others.for_each(|joined| joined.peer.subscriber().left(participant.0));
                    }
                    if let Some(joined) = &member.peer {
                        self.server.counters.keyframes_deferred.inc_by(joined.peer.stats().keyframes_deferred);
                    }
                    member.peer.into_iter().for_each(close);
                }
                self.publish(Notification::Gone(participant));
            }
            Effect::Quarantined(participant, source, reason) => {
                tracing::warn!(room = %self.room.name(), %participant, ?source, ?reason, "source quarantined");
                self.server.counters.sources_quarantined.inc();
            }
            Effect::Tell(participant, event) => self.tell(participant, direct_text(&event)),
            Effect::Private(readers, event) => {
                self.publish(Notification::Private(Arc::new(readers), private_text(&event)));
            }
            Effect::Levels(levels) => {
                if self.events.receiver_count() > 0 {
                    self.publish(Notification::Event(levels_text(&levels)));
                }
            }
            Effect::Event(version, event) => {
                if let Some(note) = outputs::note(&event) {
                    self.outputs.note(time::now(), &note);
                }
                self.publish(Notification::Event(event_text(version, &event)));
                let audience = self.room.audience();
                self.audience.send_if_modified(|known| std::mem::replace(known, audience) != audience);
            }
            Effect::Ended => {
                self.outputs.finish_all();
                self.ended = true;
            }
        }
    }

    /// Sends a notification to the readers of the room's events, if there are any.
    fn publish(&mut self, notification: Notification) {
        self.publish_each();
        drop(self.events.send(notification));
    }

    /// Sends a message to the readers of one participant, together with those for others: a change of the layout
    /// concerns many, and each reader has only so many notifications.
    fn tell(&mut self, participant: ParticipantId, text: Arc<str>) {
        self.each.entry(participant).or_default().push(text);
    }

    fn publish_each(&mut self) {
        if !self.each.is_empty() {
            drop(self.events.send(Notification::Each(Arc::new(std::mem::take(&mut self.each)))));
        }
    }

    fn start_mixer(&mut self) {
        self.generation += 1;
        self.mixed = MixerReport::default();
        let fan_out = FanOut::new(self.router.table(), self.names.clone());
        let listener = MixerListener::new(self.generation, self.commands.clone(), fan_out);
        let started = journal::create().and_then(|journal| {
            let output = journal.try_clone()?;
            Ok((journal, process::start_with::<ToMixer>(&self.server.mixer, output, listener)?))
        });
        match started {
            Ok((journal, mixer)) => {
                self.journal = Some(journal);
                tracing::info!(pid = mixer.pid, "mixer started");
                mixer.link.send(ToMixer::Configure(self.server.mixer_settings(self.room.name(), self.epoch)));
                self.link.store(Some(mixer.link.clone()));
                self.mixer = Some(mixer);
            }
            Err(error) => {
                // Reported like a process that died at once: the room starts another with its back-off.
                let why = format!("cannot start {:?}: {error}", self.server.mixer);
                let lost = Command::MixerLost(self.generation, Loss { why, was_killed: false });
                if self.commands.try_send(lost).is_err() {
                    tracing::error!("room queue full: cannot start mixer");
                }
            }
        }
    }

    /// Reports the sources that a mixer was decoding when it crashed or hung.
    fn read_journal(&mut self, mut journal: File, now: Timestamp) {
        match journal::decoding(&mut journal) {
            Ok(sources) => {
                tracing::info!(room = %self.room.name(), ?sources, "sources in decoders of the lost mixer");
                self.room.handle(now, Input::DiedDecoding(sources));
            }
            Err(error) => tracing::error!(%error, "journal of the lost mixer cannot be read"),
        }
    }

    fn start_output(&mut self, id: OutputId) {
        let beginning = Beginning {
            room: self.room.name().clone(),
            epoch: self.epoch,
            streams: self.room.output_streams(id),
            notes: outputs::notes(&self.room.document()),
            now: time::now(),
        };
        let started = self.outputs.start(id, &self.server, beginning, self.commands.clone());
        if let Err(why) = started {
            // Reported like a process that died at once: the room starts another with its back-off.
            self.room.handle(time::now(), Input::Output(id, OutputEvent::Lost(why)));
        }
        self.router.output_changed();
    }

    /// Announces the sources that have started already to new outputs that record participants' tracks.
    fn announce_to_taps(&self) {
        let taps = self.outputs.taps(self.router.output_routes());
        let before = self.taps.load_full();
        for new in taps.iter().filter(|tap| !before.iter().any(|known| Arc::ptr_eq(known, tap))) {
            self.room.sources().for_each(|spec| new.send(ToOutput::Source(spec)));
        }
        self.taps.store(Arc::new(taps));
    }

    fn ask_keyframe(&self, participant: ParticipantId, source: SourceId) {
        let Some(member) = self.peers.get(&participant) else { return };
        self.inputs.ask_keyframe(&member.uplink);
        let kind = member.sources.iter().find(|(_, id)| *id == source).map(|(kind, _)| *kind);
        let Some((joined, kind)) = member.peer.as_ref().zip(kind) else { return };
        let mid = joined.mids.iter().find(|(_, known)| *known == kind).map(|(mid, _)| mid.clone());
        if let Some(mid) = mid {
            let peer = joined.peer.clone();
            tokio::spawn(async move { peer.request_keyframe(&mid).await });
        }
    }
}

/// Closes a connection without waiting for it.
fn close(joined: JoinedPeer) {
    tokio::spawn(async move { joined.peer.close().await });
}

/// Sends an order to a mixer; an image takes several messages.
fn order_mixer(link: &Link<ToMixer>, order: Order) {
    let message = match order {
        Order::Source(spec) => ToMixer::Source(spec),
        Order::SourceGone(source) => ToMixer::SourceGone(source),
        Order::Filters(source, specs) => ToMixer::Filters(source, specs),
        Order::ViewFilters(view, specs) => ToMixer::ViewFilters(view, specs),
        Order::Scene(scene) => ToMixer::Scene(scene),
        Order::SceneGone(view) => ToMixer::SceneGone(view),
        Order::Mix(plan) => ToMixer::Mix(plan),
        Order::Streams(set) => ToMixer::Streams(set),
        Order::Keyframe(serial) => ToMixer::Keyframe { serial },
        Order::Overlays(view, overlays) => ToMixer::Overlays(view, overlays),
        Order::Image(name, image) => return image_parts(&name, &image).for_each(|part| link.send(part)),
        Order::ImageGone(name) => ToMixer::ImageGone(name),
    };
    link.send(message);
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(time::now())).await,
        None => pending().await,
    }
}
