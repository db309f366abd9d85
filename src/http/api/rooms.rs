//! Rooms: list, make, see, change, end.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::App;
use super::extract::{self, RoomOf};
use crate::http::problem::Problem;
use crate::id::RoomName;
use crate::room::document::{RoomDocument, RoomPatch};

/// `GET /v1/rooms`.
pub(super) async fn list(State(app): State<App>) -> Json<Vec<RoomDocument>> {
    Json(app.rooms().list().await)
}

/// `POST /v1/rooms`: `name`, and what a PATCH takes.
pub(super) async fn create(State(app): State<App>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut document: Map<String, Value> = extract::json(&parts.headers, body, &app).await?;
    let invalid = |why: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    let name = document.remove("name").ok_or_else(|| invalid("the room needs a `name`".to_owned()))?;
    let name: RoomName = serde_json::from_value(name).map_err(|error| invalid(format!("`name`: {error}")))?;
    let patch: RoomPatch =
        serde_json::from_value(Value::Object(document)).map_err(|error| invalid(error.to_string()))?;
    if app.is_draining() {
        return Err(Problem::draining());
    }
    let room = app.rooms().create(&name, patch).await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/v1/rooms/{name}"))], Json(room)).into_response())
}

/// `GET /v1/rooms/{room}`.
pub(super) async fn get(State(app): State<App>, RoomOf(room): RoomOf) -> Result<Json<RoomDocument>, Problem> {
    Ok(Json(app.rooms().room(&room).await?))
}

/// `PATCH /v1/rooms/{room}`.
pub(super) async fn patch(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    request: Request<Body>,
) -> Result<Json<RoomDocument>, Problem> {
    let (parts, body) = request.into_parts();
    let patch = extract::json(&parts.headers, body, &app).await?;
    Ok(Json(app.rooms().patch(&room, patch).await?))
}

/// `DELETE /v1/rooms/{room}`: ends it for everybody.
pub(super) async fn delete(State(app): State<App>, RoomOf(room): RoomOf) -> Result<StatusCode, Problem> {
    app.rooms().delete(&room).await?;
    Ok(StatusCode::NO_CONTENT)
}
