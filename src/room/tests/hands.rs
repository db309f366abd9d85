//! Raised hands and reactions, and the chat of a room.

use super::*;
use crate::room::chat::{Addressees, ChatError, Group, Reader};
use crate::room::emoji::Emoji;
use crate::room::moderation::Changer;
use crate::time::WallTime;

const ANN: ParticipantId = ParticipantId(1);
const BEN: ParticipantId = ParticipantId(2);
const CEM: ParticipantId = ParticipantId(3);

/// Ann, Ben and the moderator Cem.
fn three() -> Driven {
    let mut driven = Driven::new(9);
    for name in ["Ann", "Ben"] {
        driven.join(person(name));
    }
    driven.join(Admission { role: Role::Moderator, ..person("Cem") });
    driven.effects.clear();
    driven
}

impl Driven {
    fn hand(&mut self, who: ParticipantId, raised: bool) {
        self.room.set_wall(WallTime::from_unix_micros(self.now * 1_000));
        self.handle(Input::Update(
            Changer::Itself,
            who,
            ParticipantPatch { hand_raised: Some(raised), ..Default::default() },
        ));
    }

    fn react(&mut self, who: ParticipantId, emoji: &str) {
        self.handle(Input::React(who, Emoji::new(emoji).expect("an emoji")));
    }

    /// The participants and dates of the events of hands.
    fn hands(&self) -> Vec<(ParticipantId, Option<String>)> {
        let hand = |event: &&Event| match event {
            Event::Hand { participant, raised_at } => Some((*participant, raised_at.map(|at| at.to_string()))),
            _ => None,
        };
        self.events().iter().filter_map(hand).collect()
    }

    fn reactions(&self) -> Vec<(ParticipantId, &str)> {
        let mut reactions = Vec::new();
        for effect in &self.effects {
            if let Effect::Event(_, Event::Reaction { participant, emoji }) = effect {
                reactions.push((*participant, emoji.as_str()));
            }
        }
        reactions
    }
}

#[test]
fn hands_are_a_queue_in_the_order_in_which_they_were_raised() {
    let mut driven = three();
    driven.now = 1_500;
    driven.hand(BEN, true);
    driven.now = 2_000;
    driven.hand(ANN, true);
    driven.hand(BEN, true);
    let document = driven.room.document();
    assert_eq!(document.hands, [BEN, ANN], "who has raised its hand keeps its turn");
    let raised: Vec<_> =
        document.participants.iter().map(|person| person.hand_raised_at.map(|at| at.to_string())).collect();
    let ben = Some("1970-01-01T00:00:01.500Z".to_owned());
    assert_eq!(raised, [Some("1970-01-01T00:00:02.000Z".to_owned()), ben.clone(), None]);
    assert_eq!(driven.hands().first(), Some(&(BEN, ben)));
    assert_eq!(driven.hands().len(), 2);
    let updated = driven.events().into_iter().any(|event| matches!(event, Event::Updated { .. }));
    assert!(!updated, "the event of the hand is enough");
    driven.effects.clear();
    driven.hand(BEN, false);
    assert_eq!(driven.hands(), [(BEN, None)]);
    assert_eq!(driven.room.document().hands, [ANN]);
    driven.hand(BEN, true);
    assert_eq!(driven.room.document().hands, [ANN, BEN], "at the end of the queue");
    driven.handle(Input::Left(ANN, LeaveReason::Left));
    assert_eq!(driven.room.document().hands, [BEN]);
    driven.hand(ParticipantId(9), true);
    assert_eq!(driven.room.document().hands, [BEN], "nobody else's");
}

#[test]
fn a_hand_that_is_raised_in_every_request_causes_few_events_and_the_last_state_is_sent() {
    let mut driven = three();
    driven.now = 1_000;
    for n in 0..400 {
        driven.hand(BEN, n % 2 == 0);
        driven.pass(5);
    }
    driven.hand(ANN, true);
    driven.pass(2_000);
    let of = |who| driven.hands().into_iter().filter(|(id, _)| *id == who).collect::<Vec<_>>();
    assert!((5..=40).contains(&of(BEN).len()), "{} events of 400 requests", of(BEN).len());
    assert_eq!((of(BEN).last().map(|(_, at)| at.is_some()), of(ANN).len()), (Some(false), 1));
    assert_eq!(driven.room.document().hands, [ANN]);
}

#[test]
fn tiles_show_the_hand_while_it_is_raised_and_a_reaction_for_three_seconds() {
    let mut driven = three();
    let signs = |driven: &Driven| -> Vec<(bool, Option<String>)> {
        driven.scene().tiles.iter().map(|tile| (tile.hand_raised, tile.reaction.clone())).collect()
    };
    driven.hand(BEN, true);
    let nothing = (false, None);
    assert_eq!(signs(&driven), [nothing.clone(), (true, None), nothing.clone()]);
    driven.react(CEM, "❤");
    let heart = Some("❤\u{fe0f}".to_owned());
    assert_eq!(signs(&driven), [nothing.clone(), (true, None), (false, heart.clone())]);
    assert_eq!(driven.reactions(), [(CEM, "❤\u{fe0f}")]);
    driven.effects.clear();
    driven.pass(2_900);
    assert!(!driven.effects.iter().any(|e| matches!(e, Effect::Order(Order::Scene(_)))), "nothing changes");
    driven.pass(200);
    assert_eq!(signs(&driven), [nothing.clone(), (true, None), nothing]);
    assert_eq!(driven.events(), Vec::<&Event>::new(), "the end of a reaction is no event");
    let document = serde_json::to_string(&driven.room.document()).expect("JSON");
    assert!(!document.contains('❤'), "a reaction is not kept");
}

#[test]
fn many_reactions_of_one_participant_are_few_events_and_the_last_one_is_sent() {
    let mut driven = three();
    for n in 0..200 {
        driven.react(ANN, if n % 2 == 0 { "👏" } else { "🎉" });
        driven.pass(10);
    }
    driven.react(ANN, "😀");
    driven.react(BEN, "👍");
    driven.pass(1_000);
    let of = |who| driven.reactions().into_iter().filter(|(id, _)| *id == who).collect::<Vec<_>>();
    assert!((6..=10).contains(&of(ANN).len()), "{:?}", driven.reactions());
    assert_eq!((of(ANN).last(), of(BEN).len()), (Some(&(ANN, "😀")), 1));
    driven.effects.clear();
    driven.pass(10_000);
    assert_eq!(driven.reactions(), [], "nothing waits any more");
}

#[test]
fn changes_of_the_room_in_quick_succession_are_few_events_with_the_last_state() {
    let mut driven = three();
    driven.now = 1_000;
    for n in 0..100 {
        driven.handle(Input::Patch(RoomPatch { locked: Some(n % 2 == 0), ..RoomPatch::default() }));
        driven.pass(10);
    }
    driven.handle(Input::Patch(RoomPatch { locked: Some(true), ..RoomPatch::default() }));
    driven.pass(1_000);
    let rooms: Vec<bool> = driven
        .events()
        .iter()
        .filter_map(|e| if let Event::Room(room) = e { Some(room.locked) } else { None })
        .collect();
    assert!((4..=9).contains(&rooms.len()), "{} events", rooms.len());
    assert_eq!(rooms.last(), Some(&true));
}

#[test]
fn a_private_message_is_no_event_for_all_and_takes_no_version() {
    let mut driven = three();
    let version = driven.room.document().version;
    let say = |driven: &mut Driven, from, to| {
        let request = ChatRequest { text: "hello".into(), to };
        let sent = driven.room.chat(at(0), Sender::Participant(from), request);
        driven.drain();
        sent
    };
    let readers = |driven: &Driven| {
        driven.last(|e| if let Effect::Private(readers, _) = e { Some(readers.clone()) } else { None })
    };
    let to_ben = Some(Addressees::Participants([BEN].into()));
    assert_eq!(say(&mut driven, ANN, to_ben.clone()).expect("sent").id, 1);
    let told = readers(&driven).expect("an event");
    assert_eq!((told.participants, told.moderators), ([ANN, BEN].into(), false));
    say(&mut driven, BEN, Some(Addressees::Group(Group::Moderators))).expect("sent");
    let told = readers(&driven).expect("an event");
    assert_eq!((told.participants, told.moderators), ([BEN, CEM].into(), true));
    assert_eq!((driven.room.document().version, driven.events().len()), (version, 0));
    assert_eq!(say(&mut driven, ANN, None).expect("sent").id, 3);
    assert_eq!((driven.room.document().version, driven.events().len()), (version + 1, 1));
    let ids = |participant, is_moderator, after| -> Vec<u64> {
        let reader = Reader { participant: Some(participant), is_moderator };
        driven.room.chat_after(after, reader).iter().map(|message| message.id).collect()
    };
    assert_eq!((ids(ANN, false, 0), ids(BEN, false, 0), ids(CEM, true, 0)), (vec![1, 3], vec![1, 2, 3], vec![2, 3]));
    assert_eq!(ids(BEN, false, 2), [3]);
    let absent = ParticipantId(7);
    let to = |to: &[ParticipantId]| Some(Addressees::Participants(to.iter().copied().collect()));
    assert_eq!(say(&mut driven, ANN, to(&[BEN, absent])), Err(ChatError::NoParticipant(absent)));
    assert_eq!(say(&mut driven, absent, None), Err(ChatError::NoParticipant(absent)));
    let many: Vec<_> = (1..60).map(ParticipantId).collect();
    for wrong in [to(&[]), to(&many)] {
        assert!(matches!(say(&mut driven, ANN, wrong), Err(ChatError::Invalid(why)) if why.contains("1 to 50")));
    }
}
