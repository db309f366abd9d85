//! Where recordings are uploaded to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Secret, Wrong};

/// Where recordings are uploaded to: a bucket of an S3-compatible store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upload {
    /// The bucket; without one nothing is uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The store's URL; None is AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The store's region.
    pub region: String,
    /// What the objects' names begin with.
    pub prefix: String,
    /// The access key; None looks for one as AWS tools do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The access key's secret; after [`load`](super::load) also the one read from `secret_access_key_file`.
    #[serde(skip_serializing)]
    pub secret_access_key: Option<Secret>,
    /// A file that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// Let the endpoint be without TLS.
    pub allow_http: bool,
    /// Send a SHA-256 with each part.
    pub checksum: bool,
    /// Keep what was uploaded here too.
    pub keep_local: bool,
    /// How much is sent at a time, in MiB.
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
    /// The first value that makes no sense.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, why: &str| Err(Wrong { key, why: why.to_owned() });
        if self.bucket.as_ref().is_some_and(String::is_empty) {
            return wrong("upload.bucket", "must name a bucket, or be left out");
        }
        match self.endpoint.as_deref().map(|endpoint| endpoint.split_once("://")) {
            Some(Some(("http", _))) if !self.allow_http => {
                return wrong(
                    "upload.endpoint",
                    "must be https://, or upload.allow_http = true lets everybody on the way read along",
                );
            }
            Some(Some(("http" | "https", host))) if !host.is_empty() && !host.contains('@') => {}
            None => {}
            Some(_) => {
                return wrong("upload.endpoint", "must be a URL without user or password: https://s3.example.org");
            }
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "/-_.=".contains(c);
        if self.prefix.starts_with('/') || self.prefix.contains("//") || !self.prefix.chars().all(allowed) {
            return wrong("upload.prefix", "takes letters, digits and -_.=/, and does not begin with /: calls/");
        }
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(_), None) => return wrong("upload.access_key_id", "needs upload.secret_access_key or its file too"),
            (None, Some(_)) => return wrong("upload.secret_access_key", "needs upload.access_key_id too"),
            _ => {}
        }
        if !(5..=512).contains(&self.part_mib) {
            return wrong("upload.part_mib", "must be 5 to 512: what S3 takes as a part");
        }
        Ok(())
    }
}
