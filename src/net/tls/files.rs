//! A certificate from files, reloaded when they change.
//!
//! Owns: reading PEM, and detecting changes. Does not know: connections. Unusable files leave the former certificate in
//! place and are logged, because a renewal writes two files one after the other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::task::AbortHandle;

use super::fingerprint;
use crate::dial;

/// Interval at which the files are read.
const LOOK: Duration = Duration::from_secs(2);

/// The current certificate.
#[derive(Debug)]
pub(super) struct Current(ArcSwap<CertifiedKey>);

impl Current {
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.0.load())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The contents of both files.
type Pair = (Vec<u8>, Vec<u8>);

/// Reads the certificate once.
///
/// # Errors
/// When it cannot be used.
pub(super) async fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, String> {
    certified(&read(cert, key).await?, cert, key)
}

/// Reads the certificate, and reloads it when its files change.
///
/// # Errors
/// When it is unusable now; later errors are only logged.
pub(super) async fn follow(cert: PathBuf, key: PathBuf) -> Result<(Arc<Current>, AbortHandle), String> {
    let mut seen = read(&cert, &key).await?;
    let first = certified(&seen, &cert, &key)?;
    let current = Arc::new(Current(ArcSwap::from_pointee(first)));
    let shown = Arc::clone(&current);
    let task = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(LOOK);
        let mut complained = String::new();
        loop {
            ticks.tick().await;
            let loaded = match read(&cert, &key).await {
                Ok(pair) if pair == seen => continue,
                Ok(pair) => certified(&pair, &cert, &key).map(|certified| (pair, certified)),
                Err(error) => Err(error),
            };
            match loaded {
                Ok((pair, certified)) => {
                    tracing::info!(fingerprint = fingerprint(&certified), "certificate reloaded");
                    shown.0.store(Arc::new(certified));
                    seen = pair;
                    complained.clear();
                }
                Err(error) if error != complained => {
                    tracing::warn!("{error}; the former certificate is kept");
                    complained = error;
                }
                Err(_) => {}
            }
        }
    });
    Ok((current, task.abort_handle()))
}

async fn read(cert: &Path, key: &Path) -> Result<Pair, String> {
    let read = async |path: &Path, name: &str| {
        let failed = |error: io::Error| format!("{}: {error}; set {name} to a readable PEM file", path.display());
        tokio::fs::read(path).await.map_err(failed)
    };
    Ok((read(cert, "tls.cert").await?, read(key, "tls.key").await?))
}

fn certified((cert_text, key_text): &Pair, cert: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_text).collect();
    let chain = chain.map_err(|error| format!("{}: {error}", cert.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: no CERTIFICATE found; it must be PEM with the whole chain", cert.display()));
    }
    let private = PrivateKeyDer::from_pem_slice(key_text)
        .map_err(|error| format!("{}: {error}; it must be a private key in PEM", key.display()))?;
    CertifiedKey::from_der(chain, private, &dial::crypto())
        .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))
}
