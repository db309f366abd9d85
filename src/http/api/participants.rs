//! The participants of a room: list, read, change. A participant may change itself; a moderator may change every
//! participant.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;

use super::extract::{self, InPath};
use super::{App, Caller};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName};
use crate::room::document::{ParticipantDocument, ParticipantPatch};

/// `GET /v1/rooms/{room}/participants`.
pub(super) async fn list(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
) -> Result<Json<Vec<ParticipantDocument>>, Problem> {
    Ok(Json(app.rooms().room(&room).await?.participants))
}

/// `GET /v1/rooms/{room}/participants/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<ParticipantId>,
) -> Result<Json<ParticipantDocument>, Problem> {
    Ok(Json(app.rooms().participant(&room, id).await?))
}

/// `PATCH /v1/rooms/{room}/participants/{id}`.
pub(super) async fn patch(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<ParticipantId>,
    caller: Caller,
    request: Request<Body>,
) -> Result<Json<ParticipantDocument>, Problem> {
    let patch: ParticipantPatch = extract::json(request, &app).await?;
    caller.check_change(&app, &room, id, &patch).await?;
    Ok(Json(app.rooms().update(&room, caller.changer(id), id, patch).await?))
}

impl Caller {
    /// Checks that the caller raises no hand but its own.
    ///
    /// # Errors
    /// 403 otherwise.
    pub(super) fn check_hand(&self, id: ParticipantId, patch: &ParticipantPatch) -> Result<(), Problem> {
        if patch.hand_raised == Some(true) && self.participant != Some(id) {
            return Err(Problem::wrong_role("a hand is raised by its participant only; a moderator may lower it"));
        }
        Ok(())
    }
}
