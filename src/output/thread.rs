//! Threads with names.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a name.
///
/// # Errors
/// When the operating system starts no more threads.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(run)
}
