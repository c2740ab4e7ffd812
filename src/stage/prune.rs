//! `prune`: a smaller model directory, by a plan.

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::{Computation, Model};
use super::{Context, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId};
use crate::prune;
use crate::select::Plan;

/// `with:` of `use: prune`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Prune {
    /// The stage with the model to make smaller.
    model: StageId,
    /// The stage with the plan.
    plan: StageId,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "prune",
    // 2: the plan beside the model is of format 2.
    version: 2,
    summary: "applies a plan: a smaller model directory that diffusers loads",
    output: ArtefactKind::Model,
    seeded: false,
    computes: false,
    schema: |generator| Prune::json_schema(generator),
};

impl Stage for Prune {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, _manifest: &mut Manifest) {}

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![
            Input { name: "model".to_owned(), stage: &self.model, kind: ArtefactKind::Model },
            Input { name: "plan".to_owned(), stage: &self.plan, kind: ArtefactKind::Selection },
        ]
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let artefact = context.input("model");
        let folder = &context.input("plan").path;
        let plan = Plan::open(folder).map_err(StageError::file(folder))?;
        prune::apply(&Model::open(artefact)?.directory, &plan, context.output)?;
        Computation::open(&artefact.path)?.save(context.output)
    }
}
