//! Names of repositories, and a repository at one commit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// `owner/name`.
    pub id: String,
    /// The requested branch, tag or commit.
    pub revision: String,
    /// The commit, as 40 hexadecimal digits.
    pub commit: String,
    /// Why `revision` was resolved from the hub's cache instead of the hub.
    pub offline: Option<String>,
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, revision, commit, offline } = self;
        write!(f, "{id} at {revision}")?;
        if commit != revision {
            write!(f, " is commit {commit}")?;
        }
        match offline {
            Some(reason) => write!(f, ", as the hub's cache last saw it ({reason})"),
            None => Ok(()),
        }
    }
}

/// Whether a text is a valid `owner/name`, without characters that have a meaning in paths or addresses.
pub fn is_id(text: &str) -> bool {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.len() <= 96
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

/// Whether a text is a valid branch, tag or commit: words as in [`is_id`], separated by slashes.
pub fn is_revision(text: &str) -> bool {
    text.split('/').all(|word| is_id(&format!("owner/{word}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_revisions_cannot_leave_their_folder() {
        for id in ["stabilityai/stable-diffusion-xl-base-1.0", "a/b", "segmind/SSD-1B"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["", "a", "./a", "../a", "a/..", "/a/b", "a/b/c", "a b/c", "a/b?x", "~/a", "a/", "a\\b/c"]
        {
            assert!(!is_id(path), "{path}");
        }
        assert!(is_revision("main") && is_revision("refs/pr/3") && is_revision("v1.0"));
        assert!(!is_revision("../main") && !is_revision("/main") && !is_revision("") && !is_revision("a//b"));
    }
}
