//! One file from the hub into its cache, as often begun again as each attempt brings it further.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use hf_hub::api::Progress as Listener;
use hf_hub::api::sync::{Api, ApiError};
use hf_hub::{Cache, Repo};

use crate::base::{Interrupt, Interrupted};

/// How soon a wish to stop is noticed, and how long a broken connection rests.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer: there is no network, or no hub behind it.
    Unreachable(String),
    /// An answer, but not what was asked for.
    Status(u16),
    /// Anything else.
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

/// Where a file comes from.
pub(super) struct Transfer<'a> {
    pub(super) api: &'a Api,
    pub(super) cache: &'a Cache,
    pub(super) repository: &'a Repo,
}

impl Transfer<'_> {
    /// Brings the file `name` to `place`; `told` hears how many bytes of it are there.
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
                // A download that was whole when it was cut, or is longer than the file: begun anew.
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

    /// Downloads on a thread of its own, so that a wish to stop need not wait for the end of a file: a download goes
    /// on from any byte. Gives the number of bytes that came, too.
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
        let ended =
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the hub's answer makes no sense").into()));
        Ok((ended, last.saturating_sub(first.unwrap_or(0))))
    }

    /// Removes what was downloaded of a file so far; tells whether there was anything.
    fn forget_part(&self, name: &str) -> bool {
        let metadata = self.api.metadata(&self.api.repo(self.repository.clone()).url(name));
        metadata.is_ok_and(|metadata| {
            let blob = self.cache.repo(self.repository.clone()).blob_path(metadata.etag());
            fs::remove_file(blob.with_extension("part")).is_ok()
        })
    }
}

/// Whether what came is as long as the hub says; what is not is removed.
fn check_size(place: &Path, size: Option<u64>) -> Result<(), Failure> {
    let other = |error: io::Error| Failure::Other(error.to_string());
    let found = fs::metadata(place).map_err(other)?.len();
    if size.is_none_or(|size| size == found) {
        return Ok(());
    }
    let blob = fs::canonicalize(place).map_err(other)?;
    fs::remove_file(place).and_then(|()| fs::remove_file(blob)).map_err(other)?;
    Err(Failure::Other(format!("{found} bytes came where {} were promised", size.unwrap_or(0))))
}

/// Hears of the bytes of one file; the crate says first how many are there already.
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
        // Nobody listens any more after a wish to stop.
        self.sender.send(self.done).ok();
    }

    fn finish(&mut self) {}
}
