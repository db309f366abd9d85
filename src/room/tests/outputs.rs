//! Tests of recordings and broadcasts.

use super::*;
use crate::id::OutputId;
use crate::media::FileFormat;
use crate::room::document::{OutputState, RecordingKind, UploadDocument, UploadState};
use crate::room::outputs::{OutputEvent, OutputKind, OutputReport, OutputWish};

fn recording(format: FileFormat) -> OutputWish {
    OutputWish {
        kind: OutputKind::Recording { kind: RecordingKind::View, format },
        view: ViewName::program(),
        streams: format.video().first().map(|codec| (*codec, Tier::High)).into_iter().collect(),
        sound: true,
    }
}

fn broadcast() -> OutputWish {
    let kind = OutputKind::Broadcast { kind: "hls".into(), url: "/hls/r/index.m3u8".into(), public: false };
    OutputWish { kind, view: ViewName::program(), streams: vec![(Codec::H264, Tier::High)], sound: true }
}

impl Driven {
    fn output(&mut self, id: OutputId, event: OutputEvent) {
        self.room.handle(at(self.now), Input::Output(id, event));
        self.drain();
    }

    fn state(&self, id: OutputId) -> OutputState {
        self.room.document().recordings.iter().find(|recording| recording.id == id).expect("listed").state
    }
}

#[test]
fn a_recording_shares_a_stream_that_is_encoded_already() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let before = driven.room.document().streams;
    let id = driven.room.add_output(at(driven.now), recording(FileFormat::Webm)).expect("room for one");
    driven.drain();
    assert!(driven.effects.contains(&Effect::StartOutput(id)));
    let document = driven.room.document();
    assert_eq!(document.streams.len(), before.len(), "no encode more");
    assert_eq!(document.streams[0].subscribers, before[0].subscribers + 1);
    let route = driven.effects.iter().rev().find_map(|effect| match effect {
        Effect::OutputRoutes(routes) => routes.first(),
        _ => None,
    });
    let route = route.expect("it is given packets").clone();
    assert_eq!((route.output, route.sound, route.sources), (id, true, false));
    assert_eq!(driven.room.output_streams(id).iter().map(|spec| spec.serial).collect::<Vec<_>>(), route.streams);
    assert!(driven.effects.iter().rev().any(|e| matches!(e, Effect::Order(Order::Mix(plan)) if plan.outputs)));

    driven.output(id, OutputEvent::KeyframeWanted(0));
    assert_eq!(driven.effects.last(), Some(&Effect::Order(Order::Keyframe(route.streams[0]))));
    driven.output(id, OutputEvent::Report(OutputReport { state: OutputState::Live, ..OutputReport::default() }));
    assert_eq!(driven.state(id), OutputState::Live);
    driven.output(id, OutputEvent::Stop);
    assert!(driven.effects.contains(&Effect::FinishOutput(id)));
    assert!(driven.effects.contains(&Effect::OutputRoutes(Vec::new())));
    driven.output(id, OutputEvent::Report(OutputReport { state: OutputState::Live, ..OutputReport::default() }));
    assert_eq!(driven.state(id), OutputState::Finishing, "it was ordered to end");
    driven.output(id, OutputEvent::Ended(None));
    assert_eq!(driven.state(id), OutputState::Finished);
}

#[test]
fn the_files_of_a_recording_are_uploaded_after_its_end() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let id = driven.room.add_output(at(driven.now), recording(FileFormat::Mp4)).expect("room for one");
    driven.output(id, OutputEvent::File("a.mp4".to_owned()));
    driven.output(id, OutputEvent::File("a-001.mp4".to_owned()));
    driven.output(id, OutputEvent::Ended(None));
    driven.effects.clear();
    let upload = |state, error: Option<&str>| UploadDocument { state, error: error.map(str::to_owned) };
    let said = |driven: &Driven| driven.room.document().recordings[0].upload.clone();
    assert_eq!(said(&driven), None);
    for (file, event, whole) in [
        ("a.mp4", upload(UploadState::Uploading, None), UploadState::Uploading),
        ("a-001.mp4", upload(UploadState::Waiting, Some("away")), UploadState::Uploading),
        ("a.mp4", upload(UploadState::Done, None), UploadState::Waiting),
        ("b.mp4", upload(UploadState::Uploading, None), UploadState::Waiting),
        ("a-001.mp4", upload(UploadState::Done, None), UploadState::Done),
    ] {
        driven.output(id, OutputEvent::Upload(file.to_owned(), event));
        assert_eq!(said(&driven).map(|upload| upload.state), Some(whole), "{file}");
    }
    let reported =
        driven.effects.iter().filter(|effect| matches!(effect, Effect::Event(_, Event::Recording { .. }))).count();
    assert_eq!(reported, 4, "each change of its own file is an event");
}

#[test]
fn a_lost_recording_is_restarted_after_a_back_off_and_fails_after_several_early_deaths() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let id = driven.room.add_output(at(driven.now), recording(FileFormat::Mp4)).expect("room for one");
    driven.drain();
    driven.output(id, OutputEvent::File("a.mp4".to_owned()));
    let report = OutputReport { state: OutputState::Live, bytes: 1_000, ..OutputReport::default() };
    driven.output(id, OutputEvent::Report(report.clone()));
    driven.now += 20_000;
    driven.effects.clear();
    driven.output(id, OutputEvent::Lost("killed".to_owned()));
    assert!(driven.effects.contains(&Effect::StartOutput(id)), "one that had lived is replaced at once");
    driven.output(id, OutputEvent::File("a-001.mp4".to_owned()));
    driven.output(id, OutputEvent::Report(report));
    let document = driven.room.document();
    assert_eq!((document.recordings[0].bytes, document.recordings[0].files.len()), (2_000, 2), "both parts");

    let mut starts = 0;
    for _ in 0..20 {
        driven.effects.clear();
        driven.output(id, OutputEvent::Lost("killed".to_owned()));
        if driven.state(id) == OutputState::Failed {
            break;
        }
        let until = driven.room.poll_timeout().expect("it rests");
        assert!(until > at(driven.now));
        driven.now += until.since(at(driven.now)).as_millis() as u64 + 1;
        driven.room.handle(at(driven.now), Input::Timeout);
        driven.drain();
        assert!(driven.effects.contains(&Effect::StartOutput(id)));
        starts += 1;
    }
    assert_eq!((driven.state(id), starts), (OutputState::Failed, 5));
    assert!(driven.room.document().streams.iter().all(|stream| !stream.key.contains("H264")), "its stream goes");
}

#[test]
fn a_room_that_ends_finishes_its_recordings_and_their_number_is_bounded() {
    let mut driven = Driven::new(9);
    driven.join(person("Ann"));
    let ids: Vec<OutputId> =
        (0..3).filter_map(|_| driven.room.add_output(at(driven.now), recording(FileFormat::Ogg)).ok()).collect();
    assert_eq!(ids.len(), 3);
    let refused = driven.room.add_output(at(driven.now), recording(FileFormat::Ogg));
    assert_eq!(refused, Err(Refusal::FullOfOutputs(3)));
    driven.output(ids[0], OutputEvent::Ended(Some("the disk is full".to_owned())));
    assert_eq!(driven.state(ids[0]), OutputState::Failed);
    assert!(driven.room.add_output(at(driven.now), recording(FileFormat::Ogg)).is_ok(), "one that is over makes room");
    driven.room.handle(at(driven.now), Input::Delete);
    driven.drain();
    for id in &ids[1..] {
        assert!(driven.effects.contains(&Effect::FinishOutput(*id)));
    }
    assert_eq!(driven.effects.last(), Some(&Effect::Ended));
}

#[test]
fn the_mixer_of_an_empty_permanent_room_runs_while_the_room_is_broadcast() {
    let mut driven =
        Driven { room: Room::new(RoomSettings { permanent: true, ..settings(9) }, at(0)), ..Driven::new(9) };
    let id = driven.room.add_output(at(0), broadcast()).expect("room for one");
    driven.drain();
    assert!(driven.effects.contains(&Effect::StartMixer));
    assert_eq!(driven.room.poll_timeout(), None, "nothing is due");
    driven.now = 60_000;
    driven.output(id, OutputEvent::Stop);
    driven.output(id, OutputEvent::Ended(None));
    let until = driven.room.poll_timeout().expect("the mixer is to be stopped");
    driven.room.handle(until, Input::Timeout);
    driven.drain();
    assert!(driven.effects.contains(&Effect::StopMixer));
    assert_eq!(driven.room.poll_timeout(), None);
}
