//! HTTP requests for GStreamer: the only HTTP client of this process.
//!
//! Owns: [`HttpFetcher`]. Does not know: the origin of a URL: a moderator, a redirect or a playlist. In: URLs. Out:
//! response bodies. Each name is resolved once and checked by the guard, and the connection goes to the checked
//! address.

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::body_limit::BodyLimit;
use super::gunzip;
use crate::codec::intake::{Exchange, Fetch, Fetched};
use crate::destination::{Endpoint, Guard, Host};
use crate::dial;

/// Timeout of resolution, connection and response header. The body has no timeout: the reader may cancel the request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most redirects of one request.
const MAX_REDIRECTS: u32 = 5;

/// Makes HTTP requests to addresses that the guard allows.
#[derive(Debug)]
pub(super) struct HttpFetcher {
    guard: Arc<Guard>,
    network: Handle,
    limit: Arc<BodyLimit>,
}

impl HttpFetcher {
    /// `network` is the runtime for name resolution.
    pub(super) fn new(guard: Guard, network: Handle) -> Self {
        Self { guard: Arc::new(guard), network, limit: Arc::default() }
    }
}

impl Fetch for HttpFetcher {
    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(Request { agent: Mutex::new(Some(agent(&self.guard, &self.network))), limit: self.limit.clone() })
    }
}

/// The system's root certificates, loaded once.
fn roots() -> Arc<Vec<Certificate<'static>>> {
    static ROOTS: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    let own = |der: &[u8]| Certificate::from_der(der).to_owned();
    ROOTS.get_or_init(|| Arc::new(dial::certificates().iter().map(|der| own(der)).collect())).clone()
}

fn agent(guard: &Arc<Guard>, network: &Handle) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(MAX_REDIRECTS)
        .timeout_resolve(Some(RESPONSE_TIMEOUT))
        .timeout_connect(Some(RESPONSE_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .user_agent(concat!("commingle/", env!("CARGO_PKG_VERSION")))
        .tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::Specific(roots()))
                .unversioned_rustls_crypto_provider(dial::crypto())
                .build(),
        )
        .build();
    Agent::with_parts(
        config,
        DefaultConnector::default(),
        GuardedResolver { guard: guard.clone(), network: network.clone() },
    )
}

/// Resolves names to addresses that the guard allows.
#[derive(Debug)]
struct GuardedResolver {
    guard: Arc<Guard>,
    network: Handle,
}

impl Resolver for GuardedResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let error_of = |reason: String| Error::Other(Box::new(ResolveError(reason)));
        let host = uri.host().ok_or_else(|| error_of("the URL has no host".into()))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = bare.parse().map_or_else(|_| Host::Name(bare.to_owned()), Host::Address);
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let endpoint = Endpoint { host, port: uri.port_u16().unwrap_or(usual) };
        let resolved = self.network.block_on(dial::resolve(&endpoint, &self.guard));
        let address = resolved.map_err(|error| error_of(error.to_string()))?;
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}

/// Why a name has no usable address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ResolveError(String);

struct Request {
    /// None after cancellation.
    agent: Mutex<Option<Agent>>,
    limit: Arc<BodyLimit>,
}

impl Exchange for Request {
    fn get(&self, url: &str, from: u64) -> Result<Fetched, String> {
        let agent = self.agent.lock().clone().ok_or("the request was cancelled")?;
        let mut request = agent.get(url);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| describe(&error))?;
        let partial = response.status().as_u16() == 206;
        if from > 0 && !partial {
            return Err("the server does not support range requests".into());
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let length = match header("content-range") {
            Some(range) => range.rsplit_once('/').and_then(|(_, whole)| whole.parse().ok()),
            None => header("content-length").and_then(|length| length.parse().ok()),
        };
        let ranges = partial || header("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"));
        let encoding = header("content-encoding").unwrap_or_default().to_ascii_lowercase();
        if !matches!(encoding.as_str(), "" | "identity" | "gzip" | "x-gzip") {
            return Err("the response has a content encoding other than gzip".into());
        }
        let url = ureq::ResponseExt::get_uri(&response).to_string();
        let body: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
        let broke_off = |_| "the connection broke off".to_owned();
        if from > 0 {
            let body = self.limit.limited(body).map_err(broke_off)?;
            return Ok(Fetched { body, length, ranges: ranges && length.is_some(), url });
        }
        let (body, compressed) = gunzip::decompressed(body).map_err(broke_off)?;
        let body = self.limit.limited(body).map_err(broke_off)?;
        // Length and positions are those of the compressed bytes.
        let length = length.filter(|_| !compressed && matches!(encoding.as_str(), "" | "identity"));
        Ok(Fetched { body, length, ranges: ranges && length.is_some(), url })
    }

    fn cancel(&self) {
        if let Some(agent) = self.agent.lock().take() {
            agent.shutdown();
        }
    }
}

/// The error as text without the URL, which may contain secrets.
fn describe(error: &Error) -> String {
    match error {
        Error::StatusCode(code) => format!("the server answered {code}"),
        Error::TooManyRedirects | Error::RedirectFailed => "the server redirects too often".into(),
        Error::Timeout(_) => format!("the server did not answer within {} s", RESPONSE_TIMEOUT.as_secs()),
        Error::Io(error) => format!("connection failed: {}", error.kind()),
        Error::Other(error) => error.to_string(),
        Error::Tls(_) | Error::Rustls(_) => "TLS handshake failed: certificate or protocol not accepted".into(),
        _ => "malformed HTTP response".into(),
    }
}
