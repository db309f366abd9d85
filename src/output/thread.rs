//! Threads with names, which the system's tools and panic messages show.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a name.
///
/// # Errors
/// The operating system cannot start another thread.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(run)
}
