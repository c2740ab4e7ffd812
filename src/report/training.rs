//! How a student was retrained, or is being retrained at this moment: curves, validations and their pictures.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use maud::{Markup, html};

use super::chart::{Axis, Chart, Series, plot};
use super::embedded;
use super::tables::scroll;
use crate::distill::history::{self, FeatureLoss, HISTORY_FILE};
use crate::distill::validation::{self, ValidationLine};
use crate::distill::{ByKind, HistoryLine};

/// Long curves are averaged down to about this many points, each of which has a tooltip.
const CURVE_POINTS: usize = 100;

/// As many validations are shown with their pictures: a page of a few megabytes. The first and the last are among them.
const PICTURED: usize = 8;

/// What a training wrote.
pub(super) struct Training {
    lines: Vec<HistoryLine>,
    validations: Vec<ValidationLine>,
    prompts: Vec<String>,
    /// The pictures as PNG, by steps: one for each prompt, if it is there.
    pictures: Vec<(u64, Vec<Option<Vec<u8>>>)>,
    /// Whether a process is at work on it; `None` if the training is finished.
    running: Option<bool>,
}

impl Training {
    /// Reads the artefact of a training, or with `running` the checkpoint of one that is not finished. A model that no
    /// training made has none.
    pub(super) fn open(folder: &Path, running: Option<bool>) -> io::Result<Option<Self>> {
        let path = folder.join(HISTORY_FILE);
        let lines = if running.is_some() { history::read_unfinished(&path) } else { history::read(&path) };
        let lines = match lines {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lines => lines?,
        };
        let (validations, prompts) = (validation::read(folder)?, validation::prompts(folder));
        let drawn = validation::drawn(folder)?;
        let mut steps: Vec<u64> = drawn.iter().map(|picture| picture.step).collect();
        steps.dedup();
        let picture =
            |step: u64, prompt: usize| fs::read(validation::picture_path(folder, step, prompt)).ok();
        let row = |step: u64| (step, (0..prompts.len()).map(|prompt| picture(step, prompt)).collect());
        let pictures = spread(&steps, PICTURED).into_iter().map(row).collect();
        Ok(Some(Self { lines, validations, prompts, pictures, running }))
    }

    /// The section of the page, with about `room` bytes of pictures.
    pub(super) fn section(&self, stage: &str, room: usize) -> Markup {
        let done = self.lines.last().map_or(0, |line| line.step + 1);
        html! {
            h2 { "Retraining: " code { (stage) } }
            @match self.running {
                Some(true) => { p { b { "It is running." } " The curves show what is written of it: " (done) " steps." } }
                Some(false) => { p { b { "It is not finished" } " and not running now. The curves end after " (done) " steps; the next run resumes it." } }
                None => {}
            }
            (losses(&self.lines))
            @if !self.validations.is_empty() { (validations(&self.validations)) }
            @if !self.pictures.is_empty() { (self.pictures(room)) }
        }
    }

    fn pictures(&self, room: usize) -> Markup {
        let all: Vec<Option<Vec<u8>>> = self.pictures.iter().flat_map(|(_, row)| row.clone()).collect();
        let is_tiny = all.iter().flatten().all(|png| embedded::is_tiny(png));
        let mut sources = embedded::sources(all, room).into_iter();
        let row =
            |(step, row): &(u64, Vec<Option<Vec<u8>>>)| (*step, sources.by_ref().take(row.len()).collect());
        let rows: Vec<(u64, Vec<Option<String>>)> = self.pictures.iter().map(row).collect();
        html! {
            h3 { "Pictures while it trained" }
            p { "All pictures of a column have the same prompt and the same initial noise." }
            (scroll("Pictures while it trained", &html! {
                table class=(if is_tiny { "pictures tiny" } else { "pictures" }) {
                    tr { th class="number" { "step" } @for prompt in &self.prompts { th { (prompt) } } }
                    @for (step, row) in &rows {
                        tr {
                            td class="number" { (step) }
                            @for (source, prompt) in row.iter().zip(&self.prompts) {
                                td { @if let Some(source) = source { img src=(source) alt=(format!("step {step}: {prompt}")); } }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// At most `count` of some numbers, evenly spread, with the first and the last.
fn spread(numbers: &[u64], count: usize) -> Vec<u64> {
    if numbers.len() <= count {
        return numbers.to_vec();
    }
    (0..count).map(|index| numbers[index * (numbers.len() - 1) / (count - 1)]).collect()
}

/// The losses on held-out rows.
fn validations(lines: &[ValidationLine]) -> Markup {
    let curve = |name: &str, pick: fn(&ValidationLine) -> f32| Series {
        name: name.to_owned(),
        points: lines.iter().map(|line| (line.step as f64, f64::from(pick(line)))).collect(),
        line: true,
    };
    html! {
        p { "On held-out rows, with the weights that the training would end with at that step:" }
        (plot(
            &Chart { x: Axis::linear("step"), y: Axis::log("loss on held-out rows") },
            &[
                curve("task", |line| line.task),
                curve("output", |line| line.output),
                curve("total, weighted", |line| line.total),
            ],
        ))
    }
}

/// The training curves: every term, plain and weighted, and the gradients where they were measured.
fn losses(lines: &[HistoryLine]) -> Markup {
    let curve = |name: &str, pick: &dyn Fn(&HistoryLine) -> Option<f32>| {
        let point = |line: &HistoryLine| Some((line.step as f64, f64::from(pick(line)?)));
        Series {
            name: name.to_owned(),
            points: thinned(lines.iter().filter_map(point).collect()),
            line: true,
        }
    };
    let maps: BTreeSet<&str> =
        lines.iter().flat_map(|line| line.features.keys()).map(String::as_str).collect();
    let features = |pick: fn(&FeatureLoss) -> f32| -> Vec<Series> {
        maps.iter().map(|path| curve(path, &|line| line.features.get(*path).map(pick))).collect()
    };
    let kinds = |pick: fn(&HistoryLine) -> Option<ByKind>| {
        [
            curve("task", &|line| Some(pick(line)?.task)),
            curve("output", &|line| Some(pick(line)?.output)),
            curve("features", &|line| Some(pick(line)?.features)),
        ]
    };
    let log = |y| Chart { x: Axis::linear("step"), y: Axis::log(y) };
    html! {
        p {
            "Means over elements, before the update of each step. The plain loss of a feature map is large if the teacher's features are large; "
            "normalisation gives each feature map a similar weight. Weights of kinds of loss include those of the pipeline file."
        }
        div class="plots" {
        (plot(
            &log("loss"),
            &[
                curve("task", &|line| Some(line.task)),
                curve("output", &|line| Some(line.output)),
                curve("total, weighted", &|line| Some(line.total)),
            ],
        ))
        (plot(&log("kind of loss, weighted"), &kinds(|line| Some(line.weighted))))
        @if lines.iter().any(|line| line.gradient_norms.is_some()) {
            (plot(&log("L2 norm of the gradient of each kind"), &kinds(|line| line.gradient_norms)))
        }
        (plot(&log("feature loss, plain"), &features(|loss| loss.plain)))
        (plot(&log("feature loss, weighted"), &features(|loss| loss.weighted)))
        }
    }
}

/// Means of equally long runs of points, so that a long noisy curve stays readable.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let run = points.len().div_ceil(CURVE_POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(run).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn some_of_many_validations_are_shown_with_first_and_last() {
        assert_eq!(spread(&[0, 5, 9], 8), [0, 5, 9]);
        let many: Vec<u64> = (0..100).collect();
        let shown = spread(&many, 8);
        assert_eq!((shown.len(), shown[0], shown[7]), (8, 0, 99));
    }
}
