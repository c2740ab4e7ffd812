//! What a pipeline file says, as types.
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
//! References between stages, paths and `sweep:` are resolved by [`crate::plan`].

use std::collections::HashMap;

use super::error::{ConfigError, ConfigErrorKind};
use super::source_text::{Place, SourceText};
use crate::base::{ArtefactKind, BadValue, StageId, shown};
use crate::stage::Stage;

/// The version of the pipeline format that this program reads.
pub const FORMAT: u64 = 1;

/// What a pipeline file says.
pub struct Pipeline {
    /// The run folder's name.
    pub name: String,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The stages in the order of the file.
    pub stages: Vec<StageEntry>,
    /// Conditions on the results, which belong to its evaluations.
    pub gates: Vec<String>,
}

/// One entry of `stages:`.
pub struct StageEntry {
    /// `id:`.
    pub id: StageId,
    /// `use:` and `with:`.
    pub stage: Box<dyn Stage>,
}

impl Pipeline {
    /// Checks everything that can be checked without resolving references; `source` is the text that was read.
    pub(super) fn check(&self, source: &SourceText) -> Result<(), ConfigError> {
        let error = |kind, place: &Place| ConfigError::at(kind, source, place);
        check_name(&self.name, "pipeline's name").map_err(|kind| error(kind, &Place::value(["name"])))?;
        if self.stages.is_empty() {
            return Err(error(ConfigErrorKind::NoStages, &Place::value(["stages"])));
        }
        let mut first = HashMap::new();
        for (index, entry) in self.stages.iter().enumerate() {
            let place = |index: usize| Place::value(["stages", &index.to_string(), "id"]);
            check_name(entry.id.as_str(), "stage's id").map_err(|kind| error(kind, &place(index)))?;
            if let Some(earlier) = first.insert(&entry.id, index) {
                let (id, (first_line, _)) = (entry.id.to_string(), source.position(&place(earlier)));
                return Err(error(ConfigErrorKind::DuplicateId { id, first_line }, &place(index)));
            }
            entry.stage.check().map_err(|bad| {
                let (message, within, help) = (bad.message, format!("stage `{}`", entry.id), bad.help);
                let kind = ConfigErrorKind::BadValue { message, within, help };
                error(kind, &Place::parameter(index, &bad.name))
            })?;
        }
        Ok(())
    }
}

impl Pipeline {
    /// Gives each gate to the evaluation whose id it begins with, or to the only one. All stages were checked before.
    pub(super) fn give_gates(&mut self, source: &SourceText) -> Result<(), ConfigError> {
        let judged = |entry: &&mut StageEntry| entry.stage.info().output == ArtefactKind::Metrics;
        for (index, gate) in std::mem::take(&mut self.gates).into_iter().enumerate() {
            let mut judged: Vec<&mut StageEntry> = self.stages.iter_mut().filter(judged).collect();
            let ids: Vec<String> = judged.iter().map(|entry| entry.id.to_string()).collect();
            let of = |id: &String| gate.strip_prefix(id)?.strip_prefix('.');
            let named = ids.iter().enumerate().find_map(|(place, id)| Some((place, of(id)?)));
            let given = match named.or_else(|| (ids.len() == 1).then_some((0, gate.as_str()))) {
                Some((place, text)) => judged[place].stage.add_gate(text),
                None if ids.is_empty() => {
                    Err(BadValue::new("gates", "no stage of the pipeline evaluates models")
                        .help("add a stage with `use: evaluate`"))
                }
                None => {
                    let message = format!("`{gate}` does not say which evaluation it is about");
                    let written: Vec<String> = ids.iter().map(|id| format!("`{id}.{gate}`")).collect();
                    Err(BadValue::new("gates", message).help(format!("write {}", written.join(" or "))))
                }
            };
            given.map_err(|bad| {
                let (message, within, help) = (bad.message, "the pipeline".to_owned(), bad.help);
                let kind = ConfigErrorKind::BadValue { message, within, help };
                ConfigError::at(kind, source, &Place::value(["gates", &index.to_string()]))
            })?;
        }
        Ok(())
    }
}

/// A name that can be a folder's name on every system, and that a shell needs no quotes for.
fn check_name(name: &str, what: &'static str) -> Result<(), ConfigErrorKind> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.len() <= 64;
    if fits { Ok(()) } else { Err(ConfigErrorKind::Name { found: shown::brief(name).into_owned(), what }) }
}
