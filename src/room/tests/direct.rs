//! Two participants that send to each other directly, and the room that decides it.

use std::sync::Arc;
use std::time::Duration;

use super::Subscribers;
use crate::id::{OutputId, ParticipantId, ViewName};
use crate::layout::Layout;
use crate::media::{Codec, FileFormat, Size, SoundTaken, SourceKind};
use crate::room::direct::*;
use crate::room::document::{LeaveReason, RecordingKind, Role, TierChoice};
use crate::room::outputs::{OutputEvent, OutputKind, OutputWish};
use crate::room::view_request::ViewPatch;
use crate::room::{Admission, Effect, Input, Order, Room, RoomSettings, Route};
use crate::tier::Ladder;
use crate::time::Timestamp;

struct Two {
    room: Room,
    subscribers: Subscribers,
    now: Timestamp,
    sent: Vec<(u32, DirectEvent)>,
    routes: Vec<Route>,
    streams: usize,
}

impl Two {
    /// Two participants that support direct calls, in a room that permits them.
    fn new() -> Self {
        let settings = RoomSettings {
            filters: Arc::new(crate::filter::Catalog::shipped()),
            name: "test".parse().expect("a name"),
            layout: Layout::default(),
            canvas: Size::new(1280, 720),
            fps: 30,
            ladder: Ladder::default(),
            max_participants: 9,
            max_viewers: 9,
            max_outputs: 9,
            max_inputs: 9,
            direct_for_two: true,
            linger: Duration::from_secs(5),
            permanent: false,
            chat_history: 200,
        };
        let now = Timestamp::from_micros(1_000_000);
        let mut two = Self {
            room: Room::new(settings, now),
            subscribers: Subscribers::default(),
            now,
            sent: Vec::new(),
            routes: Vec::new(),
            streams: 0,
        };
        for _ in 0..2 {
            let participant = two.join();
            two.handle(Input::Direct(participant, DirectMessage::Able));
        }
        two
    }

    fn join(&mut self) -> ParticipantId {
        let participant = self.admit();
        self.handle(Input::Connected(participant));
        participant
    }

    fn admit(&mut self) -> ParticipantId {
        let who = Admission {
            name: String::new(),
            role: Role::Participant,
            sends: vec![SourceKind::Microphone, SourceKind::Camera],
            receives_audio: Some(SoundTaken::Any),
            receives_video: Some(Codec::Vp8),
            tier: TierChoice::Auto,
            view: ViewPatch::default(),
            bot: false,
            identity: None,
        };
        let admitted = self.room.admit(self.now, who).expect("let in");
        self.drain();
        admitted.participant
    }

    fn say(&mut self, participant: u32, message: DirectMessage) {
        self.handle(Input::Direct(ParticipantId(participant), message));
    }

    fn handle(&mut self, input: Input) {
        self.room.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(effect) = self.room.poll_effect() {
                self.subscribers.take(&effect);
                match effect {
                    Effect::Tell(participant, event) => self.sent.push((participant.0, event)),
                    Effect::Routes(routes) => self.routes = routes,
                    Effect::Order(Order::Streams(set)) => self.streams = set.streams.len(),
                    _ => {}
                }
            }
            let Some(demand) = self.subscribers.demand() else { break };
            self.room.handle(self.now, demand);
        }
    }

    fn is_mixed(&self) -> bool {
        self.streams > 0 && self.routes.iter().all(|route| route.audio && route.video.is_some())
    }

    fn direct() -> Self {
        let mut two = Self::new();
        two.say(1, DirectMessage::Connected);
        two.say(2, DirectMessage::Connected);
        two.sent.clear();
        two
    }
}

const COMPANY: DirectEvent = DirectEvent::End { reason: DirectEnd::Company };
const FAILED: DirectEvent = DirectEvent::End { reason: DirectEnd::Failed };

#[test]
fn a_pair_leaves_the_mixer_when_both_are_connected() {
    let mut two = Two::new();
    let begin = |peer, offers| DirectEvent::Begin { peer: ParticipantId(peer), offers };
    assert_eq!(two.sent, [(1, begin(2, true)), (2, begin(1, false))]);
    two.sent.clear();
    two.say(1, DirectMessage::Signal("offer".into()));
    assert_eq!(two.sent, [(2, DirectEvent::Signal { from: ParticipantId(1), signal: "offer".into() })]);
    two.say(1, DirectMessage::Connected);
    assert!(two.is_mixed(), "one of them hears nothing yet");
    two.say(2, DirectMessage::Connected);
    assert_eq!(two.sent[1..], [(1, DirectEvent::On), (2, DirectEvent::On)]);
    assert!(two.streams == 0 && two.routes.iter().all(|route| !route.audio && route.video.is_none()));
}

#[test]
fn the_admission_of_a_third_participant_ends_a_direct_call() {
    let mut two = Two::direct();
    two.admit();
    assert_eq!(two.sent, [(1, COMPANY), (2, COMPANY)]);
    assert!(two.is_mixed());
    two.sent.clear();
    two.handle(Input::Left(ParticipantId(3), LeaveReason::Left));
    assert_eq!(two.sent.len(), 2, "alone again, they begin again");
    two.sent.clear();
    two.handle(Input::Left(ParticipantId(2), LeaveReason::Lost));
    assert_eq!(two.sent, [(1, COMPANY)], "a participant who has left receives nothing");
}

#[test]
fn a_recording_ends_a_direct_call() {
    let mut two = Two::direct();
    let wish = OutputWish {
        kind: OutputKind::Recording { kind: RecordingKind::View, format: FileFormat::Mp4 },
        view: ViewName::program(),
        streams: Vec::new(),
        sound: true,
    };
    let id: OutputId = two.room.add_output(two.now, wish).expect("room for one");
    two.drain();
    assert_eq!(two.sent, [(1, COMPANY), (2, COMPANY)]);
    assert!(two.is_mixed());
    two.sent.clear();
    two.handle(Input::Output(id, OutputEvent::Stop));
    two.handle(Input::Output(id, OutputEvent::Ended(None)));
    assert_eq!(two.sent.len(), 2, "they begin again when it is over");
}

#[test]
fn a_pair_without_a_direct_path_stays_with_the_mixer_and_does_not_try_again() {
    let mut two = Two::direct();
    two.say(2, DirectMessage::Failed);
    assert_eq!(two.sent, [(1, FAILED), (2, FAILED)]);
    assert!(two.is_mixed());
    two.say(1, DirectMessage::Failed);
    two.say(1, DirectMessage::Able);
    assert_eq!(two.sent.len(), 2, "the same two do not try again");
    let mut slow = Two::new();
    slow.say(1, DirectMessage::Connected);
    slow.sent.clear();
    slow.now = slow.room.poll_timeout().expect("a try is over at some time");
    slow.handle(Input::Timeout);
    assert_eq!(slow.sent, [(1, FAILED), (2, FAILED)]);
}

#[test]
fn only_clients_that_support_it_go_direct_and_only_where_it_is_permitted() {
    let mut two = Two::new();
    two.sent.clear();
    let stranger = two.join();
    two.handle(Input::Left(ParticipantId(1), LeaveReason::Left));
    two.sent.clear();
    two.say(stranger.0, DirectMessage::Signal("x".into()));
    two.say(stranger.0, DirectMessage::Connected);
    two.say(99, DirectMessage::Able);
    assert_eq!(two.sent, [], "one of the two has not said that it can");
    two.room.settings.direct_for_two = false;
    two.say(stranger.0, DirectMessage::Able);
    assert_eq!(two.sent, []);
}
