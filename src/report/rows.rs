//! The evaluations of a sweep as rows, and their metrics as curves over the rows.

use super::folder::{Folder, Measured, Shown};
use crate::base::StageId;
use crate::config::Axis;
use crate::metric::Measurement;
use crate::plan::Node;
use crate::run::StageRecord;
use crate::select::Selection;

/// The evaluation of one branch; without measurements if it failed.
pub(super) struct Row<'a> {
    pub(super) stage: &'a StageRecord,
    pub(super) measured: Option<&'a Measured>,
    pub(super) selection: Option<&'a Selection>,
}

/// One metric of one model over all rows.
#[derive(PartialEq)]
pub(super) struct Curve<'a> {
    pub(super) metric: &'a str,
    pub(super) model: &'a str,
}

/// The stages with their nodes in the graph.
pub(super) fn nodes(folder: &Folder) -> impl Iterator<Item = (&StageRecord, &Node)> {
    folder.record.stages.iter().zip(folder.record.graph.stages())
}

/// The evaluations that a sweep made of the stage `origin`.
pub(super) fn rows<'a>(folder: &'a Folder, origin: &StageId) -> Vec<Row<'a>> {
    let row = |(index, (stage, _)): (usize, (&'a StageRecord, &Node))| {
        let measured = match folder.shown_of(stage.id.as_str()) {
            Some(Shown::Metrics(measured)) => Some(&**measured),
            _ => None,
        };
        Row { stage, measured, selection: folder.selection_of(index) }
    };
    nodes(folder).enumerate().filter(|(_, (_, node))| node.origin() == origin).map(row).collect()
}

/// The axes that the rows depend on.
pub(super) fn axes<'a>(folder: &'a Folder, rows: &[Row<'_>]) -> Vec<&'a Axis> {
    folder.record.axes.iter().filter(|axis| rows.iter().any(|row| !row.value(axis).is_empty())).collect()
}

impl<'a> Row<'a> {
    /// The row's value of an axis; empty if it does not depend on the axis.
    pub(super) fn value(&self, axis: &Axis) -> &'a str {
        self.stage.branch.get(&axis.name).map_or("", String::as_str)
    }

    /// The row's measurement of a curve.
    pub(super) fn find(&self, curve: &Curve<'_>) -> Option<&'a Measurement> {
        let measured = self.measured?;
        let timed = || measured.timings.as_ref()?.get(curve.model, curve.metric);
        measured.metrics.get(curve.model, curve.metric).or_else(timed)
    }
}

/// The values of a branch, numbers with the names of their axes.
pub(super) fn label(stage: &StageRecord) -> String {
    let value = |(axis, value): (&String, &String)| named(axis, value);
    stage.branch.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// Every metric of every model except the teacher, over all rows.
pub(super) fn curves<'a>(rows: &[Row<'a>]) -> Vec<Curve<'a>> {
    let mut curves: Vec<Curve<'a>> = Vec::new();
    for measured in rows.iter().filter_map(|row| row.measured) {
        let all = std::iter::once(&measured.metrics).chain(&measured.timings);
        let models = all.flat_map(|metrics| &metrics.models);
        for model in models.filter(|model| model.model != measured.metrics.teacher) {
            let own = model.metrics.keys().map(|metric| Curve { metric, model: &model.model });
            let own: Vec<_> = own.filter(|curve| !curves.contains(curve)).collect();
            curves.extend(own);
        }
    }
    curves.sort_by_key(|curve| place(rows, curve));
    curves
}

/// Sorts quality before size, and both before time and memory.
fn place<'a>(rows: &[Row<'a>], curve: &Curve<'a>) -> (bool, bool, &'a str) {
    let found = rows.iter().find_map(|row| row.measured?.metrics.get(curve.model, curve.metric));
    (found.is_none(), found.is_none_or(|found| found.count == 1), curve.metric)
}

/// A value; a number with the name of its axis.
pub(super) fn named(axis: &str, value: &str) -> String {
    if is_number(value) { format!("{axis} {value}") } else { value.to_owned() }
}

/// Whether a value of an axis is a number.
pub(super) fn is_number(value: &str) -> bool {
    value.parse::<f64>().is_ok()
}
