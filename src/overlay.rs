//! Overlays: texts, clocks and pictures over the tiles of a view. Plain data and its checks.
//!
//! Owns: [`OverlayRequest`] (what is asked for), [`Overlay`] (what the mixer draws), and the place of an overlay on a
//! canvas. Does not know: pixels, fonts, which views and images exist, who may create an overlay. In: JSON
//! of the API; out: checked values for the room and the mixer.

mod image;
mod svg;

pub use self::image::{IMAGE_BYTES_MAX, IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX, Image, ImageError, ImageType, fits};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::id::ImageName;
use crate::id::{OverlayId, ViewName};
pub use crate::media::Colour;
use crate::media::{Rect, Size};

/// Longest text of an overlay, in characters.
pub const TEXT_MAX: usize = 500;
/// Most lines of a text, before long ones are wrapped.
pub const LINES_MAX: usize = 6;
/// Longest time for which an overlay is shown, in seconds, unless it stays until it is deleted.
const SECONDS_MAX: f64 = 86_400.0;
/// Largest offset of a time zone from UTC, in minutes.
const UTC_OFFSET_MAX: i32 = 14 * 60;

/// What an overlay shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlayKind {
    /// One or more lines, as large as the height allows.
    Text,
    /// An uploaded image, as large as the place allows.
    Image,
    /// The time of day.
    Clock,
    /// A name, and a second line in smaller letters.
    LowerThird,
    /// One line that moves from right to left.
    Ticker,
    /// The latest captions.
    Caption,
}

/// A request for an overlay, and what it has become by changes. Absent places and colours are those of the kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayRequest {
    /// The view.
    #[serde(default = "ViewName::program")]
    pub view: ViewName,
    /// The kind.
    pub kind: OverlayKind,
    /// The text; for a clock, what stands before the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The name of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// Left edge, in fractions of the canvas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    /// Upper edge, in fractions of the canvas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<f64>,
    /// Width in fractions of the canvas; absent for as wide as the contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// Height in fractions of the canvas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<f64>,
    /// Colour of letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Colour>,
    /// Colour behind the contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Colour>,
    /// Seconds until the overlay ends; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The time zone of a clock, in minutes ahead of UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utc_offset_minutes: Option<i32>,
}

/// An overlay of a view, as the mixer draws it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its id. Overlays are drawn in the order of their ids.
    pub id: OverlayId,
    /// The kind.
    pub kind: OverlayKind,
    /// The text; empty for none.
    pub text: String,
    /// The image.
    pub image: Option<ImageName>,
    /// Left edge, in fractions of the canvas.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width; None for as wide as the contents.
    pub width: Option<f64>,
    /// Height.
    pub height: f64,
    /// Colour of letters.
    pub color: Colour,
    /// Colour behind the contents.
    pub background: Colour,
    /// The time zone of a clock, in minutes ahead of UTC.
    pub utc_offset_minutes: i32,
}

impl OverlayKind {
    /// The usual x, y, width and height.
    const fn place(self) -> (f64, f64, Option<f64>, f64) {
        match self {
            Self::Text => (0.03, 0.05, None, 0.09),
            Self::Image => (0.85, 0.05, Some(0.12), 0.16),
            Self::Clock => (0.03, 0.05, None, 0.075),
            Self::LowerThird => (0.05, 0.74, None, 0.16),
            Self::Ticker => (0.0, 0.915, Some(1.0), 0.085),
            Self::Caption => (0.1, 0.72, Some(0.8), 0.23),
        }
    }

    const fn background(self) -> Colour {
        match self {
            Self::Image => Colour([0, 0, 0, 0]),
            Self::Ticker => Colour([10, 13, 16, 242]),
            Self::LowerThird => Colour([10, 13, 16, 222]),
            Self::Text | Self::Clock | Self::Caption => Colour([10, 13, 16, 184]),
        }
    }
}

impl OverlayRequest {
    /// The request with the fields of `patch` instead of its own; null restores what is usual (RFC 7396).
    ///
    /// # Errors
    /// An unknown field, a wrong type, and those of [`check`](Self::check).
    pub fn patched(&self, patch: Map<String, Value>) -> Result<Self, String> {
        let own = serde_json::to_value(self).expect("a request has string keys and no failing serializers");
        let Value::Object(mut fields) = own else { unreachable!("a request is a JSON object") };
        fields.extend(patch);
        fields.retain(|_, value| !value.is_null());
        let patched: Self = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
        patched.check().map(|()| patched)
    }

    /// Checks what the types do not restrict.
    ///
    /// # Errors
    /// The field and its range.
    pub fn check(&self) -> Result<(), String> {
        self.check_contents()?;
        let (x, y, width, height) = self.place();
        let inside = |from: f64, length: f64| from >= 0.0 && length > 0.0 && from + length <= 1.0 + 1e-6;
        if !inside(x, width.unwrap_or(1e-3)) || !inside(y, height) {
            return Err(
                "an overlay is within the canvas: x, y, width and height are fractions from 0 to 1, and so are x + \
                 width and y + height"
                    .into(),
            );
        }
        if let Some(seconds) = self.seconds
            && !(seconds > 0.0 && seconds <= SECONDS_MAX)
        {
            return Err(format!("seconds is {seconds}: it is above 0 and at most {SECONDS_MAX}, or null for no end"));
        }
        match self.utc_offset_minutes {
            Some(_) if self.kind != OverlayKind::Clock => Err("utc_offset_minutes belongs to the kind clock".into()),
            Some(minutes) if minutes.abs() > UTC_OFFSET_MAX => {
                Err(format!("utc_offset_minutes is {minutes}: it is -{UTC_OFFSET_MAX} to {UTC_OFFSET_MAX}"))
            }
            _ => Ok(()),
        }
    }

    fn check_contents(&self) -> Result<(), String> {
        let needs_text = matches!(self.kind, OverlayKind::Text | OverlayKind::LowerThird | OverlayKind::Ticker);
        match &self.text {
            None if needs_text => return Err("this kind needs a text".into()),
            Some(_) if matches!(self.kind, OverlayKind::Image | OverlayKind::Caption) => {
                return Err("this kind has no text of its own: leave text out".into());
            }
            Some(text) => check_text(text)?,
            None => {}
        }
        match (self.kind, &self.image) {
            (OverlayKind::Image, None) => {
                Err("the kind image needs an image: upload one with PUT /v1/rooms/{room}/images/{name}, and name it"
                    .into())
            }
            (OverlayKind::Image, Some(_)) | (_, None) => Ok(()),
            (_, Some(_)) => Err("image belongs to the kind image: leave it out, or set the kind".into()),
        }
    }

    /// The overlay that it asks for, with the text of a request or, for captions, that of the room.
    pub fn overlay(&self, id: OverlayId, text: String) -> Overlay {
        let (x, y, width, height) = self.place();
        Overlay {
            id,
            kind: self.kind,
            text,
            image: self.image.clone(),
            x,
            y,
            width,
            height,
            color: self.color.unwrap_or(Colour([245, 247, 250, 255])),
            background: self.background.unwrap_or_else(|| self.kind.background()),
            utc_offset_minutes: self.utc_offset_minutes.unwrap_or(0),
        }
    }

    fn place(&self) -> (f64, f64, Option<f64>, f64) {
        let (x, y, width, height) = self.kind.place();
        let asked_x = self.x.unwrap_or(x);
        // The usual width, unless another left edge leaves less room for it.
        let usual_width = width.map(|width| width.min((1.0 - asked_x).max(0.0)));
        let asked_y = self.y.unwrap_or(y);
        let usual_height = height.min((1.0 - asked_y).max(0.0));
        let asked_width = if self.width.is_some() { self.width } else { usual_width };
        (asked_x, asked_y, asked_width, self.height.unwrap_or(usual_height))
    }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.trim().is_empty() || text.chars().count() > TEXT_MAX {
        return Err(format!("text must have 1 to {TEXT_MAX} characters that are not all spaces"));
    }
    if text.lines().count() > LINES_MAX {
        return Err(format!("text has more than {LINES_MAX} lines: remove line breaks"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err("text has control characters: only line breaks (\\n) are possible".into());
    }
    Ok(())
}

impl Overlay {
    /// Its place on a canvas, with even coordinates and at least two pixels. Without a width it is `contents` pixels
    /// wide, as far as the canvas reaches.
    pub fn rect(&self, canvas: Size, contents: u32) -> Rect {
        let edge = |at: f64, of: u32| ((at.clamp(0.0, 1.0) * f64::from(of) / 2.0).round() as u32 * 2).min(of & !1);
        let x = edge(self.x, canvas.width).min(canvas.width.saturating_sub(2) & !1);
        let y = edge(self.y, canvas.height).min(canvas.height.saturating_sub(2) & !1);
        let right = match self.width {
            Some(width) => edge(self.x + width, canvas.width),
            None => (x + contents.next_multiple_of(2)).min(canvas.width & !1),
        };
        let bottom = edge(self.y + self.height, canvas.height);
        Rect { x, y, width: right.saturating_sub(x).max(2), height: bottom.saturating_sub(y).max(2) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Result<OverlayRequest, String> {
        let request: OverlayRequest = serde_json::from_value(json).map_err(|error| error.to_string())?;
        request.check().map(|()| request)
    }

    #[test]
    fn refusals_name_what_is_possible() {
        for (json, part) in [
            (json!({"kind": "banner"}), "`lower_third`"),
            (json!({"kind": "text", "text": "a", "colour": "#ffffff"}), "`color`"),
            (json!({"kind": "text"}), "needs a text"),
            (json!({"kind": "ticker", "text": "  "}), "1 to 500"),
            (json!({"kind": "text", "text": "x".repeat(501)}), "1 to 500"),
            (json!({"kind": "text", "text": "a\n".repeat(7)}), "line breaks"),
            (json!({"kind": "text", "text": "a\u{7}"}), "control characters"),
            (json!({"kind": "image"}), "PUT /v1/rooms/{room}/images"),
            (json!({"kind": "image", "image": "../a"}), "letters, digits"),
            (json!({"kind": "caption", "text": "a"}), "leave text out"),
            (json!({"kind": "text", "text": "a", "x": 1.5}), "fractions"),
            (json!({"kind": "text", "text": "a", "x": 0.5, "width": 0.6}), "fractions"),
            (json!({"kind": "text", "text": "a", "height": 0.0}), "fractions"),
            (json!({"kind": "text", "text": "a", "color": "red"}), "#rrggbb"),
            (json!({"kind": "text", "text": "a", "seconds": 0}), "above 0"),
            (json!({"kind": "text", "text": "a", "utc_offset_minutes": 60}), "kind clock"),
            (json!({"kind": "clock", "utc_offset_minutes": 841}), "-840 to 840"),
        ] {
            let error = read(json.clone()).expect_err("refused");
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn a_change_replaces_fields_and_null_restores_what_is_usual() {
        let request = read(json!({"kind": "text", "text": "a", "color": "#ff0000", "x": 0.2})).expect("valid");
        let patch = |json: Value| {
            let Value::Object(fields) = json else { panic!("an object") };
            request.patched(fields)
        };
        let changed = patch(json!({"text": "b", "color": null, "seconds": 5})).expect("valid");
        assert_eq!((changed.text.as_deref(), changed.color, changed.x), (Some("b"), None, Some(0.2)));
        assert_eq!(changed.seconds, Some(5.0));
        assert!(patch(json!({"txt": "b"})).expect_err("unknown").contains("`text`"));
        assert!(patch(json!({"text": null})).expect_err("needed").contains("needs a text"));
    }

    proptest! {
        #[test]
        fn an_accepted_overlay_is_drawn_within_the_canvas(
            x in 0.0..1.2f64, y in 0.0..1.2f64, width in proptest::option::of(0.0..1.2f64), height in 0.0..1.2f64,
            canvas in (1u32..1000, 1u32..1000), contents in 0u32..4000,
        ) {
            let (half_width, half_height) = canvas;
            let canvas = Size::new(half_width * 2, half_height * 2);
            let json = json!({"kind": "text", "text": "a", "x": x, "y": y, "width": width, "height": height});
            if let Ok(request) = read(json) {
                let rect = request.overlay(OverlayId(1), "a".into()).rect(canvas, contents);
                prop_assert!(rect.x + rect.width <= canvas.width && rect.y + rect.height <= canvas.height);
                prop_assert!(rect.width >= 2 && rect.height >= 2);
                prop_assert_eq!((rect.x | rect.y | rect.width | rect.height) & 1, 0);
            }
        }
    }
}
