//! Filters of cameras, screens, microphones and views.
//!
//! Owns: the [`Stage`] of each source and view with its [`chain`] of filters, the [`judge`] of each filter, the images
//! that filters show, counters. Does not know: who applies filters; what a filter does. In: lists of filters by source,
//! decoded frames on the threads of decoders and of the audio, decoded images. Out: filtered frames in frame slots and
//! for voices, reports of load and of removed filters in the [`Outbox`]. No thread waits for a filter: what it does not
//! take is dropped.

mod chain;
mod judge;
mod stage;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::chain::{Frame, Samples, Target};
pub use self::stage::Stage;
pub use self::view::{FilteredView, ViewOutput};
use super::builder::Builder;
use super::compose::Bitmap;
use super::outbox::Outbox;
use crate::codec::{Background, Picture};
use crate::filter::FilterSpec;
use crate::id::{SourceId, ViewName};
use crate::media::Size;
use crate::overlay::ImageName;

/// The filters of all sources and views.
pub struct Filters {
    shared: Arc<Shared>,
    stages: Mutex<HashMap<SourceId, Arc<Stage>>>,
    views: Mutex<HashMap<ViewName, Arc<FilteredView>>>,
}

/// What all filters share.
pub(super) struct Shared {
    outbox: Arc<Outbox>,
    /// CPU time that a filter may take for a frame.
    budget: Duration,
    counts: Counts,
    images: Mutex<BTreeMap<String, Arc<Bitmap>>>,
    /// Started with the first filter.
    builder: OnceLock<Builder>,
}

/// Counters of filters since the start of the mixer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    frames: AtomicU64,
    cpu_micros: AtomicU64,
    removed: AtomicU64,
}

impl Counts {
    fn add(&self, frames: u64, cpu: Duration) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.cpu_micros.fetch_add(cpu.as_micros() as u64, Ordering::Relaxed);
    }

    fn removed(&self) {
        self.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames filtered, and their CPU time in microseconds.
    pub(super) fn load(&self) -> (u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.cpu_micros.load(Ordering::Relaxed))
    }

    /// Filters that were removed because they had failed or were slow.
    pub(super) fn removals(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }
}

impl Filters {
    /// No filters. Each may take `budget` of CPU time for a frame.
    pub fn new(outbox: Arc<Outbox>, budget: Duration) -> Self {
        let shared =
            Shared { outbox, budget, counts: Counts::default(), images: Mutex::default(), builder: OnceLock::new() };
        Self { shared: Arc::new(shared), stages: Mutex::default(), views: Mutex::default() }
    }

    /// The filters of a source, which has none at first.
    pub fn stage(&self, source: SourceId) -> Arc<Stage> {
        let new = || Stage::new(source.to_string(), self.shared.clone());
        self.stages.lock().entry(source).or_insert_with(new).clone()
    }

    /// Sets the filters of a source.
    pub fn set(&self, source: SourceId, specs: Vec<FilterSpec>) {
        self.stage(source).set(specs);
    }

    /// The filters of a view, if it has any.
    pub(super) fn view(&self, view: &ViewName) -> Option<Arc<FilteredView>> {
        self.views.lock().get(view).cloned()
    }

    /// Sets the filters of a view; `notify` is called for each filtered picture.
    pub(super) fn set_view(&self, view: ViewName, specs: Vec<FilterSpec>, notify: impl Fn() + Send + Sync + 'static) {
        if specs.is_empty() {
            drop(self.views.lock().remove(&view));
            return;
        }
        let new = || Arc::new(FilteredView::new(Stage::new(view.to_string(), self.shared.clone()), notify));
        let filtered = self.views.lock().entry(view.clone()).or_insert_with(new).clone();
        filtered.set(specs);
    }

    /// Forgets a source that has ended.
    pub fn remove(&self, source: SourceId) {
        let gone = self.stages.lock().remove(&source);
        if let Some(stage) = gone {
            stage.clear();
            stage.set(Vec::new());
        }
    }

    /// An image is there, was replaced, or is not there any more.
    pub(super) fn image(&self, name: &ImageName, image: Option<Arc<Bitmap>>) {
        {
            let mut images = self.shared.images.lock();
            match image {
                Some(image) => drop(images.insert(name.to_string(), image)),
                None => drop(images.remove(&name.to_string())),
            }
        }
        let stages: Vec<Arc<Stage>> = self.stages.lock().values().cloned().collect();
        stages.iter().for_each(|stage| stage.repeat());
    }

    /// Counters.
    pub(super) fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

impl Shared {
    fn builder(&self) -> &Builder {
        self.builder.get_or_init(|| Builder::new("build-filters"))
    }

    /// What is shown where a filter makes pictures transparent: the image of this name, or black.
    fn background(self: &Arc<Self>, image: Option<&str>) -> Background {
        let (shared, name) = (self.clone(), image.map(str::to_owned));
        let mut kept: Option<(Option<Arc<Bitmap>>, Picture)> = None;
        Box::new(move |size: Size| {
            let image = name.as_ref().and_then(|name| shared.images.lock().get(name).cloned());
            let is_kept = |(known, picture): &(Option<Arc<Bitmap>>, Picture)| {
                picture.size() == size && known.as_ref().map(Arc::as_ptr) == image.as_ref().map(Arc::as_ptr)
            };
            if let Some((_, picture)) = kept.as_ref().filter(|kept| is_kept(kept)) {
                return picture.clone();
            }
            let picture = image.as_ref().map_or_else(|| Picture::filled(size, 16, 128, 128), |image| image.cover(size));
            kept = Some((image, picture.clone()));
            picture
        })
    }
}

#[cfg(test)]
mod tests;
