//! The page from top to bottom: the results, how they were obtained, and what is needed to reproduce them.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::folder::{Folder, Shown};
use super::{quality, sections, selections, sweep, verdict};
use crate::base::units;
use crate::metric::{METRICS, ModelMetrics, Prominence};
use crate::plan;
use crate::run::{RunRecord, StageState};
use crate::select::Selection;

/// The page of one run, or of several runs one below the other.
pub(super) fn page(folders: &[Folder]) -> Markup {
    let names: Vec<&str> = folders.iter().map(|folder| folder.record.name.as_str()).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (names.join(", ")) " · laptop-diff" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                @if folders.len() > 1 { (side_by_side(folders)) }
                @for folder in folders { (run(folder)) }
            }
        }
    }
}

fn run(folder: &Folder) -> Markup {
    let record = &folder.record;
    let is_sweep = !record.axes.is_empty();
    let alone = || folder.shown.iter().filter(|(stage, _)| !sweep::is_branch(folder, stage));
    html! {
        header {
            h1 { (record.name) }
            p class="soft" {
                "laptop-diff " (record.program) " · " (record.started)
                @if let Some(seconds) = record.seconds { " · " (units::seconds(seconds)) }
                @if record.axes.iter().all(|axis| axis.parameter != "seed") { " · seed " (record.seed) }
                " · " (record.device.class)
            }
            @if let Some(unfinished) = &folder.unfinished { p { b { (unfinished) } } }
        }
        (cards(folder))
        (verdict::section(folder))
        h2 { "Pipeline" }
        figure { (PreEscaped(plan::svg(&record.graph.folded()))) }
        @if is_sweep { (sweep::compared(folder)) }
        @for (stage, shown) in alone() {
            @if let Shown::Metrics(measured) = shown { (quality::measured(stage, measured)) }
        }
        @for (stage, shown) in alone() {
            @match shown {
                Shown::Scores(scores) => (sections::scores(scores, folder.selection().filter(|_| !is_sweep))),
                Shown::Selection(selection) => {
                    (sections::selection(selection))
                    @if let Some(scores) = folder.scores_of(stage) { (selections::section(stage, selection, scores)) }
                }
                Shown::Training(training) => (training.section(stage)),
                Shown::Unreadable(why) => (sections::unreadable(stage, why)),
                Shown::Metrics(_) | Shown::Export(_) => {}
            }
        }
        @if is_sweep {
            (sweep::alone(folder))
        } @else if folder.selections().nth(1).is_some() {
            h2 { "Selections side by side" }
            @let scored = folder.selections().filter_map(|(stage, selection)| Some((stage.to_owned(), selection, folder.scores_of(stage)?)));
            (selections::side_by_side(&scored.collect::<Vec<_>>()))
        }
        (sections::exports(&folder.exports()))
        (provenance(record))
    }
}

/// The most important numbers of a run.
fn cards(folder: &Folder) -> Markup {
    let mut cards = match folder.selection().filter(|_| folder.record.axes.is_empty()) {
        Some(selection) => of_selection(selection),
        None if folder.record.axes.is_empty() => Vec::new(),
        None => sweep::cards(folder),
    };
    let alone = folder.shown.iter().filter(|(stage, _)| !sweep::is_branch(folder, stage));
    cards.extend(alone.flat_map(|(_, shown)| of_evaluation(shown)));
    let failed = folder.record.count(StageState::Failed);
    if failed > 0 {
        cards.push(("failed stages".to_owned(), failed.to_string()));
    }
    html! {
        div class="cards" {
            @for (name, value) in &cards { div class="card" { span class="soft" { (name) } b { (value) } } }
        }
    }
}

fn of_selection(selection: &Selection) -> Vec<(String, String)> {
    let before = selection.unet_parameters;
    let after = before - selection.removed_parameters;
    vec![
        ("U-Net parameters".to_owned(), format!("{} → {}", units::count(before), units::count(after))),
        ("removed".to_owned(), format!("{:.1} %", 100.0 * selection.ratio_reached)),
        ("units removed".to_owned(), selection.removed.len().to_string()),
    ]
}

/// The prominent metrics of each student, in percent of the teacher.
fn of_evaluation(shown: &Shown) -> Vec<(String, String)> {
    let Shown::Metrics(measured) = shown else { return Vec::new() };
    let metrics = &measured.metrics;
    let students = metrics.models.iter().filter(|model| model.model != metrics.teacher);
    let cards = students.flat_map(|model| {
        prominent(Prominence::Card).filter_map(|name| {
            let found = model.metrics.get(name)?;
            let (what, share) = match (&found.retained, found.of_teacher) {
                (Some(retained), _) => ("retained, ", retained.value),
                (None, Some(share)) => ("", share),
                (None, None) => return None,
            };
            Some((format!("{name} {what}{}", model.model), format!("{share:.1} %")))
        })
    });
    cards.collect()
}

/// The names of the metrics that are at least so prominent.
fn prominent(least: Prominence) -> impl Iterator<Item = &'static str> {
    METRICS.iter().filter(move |metric| metric.prominence() >= least).map(|metric| metric.name())
}

/// Several runs, one row per model.
fn side_by_side(folders: &[Folder]) -> Markup {
    html! {
        h1 { "Runs side by side" }
        table {
            tr {
                th { "run" } th class="number" { "asked" } th class="number" { "removed" } th { "model" }
                @for name in prominent(Prominence::Comparison) { th class="number" { (name) } }
            }
            @for folder in folders {
                @for (stage, shown) in &folder.shown {
                    @if let Shown::Metrics(measured) = shown {
                        @for model in &measured.metrics.models { (compared(folder, stage, model)) }
                    }
                }
            }
        }
    }
}

fn compared(folder: &Folder, stage: &str, model: &ModelMetrics) -> Markup {
    let selection = folder.selection().filter(|_| folder.record.axes.is_empty());
    html! {
        tr {
            td { (folder.record.name) @if sweep::is_branch(folder, stage) { " " (stage) } }
            @if let Some(selection) = selection {
                td class="number" { (format!("{:.1} %", 100.0 * selection.ratio_asked)) }
                td class="number" { (format!("{:.1} %", 100.0 * selection.ratio_reached)) }
            } @else { td {} td {} }
            td { (model.model) }
            @for name in prominent(Prominence::Comparison) {
                td class="number" {
                    @if let Some(found) = model.metrics.get(name) { (quality::value(found.value, &found.unit)) }
                }
            }
        }
    }
}

fn provenance(record: &RunRecord) -> Markup {
    html! {
        h2 { "Provenance" }
        table {
            tr { th { "stage" } th { "use" } th { "state" } th class="number" { "time" } th class="number" { "size" } th class="number" { "peak memory" } th { "key" } th { "digest" } }
            @for stage in &record.stages {
                tr {
                    td { (stage.id) }
                    td { (stage.stage) "@" (stage.version) }
                    td { (stage.state) }
                    @if let Some(artefact) = &stage.artefact {
                        td class="number" { (units::seconds(artefact.seconds)) }
                        td class="number" { (units::bytes(artefact.bytes)) }
                        td class="number" { @if let Some(bytes) = artefact.peak_bytes { (units::bytes(bytes)) } }
                    } @else { td {} td {} td {} }
                    td class="mono" { @if let Some(key) = &stage.key { (key.short()) } }
                    td class="mono" { @if let Some(artefact) = &stage.artefact { (artefact.digest.short()) } }
                }
                @if let Some(error) = &stage.error { tr { td {} td colspan="7" class="bad" { (error) } } }
            }
        }
        details {
            summary { "The values that make up each key" }
            @for stage in &record.stages {
                @if let Some(manifest) = &stage.manifest {
                    h3 { (stage.id) }
                    table {
                        @for (name, value) in manifest.entries() { tr { td { (name) } td class="mono" { (value) } } }
                    }
                }
            }
        }
        details { summary { "The pipeline file" } pre { (record.pipeline) } }
    }
}
