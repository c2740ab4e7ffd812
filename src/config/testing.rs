//! Three small stages, to test the grammar, the graph and the keys without models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::grammar::Vocabulary;
use super::{ConfigError, Override, Pipeline, PipelineFile};
use crate::base::{ArtefactKind, Manifest, StageId};
use crate::stage::{BadValue, Context, FileInput, Input, Stage, StageError, StageInfo};

/// A file of the small stages.
pub(crate) fn file(text: &str, overrides: &[&str]) -> Result<PipelineFile, ConfigError> {
    let overrides = overrides.iter().map(|text| Override::set(text)).collect::<Result<Vec<_>, _>>()?;
    PipelineFile::parse_with::<Small>(Path::new("folder/test.yaml"), text, &overrides)
}

/// The pipeline of such a file.
pub(crate) fn parse(text: &str) -> Result<Pipeline, ConfigError> {
    parse_with(text, &[])
}

pub(crate) fn parse_with(text: &str, overrides: &[&str]) -> Result<Pipeline, ConfigError> {
    file(text, overrides)?.pipeline()
}

struct Small;

impl Vocabulary for Small {
    fn names() -> Vec<String> {
        [&LOAD, &SELECT, &EVALUATE].map(|info| info.name.to_owned()).to_vec()
    }

    fn deserialize<'de, D: Deserializer<'de>>(name: &str, block: D) -> Result<Box<dyn Stage>, D::Error> {
        Ok(match name {
            "load" => Box::new(Load::deserialize(block)?),
            "select" => Box::new(Select::deserialize(block)?),
            _ => Box::new(Evaluate::deserialize(block)?),
        })
    }
}

macro_rules! info {
    ($name:literal, $output:ident, seeded: $seeded:literal, computes: $computes:literal) => {
        StageInfo {
            name: $name,
            version: 1,
            summary: "a small stage",
            output: ArtefactKind::$output,
            seeded: $seeded,
            computes: $computes,
            schema: |_| schemars::json_schema!({}),
        }
    };
}

static LOAD: StageInfo = info!("load", Model, seeded: false, computes: false);
static SELECT: StageInfo = info!("select", Selection, seeded: true, computes: false);
static EVALUATE: StageInfo = info!("evaluate", Metrics, seeded: false, computes: true);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Load {
    model: PathBuf,
    #[serde(default)]
    dtype: Dtype,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Dtype {
    #[default]
    F32,
    Bf16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Select {
    model: StageId,
    #[serde(default = "half")]
    ratio: f64,
    after: Option<StageId>,
}

fn half() -> f64 {
    0.5
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Evaluate {
    models: BTreeMap<String, StageId>,
}

impl Stage for Load {
    fn info(&self) -> &'static StageInfo {
        &LOAD
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("dtype", format_args!("{:?}", self.dtype));
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        Vec::new()
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        vec![FileInput::path("model", &self.model)]
    }

    fn run(&self, _: &Context<'_>) -> Result<(), StageError> {
        Ok(())
    }
}

impl Stage for Select {
    fn info(&self) -> &'static StageInfo {
        &SELECT
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.float("ratio", self.ratio);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let model = Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] };
        let after = |stage| Input { name: "after".to_owned(), stage, kinds: &[ArtefactKind::Selection] };
        std::iter::once(model).chain(self.after.as_ref().map(after)).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        if self.ratio > 0.0 && self.ratio < 1.0 {
            return Ok(());
        }
        let message = format!("`ratio` is {}; it must lie above 0 and below 1", self.ratio);
        Err(BadValue::new("ratio", message))
    }

    fn run(&self, _: &Context<'_>) -> Result<(), StageError> {
        Ok(())
    }
}

impl Stage for Evaluate {
    fn info(&self) -> &'static StageInfo {
        &EVALUATE
    }

    fn describe(&self, _: &mut Manifest) {}

    fn inputs(&self) -> Vec<Input<'_>> {
        let input =
            |(name, stage)| Input { name: format!("models.{name}"), stage, kinds: &[ArtefactKind::Model] };
        self.models.iter().map(input).collect()
    }

    fn run(&self, _: &Context<'_>) -> Result<(), StageError> {
        Ok(())
    }
}
