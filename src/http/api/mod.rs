//! The HTTP API of `docs/api.md`: routes, handlers, and the server that runs them.
//!
//! Owns: the [`App`] that handlers share, the router built from the table in [`routes`], and what all answers have in
//! common (problems for errors, CORS, time limits, metrics). Does not know: rooms and media; it calls [`Rooms`].
//! In: HTTP requests; out: calls on [`Rooms`]. The role of a caller is checked before a handler runs.

mod admission;
mod chat;
mod events;
mod extract;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod hls;
mod inputs;
mod invitations;
mod library;
mod moderation;
mod origin;
mod outputs;
mod overlays;
mod participants;
mod plain;
mod player;
mod ranges;
mod rooms;
mod routes;
mod server;
mod service;
mod sessions;
#[cfg(test)]
pub(super) mod tests;
mod usage;
mod views;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, LOCATION, ORIGIN, VARY};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::admission::Admission;
use self::guard::Caller;
use self::origin::{Origins, Source};
use self::usage::{Actor, Rates, StreamPlace, Streams, Whose};

pub use self::server::serve;
use crate::config::{Config, Limits, Processes, TlsMode};
use crate::http::auth::{AuthError, Authority};
use crate::http::problem::Problem;
use crate::http::web::Web;
use crate::id::RoomName;
use crate::metrics::{LoginLabels, Metrics, ProcessLabels, RequestLabels};
use crate::net::connection_limits::{self, ConnectionLimiter, Permit};
use crate::net::rate_limit::RateLimiter;
use crate::net::turn::IceServers;
use crate::recordings::Library;
use crate::room::document::Role;
use crate::rooms::{Rooms, ServerSettings};
use crate::time;

/// The response headers that pages of other origins may read.
const EXPOSED_HEADERS: &str = "Location, ETag, Link, Accept-Patch, Accept-Post, Commingle-Participant, Retry-After, \
    Accept-Ranges, Content-Disposition, Content-Range";

/// The state that all handlers share; clones share it too.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    rooms: Rooms,
    library: Library,
    policy: ArcSwap<Policy>,
    metrics: Arc<Metrics>,
    admission: Mutex<Admission>,
    session_requests: Mutex<RateLimiter>,
    rates: Mutex<Rates>,
    /// The open event streams of each session and token.
    streams: Arc<Streams>,
    /// Limits the open WebSockets and player event streams of an address.
    event_streams: Arc<ConnectionLimiter>,
    ice_servers: IceServers,
    /// Whether this server itself speaks HTTPS.
    https: bool,
    draining: CancellationToken,
    closing: CancellationToken,
}

/// What a reload of the configuration may change.
pub(super) struct Policy {
    /// Checks and signs tokens.
    pub(super) authority: Authority,
    origins: Origins,
    /// The pages of the server.
    web: Web,
    limits: Limits,
    /// Whether WHEP players may join a room in which nothing is published.
    watch_empty: bool,
}

impl Policy {
    fn new(config: &Config) -> Self {
        Self {
            authority: Authority::new(&config.auth),
            origins: Origins::new(config),
            web: Web::new(&config.http.frame_ancestors),
            limits: config.limits.clone(),
            watch_empty: config.rooms.watch_empty,
        }
    }
}

/// Sets the metric of the memory of child processes.
fn show_memory_limits(metrics: &Metrics, limits: &Processes) {
    for (process, mib) in
        [("mixer", limits.mixer_memory_mib), ("input", limits.input_memory_mib), ("output", limits.output_memory_mib)]
    {
        metrics.process_memory_limit.get_or_create(&ProcessLabels { process }).set(i64::from(mib) << 20);
    }
}

fn session_requests(limits: &Limits) -> RateLimiter {
    RateLimiter::new(limits.session_requests_per_second, limits.session_requests_burst)
}

impl App {
    /// The API of `rooms` and `library`. `config` is valid; the answers to joins list `ice_servers`.
    pub fn new(
        config: &Config,
        rooms: Rooms,
        library: Library,
        metrics: Arc<Metrics>,
        ice_servers: IceServers,
    ) -> Self {
        let streams = connection_limits::Limits {
            per_address: config.limits.event_streams_per_address,
            pending: usize::MAX,
            total: config.limits.connections,
        };
        let refused = metrics.event_streams_refused.clone();
        let event_streams = ConnectionLimiter::new(streams, metrics.event_streams.clone(), refused);
        show_memory_limits(&metrics, &config.processes);
        Self(Arc::new(Shared {
            rooms,
            library,
            policy: ArcSwap::from_pointee(Policy::new(config)),
            metrics,
            admission: Mutex::new(Admission::new(config.limits.clone())),
            session_requests: Mutex::new(session_requests(&config.limits)),
            rates: Mutex::new(Rates::new(&config.limits)),
            streams: Arc::default(),
            event_streams,
            ice_servers,
            https: config.tls.mode != TlsMode::Off,
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Uses the key, the limits and `rooms.watch_empty` of `config` from now on, and `settings` for new rooms. Sessions
    /// and rooms stay.
    pub fn reconfigure(&self, config: &Config, settings: ServerSettings) {
        self.0.rooms.reconfigure(settings);
        self.0.policy.store(Arc::new(Policy::new(config)));
        self.0.admission.lock().set_limits(config.limits.clone());
        *self.0.session_requests.lock() = session_requests(&config.limits);
        *self.0.rates.lock() = Rates::new(&config.limits);
        show_memory_limits(self.metrics(), &config.processes);
    }

    /// Accepts no more joins: they are answered with 503, and so is `/readyz`.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Closes all WebSockets; [`serve`] returns when its connections have ended.
    pub fn close(&self) {
        self.drain();
        self.0.closing.cancel();
    }

    /// # Errors
    /// 503 after [`App::drain`].
    fn refuse_if_draining(&self) -> Result<(), Problem> {
        if self.0.draining.is_cancelled() { Err(Problem::draining()) } else { Ok(()) }
    }

    /// A permit for an event stream of this client, held while the stream is open.
    ///
    /// # Errors
    /// 429 when the client has too many open.
    fn event_stream(&self, address: IpAddr, actor: Actor) -> Result<(Permit, Option<StreamPlace>), Problem> {
        let limits = self.limits();
        let refused = |whose, most| {
            let detail = format!("{whose} has {most} event streams open, which is the limit: close one");
            Problem::of_kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
                .retry_after(Duration::from_secs(10))
        };
        let (whose, most) = match &actor {
            Actor::Participant(..) => ("your session", limits.event_streams_per_session),
            Actor::Token(_) => ("your token", limits.event_streams_per_token),
            Actor::Network(_) => ("your address", limits.event_streams_per_address),
        };
        let of_address = self.0.event_streams.take(address);
        let of_address = of_address.ok_or_else(|| refused("your address", limits.event_streams_per_address))?;
        if matches!(actor, Actor::Network(_)) {
            return Ok((of_address, None));
        }
        let place = self.0.streams.take(actor, most).ok_or_else(|| {
            self.metrics().event_streams_refused.inc();
            refused(whose, most)
        })?;
        Ok((of_address, Some(place)))
    }

    /// Counts a change of a room or participant by this caller.
    ///
    /// # Errors
    /// 429 when it makes too many.
    fn change(&self, caller: &Caller, room: &RoomName) -> Result<(), Problem> {
        if caller.participant.is_none() && caller.identity.role == Role::Operator {
            return Ok(());
        }
        let taken = self.0.rates.lock().change(caller.actor(room), time::now());
        taken.map_err(|wait| {
            self.metrics().changes_limited.inc();
            let detail = "you make too many changes, over all your connections: send fewer, after Retry-After";
            Problem::of_kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail).retry_after(wait)
        })
    }

    /// Counts a chat message of this caller in this room.
    ///
    /// # Errors
    /// 429 when the caller or the room has too many.
    fn count_chat(&self, caller: &Caller, room: &RoomName) -> Result<(), Problem> {
        let is_limited = caller.participant.is_some() || caller.identity.role < Role::Operator;
        let actor = is_limited.then(|| caller.actor(room));
        let taken = self.0.rates.lock().chat(actor, room.clone(), time::now());
        taken.map_err(|(whose, wait)| {
            self.metrics().chats_limited.inc();
            let detail = match whose {
                Whose::Caller => "you send too many chat messages: send it again after Retry-After",
                Whose::Room => "the room has too many chat messages: send it again after Retry-After",
            };
            Problem::of_kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail).retry_after(wait)
        })
    }

    /// The answer to a request that is not authorized. A token that is not valid is counted and logged.
    pub(super) fn unauthorized(&self, address: IpAddr, error: AuthError) -> Problem {
        let reason = match error {
            AuthError::Invalid(_) => "invalid",
            AuthError::Expired => "expired",
            _ => return error.into(),
        };
        self.metrics().logins_failed.get_or_create(&LoginLabels { reason }).inc();
        match self.0.rates.lock().refused_token(address, time::now()) {
            Ok(()) => {
                tracing::warn!(%address, reason, %error, "login failed");
                error.into()
            }
            Err(wait) => {
                let detail = "too many requests from your address had a token that is not valid: get a new one";
                Problem::of_kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail).retry_after(wait)
            }
        }
    }

    fn request_time(&self) -> Duration {
        Duration::from_secs(self.limits().request_seconds.into())
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    pub(super) fn library(&self) -> &Library {
        &self.0.library
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        self.0.policy.load_full()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.policy.load().limits.clone()
    }

    /// Cancelled when the server closes its connections.
    pub(super) fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }
}

/// All routes, as a service.
pub fn router(app: &App) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes::by_path(app) {
        router = router.route(path, handler);
    }
    router.fallback(routes::fallback).layer(middleware::from_fn_with_state(app.clone(), common)).with_state(app.clone())
}

/// 201 with the URL of what was created.
fn created(location: String, document: impl Serialize) -> Response {
    (StatusCode::CREATED, [(LOCATION, location)], Json(document)).into_response()
}

/// Wraps every request: the check of its origin, a time limit, a handler for panics, CORS headers, metrics.
async fn common(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let method = counted_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let connection = guard::connection_address(request.extensions());
    let mut response = match app.policy().origins.check(connection, request.method(), request.uri(), request.headers())
    {
        Ok(source) => {
            let allow_origin = source.allow_origin.clone();
            request.extensions_mut().insert::<Source>(source);
            let mut response = answer(&app, request, next, method, &route).await;
            if let Some(origin) = allow_origin {
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
            }
            response
        }
        Err(problem) => problem.into_response(),
    };
    response.headers_mut().append(VARY, HeaderValue::from(ORIGIN));
    app.metrics()
        .http_requests
        .get_or_create(&RequestLabels { method, route, status: response.status().as_u16() })
        .inc();
    response
}

/// Runs the handler with a time limit, and turns a panic into a problem.
async fn answer(app: &App, request: Request, next: Next, method: &'static str, route: &str) -> Response {
    // A handler first reads its body, which has the same time limit and an error of its own.
    let answer = tokio::time::timeout(app.request_time() * 2, AssertUnwindSafe(next.run(request)).catch_unwind());
    match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            tracing::error!(route, method, "HTTP handler panicked");
            Problem::internal().into_response()
        }
        Err(_elapsed) => {
            tracing::error!(route, method, "HTTP handler timed out");
            Problem::overloaded("the answer took too long; try again").into_response()
        }
    }
}

/// The method as the label of a metric: a client must not be able to create new labels.
fn counted_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
