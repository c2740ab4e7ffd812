//! `select`: chooses which units go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ArtefactKind, BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::{Manifest, StageId};
use crate::score::Scores;
use crate::select::{Plan, Request, solver};

/// `with:` of `use: select`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Select {
    /// The stage with the scores.
    scores: StageId,
    /// The share of the U-Net's parameters that must go at least; above 0 and below 1.
    ratio: f64,
    /// How units are chosen (`laptop-diff list solvers`). Default `knapsack`: the exact optimum of the summed scores.
    #[serde(default = "default_solver")]
    solver: String,
    /// Whose scores are summed (`laptop-diff list criteria`). Default `output-loss`, the paper's.
    #[serde(default = "default_criterion")]
    criterion: String,
}

fn default_solver() -> String {
    "knapsack".to_owned()
}

fn default_criterion() -> String {
    "output-loss".to_owned()
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "select",
    version: 1,
    summary: "chooses the units that go, given their scores and a share of the parameters",
    output: ArtefactKind::Plan,
    seeded: true,
    computes: false,
    schema: |generator| Select::json_schema(generator),
};

impl Stage for Select {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.float("ratio", self.ratio).field("solver", &self.solver).field("criterion", &self.criterion);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "scores".to_owned(), stage: &self.scores, kind: ArtefactKind::Scores }]
    }

    fn check(&self) -> Result<(), BadValue> {
        if !(self.ratio > 0.0 && self.ratio < 1.0) {
            let message = format!("`ratio` is {}; it must lie above 0 and below 1", self.ratio);
            return Err(BadValue { name: "ratio", message });
        }
        solver(&self.solver).map_err(|error| BadValue { name: "solver", message: error.to_string() })?;
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let folder = &context.input("scores").path;
        let scores = Scores::open(folder).map_err(StageError::file(folder))?;
        let request = Request { criterion: &self.criterion, solver: solver(&self.solver)?, ratio: self.ratio };
        let plan = Plan::make(&scores, &request, &context.random)?;
        plan.save(context.output).map_err(StageError::file(context.output))
    }
}
