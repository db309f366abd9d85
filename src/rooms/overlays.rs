//! Overlays, images and captions of rooms, as the HTTP API uses them.
//!
//! Owns: [`OverlayCommand`], and the parts in which an image goes to a mixer. Does not know: HTTP; what a room does
//! ([`crate::room`]).

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::command::Command;
use super::{RoomError, Rooms, ask};
use crate::id::{OverlayId, RoomName};
use crate::link::ToMixer;
use crate::overlay::{Image, ImageName, OverlayRequest};
use crate::room::Room;
use crate::room::captions::CaptionRequest;
use crate::room::images::ImageDocument;
use crate::room::overlays::{OverlayDocument, OverlayError};
use crate::time::Timestamp;

/// Longest part of an image in one message to a mixer, in bytes.
const PART: usize = 256 * 1024;

type Reply<T> = oneshot::Sender<Result<T, OverlayError>>;

/// A command about overlays, images or captions.
pub(super) enum OverlayCommand {
    /// Add an overlay.
    Add(OverlayRequest, Reply<OverlayDocument>),
    /// Change an overlay.
    Change(OverlayId, Map<String, Value>, Reply<OverlayDocument>),
    /// End an overlay.
    Remove(OverlayId, Reply<OverlayDocument>),
    /// Add or replace an image.
    PutImage(ImageName, Image, Reply<(ImageDocument, bool)>),
    /// Read an image.
    Image(ImageName, Reply<Image>),
    /// Remove an image.
    RemoveImage(ImageName, Reply<()>),
    /// Send a caption.
    Caption(CaptionRequest, Reply<()>),
}

impl OverlayCommand {
    /// Executes the command. A caller that does not wait any more gets no reply.
    pub(super) fn execute(self, room: &mut Room, now: Timestamp) {
        match self {
            Self::Add(request, reply) => drop(reply.send(room.add_overlay(now, request))),
            Self::Change(id, patch, reply) => drop(reply.send(room.change_overlay(now, id, patch))),
            Self::Remove(id, reply) => drop(reply.send(room.remove_overlay(now, id))),
            Self::PutImage(name, image, reply) => drop(reply.send(room.put_image(now, name, image))),
            Self::Image(name, reply) => drop(reply.send(room.image(&name))),
            Self::RemoveImage(name, reply) => drop(reply.send(room.remove_image(now, &name))),
            Self::Caption(request, reply) => drop(reply.send(room.caption(now, request))),
        }
    }
}

/// The messages that bring an image to a mixer: a message of the link is shorter than an image.
pub(super) fn image_parts(name: &ImageName, image: &Image) -> impl Iterator<Item = ToMixer> {
    let length = image.bytes.len();
    (0..length.max(1)).step_by(PART).map(move |from| {
        let to = (from + PART).min(length);
        let (part, left) = (image.bytes.slice(from..to), (length - to) as u32);
        ToMixer::ImagePart { name: name.clone(), kind: image.kind, part, left }
    })
}

impl Rooms {
    /// Adds an overlay.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn add_overlay(&self, name: &RoomName, request: OverlayRequest) -> Result<OverlayDocument, RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::Add(request, reply)).await
    }

    /// Changes an overlay by a merge patch (RFC 7396).
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn change_overlay(
        &self,
        name: &RoomName,
        id: OverlayId,
        patch: Map<String, Value>,
    ) -> Result<OverlayDocument, RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::Change(id, patch, reply)).await
    }

    /// Ends an overlay.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn remove_overlay(&self, name: &RoomName, id: OverlayId) -> Result<OverlayDocument, RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::Remove(id, reply)).await
    }

    /// The document of an overlay.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn overlay(&self, name: &RoomName, id: OverlayId) -> Result<OverlayDocument, RoomError> {
        let room = self.room(name).await?;
        let found = room.overlays.into_iter().find(|known| known.id == id);
        found.ok_or_else(|| OverlayError::NoOverlay(id).into())
    }

    /// Adds or replaces an image; returns whether it is new.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn put_image(
        &self,
        name: &RoomName,
        image: ImageName,
        contents: Image,
    ) -> Result<(ImageDocument, bool), RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::PutImage(image, contents, reply)).await
    }

    /// An image as it was uploaded.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn image(&self, name: &RoomName, image: ImageName) -> Result<Image, RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::Image(image, reply)).await
    }

    /// Removes an image, and ends the overlays that show it.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn remove_image(&self, name: &RoomName, image: ImageName) -> Result<(), RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::RemoveImage(image, reply)).await
    }

    /// Sends a caption.
    ///
    /// # Errors
    /// [`RoomError::NoRoom`], [`RoomError::Overlay`].
    pub async fn caption(&self, name: &RoomName, request: CaptionRequest) -> Result<(), RoomError> {
        self.overlay_command(name, |reply| OverlayCommand::Caption(request, reply)).await
    }

    async fn overlay_command<T>(
        &self,
        name: &RoomName,
        command: impl FnOnce(Reply<T>) -> OverlayCommand,
    ) -> Result<T, RoomError> {
        Ok(ask(&self.find(name)?, |reply| Command::Overlay(command(reply))).await??)
    }
}
