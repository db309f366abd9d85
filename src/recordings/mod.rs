//! The recordings on disk: listed, opened, removed, and finished when whoever wrote them was killed.
//!
//! Owns: [`Library`], the folder `recordings` of the data folder, and what is known of each file beyond its JSON: why it cannot
//! be mended, how far its upload is. Does not know: how a recording is made, HTTP, who may see what.
//! In: the files that output processes write, each with a JSON beside it, and [`Library::finished`]; out: [`RecordingFile`]
//! documents, on demand and, when one changes, by [`Library::changes`].
//! A writer holds its file's lock (`flock`): what says "recording" and is not locked is nobody's any more.

mod folder;
mod mend;
mod name;
mod sidecar;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::folder::Here;
use self::folder::{Entry, Folder};
pub use self::mend::Finish;
pub use self::name::{Content, FileName, NotAName};
use self::sidecar::Written;
pub use self::upload::{NoStore, UploadState, Uploads};
use crate::id::{OutputId, RoomName};

/// Changes that a reader may lag behind.
const CHANGES: usize = 64;
/// How long an upload may take to say goodbye to its store.
const GOODBYE: Duration = Duration::from_secs(2);

/// What has become of a recording's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// It is being written.
    Recording,
    /// It ended as it should.
    Finished,
    /// It ended early, and what is there is whole.
    Failed,
    /// Whoever wrote it was killed, and the server finished it.
    Mended,
    /// It was left unfinished, and the server cannot finish it; or nothing is told of it.
    Broken,
}

impl From<Written> for FileState {
    fn from(written: Written) -> Self {
        match written {
            Written::Recording => Self::Recording,
            Written::Finished => Self::Finished,
            Written::Failed => Self::Failed,
            Written::Mended => Self::Mended,
        }
    }
}

/// A recording's file as a document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordingFile {
    /// Its name.
    pub file: FileName,
    /// The room; None when nothing is told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// The recording's id in that room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<OutputId>,
    /// What has become of it.
    pub state: FileState,
    /// Why it failed or is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Its length in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Its size; while it is being written, so far.
    pub bytes: u64,
    /// Where to download it; None when it was moved to the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How far it is on its way to the store; None when it does not go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadState>,
}

/// Why a recording is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is none.
    #[error("there is no recording `{0}`: GET /v1/recordings lists them")]
    NotFound(FileName),
    /// It is elsewhere.
    #[error("the recording `{0}` was uploaded to {1}, and is no longer here")]
    Moved(FileName, String),
    /// It is still being written.
    #[error("the recording `{0}` is still being made: stop it first")]
    Running(FileName),
    /// The disk says no.
    #[error("the recordings cannot be read or changed: {0}")]
    Disk(#[from] io::Error),
}

/// What happened to recordings after they were made.
#[derive(Debug, Default, Clone)]
pub struct LibraryCounters {
    /// Files finished in place of a writer that was killed.
    pub mended: Counter,
    /// Files that could not be finished.
    pub broken: Counter,
    /// Files that are in the store, and verified.
    pub uploaded: Counter,
    /// Their bytes.
    pub uploaded_bytes: Counter,
    /// Uploads that failed, to be tried again.
    pub upload_failures: Counter,
}

impl LibraryCounters {
    /// Puts them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("recordings_mended", "Recordings finished after a crash", self.mended.clone());
        registry.register(
            "recordings_broken",
            "Recordings that could not be finished after a crash",
            self.broken.clone(),
        );
        registry.register("recordings_uploaded", "Recordings uploaded", self.uploaded.clone());
        registry.register("recordings_uploaded_bytes", "Bytes of recordings uploaded", self.uploaded_bytes.clone());
        registry.register("recordings_upload_failures", "Uploads that failed", self.upload_failures.clone());
    }
}

/// The recordings of this server; clones are the same.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    folder: Folder,
    finish: Finish,
    /// Why a file cannot be mended: found out anew by the next server.
    broken: Mutex<BTreeMap<FileName, String>>,
    uploads: Option<Uploads>,
    changed: broadcast::Sender<RecordingFile>,
    closing: CancellationToken,
    tasks: TaskTracker,
    counters: LibraryCounters,
    /// Held as long as this server runs; None when another server has this folder.
    _lock: Option<File>,
}

/// A file that can be read from.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Its size and age when it was opened.
    pub here: Here,
    /// Whether it grows.
    pub running: bool,
}

impl Library {
    /// The recordings below `data_dir`; `finish` mends a file. What was left unfinished is mended, and what is not yet uploaded
    /// is uploaded, from now on and in the background.
    ///
    /// A folder that cannot be used is no reason not to serve calls: it is logged. Of two servers with one folder, only the
    /// first mends and uploads.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open(data_dir: &Path, finish: Finish, uploads: Option<Uploads>) -> Self {
        let folder = Folder::new(data_dir.join("recordings"));
        let lock = lock(data_dir, &folder).map_err(|error| tracing::warn!("{error}")).ok();
        // Now, before there are new ones, whose outputs may not hold their locks yet.
        let found = folder.names().unwrap_or_default();
        let inner = Arc::new(Inner {
            folder,
            finish,
            broken: Mutex::default(),
            uploads: uploads.filter(|_| lock.is_some()),
            changed: broadcast::Sender::new(CHANGES),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            counters: LibraryCounters::default(),
            _lock: lock,
        });
        let library = Self { inner };
        if library.inner._lock.is_some() {
            library.inner.tasks.spawn(library.clone().take_stock(found));
            library.inner.tasks.spawn(library.clone().upload_all());
        }
        library.inner.tasks.close();
        library
    }

    /// Ends what goes on in the background, within a bound; the next server goes on with it.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        if tokio::time::timeout(GOODBYE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("recordings were still being mended or uploaded; the next start goes on with it");
        }
    }

    /// Counted here, read by the metrics.
    pub fn counters(&self) -> &LibraryCounters {
        &self.inner.counters
    }

    /// Where output processes write.
    pub fn folder(&self) -> &Path {
        self.inner.folder.path()
    }

    /// Every recording that was finished, mended, found broken, or got further on its way to the store, from now on.
    pub fn changes(&self) -> broadcast::Receiver<RecordingFile> {
        self.inner.changed.subscribe()
    }

    /// All recordings, or those of one room; the newest first.
    ///
    /// # Errors
    /// [`LibraryError::Disk`].
    pub async fn list(&self, room: Option<RoomName>) -> Result<Vec<RecordingFile>, LibraryError> {
        self.blocking(move |inner| {
            let mut entries = inner.folder.scan()?;
            entries.retain(|entry| room.is_none() || entry.told.as_ref().ok().map(|told| &told.room) == room.as_ref());
            let mut dated: Vec<_> = entries.into_iter().map(|entry| (begun(&entry), inner.document(entry))).collect();
            dated.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.file.cmp(&y.file)));
            Ok(dated.into_iter().map(|(_, document)| document).collect())
        })
        .await
    }

    /// Which room a recording, or the JSON beside one, is of; None when nothing tells.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] or [`LibraryError::Disk`].
    pub async fn room_of(&self, name: &FileName) -> Result<Option<RoomName>, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| {
            let told = if name.content() == Content::Sidecar {
                inner.folder.open(&name).map(|_| inner.folder.told(&name))
            } else {
                inner.folder.entry(&name).map(|entry| entry.told)
            };
            match told {
                Ok(told) => Ok(told.ok().map(|told| told.room)),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(LibraryError::NotFound(name)),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// One recording.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] or [`LibraryError::Disk`].
    pub async fn find(&self, name: &FileName) -> Result<RecordingFile, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| inner.find(&name)).await
    }

    /// Opens a recording, or the JSON beside one.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`], [`LibraryError::Moved`] or [`LibraryError::Disk`].
    pub async fn open_file(&self, name: &FileName) -> Result<Opened, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| match inner.folder.open(&name) {
            Ok((file, here)) => Ok(Opened { file, here, running: inner.is_running(&name) }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let moved = inner.folder.entry(&name).ok().and_then(|entry| entry.told.ok()?.upload);
                Err(match moved {
                    Some(uploaded) => LibraryError::Moved(name, uploaded.location),
                    None => LibraryError::NotFound(name),
                })
            }
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// Removes a recording that is not being made, and its JSON.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`], [`LibraryError::Running`] or [`LibraryError::Disk`].
    pub async fn delete(&self, name: &FileName) -> Result<(), LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| {
            if inner.find(&name)?.state == FileState::Recording {
                return Err(LibraryError::Running(name));
            }
            inner.folder.remove(&name)?;
            inner.broken.lock().remove(&name);
            if let Some(uploads) = &inner.uploads {
                uploads.forget(&name);
            }
            Ok(())
        })
        .await
    }

    /// Whoever wrote this file is done or dead: what it left is mended if it needs to be, and goes on its way, in the background.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn finished(&self, name: FileName) {
        let library = self.clone();
        self.inner.tasks.spawn(async move { library.conclude(&name).await });
    }

    async fn conclude(&self, name: &FileName) {
        self.settle(name).await;
        self.send_off(name).await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LibraryError> + Send + 'static,
    ) -> Result<T, LibraryError> {
        let inner = self.inner.clone();
        let worked = tokio::task::spawn_blocking(move || work(&inner)).await;
        worked.unwrap_or_else(|error| Err(LibraryError::Disk(io::Error::other(error))))
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("folder", &self.folder()).finish_non_exhaustive()
    }
}

impl Inner {
    fn find(&self, name: &FileName) -> Result<RecordingFile, LibraryError> {
        let no_such = || LibraryError::NotFound(name.clone());
        if name.content() == Content::Sidecar {
            return Err(no_such());
        }
        match self.folder.entry(name) {
            Ok(entry) => Ok(self.document(entry)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(no_such()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the file grows, or its JSON is written anew.
    fn is_running(&self, name: &FileName) -> bool {
        let told = self.folder.told(name);
        told.is_ok_and(|told| told.state == Written::Recording) && !self.broken.lock().contains_key(name)
    }

    fn document(&self, Entry { name, here, told }: Entry) -> RecordingFile {
        let url = here.map(|_| format!("/v1/recordings/{name}"));
        let broken = self.broken.lock().get(&name).cloned();
        let document = RecordingFile {
            file: name,
            room: None,
            recording: None,
            state: FileState::Broken,
            reason: None,
            started: None,
            ended: None,
            duration: None,
            bytes: here.map_or(0, |here| here.bytes),
            url,
            upload: None,
        };
        let told = match told {
            Ok(told) => told,
            Err(why) => return RecordingFile { reason: Some(why), ..document },
        };
        let bytes = here.map(|here| here.bytes).or_else(|| told.upload.as_ref().map(|upload| upload.bytes));
        let waiting = || self.uploads.as_ref().and_then(|uploads| uploads.state(&document.file));
        let upload = told.upload.map(UploadState::from).or_else(waiting);
        let state = match told.state {
            _ if broken.is_some() => FileState::Broken,
            Written::Finished if told.reason.is_some() => FileState::Failed,
            written => written.into(),
        };
        RecordingFile {
            room: Some(told.room),
            recording: Some(told.recording),
            state,
            reason: broken.or(told.reason),
            started: told.started,
            ended: told.ended,
            duration: told.duration,
            bytes: bytes.unwrap_or(0),
            upload,
            ..document
        }
    }
}

/// When a recording began, as text that sorts by time; when nothing is told of that, when its file was changed last.
fn begun(entry: &Entry) -> String {
    let started = entry.told.as_ref().ok().and_then(|told| told.started.clone());
    let changed = || entry.here.and_then(|here| OffsetDateTime::from(here.modified).format(&Rfc3339).ok());
    started.or_else(changed).unwrap_or_default()
}

/// Why the data folder is not this server's.
#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error("{0} cannot be used for recordings ({1}): choose another folder by --data-dir, or change its owner")]
    Unusable(String, io::Error),
    #[error(
        "another server uses {0}: it mends and uploads the recordings there, this one does not; give each server a folder of its own \
         by --data-dir"
    )]
    Taken(String),
}

fn lock(data_dir: &Path, folder: &Folder) -> Result<File, LockError> {
    let unusable = |error| LockError::Unusable(data_dir.display().to_string(), error);
    fs::create_dir_all(folder.path()).map_err(unusable)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(data_dir.join(".lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LockError::Taken(data_dir.display().to_string())),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}
