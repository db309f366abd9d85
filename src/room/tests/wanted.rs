//! The sizes at which sources are shown at most.

use super::*;
use crate::room::moderation::Changer;

/// The size that a participant's camera was last wanted in.
fn wanted(driven: &Driven, who: ParticipantId) -> Option<Size> {
    driven.last(|e| match e {
        Effect::Want(to, SourceKind::Camera, size) if *to == who => Some(*size),
        _ => None,
    })
}

#[test]
fn a_camera_is_wanted_in_the_size_of_its_tile_in_the_best_stream() {
    let mut driven = Driven::new(20);
    let ann = driven.join(person("Ann")).participant;
    assert_eq!(wanted(&driven, ann), Some(Size::new(1280, 720)));
    let others: Vec<_> = (0..8).map(|n| driven.join(person(&format!("P{n}"))).participant).collect();
    let tile = driven.scene().tiles[0].rect.size();
    assert!(tile.width < 428, "a grid of nine: {tile}");
    assert_eq!(wanted(&driven, ann), Some(tile));
    let document = driven.room.participant(ann).expect("is here");
    let camera = document.sends.iter().find(|source| source.kind == SourceKind::Camera).expect("it has one");
    assert_eq!(camera.wanted, Some(tile));
    // Nothing is said twice.
    driven.effects.clear();
    driven.handle(Input::Timeout);
    assert_eq!(wanted(&driven, ann), None);

    // All receive a lower tier.
    for who in others.iter().chain([&ann]) {
        let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Low)), ..Default::default() };
        driven.handle(Input::Update(Changer::Itself, *who, patch));
        driven.switched(*who);
    }
    let small = wanted(&driven, ann).expect("it has changed");
    assert_eq!(small.width, (tile.width * 320).div_ceil(1280));
    // Nobody receives video.
    for who in others.iter().chain([&ann]) {
        let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Audio)), ..Default::default() };
        driven.handle(Input::Update(Changer::Itself, *who, patch));
        driven.switched(*who);
    }
    assert_eq!(wanted(&driven, ann), Some(Size::new(0, 0)));
}

#[test]
fn the_encoding_that_is_received_is_in_the_document() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    let camera = ann.sources.iter().find(|(kind, _)| *kind == SourceKind::Camera).expect("it has one").1;
    driven.effects.clear();
    driven.handle(Input::SourceEncoding(camera, "q".into()));
    let document = driven.room.participant(ann.participant).expect("is here");
    let encodings: Vec<_> = document.sends.iter().map(|source| source.encoding.as_deref()).collect();
    assert_eq!(encodings, [None, Some("q")]);
    assert!(driven.events().iter().any(|event| matches!(event, Event::Updated { .. })));
}
