//! The TLS server: HTTPS, WSS, TURN.
//!
//! Owns: handshakes, their limits and timeout, and the server certificate: from files that are reloaded when they
//! change ([`files`]), self-signed ([`self_signed`]), or by ACME ([`acme`]). Does not know: application protocols. TCP
//! connections enter, TLS streams leave. A new certificate applies to new connections.

mod acme;
mod files;
mod self_signed;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::self_signed::certificate as self_signed_certificate;
use crate::config::{self, TlsMode};
use crate::dial;

/// Timeout of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Concurrent handshakes at most; further connections are closed.
const HANDSHAKES_MAX: usize = 256;
/// ALPN of TURN over TLS (RFC 7443).
pub(crate) const ALPN_TURN: &[u8] = b"stun.turn";
/// ALPN of the authority's challenge (RFC 8737 section 3).
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// The TLS acceptor. Clones share one certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    _follower: Option<Arc<Follower>>,
    fingerprint: Option<String>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// The task that renews the certificate; it ends with its last owner.
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tls {
    /// The acceptor as configured; None if TLS is off. `data` is the folder of self-signed and ACME certificates;
    /// `addresses` are our public addresses. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A message that names the fix.
    pub async fn new(settings: &config::Tls, data: &Path, addresses: &[IpAddr]) -> Result<Option<Self>, String> {
        let made = match settings.mode {
            TlsMode::Off => return Ok(None),
            TlsMode::Files => {
                let pair = settings.cert.clone().zip(settings.key.clone());
                let (cert, key) = pair.ok_or("set tls.cert and tls.key to the files")?;
                Self::following(cert, key).await?
            }
            TlsMode::SelfSigned => {
                let (cert, key) = self_signed::files(data, &settings.names, addresses)?;
                Self::following(cert, key).await?
            }
            TlsMode::Acme => {
                let (cert, key) = self_signed::files(data, &settings.names, addresses)?;
                let interim = files::load(&cert, &key).await?;
                let (config, task) = acme::start(settings, &data.join("acme"), interim)?;
                Self::with(config, Some(task), None)
            }
        };
        Ok(Some(made))
    }

    async fn following(cert: PathBuf, key: PathBuf) -> Result<Self, String> {
        let (current, task) = files::follow(cert, key).await?;
        let fingerprint = current.fingerprint();
        Ok(Self::with(server_config(current, &[])?, Some(task), Some(fingerprint)))
    }

    fn with(config: ServerConfig, task: Option<AbortHandle>, fingerprint: Option<String>) -> Self {
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            _follower: task.map(|task| Arc::new(Follower(task))),
            fingerprint,
        }
    }

    /// SHA-256 of the certificate at the start, in the format of browsers; None with ACME.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// When the handshake fails or times out, or too many handshakes are in progress.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let Ok(_place) = self.handshakes.try_acquire() else {
            return Err(io::Error::other("too many TLS handshakes in progress"));
        };
        tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await?
    }
}

/// TLS 1.2 and 1.3 with this certificate resolver; `more` are ALPN protocols besides HTTP and TURN.
fn server_config(resolver: Arc<dyn ResolvesServerCert>, more: &[&[u8]]) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(dial::crypto());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = [ALPN_HTTP, ALPN_TURN].iter().chain(more).map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// SHA-256 of a certificate in the format of browsers.
fn fingerprint(key: &CertifiedKey) -> String {
    sha256(key.cert.first().map_or(&[][..], |cert| cert.as_ref()))
}

fn sha256(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
