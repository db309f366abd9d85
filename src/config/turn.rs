//! The TURN server, and TURN servers of elsewhere.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Secret, Wrong};

/// The TURN server, and TURN servers of elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// Whether it is wanted.
    pub enabled: bool,
    /// Its port of UDP and TCP, where one was asked for; 0 takes a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its port of TLS, where one was asked for; 0 takes a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<u16>,
    /// What credentials are made from; after [`load`](super::load) also the one read from `secret_file`.
    #[serde(skip_serializing)]
    pub secret: Option<Secret>,
    /// A file that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// URIs of TURN servers of elsewhere that share the secret.
    pub external: Vec<String>,
    /// How long a credential is good at servers of elsewhere, in seconds; ours takes it as long as its session lives.
    pub credential_seconds: u32,
    /// The most allocations at a time.
    pub max_allocations: u32,
    /// The most of one credential.
    pub max_per_credential: u32,
    /// The most of one address.
    pub max_per_address: u32,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            enabled: true,
            port: None,
            tls_port: None,
            secret: None,
            secret_file: None,
            external: Vec::new(),
            credential_seconds: 600,
            max_allocations: 2048,
            max_per_credential: 12,
            max_per_address: 256,
        }
    }
}

impl Turn {
    /// The first value that makes no sense.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, why: &str| Err(Wrong { key, why: why.to_owned() });
        if self.secret.as_ref().is_some_and(|secret| secret.expose().len() < 16) {
            return wrong("turn.secret", "is too short: make one with `openssl rand -base64 32`");
        }
        let is_uri = |uri: &String| {
            let rest = uri.strip_prefix("turn:").or_else(|| uri.strip_prefix("turns:"));
            rest.is_some_and(|rest| {
                !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]?=".contains(c))
            })
        };
        if !self.external.iter().all(is_uri) {
            return wrong("turn.external", "must be URIs like turn:turn.example.org:3478?transport=udp");
        }
        if !self.external.is_empty() && self.secret.is_none() {
            return wrong("turn.external", "needs turn.secret too: the one that those servers make credentials from");
        }
        if !(60..=86_400).contains(&self.credential_seconds) {
            return wrong("turn.credential_seconds", "must be 60 to 86400");
        }
        // The relayed addresses have 16,384 numbers, and an allocation may need several.
        if !(1..=4096).contains(&self.max_allocations) {
            return wrong("turn.max_allocations", "must be 1 to 4096");
        }
        if self.max_per_credential == 0 || self.max_per_address == 0 {
            return wrong("turn.max_per_credential", "must be at least 1, and so must turn.max_per_address");
        }
        Ok(())
    }
}
