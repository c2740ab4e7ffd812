//! The page from top to bottom: the verdict, pictures, how the result was obtained, and what is needed to reproduce it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::folder::{Folder, Shown};
use super::pictures::{self, Gallery};
use super::tables::scroll;
use super::{compare, quality, reconstructed, sections, selections, sweep, verdict};
use crate::base::units;
use crate::plan;
use crate::run::{RunRecord, StageState};

/// The page of one run, or of several with their comparison first. `labels` are the names of the runs.
pub(super) fn page(folders: &[Folder], labels: &[String]) -> Markup {
    let body = html! {
        main {
            @if let [folder] = folders {
                (run(folder, &labels[0]))
            } @else {
                (compare::section(folders, labels))
                @for (folder, label) in folders.iter().zip(labels) {
                    details class="run" { summary { "All of " (label) } (run(folder, label)) }
                }
            }
        }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (labels.join(", ")) " · laptop-diff" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (body)
                @if pictures::slides(&body) { (pictures::script()) }
            }
        }
    }
}

/// One run: the verdict, pictures, how the selection was made, how it was trained, and where everything comes from.
fn run(folder: &Folder, label: &str) -> Markup {
    let record = &folder.record;
    let is_sweep = !record.axes.is_empty();
    html! {
        header {
            h1 { (label) }
            p class="soft" {
                "laptop-diff " (record.program) " · " (record.started)
                @if let Some(seconds) = record.seconds { " · " (units::seconds(seconds)) }
                @if record.axes.iter().all(|axis| axis.parameter != "seed") { " · seed " (record.seed) }
                " · " (record.device.class)
            }
            @if let Some(unfinished) = &folder.unfinished { p { b { (unfinished) } } }
            (failures(record))
        }
        (verdict::section(folder))
        @if is_sweep { (sweep::compared(folder)) }
        (seen(folder))
        (chosen(folder))
        (trained(folder))
        @if is_sweep { (sweep::alone(folder)) }
        (statistics(folder))
        (sections::exports(&folder.exports()))
        (provenance(record))
    }
}

/// The contents of stages that belong to no branch of a sweep.
fn alone(folder: &Folder) -> impl Iterator<Item = (&str, &Shown)> {
    let all = folder.shown.iter().map(|(stage, shown)| (stage.as_str(), shown));
    all.filter(|(stage, _)| !sweep::is_branch(folder, stage))
}

fn failures(record: &RunRecord) -> Markup {
    let failed = record.stages.iter().filter(|stage| stage.state == StageState::Failed);
    html! {
        @for stage in failed {
            p class="bad" { b { "Failed: " } code { (stage.id) } @if let Some(error) = &stage.error { " " (error) } }
        }
    }
}

/// The pictures of every evaluation.
fn seen(folder: &Folder) -> Markup {
    let galleries = alone(folder).filter_map(|(stage, shown)| match shown {
        Shown::Metrics(measured) => Some((stage, Gallery::of(measured).section(folder.room))),
        _ => None,
    });
    let galleries: Vec<(&str, Markup)> = galleries.filter(|(_, gallery)| !gallery.0.is_empty()).collect();
    html! {
        @if !galleries.is_empty() { h2 { "Pictures" } }
        @for (stage, gallery) in &galleries {
            @if galleries.len() > 1 { h3 { code { (stage) } } }
            (gallery)
        }
    }
}

/// The scores, and what was removed because of them.
fn chosen(folder: &Folder) -> Markup {
    let is_sweep = !folder.record.axes.is_empty();
    html! {
        h2 { "Pipeline" }
        figure class="wide" { (scroll("Pipeline", &PreEscaped(plan::svg(&folder.record.graph.folded())))) }
        @for (stage, shown) in alone(folder) {
            @match shown {
                Shown::Scores(scores) => (sections::scores(scores, folder.selection().filter(|_| !is_sweep))),
                Shown::Selection(selection) => {
                    (sections::selection(selection))
                    @if let Some(scores) = folder.scores_of(stage) { (selections::section(stage, selection, scores)) }
                }
                Shown::Metrics(measured) if !measured.metrics.baselines.is_empty() => {
                    (quality::baselines(&measured.metrics.baselines))
                }
                Shown::Unreadable(why) => (sections::unreadable(stage, why)),
                Shown::Reconstruction(record) => (reconstructed::section(stage, record)),
                Shown::Metrics(_) | Shown::Training(_) | Shown::Export(_) => {}
            }
        }
        @if !is_sweep && folder.selections().nth(1).is_some() {
            h3 { "Selections side by side" }
            @let scored = folder.selections().filter_map(|(stage, selection)| Some((stage.to_owned(), selection, folder.scores_of(stage)?)));
            (selections::side_by_side(&scored.collect::<Vec<_>>()))
        }
    }
}

fn trained(folder: &Folder) -> Markup {
    html! {
        @for (stage, shown) in alone(folder) {
            @if let Shown::Training(training) = shown { (training.section(stage, folder.room)) }
        }
    }
}

/// All numbers of the evaluations.
fn statistics(folder: &Folder) -> Markup {
    let measured: Vec<_> = alone(folder).filter(|(_, shown)| matches!(shown, Shown::Metrics(_))).collect();
    html! {
        @if !measured.is_empty() { h2 { "Statistics" } }
        @for (stage, shown) in measured {
            @if let Shown::Metrics(measured) = shown { (quality::numbers(stage, measured)) }
        }
    }
}

fn provenance(record: &RunRecord) -> Markup {
    html! {
        h2 { "Provenance" }
        (scroll("Stages", &html! { table {
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
        } }))
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
