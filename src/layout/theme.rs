//! The look of a view: colours, corners, gap and letters.
//!
//! Owns: [`Theme`], as the API writes it, with its checks; [`Style`], what the mixer draws with. Does not know: pixels,
//! which images exist. In: JSON, and the layout of a view, whose options take precedence. Out: a style.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Layout;
use crate::id::ImageName;
use crate::media::Colour;

/// Radius of corners in pixels of the canvas.
const RADII: RangeInclusive<u32> = 0..=64;
/// Pixels between tiles.
pub(super) const GAPS: RangeInclusive<u32> = 0..=64;
/// Size of letters in percent of the usual one.
const FONT_SIZES: RangeInclusive<u32> = 50..=200;

/// What is behind the tiles: a colour, or an uploaded image that covers the canvas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Background {
    /// A colour without transparency.
    Colour(Colour),
    /// An image; while there is none of this name, the usual colour.
    Image(ImageName),
}

impl Background {
    /// The usual colour.
    pub const USUAL: Self = Self::Colour(Colour([16, 20, 24, 255]));

    /// The image.
    pub fn image(&self) -> Option<&ImageName> {
        match self {
            Self::Colour(_) => None,
            Self::Image(name) => Some(name),
        }
    }
}

impl FromStr for Background {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('#') {
            let colour: Colour = text.parse()?;
            return check_opaque("background", Some(colour)).map(|()| Self::Colour(colour));
        }
        text.parse().map(Self::Image).map_err(|why| format!("{why}; a colour is written as #rrggbb"))
    }
}

impl TryFrom<String> for Background {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Background> for String {
    fn from(background: Background) -> Self {
        background.to_string()
    }
}

impl fmt::Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Colour(colour) => colour.fmt(f),
            Self::Image(name) => name.fmt(f),
        }
    }
}

/// The look of a room's views; absent fields have the usual values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theme {
    /// What is behind the tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// Letters of names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_color: Option<Colour>,
    /// Behind names; may be transparent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_background: Option<Colour>,
    /// The frame of a talker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_frame: Option<Colour>,
    /// Radius of the corners of tiles in pixels, 0 to 64; absent for one that grows with the tile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<u32>,
    /// Pixels between tiles, 0 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<u32>,
    /// Size of names in percent of the usual one, 50 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub font_size: Option<u32>,
}

impl Theme {
    /// Checks the values that the JSON types do not restrict.
    ///
    /// # Errors
    /// The field and its range.
    pub fn check(&self) -> Result<(), String> {
        check_opaque("label_color", self.label_color)?;
        check_opaque("speaker_frame", self.speaker_frame)?;
        check_radius(self.radius)?;
        check_range("gap", self.gap, GAPS, "pixels")?;
        check_range("font_size", self.font_size, FONT_SIZES, "percent")
    }

    /// Whether all fields are absent.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

fn check_opaque(field: &str, colour: Option<Colour>) -> Result<(), String> {
    match colour {
        Some(Colour([.., alpha])) if alpha < 255 => Err(format!("{field} has no transparency: write it as #rrggbb")),
        _ => Ok(()),
    }
}

pub(super) fn check_radius(radius: Option<u32>) -> Result<(), String> {
    check_range("radius", radius, RADII, "pixels")
}

pub(super) fn check_range(
    field: &str,
    value: Option<u32>,
    range: RangeInclusive<u32>,
    unit: &str,
) -> Result<(), String> {
    match value {
        Some(value) if !range.contains(&value) => {
            Err(format!("{field} is {value}: it is {} to {} {unit}", range.start(), range.end()))
        }
        _ => Ok(()),
    }
}

/// What the tiles of a scene are drawn with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Style {
    /// Behind the tiles.
    pub background: Background,
    /// Letters of names.
    pub label_color: Colour,
    /// Behind names.
    pub label_background: Colour,
    /// The frame of a talker.
    pub speaker_frame: Colour,
    /// Radius of corners in pixels; None for one that grows with the tile.
    pub radius: Option<u32>,
    /// Size of names in percent of the usual one.
    pub font_size: u32,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            background: Background::USUAL,
            label_color: Colour([245, 247, 250, 255]),
            label_background: Colour([10, 13, 16, 158]),
            speaker_frame: Colour([74, 222, 128, 255]),
            radius: None,
            font_size: 100,
        }
    }
}

impl Style {
    /// The style of a view with this layout in a room with this theme.
    pub fn of(layout: &Layout, theme: &Theme) -> Self {
        let usual = Self::default();
        let background = layout.background.as_ref().or(theme.background.as_ref());
        Self {
            background: background.cloned().unwrap_or(usual.background),
            label_color: theme.label_color.unwrap_or(usual.label_color),
            label_background: theme.label_background.unwrap_or(usual.label_background),
            speaker_frame: theme.speaker_frame.unwrap_or(usual.speaker_frame),
            radius: if layout.radius.is_some() { layout.radius } else { theme.radius },
            font_size: theme.font_size.unwrap_or(usual.font_size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Theme, String> {
        let theme: Theme = serde_json::from_str(json).map_err(|error| error.to_string())?;
        theme.check().map(|()| theme)
    }

    #[test]
    fn a_theme_is_shown_as_it_was_given() {
        for json in [
            "{}",
            r##"{"background":"#102030"}"##,
            r##"{"background":"wall.png","label_color":"#ffffff","label_background":"#00000080"}"##,
            r##"{"speaker_frame":"#ff0000","radius":0,"gap":12,"font_size":150}"##,
        ] {
            assert_eq!(serde_json::to_string(&read(json).expect(json)).expect("plain"), json);
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_their_range() {
        for (json, part) in [
            (r#"{"radius":65}"#, "0 to 64 pixels"),
            (r#"{"gap":65}"#, "0 to 64 pixels"),
            (r#"{"font_size":49}"#, "50 to 200 percent"),
            (r##"{"label_color":"#ffffff80"}"##, "no transparency"),
            (r##"{"background":"#ffffff80"}"##, "no transparency"),
            (r#"{"background":"a/b"}"#, "#rrggbb"),
            (r#"{"backgroud":"a"}"#, "`background`"),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn options_of_a_layout_take_precedence_over_the_theme() {
        let theme = read(r##"{"background":"wall.png","radius":8,"speaker_frame":"#ff0000"}"##).expect("valid");
        let layout: Layout = serde_json::from_str(r##"{"kind":"grid","background":"#102030"}"##).expect("valid");
        let style = Style::of(&layout, &theme);
        assert_eq!((style.background.to_string().as_str(), style.radius), ("#102030", Some(8)));
        assert_eq!(style.speaker_frame, Colour([255, 0, 0, 255]));
        assert_eq!(Style::of(&Layout::default(), &Theme::default()), Style::default());
    }
}
