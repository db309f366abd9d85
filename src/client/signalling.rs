//! WHIP (RFC 9725) and WHEP requests of a client: POST an offer, PATCH to restart ICE, DELETE the session.
//!
//! Owns: requests, redirections, the meaning of status codes. Does not know: SDP. For the server and for each
//! redirection, the host name is resolved once, the guard checks its addresses, and the connection uses an address that
//! was checked. No error contains a URL or a token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use ureq::config::Config;
use ureq::http::{Request, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use crate::destination::{Guard, Web};
use crate::dial::{self, DialError};
use crate::secret::Secret;

/// Longest time of a request, with its response.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest body of a response in bytes.
const ANSWER_MAX: u64 = 64 << 10;
/// Most redirections followed.
const HOPS_MAX: usize = 3;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignallingError {
    /// The server cannot be connected to.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server responded with this status, 400 to 499; a retry would get the same.
    #[error("the server refuses ({0}): are URL and token right?")]
    Refused(u16),
    /// Any other failure; a retry may succeed.
    #[error("the request to the server failed: {0}")]
    Failed(String),
}

/// The body of a POST or PATCH.
enum RequestBody {
    /// An SDP offer.
    Offer(String),
    /// An SDP fragment with new ICE credentials (RFC 9725 section 4.3.3).
    Restart(String),
}

/// The session resource of a server (RFC 9725 section 4.2).
#[derive(Clone)]
pub(crate) struct SessionResource {
    /// The SDP answer.
    pub(crate) answer: String,
    /// The values of the `Link` headers of the response, among them the ICE servers.
    pub(crate) links: Vec<String>,
    /// URL of the session.
    resource: Web,
    /// The address of its host that the guard has checked.
    address: SocketAddr,
    /// Bearer token of the requests.
    token: Option<Secret>,
}

/// Posts an offer, following redirections.
///
/// # Errors
/// The server is not reached, or creates no session.
pub(crate) async fn begin(
    server: &Web,
    token: Option<&Secret>,
    guard: &Guard,
    offer: &str,
) -> Result<SessionResource, SignallingError> {
    // The endpoint, then where redirections lead.
    let mut to = server.clone();
    for _ in 0..=HOPS_MAX {
        let address = dial::resolve(&to.endpoint, guard).await?;
        // Another host, or one without TLS, does not get the token.
        let token = token.filter(|_| to.endpoint.host == server.endpoint.host && to.tls >= server.tls).cloned();
        let reply = request("POST", &to, address, token.as_ref(), Some(RequestBody::Offer(offer.to_owned()))).await?;
        let Reply { status, location, links, body } = reply;
        let join = |location: &str| {
            to.join(location).map_err(|_| SignallingError::Failed("its Location header is not a URL".to_owned()))
        };
        match status {
            200 | 201 => {
                let resource = join(&location)?;
                // If the session is on another host or port, its address is resolved and checked too.
                let address = if resource.endpoint == to.endpoint {
                    address
                } else {
                    dial::resolve(&resource.endpoint, guard).await?
                };
                return Ok(SessionResource { answer: body, links, resource, address, token });
            }
            307 | 308 => to = join(&location)?,
            // These may be different at a retry; other statuses from 400 to 499 are not.
            408 | 409 | 425 | 429 => return Err(SignallingError::Failed(format!("it answers with {status}"))),
            400..500 => return Err(SignallingError::Refused(status)),
            _ => return Err(SignallingError::Failed(format!("it answers with {status}"))),
        }
    }
    Err(SignallingError::Failed("it redirects too often".to_owned()))
}

impl SessionResource {
    /// The address of the session's host.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests an ICE restart with the client's SDP fragment; returns the server's fragment.
    ///
    /// # Errors
    /// The server refuses, or is not reached.
    pub(crate) async fn restart(&self, fragment: String) -> Result<String, SignallingError> {
        let sent = Some(RequestBody::Restart(fragment));
        let Reply { status, body, .. } =
            request("PATCH", &self.resource, self.address, self.token.as_ref(), sent).await?;
        match status {
            200 => Ok(body),
            400..500 => Err(SignallingError::Refused(status)),
            _ => Err(SignallingError::Failed(format!("it answers with {status}"))),
        }
    }

    /// Deletes the session; a failure is logged. 404 is none: the server has ended the session already.
    pub(crate) async fn end(self) {
        match request("DELETE", &self.resource, self.address, self.token.as_ref(), None).await {
            Ok(Reply { status: 200..300 | 404, .. }) => {}
            Ok(Reply { status, .. }) => tracing::warn!(status, "WHIP or WHEP session not deleted"),
            Err(error) => tracing::debug!(%error, "WHIP or WHEP session not deleted"),
        }
    }
}

/// The part of an HTTP response that is used.
struct Reply {
    status: u16,
    /// The `Location` header; empty without one.
    location: String,
    /// The values of the `Link` headers.
    links: Vec<String>,
    body: String,
}

/// Sends a request to this address and reads the response.
async fn request(
    method: &'static str,
    to: &Web,
    address: SocketAddr,
    token: Option<&Secret>,
    sent: Option<RequestBody>,
) -> Result<Reply, SignallingError> {
    let mut request = Request::builder().method(method).uri(to.url.expose());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    let tls = to.tls;
    let blocking = move || {
        let agent = agent(address, tls);
        let response = match sent {
            Some(RequestBody::Offer(offer)) => {
                agent.run(request.header("content-type", "application/sdp").body(offer)?)?
            }
            Some(RequestBody::Restart(fragment)) => {
                // An ICE restart is sent with `If-Match: *` (RFC 9725 section 4.3.3).
                let request = request.header("content-type", "application/trickle-ice-sdpfrag").header("if-match", "*");
                agent.run(request.body(fragment)?)?
            }
            None => agent.run(request.body(())?)?,
        };
        read(response)
    };
    let answered = spawn_blocking(blocking).await.map_err(|_| SignallingError::Failed("internal error".to_owned()))?;
    answered.map_err(|error| SignallingError::Failed(message(&error)))
}

fn read(mut response: Response<Body>) -> Result<Reply, ureq::Error> {
    let headers = response.headers();
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let (links, location) = (texts("link"), texts("location").pop().unwrap_or_default());
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_string()?;
    Ok(Reply { status, location, links, body })
}

/// The text of an error, without the URL, which may contain a key.
fn message(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        ureq::Error::BodyExceedsLimit(_) => "the response is too long".to_owned(),
        _ => "the response is not HTTP".to_owned(),
    }
}

/// An HTTP client for one request: it connects to this address only, and follows no redirections itself.
fn agent(address: SocketAddr, tls: bool) -> Agent {
    let mut config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(TIMEOUT));
    if tls {
        let certificates = dial::certificates();
        let roots = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots)));
        config = config.tls_config(tls.unversioned_rustls_crypto_provider(dial::crypto()).build());
    }
    Agent::with_parts(config.build(), DefaultConnector::default(), Chosen(address))
}

/// A resolver that returns for every name the address that was chosen and checked before.
#[derive(Debug)]
struct Chosen(SocketAddr);

impl Resolver for Chosen {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::destination::{Destination, Target};

    /// A server that gives these answers, one per connection; and the requests it received.
    async fn server(answers: Vec<String>) -> (Web, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("whip+http://{}/whip/room?key=secret", listener.local_addr().expect("bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let got = requests.clone();
        tokio::spawn(async move {
            let mut answers = VecDeque::from(answers);
            while let Some(answer) = answers.pop_front() {
                let (mut stream, _) = listener.accept().await.expect("connected");
                // Head and body may come apart, and what is not read when a connection is closed makes it a broken one.
                let mut request = String::new();
                while !request.contains("\r\n\r\n") || (request.starts_with('P') && request.ends_with("\r\n")) {
                    let mut bytes = [0; 4096];
                    let length = stream.read(&mut bytes).await.expect("open");
                    assert!(length > 0, "a whole request: {request}");
                    request.push_str(&String::from_utf8_lossy(&bytes[..length]));
                }
                got.lock().push(request);
                stream.write_all(answer.as_bytes()).await.expect("open");
            }
        });
        match Destination::output(&url).expect("a URL").target() {
            Target::Whip(web) => (web.clone(), requests),
            other => panic!("{other}"),
        }
    }

    fn answer(status: &str, location: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }

    fn open() -> Guard {
        Guard { allow_private: true, ..Guard::default() }
    }

    #[tokio::test]
    async fn session_requests_follow_redirections_and_location() {
        let answers = vec![
            answer("307 Temporary Redirect", "/elsewhere", ""),
            answer("201 Created", "session/1\r\nlink: <stun:a>\r\nlink: <turn:b>", "v=0"),
            answer("200 OK", "", "a=ice-ufrag:new"),
            answer("412 Precondition Failed", "", ""),
            answer("200 OK", "", ""),
        ];
        let (web, requests) = server(answers).await;
        let token = Secret::from("token".to_owned());
        let session = begin(&web, Some(&token), &open(), "v=0 offer").await.expect("granted");
        assert_eq!(
            (session.answer.as_str(), &session.links[..]),
            ("v=0", &["<stun:a>".to_owned(), "<turn:b>".to_owned()][..])
        );
        assert_eq!(session.restart("a=fragment".to_owned()).await.expect("restarts"), "a=ice-ufrag:new");
        assert!(matches!(session.restart("a=fragment".to_owned()).await, Err(SignallingError::Refused(412))));
        session.end().await;
        let requests = requests.lock().clone();
        let lines =
            ["POST /whip/room?key=secret ", "POST /elsewhere ", "PATCH /session/1 ", "PATCH ", "DELETE /session/1 "];
        for (request, line) in requests.iter().zip(lines) {
            assert!(request.starts_with(line), "{request}");
            assert!(request.to_lowercase().contains("authorization: bearer token"), "{request}");
        }
        assert!(requests[1].contains("application/sdp") && requests[1].ends_with("v=0 offer"));
        let restart = requests[2].to_lowercase();
        assert!(restart.contains("if-match: *\r\n") && restart.contains("application/trickle-ice-sdpfrag"));
        assert!(restart.ends_with("a=fragment"), "{restart}");
        assert_eq!(requests.len(), 5);
    }

    #[tokio::test]
    async fn refusals_and_bad_redirections_are_errors_without_secrets() {
        for (answers, expected) in [
            (vec![answer("401 Unauthorized", "", "")], "refuses (401)"),
            (vec![answer("429 Too Many Requests", "", "")], "answers with 429"),
            (vec![answer("307 Temporary Redirect", "http://169.254.169.254/latest", "")], "metadata service"),
            (vec![answer("307 Temporary Redirect", "file:///etc/passwd", "")], "not a URL"),
            (vec![answer("302 Found", "/x", "")], "answers with 302"),
            (vec![answer("307 Temporary Redirect", "/x", ""); 9], "too often"),
            (vec!["hello\r\n\r\n".to_owned()], "request to the server failed"),
        ] {
            let (web, _requests) = server(answers).await;
            let error = begin(&web, None, &open(), "v=0").await.err().expect("not a URL").to_string();
            assert!(error.contains(expected) && !error.contains("key="), "{error}");
        }
        let (web, requests) = server(vec![answer("201 Created", "/s", "v=0")]).await;
        assert!(matches!(begin(&web, None, &Guard::default(), "v=0").await, Err(SignallingError::Dial(_))));
        assert!(requests.lock().is_empty());
    }
}
