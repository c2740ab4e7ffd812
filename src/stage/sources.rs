//! The files that several stages read, and which part of each enters the key: of a prompt file the prompts that are
//! used, of a folder of pictures the samples that are drawn, of a scorer the files that are opened.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::{Excerpt, FileInput, StageError};
use crate::backend::Random;
use crate::base::Progress;
use crate::data::sample::{Found, LeftOut};
use crate::data::sources::{self, Shards};
use crate::data::{DataError, Rules, Sample, SampleList, prompts};
use crate::model::scorers::scorer_files;

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

/// A source of samples that lie in files.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleSource<'a> {
    /// The parameter that names it.
    pub(super) name: &'static str,
    pub(super) path: &'a Path,
    pub(super) kind: SourceKind,
    /// The column of captions in tables and metadata.
    pub(super) column: Option<&'a str>,
    pub(super) rules: Rules,
    /// How many samples are drawn; all of them without a number.
    pub(super) count: Option<usize>,
}

/// How samples lie in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    Pictures,
    CachedLatents,
    Webdataset,
    Parquet,
}

impl<'a> SampleSource<'a> {
    /// What of it enters the key: of a folder the samples that are drawn, of archives and tables each whole file, with the
    /// pictures that tables name.
    pub(super) fn input(self) -> FileInput<'a> {
        if let Some(endings) = self.endings() {
            let shards = Shards::new(self.path, endings);
            return FileInput::part(self.name, shards.place, move |place| {
                let mut names = shards.names(place)?;
                if self.kind == SourceKind::Parquet {
                    names.extend(sources::pictures_beside(&paths(place, &names))?);
                }
                Ok(Excerpt::files(names))
            });
        }
        FileInput::drawn(self.name, self.path, move |folder, random| {
            let list = self.draw(self.in_folder(folder)?, folder, random)?;
            let caption = |sample: &Sample| {
                (format!("{} (caption)", sample.name), list.captions[sample.caption].clone())
            };
            let mut texts: Vec<_> = list.samples.iter().map(caption).collect();
            let left_out = |one: &LeftOut| (format!("{} (skipped)", one.name), one.reason.clone());
            texts.extend(list.left_out.iter().map(left_out));
            Ok(Excerpt { files: Some(list.samples.into_iter().map(|sample| sample.name).collect()), texts })
        })
    }

    /// The samples to encode. `place` is the path of the input, `scratch` a folder for what must be unpacked first.
    pub(super) fn list(
        self,
        place: &Path,
        scratch: &Path,
        random: &Random,
        progress: &dyn Progress,
    ) -> Result<SampleList, StageError> {
        let found = match self.endings() {
            None => self.in_folder(place)?,
            Some(endings) => {
                let files = paths(place, &Shards::new(self.path, endings).names(place)?);
                match self.kind {
                    SourceKind::Parquet => sources::parquet(&files, self.column, random)?,
                    _ => sources::webdataset(&files, self.column, scratch)?,
                }
            }
        };
        let list = self.draw(found, place, random)?;
        list.notes.iter().for_each(|note| progress.note(note));
        let (used, available) = (list.samples.len(), list.available);
        match self.count {
            Some(asked) if asked > available => {
                progress.note(&format!("{available} samples, fewer than the {asked} asked for: all are used"))
            }
            _ if used < available => {
                progress.note(&format!("{used} of {available} samples, chosen by the seed"));
            }
            _ => {}
        }
        Ok(list)
    }

    /// What the names of its files end with; `None` for folders of single samples.
    fn endings(self) -> Option<&'static [&'static str]> {
        match self.kind {
            SourceKind::Pictures | SourceKind::CachedLatents => None,
            SourceKind::Webdataset => Some(sources::WEBDATASET),
            SourceKind::Parquet => Some(sources::PARQUET),
        }
    }

    fn in_folder(self, folder: &Path) -> Result<Found, DataError> {
        match self.kind {
            SourceKind::CachedLatents => sources::cached_latents(folder, self.column),
            _ => sources::folder(folder, self.column),
        }
    }

    fn draw(self, found: Found, place: &Path, random: &Random) -> Result<SampleList, DataError> {
        SampleList::draw(found, place, self.rules, self.count, random)
    }
}

/// Files of a folder, each with its name.
fn paths(folder: &Path, names: &[String]) -> Vec<(String, PathBuf)> {
    names.iter().map(|name| (name.clone(), folder.join(name))).collect()
}

/// A folder of real pictures.
pub(super) fn reference_folder<'a>(name: &'static str, path: &'a Path) -> FileInput<'a> {
    FileInput::part(name, path, |folder| {
        reference_pictures(folder)?;
        Ok(Excerpt::files(sources::pictures(folder)?))
    })
}

/// The real pictures in a folder, which must have some.
pub(super) fn reference_pictures(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let names = sources::pictures(folder)?;
    if names.is_empty() {
        return Err(DataError::NoSamples { path: folder.to_owned(), notes: String::new() }.into());
    }
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// The folder of a scorer.
pub(super) fn scorer_folder<'a>(name: impl Into<Cow<'a, str>>, path: &'a Path) -> FileInput<'a> {
    FileInput::part(name, path, |folder| Ok(Excerpt::files(scorer_files(folder)?)))
}
