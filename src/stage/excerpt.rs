//! What a stage reads of a file or folder: the part of its contents that enters the key. A README beside a model or a
//! prompt that is not drawn changes nothing.

use std::path::Path;

use super::StageError;
use crate::backend::Random;

/// The part of a file or folder that a stage reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The names of the files that it reads inside a folder, with `/`; `None` for everything that is not hidden.
    pub files: Option<Vec<String>>,
    /// What it reads of other files, after parsing, however it is written there; by their names in a folder, or the
    /// empty name for the file itself.
    pub texts: Vec<(String, String)>,
}

/// Reads a path to find out which part of it a stage reads. A draw by the seed takes the stage's random streams.
pub type Reader<'a> = Box<dyn Fn(&Path, &Random) -> Result<Excerpt, StageError> + 'a>;

impl Excerpt {
    /// A whole file, or every file of a folder that is not hidden.
    pub fn everything() -> Self {
        Self::default()
    }

    /// These files of a folder.
    pub fn files(names: Vec<String>) -> Self {
        Self { files: Some(names), texts: Vec::new() }
    }

    /// Only what was parsed of a single file.
    pub fn text(text: String) -> Self {
        Self { files: Some(Vec::new()), texts: vec![(String::new(), text)] }
    }
}
