//! The recordings and broadcasts of a room: begin, see, end. The files they make are another matter.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};

use super::App;
use super::extract::{self, Output, RoomOf};
use crate::http::problem::Problem;
use crate::room::document::{BroadcastDocument, RecordingDocument};
use crate::rooms::{BroadcastRequest, RecordingRequest};

/// `GET /v1/rooms/{room}/recordings`.
pub(super) async fn recordings(
    State(app): State<App>,
    RoomOf(room): RoomOf,
) -> Result<Json<Vec<RecordingDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.recordings))
}

/// `POST /v1/rooms/{room}/recordings`.
pub(super) async fn record(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let wanted: RecordingRequest = extract::json(&parts.headers, body, &app).await?;
    if app.is_draining() {
        return Err(Problem::draining());
    }
    let recording = app.rooms().record(&room, &wanted).await?;
    let location = format!("/v1/rooms/{room}/recordings/{}", recording.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(recording)).into_response())
}

/// `GET /v1/rooms/{room}/recordings/{id}`.
pub(super) async fn recording(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    Output(id): Output,
) -> Result<Json<RecordingDocument>, Problem> {
    Ok(Json(app.rooms().recording(&room, id).await?))
}

/// `DELETE /v1/rooms/{room}/recordings/{id}`: ends it; the answer tells of its files.
pub(super) async fn stop_recording(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    Output(id): Output,
) -> Result<Json<RecordingDocument>, Problem> {
    Ok(Json(app.rooms().stop_recording(&room, id).await?))
}

/// `GET /v1/rooms/{room}/broadcasts`.
pub(super) async fn broadcasts(
    State(app): State<App>,
    RoomOf(room): RoomOf,
) -> Result<Json<Vec<BroadcastDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.broadcasts))
}

/// `POST /v1/rooms/{room}/broadcasts`.
pub(super) async fn begin_broadcast(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let wanted: BroadcastRequest = extract::json(&parts.headers, body, &app).await?;
    if app.is_draining() {
        return Err(Problem::draining());
    }
    let broadcast = app.rooms().broadcast(&room, &wanted).await?;
    let location = format!("/v1/rooms/{room}/broadcasts/{}", broadcast.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(broadcast)).into_response())
}

/// `GET /v1/rooms/{room}/broadcasts/{id}`.
pub(super) async fn broadcast(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    Output(id): Output,
) -> Result<Json<BroadcastDocument>, Problem> {
    Ok(Json(app.rooms().broadcast_of(&room, id).await?))
}

/// `DELETE /v1/rooms/{room}/broadcasts/{id}`: ends it.
pub(super) async fn stop_broadcast(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    Output(id): Output,
) -> Result<Json<BroadcastDocument>, Problem> {
    Ok(Json(app.rooms().stop_broadcast(&room, id).await?))
}
