//! Names of rooms.
//!
//! Owns: [`RoomName`]: the characters that it may have, its form in URLs and in file names. Does not know: rooms. In:
//! text as people and programs write it; out: a name, or an error that says what to change. A name is never altered:
//! two different texts never become one room.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::NAME_MAX;

/// Everything but the unreserved characters of RFC 3986 that names may have.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// Longest beginning of a file name in bytes. File systems allow 255, of which time, ids and extensions need up to 60.
const FILE_NAME_BYTES: usize = 120;
/// Hexadecimal digits of the hash in a shortened file name.
const HASH_DIGITS: usize = 12;

/// The name of a room: 1 to [`NAME_MAX`] Unicode letters, digits, `-` and `_`, in NFC.
///
/// Combining marks are part of a letter in many scripts (Devanagari, Thai), so they may follow a letter. Characters
/// that are invisible are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

/// A text is not the name of a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// It is empty.
    #[error("the name of the room is empty: use 1 to {NAME_MAX} letters, digits, `-` and `_`")]
    Empty,
    /// It has too many characters.
    #[error("the name of the room has {0} characters: use at most {NAME_MAX}")]
    TooLong(usize),
    /// It has a character that is not allowed.
    #[error("`{0}` is not the name of a room because of {1}: use letters of any script, digits, `-` and `_`")]
    Character(String, Unusable),
    /// It is not in NFC.
    #[error("`{0}` is not the name of a room: its accents are separate characters; send it in Unicode NFC, as `{1}`")]
    NotNfc(String, String),
    /// The bytes of a URL are not UTF-8.
    #[error("the name of the room is not percent-encoded UTF-8 in the URL")]
    NotUtf8,
}

/// A character that names do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable(char);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => f.write_str("its space"),
            c if c.is_ascii_graphic() || c.is_alphanumeric() && !is_invisible(c) => write!(f, "`{c}`"),
            c => write!(f, "the character U+{:04X}", u32::from(c)),
        }
    }
}

/// The part that a character may have in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Letter,
    /// A combining mark.
    Mark,
    /// A digit, `-` or `_`.
    Other,
}

/// Whether a character is invisible, as U+3164, which is a letter.
fn is_invisible(c: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

fn part(c: char) -> Option<Part> {
    if c.is_ascii() {
        let other = c.is_ascii_digit() || c == '-' || c == '_';
        return if c.is_ascii_alphabetic() { Some(Part::Letter) } else { other.then_some(Part::Other) };
    }
    // They would make different names look equal.
    if is_invisible(c) {
        return None;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    if GeneralCategoryGroup::Letter.contains(category) {
        Some(Part::Letter)
    } else if GeneralCategoryGroup::Mark.contains(category) {
        Some(Part::Mark)
    } else {
        (category == GeneralCategory::DecimalNumber).then_some(Part::Other)
    }
}

/// A text percent-encoded, as in the path or query of a URL (RFC 3986 section 2.1).
pub fn percent_encoded(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// Whether names of rooms may contain this character.
pub fn is_in_room_names(c: char) -> bool {
    part(c).is_some()
}

impl RoomName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a name from one segment of a URL's path, in which it may be percent-encoded.
    ///
    /// # Errors
    /// Those of parsing, and [`RoomNameError::NotUtf8`].
    pub fn from_url(segment: &str) -> Result<Self, RoomNameError> {
        percent_decode_str(segment).decode_utf8().map_err(|_| RoomNameError::NotUtf8)?.parse()
    }

    /// The name as in the path or query of a URL: [`percent_encoded`].
    pub fn in_url(&self) -> impl fmt::Display + '_ {
        percent_encoded(&self.0)
    }

    /// The name as the beginning of file names. A name of more than 120 bytes is shortened and has a part of its
    /// SHA-256 at the end, so that different rooms have different files.
    pub fn in_file_names(&self) -> Cow<'_, str> {
        if self.0.len() <= FILE_NAME_BYTES {
            return Cow::Borrowed(&self.0);
        }
        let end = self.0.floor_char_boundary(FILE_NAME_BYTES - HASH_DIGITS - 1);
        let hash = Sha256::digest(self.0.as_bytes());
        let digits: String = hash.iter().take(HASH_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
        Cow::Owned(format!("{}-{digits}", &self.0[..end]))
    }
}

impl FromStr for RoomName {
    type Err = RoomNameError;

    fn from_str(text: &str) -> Result<Self, RoomNameError> {
        // The beginning identifies a text well enough, and a hostile one may be long.
        let shown = || text.chars().take(NAME_MAX).collect::<String>();
        let mut before = None;
        for c in text.chars() {
            match part(c) {
                // A mark without a letter before it would be drawn over another character of the page.
                Some(Part::Mark) if !matches!(before, Some(Part::Letter | Part::Mark)) => before = None,
                part => before = part,
            }
            if before.is_none() {
                return Err(RoomNameError::Character(shown(), Unusable(c)));
            }
        }
        let nfc = ComposingNormalizerBorrowed::new_nfc();
        match text.chars().count() {
            0 => Err(RoomNameError::Empty),
            length if length > NAME_MAX => Err(RoomNameError::TooLong(length)),
            _ if !nfc.is_normalized(text) => Err(RoomNameError::NotNfc(shown(), nfc.normalize(text).into_owned())),
            _ => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RoomName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RoomName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_letters_of_any_script_and_digits() {
        for name in [
            "daily-standup_7",
            "-",
            "_x",
            "Müllerstraße",
            "élèves",
            "каждый-день",
            "日本語の部屋",
            "회의실",
            "غرفة",
            "हिन्दी",
            "ห้องประชุม",
            "ქართული",
            "room-٤٢",
            &"ä".repeat(64),
            &"𠮷".repeat(64),
        ] {
            assert_eq!(name.parse::<RoomName>().map(|name| name.to_string()).as_deref(), Ok(name));
        }
    }

    #[test]
    fn other_characters_are_refused_with_the_reason() {
        for (bad, names) in [
            ("", "empty"),
            ("a b", "space"),
            ("../etc", "`.`"),
            ("a/b", "`/`"),
            ("a%20b", "`%`"),
            ("x\u{0}", "U+0000"),
            ("party🎉", "U+1F389"),
            ("½", "`½`"),
            ("Ⅳ", "`Ⅳ`"),
            ("a\u{200b}b", "U+200B"),
            ("a\u{ad}b", "U+00AD"),
            ("a\u{202e}b", "U+202E"),
            ("\u{3164}", "U+3164"),
            ("a\u{fe0f}", "U+FE0F"),
            ("\u{e49}a", "U+0E49"),
            ("1\u{301}", "U+0301"),
            ("e\u{301}te\u{301}", "as `été`"),
            ("\u{212b}", "as `Å`"),
            (&"x".repeat(65), "65 characters"),
        ] {
            let error = bad.parse::<RoomName>().expect_err(bad).to_string();
            assert!(error.contains(names), "{bad:?}: {error}");
        }
    }

    #[test]
    fn names_in_urls_are_percent_encoded() {
        let name: RoomName = "Café_1-x".parse().expect("a name");
        assert_eq!(name.in_url().to_string(), "Caf%C3%A9_1-x");
        assert_eq!(RoomName::from_url("caf%c3%a9").expect("a name").as_str(), "café");
        assert_eq!(RoomName::from_url("café").expect("a name").as_str(), "café");
        assert_eq!(RoomName::from_url("caf%e9"), Err(RoomNameError::NotUtf8));
        assert!(RoomName::from_url("a%2fb").is_err());
    }

    #[test]
    fn different_long_names_begin_different_file_names() {
        let name = |last: &str| format!("{}{last}", "部".repeat(63)).parse::<RoomName>().expect("a name");
        let (one, other) = (name("一"), name("二"));
        assert_ne!(one.in_file_names(), other.in_file_names());
        assert!(one.in_file_names().starts_with("部"));
        assert_eq!("daily".parse::<RoomName>().expect("a name").in_file_names(), "daily");
    }

    proptest! {
        #[test]
        fn every_name_survives_urls_and_json_and_fits_file_names(text in "[\\p{L}\\p{M}\\p{N}_ -]{0,70}") {
            if let Ok(name) = text.parse::<RoomName>() {
                prop_assert_eq!(name.as_str(), &text);
                let url = name.in_url().to_string();
                prop_assert!(url.is_ascii() && !url.contains(['/', '?', '#', '.']));
                prop_assert_eq!(&RoomName::from_url(&url).expect("it was a name"), &name);
                let json = serde_json::to_string(&name).expect("plain");
                prop_assert_eq!(&serde_json::from_str::<RoomName>(&json).expect("it was a name"), &name);
                prop_assert!(name.in_file_names().len() <= FILE_NAME_BYTES);
                prop_assert!(name.in_file_names().chars().all(is_in_room_names));
            }
        }
    }
}
