//! Overlays, images and captions of a room.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::extract::{self, InPath};
use super::{App, Caller, created};
use crate::http::problem::Problem;
use crate::id::{OverlayId, RoomName};
use crate::overlay::{IMAGE_BYTES_MAX, Image, ImageError, ImageName, OverlayRequest};
use crate::room::captions::CaptionRequest;
use crate::room::images::ImageDocument;
use crate::room::overlays::OverlayDocument;

/// `GET /v1/rooms/{room}/overlays`.
pub(super) async fn list(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
) -> Result<Json<Vec<OverlayDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.overlays))
}

/// `POST /v1/rooms/{room}/overlays`.
pub(super) async fn add(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let wanted: OverlayRequest = extract::json(request, &app).await?;
    let overlay = app.rooms().add_overlay(&room, wanted).await?;
    Ok(created(format!("/v1/rooms/{}/overlays/{}", room.in_url(), overlay.id), overlay))
}

/// `GET /v1/rooms/{room}/overlays/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OverlayId>,
) -> Result<Json<OverlayDocument>, Problem> {
    Ok(Json(app.rooms().overlay(&room, id).await?))
}

/// `PATCH /v1/rooms/{room}/overlays/{id}`.
pub(super) async fn change(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OverlayId>,
    request: Request<Body>,
) -> Result<Json<OverlayDocument>, Problem> {
    let patch: Map<String, Value> = extract::json(request, &app).await?;
    Ok(Json(app.rooms().change_overlay(&room, id, patch).await?))
}

/// `DELETE /v1/rooms/{room}/overlays/{id}`.
pub(super) async fn remove(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<OverlayId>,
) -> Result<Json<OverlayDocument>, Problem> {
    Ok(Json(app.rooms().remove_overlay(&room, id).await?))
}

/// `GET /v1/rooms/{room}/images`.
pub(super) async fn list_images(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
) -> Result<Json<Vec<ImageDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.images))
}

/// `PUT /v1/rooms/{room}/images/{name}`.
pub(super) async fn put_image(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(name): InPath<ImageName>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = extract::read(&parts.headers, body, IMAGE_BYTES_MAX, app.request_time()).await?;
    let image = Image::check(bytes.into()).map_err(|error| match error {
        ImageError::Unknown => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()),
        ImageError::Refused(why) => Problem::invalid_value(why),
    })?;
    let location = format!("/v1/rooms/{}/images/{name}", room.in_url());
    let (document, is_new) = app.rooms().put_image(&room, name, image).await?;
    Ok(if is_new { created(location, document) } else { Json(document).into_response() })
}

/// `GET /v1/rooms/{room}/images/{name}`.
pub(super) async fn get_image(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(name): InPath<ImageName>,
) -> Result<Response, Problem> {
    let image = app.rooms().image(&room, name).await?;
    let headers = [
        (CONTENT_TYPE, image.kind.media_type()),
        (CACHE_CONTROL, "no-cache"),
        // An SVG that is opened as a page runs no scripts of its own.
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; style-src 'unsafe-inline'"),
        (CONTENT_DISPOSITION, "inline"),
    ];
    Ok((headers, image.bytes).into_response())
}

/// `DELETE /v1/rooms/{room}/images/{name}`.
pub(super) async fn remove_image(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(name): InPath<ImageName>,
) -> Result<StatusCode, Problem> {
    app.rooms().remove_image(&room, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/rooms/{room}/captions`. A participant captions itself; a moderator everyone.
pub(super) async fn caption(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    let caption: CaptionRequest = extract::json(request, &app).await?;
    caller.may_change(&app, &room, caption.participant).await?;
    app.rooms().caption(&room, caption).await?;
    Ok(StatusCode::ACCEPTED)
}
