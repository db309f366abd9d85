//! The recordings and broadcasts of a room: list, start, read, stop. Finished files are in [`super::library`].

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;

use super::extract::{self, InPath};
use super::{App, created};
use crate::http::problem::Problem;
use crate::id::{OutputId, RoomName};
use crate::room::document::{BroadcastDocument, RecordingDocument};
use crate::rooms::{BroadcastRequest, RecordingRequest};

/// `GET /v1/rooms/{room}/recordings`.
pub(super) async fn list_recordings(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
) -> Result<Json<Vec<RecordingDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.recordings))
}

/// `POST /v1/rooms/{room}/recordings`.
pub(super) async fn start_recording(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let wanted: RecordingRequest = extract::json(request, &app).await?;
    app.refuse_if_draining()?;
    let recording = app.rooms().record(&room, &wanted).await?;
    Ok(created(format!("/v1/rooms/{}/recordings/{}", room.in_url(), recording.id), recording))
}

/// `GET /v1/rooms/{room}/recordings/{id}`.
pub(super) async fn get_recording(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OutputId>,
) -> Result<Json<RecordingDocument>, Problem> {
    Ok(Json(app.rooms().recording(&room, id).await?))
}

/// `DELETE /v1/rooms/{room}/recordings/{id}`: the answer lists its files.
pub(super) async fn stop_recording(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OutputId>,
) -> Result<Json<RecordingDocument>, Problem> {
    Ok(Json(app.rooms().stop_recording(&room, id).await?))
}

/// `GET /v1/rooms/{room}/broadcasts`.
pub(super) async fn list_broadcasts(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
) -> Result<Json<Vec<BroadcastDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.broadcasts))
}

/// `POST /v1/rooms/{room}/broadcasts`.
pub(super) async fn start_broadcast(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let wanted: BroadcastRequest = extract::json(request, &app).await?;
    app.refuse_if_draining()?;
    let broadcast = app.rooms().broadcast(&room, &wanted).await?;
    Ok(created(format!("/v1/rooms/{}/broadcasts/{}", room.in_url(), broadcast.id), broadcast))
}

/// `GET /v1/rooms/{room}/broadcasts/{id}`.
pub(super) async fn get_broadcast(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OutputId>,
) -> Result<Json<BroadcastDocument>, Problem> {
    Ok(Json(app.rooms().broadcast_of(&room, id).await?))
}

/// `DELETE /v1/rooms/{room}/broadcasts/{id}`.
pub(super) async fn stop_broadcast(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OutputId>,
) -> Result<Json<BroadcastDocument>, Problem> {
    Ok(Json(app.rooms().stop_broadcast(&room, id).await?))
}
