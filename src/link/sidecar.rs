//! What stands beside each file of a recording, as JSON: who was there when, what was shown, who spoke, what was written.
//!
//! Owns: the document, and which places of a file are worth a chapter. Does not know: files; who writes and who reads it:
//! an output writes it while it records, the edge reads it to list recordings, and to mend what an output left behind.
//! Times are seconds from the file's beginning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::Chapter;
use crate::id::{OutputId, ParticipantId, RoomName};
use crate::media::{FileFormat, Rect, Size, SourceKind};

/// Somebody who is the main speaker for less is no chapter.
const SPEECH_MIN: f64 = 10.0;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// The file's name.
    pub file: String,
    /// The room.
    pub room: RoomName,
    /// The recording.
    pub recording: OutputId,
    /// Its number within the recording, from 0.
    pub part: u32,
    /// Its format.
    pub format: FileFormat,
    /// Where it is in its life.
    pub state: FileState,
    /// Why it ended, where nobody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began on the wall clock (RFC 3339).
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// When it began, in seconds since the room's epoch: files of one recording are laid side by side by it.
    pub offset: f64,
    /// How long it is, in seconds.
    pub duration: f64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// Whose packets it holds, where it is a file of separate tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
    /// Who was there.
    pub people: Vec<Stay>,
    /// What was shown.
    pub layouts: Vec<Shown>,
    /// Who was the one who spoke.
    pub speakers: Vec<Speech>,
    /// What was written.
    pub chat: Vec<Words>,
    /// So much more happened that the lists above leave out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// Where a file is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It grows, or whoever wrote it was killed.
    Recording,
    /// It is whole.
    Finished,
    /// It is whole, but ended early.
    Failed,
    /// It is whole, but whoever wrote it was killed, and the server finished it.
    Mended,
}

/// Somebody's presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stay {
    /// Who.
    pub participant: ParticipantId,
    /// By which name, at last.
    pub name: String,
    /// Since when; 0 for who was there before.
    pub from: f64,
    /// Until when; absent for who stayed to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
}

/// What was shown from a time on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// From when on.
    pub at: f64,
    /// The canvas in pixels.
    pub canvas: Size,
    /// Who stood where on it.
    pub tiles: Vec<Tile>,
}

/// A tile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tile {
    /// Whose it is.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub source: SourceKind,
    /// Where it is, in pixels of the canvas.
    #[serde(flatten)]
    pub rect: Rect,
}

/// Who spoke from a time on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speech {
    /// From when on.
    pub at: f64,
    /// Who; null for nobody.
    pub participant: Option<ParticipantId>,
}

/// A message of the chat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Words {
    /// When.
    pub at: f64,
    /// From whom.
    pub participant: Option<ParticipantId>,
    /// By which name.
    pub name: String,
    /// The words.
    pub text: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Sidecar {
    /// The file's chapters, in order: who joined, and whoever was the main speaker for ten seconds or more. None for a file
    /// in which neither happened. How long a file is that still grows nobody knows.
    pub fn chapters(&self) -> Vec<Chapter> {
        let end = if self.state == FileState::Recording { f64::INFINITY } else { self.duration };
        let joined = self.people.iter().filter(|stay| stay.from > 0.0);
        let mut places: Vec<(f64, String)> =
            joined.map(|stay| (stay.from, format!("{} joins", self.name(stay.participant)))).collect();
        let ends = self.speakers.iter().skip(1).map(|speech| speech.at).chain([end]);
        let long = self.speakers.iter().zip(ends).filter(|(speech, end)| end - speech.at >= SPEECH_MIN);
        places.extend(
            long.filter_map(|(speech, _)| Some((speech.at, format!("{} speaks", self.name(speech.participant?))))),
        );
        places.retain(|(at, _)| *at < end);
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        // A player shows nothing before the first chapter.
        if places.first().is_some_and(|(at, _)| *at > 0.0) {
            places.insert(0, (0.0, self.room.to_string()));
        }
        let chapter = |(at, title)| Some(Chapter { time: Duration::try_from_secs_f64(at).ok()?, title });
        places.into_iter().filter_map(chapter).collect()
    }

    fn name(&self, participant: ParticipantId) -> String {
        let stay = self.people.iter().rev().find(|stay| stay.participant == participant && !stay.name.is_empty());
        stay.map_or_else(|| participant.to_string(), |stay| stay.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_and_long_speeches_are_chapters() {
        let ann = ParticipantId(1);
        let bob = ParticipantId(2);
        let stay = |participant, name: &str, from| Stay { participant, name: name.into(), from, to: None };
        let speech = |at, participant| Speech { at, participant };
        let mut sidecar = Sidecar {
            file: "daily-20261125-184231-o1.mp4".into(),
            room: "daily".parse().expect("a name"),
            recording: OutputId(1),
            part: 0,
            format: FileFormat::Mp4,
            state: FileState::Finished,
            reason: None,
            started: "2026-11-25T18:42:31Z".into(),
            ended: None,
            offset: 12.5,
            duration: 60.0,
            bytes: 1_000,
            participant: None,
            people: vec![stay(ann, "Ann", 0.0), stay(bob, "", 20.5)],
            layouts: vec![Shown {
                at: 0.0,
                canvas: Size::new(1280, 720),
                tiles: vec![Tile {
                    participant: ann,
                    source: SourceKind::Camera,
                    rect: Rect { x: 0, y: 0, width: 1280, height: 720 },
                }],
            }],
            speakers: vec![speech(0.0, None), speech(3.0, Some(ann)), speech(13.0, Some(bob)), speech(50.0, None)],
            chat: vec![Words { at: 1.0, participant: Some(bob), name: String::new(), text: "hello".into() }],
            left_out: 0,
        };
        let chapters = |sidecar: &Sidecar| -> Vec<(f64, String)> {
            sidecar.chapters().into_iter().map(|chapter| (chapter.time.as_secs_f64(), chapter.title)).collect()
        };
        let expected = [(0.0, "daily"), (3.0, "Ann speaks"), (13.0, "p2 speaks"), (20.5, "p2 joins")]
            .map(|(at, title)| (at, title.to_owned()));
        assert_eq!(chapters(&sidecar), expected);
        let json = serde_json::to_string(&sidecar).expect("JSON");
        assert_eq!(serde_json::from_str::<Sidecar>(&json).expect("reads back"), sidecar);
        (sidecar.state, sidecar.duration) = (FileState::Recording, 0.0);
        assert_eq!(chapters(&sidecar), expected, "what was written down before the writer was killed");
        sidecar.speakers.clear();
        sidecar.people.truncate(1);
        assert_eq!(chapters(&sidecar), []);
    }
}
