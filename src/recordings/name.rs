//! File names of recordings in requests.
//!
//! Owns: [`FileName`], a validated name that cannot leave its folder, and the content type by extension. Does not know:
//! the folder. In: untrusted text. Out: a [`FileName`] or [`FileNameError`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::id::is_in_room_names;
use crate::link::sidecar::CHAT_EXTENSION;
use crate::media::FileFormat;

/// Maximum length of a name in bytes: a room ([`crate::id::RoomName::in_file_names`]), a time, ids and an extension.
const NAME_MAX: usize = 200;
/// Extension of a sidecar.
const SIDECAR: &str = "json";
/// Extension of a transcript.
const TRANSCRIPT: &str = "vtt";

/// A text that is not the file name of a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a recording's name consists of letters, digits, `_`, `.` and `-`, and ends in .mp4, .webm, .mkv or .ogg, in \
     .json for its metadata, in .vtt for its transcript, or in .chat.txt for its chat: GET /v1/recordings lists them"
)]
pub struct FileNameError;

/// Content of a file, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// A recording.
    Media(FileFormat),
    /// The JSON metadata beside a recording.
    Sidecar,
    /// The captions of a recording as WebVTT, which is made of its sidecar and is no file.
    Transcript,
    /// The chat beside a recording, as text.
    Chat,
}

impl Content {
    fn of(extension: &str) -> Option<Self> {
        match extension {
            SIDECAR => Some(Self::Sidecar),
            TRANSCRIPT => Some(Self::Transcript),
            CHAT_EXTENSION => Some(Self::Chat),
            other => FileFormat::from_extension(other).map(Self::Media),
        }
    }

    /// The value of `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Media(format) => format.content_type(),
            Self::Sidecar => "application/json",
            Self::Transcript => "text/vtt; charset=utf-8",
            Self::Chat => "text/plain; charset=utf-8",
        }
    }
}

/// A file name in the folder of recordings: no path separators, not hidden, with a known extension.
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

    /// The content by extension.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The name without its extension; a recording and its sidecar have the same stem.
    pub fn stem(&self) -> &str {
        split(&self.text).map_or(&*self.text, |(stem, _)| stem)
    }

    /// The name of this recording's sidecar.
    #[must_use]
    pub fn sidecar(&self) -> Self {
        Self { text: format!("{}.{SIDECAR}", self.stem()).into(), content: Content::Sidecar }
    }

    /// The name of the text of this recording's chat.
    #[must_use]
    pub fn chat(&self) -> Self {
        Self { text: format!("{}.{CHAT_EXTENSION}", self.stem()).into(), content: Content::Chat }
    }

    /// The name of this recording's transcript.
    #[must_use]
    pub fn transcript(&self) -> Self {
        Self { text: format!("{}.{TRANSCRIPT}", self.stem()).into(), content: Content::Transcript }
    }
}

/// Splits a name into its stem and its extension, which has a dot for the chat.
fn split(text: &str) -> Option<(&str, &str)> {
    let chat = text.strip_suffix(CHAT_EXTENSION).and_then(|stem| stem.strip_suffix('.'));
    chat.map(|stem| (stem, CHAT_EXTENSION)).or_else(|| text.rsplit_once('.'))
}

impl FromStr for FileName {
    type Err = FileNameError;

    fn from_str(text: &str) -> Result<Self, FileNameError> {
        let allowed = |c: char| c == '.' || is_in_room_names(c);
        let (stem, extension) = split(text).ok_or(FileNameError)?;
        let content = Content::of(extension).ok_or(FileNameError)?;
        if stem.is_empty() || stem.starts_with('.') || text.len() > NAME_MAX || !text.chars().all(allowed) {
            return Err(FileNameError);
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
    fn names_of_output_files_are_accepted() {
        for (text, kind, sidecar) in [
            ("daily-20261125-101500-k3f9.mp4", "video/mp4", "daily-20261125-101500-k3f9.json"),
            ("a_b-20261125-101500-k3f9-002.webm", "video/webm", "a_b-20261125-101500-k3f9-002.json"),
            ("r-20261125-101500-x.p1.camera.mkv", "video/matroska", "r-20261125-101500-x.p1.camera.json"),
            ("r-20261125-101500-x.ogg", "audio/ogg", "r-20261125-101500-x.json"),
            ("Überraschung-20261125-101500-o1.mp4", "video/mp4", "Überraschung-20261125-101500-o1.json"),
            ("部屋-20261125-101500-o1.mkv", "video/matroska", "部屋-20261125-101500-o1.json"),
            ("r-20261125-101500-x.json", "application/json", "r-20261125-101500-x.json"),
            ("r-20261125-101500-x.vtt", "text/vtt; charset=utf-8", "r-20261125-101500-x.json"),
            ("r-20261125-101500-x.chat.txt", "text/plain; charset=utf-8", "r-20261125-101500-x.json"),
        ] {
            let name: FileName = text.parse().expect(text);
            assert_eq!((name.content().media_type(), name.sidecar().as_str()), (kind, sidecar));
        }
    }

    #[test]
    fn paths_hidden_files_and_unknown_extensions_are_refused() {
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
            "ä\u{200b}.mp4",
            "🎉.mp4",
            "a\u{202e}4pm.mp4",
            "x.mp4/",
            "x.exe",
            "x.MP4",
            "x.mp4.tmp",
            "x.txt",
            "chat.txt",
            ".chat.txt",
            "x-chat.txt",
            "%2e%2e.mp4",
            "x",
            &long,
        ] {
            assert_eq!(text.parse::<FileName>(), Err(FileNameError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_path_component(text in "[a./\\\\%\0-]{0,12}(mp4|json)?") {
            if let Ok(name) = text.parse::<FileName>() {
                let components: Vec<_> = Path::new(name.as_str()).components().collect();
                prop_assert!(matches!(components.as_slice(), [Component::Normal(one)] if *one == name.as_str()));
            }
        }
    }
}
