//! Recordings with media of real encoders, checked with ffprobe and ffmpeg.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod captions;
mod chat;
mod files;
mod media;
mod outputs;
mod probe;
mod rig;
