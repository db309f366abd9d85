//! Plain HTTP on the HTTPS port: redirects browsers to `https://`.
//!
//! Owns: the detection of plain HTTP, and its answer. Does not know: routes. No request is executed, because it was
//! sent unencrypted. In: a TCP connection; out: one answer.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, HOST, LOCATION};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::problem::Problem;

/// Largest request head, in bytes.
const HEAD_BYTES: usize = 8 * 1024;

/// Whether a connection begins with an HTTP method, where TLS would begin with a record type. Waits for the first byte.
pub(super) async fn is_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Reads one request, answers it, and closes, all within `limit`.
pub(super) async fn answer(stream: TcpStream, limit: Duration) {
    let service = service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(redirect(&request)) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limit, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "plain HTTP connection on the HTTPS port failed"),
        Err(_) => tracing::debug!("plain HTTP connection on the HTTPS port timed out"),
    }
}

/// Redirects GET and HEAD. Other methods get an error, so that their sender notices that its token was unencrypted.
fn redirect<B>(request: &Request<B>) -> Response<Body> {
    let location = (matches!(*request.method(), Method::GET | Method::HEAD)).then(|| location(request)).flatten();
    let mut response = match location {
        Some(location) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response(),
        None => Problem::bad_request("this port speaks HTTPS: use https:// instead of http://").into_response(),
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The same URL with https and the port of the request; None if the request names no host.
fn location<B>(request: &Request<B>) -> Option<HeaderValue> {
    let host: Authority = request.headers().get(HOST)?.to_str().ok()?.parse().ok()?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::from_str(&format!("https://{host}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response_to(method: Method, uri: &str, host: Option<&str>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        redirect(&request.body(()).expect("a request"))
    }

    #[test]
    fn a_get_is_redirected_to_https_with_the_same_host_and_port() {
        for (uri, host, there) in [
            ("/?room=demo", "call.example.org:8443", "https://call.example.org:8443/?room=demo"),
            ("/whip/demo", "[2001:db8::1]", "https://[2001:db8::1]/whip/demo"),
            ("http://call.example.org/a", "call.example.org", "https://call.example.org/a"),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let response = response_to(method, uri, Some(host));
                assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
                assert_eq!(response.headers()[LOCATION], there);
                assert_eq!(response.headers()[CONNECTION], "close");
            }
        }
    }

    #[test]
    fn other_methods_and_requests_without_a_host_are_refused() {
        for (method, host) in [
            (Method::POST, Some("call.example.org")),
            (Method::OPTIONS, Some("call.example.org")),
            (Method::GET, None),
            (Method::GET, Some("a b")),
        ] {
            let response = response_to(method.clone(), "/", host);
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{method} {host:?}");
            assert!(!response.headers().contains_key(LOCATION));
        }
    }
}
