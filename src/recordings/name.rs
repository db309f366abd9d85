//! Names of recordings' files: what a caller may ask for by name.
//!
//! Owns: [`FileName`], a name that stays inside its folder, and what is in a file by its ending. Does not know: the folder.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::media::FileFormat;

/// Longest name, in characters: a room's name, a time, an id and an ending fit twice.
const NAME_MAX: usize = 200;
/// The ending of the file that tells about a recording.
const SIDECAR: &str = "json";

/// A text that is no name of a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a recording's name is made of letters, digits, `_`, `.` and `-`, and ends in .mp4, .webm, .mkv, .ogg, or .json for what is \
     told about it: GET /v1/recordings lists them"
)]
pub struct NotAName;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Media.
    Media(FileFormat),
    /// The JSON beside a recording.
    Sidecar,
}

impl Content {
    fn of(ending: &str) -> Option<Self> {
        if ending == SIDECAR { Some(Self::Sidecar) } else { FileFormat::from_extension(ending).map(Self::Media) }
    }

    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Media(format) => format.content_type(),
            Self::Sidecar => "application/json",
        }
    }
}

/// The name of a file in the folder of recordings: no separators, nothing hidden, an ending that is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName {
    text: Arc<str>,
    content: Content,
}

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the file holds.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The name without its ending: what a recording and its JSON share.
    pub fn stem(&self) -> &str {
        self.text.rsplit_once('.').map_or(&*self.text, |(stem, _)| stem)
    }

    /// The name of the JSON beside this file.
    #[must_use]
    pub fn sidecar(&self) -> Self {
        Self { text: format!("{}.{SIDECAR}", self.stem()).into(), content: Content::Sidecar }
    }
}

impl FromStr for FileName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let (stem, ending) = text.rsplit_once('.').ok_or(NotAName)?;
        let content = Content::of(ending).ok_or(NotAName)?;
        if stem.is_empty() || stem.starts_with('.') || text.len() > NAME_MAX || !text.chars().all(allowed) {
            return Err(NotAName);
        }
        Ok(Self { text: text.into(), content })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for FileName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_outputs_write_is_a_name() {
        for (text, kind, sidecar) in [
            ("daily-20261125-101500-k3f9.mp4", "video/mp4", "daily-20261125-101500-k3f9.json"),
            ("a_b-20261125-101500-k3f9-002.webm", "video/webm", "a_b-20261125-101500-k3f9-002.json"),
            ("r-20261125-101500-x.p1.camera.mkv", "video/matroska", "r-20261125-101500-x.p1.camera.json"),
            ("r-20261125-101500-x.ogg", "audio/ogg", "r-20261125-101500-x.json"),
            ("r-20261125-101500-x.json", "application/json", "r-20261125-101500-x.json"),
        ] {
            let name: FileName = text.parse().expect(text);
            assert_eq!((name.content().media_type(), name.sidecar().as_str()), (kind, sidecar));
        }
    }

    #[test]
    fn what_leads_elsewhere_is_not() {
        let long = format!("{}.mp4", "x".repeat(200));
        for text in [
            "",
            ".mp4",
            "..mp4",
            ".lock",
            "..",
            "../x.mp4",
            "a/b.mp4",
            "a\\b.mp4",
            "x.mp4\0",
            "x.mp4 ",
            "ä.mp4",
            "x.mp4/",
            "x.exe",
            "x.MP4",
            "x.mp4.tmp",
            "%2e%2e.mp4",
            "x",
            &long,
        ] {
            assert_eq!(text.parse::<FileName>(), Err(NotAName), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_component(text in "[a./\\\\%\0-]{0,12}(mp4|json)?") {
            if let Ok(name) = text.parse::<FileName>() {
                let components: Vec<_> = Path::new(name.as_str()).components().collect();
                prop_assert!(matches!(components.as_slice(), [Component::Normal(one)] if *one == name.as_str()));
            }
        }
    }
}
