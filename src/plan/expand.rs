//! Expands a pipeline into all its stages; a swept stage appears once for each combination of the values that reach it.
//!
//! Each combination is the file with these values set, read and checked like any other file. A stage that no swept
//! parameter reaches, directly or through its inputs, is the same in every combination and is kept once. The others are
//! kept once for each combination of the axes that reach them, under an id that names the values: `student@ratio=0.3`.

use std::collections::{BTreeSet, HashSet};

use super::branch::{Branch, branch_id};
use super::graph::Node;
use crate::base::StageId;
use crate::config::{Axis, ConfigError, Pipeline, PipelineFile, StageEntry, combinations};
use crate::stage::Stage;

/// A stage of a run: an entry of `stages:`, or in a sweep that entry with one combination of the values that reach it.
pub struct PlannedStage {
    /// Its name in a run: `id:`, and in a sweep also the values that reach it, `selection@ratio=0.3`.
    pub id: StageId,
    /// `use:` and `with:`.
    pub stage: Box<dyn Stage>,
    /// `id:`. Together with the seed it names the stage's random streams, so that a value gives the same bytes with and
    /// without a sweep.
    pub origin: StageId,
    /// The seed of its random numbers.
    pub seed: u64,
    /// The swept values that reach it.
    pub branch: Branch,
    /// The index of its entry in `stages:`, from 0.
    pub position: usize,
    /// For each of [`Stage::inputs`], the id of the stage that it refers to; `None` if the name is unknown.
    pub(super) reads: Vec<Option<StageId>>,
}

impl PlannedStage {
    /// The stage as a node of the graph.
    pub(super) fn node(&self) -> Node {
        let info = self.stage.info();
        let origin = (self.id != self.origin).then(|| self.origin.clone());
        Node { id: self.id.clone(), stage: info.name.to_owned(), output: info.output, origin }
    }
}

/// The expansion of a file.
pub(super) struct Expanded {
    pub(super) name: String,
    pub(super) seed: u64,
    pub(super) stages: Vec<PlannedStage>,
}

/// Expands a file's sweep; a file without a sweep has one combination.
pub(super) fn expand(file: &PipelineFile) -> Result<Expanded, ConfigError> {
    let axes = &file.sweep().axes;
    if axes.is_empty() {
        return Ok(single(file.pipeline()?));
    }
    let (mut head, mut stages, mut known) = (None, Vec::new(), HashSet::new());
    // Stages that no axis reaches are taken from the original file: in rewritten text, `1.10` becomes 1.1.
    let plain = file.pipeline().map(|pipeline| pipeline.stages).unwrap_or_default();
    let mut plain: Vec<_> = plain.into_iter().map(Some).collect();
    for number in 0..combinations(axes) {
        let chosen = choices(axes, number);
        let pipeline = file.combination(&chosen)?;
        head.get_or_insert_with(|| (pipeline.name.clone(), pipeline.seed));
        let of_axis = |axis: usize| (axes[axis].name.clone(), axes[axis].values[chosen[axis]].clone());
        let branch_of = |reached: BTreeSet<usize>| reached.into_iter().map(of_axis).collect();
        for mut planned in one(pipeline, axes, branch_of) {
            if !known.insert(planned.id.clone()) {
                continue;
            }
            if planned.branch.is_empty()
                && let Some(entry) = plain.get_mut(planned.position).and_then(Option::take)
            {
                planned.stage = entry.stage;
            }
            stages.push((number, planned));
        }
    }
    // Combination by combination, so that the first results come early; within a combination, in the file's order.
    stages.sort_by_key(|(number, planned)| (*number, planned.position));
    let (name, seed) = head.expect("no axis is empty, so there is a combination");
    Ok(Expanded { name, seed, stages: stages.into_iter().map(|(_, planned)| planned).collect() })
}

/// A pipeline without a sweep.
pub(super) fn single(pipeline: Pipeline) -> Expanded {
    let (name, seed) = (pipeline.name.clone(), pipeline.seed);
    Expanded { name, seed, stages: one(pipeline, &[], |_| Branch::new()) }
}

/// The stages of one combination; `branch_of` turns the axes that reach a stage into a branch.
fn one(
    pipeline: Pipeline,
    axes: &[Axis],
    branch_of: impl Fn(BTreeSet<usize>) -> Branch,
) -> Vec<PlannedStage> {
    let references = references(&pipeline.stages);
    let branches: Vec<_> = reached(&pipeline.stages, &references, axes).into_iter().map(branch_of).collect();
    let ids: Vec<_> =
        pipeline.stages.iter().zip(&branches).map(|(entry, branch)| branch_id(&entry.id, branch)).collect();
    let entries = pipeline.stages.into_iter().zip(branches).zip(references).enumerate();
    entries
        .map(|(position, ((entry, branch), reads))| PlannedStage {
            id: ids[position].clone(),
            stage: entry.stage,
            origin: entry.id,
            seed: pipeline.seed,
            branch,
            position,
            reads: reads.into_iter().map(|from| from.map(|from| ids[from].clone())).collect(),
        })
        .collect()
}

/// For each stage, the stages that its inputs name; `None` if there is no stage of that name.
fn references(stages: &[StageEntry]) -> Vec<Vec<Option<usize>>> {
    let named = |id: &StageId| stages.iter().position(|other| other.id == *id);
    stages.iter().map(|entry| entry.stage.inputs().iter().map(|input| named(input.stage)).collect()).collect()
}

/// The axes that reach each stage: those of its own parameters, and those that reach its inputs.
fn reached(stages: &[StageEntry], references: &[Vec<Option<usize>>], axes: &[Axis]) -> Vec<BTreeSet<usize>> {
    let own = |entry: &StageEntry| {
        let is_own = |axis: &Axis| match axis.parameter.split_once('.') {
            Some((id, _)) => id == entry.id.as_str(),
            None => entry.stage.info().seeded,
        };
        axes.iter().enumerate().filter(|(_, axis)| is_own(axis)).map(|(index, _)| index).collect()
    };
    let mut reached: Vec<BTreeSet<usize>> = stages.iter().map(own).collect();
    // Stages can be in any order, and references can form a cycle, which is reported later.
    loop {
        let mut grown = reached.clone();
        for (reader, reads) in references.iter().enumerate() {
            reads.iter().flatten().for_each(|&from| grown[reader].extend(&reached[from]));
        }
        if grown == reached {
            return reached;
        }
        reached = grown;
    }
}

/// The value of each axis in the combination with this number; the last axis varies fastest.
fn choices(axes: &[Axis], mut number: usize) -> Vec<usize> {
    let mut chosen = vec![0; axes.len()];
    for (place, axis) in chosen.iter_mut().zip(axes).rev() {
        *place = number % axis.values.len();
        number /= axis.values.len();
    }
    chosen
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic;

    use crate::plan::testing::{SWEPT, resolve};

    fn ids(sweep: &str) -> Vec<String> {
        let pipeline = resolve(&format!("{SWEPT}sweep:\n{sweep}")).expect("the sweep is right");
        pipeline.stages.iter().map(|entry| entry.id.to_string()).collect()
    }

    #[test]
    fn a_stage_appears_once_per_combination_that_reaches_it() {
        assert_eq!(
            ids("  first.ratio: [0.3, 0.70]\n"),
            ["m", "first@ratio=0.3", "second@ratio=0.3", "e", "first@ratio=0.7", "second@ratio=0.7"]
        );
        // Two axes of one name are distinguished; the second does not reach the first stage.
        let both = ids("  second.ratio: [0.1, 0.2, 0.4]\n  first.ratio: [0.3, 0.5]\n");
        assert_eq!(both.len(), 2 + 2 + 6);
        assert!(both.contains(&"second@first.ratio=0.5,second.ratio=0.4".to_owned()), "{both:?}");
        assert_eq!(both.iter().filter(|id| id.starts_with("first@")).count(), 2);
        // A seed reaches the stages that draw random numbers, and the stages that read those.
        assert_eq!(ids("  seed: [1, 2]\n").len(), 2 + 2 + 2);
    }

    #[test]
    fn ids_do_not_depend_on_order_or_added_values() {
        let one = ids("  first.ratio: [0.3]\n  m.dtype: [f32, bf16]\n");
        let other = ids("  m.dtype: [bf16, f32]\n  first.ratio: [0.5, 0.3]\n");
        assert!(one.iter().all(|id| other.contains(id)), "{one:?} {other:?}");
        assert!(one.contains(&"first@dtype=bf16,ratio=0.3".to_owned()));
    }

    #[test]
    fn unswept_stages_keep_the_text_of_the_file() {
        let text = SWEPT.replace("model: nano }", "model: 1.10 }");
        let pipeline =
            resolve(&format!("{text}sweep: {{ first.ratio: [0.3, 0.4] }}\n")).expect("it is right");
        let files = pipeline.stages[0].stage.files();
        assert_eq!(files[0].path, std::path::Path::new("1.10"));
        assert_eq!(pipeline.stages.len(), 2 + 2 * 2);
    }

    #[track_caller]
    fn wrong(sweep: &str, code: &str, place: (usize, usize), words: &[&str]) {
        let error = resolve(&format!("{SWEPT}sweep:\n{sweep}")).err().expect("the sweep is wrong");
        let text = format!("{error}; {}", error.help().map(|help| help.to_string()).unwrap_or_default());
        assert_eq!(error.code().map(|code| code.to_string()).as_deref(), Some(code), "{text}");
        assert_eq!(error.position(), Some(place), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text:?}"));
    }

    #[test]
    fn a_wrong_axis_is_underlined() {
        let (sweep, combination) = ("pipeline::sweep", "pipeline::combination");
        wrong("  frist.ratio: [0.3]\n", sweep, (10, 3), &["`frist.ratio`", "did you mean `first`"]);
        wrong("  ratio: [0.3]\n", sweep, (10, 3), &["`ratio`", "selection.ratio"]);
        wrong("  first.ratio: []\n", sweep, (10, 16), &["is empty"]);
        wrong("  first.ratio: 0.3\n", sweep, (10, 16), &["not a list"]);
        wrong("  first.ratio: [0.3, 0.30]\n", sweep, (10, 22), &["`0.3` is given twice"]);
        wrong("  first..ratio: [0.3]\n", sweep, (10, 3), &["a name is missing"]);
        let both = "  e.models: [{ model: m }]\n  e.models.model: [m]\n";
        wrong(both, sweep, (11, 3), &["`e.models.model`", "`e.models` is swept too"]);
        wrong("  [0.3]\n", sweep, (10, 3), &["not a mapping"]);
        wrong(
            "  first.rato: [0.3]\n",
            combination,
            (10, 16),
            &["did you mean `ratio`", "with first.rato=0.3"],
        );
        wrong(
            "  m.dtype: [f32, bf15]\n",
            combination,
            (10, 18),
            &["did you mean `bf16`", "with m.dtype=bf15"],
        );
        let two = "  second.ratio: [0.5, 0.6]\n  first.ratio: [0.3, 1.5]\n";
        wrong(two, combination, (11, 22), &["`ratio` is 1.5", "with second.ratio=0.5 first.ratio=1.5"]);
        wrong("  first.ratio: [0.3]\n  first.ratio: [0.4]\n", "pipeline::duplicate_key", (11, 3), &[]);
    }

    #[test]
    fn an_error_that_does_not_depend_on_the_sweep_is_shown_without_it() {
        let text = format!("{}sweep: {{ first.ratio: [0.3] }}\n", SWEPT.replace("seed: 1", "sede: 1"));
        let error = resolve(&text).err().expect("a key is wrong");
        assert_eq!(
            (error.position(), error.to_string()),
            (Some((3, 1)), "unknown key `sede` in the pipeline".to_owned())
        );
    }
}
