//! How units were scored and selected, how the student was retrained, and what was exported.

use maud::{Markup, html};

use super::chart::{Axis, Chart, Series, number, plot};
use super::selections;
use super::tables::scroll;
use super::unet::{self, UnitBar};
use crate::base::units;
use crate::model::network::UnitKind;
use crate::prune::Export;
use crate::score::{Additivity, GRAM, MeasuredSet, Scores, UnitScores};
use crate::select::Selection;

/// An artefact that cannot be shown.
pub(super) fn unreadable(stage: &str, why: &str) -> Markup {
    html! {
        p class="bad" {
            "The artefact of " code { (stage) } " cannot be shown: " (why) ". The next run makes damaged and missing artefacts again."
        }
    }
}

/// The files for other programs, and their costs.
pub(super) fn exports(exports: &[(&str, &Export)]) -> Markup {
    html! {
        @if !exports.is_empty() {
            h2 { "Exports" }
            p { "Each export was read back, and its prediction was compared with that of the original model." }
            (scroll("Exports", &html! { table {
                tr {
                    th { "stage" } th { "for" } th { "file" } th class="number" { "U-Net parameters" }
                    th class="number" { "of which zeros" } th class="number" { "relative error" } th { "with" }
                }
                @for (stage, export) in exports {
                    tr {
                        td { (stage) }
                        td { (export.format) }
                        td class="mono" { (stage) "/" (export.path.display()) }
                        td class="number" { (units::count(export.written_parameters)) }
                        td class="number" { (units::count(export.written_parameters - export.parameters)) }
                        td class="number" { (number(export.relative_error)) }
                        td { (export.parts.join(", ")) }
                    }
                    @if let Some(reason) = &export.unrecognised { tr { td {} td colspan="6" class="bad" { (reason) } } }
                }
            } }))
        }
    }
}

/// The scores along the U-Net, with the removed units.
pub(super) fn scores(scores: &Scores, selection: Option<&Selection>) -> Markup {
    let criterion = selection
        .map(|selection| selection.criterion.as_str())
        .or(scores.criteria.first().map(String::as_str));
    let removed = selection.map(Selection::removed).unwrap_or_default();
    let bars = |criterion: &str| -> Vec<UnitBar> {
        let bar = |unit: &UnitScores| UnitBar {
            id: unit.id.to_string(),
            score: unit.scores.get(criterion).copied().unwrap_or(0.0),
            parameters: unit.parameters,
            removed: selections::is_removed(&unit.id, &removed),
            resnet: unit.kind == UnitKind::Resnet,
        };
        scores.units.iter().map(bar).collect()
    };
    html! {
        h2 { "Scores along the U-Net" }
        @if let Some(criterion) = criterion {
            p {
                "Each bar is one unit's " code { (criterion) } " over " (scores.points)
                " calibration points, on a logarithmic scale. The area of the box below it is proportional to the number of parameters."
                span class="key resnet" {} "ResNet" span class="key transformer" {} "transformer"
                span class="key removed" {} "removed (hollow, crossed)"
            }
            figure class="wide" { (scroll("Scores along the U-Net", &unet::draw(&bars(criterion), criterion))) }
        }
        details {
            summary { "All " (scores.units.len()) " units as a table" }
            (scroll("Scores of all units", &html! { table {
                tr {
                    th { "unit" } th class="number" { "parameters" } th class="number" { "MACs" }
                    @for criterion in &scores.criteria { th class="number" { (criterion) } }
                    th { "removed" }
                }
                @for unit in &scores.units {
                    tr {
                        td class="mono" { (unit.id) }
                        td class="number" { (units::count(unit.parameters)) }
                        td class="number" { (units::count(unit.macs)) }
                        @for criterion in &scores.criteria {
                            td class="number" {
                                @if let Some(score) = unit.scores.get(criterion) { (number(*score)) }
                            }
                        }
                        td { @if selections::is_removed(&unit.id, &removed) { "✕" } }
                    }
                }
            } }))
        }
        @if let Some(additivity) = &scores.additivity { (self::additivity(additivity, &scores.criteria)) }
    }
}

/// How well the sum of each criterion predicts the joint loss of several units.
fn additivity(additivity: &Additivity, criteria: &[String]) -> Markup {
    let points = |name: &str| {
        let predicted = |set: &MeasuredSet| Some((set.joint, *set.predicted.get(name)?));
        additivity.sets.iter().filter_map(predicted).collect::<Vec<_>>()
    };
    let equal = additivity.sets.iter().map(|set| (set.joint, set.joint)).collect();
    let names = criteria.iter().map(String::as_str).chain([GRAM]);
    let rows = names.filter_map(|name| Some((name, additivity.agreement.get(name)?)));
    html! {
        h3 { "Do losses add?" }
        p {
            "The joint loss of removing each of " (additivity.sets.len()) " random sets of units was measured. It is compared \
            with two predictions from single units: the sum of their scores, and " code { "1' G 1" } " with the Gram matrix of \
            their effects. R² is the share of the variance that a straight line explains. Spearman's correlation compares only \
            the order, which is what selection needs. The slope is 1 if the sum equals the joint loss; it means nothing for \
            criteria that are not losses. Larger sets lose more under any criterion, so the baseline is the value of "
            code { "random" } ", not zero; at equal size stands the partial correlation, with the number of parameters held fixed."
        }
        (scroll("Agreement", &html! { table {
            tr {
                th { "prediction" } th class="number" { "R²" } th class="number" { "Spearman" }
                th class="number" { "at equal size" } th class="number" { "slope" }
            }
            @for (name, agreement) in rows {
                tr {
                    td { @if name == GRAM { "Gram matrix" } @else { "sum of " code { (name) } } }
                    td class="number" { (format!("{:.3}", agreement.r2)) }
                    td class="number" { (format!("{:.3}", agreement.spearman)) }
                    td class="number" {
                        @if let Some(partial) = additivity.spearman_at_equal_size(name) { (format!("{partial:.3}")) }
                    }
                    td class="number" { (number(agreement.slope)) }
                }
            }
        } }))
        (plot(
            &Chart { x: Axis::log("measured joint loss"), y: Axis::log("predicted") },
            &[
                Series { name: "equal".into(), points: equal, line: true },
                Series { name: "sum of output losses".into(), points: points("output-loss"), line: false },
                Series { name: "Gram matrix".into(), points: points(GRAM), line: false },
            ],
        ))
    }
}

/// What was asked and reached, and the Pareto front over all ratios.
pub(super) fn selection(selection: &Selection) -> Markup {
    let front = selection.front.iter().map(|point| (point.ratio, point.loss)).collect();
    let chosen = vec![(selection.ratio_reached, selection.predicted.objective)];
    html! {
        h2 { "Selection" }
        p {
            (selection.removed.len()) " units are removed, with " (units::count(selection.removed_parameters)) " of "
            (units::count(selection.unet_parameters)) " parameters: "
            (format!("{:.1} %", 100.0 * selection.ratio_reached)) "; at least "
            (format!("{:.1} %", 100.0 * selection.ratio_asked)) " was asked. Chosen by " code { (selection.solver) }
            " over " code { (selection.objective) } " " code { (selection.criterion) } "; its objective is "
            (number(selection.predicted.objective)) ", and no selection of this size can be below "
            (number(selection.predicted.bound)) "."
        }
        (plot(
            &Chart { x: Axis::linear("share of parameters removed"), y: Axis::log("sum of scores") },
            &[
                Series { name: "exact optimum for each ratio".into(), points: front, line: true },
                Series { name: "this selection".into(), points: chosen, line: false },
            ],
        ))
    }
}
