//! The results of an evaluation: measurements, pictures, and the comparison of the selection with others.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::embedded::embedded;
use super::folder::Measured;
use crate::base::units;
use crate::metric::{Baseline, Better, Measurement, Metrics, ModelMetrics, SELECTED};

/// Rows of the picture grid: enough for a visual comparison, few enough for a page of a few megabytes.
const ROWS: usize = 12;

/// One evaluation.
pub(super) fn measured(stage: &str, measured: &Measured) -> Markup {
    html! {
        (numbers(stage, measured))
        (pictures(measured))
    }
}

/// One evaluation without its pictures.
pub(super) fn numbers(stage: &str, measured: &Measured) -> Markup {
    html! {
        h2 { "Evaluation: " code { (stage) } }
        (table(&measured.metrics))
        @if let Some(timings) = measured.timings.as_ref().filter(|timings| holds_any(timings)) {
            h3 { "Time and memory on this machine" }
            (table(timings))
        }
        @if !measured.metrics.baselines.is_empty() { (baselines(&measured.metrics.baselines)) }
    }
}

/// Whether there is a value to show: an evaluation may have no metric of time or memory.
fn holds_any(metrics: &Metrics) -> bool {
    metrics.models.iter().any(|model| !model.metrics.is_empty() || !model.unavailable.is_empty())
}

fn table(metrics: &Metrics) -> Markup {
    let of_model =
        |model: &'_ ModelMetrics| model.metrics.keys().chain(model.unavailable.keys()).cloned().collect();
    let names: BTreeSet<String> = metrics.models.first().map(of_model).unwrap_or_default();
    html! {
        table {
            caption {
                "Mean over " (metrics.prompts) " prompts"
                @if metrics.seeds > 1 { ", " (metrics.seeds) " pictures each," }
                " with its 95 % bootstrap interval. Second line: percentage of " code { (metrics.teacher) } "."
            }
            tr {
                th { "metric" }
                @for model in &metrics.models { th class="number" { (model.model) } }
            }
            @for name in &names {
                tr {
                    td {
                        (name) (direction(metrics, name))
                        @if let Some(scorer) = metrics.scorers.get(name) { br; span class="soft" { "by " (scorer) } }
                    }
                    @for model in &metrics.models {
                        td class="number" {
                            @if let Some(measurement) = model.metrics.get(name) { (cell(measurement)) }
                            @else if let Some(reason) = model.unavailable.get(name) {
                                span class="soft" { "not measured: " (reason) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Which direction is good.
fn direction(metrics: &Metrics, name: &str) -> Markup {
    arrow(metrics.models.iter().find_map(|model| model.metrics.get(name)).map(|found| found.better))
}

/// Which direction is good, in words.
pub(super) fn arrow(better: Option<Better>) -> Markup {
    html! {
        span class="soft" {
            @match better {
                Some(Better::Higher) => { " ↑ higher is better" }
                Some(Better::Lower) => { " ↓ lower is better" }
                Some(Better::None) | None => {}
            }
        }
    }
}

fn cell(measurement: &Measurement) -> Markup {
    html! {
        (value(measurement.value, &measurement.unit))
        @if let (Some(low), Some(high)) = (measurement.low, measurement.high) {
            span class="soft" { " [" (value(low, "")) ", " (value(high, "")) "]" }
        }
        @if let Some(share) = measurement.of_teacher {
            br;
            b { (format!("{share:.1} %")) }
            @if let (Some(low), Some(high)) = (measurement.of_teacher_low, measurement.of_teacher_high) {
                span class="soft" { (format!(" [{low:.1}, {high:.1}]")) }
            }
        }
    }
}

/// A number with its unit, rounded for reading; a percentage to one decimal.
pub(super) fn value(value: f64, unit: &str) -> String {
    match unit {
        "B" | "bytes" => units::bytes(value as u64),
        "s" => units::seconds(value),
        "%" => format!("{value:.1} %"),
        _ if value.abs() >= 1e4 => format!("{} {unit}", units::count(value as u64)).trim_end().to_owned(),
        _ if value != 0.0 && value.abs() < 1e-2 => format!("{value:.3e} {unit}").trim_end().to_owned(),
        _ => format!("{value:.4} {unit}").trim_end().to_owned(),
    }
}

/// The selection, compared with other selections of the same ratio.
fn baselines(all: &[Baseline]) -> Markup {
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
        table {
            tr { th { "selection" } th class="number" { "joint loss" } th class="number" { "relative to the selected" } th { } th class="number" { "parameters removed" } }
            @for (name, loss, removed) in &rows {
                tr class=[(name == SELECTED).then_some("chosen")] {
                    td { (name) }
                    td class="number" { (format!("{loss:.4e}")) }
                    td class="number" { @if let Some(selected) = selected { (format!("× {:.2}", loss / selected)) } }
                    td {
                        svg width="220" height="14" role="img" aria-label=(format!("{:.0} % of the largest", 100.0 * loss / largest)) {
                            rect x="0" y="2" height="10" width=(format!("{:.1}", 220.0 * loss / largest)) fill=(if name == SELECTED { "var(--two)" } else { "var(--one)" }) {}
                        }
                    }
                    td class="number" { (units::count(*removed)) }
                }
            }
        }
    }
}

/// Pictures of the same prompts and noise, model by model.
fn pictures(measured: &Measured) -> Markup {
    let models: Vec<&str> = measured.metrics.models.iter().map(|model| model.model.as_str()).collect();
    // Spread over all prompts, not only the first ones.
    let count = measured.values.prompts.len();
    let rows: Vec<usize> = (0..count.min(ROWS)).map(|row| row * count / count.min(ROWS)).collect();
    html! {
        @if models.iter().any(|model| measured.picture(model, 0).is_some()) {
            h3 { "Pictures" }
            p { "All pictures of a row have the same prompt and the same initial noise." }
            table class="pictures" {
                tr { th {} @for model in &models { th { (model) } } }
                @for index in rows {
                    tr {
                        td { (measured.values.prompts[index]) }
                        @for model in &models {
                            td { (picture(measured, model, index)) }
                        }
                    }
                }
            }
        }
    }
}

/// One picture, if it was drawn.
pub(super) fn picture(measured: &Measured, model: &str, index: usize) -> Markup {
    let source = measured.picture(model, index).map(|png| embedded(&png));
    html! {
        @if let Some(source) = source {
            img src=(source) alt=(format!("{model}: {}", measured.values.prompts[index]));
        }
    }
}
