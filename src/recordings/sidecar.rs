//! Sidecars: the JSON metadata beside each recording.
//!
//! Owns: [`Sidecar`], the fields that the library reads, and edits through [`Document`], which keep unknown fields.
//! Does not know: files. In and out: JSON.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::id::{OutputId, RoomName};

/// State of a recording as its sidecar contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SidecarState {
    /// It is being written, or its writer was killed.
    Recording,
    /// It ended regularly.
    Finished,
    /// It ended early because of an error.
    Failed,
    /// Its writer was killed, and the server repaired the file.
    Mended,
}

/// A verified upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Uploaded {
    /// `s3://bucket/key`.
    pub(super) location: String,
    /// Entity tag of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// SHA-256 of the file in hexadecimal.
    pub(super) sha256: String,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// The fields of a sidecar that the library needs. [`crate::link::sidecar`] has all of them; participants, layouts and
/// the texts of chat and captions can be large and are skipped here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Sidecar {
    pub(super) room: RoomName,
    pub(super) recording: OutputId,
    pub(super) state: SidecarState,
    /// Time of the first frame, RFC 3339.
    #[serde(default)]
    pub(super) started: Option<String>,
    /// Time of the last frame, RFC 3339.
    #[serde(default)]
    pub(super) ended: Option<String>,
    /// Duration in seconds.
    #[serde(default)]
    pub(super) duration: Option<f64>,
    /// Why it ended, unless it was stopped by a request.
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) upload: Option<Uploaded>,
    /// Only their number matters here.
    #[serde(default)]
    pub(super) captions: Vec<IgnoredAny>,
    /// The same.
    #[serde(default)]
    pub(super) chat: Vec<IgnoredAny>,
}

/// The complete JSON of a sidecar, so that an edit keeps unknown fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document(Map<String, Value>);

impl Document {
    /// Parses the JSON of a sidecar.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// Records a repair: sets state, duration, size and end.
    pub(super) fn mark_mended(&mut self, duration: Duration, bytes: u64) {
        self.set("state", json!(SidecarState::Mended));
        self.set("duration", json!(duration.as_secs_f64()));
        self.set("bytes", json!(bytes));
        let started = self.0.get("started").and_then(Value::as_str);
        let started = started.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        if let Some(ended) = started.and_then(|started| (started + duration).format(&Rfc3339).ok()) {
            self.set("ended", json!(ended));
        }
    }

    /// Records an upload.
    pub(super) fn mark_uploaded(&mut self, to: &Uploaded) {
        self.set("upload", json!(to));
    }

    fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Serializes the JSON.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("maps of JSON have text keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"room":"r","recording":"o3","format":"mp4","state":"recording",
        "started":"2026-11-25T10:15:00.250Z","people":[{"id":"p1","name":"Ann"}],"chat":[],"later":{"deep":[1,2.5]}}"#;

    #[test]
    fn an_edit_keeps_unknown_fields() {
        let mut document = Document::parse(TEXT.as_bytes()).expect("valid");
        document.mark_mended(Duration::from_millis(61_500), 7_000);
        let to = Uploaded { location: "s3://b/k".into(), etag: None, sha256: "00".into(), bytes: 7_000 };
        document.mark_uploaded(&to);
        let text = document.to_text();
        let all: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&all["later"]["deep"], &all["people"][0]["name"]), (&json!([1, 2.5]), &json!("Ann")));
        assert_eq!((&all["state"], &all["bytes"]), (&json!("mended"), &json!(7_000)));
        assert_eq!(all["ended"], "2026-11-25T10:16:01.75Z");
        let read: Sidecar = serde_json::from_str(&text).expect("has the fields that are read");
        assert_eq!((read.state, read.duration, read.upload), (SidecarState::Mended, Some(61.5), Some(to)));
    }

    #[test]
    fn malformed_sidecars_are_errors() {
        for text in ["", "{", "[]", "\u{1}"] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for text in [
            r#"{"recording":"o1","state":"finished"}"#,
            r#"{"room":"../r","recording":"o1","state":"finished"}"#,
            r#"{"room":"r","recording":"o1","state":"odd"}"#,
        ] {
            assert!(serde_json::from_str::<Sidecar>(text).is_err(), "{text}");
        }
    }
}
