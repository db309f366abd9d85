//! Recordings as others read them: real encoders' media in files, looked at by ffprobe and ffmpeg.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod files;
mod media;
mod outputs;
mod probe;
mod rig;
