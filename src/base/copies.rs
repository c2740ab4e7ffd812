//! Files of one folder in another: as copies that share nothing with their source, or as hard links inside the cache.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// How many bytes are copied between two chances to stop: a tenth of a second on a slow disk.
const PIECE: u64 = 16 << 20;

/// How a file gets from one place to another: [`copy`], or [`link`] between folders of the cache.
pub type Transfer = fn(&Path, &Path) -> io::Result<()>;

/// Copies a file into a new one with the permissions of any new file. On file systems such as Btrfs and XFS both share
/// their blocks until one of them is written, so that no bytes are copied.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_in_pieces(from, to, &mut |_| Ok(()))
}

/// Like [`copy`]. `copied` is called with the size of each piece, and ends the copying with an error.
pub fn copy_in_pieces(
    from: &Path,
    to: &Path,
    copied: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    loop {
        // The standard library uses `copy_file_range`, which shares blocks where the file system can.
        match io::copy(&mut (&mut source).take(PIECE), &mut target)? {
            0 => return Ok(()),
            bytes => copied(bytes)?,
        }
    }
}

/// Hard-links `from`, or copies it if the file system cannot. Both places must be in the cache: elsewhere, whoever
/// changes one file would change the other.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    let file = fs::canonicalize(from)?;
    fs::hard_link(&file, to).or_else(|_| copy(&file, to))
}

/// Transfers every file below `from` to the same place below `to`. Hidden files belong to other tools and are left out.
pub fn transfer_tree(from: &Path, to: &Path, transfer: Transfer) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        let (source, target) = (from.join(&name), to.join(&name));
        match source.is_dir() {
            _ if name.as_encoded_bytes().starts_with(b".") => {}
            true => transfer_tree(&source, &target, transfer)?,
            false => transfer(&source, &target)?,
        }
    }
    Ok(())
}

/// Writes a folder with everything in it, or a file, from the system's memory to the disk.
pub fn sync_tree(place: &Path) -> io::Result<()> {
    if place.is_dir() {
        fs::read_dir(place)?.try_for_each(|entry| sync_tree(&entry?.path()))?;
    }
    File::open(place)?.sync_all()
}

/// Removes whatever stands at `path`: a file, a link, or a folder with its contents. Nothing there is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_has_the_bytes_behind_links_and_no_hidden_files() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let from = folder.path().join("snapshot");
        fs::create_dir_all(from.join("unet/.cache"))?;
        fs::write(from.join("unet/.cache/lock"), b"")?;
        fs::write(from.join(".gitattributes"), b"")?;
        fs::write(folder.path().join("blob"), b"weights")?;
        symlink("../../blob", from.join("unet/model.safetensors"))?;
        let inode = |path: &Path| fs::metadata(path).map(|metadata| metadata.ino());
        for (name, transfer, shared) in [("linked", link as Transfer, true), ("copied", copy, false)] {
            let to = folder.path().join(name);
            transfer_tree(&from, &to, transfer)?;
            let file = to.join("unet/model.safetensors");
            assert!(fs::symlink_metadata(&file)?.is_file());
            assert_eq!(fs::read(&file)?, b"weights");
            assert_eq!(inode(&file)? == inode(&folder.path().join("blob"))?, shared, "{name}");
            assert_eq!(fs::read_dir(&to)?.chain(fs::read_dir(to.join("unet"))?).count(), 2);
        }
        Ok(())
    }

    #[test]
    fn a_copy_has_its_own_permissions_and_can_be_stopped() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let [from, to, half, plain] = ["from", "to", "half", "plain"].map(|name| folder.path().join(name));
        let bytes = vec![7u8; PIECE as usize + 1];
        fs::write(&from, &bytes)?;
        fs::set_permissions(&from, fs::Permissions::from_mode(0o400))?;
        fs::write(&plain, b"")?;
        let mut pieces = Vec::new();
        copy_in_pieces(&from, &to, &mut |bytes| {
            pieces.push(bytes);
            Ok(())
        })?;
        assert_eq!(pieces, [PIECE, 1]);
        assert!(fs::read(&to)? == bytes);
        assert_eq!(fs::metadata(&to)?.permissions(), fs::metadata(&plain)?.permissions());
        let stopped = copy_in_pieces(&from, &half, &mut |_| Err(io::ErrorKind::Interrupted.into()));
        assert_eq!(stopped.expect_err("it was stopped").kind(), io::ErrorKind::Interrupted);
        Ok(())
    }

    #[test]
    fn whatever_stands_there_is_removed() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let [file, inside, link] = ["file", "folder/inside", "link"].map(|name| folder.path().join(name));
        fs::write(&file, b"")?;
        fs::create_dir_all(&inside)?;
        symlink("absent", &link)?;
        for path in [&file, &folder.path().join("folder"), &link, &folder.path().join("absent")] {
            remove(path)?;
        }
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
