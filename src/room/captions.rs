//! Captions: what is said, as text. The events of the room are their first form; an overlay may draw the latest ones,
//! and outputs have them as data.
//!
//! Owns: the limit of their rate, and the captions that are still to be read. Does not know: speech recognition, how
//! captions are drawn or written. In: [`CaptionRequest`]s and the time; out: events, and the text for overlays of the kind
//! `caption`.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

use super::Room;
use super::document::Event;
use super::overlays::OverlayError;
use crate::id::ParticipantId;
use crate::time::Timestamp;

/// Longest caption, in characters.
pub const CAPTION_MAX: usize = 500;
/// Most captions of a room in [`WINDOW`].
const RATE_MAX: usize = 40;
/// The time over which captions are counted.
const WINDOW: Duration = Duration::from_secs(2);
/// How long a caption is shown after its last change.
pub const SHOWN: Duration = Duration::from_secs(6);
/// Most captions that are shown at a time, of as many people.
pub const LINES: usize = 2;
/// Longest tag of a language (RFC 5646).
const LANGUAGE_MAX: usize = 35;

/// A caption.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionRequest {
    /// The speaker.
    pub participant: ParticipantId,
    /// What was said.
    pub text: String,
    /// The text does not change any more. Otherwise the next caption of the speaker replaces this one.
    #[serde(default = "yes", rename = "final")]
    pub is_final: bool,
    /// The language (RFC 5646).
    #[serde(default)]
    pub language: Option<String>,
}

const fn yes() -> bool {
    true
}

/// Why a caption is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptionError {
    /// It comes too soon after others.
    #[error(
        "this room has had {RATE_MAX} captions in {} s, which is the limit: send fewer interim captions",
        WINDOW.as_secs()
    )]
    TooMany(Duration),
}

/// A caption that is drawn.
#[derive(Debug)]
struct Line {
    participant: ParticipantId,
    text: String,
    until: Timestamp,
}

/// The captions of a room.
#[derive(Debug, Default)]
pub(super) struct Captions {
    /// Times of the latest captions.
    times: VecDeque<Timestamp>,
    lines: VecDeque<Line>,
}

impl CaptionRequest {
    /// # Errors
    /// The field and its range.
    fn check(&self) -> Result<(), String> {
        let length = self.text.chars().count();
        let is_blank = self.text.chars().all(|c| c.is_whitespace() || c.is_control());
        if is_blank || length > CAPTION_MAX {
            return Err(format!(
                "text must have 1 to {CAPTION_MAX} characters that are not all spaces or control codes"
            ));
        }
        let is_tag = |tag: &String| {
            (1..=LANGUAGE_MAX).contains(&tag.len()) && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if !self.language.as_ref().is_none_or(is_tag) {
            return Err("language is a tag such as `en` or `pt-BR` (RFC 5646)".into());
        }
        Ok(())
    }
}

impl Captions {
    /// Counts a caption.
    fn admit(&mut self, now: Timestamp) -> Result<(), CaptionError> {
        while self.times.front().is_some_and(|first| now.since(*first) >= WINDOW) {
            self.times.pop_front();
        }
        if self.times.len() >= RATE_MAX {
            let wait = self.times.front().map_or(WINDOW, |first| (*first + WINDOW).since(now));
            return Err(CaptionError::TooMany(wait));
        }
        self.times.push_back(now);
        Ok(())
    }

    fn show(&mut self, now: Timestamp, participant: ParticipantId, text: String) {
        let line = Line { participant, text, until: now + SHOWN };
        match self.lines.iter_mut().find(|line| line.participant == participant) {
            Some(shown) => *shown = line,
            None => self.lines.push_back(line),
        }
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }

    /// The captions to draw, one in a line; empty for none.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// When a caption is not drawn any more.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        self.lines.iter().map(|line| line.until).min()
    }
}

impl Room {
    /// Sends a caption to the readers of the room's events, and draws it where an overlay of its kind is.
    ///
    /// # Errors
    /// When it is invalid, its speaker is not there, or there are too many captions.
    pub fn caption(&mut self, now: Timestamp, request: CaptionRequest) -> Result<(), OverlayError> {
        self.now = now;
        request.check().map_err(OverlayError::Invalid)?;
        let CaptionRequest { participant, text, is_final, language } = request;
        let person = self.people.get(&participant).filter(|person| person.connected);
        let name = person.ok_or(OverlayError::NoParticipant(participant))?.shown_name(participant);
        self.captions.admit(now)?;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.captions.show(now, participant, format!("{name}: {line}"));
        self.refresh_overlays();
        self.emit(|_| Event::Caption { participant, name, text, is_final, language });
        Ok(())
    }

    /// Removes captions that were shown for long enough.
    pub(super) fn caption_timeout(&mut self, now: Timestamp) {
        let before = self.captions.lines.len();
        self.captions.lines.retain(|line| now < line.until);
        if self.captions.lines.len() != before {
            self.refresh_overlays();
        }
    }
}
