//! A certificate from an authority that speaks ACME (RFC 8555), proven at our own TLS port (RFC 8737), renewed in time.
//!
//! Owns: the task that asks for it, and where its account and certificates are kept. Does not know: the protocol; that is the
//! crate's. Until there is a certificate, handshakes fail.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use futures::StreamExt;
use rustls::ServerConfig;
use rustls_acme::AcmeConfig;
use rustls_acme::caches::DirCache;
use tokio::task::AbortHandle;

use super::server_config;
use crate::{config, dial};

/// The protocol by which the authority asks (RFC 8737 section 3).
const ALPN_ACME: &[u8] = b"acme-tls/1";

/// Begins to ask; what it gets is kept in `folder`.
///
/// # Errors
/// When the folder cannot be made, or this machine knows no authorities at all.
pub(super) fn start(settings: &config::Tls, folder: &Path) -> Result<(ServerConfig, AbortHandle), String> {
    // Private keys are kept there.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("{}: {error}; choose another folder by --data-dir", folder.display()))?;
    let client = dial::tls_config().map_err(String::clone)?;
    let contacts = settings.acme_email.iter().map(|email| format!("mailto:{email}"));
    let mut state = AcmeConfig::new_with_client_config(&settings.names, client)
        .contact(contacts)
        .directory(&settings.acme_directory)
        .cache(DirCache::new(folder.to_owned()))
        .state();
    let config = server_config(state.resolver(), &[ALPN_ACME])?;
    let task = tokio::spawn(async move {
        while let Some(event) = state.next().await {
            match event {
                Ok(done) => tracing::info!(?done, "certificate by ACME"),
                Err(error) => tracing::warn!(%error, "no certificate by ACME; it is tried again"),
            }
        }
    });
    Ok((config, task.abort_handle()))
}
