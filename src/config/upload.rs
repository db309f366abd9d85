//! Section `[upload]`: the object store for recordings.
//!
//! Owns: its keys and their validation. Does not know: the store's protocol.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Findings, Secret};

/// Section `[upload]`: a bucket of an S3-compatible object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upload {
    /// Bucket; without one nothing is uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// URL of the store; None means AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: String,
    /// Prefix of object keys.
    pub prefix: String,
    /// Access key id; None uses the environment as AWS tools do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Secret access key; after [`load`](super::load) also a key read from `secret_access_key_file`.
    #[serde(skip_serializing)]
    pub secret_access_key: Option<Secret>,
    /// File that contains the secret access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// Permit an endpoint without TLS.
    pub allow_http: bool,
    /// Send a SHA-256 checksum with each part.
    pub checksum: bool,
    /// Keep local files after their upload.
    pub keep_local: bool,
    /// Size of a part in MiB, 5 to 512; a part is held in memory.
    pub part_mib: u32,
}

impl Default for Upload {
    fn default() -> Self {
        Self {
            bucket: None,
            endpoint: None,
            region: "us-east-1".into(),
            prefix: String::new(),
            access_key_id: None,
            secret_access_key: None,
            secret_access_key_file: None,
            allow_http: false,
            checksum: true,
            keep_local: true,
            part_mib: 8,
        }
    }
}

impl Upload {
    /// Validates the section.
    pub(super) fn check(&self, findings: &mut Findings) {
        let named = self.bucket.as_ref().is_none_or(|bucket| !bucket.is_empty());
        findings.require(named, "upload.bucket", "must name a bucket or be absent");
        match self.endpoint.as_deref().map(|endpoint| endpoint.split_once("://")) {
            Some(Some(("http", _))) if !self.allow_http => findings.add(
                "upload.endpoint",
                "must be https://; upload.allow_http = true permits http://, which is not encrypted",
            ),
            Some(Some(("http" | "https", host))) if !host.is_empty() && !host.contains('@') => {}
            None => {}
            Some(_) => {
                findings.add("upload.endpoint", "must be a URL without user or password: https://s3.example.org");
            }
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "/-_.=".contains(c);
        findings.require(
            !self.prefix.starts_with('/') && !self.prefix.contains("//") && self.prefix.chars().all(allowed),
            "upload.prefix",
            "must consist of letters, digits and -_.=/ and not begin with /: calls/",
        );
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(_), None) => {
                findings.add("upload.access_key_id", "needs upload.secret_access_key or its file too");
            }
            (None, Some(_)) => findings.add("upload.secret_access_key", "needs upload.access_key_id too"),
            _ => {}
        }
        findings.require((5..=512).contains(&self.part_mib), "upload.part_mib", "must be 5 to 512, the limits of S3");
    }
}
