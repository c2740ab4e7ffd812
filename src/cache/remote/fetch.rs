//! Fetches an artefact. Each file is hashed while it arrives, and none is kept whose digest is not that of the entry.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::contract::{Remote, Trouble};
use super::patience::patiently;
use super::record::{Record, blob_name, entry_name};
use super::several::each;
use crate::base::{Digest, Interrupt};
use crate::cache::TreeFile;

/// The largest record that is read. One of an artefact with 100,000 files has 20 MB.
const MOST_RECORD_BYTES: u64 = 256 << 20;

/// Why an artefact was not fetched.
#[derive(Debug)]
pub(in crate::cache) enum Unfetched {
    /// The remote does not have it.
    Absent,
    /// What the remote has is not what its key or its digests say. The text names what.
    Refused(String),
    /// The remote could not be asked.
    Trouble(Trouble),
}

impl From<Trouble> for Unfetched {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Absent => Self::Absent,
            other => Self::Trouble(other),
        }
    }
}

/// The record of a key.
pub(in crate::cache) fn fetch_record(
    remote: &dyn Remote,
    key: &Digest,
    stop: &Interrupt,
) -> Result<Record, Unfetched> {
    let name = entry_name(key);
    let bytes = patiently(stop, || {
        let mut checked = Checked::new(Vec::new(), MOST_RECORD_BYTES);
        remote.get(&name, &mut checked, stop).map(|()| checked.into)
    })?;
    Record::read(&bytes, key).map_err(|reason| Unfetched::Refused(format!("its entry {reason}")))
}

/// Writes the files of a record into an empty folder.
pub(in crate::cache) fn fetch_files(
    remote: &dyn Remote,
    record: &Record,
    folder: &Path,
    stop: &Interrupt,
) -> Result<(), Unfetched> {
    let files: Vec<&TreeFile> = record.files().collect();
    each(&files, |file| fetch_file(remote, file, &folder.join(&file.path), stop))
}

fn fetch_file(remote: &dyn Remote, file: &TreeFile, place: &Path, stop: &Interrupt) -> Result<(), Unfetched> {
    let name = blob_name(&file.digest);
    let refused = |what: &str| Unfetched::Refused(format!("its file {} {what}", file.path));
    let here = |error| Unfetched::Trouble(Trouble::Here(error));
    place.parent().map_or(Ok(()), fs::create_dir_all).map_err(here)?;
    let fetched = patiently(stop, || {
        let target = File::create(place).map_err(Trouble::Here)?;
        let mut checked = Checked::new(target, file.bytes);
        match remote.get(&name, &mut checked, stop) {
            // The bytes so far are enough to refuse it.
            Err(Trouble::Here(_)) if checked.is_over => Ok(None),
            got => got.map(|()| Some(checked)),
        }
    });
    match fetched {
        Ok(Some(checked)) if checked.bytes < file.bytes => Err(refused("is cut short")),
        Ok(Some(checked)) if checked.digest() != file.digest => Err(refused("is damaged")),
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(refused("is damaged")),
        Err(Trouble::Absent) => Err(refused("is missing")),
        Err(trouble) => Err(trouble.into()),
    }
}

/// Hashes what is written, and takes no more than it should have.
struct Checked<W> {
    into: W,
    hasher: blake3::Hasher,
    bytes: u64,
    most: u64,
    is_over: bool,
}

impl<W> Checked<W> {
    fn new(into: W, most: u64) -> Self {
        Self { into, hasher: blake3::Hasher::new(), bytes: 0, most, is_over: false }
    }

    fn digest(&self) -> Digest {
        self.hasher.finalize().into()
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.saturating_add(bytes.len() as u64) > self.most {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.into.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
