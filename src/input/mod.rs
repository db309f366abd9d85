//! Inputs: a media source outside of the room (a file, camera, encoder or server) that joins like a participant.
//!
//! Owns: one source from its URL to packets of H.264 and Opus in real time, including reconnects. Does not know: rooms,
//! and the receivers of the packets. In: the messages of [`crate::link::input`] that configure one source. Out: its
//! packets and reports, through the [`Outbox`]. Everything is demuxed, decoded and encoded again in a process of its
//! own ([`run_process`]), which a malicious source may crash without harm to others.

mod body_limit;
mod camera;
mod gunzip;
mod http;
mod media_file;
mod microphone;
mod open;
mod outbox;
mod play;
mod playout;
mod process;
mod push;
mod retry;
mod rtmp;
mod rtsp;
mod run;
mod skipped;
mod ticks;
mod timeline;
mod whep;

pub use self::outbox::Outbox;
pub use self::process::run_process;
pub use self::run::Input;
use crate::media::Kind;

/// The place of a track in an array of video and audio.
const fn index(kind: Kind) -> usize {
    match kind {
        Kind::Video => 0,
        Kind::Audio => 1,
    }
}
