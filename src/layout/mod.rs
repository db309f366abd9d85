//! Layout: the tiles of a view. Pure functions on plain data.
//!
//! Owns: [`Scene`] and [`Tile`], the grid, and the fitting of pictures into tiles. Does not know: pixels, codecs, who
//! may see whom. In: the cells of a view. Out: rectangles for the room, and scenes for the mixer.

mod fit;
mod grid;

pub use fit::{Fit, fit};
pub use grid::{Arrangement, Grid, Key, TILES_MAX, verify_invariants};

use serde::{Deserialize, Serialize};

use crate::id::{ParticipantId, SourceId, ViewName};
use crate::media::{Rect, Size, SourceKind};

/// The layout of a view, in JSON and in the configuration: `{"kind":"grid"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Layout {
    /// Equal tiles, see [`Grid`].
    #[default]
    Grid,
}

/// The contents of a view, as the mixer draws it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// The name of the view.
    pub view: ViewName,
    /// The canvas in pixels; even in both directions.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// The tiles, drawn in this order.
    pub tiles: Vec<Tile>,
}

/// A tile of a scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// The participant; its id selects the colour of the avatar.
    pub participant: ParticipantId,
    /// Camera or screen.
    pub kind: SourceKind,
    /// The source that is shown; None shows the avatar.
    pub source: Option<SourceId>,
    /// Its rectangle on the canvas, with even coordinates and sizes (I420).
    pub rect: Rect,
    /// The name that is drawn; empty for none.
    pub label: String,
    /// The participant is speaking: draws a frame.
    pub speaking: bool,
    /// The microphone is off or missing: draws a sign next to the name.
    pub muted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_an_unknown_layout_names_the_known_ones() {
        assert_eq!(serde_json::to_string(&Layout::Grid).expect("plain"), r#"{"kind":"grid"}"#);
        assert_eq!(serde_json::from_str::<Layout>(r#"{"kind":"grid"}"#).expect("known"), Layout::Grid);
        let error = serde_json::from_str::<Layout>(r#"{"kind":"circle"}"#).expect_err("unknown").to_string();
        assert!(error.contains("circle") && error.contains("`grid`"), "{error}");
    }
}
