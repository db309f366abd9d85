//! Error responses: `application/problem+json` (RFC 9457).
//!
//! Owns: [`Problem`], and the status, type, code and advice for each error. Does not know: the causes of errors. In:
//! errors of the other modules; out: responses. Every error response of this server is a [`Problem`].

use std::time::Duration;

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::auth::AuthError;
use crate::id::RoomNameError;
use crate::peer::PeerError;
use crate::recordings::LibraryError;
use crate::room::Refusal;
use crate::room::captions::CaptionError;
use crate::room::chat::ChatError;
use crate::room::moderation::ModerationError;
use crate::room::overlays::OverlayError;
use crate::room::view_request::ViewError;
use crate::rooms::RoomError;
use crate::sdp::{FragmentError, OfferError};

/// The content type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The URL at which `docs/api.md` explains the kinds.
const DOCS: &str = "/docs/api.md#";

/// The kinds that programs may distinguish; each has a heading in `docs/api.md`. The code of a problem is its kind in
/// `snake_case`, unless it has one of [`CODES`].
pub const KINDS: [&str; 47] = [
    "bad-room-name",
    "unauthorized",
    "forbidden",
    "host",
    "origin",
    "proxy",
    "offer",
    "direction",
    "fragment",
    "entity-tag",
    "no-session",
    "event-streams",
    "no-room",
    "no-publisher",
    "no-participant",
    "no-view",
    "no-recording",
    "recording-runs",
    "too-many-views",
    "view-in-use",
    "room-exists",
    "no-output",
    "output",
    "too-many-outputs",
    "no-input",
    "input",
    "too-many-inputs",
    "no-overlay",
    "overlay",
    "too-many-overlays",
    "no-image",
    "too-many-images",
    "filter",
    "room-locked",
    "kept-out",
    "in-lobby",
    "not-open-yet",
    "room-over",
    "muted-by-moderator",
    "not-allowed-to-unmute",
    "not-allowed-to-chat",
    "room-full",
    "too-many-joins",
    "too-many-requests",
    "overloaded",
    "draining",
    "no-key",
];

/// Codes that are more precise than the kind of their problem.
pub const CODES: [&str; 6] =
    ["needs_token", "invalid_token", "token_expired", "wrong_role", "wrong_room", "viewer_may_not_send"];

/// The codes of problems that have no kind, by status.
pub const STATUS_CODES: [(StatusCode, &str); 10] = [
    (StatusCode::BAD_REQUEST, "bad_request"),
    (StatusCode::NOT_FOUND, "not_found"),
    (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
    (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
    (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value"),
    (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
    (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
];

/// An error response.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// The kind, which is also its heading in `docs/api.md`; None is `about:blank`: the status explains the error.
    kind: Option<&'static str>,
    /// One of [`CODES`], if it is not that of the kind or status.
    code: Option<&'static str>,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem that its status explains; `detail` says what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, kind: None, code: None, detail: detail.into(), headers: Vec::new() }
    }

    /// A problem of a kind that programs may distinguish.
    pub fn of_kind(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(KINDS.contains(&kind), "{kind} is not documented");
        Self { kind: Some(kind), ..Self::new(status, detail) }
    }

    /// Sets one of [`CODES`].
    #[must_use]
    fn coded(self, code: &'static str) -> Self {
        debug_assert!(CODES.contains(&code), "{code} is not documented");
        Self { code: Some(code), ..self }
    }

    /// Adds or replaces a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    /// Sets `Retry-After`, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the client should do.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The stable code by which programs recognize this problem.
    pub fn code(&self) -> String {
        let by_status = || STATUS_CODES.iter().find(|(status, _)| *status == self.status).map(|(_, code)| *code);
        match (self.code, self.kind) {
            (Some(code), _) => code.to_owned(),
            (None, Some(kind)) => kind.replace('-', "_"),
            (None, None) => by_status().expect("statuses of problems without a kind are in the table").to_owned(),
        }
    }

    /// The text is not the name of a room: 400 in a path or query, 422 in a body.
    pub fn bad_room_name(status: StatusCode, error: &RoomNameError) -> Self {
        Self::of_kind(status, "bad-room-name", error.to_string())
    }

    /// 403: a viewer sends media.
    pub fn viewer_may_not_send(detail: impl Into<String>) -> Self {
        Self::of_kind(StatusCode::FORBIDDEN, "forbidden", detail).coded("viewer_may_not_send")
    }

    /// 403: the role is insufficient.
    pub fn wrong_role(detail: impl Into<String>) -> Self {
        Self::of_kind(StatusCode::FORBIDDEN, "forbidden", detail).coded("wrong_role")
    }

    /// 403: the caller was not let in yet.
    pub fn in_lobby() -> Self {
        let detail = "this room has a lobby: join, and wait until a moderator lets you in";
        Self::of_kind(StatusCode::FORBIDDEN, "in-lobby", detail)
    }

    /// 422: a value is invalid.
    pub fn invalid_value(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 404: the path does not exist.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "this path does not exist; /openapi.json lists all paths")
    }

    /// 405; `allow` lists the methods of the path.
    pub fn method_not_allowed(allow: &str) -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path supports {allow}"));
        problem.with(ALLOW, HeaderValue::from_str(allow).expect("method names are header text"))
    }

    /// 415; `wanted` is the supported content type.
    pub fn unsupported_media_type(wanted: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send the body with `Content-Type: {wanted}`"))
    }

    /// 413: the body has more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {limit} bytes, which is the limit"))
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 500: a bug of the server.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "an internal error of this server, not of your request; see its log",
        )
    }

    /// 503 because of overload.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::of_kind(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(Duration::from_secs(2))
    }

    /// 503 because the server is shutting down.
    pub fn draining() -> Self {
        Self::of_kind(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "this server is shutting down and accepts no joins; try again",
        )
        .retry_after(Duration::from_secs(5))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = self.kind.map_or_else(|| "about:blank".to_owned(), |kind| format!("{DOCS}{kind}"));
        let body = json!({
            "type": kind,
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code(),
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let challenge = |value: &'static str| (WWW_AUTHENTICATE, HeaderValue::from_static(value));
        let detail = error.to_string();
        let unauthorized = |code, (name, value)| {
            Self::of_kind(StatusCode::UNAUTHORIZED, "unauthorized", detail.clone()).coded(code).with(name, value)
        };
        let invalid = "Bearer realm=\"commingle\", error=\"invalid_token\"";
        match error {
            AuthError::Missing => unauthorized("needs_token", challenge("Bearer realm=\"commingle\"")),
            AuthError::Invalid(_) => unauthorized("invalid_token", challenge(invalid)),
            AuthError::Expired => unauthorized("token_expired", challenge(invalid)),
            AuthError::Role { .. } => Self::wrong_role(detail),
            AuthError::Room(_) | AuthError::AllRooms(_) => {
                Self::of_kind(StatusCode::FORBIDDEN, "forbidden", detail).coded("wrong_room")
            }
        }
    }
}

impl From<RoomError> for Problem {
    fn from(error: RoomError) -> Self {
        let detail = error.to_string();
        let busy = Duration::from_secs(2);
        match error {
            RoomError::Offer(error) => Self::of_kind(offer_status(&error), "offer", detail),
            RoomError::Fragment(error) => Self::of_kind(fragment_status(&error), "fragment", detail),
            RoomError::WrongEndpoint(_) => Self::of_kind(StatusCode::UNPROCESSABLE_ENTITY, "direction", detail),
            RoomError::ViewerSends => Self::viewer_may_not_send(detail),
            RoomError::Refused(Refusal::Locked) => Self::of_kind(StatusCode::FORBIDDEN, "room-locked", detail),
            RoomError::Refused(Refusal::KeptOut(left)) => {
                Self::of_kind(StatusCode::FORBIDDEN, "kept-out", detail).retry_after(left)
            }
            RoomError::Refused(Refusal::NotOpenYet(wait)) => {
                Self::of_kind(StatusCode::FORBIDDEN, "not-open-yet", detail).retry_after(wait)
            }
            RoomError::Refused(Refusal::Over) => Self::of_kind(StatusCode::FORBIDDEN, "room-over", detail),
            RoomError::Refused(Refusal::FullOfWaiting(_)) => {
                Self::of_kind(StatusCode::SERVICE_UNAVAILABLE, "room-full", detail).retry_after(Duration::from_secs(10))
            }
            RoomError::Moderation(error) => Self::from(error),
            RoomError::Refused(Refusal::Full(_) | Refusal::FullOfViewers(_)) => {
                Self::of_kind(StatusCode::SERVICE_UNAVAILABLE, "room-full", detail).retry_after(Duration::from_secs(10))
            }
            RoomError::Refused(Refusal::FullOfOutputs(_)) => {
                Self::of_kind(StatusCode::CONFLICT, "too-many-outputs", detail)
            }
            RoomError::Refused(Refusal::FullOfInputs(_)) => {
                Self::of_kind(StatusCode::CONFLICT, "too-many-inputs", detail)
            }
            RoomError::View(error) | RoomError::Refused(Refusal::View(error)) => Self::from(error),
            RoomError::NoInput(_) => Self::of_kind(StatusCode::NOT_FOUND, "no-input", detail),
            RoomError::Input(_) => Self::of_kind(StatusCode::UNPROCESSABLE_ENTITY, "input", detail),
            RoomError::NoOutput(_) => Self::of_kind(StatusCode::NOT_FOUND, "no-output", detail),
            RoomError::Output(_) => Self::of_kind(StatusCode::UNPROCESSABLE_ENTITY, "output", detail),
            RoomError::Filter(_) => Self::of_kind(StatusCode::UNPROCESSABLE_ENTITY, "filter", detail),
            RoomError::Overlay(error) => overlay_problem(&error, detail),
            RoomError::Chat(ChatError::NotAllowed) => {
                Self::of_kind(StatusCode::FORBIDDEN, "not-allowed-to-chat", detail)
            }
            RoomError::Chat(ChatError::Invalid(_)) => Self::invalid_value(detail),
            RoomError::Chat(ChatError::NoParticipant(_)) => {
                Self::of_kind(StatusCode::NOT_FOUND, "no-participant", detail)
            }
            RoomError::Refused(Refusal::Ended) => Self::of_kind(StatusCode::NOT_FOUND, "no-room", detail),
            RoomError::NoRoom(_) => Self::of_kind(StatusCode::NOT_FOUND, "no-room", detail),
            RoomError::RoomExists(_) => Self::of_kind(StatusCode::CONFLICT, "room-exists", detail),
            RoomError::NoParticipant(_) => Self::of_kind(StatusCode::NOT_FOUND, "no-participant", detail),
            RoomError::NoSession => Self::of_kind(StatusCode::NOT_FOUND, "no-session", detail),
            RoomError::NoStream => Self::of_kind(StatusCode::NOT_FOUND, "event-streams", detail),
            RoomError::TooManyStreams => Self::of_kind(StatusCode::CONFLICT, "event-streams", detail),
            RoomError::NoPublisher(_) => Self::of_kind(StatusCode::CONFLICT, "no-publisher", detail).retry_after(busy),
            RoomError::NoIfMatch => Self::of_kind(StatusCode::PRECONDITION_REQUIRED, "entity-tag", detail),
            RoomError::StaleTag => Self::of_kind(StatusCode::PRECONDITION_FAILED, "entity-tag", detail),
            RoomError::TooManyOfToken(_) => Self::of_kind(StatusCode::TOO_MANY_REQUESTS, "too-many-joins", detail)
                .retry_after(Duration::from_secs(10)),
            RoomError::TooManyRooms(_) => Self::overloaded(detail).retry_after(Duration::from_secs(10)),
            RoomError::ShuttingDown => Self::draining(),
            RoomError::Peer(PeerError::Offer(_) | PeerError::Connection(_)) => {
                Self::of_kind(StatusCode::UNPROCESSABLE_ENTITY, "offer", detail)
            }
            RoomError::Peer(PeerError::Fragment(_)) => Self::of_kind(StatusCode::BAD_REQUEST, "fragment", detail),
            RoomError::Peer(PeerError::Closed) => Self::of_kind(StatusCode::NOT_FOUND, "no-session", detail),
            RoomError::Stuck | RoomError::Peer(PeerError::Busy) => Self::overloaded(detail).retry_after(busy),
        }
    }
}

impl From<ModerationError> for Problem {
    fn from(error: ModerationError) -> Self {
        let (status, kind) = match error {
            ModerationError::NoParticipant(_) => (StatusCode::NOT_FOUND, "no-participant"),
            ModerationError::MutedByModerator | ModerationError::StoppedByModerator => {
                (StatusCode::FORBIDDEN, "muted-by-moderator")
            }
            ModerationError::MayNotUnmute => (StatusCode::FORBIDDEN, "not-allowed-to-unmute"),
        };
        Self::of_kind(status, kind, error.to_string())
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        let detail = error.to_string();
        match error {
            ViewError::Unknown(..) => Self::of_kind(StatusCode::NOT_FOUND, "no-view", detail),
            ViewError::TooMany => Self::of_kind(StatusCode::CONFLICT, "too-many-views", detail),
            ViewError::Program | ViewError::InUse(_) => Self::of_kind(StatusCode::CONFLICT, "view-in-use", detail),
            ViewError::Filter(_) => Self::of_kind(StatusCode::UNPROCESSABLE_ENTITY, "filter", detail),
            ViewError::Reserved(_) | ViewError::NotOwn | ViewError::CanvasTooLarge(_) => Self::invalid_value(detail),
        }
    }
}

fn overlay_problem(error: &OverlayError, detail: String) -> Problem {
    let (status, kind) = match error {
        OverlayError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "overlay"),
        OverlayError::View(error) => return error.clone().into(),
        OverlayError::NoOverlay(_) => (StatusCode::NOT_FOUND, "no-overlay"),
        OverlayError::NoImage(_) => (StatusCode::NOT_FOUND, "no-image"),
        OverlayError::NoParticipant(_) => (StatusCode::NOT_FOUND, "no-participant"),
        OverlayError::TooManyOverlays => (StatusCode::CONFLICT, "too-many-overlays"),
        OverlayError::TooManyImages => (StatusCode::CONFLICT, "too-many-images"),
        OverlayError::Caption(CaptionError::TooMany(wait)) => {
            let problem = Problem::of_kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail);
            return problem.retry_after(*wait);
        }
    };
    Problem::of_kind(status, kind, detail)
}

impl From<LibraryError> for Problem {
    fn from(error: LibraryError) -> Self {
        let detail = error.to_string();
        match error {
            LibraryError::NotFound(_) | LibraryError::Moved(..) => {
                Self::of_kind(StatusCode::NOT_FOUND, "no-recording", detail)
            }
            LibraryError::Running(_) => Self::of_kind(StatusCode::CONFLICT, "recording-runs", detail),
            LibraryError::Disk(_) => {
                tracing::error!("{detail}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
            }
        }
    }
}

/// 400 for a body that is not SDP, 422 for SDP that cannot be served (RFC 9725 section 4.2).
fn offer_status(error: &OfferError) -> StatusCode {
    match error {
        OfferError::Empty | OfferError::NotSdp | OfferError::Character { .. } | OfferError::MediaLine { .. } => {
            StatusCode::BAD_REQUEST
        }
        OfferError::TooLarge | OfferError::TooManyLines => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn fragment_status(error: &FragmentError) -> StatusCode {
    match error {
        FragmentError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}
