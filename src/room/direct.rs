//! Direct calls: the only two participants of a room send media to each other without the mixer.
//!
//! Owns: when a direct call is possible, its state, the timeout of an attempt. Does not know: how clients connect;
//! their signalling is passed on unchanged. In: [`DirectMessage`]; out: [`DirectEvent`]. Media goes through the mixer
//! until both clients report that the other's media arrives, and again as soon as a third participant joins, an output
//! starts, or the path fails.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{Effect, Room};
use crate::id::ParticipantId;
use crate::media::SourceKind;
use crate::time::Timestamp;

/// Longest time to establish a direct path.
const TRY: Duration = Duration::from_secs(10);

type Pair = [ParticipantId; 2];

/// A client's message about a direct call.
#[derive(Debug, Clone, PartialEq)]
pub enum DirectMessage {
    /// The client supports direct calls.
    Able,
    /// Signalling for the other client.
    Signal(Value),
    /// The other client's media arrives.
    Connected,
    /// The direct path cannot be established or has failed.
    Failed,
}

/// An event of a direct call for one client.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DirectEvent {
    /// Connect to the other client; media still goes through the mixer.
    Begin {
        /// The other participant.
        peer: ParticipantId,
        /// Whether this client makes the offer.
        offers: bool,
    },
    /// Signalling from the other client.
    Signal {
        /// The other participant.
        from: ParticipantId,
        /// The signalling, unchanged.
        signal: Value,
    },
    /// Both clients are connected: stop sending to the mixer.
    On,
    /// The direct call has ended: send to the mixer again.
    End {
        /// The reason.
        reason: DirectEnd,
    },
}

/// Why a direct call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectEnd {
    /// A third participant has joined, one of the two has left, or an output runs.
    Company,
    /// The direct path cannot be established or has failed.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The clients are connecting; `arrived`: which of them receives media.
    Trying { pair: Pair, until: Timestamp, arrived: [bool; 2] },
    /// Both clients receive the other's media.
    Established { pair: Pair },
}

impl Path {
    const fn pair(self) -> Pair {
        match self {
            Self::Trying { pair, .. } | Self::Established { pair } => pair,
        }
    }
}

/// The state of direct calls in a room.
#[derive(Debug, Default)]
pub(super) struct Direct {
    able: BTreeSet<ParticipantId>,
    path: Option<Path>,
    /// The pair whose attempt has failed: it does not try again.
    failed: Option<Pair>,
}

impl Direct {
    /// When the attempt times out.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        match self.path? {
            Path::Trying { until, .. } => Some(until),
            Path::Established { .. } => None,
        }
    }

    /// Whether this participant's media goes directly to the other one.
    pub(super) fn has(&self, participant: ParticipantId) -> bool {
        matches!(self.path, Some(Path::Established { pair }) if pair.contains(&participant))
    }

    /// Whether there is a direct call or an attempt.
    pub(super) fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    /// Forgets a participant that has left.
    pub(super) fn forget(&mut self, participant: ParticipantId) {
        self.able.remove(&participant);
    }
}

impl Room {
    /// Takes a client's message about a direct call.
    pub(super) fn direct_news(&mut self, participant: ParticipantId, news: DirectMessage) {
        let path = self.direct.path.filter(|path| path.pair().contains(&participant));
        match (news, path) {
            (DirectMessage::Able, _) => {
                if self.people.contains_key(&participant) {
                    self.direct.able.insert(participant);
                }
            }
            (DirectMessage::Signal(signal), Some(path)) => {
                let event = DirectEvent::Signal { from: participant, signal };
                self.effects.push_back(Effect::Tell(other(path.pair(), participant), event));
            }
            (DirectMessage::Connected, Some(Path::Trying { pair, until, mut arrived })) => {
                arrived[usize::from(pair[1] == participant)] = true;
                self.direct.path = Some(Path::Trying { pair, until, arrived });
                if arrived == [true, true] {
                    self.direct.path = Some(Path::Established { pair });
                    self.effects.extend(pair.map(|one| Effect::Tell(one, DirectEvent::On)));
                }
            }
            (DirectMessage::Failed, Some(path)) => {
                self.direct.failed = Some(path.pair());
                self.end_direct(DirectEnd::Failed);
            }
            // Late messages about a call that has ended.
            (DirectMessage::Signal(_) | DirectMessage::Connected | DirectMessage::Failed, _) => {}
        }
        self.refresh();
    }

    /// Ends an attempt that has timed out.
    pub(super) fn direct_timeout(&mut self, now: Timestamp) {
        if let Some(Path::Trying { pair, until, .. }) = self.direct.path
            && now >= until
        {
            self.direct.failed = Some(pair);
            self.end_direct(DirectEnd::Failed);
            self.refresh();
        }
    }

    /// Starts or ends a direct call according to the room's state.
    pub(super) fn follow_direct(&mut self) {
        let pair = self.pair();
        if self.direct.path.is_some_and(|path| Some(path.pair()) != pair) {
            self.end_direct(DirectEnd::Company);
        }
        if self.direct.failed != pair {
            self.direct.failed = None;
        }
        if let Some([first, second]) = pair.filter(|_| self.direct.path.is_none() && self.direct.failed.is_none()) {
            let until = self.now + TRY;
            self.direct.path = Some(Path::Trying { pair: [first, second], until, arrived: [false; 2] });
            let begin = |peer, offers| DirectEvent::Begin { peer, offers };
            self.effects.push_back(Effect::Tell(first, begin(second, true)));
            self.effects.push_back(Effect::Tell(second, begin(first, false)));
        }
        for (participant, person) in &mut self.people {
            person.direct = self.direct.has(*participant);
        }
    }

    fn end_direct(&mut self, reason: DirectEnd) {
        let Some(path) = self.direct.path.take() else { return };
        let here = path.pair().into_iter().filter(|one| self.people.contains_key(one));
        self.effects.extend(here.map(|one| Effect::Tell(one, DirectEvent::End { reason })));
    }

    /// The pair for a direct call: there are no others, not even connecting, and no output runs.
    fn pair(&self) -> Option<Pair> {
        let mut people = self.people.iter();
        let (Some((first, one)), Some((second, two)), None) = (people.next(), people.next(), people.next()) else {
            return None;
        };
        let talks = |person: &super::Person| {
            let kinds = || person.sources.iter().map(|source| source.kind);
            person.connected
                && kinds().count() > 0
                && kinds().all(|kind| kind != SourceKind::Screen)
                && (person.receives_audio.is_some() || person.receives_video.is_some())
        };
        let able = [*first, *second].iter().all(|one| self.direct.able.contains(one));
        let free = self.settings.direct_for_two && !self.outputs.are_running();
        (free && able && talks(one) && talks(two)).then_some([*first, *second])
    }
}

fn other(pair: Pair, one: ParticipantId) -> ParticipantId {
    if pair[0] == one { pair[1] } else { pair[0] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OutputId;
    use crate::layout::Layout;
    use crate::media::{Codec, FileFormat, Size, SoundTaken};
    use crate::room::document::{LeaveReason, RecordingKind, Role, TierChoice};
    use crate::room::outputs::{OutputEvent, OutputKind, OutputWish};
    use crate::room::tests::Subscribers;
    use crate::room::{Admission, Input, Order, RoomSettings, Route};
    use crate::tier::Ladder;

    struct Two {
        room: Room,
        subscribers: Subscribers,
        now: Timestamp,
        told: Vec<(u32, DirectEvent)>,
        routes: Vec<Route>,
        streams: usize,
    }

    impl Two {
        /// Two participants that support direct calls, in a room that permits them.
        fn new() -> Self {
            let settings = RoomSettings {
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
            };
            let now = Timestamp::from_micros(1_000_000);
            let mut two = Self {
                room: Room::new(settings, now),
                subscribers: Subscribers::default(),
                now,
                told: Vec::new(),
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
            };
            let admitted = self.room.admit(self.now, who).expect("let in");
            self.drain();
            admitted.participant
        }

        fn say(&mut self, participant: u32, news: DirectMessage) {
            self.handle(Input::Direct(ParticipantId(participant), news));
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
                        Effect::Tell(participant, event) => self.told.push((participant.0, event)),
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
            two.told.clear();
            two
        }
    }

    const COMPANY: DirectEvent = DirectEvent::End { reason: DirectEnd::Company };
    const FAILED: DirectEvent = DirectEvent::End { reason: DirectEnd::Failed };

    #[test]
    fn a_pair_leaves_the_mixer_when_both_are_connected() {
        let mut two = Two::new();
        let begin = |peer, offers| DirectEvent::Begin { peer: ParticipantId(peer), offers };
        assert_eq!(two.told, [(1, begin(2, true)), (2, begin(1, false))]);
        two.told.clear();
        two.say(1, DirectMessage::Signal("offer".into()));
        assert_eq!(two.told, [(2, DirectEvent::Signal { from: ParticipantId(1), signal: "offer".into() })]);
        two.say(1, DirectMessage::Connected);
        assert!(two.is_mixed(), "one of them hears nothing yet");
        two.say(2, DirectMessage::Connected);
        assert_eq!(two.told[1..], [(1, DirectEvent::On), (2, DirectEvent::On)]);
        assert!(two.streams == 0 && two.routes.iter().all(|route| !route.audio && route.video.is_none()));
    }

    #[test]
    fn the_admission_of_a_third_participant_ends_a_direct_call() {
        let mut two = Two::direct();
        two.admit();
        assert_eq!(two.told, [(1, COMPANY), (2, COMPANY)]);
        assert!(two.is_mixed());
        two.told.clear();
        two.handle(Input::Left(ParticipantId(3), LeaveReason::Left));
        assert_eq!(two.told.len(), 2, "alone again, they begin again");
        two.told.clear();
        two.handle(Input::Left(ParticipantId(2), LeaveReason::Lost));
        assert_eq!(two.told, [(1, COMPANY)], "who is gone is told nothing");
    }

    #[test]
    fn a_recording_ends_a_direct_call() {
        let mut two = Two::direct();
        let wish = OutputWish {
            kind: OutputKind::Recording { kind: RecordingKind::View, format: FileFormat::Mp4 },
            streams: Vec::new(),
            sound: true,
        };
        let id: OutputId = two.room.add_output(two.now, wish).expect("room for one");
        two.drain();
        assert_eq!(two.told, [(1, COMPANY), (2, COMPANY)]);
        assert!(two.is_mixed());
        two.told.clear();
        two.handle(Input::Output(id, OutputEvent::Stop));
        two.handle(Input::Output(id, OutputEvent::Ended(None)));
        assert_eq!(two.told.len(), 2, "they begin again when it is over");
    }

    #[test]
    fn a_pair_without_a_direct_path_stays_with_the_mixer_and_does_not_try_again() {
        let mut two = Two::direct();
        two.say(2, DirectMessage::Failed);
        assert_eq!(two.told, [(1, FAILED), (2, FAILED)]);
        assert!(two.is_mixed());
        two.say(1, DirectMessage::Failed);
        two.say(1, DirectMessage::Able);
        assert_eq!(two.told.len(), 2, "the same two do not try again");
        let mut slow = Two::new();
        slow.say(1, DirectMessage::Connected);
        slow.told.clear();
        slow.now = slow.room.poll_timeout().expect("a try is over at some time");
        slow.handle(Input::Timeout);
        assert_eq!(slow.told, [(1, FAILED), (2, FAILED)]);
    }

    #[test]
    fn only_clients_that_support_it_go_direct_and_only_where_it_is_permitted() {
        let mut two = Two::new();
        two.told.clear();
        let stranger = two.join();
        two.handle(Input::Left(ParticipantId(1), LeaveReason::Left));
        two.told.clear();
        two.say(stranger.0, DirectMessage::Signal("x".into()));
        two.say(stranger.0, DirectMessage::Connected);
        two.say(99, DirectMessage::Able);
        assert_eq!(two.told, [], "one of the two has not said that it can");
        two.room.settings.direct_for_two = false;
        two.say(stranger.0, DirectMessage::Able);
        assert_eq!(two.told, []);
    }
}
