//! Chat: read what was written, and write. People use the events for it, programs these routes; the rules are the same.
//!
//! Owns: who may write, under which name, and how often. Does not know: the history ([`crate::room::chat`]). In:
//! requests; out: messages.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use serde::Deserialize;

use super::extract::{self, InPath};
use super::{App, Caller};
use crate::http::problem::Problem;
use crate::id::RoomName;
use crate::room::chat::{ChatMessage, ChatRequest, Reader, Sender};
use crate::room::document::Role;

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    /// The id of the last known message.
    #[serde(default)]
    after: u64,
}

/// `GET /v1/rooms/{room}/chat`.
pub(super) async fn list(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    parts: Parts,
) -> Result<Json<Vec<ChatMessage>>, Problem> {
    let ListQuery { after } = extract::query(&parts.uri)?;
    let reader = caller.reader(&app, &room).await;
    Ok(Json(app.rooms().chat_after(&room, after, reader).await?))
}

/// `POST /v1/rooms/{room}/chat`.
pub(super) async fn post(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    request: Request<Body>,
) -> Result<(StatusCode, Json<ChatMessage>), Problem> {
    let request: ChatRequest = extract::json(request, &app).await?;
    let message = send(&app, &room, &caller, request).await?;
    Ok((StatusCode::CREATED, Json(message)))
}

/// Sends a message of a caller, if it may write.
pub(super) async fn send(
    app: &App,
    room: &RoomName,
    caller: &Caller,
    request: ChatRequest,
) -> Result<ChatMessage, Problem> {
    caller.require(app, room, Role::Participant, "chat").await?;
    app.count_chat(caller, room)?;
    let from = match caller.participant {
        Some(id) => Sender::Participant(id),
        None => Sender::Program(caller.identity.name.clone().unwrap_or_default()),
    };
    Ok(app.rooms().chat(room, from, request).await?)
}

impl Caller {
    /// Its role: that of the token or of the participant, which may have changed, whichever permits more.
    pub(super) async fn role(&self, app: &App, room: &RoomName) -> Role {
        let of_token = self.identity.role;
        match self.participant {
            Some(id) if of_token < Role::Moderator => {
                let document = app.rooms().participant(room, id).await;
                document.map_or(of_token, |document| document.role.max(of_token))
            }
            _ => of_token,
        }
    }

    /// What it may read of the room.
    pub(super) async fn reader(&self, app: &App, room: &RoomName) -> Reader {
        let is_moderator = self.role(app, room).await >= Role::Moderator;
        Reader { participant: self.participant, is_moderator }
    }

    /// Requires a role.
    ///
    /// # Errors
    /// 403 that says what the role may not do.
    pub(super) async fn require(&self, app: &App, room: &RoomName, role: Role, what: &str) -> Result<(), Problem> {
        if self.identity.role >= role || self.role(app, room).await >= role {
            return Ok(());
        }
        Err(Problem::wrong_role(format!("your role may not {what}")))
    }
}
