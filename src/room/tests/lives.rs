//! Random sequences of inputs, with invariants checked after each one.

use proptest::prelude::*;

use super::*;

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

/// Checks the invariants.
fn verify(driven: &Driven, versions: &mut u64) {
    let document = driven.room.document();
    let here: BTreeSet<_> = document.participants.iter().map(|p| p.id).collect();
    for tile in &document.views[0].tiles {
        assert!(here.contains(&tile.participant), "a tile of an unknown participant");
        assert!(tile.x + tile.width <= 1280 && tile.y + tile.height <= 720);
    }
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
