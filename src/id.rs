//! Names and ids: newtypes, so that they cannot be confused.
//!
//! Owns: valid names, ids as text. Does not know: what they refer to. In JSON an id is a short string (`"p12"`,
//! `"s3"`); on the link it is a number.

mod image_name;
mod room_name;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::image_name::ImageName;
pub use self::room_name::{RoomName, RoomNameError, is_in_room_names, percent_encoded};

/// Longest name of a room or view, in characters.
pub const NAME_MAX: usize = 64;

/// A text is not a name or an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `[A-Za-z0-9_-]{1,64}`.
    #[error("`{0}` is not a name: use 1 to 64 letters, digits, `_` or `-`")]
    Name(String),
    /// Not the prefix letter followed by a number.
    #[error("`{0}` is not an id: it looks like `{1}12`")]
    Number(String, char),
}

/// The name of a view; every room has the view [`ViewName::program`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewName(Arc<str>);

impl ViewName {
    /// The view that every room has.
    pub fn program() -> Self {
        Self("program".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ViewName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(allowed) {
            return Ok(Self(text.into()));
        }
        Err(IdError::Name(text.chars().take(NAME_MAX).collect()))
    }
}

impl fmt::Display for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ViewName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ViewName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // One text for each number: no sign, and no zeros before it.
                text.strip_prefix($prefix)
                    .and_then(|digits| digits.parse().ok())
                    .map(Self)
                    .filter(|id| id.to_string() == text)
                    .ok_or_else(|| IdError::Number(text.chars().take(NAME_MAX).collect(), $prefix))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_u32(self.0) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(D::Error::custom)
                } else {
                    u32::deserialize(d).map(Self)
                }
            }
        }
    };
}

number! {
    /// An input of a room.
    InputId, 'i'
}
number! {
    /// A recording or broadcast of a room.
    OutputId, 'o'
}
number! {
    /// An overlay of a room; used once in a room.
    OverlayId, 'v'
}
number! {
    /// A participant, publisher or viewer of a room; used once in a room.
    ParticipantId, 'p'
}
number! {
    /// A source (camera, screen or microphone) of a participant; used once in a room.
    SourceId, 's'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_views_are_checked() {
        assert!("daily-standup_7".parse::<ViewName>().is_ok());
        for bad in ["", "a b", "../etc", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<ViewName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ids_are_text_in_json_and_numbers_on_the_link() {
        let id = ParticipantId(12);
        assert_eq!(serde_json::to_string(&id).expect("plain"), "\"p12\"");
        assert_eq!(serde_json::from_str::<ParticipantId>("\"p12\"").expect("plain"), id);
        let wire = postcard::to_stdvec(&id).expect("plain");
        assert_eq!(wire, [12]);
        assert_eq!(postcard::from_bytes::<ParticipantId>(&wire).expect("plain"), id);
        assert!("s12".parse::<ParticipantId>().is_err());
    }

    #[test]
    fn an_id_has_one_text_of_limited_length() {
        assert_eq!("p4294967295".parse::<ParticipantId>().expect("the largest"), ParticipantId(u32::MAX));
        for bad in ["p", "p+12", "p012", "p-1", "p4294967296", " p1", &format!("p{}1", "0".repeat(100_000))] {
            let error = bad.parse::<ParticipantId>().expect_err("another text of a number").to_string();
            assert!(error.len() < 300, "{error}");
        }
    }
}
