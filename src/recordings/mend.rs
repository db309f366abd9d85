//! Mending: what a killed writer left behind is finished, and listed as a recording like any other.
//!
//! Owns: when a file is nobody's any more, and what is told of it afterwards. Does not know: containers; [`Finish`] does.
//! A file that cannot be finished stays as it is, and its document says why.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::name::{Content, FileName};
use super::sidecar::Written;
use super::{Inner, Library};
use crate::container::{self, Chapter};

/// How often, and how many times, a file is looked at that somebody still writes: an output whose server was killed takes a
/// moment to finish.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS: u32 = 40;

/// Makes a whole file of one that was broken off, and tells how long it plays. The error says why that cannot be done; the
/// file then is as it was.
#[derive(Clone)]
pub struct Finish(Arc<Finisher>);

type Finisher = dyn Fn(&FileName, &mut File, &[Chapter]) -> Result<Duration, String> + Send + Sync;

impl Finish {
    /// As its format wants it.
    pub fn in_place() -> Self {
        Self::by(|name, file, chapters| match name.content() {
            Content::Media(format) => {
                container::finish(format, file, chapters).map(|found| found.duration).map_err(|error| error.to_string())
            }
            Content::Sidecar => Err("there is nothing to play in it".to_owned()),
        })
    }

    /// By this function, which gets the file locked, and the chapters it is to have.
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

/// What a look at a file found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Somebody writes it.
    Busy,
    /// It needs nothing (any more).
    Whole,
    /// It was finished just now.
    Mended,
}

impl Library {
    /// Mends what of `found` an earlier server left unfinished, and lets what it did not upload go on its way.
    pub(super) async fn take_stock(self, found: BTreeSet<FileName>) {
        let media = found.into_iter().filter(|name| name.content() != Content::Sidecar);
        let sort = move |inner: &Inner| {
            Ok(media.partition::<Vec<_>, _>(|name| {
                inner.folder.told(name).is_ok_and(|told| told.state == Written::Recording)
            }))
        };
        let (unfinished, ended) = self.blocking(sort).await.unwrap_or_default();
        for name in ended {
            self.send_off(&name).await;
        }
        // One after the other: calls come first.
        for name in unfinished {
            self.conclude(&name).await;
        }
    }

    /// Waits until nobody writes the file, finishes it if that is needed, and tells.
    pub(super) async fn settle(&self, name: &FileName) {
        for _ in 0..LOOKS {
            if self.inner.closing.is_cancelled() {
                return;
            }
            let asked = name.clone();
            let look = self.blocking(move |inner| Ok(inner.look(&asked))).await;
            match look.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                Ok(Look::Busy) => tokio::time::sleep(LOOK_EVERY).await,
                Ok(Look::Whole) => return self.tell(name).await,
                Ok(Look::Mended) => {
                    self.inner.counters.mended.inc();
                    tracing::info!(file = %name, "a recording that was broken off is mended");
                    return self.tell(name).await;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => {
                    self.inner.counters.broken.inc();
                    tracing::warn!(file = %name, %error, "a recording that was broken off cannot be mended");
                    self.inner.broken.lock().insert(name.clone(), error.to_string());
                    return self.tell(name).await;
                }
            }
        }
        tracing::warn!(file = %name, "another process still writes this recording: it is left alone");
    }

    /// Tells whoever listens to [`Library::changes`].
    pub(super) async fn tell(&self, name: &FileName) {
        if let Ok(document) = self.find(name).await {
            // Nobody has to listen.
            let _ = self.inner.changed.send(document);
        }
    }
}

impl Inner {
    fn look(&self, name: &FileName) -> io::Result<Look> {
        let mut file = match self.folder.open_locked(name) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Look::Busy),
            file => file?,
        };
        // Only now: the writer may have finished a moment ago.
        let told = self.folder.entry(name)?.told.map_err(io::Error::other)?;
        if told.state != Written::Recording {
            return Ok(Look::Whole);
        }
        let duration = (self.finish.0)(name, &mut file, &self.folder.chapters(name)).map_err(io::Error::other)?;
        let bytes = file.metadata()?.len();
        self.folder.edit(name, |document| document.mended(duration, bytes))?;
        Ok(Look::Mended)
    }
}
