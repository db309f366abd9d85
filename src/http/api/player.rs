//! The event streams of players: WHEP's extension for server-sent events (draft-ietf-wish-whep section 4.9.1).
//!
//! Owns: its requests, and how events look on the wire. Does not know: when one is due
//! ([`PlayerStream`](crate::rooms::PlayerStream)).
//! A stream ends when the player says so, with its session, with its room, or behind a `reconnect` with the server.

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

use super::App;
use super::extract::{self, Secret, Stream};
use super::sessions::unhurried;
use crate::http::problem::Problem;
use crate::rooms::{PlayerEvent, PlayerNews, PlayerStream};

/// The `Link` of the answer that tells a player where it may ask for events.
pub(super) fn link(secret: &str) -> String {
    let events = PlayerEvent::ALL.map(PlayerEvent::name).join(",");
    format!(
        "</v1/sessions/{secret}/events>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; events=\"{events}\""
    )
}

/// `POST /v1/sessions/{secret}/events`: a stream of the events in the body's array, or of all without a body.
pub(super) async fn open(
    State(app): State<App>,
    Secret(secret): Secret,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    unhurried(&app, &parts)?;
    let wanted = if extract::media_type(&parts.headers).is_empty() {
        PlayerEvent::ALL.into()
    } else {
        wanted(&extract::json::<Vec<String>>(&parts.headers, body, &app).await?)?
    };
    let stream = app.rooms().open_player_stream(&secret, wanted)?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/v1/sessions/{secret}/events/{stream}"))]).into_response())
}

/// The events of these names. Those that others have and we do not (`layers`, `scte35`) are passed over.
fn wanted(names: &[String]) -> Result<BTreeSet<PlayerEvent>, Problem> {
    let known: BTreeSet<PlayerEvent> = names.iter().filter_map(|name| PlayerEvent::from_name(name)).collect();
    if known.is_empty() {
        let all = PlayerEvent::ALL.map(PlayerEvent::name).join(", ");
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("none of these events is sent here; the body is an array of {all}"),
        ));
    }
    Ok(known)
}

/// `GET /v1/sessions/{secret}/events/{stream}`: the events, until somebody ends them.
pub(super) async fn listen(
    State(app): State<App>,
    Secret(secret): Secret,
    Stream(number): Stream,
) -> Result<Response, Problem> {
    let mut stream = app.rooms().player_stream(&secret, number).await?;
    let due = stream.news().into();
    let telling = Telling { stream, draining: app.0.draining.clone(), due, over: false };
    let events = stream::unfold(telling, |mut telling| async {
        let news = telling.next().await?;
        Some((Ok::<_, Infallible>(event(news)), telling))
    });
    Ok(([(CACHE_CONTROL, "no-store")], Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

/// `DELETE /v1/sessions/{secret}/events/{stream}`.
pub(super) async fn close(
    State(app): State<App>,
    Secret(secret): Secret,
    Stream(number): Stream,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    unhurried(&app, &request.into_parts().0)?;
    app.rooms().close_player_stream(&secret, number)?;
    Ok(StatusCode::OK)
}

/// One stream while it is listened to.
struct Telling {
    stream: PlayerStream,
    draining: CancellationToken,
    /// What is told next: never more than one change of each kind.
    due: VecDeque<PlayerNews>,
    /// Nothing follows what is due.
    over: bool,
}

impl Telling {
    async fn next(&mut self) -> Option<PlayerNews> {
        loop {
            if let Some(news) = self.due.pop_front() {
                return Some(news);
            }
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                // Sessions end next; whoever wants to know where to go must be told before.
                () = self.draining.cancelled() => {
                    self.over = true;
                    self.due.extend(Some(PlayerNews::Reconnect).filter(|news| self.stream.wants(news.kind())));
                }
                () = self.stream.ended.cancelled() => return None,
                changed = self.stream.audience.changed() => {
                    changed.ok()?;
                    self.due.extend(self.stream.news());
                }
            }
        }
    }
}

/// The event as the draft writes it: its data is one line of JSON.
fn event(news: PlayerNews) -> sse::Event {
    let data = match news {
        PlayerNews::ViewerCount(viewers) => json!({"viewercount": viewers}),
        PlayerNews::Active | PlayerNews::Inactive | PlayerNews::Reconnect => json!({}),
    };
    sse::Event::default().event(news.kind().name()).data(data.to_string())
}
