//! Errors in the configuration, with the origin of the value.
//!
//! Owns: the text of an error. Does not know: how a layer is read. In: what is wrong. Out: one line per error.

use std::fmt;
use std::path::PathBuf;

/// An error in the configuration, with its origin.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {error}; {hint}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The I/O error.
        error: std::io::Error,
        /// How to fix it.
        hint: &'static str,
    },
    /// The file is not TOML, a key does not exist, or a value is invalid.
    #[error("{origin}: {key}: {reason}{}", shown(value.as_deref()))]
    Value {
        /// Where the value was set.
        origin: Origin,
        /// The key, `section.key`.
        key: String,
        /// The value, unless it is a secret or the reason contains it.
        value: Option<String>,
        /// What is wrong and how to fix it.
        reason: String,
    },
}

/// The value at the end of an error.
fn shown(value: Option<&str>) -> String {
    value.map(|value| format!(" (it is {value})")).unwrap_or_default()
}

/// All errors in the configuration.
#[derive(Debug)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, in the order of the layers; at least one.
    pub fn all(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        write!(f, "the configuration has {} errors:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A file and its line, from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A command line flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}
