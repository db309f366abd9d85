//! A certificate from files, read again when they change.
//!
//! Owns: reading PEM, and noticing that there is something new. Does not know: who writes the files. What cannot be used leaves
//! the former certificate in place, with a word in the log: whoever renews one writes two files, one after the other.

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

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The certificate that is shown now.
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

/// The texts of both files.
type Pair = (Vec<u8>, Vec<u8>);

/// Reads the certificate once.
///
/// # Errors
/// When it cannot be used.
pub(super) async fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, String> {
    certified(&read(cert, key).await?, cert, key)
}

/// Reads the certificate, and follows its files.
///
/// # Errors
/// When it cannot be used now; later that is only logged.
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
                    tracing::info!(fingerprint = fingerprint(&certified), "a new certificate is shown");
                    shown.0.store(Arc::new(certified));
                    seen = pair;
                    complained.clear();
                }
                Err(error) if error != complained => {
                    tracing::warn!("{error}; the former certificate stays");
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
        let failed = |error: io::Error| format!("{}: {error}; name a readable PEM file by {name}", path.display());
        tokio::fs::read(path).await.map_err(failed)
    };
    Ok((read(cert, "tls.cert").await?, read(key, "tls.key").await?))
}

fn certified((cert_text, key_text): &Pair, cert: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_text).collect();
    let chain = chain.map_err(|error| format!("{}: {error}", cert.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: there is no CERTIFICATE in it; it must be PEM, the whole chain", cert.display()));
    }
    let private = PrivateKeyDer::from_pem_slice(key_text)
        .map_err(|error| format!("{}: {error}; it must be a private key in PEM", key.display()))?;
    CertifiedKey::from_der(chain, private, &dial::crypto())
        .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))
}
