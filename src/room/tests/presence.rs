//! Tests of what counts as empty, and what ends then.

use super::*;
use crate::id::OutputId;
use crate::media::FileFormat;
use crate::room::document::{OutputState, RecordingKind};
use crate::room::inputs::InputWish;
use crate::room::outputs::{OutputEvent, OutputKind, OutputWish};

fn input(pushed: bool) -> InputWish {
    InputWish { url: "srt://example.com:9000".into(), name: "Lobby".into(), repeat: true, pushed }
}

fn recording() -> OutputWish {
    let kind = OutputKind::Recording { kind: RecordingKind::View, format: FileFormat::Webm };
    OutputWish { kind, view: ViewName::program(), streams: vec![(Codec::Vp8, Tier::High)], sound: true }
}

fn broadcast() -> OutputWish {
    let kind = OutputKind::Broadcast { kind: "hls".into(), url: "/hls/r/index.m3u8".into(), public: false };
    OutputWish { kind, view: ViewName::program(), streams: vec![(Codec::H264, Tier::High)], sound: true }
}

fn bot() -> Admission {
    Admission { bot: true, ..person("Bot") }
}

fn permanent() -> Driven {
    Driven { room: Room::new(RoomSettings { permanent: true, ..settings(9) }, at(0)), ..Driven::new(9) }
}

impl Driven {
    fn leave(&mut self, who: &Admitted) {
        self.handle(Input::Left(who.participant, LeaveReason::Left));
    }

    /// Handles all timeouts for this time.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(due) = self.room.poll_timeout().filter(|due| *due <= at(end)) {
            self.now = self.now.max((due.as_micros() - at(0).as_micros()) / 1_000);
            self.handle(Input::Timeout);
        }
        self.now = end;
    }

    fn has_ended(&self) -> bool {
        self.effects.contains(&Effect::Ended)
    }

    fn begin(&mut self, wish: OutputWish) -> OutputId {
        let id = self.room.add_output(at(self.now), wish).expect("room for it");
        self.drain();
        id
    }

    fn takes_media(&self, id: OutputId) -> bool {
        !self.effects.contains(&Effect::FinishOutput(id))
    }
}

#[test]
fn bots_inputs_and_outputs_alone_do_not_keep_a_room_alive() {
    let mut driven = Driven::new(9);
    let ann = driven.join(person("Ann"));
    let robot = driven.join(bot());
    driven.room.add_input(at(0), input(false)).expect("room for it");
    let (recording, broadcast) = (driven.begin(recording()), driven.begin(broadcast()));
    driven.pass(3_600_000);
    assert!(!driven.has_ended() && driven.takes_media(recording), "Ann is there");
    driven.leave(&ann);
    driven.pass(4_000);
    assert!(!driven.has_ended() && driven.takes_media(recording), "she may come back");
    driven.pass(2_000);
    assert!(driven.has_ended());
    assert!(!driven.takes_media(recording) && !driven.takes_media(broadcast), "both are finished");
    assert!(driven.effects.contains(&Effect::Close(robot.participant)));
    assert!(driven.effects.iter().any(|effect| matches!(effect, Effect::StopInput(_))));
}

#[test]
fn a_room_that_never_had_a_person_ends() {
    for fill in [
        (|driven: &mut Driven| drop(driven.join(bot()))) as fn(&mut Driven),
        |driven| drop(driven.room.add_input(at(0), input(false)).expect("room for it")),
        |driven| {
            driven.begin(recording());
        },
    ] {
        let mut driven = Driven::new(9);
        fill(&mut driven);
        driven.drain();
        driven.pass(6_000);
        assert!(driven.has_ended());
    }
}

#[test]
fn viewers_publishers_and_pushing_encoders_are_persons() {
    let viewer = Admission { sends: Vec::new(), ..person("Eve") };
    let publisher = Admission { receives_audio: None, receives_video: None, ..person("OBS") };
    for who in [viewer, publisher] {
        let mut driven = Driven::new(9);
        let session = driven.join(who);
        driven.pass(3_600_000);
        assert!(!driven.has_ended());
        driven.leave(&session);
        driven.pass(6_000);
        assert!(driven.has_ended());
    }
    let mut driven = Driven::new(9);
    let (_, encoder) = driven.room.add_input(at(0), input(true)).expect("room for it");
    driven.drain();
    driven.pass(3_600_000);
    assert!(!driven.has_ended(), "somebody pushes by RTMP");
    driven.leave(&encoder);
    driven.pass(6_000);
    assert!(driven.has_ended());
}

#[test]
fn a_person_who_returns_in_time_keeps_the_room_and_its_recording() {
    let mut driven = Driven::new(9);
    driven.join(bot());
    let id = driven.begin(recording());
    for _ in 0..10 {
        let ann = driven.join(person("Ann"));
        driven.leave(&ann);
        driven.pass(4_000);
    }
    assert!(!driven.has_ended() && driven.takes_media(id));
    driven.pass(2_000);
    assert!(driven.has_ended());
}

#[test]
fn a_recording_of_a_permanent_room_ends_when_nobody_is_left() {
    let mut driven = permanent();
    let (_, camera) = driven.room.add_input(at(0), input(false)).expect("room for it");
    let id = driven.begin(recording());
    driven.pass(3_600_000);
    assert!(driven.takes_media(id), "a camera may be recorded");
    driven.leave(&camera);
    driven.pass(6_000);
    assert!(!driven.takes_media(id) && !driven.has_ended());
    assert!(driven.effects.contains(&Effect::StopMixer));
    driven.handle(Input::Output(id, OutputEvent::Ended(None)));
    assert_eq!(driven.room.document().recordings[0].state, OutputState::Finished);
    assert_eq!(driven.room.poll_timeout(), None, "the room itself stays");

    // A recording that begins in an empty room is not ended at once.
    driven.now += 60_000;
    let next = driven.begin(recording());
    driven.pass(4_000);
    assert!(driven.takes_media(next));
    driven.pass(2_000);
    assert!(!driven.takes_media(next));
}

#[test]
fn a_broadcast_of_an_empty_permanent_room_goes_on() {
    let mut driven = permanent();
    let (recording, broadcast) = (driven.begin(recording()), driven.begin(broadcast()));
    driven.pass(3_600_000);
    assert!(driven.takes_media(broadcast) && !driven.takes_media(recording));
    assert!(!driven.effects.contains(&Effect::StopMixer));
    assert_eq!(driven.room.poll_timeout(), None, "nothing is due");
}
