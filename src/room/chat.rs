//! Chat: messages to everyone, to the moderators or to single participants, and the latest ones for those who come.
//!
//! Owns: [`ChatMessage`] and who may read it, the bounded history, ids. Does not know: roles of callers, rates, HTTP. In:
//! a [`ChatRequest`] of a [`Sender`], and the date; out: events, and the history as one reader sees it. A message to
//! everyone is an event with a version. A private message has none, because the other readers would miss it.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::document::{Event, Role};
use super::{Effect, Room};
use crate::id::ParticipantId;
use crate::time::{Timestamp, WallTime};

/// Longest text of a message, in characters.
pub const CHAT_MAX: usize = 2_000;
/// Most addressees of a private message.
pub const ADDRESSEES_MAX: usize = 50;

/// A message to send.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// The text.
    pub text: String,
    /// The addressees; None for everyone.
    #[serde(default)]
    pub to: Option<Addressees>,
}

/// The addressees of a private message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`to` must be a list of participants as [\"p1\"], or \"moderators\"")]
pub enum Addressees {
    /// A group.
    Group(Group),
    /// These participants.
    Participants(BTreeSet<ParticipantId>),
}

/// A group of addressees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// All moderators, also those that come later.
    Moderators,
}

/// Who sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A participant.
    Participant(ParticipantId),
    /// A program without a session, by the name in its token.
    Program(String),
}

/// Who reads of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reader {
    /// Its participant; None for a reader without a session.
    pub participant: Option<ParticipantId>,
    /// It has the role of a moderator.
    pub is_moderator: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    /// Its number; later messages have larger ones.
    pub id: u64,
    /// When it was sent.
    pub at: WallTime,
    /// The sender; None for a program without a session.
    pub participant: Option<ParticipantId>,
    /// The sender's name.
    pub name: String,
    /// The text.
    pub text: String,
    /// The addressees; absent for everyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Addressees>,
}

impl ChatMessage {
    /// Whether a reader may read it.
    pub fn is_for(&self, reader: Reader) -> bool {
        let is_sender = || reader.participant.is_some() && reader.participant == self.participant;
        match &self.to {
            None => true,
            Some(Addressees::Group(Group::Moderators)) => reader.is_moderator || is_sender(),
            Some(Addressees::Participants(to)) => reader.participant.is_some_and(|id| to.contains(&id)) || is_sender(),
        }
    }
}

/// The readers of an event that is not for everyone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers {
    /// These participants.
    pub participants: BTreeSet<ParticipantId>,
    /// And all readers with the role of a moderator.
    pub moderators: bool,
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The text or the addressees.
    #[error("{0}")]
    Invalid(String),
    /// Only moderators may write to others.
    #[error("only moderators may write in this room; a message to \"moderators\" is always possible")]
    NotAllowed,
    /// The sender or an addressee is not there.
    #[error("there is no participant `{0}` in this room")]
    NoParticipant(ParticipantId),
}

/// The chat of a room.
#[derive(Debug)]
pub(super) struct Chat {
    latest: VecDeque<ChatMessage>,
    /// Most messages of `latest`.
    most: usize,
    /// Number of messages so far.
    count: u64,
}

impl Chat {
    /// No messages. The latest `most` will be kept.
    pub(super) const fn new(most: usize) -> Self {
        Self { latest: VecDeque::new(), most, count: 0 }
    }

    /// Gives a message its number, and keeps it.
    fn add(&mut self, message: ChatMessage) -> ChatMessage {
        self.count += 1;
        let message = ChatMessage { id: self.count, ..message };
        if self.most > 0 {
            if self.latest.len() == self.most {
                self.latest.pop_front();
            }
            self.latest.push_back(message.clone());
        }
        message
    }

    /// The kept messages with larger numbers that a reader may read.
    fn after(&self, id: u64, reader: Reader) -> Vec<ChatMessage> {
        self.latest.iter().filter(|message| message.id > id && message.is_for(reader)).cloned().collect()
    }
}

/// A text without control characters but tabs and ends of lines.
fn clean(text: &str) -> Result<String, ChatError> {
    if text.chars().count() > CHAT_MAX {
        return Err(ChatError::Invalid(format!("`text` has more than {CHAT_MAX} characters: send it in parts")));
    }
    let text = text.replace("\r\n", "\n");
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let text = text.trim();
    if text.is_empty() {
        return Err(ChatError::Invalid(format!("`text` must have 1 to {CHAT_MAX} characters that are not all spaces")));
    }
    Ok(text.to_owned())
}

impl Room {
    /// Sends a message; returns it.
    ///
    /// # Errors
    /// See [`ChatError`].
    pub fn chat(&mut self, now: Timestamp, from: Sender, request: ChatRequest) -> Result<ChatMessage, ChatError> {
        self.now = now;
        let text = clean(&request.text)?;
        let (participant, name) = match from {
            Sender::Participant(id) => {
                let known = self.people.get(&id).filter(|person| person.connected);
                let person = known.ok_or(ChatError::NoParticipant(id))?;
                if !self.may_chat(id) && request.to != Some(Addressees::Group(Group::Moderators)) {
                    return Err(ChatError::NotAllowed);
                }
                (Some(id), person.shown_name(id))
            }
            Sender::Program(name) => (None, super::name::clean(&name)),
        };
        let readers = request.to.as_ref().map(|to| self.readers(to, participant)).transpose()?;
        let message = ChatMessage { id: 0, at: self.wall, participant, name, text, to: request.to };
        let message = self.chat.add(message);
        let event = Event::Chat(message.clone());
        match readers {
            None => self.emit(|_| event),
            Some(readers) => self.effects.push_back(Effect::Private(readers, event)),
        }
        Ok(message)
    }

    /// The latest messages after one, as a reader may read them.
    pub fn chat_after(&self, id: u64, reader: Reader) -> Vec<ChatMessage> {
        self.chat.after(id, reader)
    }

    /// The addressees and the sender.
    fn readers(&self, to: &Addressees, from: Option<ParticipantId>) -> Result<Readers, ChatError> {
        let is_here = |id: &ParticipantId| self.people.get(id).is_some_and(|person| person.connected);
        let mut readers = match to {
            Addressees::Participants(to) if to.is_empty() || to.len() > ADDRESSEES_MAX => {
                let range = format!("`to` must name 1 to {ADDRESSEES_MAX} participants; omit it to write to everyone");
                return Err(ChatError::Invalid(range));
            }
            Addressees::Participants(to) => match to.iter().find(|id| !is_here(id)) {
                Some(absent) => return Err(ChatError::NoParticipant(*absent)),
                None => Readers { participants: to.clone(), moderators: false },
            },
            Addressees::Group(Group::Moderators) => self.moderators(),
        };
        readers.participants.extend(from);
        Ok(readers)
    }

    /// The moderators of the room, as readers.
    pub(super) fn moderators(&self) -> Readers {
        let moderators = self.people.iter().filter(|(_, person)| person.connected && person.role >= Role::Moderator);
        Readers { participants: moderators.map(|(id, _)| *id).collect(), moderators: true }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P1: ParticipantId = ParticipantId(1);
    const P2: ParticipantId = ParticipantId(2);
    const P3: ParticipantId = ParticipantId(3);

    fn message(to: Option<Addressees>) -> ChatMessage {
        let (at, text) = (WallTime::default(), "hello".to_owned());
        ChatMessage { id: 0, at, participant: Some(P1), name: "Ann".into(), text, to }
    }

    #[test]
    fn private_messages_are_read_by_their_sender_and_addressees_only() {
        let reader = |participant, is_moderator| Reader { participant, is_moderator };
        let readers = [
            reader(Some(P1), false),
            reader(Some(P2), false),
            reader(Some(P3), true),
            reader(None, false),
            reader(None, true),
        ];
        let moderators = Some(Addressees::Group(Group::Moderators));
        let ben = Some(Addressees::Participants([P2].into()));
        for (to, read) in [
            (None, [true; 5]),
            (moderators.clone(), [true, false, true, false, true]),
            (ben.clone(), [true, true, false, false, false]),
        ] {
            let message = message(to);
            assert_eq!(readers.map(|reader| message.is_for(reader)), read, "{message:?}");
        }
        let of_program = |to| ChatMessage { participant: None, ..message(to) };
        assert_eq!(readers.map(|r| of_program(ben.clone()).is_for(r)), [false, true, false, false, false]);
        assert_eq!(readers.map(|r| of_program(moderators.clone()).is_for(r)), [false, false, true, false, true]);
    }

    #[test]
    fn requests_are_read_strictly() {
        let read = |json: &str| serde_json::from_str::<ChatRequest>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"text":"x"}"#).expect("valid").to, None);
        assert_eq!(
            read(r#"{"text":"x","to":"moderators"}"#).expect("valid").to,
            Some(Addressees::Group(Group::Moderators))
        );
        let to = read(r#"{"text":"x","to":["p2","p2"]}"#).expect("valid").to;
        assert_eq!(to, Some(Addressees::Participants([P2].into())));
        for json in [r#"{"text":"x","to":"p2"}"#, r#"{"text":"x","to":["x"]}"#, r#"{"text":"x","to":7}"#] {
            assert!(read(json).expect_err(json).contains("moderators"), "{json}");
        }
        assert!(read(r#"{"text":"x","too":[]}"#).is_err());
    }

    #[test]
    fn texts_are_cleaned_or_refused() {
        assert_eq!(clean(" a\u{7}\r\nb\tc\u{0} "), Ok("a\nb\tc".to_owned()));
        assert_eq!(clean(&"é".repeat(CHAT_MAX)).map(|text| text.chars().count()), Ok(CHAT_MAX));
        for text in ["", " \n ", "\u{0}", &"x".repeat(CHAT_MAX + 1)] {
            assert!(clean(text).is_err(), "{} characters", text.len());
        }
    }

    proptest! {
        #[test]
        fn the_history_is_bounded_and_in_order(most in 0_usize..6, sent in 0_usize..20, after in 0_u64..20) {
            let mut chat = Chat::new(most);
            for _ in 0..sent {
                chat.add(message(None));
            }
            let all = Reader { participant: None, is_moderator: false };
            let ids: Vec<u64> = chat.after(after, all).iter().map(|message| message.id).collect();
            let first = (sent.saturating_sub(most) as u64).max(after) + 1;
            prop_assert_eq!(ids, (first..=sent as u64).collect::<Vec<_>>());
        }
    }
}
