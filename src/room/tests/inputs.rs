//! Tests of inputs.

use super::*;
use crate::id::InputId;
use crate::room::document::{InputDocument, InputState};
use crate::room::inputs::{InputEvent, InputReport, InputWish};

fn wish(name: &str) -> InputWish {
    InputWish { url: "srt://example.com:9000".into(), name: name.into(), repeat: false, pushed: false }
}

impl Driven {
    fn add_input(&mut self, wish: InputWish) -> (InputId, Admitted) {
        let added = self.room.add_input(at(self.now), wish).expect("room for one");
        self.drain();
        added
    }

    fn input(&mut self, id: InputId, event: InputEvent) {
        self.handle(Input::Input(id, event));
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
    let reported = |driven: &Driven| driven.events().iter().filter(|e| matches!(e, Event::Input { .. })).count();
    let before = reported(&driven);
    for _ in 0..3 {
        driven.input(id, InputEvent::Report(report.clone()));
    }
    assert_eq!(reported(&driven), before + 1, "a repeated report is not an event");
    driven.input(id, InputEvent::Ended(Some("it is no film".into())));
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
fn a_lost_input_process_is_restarted_and_its_participant_stays() {
    let mut driven = Driven::new(9);
    driven.join(Admission { sends: Vec::new(), ..person("Eve") });
    let (id, admitted) = driven.add_input(wish("Lobby"));
    let starts = |driven: &Driven| driven.effects.iter().filter(|e| **e == Effect::StartInput(id)).count();
    driven.now = 60_000;
    driven.input(id, InputEvent::Lost("killed".into()));
    assert_eq!(starts(&driven), 2, "one that had settled goes on at once");
    let document = driven.input_document(id);
    assert_eq!((document.state, document.reconnects), (InputState::Reconnecting, 1));
    for early in 1..EARLY_DEATHS {
        driven.input(id, InputEvent::Lost("crash".into()));
        let until = driven.room.poll_timeout().expect("it rests");
        assert_eq!(starts(&driven), 1 + early, "one that dies young rests first");
        driven.now = (until.as_micros() - at(0).as_micros()) / 1_000;
        driven.handle(Input::Timeout);
        assert_eq!(starts(&driven), 2 + early);
        assert!(driven.room.participant(admitted.participant).is_some());
    }
    driven.input(id, InputEvent::Lost("crash".into()));
    assert_eq!(driven.input_document(id).state, InputState::Failed);
    assert!(driven.room.participant(admitted.participant).is_none());
}

/// Early deaths in succession that end an input.
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
    driven.input(second, InputEvent::Stop);
    assert!(driven.effects.contains(&Effect::StopInput(second)));

    let (pushed, admitted) = driven.add_input(InputWish { pushed: true, ..wish("d") });
    driven.input(pushed, InputEvent::Lost("killed".into()));
    assert_eq!(driven.input_document(pushed).state, InputState::Failed, "an encoder comes back by itself");
    assert!(driven.room.participant(admitted.participant).is_none());

    let (last, _) = driven.add_input(wish("e"));
    driven.handle(Input::Delete);
    assert!(driven.effects.contains(&Effect::StopInput(last)));
    assert_eq!(driven.room.add_input(at(0), wish("f")).err(), Some(Refusal::Ended));
}
