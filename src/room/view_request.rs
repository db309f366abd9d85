//! Requests about the views of a room: plain data with its checks.
//!
//! Owns: [`ViewRequest`], which creates or replaces a named view, and its [`ViewSettings`]; [`ViewChoice`], the view
//! that a participant wants to receive, and its changes; [`ViewError`]. Does not know: which participants and views
//! exist ([`super::views`]). In: JSON and URL queries. Out: checked values.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::filters::FilterError;
use crate::filter::FilterRequest;
use crate::id::{ParticipantId, ViewName};
use crate::layout::{CellName, Layout};
use crate::media::Size;

/// Most named views of a room, `program` included.
pub const VIEWS_MAX: usize = 16;
/// Most pixels of a view's canvas, in any aspect ratio.
const CANVAS_PIXELS_MAX: u32 = 1920 * 1080;
/// Shortest and longest side of a view's canvas in pixels.
const CANVAS_SIDES: RangeInclusive<u32> = 90..=1920;
/// Most entries of `show` and of `hide`: as many as a view has tiles (`layout::TILES_MAX`).
const LISTED_MAX: usize = 49;
/// The view name by which a participant requests its own view. Names that begin with it are reserved for own views.
pub(super) const OWN: &str = "own";

/// Participants that a view does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Hidden {
    /// The participant that receives the view (`self`).
    Receiver,
    /// Participants without a picture.
    AudioOnly,
    /// Participants with neither picture nor sound.
    Listeners,
    /// This participant.
    Participant(ParticipantId),
}

impl FromStr for Hidden {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "self" => Ok(Self::Receiver),
            "audio_only" => Ok(Self::AudioOnly),
            "listeners" => Ok(Self::Listeners),
            _ => text.parse().map(Self::Participant).map_err(|_| {
                format!("`{text}` cannot be hidden: write `self`, `audio_only`, `listeners` or a participant as `p2`")
            }),
        }
    }
}

impl TryFrom<String> for Hidden {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Hidden> for String {
    fn from(hidden: Hidden) -> Self {
        match hidden {
            Hidden::Receiver => "self".into(),
            Hidden::AudioOnly => "audio_only".into(),
            Hidden::Listeners => "listeners".into(),
            Hidden::Participant(id) => id.to_string(),
        }
    }
}

/// What a view shows, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ViewSettings {
    /// The arrangement of the tiles.
    pub layout: Layout,
    /// Size of the composed picture.
    pub canvas: Size,
    /// Frames per second.
    pub fps: u32,
    /// The only cells that are shown; None for all.
    pub show: Option<Vec<CellName>>,
    /// Participants that are not shown.
    pub hide: Vec<Hidden>,
}

/// A request to create or replace a view; absent fields get their default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewRequest {
    /// The arrangement of the tiles; by default `auto`.
    #[serde(default, deserialize_with = "checked_layout")]
    pub layout: Option<Layout>,
    /// Size of the composed picture; by default that of the server's configuration.
    #[serde(default, deserialize_with = "checked_canvas")]
    pub canvas: Option<Size>,
    /// Frames per second, 1 to 60; by default that of the server's configuration.
    #[serde(default, deserialize_with = "checked_fps")]
    pub fps: Option<u32>,
    /// The only cells that are shown, as `p1` or `p1/screen`; by default all.
    #[serde(default, deserialize_with = "checked_show")]
    pub show: Option<Vec<CellName>>,
    /// Participants that are not shown: `self`, `audio_only`, `listeners`, or ids.
    #[serde(default, deserialize_with = "checked_hide")]
    pub hide: Vec<Hidden>,
    /// The filters of the composed picture, in the order in which they are applied.
    #[serde(default)]
    pub filters: Vec<FilterRequest>,
}

/// Checks the size of a canvas. Its sides are even, because chroma has half the resolution (4:2:0).
///
/// # Errors
/// Text that names the permitted sizes.
pub fn check_canvas(canvas: Size) -> Result<(), String> {
    let Size { width, height } = canvas;
    let fits = |side: u32| side.is_multiple_of(2) && CANVAS_SIDES.contains(&side);
    if fits(width) && fits(height) && width * height <= CANVAS_PIXELS_MAX {
        return Ok(());
    }
    let (min, max) = CANVAS_SIDES.into_inner();
    Err(format!("canvas is {canvas}: its sides are even, {min} to {max} pixels, and it has at most 1920x1080 pixels"))
}

pub(super) fn checked_canvas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Size>, D::Error> {
    let canvas = Option::<Size>::deserialize(deserializer)?;
    canvas.into_iter().try_for_each(check_canvas).map_err(D::Error::custom)?;
    Ok(canvas)
}

fn checked_fps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match Option::<u32>::deserialize(deserializer)? {
        Some(fps) if !(1..=60).contains(&fps) => Err(D::Error::custom(format!("fps is {fps}: it is 1 to 60"))),
        fps => Ok(fps),
    }
}

fn checked_show<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<CellName>>, D::Error> {
    let show = Option::<Vec<CellName>>::deserialize(deserializer)?;
    check_length("show", show.as_ref().map_or(0, Vec::len)).map_err(D::Error::custom)?;
    Ok(show)
}

fn checked_hide<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hidden>, D::Error> {
    let hide = Vec::deserialize(deserializer)?;
    check_length("hide", hide.len()).map_err(D::Error::custom)?;
    Ok(hide)
}

pub(super) fn checked_layout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Layout>, D::Error> {
    let layout = Option::<Layout>::deserialize(deserializer)?;
    layout.iter().try_for_each(Layout::check).map_err(D::Error::custom)?;
    Ok(layout)
}

fn check_length(field: &str, length: usize) -> Result<(), String> {
    if length > LISTED_MAX { Err(format!("{field} has {length} entries: at most {LISTED_MAX}")) } else { Ok(()) }
}

/// Whether a participant sees its own tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelfView {
    /// The tiles are shown, unless the named view hides `self`.
    #[default]
    Shown,
    /// The tiles are not shown.
    Hidden,
}

/// A change of the view that a participant receives; absent fields remain as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewPatch {
    /// The name of a view, or `own`.
    pub view: Option<ViewName>,
    /// The layout of the participant's own view.
    pub layout: Option<Layout>,
    /// The canvas of the participant's own view.
    pub canvas: Option<Size>,
    /// Whether the participant sees its own tiles.
    pub self_view: Option<SelfView>,
}

impl ViewPatch {
    /// The requested view, if it is a named one; None for `own`, and if no view is requested.
    pub fn named(&self) -> Option<&ViewName> {
        self.view.as_ref().filter(|view| view.as_str() != OWN)
    }
}

/// The view that a participant wants to receive.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewChoice {
    pub(super) view: Wanted,
    pub(super) self_view: SelfView,
}

/// The view of a [`ViewChoice`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// The view of this name.
    Named(ViewName),
    /// The participant's own view. By default the layout is `auto`, and the canvas is that of `program`.
    Own { layout: Option<Layout>, canvas: Option<Size> },
}

impl Default for ViewChoice {
    fn default() -> Self {
        Self { view: Wanted::Named(ViewName::program()), self_view: SelfView::Shown }
    }
}

impl ViewChoice {
    /// The choice after a change. A layout or canvas without a view name requests an own view.
    #[must_use]
    pub fn with(self, patch: ViewPatch) -> Self {
        let self_view = patch.self_view.unwrap_or(self.self_view);
        let view = match patch.view {
            Some(name) if name.as_str() != OWN => Wanted::Named(name),
            None if patch.layout.is_none() && patch.canvas.is_none() => self.view,
            _ => {
                let (layout, canvas) = match self.view {
                    Wanted::Own { layout, canvas } => (layout, canvas),
                    Wanted::Named(_) => (None, None),
                };
                Wanted::Own { layout: patch.layout.or(layout), canvas: patch.canvas.or(canvas) }
            }
        };
        Self { view, self_view }
    }

    /// The named view, if the participant receives it as it is. None if it receives an own view, also because it hides
    /// its own tiles.
    pub(super) fn named(&self) -> Option<&ViewName> {
        match &self.view {
            Wanted::Named(name) if self.self_view == SelfView::Shown => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
impl ViewChoice {
    /// Whether the participant does not want to see itself.
    pub(super) fn hides_self(&self) -> bool {
        self.self_view == SelfView::Hidden
    }
}

/// Why a view is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// There is no such view.
    #[error("there is no view `{0}`; the views that exist: {1}, and `own`")]
    Unknown(ViewName, String),
    /// The name is reserved for own views.
    #[error("the view name `{0}` is reserved for the own views of participants: choose one without `own` at its start")]
    Reserved(ViewName),
    /// The room has its maximum of views.
    #[error("the room has its maximum of {VIEWS_MAX} views: delete one first")]
    TooMany,
    /// The view `program` cannot be deleted.
    #[error("the view `program` always exists: change it with PUT instead")]
    Program,
    /// A recording or broadcast receives the view.
    #[error(
        "a recording or broadcast receives the view `{0}`, so that it can neither be deleted nor change its size or \
             frame rate: stop it first"
    )]
    InUse(ViewName),
    /// Its filters are refused.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The request names a view, but has a layout or canvas, which only own views have.
    #[error("`layout` and `canvas` are for an own view: set `view` to `own`, or leave them out")]
    NotOwn,
    /// The canvas of an own view is larger than that of `program`.
    #[error("the canvas of an own view has at most as many pixels as the room's, {0}")]
    CanvasTooLarge(Size),
}

impl ViewError {
    /// The error for a view that does not exist in a room that is being created: it has only `program`.
    pub fn in_new_room(view: &ViewName) -> Self {
        Self::Unknown(view.clone(), format!("`{}`", ViewName::program()))
    }
}
