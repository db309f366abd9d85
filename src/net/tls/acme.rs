//! Certificates from an ACME authority (RFC 8555), validated at our own TLS port (RFC 8737) and renewed in time.
//!
//! Owns: the ACME task, the folder of its account and certificates, and the interim certificate. Does not know: the
//! protocol, which the crate implements. Until the authority has issued a certificate a self-signed one is used:
//! browsers warn, but can connect.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_acme::acme::{AcmeError, Identifier};
use rustls_acme::caches::DirCache;
use rustls_acme::{AcmeConfig, EventError, EventOk, OrderError, ResolvesServerCertAcme, is_tls_alpn_challenge};
use tokio::task::AbortHandle;

use super::{ALPN_ACME, server_config};
use crate::{config, dial};

/// Starts the ACME task, which keeps its state in `folder`. The certificate `interim` is used until one is issued.
///
/// # Errors
/// When the folder cannot be created, or the authority's root certificate is unusable.
pub(super) fn start(
    settings: &config::Tls,
    folder: &Path,
    interim: CertifiedKey,
) -> Result<(ServerConfig, AbortHandle), String> {
    // Private keys are kept there.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("{}: {error}; choose another folder by --data-dir", folder.display()))?;
    let client = match &settings.acme_root {
        None => dial::tls_config().map_err(String::clone)?,
        Some(file) => {
            let known = dial::certificates_of(file).and_then(|roots| dial::tls_config_for(&roots));
            known.map_err(|why| format!("{why}; set tls.acme_root to the authority's certificate"))?
        }
    };
    let contacts = settings.acme_email.iter().map(|email| format!("mailto:{email}"));
    let mut state = AcmeConfig::new_with_client_config(&settings.names, client)
        .contact(contacts)
        .directory(&settings.acme_directory)
        .cache(DirCache::new(folder.to_owned()))
        .state();
    let shown = Shown { given: state.resolver(), interim: Arc::new(interim) };
    let config = server_config(Arc::new(shown), &[ALPN_ACME])?;
    let (names, directory) = (settings.names.join(", "), settings.acme_directory.clone());
    let task = tokio::spawn(async move {
        let mut meanwhile = "a self-signed certificate is used meanwhile";
        while let Some(event) = state.next().await {
            match event {
                Ok(EventOk::DeployedNewCert) => {
                    tracing::info!(names, directory, "ACME certificate issued");
                    meanwhile = "the former certificate is used meanwhile";
                }
                Ok(EventOk::DeployedCachedCert) => {
                    tracing::info!(names, "ACME certificate loaded");
                    meanwhile = "the former certificate is used meanwhile";
                }
                Ok(EventOk::CertCacheStore | EventOk::AccountCacheStore) => {}
                Err(error) => {
                    let why = words(&error, &directory);
                    tracing::warn!("ACME failed: {why} ({meanwhile}; retried with back-off)");
                }
            }
        }
    });
    Ok((config, task.abort_handle()))
}

/// The certificate resolver: the issued certificate or the challenge, before that the interim certificate.
#[derive(Debug)]
struct Shown {
    given: Arc<ResolvesServerCertAcme>,
    interim: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // To the authority's question there is one answer.
        let is_question = is_tls_alpn_challenge(&hello);
        self.given.resolve(hello).or_else(|| (!is_question).then(|| Arc::clone(&self.interim)))
    }
}

/// The error in words, with the fix.
fn words(error: &EventError<io::Error, io::Error>, directory: &str) -> String {
    let unproven = |name: &str, why: &str| {
        format!(
            "the authority cannot see that {name} is this server ({why}); its DNS, firewall and forwarded ports must lead \
             port 443 of that name to the port of HTTPS here"
        )
    };
    match error {
        EventError::Order(OrderError::Acme(AcmeError::HttpRequest(error))) => {
            let error = error.to_string();
            match error.strip_prefix("non 2xx http status: ") {
                Some(refusal) => format!(
                    "the authority at {directory} refuses: {}; check tls.names and tls.acme_email",
                    detail(refusal).as_deref().unwrap_or(refusal)
                ),
                None => format!(
                    "the authority at {directory} cannot be asked: {error}; see that tls.acme_directory is right, and \
                     tls.acme_root where it is a private authority's"
                ),
            }
        }
        EventError::Order(OrderError::BadAuth(auth)) => {
            let Identifier::Dns(name) = &auth.identifier;
            let why = auth.challenges.iter().find_map(|challenge| challenge.error.as_ref()?.detail.as_deref());
            unproven(name, why.unwrap_or("no reason given"))
        }
        EventError::Order(OrderError::TooManyAttemptsAuth(name)) => unproven(name, "too many attempts"),
        EventError::Order(OrderError::BadOrder(order)) => {
            let why = order.error.as_ref().and_then(|problem| problem.detail.as_deref());
            format!(
                "the authority at {directory} issued no certificate: {}; check tls.names",
                why.unwrap_or("no reason given")
            )
        }
        error => error.to_string(),
    }
}

/// The detail of a problem document (RFC 7807) in the crate's error, which is a status and the quoted body.
fn detail(refusal: &str) -> Option<String> {
    let body: String = serde_json::from_str(refusal.split_once(' ')?.1).ok()?;
    let problem: serde_json::Value = serde_json::from_str(&body).ok()?;
    problem["detail"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_contains_the_detail_of_the_authority() {
        let body = "{\n \"type\": \"urn:ietf:params:acme:error:rateLimited\",\n \"detail\": \"too many\" }";
        assert_eq!(detail(&format!("429 {body:?}")).as_deref(), Some("too many"));
        for wrong in ["", "429", "502 \"<html>\"", "400 \"{}\"", "400 {}"] {
            assert_eq!(detail(wrong), None, "{wrong}");
        }
    }
}
