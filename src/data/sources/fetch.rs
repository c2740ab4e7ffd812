//! Reads the bytes of samples, each once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::base::units;
use crate::data::sample::{Archive, Place};
use crate::data::table::{Column, Table};

/// The largest file of a sample. Larger ones are no pictures, and would not fit into memory.
const MOST_BYTES: u64 = 1 << 30;

/// Reads samples in the order of the list. Rows of tables are read one after another, everything else when it is needed.
#[derive(Default)]
pub struct Fetcher {
    open: Option<(Arc<Table>, Column)>,
}

/// The bytes of a sample, or where they are. An error is the reason to skip the sample.
pub enum Fetched<'a> {
    /// They are here.
    Bytes(Result<Vec<u8>, String>),
    /// They can be read by any thread at any time.
    Later(&'a Place),
}

impl Fetcher {
    /// Reads a row, and leaves everything else for later.
    pub fn fetch<'a>(&mut self, place: &'a Place) -> Fetched<'a> {
        let Place::Row { table, row } = place else { return Fetched::Later(place) };
        Fetched::Bytes(self.row(table, *row))
    }

    fn row(&mut self, table: &Arc<Table>, row: usize) -> Result<Vec<u8>, String> {
        let is_ahead =
            |(open, column): &(Arc<Table>, Column)| Arc::ptr_eq(open, table) && column.reaches(row);
        if !self.open.as_ref().is_some_and(is_ahead) {
            self.open = Some((Arc::clone(table), table.column(row)?));
        }
        let (_, column) = self.open.as_mut().expect("it was opened above");
        column.read(row)
    }
}

impl Fetched<'_> {
    /// The bytes.
    pub fn read(self) -> Result<Vec<u8>, String> {
        let shown = |error: std::io::Error| error.to_string();
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Later(Place::File(path)) => {
                check_size(std::fs::metadata(path).map_err(shown)?.len())?;
                std::fs::read(path).map_err(shown)
            }
            Self::Later(Place::Part { archive, start, bytes }) => {
                check_size(*bytes)?;
                let opened;
                let file = match archive {
                    Archive::Unpacked(file) => file,
                    Archive::Path(path) => {
                        opened = File::open(&**path).map_err(shown)?;
                        &opened
                    }
                };
                let mut read = vec![0; usize::try_from(*bytes).map_err(|error| error.to_string())?];
                file.read_exact_at(&mut read, *start).map_err(shown)?;
                Ok(read)
            }
            Self::Later(Place::Drawn | Place::Row { .. }) => panic!("BUG: a sample without bytes"),
        }
    }
}

fn check_size(bytes: u64) -> Result<(), String> {
    match bytes <= MOST_BYTES {
        true => Ok(()),
        false => Err(format!("it is larger than {}", units::bytes(MOST_BYTES))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_read() -> Result<(), std::io::Error> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.png");
        File::create(&path)?.set_len(1 << 40)?;
        let whole = Fetched::Later(&Place::File(path.clone())).read();
        assert!(whole.is_err_and(|reason| reason.starts_with("it is larger than ")));
        let archive = Archive::Path(Arc::new(path));
        let part =
            |start, bytes| Fetched::Later(&Place::Part { archive: archive.clone(), start, bytes }).read();
        assert!(part(0, 1 << 40).is_err_and(|reason| reason.starts_with("it is larger than ")));
        assert_eq!(part(7, 2), Ok(vec![0; 2]));
        Ok(())
    }
}
