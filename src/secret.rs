//! A text that must not reach a log, an event or an answer.
//!
//! Owns: that only who asks for it by [`Secret::expose`] sees it. Does not know: what it opens.

use std::fmt;

use serde::Deserialize;

/// A secret text: `Debug` hides it, nothing serializes it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
