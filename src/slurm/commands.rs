//! Slurm's commands: the only place that calls them and reads what they print.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::SlurmError;
use super::record::JobId;
use crate::base::shown;
use crate::run::ExitCode;

/// How many numbers a command line takes: far below what any system limits.
const MOST_IDS: usize = 500;

/// Separates the columns of what is read. A comment may contain it, so that comes last.
const COLUMN: char = '|';

/// The columns of `squeue`: number, state, reason, machines, time, comment.
const COLUMNS: &str = "%i|%T|%r|%N|%M|%k";

/// What Slurm says of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobState {
    /// `RUNNING`, `PENDING`, `TIMEOUT`.
    pub(super) state: String,
    /// Why it waits.
    pub(super) reason: Option<String>,
    /// Where it runs.
    pub(super) nodes: Option<String>,
    /// For how long.
    pub(super) elapsed: Option<String>,
    /// The exit code of its script, if only that tells how it ended.
    pub(super) exit: Option<String>,
    /// The folder of its run.
    comment: String,
}

impl JobState {
    /// Whether it runs or will run.
    pub(super) fn is_live(&self) -> bool {
        let over = [
            "COMPLETED",
            "FAILED",
            "CANCELLED",
            "TIMEOUT",
            "OUT_OF_MEMORY",
            "NODE_FAIL",
            "BOOT_FAIL",
            "DEADLINE",
            "PREEMPTED",
            "REVOKED",
        ];
        !over.contains(&self.state.as_str())
    }

    /// Whether it is over but for tidying up, or about to be queued again.
    pub(super) fn is_ending(&self) -> bool {
        self.state == "COMPLETING"
    }

    pub(super) fn is_of(&self, run: &Path) -> bool {
        self.comment == run.to_string_lossy()
    }

    /// How a job ended that said nothing itself, and the exit code that fits.
    pub(super) fn ended(&self, id: JobId) -> (String, ExitCode) {
        let (text, code) = match self.state.as_str() {
            "OUT_OF_MEMORY" => ("ran out of memory; ask for more in the setting `slurm`", ExitCode::Memory),
            "TIMEOUT" => ("reached its time limit", ExitCode::Interrupted),
            "CANCELLED" => ("was cancelled", ExitCode::Interrupted),
            "PREEMPTED" => ("was taken away for another job", ExitCode::Interrupted),
            "NODE_FAIL" | "BOOT_FAIL" => ("lost its machine", ExitCode::Interrupted),
            "COMPLETED" => ("ended, and its artefact is gone", ExitCode::File),
            other => {
                let exit = self.exit.as_deref().map_or(String::new(), |exit| format!(", exit code {exit}"));
                return (format!("job {id} ended: {other}{exit}"), ExitCode::Stage);
            }
        };
        (format!("job {id} {text}"), code)
    }
}

/// Fails where jobs cannot be submitted at all.
pub(super) fn check() -> Result<(), SlurmError> {
    call("sbatch", &["--version"], |_| "check the installation of Slurm's client".to_owned()).map(drop)
}

/// The states of these jobs. One that Slurm has forgotten is left out.
pub(super) fn states(ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>, SlurmError> {
    let mut states = queue()?;
    states.retain(|id, _| ids.contains(id));
    let old: Vec<JobId> =
        ids.iter().filter(|id| !states.get(id).is_some_and(JobState::is_live)).copied().collect();
    for some in old.chunks(MOST_IDS) {
        // Where there is no accounting, the queue is all that is known.
        let list = some.iter().map(JobId::to_string).collect::<Vec<_>>().join(",");
        let columns =
            ["--allocations", "--parsable2", "--noheader", "--format=JobID,State,ExitCode", "--jobs", &list];
        let told = call("sacct", &columns, |_| String::new()).unwrap_or_default();
        for (id, state) in told.lines().filter_map(accounted) {
            // The accounting is late: it may still have the state before the end that the queue knows.
            let known = states.entry(id).or_insert_with(|| state.clone());
            if known.state == state.state {
                known.exit = state.exit;
            }
        }
    }
    Ok(states)
}

/// The user's jobs in the queue, and those that ended a short time ago.
pub(super) fn queue() -> Result<BTreeMap<JobId, JobState>, SlurmError> {
    let told = call("squeue", &["--me", "--noheader", "--array", "--states=all", "-o", COLUMNS], |_| {
        "the controller of the cluster must answer: `scontrol ping`".to_owned()
    })?;
    Ok(told.lines().filter_map(queued).collect())
}

fn queued(line: &str) -> Option<(JobId, JobState)> {
    let mut columns = line.splitn(6, COLUMN);
    let id = columns.next()?.trim().parse().ok()?;
    let state = columns.next()?.to_owned();
    let mut next = || columns.next().map(str::to_owned).filter(|text| !text.is_empty() && text != "None");
    let (reason, nodes, elapsed) = (next(), next(), next());
    Some((id, JobState { state, reason, nodes, elapsed, exit: None, comment: next().unwrap_or_default() }))
}

fn accounted(line: &str) -> Option<(JobId, JobState)> {
    let mut columns = line.split(COLUMN);
    let id = columns.next()?.parse().ok()?;
    // `CANCELLED by 1000`.
    let state = columns.next()?.split(' ').next()?.to_owned();
    // `1:0`: the exit code and the signal.
    let exit = columns.next()?.split(':').next().map(str::to_owned);
    Some((id, JobState { state, exit, ..JobState::default() }))
}

/// Submits a script as a job that is held, and gives its number. `after` says for which jobs it waits: `afterok:17:18`.
pub(super) fn submit(script: &Path, after: Option<&str>) -> Result<u64, SlurmError> {
    let script = script.to_string_lossy();
    let after = after.map(|after| format!("--dependency={after}"));
    let mut arguments = vec!["--parsable", "--hold", "--kill-on-invalid-dep=yes"];
    arguments.extend(after.as_deref());
    arguments.push(&script);
    let told = call("sbatch", &arguments, |_| {
        format!(
            "change the setting `slurm` in laptop-diff.yaml, which makes the lines of {script}; `sinfo` lists the partitions"
        )
    })?;
    // `17`, or `17;cluster`.
    let id = told.trim().split(';').next().and_then(|id| id.parse().ok());
    id.ok_or_else(|| SlurmError::Refused {
        command: "sbatch",
        said: shown::brief(told.trim()).into_owned(),
        help: "that is no number of a job: is another program of this name in the way?".to_owned(),
    })
}

/// Lets jobs start that were submitted; arrays as a whole.
pub(super) fn release(ids: &[JobId]) -> Result<(), SlurmError> {
    let jobs: BTreeSet<u64> = ids.iter().map(|id| id.job).collect();
    let jobs: Vec<String> = jobs.iter().map(u64::to_string).collect();
    for some in jobs.chunks(MOST_IDS) {
        call("scontrol", &["release", &some.join(",")], |_| "run the same command again".to_owned())?;
    }
    Ok(())
}

/// How many tasks an array may have on this cluster: one less than MaxArraySize (slurm.conf(5)).
pub(super) fn most_tasks() -> usize {
    // Where it is not told, the default.
    let told = call("scontrol", &["show", "config"], |_| String::new()).unwrap_or_default();
    let size = told.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize")?.split('=').nth(1));
    size.and_then(|size| size.trim().parse::<usize>().ok()).unwrap_or(1001).saturating_sub(1)
}

/// Cancels jobs. One that is over is left alone.
pub(super) fn cancel(ids: &[JobId]) -> Result<(), SlurmError> {
    for some in ids.chunks(MOST_IDS) {
        let some: Vec<String> = some.iter().map(JobId::to_string).collect();
        let some: Vec<&str> = std::iter::once("--quiet").chain(some.iter().map(String::as_str)).collect();
        call("scancel", &some, |_| "run the same command again".to_owned())?;
    }
    Ok(())
}

/// What a command prints.
fn call(
    command: &'static str,
    arguments: &[&str],
    help: impl FnOnce(&str) -> String,
) -> Result<String, SlurmError> {
    let ended = Command::new(command).args(arguments).stdin(Stdio::null()).output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ended {
        Ok(Output { status, stdout, .. }) if status.success() => Ok(text(&stdout)),
        Ok(Output { status, stderr, .. }) => {
            // `sbatch: error: invalid partition specified: nope`.
            let lines = text(&stderr);
            let prefix = format!("{command}: error: ");
            let lines: Vec<&str> =
                lines.lines().map(|line| line.strip_prefix(&prefix).unwrap_or(line)).collect();
            let said = if lines.is_empty() { status.to_string() } else { lines.join("; ") };
            let help = help(&said);
            Err(SlurmError::Refused { command, said, help })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SlurmError::Absent { command }),
        Err(error) => {
            let help = "check that it is a program that you may run".to_owned();
            Err(SlurmError::Refused { command, said: error.to_string(), help })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(job: u64) -> JobId {
        JobId { job, task: None }
    }

    /// As Slurm 22.05 prints them.
    #[test]
    fn lines_of_the_queue_and_of_the_accounting_are_read() {
        let (id, state) = queued("17|PENDING|Dependency||0:00|/runs/a|b").expect("a job");
        assert_eq!(
            (id, state.state.as_str(), state.reason.as_deref()),
            (plain(17), "PENDING", Some("Dependency"))
        );
        assert!(state.is_live() && state.nodes.is_none() && state.is_of(Path::new("/runs/a|b")));
        let (_, state) = queued("18|RUNNING|None|n[0-1]|0:02|/runs/a").expect("a job");
        assert_eq!((state.nodes.as_deref(), state.elapsed.as_deref()), (Some("n[0-1]"), Some("0:02")));
        assert_eq!(state.reason, None);
        assert_eq!(queued("19_[1-3]|PENDING|None||0:00|"), None, "several tasks in a line");
        let (id, _) = queued("19_2|PENDING|JobHeldUser||0:00|/runs/a").expect("a task");
        assert_eq!(id, JobId { job: 19, task: Some(2) });
        let (id, state) = accounted("20|CANCELLED by 1000|0:15").expect("a job");
        assert_eq!((id, state.state.as_str(), state.is_live()), (plain(20), "CANCELLED", false));
        let (id, state) = accounted("21|FAILED|127:0").expect("a job");
        assert_eq!(state.ended(id), ("job 21 ended: FAILED, exit code 127".to_owned(), ExitCode::Stage));
    }
}
