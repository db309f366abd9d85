//! The participants of a room: list, read, change, remove. A participant may change and remove itself; a moderator may
//! change and remove every participant.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};

use super::extract::{self, InPath};
use super::{App, Caller};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName};
use crate::room::document::{LeaveReason, ParticipantDocument, ParticipantPatch, Role};

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
    caller.may_change(id)?;
    let patch: ParticipantPatch = extract::json(request, &app).await?;
    caller.check_hand(id, &patch)?;
    if patch.filters.is_some() && caller.identity.role < Role::Moderator {
        return Err(Problem::wrong_role("only a moderator may apply filters"));
    }
    Ok(Json(app.rooms().update(&room, id, patch).await?))
}

/// `DELETE /v1/rooms/{room}/participants/{id}`.
pub(super) async fn delete(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<ParticipantId>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    caller.may_change(id)?;
    let reason = if caller.participant == Some(id) { LeaveReason::Left } else { LeaveReason::Removed };
    app.rooms().remove(&room, id, reason).await?;
    Ok(StatusCode::NO_CONTENT)
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

    /// Checks that the caller is this participant or a moderator.
    ///
    /// # Errors
    /// 403 otherwise.
    pub(crate) fn may_change(&self, id: ParticipantId) -> Result<(), Problem> {
        if self.participant == Some(id) || self.identity.role >= Role::Moderator {
            return Ok(());
        }
        Err(Problem::wrong_role(
            "only a moderator may change another participant; to change yourself, add `?session={secret}`",
        ))
    }
}
