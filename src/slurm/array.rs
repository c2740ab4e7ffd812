//! Which branches of a sweep become the tasks of one array of jobs: groups of the same stages that ask for the same. One call of
//! `sbatch` submits them all, and a limit may say how many run at once.
//!
//! Slurm knows two ways for an array to wait: all tasks for the same jobs (`afterok`), or each task for the task of its number in
//! another array (`aftercorr`). So a branch never waits for another branch, and one that fails stops no other. Groups that wait for
//! something else are in other arrays, or jobs of their own.

use std::collections::BTreeSet;

use super::group::Group;
use super::record::JobId;
use crate::plan::ResolvedPipeline;

/// What one call of `sbatch` submits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// Which of the groups.
    pub(super) members: Vec<usize>,
    /// The number of each member's task; none for a job of its own.
    pub(super) numbers: Option<Vec<u32>>,
    /// What it waits for: `afterok:17:18`, `aftercorr:19`.
    pub(super) after: Option<String>,
}

/// Whether two groups do the same in two branches.
pub(super) fn are_alike(pipeline: &ResolvedPipeline, one: &Group, other: &Group) -> bool {
    let origins = |group: &Group| -> Vec<_> {
        group.stages.iter().map(|&index| pipeline.stages[index].origin.clone()).collect()
    };
    one.asks == other.asks && origins(one) == origins(other)
}

/// The first of some groups that are alike, together with as many others as can be in one array. `after` says which jobs each of them
/// waits for, and `most` how many tasks an array may have.
pub(super) fn first(after: &[BTreeSet<JobId>], most: usize) -> Array {
    let equal: Vec<usize> = (0..after.len()).filter(|&one| after[one] == after[0]).take(most).collect();
    let (paired, numbers) = paired(after);
    if paired.len() > 1 && paired.len() >= equal.len() {
        return Array { members: paired, numbers: Some(numbers), after: corresponding(&after[0]) };
    }
    let members = if equal.len() > 1 { equal } else { vec![0] };
    let numbers = (members.len() > 1).then(|| (0..).take(members.len()).collect());
    Array { members, numbers, after: condition("afterok", after[0].iter().map(JobId::to_string)) }
}

/// The groups that wait for tasks of the same arrays as the first, each for those of another number, and these numbers.
fn paired(after: &[BTreeSet<JobId>]) -> (Vec<usize>, Vec<u32>) {
    let (mut members, mut numbers) = (Vec::new(), Vec::new());
    let Some(number) = number(&after[0]) else { return (members, numbers) };
    let jobs = |ids: &BTreeSet<JobId>| -> BTreeSet<(u64, bool)> {
        ids.iter().map(|id| (id.job, id.task.is_some())).collect()
    };
    for (member, ids) in after.iter().enumerate() {
        let own = if member == 0 { Some(number) } else { self::number(ids) };
        if let Some(own) = own.filter(|own| jobs(ids) == jobs(&after[0]) && !numbers.contains(own)) {
            members.push(member);
            numbers.push(own);
        }
    }
    (members, numbers)
}

/// The number of the tasks that a group waits for, if it is the same for all of them.
fn number(ids: &BTreeSet<JobId>) -> Option<u32> {
    let numbers: BTreeSet<u32> = ids.iter().filter_map(|id| id.task).collect();
    if numbers.len() == 1 { numbers.first().copied() } else { None }
}

/// What an array waits for whose first member waits for these.
fn corresponding(ids: &BTreeSet<JobId>) -> Option<String> {
    let jobs = |of_arrays: bool| {
        ids.iter().filter(move |id| id.task.is_some() == of_arrays).map(|id| id.job.to_string())
    };
    let conditions = [condition("afterok", jobs(false)), condition("aftercorr", jobs(true))];
    Some(conditions.into_iter().flatten().collect::<Vec<_>>().join(","))
}

/// `afterok:17:18_2`.
pub(super) fn condition(kind: &str, ids: impl Iterator<Item = String>) -> Option<String> {
    let ids: Vec<String> = ids.collect();
    (!ids.is_empty()).then(|| format!("{kind}:{}", ids.join(":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `17 19_0`: what one group waits for.
    fn ids(text: &str) -> BTreeSet<JobId> {
        text.split_whitespace().map(|id| id.parse().expect("a number")).collect()
    }

    fn found(after: &[&str], most: usize) -> (Vec<usize>, Option<Vec<u32>>, Option<String>) {
        let Array { members, numbers, after } =
            first(&after.iter().map(|one| ids(one)).collect::<Vec<_>>(), most);
        (members, numbers, after)
    }

    fn waits(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn branches_that_wait_for_the_same_are_an_array() {
        assert_eq!(found(&["17 18"; 3], 1000), (vec![0, 1, 2], Some(vec![0, 1, 2]), waits("afterok:17:18")));
        assert_eq!(
            found(&[""; 3], 2),
            (vec![0, 1], Some(vec![0, 1]), None),
            "no more than the cluster allows"
        );
        assert_eq!(found(&[""; 3], 0), (vec![0], None, None), "a cluster without arrays");
        assert_eq!(found(&["17", "18", "17"], 9), (vec![0, 2], Some(vec![0, 1]), waits("afterok:17")));
        assert_eq!(found(&["17"], 9), (vec![0], None, waits("afterok:17")));
    }

    #[test]
    fn a_branch_waits_for_its_own_task_and_for_no_other() {
        let after = ["17 20_0 21_0", "17 20_2 21_2", "17 20_5 21_5"];
        assert_eq!(
            found(&after, 9),
            (vec![0, 1, 2], Some(vec![0, 2, 5]), waits("afterok:17,aftercorr:20:21"))
        );
        // A second axis: each two wait for one task.
        let after = ["20_0", "20_0", "20_0", "20_1", "20_1", "20_1"];
        assert_eq!(found(&after, 9), (vec![0, 1, 2], Some(vec![0, 1, 2]), waits("afterok:20_0")));
        let after = ["20_0", "20_0", "20_1", "20_1", "20_2", "20_2"];
        assert_eq!(found(&after, 9), (vec![0, 2, 4], Some(vec![0, 1, 2]), waits("aftercorr:20")));
        // One whose source is cached or has another number waits for something else.
        assert_eq!(found(&["20_0", "", "20_1"], 9), (vec![0, 2], Some(vec![0, 1]), waits("aftercorr:20")));
        assert_eq!(found(&["20_0 21_1", "20_1 21_2"], 9), (vec![0], None, waits("afterok:20_0:21_1")));
        assert_eq!(found(&["20_0", "20"], 9), (vec![0], None, waits("afterok:20_0")));
    }
}
