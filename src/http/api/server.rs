//! The HTTP server: accepts connections and runs the router on each.
//!
//! Owns: connections, how many there may be, how long a request's head may take, and their end; where there is TLS, also which of
//! them are TURN's, the authority's or [`plain`]. HTTP/1.1: a proxy in front adds what is missing. Does not know: routes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{App, plain, router};
use crate::net::listener;
use crate::net::tls::{ALPN_ACME, ALPN_TURN, Tls};
use crate::net::turn::Turn;
use crate::transport::stun;

/// Largest head of a request: what a long token and a browser's usual headers need, several times over.
const HEAD_BYTES: usize = 32 * 1024;
/// How long connections may take to finish when the server ends.
const GRACE: Duration = Duration::from_secs(2);

/// What each connection is served with.
#[derive(Clone)]
struct Service {
    router: Router,
    app: App,
    tls: Option<Tls>,
    turn: Option<Turn>,
}

/// Serves `app` on `listener` until [`App::close`], then lets what is under way finish, within a bound. With `tls` it is HTTPS, and
/// `turn` is on the same port: its clients say so (RFC 7443), or begin with STUN.
pub async fn serve(listener: TcpListener, app: App, tls: Option<Tls>, turn: Option<Turn>) {
    let service = Service { router: router(&app), app: app.clone(), tls, turn };
    let closing = app.closing();
    let places = Arc::new(Semaphore::new(app.limits().connections));
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener::accept(&listener) => accepted,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            app.metrics().http_connections_refused.inc();
            continue;
        };
        let (service, closing) = (service.clone(), closing.clone());
        connections.spawn(async move {
            service.connection(stream, peer, closing).await;
            drop(place);
        });
    }
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "some connections did not end in time");
    }
}

impl Service {
    async fn connection(self, stream: TcpStream, peer: SocketAddr, closing: CancellationToken) {
        // Answers are small and whole: waiting for more to send only delays them. Failing to say so changes nothing else.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(stream, peer, closing).await };
        let patience = Duration::from_secs(self.app.limits().header_seconds.into());
        let is_plain = tokio::select! {
            is_plain = tokio::time::timeout(patience, plain::is_http(&stream)) => is_plain,
            () = closing.cancelled() => return,
        };
        match is_plain {
            Ok(true) => return until(&closing, plain::answer(stream, patience)).await,
            Ok(false) => {}
            Err(_) => return tracing::debug!(%peer, "a connection says nothing"),
        }
        let shaken = tokio::select! {
            shaken = tls.accept(stream) => shaken,
            () = closing.cancelled() => return,
        };
        let mut stream = match shaken {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%peer, %error, "no TLS handshake"),
        };
        match (&self.turn, stream.get_ref().1.alpn_protocol()) {
            // The handshake was all it wanted (RFC 8737 section 3).
            (_, Some(ALPN_ACME)) => {}
            (Some(turn), Some(ALPN_TURN)) => until(&closing, turn.serve(stream, peer)).await,
            (None, _) | (Some(_), Some(_)) => self.http(stream, peer, closing).await,
            (Some(turn), None) => {
                // Browsers do not say it of TURN: the first byte tells a method's name from a STUN message.
                let first = tokio::select! {
                    first = tokio::time::timeout(patience, stream.read_u8()) => first,
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
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(self.app.limits().header_seconds.into()))
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
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
            tracing::debug!(%peer, %error, "an HTTP connection broke");
        }
    }
}

/// What is done until the server ends.
async fn until(closing: &CancellationToken, done: impl Future<Output = ()>) {
    tokio::select! {
        () = done => {}
        () = closing.cancelled() => {}
    }
}
