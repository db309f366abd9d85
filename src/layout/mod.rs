//! Layout: where everybody stands on the canvas. Pure functions over plain data.
//!
//! Owns: [`Scene`] and [`Tile`], the grid, and how a picture is fitted into its tile.
//! Does not know: pixels, codecs, who may see whom. The room asks for rectangles and hands the scene to the mixer.

use serde::{Deserialize, Serialize};

use crate::id::{ParticipantId, SourceId, ViewName};
use crate::media::{Rect, Size, SourceKind};

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
