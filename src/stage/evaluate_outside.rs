//! `outside:` of an evaluation: judges that run elsewhere, by name, each with the file of its scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::prompt_source::PromptSource;
use super::{BadValue, Context, FileInput, StageError};
use crate::metric::{self, MetricError, Outside, ScoresByModel};

/// The files of scores by judge.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Judges(BTreeMap<String, PathBuf>);

impl Judges {
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(super) fn check(&self) -> Result<(), BadValue> {
        match self.names().find(|name| metric::find(name).is_ok()) {
            None => Ok(()),
            Some(name) => {
                let message = format!("`{name}` is a metric of this program");
                Err(BadValue::new("outside", message).help("give the scores from outside another name"))
            }
        }
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = FileInput<'_>> {
        self.0.iter().map(|(name, path)| FileInput::path(parameter(name), path))
    }

    /// Reads all scores. `path` gives the file of a parameter.
    pub(super) fn read(
        &self,
        models: &[&str],
        prompts: usize,
        path: &dyn Fn(&str) -> PathBuf,
    ) -> Result<BTreeMap<String, ScoresByModel>, MetricError> {
        let read = |name: &String| {
            Ok((name.clone(), metric::read_scores(&path(&parameter(name)), models, prompts)?))
        };
        self.names().map(read).collect()
    }

    /// What is written for the judges, and what they said.
    pub(super) fn open(
        &self,
        source: &PromptSource,
        prompts: &[String],
        models: &[&str],
        context: &Context<'_>,
    ) -> Result<Outside, StageError> {
        let (lines, styles) = source.metadata(context.file("prompts"), prompts)?;
        let path = |name: &str| Path::to_owned(context.file(name));
        Ok(Outside { lines, styles, scores: self.read(models, prompts.len(), &path)? })
    }
}

/// The parameter of a file of scores.
fn parameter(name: &str) -> String {
    format!("outside.{name}")
}
