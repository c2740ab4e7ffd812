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

use super::error::{ConfigError, ConfigErrorKind};
use super::overrides::{self, Override};
use super::source_text::{Place, SourceText};
use super::sweep::{Axis, Branch, Sweep};
use super::{document, yaml};
use crate::base::StageId;
use crate::model::files::hub;
use crate::stage::{ResolvedFile, Stage};

/// The version of the pipeline format that this program reads.
pub const FORMAT: u64 = 1;

/// What a pipeline file says.
pub struct Pipeline {
    /// The run folder's name.
    pub name: String,
    /// The root of all random numbers.
    pub seed: u64,
    /// The stages in the order of the file; those of a sweep combination by combination.
    pub stages: Vec<StageEntry>,
    /// What is swept.
    pub axes: Vec<Axis>,
    /// The file; its folder is where relative paths count from.
    pub path: PathBuf,
    source: SourceText,
}

/// One entry of `stages:`; in a sweep, that entry for one choice of what reaches it.
pub struct StageEntry {
    /// What runs call it: `id:`, and in a sweep the values behind it, `selection@ratio=0.3`.
    pub id: StageId,
    /// `use:` and `with:`.
    pub stage: Box<dyn Stage>,
    /// `id:`. With the seed it names the stage's random streams, so that a value gives the same bytes in a sweep as alone.
    pub origin: StageId,
    /// The root of its random numbers.
    pub seed: u64,
    /// The swept values that reach it.
    pub branch: Branch,
    /// Which entry of `stages:` it is, from 0.
    pub position: usize,
}

impl Pipeline {
    /// Reads a file and applies `--set` to it.
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigErrorKind::Unreadable { path: path.to_owned(), error })?;
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
        let mut source = SourceText::new(path.display().to_string(), text);
        refuse_duplicate_keys(&source)?;
        if !overrides.is_empty() {
            source = overrides::apply(&source, overrides)?;
        }
        let read = |source: SourceText| {
            let document = document::read::<V>(&source)?;
            let pipeline = Self { source, ..Self::new(document.name, document.seed, document.stages, path) };
            pipeline.check()?;
            Ok(pipeline)
        };
        match Sweep::read(&source)? {
            Some(sweep) => sweep.expand(&source, read),
            None => read(source),
        }
    }

    /// A pipeline made by a program; its errors have no place in a file.
    pub fn new(
        name: impl Into<String>,
        seed: u64,
        stages: Vec<(StageId, Box<dyn Stage>)>,
        path: impl Into<PathBuf>,
    ) -> Self {
        let path = path.into();
        let source = SourceText::new(path.display().to_string(), "");
        let entry = |(position, (id, stage)): (usize, (StageId, Box<dyn Stage>))| StageEntry {
            origin: id.clone(),
            id,
            stage,
            seed,
            branch: Branch::new(),
            position,
        };
        let stages = stages.into_iter().enumerate().map(entry).collect();
        Self { name: name.into(), seed, stages, axes: Vec::new(), path, source }
    }

    /// The same with the stages of all combinations, and the text that says which these are.
    pub(super) fn with_sweep(self, stages: Vec<StageEntry>, axes: Vec<Axis>, source: SourceText) -> Self {
        Self { stages, axes, source, ..self }
    }

    /// The text that was read, after `--set`: what a record of a run keeps.
    pub fn text(&self) -> &str {
        self.source.text()
    }

    /// Where relative paths count from.
    pub fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// `kind` at `place` of this file.
    pub fn error(&self, kind: ConfigErrorKind, place: &Place) -> ConfigError {
        if self.source.text().is_empty() { kind.into() } else { ConfigError::at(kind, &self.source, place) }
    }

    /// Where the value of a stage's parameter stands: in the stage, or in `sweep:`.
    pub fn place(&self, stage: usize, parameter: &str) -> Place {
        let entry = &self.stages[stage];
        let whole = format!("{}.{parameter}", entry.origin);
        let swept = self.axes.iter().find_map(|axis| {
            let value = entry.branch.get(&axis.name)?;
            let index = axis.values.iter().position(|other| other == value)?.to_string();
            // The axis may hold what is asked for: `result.models` of `result.models.pruned`.
            let within = whole
                .strip_prefix(&axis.parameter)
                .filter(|rest| rest.is_empty() || rest.starts_with('.'))?;
            let steps = within.split('.').filter(|step| !step.is_empty());
            Some(Place::value(["sweep", &axis.parameter, &index].into_iter().chain(steps)))
        });
        swept.unwrap_or_else(|| Place::parameter(entry.position, parameter))
    }

    /// What a stage reads, by the names of [`Stage::files`]: files, each of which must be there, or repositories of
    /// the hub, for whose revision the hub may be asked.
    pub fn files(&self, stage: usize) -> Result<BTreeMap<String, ResolvedFile>, ConfigError> {
        let entry = &self.stages[stage];
        let mut files = BTreeMap::new();
        for file in entry.stage.files() {
            let path = self.folder().join(file.path);
            let id = file.path.to_str().filter(|path| hub::is_id(path));
            let source = match file.revision.zip(id) {
                _ if path.exists() => Ok(ResolvedFile::Path(path)),
                Some((revision, id)) => hub::pin(id, revision)
                    .map(ResolvedFile::Repository)
                    .map_err(|error| ConfigErrorKind::Hub(Box::new(error))),
                None => {
                    let folder = fs::canonicalize(self.folder()).unwrap_or_else(|_| self.folder().to_owned());
                    let (stage, parameter) = (entry.id.to_string(), file.name.to_owned());
                    Err(ConfigErrorKind::MissingFile { stage, parameter, path: file.path.to_owned(), folder })
                }
            };
            let place = || self.place(stage, file.name);
            files.insert(file.name.to_owned(), source.map_err(|kind| self.error(kind, &place()))?);
        }
        Ok(files)
    }

    /// Everything that can be said without knowing what the references lead to.
    fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name, "pipeline's name")
            .map_err(|kind| self.error(kind, &Place::value(["name"])))?;
        if self.stages.is_empty() {
            return Err(self.error(ConfigErrorKind::NoStages, &Place::value(["stages"])));
        }
        let mut first = HashMap::new();
        for (index, entry) in self.stages.iter().enumerate() {
            let place = Place::value(["stages", &index.to_string(), "id"]);
            check_name(entry.id.as_str(), "stage's id").map_err(|kind| self.error(kind, &place))?;
            if let Some(earlier) = first.insert(&entry.id, index) {
                let earlier = Place::value(["stages", &earlier.to_string(), "id"]);
                let (first_line, _) = self.source.line_column(self.source.span(&earlier).offset());
                return Err(
                    self.error(ConfigErrorKind::DuplicateId { id: entry.id.to_string(), first_line }, &place)
                );
            }
            entry.stage.check().map_err(|bad| {
                let (message, within, help) = (bad.message, format!("stage `{}`", entry.id), bad.help);
                self.error(
                    ConfigErrorKind::BadValue { message, within, help },
                    &Place::parameter(index, &bad.name),
                )
            })?;
        }
        Ok(())
    }
}

/// A name that becomes a folder's name on every system, and that a shell needs no quotes for.
fn check_name(name: &str, what: &'static str) -> Result<(), ConfigErrorKind> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.len() <= 64;
    if fits { Ok(()) } else { Err(ConfigErrorKind::Name { found: name.to_owned(), what }) }
}

pub(super) fn refuse_duplicate_keys(source: &SourceText) -> Result<(), ConfigError> {
    let text = source.text();
    let Some(path) =
        yaml::duplicate_key(text).map_err(|error| ConfigError::of_yaml(&error, source, "the file"))?
    else {
        return Ok(());
    };
    let key = path.last().cloned().unwrap_or_default();
    let (first_line, _) = yaml::locate(text, &path, true).unwrap_or((1, 1));
    let (line, column) = yaml::locate_duplicate(text).unwrap_or((1, 1));
    Err(ConfigError::spanned(
        ConfigErrorKind::DuplicateKey { key, first_line },
        source,
        source.span_at(line, column),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
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
        assert_eq!(pipeline.folder(), std::path::Path::new("folder"));
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
        let pipeline = parse_with(GOOD, &["seed=7", "plan.ratio=0.7"]).expect("both are there");
        assert_eq!(pipeline.seed, 7);
        assert!(pipeline.text().contains("ratio: 0.7"));

        let wrong = |given: &str| error(GOOD, &[given]);
        assert!(wrong("plam.ratio=0.7").2.contains("did you mean `plan`"));
        assert!(wrong("sede=7").2.contains("did you mean `seed`"));
        assert!(wrong("plan.rato=0.7").2.contains("did you mean `ratio`"));
        assert!(wrong("plan.ratio.deep=0.7").2.contains("nothing inside"));
        assert!(wrong("plan.ratio").2.contains("no `=`"));
        assert_eq!(wrong("plan.ratio=1.5").0, "pipeline::bad_value");
    }
}
