//! The tables of some runs: results, gates, selections and their rivals, exports, and the settings that differ.

use super::compare;
use super::folder::{Folder, Measured, Shown};
use super::tables::{Cell, Column, Table};
use super::values;
use crate::base::units;
use crate::metric::{Measurement, Metrics, Paired};

/// The names of the tables, in the order in which they are written.
pub(super) const NAMES: [&str; 6] = ["results", "gates", "selections", "baselines", "exports", "settings"];

/// All tables that have a row. `labels` are the names of the runs.
pub(super) fn tables(folders: &[Folder], labels: &[String]) -> Vec<Table> {
    let mut all = vec![
        results(folders, labels),
        gates(folders, labels),
        selections(folders, labels),
        baselines(folders, labels),
        exports(folders, labels),
    ];
    if folders.len() > 1 {
        all.push(compare::settings(folders, labels));
    }
    all.retain(|table| !table.rows.is_empty());
    all
}

/// The rows of every run, each after the run's label.
fn gathered(
    name: &'static str,
    caption: &str,
    columns: Vec<Column>,
    runs: (&[Folder], &[String]),
    rows: impl Fn(&Folder) -> Vec<Vec<Cell>>,
) -> Table {
    let label = |label: &String, row: Vec<Cell>| std::iter::once(Cell::text(label)).chain(row).collect();
    let of = |(folder, name): (&Folder, &String)| {
        rows(folder).into_iter().map(|row| label(name, row)).collect::<Vec<_>>()
    };
    Table {
        name,
        caption: caption.to_owned(),
        columns: std::iter::once(Column::text("run")).chain(columns).collect(),
        rows: runs.0.iter().zip(runs.1).flat_map(of).collect(),
    }
}

/// Every evaluation with the stage that made it.
fn evaluations(folder: &Folder) -> impl Iterator<Item = (&str, &Measured)> {
    folder.shown.iter().filter_map(|(stage, shown)| match shown {
        Shown::Metrics(measured) => Some((stage.as_str(), &**measured)),
        _ => None,
    })
}

fn results(folders: &[Folder], labels: &[String]) -> Table {
    let columns = std::iter::once(Column::text("evaluation")).chain(result_columns()).collect();
    let rows = |folder: &Folder| {
        let of = |(stage, measured): (&str, &Measured)| {
            let row = |row: Vec<Cell>| std::iter::once(Cell::text(stage)).chain(row).collect();
            result_rows(measured).into_iter().map(row).collect::<Vec<_>>()
        };
        evaluations(folder).flat_map(of).collect()
    };
    gathered("results", CAPTION, columns, (folders, labels), rows)
}

/// What the table of one evaluation shows.
const CAPTION: &str = "Each model on the same prompts and the same noise, with 95 % intervals over prompts";

/// The whole table of one evaluation.
pub(super) fn of_evaluation(measured: &Measured) -> Table {
    Table {
        name: "results",
        caption: CAPTION.to_owned(),
        columns: result_columns(),
        rows: result_rows(measured),
    }
}

fn result_columns() -> Vec<Column> {
    vec![
        Column::text("model"),
        Column::text("metric"),
        Column::text("better"),
        Column::text("unit"),
        Column::number("n"),
        Column::estimate("value"),
        Column::estimate("of the teacher, %"),
        Column::number("floor: shuffled captions"),
        Column::number("floor: noise"),
        Column::estimate("retained, %"),
        Column::estimate("difference"),
        Column::estimate("better than the teacher on, %"),
        Column::number("difference to detect"),
        Column::number("prompts for it"),
    ]
}

fn result_rows(measured: &Measured) -> Vec<Vec<Cell>> {
    let all: Vec<&Metrics> = std::iter::once(&measured.metrics).chain(&measured.timings).collect();
    let mut rows = Vec::new();
    for model in &measured.metrics.models {
        for metrics in &all {
            let own =
                metrics.models.iter().filter(|one| one.model == model.model).flat_map(|one| &one.metrics);
            rows.extend(own.map(|(name, found)| result_row(&model.model, name, found)));
        }
    }
    rows
}

fn result_row(model: &str, name: &str, found: &Measurement) -> Vec<Cell> {
    let share = |value: f64| Cell::Estimate(value, found.of_teacher_low, found.of_teacher_high, "%");
    let number = |value: f64| Cell::number(value, values::value(value, &found.unit));
    let better =
        serde_json::to_value(found.better).ok().and_then(|better| better.as_str().map(str::to_owned));
    let paired = found.paired.as_ref();
    vec![
        Cell::text(model),
        Cell::text(name),
        better.map_or(Cell::Empty, Cell::Text),
        Cell::text(&found.unit),
        Cell::number(found.count as f64, found.count.to_string()),
        Cell::value(found),
        found.of_teacher.map_or(Cell::Empty, share),
        found.floor.map_or(Cell::Empty, number),
        found.noise.map_or(Cell::Empty, number),
        Cell::percent(found.retained.as_ref()),
        paired.map_or(Cell::Empty, |paired| {
            let difference = paired.difference;
            Cell::Estimate(difference.value, difference.low, difference.high, "")
        }),
        Cell::percent(paired.map(|paired| &paired.wins)),
        paired.and_then(|paired| paired.wanted).map_or(Cell::Empty, number),
        paired
            .and_then(Paired::prompts_needed)
            .map_or(Cell::Empty, |needed| Cell::number(needed, units::count(needed as u64))),
    ]
}

fn gates(folders: &[Folder], labels: &[String]) -> Table {
    let columns =
        vec![Column::text("stage"), Column::text("gate"), Column::number("found"), Column::text("met")];
    gathered("gates", "Gates", columns, (folders, labels), |folder| {
        let row = |(stage, verdict): (&crate::run::StageRecord, &crate::metric::Verdict)| {
            vec![
                Cell::text(stage.id.as_str()),
                Cell::text(&verdict.gate),
                verdict.found.map_or(Cell::Empty, |found| Cell::number(found, super::chart::number(found))),
                Cell::text(if verdict.met { "yes" } else { "no" }),
            ]
        };
        folder.record.gates().map(row).collect()
    })
}

fn selections(folders: &[Folder], labels: &[String]) -> Table {
    let columns = vec![
        Column::text("stage"),
        Column::text("criterion"),
        Column::text("objective"),
        Column::text("solver"),
        Column::number("asked, %"),
        Column::number("removed, %"),
        Column::number("units"),
        Column::number("parameters removed"),
        Column::number("objective's value"),
        Column::number("bound"),
    ];
    gathered("selections", "Selections", columns, (folders, labels), |folder| {
        let percent = |share: f64| Cell::number(100.0 * share, format!("{:.1}", 100.0 * share));
        let loss = |value: f64| Cell::number(value, super::chart::number(value));
        let row = |(stage, one): (&str, &crate::select::Selection)| {
            vec![
                Cell::text(stage),
                Cell::text(&one.criterion),
                Cell::text(&one.objective),
                Cell::text(&one.solver),
                percent(one.ratio_asked),
                percent(one.ratio_reached),
                Cell::number(one.removed.len() as f64, one.removed.len().to_string()),
                Cell::number(one.removed_parameters as f64, units::count(one.removed_parameters)),
                loss(one.predicted.objective),
                loss(one.predicted.bound),
            ]
        };
        folder.selections().map(row).collect()
    })
}

fn baselines(folders: &[Folder], labels: &[String]) -> Table {
    let columns = vec![
        Column::text("evaluation"),
        Column::text("selection"),
        Column::number("joint loss"),
        Column::number("parameters removed"),
    ];
    let caption = "Joint output loss of the selection and of others of the same ratio, before any retraining";
    gathered("baselines", caption, columns, (folders, labels), |folder| {
        let of = |(stage, measured): (&str, &Measured)| {
            let row = |one: &crate::metric::Baseline| {
                vec![
                    Cell::text(stage),
                    Cell::text(&one.name),
                    Cell::number(one.joint_loss, super::chart::number(one.joint_loss)),
                    Cell::number(one.removed_parameters as f64, units::count(one.removed_parameters)),
                ]
            };
            measured.metrics.baselines.iter().map(row).collect::<Vec<_>>()
        };
        evaluations(folder).flat_map(of).collect()
    })
}

fn exports(folders: &[Folder], labels: &[String]) -> Table {
    let columns = vec![
        Column::text("stage"),
        Column::text("for"),
        Column::number("parameters"),
        Column::number("of which zeros"),
        Column::number("relative error"),
    ];
    gathered("exports", "Exports", columns, (folders, labels), |folder| {
        let row = |(stage, export): (&str, &crate::prune::Export)| {
            let zeros = export.written_parameters - export.parameters;
            vec![
                Cell::text(stage),
                Cell::text(&export.format),
                Cell::number(export.written_parameters as f64, units::count(export.written_parameters)),
                Cell::number(zeros as f64, units::count(zeros)),
                Cell::number(export.relative_error, super::chart::number(export.relative_error)),
            ]
        };
        folder.exports().into_iter().map(row).collect()
    })
}
