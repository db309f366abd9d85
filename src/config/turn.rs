//! Section `[turn]`: the TURN server, and external TURN servers.
//!
//! Owns: its keys and their validation. Does not know: the protocol.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Findings, Secret};

/// Section `[turn]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// Run the TURN server.
    pub enabled: bool,
    /// Requested port for UDP and TCP; 0 selects a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Requested port for TLS; 0 selects a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<u16>,
    /// Shared secret of credentials; after [`load`](super::load) also a secret read from `secret_file`.
    #[serde(skip_serializing)]
    pub secret: Option<Secret>,
    /// File that contains the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// URIs (RFC 7065) of external TURN servers with the same secret.
    pub external: Vec<String>,
    /// Lifetime of credentials at external servers in seconds. At our server a credential is valid while its session
    /// lives.
    pub credential_seconds: u32,
    /// Most concurrent allocations.
    pub max_allocations: u32,
    /// Most concurrent allocations of one credential.
    pub max_per_credential: u32,
    /// Most concurrent allocations of one client address.
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
    /// Validates the section.
    pub(super) fn check(&self, findings: &mut Findings) {
        findings.require(
            self.secret.as_ref().is_none_or(|secret| secret.expose().len() >= 16),
            "turn.secret",
            "is too short: make one with `openssl rand -base64 32`",
        );
        let is_uri = |uri: &String| {
            let rest = uri.strip_prefix("turn:").or_else(|| uri.strip_prefix("turns:"));
            rest.is_some_and(|rest| {
                !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]?=".contains(c))
            })
        };
        if !self.external.iter().all(is_uri) {
            findings.add("turn.external", "must be URIs like turn:turn.example.org:3478?transport=udp");
        } else if !self.external.is_empty() && self.secret.is_none() {
            findings.add("turn.external", "needs turn.secret too: the shared secret of those servers");
        }
        findings.require(
            (60..=86_400).contains(&self.credential_seconds),
            "turn.credential_seconds",
            "must be 60 to 86400",
        );
        // There are 16,384 relayed ports, and an allocation may need several.
        findings.require((1..=4096).contains(&self.max_allocations), "turn.max_allocations", "must be 1 to 4096");
        findings.require(self.max_per_credential > 0, "turn.max_per_credential", "must be at least 1");
        findings.require(self.max_per_address > 0, "turn.max_per_address", "must be at least 1");
    }
}
