//! Why no selection can be made.

use miette::Diagnostic;

use crate::base::UnitId;
use crate::base::names::UnknownName;

/// A selection that cannot be made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SelectError {
    /// A budget asks for more than the units hold.
    #[error("a ratio of {ratio} asks to remove {needed} {quantity}, but at most {available} can be removed")]
    #[diagnostic(
        code(select::ratio_unreachable),
        help("ask for a ratio above 0 and up to {reachable:.3}, the largest possible here")
    )]
    RatioUnreachable {
        /// The ratio asked for.
        ratio: f64,
        /// What is counted, in its unit.
        quantity: &'static str,
        /// The amount that this ratio means.
        needed: u64,
        /// The amount that all removable units hold.
        available: u64,
        /// The largest reachable ratio, rounded down.
        reachable: f64,
    },
    /// The scores do not hold the criterion.
    #[error("the scores have no criterion `{name}`; they have {known}")]
    #[diagnostic(
        code(select::unknown_criterion),
        help("use one of these, or add `{name}` to the criteria of the score stage")
    )]
    UnknownCriterion {
        /// The criterion asked for.
        name: String,
        /// The criteria that were scored.
        known: String,
    },
    /// A name that is in no table.
    #[error(transparent)]
    #[diagnostic(transparent)]
    UnknownName(#[from] UnknownName),
    /// The objective needs a measurement that the scores lack.
    #[error("the scores have no Gram matrix")]
    #[diagnostic(
        code(select::no_gram),
        help("add `output-loss` to the criteria of the score stage; it measures the matrix too")
    )]
    NoGram,
    /// A pattern that matches nothing.
    #[error("`{pattern}` of `{list}` matches no unit")]
    #[diagnostic(code(select::no_match), help("{near}; `*` stands for any text, as in `mid_block.*`"))]
    NoMatch {
        /// `keep` or `remove`.
        list: &'static str,
        /// The pattern.
        pattern: String,
        /// Units with similar names.
        near: String,
    },
    /// A unit that is to be both kept and removed.
    #[error("`keep` and `remove` contradict each other at `{unit}`")]
    #[diagnostic(
        code(select::contradiction),
        help(
            "a unit is removed when all of its parts are, and kept when one of them is; shorten one of the lists"
        )
    )]
    Contradiction {
        /// The unit.
        unit: UnitId,
    },
    /// A unit without a measured latency.
    #[error("the profile has no time for `{unit}`")]
    #[diagnostic(code(select::not_profiled), help("profile the same model that was scored"))]
    NotProfiled {
        /// The unit.
        unit: UnitId,
    },
    /// Scores of another granularity than fits and layouts use.
    #[error(
        "`fits` and `layout` need scores of ResNets and transformer blocks, but the scores are of other units (`{unit}`)"
    )]
    #[diagnostic(
        code(select::other_units),
        help("score with `granularity: [resnet, block]`, or leave `fits` and `layout` out")
    )]
    OtherUnits {
        /// A unit that was scored but is not needed, or the other way round.
        unit: UnitId,
    },
    /// A layout for another U-Net.
    #[error("the layout `{layout}` does not fit this U-Net: {reason}")]
    #[diagnostic(
        code(select::layout_misfit),
        help(
            "the layouts of BK-SDM are for SD 1.x, all others for SDXL; `laptop-diff inspect` shows which a model is"
        )
    )]
    LayoutMisfit {
        /// The layout.
        layout: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A loader that cannot load this U-Net with any unit removed.
    #[error("no unit can be removed and still load in `{fit}`")]
    #[diagnostic(
        code(select::nothing_fits),
        help(
            "leave `fits` out: an export for that program pads what it requires, and one for `diffusers-code` pads nothing"
        )
    )]
    NothingFits {
        /// The fit.
        fit: &'static str,
    },
    /// A fit for a model that was pruned before.
    #[error("`fits` needs scores of an unpruned U-Net, but `{unit}` was removed from this one")]
    #[diagnostic(code(select::fits_pruned), help("score the model that it was pruned from"))]
    FitsPruned {
        /// A removed unit.
        unit: UnitId,
    },
    /// The scores do not contain the configuration of their U-Net.
    #[error("the scores have no usable configuration of their U-Net: {reason}")]
    #[diagnostic(code(select::no_configuration), help("run the score stage again"))]
    NoConfiguration {
        /// What is wrong with it.
        reason: String,
    },
    /// A selection that is more than a set of units.
    #[error(
        "the selection is the layout `{layout}`, which drops whole layers, so it has no joint loss of removed units"
    )]
    #[diagnostic(
        code(select::not_units),
        help(
            "leave `selection` out and add the pruned model to `models`; the metric `output-loss` measures it"
        )
    )]
    NotUnits {
        /// The layout.
        layout: &'static str,
    },
    /// A score that is not finite.
    #[error("the `{criterion}` of `{unit}` is {loss}; it must be a finite number")]
    #[diagnostic(
        code(select::not_finite),
        help("the U-Net overflows without `{unit}`: score in f32 or bf16, and check the weights")
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
        help("score all of `{parent}` too: removing its last block removes it")
    )]
    Orphan {
        /// The block.
        unit: UnitId,
        /// Its Transformer2D.
        parent: UnitId,
    },
}
