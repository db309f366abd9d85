//! The client of an S3-compatible object store: multipart upload of one file, and its verification.
//!
//! Owns: requests, their retries within one upload, parts and checksums. Does not know: the queue, sidecar contents.
//! In: a file. Out: [`Uploaded`]. At most one part of a file is in memory.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::config::Upload;
use crate::recordings::FileName;
use crate::recordings::sidecar::Uploaded;

/// Most parts of an object: less than the 10,000 that S3 permits, because a larger file has larger parts.
const PARTS_MAX: u64 = 9_000;
/// Timeout of one request, which may send a part over a slow link.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Retries of a request before the upload fails.
const MAX_RETRIES: usize = 3;
/// Most characters of a store's error that are shown.
const ERROR_MAX: usize = 300;

/// Why an upload failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The store refused a request or cannot be reached.
    #[error("{0}")]
    Store(String),
    /// The local file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// Verification failed: the object differs from the file.
    #[error("the store has {0}, but {1} was sent")]
    Differs(String, String),
    /// The server shuts down.
    #[error("the server is shutting down")]
    Closing,
}

/// A bucket and its client.
pub(super) struct Store {
    client: Arc<dyn ObjectStore>,
    bucket: String,
    /// Beginning of each object's key.
    prefix: String,
    /// Size of a part in bytes; larger for a file that would have more than [`PARTS_MAX`].
    part: u64,
    /// Access key id, removed from errors.
    key_id: Option<String>,
}

impl Store {
    /// The configured bucket; None when none is configured.
    ///
    /// # Errors
    /// The client cannot be built from the configuration.
    pub(super) fn new(config: &Upload) -> Result<Option<Self>, StoreError> {
        let Some(bucket) = config.bucket.clone() else { return Ok(None) };
        // The HTTP client of `object_store` uses the default provider of rustls. Fails if there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: MAX_RETRIES, retry_timeout: REQUEST_TIMEOUT };
        let client = ClientOptions::new()
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_allow_http(config.allow_http);
        let builder = match (&config.access_key_id, &config.secret_access_key) {
            (Some(id), Some(secret)) => {
                AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret.expose())
            }
            _ => AmazonS3Builder::from_env(),
        };
        let mut builder =
            builder.with_bucket_name(&bucket).with_region(&config.region).with_retry(retry).with_client_options(client);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if config.checksum {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        let client = builder.build().map_err(|error| StoreError::Store(error.to_string()))?;
        let part = u64::from(config.part_mib) * 1024 * 1024;
        let key_id = config.access_key_id.clone();
        Ok(Some(Self { client: Arc::new(client), bucket, prefix: config.prefix.clone(), part, key_id }))
    }

    /// A store in memory.
    #[cfg(test)]
    pub(super) fn in_memory(client: Arc<dyn ObjectStore>, part: u64) -> Self {
        Self { client, bucket: "bucket".into(), prefix: "calls/".into(), part, key_id: None }
    }

    fn key(&self, name: &FileName) -> Path {
        let key = format!("{}{name}", self.prefix);
        // `Path::from` percent-encodes letters outside ASCII, which a key may have, so it is only for keys that
        // `Path::parse` rejects.
        Path::parse(&key).unwrap_or_else(|_| Path::from(key))
    }

    /// Uploads a file of the size `bytes`, then verifies size and entity tag of the object. Calls `progress` with the
    /// bytes sent so far after each part, if there are several.
    ///
    /// # Errors
    /// The upload or its verification failed. An incomplete multipart upload is aborted, if the store can be reached.
    pub(super) async fn put_file(
        &self,
        name: &FileName,
        file: File,
        bytes: u64,
        progress: impl Fn(u64),
        closing: &CancellationToken,
    ) -> Result<Uploaded, StoreError> {
        let key = self.key(name);
        let part = self.part.max(bytes.div_ceil(PARTS_MAX));
        let mut source = Source { file, left: bytes, digest: Sha256::new() };
        let etag = if bytes <= part {
            let (whole, read) = source.read(part).await?;
            source = whole;
            self.put(&key, name, read.into()).await?
        } else {
            let options = PutMultipartOptions { attributes: attributes(name), ..PutMultipartOptions::default() };
            let mut upload =
                self.client.put_multipart_opts(&key, options).await.map_err(|error| self.store_error(&error))?;
            match self.put_parts(upload.as_mut(), source, part, progress, closing).await {
                Ok((whole, etag)) => {
                    source = whole;
                    etag
                }
                Err(error) => {
                    if let Err(error) = upload.abort().await {
                        tracing::debug!(file = %name, %error, "incomplete multipart upload could not be aborted");
                    }
                    return Err(error);
                }
            }
        };
        let arrived = self.client.head(&key).await.map_err(|error| self.store_error(&error))?;
        if arrived.size != bytes {
            return Err(StoreError::Differs(format!("{} bytes", arrived.size), format!("{bytes} bytes")));
        }
        if let (Some(sent), Some(there)) = (&etag, &arrived.e_tag)
            && sent != there
        {
            return Err(StoreError::Differs(format!("the entity tag {there}"), sent.clone()));
        }
        let sha256 = source.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Uploaded { location: format!("s3://{}/{key}", self.bucket), etag: arrived.e_tag, sha256, bytes })
    }

    /// Uploads the parts of a file until it is complete; returns the source, with the hash of all bytes, and the entity
    /// tag.
    async fn put_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        mut source: Source,
        part: u64,
        progress: impl Fn(u64),
        closing: &CancellationToken,
    ) -> Result<(Source, Option<String>), StoreError> {
        let mut sent = 0;
        loop {
            let (next, read) = source.read(part).await?;
            source = next;
            if read.is_empty() {
                break;
            }
            let length = read.len() as u64;
            tokio::select! {
                put = upload.put_part(read.into()) => put.map_err(|error| self.store_error(&error))?,
                () = closing.cancelled() => return Err(StoreError::Closing),
            }
            sent += length;
            progress(sent);
        }
        let put = upload.complete().await.map_err(|error| self.store_error(&error))?;
        Ok((source, put.e_tag))
    }

    /// Uploads a text under this name.
    ///
    /// # Errors
    /// The store refused it or cannot be reached.
    pub(super) async fn put_text(&self, name: &FileName, text: String) -> Result<(), StoreError> {
        self.put(&self.key(name), name, text.into()).await.map(drop)
    }

    /// Uploads an object in one request; returns its entity tag.
    async fn put(&self, key: &Path, name: &FileName, payload: PutPayload) -> Result<Option<String>, StoreError> {
        let options = PutOptions { attributes: attributes(name), ..PutOptions::default() };
        let put = self.client.put_opts(key, payload, options).await;
        put.map(|put| put.e_tag).map_err(|error| self.store_error(&error))
    }

    /// The error as one short line. It has no access key id, because moderators see it.
    fn store_error(&self, error: &object_store::Error) -> StoreError {
        tracing::debug!(%error, "object store request failed");
        let mut text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(key_id) = &self.key_id {
            text = text.replace(key_id, "…");
        }
        if let Some((at, _)) = text.char_indices().nth(ERROR_MAX) {
            text.truncate(at);
            text.push('…');
        }
        StoreError::Store(text)
    }
}

fn attributes(name: &FileName) -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, name.content().media_type())])
}

/// A file that is hashed while it is read.
struct Source {
    file: File,
    /// Bytes that are expected and not yet read.
    left: u64,
    digest: Sha256,
}

impl Source {
    /// Reads the next `most` bytes, fewer only at the end of the file, and adds them to the hash. Takes and returns the
    /// source, because it is read on a blocking thread.
    async fn read(mut self, most: u64) -> Result<(Self, Vec<u8>), StoreError> {
        let read = tokio::task::spawn_blocking(move || {
            // Allocated at full size: growing a buffer takes twice the memory.
            let mut part = Vec::with_capacity(most.min(self.left) as usize);
            (&self.file).take(most).read_to_end(&mut part)?;
            self.left = self.left.saturating_sub(part.len() as u64);
            self.digest.update(&part);
            Ok((self, part))
        });
        read.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(StoreError::File)
    }
}
