//! Which stages share a job. A job more is a wait in the queue more, so a stage joins the job of a stage that it reads, where
//! that delays no other stage: all that wait for the job wait for this stage too. They must ask for the same; where one of them
//! computes nothing, only for the same partition. Branches of a sweep keep to themselves, so that one that fails stops no other.

use std::collections::{BTreeMap, BTreeSet};

use super::asks::Asks;
use crate::plan::ResolvedPipeline;

/// The stages of a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Their indices, in the order of the graph.
    pub(super) stages: Vec<usize>,
    /// Whether none of them computes.
    pub(super) light: bool,
    pub(super) asks: Asks,
}

/// Groups the stages that have to be made, each group after those that it reads. `asks` has a row for each of them.
pub(super) fn groups(pipeline: &ResolvedPipeline, asks: &BTreeMap<usize, Asks>) -> Vec<Group> {
    let graph = &pipeline.graph;
    let branch = |index: usize| &pipeline.stages[index].branch;
    let mut groups: Vec<Option<Group>> = Vec::new();
    let mut group_of: BTreeMap<usize, usize> = BTreeMap::new();
    for &index in graph.order().iter().filter(|index| asks.contains_key(index)) {
        let light = !pipeline.stages[index].stage.info().computes;
        let mut joined = Group { stages: vec![index], light, asks: asks[&index].clone() };
        let sources: BTreeSet<usize> =
            graph.sources(index).iter().filter_map(|source| group_of.get(source).copied()).collect();
        let after = if sources.is_empty() { BTreeSet::new() } else { graph.with_descendants(index) };
        for source in sources {
            let Some(group) = &groups[source] else { continue };
            let is_light = (group.light || joined.light) && group.asks.partition == joined.asks.partition;
            let fits = is_light || group.asks == joined.asks;
            let mut readers = group.stages.iter().flat_map(|&stage| graph.readers(stage));
            let delays_none = readers.all(|reader| after.contains(&reader) || group.stages.contains(&reader));
            if fits && delays_none && branch(group.stages[0]) == branch(index) {
                joined = group.joined_by(joined);
                groups[source] = None;
            }
        }
        group_of.extend(joined.stages.iter().map(|&stage| (stage, groups.len())));
        groups.push(Some(joined));
    }
    groups.into_iter().flatten().collect()
}

impl Group {
    fn joined_by(&self, other: Self) -> Self {
        let asks = match (self.light, other.light) {
            (true, false) => other.asks.with(&self.asks),
            _ => self.asks.clone().with(&other.asks),
        };
        let stages = self.stages.iter().copied().chain(other.stages).collect();
        Self { stages, light: self.light && other.light, asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::testing::{SWEEP, ids, pipeline};

    /// The groups of a pipeline whose stages of these kinds ask for another memory than all others.
    fn grouped(text: &str, others: &[&str], cached: &[&str]) -> Vec<String> {
        let pipeline = pipeline(text);
        let asks =
            pipeline.stages.iter().enumerate().filter(|(_, stage)| !cached.contains(&stage.id.as_str()));
        let asks = asks.map(|(index, stage)| {
            let memory = others.contains(&stage.stage.info().name).then_some(1);
            (index, Asks { memory, ..Asks::default() })
        });
        let groups = groups(&pipeline, &asks.collect());
        groups.iter().map(|group| ids(&pipeline, &group.stages).join(" ")).collect()
    }

    #[test]
    fn a_branch_is_a_job_and_what_all_read_is_one_too() {
        assert_eq!(
            grouped(SWEEP, &[], &[]),
            [
                "teacher",
                "points scores",
                "held-out",
                "selection@ratio=0.3 student@ratio=0.3 retrained@ratio=0.3",
                "selection@ratio=0.5 student@ratio=0.5 retrained@ratio=0.5",
            ]
        );
    }

    #[test]
    fn stages_that_ask_for_something_else_have_their_own_jobs() {
        let groups = grouped(SWEEP, &["distill", "score"], &[]);
        assert_eq!(&groups[..4], ["teacher", "points", "scores", "held-out"]);
        // `prune` computes nothing and goes with the stage before it.
        assert_eq!(&groups[4..6], ["selection@ratio=0.3 student@ratio=0.3", "retrained@ratio=0.3"]);
    }

    #[test]
    fn what_is_cached_has_no_job() {
        let cached = ["teacher", "points", "scores", "held-out", "selection@ratio=0.3", "student@ratio=0.3"];
        let groups = grouped(SWEEP, &[], &cached);
        let other = "selection@ratio=0.5 student@ratio=0.5 retrained@ratio=0.5";
        assert_eq!(groups, ["retrained@ratio=0.3", other]);
    }

    #[test]
    fn a_job_waits_only_for_jobs_before_it() {
        for others in [&[][..], &["distill"], &["score", "select"], &["calibrate", "distill"]] {
            let pipeline = pipeline(SWEEP);
            let asks = pipeline.stages.iter().enumerate().map(|(index, stage)| {
                let memory = others.contains(&stage.stage.info().name).then_some(1);
                (index, Asks { memory, ..Asks::default() })
            });
            let mut made = BTreeSet::new();
            for group in groups(&pipeline, &asks.collect()) {
                for stage in group.stages {
                    assert!(pipeline.graph.sources(stage).is_subset(&made), "{others:?}: {stage}");
                    made.insert(stage);
                }
            }
            assert_eq!(made.len(), pipeline.stages.len(), "{others:?}");
        }
    }
}
