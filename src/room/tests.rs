//! The room alone: what it orders, and random lives of rooms with invariants after each step.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::inputs::{InputNews, InputReport, InputWish};
use super::outputs::{OutputKind, OutputNews, OutputReport, OutputWish};
use super::*;
use crate::id::{InputId, OutputId};
use crate::layout::Layout;
use crate::media::{FileFormat, Kind, Tier};
use crate::room::document::{
    InputDocument, InputState, LevelDocument, OutputState, RecordingKind, UploadDocument, UploadState,
};
use crate::tier::uplink::{SOUND, deserved};
use crate::tier::{Ladder, Limit};

const LINGER: Duration = Duration::from_secs(5);

fn settings(max: usize) -> RoomSettings {
    RoomSettings {
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
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + millis * 1_000)
}

/// A room with what it has asked for.
struct Driven {
    room: Room,
    now: u64,
    effects: Vec<Effect>,
}

impl Driven {
    fn new(max: usize) -> Self {
        Self { room: Room::new(settings(max), at(0)), now: 0, effects: Vec::new() }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.room.poll_effect() {
            self.effects.push(effect);
        }
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
fn the_first_join_starts_the_mixer_and_the_last_leave_ends_the_room_later() {
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
fn whoever_is_gone_is_told_why_before_its_connection_is_closed() {
    let mut driven = Driven::new(9);
    for reason in [LeaveReason::Left, LeaveReason::Removed, LeaveReason::Lost] {
        let participant = driven.join(person("Ann")).participant;
        driven.effects.clear();
        driven.handle(Input::Left(participant, reason));
        let told = |e: &Effect| matches!(e, Effect::Event(_, Event::Left { participant: p, reason: r }) if (*p, *r) == (participant, reason));
        let told = driven.effects.iter().position(told).expect("everybody is told");
        let closed = driven.effects.iter().position(|e| *e == Effect::Close(participant)).expect("it is closed");
        assert!(told < closed, "{:?}", driven.effects);
    }
}

#[test]
fn the_end_is_told_before_connections_are_closed() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    driven.effects.clear();
    driven.handle(Input::Delete);
    let ended = |e: &Effect| matches!(e, Effect::Event(_, Event::Ended { reason: "deleted" }));
    let ended = driven.effects.iter().position(ended).expect("everybody is told");
    let closed = driven.effects.iter().position(|e| *e == Effect::Close(ann)).expect("it is closed");
    assert!(ended < closed, "{:?}", driven.effects);
    assert_eq!(driven.effects.last(), Some(&Effect::Ended));
}

#[test]
fn one_encode_per_codec_however_many_watch() {
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
fn a_thin_link_gets_another_stream_which_takes_over_when_it_flows() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    driven.join(person("Bob"));
    let streams = |driven: &Driven| driven.room.streams.streams.iter().map(|s| s.key.tier).collect::<BTreeSet<_>>();
    assert_eq!(streams(&driven), BTreeSet::from([Tier::High]));
    driven.effects.clear();
    let congested =
        Reception { queue: Some(Duration::from_millis(500)), capacity: Some(250_000), ..Reception::default() };
    driven.now += 5_000;
    driven.handle(Input::Reception(ann, congested));
    assert!(driven.effects.iter().any(|e| matches!(e, Effect::Pause(who, pause) if *who == ann && !pause.is_zero())));
    assert_eq!(streams(&driven), BTreeSet::from([Tier::Low, Tier::High]));
    let route = driven.room.route(ann).expect("is here");
    assert!(route.leaving.is_some() && route.leaving != route.video);
    let document = driven.room.participant(ann).expect("is here");
    assert_eq!((document.receives.tier, document.receives.limit), (Tier::Low, Some(Limit::Delay)));
    assert_eq!(document.tier, TierChoice::Auto);
    driven.handle(Input::Switched(ann));
    assert_eq!(driven.room.route(ann).expect("is here").leaving, None);
    // Whoever pins a tier is not moved from it.
    let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Medium)), ..Default::default() };
    driven.handle(Input::Update(ann, patch));
    driven.handle(Input::Switched(ann));
    driven.now += 5_000;
    driven.handle(Input::Reception(ann, congested));
    assert_eq!(streams(&driven), BTreeSet::from([Tier::Medium, Tier::High]));
}

#[test]
fn senders_are_asked_for_what_their_tiles_show() {
    let mut driven = Driven::new(9);
    let asked = |driven: &Driven, who: ParticipantId| {
        driven.last(|e| if let Effect::Ask(to, bits) = e { (*to == who).then_some(bits / 1_000) } else { None })
    };
    let kbps = |size: Size| (deserved(size, 30) + SOUND) / 1_000;
    let ann = driven.join(person("Ann")).participant;
    assert_eq!(asked(&driven, ann), Some(kbps(Size::new(1280, 720))));
    let bob = driven.join(person("Bob"));
    let tile = driven.scene().tiles[0].rect.size();
    assert_eq!(asked(&driven, ann), Some(kbps(tile)), "less at once");
    assert_eq!(asked(&driven, bob.participant), Some(kbps(tile)));
    // A viewer sends nothing and is asked nothing.
    let viewer = driven.join(Admission { sends: vec![], ..person("watcher") }).participant;
    assert_eq!(asked(&driven, viewer), None);

    let patch = ParticipantPatch { video_muted: Some(true), ..Default::default() };
    driven.handle(Input::Update(ann, patch));
    assert_eq!(asked(&driven, ann), Some((60_000 + SOUND) / 1_000), "nobody sees it");
    driven.handle(Input::Left(bob.participant, LeaveReason::Left));
    driven.handle(Input::Update(ann, ParticipantPatch { video_muted: Some(false), ..Default::default() }));
    assert_eq!(asked(&driven, ann), Some((60_000 + SOUND) / 1_000), "more only when it lasts");
    let due = driven.room.poll_timeout().expect("until then");
    driven.now += due.since(at(driven.now)).as_millis() as u64;
    driven.handle(Input::Timeout);
    assert_eq!(asked(&driven, ann), Some(kbps(Size::new(1280, 720))));
    assert_eq!(driven.room.poll_timeout(), None);

    // Whoever is watched only on thin links need not send more than those show.
    for who in [ann, viewer] {
        let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Low)), ..Default::default() };
        driven.handle(Input::Update(who, patch));
        driven.handle(Input::Switched(who));
    }
    assert_eq!(asked(&driven, ann), Some((deserved(Size::new(320, 180), 15) + SOUND) / 1_000));
}

#[test]
fn muting_leaves_mix_and_picture() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    let patch = ParticipantPatch { audio_muted: Some(true), video_muted: Some(true), ..Default::default() };
    driven.handle(Input::Update(ann.participant, patch));
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
fn a_lost_mixer_is_replaced_and_told_everything() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    let bob = driven.join(person("Bob"));
    driven.effects.clear();
    driven.now = 60_000;
    driven.handle(Input::MixerLost);
    assert_eq!(driven.effects.first(), Some(&Effect::StartMixer));
    let told: BTreeSet<_> = driven
        .effects
        .iter()
        .filter_map(|e| if let Effect::Order(Order::Source(spec)) = e { Some(spec.source) } else { None })
        .collect();
    assert_eq!(told, ann.sources.iter().chain(&bob.sources).map(|(_, id)| *id).collect());
    assert_eq!(driven.scene().tiles.len(), 2);
    assert!(driven.events().contains(&&Event::Mixer { state: MixerEvent::Restarted }));
}

#[test]
fn a_mixer_that_dies_at_birth_is_not_started_in_a_spin() {
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
fn levels_are_of_those_who_are_here_and_have_no_version() {
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
fn half_open_joins_disturb_nobody() {
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

#[derive(Debug, Clone)]
enum Op {
    Join { sends: Vec<SourceKind>, video: Option<Codec>, audio: bool },
    Connect(usize),
    Start(usize),
    Leave(usize),
    Mute(usize, bool, bool),
    Tier(usize, TierChoice),
    Congest(usize, u64),
    Switch(usize),
    Talk(usize, u8),
    LoseMixer,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    use SourceKind::{Camera, Microphone, Screen};
    let sends = proptest::sample::subsequence(vec![Microphone, Camera, Screen], 0..=3);
    let video = proptest::option::of(proptest::sample::select(vec![Codec::Vp8, Codec::H264]));
    prop_oneof![
        3 => (sends, video, any::<bool>()).prop_map(|(sends, video, audio)| Op::Join { sends, video, audio }),
        4 => (0usize..8).prop_map(Op::Connect),
        4 => (0usize..8).prop_map(Op::Start),
        2 => (0usize..8).prop_map(Op::Leave),
        1 => (0usize..8, any::<bool>(), any::<bool>()).prop_map(|(i, a, v)| Op::Mute(i, a, v)),
        1 => (0usize..8, proptest::sample::select(Tier::ALL.to_vec()))
            .prop_map(|(i, tier)| Op::Tier(i, TierChoice::Pinned(tier))),
        1 => (0usize..8).prop_map(|i| Op::Tier(i, TierChoice::Auto)),
        2 => (0usize..8, 20_000_u64..3_000_000).prop_map(|(i, capacity)| Op::Congest(i, capacity)),
        2 => (0usize..8).prop_map(Op::Switch),
        2 => (0usize..8, 0u8..=127).prop_map(|(i, level)| Op::Talk(i, level)),
        1 => Just(Op::LoseMixer),
        3 => (1u64..3_000).prop_map(Op::Pass),
    ]
}

/// What must hold after every step.
fn verify(driven: &Driven, versions: &mut u64) {
    let document = driven.room.document();
    let here: BTreeSet<_> = document.participants.iter().map(|p| p.id).collect();
    for tile in &document.views[0].tiles {
        assert!(here.contains(&tile.participant), "a tile of somebody who is not here");
        assert!(tile.x + tile.width <= 1280 && tile.y + tile.height <= 720);
    }
    assert!(document.speaking.iter().chain(&document.speaker).all(|id| here.contains(id)), "a ghost speaks");
    for effect in &driven.effects {
        if let Effect::Event(version, _) = effect {
            assert_eq!(*version, *versions + 1, "a gap in the versions");
            *versions = *version;
        }
    }
    assert_eq!(document.version, *versions);
    let streams: BTreeSet<_> = driven.room.streams.streams.iter().map(|s| s.serial).collect();
    let used: BTreeSet<_> =
        driven.room.routes.iter().flat_map(|route| [route.video, route.leaving]).flatten().collect();
    assert_eq!(streams, used, "an encoder without a subscriber, or a subscriber without an encoder");
    let listeners: BTreeSet<_> = driven.room.mix.listeners.iter().map(|listener| listener.participant).collect();
    assert!(listeners.is_subset(&here));
}

proptest! {
    #[test]
    fn random_lives_keep_the_invariants(ops in proptest::collection::vec(op(), 1..60)) {
        let mut driven = Driven::new(12);
        let mut people: Vec<Admitted> = Vec::new();
        let mut versions = 0;
        for op in ops {
            driven.effects.clear();
            let who = |i: usize| people.get(i % people.len().max(1));
            match op {
                Op::Join { sends, video, audio } => {
                    let admission = Admission { sends, receives_video: video, receives_audio: audio.then_some(SoundTaken::Any), ..person("x") };
                    if let Ok(admitted) = driven.room.admit(at(driven.now), admission) {
                        people.push(admitted);
                    }
                    driven.drain();
                }
                Op::Connect(i) => if let Some(p) = who(i) {
                    let p = p.participant;
                    driven.handle(Input::Connected(p));
                },
                Op::Start(i) => for (kind, id) in who(i).map(|p| p.sources.clone()).unwrap_or_default() {
                    let codec = if kind.kind() == Kind::Audio { Codec::Opus } else { Codec::Vp8 };
                    driven.handle(Input::SourceStarted(id, codec));
                },
                Op::Leave(i) => if !people.is_empty() {
                    let p = people.remove(i % people.len());
                    driven.handle(Input::Left(p.participant, LeaveReason::Lost));
                },
                Op::Mute(i, audio, video) => if let Some(p) = who(i) {
                    let p = p.participant;
                    let patch = ParticipantPatch { audio_muted: Some(audio), video_muted: Some(video), ..Default::default() };
                    driven.handle(Input::Update(p, patch));
                },
                Op::Tier(i, tier) => if let Some(p) = who(i) {
                    let p = p.participant;
                    let patch = ParticipantPatch { tier: Some(tier), ..Default::default() };
                    driven.handle(Input::Update(p, patch));
                },
                Op::Congest(i, capacity) => if let Some(p) = who(i) {
                    let p = p.participant;
                    let reception = Reception {
                        lost: if capacity % 2 == 0 { 0.4 } else { 0.0 },
                        capacity: Some(capacity),
                        ..Reception::default()
                    };
                    driven.handle(Input::Reception(p, reception));
                },
                Op::Switch(i) => if let Some(p) = who(i) {
                    let p = p.participant;
                    driven.handle(Input::Switched(p));
                },
                Op::Talk(i, level) => if let Some(p) = who(i) {
                    let p = p.participant;
                    if driven.room.participant(p).is_some() {
                        driven.handle(Input::Levels(vec![(p, level)]));
                    }
                },
                Op::LoseMixer => driven.handle(Input::MixerLost),
                Op::Pass(millis) => {
                    driven.now += millis;
                    if driven.room.poll_timeout().is_some_and(|due| due <= at(driven.now)) {
                        driven.handle(Input::Timeout);
                    }
                }
            }
            verify(&driven, &mut versions);
        }
    }
}

fn recording(format: FileFormat) -> OutputWish {
    OutputWish {
        kind: OutputKind::Recording { kind: RecordingKind::View, format },
        streams: format.video().first().map(|codec| (*codec, Tier::High)).into_iter().collect(),
        sound: true,
    }
}

impl Driven {
    fn output(&mut self, id: OutputId, news: OutputNews) {
        self.room.handle(at(self.now), Input::Output(id, news));
        self.drain();
    }

    fn state(&self, id: OutputId) -> OutputState {
        self.room.document().recordings.iter().find(|recording| recording.id == id).expect("listed").state
    }
}

#[test]
fn a_recording_is_a_subscriber_of_a_stream_that_exists_already() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let before = driven.room.document().streams;
    let id = driven.room.add_output(at(driven.now), recording(FileFormat::Webm)).expect("room for one");
    driven.drain();
    assert!(driven.effects.contains(&Effect::StartOutput(id)));
    let document = driven.room.document();
    assert_eq!(document.streams.len(), before.len(), "no encode more");
    assert_eq!(document.streams[0].subscribers, before[0].subscribers + 1);
    let route = driven.effects.iter().rev().find_map(|effect| match effect {
        Effect::OutputRoutes(routes) => routes.first(),
        _ => None,
    });
    let route = route.expect("it is given packets").clone();
    assert_eq!((route.output, route.sound, route.sources), (id, true, false));
    assert_eq!(driven.room.output_streams(id).iter().map(|spec| spec.serial).collect::<Vec<_>>(), route.streams);
    assert!(driven.effects.iter().rev().any(|e| matches!(e, Effect::Order(Order::Mix(plan)) if plan.outputs)));

    driven.output(id, OutputNews::KeyframeWanted(0));
    assert_eq!(driven.effects.last(), Some(&Effect::Order(Order::Keyframe(route.streams[0]))));
    driven.output(id, OutputNews::Report(OutputReport { state: OutputState::Live, ..OutputReport::default() }));
    assert_eq!(driven.state(id), OutputState::Live);
    driven.output(id, OutputNews::Stop);
    assert!(driven.effects.contains(&Effect::FinishOutput(id)));
    assert!(driven.effects.contains(&Effect::OutputRoutes(Vec::new())));
    driven.output(id, OutputNews::Report(OutputReport { state: OutputState::Live, ..OutputReport::default() }));
    assert_eq!(driven.state(id), OutputState::Finishing, "it was told to end");
    driven.output(id, OutputNews::Ended(None));
    assert_eq!(driven.state(id), OutputState::Finished);
}

#[test]
fn the_files_of_a_recording_that_is_over_are_uploaded() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let id = driven.room.add_output(at(driven.now), recording(FileFormat::Mp4)).expect("room for one");
    driven.output(id, OutputNews::File("a.mp4".to_owned()));
    driven.output(id, OutputNews::File("a-001.mp4".to_owned()));
    driven.output(id, OutputNews::Ended(None));
    driven.effects.clear();
    let upload = |state, error: Option<&str>| UploadDocument { state, error: error.map(str::to_owned) };
    let said = |driven: &Driven| driven.room.document().recordings[0].upload.clone();
    assert_eq!(said(&driven), None);
    for (file, news, whole) in [
        ("a.mp4", upload(UploadState::Uploading, None), UploadState::Uploading),
        ("a-001.mp4", upload(UploadState::Waiting, Some("away")), UploadState::Uploading),
        ("a.mp4", upload(UploadState::Done, None), UploadState::Waiting),
        ("b.mp4", upload(UploadState::Uploading, None), UploadState::Waiting),
        ("a-001.mp4", upload(UploadState::Done, None), UploadState::Done),
    ] {
        driven.output(id, OutputNews::Upload(file.to_owned(), news));
        assert_eq!(said(&driven).map(|upload| upload.state), Some(whole), "{file}");
    }
    let told =
        driven.effects.iter().filter(|effect| matches!(effect, Effect::Event(_, Event::Recording { .. }))).count();
    assert_eq!(told, 4, "each change is told, and nothing of a stranger's file");
}

#[test]
fn a_lost_recording_goes_on_after_a_rest_and_one_that_dies_young_again_and_again_is_given_up() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let id = driven.room.add_output(at(driven.now), recording(FileFormat::Mp4)).expect("room for one");
    driven.drain();
    driven.output(id, OutputNews::File("a.mp4".to_owned()));
    let report = OutputReport { state: OutputState::Live, bytes: 1_000, ..OutputReport::default() };
    driven.output(id, OutputNews::Report(report.clone()));
    driven.now += 20_000;
    driven.effects.clear();
    driven.output(id, OutputNews::Lost("killed".to_owned()));
    assert!(driven.effects.contains(&Effect::StartOutput(id)), "one that had lived is replaced at once");
    driven.output(id, OutputNews::File("a-001.mp4".to_owned()));
    driven.output(id, OutputNews::Report(report));
    let document = driven.room.document();
    assert_eq!((document.recordings[0].bytes, document.recordings[0].files.len()), (2_000, 2), "both parts");

    let mut starts = 0;
    for _ in 0..20 {
        driven.effects.clear();
        driven.output(id, OutputNews::Lost("killed".to_owned()));
        if driven.state(id) == OutputState::Failed {
            break;
        }
        let until = driven.room.poll_timeout().expect("it rests");
        assert!(until > at(driven.now));
        driven.now += until.since(at(driven.now)).as_millis() as u64 + 1;
        driven.room.handle(at(driven.now), Input::Timeout);
        driven.drain();
        assert!(driven.effects.contains(&Effect::StartOutput(id)));
        starts += 1;
    }
    assert_eq!((driven.state(id), starts), (OutputState::Failed, 5));
    assert!(driven.room.document().streams.iter().all(|stream| !stream.key.contains("H264")), "its stream goes");
}

#[test]
fn a_room_that_ends_finishes_its_recordings_and_too_many_are_refused() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let ids: Vec<OutputId> =
        (0..3).filter_map(|_| driven.room.add_output(at(driven.now), recording(FileFormat::Ogg)).ok()).collect();
    assert_eq!(ids.len(), 3);
    let refused = driven.room.add_output(at(driven.now), recording(FileFormat::Ogg));
    assert_eq!(refused, Err(Refusal::FullOfOutputs(3)));
    driven.output(ids[0], OutputNews::Ended(Some("the disk is full".to_owned())));
    assert_eq!(driven.state(ids[0]), OutputState::Failed);
    assert!(driven.room.add_output(at(driven.now), recording(FileFormat::Ogg)).is_ok(), "one that is over makes room");
    driven.room.handle(at(driven.now), Input::Delete);
    driven.drain();
    for id in &ids[1..] {
        assert!(driven.effects.contains(&Effect::FinishOutput(*id)));
    }
    assert_eq!(driven.effects.last(), Some(&Effect::Ended));
}

#[test]
fn a_room_that_stays_runs_its_mixer_while_it_is_broadcast_though_nobody_is_there() {
    let mut driven =
        Driven { room: Room::new(RoomSettings { permanent: true, ..settings(9) }, at(0)), now: 0, effects: Vec::new() };
    let id = driven.room.add_output(at(0), recording(FileFormat::Mp4)).expect("room for one");
    driven.drain();
    assert!(driven.effects.contains(&Effect::StartMixer));
    assert_eq!(driven.room.poll_timeout(), None, "nothing is due");
    driven.now = 60_000;
    driven.output(id, OutputNews::Stop);
    driven.output(id, OutputNews::Ended(None));
    let until = driven.room.poll_timeout().expect("the mixer is to be stopped");
    driven.room.handle(until, Input::Timeout);
    driven.drain();
    assert!(driven.effects.contains(&Effect::StopMixer));
    assert_eq!(driven.room.poll_timeout(), None);
}

fn wish(name: &str) -> InputWish {
    InputWish { url: "srt://example.com:9000".into(), name: name.into(), repeat: false, pushed: false }
}

impl Driven {
    fn add_input(&mut self, wish: InputWish) -> (InputId, Admitted) {
        let added = self.room.add_input(at(self.now), wish).expect("room for one");
        self.drain();
        added
    }

    fn input(&mut self, id: InputId, news: InputNews) {
        self.handle(Input::Input(id, news));
    }

    fn input_document(&self, id: InputId) -> InputDocument {
        self.room.document().inputs.into_iter().find(|input| input.id == id).expect("listed")
    }
}

#[test]
fn an_input_is_a_participant_as_long_as_it_lasts() {
    let mut driven = Driven::new(9);
    driven.handle(Input::Patch(RoomPatch { locked: Some(true), ..RoomPatch::default() }));
    let (id, admitted) = driven.add_input(wish("Lobby"));
    assert!(driven.effects.contains(&Effect::StartInput(id)), "also in a locked room");
    let scene = driven.scene();
    assert_eq!((scene.tiles[0].participant, scene.tiles[0].label.as_str()), (admitted.participant, "Lobby"));
    let person = driven.room.participant(admitted.participant).expect("is there at once");
    assert_eq!((person.role, person.receives.audio, person.receives.video), (Role::Participant, false, None));
    assert_eq!(driven.input_document(id).state, InputState::Starting);

    let report = InputReport { state: InputState::Live, bitrate: 5, ..InputReport::default() };
    let told = |driven: &Driven| driven.events().iter().filter(|e| matches!(e, Event::Input { .. })).count();
    let before = told(&driven);
    for _ in 0..3 {
        driven.input(id, InputNews::Report(report.clone()));
    }
    assert_eq!(told(&driven), before + 1, "what only repeats is not told");
    driven.input(id, InputNews::Ended(Some("it is no film".into())));
    let document = driven.input_document(id);
    assert_eq!(
        (document.state, document.reason.as_deref(), document.bitrate),
        (InputState::Failed, Some("it is no film"), 0)
    );
    assert!(driven.scene().tiles.is_empty() && driven.room.participant(admitted.participant).is_none());
    assert!(driven.effects.contains(&Effect::Close(admitted.participant)));
    assert_eq!(driven.room.poll_timeout(), Some(at(driven.now) + LINGER), "nobody is left");
}

#[test]
fn a_lost_input_is_started_again_and_its_participant_stays() {
    let mut driven = Driven::new(9);
    let (id, admitted) = driven.add_input(wish("Lobby"));
    let starts = |driven: &Driven| driven.effects.iter().filter(|e| **e == Effect::StartInput(id)).count();
    driven.now = 60_000;
    driven.input(id, InputNews::Lost("killed".into()));
    assert_eq!(starts(&driven), 2, "one that had settled goes on at once");
    let document = driven.input_document(id);
    assert_eq!((document.state, document.reconnects), (InputState::Reconnecting, 1));
    for early in 1..EARLY_DEATHS {
        driven.input(id, InputNews::Lost("crash".into()));
        let until = driven.room.poll_timeout().expect("it rests");
        assert_eq!(starts(&driven), 1 + early, "one that dies young rests first");
        driven.now = (until.as_micros() - at(0).as_micros()) / 1_000;
        driven.handle(Input::Timeout);
        assert_eq!(starts(&driven), 2 + early);
        assert!(driven.room.participant(admitted.participant).is_some());
    }
    driven.input(id, InputNews::Lost("crash".into()));
    assert_eq!(driven.input_document(id).state, InputState::Failed);
    assert!(driven.room.participant(admitted.participant).is_none());
}

/// So many deaths in a row end an input.
const EARLY_DEATHS: usize = 6;

#[test]
fn an_input_ends_with_its_participant_with_its_room_and_on_demand() {
    let mut driven = Driven::new(9);
    let (first, admitted) = driven.add_input(wish("a"));
    let (second, _) = driven.add_input(wish("b"));
    assert_eq!(driven.room.add_input(at(0), wish("c")).err(), Some(Refusal::FullOfInputs(2)));
    driven.handle(Input::Left(admitted.participant, LeaveReason::Removed));
    assert!(driven.effects.contains(&Effect::StopInput(first)));
    assert_eq!(driven.input_document(first).state, InputState::Finished);
    let removed = Event::Left { participant: admitted.participant, reason: LeaveReason::Removed };
    assert!(driven.events().contains(&&removed));
    driven.input(second, InputNews::Stop);
    assert!(driven.effects.contains(&Effect::StopInput(second)));

    let (pushed, admitted) = driven.add_input(InputWish { pushed: true, ..wish("d") });
    driven.input(pushed, InputNews::Lost("killed".into()));
    assert_eq!(driven.input_document(pushed).state, InputState::Failed, "an encoder comes back by itself");
    assert!(driven.room.participant(admitted.participant).is_none());

    let (last, _) = driven.add_input(wish("e"));
    driven.handle(Input::Delete);
    assert!(driven.effects.contains(&Effect::StopInput(last)));
    assert_eq!(driven.room.add_input(at(0), wish("f")).err(), Some(Refusal::Ended));
}
