//! Sessions: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep) and `POST …/participants`, which share one handler.
//!
//! Owns: the HTTP side of a session: content types, entity tags, `Location` and `Link`, admission. Does not know: SDP
//! and ICE. In: offers and fragments, which go to [`Rooms`](crate::rooms::Rooms) as text; out: the answers.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, ETAG, HOST, HeaderName, IF_MATCH, LINK, LOCATION};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::extract::{self, InPath, SessionSecret};
use super::routes::ACCEPT_POST;
use super::usage::Actor;
use super::{App, Caller, admission, guard, player};
use crate::http::problem::Problem;
use crate::id::{RoomName, ViewName};
use crate::layout::{Layout, LayoutKind};
use crate::media::Size;
use crate::metrics::RefusalLabels;
use crate::peer::Answer;
use crate::room::DISPLAY_NAME_MAX;
use crate::room::document::{Role, TierChoice};
use crate::room::moderation::Identity;
use crate::room::view_request::{SelfView, ViewPatch, check_canvas};
use crate::rooms::{IfMatch, JoinEndpoint, JoinOptions, Joined, RoomError, Seat, Trickled};
use crate::time;

/// The content type of offers and answers.
pub(super) const SDP: &str = "application/sdp";
/// The content type of trickle ICE fragments (RFC 8840).
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// The content types of a session's PATCH.
pub(super) const ACCEPTED_PATCHES: &str = "application/trickle-ice-sdpfrag, application/sdp";
/// The header with the participant's id.
const PARTICIPANT: HeaderName = HeaderName::from_static("commingle-participant");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// The query of a join.
#[derive(Debug, Deserialize)]
struct JoinQuery {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tier: TierChoice,
    view: Option<ViewName>,
    layout: Option<String>,
    canvas: Option<String>,
    self_view: Option<SelfView>,
    #[serde(default)]
    bot: bool,
}

impl JoinQuery {
    /// The view that is asked for.
    ///
    /// # Errors
    /// 422 for an invalid layout or canvas.
    fn view(&self) -> Result<ViewPatch, Problem> {
        let layout = self.layout.as_deref().map(layout_in_query).transpose().map_err(Problem::invalid_value)?;
        let canvas = self.canvas.as_deref().map(canvas_in_query).transpose().map_err(Problem::invalid_value)?;
        let (layout, canvas) = (layout.map(Some), canvas.map(Some));
        Ok(ViewPatch { view: self.view.clone(), layout, canvas, self_view: self.self_view })
    }
}

/// The layout in a query: a kind, or the JSON object with options.
fn layout_in_query(text: &str) -> Result<Layout, String> {
    let read = |error: serde_json::Error| format!("layout: {error}");
    let layout = match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => serde_json::from_value(object).map_err(read)?,
        _ => serde_json::from_value::<LayoutKind>(text.into()).map_err(read)?.into(),
    };
    Layout::check(&layout).map(|()| layout)
}

/// The canvas in a query, as `720x1280`.
fn canvas_in_query(text: &str) -> Result<Size, String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let (width, height) = sides.ok_or_else(|| format!("`{text}` is no canvas: write it as 720x1280"))?;
    let canvas = Size::new(width, height);
    check_canvas(canvas).map(|()| canvas)
}

/// `POST /v1/rooms/{room}/participants`.
pub(super) async fn join(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    join_by(&app, &room, &caller, JoinEndpoint::Participants, request).await
}

/// `POST /whip/{room}`.
pub(super) async fn whip(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    join_by(&app, &room, &caller, JoinEndpoint::Whip, request).await
}

/// `POST /whep/{room}`.
pub(super) async fn whep(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    request: Request<Body>,
) -> Result<Response, Problem> {
    join_by(&app, &room, &caller, JoinEndpoint::Whep, request).await
}

/// `GET` and `HEAD` of /whip and /whep: only the accepted content types. WHEP players use this to detect an endpoint.
pub(super) async fn endpoint() -> impl IntoResponse {
    (StatusCode::OK, [(CONTENT_TYPE, SDP), (ACCEPT, SDP), (ACCEPT_POST, SDP)])
}

async fn join_by(
    app: &App,
    room: &RoomName,
    caller: &Caller,
    endpoint: JoinEndpoint,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let joined = try_join(app, room, caller, endpoint, request).await;
    if let Err(problem) = &joined {
        let labels = RefusalLabels { status: problem.status().as_u16() };
        app.metrics().joins_refused.get_or_create(&labels).inc();
        // Requests that a client can repeat without limit are logged at the level debug only.
        match labels.status {
            408 | 413 | 415 | 429 => tracing::debug!(%room, status = labels.status, "join refused"),
            status => tracing::info!(%room, status, detail = problem.detail(), "join refused"),
        }
    }
    joined
}

async fn try_join(
    app: &App,
    room: &RoomName,
    caller: &Caller,
    endpoint: JoinEndpoint,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    app.refuse_if_draining()?;
    if extract::media_type(&parts.headers) != SDP {
        return Err(Problem::unsupported_media_type(SDP).with(ACCEPT_POST, HeaderValue::from_static(SDP)));
    }
    let options = options(caller, endpoint, extract::query(&parts.uri)?, app.limits().seats_per_token)?;
    let receives_only = options.endpoint == JoinEndpoint::Whep && endpoint != JoinEndpoint::Whep;
    let offer = extract::text(&parts.headers, body, app.limits().sdp_bytes, app).await?;
    let ticket = admit(app, caller).await?;
    if endpoint == JoinEndpoint::Whep && !app.policy().watch_empty && !is_publishing(app, room).await {
        return Err(RoomError::NoPublisher(room.clone()).into());
    }
    match app.rooms().join(room, &offer, options).await {
        Ok(joined) => {
            ticket.answered(&joined.secret);
            tracing::info!(%room, participant = %joined.participant, "participant joined");
            Ok(created(app, &parts, endpoint, joined))
        }
        Err(RoomError::WrongEndpoint(_)) if receives_only => Err(Problem::viewer_may_not_send(
            "a viewer only receives, but this offer sends: make it recvonly, or get a token with the role participant",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Whether anything is published in `room`; false if the room does not exist.
async fn is_publishing(app: &App, room: &RoomName) -> bool {
    app.rooms().audience(room).await.is_ok_and(|audience| audience.borrow().publishing)
}

fn options(caller: &Caller, endpoint: JoinEndpoint, query: JoinQuery, seats: usize) -> Result<JoinOptions, Problem> {
    let view = query.view()?;
    // The name in a token takes precedence over the query.
    let name = caller.identity.name.clone().unwrap_or(query.name);
    if name.chars().count() > DISPLAY_NAME_MAX {
        return Err(Problem::bad_request(format!("the name is too long: at most {DISPLAY_NAME_MAX} characters")));
    }
    // Without tokens all callers have all permissions in the API, but all participants of a room have the same role.
    let role = if caller.has_token { caller.identity.role } else { Role::Participant };
    let endpoint = if role == Role::Viewer { JoinEndpoint::Whep } else { endpoint };
    let role = if endpoint == JoinEndpoint::Whep { role.min(Role::Viewer) } else { role };
    // Operators' tokens are used by programs that join for others.
    let token = caller.token.filter(|_| caller.identity.role < Role::Operator);
    let seat = token.map(|token| Seat { token: token.number(), of: seats });
    let identity = Some(identity(caller, &name));
    Ok(JoinOptions { name, role, tier: query.tier, view, bot: query.bot, identity, endpoint, seat })
}

/// What recognizes the same person: the token; without a key and with an operator's token, the network of the address
/// and the name.
fn identity(caller: &Caller, name: &str) -> Identity {
    match caller.token.filter(|_| caller.identity.role < Role::Operator) {
        Some(token) => Identity(token.number()),
        None => Identity(Actor::network(caller.address).number(name)),
    }
}

/// A place among the pending joins; released when dropped, unless the join was answered.
struct PendingJoin<'a> {
    app: &'a App,
    ticket: Option<admission::Ticket>,
}

impl PendingJoin<'_> {
    fn answered(mut self, secret: &str) {
        if let Some(ticket) = self.ticket.take() {
            self.app.0.admission.lock().answered(ticket, secret);
        }
    }
}

impl Drop for PendingJoin<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.app.0.admission.lock().settle(ticket);
        }
    }
}

async fn admit<'a>(app: &'a App, caller: &Caller) -> Result<PendingJoin<'a>, Problem> {
    // A join is settled lazily: its session is only looked up when it would prevent another join.
    let blocking = app.0.admission.lock().blocking(caller.address);
    for (ticket, secret) in blocking {
        if !matches!(app.rooms().session(&secret).await, Ok(session) if session.participant.is_none()) {
            app.0.admission.lock().settle(ticket);
        }
    }
    let ticket = app.0.admission.lock().admit(caller.address, time::now()).map_err(|refusal| match refusal {
        admission::Refusal::Rate(wait) => Problem::of_kind(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-joins",
            "too many joins from your address; try again after Retry-After",
        )
        .retry_after(wait),
        admission::Refusal::PendingOfSource(wait) => Problem::of_kind(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-joins",
            "too many joins from your address are not connected yet; delete them, or try again after Retry-After",
        )
        .retry_after(wait),
        admission::Refusal::PendingTotal(wait) => {
            Problem::overloaded("too many joins are not connected yet; try again after Retry-After").retry_after(wait)
        }
    })?;
    Ok(PendingJoin { app, ticket: Some(ticket) })
}

fn created(app: &App, parts: &Parts, endpoint: JoinEndpoint, joined: Joined) -> Response {
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
    if endpoint == JoinEndpoint::Whep {
        headers.append(LINK, text(player::link(&joined.secret)));
    }
    response
}

/// The host in the `Host` header; None if it is missing or invalid.
fn host(headers: &HeaderMap) -> Option<String> {
    let authority = headers.get(HOST)?.to_str().ok()?.parse::<axum::http::uri::Authority>().ok()?;
    Some(authority.host().to_owned())
}

/// `GET /v1/sessions/{secret}`.
pub(super) async fn get(
    State(app): State<App>,
    InPath(SessionSecret(secret)): InPath<SessionSecret>,
) -> Result<Response, Problem> {
    let session = app.rooms().session(&secret).await?;
    let etag = quoted(&session.etag);
    Ok(([(ETAG, etag)], Json(session)).into_response())
}

/// `PATCH /v1/sessions/{secret}`: candidates, an ICE restart, or a new offer.
pub(super) async fn patch(
    State(app): State<App>,
    InPath(SessionSecret(secret)): InPath<SessionSecret>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    limit_rate(&app, &parts.extensions)?;
    match extract::media_type(&parts.headers).as_str() {
        FRAGMENT => {
            // A missing entity tag is reported before an invalid fragment.
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

/// `DELETE /v1/sessions/{secret}`; entity tags are ignored (RFC 9725 section 4.2).
pub(super) async fn delete(
    State(app): State<App>,
    InPath(SessionSecret(secret)): InPath<SessionSecret>,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    limit_rate(&app, request.extensions())?;
    app.rooms().leave(&secret)?;
    Ok(StatusCode::OK)
}

/// Limits the rate of requests to sessions per source (RFC 9725 section 5).
///
/// # Errors
/// 429 with the time to wait.
pub(super) fn limit_rate(app: &App, extensions: &Extensions) -> Result<(), Problem> {
    let taken = app.0.session_requests.lock().take(guard::address(extensions), time::now());
    taken.map_err(|wait| {
        Problem::of_kind(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "too many session requests from your address; try again after Retry-After, and send candidates together",
        )
        .retry_after(wait)
    })
}

/// A strong entity tag in double quotes (RFC 9110 section 8.8.3).
fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// The value of `If-Match`. A weak tag is kept and never matches (RFC 9110 section 13.1.1).
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
    fn if_match_is_a_star_or_one_entity_tag() {
        assert_eq!(if_match(&HeaderMap::new()).expect("absent"), None);
        assert_eq!(tag("*"), Ok(Some(IfMatch::Any)));
        assert_eq!(tag("\"abc\""), Ok(Some(IfMatch::Tag("abc".into()))));
        assert_eq!(tag("abc"), Ok(Some(IfMatch::Tag("abc".into()))));
        assert_ne!(tag("W/\"abc\""), Ok(Some(IfMatch::Tag("abc".into()))), "a weak tag never matches");
        assert_eq!(tag("\"a\", \"b\""), Err(StatusCode::BAD_REQUEST));
        assert_eq!(tag(""), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn an_invalid_host_header_is_ignored() {
        let host = |value: &'static str| host(&HeaderMap::from_iter([(HOST, HeaderValue::from_static(value))]));
        assert_eq!(host("localhost:8080").as_deref(), Some("localhost"));
        assert_eq!(host("[::1]:8080").as_deref(), Some("[::1]"));
        assert_eq!(host("a>;b\""), None);
        assert_eq!(super::host(&HeaderMap::new()), None);
    }
}
