//! blake3 digests of bytes and of folders, written as lowercase hex.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Unwatched, Watch};

/// Bytes read at a time: a millisecond of hashing.
const PART_BYTES: usize = 1 << 20;

/// A blake3 digest: of a file's bytes, of an artefact's files, or of a manifest (then it is a key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of a file's bytes.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_file_watched(path, &Unwatched)
    }

    /// Digest of a file's bytes. `watch` hears of every part and may stop the work.
    pub fn of_file_watched(path: &Path, watch: &dyn Watch) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut done, total) = (0, file.metadata()?.len());
        let (mut hasher, mut part) = (blake3::Hasher::new(), vec![0; PART_BYTES]);
        loop {
            match file.read(&mut part) {
                Ok(0) => return Ok(Self(*hasher.finalize().as_bytes())),
                Ok(read) => {
                    hasher.update(&part[..read]);
                    done += read as u64;
                    watch.hashed(path, done, total)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The first twelve hex digits, for display.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl FromStr for Digest {
    type Err = blake3::HexError;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        Ok(blake3::Hash::from_hex(hex)?.into())
    }
}

impl TryFrom<String> for Digest {
    type Error = blake3::HexError;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        hex.parse()
    }
}
