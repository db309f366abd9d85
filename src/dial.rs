//! Dialling: from an endpoint of the configuration or the API to a connection.
//!
//! Owns: the destination guard for names (a name is looked up once, all its addresses are judged, exactly the chosen
//! one is connected to), and TLS. Does not know: the protocol above. Every step has a time limit. The trusted
//! certificates are those of the system, or of the file that `SSL_CERT_FILE` names, and those given to [`trust`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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

/// Time limit of each step: name lookup, TCP connection, TLS handshake.
const STEP: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The lookup failed.
    #[error("the name {host} cannot be looked up: {reason}")]
    Name {
        /// The name.
        host: Host,
        /// The system's error.
        reason: String,
    },
    /// The guard refuses an address. A retry does not change that.
    #[error("{host} may not be connected to: {refused}")]
    Refused {
        /// The host.
        host: Host,
        /// Which address, and why.
        refused: GuardError,
    },
    /// The TCP connection failed.
    #[error("no connection to {endpoint}: {reason}")]
    Connect {
        /// The endpoint.
        endpoint: Endpoint,
        /// The system's error.
        reason: String,
    },
    /// The TLS handshake failed, or the certificate is not trusted.
    #[error("no TLS with {endpoint}: {reason}")]
    Tls {
        /// The endpoint.
        endpoint: Endpoint,
        /// The error.
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

/// Looks up the address to connect to.
///
/// # Errors
/// The name has no address, or the guard refuses one of them.
pub async fn resolve(endpoint: &Endpoint, guard: &Guard) -> Result<SocketAddr, DialError> {
    let addresses: Vec<IpAddr> = match &endpoint.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let failed = |reason: String| DialError::Name { host: endpoint.host.clone(), reason };
            let found = timeout(STEP, tokio::net::lookup_host((name.as_str(), endpoint.port))).await;
            let found = found.map_err(|_| failed("no answer in time".to_owned()))?;
            found.map_err(|error| failed(error.to_string()))?.map(|address| address.ip()).collect()
        }
    };
    let chosen = guard.choose(&addresses);
    let address = chosen.map_err(|refused| DialError::Refused { host: endpoint.host.clone(), refused })?;
    Ok(SocketAddr::new(address, endpoint.port))
}

/// Our address on the route to `remote`. Nothing is sent: the system only looks up the route.
///
/// # Errors
/// There is no route.
pub fn local_address(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// Looks up an endpoint and connects to it.
///
/// # Errors
/// See [`DialError`].
pub async fn connect(endpoint: &Endpoint, tls: bool, guard: &Guard) -> Result<Box<dyn Stream>, DialError> {
    let address = resolve(endpoint, guard).await?;
    connect_to(endpoint, address, tls).await
}

/// Connects to an endpoint at the address that [`resolve`] gave.
///
/// # Errors
/// See [`DialError`].
pub async fn connect_to(endpoint: &Endpoint, address: SocketAddr, tls: bool) -> Result<Box<dyn Stream>, DialError> {
    let failed = |reason: String| DialError::Connect { endpoint: endpoint.clone(), reason };
    let connected = timeout(STEP, TcpStream::connect(address)).await;
    let stream =
        connected.map_err(|_| failed("no answer in time".to_owned()))?.map_err(|error| failed(reason(&error)))?;
    // Small packets of media must not wait for the next one (Nagle).
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
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
        secured.map_err(|_| failed("no answer in time".to_owned()))?.map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(stream))
}

/// A system error in words, without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// The cryptography provider for TLS that does not go through [`connect`].
pub fn crypto() -> Arc<CryptoProvider> {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    CRYPTO.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

/// See [`trust`].
static TRUSTED: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();

/// Trusts more certificates. To be called once, before the first connection.
///
/// # Panics
/// When it is called again.
pub fn trust(certificates: Vec<CertificateDer<'static>>) {
    TRUSTED.set(certificates).expect("certificates are given once");
}

/// The trusted certificates, as DER; read once.
pub fn certificates() -> &'static [CertificateDer<'static>] {
    static FOUND: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "certificate not readable");
        }
        found.certs.extend(TRUSTED.get().into_iter().flatten().cloned());
        found.certs
    })
}

/// The certificates of a PEM file.
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

/// The TLS configuration with [`certificates`]; made once.
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

/// A TLS configuration that trusts these certificates.
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
    async fn only_allowed_addresses_are_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
            let refused = connect(&endpoint(host, port), false, &Guard::default()).await.err().expect("refused");
            assert!(refused.is_final() && refused.to_string().contains("[outputs]"), "{host}: {refused}");
        }
        let mut stream = connect(&endpoint("127.0.0.1", port), false, &open()).await.expect("allowed");
        let (mut accepted, _) = listener.accept().await.expect("connected");
        accepted.write_all(b"hello").await.expect("open");
        let mut received = [0; 5];
        stream.read_exact(&mut received).await.expect("open");
        assert_eq!(&received, b"hello");
        // This server does not speak TLS.
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
