//! Atomic writes, by a temporary file and a rename; and the error that names a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use miette::Diagnostic;

/// A file or folder that cannot be read or written.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{}", self.text())]
#[diagnostic(code(file::access), help("{}", self.advice()))]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// The system's error, or what is wrong with the contents.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names the file.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }

    /// `prompts.txt: No such file or directory`; the path once, even if the cause names it too.
    fn text(&self) -> String {
        let (path, cause) = (self.path.display().to_string(), self.source.to_string());
        if cause.starts_with(&path) { cause } else { format!("{path}: {cause}") }
    }

    fn advice(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the permissions of the file and of its folder",
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                "the file is damaged or not of this kind"
            }
            _ if is_full(&self.source) => "free space on the disk, or write to another one",
            _ => "the file must be readable, and its folder writable",
        }
    }
}

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Like [`write_atomic`], for bytes that are produced while writing.
fn write_atomic_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = beside(path)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Like [`write_atomic`] without the sync, which can take longer than a whole cached run. The file survives a crash
/// of this process, but not one of the machine. For files that can be made again.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Makes `link` a symbolic link to `target`; atomically, if it was a link before.
pub fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|now| now == target) {
        return Ok(());
    }
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let beside = link.with_file_name(format!(".linking-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    std::os::unix::fs::symlink(target, &beside)?;
    fs::rename(&beside, link).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Hard-links `from`, or copies it if the file system cannot. The hub's folders consist of symbolic links to its
/// blobs, so the blob is linked.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    let file = fs::canonicalize(from)?;
    fs::hard_link(&file, to).or_else(|_| fs::copy(&file, to).map(drop))
}

/// Links every file below `from` to the same place below `to`. Hidden files belong to other tools and are left out.
pub fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        let (source, target) = (from.join(&name), to.join(&name));
        match source.is_dir() {
            _ if name.as_encoded_bytes().starts_with(b".") => {}
            true => link_tree(&source, &target)?,
            false => link(&source, &target)?,
        }
    }
    Ok(())
}

/// Removes a folder with its contents; an absent folder is not an error.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the error says that the disk is full or the user's quota is used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Writes `value` as indented JSON, with a newline at the end.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Reads JSON; the error names the file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let text = fs::read(path).map_err(named)?;
    serde_json::from_slice(&text).map_err(|error| named(error.into()))
}

/// Reads JSON of one version of its layout, which `format_of` finds in it.
pub fn read_json_of<T: serde::de::DeserializeOwned>(
    path: &Path,
    format: u32,
    format_of: impl Fn(&T) -> u32,
) -> io::Result<T> {
    let value: T = read_json(path)?;
    match format_of(&value) {
        found if found == format => Ok(value),
        found => {
            let text = format!("{}: format {found}; this program reads {format}", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    // The user's umask still applies; by default, only the owner may read a temporary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_file_once() {
        let path = Path::new("absent/scores.json");
        let error = FileError::at(path)(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "absent/scores.json: entity not found");
        let json = read_json::<u32>(path).map_err(FileError::at(path)).expect_err("there is no such file");
        assert_eq!(json.to_string().matches("scores.json").count(), 1, "{json}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("run.json");
        write_atomic(&path, b"old")?;
        let failed = write_atomic_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err_and(|error| is_full(&error)));
        assert_eq!(fs::read(&path)?, b"old");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_linked_tree_has_the_bytes_behind_links_and_no_hidden_files() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (from, to) = (folder.path().join("snapshot"), folder.path().join("model"));
        fs::create_dir_all(from.join("unet/.cache"))?;
        fs::write(from.join("unet/.cache/lock"), b"")?;
        fs::write(from.join(".gitattributes"), b"")?;
        fs::write(folder.path().join("blob"), b"weights")?;
        std::os::unix::fs::symlink("../../blob", from.join("unet/model.safetensors"))?;
        link_tree(&from, &to)?;
        let linked = to.join("unet/model.safetensors");
        assert!(fs::symlink_metadata(&linked)?.is_file());
        assert_eq!(fs::read(&linked)?, b"weights");
        assert_eq!(fs::read_dir(&to)?.chain(fs::read_dir(to.join("unet"))?).count(), 2);
        Ok(())
    }

    #[test]
    fn a_link_is_replaced_but_never_a_folder() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let link = folder.path().join("scores");
        replace_link(Path::new("/a"), &link)?;
        replace_link(Path::new("/b"), &link)?;
        assert_eq!(fs::read_link(&link)?, Path::new("/b"));
        let taken = folder.path().join("taken");
        fs::create_dir(&taken)?;
        assert!(replace_link(Path::new("/a"), &taken).is_err());
        assert_eq!(fs::read_dir(folder.path())?.count(), 2);
        Ok(())
    }
}
