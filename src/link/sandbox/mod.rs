//! The sandbox of a child process: what it may still do once it handles media from the network.
//!
//! Owns: [`Access`], what one kind of process needs; [`enter`], which takes everything else away; [`support`], what
//! this machine can enforce. Does not know: media, links. In: an [`Access`], which the edge passes by the environment.
//! Out: nothing: there is no way back.
//!
//! A process enters after it has started GStreamer, which may run a program to find its plugins, and before it reads
//! its first message and starts threads. What the kernel does not support is left out, with a warning.

mod calls;
mod files;
mod user;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::thread;

use serde::{Deserialize, Serialize};

use super::sidecar::FOLDER_MODE;

/// The variable that passes an [`Access`] to a child process.
const VARIABLE: &str = "COMMINGLE_ACCESS";

/// What a process needs besides its link and the libraries, plugins and fonts of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// A folder that it reads.
    pub read: Option<PathBuf>,
    /// A folder in which it makes, writes and removes files.
    pub write: Option<PathBuf>,
    /// It opens connections by TCP and UDP, and looks up names.
    pub network: bool,
}

impl Access {
    /// To a folder of media files, for reading.
    pub fn reading(folder: PathBuf) -> Self {
        Self { read: Some(folder), ..Self::default() }
    }

    /// To a folder of recordings, for writing.
    pub fn writing(folder: PathBuf) -> Self {
        Self { write: Some(folder), ..Self::default() }
    }

    /// To the network.
    pub fn network() -> Self {
        Self { network: true, ..Self::default() }
    }

    /// The environment variable that passes it to a child process: name and value.
    ///
    /// # Panics
    /// The path of a folder is not UTF-8; the configuration has only paths that are.
    pub fn variable(&self) -> (&'static str, String) {
        (VARIABLE, serde_json::to_string(self).expect("paths of the configuration are UTF-8"))
    }

    /// The access that the edge has passed to this process; none without the variable.
    pub fn inherited() -> Self {
        let Ok(text) = std::env::var(VARIABLE) else { return Self::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::error!(%error, "malformed {VARIABLE}: no access");
            Self::default()
        })
    }

    /// Whether it opens files of the operator, which another user may not be allowed to.
    fn needs_owner(&self) -> bool {
        self.read.is_some() || self.write.is_some()
    }
}

/// A part of the sandbox that cannot be set up.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes from this process whatever `access` does not name: files, programs, the network, other processes,
/// capabilities, and administration of the machine. Logs what the machine does not support.
pub fn enter(access: &Access) {
    if let Some(folder) = &access.write {
        // Made here because a rule needs an existing folder. If it fails, the recording reports the error.
        let _ = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    }
    let parts = [
        ("files", files::restrict(access)),
        ("user", user::restrict(access.needs_owner())),
        ("system calls", calls::restrict(access.network, seccompiler::apply_filter_all_threads)),
    ];
    for (part, result) in parts {
        match result {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "sandbox without limits of {part}"),
        }
    }
}

/// What this machine enforces on child processes; for each part the reason if it does not.
#[derive(Debug)]
pub struct Support {
    /// Access to files (Landlock).
    pub files: Result<(), String>,
    /// System calls (seccomp).
    pub calls: Result<(), String>,
    /// Whether child processes run as a user of their own: the server runs as root.
    pub own_user: bool,
}

/// Tries what this machine supports, on a thread that ends.
pub fn support() -> Support {
    let attempt = thread::spawn(|| {
        let text = |error: Failure| error.to_string();
        let files = files::restrict(&Access::default()).map_err(text);
        let calls = calls::restrict(false, seccompiler::apply_filter).map_err(text);
        Support { files, calls, own_user: rustix::process::geteuid().is_root() }
    });
    attempt.join().expect("the attempts do not panic")
}

#[cfg(test)]
mod tests;
