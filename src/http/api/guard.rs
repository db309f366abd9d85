//! Before every handler: who is it, and may they?
//!
//! Owns: where a token or session may stand in a request, and the check of a route's [`Scope`]. Does not know: handlers.
//! A handler takes [`Caller`] as an argument and can be sure that its role was checked for the room of the path.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::App;
use super::routes::Scope;
use crate::http::auth::{self, AuthError};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName};
use crate::room::document::Role;
use crate::time;

/// Who asks, as handlers see it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Role, room and name.
    pub identity: auth::Caller,
    /// Who they are in the room of the path, when they showed a session.
    pub participant: Option<ParticipantId>,
    /// Where they call from.
    pub address: IpAddr,
    /// Whether a token said who they are.
    pub has_token: bool,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().expect("every route with a Caller has a scope that makes one").clone())
    }
}

/// Credentials in the query: a browser's WebSocket cannot send headers.
#[derive(Debug, Default, Deserialize)]
struct Shown {
    token: Option<String>,
    session: Option<String>,
}

/// Lets the request through to its handler if the route's scope allows.
pub(super) async fn check(
    State((app, scope)): State<(App, Scope)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(params) = params else {
        return Problem::bad_request("the path is not UTF-8 text").into_response();
    };
    let room = params.iter().find(|(name, _)| *name == "room").map(|(_, value)| value.parse::<RoomName>());
    let room = match room.transpose() {
        Ok(room) => room,
        Err(error) => return Problem::bad_request(error.to_string()).into_response(),
    };
    let (needed, everywhere) = match scope {
        Scope::Public | Scope::Secret => return next.run(request).await,
        Scope::Room(role) | Scope::Somewhere(role) => (role, false),
        Scope::Server(role) => (role, true),
    };
    let (mut parts, body) = request.into_parts();
    match identify(&app, &parts, room.as_ref(), everywhere).await {
        Ok(caller) => {
            // Without a room in the path it is the caller's own that counts, unless all are concerned.
            let concerned = room.or_else(|| caller.identity.room.clone().filter(|_| !everywhere));
            if let Err(error) = caller.identity.may(needed, concerned.as_ref()) {
                return Problem::from(error).into_response();
            }
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Who asks; what concerns everything is for tokens only, because a session is of one room.
async fn identify(app: &App, parts: &Parts, room: Option<&RoomName>, everywhere: bool) -> Result<Caller, AuthError> {
    let shown = Query::<Shown>::try_from_uri(&parts.uri).map(|Query(shown)| shown).unwrap_or_default();
    let token = bearer(&parts.headers)?.map(str::to_owned).or(shown.token);
    let address = address(parts);
    let has_token = token.is_some();
    let by_token = app.0.authority.caller(token.as_deref(), address, time::unix_seconds());
    let Some(secret) = shown.session.filter(|_| !everywhere) else {
        return Ok(Caller { identity: by_token?, participant: None, address, has_token });
    };
    let ended = || AuthError::Invalid("its session has ended, or never was; join again".to_owned());
    let (session_room, participant) = app.rooms().session_identity(&secret).ok_or_else(ended)?;
    if room.is_some_and(|room| *room != session_room) {
        return Err(AuthError::Room(session_room));
    }
    let identity = match by_token {
        // The session says who; its role is that of its join, known once it is connected.
        Err(AuthError::Missing) => {
            let document = app.rooms().session(&secret).await.map_err(|_| ended())?;
            let role = document.participant.map_or(Role::Viewer, |participant| participant.role);
            auth::Caller { role, room: Some(session_room), name: None }
        }
        by_token => by_token?,
    };
    Ok(Caller { identity, participant: Some(participant), address, has_token })
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1; the scheme's case does not matter).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let (scheme, token) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(token.trim()));
    }
    Err(AuthError::Invalid("the header must be `Authorization: Bearer TOKEN`".to_owned()))
}

/// Where a request comes from. Without a connection it is from nowhere, not from this machine, which may do everything.
pub(super) fn address(parts: &Parts) -> IpAddr {
    let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip().to_canonical())
}
