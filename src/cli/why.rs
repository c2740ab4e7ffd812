//! `laptop-diff why`: what a stage depends on, or why it has another key in another run.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output::{note, print, print_json, table};
use super::run_folder::GivenRun;
use crate::base::names::UnknownName;
use crate::base::{Digest, StageId};
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::plan::{Reason, shown_value};
use crate::run::difference::{Cause, Stage};

/// Show what the key of a stage is made of, or why it differs between two runs
#[derive(Args)]
#[command(after_help = "\
With one run, it lists the values whose hash is the key: parameters, digests of inputs and files, versions. With two, it
says first where the difference begins, then which values of the stage itself differ, from the other run to this one.
`laptop-diff plan FILE` says the same of a run that has not been started.

Examples:
  laptop-diff why nano50 retrained
  laptop-diff why nano50 retrained nano30
  laptop-diff why nano-sweep result@ratio=0.5 --other-stage result@ratio=0.3")]
pub(super) struct Why {
    /// The run, by name or folder
    run: PathBuf,
    /// The stage
    stage: String,
    /// Another run, to compare with
    other: Option<PathBuf>,
    /// The stage to compare with, if it has another id [default: the same]
    #[arg(long, value_name = "ID")]
    other_stage: Option<String>,
    /// Folder of run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A value of a key.
#[derive(Serialize)]
struct Value {
    name: String,
    value: String,
    /// The stage whose artefact it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<StageId>,
}

#[derive(Serialize)]
struct Key {
    stage: StageId,
    key: Digest,
    values: Vec<Value>,
}

#[derive(Serialize)]
struct Comparison {
    stage: StageId,
    key: Digest,
    other_key: Digest,
    causes: Vec<Cause>,
    changes: Vec<Reason>,
}

impl Why {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let settings =
            Settings::load(Layer { runs: self.runs.clone(), ..Layer::default() }, &mut |text| note(text))?;
        let run = GivenRun::find(&self.run, &settings.runs)?;
        let (stage, key) = stage(&run, &self.stage)?;
        if self.other.is_none() && self.other_stage.is_none() {
            let key = Key { stage: stage.stage.id.clone(), key, values: values(stage) };
            return if self.json { print_json(&key) } else { print(&shown_key(&key, &run)) };
        }
        let other = GivenRun::find(self.other.as_ref().unwrap_or(&self.run), &settings.runs)?;
        let (old, other_key) = self::stage(&other, self.other_stage.as_ref().unwrap_or(&self.stage))?;
        let comparison = Comparison {
            stage: stage.stage.id.clone(),
            key,
            other_key,
            causes: stage.causes(old),
            changes: stage.changes_since(old),
        };
        if self.json {
            print_json(&comparison)
        } else {
            print(&shown(&comparison, (&run, stage), (&other, old)))
        }
    }
}

/// A stage of a run and its key.
fn stage<'a>(run: &'a GivenRun, id: &str) -> Result<(Stage<'a>, Digest), CliError> {
    let record = &run.record;
    let known = || record.stages.iter().map(|stage| stage.id.to_string()).collect();
    let found = record.stage(id).ok_or_else(|| UnknownName {
        what: "stage",
        found: id.to_owned(),
        known: known(),
    })?;
    match found.key {
        Some(key) => Ok((Stage { record, stage: found }, key)),
        None => Err(CliError::NoKeyYet { stage: found.id.clone(), folder: run.folder.clone() }),
    }
}

fn values(stage: Stage<'_>) -> Vec<Value> {
    let entries = stage.stage.manifest.iter().flat_map(|manifest| manifest.entries());
    let value = |(name, value): (&str, &str)| {
        let from = name.strip_prefix("input ").and_then(|input| stage.input(input));
        Value { name: name.to_owned(), value: value.to_owned(), from: from.map(|from| from.stage.id.clone()) }
    };
    entries.map(value).collect()
}

fn shown_key(key: &Key, run: &GivenRun) -> String {
    let row = |value: &Value| {
        let from = value.from.as_ref().map_or_else(String::new, |id| format!("the artefact of `{id}`"));
        vec![value.name.clone(), shown_value(&value.value), from]
    };
    let rows: Vec<_> = key.values.iter().map(row).collect();
    let (stage, short, count) = (&key.stage, key.key.short(), rows.len());
    let folder = run.folder.display();
    format!("`{stage}` of {folder}: its key {short} is the hash of {count} values\n\n{}", table(&rows, &[]))
}

fn shown(
    comparison: &Comparison,
    (run, new): (&GivenRun, Stage<'_>),
    (other, old): (&GivenRun, Stage<'_>),
) -> String {
    let name = |run: &GivenRun, stage: Stage<'_>| format!("`{}` of {}", stage.stage.id, run.folder.display());
    let (here, there) = (name(run, new), name(other, old));
    let mut text = match comparison.key == comparison.other_key {
        true => format!("{here} and {there} have the same key {}\n", comparison.key.short()),
        false => format!("{here} differs from {there}:\n"),
    };
    for Cause { stage, reason } in &comparison.causes {
        let what = match reason {
            Some(reason) => reason.to_string(),
            None => "the key is the same, but its artefact has other bytes".to_owned(),
        };
        text.push_str(&format!("  {stage}: {what}\n"));
    }
    // The causes alone say everything if they are values of this stage.
    let is_elsewhere = |cause: &Cause| cause.stage != comparison.stage;
    if comparison.causes.iter().any(is_elsewhere) && !comparison.changes.is_empty() {
        let changed: Vec<String> = comparison.changes.iter().map(|change| format!("  {change}\n")).collect();
        text.push_str(&format!("\nits own values that differ:\n{}", changed.concat()));
    }
    text
}
