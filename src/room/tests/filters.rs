//! Filters of participants.

use crate::room::moderation::Changer;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::filter::{FilterSpec, Removal};
use crate::id::{SourceId, ViewName};
use crate::overlay::Image;

const SVG: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>"#;

impl Driven {
    fn filter(&mut self, participant: ParticipantId, filters: Value) -> Result<(), String> {
        let patch: ParticipantPatch = serde_json::from_value(json!({ "filters": filters })).expect("a patch");
        self.room.check_filters(patch.filters.as_deref().expect("given")).map_err(|error| error.to_string())?;
        self.handle(Input::Update(Changer::Itself, participant, patch));
        Ok(())
    }
}

/// The filters that were ordered, without the pipelines.
fn ordered(effects: &[Effect]) -> Vec<(SourceId, Vec<(u32, String)>)> {
    let specs = |specs: &Vec<FilterSpec>| specs.iter().map(|spec| (spec.serial, spec.name.clone())).collect();
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order(Order::Filters(source, list)) => Some((*source, specs(list))),
            _ => None,
        })
        .collect()
}

fn put_image(driven: &mut Driven, name: &str) {
    let image = Image::check(SVG.as_bytes().to_vec().into()).expect("an SVG");
    driven.room.put_image(at(driven.now), name.parse().expect("a name"), image).expect("room for it");
    driven.drain();
}

#[test]
fn filters_are_ordered_for_the_source_that_they_name() {
    let mut driven = Driven::new(9);
    let ann = driven.join(Admission { sends: vec![SourceKind::Microphone, SourceKind::Camera], ..person("Ann") });
    let camera = ann.sources.iter().find(|(kind, _)| *kind == SourceKind::Camera).expect("sent").1;
    driven.effects.clear();
    driven.filter(ann.participant, json!([{"name": "blur", "strength": 8}, {"name": "grayscale"}])).expect("valid");
    let named = |list: &[(u32, &str)]| list.iter().map(|(n, name)| (*n, (*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(ordered(&driven.effects), [(camera, named(&[(1, "blur"), (2, "grayscale")]))]);
    let document = serde_json::to_value(driven.room.participant(ann.participant)).expect("plain data");
    assert_eq!(
        document["filters"],
        json!([{"name": "blur", "source": "camera", "strength": 8.0},
               {"name": "grayscale", "source": "camera", "saturation": 0.0}])
    );
    assert!(driven.events().iter().any(|event| matches!(event, Event::Updated { .. })));

    // One that remains as it is keeps its number, so that the mixer lets it run.
    driven.effects.clear();
    driven.filter(ann.participant, json!([{"name": "grayscale"}, {"name": "blur", "strength": 2}])).expect("valid");
    assert_eq!(ordered(&driven.effects), [(camera, named(&[(2, "grayscale"), (3, "blur")]))]);
    driven.effects.clear();
    driven.filter(ann.participant, json!([])).expect("valid");
    assert_eq!(ordered(&driven.effects), [(camera, Vec::new())]);
    let document = serde_json::to_value(driven.room.participant(ann.participant)).expect("plain data");
    assert!(document.get("filters").is_none());
}

#[test]
fn a_source_that_starts_later_and_a_new_mixer_get_the_filters_before_its_first_frame() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    driven.filter(ann, json!([{"name": "blur", "source": "screen"}])).expect("valid");
    driven.effects.clear();
    let sources = driven.room.resend(ann, &[SourceKind::Camera, SourceKind::Screen]).expect("she is there");
    driven.drain();
    let screen = sources[1].1;
    driven.handle(Input::SourceStarted(screen, Codec::Vp8));
    let at_which = |effects: &[Effect]| {
        let filters = effects.iter().position(|e| matches!(e, Effect::Order(Order::Filters(id, _)) if *id == screen));
        let source =
            effects.iter().position(|e| matches!(e, Effect::Order(Order::Source(spec)) if spec.source == screen));
        (filters.expect("ordered"), source.expect("ordered"))
    };
    let (filters, source) = at_which(&driven.effects);
    assert!(filters < source);
    driven.effects.clear();
    driven.now += 60_000;
    driven.handle(Input::MixerLost);
    let (filters, source) = at_which(&driven.effects);
    assert!(filters < source);
}

#[test]
fn a_filter_that_the_mixer_removes_leaves_the_document_with_an_event() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    driven.filter(ann, json!([{"name": "blur"}, {"name": "grayscale"}])).expect("valid");
    driven.handle(Input::FilterLoad(2, Duration::from_micros(1_234)));
    let document = serde_json::to_value(driven.room.participant(ann)).expect("plain data");
    assert_eq!(document["filters"][1]["cpu_ms"], json!(1.23));
    driven.effects.clear();
    driven.handle(Input::FilterRemoved(1, Removal::Slow, "too slow".into()));
    assert!(ordered(&driven.effects).is_empty(), "the mixer has removed it already");
    let events: Vec<Value> =
        driven.events().iter().map(|event| serde_json::to_value(event).expect("plain data")).collect();
    assert_eq!(
        events[0],
        json!({"type": "filter_removed", "participant": ann, "name": "blur", "source": "camera",
               "reason": "slow", "detail": "too slow"})
    );
    assert_eq!(
        (&events[1]["type"], &events[1]["participant"]["filters"][0]["name"]),
        (&json!("updated"), &json!("grayscale"))
    );
    // A report about a filter that is not there any more changes nothing.
    driven.effects.clear();
    driven.handle(Input::FilterRemoved(1, Removal::Failed, String::new()));
    assert!(driven.effects.is_empty());
    // A new mixer does not get it back.
    driven.now += 60_000;
    driven.handle(Input::MixerLost);
    assert_eq!(ordered(&driven.effects).len(), 1);
    assert_eq!(ordered(&driven.effects)[0].1, [(2, "grayscale".to_owned())]);
}

#[test]
fn the_image_of_a_filter_is_ordered_before_it_and_goes_with_it() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    let key = json!([{"name": "chroma_key", "image": "beach"}]);
    let error = driven.filter(ann, key.clone()).expect_err("no such image");
    assert!(error.contains("images/beach"), "{error}");
    put_image(&mut driven, "beach");
    driven.effects.clear();
    driven.filter(ann, key.clone()).expect("valid");
    let orders: Vec<&Order> =
        driven.effects.iter().filter_map(|e| if let Effect::Order(order) = e { Some(order) } else { None }).collect();
    assert!(matches!(orders[..], [Order::Image(..), Order::Filters(..), ..]), "{orders:?}");
    let is_gone = |e: &Effect| matches!(e, Effect::Order(Order::ImageGone(_)));
    // Without the image the filter shows black.
    driven.effects.clear();
    driven.room.remove_image(at(driven.now), &"beach".parse().expect("a name")).expect("it is there");
    driven.drain();
    assert!(driven.effects.iter().any(is_gone) && ordered(&driven.effects).len() == 1);
    let document = serde_json::to_value(driven.room.participant(ann)).expect("plain data");
    assert_eq!(document["filters"][0]["image"], Value::Null);
    // The mixer forgets the image with the last participant that needs it.
    put_image(&mut driven, "beach");
    driven.filter(ann, key).expect("valid");
    driven.effects.clear();
    driven.handle(Input::Left(ann, LeaveReason::Left));
    assert!(driven.effects.iter().any(is_gone));
}

#[test]
fn a_view_has_filters_of_its_own() {
    let mut driven = Driven::new(9);
    let view: ViewName = "stage".parse().expect("a name");
    let put = |driven: &mut Driven, filters: Value| {
        let request = serde_json::from_value(json!({ "filters": filters })).expect("a request");
        let put = driven.room.put_view(at(driven.now), &view, request);
        driven.drain();
        put.map_err(|error| error.to_string())
    };
    let ordered = |driven: &mut Driven| {
        let effects = std::mem::take(&mut driven.effects);
        let specs = |effect| match effect {
            Effect::Order(Order::ViewFilters(view, specs)) => {
                Some((view.to_string(), specs.iter().map(|spec| spec.serial).collect::<Vec<_>>()))
            }
            _ => None,
        };
        effects.into_iter().filter_map(specs).collect::<Vec<_>>()
    };
    let refused = put(&mut driven, json!([{"name": "blur", "source": "camera"}])).expect_err("no source");
    assert!(refused.contains("leave `source` out"), "{refused}");
    assert!(put(&mut driven, json!([{"name": "glow"}])).expect_err("unknown").contains("blur"));
    assert_eq!(put(&mut driven, json!([{"name": "grayscale"}])), Ok(true));
    assert_eq!(ordered(&mut driven), [("stage".to_owned(), vec![1])]);
    // The same again changes nothing.
    assert_eq!(put(&mut driven, json!([{"name": "grayscale"}])), Ok(false));
    assert!(ordered(&mut driven).is_empty());
    let document = serde_json::to_value(driven.room.view(&view).expect("it is there")).expect("plain data");
    assert_eq!(document["filters"], json!([{"name": "grayscale", "saturation": 0.0}]));
    driven.handle(Input::FilterRemoved(1, Removal::Stalled, "nothing".into()));
    let event = serde_json::to_value(driven.events()[0]).expect("plain data");
    assert_eq!(
        event,
        json!({"type": "filter_removed", "view": "stage", "name": "grayscale", "reason": "stalled",
               "detail": "nothing"})
    );
    assert_eq!(put(&mut driven, json!([{"name": "blur"}])), Ok(false));
    assert_eq!(ordered(&mut driven), [("stage".to_owned(), vec![2])]);
    driven.room.delete_view(at(driven.now), &view).expect("it is there");
    driven.drain();
    assert_eq!(ordered(&mut driven), [("stage".to_owned(), Vec::new())]);
}

#[test]
fn at_most_four_filters_are_accepted() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann")).participant;
    let list = |n: usize| Value::from(vec![json!({"name": "blur"}); n]);
    assert_eq!(driven.filter(ann, list(4)), Ok(()));
    assert!(driven.filter(ann, list(5)).expect_err("too many").contains("at most 4"));
    let error = driven.filter(ann, json!([{"name": "glow"}])).expect_err("unknown");
    assert!(error.contains("blur, chroma_key, grayscale"), "{error}");
}

#[derive(Debug, Clone)]
enum Op {
    Join,
    Leave(usize),
    Filter(usize, Vec<&'static str>),
    View(Vec<&'static str>),
    /// The mixer removes one of its filters.
    Remove(usize),
    LoseMixer,
    Pass,
}

fn op() -> impl Strategy<Value = Op> {
    let names = || proptest::collection::vec(proptest::sample::select(vec!["blur", "grayscale", "chroma_key"]), 0..4);
    prop_oneof![
        3 => Just(Op::Join),
        1 => (0usize..4).prop_map(Op::Leave),
        4 => (0usize..4, names()).prop_map(|(i, names)| Op::Filter(i, names)),
        2 => names().prop_map(Op::View),
        2 => (0usize..8).prop_map(Op::Remove),
        1 => Just(Op::LoseMixer),
        1 => Just(Op::Pass),
    ]
}

/// What a mixer has that carries out all orders.
#[derive(Debug, Default)]
struct FakeMixer {
    sources: BTreeMap<SourceId, Vec<FilterSpec>>,
    views: BTreeMap<ViewName, Vec<FilterSpec>>,
}

impl FakeMixer {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartMixer => *self = Self::default(),
                Effect::Order(Order::Filters(source, specs)) => drop(self.sources.insert(source, specs)),
                Effect::Order(Order::ViewFilters(view, specs)) => drop(self.views.insert(view, specs)),
                Effect::Order(Order::SourceGone(source)) => drop(self.sources.remove(&source)),
                _ => {}
            }
        }
    }

    fn lists(&mut self) -> impl Iterator<Item = &mut Vec<FilterSpec>> {
        self.sources.values_mut().chain(self.views.values_mut())
    }

    /// Removes the filter with this index; returns its serial.
    fn remove(&mut self, at: usize) -> Option<u32> {
        let serials: Vec<u32> = self.lists().flatten().map(|spec| spec.serial).collect();
        let serial = *serials.get(at.checked_rem(serials.len())?)?;
        self.lists().for_each(|specs| specs.retain(|spec| spec.serial != serial));
        Some(serial)
    }

    fn serials(&mut self) -> Vec<u32> {
        let mut serials: Vec<u32> = self.lists().flatten().map(|spec| spec.serial).collect();
        serials.sort_unstable();
        serials
    }
}

proptest! {
    /// The mixer runs exactly the filters in the documents, whatever happens, and no serial is used twice.
    #[test]
    fn the_mixer_runs_the_filters_of_the_documents(ops in proptest::collection::vec(op(), 1..40)) {
        let mut driven = Driven::new(9);
        let view: ViewName = "stage".parse().expect("a name");
        let mut mixer = FakeMixer::default();
        let mut people = vec![driven.join(person("Ann")).participant];
        for op in ops {
            let list = |names: Vec<&str>| names.iter().map(|name| json!({ "name": name })).collect::<Value>();
            match op {
                Op::Join => {
                    if people.len() < 4 {
                        people.push(driven.join(person("Bob")).participant);
                    }
                }
                Op::Leave(i) => {
                    // One remains, so that the mixer does.
                    if people.len() > 1 {
                        let gone = people.remove(i % people.len());
                        driven.handle(Input::Left(gone, LeaveReason::Left));
                    }
                }
                Op::Filter(i, names) => {
                    let who = people[i % people.len()];
                    driven.filter(who, list(names)).expect("valid");
                }
                Op::View(names) => {
                    let request = serde_json::from_value(json!({ "filters": list(names) })).expect("a request");
                    driven.room.put_view(at(driven.now), &view, request).expect("valid");
                    driven.drain();
                }
                Op::Remove(i) => {
                    if let Some(serial) = mixer.remove(i) {
                        driven.handle(Input::FilterRemoved(serial, Removal::Failed, String::new()));
                    }
                }
                Op::LoseMixer => driven.handle(Input::MixerLost),
                Op::Pass => {
                    driven.now += 31_000;
                    driven.handle(Input::Timeout);
                }
            }
            mixer.take(std::mem::take(&mut driven.effects));
            if driven.room.mixer.timeout().is_some() {
                // It rests before it is started again.
                driven.now += 31_000;
                driven.handle(Input::Timeout);
                mixer.take(std::mem::take(&mut driven.effects));
            }
            let people = people.iter().filter_map(|id| driven.room.participant(*id));
            let of_view = driven.room.view(&view).map(|document| document.filters).unwrap_or_default();
            let filters = people.flat_map(|person| person.filters).chain(of_view);
            let mut documented: Vec<String> = filters.map(|filter| filter.name).collect();
            let mut running: Vec<String> = mixer.lists().flatten().map(|spec| spec.name.clone()).collect();
            documented.sort();
            running.sort();
            prop_assert_eq!(running, documented);
            let serials = mixer.serials();
            prop_assert!(serials.windows(2).all(|two| two[0] < two[1]), "{:?}", serials);
        }
    }
}
