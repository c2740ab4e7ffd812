//! The page from top to bottom: what came out, how it came about, and what one needs to do it again.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::folder::{Folder, Shown};
use super::{quality, sections, selections, sweep};
use crate::base::units;
use crate::plan;
use crate::run::{RunRecord, StageState};

/// The whole page of one run, or of several one below the other.
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
        }
        (cards(folder))
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
                Shown::Losses(lines) => (sections::losses(stage, lines)),
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

/// The handful of numbers that one wants to see first.
fn cards(folder: &Folder) -> Markup {
    let card =
        |name: &str, value: String| html! { div class="card" { span class="soft" { (name) } b { (value) } } };
    html! {
        div class="cards" {
            @if !folder.record.axes.is_empty() {
                @for (name, value) in sweep::cards(folder) { (card(&name, value)) }
            } @else if let Some(selection) = folder.selection() {
                @let kept = selection.unet_parameters - selection.removed_parameters;
                (card("U-Net parameters", format!("{} → {}", units::count(selection.unet_parameters), units::count(kept))))
                (card("removed", format!("{:.1} %", 100.0 * selection.ratio_reached)))
                (card("units removed", selection.removed.len().to_string()))
            }
            @for (stage, shown) in &folder.shown {
                @if let Shown::Metrics(measured) = shown && !sweep::is_branch(folder, stage) {
                    @for model in measured.metrics.models.iter().filter(|model| model.model != measured.metrics.teacher) {
                        @for name in ["pick-score", "attribute-accuracy"] {
                            @if let Some(share) = model.metrics.get(name).and_then(|found| found.of_teacher) {
                                (card(&format!("{name}, {}", model.model), format!("{share:.1} %")))
                            }
                        }
                    }
                }
            }
            @let failed = folder.record.count(StageState::Failed);
            @if failed > 0 { (card("failed stages", failed.to_string())) }
        }
    }
}

/// Several runs, one row each.
fn side_by_side(folders: &[Folder]) -> Markup {
    html! {
        h1 { "Runs side by side" }
        table {
            tr { th { "run" } th class="number" { "asked" } th class="number" { "removed" } th { "model" } th class="number" { "pick-score" } th class="number" { "attribute-accuracy" } th class="number" { "output-loss" } }
            @for folder in folders {
                @let selection = folder.selection().filter(|_| folder.record.axes.is_empty());
                @for (stage, shown) in &folder.shown {
                    @if let Shown::Metrics(measured) = shown {
                        @for model in &measured.metrics.models {
                            tr {
                                td { (folder.record.name) @if sweep::is_branch(folder, stage) { " " (stage) } }
                                @if let Some(selection) = selection {
                                    td class="number" { (format!("{:.1} %", 100.0 * selection.ratio_asked)) }
                                    td class="number" { (format!("{:.1} %", 100.0 * selection.ratio_reached)) }
                                } @else { td {} td {} }
                                td { (model.model) }
                                @for name in ["pick-score", "attribute-accuracy", "output-loss"] {
                                    td class="number" {
                                        @if let Some(found) = model.metrics.get(name) { (format!("{:.4}", found.value)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn provenance(record: &RunRecord) -> Markup {
    html! {
        h2 { "Provenance" }
        table {
            tr { th { "stage" } th { "use" } th { "state" } th class="number" { "made in" } th class="number" { "size" } th class="number" { "peak memory" } th { "key" } th { "digest" } }
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
            summary { "What each key is made of" }
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
