//! The part of the server's HTTP API that bots use: join, leave, read the room.
//!
//! Owns: URLs, tokens, the meaning of status codes. Does not know: SDP. Every call blocks: callers use a blocking
//! thread.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Request, Response, Uri};
use ureq::{Agent, Body};

use crate::dial;
use crate::id::RoomName;
use crate::layout::ObjectFit;
use crate::media::{Rect, Size};

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The delay before another try without `Retry-After`.
const LATER: Duration = Duration::from_secs(1);
/// Port of a URL without one.
const HTTP_PORT: u16 = 80;

/// Why the server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Not an http URL.
    #[error("`{0}` is not a server's URL: write it like http://127.0.0.1:8080 (plain http; a TLS proxy's inner side)")]
    Url(String),
    /// Its name does not resolve, or there is no route to it.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// The system's error.
        reason: String,
    },
}

/// Why a join failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JoinError {
    /// The server is busy: try again after so long.
    Later(Duration),
    /// Refused, with the reason.
    Refused(String),
}

/// A successful join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) answer: String,
    /// The URL of the session.
    pub(super) session: String,
    /// The participant's id.
    pub(super) participant: String,
}

/// What is looked at of a room's document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Room {
    views: Vec<View>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct View {
    view: String,
    canvas: Size,
    tiles: Vec<Tile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Tile {
    participant: String,
    #[serde(flatten)]
    rect: Rect,
    fit: ObjectFit,
}

impl Room {
    /// The tile of a participant in the view `program`: its rectangle, how its picture fills it, and the canvas.
    pub(super) fn tile(&self, participant: &str) -> Option<(Rect, ObjectFit, Size)> {
        let view = self.views.iter().find(|view| view.view == "program")?;
        let tile = view.tiles.iter().find(|tile| tile.participant == participant)?;
        Some((tile.rect, tile.fit, view.canvas))
    }
}

#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Api {
    agent: Agent,
    base: String,
    token: Option<String>,
    address: SocketAddr,
}

impl Api {
    /// The server at this URL.
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, ApiError> {
        let base = url.trim_end_matches('/').to_owned();
        let wrong = || ApiError::Url(url.to_owned());
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong()) };
        let port = uri.port_u16().unwrap_or(HTTP_PORT);
        let unreachable = |reason: String| ApiError::Unreachable { url: base.clone(), reason };
        let mut found =
            (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
        let address = found.next().ok_or_else(|| unreachable("its name has no address".to_owned()))?;
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Ok(Self { agent: Agent::new_with_config(config), base, token, address })
    }

    /// Our address on the route to the server.
    pub(super) fn own_address(&self) -> Result<IpAddr, ApiError> {
        dial::local_address(self.address)
            .map_err(|error| ApiError::Unreachable { url: self.base.clone(), reason: error.to_string() })
    }

    /// Joins a room. Blocks.
    pub(super) fn join(&self, room: &RoomName, name: &str, tier: &str, offer: &str) -> Result<Joined, JoinError> {
        let url = format!("{}/v1/rooms/{}/participants?name={name}&tier={tier}", self.base, room.in_url());
        let request = self.request("POST", &url).header("content-type", "application/sdp").body(offer);
        let request = request.map_err(|error| JoinError::Refused(error.to_string()))?;
        // The same text for every bot, so that equal failures are counted together.
        let failed = |error| JoinError::Refused(format!("{} could not be asked: {error}", self.base));
        let mut response = self.agent.run(request).map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_string().map_err(|error| JoinError::Refused(error.to_string()))?;
        match status {
            201 => {
                let session = header(&response, "location");
                let session = if session.starts_with('/') { format!("{}{session}", self.base) } else { session };
                Ok(Joined { answer: body, session, participant: header(&response, "commingle-participant") })
            }
            429 | 503 => {
                let seconds = header(&response, "retry-after").parse().map(Duration::from_secs);
                Err(JoinError::Later(seconds.unwrap_or(LATER)))
            }
            _ => {
                let problem = serde_json::from_str::<Problem>(&body).ok().and_then(|problem| problem.detail);
                Err(JoinError::Refused(format!("{status}: {}", problem.unwrap_or(body))))
            }
        }
    }

    /// Ends a session; no error if the server has ended it already. Blocks.
    pub(super) fn leave(&self, session: &str) -> Result<(), String> {
        let request = self.request("DELETE", session).body(()).map_err(|error| error.to_string())?;
        let response = self.agent.run(request).map_err(|error| error.to_string())?;
        match response.status().as_u16() {
            200..300 | 404 => Ok(()),
            status => Err(format!("the session could not be ended: {status}")),
        }
    }

    /// The room document; None where it cannot be read. Blocks.
    pub(super) fn room(&self, room: &RoomName) -> Option<Room> {
        let url = format!("{}/v1/rooms/{}", self.base, room.in_url());
        let mut response = self.agent.run(self.request("GET", &url).body(()).ok()?).ok()?;
        serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
    }

    fn request(&self, method: &str, url: &str) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(url);
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

fn header(response: &Response<Body>, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let api = Api::new("http://127.0.0.1:8080/", None).expect("a URL");
        assert_eq!((api.base.as_str(), api.address.port()), ("http://127.0.0.1:8080", 8080));
        assert_eq!(api.own_address(), Ok("127.0.0.1".parse().expect("an address")));
        let v6 = Api::new("http://[::1]", None).expect("a URL");
        assert_eq!(v6.address.to_string(), "[::1]:80");
        for bad in ["", "127.0.0.1:8080", "https://127.0.0.1", "ftp://127.0.0.1", "http://"] {
            assert!(matches!(Api::new(bad, None), Err(ApiError::Url(_))), "{bad}");
        }
    }

    #[test]
    fn a_tile_is_found_in_the_room_document() {
        let document = r#"{"name":"r","views":[{"view":"program","canvas":{"width":1280,"height":720},"tiles":[
            {"participant":"p1","source":"camera","x":0,"y":180,"width":640,"height":360,"fit":"cover"},
            {"participant":"p2","source":"camera","x":640,"y":180,"width":640,"height":360,"fit":"cover"}]}]}"#;
        let room: Room = serde_json::from_str(document).expect("a document");
        let rect = Rect { x: 640, y: 180, width: 640, height: 360 };
        assert_eq!(room.tile("p2"), Some((rect, ObjectFit::Cover, Size::new(1280, 720))));
        assert_eq!(room.tile("p3"), None);
    }
}
