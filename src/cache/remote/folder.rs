//! A remote that is a folder, such as one of a network file system. It needs nothing but the file system. No program can end
//! a call that a file system does not answer, so of the remotes, only this one may stall a run for longer than it says.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Once;

use super::contract::{Remote, Source, Trouble};
use crate::base::{Interrupt, files};

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// The folder, which somebody has made: one on a disk that is not mounted must not be filled.
struct Folder {
    root: PathBuf,
    /// What killed processes left is removed once.
    tidied: Once,
}

/// Which end of a copy failed.
enum End {
    Read(io::Error),
    Write(io::Error),
    Stopped(Trouble),
}

pub(super) fn open(path: &str, _endpoint: Option<&str>) -> Result<Box<dyn Remote>, Trouble> {
    Ok(Box::new(Folder { root: path.into(), tidied: Once::new() }))
}

impl Folder {
    fn check_there(&self) -> Result<(), Trouble> {
        match self.root.is_dir() {
            true => Ok(()),
            false => Err(Trouble::Lasting("is not there: make the folder, or mount its disk".to_owned())),
        }
    }

    /// `None` if there is nothing.
    fn found<T>(&self, found: io::Result<T>) -> Result<Option<T>, Trouble> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => self.check_there().map(|()| None),
            Err(error) => Err(read_trouble(&error)),
        }
    }
}

impl Remote for Folder {
    fn get(&self, name: &str, into: &mut dyn Write, stop: &Interrupt) -> Result<(), Trouble> {
        let mut file = self.found(File::open(self.root.join(name)))?.ok_or(Trouble::Absent)?;
        pour(&mut file, into, stop).map_err(|end| match end {
            End::Read(error) => read_trouble(&error),
            End::Write(error) => Trouble::Here(error),
            End::Stopped(stopped) => stopped,
        })
    }

    fn put(&self, name: &str, source: Source<'_>, stop: &Interrupt) -> Result<(), Trouble> {
        self.check_there()?;
        let place = self.root.join(name);
        self.tidied.call_once(|| place.parent().into_iter().for_each(files::remove_stale));
        let mut here = None;
        let written = files::write_atomic_with(&place, |file| {
            let poured = match source {
                Source::Bytes(bytes) => pour(&mut &bytes[..], file, stop),
                Source::File(path) => {
                    File::open(path).map_err(End::Read).and_then(|mut from| pour(&mut from, file, stop))
                }
            };
            poured.map_err(|end| match end {
                End::Write(error) => error,
                End::Read(error) => {
                    here = Some(Trouble::Here(error));
                    ErrorKind::Other.into()
                }
                End::Stopped(stopped) => {
                    here = Some(stopped);
                    ErrorKind::Interrupted.into()
                }
            })
        });
        match (here, written) {
            (Some(here), _) => Err(here),
            (None, written) => written.map_err(|error| write_trouble(&error)),
        }
    }

    fn list(&self, folder: &str, _stop: &Interrupt) -> Result<Vec<String>, Trouble> {
        let Some(entries) = self.found(fs::read_dir(self.root.join(folder)))? else { return Ok(Vec::new()) };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> =
            names.collect::<io::Result<_>>().map_err(|error: io::Error| read_trouble(&error))?;
        Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    fn exists(&self, name: &str, _stop: &Interrupt) -> Result<Option<u64>, Trouble> {
        let found = self.found(fs::metadata(self.root.join(name)))?;
        Ok(found.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()))
    }
}

fn pour(from: &mut dyn Read, into: &mut dyn Write, stop: &Interrupt) -> Result<(), End> {
    let mut piece = vec![0; PIECE];
    loop {
        Trouble::check(stop).map_err(End::Stopped)?;
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => into.write_all(&piece[..read]).map_err(End::Write)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(End::Read(error)),
        }
    }
}

/// A network file system may be back in a moment; one without permission is not.
fn read_trouble(error: &io::Error) -> Trouble {
    let text = format!("cannot be read: {error}");
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            Trouble::Lasting(text)
        }
        _ => Trouble::Passing(text),
    }
}

fn write_trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle | ErrorKind::HostUnreachable => {
            Trouble::Passing(format!("cannot be written to: {error}"))
        }
        _ => Trouble::Lasting(format!("cannot be written to: {error}")),
    }
}
