//! Downloads one file from the hub into its cache, and retries as long as each attempt makes progress.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use hf_hub::api::Progress as Listener;
use hf_hub::api::sync::{Api, ApiError};
use hf_hub::{Cache, Repo};

use crate::base::{Interrupt, Interrupted};

/// How often an interrupt is checked, and how long to wait after a broken connection.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer: there is no network, or the hub does not respond.
    Unreachable(String),
    /// An answer with an error status.
    Status(u16),
    /// Any other failure.
    Other(String),
}

impl Failure {
    pub(super) fn of_request(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Self::Status(*status),
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => Self::Unreachable(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }

    fn of_api(error: &ApiError) -> Self {
        match error {
            ApiError::RequestError(error) => Self::of_request(error),
            ApiError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Unreachable(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Where a file is downloaded from.
pub(super) struct Transfer<'a> {
    pub(super) api: &'a Api,
    pub(super) cache: &'a Cache,
    pub(super) repository: &'a Repo,
}

impl Transfer<'_> {
    /// Downloads the file `name` to `place`; `told` is called with the number of bytes received so far.
    pub(super) fn file(
        &self,
        name: &str,
        place: &Path,
        size: Option<u64>,
        told: &dyn Fn(u64),
        interrupt: &Interrupt,
    ) -> Result<Result<(), Failure>, Interrupted> {
        loop {
            let (error, received) = match self.attempt(name, told, interrupt)? {
                (Ok(()), _) => return Ok(check_size(place, size)),
                (Err(error), received) => (error, received),
            };
            match &error {
                // The partial file was complete when it was interrupted, or is longer than the file: start again.
                ApiError::InvalidResume => {}
                ApiError::RequestError(error) if matches!(**error, ureq::Error::StatusCode(416)) => {}
                _ if received > 0 => {
                    thread::sleep(PAUSE);
                    continue;
                }
                _ => return Ok(Err(Failure::of_api(&error))),
            }
            if !self.forget_part(name) {
                return Ok(Err(Failure::of_api(&error)));
            }
        }
    }

    /// Downloads on a separate thread, so that an interrupt need not wait for the end of a file: a download can resume
    /// at any byte. Also returns the number of bytes received.
    fn attempt(
        &self,
        name: &str,
        told: &dyn Fn(u64),
        interrupt: &Interrupt,
    ) -> Result<(Result<(), ApiError>, u64), Interrupted> {
        let (sender, receiver) = mpsc::channel();
        let (api, name) = (self.api.repo(self.repository.clone()), name.to_owned());
        let worker =
            thread::spawn(move || api.download_with_progress(&name, Meter { done: 0, sender }).map(drop));
        let mut first = None;
        let mut last = 0;
        loop {
            interrupt.check()?;
            match receiver.recv_timeout(PAUSE) {
                Ok(done) => {
                    (first, last) = (first.or(Some(done)), done);
                    told(done);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ended = worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the hub's answer cannot be understood").into()));
        Ok((ended, last.saturating_sub(first.unwrap_or(0))))
    }

    /// Removes the partial download of a file; returns whether there was one.
    fn forget_part(&self, name: &str) -> bool {
        let metadata = self.api.metadata(&self.api.repo(self.repository.clone()).url(name));
        metadata.is_ok_and(|metadata| {
            let blob = self.cache.repo(self.repository.clone()).blob_path(metadata.etag());
            fs::remove_file(blob.with_extension("part")).is_ok()
        })
    }
}

/// Whether the download has the length that the hub reports; if not, it is removed.
fn check_size(place: &Path, size: Option<u64>) -> Result<(), Failure> {
    let other = |error: io::Error| Failure::Other(error.to_string());
    let found = fs::metadata(place).map_err(other)?.len();
    if size.is_none_or(|size| size == found) {
        return Ok(());
    }
    let blob = fs::canonicalize(place).map_err(other)?;
    fs::remove_file(place).and_then(|()| fs::remove_file(blob)).map_err(other)?;
    Err(Failure::Other(format!("received {found} bytes, expected {}", size.unwrap_or(0))))
}

/// Receives the progress of one file; the crate first reports how many bytes exist already.
struct Meter {
    done: u64,
    sender: Sender<u64>,
}

impl Listener for Meter {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        // After an interrupt the receiver is gone.
        self.sender.send(self.done).ok();
    }

    fn finish(&mut self) {}
}
