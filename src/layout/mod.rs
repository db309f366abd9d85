//! Layout: where everybody stands on the canvas. Pure functions over plain data.
//!
//! Owns: [`Scene`] and [`Tile`], the grid, and how a picture is fitted into its tile.
//! Does not know: pixels, codecs, who may see whom. The room asks for rectangles and hands the scene to the mixer.

mod fit;
mod grid;

pub use fit::{Fit, fit};
pub use grid::{Arrangement, Grid, Key, TILES_MAX, verify_invariants};

use serde::{Deserialize, Serialize};

use crate::id::{ParticipantId, SourceId, ViewName};
use crate::media::{Rect, Size, SourceKind};

/// How a view is laid out, as it stands in JSON and in the configuration: `{"kind":"grid"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Layout {
    /// Equal tiles, see [`Grid`].
    #[default]
    Grid,
}

/// A view at one moment: what the mixer draws, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Which view this is.
    pub view: ViewName,
    /// The canvas in pixels; even in both directions.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// The tiles, drawn in this order.
    pub tiles: Vec<Tile>,
}

/// One participant's place in a scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// Whose tile it is; also picks the avatar's colour.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub kind: SourceKind,
    /// The source to show; None draws the avatar.
    pub source: Option<SourceId>,
    /// Where it stands: inside the canvas, even coordinates and sizes (I420).
    pub rect: Rect,
    /// The name written on it; empty for none.
    pub label: String,
    /// Framed because this participant speaks.
    pub speaking: bool,
    /// The microphone is off or missing: a small sign beside the name.
    pub muted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_names_its_kind_and_an_unknown_one_is_told_the_known_ones() {
        assert_eq!(serde_json::to_string(&Layout::Grid).expect("plain"), r#"{"kind":"grid"}"#);
        assert_eq!(serde_json::from_str::<Layout>(r#"{"kind":"grid"}"#).expect("known"), Layout::Grid);
        let error = serde_json::from_str::<Layout>(r#"{"kind":"circle"}"#).expect_err("unknown").to_string();
        assert!(error.contains("circle") && error.contains("`grid`"), "{error}");
    }
}
