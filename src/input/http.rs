//! HTTP, for GStreamer: the only requests this process makes.
//!
//! Owns: [`Web`], which makes them. Does not know: what is fetched, or who named it: a moderator, a redirection, a playlist.
//! Every one of them has its name resolved once, judged by the guard, and is connected to the address that was judged.

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

use crate::codec::intake::{Exchange, Fetch, Fetched};
use crate::destination::{Endpoint, Guard, Host};
use crate::dial;

/// How long a server may take to answer at all. Its body may take as long as it likes: whoever waits for it cancels.
const ANSWER: Duration = Duration::from_secs(10);
/// Most redirections of one request.
const REDIRECTIONS: u32 = 5;

/// Makes HTTP requests to where the guard allows.
#[derive(Debug)]
pub(super) struct Web {
    guard: Arc<Guard>,
    network: Handle,
}

impl Web {
    /// Names are looked up on this runtime.
    pub(super) fn new(guard: Guard, network: Handle) -> Self {
        Self { guard: Arc::new(guard), network }
    }
}

impl Fetch for Web {
    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(Request { agent: Mutex::new(Some(agent(&self.guard, &self.network))) })
    }
}

/// The system's certificates; made once.
fn roots() -> Arc<Vec<Certificate<'static>>> {
    static ROOTS: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    let own = |der: &[u8]| Certificate::from_der(der).to_owned();
    ROOTS.get_or_init(|| Arc::new(dial::certificates().iter().map(|der| own(der)).collect())).clone()
}

fn agent(guard: &Arc<Guard>, network: &Handle) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(REDIRECTIONS)
        .timeout_resolve(Some(ANSWER))
        .timeout_connect(Some(ANSWER))
        .timeout_recv_response(Some(ANSWER))
        .user_agent(concat!("commingle/", env!("CARGO_PKG_VERSION")))
        .tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::Specific(roots()))
                .unversioned_rustls_crypto_provider(dial::crypto())
                .build(),
        )
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Guarded { guard: guard.clone(), network: network.clone() })
}

/// Resolves names to what the guard allows.
#[derive(Debug)]
struct Guarded {
    guard: Arc<Guard>,
    network: Handle,
}

impl Resolver for Guarded {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let refuse = |reason: String| Error::Other(Box::new(Refused(reason)));
        let host = uri.host().ok_or_else(|| refuse("the URL has no host".into()))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = bare.parse().map_or_else(|_| Host::Name(bare.to_owned()), Host::Address);
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let endpoint = Endpoint { host, port: uri.port_u16().unwrap_or(usual) };
        let resolved = self.network.block_on(dial::resolve(&endpoint, &self.guard));
        let address = resolved.map_err(|error| refuse(error.to_string()))?;
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}

/// Why an address is not connected to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

struct Request {
    /// None once it is cancelled.
    agent: Mutex<Option<Agent>>,
}

impl Exchange for Request {
    fn get(&self, url: &str, from: u64) -> Result<Fetched, String> {
        let agent = self.agent.lock().clone().ok_or("it was cancelled")?;
        let mut request = agent.get(url);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| words(&error))?;
        let partial = response.status().as_u16() == 206;
        if from > 0 && !partial {
            return Err("the server does not send parts of a file".into());
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let length = match header("content-range") {
            Some(range) => range.rsplit_once('/').and_then(|(_, whole)| whole.parse().ok()),
            None => header("content-length").and_then(|length| length.parse().ok()),
        };
        let ranges = partial || header("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"));
        let url = ureq::ResponseExt::get_uri(&response).to_string();
        let body: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
        Ok(Fetched { body, length, ranges: ranges && length.is_some(), url })
    }

    fn cancel(&self) {
        if let Some(agent) = self.agent.lock().take() {
            agent.shutdown();
        }
    }
}

/// What went wrong, without the URL.
fn words(error: &Error) -> String {
    match error {
        Error::StatusCode(code) => format!("the server answered {code}"),
        Error::TooManyRedirects | Error::RedirectFailed => "the server redirects too often".into(),
        Error::Timeout(_) => format!("the server did not answer within {} s", ANSWER.as_secs()),
        Error::Io(error) => format!("no connection: {}", error.kind()),
        Error::Other(error) => error.to_string(),
        Error::Tls(_) | Error::Rustls(_) => "the server's certificate or its TLS is not accepted".into(),
        _ => "the answer is not understood".into(),
    }
}
