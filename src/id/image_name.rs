//! The names of uploaded images.
//!
//! Owns: [`ImageName`] and its text. Does not know: images.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name of an image, in characters.
const IMAGE_NAME_MAX: usize = 64;

/// The name of an uploaded image: 1 to 64 letters, digits, `.`, `_` or `-`; the first is no `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName(Arc<str>);

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if (1..=IMAGE_NAME_MAX).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.') {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(IMAGE_NAME_MAX).collect();
        Err(format!("`{shown}` is no name of an image: use 1 to {IMAGE_NAME_MAX} letters, digits, `.`, `_` or `-`"))
    }
}

impl Serialize for ImageName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ImageName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
