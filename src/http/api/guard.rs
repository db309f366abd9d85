//! Authorization before every handler.
//!
//! Owns: the places of tokens and sessions in a request, and the check of a route's [`Scope`]. Does not know: handlers.
//! In: requests; out: requests with a [`Caller`], whose role is sufficient for the room of the path.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::App;
use super::origin::Source;
use super::routes::Scope;
use super::usage::{Actor, TokenId};
use crate::http::auth::{self, AuthError};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName, RoomNameError};
use crate::room::document::Role;
use crate::time;

/// The client that sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its role, room and name.
    pub identity: auth::Caller,
    /// Its participant in the room of the path, if the request names a session.
    pub participant: Option<ParticipantId>,
    /// Its IP address.
    pub address: IpAddr,
    /// Whether the request has a token.
    pub has_token: bool,
    /// The token, if it was verified.
    pub token: Option<TokenId>,
}

impl Caller {
    /// What this caller counts as in the limits of a room.
    pub(super) fn actor(&self, room: &RoomName) -> Actor {
        match (self.participant, self.token) {
            (Some(id), _) => Actor::Participant(room.clone(), id),
            (None, Some(token)) => Actor::Token(token),
            (None, None) => Actor::network(self.address),
        }
    }

    /// Whether the room has a lobby and the caller was not let in. A token below moderator is not enough: its bearer has
    /// to join, and its session was let in.
    pub(super) async fn is_outside(&self, app: &App, room: &RoomName) -> bool {
        let may_enter = self.identity.role >= Role::Moderator;
        if may_enter && self.participant.is_none() {
            return false;
        }
        let Some(door) = app.rooms().door(room).await else { return false };
        self.participant.map_or(door.lobby && !may_enter, |id| door.waiting.contains(&id))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().expect("the scope of every route with a Caller sets one").clone())
    }
}

/// Credentials in the query, because a browser's WebSocket cannot send headers.
#[derive(Debug, Default, Deserialize)]
struct QueryCredentials {
    token: Option<String>,
    session: Option<String>,
}

/// What the guard does besides the check of the scope.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks {
    /// The request counts as a change of the room.
    pub(super) changes: bool,
    /// Those who wait in the lobby may send it.
    pub(super) in_lobby: bool,
}

/// Passes the request to its handler if the route's scope allows it.
pub(super) async fn check(
    State((app, scope, checks)): State<(App, Scope, Checks)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let params = match params {
        Ok(params) => params,
        // The only text of this rejection is a message, which contains the name of the parameter.
        Err(rejection) if rejection.body_text().contains("`room`") => {
            return Problem::bad_room_name(StatusCode::BAD_REQUEST, &RoomNameError::NotUtf8).into_response();
        }
        Err(_) => return Problem::bad_request("the path is not UTF-8 text").into_response(),
    };
    let room = params.iter().find(|(name, _)| *name == "room").map(|(_, value)| value.parse::<RoomName>());
    let room = match room.transpose() {
        Ok(room) => room,
        Err(error) => return Problem::bad_room_name(StatusCode::BAD_REQUEST, &error).into_response(),
    };
    let (needed, all_rooms) = match scope {
        Scope::Public | Scope::Secret => return next.run(request).await,
        Scope::Hls if is_public(&app, room.as_ref()) => return next.run(request).await,
        Scope::Hls => (Role::Viewer, false),
        Scope::Room(role) | Scope::AnyRoom(role) => (role, false),
        Scope::Server(role) => (role, true),
    };
    let (mut parts, body) = request.into_parts();
    match identify(&app, &parts, room.as_ref(), all_rooms).await {
        Ok(caller) => {
            // A path without a room means the caller's own room, unless the route concerns all rooms.
            let concerned = room.or_else(|| caller.identity.room.clone().filter(|_| !all_rooms));
            if let Err(error) = caller.identity.may(needed, concerned.as_ref()) {
                return Problem::from(error).into_response();
            }
            if let Some(room) = concerned.filter(|_| matches!(scope, Scope::Room(_))) {
                if checks.changes
                    && let Err(problem) = app.change(&caller, &room)
                {
                    return problem.into_response();
                }
                if !checks.in_lobby && caller.is_outside(&app, &room).await {
                    return Problem::in_lobby().into_response();
                }
            }
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => app.unauthorized(address(&parts.extensions), error).into_response(),
    }
}

/// Whether everyone may watch the HLS broadcast of the room.
fn is_public(app: &App, room: Option<&RoomName>) -> bool {
    room.and_then(|room| app.rooms().hls().find(room)).is_some_and(|broadcast| broadcast.is_public())
}

/// Identifies the caller. Routes that concern all rooms require a token, because a session belongs to one room.
async fn identify(app: &App, parts: &Parts, room: Option<&RoomName>, all_rooms: bool) -> Result<Caller, AuthError> {
    let query = Query::<QueryCredentials>::try_from_uri(&parts.uri).map(|Query(query)| query).unwrap_or_default();
    let token = bearer(&parts.headers)?.map(str::to_owned).or(query.token);
    let address = address(&parts.extensions);
    let has_token = token.is_some();
    let by_token = app.policy().authority.caller(token.as_deref(), address, time::unix_seconds());
    // Without a key, tokens are not verified.
    let verified = by_token.as_ref().is_ok_and(|caller| caller.expires.is_some());
    let token = token.filter(|_| verified).map(|token| TokenId::of(&token));
    let Some(secret) = query.session.filter(|_| !all_rooms) else {
        return Ok(Caller { identity: by_token?, participant: None, address, has_token, token });
    };
    let ended = || AuthError::Invalid("its session has ended or never existed; join again".to_owned());
    let (session_room, participant) = app.rooms().session_identity(&secret).ok_or_else(ended)?;
    if room.is_some_and(|room| *room != session_room) {
        return Err(AuthError::Room(session_room));
    }
    let identity = match by_token {
        // The session identifies the participant. Its role is known once it is connected.
        Err(AuthError::Missing) => {
            let document = app.rooms().session(&secret).await.map_err(|_| ended())?;
            let role = document.participant.map_or(Role::Viewer, |participant| participant.role);
            auth::Caller { role, room: Some(session_room), name: None, expires: None }
        }
        by_token => by_token?,
    };
    Ok(Caller { identity, participant: Some(participant), address, has_token, token })
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1; the scheme is case-insensitive).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let (scheme, token) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(token.trim()));
    }
    Err(AuthError::Invalid("the header must be `Authorization: Bearer TOKEN`".to_owned()))
}

/// The address of the client, behind trusted proxies.
pub(super) fn address(extensions: &Extensions) -> IpAddr {
    extensions.get::<Source>().map_or_else(|| connection_address(extensions), |source| source.address)
}

/// The address of the connection. Without one it is unspecified and not loopback, which has all permissions.
pub(super) fn connection_address(extensions: &Extensions) -> IpAddr {
    let connection = extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip().to_canonical())
}
