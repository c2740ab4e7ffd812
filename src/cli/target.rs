//! Where a command may write: at a new name, or over an ordinary file or folder. Devices, pipes and sockets are left alone,
//! and a symbolic link is not followed to a place that the user did not name.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::error::CliError;
use crate::base::FileError;

/// Fails unless a file can be written at `path`: a new one, or in place of a regular file.
pub(super) fn file(path: &Path) -> Result<(), CliError> {
    target(path, "a file", FileType::is_file)
}

/// Fails unless `path` is a folder, or a new name.
pub(super) fn folder(path: &Path) -> Result<(), CliError> {
    target(path, "a folder", FileType::is_dir)
}

/// Fails unless nothing is at `path`, not even a link that leads nowhere.
pub(super) fn new(path: &Path) -> Result<(), CliError> {
    match kind(path)? {
        None => Ok(()),
        Some(_) => Err(CliError::Exists { path: path.to_owned() }),
    }
}

fn target(path: &Path, needed: &'static str, fits: fn(&FileType) -> bool) -> Result<(), CliError> {
    match kind(path)? {
        Some(found) if !fits(&found) => {
            Err(CliError::Target { path: path.to_owned(), found: named(&found, path), needed })
        }
        _ => Ok(()),
    }
}

/// What is at `path` itself; `None` if nothing is.
fn kind(path: &Path) -> Result<Option<FileType>, CliError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at(path)(error).into()),
    }
}

fn named(found: &FileType, path: &Path) -> String {
    if found.is_symlink() {
        let to = fs::read_link(path).unwrap_or_default();
        return format!("a symbolic link to {}", to.display());
    }
    let names = [
        (found.is_dir(), "a folder"),
        (found.is_block_device() || found.is_char_device(), "a device"),
        (found.is_fifo(), "a pipe"),
        (found.is_socket(), "a socket"),
    ];
    names.into_iter().find(|(is, _)| *is).map_or("a file", |(_, name)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(result: Result<(), CliError>) -> String {
        result.expect_err("it is refused").to_string()
    }

    #[test]
    fn only_new_names_and_ordinary_files_and_folders_are_written() -> io::Result<()> {
        let sandbox = tempfile::tempdir()?;
        let at = |name: &str| sandbox.path().join(name);
        fs::write(at("page.html"), b"old")?;
        fs::create_dir(at("folder"))?;
        symlink(at("page.html"), at("link"))?;
        symlink(at("absent"), at("dangling"))?;
        let _socket = std::os::unix::net::UnixListener::bind(at("socket"))?;

        assert!(file(&at("page.html")).is_ok() && file(&at("new")).is_ok());
        assert!(folder(&at("folder")).is_ok() && folder(&at("new")).is_ok() && new(&at("new")).is_ok());
        assert!(refused(file(&at("folder"))).contains("is a folder"));
        assert!(refused(folder(&at("page.html"))).contains("is a file"));
        assert!(refused(file(Path::new("/dev/null"))).contains("is a device"));
        assert!(refused(file(&at("socket"))).contains("is a socket"));
        for check in [file, folder] {
            assert!(refused(check(&at("link"))).contains("is a symbolic link to"));
            assert!(refused(check(&at("dangling"))).contains("is a symbolic link to"));
        }
        for taken in ["page.html", "folder", "link", "dangling"] {
            assert!(refused(new(&at(taken))).contains("exists already"));
        }
        Ok(())
    }
}
