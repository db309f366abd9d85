//! What happens in the room while files of it are written.
//!
//! Owns: [`Diary`]: how the room is now, and what has happened since each file began. Does not know: files, clocks.
//! Lists are bounded; what is left out is counted.

use std::collections::BTreeMap;

use crate::id::ParticipantId;
use crate::link::output::Note;
use crate::link::sidecar::{Shown, Sidecar, Speech, Stay, Tile, Words};
use crate::media::Size;
use crate::time::Timestamp;

/// Entries of each list in one file.
const MOST: usize = 5_000;

/// How the room is.
#[derive(Debug, Default)]
pub(super) struct Diary {
    people: BTreeMap<ParticipantId, String>,
    shown: Option<(Size, Vec<Tile>)>,
    speaker: Option<ParticipantId>,
}

/// What has happened since a file began.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pages {
    start: Timestamp,
    people: Vec<Stay>,
    layouts: Vec<Shown>,
    speakers: Vec<Speech>,
    chat: Vec<Words>,
    left_out: u64,
}

impl Diary {
    /// Takes in what happened.
    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Here { participant, name } => {
                self.people.insert(*participant, name.clone());
            }
            Note::Gone(participant) => {
                self.people.remove(participant);
            }
            Note::Speaker(speaker) => self.speaker = *speaker,
            Note::Layout { canvas, tiles } => {
                let tile = |&(participant, source, rect)| Tile { participant, source, rect };
                self.shown = Some((*canvas, tiles.iter().map(tile).collect()));
            }
            Note::Chat { .. } => {}
        }
    }

    /// The name of somebody who is here.
    pub(super) fn name(&self, participant: ParticipantId) -> Option<&str> {
        self.people.get(&participant).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The pages of a file that begins now.
    pub(super) fn open(&self, start: Timestamp) -> Pages {
        let stay = |(participant, name): (&_, &String)| Stay {
            participant: *participant,
            name: name.clone(),
            from: 0.0,
            to: None,
        };
        let shown = self.shown.clone().map(|(canvas, tiles)| Shown { at: 0.0, canvas, tiles });
        Pages {
            start,
            people: self.people.iter().map(stay).collect(),
            layouts: shown.into_iter().collect(),
            speakers: vec![Speech { at: 0.0, participant: self.speaker }],
            chat: Vec::new(),
            left_out: 0,
        }
    }
}

impl Pages {
    /// Writes down what happened at this time.
    pub(super) fn note(&mut self, at: Timestamp, note: &Note) {
        let at = at.since(self.start).as_secs_f64();
        let written = match note {
            Note::Here { participant, name } => {
                let here = self.people.iter_mut().find(|stay| stay.participant == *participant && stay.to.is_none());
                if let Some(stay) = here {
                    stay.name.clone_from(name);
                    return;
                }
                put(&mut self.people, Stay { participant: *participant, name: name.clone(), from: at, to: None })
            }
            Note::Gone(participant) => {
                let here = self.people.iter_mut().find(|stay| stay.participant == *participant && stay.to.is_none());
                if let Some(stay) = here {
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
        };
        self.left_out += u64::from(!written);
    }

    /// Copies all of it beside the file.
    pub(super) fn fill(&self, sidecar: &mut Sidecar) {
        sidecar.people.clone_from(&self.people);
        sidecar.layouts.clone_from(&self.layouts);
        sidecar.speakers.clone_from(&self.speakers);
        sidecar.chat.clone_from(&self.chat);
        sidecar.left_out = self.left_out;
    }
}

fn put<T>(list: &mut Vec<T>, entry: T) -> bool {
    let fits = list.len() < MOST;
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

    fn here(id: u32, name: &str) -> Note {
        Note::Here { participant: ParticipantId(id), name: name.into() }
    }

    #[test]
    fn who_was_there_before_is_there_from_the_beginning() {
        let mut diary = Diary::default();
        let rect = Rect { x: 0, y: 0, width: 640, height: 360 };
        let layout = |tiles| Note::Layout { canvas: Size::new(640, 360), tiles };
        let before = [
            here(1, "Ann"),
            here(2, "Bob"),
            Note::Gone(ParticipantId(2)),
            Note::Speaker(Some(ParticipantId(1))),
            layout(vec![(ParticipantId(1), SourceKind::Camera, rect)]),
        ];
        before.iter().for_each(|note| diary.note(note));
        let mut pages = diary.open(START);
        let happens = [
            (1.0, here(3, "")),
            (2.0, here(3, "Cem")),
            (2.5, Note::Speaker(Some(ParticipantId(1)))),
            (3.0, Note::Speaker(None)),
            (4.0, Note::Gone(ParticipantId(3))),
            (5.0, here(3, "Cem")),
        ];
        for (at, note) in happens {
            diary.note(&note);
            pages.note(START + Duration::from_secs_f64(at), &note);
        }
        let stays: Vec<(u32, &str, f64, Option<f64>)> =
            pages.people.iter().map(|stay| (stay.participant.0, stay.name.as_str(), stay.from, stay.to)).collect();
        assert_eq!(stays, [(1, "Ann", 0.0, None), (3, "Cem", 1.0, Some(4.0)), (3, "Cem", 5.0, None)]);
        let speakers: Vec<(f64, Option<u32>)> =
            pages.speakers.iter().map(|speech| (speech.at, speech.participant.map(|id| id.0))).collect();
        assert_eq!(speakers, [(0.0, Some(1)), (3.0, None)]);
        assert_eq!(pages.layouts.len(), 1);
        assert_eq!(diary.open(START).people.len(), 2, "the next file knows who is here");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut pages = Diary::default().open(START);
        let chat = |text: String| Note::Chat { participant: None, name: String::new(), text };
        for i in 0..MOST + 3 {
            pages.note(START, &chat(i.to_string()));
        }
        assert_eq!((pages.chat.len(), pages.left_out), (MOST, 3));
    }
}
