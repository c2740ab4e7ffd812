//! Sends an artefact: the files that the remote does not have yet, then the entry. Whoever sends it again goes on where it
//! ended, and an artefact of which only a part was sent is seen by nobody.

use std::collections::BTreeMap;
use std::path::Path;

use super::contract::{Remote, Source, Trouble};
use super::fetch::{Unfetched, fetch_record};
use super::patience::patiently;
use super::record::{Record, blob_name, entry_name};
use super::several::each;
use crate::base::{Digest, Interrupt, sealed};
use crate::cache::TreeFile;

/// What became of an artefact that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Sent {
    /// The remote has it now.
    New {
        /// The size of the files that it did not have.
        bytes: u64,
    },
    /// The remote had an artefact of this key, which stays: the first one wins.
    There,
}

/// Sends the artefact in a folder. With `anew`, everything is sent whatever is there: it was found damaged.
pub(in crate::cache) fn send(
    remote: &dyn Remote,
    record: &Record,
    folder: &Path,
    anew: bool,
    stop: &Interrupt,
) -> Result<Sent, Trouble> {
    let key = record.entry.key;
    if !anew {
        match fetch_record(remote, &key, stop) {
            Ok(there) if missing(remote, &there, stop)?.is_empty() => return Ok(Sent::There),
            Ok(_) | Err(Unfetched::Absent | Unfetched::Refused(_)) => {}
            Err(Unfetched::Trouble(trouble)) => return Err(trouble),
        }
    }
    let wanted = if anew { different(record) } else { missing(remote, record, stop)? };
    each(&wanted, |file| {
        let (name, place) = (blob_name(&file.digest), folder.join(&file.path));
        patiently(stop, || remote.put(&name, Source::File(&place), stop))
    })?;
    let bytes = sealed::to_vec(record).map_err(Trouble::Here)?;
    patiently(stop, || remote.put(&entry_name(&key), Source::Bytes(&bytes), stop))?;
    Ok(Sent::New { bytes: wanted.iter().map(|file| file.bytes).sum() })
}

/// One file of each content.
fn different(record: &Record) -> Vec<&TreeFile> {
    let files: BTreeMap<Digest, &TreeFile> = record.files().map(|file| (file.digest, file)).collect();
    files.into_values().collect()
}

/// The files that the remote does not have, or not in their size.
fn missing<'a>(
    remote: &dyn Remote,
    record: &'a Record,
    stop: &Interrupt,
) -> Result<Vec<&'a TreeFile>, Trouble> {
    let missing = std::sync::Mutex::new(Vec::new());
    each(&different(record), |file| {
        let name = blob_name(&file.digest);
        if patiently(stop, || remote.exists(&name, stop))? != Some(file.bytes) {
            missing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(*file);
        }
        Ok(())
    })?;
    Ok(missing.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
