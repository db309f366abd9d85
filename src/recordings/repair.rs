//! Repair of recordings whose writer was killed.
//!
//! Owns: the decision that a file has no writer any more, and the update of its sidecar. Does not know: containers,
//! which [`Finish`] encapsulates. In: names of files. Out: repaired files, counters and [`Library::changes`]. A file
//! that cannot be repaired is left unchanged, and its document gives the reason.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::name::{Content, FileName};
use super::sidecar::SidecarState;
use super::{Inner, Library};
use crate::container::{self, Chapter};

/// Interval and number of retries while a file is locked: an output whose server was killed needs time to finish the
/// file.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
const MAX_RETRIES: u32 = 40;

/// Finishes an incomplete file, and returns its duration. On an error the file is unchanged.
#[derive(Clone)]
pub struct Finish(Arc<FinishFn>);

type FinishFn = dyn Fn(&FileName, &mut File, &[Chapter]) -> Result<Duration, String> + Send + Sync;

impl Finish {
    /// Finishes files with [`container::finish`].
    pub fn in_place() -> Self {
        Self::by(|name, file, chapters| match name.content() {
            Content::Media(format) => container::finish(format, file, chapters)
                .map(|summary| summary.duration)
                .map_err(|error| error.to_string()),
            Content::Sidecar | Content::Transcript | Content::Chat => Err(format!("{name} has no media")),
        })
    }

    /// Finishes files with a function that gets the locked file and its chapters.
    pub fn by(
        finish: impl Fn(&FileName, &mut File, &[Chapter]) -> Result<Duration, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(finish))
    }
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finish(…)")
    }
}

/// Result of [`Inner::inspect`].
#[derive(Debug, PartialEq, Eq)]
enum Inspection {
    /// A writer holds its lock.
    Locked,
    /// It needs no repair.
    Complete,
    /// It was repaired.
    Mended,
}

impl Library {
    /// Repairs the files of `found` that an earlier server left incomplete, and uploads those it did not upload.
    pub(super) async fn recover(self, found: BTreeSet<FileName>) {
        let media = found.into_iter().filter(|name| matches!(name.content(), Content::Media(_)));
        let sort = move |inner: &Inner| {
            Ok(media.partition::<Vec<_>, _>(|name| {
                inner.folder.sidecar(name).is_ok_and(|sidecar| sidecar.state == SidecarState::Recording)
            }))
        };
        let (unfinished, ended) = self.blocking(sort).await.unwrap_or_default();
        for name in ended {
            self.enqueue_upload(&name).await;
        }
        // One at a time, to leave disk and CPU to calls.
        for name in unfinished {
            self.conclude(&name).await;
        }
    }

    /// Waits until the file is not locked, repairs it if necessary, and notifies.
    pub(super) async fn repair(&self, name: &FileName) {
        for _ in 0..MAX_RETRIES {
            if self.inner.closing.is_cancelled() {
                return;
            }
            let file_name = name.clone();
            let inspect = self.blocking(move |inner| Ok(inner.inspect(&file_name))).await;
            match inspect.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                Ok(Inspection::Locked) => tokio::time::sleep(RETRY_INTERVAL).await,
                Ok(Inspection::Complete) => return self.notify(name).await,
                Ok(Inspection::Mended) => {
                    self.inner.counters.mended.inc();
                    tracing::info!(file = %name, "incomplete recording repaired");
                    return self.notify(name).await;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => {
                    self.inner.counters.broken.inc();
                    tracing::warn!(file = %name, %error, "incomplete recording cannot be repaired");
                    self.inner.broken.lock().insert(name.clone(), error.to_string());
                    return self.notify(name).await;
                }
            }
        }
        tracing::warn!(file = %name, "recording is still locked by another process: not repaired");
    }

    /// Sends the current document to the receivers of [`Library::changes`].
    pub(super) async fn notify(&self, name: &FileName) {
        if let Ok(document) = self.find(name).await {
            // There may be no receiver.
            let _ = self.inner.changed.send(document);
        }
    }
}

impl Inner {
    fn inspect(&self, name: &FileName) -> io::Result<Inspection> {
        let mut file = match self.folder.open_locked(name) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Inspection::Locked),
            file => file?,
        };
        // Read under the lock: the writer may just have finished.
        let sidecar = self.folder.entry(name)?.sidecar.map_err(io::Error::other)?;
        if sidecar.state != SidecarState::Recording {
            return Ok(Inspection::Complete);
        }
        let duration = (self.finish.0)(name, &mut file, &self.folder.chapters(name)).map_err(io::Error::other)?;
        let bytes = file.metadata()?.len();
        self.folder.edit(name, |document| document.mark_mended(duration, bytes))?;
        if let Err(error) = self.folder.write_chat(name) {
            tracing::warn!(file = %name, %error, "chat of a recording cannot be written");
        }
        Ok(Inspection::Mended)
    }
}
