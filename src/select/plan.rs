//! `plan.json`: what goes, what that is predicted to cost, and the selections it must be compared with.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bound::lower_bound;
use super::random::draw;
use super::{Fit, Front, Layout, Problem, SelectError, Solver, solver};
use crate::backend::Random;
use crate::base::{UnitId, files};
use crate::model::UNetConfig;
use crate::score::Scores;

/// The version of `plan.json` that this program writes and reads.
pub const FORMAT: u32 = 1;
/// The name of the file, in a plan's folder and in a pruned model's.
pub const FILE: &str = "plan.json";
const OUTPUT_LOSS: &str = "output-loss";
const MAGNITUDE: &str = "magnitude";
const EXACT: &str = "knapsack";
/// Enough for a spread; each costs `evaluate` one pass over its points.
const RANDOM_BASELINES: u64 = 20;
/// The front in the file has one point for each half per cent of the U-Net; the exact front can have many thousands.
const FRONT_STEPS: u64 = 200;

/// What is asked for.
pub struct Request<'a> {
    /// Whose scores are to be summed.
    pub criterion: &'a str,
    /// How the units are chosen.
    pub method: Method,
}

/// How units are chosen.
#[derive(Clone, Copy)]
pub enum Method {
    /// By a solver, so that at least this share of the U-Net's parameters goes.
    Solver(&'static dyn Solver, f64),
    /// The exact optimum of what fits, of at least this share.
    Fitting(&'static Fit, f64),
    /// By hand.
    Layout(&'static Layout),
}

/// A selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the file's layout.
    pub format: u32,
    /// Whose scores were summed.
    pub criterion: String,
    /// How the units were chosen: a solver's name, or that of a layout.
    pub solver: String,
    /// The program or shape that the selection fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fits: Option<String>,
    /// The layout made by hand. If it drops layers, `removed` is what of the units it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// The share of parameters that was to go at least.
    pub ratio_asked: f64,
    /// The share that goes.
    pub ratio_reached: f64,
    /// The units that go; a Transformer2D that goes entirely is named by itself.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
    /// Parameters of the whole U-Net before.
    pub unet_parameters: u64,
    /// What it is predicted to cost.
    pub predicted: Predicted,
    /// The exact optimum for each half per cent of the U-Net, by the same criterion, lightest first.
    pub front: Vec<FrontPoint>,
    /// Other selections of the same ratio, for `evaluate` to measure beside this one.
    pub baselines: Vec<Baseline>,
}

/// Predictions of a plan's loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// The summed scores of the plan's criterion: what the solver was to make small.
    pub objective: f64,
    /// No selection of this ratio can have a smaller objective.
    pub bound: f64,
    /// The sum of output losses, where they were scored.
    pub additive: Option<f64>,
    /// `1' G 1` over the removed units, where the Gram matrix is known.
    pub gram: Option<f64>,
}

/// A point of the Pareto front.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// Parameters that go.
    pub removed_parameters: u64,
    /// Their share of the U-Net.
    pub ratio: f64,
    /// The least summed score at which so many can go.
    pub loss: f64,
}

/// Another selection of the same ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// `greedy`, `magnitude-knapsack`, `random-7`.
    pub name: String,
    /// The units that go.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
}

impl Plan {
    /// Chooses the units that `request` asks for.
    pub fn make(scores: &Scores, request: &Request<'_>, random: &Random) -> Result<Self, SelectError> {
        let problem = Problem::of_parameters(scores, request.criterion)?;
        let total = problem.total;
        let mut front = Front::of(&problem);
        let (name, fits, layout) = match request.method {
            Method::Solver(solver, _) => (solver.name(), None, None),
            Method::Fitting(fit, _) => (EXACT, Some(fit.name.to_owned()), None),
            Method::Layout(layout) => (layout.name, None, Some(layout)),
        };
        let (needed, removed, removed_parameters) = match request.method {
            Method::Solver(solver, ratio) => {
                let needed = problem.needed(ratio)?;
                let removed = solver.solve(&problem, needed, random);
                (needed, removed.clone(), problem.cost(&removed).1)
            }
            Method::Fitting(fit, ratio) => {
                front = Front::of_choices(fit.choices(&unet(scores)?, &problem)?);
                if front.heaviest() == 0 {
                    return Err(SelectError::NothingFits { fit: fit.name });
                }
                let needed = problem.needed_of(ratio, front.heaviest())?;
                let point = front.cheapest(needed).expect("`needed_of` found it reachable");
                let removed = front.removed(point);
                let weight = problem.cost(&removed).1;
                // Where all that fits weighs the same, others are asked for as much.
                (if fit.is_one_shape() { weight } else { needed }, removed, weight)
            }
            Method::Layout(layout) => {
                let unet = unet(scores)?;
                let parameters = total - layout.assemble(&unet)?.config().inventory().parameters();
                (parameters, layout.removed(&unet)?, parameters)
            }
        };
        Ok(Self {
            format: FORMAT,
            criterion: request.criterion.to_owned(),
            solver: name.to_owned(),
            fits,
            layout: layout.map(|layout| layout.name.to_owned()),
            ratio_asked: match request.method {
                Method::Solver(_, ratio) => ratio,
                Method::Fitting(fit, ratio) if !fit.is_one_shape() => ratio,
                Method::Fitting(..) | Method::Layout(_) => removed_parameters as f64 / total as f64,
            },
            ratio_reached: removed_parameters as f64 / total as f64,
            removed_parameters,
            unet_parameters: total,
            predicted: Predicted {
                objective: problem.cost(&removed).0,
                bound: lower_bound(&problem, needed),
                additive: scores.additive(&removed, OUTPUT_LOSS),
                gram: scores.gram.as_ref().map(|gram| gram.joint(&removed)),
            },
            front: sampled(&front, total),
            baselines: baselines(scores, &problem, needed, request, random)?,
            removed: in_walk_order(scores, &removed),
        })
    }

    /// Reads `plan.json` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let plan: Self = files::read_json(&path)?;
        if plan.format != FORMAT {
            let text = format!("{}: format {}; this program reads {FORMAT}", path.display(), plan.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(plan)
    }

    /// Writes `plan.json` into `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }

    /// The layout that drops layers, which no removal of units alone can do.
    pub fn dropped_layers(&self) -> Result<Option<&'static Layout>, SelectError> {
        let layout = self.layout.as_deref().map(super::layout).transpose()?;
        Ok(layout.filter(|layout| layout.drops_layers()))
    }

    /// The removed units as a set.
    pub fn removed(&self) -> BTreeSet<UnitId> {
        self.removed.iter().cloned().collect()
    }
}

fn in_walk_order(scores: &Scores, removed: &BTreeSet<UnitId>) -> Vec<UnitId> {
    scores.units.iter().map(|unit| &unit.id).filter(|id| removed.contains(*id)).cloned().collect()
}

/// The configuration of the scored U-Net, for fits and layouts: these count ResNets, blocks and whole Transformer2Ds,
/// so that others must not have been scored.
fn unet(scores: &Scores) -> Result<UNetConfig, SelectError> {
    let unet = UNetConfig::parse(&scores.unet.to_string())
        .map_err(|error| SelectError::NoConfiguration { reason: error.to_string() })?;
    let inventory = unet.inventory();
    let counted: BTreeSet<&UnitId> = inventory.units().iter().map(|unit| &unit.id).collect();
    let scored: BTreeSet<&UnitId> = scores.units.iter().map(|unit| &unit.id).collect();
    match counted.symmetric_difference(&scored).next() {
        Some(unit) => Err(SelectError::OtherUnits { unit: (*unit).clone() }),
        None => Ok(unet),
    }
}

fn sampled(front: &Front, total: u64) -> Vec<FrontPoint> {
    let points: Vec<_> = front.points().collect();
    let mut places: Vec<_> =
        (0..=FRONT_STEPS).map_while(|step| front.cheapest((total * step).div_ceil(FRONT_STEPS))).collect();
    places.push(0);
    places.dedup();
    let point = |place: usize| {
        let (removed_parameters, loss) = points[place];
        FrontPoint { removed_parameters, ratio: removed_parameters as f64 / total as f64, loss }
    };
    places.into_iter().map(point).collect()
}

fn baselines(
    scores: &Scores,
    problem: &Problem,
    needed: u64,
    request: &Request<'_>,
    random: &Random,
) -> Result<Vec<Baseline>, SelectError> {
    let baseline = |name: String, removed: BTreeSet<UnitId>| Baseline {
        name,
        removed: in_walk_order(scores, &removed),
        removed_parameters: scores.parameters(&removed),
    };
    let mut baselines = Vec::new();
    // A layout that drops layers can lose more than all units hold.
    let needed = needed.min(problem.available());
    if !matches!(request.method, Method::Solver(solver, _) if solver.name() == "greedy") {
        baselines.push(baseline("greedy".into(), solver("greedy")?.solve(problem, needed, random)));
    }
    if request.criterion != MAGNITUDE && scores.criteria.iter().any(|name| name == MAGNITUDE) {
        let by_magnitude = Problem::of_parameters(scores, MAGNITUDE)?;
        let removed = solver(EXACT)?.solve(&by_magnitude, needed, random);
        baselines.push(baseline(format!("{MAGNITUDE}-knapsack"), removed));
    }
    baselines.extend(
        (1..=RANDOM_BASELINES)
            .map(|index| baseline(format!("random-{index}"), draw(problem, needed, random, index))),
    );
    Ok(baselines)
}
