//! Rooms: list, create, read, change, delete.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};

use super::extract::{self, InPath};
use super::{App, Caller, created};
use crate::http::problem::Problem;
use crate::id::RoomName;
use crate::room::document::{RoomDocument, RoomPatch};

/// `GET /v1/rooms`.
pub(super) async fn list(State(app): State<App>) -> Json<Vec<RoomDocument>> {
    Json(app.rooms().list().await)
}

/// `POST /v1/rooms`: `name`, and the fields of a PATCH.
pub(super) async fn create(State(app): State<App>, request: Request<Body>) -> Result<Response, Problem> {
    let mut document: Map<String, Value> = extract::json(request, &app).await?;
    let name = document.remove("name").ok_or_else(|| Problem::invalid_value("the room needs a `name`"))?;
    let name = name.as_str().ok_or_else(|| Problem::invalid_value("the `name` of the room must be text"))?;
    let name: RoomName =
        name.parse().map_err(|error| Problem::bad_room_name(StatusCode::UNPROCESSABLE_ENTITY, &error))?;
    let patch: RoomPatch =
        serde_json::from_value(Value::Object(document)).map_err(|error| Problem::invalid_value(error.to_string()))?;
    patch.check().map_err(Problem::invalid_value)?;
    app.refuse_if_draining()?;
    let room = app.rooms().create(&name, patch).await?;
    Ok(created(format!("/v1/rooms/{}", name.in_url()), room))
}

/// `GET /v1/rooms/{room}`.
pub(super) async fn get(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
) -> Result<Json<RoomDocument>, Problem> {
    let reader = caller.reader(&app, &room).await;
    Ok(Json(app.rooms().room_for(&room, reader).await?))
}

/// `PATCH /v1/rooms/{room}`.
pub(super) async fn patch(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    request: Request<Body>,
) -> Result<Json<RoomDocument>, Problem> {
    let patch: RoomPatch = extract::json(request, &app).await?;
    patch.check().map_err(Problem::invalid_value)?;
    Ok(Json(app.rooms().patch(&room, patch).await?))
}

/// `DELETE /v1/rooms/{room}`: ends the room for all participants.
pub(super) async fn delete(State(app): State<App>, InPath(room): InPath<RoomName>) -> Result<StatusCode, Problem> {
    app.rooms().delete(&room).await?;
    Ok(StatusCode::NO_CONTENT)
}
