//! Recordings: streams become files.
//!
//! Owns: [`Recording`] (a composition and the audio mix, in one file after another), [`Tracks`] (the media of each
//! participant unchanged, in separate files), and the sidecar of each file. Does not know: the link, containers
//! ([`crate::container`]). In: packets, as a [`super::Target`]. Out: files.
//!
//! A file begins with a keyframe and the audio of the same time. Timestamps count from the room's epoch, as the mixer's
//! do. A mixer restart is a gap in the video, during which players show the last picture. The audio has no gap.

mod audio;
mod clock;
mod composition;
mod events;
mod file;
mod tracks;

pub(super) use self::composition::Recording;
pub(super) use self::tracks::Tracks;
