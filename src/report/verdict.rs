//! The verdict of a run, first on its page: what went in, what came out, the quality that is left, and the gates.

use maud::{Markup, html};

use super::folder::{Folder, Measured, Shown};
use super::{digits, quality, sweep};
use crate::base::units;
use crate::metric::{Measurement, Verdict};
use crate::run::StageRecord;

/// The verdicts of all evaluations outside a sweep, and all gates.
pub(super) fn section(folder: &Folder) -> Markup {
    let alone = folder.shown.iter().filter(|(stage, _)| !sweep::is_branch(folder, stage));
    let measured: Vec<&Measured> = alone
        .filter_map(|(_, shown)| match shown {
            Shown::Metrics(measured) => Some(&**measured),
            _ => None,
        })
        .collect();
    let gates: Vec<(&StageRecord, &Verdict)> = folder.record.gates().collect();
    html! {
        @if !measured.is_empty() || !gates.is_empty() { h2 { "Verdict" } }
        @for measured in measured {
            @for model in measured.metrics.models.iter().filter(|model| model.model != measured.metrics.teacher) {
                (table(measured, &model.model))
            }
        }
        @if !gates.is_empty() { (gates_of(&gates)) }
    }
}

/// One student beside its teacher.
fn table(measured: &Measured, model: &str) -> Markup {
    let teacher = &measured.metrics.teacher;
    let all = std::iter::once(&measured.metrics).chain(&measured.timings);
    let mut rows: Vec<(&str, &Measurement, Option<&Measurement>)> = all
        .flat_map(|metrics| {
            let own = metrics.models.iter().find(|one| one.model == model);
            own.into_iter()
                .flat_map(|own| &own.metrics)
                .map(|(name, found)| (name.as_str(), found, metrics.get(teacher, name)))
        })
        .collect();
    // Size and speed before quality.
    rows.sort_by_key(|(_, found, _)| found.paired.is_some());
    html! {
        table {
            caption { code { (model) } " against " code { (teacher) } ", on the same prompts and the same noise, with 95 % intervals over prompts" }
            tr {
                th { "" } th class="number" { (teacher) } th class="number" { (model) }
                th class="number" { "of the teacher" } th class="number" { "retained above the floor" }
                th class="number" { "difference" } th class="number" { "better on" }
            }
            @for (name, found, before) in rows { (row(name, found, before)) }
        }
        p class="soft" {
            "Retained: (model − floor) / (teacher − floor). The floor is the score of the teacher's pictures with shuffled captions: \
             scores of CLIP models lie in a narrow band, so the plain percentage flatters every model."
        }
    }
}

fn row(name: &str, found: &Measurement, teacher: Option<&Measurement>) -> Markup {
    let value = |measured: &Measurement| match measured.paired.or(found.paired) {
        Some(_) => digits::estimate(measured.value, measured.low, measured.high, ""),
        None => quality::value(measured.value, &measured.unit),
    };
    let paired = found.paired.as_ref();
    html! {
        tr {
            td { (name) (quality::arrow(Some(found.better))) }
            td class="number" { @if let Some(teacher) = teacher { (value(teacher)) } }
            td class="number" { (value(found)) }
            td class="number" {
                @if let Some(share) = found.of_teacher {
                    (digits::estimate(share, found.of_teacher_low, found.of_teacher_high, "%"))
                }
            }
            td class="number" {
                @if let Some(kept) = &found.retained { b { (digits::estimate(kept.value, kept.low, kept.high, "%")) } }
                @if let Some(floor) = found.floor { br; span class="soft" { "floor " (quality::value(floor, &found.unit)) } }
            }
            td class="number" {
                @if let Some(paired) = paired {
                    (digits::estimate(paired.difference.value, paired.difference.low, paired.difference.high, ""))
                    (needed(paired.prompts_for(0.01 * teacher.map_or(0.0, |teacher| teacher.value.abs()))))
                }
            }
            td class="number" {
                @if let Some(paired) = paired {
                    (digits::estimate(paired.wins.value, paired.wins.low, paired.wins.high, "%"))
                }
            }
        }
    }
}

/// How many prompts a finer answer would need.
fn needed(prompts: Option<f64>) -> Markup {
    html! {
        @if let Some(prompts) = prompts.filter(|prompts| *prompts > 0.0) {
            br;
            span class="soft" { (units::count(prompts as u64)) " prompts for ±1 % of the teacher" }
        }
    }
}

fn gates_of(gates: &[(&StageRecord, &Verdict)]) -> Markup {
    html! {
        table {
            tr { th { "stage" } th { "gate" } th class="number" { "found" } th { "" } }
            @for (stage, verdict) in gates {
                tr {
                    td { (stage.id) }
                    td class="mono" { (verdict.gate) }
                    td class="number" { @if let Some(found) = verdict.found { (format!("{found:.6}")) } }
                    @if verdict.met { td { "met" } } @else { td class="bad" { b { "not met" } } }
                }
            }
        }
    }
}
