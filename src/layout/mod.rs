//! Layout: the tiles of a view. Pure functions on plain data.
//!
//! Owns: [`Layout`] (what is asked for), [`Arranger`] (which cell gets which tile), the division of the canvas, the
//! fitting of pictures into tiles, [`Scene`] and [`Tile`]. Does not know: pixels, codecs, names, who may see whom. In:
//! a layout and the cells of a view. Out: rectangles for the room, and scenes for the mixer.

mod arrange;
mod custom;
mod fit;
mod theme;
mod tiling;

pub use arrange::{Arrangement, Arranger, Attendance, Key, Placed, verify_invariants};
pub use custom::{CellName, CustomTile, TileSource};
pub use fit::{Fit, ObjectFit, fit};
pub use theme::{Background, Style, Theme};

use serde::{Deserialize, Serialize};

use crate::id::{ImageName, ParticipantId, SourceId, ViewName};
use crate::media::{Rect, Size, SourceKind};

/// Most tiles of a view; further cells are hidden.
pub const TILES_MAX: u32 = 49;
/// Usual gap between tiles, in pixels of the canvas.
pub(crate) const GAP: u32 = 4;
/// Most tiles of a custom layout, and most pinned cells.
const LISTED_MAX: usize = 49;

/// How the tiles of a view are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutKind {
    /// One, then two side by side, then a grid; [`Presentation`](Self::Presentation) while a screen is shared.
    #[default]
    Auto,
    /// Equal tiles from 4:3 to 16:9.
    Grid,
    /// Tiles that fill the canvas; cameras are cropped.
    GridFill,
    /// A pinned cell or a screen, else the speaker, large, above a strip of the others.
    Speaker,
    /// Only the pinned cells; without any, the screens, else the speaker.
    Spotlight,
    /// The screens, large, beside a strip of the others; without a screen, the speaker.
    Presentation,
    /// The speaker or screen, and another one over its corner.
    PictureInPicture,
    /// Two halves.
    SideBySide,
    /// Several large tiles (the pinned ones and screens, else the latest four speakers) above a strip of the others.
    Stage,
    /// A large tile and five small ones.
    #[serde(rename = "one_plus_5")]
    OnePlus5,
    /// A large tile and seven small ones.
    #[serde(rename = "one_plus_7")]
    OnePlus7,
    /// A large tile and nine small ones.
    #[serde(rename = "one_plus_9")]
    OnePlus9,
    /// Only the speaker.
    Active,
    /// The listed tiles.
    Custom,
}

/// A layout with its options, in JSON: `{"kind":"grid","gap":8}`. Options with their default value are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The arrangement.
    pub kind: LayoutKind,
    /// Most tiles, 1 to [`TILES_MAX`]. A further one shows the number of those without a tile.
    #[serde(default = "tiles_max", skip_serializing_if = "is_tiles_max")]
    pub max_tiles: u32,
    /// Cells that stay visible and rank first, as `p1` or `p1/screen`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<CellName>,
    /// Pixels between tiles, 0 to 64, rounded down to an even number; absent for that of the theme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<u32>,
    /// Radius of the corners of tiles, 0 to 64 pixels; absent for that of the theme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<u32>,
    /// What is behind the tiles; absent for that of the theme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// How cameras fill their tiles; absent for the rule of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<ObjectFit>,
    /// Names are drawn.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub labels: bool,
    /// The tiles of the kind `custom`, from the lowest `z` to the highest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiles: Vec<CustomTile>,
}

const fn tiles_max() -> u32 {
    TILES_MAX
}

const fn is_tiles_max(count: &u32) -> bool {
    *count == TILES_MAX
}

const fn yes() -> bool {
    true
}

const fn is_yes(value: &bool) -> bool {
    *value
}

impl From<LayoutKind> for Layout {
    fn from(kind: LayoutKind) -> Self {
        Self {
            kind,
            max_tiles: TILES_MAX,
            pinned: Vec::new(),
            gap: None,
            radius: None,
            background: None,
            fit: None,
            labels: true,
            tiles: Vec::new(),
        }
    }
}

impl Default for Layout {
    fn default() -> Self {
        LayoutKind::default().into()
    }
}

impl Layout {
    /// Checks the values that the JSON types do not restrict.
    ///
    /// # Errors
    /// The field and its range.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=TILES_MAX).contains(&self.max_tiles) {
            return Err(format!("max_tiles is {}: it is 1 to {TILES_MAX}", self.max_tiles));
        }
        theme::check_range("gap", self.gap, theme::GAPS, "pixels")?;
        theme::check_radius(self.radius)?;
        if self.pinned.len() > LISTED_MAX || self.tiles.len() > LISTED_MAX {
            return Err(format!("pinned and tiles have at most {LISTED_MAX} entries"));
        }
        match (self.kind, self.tiles.as_slice()) {
            (LayoutKind::Custom, []) => Err("the kind custom needs at least one entry in tiles".into()),
            (LayoutKind::Custom, tiles) => tiles.iter().try_for_each(CustomTile::check),
            (_, []) => Ok(()),
            _ => Err("tiles belongs to the kind custom: leave it out, or set the kind".into()),
        }
    }
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
    /// The number of people without a tile, in a place of its own.
    pub more: Option<More>,
    /// What it is drawn with.
    pub style: Style,
}

/// The place that shows how many people have no tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// Their number.
    pub count: u32,
    /// Its rectangle on the canvas, with even coordinates and sizes.
    pub rect: Rect,
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
    /// How the picture fills the rectangle.
    pub fit: ObjectFit,
    /// The name that is drawn: one line; empty for none.
    pub label: String,
    /// The letters on the avatar; empty for the figure of a person.
    pub initials: String,
    /// The image on the avatar instead of the letters.
    pub avatar: Option<ImageName>,
    /// The participant is speaking: draws a frame.
    pub speaking: bool,
    /// The microphone is off or missing: draws a sign next to the name.
    pub muted: bool,
    /// The connection of the participant is poor: draws a sign next to the name.
    pub poor_connection: bool,
    /// The participant has raised its hand: draws a hand in a corner.
    pub hand_raised: bool,
    /// The participant reacts: the emoji that is drawn in a corner.
    pub reaction: Option<String>,
}

impl Tile {
    /// The size of a camera of 16:9 that fills the tile, before it is cropped.
    pub fn uncropped(&self) -> Size {
        let Size { width, height } = self.rect.size();
        match self.fit {
            ObjectFit::Cover => Size::new(width.max(height * 16 / 9), height.max(width * 9 / 16)),
            ObjectFit::Auto | ObjectFit::Contain => Size::new(width, height),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Layout, String> {
        let layout: Layout = serde_json::from_str(json).map_err(|error| error.to_string())?;
        layout.check().map(|()| layout)
    }

    #[test]
    fn the_error_for_an_unknown_kind_or_field_names_the_known_ones() {
        let error = read(r#"{"kind":"circle"}"#).expect_err("unknown");
        assert!(error.contains("circle") && error.contains("`one_plus_5`"), "{error}");
        let error = read(r#"{"kind":"grid","gab":4}"#).expect_err("unknown");
        assert!(error.contains("gab") && error.contains("`gap`"), "{error}");
        let error = read(r#"{"gap":4}"#).expect_err("no kind");
        assert!(error.contains("kind"), "{error}");
    }

    #[test]
    fn a_layout_is_shown_as_it_was_given() {
        for json in [
            r#"{"kind":"auto"}"#,
            r#"{"kind":"one_plus_7","max_tiles":5}"#,
            r#"{"kind":"grid","pinned":["p2","p3/screen"],"gap":0,"fit":"contain","labels":false}"#,
            r#"{"kind":"grid","gap":0,"radius":12,"background":"wall.png"}"#,
            r#"{"kind":"custom","tiles":[{"x":0.0,"y":0.0,"width":0.5,"height":1.0,"source":"speaker"}]}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(json).expect(json)).expect("plain"), json);
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_their_range() {
        for (json, part) in [
            (r#"{"kind":"grid","max_tiles":0}"#, "1 to 49"),
            (r#"{"kind":"grid","max_tiles":50}"#, "1 to 49"),
            (r#"{"kind":"grid","gap":65}"#, "0 to 64"),
            (r#"{"kind":"grid","radius":65}"#, "0 to 64"),
            (r##"{"kind":"grid","background":"#fff"}"##, "#rrggbb"),
            (r#"{"kind":"custom"}"#, "at least one"),
            (r#"{"kind":"grid","tiles":[{"x":0,"y":0,"width":1,"height":1,"source":"p1"}]}"#, "kind custom"),
            (r#"{"kind":"custom","tiles":[{"x":0.5,"y":0,"width":0.6,"height":1,"source":"p1"}]}"#, "fractions"),
            (r#"{"kind":"custom","tiles":[{"x":0,"y":0,"width":0,"height":1,"source":"p1"}]}"#, "fractions"),
            (r#"{"kind":"custom","tiles":[{"x":0,"y":0,"width":1,"height":1,"source":"rank:0"}]}"#, "rank:1"),
            (r#"{"kind":"grid","pinned":["ann"]}"#, "p1/screen"),
            (r#"{"kind":"grid","pinned":["p1/microphone"]}"#, "p1/screen"),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
