//! Whether the metrics of a sweep agree: rank correlations over its branches. A metric that is cheap and orders the branches as a
//! dear one does can stand in for it.

use maud::{Markup, html};

use super::rows::{Curve, Row};
use super::tables::scroll;
use crate::backend::Random;
use crate::base::rank_correlation::{partial_spearman, spearman};
use crate::metric::{Better, Interval, bootstrap};

/// Fewer branches say nothing.
const MINIMUM: usize = 8;
/// The metric that is held fixed, since larger students are better by any metric.
const SIZE: &str = "parameters";

/// The values of one metric over the branches, larger for better.
struct Column<'a> {
    metric: &'a str,
    values: Vec<f64>,
}

/// A table for each model that the branches share.
pub(super) fn tables(rows: &[Row<'_>], curves: &[Curve<'_>]) -> Markup {
    let measured: Vec<&Row<'_>> = rows.iter().filter(|row| row.measured.is_some()).collect();
    let mut models: Vec<&str> = curves.iter().map(|curve| curve.model).collect();
    models.sort_unstable();
    models.dedup();
    let told = models.into_iter().filter_map(|model| Some((model, table(&measured, curves, model)?)));
    let told: Vec<(&str, Markup)> = told.collect();
    html! {
        @if !told.is_empty() {
            h3 { "Do the metrics agree?" }
            p {
                "Spearman's rank correlation of two metrics over the branches: 1 if both order them alike, from best to worst, and 0 if \
                one says nothing of the other. With 95 % bootstrap intervals over the branches. Smaller students are worse by any \
                metric, so \"equal size\" is the partial correlation with the number of parameters held fixed."
            }
        }
        @for (model, table) in told { h4 { code { (model) } } (table) }
    }
}

fn table(rows: &[&Row<'_>], curves: &[Curve<'_>], model: &str) -> Option<Markup> {
    let of_model = curves.iter().filter(|curve| curve.model == model);
    matrix(of_model.filter_map(|curve| column(rows, curve)).collect())
}

/// Every metric against every other; `None` if there is nothing to compare.
fn matrix(columns: Vec<Column<'_>>) -> Option<Markup> {
    let (sizes, columns): (Vec<_>, Vec<_>) = columns.into_iter().partition(|column| column.metric == SIZE);
    let size = sizes.first().map(|size| size.values.as_slice());
    let (last, others) = columns.split_last()?;
    let is_enough = !others.is_empty() && last.values.len() >= MINIMUM;
    is_enough.then(|| {
        scroll(
            "Rank correlations",
            &html! { table {
                tr {
                    th {}
                    @for column in &columns[1..] { th class="number" { (column.metric) } }
                }
                @for (index, row) in others.iter().enumerate() {
                    tr {
                        td { (row.metric) }
                        @for _ in 0..index { td {} }
                        @for column in &columns[index + 1..] { td class="number" { (cell(row, column, size)) } }
                    }
                }
            } },
        )
    })
}

/// The values of a curve, if all branches have one, they differ, and they are not of the machine.
fn column<'a>(rows: &[&Row<'_>], curve: &Curve<'a>) -> Option<Column<'a>> {
    let found: Vec<_> = rows.iter().map(|row| row.find(curve)).collect::<Option<_>>()?;
    let lasting = rows
        .iter()
        .all(|row| row.measured.is_some_and(|of| of.metrics.get(curve.model, curve.metric).is_some()));
    let sign = match found.first()?.better {
        _ if curve.metric == SIZE => -1.0,
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::None => return None,
    };
    let values: Vec<f64> = found.iter().map(|found| sign * found.value).collect();
    let differ = values.iter().any(|value| *value != values[0]);
    (lasting && differ).then_some(Column { metric: curve.metric, values })
}

fn cell(a: &Column<'_>, b: &Column<'_>, size: Option<&[f64]>) -> Markup {
    let of = |column: &Column<'_>, chosen: &[usize]| -> Vec<f64> {
        chosen.iter().map(|&index| column.values[index]).collect()
    };
    let stream = Random::new(0, a.metric).stream(b.metric, 0);
    let interval = bootstrap(a.values.len(), stream, |chosen| spearman(&of(a, chosen), &of(b, chosen)));
    html! {
        (number(spearman(&a.values, &b.values)))
        @if let Some(Interval { low, high }) = interval {
            br; span class="soft" { (number(low)) " – " (number(high)) }
        }
        @if let Some(partial) = size.and_then(|size| partial_spearman(&a.values, &b.values, size)) {
            br; span class="soft" { "equal size: " (number(partial)) }
        }
    }
}

fn number(correlation: f64) -> String {
    format!("{correlation:.2}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(metric: &str, values: impl Fn(usize) -> f64) -> Column<'_> {
        Column { metric, values: (0..12).map(values).collect() }
    }

    #[test]
    fn metrics_that_agree_only_because_smaller_is_worse_are_found_out() {
        // Three sizes of four branches each, whose orders within a size are opposite.
        let (size, place) = (|index: usize| (index / 4) as f64, |index: usize| (index % 4) as f64);
        let columns = vec![
            column("one", |index| 10.0 * size(index) + place(index)),
            column("other", |index| 10.0 * size(index) - place(index)),
            column(SIZE, size),
        ];
        let shown = matrix(columns).expect("two metrics of twelve branches").into_string();
        let text = |row: usize| shown.split("<tr>").nth(row).expect("a row").to_owned();
        assert!(text(1).contains("other") && !text(1).contains(SIZE), "{shown}");
        assert!(text(2).contains("0.79") && text(2).contains("equal size: −1.00"), "{shown}");
    }

    #[test]
    fn a_few_branches_or_one_metric_have_no_table() {
        let short = |metric| Column { metric, values: vec![1.0, 2.0, 3.0] };
        assert!(matrix(vec![short("one"), short("other")]).is_none());
        assert!(
            matrix(vec![column("one", |index| index as f64), column(SIZE, |index| index as f64)]).is_none()
        );
        assert!(matrix(Vec::new()).is_none());
    }
}
