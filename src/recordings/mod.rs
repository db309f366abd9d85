//! The library of recordings on disk: list, download, delete, repair after a crash, upload.
//!
//! Owns: [`Library`], the folder `recordings` of the data folder, and the state of each file that its sidecar (a JSON
//! file beside it) does not contain: repair errors and upload progress. Does not know: how a recording is made, HTTP,
//! permissions. In: files and sidecars written by output processes, and [`Library::finished`]. Out: [`RecordingFile`]
//! documents, on request, and through [`Library::changes`] when one changes.
//!
//! A writer holds its file's lock (`flock`). A file in state `recording` without a lock was left by a writer that was
//! killed.

mod folder;
mod name;
mod repair;
mod sidecar;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
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

pub use self::folder::LocalFile;
use self::folder::{Entry, Folder};
pub use self::name::{Content, FileName, FileNameError};
pub use self::repair::Finish;
use self::sidecar::SidecarState;
pub use self::upload::{UploadConfigError, UploadState, Uploads};
use crate::id::{OutputId, RoomName};
use crate::link::sidecar::{FILE_MODE, FOLDER_MODE};

/// Capacity of the channel of changes; a receiver that lags further misses the oldest.
const CHANGES_CAPACITY: usize = 64;
/// Time that running repairs and uploads have to stop on shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// State of a recording's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// It is being written.
    Recording,
    /// It ended regularly.
    Finished,
    /// It ended early because of an error; the file is complete up to then.
    Failed,
    /// Its writer was killed, and the server repaired the file.
    Mended,
    /// It is incomplete and cannot be repaired, or its sidecar is missing or unreadable.
    Broken,
}

impl From<SidecarState> for FileState {
    fn from(written: SidecarState) -> Self {
        match written {
            SidecarState::Recording => Self::Recording,
            SidecarState::Finished => Self::Finished,
            SidecarState::Failed => Self::Failed,
            SidecarState::Mended => Self::Mended,
        }
    }
}

/// API document of a recording's file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordingFile {
    /// Name in the folder of recordings.
    pub file: FileName,
    /// The recorded room; None without a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// The recording's id in that room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<OutputId>,
    /// State of the file.
    pub state: FileState,
    /// Reason for the states failed and broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Start, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// End, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Duration in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Size in bytes; the current size while it is being written.
    pub bytes: u64,
    /// Download URL; None when the local file was removed after its upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// URL of the captions as WebVTT; None without captions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// URL of the chat as text; None without messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// Upload state; None when it is not uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadState>,
}

/// Why a request for a recording failed.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no recording of this name.
    #[error("there is no recording `{0}`: GET /v1/recordings lists them")]
    NotFound(FileName),
    /// The file was uploaded and removed locally.
    #[error("the recording `{0}` was uploaded to {1} and removed from this server")]
    Moved(FileName, String),
    /// The recording is still running.
    #[error("the recording `{0}` is still running: stop it first")]
    Running(FileName),
    /// A file operation failed.
    #[error("the recordings cannot be read or changed: {0}")]
    Disk(#[from] io::Error),
}

/// Counters of repairs and uploads.
#[derive(Debug, Default, Clone)]
pub struct LibraryCounters {
    /// Files repaired after their writer was killed.
    pub mended: Counter,
    /// Files that could not be repaired.
    pub broken: Counter,
    /// Files uploaded and verified.
    pub uploaded: Counter,
    /// Bytes of the uploaded files.
    pub uploaded_bytes: Counter,
    /// Failed upload attempts, which are retried.
    pub upload_failures: Counter,
}

impl LibraryCounters {
    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("recordings_mended", "Recordings repaired after a crash", self.mended.clone());
        registry.register(
            "recordings_broken",
            "Recordings that could not be repaired after a crash",
            self.broken.clone(),
        );
        registry.register("recordings_uploaded", "Recordings uploaded", self.uploaded.clone());
        registry.register("recordings_uploaded_bytes", "Bytes of recordings uploaded", self.uploaded_bytes.clone());
        registry.register(
            "recordings_upload_failures",
            "Failed upload attempts of recordings",
            self.upload_failures.clone(),
        );
    }
}

/// Handle of the recordings of this server; clones share it.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    folder: Folder,
    finish: Finish,
    /// Files that cannot be repaired, and why. Not stored: the next start tries again.
    broken: Mutex<BTreeMap<FileName, String>>,
    uploads: Option<Uploads>,
    changed: broadcast::Sender<RecordingFile>,
    closing: CancellationToken,
    tasks: TaskTracker,
    counters: LibraryCounters,
    /// Lock of the data folder, held while this server runs; None when another server holds it.
    _lock: Option<File>,
}

/// A file opened for download.
#[derive(Debug)]
pub struct Opened {
    /// The open file.
    pub file: File,
    /// Size and modification time when it was opened.
    pub local: LocalFile,
    /// Whether the recording is still running, so that the file grows.
    pub running: bool,
}

impl Library {
    /// Opens the recordings below `data_dir`. Starts background tasks that repair incomplete files with `finish`, and
    /// upload files that are not uploaded yet.
    ///
    /// An unusable folder is logged and does not prevent the start. Of two servers with the same folder, only the first
    /// repairs and uploads.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open(data_dir: &Path, finish: Finish, uploads: Option<Uploads>) -> Self {
        let folder = Folder::new(data_dir.join("recordings"));
        let lock = lock(data_dir, &folder).map_err(|error| tracing::warn!("{error}")).ok();
        // Listed before new recordings start, whose outputs may not hold their locks yet.
        let found = folder.names().unwrap_or_default();
        let inner = Arc::new(Inner {
            folder,
            finish,
            broken: Mutex::default(),
            uploads: uploads.filter(|_| lock.is_some()),
            changed: broadcast::Sender::new(CHANGES_CAPACITY),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            counters: LibraryCounters::default(),
            _lock: lock,
        });
        let library = Self { inner };
        if library.inner._lock.is_some() {
            library.inner.tasks.spawn(library.clone().recover(found));
            library.inner.tasks.spawn(library.clone().upload_all());
        }
        library.inner.tasks.close();
        library
    }

    /// Stops the background tasks, waiting at most 2 s. The next start resumes them.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("repair or upload of recordings interrupted by shutdown; the next start resumes it");
        }
    }

    /// Counters for the metrics.
    pub fn counters(&self) -> &LibraryCounters {
        &self.inner.counters
    }

    /// The folder into which output processes write.
    pub fn folder(&self) -> &Path {
        self.inner.folder.path()
    }

    /// Receives the document of each recording whose file or upload state changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<RecordingFile> {
        self.inner.changed.subscribe()
    }

    /// All recordings, or those of one room, newest first.
    ///
    /// # Errors
    /// [`LibraryError::Disk`] when the folder cannot be read.
    pub async fn list(&self, room: Option<RoomName>) -> Result<Vec<RecordingFile>, LibraryError> {
        self.blocking(move |inner| {
            let mut entries = inner.folder.scan()?;
            entries.retain(|entry| {
                room.is_none() || entry.sidecar.as_ref().ok().map(|sidecar| &sidecar.room) == room.as_ref()
            });
            let mut dated: Vec<_> =
                entries.into_iter().map(|entry| (start_time(&entry), inner.document(entry))).collect();
            dated.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.file.cmp(&y.file)));
            Ok(dated.into_iter().map(|(_, document)| document).collect())
        })
        .await
    }

    /// The room of a recording, sidecar, transcript or chat; None when the sidecar is missing or unreadable.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] or [`LibraryError::Disk`].
    pub async fn room_of(&self, name: &FileName) -> Result<Option<RoomName>, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| {
            let sidecar = match name.content() {
                Content::Media(_) => inner.folder.entry(&name).map(|entry| entry.sidecar),
                Content::Sidecar | Content::Transcript | Content::Chat => {
                    inner.folder.open(&name.sidecar()).map(|_| inner.folder.sidecar(&name))
                }
            };
            match sidecar {
                Ok(sidecar) => Ok(sidecar.ok().map(|sidecar| sidecar.room)),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(LibraryError::NotFound(name)),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// The document of one recording.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] or [`LibraryError::Disk`].
    pub async fn find(&self, name: &FileName) -> Result<RecordingFile, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| inner.find(&name)).await
    }

    /// Opens a recording, sidecar or chat for download.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`], [`LibraryError::Moved`] or [`LibraryError::Disk`].
    pub async fn open_file(&self, name: &FileName) -> Result<Opened, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| match inner.folder.open(&name) {
            Ok((file, local)) => Ok(Opened { file, local, running: inner.is_running(&name) }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let moved = inner.folder.entry(&name).ok().and_then(|entry| entry.sidecar.ok()?.upload);
                Err(match moved {
                    Some(uploaded) => LibraryError::Moved(name, uploaded.location),
                    None => LibraryError::NotFound(name),
                })
            }
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// The transcript of a recording as WebVTT: its captions so far.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`], also if it has no captions, or [`LibraryError::Disk`].
    pub async fn transcript(&self, name: &FileName) -> Result<String, LibraryError> {
        let name = name.clone();
        self.blocking(move |inner| inner.folder.transcript(&name).ok_or(LibraryError::NotFound(name))).await
    }

    /// Deletes a recording, its sidecar and its chat.
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

    /// Reports that the writer of this file has exited. In the background the file is repaired if necessary and
    /// uploaded.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn finished(&self, name: FileName) {
        let library = self.clone();
        self.inner.tasks.spawn(async move { library.conclude(&name).await });
    }

    /// Repairs a file if necessary, and queues its upload.
    async fn conclude(&self, name: &FileName) {
        self.repair(name).await;
        self.enqueue_upload(name).await;
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
        if !matches!(name.content(), Content::Media(_)) {
            return Err(no_such());
        }
        match self.folder.entry(name) {
            Ok(entry) => Ok(self.document(entry)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(no_such()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the recording is still being written.
    fn is_running(&self, name: &FileName) -> bool {
        let sidecar = self.folder.sidecar(name);
        sidecar.is_ok_and(|sidecar| sidecar.state == SidecarState::Recording) && !self.broken.lock().contains_key(name)
    }

    fn document(&self, Entry { name, local, sidecar }: Entry) -> RecordingFile {
        let url = local.map(|_| format!("/v1/recordings/{name}"));
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
            bytes: local.map_or(0, |local| local.bytes),
            url,
            transcript: None,
            chat: None,
            upload: None,
        };
        let sidecar = match sidecar {
            Ok(sidecar) => sidecar,
            Err(why) => return RecordingFile { reason: Some(why), ..document },
        };
        let bytes = local.map(|local| local.bytes).or_else(|| sidecar.upload.as_ref().map(|upload| upload.bytes));
        let waiting = || self.uploads.as_ref().and_then(|uploads| uploads.state(&document.file));
        let upload = sidecar.upload.map(UploadState::from).or_else(waiting);
        let state = match sidecar.state {
            _ if broken.is_some() => FileState::Broken,
            SidecarState::Finished if sidecar.reason.is_some() => FileState::Failed,
            written => written.into(),
        };
        let has_captions = !sidecar.captions.is_empty();
        let transcript = has_captions.then(|| format!("/v1/recordings/{}", document.file.transcript()));
        let chat = (!sidecar.chat.is_empty()).then(|| format!("/v1/recordings/{}", document.file.chat()));
        RecordingFile {
            room: Some(sidecar.room),
            recording: Some(sidecar.recording),
            state,
            reason: broken.or(sidecar.reason),
            started: sidecar.started,
            ended: sidecar.ended,
            duration: sidecar.duration,
            bytes: bytes.unwrap_or(0),
            transcript,
            chat,
            upload,
            ..document
        }
    }
}

/// Start of a recording in RFC 3339, which sorts by time; without a sidecar the modification time of its file.
fn start_time(entry: &Entry) -> String {
    let started = entry.sidecar.as_ref().ok().and_then(|sidecar| sidecar.started.clone());
    let changed = || entry.local.and_then(|local| OffsetDateTime::from(local.modified).format(&Rfc3339).ok());
    started.or_else(changed).unwrap_or_default()
}

/// Why the data folder cannot be locked.
#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error("{0} cannot be used for recordings ({1}): choose another folder with --data-dir, or change its owner")]
    Unusable(String, io::Error),
    #[error(
        "the data folder {0} is locked by another server, which repairs and uploads its recordings; give each server \
         its own folder with --data-dir"
    )]
    Taken(String),
}

fn lock(data_dir: &Path, folder: &Folder) -> Result<File, LockError> {
    let unusable = |error| LockError::Unusable(data_dir.display().to_string(), error);
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder.path()).map_err(unusable)?;
    if fs::metadata(folder.path()).map_err(unusable)?.permissions().mode() & 0o007 != 0 {
        let folder = folder.path().display();
        tracing::warn!(%folder, "all users of this machine can read the folder of recordings: chmod o-rwx");
    }
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(FILE_MODE);
    let file = options.open(data_dir.join(".lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LockError::Taken(data_dir.display().to_string())),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}
