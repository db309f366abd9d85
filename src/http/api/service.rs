//! Health, readiness, metrics and documentation of the server.

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::App;
use crate::http::problem::Problem;
use crate::metrics;

/// The OpenAPI description, written by hand; a test compares it with the routes.
pub(super) const OPENAPI: &str = include_str!("../../../assets/openapi.json");
/// The documentation that the types of problems link to.
pub(super) const DOCS: &str = include_str!("../../../docs/api.md");

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
