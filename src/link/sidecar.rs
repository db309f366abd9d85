//! The sidecar of a recorded file, as JSON: participants, layouts, main speakers, chat and captions with their times.
//!
//! Owns: the document, and the chapters, the transcript and the text of the chat that follow from it. Does not know:
//! files. An output writes a sidecar while it records; the edge reads it to list recordings, and to repair files whose
//! output died. Times are in seconds since the beginning of the file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::{Chapter, webvtt};
use crate::id::{OutputId, ParticipantId, RoomName};
use crate::media::{FileFormat, Rect, Size, SourceKind};
use crate::room::captions::SHOWN;

/// Permissions of recorded files, sidecars and downloads of them: the owner writes, its group reads (chmod(2)).
pub const FILE_MODE: u32 = 0o640;
/// Permissions of their folder.
pub const FOLDER_MODE: u32 = 0o750;

/// What follows the name of a recording in the name of the text of its chat.
pub const CHAT_EXTENSION: &str = "chat.txt";

/// Shortest time as main speaker for a chapter, in seconds.
const SPEECH_MIN: f64 = 10.0;

/// The document of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// The name of the file.
    pub file: String,
    /// The name of the room.
    pub room: RoomName,
    /// The id of the recording.
    pub recording: OutputId,
    /// Its number within the recording, from 0.
    pub part: u32,
    /// Its format.
    pub format: FileFormat,
    /// Whether it is complete.
    pub state: FileState,
    /// Why it ended, if the end was not requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began on the wall clock (RFC 3339).
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// When it began, in seconds since the epoch of the room: aligns the files of one recording.
    pub offset: f64,
    /// Its duration in seconds.
    pub duration: f64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The participant, if it is a file of separate tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
    /// The participants that were present.
    pub people: Vec<Stay>,
    /// The layouts.
    pub layouts: Vec<Shown>,
    /// The main speakers.
    pub speakers: Vec<Speech>,
    /// The chat messages.
    pub chat: Vec<Words>,
    /// The final captions.
    #[serde(default)]
    pub captions: Vec<Spoken>,
    /// Number of entries that the lists above omit because they are full.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// The state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It grows, or its output was killed.
    Recording,
    /// It is complete.
    Finished,
    /// It is complete, but ended early.
    Failed,
    /// It is complete: its output was killed, and the server repaired it.
    Mended,
}

/// The presence of a participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stay {
    /// The participant.
    pub participant: ParticipantId,
    /// Its last name.
    pub name: String,
    /// When it joined; 0 if before the beginning.
    pub from: f64,
    /// When it left; absent if after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
}

/// A layout from a time on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The time.
    pub at: f64,
    /// The canvas in pixels.
    pub canvas: Size,
    /// The tiles on it.
    pub tiles: Vec<Tile>,
}

/// A tile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tile {
    /// The participant.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub source: SourceKind,
    /// Its rectangle in pixels of the canvas.
    #[serde(flatten)]
    pub rect: Rect,
}

/// The main speaker from a time on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speech {
    /// The time.
    pub at: f64,
    /// The participant; null for none.
    pub participant: Option<ParticipantId>,
}

/// A chat message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Words {
    /// The time.
    pub at: f64,
    /// The sender.
    pub participant: Option<ParticipantId>,
    /// The name of the sender.
    pub name: String,
    /// The text.
    pub text: String,
}

/// A caption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spoken {
    /// The time.
    pub at: f64,
    /// The speaker.
    pub participant: ParticipantId,
    /// The name of the speaker.
    pub name: String,
    /// What was said.
    pub text: String,
    /// The language (RFC 5646).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Sidecar {
    /// The chapters in order: joins, and main speakers of ten seconds or more. Empty for a file without these. A file
    /// that still grows has no known end.
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
        // Players need a chapter at the beginning.
        if places.first().is_some_and(|(at, _)| *at > 0.0) {
            places.insert(0, (0.0, self.room.to_string()));
        }
        let chapter = |(at, title)| Some(Chapter { time: Duration::try_from_secs_f64(at).ok()?, title });
        places.into_iter().filter_map(chapter).collect()
    }

    /// The captions as WebVTT; None if there are none. A caption ends with the next one of its speaker.
    pub fn transcript(&self) -> Option<String> {
        if self.captions.is_empty() {
            return None;
        }
        let mut text = webvtt::HEADER.to_owned();
        for (n, Spoken { at, participant, name, text: said, .. }) in self.captions.iter().enumerate() {
            let next = self.captions[n + 1..].iter().find(|later| later.participant == *participant);
            let until = next.map_or(f64::INFINITY, |next| next.at).min(at + SHOWN.as_secs_f64());
            let times = (Duration::try_from_secs_f64(*at), Duration::try_from_secs_f64(until));
            let (Ok(from), Ok(until)) = times else { continue };
            let id = format!("{}", n + 1);
            webvtt::Cue { id: &id, from, until, name, text: said }.write(&mut text);
        }
        Some(text)
    }

    /// The chat as text, with the time since the beginning before each message; None without messages.
    pub fn chat_text(&self) -> Option<String> {
        let line = |Words { at, name, text, .. }: &Words| {
            let seconds = *at as u64;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            // Lines of one message are indented, so that no text can look like another message.
            format!("[{hours:02}:{minutes:02}:{seconds:02}] {name}: {}\n", text.replace('\n', "\n    "))
        };
        (!self.chat.is_empty()).then(|| self.chat.iter().map(line).collect())
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
            captions: vec![Spoken {
                at: 4.0,
                participant: ann,
                name: "Ann".into(),
                text: "good morning".into(),
                language: Some("en".into()),
            }],
            left_out: 0,
        };
        let chapters = |sidecar: &Sidecar| -> Vec<(f64, String)> {
            sidecar.chapters().into_iter().map(|chapter| (chapter.time.as_secs_f64(), chapter.title)).collect()
        };
        let expected = [(0.0, "daily"), (3.0, "Ann speaks"), (13.0, "p2 speaks"), (20.5, "p2 joins")]
            .map(|(at, title)| (at, title.to_owned()));
        assert_eq!(chapters(&sidecar), expected);
        assert_eq!(
            sidecar.transcript().as_deref(),
            Some("WEBVTT\n\n1\n00:00:04.000 --> 00:00:10.000\n<v Ann>Ann: good morning</v>\n\n")
        );
        let later = Words { at: 3_725.9, participant: None, name: "Bot".into(), text: "a\nb".into() };
        sidecar.chat.push(later);
        let text = "[00:00:01] : hello\n[01:02:05] Bot: a\n    b\n";
        assert_eq!(sidecar.chat_text().as_deref(), Some(text));
        sidecar.captions.push(Spoken { at: 5.5, text: "all".into(), ..sidecar.captions[0].clone() });
        let transcript = sidecar.transcript().expect("there are captions");
        assert!(transcript.contains("00:00:04.000 --> 00:00:05.500\n"), "{transcript}");
        let json = serde_json::to_string(&sidecar).expect("JSON");
        assert_eq!(serde_json::from_str::<Sidecar>(&json).expect("reads back"), sidecar);
        (sidecar.state, sidecar.duration) = (FileState::Recording, 0.0);
        assert_eq!(chapters(&sidecar), expected, "what was written down before the writer was killed");
        sidecar.speakers.clear();
        sidecar.people.truncate(1);
        sidecar.captions.clear();
        sidecar.chat.clear();
        assert_eq!((chapters(&sidecar), sidecar.transcript(), sidecar.chat_text()), (vec![], None, None));
    }
}
