//! The inputs of a room: begin, see, end.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};

use super::App;
use super::extract::{self, Injected, RoomOf};
use crate::http::problem::Problem;
use crate::room::document::InputDocument;
use crate::rooms::InputRequest;

/// `GET /v1/rooms/{room}/inputs`.
pub(super) async fn list(State(app): State<App>, RoomOf(room): RoomOf) -> Result<Json<Vec<InputDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.inputs))
}

/// `POST /v1/rooms/{room}/inputs`.
pub(super) async fn begin(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let wanted: InputRequest = extract::json(&parts.headers, body, &app).await?;
    let input = app.rooms().add_input(&room, &wanted).await?;
    let location = format!("/v1/rooms/{room}/inputs/{}", input.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(input)).into_response())
}

/// `GET /v1/rooms/{room}/inputs/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    Injected(id): Injected,
) -> Result<Json<InputDocument>, Problem> {
    Ok(Json(app.rooms().input(&room, id).await?))
}

/// `DELETE /v1/rooms/{room}/inputs/{id}`: ends it.
pub(super) async fn stop(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    Injected(id): Injected,
) -> Result<Json<InputDocument>, Problem> {
    Ok(Json(app.rooms().stop_input(&room, id).await?))
}
