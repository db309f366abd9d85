//! Joining and what follows: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep) and our own door, which are one handler.
//!
//! Owns: the HTTP side of a session: content types, entity tags, `Location` and `Link`, admission. Does not know: SDP and
//! ICE; texts go to [`Rooms`](crate::rooms::Rooms) and come back.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, ETAG, HOST, HeaderName, IF_MATCH, LINK, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::extract::{self, RoomOf, Secret};
use super::routes::ACCEPT_POST;
use super::{App, Caller, admission, guard, player};
use crate::http::problem::Problem;
use crate::id::{RoomName, ViewName};
use crate::metrics::RefusalLabels;
use crate::peer::Answer;
use crate::room::DISPLAY_NAME_MAX;
use crate::room::document::{Role, TierChoice};
use crate::rooms::{Door, IfMatch, JoinOptions, Joined, RoomError, Trickled};
use crate::time;

/// The type of offers and answers.
pub(super) const SDP: &str = "application/sdp";
/// The type of trickle ICE fragments (RFC 8840).
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// What a session's PATCH takes.
pub(super) const ACCEPTED_PATCHES: &str = "application/trickle-ice-sdpfrag, application/sdp";
/// Who one is in the room.
const PARTICIPANT: HeaderName = HeaderName::from_static("commingle-participant");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// What a joiner may say in the query.
#[derive(Debug, Deserialize)]
struct JoinQuery {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tier: TierChoice,
    #[serde(default = "ViewName::program")]
    view: ViewName,
    #[serde(default)]
    self_view: SelfView,
}

/// Whether one sees oneself in the picture one gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SelfView {
    #[default]
    Shown,
    Hidden,
}

/// `POST /v1/rooms/{room}/participants`.
pub(super) async fn join(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    enter(&app, &room, &caller, Door::Participants, request).await
}

/// `POST /whip/{room}`.
pub(super) async fn whip(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    enter(&app, &room, &caller, Door::Whip, request).await
}

/// `POST /whep/{room}`.
pub(super) async fn whep(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    enter(&app, &room, &caller, Door::Whep, request).await
}

/// `GET` and `HEAD` of /whip and /whep: nothing but what they take. WHEP players ask so whether there is one.
pub(super) async fn endpoint() -> impl IntoResponse {
    (StatusCode::OK, [(CONTENT_TYPE, SDP), (ACCEPT, SDP), (ACCEPT_POST, SDP)])
}

async fn enter(
    app: &App,
    room: &RoomName,
    caller: &Caller,
    door: Door,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let entered = try_enter(app, room, caller, door, request).await;
    if let Err(problem) = &entered {
        let labels = RefusalLabels { status: problem.status().as_u16() };
        app.metrics().joins_refused.get_or_create(&labels).inc();
        // What the number of joins bounds is told; what anybody can send without end is only counted.
        match labels.status {
            408 | 413 | 415 | 429 => tracing::debug!(%room, status = labels.status, "join refused"),
            status => tracing::info!(%room, status, detail = problem.detail(), "join refused"),
        }
    }
    entered
}

async fn try_enter(
    app: &App,
    room: &RoomName,
    caller: &Caller,
    door: Door,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if app.is_draining() {
        return Err(Problem::draining());
    }
    if extract::media_type(&parts.headers) != SDP {
        return Err(Problem::unsupported_media_type(SDP).with(ACCEPT_POST, HeaderValue::from_static(SDP)));
    }
    let options = options(caller, door, extract::query(&parts)?)?;
    let receives_only = options.door == Door::Whep && door != Door::Whep;
    let offer = extract::text(&parts.headers, body, app.limits().sdp_bytes, app).await?;
    let ticket = admit(app, caller).await?;
    if door == Door::Whep && !app.0.watch_empty && !is_publishing(app, room).await {
        return Err(RoomError::NoPublisher(room.clone()).into());
    }
    match app.rooms().join(room, &offer, options).await {
        Ok(joined) => {
            ticket.answered(&joined.secret);
            tracing::info!(%room, participant = %joined.participant, "joined");
            Ok(created(app, &parts, door, joined))
        }
        Err(RoomError::Door(_)) if receives_only => Err(Problem::of_kind(
            StatusCode::FORBIDDEN,
            "forbidden",
            "a viewer only receives, and this offer sends: make it recvonly, or get a token with the role participant",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Whether something is sent in a room, which may not be there.
async fn is_publishing(app: &App, room: &RoomName) -> bool {
    app.rooms().audience(room).await.is_ok_and(|audience| audience.borrow().publishing)
}

fn options(caller: &Caller, door: Door, query: JoinQuery) -> Result<JoinOptions, Problem> {
    if query.view != ViewName::program() {
        let detail = format!("there is no view `{}`; the views that exist: `{}`", query.view, ViewName::program());
        return Err(Problem::of_kind(StatusCode::NOT_FOUND, "no-view", detail));
    }
    if query.self_view == SelfView::Hidden {
        return Err(Problem::of_kind(
            StatusCode::UNPROCESSABLE_ENTITY,
            "self-view",
            "`self_view=hidden` is not available yet: everybody gets the same picture; leave it out, or say `shown`",
        ));
    }
    // A token's name cannot be changed by whoever holds it.
    let name = caller.identity.name.clone().unwrap_or(query.name);
    if name.chars().count() > DISPLAY_NAME_MAX {
        return Err(Problem::bad_request(format!("the name is too long: at most {DISPLAY_NAME_MAX} characters")));
    }
    // Without tokens everybody may do everything by HTTP, but in the room nobody stands above the others.
    let role = if caller.has_token { caller.identity.role } else { Role::Participant };
    let door = if role == Role::Viewer { Door::Whep } else { door };
    let role = if door == Door::Whep { role.min(Role::Viewer) } else { role };
    Ok(JoinOptions { name, role, tier: query.tier, door })
}

/// A place among the joins that are not connected yet; given back unless the join is answered.
struct Ticket<'a> {
    app: &'a App,
    ticket: Option<admission::Ticket>,
}

impl Ticket<'_> {
    fn answered(mut self, secret: &str) {
        if let Some(ticket) = self.ticket.take() {
            self.app.0.admission.lock().answered(ticket, secret);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.app.0.admission.lock().settle(ticket);
        }
    }
}

async fn admit<'a>(app: &'a App, caller: &Caller) -> Result<Ticket<'a>, Problem> {
    // Joins count as pending until somebody looks: only then is it worth asking whether they have connected.
    let in_the_way = app.0.admission.lock().in_the_way(caller.address);
    for (ticket, secret) in in_the_way {
        if !matches!(app.rooms().session(&secret).await, Ok(session) if session.participant.is_none()) {
            app.0.admission.lock().settle(ticket);
        }
    }
    let ticket = app.0.admission.lock().admit(caller.address, time::now()).map_err(|refusal| match refusal {
        admission::Refusal::Rate(wait) => Problem::of_kind(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-joins",
            "too many joins from your address in a short time; wait as long as Retry-After says",
        )
        .retry_after(wait),
        admission::Refusal::PendingHere(wait) => Problem::of_kind(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-joins",
            "too many joins from your address have not connected yet; connect them, delete them, or wait",
        )
        .retry_after(wait),
        admission::Refusal::PendingAll(wait) => {
            Problem::overloaded("too many joins have not connected yet; try again in a moment").retry_after(wait)
        }
    })?;
    Ok(Ticket { app, ticket: Some(ticket) })
}

fn created(app: &App, parts: &Parts, door: Door, joined: Joined) -> Response {
    let mut response = (StatusCode::CREATED, joined.answer).into_response();
    let headers = response.headers_mut();
    let text = |text: String| HeaderValue::from_str(&text).expect("secrets, ids and entity tags are header text");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(LOCATION, text(format!("/v1/sessions/{}", joined.secret)));
    headers.insert(ETAG, text(quoted(&joined.etag)));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(ACCEPTED_PATCHES));
    headers.insert(PARTICIPANT, text(joined.participant.to_string()));
    for link in app.0.ice_servers.links(host(&parts.headers).as_deref(), time::unix_seconds(), &joined.over) {
        headers.append(LINK, HeaderValue::from_str(&link).expect("hosts, addresses and URIs are header text"));
    }
    if door == Door::Whep {
        headers.append(LINK, text(player::link(&joined.secret)));
    }
    response
}

/// The host that the caller reached us by; None when its `Host` is no host.
fn host(headers: &HeaderMap) -> Option<String> {
    let authority = headers.get(HOST)?.to_str().ok()?.parse::<axum::http::uri::Authority>().ok()?;
    Some(authority.host().to_owned())
}

/// `GET /v1/sessions/{secret}`.
pub(super) async fn get(State(app): State<App>, Secret(secret): Secret) -> Result<Response, Problem> {
    let session = app.rooms().session(&secret).await?;
    let etag = quoted(&session.etag);
    Ok(([(ETAG, etag)], Json(session)).into_response())
}

/// `PATCH /v1/sessions/{secret}`: candidates, an ICE restart, or a new offer.
pub(super) async fn patch(
    State(app): State<App>,
    Secret(secret): Secret,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    unhurried(&app, &parts)?;
    match extract::media_type(&parts.headers).as_str() {
        FRAGMENT => {
            // A missing entity tag is the first thing to say, even of an empty fragment.
            let if_match = if_match(&parts.headers)?;
            let fragment = extract::text(&parts.headers, body, app.limits().patch_bytes, &app).await?;
            match app.rooms().trickle(&secret, if_match.as_ref(), &fragment).await? {
                Trickled::Accepted => Ok(StatusCode::NO_CONTENT.into_response()),
                Trickled::Restarted { fragment, etag } => {
                    let headers = [(CONTENT_TYPE, FRAGMENT.to_owned()), (ETAG, quoted(&etag))];
                    Ok((StatusCode::OK, headers, fragment).into_response())
                }
            }
        }
        SDP => {
            let offer = extract::text(&parts.headers, body, app.limits().sdp_bytes, &app).await?;
            let Answer { sdp, etag } = app.rooms().renegotiate(&secret, &offer).await?;
            Ok((StatusCode::OK, [(CONTENT_TYPE, SDP.to_owned()), (ETAG, quoted(&etag))], sdp).into_response())
        }
        _ => Err(Problem::unsupported_media_type(ACCEPTED_PATCHES)
            .with(ACCEPT_PATCH, HeaderValue::from_static(ACCEPTED_PATCHES))),
    }
}

/// `DELETE /v1/sessions/{secret}`: an entity tag is of no interest here (RFC 9725 §4.2).
pub(super) async fn delete(
    State(app): State<App>,
    Secret(secret): Secret,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    unhurried(&app, &request.into_parts().0)?;
    app.rooms().leave(&secret).await?;
    Ok(StatusCode::OK)
}

/// Whether the caller does not ask too often (RFC 9725 section 5 wants a limit on what follows a join, too).
pub(super) fn unhurried(app: &App, parts: &Parts) -> Result<(), Problem> {
    let taken = app.0.session_requests.lock().take(guard::address(parts), time::now());
    taken.map_err(|wait| {
        Problem::of_kind(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "too many requests to sessions from your address in a short time; wait as long as Retry-After says, and send \
             candidates together",
        )
        .retry_after(wait)
    })
}

/// Strong entity tags stand in double quotes (RFC 9110 §8.8.3).
fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// What `If-Match` says. A weak tag stays as it is and matches nothing, as RFC 9110 §13.1.1 wants.
fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let value = value.to_str().unwrap_or_default().trim();
    if value == "*" {
        return Ok(Some(IfMatch::Any));
    }
    let tag = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    if tag.is_empty() || tag.contains('"') && !tag.starts_with("W/") {
        return Err(Problem::bad_request("`If-Match` must be one entity tag in double quotes, or `*`"));
    }
    Ok(Some(IfMatch::Tag(tag.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(value: &'static str) -> Result<Option<IfMatch>, StatusCode> {
        let headers = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static(value))]);
        if_match(&headers).map_err(|problem| problem.status())
    }

    #[test]
    fn if_match_is_a_star_or_one_tag() {
        assert_eq!(if_match(&HeaderMap::new()).expect("absent"), None);
        assert_eq!(tag("*"), Ok(Some(IfMatch::Any)));
        assert_eq!(tag("\"abc\""), Ok(Some(IfMatch::Tag("abc".into()))));
        assert_eq!(tag("abc"), Ok(Some(IfMatch::Tag("abc".into()))));
        assert_ne!(tag("W/\"abc\""), Ok(Some(IfMatch::Tag("abc".into()))), "a weak tag never matches");
        assert_eq!(tag("\"a\", \"b\""), Err(StatusCode::BAD_REQUEST));
        assert_eq!(tag(""), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_host_is_one_that_can_stand_in_an_uri() {
        let host = |value: &'static str| host(&HeaderMap::from_iter([(HOST, HeaderValue::from_static(value))]));
        assert_eq!(host("localhost:8080").as_deref(), Some("localhost"));
        assert_eq!(host("[::1]:8080").as_deref(), Some("[::1]"));
        assert_eq!(host("a>;b\""), None);
        assert_eq!(super::host(&HeaderMap::new()), None);
    }
}
