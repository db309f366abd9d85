//! The listener for encoders that push by RTMP to `rtmp://host:port/live/{room}?token=…&name=…`.
//!
//! Owns: the listener, the number of connections that are not authorized, and the authorization of encoders. Does not
//! know: RTMP ([`Reception`]). A connection gets an input process when its encoder may publish, not before; the process
//! continues with the connection, and reports when it is ready.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api::App;
use crate::id::RoomName;
use crate::net::connection_limits::{ConnectionLimiter, Limits};
use crate::net::listener;
use crate::room::document::Role;
use crate::rooms::{Publishing, Pushed};
use crate::rtmp::Reception;
use crate::time;

/// The RTMP application name that encoders must use.
const APP: &str = "live";
/// Connections that are not authorized.
const LIMITS: Limits = Limits { per_address: 8, pending: usize::MAX, total: 64 };
/// Most authorized encoders that are not in their room yet; each has a process.
const STARTING: usize = 8;
/// Time limit for an encoder's publish request.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which an encoder must send something, or read what it is sent.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Time limit for sending a refusal.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Size of a read in bytes.
const READ_BUFFER: usize = 4 << 10;

/// The query after the room's name.
#[derive(Debug, Default, Deserialize)]
struct KeyQuery {
    token: Option<String>,
    name: Option<String>,
}

/// Accepts encoders until the server stops.
pub async fn serve(listener: TcpListener, app: App) {
    let refused = app.metrics().rtmp_refused.clone();
    let pending = ConnectionLimiter::new(LIMITS, app.metrics().rtmp_pending.clone(), refused.clone());
    let starting = Arc::new(Semaphore::new(STARTING));
    let closing = app.closing();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener::accept(&listener) => accepted,
            () = closing.cancelled() => return,
        };
        let Some(permit) = pending.take(address.ip()) else {
            tracing::debug!(%address, "RTMP connection closed: too many encoders are not authorized yet");
            continue;
        };
        let (app, starting, refused) = (app.clone(), starting.clone(), refused.clone());
        tokio::spawn(async move {
            let received = receive(&app, stream, address).await;
            drop(permit);
            let started = match received {
                Ok(encoder) => start(&app, encoder, &starting).await,
                Err(why) => {
                    refused.inc();
                    Err(why)
                }
            };
            if let Err(why) = started {
                tracing::info!(%address, why, "RTMP encoder refused");
            }
        });
    }
}

/// An encoder that may publish.
struct Encoder {
    stream: TcpStream,
    room: RoomName,
    /// Its name in the room.
    name: String,
    /// What it has sent.
    received: Vec<u8>,
}

/// Reads an encoder's publish request, and refuses the encoder unless it may publish.
///
/// # Errors
/// The reason for the refusal.
async fn receive(app: &App, mut stream: TcpStream, address: SocketAddr) -> Result<Encoder, String> {
    // An error means that the connection is gone.
    let _ = stream.set_nodelay(true);
    let mut reception = Reception::new().map_err(|error| error.to_string())?;
    let request = timeout(PUBLISH_TIMEOUT, request(&mut stream, &mut reception)).await;
    let request = request.map_err(|_| "the encoder sent no publish request in time")??;
    match authorize(app, &request, address.ip().to_canonical()) {
        Ok((room, name)) => Ok(Encoder { stream, room, name, received: reception.into_received() }),
        Err(why) => {
            let send = async {
                reception.refuse(&why).ok()?;
                stream.write_all(&reception.output()).await.ok()?;
                stream.shutdown().await.ok()
            };
            // The encoder may have disconnected.
            let _ = timeout(REFUSE_TIMEOUT, send).await;
            Err(why)
        }
    }
}

/// Exchanges messages until the request to publish, whose answer is not sent.
async fn request(stream: &mut TcpStream, reception: &mut Reception) -> Result<Publishing, String> {
    let lost = |_| "connection lost".to_owned();
    let silent = |_| "the encoder sends and reads nothing".to_owned();
    let mut bytes = [0; READ_BUFFER];
    loop {
        let length = timeout(SILENCE_MAX, stream.read(&mut bytes)).await.map_err(silent)?.map_err(lost)?;
        if length == 0 {
            return Err("the encoder closed the connection".to_owned());
        }
        let request = reception.input(&bytes[..length]).map_err(|error| error.to_string())?;
        timeout(SILENCE_MAX, stream.write_all(&reception.output())).await.map_err(silent)?.map_err(lost)?;
        if let Some((app, key)) = request {
            return Ok(Publishing { app, key });
        }
    }
}

/// Starts the process of an encoder, and adds it to its room.
///
/// # Errors
/// The reason for a refusal.
async fn start(app: &App, encoder: Encoder, starting: &Semaphore) -> Result<(), String> {
    let Encoder { stream, room, name, received } = encoder;
    let _place = starting.try_acquire().map_err(|_| "too many encoders are starting: try again")?;
    let stream = stream.into_std().map_err(|error| error.to_string())?;
    let (pushed, ready) = Pushed::receive(&app.rooms().input_command(), OwnedFd::from(stream), received)
        .map_err(|error| error.to_string())?;
    let ready = timeout(PUBLISH_TIMEOUT, ready).await.map_err(|_| "the input process did not start in time")?;
    ready.map_err(|_| "the input process has ended, or the connection was closed")?;
    app.rooms().publish(&room, name, pushed).await.map(drop).map_err(|error| error.to_string())
}

/// The room that an encoder may push to, and its name there.
///
/// # Errors
/// The reason for a refusal.
fn authorize(app: &App, wish: &Publishing, address: IpAddr) -> Result<(RoomName, String), String> {
    let (room, query) =
        stream(&wish.app, wish.key.expose()).ok_or_else(|| format!("push to rtmp://HOST:PORT/{APP}/ROOM"))?;
    // Some encoders percent-encode the key, others send it as typed.
    let room = RoomName::from_url(&room).map_err(|error| format!("the stream key must begin with a room: {error}"))?;
    let uri = format!("/?{query}").parse::<Uri>().map_err(|_| "the query after the name of the room is invalid")?;
    let Query(query) =
        Query::<KeyQuery>::try_from_uri(&uri).map_err(|_| "the query after the name of the room is invalid")?;
    let caller = app.policy().authority.caller(query.token.as_deref(), address, time::unix_seconds());
    let caller = caller.map_err(|error| app.unauthorized(address, error).detail().to_owned())?;
    caller.may(Role::Participant, Some(&room)).map_err(|error| error.to_string())?;
    Ok((room, caller.name.or(query.name).unwrap_or_default()))
}

/// The room and the query in an application and a stream key, in all ways in which encoders split a URL; None if the
/// path is not `/live/ROOM`.
fn stream(app: &str, key: &str) -> Option<(String, String)> {
    let parts = [app, key].map(|part| part.split_once('?').unwrap_or((part, "")));
    let path: Vec<&str> = parts.iter().flat_map(|(path, _)| path.split('/')).filter(|name| !name.is_empty()).collect();
    let queries: Vec<&str> = parts.iter().map(|(_, query)| *query).filter(|query| !query.is_empty()).collect();
    match path[..] {
        [APP, room] => Some((room.to_owned(), queries.join("&"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_and_the_query_are_found_wherever_an_encoder_puts_them() {
        for (app, key, query) in [
            ("live", "demo", ""),
            ("live/", "demo", ""),
            ("/live", "/demo/", ""),
            ("live/demo", "", ""),
            ("live", "demo?token=t&name=n", "token=t&name=n"),
            ("live?token=t", "demo", "token=t"),
            ("live/demo?token=t", "", "token=t"),
            ("live/demo", "?token=t", "token=t"),
            ("live?token=t", "demo?name=n", "token=t&name=n"),
        ] {
            assert_eq!(stream(app, key), Some(("demo".to_owned(), query.to_owned())), "{app} {key}");
        }
        for (app, key) in [("live", ""), ("", "demo"), ("demo", "live"), ("live", "demo/more"), ("app", "demo?live/x")]
        {
            assert_eq!(stream(app, key), None, "{app} {key}");
        }
    }
}
