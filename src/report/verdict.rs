//! The verdict of a run, first on its page: what went in, what came out, the quality that is left, and the gates.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::folder::{Folder, Measured, Shown};
use super::tables::scroll;
use super::{chart, digits, sweep, values};
use crate::metric::{self, METRICS, Measurement, Metric, ModelMetrics, Prominence, Verdict};
use crate::run::StageRecord;

/// What a model costs, in the order of the table; other costs follow.
const COSTS: [&str; 4] = ["parameters", "macs", "latency", "peak-memory"];

/// The verdicts of all evaluations outside a sweep, and all gates.
pub(super) fn section(folder: &Folder) -> Markup {
    let alone = folder.shown.iter().filter(|(stage, _)| !sweep::is_branch(folder, stage));
    let measured: Vec<(&str, &Measured)> = alone
        .filter_map(|(stage, shown)| match shown {
            Shown::Metrics(measured) => Some((stage.as_str(), &**measured)),
            _ => None,
        })
        .collect();
    let gates: Vec<(&StageRecord, &Verdict)> = folder.record.gates().collect();
    html! {
        @if !measured.is_empty() || !gates.is_empty() { h2 { "Verdict" } }
        @for (stage, one) in &measured {
            @if measured.len() > 1 { h3 { code { (stage) } } }
            (headline(one))
            (table(one))
        }
        @if !gates.is_empty() { (gates_of(&gates)) }
    }
}

/// A model's measurements, reproducible or not.
fn all_of<'a>(measured: &'a Measured, model: &str) -> BTreeMap<&'a str, &'a Measurement> {
    let files = std::iter::once(&measured.metrics).chain(&measured.timings);
    let own = files.flat_map(|metrics| &metrics.models).filter(|one| one.model == model);
    own.flat_map(|one| &one.metrics).map(|(name, found)| (name.as_str(), found)).collect()
}

fn students(measured: &Measured) -> impl Iterator<Item = &ModelMetrics> {
    measured.metrics.models.iter().filter(|model| model.model != measured.metrics.teacher)
}

/// The share of the teacher's quality that a model keeps: above the floor if that was measured.
fn share(found: &Measurement) -> Option<(f64, Option<f64>, Option<f64>)> {
    match &found.retained {
        Some(retained) => Some((retained.value, retained.low, retained.high)),
        None => Some((found.of_teacher?, found.of_teacher_low, found.of_teacher_high)),
    }
}

/// The last student in one sentence.
fn headline(measured: &Measured) -> Markup {
    let Some(student) = students(measured).last().map(|model| model.model.as_str()) else { return html! {} };
    let found = all_of(measured, student);
    let prominent = METRICS.iter().filter(|metric| metric.prominence() == Prominence::Card);
    let kept: Vec<Markup> = prominent
        .filter_map(|metric| {
            let (value, low, high) = share(found.get(metric.name())?)?;
            let (value, interval) = digits::apart(value, low, high, "%");
            Some(html! {
                b { (value) } @if let Some(interval) = interval { " " span class="soft" { (interval) } }
                " of " (metric.title())
            })
        })
        .collect();
    let costs: Vec<Markup> = COSTS
        .iter()
        .filter_map(|name| {
            let share = found.get(name)?.of_teacher?;
            Some(html! { b { (digits::estimate(share, None, None, "%")) } " of the " (in_words(name)) })
        })
        .collect();
    if kept.is_empty() && costs.is_empty() {
        return html! {};
    }
    html! {
        p class="headline" {
            code { (student) }
            @if kept.is_empty() { " has " } @else { " keeps " (listed(&kept)) @if !costs.is_empty() { ", with " } }
            (listed(&costs)) "."
        }
    }
}

/// `a, b and c`.
fn listed(parts: &[Markup]) -> Markup {
    html! {
        @for (index, part) in parts.iter().enumerate() {
            @if index > 0 { @if index + 1 == parts.len() { " and " } @else { ", " } }
            (part)
        }
    }
}

fn in_words(name: &str) -> String {
    metric::find(name).map_or_else(|_| name.to_owned(), Metric::title)
}

/// Where a metric stands in the table: costs first, then in the order of the table of metrics, then scores from outside.
fn place(name: &str) -> usize {
    let cost = COSTS.iter().position(|cost| *cost == name);
    let metric = || METRICS.iter().position(|metric| metric.name() == name);
    cost.unwrap_or_else(|| COSTS.len() + metric().unwrap_or(METRICS.len()))
}

/// All models beside each other: costs, then quality.
fn table(measured: &Measured) -> Markup {
    let teacher = measured.metrics.teacher.as_str();
    let models: Vec<&str> =
        std::iter::once(teacher).chain(students(measured).map(|one| one.model.as_str())).collect();
    let found: Vec<BTreeMap<&str, &Measurement>> =
        models.iter().map(|model| all_of(measured, model)).collect();
    let mut names: Vec<&str> = found.iter().flat_map(BTreeMap::keys).copied().collect();
    names.sort_by_key(|name| (place(name), *name));
    names.dedup();
    // A cost is measured on the model alone.
    let is_cost = |name: &&str| metric::find(name).is_ok_and(|metric| metric.needs().is_empty());
    let (costs, qualities): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_cost);
    let row = |name: &str, is_cost: bool| {
        let own: Vec<Option<&Measurement>> = found.iter().map(|one| one.get(name).copied()).collect();
        let sample = own.iter().flatten().next_back();
        html! {
            tr {
                th scope="row" {
                    (in_words(name))
                    @if let Some(found) = sample.filter(|_| !is_cost) { " " span class="soft" { (values::sign(found.better)) } }
                    @if sample.is_some_and(|found| found.retained.is_some()) { small { "retained" } }
                }
                @for one in own { td { @if let Some(one) = one { (cell(one, is_cost)) } @else { "–" } } }
            }
        }
    };
    let metrics = &measured.metrics;
    html! {
        (scroll("Verdict", &html! {
            table class="verdict" {
                thead { tr { th {} @for model in &models { th scope="col" { (model) } } } }
                @if !costs.is_empty() { tbody { @for name in costs { (row(name, true)) } } }
                @if !qualities.is_empty() { tbody { @for name in qualities { (row(name, false)) } } }
            }
        }))
        p class="soft" {
            "Quality: means over " (metrics.prompts) " prompts"
            @if let Some(set) = metrics.prompts_from.as_ref().and_then(|from| from.set.as_ref()) { " of " code { (set) } }
            @if metrics.seeds > 1 { " with " (metrics.seeds) " pictures each" }
            ", the same prompts and noise for every model, with 95 % intervals over prompts. The mark in a bar is the teacher. "
            @if found.iter().flat_map(BTreeMap::values).any(|found| found.retained.is_some()) {
                "Retained: (model − floor) / (teacher − floor). The floor is the score of the teacher's pictures with shuffled captions, "
                "or that of pictures of noise, if it is better."
            }
        }
        (unavailable(measured))
    }
}

/// The share of the teacher, the value, and a bar that shows the share with its interval.
fn cell(found: &Measurement, is_cost: bool) -> Markup {
    let unit = if found.unit == "%" { "%" } else { "" };
    let (value, interval) = match found.low.filter(|_| !is_cost) {
        Some(_) => digits::apart(found.value, found.low, found.high, unit),
        None => (values::value(found.value, &found.unit), None),
    };
    let Some((share, low, high)) = share(found) else {
        return html! { b { (value) } @if let Some(interval) = interval { small { (interval) } } };
    };
    let (kept, around) = digits::apart(share, low, high, "%");
    html! {
        @if is_cost {
            b { (value) } small { (kept) }
        } @else {
            b { (kept) } @if let Some(around) = around { small { (around) } }
        }
        (bar(share, low, high))
        @if !is_cost { small { (value) } }
    }
}

/// The right end of a bar, in percent of the teacher.
const END: f64 = 120.0;

/// A share of the teacher as a bar, with a whisker for the interval and a mark at 100 %.
fn bar(share: f64, low: Option<f64>, high: Option<f64>) -> Markup {
    let at = |value: f64| format!("{:.1}", value.clamp(0.0, END));
    html! {
        svg class="bar" viewBox=(format!("0 0 {END} 10")) preserveAspectRatio="none" aria-hidden="true" {
            rect class="ground" x="0" y="3" width=(END) height="4" {}
            rect class="share" x="0" y="3" width=(at(share)) height="4" {}
            @if let (Some(low), Some(high)) = (low, high) {
                path class="whisker" d=(format!("M{} 5H{}", at(low), at(high))) {}
            }
            path class="whole" d="M100 0V10" {}
        }
    }
}

/// What could not be measured, and why.
fn unavailable(measured: &Measured) -> Markup {
    let files = std::iter::once(&measured.metrics).chain(&measured.timings);
    let models = files.flat_map(|metrics| &metrics.models);
    let all: Vec<(&str, &str, &str)> = models
        .flat_map(|model| {
            model.unavailable.iter().map(|(name, why)| (model.model.as_str(), name.as_str(), why.as_str()))
        })
        .collect();
    html! {
        @if !all.is_empty() {
            ul class="soft" { @for (model, name, why) in all { li { (in_words(name)) " of " (model) " was not measured: " (why) } } }
        }
    }
}

fn gates_of(gates: &[(&StageRecord, &Verdict)]) -> Markup {
    let met = gates.iter().filter(|(_, verdict)| verdict.met).count();
    html! {
        h3 { "Gates: " (met) " of " (gates.len()) " met" }
        ul class="gates" {
            @for (stage, verdict) in gates {
                li class=(if verdict.met { "good" } else { "bad" }) {
                    b { @if verdict.met { "✓ met" } @else { "✗ not met" } } " "
                    code { (verdict.gate) }
                    span class="soft" {
                        " (" (stage.id) ": " @if let Some(found) = verdict.found { "found " (chart::number(found)) } @else { "not found" } ")"
                    }
                }
            }
        }
    }
}
