//! What moderators decide: mutes, permissions, the lobby, removal, the times of a room.

use super::*;
use crate::room::chat::{Addressees, ChatError, Group, Reader};
use crate::room::document::Presence;
use crate::room::moderation::{Decision, Identity, ModerationError, Moderator, Permitted};
use crate::time::WallTime;

const ANN: ParticipantId = ParticipantId(1);
const BEN: ParticipantId = ParticipantId(2);
const CEM: ParticipantId = ParticipantId(3);
const BY_CEM: Moderator = Moderator::Participant(CEM);

/// Ann, Ben and the moderator Cem.
fn three() -> Driven {
    let mut driven = Driven::new(9);
    driven.join(Admission { identity: Some(Identity(1)), ..person("Ann") });
    driven.join(Admission { identity: Some(Identity(2)), ..person("Ben") });
    driven.join(moderator());
    driven.effects.clear();
    driven
}

fn moderator() -> Admission {
    Admission { role: Role::Moderator, ..person("Cem") }
}

fn patch(json: serde_json::Value) -> RoomPatch {
    serde_json::from_value(json).expect("a valid patch")
}

fn audio(muted: bool) -> ParticipantPatch {
    ParticipantPatch { audio_muted: Some(muted), ..Default::default() }
}

fn camera(off: bool) -> ParticipantPatch {
    ParticipantPatch { video_muted: Some(off), ..Default::default() }
}

impl Driven {
    /// Changes a participant as the task does: after the check.
    fn moderate(&mut self, by: Changer, who: ParticipantId, patch: ParticipantPatch) -> Result<(), ModerationError> {
        self.room.check_change(by, who, &patch)?;
        self.handle(Input::Update(by, who, patch));
        Ok(())
    }

    fn decide(&mut self, decision: Decision) -> Result<(), ModerationError> {
        let decided = self.room.decide(at(self.now), BY_CEM, decision);
        self.drain();
        decided
    }

    /// The participants whose microphone is mixed.
    fn mixed(&self) -> Vec<ParticipantId> {
        let plan = self.last(|e| if let Effect::Order(Order::Mix(plan)) = e { Some(plan.clone()) } else { None });
        let sources = plan.unwrap_or_else(|| self.room.mix.clone()).sources;
        let owner = |id| self.room.sources().find(|spec| spec.source == id).map(|spec| spec.participant);
        sources.iter().filter_map(|input| owner(input.source)).collect()
    }

    /// The participants whose camera is shown in `program`.
    fn on_camera(&self) -> Vec<ParticipantId> {
        let scene = self.room.views.scene(&ViewName::program()).expect("always");
        scene.tiles.iter().filter(|tile| tile.source.is_some()).map(|tile| tile.participant).collect()
    }

    fn tiles(&self) -> usize {
        self.room.views.scene(&ViewName::program()).expect("always").tiles.len()
    }

    fn doc(&self, who: ParticipantId) -> ParticipantDocument {
        self.room.own_document(who).expect("it is there")
    }

    fn private(&self) -> Vec<(Vec<ParticipantId>, bool, Event)> {
        let private = |e: &Effect| match e {
            Effect::Private(readers, event) => {
                Some((readers.participants.iter().copied().collect(), readers.moderators, event.clone()))
            }
            _ => None,
        };
        self.effects.iter().filter_map(private).collect()
    }

    fn set_wall(&mut self, seconds: u64) {
        self.room.set_wall(WallTime::from_unix_micros(seconds * 1_000_000));
    }
}

#[test]
fn a_moderators_mute_is_separate_from_the_participants_own() {
    let mut driven = three();
    driven.moderate(Changer::Moderator(BY_CEM), ANN, audio(true)).expect("allowed");
    driven.moderate(Changer::Moderator(BY_CEM), ANN, camera(true)).expect("allowed");
    let ann = driven.doc(ANN);
    assert_eq!((ann.audio_muted, ann.muted_by), (false, Some(BY_CEM)));
    assert_eq!((ann.video_muted, ann.video_stopped_by), (false, Some(BY_CEM)));
    assert_eq!((driven.mixed(), driven.on_camera()), (vec![BEN, CEM], vec![BEN, CEM]));
    let told: Vec<_> = driven.events().into_iter().filter(|event| matches!(event, Event::Muted { .. })).collect();
    let muted = |audio, video| Event::Muted { participant: ANN, audio, video, by: BY_CEM };
    assert_eq!(told, [&muted(true, false), &muted(true, true)]);
    // The participant can neither clear it, nor lose its own mute by it.
    assert_eq!(driven.moderate(Changer::Itself, ANN, audio(false)), Err(ModerationError::MutedByModerator));
    assert_eq!(driven.moderate(Changer::Itself, ANN, camera(false)), Err(ModerationError::StoppedByModerator));
    driven.moderate(Changer::Itself, ANN, audio(true)).expect("one may always mute oneself");
    let another = Moderator::Program;
    driven.moderate(Changer::Moderator(another), ANN, audio(false)).expect("any moderator may clear it");
    let ann = driven.doc(ANN);
    assert_eq!((ann.audio_muted, ann.muted_by), (true, None), "its own mute stays: nobody else turns it on");
    assert!(!driven.mixed().contains(&ANN));
    driven.moderate(Changer::Itself, ANN, audio(false)).expect("it is free again");
    assert!(driven.mixed().contains(&ANN));
}

#[test]
fn recordings_of_tracks_do_not_get_what_moderators_do_not_allow() {
    let mut driven = three();
    let latest = |driven: &mut Driven| {
        let of_ann = |effect: &Effect| match effect {
            Effect::Withhold(ANN, withheld) => Some(SourceKind::ALL.map(|kind| withheld.contains(kind))),
            _ => None,
        };
        let latest = driven.effects.iter().rev().find_map(of_ann);
        driven.effects.clear();
        latest
    };
    driven.moderate(Changer::Itself, ANN, audio(true)).expect("one may always mute oneself");
    assert_eq!(latest(&mut driven), None, "a participant that mutes itself sends nothing");
    driven.moderate(Changer::Moderator(BY_CEM), ANN, audio(true)).expect("allowed");
    assert_eq!(latest(&mut driven), Some([false, false, true]));
    driven.moderate(Changer::Moderator(BY_CEM), ANN, camera(true)).expect("allowed");
    assert_eq!(latest(&mut driven), Some([true, false, true]));
    driven.handle(Input::Patch(patch(serde_json::json!({"who_may": {"speak": "moderators"}}))));
    assert_eq!(latest(&mut driven), Some([true, true, true]));
    driven.handle(Input::Patch(patch(serde_json::json!({"who_may": {"speak": "everyone"}}))));
    assert_eq!(latest(&mut driven), Some([true, false, true]));
    driven.moderate(Changer::Moderator(BY_CEM), ANN, camera(false)).expect("allowed");
    let keyframes = driven.effects.iter().filter(|effect| matches!(effect, Effect::Keyframe(ANN, _))).count();
    assert_eq!((keyframes, latest(&mut driven)), (1, Some([false, false, true])));
}

#[test]
fn all_others_are_muted_but_moderators_and_asked_one_by_one() {
    let mut driven = three();
    driven.decide(Decision::MuteOthers).expect("always possible");
    assert_eq!(driven.mixed(), [CEM]);
    driven.effects.clear();
    driven.decide(Decision::AskUnmute(BEN)).expect("it is there");
    assert_eq!(driven.doc(BEN).muted_by, None);
    let asked = Event::AskedToUnmute { participant: BEN, by: BY_CEM };
    assert_eq!(driven.private(), [(vec![BEN], false, asked)]);
    assert_eq!(driven.mixed(), [BEN, CEM]);
    let nobody = ParticipantId(99);
    for decision in [Decision::AskUnmute(nobody), Decision::Admit(ANN), Decision::Remove(nobody, Duration::ZERO)] {
        assert!(matches!(driven.decide(decision), Err(ModerationError::NoParticipant(_))), "{decision:?}");
    }
}

#[test]
fn where_only_moderators_unmute_people_one_who_was_asked_may_do_so_once() {
    let mut driven = three();
    driven.handle(Input::Patch(patch(serde_json::json!({"who_may": {"unmute": "moderators"}}))));
    driven.moderate(Changer::Itself, ANN, audio(true)).expect("muting is free");
    assert_eq!(driven.moderate(Changer::Itself, ANN, audio(false)), Err(ModerationError::MayNotUnmute));
    driven.decide(Decision::AskUnmute(ANN)).expect("it is there");
    driven.moderate(Changer::Itself, ANN, audio(false)).expect("it was asked");
    driven.moderate(Changer::Itself, ANN, audio(true)).expect("muting is free");
    assert_eq!(driven.moderate(Changer::Itself, ANN, audio(false)), Err(ModerationError::MayNotUnmute));
    driven.moderate(Changer::Itself, CEM, audio(true)).expect("moderators are free");
    driven.moderate(Changer::Itself, CEM, audio(false)).expect("moderators are free");
}

#[test]
fn listeners_come_on_the_stage_and_leave_it_live() {
    let mut driven = three();
    driven.handle(Input::Patch(patch(serde_json::json!({"who_may": {"speak": "moderators"}}))));
    assert_eq!((driven.mixed(), driven.on_camera(), driven.tiles()), (vec![CEM], vec![CEM], 1));
    assert!(driven.doc(ANN).listens && !driven.doc(CEM).listens);
    let updated = |driven: &Driven, who| {
        let is = |event: &&Event| matches!(event, Event::Updated { participant } if participant.id == who);
        driven.events().iter().any(is)
    };
    assert!(updated(&driven, ANN) && updated(&driven, BEN) && !updated(&driven, CEM), "they learn it");
    driven.effects.clear();
    let allowed = |allowed| ParticipantPatch { speaker_allowed: Some(allowed), ..Default::default() };
    driven.moderate(Changer::Moderator(BY_CEM), ANN, allowed(true)).expect("allowed");
    assert_eq!((driven.mixed(), driven.tiles()), (vec![ANN, CEM], 2));
    assert!(updated(&driven, ANN) && !driven.doc(ANN).listens);
    driven.moderate(Changer::Moderator(BY_CEM), ANN, allowed(false)).expect("allowed");
    let promoted = ParticipantPatch { role: Some(Role::Moderator), ..Default::default() };
    driven.moderate(Changer::Moderator(BY_CEM), BEN, promoted).expect("allowed");
    assert_eq!((driven.mixed(), driven.tiles()), (vec![BEN, CEM], 2));
    driven.handle(Input::Patch(patch(serde_json::json!({"who_may": {"speak": "everyone"}}))));
    assert_eq!((driven.mixed(), driven.tiles()), (vec![ANN, BEN, CEM], 3));
}

#[test]
fn screens_and_chat_are_for_moderators_where_the_room_says_so() {
    let mut driven = three();
    let kinds = [SourceKind::Microphone, SourceKind::Camera, SourceKind::Screen];
    let dan = driven.join(Admission { sends: kinds.to_vec(), ..person("Dan") }).participant;
    assert_eq!(driven.tiles(), 5);
    let rules = serde_json::json!({"who_may": {"share": "moderators", "chat": "moderators"}});
    driven.handle(Input::Patch(patch(rules)));
    assert_eq!(driven.tiles(), 4, "the screen is not shown");
    assert_eq!(driven.room.document().who_may.speak, Permitted::Everyone, "absent fields do not change");
    let mut write = |from: ParticipantId, to: Option<Addressees>| {
        let request = ChatRequest { text: "hello".into(), to };
        driven.room.chat(at(0), Sender::Participant(from), request).map(|message| message.id)
    };
    assert_eq!(write(dan, None), Err(ChatError::NotAllowed));
    assert_eq!(write(dan, Some(Addressees::Participants([ANN].into()))), Err(ChatError::NotAllowed));
    assert_eq!(write(dan, Some(Addressees::Group(Group::Moderators))), Ok(1), "one may always ask for help");
    assert_eq!(write(CEM, None), Ok(2));
}

#[test]
fn who_waits_in_the_lobby_is_nowhere_in_the_room_until_admitted() {
    let mut driven = three();
    driven.handle(Input::Patch(RoomPatch { lobby: Some(true), ..Default::default() }));
    let (before, version) = (driven.room.document().participants, driven.room.document().version);
    driven.effects.clear();
    let dan = driven.room.admit(at(0), person("Dan")).expect("it may wait");
    assert!(dan.waits);
    assert_eq!(driven.room.own_document(dan.participant), None, "it has not connected yet");
    assert_eq!(driven.room.lobby_document(dan.participant).map(|doc| doc.state), Some(Presence::Lobby));
    driven.handle(Input::Connected(dan.participant));
    assert_eq!(driven.doc(dan.participant).state, Presence::Lobby);
    let (readers, moderators, event) = driven.private().pop().expect("moderators learn it");
    assert_eq!((readers, moderators), (vec![CEM, dan.participant], true));
    assert!(matches!(event, Event::Lobby { participant } if participant.id == dan.participant));
    let document = driven.room.document();
    assert_eq!((&document.participants, document.version), (&before, version), "nobody else sees anything");
    assert!(driven.room.participant(dan.participant).is_none());
    assert!(!driven.effects.iter().any(|e| matches!(e, Effect::Routes(_) | Effect::Order(_) | Effect::Event(..))));
    assert_eq!(driven.room.check_change(Changer::Itself, dan.participant, &audio(true)).ok(), None);
    assert!(
        driven
            .room
            .chat(at(0), Sender::Participant(dan.participant), ChatRequest { text: "x".into(), to: None })
            .is_err()
    );
    let reader = |is_moderator| Reader { participant: None, is_moderator };
    assert_eq!(driven.room.document_for(reader(false)).waiting, []);
    assert_eq!(driven.room.document_for(reader(true)).waiting.len(), 1);
    assert_eq!(driven.room.poll_timeout(), None, "waiting has no end");

    driven.effects.clear();
    driven.decide(Decision::Admit(dan.participant)).expect("it waits");
    assert!(driven.effects.contains(&Effect::Hold(dan.participant, false)));
    assert!(
        driven.events().iter().any(|e| matches!(e, Event::Joined { participant } if participant.id == dan.participant))
    );
    assert_eq!(driven.doc(dan.participant).state, Presence::In);
    assert!(driven.subscribers.routes.iter().any(|route| route.participant == dan.participant));
    assert!(driven.decide(Decision::Admit(dan.participant)).is_err(), "it does not wait any more");
}

#[test]
fn the_lobby_is_left_by_refusal_by_its_end_and_before_the_connection() {
    let mut driven = three();
    driven.handle(Input::Patch(RoomPatch { lobby: Some(true), ..Default::default() }));
    let wait = |driven: &mut Driven, name: &str| {
        let id = driven.room.admit(at(0), person(name)).expect("it may wait").participant;
        driven.handle(Input::Connected(id));
        id
    };
    let refused = wait(&mut driven, "Dan");
    driven.effects.clear();
    driven.decide(Decision::Remove(refused, Duration::ZERO)).expect("it waits");
    assert!(driven.effects.contains(&Effect::Close(refused)));
    assert!(driven.events().is_empty(), "others do not learn of it");
    let left = Event::Left { participant: refused, reason: LeaveReason::Removed };
    assert_eq!(driven.private(), [(vec![CEM, refused], true, left)]);
    // Admitted before it has connected.
    let early = driven.room.admit(at(0), person("Eve")).expect("it may wait").participant;
    driven.decide(Decision::Admit(early)).expect("it will wait");
    driven.handle(Input::Connected(early));
    assert_eq!(driven.doc(early).state, Presence::In);
    // A moderator does not wait; the end of the lobby lets everyone in.
    let other = driven.join(moderator()).participant;
    assert_eq!(driven.doc(other).state, Presence::In);
    let waiting = [wait(&mut driven, "Fay"), wait(&mut driven, "Gil")];
    driven.handle(Input::Patch(RoomPatch { lobby: Some(false), ..Default::default() }));
    assert_eq!(waiting.map(|id| driven.doc(id).state), [Presence::In; 2]);
}

#[test]
fn the_same_person_is_kept_out_for_the_time_that_was_decided() {
    let mut driven = three();
    driven.decide(Decision::Remove(ANN, Duration::from_secs(600))).expect("it is there");
    let again = |driven: &mut Driven, identity| {
        let who = Admission { identity: Some(Identity(identity)), ..person("Ann") };
        driven.room.admit(at(driven.now), who)
    };
    assert_eq!(again(&mut driven, 1), Err(Refusal::KeptOut(Duration::from_secs(600))));
    driven.now = 599_000;
    assert_eq!(again(&mut driven, 1), Err(Refusal::KeptOut(Duration::from_secs(1))));
    assert!(again(&mut driven, 7).is_ok(), "another person of this name");
    driven.now = 600_000;
    assert!(again(&mut driven, 1).is_ok());
    driven.decide(Decision::Remove(BEN, Duration::ZERO)).expect("it is there");
    assert!(again(&mut driven, 2).is_ok(), "removed only");
}

#[test]
fn a_room_has_its_own_maximum_title_and_times() {
    let mut driven = Driven::new(9);
    driven.set_wall(1_000);
    let times = serde_json::json!({
        "title": " Weekly\u{7}\nmeeting ", "max_participants": 1,
        "opens_at": "1970-01-01T00:20:00Z", "ends_at": "1970-01-01T01:00:00Z"
    });
    driven.handle(Input::Patch(patch(times)));
    let document = driven.room.document();
    assert_eq!((document.title.as_deref(), document.max_participants), (Some("Weekly meeting"), Some(1)));
    assert_eq!(driven.room.admit(at(0), person("Ann")), Err(Refusal::NotOpenYet(Duration::from_secs(200))));
    driven.set_wall(1_200);
    driven.join(person("Ann"));
    assert_eq!(driven.room.admit(at(0), person("Ben")), Err(Refusal::Full(1)));
    driven.handle(Input::Patch(patch(serde_json::json!({"max_participants": null, "title": null}))));
    assert_eq!((driven.room.document().title, driven.room.document().max_participants), (None, None));
    driven.join(person("Ben"));

    driven.effects.clear();
    driven.set_wall(3_600 - 60);
    driven.now = driven.room.poll_timeout().expect("the end is near").since(at(0)).as_millis() as u64;
    driven.handle(Input::Timeout);
    let ends_at = WallTime::from_unix_micros(3_600_000_000);
    assert!(driven.events().contains(&&Event::Warning { seconds_left: 60, ends_at }), "{:?}", driven.events());
    driven.set_wall(3_600);
    driven.now = driven.room.poll_timeout().expect("the end").since(at(0)).as_millis() as u64;
    driven.handle(Input::Timeout);
    for participant in [ANN, BEN] {
        assert!(driven.events().contains(&&Event::Left { participant, reason: LeaveReason::Over }));
    }
    assert_eq!(driven.room.admit(at(driven.now), person("Ann")), Err(Refusal::Over));
    let refused = [
        serde_json::json!({"max_participants": 0}),
        serde_json::json!({"title": "x".repeat(201)}),
        serde_json::json!({"opens_at": "2026-12-01T10:00:00Z", "ends_at": "2026-12-01T09:00:00Z"}),
    ];
    for json in refused {
        assert!(patch(json.clone()).check().is_err(), "{json}");
    }
}
