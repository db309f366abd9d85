//! Secret texts: keys, tokens and passphrases that must not reach a log, an event or a response.
//!
//! Owns: the rule that only [`Secret::expose`] returns the text. Does not know: what the secret is for.

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
