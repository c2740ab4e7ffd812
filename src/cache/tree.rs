//! A folder as the list of its files with their digests; its own digest follows from that list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::base::{Digest, Manifest};

/// Which files of a folder a [`Tree`] lists. Hidden files belong to tools (`.git`, `.DS_Store`, download locks), not to the
/// data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    Left,
    Listed,
}

/// The files of a folder in order of their paths, or a single file under the path ``.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree {
    files: Vec<TreeFile>,
}

/// One file of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    /// Path inside the folder, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// A file that differs between two lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Path inside the folder.
    pub path: String,
    /// How it differs.
    pub how: How,
}

/// How a file of a folder differs from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Its bytes.
    Changed,
    /// It was not there.
    New,
    /// It is no longer there.
    Gone,
}

impl Tree {
    /// Lists `root` and takes each file's digest from `digest`.
    pub(super) fn read(
        root: &Path,
        hidden: Hidden,
        digest: &mut dyn FnMut(&str, &Path, &Metadata) -> io::Result<Digest>,
    ) -> io::Result<Self> {
        let mut found = Vec::new();
        list(root, "", hidden, &mut Vec::new(), &mut found)?;
        Self::hash(found, digest)
    }

    /// The files of these names in `root`, each with its digest from `digest`.
    pub(super) fn of(
        root: &Path,
        names: &[String],
        digest: &mut dyn FnMut(&str, &Path, &Metadata) -> io::Result<Digest>,
    ) -> io::Result<Self> {
        let find = |name: &String| {
            let place = root.join(name);
            let metadata = fs::metadata(&place).map_err(|error| named(&place, error))?;
            Ok((name.clone(), place, metadata))
        };
        Self::hash(names.par_iter().map(find).collect::<io::Result<_>>()?, digest)
    }

    /// The same with texts that were read from other files, each under a name.
    pub fn with_texts(mut self, texts: impl IntoIterator<Item = (String, String)>) -> Self {
        self.files.extend(texts.into_iter().map(|(path, text)| TreeFile {
            path,
            bytes: text.len() as u64,
            digest: Digest::of(text.as_bytes()),
        }));
        self.files.sort_by(|one, two| one.path.cmp(&two.path));
        self
    }

    fn hash(
        mut found: Vec<(String, PathBuf, Metadata)>,
        digest: &mut dyn FnMut(&str, &Path, &Metadata) -> io::Result<Digest>,
    ) -> io::Result<Self> {
        found.sort_by(|one, two| one.0.cmp(&two.0));
        let files = found.into_iter().map(|(path, place, metadata)| {
            let digest = digest(&path, &place, &metadata).map_err(|error| named(&place, error))?;
            Ok(TreeFile { path, bytes: metadata.len(), digest })
        });
        Ok(Self { files: files.collect::<io::Result<_>>()? })
    }

    /// The digest of the whole: of a single file, that of its bytes; of a folder, that of its names and
    /// digests. Times, permissions and empty folders do not enter.
    pub fn digest(&self) -> Digest {
        if let [TreeFile { path, digest, .. }] = &self.files[..]
            && path.is_empty()
        {
            return *digest;
        }
        let mut manifest = Manifest::default();
        for file in &self.files {
            manifest.field(&file.path, file.digest);
        }
        manifest.key()
    }

    /// The files in order of their paths.
    pub fn files(&self) -> &[TreeFile] {
        &self.files
    }

    /// The size of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The visible files, and the paths of the hidden ones.
    pub(super) fn split(self) -> (Self, Vec<String>) {
        let is_hidden = |file: &TreeFile| file.path.split('/').any(|step| step.starts_with('.'));
        let (hidden, files) = self.files.into_iter().partition::<Vec<_>, _>(is_hidden);
        (Self { files }, hidden.into_iter().map(|file| file.path).collect())
    }

    /// The files that are other or missing in `self`, or missing in `old`, in the order of their paths.
    pub fn changes_since(&self, old: &Tree) -> Vec<FileChange> {
        let digests = |tree: &Tree| -> BTreeMap<String, Digest> {
            tree.files.iter().map(|file| (file.path.clone(), file.digest)).collect()
        };
        let (before, after) = (digests(old), digests(self));
        let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let change = |path: &String| {
            let how = match (before.get(path), after.get(path)) {
                (Some(before), Some(after)) if before == after => return None,
                (Some(_), Some(_)) => How::Changed,
                (None, _) => How::New,
                (_, None) => How::Gone,
            };
            Some(FileChange { path: path.clone(), how })
        };
        paths.into_iter().filter_map(change).collect()
    }

    /// The first file that is missing, other or new in `found`: its path, what it should be and what it is.
    pub fn first_difference(&self, found: &Tree) -> Option<(String, Option<Digest>, Option<Digest>)> {
        let of = |tree: &Tree, path: &str| tree.files.iter().find(|f| f.path == path).map(|f| f.digest);
        let paths = self.files.iter().chain(&found.files).map(|file| &file.path);
        paths
            .map(|path| (path.clone(), of(self, path), of(found, path)))
            .find(|(_, expected, found)| expected != found)
    }
}

/// Links are followed, because the hub's folders consist of them. What cannot be part of a tree is an error of kind
/// [`io::ErrorKind::InvalidData`].
fn list(
    place: &Path,
    name: &str,
    hidden: Hidden,
    above: &mut Vec<PathBuf>,
    found: &mut Vec<(String, PathBuf, Metadata)>,
) -> io::Result<()> {
    let metadata = fs::metadata(place).map_err(|error| named(place, error))?;
    if metadata.is_file() {
        found.push((name.to_owned(), place.to_owned(), metadata));
        return Ok(());
    }
    if !metadata.is_dir() {
        return Err(named(place, invalid("neither a file nor a folder")));
    }
    let real = fs::canonicalize(place)?;
    if above.contains(&real) {
        return Err(named(place, invalid("a link to a folder that contains it")));
    }
    above.push(real);
    for entry in fs::read_dir(place).map_err(|error| named(place, error))? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(text) = file_name.to_str() else {
            return Err(named(&entry.path(), invalid("its name is not UTF-8")));
        };
        if text.starts_with('.') && hidden == Hidden::Left {
            continue;
        }
        let inner = if name.is_empty() { text.to_owned() } else { format!("{name}/{text}") };
        list(&entry.path(), &inner, hidden, above, found)?;
    }
    above.pop();
    Ok(())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &Path) -> io::Result<Tree> {
        Tree::read(path, Hidden::Left, &mut |_, place, _| Digest::of_file(place))
    }

    #[test]
    fn a_digest_is_of_names_and_bytes_alone() -> io::Result<()> {
        let one = tempfile::tempdir()?;
        let two = tempfile::tempdir()?;
        for folder in [&one, &two] {
            fs::create_dir(folder.path().join("unet"))?;
            fs::write(folder.path().join("unet/config.json"), "{}")?;
            fs::write(folder.path().join("model_index.json"), "[]")?;
        }
        fs::write(two.path().join(".DS_Store"), "tool")?;
        fs::create_dir(two.path().join("empty"))?;
        let expected = tree(one.path())?;
        assert_eq!(expected.digest(), tree(two.path())?.digest());
        assert_eq!(expected.bytes(), 4);

        fs::rename(two.path().join("model_index.json"), two.path().join("index.json"))?;
        let renamed = tree(two.path())?;
        assert_ne!(expected.digest(), renamed.digest());
        let difference = expected.first_difference(&renamed).map(|(path, ..)| path);
        assert_eq!(difference.as_deref(), Some("model_index.json"));
        Ok(())
    }

    #[test]
    fn links_are_followed_and_a_circle_is_an_error() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let blob = folder.path().join("blob");
        fs::write(&blob, "weights")?;
        let snapshot = folder.path().join("snapshot");
        fs::create_dir(&snapshot)?;
        std::os::unix::fs::symlink("../blob", snapshot.join("model.safetensors"))?;
        assert_eq!(tree(&snapshot)?.files()[0].digest, Digest::of(b"weights"));
        assert_eq!(tree(&blob)?.digest(), Digest::of(b"weights"));
        std::os::unix::fs::symlink(".", snapshot.join("again"))?;
        assert!(tree(&snapshot).is_err_and(|error| error.to_string().contains("a link to a folder")));
        Ok(())
    }
}
