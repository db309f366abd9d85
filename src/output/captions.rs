//! Captions of an output: which ones are shown together, and since when.
//!
//! Owns: [`CaptionLines`]. Pure: time is an argument. Does not know: containers. In: final captions with their times.
//! Out: [`ShownCaptions`] at each change. A caption is shown until the next one of its speaker, for [`SHOWN`] at most;
//! captions of more than [`LINES`] speakers at a time replace the oldest one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::container::webvtt::words;
use crate::id::ParticipantId;
use crate::link::output::Caption;
use crate::room::captions::{LINES, SHOWN};
use crate::time::Timestamp;

/// Shortest time between changes: containers have times in milliseconds.
const STEP: Duration = Duration::from_millis(1);

/// Captions that are shown together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCaptions {
    /// When they appear.
    pub from: Timestamp,
    /// When the first of them disappears, unless another change comes before.
    pub until: Timestamp,
    /// One line for each speaker: `name: text`.
    pub text: String,
}

/// The captions that are shown at a time.
#[derive(Debug, Default)]
pub struct CaptionLines {
    lines: VecDeque<Line>,
    /// Time of the latest change.
    changed: Timestamp,
}

#[derive(Debug)]
struct Line {
    participant: ParticipantId,
    text: String,
    until: Timestamp,
}

impl CaptionLines {
    /// Adds a caption, whose time is not before that of the captions before it. Returns the changes up to then.
    pub fn add(&mut self, at: Timestamp, caption: Caption) -> Vec<ShownCaptions> {
        let mut changes = self.advance(at.max(self.changed + STEP));
        let at = at.max(self.changed + STEP);
        let Caption { participant, name, text, language: _ } = caption;
        let line = Line { participant, text: line(&name, &text), until: at + SHOWN };
        match self.lines.iter_mut().find(|line| line.participant == participant) {
            Some(shown) => *shown = line,
            None => self.lines.push_back(line),
        }
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
        self.changed = at;
        changes.extend(self.shown());
        changes
    }

    /// Removes captions whose time is over. Returns the changes; none if no caption is left.
    pub fn advance(&mut self, now: Timestamp) -> Vec<ShownCaptions> {
        let mut changes = Vec::new();
        while let Some(over) = self.next_end().filter(|end| *end <= now) {
            self.lines.retain(|line| line.until > over);
            self.changed = over;
            changes.extend(self.shown());
        }
        changes
    }

    /// The captions since the latest change; None if there are none.
    pub fn shown(&self) -> Option<ShownCaptions> {
        let text = self.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n");
        Some(ShownCaptions { from: self.changed, until: self.next_end()?, text })
    }

    fn next_end(&self) -> Option<Timestamp> {
        self.lines.iter().map(|line| line.until).min()
    }
}

/// A caption as one line.
fn line(name: &str, text: &str) -> String {
    let joined = |text| words(text).collect::<Vec<_>>().join(" ");
    let (name, text) = (joined(name), joined(text));
    if name.is_empty() { text } else { format!("{name}: {text}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(5_000_000) + Duration::from_millis(millis)
    }

    fn caption(participant: u32, text: &str) -> Caption {
        let name = format!("P{participant}");
        Caption { participant: ParticipantId(participant), name, text: text.to_owned(), language: None }
    }

    fn shown(from: u64, until: u64, text: &str) -> ShownCaptions {
        ShownCaptions { from: at(from), until: at(until), text: text.to_owned() }
    }

    #[test]
    fn a_caption_is_shown_until_the_next_one_of_its_speaker_or_for_six_seconds() {
        let mut lines = CaptionLines::default();
        assert_eq!(lines.add(at(0), caption(1, "one\n\ntwo")), [shown(0, 6_000, "P1: one two")]);
        assert_eq!(lines.add(at(1_000), caption(2, "hello")), [shown(1_000, 6_000, "P1: one two\nP2: hello")]);
        assert_eq!(lines.add(at(2_000), caption(1, "three")), [shown(2_000, 7_000, "P1: three\nP2: hello")]);
        assert_eq!(lines.advance(at(6_999)), []);
        assert_eq!(lines.advance(at(7_100)), [shown(7_000, 8_000, "P1: three")]);
        assert_eq!((lines.advance(at(9_000)), lines.shown()), (vec![], None));
        assert_eq!(lines.add(at(9_000), caption(3, "a")), [shown(9_000, 15_000, "P3: a")]);
        let later = lines.add(at(9_000), caption(4, "b"));
        assert_eq!(later, [shown(9_001, 15_000, "P3: a\nP4: b")], "changes have different times");
        assert_eq!(lines.add(at(9_500), caption(5, "c"))[0].text, "P4: b\nP5: c", "two lines at most");
    }

    proptest! {
        #[test]
        fn changes_are_in_order_and_bounded(
            captions in prop::collection::vec((0..8_000_u64, 1..5_u32, any::<bool>()), 1..60),
        ) {
            let mut lines = CaptionLines::default();
            let (mut now, mut all) = (0, Vec::new());
            for (wait, participant, ticks) in captions {
                now += wait;
                if ticks {
                    all.extend(lines.advance(at(now)));
                }
                let changes = lines.add(at(now), caption(participant, "text"));
                let last = changes.last().expect("it is shown");
                let line = format!("P{participant}: text");
                prop_assert!(last.text.contains(&line), "{}", last.text);
                prop_assert!(last.from >= at(now) && last.from <= at(now + 60));
                all.extend(changes);
            }
            all.extend(lines.advance(at(now + 10_000)));
            for pair in all.windows(2) {
                prop_assert!(pair[0].from < pair[1].from);
            }
            for shown in &all {
                prop_assert!(shown.from < shown.until && shown.until.since(shown.from) <= SHOWN);
                prop_assert!(shown.text.lines().count() <= LINES);
            }
        }
    }
}
