//! The mixer process: one a room; packets of everyone come in, a few mixed streams go out.
//!
//! Owns: [`ingest`] (packets to pictures), [`compose`] (pictures to canvases), [`encode`] (canvases to packets), [`sound`],
//! [`Mixer`], which has the threads, and [`run_process`], which has the link. Does not know: who a person is beyond an id and a label, who may
//! see whom, the network: no socket is opened here but the one it is born with.
//!
//! Threads: `link-reader` decodes messages and feeds the jitter buffers and decoders; `video-tick` composes and feeds
//! the encoders; `audio-tick` mixes; `timer` reports, also when idle, and ends waits for lost packets; `link-writer` sends.
//! GStreamer's own threads decode and encode. Orders are whole values, the newest wins; packets are bounded and counted.

pub mod builder;
pub mod compose;
pub mod encode;
pub mod ingest;
pub mod outbox;
mod process;
mod run;
pub mod sound;
mod ticks;
mod video;

pub use self::process::run_process;
pub use self::run::Mixer;
