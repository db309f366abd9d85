//! Invitations: tokens for a room, made by its moderators.
//!
//! Owns: which invitations a caller may make, and the links of a room's page. Does not know: the form of tokens
//! ([`auth`]). In: requests of moderators; out: a token and the link that contains it. Nothing is stored: an invitation
//! ends when it expires, or with the server's key.

use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::extract::{self, InPath};
use super::{App, Caller, routes};
use crate::http::auth::{self, Claims};
use crate::http::problem::Problem;
use crate::id::RoomName;
use crate::room::DISPLAY_NAME_MAX;
use crate::room::document::Role;
use crate::time;

/// How long an invitation is valid, unless the request says so, in seconds: a day.
const TTL_SECONDS: u64 = 86_400;
/// Longest validity in seconds: 30 days.
const TTL_SECONDS_MAX: u64 = 30 * 86_400;
/// Shortest validity in seconds.
const TTL_SECONDS_MIN: u64 = 60;

/// The body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationRequest {
    #[serde(default = "participant")]
    role: Role,
    ttl_seconds: Option<u64>,
    name: Option<String>,
}

fn participant() -> Role {
    Role::Participant
}

/// An invitation.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Invitation {
    token: String,
    /// The page of the room with the token.
    url: String,
    room: RoomName,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// RFC 3339.
    expires_at: String,
}

/// `POST /v1/rooms/{room}/invitations`.
pub(super) async fn create(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let origin = origin(request.headers(), app.0.https);
    let wanted: InvitationRequest = extract::json(request, &app).await?;
    let claims = wanted.claims(room.clone(), &caller.identity, time::unix_seconds())?;
    let authority = &app.policy().authority;
    let Some(token) = authority.sign(&claims) else {
        let detail = match authority {
            auth::Authority::Open => {
                "this server has no key, so nobody needs an invitation: share the link of the room"
            }
            auth::Authority::Keys { .. } => {
                "this server has no key of its own that signs invitations: the operator may set auth.key_file, or the \
                 issuer of your token makes one for the guest"
            }
        };
        return Err(Problem::of_kind(StatusCode::CONFLICT, "no-key", detail));
    };
    let url = format!("{origin}{}", page(&room, &token));
    let Claims { role, name, exp, .. } = claims;
    let invitation = Invitation { token, url, room, role, name, expires_at: date(exp) };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(invitation)).into_response())
}

impl InvitationRequest {
    /// The claims of the invitation; `now` is in seconds since 1970.
    ///
    /// An invitation has at most the role of the caller. With the same role it is valid no longer than the caller's
    /// token; otherwise a moderator for one hour could remain one for ever.
    ///
    /// # Errors
    /// 403 if the caller may not make it, 422 if a value is out of range.
    fn claims(self, room: RoomName, caller: &auth::Caller, now: u64) -> Result<Claims, Problem> {
        let Self { role, ttl_seconds, name } = self;
        if role > Role::Moderator {
            return Err(Problem::invalid_value("`role` must be `viewer`, `participant` or `moderator`"));
        }
        if role > caller.role {
            return Err(Problem::wrong_role("an invitation has at most your own role"));
        }
        if ttl_seconds.is_some_and(|ttl| !(TTL_SECONDS_MIN..=TTL_SECONDS_MAX).contains(&ttl)) {
            let detail = format!("`ttl_seconds` must be {TTL_SECONDS_MIN} to {TTL_SECONDS_MAX} (30 days)");
            return Err(Problem::invalid_value(detail));
        }
        if name.as_ref().is_some_and(|name| name.chars().count() > DISPLAY_NAME_MAX) {
            return Err(Problem::invalid_value(format!("`name` may have at most {DISPLAY_NAME_MAX} characters")));
        }
        let latest = if role == caller.role { caller.expires.unwrap_or(now) } else { u64::MAX };
        if latest < now + TTL_SECONDS_MIN {
            return Err(Problem::wrong_role(
                "only a token that is still valid for a minute or more can invite others with its own role",
            ));
        }
        let expires = now + ttl_seconds.unwrap_or_else(|| TTL_SECONDS.min(latest - now));
        if expires > latest {
            let left = latest - now;
            let detail = format!("an invitation with your own role may last no longer than your token: {left} seconds");
            return Err(Problem::invalid_value(detail));
        }
        Ok(Claims { room: Some(room), role, name, exp: expires as f64, nbf: None })
    }
}

/// The path and query of a room's page.
fn page(room: &RoomName, token: &str) -> String {
    // `/{room}` belongs to the API if a path of the API begins with that name.
    if routes::is_reserved(room.as_str()) {
        format!("/?room={}&token={token}", room.in_url())
    } else {
        format!("/{}?token={token}", room.in_url())
    }
}

/// The scheme and host by which the client reached this server, also behind a proxy; empty without a host.
fn origin(headers: &HeaderMap, https: bool) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let https = https || header("x-forwarded-proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let host = header("x-forwarded-host").or_else(|| header(HOST.as_str()));
    match host.and_then(|host| host.parse::<Authority>().ok()) {
        Some(host) => format!("{}://{host}", if https { "https" } else { "http" }),
        None => String::new(),
    }
}

fn date(unix_seconds: f64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(unix_seconds as u64);
    at.format(&Rfc3339).expect("years up to 9999 can be formatted")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn invite(role: Role, ttl_seconds: Option<u64>, by: Role, expires: Option<u64>) -> Result<u64, u16> {
        let caller = auth::Caller { role: by, room: None, name: None, expires };
        let request = InvitationRequest { role, ttl_seconds, name: None };
        let claims = request.claims("r".parse().expect("a name"), &caller, NOW);
        claims.map(|claims| claims.exp as u64 - NOW).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn an_invitation_never_exceeds_the_role_of_its_moderator() {
        use Role::{Moderator, Operator, Participant, Viewer};
        assert_eq!(invite(Viewer, None, Moderator, None), Ok(86_400));
        assert_eq!(invite(Participant, Some(60), Moderator, Some(NOW + 10)), Ok(60));
        assert_eq!(invite(Moderator, Some(600), Operator, None), Ok(600));
        assert_eq!(invite(Moderator, Some(600), Moderator, Some(NOW + 600)), Ok(600));
        assert_eq!(invite(Moderator, None, Moderator, Some(NOW + 600)), Ok(600));
        assert_eq!(invite(Moderator, Some(601), Moderator, Some(NOW + 600)), Err(422));
        assert_eq!(invite(Moderator, None, Moderator, Some(NOW + 59)), Err(403));
        assert_eq!(invite(Moderator, None, Moderator, None), Err(403));
        assert_eq!(invite(Moderator, None, Participant, Some(NOW + 600)), Err(403));
        assert_eq!(invite(Operator, None, Operator, Some(NOW + 600)), Err(422));
        for ttl in [0, 59, 30 * 86_400 + 1, u64::MAX] {
            assert_eq!(invite(Viewer, Some(ttl), Moderator, None), Err(422), "{ttl}");
        }
    }

    #[test]
    fn the_link_has_the_host_and_scheme_of_the_request() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect::<HeaderMap>()
        };
        let host = ("host", "call.example.org:8443");
        assert_eq!(origin(&headers(&[host]), false), "http://call.example.org:8443");
        assert_eq!(origin(&headers(&[host]), true), "https://call.example.org:8443");
        let proxied = [("host", "10.0.0.1:8080"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example")];
        assert_eq!(origin(&headers(&proxied), false), "https://a.example");
        assert_eq!(origin(&headers(&[]), true), "");
        assert_eq!(origin(&headers(&[("host", "a b")]), true), "");
        let room = |name: &str| page(&name.parse().expect("a name"), "T");
        assert_eq!(room("daily"), "/daily?token=T");
        assert_eq!(room("café"), "/caf%C3%A9?token=T");
        assert_eq!(room("metrics"), "/?room=metrics&token=T");
    }
}
