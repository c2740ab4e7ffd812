//! Why there is no selection.

use miette::Diagnostic;

use crate::base::UnitId;
use crate::base::names::UnknownName;

/// Why there is no selection.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SelectError {
    /// More is asked for than the units hold.
    #[error("a ratio of {ratio} asks to remove {needed} {quantity}, but at most {available} can go")]
    #[diagnostic(
        code(select::ratio_unreachable),
        help("ask for a ratio above 0 and up to {reachable:.3}, the largest that is possible here")
    )]
    RatioUnreachable {
        /// The ratio asked for.
        ratio: f64,
        /// What is counted, in its unit.
        quantity: &'static str,
        /// The weight that it means.
        needed: u64,
        /// The weight that all units hold.
        available: u64,
        /// The largest reachable ratio, rounded down.
        reachable: f64,
    },
    /// The scores do not hold the criterion.
    #[error("the scores hold no `{name}`; they hold {known}")]
    #[diagnostic(
        code(select::unknown_criterion),
        help("name one of them, or add `{name}` to the criteria of the score stage")
    )]
    UnknownCriterion {
        /// The criterion asked for.
        name: String,
        /// The criteria there are.
        known: String,
    },
    /// A layout that no table has.
    #[error(transparent)]
    #[diagnostic(transparent)]
    UnknownName(#[from] UnknownName),
    /// The objective needs what was not measured.
    #[error("the scores hold no Gram matrix")]
    #[diagnostic(
        code(select::no_gram),
        help("add `output-loss` to the criteria of the score stage: its walk measures the matrix too")
    )]
    NoGram,
    /// A pattern that says nothing.
    #[error("`{pattern}` of `{list}` matches no unit")]
    #[diagnostic(code(select::no_match), help("{near}; `*` stands for any text, as in `mid_block.*`"))]
    NoMatch {
        /// `keep` or `remove`.
        list: &'static str,
        /// The pattern.
        pattern: String,
        /// Units of similar names.
        near: String,
    },
    /// A unit that is to stay and to go.
    #[error("`keep` and `remove` contradict each other at `{unit}`")]
    #[diagnostic(
        code(select::contradiction),
        help(
            "a unit goes when all of its parts do, and stays when one of them does: give one of the lists less"
        )
    )]
    Contradiction {
        /// The unit.
        unit: UnitId,
    },
    /// A unit that the table of latencies does not hold.
    #[error("the profile holds no time of `{unit}`")]
    #[diagnostic(code(select::not_profiled), help("profile the model that was scored"))]
    NotProfiled {
        /// The unit.
        unit: UnitId,
    },
    /// Scores of another granularity than fits and layouts count in.
    #[error(
        "fits and layouts count ResNets and transformer blocks, and the scores are of other units (`{unit}`)"
    )]
    #[diagnostic(
        code(select::other_units),
        help("score with `granularity: [resnet, block]`, or leave `fits` and `layout` out")
    )]
    OtherUnits {
        /// A unit that was scored and is not counted, or the other way round.
        unit: UnitId,
    },
    /// A layout for another U-Net.
    #[error("the layout `{layout}` does not fit this U-Net: {reason}")]
    #[diagnostic(
        code(select::layout_misfit),
        help(
            "BK-SDM's layouts are for SD 1.x, all others for SDXL; `laptop-diff inspect` shows what a model is"
        )
    )]
    LayoutMisfit {
        /// The layout.
        layout: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A loader that takes the U-Net whole or not at all.
    #[error("nothing can go from this U-Net that `{fit}` would do without")]
    #[diagnostic(
        code(select::nothing_fits),
        help(
            "leave `fits` out: an export for that program pads what it insists on, or `diffusers-code` does without"
        )
    )]
    NothingFits {
        /// The fit.
        fit: &'static str,
    },
    /// A selection on a model that has lost units already.
    #[error(
        "`{unit}` is removed from the scored U-Net already, so that nothing is known of what loaders make of it"
    )]
    #[diagnostic(code(select::fits_pruned), help("score the model that it was pruned from"))]
    FitsPruned {
        /// A unit that is gone.
        unit: UnitId,
    },
    /// The scores do not say which U-Net they are of.
    #[error("the scores hold no configuration of their U-Net: {reason}")]
    #[diagnostic(code(select::no_configuration), help("run the score stage again"))]
    NoConfiguration {
        /// What does not fit.
        reason: String,
    },
    /// A selection that is more than a set of units.
    #[error(
        "the selection is the layout `{layout}`, which drops layers: it has no joint loss of removed units"
    )]
    #[diagnostic(
        code(select::not_units),
        help(
            "leave `selection` out and name the pruned model among `models`: the metric `output-loss` measures it"
        )
    )]
    NotUnits {
        /// The layout.
        layout: &'static str,
    },
    /// A score that is no number.
    #[error("the `{criterion}` of `{unit}` is {loss}; it must be a finite number")]
    #[diagnostic(
        code(select::not_finite),
        help("the U-Net without `{unit}` overflows: score it in f32 or bf16, and check its weights")
    )]
    NotFinite {
        /// The unit.
        unit: UnitId,
        /// The criterion.
        criterion: String,
        /// The value found.
        loss: f64,
    },
    /// A block whose Transformer2D was not scored.
    #[error("`{unit}` belongs to `{parent}`, which has no score of its own")]
    #[diagnostic(
        code(select::orphan),
        help("score the whole of `{parent}` too: its last block cannot go without it")
    )]
    Orphan {
        /// The block.
        unit: UnitId,
        /// Its Transformer2D.
        parent: UnitId,
    },
}
