//! Dialling: from a host that somebody wrote to a connection with it.
//!
//! Owns: that a name is looked up once, that every address it has is judged before any is used, and that exactly the one
//! that was chosen is connected to; TLS with the system's certificates. Does not know: what is spoken then. Everything has
//! a time limit. The certificates are those of the system, or of the file that `SSL_CERT_FILE` names, and those that this
//! process was told to [`trust`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::destination::{Endpoint, Guard, GuardError, Host};

/// How long a name may take to be looked up, a connection to be made, and TLS to be agreed upon.
const STEP: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not looked up.
    #[error("the name {host} cannot be looked up: {reason}")]
    Name {
        /// The name.
        host: Host,
        /// What the system says.
        reason: String,
    },
    /// Looked up, and not to be connected to. It will not be otherwise in a moment.
    #[error("{host} may not be connected to: {refused}")]
    Refused {
        /// The host.
        host: Host,
        /// Why.
        refused: GuardError,
    },
    /// Nobody there.
    #[error("no connection to {endpoint}: {reason}")]
    Connect {
        /// Where to.
        endpoint: Endpoint,
        /// What the system says.
        reason: String,
    },
    /// Somebody there who is not who he should be, or does not speak TLS.
    #[error("no TLS with {endpoint}: {reason}")]
    Tls {
        /// Where to.
        endpoint: Endpoint,
        /// What is wrong.
        reason: String,
    },
}

impl DialError {
    /// Whether the operator must change something before it is worth another try.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Refused { refused: GuardError::Address { .. }, .. })
    }
}

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The address to connect to.
///
/// # Errors
/// The name has none, or one of them may not be connected to.
pub async fn resolve(endpoint: &Endpoint, guard: &Guard) -> Result<SocketAddr, DialError> {
    let addresses: Vec<IpAddr> = match &endpoint.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let failed = |reason: String| DialError::Name { host: endpoint.host.clone(), reason };
            let found = timeout(STEP, tokio::net::lookup_host((name.as_str(), endpoint.port))).await;
            let found = found.map_err(|_| failed("nobody answers".to_owned()))?;
            found.map_err(|error| failed(error.to_string()))?.map(|address| address.ip()).collect()
        }
    };
    let chosen = guard.choose(&addresses);
    let address = chosen.map_err(|refused| DialError::Refused { host: endpoint.host.clone(), refused })?;
    Ok(SocketAddr::new(address, endpoint.port))
}

/// Connects to an endpoint.
///
/// # Errors
/// There is nobody, or nobody who may be connected to.
pub async fn connect(endpoint: &Endpoint, tls: bool, guard: &Guard) -> Result<Box<dyn Stream>, DialError> {
    let address = resolve(endpoint, guard).await?;
    let failed = |reason: String| DialError::Connect { endpoint: endpoint.clone(), reason };
    let connected = timeout(STEP, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| failed("nobody answers".to_owned()))?.map_err(|error| failed(reason(&error)))?;
    // Media is sent in pieces as it comes: none waits for the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    if !tls {
        return Ok(Box::new(stream));
    }
    let failed = |reason: String| DialError::Tls { endpoint: endpoint.clone(), reason };
    let name = match &endpoint.host {
        Host::Name(name) => {
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(|error| failed(error.to_string()))?
        }
        Host::Address(address) => ServerName::IpAddress((*address).into()),
    };
    let connector = TlsConnector::from(tls_config().map_err(|reason| failed(reason.clone()))?);
    let secured = timeout(STEP, connector.connect(name, stream)).await;
    let stream =
        secured.map_err(|_| failed("nobody answers".to_owned()))?.map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(stream))
}

/// A system's words without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// The cryptography of TLS, for who speaks TLS in a way of his own.
pub fn crypto() -> Arc<CryptoProvider> {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    CRYPTO.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

/// What else this process knows servers by; see [`trust`].
static TRUSTED: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();

/// From now on servers are known by these too. Told once, by a program's beginning: after a first connection it is too late.
///
/// # Panics
/// When it is told again.
pub fn trust(certificates: Vec<CertificateDer<'static>>) {
    TRUSTED.set(certificates).expect("a program says once what it trusts");
}

/// The certificates that servers are known by, as DER; read once.
pub fn certificates() -> &'static [CertificateDer<'static>] {
    static FOUND: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "certificates cannot be read");
        }
        found.certs.extend(TRUSTED.get().into_iter().flatten().cloned());
        found.certs
    })
}

/// The certificates of a file, PEM.
///
/// # Errors
/// In words, with the file: it cannot be read, or has none.
pub fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let text = std::fs::read(file).map_err(|error| failed(&error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(failed(&"there is no CERTIFICATE in it; it must be PEM")),
        found => found.map_err(|error| failed(&error)),
    }
}

/// How TLS is spoken; made once.
///
/// # Errors
/// In words: the system has no certificates.
pub fn tls_config() -> Result<Arc<ClientConfig>, &'static String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| match tls_config_for(certificates()) {
        Err(_) => Err("this machine has no certificates to know servers by: install ca-certificates".to_owned()),
        config => config,
    });
    config.as_ref().map(Arc::clone)
}

/// How TLS is spoken with whoever is known by one of these certificates.
///
/// # Errors
/// In words: none of them can be used.
pub fn tls_config_for(certificates: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err("none of the certificates can be used to know servers by".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(crypto());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
        Endpoint { host, port }
    }

    fn open() -> Guard {
        Guard { allow_private: true, ..Guard::default() }
    }

    #[tokio::test]
    async fn only_what_is_allowed_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
            let refused = connect(&endpoint(host, port), false, &Guard::default()).await.err().expect("refused");
            assert!(refused.is_final() && refused.to_string().contains("[outputs]"), "{host}: {refused}");
        }
        let mut stream = connect(&endpoint("127.0.0.1", port), false, &open()).await.expect("allowed");
        let (mut accepted, _) = listener.accept().await.expect("connected");
        accepted.write_all(b"hello").await.expect("open");
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.expect("open");
        assert_eq!(&heard, b"hello");
        // Whoever listens there does not speak TLS.
        let answer = tokio::spawn(async move {
            let (mut accepted, _) = listener.accept().await.expect("connected");
            accepted.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("open");
        });
        let error = connect(&endpoint("127.0.0.1", port), true, &open()).await.err().expect("no TLS");
        assert!(matches!(error, DialError::Tls { .. }) && !error.is_final(), "{error}");
        answer.await.expect("no panic");
        let error = connect(&endpoint("127.0.0.1", port), false, &open()).await.err().expect("nobody");
        assert!(error.to_string().contains("nothing listens"), "{error}");
    }
}
