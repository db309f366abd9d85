//! Custom layouts: tiles in fractions of the canvas, each for a source that is chosen by id, role or rank.
//!
//! Owns: the JSON of the tiles and cells. Does not know: who is present. In: text and numbers of a request. Out:
//! [`CustomTile`]s with checked values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de};

use super::fit::ObjectFit;
use crate::id::ParticipantId;
use crate::media::{Rect, Size, SourceKind};

/// The name of a cell: `p1` for a camera, `p1/screen` for a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellName {
    /// The participant.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub kind: SourceKind,
}

/// The source of a custom tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileSource {
    /// This cell.
    Cell(CellName),
    /// The speaker's camera.
    Speaker,
    /// A shared screen.
    Screen,
    /// A camera by its place in the order of joining, from 1 on, without those that have a tile of their own.
    Rank(u32),
}

/// A tile of a custom layout, in fractions of the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomTile {
    /// Left edge, 0 to 1.
    pub x: f64,
    /// Upper edge, 0 to 1.
    pub y: f64,
    /// Width, above 0, up to 1.
    pub width: f64,
    /// Height, above 0, up to 1.
    pub height: f64,
    /// Tiles with a larger number are drawn over others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub z: i32,
    /// How the picture fills the tile; absent for the rule of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<ObjectFit>,
    /// What is shown.
    pub source: TileSource,
}

const fn is_zero(z: &i32) -> bool {
    *z == 0
}

impl CustomTile {
    /// Checks that the tile lies within the canvas.
    pub(super) fn check(&self) -> Result<(), String> {
        let inside = |from: f64, length: f64| from >= 0.0 && length > 0.0 && from + length <= 1.0 + 1e-6;
        if inside(self.x, self.width) && inside(self.y, self.height) {
            return Ok(());
        }
        Err("tiles are within the canvas: x, y, width and height are fractions from 0 to 1".into())
    }

    /// The rectangle on a canvas, with even coordinates and at least two pixels.
    pub(super) fn rect(&self, canvas: Size) -> Rect {
        let edge =
            |at: f64, length: u32| ((at.clamp(0.0, 1.0) * f64::from(length) / 2.0).round() as u32 * 2).min(length);
        let span = |from: f64, length: f64, of: u32| {
            let start = edge(from, of).min(of.saturating_sub(2));
            (start, edge(from + length, of).saturating_sub(start).max(2))
        };
        let ((x, width), (y, height)) =
            (span(self.x, self.width, canvas.width), span(self.y, self.height, canvas.height));
        Rect { x, y, width, height }
    }
}

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.participant, if self.kind == SourceKind::Screen { "/screen" } else { "" })
    }
}

impl FromStr for CellName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (participant, kind) = match text.split_once('/') {
            None => (text, Some(SourceKind::Camera)),
            Some((participant, "camera")) => (participant, Some(SourceKind::Camera)),
            Some((participant, "screen")) => (participant, Some(SourceKind::Screen)),
            Some((participant, _)) => (participant, None),
        };
        match (participant.parse(), kind) {
            (Ok(participant), Some(kind)) => Ok(Self { participant, kind }),
            _ => Err(format!("`{text}` is no tile: write p1 for a camera, or p1/screen")),
        }
    }
}

impl fmt::Display for TileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell(cell) => cell.fmt(f),
            Self::Speaker => f.write_str("speaker"),
            Self::Screen => f.write_str("screen"),
            Self::Rank(rank) => write!(f, "rank:{rank}"),
        }
    }
}

impl FromStr for TileSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("rank:")) {
            ("speaker", _) => Ok(Self::Speaker),
            ("screen", _) => Ok(Self::Screen),
            (_, Some(rank)) => match rank.parse() {
                Ok(rank) if rank > 0 => Ok(Self::Rank(rank)),
                _ => Err(format!("`{text}` is no rank: the first is rank:1")),
            },
            _ => text
                .parse()
                .map(Self::Cell)
                .map_err(|_| format!("`{text}` is no source: write p1, p1/screen, speaker, screen or rank:1")),
        }
    }
}

/// Serializes as text.
macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

as_text!(CellName);
as_text!(TileSource);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sources_are_read_as_they_are_written() {
        for text in ["p1", "p12/screen", "speaker", "screen", "rank:2"] {
            assert_eq!(text.parse::<TileSource>().expect(text).to_string(), text);
        }
        for text in ["", "p", "p1/", "p1/microphone", "rank:0", "rank:", "rank:-1", "Speaker", "s1"] {
            assert!(text.parse::<TileSource>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn checked_tiles_are_inside_the_canvas_and_even(
            (x, y) in (0.0_f64..1.0, 0.0_f64..1.0), (w, h) in (0.001_f64..=1.0, 0.001_f64..=1.0),
            (cw, ch) in (8_u32..1_000, 8_u32..1_000),
        ) {
            // Parts of what is left of the canvas.
            let (width, height) = ((1.0 - x) * w, (1.0 - y) * h);
            let tile = CustomTile { x, y, width, height, z: 0, fit: None, source: TileSource::Speaker };
            prop_assert_eq!(tile.check(), Ok(()));
            let rect = tile.rect(Size::new(cw * 2, ch * 2));
            prop_assert!(rect.x + rect.width <= cw * 2 && rect.y + rect.height <= ch * 2, "{:?}", rect);
            prop_assert!(rect.width >= 2 && rect.height >= 2);
            prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|n| n % 2 == 0), "{:?}", rect);
        }
    }
}
