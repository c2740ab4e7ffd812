//! Remotes in buckets: S3 and what speaks it, Google Cloud Storage, Azure Blob Storage, by the crate `object_store`, which
//! reads credentials from the environment and from the files and services that the environment names.
//!
//! This is the only place with an async runtime. It has no threads of its own: whoever waits drives it.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};

use super::contract::{Remote, Source, Trouble};
use super::told::{trouble, unusable};
use crate::base::Interrupt;

/// How long a server may take to begin an answer, or to go on with it.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a part may take to be sent: 5 MiB, which is 0.7 Mbit/s.
const PART_TIME: Duration = Duration::from_secs(60);

/// A larger file is sent in parts of this size, the smallest that S3 takes.
const PART: u64 = 5 << 20;

/// S3 takes 10,000 parts.
const MOST_PARTS: u64 = 9_000;

/// How often a wait looks whether it was asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

/// S3. Credentials: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a role of the machine, and so on.
pub(super) fn s3(place: &str, endpoint: Option<&str>) -> Result<Box<dyn Remote>, Trouble> {
    let (bucket, prefix) = split(place);
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(once());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    for (key, value) in client_options(endpoint.as_deref()) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    open(prefix, || builder.build())
}

/// Google Cloud Storage. Credentials: `GOOGLE_APPLICATION_CREDENTIALS`, those of `gcloud`, a role of the machine.
pub(super) fn google(place: &str, endpoint: Option<&str>) -> Result<Box<dyn Remote>, Trouble> {
    let (bucket, prefix) = split(place);
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(once());
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    for (key, value) in client_options(endpoint.as_deref()) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    open(prefix, || builder.build())
}

/// Azure Blob Storage. Credentials: `AZURE_STORAGE_ACCOUNT_NAME` with `AZURE_STORAGE_ACCOUNT_KEY`, a role of the machine, and so on.
pub(super) fn azure(place: &str, endpoint: Option<&str>) -> Result<Box<dyn Remote>, Trouble> {
    let (container, prefix) = split(place);
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(container).with_retry(once());
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(AzureConfigKey::Endpoint, endpoint);
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    for (key, value) in client_options(endpoint.as_deref()) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    open(prefix, || builder.build())
}

fn split(place: &str) -> (&str, &str) {
    place.split_once('/').unwrap_or((place, ""))
}

/// What is attempted again, and how often, is the same for all kinds of remotes, so the client does not do it.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// The client's own limit counts whole answers, however large and however slow the line; this file limits the silence.
fn client_options(endpoint: Option<&str>) -> Vec<(ClientConfigKey, &'static str)> {
    let mut options =
        vec![(ClientConfigKey::Timeout, "1 day"), (ClientConfigKey::ConnectTimeout, "5 seconds")];
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        options.push((ClientConfigKey::AllowHttp, "true"));
    }
    options
}

fn open<S: ObjectStore>(
    prefix: &str,
    build: impl FnOnce() -> Result<S, Error>,
) -> Result<Box<dyn Remote>, Trouble> {
    // It fails if there is one already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Trouble::Lasting(format!("cannot be asked: {error}")))?;
    let store: Arc<dyn ObjectStore> = Arc::new(build().map_err(|_| unusable())?);
    Ok(Box::new(Bucket { store, prefix: Path::from(prefix), runtime }))
}

impl Bucket {
    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Waits, but no longer than `limit` and not after a request to stop.
    fn wait<T>(
        &self,
        limit: Duration,
        stop: &Interrupt,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        self.runtime.block_on(async {
            let (mut work, until) = (pin!(work), Instant::now() + limit);
            loop {
                if let Ok(done) = timeout(LOOK_EVERY, work.as_mut()).await {
                    return done.map_err(|error| trouble(&error));
                }
                Trouble::check(stop)?;
                if Instant::now() >= until {
                    let text = format!("was silent for {} seconds", limit.as_secs());
                    return Err(Trouble::Passing(text));
                }
            }
        })
    }

    /// Sends a file in parts, which become an object when the last one is there.
    fn put_parts(&self, path: &Path, file: &mut File, bytes: u64, stop: &Interrupt) -> Result<(), Trouble> {
        let mut upload = self.wait(SILENCE, stop, self.store.put_multipart(path))?;
        let size = PART.max(bytes / MOST_PARTS);
        let mut send = || loop {
            let part = read_part(file, size)?;
            if part.is_empty() {
                return self.wait(PART_TIME, stop, upload.complete()).map(drop);
            }
            self.wait(PART_TIME, stop, upload.put_part(part.into()))?;
        };
        let sent = send();
        if sent.is_err() {
            // Parts that stay cost space in the bucket, until its rules remove them.
            let _ = self.wait(Duration::from_secs(2), &Interrupt::default(), upload.abort());
        }
        sent
    }
}

impl Remote for Bucket {
    fn get(&self, name: &str, into: &mut dyn Write, stop: &Interrupt) -> Result<(), Trouble> {
        let path = self.path(name);
        let found = self.wait(SILENCE, stop, self.store.get(&path))?;
        let expected = found.meta.size;
        let (mut stream, mut bytes) = (found.into_stream(), 0);
        while let Some(piece) = self.wait(SILENCE, stop, async { stream.next().await.transpose() })? {
            bytes += piece.len() as u64;
            into.write_all(&piece).map_err(Trouble::Here)?;
        }
        match bytes < expected {
            true => Err(Trouble::Passing("ended its answer too early".to_owned())),
            false => Ok(()),
        }
    }

    fn put(&self, name: &str, source: Source<'_>, stop: &Interrupt) -> Result<(), Trouble> {
        let path = self.path(name);
        let bytes = match source {
            Source::Bytes(bytes) => bytes.to_vec(),
            Source::File(place) => {
                let (mut file, bytes) = opened(place)?;
                if bytes > PART {
                    return self.put_parts(&path, &mut file, bytes, stop);
                }
                read_part(&mut file, PART)?
            }
        };
        self.wait(PART_TIME, stop, self.store.put(&path, PutPayload::from(bytes))).map(drop)
    }

    fn list(&self, folder: &str, stop: &Interrupt) -> Result<Vec<String>, Trouble> {
        let mut stream = self.store.list(Some(&self.path(folder)));
        let mut names = Vec::new();
        while let Some(object) = self.wait(SILENCE, stop, async { stream.next().await.transpose() })? {
            names.extend(object.location.filename().map(str::to_owned));
        }
        Ok(names)
    }

    fn exists(&self, name: &str, stop: &Interrupt) -> Result<Option<u64>, Trouble> {
        let path = self.path(name);
        match self.wait(SILENCE, stop, self.store.head(&path)) {
            Ok(object) => Ok(Some(object.size)),
            Err(Trouble::Absent) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

fn opened(place: &FilePath) -> Result<(File, u64), Trouble> {
    let open = || {
        let file = File::open(place)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    open().map_err(Trouble::Here)
}

/// The next part of a file; the last one may be shorter.
fn read_part(file: &mut File, size: u64) -> Result<Vec<u8>, Trouble> {
    let mut part = Vec::new();
    file.take(size).read_to_end(&mut part).map_err(Trouble::Here)?;
    Ok(part)
}
