//! The metrics of a sweep as curves over one of its axes: a line for each value of a second axis, and a plot for each
//! combination of further axes.

use maud::{Markup, html};

use super::chart::{Axis as Scale, Chart, Series, plot as draw};
use super::rows::{Curve, Row, is_number, named};
use super::values;
use crate::config::Axis;
use crate::metric::Better;

/// All curves; nothing if no axis has numbers.
pub(super) fn plots(axes: &[&Axis], rows: &[Row<'_>], curves: &[Curve<'_>]) -> Markup {
    let Some(x) = abscissa(axes) else { return html! {} };
    let mut others = axes.iter().copied().filter(|axis| *axis != x && axis.values.len() > 1);
    let lines = others.next();
    let others: Vec<&Axis> = others.collect();
    let group = |row: &Row<'_>| -> Vec<String> {
        others.iter().map(|axis| format!("{} {}", axis.name, row.value(axis))).collect()
    };
    let mut groups: Vec<Vec<String>> = rows.iter().map(group).collect();
    groups.sort();
    groups.dedup();
    // A single value, such as a number of parameters, follows from the selection.
    let is_drawn =
        |curve: &&Curve<'_>| rows.iter().any(|row| row.find(curve).is_some_and(|found| found.count > 1));
    let drawn: Vec<&Curve<'_>> = curves.iter().filter(is_drawn).collect();
    if drawn.is_empty() {
        return html! {};
    }
    // Without a second axis, the models share a plot.
    let together = |a: &&Curve<'_>, b: &&Curve<'_>| a.metric == b.metric && lines.is_none();
    html! {
        div class="plots" {
            @for models in drawn.chunk_by(together) {
                @for choice in &groups {
                    @let within: Vec<&Row<'_>> = rows.iter().filter(|row| group(row) == *choice).collect();
                    figure {
                        figcaption {
                            b { (models[0].metric) }
                            @if let [model] = models { " of " (model.model) }
                            @for value in choice { ", " (value) }
                            (values::arrow(rows.iter().find_map(|row| row.find(models[0])).map(|found| found.better)))
                        }
                        (plot(&within, models, x, lines))
                    }
                }
            }
        }
    }
}

/// The axis of abscissas: a ratio if one is swept, otherwise the first axis with numbers.
fn abscissa<'a>(axes: &[&'a Axis]) -> Option<&'a Axis> {
    let is_numeric = |axis: &&Axis| axis.values.len() > 1 && axis.values.iter().all(|value| is_number(value));
    let numeric = axes.iter().copied().filter(is_numeric);
    numeric.min_by_key(|axis| !is_ratio(axis))
}

/// The teacher and its value, if that is equal in all rows and not the zero of its distance to itself.
fn teacher<'a>(rows: &[&Row<'a>], metric: &str) -> Option<(&'a str, f64)> {
    let own = |row: &&Row<'a>| {
        let metrics = &row.measured?.metrics;
        Some((metrics.teacher.as_str(), metrics.get(&metrics.teacher, metric)?.value))
    };
    let mut all = rows.iter().filter_map(own);
    let first = all.next().filter(|(_, value)| *value != 0.0)?;
    all.all(|other| other == first).then_some(first)
}

fn is_ratio(axis: &Axis) -> bool {
    axis.parameter.ends_with(".ratio")
}

fn plot(rows: &[&Row<'_>], models: &[&Curve<'_>], x: &Axis, lines: Option<&Axis>) -> Markup {
    // The ratio reached: for one ratio asked, the selections of two criteria may remove different amounts.
    let reached =
        |row: &Row<'_>| row.selection.filter(|_| is_ratio(x)).map(|selection| selection.ratio_reached);
    let at = |row: &Row<'_>| reached(row).or(row.value(x).parse().ok());
    let line = |name: &str, model: &Curve<'_>, value: Option<(&Axis, &str)>| {
        let own = rows.iter().filter(|row| value.is_none_or(|(axis, value)| row.value(axis) == value));
        let mut points: Vec<_> = own.filter_map(|row| Some((at(row)?, row.find(model)?.value))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.to_owned(), points, line: true }
    };
    let mut series: Vec<Series> = match lines {
        Some(axis) => {
            let one = |value: &String| line(&named(&axis.name, value), models[0], Some((axis, value)));
            axis.values.iter().map(one).collect()
        }
        None => models.iter().map(|model| line(model.model, model, None)).collect(),
    };
    let metric = models[0].metric;
    let places = || series.iter().flat_map(|one| &one.points).map(|point| point.0);
    let ends = [places().fold(f64::INFINITY, f64::min), places().fold(f64::NEG_INFINITY, f64::max)];
    if let Some((name, value)) = teacher(rows, metric) {
        series.push(Series {
            name: name.to_owned(),
            points: ends.map(|end| (end, value)).to_vec(),
            line: true,
        });
    }
    let found = rows.iter().find_map(|row| row.find(models[0]));
    let unit = found.map_or("", |found| found.unit.as_str());
    let y = if unit.is_empty() { metric.to_owned() } else { format!("{metric} ({unit})") };
    let is_share = rows.iter().any(|row| reached(row).is_some());
    let words = if is_share { "share of parameters removed" } else { x.parameter.as_str() };
    // Losses vary by factors, qualities by differences.
    let values = || series.iter().flat_map(|one| &one.points).map(|point| point.1);
    let spread = values().fold(0.0, f64::max) / values().fold(f64::INFINITY, f64::min);
    let log = found.is_some_and(|found| found.better == Better::Lower) && spread > 10.0;
    draw(&Chart { x: Scale::linear(words), y: Scale { label: &y, log } }, &series)
}
