//! A pipeline file: its text after `--set` and `--over`, its sweep, and the pipeline of each combination of swept values.
//!
//! Relative paths in a pipeline are relative to the folder of the pipeline file, so that a pipeline means the same in any
//! current folder.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrorKind};
use super::grammar::{self, Vocabulary};
use super::overrides::{self, Override};
use super::pipeline::Pipeline;
use super::source_text::{Place, SourceText};
use super::sweep::Sweep;
use super::text_file::{self, Unread};
use super::{combination, nulls, survey};
use crate::base::FileError;

/// A pipeline file.
pub struct PipelineFile {
    path: PathBuf,
    source: SourceText,
    sweep: Sweep,
    grammar: fn(&SourceText) -> Result<Pipeline, ConfigError>,
}

impl PipelineFile {
    /// Reads a file and applies overrides to it.
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let source = text_file::read(path).map_err(|unread| match unread {
            Unread::Io(error) => ConfigErrorKind::Unreadable(FileError::at(path)(error)).into(),
            Unread::Text(error) => error,
        })?;
        Self::of_source::<grammar::Stages>(path, source, overrides)
    }

    /// Reads the text of a file that lies, or would lie, at `path`.
    pub fn parse(path: &Path, text: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::parse_with::<grammar::Stages>(path, text, overrides)
    }

    pub(super) fn parse_with<V: Vocabulary>(
        path: &Path,
        text: &str,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        Self::of_source::<V>(path, SourceText::new(path.display().to_string(), text), overrides)
    }

    fn of_source<V: Vocabulary>(
        path: &Path,
        mut source: SourceText,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        if source.is_blank() {
            return Err(ConfigErrorKind::Empty { path: path.to_owned() }.into());
        }
        survey::check(&source)?;
        if !overrides.is_empty() {
            source = overrides::apply(&source, overrides)?;
        }
        let sweep = Sweep::read(&source)?;
        Ok(Self { path: path.to_owned(), source, sweep, grammar: read_whole::<V> })
    }

    /// The file of a pipeline that was built by a program: it does not exist, so errors have no place.
    pub fn absent(path: &Path) -> Self {
        let source = SourceText::new(path.display().to_string(), "");
        Self {
            path: path.to_owned(),
            source,
            sweep: Sweep::default(),
            grammar: read_whole::<grammar::Stages>,
        }
    }

    /// The pipeline as the file has it, without its sweep.
    pub fn pipeline(&self) -> Result<Pipeline, ConfigError> {
        self.read_text(&self.source)
    }

    /// The pipeline with one combination of swept values: for each axis, the index of its value.
    pub fn combination(&self, chosen: &[usize]) -> Result<Pipeline, ConfigError> {
        let set = combination::set(&self.source, &self.sweep, chosen)?;
        self.read_text(&set).map_err(|error| match self.pipeline() {
            // An error that does not depend on the sweep is shown at its own place.
            Err(own) if own.to_string() == error.to_string() => own,
            _ => combination::blame(error, &self.source, &set, &self.sweep, chosen),
        })
    }

    fn read_text(&self, source: &SourceText) -> Result<Pipeline, ConfigError> {
        let mut pipeline = (self.grammar)(source)?;
        pipeline.check(source)?;
        pipeline.give_gates(source)?;
        Ok(pipeline)
    }

    /// Its sweep; without axes if the file has no `sweep:`.
    pub fn sweep(&self) -> &Sweep {
        &self.sweep
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that relative paths start from.
    pub fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The text after overrides, which the record of a run keeps.
    pub fn text(&self) -> &str {
        self.source.text()
    }

    /// The error `kind` at `place` of this file.
    pub fn error(&self, kind: ConfigErrorKind, place: &Place) -> ConfigError {
        match self.source.text() {
            "" => kind.into(),
            _ => ConfigError::at(kind, &self.source, place),
        }
    }
}

/// Reads a text with the stages of `V`.
fn read_whole<V: Vocabulary>(source: &SourceText) -> Result<Pipeline, ConfigError> {
    let pipeline = grammar::read::<V>(source)?;
    nulls::refuse::<V>(source)?;
    Ok(pipeline)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{file, parse, parse_with};
    use miette::Diagnostic;

    const GOOD: &str = "\
format: 1
name: small
seed: 42
stages:
  - id: teacher
    use: load
    with: { model: nano, dtype: bf16 }
  - id: plan
    use: select
    with:
      model: teacher
      ratio: 0.3
";

    /// Code, line and column, message and help of the error that `text` gives.
    fn error(text: &str, overrides: &[&str]) -> (String, Option<(usize, usize)>, String) {
        let error = parse_with(text, overrides).err().expect("the pipeline is wrong");
        let code = error.code().map(|code| code.to_string()).unwrap_or_default();
        let help = error.help().map(|help| help.to_string()).unwrap_or_default();
        (code, error.position(), format!("{error}; {help}"))
    }

    /// Replaces `old` in the good pipeline and checks the error's code and place, and words of its text.
    #[track_caller]
    fn expect(old: &str, new: &str, code: &str, place: (usize, usize), words: &[&str]) {
        assert_eq!(GOOD.matches(old).count(), 1, "{old:?} is not one place");
        let (found_code, found_place, text) = error(&GOOD.replace(old, new), &[]);
        assert_eq!((found_code.as_str(), found_place), (code, Some(place)), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }

    #[test]
    fn reads_what_is_right() {
        let pipeline = parse(GOOD).expect("the pipeline is right");
        assert_eq!((pipeline.name.as_str(), pipeline.seed), ("small", 42));
        assert_eq!(pipeline.stages[1].id.as_str(), "plan");
        let file = file(GOOD, &[]).expect("its text too");
        assert_eq!(file.folder(), std::path::Path::new("folder"));
    }

    #[test]
    fn names_the_place_of_every_mistake() {
        expect(
            "seed: 42",
            "sead: 42",
            "pipeline::unknown_key",
            (3, 1),
            &["`sead` in the pipeline", "did you mean `seed`"],
        );
        expect(
            "    use: select",
            "    us: select",
            "pipeline::unknown_key",
            (9, 5),
            &["stage `plan`", "`id`, `use` and `with`"],
        );
        expect(
            "ratio: 0.3",
            "rato: 0.3",
            "pipeline::unknown_key",
            (12, 7),
            &["stage `plan` (use: select)", "did you mean `ratio`"],
        );
        expect(
            "ratio: 0.3",
            "ratio: half",
            "pipeline::wrong_type",
            (12, 14),
            &["`ratio` of stage `plan`", "\"half\"", "a number"],
        );
        expect("ratio: 0.3", "ratio: 1.5", "pipeline::bad_value", (12, 14), &["`ratio` is 1.5"]);
        expect(
            "ratio: 0.3",
            "ratio: 0.3\n      ratio: 0.4",
            "pipeline::duplicate_key",
            (13, 7),
            &["`ratio`", "line 12"],
        );
        expect("seed: 42", "seed: -1", "pipeline::wrong_type", (3, 7), &["a whole number, 0 or above"]);
        expect("dtype: bf16", "dtype: bf15", "pipeline::unknown_value", (7, 33), &["did you mean `bf16`"]);
        expect("      model: teacher\n", "", "pipeline::missing_key", (11, 7), &["needs the key `model`"]);
        expect("use: select", "use: selekt", "pipeline::unknown_stage", (9, 10), &["did you mean `select`"]);
        expect(
            "    use: select\n    with:",
            "    with:",
            "pipeline::with_before_use",
            (9, 5),
            &["`use: ...` first"],
        );
        expect("id: plan", "id: teacher", "pipeline::duplicate_id", (8, 9), &["line 5"]);
        expect("id: plan", "id: a/b", "pipeline::name", (8, 9), &["stage's id"]);
        expect("name: small", "name: ../up", "pipeline::name", (2, 7), &["pipeline's name"]);
        expect("format: 1", "format: 2", "pipeline::format", (1, 9), &["reads format 1"]);
        expect("name: small", "name: [small", "pipeline::syntax", (3, 5), &["not YAML", "brackets"]);
        expect("seed: 42", "\tseed: 42", "pipeline::syntax", (3, 1), &["tabs"]);
    }

    #[test]
    fn overrides_replace_add_and_are_checked() {
        let file = file(GOOD, &["seed=7", "plan.ratio=0.7"]).expect("both are there");
        assert_eq!(file.pipeline().expect("the pipeline is right").seed, 7);
        assert!(file.text().contains("ratio: 0.7"));

        let wrong = |given: &str| error(GOOD, &[given]);
        assert!(wrong("plam.ratio=0.7").2.contains("did you mean `plan`"));
        assert!(wrong("sede=7").2.contains("did you mean `seed`"));
        assert!(wrong("plan.rato=0.7").2.contains("did you mean `ratio`"));
        assert!(wrong("plan.ratio.deep=0.7").2.contains("is not a mapping"));
        assert!(wrong("plan.ratio").2.contains("no `=`"));
        assert_eq!(wrong("plan.ratio=1.5").0, "pipeline::bad_value");
    }
}
