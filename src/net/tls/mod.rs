//! TLS for whoever connects to us: HTTPS, WSS, TURN.
//!
//! Owns: handshakes, how many may be under way and how long one may take, and the certificate that is shown: from files that
//! are read again when they change ([`files`]), self-signed ([`self_signed`]), or fetched by ACME ([`acme`]). Does not know:
//! what is spoken inside. A new certificate is for new connections; those that are open go on.

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

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way; whoever comes then is closed.
const HANDSHAKES_MAX: usize = 256;
/// TURN inside TLS (RFC 7443).
pub(crate) const ALPN_TURN: &[u8] = b"stun.turn";
/// By what an authority asks whether a name is ours (RFC 8737 section 3).
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Makes TLS of connections. Clones are the same.
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

/// The task that keeps the certificate fresh; it ends with the last who uses it.
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tls {
    /// As configured; None when TLS is off. `data` is where a self-signed certificate, or what ACME brings, is kept;
    /// `addresses` are what others may reach us by. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// In words, with what to do.
    pub async fn new(settings: &config::Tls, data: &Path, addresses: &[IpAddr]) -> Result<Option<Self>, String> {
        let made = match settings.mode {
            TlsMode::Off => return Ok(None),
            TlsMode::Files => {
                let pair = settings.cert.clone().zip(settings.key.clone());
                let (cert, key) = pair.ok_or("tls.cert and tls.key must name the files")?;
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

    /// The SHA-256 of the certificate that was there at the start, as browsers show it; None where ACME fetches one.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the other side does not speak TLS, or too slowly, or too many others do just now.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let Ok(_place) = self.handshakes.try_acquire() else {
            return Err(io::Error::other("too many TLS handshakes are under way"));
        };
        tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await?
    }
}

/// TLS 1.2 and 1.3 with what shows certificates; `more` are protocols besides HTTP and TURN.
fn server_config(resolver: Arc<dyn ResolvesServerCert>, more: &[&[u8]]) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(dial::crypto());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = [ALPN_HTTP, ALPN_TURN].iter().chain(more).map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The SHA-256 of a certificate, as browsers show it.
fn fingerprint(key: &CertifiedKey) -> String {
    sha256(key.cert.first().map_or(&[][..], |cert| cert.as_ref()))
}

fn sha256(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
