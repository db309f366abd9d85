//! Uploads of finished recordings to an object store, one at a time.
//!
//! Owns: upload progress, the update of sidecars, and the removal of local files. Does not know: the protocol of the
//! store ([`store`]), the order and retries ([`queue`]). In: names of finished files. Out: objects, and
//! [`Library::changes`]. The sidecar records a completed upload, so that a restarted server finds the files that are
//! not uploaded yet. A local file is removed only after its sidecar has recorded the upload.

mod queue;
mod store;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

use self::queue::{Next, Queue};
use self::store::{Store, StoreError};
use super::sidecar::Uploaded;
use super::{FileName, FileState, Library, LibraryError, Opened};
use crate::config::Upload;
use crate::time;

/// State of a recording's upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum UploadState {
    /// In the queue, for the first attempt or a retry.
    Waiting {
        /// Failed attempts so far.
        failures: u32,
        /// Error of the last attempt.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Being sent.
    Uploading {
        /// Bytes sent so far.
        sent_bytes: u64,
    },
    /// Uploaded and verified.
    Done {
        /// `s3://bucket/key`.
        location: String,
        /// SHA-256 of the file in hexadecimal.
        sha256: String,
    },
}

impl From<Uploaded> for UploadState {
    fn from(Uploaded { location, sha256, .. }: Uploaded) -> Self {
        Self::Done { location, sha256 }
    }
}

/// The section `[upload]` of the configuration is unusable.
#[derive(Debug, thiserror::Error)]
#[error("section [upload] of the configuration: {0}")]
pub struct UploadConfigError(String);

/// The uploads of this server.
pub struct Uploads {
    store: Store,
    /// Local files are kept after their upload.
    keep_local: bool,
    queue: Mutex<Queue>,
    /// The current upload and its sent bytes.
    sending: Mutex<Option<(FileName, u64)>>,
    /// Notified after each addition to `queue`.
    added: Notify,
}

/// How an upload ended without an error.
enum Outcome {
    Done,
    /// The recording was deleted meanwhile.
    Deleted,
}

#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Library(#[from] LibraryError),
}

impl Uploads {
    /// Uploads to the configured bucket; None when no bucket is configured.
    ///
    /// # Errors
    /// The configuration is unusable.
    pub fn new(config: &Upload) -> Result<Option<Self>, UploadConfigError> {
        let store = Store::new(config).map_err(|error| UploadConfigError(error.to_string()))?;
        Ok(store.map(|store| Self::to(store, config.keep_local)))
    }

    fn to(store: Store, keep_local: bool) -> Self {
        Self { store, keep_local, queue: Mutex::default(), sending: Mutex::default(), added: Notify::new() }
    }

    /// Queues the upload of a recording.
    pub(super) fn add(&self, name: FileName) {
        self.queue.lock().add(name, time::now());
        self.added.notify_one();
    }

    /// Removes a recording from the queue: it is uploaded or deleted.
    pub(super) fn forget(&self, name: &FileName) {
        self.queue.lock().done(name);
    }

    /// State of a recording that is queued or being uploaded; None otherwise.
    pub(super) fn state(&self, name: &FileName) -> Option<UploadState> {
        if let Some((_, sent)) = self.sending.lock().as_ref().filter(|(sending, _)| sending == name) {
            return Some(UploadState::Uploading { sent_bytes: *sent });
        }
        let queue = self.queue.lock();
        let waiting = queue.get(name)?;
        Some(UploadState::Waiting { failures: waiting.failures, error: waiting.error.clone() })
    }
}

impl Library {
    /// Uploads the queued recordings, one at a time, until the library closes.
    pub(super) async fn upload_all(self) {
        let Some(uploads) = &self.inner.uploads else { return };
        while !self.inner.closing.is_cancelled() {
            let next = uploads.queue.lock().next(time::now());
            match next {
                Next::Upload(name) => self.upload_next(uploads, &name).await,
                Next::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep(until.since(time::now())) => {}
                        () = uploads.added.notified() => {}
                        () = self.inner.closing.cancelled() => {}
                    }
                }
                Next::Idle => {
                    tokio::select! {
                        () = uploads.added.notified() => {}
                        () = self.inner.closing.cancelled() => {}
                    }
                }
            }
        }
    }

    async fn upload_next(&self, uploads: &Uploads, name: &FileName) {
        *uploads.sending.lock() = Some((name.clone(), 0));
        self.notify(name).await;
        let outcome = self.upload(uploads, name).await;
        *uploads.sending.lock() = None;
        let counters = self.counters();
        match outcome {
            Ok(Outcome::Done) => {
                counters.uploaded.inc();
                tracing::info!(file = %name, "recording uploaded");
                uploads.forget(name);
            }
            Ok(Outcome::Deleted) => uploads.forget(name),
            // Not a failure: the server uploads it after its next start.
            Err(UploadError::Store(StoreError::Closing)) => {}
            Err(error) => {
                counters.upload_failures.inc();
                tracing::warn!(file = %name, %error, "upload of a recording failed, will be retried");
                uploads.queue.lock().failed(name, error.to_string(), time::now(), rand::random());
            }
        }
        self.notify(name).await;
    }

    async fn upload(&self, uploads: &Uploads, name: &FileName) -> Result<Outcome, UploadError> {
        let Opened { file, local, .. } = match self.open_file(name).await {
            Err(LibraryError::NotFound(_) | LibraryError::Moved(..)) => return Ok(Outcome::Deleted),
            opened => opened?,
        };
        let progress = |sent| *uploads.sending.lock() = Some((name.clone(), sent));
        let store = &uploads.store;
        let uploaded = store.put_file(name, file, local.bytes, progress, &self.inner.closing).await?;
        self.counters().uploaded_bytes.inc_by(local.bytes);
        // The copy of the sidecar in the store records the upload too. It is written first, because the local sidecar
        // ends the upload: after a crash between the two, everything is uploaded again.
        let (file_name, to) = (name.clone(), uploaded.clone());
        let text = self
            .blocking(move |inner| Ok(inner.folder.preview(&file_name, |document| document.mark_uploaded(&to))?))
            .await?;
        store.put_text(&name.sidecar(), text).await?;
        let file_name = name.clone();
        if let Some(text) = self.blocking(move |inner| Ok(inner.folder.chat_text(&file_name))).await? {
            store.put_text(&name.chat(), text).await?;
        }
        let (file_name, keep) = (name.clone(), uploads.keep_local);
        self.blocking(move |inner| {
            inner.folder.edit(&file_name, |document| document.mark_uploaded(&uploaded))?;
            if keep { Ok(()) } else { Ok(inner.folder.remove_media(&file_name)?) }
        })
        .await?;
        Ok(Outcome::Done)
    }

    /// Queues the upload of a recording, if a store is configured, and the recording has ended and is not uploaded yet.
    pub(super) async fn enqueue_upload(&self, name: &FileName) {
        let Some(uploads) = &self.inner.uploads else { return };
        let ended = [FileState::Finished, FileState::Failed, FileState::Mended];
        match self.find(name).await {
            Ok(document) if ended.contains(&document.state) && document.upload.is_none() => uploads.add(name.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path as FilePath;
    use std::sync::Arc;
    use std::time::Duration;

    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt, PutPayload};
    use tempfile::TempDir;
    use tokio::sync::broadcast;

    use super::super::{Finish, RecordingFile};
    use super::*;
    use crate::config::Secret;

    const TEST_TIMEOUT: Duration = Duration::from_secs(20);
    /// Small, so that a small file has several parts.
    const PART: u64 = 1000;
    const SHA256: &str = "26d74f1c97896238c0e5738b429bc98c30f2f270dc416089bbf40ed1b13737a7";

    fn disk(stems: &[(&str, usize)]) -> TempDir {
        let data = tempfile::tempdir().expect("the temporary folder can be written");
        fs::create_dir(data.path().join("recordings")).expect("it is writable");
        for (stem, bytes) in stems {
            record(data.path(), stem, *bytes);
        }
        data
    }

    fn record(data: &FilePath, stem: &str, bytes: usize) {
        let media: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let folder = data.join("recordings");
        fs::write(folder.join(format!("{stem}.mp4")), media).expect("it is writable");
        let text = r#"{"room":"r","recording":"o1","state":"finished","people":["Ann"]}"#;
        fs::write(folder.join(format!("{stem}.json")), text).expect("it is writable");
    }

    fn open(data: &TempDir, uploads: Uploads) -> Library {
        Library::open(data.path(), Finish::by(|_, _, _| Err("nothing to repair".into())), Some(uploads))
    }

    /// Waits until a recording is in the store.
    async fn done(changes: &mut broadcast::Receiver<RecordingFile>) -> RecordingFile {
        loop {
            let change =
                tokio::time::timeout(TEST_TIMEOUT, changes.recv()).await.expect("in time").expect("the library lives");
            if matches!(change.upload, Some(UploadState::Done { .. })) {
                return change;
            }
        }
    }

    async fn object(store: &InMemory, key: &str) -> Vec<u8> {
        store.get(&Path::from(key)).await.expect("it is there").bytes().await.expect("it is whole").to_vec()
    }

    #[tokio::test]
    async fn finished_recordings_are_uploaded_once_including_those_of_an_earlier_server() {
        let data = disk(&[("a", 3 * PART as usize + 7), ("b", 10), ("empty", 0)]);
        let store = Arc::new(InMemory::new());
        let library = open(&data, Uploads::to(Store::in_memory(store.clone(), PART), true));
        let mut changes = library.changes();
        for stem in ["a", "b", "empty"] {
            let change = done(&mut changes).await;
            assert_eq!(change.file.as_str(), format!("{stem}.mp4"));
            let local = fs::read(data.path().join("recordings").join(change.file.as_str())).expect("it stays");
            assert_eq!(object(&store, &format!("calls/{stem}.mp4")).await, local);
        }
        let sidecar: serde_json::Value =
            serde_json::from_slice(&object(&store, "calls/a.json").await).expect("the JSON is there too");
        assert_eq!(
            (&sidecar["people"][0], &sidecar["upload"]["location"]),
            (&"Ann".into(), &"s3://bucket/calls/a.mp4".into())
        );
        assert_eq!(sidecar["upload"]["bytes"], 3007);
        // From `sha256sum` of the same bytes.
        assert_eq!(sidecar["upload"]["sha256"], SHA256);
        record(data.path(), "c", 5 * PART as usize);
        library.finished("c.mp4".parse().expect("a name"));
        assert_eq!(done(&mut changes).await.bytes, 5 * PART);
        assert_eq!((library.counters().uploaded.get(), library.counters().uploaded_bytes.get()), (4, 8017));
        library.close().await;

        store.put(&Path::from("calls/a.mp4"), PutPayload::from_static(b"theirs")).await.expect("it takes it");
        let again = open(&data, Uploads::to(Store::in_memory(store.clone(), PART), true));
        assert!(tokio::time::timeout(Duration::from_millis(300), done(&mut again.changes())).await.is_err());
        assert_eq!(object(&store, "calls/a.mp4").await, b"theirs", "it was uploaded again");
    }

    #[tokio::test]
    async fn the_local_file_is_removed_only_after_the_upload() {
        let data = disk(&[("a", 3000)]);
        let store = Arc::new(InMemory::new());
        let library = open(&data, Uploads::to(Store::in_memory(store.clone(), PART), false));
        let change = done(&mut library.changes()).await;
        assert_eq!((change.url, change.bytes), (None, 3000));
        assert!(!data.path().join("recordings/a.mp4").exists());
        assert_eq!(object(&store, "calls/a.mp4").await.len(), 3000);
        let name = "a.mp4".parse().expect("a name");
        let moved = library.open_file(&name).await.expect_err("it was removed").to_string();
        assert!(moved.contains("s3://bucket/calls/a.mp4"), "{moved}");
        assert_eq!(library.list(None).await.expect("readable").len(), 1, "it is still listed");
        library.delete(&name).await.expect("it can be deleted");
        assert_eq!(library.list(None).await.expect("readable"), []);
    }

    #[tokio::test]
    async fn an_unreachable_store_is_reported_and_retried() {
        let data = disk(&[("a", 10)]);
        let config = Upload {
            bucket: Some("bucket".into()),
            // Nothing listens on port 9 of loopback.
            endpoint: Some("http://127.0.0.1:9".into()),
            access_key_id: Some("AKIAEXAMPLE".into()),
            secret_access_key: Some(Secret::from("shhh".to_owned())),
            allow_http: true,
            ..Upload::default()
        };
        let library = open(&data, Uploads::new(&config).expect("it can be used").expect("it is named"));
        let mut changes = library.changes();
        let waiting = loop {
            let change =
                tokio::time::timeout(TEST_TIMEOUT, changes.recv()).await.expect("in time").expect("the library lives");
            if let Some(UploadState::Waiting { failures: 1.., error }) = change.upload {
                break error.expect("it says why");
            }
        };
        assert!(waiting.contains("127.0.0.1:9"), "{waiting}");
        assert!(!waiting.contains("shhh") && !waiting.contains("AKIAEXAMPLE") && waiting.len() < 400, "{waiting}");
        assert!(data.path().join("recordings/a.mp4").exists());
        library.delete(&"a.mp4".parse().expect("a name")).await.expect("it can be removed meanwhile");
        library.close().await;
    }

    #[test]
    fn without_a_bucket_nothing_is_uploaded() {
        assert!(Uploads::new(&Upload::default()).expect("nothing is wrong").is_none());
    }
}
