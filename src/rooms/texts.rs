//! The JSON texts of a room's events.
//!
//! Owns: their form on the wire (docs/api.md). Does not know: the readers. In: events and levels of the room; out: one
//! text for all readers.

use std::sync::Arc;

use crate::id::ParticipantId;
use crate::media::{Size, SourceKind};
use crate::room::direct::DirectEvent;
use crate::room::document::{Event, LevelDocument};

/// Asks a client to restart ICE, which a server cannot request by WHIP or WHEP.
pub(super) const ICE_RESTART: &str = r#"{"type":"ice_restart"}"#;

/// An event of the room with its version: that of the room's document after the event.
pub(super) fn event_text(version: u64, event: &Event) -> Arc<str> {
    #[derive(serde::Serialize)]
    struct Numbered<'a> {
        #[serde(flatten)]
        event: &'a Event,
        version: u64,
    }
    // The room's document has a version field of its own, with the same number.
    let text = match event {
        Event::Room(_) => serde_json::to_string(event),
        _ => serde_json::to_string(&Numbered { event, version }),
    };
    text.expect("events have string keys and no failing serializers").into()
}

/// An event for some readers only. It has no version, since the others would miss one.
pub(super) fn private_text(event: &Event) -> Arc<str> {
    serde_json::to_string(event).expect("events have string keys and no failing serializers").into()
}

/// An event of a participant's direct call.
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

/// The size at which a participant's own source is shown at most.
pub(super) fn wanted_text(participant: ParticipantId, source: SourceKind, size: Size) -> Arc<str> {
    let Size { width, height } = size;
    serde_json::json!({
        "type": "wanted", "participant": participant, "source": source, "width": width, "height": height
    })
    .to_string()
    .into()
}

/// The audio levels of participants.
pub(super) fn levels_text(levels: &[LevelDocument]) -> Arc<str> {
    serde_json::json!({"type": "levels", "levels": levels}).to_string().into()
}
