//! `select`: chooses which units go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ArtefactKind, BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::{Manifest, StageId};
use crate::score::Scores;
use crate::select::{Fit, Method, Plan, Request, SelectError, layout, solver};

/// `with:` of `use: select`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Select {
    /// The stage with the scores.
    scores: StageId,
    /// The share of the U-Net's parameters that must go at least; above 0 and below 1. Not needed with `layout`, nor where `fits` names one shape.
    ratio: Option<f64>,
    /// How units are chosen (`laptop-diff list solvers`). Default `knapsack`: the exact optimum of the summed scores.
    #[serde(default = "default_solver")]
    solver: String,
    /// A program that is to load the result as it is, or a shape that loads everywhere (`laptop-diff list fits`); which units stay is chosen exactly.
    fits: Option<String>,
    /// A layout made by hand (`laptop-diff list layouts`), as a baseline: the scores only say what it costs.
    layout: Option<String>,
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
        if let Some(ratio) = self.ratio {
            manifest.float("ratio", ratio);
        }
        for (name, value) in [("fits", &self.fits), ("layout", &self.layout)] {
            if let Some(value) = value {
                manifest.field(name, value);
            }
        }
        manifest.field("solver", &self.solver).field("criterion", &self.criterion);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "scores".to_owned(), stage: &self.scores, kind: ArtefactKind::Scores }]
    }

    fn check(&self) -> Result<(), BadValue> {
        if let Some(ratio) = self.ratio.filter(|ratio| !(*ratio > 0.0 && *ratio < 1.0)) {
            let message = format!("`ratio` is {ratio}; it must lie above 0 and below 1");
            return Err(BadValue { name: "ratio", message });
        }
        self.method().map(drop)
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let folder = &context.input("scores").path;
        let scores = Scores::open(folder).map_err(StageError::file(folder))?;
        let method = self.method().expect("`check` found it");
        let request = Request { criterion: &self.criterion, method };
        let plan = Plan::make(&scores, &request, &context.random)?;
        plan.save(context.output).map_err(StageError::file(context.output))
    }
}

impl Select {
    fn method(&self) -> Result<Method, BadValue> {
        let bad = |name, message: String| Err(BadValue { name, message });
        let named = |name, error: SelectError| BadValue { name, message: error.to_string() };
        let solver = solver(&self.solver).map_err(|error| named("solver", error))?;
        match (&self.layout, &self.fits, self.ratio) {
            (Some(_), Some(_), _) => bad("fits", "`layout` and `fits` exclude each other; give one".to_owned()),
            (Some(_), _, Some(_)) => bad("ratio", "a `layout` has its own ratio; leave `ratio` out".to_owned()),
            (Some(name), None, None) => Ok(Method::Layout(layout(name).map_err(|error| named("layout", error))?)),
            (None, Some(_), _) if self.solver != default_solver() => {
                bad("solver", format!("what `fits` is chosen exactly, by `{}` alone", default_solver()))
            }
            (None, Some(name), ratio) => {
                let fit = Fit::find(name).map_err(|error| named("fits", error))?;
                match ratio {
                    Some(ratio) => Ok(Method::Fitting(fit, ratio)),
                    None if fit.is_one_shape() => Ok(Method::Fitting(fit, 0.0)),
                    None => bad("ratio", format!("`fits: {name}` needs a `ratio`")),
                }
            }
            (None, None, Some(ratio)) => Ok(Method::Solver(solver, ratio)),
            (None, None, None) => bad("ratio", "give a `ratio`, or a `layout`, or `fits` with one shape".to_owned()),
        }
    }
}
