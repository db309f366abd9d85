//! The HTTP server: accepts connections and runs the router on each.
//!
//! Owns: connections, how many there may be, how long a request's head may take, and their end. HTTP/1.1 without TLS: a
//! proxy in front adds what is missing. Does not know: routes.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{App, router};

/// Largest head of a request: what a long token and a browser's usual headers need, several times over.
const HEAD_BYTES: usize = 32 * 1024;
/// How long connections may take to finish when the server ends.
const GRACE: Duration = Duration::from_secs(2);
/// The pause after an error to accept: out of file descriptors it would otherwise spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` on `listener` until [`App::close`], then lets what is under way finish, within a bound.
pub async fn serve(listener: TcpListener, app: App) {
    let router = router(&app);
    let closing = app.closing();
    let places = Arc::new(Semaphore::new(app.limits().connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    app.metrics().http_connections_refused.inc();
                    continue;
                };
                let connection = drive(stream, peer, router.clone(), app.clone(), closing.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "some connections did not end in time");
    }
}

async fn drive(stream: TcpStream, peer: SocketAddr, router: Router, app: App, closing: CancellationToken) {
    // Answers are small and whole: waiting for more to send only delays them. Failing to say so changes nothing else.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(app.limits().header_seconds.into()))
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
