//! Uploads: finished recordings go into a store, one after the other.
//!
//! Owns: which file is on its way and how far, what is told of it, and whether it stays here afterwards. Does not know: how a
//! store is talked to ([`store`]), when one that failed is tried again ([`queue`]).
//! What is uploaded says so in its JSON: a server that starts finds the rest. A copy here is removed only after that.

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

/// How far a recording is on its way to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum UploadState {
    /// It has its turn later.
    Waiting {
        /// How often it failed so far.
        failures: u32,
        /// Why it failed last.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// It is being sent.
    Uploading {
        /// How much of it is there.
        sent_bytes: u64,
    },
    /// It is there, and verified.
    Done {
        /// `s3://bucket/key`.
        location: String,
        /// SHA-256 of the file, in hexadecimal digits.
        sha256: String,
    },
}

impl From<Uploaded> for UploadState {
    fn from(Uploaded { location, sha256, .. }: Uploaded) -> Self {
        Self::Done { location, sha256 }
    }
}

/// The configuration names no store that can be used.
#[derive(Debug, thiserror::Error)]
#[error("section [upload] of the configuration: {0}")]
pub struct NoStore(String);

/// The uploads of this server.
pub struct Uploads {
    store: Store,
    keep_local: bool,
    queue: Mutex<Queue>,
    /// What is being sent, and how much of it is there.
    sending: Mutex<Option<(FileName, u64)>>,
    added: Notify,
}

/// What became of one upload.
enum Outcome {
    Done,
    /// The recording was removed meanwhile.
    Gone,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Library(#[from] LibraryError),
}

impl Uploads {
    /// Uploads to the bucket that the configuration names; None when it names none.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn new(config: &Upload) -> Result<Option<Self>, NoStore> {
        let store = Store::new(config).map_err(|error| NoStore(error.to_string()))?;
        Ok(store.map(|store| Self::to(store, config.keep_local)))
    }

    fn to(store: Store, keep_local: bool) -> Self {
        Self { store, keep_local, queue: Mutex::default(), sending: Mutex::default(), added: Notify::new() }
    }

    pub(super) fn add(&self, name: FileName) {
        self.queue.lock().add(name, time::now());
        self.added.notify_one();
    }

    pub(super) fn forget(&self, name: &FileName) {
        self.queue.lock().done(name);
    }

    /// How far a recording is that is not yet uploaded; None when it has nothing to do here.
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
    /// Uploads what there is to upload, until the library closes.
    pub(super) async fn upload_all(self) {
        let Some(uploads) = &self.inner.uploads else { return };
        while !self.inner.closing.is_cancelled() {
            let next = uploads.queue.lock().next(time::now());
            match next {
                Next::Go(name) => self.upload_next(uploads, &name).await,
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
        self.tell(name).await;
        let outcome = self.upload(uploads, name).await;
        *uploads.sending.lock() = None;
        let counters = self.counters();
        match outcome {
            Ok(Outcome::Done) => {
                counters.uploaded.inc();
                tracing::info!(file = %name, "a recording is uploaded");
                uploads.forget(name);
            }
            Ok(Outcome::Gone) => uploads.forget(name),
            Err(Failed::Store(StoreError::Closing)) => {}
            Err(error) => {
                counters.upload_failures.inc();
                tracing::warn!(file = %name, %error, "a recording is not uploaded yet");
                uploads.queue.lock().failed(name, error.to_string(), time::now(), rand::random());
            }
        }
        self.tell(name).await;
    }

    async fn upload(&self, uploads: &Uploads, name: &FileName) -> Result<Outcome, Failed> {
        let Opened { file, here, .. } = match self.open_file(name).await {
            Err(LibraryError::NotFound(_) | LibraryError::Moved(..)) => return Ok(Outcome::Gone),
            opened => opened?,
        };
        let progress = |sent| *uploads.sending.lock() = Some((name.clone(), sent));
        let store = &uploads.store;
        let uploaded = store.put_file(name, file, here.bytes, progress, &self.inner.closing).await?;
        self.counters().uploaded_bytes.inc_by(here.bytes);
        // The copy of the JSON in the store tells of the upload as well, and is there before the one here does.
        let (asked, to) = (name.clone(), uploaded.clone());
        let text =
            self.blocking(move |inner| Ok(inner.folder.preview(&asked, |document| document.uploaded(&to))?)).await?;
        store.put_sidecar(name, text).await?;
        let (asked, keep) = (name.clone(), uploads.keep_local);
        self.blocking(move |inner| {
            inner.folder.edit(&asked, |document| document.uploaded(&uploaded))?;
            if keep { Ok(()) } else { Ok(inner.folder.remove_media(&asked)?) }
        })
        .await?;
        Ok(Outcome::Done)
    }

    /// Lets a recording that has ended go on its way to the store, if there is one.
    pub(super) async fn send_off(&self, name: &FileName) {
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

    const PATIENCE: Duration = Duration::from_secs(20);
    /// Small, so that a small file has many.
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
        Library::open(data.path(), Finish::by(|_, _, _| Err("nothing to mend".into())), Some(uploads))
    }

    /// Waits until a recording is in the store.
    async fn done(changes: &mut broadcast::Receiver<RecordingFile>) -> RecordingFile {
        loop {
            let change =
                tokio::time::timeout(PATIENCE, changes.recv()).await.expect("in time").expect("the library lives");
            if matches!(change.upload, Some(UploadState::Done { .. })) {
                return change;
            }
        }
    }

    async fn object(store: &InMemory, key: &str) -> Vec<u8> {
        store.get(&Path::from(key)).await.expect("it is there").bytes().await.expect("it is whole").to_vec()
    }

    #[tokio::test]
    async fn what_is_finished_is_uploaded_also_from_before() {
        let data = disk(&[("a", 3 * PART as usize + 7), ("b", 10), ("empty", 0)]);
        let store = Arc::new(InMemory::new());
        let library = open(&data, Uploads::to(Store::in_memory(store.clone(), PART), true));
        let mut changes = library.changes();
        for stem in ["a", "b", "empty"] {
            let change = done(&mut changes).await;
            assert_eq!(change.file.as_str(), format!("{stem}.mp4"));
            let here = fs::read(data.path().join("recordings").join(change.file.as_str())).expect("it stays");
            assert_eq!(object(&store, &format!("calls/{stem}.mp4")).await, here);
        }
        let told: serde_json::Value =
            serde_json::from_slice(&object(&store, "calls/a.json").await).expect("the JSON is there too");
        assert_eq!(
            (&told["people"][0], &told["upload"]["location"]),
            (&"Ann".into(), &"s3://bucket/calls/a.mp4".into())
        );
        assert_eq!(told["upload"]["bytes"], 3007);
        // By sha256sum of the same bytes.
        assert_eq!(told["upload"]["sha256"], SHA256);
        record(data.path(), "c", 5 * PART as usize);
        library.finished("c.mp4".parse().expect("a name"));
        assert_eq!(done(&mut changes).await.bytes, 5 * PART);
        assert_eq!((library.counters().uploaded.get(), library.counters().uploaded_bytes.get()), (4, 8017));
        library.close().await;

        store.put(&Path::from("calls/a.mp4"), PutPayload::from_static(b"theirs")).await.expect("it takes it");
        let again = open(&data, Uploads::to(Store::in_memory(store.clone(), PART), true));
        assert!(tokio::time::timeout(Duration::from_millis(300), done(&mut again.changes())).await.is_err());
        assert_eq!(object(&store, "calls/a.mp4").await, b"theirs", "what was uploaded is not uploaded again");
    }

    #[tokio::test]
    async fn the_copy_here_goes_only_after_the_upload() {
        let data = disk(&[("a", 3000)]);
        let store = Arc::new(InMemory::new());
        let library = open(&data, Uploads::to(Store::in_memory(store.clone(), PART), false));
        let change = done(&mut library.changes()).await;
        assert_eq!((change.url, change.bytes), (None, 3000));
        assert!(!data.path().join("recordings/a.mp4").exists());
        assert_eq!(object(&store, "calls/a.mp4").await.len(), 3000);
        let name = "a.mp4".parse().expect("a name");
        let moved = library.open_file(&name).await.expect_err("it is elsewhere").to_string();
        assert!(moved.contains("s3://bucket/calls/a.mp4"), "{moved}");
        assert_eq!(library.list(None).await.expect("readable").len(), 1, "it is still told of");
        library.delete(&name).await.expect("it can be forgotten");
        assert_eq!(library.list(None).await.expect("readable"), []);
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_told_and_tried_again() {
        let data = disk(&[("a", 10)]);
        let config = Upload {
            bucket: Some("bucket".into()),
            // Nobody listens at port 9 of loopback.
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
                tokio::time::timeout(PATIENCE, changes.recv()).await.expect("in time").expect("the library lives");
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
