//! The HTTP server: accepts connections and runs the router on each.
//!
//! Owns: the connections, their number, the time limits of a request head and of a client that reads nothing, and their
//! shutdown. A trusted proxy may state the address of its client (PROXY protocol). With TLS it also separates HTTPS
//! from TURN, ACME validation and [`plain`] HTTP. It speaks HTTP/1.1; a proxy in front may add HTTP/2. Does not know:
//! routes. In: TCP connections; out: responses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{App, plain, router};
use crate::metrics::Gauge;
use crate::net::connection_limits::{ConnectionLimiter, Limits};
use crate::net::tls::{ALPN_ACME, ALPN_TURN, Tls};
use crate::net::turn::Turn;
use crate::net::{listener, proxy_protocol};
use crate::transport::stun;

/// Largest request head, in bytes: several times a browser's usual headers with a long token.
const HEAD_BYTES: usize = 32 * 1024;
/// How long connections may take to finish when the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// The state that serves a connection.
#[derive(Clone)]
struct Service {
    router: Router,
    app: App,
    tls: Option<Tls>,
    turn: Option<Turn>,
}

/// Serves `app` on `listener` until [`App::close`], then waits a limited time for running requests. With `tls` it
/// serves HTTPS, and `turn` on the same port: TURN clients use ALPN (RFC 7443) or start with a STUN message.
pub async fn serve(listener: TcpListener, app: App, tls: Option<Tls>, turn: Option<Turn>) {
    let service = Service { router: router(&app), app: app.clone(), tls, turn };
    let closing = app.closing();
    let limits = app.limits();
    let metrics = app.metrics();
    let limiter = |per_address, total, open| {
        let limits = Limits { per_address, pending: usize::MAX, total };
        ConnectionLimiter::new(limits, open, metrics.http_connections_refused.clone())
    };
    let all = limiter(usize::MAX, limits.connections, metrics.http_connections.clone());
    let by_address = limiter(limits.connections_per_address, usize::MAX, Gauge::default());
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener::accept(&listener) => accepted,
        };
        // All clients of a proxy have its address.
        let of_address = if app.policy().origins.is_proxy(peer.ip()) {
            None
        } else {
            let Some(permit) = by_address.take(peer.ip()) else { continue };
            Some(permit)
        };
        let Some(permit) = all.take(peer.ip()) else { continue };
        let (service, closing) = (service.clone(), closing.clone());
        connections.spawn(async move {
            service.connection(stream, peer, closing).await;
            drop((permit, of_address));
        });
    }
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "HTTP connections still open at shutdown");
    }
}

impl Service {
    async fn connection(self, mut stream: TcpStream, peer: SocketAddr, closing: CancellationToken) {
        // Answers are small, so Nagle's algorithm would only delay them. An error is harmless.
        let _ = stream.set_nodelay(true);
        let limit = Duration::from_secs(self.app.limits().header_seconds.into());
        let peer = if self.app.policy().origins.begins_with_proxy_header(peer.ip()) {
            let header = tokio::select! {
                header = tokio::time::timeout(limit, proxy_protocol::read(&mut stream)) => header,
                () = closing.cancelled() => return,
            };
            match header {
                Ok(Ok(client)) => client.unwrap_or(peer),
                Ok(Err(error)) => return tracing::warn!(%peer, %error, "connection of a trusted proxy refused"),
                Err(_) => return tracing::warn!(%peer, "trusted proxy sent no PROXY header in time"),
            }
        } else {
            peer
        };
        let Some(tls) = &self.tls else { return self.http(stream, peer, closing).await };
        let is_plain = tokio::select! {
            is_plain = tokio::time::timeout(limit, plain::is_http(&stream)) => is_plain,
            () = closing.cancelled() => return,
        };
        match is_plain {
            Ok(true) => return until(&closing, plain::answer(stream, limit)).await,
            Ok(false) => {}
            Err(_) => return tracing::debug!(%peer, "connection sent nothing in time"),
        }
        let handshake = tokio::select! {
            handshake = tls.accept(stream) => handshake,
            () = closing.cancelled() => return,
        };
        let mut stream = match handshake {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        };
        match (&self.turn, stream.get_ref().1.alpn_protocol()) {
            // ACME validation ends with the handshake (RFC 8737 section 3).
            (_, Some(ALPN_ACME)) => {}
            (Some(turn), Some(ALPN_TURN)) => until(&closing, turn.serve(stream, peer)).await,
            (None, _) | (Some(_), Some(_)) => self.http(stream, peer, closing).await,
            (Some(turn), None) => {
                // Browsers send no ALPN for TURN: the first byte distinguishes an HTTP method from a STUN message.
                let first = tokio::select! {
                    first = tokio::time::timeout(limit, stream.read_u8()) => first,
                    () = closing.cancelled() => return,
                };
                let Ok(Ok(first)) = first else { return };
                let (reader, writer) = tokio::io::split(stream);
                let whole = tokio::io::join(std::io::Cursor::new([first]).chain(reader), writer);
                if stun::is_stun(&[first]) {
                    until(&closing, turn.serve(whole, peer)).await;
                } else {
                    self.http(whole, peer, closing).await;
                }
            }
        }
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, closing: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let router = self.router.clone();
            async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        });
        let limits = self.app.limits();
        let mut stream = TimeoutStream::new(stream);
        // A client that sends requests and reads no responses would keep its connection for ever.
        stream.set_write_timeout(Some(Duration::from_secs(limits.write_seconds.into())));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(limits.header_seconds.into()))
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "HTTP connection failed");
        }
    }
}

/// Runs `task` until it ends or the server closes.
async fn until(closing: &CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = closing.cancelled() => {}
    }
}
