//! The room: its participants, what each view shows, which streams are encoded. A sans-IO state machine.
//!
//! Owns: the participants and their sources, the order of tiles, the speaker, the life of the mixer, outputs and
//! inputs. Does not know: sockets, processes, codecs, clocks, HTTP; which subscriber gets which packets. It never sees
//! frames and packets.
//!
//! Its user makes one call with `now`, carries out [`Room::poll_effect`] until None, and waits until
//! [`Room::poll_timeout`] or the next input. After each input the mixer's orders are derived anew from the participants
//! ([`orders`]) and sent where they differ. They are whole values, so that a restarted mixer needs no history.

pub mod captions;
pub mod chat;
pub mod direct;
pub mod document;
pub mod emoji;
pub mod filters;
mod hands;
pub mod images;
pub mod inputs;
mod levels;
pub mod lobby;
mod mixer;
pub mod moderation;
mod name;
mod orders;
pub mod outputs;
pub mod overlays;
mod person;
mod presence;
pub mod quarantine;
mod schedule;
#[cfg(test)]
pub(crate) mod tests;
mod traffic;
mod updates;
mod view_budget;
pub mod view_request;
mod views;
mod wanted;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::captions::Captions;
use self::chat::Chat;
use self::direct::Direct;
use self::filters::Filters;
use self::hands::Signals;
use self::images::Images;
use self::inputs::Inputs;
use self::levels::Levels;
use self::mixer::Mixer;
use self::moderation::{Changer, Decided, KeptOut, WhoMay};
pub use self::name::DISPLAY_NAME_MAX;
use self::outputs::Outputs;
use self::overlays::Overlays;
use self::person::{Person, Source};
use self::quarantine::Quarantine;
use self::schedule::{Due, Opening, Schedule};
pub use self::traffic::{
    Admission, Admitted, Effect, Input, Order, OutputRoute, Refusal, RoomSettings, Route, StreamDemand,
};
use self::updates::{Latest, RoomUpdates, Updates};
use self::view_request::ViewChoice;
use self::views::{Received, Views};
use crate::id::{ParticipantId, RoomName, SourceId};
use crate::layout::Theme;
use crate::media::{AudioEffort, Codec, SourceKind, StreamKey};
use crate::plan::{MixPlan, SourceSpec, StreamSet};
use crate::room::document::{
    Event, LeaveReason, ParticipantDocument, ParticipantPatch, Role, RoomDocument, RoomPatch, StreamDocument, TITLE_MAX,
};
use crate::speaker::Speaker;
use crate::tier::uplink::UplinkLimit;
use crate::time::{Timestamp, WallTime};

/// Time from admission within which a participant must connect, or is removed. Its session gives up earlier, if it has
/// one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A room. The module's head explains its use.
#[derive(Debug)]
pub struct Room {
    settings: RoomSettings,
    title: Option<String>,
    locked: bool,
    lobby: bool,
    who_may: WhoMay,
    /// Most participants that send, if the room has a limit of its own.
    max_participants: Option<usize>,
    schedule: Schedule,
    kept_out: KeptOut,
    theme: Theme,
    people: BTreeMap<ParticipantId, Person>,
    /// Deadlines of participants that have not connected yet.
    connecting: BTreeMap<ParticipantId, Timestamp>,
    next_participant: u32,
    next_source: u32,
    next_serial: u32,
    views: Views,
    speaker: Speaker,
    levels: Levels,
    mixer: Mixer,
    mixer_backoff: mixer::Backoff,
    audio_effort: AudioEffort,
    empty_since: Option<Timestamp>,
    ended: bool,
    /// Time of the latest input.
    now: Timestamp,
    /// The date of the latest input.
    wall: WallTime,
    /// When the limit of a sender may rise.
    uplink_limits_due: Option<Timestamp>,
    /// When an event of a participant that changes often is due.
    updates_due: Option<Timestamp>,
    /// The events of all participants that changed.
    latest_updates: Latest,
    /// The events of the room itself.
    room_updates: RoomUpdates,
    /// Number of times that a hand was raised.
    turns: u64,
    chat: Chat,
    version: u64,
    serials: BTreeMap<StreamKey, u32>,
    bitrates: BTreeMap<u32, u64>,
    mix: MixPlan,
    streams: StreamSet,
    routes: Vec<Route>,
    /// The streams that subscribers need, with the number of subscribers that have selected each.
    subscribers: BTreeMap<StreamKey, usize>,
    outputs: Outputs,
    inputs: Inputs,
    direct: Direct,
    overlays: Overlays,
    images: Images,
    filters: Filters,
    captions: Captions,
    effects: VecDeque<Effect>,
}

impl Room {
    /// An empty room, which lingers from `now` on.
    pub fn new(settings: RoomSettings, now: Timestamp) -> Self {
        let views = Views::new(settings.layout.clone(), settings.canvas, settings.fps);
        let chat = Chat::new(settings.chat_history);
        Self {
            settings,
            title: None,
            locked: false,
            lobby: false,
            who_may: WhoMay::default(),
            max_participants: None,
            schedule: Schedule::default(),
            kept_out: KeptOut::default(),
            theme: Theme::default(),
            people: BTreeMap::new(),
            connecting: BTreeMap::new(),
            next_participant: 1,
            next_source: 1,
            next_serial: 1,
            views,
            speaker: Speaker::default(),
            levels: Levels::default(),
            mixer: Mixer::Off,
            mixer_backoff: mixer::Backoff::default(),
            audio_effort: AudioEffort::FULL,
            empty_since: Some(now),
            ended: false,
            now,
            wall: WallTime::default(),
            uplink_limits_due: None,
            updates_due: None,
            latest_updates: Latest::default(),
            room_updates: RoomUpdates::default(),
            turns: 0,
            chat,
            version: 0,
            serials: BTreeMap::new(),
            bitrates: BTreeMap::new(),
            mix: MixPlan::default(),
            streams: StreamSet::default(),
            routes: Vec::new(),
            subscribers: BTreeMap::new(),
            outputs: Outputs::default(),
            inputs: Inputs::default(),
            direct: Direct::default(),
            overlays: Overlays::default(),
            images: Images::default(),
            filters: Filters::default(),
            captions: Captions::default(),
            effects: VecDeque::new(),
        }
    }

    /// The date of the following inputs.
    pub fn set_wall(&mut self, wall: WallTime) {
        self.wall = wall;
    }

    /// Admits a participant. It appears in documents and tiles after [`Input::Connected`].
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn admit(&mut self, now: Timestamp, who: Admission) -> Result<Admitted, Refusal> {
        self.now = now;
        if !self.ended && who.role < Role::Moderator {
            self.check_door(&who)?;
        }
        self.check_view(&who.view)?;
        let waits = self.has_to_wait(who.role);
        let admitted = Admitted { waits, ..self.seat(who)? };
        if let Some(person) = self.people.get_mut(&admitted.participant) {
            person.waits = waits;
        }
        self.connecting.insert(admitted.participant, now + CONNECT_TIMEOUT);
        Ok(admitted)
    }

    /// Checks whether somebody below moderator may join now.
    fn check_door(&self, who: &Admission) -> Result<(), Refusal> {
        if let Some(left) = who.identity.and_then(|identity| self.kept_out.left(identity, self.now)) {
            return Err(Refusal::KeptOut(left));
        }
        match self.schedule.opening(self.wall) {
            Opening::Later(wait) => return Err(Refusal::NotOpenYet(wait)),
            Opening::Over => return Err(Refusal::Over),
            Opening::Open => {}
        }
        if self.locked {
            return Err(Refusal::Locked);
        }
        let waiting = self.people.values().filter(|person| person.waits).count();
        if self.has_to_wait(who.role) && waiting >= lobby::WAITING_MAX {
            return Err(Refusal::FullOfWaiting(waiting));
        }
        Ok(())
    }

    /// Adds a participant unless the room is full.
    fn seat(&mut self, who: Admission) -> Result<Admitted, Refusal> {
        if self.ended {
            return Err(Refusal::Ended);
        }
        let watches = who.sends.is_empty();
        let alike = self.people.values().filter(|person| person.sources.is_empty() == watches).count();
        let RoomSettings { max_participants, max_viewers, .. } = self.settings;
        let max_participants = self.max_participants.map_or(max_participants, |most| most.min(max_participants));
        match watches {
            true if alike >= max_viewers => return Err(Refusal::FullOfViewers(max_viewers)),
            false if alike >= max_participants => return Err(Refusal::Full(max_participants)),
            _ => {}
        }
        let participant = ParticipantId(self.next_participant);
        self.next_participant += 1;
        let sources = who.sends.iter().map(|kind| self.new_source(*kind)).collect::<Vec<_>>();
        let admitted = sources.iter().map(|source| (source.kind, source.id)).collect();
        self.people.insert(
            participant,
            Person {
                name: name::clean(&who.name),
                role: who.role,
                bot: who.bot,
                identity: who.identity,
                connected: false,
                waits: false,
                at_door: false,
                sources,
                receives_audio: who.receives_audio,
                receives_video: who.receives_video,
                audio_muted: false,
                video_muted: false,
                decided: Decided::default(),
                gain_db: 0.0,
                tier: who.tier,
                selected: Person::UNKNOWN_LINK,
                avatar: None,
                view: ViewChoice::default().with(who.view),
                received: Received::default(),
                uplink_limit: UplinkLimit::default(),
                updates: Updates::default(),
                signals: Signals::default(),
                direct: false,
                filters: Vec::new(),
            },
        );
        self.refresh_presence();
        if self.direct.is_wanted() {
            // A direct call of two ends before the third connects.
            self.refresh();
        }
        Ok(Admitted { participant, sources: admitted, waits: false })
    }

    /// A participant's new offer sends sources of these kinds: those that remain keep their ids, the others end. None
    /// for an unknown participant.
    pub fn resend(&mut self, participant: ParticipantId, sends: &[SourceKind]) -> Option<Vec<(SourceKind, SourceId)>> {
        let mut old = std::mem::take(&mut self.people.get_mut(&participant)?.sources);
        let mut sources = Vec::new();
        for kind in sends {
            let kept = old.iter().position(|source| source.kind == *kind).map(|i| old.remove(i));
            sources.push(kept.unwrap_or_else(|| self.new_source(*kind)));
        }
        for gone in old {
            self.filters.forget(gone.id);
            self.effects.push_back(Effect::Order(Order::SourceGone(gone.id)));
        }
        let admitted = sources.iter().map(|source| (source.kind, source.id)).collect();
        self.people.get_mut(&participant)?.sources = sources;
        self.announce(participant);
        self.refresh();
        Some(admitted)
    }

    /// Takes an input. Unknown participants and sources are ignored, since they may just have left.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.now = now;
        match input {
            Input::Connected(participant) => self.connected(participant),
            Input::Left(participant, reason) => self.left(participant, reason),
            Input::SourceStarted(source, codec) => self.source_started(source, codec),
            Input::Demand(demand) => self.demanded(demand),
            Input::SourceKeyframeWanted(source) => {
                if let Some((participant, _)) = self.source(source) {
                    self.effects.push_back(Effect::Keyframe(participant, source));
                }
            }
            Input::SourceSize(source, size) => {
                if let Some((participant, found)) = self.source(source)
                    && found.size.replace(size) != Some(size)
                {
                    self.announce(participant);
                }
            }
            Input::SourceEncoding(source, rid) => {
                if let Some((participant, found)) = self.source(source) {
                    found.encoding = Some(rid);
                    self.announce(participant);
                }
            }
            Input::Levels(mut levels) => {
                // The mixer may not know yet that a participant has left.
                levels.retain(|(participant, _)| self.people.contains_key(participant));
                self.effects.extend(self.levels.update(now, &levels).map(Effect::Levels));
                if self.speaker.update(now, &levels).is_some() {
                    self.speaker_changed();
                }
            }
            Input::Bitrates(bitrates) => self.bitrates = bitrates.into_iter().collect(),
            Input::DiedDecoding(sources) => self.died_decoding(sources),
            Input::DecoderFailed(source) => self.decoder_failed(source),
            Input::MixerLost => self.mixer_lost(now),
            Input::VideoLoad { ticks, late } => self.video_load(ticks, late),
            Input::FilterLoad(serial, cpu) => self.filter_load(serial, cpu),
            Input::FilterRemoved(serial, reason, detail) => self.filter_removed(serial, reason, detail),
            Input::ImageFailed(name, why) => self.image_failed(&name, why),
            Input::AudioEffort(effort) => self.set_audio_effort(effort),
            Input::Output(output, event) => self.output_event(now, output, event),
            Input::Input(input, event) => self.input_event(now, input, event),
            Input::Direct(participant, message) => self.direct_message(participant, message),
            Input::Update(by, participant, patch) => self.update(by, participant, patch),
            Input::Patch(patch) => self.patch(patch),
            Input::React(participant, emoji) => self.react(participant, emoji),
            Input::Delete => self.end("deleted"),
            Input::Timeout => self.timeout(now),
        }
    }

    /// The next effect to carry out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due; None for never.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.ended {
            return None;
        }
        let connecting = self.connecting.values().next().copied();
        let parts = [self.mixer.timeout(), self.outputs.timeout(), self.inputs.timeout(), self.direct.timeout()];
        let drawn =
            [self.overlays.timeout(), self.captions.timeout(), self.reaction_timeout(), self.schedule.timeout()];
        [self.presence_timeout(), connecting, self.uplink_limits_due, self.updates_due]
            .into_iter()
            .chain(parts)
            .chain(drawn)
            .flatten()
            .min()
    }

    /// The room's document.
    pub fn document(&self) -> RoomDocument {
        RoomDocument {
            name: self.settings.name.clone(),
            version: self.version,
            layout: self.views.program().layout.clone(),
            canvas: self.views.program().canvas,
            fps: self.views.program().fps,
            theme: self.theme.clone(),
            title: self.title.clone(),
            locked: self.locked,
            lobby: self.lobby,
            who_may: self.who_may,
            max_participants: self.max_participants,
            opens_at: self.schedule.opens_at,
            ends_at: self.schedule.ends_at,
            waiting: Vec::new(),
            audio_reduced: self.audio_reduced(),
            speaker: self.speaker.current(),
            speaking: self.speaker.speaking().iter().copied().collect(),
            participants: self.people.keys().filter_map(|id| self.participant(*id)).collect(),
            hands: self.hands(),
            views: self.views.documents(),
            streams: self.streams.streams.iter().map(|spec| self.stream_document(spec.serial, &spec.key)).collect(),
            recordings: self.outputs.recordings(),
            broadcasts: self.outputs.broadcasts(),
            inputs: self.inputs.documents(),
            overlays: self.overlay_documents(),
            images: self.image_documents(),
        }
    }

    /// A participant's document; None if it does not exist or has not connected yet.
    pub fn participant(&self, id: ParticipantId) -> Option<ParticipantDocument> {
        self.people.get(&id).filter(|person| person.connected).map(|person| person.document(id))
    }

    /// All sources that have started.
    pub fn sources(&self) -> impl Iterator<Item = SourceSpec> {
        self.people.iter().flat_map(|(participant, person)| {
            person.sources.iter().filter_map(|Source { id, kind, codec, .. }| {
                Some(SourceSpec { source: *id, participant: *participant, kind: *kind, codec: (*codec)? })
            })
        })
    }

    /// The room's name.
    pub fn name(&self) -> &RoomName {
        &self.settings.name
    }

    /// The number of participants, including those that have not connected yet.
    pub fn population(&self) -> usize {
        self.people.len()
    }

    fn new_source(&mut self, kind: SourceKind) -> Source {
        let id = SourceId(self.next_source);
        self.next_source += 1;
        Source { id, kind, codec: None, size: None, encoding: None, wanted: None, quarantine: Quarantine::default() }
    }

    fn source(&mut self, id: SourceId) -> Option<(ParticipantId, &mut Source)> {
        self.people
            .iter_mut()
            .find_map(|(who, person)| Some((*who, person.sources.iter_mut().find(|source| source.id == id)?)))
    }

    fn stream_document(&self, serial: u32, key: &StreamKey) -> StreamDocument {
        StreamDocument {
            key: key.to_string(),
            bitrate: self.bitrates.get(&serial).copied().unwrap_or(0),
            subscribers: self.subscribers.get(key).copied().unwrap_or(0)
                + self.outputs.routes().iter().filter(|route| route.streams.contains(&serial)).count(),
        }
    }

    fn emit(&mut self, event: impl FnOnce(&Self) -> Event) {
        self.version += 1;
        let event = event(self);
        self.effects.push_back(Effect::Event(self.version, event));
    }

    /// Emits the event `updated` for a participant.
    fn announce(&mut self, participant: ParticipantId) {
        if let Some(participant) = self.participant(participant) {
            self.emit(|_| Event::Updated { participant });
        }
    }

    fn connected(&mut self, participant: ParticipantId) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        if person.waits {
            return self.arrives_in_lobby(participant);
        }
        if !std::mem::replace(&mut person.connected, true) {
            self.connecting.remove(&participant);
            self.need_mixer(self.now);
            let mut others = self.assign_views();
            others.retain(|other| *other != participant);
            if let Some(participant) = self.participant(participant) {
                self.emit(|_| Event::Joined { participant });
            }
            others.into_iter().for_each(|other| self.announce(other));
            self.refresh();
        }
    }

    fn left(&mut self, participant: ParticipantId, reason: LeaveReason) {
        self.input_left(participant);
        self.direct.forget(participant);
        self.connecting.remove(&participant);
        let Some(person) = self.people.remove(&participant) else { return };
        for source in &person.sources {
            self.filters.forget(source.id);
            self.effects.push_back(Effect::Order(Order::SourceGone(source.id)));
        }
        let left = Event::Left { participant, reason };
        if person.connected {
            self.emit(|_| left);
        } else if person.at_door {
            self.leaves_lobby(participant, left);
        }
        if !person.filters.is_empty() {
            self.refresh_filters();
        }
        // The participant itself gets the event before its events end.
        self.effects.push_back(Effect::Close(participant));
        let spoke = self.speaker.current() == Some(participant) || self.speaker.speaking().contains(&participant);
        self.speaker.remove(participant);
        self.refresh_presence();
        if spoke {
            self.speaker_changed();
        } else {
            self.refresh();
        }
    }

    fn source_started(&mut self, id: SourceId, codec: Codec) {
        let Some((participant, source)) = self.source(id) else { return };
        source.codec = Some(codec);
        let spec = SourceSpec { source: id, participant, kind: source.kind, codec };
        // No frame is shown without its filters.
        self.refresh_filters();
        self.effects.push_back(Effect::Order(Order::Source(spec)));
        self.announce(participant);
        self.refresh();
    }

    fn speaker_changed(&mut self) {
        self.emit(|room| Event::Speaker {
            participant: room.speaker.current(),
            speaking: room.speaker.speaking().iter().copied().collect(),
        });
        self.refresh();
    }

    fn demanded(&mut self, StreamDemand { subscribers, selections, keyframes }: StreamDemand) {
        self.subscribers = subscribers;
        for (participant, tier, limit) in selections {
            let Some(person) = self.people.get_mut(&participant).filter(|person| person.adapts()) else { continue };
            if std::mem::replace(&mut person.selected, (tier, limit)) != (tier, limit) {
                self.announce(participant);
            }
        }
        self.refresh();
        for serial in keyframes {
            if self.serials.values().any(|known| *known == serial) {
                self.effects.push_back(Effect::Order(Order::Keyframe(serial)));
            }
        }
    }

    fn update(&mut self, by: Changer, participant: ParticipantId, patch: ParticipantPatch) {
        if let Some(raised) = patch.hand_raised {
            self.set_hand(participant, raised);
        }
        let before = self.participant(participant);
        self.set_mutes(by, participant, &patch);
        let Some(person) = self.people.get_mut(&participant) else { return };
        let view = patch.view_patch();
        if let Some(name) = patch.name {
            person.name = name::clean(&name);
        }
        if let Some(gain_db) = patch.gain_db {
            person.gain_db = gain_db.clamp(-60.0, 12.0);
        }
        person.role = patch.role.unwrap_or(person.role);
        person.decided.speaker_allowed = patch.speaker_allowed.unwrap_or(person.decided.speaker_allowed);
        if let Some(tier) = patch.tier.filter(|tier| *tier != person.tier) {
            person.tier = tier;
            person.selected = Person::UNKNOWN_LINK;
        }
        if let Some(avatar) = patch.avatar {
            person.avatar = avatar;
        }
        person.view = std::mem::take(&mut person.view).with(view);
        self.apply_rules();
        if let Some(filters) = &patch.filters {
            self.set_filters(participant, filters);
        }
        let mut others = self.assign_views();
        others.retain(|other| *other != participant);
        // An event for each request that changes nothing would let one participant flood the readers of all others.
        if self.participant(participant) != before {
            self.announce_change(participant);
        }
        others.into_iter().for_each(|other| self.announce(other));
        self.refresh();
    }

    fn patch(&mut self, patch: RoomPatch) {
        if let Some(layout) = patch.layout {
            self.views.set_program_layout(layout);
        }
        if let Some(theme) = patch.theme {
            self.theme = theme;
        }
        if let Some(title) = patch.title {
            self.title = title.map(|title| name::clean_line(&title, TITLE_MAX)).filter(|title| !title.is_empty());
        }
        if let Some(most) = patch.max_participants {
            self.max_participants = most;
        }
        if let Some(opens_at) = patch.opens_at {
            self.schedule.opens_at = opens_at;
        }
        if let Some(ends_at) = patch.ends_at {
            self.schedule.set_end(ends_at, self.now);
        }
        if let Some(who_may) = patch.who_may {
            self.who_may = self.who_may.with(who_may);
        }
        self.locked = patch.locked.unwrap_or(self.locked);
        self.lobby = patch.lobby.unwrap_or(self.lobby);
        self.follow_rules();
        self.announce_room();
        if !self.lobby {
            let waiting: Vec<_> = self.door().waiting.into_iter().collect();
            waiting.into_iter().for_each(|participant| self.let_in(participant));
        }
    }

    /// Applies the rules of the room, and tells for whom they have changed.
    fn follow_rules(&mut self) {
        let listening = |room: &Self| -> Vec<(ParticipantId, bool)> {
            room.people.iter().map(|(id, person)| (*id, person.decided.listens)).collect()
        };
        let before = listening(self);
        self.refresh();
        let changed = listening(self).into_iter().zip(before).filter(|(after, before)| after != before);
        let changed: Vec<_> = changed.map(|((participant, _), _)| participant).collect();
        changed.into_iter().for_each(|participant| self.announce(participant));
    }

    /// Warns everyone before the end of the room, and ends it for all.
    fn schedule_timeout(&mut self, now: Timestamp) {
        match (self.schedule.poll(now, self.wall), self.schedule.ends_at) {
            (Some(Due::Warning(seconds_left)), Some(ends_at)) => {
                self.emit(|_| Event::Warning { seconds_left, ends_at });
            }
            (Some(Due::End), _) => {
                let everyone: Vec<_> = self.people.keys().copied().collect();
                everyone.into_iter().for_each(|participant| self.left(participant, LeaveReason::Over));
            }
            _ => {}
        }
    }

    fn timeout(&mut self, now: Timestamp) {
        self.schedule_timeout(now);
        self.mixer_timeout(now);
        if self.uplink_limits_due.is_some_and(|at| now >= at) {
            self.refresh();
        }
        self.update_timeout(now);
        self.output_timeout(now);
        self.input_timeout(now);
        self.direct_timeout(now);
        self.overlay_timeout(now);
        self.caption_timeout(now);
        self.reactions_lapse(now);
        while let Some(late) = self.connecting.first_key_value().filter(|(_, due)| now >= **due).map(|(id, _)| *id) {
            self.left(late, LeaveReason::Lost);
        }
        self.presence_lapses(now);
    }

    fn end(&mut self, reason: &'static str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.stop_inputs();
        self.finish_outputs();
        self.stop_mixer();
        self.emit(|_| Event::Ended { reason });
        self.connecting.clear();
        for participant in std::mem::take(&mut self.people).into_keys() {
            self.effects.push_back(Effect::Close(participant));
        }
        self.effects.push_back(Effect::Ended);
    }
}
