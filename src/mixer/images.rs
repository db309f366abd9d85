//! The images of overlays, filters, avatars and backgrounds: put together from the messages of the link, and decoded.
//!
//! Owns: the parts of an image that has not come completely, and the thread that decodes. Does not know: where they are
//! shown. In: parts and removals, in the order of the link. Out: bitmaps in the same order in the [`VideoInbox`] and
//! the [`Filters`], or the reason for which there is none in the [`Outbox`].

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;

use super::builder::{Builder, Building};
use super::compose::Bitmap;
use super::filter::Filters;
use super::outbox::Outbox;
use super::ticks::Watched;
use super::video::VideoInbox;
use crate::link::FromMixer;
use crate::overlay::{IMAGE_BYTES_MAX, Image, ImageName, ImageType};

/// Most images that wait for the decoder: twice as many as a room has. Each has up to 4 MiB.
const JOBS_MAX: usize = 32;

/// The images of a mixer.
pub(super) struct Images {
    builder: Builder,
    video: Arc<Watched<VideoInbox>>,
    filters: Arc<Filters>,
    outbox: Arc<Outbox>,
    incomplete: BTreeMap<ImageName, Vec<u8>>,
    /// Dropping one would cancel it.
    jobs: Vec<Building<()>>,
}

impl Images {
    /// No images.
    pub(super) fn new(video: Arc<Watched<VideoInbox>>, filters: Arc<Filters>, outbox: Arc<Outbox>) -> Self {
        let builder = Builder::new("decode-images");
        Self { builder, video, filters, outbox, incomplete: BTreeMap::new(), jobs: Vec::new() }
    }

    /// Takes the next part of an image; `left` bytes follow.
    pub(super) fn part(&mut self, name: ImageName, kind: ImageType, part: &[u8], left: u32) {
        let bytes = self.incomplete.entry(name.clone()).or_default();
        bytes.extend_from_slice(part);
        if left == 0 || bytes.len() > IMAGE_BYTES_MAX {
            let image = Image { kind, bytes: Bytes::from(self.incomplete.remove(&name).unwrap_or_default()) };
            self.decode(name, image);
        }
    }

    fn decode(&mut self, name: ImageName, image: Image) {
        self.jobs.retain(|job| !job.is_done());
        if self.jobs.len() >= JOBS_MAX {
            let why = "images change faster than they are decoded: upload it again later";
            self.outbox.push(FromMixer::ImageFailed(name, why.into()));
            return;
        }
        let (set, outbox, shown) = (self.setter(), self.outbox.clone(), name.clone());
        self.run(name, move || {
            let decoded = catch_unwind(|| Bitmap::decode(&image)).unwrap_or_else(|_| Err("the decoder failed".into()));
            match decoded {
                Ok(bitmap) => set(shown, Some(Arc::new(bitmap))),
                Err(why) => {
                    tracing::warn!(image = %shown, why, "cannot decode image");
                    set(shown.clone(), None);
                    outbox.push(FromMixer::ImageFailed(shown, why));
                }
            }
        });
    }

    /// An image is not shown any more.
    pub(super) fn remove(&mut self, name: ImageName) {
        self.incomplete.remove(&name);
        let (set, gone) = (self.setter(), name.clone());
        self.run(name, move || set(gone, None));
    }

    /// Sets or removes an image where it is shown.
    fn setter(&self) -> impl Fn(ImageName, Option<Arc<Bitmap>>) + Send + 'static {
        let (video, filters) = (self.video.clone(), self.filters.clone());
        move |name, image| {
            filters.image(&name, image.clone());
            VideoInbox::image(&video, name, image);
        }
    }

    /// Runs a job after the others.
    fn run(&mut self, name: ImageName, job: impl FnOnce() + Send + 'static) {
        self.jobs.retain(|job| !job.is_done());
        let made = move || {
            job();
            Ok(())
        };
        match self.builder.build(made, || {}) {
            Ok(building) => self.jobs.push(building),
            Err(error) => self.outbox.push(FromMixer::ImageFailed(name, error.to_string())),
        }
    }
}
