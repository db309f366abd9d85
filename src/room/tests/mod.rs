//! Tests of the room's state machine: participants here, outputs, inputs and random sequences in the modules below.

mod direct;
mod filters;
mod hands;
mod inputs;
mod lives;
mod moderation;
mod outputs;
mod overlays;
mod presence;
mod quarantine;
mod themes;
mod views;
mod wanted;

use super::moderation::Changer;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::id::ViewName;
use crate::layout::Layout;
use crate::layout::{LayoutKind, Scene};
use crate::media::{Kind, Size, SoundTaken, Tier};
use crate::room::chat::{ChatRequest, Sender};
use crate::room::document::{LevelDocument, MixerEvent, TierChoice};
use crate::room::view_request::ViewPatch;
use crate::tier::uplink::{SOUND, deserved};
use crate::tier::{Ladder, Limit};

const LINGER: Duration = Duration::from_secs(5);

pub(crate) fn settings(max: usize) -> RoomSettings {
    RoomSettings {
        filters: Arc::new(crate::filter::Catalog::shipped()),
        name: "test".parse().expect("a name"),
        layout: Layout::default(),
        canvas: Size::new(1280, 720),
        fps: 30,
        ladder: Ladder::default(),
        max_participants: max,
        max_viewers: max,
        max_outputs: 3,
        max_inputs: 2,
        direct_for_two: false,
        linger: LINGER,
        permanent: false,
        chat_history: 200,
    }
}

fn person(name: &str) -> Admission {
    Admission {
        name: name.to_owned(),
        role: Role::Participant,
        sends: vec![SourceKind::Microphone, SourceKind::Camera],
        receives_audio: Some(SoundTaken::Any),
        receives_video: Some(Codec::Vp8),
        tier: TierChoice::Auto,
        view: ViewPatch::default(),
        bot: false,
        identity: None,
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + millis * 1_000)
}

/// The subscribers of a room: the tier that each has selected, and the previous one while it still flows.
#[derive(Default)]
pub(super) struct Subscribers {
    routes: Vec<Route>,
    selected: BTreeMap<ParticipantId, Tier>,
    previous: BTreeMap<ParticipantId, Tier>,
    reported: BTreeMap<StreamKey, usize>,
}

impl Subscribers {
    /// Takes an effect of the room.
    pub(super) fn take(&mut self, effect: &Effect) {
        if let Effect::Routes(routes) = effect {
            self.routes.clone_from(routes);
        }
    }

    /// Their demand, if it has changed.
    pub(super) fn demand(&mut self) -> Option<Input> {
        let mut subscribers = BTreeMap::new();
        for route in &self.routes {
            let Some((view, codec)) = &route.video else { continue };
            let key = |tier| StreamKey { view: view.clone(), codec: *codec, tier };
            let tier = match route.tier {
                TierChoice::Auto => self.selected.get(&route.participant).copied().unwrap_or(Tier::High),
                TierChoice::Pinned(tier) => tier,
            };
            if tier == Tier::Audio {
                continue;
            }
            if let Some(tier) = self.previous.get(&route.participant).filter(|tier| **tier != Tier::Audio) {
                subscribers.entry(key(*tier)).or_default();
            }
            *subscribers.entry(key(tier)).or_default() += 1;
        }
        let changed = subscribers != self.reported;
        self.reported.clone_from(&subscribers);
        changed.then(|| Input::Demand(StreamDemand { subscribers, ..StreamDemand::default() }))
    }
}

/// A room with all its effects.
struct Driven {
    room: Room,
    now: u64,
    effects: Vec<Effect>,
    subscribers: Subscribers,
}

impl Driven {
    fn new(max: usize) -> Self {
        let room = Room::new(settings(max), at(0));
        Self { room, now: 0, effects: Vec::new(), subscribers: Subscribers::default() }
    }

    fn drain(&mut self) {
        loop {
            while let Some(effect) = self.room.poll_effect() {
                self.subscribers.take(&effect);
                self.effects.push(effect);
            }
            let Some(demand) = self.subscribers.demand() else { break };
            self.room.handle(at(self.now), demand);
        }
    }

    /// The subscriber of a participant selects another tier; the previous one flows until [`Driven::switched`].
    fn select(&mut self, participant: ParticipantId, tier: Tier, limit: Option<Limit>) {
        let before = self.subscribers.selected.insert(participant, tier).unwrap_or(Tier::High);
        self.subscribers.previous.entry(participant).or_insert(before);
        self.subscribers.demand();
        let demand = StreamDemand {
            subscribers: self.subscribers.reported.clone(),
            selections: vec![(participant, tier, limit)],
            ..StreamDemand::default()
        };
        self.handle(Input::Demand(demand));
    }

    /// The selected stream flows to a participant.
    fn switched(&mut self, participant: ParticipantId) {
        self.subscribers.previous.remove(&participant);
        self.drain();
    }

    fn handle(&mut self, input: Input) {
        self.room.handle(at(self.now), input);
        self.drain();
    }

    fn join(&mut self, who: Admission) -> Admitted {
        let sends = who.sends.clone();
        let admitted = self.room.admit(at(self.now), who).expect("let in");
        self.handle(Input::Connected(admitted.participant));
        for ((_, source), kind) in admitted.sources.iter().zip(sends) {
            let codec = if kind.kind() == Kind::Audio { Codec::Opus } else { Codec::Vp8 };
            self.handle(Input::SourceStarted(*source, codec));
        }
        admitted
    }

    fn last<T>(&self, pick: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        self.effects.iter().rev().find_map(pick)
    }

    fn scene(&self) -> Scene {
        self.last(|e| if let Effect::Order(Order::Scene(scene)) = e { Some(scene.clone()) } else { None })
            .expect("a scene was ordered")
    }

    fn events(&self) -> Vec<&Event> {
        self.effects.iter().filter_map(|e| if let Effect::Event(_, event) = e { Some(event) } else { None }).collect()
    }
}

#[test]
fn the_first_connection_starts_the_mixer_and_the_last_leave_ends_the_room_later() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    assert_eq!(driven.effects.first(), Some(&Effect::StartMixer));
    assert_eq!(driven.room.poll_timeout(), None);
    driven.now = 1_000;
    driven.handle(Input::Left(ann.participant, LeaveReason::Left));
    assert!(!driven.effects.contains(&Effect::StopMixer));
    assert_eq!(driven.room.poll_timeout(), Some(at(1_000) + LINGER));
    driven.now = 6_000;
    driven.handle(Input::Timeout);
    assert!(driven.effects.contains(&Effect::StopMixer));
    assert_eq!(driven.effects.last(), Some(&Effect::Ended));
    assert_eq!(driven.room.admit(at(6_000), person("Bob")), Err(Refusal::Ended));
}

#[test]
fn a_request_that_changes_nothing_is_no_event() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    let patches = [
        ParticipantPatch::default(),
        ParticipantPatch { name: Some("Ann".into()), audio_muted: Some(false), ..Default::default() },
        ParticipantPatch { gain_db: Some(0.0), tier: Some(TierChoice::Auto), ..Default::default() },
    ];
    driven.effects.clear();
    for patch in patches {
        driven.handle(Input::Update(Changer::Itself, ann, patch));
        assert_eq!(driven.events(), Vec::<&Event>::new());
    }
    for muted in [true, true, true, false, false] {
        driven.handle(Input::Update(
            Changer::Itself,
            ann,
            ParticipantPatch { audio_muted: Some(muted), ..Default::default() },
        ));
    }
    let updated = driven.events().iter().filter(|event| matches!(event, Event::Updated { .. })).count();
    assert_eq!(updated, 2, "{:?}", driven.effects);
}

#[test]
fn a_participant_that_changes_in_every_request_causes_few_events_and_the_last_state_is_sent() {
    let mut driven = Driven::new(9);
    let (ann, ben) = (driven.join(person("Ann")).participant, driven.join(person("Ben")).participant);
    driven.effects.clear();
    let muted = |muted| ParticipantPatch { audio_muted: Some(muted), ..Default::default() };
    for n in 0..200 {
        driven.now += 10;
        if driven.room.poll_timeout().is_some_and(|due| due <= at(driven.now)) {
            driven.handle(Input::Timeout);
        }
        driven.handle(Input::Update(Changer::Itself, ann, muted(n % 2 == 0)));
    }
    driven.handle(Input::Update(Changer::Itself, ben, muted(true)));
    driven.now += 1_000;
    driven.handle(Input::Timeout);
    let events = driven.events();
    let of = |who: ParticipantId| {
        events.iter().filter_map(move |event| match event {
            Event::Updated { participant } if participant.id == who => Some(participant.audio_muted),
            _ => None,
        })
    };
    assert!((20..=31).contains(&of(ann).count()), "{} events of 200 requests", of(ann).count());
    assert_eq!((of(ann).next_back(), of(ben).collect::<Vec<_>>()), (Some(false), vec![true]));
    assert_eq!(driven.room.updates_due, None, "nothing is due any more");
}

#[test]
fn many_participants_that_change_in_every_request_cause_a_limited_number_of_events_in_their_room() {
    let mut driven = Driven::new(64);
    let crowd: Vec<ParticipantId> = (0..60).map(|n| driven.join(person(&format!("Guest {n}"))).participant).collect();
    driven.effects.clear();
    driven.now += 1_000;
    let muted = |muted| ParticipantPatch { audio_muted: Some(muted), ..Default::default() };
    for n in 0..3_000 {
        driven.now += 1;
        if driven.room.poll_timeout().is_some_and(|due| due <= at(driven.now)) {
            driven.handle(Input::Timeout);
        }
        // All but the last change all the time.
        driven.handle(Input::Update(Changer::Itself, crowd[n % 59], muted(n / 59 % 2 == 0)));
        if n == 1_500 {
            driven.handle(Input::Update(Changer::Itself, crowd[59], muted(true)));
        }
    }
    let updated = |driven: &Driven, who: Option<ParticipantId>| {
        let events = driven.events();
        let of = |event: &&&Event| matches!(event, Event::Updated { participant } if who.is_none_or(|who| participant.id == who));
        events.iter().filter(of).count()
    };
    let count = updated(&driven, None);
    assert!((250..=400).contains(&count), "{count} events in three seconds");
    assert_eq!(updated(&driven, Some(crowd[59])), 1, "one that changes once is not forgotten");
    for _ in 0..3 {
        driven.now += 1_000;
        driven.handle(Input::Timeout);
    }
    assert_eq!(driven.room.updates_due, None, "nothing is due any more");
}

#[test]
fn the_event_left_precedes_the_end_of_the_connection() {
    let mut driven = Driven::new(9);
    for reason in [LeaveReason::Left, LeaveReason::Removed, LeaveReason::Lost] {
        let participant = driven.join(person("Ann")).participant;
        driven.effects.clear();
        driven.handle(Input::Left(participant, reason));
        let left = Event::Left { participant, reason };
        let reported = |e: &Effect| matches!(e, Effect::Event(_, event) if *event == left);
        let reported = driven.effects.iter().position(reported).expect("participants are notified");
        let closed = driven.effects.iter().position(|e| *e == Effect::Close(participant)).expect("it is closed");
        assert!(reported < closed, "{:?}", driven.effects);
    }
}

#[test]
fn the_event_ended_precedes_the_end_of_connections() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    driven.effects.clear();
    driven.handle(Input::Delete);
    let ended = |e: &Effect| matches!(e, Effect::Event(_, Event::Ended { reason: "deleted" }));
    let ended = driven.effects.iter().position(ended).expect("participants are notified");
    let closed = driven.effects.iter().position(|e| *e == Effect::Close(ann)).expect("it is closed");
    assert!(ended < closed, "{:?}", driven.effects);
    assert_eq!(driven.effects.last(), Some(&Effect::Ended));
}

#[test]
fn all_subscribers_of_a_codec_share_one_encoder() {
    let mut driven = Driven::new(9);
    for codec in [Codec::Vp8, Codec::H264, Codec::Vp8, Codec::H264, Codec::Vp8] {
        driven.join(Admission { receives_video: Some(codec), ..person("x") });
    }
    let streams = driven
        .last(|e| if let Effect::Order(Order::Streams(set)) = e { Some(set.clone()) } else { None })
        .expect("streams");
    let codecs: Vec<_> = streams.streams.iter().map(|s| s.key.codec).collect();
    assert_eq!(codecs, [Codec::Vp8, Codec::H264]);
    let routes = driven.last(|e| if let Effect::Routes(r) = e { Some(r.clone()) } else { None }).expect("routes");
    assert_eq!(routes.len(), 5);
    assert!(routes.iter().all(|route| route.audio && route.video.is_some()));
    let counts: Vec<_> = driven.room.document().streams.iter().map(|s| s.subscribers).collect();
    assert_eq!(counts, [3, 2]);
}

#[test]
fn a_selected_tier_is_encoded_beside_the_one_that_still_flows() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    driven.join(person("Bob"));
    let streams = |driven: &Driven| driven.room.streams.streams.iter().map(|s| s.key.tier).collect::<BTreeSet<_>>();
    assert_eq!(streams(&driven), BTreeSet::from([Tier::High]));
    driven.effects.clear();
    driven.select(ann, Tier::Low, Some(Limit::Delay));
    assert_eq!(streams(&driven), BTreeSet::from([Tier::Low, Tier::High]));
    let document = driven.room.participant(ann).expect("is here");
    assert_eq!((document.receives.tier, document.receives.limit), (Tier::Low, Some(Limit::Delay)));
    assert_eq!(document.tier, TierChoice::Auto);
    let updated = driven.events().iter().filter(|e| matches!(e, Event::Updated { .. })).count();
    assert_eq!(updated, 1, "{:?}", driven.effects);
    driven.switched(ann);
    let counts: Vec<_> = driven.room.document().streams.iter().map(|s| (s.key.clone(), s.subscribers)).collect();
    assert_eq!(counts, [("program/VP8/low".to_owned(), 1), ("program/VP8/high".to_owned(), 1)]);
    // A pinned tier does not follow the link.
    let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Medium)), ..Default::default() };
    driven.handle(Input::Update(Changer::Itself, ann, patch));
    driven.select(ann, Tier::Low, Some(Limit::Loss));
    driven.switched(ann);
    assert_eq!(streams(&driven), BTreeSet::from([Tier::Medium, Tier::High]));
    let document = driven.room.participant(ann).expect("is here");
    assert_eq!((document.receives.tier, document.receives.limit), (Tier::Medium, None));
}

#[test]
fn a_keyframe_is_ordered_of_streams_that_are_encoded() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let serial = driven.room.streams.streams[0].serial;
    driven.effects.clear();
    let subscribers = driven.subscribers.reported.clone();
    let keyframes = vec![serial, serial + 1];
    driven.handle(Input::Demand(StreamDemand { subscribers, keyframes, ..StreamDemand::default() }));
    assert_eq!(driven.effects, [Effect::Order(Order::Keyframe(serial))]);
}

#[test]
fn senders_are_limited_by_the_size_of_their_tiles() {
    let mut driven = Driven::new(9);
    let asked = |driven: &Driven, who: ParticipantId| {
        driven.last(|e| if let Effect::LimitUplink(to, bits) = e { (*to == who).then_some(bits / 1_000) } else { None })
    };
    let kbps = |size: Size| (deserved(size, 30) + SOUND) / 1_000;
    let ann = driven.join(person("Ann")).participant;
    assert_eq!(asked(&driven, ann), Some(kbps(Size::new(1280, 720))));
    let bob = driven.join(person("Bob"));
    assert_eq!(asked(&driven, bob.participant), Some(kbps(Size::new(1280, 720))), "half of this size is visible");
    let cid = driven.join(person("Cid")).participant;
    let tile = driven.scene().tiles[0].rect.size();
    assert_eq!(asked(&driven, ann), Some(kbps(tile)), "less at once");
    assert_eq!(asked(&driven, bob.participant), Some(kbps(tile)));
    // A viewer sends nothing and has no limit.
    let viewer = driven.join(Admission { sends: vec![], ..person("watcher") }).participant;
    assert_eq!(asked(&driven, viewer), None);

    let patch = ParticipantPatch { video_muted: Some(true), ..Default::default() };
    driven.handle(Input::Update(Changer::Itself, ann, patch));
    assert_eq!(asked(&driven, ann), Some((60_000 + SOUND) / 1_000), "nobody sees it");
    driven.handle(Input::Left(bob.participant, LeaveReason::Left));
    driven.handle(Input::Left(cid, LeaveReason::Left));
    driven.handle(Input::Update(
        Changer::Itself,
        ann,
        ParticipantPatch { video_muted: Some(false), ..Default::default() },
    ));
    assert_eq!(asked(&driven, ann), Some((60_000 + SOUND) / 1_000), "more only when it lasts");
    let due = driven.room.poll_timeout().expect("until then");
    driven.now += due.since(at(driven.now)).as_millis() as u64;
    driven.handle(Input::Timeout);
    assert_eq!(asked(&driven, ann), Some(kbps(Size::new(1280, 720))));
    assert_eq!(driven.room.poll_timeout(), None);

    // The limit follows the best stream that is encoded.
    for who in [ann, viewer] {
        let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Low)), ..Default::default() };
        driven.handle(Input::Update(Changer::Itself, who, patch));
        driven.switched(who);
    }
    assert_eq!(asked(&driven, ann), Some((deserved(Size::new(320, 180), 15) + SOUND) / 1_000));
}

#[test]
fn muted_sources_are_neither_mixed_nor_shown() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    let patch = ParticipantPatch { audio_muted: Some(true), video_muted: Some(true), ..Default::default() };
    driven.handle(Input::Update(Changer::Itself, ann.participant, patch));
    let mix = driven.last(|e| if let Effect::Order(Order::Mix(mix)) = e { Some(mix.clone()) } else { None });
    assert!(mix.expect("a mix").sources.is_empty());
    let tile = &driven.scene().tiles[0];
    assert_eq!((tile.source, tile.muted), (None, true));
}

#[test]
fn a_viewer_has_no_tile_and_an_audio_only_participant_has_an_avatar() {
    let mut driven = Driven::new(9);
    driven.join(Admission { sends: vec![], ..person("watcher") });
    let ann = driven.join(Admission { sends: vec![SourceKind::Microphone], ..person("Ann") });
    let tiles = driven.scene().tiles;
    assert_eq!(tiles.len(), 1);
    assert_eq!((tiles[0].participant, tiles[0].source), (ann.participant, None));
}

#[test]
fn a_lost_mixer_is_replaced_and_gets_all_orders() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    let bob = driven.join(person("Bob"));
    driven.effects.clear();
    driven.now = 60_000;
    driven.handle(Input::MixerLost);
    assert_eq!(driven.effects.first(), Some(&Effect::StartMixer));
    let reported: BTreeSet<_> = driven
        .effects
        .iter()
        .filter_map(|e| if let Effect::Order(Order::Source(spec)) = e { Some(spec.source) } else { None })
        .collect();
    assert_eq!(reported, ann.sources.iter().chain(&bob.sources).map(|(_, id)| *id).collect());
    assert_eq!(driven.scene().tiles.len(), 2);
    assert!(driven.events().contains(&&Event::Mixer { state: MixerEvent::Restarted, audio_reduced: None }));
}

#[test]
fn a_reduced_audio_quality_is_in_the_document_and_each_change_is_an_event() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let reduced = AudioEffort { opus_complexity: 1, talkers_max: Some(12) };
    let event = |state, audio_reduced| Event::Mixer { state, audio_reduced };
    let mixer = |driven: &mut Driven, effort| -> Vec<Event> {
        driven.effects.clear();
        driven.handle(Input::AudioEffort(effort));
        driven.events().into_iter().cloned().collect()
    };
    assert_eq!(mixer(&mut driven, AudioEffort::FULL), []);
    assert_eq!(driven.room.document().audio_reduced, None);
    assert_eq!(mixer(&mut driven, reduced), [event(MixerEvent::AudioReduced, Some(reduced))]);
    assert_eq!(mixer(&mut driven, reduced), [], "reports are repeated");
    assert_eq!(driven.room.document().audio_reduced, Some(reduced));
    assert_eq!(mixer(&mut driven, AudioEffort::FULL), [event(MixerEvent::AudioFull, None)]);

    driven.handle(Input::AudioEffort(reduced));
    driven.now = 60_000;
    driven.handle(Input::MixerLost);
    assert_eq!(driven.room.document().audio_reduced, None, "the next mixer begins with full quality");
}

#[test]
fn a_mixer_that_dies_at_once_is_restarted_after_a_pause() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    driven.effects.clear();
    driven.handle(Input::MixerLost);
    assert!(!driven.effects.contains(&Effect::StartMixer));
    let due = driven.room.poll_timeout().expect("tries again");
    driven.now = due.since(at(0)).as_millis() as u64;
    driven.handle(Input::Timeout);
    assert!(driven.effects.contains(&Effect::StartMixer));
}

#[test]
fn a_mixer_that_is_lost_again_and_again_rests_longer_each_time() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let mut rests = Vec::new();
    for _ in 0..4 {
        driven.now += 2_000;
        let lost = driven.now;
        driven.effects.clear();
        driven.handle(Input::MixerLost);
        if !driven.effects.contains(&Effect::StartMixer) {
            driven.now = driven.room.poll_timeout().expect("tries again").since(at(0)).as_millis() as u64;
            driven.handle(Input::Timeout);
        }
        assert!(driven.effects.contains(&Effect::StartMixer));
        rests.push(driven.now - lost);
    }
    assert_eq!(rests, [0, 500, 1_000, 2_000]);
}

#[test]
fn locked_and_full_rooms_refuse() {
    let mut driven = Driven::new(2);
    driven.handle(Input::Patch(RoomPatch { locked: Some(true), ..Default::default() }));
    assert_eq!(driven.room.admit(at(0), person("Ann")), Err(Refusal::Locked));
    driven.join(Admission { role: Role::Moderator, ..person("Mod") });
    driven.handle(Input::Patch(RoomPatch { locked: Some(false), ..Default::default() }));
    driven.join(person("Ann"));
    assert_eq!(driven.room.admit(at(0), person("Bob")), Err(Refusal::Full(2)));
    let viewer = || Admission { role: Role::Viewer, sends: Vec::new(), ..person("Eve") };
    driven.join(viewer());
    driven.join(viewer());
    assert_eq!(driven.room.admit(at(0), viewer()), Err(Refusal::FullOfViewers(2)));
}

#[test]
fn levels_are_of_present_participants_and_have_no_version() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    let version = driven.room.document().version;
    driven.effects.clear();
    driven.handle(Input::Levels(vec![(ann, 126), (ParticipantId(99), 20)]));
    let levels = |e: &Effect| if let Effect::Levels(levels) = e { Some(levels.clone()) } else { None };
    assert_eq!(driven.last(levels), Some(vec![LevelDocument { participant: ann, dbov: -126 }]));
    assert_eq!(driven.room.document().version, version);
}

#[test]
fn a_participant_that_never_connects_is_removed_and_starts_no_mixer() {
    let mut driven = Driven::new(9);
    let ghost = driven.room.admit(at(0), person("ghost")).expect("let in").participant;
    driven.drain();
    assert_eq!(driven.effects, []);
    let due = driven.room.poll_timeout().expect("it has to connect");
    driven.now = due.since(at(0)).as_millis() as u64;
    driven.handle(Input::Timeout);
    assert_eq!(driven.effects.last(), Some(&Effect::Close(ghost)));
    assert!(driven.events().is_empty(), "{:?}", driven.effects);
    assert_eq!((driven.room.population(), driven.room.poll_timeout()), (0, Some(due + LINGER)));
    driven.now += LINGER.as_millis() as u64;
    driven.handle(Input::Timeout);
    assert_eq!(driven.effects.last(), Some(&Effect::Ended));
    assert!(!driven.effects.contains(&Effect::StartMixer), "{:?}", driven.effects);
}

#[test]
fn the_time_to_connect_is_each_participants_own_and_ends_with_its_connection() {
    let mut driven = Driven::new(9);
    let admit = |driven: &mut Driven| driven.room.admit(at(driven.now), person("x")).expect("let in").participant;
    let first = admit(&mut driven);
    driven.now = 10_000;
    let second = admit(&mut driven);
    driven.handle(Input::Connected(first));
    assert_eq!(driven.effects.first(), Some(&Effect::StartMixer));
    assert_eq!(driven.room.poll_timeout(), Some(at(30_000)));
    driven.now = 29_999;
    driven.handle(Input::Timeout);
    assert_eq!(driven.room.population(), 2);
    driven.now = 30_000;
    driven.handle(Input::Timeout);
    assert_eq!(driven.room.population(), 1);
    assert!(driven.room.participant(first).is_some() && driven.room.participant(second).is_none());
    // A participant that leaves in time is not removed again.
    let third = admit(&mut driven);
    driven.handle(Input::Left(third, LeaveReason::Lost));
    assert_eq!(driven.room.poll_timeout(), None);
}

#[test]
fn participants_that_have_not_connected_affect_nothing() {
    let mut driven = Driven::new(500);
    driven.join(person("Ann"));
    driven.effects.clear();
    for _ in 0..200 {
        driven.room.admit(at(0), person("ghost")).expect("let in");
    }
    driven.drain();
    assert_eq!(driven.effects, [], "a half-open join reached the room");
    assert_eq!(driven.room.document().participants.len(), 1);
}

#[test]
fn a_stopped_screen_ends_its_source_and_keeps_the_camera() {
    let mut driven = Driven::new(9);
    let kinds = [SourceKind::Microphone, SourceKind::Camera, SourceKind::Screen];
    let ann = driven.join(Admission { sends: kinds.to_vec(), ..person("Ann") });
    assert_eq!(driven.scene().tiles.len(), 2);
    let kept = driven.room.resend(ann.participant, &kinds[..2]).expect("is here");
    driven.drain();
    assert_eq!(kept, ann.sources[..2]);
    assert_eq!(driven.scene().tiles.len(), 1);
    assert!(driven.effects.contains(&Effect::Order(Order::SourceGone(ann.sources[2].1))));
}

#[test]
fn names_agree_between_the_scene_and_the_documents() {
    use SourceKind::{Camera, Microphone, Screen};
    let mut driven = Driven::new(9);
    let guest = driven.join(person(" \u{200b}")).participant;
    let kh = driven.join(Admission { sends: vec![Microphone, Camera, Screen], ..person("Karl-Heinz") }).participant;
    let scene = driven.scene();
    for person in driven.room.document().participants {
        let tile =
            scene.tiles.iter().find(|tile| (tile.participant, tile.kind) == (person.id, Camera)).expect("a tile");
        assert_eq!((&tile.label, &tile.initials), (&person.display_name, &person.initials));
    }
    let named = |id| driven.room.participant(id).map(|person| [person.name, person.display_name, person.initials]);
    assert_eq!(named(guest), Some(["", "Guest 1", "G1"].map(str::to_owned)));
    assert_eq!(named(kh), Some(["Karl-Heinz", "Karl-Heinz", "KH"].map(str::to_owned)));
    let largest = scene.tiles.iter().max_by_key(|tile| tile.rect.width * tile.rect.height).expect("tiles");
    assert_eq!((largest.kind, largest.label.as_str()), (Screen, "Karl-Heinz’s screen"));
    let request = ChatRequest { text: "hello".into(), to: None };
    let message = driven.room.chat(at(0), Sender::Participant(guest), request).expect("it is sent");
    assert_eq!(message.name, "Guest 1");
}

#[test]
fn a_patch_changes_the_layout_and_the_event_names_the_kind() {
    let mut driven = Driven::new(9);
    (0..3).for_each(|_| drop(driven.join(person("Ann"))));
    assert_eq!(driven.room.document().views[0].kind, LayoutKind::Grid, "chosen by auto");
    let layout = Layout { labels: false, ..LayoutKind::Speaker.into() };
    driven.handle(Input::Patch(RoomPatch { layout: Some(layout.clone()), ..RoomPatch::default() }));
    let document = driven.room.document();
    let event = driven.last(|e| if let Effect::Event(_, Event::Layout(view)) = e { Some(view.clone()) } else { None });
    assert_eq!((event.as_ref(), &document.layout), (document.views.first(), &layout));
    assert_eq!(document.views[0].kind, LayoutKind::Speaker);
    assert!(document.views[0].tiles[0].width > 2 * document.views[0].tiles[1].width);
    assert!(driven.scene().tiles.iter().all(|tile| tile.label.is_empty()));
    let wrong = serde_json::from_str::<RoomPatch>(r#"{"layout":{"kind":"grid","max_tiles":0}}"#);
    assert!(wrong.expect_err("out of range").to_string().contains("1 to 49"));
}
