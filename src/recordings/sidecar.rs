//! The JSON beside a recording: what of it the server reads, and how it is changed.
//!
//! Owns: [`Sidecar`], and edits that keep everything that other programs wrote into it. Does not know: files.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::id::{OutputId, RoomName};

/// What has become of a recording, as its JSON says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Written {
    /// It is being written, or whoever wrote it was killed.
    Recording,
    /// It ended as it should.
    Finished,
    /// It ended early, and what is there is whole.
    Failed,
    /// Whoever wrote it was killed, and the server finished it.
    Mended,
}

/// Where a recording was uploaded to, once that is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Uploaded {
    /// `s3://bucket/key`.
    pub(super) location: String,
    /// The entity tag that the store gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// SHA-256 of the file, in hexadecimal digits.
    pub(super) sha256: String,
    /// Its size.
    pub(super) bytes: u64,
}

/// What a list needs of the JSON ([`crate::link::sidecar`]): people, layouts and chat, which are long, are passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Sidecar {
    /// Which room was recorded.
    pub(super) room: RoomName,
    /// The recording's id in that room.
    pub(super) recording: OutputId,
    /// What has become of it.
    pub(super) state: Written,
    /// When its first frame was, RFC 3339.
    #[serde(default)]
    pub(super) started: Option<String>,
    /// When its last frame was, RFC 3339.
    #[serde(default)]
    pub(super) ended: Option<String>,
    /// Its length in seconds.
    #[serde(default)]
    pub(super) duration: Option<f64>,
    /// Why it ended, where nobody asked for that.
    #[serde(default)]
    pub(super) reason: Option<String>,
    /// Where it was uploaded to.
    #[serde(default)]
    pub(super) upload: Option<Uploaded>,
}

/// The whole JSON, so that an edit loses nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document(Map<String, Value>);

impl Document {
    /// Reads the JSON of a sidecar.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// Says that the server finished the file: it lasts `duration` and has `bytes`.
    pub(super) fn mended(&mut self, duration: Duration, bytes: u64) {
        self.set("state", json!(Written::Mended));
        self.set("duration", json!(duration.as_secs_f64()));
        self.set("bytes", json!(bytes));
        let started = self.0.get("started").and_then(Value::as_str);
        let started = started.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        if let Some(ended) = started.and_then(|started| (started + duration).format(&Rfc3339).ok()) {
            self.set("ended", json!(ended));
        }
    }

    /// Says where the file was uploaded to.
    pub(super) fn uploaded(&mut self, to: &Uploaded) {
        self.set("upload", json!(to));
    }

    fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// The JSON as text.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("maps of JSON have text keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"room":"r","recording":"o3","format":"mp4","state":"recording","started":"2026-11-25T10:15:00.250Z",
        "people":[{"id":"p1","name":"Ann"}],"chat":[],"later":{"deep":[1,2.5]}}"#;

    #[test]
    fn an_edit_keeps_what_it_does_not_know() {
        let mut document = Document::parse(TEXT.as_bytes()).expect("valid");
        document.mended(Duration::from_millis(61_500), 7_000);
        let to = Uploaded { location: "s3://b/k".into(), etag: None, sha256: "00".into(), bytes: 7_000 };
        document.uploaded(&to);
        let text = document.to_text();
        let all: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&all["later"]["deep"], &all["people"][0]["name"]), (&json!([1, 2.5]), &json!("Ann")));
        assert_eq!((&all["state"], &all["bytes"]), (&json!("mended"), &json!(7_000)));
        assert_eq!(all["ended"], "2026-11-25T10:16:01.75Z");
        let read: Sidecar = serde_json::from_str(&text).expect("what is read of it");
        assert_eq!((read.state, read.duration, read.upload), (Written::Mended, Some(61.5), Some(to)));
    }

    #[test]
    fn what_is_no_sidecar_is_an_error() {
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
