//! The results of an evaluation in full: statistics, the comparison of the selection with others, and how values are written.

use maud::{Markup, html};

use super::folder::Measured;
use super::tables::scroll;
use super::{chart, records};
use crate::base::units;
use crate::metric::{Baseline, SELECTED};

/// The statistics of one evaluation.
pub(super) fn numbers(stage: &str, measured: &Measured) -> Markup {
    html! {
        h3 { "Evaluation " code { (stage) } }
        @if let Some(from) = &measured.metrics.prompts_from {
            p class="soft" {
                "Prompts: " (measured.metrics.prompts)
                @if let Some(set) = &from.set { " of " code { (set) } }
                ", digest " code title=(from.digest) { (from.digest.get(..12).unwrap_or(&from.digest)) }
                @if from.pinned { " (pinned)." } @else { " (not pinned)." }
            }
        }
        @if !measured.metrics.scorers.is_empty() {
            @let by = measured.metrics.scorers.iter().map(|(metric, scorer)| format!("{metric} by {scorer}"));
            p class="soft" { (by.collect::<Vec<_>>().join("; ")) "." }
        }
        (records::of_evaluation(measured).html())
        p class="soft" {
            "The difference is the model's value minus the teacher's on the same prompt; an equal value counts as half a win. Scores of CLIP \
             models lie in a narrow band, so the plain percentage of the teacher flatters every model; what is retained is measured from \
             the better of the two floors. From the deviation of the differences follows how many prompts an interval of the given \
             half-width takes."
        }
    }
}

/// A ratio: two decimals, unless it is large.
fn times(ratio: f64) -> String {
    match ratio < 100.0 {
        true => format!("× {ratio:.2}"),
        false => format!("× {}", chart::number(ratio)),
    }
}

/// The selection, compared with other selections of the same ratio.
pub(super) fn baselines(all: &[Baseline]) -> Markup {
    let random: Vec<f64> =
        all.iter().filter(|one| one.name.starts_with("random-")).map(|one| one.joint_loss).collect();
    let best = random.iter().copied().fold(f64::INFINITY, f64::min);
    let mut rows: Vec<(String, f64, u64)> = all
        .iter()
        .filter(|one| !one.name.starts_with("random-") || one.joint_loss == best)
        .map(|one| {
            let of = if one.name.starts_with("random-") {
                format!("best of {} random sets", random.len())
            } else {
                one.name.clone()
            };
            (of, one.joint_loss, one.removed_parameters)
        })
        .collect();
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    let selected = all.iter().find(|one| one.name == SELECTED).map(|one| one.joint_loss);
    let largest = rows.iter().map(|row| row.1).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        h3 { "Was the selection a good one?" }
        p {
            "The joint output loss of removing all selected units at once, measured on held-out points before any retraining. "
            "Every selection removes at least the same share of parameters."
        }
        (scroll("Joint losses", &html! { table {
            tr { th { "selection" } th class="number" { "joint loss" } th class="number" { "relative to the selected" } th { } th class="number" { "parameters removed" } }
            @for (name, loss, removed) in &rows {
                tr class=[(name == SELECTED).then_some("chosen")] {
                    td { (name) }
                    td class="number" { (chart::number(*loss)) }
                    td class="number" { @if let Some(selected) = selected { (times(loss / selected)) } }
                    td {
                        svg width="220" height="14" role="img" aria-label=(format!("{:.0} % of the largest", 100.0 * loss / largest)) {
                            rect x="0" y="2" height="10" width=(format!("{:.1}", 220.0 * loss / largest)) fill=(if name == SELECTED { "var(--two)" } else { "var(--one)" }) {}
                        }
                    }
                    td class="number" { (units::count(*removed)) }
                }
            }
        } }))
    }
}
