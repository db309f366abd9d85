//! Section `[tls]`: TLS of the HTTP server and of TURN.
//!
//! Owns: its keys and their validation. Does not know: certificates.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Findings;

/// Section `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Source of the certificate.
    pub mode: TlsMode,
    /// PEM file of the certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM file of the private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// DNS names and addresses of the certificate.
    pub names: Vec<String>,
    /// Directory URL of the ACME server.
    pub acme_directory: String,
    /// PEM file of root certificates for the ACME server; the system's roots if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_root: Option<PathBuf>,
    /// Contact address of the ACME account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_email: Option<String>,
}

/// Source of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// TLS is disabled.
    #[default]
    Off,
    /// `cert` and `key`.
    Files,
    /// A self-signed certificate, generated at start.
    SelfSigned,
    /// An ACME server (RFC 8555).
    Acme,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: TlsMode::Off,
            cert: None,
            key: None,
            names: Vec::new(),
            acme_directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            acme_root: None,
            acme_email: None,
        }
    }
}

impl Tls {
    /// Validates the section.
    pub(super) fn check(&self, findings: &mut Findings) {
        match (self.mode, &self.cert, &self.key) {
            (TlsMode::Files, Some(_), Some(_)) => {}
            (TlsMode::Files, None, _) => findings.add("tls.mode", "`files` needs tls.cert and tls.key too"),
            (_, Some(_), None) => findings.add("tls.cert", "needs tls.key too: the file of its private key"),
            (_, None, Some(_)) => findings.add("tls.key", "needs tls.cert too: the file of its certificate"),
            (_, Some(_), Some(_)) => {
                findings.add("tls.cert", "is used with tls.mode = \"files\" only: set that, or remove tls.cert");
            }
            (_, None, None) => {}
        }
        findings.require(
            self.mode != TlsMode::Acme || !self.names.is_empty(),
            "tls.mode",
            "`acme` needs tls.names: the names of the certificate, such as [\"call.example.org\"]",
        );
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-.:*".contains(c);
        findings.require(
            self.names.iter().all(|name| !name.is_empty() && name.chars().all(allowed)),
            "tls.names",
            "must be names or addresses without scheme and port: call.example.org",
        );
        findings.require(self.acme_directory.starts_with("https://"), "tls.acme_directory", "must be an https:// URL");
        findings.require(
            self.mode != TlsMode::Acme || !self.names.iter().any(|name| name.contains('*')),
            "tls.names",
            "TLS-ALPN-01 does not support wildcard certificates: list each host",
        );
    }
}
