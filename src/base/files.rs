//! Atomic writes, by a temporary file and a rename; and the error that names a file.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use miette::Diagnostic;

use super::python_json;

/// The name of a temporary file that [`remove_stale`] knows.
pub(super) fn temporary_name(id: &str) -> String {
    format!("{WRITING}{id}")
}

/// What the names of temporary files and links begin with.
const WRITING: &str = ".writing-";
const LINKING: &str = ".linking-";

/// No write takes so long; a suspended process may.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

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

/// How a Git-LFS pointer begins: a small text that stands for a file which was not downloaded.
pub const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Like [`write_atomic`], for bytes that are produced while writing.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = beside(path)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Like [`write_atomic`] without the sync, which can take longer than a whole cached run. The file survives a crash
/// of this process, but not one of the machine. For files that say themselves whether they are whole, and can be lost.
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
    let beside = link.with_file_name(format!("{LINKING}{name}-{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    std::os::unix::fs::symlink(target, &beside)?;
    fs::rename(&beside, link).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Removes a folder with its contents; an absent folder is not an error.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether `name` is that of a file in the same folder. A list of files that came from elsewhere may name no other places.
pub fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    // A backslash separates folders on other systems; no legitimate name contains one.
    plain && !name.contains(['/', '\\', '\0'])
}

/// Whether the error says that the disk is full or the user's quota is used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Removes files that a killed process was about to rename: those of [`write_atomic`], [`replace`] and [`replace_link`] that
/// are older than a day. Errors are ignored: what stays only costs space.
pub fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = |prefix: &&str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        let age = |metadata: Metadata| metadata.modified().ok()?.elapsed().ok();
        if [WRITING, LINKING].iter().any(is_ours) && entry.metadata().ok().and_then(age) > Some(A_DAY) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes `value` as indented JSON, with a newline at the end.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Reads JSON, or what Python writes as such; the error names the file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let named = named(path);
    let text = fs::read(path).map_err(&named)?;
    refuse_pointer_in(&text).map_err(&named)?;
    python_json::from_slice(&text).map_err(|error| named(error.into()))
}

/// For `map_err`: an error of the same kind, whose text names the file.
fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Fails if the file is a Git-LFS pointer.
pub fn refuse_pointer(path: &Path) -> io::Result<()> {
    let mut start = Vec::new();
    let read = File::open(path)?.take(LFS_POINTER.len() as u64).read_to_end(&mut start);
    read.and_then(|_| refuse_pointer_in(&start)).map_err(named(path))
}

fn refuse_pointer_in(text: &[u8]) -> io::Result<()> {
    if !text.starts_with(LFS_POINTER) {
        return Ok(());
    }
    let text = "it is a Git-LFS pointer, not the file itself: run `git lfs pull` in its repository";
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Reads JSON of one version of its layout, which `format_of` finds in it.
pub fn read_json_of<T: serde::de::DeserializeOwned>(
    path: &Path,
    format: u32,
    format_of: impl Fn(&T) -> u32,
) -> io::Result<T> {
    let value = read_json(path)?;
    of_format(value, format, format_of).map_err(named(path))
}

/// The value, if its layout has this version.
pub(super) fn of_format<T>(value: T, format: u32, format_of: impl Fn(&T) -> u32) -> io::Result<T> {
    match format_of(&value) {
        found if found == format => Ok(value),
        found => {
            let text = format!("format {found}; this program reads {format}");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(WRITING);
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
    fn only_old_temporary_files_are_removed() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let names = [".writing-old", ".linking-old", ".writing-new", "old"];
        for name in names {
            let file = File::create(folder.path().join(name))?;
            if name.ends_with("old") {
                file.set_modified(std::time::SystemTime::now() - 2 * A_DAY)?;
            }
        }
        remove_stale(folder.path());
        assert_eq!(names.map(|name| folder.path().join(name).exists()), [false, false, true, true]);
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
