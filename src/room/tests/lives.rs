//! Random sequences of inputs, with invariants checked after each one.

use crate::room::moderation::Changer;
use proptest::prelude::*;

use super::*;
use crate::media::Rect;
use crate::room::mixer::Mixer;
use crate::room::view_budget::OWN_VIEWS_MAX;
use crate::room::view_request::{SelfView, VIEWS_MAX, ViewRequest};

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
    View(usize, ViewPatch),
    PutView(usize, ViewRequest),
    DeleteView(usize),
    LoseMixer,
    Pass(u64),
}

/// Names of views; the last is not one that can be created.
const NAMES: [&str; 3] = ["a", "b", "own"];

fn view_patch() -> impl Strategy<Value = ViewPatch> {
    let view = proptest::option::of(proptest::sample::select(vec!["program", "a", "b", "own"]));
    let layout = proptest::sample::select(vec![LayoutKind::Auto, LayoutKind::Speaker]);
    let layout = proptest::option::of(proptest::option::of(layout));
    let canvas = proptest::option::of(proptest::option::of(Just(Size::new(720, 1280))));
    let self_view = proptest::option::of(proptest::sample::select(vec![SelfView::Shown, SelfView::Hidden]));
    (view, layout, canvas, self_view).prop_map(|(view, layout, canvas, self_view)| ViewPatch {
        view: view.map(|name| name.parse().expect("a name")),
        layout: layout.map(|layout| layout.map(Layout::from)),
        canvas,
        self_view,
    })
}

fn view_request() -> impl Strategy<Value = ViewRequest> {
    let hide = proptest::sample::subsequence(vec!["self", "audio_only", "listeners", "p1", "p2"], 0..=3);
    let show = proptest::option::of(proptest::sample::subsequence(vec!["p1", "p2", "p2/screen"], 0..=3));
    let kind = proptest::sample::select(vec!["auto", "speaker", "grid"]);
    (hide, show, kind).prop_map(|(hide, show, kind)| {
        let json = serde_json::json!({"layout": {"kind": kind}, "hide": hide, "show": show});
        serde_json::from_value(json).expect("valid")
    })
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
        3 => (0usize..8, view_patch()).prop_map(|(i, patch)| Op::View(i, patch)),
        1 => (0usize..3, view_request()).prop_map(|(i, request)| Op::PutView(i, request)),
        1 => (0usize..3).prop_map(Op::DeleteView),
        1 => Just(Op::LoseMixer),
        3 => (1u64..3_000).prop_map(Op::Pass),
    ]
}

/// Checks the invariants.
fn verify(driven: &Driven, versions: &mut u64, mixer: &mut BTreeMap<ViewName, Scene>) {
    let document = driven.room.document();
    let here: BTreeSet<_> = document.participants.iter().map(|p| p.id).collect();
    for tile in &document.views[0].tiles {
        assert!(here.contains(&tile.participant), "a tile of an unknown participant");
        assert!(tile.x + tile.width <= 1280 && tile.y + tile.height <= 720);
    }
    verify_views(driven, &document, mixer);
    assert!(
        document.speaking.iter().chain(&document.speaker).all(|id| here.contains(id)),
        "an unknown participant speaks"
    );
    for effect in &driven.effects {
        if let Effect::Event(version, _) = effect {
            assert_eq!(*version, *versions + 1, "a gap in the versions");
            *versions = *version;
        }
    }
    assert_eq!(document.version, *versions);
    let streams: BTreeSet<_> = driven.room.streams.streams.iter().map(|s| s.serial).collect();
    let keys: BTreeSet<_> = driven.room.streams.streams.iter().map(|s| s.key.clone()).collect();
    let used: BTreeSet<_> = driven.subscribers.reported.keys().cloned().collect();
    assert_eq!(keys, used, "an encoder without a subscriber, or a subscriber without an encoder");
    assert_eq!(streams.len(), keys.len(), "a serial names one stream");
    assert!(driven.room.routes.iter().all(|route| here.contains(&route.participant)));
    let listeners: BTreeSet<_> = driven.room.mix.listeners.iter().map(|listener| listener.participant).collect();
    assert!(listeners.is_subset(&here));
}

/// Checks the invariants of the views. `mixer`: the scenes that were ordered.
fn verify_views(driven: &Driven, document: &RoomDocument, mixer: &mut BTreeMap<ViewName, Scene>) {
    for effect in &driven.effects {
        match effect {
            Effect::StartMixer => mixer.clear(),
            Effect::Order(Order::Scene(scene)) => drop(mixer.insert(scene.view.clone(), scene.clone())),
            Effect::Order(Order::SceneGone(view)) => drop(mixer.remove(view)),
            _ => {}
        }
    }
    let scenes: BTreeMap<_, _> = driven.room.views.scenes().map(|scene| (scene.view.clone(), scene.clone())).collect();
    if driven.room.mixer != Mixer::Off {
        assert_eq!(*mixer, scenes, "the mixer has other scenes");
    }
    assert!(scenes.len() <= VIEWS_MAX + OWN_VIEWS_MAX, "{} scenes", scenes.len());
    let sources: BTreeSet<_> = driven.room.sources().map(|spec| (spec.participant, spec.source)).collect();
    for scene in scenes.values() {
        for tile in &scene.tiles {
            let Rect { x, y, width, height } = tile.rect;
            assert!(x + width <= scene.canvas.width && y + height <= scene.canvas.height);
            assert!(document.participants.iter().any(|person| person.id == tile.participant));
            assert!(tile.source.is_none_or(|source| sources.contains(&(tile.participant, source))), "absent source");
        }
    }
    let listed: BTreeSet<_> = document.views.iter().map(|view| view.view.clone()).collect();
    for person in &document.participants {
        assert!(listed.contains(&person.view) && listed.contains(&person.receives.view), "it receives a view that is");
        let route = driven.room.routes.iter().find(|route| route.participant == person.id).expect("a route");
        assert!(route.video.as_ref().is_none_or(|(view, _)| *view == person.receives.view));
        let hides_itself = person.view.as_str().starts_with("own-") && driven.room.people[&person.id].view.hides_self();
        let tiles = &scenes[&person.receives.view].tiles;
        assert!(!hides_itself || tiles.iter().all(|tile| tile.participant != person.id), "it sees itself");
    }
    let own = listed.iter().filter(|view| view.as_str().starts_with("own-"));
    assert!(own.clone().all(|view| document.participants.iter().any(|person| person.receives.view == *view)));
    for view in own {
        let like = |other: &&ViewName| *other != view && driven.room.views.are_equal(view, other);
        assert_eq!(listed.iter().find(like), None, "equal views are one");
    }
}

proptest! {
    #[test]
    fn random_lives_keep_the_invariants(ops in proptest::collection::vec(op(), 1..60)) {
        let mut driven = Driven::new(12);
        let mut people: Vec<Admitted> = Vec::new();
        let (mut versions, mut mixer) = (0, BTreeMap::new());
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
                    driven.handle(Input::Update(Changer::Itself, p, patch));
                },
                Op::Tier(i, tier) => if let Some(p) = who(i) {
                    let p = p.participant;
                    let patch = ParticipantPatch { tier: Some(tier), ..Default::default() };
                    driven.handle(Input::Update(Changer::Itself, p, patch));
                },
                Op::Congest(i, capacity) => if let Some(p) = who(i) {
                    let p = p.participant;
                    let tier = Tier::ALL[capacity as usize % Tier::ALL.len()];
                    driven.select(p, tier, Some(Limit::Loss));
                },
                Op::Switch(i) => if let Some(p) = who(i) {
                    let p = p.participant;
                    driven.switched(p);
                },
                Op::Talk(i, level) => if let Some(p) = who(i) {
                    let p = p.participant;
                    if driven.room.participant(p).is_some() {
                        driven.handle(Input::Levels(vec![(p, level)]));
                    }
                },
                Op::View(i, view) => if let Some(p) = who(i) {
                    let p = p.participant;
                    if driven.room.check_view(&view).is_ok() {
                        let ViewPatch { view, layout, canvas, self_view } = view;
                        let patch = ParticipantPatch { view, layout, canvas, self_view, ..Default::default() };
                        driven.handle(Input::Update(Changer::Itself, p, patch));
                    }
                },
                Op::PutView(i, request) => {
                    let put = driven.room.put_view(at(driven.now), &NAMES[i].parse().expect("a name"), request);
                    assert_eq!(put.is_err(), NAMES[i] == "own");
                    driven.drain();
                }
                Op::DeleteView(i) => {
                    // There may be no such view.
                    let _ = driven.room.delete_view(at(driven.now), &NAMES[i].parse().expect("a name"));
                    driven.drain();
                }
                Op::LoseMixer => driven.handle(Input::MixerLost),
                Op::Pass(millis) => {
                    driven.now += millis;
                    if driven.room.poll_timeout().is_some_and(|due| due <= at(driven.now)) {
                        driven.handle(Input::Timeout);
                    }
                }
            }
            verify(&driven, &mut versions, &mut mixer);
        }
    }
}
