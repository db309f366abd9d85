//! Typed request bodies, path parameters and queries. Each way in which they can be invalid is a problem.
//!
//! Owns: reading a body within its size and time limits. Does not know: what bodies mean. In: requests; out: typed
//! values, or the problem to answer with.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::App;
use crate::http::problem::Problem;
use crate::id::{InputId, OutputId, OverlayId, ParticipantId, RoomName, RoomNameError, ViewName};
use crate::overlay::ImageName;
use crate::recordings::FileName;
use crate::rooms::RoomError;

/// Bytes of a body that are read and discarded after its limit: a client that is still sending when the connection
/// closes may never read the answer.
const DRAIN_BYTES: usize = 8 * 1024 * 1024;

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 413 if it is larger, 408 if it does not arrive in time, 400 if the connection breaks.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize, time: Duration) -> Result<Vec<u8>, Problem> {
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time; send it again");
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
        let chunk = chunk.map_err(|error| Problem::bad_request(format!("the body is incomplete: {error}")))?;
        read += chunk.len();
        if read <= limit {
            bytes.extend_from_slice(&chunk);
        } else if read > DRAIN_BYTES {
            break;
        }
    }
    if read > limit { Err(Problem::too_large(limit)) } else { Ok(bytes) }
}

/// Reads a text body of at most `limit` bytes.
///
/// # Errors
/// Those of [`read`], and 400 if the body is not UTF-8.
pub(super) async fn text(headers: &HeaderMap, body: Body, limit: usize, app: &App) -> Result<String, Problem> {
    let bytes = read(headers, body, limit, app.request_time()).await?;
    String::from_utf8(bytes).map_err(|_| Problem::bad_request("the body is not UTF-8 text"))
}

/// Reads a JSON object.
///
/// # Errors
/// Those of [`read`], 415 without a JSON content type, 400 if the body is not JSON, 422 if it is not a valid `T`.
pub(super) async fn json<T: DeserializeOwned>(request: Request<Body>, app: &App) -> Result<T, Problem> {
    let bytes = json_bytes(request, app).await?;
    // Derived implementations also accept an array of the fields in their order, and an empty one for no fields.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid_value(
            "the JSON body is an array: send an object, which is a map of names to values",
        ));
    }
    parsed(&bytes)
}

/// Reads a JSON array of texts.
///
/// # Errors
/// Those of [`json`].
pub(super) async fn json_texts(request: Request<Body>, app: &App) -> Result<Vec<String>, Problem> {
    parsed(&json_bytes(request, app).await?)
}

async fn json_bytes(request: Request<Body>, app: &App) -> Result<Vec<u8>, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    if !["application/json", "application/merge-patch+json"].contains(&media_type(&headers).as_str()) {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    read(&headers, body, app.limits().patch_bytes, app.request_time()).await
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Problem::new(status, format!("the JSON body is invalid: {error}"))
    })
}

/// The body's media type in lower case, without parameters; empty if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The query of `uri` as a `T`; unknown keys are ignored.
///
/// # Errors
/// 400 that names the invalid key.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::<T>::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| Problem::bad_request(format!("the query is invalid: {}", error.body_text())))
}

/// A parameter of the path, as an argument of handlers.
pub(super) struct InPath<T>(pub(super) T);

/// A type that some paths have as a parameter.
pub(super) trait PathParameter: FromStr<Err: Display> {
    /// The name of the parameter in the route table.
    const NAME: &'static str;

    /// The problem with an invalid parameter; `error` says what is wrong with it.
    fn invalid(error: &Self::Err) -> Problem {
        Problem::bad_request(error.to_string())
    }
}

impl PathParameter for RoomName {
    const NAME: &'static str = "room";

    fn invalid(error: &RoomNameError) -> Problem {
        Problem::bad_room_name(StatusCode::BAD_REQUEST, error)
    }
}

impl PathParameter for ViewName {
    const NAME: &'static str = "view";
}

impl PathParameter for ParticipantId {
    const NAME: &'static str = "id";
}

impl PathParameter for OutputId {
    const NAME: &'static str = "id";
}

impl PathParameter for InputId {
    const NAME: &'static str = "id";
}

impl PathParameter for OverlayId {
    const NAME: &'static str = "id";
}

impl PathParameter for ImageName {
    const NAME: &'static str = "name";
}

impl PathParameter for FileName {
    const NAME: &'static str = "file";

    // There is no file with an invalid name.
    fn invalid(error: &Self::Err) -> Problem {
        Problem::of_kind(StatusCode::NOT_FOUND, "no-recording", error.to_string())
    }
}

/// The secret that identifies a session.
pub(super) struct SessionSecret(pub(super) String);

impl FromStr for SessionSecret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl PathParameter for SessionSecret {
    const NAME: &'static str = "secret";
}

/// The number of a player's event stream.
pub(super) struct StreamNumber(pub(super) u32);

impl FromStr for StreamNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl PathParameter for StreamNumber {
    const NAME: &'static str = "stream";

    // There is no stream with an invalid number.
    fn invalid(_: &Self::Err) -> Problem {
        RoomError::NoStream.into()
    }
}

impl<T: PathParameter> FromRequestParts<App> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, app).await;
        let params = params.map_err(|_| Problem::bad_request("the path is not UTF-8 text"))?;
        let value = params.iter().find(|(key, _)| *key == T::NAME).map(|(_, value)| value);
        let value = value.expect("handlers use only the parameters of their own path");
        value.parse().map(Self).map_err(|error| T::invalid(&error))
    }
}
