//! The overlays of a room's views.
//!
//! Owns: the overlays with their ends, and the orders to the mixer that follow from them. Does not know: how they are
//! drawn ([`crate::overlay`] has the plain data), HTTP, who may change them. In: requests and the time; out: documents,
//! events and [`Order::Overlays`] where the overlays of a view differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::captions::CaptionError;
use super::document::Event;
use super::images::{IMAGES_BYTES_MAX, IMAGES_MAX};
use super::view_request::ViewError;
use super::{Effect, Order, Room};
use crate::id::{OverlayId, ParticipantId, ViewName};
use crate::overlay::{Colour, ImageName, Overlay, OverlayKind, OverlayRequest};
use crate::time::Timestamp;

/// Most overlays of a room. Each has a text of at most [`crate::overlay::TEXT_MAX`] characters.
pub const OVERLAYS_MAX: usize = 16;

/// Why an overlay, an image or a caption is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OverlayError {
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// No such overlay.
    #[error("there is no overlay `{0}` in this room: it has ended or never existed")]
    NoOverlay(OverlayId),
    /// No such view.
    #[error(transparent)]
    View(#[from] ViewError),
    /// No such image.
    #[error("there is no image `{0}` in this room: upload it with PUT /v1/rooms/{{room}}/images/{0}")]
    NoImage(ImageName),
    /// The room has its maximum of images.
    #[error(
        "a room has at most {IMAGES_MAX} images with {IMAGES_BYTES_MAX} bytes together: delete one first, or send a \
         smaller one"
    )]
    TooManyImages,
    /// The room has its maximum of overlays.
    #[error("this room has {OVERLAYS_MAX} overlays, which is the limit: delete one first")]
    TooManyOverlays,
    /// No such participant.
    #[error("there is no participant `{0}` in this room")]
    NoParticipant(ParticipantId),
    /// The caption is refused.
    #[error(transparent)]
    Caption(#[from] CaptionError),
}

/// The state of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlayState {
    /// It is drawn.
    Shown,
    /// Its time is over, or it was deleted.
    Ended,
}

/// An overlay, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverlayDocument {
    /// Its id.
    pub id: OverlayId,
    /// The view.
    pub view: ViewName,
    /// The kind.
    pub kind: OverlayKind,
    /// Whether it is drawn.
    pub state: OverlayState,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// Left edge, in fractions of the canvas.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width; None for as wide as the contents.
    pub width: Option<f64>,
    /// Height.
    pub height: f64,
    /// Colour of letters.
    pub color: Colour,
    /// Colour behind the contents.
    pub background: Colour,
    /// Seconds for which it is shown since its creation or the last change of this field; None for no end.
    pub seconds: Option<f64>,
    /// The time zone of a clock, in minutes ahead of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utc_offset_minutes: Option<i32>,
}

/// One overlay.
#[derive(Debug)]
struct Entry {
    request: OverlayRequest,
    until: Option<Timestamp>,
}

/// The overlays of a room.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    entries: BTreeMap<OverlayId, Entry>,
    /// Number of overlays so far.
    count: u32,
    /// What the mixer was ordered to draw; views without overlays are not in it.
    ordered: BTreeMap<ViewName, Vec<Overlay>>,
}

impl Overlays {
    /// When the next overlay ends.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        self.entries.values().filter_map(|entry| entry.until).min()
    }
}

fn end(request: &OverlayRequest, now: Timestamp) -> Option<Timestamp> {
    request.seconds.map(|seconds| now + Duration::from_secs_f64(seconds))
}

impl Entry {
    fn document(&self, id: OverlayId, state: OverlayState) -> OverlayDocument {
        let request = &self.request;
        let overlay = request.overlay(id, String::new());
        OverlayDocument {
            id,
            view: request.view.clone(),
            kind: request.kind,
            state,
            text: request.text.clone(),
            image: overlay.image,
            x: overlay.x,
            y: overlay.y,
            width: overlay.width,
            height: overlay.height,
            color: overlay.color,
            background: overlay.background,
            seconds: request.seconds,
            utc_offset_minutes: (request.kind == OverlayKind::Clock).then_some(overlay.utc_offset_minutes),
        }
    }
}

impl Room {
    /// Adds an overlay.
    ///
    /// # Errors
    /// When the request is invalid, names an unknown view or image, or the room has its maximum of overlays.
    pub fn add_overlay(&mut self, now: Timestamp, request: OverlayRequest) -> Result<OverlayDocument, OverlayError> {
        self.now = now;
        self.check_overlay(&request)?;
        if self.overlays.entries.len() >= OVERLAYS_MAX {
            return Err(OverlayError::TooManyOverlays);
        }
        self.overlays.count += 1;
        let id = OverlayId(self.overlays.count);
        let until = end(&request, now);
        self.overlays.entries.insert(id, Entry { request, until });
        self.overlay_changed(id)
    }

    /// Changes an overlay by a merge patch (RFC 7396). Its time begins anew if the patch has `seconds`.
    ///
    /// # Errors
    /// Those of [`add_overlay`](Self::add_overlay), and when the overlay does not exist.
    pub fn change_overlay(
        &mut self,
        now: Timestamp,
        id: OverlayId,
        patch: Map<String, Value>,
    ) -> Result<OverlayDocument, OverlayError> {
        self.now = now;
        let entry = self.overlays.entries.get(&id).ok_or(OverlayError::NoOverlay(id))?;
        let sets_end = patch.contains_key("seconds");
        let request = entry.request.patched(patch).map_err(OverlayError::Invalid)?;
        self.check_overlay(&request)?;
        let until = if sets_end { end(&request, now) } else { entry.until };
        self.overlays.entries.insert(id, Entry { request, until });
        self.overlay_changed(id)
    }

    /// Ends an overlay; returns its last document.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn remove_overlay(&mut self, now: Timestamp, id: OverlayId) -> Result<OverlayDocument, OverlayError> {
        self.now = now;
        let entry = self.overlays.entries.remove(&id).ok_or(OverlayError::NoOverlay(id))?;
        let overlay = entry.document(id, OverlayState::Ended);
        self.refresh_overlays();
        self.emit(|_| Event::Overlay { overlay: overlay.clone() });
        Ok(overlay)
    }

    /// Ends the overlays of a view that was deleted.
    pub(super) fn remove_overlays_of(&mut self, view: &ViewName) {
        let gone = self.overlays.entries.iter().filter(|(_, entry)| entry.request.view == *view);
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            // It exists.
            let _ended = self.remove_overlay(self.now, id);
        }
    }

    /// The overlays, in the order in which they are drawn.
    pub(super) fn overlay_documents(&self) -> Vec<OverlayDocument> {
        self.overlays.entries.iter().map(|(id, entry)| entry.document(*id, OverlayState::Shown)).collect()
    }

    fn check_overlay(&self, request: &OverlayRequest) -> Result<(), OverlayError> {
        request.check().map_err(OverlayError::Invalid)?;
        self.require_view(&request.view)?;
        match &request.image {
            Some(name) if !self.images.contains(name) => Err(OverlayError::NoImage(name.clone())),
            _ => Ok(()),
        }
    }

    fn overlay_changed(&mut self, id: OverlayId) -> Result<OverlayDocument, OverlayError> {
        let entry = self.overlays.entries.get(&id).ok_or(OverlayError::NoOverlay(id))?;
        let overlay = entry.document(id, OverlayState::Shown);
        self.refresh_overlays();
        self.emit(|_| Event::Overlay { overlay: overlay.clone() });
        Ok(overlay)
    }

    /// Orders what the mixer does not draw yet.
    pub(super) fn refresh_overlays(&mut self) {
        let captions = self.captions.text();
        let mut named: BTreeMap<ViewName, Vec<Overlay>> = BTreeMap::new();
        for (id, Entry { request, .. }) in &self.overlays.entries {
            let text = match request.kind {
                OverlayKind::Caption if captions.is_empty() => continue,
                OverlayKind::Caption => captions.clone(),
                _ => request.text.clone().unwrap_or_default(),
            };
            named.entry(request.view.clone()).or_default().push(request.overlay(*id, text));
        }
        let overlaid = |(view, of): (&ViewName, &ViewName)| Some((view.clone(), named.get(of)?.clone()));
        let wanted: BTreeMap<ViewName, Vec<Overlay>> = self.views.overlaid().filter_map(overlaid).collect();
        let images: BTreeSet<ImageName> =
            wanted.values().flatten().filter_map(|overlay| overlay.image.clone()).collect();
        let ordered = std::mem::replace(&mut self.overlays.ordered, wanted.clone());
        self.order_images(images);
        for view in ordered.keys().filter(|view| !wanted.contains_key(view)) {
            self.effects.push_back(Effect::Order(Order::Overlays(view.clone(), Vec::new())));
        }
        for (view, overlays) in wanted {
            if ordered.get(&view) != Some(&overlays) {
                self.effects.push_back(Effect::Order(Order::Overlays(view, overlays)));
            }
        }
    }

    /// Repeats the orders for a new mixer.
    pub(super) fn replay_overlays(&mut self) {
        for (view, overlays) in &self.overlays.ordered {
            self.effects.push_back(Effect::Order(Order::Overlays(view.clone(), overlays.clone())));
        }
    }

    /// The overlays that show an image.
    pub(super) fn overlays_with(&self, image: &ImageName) -> Vec<OverlayId> {
        let shows = |entry: &Entry| entry.request.image.as_ref() == Some(image);
        self.overlays.entries.iter().filter(|(_, entry)| shows(entry)).map(|(id, _)| *id).collect()
    }

    /// Ends the overlays whose time is over.
    pub(super) fn overlay_timeout(&mut self, now: Timestamp) {
        let due = |(id, entry): (&OverlayId, &Entry)| entry.until.is_some_and(|until| now >= until).then_some(*id);
        let over: Vec<OverlayId> = self.overlays.entries.iter().filter_map(due).collect();
        for id in over {
            // It is in the list.
            let _ended = self.remove_overlay(now, id);
        }
    }
}
