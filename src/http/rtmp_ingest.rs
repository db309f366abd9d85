//! The listener for encoders that push by RTMP to `rtmp://host:port/live/{room}?token=…&name=…`.
//!
//! Owns: the listener, the number of pending connections, and the authorization of encoders. Does not know: RTMP.
//! Each connection is passed to an input process before its first byte is read. The process reports the encoder's
//! request and continues once it is accepted.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::api::App;
use crate::id::RoomName;
use crate::net::listener;
use crate::room::document::Role;
use crate::rooms::{Publishing, Pushed};
use crate::time;

/// The RTMP application name that encoders must use.
const APP: &str = "live";
/// Most connections that are not accepted yet; each has a process.
const PENDING: usize = 8;
/// Time limit for an encoder's publish request.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The query after the room's name.
#[derive(Debug, Default, Deserialize)]
struct KeyQuery {
    token: Option<String>,
    name: Option<String>,
}

/// Accepts encoders until the server stops.
pub async fn serve(listener: TcpListener, app: App) {
    let pending = Arc::new(Semaphore::new(PENDING));
    let closing = app.closing();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener::accept(&listener) => accepted,
            () = closing.cancelled() => return,
        };
        let Ok(place) = pending.clone().try_acquire_owned() else {
            tracing::warn!(%address, "RTMP connection closed: too many encoders are not accepted yet");
            continue;
        };
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(why) = receive(&app, stream, address).await {
                tracing::info!(%address, why, "RTMP encoder refused");
            }
            drop(place);
        });
    }
}

/// Reads an encoder's publish request, and accepts or refuses it.
///
/// # Errors
/// The reason for the refusal.
async fn receive(app: &App, stream: TcpStream, address: SocketAddr) -> Result<(), String> {
    // An error means that the connection is gone.
    let _ = stream.set_nodelay(true);
    let stream = stream.into_std().map_err(|error| error.to_string())?;
    let (pushed, wish) =
        Pushed::receive(&app.rooms().input_command(), OwnedFd::from(stream)).map_err(|error| error.to_string())?;
    let wish =
        tokio::time::timeout(PUBLISH_TIMEOUT, wish).await.map_err(|_| "the encoder sent no publish request in time")?;
    let wish = wish.map_err(|_| "the connection is not RTMP or was closed")?;
    match authorize(app, &wish, address.ip().to_canonical()) {
        Ok((room, name)) => app.rooms().publish(&room, name, pushed).await.map(drop).map_err(|error| error.to_string()),
        Err(why) => {
            pushed.refuse(why.clone()).await;
            Err(why)
        }
    }
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
    let caller = caller.map_err(|error| error.to_string())?;
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
