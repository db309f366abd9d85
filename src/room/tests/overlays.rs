//! Overlays, images and captions of a room.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::id::OverlayId;
use crate::overlay::{Image, ImageName, Overlay, OverlayRequest};
use crate::room::captions::{CaptionError, CaptionRequest};
use crate::room::overlays::{OVERLAYS_MAX, OverlayDocument, OverlayError, OverlayState};

impl Driven {
    fn add(&mut self, json: Value) -> Result<OverlayDocument, OverlayError> {
        let request: OverlayRequest = serde_json::from_value(json).expect("a request");
        let added = self.room.add_overlay(at(self.now), request);
        self.drain();
        added
    }

    fn change(&mut self, id: OverlayId, json: Value) -> Result<OverlayDocument, OverlayError> {
        let Value::Object(patch) = json else { panic!("an object") };
        let changed = self.room.change_overlay(at(self.now), id, patch);
        self.drain();
        changed
    }

    fn put_image(&mut self, name: &str, bytes: &str) -> Result<bool, OverlayError> {
        let image = Image::check(Bytes::copy_from_slice(bytes.as_bytes())).expect("an SVG");
        let put = self.room.put_image(at(self.now), name.parse().expect("a name"), image);
        self.drain();
        put.map(|(_, is_new)| is_new)
    }

    fn say(&mut self, participant: ParticipantId, text: &str) -> Result<(), OverlayError> {
        let json = json!({"participant": participant, "text": text, "final": false, "language": "en"});
        let request: CaptionRequest = serde_json::from_value(json).expect("a caption");
        let said = self.room.caption(at(self.now), request);
        self.drain();
        said
    }

    fn wait(&mut self, millis: u64) {
        self.now += millis;
        if self.room.poll_timeout().is_some_and(|due| due <= at(self.now)) {
            self.handle(Input::Timeout);
        }
    }

    /// What the mixer draws by its latest order.
    fn drawn(&self) -> Vec<Overlay> {
        let order =
            |e: &Effect| if let Effect::Order(Order::Overlays(_, list)) = e { Some(list.clone()) } else { None };
        self.last(order).unwrap_or_default()
    }

    fn states(&self) -> Vec<(OverlayId, OverlayState)> {
        let state = |e: &&Event| match e {
            Event::Overlay { overlay } => Some((overlay.id, overlay.state)),
            _ => None,
        };
        self.events().iter().filter_map(state).collect()
    }
}

const SVG: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 2'><path d='M0 0h4v2z'/></svg>";

#[test]
fn an_overlay_is_ordered_and_ends_when_its_time_is_over() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let first = driven.add(json!({"kind": "text", "text": "Welcome", "seconds": 5})).expect("added");
    let second = driven.add(json!({"kind": "clock", "seconds": null})).expect("added");
    assert_eq!((first.id, second.id), (OverlayId(1), OverlayId(2)));
    assert_eq!(driven.drawn().iter().map(|overlay| overlay.text.as_str()).collect::<Vec<_>>(), ["Welcome", ""]);
    assert_eq!(driven.room.poll_timeout(), Some(at(5_000)));
    driven.wait(4_000);
    // A change of another field does not prolong it; one of its time does.
    driven.change(first.id, json!({"text": "Hello"})).expect("changed");
    assert_eq!(driven.room.poll_timeout(), Some(at(5_000)));
    driven.change(first.id, json!({"seconds": 3})).expect("changed");
    driven.wait(2_999);
    assert_eq!(driven.drawn().len(), 2);
    driven.wait(1);
    assert_eq!(driven.drawn().iter().map(|overlay| overlay.id).collect::<Vec<_>>(), [second.id]);
    assert_eq!(driven.room.document().overlays, [second]);
    use OverlayState::{Ended, Shown};
    let (one, two) = (OverlayId(1), OverlayId(2));
    assert_eq!(driven.states(), [(one, Shown), (two, Shown), (one, Shown), (one, Shown), (one, Ended)]);
    assert_eq!(driven.change(one, Map::new().into()), Err(OverlayError::NoOverlay(one)));
    assert_eq!(driven.room.poll_timeout(), None);
}

#[test]
fn overlays_of_a_view_end_when_it_is_deleted() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let stage: ViewName = "stage".parse().expect("a name");
    driven.room.put_view(at(0), &stage, serde_json::from_str("{}").expect("a request")).expect("created");
    let on_stage = driven.add(json!({"kind": "clock", "view": "stage"})).expect("added");
    let on_program = driven.add(json!({"kind": "clock"})).expect("added");
    driven.room.delete_view(at(0), &stage).expect("deleted");
    driven.drain();
    assert_eq!(driven.room.document().overlays, std::slice::from_ref(&on_program));
    use OverlayState::{Ended, Shown};
    assert_eq!(driven.states(), [(on_stage.id, Shown), (on_program.id, Shown), (on_stage.id, Ended)]);
}

#[test]
fn overlays_are_limited_and_refusals_change_nothing() {
    let mut driven = Driven::new(9);
    for _ in 0..OVERLAYS_MAX {
        driven.add(json!({"kind": "text", "text": "a"})).expect("added");
    }
    assert_eq!(driven.add(json!({"kind": "clock"})), Err(OverlayError::TooManyOverlays));
    let elsewhere = driven.add(json!({"kind": "clock", "view": "stage"}));
    assert!(matches!(elsewhere, Err(OverlayError::View(_))), "{elsewhere:?}");
    let unknown = driven.change(OverlayId(1), json!({"kind": "image", "text": null, "image": "logo.svg"}));
    assert!(matches!(unknown, Err(OverlayError::NoImage(_))), "{unknown:?}");
    assert!(matches!(driven.change(OverlayId(1), json!({"x": 2})), Err(OverlayError::Invalid(_))));
    assert_eq!(driven.room.document().overlays.len(), OVERLAYS_MAX);
    assert_eq!(driven.drawn()[0].text, "a");
    driven.room.remove_overlay(at(0), OverlayId(3)).expect("removed");
    assert_eq!(driven.add(json!({"kind": "clock"})).expect("room again").id, OverlayId(OVERLAYS_MAX as u32 + 1));
}

#[test]
fn the_mixer_gets_images_that_an_overlay_shows_and_a_new_mixer_gets_them_again() {
    let images = |effects: &[Effect]| {
        let name = |e: &Effect| match e {
            Effect::Order(Order::Image(name, _)) => Some(format!("+{name}")),
            Effect::Order(Order::ImageGone(name)) => Some(format!("-{name}")),
            _ => None,
        };
        effects.iter().filter_map(name).collect::<Vec<_>>()
    };
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    assert_eq!((driven.put_image("logo.svg", SVG), driven.put_image("unused.svg", SVG)), (Ok(true), Ok(true)));
    assert!(images(&driven.effects).is_empty());
    let shown = driven.add(json!({"kind": "image", "image": "logo.svg"})).expect("added");
    assert_eq!(images(&driven.effects), ["+logo.svg"]);
    assert_eq!(driven.put_image("logo.svg", SVG), Ok(false));
    assert_eq!(images(&driven.effects), ["+logo.svg"; 2]);
    driven.wait(60_000);
    driven.effects.clear();
    driven.handle(Input::MixerLost);
    let order = |effect: &Effect| matches!(effect, Effect::Order(Order::Image(..) | Order::Overlays(..)));
    let repeated: Vec<_> = driven.effects.iter().filter(|effect| order(effect)).collect();
    assert!(matches!(repeated[..], [Effect::Order(Order::Image(..)), Effect::Order(Order::Overlays(..))]));
    driven.effects.clear();
    driven.change(shown.id, json!({"image": "unused.svg"})).expect("changed");
    assert_eq!(images(&driven.effects), ["+unused.svg", "-logo.svg"]);
    let name: ImageName = "unused.svg".parse().expect("a name");
    driven.handle(Input::ImageFailed(name.clone(), "damaged".into()));
    assert_eq!(driven.room.document().images[1].error.as_deref(), Some("damaged"));
    driven.room.remove_image(at(0), &name).expect("removed");
    driven.drain();
    assert!(driven.room.document().overlays.is_empty() && driven.drawn().is_empty());
    assert_eq!(images(&driven.effects).last().map(String::as_str), Some("-unused.svg"));
}

#[test]
fn images_are_limited_by_their_number_and_their_bytes() {
    let mut driven = Driven::new(9);
    let large = format!("<svg>{}</svg>", " ".repeat(1_000_000));
    for i in 0..16 {
        assert_eq!(driven.put_image(&format!("a{i}"), &large), Ok(true));
    }
    assert_eq!(driven.put_image("one-more", SVG), Err(OverlayError::TooManyImages));
    assert_eq!(driven.put_image("a0", SVG), Ok(false), "a smaller one instead of one of them");
    driven.room.remove_image(at(0), &"a1".parse().expect("a name")).expect("removed");
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01".to_vec(), vec![0; 4_000_000]].concat();
    let image = Image::check(png.into()).expect("a PNG by its first bytes");
    let put = driven.room.put_image(at(0), "big".parse().expect("a name"), image);
    assert_eq!(put, Err(OverlayError::TooManyImages));
}

#[test]
fn captions_are_events_and_are_drawn_where_an_overlay_asks_for_them() {
    let mut driven = Driven::new(9);
    let (ann, bob) = (driven.join(person("Ann")).participant, driven.join(person("Bob")).participant);
    driven.say(ann, "good").expect("said");
    assert!(driven.drawn().is_empty(), "no overlay asks for it");
    driven.add(json!({"kind": "caption"})).expect("added");
    assert_eq!(driven.drawn()[0].text, "Ann: good");
    driven.wait(1_000);
    driven.say(ann, "good\n  morning").expect("said");
    driven.wait(1_000);
    driven.say(bob, "hi").expect("said");
    assert_eq!(driven.drawn()[0].text, "Ann: good morning\nBob: hi");
    let captions: Vec<_> = driven.events().into_iter().filter(|e| matches!(e, Event::Caption { .. })).collect();
    let (text, name, language) = ("hi".into(), "Bob".into(), Some("en".into()));
    let expected = Event::Caption { participant: bob, name, text, is_final: false, language };
    assert_eq!((captions.len(), captions[2]), (3, &expected));
    driven.wait(5_000);
    assert_eq!(driven.drawn()[0].text, "Bob: hi", "six seconds after the last change");
    driven.wait(1_000);
    assert!(driven.drawn().is_empty());
    assert_eq!(driven.say(ParticipantId(99), "x"), Err(OverlayError::NoParticipant(ParticipantId(99))));
    assert!(matches!(driven.say(ann, " "), Err(OverlayError::Invalid(_))));
}

#[test]
fn too_many_captions_are_refused_with_the_time_to_wait() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    for _ in 0..40 {
        driven.say(ann, "word").expect("said");
        driven.wait(10);
    }
    let wait = Duration::from_millis(1_600);
    assert_eq!(driven.say(ann, "word"), Err(CaptionError::TooMany(wait).into()));
    driven.wait(1_600);
    driven.say(ann, "word").expect("said");
}

proptest! {
    /// The latest order is what a new mixer would get, and nothing is shown after its end.
    #[test]
    fn random_changes_keep_orders_whole(ops in proptest::collection::vec((0u32..7, 1u32..6, 1u64..4_000), 1..50)) {
        let mut driven = Driven::new(9);
        let ann = driven.join(person("Ann")).participant;
        driven.put_image("logo", SVG).expect("put");
        let mut ends: BTreeMap<OverlayId, u64> = BTreeMap::new();
        for (op, id, time) in ops {
            let seconds = time as f64 / 1_000.0;
            let id = OverlayId(id);
            match op {
                0 => {
                    if let Ok(new) = driven.add(json!({"kind": "text", "text": "a", "seconds": seconds})) {
                        ends.insert(new.id, driven.now + time);
                    }
                }
                1 => drop(driven.add(json!({"kind": "image", "image": "logo"}))),
                2 => drop(driven.add(json!({"kind": "caption"}))),
                3 => {
                    if driven.change(id, json!({"seconds": seconds})).is_ok() {
                        ends.insert(id, driven.now + time);
                    }
                }
                4 => drop(driven.say(ann, "a")),
                5 => {
                    drop(driven.room.remove_overlay(at(driven.now), id));
                    driven.drain();
                }
                _ => driven.wait(time),
            }
            let before = driven.drawn();
            driven.room.replay();
            driven.drain();
            prop_assert_eq!(&before, &driven.drawn());
            let now = driven.now;
            let is_over = |overlay: &Overlay| ends.get(&overlay.id).is_some_and(|end| *end <= now);
            prop_assert!(!before.iter().any(is_over));
            let known: BTreeSet<_> = driven.room.document().overlays.iter().map(|overlay| overlay.id).collect();
            prop_assert!(before.iter().all(|overlay| known.contains(&overlay.id)));
        }
    }
}
