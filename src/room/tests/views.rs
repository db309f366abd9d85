//! Tests of the views of a room: named ones, and those of single participants.

use super::*;
use crate::layout::{CellName, Key};
use crate::media::FileFormat;
use crate::room::document::{ParticipantDocument, RecordingKind, ViewDocument};
use crate::room::moderation::Changer;
use crate::room::outputs::{OutputEvent, OutputKind, OutputWish};
use crate::room::view_budget::OWN_VIEWS_MAX;
use crate::room::view_request::{SelfView, VIEWS_MAX, ViewError, ViewRequest};

fn name(text: &str) -> ViewName {
    text.parse().expect("a name")
}

fn request(json: &str) -> ViewRequest {
    serde_json::from_str(json).expect(json)
}

fn without_self() -> ViewPatch {
    ViewPatch { self_view: Some(SelfView::Hidden), ..ViewPatch::default() }
}

fn own() -> ViewPatch {
    ViewPatch { view: Some(name("own")), ..ViewPatch::default() }
}

impl Driven {
    fn put(&mut self, view: &str, json: &str) -> Result<bool, ViewError> {
        let put = self.room.put_view(at(self.now), &name(view), request(json));
        self.drain();
        put
    }

    fn delete(&mut self, view: &str) -> Result<(), ViewError> {
        let deleted = self.room.delete_view(at(self.now), &name(view));
        self.drain();
        deleted
    }

    fn joins(&mut self, view: ViewPatch) -> ParticipantId {
        self.join(Admission { view, ..person("x") }).participant
    }

    fn views(&mut self, participant: ParticipantId, json: &str) {
        let patch: ParticipantPatch = serde_json::from_str(json).expect(json);
        assert_eq!(self.room.check_view(&patch.view_patch()), Ok(()), "{json}");
        self.handle(Input::Update(Changer::Itself, participant, patch));
    }

    fn document(&self, participant: ParticipantId) -> ParticipantDocument {
        self.room.participant(participant).expect("is here")
    }

    /// The view that a participant receives, which its route names too.
    fn seen(&self, participant: ParticipantId) -> ViewDocument {
        let view = self.document(participant).receives.view;
        let route = self.subscribers.routes.iter().find(|route| route.participant == participant).expect("a route");
        assert_eq!(route.video.as_ref().map(|(view, _)| view), Some(&view));
        self.room.document().views.into_iter().find(|known| known.view == view).expect("it is listed")
    }

    /// The cells that a participant sees.
    fn cells(&self, participant: ParticipantId) -> Vec<Key> {
        self.seen(participant).tiles.iter().map(|tile| (tile.participant, tile.source)).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.room.streams.streams.iter().map(|spec| format!("{} {}@{}", spec.key, spec.size, spec.fps)).collect()
    }
}

const CAMERA: SourceKind = SourceKind::Camera;

#[test]
fn a_named_view_has_its_own_tiles_canvas_and_stream() {
    let mut driven = Driven::new(9);
    let (ann, bob) = (driven.joins(ViewPatch::default()), driven.joins(ViewPatch::default()));
    let json = r#"{"layout":{"kind":"grid"},"canvas":{"width":720,"height":1280},"fps":15,"show":["p2"]}"#;
    assert_eq!(driven.put("stage", json), Ok(true));
    assert_eq!(driven.keys(), ["program/VP8/high 1280x720@30"], "nobody receives it");
    driven.views(ann, r#"{"view":"stage"}"#);
    assert_eq!(driven.cells(ann), [(bob, CAMERA)]);
    assert_eq!(driven.cells(bob), [(ann, CAMERA), (bob, CAMERA)]);
    assert_eq!(driven.document(ann).view, name("stage"));
    assert_eq!(driven.keys(), ["program/VP8/high 1280x720@30", "stage/VP8/high 720x1280@15"]);
    let tile = driven.seen(ann).tiles[0];
    assert_eq!((tile.width, tile.height), (720, 1280));
    let document = driven.room.view(&name("stage")).expect("exists");
    assert_eq!((document.fps, document.view), (15, driven.seen(ann)));
    // A replaced view has the defaults for what the request leaves out.
    assert_eq!(driven.put("stage", r#"{"hide":["p1"]}"#), Ok(false));
    assert_eq!(driven.keys(), ["program/VP8/high 1280x720@30", "stage/VP8/high 1280x720@30"]);
    assert_eq!(driven.cells(ann), [(bob, CAMERA)]);
}

#[test]
fn each_view_counts_the_participants_that_it_hides() {
    let mut driven = Driven::new(9);
    let people = [(); 5].map(|()| driven.joins(ViewPatch::default()));
    driven.put("stage", r#"{"layout":{"kind":"grid","max_tiles":2}}"#).expect("created");
    driven.views(people[0], r#"{"view":"stage"}"#);
    driven.views(people[1], r#"{"view":"own","layout":{"kind":"grid","max_tiles":2},"self_view":"hidden"}"#);
    for (participant, count) in people.into_iter().zip([Some(3), Some(2), None, None, None]) {
        let seen = driven.seen(participant);
        assert_eq!(seen.more.map(|more| more.count), count, "{}", seen.view);
        let scene = driven.room.views.scene(&seen.view).expect("composed");
        assert_eq!(scene.more.map(Into::into), seen.more);
        assert!(driven.effects.contains(&Effect::Order(Order::Scene(scene.clone()))));
    }
    assert_eq!(driven.room.view(&name("stage")).expect("exists").view.more.map(|more| more.count), Some(3));
}

#[test]
fn receivers_of_a_deleted_view_get_program() {
    let mut driven = Driven::new(9);
    driven.put("stage", "{}").expect("created");
    let ann = driven.joins(ViewPatch { view: Some(name("stage")), ..ViewPatch::default() });
    driven.effects.clear();
    assert_eq!(driven.delete("stage"), Ok(()));
    assert_eq!(driven.document(ann).view, ViewName::program());
    assert_eq!(driven.keys(), ["program/VP8/high 1280x720@30"]);
    assert!(driven.effects.contains(&Effect::Order(Order::SceneGone(name("stage")))));
    assert_eq!(driven.room.document().views.len(), 1);
    driven.put("stage", "{}").expect("created again");
    assert_eq!(driven.document(ann).view, ViewName::program(), "it is another view");
    assert_eq!(driven.delete("program"), Err(ViewError::Program));
    assert!(matches!(driven.delete("other"), Err(ViewError::Unknown(_, known)) if known == "`program`, `stage`"));
}

#[test]
fn a_participant_without_self_view_sees_only_the_others() {
    let mut driven = Driven::new(9);
    let (ann, bob) = (driven.joins(without_self()), driven.joins(ViewPatch::default()));
    assert_eq!(driven.cells(ann), [(bob, CAMERA)]);
    assert_eq!(driven.cells(bob), [(ann, CAMERA), (bob, CAMERA)], "`program` is as before");
    let view = driven.document(ann).view;
    assert!(view.as_str().starts_with("own-"), "{view}");
    driven.views(ann, r#"{"self_view":"shown"}"#);
    assert_eq!(driven.document(ann).view, ViewName::program());
    assert!(!driven.keys().iter().any(|key| key.starts_with("own-")), "nobody receives it: {:?}", driven.keys());
    // A viewer has no tile, so that its view is `program`.
    let viewer = driven.join(Admission { sends: vec![], view: without_self(), ..person("x") }).participant;
    assert_eq!(driven.document(viewer).view, ViewName::program());
    // A view that hides `self` is another one for everyone with a tile.
    driven.put("others", r#"{"hide":["self"]}"#).expect("created");
    for (who, others) in [(ann, vec![bob]), (bob, vec![ann]), (viewer, vec![ann, bob])] {
        driven.views(who, r#"{"view":"others"}"#);
        let seen: Vec<_> = driven.cells(who).iter().map(|(participant, _)| *participant).collect();
        assert_eq!((seen, driven.document(who).view), (others, name("others")));
    }
}

#[test]
fn equal_views_share_one_stream_and_exist_as_long_as_they_are_received() {
    let mut driven = Driven::new(9);
    driven.joins(ViewPatch::default());
    let phone = ViewPatch { canvas: Some(Some(Size::new(720, 1280))), ..own() };
    let people: Vec<_> = (0..2).map(|_| driven.joins(phone.clone())).collect();
    let seen: BTreeSet<_> = people.iter().map(|who| driven.document(*who).view).collect();
    assert_eq!(seen.len(), 1);
    assert_eq!(driven.keys().len(), 2, "{:?}", driven.keys());
    driven.views(people[0], r#"{"layout":{"kind":"speaker"}}"#);
    assert_eq!(driven.keys().len(), 3, "{:?}", driven.keys());
    assert_eq!(driven.seen(people[0]).canvas, Size::new(720, 1280), "kept");
    driven.views(people[1], r#"{"view":"own","layout":{"kind":"speaker"}}"#);
    assert_eq!(driven.keys().len(), 2, "{:?}", driven.keys());
    // An own view that is like a named one is that one.
    driven.views(people[0], r#"{"view":"own","layout":{"kind":"auto"},"canvas":{"width":1280,"height":720}}"#);
    assert_eq!(driven.document(people[0]).view, ViewName::program());
    for who in people {
        driven.handle(Input::Left(who, LeaveReason::Left));
    }
    assert_eq!(driven.room.document().views.len(), 1);
    let refused = ViewPatch { canvas: Some(Some(Size::new(1920, 1080))), ..own() };
    assert_eq!(driven.room.check_view(&refused), Err(ViewError::CanvasTooLarge(Size::new(1280, 720))));
    let refused = ViewPatch { view: Some(ViewName::program()), ..phone };
    assert_eq!(driven.room.check_view(&refused), Err(ViewError::NotOwn));
}

#[test]
fn two_people_with_own_views_see_each_other_large() {
    let mut driven = Driven::new(9);
    let (ann, bob) = (driven.joins(own()), driven.joins(own()));
    for (me, other) in [(ann, bob), (bob, ann)] {
        let seen = driven.seen(me);
        let largest = seen.tiles.iter().max_by_key(|tile| tile.width).expect("two tiles");
        assert_eq!((largest.participant, largest.width, seen.kind), (other, 1280, LayoutKind::PictureInPicture));
    }
    let cid = driven.joins(ViewPatch::default());
    for who in [ann, bob, cid] {
        assert_eq!(driven.document(who).view, ViewName::program(), "three see the same");
    }
}

#[test]
fn an_own_view_without_a_layout_follows_program_on_its_own_canvas() {
    let mut driven = Driven::new(9);
    let [ann, bob, _] = [(); 3].map(|()| driven.joins(ViewPatch::default()));
    driven.views(ann, r#"{"view":"own","canvas":{"width":720,"height":1280}}"#);
    assert_eq!((driven.seen(ann).kind, driven.seen(ann).canvas), (LayoutKind::Grid, Size::new(720, 1280)));
    let layout = |driven: &mut Driven, json: &str| {
        let patch: RoomPatch = serde_json::from_str(&format!(r#"{{"layout":{json}}}"#)).expect(json);
        driven.handle(Input::Patch(patch));
    };
    layout(&mut driven, r#"{"kind":"spotlight","pinned":["p2"]}"#);
    assert_eq!(driven.cells(ann), [(bob, CAMERA)]);
    // Tiles that were placed on a wide canvas do not fit a portrait one.
    layout(&mut driven, r#"{"kind":"custom","tiles":[{"x":0,"y":0,"width":0.5,"height":1,"source":"p1"}]}"#);
    assert_eq!((driven.seen(ann).kind, driven.seen(bob).kind), (LayoutKind::Grid, LayoutKind::Custom));
    driven.views(ann, r#"{"canvas":{"width":640,"height":360}}"#);
    assert_eq!(driven.seen(ann).kind, LayoutKind::Custom);
    driven.views(ann, r#"{"layout":{"kind":"active"}}"#);
    assert_eq!(driven.seen(ann).kind, LayoutKind::Active);
    driven.put("program", r#"{"layout":{"kind":"grid"},"hide":["p3"]}"#).expect("changed");
    driven.views(ann, r#"{"layout":null}"#);
    assert_eq!((driven.seen(ann).kind, driven.cells(ann).len()), (LayoutKind::Grid, 2), "as `program` again");
    driven.views(ann, r#"{"canvas":null}"#);
    assert_eq!(driven.document(ann).view, ViewName::program(), "there is no difference");
    driven.views(bob, r#"{"view":"program","layout":null,"canvas":null}"#);
    assert_eq!(driven.document(bob).view, ViewName::program());
}

#[test]
fn own_views_have_the_overlays_of_the_view_from_which_they_are_derived() {
    let mut driven = Driven::new(9);
    let [ann, bob] = [(); 2].map(|()| driven.joins(ViewPatch::default()));
    driven.put("stage", r#"{"layout":{"kind":"grid"}}"#).expect("created");
    for view in ["program", "stage"] {
        let overlay = serde_json::json!({"view": view, "kind": "text", "text": view});
        let overlay = serde_json::from_value(overlay).expect("an overlay");
        driven.room.add_overlay(at(driven.now), overlay).expect("added");
    }
    driven.drain();
    let drawn = |driven: &mut Driven, who: ParticipantId, patch: &str| {
        driven.effects.clear();
        driven.views(who, patch);
        let view = driven.document(who).receives.view;
        let texts = |effect: &Effect| match effect {
            Effect::Order(Order::Overlays(of, overlays)) if *of == view => {
                Some(overlays.iter().map(|overlay| overlay.text.clone()).collect::<Vec<_>>())
            }
            _ => None,
        };
        let found = driven.effects.iter().filter_map(texts).next_back();
        (view.as_str().starts_with("own-"), found.unwrap_or_default().join(" "))
    };
    let own = |text: &str| (true, text.to_owned());
    assert_eq!(drawn(&mut driven, ann, r#"{"canvas":{"width":720,"height":1280}}"#), own("program"));
    assert_eq!(drawn(&mut driven, bob, r#"{"layout":{"kind":"active"}}"#), own("program"));
    assert_eq!(drawn(&mut driven, ann, r#"{"view":"stage","self_view":"hidden"}"#), own("stage"));
    let gone = driven.document(bob).receives.view;
    driven.effects.clear();
    driven.views(bob, r#"{"view":"program"}"#);
    assert!(driven.effects.contains(&Effect::Order(Order::Overlays(gone, Vec::new()))), "it is not composed any more");
}

#[test]
fn a_view_hides_people_without_picture_and_listeners() {
    use SourceKind::Microphone;
    let mut driven = Driven::new(9);
    let ann = driven.joins(ViewPatch::default());
    let phone = driven.join(Admission { sends: vec![Microphone], ..person("phone") }).participant;
    let silent = driven.join(Admission { sends: vec![Microphone], ..person("silent") }).participant;
    driven.handle(Input::Update(
        Changer::Itself,
        silent,
        ParticipantPatch { audio_muted: Some(true), ..Default::default() },
    ));
    driven.views(ann, r#"{"view":"program"}"#);
    for (hide, seen) in [("listeners", vec![ann, phone]), ("audio_only", vec![ann]), ("p1", vec![phone, silent])] {
        driven.put("v", &format!(r#"{{"hide":["{hide}"]}}"#)).expect("put");
        let view = driven.room.view(&name("v")).expect("exists").view;
        assert_eq!(view.tiles.iter().map(|tile| tile.participant).collect::<Vec<_>>(), seen, "{hide}");
    }
}

#[test]
fn a_view_is_composed_until_its_streams_have_ended() {
    let mut driven = Driven::new(9);
    let (ann, bob) = (driven.joins(without_self()), driven.joins(ViewPatch::default()));
    let old = driven.document(ann).view;
    let key = |view: &ViewName| StreamKey { view: view.clone(), codec: Codec::Vp8, tier: Tier::High };
    let demand = |flowing: &[ViewName]| {
        let flowing = flowing.iter().map(|view| (key(view), 0));
        Input::Demand(StreamDemand {
            subscribers: flowing.chain([(key(&ViewName::program()), 2)]).collect(),
            ..StreamDemand::default()
        })
    };
    driven.effects.clear();
    let patch = ParticipantPatch { self_view: Some(SelfView::Shown), ..Default::default() };
    driven.room.handle(at(0), Input::Update(Changer::Itself, ann, patch));
    driven.room.handle(at(0), demand(std::slice::from_ref(&old)));
    while let Some(effect) = driven.room.poll_effect() {
        driven.effects.push(effect);
    }
    assert_eq!(driven.room.streams.streams.len(), 2, "the old stream flows until the new one has begun");
    assert_eq!(driven.room.document().views.len(), 1, "nobody is to receive it");
    // The people in it may leave meanwhile.
    driven.room.handle(at(0), Input::Left(bob, LeaveReason::Left));
    assert_eq!(driven.room.views.scene(&old).expect("still composed").tiles, []);
    driven.room.handle(at(0), demand(&[]));
    assert!(driven.room.views.scene(&old).is_none());
    assert_eq!(driven.room.streams.streams.len(), 1);
}

#[test]
fn a_recording_takes_a_view_which_then_keeps_its_size() {
    let mut driven = Driven::new(9);
    driven.joins(ViewPatch::default());
    let wish = |view: &str| OutputWish {
        kind: OutputKind::Recording { kind: RecordingKind::View, format: FileFormat::Mp4 },
        view: name(view),
        streams: vec![(Codec::H264, Tier::High)],
        sound: true,
    };
    let refused = driven.room.add_output(at(0), wish("stage"));
    assert!(matches!(refused, Err(Refusal::View(ViewError::Unknown(..)))), "{refused:?}");
    driven.put("stage", r#"{"canvas":{"width":640,"height":360}}"#).expect("created");
    let id = driven.room.add_output(at(0), wish("stage")).expect("starts");
    driven.drain();
    assert_eq!(driven.keys(), ["program/VP8/high 1280x720@30", "stage/H264/high 640x360@30"]);
    assert_eq!(driven.room.document().recordings[0].view, name("stage"));
    for refused in [driven.put("stage", "{}").map(drop), driven.delete("stage")] {
        assert_eq!(refused, Err(ViewError::InUse(name("stage"))));
    }
    let same_size = r#"{"layout":{"kind":"grid"},"canvas":{"width":640,"height":360}}"#;
    assert_eq!(driven.put("stage", same_size), Ok(false));
    driven.handle(Input::Output(id, OutputEvent::Stop));
    driven.handle(Input::Output(id, OutputEvent::Ended(None)));
    assert_eq!(driven.delete("stage"), Ok(()));
    assert_eq!(driven.keys(), ["program/VP8/high 1280x720@30"]);
}

#[test]
fn lower_tiers_have_the_size_of_the_canvas_while_a_screen_is_shared_unless_an_output_takes_them() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    let bob = driven.join(person("Bob")).participant;
    driven.select(ann, Tier::Low, None);
    driven.select(bob, Tier::Medium, None);
    for who in [ann, bob] {
        driven.switched(who);
    }
    assert_eq!(driven.keys(), ["program/VP8/low 320x180@15", "program/VP8/medium 640x360@30"]);
    let sends = vec![SourceKind::Microphone, SourceKind::Camera, SourceKind::Screen];
    let cid = driven.join(Admission { sends, receives_video: None, ..person("Cid") }).participant;
    assert_eq!(driven.keys(), ["program/VP8/low 1280x720@2", "program/VP8/medium 1280x720@7"]);
    driven.put("program", r#"{"layout":{"kind":"grid"}}"#).expect("changed");
    assert_eq!(driven.keys()[0], "program/VP8/low 320x180@15", "the screen is not larger than the cameras");
    driven.put("program", "{}").expect("changed");
    let wish = OutputWish {
        kind: OutputKind::Recording { kind: RecordingKind::View, format: FileFormat::Webm },
        view: ViewName::program(),
        streams: vec![(Codec::Vp8, Tier::Low)],
        sound: true,
    };
    driven.room.add_output(at(0), wish).expect("starts");
    driven.drain();
    assert_eq!(driven.keys(), ["program/VP8/low 320x180@15", "program/VP8/medium 1280x720@7"]);
    driven.handle(Input::Left(cid, LeaveReason::Left));
    assert_eq!(driven.keys()[1], "program/VP8/medium 640x360@30");
}

#[test]
fn a_room_has_a_maximum_of_named_and_of_own_views() {
    let mut driven = Driven::new(OWN_VIEWS_MAX + 2);
    for i in 1..VIEWS_MAX {
        driven.put(&format!("v{i}"), "{}").expect("within the maximum");
    }
    assert_eq!(driven.put("more", "{}"), Err(ViewError::TooMany));
    assert_eq!(driven.put("v1", r#"{"fps":10}"#), Ok(false));
    assert!(matches!(driven.put("own-mine", "{}"), Err(ViewError::Reserved(_))));
    let people: Vec<_> = (0..=OWN_VIEWS_MAX).map(|_| driven.joins(without_self())).collect();
    let last = *people.last().expect("many");
    let receives = driven.document(last).receives;
    assert_eq!((receives.view, receives.view_fallback), (ViewName::program(), true));
    driven.effects.clear();
    driven.handle(Input::Left(people[0], LeaveReason::Left));
    assert!(!driven.document(last).receives.view_fallback, "there is room now");
    let updated = |event: &&Event| matches!(event, Event::Updated { participant } if participant.id == last);
    assert_eq!(driven.events().into_iter().filter(updated).count(), 1);
}

#[test]
fn own_views_fall_back_to_program_while_many_ticks_are_late() {
    let mut driven = Driven::new(9);
    let people: Vec<_> = (0..4).map(|_| driven.joins(without_self())).collect();
    let fallbacks = |driven: &Driven| {
        let receives = people.iter().map(|who| driven.document(*who).receives);
        receives.map(|receives| receives.view_fallback && receives.view == ViewName::program()).collect::<Vec<_>>()
    };
    let (two, three) = ([false, false, true, true], [false, true, true, true]);
    for (reports, late, expected) in [(3, 0, [false; 4]), (2, 30, two), (2, 30, three)] {
        for _ in 0..reports {
            driven.now += 1_000;
            driven.handle(Input::VideoLoad { ticks: 30, late });
        }
        assert_eq!(fallbacks(&driven), expected, "{late} of 30 ticks are late");
    }
    driven.views(people[3], r#"{"self_view":"shown"}"#);
    assert!(!driven.document(people[3]).receives.view_fallback, "it asks for `program`");
}

#[test]
fn the_error_of_a_request_names_what_is_known() {
    for (json, part) in [
        (r#"{"layouts":{}}"#, "`layout`, `canvas`, `fps`, `show`, `hide`"),
        (r#"{"layout":{"kind":"circle"}}"#, "`one_plus_5`"),
        (r#"{"canvas":{"width":1281,"height":720}}"#, "even"),
        (r#"{"canvas":{"width":1920,"height":1920}}"#, "1920x1080"),
        (r#"{"fps":61}"#, "1 to 60"),
        (r#"{"hide":["me"]}"#, "`self`, `audio_only`, `listeners`"),
        (r#"{"show":["ann"]}"#, "p1/screen"),
    ] {
        let error = serde_json::from_str::<ViewRequest>(json).expect_err(json).to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
    let listed = request(r#"{"show":["p1","p3/screen"],"hide":["self","p2"]}"#);
    let screen = CellName { participant: ParticipantId(3), kind: SourceKind::Screen };
    assert_eq!(listed.show.expect("listed")[1], screen);
}
