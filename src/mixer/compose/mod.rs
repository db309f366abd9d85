//! The compositor: a scene and the newest frame of every source become one canvas.
//!
//! Owns: frame slots, canvases and the records of what is drawn on them, labels, avatars, backdrops, frames of talkers,
//! tiles on the way to their places, overlays.
//! Does not know: codecs, GStreamer, the clock, who may see whom. In: a [`Scene`](crate::layout::Scene) when it
//! changes, frames into [`FrameSlot`]s from the threads of decoders, the time of each tick. Out: [`Composed`].
//!
//! A frame is scaled once per tile size, when it arrives, on the thread of its decoder, unless it looks like the frame
//! that is shown (`still`). A tick copies rows and draws labels, and only in tiles that have changed since their canvas
//! was drawn. Overlays are drawn over the tiles; where one changes, the tiles below are drawn again in its place only.

mod backdrop;
mod bitmap;
mod canvas;
mod corners;
mod lettering;
mod liveness;
mod look;
mod overlay;
mod placard;
mod raster;
mod redraw;
mod region;
mod signs;
mod slot;
mod sprite;
mod still;
mod tile;
mod transition;

pub use self::bitmap::Bitmap;
pub use self::canvas::{Composed, Compositor};
pub use self::slot::{Fitted, FrameSlot, FrameWriter};
