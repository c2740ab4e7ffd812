//! A file or folder that gets its name only when it is complete. Until then it is written in a hidden folder beside its
//! final place, which a killed process leaves behind and the next attempt removes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::copies;

/// Removes what was written, unless [`Unfinished::finish`] put it in place. No other process may write the same path at
/// the same time.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    folder: PathBuf,
}

impl Unfinished {
    /// Begins to write `path`.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.with_file_name(format!(".{name}.unfinished"));
        copies::remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// Where to write it until then. What is written beside this place is put beside `path`.
    pub fn place(&self) -> PathBuf {
        self.folder.join(self.path.file_name().unwrap_or_default())
    }

    /// Writes everything to the disk, then puts it in place; `path` itself last.
    pub fn finish(self) -> io::Result<()> {
        copies::sync_tree(&self.folder)?;
        let beside = self.folder.parent().filter(|folder| !folder.as_os_str().is_empty());
        let beside = beside.unwrap_or(Path::new("."));
        let main = self.place();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path() != main {
                fs::rename(entry.path(), beside.join(entry.file_name()))?;
            }
        }
        fs::rename(&main, &self.path)?;
        File::open(beside)?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After an error; else it is empty. If it stays, the next attempt removes it.
        let _ = copies::remove(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_appears_with_all_of_its_contents_or_not_at_all() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("student");
        let write = |unfinished: &Unfinished| -> io::Result<()> {
            fs::create_dir(unfinished.place())?;
            fs::write(unfinished.place().join("config.json"), b"{}")?;
            fs::write(unfinished.place().with_file_name("student.lora-remap.json"), b"{}")
        };
        let names = || -> io::Result<Vec<_>> {
            let mut names: Vec<_> = fs::read_dir(folder.path())?
                .map(|entry| Ok(entry?.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort();
            Ok(names)
        };
        let failed = Unfinished::begin(&path)?;
        write(&failed)?;
        assert_eq!(names()?, [".student.unfinished"]);
        drop(failed);
        assert!(names()?.is_empty());

        // As a killed process leaves it.
        let killed = Unfinished::begin(&path)?;
        fs::write(killed.place(), b"half")?;
        std::mem::forget(killed);
        let whole = Unfinished::begin(&path)?;
        write(&whole)?;
        whole.finish()?;
        assert_eq!(names()?, ["student", "student.lora-remap.json"]);
        assert_eq!(fs::read(path.join("config.json"))?, b"{}");
        Ok(())
    }
}
