//! Several selections side by side along the U-Net: a row for each, a column for each unit in walk order, and a filled cell
//! for each removed unit. The losses are by the scores that each selection was chosen with.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::chart::number as short;
use super::tables::scroll;
use crate::base::UnitId;
use crate::score::{Scores, UnitScores};
use crate::select::Selection;

const PITCH: f64 = 11.0;
const ROW: f64 = 18.0;
const LABEL: f64 = 230.0;
const NUMBERS: f64 = 300.0;
const HEAD: f64 = 22.0;
/// The number of random selections shown; the others look similar.
const RANDOM: usize = 2;

/// One selection of the figure.
pub(super) struct Row {
    name: String,
    removed: BTreeSet<UnitId>,
    ratio: f64,
    predicted: Option<f64>,
    measured: Option<f64>,
}

/// A selection, its baselines, and the candidates of its refinement.
fn with_others(name: &str, selection: &Selection, scores: &Scores) -> Vec<Row> {
    let row = |name: &str, removed: &[UnitId], measured| {
        let removed: BTreeSet<_> = removed.iter().cloned().collect();
        Row {
            name: name.to_owned(),
            ratio: scores.parameters(&removed) as f64 / scores.unet_parameters as f64,
            predicted: scores.additive(&removed, &selection.criterion),
            removed,
            measured,
        }
    };
    let measured = selection.refinement.as_ref().map(|refinement| refinement.measured);
    let mut rows = vec![row(name, &selection.removed, measured)];
    rows[0].ratio = selection.ratio_reached;
    let candidates = selection.refinement.iter().flat_map(|refinement| &refinement.candidates);
    rows.extend(candidates.map(|one| row(&one.name, &one.removed, Some(one.measured))));
    let (random, chosen): (Vec<_>, Vec<_>) =
        selection.baselines.iter().partition(|baseline| baseline.name.starts_with("random"));
    let baselines = chosen.into_iter().chain(random.into_iter().take(RANDOM));
    rows.extend(baselines.map(|one| row(&one.name, &one.removed, None)));
    rows
}

/// A selection among others, and its expected joint loss.
pub(super) fn section(stage: &str, selection: &Selection, scores: &Scores) -> Markup {
    html! {
        h3 { "Compared with other selections, along the U-Net" }
        @for (name, joint) in &selection.predicted.joint {
            p {
                "According to " code { (name) } ", the expected joint loss is " (short(joint.loss)) ", with 95 % confidence between "
                (short(joint.low)) " and " (short(joint.high)) " (estimated from random sets)."
            }
        }
        @if let Some(refinement) = &selection.refinement {
            p {
                "Refined by measuring: the best of " (refinement.candidates.len()) " candidates and "
                (refinement.evaluations) " further evaluations has a joint loss of "
                (short(refinement.measured)) " on the calibration points; the sum of scores alone leads to "
                (short(refinement.candidates[0].measured)) "."
            }
        }
        (draw(&with_others(stage, selection, scores), scores))
    }
}

/// Selections with the scores that each was chosen by, one row each; a figure for each list of units that these have.
pub(super) fn side_by_side(selections: &[(String, &Selection, &Scores)]) -> Markup {
    let mut figures: Vec<(Vec<Row>, &Scores)> = Vec::new();
    for (name, selection, scores) in selections {
        let own = with_others(name, selection, scores).into_iter().take(1);
        match figures
            .iter_mut()
            .find(|(_, known)| known.units.iter().map(column).eq(scores.units.iter().map(column)))
        {
            Some((rows, _)) => rows.extend(own),
            None => figures.push((own.collect(), scores)),
        }
    }
    html! { @for (rows, scores) in &figures { (draw(rows, scores)) } }
}

fn column(unit: &UnitScores) -> (&UnitId, Option<&UnitId>) {
    (&unit.id, unit.parent.as_ref())
}

/// Whether a unit is removed, by itself or as part of a larger one: the path of a unit begins with those of its parents.
pub(super) fn is_removed(unit: &UnitId, removed: &BTreeSet<UnitId>) -> bool {
    let path = unit.as_str();
    removed.contains(path) || path.match_indices('.').any(|(dot, _)| removed.contains(&path[..dot]))
}

/// The rows as an SVG of any width; the page scrolls it.
fn draw(rows: &[Row], scores: &Scores) -> Markup {
    let parents: BTreeSet<_> = scores.units.iter().filter_map(|unit| unit.parent.as_ref()).collect();
    let units: Vec<_> = scores.units.iter().filter(|unit| !parents.contains(&unit.id)).collect();
    let right = LABEL + units.len() as f64 * PITCH + 10.0;
    let (width, height) = (right + NUMBERS, HEAD + rows.len() as f64 * ROW + 6.0);
    let number = |value: Option<f64>| value.map_or("–".to_owned(), short);
    html! {
        figure class="wide" { (scroll("Selections along the U-Net", &html! {
            svg class="unet" viewBox=(format!("0 0 {width} {height}")) width=(width) role="img"
                aria-label="which units each selection removes; removed units are filled" {
                text x=(right) y="14" { "removed" }
                text x=(right + 90.0) y="14" { "sum of scores" }
                text x=(right + 190.0) y="14" { "measured" }
                @for (place, row) in rows.iter().enumerate() {
                    @let y = HEAD + place as f64 * ROW;
                    text x=(LABEL - 8.0) y=(y + 11.0) text-anchor="end" { (row.name) }
                    @for (column, unit) in units.iter().enumerate() {
                        @let gone = is_removed(&unit.id, &row.removed);
                        rect class=(if gone { "goes" } else { "stays" }) x=(LABEL + column as f64 * PITCH) y=(y)
                            width=(PITCH - 2.0) height=(ROW - 5.0) {
                            title { (row.name) ": " (unit.id) @if gone { ", removed" } }
                        }
                    }
                    text x=(right) y=(y + 11.0) { (format!("{:.1} %", 100.0 * row.ratio)) }
                    text x=(right + 90.0) y=(y + 11.0) { (number(row.predicted)) }
                    text x=(right + 190.0) y=(y + 11.0) { (number(row.measured)) }
                }
            }
        })) }
    }
}
