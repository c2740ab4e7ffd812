//! Event files for TensorBoard: one for each attempt at a training, all in the folder of its stage.
//!
//! A resumed training writes a new file that begins with the start of a session at its first step, and TensorBoard drops
//! what earlier files say of that step and later ones: no step is shown twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{What, event};
use super::{Drawn, Watcher};
use crate::base::Progress;

/// The folder below the run folder that holds the files, in a folder for each stage.
pub const FOLDER: &str = "tensorboard";

/// Writes event files.
pub struct TensorBoard<'a> {
    folder: PathBuf,
    progress: &'a dyn Progress,
    log: Mutex<Log>,
}

/// The file of this attempt.
enum Log {
    Closed,
    Open(File),
    /// It could not be written, which was noted.
    Failed,
}

impl<'a> TensorBoard<'a> {
    /// Writes into this folder, which need not exist.
    pub fn new(folder: &Path, progress: &'a dyn Progress) -> Self {
        Self { folder: folder.to_owned(), progress, log: Mutex::new(Log::Closed) }
    }

    fn open(&self) -> io::Result<Log> {
        fs::create_dir_all(&self.folder)?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim().replace(['/', '.'], "-");
        // TensorBoard reads the files of a folder in the order of their names.
        let name = |number: u64| {
            format!("events.out.tfevents.{:010}.{host}.{}.{number}", now() as u64, std::process::id())
        };
        let mut number = 0;
        let mut file = loop {
            match File::create_new(self.folder.join(name(number))) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                file => break file?,
            }
        };
        file.write_all(&event(now(), 0, &What::FileVersion))?;
        Ok(Log::Open(file))
    }

    /// Every event is written at once: a checkpoint of later steps must not outlive it.
    fn write(&self, step: u64, what: &What<'_>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let written: io::Result<()> = (|| {
            if let Log::Closed = *log {
                *log = self.open()?;
            }
            match &mut *log {
                Log::Open(file) => file.write_all(&event(now(), step, what)),
                Log::Closed | Log::Failed => Ok(()),
            }
        })();
        if let Err(error) = written {
            *log = Log::Failed;
            let folder = self.folder.display();
            self.progress
                .note(&format!("{folder}: {error}; the training goes on without files for TensorBoard"));
        }
    }
}

impl Watcher for TensorBoard<'_> {
    fn begin(&self, step: u64) {
        self.write(step, &What::Start);
    }

    fn numbers(&self, step: u64, numbers: &[(String, f64)]) {
        self.write(step, &What::Numbers(numbers));
    }

    fn picture(&self, &Drawn { step, name, png, size, .. }: &Drawn<'_>) {
        self.write(step, &What::Picture(name, png, size));
    }

    fn end(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Log::Closed;
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
