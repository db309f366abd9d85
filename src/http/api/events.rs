//! A room's events on a WebSocket (RFC 6455).
//!
//! Owns: the socket's life: first the whole room, then each event, pings, the end; and what clients may say. Does not
//! know: what events mean; they come as text from [`Rooms`](crate::rooms::Rooms), the same for every reader.
//! A reader that is too slow is closed with a reason: it comes back and takes the room again. One that only reads is
//! nobody in the room.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{App, Caller, RoomOf};
use crate::http::problem::Problem;
use crate::id::{ParticipantId, RoomName};
use crate::room::CHAT_MAX;
use crate::room::direct::DirectNews;
use crate::room::document::{ParticipantPatch, Role, RoomPatch};
use crate::rooms::{EventStream, News};
use crate::time::{self, Timestamp};

/// How often a ping asks whether the other side is still there; without an answer to the next one it is not.
const PING: Duration = Duration::from_secs(15);
/// How long one message may take to leave: a reader slower than that is gone or hostile.
const SEND: Duration = Duration::from_secs(10);
/// Largest signal that is passed on to the other one of two: a description has some kilobytes.
const SIGNAL_BYTES: usize = 32 * 1024;
/// Messages a client may send at once, and a second in the long run.
const MESSAGES_BURST: f64 = 40.0;
const MESSAGES_PER_SECOND: f64 = 10.0;

/// `GET /v1/rooms/{room}/events`.
pub(super) async fn open(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    caller: Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|error| {
        let detail = format!("open this with a WebSocket: {}", error.body_text().to_lowercase());
        let upgrade = (axum::http::header::UPGRADE, HeaderValue::from_static("websocket"));
        Problem::new(StatusCode::UPGRADE_REQUIRED, detail).with(upgrade.0, upgrade.1)
    })?;
    let events = app.rooms().events(&room).await?;
    let most = app.limits().message_bytes;
    let stream = Stream { app, room, caller };
    Ok(upgrade.max_message_size(most).max_frame_size(most).on_upgrade(move |socket| stream.drive(socket, events)))
}

/// One client with the events open.
struct Stream {
    app: App,
    room: RoomName,
    caller: Caller,
}

/// Why a stream ends, as the other side is told.
struct Goodbye {
    code: u16,
    reason: &'static str,
}

impl Stream {
    async fn drive(self, mut socket: WebSocket, events: EventStream) {
        self.app.metrics().event_streams.inc();
        if let Err(Some(Goodbye { code, reason })) = self.exchange(&mut socket, events).await {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            // The other side may be gone already.
            let _ = timeout(SEND, socket.send(close)).await;
        }
        self.app.metrics().event_streams.dec();
    }

    /// Until one side ends it; `Err(None)` when the other side is just gone.
    async fn exchange(&self, socket: &mut WebSocket, mut events: EventStream) -> Result<(), Option<Goodbye>> {
        self.send(socket, Message::text(events.first.as_ref())).await?;
        let closing = self.app.closing();
        let mut allowance = Allowance::new(time::now());
        let mut pings = interval_at(Instant::now() + PING, PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            tokio::select! {
                event = events.rest.recv() => match event {
                    Ok(News::Event(text)) => self.send(socket, Message::text(text.as_ref())).await?,
                    Ok(News::To(id, text)) => {
                        if self.caller.participant == Some(id) {
                            self.send(socket, Message::text(text.as_ref())).await?;
                        }
                    }
                    // Whoever opened them by a session has no right to them without it.
                    Ok(News::Gone(id)) if self.caller.participant == Some(id) => {
                        return goodbye(close_code::NORMAL, "your session has ended");
                    }
                    Ok(News::Gone(_)) => {}
                    Err(RecvError::Lagged(_)) => {
                        self.app.metrics().event_streams_too_slow.inc();
                        return goodbye(close_code::AGAIN, "too slow for the events: open them again");
                    }
                    Err(RecvError::Closed) => return goodbye(close_code::NORMAL, "the room has ended"),
                },
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => {
                        if !allowance.take(time::now()) {
                            return goodbye(close_code::POLICY, "too many messages");
                        }
                        if let Err(detail) = self.obey(&text).await {
                            let error = json!({"type": "error", "detail": detail});
                            self.send(socket, Message::text(error.to_string())).await?;
                        }
                    }
                    Some(Ok(Message::Binary(_))) => return goodbye(close_code::UNSUPPORTED, "messages are JSON text"),
                    Some(Ok(Message::Ping(_))) => {}
                    Some(Ok(Message::Pong(_))) => answered = true,
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Err(error)) => {
                        tracing::debug!(room = %self.room, %error, "an event stream broke");
                        return goodbye(close_code::SIZE, "a message was too large or broken");
                    }
                },
                _ = pings.tick() => {
                    if !std::mem::replace(&mut answered, false) {
                        return Err(None);
                    }
                    self.send(socket, Message::Ping(Default::default())).await?;
                }
                () = closing.cancelled() => return goodbye(close_code::AWAY, "the server is shutting down"),
            }
        }
    }

    async fn send(&self, socket: &mut WebSocket, message: Message) -> Result<(), Option<Goodbye>> {
        match timeout(SEND, socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_elapsed) => {
                // A goodbye would wait behind what is stuck already.
                self.app.metrics().event_streams_too_slow.inc();
                Err(None)
            }
        }
    }

    /// Does what a client asks; the error says what is wrong with it.
    async fn obey(&self, text: &str) -> Result<(), String> {
        let mut message: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("a message is a JSON object: {error}"))?;
        match message.remove("type").as_ref().and_then(Value::as_str) {
            Some("update") => self.update(message).await,
            Some("layout") => self.layout(message).await,
            Some("chat") => self.chat(message).await,
            Some("direct") => self.direct(message).await,
            _ => Err("`type` must be `update`, `layout`, `chat` or `direct`".to_owned()),
        }
    }

    async fn update(&self, mut message: Map<String, Value>) -> Result<(), String> {
        let id = match message.remove("participant") {
            Some(id) => read::<ParticipantId>(id)?,
            None => {
                self.caller.participant.ok_or("say which `participant`: these events were opened without a session")?
            }
        };
        let patch: ParticipantPatch = read(Value::Object(message))?;
        if self.caller.participant != Some(id) {
            self.need(Role::Moderator, "change somebody else").await?;
        }
        self.app.rooms().update(&self.room, id, patch).await.map(drop).map_err(|error| error.to_string())
    }

    async fn layout(&self, message: Map<String, Value>) -> Result<(), String> {
        self.need(Role::Moderator, "change the layout").await?;
        let patch: RoomPatch = read(Value::Object(message))?;
        if patch.layout.is_none() {
            return Err("`layout` is missing: {\"type\":\"layout\",\"layout\":{\"kind\":\"grid\"}}".to_owned());
        }
        let patch = RoomPatch { layout: patch.layout, ..RoomPatch::default() };
        self.app.rooms().patch(&self.room, patch).await.map(drop).map_err(|error| error.to_string())
    }

    async fn chat(&self, mut message: Map<String, Value>) -> Result<(), String> {
        self.need(Role::Participant, "chat").await?;
        let text: String = read(message.remove("text").unwrap_or_default())?;
        if text.trim().is_empty() || text.chars().count() > CHAT_MAX {
            return Err(format!("`text` must have 1 to {CHAT_MAX} characters"));
        }
        self.app.rooms().chat(&self.room, self.caller.participant, text).await.map_err(|error| error.to_string())
    }

    async fn direct(&self, mut message: Map<String, Value>) -> Result<(), String> {
        let me = self.caller.participant.ok_or("open the events with `?session=` to go direct")?;
        let news = match (message.remove("signal"), message.get("state").and_then(Value::as_str)) {
            (Some(signal), _) if signal.to_string().len() <= SIGNAL_BYTES => DirectNews::Signal(signal),
            (Some(_), _) => return Err(format!("a `signal` has at most {SIGNAL_BYTES} bytes")),
            (None, Some("able")) => DirectNews::Able,
            (None, Some("connected")) => DirectNews::Connected,
            (None, Some("failed")) => DirectNews::Failed,
            _ => return Err("say a `signal`, or a `state`: `able`, `connected` or `failed`".to_owned()),
        };
        self.app.rooms().direct(&self.room, me, news).await.map_err(|error| error.to_string())
    }

    /// Whether the caller has this role: by what it showed at first, or by now as the participant it is.
    async fn need(&self, role: Role, what: &str) -> Result<(), String> {
        if self.caller.identity.role >= role {
            return Ok(());
        }
        if let Some(id) = self.caller.participant
            && let Ok(document) = self.app.rooms().participant(&self.room, id).await
            && document.role >= role
        {
            return Ok(());
        }
        Err(format!("your role may not {what}"))
    }
}

fn goodbye(code: u16, reason: &'static str) -> Result<(), Option<Goodbye>> {
    Err(Some(Goodbye { code, reason }))
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// How many messages a client may still send now.
struct Allowance {
    messages: f64,
    at: Timestamp,
}

impl Allowance {
    fn new(now: Timestamp) -> Self {
        Self { messages: MESSAGES_BURST, at: now }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        let refilled = self.messages + now.since(self.at).as_secs_f64() * MESSAGES_PER_SECOND;
        (self.messages, self.at) = (refilled.min(MESSAGES_BURST), now);
        let allowed = self.messages >= 1.0;
        if allowed {
            self.messages -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_burst_but_not_flood() {
        let start = Timestamp::from_micros(0);
        let mut allowance = Allowance::new(start);
        assert_eq!((0..100).filter(|_| allowance.take(start)).count(), 40);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 10);
    }
}
