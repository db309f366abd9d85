//! Health, readiness, metrics, documentation and pages of the server.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::App;
use crate::http::problem::Problem;
use crate::http::web::Page;
use crate::metrics;

/// The OpenAPI description, written by hand; a test compares it with the routes.
pub(super) const OPENAPI: &str = include_str!("../../../assets/openapi.json");
/// The documentation that the types of problems link to.
pub(super) const DOCS: &str = include_str!("../../../docs/api.md");

/// `GET /`: the page.
pub(super) async fn index(State(app): State<App>, headers: HeaderMap) -> Response {
    app.policy().web.page(Page::Call, &headers)
}

/// `GET /live/{room}`: the page that plays the HLS broadcast of a room.
pub(super) async fn live(State(app): State<App>, headers: HeaderMap) -> Response {
    app.policy().web.page(Page::Live, &headers)
}

/// `GET /docs`: the API explorer.
pub(super) async fn explorer(State(app): State<App>, headers: HeaderMap) -> Response {
    app.policy().web.page(Page::Explorer, &headers)
}

/// `GET /healthz`: the process is alive.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: the server accepts joins.
pub(super) async fn readyz(State(app): State<App>) -> Result<Json<Value>, Problem> {
    app.refuse_if_draining()?;
    Ok(Json(json!({"status": "ready"})))
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics().text())
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], OPENAPI)
}

/// `GET /docs/api.md`.
pub(super) async fn docs() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/markdown; charset=utf-8"), (CACHE_CONTROL, "no-cache")], DOCS)
}
