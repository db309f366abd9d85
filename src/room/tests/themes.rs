//! Avatars, backgrounds, themes and signs of a room's scenes.

use crate::room::moderation::Changer;
use bytes::Bytes;

use super::*;
use crate::id::ImageName;
use crate::layout::Background;
use crate::overlay::Image;
use crate::room::overlays::OverlayError;

const SVG: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"/>"#;

fn image(name: &str) -> ImageName {
    name.parse().expect("a name")
}

impl Driven {
    fn upload(&mut self, name: &str) {
        let picture = Image::check(Bytes::from_static(SVG.as_bytes())).expect("an SVG");
        self.room.put_image(at(self.now), image(name), picture).expect("there is room");
        self.drain();
    }

    fn change_room(&mut self, json: &str) {
        self.handle(Input::Patch(serde_json::from_str(json).expect(json)));
    }

    fn change_person(&mut self, who: ParticipantId, json: &str) -> Result<(), OverlayError> {
        let patch: ParticipantPatch = serde_json::from_str(json).expect(json);
        self.room.check_avatar(&patch)?;
        self.handle(Input::Update(Changer::Itself, who, patch));
        Ok(())
    }

    /// The images that the mixer has by its orders.
    fn ordered(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for effect in &self.effects {
            match effect {
                Effect::Order(Order::Image(name, _)) => drop(names.insert(name.to_string())),
                Effect::Order(Order::ImageGone(name)) => drop(names.remove(&name.to_string())),
                _ => {}
            }
        }
        names
    }
}

#[test]
fn an_avatar_is_an_uploaded_image_until_it_is_removed() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    let refused = driven.change_person(ann, r#"{"avatar":"ann.svg"}"#);
    assert_eq!(refused, Err(OverlayError::NoImage(image("ann.svg"))));
    driven.upload("ann.svg");
    assert_eq!(driven.ordered().len(), 0, "nobody shows it");
    driven.change_person(ann, r#"{"avatar":"ann.svg"}"#).expect("there is one");
    assert_eq!(driven.scene().tiles[0].avatar, Some(image("ann.svg")));
    assert_eq!(driven.room.participant(ann).expect("is here").avatar, Some(image("ann.svg")));
    assert!(driven.ordered().contains("ann.svg"));
    driven.change_person(ann, r#"{"name":"Anna"}"#).expect("valid");
    assert!(driven.scene().tiles[0].avatar.is_some(), "an absent field does not change");
    driven.change_person(ann, r#"{"avatar":null}"#).expect("valid");
    assert_eq!((driven.scene().tiles[0].avatar.clone(), driven.ordered().len()), (None, 0));
    driven.change_person(ann, r#"{"avatar":"ann.svg"}"#).expect("there is one");
    driven.room.remove_image(at(driven.now), &image("ann.svg")).expect("it exists");
    driven.drain();
    assert_eq!((driven.scene().tiles[0].avatar.clone(), driven.ordered().len()), (None, 0));
    assert_eq!(driven.room.participant(ann).expect("is here").avatar, None);
}

#[test]
fn a_background_image_is_used_while_it_exists() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    driven.change_room(r#"{"theme":{"background":"wall.svg","radius":8}}"#);
    assert_eq!((&driven.scene().style.background, driven.scene().style.radius), (&Background::USUAL, Some(8)));
    driven.upload("wall.svg");
    assert_eq!(driven.scene().style.background, Background::Image(image("wall.svg")));
    assert!(driven.ordered().contains("wall.svg"));
    driven.change_room(r##"{"layout":{"kind":"grid","background":"#102030","radius":0}}"##);
    assert_eq!(driven.scene().style.background.to_string(), "#102030", "that of the layout");
    assert_eq!((driven.scene().style.radius, driven.ordered().len()), (Some(0), 0));
    driven.change_room(r#"{"layout":{"kind":"grid"}}"#);
    driven.effects.clear();
    driven.now += 60_000;
    driven.handle(Input::MixerLost);
    assert!(driven.ordered().contains("wall.svg"), "a new mixer gets it");
    driven.room.remove_image(at(driven.now), &image("wall.svg")).expect("it exists");
    driven.drain();
    assert_eq!(driven.scene().style.background, Background::USUAL);
    driven.change_room(r#"{"theme":{}}"#);
    assert!(driven.room.document().theme.is_usual());
}

#[test]
fn the_gap_of_a_layout_takes_precedence_over_that_of_the_theme() {
    let mut driven = Driven::new(9);
    for name in ["Ann", "Bob"] {
        driven.join(person(name));
    }
    driven.change_room(r#"{"layout":{"kind":"side_by_side"}}"#);
    let gap = |driven: &Driven| {
        let [ann, bob] = &driven.scene().tiles[..] else { panic!("two tiles") };
        let mut edges = [(ann.rect.x, ann.rect.width), (bob.rect.x, bob.rect.width)];
        edges.sort_unstable();
        edges[1].0 - edges[0].0 - edges[0].1
    };
    assert_eq!(gap(&driven), 4);
    driven.change_room(r#"{"theme":{"gap":20}}"#);
    assert_eq!(gap(&driven), 20);
    driven.change_room(r#"{"layout":{"kind":"side_by_side","gap":0}}"#);
    assert_eq!(gap(&driven), 0);
}

#[test]
fn a_participant_whose_link_carries_only_a_small_picture_has_a_sign() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    for (tier, limit, poor) in [
        (Tier::Medium, Some(Limit::Delay), false),
        (Tier::Low, Some(Limit::Delay), true),
        (Tier::Slides, Some(Limit::Loss), true),
        (Tier::Low, Some(Limit::Receiver), false),
        (Tier::High, None, false),
    ] {
        driven.select(ann, tier, limit);
        assert_eq!(driven.scene().tiles[0].poor_connection, poor, "{tier:?} {limit:?}");
    }
    driven.select(ann, Tier::Low, Some(Limit::Loss));
    driven.change_person(ann, r#"{"tier":"low"}"#).expect("valid");
    assert!(!driven.scene().tiles[0].poor_connection, "the participant has chosen the tier");
}
