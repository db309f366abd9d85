//! Output processes: one per recording or broadcast. Packets of encoded streams become files or connections.
//!
//! Owns: [`frames`] (packets to frames), [`gap_filler`] (audio without pauses), [`captions`], the implementations of
//! [`Target`], and [`run_process`], which has the link. Does not know: rooms, mixers, permissions. In: the messages of
//! [`crate::link::output`]. Out: files and connections; reports to the edge through the [`Notifier`].
//!
//! Threads: `link-reader` decodes messages; `worker` passes them to the target, which may block on disk or network;
//! `timer` sends reports, also while the worker blocks; `link-writer` sends. The worker's queue is bounded: when it is
//! full, the link fills up, and the edge kills this process as hung.

mod broadcast;
pub mod captions;
pub mod frames;
pub mod gap_filler;
mod hls;
mod notifier;
mod process;
mod record;
mod target;
mod thread;

pub use self::notifier::Notifier;
pub use self::process::run_process;
pub use self::target::{Failure, Target};
