//! The filters of one view.
//!
//! Owns: the newest filtered picture, and whether it was taken. Does not know: how a view is composed or encoded. In:
//! canvases on the thread of the video loop. Out: filtered canvases at one of its later ticks: it does not wait.

use std::sync::Arc;

use parking_lot::Mutex;

use super::chain::{Frame, Target};
use super::stage::Stage;
use crate::codec::{Picture, Raw};
use crate::filter::FilterSpec;
use crate::media::Colours;
use crate::time::Timestamp;

/// A view with filters.
pub struct FilteredView {
    stage: Arc<Stage>,
    output: Arc<ViewOutput>,
}

/// The newest filtered picture of a view.
pub struct ViewOutput {
    /// And whether it was taken.
    newest: Mutex<Option<(Picture, bool)>>,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl ViewOutput {
    pub(super) fn put(&self, picture: Picture) {
        *self.newest.lock() = Some((picture, false));
        (self.notify)();
    }
}

impl FilteredView {
    pub(super) fn new(stage: Arc<Stage>, notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self { stage, output: Arc::new(ViewOutput { newest: Mutex::default(), notify: Box::new(notify) }) }
    }

    pub(super) fn set(&self, specs: Vec<FilterSpec>) {
        self.stage.set(specs);
    }

    /// Filters a canvas.
    pub(in crate::mixer) fn put(&self, picture: Picture, now: Timestamp) {
        let raw = Raw::Picture(picture, Colours::default());
        self.stage.put(Frame { raw, arrival: now, to: Target::View(self.output.clone()) });
    }

    /// The newest filtered canvas, and whether it is another one than at the last call; None before the first.
    pub(in crate::mixer) fn take(&self) -> Option<(Picture, bool)> {
        let mut newest = self.output.newest.lock();
        let (picture, was_taken) = newest.as_mut()?;
        let is_new = !std::mem::replace(was_taken, true);
        Some((picture.clone(), is_new))
    }

    /// Forgets the canvases: the view was not composed for a while.
    pub(in crate::mixer) fn clear(&self) {
        self.stage.clear();
        *self.output.newest.lock() = None;
    }
}
