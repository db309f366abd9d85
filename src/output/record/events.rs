//! Events in the room while it is recorded, for the sidecars.
//!
//! Owns: [`RoomState`], the current participants, layout and speaker; [`EventLog`], the events since a file began. Does
//! not know: files, clocks. In: [`Note`]s. Out: the lists of a [`Sidecar`]. Lists are bounded in
//! entries and bytes; omitted entries are counted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::ParticipantId;
use crate::link::output::{Caption, Note};
use crate::link::sidecar::{Shown, Sidecar, Speech, Spoken, Stay, Tile, Words};
use crate::media::Size;
use crate::time::Timestamp;

/// Most entries of each list of a sidecar.
const MAX_ENTRIES: usize = 5_000;
/// Most bytes of each list, as JSON: all lists together stay below the size that the library reads.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Indentation of each line of an entry in the document.
const INDENTATION: usize = 4;

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
    participants: List<Stay>,
    layouts: List<Shown>,
    speakers: List<Speech>,
    chat: List<Words>,
    captions: List<Spoken>,
    left_out: u64,
}

/// A bounded list.
#[derive(Debug, Clone, PartialEq)]
struct List<T> {
    entries: Vec<T>,
    /// Size as JSON.
    bytes: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), bytes: 0 }
    }
}

impl<T: Serialize> List<T> {
    fn of(entries: impl IntoIterator<Item = T>) -> Self {
        let mut list = Self::default();
        for entry in entries {
            list.put(entry);
        }
        list
    }

    /// Adds an entry; false if the list is full.
    fn put(&mut self, entry: T) -> bool {
        let json = serde_json::to_string_pretty(&entry).unwrap_or_default();
        let bytes = json.len() + (INDENTATION + 1) * json.lines().count();
        let fits = self.entries.len() < MAX_ENTRIES && self.bytes + bytes <= MAX_BYTES;
        if fits {
            self.bytes += bytes;
            self.entries.push(entry);
        }
        fits
    }
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
            participants: List::of(self.participants.iter().map(stay)),
            layouts: List::of(layout),
            speakers: List::of([Speech { at: 0.0, participant: self.speaker }]),
            ..EventLog::default()
        }
    }
}

impl EventLog {
    /// Adds an event at this time.
    pub(super) fn record(&mut self, at: Timestamp, note: &Note) {
        let at = at.since(self.start).as_secs_f64();
        let recorded = match note {
            Note::Here { participant, name } => {
                let present = self
                    .participants
                    .entries
                    .iter_mut()
                    .find(|stay| stay.participant == *participant && stay.to.is_none());
                if let Some(stay) = present {
                    stay.name.clone_from(name);
                    return;
                }
                self.participants.put(Stay { participant: *participant, name: name.clone(), from: at, to: None })
            }
            Note::Gone(participant) => {
                let present = self
                    .participants
                    .entries
                    .iter_mut()
                    .find(|stay| stay.participant == *participant && stay.to.is_none());
                if let Some(stay) = present {
                    stay.to = Some(at);
                }
                true
            }
            Note::Speaker(participant) => {
                if self.speakers.entries.last().is_some_and(|last| last.participant == *participant) {
                    return;
                }
                self.speakers.put(Speech { at, participant: *participant })
            }
            Note::Layout { canvas, tiles } => {
                let tile = |&(participant, source, rect)| Tile { participant, source, rect };
                self.layouts.put(Shown { at, canvas: *canvas, tiles: tiles.iter().map(tile).collect() })
            }
            Note::Chat { participant, name, text } => {
                let words = Words { at, participant: *participant, name: name.clone(), text: text.clone() };
                self.chat.put(words)
            }
            Note::Caption(Caption { participant, name, text, language }) => {
                let (name, text, language) = (name.clone(), text.clone(), language.clone());
                self.captions.put(Spoken { at, participant: *participant, name, text, language })
            }
        };
        self.left_out += u64::from(!recorded);
    }

    /// Copies the lists into the sidecar.
    pub(super) fn fill(&self, sidecar: &mut Sidecar) {
        sidecar.people.clone_from(&self.participants.entries);
        sidecar.layouts.clone_from(&self.layouts.entries);
        sidecar.speakers.clone_from(&self.speakers.entries);
        sidecar.chat.clone_from(&self.chat.entries);
        sidecar.captions.clone_from(&self.captions.entries);
        sidecar.left_out = self.left_out;
    }
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
            .entries
            .iter()
            .map(|stay| (stay.participant.0, stay.name.as_str(), stay.from, stay.to))
            .collect();
        assert_eq!(stays, [(1, "Ann", 0.0, None), (3, "Cem", 1.0, Some(4.0)), (3, "Cem", 5.0, None)]);
        let speakers: Vec<(f64, Option<u32>)> =
            events.speakers.entries.iter().map(|speech| (speech.at, speech.participant.map(|id| id.0))).collect();
        assert_eq!(speakers, [(0.0, Some(1)), (3.0, None)]);
        assert_eq!(events.layouts.entries.len(), 1);
        assert_eq!(
            room_state.start_log(START).participants.entries.len(),
            2,
            "the next log has the present participants"
        );
    }

    #[test]
    fn entries_beyond_the_limit_are_counted() {
        let mut events = RoomState::default().start_log(START);
        let chat = |text: String| Note::Chat { participant: None, name: String::new(), text };
        for i in 0..MAX_ENTRIES + 3 {
            events.record(START, &chat(i.to_string()));
        }
        assert_eq!((events.chat.entries.len(), events.left_out), (MAX_ENTRIES, 3));
    }

    #[test]
    fn the_largest_lists_are_small_enough_to_be_read() {
        let mut events = RoomState::default().start_log(START);
        let rect = Rect { x: 1_000, y: 1_000, width: 1_000, height: 1_000 };
        let tiles = (0..49).map(|id| (ParticipantId(id), SourceKind::Microphone, rect)).collect::<Vec<_>>();
        let (name, text) = ("\"".repeat(64), "\"🎉".repeat(1_000));
        for _ in 0..1_000 {
            let (name, text) = (name.clone(), text.clone());
            events.record(START, &Note::Layout { canvas: Size::new(1280, 720), tiles: tiles.clone() });
            events.record(START, &Note::Chat { participant: None, name: name.clone(), text: text.clone() });
            let caption = Caption { participant: ParticipantId(1), name, text, language: None };
            events.record(START, &Note::Caption(caption));
        }
        assert!(events.left_out > 0);
        for document in [
            serde_json::json!({ "layouts": events.layouts.entries }),
            serde_json::json!({ "chat": events.chat.entries }),
            serde_json::json!({ "captions": events.captions.entries }),
        ] {
            let bytes = serde_json::to_string_pretty(&document).expect("JSON").len();
            assert!((MAX_BYTES / 2..=MAX_BYTES + 100).contains(&bytes), "{bytes}");
        }
    }
}
