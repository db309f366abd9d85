//! A room's events on a WebSocket (RFC 6455).
//!
//! Owns: the WebSocket: first the whole room, then each event, pings, the close; and the messages of clients. Does
//! not know: the meaning of events. In: text from [`Rooms`](crate::rooms::Rooms), the same for all readers, and
//! messages of clients; out: WebSocket messages, and calls on `Rooms`. A reader that is too slow is closed with code
//! 1013; it opens the events again and receives the whole room. A reader is not a participant of the room.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::header::UPGRADE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::extract::InPath;
use super::{App, Caller, chat};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName};
use crate::net::rate_limit::{RateLimit, TokenBucket};
use crate::room::chat::{ChatRequest, Readers};
use crate::room::direct::DirectMessage;
use crate::room::document::{ParticipantPatch, Role, RoomPatch};
use crate::room::emoji::Emoji;
use crate::rooms::{EventStream, Notification};
use crate::time;

/// Interval of pings. A client that has not answered by the next ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Time limit for sending one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest signal between two direct participants, in bytes; an SDP has some kilobytes.
const SIGNAL_MAX: usize = 32 * 1024;
/// Messages that a client may send.
const MESSAGE_LIMIT: RateLimit = RateLimit { per_second: 10.0, burst: 40.0 };

/// `GET /v1/rooms/{room}/events`.
pub(super) async fn open(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    caller: Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|error| {
        let detail = format!("open this URL with a WebSocket: {}", error.body_text().to_lowercase());
        Problem::new(StatusCode::UPGRADE_REQUIRED, detail).with(UPGRADE, HeaderValue::from_static("websocket"))
    })?;
    let permit = app.event_stream(caller.address, caller.actor(&room))?;
    if caller.participant.is_none() && caller.is_outside(&app, &room).await {
        return Err(Problem::in_lobby());
    }
    let events = app.rooms().events(&room, caller.reader(&app, &room).await).await?;
    let most = app.limits().message_bytes;
    let reader = EventReader { app, room, caller };
    Ok(upgrade.max_message_size(most).max_frame_size(most).on_upgrade(move |socket| async move {
        reader.run(socket, events).await;
        drop(permit);
    }))
}

/// A client that has the events open.
struct EventReader {
    app: App,
    room: RoomName,
    caller: Caller,
}

/// Raises or lowers a hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandMessage {
    raised: bool,
    /// Whose hand is lowered, by a moderator; None for the own hand.
    #[serde(default)]
    participant: Option<ParticipantId>,
}

/// Shows a reaction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReactionMessage {
    emoji: String,
}

/// The close frame that ends a WebSocket.
struct Close {
    code: u16,
    reason: &'static str,
}

impl EventReader {
    async fn run(mut self, mut socket: WebSocket, events: EventStream) {
        if let Err(Some(Close { code, reason })) = self.exchange(&mut socket, events).await {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            // An error means that the client is already gone.
            let _ = timeout(SEND_TIMEOUT, socket.send(close)).await;
        }
    }

    /// Runs until one side closes the WebSocket.
    ///
    /// # Errors
    /// The close frame to send; None if the connection is lost.
    async fn exchange(&mut self, socket: &mut WebSocket, mut events: EventStream) -> Result<(), Option<Close>> {
        self.send(socket, Message::text(events.first.as_ref())).await?;
        let mut waits = events.waits;
        let closing = self.app.closing();
        let mut messages = TokenBucket::full(MESSAGE_LIMIT, time::now());
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        let expiry = expiry(self.caller.identity.expires);
        tokio::pin!(expiry);
        let mut expired = false;
        loop {
            tokio::select! {
                event = events.rest.recv() => match event {
                    Ok(Notification::Event(_)) if waits => {}
                    Ok(Notification::Event(text)) => self.send(socket, Message::text(text.as_ref())).await?,
                    Ok(Notification::Admitted(id)) => {
                        if waits && self.caller.participant == Some(id) {
                            events = self.reopen().await?;
                            waits = events.waits;
                            self.send(socket, Message::text(events.first.as_ref())).await?;
                        }
                    }
                    Ok(Notification::Private(readers, text)) => {
                        if self.is_among(&readers) {
                            self.send(socket, Message::text(text.as_ref())).await?;
                        }
                    }
                    Ok(Notification::Each(texts)) => {
                        let own = self.caller.participant.and_then(|id| texts.get(&id));
                        for text in own.into_iter().flatten() {
                            self.send(socket, Message::text(text.as_ref())).await?;
                        }
                    }
                    // Events opened with a session end with it.
                    Ok(Notification::Gone(id)) if self.caller.participant == Some(id) => {
                        return close(close_code::NORMAL, "your session has ended");
                    }
                    Ok(Notification::Gone(_)) => {}
                    Err(RecvError::Lagged(_)) => {
                        self.app.metrics().event_streams_too_slow.inc();
                        return close(close_code::AGAIN, "the client reads too slowly: open the events again");
                    }
                    Err(RecvError::Closed) => return close(close_code::NORMAL, "the room has ended"),
                },
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => {
                        if messages.take(MESSAGE_LIMIT, time::now()).is_err() {
                            return close(close_code::POLICY, "too many messages");
                        }
                        if let Err(problem) = self.execute(&text).await {
                            let (code, detail) = (problem.code(), problem.detail());
                            let error = json!({"type": "error", "code": code, "detail": detail});
                            self.send(socket, Message::text(error.to_string())).await?;
                        }
                    }
                    Some(Ok(Message::Binary(_))) => return close(close_code::UNSUPPORTED, "messages must be JSON text"),
                    Some(Ok(Message::Ping(_))) => {}
                    Some(Ok(Message::Pong(_))) => answered = true,
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Err(error)) => {
                        tracing::debug!(room = %self.room, %error, "WebSocket failed");
                        return close(close_code::SIZE, "the message is too large or malformed");
                    }
                },
                _ = pings.tick() => {
                    if !std::mem::replace(&mut answered, false) {
                        return Err(None);
                    }
                    self.send(socket, Message::Ping(Default::default())).await?;
                }
                () = &mut expiry, if !expired => {
                    expired = true;
                    if self.caller.participant.is_none() {
                        return close(close_code::POLICY, "the token has expired: open the events with a new one");
                    }
                    // The session continues, with the role of its participant.
                    self.caller.identity.role = Role::Viewer;
                }
                () = closing.cancelled() => return close(close_code::AWAY, "the server is shutting down"),
            }
        }
    }

    /// The events for a reader that was let in.
    async fn reopen(&self) -> Result<EventStream, Option<Close>> {
        let reader = self.caller.reader(&self.app, &self.room).await;
        let gone = Close { code: close_code::NORMAL, reason: "the room has ended" };
        self.app.rooms().events(&self.room, reader).await.map_err(|_| Some(gone))
    }

    async fn send(&self, socket: &mut WebSocket, message: Message) -> Result<(), Option<Close>> {
        match timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_elapsed) => {
                // A close frame would wait behind the message that cannot be sent.
                self.app.metrics().event_streams_too_slow.inc();
                Err(None)
            }
        }
    }

    /// Executes a client's message.
    ///
    /// # Errors
    /// What is wrong with the message.
    async fn execute(&self, text: &str) -> Result<(), Problem> {
        self.app.change(&self.caller, &self.room)?;
        let mut message: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| Problem::invalid_value(format!("a message must be a JSON object: {error}")))?;
        match message.remove("type").as_ref().and_then(Value::as_str) {
            Some("update") => self.update(message).await,
            Some("layout") => self.layout(message).await,
            Some("chat") => self.chat(message).await,
            Some("hand") => self.hand(message).await,
            Some("reaction") => self.react(message).await,
            Some("direct") => self.direct(message).await,
            _ => {
                Err(Problem::invalid_value("`type` must be `update`, `layout`, `chat`, `hand`, `reaction` or `direct`"))
            }
        }
    }

    async fn update(&self, mut message: Map<String, Value>) -> Result<(), Problem> {
        let id = match message.remove("participant") {
            Some(id) => read::<ParticipantId>(id)?,
            None => self.caller.participant.ok_or_else(|| {
                Problem::invalid_value("`participant` is required: these events were opened without a session")
            })?,
        };
        let patch: ParticipantPatch = read(Value::Object(message))?;
        self.change(id, patch).await
    }

    async fn change(&self, id: ParticipantId, patch: ParticipantPatch) -> Result<(), Problem> {
        self.caller.check_change(&self.app, &self.room, id, &patch).await?;
        self.app.rooms().update(&self.room, self.caller.changer(id), id, patch).await.map(drop).map_err(Problem::from)
    }

    async fn layout(&self, message: Map<String, Value>) -> Result<(), Problem> {
        self.require(Role::Moderator, "change the layout").await?;
        let patch: RoomPatch = read(Value::Object(message))?;
        if patch.layout.is_none() {
            return Err(Problem::invalid_value(
                "`layout` is missing: {\"type\":\"layout\",\"layout\":{\"kind\":\"grid\"}}",
            ));
        }
        let patch = RoomPatch { layout: patch.layout, ..RoomPatch::default() };
        self.app.rooms().patch(&self.room, patch).await.map(drop).map_err(Problem::from)
    }

    async fn chat(&self, message: Map<String, Value>) -> Result<(), Problem> {
        let request: ChatRequest = read(Value::Object(message))?;
        chat::send(&self.app, &self.room, &self.caller, request).await.map(drop)
    }

    async fn hand(&self, message: Map<String, Value>) -> Result<(), Problem> {
        let HandMessage { raised, participant } = read(Value::Object(message))?;
        let id = participant.map_or_else(|| self.participant("hand"), Ok)?;
        self.change(id, ParticipantPatch { hand_raised: Some(raised), ..ParticipantPatch::default() }).await
    }

    async fn react(&self, message: Map<String, Value>) -> Result<(), Problem> {
        let ReactionMessage { emoji } = read(Value::Object(message))?;
        let emoji = Emoji::new(&emoji).map_err(|error| Problem::invalid_value(error.to_string()))?;
        self.app.rooms().react(&self.room, self.participant("reaction")?, emoji).await.map_err(Problem::from)
    }

    async fn direct(&self, mut message: Map<String, Value>) -> Result<(), Problem> {
        let me = self.participant("direct")?;
        let signal = match (message.remove("signal"), message.get("state").and_then(Value::as_str)) {
            (Some(signal), _) if signal.to_string().len() <= SIGNAL_MAX => DirectMessage::Signal(signal),
            (Some(_), _) => {
                return Err(Problem::invalid_value(format!("a `signal` may have at most {SIGNAL_MAX} bytes")));
            }
            (None, Some("able")) => DirectMessage::Able,
            (None, Some("connected")) => DirectMessage::Connected,
            (None, Some("failed")) => DirectMessage::Failed,
            _ => {
                return Err(Problem::invalid_value(
                    "`direct` needs a `signal`, or a `state`: `able`, `connected` or `failed`",
                ));
            }
        };
        self.app.rooms().direct(&self.room, me, signal).await.map_err(Problem::from)
    }

    /// The participant that has the events open, for a message of this type.
    fn participant(&self, typ: &str) -> Result<ParticipantId, Problem> {
        let problem = || Problem::invalid_value(format!("open the events with `?session=` to send `{typ}`"));
        self.caller.participant.ok_or_else(problem)
    }

    /// Whether this reader is among those of a private event.
    fn is_among(&self, readers: &Readers) -> bool {
        let is_named = self.caller.participant.is_some_and(|id| readers.participants.contains(&id));
        is_named || readers.moderators && self.caller.identity.role >= Role::Moderator
    }

    /// Requires a role, which may have changed since the events were opened.
    async fn require(&self, role: Role, what: &str) -> Result<(), Problem> {
        self.caller.require(&self.app, &self.room, role, what).await
    }
}

/// Waits until a token expires; for ever without an expiry. The wall clock may jump.
async fn expiry(expires: Option<u64>) {
    let Some(expires) = expires else { return std::future::pending().await };
    loop {
        let left = Duration::from_secs(expires.saturating_sub(time::unix_seconds()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(PING_INTERVAL)).await;
    }
}

fn close(code: u16, reason: &'static str) -> Result<(), Option<Close>> {
    Err(Some(Close { code, reason }))
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| Problem::invalid_value(error.to_string()))
}
