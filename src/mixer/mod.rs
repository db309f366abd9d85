//! The mixer process, one per room: decodes the participants' packets, composes and mixes, encodes a few streams.
//!
//! Owns: [`ingest`] (packets to pictures), [`compose`] (pictures to canvases), [`encode`] (canvases to packets),
//! [`filter`] (pictures to filtered pictures), [`sound`], [`lip_sync`] (camera and microphone of a participant),
//! [`Mixer`] with the threads, and [`run_process`] with the link. Does not know: participants beyond an id and a label,
//! who may see whom, the network. It opens no socket; the link is inherited.
//!
//! Threads: `link-reader` decodes messages and feeds the jitter buffers and decoders; `video-tick` composes and feeds
//! the encoders; `audio-tick` mixes; `timer` reports, also when idle, and ends waits for lost packets; `link-writer`
//! sends; `build-decoders`, `build-encoders` and `build-filters` make pipelines ([`builder`]). GStreamer's threads
//! decode, filter and encode. Orders are whole values, and the newest replaces the one before; packets are bounded, and
//! drops are counted.

pub mod builder;
pub mod compose;
pub mod effort;
pub mod encode;
pub mod filter;
mod images;
pub mod ingest;
pub mod lip_sync;
pub mod outbox;
pub mod pace;
mod process;
mod run;
pub mod sound;
mod ticks;
mod video;

pub use self::process::run_process;
pub use self::run::Mixer;
