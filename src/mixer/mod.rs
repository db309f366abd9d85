//! The mixer process.
pub mod outbox;
pub mod sound;
mod ticks;
