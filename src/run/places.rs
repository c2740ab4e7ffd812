//! Names files of artefacts as the user knows them. Stages read their inputs from the cache, where a folder is named by a
//! digest; the same files are in the run folder under the name of the stage that made them.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::base::{Artefact, StageId};
use crate::cache::Place;
use crate::stage::StageError;

/// The folders of artefacts, and their names in the run folder.
#[derive(Default)]
pub(super) struct Places(Vec<(String, String)>);

impl Places {
    /// The artefacts of some stages; `run` is the run folder as the user gave it.
    pub(super) fn new<'a>(run: &Path, stages: impl IntoIterator<Item = (&'a StageId, &'a Artefact)>) -> Self {
        let named = |(id, artefact): (&StageId, &Artefact)| {
            (artefact.path.display().to_string(), run.join(id.as_str()).display().to_string())
        };
        Self(stages.into_iter().map(named).collect())
    }

    /// The text with the names of the run folder.
    pub(super) fn rename(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// The error with the names of the run folder in its texts and in those of its causes.
    pub(super) fn rename_error(&self, error: StageError) -> StageError {
        match Told::of_diagnostic(&error, self) {
            (_, false) => error,
            (told, true) => StageError::Work(Box::new(told)),
        }
    }
}

/// A file of the artefact of stage `id`, as the user knows it; any other path stays.
pub fn in_run_folder(path: &Path, run: &Path, id: &StageId) -> PathBuf {
    match Place::of(path) {
        Some(place) if place.inside.as_os_str().is_empty() => run.join(id.as_str()),
        Some(place) => run.join(id.as_str()).join(place.inside),
        None => path.to_owned(),
    }
}

/// The texts of an error, with other names.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    text: String,
    code: Option<String>,
    help: Option<String>,
    cause: Option<Box<Told>>,
    /// Whether it is shown with its code and help.
    is_diagnostic: bool,
}

impl Told {
    /// The renamed error, and whether renaming changed anything.
    pub(super) fn of_diagnostic(error: &dyn Diagnostic, places: &Places) -> (Self, bool) {
        let cause = match (error.diagnostic_source(), error.source()) {
            (Some(cause), _) => Some(Self::of_diagnostic(cause, places)),
            (None, cause) => cause.map(|cause| Self::of_error(cause, places)),
        };
        let (mut told, mut changed) = Self::plain(error.to_string(), cause, places);
        told.is_diagnostic = true;
        told.code = error.code().map(|code| code.to_string());
        let help = error.help().map(|help| help.to_string());
        told.help = help.as_deref().map(|help| places.rename(help));
        changed |= told.help != help;
        (told, changed)
    }

    fn of_error(error: &(dyn Error + 'static), places: &Places) -> (Self, bool) {
        let cause = error.source().map(|cause| Self::of_error(cause, places));
        Self::plain(error.to_string(), cause, places)
    }

    fn plain(text: String, cause: Option<(Self, bool)>, places: &Places) -> (Self, bool) {
        let renamed = places.rename(&text);
        let (cause, changed) =
            cause.map_or((None, false), |(cause, changed)| (Some(Box::new(cause)), changed));
        let changed = changed || renamed != text;
        (Self { text: renamed, code: None, help: None, cause, is_diagnostic: false }, changed)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause.as_deref()?)
    }
}

impl Diagnostic for Told {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.as_ref()?))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.help.as_ref()?))
    }

    fn diagnostic_source(&self) -> Option<&dyn Diagnostic> {
        Some(self.cause.as_deref().filter(|cause| cause.is_diagnostic)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::base::{ArtefactKind, Digest};

    #[test]
    fn an_error_names_the_stage_that_made_the_file() {
        let digest = Digest::of(b"student");
        let path = Path::new("/c/v1/artefacts").join(digest.to_string());
        let artefact = Artefact { kind: ArtefactKind::Model, path: path.clone(), digest };
        let places = Places::new(Path::new("runs/nano50"), [(&"student".into(), &artefact)]);
        let error =
            |path: &Path| StageError::file(&path.join("unet/config.json"))(io::ErrorKind::NotFound.into());
        let renamed = places.rename_error(error(&path));
        assert_eq!(renamed.to_string(), "runs/nano50/student/unet/config.json: entity not found");
        assert_eq!(renamed.help().map(|help| help.to_string()).as_deref(), Some("check the path"));
        assert_eq!(renamed.code().map(|code| code.to_string()).as_deref(), Some("file::access"));
        let other = places.rename_error(error(Path::new("prompts")));
        assert!(matches!(other, StageError::File(_)), "nothing is to be renamed: {other}");

        let inside =
            in_run_folder(&path.join("vae/config.json"), Path::new("runs/nano50"), &"student".into());
        assert_eq!(inside, Path::new("runs/nano50/student/vae/config.json"));
    }
}
