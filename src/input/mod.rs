//! Inputs: a source from elsewhere joins a room as a participant would: a file, a camera, another server.
//!
//! Owns: a source from its address to packets of H.264 and Opus, in real time, and what is done when it breaks off.
//! Does not know: rooms, and what becomes of the packets. In: the messages of [`crate::link::input`] that order one
//! source. Out: those that carry its packets and how it is doing. Everything a source sends is demuxed, decoded and encoded
//! anew here, in a process of its own ([`run_process`]) that may fail with it.

mod camera;
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
mod ticks;
mod whep;

pub use self::outbox::Outbox;
pub use self::process::run_process;
pub use self::run::Input;
