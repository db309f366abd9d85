//! Server-sent events for WHEP players (draft-ietf-wish-whep section 4.9.1).
//!
//! Owns: the requests of this extension, and the wire format of events. Does not know: when an event is due
//! ([`PlayerEventStream`](crate::rooms::PlayerEventStream)). A stream ends by DELETE, with its session, with its room,
//! or after a `reconnect` when the server stops.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{Request, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::extract::{self, InPath, SessionSecret, StreamNumber};
use super::sessions::limit_rate;
use super::usage::{Actor, StreamPlace};
use super::{App, guard};
use crate::http::problem::Problem;
use crate::net::connection_limits::Permit;
use crate::rooms::{PlayerEvent, PlayerEventStream, PlayerUpdate};

/// The `Link` header with the URL at which a player subscribes to events.
pub(super) fn link(secret: &str) -> String {
    let events = PlayerEvent::ALL.map(PlayerEvent::name).join(",");
    format!(
        "</v1/sessions/{secret}/events>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; events=\"{events}\""
    )
}

/// `POST /v1/sessions/{secret}/events`: a stream of the events in the body's array, or of all without a body.
pub(super) async fn open(
    State(app): State<App>,
    InPath(SessionSecret(secret)): InPath<SessionSecret>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    limit_rate(&app, request.extensions())?;
    let wanted = if extract::media_type(request.headers()).is_empty() {
        PlayerEvent::ALL.into()
    } else {
        wanted(&extract::json_texts(request, &app).await?)?
    };
    let stream = app.rooms().open_player_stream(&secret, wanted)?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/v1/sessions/{secret}/events/{stream}"))]).into_response())
}

/// The events with these names. Unknown events (`layers`, `scte35`) are ignored.
fn wanted(names: &[String]) -> Result<BTreeSet<PlayerEvent>, Problem> {
    let known: BTreeSet<PlayerEvent> = names.iter().filter_map(|name| PlayerEvent::from_name(name)).collect();
    if known.is_empty() {
        let all = PlayerEvent::ALL.map(PlayerEvent::name).join(", ");
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("none of these events is supported; the body is an array of {all}"),
        ));
    }
    Ok(known)
}

/// `GET /v1/sessions/{secret}/events/{stream}`: the events, until the stream ends.
pub(super) async fn listen(
    State(app): State<App>,
    InPath(SessionSecret(secret)): InPath<SessionSecret>,
    InPath(StreamNumber(number)): InPath<StreamNumber>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let address = guard::address(request.extensions());
    let owner = app.rooms().session_identity(&secret);
    let actor = owner.map_or_else(|| Actor::network(address), |(room, id)| Actor::Participant(room, id));
    let permit = app.event_stream(address, actor)?;
    let mut stream = app.rooms().player_stream(&secret, number).await?;
    let due = stream.updates().into();
    let stream = EventStream { stream, draining: app.0.draining.clone(), due, last: false, _permit: permit };
    let events = stream::unfold(stream, |mut stream| async {
        let update = stream.next().await?;
        Some((Ok::<_, Infallible>(event(update)), stream))
    });
    Ok(([(CACHE_CONTROL, "no-store")], Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

/// `DELETE /v1/sessions/{secret}/events/{stream}`.
pub(super) async fn close(
    State(app): State<App>,
    InPath(SessionSecret(secret)): InPath<SessionSecret>,
    InPath(StreamNumber(number)): InPath<StreamNumber>,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    limit_rate(&app, request.extensions())?;
    app.rooms().close_player_stream(&secret, number)?;
    Ok(StatusCode::OK)
}

/// A stream of events to one player.
struct EventStream {
    stream: PlayerEventStream,
    draining: CancellationToken,
    /// The next events: at most one of each kind.
    due: VecDeque<PlayerUpdate>,
    /// The stream ends after the events in `due`.
    last: bool,
    _permit: (Permit, Option<StreamPlace>),
}

impl EventStream {
    async fn next(&mut self) -> Option<PlayerUpdate> {
        loop {
            if let Some(update) = self.due.pop_front() {
                return Some(update);
            }
            if self.last {
                return None;
            }
            tokio::select! {
                biased;
                // First, because sessions end after draining and `reconnect` must be sent before that.
                () = self.draining.cancelled() => {
                    self.last = true;
                    self.due.extend(Some(PlayerUpdate::Reconnect).filter(|update| self.stream.wants(update.kind())));
                }
                () = self.stream.ended.cancelled() => return None,
                changed = self.stream.audience.changed() => {
                    changed.ok()?;
                    self.due.extend(self.stream.updates());
                }
            }
        }
    }
}

/// The event in the format of the draft: its data is one line of JSON.
fn event(update: PlayerUpdate) -> sse::Event {
    let data = match update {
        PlayerUpdate::ViewerCount(viewers) => json!({"viewercount": viewers}),
        PlayerUpdate::Active | PlayerUpdate::Inactive | PlayerUpdate::Reconnect => json!({}),
    };
    sse::Event::default().event(update.kind().name()).data(data.to_string())
}
