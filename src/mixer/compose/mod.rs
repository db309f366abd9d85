//! The compositor: a scene and the newest frame of every source become one canvas.
//!
//! Owns: frame slots, canvases and what is drawn on each of them, labels, avatars, frames around who speaks.
//! Does not know: codecs, GStreamer, the clock, who may see whom. In: a [`Scene`](crate::layout::Scene) when it changes,
//! frames into [`FrameSlot`]s from the decoders' threads, the time at every tick. Out: [`Composed`].
//!
//! Every frame is scaled once per tile size, on arrival and on its decoder's thread; a tick copies rows and draws labels,
//! and only where a tile has changed since its canvas was last drawn.

mod canvas;
mod lettering;
mod look;
mod raster;
mod slot;
mod sprite;

pub use self::canvas::{Composed, Compositor};
pub use self::slot::{Fitted, FrameSlot, FrameWriter};
