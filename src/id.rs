//! Names of things: small newtypes that cannot be mixed up.
//!
//! Owns: what a valid name is, and how an id looks as text. Does not know: what the things are.
//! In JSON an id is a short string (`"p12"`, `"s3"`); on the link it is a number.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest room, view or recording name, in characters.
pub const NAME_MAX: usize = 64;

/// Why a text is not a name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `[A-Za-z0-9_-]{1,64}`.
    #[error("`{0}` is not a name: use 1 to 64 letters, digits, `_` or `-`")]
    Name(String),
    /// Not the prefix letter followed by a number.
    #[error("`{0}` is not an id: it looks like `{1}12`")]
    Number(String, char),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(allowed) {
                    return Ok(Self(text.into()));
                }
                Err(IdError::Name(text.chars().take(NAME_MAX).collect()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

name! {
    /// A room's name, as it stands in URLs.
    RoomName
}
name! {
    /// A view's name; every room has the view [`ViewName::program`].
    ViewName
}

impl ViewName {
    /// The view every room has.
    pub fn program() -> Self {
        Self("program".into())
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
                text.strip_prefix($prefix)
                    .and_then(|digits| digits.parse().ok())
                    .map(Self)
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
    /// A source from elsewhere that takes part in a room.
    InputId, 'i'
}
number! {
    /// A recording or broadcast in a room.
    OutputId, 'o'
}
number! {
    /// A person or program in a room; unique within its room, never used twice.
    ParticipantId, 'p'
}
number! {
    /// One thing a participant sends; unique within its room, never used twice.
    SourceId, 's'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("daily-standup_7".parse::<RoomName>().is_ok());
        for bad in ["", "a b", "../etc", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<RoomName>().is_err(), "{bad:?} was taken");
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
}
