//! A sweep in one section: curves, a table with a row for each branch, a row of pictures for each branch; and what there
//! is to say of each branch alone, folded.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::folder::{Folder, Measured, Shown};
use super::{curves, plans, quality, sections};
use crate::base::{StageId, units};
use crate::config::Axis;
use crate::metric::{Better, Measurement};
use crate::plan::Node;
use crate::run::StageRecord;
use crate::select::Plan;
use crate::stage::ArtefactKind;

/// Pictures of all branches together: some megabytes of the small ones, and no more of them than one looks at.
const PICTURES: usize = 240;
/// Of one branch.
const PICTURES_IN_A_ROW: usize = 8;

/// An evaluation of one branch, or the place where it should be.
pub(super) struct Row<'a> {
    stage: &'a StageRecord,
    measured: Option<&'a Measured>,
    pub(super) plan: Option<&'a Plan>,
}

/// One metric of one model over all rows.
pub(super) struct Curve<'a> {
    pub(super) metric: &'a str,
    pub(super) model: &'a str,
}

/// Everything that branches are compared by; one part for each stage of the file that evaluates.
pub(super) fn compared(folder: &Folder) -> Markup {
    let evaluations = nodes(folder)
        .filter(|(stage, node)| !stage.branch.is_empty() && node.output == ArtefactKind::Metrics);
    let origins: BTreeSet<&StageId> = evaluations.map(|(_, node)| node.origin()).collect();
    html! {
        @for origin in origins {
            @let rows = rows(folder, origin);
            h2 { "Sweep" @if let [axes @ .., last] = folder.record.axes.as_slice() {
                " over "
                @for axis in axes { code { (axis.parameter) } " and " }
                code { (last.parameter) }
            } ": " code { (origin) } }
            @let axes = axes(folder, &rows);
            @if let Some(example) = rows.iter().find_map(|row| row.measured) {
                @let curves = curves(example);
                (curves::plots(&axes, &rows, &curves, example))
                (table(&axes, &rows, &curves))
                (pictures(&rows, example))
            } @else {
                (table(&axes, &rows, &[]))
            }
        }
        (selections(folder))
    }
}

/// What there is to say of each branch alone.
pub(super) fn alone(folder: &Folder) -> Markup {
    html! {
        h2 { "Each branch" }
        @for (stage, shown) in &folder.shown {
            @if is_branch(folder, stage) {
                @match shown {
                    Shown::Losses(lines) => details { summary { (stage) } (sections::losses(stage, lines)) }
                    Shown::Metrics(measured) => details { summary { (stage) } (quality::numbers(stage, measured)) }
                    _ => {}
                }
            }
        }
    }
}

/// The plans of all branches.
fn selections(folder: &Folder) -> Markup {
    let label = |stage: &str| folder.record.stage(stage).map(label).unwrap_or_default();
    let plans = folder.plans().into_iter().filter(|(stage, _)| is_branch(folder, stage));
    let plans: Vec<_> = plans.map(|(stage, plan)| (label(stage), plan)).collect();
    let named: Vec<_> = plans.iter().map(|(label, plan)| (label.as_str(), *plan)).collect();
    html! {
        h2 { "Selections" }
        @if let Some(scores) = folder.scores() { (plans::draw(&plans::of(&named, scores), scores)) }
        @for (stage, shown) in &folder.shown {
            @if let Shown::Plan(plan) = shown && is_branch(folder, stage) {
                details { summary { (stage) } (sections::plan(plan)) }
            }
        }
    }
}

pub(super) fn is_branch(folder: &Folder, stage: &str) -> bool {
    folder.record.stage(stage).is_some_and(|stage| !stage.branch.is_empty())
}

/// The stages with their places in the graph.
fn nodes(folder: &Folder) -> impl Iterator<Item = (&StageRecord, &Node)> {
    folder.record.stages.iter().zip(folder.record.graph.stages())
}

fn rows<'a>(folder: &'a Folder, origin: &StageId) -> Vec<Row<'a>> {
    let shown = |stage: &StageRecord| {
        folder.shown.iter().find(|(id, _)| *id == stage.id.as_str()).map(|(_, shown)| shown)
    };
    let row = |stage: &'a StageRecord| {
        // The last one that no other branch has.
        let mut plans =
            folder.record.stages.iter().rev().filter(|other| {
                other.branch.iter().all(|(axis, value)| stage.branch.get(axis) == Some(value))
            });
        let plan = plans.find_map(|other| match shown(other) {
            Some(Shown::Plan(plan)) => Some(&**plan),
            _ => None,
        });
        let measured = match shown(stage) {
            Some(Shown::Metrics(measured)) => Some(&**measured),
            _ => None,
        };
        Row { stage, measured, plan }
    };
    nodes(folder).filter(|(_, node)| node.origin() == origin).map(|(stage, _)| row(stage)).collect()
}

/// The axes that reach the rows.
fn axes<'a>(folder: &'a Folder, rows: &[Row<'_>]) -> Vec<&'a Axis> {
    folder.record.axes.iter().filter(|axis| rows.iter().any(|row| !row.value(axis).is_empty())).collect()
}

impl<'a> Row<'a> {
    pub(super) fn value(&self, axis: &Axis) -> &'a str {
        self.stage.branch.get(&axis.name).map_or("", String::as_str)
    }

    pub(super) fn find(&self, curve: &Curve<'_>) -> Option<&'a Measurement> {
        let measured = self.measured?;
        let timed = || measured.timings.as_ref()?.get(curve.model, curve.metric);
        measured.metrics.get(curve.model, curve.metric).or_else(timed)
    }
}

/// A branch's values; a number needs the name of its axis beside it.
fn label(stage: &StageRecord) -> String {
    let value = |(axis, value): (&String, &String)| match value.parse::<f64>() {
        Ok(_) => format!("{axis} {value}"),
        Err(_) => value.clone(),
    };
    stage.branch.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// Every metric of every model but the teacher.
fn curves(example: &Measured) -> Vec<Curve<'_>> {
    let all = std::iter::once(&example.metrics).chain(&example.timings);
    let models =
        all.flat_map(|metrics| &metrics.models).filter(|model| model.model != example.metrics.teacher);
    let mut curves: Vec<_> = models
        .flat_map(|model| model.metrics.keys().map(|metric| Curve { metric, model: &model.model }))
        .collect();
    curves.sort_by_key(|curve| place(example, curve));
    curves
}

/// Quality before size, what lasts before time and memory, and metric by metric.
fn place<'a>(example: &'a Measured, curve: &Curve<'a>) -> (bool, bool, &'a str) {
    let found = example.metrics.get(curve.model, curve.metric);
    (found.is_none(), found.is_none_or(|found| found.count == 1), curve.metric)
}

fn table(axes: &[&Axis], rows: &[Row<'_>], curves: &[Curve<'_>]) -> Markup {
    let predicted = |row: &Row<'_>| row.plan.and_then(|plan| plan.predicted.gram.or(plan.predicted.additive));
    let (plans, predictions) =
        (rows.iter().any(|row| row.plan.is_some()), rows.iter().any(|row| predicted(row).is_some()));
    html! {
        div class="scroll" { table class="sweep" {
            tr {
                @for axis in axes { th { (axis.name) } }
                @if plans { th class="number" { "removed" } th class="number" { "units" } }
                @if predictions { th class="number" { "predicted loss" } }
                @for curve in curves { th class="number" { (curve.metric) br; span class="soft" { (curve.model) } } }
            }
            @for row in rows {
                tr {
                    @for axis in axes { td { (row.value(axis)) } }
                    @if plans {
                        td class="number" { @if let Some(plan) = row.plan { (format!("{:.1} %", 100.0 * plan.ratio_reached)) } }
                        td class="number" { @if let Some(plan) = row.plan { (plan.removed.len()) } }
                    }
                    @if predictions {
                        td class="number" { @if let Some(loss) = predicted(row) { (format!("{loss:.3e}")) } }
                    }
                    @if row.measured.is_none() {
                        td class="bad" colspan=(curves.len().max(1)) {
                            (row.stage.state) @if let Some(error) = &row.stage.error { ": " (error) }
                        }
                    } @else {
                        @for curve in curves {
                            td class="number" { @if let Some(found) = row.find(curve) { (number(found, is_best(rows, row, curve, axes))) } }
                        }
                    }
                }
            }
        } }
        p class="soft" {
            "With 95 % bootstrap intervals."
            @if axes.len() > 1 { " Bold: the best of all branches that differ in " code { (axes[0].name) } " alone." }
        }
    }
}

fn number(found: &Measurement, is_best: bool) -> Markup {
    let text = quality::value(found.value, &found.unit);
    html! {
        @if is_best { b { (text) } } @else { (text) }
        @if let (Some(low), Some(high)) = (found.low, found.high) {
            br; span class="soft" { (quality::value(low, "")) " – " (quality::value(high, "")) }
        }
    }
}

/// Whether no branch that differs in the first axis alone is better; where there is but one axis, none is told.
fn is_best(rows: &[Row<'_>], row: &Row<'_>, curve: &Curve<'_>, axes: &[&Axis]) -> bool {
    let Some(own) = row.find(curve).filter(|found| axes.len() > 1 && found.count > 1) else { return false };
    let rivals =
        rows.iter().filter(|other| axes[1..].iter().all(|axis| other.value(axis) == row.value(axis)));
    rivals.filter_map(|other| other.find(curve)).all(|other| match own.better {
        Better::Higher => own.value >= other.value,
        Better::Lower => own.value <= other.value,
        Better::None => false,
    })
}

/// The same prompts and the same noise, branch by branch.
fn pictures(rows: &[Row<'_>], example: &Measured) -> Markup {
    let teacher = example.metrics.teacher.as_str();
    let students: Vec<&str> = example
        .metrics
        .models
        .iter()
        .map(|model| model.model.as_str())
        .filter(|model| *model != teacher)
        .collect();
    let count = example.values.prompts.len();
    let shown = (PICTURES / (rows.len() * students.len()).max(1)).clamp(1, PICTURES_IN_A_ROW).min(count);
    let prompts: Vec<usize> = (0..shown).map(|column| column * count / shown).collect();
    let line = |measured: &Measured, model: &str| {
        html! {
            @for &index in &prompts {
                td { (quality::picture(measured, model, index)) }
            }
        }
    };
    html! {
        @if example.picture(teacher, 0).is_some() {
            h3 { "Pictures" }
            p { "Each column has one prompt and one initial noise." }
            div class="scroll" { table class="pictures" {
                tr { th {} th {} @for &index in &prompts { th { (example.values.prompts[index]) } } }
                tr { td { (teacher) } td {} (line(example, teacher)) }
                @for row in rows {
                    @if let Some(measured) = row.measured {
                        @for model in &students { tr { td { (label(row.stage)) } td class="soft" { (model) } (line(measured, model)) } }
                    }
                }
            } }
        }
    }
}

/// The numbers of a sweep that one wants to see first.
pub(super) fn cards(folder: &Folder) -> Vec<(String, String)> {
    let record = &folder.record;
    let combinations: usize = record.axes.iter().map(|axis| axis.values.len()).product();
    let mut cards = vec![
        ("combinations".to_owned(), combinations.to_string()),
        ("stages".to_owned(), record.stages.len().to_string()),
    ];
    let plan = folder.plan().map(|plan| units::count(plan.unet_parameters));
    cards.extend(plan.map(|parameters| ("U-Net parameters".to_owned(), parameters)));
    cards
}
