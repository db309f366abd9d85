//! Bodies, paths and queries, with a problem for each way they can be wrong.
//!
//! Owns: reading a body within its limit and time. Does not know: what bodies mean.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::App;
use crate::http::problem::Problem;
use crate::id::{InputId, OutputId, ParticipantId, RoomName};
use crate::recordings::FileName;
use crate::rooms::RoomError;

/// How much of a body that is too large is still read and thrown away: a caller that is still sending when we hang up
/// may never see our answer.
const DRAIN_BYTES: usize = 8 * 1024 * 1024;

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 413 when it is larger, 408 when it does not come in time, 400 when the connection breaks.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize, time: Duration) -> Result<Vec<u8>, Problem> {
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time; send it again");
    tokio::time::timeout(time, collect(headers, body, limit)).await.unwrap_or_else(|_| Err(late()))
}

async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    if announced > DRAIN_BYTES {
        return Err(Problem::too_large(limit));
    }
    let mut read = 0;
    let mut bytes = Vec::with_capacity(announced.min(limit));
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        read += chunk.len();
        if read <= limit {
            bytes.extend_from_slice(&chunk);
        } else if read > DRAIN_BYTES {
            break;
        }
    }
    if read > limit { Err(Problem::too_large(limit)) } else { Ok(bytes) }
}

/// Reads a body of text.
///
/// # Errors
/// Those of [`read`], and 400 when it is not UTF-8.
pub(super) async fn text(headers: &HeaderMap, body: Body, limit: usize, app: &App) -> Result<String, Problem> {
    let bytes = read(headers, body, limit, app.request_time()).await?;
    String::from_utf8(bytes).map_err(|_| Problem::bad_request("the body is not UTF-8 text"))
}

/// Reads a JSON document.
///
/// # Errors
/// Those of [`read`], 415 without a JSON content type, 400 when it is not JSON, 422 when it is not what is wanted here.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, app: &App) -> Result<T, Problem> {
    if !["application/json", "application/merge-patch+json"].contains(&media_type(headers).as_str()) {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    let bytes = read(headers, body, app.limits().patch_bytes, app.request_time()).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Problem::new(status, format!("the JSON is not what is wanted here: {error}"))
    })
}

/// The body's media type in lower case, without parameters; empty when there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The query, read into `T`; unknown keys are ignored.
///
/// # Errors
/// 400 naming the key that is wrong.
pub(super) fn query<T: DeserializeOwned>(parts: &Parts) -> Result<T, Problem> {
    Query::<T>::try_from_uri(&parts.uri)
        .map(|Query(query)| query)
        .map_err(|error| Problem::bad_request(format!("the query is wrong: {}", error.body_text())))
}

/// The room of the path, as an argument of handlers.
pub(super) struct RoomOf(pub(super) RoomName);
/// The participant of the path.
pub(super) struct Participant(pub(super) ParticipantId);
/// The recording or broadcast of the path.
pub(super) struct Output(pub(super) OutputId);
/// The recording's file of the path.
pub(super) struct Recording(pub(super) FileName);
/// The input of the path.
pub(super) struct Injected(pub(super) InputId);
/// The session's secret of the path.
pub(super) struct Secret(pub(super) String);
/// The event stream of the path.
pub(super) struct Stream(pub(super) u32);

impl FromRequestParts<App> for RoomOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        param(parts, app, "room").await.map(Self)
    }
}

impl FromRequestParts<App> for Participant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        param(parts, app, "id").await.map(Self)
    }
}

impl FromRequestParts<App> for Output {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        param(parts, app, "id").await.map(Self)
    }
}

impl FromRequestParts<App> for Recording {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // A text that is no name names nothing that is there.
        let name = param(parts, app, "file").await;
        name.map(Self).map_err(|wrong| Problem::of_kind(StatusCode::NOT_FOUND, "no-recording", wrong.detail()))
    }
}

impl FromRequestParts<App> for Injected {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        param(parts, app, "id").await.map(Self)
    }
}

impl FromRequestParts<App> for Secret {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        param(parts, app, "secret").await.map(Self)
    }
}

impl FromRequestParts<App> for Stream {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // A text that is no number names nothing that is there.
        param(parts, app, "stream").await.map(Self).map_err(|_| RoomError::NoStream.into())
    }
}

async fn param<T>(parts: &mut Parts, app: &App, name: &'static str) -> Result<T, Problem>
where
    T: FromStr<Err: Display>,
{
    let params = RawPathParams::from_request_parts(parts, app).await;
    let params = params.map_err(|_| Problem::bad_request("the path is not UTF-8 text"))?;
    let value = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    let value = value.expect("handlers ask only for parameters of their own path");
    value.parse().map_err(|error: T::Err| Problem::bad_request(error.to_string()))
}
