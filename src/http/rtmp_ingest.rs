//! Encoders that push by RTMP: they connect to a port of ours.
//!
//! Owns: the listener, how many may be on their way in, and who is let in: to `rtmp://host:port/live/{room}?token=…&name=…`.
//! Does not know: RTMP. A connection goes to a process of its own before a byte of it is read; that says what the encoder
//! wants, and reads on when it is let in.

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

/// The application that encoders push to.
const APP: &str = "live";
/// Connections that have not been let in yet: each has a process.
const PENDING: usize = 8;
/// How long an encoder may take to say what it wants.
const BEGINNING: Duration = Duration::from_secs(10);

/// What stands behind the room's name.
#[derive(Debug, Default, Deserialize)]
struct Shown {
    token: Option<String>,
    name: Option<String>,
}

/// Takes encoders until the server ends.
pub async fn serve(listener: TcpListener, app: App) {
    let pending = Arc::new(Semaphore::new(PENDING));
    let closing = app.closing();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener::accept(&listener) => accepted,
            () = closing.cancelled() => return,
        };
        let Ok(place) = pending.clone().try_acquire_owned() else {
            tracing::warn!(%address, "an encoder is hung up on: too many are on their way in");
            continue;
        };
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(why) = receive(&app, stream, address).await {
                tracing::info!(%address, why, "an encoder was not let in");
            }
            drop(place);
        });
    }
}

/// Hears what one encoder wants, and lets it in or not.
async fn receive(app: &App, stream: TcpStream, address: SocketAddr) -> Result<(), String> {
    // Media is sent as it comes. Fails only when the connection is gone.
    let _ = stream.set_nodelay(true);
    let stream = stream.into_std().map_err(|error| error.to_string())?;
    let (pushed, wish) =
        Pushed::receive(app.rooms().input_command(), OwnedFd::from(stream)).map_err(|error| error.to_string())?;
    let wish = tokio::time::timeout(BEGINNING, wish).await.map_err(|_| "it does not say what it wants")?;
    let wish = wish.map_err(|_| "it does not speak RTMP, or hung up")?;
    match judge(app, &wish, address.ip().to_canonical()) {
        Ok((room, name)) => app.rooms().publish(&room, name, pushed).await.map(drop).map_err(|error| error.to_string()),
        Err(why) => {
            pushed.refuse(why.clone()).await;
            Err(why)
        }
    }
}

/// Which room an encoder may push to, and under which name.
fn judge(app: &App, wish: &Publishing, address: IpAddr) -> Result<(RoomName, String), String> {
    if wish.app != APP {
        return Err(format!("push to rtmp://HOST:PORT/{APP}/ROOM"));
    }
    let (room, query) = wish.key.expose().split_once('?').unwrap_or_else(|| (wish.key.expose(), ""));
    let room: RoomName = room.parse().map_err(|_| "the stream key begins with the room's name")?;
    let uri = format!("/?{query}").parse::<Uri>().map_err(|_| "the query behind the room's name is wrong")?;
    let Query(shown) = Query::<Shown>::try_from_uri(&uri).map_err(|_| "the query behind the room's name is wrong")?;
    let caller = app.authority().caller(shown.token.as_deref(), address, time::unix_seconds());
    let caller = caller.map_err(|error| error.to_string())?;
    caller.may(Role::Participant, Some(&room)).map_err(|error| error.to_string())?;
    Ok((room, caller.name.or(shown.name).unwrap_or_default()))
}
