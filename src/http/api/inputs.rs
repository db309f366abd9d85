//! The inputs of a room: list, start, read, stop.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;

use super::extract::{self, InPath};
use super::{App, created};
use crate::http::problem::Problem;
use crate::id::{InputId, RoomName};
use crate::room::document::InputDocument;
use crate::rooms::InputRequest;

/// `GET /v1/rooms/{room}/inputs`.
pub(super) async fn list(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
) -> Result<Json<Vec<InputDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.inputs))
}

/// `POST /v1/rooms/{room}/inputs`.
pub(super) async fn start(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let wanted: InputRequest = extract::json(request, &app).await?;
    let input = app.rooms().add_input(&room, &wanted).await?;
    Ok(created(format!("/v1/rooms/{}/inputs/{}", room.in_url(), input.id), input))
}

/// `GET /v1/rooms/{room}/inputs/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<InputId>,
) -> Result<Json<InputDocument>, Problem> {
    Ok(Json(app.rooms().input(&room, id).await?))
}

/// `DELETE /v1/rooms/{room}/inputs/{id}`.
pub(super) async fn stop(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<InputId>,
) -> Result<Json<InputDocument>, Problem> {
    Ok(Json(app.rooms().stop_input(&room, id).await?))
}
