//! TLS of the HTTP server and of TURN.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Wrong;

/// TLS of the HTTP server and of TURN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Where the certificate comes from.
    pub mode: TlsMode,
    /// The file of the certificate and its chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The file of its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What others call this machine.
    pub names: Vec<String>,
    /// Where ACME is spoken.
    pub acme_directory: String,
    /// A file of the certificates, PEM, that the authority's own server is known by; the system's where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_root: Option<PathBuf>,
    /// Whom the authority writes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_email: Option<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// There is no TLS.
    #[default]
    Off,
    /// From files.
    Files,
    /// Made here.
    SelfSigned,
    /// From an authority that speaks ACME (RFC 8555).
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
    /// The first value that makes no sense.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, why: &str| Err(Wrong { key, why: why.to_owned() });
        match (self.mode, &self.cert, &self.key) {
            (TlsMode::Files, Some(_), Some(_)) => {}
            (TlsMode::Files, None, _) => return wrong("tls.mode", "`files` needs tls.cert and tls.key too"),
            (_, Some(_), None) => return wrong("tls.cert", "needs tls.key too: the file of its key"),
            (_, None, Some(_)) => return wrong("tls.key", "needs tls.cert too: the file of its certificate"),
            (_, Some(_), Some(_)) => {
                return wrong("tls.cert", "is for tls.mode = \"files\": set that, or leave it out");
            }
            (_, None, None) => {}
        }
        if self.mode == TlsMode::Acme && self.names.is_empty() {
            return wrong(
                "tls.mode",
                "`acme` needs tls.names: the names the certificate is for, [\"call.example.org\"]",
            );
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-.:*".contains(c);
        if self.names.iter().any(|name| name.is_empty() || !name.chars().all(allowed)) {
            return wrong("tls.names", "must be names or addresses without scheme and port: call.example.org");
        }
        if !self.acme_directory.starts_with("https://") {
            return wrong("tls.acme_directory", "must be an https:// URL");
        }
        if self.mode == TlsMode::Acme && self.names.iter().any(|name| name.contains('*')) {
            return wrong("tls.names", "an authority gives no certificate for `*` by TLS-ALPN-01: name each host");
        }
        Ok(())
    }
}
