//! Sources that break decoders or the mixer.

use serde_json::{Value, json};

use super::*;
use crate::plan::MixInput;
use crate::room::quarantine::QuarantineReason;

/// A participant whose camera and microphone have started, and their sources.
fn sending(driven: &mut Driven, name: &str) -> (ParticipantId, [SourceId; 2]) {
    let admitted = driven.join(person(name));
    let source = |wanted: Kind| {
        let found = admitted.sources.iter().find(|(kind, _)| kind.kind() == wanted);
        found.expect("it sends both").1
    };
    let (camera, microphone) = (source(Kind::Video), source(Kind::Audio));
    driven.handle(Input::SourceStarted(camera, Codec::Vp8));
    driven.handle(Input::SourceStarted(microphone, Codec::Opus));
    (admitted.participant, [camera, microphone])
}

fn shown(driven: &Driven) -> BTreeSet<SourceId> {
    driven.room.views.scenes().flat_map(|scene| scene.tiles.iter().filter_map(|tile| tile.source)).collect()
}

fn die(driven: &mut Driven, decoding: impl IntoIterator<Item = SourceId>) {
    driven.effects.clear();
    driven.now += 60_000;
    driven.handle(Input::DiedDecoding(decoding.into_iter().collect()));
    driven.handle(Input::MixerLost);
}

fn events(driven: &Driven) -> Vec<Value> {
    driven.events().iter().map(|event| serde_json::to_value(event).expect("plain data")).collect()
}

#[test]
fn a_source_that_was_decoded_when_the_mixer_died_twice_is_isolated_and_the_room_continues() {
    let mut driven = Driven::new(9);
    let (ann, [evil, _]) = sending(&mut driven, "Ann");
    let (_, [camera, _]) = sending(&mut driven, "Bea");
    die(&mut driven, [evil, camera]);
    assert_eq!(shown(&driven), BTreeSet::from([evil, camera]), "one death says little");
    die(&mut driven, [evil]);
    assert_eq!(shown(&driven), BTreeSet::from([camera]));
    let counted = driven
        .effects
        .iter()
        .filter(|effect| **effect == Effect::Quarantined(ann, SourceKind::Camera, QuarantineReason::MixerDied));
    assert_eq!(counted.count(), 1);
    let events = events(&driven);
    let expected = json!({"type": "quarantined", "participant": ann, "source": "camera", "reason": "mixer_died"});
    assert_eq!(events.iter().filter(|event| **event == expected).count(), 1, "{events:?}");
    let document = serde_json::to_value(driven.room.participant(ann)).expect("plain data");
    let sends = document["sends"].as_array().expect("a list");
    let reasons: Vec<&Value> = sends.iter().filter_map(|source| source.get("quarantined")).collect();
    assert_eq!(reasons, [&json!("mixer_died")], "only the camera");
    assert!(driven.effects.contains(&Effect::StartMixer), "the mixer is started again");
    // The next mixer neither shows it, nor does a new codec bring it back.
    driven.handle(Input::SourceStarted(evil, Codec::H264));
    assert_eq!(shown(&driven), BTreeSet::from([camera]));
}

#[test]
fn a_source_whose_decoders_fail_again_and_again_is_isolated() {
    let mut driven = Driven::new(9);
    let (_, [evil, microphone]) = sending(&mut driven, "Ann");
    let (_, [camera, _]) = sending(&mut driven, "Bea");
    for _ in 0..9 {
        driven.handle(Input::DecoderFailed(evil));
        driven.handle(Input::DecoderFailed(camera));
    }
    assert_eq!(shown(&driven), BTreeSet::from([evil, camera]));
    driven.effects.clear();
    driven.handle(Input::DecoderFailed(evil));
    assert_eq!(shown(&driven), BTreeSet::from([camera]));
    assert_eq!(events(&driven)[0]["reason"], "decoder_failed");
    assert!(driven.room.mix.sources.contains(&MixInput { source: microphone, gain_db: 0.0 }), "Ann is still heard");
}

#[test]
fn an_isolated_microphone_is_not_mixed_and_another_source_of_its_participant_is_a_new_one() {
    let mut driven = Driven::new(9);
    let (ann, [camera, evil]) = sending(&mut driven, "Ann");
    die(&mut driven, [evil]);
    die(&mut driven, [evil]);
    assert!(driven.room.mix.sources.is_empty());
    assert_eq!(shown(&driven), BTreeSet::from([camera]));
    driven.room.resend(ann, &[SourceKind::Camera]).expect("known");
    let sources = driven.room.resend(ann, &[SourceKind::Camera, SourceKind::Microphone]).expect("known");
    let (_, new) = sources[1];
    assert_ne!(new, evil);
    driven.handle(Input::SourceStarted(new, Codec::Opus));
    assert_eq!(driven.room.mix.sources.len(), 1);
    // Reports about sources that have ended change nothing.
    driven.effects.clear();
    driven.handle(Input::DiedDecoding(BTreeSet::from([evil, SourceId(999)])));
    driven.handle(Input::DecoderFailed(SourceId(999)));
    assert!(driven.effects.is_empty());
}
