//! Recordings: streams become files.
//!
//! Owns: [`Recording`], a composition and everyone's mix in one file after another; [`Tracks`], what each participant sends,
//! as it is, in files of their own; the JSON beside each file. Does not know: the link, how files are encoded
//! ([`crate::container`] does).
//! A file begins with a keyframe and the sound of that instant. Time counts from the room's epoch, as the mixer's does: a
//! mixer that was restarted is a gap in the picture, over which the last one stays. The sound is the master: it has no gap.

mod clock;
mod diary;
mod file;
mod sound;
mod tracks;
mod view;

pub(super) use self::tracks::Tracks;
pub(super) use self::view::Recording;
