//! Output processes: one a recording or broadcast; packets of streams come in, files or connections are fed.
//!
//! Owns: [`frames`] (packets to frames with times), [`steady`] (sound without pauses), the [`Target`] that takes them, and [`run_process`], which has the link.
//! Does not know: rooms, people beyond their names, mixers; who asked for the output.
//!
//! Threads: `link-reader` decodes messages; `worker` gives them to the target, which may write to disks and networks as
//! slowly as they are; `timer` reports, also while the worker waits; `link-writer` sends. What waits for the worker is
//! bounded: when it is full the link fills, and the edge takes this process for hung.

mod broadcast;
mod desk;
pub mod frames;
mod hls;
mod process;
mod record;
pub mod steady;
mod target;
mod thread;

pub use self::desk::Desk;
pub use self::process::run_process;
pub use self::target::{Failure, Target};
