//! Decisions of moderators about participants: let in, ask to unmute, mute all, remove.
//!
//! Owns: their routes, and which changes of a participant only moderators may make. Does not know: what a room does
//! with a decision. In: requests of moderators; out: decisions.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;

use super::extract::{self, InPath};
use super::{App, Caller};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName};
use crate::room::document::{LeaveReason, ParticipantPatch, Role};
use crate::room::moderation::{Changer, Decision, KEEP_OUT_MAX, Moderator};

/// The query of a removal.
#[derive(Debug, Default, Deserialize)]
struct RemovalQuery {
    /// For how long the same person is kept out, in seconds.
    #[serde(default)]
    keep_out: u64,
}

/// `POST /v1/rooms/{room}/participants/{id}/admit`.
pub(super) async fn admit(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<ParticipantId>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    decide(&app, &room, &caller, Decision::Admit(id)).await
}

/// `POST /v1/rooms/{room}/participants/admit`.
pub(super) async fn admit_all(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    decide(&app, &room, &caller, Decision::AdmitAll).await
}

/// `POST /v1/rooms/{room}/participants/{id}/ask_unmute`.
pub(super) async fn ask_unmute(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<ParticipantId>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    decide(&app, &room, &caller, Decision::AskUnmute(id)).await
}

/// `POST /v1/rooms/{room}/participants/mute`.
pub(super) async fn mute_others(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    decide(&app, &room, &caller, Decision::MuteOthers).await
}

/// `DELETE /v1/rooms/{room}/participants/{id}`.
pub(super) async fn remove(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    InPath(id): InPath<ParticipantId>,
    caller: Caller,
    parts: Parts,
) -> Result<StatusCode, Problem> {
    caller.may_change(&app, &room, id).await?;
    let RemovalQuery { keep_out } = extract::query(&parts.uri)?;
    if keep_out > KEEP_OUT_MAX.as_secs() {
        let most = KEEP_OUT_MAX.as_secs();
        return Err(Problem::invalid_value(format!("`keep_out` is at most {most} seconds (30 days)")));
    }
    if caller.participant == Some(id) {
        app.rooms().remove(&room, id, LeaveReason::Left).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    decide(&app, &room, &caller, Decision::Remove(id, Duration::from_secs(keep_out))).await
}

async fn decide(app: &App, room: &RoomName, caller: &Caller, decision: Decision) -> Result<StatusCode, Problem> {
    app.rooms().decide(room, caller.moderator(), decision).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Caller {
    /// The caller as a moderator.
    fn moderator(&self) -> Moderator {
        self.participant.map_or(Moderator::Program, Moderator::Participant)
    }

    /// Who changes this participant.
    pub(super) fn changer(&self, id: ParticipantId) -> Changer {
        if self.participant == Some(id) { Changer::Itself } else { Changer::Moderator(self.moderator()) }
    }

    /// Checks that the caller may make this change of a participant.
    ///
    /// # Errors
    /// 403 otherwise.
    pub(super) async fn check_change(
        &self,
        app: &App,
        room: &RoomName,
        id: ParticipantId,
        patch: &ParticipantPatch,
    ) -> Result<(), Problem> {
        self.may_change(app, room, id).await?;
        self.check_hand(id, patch)?;
        let decides = patch.role.is_some() || patch.speaker_allowed.is_some() || patch.filters.is_some();
        if decides {
            self.require(app, room, Role::Moderator, "set `role`, `speaker_allowed` or `filters`: ask a moderator")
                .await?;
        }
        let Some(role) = patch.role else { return Ok(()) };
        if role > self.role(app, room).await || role == Role::Operator {
            return Err(Problem::wrong_role("the `role` is at most your own, and no participant is an operator"));
        }
        Ok(())
    }

    /// Checks that the caller is this participant or a moderator.
    ///
    /// # Errors
    /// 403 otherwise.
    pub(super) async fn may_change(&self, app: &App, room: &RoomName, id: ParticipantId) -> Result<(), Problem> {
        if self.participant == Some(id) || self.role(app, room).await >= Role::Moderator {
            return Ok(());
        }
        Err(Problem::wrong_role(
            "only a moderator may change another participant; to change yourself, add `?session={secret}`",
        ))
    }
}
