//! Several runs side by side: what differs in their settings, their metrics with intervals, and pictures of the same prompts.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::folder::{Folder, Measured, Shown};
use super::pictures::{Gallery, spread};
use super::tables::{Cell, Column, Table};
use super::values;
use crate::base::Manifest;
use crate::metric::{Measurement, Metrics};
use crate::run::StageRecord;

/// The comparison of all runs.
pub(super) fn section(folders: &[Folder], labels: &[String]) -> Markup {
    let settings = settings(folders, labels);
    let evaluations = evaluations(folders, labels);
    let results = results(&evaluations);
    html! {
        header { h1 { "Runs side by side" } }
        h2 { "Settings that differ" }
        @if settings.rows.is_empty() { p { "None: the runs have equal settings." } } @else { (settings.html()) }
        @if !results.is_empty() { h2 { "Results" } }
        @for table in results { h3 { (table.caption) } (table.html()) }
        (pictures(&evaluations, folders[0].room))
    }
}

/// The settings of the stages that are not the same in all runs. What follows from an earlier stage is left out.
pub(super) fn settings(folders: &[Folder], labels: &[String]) -> Table {
    let mut stages: Vec<&str> = Vec::new();
    for stage in folders.iter().flat_map(|folder| &folder.record.stages) {
        if !stages.contains(&stage.id.as_str()) {
            stages.push(stage.id.as_str());
        }
    }
    let run = |name: &str, values: Vec<String>| (String::new(), name.to_owned(), values);
    let of_runs = |value: fn(&Folder) -> String| folders.iter().map(value).collect::<Vec<_>>();
    let mut all = vec![
        run("seed", of_runs(|folder| folder.record.seed.to_string())),
        run("device", of_runs(|folder| folder.record.device.class.to_string())),
        run("program", of_runs(|folder| folder.record.program.clone())),
    ];
    for stage in stages {
        let own: Vec<_> = folders.iter().map(|folder| folder.record.stage(stage).map(entries)).collect();
        let mut names: Vec<&str> = Vec::new();
        for name in own.iter().flatten().flatten().flat_map(BTreeMap::keys) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        if own.iter().any(|one| !matches!(one, Some(Some(_)))) {
            let words = |one: &Option<Option<_>>| match one {
                None => "no such stage",
                Some(None) => "did not run",
                Some(Some(_)) => "ran",
            };
            all.push((
                stage.to_owned(),
                String::new(),
                own.iter().map(|one| words(one).to_owned()).collect(),
            ));
        } else {
            let value = |one: &Option<Option<BTreeMap<String, String>>>, name: &str| {
                one.iter().flatten().find_map(|entries| entries.get(name)).cloned().unwrap_or_default()
            };
            let row = |name| (stage.to_owned(), name, own.iter().map(|one| value(one, name)).collect());
            all.extend(
                names.into_iter().map(row).map(|(stage, name, values)| (stage, name.to_owned(), values)),
            );
        }
    }
    all.retain(|(_, _, values)| values.windows(2).any(|two| two[0] != two[1]));
    let row = |(stage, name, values): (String, String, Vec<String>)| {
        [stage, name].into_iter().chain(values).map(Cell::Text).collect()
    };
    Table {
        name: "settings",
        caption: "Settings that differ".to_owned(),
        columns: ["stage", "setting"]
            .into_iter()
            .chain(labels.iter().map(String::as_str))
            .map(Column::text)
            .collect(),
        rows: all.into_iter().map(row).collect(),
    }
}

/// The values that a stage's key is made of, without those that follow from other stages; `None` if it has no key.
fn entries(stage: &StageRecord) -> Option<BTreeMap<String, String>> {
    let follows = |name: &str| {
        matches!(name, "key layout" | "id" | "seed" | "device class") || name.starts_with("input ")
    };
    let shown = |(name, value): (&str, &str)| match name.strip_prefix("file ") {
        Some(file) => (file.to_owned(), format!("file {}", value.chars().take(12).collect::<String>())),
        None if name == "stage" => ("version".to_owned(), value.to_owned()),
        None => (name.to_owned(), listed(value)),
    };
    let kept =
        |manifest: &Manifest| manifest.entries().filter(|(name, _)| !follows(name)).map(shown).collect();
    stage.manifest.as_ref().map(kept)
}

/// A list as a reader would write it; another value as it is.
fn listed(value: &str) -> String {
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(list) => list.join(", "),
        Err(_) => value.to_owned(),
    }
}

/// An evaluation with the name of its run, and its own where the run has several.
fn evaluations<'a>(folders: &'a [Folder], labels: &[String]) -> Vec<(String, &'a Measured)> {
    let mut all = Vec::new();
    for (folder, label) in folders.iter().zip(labels) {
        let own: Vec<(&String, &Measured)> = folder
            .shown
            .iter()
            .filter_map(|(stage, shown)| match shown {
                Shown::Metrics(measured) => Some((stage, &**measured)),
                _ => None,
            })
            .collect();
        let is_alone = own.len() == 1;
        let named = |stage: &String| if is_alone { label.clone() } else { format!("{label} {stage}") };
        all.extend(own.into_iter().map(|(stage, measured)| (named(stage), measured)));
    }
    all
}

/// A table for each model, with a row for each metric and a column for each evaluation.
fn results(evaluations: &[(String, &Measured)]) -> Vec<Table> {
    let measured: Vec<Vec<&Metrics>> = evaluations
        .iter()
        .map(|(_, one)| std::iter::once(&one.metrics).chain(&one.timings).collect())
        .collect();
    let mut models: Vec<&str> = Vec::new();
    for model in measured.iter().flatten().flat_map(|metrics| &metrics.models) {
        if !models.contains(&model.model.as_str()) {
            models.push(&model.model);
        }
    }
    let find = |run: usize, model: &str, metric: &str| -> Option<&Measurement> {
        measured[run].iter().find_map(|metrics| metrics.get(model, metric))
    };
    let table = |model: &str| {
        let own =
            measured.iter().flatten().flat_map(|metrics| &metrics.models).filter(|one| one.model == model);
        let mut metrics: Vec<&str> = own.flat_map(|one| one.metrics.keys()).map(String::as_str).collect();
        metrics.sort_unstable();
        metrics.dedup();
        let mut rows = Vec::new();
        for metric in metrics {
            let found: Vec<Option<&Measurement>> =
                (0..measured.len()).map(|run| find(run, model, metric)).collect();
            let cells = |value: &dyn Fn(&Measurement) -> Cell| {
                found.iter().map(|one| one.map_or(Cell::Empty, value)).collect()
            };
            let mut row = |name: String, cells: Vec<Cell>| {
                if cells.iter().any(|cell| *cell != Cell::Empty) {
                    rows.push(std::iter::once(Cell::Text(name)).chain(cells).collect::<Vec<_>>());
                }
            };
            let arrow = found.iter().flatten().next().map_or("", |one| values::sign(one.better));
            row(format!("{metric} {arrow}"), cells(&|one| Cell::value(one)));
            row("– retained above the floor".to_owned(), cells(&|one| Cell::percent(one.retained.as_ref())));
            let share = |one: &Measurement| match one.of_teacher {
                Some(share) => Cell::Estimate(share, one.of_teacher_low, one.of_teacher_high, "%"),
                None => Cell::Empty,
            };
            row("– of the teacher".to_owned(), cells(&share));
        }
        let columns = std::iter::once(Column::text(""))
            .chain(evaluations.iter().map(|(label, _)| Column::estimate(label)));
        Table { name: "comparison", caption: model.to_owned(), columns: columns.collect(), rows }
    };
    models.into_iter().map(table).collect()
}

/// The first teacher and the last student of every evaluation, on the prompts that all of them drew.
fn pictures(drawn: &[(String, &Measured)], room: usize) -> Markup {
    let Some((first, others)) = drawn.split_first().filter(|(_, others)| !others.is_empty()) else {
        return html! {};
    };
    let place =
        |measured: &Measured, prompt: &String| measured.values.prompts.iter().position(|one| one == prompt);
    let is_shared = |prompt: &&String| others.iter().all(|(_, other)| place(other, prompt).is_some());
    let shared: Vec<&String> = first.1.values.prompts.iter().filter(is_shared).collect();
    let prompts: Vec<&String> = spread(shared.len()).into_iter().map(|index| shared[index]).collect();
    let of = |measured: &Measured, model: &str| {
        let one = |prompt: &&String| measured.picture(model, place(measured, prompt)?);
        prompts.iter().map(one).collect::<Vec<_>>()
    };
    let teacher = &first.1.metrics.teacher;
    let mut models = vec![(teacher.clone(), of(first.1, teacher))];
    for (label, measured) in drawn {
        let mut students =
            measured.metrics.models.iter().filter(|model| model.model != measured.metrics.teacher);
        if let Some(student) = students.next_back() {
            models.push((format!("{label}: {}", student.model), of(measured, &student.model)));
        }
    }
    html! {
        h2 { "The same prompts" }
        @if prompts.is_empty() {
            p { "The runs have no prompt in common." }
        } @else {
            (Gallery { prompts: prompts.into_iter().map(String::as_str).collect(), models }.section(room))
        }
    }
}
