//! The files that several stages read, and which part of each enters the key: of a prompt file the prompts that are
//! used, of a folder of pictures its samples, of a scorer the files that are opened.

use std::path::Path;

use super::{Excerpt, FileInput, StageError};
use crate::data::{pictures, prompts};
use crate::model::ModelDirectory;

/// A file of prompts, of which the first `used(n)` of n are read.
pub(super) fn prompts_file<'a>(
    name: &'static str,
    path: &'a Path,
    used: impl Fn(usize) -> usize + 'a,
) -> FileInput<'a> {
    FileInput::part(name, path, move |path| {
        let mut prompts = prompts::read(path)?;
        prompts.truncate(used(prompts.len()));
        // As JSON text, in which no two lists look alike.
        Ok(Excerpt::text(serde_json::Value::from(prompts).to_string()))
    })
}

/// A folder of pictures with captions.
pub(super) fn pictures_folder<'a>(name: &'static str, path: &'a Path) -> FileInput<'a> {
    FileInput::part(name, path, |folder| {
        let (mut names, mut texts) = (Vec::new(), Vec::new());
        for sample in pictures::list(folder)? {
            let name = sample.path.file_name().and_then(|name| name.to_str());
            let not_text = || StageError::file(&sample.path)(std::io::Error::other("its name is not UTF-8"));
            let name = name.ok_or_else(not_text)?;
            let caption = Path::new(name).with_extension("txt").display().to_string();
            texts.push((caption, sample.caption));
            names.push(name.to_owned());
        }
        Ok(Excerpt { files: Some(names), texts })
    })
}

/// The folder of a scorer.
pub(super) fn scorer_folder<'a>(name: &'static str, path: &'a Path) -> FileInput<'a> {
    FileInput::part(name, path, |folder| Ok(Excerpt::files(ModelDirectory::open(folder)?.scorer_files()?)))
}
