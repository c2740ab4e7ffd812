//! `select`: chooses which units go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::budgets::Others;
use super::model::Model;
use super::score::points;
use super::{BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId};
use crate::profile::Latency;
use crate::score::{Limits, OUTPUT_LOSS, Scores, ScoringContext, joint_products};
use crate::select::objective::ObjectiveInfo;
use crate::select::{
    Budgets, Fit, Method, OBJECTIVES, Refiner, Request, SOLVERS, SelectError, Selection, layout, objective,
    solver,
};

/// `with:` of `use: select`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Select {
    /// The stage with the scores.
    scores: StageId,
    /// The share of the U-Net's parameters that must go at least; above 0 and below 1. Not needed with `layout`, with `budgets`, nor where `fits` names one shape.
    ratio: Option<f64>,
    /// What else must be saved, beside `ratio` or instead of it; several budgets hold at once.
    budgets: Option<Others>,
    /// The stage with the units' latencies (`use: profile`), for `budgets.latency`.
    profile: Option<StageId>,
    /// What is to be small (`laptop-diff list objectives`). Default `additive`, the paper's sum of scores.
    #[serde(default = "default_objective")]
    objective: String,
    /// How units are chosen (`laptop-diff list solvers`). Default `knapsack`: the optimum, proven or with a proven gap.
    #[serde(default = "default_solver")]
    solver: String,
    /// Units that stay: ids or patterns in which `*` stands for any text, as in `mid_block.*`. What lies inside stays too.
    #[serde(default)]
    keep: Vec<String>,
    /// Units that go, by id or pattern.
    #[serde(default)]
    remove: Vec<String>,
    /// A program that is to load the result as it is, or a shape that loads everywhere (`laptop-diff list fits`); which units stay is chosen exactly.
    fits: Option<String>,
    /// A layout made by hand (`laptop-diff list layouts`), as a baseline: the scores only say what it costs.
    layout: Option<String>,
    /// Whose scores are summed (`laptop-diff list criteria`); under `objective: gram` those of the front and the baselines. Default `output-loss`, the paper's, known wherever a criterion traverses the U-Net.
    #[serde(default = "default_criterion")]
    criterion: String,
    /// Makes the selection better by measuring: the best of several objectives' optima, then exchanges judged by the real joint loss.
    refine: Option<Refine>,
}

/// How a selection is made better by measuring.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Refine {
    /// The stage with the teacher.
    model: StageId,
    /// The stage with the calibration points on which losses are measured.
    calibration: StageId,
    /// Selections that are measured at most, beyond a portfolio of up to 26. Default 60.
    #[serde(default = "default_evaluations")]
    evaluations: usize,
    /// Calibration points that walk together: fewer where memory is short. Default 8.
    #[serde(default = "default_batch")]
    batch: usize,
}

fn default_objective() -> String {
    OBJECTIVES[0].name.to_owned()
}

fn default_solver() -> String {
    SOLVERS[0].name().to_owned()
}

fn default_criterion() -> String {
    OUTPUT_LOSS.to_owned()
}

/// Most of what exchanges gain on the small model is gained by then.
fn default_evaluations() -> usize {
    60
}

fn default_batch() -> usize {
    Limits::default().points
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "select",
    // 4: the file is selection.json.
    // 3: the shares that were asked for stand in plan.json as they were; refining tries other exchanges, within its evaluations.
    // 2: plan.json holds budgets, a gap and expected losses; the bound of an exact selection is its value.
    version: 4,
    summary: "chooses the units that go, given their scores and what must be saved",
    output: ArtefactKind::Selection,
    seeded: true,
    computes: true,
    schema: |generator| Select::json_schema(generator),
};

impl Stage for Select {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        let budgets = self.budgets.clone().unwrap_or_default();
        let shares = [("ratio", self.ratio), ("macs", budgets.macs), ("latency", budgets.latency)];
        for (name, share) in shares {
            if let Some(share) = share {
                manifest.float(name, share);
            }
        }
        if let Some(memory) = budgets.memory {
            manifest.field("memory", memory);
        }
        for (name, value) in [("fits", &self.fits), ("layout", &self.layout)] {
            if let Some(value) = value {
                manifest.field(name, value);
            }
        }
        for (name, patterns) in [("keep", &self.keep), ("remove", &self.remove)] {
            if !patterns.is_empty() {
                manifest.field(name, patterns.join(" "));
            }
        }
        manifest.field("objective", &self.objective).field("solver", &self.solver);
        manifest.field("criterion", &self.criterion);
        if let Some(refine) = &self.refine {
            manifest.field("evaluations", refine.evaluations).field("refine.batch", refine.batch);
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let input =
            |name: &str, stage, kinds: &'static [ArtefactKind]| Input { name: name.to_owned(), stage, kinds };
        let mut inputs = vec![input("scores", &self.scores, &[ArtefactKind::Scores])];
        inputs.extend(self.profile.iter().map(|stage| input("profile", stage, &[ArtefactKind::Profile])));
        if let Some(refine) = &self.refine {
            inputs.push(input("refine.model", &refine.model, &[ArtefactKind::Model]));
            inputs.push(input("refine.calibration", &refine.calibration, &[ArtefactKind::Calibration]));
        }
        inputs
    }

    fn check(&self) -> Result<(), BadValue> {
        let budgets = self.budgets.clone().unwrap_or_default();
        let memory = budgets.memory.and_then(|amount| amount.share());
        let shares =
            [("ratio", self.ratio), ("macs", budgets.macs), ("latency", budgets.latency), ("memory", memory)];
        for (name, share) in shares {
            if let Some(share) = share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
                let message = format!("`{name}` is {share}; it must lie above 0 and below 1");
                let name = if name == "ratio" { name.to_owned() } else { format!("budgets.{name}") };
                return Err(BadValue::new(name, message));
            }
        }
        let bad = |name, message: &str| Err(BadValue::new(name, message.to_owned()));
        match (budgets.latency, &self.profile) {
            (Some(_), None) => {
                return bad("budgets", "`latency` needs a `profile`: the id of a stage with `use: profile`");
            }
            (None, Some(_)) => {
                return bad("profile", "a `profile` is for `budgets: { latency: ... }`; give one");
            }
            _ => {}
        }
        if self.layout.is_some() && !(self.keep.is_empty() && self.remove.is_empty()) {
            return bad("layout", "a `layout` has its own units; leave `keep` and `remove` out");
        }
        if (self.layout.is_some() || self.fits.is_some()) && self.refine.is_some() {
            return bad("refine", "what `layout` or `fits` ask for cannot be refined; leave `refine` out");
        }
        if self.refine.as_ref().is_some_and(|refine| refine.batch == 0) {
            return bad("refine", "`batch` needs at least 1");
        }
        self.objective()?;
        self.method().map(drop)
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let folder = &context.input("scores").path;
        let scores = Scores::open(folder).map_err(StageError::file(folder))?;
        let latency = match &self.profile {
            Some(_) => {
                let folder = &context.input("profile").path;
                Some(Latency::open(folder).map_err(StageError::file(folder))?)
            }
            None => None,
        };
        let budgets = self.budgets.clone().unwrap_or_default();
        let request = Request {
            criterion: &self.criterion,
            objective: self.objective().expect("`check` found it"),
            method: self.method().expect("`check` found it"),
            budgets: Budgets {
                parameters: self.ratio,
                macs: budgets.macs,
                latency: budgets.latency.zip(latency.as_ref()),
                memory: budgets.memory.map(|amount| amount.0),
            },
            keep: &self.keep,
            remove: &self.remove,
        };
        let mut selection = Selection::make(&scores, &request, &context.random)?;
        if let Some(refine) = &self.refine {
            self.refine(refine, &scores, &request, &mut selection, context)?;
        }
        selection.save(context.output).map_err(StageError::file(context.output))
    }
}

impl Select {
    fn refine(
        &self,
        refine: &Refine,
        scores: &Scores,
        request: &Request<'_>,
        selection: &mut Selection,
        context: &Context<'_>,
    ) -> Result<(), StageError> {
        let unet = Model::open(context.input("refine.model"))?.unet(context.device)?;
        let points = points(context, "refine.calibration")?;
        let scoring = ScoringContext {
            limits: Limits { points: refine.batch, ..Limits::default() },
            checkpoint: context.checkpoint,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let refiner = Refiner::new(scores, request, selection)?;
        let found = refiner.refine(refine.evaluations, &mut |sets| {
            context.progress.note(&format!("measuring {} selections", sets.len()));
            joint_products(&unet, &points, sets, &scoring)
        })?;
        selection.refined(scores, request, found)?;
        Ok(())
    }

    fn objective(&self) -> Result<&'static ObjectiveInfo, BadValue> {
        objective(&self.objective).map_err(|error| BadValue::new("objective", error.to_string()))
    }

    fn method(&self) -> Result<Method, BadValue> {
        let bad = |name, message: String| Err(BadValue::new(name, message));
        let named = |name, error: SelectError| BadValue::new(name, error.to_string());
        let solver = solver(&self.solver).map_err(|error| named("solver", error))?;
        let exactly = self.solver == default_solver() && self.objective == default_objective();
        match (&self.layout, &self.fits, self.ratio) {
            (Some(_), Some(_), _) => {
                bad("fits", "`layout` and `fits` exclude each other; give one".to_owned())
            }
            (Some(_), _, Some(_)) => {
                bad("ratio", "a `layout` has its own ratio; leave `ratio` out".to_owned())
            }
            (Some(_), ..) | (_, Some(_), _) if self.budgets.is_some() => bad(
                "budgets",
                "with `layout` or `fits` only a `ratio` can be asked; leave `budgets` out".to_owned(),
            ),
            (Some(_), None, None) if self.solver != default_solver() => {
                bad("solver", "a `layout` is made by hand; leave `solver` out".to_owned())
            }
            (Some(name), None, None) => {
                Ok(Method::Layout(layout(name).map_err(|error| named("layout", error))?))
            }
            (None, Some(_), _) if !exactly => bad(
                if self.solver == default_solver() { "objective" } else { "solver" },
                format!(
                    "what `fits` is chosen exactly, by `{}` and `{}` alone",
                    default_solver(),
                    default_objective()
                ),
            ),
            (None, Some(name), ratio) => {
                let fit = Fit::find(name).map_err(|error| named("fits", error))?;
                match ratio {
                    None if !fit.is_one_shape() => bad("ratio", format!("`fits: {name}` needs a `ratio`")),
                    _ => Ok(Method::Fitting(fit)),
                }
            }
            (None, None, None) if self.budgets.as_ref().is_none_or(Others::is_empty) => bad(
                "ratio",
                "give a `ratio`, or `budgets`, or a `layout`, or `fits` with one shape".to_owned(),
            ),
            (None, None, _) => Ok(Method::Solver(solver)),
        }
    }
}
