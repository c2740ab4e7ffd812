//! `select`: chooses which units are removed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::budgets::OtherBudgets;
use super::model::Model;
use super::needs::{Needs, Outlook};
use super::points::points;
use super::score::{needs_of_pass, require_pass, space_weights};
use super::{BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::bounded::Share;
use crate::base::{ArtefactKind, Manifest, Real, StageId, Whole};
use crate::profile::Latency;
use crate::sample::NoiseSchedule;
use crate::score::{self, Limits, OUTPUT_LOSS, Scores, ScoringContext, joint_products};
use crate::select::{
    Budgets, Fit, Layout, Method, OBJECTIVES, ObjectiveInfo, Refiner, SOLVERS, Selection, SelectionRequest,
    count_maps, solver,
};

/// `with:` of `use: select`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Select {
    /// The stage with the scores.
    scores: StageId,
    /// The smallest share of the U-Net's parameters to remove, above 0 and below 1. Not needed with `budgets`, with `layout`, or with a `fits` that names one shape.
    ratio: Option<Real<Share>>,
    /// Other budgets, besides `ratio` or instead of it; every budget given must be met.
    budgets: Option<OtherBudgets>,
    /// The stage with the units' latencies (`use: profile`), for `budgets.latency`.
    profile: Option<StageId>,
    /// The objective to minimise (`laptop-diff list objectives`). Default `additive`, the paper's sum of scores.
    #[serde(default = "default_objective")]
    objective: String,
    /// How units are chosen (`laptop-diff list solvers`). Default `knapsack`: the optimum, proven or with a proven gap.
    #[serde(default = "default_solver")]
    solver: String,
    /// Units to keep: ids or patterns in which `*` stands for any text, as in `mid_block.*`. Everything inside them is kept too.
    #[serde(default)]
    keep: Vec<String>,
    /// Units to remove, by id or pattern.
    #[serde(default)]
    remove: Vec<String>,
    /// A program that must be able to load the result without padding, or a shape that loads everywhere (`laptop-diff list fits`). Which units are kept is chosen exactly.
    fits: Option<String>,
    /// A handcrafted layout (`laptop-diff list layouts`), as a baseline. The scores are only used to predict its loss.
    layout: Option<String>,
    /// The criterion whose scores are summed (`laptop-diff list criteria`); under `objective: gram`, the one for the front and the baselines. Default `output-loss`, the paper's, which every criterion that traverses the U-Net measures too.
    #[serde(default = "default_criterion")]
    criterion: String,
    /// Counts a linear map in place of each removed unit, as `reconstruct` with `linear` in its `kinds` adds them: a removed unit then saves fewer parameters and MACs. Default false.
    #[serde(default)]
    linear: bool,
    /// Improves the selection by measuring joint losses: first the optima of several objectives, then exchanges of units.
    refine: Option<Refine>,
}

/// How a selection is improved by measuring joint losses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Refine {
    /// The stage with the teacher.
    model: StageId,
    /// The stage with the calibration points on which losses are measured.
    calibration: StageId,
    /// The largest number of selections to measure, beyond a portfolio of up to 26. Default 60.
    #[serde(default = "default_evaluations")]
    evaluations: Whole<0, 100_000>,
    /// Calibration points per batch; lower it if memory runs out. Default 8.
    #[serde(default = "default_batch")]
    batch: Whole<1, 65_536>,
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

/// On the small model, more evaluations improve the selection only a little.
fn default_evaluations() -> Whole<0, 100_000> {
    Whole::new(60)
}

fn default_batch() -> Whole<1, 65_536> {
    Whole::new(Limits::POINTS)
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "select",
    // 4: the file is called selection.json.
    // 3: the shares asked for are written unrounded; refining tries other exchanges and counts them as evaluations.
    // 2: the file holds budgets, a gap and expected losses; the bound of an exact selection is its value.
    version: 4,
    summary: "chooses the units to remove, given their scores and the budgets",
    output: ArtefactKind::Selection,
    seeded: true,
    computes: true,
    schema: |generator| Select::json_schema(generator),
};

impl Stage for Select {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn removes(&self) -> Option<f64> {
        self.ratio.map(Real::get)
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let refine = self.refine.as_ref()?;
        let (model, points) = (outlook.models.get("refine.model")?, outlook.rows.get("refine.calibration")?);
        Some(needs_of_pass(model, *points, refine.batch.get(), outlook))
    }

    fn describe(&self, manifest: &mut Manifest) {
        let budgets = self.budgets.clone().unwrap_or_default();
        let shares = [("ratio", self.ratio), ("macs", budgets.macs), ("latency", budgets.latency)];
        for (name, share) in shares {
            if let Some(share) = share {
                manifest.float(name, share.get());
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
                manifest.list(name, patterns);
            }
        }
        manifest.field("objective", &self.objective).field("solver", &self.solver);
        manifest.field("criterion", &self.criterion);
        if self.linear {
            manifest.field("linear", true);
        }
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
        if budgets.latency.is_some() && self.profile.is_none() {
            let bad = BadValue::new("budgets.latency", "a `latency` budget needs a `profile`");
            return Err(bad.help("add `profile:` with the id of a stage that has `use: profile`"));
        }
        if budgets.latency.is_none() && self.profile.is_some() {
            let bad = BadValue::new("profile", "a `profile` is only used by a `latency` budget");
            return Err(bad.help("add `budgets: { latency: 0.3 }`, or leave `profile` out"));
        }
        self.check_refine()?;
        self.check_linear()?;
        score::criterion(&self.criterion).map_err(|error| BadValue::unknown("criterion", &error))?;
        self.objective()?;
        self.method().map(drop)
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let folder = &context.input("scores").path;
        let mut scores = Scores::open(folder).map_err(StageError::file(folder))?;
        if self.linear {
            count_maps(&mut scores)?;
        }
        let latency = match &self.profile {
            Some(_) => {
                let folder = &context.input("profile").path;
                Some(Latency::open(folder).map_err(StageError::file(folder))?)
            }
            None => None,
        };
        let budgets = self.budgets.clone().unwrap_or_default();
        let request = SelectionRequest {
            criterion: &self.criterion,
            objective: self.objective().expect("`check` found it"),
            method: self.method().expect("`check` found it"),
            budgets: Budgets {
                parameters: self.ratio.map(Real::get),
                macs: budgets.macs.map(Real::get),
                latency: budgets.latency.map(Real::get).zip(latency.as_ref()),
                memory: budgets.memory.map(|amount| amount.0),
            },
            keep: &self.keep,
            remove: &self.remove,
        };
        let mut selection = Selection::make(&scores, &request, &context.random)?;
        selection.linear = self.linear;
        if let Some(refine) = &self.refine {
            self.refine(refine, &scores, &request, &mut selection, context)?;
        }
        selection.save(context.output).map_err(StageError::file(context.output))
    }
}

impl Select {
    fn check_refine(&self) -> Result<(), BadValue> {
        if self.refine.is_none() {
            return Ok(());
        }
        for (name, given) in [("layout", self.layout.is_some()), ("fits", self.fits.is_some())] {
            if given {
                let bad = BadValue::new("refine", format!("a selection by `{name}` cannot be refined"));
                return Err(bad.help(format!("leave out `refine` or `{name}`")));
            }
        }
        Ok(())
    }

    /// A linear map has no measured latency, and is exported to no other program.
    fn check_linear(&self) -> Result<(), BadValue> {
        let latency = self.budgets.as_ref().is_some_and(|budgets| budgets.latency.is_some());
        let others =
            [("layout", self.layout.is_some()), ("fits", self.fits.is_some()), ("budgets.latency", latency)];
        match others.into_iter().find(|(_, given)| self.linear && *given) {
            Some((name, _)) => {
                let bad = BadValue::new("linear", format!("linear maps cannot be counted with `{name}`"));
                Err(bad.help(format!("leave out `linear` or `{name}`")))
            }
            None => Ok(()),
        }
    }

    fn objective(&self) -> Result<&'static ObjectiveInfo, BadValue> {
        ObjectiveInfo::find(&self.objective).map_err(|error| BadValue::unknown("objective", &error))
    }

    /// The way to choose units that the parameters ask for.
    fn method(&self) -> Result<Method, BadValue> {
        let solver = solver(&self.solver).map_err(|error| BadValue::unknown("solver", &error))?;
        match (&self.layout, &self.fits) {
            (Some(_), Some(_)) => {
                let bad = BadValue::new("fits", "`layout` and `fits` exclude each other");
                Err(bad.help("leave one of them out"))
            }
            (Some(name), None) => self.layout(name),
            (None, Some(name)) => self.fit(name),
            (None, None)
                if self.ratio.is_none() && !self.budgets.as_ref().is_some_and(OtherBudgets::asks) =>
            {
                let bad = BadValue::new("ratio", "no budget: the amount to remove is not given");
                Err(bad.help("give `ratio`, `budgets`, `layout`, or a `fits` that names one shape"))
            }
            (None, None) => Ok(Method::Solver(solver)),
        }
    }

    /// A layout fixes the units, so no other parameter may choose any.
    fn layout(&self, name: &str) -> Result<Method, BadValue> {
        let fixed = [
            ("keep", !self.keep.is_empty()),
            ("remove", !self.remove.is_empty()),
            ("ratio", self.ratio.is_some()),
            ("budgets", self.budgets.is_some()),
            ("solver", self.solver != default_solver()),
        ];
        for (parameter, given) in fixed {
            if given {
                let bad = BadValue::new(parameter, format!("`layout: {name}` fixes which units are removed"));
                return Err(bad.help(format!("leave out `{parameter}` or `layout`")));
            }
        }
        Ok(Method::Layout(Layout::find(name).map_err(|error| BadValue::unknown("layout", &error))?))
    }

    /// A fit is solved on the exact front of summed scores, under one budget of parameters.
    fn fit(&self, name: &str) -> Result<Method, BadValue> {
        let others = [
            ("budgets", self.budgets.is_some(), "a budget other than `ratio`"),
            ("solver", self.solver != default_solver(), "another solver"),
            ("objective", self.objective != default_objective(), "another objective"),
        ];
        for (parameter, given, what) in others {
            if given {
                let bad = BadValue::new(parameter, format!("`fits` does not work with {what}"));
                return Err(bad.help(format!("leave out `{parameter}` or `fits`")));
            }
        }
        let fit = Fit::find(name).map_err(|error| BadValue::unknown("fits", &error))?;
        if self.ratio.is_none() && !fit.is_one_shape() {
            let bad = BadValue::new("fits", format!("`fits: {name}` needs a `ratio`"));
            return Err(bad.help("add the share of parameters to remove, such as `ratio: 0.3`"));
        }
        Ok(Method::Fitting(fit))
    }

    fn refine(
        &self,
        refine: &Refine,
        scores: &Scores,
        request: &SelectionRequest<'_>,
        selection: &mut Selection,
        context: &Context<'_>,
    ) -> Result<(), StageError> {
        let model = Model::open(context.input("refine.model"))?;
        let unet = model.unet(context.device)?;
        let points = points(context, "refine.calibration", unet.config())?;
        let schedule = match scores.space.needs_schedule() {
            true => Some(NoiseSchedule::from_config(&model.directory.scheduler_config()?)?),
            false => None,
        };
        let weights = space_weights(scores.space, &points, schedule.as_ref())?;
        require_pass(&unet, &points, refine.batch.get(), context.device)?;
        let scoring = ScoringContext {
            limits: Limits { points: refine.batch.get(), ..Limits::default() },
            weights: weights.as_deref(),
            checkpoint: context.checkpoint,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let refiner = Refiner::new(scores, request, selection)?;
        let found = refiner.refine(refine.evaluations.get(), &mut |sets| {
            context.progress.note(&format!("measuring {} selections", sets.len()));
            joint_products(&unet, &points, sets, &scoring)
        })?;
        selection.apply_refinement(scores, request, found)?;
        Ok(())
    }
}
