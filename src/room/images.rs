//! The uploaded images of a room.
//!
//! Owns: their bytes, and the orders for those that an overlay or a filter shows. Does not know: pixels; the mixer
//! decodes them and reports what fails. In: checked uploads; out: documents, and [`Order::Image`] and
//! [`Order::ImageGone`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::document::Event;
use super::overlays::OverlayError;
use super::{Effect, Order, Room};
use crate::id::OverlayId;
use crate::overlay::{Image, ImageName, ImageType};
use crate::time::Timestamp;

/// Most images of a room.
pub const IMAGES_MAX: usize = 16;
/// Most bytes of all images of a room.
pub const IMAGES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An image, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageDocument {
    /// Its name.
    pub name: ImageName,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ImageType,
    /// Its size in bytes.
    pub bytes: usize,
    /// Why it is not drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug)]
struct Entry {
    image: Image,
    error: Option<String>,
}

/// The images of a room.
#[derive(Debug, Default)]
pub(super) struct Images {
    entries: BTreeMap<ImageName, Entry>,
    /// Those that the mixer has.
    ordered: BTreeSet<ImageName>,
}

impl Images {
    pub(super) fn contains(&self, name: &ImageName) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether there is an image of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        name.parse().is_ok_and(|name| self.contains(&name))
    }

    fn document(&self, name: &ImageName) -> Option<ImageDocument> {
        let Entry { image, error } = self.entries.get(name)?;
        Some(ImageDocument { name: name.clone(), kind: image.kind, bytes: image.bytes.len(), error: error.clone() })
    }
}

impl Room {
    /// Adds or replaces an image; returns whether it is new.
    ///
    /// # Errors
    /// When the room has its maximum of images.
    pub fn put_image(
        &mut self,
        now: Timestamp,
        name: ImageName,
        image: Image,
    ) -> Result<(ImageDocument, bool), OverlayError> {
        self.now = now;
        let others = self.images.entries.iter().filter(|(known, _)| **known != name);
        let (count, bytes) = others.fold((0, 0), |(n, bytes), (_, entry)| (n + 1, bytes + entry.image.bytes.len()));
        if count >= IMAGES_MAX || bytes + image.bytes.len() > IMAGES_BYTES_MAX {
            return Err(OverlayError::TooManyImages);
        }
        let is_new = self.images.entries.insert(name.clone(), Entry { image, error: None }).is_none();
        // The mixer has the one before.
        self.images.ordered.remove(&name);
        self.refresh_overlays();
        self.emit(|room| Event::Room(Box::new(room.document())));
        let document = self.images.document(&name).ok_or(OverlayError::NoImage(name))?;
        Ok((document, is_new))
    }

    /// An image as it was uploaded.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn image(&self, name: &ImageName) -> Result<Image, OverlayError> {
        self.images
            .entries
            .get(name)
            .map(|entry| entry.image.clone())
            .ok_or_else(|| OverlayError::NoImage(name.clone()))
    }

    /// Removes an image, and ends the overlays that show it; filters show black instead.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn remove_image(&mut self, now: Timestamp, name: &ImageName) -> Result<(), OverlayError> {
        self.now = now;
        self.images.entries.remove(name).ok_or_else(|| OverlayError::NoImage(name.clone()))?;
        let users: Vec<OverlayId> = self.overlays_with(name);
        for id in users {
            self.remove_overlay(now, id)?;
        }
        self.remove_image_of_filters(name);
        self.emit(|room| Event::Room(Box::new(room.document())));
        Ok(())
    }

    /// The mixer cannot draw an image.
    pub(super) fn image_failed(&mut self, name: &ImageName, why: String) {
        let ordered = self.images.ordered.contains(name);
        let Some(entry) = self.images.entries.get_mut(name).filter(|_| ordered) else { return };
        if entry.error.as_ref() != Some(&why) {
            entry.error = Some(why);
            self.emit(|room| Event::Room(Box::new(room.document())));
        }
    }

    /// The images, by name.
    pub(super) fn image_documents(&self) -> Vec<ImageDocument> {
        self.images.entries.keys().filter_map(|name| self.images.document(name)).collect()
    }

    /// Orders the images that overlays and filters show now.
    pub(super) fn order_images(&mut self, mut used: BTreeSet<ImageName>) {
        used.append(&mut self.images_of_filters());
        for name in used.difference(&self.images.ordered) {
            if let Some(entry) = self.images.entries.get(name) {
                self.effects.push_back(Effect::Order(Order::Image(name.clone(), entry.image.clone())));
            }
        }
        for name in self.images.ordered.difference(&used) {
            self.effects.push_back(Effect::Order(Order::ImageGone(name.clone())));
        }
        self.images.ordered = used;
    }

    /// Repeats the orders for a new mixer.
    pub(super) fn replay_images(&mut self) {
        let used = std::mem::take(&mut self.images.ordered);
        self.order_images(used);
    }
}
