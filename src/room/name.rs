//! Names of participants as people see them: one rule for the mix, the documents and the web page.
//!
//! Owns: cleaning and cutting of names, names of guests and of screens, initials. Does not know: tiles, fonts. In: the
//! name that a participant gives. Out: text for labels and avatars.
//!
//! 1. A name is one line of at most [`DISPLAY_NAME_MAX`] characters, cut between grapheme clusters (UAX #29). Controls,
//!    also those of the text direction, are removed.
//! 2. A participant without a visible name is `Guest` with the number of its id.
//! 3. Initials are the first letters or digits of the first and the last word, in capitals. Hyphens, dots and
//!    underscores separate words too. A name without letters and digits has its first character.
//! 4. Initials of a cursive script stay apart: a zero-width non-joiner is between them.

use icu_properties::props::{BidiControl, GeneralCategory, JoiningType};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_segmentation::UnicodeSegmentation;

use crate::id::ParticipantId;

/// Longest name of a participant in characters; longer ones are cut.
pub const DISPLAY_NAME_MAX: usize = 64;
/// Zero-width non-joiner.
const NON_JOINER: char = '\u{200c}';
/// Left-to-right mark: gives a line its direction, and is not drawn.
const LEFT_TO_RIGHT: char = '\u{200e}';

/// Whether a character is removed from names.
fn is_unwanted(c: char) -> bool {
    c.is_control() || c == '\u{feff}' || CodePointSetData::new::<BidiControl>().contains(c)
}

/// Whether a character can be seen by itself.
fn is_visible(c: char) -> bool {
    use GeneralCategory::{Format, NonspacingMark, Unassigned};
    // The blank letters of Hangul and the blank pattern of Braille are used as invisible names.
    let blank = matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}');
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    !c.is_whitespace() && !blank && !matches!(category, Format | NonspacingMark | Unassigned)
}

/// A name as it is kept: rule 1. Empty if nothing of it is visible.
pub(super) fn clean(text: &str) -> String {
    clean_line(text, DISPLAY_NAME_MAX)
}

/// A line of at most `most` characters, cleaned like a name.
pub(super) fn clean_line(text: &str, most: usize) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_unwanted(*c)).collect();
    let mut room = most;
    let fits = |cluster: &&str| {
        let left = room.checked_sub(cluster.chars().count());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let cut: String = plain.trim().graphemes(true).take_while(fits).collect();
    if cut.chars().any(is_visible) { cut.trim_end().to_owned() } else { String::new() }
}

/// The name that is shown for a participant whose kept name is `name`.
pub(super) fn shown(name: &str, participant: ParticipantId) -> String {
    if name.is_empty() { format!("Guest {}", participant.0) } else { name.to_owned() }
}

/// The name of the screen that a participant with this shown name shares.
pub(super) fn of_screen(shown: &str) -> String {
    // English has one direction, whatever the name's.
    let mark = if shown.is_ascii() { None } else { Some(LEFT_TO_RIGHT) };
    mark.into_iter().chain(shown.chars()).chain("’s screen".chars()).collect()
}

/// The initials of a shown name.
pub(super) fn initials(shown: &str) -> String {
    let separates = |c: char| c.is_whitespace() || matches!(c, '-' | '_' | '.' | '‐' | '·');
    let starts = |cluster: &&str| cluster.chars().next().is_some_and(char::is_alphanumeric);
    let mut firsts = shown.split(separates).filter_map(|word| word.graphemes(true).find(starts));
    let first = firsts.next().or_else(|| shown.graphemes(true).next()).unwrap_or_default();
    let last = firsts.next_back().unwrap_or_default();
    let mut initials = capital(first);
    if joins(first) && joins(last) {
        initials.push(NON_JOINER);
    }
    initials + &capital(last)
}

/// A cluster with its first letter in capitals, where the capital is one letter that is written so.
fn capital(cluster: &str) -> String {
    let mut chars = cluster.chars();
    let Some(first) = chars.next() else { return String::new() };
    let mut upper = first.to_uppercase();
    let single = upper.next().filter(|_| upper.next().is_none());
    // Georgian has capitals for whole words only (Mtavruli).
    let georgian = ('\u{10d0}'..='\u{10ff}').contains(&first);
    single.filter(|_| !georgian).unwrap_or(first).to_string() + chars.as_str()
}

/// Whether the letter of a cluster connects to its neighbour.
fn joins(cluster: &str) -> bool {
    let joining = CodePointMapData::<JoiningType>::new();
    cluster.chars().next().is_some_and(|c| {
        matches!(joining.get(c), JoiningType::DualJoining | JoiningType::LeftJoining | JoiningType::RightJoining)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn initials_in_any_script() {
        for (name, expected) in [
            ("Ada Lovelace", "AL"),
            ("johann sebastian bach", "JB"),
            ("Plato", "P"),
            ("K H", "KH"),
            ("Karl-Heinz", "KH"),
            ("karl_heinz.müller", "KM"),
            ("K.", "K"),
            ("Guest 7", "G7"),
            ("山田 太郎", "山太"),
            ("محمد علي", "م\u{200c}ع"),
            ("داود رضا", "د\u{200c}ر"),
            ("ܝܘܚܢܢ ܒܪ", "ܝ\u{200c}ܒ"),
            ("דוד לוי", "דל"),
            ("Ann علي", "Aع"),
            ("गीता शर्मा", "गीश"),
            ("ანა ბერიძე", "აბ"),
            ("ßtefan", "ß"),
            ("(Zoë) Ångström", "ZÅ"),
            ("🎈", "🎈"),
            ("👩‍👩‍👧 family", "F"),
            ("👩‍👩‍👧", "👩‍👩‍👧"),
        ] {
            assert_eq!(initials(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_without_visible_characters_is_a_guest() {
        let invisible_start = "\u{200b}".repeat(DISPLAY_NAME_MAX) + "Ann";
        for name in
            ["", "  \n ", "\u{200b}\u{200d}", "\u{3164}", "\u{2800}", "\u{202e}\u{202c}", "\u{301}", &invisible_start]
        {
            assert_eq!(clean(name), "", "{name:?}");
            assert_eq!(shown(&clean(name), ParticipantId(7)), "Guest 7");
        }
        assert_eq!(shown(&clean(" Ann \n"), ParticipantId(7)), "Ann");
        assert_eq!(clean("\u{202e}evil\tname\u{61c}"), "evil name", "a name does not set the direction");
    }

    #[test]
    fn long_names_are_cut_between_clusters() {
        let family = "👩‍👩‍👧"; // five characters, one cluster
        let cut = clean(&family.repeat(20));
        assert_eq!(cut, family.repeat(12), "the thirteenth would have characters 61 to 65");
        assert_eq!(clean(&"e\u{301}".repeat(40)), "e\u{301}".repeat(32));
        assert_eq!(clean(&"x".repeat(70)).len(), 64);
    }

    #[test]
    fn a_screen_is_named_after_its_participant() {
        assert_eq!(of_screen("Ann"), "Ann’s screen");
        assert_eq!(of_screen("محمد"), "\u{200e}محمد’s screen", "the line runs from left to right");
    }

    proptest! {
        #[test]
        fn every_name_has_a_label_and_initials(text in ".{0,90}") {
            let name = clean(&text);
            prop_assert!(name.chars().count() <= DISPLAY_NAME_MAX);
            prop_assert_eq!(&clean(&name), &name, "a kept name is kept");
            let shown = shown(&name, ParticipantId(3));
            prop_assert!(!shown.trim().is_empty());
            prop_assert!((1..=2).contains(&initials(&shown).graphemes(true).count()), "{:?}", initials(&shown));
        }
    }
}
