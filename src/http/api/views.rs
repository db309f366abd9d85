//! The views of a room: read, create or replace, delete.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};

use super::extract::{self, InPath};
use super::{App, created};
use crate::http::problem::Problem;
use crate::id::{RoomName, ViewName};
use crate::room::document::ViewSettingsDocument;

/// `GET /v1/rooms/{room}/views/{view}`.
pub(super) async fn get(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(view): InPath<ViewName>,
) -> Result<Json<ViewSettingsDocument>, Problem> {
    Ok(Json(app.rooms().view(&room, &view).await?))
}

/// `PUT /v1/rooms/{room}/views/{view}`: 201 for a new view, 200 for one that is replaced.
pub(super) async fn put(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(view): InPath<ViewName>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let request = extract::json(request, &app).await?;
    let (is_new, document) = app.rooms().put_view(&room, &view, request).await?;
    if is_new {
        return Ok(created(format!("/v1/rooms/{}/views/{view}", room.in_url()), document));
    }
    Ok(Json(document).into_response())
}

/// `DELETE /v1/rooms/{room}/views/{view}`: its receivers get `program`.
pub(super) async fn delete(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(view): InPath<ViewName>,
) -> Result<StatusCode, Problem> {
    app.rooms().delete_view(&room, &view).await?;
    Ok(StatusCode::NO_CONTENT)
}
