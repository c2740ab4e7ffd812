//! A sweep in one section: curves, a table and pictures with one row per branch, and the details of each branch, folded.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::folder::{Folder, Measured, Shown};
use super::rows::{Curve, Row, axes, curves, label, nodes, rows};
use super::tables::scroll;
use super::{agreement, embedded, quality, reconstructed, sections, selections, values};
use crate::base::{ArtefactKind, StageId};
use crate::config::Axis;
use crate::metric::{Better, Measurement};
use crate::run::StageRecord;

/// The largest number of pictures of all branches together: some megabytes, and no more than a reader looks at.
const PICTURES: usize = 240;
/// The largest number of pictures of one branch.
const PICTURES_IN_A_ROW: usize = 8;

/// The comparison of branches, with a part for each evaluating stage of the pipeline file.
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
            @let curves = curves(&rows);
            (super::curves::plots(&axes, &rows, &curves))
            (table(&axes, &rows, &curves))
            (agreement::tables(&rows, &curves))
            (pictures(&rows, folder.room))
        }
        (selections(folder))
    }
}

/// The details of each branch.
pub(super) fn alone(folder: &Folder) -> Markup {
    let told = |(stage, shown): &'_ (String, Shown)| match shown {
        Shown::Scores(scores) => Some(sections::scores(scores, None)),
        Shown::Training(training) => Some(training.section(stage, folder.room)),
        Shown::Metrics(measured) => Some(quality::numbers(stage, measured)),
        Shown::Reconstruction(record) => Some(reconstructed::section(stage, record)),
        Shown::Unreadable(why) => Some(sections::unreadable(stage, why)),
        // Shown among the selections and the exports.
        Shown::Selection(_) | Shown::Export(_) => None,
    };
    let branches = folder.shown.iter().filter(|(stage, _)| is_branch(folder, stage));
    let told: Vec<_> = branches.filter_map(|one| Some((&one.0, told(one)?))).collect();
    html! {
        @if !told.is_empty() { h2 { "Each branch" } }
        @for (stage, told) in &told { details { summary { (stage) } (told) } }
    }
}

/// The selections of all branches.
fn selections(folder: &Folder) -> Markup {
    let label = |stage: &str| folder.record.stage(stage).map(label).unwrap_or_default();
    let selections: Vec<_> = folder.selections().filter(|(stage, _)| is_branch(folder, stage)).collect();
    let scored = selections
        .iter()
        .filter_map(|(stage, selection)| Some((label(stage), *selection, folder.scores_of(stage)?)));
    html! {
        @if !selections.is_empty() { h2 { "Selections" } }
        (selections::side_by_side(&scored.collect::<Vec<_>>()))
        @for (stage, selection) in &selections { details { summary { (stage) } (sections::selection(selection)) } }
    }
}

pub(super) fn is_branch(folder: &Folder, stage: &str) -> bool {
    folder.record.stage(stage).is_some_and(|stage| !stage.branch.is_empty())
}

fn table(axes: &[&Axis], rows: &[Row<'_>], curves: &[Curve<'_>]) -> Markup {
    let predicted = |row: &Row<'_>| {
        row.selection.and_then(|selection| selection.predicted.gram.or(selection.predicted.additive))
    };
    let (selections, predictions) =
        (rows.iter().any(|row| row.selection.is_some()), rows.iter().any(|row| predicted(row).is_some()));
    html! {
        (scroll("Branches", &html! { table class="sweep" {
            tr {
                @for axis in axes { th { (axis.name) } }
                @if selections { th class="number" { "removed" } th class="number" { "units" } }
                @if predictions { th class="number" { "predicted loss" } }
                @for curve in curves { th class="number" { (curve.metric) br; span class="soft" { (curve.model) } } }
            }
            @for row in rows {
                tr {
                    @for axis in axes { td { (row.value(axis)) } }
                    @if selections {
                        td class="number" { @if let Some(selection) = row.selection { (format!("{:.1} %", 100.0 * selection.ratio_reached)) } }
                        td class="number" { @if let Some(selection) = row.selection { (selection.removed.len()) } }
                    }
                    @if predictions {
                        td class="number" { @if let Some(loss) = predicted(row) { (super::chart::number(loss)) } }
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
        } }))
        p class="soft" {
            "With 95 % bootstrap intervals."
            @if axes.len() > 1 { " Bold: the best of the branches that differ only in " code { (axes[0].name) } "." }
        }
    }
}

fn number(found: &Measurement, is_best: bool) -> Markup {
    let text = values::value(found.value, &found.unit);
    html! {
        @if is_best { b { (text) } } @else { (text) }
        @if let (Some(low), Some(high)) = (found.low, found.high) {
            br; span class="soft" { (values::value(low, "")) " – " (values::value(high, "")) }
        }
    }
}

/// Whether no branch that differs only in the first axis is better. False if there is only one axis.
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

/// Pictures of the same prompts, branch by branch. A teacher with equal pictures in all branches has one row.
fn pictures(rows: &[Row<'_>], room: usize) -> Markup {
    let drawn: Vec<(&StageRecord, &Measured)> =
        rows.iter().filter_map(|row| Some((row.stage, row.measured?))).collect();
    let Some(&(_, first)) = drawn.first() else { return html! {} };
    let teacher = first.metrics.teacher.as_str();
    if first.picture(teacher, 0).is_none() {
        return html! {};
    }
    let prompts = &first.values.prompts;
    if drawn.iter().any(|(_, other)| other.values.prompts != *prompts) {
        return html! { p { "The branches drew different prompts, so their pictures cannot be compared." } };
    }
    let models = drawn.iter().map(|(_, one)| one.metrics.models.len()).sum::<usize>();
    let shown = (PICTURES / models.max(1)).clamp(1, PICTURES_IN_A_ROW).min(prompts.len());
    let columns: Vec<usize> = (0..shown).map(|column| column * prompts.len() / shown).collect();
    let is_shared = drawn.iter().all(|(_, other)| {
        other.metrics.teacher == teacher
            && columns.iter().all(|&index| other.picture(teacher, index) == first.picture(teacher, index))
    });
    let mut lines: Vec<(String, &Measured, &str)> = Vec::new();
    lines.extend(is_shared.then(|| (teacher.to_owned(), first, teacher)));
    for (stage, measured) in &drawn {
        let own = measured.metrics.models.iter().filter(|model| !is_shared || model.model != teacher);
        lines.extend(own.map(|model| (label(stage), *measured, model.model.as_str())));
    }
    let drawings = lines
        .iter()
        .flat_map(|(_, measured, model)| columns.iter().map(|&index| measured.picture(model, index)));
    let drawings: Vec<Option<Vec<u8>>> = drawings.collect();
    let is_tiny = drawings.iter().flatten().all(|png| embedded::is_tiny(png));
    let sources = embedded::sources(drawings, room);
    html! {
        h3 { "Pictures" }
        p { "All pictures of a column have the same prompt and, for one seed, the same initial noise." }
        (scroll("Pictures of all branches", &html! {
            table class=(if is_tiny { "pictures tiny" } else { "pictures" }) {
                tr { th {} th {} @for &index in &columns { th { (prompts[index]) } } }
                @for ((name, _, model), row) in lines.iter().zip(sources.chunks(columns.len())) {
                    tr {
                        td { (name) }
                        td class="soft" { @if model != name { (model) } }
                        @for (source, &index) in row.iter().zip(&columns) {
                            td { @if let Some(source) = source { img src=(source) alt=(format!("{model}: {}", prompts[index])); } }
                        }
                    }
                }
            }
        }))
    }
}
