//! Events in the room while it is recorded, for the sidecars.
//!
//! Owns: [`RoomState`], the current participants, layout and speaker; [`EventLog`], the events since a file began. Does
//! not know: files, clocks. In: [`Note`]s. Out: the lists of a [`Sidecar`]. Lists are bounded; omitted entries are
//! counted.

use std::collections::BTreeMap;

use crate::id::ParticipantId;
use crate::link::output::{Caption, Note};
use crate::link::sidecar::{Shown, Sidecar, Speech, Spoken, Stay, Tile, Words};
use crate::media::Size;
use crate::time::Timestamp;

/// Most entries of each list of a sidecar.
const MAX_ENTRIES: usize = 5_000;

/// Current state of the room.
#[derive(Debug, Default)]
pub(super) struct RoomState {
    participants: BTreeMap<ParticipantId, String>,
    layout: Option<(Size, Vec<Tile>)>,
    speaker: Option<ParticipantId>,
}

/// Events since a file began.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct EventLog {
    start: Timestamp,
    participants: Vec<Stay>,
    layouts: Vec<Shown>,
    speakers: Vec<Speech>,
    chat: Vec<Words>,
    captions: Vec<Spoken>,
    left_out: u64,
}

impl RoomState {
    /// Applies an event.
    pub(super) fn apply(&mut self, note: &Note) {
        match note {
            Note::Here { participant, name } => {
                self.participants.insert(*participant, name.clone());
            }
            Note::Gone(participant) => {
                self.participants.remove(participant);
            }
            Note::Speaker(speaker) => self.speaker = *speaker,
            Note::Layout { canvas, tiles } => {
                let tile = |&(participant, source, rect)| Tile { participant, source, rect };
                self.layout = Some((*canvas, tiles.iter().map(tile).collect()));
            }
            Note::Chat { .. } | Note::Caption(_) => {}
        }
    }

    /// The name of a present participant; None if empty or absent.
    pub(super) fn name(&self, participant: ParticipantId) -> Option<&str> {
        self.participants.get(&participant).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The event log of a file that begins at `start`, with the current state as first entries.
    pub(super) fn start_log(&self, start: Timestamp) -> EventLog {
        let stay = |(participant, name): (&_, &String)| Stay {
            participant: *participant,
            name: name.clone(),
            from: 0.0,
            to: None,
        };
        let layout = self.layout.clone().map(|(canvas, tiles)| Shown { at: 0.0, canvas, tiles });
        EventLog {
            start,
            participants: self.participants.iter().map(stay).collect(),
            layouts: layout.into_iter().collect(),
            speakers: vec![Speech { at: 0.0, participant: self.speaker }],
            chat: Vec::new(),
            captions: Vec::new(),
            left_out: 0,
        }
    }
}

impl EventLog {
    /// Adds an event at this time.
    pub(super) fn record(&mut self, at: Timestamp, note: &Note) {
        let at = at.since(self.start).as_secs_f64();
        let recorded = match note {
            Note::Here { participant, name } => {
                let present =
                    self.participants.iter_mut().find(|stay| stay.participant == *participant && stay.to.is_none());
                if let Some(stay) = present {
                    stay.name.clone_from(name);
                    return;
                }
                put(&mut self.participants, Stay { participant: *participant, name: name.clone(), from: at, to: None })
            }
            Note::Gone(participant) => {
                let present =
                    self.participants.iter_mut().find(|stay| stay.participant == *participant && stay.to.is_none());
                if let Some(stay) = present {
                    stay.to = Some(at);
                }
                true
            }
            Note::Speaker(participant) => {
                if self.speakers.last().is_some_and(|last| last.participant == *participant) {
                    return;
                }
                put(&mut self.speakers, Speech { at, participant: *participant })
            }
            Note::Layout { canvas, tiles } => {
                let tile = |&(participant, source, rect)| Tile { participant, source, rect };
                put(&mut self.layouts, Shown { at, canvas: *canvas, tiles: tiles.iter().map(tile).collect() })
            }
            Note::Chat { participant, name, text } => {
                let words = Words { at, participant: *participant, name: name.clone(), text: text.clone() };
                put(&mut self.chat, words)
            }
            Note::Caption(Caption { participant, name, text, language }) => {
                let (name, text, language) = (name.clone(), text.clone(), language.clone());
                put(&mut self.captions, Spoken { at, participant: *participant, name, text, language })
            }
        };
        self.left_out += u64::from(!recorded);
    }

    /// Copies the lists into the sidecar.
    pub(super) fn fill(&self, sidecar: &mut Sidecar) {
        sidecar.people.clone_from(&self.participants);
        sidecar.layouts.clone_from(&self.layouts);
        sidecar.speakers.clone_from(&self.speakers);
        sidecar.chat.clone_from(&self.chat);
        sidecar.captions.clone_from(&self.captions);
        sidecar.left_out = self.left_out;
    }
}

fn put<T>(list: &mut Vec<T>, entry: T) -> bool {
    let fits = list.len() < MAX_ENTRIES;
    if fits {
        list.push(entry);
    }
    fits
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::{Rect, SourceKind};

    const START: Timestamp = Timestamp::from_micros(7_000_000);

    fn present(id: u32, name: &str) -> Note {
        Note::Here { participant: ParticipantId(id), name: name.into() }
    }

    #[test]
    fn a_log_starts_with_the_current_state() {
        let mut room_state = RoomState::default();
        let rect = Rect { x: 0, y: 0, width: 640, height: 360 };
        let layout = |tiles| Note::Layout { canvas: Size::new(640, 360), tiles };
        let before = [
            present(1, "Ann"),
            present(2, "Bob"),
            Note::Gone(ParticipantId(2)),
            Note::Speaker(Some(ParticipantId(1))),
            layout(vec![(ParticipantId(1), SourceKind::Camera, rect)]),
        ];
        before.iter().for_each(|note| room_state.apply(note));
        let mut events = room_state.start_log(START);
        let happens = [
            (1.0, present(3, "")),
            (2.0, present(3, "Cem")),
            (2.5, Note::Speaker(Some(ParticipantId(1)))),
            (3.0, Note::Speaker(None)),
            (4.0, Note::Gone(ParticipantId(3))),
            (5.0, present(3, "Cem")),
        ];
        for (at, note) in happens {
            room_state.apply(&note);
            events.record(START + Duration::from_secs_f64(at), &note);
        }
        let stays: Vec<(u32, &str, f64, Option<f64>)> = events
            .participants
            .iter()
            .map(|stay| (stay.participant.0, stay.name.as_str(), stay.from, stay.to))
            .collect();
        assert_eq!(stays, [(1, "Ann", 0.0, None), (3, "Cem", 1.0, Some(4.0)), (3, "Cem", 5.0, None)]);
        let speakers: Vec<(f64, Option<u32>)> =
            events.speakers.iter().map(|speech| (speech.at, speech.participant.map(|id| id.0))).collect();
        assert_eq!(speakers, [(0.0, Some(1)), (3.0, None)]);
        assert_eq!(events.layouts.len(), 1);
        assert_eq!(room_state.start_log(START).participants.len(), 2, "the next log has the present participants");
    }

    #[test]
    fn entries_beyond_the_limit_are_counted() {
        let mut events = RoomState::default().start_log(START);
        let chat = |text: String| Note::Chat { participant: None, name: String::new(), text };
        for i in 0..MAX_ENTRIES + 3 {
            events.record(START, &chat(i.to_string()));
        }
        assert_eq!((events.chat.len(), events.left_out), (MAX_ENTRIES, 3));
    }
}
