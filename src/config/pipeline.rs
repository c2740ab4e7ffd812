//! A pipeline file, read strictly into types.
//!
//! ```yaml
//! format: 1
//! name: nano50            # the run goes to runs/nano50
//! seed: 42                # 0 if absent
//! stages:
//!   - id: teacher         # how later stages refer to it
//!     use: load           # must stand before `with`, because it says how to read it
//!     with: { model: nano-sd }
//! ```
//!
//! Relative paths in a pipeline count from the folder of the pipeline file, so that a pipeline means
//! the same wherever it is started from. References between stages are resolved by [`crate::plan`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::overrides::{self, Override};
use super::source::{Place, Source};
use super::{document, yaml};
use crate::base::StageId;
use crate::stage::Stage;

/// The version of the pipeline format that this program reads.
pub const FORMAT: u64 = 1;

/// What a pipeline file says.
pub struct Pipeline {
    /// The run folder's name.
    pub name: String,
    /// The root of all random numbers.
    pub seed: u64,
    /// The stages in the order of the file.
    pub stages: Vec<StageEntry>,
    /// The file; its folder is where relative paths count from.
    pub path: PathBuf,
    source: Source,
}

/// One entry of `stages:`.
pub struct StageEntry {
    /// `id:`.
    pub id: StageId,
    /// `use:` and `with:`.
    pub stage: Box<dyn Stage>,
}

impl Pipeline {
    /// Reads a file and applies `--set` to it.
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|error| Problem::Unreadable { path: path.to_owned(), error })?;
        Self::parse(path, &text, overrides)
    }

    /// Reads the text of a file that lies, or would lie, at `path`.
    pub fn parse(path: &Path, text: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::parse_with::<document::Stages>(path, text, overrides)
    }

    pub(super) fn parse_with<V: document::Vocabulary>(
        path: &Path,
        text: &str,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        let mut source = Source::new(path.display().to_string(), text);
        refuse_duplicate_keys(&source)?;
        if !overrides.is_empty() {
            source = overrides::apply(&source, overrides)?;
        }
        let document = document::read::<V>(&source)?;
        let pipeline = Self {
            name: document.name,
            seed: document.seed,
            stages: document.stages,
            path: path.to_owned(),
            source,
        };
        pipeline.check()?;
        match document.sweep {
            Some(sweep) => Err(pipeline.refuse_sweep(&sweep)),
            None => Ok(pipeline),
        }
    }

    /// A pipeline made by a program; its errors have no place in a file.
    pub fn new(
        name: impl Into<String>,
        seed: u64,
        stages: Vec<StageEntry>,
        path: impl Into<PathBuf>,
    ) -> Self {
        let path = path.into();
        let source = Source::new(path.display().to_string(), "");
        Self { name: name.into(), seed, stages, path, source }
    }

    /// The text that was read, after `--set`: what a record of a run keeps.
    pub fn text(&self) -> &str {
        self.source.text()
    }

    /// Where relative paths count from.
    pub fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// `problem` at `place` of this file.
    pub fn error(&self, problem: Problem, place: &Place) -> ConfigError {
        if self.source.text().is_empty() {
            problem.into()
        } else {
            ConfigError::at(problem, &self.source, place)
        }
    }

    /// The files that a stage reads, by the names of [`Stage::files`], each of which must be there.
    pub fn files(&self, stage: usize) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
        let entry = &self.stages[stage];
        let mut files = BTreeMap::new();
        for file in entry.stage.files() {
            let path = self.folder().join(file.path);
            if !path.exists() {
                let folder = fs::canonicalize(self.folder()).unwrap_or_else(|_| self.folder().to_owned());
                let (stage_name, parameter) = (entry.id.to_string(), file.name.to_owned());
                let problem =
                    Problem::MissingFile { stage: stage_name, parameter, path: file.path.to_owned(), folder };
                return Err(self.error(problem, &Place::parameter(stage, file.name)));
            }
            files.insert(file.name.to_owned(), path);
        }
        Ok(files)
    }

    /// Everything that can be said without knowing what the references lead to.
    fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name, "pipeline's name")
            .map_err(|problem| self.error(problem, &Place::value(["name"])))?;
        if self.stages.is_empty() {
            return Err(self.error(Problem::NoStages, &Place::value(["stages"])));
        }
        let mut first = HashMap::new();
        for (index, entry) in self.stages.iter().enumerate() {
            let place = Place::value(["stages", &index.to_string(), "id"]);
            check_name(entry.id.as_str(), "stage's id").map_err(|problem| self.error(problem, &place))?;
            if let Some(earlier) = first.insert(&entry.id, index) {
                let earlier = Place::value(["stages", &earlier.to_string(), "id"]);
                let (first_line, _) = self.source.line_column(self.source.span(&earlier).offset());
                return Err(self.error(Problem::DuplicateId { id: entry.id.to_string(), first_line }, &place));
            }
            entry.stage.check().map_err(|bad| {
                let problem =
                    Problem::BadValue { message: bad.message, within: format!("stage `{}`", entry.id) };
                self.error(problem, &Place::parameter(index, bad.name))
            })?;
        }
        Ok(())
    }

    fn refuse_sweep(&self, sweep: &document::Sweep) -> ConfigError {
        let axis = |(parameter, values): &(String, Vec<serde_yaml::Value>)| {
            let value = serde_yaml::to_string(values.first()?).ok()?;
            Some(format!("{parameter}={}", value.trim_end()))
        };
        let example = sweep.iter().filter_map(axis).collect::<Vec<_>>().join(" --set ");
        self.error(Problem::SweepNotYet { example }, &Place::value(["sweep"]).key())
    }
}

/// A name that becomes a folder's name on every system, and that a shell needs no quotes for.
fn check_name(name: &str, what: &'static str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.len() <= 64;
    if fits { Ok(()) } else { Err(Problem::Name { found: name.to_owned(), what }) }
}

fn refuse_duplicate_keys(source: &Source) -> Result<(), ConfigError> {
    let text = source.text();
    let Some(path) =
        yaml::duplicate_key(text).map_err(|error| ConfigError::of_yaml(&error, source, "the file"))?
    else {
        return Ok(());
    };
    let key = path.last().cloned().unwrap_or_default();
    let (first_line, _) = yaml::locate(text, &path, true).unwrap_or((1, 1));
    let (line, column) = yaml::locate_duplicate(text).unwrap_or((1, 1));
    Err(ConfigError::spanned(Problem::DuplicateKey { key, first_line }, source, source.span_at(line, column)))
}
