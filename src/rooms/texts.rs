//! What a room says to those who have its events open, as JSON texts.
//!
//! Owns: their form on the wire (docs/api.md). Does not know: who hears them. In: events and levels of the room; out: text, made
//! once for all who hear it.

use std::sync::Arc;

use crate::room::direct::DirectEvent;
use crate::room::document::{Event, LevelDocument};

/// Asks a client to restart ICE: WHIP and WHEP have no words for a server that wants it.
pub(super) const ICE_RESTART: &str = r#"{"type":"ice_restart"}"#;

/// An event of the room, with the version of the room's document that it leads to.
pub(super) fn event_text(version: u64, event: &Event) -> Arc<str> {
    #[derive(serde::Serialize)]
    struct Numbered<'a> {
        #[serde(flatten)]
        event: &'a Event,
        version: u64,
    }
    // The room document carries its own version: the same number.
    let text = match event {
        Event::Room(_) => serde_json::to_string(event),
        _ => serde_json::to_string(&Numbered { event, version }),
    };
    text.expect("events have string keys and no failing serializers").into()
}

/// What a participant is told of its direct call.
pub(super) fn direct_text(event: &DirectEvent) -> Arc<str> {
    #[derive(serde::Serialize)]
    struct Typed<'a> {
        #[serde(rename = "type")]
        typ: &'static str,
        #[serde(flatten)]
        event: &'a DirectEvent,
    }
    let text = serde_json::to_string(&Typed { typ: "direct", event });
    text.expect("events have string keys and no failing serializers").into()
}

/// How loud everyone is.
pub(super) fn levels_text(levels: &[LevelDocument]) -> Arc<str> {
    serde_json::json!({"type": "levels", "levels": levels}).to_string().into()
}
